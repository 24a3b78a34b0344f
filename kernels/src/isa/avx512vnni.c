/* avx512vnni.c - the kernels for x86-64 with AVX-512 VNNI: vpdpbusd takes 64 bytes of a panel (16 rows x 4 k) as they are stored.
 *
 * Its left operand is unsigned: int8 weights enter as w + 128 (bit 7 flipped) and 128 times the sum of the activations is taken
 * off again, which is exact even where the int32 wraps.  Compile with -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni
 * -mavx2 -mfma -mf16c -ffp-contract=off; without those flags the table is absent.
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
OP vm lanes_below(int n) { return (vm)(n >= 16 ? 0xffff : n <= 0 ? 0 : (1 << n) - 1); }
OP vf vld_n(const float *p, int n) { return _mm512_maskz_loadu_ps(lanes_below(n), p); }
OP void vst_n(float *p, vf v, int n) { _mm512_mask_storeu_ps(p, lanes_below(n), v); }
OP vf vkeep(vf v, int n) { return _mm512_maskz_mov_ps(lanes_below(n), v); }
OP vf vadd(vf a, vf b) { return _mm512_add_ps(a, b); }
OP vf vsub(vf a, vf b) { return _mm512_sub_ps(a, b); }
OP vf vmul(vf a, vf b) { return _mm512_mul_ps(a, b); }
OP vf vdiv(vf a, vf b) { return _mm512_div_ps(a, b); }
OP vf vfma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
OP vf vmax(vf a, vf b) { return _mm512_max_ps(a, b); } /* a > b ? a : b */
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
#include "simd.h"

#define LD(p) _mm512_loadu_si512((const void *)(p))
/* Four bytes, repeated. */
OP vi bc4(const void *p) {
    int32_t v;
    memcpy(&v, p, 4);
    return viset(v);
}

/* ---- float32 ---- */

/* P panels x N tokens, one vector each; t[P][N][16]. */
INLINE void f32_tile(float *t, const float *a, int64_t lda, const float *b, int64_t bk, int64_t bp, int64_t k, float alpha,
                     const int P, const int N) {
    vf s[24];
    UNROLL for (int c = 0; c < P * N; c++) { s[c] = vset(0.0f); }
    for (int64_t kk = 0; kk < k; kk++, b += bk, a++) {
        vf w[8];
        UNROLL for (int p = 0; p < P; p++) { w[p] = vld(b + p * bp); }
        UNROLL for (int i = 0; i < N; i++) {
            const vf x = vset(a[i * lda]);
            UNROLL for (int p = 0; p < P; p++) { s[p * N + i] = vfma(x, w[p], s[p * N + i]); }
        }
    }
    UNROLL for (int c = 0; c < P * N; c++) { vst(t + 16 * c, alpha != 1.0f ? vmul(vset(alpha), s[c]) : s[c]); }
}

static void gemm_f32(float *y, int64_t ldy, const float *a, int64_t lda, const float *b, int64_t bk, int64_t bp, int64_t m,
                     int64_t n, int64_t k, float alpha, const fr_epilogue *e) {
    float t[24 * 16] __attribute__((aligned(64)));
    int64_t j = 0;
#define RUN(P, N)                                                                                                                \
    do {                                                                                                                         \
        f32_tile(t, a + i * lda, lda, b + j / 16 * bp, bk, bp, k, alpha, P, N);                                                  \
        for (int p = 0; p < (P); p++) {                                                                                          \
            finish_tile(y, ldy, t + p * (N) * 16, N, 16, i, j + 16 * p, n, e);                                                   \
        }                                                                                                                        \
        i += (N);                                                                                                                \
    } while (0)
#define TOKENS(P)                                                                                                                \
    do {                                                                                                                         \
        while (m - i >= 12) {                                                                                                    \
            RUN(P, 12);                                                                                                          \
        }                                                                                                                        \
        while (m - i >= 8) {                                                                                                     \
            RUN(P, 8);                                                                                                           \
        }                                                                                                                        \
        while (m - i >= 4) {                                                                                                     \
            RUN(P, 4);                                                                                                           \
        }                                                                                                                        \
        while (m - i >= 2) {                                                                                                     \
            RUN(P, 2);                                                                                                           \
        }                                                                                                                        \
        while (m - i >= 1) {                                                                                                     \
            RUN(P, 1);                                                                                                           \
        }                                                                                                                        \
    } while (0)
    for (int64_t i = 0; m == 1 && j + 112 < n; j += 128, i = 0) {
        RUN(8, 1);
    } /* few tokens: more columns hide the latency */
    for (int64_t i = 0; (m == 2 || m == 3) && j + 48 < n; j += 64, i = 0) {
        if (m == 2) {
            RUN(4, 2);
        } else {
            RUN(4, 3);
        }
    }
    for (int64_t i = 0; j + 16 < n; j += 32, i = 0) {
        TOKENS(2);
    }
    for (int64_t i = 0; j < n; j += 16, i = 0) {
        TOKENS(1);
    }
#undef TOKENS
#undef RUN
}

/* ---- int8 and int4 weights ---- */

enum { TOKEN8, BLOCK8, BLOCK4 }; /* what a tile computes: gemm_w8 by token, by block, gemm_w4 */

/* Unsigned weights of k step s (4 k each) of a block. */
INLINE vi fetch(const uint8_t *w, int s, const int kind) {
    if (kind != BLOCK4) {
        return vixor(LD(w + 64 * s), _mm512_set1_epi8(-128));
    }
    const vi q = LD(w + 64 * (s % 4));
    return viand(s < 4 ? q : _mm512_srli_epi16(q, 4), _mm512_set1_epi8(15));
}
/* fma(wscale * scale, dot - zero * sum, f) for a W4 block: 16-bit products of the negated zero points and the sums. */
INLINE vf w4_finish(vi dot, const uint8_t *block, int32_t sum, float scale, vf f) {
    const vi zero = viand(visub(viset(0), _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(block + 288)))), viset(0xffff));
    const vf ws = _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(block + 256)));
    return vfma(vmul(ws, vset(scale)), vcvt(_mm512_dpwssd_epi32(dot, zero, viset(sum))), f);
}

/* P panels (stride bytes apart) x N tokens from token i on; t[P][N][16], scales applied.
 * less: -128 times the sums of these tokens, by token [N] or by block [N][nb]; NULL for int4. */
INLINE void dot_tile(float *t, const uint8_t *w, int64_t stride, const float *wscale, int64_t wstride, const fr_act8 *a,
                     int64_t i, const int32_t *less, const int P, const int N, const int kind) {
    const int64_t kp = a->kp, nb = kp / FR_BLOCK, size = kind == BLOCK4 ? FR_W4_BLOCK : 512;
    const int64_t sb = kind == BLOCK4 && !a->blocked ? 0 : 1, si = sb ? nb : 1; /* steps of scale by block and by token */
    const int8_t *q = a->q + i * kp;
    vi s[24];
    vf f[24];
    UNROLL for (int c = 0; c < P * N; c++) {
        s[c] = kind == TOKEN8 ? viset(less[c % N]) : viset(0);
        f[c] = vset(0.0f);
    }
    for (int64_t b = 0; b < nb; b++, w += size, q += FR_BLOCK) {
        if (kind != TOKEN8) {
            UNROLL for (int c = 0; c < P * N; c++) { s[c] = kind == BLOCK8 ? viset(less[c % N * nb + b]) : viset(0); }
        }
        UNROLL for (int k = 0; k < 8; k++) {
            vi v[8];
            UNROLL for (int p = 0; p < P; p++) { v[p] = fetch(w + p * stride, k, kind); }
            UNROLL for (int n = 0; n < N; n++) {
                const vi x = bc4(q + n * kp + 4 * k);
                UNROLL for (int p = 0; p < P; p++) { s[p * N + n] = _mm512_dpbusd_epi32(s[p * N + n], v[p], x); }
            }
        }
        if (kind != TOKEN8) {
            UNROLL for (int c = 0; c < P * N; c++) {
                const float scale = a->scale[(i + c % N) * si + b * sb];
                if (kind == BLOCK8) {
                    f[c] = vfma(vset(scale), vcvt(s[c]), f[c]);
                } else {
                    f[c] = w4_finish(s[c], w + c / N * stride, a->sum[(i + c % N) * nb + b], scale, f[c]);
                }
            }
        }
    }
    UNROLL for (int c = 0; c < P * N; c++) {
        if (kind == BLOCK4) {
            vst(t + 16 * c, f[c]);
        } else {
            const vf ws = vld(wscale + c / N * wstride);
            vst(t + 16 * c, kind == BLOCK8 ? vmul(f[c], ws) : vmul(vcvt(s[c]), vmul(ws, vset(a->scale[i + c % N]))));
        }
    }
}

/* The operands of one call of gemm_w8 or gemm_w4. */
typedef struct call {
    float *y;
    int64_t ldy;
    const fr_act8 *a;
    int64_t m0, m1;
    const uint8_t *w;
    int64_t panel; /* bytes */
    const float *wscale;
    const int32_t *less; /* as dot_tile's, from token m0 on */
    int64_t n;
    const fr_epilogue *e;
} call;

/* Tokens i .. i + N - 1 of panels p, p + step, ... */
INLINE void run_tile(const call *g, int64_t p, int64_t step, int64_t i, const int P, const int N, const int kind) {
    float t[24 * 16] __attribute__((aligned(64)));
    const float *wscale = kind == BLOCK4 ? NULL : g->wscale + 16 * p;
    const int32_t *less = kind == BLOCK4 ? NULL : g->less + (i - g->m0) * (kind == BLOCK8 ? g->a->kp / FR_BLOCK : 1);
    dot_tile(t, g->w + p * g->panel, step * g->panel, wscale, 16 * step, g->a, i, less, P, N, kind);
    for (int c = 0; c < P; c++) {
        finish_tile(g->y, g->ldy, t + 16 * N * c, N, 16, i, 16 * (p + c * step), g->n, g->e);
    }
}
/* All tokens of P adjacent panels; W: tokens of the widest tile. */
INLINE void run_tokens(const call *g, int64_t p, int64_t i, const int P, const int W, const int kind) {
    for (; g->m1 - i >= W; i += W) {
        run_tile(g, p, 1, i, P, W, kind);
    }
    for (; g->m1 - i >= 4; i += 4) {
        run_tile(g, p, 1, i, P, 4, kind);
    }
    for (; g->m1 - i >= 2; i += 2) {
        run_tile(g, p, 1, i, P, 2, kind);
    }
    for (; g->m1 - i >= 1; i += 1) {
        run_tile(g, p, 1, i, P, 1, kind);
    }
}
/* Up to 3 tokens: four distant streams of panels use the memory better than one. */
INLINE int64_t run_streams(const call *g, int64_t p0, int64_t p1, int64_t i, const int kind) {
    const int64_t l = (p1 - p0) / 4;
    for (int64_t p = p0; p < p0 + l; p++) {
        switch (g->m1 - i) {
        case 1:
            run_tile(g, p, l, i, 4, 1, kind);
            break;
        case 2:
            run_tile(g, p, l, i, 4, 2, kind);
            break;
        case 3:
            run_tile(g, p, l, i, 4, 3, kind);
            break;
        }
    }
    return p0 + 4 * l;
}
INLINE void run_panels(const call *g, int64_t p0, int64_t p1, const int W, const int kind) {
    int64_t p = g->m1 - g->m0 > 3 ? p0 : run_streams(g, p0, p1, g->m0, kind);
    for (; p + 2 <= p1; p += 2) {
        run_tokens(g, p, g->m0, 2, W, kind);
    }
    for (; p < p1; p++) {
        run_tokens(g, p, g->m0, 1, W, kind);
    }
}

static void gemm_w8(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const int8_t *w, const float *wscale,
                    int64_t p0, int64_t p1, int64_t n, const fr_epilogue *e, void *scratch) {
    const int64_t nb = a->kp / FR_BLOCK;
    int32_t *less = scratch;
    for (int64_t i = m0; i < m1; i++) {
        int32_t total = 0;
        for (int64_t b = 0; b < nb; b++) {
            total -= 128 * a->sum[i * nb + b];
            if (a->blocked) {
                less[(i - m0) * nb + b] = -128 * a->sum[i * nb + b];
            }
        }
        if (!a->blocked) {
            less[i - m0] = total;
        }
    }
    const call g = {y, ldy, a, m0, m1, (const uint8_t *)w, 16 * a->kp, wscale, less, n, e};
    if (a->blocked) {
        run_panels(&g, p0, p1, 6, BLOCK8);
    } else {
        run_panels(&g, p0, p1, 12, TOKEN8);
    }
}

static void gemm_w4(float *y, int64_t ldy, const fr_act8 *a, int64_t m0, int64_t m1, const uint8_t *w, int64_t p0, int64_t p1,
                    int64_t n, const fr_epilogue *e, void *scratch) {
    (void)scratch;
    const call g = {y, ldy, a, m0, m1, w, a->kp / FR_BLOCK * FR_W4_BLOCK, NULL, NULL, n, e};
    run_panels(&g, p0, p1, 6, BLOCK4);
}

/* One int32 a block of activations. */
static size_t scratch_bytes(int64_t m, int64_t k) { return (size_t)(m * ((k + FR_BLOCK - 1) / FR_BLOCK) * 4); }

static const frugal_isa table = {.name = "avx512vnni",
                                 .scratch_bytes = scratch_bytes,
                                 .chunk = 96,
                                 .gemm_f32 = gemm_f32,
                                 .gemm_w8 = gemm_w8,
                                 .gemm_w4 = gemm_w4,
                                 .quantize = quantize,
                                 .quantize_static = quantize_static,
                                 .layer_norm = layer_norm,
                                 .rms_norm = rms_norm,
                                 .softmax = softmax,
                                 .unary = unary,
                                 .scale = scale};
const frugal_isa *const fr_isa_avx512vnni = &table;
#else
const frugal_isa *const fr_isa_avx512vnni = NULL;
#endif
