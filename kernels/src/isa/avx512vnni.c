/* avx512vnni.c - the kernels for x86-64 with AVX-512 VNNI: vpdpbusd takes 64 bytes of a panel (16 rows x 4 k) as they are stored.
 *
 * Its left operand is unsigned: weights or activations enter plus 128 (bit 7 flipped) and 128 times the sum of the others is
 * taken off again, which is exact even where the int32 wraps.  Compile with -mavx512f -mavx512bw -mavx512vl -mavx512dq
 * -mavx512vnni -mavx2 -mfma -mf16c -ffp-contract=off; without those flags the table is absent.
 */
#include "../isa.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) &&                           \
    defined(__AVX512VNNI__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>
#include <string.h>

/* The operations that simd.h is written in. */
enum { VW = 16 };
typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;
#define OP static inline __attribute__((always_inline))
OP vf vset(float x) { return _mm512_set1_ps(x); }
OP vi viset(int32_t x) { return _mm512_set1_epi32(x); }
OP vf vld(const float *p) { return _mm512_loadu_ps(p); }
OP void vst(float *p, vf v) { _mm512_storeu_ps(p, v); }
/* Halves, exact; back to nearest even. */
OP vf vhalf(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
OP vf vbfloat(const uint16_t *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16));
}
OP void vsthalf(uint16_t *p, vf v) { _mm256_storeu_si256((void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT)); }
OP vm lanes_below(int n) { return (vm)(n >= 16 ? 0xffff : n <= 0 ? 0 : (1 << n) - 1); }
OP vf vld_n(const float *p, int n) { return _mm512_maskz_loadu_ps(lanes_below(n), p); }
OP void vst_n(float *p, vf v, int n) { _mm512_mask_storeu_ps(p, lanes_below(n), v); }
OP vf vkeep(vf v, int n) { return _mm512_maskz_mov_ps(lanes_below(n), v); }
OP vf vadd(vf a, vf b) { return _mm512_add_ps(a, b); }
OP vf vsub(vf a, vf b) { return _mm512_sub_ps(a, b); }
OP vf vmul(vf a, vf b) { return _mm512_mul_ps(a, b); }
OP vf vdiv(vf a, vf b) { return _mm512_div_ps(a, b); }
OP vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
OP vf vfnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); } /* fma(-a, b, c) */
OP vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); }              /* a > b ? a : b */
OP vf vmin(vf a, vf b) { return _mm512_min_ps(a, b); }
OP vf vsqrt(vf a) { return _mm512_sqrt_ps(a); }
OP vf vrint(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
OP vf vfloor(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
OP vf vcvt(vi a) { return _mm512_cvtepi32_ps(a); }
OP vi vcasti(vf a) { return _mm512_castps_si512(a); }
OP vf vcastf(vi a) { return _mm512_castsi512_ps(a); }
OP vi viand(vi a, vi b) { return _mm512_and_si512(a, b); }
OP vi vior(vi a, vi b) { return _mm512_or_si512(a, b); }
OP vi vixor(vi a, vi b) { return _mm512_xor_si512(a, b); }
OP vi viadd(vi a, vi b) { return _mm512_add_epi32(a, b); }
OP vi visub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
OP vi vimax(vi a, vi b) { return _mm512_max_epi32(a, b); }
#define vishl _mm512_slli_epi32
#define visra _mm512_srai_epi32
OP vm vlt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
OP vm vge(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
OP vm vne(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }
OP vm vodd(vi a) { return _mm512_test_epi32_mask(a, viset(1)); }
OP vf vsel(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
OP unsigned vbits(vm m) { return m; }
/* Lanes j += j + 8, += j + 4, += j + 2, += j + 1. */
OP float fold16(const vf v[1]) {
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v[0]), _mm512_extractf32x8_ps(v[0], 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
OP float vmax_lanes(vf a) { return _mm512_reduce_max_ps(a); }
OP int32_t vimax_lanes(vi a) { return _mm512_reduce_max_epi32(a); }
/* 32 floats times inv to int8, nearest even; returns their sum. */
OP int32_t quantize32(int8_t *q, const float *x, float inv, const int limit) {
    vi v[2];
    for (int i = 0; i < 2; i++) {
        vf f = vmul(vld(x + 16 * i), vset(inv));
        if (limit) {
            f = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(f, f, _CMP_ORD_Q), f);
            f = vmax(vset(-127.0f), vmin(vset(127.0f), f));
        }
        v[i] = _mm512_cvtps_epi32(f);
        _mm_storeu_si128((void *)(q + 16 * i), _mm512_cvtepi32_epi8(v[i]));
    }
    return _mm512_reduce_add_epi32(viadd(v[0], v[1]));
}
/* Brings a line that will be written (x86-64 CPUs with AVX2 all have prefetchw). */
OP void vprefetchw(const float *p) { __asm__ volatile("prefetchw %0" : : "m"(*p)); }
OP void vprefetch(const float *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }
OP void vput16(int16_t *p, const vf v[1]) { _mm256_storeu_si256((void *)p, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(v[0]))); }
/* 16 x 16 lanes of 32 bits: pairs, quads, then quarters of the vectors. */
OP void turn16(vi r[16]) {
    vi a[16], b[16];
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        const vi e = _mm512_shuffle_i32x4(b[i], b[i + 4], 0x88), o = _mm512_shuffle_i32x4(b[i], b[i + 4], 0xdd);
        const vi g = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0x88), h = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0xdd);
        r[i] = _mm512_shuffle_i32x4(e, g, 0x88);
        r[i + 4] = _mm512_shuffle_i32x4(o, h, 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(e, g, 0xdd);
        r[i + 12] = _mm512_shuffle_i32x4(o, h, 0xdd);
    }
}
OP void vturn(vf r[16]) {
    vi t[16];
    for (int i = 0; i < 16; i++) {
        t[i] = vcasti(r[i]);
    }
    turn16(t);
    for (int i = 0; i < 16; i++) {
        r[i] = vcastf(t[i]);
    }
}
#include "attend.h"
#include "table.h"

#define LD(p) _mm512_loadu_si512((const void *)(p))
/* KEEP pins the written order of steps: without it gcc hoists loads and spills accumulators.  No effect on values. */
#define KEEP(v) __asm__ volatile("" : "+v"(v))
/* PIN keeps a pointer in its register: without it gcc computes, and spills, one address for every load of an unrolled loop. */
#define PIN(p) __asm__ volatile("" : "+r"(p))
/* Rows (of tokens or panels) a constant distance apart, one register for every three: base + {0, 1, 2} * distance is an x86
 * address. */
typedef struct rows {
    const uint8_t *at[4];
    int64_t step;
} rows;
INLINE rows rows_of(const void *base, int64_t step, const int n) {
    rows r = {.step = step};
    UNROLL for (int g = 0; g < (n + 2) / 3; g++) { r.at[g] = (const uint8_t *)base + 3 * g * step; }
    return r;
}
INLINE const void *row(const rows *r, int i, int64_t offset) { return r->at[i / 3] + i % 3 * r->step + offset; }
INLINE void rows_add(rows *r, int64_t bytes, const int n) {
    UNROLL for (int g = 0; g < (n + 2) / 3; g++) {
        r->at[g] += bytes;
        PIN(r->at[g]);
    }
}
/* Four bytes, repeated. */
OP vi bc4(const void *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return viset(v);
}

/* Where the results of a tile go: panel p of token r to at + p step + r ld, columns from n on not at all.  First the bias is
 * added (that of panel p at bias + p column_step), then come the limits, then the residual, which lies as y does. */
typedef struct target {
    float *at;
    int64_t ld, step, n;
    const float *bias, *residual;
    int64_t residual_ld, column_step;
    const float *y; /* where they are in the end, rows y_ld apart */
    int64_t y_ld;
    limits limits;
} target;
enum { ALL_COLUMNS = 1 << 20 };
/* With limits as the only function straight to y; else to t [P][rows][16], to be finished by finish_tile.  i, j: of the first
 * result.
 */
INLINE target target_of(const fr_epilogue *e, float *y, int64_t ldy, int64_t n, int64_t i, int64_t j, int64_t step, float *t,
                        int64_t rows, int64_t r) {
    target to = {.at = t + 16 * r, .ld = 16, .step = 16 * rows, .n = ALL_COLUMNS, .bias = e->bias ? e->bias + j : NULL};
    to.column_step = step, to.y = y + (i + r) * ldy + j, to.y_ld = ldy, to.limits = (limits){-INFINITY, INFINITY};
    if (limits_only(e)) {
        to.limits = limits_of(e);
        to.at = y + (i + r) * ldy + j, to.ld = ldy, to.step = step, to.n = n - j;
        to.residual = e->residual ? e->residual + (i + r) * e->ld + j : NULL;
        to.residual_ld = e->ld;
    }
    return to;
}
/* Asks for the lines in good time: stores that miss would hold up the ones behind them. */
INLINE void expect(const target *to, const int P, const int N) {
    UNROLL for (int c = 0; c < P * N; c++) { vprefetchw(to->y + c / N * to->column_step + c % N * to->y_ld); }
    if (to->residual) {
        UNROLL for (int c = 0; c < P * N; c++) { vprefetch(to->residual + c / N * to->step + c % N * to->residual_ld); }
    }
}
INLINE void store_tile(const target *to, vf *v, const int P, const int N) {
    UNROLL for (int p = 0; p < P; p++) {
        const int64_t left = to->n - p * to->step;
        const vm there = lanes_below(left >= 16 ? 16 : (int)left);
        if (to->bias) {
            const vf bias = vld(to->bias + p * to->column_step);
            UNROLL for (int r = 0; r < N; r++) { v[p * N + r] = vadd(v[p * N + r], bias); }
        }
        UNROLL for (int r = 0; r < N; r++) { v[p * N + r] = vlimit(v[p * N + r], &to->limits); }
        if (to->residual) {
            const float *add = to->residual + p * to->step;
            UNROLL for (int r = 0; r < N; r++) {
                v[p * N + r] = vadd(v[p * N + r], _mm512_maskz_loadu_ps(there, add + r * to->residual_ld));
            }
        }
        float *at = to->at + p * to->step;
        UNROLL for (int r = 0; r < N; r++) { _mm512_mask_storeu_ps(at + r * to->ld, there, v[p * N + r]); }
    }
}
/* What is left to do for a tile that went to t. */
static __attribute__((noinline)) void finish_rest(float *y, int64_t ldy, float *t, int panels, int64_t step, int rows, int64_t i,
                                                  int64_t j, int64_t n, const fr_epilogue *e) {
    fr_epilogue rest = *e;
    if (limits_only(e)) {
        return;
    }
    rest.bias = NULL;
    finish_tile(y, ldy, t, panels, step, rows, i, j, n, &rest);
}

/* ---- float32 ---- */

/* Multiply-adds of P panels and N tokens at one k; at: bytes from a's rows. */
INLINE void f32_step(vf *s, const rows *a, const rows *b, int64_t at, const int P, const int N) {
    vf w[8];
    UNROLL for (int p = 0; p < P; p++) { w[p] = vld(row(b, p, 0)); }
    UNROLL for (int i = 0; i < N; i++) {
        const vf x = vset(*(const float *)row(a, i, at));
        UNROLL for (int p = 0; p < P; p++) {
            s[p * N + i] = vfma(x, w[p], s[p * N + i]);
            KEEP(s[p * N + i]);
        }
    }
}
/* P panels x N tokens, one vector each. */
INLINE void f32_tile(const target *to, const float *a, int64_t lda, const float *b, int64_t bk, int64_t bp, int64_t k,
                     float alpha, const int P, const int N) {
    rows x = rows_of(a, 4 * lda, N), w = rows_of(b, 4 * bp, P);
    vf s[24];
    int64_t kk = 0;
    UNROLL for (int c = 0; c < P * N; c++) { s[c] = vset(0.0f); }
    for (; kk + 4 <= k; kk += 4) {
        UNROLL for (int u = 0; u < 4; u++) {
            f32_step(s, &x, &w, 4 * u, P, N);
            rows_add(&w, 4 * bk, P);
        }
        rows_add(&x, 16, N);
    }
    for (; kk < k; kk++) {
        f32_step(s, &x, &w, 0, P, N);
        rows_add(&w, 4 * bk, P);
        rows_add(&x, 4, N);
    }
    if (alpha != 1.0f) {
        UNROLL for (int c = 0; c < P * N; c++) { s[c] = vmul(vset(alpha), s[c]); }
    }
    store_tile(to, s, P, N);
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
    float t[2 * GROUP * 16] __attribute__((aligned(64)));
    expect_tile(g->y, g->ldy, P, 16, (int)rows, i, j, g->e);
    for (int64_t r = 0, n; r < rows; r += n) {
        const target to = target_of(g->e, g->y, g->ldy, g->n, i, j, 16, t, rows, r);
        const float *a = g->a + (i + r) * g->lda, *b = g->b + j / 16 * g->bp;
        n = even(rows - r, W);
#define CASE(N)                                                                                                                  \
    case N:                                                                                                                      \
        if ((N) <= W) {                                                                                                          \
            f32_tile(&to, a, g->lda, b, g->bk, g->bp, g->k, g->alpha, P, N);                                                     \
        }                                                                                                                        \
        break;
        TWELVE(n, CASE)
#undef CASE
    }
    finish_rest(g->y, g->ldy, t, P, 16, (int)rows, i, j, g->n, g->e);
}

static void gemm_f32(float *y, int64_t ldy, const float *a, int64_t lda, const float *b, int64_t bk, int64_t bp, int64_t m,
                     int64_t n, int64_t k, float alpha, const fr_epilogue *e) {
    const product g = {y, ldy, a, lda, b, bk, bp, n, k, alpha, e};
    int64_t j = 0;
    for (; m == 1 && j + 112 < n; j += 128) { /* few tokens: more columns at once hide the latency */
        f32_group(&g, 0, j, 1, 8, 1);
    }
    for (; m > 0 && m <= 6 && j + 48 < n; j += 64) {
        f32_group(&g, 0, j, m, 4, 6);
    }
    for (; j + 16 < n; j += 32) {
        for (int64_t i = 0, rows; i < m; i += rows) {
            rows = even(m - i, GROUP);
            f32_group(&g, i, j, rows, 2, 12);
        }
    }
    for (int64_t i = 0, rows; j < n && i < m; i += rows) {
        rows = even(m - i, GROUP);
        f32_group(&g, i, j, rows, 1, 12);
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
INLINE void conv_tile(const target *to, const convolution *g, int64_t i, int64_t j, const int P, const int N) {
    vf s[24];
    UNROLL for (int c = 0; c < P * N; c++) { s[c] = vset(0.0f); }
    for (int64_t q = 0; q < g->n_spans; q++) {
        const fr_span *span = g->spans + q;
        rows x = rows_of(g->x + i * g->ldx + span->a, 4 * g->ldx, N),
             w = rows_of(g->b + j / 16 * g->bp + 16 * span->k, 4 * g->bp, P);
        int64_t kk = 0;
        for (; kk + 4 <= span->n; kk += 4) {
            UNROLL for (int u = 0; u < 4; u++) {
                f32_step(s, &x, &w, 4 * u, P, N);
                rows_add(&w, 64, P);
            }
            rows_add(&x, 16, N);
        }
        for (; kk < span->n; kk++) {
            f32_step(s, &x, &w, 0, P, N);
            rows_add(&w, 64, P);
            rows_add(&x, 4, N);
        }
    }
    store_tile(to, s, P, N);
}

/* Positions i .. i + rows - 1, columns j .. j + 16 P - 1 of a convolution, as f32_group. */
INLINE void conv_group(const convolution *g, int64_t i, int64_t j, int64_t rows, const int P, const int W) {
    float t[2 * GROUP * 16] __attribute__((aligned(64)));
    expect_tile(g->y, g->ldy, P, 16, (int)rows, i, j, g->e);
    for (int64_t r = 0, n; r < rows; r += n) {
        const target to = target_of(g->e, g->y, g->ldy, g->n, i, j, 16, t, rows, r);
        n = even(rows - r, W);
#define CASE(N)                                                                                                                  \
    case N:                                                                                                                      \
        if ((N) <= W) {                                                                                                          \
            conv_tile(&to, g, i + r, j, P, N);                                                                                   \
        }                                                                                                                        \
        break;
        TWELVE(n, CASE)
#undef CASE
    }
    finish_rest(g->y, g->ldy, t, P, 16, (int)rows, i, j, g->n, g->e);
}

static void conv_f32(float *y, int64_t ldy, const float *x, int64_t ldx, const fr_span *spans, int64_t n_spans, const float *b,
                     int64_t bp, int64_t m, int64_t n, const fr_epilogue *e) {
    const convolution g = {y, ldy, x, ldx, spans, n_spans, b, bp, n, e};
    int64_t j = 0;
    for (; m > 0 && m <= 6 && j + 48 < n; j += 64) { /* few positions: more columns at once hide the latency */
        conv_group(&g, 0, j, m, 4, 6);
    }
    for (; j + 16 < n; j += 32) {
        for (int64_t i = 0, rows; i < m; i += rows) {
            rows = even(m - i, GROUP);
            conv_group(&g, i, j, rows, 2, 12);
        }
    }
    for (int64_t i = 0, rows; j < n && i < m; i += rows) {
        rows = even(m - i, GROUP);
        conv_group(&g, i, j, rows, 1, 12);
    }
}

/* ---- int8 and int4 weights ---- */

/* What a tile computes: gemm_w8 by token, by block, gemm_w4, gemm_w8b, gemm_w4o.  Either the weights are the unsigned operand,
 * unpacked from memory as they are needed (few tokens); or READY, the activations are: then signed weights are read as they lie
 * (int8) or as prepare has unpacked them (int4), and 128 times their sums, which depend on the panel alone, are taken off. */
enum { TOKEN8 = 0, BLOCK8 = 1, BLOCK4 = 2, SCALED8 = 3, OFFSET4 = 4, READY = 8 };
/* 512 bytes of code - zero, int32 less[16], float scale[16]; OFFSET4: 512 bytes of codes, which stay the unsigned operand, float
 * offset[16], float scale[16]. */
enum { READY_BLOCK4 = 640 };
#define MATH(kind) ((kind) & 7)
#define IS4(kind) (MATH(kind) == BLOCK4 || MATH(kind) == OFFSET4)
#define STORED_BYTES(kind)                                                                                                       \
    (MATH(kind) == BLOCK4 ? FR_W4_BLOCK : MATH(kind) == OFFSET4 ? FR_W4O_BLOCK : MATH(kind) == SCALED8 ? FR_W8B_BLOCK : 512)
#define BLOCK_BYTES(kind) (IS4(kind) && ((kind) & READY) ? READY_BLOCK4 : STORED_BYTES(kind))
#define LESS_BYTES(kind) (IS4(kind) ? READY_BLOCK4 : 64)          /* from one block's less to the next, READY */
#define SHIFTED(kind) (((kind) & READY) && MATH(kind) != OFFSET4) /* the activations are the unsigned operand */

/* Weights of k step s (4 k each) of a block; unsigned unless READY. */
INLINE vi fetch(const uint8_t *w, int s, const int kind) {
    if (kind & READY) {
        return LD(w + 64 * s);
    }
    if (!IS4(kind)) {
        return vixor(LD(w + 64 * s), _mm512_set1_epi8(-128));
    }
    const vi q = LD(w + 64 * (s % 4));
    return viand(s < 4 ? q : _mm512_srli_epi16(q, 4), _mm512_set1_epi8(15));
}
/* Zero points of a W4 block as dpwssd takes them: -zero in the low 16 bits of each lane, 0 above; and its scales. */
INLINE vi w4_zero(const uint8_t *w) {
    return viand(visub(viset(0), _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(w + 288)))), viset(0xffff));
}
INLINE vf halves16(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
INLINE vf w4_scale(const uint8_t *w, const int kind) { return kind & READY ? vld((const void *)(w + 576)) : halves16(w + 256); }
/* fma(wscale * scale, dot - zero * sum, f) of a block; READY has taken the zero point off already. */
INLINE vf w4_add(vi dot, const uint8_t *w, int32_t sum, vf scale, vf f, const int kind) {
    const vi d = kind & READY ? dot : _mm512_dpwssd_epi32(dot, w4_zero(w), viset(sum));
    return vfma(vmul(w4_scale(w, kind), scale), vcvt(d), f);
}
/* What a block's dot adds to the float sum f. */
INLINE vf block_add(vi dot, const uint8_t *w, int32_t sum, vf scale, vf f, const int kind) {
    if (MATH(kind) == OFFSET4) {
        const vf offset = kind & READY ? vld((const void *)(w + 512)) : halves16(w + 288);
        return vfma(scale, vfma(w4_scale(w, kind), vcvt(dot), vmul(offset, vcvt(viset(sum)))), f);
    }
    if (MATH(kind) == SCALED8) {
        return vfma(vmul(halves16(w + 512), scale), vcvt(dot), f);
    }
    return MATH(kind) == BLOCK8 ? vfma(scale, vcvt(dot), f) : w4_add(dot, w, sum, scale, f, kind);
}

/* -128 times the sums of the rows of a block of signed weights, added to less. */
INLINE vi less_block(vi less, const uint8_t *w) {
    vi sum = viset(0);
    UNROLL for (int s = 0; s < 8; s++) { sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(-128), LD(w + 64 * s)); }
    return visub(less, sum);
}
/* A panel of int8 weights: less[nb][16] or, by token, less[16]. */
static void prepare8(int32_t *less, const uint8_t *w, int64_t nb, const int kind) {
    vi all = viset(0);
    for (int64_t b = 0; b < nb; b++, w += STORED_BYTES(kind)) {
        const vi block = less_block(kind == TOKEN8 ? all : viset(0), w);
        if (kind == TOKEN8) {
            all = block;
        } else {
            _mm512_store_si512((void *)(less + 16 * b), block);
        }
    }
    if (kind == TOKEN8) {
        _mm512_store_si512((void *)less, all);
    }
}
/* A panel of int4 weights, unpacked. */
static void prepare4(uint8_t *d, const uint8_t *w, int64_t nb) {
    for (int64_t b = 0; b < nb; b++, w += FR_W4_BLOCK, d += READY_BLOCK4) {
        const vi zero = _mm512_mullo_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(w + 288))), viset(0x01010101));
        UNROLL for (int s = 0; s < 8; s++) {
            _mm512_store_si512((void *)(d + 64 * s), _mm512_sub_epi8(fetch(w, s, BLOCK4), zero));
        }
        _mm512_store_si512((void *)(d + 512), less_block(viset(0), d));
        vst((void *)(d + 576), w4_scale(w, BLOCK4));
    }
}

/* A panel with offsets, unpacked. */
static void prepare4o(uint8_t *d, const uint8_t *w, int64_t nb) {
    for (int64_t b = 0; b < nb; b++, w += FR_W4O_BLOCK, d += READY_BLOCK4) {
        UNROLL for (int s = 0; s < 8; s++) { _mm512_store_si512((void *)(d + 64 * s), fetch(w, s, OFFSET4)); }
        vst((void *)(d + 512), halves16(w + 288));
        vst((void *)(d + 576), halves16(w + 256));
    }
}

/* The operands of one call of a product, and what it keeps in its scratch. */
typedef struct call {
    float *y;
    int64_t ldy;
    const fr_act8 *a;
    int64_t m0, m1;
    const uint8_t *w;
    const float *wscale;
    int64_t p0, p1, n;
    const fr_epilogue *e;
    uint8_t *ready;  /* READY: two prepared panels (int4), or their less (int8) */
    uint8_t *tokens; /* READY: the activations from token m0 on, plus 128 */
    int32_t *less;   /* int8, not READY: -128 times the sums of the tokens from m0 on, by token [m] or by block [m][nb] */
} call;
/* Where the operands of some panels lie: the first one's, and the bytes to the next. */
typedef struct panels {
    const uint8_t *w, *less; /* less: READY */
    int64_t w_step, less_step;
    const float *wscale; /* int8 */
    int64_t wscale_step;
    const uint8_t *next; /* prepared int4: the panels after these, next_step apart, to ask for: lines of 64 with every block of a
                            tile */
    int64_t next_step, lines;
} panels;

/* P panels x N tokens from token i on. */
INLINE void dot_tile(const target *to, const call *g, const panels *w, int64_t i, const int P, const int N, const int kind) {
    const fr_act8 *a = g->a;
    const int64_t kp = a->kp, nb = kp / FR_BLOCK;
    const int64_t sb = a->blocked ? 1 : 0, si = sb ? nb : 1; /* steps of scale by block and by token */
    expect(to, P, N);
    const int32_t *less = g->less + (i - g->m0) * (MATH(kind) == TOKEN8 ? 1 : nb);
    const void *tokens = SHIFTED(kind) ? (const void *)(g->tokens + (i - g->m0) * kp) : (const void *)(a->q + i * kp);
    rows x = rows_of(tokens, kp, N), v = rows_of(w->w, w->w_step, P), l = rows_of(w->less, w->less_step, P);
    vi s[24];
    vf f[24];
    UNROLL for (int c = 0; c < P * N; c++) {
        f[c] = vset(0.0f);
        if (MATH(kind) == TOKEN8) {
            s[c] = kind & READY ? LD(row(&l, c / N, 0)) : viset(less[c % N]);
        }
    }
    const uint8_t *next = w->next;
    for (int64_t b = 0; b < nb; b++) {
        for (int64_t line = IS4(kind) && (kind & READY) ? w->lines : 0; line > 0; line--, next += 64) {
            UNROLL for (int p = 0; p < P; p++) { _mm_prefetch((const char *)next + p * w->next_step, _MM_HINT_T1); }
        }
        if (MATH(kind) != TOKEN8) {
            UNROLL for (int c = 0; c < P * N; c++) {
                s[c] = SHIFTED(kind) ? LD(row(&l, c / N, 0)) : IS4(kind) ? viset(0) : viset(less[c % N * nb + b]);
            }
        }
        UNROLL for (int k = 0; k < 8; k++) {
            vi weight[4];
            UNROLL for (int p = 0; p < P; p++) { weight[p] = fetch(row(&v, p, 0), k, kind); }
            UNROLL for (int n = 0; n < N; n++) {
                const vi token = bc4(row(&x, n, 4 * k));
                UNROLL for (int p = 0; p < P; p++) {
                    s[p * N + n] = SHIFTED(kind) ? _mm512_dpbusd_epi32(s[p * N + n], token, weight[p])
                                                 : _mm512_dpbusd_epi32(s[p * N + n], weight[p], token);
                    KEEP(s[p * N + n]);
                }
            }
        }
        if (MATH(kind) != TOKEN8) {
            UNROLL for (int c = 0; c < P * N; c++) {
                const vf scale = vset(a->scale[(i + c % N) * si + b * sb]);
                const int32_t sum = kind == BLOCK4 || MATH(kind) == OFFSET4 ? a->sum[(i + c % N) * nb + b] : 0;
                f[c] = block_add(s[c], row(&v, c / N, 0), sum, scale, f[c], kind);
                KEEP(f[c]);
            }
            rows_add(&l, LESS_BYTES(kind), P);
        }
        rows_add(&x, FR_BLOCK, N);
        rows_add(&v, BLOCK_BYTES(kind), P);
    }
    if (MATH(kind) == TOKEN8 || MATH(kind) == BLOCK8) {
        UNROLL for (int c = 0; c < P * N; c++) {
            const vf ws = vld(w->wscale + c / N * w->wscale_step);
            f[c] = MATH(kind) == BLOCK8 ? vmul(f[c], ws) : vmul(vcvt(s[c]), vmul(ws, vset(a->scale[i + c % N])));
        }
    }
    store_tile(to, f, P, N);
}

enum { W4_LINES = 5 }; /* that a block of int4 weights touches */
/* Tokens i .. i + rows - 1 of panels p, p + step, ..., by tiles of at most W tokens. */
INLINE void run_group(const call *g, const panels *w, int64_t p, int64_t step, int64_t i, int64_t rows, const int P, const int W,
                      const int kind) {
    float t[2 * GROUP * 16] __attribute__((aligned(64)));
    for (int64_t r = 0, n; r < rows; r += n) {
        const target to = target_of(g->e, g->y, g->ldy, g->n, i, 16 * p, 16 * step, t, rows, r);
        n = even(rows - r, W);
        panels at = *w;
        if (IS4(kind) && (kind & READY)) {
            const int64_t tile = (i + r - g->m0) / W;
            at.next += tile * (g->a->kp / FR_BLOCK) * at.lines * 64;
            at.lines = tile < W4_LINES ? at.lines : 0;
        }
#define CASE(N)                                                                                                                  \
    case N:                                                                                                                      \
        if ((N) <= W) {                                                                                                          \
            dot_tile(&to, g, &at, i + r, P, N, kind);                                                                            \
        }                                                                                                                        \
        break;
        TWELVE(n, CASE)
#undef CASE
    }
    finish_rest(g->y, g->ldy, t, P, 16 * step, (int)rows, i, 16 * p, g->n, g->e);
}
/* Up to FEW tokens, weights straight from memory: P distant streams of panels use the memory better than one. */
INLINE int64_t run_streams(const call *g, int64_t p0, const int P, const int W, const int kind) {
    const int64_t panel = g->a->kp / FR_BLOCK * BLOCK_BYTES(kind), l = (g->p1 - p0) / P;
    for (int64_t p = p0; p < p0 + l; p++) {
        panels w = {.w = g->w + p * panel, .w_step = l * panel, .wscale_step = 16 * l};
        w.wscale = g->wscale ? g->wscale + 16 * p : NULL;
        run_group(g, &w, p, l, g->m0, g->m1 - g->m0, P, W, kind);
    }
    return p0 + P * l;
}
/* P neighbouring panels, prepared once, meet all tokens. */
INLINE void run_panels(const call *g, int64_t p, const int P, const int W, const int kind) {
    const int64_t nb = g->a->kp / FR_BLOCK, panel = nb * BLOCK_BYTES(kind);
    panels w = {.w = g->w + p * panel, .less = g->ready, .w_step = panel, .less_step = nb * 64, .wscale_step = 16};
    for (int j = 0; j < P; j++) {
        if (kind == BLOCK4) {
            prepare4(g->ready + j * nb * READY_BLOCK4, w.w + j * panel, nb);
        } else if (kind == OFFSET4) {
            prepare4o(g->ready + j * nb * READY_BLOCK4, w.w + j * panel, nb);
        } else {
            prepare8((int32_t *)(void *)(g->ready + j * nb * 64), w.w + j * panel, nb, kind);
        }
    }
    if (IS4(kind)) {
        const int64_t tiles = (g->m1 - g->m0 + W - 1) / W;
        w = (panels){.w = g->ready, .less = g->ready + 512, .w_step = nb * READY_BLOCK4, .less_step = nb * READY_BLOCK4};
        w.next = g->w + (p + P) * panel, w.next_step = panel;
        w.lines = p + 2 * P <= g->p1 ? (W4_LINES + tiles - 1) / tiles : 0;
    } else {
        w.wscale = g->wscale ? g->wscale + 16 * p : NULL;
    }
    for (int64_t i = g->m0, rows; i < g->m1; i += rows) {
        rows = even(g->m1 - i, GROUP);
        run_group(g, &w, p, 1, i, rows, P, W, kind | READY);
    }
}
/* Activations plus 128, as READY takes them. */
static void shift_tokens(const call *g) {
    const int8_t *q = g->a->q + g->m0 * g->a->kp;
    for (int64_t i = 0; i < (g->m1 - g->m0) * g->a->kp; i += 32) {
        const __m256i v = _mm256_loadu_si256((const void *)(q + i));
        _mm256_store_si256((void *)(g->tokens + i), _mm256_xor_si256(v, _mm256_set1_epi8(-128)));
    }
}
/* What the unsigned weights of gemm_w8 need. */
static void sum_tokens(const call *g, const int kind) {
    const int64_t nb = g->a->kp / FR_BLOCK, m = g->m1 - g->m0;
    const int32_t *sum = g->a->sum + g->m0 * nb;
    for (int64_t i = 0; i < m; i++) {
        int32_t total = 0;
        for (int64_t b = 0; b < nb; b++) {
            total += sum[i * nb + b];
            if (kind != TOKEN8) {
                g->less[i * nb + b] = -128 * sum[i * nb + b];
            }
        }
        if (kind == TOKEN8) {
            g->less[i] = -128 * total;
        }
    }
}
enum { FEW = 6, SOME = GROUP /* up to here it costs less to make int8 weights unsigned on the way than to prepare them */ };
INLINE void run_call(const call *g, const int kind) {
    const int64_t m = g->m1 - g->m0;
    const int most = kind == TOKEN8 ? 12 : 6;
    int64_t p = g->p0;
    if (m > (IS4(kind) ? FEW : SOME)) {
        if (SHIFTED(kind | READY)) {
            shift_tokens(g);
        }
        for (; p + 2 <= g->p1; p += 2) {
            run_panels(g, p, 2, most, kind);
        }
        if (p < g->p1) {
            run_panels(g, p, 1, most, kind);
        }
        return;
    }
    if (!IS4(kind)) {
        sum_tokens(g, kind);
    }
    if (kind == TOKEN8 && m <= FEW) {
        p = run_streams(g, p, 4, 6, kind);
    } else if (m <= 3) {
        p = run_streams(g, p, 4, 3, kind);
    } else if (m <= FEW) {
        p = run_streams(g, p, 2, 6, kind);
    } else {
        p = run_streams(g, p, 2, most, kind);
    }
    run_streams(g, p, 1, most, kind);
}

/* Scratch: two prepared panels, shifted tokens, then one int32 a block of activations. */
static size_t scratch_bytes(int64_t m, int64_t k) {
    const int64_t nb = (k + FR_BLOCK - 1) / FR_BLOCK;
    return (size_t)(nb * (2 * READY_BLOCK4 + m * (FR_BLOCK + 4)));
}
static call call_of(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const fr_epilogue *e, void *scratch) {
    uint8_t *tokens = (uint8_t *)scratch + a->kp / FR_BLOCK * 2 * READY_BLOCK4;
    int32_t *less = (int32_t *)(void *)(tokens + (m1 - m0) * a->kp);
    return (call){.y = y, .ldy = ldy, .a = a, .m0 = m0, .m1 = m1, .e = e, .ready = scratch, .tokens = tokens, .less = less};
}

static void gemm_w8(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const int8_t *w, const float *wscale,
                    int64_t p0, int64_t p1, int64_t n, const fr_epilogue *e, void *scratch) {
    call g = call_of(y, ldy, a, m0, m1, e, scratch);
    g.w = (const uint8_t *)w, g.wscale = wscale, g.p0 = p0, g.p1 = p1, g.n = n;
    if (m1 <= m0) {
        return;
    }
    if (a->blocked) {
        run_call(&g, BLOCK8);
    } else {
        run_call(&g, TOKEN8);
    }
}

static void gemm_w4(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                    int64_t n, const fr_epilogue *e, void *scratch) {
    call g = call_of(y, ldy, a, m0, m1, e, scratch);
    g.w = w, g.p0 = p0, g.p1 = p1, g.n = n;
    if (m1 > m0) {
        run_call(&g, BLOCK4);
    }
}
static void gemm_w4o(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                     int64_t n, const fr_epilogue *e, void *scratch) {
    call g = call_of(y, ldy, a, m0, m1, e, scratch);
    g.w = w, g.p0 = p0, g.p1 = p1, g.n = n;
    if (m1 > m0) {
        run_call(&g, OFFSET4);
    }
}
static void gemm_w8b(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                     int64_t n, const fr_epilogue *e, void *scratch) {
    call g = call_of(y, ldy, a, m0, m1, e, scratch);
    g.w = w, g.p0 = p0, g.p1 = p1, g.n = n;
    if (m1 > m0) {
        run_call(&g, SCALED8);
    }
}

/* ---- integer convolution ---- */

/* limit and rounding of isa.h, plus zero: in float32, and in bytes for products that int32 holds. */
typedef struct rounding {
    vf low, high;
    vi zero, zero16, low8, high8, flip;
} rounding;
static rounding rounding_of(int32_t zero, int32_t low, int32_t high, uint8_t flip) {
    return (rounding){vset((float)(low - zero)),      vset((float)(high - zero)),  viset(zero),
                      _mm512_set1_epi16((short)zero), _mm512_set1_epi8((char)low), _mm512_set1_epi8((char)high),
                      _mm512_set1_epi8((char)flip)};
}
INLINE vi to_codes(vf v, const rounding *r) { return viadd(_mm512_cvtps_epi32(vmin(vmax(v, r->low), r->high)), r->zero); }
/* Four vectors of 16 products that int32 holds: lane l has their elements 4 l .. 4 l + 3, one vector after the other. */
INLINE vi to_bytes(const vf v[4], const rounding *r) {
    const vi a = _mm512_packs_epi32(_mm512_cvtps_epi32(v[0]), _mm512_cvtps_epi32(v[1]));
    const vi b = _mm512_packs_epi32(_mm512_cvtps_epi32(v[2]), _mm512_cvtps_epi32(v[3]));
    const vi y = _mm512_packus_epi16(_mm512_adds_epi16(a, r->zero16), _mm512_adds_epi16(b, r->zero16));
    return vixor(_mm512_min_epu8(_mm512_max_epu8(y, r->low8), r->high8), r->flip);
}
/* The same with the vectors one after the other. */
INLINE vi to_bytes_in_order(const vf v[4], const rounding *r) {
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), to_bytes(v, r));
}

/* Stores the sums of 16 channels from channel 16 p on of pixel i. */
INLINE void put_sums(const fr_qconv *q, const rounding *r, const int32_t *params, vi acc, int64_t i, int64_t p) {
    const int64_t at = i * q->ldy + 16 * p;
    const vm m = lanes_below((int)(q->n - 16 * p < 16 ? q->n - 16 * p : 16));
    if (q->window) {
        acc = visub(acc, _mm512_mullo_epi32(LD(params + 48), viset(q->window[i])));
    }
    const vf v = vmul(vcvt(acc), vld((const float *)(const void *)(params + 32)));
    if (q->dtype == 6) {
        _mm512_mask_storeu_epi32((int32_t *)q->y + at, m, acc);
    } else if (q->dtype == 1) {
        _mm512_mask_storeu_ps((float *)q->y + at, m, v);
    } else {
        const __m128i y = _mm_xor_si128(_mm512_cvtepi32_epi8(to_codes(v, r)), _mm512_castsi512_si128(r->flip));
        _mm_mask_storeu_epi8((uint8_t *)q->y + at, m, y);
    }
}

/* The sums of a tile, s[c M + m] of panel p + c and pixel i + m, whatever comes out. */
static __attribute__((noinline)) void put_any(const fr_qconv *q, const rounding *r, const vi *s, int64_t i, int64_t p, int P,
                                              int M) {
    for (int c = 0; c < P; c++) {
        for (int m = 0; m < M; m++) {
            put_sums(q, r, q->params + (p + c) * FR_QPARAMS, s[c * M + m], i + m, p + c);
        }
    }
}

/* The same where bytes come out and products fit int32: four vectors at a time. */
INLINE void put_small(const fr_qconv *q, const rounding *r, const vi *s, int64_t i, int64_t p, const int P, const int M) {
    const int64_t left = q->n - 16 * (p + P - 1); /* channels of the last panel */
    const __mmask64 mask = left >= 16 ? ~(__mmask64)0 >> (64 - 16 * P) : ~(__mmask64)0 >> (80 - 16 * P - left);
    const int each = 4 / P; /* pixels that four vectors hold */
    uint8_t *y = (uint8_t *)q->y + i * q->ldy + 16 * p;
    vf m[4], v[4];
    UNROLL for (int c = 0; c < P; c++) { m[c] = vld((const float *)(const void *)(q->params + (p + c) * FR_QPARAMS + 32)); }
    UNROLL for (int at = 0; at < M; at += each) {
        UNROLL for (int k = 0; k < 4; k++) {
            const int pixel = at + k / P < M ? at + k / P : M - 1;
            v[k] = vmul(vcvt(s[k % P * M + pixel]), m[k % P]);
        }
        const vi b = to_bytes_in_order(v, r);
        const __m512i part[4] = {b, _mm512_castsi128_si512(_mm512_extracti32x4_epi32(b, 1)),
                                 _mm512_castsi128_si512(_mm512_extracti32x4_epi32(b, 2)),
                                 _mm512_castsi128_si512(_mm512_extracti32x4_epi32(b, 3))};
        UNROLL for (int k = 0; k < each; k++) {
            uint8_t *to = y + (at + k) * q->ldy;
            if (at + k >= M) {
                continue;
            }
            if (P == 4) {
                _mm512_mask_storeu_epi8(to, mask, b);
            } else if (P == 2) {
                const __m256i h = k ? _mm512_extracti64x4_epi64(b, 1) : _mm512_castsi512_si256(b);
                _mm256_mask_storeu_epi8(to, (__mmask32)mask, h);
            } else {
                _mm_mask_storeu_epi8(to, (__mmask16)mask, _mm512_castsi512_si128(part[k]));
            }
        }
    }
}

/* P panels from p on x M pixels from i on, which lie step codes apart. */
INLINE void qconv_tile(const fr_qconv *q, const rounding *r, int64_t i, int64_t p, int64_t step, int fast, const int P,
                       const int M) {
    const int64_t panel = q->runs * q->quads * 64;
    const int32_t *params = q->params + p * FR_QPARAMS;
    rows w = rows_of(q->w + p * panel, panel, P);
    vi s[24];
    UNROLL for (int c = 0; c < P * M; c++) { s[c] = LD(params + c / M * FR_QPARAMS); }
    for (int64_t run = 0; run < q->runs; run++) {
        rows x = rows_of((const uint8_t *)q->codes + q->pixel[i] + q->run[run], step, M);
        int64_t k = q->quads;
        do {
            vi weight[4];
            UNROLL for (int c = 0; c < P; c++) { weight[c] = LD(row(&w, c, 0)); }
            UNROLL for (int m = 0; m < M; m++) {
                const vi code = bc4(row(&x, m, 0));
                UNROLL for (int c = 0; c < P; c++) {
                    s[c * M + m] = _mm512_dpbusd_epi32(s[c * M + m], code, weight[c]);
                    KEEP(s[c * M + m]);
                }
            }
            rows_add(&w, 64, P);
            rows_add(&x, 4, M);
        } while (--k > 0);
    }
    if (fast) {
        put_small(q, r, s, i, p, P, M);
    } else { /* a copy, or the sums would live in memory all along */
        vi t[24];
        UNROLL for (int c = 0; c < P * M; c++) { t[c] = s[c]; }
        put_any(q, r, t, i, p, P, M);
    }
}

/* All pixels of P panels, by tiles of at most W of one row. */
INLINE void qconv_panels(const fr_qconv *q, const rounding *r, int64_t p, const int P, const int W) {
    const int fast = q->small && !q->window && (q->dtype == 2 || q->dtype == 3);
    const int64_t step = q->row > 1 ? q->pixel[1] - q->pixel[0] : 0;
    for (int64_t i = 0, n; i < q->pixels; i += n) {
        n = even(q->row - i % q->row, W);
        switch (n) {
#define CASE(N)                                                                                                                  \
    case N:                                                                                                                      \
        if ((N) <= W) {                                                                                                          \
            qconv_tile(q, r, i, p, step, fast, P, N);                                                                            \
        }                                                                                                                        \
        break;
            CASE(1)
            CASE(2)
            CASE(3)
            CASE(4)
            CASE(5)
            CASE(6)
            CASE(7)
            CASE(8)
#undef CASE
        }
    }
}

static void qconv(const fr_qconv *q) {
    const rounding r = rounding_of(q->zero, q->low, q->high, q->dtype == 3 ? 0x80 : 0);
    int64_t p = 0, panels = (q->n + 15) / 16;
    for (; p + 4 <= panels; p += 4) {
        qconv_panels(q, &r, p, 4, 6);
    }
    if (p + 2 <= panels) {
        qconv_panels(q, &r, p, 2, 8);
        p += 2;
    }
    if (p < panels) {
        qconv_panels(q, &r, p, 1, 8);
    }
}

/* 64 channels of four taps, as unpacking leaves them: vector v holds channels 16 l + 4 v .. 4 v + 3 in its lane l, four taps
 * each. */
INLINE void interleave(vi d[4], vi a, vi b, vi c, vi e) {
    const vi ab0 = _mm512_unpacklo_epi8(a, b), ab1 = _mm512_unpackhi_epi8(a, b);
    const vi ce0 = _mm512_unpacklo_epi8(c, e), ce1 = _mm512_unpackhi_epi8(c, e);
    d[0] = _mm512_unpacklo_epi16(ab0, ce0);
    d[1] = _mm512_unpackhi_epi16(ab0, ce0);
    d[2] = _mm512_unpacklo_epi16(ab1, ce1);
    d[3] = _mm512_unpackhi_epi16(ab1, ce1);
}
/* 16 bytes for each four of 64 channels, as interleave orders them: channels c .. c + 3 (c = 16 l + 4 v of lane l, or that modulo
 * flat) are at 16 (c % 16 / 4) of panel c / 16, bytes apart; channels from n on are zeros. */
INLINE vi lanes_of(const void *at, int64_t bytes, int v, int64_t flat, int64_t n) {
    __m128i l[4];
    UNROLL for (int i = 0; i < 4; i++) {
        const int64_t c = flat ? (16 * i + 4 * v) % flat : 16 * i + 4 * v;
        l[i] = c / 16 * 16 < n ? _mm_loadu_si128((const void *)((const uint8_t *)at + c / 16 * bytes + c % 16 / 4 * 16))
                               : _mm_setzero_si128();
    }
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_setr_m128i(l[0], l[1])), _mm256_setr_m128i(l[2], l[3]), 1);
}

/* What 64 channels share: params and weights in the order of interleave. */
typedef struct qdepth_job {
    const fr_qconv *q;
    rounding r;
    vi bias[4];
    vf m[4];
    const vi *w; /* [quads][4] */
    int64_t channel;
    __mmask64 mask;
    int64_t flat; /* channels of which a row of pixels side by side repeats whole vectors; 0: none */
} qdepth_job;

static void qdepth_open(qdepth_job *d, const fr_qconv *q, int64_t channel, int64_t flat) {
    const int64_t p = channel / 16, left = q->n - channel;
    *d = (qdepth_job){.q = q, .w = q->scratch, .channel = channel, .flat = flat};
    d->r = rounding_of(q->zero, q->low, q->high, q->dtype == 3 ? 0x80 : 0);
    d->mask = left >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << left) - 1;
    for (int v = 0; v < 4; v++) {
        const int32_t *params = q->params + p * FR_QPARAMS;
        d->bias[v] = lanes_of(params, 4 * FR_QPARAMS, v, flat, left);
        d->m[v] = vcastf(lanes_of(params + 32, 4 * FR_QPARAMS, v, flat, left));
    }
    for (int64_t k = 0; k < q->quads; k++) {
        for (int v = 0; v < 4; v++) {
            const vi w = lanes_of(q->w + (p * q->quads + k) * 64, 64 * q->quads, v, flat, left);
            _mm512_store_si512((vi *)q->scratch + 4 * k + v, w);
        }
    }
}

INLINE void qdepth_put(const qdepth_job *d, const vi s[4], uint8_t *to, __mmask64 mask, const int small) {
    vf v[4];
    vi y;
    UNROLL for (int k = 0; k < 4; k++) { v[k] = vmul(vcvt(s[k]), d->m[k]); }
    if (small) {
        y = to_bytes(v, &d->r);
    } else {
        const vi a = _mm512_packs_epi32(to_codes(v[0], &d->r), to_codes(v[1], &d->r));
        const vi b = _mm512_packs_epi32(to_codes(v[2], &d->r), to_codes(v[3], &d->r));
        y = vixor(_mm512_packus_epi16(a, b), d->r.flip);
    }
    _mm512_mask_storeu_epi8(to, mask, y);
}

INLINE uint8_t *qdepth_to(const qdepth_job *d, int64_t i) { return (uint8_t *)d->q->y + i * d->q->ldy + d->channel; }

/* M pixels side by side of a kernel of three columns, one or two columns apart: a column is unpacked once for all of them. */
INLINE void qdepth_columns(const qdepth_job *d, int64_t i, const int step, const int M, const int small) {
    const fr_qconv *q = d->q;
    const uint8_t *x = (const uint8_t *)q->codes + q->pixel[i] + d->channel;
    const vi *w = d->w;
    vi s[20], c[4];
    PIN(x);
    PIN(w);
    UNROLL for (int m = 0; m < M; m++) {
        UNROLL for (int v = 0; v < 4; v++) { s[4 * m + v] = d->bias[v]; }
    }
    UNROLL for (int j = 0; j < step * (M - 1) + 3; j++, x += q->columns) {
        interleave(c, LD(x + q->run[0]), LD(x + q->run[1]), LD(x + q->run[2]), LD(x + q->run[3]));
        UNROLL for (int m = 0; m < M; m++) {
            const int k = j - step * m;
            if (k < 0 || k >= 3) {
                continue;
            }
            UNROLL for (int v = 0; v < 4; v++) {
                s[4 * m + v] = _mm512_dpbusd_epi32(s[4 * m + v], c[v], w[4 * k + v]);
                KEEP(s[4 * m + v]);
            }
        }
    }
    UNROLL for (int m = 0; m < M; m++) { qdepth_put(d, s + 4 * m, qdepth_to(d, i + m), d->mask, small); }
}

/* 64 channels of one pixel, or of as many pixels side by side as have them: the codes at x. */
INLINE void qdepth_64(const qdepth_job *d, const uint8_t *x, uint8_t *to, __mmask64 mask) {
    const fr_qconv *q = d->q;
    vi s[4] = {d->bias[0], d->bias[1], d->bias[2], d->bias[3]}, c[4];
    for (int64_t k = 0; k < q->quads; k++) {
        const int32_t *at = q->run + 4 * k;
        interleave(c, LD(x + at[0]), LD(x + at[1]), LD(x + at[2]), LD(x + at[3]));
        UNROLL for (int v = 0; v < 4; v++) { s[v] = _mm512_dpbusd_epi32(s[v], c[v], d->w[4 * k + v]); }
    }
    qdepth_put(d, s, to, mask, q->small);
}
static void qdepth_pixel(const qdepth_job *d, int64_t i) {
    qdepth_64(d, (const uint8_t *)d->q->codes + d->q->pixel[i] + d->channel, qdepth_to(d, i), d->mask);
}

/* A row of pixels from i on whose codes and results lie side by side, 64 at a time. */
static void qdepth_flat(const qdepth_job *d, int64_t i) {
    const uint8_t *x = (const uint8_t *)d->q->codes + d->q->pixel[i];
    uint8_t *y = qdepth_to(d, i);
    int64_t n = d->q->row * d->flat;
    for (; n >= 64; n -= 64, x += 64, y += 64) {
        qdepth_64(d, x, y, ~(__mmask64)0);
    }
    if (n > 0) {
        qdepth_64(d, x, y, ((__mmask64)1 << n) - 1);
    }
}

/* A row of pixels from i on whose kernel has three columns; step, small: see qdepth_columns. */
INLINE void qdepth_columns_row(const qdepth_job *d, int64_t i, const int step, const int small) {
    enum { W = 5 };
    for (int64_t end = i + d->q->row, n; i < end; i += n) {
        n = even(end - i, step == 1 ? W : 2);
        switch (n) {
        case 1:
            qdepth_columns(d, i, step, 1, small);
            break;
        case 2:
            qdepth_columns(d, i, step, 2, small);
            break;
        case 3:
            qdepth_columns(d, i, 1, 3, small);
            break;
        case 4:
            qdepth_columns(d, i, 1, 4, small);
            break;
        default:
            qdepth_columns(d, i, 1, W, small);
            break;
        }
    }
}
/* step: 0 for kernels of another form. */
static void qdepth_row(const qdepth_job *d, int64_t i, int step) {
    const bool small = d->q->small;
    if (step == 1 && small) {
        qdepth_columns_row(d, i, 1, 1);
    } else if (step == 1) {
        qdepth_columns_row(d, i, 1, 0);
    } else if (step == 2 && small) {
        qdepth_columns_row(d, i, 2, 1);
    } else if (step == 2) {
        qdepth_columns_row(d, i, 2, 0);
    } else {
        for (int64_t end = i + d->q->row; i < end; i++) {
            qdepth_pixel(d, i);
        }
    }
}

static void qdepth(const fr_qconv *q) {
    qdepth_job d;
    const int64_t apart = q->row > 1 ? q->pixel[1] - q->pixel[0] : 0; /* pixels of a row */
    const int step = q->columns > 0 && apart == q->columns ? 1 : q->columns > 0 && apart == 2 * q->columns ? 2 : 0;
    const int64_t flat = apart == q->n && q->ldy == q->n && (q->n == 4 || q->n == 8 || q->n == 16 || q->n == 32) ? q->n : 0;
    for (int64_t channel = 0; channel < q->n; channel += 64) {
        qdepth_open(&d, q, channel, flat);
        for (int64_t i = 0; i < q->pixels; i += q->row) {
            if (flat) {
                qdepth_flat(&d, i);
            } else {
                qdepth_row(&d, i, step);
            }
        }
    }
}

/* The sums of 16 pairs of codes. */
INLINE vf add_codes(__m128i a, __m128i b, const fr_qadd *p) {
    const vi u = visub(_mm512_cvtepu8_epi32(a), viset(p->za)), v = visub(_mm512_cvtepu8_epi32(b), viset(p->zb));
    return vadd(vmul(vcvt(u), vset(p->ma)), vmul(vcvt(v), vset(p->mb)));
}
static void qadd(uint8_t *y, const uint8_t *a, const uint8_t *b, int64_t n, const fr_qadd *p) {
    const rounding r = rounding_of(p->zero, p->low, p->high, p->flip_y);
    const __m128i fa = _mm_set1_epi8((char)p->flip_a), fb = _mm_set1_epi8((char)p->flip_b), fy = _mm_set1_epi8((char)p->flip_y);
    int64_t i = 0;
    if (fabsf(p->ma) <= 0x1p20f && fabsf(p->mb) <= 0x1p20f) { /* sums that int32 holds */
        for (; i + 64 <= n; i += 64) {
            vf t[4];
            UNROLL for (int k = 0; k < 4; k++) {
                const __m128i u = _mm_loadu_si128((const void *)(a + i + 16 * k)),
                              v = _mm_loadu_si128((const void *)(b + i + 16 * k));
                t[k] = add_codes(_mm_xor_si128(u, fa), _mm_xor_si128(v, fb), p);
            }
            _mm512_storeu_si512((void *)(y + i), to_bytes_in_order(t, &r));
        }
    }
    for (; i < n; i += 16) {
        const vm m = lanes_below((int)(n - i < 16 ? n - i : 16));
        const __m128i u = _mm_xor_si128(_mm_maskz_loadu_epi8(m, a + i), fa),
                      v = _mm_xor_si128(_mm_maskz_loadu_epi8(m, b + i), fb);
        _mm_mask_storeu_epi8(y + i, m, _mm_xor_si128(_mm512_cvtepi32_epi8(to_codes(add_codes(u, v, p), &r)), fy));
    }
}

/* ---- attention over int8 caches ---- */

/* Asks for a line of memory, to be found in the second-level cache. */
#define ASK(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)
/* M queries and 16 keys, of which n exist: the keys of 64 k at a time are turned in registers, one group of 4 k a vector.
 * s begins with -128 times the sums of the queries, as the keys enter plus 128. */
INLINE void qk8_keys(vi *s, const int8_t *q, int64_t ldq, const int8_t *k, int64_t ldk, int64_t n, int64_t d, const int M,
                     const int8_t *next, int64_t ahead) {
    const vi flip = _mm512_set1_epi8(-128);
    for (int64_t c = 0; c < d; c += 64) {
        const __mmask64 there = d - c >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << (d - c)) - 1;
        vi r[16];
        UNROLL for (int j = 0; j < 16; j++) { r[j] = _mm512_maskz_loadu_epi8(there, k + (j < n ? j : n - 1) * ldk + c); }
        UNROLL for (int j = 0; j < 16; j++) { r[j] = vixor(r[j], flip); }
        turn16(r);
        if (ahead > 0) {
            UNROLL for (int j = 0; j < 16; j++) { ASK(next + j * ldk + c); }
        }
        UNROLL for (int j = 0; j < 16; j++) {
            UNROLL for (int i = 0; i < M; i++) { s[i] = _mm512_dpbusd_epi32(s[i], r[j], bc4(q + i * ldq + c + 4 * j)); }
        }
    }
}
INLINE void qk8_tile(float *y, int64_t ldy, const int8_t *q, int64_t ldq, const float *qs, const int8_t *k, int64_t ldk,
                     const float *ks, int64_t n, int64_t d, const int M, const int8_t *next, int64_t ahead) {
    vi less[6];
    UNROLL for (int i = 0; i < M; i++) {
        less[i] = viset(0);
        for (int64_t c = 0; c < d; c += 64) {
            less[i] = _mm512_dpbusd_epi32(less[i], _mm512_set1_epi8(-128), LD(q + i * ldq + c));
        }
        less[i] = viset(-_mm512_reduce_add_epi32(less[i]));
    }
    for (int64_t j = 0; j < n; j += 16, k += 16 * ldk) {
        const int64_t left = n - j;
        const vm there = lanes_below(left >= 16 ? 16 : (int)left);
        const vf by = _mm512_maskz_loadu_ps(there, ks + j);
        vi s[6];
        UNROLL for (int i = 0; i < M; i++) { s[i] = less[i]; }
        if (left >= 16) {
            qk8_keys(s, q, ldq, k, ldk, 16, d, M, next + j * ldk, ahead - j);
        } else {
            qk8_keys(s, q, ldq, k, ldk, left, d, M, k, 0);
        }
        UNROLL for (int i = 0; i < M; i++) {
            _mm512_mask_storeu_ps(y + i * ldy + j, there, vmul(vcvt(s[i]), vmul(vset(qs[i]), by)));
        }
    }
}
static void qk8(float *y, int64_t ldy, const int8_t *q, int64_t ldq, const float *qs, const int8_t *k, int64_t ldk,
                const float *ks, int64_t m, int64_t n, int64_t d, const int8_t *next, int64_t ahead) {
    for (int64_t i = 0, rows; i < m; i += rows) {
        rows = even(m - i, 6);
#define CASE(M)                                                                                                                  \
    case M:                                                                                                                      \
        qk8_tile(y + i * ldy, ldy, q + i * ldq, ldq, qs + i, k, ldk, ks, n, d, M, next, i == 0 ? ahead : 0);                     \
        break;
        SIX(rows, CASE)
#undef CASE
    }
}

/* Rows of 32 C columns of M queries, those from e on left out; two tokens a step, their codes side by side in int16. */
INLINE void pv8_tile(float *y, int64_t ldy, const int16_t *p, int64_t ldp, const float *ps, const int8_t *v, int64_t ldv,
                     int64_t n, int64_t e, const int M, const int C, const int whole, const int8_t *ask, int64_t ahead) {
    const vi first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    vi s[24];
    UNROLL for (int i = 0; i < 2 * C * M; i++) { s[i] = viset(0); }
    for (int64_t j = 0; j < n; j += 2, v += 2 * ldv) {
        const int8_t *next = j + 1 < n ? v + ldv : v;
        if (j < ahead) {
            ASK(ask + j * ldv);
            ASK(ask + (j + 1) * ldv);
        }
        UNROLL for (int c = 0; c < C; c++) {
            const __mmask32 there = whole ? ~UINT32_C(0) : (UINT32_C(1) << e) - 1;
            const vi a = _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(there, v + 32 * c));
            const vi b = _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(there, next + 32 * c));
            const vi lo = _mm512_unpacklo_epi16(a, b), hi = _mm512_unpackhi_epi16(a, b);
            UNROLL for (int i = 0; i < M; i++) {
                const vi w = bc4(p + i * ldp + j);
                s[2 * (i * C + c)] = _mm512_dpwssd_epi32(s[2 * (i * C + c)], lo, w);
                s[2 * (i * C + c) + 1] = _mm512_dpwssd_epi32(s[2 * (i * C + c) + 1], hi, w);
            }
        }
    }
    UNROLL for (int i = 0; i < C * M; i++) {
        float *to = y + i / C * ldy + 32 * (i % C);
        const vf by = vset(ps[i / C]), a = vmul(vcvt(_mm512_permutex2var_epi64(s[2 * i], first, s[2 * i + 1])), by);
        const vf b = vmul(vcvt(_mm512_permutex2var_epi64(s[2 * i], second, s[2 * i + 1])), by);
        if (whole) {
            vst(to, a);
            vst(to + 16, b);
        } else {
            vst_n(to, a, (int)(e < 16 ? e : 16));
            vst_n(to + 16, b, (int)(e < 16 ? 0 : e - 16));
        }
    }
}
static void pv8(float *y, int64_t ldy, const int16_t *p, int64_t ldp, const float *ps, const int8_t *v, int64_t ldv, int64_t m,
                int64_t n, int64_t e, const int8_t *next, int64_t ahead) {
    for (int64_t i = 0, rows; i < m; i += rows) {
        const int16_t *w = p + i * ldp;
        int64_t c = 0;
        float *to = y + i * ldy;
        rows = even(m - i, 6);
#define CASE(M)                                                                                                                  \
    case M:                                                                                                                      \
        for (; c + 64 <= e; c += 64) {                                                                                           \
            pv8_tile(to + c, ldy, w, ldp, ps + i, v + c, ldv, n, 0, M, 2, 1, next + c, i == 0 ? ahead : 0);                      \
        }                                                                                                                        \
        for (; c + 32 <= e; c += 32) {                                                                                           \
            pv8_tile(to + c, ldy, w, ldp, ps + i, v + c, ldv, n, 0, M, 1, 1, next + c, i == 0 && c % 64 == 0 ? ahead : 0);       \
        }                                                                                                                        \
        if (c < e) {                                                                                                             \
            pv8_tile(to + c, ldy, w, ldp, ps + i, v + c, ldv, n, e - c, M, 1, 0, next, 0);                                       \
        }                                                                                                                        \
        break;
        SIX(rows, CASE)
#undef CASE
    }
}

/* Winograd: 16 channels of up to 4 pixels side by side. */
#define vimul _mm512_mullo_epi32
INLINE void wino_put(const fr_qconv *q, const rounding *r, vi s[1][4], int64_t p, int32_t n) {
    if (n == 4 && q->small && (q->dtype == 2 || q->dtype == 3)) {
        put_small(q, r, s[0], 0, p, 1, 4);
    } else {
        put_any(q, r, s[0], 0, p, 1, n);
    }
}
/* The products of P panels u [c / 2][16][2], panel apart, and N tiles (c values each) at one place, to m [P][16], step apart. */
INLINE void wino_mul(int32_t *m, int64_t step, const int16_t *v, int64_t c, const int16_t *u, int64_t panel, const int P,
                     const int N) {
    rows w = rows_of(u, 2 * panel, P), x = rows_of(v, 2 * c, N);
    vi s[24];
    UNROLL for (int i = 0; i < P * N; i++) { s[i] = viset(0); }
    for (int64_t k = 0; k < c; k += 8) {
        UNROLL for (int j = 0; j < 4; j++) {
            vi weight[4];
            UNROLL for (int p = 0; p < P; p++) { weight[p] = LD(row(&w, p, 64 * j)); }
            UNROLL for (int i = 0; i < N; i++) {
                const vi code = bc4(row(&x, i, 4 * j));
                UNROLL for (int p = 0; p < P; p++) {
                    s[p * N + i] = _mm512_dpwssd_epi32(s[p * N + i], code, weight[p]);
                    KEEP(s[p * N + i]);
                }
            }
        }
        rows_add(&w, 256, P);
        rows_add(&x, 16, N);
    }
    UNROLL for (int i = 0; i < N; i++) {
        UNROLL for (int p = 0; p < P; p++) { _mm512_storeu_si512((void *)(m + i * step + 16 * p), s[p * N + i]); }
    }
}
INLINE void wino_places(const fr_qwino *w, const int16_t *v, int32_t *m, int64_t p, int64_t panels, const int P, const int N) {
    const int64_t panel = 16 * w->c;
    for (int64_t q = 0; q < 36; q++) {
        wino_mul(m + q * P * 16, 36 * P * 16, v + q * N * w->c, w->c, w->u + (q * panels + p) * panel, panel, P, N);
    }
}
/* All places of some panels, as many as the registers hold: m [tiles][36][those][16].  Returns how many they are. */
static int64_t wino_panels(const fr_qwino *w, const int16_t *v, int32_t *m, int64_t p, int64_t left) {
    const int64_t many = left >= 4 && w->tiles <= 6 ? 4 : left >= 2 ? 2 : 1;
#define CASE(N)                                                                                                                  \
    case N:                                                                                                                      \
        if ((N) <= 6 && many == 4) {                                                                                             \
            wino_places(w, v, m, p, p + left, 4, (N) <= 6 ? (N) : 1);                                                            \
        } else if (many >= 2) {                                                                                                  \
            wino_places(w, v, m, p, p + left, 2, N);                                                                             \
        } else {                                                                                                                 \
            wino_places(w, v, m, p, p + left, 1, N);                                                                             \
        }                                                                                                                        \
        break;
    TWELVE(w->tiles, CASE)
#undef CASE
    return many;
}
#include "x86_winograd.h"

static const frugal_isa table = {
    .name = "avx512vnni", .chunk = 96, .codes = FR_CODES_U8, .wino_from = 32, .qwino = qwino, FR_FUNCTIONS};
const frugal_isa *const fr_isa_avx512vnni = &table;
#else
const frugal_isa *const fr_isa_avx512vnni = NULL;
#endif
