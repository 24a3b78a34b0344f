/* fb_portable.c - the back end for cores without DSP instructions: Cortex-M0, M0+, M3, RISC-V, anything with a C compiler.
 *
 * Two pixels share one multiplication: X = x0 * 65536 + x1 in int32, t = w X + w' X'; the low half |w x1 + w' x1'| is at most
 * 2 * 128 * 127 < 32768 (weights of -128 are refused), so lo = (int16_t)t and hi = (t - lo) >> 16 are the two sums, exact.
 * Weights are plain rows [co][K], K padded with zeros to a multiple of 4; consts: fb_channel, zx folded into the bias.
 * Little-endian.
 */
#include "fb.h"
#include "fb_round.h"

static const fb_channel *consts_of(const fb_conv *l, const uint32_t *data) {
    return (const fb_channel *)(const void *)((const uint8_t *)data + l->consts);
}
static const int32_t *weights_of(const fb_conv *l, const uint32_t *data) {
    return (const int32_t *)(const void *)((const uint8_t *)data + l->weights);
}
static int32_t depth_of(const fb_conv *l) { return (l->kh * l->kw * l->c + 3) & ~3; }

/* The kernel's window at a pixel: d = x * 65536, or (second) d += x. */
static void gather(const fb_conv *l, const int8_t *x, int32_t oy, int32_t ox, int32_t *d, int second) {
    const int32_t left = ox * l->sw - l->pl, c = l->c;
    int32_t iy = oy * l->sh - l->pt;
    for (int32_t ky = 0; ky < l->kh; ky++, iy++) {
        for (int32_t kx = 0, ix = left; kx < l->kw; kx++, ix++) {
            if (iy >= 0 && iy < l->h && ix >= 0 && ix < l->w) {
                const int8_t *p = x + (iy * l->w + ix) * c, *end = p + c;
                if (second) {
                    do
                        *d++ += *p++;
                    while (p != end);
                } else {
                    do
                        *d++ = (int32_t)*p++ * 65536;
                    while (p != end);
                }
            } else {
                for (int32_t k = c; k > 0; k--, d++)
                    *d = second ? *d + l->zx : l->zx * 65536;
            }
        }
    }
}

/* Four products of both pixels: hi of t and lo of t are added to a and b. */
#define FB_PAIR(first, second)                                                                                                   \
    do {                                                                                                                         \
        const int32_t t = (first) + (second), lo = (int16_t)t;                                                                   \
        b += lo;                                                                                                                 \
        a += (t - lo) >> 16;                                                                                                     \
    } while (0)

/* All output channels of two neighbouring pixels. */
static void two_pixels(const fb_conv *l, const uint32_t *data, const int32_t *window, int32_t depth, int8_t *y, int both) {
    const int32_t *w = weights_of(l, data), *end = window + depth;
    const fb_channel *k = consts_of(l, data);
    for (int32_t o = 0; o < l->co; o++, k++) {
        int32_t a = k->bias, b = a;
        const int32_t *p = window;
        do {
            int32_t v = *w++, v1 = v >> 8, v2 = v >> 16;
            FB_PAIR((int8_t)v * p[0], (int8_t)v1 * p[1]);
            FB_PAIR((int8_t)v2 * p[2], (v >> 24) * p[3]);
        } while ((p += 4) != end);
        y[o] = (int8_t)fb_code_small(a, k->scale, l->zy, l->lo, l->hi);
        if (both)
            y[l->co + o] = (int8_t)fb_code_small(b, k->scale, l->zy, l->lo, l->hi);
    }
}

void fb_conv_run(const fb_conv *l, const uint32_t *data, const int8_t *x, int8_t *y, void *tmp) {
    const int32_t depth = depth_of(l), n = l->oh * l->ow;
    int32_t *window = tmp, ox = 0, oy = 0;
    for (int32_t i = 0; i < n; i += 2, y += 2 * l->co) {
        const int both = i + 1 < n;
        for (int32_t k = depth - 4; k < depth; k++)
            window[k] = 0;
        for (int second = 0; second <= both; second++) {
            gather(l, x, oy, ox, window, second);
            if (++ox == l->ow)
                ox = 0, oy++;
        }
        two_pixels(l, data, window, depth, y, both);
    }
}

/* One pixel: its codes are widened once. */
void fb_fc_run(const fb_conv *l, const uint32_t *data, const int8_t *x, int8_t *y, void *tmp) {
    const int32_t *w = weights_of(l, data), depth = depth_of(l), c = l->kh * l->kw * l->c;
    const fb_channel *k = consts_of(l, data);
    int32_t *wide = tmp, *end = wide + depth;
    for (int32_t i = 0; i < depth; i++)
        wide[i] = i < c ? x[i] : 0;
    for (int32_t o = 0; o < l->co; o++, k++) {
        int32_t a = k->bias;
        for (const int32_t *p = wide; p != end; p += 4) {
            const int32_t v = *w++;
            a += (int8_t)v * p[0] + (int8_t)(v >> 8) * p[1] + (int8_t)(v >> 16) * p[2] + (v >> 24) * p[3];
        }
        y[o] = (int8_t)fb_code_small(a, k->scale, l->zy, l->lo, l->hi);
    }
}

/* Weights [c][9].  Taps outside read a row of zx in tmp (c bytes). */
void fb_dw3_run(const fb_conv *l, const uint32_t *data, const int8_t *x, int8_t *y, void *tmp) {
    int8_t *border = tmp;
    memset(border, l->zx, (size_t)l->c);
    for (int32_t oy = 0; oy < l->oh; oy++) {
        for (int32_t ox = 0; ox < l->ow; ox++) {
            const int8_t *p[9], *w = (const int8_t *)weights_of(l, data);
            const int32_t iy = oy * l->sh - l->pt, ix = ox * l->sw - l->pl;
            for (int32_t t = 0; t < 9; t++) {
                const int32_t r = iy + t / 3, q = ix + t % 3;
                p[t] = r >= 0 && r < l->h && q >= 0 && q < l->w ? x + (r * l->w + q) * l->c : border;
            }
            const fb_channel *k = consts_of(l, data);
            for (int32_t o = 0; o < l->c; o++, k++, w += 9) {
                int32_t a = k->bias;
                a += p[0][o] * w[0] + p[1][o] * w[1] + p[2][o] * w[2];
                a += p[3][o] * w[3] + p[4][o] * w[4] + p[5][o] * w[5];
                a += p[6][o] * w[6] + p[7][o] * w[7] + p[8][o] * w[8];
                *y++ = (int8_t)fb_code_small(a, k->scale, l->zy, l->lo, l->hi);
            }
        }
    }
}
