/* neon.c - the kernels for every aarch64 CPU: int8 dots by widening multiplies, two (int8) or eight (int4) products an int16
 * lane.
 *
 * Compile with -march=armv8-a -ffp-contract=off; the table is absent elsewhere.
 */
#include "../isa.h"

#if defined(__aarch64__) && !defined(__AARCH64EB__)
enum { TILE = 2, SUMS = 8, PAIRED = 0 };
#include "arm.h"

/* The 4 activations of group g, repeated for 4 rows. */
#define REPEAT(q, g) vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(q), g))
/* Half of a vector of weights times activations: rows 0 and 1 (low) or 2 and 3 (high) of the 4. */
#define MUL_LOW(w, x) vmull_s8(vget_low_s8(w), vget_low_s8(x))
#define MAC_LOW(s, w, x) vmlal_s8(s, vget_low_s8(w), vget_low_s8(x))

/* Sums of columns (0, 1), (2, 3) of a group, of row 0, row 1 in s[8 i + 2 j], of rows 2 and 3 in the next.  Two products of 127^2
 * fit int16. */
INLINE void dot8(vi *s, const int8_t *w, const int8_t *x, int64_t step, const int form, const int N) {
    int8x16_t q[TILE], r[TILE], u[TILE], v[TILE];
    UNROLL for (int i = 0; i < N; i++) {
        q[i] = vld1q_s8(x + i * step);
        r[i] = vld1q_s8(x + i * step + 16);
    }
#define STEP(G)                                                                                                                  \
    UNROLL for (int i = 0; i < N; i++) {                                                                                         \
        u[i] = REPEAT(q[i], G);                                                                                                  \
        v[i] = REPEAT(r[i], G);                                                                                                  \
    }                                                                                                                            \
    UNROLL for (int j = 0; j < 4; j++) {                                                                                         \
        weights c = load_weights(w, G, j, form);                                                                                 \
        KEEP(c.low);                                                                                                             \
        KEEP(c.high);                                                                                                            \
        UNROLL for (int i = 0; i < N; i++) {                                                                                     \
            vi *to = s + 8 * i + 2 * j;                                                                                          \
            to[0] = vpadalq_s16(to[0], MAC_LOW(MUL_LOW(c.low, u[i]), c.high, v[i]));                                             \
            to[1] = vpadalq_s16(to[1], vmlal_high_s8(vmull_high_s8(c.low, u[i]), c.high, v[i]));                                 \
            KEEP(to[0]);                                                                                                         \
            KEEP(to[1]);                                                                                                         \
        }                                                                                                                        \
    }
    STEP(0)
    STEP(1)
    STEP(2)
    STEP(3)
#undef STEP
}
INLINE void dot8_rows(vi *d, const vi *s, const int form, const int N) {
    (void)form;
    UNROLL for (int i = 0; i < 4 * N; i++) { d[i] = vpaddq_s32(s[2 * i], s[2 * i + 1]); }
}

/* All of a block in int16: 8 products of 15 * 127 a lane, 16 after the addition of pairs, are at most 30480. */
INLINE void dot4(vi *d, const int8_t *w, const int8_t *x, int64_t step, const int form, const int N) {
    int8x16_t q[TILE], r[TILE], u[TILE], v[TILE];
    int16x8_t s[8 * TILE];
    UNROLL for (int i = 0; i < N; i++) {
        q[i] = vld1q_s8(x + i * step);
        r[i] = vld1q_s8(x + i * step + 16);
    }
#define STEP(G)                                                                                                                  \
    UNROLL for (int i = 0; i < N; i++) {                                                                                         \
        u[i] = REPEAT(q[i], G);                                                                                                  \
        v[i] = REPEAT(r[i], G);                                                                                                  \
    }                                                                                                                            \
    UNROLL for (int j = 0; j < 4; j++) {                                                                                         \
        weights c = load_weights(w, G, j, form);                                                                                 \
        KEEP(c.low);                                                                                                             \
        KEEP(c.high);                                                                                                            \
        UNROLL for (int i = 0; i < N; i++) {                                                                                     \
            int16x8_t *to = s + 8 * i + 2 * j;                                                                                   \
            to[0] = (G) ? MAC_LOW(to[0], c.low, u[i]) : MUL_LOW(c.low, u[i]);                                                    \
            to[1] = (G) ? vmlal_high_s8(to[1], c.low, u[i]) : vmull_high_s8(c.low, u[i]);                                        \
            to[0] = MAC_LOW(to[0], c.high, v[i]);                                                                                \
            to[1] = vmlal_high_s8(to[1], c.high, v[i]);                                                                          \
            KEEP(to[0]);                                                                                                         \
            KEEP(to[1]);                                                                                                         \
        }                                                                                                                        \
    }
    STEP(0)
    STEP(1)
    STEP(2)
    STEP(3)
#undef STEP
    UNROLL for (int i = 0; i < 4 * N; i++) { d[i] = vpaddlq_s16(vpaddq_s16(s[2 * i], s[2 * i + 1])); }
}

static const frugal_isa table = ARM_TABLE("neon");
const frugal_isa *const fr_isa_neon = &table;
#else
const frugal_isa *const fr_isa_neon = NULL;
#endif
