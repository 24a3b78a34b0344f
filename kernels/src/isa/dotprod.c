/* dotprod.c - the kernels for aarch64 with the dot product of ARMv8.2 (sdot): four int8 products and their sum an int32 lane.
 *
 * Compile with -march=armv8.2-a+dotprod -ffp-contract=off; without those flags the table is absent.
 */
#include "../isa.h"

#if defined(__aarch64__) && !defined(__AARCH64EB__) && defined(__ARM_FEATURE_DOTPROD)
enum { TILE = 4, SUMS = 4, PAIRED = 0 };
#include "arm.h"

INLINE void dot8(vi *s, const int8_t *w, const int8_t *x, int64_t step, const int form, const int N) {
    sdot_block(s, w, x, step, form, N);
}
INLINE void dot8_rows(vi *d, const vi *s, const int form, const int N) {
    (void)form;
    UNROLL for (int i = 0; i < 4 * N; i++) { d[i] = s[i]; }
}
INLINE void dot4(vi *d, const int8_t *w, const int8_t *x, int64_t step, const int form, const int N) {
    UNROLL for (int i = 0; i < 4 * N; i++) { d[i] = viset(0); }
    sdot_block(d, w, x, step, form, N);
}

static const frugal_isa table = ARM_TABLE("dotprod");
const frugal_isa *const fr_isa_dotprod = &table;
#else
const frugal_isa *const fr_isa_dotprod = NULL;
#endif
