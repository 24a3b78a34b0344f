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

/* The sums of both pixels over a row of weights, of the first in the low half of the result.  The low half of t holds the second
 * pixel's products, and lends to the high half where they are negative. */
#if defined(__ARM_ARCH_6M__) &&                                                                                                  \
    defined(__thumb__) /* the compiler keeps the sums, not the ends, in the low registers, and spills */
#define FB_SPLIT(t) "sxth r4, " t "\n subs " t ", " t ", r4\n asrs " t ", " t ", #16\n add %[b], r4\n add %[a], " t "\n"
#define FB_DOTS(name, middle, sum, end_of_four)                                                                                  \
    static __attribute__((noinline)) uint64_t name(const int32_t *p, const int32_t *end, const int32_t *w, int32_t bias) {       \
        int32_t a = bias, b = bias;                                                                                              \
        __asm volatile(".syntax unified\n1: ldmia %[w]!, {r2}\n ldmia %[p]!, {r3, r4, r5, r6}\n"                                 \
                       "sxtb r7, r2\n muls r3, r7\n asrs r2, r2, #8\n sxtb r7, r2\n muls r4, r7\n adds r3, r3, r4\n" middle      \
                       "asrs r2, r2, #8\n sxtb r7, r2\n muls r5, r7\n" sum "asrs r2, r2, #8\n muls r6, r2\n" end_of_four         \
                       "cmp %[p], %[end]\n bne 1b\n"                                                                             \
                       : [p] "+l"(p), [w] "+l"(w), [a] "+h"(a), [b] "+h"(b)                                                      \
                       : [end] "h"(end)                                                                                          \
                       : "r2", "r3", "r4", "r5", "r6", "r7", "cc", "memory");                                                    \
        return (uint32_t)a | (uint64_t)(uint32_t)b << 32;                                                                        \
    }
FB_DOTS(dots_by_two, FB_SPLIT("r3"), "", "adds r5, r5, r6\n" FB_SPLIT("r5"))
FB_DOTS(dots_by_four, "", "adds r3, r3, r5\n", "adds r3, r3, r6\n" FB_SPLIT("r3"))
#else
#define FB_DOTS(name, between)                                                                                                   \
    static __attribute__((noinline)) uint64_t name(const int32_t *p, const int32_t *end, const int32_t *w, int32_t bias) {       \
        int32_t a = bias, b = bias;                                                                                              \
        do {                                                                                                                     \
            int32_t v = *w++, t = (int8_t)v * p[0], lo;                                                                          \
            v >>= 8;                                                                                                             \
            t += (int8_t)v * p[1];                                                                                               \
            v >>= 8;                                                                                                             \
            between;                                                                                                             \
            t += (int8_t)v * p[2];                                                                                               \
            v >>= 8;                                                                                                             \
            t += v * p[3];                                                                                                       \
            lo = (int16_t)t;                                                                                                     \
            b += lo;                                                                                                             \
            a += (t - lo) >> 16;                                                                                                 \
        } while ((p += 4) != end);                                                                                               \
        return (uint32_t)a | (uint64_t)(uint32_t)b << 32;                                                                        \
    }
FB_DOTS(dots_by_two, (lo = (int16_t)t, b += lo, a += (t - lo) >> 16, t = 0))
FB_DOTS(dots_by_four, (void)0)
#endif

/* All output channels of two neighbouring pixels.  wzero of a channel: whether four products always fit in the low half. */
static void two_pixels(const fb_conv *l, const uint32_t *data, const int32_t *window, int32_t depth, int8_t *y, int both) {
    const int32_t *w = weights_of(l, data), *end = window + depth;
    const fb_channel *k = consts_of(l, data), *last = k + l->co;
    const int32_t zy = l->zy, lo = l->lo, hi = l->hi, co = l->co;
    for (; k < last; k++, w += depth / 4, y++) {
        const uint64_t sums = (k->wzero ? dots_by_four : dots_by_two)(window, end, w, k->bias);
        y[0] = (int8_t)fb_code_small((int32_t)(uint32_t)sums, k->scale, zy, lo, hi);
        if (both)
            y[co] = (int8_t)fb_code_small((int32_t)(uint32_t)(sums >> 32), k->scale, zy, lo, hi);
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
            for (int32_t t = 0, r = iy; r < iy + 3; r++) {
                for (int32_t q = ix; q < ix + 3; q++, t++)
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
