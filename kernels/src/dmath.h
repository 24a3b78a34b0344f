/* dmath.h - elementary functions of float64 without libm, so that every machine gives the same bits.
 *
 * Plain IEEE arithmetic in the written order (compile with -ffp-contract=off); of libm only fabs, sqrt, rint, fmod, which are
 * exact or correctly rounded.  Relative errors are a few 1e-16 where nothing else is said; float32 results of functions that are
 * not worth a vector version are these, rounded once.
 */
#ifndef FRUGAL_DMATH_H
#define FRUGAL_DMATH_H
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define FR_PI 3.14159265358979324
#define FR_LN2 0.69314718055994531

/* e^x in double by the series of e^r, |r| <= 0.347.  Relative error < 1e-15; 0 below -745, inf above 709.7. */
static inline double fr_exp64(double x) {
    if (x != x) {
        return x;
    }
    if (x < -745.0) {
        return 0.0;
    }
    if (x > 709.782) {
        return (double)INFINITY;
    }
    int32_t n = (int32_t)(x * 1.4426950408889634 + (x < 0 ? -0.5 : 0.5));
    double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10, p = 1.0;
    for (int i = 14; i > 0; i--) {
        p = 1.0 + p * r / i;
    }
    int32_t half = n / 2; /* in two factors, so that subnormal results and 2^1024 are reached */
    uint64_t a = (uint64_t)(half + 1023) << 52, b = (uint64_t)(n - half + 1023) << 52;
    double fa, fb;
    memcpy(&fa, &a, 8);
    memcpy(&fb, &b, 8);
    return p * fa * fb;
}

/* log x in double: x = 2^k m, log m = 2 (s + s^3/3 + s^5/5 ..), s = (m - 1) / (m + 1).  Relative error < 1e-15. */
static inline double fr_log64(double x) {
    if (!(x > 0.0) || x == (double)INFINITY) {
        return x == 0.0 ? -(double)INFINITY : x > 0.0 ? x : (double)NAN;
    }
    int32_t tiny = x < 0x1p-1022;
    double y = tiny ? x * 0x1p54 : x, m;
    uint64_t u;
    memcpy(&u, &y, 8);
    int32_t k = (int32_t)((int64_t)(u - 0x3fe6a09e667f3bcdu) >> 52);
    u -= (uint64_t)(int64_t)k << 52;
    memcpy(&m, &u, 8);
    double s = (m - 1.0) / (m + 1.0), z = s * s, p = 0.0;
    for (int i = 23; i > 1; i -= 2) {
        p = (p + 1.0 / i) * z;
    }
    k -= tiny ? 54 : 0;
    return k * 6.93147180369123816490e-01 + (2.0 * s + (2.0 * s * p + k * 1.90821492927058770002e-10));
}

/* e^x - 1, accurate near 0. */
static inline double fr_d_expm1(double x) {
    if (!(fabs(x) < 0.5))
        return fr_exp64(x) - 1;
    double sum = 0; /* x (1 + x/2 (1 + x/3 (...))) */
    for (int k = 16; k >= 2; k--)
        sum = (1 + sum) * x / k;
    return x + x * sum;
}

/* log(1 + x), accurate near 0. */
static inline double fr_d_log1p(double x) {
    const double u = 1 + x;
    if (u == 1)
        return x;
    return u == (double)INFINITY ? u : fr_log64(u) * (x / (u - 1));
}

static inline double fr_d_sinh(double x) {
    const double a = fabs(x);
    double v;
    if (a < 22) {
        const double e = fr_d_expm1(a);
        v = 0.5 * (e + e / (e + 1));
    } else {
        const double h = fr_exp64(0.5 * a);
        v = 0.5 * h * h;
    }
    return signbit(x) ? -v : v;
}
static inline double fr_d_cosh(double x) {
    const double h = fr_exp64(0.5 * fabs(x)), e = h * h;
    return 0.5 * h * h + 0.5 / e;
}
static inline double fr_d_tanh(double x) {
    const double a = fabs(x);
    double v = 1;
    if (a < 22) {
        const double e = fr_d_expm1(2 * a);
        v = e / (e + 2);
    }
    return x != x ? x : signbit(x) ? -v : v;
}
static inline double fr_d_asinh(double x) {
    const double a = fabs(x), v = a < 0x1p30 ? fr_d_log1p(a + a * a / (1 + sqrt(1 + a * a))) : fr_log64(a) + FR_LN2;
    return signbit(x) ? -v : v;
}
/* Below 1: NaN. */
static inline double fr_d_acosh(double x) {
    const double t = x - 1;
    if (!(x >= 1))
        return (double)NAN;
    return x < 0x1p30 ? fr_d_log1p(t + sqrt(2 * t + t * t)) : fr_log64(x) + FR_LN2;
}
/* Of 1: inf; above: NaN. */
static inline double fr_d_atanh(double x) {
    const double a = fabs(x);
    if (!(a < 1))
        return a == 1 ? (signbit(x) ? -(double)INFINITY : (double)INFINITY) : (double)NAN;
    const double v = 0.5 * fr_d_log1p(2 * a / (1 - a));
    return signbit(x) ? -v : v;
}

/* Three halvings of the angle, atan x = 2 atan(x / (1 + sqrt(1 + x^2))), then the series up to 0.199. */
static inline double fr_d_atan(double x) {
    const double a = fabs(x);
    if (x != x)
        return x;
    double t = a > 1 ? 1 / a : a;
    for (int i = 0; i < 2; i++)
        t = t / (1 + sqrt(1 + t * t));
    const double s = t * t;
    double sum = 0;
    for (int k = 25; k >= 1; k -= 2)
        sum = 1.0 / k - s * sum;
    double v = 4 * t * sum;
    v = a > 1 ? 0.5 * FR_PI - v : v;
    return signbit(x) ? -v : v;
}
/* Outside [-1, 1]: NaN. */
static inline double fr_d_asin(double x) { return fr_d_atan(x / sqrt((1 - x) * (1 + x))); }
static inline double fr_d_acos(double x) { return x == -1 ? FR_PI : 2 * fr_d_atan(sqrt((1 - x) / (1 + x))); }

/* x = n pi/2 + r, |r| <= pi/4; returns n mod 4.  Above 2^20 the error grows with x: 1e-16 x. */
static inline int fr_d_quadrant(double x, double *r) {
    if (!(fabs(x) < (double)INFINITY))
        return *r = (double)NAN, 0;
    if (fabs(x) > 0x1p20)
        x = fmod(x, 2 * FR_PI);
    const double n = rint(x * (2 / FR_PI));
    *r = ((x - n * 1.57079632673412561417e+00) - n * 6.07710050630396597660e-11) - n * 2.02226624879595063154e-21;
    return (int)((int64_t)n & 3);
}
static inline double fr_d_sin_near(double r) {
    const double s = r * r;
    double sum = 0;
    for (int k = 18; k >= 2; k -= 2)
        sum = (1 + sum) * -s / (k * (k + 1));
    return r + r * sum;
}
static inline double fr_d_cos_near(double r) {
    const double s = r * r;
    double sum = 0;
    for (int k = 19; k >= 1; k -= 2)
        sum = (1 + sum) * -s / (k * (k + 1));
    return 1 + sum;
}
static inline double fr_d_sin(double x) {
    double r;
    const int n = fr_d_quadrant(x, &r);
    const double v = n & 1 ? fr_d_cos_near(r) : fr_d_sin_near(r);
    return n & 2 ? -v : v;
}
static inline double fr_d_cos(double x) {
    double r;
    const int n = fr_d_quadrant(x, &r);
    const double v = n & 1 ? fr_d_sin_near(r) : fr_d_cos_near(r);
    return n == 1 || n == 2 ? -v : v;
}
static inline double fr_d_tan(double x) {
    double r;
    const int n = fr_d_quadrant(x, &r);
    const double s = fr_d_sin_near(r), c = fr_d_cos_near(r);
    return n & 1 ? -c / s : s / c;
}

/* The series below 2.5, whose terms are all positive, else 1 - erfc by its continued fraction. */
static inline double fr_d_erf(double x) {
    const double a = fabs(x);
    double v;
    if (x != x)
        return x;
    if (a < 2.5) { /* 2/sqrt(pi) e^-x^2 (x + 2/3 x^3 + 4/15 x^5 + ...) */
        double term = a, sum = a;
        for (int k = 1; k < 60; k++) {
            term *= 2 * a * a / (2 * k + 1);
            sum += term;
        }
        v = 1.1283791670955126 * fr_exp64(-a * a) * sum;
    } else if (a < 6) {
        double f = a;
        for (int k = 60; k >= 1; k--)
            f = a + 0.5 * k / f;
        v = 1 - 0.56418958354775629 * fr_exp64(-a * a) / f;
    } else {
        v = 1;
    }
    return signbit(x) ? -v : v;
}

static inline double fr_d_power_of_int(double x, int64_t n) {
    double r = 1;
    for (uint64_t k = n < 0 ? (uint64_t)-n : (uint64_t)n; k > 0; k >>= 1, x *= x) {
        if (k & 1)
            r *= x;
    }
    return n < 0 ? 1 / r : r;
}

/* The special cases of IEEE 754 pow.  Error up to 1e-16 y log x. */
static inline double fr_d_pow(double x, double y) {
    if (y == 0 || x == 1)
        return 1;
    if (x != x || y != y)
        return x + y;
    if (y == 0.5 && x >= 0)
        return sqrt(x);
    const bool whole = rint(y) == y, small = fabs(y) <= 64;
    if (whole && small)
        return fr_d_power_of_int(x, (int64_t)y);
    const bool odd = whole && fabs(y) < 0x1p53 && fmod(y, 2) != 0;
    const double a = fabs(x);
    double r;
    if (a == 1)
        r = 1;
    else if (fabs(y) == (double)INFINITY || a == 0 || a == (double)INFINITY)
        r = (a > 1) == (y > 0) ? (double)INFINITY : 0;
    else if (x < 0 && !whole)
        return (double)NAN;
    else
        r = fr_exp64(y * fr_log64(a));
    return odd && signbit(x) ? -r : r;
}
#endif
