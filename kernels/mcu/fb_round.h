/* fb_round.h - from a sum to a code, the same bits with and without a floating-point unit. */
#ifndef FB_ROUND_H
#define FB_ROUND_H
#include <stdint.h>
#include <string.h>

#if defined(__ARM_FP) || defined(__riscv_flen) || defined(__aarch64__) || defined(__x86_64__)
#define FB_HARD_FLOAT 1
#else
#define FB_HARD_FLOAT 0
#endif

static inline int32_t fb_min(int32_t a, int32_t b) { return a < b ? a : b; }
static inline int32_t fb_max(int32_t a, int32_t b) { return a > b ? a : b; }
static inline int32_t fb_keep(int32_t v, int32_t lo, int32_t hi) { return fb_min(fb_max(v, lo), hi); }
static inline uint32_t fb_bits(float v) {
    uint32_t u;
    memcpy(&u, &v, 4);
    return u;
}

/* Half to even of v once it is between lo and hi (integers below 2^22), the lower where v is not a number: adding 1.5 * 2^23
 * leaves nothing behind the point. */
static inline int32_t fb_nearest(float v, int32_t lo, int32_t hi) {
    const float l = (float)lo, h = (float)hi;
    v = v > l ? v : l;
    v = v < h ? v : h;
    return (int32_t)(fb_bits(v + 0x1.8p23f) - 0x4b400000u);
}

/* rhe((float)acc * scale) + zy within [lo, hi], whatever acc and scale are. */
static inline int32_t fb_code(int32_t acc, float scale, int32_t zy, int32_t lo, int32_t hi) {
    return fb_nearest((float)acc * scale, lo - zy, hi - zy) + zy;
}
/* The same out of line, for where it is rarely needed. */
int32_t fb_code_slow(int32_t acc, float scale, int32_t zy, int32_t lo, int32_t hi);

#if !FB_HARD_FLOAT
/* The same by integers for |acc| < 2^23, 2^-20 <= scale < 2^-2: scale = m 2^-e with 24 bits of m, and acc m to the nearest, cut
 * off 16 bits below.  Where the product is so close to the middle of two codes that the float product could have been rounded
 * across it (one output in 10^5), the float formula decides. */
static inline int32_t fb_code_small(int32_t acc, float scale, int32_t zy, int32_t lo, int32_t hi) {
    const uint32_t bits = fb_bits(scale), e = 150 - (bits >> 23), a = (uint32_t)(acc < 0 ? -acc : acc);
#if defined(__ARM_ARCH_6M__) /* no product of 64 bits */
    const uint32_t mh = (bits >> 16 & 0x7f) | 0x80, ml = bits & 0xffff, ah = a >> 16, al = a & 0xffff;
    const uint32_t p = ((ah * mh) << 16) + ah * ml + al * mh + (al * ml >> 16);
#else
    const uint32_t p = (uint32_t)((uint64_t)a * ((bits & 0x7fffff) | 0x800000) >> 16);
#endif
    const uint32_t sh = e - 16, one = UINT32_C(1) << sh, r = p + (one >> 1), win = e > 32 ? UINT32_C(1) << (e - 32) : 1;
    int32_t q = (int32_t)(r >> sh);
    if (((r + win) & (one - 1)) <= 2 * win)
        return fb_code_slow(acc, scale, zy, lo, hi);
    q = acc < 0 ? -q : q;
    return fb_keep(q + zy, lo, hi);
}
#else
static inline int32_t fb_code_small(int32_t acc, float scale, int32_t zy, int32_t lo, int32_t hi) {
    return fb_code(acc, scale, zy, lo, hi);
}
#endif
#endif
