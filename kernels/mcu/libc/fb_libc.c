/* fb_libc.c - the few functions of a C library that bundles call, each exact: fmaf rounds once, sqrtf is the nearest float. */
#include <stddef.h>
#include <stdint.h>

#include "math.h"
#include "string.h"

void *memcpy(void *restrict to, const void *restrict from, size_t n) {
    uint8_t *d = to;
    const uint8_t *s = from;
    if ((((uintptr_t)d | (uintptr_t)s) & 3) == 0) {
        for (; n >= 4; n -= 4, d += 4, s += 4)
            *(uint32_t *)(void *)d = *(const uint32_t *)(const void *)s;
    }
    while (n-- > 0)
        *d++ = *s++;
    return to;
}

void *memmove(void *to, const void *from, size_t n) {
    uint8_t *d = to;
    const uint8_t *s = from;
    if (d <= s || d >= s + n)
        return memcpy(to, from, n);
    while (n-- > 0)
        d[n] = s[n];
    return to;
}

void *memset(void *to, int c, size_t n) {
    uint8_t *d = to;
    while (n-- > 0)
        *d++ = (uint8_t)c;
    return to;
}

int memcmp(const void *a, const void *b, size_t n) {
    const uint8_t *p = a, *q = b;
    for (; n > 0; n--, p++, q++) {
        if (*p != *q)
            return *p < *q ? -1 : 1;
    }
    return 0;
}

#if !defined(__ARM_FEATURE_FMA) && !defined(__riscv_flen) /* else the compiler has an instruction */
#define FB_SOFT_FMA
#endif

typedef union word {
    float f;
    uint32_t u;
} word;

#ifdef FB_SOFT_FMA
/* v >> n, the lost bits as a lowest one. */
static uint64_t jam(uint64_t v, int32_t n) {
    if (n <= 0)
        return v;
    return n > 63 ? v != 0 : v >> n | ((v & ((UINT64_C(1) << n) - 1)) != 0);
}

/* The float nearest to v 2^e, ties to even. */
static float nearest(uint32_t sign, uint64_t v, int32_t e) {
    word r = {.u = 0};
    if (v == 0)
        return r.f; /* the difference of equals is +0 */
    while (v >> 63 == 0)
        v <<= 1, e--;
    const int32_t exponent = e + 63, below = exponent < -126 ? -126 - exponent : 0;
    v = jam(v, 38 + below); /* 24 bits, and two: half a unit, and whether there is anything below it */
    uint32_t m = (uint32_t)(v >> 2);
    const uint32_t rest = (uint32_t)v & 3;
    m += rest > 2 || (rest == 2 && (m & 1));
    r.u = sign | (below ? m : m + (uint32_t)(exponent + 126) * 0x800000u); /* a carry moves into the exponent by itself */
    if (exponent > 127 || (r.u & 0x7f800000) == 0x7f800000)
        r.u = sign | 0x7f800000;
    return r.f;
}

/* A float's 24 bits, the highest set, and the exponent of the lowest. */
static uint32_t take(uint32_t u, int32_t *e) {
    uint32_t m = u & 0x7fffff;
    *e = (int32_t)(u >> 23 & 255);
    if (*e != 0)
        m |= 0x800000;
    else
        *e = 1;
    while (m != 0 && m >> 23 == 0)
        m <<= 1, --*e;
    *e -= 150;
    return m;
}

float fmaf(float a, float b, float c) {
    const word x = {.f = a}, y = {.f = b}, z = {.f = c};
    const int special = (x.u & 0x7f800000) == 0x7f800000 || (y.u & 0x7f800000) == 0x7f800000;
    if (!special && (z.u & 0x7f800000) == 0x7f800000)
        return c;
    if (special || a == 0 || b == 0)
        return a * b + c;
    if (c == 0)
        return a * b;
    int32_t ep, ez, e2;
    uint64_t p = (uint64_t)take(x.u, &ep) * take(y.u, &e2), q = take(z.u, &ez);
    const uint32_t sp = (x.u ^ y.u) & 0x80000000u, sz = z.u & 0x80000000u;
    p <<= 14, ep += e2 - 14; /* below bit 62, so that a sum fits; what is shifted out leaves its mark far below the result */
    q <<= 38, ez -= 38;
    if (ep > ez)
        q = jam(q, ep - ez), ez = ep;
    else
        p = jam(p, ez - ep);
    if (sp == sz)
        return nearest(sp, p + q, ez);
    return p > q ? nearest(sp, p - q, ez) : nearest(sz, q - p, ez);
}
/* Digit by digit. */
float sqrtf(float x) {
    const word v = {.f = x};
    if (!(x > 0) || v.u == 0x7f800000)
        return x == 0 || v.u == 0x7f800000 || x != x ? x : NAN;
    int32_t e;
    uint64_t m = (uint64_t)take(v.u, &e) << 25, root = 0; /* 49 bits: the root has 25 */
    e -= 25;
    if (e & 1)
        m <<= 1, e--;
    for (uint64_t bit = UINT64_C(1) << 25; bit != 0; bit >>= 1) {
        if ((root + bit) * (root + bit) <= m)
            root += bit;
    }
    return nearest(0, root << 1 | (root * root != m), e / 2 - 1);
}
#endif

float rintf(float x) {
    const float magic = x < 0 ? -8388608.0f : 8388608.0f;
    const word v = {.f = x};
    if ((v.u & 0x7fffffff) >= 0x4b000000)
        return x;
    volatile float sum = x + magic;
    word r = {.f = sum - magic};
    r.u |= v.u & 0x80000000u;
    return r.f;
}

float floorf(float x) {
    const float r = rintf(x);
    return r > x ? r - 1.0f : r;
}

float ceilf(float x) { return -floorf(-x); }

/* ---- double, for operations whose sources have it beside float ---- */

typedef union wide {
    double f;
    uint64_t u;
} wide;
#define SIGN UINT64_C(0x8000000000000000)
#define ENDLESS UINT64_C(0x7ff0000000000000)

double rint(double x) {
    const double magic = x < 0 ? -0x1p52 : 0x1p52;
    const wide v = {.f = x};
    if ((v.u & ~SIGN) >= UINT64_C(0x4330000000000000))
        return x;
    volatile double sum = x + magic;
    wide r = {.f = sum - magic};
    r.u |= v.u & SIGN;
    return r.f;
}

double floor(double x) {
    const double r = rint(x);
    return r > x ? r - 1.0 : r;
}

double ceil(double x) { return -floor(-x); }

/* The 53 bits of a positive double, the highest set, and the exponent of the lowest. */
static uint64_t take_wide(uint64_t u, int32_t *e) {
    uint64_t m = u & UINT64_C(0xfffffffffffff);
    *e = (int32_t)(u >> 52 & 2047);
    if (*e != 0)
        m |= UINT64_C(1) << 52;
    else
        *e = 1;
    while (m >> 52 == 0)
        m <<= 1, --*e;
    *e -= 1075;
    return m;
}

/* Two bits of x for a bit of the root: 54 of them, of which the last and the remainder say how to round. */
double sqrt(double x) {
    const wide v = {.f = x};
    if (!(x > 0) || v.u == ENDLESS)
        return x == 0 || v.u == ENDLESS || x != x ? x : __builtin_nan("");
    int32_t e;
    uint64_t m = take_wide(v.u, &e), root = 0, rest = 0;
    if (e & 1)
        m <<= 1, e--;
    m <<= 10; /* its top pair of bits, 53 and 54 of it, to the top */
    for (int i = 0; i < 54; i++, m <<= 2) {
        rest = rest << 2 | m >> 62;
        root <<= 1;
        if (rest > root << 1) {
            rest -= root << 1 | 1;
            root |= 1;
        }
    }
    root = (root >> 1) + (root & 1); /* never a tie: a root of 54 bits has a square of more than 53 */
    /* 27 pairs were of x, 27 beyond: the root's lowest bit stands for 2^(e / 2 - 26) */
    wide r = {.u = ((uint64_t)(e / 2 - 26 + 1075) << 52) + (root - (UINT64_C(1) << 52))};
    return r.f;
}

double fmod(double a, double b) {
    const wide x = {.f = a}, y = {.f = b};
    const uint64_t ua = x.u & ~SIGN, ub = y.u & ~SIGN;
    if (ub == 0 || ua >= ENDLESS || ub > ENDLESS)
        return (a * b) / (a * b);
    if (ua < ub)
        return a;
    int32_t ea, eb;
    uint64_t m = take_wide(ua, &ea), d = take_wide(ub, &eb);
    for (;; ea--, m <<= 1) {
        m = m >= d ? m - d : m;
        if (ea == eb)
            break;
    }
    if (m == 0) {
        const wide zero = {.u = x.u & SIGN};
        return zero.f;
    }
    if (eb < -1074) /* b was subnormal: its units are all there is */
        m >>= -1074 - eb, eb = -1074;
    while (m >> 52 == 0 && eb > -1074)
        m <<= 1, eb--;
    wide r = {.u = x.u & SIGN};
    r.u |= m >> 52 ? ((uint64_t)(eb + 1075) << 52) + (m - (UINT64_C(1) << 52)) : m;
    return r.f;
}

float fmodf(float a, float b) { return (float)fmod((double)a, (double)b); }
