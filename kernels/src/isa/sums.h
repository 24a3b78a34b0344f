/* sums.h - reductions and softmax over rows and over columns, in the orders of isa.h; included at the end of simd.h. */
#ifndef FRUGAL_SUMS_H
#define FRUGAL_SUMS_H

/* One more element; maxima pass NaNs over, which the callers find by themselves. */
INLINE vf reduce_step(const int kind, vf l, vf v) {
    switch (kind) {
    case FRUGAL_R_MAX:
        return vmax(v, l);
    case FRUGAL_R_MIN:
        return vmin(v, l);
    case FRUGAL_R_PROD:
        return vmul(l, v);
    case FRUGAL_R_L1:
        return vadd(l, vabs(v));
    case FRUGAL_R_SUM_SQUARE:
        return vadd(l, vmul(v, v));
    default:
        return vadd(l, v);
    }
}
INLINE vf reduce_fold(const int kind, vf l, vf m) {
    return reduce_step(kind == FRUGAL_R_L1 || kind == FRUGAL_R_SUM_SQUARE ? FRUGAL_R_SUM : kind, l, m);
}
INLINE float reduce_start(const int kind) {
    return kind == FRUGAL_R_MAX ? -INFINITY : kind == FRUGAL_R_MIN ? INFINITY : kind == FRUGAL_R_PROD ? 1.0f : 0.0f;
}
INLINE int reduce_finds(const int kind) { return kind == FRUGAL_R_MAX || kind == FRUGAL_R_MIN; }

/* n < 16 elements, then `other`, which changes no lane (a lane is never -0, to which 0 would add up as 0). */
INLINE void load16_or(vf v[VN], const float *x, int64_t n, vf other) {
    UNROLL for (int j = 0; j < VN; j++) {
        const int left = (int)n - j * VW;
        if (left >= VW) {
            v[j] = vld(x + j * VW);
        } else if (left > 0) {
            const vi rest = vixor(vcasti(other), vcasti(vkeep(other, left)));
            v[j] = vcastf(vior(vcasti(vld_n(x + j * VW, left)), rest));
        } else {
            v[j] = other;
        }
    }
}

/* The sixteen lanes of a row. */
INLINE float reduce_row(const int kind, const float *x, int64_t n) {
    const vf start = vset(reduce_start(kind));
    vf l[VN], v[VN];
    unsigned nan = 0;
    int64_t i = 0;
    UNROLL for (int j = 0; j < VN; j++) { l[j] = start; }
    for (; i + 16 <= n; i += 16) {
        load16(v, x + i, 16);
        UNROLL for (int j = 0; j < VN; j++) {
            l[j] = reduce_step(kind, l[j], v[j]);
            nan |= reduce_finds(kind) ? vbits(vnan(v[j])) : 0;
        }
    }
    if (i < n) {
        load16_or(v, x + i, n - i, start);
        UNROLL for (int j = 0; j < VN; j++) {
            l[j] = reduce_step(kind, l[j], v[j]);
            nan |= reduce_finds(kind) ? vbits(vnan(v[j])) : 0;
        }
    }
    if (reduce_finds(kind) && nan)
        return NAN;
    if (!reduce_finds(kind) && kind != FRUGAL_R_PROD)
        return fold16(l);
    float t[16];
    UNROLL for (int j = 0; j < VN; j++) { vst(t + j * VW, l[j]); }
    for (int half = 8; half > 0; half /= 2) {
        for (int j = 0; j < half; j++) {
            const float a = t[j], b = t[j + half];
            t[j] = kind == FRUGAL_R_MAX ? fr_max(b, a) : kind == FRUGAL_R_MIN ? fr_min(b, a) : a * b;
        }
    }
    return t[0];
}

#define EVERY_REDUCTION(CALL)                                                                                                    \
    switch (kind) {                                                                                                              \
    case FRUGAL_R_MAX:                                                                                                           \
        CALL(FRUGAL_R_MAX);                                                                                                      \
    case FRUGAL_R_MIN:                                                                                                           \
        CALL(FRUGAL_R_MIN);                                                                                                      \
    case FRUGAL_R_PROD:                                                                                                          \
        CALL(FRUGAL_R_PROD);                                                                                                     \
    case FRUGAL_R_L1:                                                                                                            \
        CALL(FRUGAL_R_L1);                                                                                                       \
    case FRUGAL_R_SUM_SQUARE:                                                                                                    \
    case FRUGAL_R_L2:                                                                                                            \
        CALL(FRUGAL_R_SUM_SQUARE);                                                                                               \
    default:                                                                                                                     \
        CALL(FRUGAL_R_SUM);                                                                                                      \
    }

static float row_reduce(int kind, const float *x, int64_t n){
#define CALL(KIND) return reduce_row(KIND, x, n)
    EVERY_REDUCTION(CALL)
#undef CALL
}

/* V vectors of columns, of the last of which `last` exist (VW: all).  t: the lanes. */
INLINE
    void reduce_strip(const int kind, float *y, const float *x, int64_t step, int64_t count, int last, vf t[][4], const int V) {
    vf v[4], bad[4];
#define COLUMN(p, j) ((j) == V - 1 && last < VW ? vld_n((p) + (j) * VW, last) : vld((p) + (j) * VW))
    UNROLL for (int j = 0; j < V; j++) { bad[j] = vset(0.0f); }
    const int64_t lanes = count < 16 ? count : 16;
    for (int64_t i = 0; i < 16; i++) {
        vf l[4];
        UNROLL for (int j = 0; j < V; j++) { l[j] = vset(reduce_start(kind)); }
        for (int64_t e = i; i < lanes && e < count; e += 16) {
            UNROLL for (int j = 0; j < V; j++) {
                v[j] = COLUMN(x + e * step, j);
                l[j] = reduce_step(kind, l[j], v[j]);
                bad[j] = reduce_finds(kind) ? vsel(vnan(v[j]), v[j], bad[j]) : bad[j];
            }
        }
        UNROLL for (int j = 0; j < V; j++) { t[i][j] = l[j]; }
    }
    for (int half = 8; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            UNROLL for (int j = 0; j < V; j++) { t[i][j] = reduce_fold(kind, t[i][j], t[i + half][j]); }
        }
    }
    UNROLL for (int j = 0; j < V; j++) {
        const vf r = vsel(vnan(bad[j]), bad[j], t[0][j]);
        if (j == V - 1 && last < VW) {
            vst_n(y + j * VW, r, last);
        } else {
            vst(y + j * VW, r);
        }
    }
}
#undef COLUMN

INLINE void reduce_strips(const int kind, float *y, const float *x, int64_t step, int64_t count, int64_t n) {
    vf t[16][4];
    int64_t j = 0;
    for (; j + 4 * VW <= n; j += 4 * VW) {
        reduce_strip(kind, y + j, x + j, step, count, VW, t, 4);
    }
    for (; j < n; j += VW) {
        reduce_strip(kind, y + j, x + j, step, count, n - j < VW ? (int)(n - j) : VW, t, 1);
    }
}

static void row_reduce_columns(int kind, float *y, const float *x, int64_t step, int64_t count, int64_t n) {
#define CALL(KIND)                                                                                                               \
    reduce_strips(KIND, y, x, step, count, n);                                                                                   \
    break
    EVERY_REDUCTION(CALL)
#undef CALL
}

static void row_extremes(const float *x, int64_t n, float *low, float *high) {
    enum { U = 4 };
    vf a[U], b[U];
    int64_t i = 0;
    UNROLL for (int j = 0; j < U; j++) { a[j] = b[j] = vset(0.0f); }
    for (; i + U * VW <= n; i += U * VW) {
        UNROLL for (int j = 0; j < U; j++) {
            const vf v = vld(x + i + j * VW);
            a[j] = vmin(v, a[j]);
            b[j] = vmax(v, b[j]);
        }
    }
    float s[U * VW], t[U * VW];
    UNROLL for (int j = 0; j < U; j++) {
        vst(s + j * VW, a[j]);
        vst(t + j * VW, b[j]);
    }
    *low = *high = 0.0f;
    for (int j = 0; j < U * VW; j++) {
        *low = fr_min(s[j], *low);
        *high = fr_max(t[j], *high);
    }
    for (; i < n; i++) {
        *low = fr_min(x[i], *low);
        *high = fr_max(x[i], *high);
    }
}

/* One vector of columns, of which `last` exist. */
INLINE void softmax_strip(float *y, const float *x, int64_t step, int64_t count, int last, int log) {
#define AT(p) (last < VW ? vld_n(p, last) : vld(p))
#define PUT(p, v)                                                                                                                \
    do {                                                                                                                         \
        if (last < VW) {                                                                                                         \
            vst_n(p, v, last);                                                                                                   \
        } else {                                                                                                                 \
            vst(p, v);                                                                                                           \
        }                                                                                                                        \
    } while (0)
    vf top = vset(-INFINITY), t[16];
    for (int64_t e = 0; e < count; e++) {
        const vf v = AT(x + e * step);
        top = vsel(vnan(v), v, vsel(vlt(top, v), v, top));
    }
    const vm none = vge(vset(-INFINITY), top); /* a column of only -inf */
    UNROLL for (int i = 0; i < 16; i++) { t[i] = vset(0.0f); }
    for (int64_t e = 0; e < count; e++) {
        const vf v = vsel(none, vset(0.0f), vexp(vsub(AT(x + e * step), top)));
        t[e % 16] = vadd(t[e % 16], v);
        if (!log) {
            PUT(y + e * step, v);
        }
    }
    for (int half = 8; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            t[i] = vadd(t[i], t[i + half]);
        }
    }
    if (log) {
        const vf sum = vlog(t[0]);
        for (int64_t e = 0; e < count; e++) {
            PUT(y + e * step, vsub(vsub(AT(x + e * step), top), sum));
        }
        return;
    }
    const vf by = vsel(vge(vset(0.0f), t[0]), vset(0.0f), vdiv(vset(1.0f), t[0]));
    for (int64_t e = 0; e < count; e++) {
        PUT(y + e * step, vmul(AT(y + e * step), by));
    }
#undef AT
#undef PUT
}

static void row_softmax_columns(float *y, const float *x, int64_t step, int64_t count, int64_t n, int log) {
    int64_t j = 0;
    for (; j + VW <= n; j += VW) {
        softmax_strip(y + j, x + j, step, count, VW, log);
    }
    if (j < n) {
        softmax_strip(y + j, x + j, step, count, (int)(n - j), log);
    }
}

static void floats_of_halves(float *y, const uint16_t *x, int64_t n) {
    int64_t i = 0;
    for (; i + VW <= n; i += VW) {
        vst(y + i, vhalf(x + i));
    }
    for (; i < n; i++) {
        y[i] = fr_half_to_float(x[i]);
    }
}
static void halves_of_floats(uint16_t *y, const float *x, int64_t n) {
    int64_t i = 0;
    for (; i + VW <= n; i += VW) {
        vsthalf(y + i, vld(x + i));
    }
    for (; i < n; i++) {
        y[i] = fr_float_to_half(x[i]);
    }
}
#endif
