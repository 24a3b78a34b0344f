/* simd.h - the row functions (unary, softmax, norms, quantize, epilogue) written once over a small set of vector operations.
 *
 * An instruction set's file defines VW (floats in a vector, 8 or 16), the types vf, vi, vm (floats, int32, mask) and the v*
 * operations used below, then includes this file.  Every function repeats its namesake of fmath.h or scalar.c operation by
 * operation.
 */
#ifndef FRUGAL_SIMD_H
#define FRUGAL_SIMD_H
#include "../fmath.h"
#include "rows.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")
enum { VN = 16 / VW }; /* vectors that hold the 16 lanes of a sum */

INLINE vf vabs(vf x) { return vcastf(viand(vcasti(x), viset(0x7fffffff))); }
INLINE vf vneg(vf x) { return vcastf(vixor(vcasti(x), viset(INT32_MIN))); }
INLINE vf vcopysign(vf x, vf sign) { return vcastf(vior(vcasti(x), viand(vcasti(sign), viset(INT32_MIN)))); }
INLINE vm vnan(vf x) { return vne(x, x); }
#define POLY(p, x, c) p = vfma(p, x, vset(c))

/* e^x for x <= 0 or, with any, every x: the two give the same bits where both hold. */
INLINE vf vexp_part(vf x, const int any) {
    vf t = vfma(x, vset(FR_LOG2E), vset(FR_MAGIC)), n = vsub(t, vset(FR_MAGIC));
    vf r = vfma(n, vset(-FR_LN2_LO), vfma(n, vset(-FR_LN2_HI), x)), p = vset(FR_EXP_C5);
    POLY(p, r, FR_EXP_C4);
    POLY(p, r, FR_EXP_C3);
    POLY(p, r, FR_EXP_C2);
    POLY(p, r, FR_EXP_C1);
    POLY(p, r, 1.0f);
    POLY(p, r, 1.0f);
    vf y = vcastf(viadd(vcasti(p), vishl(vcasti(t), 23)));
    y = vsel(vlt(x, vset(FR_EXP_LOW)), vset(0.0f), y);
    if (any) {
        y = vsel(vlt(vset(FR_EXP_HIGH), x), vset(INFINITY), y);
        y = vsel(vnan(x), x, y);
    }
    return y;
}
INLINE vf vexp(vf x) { return vexp_part(x, 1); }

INLINE vf vexpm1(vf x) {
    vf a = vmax(vset(-30.0f), x), t = vfma(a, vset(FR_LOG2E), vset(FR_MAGIC)), n = vsub(t, vset(FR_MAGIC));
    vf r = vfma(n, vset(-FR_LN2_LO), vfma(n, vset(-FR_LN2_HI), a)), p = vset(FR_EM1_C4);
    POLY(p, r, FR_EM1_C3);
    POLY(p, r, FR_EM1_C2);
    POLY(p, r, FR_EM1_C1);
    POLY(p, r, FR_EM1_C0);
    p = vfma(p, vmul(r, r), r);
    vf s = vcastf(viadd(vishl(vcasti(t), 23), viset(0x3f800000)));
    return vfma(p, s, vsub(s, vset(1.0f)));
}

INLINE vf vlog(vf x) {
    vm tiny = vlt(x, vset(0x1p-126f));
    vi u = vcasti(vsel(tiny, vmul(x, vset(0x1p23f)), x));
    vi e = visra(visub(u, viset(0x3f3504f3)), 23);
    vf f = vsub(vcastf(visub(u, vishl(e, 23))), vset(1.0f));
    vf k = vsub(vcvt(e), vsel(tiny, vset(23.0f), vset(0.0f)));
    vf p = vset(FR_LOG_C8), s = vmul(f, f);
    POLY(p, f, FR_LOG_C7);
    POLY(p, f, FR_LOG_C6);
    POLY(p, f, FR_LOG_C5);
    POLY(p, f, FR_LOG_C4);
    POLY(p, f, FR_LOG_C3);
    POLY(p, f, FR_LOG_C2);
    POLY(p, f, FR_LOG_C1);
    POLY(p, f, FR_LOG_C0);
    vf w = vfma(vset(-0.5f), s, vfma(k, vset(FR_LN2_LO), vmul(vmul(f, s), p)));
    vf y = vfma(k, vset(FR_LN2_HI), vadd(f, w));
    y = vsel(vge(x, vset(INFINITY)), x, y);
    y = vsel(vge(vset(0.0f), vabs(x)), vset(-INFINITY), y);
    return vsel(vge(x, vset(0.0f)), y, vset(NAN));
}
INLINE vf vlog1p(vf e) {
    vf u = vadd(vset(1.0f), e);
    return vadd(vlog(u), vdiv(vsub(e, vsub(u, vset(1.0f))), u));
}

INLINE vf vexp2_neg(vf s) {
    vf t = vadd(s, vset(FR_MAGIC)), f = vsub(s, vsub(t, vset(FR_MAGIC))), p = vset(FR_EXP2_C4);
    POLY(p, f, FR_EXP2_C3);
    POLY(p, f, FR_EXP2_C2);
    POLY(p, f, FR_EXP2_C1);
    POLY(p, f, FR_EXP2_C0);
    POLY(p, f, 1.0f);
    return vcastf(viadd(vcasti(p), vishl(vcasti(t), 23)));
}
INLINE vf verf(vf x) {
    vf a = vmin(vset(4.0f), vabs(x)), u = vmul(a, a), p = vset(FR_ERF_SMALL5), q = vset(FR_ERF_BIG7);
    POLY(p, u, FR_ERF_SMALL4);
    POLY(p, u, FR_ERF_SMALL3);
    POLY(p, u, FR_ERF_SMALL2);
    POLY(p, u, FR_ERF_SMALL1);
    POLY(p, u, FR_ERF_SMALL0);
    POLY(q, a, FR_ERF_BIG6);
    POLY(q, a, FR_ERF_BIG5);
    POLY(q, a, FR_ERF_BIG4);
    POLY(q, a, FR_ERF_BIG3);
    POLY(q, a, FR_ERF_BIG2);
    POLY(q, a, FR_ERF_BIG1);
    POLY(q, a, FR_ERF_BIG0);
    vf big = vsub(vset(1.0f), vexp2_neg(vmul(vneg(a), q)));
    return vcopysign(vsel(vge(a, vset(1.0f)), big, vmul(a, p)), x);
}
/* Gelu of n vectors, each operation for all before the next: one chain alone is longer than what the CPU looks ahead. */
#define ALL(statement)                                                                                                           \
    UNROLL for (int j = 0; j < n; j++) { statement; }
INLINE void vgelu_n(vf *x, const int n) {
    vf a[4], q[4], t[4];
    ALL(a[j] = vmin(vset(FR_GELU_END), vabs(x[j])))
    ALL(q[j] = vfma(vset(FR_GELU_C8), a[j], vset(FR_GELU_C7)))
    ALL(POLY(q[j], a[j], FR_GELU_C6))
    ALL(POLY(q[j], a[j], FR_GELU_C5))
    ALL(POLY(q[j], a[j], FR_GELU_C4))
    ALL(POLY(q[j], a[j], FR_GELU_C3))
    ALL(POLY(q[j], a[j], FR_GELU_C2))
    ALL(POLY(q[j], a[j], FR_GELU_C1))
    ALL(POLY(q[j], a[j], FR_GELU_C0))
    ALL(q[j] = vfma(q[j], a[j], vset(-1.0f)))
    ALL(t[j] = vadd(q[j], vset(FR_MAGIC))) /* vexp2_neg from here */
    ALL(q[j] = vsub(q[j], vsub(t[j], vset(FR_MAGIC))))
    vf p[4];
    ALL(p[j] = vfma(vset(FR_EXP2_C4), q[j], vset(FR_EXP2_C3)))
    ALL(POLY(p[j], q[j], FR_EXP2_C2))
    ALL(POLY(p[j], q[j], FR_EXP2_C1))
    ALL(POLY(p[j], q[j], FR_EXP2_C0))
    ALL(POLY(p[j], q[j], 1.0f))
    ALL(p[j] = vcastf(viadd(vcasti(p[j]), vishl(vcasti(t[j]), 23))))
    ALL(p[j] = vsel(vlt(a[j], vset(FR_GELU_END)), p[j], vset(0.0f)))
    ALL(x[j] = vfnma(a[j], p[j], vmax(x[j], vset(0.0f))))
}
INLINE vf vgelu(vf x) {
    vgelu_n(&x, 1);
    return x;
}
INLINE vf vtanh(vf x) {
    vf a = vabs(x), u = vmul(a, a), p = vset(FR_TANH_C4);
    POLY(p, u, FR_TANH_C3);
    POLY(p, u, FR_TANH_C2);
    POLY(p, u, FR_TANH_C1);
    POLY(p, u, FR_TANH_C0);
    vf small = vfma(p, vmul(a, u), a);
    vf big = vsub(vset(1.0f), vdiv(vset(2.0f), vadd(vexp(vadd(a, a)), vset(1.0f))));
    return vcopysign(vsel(vlt(a, vset(0.625f)), small, big), x);
}
INLINE vf vsigmoid(vf x) { return vdiv(vset(1.0f), vadd(vset(1.0f), vexp(vneg(x)))); }
INLINE vf vsilu(vf x) {
    vf a = vmax(vset(-100.0f), x);
    return vdiv(a, vadd(vset(1.0f), vexp(vneg(a))));
}
INLINE vf vgelu_tanh(vf x) {
    vf a = vmax(vset(-20.0f), x), u = vmul(a, a);
    vf t = vmul(a, vfma(u, vset(-0.0713548163f), vset(-1.5957691216f)));
    return vdiv(a, vadd(vset(1.0f), vexp(t)));
}
INLINE vf vsoftplus(vf x) { return vadd(vmax(vset(0.0f), x), vlog1p(vexp(vneg(vabs(x))))); }

INLINE vf vsin_quarter(vf x, const int quarter) {
    vf t = vfma(x, vset(FR_2_PI), vset(FR_MAGIC)), n = vsub(t, vset(FR_MAGIC));
    vf r = vfma(n, vset(-FR_PI2_C), vfma(n, vset(-FR_PI2_B), vfma(n, vset(-FR_PI2_A), x))), u = vmul(r, r);
    vf s = vset(FR_SIN_C2), c = vset(FR_COS_C2);
    POLY(s, u, FR_SIN_C1);
    POLY(s, u, FR_SIN_C0);
    POLY(c, u, FR_COS_C1);
    POLY(c, u, FR_COS_C0);
    s = vfma(vmul(r, u), s, r);
    c = vfma(vmul(u, u), c, vfma(vset(-0.5f), u, vset(1.0f)));
    vi q = viadd(vcasti(t), viset(quarter));
    vf y = vsel(vodd(q), c, s);
    y = vcastf(vixor(vcasti(y), vishl(viand(q, viset(2)), 30)));
    return vsel(vge(vset(FR_SIN_END), vabs(x)), y, vset(NAN));
}
INLINE vf vsin(vf x) { return vsin_quarter(x, 0); }
INLINE vf vcos(vf x) { return vsin_quarter(x, 1); }
INLINE vf vsign(vf x) {
    vf z = vset(0.0f);
    return vsel(vlt(z, x), vset(1.0f), vsel(vlt(x, z), vset(-1.0f), x));
}
INLINE vf vclamp01(vf x) { return vmax(vset(0.0f), vmin(vset(1.0f), x)); }

/* y = expression in v, the vector of x, over n elements; the last ones by partial loads and stores. */
#define EACH(expression)                                                                                                         \
    do {                                                                                                                         \
        for (; i + VW <= n; i += VW) {                                                                                           \
            vf v = vld(x + i);                                                                                                   \
            vst(y + i, expression);                                                                                              \
        }                                                                                                                        \
        if (i < n) {                                                                                                             \
            vf v = vld_n(x + i, (int)(n - i));                                                                                   \
            vst_n(y + i, expression, (int)(n - i));                                                                              \
        }                                                                                                                        \
    } while (0)

static __attribute__((noinline)) void unary(int kind, float *y, const float *x, int64_t n, float p, float q) {
    int64_t i = 0;
    switch (kind) {
    case FRUGAL_U_NEG:
        EACH(vneg(v));
        break;
    case FRUGAL_U_ABS:
        EACH(vabs(v));
        break;
    case FRUGAL_U_SIGN:
        EACH(vsign(v));
        break;
    case FRUGAL_U_SQRT:
        EACH(vsqrt(v));
        break;
    case FRUGAL_U_RECIPROCAL:
        EACH(vdiv(vset(1.0f), v));
        break;
    case FRUGAL_U_FLOOR:
        EACH(vfloor(v));
        break;
    case FRUGAL_U_CEIL:
        EACH(vneg(vfloor(vneg(v))));
        break;
    case FRUGAL_U_ROUND:
        EACH(vrint(v));
        break;
    case FRUGAL_U_EXP:
        EACH(vexp(v));
        break;
    case FRUGAL_U_LOG:
        EACH(vlog(v));
        break;
    case FRUGAL_U_ERF:
        EACH(verf(v));
        break;
    case FRUGAL_U_TANH:
        EACH(vtanh(v));
        break;
    case FRUGAL_U_SIGMOID:
        EACH(vsigmoid(v));
        break;
    case FRUGAL_U_RELU:
        EACH(vmax(vset(0.0f), v));
        break;
    case FRUGAL_U_LEAKY_RELU:
        EACH(vsel(vlt(v, vset(0.0f)), vmul(vset(p), v), v));
        break;
    case FRUGAL_U_CLIP:
        EACH(vmin(vset(q), vmax(vset(p), v)));
        break;
    case FRUGAL_U_GELU:
        for (; i + 4 * VW <= n; i += 4 * VW) {
            vf v[4];
            UNROLL for (int j = 0; j < 4; j++) { v[j] = vld(x + i + j * VW); }
            vgelu_n(v, 4);
            UNROLL for (int j = 0; j < 4; j++) { vst(y + i + j * VW, v[j]); }
        }
        EACH(vgelu(v));
        break;
    case FRUGAL_U_GELU_TANH:
        EACH(vgelu_tanh(v));
        break;
    case FRUGAL_U_SILU:
        EACH(vsilu(v));
        break;
    case FRUGAL_U_SIN:
        EACH(vsin(v));
        break;
    case FRUGAL_U_COS:
        EACH(vcos(v));
        break;
    case FRUGAL_U_SOFTPLUS:
        EACH(vsoftplus(v));
        break;
    case FRUGAL_U_ELU:
        EACH(vsel(vlt(v, vset(0.0f)), vmul(vset(p), vexpm1(v)), v));
        break;
    case FRUGAL_U_HARD_SIGMOID:
        EACH(vclamp01(vfma(vset(p), v, vset(q))));
        break;
    case FRUGAL_U_HARD_SWISH:
        EACH(vmul(v, vclamp01(vfma(v, vset(1.0f / 6.0f), vset(0.5f)))));
        break;
    default:
        if (y != x) {
            memcpy(y, x, (size_t)n * sizeof *y);
        }
    }
}

static void scale(float *y, const float *x, int64_t n, float s) {
    int64_t i = 0;
    EACH(vmul(v, vset(s)));
}

/* 16 elements, as VN vectors; those from n on are zero, and are not stored. */
INLINE void load16(vf v[VN], const float *x, int64_t n) {
    UNROLL for (int j = 0; j < VN; j++) {
        int left = n >= 16 ? VW : (int)n - j * VW;
        v[j] = left >= VW ? vld(x + j * VW) : left > 0 ? vld_n(x + j * VW, left) : vset(0.0f);
    }
}
INLINE void store16(float *y, const vf v[VN], int64_t n) {
    UNROLL for (int j = 0; j < VN; j++) {
        int left = n >= 16 ? VW : (int)n - j * VW;
        if (left >= VW) {
            vst(y + j * VW, v[j]);
        } else if (left > 0) {
            vst_n(y + j * VW, v[j], left);
        }
    }
}
/* Zero in lanes n and above. */
INLINE void keep16(vf v[VN], int64_t n) {
    UNROLL for (int j = 0; j < VN; j++) { v[j] = n >= 16 ? v[j] : vkeep(v[j], (int)n - j * VW); }
}

/* Adds v (or its square) to the 16 lanes of sum. */
INLINE void add16(vf sum[VN], const vf v[VN], const int square) {
    UNROLL for (int j = 0; j < VN; j++) { sum[j] = vadd(sum[j], square ? vmul(v[j], v[j]) : v[j]); }
}

/* y = x + residual (residual may be NULL); returns the 16-lane sum of y, or of its squares. */
INLINE float add_rows(float *y, const float *x, const float *residual, int64_t n, const int square) {
    vf sum[VN], v[VN], r[VN];
    UNROLL for (int j = 0; j < VN; j++) { sum[j] = vset(0.0f); }
    for (int64_t i = 0; i < n; i += 16) {
        load16(v, x + i, n - i);
        if (residual) {
            load16(r, residual + i, n - i);
            UNROLL for (int j = 0; j < VN; j++) { v[j] = vadd(v[j], r[j]); }
        }
        add16(sum, v, square);
        store16(y + i, v, n - i);
    }
    return fold16(sum);
}

static void layer_norm(float *y, const float *x, const float *residual, const float *gamma, const float *beta, int64_t n,
                       float eps) {
    const float mean = add_rows(y, x, residual, n, 0) / (float)n;
    vf sum[VN], v[VN], g[VN], b[VN];
    UNROLL for (int j = 0; j < VN; j++) { sum[j] = vset(0.0f); }
    for (int64_t i = 0; i < n; i += 16) {
        load16(v, y + i, n - i);
        UNROLL for (int j = 0; j < VN; j++) { v[j] = vsub(v[j], vset(mean)); }
        keep16(v, n - i);
        add16(sum, v, 1);
    }
    const float inv = 1.0f / sqrtf(fold16(sum) / (float)n + eps);
    for (int64_t i = 0; i < n; i += 16) {
        load16(v, y + i, n - i);
        load16(g, gamma + i, n - i);
        if (beta) {
            load16(b, beta + i, n - i);
        }
        UNROLL for (int j = 0; j < VN; j++) {
            v[j] = vmul(vmul(vsub(v[j], vset(mean)), vset(inv)), g[j]);
            v[j] = beta ? vadd(v[j], b[j]) : v[j];
        }
        store16(y + i, v, n - i);
    }
}

static void rms_norm(float *y, const float *x, const float *residual, const float *gamma, int64_t n, float eps) {
    const float inv = 1.0f / sqrtf(add_rows(y, x, residual, n, 1) / (float)n + eps);
    vf v[VN], g[VN];
    for (int64_t i = 0; i < n; i += 16) {
        load16(v, y + i, n - i);
        load16(g, gamma + i, n - i);
        UNROLL for (int j = 0; j < VN; j++) { v[j] = vmul(vmul(v[j], vset(inv)), g[j]); }
        store16(y + i, v, n - i);
    }
}

/* x = exp(x - top), returns the sum.  any: top is +inf or NaN, so that x - top may be a NaN. */
INLINE float softmax_rows(float *x, int64_t n, float top, const int any) {
    vf sum[VN], v[VN];
    UNROLL for (int j = 0; j < VN; j++) { sum[j] = vset(0.0f); }
    for (int64_t i = 0; i < n; i += 16) {
        load16(v, x + i, n - i);
        UNROLL for (int j = 0; j < VN; j++) { v[j] = vexp_part(vsub(v[j], vset(top)), any); }
        keep16(v, n - i);
        add16(sum, v, 0);
        store16(x + i, v, n - i);
    }
    return fold16(sum);
}

static float softmax_top(float *x, int64_t n, float *written) {
    vf top = vset(-INFINITY);
    unsigned nan = 0;
    int64_t i = 0;
    for (; i + VW <= n; i += VW) {
        vf v = vld(x + i);
        top = vmax(v, top); /* a NaN in v leaves top alone */
        nan |= vbits(vnan(v));
    }
    float most = vmax_lanes(top);
    for (; i < n; i++) {
        most = fr_max(x[i], most);
        nan |= x[i] != x[i];
    }
    *written = nan ? NAN : most;
    if (nan || most == INFINITY) {
        return softmax_rows(x, n, nan ? NAN : most, 1);
    }
    if (most == -INFINITY) {
        memset(x, 0, (size_t)n * sizeof *x);
        return 0.0f;
    }
    return softmax_rows(x, n, most, 0);
}
static float softmax(float *x, int64_t n) {
    float top;
    return softmax_top(x, n, &top);
}

/* q = round(x * inv) of n elements, zero up to the next multiple of 32, and the sums of blocks.  limit: |x * inv| may exceed 127,
 * or be NaN. */
INLINE void quantize_span(int8_t *q, int32_t *sum, const float *x, int64_t n, float inv, const int limit) {
    int64_t i = 0;
    for (; i + FR_BLOCK <= n; i += FR_BLOCK) {
        *sum++ = quantize32(q + i, x + i, inv, limit);
    }
    if (i < n) {
        float last[FR_BLOCK] = {0};
        memcpy(last, x + i, (size_t)(n - i) * sizeof *x);
        *sum = quantize32(q + i, last, inv, limit);
    }
}

/* One scale for n elements. */
INLINE void quantize_part(int8_t *q, float *scale, int32_t *sum, const float *x, int64_t n) {
    const vi clear = viset(0x7fffffff);
    vi most = viset(0), v;
    int64_t i = 0;
    for (; i + VW <= n; i += VW) {
        v = viand(vcasti(vld(x + i)), clear);
        most = vimax(most, v);
    }
    if (i < n) {
        v = viand(vcasti(vld_n(x + i, (int)(n - i))), clear);
        most = vimax(most, v);
    }
    const int32_t top = vimax_lanes(most);
    const float a = fr_from_bits((uint32_t)top);
    if (top >= 0x7f800000 || a < 0x1p-100f) {
        const int64_t nb = (n + FR_BLOCK - 1) / FR_BLOCK;
        *scale = top >= 0x7f800000 ? fr_from_bits(0x7fc00000u) : 0.0f;
        memset(q, 0, (size_t)(nb * FR_BLOCK));
        memset(sum, 0, (size_t)nb * 4);
        return;
    }
    *scale = a * (1.0f / 127.0f);
    quantize_span(q, sum, x, n, 127.0f / a, 0);
}

static void quantize(int8_t *q, float *scale, int32_t *sum, const float *x, int64_t k, int blocked) {
    if (!blocked) {
        quantize_part(q, scale, sum, x, k);
        return;
    }
    int64_t i = 0;
    for (; i + FR_BLOCK <= k; i += FR_BLOCK) {
        quantize_part(q + i, scale++, sum++, x + i, FR_BLOCK);
    }
    if (i < k) {
        quantize_part(q + i, scale, sum, x + i, k - i);
    }
}

static void quantize_static(int8_t *q, float *scale, int32_t *sum, const float *x, int64_t k, float s) {
    *scale = s;
    quantize_span(q, sum, x, k, 1.0f / s, 1);
}

enum { GROUP = 24 }; /* the most tokens that share an epilogue: their results stay in L1 */
/* Expands CASE(1) .. CASE(6), CASE(12) in a switch over the number of tokens of a tile. */
#define SIX(n, CASE)                                                                                                             \
    switch (n) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) }
#define TWELVE(n, CASE)                                                                                                          \
    switch (n) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12) }
/* Tokens of the next tile: those left, cut evenly into tiles of at most most. */
static int64_t even(int64_t left, int64_t most) {
    if (left <= most) {
        return left;
    }
    const int64_t tiles = (left + most - 1) / most;
    return (left + tiles - 1) / tiles;
}

/* A tile is t[panels][rows][16]: rows i .. i + rows - 1 of y, and for panel p the columns j + p step .. j + p step + 15. */

/* Asks for the cache lines that finish_tile will write and add, early enough that it does not wait for them. */
static __attribute__((noinline)) void expect_tile(const float *y, int64_t ldy, int panels, int64_t step, int rows, int64_t i,
                                                  int64_t j, const fr_epilogue *e) {
    for (int p = 0; p < panels; p++, j += step) {
        for (int r = 0; r < rows; r++) {
            vprefetchw(y + (i + r) * ldy + j);
            if (e->residual) {
                vprefetch(e->residual + (i + r) * e->ld + j);
            }
        }
    }
}

/* v * scale + shift of n elements. */
static void affine(float *y, const float *x, int64_t n, float by, float shift) {
    int64_t i = 0;
    EACH(vadd(vmul(v, vset(by)), vset(shift)));
}

/* The functions that are limits, fr_min(high, fr_max(low, v)), are applied while results are in registers; none is one of them:
 * infinite limits keep every bit, those of a NaN too. */
typedef struct limits {
    float low, high;
} limits;
static inline bool limits_only(const fr_epilogue *e) {
    return !e->affine && (e->act == FRUGAL_U_COPY || e->act == FRUGAL_U_RELU || e->act == FRUGAL_U_CLIP);
}
static inline limits limits_of(const fr_epilogue *e) {
    return e->act == FRUGAL_U_CLIP ? (limits){e->p, e->q} : (limits){e->act == FRUGAL_U_RELU ? 0.0f : -INFINITY, INFINITY};
}
INLINE vf vlimit(vf v, const limits *l) { return vmin(vset(l->high), vmax(vset(l->low), v)); }

/* 16 columns of a row, of which n exist: bias, limits, residual. */
INLINE void put_row(float *y, vf v[VN], const float *bias, const limits *l, const float *add, int64_t n) {
    vf r[VN];
    if (bias) {
        load16(r, bias, 16);
        UNROLL for (int k = 0; k < VN; k++) { v[k] = vadd(v[k], r[k]); }
    }
    UNROLL for (int k = 0; k < VN; k++) { v[k] = vlimit(v[k], l); }
    if (add) {
        load16(r, add, n);
        UNROLL for (int k = 0; k < VN; k++) { v[k] = vadd(v[k], r[k]); }
    }
    store16(y, v, n);
}
INLINE void finish_row(float *y, const float *t, const float *bias, const limits *l, const float *add, int64_t n) {
    vf v[VN];
    load16(v, t, 16);
    put_row(y, v, bias, l, add, n);
}

/* Where the rows of a tile go that is in registers, by its first row and column; n: columns of y from there. */
typedef struct ending {
    float *y;
    int64_t ldy, n, ld;
    const float *bias, *residual;
    limits limits;
} ending;
INLINE ending ending_of(const fr_epilogue *e, float *y, int64_t ldy, int64_t n, int64_t i, int64_t j) {
    return (ending){
        y + i * ldy + j, ldy, n - j, e->ld, e->bias ? e->bias + j : NULL, e->residual ? e->residual + i * e->ld + j : NULL,
        limits_of(e)};
}
/* A tile s[panel][row][VN], for epilogues of limits only. */
INLINE void put_tile(const ending *to, vf *s, const int P, const int N) {
    UNROLL for (int c = 0; c < P * N; c++) {
        const int64_t p = c / N * 16, r = c % N;
        const float *add = to->residual ? to->residual + r * to->ld + p : NULL;
        put_row(to->y + r * to->ldy + p, s + c * VN, to->bias ? to->bias + p : NULL, &to->limits, add, to->n - p);
    }
}

/* Epilogue and store of a tile; n: columns of y. */
static __attribute__((noinline)) void finish_tile(float *y, int64_t ldy, float *t, int panels, int64_t step, int rows, int64_t i,
                                                  int64_t j, int64_t n, const fr_epilogue *e) {
    const float *bias = e->bias;
    limits l = limits_of(e);
    if (!limits_only(e)) { /* bias first, then the function over the whole tile */
        float *v = t;
        l = (limits){-INFINITY, INFINITY};
        for (int p = 0; bias && p < panels; p++) {
            for (int r = 0; r < rows; r++, v += 16) {
                finish_row(v, v, bias + j + p * step, &l, NULL, 16);
            }
        }
        bias = NULL;
        unary(e->act, t, t, (int64_t)panels * rows * 16, e->p, e->q);
        if (e->affine) {
            affine(t, t, (int64_t)panels * rows * 16, e->scale, e->shift);
        }
    }
    for (int p = 0; p < panels; p++, j += step) {
        for (int r = 0; r < rows; r++, t += 16) {
            const float *add = e->residual ? e->residual + (i + r) * e->ld + j : NULL;
            finish_row(y + (i + r) * ldy + j, t, bias ? bias + j : NULL, &l, add, n - j);
        }
    }
}
#undef EACH

/* ---- Winograd's F(4 x 4, 3 x 3) ---- */

/* Six values along a line to six: B^T d. */
INLINE void wino_line_in(vf t[6], const vf d[6]) {
    const vf four = vset(4.0f), two = vset(2.0f);
    const vf e = vfnma(four, d[2], d[4]), f = vfnma(four, d[1], d[3]);
    const vf g = vsub(d[4], d[2]), h = vsub(d[3], d[1]);
    t[0] = vfma(four, vsub(d[0], d[2]), g);
    t[1] = vadd(e, f);
    t[2] = vsub(e, f);
    t[3] = vfma(two, h, g);
    t[4] = vfnma(two, h, g);
    t[5] = vfnma(four, h, vsub(d[5], d[3]));
}
/* Six products along a line to four sums: A^T m. */
INLINE void wino_line_out(vf y[4], const vf m[6]) {
    const vf a = vadd(m[1], m[2]), b = vsub(m[1], m[2]), c = vadd(m[3], m[4]), d = vsub(m[3], m[4]);
    y[0] = vadd(m[0], vadd(a, c));
    y[1] = vfma(vset(2.0f), d, b);
    y[2] = vfma(vset(4.0f), c, a);
    y[3] = vadd(vfma(vset(8.0f), d, b), m[5]);
}
/* VW channels of a tile from channel c on, of which n exist. */
INLINE void wino_in_channels(float *v, int64_t step, const float *const *rows, const float *const *border, int from, int to,
                             int64_t channels, int64_t c, int n) {
    vf r[6][6], d[6], t[6];
    UNROLL for (int j = 0; j < 6; j++) {
        const float *const *row = j >= from && j < to ? rows : border;
        UNROLL for (int i = 0; i < 6; i++) {
            const float *x = row[i] + j * channels + c;
            d[i] = n == VW ? vld(x) : vld_n(x, n);
        }
        wino_line_in(t, d);
        UNROLL for (int i = 0; i < 6; i++) { r[i][j] = t[i]; }
    }
    UNROLL for (int i = 0; i < 6; i++) {
        wino_line_in(t, r[i]);
        UNROLL for (int j = 0; j < 6; j++) {
            float *to_v = v + (6 * i + j) * step + c;
            if (n == VW) {
                vst(to_v, t[j]);
            } else {
                vst_n(to_v, t[j], n);
            }
        }
    }
}
static void wino_in(float *v, int64_t step, const float *const *rows, const float *const *border, int from, int to,
                    int64_t channels) {
    int64_t c = 0;
    for (; c + VW <= channels; c += VW) {
        wino_in_channels(v, step, rows, border, from, to, channels, c, VW);
    }
    if (c < channels) {
        wino_in_channels(v, step, rows, border, from, to, channels, c, (int)(channels - c));
    }
}

/* 16 output channels from channel j on. */
INLINE void wino_out_panel(float *y, int64_t ldy, int64_t y_row, const float *m, int64_t step, int rows, int columns, int64_t j,
                           int64_t n, const fr_epilogue *e) {
    float t[16 * 16] __attribute__((aligned(64)));
    const float *bias = e->bias ? e->bias + j : NULL, *add = e->residual ? e->residual + j : NULL;
    UNROLL for (int k = 0; k < VN; k++) {
        vf mid[4][6], d[6], s[4];
        UNROLL for (int q = 0; q < 6; q++) {
            UNROLL for (int i = 0; i < 6; i++) { d[i] = vld(m + (6 * i + q) * step + j + k * VW); }
            wino_line_out(s, d);
            UNROLL for (int i = 0; i < 4; i++) { mid[i][q] = s[i]; }
        }
        UNROLL for (int i = 0; i < 4; i++) {
            wino_line_out(s, mid[i]);
            UNROLL for (int q = 0; q < 4; q++) { vst(t + (4 * i + q) * 16 + k * VW, s[q]); }
        }
    }
    limits l = limits_of(e);
    if (!limits_only(e)) {
        l = (limits){-INFINITY, INFINITY};
        for (int i = 0; bias && i < 16; i++) {
            finish_row(t + 16 * i, t + 16 * i, bias, &l, NULL, 16);
        }
        bias = NULL;
        unary(e->act, t, t, 256, e->p, e->q);
        if (e->affine) {
            affine(t, t, 256, e->scale, e->shift);
        }
    }
    for (int i = 0; i < rows; i++) {
        for (int q = 0; q < columns; q++) {
            const int64_t at = i * y_row + q * ldy;
            finish_row(y + at + j, t + (4 * i + q) * 16, bias, &l, add ? add + at : NULL, n - j);
        }
    }
}
static void wino_out(float *y, int64_t ldy, int64_t y_row, const float *m, int64_t step, int rows, int columns, int64_t n,
                     const fr_epilogue *e) {
    for (int64_t j = 0; j < n; j += 16) {
        wino_out_panel(y, ldy, y_row, m, step, rows, columns, j, n, e);
    }
}

/* ---- depthwise convolutions ---- */

/* N positions of 16 channels, of which n exist; results to where they go or, where there is more to do, to t[N][16]. */
INLINE void depthwise_tile(const ending *to, float *t, const float *x, int64_t ldx, const fr_span *spans, int64_t n_spans,
                           const float *w, int64_t n, const int N) {
    vf s[8 * VN];
    UNROLL for (int c = 0; c < N * VN; c++) { s[c] = vset(0.0f); }
    for (int64_t q = 0; q < n_spans; q++) {
        vf k[VN], v[VN];
        load16(k, w + spans[q].k, n);
        UNROLL for (int i = 0; i < N; i++) {
            load16(v, x + i * ldx + spans[q].a, n);
            UNROLL for (int j = 0; j < VN; j++) { s[i * VN + j] = vfma(v[j], k[j], s[i * VN + j]); }
        }
    }
    if (to) {
        put_tile(to, s, 1, N);
        return;
    }
    UNROLL for (int c = 0; c < N * VN; c++) { vst(t + c * VW, s[c]); }
}

/* Channels j .. j + 15 of all positions; n: how many of these channels exist. */
INLINE void depthwise_channels(float *y, int64_t ldy, const float *x, int64_t ldx, const fr_span *spans, int64_t n_spans,
                               const float *w, int64_t m, int64_t j, int64_t n, const fr_epilogue *e, const int whole) {
    enum { W = VN == 1 ? 8 : VN == 2 ? 6 : 4 }; /* positions in registers */
    const int64_t width = whole ? 16 : n - j;
    const bool direct = limits_only(e);
    float t[GROUP * 16] __attribute__((aligned(64)));
    for (int64_t i = 0, rows; i < m; i += rows) {
        rows = even(m - i, GROUP);
        for (int64_t r = 0, part; r < rows; r += part) {
            const ending to = ending_of(e, y, ldy, whole ? j + 16 : n, i + r, j);
            const float *from = x + (i + r) * ldx + j;
            part = even(rows - r, W);
#define CASE(N)                                                                                                                  \
    case N:                                                                                                                      \
        if ((N) <= W) {                                                                                                          \
            depthwise_tile(direct ? &to : NULL, t + 16 * r, from, ldx, spans, n_spans, w + j, width, (N) <= W ? (N) : 1);        \
        }                                                                                                                        \
        break;
            TWELVE(part, CASE)
#undef CASE
        }
        if (!direct) {
            finish_tile(y, ldy, t, 1, 16, (int)rows, i, j, n, e);
        }
    }
}

static void conv_depthwise(float *y, int64_t ldy, const float *x, int64_t ldx, const fr_span *spans, int64_t n_spans,
                           const float *w, int64_t m, int64_t n, const fr_epilogue *e) {
    int64_t j = 0;
    for (; j + 16 <= n; j += 16) {
        depthwise_channels(y, ldy, x, ldx, spans, n_spans, w, m, j, n, e, 1);
    }
    if (j < n) {
        depthwise_channels(y, ldy, x, ldx, spans, n_spans, w, m, j, n, e, 0);
    }
}

#include "half.h"
#include "sums.h"
#endif
