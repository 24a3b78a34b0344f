/* attend.h - what attention over a cache needs beside simd.h, written once over three more vector operations:
 * vhalf (VW halves to floats), vturn (VW x VW lanes transposed in place), vput16 (16 floats, rounded, to int16). */
#ifndef FRUGAL_ATTEND_H
#define FRUGAL_ATTEND_H
#include "simd.h"

static void widen(float *y, const uint16_t *x, int64_t n) {
    int64_t i = 0;
    for (; i + VW <= n; i += VW) {
        vst(y + i, vhalf(x + i));
    }
    for (; i < n; i++) {
        y[i] = fr_half_to_float(x[i]);
    }
}

/* n <= VW elements of a row, then zeros. */
INLINE vf row_part(const uint8_t *row, int64_t n, const int form) {
    if (n == VW) {
        return form == FR_ROWS_HALF ? vhalf((const uint16_t *)(const void *)row) : vld((const float *)(const void *)row);
    }
    if (form == FR_ROWS_HALF) {
        uint16_t half[VW] = {0};
        memcpy(half, row, (size_t)n * 2);
        return vhalf(half);
    }
    float f[VW] = {0};
    memcpy(f, row, (size_t)n * 4);
    return vld(f);
}

/* Elements c .. c + n - 1 (n <= VW) of up to 16 rows to a panel. */
INLINE void turn_part(float *dst, const uint8_t *src, int64_t ld, int64_t rows, int64_t c, int64_t n, const int form) {
    UNROLL for (int g = 0; g < VN; g++) {
        vf r[VW];
        UNROLL for (int i = 0; i < VW; i++) {
            const int64_t row = g * VW + i;
            r[i] = row < rows ? row_part(src + row * ld + c * (form == FR_ROWS_HALF ? 2 : 4), n, form) : vset(0.0f);
        }
        vturn(r);
        for (int i = 0; i < VW && i < n; i++) {
            vst(dst + (c + i) * 16 + g * VW, r[i]);
        }
    }
}
INLINE void turn_panel(float *dst, const uint8_t *src, int64_t ld, int64_t rows, int64_t k, const int form) {
    int64_t c = 0;
    for (; c + VW <= k; c += VW) {
        turn_part(dst, src, ld, rows, c, VW, form);
    }
    if (c < k) {
        turn_part(dst, src, ld, rows, c, k - c, form);
    }
}
static __attribute__((noinline)) void turn_rest(float *dst, const uint8_t *src, int64_t ld, int64_t rows, int64_t k, int form) {
    turn_panel(dst, src, ld, rows, k, form);
}

static void pack_rows(float *dst, const void *src, int64_t ld, int form, int64_t n, int64_t k) {
    const uint8_t *from = src;
    int64_t j = 0;
    for (; j + 16 <= n; j += 16, dst += 16 * k) {
        if (form == FR_ROWS_HALF) {
            turn_panel(dst, from + j * ld, ld, 16, k, FR_ROWS_HALF);
        } else {
            turn_panel(dst, from + j * ld, ld, 16, k, FR_ROWS_32);
        }
    }
    if (j < n) {
        turn_rest(dst, from + j * ld, ld, n - j, k, form);
    }
}

/* u of 16 elements from i on; those beyond n are 0. */
INLINE void weigh16(vf u[VN], const float *w, const float *s, int64_t i, int64_t n) {
    vf by[VN];
    load16(u, w + i, n - i);
    load16(by, s + i, n - i);
    UNROLL for (int j = 0; j < VN; j++) { u[j] = vsel(vne(u[j], vset(0.0f)), vmul(u[j], by[j]), vset(0.0f)); }
}
static float weights8(int16_t *p, const float *w, const float *s, int64_t n) {
    const vi clear = viset(0x7fffffff);
    vi most = viset(0);
    vf u[VN];
    for (int64_t i = 0; i < n; i += 16) {
        weigh16(u, w, s, i, n);
        UNROLL for (int j = 0; j < VN; j++) { most = vimax(most, viand(vcasti(u[j]), clear)); }
    }
    const int32_t top = vimax_lanes(most);
    const float a = fr_from_bits((uint32_t)top), inv = 32512.0f / a;
    if (top >= 0x7f800000 || a < 0x1p-100f) {
        memset(p, 0, (size_t)((n + 15) / 16 * 16) * sizeof *p);
        return top >= 0x7f800000 ? fr_from_bits(0x7fc00000u) : 0.0f;
    }
    for (int64_t i = 0; i < n; i += 16) {
        weigh16(u, w, s, i, n);
        UNROLL for (int j = 0; j < VN; j++) { u[j] = vmul(u[j], vset(inv)); }
        vput16(p + i, u);
    }
    return a * (1.0f / 32512.0f);
}

/* Heads of a size that a vector loop does not take. */
static __attribute__((noinline, unused)) void qk8_rest(float *y, int64_t ldy, const int8_t *q, int64_t ldq, const float *qs,
                                                       const int8_t *k, int64_t ldk, const float *ks, int64_t m, int64_t n,
                                                       int64_t d) {
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            int32_t s = 0;
            for (int64_t c = 0; c < d; c++) {
                s += q[i * ldq + c] * k[j * ldk + c];
            }
            y[i * ldy + j] = (float)s * (qs[i] * ks[j]);
        }
    }
}
/* What is left to a vector loop: columns c0 .. e - 1 of pv8. */
static __attribute__((noinline, unused)) void pv8_rest(float *y, int64_t ldy, const int16_t *p, int64_t ldp, const float *ps,
                                                       const int8_t *v, int64_t ldv, int64_t m, int64_t n, int64_t c0,
                                                       int64_t e) {
    for (int64_t i = 0; i < m; i++) {
        for (int64_t c = c0; c < e; c++) {
            int32_t s = 0;
            for (int64_t j = 0; j < n; j++) {
                s += p[i * ldp + j] * v[j * ldv + c];
            }
            y[i * ldy + c] = (float)s * ps[i];
        }
    }
}
#endif
