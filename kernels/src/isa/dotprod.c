/* dotprod.c - the kernels for aarch64 with the dot product of ARMv8.2 (sdot): four int8 products and their sum an int32 lane.
 *
 * Compile with -march=armv8.2-a+dotprod -ffp-contract=off; without those flags the table is absent.
 */
#include "../isa.h"

#if defined(__aarch64__) && !defined(__AARCH64EB__) && defined(__ARM_FEATURE_DOTPROD)
enum { TILE = 4, SUMS = 4 };
#include "arm.h"

/* KEEP pins the written order of steps: without it gcc loads far ahead and spills.  No effect on values. */
#define KEEP(v) __asm__ volatile("" : "+w"(v))
/* sdot by element takes the activations where they are. */
INLINE void dots(vi *s, const int8_t *w, const int8_t *x, int64_t step, const int packed, const int N) {
    int8x16_t q[TILE], r[TILE];
    UNROLL for (int i = 0; i < N; i++) {
        q[i] = vld1q_s8(x + i * step);
        r[i] = vld1q_s8(x + i * step + 16);
    }
#define STEP(G)                                                                                                                  \
    UNROLL for (int j = 0; j < 4; j++) {                                                                                         \
        const weights c = load_weights(w, G, j, packed);                                                                         \
        UNROLL for (int i = 0; i < N; i++) {                                                                                     \
            s[4 * i + j] = vdotq_laneq_s32(vdotq_laneq_s32(s[4 * i + j], c.low, q[i], G), c.high, r[i], G);                      \
            KEEP(s[4 * i + j]);                                                                                                  \
        }                                                                                                                        \
    }
    STEP(0)
    STEP(1)
    STEP(2)
    STEP(3)
#undef STEP
}
INLINE void dot8(vi *s, const int8_t *w, const int8_t *x, int64_t step, const int N) { dots(s, w, x, step, 0, N); }
INLINE void dot8_rows(vi *d, const vi *s, const int N) {
    UNROLL for (int i = 0; i < 4 * N; i++) { d[i] = s[i]; }
}
INLINE void dot4(vi *d, const int8_t *w, const int8_t *x, int64_t step, const int packed, const int N) {
    UNROLL for (int i = 0; i < 4 * N; i++) { d[i] = viset(0); }
    dots(d, w, x, step, packed, N);
}

static const frugal_isa table = ARM_TABLE("dotprod");
const frugal_isa *const fr_isa_dotprod = &table;
#else
const frugal_isa *const fr_isa_dotprod = NULL;
#endif
