/* dmath.h - exponential and logarithm in double: plain operations in a written order, no libm. */
#ifndef FRUGAL_DMATH_H
#define FRUGAL_DMATH_H
#include <math.h>
#include <stdint.h>
#include <string.h>

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
#endif
