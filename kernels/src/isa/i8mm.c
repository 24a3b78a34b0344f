/* i8mm.c - the kernels for aarch64 with int8 matrix products (smmla, ARMv8.6): two tokens by two rows by eight columns at once.
 *
 * Compile with -march=armv8.2-a+dotprod+i8mm -ffp-contract=off; without those flags the table is absent.
 */
#include "../isa.h"

#if defined(__aarch64__) && !defined(__AARCH64EB__) && defined(__ARM_FEATURE_DOTPROD) && defined(__ARM_FEATURE_MATMUL_INT8)
enum { TILE = 4, SUMS = 4, PAIRED = 1 };
#include "arm.h"

/* x[g] = of two tokens, groups g and g + 4 of 4 activations. */
OP void pair_tokens(int8x16_t *x, const int8_t *a, const int8_t *b) {
    const int32x4_t a0 = vreinterpretq_s32_s8(vld1q_s8(a)), a1 = vreinterpretq_s32_s8(vld1q_s8(a + 16));
    const int32x4_t b0 = vreinterpretq_s32_s8(vld1q_s8(b)), b1 = vreinterpretq_s32_s8(vld1q_s8(b + 16));
    const int64x2_t al = vreinterpretq_s64_s32(vzip1q_s32(a0, a1)), ah = vreinterpretq_s64_s32(vzip2q_s32(a0, a1));
    const int64x2_t bl = vreinterpretq_s64_s32(vzip1q_s32(b0, b1)), bh = vreinterpretq_s64_s32(vzip2q_s32(b0, b1));
    x[0] = vreinterpretq_s8_s64(vzip1q_s64(al, bl));
    x[1] = vreinterpretq_s8_s64(vzip2q_s64(al, bl));
    x[2] = vreinterpretq_s8_s64(vzip1q_s64(ah, bh));
    x[3] = vreinterpretq_s8_s64(vzip2q_s64(ah, bh));
}

/* s[8 i + 2 j + h]: tokens 2 i and 2 i + 1 by rows 4 j + 2 h and the next.  The last of an odd number of tokens is its own
 * partner. */
INLINE void smmla_block(vi *s, const int8_t *w, const int8_t *x, int64_t step, const int N) {
    int8x16_t q[TILE / 2][4];
    UNROLL for (int i = 0; i < N; i += 2) { pair_tokens(q[i / 2], x + i * step, x + (i + 1 < N ? i + 1 : i) * step); }
    UNROLL for (int g = 0; g < 4; g++) {
        UNROLL for (int j = 0; j < 4; j++) {
            const weights c = load_weights(w, g, j, PAIRS);
            UNROLL for (int i = 0; i < (N + 1) / 2; i++) {
                vi *to = s + 8 * i + 2 * j;
                to[0] = vmmlaq_s32(to[0], q[i][g], c.low);
                to[1] = vmmlaq_s32(to[1], q[i][g], c.high);
                KEEP(to[0]);
                KEEP(to[1]);
            }
        }
    }
}

/* Few tokens take the weights as they are, by sdot. */
INLINE void dot8(vi *s, const int8_t *w, const int8_t *x, int64_t step, const int form, const int N) {
    if (form == PAIRS) {
        smmla_block(s, w, x, step, N);
    } else {
        sdot_block(s, w, x, step, form, N);
    }
}
INLINE void dot8_rows(vi *d, const vi *s, const int form, const int N) {
    UNROLL for (int i = 0; i < 4 * N; i++) {
        if (form == PAIRS) {
            const vi *from = s + i / 8 * 8 + i % 4 * 2;
            const int64x2_t a = vreinterpretq_s64_s32(from[0]), b = vreinterpretq_s64_s32(from[1]);
            d[i] = vreinterpretq_s32_s64(i % 8 < 4 ? vzip1q_s64(a, b) : vzip2q_s64(a, b));
        } else {
            d[i] = s[i];
        }
    }
}
INLINE void dot4(vi *d, const int8_t *w, const int8_t *x, int64_t step, const int form, const int N) {
    vi s[SUMS * TILE];
    UNROLL for (int i = 0; i < SUMS * TILE; i++) { s[i] = viset(0); }
    dot8(s, w, x, step, form, N);
    dot8_rows(d, s, form, N);
}

static const frugal_isa table = ARM_TABLE("i8mm");
const frugal_isa *const fr_isa_i8mm = &table;
#else
const frugal_isa *const fr_isa_i8mm = NULL;
#endif
