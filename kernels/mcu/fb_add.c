/* fb_add.c - the sum of two int8 images of different scales. */
#include "fb.h"
#include "fb_round.h"

static __attribute__((noinline)) int32_t add_float(const fb_add *l, int32_t a, int32_t b) {
    const float p = (float)a * l->ma, q = (float)b * l->mb;
    return fb_nearest(p + q, l->lo - l->zy, l->hi - l->zy) + l->zy;
}

#if FB_HARD_FLOAT
void fb_add_run(const fb_add *l, const int8_t *a, const int8_t *b, int8_t *y) {
    const int32_t za = l->za, zb = l->zb, zy = l->zy, lo = l->lo - zy, hi = l->hi - zy;
    const float ma = l->ma, mb = l->mb;
    (void)add_float;
    for (const int8_t *end = a + l->n; a < end;) {
        const float p = (float)(*a++ - za) * ma, q = (float)(*b++ - zb) * mb;
        *y++ = (int8_t)(fb_nearest(p + q, lo, hi) + zy);
    }
}
#else
/* In steps of 2^-21: |t| < 512, so that both products and their sum fit, and each of the multipliers, the products of float and
 * their sum is within 2^-14 of the truth; closer than 2^-12 to the middle of two codes float decides. */
void fb_add_run(const fb_add *l, const int8_t *a, const int8_t *b, int8_t *y) {
    const uint32_t window = 1u << 9;
    for (int32_t i = 0; i < l->n; i++) {
        const int32_t p = a[i] - l->za, q = b[i] - l->zb, t = p * l->ia + q * l->ib + (1 << 20);
        if ((((uint32_t)t + window) & 0x1fffff) <= 2 * window || (l->ia | l->ib) == 0)
            y[i] = (int8_t)add_float(l, p, q);
        else
            y[i] = (int8_t)fb_keep((t >> 21) + l->zy, l->lo, l->hi);
    }
}
#endif
