/* avx2.h - what avx2.c and avxvnni.c share: all that has no int8 dot of weights or codes in it.
 *
 * For x86-64 with AVX2, FMA and F16C: 16 rows in two vectors.  Included where the compiler has these instructions.
 */
#ifndef FRUGAL_AVX2_H
#define FRUGAL_AVX2_H
#include <immintrin.h>
#include <string.h>

/* The operations that simd.h is written in. */
enum { VW = 8 };
typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vm;
#define OP static inline __attribute__((always_inline))
OP vf vset(float x) { return _mm256_set1_ps(x); }
OP vi viset(int32_t x) { return _mm256_set1_epi32(x); }
OP vf vld(const float *p) { return _mm256_loadu_ps(p); }
OP void vst(float *p, vf v) { _mm256_storeu_ps(p, v); }
/* Halves, exact; back to nearest even. */
OP vf vhalf(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p)); }
OP vf vbfloat(const uint16_t *p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)), 16));
}
OP void vsthalf(uint16_t *p, vf v) { _mm_storeu_si128((void *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT)); }
OP vi lanes_below(int n) { return _mm256_cmpgt_epi32(viset(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
OP vf vld_n(const float *p, int n) { return _mm256_maskload_ps(p, lanes_below(n)); }
OP void vst_n(float *p, vf v, int n) { _mm256_maskstore_ps(p, lanes_below(n), v); }
OP vf vkeep(vf v, int n) { return _mm256_and_ps(v, _mm256_castsi256_ps(lanes_below(n))); }
OP vf vadd(vf a, vf b) { return _mm256_add_ps(a, b); }
OP vf vsub(vf a, vf b) { return _mm256_sub_ps(a, b); }
OP vf vmul(vf a, vf b) { return _mm256_mul_ps(a, b); }
OP vf vdiv(vf a, vf b) { return _mm256_div_ps(a, b); }
OP vf vfma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
OP vf vfnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); } /* fma(-a, b, c) */
OP vf vmax(vf a, vf b) { return _mm256_max_ps(a, b); }              /* a > b ? a : b */
OP vf vmin(vf a, vf b) { return _mm256_min_ps(a, b); }
OP vf vsqrt(vf a) { return _mm256_sqrt_ps(a); }
OP vf vrint(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
OP vf vfloor(vf a) { return _mm256_floor_ps(a); }
OP vf vcvt(vi a) { return _mm256_cvtepi32_ps(a); }
OP vi vcasti(vf a) { return _mm256_castps_si256(a); }
OP vf vcastf(vi a) { return _mm256_castsi256_ps(a); }
OP vi viand(vi a, vi b) { return _mm256_and_si256(a, b); }
OP vi vior(vi a, vi b) { return _mm256_or_si256(a, b); }
OP vi vixor(vi a, vi b) { return _mm256_xor_si256(a, b); }
OP vi viadd(vi a, vi b) { return _mm256_add_epi32(a, b); }
OP vi visub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
OP vi vimax(vi a, vi b) { return _mm256_max_epi32(a, b); }
#define vishl _mm256_slli_epi32
#define visra _mm256_srai_epi32
OP vm vlt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
OP vm vge(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_GE_OQ); }
OP vm vne(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_NEQ_UQ); }
OP vm vodd(vi a) { return vcastf(vishl(a, 31)); }
OP vf vsel(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); } /* by the sign bit of m */
OP unsigned vbits(vm m) { return (unsigned)_mm256_movemask_ps(m); }
/* Lanes j += j + 4, += j + 2, += j + 1 after the fold of 16 to 8. */
OP float fold16(const vf v[2]) {
    vf a = vadd(v[0], v[1]);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
OP float vmax_lanes(vf a) {
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}
OP int32_t sum_lanes(vi a) {
    __m128i b = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    b = _mm_add_epi32(b, _mm_shuffle_epi32(b, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(b, _mm_shuffle_epi32(b, 0xb1)));
}
OP int32_t vimax_lanes(vi a) {
    __m128i b = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    b = _mm_max_epi32(b, _mm_shuffle_epi32(b, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(b, _mm_shuffle_epi32(b, 0xb1)));
}
/* 32 floats times inv to int8, nearest even; returns their sum. */
OP int32_t quantize32(int8_t *q, const float *x, float inv, const int limit) {
    vi v[4];
    for (int i = 0; i < 4; i++) {
        vf f = vmul(vld(x + 8 * i), vset(inv));
        if (limit) {
            f = _mm256_and_ps(f, _mm256_cmp_ps(f, f, _CMP_ORD_Q));
            f = vmax(vset(-127.0f), vmin(vset(127.0f), f));
        }
        v[i] = _mm256_cvtps_epi32(f);
    }
    vi p = _mm256_packs_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    p = _mm256_permutevar8x32_epi32(p, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((void *)q, p);
    return sum_lanes(viadd(viadd(v[0], v[1]), viadd(v[2], v[3])));
}
/* Brings a line that will be written (x86-64 CPUs with AVX2 all have prefetchw). */
OP void vprefetchw(const float *p) { __asm__ volatile("prefetchw %0" : : "m"(*p)); }
OP void vprefetch(const float *p) { _mm_prefetch((const char *)p, _MM_HINT_T0); }
OP void vput16(int16_t *p, const vf v[2]) {
    const vi a = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
    _mm256_storeu_si256((void *)p, _mm256_permute4x64_epi64(a, 0xd8));
}
OP void vturn(vf r[8]) {
    vf a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        a[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
        b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xee);
        b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
        b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}
#include "attend.h"
#include "table.h"

#define LD(p) _mm256_loadu_si256((const void *)(p))
/* KEEP pins the written order of steps: without it gcc hoists all broadcasts and spills.  No effect on values. */
#define KEEP(v) __asm__ volatile("" : "+x"(v))
/* Four bytes, repeated. */
OP vi bc4(const void *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return viset(v);
}

/* ---- float32 ---- */

/* P panels x N tokens, one accumulator per 8 columns: to where they go or, where there is more to do, panel p's to t + p ts. */
INLINE void f32_tile(const ending *to, float *t, int64_t ts, const float *a, int64_t lda, const float *b, int64_t bk, int64_t bp,
                     int64_t k, float alpha, const int P, const int N) {
    vf s[12];
    UNROLL for (int i = 0; i < 2 * P * N; i++) { s[i] = vset(0.0f); }
    for (int64_t kk = 0; kk < k; kk++, b += bk, a++) {
        UNROLL for (int p = 0; p < P; p++) {
            const vf b0 = vld(b + p * bp), b1 = vld(b + p * bp + 8);
            UNROLL for (int i = 0; i < N; i++) {
                vf x = _mm256_broadcast_ss(a + i * lda);
                s[2 * (N * p + i)] = vfma(x, b0, s[2 * (N * p + i)]);
                s[2 * (N * p + i) + 1] = vfma(x, b1, s[2 * (N * p + i) + 1]);
            }
        }
    }
    if (alpha != 1.0f) {
        UNROLL for (int i = 0; i < 2 * P * N; i++) { s[i] = vmul(vset(alpha), s[i]); }
    }
    if (to) {
        put_tile(to, s, P, N);
        return;
    }
    UNROLL for (int i = 0; i < 2 * P * N; i++) { vst(t + i / 2 / N * ts + i % (2 * N) * 8, s[i]); }
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
    vf s[12];
    UNROLL for (int c = 0; c < 2 * P * N; c++) { s[c] = vset(0.0f); }
    for (int64_t q = 0; q < g->n_spans; q++) {
        const float *x = g->x + i * g->ldx + g->spans[q].a, *b = g->b + j / 16 * g->bp + 16 * g->spans[q].k;
        for (int64_t kk = 0; kk < g->spans[q].n; kk++, b += 16, x++) {
            UNROLL for (int p = 0; p < P; p++) {
                const vf b0 = vld(b + p * g->bp), b1 = vld(b + p * g->bp + 8);
                UNROLL for (int r = 0; r < N; r++) {
                    const vf v = vset(x[r * g->ldx]);
                    s[2 * (N * p + r)] = vfma(v, b0, s[2 * (N * p + r)]);
                    s[2 * (N * p + r) + 1] = vfma(v, b1, s[2 * (N * p + r) + 1]);
                }
            }
        }
    }
    if (to) {
        put_tile(to, s, P, N);
        return;
    }
    UNROLL for (int c = 0; c < 2 * P * N; c++) { vst(t + c / 2 / N * ts + c % (2 * N) * 8, s[c]); }
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

/* ---- integer convolution ---- */

/* limit and rounding of isa.h, plus zero: in float32, and in bytes for products that int32 holds. */
typedef struct rounding {
    vf low, high;
    vi zero, zero16;
    __m128i low8, high8, flip;
} rounding;
static rounding rounding_of(int32_t zero, int32_t low, int32_t high, uint8_t flip) {
    return (rounding){vset((float)(low - zero)),      vset((float)(high - zero)), viset(zero),
                      _mm256_set1_epi16((short)zero), _mm_set1_epi8((char)low),   _mm_set1_epi8((char)high),
                      _mm_set1_epi8((char)flip)};
}
INLINE vi to_codes(vf v, const rounding *r) { return viadd(_mm256_cvtps_epi32(vmin(vmax(v, r->low), r->high)), r->zero); }
/* Two times 8 products to int16 (elements 0-3 of a and b in the low half, the others in the high one), zero added. */
INLINE vi to_halves(vf a, vf b, const rounding *r, int small) {
    if (small) {
        return _mm256_adds_epi16(_mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b)), r->zero16);
    }
    return _mm256_packs_epi32(to_codes(a, r), to_codes(b, r));
}
INLINE __m128i limited(__m128i bytes, const rounding *r) {
    return _mm_xor_si128(_mm_min_epu8(_mm_max_epu8(bytes, r->low8), r->high8), r->flip);
}
static void put_part(uint8_t *y, __m128i v, int64_t n) {
    uint8_t t[16];
    _mm_storeu_si128((void *)t, v);
    memcpy(y, t, (size_t)n);
}
INLINE void put16(uint8_t *y, __m128i v, int64_t n) {
    if (n >= 16) {
        _mm_storeu_si128((void *)y, v);
    } else {
        put_part(y, v, n);
    }
}

/* Sums of int32 or products as float32 of 16 channels from channel c on of pixel i. */
static void put_wide(const fr_qconv *q, vi a, vi b, int64_t i, int64_t c) {
    int32_t *y = (int32_t *)q->y + i * q->ldy + c;
    const int n = (int)(q->n - c < 16 ? q->n - c : 16);
    _mm256_maskstore_epi32(y, lanes_below(n), a);
    if (n > 8) {
        _mm256_maskstore_epi32(y + 8, lanes_below(n - 8), b);
    }
}

/* Stores the sums of 16 channels from channel c on of M pixels from i on: a of the first eight, b of the others. */
INLINE void put_sums(const fr_qconv *q, const rounding *r, vi *a, vi *b, int64_t i, int64_t c, const int M) {
    const int32_t *params = q->params + c / 16 * FR_QPARAMS;
    const vf m0 = vld((const float *)(const void *)(params + 32)), m1 = vld((const float *)(const void *)(params + 40));
    const int64_t n = q->n - c;
    uint8_t *y = (uint8_t *)q->y + i * q->ldy + c;
    UNROLL for (int m = 0; m < M; m++) {
        if (!q->window) {
            break;
        }
        a[m] = visub(a[m], _mm256_mullo_epi32(LD(params + 48), viset(q->window[i + m])));
        b[m] = visub(b[m], _mm256_mullo_epi32(LD(params + 56), viset(q->window[i + m])));
    }
    if (q->dtype == 6 || q->dtype == 1) {
        UNROLL for (int m = 0; m < M; m++) {
            put_wide(q, q->dtype == 6 ? a[m] : vcasti(vmul(vcvt(a[m]), m0)), q->dtype == 6 ? b[m] : vcasti(vmul(vcvt(b[m]), m1)),
                     i + m, c);
        }
        return;
    }
    UNROLL for (int m = 0; m < M; m += 2) {
        const int k = m + 1 < M ? m + 1 : m;
        const vi u = to_halves(vmul(vcvt(a[m]), m0), vmul(vcvt(b[m]), m1), r, q->small);
        const vi v = to_halves(vmul(vcvt(a[k]), m0), vmul(vcvt(b[k]), m1), r, q->small);
        const vi w = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(u, v), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        put16(y + m * q->ldy, limited(_mm256_castsi256_si128(w), r), n);
        if (k != m) {
            put16(y + k * q->ldy, limited(_mm256_extracti128_si256(w, 1), r), n);
        }
    }
}

/* The sums of 8 pairs of codes in the low halves. */
INLINE vf add_codes(__m128i a, __m128i b, const fr_qadd *p) {
    const vi u = visub(_mm256_cvtepu8_epi32(a), viset(p->za)), v = visub(_mm256_cvtepu8_epi32(b), viset(p->zb));
    return vadd(vmul(vcvt(u), vset(p->ma)), vmul(vcvt(v), vset(p->mb)));
}
INLINE __m128i add_sixteen(const uint8_t *a, const uint8_t *b, const fr_qadd *p, const rounding *r, int small) {
    const __m128i u = _mm_xor_si128(_mm_loadu_si128((const void *)a), _mm_set1_epi8((char)p->flip_a));
    const __m128i v = _mm_xor_si128(_mm_loadu_si128((const void *)b), _mm_set1_epi8((char)p->flip_b));
    const vf low = add_codes(u, v, p), high = add_codes(_mm_unpackhi_epi64(u, u), _mm_unpackhi_epi64(v, v), p);
    const vi c = _mm256_permute4x64_epi64(to_halves(low, high, r, small), 0xd8);
    return limited(_mm_packus_epi16(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1)), r);
}
static void qadd(uint8_t *y, const uint8_t *a, const uint8_t *b, int64_t n, const fr_qadd *p) {
    const rounding r = rounding_of(p->zero, p->low, p->high, p->flip_y);
    const int small = fabsf(p->ma) <= 0x1p20f && fabsf(p->mb) <= 0x1p20f; /* sums that int32 holds */
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        _mm_storeu_si128((void *)(y + i), add_sixteen(a + i, b + i, p, &r, small));
    }
    if (i < n) {
        uint8_t t[2][16] = {{0}};
        memcpy(t[0], a + i, (size_t)(n - i));
        memcpy(t[1], b + i, (size_t)(n - i));
        put_part(y + i, add_sixteen(t[0], t[1], p, &r, small), n - i);
    }
}

/* ---- attention over int8 caches ---- */

/* Asks for a line of memory, to be found in the second-level cache. */
#define ASK(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)
/* s += the dots of pairs of int16. */
#define ADD_DOTS(s, w, x) __asm__ volatile("vpaddd %1, %0, %0" : "+x"(s) : "x"(_mm256_madd_epi16(w, x)))
enum { QK_DEPTH = 512 }; /* of queries widened at a time; longer heads take the plain loop */

/* 16 codes of a row from c on, those from d on are 0. */
INLINE vi codes16(const int8_t *row, int64_t c, int64_t d, const int whole) {
    if (whole) {
        return _mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)(row + c)));
    }
    int8_t last[16] __attribute__((aligned(16))) = {0};
    memcpy(last, row + c, (size_t)(d - c));
    return _mm256_cvtepi8_epi16(_mm_load_si128((const void *)last));
}
/* Dots of M queries and four keys (the last may repeat): a step of 16 k. */
INLINE void qk8_step(vi *s, const int16_t *q, const int8_t *const *k, int64_t c, int64_t d, const int M, const int whole) {
    UNROLL for (int j = 0; j < 4; j++) {
        const vi x = codes16(k[j], c, d, whole);
        UNROLL for (int i = 0; i < M; i++) { ADD_DOTS(s[4 * i + j], x, LD(q + i * QK_DEPTH + c)); }
    }
}
/* In each half, lane j is the sum of the lanes of s[j]. */
INLINE vi add_lanes(const vi *s) {
    const vi a = viadd(_mm256_unpacklo_epi32(s[0], s[1]), _mm256_unpackhi_epi32(s[0], s[1]));
    const vi b = viadd(_mm256_unpacklo_epi32(s[2], s[3]), _mm256_unpackhi_epi32(s[2], s[3]));
    return viadd(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}
/* y[j] = (float)(the sum of the lanes of s[j]) * (by * ks[j]), j < n <= 4. */
INLINE void qk8_put(float *y, const vi *s, __m128 by, __m128 ks, const int n) {
    const vi t = add_lanes(s);
    const __m128 v = _mm_cvtepi32_ps(_mm_add_epi32(_mm256_castsi256_si128(t), _mm256_extracti128_si256(t, 1)));
    const __m128 r = _mm_mul_ps(v, _mm_mul_ps(by, ks));
    if (n == 4) {
        _mm_storeu_ps(y, r);
    } else {
        vst_n(y, _mm256_castps128_ps256(r), n);
    }
}
/* M queries and four keys, of which n exist.  64 codes a turn, so that the sums stay in their registers. */
INLINE void qk8_four(float *y, int64_t ldy, const int16_t *q, const float *qs, const int8_t *const *k, const float *ks, int64_t d,
                     const int n, const int M, const int8_t *ask, int64_t step) {
    vi s[12];
    int64_t c = 0;
    UNROLL for (int i = 0; i < 4 * M; i++) { s[i] = viset(0); }
    for (; c + 64 <= d; c += 64) {
        UNROLL for (int i = 0; i < 4; i++) { ASK(ask + i * step + c); }
        UNROLL for (int i = 0; i < 64; i += 16) { qk8_step(s, q, k, c + i, d, M, 1); }
    }
    for (; c + 16 <= d; c += 16) {
        qk8_step(s, q, k, c, d, M, 1);
    }
    if (c < d) {
        qk8_step(s, q, k, c, d, M, 0);
    }
    const __m128 by = n == 4 ? _mm_loadu_ps(ks) : _mm256_castps256_ps128(vld_n(ks, n));
    UNROLL for (int i = 0; i < M; i++) { qk8_put(y + i * ldy, s + 4 * i, _mm_set1_ps(qs[i]), by, n); }
}
INLINE void qk8_tile(float *y, int64_t ldy, const int16_t *q, const float *qs, const int8_t *k, int64_t ldk, const float *ks,
                     int64_t n, int64_t d, const int M, const int8_t *next, int64_t ahead) {
    int64_t j = 0;
    for (; j + 4 <= n; j += 4, k += 4 * ldk) {
        const int8_t *const rows[4] = {k, k + ldk, k + 2 * ldk, k + 3 * ldk};
        qk8_four(y + j, ldy, q, qs, rows, ks + j, d, 4, M, j < ahead ? next + j * ldk : k, ldk);
    }
    if (j < n) {
        const int8_t *const rows[4] = {k, k + (n - j > 1 ? ldk : 0), k + (n - j > 2 ? 2 * ldk : 0), k};
        qk8_four(y + j, ldy, q, qs, rows, ks + j, d, (int)(n - j), M, k, 0);
    }
}

static void qk8(float *y, int64_t ldy, const int8_t *q, int64_t ldq, const float *qs, const int8_t *k, int64_t ldk,
                const float *ks, int64_t m, int64_t n, int64_t d, const int8_t *next, int64_t ahead) {
    int16_t wide[3 * QK_DEPTH] __attribute__((aligned(64)));
    if (d > QK_DEPTH) {
        qk8_rest(y, ldy, q, ldq, qs, k, ldk, ks, m, n, d);
        return;
    }
    for (int64_t i = 0, rows; i < m; i += rows, ahead = 0) {
        rows = even(m - i, 3);
        for (int64_t r = 0; r < rows; r++) {
            for (int64_t c = 0; c < d; c += 16) { /* queries are readable beyond d */
                _mm256_store_si256((void *)(wide + r * QK_DEPTH + c), codes16(q + (i + r) * ldq, c, d, 1));
            }
        }
        switch (rows) {
        case 1:
            qk8_tile(y + i * ldy, ldy, wide, qs + i, k, ldk, ks, n, d, 1, next, ahead);
            break;
        case 2:
            qk8_tile(y + i * ldy, ldy, wide, qs + i, k, ldk, ks, n, d, 2, next, ahead);
            break;
        default:
            qk8_tile(y + i * ldy, ldy, wide, qs + i, k, ldk, ks, n, d, 3, next, ahead);
            break;
        }
    }
}

/* Two tokens, their codes side by side, of 16 C columns and M queries. */
INLINE void pv8_step(vi *s, const int16_t *p, int64_t ldp, const int8_t *v, const int8_t *next, const int M, const int C) {
    UNROLL for (int c = 0; c < C; c++) {
        const vi a = codes16(v, 16 * c, 0, 1), b = codes16(next, 16 * c, 0, 1);
        const vi lo = _mm256_unpacklo_epi16(a, b), hi = _mm256_unpackhi_epi16(a, b);
        UNROLL for (int i = 0; i < M; i++) {
            const vi w = bc4(p + i * ldp);
            ADD_DOTS(s[2 * (i * C + c)], lo, w);
            ADD_DOTS(s[2 * (i * C + c) + 1], hi, w);
        }
    }
}
/* Rows of 16 C columns of M queries; eight tokens a turn, so that the sums stay in their registers. */
INLINE void pv8_tile(float *y, int64_t ldy, const int16_t *p, int64_t ldp, const float *ps, const int8_t *v, int64_t ldv,
                     int64_t n, const int M, const int C, const int8_t *next, int64_t ahead) {
    vi s[12];
    int64_t j = 0;
    UNROLL for (int i = 0; i < 2 * C * M; i++) { s[i] = viset(0); }
    for (; j + 8 <= n; j += 8, v += 8 * ldv) {
        if (j < ahead) {
            UNROLL for (int t = 0; t < 8; t++) { ASK(next + (j + t) * ldv); }
        }
        UNROLL for (int t = 0; t < 8; t += 2) { pv8_step(s, p + j + t, ldp, v + t * ldv, v + (t + 1) * ldv, M, C); }
    }
    for (; j < n; j += 2, v += 2 * ldv) {
        pv8_step(s, p + j, ldp, v, j + 1 < n ? v + ldv : v, M, C);
    }
    UNROLL for (int i = 0; i < C * M; i++) {
        float *to = y + i / C * ldy + 16 * (i % C);
        const vf by = vset(ps[i / C]);
        vst(to, vmul(vcvt(_mm256_permute2x128_si256(s[2 * i], s[2 * i + 1], 0x20)), by));
        vst(to + 8, vmul(vcvt(_mm256_permute2x128_si256(s[2 * i], s[2 * i + 1], 0x31)), by));
    }
}
static void pv8(float *y, int64_t ldy, const int16_t *p, int64_t ldp, const float *ps, const int8_t *v, int64_t ldv, int64_t m,
                int64_t n, int64_t e, const int8_t *next, int64_t ahead) {
    int64_t c = 0;
    for (; m <= 3 && c + 32 <= e; c += 32) {
#define CASE(M)                                                                                                                  \
    case M:                                                                                                                      \
        if ((M) <= 3) {                                                                                                          \
            pv8_tile(y + c, ldy, p, ldp, ps, v + c, ldv, n, M, 2, next + c, c % 64 == 0 ? ahead : 0);                            \
        }                                                                                                                        \
        break;
        SIX(m, CASE)
#undef CASE
    }
    for (; c + 16 <= e; c += 16) {
        for (int64_t i = 0, rows; i < m; i += rows) {
            rows = even(m - i, 6);
#define CASE(M)                                                                                                                  \
    case M:                                                                                                                      \
        pv8_tile(y + i * ldy + c, ldy, p + i * ldp, ldp, ps + i, v + c, ldv, n, M, 1, next + c,                                  \
                 i == 0 && c % 64 == 0 ? ahead : 0);                                                                             \
        break;
            SIX(rows, CASE)
#undef CASE
        }
    }
    if (c < e) {
        pv8_rest(y, ldy, p, ldp, ps, v, ldv, m, n, c, e);
    }
}
#endif
