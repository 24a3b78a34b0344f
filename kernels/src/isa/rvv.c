/* rvv.c - the kernels for RISC-V with vectors (V 1.0): 16 rows in one vector of fixed length, which the compiler makes of as many
 * registers as a CPU with vectors of 128 bits needs; longer ones run the same instructions with the same length.
 *
 * Written in the vector types of clang and gcc, with weights in the lanes and activations as scalars (vwmacc.vx, vfmacc.vf).
 * Compile with -march=rv64gcv -ffp-contract=off; without vectors, or with a compiler that has them in the assembler only, the
 * table is absent.
 */
#include "../isa.h"

#if defined(__riscv_vector) && __riscv_xlen == 64 && defined(__has_include)
#if __has_include(<riscv_vector.h>)
#define FR_RVV
#endif
#endif

#if defined(FR_RVV)
#include <string.h>

#include "../fmath.h"

/* The operations that simd.h is written in. */
enum { VW = 16 };
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef vi vm; /* all bits of a lane, or none */
typedef int16_t vh __attribute__((vector_size(32)));
typedef uint16_t vuh __attribute__((vector_size(32)));
typedef int8_t vb __attribute__((vector_size(16)));
typedef uint8_t vub __attribute__((vector_size(16)));
typedef int8_t vb4 __attribute__((vector_size(64)));
/* The same in memory, aligned as their elements. */
typedef vf vf_at __attribute__((aligned(4), may_alias));
typedef vi vi_at __attribute__((aligned(4), may_alias));
typedef vh vh_at __attribute__((aligned(2), may_alias));
typedef vb vb_at __attribute__((aligned(1), may_alias));
typedef vb4 vb4_at __attribute__((aligned(1), may_alias));
#define OP static inline __attribute__((always_inline))
#define LANES(x) {x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}
/* y = an expression of lane i, where the compiler has no operation on whole vectors. */
#define BY_LANE(y, expression)                                                                                                   \
    for (int i = 0; i < 16; i++) {                                                                                               \
        y[i] = expression;                                                                                                       \
    }
OP vf vset(float x) { return (vf)LANES(x); }
OP vi viset(int32_t x) { return (vi)LANES(x); }
OP vf vld(const float *p) { return *(const vf_at *)p; }
OP vi vild(const int32_t *p) { return *(const vi_at *)p; }
OP void vst(float *p, vf v) { *(vf_at *)p = v; }
OP vi vcasti(vf a) { return (vi)a; }
OP vf vcastf(vi a) { return (vf)a; }
/* Halves, exact; back to nearest even. */
OP vf vhalf(const uint16_t *p) {
    vf v;
    BY_LANE(v, fr_half_to_float(p[i]))
    return v;
}
OP void vsthalf(uint16_t *p, vf v){BY_LANE(p, fr_float_to_half(v[i]))} OP vf vbfloat(const uint16_t *p) {
    vi v;
    BY_LANE(v, (int32_t)((uint32_t)p[i] << 16))
    return vcastf(v);
}
OP vf vld_n(const float *p, int n) {
    float t[16] = {0};
    memcpy(t, p, (size_t)n * sizeof *p);
    return vld(t);
}
OP void vst_n(float *p, vf v, int n) {
    float t[16];
    vst(t, v);
    memcpy(p, t, (size_t)n * sizeof *p);
}
OP vi viand(vi a, vi b) { return a & b; }
OP vi vior(vi a, vi b) { return a | b; }
OP vi vixor(vi a, vi b) { return a ^ b; }
OP vi viadd(vi a, vi b) { return (vi)((vu)a + (vu)b); }
OP vi visub(vi a, vi b) { return (vi)((vu)a - (vu)b); }
OP vi vishl(vi a, int n) { return (vi)((vu)a << (uint32_t)n); }
OP vi visra(vi a, int n) { return a >> n; }
OP vf vsel(vm m, vf a, vf b) { return (vf)((m & (vi)a) | (~m & (vi)b)); }
OP vi vimax(vi a, vi b) {
    const vm m = a > b;
    return (m & a) | (~m & b);
}
OP vf vkeep(vf v, int n) { return (vf)((vi)v & ((vi){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} < n)); }
OP vf vadd(vf a, vf b) { return a + b; }
OP vf vsub(vf a, vf b) { return a - b; }
OP vf vmul(vf a, vf b) { return a * b; }
OP vf vdiv(vf a, vf b) { return a / b; }
OP vf vmax(vf a, vf b) { return vsel(a > b, a, b); }
OP vf vmin(vf a, vf b) { return vsel(a < b, a, b); }
#if defined(__clang__)
OP vf vfma(vf a, vf b, vf c) { return __builtin_elementwise_fma(a, b, c); }
OP vf vsqrt(vf a) { return __builtin_elementwise_sqrt(a); }
OP vf vrint(vf a) { return __builtin_elementwise_roundeven(a); }
OP vf vfloor(vf a) { return __builtin_elementwise_floor(a); }
#else
OP vf vfma(vf a, vf b, vf c) {
    BY_LANE(c, __builtin_fmaf(a[i], b[i], c[i]))
    return c;
}
OP vf vsqrt(vf a) {
    BY_LANE(a, __builtin_sqrtf(a[i]))
    return a;
}
OP vf vrint(vf a) {
    BY_LANE(a, __builtin_rintf(a[i]))
    return a;
}
OP vf vfloor(vf a) {
    BY_LANE(a, __builtin_floorf(a[i]))
    return a;
}
#endif
OP vf vfnma(vf a, vf b, vf c) { return vfma(-a, b, c); }
OP vf vcvt(vi a) { return __builtin_convertvector(a, vf); }
OP vm vlt(vf a, vf b) { return a < b; }
OP vm vge(vf a, vf b) { return a >= b; }
OP vm vne(vf a, vf b) { return a != b; }
OP vm vodd(vi a) { return (a & 1) != 0; }
/* Lanes 0 .. n - 1 are the results of lanes j and j + n under f, for n = 8, 4, 2, 1. */
#define FOLD(v, f)                                                                                                               \
    do {                                                                                                                         \
        v = f(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, -1, -1, -1, -1, -1, -1, -1, -1));                   \
        v = f(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1));                     \
        v = f(v, __builtin_shufflevector(v, v, 2, 3, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1));                   \
        v = f(v, __builtin_shufflevector(v, v, 1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1));                  \
    } while (0)
OP float fold16(const vf v[1]) {
    vf a = v[0];
    FOLD(a, vadd);
    return a[0];
}
OP float vmax_lanes(vf a) { /* no lane is a NaN */
    FOLD(a, vmax);
    return a[0];
}
OP int32_t vimax_lanes(vi a) {
    FOLD(a, vimax);
    return a[0];
}
OP int32_t sum_lanes(vi a) {
    FOLD(a, viadd);
    return a[0];
}
OP unsigned vbits(vm m) { return (unsigned)(sum_lanes(m) != 0); } /* not 0: some lane holds */
/* Rounded half to even: numbers below 2^22 only. */
OP vi to_int(vf v) { return visub(vcasti(vadd(v, vset(12582912.0f))), viset(0x4b400000)); }
/* 32 floats times inv to int8, nearest even (a NaN to 0); returns their sum. */
OP int32_t quantize32(int8_t *q, const float *x, float inv, const int limit) {
    vi v[2];
    for (int i = 0; i < 2; i++) {
        vf f = vmul(vld(x + 16 * i), vset(inv));
        if (limit) {
            f = vmax(vset(-127.0f), vmin(vset(127.0f), vsel(f == f, f, vset(0.0f))));
        }
        v[i] = to_int(f);
        *(vb_at *)(q + 16 * i) = __builtin_convertvector(v[i], vb);
    }
    return sum_lanes(viadd(v[0], v[1]));
}
OP void vprefetchw(const float *p) { __builtin_prefetch(p, 1, 3); }
OP void vprefetch(const float *p) { __builtin_prefetch(p, 0, 3); }
#include "simd.h"
OP void vput16(int16_t *p, const vf v[1]) { *(vh_at *)p = __builtin_convertvector(to_int(v[0]), vh); }
OP void vturn(vf r[16]) {
    float t[16][16];
    for (int i = 0; i < 16; i++) {
        vst(t[i], r[i]);
    }
    for (int j = 0; j < 16; j++) {
        BY_LANE(r[j], t[i][j])
    }
}
#include "attend.h"
#include "table.h"

/* ---- float32 ---- */

/* A matrix product or a convolution: for every span, floats of x from where a row starts meet rows of b, bk apart. */
typedef struct product {
    float *y;
    int64_t ldy;
    const float *x;
    int64_t ldx;
    const fr_span *spans;
    int64_t n_spans;
    const float *b;
    int64_t bk, bp, n;
    float alpha;
    const fr_epilogue *e;
} product;
/* P panels x N rows from row i, column j on, one vector each; panel p's go to t + p ts. */
INLINE void f32_tile(float *t, int64_t ts, const product *g, int64_t i, int64_t j, const int P, const int N) {
    vf s[6];
    UNROLL for (int c = 0; c < P * N; c++) { s[c] = vset(0.0f); }
    for (const fr_span *q = g->spans; q < g->spans + g->n_spans; q++) {
        const float *x = g->x + i * g->ldx + q->a, *b = g->b + j / 16 * g->bp + g->bk * q->k;
        for (int64_t k = 0; k < q->n; k++, b += g->bk, x++) {
            UNROLL for (int p = 0; p < P; p++) {
                const vf w = vld(b + p * g->bp);
                UNROLL for (int r = 0; r < N; r++) { s[N * p + r] = vfma(vset(x[r * g->ldx]), w, s[N * p + r]); }
            }
        }
    }
    UNROLL for (int c = 0; c < P * N; c++) {
        vst(t + c / N * ts + c % N * 16, g->alpha != 1.0f ? vmul(vset(g->alpha), s[c]) : s[c]);
    }
}
/* Rows i .. i + rows - 1, columns j .. j + 16 P - 1, by tiles of at most W rows: the epilogue sees them all at once. */
INLINE void f32_group(const product *g, int64_t i, int64_t j, int64_t rows, const int P, const int W) {
    float t[GROUP * 16] __attribute__((aligned(64)));
    expect_tile(g->y, g->ldy, P, 16, (int)rows, i, j, g->e);
    for (int64_t r = 0, n; r < rows; r += n) {
        n = even(rows - r, W);
#define CASE(N)                                                                                                                  \
    case N:                                                                                                                      \
        if ((N) <= W) {                                                                                                          \
            f32_tile(t + 16 * r, 16 * rows, g, i + r, j, P, N);                                                                  \
        }                                                                                                                        \
        break;
        SIX(n, CASE)
#undef CASE
    }
    finish_tile(g->y, g->ldy, t, P, 16, (int)rows, i, j, g->n, g->e);
}
static void f32_all(const product *g, int64_t m) {
    int64_t j = 0;
    for (; m == 1 && j + 48 < g->n; j += 64) { /* few rows: more columns at once hide the latency */
        f32_group(g, 0, j, 1, 4, 1);
    }
    for (; m > 0 && m <= 3 && j + 16 < g->n; j += 32) {
        f32_group(g, 0, j, m, 2, 3);
    }
    for (; j < g->n; j += 16) {
        for (int64_t i = 0, rows; i < m; i += rows) {
            rows = even(m - i, GROUP);
            f32_group(g, i, j, rows, 1, 6);
        }
    }
}

static void gemm_f32(float *y, int64_t ldy, const float *a, int64_t lda, const float *b, int64_t bk, int64_t bp, int64_t m,
                     int64_t n, int64_t k, float alpha, const fr_epilogue *e) {
    const fr_span all = {0, 0, k};
    const product g = {y, ldy, a, lda, &all, 1, b, bk, bp, n, alpha, e};
    f32_all(&g, m);
}

static void conv_f32(float *y, int64_t ldy, const float *x, int64_t ldx, const fr_span *spans, int64_t n_spans, const float *b,
                     int64_t bp, int64_t m, int64_t n, const fr_epilogue *e) {
    const product g = {y, ldy, x, ldx, spans, n_spans, b, 16, bp, n, 1.0f, e};
    f32_all(&g, m);
}

/* ---- int8 and int4 weights ---- */

enum { TILE = 4 }; /* tokens whose sums are in registers */

/* Byte j of 16 groups of four. */
#define COLUMN(v, j)                                                                                                             \
    __builtin_shufflevector(v, v, j, j + 4, j + 8, j + 12, j + 16, j + 20, j + 24, j + 28, j + 32, j + 36, j + 40, j + 44,       \
                            j + 48, j + 52, j + 56, j + 60)
/* The weights of four k, 16 rows each: as panels have them [16][4], or as columns after open_panel [4][16]. */
INLINE void four(vb c[4], const int8_t *w, const int columns) {
    if (columns) {
        UNROLL for (int j = 0; j < 4; j++) { c[j] = *(const vb_at *)(w + 16 * j); }
    } else {
        const vb4 v = *(const vb4_at *)w;
        c[0] = COLUMN(v, 0), c[1] = COLUMN(v, 1), c[2] = COLUMN(v, 2), c[3] = COLUMN(v, 3);
    }
}
/* A panel whose blocks are step bytes apart. */
static void open_panel(int8_t *d, const int8_t *w, int64_t kp, int64_t step) {
    for (int64_t k = 0; k < kp; k += 4, d += 64) {
        vb c[4];
        four(c, w + k / FR_BLOCK * step + k % FR_BLOCK * 16, 0);
        UNROLL for (int j = 0; j < 4; j++) { *(vb_at *)(d + 16 * j) = c[j]; }
    }
}
/* s + w * x for |x| below 2^15. */
INLINE vi mac(vi s, vb w, int32_t x) { return viadd(s, __builtin_convertvector(__builtin_convertvector(w, vh), vi) * viset(x)); }
/* s[i] += the dots of n k steps of a panel and N tokens, kp apart. */
INLINE void dot8(vi *s, const int8_t *w, const int8_t *x, int64_t kp, int64_t n, const int columns, const int N) {
    for (int64_t k = 0; k < n; k += 4, w += 64) {
        vb c[4];
        four(c, w, columns);
        UNROLL for (int j = 0; j < 4; j++) {
            UNROLL for (int i = 0; i < N; i++) { s[i] = mac(s[i], c[j], x[i * kp + k + j]); }
        }
    }
}
INLINE void w8_tile(float *t, const int8_t *w, const float *wscale, const fr_act8 *a, int64_t i, const int columns, const int N) {
    const int64_t kp = a->kp, nb = kp / FR_BLOCK;
    const int8_t *x = a->q + i * kp;
    vi s[TILE];
    UNROLL for (int n = 0; n < N; n++) { s[n] = viset(0); }
    if (!a->blocked) {
        dot8(s, w, x, kp, kp, columns, N);
        UNROLL for (int n = 0; n < N; n++) { vst(t + 16 * n, vmul(vcvt(s[n]), vmul(vld(wscale), vset(a->scale[i + n])))); }
        return;
    }
    memset(t, 0, (size_t)N * 64); /* the float sums: the registers are full */
    for (int64_t b = 0; b < nb; b++) {
        UNROLL for (int n = 0; n < N; n++) { s[n] = viset(0); }
        dot8(s, w + 512 * b, x + FR_BLOCK * b, kp, FR_BLOCK, columns, N);
        UNROLL for (int n = 0; n < N; n++) {
            vst(t + 16 * n, vfma(vset(a->scale[(i + n) * nb + b]), vcvt(s[n]), vld(t + 16 * n)));
        }
    }
    UNROLL for (int n = 0; n < N; n++) { vst(t + 16 * n, vmul(vld(t + 16 * n), vld(wscale))); }
}
/* fp16 to float32 by integers and one exact subtraction: CPUs need not have fp16, nor subnormals in time. */
INLINE vf halves(const uint8_t *p) {
    vuh h;
    memcpy(&h, p, 32);
    const vi v = __builtin_convertvector(h, vi), m = v & 0x7fff, o = viadd(vishl(m, 13), viset(0x38000000));
    const vf small = vsub(vcastf(viadd(o, viset(0x800000))), vset(0x1p-14f));
    return vcastf(vcasti(vsel(m < 0x400, small, vcastf(o))) | vishl(v & 0x8000, 16));
}
/* Blocks step bytes apart with scales of their own, fp16 in those FR_W8B_BLOCK bytes apart. */
INLINE void w8b_tile(float *t, const int8_t *w, int64_t step, const uint8_t *scales, const fr_act8 *a, int64_t i,
                     const int columns, const int N) {
    const int64_t kp = a->kp, nb = kp / FR_BLOCK;
    vi s[TILE];
    memset(t, 0, (size_t)N * 64);
    for (int64_t b = 0; b < nb; b++) {
        UNROLL for (int n = 0; n < N; n++) { s[n] = viset(0); }
        dot8(s, w + step * b, a->q + i * kp + FR_BLOCK * b, kp, FR_BLOCK, columns, N);
        const vf ws = halves(scales + b * FR_W8B_BLOCK);
        UNROLL for (int n = 0; n < N; n++) {
            const float scale = a->blocked ? a->scale[(i + n) * nb + b] : a->scale[i + n];
            vst(t + 16 * n, vfma(vmul(ws, vset(scale)), vcvt(s[n]), vld(t + 16 * n)));
        }
    }
}
/* Tokens i .. i + rows - 1 of the panel at w, of rows 16 p .. 16 p + 15; scales: as w8b_tile, or NULL and wscale. */
INLINE void w8_group(float *y, int64_t ldy, const fr_act8 *a, int64_t i, int64_t rows, const int8_t *w, const float *wscale,
                     const uint8_t *scales, int64_t p, int64_t n, const fr_epilogue *e, const int columns) {
    float t[GROUP * 16] __attribute__((aligned(64)));
    expect_tile(y, ldy, 1, 16, (int)rows, i, 16 * p, e);
    for (int64_t r = 0, tokens; r < rows; r += tokens) {
        tokens = even(rows - r, TILE);
        switch (tokens) {
#define CASE(N)                                                                                                                  \
    case N:                                                                                                                      \
        if (scales) {                                                                                                            \
            w8b_tile(t + 16 * r, w, columns ? 512 : FR_W8B_BLOCK, scales, a, i + r, columns, N);                                 \
        } else {                                                                                                                 \
            w8_tile(t + 16 * r, w, wscale + 16 * p, a, i + r, columns, N);                                                       \
        }                                                                                                                        \
        break;
            CASE(1)
            CASE(2)
            CASE(3)
            CASE(4)
#undef CASE
        }
    }
    finish_tile(y, ldy, t, 1, 16, (int)rows, i, 16 * p, n, e);
}

/* wscale: NULL where every block has scales of its own. */
static void w8_product(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const int8_t *w, const float *wscale,
                       int64_t p0, int64_t p1, int64_t n, const fr_epilogue *e, void *scratch) {
    const int64_t step = wscale ? 512 : FR_W8B_BLOCK;
    for (int64_t p = p0; p < p1; p++) {
        const int8_t *panel = w + p * (a->kp / FR_BLOCK) * step;
        const uint8_t *scales = wscale ? NULL : (const uint8_t *)panel + 512;
        if (m1 - m0 <= TILE) {
            w8_group(y, ldy, a, m0, m1 - m0, panel, wscale, scales, p, n, e, 0);
            continue;
        }
        open_panel(scratch, panel, a->kp, step);
        for (int64_t i = m0, rows; i < m1; i += rows) {
            rows = even(m1 - i, GROUP);
            w8_group(y, ldy, a, i, rows, scratch, wscale, scales, p, n, e, 1);
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

INLINE vi zero_points(const uint8_t *p) {
    vub z;
    memcpy(&z, p, 16);
    return __builtin_convertvector(z, vi);
}
/* A block of W4_P16 as columns [32][16] of codes. */
static void open_block(int8_t *d, const uint8_t *block) {
    for (int k = 0; k < 16; k += 4) {
        vb c[4];
        four(c, (const int8_t *)block + 16 * k, 0);
        UNROLL for (int j = 0; j < 4; j++) {
            *(vb_at *)(d + 16 * (k + j)) = c[j] & 15;
            *(vb_at *)(d + 16 * (k + j + 16)) = (vb)((vub)c[j] >> 4);
        }
    }
}
/* s + w * x in int16: 16 products of 15 * 127 fit. */
INLINE vh mac16(vh s, vb w, int8_t x) { return s + __builtin_convertvector(w, vh) * (vh)LANES((int16_t)x); }
/* t += a block's part of 16 rows x N tokens from token i on; codes: opened, or NULL where the nibbles are taken as they lie. */
INLINE void w4_step(float *t, const uint8_t *block, const int8_t *codes, const fr_act8 *a, int64_t i, int64_t b, const int offset,
                    const int N) {
    const int64_t kp = a->kp, nb = kp / FR_BLOCK;
    const int8_t *x = a->q + i * kp + b * FR_BLOCK;
    vh s[TILE], u[TILE];
    UNROLL for (int n = 0; n < N; n++) { s[n] = u[n] = (vh){0}; }
    for (int k = 0; k < 16; k += 4) {
        vb low[4], high[4];
        if (codes) {
            four(low, codes + 16 * k, 1);
            four(high, codes + 256 + 16 * k, 1);
        } else {
            four(low, (const int8_t *)block + 16 * k, 0);
            UNROLL for (int j = 0; j < 4; j++) {
                high[j] = (vb)((vub)low[j] >> 4);
                low[j] &= 15;
            }
        }
        UNROLL for (int j = 0; j < 4; j++) {
            UNROLL for (int n = 0; n < N; n++) {
                s[n] = mac16(s[n], low[j], x[n * kp + k + j]);
                u[n] = mac16(u[n], high[j], x[n * kp + k + j + 16]);
            }
        }
    }
    const vf ws = halves(block + 256);
    const vi zero = offset ? vcasti(halves(block + 288)) : zero_points(block + 288); /* offset: the bits of the offsets */
    UNROLL for (int n = 0; n < N; n++) {
        const vi d = viadd(__builtin_convertvector(s[n], vi), __builtin_convertvector(u[n], vi));
        const float scale = a->blocked ? a->scale[(i + n) * nb + b] : a->scale[i + n];
        if (offset) {
            const vf u = vfma(ws, vcvt(d), vmul(vcastf(zero), vset((float)a->sum[(i + n) * nb + b])));
            vst(t + 16 * n, vfma(vset(scale), u, vld(t + 16 * n)));
            continue;
        }
        const vf v = vcvt(visub(d, zero * viset(a->sum[(i + n) * nb + b])));
        vst(t + 16 * n, vfma(vmul(ws, vset(scale)), v, vld(t + 16 * n)));
    }
}
/* All blocks of a panel x rows <= GROUP tokens from token i on. */
INLINE void w4_panel(float *t, const uint8_t *block, const fr_act8 *a, int64_t i, int64_t rows, const int offset) {
    int8_t codes[512] __attribute__((aligned(64)));
    memset(t, 0, (size_t)rows * 64);
    for (int64_t b = 0; b < a->kp / FR_BLOCK; b++, block += offset ? FR_W4O_BLOCK : FR_W4_BLOCK) {
        if (rows == 1) {
            w4_step(t, block, NULL, a, i, b, offset, 1);
            continue;
        }
        open_block(codes, block);
        int64_t r = 0;
        for (; r + TILE <= rows; r += TILE) {
            w4_step(t + 16 * r, block, codes, a, i + r, b, offset, TILE);
        }
        for (; r < rows; r++) {
            w4_step(t + 16 * r, block, codes, a, i + r, b, offset, 1);
        }
    }
}

INLINE void w4_product(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                       int64_t n, const fr_epilogue *e, const int offset) {
    const int64_t panel = a->kp / FR_BLOCK * (offset ? FR_W4O_BLOCK : FR_W4_BLOCK);
    float t[GROUP * 16] __attribute__((aligned(64)));
    for (int64_t i = m0, rows; i < m1; i += rows) {
        rows = even(m1 - i, GROUP);
        for (int64_t p = p0; p < p1; p++) {
            expect_tile(y, ldy, 1, 16, (int)rows, i, 16 * p, e);
            w4_panel(t, w + p * panel, a, i, rows, offset);
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

/* An opened panel. */
static size_t scratch_bytes(int64_t m, int64_t k) {
    (void)m;
    return (size_t)((k + FR_BLOCK - 1) / FR_BLOCK * 512);
}

/* ---- integer convolution: codes as unsigned bytes ---- */

/* limit and rounding of isa.h, plus zero. */
typedef struct rounding {
    vf low, high;
    vi zero, flip;
} rounding;
OP rounding rounding_of(int32_t zero, int32_t low, int32_t high, uint8_t flip) {
    return (rounding){vset((float)(low - zero)), vset((float)(high - zero)), viset(zero), viset(flip)};
}
OP vub to_codes(vf v, const rounding *r) {
    return __builtin_convertvector(viadd(to_int(vmin(vmax(v, r->low), r->high)), r->zero) ^ r->flip, vub);
}
OP void put_bytes(void *y, const void *v, int64_t n, int64_t size) { /* n of 16 elements */
    if (n >= 16) {
        memcpy(y, v, (size_t)(16 * size));
    } else {
        memcpy(y, v, (size_t)(n * size));
    }
}
/* Stores the sums of 16 channels from channel c on of pixel i. */
INLINE void put_sums(const fr_qconv *q, const rounding *r, vi s, int64_t i, int64_t c) {
    const int32_t *params = q->params + c / 16 * FR_QPARAMS;
    const int64_t at = i * q->ldy + c, n = q->n - c;
    if (q->window) {
        s = visub(s, vild(params + 48) * viset(q->window[i]));
    }
    const vf v = vmul(vcvt(s), vcastf(vild(params + 32)));
    if (q->dtype == 6) {
        put_bytes((int32_t *)q->y + at, &s, n, 4);
    } else if (q->dtype == 1) {
        put_bytes((float *)q->y + at, &v, n, 4);
    } else {
        const vub code = to_codes(v, r);
        put_bytes((uint8_t *)q->y + at, &code, n, 1);
    }
}

/* 16 channels from channel c on x M pixels from i on; w: the panel's weights as columns. */
INLINE void qconv_tile(const fr_qconv *q, const rounding *r, const int8_t *w, int64_t i, int64_t c, const int M) {
    const uint8_t *x[TILE];
    vi s[TILE];
    UNROLL for (int m = 0; m < M; m++) {
        x[m] = (const uint8_t *)q->codes + q->pixel[i + m];
        s[m] = vild(q->params + c / 16 * FR_QPARAMS);
    }
    for (int64_t run = 0; run < q->runs; run++) {
        for (int64_t k = q->run[run], end = k + 4 * q->quads; k < end; k += 4, w += 64) {
            vb t[4];
            four(t, w, 1);
            UNROLL for (int j = 0; j < 4; j++) {
                UNROLL for (int m = 0; m < M; m++) { s[m] = mac(s[m], t[j], x[m][k + j]); }
            }
        }
    }
    UNROLL for (int m = 0; m < M; m++) { put_sums(q, r, s[m], i + m, c); }
}

static void qconv(const fr_qconv *q) {
    const rounding r = rounding_of(q->zero, q->low, q->high, q->dtype == 3 ? 0x80 : 0);
    const int64_t panel = q->runs * q->quads * 64;
    for (int64_t c = 0; c < q->n; c += 16) {
        open_panel(q->scratch, q->w + c / 16 * panel, panel / 16, 16 * FR_BLOCK);
        for (int64_t i = 0, n; i < q->pixels; i += n) {
            n = even(q->pixels - i, TILE);
            switch (n) {
#define CASE(N)                                                                                                                  \
    case N:                                                                                                                      \
        qconv_tile(q, &r, q->scratch, i, c, N);                                                                                  \
        break;
                CASE(1)
                CASE(2)
                CASE(3)
                CASE(4)
#undef CASE
            }
        }
    }
}

static void qdepth(const fr_qconv *q) {
    const rounding r = rounding_of(q->zero, q->low, q->high, q->dtype == 3 ? 0x80 : 0);
    for (int64_t c = 0; c < q->n; c += 16) {
        const int8_t *w = q->w + c / 16 * q->quads * 64;
        vh_at *taps = q->scratch;
        for (int64_t k = 0; k < q->quads; k++) {
            vb t[4];
            four(t, w + 64 * k, 0);
            UNROLL for (int j = 0; j < 4; j++) { taps[4 * k + j] = __builtin_convertvector(t[j], vh); }
        }
        for (int64_t i = 0; i < q->pixels; i++) {
            const uint8_t *x = (const uint8_t *)q->codes + q->pixel[i] + c;
            vi s = vild(q->params + c / 16 * FR_QPARAMS);
            for (int64_t k = 0; k < 4 * q->quads; k++) {
                vub code;
                memcpy(&code, x + q->run[k], 16);
                const vh wide = __builtin_convertvector(code, vh);
                s = viadd(s, __builtin_convertvector(wide, vi) * __builtin_convertvector(taps[k], vi));
            }
            put_sums(q, &r, s, i, c);
        }
    }
}

/* (code - zero) * m of 16 codes. */
INLINE vf scaled(const uint8_t *x, uint8_t flip, int32_t zero, float m) {
    return vmul(vcvt(visub(zero_points(x) ^ viset(flip), viset(zero))), vset(m));
}
static void qadd(uint8_t *y, const uint8_t *a, const uint8_t *b, int64_t n, const fr_qadd *p) {
    const rounding r = rounding_of(p->zero, p->low, p->high, p->flip_y);
    for (int64_t i = 0; i < n; i += 16) {
        uint8_t ta[16] = {0}, tb[16] = {0};
        put_bytes(ta, a + i, n - i, 1);
        put_bytes(tb, b + i, n - i, 1);
        const vub code = to_codes(vadd(scaled(ta, p->flip_a, p->za, p->ma), scaled(tb, p->flip_b, p->zb, p->mb)), &r);
        put_bytes(y + i, &code, n - i, 1);
    }
}

/* ---- attention over int8 caches ---- */

static void qk8(float *y, int64_t ldy, const int8_t *q, int64_t ldq, const float *qs, const int8_t *k, int64_t ldk,
                const float *ks, int64_t m, int64_t n, int64_t d, const int8_t *next, int64_t ahead) {
    (void)next, (void)ahead;
    qk8_rest(y, ldy, q, ldq, qs, k, ldk, ks, m, n, d);
}
static void pv8(float *y, int64_t ldy, const int16_t *p, int64_t ldp, const float *ps, const int8_t *v, int64_t ldv, int64_t m,
                int64_t n, int64_t e, const int8_t *next, int64_t ahead) {
    (void)next, (void)ahead;
    int64_t c = 0;
    for (; c + 16 <= e; c += 16) {
        for (int64_t i = 0; i < m; i++) {
            vi s = viset(0);
            for (int64_t j = 0; j < n; j++) {
                s += __builtin_convertvector(*(const vb_at *)(v + j * ldv + c), vi) * viset(p[i * ldp + j]);
            }
            vst(y + i * ldy + c, vmul(vcvt(s), vset(ps[i])));
        }
    }
    if (c < e) {
        pv8_rest(y, ldy, p, ldp, ps, v, ldv, m, n, c, e);
    }
}

static const frugal_isa table = {.name = "rvv", .chunk = 96, .codes = FR_CODES_U8, .quad_bytes = 64, FR_FUNCTIONS};
const frugal_isa *const fr_isa_rvv = &table;
#else
const frugal_isa *const fr_isa_rvv = NULL;
#endif
