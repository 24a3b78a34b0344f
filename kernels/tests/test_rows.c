/* test_rows.c - the row loops of every instruction set of this CPU give the bytes of scalar.c: every length around the vectors,
 * every type and function, with NaN, infinities, zeros of both signs and subnormals among the elements.
 *
 * Bytes are compared exactly, except that any NaN equals any NaN.  Prints "N passed, M failed".
 */
#include "../src/fmath.h"
#include "../src/isa.h"
#include "count.h"

enum { F32 = 1, U8 = 2, I8 = 3, U16 = 4, I16 = 5, I32 = 6, I64 = 7, BOOL = 9, F16 = 10, F64 = 11, BF16 = 16, MOST = 150 };
static const int types[] = {F32, U8, I8, U16, I16, I32, I64, BOOL, F16, F64, BF16};
enum { TYPES = sizeof types / sizeof *types };

static int64_t size_of(int t) {
    return t == F64 || t == I64 ? 8 : t == F32 || t == I32 ? 4 : t == U8 || t == I8 || t == BOOL ? 1 : 2;
}

static void *room(int64_t bytes) { return alloc((size_t)bytes); }

static float odd_float(void) {
    static const float odd[] = {
        0.0f,   -0.0f,  1.0f,          -1.0f,         0.5f,           2.5f,    127.5f,   -128.5f, 255.5f,   65519.0f,  65520.0f,
        1e-41f, -1e-6f, 2147483520.0f, 2147483648.0f, -2147483648.0f, 9.3e18f, -9.3e18f, 3e38f,   INFINITY, -INFINITY, NAN};
    const float plain = (float)((int32_t)rnd() / 16777216.0);
    return rnd() % 4 ? plain : odd[rnd() % (sizeof odd / sizeof *odd)];
}
/* tame: no NaN and nothing infinite, so that sums are compared and not NaNs. */
static void *row(int t, int64_t n, int tame) {
    uint8_t *p = room(n * size_of(t));
    for (int64_t i = 0; i < n; i++) {
        float f = odd_float();
        f = tame && !(fabsf(f) < 1e6f) ? 1.5f : f;
        const double d = (double)f;
        const uint64_t bits = (uint64_t)rnd() << 32 | rnd();
        const uint64_t small = rnd() % 8 ? bits % 5 : bits;
        const uint8_t flag = rnd() & 1;
        const void *from = t == F32 ? (const void *)&f : t == F64 ? (const void *)&d : t == BOOL ? (const void *)&flag : &small;
        memcpy(p + i * size_of(t), from, (size_t)size_of(t));
    }
    return p;
}
static int same(int t, const void *a, const void *b, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (!memcmp((const uint8_t *)a + i * size_of(t), (const uint8_t *)b + i * size_of(t), (size_t)size_of(t))) {
            continue;
        }
        const float u = t == F32    ? ((const float *)a)[i]
                        : t == F16  ? fr_half_to_float(((const uint16_t *)a)[i])
                        : t == BF16 ? fr_from_bits((uint32_t)((const uint16_t *)a)[i] << 16)
                                    : 0.0f;
        const float v = t == F32    ? ((const float *)b)[i]
                        : t == F16  ? fr_half_to_float(((const uint16_t *)b)[i])
                        : t == BF16 ? fr_from_bits((uint32_t)((const uint16_t *)b)[i] << 16)
                                    : 0.0f;
        const int doubles =
            t == F64 && ((const double *)a)[i] != ((const double *)a)[i] && ((const double *)b)[i] != ((const double *)b)[i];
        if (!doubles && (u == u || v == v)) {
            return 0;
        }
    }
    return 1;
}
static const fr_rows *scalar(void) { return &fr_isa_scalar->rows; }

static void test_binary(const frugal_isa *isa, int64_t n) {
    static const int operands[] = {F32, F64, I32, I64, BOOL};
    for (int k = 0; k < 5; k++) {
        const int t = operands[k];
        void *a = row(t, n, 0), *b = row(t, n, 0), *y0 = room(8 * n), *y1 = room(8 * n);
        for (int kind = 0; kind < FRUGAL_BINARY_COUNT; kind++) {
            for (int steps = 0; steps < 4 && n > 0; steps++) {
                const int sa = steps & 1, sb = steps >> 1;
                const int has = scalar()->binary(kind, t, y0, a, b, sa, sb, n);
                const int ok = isa->rows.binary(kind, t, y1, a, b, sa, sb, n) == has;
                const int to = kind >= FRUGAL_B_EQUAL ? BOOL : t;
                check(ok && (!has || same(to, y0, y1, n)), "binary", isa->name, n, t * 100 + kind, steps);
            }
        }
        scalar()->binary(t == BOOL ? FRUGAL_B_XOR : FRUGAL_B_MUL, t, y0, a, b, 1, 1, n);
        isa->rows.binary(t == BOOL ? FRUGAL_B_XOR : FRUGAL_B_MUL, t, a, a, b, 1, 1, n);
        check(same(t, y0, a, n), "binary in place", isa->name, n, t, 0);
        free(a), free(b), free(y0), free(y1);
    }
}

static void test_one_operand(const frugal_isa *isa, int64_t n) {
    for (int from = 0; from < TYPES; from++) {
        const int t = types[from];
        void *x = row(t, n, 0), *y0 = room(8 * n), *y1 = room(8 * n);
        for (int to = 0; to < TYPES; to++) {
            const int has = scalar()->cast(types[to], t, y0, x, n);
            const int ok = isa->rows.cast(types[to], t, y1, x, n) == has;
            check(ok && (!has || same(types[to], y0, y1, n)), "cast", isa->name, n, t, types[to]);
        }
        static const int ints[] = {FRUGAL_U_NEG, FRUGAL_U_ABS, FRUGAL_U_SIGN, FRUGAL_U_RELU, FRUGAL_U_NOT};
        for (int k = 0; k < 5 && (t == I32 || t == I64); k++) {
            const int has = scalar()->unary(ints[k], t, y0, x, n, 0, 0);
            const int ok = isa->rows.unary(ints[k], t, y1, x, n, 0, 0) == has;
            check(ok && same(ints[k] == FRUGAL_U_NOT ? BOOL : t, y0, y1, n), "unary", isa->name, n, t, ints[k]);
        }
        for (int k = 0; k < 8 && (t == F32 || t == F64); k++) {
            const int kind = k & 4 ? FRUGAL_U_ISNAN : FRUGAL_U_ISINF;
            scalar()->unary(kind, t, y0, x, n, k & 1, k >> 1 & 1);
            isa->rows.unary(kind, t, y1, x, n, k & 1, k >> 1 & 1);
            check(same(BOOL, y0, y1, n), "test", isa->name, n, t, k);
        }
        free(x), free(y0), free(y1);
    }
}

static void test_where(const frugal_isa *isa, int64_t n) {
    static const int sizes[] = {U8, I16, I32, I64};
    uint8_t *c = row(BOOL, n, 0);
    for (int k = 0; k < 4; k++) {
        void *a = row(sizes[k], n, 0), *b = row(sizes[k], n, 0), *y0 = room(8 * n), *y1 = room(8 * n);
        for (int steps = 0; steps < 4 && n > 0; steps++) {
            scalar()->where((int)size_of(sizes[k]), y0, c, a, b, steps & 1, steps >> 1, n);
            isa->rows.where((int)size_of(sizes[k]), y1, c, a, b, steps & 1, steps >> 1, n);
            check(same(sizes[k], y0, y1, n), "where", isa->name, n, k, steps);
        }
        free(a), free(b), free(y0), free(y1);
    }
    free(c);
}

static void test_codes(const frugal_isa *isa, int64_t n) {
    float *x = row(F32, n, 0), *scale = row(F32, n, 1), *f0 = room(4 * n), *f1 = room(4 * n);
    for (int64_t i = 0; i < n; i++) {
        scale[i] = 0.01f + fabsf(scale[i]);
    }
    for (int t = U8; t <= I32; t++) {
        void *zero = row(t, n, 0), *y0 = room(4 * n), *y1 = room(4 * n);
        for (int k = 0; k < 4 && n > 0; k++) {
            const void *z = k & 1 ? zero : NULL;
            const int has = scalar()->codes(t, y0, x, n, scale, z, k >> 1);
            check(isa->rows.codes(t, y1, x, n, scale, z, k >> 1) == has && (!has || same(t, y0, y1, n)), "codes", isa->name, n, t,
                  k);
            const int back = scalar()->uncode(t, f0, zero, n, scale, z, k >> 1);
            check(isa->rows.uncode(t, f1, zero, n, scale, z, k >> 1) == back && (!back || same(F32, f0, f1, n)), "uncode",
                  isa->name, n, t, k);
        }
        free(zero), free(y0), free(y1);
    }
    free(x), free(scale), free(f0), free(f1);
}

static void test_sums(const frugal_isa *isa, int64_t n, int tame) {
    const int64_t step = n + 3, count = (int64_t)(rnd() % 40);
    float *x = row(F32, n, tame), *m = row(F32, step * count, tame), *y0 = room(4 * n), *y1 = room(4 * n);
    for (int kind = 0; kind < FRUGAL_REDUCE_COUNT; kind++) {
        const float a = scalar()->reduce(kind, x, n), b = isa->rows.reduce(kind, x, n);
        check(same(F32, &a, &b, 1), "reduce", isa->name, n, kind, tame);
        scalar()->reduce_columns(kind, y0, m, step, count, n);
        isa->rows.reduce_columns(kind, y1, m, step, count, n);
        check(same(F32, y0, y1, n), "reduce columns", isa->name, n, kind, count);
        for (int64_t j = 0; j < n && isa == fr_isa_scalar; j += 7) { /* a column is a row that lies otherwise */
            float column[40];
            for (int64_t e = 0; e < count; e++) {
                column[e] = m[e * step + j];
            }
            const float one = scalar()->reduce(kind, column, count);
            check(same(F32, &one, y0 + j, 1), "column as a row", isa->name, n, kind, count);
        }
    }
    float low[2], high[2];
    scalar()->extremes(x, n, low, high);
    isa->rows.extremes(x, n, low + 1, high + 1);
    check(low[0] == low[1] && high[0] == high[1], "extremes", isa->name, n, tame, 0);
    scalar()->shift(y0, x, n, 1.25f, -3.7f);
    isa->rows.shift(y1, x, n, 1.25f, -3.7f);
    check(same(F32, y0, y1, n), "shift", isa->name, n, tame, 0);
    free(x), free(m), free(y0), free(y1);
}

static void test_softmax_columns(const frugal_isa *isa, int64_t n, int tame) {
    const int64_t step = n + 3, count = 1 + (int64_t)(rnd() % 40);
    float *m = row(F32, step * count, tame), *y0 = room(4 * step * count), *y1 = room(4 * step * count);
    for (int64_t e = 0; e < count && n > 2; e++) {
        m[e * step + 2] = -INFINITY;
    }
    for (int log = 0; log < 2; log++) {
        scalar()->softmax_columns(y0, m, step, count, n, log);
        isa->rows.softmax_columns(y1, m, step, count, n, log);
        check(same(F32, y0, y1, step * count), "softmax columns", isa->name, n, count, log);
    }
    for (int64_t j = 0; j < n; j++) { /* as softmax of a row, and in place */
        float column[40];
        for (int64_t e = 0; e < count; e++) {
            column[e] = m[e * step + j];
        }
        const float sum = isa->softmax(column, count), by = sum == 0 ? 0 : 1 / sum;
        isa->scale(column, column, count, by);
        isa->rows.softmax_columns(m + j, m + j, step, count, 1, 0);
        for (int64_t e = 0; e < count; e++) {
            check(same(F32, column + e, m + e * step + j, 1), "softmax of a column as of a row", isa->name, n, j, e);
        }
    }
    free(m), free(y0), free(y1);
}

/* Products with halves: scalar's bytes, and those of gemm_f32 with the widened weights. */
static void test_half(const frugal_isa *isa, int64_t m, int64_t n, int64_t k, int bf16) {
    const int64_t np = (n + 15) / 16 * 16;
    float *a = row(F32, m * k, 1), *bias = row(F32, np, 1), *residual = row(F32, m * n, 1), *wide = room(4 * np * k);
    float *y[3] = {room(4 * m * n), room(4 * m * n), room(4 * m * n)};
    uint16_t *b = room(2 * np * k);
    for (int64_t i = 0; i < np * k; i++) { /* any bits, the infinite ones aside */
        b[i] = (uint16_t)rnd();
        b[i] &= bf16 ? 0xbfff : 0xfbff;
    }
    scalar()->cast(F32, bf16 ? BF16 : F16, wide, b, np * k);
    const fr_epilogue e = {.bias = bias, .residual = residual, .ld = n, .act = rnd() % 2 ? FRUGAL_U_RELU : FRUGAL_U_COPY};
    fr_isa_scalar->gemm_half(y[0], n, a, k, b, bf16, m, n, k, &e);
    isa->gemm_half(y[1], n, a, k, b, bf16, m, n, k, &e);
    isa->gemm_f32(y[2], n, a, k, wide, 16, 16 * k, m, n, k, 1.0f, &e);
    check(same(F32, y[0], y[1], m * n) && same(F32, y[0], y[2], m * n), "halves", isa->name, m, n, k);
    free(a), free(bias), free(residual), free(wide), free(b), free(y[0]), free(y[1]), free(y[2]);
}

int main(void) {
    for (uint32_t i = 0; frugal_isa_list(i); i++) {
        const frugal_isa *isa = frugal_isa_find(frugal_isa_list(i));
        for (int64_t n = 0; n <= MOST; n++) {
            test_binary(isa, n);
            test_one_operand(isa, n);
            test_where(isa, n);
            test_codes(isa, n);
            test_half(isa, 1 + n % 14, 1 + (int64_t)(rnd() % 140), 1 + (int64_t)(rnd() % 60), (int)(n % 2));
            for (int tame = 0; tame < 2; tame++) {
                test_sums(isa, n, tame);
                test_softmax_columns(isa, n, tame);
            }
        }
    }
    return check_report();
}
