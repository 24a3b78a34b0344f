/* ops_elementwise.c - UNARY, BINARY, WHERE, CAST: one output element from the elements at the same (broadcast) place. */
#include <math.h>

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
           kind == FRUGAL_U_RELU;
}

/* Those that need no polynomial: the instruction set table has only float32. */
static bool unary_of_double(int kind) {
    switch (kind) {
    case FRUGAL_U_NEG:
    case FRUGAL_U_ABS:
    case FRUGAL_U_SIGN:
    case FRUGAL_U_SQRT:
    case FRUGAL_U_RECIPROCAL:
    case FRUGAL_U_FLOOR:
    case FRUGAL_U_CEIL:
    case FRUGAL_U_ROUND:
    case FRUGAL_U_RELU:
    case FRUGAL_U_LEAKY_RELU:
    case FRUGAL_U_CLIP:
    case FRUGAL_U_HARD_SIGMOID:
    case FRUGAL_U_HARD_SWISH:
        return true;
    default:
        return false;
    }
}

frugal_status fr_unary_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    const int64_t kind = c->attrs[0];
    FR_TRY(fr_same_shape(c, y, x, 1));
    if (kind == FRUGAL_U_ISNAN) {
        FR_DTYPE(c, is_float(x->dtype) && y->dtype == FR_BOOL, "isnan is of float32 or float64 and gives bool");
        return FRUGAL_OK;
    }
    FR_DTYPE(c, x->dtype == y->dtype, "input and output must have one data type");
    if (kind == FRUGAL_U_COPY)
        return FRUGAL_OK;
    if (kind == FRUGAL_U_NOT) {
        FR_DTYPE(c, x->dtype == FR_BOOL, "not is of bool");
        return FRUGAL_OK;
    }
    const bool known =
        x->dtype == FR_F32 || (x->dtype == FR_F64 && unary_of_double((int)kind)) || (is_int(x->dtype) && unary_of_int((int)kind));
    FR_DTYPE(c, known, "this function is not available for this data type");
    return FRUGAL_OK;
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
    case FRUGAL_U_RELU:
        return x < 0 ? 0 : x;
    case FRUGAL_U_LEAKY_RELU:
        return x < 0 ? p * x : x;
    case FRUGAL_U_CLIP:
        x = x < p ? p : x;
        return x > q ? q : x;
    case FRUGAL_U_HARD_SIGMOID:
        x = p * x + q;
        break;
    default: /* FRUGAL_U_HARD_SWISH */ {
        double h = x / 6 + 0.5;
        h = h < 0 ? 0 : h > 1 ? 1 : h;
        return x * h;
    }
    }
    return x < 0 ? 0 : x > 1 ? 1 : x;
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
    default: /* FRUGAL_U_CLIP */
        return x < low ? low : x > high ? high : x;
    }
}

/* uint64 runs as int64: only values of 2^63 and above differ, and CLIP and RELU of those are not used by models. */
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
    default:
        UNARY_INT(int64_t);
        break;
    }
}

static void unary_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const unary_ctx *u = p;
    const float *xf = (const float *)(const void *)u->x;
    const double *xd = (const double *)(const void *)u->x;
    double *yd = (double *)(void *)u->y;
    (void)thread;
    if (u->kind == FRUGAL_U_COPY) {
        const int64_t size = fr_dtype_bytes(u->dtype);
        memcpy(u->y + begin * size, u->x + begin * size, (size_t)((end - begin) * size));
    } else if (u->kind == FRUGAL_U_NOT) {
        for (int64_t i = begin; i < end; i++)
            u->y[i] = u->x[i] == 0;
    } else if (u->kind == FRUGAL_U_ISNAN && u->dtype == FR_F32) {
        for (int64_t i = begin; i < end; i++)
            u->y[i] = xf[i] != xf[i];
    } else if (u->kind == FRUGAL_U_ISNAN) {
        for (int64_t i = begin; i < end; i++)
            u->y[i] = xd[i] != xd[i];
    } else if (u->dtype == FR_F32) {
        u->isa->unary(u->kind, (float *)(void *)u->y + begin, xf + begin, end - begin, (float)u->p, (float)u->q);
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

/* ---- powers, without libm so that every machine gives the same bits ---- */

/* x a finite normal or subnormal number > 0.  Relative error about 1e-15. */
static double log_of(double x) {
    uint64_t bits;
    int64_t e = 0;
    if (x < 0x1p-1022)
        x *= 0x1p54, e = -54;
    memcpy(&bits, &x, 8);
    e += (int64_t)(bits >> 52) - 1023;
    bits = (bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1023) << 52;
    double m;
    memcpy(&m, &bits, 8);
    if (m > 1.4142135623730951)
        m *= 0.5, e++;
    const double f = (m - 1) / (m + 1), s = f * f; /* log m = 2 atanh f, |f| < 0.172 */
    double sum = 0;
    for (int k = 23; k >= 1; k -= 2)
        sum = sum * s + 1.0 / k;
    return 2 * f * sum + (double)e * 0.69314718055994531;
}

static double exp_of(double x) {
    if (x > 800)
        return (double)INFINITY;
    if (x < -800)
        return 0;
    const double n = rint(x * 1.4426950408889634), r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
    double sum = 1;
    for (int k = 14; k >= 1; k--)
        sum = 1 + sum * r / k;
    /* Two factors, since 2^n alone can lie outside the normal numbers. */
    const int64_t half = (int64_t)n / 2, rest = (int64_t)n - half;
    const uint64_t b0 = (uint64_t)(half + 1023) << 52, b1 = (uint64_t)(rest + 1023) << 52;
    double s0, s1;
    memcpy(&s0, &b0, 8);
    memcpy(&s1, &b1, 8);
    return sum * s0 * s1;
}

static double power_of_int(double x, int64_t n) {
    double r = 1;
    for (uint64_t k = n < 0 ? (uint64_t)-n : (uint64_t)n; k > 0; k >>= 1, x *= x) {
        if (k & 1)
            r *= x;
    }
    return n < 0 ? 1 / r : r;
}

/* The special cases of IEEE 754 pow. */
static double power(double x, double y) {
    if (y == 0 || x == 1)
        return 1;
    if (x != x || y != y)
        return x + y;
    if (y == 0.5 && x >= 0)
        return sqrt(x);
    const bool whole = rint(y) == y, small = fabs(y) <= 64;
    if (whole && small)
        return power_of_int(x, (int64_t)y);
    const bool odd = whole && fabs(y) < 0x1p53 && fmod(y, 2) != 0;
    const double a = fabs(x);
    double r;
    if (a == 1)
        r = 1;
    else if (fabs(y) == (double)INFINITY)
        r = (a > 1) == (y > 0) ? (double)INFINITY : 0;
    else if (a == 0 || a == (double)INFINITY)
        r = (a > 1) == (y > 0) ? (double)INFINITY : 0;
    else if (x < 0 && !whole)
        return (double)NAN;
    else
        r = exp_of(y * log_of(a));
    return odd && signbit(x) ? -r : r;
}

/* ---- BINARY ---- */

typedef struct binary_ctx {
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
        SLOW(float, power((double)p, (double)q));
    case FRUGAL_B_FMOD:
        SLOW(float, fmodf(p, q));
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
        SLOW(double, power(p, q));
    case FRUGAL_B_FMOD:
        SLOW(double, fmod(p, q));
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

static void binary_inner(const void *ctx, int64_t out, const int64_t *at, const int64_t *step, int64_t n) {
    const binary_ctx *t = ctx;
    void *y = t->y + out * t->y_size;
    const void *a = t->a + at[0] * t->size, *b = t->b + at[1] * t->size;
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
    const bool logic = kind >= FRUGAL_B_AND, compare = kind >= FRUGAL_B_EQUAL && kind <= FRUGAL_B_GREATER_EQUAL;
    FR_TRY(check_broadcast(c, 2));
    FR_DTYPE(c, t == c->in[1]->dtype, "both operands must have one data type");
    FR_DTYPE(c, y == (logic || compare ? FR_BOOL : t), "the output has another data type than this function gives");
    const bool known =
        logic ? t == FR_BOOL : is_int(t) || (is_float(t) && kind != FRUGAL_B_MOD) || (t == FR_BOOL && kind == FRUGAL_B_EQUAL);
    FR_DTYPE(c, known, "this function is not available for this data type");
    return FRUGAL_OK;
}

frugal_status fr_binary_run(const fr_call *c) {
    const int t = c->in[0]->dtype;
    const binary_ctx b = {c->out[0]->data,
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
    const uint8_t *cond = t->cond + at[0];
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
    const where_ctx t = {c->out[0]->data, c->in[0]->data, c->in[1]->data, c->in[2]->data, fr_dtype_bytes(c->out[0]->dtype)};
    fr_walk w;
    fr_walk_init(&w, c->out[0]);
    for (int k = 0; k < 3; k++)
        fr_walk_broadcast(&w, c->in[k]);
    fr_walk_run(c, &w, where_inner, &t);
    return FRUGAL_OK;
}
