/* fb_ops.c - what an int8 network has besides convolutions, in portable C; the linker keeps what a model calls. */
#include "fb.h"
#include "fb_round.h"

int32_t __attribute__((noinline)) fb_code_slow(int32_t acc, float scale, int32_t zy, int32_t lo, int32_t hi) {
    return fb_code(acc, scale, zy, lo, hi);
}

/* The sum or maximum of a channel over a window; count: its pixels inside x. */
static int32_t pool_window(const fb_pool *l, const int8_t *x, int32_t top, int32_t left, int32_t *count) {
    int32_t acc = l->kind == 2 ? -128 : 0, n = 0;
    for (int32_t ky = 0; ky < l->kh; ky++) {
        const int32_t iy = top + ky * l->dh;
        if (iy < 0 || iy >= l->h)
            continue;
        for (int32_t kx = 0; kx < l->kw; kx++) {
            const int32_t ix = left + kx * l->dw;
            if (ix < 0 || ix >= l->w)
                continue;
            const int32_t v = x[(iy * l->w + ix) * l->c];
            acc = l->kind == 2 ? fb_max(acc, v) : acc + v;
            n++;
        }
    }
    *count = n;
    return acc;
}

/* One window that is the whole image: a walk down each channel. */
static int32_t whole_sum(const int8_t *x, int32_t pixels, int32_t c) {
    int32_t sum = 0;
    for (; pixels > 0; pixels--, x += c)
        sum += *x;
    return sum;
}

void fb_pool_run(const fb_pool *l, const int8_t *x, int8_t *y) {
    const int whole = l->oh * l->ow == 1 && l->kh == l->h && l->kw == l->w && l->pt == 0 && l->pl == 0 && l->kind != 2;
    for (int32_t oy = 0; oy < l->oh; oy++) {
        for (int32_t ox = 0; ox < l->ow; ox++) {
            float m = 0;
            int32_t known = -1;
            for (int32_t k = 0; k < l->c; k++) {
                int32_t count = l->h * l->w;
                int32_t v =
                    whole ? whole_sum(x + k, count, l->c) : pool_window(l, x + k, oy * l->sh - l->pt, ox * l->sw - l->pl, &count);
                if (count != known) /* once a window: the division is dear */
                    m = l->m / (float)(l->kind == 1 ? l->kh * l->kw : count), known = count;
                if (count == 0)
                    v = l->zy;
                else if (l->kind != 2)
                    v = fb_nearest((float)(v - count * l->zx) * m, -128 - l->zy, 127 - l->zy) + l->zy;
                *y++ = (int8_t)v;
            }
        }
    }
}

void fb_softmax_run(const fb_softmax *l, const uint32_t *data, const int8_t *x, int8_t *y) {
    const float *table = (const float *)(const void *)((const uint8_t *)data + l->table);
    for (int32_t r = 0; r < l->rows; r++, x += l->n, y += l->n) {
        int32_t most = -128;
        float sum = 0;
        for (int32_t i = 0; i < l->n; i++)
            most = fb_max(most, x[i]);
        for (int32_t i = 0; i < l->n; i++)
            sum += table[most - x[i]];
        for (int32_t i = 0; i < l->n; i++) {
            const float e = table[most - x[i]] / sum;
            y[i] = (int8_t)(fb_nearest(e * l->m, -128 - l->zy, 127 - l->zy) + l->zy);
        }
    }
}

void fb_lookup_run(const fb_lookup *l, const uint32_t *data, const int8_t *x, void *y) {
    const uint8_t *table = (const uint8_t *)data + l->table;
    for (int32_t i = 0; i < l->n; i++)
        memcpy((uint8_t *)y + i * l->size, table + (x[i] + 128) * l->size, (size_t)l->size);
}

void fb_codes_run(const fb_codes *l, const float *x, int8_t *y) {
    for (int32_t k = 0; k < l->c; k++) {
        for (int32_t i = 0; i < l->pixels; i++)
            y[i * l->c + k] = (int8_t)(fb_nearest(*x++ / l->scale, -128 - l->zy, 127 - l->zy) + l->zy);
    }
}

void fb_copy_run(const fb_copy *l, const void *x, void *y) {
    const uint8_t *from = x;
    uint8_t *to = y;
    for (int32_t i = 0; i < l->blocks; i++, from += l->step_x, to += l->step_y)
        memmove(to, from, (size_t)l->bytes); /* one block may lie upon itself: an image that moves up in its own buffer */
}

void fb_clamp(int8_t *y, int32_t n, int32_t lo, int32_t hi) {
    for (int32_t i = 0; i < n; i++)
        y[i] = (int8_t)fb_keep(y[i], lo, hi);
}

void fb_flip(int8_t *y, const int8_t *x, int32_t n) {
    for (int32_t i = 0; i < n; i++)
        y[i] = (int8_t)(x[i] ^ 0x80);
}

uint32_t fb_checksum(const uint32_t *words, uint32_t n, uint32_t start) {
    uint32_t a = start, b = start;
    for (const uint32_t *end = words + n; words < end; words++) {
        a += *words + 1;
        b += a;
    }
    return a ^ (b << 16 | b >> 16);
}
