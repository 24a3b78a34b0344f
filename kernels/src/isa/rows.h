/* rows.h - loops over dense rows in plain C, which every instruction set's file compiles with its own flags (isa.h, fr_rows).
 *
 * One result comes from one place of the operands, so that a vector of any length gives the bits of the loop as it is written;
 * what has an order of its own (sums) is in simd.h.  Included by scalar.c and simd.h after fmath.h.
 */
#ifndef FRUGAL_ROWS_H
#define FRUGAL_ROWS_H
#include <stdbool.h>

/* Rows are equal or apart, never shifted. */
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wpass-failed" /* scalar.c, and CPUs without vectors for a type */
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define INDEPENDENT _Pragma("GCC ivdep")
#else
#define INDEPENDENT
#endif

/* TensorProto.DataType, as in ops.h, which the kernels do not include. */
enum {
    T_F32 = 1,
    T_U8 = 2,
    T_I8 = 3,
    T_U16 = 4,
    T_I16 = 5,
    T_I32 = 6,
    T_I64 = 7,
    T_BOOL = 9,
    T_F16 = 10,
    T_F64 = 11,
    T_BF16 = 16
};

/* ---- two operands ---- */

/* R: type of the result, T of the operands p and q.  A step is 0 or 1, and then the compiler knows it. */
#define ROW2(R, T, SA, SB, E)                                                                                                    \
    INDEPENDENT for (int64_t i = 0; i < n; i++) {                                                                                \
        const T p = ((const T *)a)[i * (SA)], q = ((const T *)b)[i * (SB)];                                                      \
        ((R *)y)[i] = (R)(E);                                                                                                    \
    }
#define ROWS2(R, T, E)                                                                                                           \
    do {                                                                                                                         \
        if (sa && sb) {                                                                                                          \
            ROW2(R, T, 1, 1, E)                                                                                                  \
        } else if (sa) {                                                                                                         \
            ROW2(R, T, 1, 0, E)                                                                                                  \
        } else if (sb) {                                                                                                         \
            ROW2(R, T, 0, 1, E)                                                                                                  \
        } else {                                                                                                                 \
            ROW2(R, T, 0, 0, E)                                                                                                  \
        }                                                                                                                        \
        return true;                                                                                                             \
    } while (0)
#define COMPARISONS(T)                                                                                                           \
    case FRUGAL_B_EQUAL:                                                                                                         \
        ROWS2(uint8_t, T, p == q);                                                                                               \
    case FRUGAL_B_LESS:                                                                                                          \
        ROWS2(uint8_t, T, p < q);                                                                                                \
    case FRUGAL_B_LESS_EQUAL:                                                                                                    \
        ROWS2(uint8_t, T, p <= q);                                                                                               \
    case FRUGAL_B_GREATER:                                                                                                       \
        ROWS2(uint8_t, T, p > q);                                                                                                \
    case FRUGAL_B_GREATER_EQUAL:                                                                                                 \
        ROWS2(uint8_t, T, p >= q);                                                                                               \
    default:                                                                                                                     \
        return false;

#define BINARY_FLOAT(NAME, T)                                                                                                    \
    static bool NAME(int kind, void *y, const void *a, const void *b, int sa, int sb, int64_t n) {                               \
        switch (kind) {                                                                                                          \
        case FRUGAL_B_ADD:                                                                                                       \
            ROWS2(T, T, p + q);                                                                                                  \
        case FRUGAL_B_SUB:                                                                                                       \
            ROWS2(T, T, p - q);                                                                                                  \
        case FRUGAL_B_MUL:                                                                                                       \
            ROWS2(T, T, p * q);                                                                                                  \
        case FRUGAL_B_DIV:                                                                                                       \
            ROWS2(T, T, p / q);                                                                                                  \
        case FRUGAL_B_MIN:                                                                                                       \
            ROWS2(T, T, p < q || p != p ? p : q);                                                                                \
        case FRUGAL_B_MAX:                                                                                                       \
            ROWS2(T, T, p > q || p != p ? p : q);                                                                                \
            COMPARISONS(T)                                                                                                       \
        }                                                                                                                        \
    }
BINARY_FLOAT(binary_float, float)
BINARY_FLOAT(binary_double, double)

/* Integers wrap: U is T without its sign. */
#define BINARY_INTEGER(NAME, T, U)                                                                                               \
    static bool NAME(int kind, void *y, const void *a, const void *b, int sa, int sb, int64_t n) {                               \
        switch (kind) {                                                                                                          \
        case FRUGAL_B_ADD:                                                                                                       \
            ROWS2(T, T, (U)p + (U)q);                                                                                            \
        case FRUGAL_B_SUB:                                                                                                       \
            ROWS2(T, T, (U)p - (U)q);                                                                                            \
        case FRUGAL_B_MUL:                                                                                                       \
            ROWS2(T, T, (U)p * (U)q);                                                                                            \
        case FRUGAL_B_MIN:                                                                                                       \
            ROWS2(T, T, p < q ? p : q);                                                                                          \
        case FRUGAL_B_MAX:                                                                                                       \
            ROWS2(T, T, p > q ? p : q);                                                                                          \
            COMPARISONS(T)                                                                                                       \
        }                                                                                                                        \
    }
BINARY_INTEGER(binary_int32, int32_t, uint32_t)
BINARY_INTEGER(binary_int64, int64_t, uint64_t)

static bool binary_logic(int kind, void *y, const void *a, const void *b, int sa, int sb, int64_t n) {
    switch (kind) {
    case FRUGAL_B_AND:
        ROWS2(uint8_t, uint8_t, (p != 0) & (q != 0));
    case FRUGAL_B_OR:
        ROWS2(uint8_t, uint8_t, (p | q) != 0);
    case FRUGAL_B_XOR:
        ROWS2(uint8_t, uint8_t, (p != 0) ^ (q != 0));
    case FRUGAL_B_EQUAL:
        ROWS2(uint8_t, uint8_t, (p != 0) == (q != 0));
    default:
        return false;
    }
}

static bool row_binary(int kind, int dtype, void *y, const void *a, const void *b, int sa, int sb, int64_t n) {
    switch (dtype) {
    case T_F32:
        return binary_float(kind, y, a, b, sa, sb, n);
    case T_F64:
        return binary_double(kind, y, a, b, sa, sb, n);
    case T_I32:
        return binary_int32(kind, y, a, b, sa, sb, n);
    case T_I64:
        return binary_int64(kind, y, a, b, sa, sb, n);
    case T_BOOL:
        return binary_logic(kind, y, a, b, sa, sb, n);
    default:
        return false;
    }
}

/* ---- one operand of another type, or of integers ---- */

#define ROW1(R, T, E)                                                                                                            \
    do {                                                                                                                         \
        INDEPENDENT for (int64_t i = 0; i < n; i++) {                                                                            \
            const T v = ((const T *)x)[i];                                                                                       \
            ((R *)y)[i] = (R)(E);                                                                                                \
        }                                                                                                                        \
        return true;                                                                                                             \
    } while (0)

#define UNARY_INTEGER(NAME, T, U)                                                                                                \
    static bool NAME(int kind, void *y, const void *x, int64_t n) {                                                              \
        switch (kind) {                                                                                                          \
        case FRUGAL_U_NEG:                                                                                                       \
            ROW1(T, T, 0 - (U)v);                                                                                                \
        case FRUGAL_U_ABS:                                                                                                       \
            ROW1(T, T, v < 0 ? 0 - (U)v : (U)v);                                                                                 \
        case FRUGAL_U_SIGN:                                                                                                      \
            ROW1(T, T, (v > 0) - (v < 0));                                                                                       \
        case FRUGAL_U_RELU:                                                                                                      \
            ROW1(T, T, v < 0 ? 0 : v);                                                                                           \
        default:                                                                                                                 \
            return false;                                                                                                        \
        }                                                                                                                        \
    }
UNARY_INTEGER(unary_int32, int32_t, uint32_t)
UNARY_INTEGER(unary_int64, int64_t, uint64_t)

static bool row_unary(int kind, int dtype, void *y, const void *x, int64_t n, int below, int above) {
    switch (kind) {
    case FRUGAL_U_NOT:
        ROW1(uint8_t, uint8_t, v == 0);
    case FRUGAL_U_ISNAN:
        if (dtype == T_F32)
            ROW1(uint8_t, float, v != v);
        ROW1(uint8_t, double, v != v);
    case FRUGAL_U_ISINF:
        if (dtype == T_F32)
            ROW1(uint8_t, float, ((v == INFINITY) & above) | ((v == -INFINITY) & below));
        ROW1(uint8_t, double, ((v == (double)INFINITY) & above) | ((v == -(double)INFINITY) & below));
    default:
        return dtype == T_I32 ? unary_int32(kind, y, x, n) : dtype == T_I64 ? unary_int64(kind, y, x, n) : false;
    }
}

/* Toward zero, saturated, a NaN 0.  The clamp keeps the conversion defined. */
static inline int32_t whole32(float v) {
    const float most = 2147483520.0f; /* the largest below 2^31 */
    float t = v > -2147483648.0f ? v : -2147483648.0f;
    t = t < most ? t : most;
    const int32_t r = v > most ? INT32_MAX : (int32_t)t;
    return v == v ? r : 0;
}
static inline float clamped(float v, float low, float high) {
    v = v > low ? v : low;
    return v < high ? v : high;
}
static inline float kept(float v) { return v == v ? v : 0.0f; }
static inline float from_bfloat16(uint16_t h) { return fr_from_bits((uint32_t)h << 16); }
static inline uint16_t to_bfloat16(float v) {
    const uint32_t u = fr_bits(v);
    return (uint16_t)(v != v ? u >> 16 | 0x40 : (u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static bool cast_from_float(int to, void *y, const float *x, int64_t n) {
    switch (to) {
    case T_U8:
        ROW1(uint8_t, float, (int32_t)clamped(v, 0.0f, 255.0f));
    case T_I8:
        ROW1(int8_t, float, (int32_t)clamped(kept(v), -128.0f, 127.0f));
    case T_I32:
        ROW1(int32_t, float, whole32(v));
    case T_I64: /* as whole32, but with limits that are floats themselves */
        ROW1(int64_t, float, v != v ? 0 : v >= 0x1p63f ? INT64_MAX : v <= -0x1p63f ? INT64_MIN : (int64_t)v);
    case T_BOOL:
        ROW1(uint8_t, float, v != 0);
    case T_F64:
        ROW1(double, float, v);
    case T_BF16:
        ROW1(uint16_t, float, to_bfloat16(v));
    default:
        return false;
    }
}

static bool cast_to_float(int from, float *y, const void *x, int64_t n) {
    switch (from) {
    case T_U8:
        ROW1(float, uint8_t, v);
    case T_I8:
        ROW1(float, int8_t, v);
    case T_I32:
        ROW1(float, int32_t, v);
    case T_I64:
        ROW1(float, int64_t, v);
    case T_BOOL:
        ROW1(float, uint8_t, v != 0 ? 1 : 0);
    case T_F64:
        ROW1(float, double, v);
    case T_BF16:
        ROW1(float, uint16_t, from_bfloat16(v));
    default:
        return false;
    }
}

static void floats_of_halves(float *y, const uint16_t *x, int64_t n);
static void halves_of_floats(uint16_t *y, const float *x, int64_t n);

static bool row_cast(int to, int from, void *y, const void *x, int64_t n) {
    if (from == T_F16 && to == T_F32) {
        floats_of_halves(y, x, n);
        return true;
    }
    if (from == T_F32 && to == T_F16) {
        halves_of_floats(y, x, n);
        return true;
    }
    if (from == T_F32)
        return cast_from_float(to, y, x, n);
    if (to == T_F32)
        return cast_to_float(from, y, x, n);
    switch (from << 8 | to) {
    case T_I64 << 8 | T_I32:
        ROW1(uint32_t, uint64_t, v);
    case T_I32 << 8 | T_I64:
        ROW1(int64_t, int32_t, v);
    case T_BOOL << 8 | T_I64:
        ROW1(int64_t, uint8_t, v != 0);
    case T_BOOL << 8 | T_I32:
        ROW1(int32_t, uint8_t, v != 0);
    case T_I64 << 8 | T_BOOL:
        ROW1(uint8_t, int64_t, v != 0);
    case T_I32 << 8 | T_BOOL:
        ROW1(uint8_t, int32_t, v != 0);
    default:
        return false;
    }
}

/* ---- choices ---- */

#define CHOOSE(T)                                                                                                                \
    do {                                                                                                                         \
        T *d = y;                                                                                                                \
        const T *u = a, *w = b;                                                                                                  \
        if (sa && sb) {                                                                                                          \
            INDEPENDENT for (int64_t i = 0; i < n; i++) {                                                                        \
                const T p = u[i], q = w[i];                                                                                      \
                d[i] = c[i] ? p : q;                                                                                             \
            }                                                                                                                    \
        } else {                                                                                                                 \
            INDEPENDENT for (int64_t i = 0; i < n; i++) {                                                                        \
                const T p = u[i * sa], q = w[i * sb];                                                                            \
                d[i] = c[i] ? p : q;                                                                                             \
            }                                                                                                                    \
        }                                                                                                                        \
    } while (0)

/* size: bytes of an element, 1, 2, 4 or 8. */
static void row_where(int size, void *y, const uint8_t *c, const void *a, const void *b, int sa, int sb, int64_t n) {
    switch (size) {
    case 1:
        CHOOSE(uint8_t);
        break;
    case 2:
        CHOOSE(uint16_t);
        break;
    case 4:
        CHOOSE(uint32_t);
        break;
    default:
        CHOOSE(uint64_t);
        break;
    }
}

/* ---- codes ---- */

/* Limits that are integers may come before the rounding, and then adding 1.5 * 2^23 rounds; NaN: the lowest code. */
static inline int32_t code_of(float v, float low, float high) {
    v = v > low ? v : low;
    v = v < high ? v : high;
    return (int32_t)((v + FR_MAGIC) - FR_MAGIC);
}
#define TO_CODES(T)                                                                                                              \
    do {                                                                                                                         \
        T *d = y;                                                                                                                \
        if (many) {                                                                                                              \
            const T *z = zero;                                                                                                   \
            INDEPENDENT for (int64_t i = 0; i < n; i++) {                                                                        \
                const int32_t at = z ? z[i] : 0;                                                                                 \
                d[i] = (T)(code_of(x[i] / scale[i], (float)(low - at), (float)(high - at)) + at);                                \
            }                                                                                                                    \
        } else {                                                                                                                 \
            const int32_t at = zero ? *(const T *)zero : 0;                                                                      \
            const float s = *scale, least = (float)(low - at), most = (float)(high - at);                                        \
            INDEPENDENT for (int64_t i = 0; i < n; i++) { d[i] = (T)(code_of(x[i] / s, least, most) + at); }                     \
        }                                                                                                                        \
    } while (0)

static bool row_codes(int dtype, void *y, const float *x, int64_t n, const float *scale, const void *zero, int many) {
    int32_t low = dtype == T_I8 ? INT8_MIN : dtype == T_I16 ? INT16_MIN : 0;
    int32_t high = dtype == T_I8 ? INT8_MAX : dtype == T_I16 ? INT16_MAX : dtype == T_U8 ? UINT8_MAX : UINT16_MAX;
    switch (dtype) {
    case T_U8:
        TO_CODES(uint8_t);
        return true;
    case T_I8:
        TO_CODES(int8_t);
        return true;
    case T_U16:
        TO_CODES(uint16_t);
        return true;
    case T_I16:
        TO_CODES(int16_t);
        return true;
    default:
        return false;
    }
}

#define FROM_CODES(T)                                                                                                            \
    do {                                                                                                                         \
        const T *q = x;                                                                                                          \
        if (many) {                                                                                                              \
            const T *z = zero;                                                                                                   \
            if (z) {                                                                                                             \
                INDEPENDENT for (int64_t i = 0; i < n; i++) { y[i] = (float)(q[i] - z[i]) * scale[i]; }                          \
            } else {                                                                                                             \
                INDEPENDENT for (int64_t i = 0; i < n; i++) { y[i] = (float)q[i] * scale[i]; }                                   \
            }                                                                                                                    \
        } else {                                                                                                                 \
            const int32_t at = zero ? *(const T *)zero : 0;                                                                      \
            const float s = *scale;                                                                                              \
            INDEPENDENT for (int64_t i = 0; i < n; i++) { y[i] = (float)(q[i] - at) * s; }                                       \
        }                                                                                                                        \
    } while (0)

static bool row_uncode(int dtype, float *y, const void *x, int64_t n, const float *scale, const void *zero, int many) {
    switch (dtype) {
    case T_U8:
        FROM_CODES(uint8_t);
        return true;
    case T_I8:
        FROM_CODES(int8_t);
        return true;
    case T_U16:
        FROM_CODES(uint16_t);
        return true;
    case T_I16:
        FROM_CODES(int16_t);
        return true;
    default:
        return false;
    }
}

/* y = (x - a) - b. */
static void row_shift(float *y, const float *x, int64_t n, float a, float b) {
    INDEPENDENT for (int64_t i = 0; i < n; i++) { y[i] = (x[i] - a) - b; }
}

#define FR_ROWS                                                                                                                  \
    {.binary = row_binary,                                                                                                       \
     .unary = row_unary,                                                                                                         \
     .cast = row_cast,                                                                                                           \
     .where = row_where,                                                                                                         \
     .codes = row_codes,                                                                                                         \
     .uncode = row_uncode,                                                                                                       \
     .shift = row_shift,                                                                                                         \
     .reduce = row_reduce,                                                                                                       \
     .reduce_columns = row_reduce_columns,                                                                                       \
     .extremes = row_extremes,                                                                                                   \
     .softmax_columns = row_softmax_columns}
#endif
