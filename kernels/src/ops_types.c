/* ops_types.c - the data types: floats of 16, 8 and 4 bits, integers of 4 and 2 bits, and CAST, CONVERT, BIT_CAST between all. */
#include <math.h>

#include "ops.h"

enum { GRAIN = 16384, CAST_BLOCK = 256 };

/* ---- floats of 16 bits ---- */

uint16_t fr_double_to_half(double v) {
    const uint16_t sign = signbit(v) ? 0x8000 : 0;
    const double a = fabs(v);
    if (a != a)
        return 0x7e00;
    if (a >= 65520)
        return (uint16_t)(sign | 0x7c00);
    if (a < 0x1p-14)
        return (uint16_t)(sign | (uint16_t)rint(a * 0x1p24)); /* 1024 is the smallest normal: the bits go on */
    uint64_t bits;
    memcpy(&bits, &a, 8);
    const uint64_t rest = bits & ((UINT64_C(1) << 42) - 1), half = UINT64_C(1) << 41;
    uint64_t h = (bits >> 42) - ((UINT64_C(1023) - 15) << 10);
    h += rest > half || (rest == half && (h & 1));
    return (uint16_t)(sign | (uint16_t)h);
}

uint16_t fr_float_to_bfloat16(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    if (v != v)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float bf16_to_float(uint16_t h) {
    const uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

static float half_to_float(uint16_t h) {
    const uint32_t m = h & 0x7fff, o = (m << 13) + 0x38000000;
    uint32_t small = o + 0x800000, bits;
    float f;
    memcpy(&f, &small, 4);
    f -= 0x1p-14f; /* exact */
    memcpy(&small, &f, 4);
    bits = m >= 0x7c00 ? o + 0x38000000 : m < 0x400 ? small : o;
    bits |= (uint32_t)(h & 0x8000) << 16;
    memcpy(&f, &bits, 4);
    return f;
}

/* ---- floats of 8 and 4 bits ---- */

/* Codes are sign, exponent, mantissa; code 0 .. top are the numbers from 0 up. */
typedef struct small_float {
    int mantissa, bias, bits; /* of the code, with its sign */
    uint8_t top;              /* the largest number */
    uint8_t over;             /* what lies beyond without saturation; keeps its sign unless there is one NaN only */
    uint8_t nan;
    bool unsigned_zero; /* 0x80 is the NaN, there is no -0 */
} small_float;

static const small_float *format_of(int dtype) {
    static const small_float e4m3fn = {3, 7, 8, 0x7e, 0x7f, 0x7f, false}, e4m3fnuz = {3, 8, 8, 0x7f, 0x80, 0x80, true},
                             e5m2 = {2, 15, 8, 0x7b, 0x7c, 0x7e, false}, e5m2fnuz = {2, 16, 8, 0x7f, 0x80, 0x80, true},
                             e2m1 = {1, 1, 4, 7, 7, 8, false};
    switch (dtype) {
    case FR_F8E4M3FN:
        return &e4m3fn;
    case FR_F8E4M3FNUZ:
        return &e4m3fnuz;
    case FR_F8E5M2:
        return &e5m2;
    case FR_F8E5M2FNUZ:
        return &e5m2fnuz;
    case FR_F4E2M1:
        return &e2m1;
    default:
        return NULL;
    }
}

bool fr_is_small_float(int dtype) { return format_of(dtype) != NULL || dtype == FR_F8E8M0; }
bool fr_is_small_int(int dtype) { return dtype == FR_U4 || dtype == FR_I4 || dtype == FR_U2 || dtype == FR_I2; }

static double power_of_two(int e) {
    const uint64_t bits = (uint64_t)(e + 1023) << 52;
    double v;
    memcpy(&v, &bits, 8);
    return v;
}

float fr_small_to_float(int dtype, uint8_t code) {
    const small_float *f = format_of(dtype);
    if (!f) /* E8M0 */
        return code == 0xff ? NAN : (float)power_of_two(code - 127);
    const int mask = (1 << (f->bits - 1)) - 1, low = code & mask, e = low >> f->mantissa, m = low & ((1 << f->mantissa) - 1);
    const bool negative = (code >> (f->bits - 1) & 1) != 0;
    if (f->unsigned_zero ? code == 0x80 : low > f->top)
        return dtype == FR_F8E5M2 && low == f->over ? (negative ? -INFINITY : INFINITY) : NAN;
    const double v =
        e ? (m + (1 << f->mantissa)) * power_of_two(e - f->bias - f->mantissa) : m * power_of_two(1 - f->bias - f->mantissa);
    return (float)(negative ? -v : v);
}

/* The exponent of a float; the sign is not looked at. */
static uint8_t e8m0_of(float v, bool saturate, int mode) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    const uint32_t e = bits >> 23 & 0xff, fraction = bits & 0x7fffff, half = 0x400000;
    if (e == 0xff)
        return 0xff;
    bool up = mode == 0 ? fraction > 0 : mode == 1 ? false : fraction > half || (fraction == half && e > 0);
    if (saturate && e == 0xfe)
        up = false;
    return (uint8_t)(e + up);
}

uint8_t fr_small_of(int dtype, double v, bool saturate, int mode) {
    const small_float *f = format_of(dtype);
    if (!f)
        return e8m0_of((float)v, saturate, mode);
    const uint8_t sign = (uint8_t)(signbit(v) ? 1 << (f->bits - 1) : 0);
    const double a = fabs(v);
    if (a != a)
        return f->nan;
    if (a == 0)
        return f->unsigned_zero ? 0 : sign;
    uint64_t bits;
    memcpy(&bits, &a, 8);
    const int lowest = 1 - f->bias, have = (int)(bits >> 52) - 1023, e = have < lowest ? lowest : have > 64 ? 64 : have;
    const double count = a * power_of_two(f->mantissa - e); /* of the steps between numbers; exact, below 2^(mantissa + 1) */
    const int64_t low = have > 64 ? 255 : ((int64_t)(e - lowest) << f->mantissa) + (int64_t)rint(count);
    if (low > f->top) {
        if (!saturate)
            return f->unsigned_zero ? f->over : (uint8_t)(sign | f->over);
        return (uint8_t)(sign | f->top);
    }
    return low == 0 && f->unsigned_zero ? 0 : (uint8_t)(sign | (uint8_t)low);
}

/* ---- integers of 4 and 2 bits ---- */

/* The low bits of a byte as a number: what lies above them is never looked at. */
static int8_t small_int(int dtype, int64_t byte) {
    switch (dtype) {
    case FR_U4:
        return (int8_t)(byte & 15);
    case FR_I4:
        return (int8_t)(((byte & 15) ^ 8) - 8);
    case FR_U2:
        return (int8_t)(byte & 3);
    default:
        return (int8_t)(((byte & 3) ^ 2) - 2);
    }
}

void fr_int_range(int dtype, int32_t *low, int32_t *high) {
    const bool has_sign = dtype == FR_I8 || dtype == FR_I16 || dtype == FR_I4 || dtype == FR_I2;
    const int bits = dtype == FR_U16 || dtype == FR_I16 ? 16
                     : dtype == FR_U4 || dtype == FR_I4 ? 4
                     : dtype == FR_U2 || dtype == FR_I2 ? 2
                                                        : 8;
    *low = has_sign ? -(1 << (bits - 1)) : 0;
    *high = (1 << (has_sign ? bits - 1 : bits)) - 1;
}

int32_t fr_int_at(const fr_tensor *t, int64_t i) {
    switch (t->dtype) {
    case FR_U8:
        return t->data[i];
    case FR_I8:
        return ((const int8_t *)t->data)[i];
    case FR_U16:
        return ((const uint16_t *)(const void *)t->data)[i];
    case FR_I16:
        return ((const int16_t *)(const void *)t->data)[i];
    case FR_I32:
        return ((const int32_t *)(const void *)t->data)[i];
    default:
        return small_int(t->dtype, t->data[i]);
    }
}

/* ---- CAST, CONVERT ---- */

typedef struct cast_ctx {
    const frugal_isa *isa;
    uint8_t *y;
    const uint8_t *x;
    int from, to;
    bool saturate;
    int mode;
} cast_ctx;

static bool float_like(int t) { return t == FR_F32 || t == FR_F64 || t == FR_F16 || t == FR_BF16 || fr_is_small_float(t); }

#define LOAD(T, E)                                                                                                               \
    do {                                                                                                                         \
        const T *x = (const T *)src;                                                                                             \
        for (int64_t i = 0; i < n; i++)                                                                                          \
            d[i] = (E);                                                                                                          \
    } while (0)

static void load_int(int from, int64_t *d, const void *src, int64_t n) {
    switch (from) {
    case FR_U8:
        LOAD(uint8_t, x[i]);
        break;
    case FR_I8:
        LOAD(int8_t, x[i]);
        break;
    case FR_U16:
        LOAD(uint16_t, x[i]);
        break;
    case FR_I16:
        LOAD(int16_t, x[i]);
        break;
    case FR_I32:
        LOAD(int32_t, x[i]);
        break;
    case FR_U32:
        LOAD(uint32_t, x[i]);
        break;
    case FR_BOOL:
        LOAD(uint8_t, x[i] != 0);
        break;
    case FR_U64:
    case FR_I64:
        LOAD(int64_t, x[i]);
        break;
    default:
        LOAD(uint8_t, small_int(from, x[i]));
        break;
    }
}

static void load_double(int from, double *d, const void *src, int64_t n) {
    switch (from) {
    case FR_F32:
        LOAD(float, x[i]);
        break;
    case FR_F64:
        LOAD(double, x[i]);
        break;
    case FR_F16:
        LOAD(uint16_t, half_to_float(x[i]));
        break;
    case FR_BF16:
        LOAD(uint16_t, bf16_to_float(x[i]));
        break;
    default:
        LOAD(uint8_t, fr_small_to_float(from, x[i]));
        break;
    }
}

#define STORE(T, E)                                                                                                              \
    do {                                                                                                                         \
        T *y = (T *)dst;                                                                                                         \
        for (int64_t i = 0; i < n; i++)                                                                                          \
            y[i] = (T)(E);                                                                                                       \
    } while (0)

/* Integers wrap, as in numpy and C. */
static void store_int(const cast_ctx *t, void *dst, const int64_t *d, int64_t n) {
    const bool big = t->from == FR_U64;
    switch (t->to) {
    case FR_U8:
    case FR_I8:
        STORE(uint8_t, d[i]);
        break;
    case FR_U16:
    case FR_I16:
        STORE(uint16_t, d[i]);
        break;
    case FR_U32:
    case FR_I32:
        STORE(uint32_t, d[i]);
        break;
    case FR_U64:
    case FR_I64:
        STORE(int64_t, d[i]);
        break;
    case FR_BOOL:
        STORE(uint8_t, d[i] != 0);
        break;
    case FR_F32:
        STORE(float, big ? (float)(uint64_t)d[i] : (float)d[i]);
        break;
    case FR_F64:
        STORE(double, big ? (double)(uint64_t)d[i] : (double)d[i]);
        break;
    case FR_F16:
        STORE(uint16_t, fr_double_to_half(big ? (double)(uint64_t)d[i] : (double)d[i]));
        break;
    case FR_BF16:
        STORE(uint16_t, fr_float_to_bfloat16(big ? (float)(uint64_t)d[i] : (float)d[i]));
        break;
    case FR_U4:
    case FR_I4:
    case FR_U2:
    case FR_I2:
        STORE(int8_t, small_int(t->to, d[i]));
        break;
    default:
        STORE(uint8_t, fr_small_of(t->to, big ? (double)(uint64_t)d[i] : (double)d[i], t->saturate, t->mode));
        break;
    }
}

/* Toward zero, saturated, NaN gives 0.  high1: one above the largest value, exact as a double. */
static int64_t whole_of(double v, double low, double high1) {
    if (v != v)
        return 0;
    if (v <= low)
        return (int64_t)low;
    if (v >= high1)
        return high1 >= 0x1p63 ? INT64_MAX : (int64_t)high1 - 1;
    return (int64_t)v;
}
static uint64_t whole_u64(double v) { return !(v > 0) ? 0 : v >= 0x1p64 ? UINT64_MAX : (uint64_t)v; }

static void store_double(const cast_ctx *t, void *dst, const double *d, int64_t n) {
    switch (t->to) {
    case FR_U8:
        STORE(uint8_t, whole_of(d[i], 0, 0x1p8));
        break;
    case FR_I8:
        STORE(int8_t, whole_of(d[i], -0x1p7, 0x1p7));
        break;
    case FR_U16:
        STORE(uint16_t, whole_of(d[i], 0, 0x1p16));
        break;
    case FR_I16:
        STORE(int16_t, whole_of(d[i], -0x1p15, 0x1p15));
        break;
    case FR_U32:
        STORE(uint32_t, whole_of(d[i], 0, 0x1p32));
        break;
    case FR_I32:
        STORE(int32_t, whole_of(d[i], -0x1p31, 0x1p31));
        break;
    case FR_U64:
        STORE(uint64_t, whole_u64(d[i]));
        break;
    case FR_I64:
        STORE(int64_t, whole_of(d[i], -0x1p63, 0x1p63));
        break;
    case FR_BOOL:
        STORE(uint8_t, d[i] != 0);
        break;
    case FR_F32:
        STORE(float, d[i]);
        break;
    case FR_F64:
        STORE(double, d[i]);
        break;
    case FR_F16:
        STORE(uint16_t, fr_double_to_half(d[i]));
        break;
    case FR_BF16:
        STORE(uint16_t, fr_float_to_bfloat16((float)d[i]));
        break;
    case FR_U4:
    case FR_I4:
    case FR_U2:
    case FR_I2:
        STORE(int8_t, small_int(t->to, whole_of(d[i], -0x1p31, 0x1p31)));
        break;
    default:
        STORE(uint8_t, fr_small_of(t->to, d[i], t->saturate, t->mode));
        break;
    }
}

static void cast_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const cast_ctx *t = p;
    const int64_t from = fr_dtype_bytes(t->from), to = fr_dtype_bytes(t->to);
    (void)thread;
    if (t->isa->rows.cast(t->to, t->from, t->y + begin * to, t->x + begin * from, end - begin))
        return;
    for (; begin < end; begin += CAST_BLOCK) {
        const int64_t n = fr_min(CAST_BLOCK, end - begin);
        if (float_like(t->from)) {
            double d[CAST_BLOCK];
            load_double(t->from, d, t->x + begin * from, n);
            store_double(t, t->y + begin * to, d, n);
        } else {
            int64_t d[CAST_BLOCK];
            load_int(t->from, d, t->x + begin * from, n);
            store_int(t, t->y + begin * to, d, n);
        }
    }
}

frugal_status fr_cast_check(const fr_call *c) { return fr_same_shape(c, c->out[0], c->in[0], 1); }
frugal_status fr_convert_check(const fr_call *c) { return fr_cast_check(c); }

static frugal_status run_cast(const fr_call *c, bool saturate, int mode) {
    const cast_ctx t = {c->isa, c->out[0]->data, c->in[0]->data, c->in[0]->dtype, c->out[0]->dtype, saturate, mode};
    fr_parallel(c, c->out[0]->n, GRAIN, cast_range, &t);
    return FRUGAL_OK;
}

frugal_status fr_cast_run(const fr_call *c) { return run_cast(c, true, 0); }
frugal_status fr_convert_run(const fr_call *c) { return run_cast(c, c->attrs[0] != 0, (int)c->attrs[1]); }

/* ---- BIT_CAST ---- */

static int bits_of(int dtype) {
    if (dtype == FR_U2 || dtype == FR_I2)
        return 2;
    return dtype == FR_U4 || dtype == FR_I4 || dtype == FR_F4E2M1 ? 4 : 8 * (int)fr_dtype_bytes(dtype);
}

frugal_status fr_bit_cast_check(const fr_call *c) {
    FR_DTYPE(c, bits_of(c->in[0]->dtype) == bits_of(c->out[0]->dtype), "a bit cast is between types of one width");
    return fr_same_shape(c, c->out[0], c->in[0], 1);
}

frugal_status fr_bit_cast_run(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    if (!fr_is_small_int(y->dtype) && y->dtype != FR_F4E2M1) {
        memcpy(y->data, x->data, (size_t)(x->n * fr_dtype_bytes(x->dtype)));
        return FRUGAL_OK;
    }
    for (int64_t i = 0; i < x->n; i++)
        y->data[i] = (uint8_t)small_int(y->dtype == FR_F4E2M1 ? FR_U4 : y->dtype, x->data[i]);
    return FRUGAL_OK;
}
