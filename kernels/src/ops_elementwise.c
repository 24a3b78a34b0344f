/* ops_elementwise.c - UNARY, BINARY, WHERE, CAST: one output element from the elements at the same (broadcast) place. */
#include "dmath.h"
#include "ops.h"

enum { GRAIN = 16384 };

static bool is_float(int t) { return t == FR_F32 || t == FR_F64; }
static bool is_int(int t) { return (t >= FR_U8 && t <= FR_I64) || t == FR_U32 || t == FR_U64; }

/* ---- UNARY ---- */

typedef struct unary_ctx {
    const frugal_isa *isa;
    uint8_t *y;
    const uint8_t *x;
    int kind, dtype;
    double p, q;
} unary_ctx;

static bool unary_of_int(int kind) {
    return kind == FRUGAL_U_NEG || kind == FRUGAL_U_ABS || kind == FRUGAL_U_SIGN || kind == FRUGAL_U_CLIP ||
           kind == FRUGAL_U_RELU || kind == FRUGAL_U_BIT_NOT;
}

/* Those that are float64 inside, also for float32. */
static bool unary_in_double(int kind) { return kind >= FRUGAL_U_TAN && kind <= FRUGAL_U_SHRINK; }
static bool unary_tests(int kind) { return kind == FRUGAL_U_ISNAN || kind == FRUGAL_U_ISINF; }

frugal_status fr_unary_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    const int kind = (int)c->attrs[0];
    FR_TRY(fr_same_shape(c, y, x, 1));
    if (unary_tests(kind)) {
        FR_DTYPE(c, is_float(x->dtype) && y->dtype == FR_BOOL, "isnan and isinf are of float32 or float64 and give bool");
        return FRUGAL_OK;
    }
    FR_DTYPE(c, x->dtype == y->dtype, "input and output must have one data type");
    if (kind == FRUGAL_U_COPY)
        return FRUGAL_OK;
    if (kind == FRUGAL_U_NOT) {
        FR_DTYPE(c, x->dtype == FR_BOOL, "not is of bool");
        return FRUGAL_OK;
    }
    const bool known = (is_float(x->dtype) && kind != FRUGAL_U_BIT_NOT) || (is_int(x->dtype) && unary_of_int(kind));
    FR_DTYPE(c, known, "this function is not available for this data type");
    return FRUGAL_OK;
}

static double gate(double x, double low, double high) { return x < low ? low : x > high ? high : x; }
static double sigmoid(double x) { return 1 / (1 + fr_exp64(-x)); }
static double softplus(double x) { return x > 0 ? x + fr_d_log1p(fr_exp64(-x)) : fr_d_log1p(fr_exp64(x)); }

/* The activations, as enum frugal_unary and fmath.h define them. */
static double activation_double(int kind, double x, double p, double q) {
    switch (kind) {
    case FRUGAL_U_SIGMOID:
        return sigmoid(x);
    case FRUGAL_U_RELU:
        return x < 0 ? 0 : x;
    case FRUGAL_U_LEAKY_RELU:
        return x < 0 ? p * x : x;
    case FRUGAL_U_CLIP:
        x = x < p ? p : x;
        return x > q ? q : x;
    case FRUGAL_U_GELU:
        return 0.5 * x * (1 + fr_d_erf(x * 0.70710678118654752));
    case FRUGAL_U_GELU_TANH:
        return 0.5 * x * (1 + fr_d_tanh(0.79788456080286536 * (x + 0.044715 * x * x * x)));
    case FRUGAL_U_SILU:
        return x * sigmoid(x);
    case FRUGAL_U_SOFTPLUS:
        return softplus(x);
    case FRUGAL_U_ELU:
        return x < 0 ? p * fr_d_expm1(x) : x;
    case FRUGAL_U_HARD_SIGMOID:
        return gate(p * x + q, 0, 1);
    case FRUGAL_U_HARD_SWISH:
        return x * gate(x / 6 + 0.5, 0, 1);
    default: /* FRUGAL_U_SHRINK */
        return x < -p ? x + q : x > p ? x - q : x != x ? x : 0;
    }
}

static double unary_double(int kind, double x, double p, double q) {
    switch (kind) {
    case FRUGAL_U_NEG:
        return -x;
    case FRUGAL_U_ABS:
        return fabs(x);
    case FRUGAL_U_SIGN:
        return x > 0 ? 1 : x < 0 ? -1 : x;
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
        return fr_exp64(x);
    case FRUGAL_U_LOG:
        return fr_log64(x);
    case FRUGAL_U_ERF:
        return fr_d_erf(x);
    case FRUGAL_U_TANH:
        return fr_d_tanh(x);
    case FRUGAL_U_SIN:
        return fr_d_sin(x);
    case FRUGAL_U_COS:
        return fr_d_cos(x);
    case FRUGAL_U_TAN:
        return fr_d_tan(x);
    case FRUGAL_U_ASIN:
        return fr_d_asin(x);
    case FRUGAL_U_ACOS:
        return fr_d_acos(x);
    case FRUGAL_U_ATAN:
        return fr_d_atan(x);
    case FRUGAL_U_SINH:
        return fr_d_sinh(x);
    case FRUGAL_U_COSH:
        return fr_d_cosh(x);
    case FRUGAL_U_ASINH:
        return fr_d_asinh(x);
    case FRUGAL_U_ACOSH:
        return fr_d_acosh(x);
    case FRUGAL_U_ATANH:
        return fr_d_atanh(x);
    default:
        return activation_double(kind, x, p, q);
    }
}

/* A float limit as an integer limit: toward zero, saturated. */
static int64_t limit_of(double v, int64_t low, int64_t high) {
    return v <= (double)low ? low : v >= (double)high ? high : (int64_t)v;
}

/* Wraps as the processor does: negating the smallest value gives itself. */
static int64_t unary_int(int kind, int64_t x, int64_t low, int64_t high) {
    switch (kind) {
    case FRUGAL_U_NEG:
        return (int64_t)(0 - (uint64_t)x);
    case FRUGAL_U_ABS:
        return x < 0 ? (int64_t)(0 - (uint64_t)x) : x;
    case FRUGAL_U_SIGN:
        return x > 0 ? 1 : x < 0 ? -1 : 0;
    case FRUGAL_U_RELU:
        return x < 0 ? 0 : x;
    case FRUGAL_U_BIT_NOT:
        return ~x;
    default: /* FRUGAL_U_CLIP */
        x = x < low ? low : x;
        return x > high ? high : x;
    }
}

/* uint64 has values that int64 lacks. */
static uint64_t unary_u64(int kind, uint64_t x, uint64_t low, uint64_t high) {
    switch (kind) {
    case FRUGAL_U_NEG:
        return 0 - x;
    case FRUGAL_U_SIGN:
        return x > 0;
    case FRUGAL_U_BIT_NOT:
        return ~x;
    case FRUGAL_U_CLIP:
        x = x < low ? low : x;
        return x > high ? high : x;
    default: /* FRUGAL_U_ABS, FRUGAL_U_RELU */
        return x;
    }
}
static uint64_t limit_u64(double v) { return !(v > 0) ? 0 : v >= 0x1p64 ? UINT64_MAX : (uint64_t)v; }

#define UNARY_INT(T)                                                                                                             \
    do {                                                                                                                         \
        T *y = (T *)(void *)u->y;                                                                                                \
        const T *x = (const T *)(const void *)u->x;                                                                              \
        for (int64_t i = begin; i < end; i++)                                                                                    \
            y[i] = (T)unary_int(u->kind, (int64_t)x[i], low, high);                                                              \
    } while (0)

static void unary_ints(const unary_ctx *u, int64_t begin, int64_t end) {
    const int64_t low = limit_of(u->p, INT64_MIN, INT64_MAX), high = limit_of(u->q, INT64_MIN, INT64_MAX);
    switch (u->dtype) {
    case FR_U8:
        UNARY_INT(uint8_t);
        break;
    case FR_I8:
        UNARY_INT(int8_t);
        break;
    case FR_U16:
        UNARY_INT(uint16_t);
        break;
    case FR_I16:
        UNARY_INT(int16_t);
        break;
    case FR_I32:
        UNARY_INT(int32_t);
        break;
    case FR_U32:
        UNARY_INT(uint32_t);
        break;
    case FR_U64:
        for (int64_t i = begin; i < end; i++)
            ((uint64_t *)(void *)u->y)[i] =
                unary_u64(u->kind, ((const uint64_t *)(const void *)u->x)[i], limit_u64(u->p), limit_u64(u->q));
        break;
    default:
        UNARY_INT(int64_t);
        break;
    }
}

/* What has a loop in the instruction set's file. */
static bool unary_rows(const unary_ctx *u, int64_t begin, int64_t end) {
    if (is_float(u->dtype) && !unary_tests(u->kind))
        return false;
    const int64_t size = fr_dtype_bytes(u->dtype), y_size = unary_tests(u->kind) ? 1 : size;
    return u->isa->rows.unary(u->kind, u->dtype, u->y + begin * y_size, u->x + begin * size, end - begin, u->p != 0, u->q != 0);
}

static void unary_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const unary_ctx *u = p;
    const float *xf = (const float *)(const void *)u->x;
    const double *xd = (const double *)(const void *)u->x;
    float *yf = (float *)(void *)u->y;
    double *yd = (double *)(void *)u->y;
    (void)thread;
    if (u->kind == FRUGAL_U_COPY) {
        const int64_t size = fr_dtype_bytes(u->dtype);
        memcpy(u->y + begin * size, u->x + begin * size, (size_t)((end - begin) * size));
    } else if (unary_rows(u, begin, end)) {
        return;
    } else if (u->dtype == FR_F32 && unary_in_double(u->kind)) {
        for (int64_t i = begin; i < end; i++)
            yf[i] = (float)unary_double(u->kind, (double)xf[i], (double)(float)u->p, (double)(float)u->q);
    } else if (u->dtype == FR_F32) {
        u->isa->unary(u->kind, yf + begin, xf + begin, end - begin, (float)u->p, (float)u->q);
    } else if (u->dtype == FR_F64) {
        for (int64_t i = begin; i < end; i++)
            yd[i] = unary_double(u->kind, xd[i], u->p, u->q);
    } else {
        unary_ints(u, begin, end);
    }
}

frugal_status fr_unary_run(const fr_call *c) {
    const unary_ctx u = {c->isa,          c->out[0]->data,      c->in[0]->data,      (int)c->attrs[0],
                         c->in[0]->dtype, fr_attr_double(c, 1), fr_attr_double(c, 2)};
    fr_parallel(c, c->out[0]->n, u.kind == FRUGAL_U_COPY ? 4 * GRAIN : GRAIN / 4, unary_range, &u);
    return FRUGAL_OK;
}

/* ---- BINARY ---- */

typedef struct binary_ctx {
    const frugal_isa *isa;
    uint8_t *y;
    const uint8_t *a, *b;
    int kind, dtype;
    int64_t size, y_size;
} binary_ctx;

#define LOOP(R, sa, sb, E)                                                                                                       \
    for (int64_t i = 0; i < n; i++) {                                                                                            \
        const ELEMENT p = a[i * (sa)], q = b[i * (sb)];                                                                          \
        ((R *)y)[i] = (R)(E);                                                                                                    \
    }                                                                                                                            \
    break
/* The common steps get a loop of their own, which a compiler can vectorise. */
#define FAST(R, E)                                                                                                               \
    if (sa == 1 && sb == 1) {                                                                                                    \
        LOOP(R, 1, 1, E);                                                                                                        \
    }                                                                                                                            \
    if (sa == 1 && sb == 0) {                                                                                                    \
        LOOP(R, 1, 0, E);                                                                                                        \
    }                                                                                                                            \
    LOOP(R, sa, sb, E)
#define SLOW(R, E) LOOP(R, sa, sb, E)

/* The remainder with the sign of the divisor, also when it is 0. */
static double floored(double p, double q) {
    const double r = fmod(p, q);
    if (r == 0)
        return copysign(r, q);
    return (r < 0) != (q < 0) ? r + q : r;
}

#define ELEMENT float
static void binary_f32(int kind, void *y, const float *a, const float *b, int64_t sa, int64_t sb, int64_t n) {
    switch (kind) {
    case FRUGAL_B_ADD:
        FAST(float, p + q);
    case FRUGAL_B_SUB:
        FAST(float, p - q);
    case FRUGAL_B_MUL:
        FAST(float, p *q);
    case FRUGAL_B_DIV:
        FAST(float, p / q);
    case FRUGAL_B_MIN:
        SLOW(float, p < q || p != p ? p : q);
    case FRUGAL_B_MAX:
        SLOW(float, p > q || p != p ? p : q);
    case FRUGAL_B_POW:
        SLOW(float, fr_d_pow((double)p, (double)q));
    case FRUGAL_B_FMOD:
        SLOW(float, fmodf(p, q));
    case FRUGAL_B_MOD:
        SLOW(float, floored((double)p, (double)q));
    case FRUGAL_B_EQUAL:
        SLOW(uint8_t, p == q);
    case FRUGAL_B_LESS:
        SLOW(uint8_t, p < q);
    case FRUGAL_B_LESS_EQUAL:
        SLOW(uint8_t, p <= q);
    case FRUGAL_B_GREATER:
        SLOW(uint8_t, p > q);
    case FRUGAL_B_GREATER_EQUAL:
        SLOW(uint8_t, p >= q);
    default:
        break;
    }
}
#undef ELEMENT

#define ELEMENT double
static void binary_f64(int kind, void *y, const double *a, const double *b, int64_t sa, int64_t sb, int64_t n) {
    switch (kind) {
    case FRUGAL_B_ADD:
        SLOW(double, p + q);
    case FRUGAL_B_SUB:
        SLOW(double, p - q);
    case FRUGAL_B_MUL:
        SLOW(double, p *q);
    case FRUGAL_B_DIV:
        SLOW(double, p / q);
    case FRUGAL_B_MIN:
        SLOW(double, p < q || p != p ? p : q);
    case FRUGAL_B_MAX:
        SLOW(double, p > q || p != p ? p : q);
    case FRUGAL_B_POW:
        SLOW(double, fr_d_pow(p, q));
    case FRUGAL_B_FMOD:
        SLOW(double, fmod(p, q));
    case FRUGAL_B_MOD:
        SLOW(double, floored(p, q));
    case FRUGAL_B_EQUAL:
        SLOW(uint8_t, p == q);
    case FRUGAL_B_LESS:
        SLOW(uint8_t, p < q);
    case FRUGAL_B_LESS_EQUAL:
        SLOW(uint8_t, p <= q);
    case FRUGAL_B_GREATER:
        SLOW(uint8_t, p > q);
    case FRUGAL_B_GREATER_EQUAL:
        SLOW(uint8_t, p >= q);
    default:
        break;
    }
}
#undef ELEMENT

/* Integers: computed in 64 bits, stored modulo the width.  Division by zero gives 0, also as a remainder. */
static int64_t div_s(int64_t p, int64_t q) { return q == 0 ? 0 : q == -1 ? (int64_t)(0 - (uint64_t)p) : p / q; }
static int64_t rem_s(int64_t p, int64_t q) { return q == 0 || q == -1 ? 0 : p % q; }
static int64_t mod_s(int64_t p, int64_t q) {
    const int64_t r = rem_s(p, q);
    return r != 0 && (r < 0) != (q < 0) ? r + q : r;
}
static uint64_t div_u(uint64_t p, uint64_t q) { return q == 0 ? 0 : p / q; }
static uint64_t mod_u(uint64_t p, uint64_t q) { return q == 0 ? 0 : p % q; }
static uint64_t pow_u(uint64_t p, uint64_t q) {
    uint64_t r = 1;
    for (; q > 0; q >>= 1, p *= p) {
        if (q & 1)
            r *= p;
    }
    return r;
}
static int64_t pow_s(int64_t p, int64_t q) {
    if (q >= 0)
        return (int64_t)pow_u((uint64_t)p, (uint64_t)q);
    return p == 1 ? 1 : p == -1 ? (q & 1 ? -1 : 1) : 0;
}

#define BINARY_INT(NAME, T, W, DIV, MOD, REM, POW)                                                                               \
    static void NAME(int kind, void *y, const T *a, const T *b, int64_t sa, int64_t sb, int64_t n) {                             \
        switch (kind) {                                                                                                          \
        case FRUGAL_B_ADD:                                                                                                       \
            SLOW(T, (uint64_t)p + (uint64_t)q);                                                                                  \
        case FRUGAL_B_SUB:                                                                                                       \
            SLOW(T, (uint64_t)p - (uint64_t)q);                                                                                  \
        case FRUGAL_B_MUL:                                                                                                       \
            SLOW(T, (uint64_t)p * (uint64_t)q);                                                                                  \
        case FRUGAL_B_DIV:                                                                                                       \
            SLOW(T, DIV((W)p, (W)q));                                                                                            \
        case FRUGAL_B_MIN:                                                                                                       \
            SLOW(T, p < q ? p : q);                                                                                              \
        case FRUGAL_B_MAX:                                                                                                       \
            SLOW(T, p > q ? p : q);                                                                                              \
        case FRUGAL_B_POW:                                                                                                       \
            SLOW(T, POW((W)p, (W)q));                                                                                            \
        case FRUGAL_B_MOD:                                                                                                       \
            SLOW(T, MOD((W)p, (W)q));                                                                                            \
        case FRUGAL_B_FMOD:                                                                                                      \
            SLOW(T, REM((W)p, (W)q));                                                                                            \
        case FRUGAL_B_EQUAL:                                                                                                     \
            SLOW(uint8_t, p == q);                                                                                               \
        case FRUGAL_B_LESS:                                                                                                      \
            SLOW(uint8_t, p < q);                                                                                                \
        case FRUGAL_B_LESS_EQUAL:                                                                                                \
            SLOW(uint8_t, p <= q);                                                                                               \
        case FRUGAL_B_GREATER:                                                                                                   \
            SLOW(uint8_t, p > q);                                                                                                \
        case FRUGAL_B_GREATER_EQUAL:                                                                                             \
            SLOW(uint8_t, p >= q);                                                                                               \
        case FRUGAL_B_BIT_AND:                                                                                                   \
            SLOW(T, p & q);                                                                                                      \
        case FRUGAL_B_BIT_OR:                                                                                                    \
            SLOW(T, p | q);                                                                                                      \
        case FRUGAL_B_BIT_XOR:                                                                                                   \
            SLOW(T, p ^ q);                                                                                                      \
        case FRUGAL_B_SHIFT_LEFT:                                                                                                \
            SLOW(T, (uint64_t)q < 8 * sizeof(T) ? (uint64_t)p << (uint64_t)q : 0);                                               \
        case FRUGAL_B_SHIFT_RIGHT:                                                                                               \
            SLOW(T, (uint64_t)q < 8 * sizeof(T) ? (W)p >> (uint64_t)q : (W)p >> 63 >> 1);                                        \
        default:                                                                                                                 \
            break;                                                                                                               \
        }                                                                                                                        \
    }
#define ELEMENT int8_t
BINARY_INT(binary_i8, int8_t, int64_t, div_s, mod_s, rem_s, pow_s)
#undef ELEMENT
#define ELEMENT uint8_t
BINARY_INT(binary_u8, uint8_t, uint64_t, div_u, mod_u, mod_u, pow_u)
#undef ELEMENT
#define ELEMENT int16_t
BINARY_INT(binary_i16, int16_t, int64_t, div_s, mod_s, rem_s, pow_s)
#undef ELEMENT
#define ELEMENT uint16_t
BINARY_INT(binary_u16, uint16_t, uint64_t, div_u, mod_u, mod_u, pow_u)
#undef ELEMENT
#define ELEMENT int32_t
BINARY_INT(binary_i32, int32_t, int64_t, div_s, mod_s, rem_s, pow_s)
#undef ELEMENT
#define ELEMENT uint32_t
BINARY_INT(binary_u32, uint32_t, uint64_t, div_u, mod_u, mod_u, pow_u)
#undef ELEMENT
#define ELEMENT int64_t
BINARY_INT(binary_i64, int64_t, int64_t, div_s, mod_s, rem_s, pow_s)
#undef ELEMENT
#define ELEMENT uint64_t
BINARY_INT(binary_u64, uint64_t, uint64_t, div_u, mod_u, mod_u, pow_u)
#undef ELEMENT

#define ELEMENT uint8_t
static void binary_bool(int kind, void *y, const uint8_t *a, const uint8_t *b, int64_t sa, int64_t sb, int64_t n) {
    switch (kind) {
    case FRUGAL_B_AND:
        SLOW(uint8_t, p != 0 && q != 0);
    case FRUGAL_B_OR:
        SLOW(uint8_t, p != 0 || q != 0);
    case FRUGAL_B_XOR:
        SLOW(uint8_t, (p != 0) != (q != 0));
    case FRUGAL_B_EQUAL:
        SLOW(uint8_t, (p != 0) == (q != 0));
    default:
        break;
    }
}
#undef ELEMENT

/* x^q for the exponents that models have: the same bits as fr_d_pow. */
static bool power(const frugal_isa *isa, float *y, const float *x, float q, int64_t n) {
    if (q == 1.0f)
        memcpy(y, x, (size_t)n * sizeof *y);
    else if (q == 2.0f)
        isa->rows.binary(FRUGAL_B_MUL, FR_F32, y, x, x, 1, 1, n);
    else if (q == 3.0f)
        for (int64_t i = 0; i < n; i++)
            y[i] = (float)((double)x[i] * x[i] * x[i]);
    else if (q == -1.0f)
        isa->unary(FRUGAL_U_RECIPROCAL, y, x, n, 0, 0);
    else
        return false;
    return true;
}

static void binary_inner(const void *ctx, int64_t out, const int64_t *at, const int64_t *step, int64_t n) {
    const binary_ctx *t = ctx;
    void *y = t->y + out * t->y_size;
    const void *a = t->a + at[0] * t->size, *b = t->b + at[1] * t->size;
    const bool dense = (step[0] == 1 || step[0] == 0) && (step[1] == 1 || step[1] == 0);
    if (dense && t->isa->rows.binary(t->kind, t->dtype, y, a, b, (int)step[0], (int)step[1], n))
        return;
    if (t->kind == FRUGAL_B_POW && t->dtype == FR_F32 && step[0] == 1 && step[1] == 0 &&
        power(t->isa, y, a, *(const float *)b, n))
        return;
    switch (t->dtype) {
    case FR_F32:
        binary_f32(t->kind, y, a, b, step[0], step[1], n);
        break;
    case FR_F64:
        binary_f64(t->kind, y, a, b, step[0], step[1], n);
        break;
    case FR_I8:
        binary_i8(t->kind, y, a, b, step[0], step[1], n);
        break;
    case FR_U8:
        binary_u8(t->kind, y, a, b, step[0], step[1], n);
        break;
    case FR_I16:
        binary_i16(t->kind, y, a, b, step[0], step[1], n);
        break;
    case FR_U16:
        binary_u16(t->kind, y, a, b, step[0], step[1], n);
        break;
    case FR_I32:
        binary_i32(t->kind, y, a, b, step[0], step[1], n);
        break;
    case FR_U32:
        binary_u32(t->kind, y, a, b, step[0], step[1], n);
        break;
    case FR_I64:
        binary_i64(t->kind, y, a, b, step[0], step[1], n);
        break;
    case FR_U64:
        binary_u64(t->kind, y, a, b, step[0], step[1], n);
        break;
    default:
        binary_bool(t->kind, y, a, b, step[0], step[1], n);
        break;
    }
}

/* Every dim of y is that of an operand, the others being 1. */
static frugal_status check_broadcast(const fr_call *c, int n) {
    const fr_tensor *y = c->out[0];
    int rank = 0;
    for (int k = 0; k < n; k++) {
        if (!fr_broadcasts_to(c->in[k], y))
            return fr_fail(c, FRUGAL_BAD_SHAPE, k, -1, 0, 0, "an operand does not broadcast to the output's shape");
        rank = c->in[k]->rank > rank ? c->in[k]->rank : rank;
    }
    FR_SHAPE(c, y->rank == rank, "the output has another rank than its operands");
    for (int a = 0; a < rank; a++) {
        bool found = y->dims[a] == 1;
        for (int k = 0; k < n; k++) {
            const int at = a - (rank - c->in[k]->rank);
            found = found || (at >= 0 && c->in[k]->dims[at] == y->dims[a]);
        }
        if (!found)
            return fr_fail(c, FRUGAL_BAD_SHAPE, n, a, 1, y->dims[a], "the output is longer than its operands");
    }
    return FRUGAL_OK;
}

frugal_status fr_binary_check(const fr_call *c) {
    const int t = c->in[0]->dtype, y = c->out[0]->dtype;
    const int64_t kind = c->attrs[0];
    const bool logic = kind >= FRUGAL_B_AND && kind <= FRUGAL_B_XOR,
               compare = kind >= FRUGAL_B_EQUAL && kind <= FRUGAL_B_GREATER_EQUAL;
    FR_TRY(check_broadcast(c, 2));
    FR_DTYPE(c, t == c->in[1]->dtype, "both operands must have one data type");
    FR_DTYPE(c, y == (logic || compare ? FR_BOOL : t), "the output has another data type than this function gives");
    const bool known =
        logic ? t == FR_BOOL : is_int(t) || (is_float(t) && kind < FRUGAL_B_BIT_AND) || (t == FR_BOOL && kind == FRUGAL_B_EQUAL);
    FR_DTYPE(c, known, "this function is not available for this data type");
    return FRUGAL_OK;
}

frugal_status fr_binary_run(const fr_call *c) {
    const int t = c->in[0]->dtype;
    const binary_ctx b = {c->isa,
                          c->out[0]->data,
                          c->in[0]->data,
                          c->in[1]->data,
                          (int)c->attrs[0],
                          t,
                          fr_dtype_bytes(t),
                          fr_dtype_bytes(c->out[0]->dtype)};
    fr_walk w;
    fr_walk_init(&w, c->out[0]);
    fr_walk_broadcast(&w, c->in[0]);
    fr_walk_broadcast(&w, c->in[1]);
    fr_walk_run(c, &w, binary_inner, &b);
    return FRUGAL_OK;
}

/* ---- WHERE ---- */

typedef struct where_ctx {
    const frugal_isa *isa;
    uint8_t *y;
    const uint8_t *cond, *a, *b;
    int64_t size;
} where_ctx;

#define WHERE(T)                                                                                                                 \
    do {                                                                                                                         \
        T *y = (T *)(void *)t->y + out;                                                                                          \
        const T *a = (const T *)(const void *)t->a + at[1], *b = (const T *)(const void *)t->b + at[2];                          \
        for (int64_t i = 0; i < n; i++)                                                                                          \
            y[i] = cond[i * step[0]] ? a[i * step[1]] : b[i * step[2]];                                                          \
    } while (0)

static void where_inner(const void *ctx, int64_t out, const int64_t *at, const int64_t *step, int64_t n) {
    const where_ctx *t = ctx;
    const uint8_t *cond = t->cond + at[0], *choice[2] = {t->b + at[2] * t->size, t->a + at[1] * t->size};
    if (step[0] == 0) {
        const int k = *cond != 0;
        fr_copy(t->y + out * t->size, choice[k], step[2 - k], n, t->size);
        return;
    }
    if (step[0] == 1 && step[1] <= 1 && step[2] <= 1) {
        t->isa->rows.where((int)t->size, t->y + out * t->size, cond, choice[1], choice[0], (int)step[1], (int)step[2], n);
        return;
    }
    switch (t->size) {
    case 1:
        WHERE(uint8_t);
        break;
    case 2:
        WHERE(uint16_t);
        break;
    case 4:
        WHERE(uint32_t);
        break;
    default:
        WHERE(uint64_t);
        break;
    }
}

frugal_status fr_where_check(const fr_call *c) {
    FR_TRY(check_broadcast(c, 3));
    FR_DTYPE(c, c->in[0]->dtype == FR_BOOL, "the condition must be bool");
    FR_DTYPE(c, c->in[1]->dtype == c->out[0]->dtype && c->in[2]->dtype == c->out[0]->dtype,
             "both choices and the output must have one data type");
    return FRUGAL_OK;
}

frugal_status fr_where_run(const fr_call *c) {
    const where_ctx t = {c->isa,         c->out[0]->data, c->in[0]->data,
                         c->in[1]->data, c->in[2]->data,  fr_dtype_bytes(c->out[0]->dtype)};
    fr_walk w;
    fr_walk_init(&w, c->out[0]);
    for (int k = 0; k < 3; k++)
        fr_walk_broadcast(&w, c->in[k]);
    fr_walk_run(c, &w, where_inner, &t);
    return FRUGAL_OK;
}
