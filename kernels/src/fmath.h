/* fmath.h - the scalar float functions whose bits every instruction set repeats, and exact fp16 conversions.
 *
 * Each function is branch-free arithmetic (a select where it says ?:), so that a vector version can do the same operations in the
 * same order.  Only fmaf, sqrtf, rintf and floorf come from libm.  Polynomials are our own weighted minimax fits; "error" is the
 * largest one found by kernels/tests/test_isa.c against double precision.  Rounding mode: nearest even.  Compile with
 * -ffp-contract=off. NaN: every function of a NaN is a NaN unless its comment says otherwise.
 */
#ifndef FRUGAL_FMATH_H
#define FRUGAL_FMATH_H
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "dmath.h"
#include "frugal_plan.h"

/* a b + c, rounded once.  The only way fmath.h and the kernels write a fused multiply-add. */
static inline float FR_FMA(float a, float b, float c) { return fmaf(a, b, c); }

static inline uint32_t fr_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}
static inline float fr_from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}

/* a > b ? a : b, so b when one is NaN: what x86 maxps does.  fr_max(constant, x) therefore keeps a NaN in x. */
static inline float fr_max(float a, float b) { return a > b ? a : b; }
static inline float fr_min(float a, float b) { return a < b ? a : b; }
static inline float fr_abs(float x) { return fr_from_bits(fr_bits(x) & 0x7fffffffu); }
/* |x| as an integer that orders like |x|, with NaN above inf above every number: the maximum needs no float comparison. */
static inline int32_t fr_abs_bits(float x) { return (int32_t)(fr_bits(x) & 0x7fffffffu); }

/* fp16 -> fp32, exact for every half.  No subnormal float is read or made, so it also holds with flush-to-zero. */
static inline float fr_half_to_float(uint16_t h) {
    uint32_t m = h & 0x7fffu, o = (m << 13) + 0x38000000u;
    if (m >= 0x7c00u) {
        o += 0x38000000u;
    } else if (m < 0x400u) {
        o = fr_bits(fr_from_bits(o + 0x800000u) - 0x1p-14f);
    }
    return fr_from_bits(o | (uint32_t)(h & 0x8000u) << 16);
}
/* fp32 -> fp16, nearest even; beyond the largest half inf; a NaN gives the quiet NaN 0x7e00 with its sign. */
static inline uint16_t fr_float_to_half(float x) {
    uint32_t u = fr_bits(x), a = u & 0x7fffffffu, sign = u >> 16 & 0x8000u, h;
    if (a > 0x7f800000u) {
        h = 0x7e00u;
    } else if (a >= 0x477ff000u) { /* 65520, the middle between the largest half and the next */
        h = 0x7c00u;
    } else if (a < 0x38800000u) { /* a subnormal half: adding 0.5 leaves its bits, rounded, at the end of the fraction */
        h = fr_bits(fr_from_bits(a) + 0.5f) - 0x3f000000u;
    } else {
        h = (a + 0xfffu + (a >> 13 & 1u) - 0x38000000u) >> 13;
    }
    return (uint16_t)(sign | h);
}

/* Adding 1.5 * 2^23 rounds to an integer whose low bits are the low bits of the sum. */
#define FR_MAGIC 12582912.0f
#define FR_LOG2E 0x1.715476p+0f
#define FR_LN2_HI 0x1.62e430p-1f
#define FR_LN2_LO -0x1.05c610p-29f /* ln 2 - FR_LN2_HI */
#define FR_EXP_LOW -87.3f
#define FR_EXP_HIGH 88.72283f
#define FR_EXP_C1 0x1.fffffcp-2f
#define FR_EXP_C2 0x1.555418p-3f
#define FR_EXP_C3 0x1.555824p-5f
#define FR_EXP_C4 0x1.1267d8p-7f
#define FR_EXP_C5 0x1.6ae6e0p-10f

/* e^x = 2^n e^r, n = round(x / ln 2), |r| <= 0.347; e^r = 1 + r P(r).  Relative error < 1.3e-7; exp(0) = 1 exactly.
 * x < -87.3 (and -inf) gives 0, before results would be subnormal; x > 88.72283 gives inf. */
static inline float fr_exp(float x) {
    float t = FR_FMA(x, FR_LOG2E, FR_MAGIC), n = t - FR_MAGIC;
    float r = FR_FMA(n, -FR_LN2_LO, FR_FMA(n, -FR_LN2_HI, x));
    float p = FR_EXP_C5;
    p = FR_FMA(p, r, FR_EXP_C4);
    p = FR_FMA(p, r, FR_EXP_C3);
    p = FR_FMA(p, r, FR_EXP_C2);
    p = FR_FMA(p, r, FR_EXP_C1);
    p = FR_FMA(p, r, 1.0f);
    p = FR_FMA(p, r, 1.0f);
    float y = fr_from_bits(fr_bits(p) + (fr_bits(t) << 23));
    y = x < FR_EXP_LOW ? 0.0f : y;
    y = x > FR_EXP_HIGH ? INFINITY : y;
    return x != x ? x : y;
}

#define FR_EM1_C0 0x1.fffffep-2f
#define FR_EM1_C1 0x1.5554b0p-3f
#define FR_EM1_C2 0x1.555674p-5f
#define FR_EM1_C3 0x1.1227b0p-7f
#define FR_EM1_C4 0x1.6bebfep-10f

/* e^x - 1 for x <= 0 (anything for x > 88): with n, r as in fr_exp, 2^n (e^r - 1) + (2^n - 1).  Relative error < 3e-7. */
static inline float fr_expm1(float x) {
    float a = fr_max(-30.0f, x), t = FR_FMA(a, FR_LOG2E, FR_MAGIC), n = t - FR_MAGIC;
    float r = FR_FMA(n, -FR_LN2_LO, FR_FMA(n, -FR_LN2_HI, a));
    float p = FR_EM1_C4;
    p = FR_FMA(p, r, FR_EM1_C3);
    p = FR_FMA(p, r, FR_EM1_C2);
    p = FR_FMA(p, r, FR_EM1_C1);
    p = FR_FMA(p, r, FR_EM1_C0);
    p = FR_FMA(p, r * r, r);
    float s = fr_from_bits((fr_bits(t) << 23) + 0x3f800000u);
    return FR_FMA(p, s, s - 1.0f);
}

#define FR_LOG_C0 0x1.555548p-2f
#define FR_LOG_C1 -0x1.000006p-2f
#define FR_LOG_C2 0x1.99a4b6p-3f
#define FR_LOG_C3 -0x1.555c4ep-3f
#define FR_LOG_C4 0x1.233768p-3f
#define FR_LOG_C5 -0x1.fc2208p-4f
#define FR_LOG_C6 0x1.e6f06ap-4f
#define FR_LOG_C7 -0x1.de3c16p-4f
#define FR_LOG_C8 0x1.1457a8p-4f

/* log x = k ln 2 + log(1 + f), 1 + f in [sqrt 1/2, sqrt 2); log(1 + f) = f - f^2/2 + f^3 P(f).  Relative error < 3e-7.
 * log(+-0) = -inf, log(x < 0) = NaN, log(inf) = inf. */
static inline float fr_log(float x) {
    uint32_t tiny = x < 0x1p-126f;
    uint32_t u = fr_bits(tiny ? x * 0x1p23f : x);
    int32_t e = (int32_t)(u - 0x3f3504f3u) >> 23;
    float f = fr_from_bits(u - ((uint32_t)e << 23)) - 1.0f, k = (float)(e - (tiny ? 23 : 0));
    float p = FR_LOG_C8, s = f * f;
    p = FR_FMA(p, f, FR_LOG_C7);
    p = FR_FMA(p, f, FR_LOG_C6);
    p = FR_FMA(p, f, FR_LOG_C5);
    p = FR_FMA(p, f, FR_LOG_C4);
    p = FR_FMA(p, f, FR_LOG_C3);
    p = FR_FMA(p, f, FR_LOG_C2);
    p = FR_FMA(p, f, FR_LOG_C1);
    p = FR_FMA(p, f, FR_LOG_C0);
    float w = FR_FMA(-0.5f, s, FR_FMA(k, FR_LN2_LO, f * s * p));
    float y = FR_FMA(k, FR_LN2_HI, f + w);
    y = x == INFINITY ? x : y;
    y = x == 0.0f ? -INFINITY : y;
    return x >= 0.0f ? y : NAN;
}

/* log(1 + e) for e in [0, 1]: the part of e that 1 + e rounds away is added back to first order. */
static inline float fr_log1p(float e) {
    float u = 1.0f + e;
    return fr_log(u) + (e - (u - 1.0f)) / u;
}

#define FR_ERF_SMALL0 0x1.20dd74p+0f /* erf(x) / x in x^2, |x| < 1 */
#define FR_ERF_SMALL1 -0x1.812674p-2f
#define FR_ERF_SMALL2 0x1.ce0942p-4f
#define FR_ERF_SMALL3 -0x1.b5a35cp-6f
#define FR_ERF_SMALL4 0x1.4246d2p-8f
#define FR_ERF_SMALL5 -0x1.273facp-11f
#define FR_ERF_BIG0 0x1.a0be9ep+0f /* -log2(erfc(a)) / a, a in [0, 4] */
#define FR_ERF_BIG1 0x1.d63aacp-1f
#define FR_ERF_BIG2 0x1.301730p-3f
#define FR_ERF_BIG3 -0x1.cee9b8p-6f
#define FR_ERF_BIG4 0x1.9654dap-11f
#define FR_ERF_BIG5 0x1.866026p-10f
#define FR_ERF_BIG6 -0x1.d30b62p-12f
#define FR_ERF_BIG7 0x1.7c60e4p-15f
#define FR_EXP2_C0 0x1.62e42ap-1f /* (2^f - 1) / f, |f| <= 1/2, relative error of 2^f 1e-7 */
#define FR_EXP2_C1 0x1.ebf9bcp-3f
#define FR_EXP2_C2 0x1.c6b754p-5f
#define FR_EXP2_C3 0x1.3ceab4p-7f
#define FR_EXP2_C4 0x1.5bb9e4p-10f

/* 2^s for s in [-126, 0]; outside (or NaN) an unspecified number. */
static inline float fr_exp2_neg(float s) {
    float t = s + FR_MAGIC, f = s - (t - FR_MAGIC);
    float p = FR_EXP2_C4;
    p = FR_FMA(p, f, FR_EXP2_C3);
    p = FR_FMA(p, f, FR_EXP2_C2);
    p = FR_FMA(p, f, FR_EXP2_C1);
    p = FR_FMA(p, f, FR_EXP2_C0);
    p = FR_FMA(p, f, 1.0f);
    return fr_from_bits(fr_bits(p) + (fr_bits(t) << 23));
}

/* erf x = x P(x^2) for |x| < 1, else sign(x) (1 - 2^(-a Q(a))), a = min(|x|, 4).  Absolute error < 2e-7. */
static inline float fr_erf(float x) {
    float a = fr_min(4.0f, fr_abs(x)), u = a * a;
    float p = FR_ERF_SMALL5;
    p = FR_FMA(p, u, FR_ERF_SMALL4);
    p = FR_FMA(p, u, FR_ERF_SMALL3);
    p = FR_FMA(p, u, FR_ERF_SMALL2);
    p = FR_FMA(p, u, FR_ERF_SMALL1);
    p = FR_FMA(p, u, FR_ERF_SMALL0);
    float q = FR_ERF_BIG7;
    q = FR_FMA(q, a, FR_ERF_BIG6);
    q = FR_FMA(q, a, FR_ERF_BIG5);
    q = FR_FMA(q, a, FR_ERF_BIG4);
    q = FR_FMA(q, a, FR_ERF_BIG3);
    q = FR_FMA(q, a, FR_ERF_BIG2);
    q = FR_FMA(q, a, FR_ERF_BIG1);
    q = FR_FMA(q, a, FR_ERF_BIG0);
    float big = 1.0f - fr_exp2_neg(-a * q);
    float y = a >= 1.0f ? big : a * p;
    return fr_from_bits(fr_bits(y) | (fr_bits(x) & 0x80000000u));
}

#define FR_GELU_C0 -0x1.26afe4p+0f /* log2(erfc(a / sqrt 2)) / a, a in [0, 13] */
#define FR_GELU_C1 -0x1.d61ae4p-2f
#define FR_GELU_C2 -0x1.b0bf66p-5f
#define FR_GELU_C3 0x1.eb5b0cp-8f
#define FR_GELU_C4 -0x1.cfc8e6p-12f
#define FR_GELU_C5 -0x1.270a90p-14f
#define FR_GELU_C6 0x1.271760p-16f
#define FR_GELU_C7 -0x1.7c0e68p-20f
#define FR_GELU_C8 0x1.575f60p-25f
#define FR_GELU_END 12.5f

/* gelu x = x/2 (1 + erf(x / sqrt 2)) = max(x, 0) - a erfc(a / sqrt 2) / 2, a = |x|, and erfc(a / sqrt 2) / 2 = 2^(a Q(a) - 1).
 * Error < 2e-7 max(1, |x|), without the cancellation of the first form; of the small results at -4, -6, -10 the relative error
 * is 1e-4, 1 %, 20 %.  For x <= -12.5 it is 0, gelu(inf) = inf, gelu(-inf) = 0. */
static inline float fr_gelu(float x) {
    float a = fr_min(FR_GELU_END, fr_abs(x));
    float q = FR_GELU_C8;
    q = FR_FMA(q, a, FR_GELU_C7);
    q = FR_FMA(q, a, FR_GELU_C6);
    q = FR_FMA(q, a, FR_GELU_C5);
    q = FR_FMA(q, a, FR_GELU_C4);
    q = FR_FMA(q, a, FR_GELU_C3);
    q = FR_FMA(q, a, FR_GELU_C2);
    q = FR_FMA(q, a, FR_GELU_C1);
    q = FR_FMA(q, a, FR_GELU_C0);
    float tail = a < FR_GELU_END ? fr_exp2_neg(FR_FMA(q, a, -1.0f)) : 0.0f;
    return FR_FMA(-a, tail, fr_max(x, 0.0f));
}

#define FR_TANH_C0 -0x1.555532p-2f /* (tanh(x) / x - 1) / x^2 in x^2, |x| < 0.625 */
#define FR_TANH_C1 0x1.110726p-3f
#define FR_TANH_C2 -0x1.b83c5ap-5f
#define FR_TANH_C3 0x1.52269cp-6f
#define FR_TANH_C4 -0x1.75e1ccp-8f

/* tanh x = x + x^3 P(x^2) for |x| < 0.625, else sign(x) (1 - 2 / (e^2|x| + 1)).  Relative error < 3e-7. */
static inline float fr_tanh(float x) {
    float a = fr_abs(x), u = a * a;
    float p = FR_TANH_C4;
    p = FR_FMA(p, u, FR_TANH_C3);
    p = FR_FMA(p, u, FR_TANH_C2);
    p = FR_FMA(p, u, FR_TANH_C1);
    p = FR_FMA(p, u, FR_TANH_C0);
    float small = FR_FMA(p, a * u, a), big = 1.0f - 2.0f / (fr_exp(a + a) + 1.0f);
    float y = a < 0.625f ? small : big;
    return fr_from_bits(fr_bits(y) | (fr_bits(x) & 0x80000000u));
}

/* 1 / (1 + e^-x).  Relative error < 3e-7 for x > -87; below, 0. */
static inline float fr_sigmoid(float x) { return 1.0f / (1.0f + fr_exp(-x)); }

/* x sigmoid(x).  -0 for x < -88.8: the argument is held at -100 so that -inf does not make a NaN. */
static inline float fr_silu(float x) {
    float a = fr_max(-100.0f, x);
    return a / (1.0f + fr_exp(-a));
}

/* x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) = x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)).  Absolute error < 3e-7 max(1, |x|).
 */
static inline float fr_gelu_tanh(float x) {
    float a = fr_max(-20.0f, x), u = a * a;
    return a / (1.0f + fr_exp(a * FR_FMA(u, -0.0713548163f, -1.5957691216f)));
}

/* log(1 + e^x) = max(x, 0) + log1p(e^-|x|).  Relative error < 4e-7 for x > -87; below, 0. */
static inline float fr_softplus(float x) { return fr_max(0.0f, x) + fr_log1p(fr_exp(-fr_abs(x))); }

#define FR_2_PI 0x1.45f306p-1f
#define FR_PI2_A 0x1.921fb6p+0f /* pi/2 = A + B + C */
#define FR_PI2_B -0x1.777a5cp-25f
#define FR_PI2_C -0x1.ee59dap-50f
#define FR_SIN_C0 -0x1.555546p-3f
#define FR_SIN_C1 0x1.11075cp-7f
#define FR_SIN_C2 -0x1.994cfap-13f
#define FR_COS_C0 0x1.55554ap-5f
#define FR_COS_C1 -0x1.6c0c86p-10f
#define FR_COS_C2 0x1.9a00ccp-16f
#define FR_SIN_END 4194304.0f

/* sin(x + quarter pi/2), quarter 0 or 1: x = n pi/2 + r with pi/2 in three parts, then sin or cos of r in [-pi/4, pi/4].
 * Absolute error < 1e-7 for |x| <= 2^22; beyond, where float32 angles are farther apart than 1/2, and for inf: NaN. */
static inline float fr_sin_quarter(float x, uint32_t quarter) {
    float t = FR_FMA(x, FR_2_PI, FR_MAGIC), n = t - FR_MAGIC;
    float r = FR_FMA(n, -FR_PI2_C, FR_FMA(n, -FR_PI2_B, FR_FMA(n, -FR_PI2_A, x))), u = r * r;
    float s = FR_FMA(r * u, FR_FMA(FR_FMA(FR_SIN_C2, u, FR_SIN_C1), u, FR_SIN_C0), r);
    float c = FR_FMA(u * u, FR_FMA(FR_FMA(FR_COS_C2, u, FR_COS_C1), u, FR_COS_C0), FR_FMA(-0.5f, u, 1.0f));
    uint32_t q = fr_bits(t) + quarter;
    float y = fr_from_bits(fr_bits(q & 1u ? c : s) ^ (q & 2u) << 30);
    return fr_abs(x) <= FR_SIN_END ? y : NAN;
}
static inline float fr_sin(float x) { return fr_sin_quarter(x, 0); }
static inline float fr_cos(float x) { return fr_sin_quarter(x, 1); }

/* f(x) for FRUGAL_UNARY kinds on float32; NOT and ISNAN, which are not functions to float, and unknown kinds copy x. */
static inline float fr_unary(int kind, float x, float p, float q) {
    switch (kind) {
    case FRUGAL_U_NEG:
        return -x;
    case FRUGAL_U_ABS:
        return fr_abs(x);
    case FRUGAL_U_SIGN:
        return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x; /* keeps 0, -0 and NaN */
    case FRUGAL_U_SQRT:
        return sqrtf(x);
    case FRUGAL_U_RECIPROCAL:
        return 1.0f / x;
    case FRUGAL_U_FLOOR:
        return floorf(x);
    case FRUGAL_U_CEIL:
        return -floorf(-x);
    case FRUGAL_U_ROUND:
        return rintf(x);
    case FRUGAL_U_EXP:
        return fr_exp(x);
    case FRUGAL_U_LOG:
        return fr_log(x);
    case FRUGAL_U_ERF:
        return fr_erf(x);
    case FRUGAL_U_TANH:
        return fr_tanh(x);
    case FRUGAL_U_SIGMOID:
        return fr_sigmoid(x);
    case FRUGAL_U_RELU:
        return fr_max(0.0f, x);
    case FRUGAL_U_LEAKY_RELU:
        return x < 0.0f ? p * x : x;
    case FRUGAL_U_CLIP:
        return fr_min(q, fr_max(p, x));
    case FRUGAL_U_GELU:
        return fr_gelu(x);
    case FRUGAL_U_GELU_TANH:
        return fr_gelu_tanh(x);
    case FRUGAL_U_SILU:
        return fr_silu(x);
    case FRUGAL_U_SIN:
        return fr_sin(x);
    case FRUGAL_U_COS:
        return fr_cos(x);
    case FRUGAL_U_SOFTPLUS:
        return fr_softplus(x);
    case FRUGAL_U_ELU:
        return x < 0.0f ? p * fr_expm1(x) : x;
    case FRUGAL_U_HARD_SIGMOID:
        return fr_max(0.0f, fr_min(1.0f, FR_FMA(p, x, q)));
    case FRUGAL_U_HARD_SWISH:
        return x * fr_max(0.0f, fr_min(1.0f, FR_FMA(x, 1.0f / 6.0f, 0.5f)));
    default:
        return x;
    }
}

/* x^y with the special cases of C's pow.  y = 1, 2, -1, 1/2: one rounded operation; other integers up to 64: products in double;
 * else e^(y log x) in double: the float result is within 0.501 ulp. */
static inline float fr_pow(float x, float y) {
    if (y == 0.0f || x == 1.0f) {
        return 1.0f;
    }
    if (x != x || y != y) {
        return x + y;
    }
    if (y == 1.0f || y == 2.0f || y == -1.0f) {
        return y == 1.0f ? x : y == 2.0f ? x * x : 1.0f / x;
    }
    if (y == 0.5f && x > 0.0f) {
        return sqrtf(x);
    }
    double a = (double)fr_abs(x), r = 1.0;
    int integer = y == floorf(y), odd = fr_abs(y) < 16777216.0f && integer && ((int32_t)y & 1);
    if (x < 0.0f && !integer && x != -INFINITY) {
        return NAN;
    }
    if (a == 0.0 || a == (double)INFINITY) {
        r = (a == 0.0) == (y > 0.0f) ? 0.0 : (double)INFINITY;
    } else if (fr_abs(y) == INFINITY) {
        r = a == 1.0 ? 1.0 : (a > 1.0) == (y > 0.0f) ? (double)INFINITY : 0.0;
    } else if (integer && fr_abs(y) <= 64.0f) {
        for (uint32_t n = (uint32_t)fr_abs(y); n; n >>= 1, a *= a) {
            r = n & 1u ? r * a : r;
        }
        r = y < 0.0f ? 1.0 / r : r;
    } else {
        r = fr_exp64((double)y * fr_log64(a));
    }
    return (float)(odd && fr_bits(x) >> 31 ? -r : r);
}
#endif
