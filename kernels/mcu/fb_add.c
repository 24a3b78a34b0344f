/* fb_add.c - the sum of two int8 images of different scales. */
#include "fb.h"
#include "fb_round.h"

static __attribute__((noinline, unused)) int32_t add_float(const fb_add *l, int32_t a, int32_t b) {
    const float p = (float)a * l->ma, q = (float)b * l->mb;
    return fb_nearest(p + q, l->lo - l->zy, l->hi - l->zy) + l->zy;
}

/* Elements [from, n) one at a time. */
static __attribute__((unused)) void add_rest(const fb_add *l, const int8_t *a, const int8_t *b, int8_t *y, int32_t from) {
    for (int32_t i = from; i < l->n; i++)
        y[i] = (int8_t)add_float(l, a[i] - l->za, b[i] - l->zb);
}

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2)
#include <arm_mve.h>

void fb_add_run(const fb_add *l, const int8_t *a, const int8_t *b, int8_t *y) {
    const int32x4_t lo = vdupq_n_s32(l->lo), hi = vdupq_n_s32(l->hi);
    const int32_t za = -l->za, zb = -l->zb, zy = l->zy, whole = l->n & ~3;
    const float ma = l->ma, mb = l->mb;
    for (int32_t i = 0; i < whole; i += 4) {
        const float32x4_t p = vmulq_n_f32(vcvtq_f32_s32(vaddq_n_s32(vldrbq_s32(a + i), za)), ma);
        const float32x4_t q = vmulq_n_f32(vcvtq_f32_s32(vaddq_n_s32(vldrbq_s32(b + i), zb)), mb);
        const int32x4_t t = vqaddq_n_s32(vcvtnq_s32_f32(vaddq_f32(p, q)), zy);
        vstrbq_s32(y + i, vminq_s32(vmaxq_s32(t, lo), hi));
    }
    add_rest(l, a, b, y, whole);
}
#elif defined(__ARM_FEATURE_DSP) && defined(__ARM_FP)
#include <arm_acle.h>

static inline uint32_t word(const int8_t *p) {
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
/* rhe(a ma + b mb): VMLA rounds the product, then the sum. */
static inline uint32_t sum(int32_t a, int32_t b, float ma, float mb) {
    float t = (float)a * ma;
    __asm("vmla.f32 %0, %1, %2\n vcvtr.s32.f32 %0, %0" : "+t"(t) : "t"((float)b), "t"(mb));
    return fb_bits(t);
}
/* Halfwords e and f << 16, plus zy + 128, cut to 0..255. */
static inline uint32_t pair(uint32_t e, uint32_t f, uint32_t zero) {
    uint32_t r;
    __asm("pkhbt %0, %1, %2, lsl #16\n sadd16 %0, %0, %3\n usat16 %0, #8, %0" : "=&r"(r) : "r"(e), "r"(f), "r"(zero));
    return r;
}

void fb_add_run(const fb_add *l, const int8_t *a, const int8_t *b, int8_t *y) {
    const int32_t za = -l->za, zb = -l->zb;
    const uint32_t zero = (uint16_t)(l->zy + 128) * 0x10001u;
    const float ma = l->ma, mb = l->mb;
    const int small = (l->ia | l->ib) != 0; /* no sum leaves 16 bits */
    int32_t i = 0;
    for (; small && i + 4 <= l->n; i += 4) {
        const uint32_t u = word(a + i), v = word(b + i);
        const uint32_t e0 = sum((int8_t)u + za, (int8_t)v + zb, ma, mb);
        const uint32_t e1 = sum((int8_t)(u >> 8) + za, (int8_t)(v >> 8) + zb, ma, mb);
        const uint32_t e2 = sum((int8_t)(u >> 16) + za, (int8_t)(v >> 16) + zb, ma, mb);
        const uint32_t e3 = sum((int8_t)(u >> 24) + za, (int8_t)(v >> 24) + zb, ma, mb);
        const uint32_t r = (pair(e0, e2, zero) | pair(e1, e3, zero) << 8) ^ 0x80808080u;
        memcpy(y + i, &r, 4);
    }
    if (l->lo > -128 || l->hi < 127)
        fb_clamp(y, i, l->lo, l->hi);
    add_rest(l, a, b, y, i);
}
#elif FB_HARD_FLOAT
void fb_add_run(const fb_add *l, const int8_t *a, const int8_t *b, int8_t *y) {
    const int32_t za = l->za, zb = l->zb, zy = l->zy, lo = l->lo - zy, hi = l->hi - zy;
    const float ma = l->ma, mb = l->mb;
    for (int32_t i = 0; i < l->n; i++) {
        const float p = (float)(a[i] - za) * ma, q = (float)(b[i] - zb) * mb;
        y[i] = (int8_t)(fb_nearest(p + q, lo, hi) + zy);
    }
}
#else
/* In steps of 2^-21: 255 (|ma| + |mb|) < 1000, so that both products and their sum fit in 32 bits; the integers ma and mb stand
 * for are off by 255 * 2^-22 each at most, the three roundings of float by 2^-15 each: closer than 2^-12 to the middle of two
 * codes float decides. */
void fb_add_run(const fb_add *l, const int8_t *a, const int8_t *b, int8_t *y) {
    const uint32_t window = 1u << 9;
    const int small = (l->ia | l->ib) != 0;
    for (int32_t i = 0; i < l->n; i++) {
        const int32_t p = a[i] - l->za, q = b[i] - l->zb;
        const int32_t t = (int32_t)((uint32_t)p * (uint32_t)l->ia + (uint32_t)q * (uint32_t)l->ib + (1u << 20));
        if (!small || (((uint32_t)t + window) & 0x1fffff) <= 2 * window)
            y[i] = (int8_t)add_float(l, p, q);
        else
            y[i] = (int8_t)fb_keep((t >> 21) + l->zy, l->lo, l->hi);
    }
}
#endif
