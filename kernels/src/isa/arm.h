/* arm.h - what the aarch64 files share: the vector operations of simd.h for 128-bit vectors, and every kernel around the int8
 * dots.
 *
 * Before it, an instruction set's file defines TILE (tokens whose dots stay in registers), SUMS (int32 vectors of dot8's sums for
 * a token), the types and the three operations declared below; after it, nothing but the table's name.
 */
#ifndef FRUGAL_ARM_H
#define FRUGAL_ARM_H
#include <arm_neon.h>
#include <string.h>

#include "../isa.h"

enum { VW = 4 };
typedef float32x4_t vf;
typedef int32x4_t vi;
typedef uint32x4_t vm;
#define OP static inline __attribute__((always_inline))
OP vf vset(float x) { return vdupq_n_f32(x); }
OP vi viset(int32_t x) { return vdupq_n_s32(x); }
OP vf vld(const float *p) { return vld1q_f32(p); }
OP void vst(float *p, vf v) { vst1q_f32(p, v); }
/* Halves, exact; back to nearest even. */
OP vf vhalf(const uint16_t *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
OP vf vbfloat(const uint16_t *p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
OP void vsthalf(uint16_t *p, vf v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
/* The first n of 1 to 3 elements, then zeros. */
OP vf vld_n(const float *p, int n) {
    if (n == 1) {
        return vld1q_lane_f32(p, vset(0.0f), 0);
    }
    const vf v = vcombine_f32(vld1_f32(p), vdup_n_f32(0.0f));
    return n == 2 ? v : vld1q_lane_f32(p + 2, v, 2);
}
OP void vst_n(float *p, vf v, int n) {
    if (n == 1) {
        vst1q_lane_f32(p, v, 0);
        return;
    }
    vst1_f32(p, vget_low_f32(v));
    if (n == 3) {
        vst1q_lane_f32(p + 2, v, 2);
    }
}
OP vi vcasti(vf a) { return vreinterpretq_s32_f32(a); }
OP vf vcastf(vi a) { return vreinterpretq_f32_s32(a); }
OP vi viand(vi a, vi b) { return vandq_s32(a, b); }
OP vi vior(vi a, vi b) { return vorrq_s32(a, b); }
OP vi vixor(vi a, vi b) { return veorq_s32(a, b); }
OP vi viadd(vi a, vi b) { return vaddq_s32(a, b); }
OP vi visub(vi a, vi b) { return vsubq_s32(a, b); }
OP vi vimax(vi a, vi b) { return vmaxq_s32(a, b); }
#define vishl vshlq_n_s32
#define visra vshrq_n_s32
OP vf vkeep(vf v, int n) {
    static const int32_t lane[4] = {0, 1, 2, 3};
    return vcastf(viand(vcasti(v), vreinterpretq_s32_u32(vcltq_s32(vld1q_s32(lane), viset(n)))));
}
OP vf vadd(vf a, vf b) { return vaddq_f32(a, b); }
OP vf vsub(vf a, vf b) { return vsubq_f32(a, b); }
OP vf vmul(vf a, vf b) { return vmulq_f32(a, b); }
OP vf vdiv(vf a, vf b) { return vdivq_f32(a, b); }
OP vf vfma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
OP vf vfnma(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); } /* fma(-a, b, c) */
/* Not fmax, which gives NaN when either is one: a > b ? a : b. */
OP vf vmax(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
OP vf vmin(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
OP vf vsqrt(vf a) { return vsqrtq_f32(a); }
OP vf vrint(vf a) { return vrndnq_f32(a); }
OP vf vfloor(vf a) { return vrndmq_f32(a); }
OP vf vcvt(vi a) { return vcvtq_f32_s32(a); }
OP vm vlt(vf a, vf b) { return vcltq_f32(a, b); }
OP vm vge(vf a, vf b) { return vcgeq_f32(a, b); }
OP vm vne(vf a, vf b) { return vmvnq_u32(vceqq_f32(a, b)); }
OP vm vodd(vi a) { return vtstq_s32(a, viset(1)); }
OP vf vsel(vm m, vf a, vf b) { return vbslq_f32(m, a, b); }
OP unsigned vbits(vm m) { return vmaxvq_u32(m); } /* not 0: some lane holds */
/* Lanes j += j + 8, += j + 4, += j + 2, += j + 1. */
OP float fold16(const vf v[4]) {
    const vf a = vadd(vadd(v[0], v[2]), vadd(v[1], v[3]));
    return vaddv_f32(vadd_f32(vget_low_f32(a), vget_high_f32(a)));
}
OP float vmax_lanes(vf a) { return vmaxvq_f32(a); } /* no lane is a NaN */
OP int32_t vimax_lanes(vi a) { return vmaxvq_s32(a); }
/* 32 floats times inv to int8, nearest even (a NaN to 0); returns their sum. */
OP int32_t quantize32(int8_t *q, const float *x, float inv, const int limit) {
    vi v[8];
    int8x8_t b[4];
    for (int i = 0; i < 8; i++) {
        vf f = vmul(vld(x + 4 * i), vset(inv));
        v[i] = vcvtnq_s32_f32(limit ? vmax(vset(-127.0f), vmin(vset(127.0f), f)) : f);
    }
    for (int i = 0; i < 4; i++) {
        b[i] = vmovn_s16(vcombine_s16(vmovn_s32(v[2 * i]), vmovn_s32(v[2 * i + 1])));
        vst1_s8(q + 8 * i, b[i]);
    }
    return vaddvq_s32(viadd(viadd(viadd(v[0], v[1]), viadd(v[2], v[3])), viadd(viadd(v[4], v[5]), viadd(v[6], v[7]))));
}
OP void vprefetchw(const float *p) { __builtin_prefetch(p, 1, 3); }
OP void vprefetch(const float *p) { __builtin_prefetch(p, 0, 3); }
OP void vput16(int16_t *p, const vf v[4]) {
    for (int i = 0; i < 4; i++) {
        vst1_s16(p + 4 * i, vmovn_s32(vcvtnq_s32_f32(v[i])));
    }
}
OP void vturn(vf r[4]) {
    const float32x4x2_t a = vtrnq_f32(r[0], r[1]), b = vtrnq_f32(r[2], r[3]);
    r[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    r[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    r[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    r[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}
#include "attend.h"
#include "table.h"

/* KEEP holds a value in a register and pins the written order of steps: without it gcc loads far ahead and spills.  No effect on
 * values. */
#define KEEP(v) __asm__ volatile("" : "+w"(v))

/* Weights of a block of 32 columns: groups g and g + 4 (g < 4) of 4 columns, rows 4 j .. 4 j + 3, in one of the forms
 * BYTES [8][16][4], as in W8_P16;  NIBBLES, as in W4_P16;  PAIRS: BYTES after pair_weights. */
enum { BYTES, NIBBLES, PAIRS };
typedef struct weights {
    int8x16_t low, high;
} weights;
OP weights load_weights(const int8_t *w, int g, int j, const int form) {
    const int8_t *p = w + 64 * g + 16 * j;
    if (form == NIBBLES) {
        const uint8x16_t c = vreinterpretq_u8_s8(vld1q_s8(p));
        return (weights){vreinterpretq_s8_u8(vandq_u8(c, vdupq_n_u8(15))), vreinterpretq_s8_u8(vshrq_n_u8(c, 4))};
    }
    return (weights){vld1q_s8(p), vld1q_s8(p + 256)};
}
/* The two groups side by side, so that 8 bytes are of one row: low has rows 4 j and 4 j + 1, high the others. */
OP weights pair_weights(weights w) {
    const int32x4_t a = vreinterpretq_s32_s8(w.low), b = vreinterpretq_s32_s8(w.high);
    return (weights){vreinterpretq_s8_s32(vzip1q_s32(a, b)), vreinterpretq_s8_s32(vzip2q_s32(a, b))};
}
/* A block of BYTES or NIBBLES to BYTES or, if PAIRED, to PAIRS. */
OP void store_weights(int8_t *d, const int8_t *w, const int form) {
    UNROLL for (int i = 0; i < 16; i++) {
        weights c = load_weights(w, i / 4, i % 4, form);
        c = PAIRED ? pair_weights(c) : c;
        vst1q_s8(d + 16 * i, c.low);
        vst1q_s8(d + 256 + 16 * i, c.high);
    }
}

/* s += the dots of a block of weights and the 32 activations of N tokens, at x + i step, in an order of its own. */
INLINE void dot8(vi *s, const int8_t *w, const int8_t *x, int64_t step, const int form, const int N);
/* d[4 i + j] = rows 4 j .. 4 j + 3 of token i, of such sums that began as zeros. */
INLINE void dot8_rows(vi *d, const vi *s, const int form, const int N);
/* The same for codes 0 .. 15 and one block: d[4 i + j] = dots. */
INLINE void dot4(vi *d, const int8_t *w, const int8_t *x, int64_t step, const int form, const int N);

#ifdef __ARM_FEATURE_DOTPROD
/* s[4 i + j] += dots of BYTES or NIBBLES; sdot by element takes the activations where they are. */
INLINE void sdot_block(vi *s, const int8_t *w, const int8_t *x, int64_t step, const int form, const int N) {
    int8x16_t q[TILE], r[TILE];
    UNROLL for (int i = 0; i < N; i++) {
        q[i] = vld1q_s8(x + i * step);
        r[i] = vld1q_s8(x + i * step + 16);
    }
#define STEP(G)                                                                                                                  \
    UNROLL for (int j = 0; j < 4; j++) {                                                                                         \
        const weights c = load_weights(w, G, j, form);                                                                           \
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
#endif

/* ---- float32 ---- */

/* P panels x N tokens, one accumulator per 4 columns: to where they go or, where there is more to do, panel p's to t + p ts. */
INLINE void f32_tile(const ending *to, float *t, int64_t ts, const float *a, int64_t lda, const float *b, int64_t bk, int64_t bp,
                     int64_t k, float alpha, const int P, const int N) {
    vf s[24];
    UNROLL for (int i = 0; i < 4 * P * N; i++) { s[i] = vset(0.0f); }
    for (int64_t kk = 0; kk < k; kk++, b += bk, a++) {
        UNROLL for (int p = 0; p < P; p++) {
            vf w[4];
            UNROLL for (int j = 0; j < 4; j++) { w[j] = vld(b + p * bp + 4 * j); }
            UNROLL for (int i = 0; i < N; i++) {
                const float x = a[i * lda];
                UNROLL for (int j = 0; j < 4; j++) { s[4 * (N * p + i) + j] = vfmaq_n_f32(s[4 * (N * p + i) + j], w[j], x); }
            }
        }
    }
    if (alpha != 1.0f) {
        UNROLL for (int i = 0; i < 4 * P * N; i++) { s[i] = vmul(vset(alpha), s[i]); }
    }
    if (to) {
        put_tile(to, s, P, N);
        return;
    }
    UNROLL for (int i = 0; i < 4 * P * N; i++) { vst(t + i / 4 / N * ts + i % (4 * N) * 4, s[i]); }
}

typedef struct product {
    float *y;
    int64_t ldy;
    const float *a;
    int64_t lda;
    const float *b;
    int64_t bk, bp, n, k;
    float alpha;
    const fr_epilogue *e;
} product;
/* Tokens i .. i + rows - 1, columns j .. j + 16 P - 1, by tiles of at most W tokens: the epilogue sees them all at once. */
INLINE void f32_group(const product *g, int64_t i, int64_t j, int64_t rows, const int P, const int W) {
    float t[GROUP * 16] __attribute__((aligned(64)));
    expect_tile(g->y, g->ldy, P, 16, (int)rows, i, j, g->e);
    const bool direct = limits_only(g->e);
    for (int64_t r = 0, n; r < rows; r += n) {
        const ending to = ending_of(g->e, g->y, g->ldy, g->n, i + r, j);
        const float *a = g->a + (i + r) * g->lda, *b = g->b + j / 16 * g->bp;
        n = even(rows - r, W);
#define CASE(N)                                                                                                                  \
    case N:                                                                                                                      \
        if ((N) <= W) {                                                                                                          \
            f32_tile(direct ? &to : NULL, t + 16 * r, 16 * rows, a, g->lda, b, g->bk, g->bp, g->k, g->alpha, P, N);              \
        }                                                                                                                        \
        break;
        SIX(n, CASE)
#undef CASE
    }
    if (!direct) {
        finish_tile(g->y, g->ldy, t, P, 16, (int)rows, i, j, g->n, g->e);
    }
}

static void gemm_f32(float *y, int64_t ldy, const float *a, int64_t lda, const float *b, int64_t bk, int64_t bp, int64_t m,
                     int64_t n, int64_t k, float alpha, const fr_epilogue *e) {
    const product g = {y, ldy, a, lda, b, bk, bp, n, k, alpha, e};
    int64_t j = 0;
    for (; m == 1 && j + 48 < n; j += 64) { /* few tokens: more columns at once hide the latency */
        f32_group(&g, 0, j, 1, 4, 1);
    }
    for (; m > 0 && m <= 3 && j + 16 < n; j += 32) {
        f32_group(&g, 0, j, m, 2, 3);
    }
    for (; j < n; j += 16) {
        for (int64_t i = 0, rows; i < m; i += rows) {
            rows = even(m - i, GROUP);
            f32_group(&g, i, j, rows, 1, 6);
        }
    }
}

typedef struct convolution {
    float *y;
    int64_t ldy;
    const float *x;
    int64_t ldx;
    const fr_span *spans;
    int64_t n_spans;
    const float *b;
    int64_t bp, n;
    const fr_epilogue *e;
} convolution;
/* P panels x N positions of a convolution, as f32_tile. */
INLINE void conv_tile(const ending *to, float *t, int64_t ts, const convolution *g, int64_t i, int64_t j, const int P,
                      const int N) {
    vf s[24];
    UNROLL for (int c = 0; c < 4 * P * N; c++) { s[c] = vset(0.0f); }
    for (int64_t q = 0; q < g->n_spans; q++) {
        const float *x = g->x + i * g->ldx + g->spans[q].a, *b = g->b + j / 16 * g->bp + 16 * g->spans[q].k;
        for (int64_t kk = 0; kk < g->spans[q].n; kk++, b += 16, x++) {
            UNROLL for (int p = 0; p < P; p++) {
                vf w[4];
                UNROLL for (int l = 0; l < 4; l++) { w[l] = vld(b + p * g->bp + 4 * l); }
                UNROLL for (int r = 0; r < N; r++) {
                    const float v = x[r * g->ldx];
                    UNROLL for (int l = 0; l < 4; l++) { s[4 * (N * p + r) + l] = vfmaq_n_f32(s[4 * (N * p + r) + l], w[l], v); }
                }
            }
        }
    }
    if (to) {
        put_tile(to, s, P, N);
        return;
    }
    UNROLL for (int c = 0; c < 4 * P * N; c++) { vst(t + c / 4 / N * ts + c % (4 * N) * 4, s[c]); }
}

/* Positions i .. i + rows - 1, columns j .. j + 16 P - 1 of a convolution, as f32_group. */
INLINE void conv_group(const convolution *g, int64_t i, int64_t j, int64_t rows, const int P, const int W) {
    float t[GROUP * 16] __attribute__((aligned(64)));
    expect_tile(g->y, g->ldy, P, 16, (int)rows, i, j, g->e);
    const bool direct = limits_only(g->e);
    for (int64_t r = 0, n; r < rows; r += n) {
        const ending to = ending_of(g->e, g->y, g->ldy, g->n, i + r, j);
        n = even(rows - r, W);
#define CASE(N)                                                                                                                  \
    case N:                                                                                                                      \
        if ((N) <= W) {                                                                                                          \
            conv_tile(direct ? &to : NULL, t + 16 * r, 16 * rows, g, i + r, j, P, N);                                            \
        }                                                                                                                        \
        break;
        SIX(n, CASE)
#undef CASE
    }
    if (!direct) {
        finish_tile(g->y, g->ldy, t, P, 16, (int)rows, i, j, g->n, g->e);
    }
}

static void conv_f32(float *y, int64_t ldy, const float *x, int64_t ldx, const fr_span *spans, int64_t n_spans, const float *b,
                     int64_t bp, int64_t m, int64_t n, const fr_epilogue *e) {
    const convolution g = {y, ldy, x, ldx, spans, n_spans, b, bp, n, e};
    int64_t j = 0;
    for (; m > 0 && m <= 3 && j + 16 < n; j += 32) { /* few positions: more columns at once hide the latency */
        conv_group(&g, 0, j, m, 2, 3);
    }
    for (; j < n; j += 16) {
        for (int64_t i = 0, rows; i < m; i += rows) {
            rows = even(m - i, GROUP);
            conv_group(&g, i, j, rows, 1, 6);
        }
    }
}

/* ---- int8 weights ---- */

/* 16 rows x N tokens, one scale a token: int32 sums over all of k stay in registers. */
INLINE void w8_tile(float *t, const int8_t *w, const float *wscale, const int8_t *x, const float *scale, int64_t kp,
                    const int form, const int N) {
    vi s[SUMS * TILE], d[4 * TILE];
    UNROLL for (int i = 0; i < SUMS * TILE; i++) { s[i] = viset(0); }
    for (int64_t k = 0; k < kp; k += FR_BLOCK) {
        dot8(s, w + 16 * k, x + k, kp, form, N);
    }
    dot8_rows(d, s, form, N);
    UNROLL for (int i = 0; i < 4 * N; i++) {
        vst(t + 4 * i, vmul(vcvt(d[i]), vmul(vld(wscale + i % 4 * 4), vset(scale[i / 4]))));
    }
}
/* Four halves, exact; the fcvtl of ARMv8.0. */
OP vf halves4(const uint8_t *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }
/* One scale a block: the float sums are in t, since the registers are full. */
/* The scales are per apart by token, by_block by block; halves: fp16 scales of every block instead of wscale, per_half bytes
 * apart. */
typedef struct w8_scales {
    const float *scale;
    int64_t per, by_block;
    const uint8_t *halves;
    int64_t per_half;
} w8_scales;
INLINE void w8_tile_blocked(float *t, const int8_t *w, int64_t step, const float *wscale, const int8_t *x, const w8_scales *q,
                            int64_t kp, const int form, const int scaled, const int N) {
    const int64_t nb = kp / FR_BLOCK;
    vi s[SUMS * TILE], d[4 * TILE];
    UNROLL for (int i = 0; i < 4 * N; i++) { vst(t + 4 * i, vset(0.0f)); }
    for (int64_t b = 0; b < nb; b++) {
        UNROLL for (int i = 0; i < SUMS * TILE; i++) { s[i] = viset(0); }
        dot8(s, w + b * step, x + b * FR_BLOCK, kp, form, N);
        dot8_rows(d, s, form, N);
        UNROLL for (int i = 0; i < 4 * N; i++) {
            vf by = vset(q->scale[i / 4 * q->per + b * q->by_block]);
            if (scaled) {
                by = vmul(halves4(q->halves + b * q->per_half + i % 4 * 8), by);
            }
            vst(t + 4 * i, vfma(by, vcvt(d[i]), vld(t + 4 * i)));
        }
    }
    if (!scaled) {
        UNROLL for (int i = 0; i < 4 * N; i++) { vst(t + 4 * i, vmul(vld(t + 4 * i), vld(wscale + i % 4 * 4))); }
    }
}

/* The tokens of one tile, at most TILE. */
INLINE void w8_tokens(float *t, const int8_t *w, int64_t step, const float *wscale, const uint8_t *halves, const fr_act8 *a,
                      int64_t i, int tokens, const int form) {
    const int64_t kp = a->kp, per = a->blocked ? kp / FR_BLOCK : 1;
    const float *s = a->scale + i * per;
    const w8_scales q = {s, per, a->blocked ? 1 : 0, halves, FR_W8B_BLOCK};
    const int8_t *x = a->q + i * kp;
    switch (tokens) {
#define CASE(N)                                                                                                                  \
    case N:                                                                                                                      \
        if ((N) > TILE) {                                                                                                        \
            break;                                                                                                               \
        }                                                                                                                        \
        if (halves) {                                                                                                            \
            w8_tile_blocked(t, w, step, NULL, x, &q, kp, form, 1, N);                                                            \
        } else if (a->blocked) {                                                                                                 \
            w8_tile_blocked(t, w, 512, wscale, x, &q, kp, form, 0, N);                                                           \
        } else {                                                                                                                 \
            w8_tile(t, w, wscale, x, s, kp, form, N);                                                                            \
        }                                                                                                                        \
        break;
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
#undef CASE
    }
}
/* Tokens i .. i + rows - 1 of the panel at w, blocks step bytes apart, of rows 16 p .. 16 p + 15; halves: the fp16 scales of its
 * first block, or NULL. */
static void w8_group(float *y, int64_t ldy, const fr_act8 *a, int64_t i, int64_t rows, const int8_t *w, int64_t step, int pairs,
                     const float *wscale, const uint8_t *halves, int64_t p, int64_t n, const fr_epilogue *e) {
    float t[GROUP * 16] __attribute__((aligned(64)));
    expect_tile(y, ldy, 1, 16, (int)rows, i, 16 * p, e);
    for (int64_t r = 0, tokens; r < rows; r += tokens) {
        tokens = even(rows - r, TILE);
        if (PAIRED && pairs) {
            w8_tokens(t + 16 * r, w, step, wscale, halves, a, i + r, (int)tokens, PAIRS);
        } else {
            w8_tokens(t + 16 * r, w, step, wscale, halves, a, i + r, (int)tokens, BYTES);
        }
    }
    finish_tile(y, ldy, t, 1, 16, (int)rows, i, 16 * p, n, e);
}

/* wscale: NULL where every block has scales of its own. */
static void w8_product(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const int8_t *w, const float *wscale,
                       int64_t p0, int64_t p1, int64_t n, const fr_epilogue *e, void *scratch) {
    const int64_t bytes = wscale ? 512 : FR_W8B_BLOCK;
    const int pairs = PAIRED && m1 - m0 > TILE; /* what storing them costs, more than one tile of tokens repays */
    for (int64_t p = p0; p < p1; p++) {
        const int8_t *panel = w + p * (a->kp / FR_BLOCK) * bytes;
        const uint8_t *halves = wscale ? NULL : (const uint8_t *)panel + 512;
        int64_t step = bytes;
        if (pairs) {
            for (int64_t b = 0; b < a->kp / FR_BLOCK; b++) {
                store_weights((int8_t *)scratch + 512 * b, panel + bytes * b, BYTES);
            }
            panel = scratch;
            step = 512;
        }
        for (int64_t i = m0, rows; i < m1; i += rows) {
            rows = even(m1 - i, GROUP);
            w8_group(y, ldy, a, i, rows, panel, step, pairs, wscale ? wscale + 16 * p : NULL, halves, p, n, e);
        }
    }
}
static void gemm_w8(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const int8_t *w, const float *wscale,
                    int64_t p0, int64_t p1, int64_t n, const fr_epilogue *e, void *scratch) {
    w8_product(y, ldy, a, m0, m1, w, wscale, p0, p1, n, e, scratch);
}
static void gemm_w8b(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                     int64_t n, const fr_epilogue *e, void *scratch) {
    w8_product(y, ldy, a, m0, m1, (const int8_t *)w, NULL, p0, p1, n, e, scratch);
}

/* ---- int4 weights ---- */

/* A block of W4_P16 as BYTES or PAIRS, float scales and int32 zero points (W4O_P16: the bits of float offsets): worth it from a
 * second tile of tokens on. */
typedef struct w4_bytes {
    int8_t code[512];
    float scale[16];
    int32_t zero[16];
} w4_bytes;
#define W4_BYTES(offset) ((offset) ? FR_W4O_BLOCK : FR_W4_BLOCK)

OP vf w4_scale(const uint8_t *block, int j) { return halves4(block + 256 + 8 * j); }
/* Zero points of rows 8 h .. 8 h + 7 in two vectors. */
OP void w4_zero(vi *z, const uint8_t *block, int h) {
    const int16x8_t v = vreinterpretq_s16_u16(vmovl_u8(vld1_u8(block + 288 + 8 * h)));
    z[0] = vmovl_s16(vget_low_s16(v));
    z[1] = vmovl_high_s16(v);
}
/* Or the bits of the offsets. */
OP void w4_rest(vi *z, const uint8_t *block, int h, const int offset) {
    if (offset) {
        z[0] = vcasti(halves4(block + 288 + 16 * h));
        z[1] = vcasti(halves4(block + 296 + 16 * h));
    } else {
        w4_zero(z, block, h);
    }
}
INLINE void w4_unpack(w4_bytes *u, const uint8_t *block, const int offset) {
    store_weights(u->code, (const int8_t *)block, NIBBLES);
    UNROLL for (int h = 0; h < 2; h++) {
        vi z[2];
        w4_rest(z, block, h, offset);
        vst1q_s32(u->zero + 8 * h, z[0]);
        vst1q_s32(u->zero + 8 * h + 4, z[1]);
        vst(u->scale + 8 * h, w4_scale(block, 2 * h));
        vst(u->scale + 8 * h + 4, w4_scale(block, 2 * h + 1));
    }
}

/* What a tile of tokens reads of its activations, at one block. */
typedef struct w4_tokens {
    const int8_t *x; /* tokens kp apart */
    const float *scale;
    const int32_t *sum;        /* nb apart */
    int64_t kp, nb, per_scale; /* floats between the scales of tokens */
} w4_tokens;
/* t += a block's part of 16 rows x N tokens, N <= TILE. */
INLINE void w4_step(float *t, const int8_t *codes, const vf *wscale, const vi *zero, const w4_tokens *a, const int form,
                    const int offset, const int N) {
    vi d[4 * TILE];
    dot4(d, codes, a->x, a->kp, form, N);
    UNROLL for (int i = 0; i < N; i++) {
        const vi sum = viset(a->sum[i * a->nb]);
        const vf scale = vset(a->scale[i * a->per_scale]);
        UNROLL for (int j = 0; j < 4; j++) {
            float *v = t + 16 * i + 4 * j;
            if (offset) {
                const vf u = vfma(wscale[j], vcvt(d[4 * i + j]), vmul(vcastf(zero[j]), vcvt(sum)));
                vst(v, vfma(scale, u, vld(v)));
                continue;
            }
            vst(v, vfma(vmul(wscale[j], scale), vcvt(vmlsq_s32(d[4 * i + j], zero[j], sum)), vld(v)));
        }
    }
}
/* Few tokens: all nb blocks of a panel, straight from their nibbles. */
INLINE void w4_few(float *t, const uint8_t *block, w4_tokens a, const int blocked, const int offset, const int N) {
    for (int64_t b = 0; b < a.nb; b++, block += W4_BYTES(offset)) {
        const vf s[4] = {w4_scale(block, 0), w4_scale(block, 1), w4_scale(block, 2), w4_scale(block, 3)};
        vi z[4];
        w4_rest(z, block, 0, offset);
        w4_rest(z + 2, block, 1, offset);
        w4_step(t, (const int8_t *)block, s, z, &a, NIBBLES, offset, N);
        a.x += FR_BLOCK;
        a.scale += blocked;
        a.sum++;
    }
}
/* Many: a block unpacked once, for N <= TILE of them. */
INLINE void w4_many(float *t, const w4_bytes *u, const w4_tokens *a, const int offset, const int N) {
    vf s[4];
    vi z[4];
    UNROLL for (int j = 0; j < 4; j++) {
        s[j] = vld(u->scale + 4 * j);
        z[j] = vld1q_s32(u->zero + 4 * j);
    }
    w4_step(t, u->code, s, z, a, PAIRED ? PAIRS : BYTES, offset, N);
}
/* The panel at w times the tokens from a on, by blocks, so that a block is unpacked once. */
INLINE void w4_panel(float *t, const uint8_t *w, const w4_tokens *a, int64_t rows, int blocked, const int offset) {
    for (int64_t b = 0; b < a->nb; b++, w += W4_BYTES(offset)) {
        w4_tokens at = {a->x + b * FR_BLOCK, a->scale + b * blocked, a->sum + b, a->kp, a->nb, a->per_scale};
        w4_bytes u __attribute__((aligned(64)));
        w4_unpack(&u, w, offset);
        int64_t r = 0;
        for (; r + TILE <= rows; r += TILE) {
            w4_many(t + 16 * r, &u, &at, offset, TILE);
            at.x += TILE * at.kp;
            at.scale += TILE * at.per_scale;
            at.sum += TILE * at.nb;
        }
        for (; r < rows; r++) {
            w4_many(t + 16 * r, &u, &at, offset, 1);
            at.x += at.kp;
            at.scale += at.per_scale;
            at.sum += at.nb;
        }
    }
}

INLINE void w4_product(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                       int64_t n, const fr_epilogue *e, const int offset) {
    const int64_t kp = a->kp, nb = kp / FR_BLOCK, per = a->blocked ? nb : 1;
    float t[GROUP * 16] __attribute__((aligned(64)));
    for (int64_t i = m0, rows; i < m1; i += rows) {
        const w4_tokens at = {a->q + i * kp, a->scale + i * per, a->sum + i * nb, kp, nb, per};
        rows = even(m1 - i, GROUP);
        for (int64_t p = p0; p < p1; p++) {
            const uint8_t *panel = w + p * nb * W4_BYTES(offset);
            expect_tile(y, ldy, 1, 16, (int)rows, i, 16 * p, e);
            memset(t, 0, (size_t)rows * 64);
            if (rows == 1) {
                w4_few(t, panel, at, a->blocked, offset, 1);
            } else if (rows == 2) {
                w4_few(t, panel, at, a->blocked, offset, 2);
            } else {
                w4_panel(t, panel, &at, rows, a->blocked, offset);
            }
            finish_tile(y, ldy, t, 1, 16, (int)rows, i, 16 * p, n, e);
        }
    }
}
static void gemm_w4(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                    int64_t n, const fr_epilogue *e, void *scratch) {
    (void)scratch;
    w4_product(y, ldy, a, m0, m1, w, p0, p1, n, e, 0);
}
static void gemm_w4o(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                     int64_t n, const fr_epilogue *e, void *scratch) {
    (void)scratch;
    w4_product(y, ldy, a, m0, m1, w, p0, p1, n, e, 1);
}

static size_t scratch_bytes(int64_t m, int64_t k) {
    (void)m;
    return PAIRED ? (size_t)((k + FR_BLOCK - 1) / FR_BLOCK * 512) : 0; /* a panel in PAIRS */
}

/* ---- integer convolution: codes as signed bytes ---- */

/* limit and rounding of isa.h, plus zero. */
typedef struct rounding {
    vf low, high;
    vi zero;
} rounding;
OP rounding rounding_of(int32_t zero, int32_t low, int32_t high) {
    return (rounding){vset((float)(low - zero)), vset((float)(high - zero)), viset(zero)};
}
OP vi to_codes(vf v, const rounding *r) { return viadd(vcvtnq_s32_f32(vmin(vmax(v, r->low), r->high)), r->zero); }
OP uint8x16_t narrow_codes(const vi c[4]) {
    const int16x8_t a = vcombine_s16(vmovn_s32(c[0]), vmovn_s32(c[1])), b = vcombine_s16(vmovn_s32(c[2]), vmovn_s32(c[3]));
    return vreinterpretq_u8_s8(vcombine_s8(vmovn_s16(a), vmovn_s16(b)));
}
OP void put_codes(uint8_t *y, uint8x16_t v, int64_t n) {
    uint8_t t[16];
    if (n >= 16) {
        vst1q_u8(y, v);
        return;
    }
    vst1q_u8(t, v);
    memcpy(y, t, (size_t)n);
}

/* Stores the sums of 16 channels from channel c on of pixel i; params: the panel's. */
INLINE void put_sums(const fr_qconv *q, const rounding *r, const int32_t *params, const vi acc[4], int64_t i, int64_t c) {
    const int64_t at = i * q->ldy + c, n = q->n - c < 16 ? q->n - c : 16;
    vi s[4], t[4];
    vf v[4];
    UNROLL for (int j = 0; j < 4; j++) {
        s[j] = viadd(acc[j], vld1q_s32(params + 16 + 4 * j));
        if (q->window) {
            s[j] = vmlsq_n_s32(s[j], vld1q_s32(params + 48 + 4 * j), q->window[i]);
        }
        v[j] = vmul(vcvt(s[j]), vcastf(vld1q_s32(params + 32 + 4 * j)));
        t[j] = q->dtype == 1 ? vcasti(v[j]) : s[j];
    }
    if (q->dtype == 6 || q->dtype == 1) {
        memcpy((int32_t *)q->y + at, t, (size_t)n * 4);
        return;
    }
    UNROLL for (int j = 0; j < 4; j++) { t[j] = to_codes(v[j], r); }
    put_codes((uint8_t *)q->y + at, veorq_u8(narrow_codes(t), vdupq_n_u8(q->dtype == 3 ? 0x80 : 0)), n);
}

#ifdef __ARM_FEATURE_DOTPROD
enum { QTILE = 6 };
/* d[4 m + j] += a quad of rows 4 j .. 4 j + 3 of a panel times the 4 codes of each pixel at x[m] + k. */
INLINE void qconv_quad(vi *d, const int8_t *w, const int8_t *const *x, int64_t k, const int M) {
    int8x16_t c[4];
    UNROLL for (int j = 0; j < 4; j++) { c[j] = vld1q_s8(w + 16 * j); }
    UNROLL for (int m = 0; m < M; m++) {
        int32_t four;
        memcpy(&four, x[m] + k, 4);
        const int8x16_t code = vreinterpretq_s8_s32(viset(four));
        UNROLL for (int j = 0; j < 4; j++) { d[4 * m + j] = vdotq_s32(d[4 * m + j], c[j], code); }
    }
}
INLINE void qconv_run(vi *d, const int8_t *w, const int8_t *const *x, int64_t k, int64_t quads, const int M) {
    for (int64_t i = 0; i < quads; i++) {
        qconv_quad(d, w + 64 * i, x, k + 4 * i, M);
    }
}
INLINE void qconv_close(vi *d, const int M) {
    (void)d;
    (void)M;
}
enum { QSUMS = 4 };
#else
enum { QTILE = 2, QSUMS = 8 };
/* Two sums a channel: d[8 m + 2 j] of rows 4 j and 4 j + 1, the next of the other two; a product of 128^2 fits int16, two may
 * not. */
INLINE void qconv_run(vi *d, const int8_t *w, const int8_t *const *x, int64_t k, int64_t quads, const int M) {
    for (int64_t i = 0; i < quads; i++, w += 64, k += 4) {
        UNROLL for (int m = 0; m < M; m++) {
            int32_t four;
            memcpy(&four, x[m] + k, 4);
            const int8x8_t code = vreinterpret_s8_s32(vdup_n_s32(four));
            UNROLL for (int j = 0; j < 8; j++) { d[8 * m + j] = vpadalq_s16(d[8 * m + j], vmull_s8(vld1_s8(w + 8 * j), code)); }
        }
    }
}
INLINE void qconv_close(vi *d, const int M) {
    UNROLL for (int j = 0; j < 4 * M; j++) { d[j] = vpaddq_s32(d[2 * j], d[2 * j + 1]); }
}
#endif

/* A panel's 16 channels from channel c on x M pixels from i on. */
INLINE void qconv_tile(const fr_qconv *q, const rounding *r, int64_t i, int64_t c, const int M) {
    const int64_t panel = q->runs * q->quads * 64;
    const int8_t *x[QTILE], *w = q->w + c / 16 * panel;
    vi s[QSUMS * QTILE];
    UNROLL for (int m = 0; m < M; m++) { x[m] = (const int8_t *)q->codes + q->pixel[i + m]; }
    UNROLL for (int j = 0; j < QSUMS * M; j++) { s[j] = viset(0); }
    for (int64_t run = 0; run < q->runs; run++, w += 64 * q->quads) {
        qconv_run(s, w, x, q->run[run], q->quads, M);
    }
    qconv_close(s, M);
    UNROLL for (int m = 0; m < M; m++) { put_sums(q, r, q->params + c / 16 * FR_QPARAMS, s + 4 * m, i + m, c); }
}

#ifdef __ARM_FEATURE_MATMUL_INT8
/* The same by smmla: two pixels by two channels by two quads at once; a quad left over goes with zeros. */
INLINE void qconv_pairs(vi *d, const int8_t *w, const int8_t *const *x, int64_t k, const int both, const int M) {
    int8x16_t code[QTILE / 2];
    UNROLL for (int m = 0; m < M / 2; m++) {
        int64_t a = 0, b = 0;
        memcpy(&a, x[2 * m] + k, both ? 8 : 4);
        memcpy(&b, x[2 * m + 1] + k, both ? 8 : 4);
        code[m] = vreinterpretq_s8_s64(vcombine_s64(vcreate_s64((uint64_t)a), vcreate_s64((uint64_t)b)));
    }
    UNROLL for (int j = 0; j < 4; j++) {
        const int8x16_t low = vld1q_s8(w + 16 * j), high = both ? vld1q_s8(w + 64 + 16 * j) : vdupq_n_s8(0);
        const weights c = pair_weights((weights){low, high});
        UNROLL for (int m = 0; m < M / 2; m++) {
            d[8 * m + 2 * j] = vmmlaq_s32(d[8 * m + 2 * j], code[m], c.low);
            d[8 * m + 2 * j + 1] = vmmlaq_s32(d[8 * m + 2 * j + 1], code[m], c.high);
        }
    }
}
INLINE void qconv_tile_pairs(const fr_qconv *q, const rounding *r, int64_t i, int64_t c, const int M) {
    const int8_t *x[QTILE], *w = q->w + c / 16 * q->runs * q->quads * 64;
    vi s[4 * QTILE];
    UNROLL for (int m = 0; m < M; m++) { x[m] = (const int8_t *)q->codes + q->pixel[i + m]; }
    UNROLL for (int j = 0; j < 4 * M; j++) { s[j] = viset(0); }
    for (int64_t run = 0; run < q->runs; run++, w += 64 * q->quads) {
        int64_t k = 0;
        for (; k + 2 <= q->quads; k += 2) {
            qconv_pairs(s, w + 64 * k, x, q->run[run] + 4 * k, 1, M);
        }
        if (k < q->quads) {
            qconv_pairs(s, w + 64 * k, x, q->run[run] + 4 * k, 0, M);
        }
    }
    UNROLL for (int m = 0; m < M / 2; m++) {
        vi a[4], b[4];
        UNROLL for (int j = 0; j < 4; j++) {
            const int64x2_t u = vreinterpretq_s64_s32(s[8 * m + 2 * j]), v = vreinterpretq_s64_s32(s[8 * m + 2 * j + 1]);
            a[j] = vreinterpretq_s32_s64(vzip1q_s64(u, v));
            b[j] = vreinterpretq_s32_s64(vzip2q_s64(u, v));
        }
        put_sums(q, r, q->params + c / 16 * FR_QPARAMS, a, i + 2 * m, c);
        put_sums(q, r, q->params + c / 16 * FR_QPARAMS, b, i + 2 * m + 1, c);
    }
}
#endif

static void qconv(const fr_qconv *q) {
    const rounding r = rounding_of(q->zero, q->low, q->high);
    for (int64_t c = 0; c < q->n; c += 16) {
        int64_t i = 0;
#ifdef __ARM_FEATURE_MATMUL_INT8
        for (; i + QTILE <= q->pixels; i += QTILE) {
            qconv_tile_pairs(q, &r, i, c, QTILE);
        }
        for (; i + 2 <= q->pixels; i += 2) {
            qconv_tile_pairs(q, &r, i, c, 2);
        }
#endif
        for (; i + QTILE <= q->pixels; i += QTILE) {
            qconv_tile(q, &r, i, c, QTILE);
        }
        for (; i < q->pixels; i++) {
            qconv_tile(q, &r, i, c, 1);
        }
    }
}

/* 16 channels: s[j] += one tap of channels 4 j .. 4 j + 3. */
INLINE void qdepth_tap(vi s[4], int8x16_t w, int8x16_t x) {
    const int16x8_t wl = vmovl_s8(vget_low_s8(w)), wh = vmovl_s8(vget_high_s8(w));
    const int16x8_t xl = vmovl_s8(vget_low_s8(x)), xh = vmovl_s8(vget_high_s8(x));
    s[0] = vmlal_s16(s[0], vget_low_s16(wl), vget_low_s16(xl));
    s[1] = vmlal_s16(s[1], vget_high_s16(wl), vget_high_s16(xl));
    s[2] = vmlal_s16(s[2], vget_low_s16(wh), vget_low_s16(xh));
    s[3] = vmlal_s16(s[3], vget_high_s16(wh), vget_high_s16(xh));
}
static void qdepth(const fr_qconv *q) {
    const rounding r = rounding_of(q->zero, q->low, q->high);
    for (int64_t c = 0; c < q->n; c += 16) {
        for (int64_t i = 0; i < q->pixels; i++) {
            const int8_t *x = (const int8_t *)q->codes + q->pixel[i] + c, *w = q->w + c / 16 * q->quads * 64;
            vi s[4] = {viset(0), viset(0), viset(0), viset(0)};
            for (int64_t k = 0; k < q->quads; k++, w += 64) {
                const int8x16x4_t taps = vld4q_s8(w);
                const int32_t *at = q->run + 4 * k;
                UNROLL for (int j = 0; j < 4; j++) { qdepth_tap(s, taps.val[j], vld1q_s8(x + at[j])); }
            }
            put_sums(q, &r, q->params + c / 16 * FR_QPARAMS, s, i, c);
        }
    }
}

/* (code - zero) * m of 4 of 16 codes. */
OP vf scaled(uint8x16_t x, int j, int32_t zero, float m) {
    const uint16x8_t h = j < 2 ? vmovl_u8(vget_low_u8(x)) : vmovl_high_u8(x);
    const uint32x4_t v = j % 2 ? vmovl_high_u16(h) : vmovl_u16(vget_low_u16(h));
    return vmul(vcvt(visub(vreinterpretq_s32_u32(v), viset(zero))), vset(m));
}
static void qadd(uint8_t *y, const uint8_t *a, const uint8_t *b, int64_t n, const fr_qadd *p) {
    const rounding r = rounding_of(p->zero, p->low, p->high);
    for (int64_t i = 0; i < n; i += 16) {
        uint8_t ta[16] = {0}, tb[16] = {0};
        vi t[4];
        const size_t left = (size_t)(n - i < 16 ? n - i : 16);
        memcpy(ta, a + i, left);
        memcpy(tb, b + i, left);
        const uint8x16_t u = veorq_u8(vld1q_u8(ta), vdupq_n_u8(p->flip_a)), v = veorq_u8(vld1q_u8(tb), vdupq_n_u8(p->flip_b));
        UNROLL for (int j = 0; j < 4; j++) { t[j] = to_codes(vadd(scaled(u, j, p->za, p->ma), scaled(v, j, p->zb, p->mb)), &r); }
        put_codes(y + i, veorq_u8(narrow_codes(t), vdupq_n_u8(p->flip_y)), n - i);
    }
}

/* ---- attention over int8 caches ---- */

/* 16 codes of a row from c on, those from d on are 0. */
OP int8x16_t codes16(const int8_t *row, int64_t c, int64_t d, const int whole) {
    if (whole) {
        return vld1q_s8(row + c);
    }
    int8_t last[16] = {0};
    memcpy(last, row + c, (size_t)(d - c));
    return vld1q_s8(last);
}
/* s + the dots of 16 codes in four lanes; no pair of products exceeds 2 * 127 * 128 < 2^15. */
OP vi dot16(vi s, int8x16_t k, int8x16_t q) {
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(s, k, q);
#else
    return vpadalq_s16(s, vmlal_high_s8(vmull_s8(vget_low_s8(k), vget_low_s8(q)), k, q));
#endif
}
/* M queries by four keys (the last may repeat). */
INLINE void qk8_step(vi *s, const int8_t *q, int64_t ldq, const int8_t *const *k, int64_t c, int64_t d, const int M,
                     const int whole) {
    int8x16_t x[3];
    UNROLL for (int i = 0; i < M; i++) { x[i] = vld1q_s8(q + i * ldq + c); }
    UNROLL for (int j = 0; j < 4; j++) {
        const int8x16_t w = codes16(k[j], c, d, whole);
        UNROLL for (int i = 0; i < M; i++) { s[4 * i + j] = dot16(s[4 * i + j], w, x[i]); }
    }
}
INLINE void qk8_tile(float *y, int64_t ldy, const int8_t *q, int64_t ldq, const float *qs, const int8_t *k, int64_t ldk,
                     const float *ks, int64_t n, int64_t d, const int M) {
    for (int64_t j = 0; j < n; j += 4, k += 4 * ldk) {
        const int64_t last = n - j < 4 ? n - j - 1 : 3;
        const int8_t *const rows[4] = {k, k + (last < 1 ? last : 1) * ldk, k + (last < 2 ? last : 2) * ldk, k + last * ldk};
        vi s[12];
        int64_t c = 0;
        UNROLL for (int i = 0; i < 4 * M; i++) { s[i] = viset(0); }
        for (; c + 16 <= d; c += 16) {
            qk8_step(s, q, ldq, rows, c, d, M, 1);
        }
        if (c < d) {
            qk8_step(s, q, ldq, rows, c, d, M, 0);
        }
        const vf by = last == 3 ? vld(ks + j) : vld_n(ks + j, (int)last + 1);
        UNROLL for (int i = 0; i < M; i++) {
            const vi t = vpaddq_s32(vpaddq_s32(s[4 * i], s[4 * i + 1]), vpaddq_s32(s[4 * i + 2], s[4 * i + 3]));
            const vf r = vmul(vcvt(t), vmul(vset(qs[i]), by));
            if (last == 3) {
                vst(y + i * ldy + j, r);
            } else {
                vst_n(y + i * ldy + j, r, (int)last + 1);
            }
        }
    }
}
static void qk8(float *y, int64_t ldy, const int8_t *q, int64_t ldq, const float *qs, const int8_t *k, int64_t ldk,
                const float *ks, int64_t m, int64_t n, int64_t d, const int8_t *next, int64_t ahead) {
    (void)next, (void)ahead;
    for (int64_t i = 0, rows; i < m; i += rows) {
        rows = even(m - i, 3);
        switch (rows) {
        case 1:
            qk8_tile(y + i * ldy, ldy, q + i * ldq, ldq, qs + i, k, ldk, ks, n, d, 1);
            break;
        case 2:
            qk8_tile(y + i * ldy, ldy, q + i * ldq, ldq, qs + i, k, ldk, ks, n, d, 2);
            break;
        default:
            qk8_tile(y + i * ldy, ldy, q + i * ldq, ldq, qs + i, k, ldk, ks, n, d, 3);
            break;
        }
    }
}

/* 16 columns of M queries. */
INLINE void pv8_tile(float *y, int64_t ldy, const int16_t *p, int64_t ldp, const float *ps, const int8_t *v, int64_t ldv,
                     int64_t n, const int M) {
    vi s[24];
    UNROLL for (int i = 0; i < 4 * M; i++) { s[i] = viset(0); }
    for (int64_t j = 0; j < n; j++, v += ldv) {
        const int8x16_t x = vld1q_s8(v);
        const int16x8_t low = vmovl_s8(vget_low_s8(x)), high = vmovl_high_s8(x);
        UNROLL for (int i = 0; i < M; i++) {
            const int16x8_t w = vdupq_n_s16(p[i * ldp + j]);
            s[4 * i] = vmlal_s16(s[4 * i], vget_low_s16(low), vget_low_s16(w));
            s[4 * i + 1] = vmlal_high_s16(s[4 * i + 1], low, w);
            s[4 * i + 2] = vmlal_s16(s[4 * i + 2], vget_low_s16(high), vget_low_s16(w));
            s[4 * i + 3] = vmlal_high_s16(s[4 * i + 3], high, w);
        }
    }
    UNROLL for (int i = 0; i < 4 * M; i++) { vst(y + i / 4 * ldy + i % 4 * 4, vmul(vcvt(s[i]), vset(ps[i / 4]))); }
}
static void pv8(float *y, int64_t ldy, const int16_t *p, int64_t ldp, const float *ps, const int8_t *v, int64_t ldv, int64_t m,
                int64_t n, int64_t e, const int8_t *next, int64_t ahead) {
    (void)next, (void)ahead;
    int64_t c = 0;
    for (; c + 16 <= e; c += 16) {
        for (int64_t i = 0, rows; i < m; i += rows) {
            rows = even(m - i, 6);
#define CASE(M)                                                                                                                  \
    case M:                                                                                                                      \
        pv8_tile(y + i * ldy + c, ldy, p + i * ldp, ldp, ps + i, v + c, ldv, n, M);                                              \
        break;
            SIX(rows, CASE)
#undef CASE
        }
    }
    if (c < e) {
        pv8_rest(y, ldy, p, ldp, ps, v, ldv, m, n, c, e);
    }
}

#define ARM_TABLE(label) {.name = label, .chunk = 96, .codes = FR_CODES_I8, FR_FUNCTIONS}
#endif
