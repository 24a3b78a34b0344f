/* test_session.c - every operation against a plain computation, and what sessions promise: shapes resolved again, aliases, absent
 * outputs, the same bytes for every instruction set and thread count, errors for everything wrong.
 *
 * Usage: test_session [DIRECTORY]    with a directory, every plan is also written there, as a seed for fuzz_plan. */
#define _POSIX_C_SOURCE 200112L /* fork */
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

/* Dims of the inputs, ended by -1. */
static void set_dims(io *x, ...) {
    va_list ap;
    va_start(ap, x);
    for (int i = 0;; i++) {
        const int d = va_arg(ap, int);
        if (d < 0)
            break;
        x->dims[i] = d;
    }
    va_end(ap);
}

/* ---- elementwise ---- */

static double naive_unary(int kind, double x, double p, double q) {
    switch (kind) {
    case FRUGAL_U_COPY:
        return x;
    case FRUGAL_U_NEG:
        return -x;
    case FRUGAL_U_ABS:
        return fabs(x);
    case FRUGAL_U_SIGN:
        return x > 0 ? 1 : x < 0 ? -1 : 0;
    case FRUGAL_U_SQRT:
        return sqrt(x);
    case FRUGAL_U_RECIPROCAL:
        return 1 / x;
    case FRUGAL_U_FLOOR:
        return floor(x);
    case FRUGAL_U_CEIL:
        return ceil(x);
    case FRUGAL_U_ROUND:
        return rint(x);
    case FRUGAL_U_EXP:
        return exp(x);
    case FRUGAL_U_LOG:
        return log(x);
    case FRUGAL_U_ERF:
        return erf(x);
    case FRUGAL_U_TANH:
        return tanh(x);
    case FRUGAL_U_SIGMOID:
        return 1 / (1 + exp(-x));
    case FRUGAL_U_RELU:
        return x > 0 ? x : 0;
    case FRUGAL_U_LEAKY_RELU:
        return x > 0 ? x : p * x;
    case FRUGAL_U_CLIP:
        return fmin(fmax(x, p), q);
    case FRUGAL_U_GELU:
        return x / 2 * (1 + erf(x / sqrt(2)));
    case FRUGAL_U_GELU_TANH:
        return x / 2 * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case FRUGAL_U_SILU:
        return x / (1 + exp(-x));
    case FRUGAL_U_SIN:
        return sin(x);
    case FRUGAL_U_COS:
        return cos(x);
    case FRUGAL_U_SOFTPLUS:
        return log1p(exp(x));
    case FRUGAL_U_ELU:
        return x > 0 ? x : p * (exp(x) - 1);
    case FRUGAL_U_HARD_SIGMOID:
        return fmin(1, fmax(0, p * x + q));
    case FRUGAL_U_HARD_SWISH:
        return x * fmin(1, fmax(0, x / 6 + 0.5));
    case FRUGAL_U_TAN:
        return tan(x);
    case FRUGAL_U_ASIN:
        return asin(x);
    case FRUGAL_U_ACOS:
        return acos(x);
    case FRUGAL_U_ATAN:
        return atan(x);
    case FRUGAL_U_SINH:
        return sinh(x);
    case FRUGAL_U_COSH:
        return cosh(x);
    case FRUGAL_U_ASINH:
        return asinh(x);
    case FRUGAL_U_ACOSH:
        return acosh(x);
    case FRUGAL_U_ATANH:
        return atanh(x);
    case FRUGAL_U_SHRINK:
        return x < -p ? x + q : x > p ? x - q : 0;
    default:
        return NAN;
    }
}

static void test_unary(void) {
    for (int kind = 0; kind < FRUGAL_UNARY_COUNT; kind++) {
        if (kind == FRUGAL_U_NOT || (kind >= FRUGAL_U_ISNAN && kind <= FRUGAL_U_ISINF))
            continue;
        const int n = 1 + (int)(rnd() % 70);
        float *in = floats(n), *out = alloc((size_t)n * 4);
        const int positive = kind == FRUGAL_U_SQRT || kind == FRUGAL_U_LOG || kind == FRUGAL_U_RECIPROCAL;
        for (int i = 0; i < n; i++)
            in[i] = positive ? fabsf(in[i]) + 0.01f : 4 * in[i];
        pb *b = pb_new();
        const int64_t s = pb_symbol(b, 0, 0);
        const int32_t x = pb_input(b, FR_F32, PB_LIST(s)), y = pb_output(b, FR_F32, PB_LIST(s));
        pb_step(b, FRUGAL_OP_UNARY, PB_LIST(x), PB_LIST(y), PB_LIST(kind, pb_float(0.25), pb_float(0.5)));
        io t = {.dims = {n}, .in = {in}, .out = {out}, .out_bytes = {(size_t)n * 4}};
        CHECK(run_plan(b, &t) == FRUGAL_OK);
        int ok = 1;
        for (int i = 0; i < n; i++)
            ok = ok && close_to(out[i], naive_unary(kind, (double)in[i], 0.25, 0.5), 2e-6);
        if (!ok)
            printf("unary kind %d\n", kind);
        CHECK(ok);
        free(in), free(out);
    }
}

static void test_unary_types(void) {
    pb *b = pb_new();
    int64_t in[3] = {-5, 0, 7}, neg[3], clip[3];
    uint8_t flags[3] = {1, 0, 1}, not[3], nan[2];
    double d[2] = {2.25, -0.5}, root[2];
    float f[2] = {NAN, 1};
    const int32_t x = pb_input(b, FR_I64, PB_LIST(3)), fl = pb_input(b, FR_BOOL, PB_LIST(3)),
                  dx = pb_input(b, FR_F64, PB_LIST(2)), fx = pb_input(b, FR_F32, PB_LIST(2));
    const int32_t y0 = pb_output(b, FR_I64, PB_LIST(3)), y1 = pb_output(b, FR_I64, PB_LIST(3)),
                  y2 = pb_output(b, FR_BOOL, PB_LIST(3)), y3 = pb_output(b, FR_F64, PB_LIST(2)),
                  y4 = pb_output(b, FR_BOOL, PB_LIST(2));
    pb_step(b, FRUGAL_OP_UNARY, PB_LIST(x), PB_LIST(y0), PB_LIST(FRUGAL_U_NEG, 0, 0));
    pb_step(b, FRUGAL_OP_UNARY, PB_LIST(x), PB_LIST(y1), PB_LIST(FRUGAL_U_CLIP, pb_float(-2), pb_float(INFINITY)));
    pb_step(b, FRUGAL_OP_UNARY, PB_LIST(fl), PB_LIST(y2), PB_LIST(FRUGAL_U_NOT, 0, 0));
    pb_step(b, FRUGAL_OP_UNARY, PB_LIST(dx), PB_LIST(y3), PB_LIST(FRUGAL_U_ROUND, 0, 0));
    pb_step(b, FRUGAL_OP_UNARY, PB_LIST(fx), PB_LIST(y4), PB_LIST(FRUGAL_U_ISNAN, 0, 0));
    io t = {.dims = {3, 3, 2, 2}, .in = {in, flags, d, f}, .out = {neg, clip, not, root, nan}, .out_bytes = {24, 24, 3, 16, 2}};
    CHECK(run_plan(b, &t) == FRUGAL_OK);
    CHECK(neg[0] == 5 && neg[1] == 0 && neg[2] == -7);
    CHECK(clip[0] == -2 && clip[1] == 0 && clip[2] == 7);
    CHECK(not[0] == 0 && not[1] == 1 && not[2] == 0);
    CHECK(root[0] == 2 && root[1] == 0);
    CHECK(nan[0] == 1 && nan[1] == 0);
}

/* float16, float8 and 4 bits through CAST, CONVERT and BIT_CAST; a uint64 and a bool reduction; shifts. */
static void test_small_types(void) {
    pb *b = pb_new();
    float in[4] = {1.0f, -448.0f, 1e6f, 0.3f};
    uint8_t f8[4], limited[4], i4[4], u4[4], flag[1], shifted[2], by[2] = {1, 9}, bits[2] = {0x81, 0xff}, tests[4];
    const int32_t x = pb_input(b, FR_F32, PB_LIST(4)), s = pb_input(b, FR_U8, PB_LIST(2)), d = pb_input(b, FR_U8, PB_LIST(2));
    const int32_t y0 = pb_output(b, FR_F8E4M3FN, PB_LIST(4)), y1 = pb_output(b, FR_F8E4M3FN, PB_LIST(4)),
                  y2 = pb_output(b, FR_I4, PB_LIST(4)), y3 = pb_output(b, FR_U4, PB_LIST(4)),
                  y4 = pb_output(b, FR_BOOL, PB_LIST(1)), y5 = pb_output(b, FR_U8, PB_LIST(2)),
                  y6 = pb_output(b, FR_BOOL, PB_LIST(4));
    pb_step(b, FRUGAL_OP_CAST, PB_LIST(x), PB_LIST(y0), PB_NONE);
    pb_step(b, FRUGAL_OP_CONVERT, PB_LIST(x), PB_LIST(y1), PB_LIST(0, 0));
    pb_step(b, FRUGAL_OP_CAST, PB_LIST(x), PB_LIST(y2), PB_NONE);
    pb_step(b, FRUGAL_OP_BIT_CAST, PB_LIST(y2), PB_LIST(y3), PB_NONE);
    pb_step(b, FRUGAL_OP_UNARY, PB_LIST(x), PB_LIST(y6), PB_LIST(FRUGAL_U_ISINF, pb_float(1), pb_float(1)));
    pb_step(b, FRUGAL_OP_REDUCE, PB_LIST(y6), PB_LIST(y4), PB_LIST(FRUGAL_R_MAX, 1));
    pb_step(b, FRUGAL_OP_BINARY, PB_LIST(d, s), PB_LIST(y5), PB_LIST(FRUGAL_B_SHIFT_LEFT));
    io t = {.dims = {4, 2, 2},
            .in = {in, by, bits},
            .out = {f8, limited, i4, u4, flag, shifted, tests},
            .out_bytes = {4, 4, 4, 4, 1, 2, 4}};
    CHECK(run_plan(b, &t) == FRUGAL_OK);
    CHECK(f8[0] == 0x38 && f8[1] == 0xfe && f8[2] == 0x7e && f8[3] == 0x2a);
    CHECK(limited[1] == 0xfe && limited[2] == 0x7f);
    CHECK(i4[0] == 1 && i4[1] == 0 && i4[2] == 0 && u4[0] == 1); /* modulo 16 */
    CHECK(tests[0] == 0 && flag[0] == 0 && shifted[0] == 2 && shifted[1] == 0);
}

/* LINEAR_INTEGER as its formula says, in int32 and in float32: every sign of codes, zero points, extremes, padding. */
static void linear_integer_case(int m, int k, int n, int dtype, int as_float) {
    pb *b = pb_new();
    const int p = (n + 15) / 16, quads = (k + 3) / 4;
    uint8_t *x = alloc((size_t)(m * k)), zero[1] = {(uint8_t)rnd()};
    int8_t *w = alloc((size_t)(p * quads * 64)), *rows = alloc((size_t)(n * k));
    int32_t *params = alloc((size_t)(p * 64) * 4), *out = alloc((size_t)(m * n) * 4);
    float scale[1] = {0.25f}, *bias = floats(n);
    memset(w, 0, (size_t)(p * quads * 64)), memset(params, 0, (size_t)(p * 64) * 4);
    for (int i = 0; i < m * k; i++)
        x[i] = i % 5 ? (uint8_t)rnd() : i % 2 ? 0x80 : 0x7f;
    for (int r = 0; r < n; r++) {
        int32_t *at = params + r / 16 * 64 + r % 16;
        const float by = 0.5f + (float)(r % 3);
        for (int i = 0; i < k; i++) {
            rows[r * k + i] = (int8_t)(i % 7 ? rnd() : 0x80);
            w[((r / 16 * quads + i / 4) * 16 + r % 16) * 4 + i % 4] = rows[r * k + i];
            at[0] += rows[r * k + i];
        }
        at[16] = r, at[48] = r % 4 - 1;
        memcpy(at + 32, &by, 4);
    }
    const int32_t tx = pb_input(b, dtype, PB_LIST(m, k)), tz = pb_input(b, dtype, PB_LIST(1)),
                  tw = pb_const(b, FR_I8, 0, PB_LIST(p, 1, quads, 16, 4), w, (uint64_t)(p * quads * 64)),
                  tp = pb_const(b, FR_I32, 0, PB_LIST(p, 4, 16), params, (uint64_t)(p * 64) * 4),
                  ts = as_float ? pb_input(b, FR_F32, PB_LIST(1)) : -1, tb = as_float ? pb_input(b, FR_F32, PB_LIST(n)) : -1,
                  ty = pb_output(b, as_float ? FR_F32 : FR_I32, PB_LIST(m, n));
    pb_step(b, FRUGAL_OP_LINEAR_INTEGER, PB_LIST(tx, tw, tp, tz, ts, tb), PB_LIST(ty), PB_NONE);
    io t = {.dims = {m, k, 1, 1, n}, .in = {x, zero, scale, bias}, .out = {out}, .out_bytes = {(size_t)(m * n) * 4}};
    CHECK(run_plan(b, &t) == FRUGAL_OK);
    int ok = 1;
    for (int i = 0; i < m * n; i++) {
        const int r = i % n, wz = params[r / 16 * 64 + r % 16 + 48];
        int32_t sum = r;
        for (int j = 0; j < k; j++) {
            const uint8_t code = x[i / n * k + j];
            const int32_t v = dtype == FR_I8 ? (int8_t)code - (int8_t)zero[0] : code - zero[0];
            sum += v * (rows[r * k + j] - wz);
        }
        const float want = (float)sum * (0.25f * (0.5f + (float)(r % 3))) + bias[r];
        ok = ok && (as_float ? memcmp(&want, out + i, 4) == 0 : out[i] == sum);
    }
    CHECK(ok);
    free(x), free(w), free(rows), free(params), free(out), free(bias);
}

static void test_linear_integer(void) {
    static const int sizes[][3] = {{1, 1, 1}, {2, 5, 17}, {7, 36, 16}, {26, 50, 33}, {5, 131, 3}};
    for (int i = 0; i < 5; i++) {
        for (int form = 0; form < 4; form++)
            linear_integer_case(sizes[i][0], sizes[i][1], sizes[i][2], form & 1 ? FR_I8 : FR_U8, form >> 1);
    }
}

/* QUANTIZE of 4 and 16 bits, of floats of 8 bits, DEQUANTIZE back, and the scale that DYNAMIC_QUANTIZE finds. */
static void test_quantize_types(void) {
    pb *b = pb_new();
    float in[4] = {-1.0f, 0.26f, 100.0f, 2.0f}, scales[1] = {0.5f}, back[4], found[1];
    int16_t wide[4];
    uint8_t small[4], f8[4], codes[4], zero[1];
    const int32_t x = pb_input(b, FR_F32, PB_LIST(4)), s = pb_const(b, FR_F32, 0, PB_LIST(1), scales, 4);
    const int32_t y0 = pb_output(b, FR_I16, PB_LIST(4)), y1 = pb_output(b, FR_I4, PB_LIST(4)),
                  y2 = pb_output(b, FR_F8E4M3FN, PB_LIST(4)), y3 = pb_output(b, FR_F32, PB_LIST(4)),
                  y4 = pb_output(b, FR_U8, PB_LIST(4)), y5 = pb_output(b, FR_F32, PB_LIST(1)),
                  y6 = pb_output(b, FR_U8, PB_LIST(1));
    pb_step(b, FRUGAL_OP_QUANTIZE, PB_LIST(x, s), PB_LIST(y0), PB_LIST(0, 0));
    pb_step(b, FRUGAL_OP_QUANTIZE, PB_LIST(x, s), PB_LIST(y1), PB_LIST(0, 0));
    pb_step(b, FRUGAL_OP_QUANTIZE_FLOAT, PB_LIST(x, s), PB_LIST(y2), PB_LIST(0, 0, 1));
    pb_step(b, FRUGAL_OP_DEQUANTIZE, PB_LIST(y1, s), PB_LIST(y3), PB_LIST(0, 0));
    pb_step(b, FRUGAL_OP_DYNAMIC_QUANTIZE, PB_LIST(x), PB_LIST(y4, y5, y6), PB_NONE);
    io t = {.dims = {4}, .in = {in}, .out = {wide, small, f8, back, codes, found, zero}, .out_bytes = {8, 4, 4, 16, 4, 4, 1}};
    CHECK(run_plan(b, &t) == FRUGAL_OK);
    CHECK(wide[0] == -2 && wide[1] == 1 && wide[2] == 200 && wide[3] == 4);
    CHECK((small[0] & 15) == 14 && small[1] == 1 && small[2] == 7 && small[3] == 4);
    CHECK(f8[0] == 0xc0 && f8[3] == 0x48 && back[0] == -1.0f && back[2] == 3.5f);
    CHECK(found[0] == 101.0f / 255.0f && zero[0] == 3 && codes[2] == 255 && codes[0] == 0);
}

static double naive_binary(int kind, double a, double b) {
    switch (kind) {
    case FRUGAL_B_ADD:
        return a + b;
    case FRUGAL_B_SUB:
        return a - b;
    case FRUGAL_B_MUL:
        return a * b;
    case FRUGAL_B_DIV:
        return a / b;
    case FRUGAL_B_MIN:
        return fmin(a, b);
    case FRUGAL_B_MAX:
        return fmax(a, b);
    case FRUGAL_B_POW:
        return pow(a, b);
    case FRUGAL_B_FMOD:
        return fmod(a, b);
    case FRUGAL_B_EQUAL:
        return a == b;
    case FRUGAL_B_LESS:
        return a < b;
    case FRUGAL_B_LESS_EQUAL:
        return a <= b;
    case FRUGAL_B_GREATER:
        return a > b;
    default:
        return a >= b;
    }
}

/* The element of an operand that broadcasts to element i of shape dims. */
static int64_t broadcast_index(int64_t i, int rank, const int64_t *dims, int x_rank, const int64_t *x_dims) {
    int64_t at = 0, stride = 1;
    for (int a = rank - 1, x = x_rank - 1; a >= 0; a--, x--) {
        const int64_t index = i % dims[a];
        i /= dims[a];
        if (x >= 0 && x_dims[x] != 1)
            at += index * stride;
        if (x >= 0)
            stride *= x_dims[x];
    }
    return at;
}

typedef struct shapes {
    int ra, rb, ry;
    int64_t a[4], b[4], y[4];
} shapes;
static const shapes broadcasts[] = {
    {1, 1, 1, {7}, {7}, {7}},
    {2, 1, 2, {3, 5}, {5}, {3, 5}},
    {2, 2, 2, {3, 1}, {1, 5}, {3, 5}},
    {0, 2, 2, {0}, {2, 3}, {2, 3}},
    {3, 2, 3, {2, 3, 4}, {3, 1}, {2, 3, 4}},
    {4, 3, 4, {2, 1, 3, 1}, {4, 1, 5}, {2, 4, 3, 5}},
    {2, 2, 2, {0, 3}, {1, 3}, {0, 3}},
    {2, 2, 2, {130, 140}, {1, 140}, {130, 140}},
};

static int64_t product(int rank, const int64_t *dims) {
    int64_t n = 1;
    for (int i = 0; i < rank; i++)
        n *= dims[i];
    return n;
}

static void binary_case(const shapes *s, int kind) {
    const int64_t na = product(s->ra, s->a), nb = product(s->rb, s->b), ny = product(s->ry, s->y);
    const int compare = kind >= FRUGAL_B_EQUAL;
    float *a = floats(na), *b = floats(nb), *y = alloc((size_t)ny * 4);
    for (int64_t i = 0; i < na; i++)
        a[i] = kind == FRUGAL_B_POW ? fabsf(a[i]) * 3 : rintf(a[i] * 8);
    for (int64_t i = 0; i < nb; i++)
        b[i] = kind == FRUGAL_B_POW ? b[i] * 6 : rintf(b[i] * 8) + 0.5f * (float)(kind == FRUGAL_B_DIV || kind == FRUGAL_B_FMOD);
    pb *p = pb_new();
    const int32_t ta = pb_input(p, FR_F32, s->ra, s->a), tb = pb_input(p, FR_F32, s->rb, s->b),
                  ty = pb_output(p, compare ? FR_BOOL : FR_F32, s->ry, s->y);
    pb_step(p, FRUGAL_OP_BINARY, PB_LIST(ta, tb), PB_LIST(ty), PB_LIST(kind));
    io t = {.in = {a, b}, .out = {y}, .out_bytes = {(size_t)ny * (compare ? 1 : 4)}};
    memcpy(t.dims, s->a, 8 * (size_t)s->ra);
    memcpy(t.dims + s->ra, s->b, 8 * (size_t)s->rb);
    CHECK(run_plan(p, &t) == FRUGAL_OK);
    int ok = 1;
    for (int64_t i = 0; i < ny; i++) {
        const double want = naive_binary(kind, (double)a[broadcast_index(i, s->ry, s->y, s->ra, s->a)],
                                         (double)b[broadcast_index(i, s->ry, s->y, s->rb, s->b)]);
        ok = ok && close_to(compare ? (float)((uint8_t *)y)[i] : y[i], want, 2e-7);
    }
    if (!ok)
        printf("binary kind %d\n", kind);
    CHECK(ok);
    free(a), free(b), free(y);
}

static void test_binary(void) {
    for (size_t i = 0; i < sizeof broadcasts / sizeof *broadcasts; i++) {
        for (int kind = 0; kind <= FRUGAL_B_GREATER_EQUAL; kind += i == 0 || i == 4 ? 1 : 5) {
            if (kind != FRUGAL_B_MOD)
                binary_case(&broadcasts[i], kind);
        }
    }
}

static void test_binary_int(void) {
    const int32_t a[8] = {7, -7, 7, -7, INT32_MIN, 5, INT32_MAX, 2}, b[8] = {3, 3, -3, -3, -1, 0, 1, 10};
    const int32_t want[6][8] = {{10, -4, 4, -10, INT32_MAX, 5, INT32_MIN, 12},
                                {2, -2, -2, 2, INT32_MIN, 0, INT32_MAX, 0},
                                {1, 2, -2, -1, 0, 0, 0, 2},
                                {1, -1, 1, -1, 0, 0, 0, 2},
                                {343, -343, 0, 0, 0, 1, INT32_MAX, 1024},
                                {3, -7, -3, -7, INT32_MIN, 0, 1, 2}};
    const int kinds[6] = {FRUGAL_B_ADD, FRUGAL_B_DIV, FRUGAL_B_MOD, FRUGAL_B_FMOD, FRUGAL_B_POW, FRUGAL_B_MIN};
    for (int k = 0; k < 6; k++) {
        int32_t y[8];
        pb *p = pb_new();
        const int32_t ta = pb_input(p, FR_I32, PB_LIST(8)), tb = pb_input(p, FR_I32, PB_LIST(8)),
                      ty = pb_output(p, FR_I32, PB_LIST(8));
        pb_step(p, FRUGAL_OP_BINARY, PB_LIST(ta, tb), PB_LIST(ty), PB_LIST(kinds[k]));
        io t = {.dims = {8, 8}, .in = {a, b}, .out = {y}, .out_bytes = {32}};
        CHECK(run_plan(p, &t) == FRUGAL_OK);
        CHECK(memcmp(y, want[k], 32) == 0);
    }
}

static void test_binary_types(void) {
    const int types[] = {FR_U8, FR_I8, FR_U16, FR_I16, FR_U32, FR_U64, FR_I64, FR_F64};
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        const int64_t size = fr_dtype_bytes(types[k]);
        uint8_t a[16] = {0}, b[16] = {0}, y[16];
        double da[2] = {9, 4}, db[2] = {5, 4};
        for (int i = 0; i < 2; i++) {
            a[i * size] = (uint8_t)da[i], b[i * size] = (uint8_t)db[i];
            if (types[k] == FR_F64)
                memcpy(a + 8 * i, &da[i], 8), memcpy(b + 8 * i, &db[i], 8);
        }
        pb *p = pb_new();
        const int32_t ta = pb_input(p, types[k], PB_LIST(2)), tb = pb_input(p, types[k], PB_LIST(2)),
                      ty = pb_output(p, types[k], PB_LIST(2));
        pb_step(p, FRUGAL_OP_BINARY, PB_LIST(ta, tb), PB_LIST(ty), PB_LIST(FRUGAL_B_SUB));
        io t = {.dims = {2, 2}, .in = {a, b}, .out = {y}, .out_bytes = {2 * (size_t)size}};
        CHECK(run_plan(p, &t) == FRUGAL_OK);
        const double four = 4;
        CHECK(types[k] == FR_F64 ? memcmp(y, &four, 8) == 0 : y[0] == 4 && y[size] == 0);
    }
    uint8_t a[4] = {0, 0, 1, 2}, b[4] = {0, 1, 0, 1}, y[4];
    pb *p = pb_new();
    const int32_t ta = pb_input(p, FR_BOOL, PB_LIST(4)), tb = pb_input(p, FR_BOOL, PB_LIST(4)),
                  ty = pb_output(p, FR_BOOL, PB_LIST(4));
    pb_step(p, FRUGAL_OP_BINARY, PB_LIST(ta, tb), PB_LIST(ty), PB_LIST(FRUGAL_B_XOR));
    io t = {.dims = {4, 4}, .in = {a, b}, .out = {y}, .out_bytes = {4}};
    CHECK(run_plan(p, &t) == FRUGAL_OK);
    CHECK(y[0] == 0 && y[1] == 1 && y[2] == 1 && y[3] == 0);
}

static void test_where(void) {
    const int types[4] = {FR_I8, FR_F16, FR_F32, FR_I64};
    for (int k = 0; k < 4; k++) {
        const size_t size = (size_t)fr_dtype_bytes(types[k]);
        uint8_t cond[3] = {1, 0, 1}, a[64], b[8], y[6 * 8];
        for (int i = 0; i < 64; i++)
            a[i] = (uint8_t)rnd();
        for (int i = 0; i < 8; i++)
            b[i] = (uint8_t)rnd();
        pb *p = pb_new();
        const int32_t tc = pb_input(p, FR_BOOL, PB_LIST(3)), ta = pb_input(p, types[k], PB_LIST(2, 3)),
                      tb = pb_input(p, types[k], PB_NONE), ty = pb_output(p, types[k], PB_LIST(2, 3));
        pb_step(p, FRUGAL_OP_WHERE, PB_LIST(tc, ta, tb), PB_LIST(ty), PB_NONE);
        void *aa = alloc(64), *bb = alloc(8), *yy = alloc(64);
        memcpy(aa, a, 64), memcpy(bb, b, 8);
        io t = {.dims = {3, 2, 3}, .in = {cond, aa, bb}, .out = {yy}, .out_bytes = {6 * size}};
        CHECK(run_plan(p, &t) == FRUGAL_OK);
        memcpy(y, yy, 6 * size);
        for (size_t i = 0; i < 6; i++)
            CHECK(memcmp(y + i * size, cond[i % 3] ? a + i * size : b, size) == 0);
        free(aa), free(bb), free(yy);
    }
}

static void cast_case(int from, int to, const void *in, int64_t n, const void *want) {
    uint8_t *y = alloc((size_t)(n * fr_dtype_bytes(to)));
    pb *p = pb_new();
    const int32_t tx = pb_input(p, from, PB_LIST(n)), ty = pb_output(p, to, PB_LIST(n));
    pb_step(p, FRUGAL_OP_CAST, PB_LIST(tx), PB_LIST(ty), PB_NONE);
    io t = {.dims = {n}, .in = {in}, .out = {y}, .out_bytes = {(size_t)(n * fr_dtype_bytes(to))}};
    CHECK(run_plan(p, &t) == FRUGAL_OK);
    const int same = memcmp(y, want, t.out_bytes[0]) == 0;
    if (!same)
        printf("cast %d to %d\n", from, to);
    CHECK(same);
    free(y);
}

static void test_cast(void) {
    const float f[8] = {0.0f, -1.9f, 2.5f, 300.0f, -300.0f, NAN, INFINITY, -1e30f};
    const int8_t i8[8] = {0, -1, 2, 127, -128, 0, 127, -128};
    const uint8_t u8[8] = {0, 0, 2, 255, 0, 0, 255, 0}, yes[8] = {0, 1, 1, 1, 1, 1, 1, 1};
    const int64_t i64[8] = {0, -1, 2, 300, -300, 0, INT64_MAX, INT64_MIN};
    const int32_t i32[8] = {0, -1, 2, 300, -300, 0, INT32_MAX, INT32_MIN};
    const uint64_t u64[8] = {0, 0, 2, 300, 0, 0, UINT64_MAX, 0};
    cast_case(FR_F32, FR_I8, f, 8, i8);
    cast_case(FR_F32, FR_U8, f, 8, u8);
    cast_case(FR_F32, FR_BOOL, f, 8, yes);
    cast_case(FR_F32, FR_I64, f, 8, i64);
    cast_case(FR_F32, FR_I32, f, 8, i32);
    cast_case(FR_F32, FR_U64, f, 8, u64);
    const int64_t big[4] = {-1, 256 + 5, INT64_MIN, 16777217};
    const uint8_t wrapped[4] = {255, 5, 0, 1};
    const float rounded[4] = {-1, 261, -9223372036854775808.0f, 16777216};
    const uint64_t huge[2] = {UINT64_MAX, 3};
    const double huge_f[2] = {18446744073709551616.0, 3};
    cast_case(FR_I64, FR_U8, big, 4, wrapped);
    cast_case(FR_I64, FR_F32, big, 4, rounded);
    cast_case(FR_U64, FR_F64, huge, 2, huge_f);
    const float g[8] = {1.0f, -2.0f, 65519.0f, 65520.0f, 5.9604645e-8f, 2.9802322e-8f, 1.00048828125f, 1.0004885f};
    const uint16_t half[8] = {0x3c00, 0xc000, 0x7bff, 0x7c00, 1, 0, 0x3c00, 0x3c01};
    const uint16_t bf[8] = {0x3f80, 0xc000, 0x4780, 0x4780, 0x3380, 0x3300, 0x3f80, 0x3f80};
    cast_case(FR_F32, FR_F16, g, 8, half);
    cast_case(FR_F32, FR_BF16, g, 8, bf);
    const uint16_t h[6] = {0x3c00, 0x0001, 0x83ff, 0x7c00, 0xfbff, 0x8000};
    const float hf[6] = {1, 0x1p-24f, -0x1.ff8p-15f, INFINITY, -65504, -0.0f};
    cast_case(FR_F16, FR_F32, h, 6, hf);
    const uint16_t b16[2] = {0x3f80, 0xff80};
    const float b16f[2] = {1, -INFINITY};
    cast_case(FR_BF16, FR_F32, b16, 2, b16f);
    const int8_t small[3] = {-128, 0, 127};
    const int16_t wide[3] = {-128, 0, 127};
    cast_case(FR_I8, FR_I16, small, 3, wide);
    const uint16_t halves[3] = {0xd800, 0, 0x57f0};
    cast_case(FR_I8, FR_F16, small, 3, halves);
}

/* ---- data ---- */

/* x [2, 3, 4] of a type whose elements count 0, 1, 2.. in their first byte. */
static uint8_t *counting(int64_t n, int64_t size) {
    uint8_t *x = alloc((size_t)(n * size));
    memset(x, 0, (size_t)(n * size));
    for (int64_t i = 0; i < n; i++)
        x[i * size] = (uint8_t)i;
    return x;
}

static void test_transpose(void) {
    const int types[4] = {FR_BOOL, FR_BF16, FR_F32, FR_F64};
    const int64_t perms[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}, d[3] = {2, 3, 4};
    for (int k = 0; k < 24; k++) {
        const int64_t *perm = perms[k % 6], out[3] = {d[perm[0]], d[perm[1]], d[perm[2]]}, stride[3] = {12, 4, 1},
                      size = fr_dtype_bytes(types[k / 6]);
        uint8_t *x = counting(24, size), *y = alloc((size_t)(24 * size));
        pb *p = pb_new();
        const int32_t tx = pb_input(p, types[k / 6], 3, d), ty = pb_output(p, types[k / 6], 3, out);
        pb_step(p, FRUGAL_OP_TRANSPOSE, PB_LIST(tx), PB_LIST(ty), 3, perm);
        io t = {.dims = {2, 3, 4}, .in = {x}, .out = {y}, .out_bytes = {(size_t)(24 * size)}};
        CHECK(run_plan(p, &t) == FRUGAL_OK);
        int ok = 1;
        for (int64_t i = 0; i < 24; i++) {
            const int64_t i2 = i % out[2], i1 = i / out[2] % out[1], i0 = i / out[2] / out[1];
            ok = ok && y[i * size] == i0 * stride[perm[0]] + i1 * stride[perm[1]] + i2 * stride[perm[2]];
        }
        CHECK(ok);
        free(x), free(y);
    }
}

static void test_big_transpose(void) {
    const int64_t m = 150, n = 170;
    float *x = floats(m * n), *y = alloc((size_t)(m * n) * 4);
    pb *p = pb_new();
    const int32_t tx = pb_input(p, FR_F32, PB_LIST(m, n)), ty = pb_output(p, FR_F32, PB_LIST(n, m));
    pb_step(p, FRUGAL_OP_TRANSPOSE, PB_LIST(tx), PB_LIST(ty), PB_LIST(1, 0));
    io t = {.dims = {m, n}, .in = {x}, .out = {y}, .out_bytes = {(size_t)(m * n) * 4}};
    CHECK(run_plan(p, &t) == FRUGAL_OK);
    int ok = 1;
    for (int64_t i = 0; i < m * n; i++)
        ok = ok && y[i] == x[i % m * n + i / m];
    CHECK(ok);
    free(x), free(y);
}

static void test_expand_slice(void) {
    int32_t x[6] = {0, 1, 2, 3, 4, 5}, wide[12], cut[4], back[6], row[2];
    pb *p = pb_new();
    const int64_t s = pb_symbol(p, 0, 1); /* 3 */
    const int64_t start = pb_dim(p, FRUGAL_DIM_SUB, s, 1);
    const int32_t tx = pb_input(p, FR_I32, PB_LIST(2, s)), flat = pb_alias(p, tx, PB_LIST(2, 1, s));
    const int32_t y0 = pb_output(p, FR_I32, PB_LIST(2, 2, s)), y1 = pb_output(p, FR_I32, PB_LIST(2, 2)),
                  y2 = pb_output(p, FR_I32, PB_LIST(2, s)), y3 = pb_output(p, FR_I32, PB_LIST(1, 2));
    pb_step(p, FRUGAL_OP_EXPAND, PB_LIST(flat), PB_LIST(y0), PB_NONE);
    pb_step(p, FRUGAL_OP_SLICE, PB_LIST(tx), PB_LIST(y1), PB_LIST(0, 1, 0, 2));              /* x[:, ::2] */
    pb_step(p, FRUGAL_OP_SLICE, PB_LIST(tx), PB_LIST(y2), PB_LIST(1, -1, start, -1));        /* x[::-1, ::-1] */
    pb_step(p, FRUGAL_OP_SLICE, PB_LIST(tx), PB_LIST(y3), PB_LIST(1, FRUGAL_MAX_DIM, 1, 1)); /* x[1:, 1:] */
    io t = {.dims = {2, 3}, .in = {x}, .out = {wide, cut, back, row}, .out_bytes = {48, 16, 24, 8}};
    CHECK(run_plan(p, &t) == FRUGAL_OK);
    for (int i = 0; i < 12; i++)
        CHECK(wide[i] == i / 6 * 3 + i % 3);
    CHECK(cut[0] == 0 && cut[1] == 2 && cut[2] == 3 && cut[3] == 5);
    for (int i = 0; i < 6; i++)
        CHECK(back[i] == 5 - i);
    CHECK(row[0] == 4 && row[1] == 5);
}

static void test_concat(void) {
    int16_t a[4] = {0, 1, 2, 3}, c[2] = {7, 8}, y[6];
    pb *p = pb_new();
    const int32_t ta = pb_input(p, FR_I16, PB_LIST(2, 2)), tb = pb_input(p, FR_I16, PB_LIST(2, 0)),
                  tc = pb_input(p, FR_I16, PB_LIST(2, 1)), ty = pb_output(p, FR_I16, PB_LIST(2, 3));
    pb_step(p, FRUGAL_OP_CONCAT, PB_LIST(ta, tb, tc), PB_LIST(ty), PB_LIST(1));
    io t = {.dims = {2, 2, 2, 0, 2, 1}, .in = {a, NULL, c}, .out = {y}, .out_bytes = {12}};
    CHECK(run_plan(p, &t) == FRUGAL_OK);
    const int16_t want[6] = {0, 1, 7, 2, 3, 8};
    CHECK(memcmp(y, want, 12) == 0);
}

static void test_gather(void) {
    const int64_t table_dims[3] = {2, 5, 3};
    for (int axis = 0; axis < 3; axis++) {
        uint8_t *x = counting(30, 4);
        const int64_t n = table_dims[axis], ids64[4] = {0, -1, n - 1, -n};
        const int32_t ids32[4] = {0, -1, (int32_t)n - 1, (int32_t)-n};
        int64_t out[4] = {0}, inner = 1, outer = 1;
        int r = 0;
        for (int a = 0; a < 3; a++) {
            if (a == axis)
                out[r++] = 2, out[r++] = 2;
            else
                out[r++] = table_dims[a];
            if (a < axis)
                outer *= table_dims[a];
            if (a > axis)
                inner *= table_dims[a];
        }
        int32_t y[60];
        for (int wide = 0; wide < 2; wide++) {
            pb *p = pb_new();
            const int32_t tx = pb_input(p, FR_I32, 3, table_dims), ti = pb_input(p, wide ? FR_I64 : FR_I32, PB_LIST(2, 2)),
                          ty = pb_output(p, FR_I32, 4, out);
            pb_step(p, FRUGAL_OP_GATHER, PB_LIST(tx, ti), PB_LIST(ty), PB_LIST(axis));
            io t = {.dims = {2, 5, 3, 2, 2},
                    .in = {x, wide ? (const void *)ids64 : ids32},
                    .out = {y},
                    .out_bytes = {(size_t)(outer * 4 * inner * 4)}};
            CHECK(run_plan(p, &t) == FRUGAL_OK);
            int ok = 1;
            for (int64_t i = 0; i < outer * 4 * inner; i++) {
                int64_t id = ids64[i / inner % 4];
                if (id < 0)
                    id += n;
                ok = ok && y[i] == (i / inner / 4 * n + id) * inner + i % inner;
            }
            CHECK(ok);
        }
        free(x);
    }
}

static void test_gather_dequantize(void) {
    int8_t table[3 * 8];
    float scale[3 * 2], y[2 * 8];
    uint16_t half[3 * 2];
    for (int i = 0; i < 24; i++)
        table[i] = (int8_t)(rnd() % 255 - 127);
    for (int i = 0; i < 6; i++)
        scale[i] = 0.25f * (float)(i + 1), half[i] = (uint16_t)(0x3c00 + 64 * i);
    const int32_t ids[2] = {2, -3};
    for (int k = 0; k < 2; k++) {
        pb *p = pb_new();
        const int32_t tt = pb_const(p, FR_I8, 0, PB_LIST(3, 8), table, 24);
        const int32_t ts = pb_const(p, k ? FR_F16 : FR_F32, 0, PB_LIST(3, 2), k ? (void *)half : scale, k ? 12 : 24);
        const int32_t ti = pb_input(p, FR_I32, PB_LIST(2)), ty = pb_output(p, FR_F32, PB_LIST(2, 8));
        pb_step(p, FRUGAL_OP_GATHER_DEQUANTIZE, PB_LIST(tt, ts, ti), PB_LIST(ty), PB_NONE);
        io t = {.dims = {2}, .in = {ids}, .out = {y}, .out_bytes = {64}};
        CHECK(run_plan(p, &t) == FRUGAL_OK);
        for (int i = 0; i < 16; i++) {
            const int row = i < 8 ? 2 : 0, at = row * 2 + i % 8 / 4;
            CHECK(y[i] == (float)table[row * 8 + i % 8] * (k ? fr_half_to_float(half[at]) : scale[at]));
        }
    }
}

static void test_range_dims_fill(void) {
    int64_t range[4], dims[3], one[1];
    float fill[6], value[1] = {2.5f}, in[4] = {0};
    pb *p = pb_new();
    const int64_t s = pb_symbol(p, 0, 0), twice = pb_dim(p, FRUGAL_DIM_MUL, s, 2);
    (void)pb_input(p, FR_F32, PB_LIST(s));
    const int32_t v = pb_input(p, FR_F32, PB_LIST(1));
    const int32_t y0 = pb_output(p, FR_I64, PB_LIST(s)), y1 = pb_output(p, FR_I64, PB_LIST(3)),
                  y2 = pb_output(p, FR_I64, PB_NONE), y3 = pb_output(p, FR_F32, PB_LIST(2, 3));
    pb_step(p, FRUGAL_OP_RANGE, PB_NONE, PB_LIST(y0), PB_LIST(twice, -3));
    pb_step(p, FRUGAL_OP_DIMS, PB_NONE, PB_LIST(y1), PB_LIST(s, 7, twice));
    pb_step(p, FRUGAL_OP_DIMS, PB_NONE, PB_LIST(y2), PB_LIST(twice));
    pb_step(p, FRUGAL_OP_FILL, PB_LIST(v), PB_LIST(y3), PB_NONE);
    io t = {.dims = {4, 1}, .in = {in, value}, .out = {range, dims, one, fill}, .out_bytes = {32, 24, 8, 24}};
    CHECK(run_plan(p, &t) == FRUGAL_OK);
    for (int i = 0; i < 4; i++)
        CHECK(range[i] == 8 - 3 * i);
    CHECK(dims[0] == 4 && dims[1] == 7 && dims[2] == 8 && one[0] == 8);
    for (int i = 0; i < 6; i++)
        CHECK(fill[i] == 2.5f);
}

static void test_cumsum(void) {
    const int64_t x[6] = {1, 2, 3, 4, 5, 6};
    const float xf[6] = {1, 2, 3, 4, 5, 6};
    for (int k = 0; k < 8; k++) {
        const int axis = k & 1, exclusive = k >> 1 & 1, reverse = k >> 2;
        int64_t y[6];
        float yf[6];
        pb *p = pb_new();
        const int32_t tx = pb_input(p, FR_I64, PB_LIST(2, 3)), tf = pb_input(p, FR_F32, PB_LIST(2, 3));
        const int32_t ty = pb_output(p, FR_I64, PB_LIST(2, 3)), tg = pb_output(p, FR_F32, PB_LIST(2, 3));
        pb_step(p, FRUGAL_OP_CUMSUM, PB_LIST(tx), PB_LIST(ty), PB_LIST(axis, exclusive, reverse));
        pb_step(p, FRUGAL_OP_CUMSUM, PB_LIST(tf), PB_LIST(tg), PB_LIST(axis, exclusive, reverse));
        io t = {.dims = {2, 3, 2, 3}, .in = {x, xf}, .out = {y, yf}, .out_bytes = {48, 24}};
        CHECK(run_plan(p, &t) == FRUGAL_OK);
        for (int r = 0; r < 2; r++) {
            for (int c = 0; c < 3; c++) {
                int64_t want = 0;
                const int at = axis ? c : r, n = axis ? 3 : 2;
                for (int i = 0; i < n; i++) {
                    const int in = reverse ? (i > at || (i == at && !exclusive)) : (i < at || (i == at && !exclusive));
                    if (in)
                        want += axis ? x[r * 3 + i] : x[i * 3 + c];
                }
                CHECK(y[r * 3 + c] == want && yf[r * 3 + c] == (float)want);
            }
        }
    }
}

static void test_arg(void) {
    const float x[8] = {3, 9, 9, -1, 5, 5, 0, 0};
    const int64_t want[4][2] = {{1, 0}, {2, 1}, {3, 2}, {3, 3}};
    for (int k = 0; k < 4; k++) {
        int64_t y[2], z[4];
        pb *p = pb_new();
        const int32_t tx = pb_input(p, FR_F32, PB_LIST(2, 4)), ty = pb_output(p, FR_I64, PB_LIST(2, 1)),
                      tz = pb_output(p, FR_I64, PB_LIST(1, 4));
        pb_step(p, FRUGAL_OP_ARG, PB_LIST(tx), PB_LIST(ty), PB_LIST(1, k / 2, k % 2));
        pb_step(p, FRUGAL_OP_ARG, PB_LIST(tx), PB_LIST(tz), PB_LIST(0, 0, 0));
        io t = {.dims = {2, 4}, .in = {x}, .out = {y, z}, .out_bytes = {16, 32}};
        CHECK(run_plan(p, &t) == FRUGAL_OK);
        CHECK(y[0] == want[k][0] && y[1] == want[k][1]);
        CHECK(z[0] == 1 && z[1] == 0 && z[2] == 0 && z[3] == 1);
    }
}

/* ---- reductions, softmax, norms ---- */

static double reduce_step(int kind, double a, double v) {
    switch (kind) {
    case FRUGAL_R_MAX:
        return fmax(a, v);
    case FRUGAL_R_MIN:
        return fmin(a, v);
    case FRUGAL_R_PROD:
        return a * v;
    case FRUGAL_R_L1:
        return a + fabs(v);
    case FRUGAL_R_SUM_SQUARE:
    case FRUGAL_R_L2:
        return a + v * v;
    default:
        return a + v;
    }
}

static void reduce_case(int kind, int mask, const int64_t *d, int dtype) {
    const int64_t n = d[0] * d[1] * d[2], out[3] = {mask & 1 ? 1 : d[0], mask & 2 ? 1 : d[1], mask & 4 ? 1 : d[2]},
                  m = out[0] * out[1] * out[2];
    const int64_t size = fr_dtype_bytes(dtype);
    float *x = floats(n);
    uint8_t *raw = alloc((size_t)(n * size)), *y = alloc((size_t)(m * size));
    for (int64_t i = 0; i < n; i++) {
        if (dtype != FR_F32)
            x[i] = rintf(x[i] * 3);
        if (dtype == FR_F32)
            ((float *)(void *)raw)[i] = x[i];
        else if (dtype == FR_F64)
            ((double *)(void *)raw)[i] = (double)x[i];
        else if (dtype == FR_I32)
            ((int32_t *)(void *)raw)[i] = (int32_t)x[i];
        else
            ((int64_t *)(void *)raw)[i] = (int64_t)x[i];
    }
    pb *p = pb_new();
    const int32_t tx = pb_input(p, dtype, 3, d), ty = pb_output(p, dtype, 3, out);
    pb_step(p, FRUGAL_OP_REDUCE, PB_LIST(tx), PB_LIST(ty), PB_LIST(kind, mask));
    io t = {.in = {raw}, .out = {y}, .out_bytes = {(size_t)(m * size)}};
    memcpy(t.dims, d, 24);
    CHECK(run_plan(p, &t) == FRUGAL_OK);
    int ok = 1;
    for (int64_t j = 0; j < m; j++) {
        double want = kind == FRUGAL_R_MAX ? -INFINITY : kind == FRUGAL_R_MIN ? INFINITY : kind == FRUGAL_R_PROD;
        for (int64_t i = 0; i < n; i++) {
            const int64_t i2 = i % d[2], i1 = i / d[2] % d[1], i0 = i / d[2] / d[1];
            const int64_t at = ((mask & 1 ? 0 : i0) * out[1] + (mask & 2 ? 0 : i1)) * out[2] + (mask & 4 ? 0 : i2);
            if (at == j)
                want = reduce_step(kind, want, (double)x[i]);
        }
        if (kind == FRUGAL_R_MEAN)
            want /= (double)(n / m);
        if (kind == FRUGAL_R_L2)
            want = sqrt(want);
        const double got = dtype == FR_F32   ? (double)((float *)(void *)y)[j]
                           : dtype == FR_F64 ? ((double *)(void *)y)[j]
                           : dtype == FR_I32 ? (double)((int32_t *)(void *)y)[j]
                                             : (double)((int64_t *)(void *)y)[j];
        if (dtype == FR_I32 || dtype == FR_I64)
            want = trunc(want);
        ok = ok && fabs(got - want) <= 1e-5 * (1 + fabs(want));
    }
    if (!ok)
        printf("reduce kind %d mask %d dtype %d\n", kind, mask, dtype);
    CHECK(ok);
    free(x), free(raw), free(y);
}

static void test_reduce(void) {
    const int64_t small[3] = {3, 4, 5}, big[3] = {2, 37, 70};
    for (int kind = 0; kind < FRUGAL_REDUCE_COUNT; kind++) {
        for (int mask = 0; mask < 8; mask++)
            reduce_case(kind, mask, small, FR_F32);
        reduce_case(kind, 2, big, FR_F32);
        reduce_case(kind, 4, big, FR_F32);
        reduce_case(kind, 5, small, FR_F64);
        reduce_case(kind, 3, small, kind % 2 ? FR_I32 : FR_I64);
        reduce_case(kind, 4, small, kind % 2 ? FR_I64 : FR_I32);
    }
}

static void test_softmax(void) {
    const int64_t d[3] = {3, 21, 5};
    const int64_t n = d[0] * d[1] * d[2], stride[3] = {105, 5, 1};
    for (int k = 0; k < 6; k++) {
        const int axis = k % 3, logs = k / 3;
        float *x = floats(n), *y = alloc((size_t)n * 4);
        for (int64_t i = 0; i < n; i++)
            x[i] *= 5;
        pb *p = pb_new();
        const int32_t tx = pb_input(p, FR_F32, 3, d), ty = pb_output(p, FR_F32, 3, d);
        pb_step(p, FRUGAL_OP_SOFTMAX, PB_LIST(tx), PB_LIST(ty), PB_LIST(axis, logs));
        io t = {.in = {x}, .out = {y}, .out_bytes = {(size_t)n * 4}};
        memcpy(t.dims, d, 24);
        CHECK(run_plan(p, &t) == FRUGAL_OK);
        int ok = 1;
        for (int64_t i = 0; i < n; i++) {
            const int64_t first = i - i / stride[axis] % d[axis] * stride[axis];
            double sum = 0;
            for (int64_t j = 0; j < d[axis]; j++)
                sum += exp((double)x[first + j * stride[axis]]);
            ok = ok && close_to(y[i], logs ? (double)x[i] - log(sum) : exp((double)x[i]) / sum, 2e-6);
        }
        CHECK(ok);
        free(x), free(y);
    }
}

static void norm_case(int rms, int residual, int beta, int64_t m, int64_t n) {
    float *x = floats(m * n), *r = floats(m * n), *gamma = floats(n), *bt = floats(n), *y = alloc((size_t)(m * n) * 4);
    pb *p = pb_new();
    const int32_t tx = pb_input(p, FR_F32, PB_LIST(m, n)), tr = pb_input(p, FR_F32, PB_LIST(m, n)),
                  tg = pb_const(p, FR_F32, 0, PB_LIST(n), gamma, (uint64_t)n * 4),
                  tb = pb_const(p, FR_F32, 0, PB_LIST(n), bt, (uint64_t)n * 4), ty = pb_output(p, FR_F32, PB_LIST(m, n));
    const int64_t in[4] = {tx, residual ? tr : -1, tg, beta ? tb : -1};
    pb_step(p, rms ? FRUGAL_OP_RMS_NORM : FRUGAL_OP_LAYER_NORM, rms ? 3 : 4, in, PB_LIST(ty), PB_LIST(pb_float(1e-5)));
    io t = {.dims = {m, n, m, n}, .in = {x, r}, .out = {y}, .out_bytes = {(size_t)(m * n) * 4}};
    CHECK(run_plan(p, &t) == FRUGAL_OK);
    int ok = 1;
    for (int64_t i = 0; i < m; i++) {
        double mean = 0, var = 0;
        for (int64_t j = 0; j < n; j++)
            mean += (double)x[i * n + j] + (residual ? (double)r[i * n + j] : 0);
        mean = rms ? 0 : mean / (double)n;
        for (int64_t j = 0; j < n; j++)
            var += pow((double)x[i * n + j] + (residual ? (double)r[i * n + j] : 0) - mean, 2) / (double)n;
        for (int64_t j = 0; j < n; j++) {
            const double v = (double)x[i * n + j] + (residual ? (double)r[i * n + j] : 0) - mean;
            ok = ok && close_to(y[i * n + j], v / sqrt(var + 1e-5) * (double)gamma[j] + (beta && !rms ? (double)bt[j] : 0), 1e-5);
        }
    }
    CHECK(ok);
    free(x), free(r), free(gamma), free(bt), free(y);
}

static void test_norm(void) {
    for (int k = 0; k < 8; k++)
        norm_case(k & 1, k >> 1 & 1, k >> 2, 3, 5 + 37 * k);
    norm_case(0, 1, 1, 100, 384);
}

/* ---- linear ---- */

static uint16_t half_of_power(int e) { return (uint16_t)((15 + e) << 10); } /* 2^e */

typedef struct weights {
    int64_t n, k, np, kp;
    uint8_t *packed;
    uint64_t bytes;
    float *scale; /* [np], W8 */
    double *real; /* [n][k] */
} weights;

static int weight_dtype(int layout) {
    static const int dtypes[] = {[FRUGAL_F32_P16] = FR_F32,  [FRUGAL_W8_P16] = FR_I8,  [FRUGAL_W4_P16] = FR_U8,
                                 [FRUGAL_W4O_P16] = FR_U8,   [FRUGAL_W8B_P16] = FR_U8, [FRUGAL_F16_P16] = FR_F16,
                                 [FRUGAL_BF16_P16] = FR_BF16};
    return dtypes[layout];
}

static int64_t block_bytes(int layout) { return layout == FRUGAL_W4_P16 ? 304 : layout == FRUGAL_W4O_P16 ? 320 : 544; }

static weights make_weights(int layout, int64_t n, int64_t k) {
    weights w = {.n = n, .k = k, .np = (n + 15) / 16 * 16, .kp = (k + 31) / 32 * 32};
    const int half = layout == FRUGAL_F16_P16 || layout == FRUGAL_BF16_P16;
    w.bytes = (uint64_t)(layout == FRUGAL_F32_P16  ? 4 * w.np * k
                         : half                    ? 2 * w.np * k
                         : layout == FRUGAL_W8_P16 ? w.np * w.kp
                                                   : w.np / 16 * (w.kp / 32) * block_bytes(layout));
    w.packed = alloc(w.bytes);
    memset(w.packed, 0, w.bytes);
    w.scale = floats(w.np);
    w.real = calloc((size_t)(n * k), sizeof(double));
    for (int64_t p = 0; layout == FRUGAL_W4_P16 && p < w.np / 16 * (w.kp / 32); p++) {
        for (int r = 0; r < 16; r++) {
            const uint16_t s = half_of_power((int)(rnd() % 5) - 6);
            memcpy(w.packed + p * 304 + 256 + 2 * r, &s, 2);
            w.packed[p * 304 + 288 + r] = 8;
        }
        memset(w.packed + p * 304, 0x88, 256); /* padding: the code of the zero point */
    }
    for (int64_t p = 0; (layout == FRUGAL_W4O_P16 || layout == FRUGAL_W8B_P16) && p < w.np / 16 * (w.kp / 32); p++) {
        for (int r = 0; r < 32; r++) { /* scales, or scales and offsets */
            const uint16_t s = (uint16_t)(half_of_power((int)(rnd() % 5) - 6) | (r < 16 ? 0 : rnd() % 2 << 15));
            if (layout == FRUGAL_W4O_P16 || r < 16)
                memcpy(w.packed + p * block_bytes(layout) + (layout == FRUGAL_W4O_P16 ? 256 : 512) + 2 * r, &s, 2);
        }
    }
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < k; j++) {
            const int q = (int)(rnd() % 255) - 127, code = (int)(rnd() % 16);
            const int64_t p = i / 16, r = i % 16;
            double *real = &w.real[i * k + j];
            if (layout == FRUGAL_F32_P16) {
                const float f = uniform();
                memcpy(w.packed + 4 * ((p * k + j) * 16 + r), &f, 4);
                *real = (double)f;
            } else if (half) { /* nine bits of any size */
                const uint32_t u = (rnd() & 0x80ff0000u) | (120u + rnd() % 8) << 23;
                float f;
                memcpy(&f, &u, 4);
                const uint16_t h = layout == FRUGAL_BF16_P16 ? (uint16_t)(u >> 16) : fr_double_to_half((double)f);
                memcpy(w.packed + 2 * ((p * k + j) * 16 + r), &h, 2);
                *real = (double)f;
            } else if (layout == FRUGAL_W8_P16) {
                w.packed[((p * (w.kp / 4) + j / 4) * 16 + r) * 4 + j % 4] = (uint8_t)(int8_t)q;
                *real = q * (double)w.scale[i];
            } else if (layout == FRUGAL_W8B_P16) {
                uint8_t *block = w.packed + (p * (w.kp / 32) + j / 32) * 544;
                block[j % 32 / 4 * 64 + r * 4 + j % 4] = (uint8_t)(int8_t)q;
                uint16_t s;
                memcpy(&s, block + 512 + 2 * r, 2);
                *real = q * (double)fr_half_to_float(s);
            } else {
                uint8_t *block = w.packed + (p * (w.kp / 32) + j / 32) * block_bytes(layout),
                        *byte = block + j % 16 / 4 * 64 + 4 * r + j % 4;
                *byte = (uint8_t)(j % 32 < 16 ? (*byte & 0xf0) | code : (*byte & 0x0f) | code << 4);
                uint16_t s, o = 0;
                memcpy(&s, block + 256 + 2 * r, 2);
                if (layout == FRUGAL_W4O_P16)
                    memcpy(&o, block + 288 + 2 * r, 2);
                *real = (code - (layout == FRUGAL_W4_P16 ? 8 : 0)) * (double)fr_half_to_float(s) + (double)fr_half_to_float(o);
            }
        }
    }
    return w;
}

/* What the activations are after quantization. */
static double *quantized(const float *x, int64_t m, int64_t k, int blocked, float fixed) {
    double *y = calloc((size_t)(m * k), sizeof(double));
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < k; j++) {
            const int64_t from = blocked ? j / 32 * 32 : 0, to = blocked ? (from + 32 < k ? from + 32 : k) : k;
            float max = 0;
            for (int64_t l = from; l < to; l++)
                max = fmaxf(max, fabsf(x[i * k + l]));
            const float s = fixed > 0 ? fixed : max * (1.0f / 127), inverse = fixed > 0 ? 1 / fixed : 127 / max;
            y[i * k + j] = fmin(127, fmax(-127, (double)rintf(x[i * k + j] * inverse))) * (double)s;
        }
    }
    return y;
}

static void linear_case(int layout, int act_layout, float fixed, int64_t m, int64_t n, int64_t k, int bias, int residual,
                        int act) {
    weights w = make_weights(layout, n, k);
    float *x = floats(m * k), *bs = floats(w.np), *r = floats(m * n), *y = alloc((size_t)(m * n) * 4);
    const int is_float = weight_dtype(layout) != FR_I8 && weight_dtype(layout) != FR_U8;
    double *xq = quantized(x, m, k, act_layout == FRUGAL_A8_BLOCK, fixed);
    pb *p = pb_new();
    const int64_t s = pb_symbol(p, 0, 0);
    const int32_t tx = pb_input(p, FR_F32, PB_LIST(s, 1, k)), tr = pb_input(p, FR_F32, PB_LIST(s, 1, n));
    const int32_t tw = pb_const(p, weight_dtype(layout), layout, PB_LIST(n, k), w.packed, w.bytes);
    const int32_t ts = pb_const(p, FR_F32, 0, PB_LIST(w.np), w.scale, (uint64_t)w.np * 4),
                  tb = pb_const(p, FR_F32, 0, PB_LIST(w.np), bs, (uint64_t)w.np * 4);
    const int32_t tf = pb_const(p, FR_F32, 0, PB_LIST(1), &fixed, 4);
    const int32_t ty = pb_output(p, FR_F32, PB_LIST(s, 1, n));
    int32_t from = tx;
    if (!is_float) {
        from = pb_temp(p, FR_I8, act_layout, PB_LIST(s, 1, k));
        pb_step(p, FRUGAL_OP_QUANTIZE_ACT, PB_LIST(tx, fixed > 0 ? tf : -1), PB_LIST(from), PB_NONE);
    }
    pb_step(p, FRUGAL_OP_LINEAR, PB_LIST(from, tw, layout == FRUGAL_W8_P16 ? ts : -1, bias ? tb : -1, residual ? tr : -1),
            PB_LIST(ty), PB_LIST(act));
    io t = {.dims = {m, 1, k, m, 1, n}, .in = {x, r}, .out = {y}, .out_bytes = {(size_t)(m * n) * 4}};
    CHECK(run_plan(p, &t) == FRUGAL_OK);
    int ok = 1;
    for (int64_t i = 0; i < m * n; i++) {
        double v = bias ? (double)bs[i % n] : 0;
        for (int64_t j = 0; j < k; j++)
            v += w.real[i % n * k + j] * (is_float ? (double)x[i / n * k + j] : xq[i / n * k + j]);
        v = naive_unary(act, v, 0, 0) + (residual ? (double)r[i] : 0);
        ok = ok && fabs((double)y[i] - v) <= 1e-5 * (10 + fabs(v)) * sqrt((double)k);
    }
    if (!ok)
        printf("linear layout %d act %d m %d n %d k %d\n", layout, act_layout, (int)m, (int)n, (int)k);
    CHECK(ok);
    free(w.packed), free(w.scale), free(w.real), free(x), free(bs), free(r), free(y), free(xq);
}

static void test_linear(void) {
    const int64_t sizes[][3] = {{1, 16, 32}, {1, 1, 1}, {3, 17, 33}, {5, 40, 64}, {33, 50, 96}, {70, 100, 130}, {2, 300, 70}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int64_t m = sizes[i][0], n = sizes[i][1], k = sizes[i][2];
        const int odd = (int)i % 2;
        linear_case(FRUGAL_F32_P16, 0, 0, m, n, k, odd, !odd, FRUGAL_U_COPY);
        linear_case(FRUGAL_F16_P16, 0, 0, m, n, k, !odd, odd, FRUGAL_U_RELU);
        linear_case(FRUGAL_BF16_P16, 0, 0, m, n, k, odd, !odd, FRUGAL_U_COPY);
        linear_case(FRUGAL_W8_P16, FRUGAL_A8_TOKEN, 0, m, n, k, 1, odd, FRUGAL_U_GELU);
        linear_case(FRUGAL_W8_P16, FRUGAL_A8_BLOCK, 0, m, n, k, !odd, 0, FRUGAL_U_COPY);
        linear_case(FRUGAL_W8_P16, FRUGAL_A8_TOKEN, 0.011f, m, n, k, 0, 0, FRUGAL_U_RELU);
        linear_case(FRUGAL_W4_P16, FRUGAL_A8_BLOCK, 0, m, n, k, 1, odd, FRUGAL_U_SILU);
        linear_case(FRUGAL_W4_P16, FRUGAL_A8_TOKEN, 0, m, n, k, odd, 1, FRUGAL_U_COPY);
        linear_case(FRUGAL_W4O_P16, FRUGAL_A8_BLOCK, 0, m, n, k, odd, 1, FRUGAL_U_COPY);
        linear_case(FRUGAL_W4O_P16, FRUGAL_A8_TOKEN, 0, m, n, k, 1, odd, FRUGAL_U_GELU);
        linear_case(FRUGAL_W8B_P16, FRUGAL_A8_BLOCK, 0, m, n, k, !odd, odd, FRUGAL_U_COPY);
        linear_case(FRUGAL_W8B_P16, FRUGAL_A8_TOKEN, 0, m, n, k, odd, 0, FRUGAL_U_RELU);
    }
}

/* Rows of packed weights, exact to the rounding of one addition; an id outside is refused. */
static void gather_packed_case(int layout, int64_t n, int64_t k) {
    weights w = make_weights(layout, n, k);
    enum { IDS = 5 };
    const int64_t ids[IDS] = {0, n - 1, -n, n / 2, -1};
    float *y = alloc((size_t)(IDS * k) * 4);
    for (int bad = 0; bad < 2; bad++) {
        int64_t used[IDS];
        memcpy(used, ids, sizeof ids);
        used[3] = bad ? n : used[3];
        pb *p = pb_new();
        const int32_t ti = pb_input(p, FR_I64, PB_LIST(IDS)), ty = pb_output(p, FR_F32, PB_LIST(IDS, k));
        const int32_t tw = pb_const(p, weight_dtype(layout), layout, PB_LIST(n, k), w.packed, w.bytes);
        const int32_t ts = pb_const(p, FR_F32, 0, PB_LIST(w.np), w.scale, (uint64_t)w.np * 4);
        pb_step(p, FRUGAL_OP_GATHER_PACKED, PB_LIST(tw, layout == FRUGAL_W8_P16 ? ts : -1, ti), PB_LIST(ty), PB_NONE);
        io t = {.dims = {IDS}, .in = {used}, .out = {y}, .out_bytes = {(size_t)(IDS * k) * 4}};
        CHECK(run_plan(p, &t) == (bad ? FRUGAL_BAD_INPUT : FRUGAL_OK));
        int ok = 1;
        for (int64_t i = 0; !bad && i < IDS * k; i++)
            ok = ok && y[i] == (float)w.real[(ids[i / k] + n) % n * k + i % k];
        CHECK(ok);
    }
    free(w.packed), free(w.scale), free(w.real), free(y);
}

static void test_gather_packed(void) {
    for (int i = 0; i < 4; i++) {
        const int layout = (const int[]){FRUGAL_W8_P16, FRUGAL_W4_P16, FRUGAL_W4O_P16, FRUGAL_W8B_P16}[i];
        gather_packed_case(layout, 40, 64);
        gather_packed_case(layout, 17, 33);
        gather_packed_case(layout, 1, 1);
    }
}

/* A quantized result is that of QUANTIZE_ACT: a product with it gives the same bytes as when the step stands alone. */
static void quantized_result_case(int layout, int64_t m, int64_t n, int64_t k, int act) {
    weights w = make_weights(layout, n, k), v = make_weights(FRUGAL_W8_P16, 19, n);
    float *x = floats(m * k), *bs = floats(w.np), *r = floats(m * n), *y[2];
    for (int fused = 0; fused < 2; fused++) {
        pb *p = pb_new();
        const int64_t s = pb_symbol(p, 0, 0);
        const int32_t tx = pb_input(p, FR_F32, PB_LIST(s, k)), tr = pb_input(p, FR_F32, PB_LIST(s, n));
        const int dtype = weight_dtype(layout);
        const int32_t tw = pb_const(p, dtype, layout, PB_LIST(n, k), w.packed, w.bytes),
                      tv = pb_const(p, FR_I8, FRUGAL_W8_P16, PB_LIST(19, n), v.packed, v.bytes),
                      ts = pb_const(p, FR_F32, 0, PB_LIST(w.np), w.scale, (uint64_t)w.np * 4),
                      tu = pb_const(p, FR_F32, 0, PB_LIST(32), v.scale, 32 * 4),
                      tb = pb_const(p, FR_F32, 0, PB_LIST(w.np), bs, (uint64_t)w.np * 4);
        const int32_t ty = pb_output(p, FR_F32, PB_LIST(s, 19)), tq = pb_temp(p, FR_I8, FRUGAL_A8_BLOCK, PB_LIST(s, n));
        int32_t from = tx, to = tq;
        if (dtype == FR_I8 || dtype == FR_U8) {
            from = pb_temp(p, FR_I8, FRUGAL_A8_BLOCK, PB_LIST(s, k));
            pb_step(p, FRUGAL_OP_QUANTIZE_ACT, PB_LIST(tx), PB_LIST(from), PB_NONE);
        }
        if (!fused)
            to = pb_temp(p, FR_F32, 0, PB_LIST(s, n));
        pb_step(p, FRUGAL_OP_LINEAR, PB_LIST(from, tw, layout == FRUGAL_W8_P16 ? ts : -1, tb, tr), PB_LIST(to), PB_LIST(act));
        if (!fused)
            pb_step(p, FRUGAL_OP_QUANTIZE_ACT, PB_LIST(to), PB_LIST(tq), PB_NONE);
        pb_step(p, FRUGAL_OP_LINEAR, PB_LIST(tq, tv, tu), PB_LIST(ty), PB_LIST(0));
        y[fused] = alloc((size_t)(m * 19) * 4);
        io t = {.dims = {m, k, m, n}, .in = {x, r}, .out = {y[fused]}, .out_bytes = {(size_t)(m * 19) * 4}};
        CHECK(run_plan(p, &t) == FRUGAL_OK);
    }
    CHECK(memcmp(y[0], y[1], (size_t)(m * 19) * 4) == 0);
    free(w.packed), free(w.scale), free(w.real), free(v.packed), free(v.scale), free(v.real);
    free(x), free(bs), free(r), free(y[0]), free(y[1]);
}

static void test_quantized_result(void) {
    const int64_t sizes[][3] = {{1, 16, 32}, {1, 1, 1}, {3, 17, 33}, {100, 560, 64}, {33, 50, 96}, {7, 300, 70}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int64_t m = sizes[i][0], n = sizes[i][1], k = sizes[i][2];
        quantized_result_case(FRUGAL_F32_P16, m, n, k, FRUGAL_U_COPY);
        quantized_result_case(FRUGAL_F16_P16, m, n, k, FRUGAL_U_GELU);
        quantized_result_case(FRUGAL_W8_P16, m, n, k, FRUGAL_U_GELU);
        quantized_result_case(FRUGAL_W4_P16, m, n, k, FRUGAL_U_RELU);
        quantized_result_case(FRUGAL_W4O_P16, m, n, k, FRUGAL_U_SILU);
        quantized_result_case(FRUGAL_W8B_P16, m, n, k, FRUGAL_U_COPY);
    }
}

static void matmul_case(int64_t b0, int64_t a0, int64_t m, int64_t k, int64_t n, int transposed, float alpha) {
    const int64_t batch = a0 > b0 ? a0 : b0;
    float *a = floats(a0 * m * k), *b = floats(b0 * k * n), *y = alloc((size_t)(batch * m * n) * 4);
    pb *p = pb_new();
    const int32_t ta = pb_input(p, FR_F32, PB_LIST(a0, m, k)),
                  tb = pb_input(p, FR_F32, PB_LIST(b0, transposed ? n : k, transposed ? k : n)),
                  ty = pb_output(p, FR_F32, PB_LIST(batch, m, n));
    pb_step(p, FRUGAL_OP_MATMUL, PB_LIST(ta, tb), PB_LIST(ty), PB_LIST(transposed, pb_float((double)alpha)));
    io t = {.dims = {a0, m, k, b0, transposed ? n : k, transposed ? k : n},
            .in = {a, b},
            .out = {y},
            .out_bytes = {(size_t)(batch * m * n) * 4}};
    CHECK(run_plan(p, &t) == FRUGAL_OK);
    int ok = 1;
    for (int64_t i = 0; i < batch * m * n; i++) {
        const int64_t col = i % n, row = i / n % m, x = i / n / m;
        double v = 0;
        for (int64_t j = 0; j < k; j++) {
            const float *bb = b + (b0 == 1 ? 0 : x) * k * n;
            v += (double)a[((a0 == 1 ? 0 : x) * m + row) * k + j] * (double)(transposed ? bb[col * k + j] : bb[j * n + col]);
        }
        ok = ok && fabs((double)y[i] - (double)alpha * v) <= 1e-5 * (1 + fabs(v)) * sqrt((double)k + 1);
    }
    CHECK(ok);
    free(a), free(b), free(y);
}

static void test_matmul(void) {
    for (int t = 0; t < 2; t++) {
        matmul_case(1, 1, 1, 1, 1, t, 1);
        matmul_case(2, 2, 5, 7, 16, t, 0.5f);
        matmul_case(1, 3, 4, 33, 37, t, 1);
        matmul_case(3, 1, 300, 20, 48, t, 2);
        matmul_case(1, 1, 3, 0, 5, t, 1);
        matmul_case(1, 1, 9, 5000, 40, t, 1);
    }
}

/* ---- attention ---- */

typedef struct attn {
    int64_t b, s, t, h, g, d, e;
    int causal, fused,
        mask; /* mask 0 none, 1 bool [b, 1, 1, t], 2 bool [b, h, s, t], 3 float [h, s, t], 4 bool [s, t], 5 bool [1] */
    float softcap;
    const float *q, *k, *v; /* dense, unfused */
    const uint8_t *allow;
    const float *add;
} attn;

static int64_t mask_at(const attn *a, int64_t b, int64_t h, int64_t i, int64_t j) {
    switch (a->mask) {
    case 1:
        return b * a->t + j;
    case 2:
        return ((b * a->h + h) * a->s + i) * a->t + j;
    case 3:
        return (h * a->s + i) * a->t + j;
    case 4:
        return i * a->t + j;
    default:
        return 0;
    }
}

static double naive_attention(const attn *a, int64_t b, int64_t h, int64_t i, int64_t c) {
    double sum = 0, y = 0, max = -INFINITY;
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t j = 0; j < a->t; j++) {
            double x = 0;
            const int64_t kv = h / (a->h / a->g);
            for (int64_t l = 0; l < a->d; l++)
                x += (double)a->q[((b * a->s + i) * a->h + h) * a->d + l] * (double)a->k[((b * a->t + j) * a->g + kv) * a->d + l];
            x *= 0.125;
            if (a->softcap > 0)
                x = (double)a->softcap * tanh(x / (double)a->softcap);
            if (a->mask == 3)
                x += (double)a->add[mask_at(a, b, h, i, j)];
            else if (a->mask && !a->allow[mask_at(a, b, h, i, j)])
                continue;
            if (a->causal && j > i + (a->causal == 1 ? a->t - a->s : 0))
                continue;
            if (pass == 0)
                max = fmax(max, x);
            else
                sum += exp(x - max), y += exp(x - max) * (double)a->v[((b * a->t + j) * a->g + kv) * a->e + c];
        }
    }
    return sum == 0 ? 0 : y / sum;
}

/* The plan's answer into y. */
static void run_attention(const attn *a, float *y) {
    pb *p = pb_new();
    const int64_t width = (a->h + 2 * a->g) * a->d;
    float *qkv = floats(a->b * a->s * width);
    for (int64_t r = 0; a->fused && r < a->b * a->s; r++) {
        memcpy(qkv + r * width, a->q + r * a->h * a->d, (size_t)(a->h * a->d) * 4);
        memcpy(qkv + r * width + a->h * a->d, a->k + r * a->g * a->d, (size_t)(a->g * a->d) * 4);
        memcpy(qkv + r * width + (a->h + a->g) * a->d, a->v + r * a->g * a->d, (size_t)(a->g * a->d) * 4);
    }
    const int64_t mask_dims[6][4] = {{0}, {a->b, 1, 1, a->t}, {a->b, a->h, a->s, a->t}, {a->h, a->s, a->t}, {a->s, a->t}, {1}};
    const int mask_rank[6] = {0, 4, 4, 3, 2, 1};
    const int32_t tq = pb_input(p, FR_F32, PB_LIST(a->b, a->s, a->fused ? width : a->h * a->d));
    const int32_t tk = a->fused ? -1 : pb_input(p, FR_F32, PB_LIST(a->b, a->t, a->g * a->d)),
                  tv = a->fused ? -1 : pb_input(p, FR_F32, PB_LIST(a->b, a->t, a->g * a->e));
    const int32_t tm = a->mask ? pb_input(p, a->mask == 3 ? FR_F32 : FR_BOOL, mask_rank[a->mask], mask_dims[a->mask]) : -1;
    const int32_t ty = pb_output(p, FR_F32, PB_LIST(a->b, a->s, a->h * a->e));
    pb_step(p, FRUGAL_OP_ATTENTION, PB_LIST(tq, tk, tv, tm), PB_LIST(ty),
            PB_LIST(a->h, a->g, pb_float(0.125), a->causal, pb_float((double)a->softcap), a->fused));
    io t = {.out = {y}, .out_bytes = {(size_t)(a->b * a->s * a->h * a->e) * 4}};
    int n = 0, d = 0;
    t.in[n++] = a->fused ? qkv : a->q;
    if (!a->fused)
        t.in[n++] = a->k, t.in[n++] = a->v;
    if (a->mask)
        t.in[n++] = a->mask == 3 ? (const void *)a->add : a->allow;
    for (uint32_t i = 0; i < p->n_tensors; i++) {
        for (int k = 0; p->tensors[i].kind == FRUGAL_TENSOR_INPUT && k < p->tensors[i].rank; k++)
            t.dims[d++] = p->tensors[i].dims[k];
    }
    CHECK(run_plan(p, &t) == FRUGAL_OK);
    free(qkv);
}

static void attention_case(attn a) {
    const int64_t masks = a.b * a.h * a.s * a.t + 1;
    float *q = floats(a.b * a.s * a.h * a.d), *k = floats(a.b * a.t * a.g * a.d), *v = floats(a.b * a.t * a.g * a.e),
          *add = floats(masks);
    float *y = alloc((size_t)(a.b * a.s * a.h * a.e) * 4);
    uint8_t *allow = alloc((size_t)masks);
    for (int64_t i = 0; i < a.b * a.s * a.h * a.d; i++)
        q[i] *= 4;
    for (int64_t i = 0; i < masks; i++)
        allow[i] = (uint8_t)(a.mask == 1 ? i % a.t < a.t - a.t / 3 : rnd() % 3 != 0);
    a.q = q, a.k = k, a.v = v, a.allow = allow, a.add = add;
    run_attention(&a, y);
    int ok = 1;
    for (int64_t i = 0; i < a.b * a.s * a.h * a.e; i++) {
        ok =
            ok && close_to(y[i], naive_attention(&a, i / (a.s * a.h * a.e), i / a.e % a.h, i / (a.h * a.e) % a.s, i % a.e), 2e-5);
    }
    if (!ok)
        printf("attention b %d s %d t %d h %d g %d d %d e %d mask %d\n", (int)a.b, (int)a.s, (int)a.t, (int)a.h, (int)a.g,
               (int)a.d, (int)a.e, a.mask);
    CHECK(ok);
    free(q), free(k), free(v), free(add), free(y), free(allow);
}

static void test_attention(void) {
    attention_case((attn){.b = 1, .s = 1, .t = 1, .h = 1, .g = 1, .d = 1, .e = 1});
    attention_case((attn){.b = 2, .s = 5, .t = 5, .h = 3, .g = 3, .d = 8, .e = 8, .fused = 1, .mask = 1});
    attention_case((attn){.b = 2, .s = 17, .t = 17, .h = 4, .g = 2, .d = 16, .e = 16, .fused = 1, .causal = 1});
    attention_case((attn){.b = 1, .s = 7, .t = 40, .h = 2, .g = 1, .d = 12, .e = 20, .causal = 1, .mask = 2});
    attention_case((attn){.b = 2, .s = 70, .t = 33, .h = 2, .g = 2, .d = 32, .e = 32, .mask = 3, .softcap = 5});
    attention_case((attn){.b = 1, .s = 9, .t = 4, .h = 2, .g = 2, .d = 16, .e = 16, .causal = 1}); /* rows that see nothing */
    attention_case((attn){.b = 2, .s = 1, .t = 50, .h = 6, .g = 2, .d = 16, .e = 16, .causal = 1, .mask = 2});
    attention_case((attn){.b = 1, .s = 1, .t = 600, .h = 40, .g = 2, .d = 8, .e = 16, .mask = 1});
    attention_case((attn){.b = 1, .s = 20, .t = 700, .h = 2, .g = 2, .d = 16, .e = 24, .mask = 4});
    attention_case((attn){.b = 2, .s = 3, .t = 6, .h = 2, .g = 2, .d = 4, .e = 4, .mask = 5});
    attention_case((attn){.b = 1, .s = 130, .t = 130, .h = 1, .g = 1, .d = 16, .e = 16, .causal = 1, .mask = 4});
    attention_case((attn){.b = 2, .s = 1, .t = 7, .h = 2, .g = 2, .d = 4, .e = 4, .causal = 2});
    attention_case((attn){.b = 1, .s = 70, .t = 90, .h = 2, .g = 1, .d = 16, .e = 16, .causal = 2, .mask = 1});
    attention_case((attn){.b = 1, .s = 9, .t = 4, .h = 2, .g = 2, .d = 4, .e = 4, .causal = 2, .mask = 3});
    attention_case((attn){.b = 1, .s = 3, .t = 0, .h = 2, .g = 2, .d = 4, .e = 4});
}

/* More masked keys, more batch entries and other threads change no bit. */
static void test_attention_padding(void) {
    const int64_t h = 2, d = 16, s = 9, t0 = 21;
    float *q = floats(2 * s * h * d), *k = floats(2 * 900 * h * d), *v = floats(2 * 900 * h * d),
          *first = alloc((size_t)(s * h * d) * 4);
    for (int64_t i = 0; i < t0 * h * d; i++)
        v[i] = i % 3 ? v[i] * 1e-38f : 0; /* products that underflow: zeros of both signs */
    const int64_t lengths[5] = {21, 22, 37, 64, 600};
    for (int n = 0; n < 10; n++) {
        const int64_t t = lengths[n % 5], batch = n / 5 + 1;
        float *kk = floats(batch * t * h * d), *vv = floats(batch * t * h * d), *y = alloc((size_t)(batch * s * h * d) * 4);
        uint8_t *allow = alloc((size_t)(batch * t));
        memset(allow, 0, (size_t)(batch * t));
        memset(allow, 1, (size_t)t0);
        memcpy(kk, k, (size_t)(t0 * h * d) * 4);
        memcpy(vv, v, (size_t)(t0 * h * d) * 4);
        attn a = {
            .b = batch, .s = s, .t = t, .h = h, .g = h, .d = d, .e = d, .mask = 1, .q = q, .k = kk, .v = vv, .allow = allow};
        run_attention(&a, n == 0 ? first : y);
        if (n > 0)
            CHECK(memcmp(first, y, (size_t)(s * h * d) * 4) == 0);
        /* The same through a mask without the form of padding. */
        uint8_t *full = alloc((size_t)(batch * h * s * t));
        for (int64_t i = 0; i < batch * h * s * t; i++)
            full[i] = allow[i / (h * s * t) * t + i % t];
        a.mask = 2, a.allow = full;
        run_attention(&a, y);
        CHECK(memcmp(first, y, (size_t)(s * h * d) * 4) == 0);
        free(kk), free(vv), free(y), free(allow), free(full);
    }
    free(q), free(k), free(v), free(first);
}

/* ---- QUANTIZE, DEQUANTIZE ---- */

static void test_quantize(void) {
    const float x[12] = {0.5f, 1.5f, -2.5f, 100, -100, 3, 4, 5, 6, -7, 8, 9};
    const float scale[8] = {1, 2, 0.5f, 0.25f, 1, 2, 4, 8};
    const int8_t zero[8] = {0, 1, 2, 3, -1, -2, -3, 0};
    for (int mode = 0; mode < 3; mode++) { /* one scale, axis 1, blocks of 2 of axis 1 */
        const int64_t dims[3][2] = {{1}, {4}, {3, 2}}, n = mode == 0 ? 1 : mode == 1 ? 4 : 6;
        int8_t q[12];
        float back[12];
        pb *p = pb_new();
        const int32_t tx = pb_input(p, FR_F32, PB_LIST(3, 4)),
                      ts = pb_const(p, FR_F32, 0, mode == 2 ? 2 : 1, dims[mode], scale, (uint64_t)n * 4),
                      tz = pb_const(p, FR_I8, 0, mode == 2 ? 2 : 1, dims[mode], zero, (uint64_t)n);
        const int32_t ty = pb_output(p, FR_I8, PB_LIST(3, 4)), tb = pb_output(p, FR_F32, PB_LIST(3, 4));
        pb_step(p, FRUGAL_OP_QUANTIZE, PB_LIST(tx, ts, tz), PB_LIST(ty), PB_LIST(1, mode == 2 ? 2 : 0));
        pb_step(p, FRUGAL_OP_DEQUANTIZE, PB_LIST(ty, ts, tz), PB_LIST(tb), PB_LIST(1, mode == 2 ? 2 : 0));
        io t = {.dims = {3, 4}, .in = {x}, .out = {q, back}, .out_bytes = {12, 48}};
        CHECK(run_plan(p, &t) == FRUGAL_OK);
        for (int i = 0; i < 12; i++) {
            const int at = mode == 0 ? 0 : mode == 1 ? i % 4 : i / 4 * 2 + i % 4 / 2;
            const float want = fminf(127, fmaxf(-128, rintf(x[i] / scale[at]) + (float)zero[at]));
            CHECK((float)q[i] == want && back[i] == ((float)q[i] - (float)zero[at]) * scale[at]);
        }
    }
}

/* ---- caches and recurrences ---- */

typedef struct cached {
    int64_t b, h, g, s, t, d, e, offset, left, right, mask_t; /* mask_t: keys that the mask covers, 0: no mask */
    int heads_first, lengths, sinks;
} cached;

/* The place of (batch, head, token, i) in [b, heads, tokens, n] or [b, tokens, heads, n]. */
static int64_t spot(int first, int64_t heads, int64_t tokens, int64_t n, int64_t b, int64_t h, int64_t s, int64_t i) {
    return first ? ((b * heads + h) * tokens + s) * n + i : ((b * tokens + s) * heads + h) * n + i;
}

static double naive_cached(const cached *a, const float *q, const float *k, const float *v, const uint8_t *mask,
                           const int64_t *lengths, const float *sinks, int64_t b, int64_t h, int64_t i, int64_t c) {
    const int64_t kv = h / (a->h / a->g), limit = a->lengths ? lengths[b] : a->t,
                  place = i + (a->lengths ? lengths[b] - a->s : a->offset);
    double max = -INFINITY, sum = 0, y = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t j = 0; j < limit; j++) {
            double x = 0;
            if ((a->left >= 0 && j < place - a->left) || (a->right >= 0 && j > place + a->right) ||
                (a->mask_t && (j >= a->mask_t || !mask[i * a->mask_t + j])))
                continue;
            for (int64_t n = 0; n < a->d; n++)
                x += (double)q[spot(a->heads_first, a->h, a->s, a->d, b, h, i, n)] *
                     (double)k[spot(a->heads_first, a->g, a->t, a->d, b, kv, j, n)];
            if (pass == 0)
                max = fmax(max, x);
            else
                sum += exp(x - max), y += exp(x - max) * (double)v[spot(a->heads_first, a->g, a->t, a->e, b, kv, j, c)];
        }
    }
    return sum == 0 ? 0 : y / (sum + (a->sinks ? exp((double)sinks[h] - max) : 0));
}

static int32_t token_tensor(pb *p, int out, int first, int64_t b, int64_t heads, int64_t tokens, int64_t n) {
    int32_t (*const make)(pb *, int, int, const int64_t *) = out ? pb_output : pb_input;
    return first ? make(p, FR_F32, PB_LIST(b, heads, tokens, n)) : make(p, FR_F32, PB_LIST(b, tokens, heads * n));
}

static void cached_case(cached a) {
    float *q = floats(a.b * a.s * a.h * a.d), *k = floats(a.b * a.t * a.g * a.d), *v = floats(a.b * a.t * a.g * a.e),
          *sinks = floats(a.h), *y = alloc((size_t)(a.b * a.s * a.h * a.e) * 4);
    uint8_t *mask = alloc((size_t)(a.s * a.mask_t + 1));
    const int64_t lengths[2] = {a.t, a.t / 2};
    for (int64_t i = 0; i < a.s * a.mask_t; i++)
        mask[i] = rnd() % 4 != 0;
    pb *p = pb_new();
    io x = {.in = {q, k, v}, .out = {y}, .out_bytes = {(size_t)(a.b * a.s * a.h * a.e) * 4}};
    int n = 3, d = 0;
    const int32_t tq = token_tensor(p, 0, a.heads_first, a.b, a.h, a.s, a.d),
                  tk = token_tensor(p, 0, a.heads_first, a.b, a.g, a.t, a.d),
                  tv = token_tensor(p, 0, a.heads_first, a.b, a.g, a.t, a.e),
                  tm = a.mask_t ? pb_input(p, FR_BOOL, PB_LIST(a.s, a.mask_t)) : -1,
                  tl = a.lengths ? pb_input(p, FR_I64, PB_LIST(a.b)) : -1, ts = a.sinks ? pb_input(p, FR_F32, PB_LIST(a.h)) : -1,
                  ty = token_tensor(p, 1, a.heads_first, a.b, a.h, a.s, a.e);
    if (a.mask_t)
        x.in[n++] = mask;
    if (a.lengths)
        x.in[n++] = lengths;
    if (a.sinks)
        x.in[n++] = sinks;
    for (uint32_t i = 0; i < p->n_tensors; i++) {
        for (int r = 0; p->tensors[i].kind == FRUGAL_TENSOR_INPUT && r < p->tensors[i].rank; r++)
            x.dims[d++] = p->tensors[i].dims[r];
    }
    pb_step(p, FRUGAL_OP_ATTENTION_CACHE, PB_LIST(tq, tk, tv, tm, tl, ts), PB_LIST(ty),
            PB_LIST(a.h, a.g, pb_float(1), pb_float(0), a.offset, a.left, a.right, 1));
    CHECK(run_plan(p, &x) == FRUGAL_OK);
    int ok = 1;
    for (int64_t i = 0; i < a.b * a.h * a.s * a.e; i++) {
        const int64_t c = i % a.e, at = i / a.e % a.s, h = i / a.e / a.s % a.h, b = i / a.e / a.s / a.h;
        ok = ok && close_to(y[spot(a.heads_first, a.h, a.s, a.e, b, h, at, c)],
                            naive_cached(&a, q, k, v, mask, lengths, sinks, b, h, at, c), 2e-5);
    }
    CHECK(ok);
    free(q), free(k), free(v), free(sinks), free(y), free(mask);
}

static void test_attention_cache(void) {
    const cached base = {.b = 2, .h = 4, .g = 2, .s = 5, .t = 40, .d = 16, .e = 16, .offset = 35, .left = -1, .right = -1};
    for (int i = 0; i < 32; i++) {
        cached a = base;
        a.heads_first = i & 1, a.lengths = i >> 1 & 1, a.sinks = i >> 2 & 1, a.right = i & 8 ? 0 : -1, a.left = i & 16 ? 6 : -1;
        a.s = i % 3 == 0 ? 1 : i % 3 == 1 ? 5 : 21, a.offset = a.t - a.s, a.mask_t = i % 5 == 2 ? 33 : i % 5 == 3 ? 1 : 0;
        a.e = i % 7 == 3 ? 9 : 16;
        cached_case(a);
    }
    cached_case((cached){.b = 1, .h = 2, .g = 1, .s = 3, .t = 1200, .d = 8, .e = 16, .offset = 1197, .left = 30, .right = 0});
    cached_case((cached){.b = 1, .h = 80, .g = 1, .s = 1, .t = 600, .d = 8, .e = 24, .offset = 599, .left = 100, .right = 0});
    cached_case((cached){.b = 1, .h = 2, .g = 2, .s = 3, .t = 0, .d = 8, .e = 8, .left = -1, .right = -1});
}

/* CACHE_APPEND of keys and values of `n` positions, of which the cache keeps the last t, then ATTENTION_KEPT over them. */
typedef struct kept {
    int64_t b, h, g, s, t, d, n, left; /* n: positions so far, those of the s queries included; above t in a ring */
    int dtype, tokens_first, ring, slopes, mask, turned;
} kept;

static float half_value(uint16_t h) {
    const int e = h >> 10 & 31, m = h & 1023;
    return (e ? ldexpf((float)(1024 + m), e - 25) : ldexpf((float)m, -24)) * (h & 0x8000 ? -1 : 1);
}

/* Element (batch, head, slot, i) of a cache, in double. */
static double kept_value(const kept *a, const void *codes, const float *scale, int64_t b, int64_t head, int64_t slot, int64_t i) {
    const int64_t at = spot(!a->tokens_first, a->g, a->t, a->d, b, head, slot, i);
    if (a->dtype == FR_I8)
        return (double)((const int8_t *)codes)[at] * (double)scale[spot(!a->tokens_first, a->g, a->t, 1, b, head, slot, 0)];
    return a->dtype == FR_F16 ? (double)half_value(((const uint16_t *)codes)[at]) : (double)((const float *)codes)[at];
}

static double naive_kept(const kept *a, const float *q, void *const *cache, float *const *scale, const float *slopes,
                         const uint8_t *mask, int64_t b, int64_t h, int64_t i, int64_t c) {
    const int64_t place = a->n - a->s + i, kv = h / (a->h / a->g);
    const float *row = q + spot(0, a->h, a->s, a->d, b, h, i, 0);
    double max = -INFINITY, sum = 0, y = 0, top = 0;
    for (int64_t k = 0; k < a->d; k++)
        top = fmax(top, fabs((double)row[k]));
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t j = a->n > a->t ? a->n - a->t : 0; j <= place; j++) {
            double x = 0;
            if ((a->left >= 0 && j < place - a->left) || (a->mask && !mask[i * a->t + j]))
                continue;
            for (int64_t k = 0; k < a->d; k++) { /* an int8 cache meets int8 queries */
                const double v = a->dtype == FR_I8 ? (double)rintf(row[k] * (127 / (float)top)) * top / 127 : (double)row[k];
                x += v * kept_value(a, cache[0], scale[0], b, kv, j % a->t, k);
            }
            x = x * 0.25 + (a->slopes ? (double)slopes[h] * (double)(j - place) : 0);
            if (pass == 0)
                max = fmax(max, x);
            else
                sum += exp(x - max), y += exp(x - max) * kept_value(a, cache[1], scale[1], b, kv, j % a->t, c);
        }
    }
    return sum == 0 ? 0 : y / sum;
}

static double largest_of(const float *x, int64_t n) {
    float top = 0;
    for (int64_t k = 0; k < n; k++)
        top = fabsf(x[k]) > top ? fabsf(x[k]) : top;
    return (double)top;
}

/* What was appended is what x (dense [b, tokens, g, d], here the last t positions) says, to half a step of the type. */
static int appended(const kept *a, const float *x, const void *cache, const float *scale) {
    const int64_t slots = a->n < a->t ? a->n : a->t;
    for (int64_t i = 0; i < a->b * slots * a->g * a->d; i++) {
        const int64_t b = i / a->d / a->g / slots, at = i / a->d / a->g % slots, head = i / a->d % a->g;
        const double got = kept_value(a, cache, scale, b, head, (a->n - slots + at) % a->t, i % a->d), want = (double)x[i];
        const double top = largest_of(x + i / a->d * a->d, a->d);
        if (fabs(got - want) > (a->dtype == FR_I8 ? top / 254 * 1.001 : a->dtype == FR_F16 ? fabs(want) / 2047 + 1e-7 : 0))
            return 0;
    }
    return 1;
}

static void kept_case(kept a) {
    const int64_t slots = a.n < a.t ? a.n : a.t, all = a.b * a.g * a.t * a.d, rows = a.b * a.g * a.t;
    const size_t bytes = (size_t)all * (a.dtype == FR_I8    ? 1
                                        : a.dtype == FR_F16 ? 2
                                                            : 4),
                 y_bytes = (size_t)(a.b * a.s * a.h * a.d) * 4;
    const int64_t places[2] = {a.n - slots, a.n - slots}, lengths[2] = {a.n, a.n}, no_rows[3] = {a.b, 0, a.g};
    float *q = floats(a.b * a.s * a.h * a.d), *x[2] = {floats(a.b * slots * a.g * a.d), floats(a.b * slots * a.g * a.d)};
    float *slopes = floats(a.h), *y = alloc(y_bytes), *scale[2], *cos = floats(a.b * slots * a.d / 4), *none = floats(1);
    void *cache[2], *past = alloc(bytes), *zeros = alloc((size_t)rows * 4);
    uint8_t *mask = alloc((size_t)(a.s * a.t));
    memset(past, 0, bytes), memset(zeros, 0, (size_t)rows * 4);
    for (int64_t i = 0; i < a.s * a.t; i++)
        mask[i] = rnd() % 4 != 0;
    pb *p = pb_new();
    io run = {.out = {y}, .out_bytes = {y_bytes}};
    const int i8 = a.dtype == FR_I8;
    int n = 0, o = 1, d = 0, caches[2], scales[2];
    const int32_t ty = pb_output(p, FR_F32, PB_LIST(a.b, a.s, a.h * a.d)), tq = pb_input(p, FR_F32, PB_LIST(a.b, a.s, a.h * a.d)),
                  tp = pb_input(p, FR_I64, PB_LIST(a.b)), tl = pb_input(p, FR_I64, PB_LIST(a.b)),
                  tc = a.turned ? pb_input(p, FR_F32, PB_LIST(a.b, slots, a.d / 4)) : -1,
                  ts = a.slopes ? pb_input(p, FR_F32, PB_LIST(a.h)) : -1,
                  tm = a.mask ? pb_input(p, FR_BOOL, PB_LIST(a.s, a.t)) : -1;
    run.in[n++] = q, run.in[n++] = places, run.in[n++] = lengths;
    if (a.turned)
        run.in[n++] = cos;
    if (a.slopes)
        run.in[n++] = slopes;
    if (a.mask)
        run.in[n++] = mask;
    for (int i = 0; i < 2; i++) {
        const int64_t shapes[2][4] = {{a.b, a.g, a.t, a.d}, {a.b, a.t, a.g * a.d}},
                      scale_shapes[2][3] = {{a.b, a.g, a.t}, {a.b, a.t, a.g}};
        const int rank = a.tokens_first ? 3 : 4;
        const int32_t px = pb_input(p, FR_F32, PB_LIST(a.b, slots, a.g * a.d)),
                      pp = pb_input(p, a.dtype, rank, shapes[a.tokens_first]),
                      ps = i8 ? pb_input(p, FR_F32, 3, scale_shapes[a.tokens_first]) : -1;
        run.in[n++] = x[i], run.in[n++] = past;
        if (i8)
            run.in[n++] = zeros;
        caches[i] = pb_output(p, a.dtype, rank, shapes[a.tokens_first]);
        scales[i] = pb_output(p, FR_F32, 3, i8 ? scale_shapes[a.tokens_first] : no_rows);
        cache[i] = run.out[o] = alloc(bytes), run.out_bytes[o++] = bytes;
        scale[i] = run.out[o] = alloc((size_t)rows * 4), run.out_bytes[o++] = i8 ? (size_t)rows * 4 : 0;
        pb_step(p, FRUGAL_OP_CACHE_APPEND, PB_LIST(pp, px, tp, ps, tc, tc), PB_LIST(caches[i], scales[i]),
                PB_LIST(a.g, a.ring, 0));
    }
    for (uint32_t i = 0; i < p->n_tensors; i++) {
        for (int r = 0; p->tensors[i].kind == FRUGAL_TENSOR_INPUT && r < p->tensors[i].rank; r++)
            run.dims[d++] = p->tensors[i].dims[r];
    }
    pb_step(p, FRUGAL_OP_ATTENTION_KEPT,
            PB_LIST(tq, caches[0], caches[1], tm, tl, -1, i8 ? scales[0] : -1, i8 ? scales[1] : -1, ts), PB_LIST(ty),
            PB_LIST(a.h, a.g, pb_float(0.25), pb_float(0), 0, a.left, 0, 0, a.ring));
    CHECK(run_plan(p, &run) == FRUGAL_OK);
    for (int i = 0; i < 2 && a.turned; i++) { /* cos = sin */
        for (int64_t r = 0; r < a.b * slots * a.g; r++) {
            for (int64_t k = 0; k < a.d / 4; k++) {
                const float c = cos[r / a.g * (a.d / 4) + k], u = x[i][r * a.d + k], v = x[i][r * a.d + k + a.d / 4];
                x[i][r * a.d + k] = c * u - c * v, x[i][r * a.d + k + a.d / 4] = c * u + c * v;
            }
        }
    }
    CHECK(appended(&a, x[0], cache[0], scale[0]) && appended(&a, x[1], cache[1], scale[1]));
    int ok = 1;
    for (int64_t i = 0; i < a.b * a.s * a.h * a.d;
         i++) { /* int8: the weights are rounded to 2^-16 of the largest of their block */
        const int64_t c = i % a.d, h = i / a.d % a.h, at = i / a.d / a.h % a.s, b = i / a.d / a.h / a.s;
        ok = ok && close_to(y[i], naive_kept(&a, q, cache, scale, slopes, mask, b, h, at, c), i8 ? 3e-4 : 2e-5);
    }
    if (!ok)
        printf("kept: dtype %d s %d t %d n %d d %d ring %d\n", a.dtype, (int)a.s, (int)a.t, (int)a.n, (int)a.d, a.ring);
    CHECK(ok);
    free(q), free(x[0]), free(x[1]), free(slopes), free(y), free(scale[0]), free(scale[1]), free(cos), free(none);
    free(cache[0]), free(cache[1]), free(past), free(zeros), free(mask);
}

static int quick; /* emulated: fewer cases of what is slow to check */

static void test_attention_kept(void) {
    static const int64_t sizes[6] = {64, 32, 80, 128, 48, 16};
    static const int types[3] = {FR_I8, FR_F16, FR_F32};
    for (int i = 0; i < 36; i += quick ? 11 : 1) {
        kept a = {.b = 1 + i % 2,
                  .g = 1 + i / 2 % 2,
                  .t = 40,
                  .n = 33,
                  .d = sizes[i % 6],
                  .dtype = types[i / 3 % 3],
                  .left = i % 5 == 1 ? 9 : -1};
        a.h = a.g * (1 + i % 4), a.s = i % 4 == 0 ? 1 : i % 4 == 1 ? 5 : i % 4 == 2 ? 2 : 21;
        a.tokens_first = i / 4 % 2, a.slopes = i % 3 == 1, a.mask = i % 7 == 3, a.turned = i % 4 == 2;
        kept_case(a);
        a.ring = 1, a.mask = 0, a.n = 93, a.s = i % 2 ? 1 : 4, a.left = i % 2 ? -1 : 30;
        kept_case(a);
    }
    for (int i = 0; i < (quick ? 0 : 3); i++) { /* several blocks of keys, and of tiles */
        kept_case((kept){.b = 1, .h = 3, .g = 1, .s = 1, .t = 1100, .n = 1090, .d = 64, .dtype = types[i], .left = -1});
        kept_case(
            (kept){.b = 1, .h = 9, .g = 3, .s = 2, .t = 700, .n = 700, .d = 32, .dtype = types[i], .left = 300, .slopes = 1});
        kept_case((kept){
            .b = 1, .h = 3, .g = 1, .s = quick ? 20 : 300, .t = 400, .n = 390, .d = 32, .dtype = types[i], .left = i ? -1 : 100});
        kept_case((kept){.b = 2,
                         .h = 2,
                         .g = 2,
                         .s = 3,
                         .t = 600,
                         .n = 5000,
                         .d = 32,
                         .dtype = types[i],
                         .ring = 1,
                         .left = 590,
                         .slopes = 1});
    }
    if (!quick)
        kept_case((kept){.b = 1, .h = 20, .g = 1, .s = 1, .t = 600, .n = 600, .d = 256, .dtype = FR_I8, .left = -1});
}

static void test_bad_length(void) {
    const float zeros[16] = {0};
    float y[4];
    for (int i = 0; i < 2; i++) {
        const int64_t length[1] = {i ? 5 : -1};
        pb *p = pb_new();
        const int32_t q = pb_input(p, FR_F32, PB_LIST(1, 1, 4)), k = pb_input(p, FR_F32, PB_LIST(1, 4, 4)),
                      n = pb_input(p, FR_I64, PB_LIST(1)), out = pb_output(p, FR_F32, PB_LIST(1, 1, 4));
        pb_step(p, FRUGAL_OP_ATTENTION_CACHE, PB_LIST(q, k, k, -1, n), PB_LIST(out),
                PB_LIST(1, 1, pb_float(1), pb_float(0), 0, -1, 0, 0));
        io x = {.dims = {1, 1, 4, 1, 4, 4, 1}, .in = {zeros, zeros, length}, .out = {y}, .out_bytes = {16}};
        CHECK(run_plan(p, &x) == FRUGAL_BAD_INPUT);
    }
}

static void test_tensor_scatter(void) {
    const int16_t past[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, update[4] = {20, 21, 22, 23};
    const int64_t places[4][2] = {{0, 2}, {2, 5}, {1, 3}, {-1, 0}};
    const frugal_status wanted[4] = {FRUGAL_OK, FRUGAL_OK, FRUGAL_BAD_INPUT, FRUGAL_BAD_INPUT};
    const int16_t results[2][12] = {{20, 21, 2, 3, 4, 5, 6, 7, 8, 9, 22, 23}, {0, 1, 2, 3, 20, 21, 6, 7, 8, 9, 22, 23}};
    for (int i = 0; i < 4; i++) {
        int16_t y[12];
        pb *p = pb_new();
        const int32_t x = pb_input(p, FR_I16, PB_LIST(2, 3, 2)), u = pb_input(p, FR_I16, PB_LIST(2, 1, 2)),
                      at = pb_input(p, FR_I64, PB_LIST(2)), out = pb_output(p, FR_I16, PB_LIST(2, 3, 2));
        pb_step(p, FRUGAL_OP_TENSOR_SCATTER, PB_LIST(x, u, at), PB_LIST(out), PB_LIST(1, i == 1));
        io t = {.dims = {2, 3, 2, 2, 1, 2, 2}, .in = {past, update, places[i]}, .out = {y}, .out_bytes = {24}};
        CHECK(run_plan(p, &t) == wanted[i]);
        CHECK(i >= 2 || memcmp(y, results[i], 24) == 0);
    }
}

static void test_rotary(void) {
    const int64_t ids[4] = {1, 0, 2, 2}, bad[4] = {1, 0, 3, 2};
    float *x = floats(2 * 3 * 2 * 6), *cos = floats(3 * 2), *sin = floats(3 * 2), *y = alloc(2 * 3 * 2 * 6 * 4);
    for (int i = 0; i < 3; i++) {
        const int interleaved = i == 1;
        pb *p = pb_new();
        const int32_t tx = pb_input(p, FR_F32, PB_LIST(2, 3, 2, 6)), tc = pb_input(p, FR_F32, PB_LIST(3, 2)),
                      ts = pb_input(p, FR_F32, PB_LIST(3, 2)), ti = pb_input(p, FR_I64, PB_LIST(2, 2)),
                      ty = pb_output(p, FR_F32, PB_LIST(2, 3, 2, 6));
        pb_step(p, FRUGAL_OP_ROTARY, PB_LIST(tx, tc, ts, ti), PB_LIST(ty), PB_LIST(0, interleaved));
        io t = {.dims = {2, 3, 2, 6, 3, 2, 3, 2, 2, 2}, .in = {x, cos, sin, i == 2 ? bad : ids}, .out = {y}, .out_bytes = {288}};
        CHECK(run_plan(p, &t) == (i == 2 ? FRUGAL_BAD_INPUT : FRUGAL_OK));
        int ok = 1;
        for (int row = 0; i < 2 && row < 12; row++) {
            const float *a = x + 6 * row, *b = y + 6 * row;
            const int64_t at = 2 * ids[row / 6 * 2 + row % 2];
            for (int k = 0; k < 2; k++) {
                const int one = interleaved ? 2 * k : k, two = interleaved ? 2 * k + 1 : k + 2;
                ok = ok && b[one] == cos[at + k] * a[one] - sin[at + k] * a[two];
                ok = ok && b[two] == sin[at + k] * a[one] + cos[at + k] * a[two];
            }
            ok = ok && b[4] == a[4] && b[5] == a[5];
        }
        CHECK(ok);
    }
    free(x), free(cos), free(sin), free(y);
}

/* Gated delta rule, two query heads a key head, more columns than a task takes; one go gives the bits of two. */
static void test_linear_attention(void) {
    enum { T = 5, H = 4, G = 2, DK = 3, DV = 70 };
    float *q = floats(T * H * DK), *k = floats(T * G * DK), *v = floats(T * G * DV), *past = floats(G * DK * DV),
          *decay = floats(T * G), *beta = floats(T * G), *y = alloc(T * H * DV * 4), *half = alloc(T * H * DV * 4),
          *state = alloc(G * DK * DV * 4), *other = alloc(G * DK * DV * 4);
    const int64_t cuts[3][2] = {{0, T}, {0, 2}, {2, T}};
    for (int i = 0; i < 3; i++) {
        const int64_t from = cuts[i][0], t = cuts[i][1] - from;
        pb *p = pb_new();
        const int32_t tq = pb_input(p, FR_F32, PB_LIST(1, t, H * DK)), tk = pb_input(p, FR_F32, PB_LIST(1, t, G * DK)),
                      tv = pb_input(p, FR_F32, PB_LIST(1, t, G * DV)), tp = pb_input(p, FR_F32, PB_LIST(1, G, DK, DV)),
                      td = pb_input(p, FR_F32, PB_LIST(1, t, G)), tb = pb_input(p, FR_F32, PB_LIST(1, t, G)),
                      ty = pb_output(p, FR_F32, PB_LIST(1, t, H * DV)), ts = pb_output(p, FR_F32, PB_LIST(1, G, DK, DV));
        pb_step(p, FRUGAL_OP_LINEAR_ATTENTION, PB_LIST(tq, tk, tv, tp, td, tb), PB_LIST(ty, ts), PB_LIST(H, G, pb_float(0.5)));
        io x = {.dims = {1, t, H * DK, 1, t, G * DK, 1, t, G * DV, 1, G, DK, DV, 1, t, G, 1, t, G},
                .in = {q + from * H * DK, k + from * G * DK, v + from * G * DV, i == 2 ? other : past, decay + from * G,
                       beta + from * G},
                .out = {i ? half + from * H * DV : y, state},
                .out_bytes = {(size_t)(t * H * DV) * 4, G * DK * DV * 4}};
        CHECK(run_plan(p, &x) == FRUGAL_OK);
        if (i == 1)
            memcpy(other, state, G * DK * DV * 4);
        if (i == 0) { /* the recurrence in double */
            double s[G][DK][DV];
            int ok = 1;
            for (int n = 0; n < G * DK * DV; n++)
                s[n / DV / DK][n / DV % DK][n % DV] = (double)past[n];
            for (int n = 0; n < T * G * DV; n++) {
                const int m = n % DV, g = n / DV % G, at = n / DV / G;
                double got = 0;
                for (int d = 0; d < DK; d++)
                    s[g][d][m] *= exp((double)decay[at * G + g]), got += s[g][d][m] * (double)k[(at * G + g) * DK + d];
                for (int d = 0; d < DK; d++)
                    s[g][d][m] += (double)k[(at * G + g) * DK + d] * (double)beta[at * G + g] * ((double)v[n] - got);
                for (int h = g * H / G; h < (g + 1) * H / G; h++) {
                    double want = 0;
                    for (int d = 0; d < DK; d++)
                        want += 0.5 * (double)q[(at * H + h) * DK + d] * s[g][d][m];
                    ok = ok && close_to(y[(at * H + h) * DV + m], want, 1e-5);
                }
            }
            CHECK(ok);
        }
    }
    CHECK(memcmp(y, half, T * H * DV * 4) == 0);
    free(q), free(k), free(v), free(past), free(decay), free(beta), free(y), free(half), free(state), free(other);
}

static void test_causal_conv(void) {
    enum { C = 3, L = 7, K = 4 };
    float *x = floats(C * L), *w = floats(C * K), *bias = floats(C), *past = floats(C * (K - 1)), *y = alloc(C * L * 4),
          *state = alloc(C * (K - 1) * 4);
    for (int64_t len = 0; len <= L; len += L - 1 > len ? 2 : 1) {
        pb *p = pb_new();
        const int32_t tx = pb_input(p, FR_F32, PB_LIST(1, C, len)), tw = pb_input(p, FR_F32, PB_LIST(C, K)),
                      tb = pb_input(p, FR_F32, PB_LIST(C)), tp = pb_input(p, FR_F32, PB_LIST(1, C, K - 1)),
                      ty = pb_output(p, FR_F32, PB_LIST(1, C, len)), ts = pb_output(p, FR_F32, PB_LIST(1, C, K - 1));
        pb_step(p, FRUGAL_OP_CAUSAL_CONV, PB_LIST(tx, tw, tb, tp), PB_LIST(ty, ts), PB_LIST(FRUGAL_U_COPY));
        io t = {.dims = {1, C, len, C, K, C, 1, C, K - 1},
                .in = {x, w, bias, past},
                .out = {y, state},
                .out_bytes = {(size_t)(C * len) * 4, C * (K - 1) * 4}};
        CHECK(run_plan(p, &t) == FRUGAL_OK);
        int ok = 1;
        for (int64_t c = 0; c < C; c++) {
            float z[K - 1 + L];
            memcpy(z, past + c * (K - 1), (K - 1) * 4);
            memcpy(z + K - 1, x + c * len, (size_t)len * 4);
            for (int64_t i = 0; i < len; i++) {
                float v = 0;
                for (int j = 0; j < K; j++)
                    v += w[c * K + j] * z[i + j];
                ok = ok && y[c * len + i] == v + bias[c];
            }
            ok = ok && memcmp(state + c * (K - 1), z + len, (K - 1) * 4) == 0;
        }
        CHECK(ok);
    }
    free(x), free(w), free(bias), free(past), free(y), free(state);
}

static void test_det_and_other_products(void) {
    const float x[18] = {0, 2, 1, 3, 0, 1, 1, 1, 4, 1, 2, 3, 2, 4, 6, 0, 0, 1};
    float y[2];
    pb *p = pb_new();
    const int32_t tx = pb_input(p, FR_F32, PB_LIST(2, 3, 3)), ty = pb_output(p, FR_F32, PB_LIST(2));
    pb_step(p, FRUGAL_OP_DET, PB_LIST(tx), PB_LIST(ty), 0, NULL);
    io t = {.dims = {2, 3, 3}, .in = {x}, .out = {y}, .out_bytes = {8}};
    CHECK(run_plan(p, &t) == FRUGAL_OK);
    CHECK(close_to(y[0], -19, 1e-6) && y[1] == 0);
    for (int transposed = 0; transposed < 2; transposed++) {
        const int64_t a[4] = {1, -2, INT64_MAX, 3}, b[4] = {5, 6, 7, -8};
        int64_t z[4];
        pb *m = pb_new();
        const int32_t ta = pb_input(m, FR_I64, PB_LIST(2, 2)), tb = pb_input(m, FR_I64, PB_LIST(2, 2)),
                      tz = pb_output(m, FR_I64, PB_LIST(2, 2));
        pb_step(m, FRUGAL_OP_MATMUL, PB_LIST(ta, tb), PB_LIST(tz), PB_LIST(transposed, pb_float(1)));
        io u = {.dims = {2, 2, 2, 2}, .in = {a, b}, .out = {z}, .out_bytes = {32}};
        CHECK(run_plan(m, &u) == FRUGAL_OK);
        for (int i = 0; i < 4; i++) {
            uint64_t want = 0;
            for (int k = 0; k < 2; k++)
                want += (uint64_t)a[i / 2 * 2 + k] * (uint64_t)b[transposed ? i % 2 * 2 + k : k * 2 + i % 2];
            CHECK((uint64_t)z[i] == want);
        }
    }
}

/* ---- sessions ---- */

/* Two linears with symbolic lengths, an alias between them, an output read by a later step. */
static pb *small_model(void) {
    pb *p = pb_new();
    weights w = make_weights(FRUGAL_F32_P16, 8, 12);
    const int64_t n = pb_symbol(p, 0, 0), s = pb_symbol(p, 0, 1), both = pb_dim(p, FRUGAL_DIM_MUL, n, s);
    const int32_t x = pb_input(p, FR_F32, PB_LIST(n, s, 12)), y0 = pb_output(p, FR_F32, PB_LIST(n, s, 8)),
                  flat = pb_alias(p, y0, PB_LIST(both, 8)),
                  tw = pb_const(p, FR_F32, FRUGAL_F32_P16, PB_LIST(8, 12), w.packed, w.bytes),
                  u = pb_temp(p, FR_F32, 0, PB_LIST(both, 8)), y1 = pb_output(p, FR_F32, PB_LIST(both, 1));
    pb_step(p, FRUGAL_OP_LINEAR, PB_LIST(x, tw), PB_LIST(y0), PB_LIST(FRUGAL_U_RELU));
    pb_step(p, FRUGAL_OP_UNARY, PB_LIST(flat), PB_LIST(u), PB_LIST(FRUGAL_U_NEG, 0, 0));
    pb_step(p, FRUGAL_OP_REDUCE, PB_LIST(u), PB_LIST(y1), PB_LIST(FRUGAL_R_SUM, 2));
    free(w.packed), free(w.scale), free(w.real);
    return p;
}

static int64_t fake_now;
static int64_t fake_clock(void) { return fake_now += 5; }

static void test_session(void) {
    size_t size;
    pb *b = small_model();
    uint8_t *file = pb_finish(b, &size);
    save_seed(file, size, "");
    frugal_plan plan;
    frugal_session *s;
    frugal_error err;
    frugal_record records[3];
    CHECK(frugal_plan_open(&plan, file, size, &err) == FRUGAL_OK);
    CHECK(plan.n_inputs == 1 && plan.n_outputs == 2 && frugal_plan_input(&plan, 0) == 0 && frugal_plan_output(&plan, 1) == 5 &&
          frugal_plan_output(&plan, 2) == -1);
    void *mem = alloc(frugal_session_bytes(&plan));
    CHECK(frugal_session_init(&s, mem, frugal_session_bytes(&plan) - 1, &plan, fr_isa_scalar, NULL, 1 << 20, &err) ==
          FRUGAL_BAD_ARG);
    CHECK(frugal_session_init(&s, mem, frugal_session_bytes(&plan), &plan, NULL, NULL, 1 << 20, &err) == FRUGAL_NO_ISA);
    CHECK(frugal_session_init(&s, mem, frugal_session_bytes(&plan), &plan, fr_isa_scalar, NULL, 1 << 20, &err) == FRUGAL_OK);
    CHECK(frugal_session_run(s, NULL, 0, NULL, NULL, &err) == FRUGAL_BAD_ARG);
    for (int64_t len = 0; len < 40; len += 13) {
        const int64_t dims[3] = {2, len, 12}, n = 2 * len;
        float *x = floats(n * 12), *y0 = alloc((size_t)n * 32), *y1 = alloc((size_t)n * 4), *alone = alloc((size_t)n * 4);
        CHECK(frugal_session_resolve(s, dims, &err) == FRUGAL_OK);
        int64_t got[8];
        CHECK(frugal_session_shape(s, 5, got) == 2 && got[0] == n && got[1] == 1);
        CHECK(frugal_session_shape(s, 6, got) == -1 && frugal_session_shape(s, -1, got) == -1);
        const size_t bytes = frugal_session_arena_bytes(s);
        void *arena = alloc(bytes);
        const void *in[1] = {x};
        void *both[2] = {y0, y1}, *second[2] = {NULL, alone};
        frugal_session_record(s, records, fake_clock);
        CHECK(frugal_session_run(s, arena, bytes, in, both, &err) == FRUGAL_OK);
        CHECK(records[0].nanoseconds == 5 && records[0].operations == n * 8 * 12 * 2 && records[0].bytes_written == n * 32);
        CHECK(records[0].bytes_read == n * 48 + 4 * 16 * 12);
        frugal_session_record(s, NULL, NULL);
        CHECK(frugal_session_run(s, arena, bytes, in, second, &err) == FRUGAL_OK);
        CHECK(memcmp(y1, alone, (size_t)n * 4) == 0);
        for (int32_t step = -1; step < 4; step++) { /* the same bytes, also for a step that there is not */
            memset(alone, 1, (size_t)n * 4);
            frugal_session_repeat(s, step, 3 * step);
            CHECK(frugal_session_run(s, arena, bytes, in, second, &err) == FRUGAL_OK);
            CHECK(memcmp(y1, alone, (size_t)n * 4) == 0);
        }
        frugal_session_repeat(s, -1, 0);
        CHECK(frugal_session_run(s, arena, bytes, in, NULL, &err) == FRUGAL_OK);
        int ok = 1;
        for (int64_t i = 0; i < n; i++) {
            float sum = 0;
            for (int j = 0; j < 8; j++)
                sum -= y0[i * 8 + j];
            ok = ok && close_to(y1[i], (double)sum, 1e-5);
        }
        CHECK(ok);
        if (bytes > 0) {
            CHECK(frugal_session_run(s, arena, bytes - 1, in, both, &err) == FRUGAL_BAD_ARG);
            CHECK(frugal_session_run(s, (uint8_t *)arena + 4, bytes, in, both, &err) == FRUGAL_BAD_ARG);
            const void *none[1] = {NULL}, *crooked[1] = {(uint8_t *)x + 1};
            CHECK(frugal_session_run(s, arena, bytes, none, both, &err) == FRUGAL_BAD_ARG && err.input == 0);
            CHECK(frugal_session_run(s, arena, bytes, crooked, both, &err) == FRUGAL_BAD_ARG);
        }
        free(x), free(y0), free(y1), free(alone), free(arena);
    }
    const int64_t wrong[3] = {2, 3, 13}, negative[3] = {-2, 3, 12}, huge[3] = {1 << 20, 1 << 20, 12}, big[3] = {100, 100, 12},
                  overflow[3] = {FRUGAL_MAX_DIM, 2, 12};
    CHECK(frugal_session_resolve(s, wrong, &err) == FRUGAL_BAD_INPUT && err.input == 0 && err.axis == 2 && err.want == 12 &&
          err.got == 13);
    CHECK(frugal_session_resolve(s, negative, &err) == FRUGAL_BAD_INPUT && err.axis == 0 && err.got == -2);
    CHECK(frugal_session_resolve(s, huge, &err) == FRUGAL_TOO_BIG);
    CHECK(frugal_session_resolve(s, overflow, &err) == FRUGAL_TOO_BIG);
    frugal_session_init(&s, mem, frugal_session_bytes(&plan), &plan, fr_isa_scalar, NULL, 100000, &err);
    CHECK(frugal_session_resolve(s, big, &err) == FRUGAL_TOO_BIG && err.want == 100000 && err.got > 100000);
    CHECK(frugal_session_arena_bytes(s) == 0 && frugal_session_run(s, NULL, 0, NULL, NULL, &err) == FRUGAL_BAD_ARG);
    CHECK(frugal_session_resolve(NULL, big, NULL) == FRUGAL_BAD_ARG);
    free(mem), free(file), free(b);
}

/* A chain of equal temporaries needs two places. */
static void test_arena(void) {
    pb *p = pb_new();
    int32_t from = pb_input(p, FR_F32, PB_LIST(1024));
    for (int i = 0; i < 20; i++) {
        const int32_t to = i < 19 ? pb_temp(p, FR_F32, 0, PB_LIST(1024)) : pb_output(p, FR_F32, PB_LIST(1024));
        pb_step(p, FRUGAL_OP_UNARY, PB_LIST(from), PB_LIST(to), PB_LIST(FRUGAL_U_NEG, 0, 0));
        from = to;
    }
    float *x = floats(1024), *y = alloc(4096);
    io t = {.dims = {1024}, .in = {x}, .out = {y}, .out_bytes = {4096}, .limit = 8192};
    CHECK(run_plan(p, &t) == FRUGAL_OK);
    CHECK(memcmp(x, y, 4096) == 0);
    free(x), free(y);
}

static frugal_status open_status(pb *p) {
    size_t size;
    uint8_t *file = pb_finish(p, &size);
    frugal_plan plan;
    frugal_session *s;
    frugal_error err = {.what = NULL};
    frugal_status st = frugal_plan_open(&plan, file, size, &err);
    if (!st) {
        void *mem = alloc(frugal_session_bytes(&plan));
        st = frugal_session_init(&s, mem, frugal_session_bytes(&plan), &plan, fr_isa_scalar, NULL, 1 << 20, &err);
        free(mem);
    }
    if (st)
        CHECK(err.what != NULL && err.status == (int32_t)st);
    free(file), free(p);
    return st;
}

static void test_bad_plans(void) {
    pb *p;
    CHECK(open_status(small_model()) == FRUGAL_OK);
#define BAD(change, want)                                                                                                        \
    p = small_model();                                                                                                           \
    change;                                                                                                                      \
    CHECK(open_status(p) == (want))
    BAD(p->tensors[3].bytes++, FRUGAL_BAD_PLAN);
    BAD(p->tensors[3].offset = 64, FRUGAL_BAD_PLAN);
    BAD(p->tensors[3].offset = UINT64_MAX - 63, FRUGAL_BAD_PLAN);
    BAD(p->tensors[3].dims[0] = -1, FRUGAL_BAD_PLAN);
    BAD(p->tensors[0].dims[0] = -4, FRUGAL_BAD_PLAN);
    BAD(p->tensors[0].dims[0] = INT64_MIN, FRUGAL_BAD_PLAN);
    BAD(p->tensors[0].rank = 9, FRUGAL_BAD_PLAN);
    BAD(p->tensors[0].dims[7] = 1, FRUGAL_BAD_PLAN);
    BAD(p->tensors[0].dtype = 8, FRUGAL_BAD_PLAN);
    BAD(p->tensors[0].kind = 5, FRUGAL_BAD_PLAN);
    BAD(p->tensors[0].layout = FRUGAL_W8_P16, FRUGAL_BAD_PLAN);
    BAD(p->tensors[4].layout = FRUGAL_A8_TOKEN, FRUGAL_BAD_PLAN);
    BAD(p->tensors[2].alias = 2, FRUGAL_BAD_PLAN);
    BAD(p->tensors[2].alias = 99, FRUGAL_BAD_PLAN);
    BAD(p->tensors[2].dtype = FR_I32, FRUGAL_BAD_PLAN);
    BAD(p->tensors[0].alias = 1, FRUGAL_BAD_PLAN);
    BAD(p->tensors[0].name = 6, FRUGAL_BAD_PLAN);
    BAD(p->dims[2].a = -3, FRUGAL_BAD_PLAN);
    BAD(p->dims[0].a = 1, FRUGAL_BAD_PLAN);
    BAD(p->dims[0].b = 3, FRUGAL_BAD_PLAN);
    BAD(p->dims[0].op = 11, FRUGAL_BAD_PLAN);
    BAD(p->steps[0].op = FRUGAL_OP_COUNT, FRUGAL_UNSUPPORTED);
    BAD(p->steps[0].n_in = 1, FRUGAL_BAD_PLAN);
    BAD(p->steps[0].n_out = 0, FRUGAL_BAD_PLAN);
    BAD(p->steps[2].args = 6, FRUGAL_BAD_PLAN);
    BAD(p->steps[2].args = UINT32_MAX, FRUGAL_BAD_PLAN);
    BAD(p->steps[2].attrs = 5, FRUGAL_BAD_PLAN);
    BAD(p->steps[2].n_attr = 1, FRUGAL_BAD_PLAN);
    BAD(p->attrs[0] = FRUGAL_UNARY_COUNT, FRUGAL_BAD_PLAN);
    BAD(p->attrs[2] = pb_float(NAN), FRUGAL_BAD_PLAN);
    BAD(p->args[0] = -1, FRUGAL_BAD_PLAN);
    BAD(p->args[0] = 6, FRUGAL_BAD_PLAN);
    BAD(p->args[2] = 0, FRUGAL_BAD_PLAN); /* writes an input */
    BAD(p->args[2] = 3, FRUGAL_BAD_PLAN); /* writes a constant */
    BAD(p->args[2] = 2, FRUGAL_BAD_PLAN); /* writes an alias */
    BAD(p->args[4] = 5, FRUGAL_BAD_PLAN); /* one written twice, one never */
    BAD(p->args[3] = 5, FRUGAL_BAD_PLAN); /* read before written */
    BAD(p->n_steps = 2, FRUGAL_BAD_PLAN); /* an output never written */
#undef BAD
}

static void test_bad_files(void) {
    size_t size;
    pb *b = small_model();
    uint8_t *file = pb_finish(b, &size), *copy = alloc(size + 64);
    frugal_plan plan;
    frugal_plan_header *h = (frugal_plan_header *)(void *)copy;
    frugal_plan_section *s = (frugal_plan_section *)(void *)(copy + 64);
#define BAD(change, want)                                                                                                        \
    memcpy(copy, file, size);                                                                                                    \
    change;                                                                                                                      \
    CHECK(frugal_plan_open(&plan, copy, size, NULL) == (want))
    BAD((void)0, FRUGAL_OK);
    BAD(h->magic[0] = 'G', FRUGAL_BAD_PLAN);
    BAD(h->version = 2, FRUGAL_BAD_VERSION);
    BAD(h->bytes++, FRUGAL_BAD_PLAN);
    BAD(h->sections = 17, FRUGAL_BAD_PLAN);
    BAD(h->sections = 1, FRUGAL_BAD_PLAN); /* no TEXT */
    BAD(s[3].offset += 32, FRUGAL_BAD_PLAN);
    BAD(s[3].offset = UINT64_MAX - 63, FRUGAL_BAD_PLAN);
    BAD(s[3].bytes = UINT64_MAX, FRUGAL_BAD_PLAN);
    BAD(s[3].count++, FRUGAL_BAD_PLAN);
    BAD(s[3].kind = FRUGAL_SECTION_TEXT, FRUGAL_BAD_PLAN);
    BAD(s[3].kind = 0, FRUGAL_BAD_PLAN);
    BAD(s[7].offset -= 64, FRUGAL_BAD_PLAN);
    BAD(s[1].bytes = 5, FRUGAL_BAD_PLAN); /* TEXT does not end with NUL */
    BAD(s[1].bytes = 0, FRUGAL_BAD_PLAN);
#undef BAD
    memcpy(copy, file, size);
    for (size_t n = 0; n < size; n += 37)
        CHECK(frugal_plan_open(&plan, copy, n, NULL) == FRUGAL_BAD_PLAN);
    memmove(copy + 8, copy, size);
    CHECK(frugal_plan_open(&plan, copy + 8, size, NULL) == FRUGAL_BAD_ARG);
    CHECK(frugal_plan_open(&plan, NULL, size, NULL) == FRUGAL_BAD_ARG);
    free(file), free(copy), free(b);
}

/* Errors that only shapes or values show. */
static void test_bad_values(void) {
    const float table[6] = {0};
    const int64_t ids[2][2] = {{0, 3}, {-4, 0}};
    for (int k = 0; k < 4; k++) {
        float y[4];
        pb *p = pb_new();
        const int32_t tt =
            k < 2 ? pb_const(p, FR_F32, 0, PB_LIST(3, 2), table, 24) : pb_const(p, FR_I8, 0, PB_LIST(3, 2), table, 6);
        const int32_t ts = pb_const(p, FR_F32, 0, PB_LIST(3, 1), table, 12), ti = pb_input(p, FR_I64, PB_LIST(2)),
                      ty = pb_output(p, FR_F32, PB_LIST(2, 2));
        if (k < 2)
            pb_step(p, FRUGAL_OP_GATHER, PB_LIST(tt, ti), PB_LIST(ty), PB_LIST(0));
        else
            pb_step(p, FRUGAL_OP_GATHER_DEQUANTIZE, PB_LIST(tt, ts, ti), PB_LIST(ty), PB_NONE);
        size_t size;
        uint8_t *file = pb_finish(p, &size);
        io t = {.dims = {2}, .in = {ids[k % 2]}, .out = {y}};
        CHECK(live(file, size, &t, "auto", 1) == FRUGAL_BAD_INPUT);
        CHECK(t.err.step == 0 && t.err.tensor == ti && t.err.want == 3 && t.err.got == (k % 2 ? -4 : 3));
        free(file), free(p);
    }
    pb *p = pb_new();
    const int64_t s = pb_symbol(p, 0, 0), u = pb_symbol(p, 1, 0);
    const int32_t a = pb_input(p, FR_F32, PB_LIST(s)), b = pb_input(p, FR_F32, PB_LIST(u)), y = pb_output(p, FR_F32, PB_LIST(s));
    pb_step(p, FRUGAL_OP_BINARY, PB_LIST(a, b), PB_LIST(y), PB_LIST(FRUGAL_B_ADD));
    size_t size;
    uint8_t *file = pb_finish(p, &size);
    float zeros[8] = {0}, out[8];
    io t = {.dims = {4, 5}, .in = {zeros, zeros}, .out = {out}};
    CHECK(live(file, size, &t, "auto", 1) == FRUGAL_BAD_SHAPE && t.err.step == 0 && t.err.tensor == b);
    set_dims(&t, 4, 1, -1);
    CHECK(live(file, size, &t, "auto", 1) == FRUGAL_OK);
    free(file), free(p);
}

/* ---- the pool ---- */

static void count_task(void *ctx, int64_t i, int32_t thread) {
    __atomic_fetch_add(&((int *)ctx)[i], 1, __ATOMIC_RELAXED);
    assert(thread >= 0 && thread < 4);
}

static void test_pool(void) {
    enum { ITEMS = 1000 };
    static int counts[ITEMS];
    frugal_pool *pool;
    void *mem = alloc(frugal_pool_bytes(4));
    CHECK(frugal_pool_start(&pool, mem, frugal_pool_bytes(4) - 1, 4) == FRUGAL_BAD_ARG);
    CHECK(frugal_pool_start(&pool, mem, frugal_pool_bytes(4), 4) == FRUGAL_OK && frugal_pool_threads(pool) == 4);
    int runs = 0;
    for (; runs < 3000; runs++)
        fr_pool_run(pool, runs % 50, count_task, counts);
    for (int i = 0; i < ITEMS; i++) {
        int want = 0;
        for (int k = 0; k < runs; k++)
            want += i < k % 50;
        if (i < 60)
            CHECK(counts[i] == want);
    }
    memset(counts, 0, sizeof counts);
    fr_pool_run(pool, ITEMS, count_task, counts);
    fr_pool_run(NULL, ITEMS, count_task, counts);
    int ok = 1;
    for (int i = 0; i < ITEMS; i++)
        ok = ok && counts[i] == 2;
    CHECK(ok);
    const pid_t child = fork();
    if (child == 0) { /* has no workers: must neither wait for them nor join them */
        memset(counts, 0, sizeof counts);
        fr_pool_run(pool, ITEMS, count_task, counts);
        frugal_pool_stop(pool);
        _exit(counts[0] == 1 && counts[ITEMS - 1] == 1 ? 0 : 1);
    }
    int status = 1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    frugal_pool_stop(pool);
    free(mem);
    CHECK(frugal_cpu_count() >= 1 && frugal_pool_threads(NULL) == 1);
    const int64_t now = frugal_clock();
    CHECK(frugal_clock() >= now);
}

int main(int argc, char **argv) {
    quick = argc > 1 && strcmp(argv[1], "quick") == 0; /* else the argument is a folder for seeds */
    seed_dir = argc > 1 && !quick ? argv[1] : NULL;
    test_unary();
    test_unary_types();
    test_small_types();
    test_linear_integer();
    test_quantize_types();
    test_binary();
    test_binary_int();
    test_binary_types();
    test_where();
    test_cast();
    test_transpose();
    test_big_transpose();
    test_expand_slice();
    test_concat();
    test_gather();
    test_gather_dequantize();
    test_range_dims_fill();
    test_cumsum();
    test_arg();
    test_reduce();
    test_softmax();
    test_norm();
    test_linear();
    test_quantized_result();
    test_gather_packed();
    test_matmul();
    test_attention();
    test_attention_padding();
    test_attention_cache();
    test_attention_kept();
    test_bad_length();
    test_tensor_scatter();
    test_rotary();
    test_linear_attention();
    test_causal_conv();
    test_det_and_other_products();
    test_quantize();
    test_session();
    test_arena();
    test_bad_plans();
    test_bad_files();
    test_bad_values();
    test_pool();
    return check_report();
}
