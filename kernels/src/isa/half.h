/* half.h - products with weights stored as float16 or bfloat16; included at the end of simd.h.  A weight is widened, exactly,
 * when it is read: the chain of fmaf is that of gemm_f32. */
#ifndef FRUGAL_HALF_H
#define FRUGAL_HALF_H

INLINE vf half_load(const uint16_t *p, const int bf16) { return bf16 ? vbfloat(p) : vhalf(p); }

/* P panels x N tokens; panel p's results go to t + 16 N p. */
INLINE void half_tile(float *t, const float *a, int64_t lda, const uint16_t *b, int64_t bp, int64_t k, const int bf16,
                      const int P, const int N) {
    vf s[24];
    UNROLL for (int i = 0; i < P * N * VN; i++) { s[i] = vset(0.0f); }
    for (int64_t kk = 0; kk < k; kk++, b += 16) {
        UNROLL for (int p = 0; p < P; p++) {
            vf w[VN];
            UNROLL for (int j = 0; j < VN; j++) { w[j] = half_load(b + p * bp + j * VW, bf16); }
            UNROLL for (int i = 0; i < N; i++) {
                const vf x = vset(a[i * lda + kk]);
                UNROLL for (int j = 0; j < VN; j++) { s[(N * p + i) * VN + j] = vfma(x, w[j], s[(N * p + i) * VN + j]); }
            }
        }
    }
    UNROLL for (int i = 0; i < P * N * VN; i++) { vst(t + i * VW, s[i]); }
}

/* Panels whose accumulators fit beside those of N tokens: 8 to 12 vectors of 8, 4 to 24 of 4 or 16. */
#if defined(__riscv) /* a vector of 16 may be four registers of 32 */
enum { HALF_ONE = 4, HALF_FEW = 1, HALF_MANY = 1 };
#else
enum { HALF_ONE = VW == 4 ? 2 : 4, HALF_FEW = VW == 16 ? 4 : VW == 8 ? 2 : 1, HALF_MANY = VW == 16 ? 4 : 1 };
#endif

/* Tokens i .. i + N - 1, all panels. */
INLINE void half_rows(float *y, int64_t ldy, const float *a, int64_t lda, const uint16_t *b, int64_t i, int64_t n, int64_t k,
                      const fr_epilogue *e, const int bf16, const int N) {
    const int P = N == 1 ? HALF_ONE : N <= 3 ? HALF_FEW : HALF_MANY;
    const int64_t bp = 16 * k;
    float t[4 * 6 * 16] __attribute__((aligned(64)));
    int64_t j = 0;
    for (; j + 16 * (P - 1) < n; j += 16 * P, b += P * bp) {
        half_tile(t, a + i * lda, lda, b, bp, k, bf16, P, N);
        finish_tile(y, ldy, t, P, 16, N, i, j, n, e);
    }
    for (; j < n; j += 16, b += bp) {
        half_tile(t, a + i * lda, lda, b, bp, k, bf16, 1, N);
        finish_tile(y, ldy, t, 1, 16, N, i, j, n, e);
    }
}

INLINE void half_product(float *y, int64_t ldy, const float *a, int64_t lda, const uint16_t *b, int64_t m, int64_t n, int64_t k,
                         const fr_epilogue *e, const int bf16) {
    for (int64_t i = 0, rows; i < m; i += rows) {
        rows = even(m - i, 6);
#define CASE(N)                                                                                                                  \
    case N:                                                                                                                      \
        half_rows(y, ldy, a, lda, b, i, n, k, e, bf16, N);                                                                       \
        break;
        SIX(rows, CASE)
#undef CASE
    }
}

static void gemm_half(float *y, int64_t ldy, const float *a, int64_t lda, const uint16_t *b, int bf16, int64_t m, int64_t n,
                      int64_t k, const fr_epilogue *e) {
    if (bf16) {
        half_product(y, ldy, a, lda, b, m, n, k, e, 1);
    } else {
        half_product(y, ldy, a, lda, b, m, n, k, e, 0);
    }
}
#endif
