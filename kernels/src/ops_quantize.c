/* ops_quantize.c - QUANTIZE, QUANTIZE_FLOAT, DEQUANTIZE (with a scale for the tensor, an axis, or blocks of an axis) and
 * DYNAMIC_QUANTIZE, which finds the scale itself. */
#include <math.h>

#include "ops.h"

typedef struct scaling {
    const fr_call *c;
    int64_t length, inner, block, blocks; /* of the axis; elements behind it; block 0: one scale an index */
    bool single;
} scaling;

/* x: the tensor whose shape counts. */
static frugal_status scaling_shape(const fr_call *c, scaling *t) {
    const fr_tensor *x = c->in[0], *scale = c->in[1], *zero = c->n_in > 2 ? c->in[2] : NULL;
    const int64_t axis = c->attrs[0], block = c->attrs[1];
    FR_DTYPE(c, scale->dtype == FR_F32, "a scale must be float32");
    FR_TRY(fr_same_shape(c, c->out[0], x, c->n_in));
    if (zero)
        FR_TRY(fr_same_shape(c, zero, scale, 2));
    *t = (scaling){.c = c, .length = 1, .inner = 1, .block = block, .blocks = 1, .single = scale->n == 1 && block == 0};
    if (t->single)
        return FRUGAL_OK;
    FR_SHAPE(c, axis < x->rank, "the axis is not one of the input's");
    t->length = x->dims[axis];
    t->inner = fr_product(x, (int32_t)axis + 1, x->rank);
    t->blocks = block ? fr_ceil_div(t->length, block) : t->length;
    if (block == 0)
        return fr_vector(c, scale, t->length, 1);
    FR_SHAPE(c, scale->rank == x->rank, "scales of blocks must have the rank of the input");
    for (int32_t a = 0; a < x->rank; a++) {
        const int64_t want = a == axis ? t->blocks : x->dims[a];
        if (scale->dims[a] != want)
            return fr_fail(c, FRUGAL_BAD_SHAPE, 1, a, want, scale->dims[a], "the scales have another shape than the blocks give");
    }
    return FRUGAL_OK;
}

/* Index of the scale of element i; how many elements from there on, at most n, share it. */
static int64_t scale_index(const scaling *t, int64_t i, int64_t n, int64_t *run) {
    if (t->single)
        return *run = n, 0;
    const int64_t at = i / t->inner % t->length, behind = i % t->inner;
    if (!t->block)
        return *run = fr_min(n, t->inner - behind), at;
    const int64_t rest = t->inner == 1 ? fr_min(t->block - at % t->block, t->length - at) : 1;
    *run = fr_min(n, rest);
    return (i / t->inner / t->length * t->blocks + at / t->block) * t->inner + behind;
}

/* The same; many: the elements have each their own, side by side, instead of sharing one. */
static int64_t scale_run(const scaling *t, int64_t i, int64_t n, int64_t *run, bool *many) {
    *many = false;
    const int64_t at = scale_index(t, i, n, run);
    if (*run > 1 || t->single)
        return at;
    if (t->inner == 1 && !t->block) { /* the last axis */
        *many = true;
        *run = fr_min(n, t->length - at);
    } else if (t->inner > 1 && t->block) { /* blocks of another axis */
        *many = true;
        *run = fr_min(n, t->inner - i % t->inner);
    }
    return at;
}

static const fr_tensor *zero_of(const fr_call *c) { return c->n_in > 2 ? c->in[2] : NULL; }
static float scale_at(const fr_call *c, int64_t i) { return ((const float *)(const void *)c->in[1]->data)[i]; }

static bool is_code(int dtype) {
    return dtype == FR_I8 || dtype == FR_U8 || dtype == FR_I16 || dtype == FR_U16 || fr_is_small_int(dtype);
}

/* ---- QUANTIZE ---- */

frugal_status fr_quantize_check(const fr_call *c) {
    const fr_tensor *y = c->out[0], *zero = zero_of(c);
    scaling t;
    FR_DTYPE(c, c->in[0]->dtype == FR_F32, "quantize is of float32");
    FR_DTYPE(c, is_code(y->dtype), "quantize gives integers of 2, 4, 8 or 16 bits");
    FR_DTYPE(c, !zero || zero->dtype == y->dtype, "the zero point must have the output's data type");
    return scaling_shape(c, &t);
}

/* Limits that are integers may come before the rounding, and then adding 1.5 * 2^23 rounds; NaN: the lowest code. */
static int32_t code_of(float v, float low, float high) {
    v = v > low ? v : low;
    v = v < high ? v : high;
    return (int32_t)((v + 12582912.0f) - 12582912.0f);
}

/* Codes of less than a byte, of which the instruction sets know nothing. */
static void quantize_small(const fr_call *c, int64_t begin, int64_t n, float scale, int32_t zero) {
    const float *x = (const float *)(const void *)c->in[0]->data + begin;
    int8_t *y = (int8_t *)c->out[0]->data + begin;
    int32_t lowest, highest;
    fr_int_range(c->out[0]->dtype, &lowest, &highest);
    const float low = (float)(lowest - zero), high = (float)(highest - zero);
    for (int64_t i = 0; i < n; i++)
        y[i] = (int8_t)(code_of(x[i] / scale, low, high) + zero);
}

/* n elements that share the scale at `at`, or (many) have theirs from there on. */
static void quantize_part(const fr_call *c, int64_t begin, int64_t n, int64_t at, bool many) {
    const fr_tensor *y = c->out[0], *zero = zero_of(c);
    const int64_t size = fr_dtype_bytes(y->dtype);
    const float *x = (const float *)(const void *)c->in[0]->data + begin,
                *scale = (const float *)(const void *)c->in[1]->data + at;
    if (c->isa->rows.codes(y->dtype, y->data + begin * size, x, n, scale, zero ? zero->data + at * size : NULL, many))
        return;
    for (int64_t i = 0; i < (many ? n : 1); i++)
        quantize_small(c, begin + i, many ? 1 : n, scale[i], zero ? fr_int_at(zero, at + i) : 0);
}

static void quantize_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const scaling *t = p;
    (void)thread;
    for (int64_t run; begin < end; begin += run) {
        bool many;
        const int64_t at = scale_run(t, begin, end - begin, &run, &many);
        quantize_part(t->c, begin, run, at, many);
    }
}

frugal_status fr_quantize_run(const fr_call *c) {
    scaling t;
    FR_TRY(scaling_shape(c, &t));
    fr_parallel(c, c->out[0]->n, 8192, quantize_range, &t);
    return FRUGAL_OK;
}

/* ---- QUANTIZE_FLOAT ---- */

frugal_status fr_quantize_float_check(const fr_call *c) {
    const fr_tensor *y = c->out[0], *zero = zero_of(c);
    scaling t;
    FR_DTYPE(c, c->in[0]->dtype == FR_F32, "quantize is of float32");
    FR_DTYPE(c, fr_is_small_float(y->dtype), "this quantize gives floats of 4 or 8 bits");
    FR_DTYPE(c, !zero || zero->dtype == y->dtype, "the zero point must have the output's data type");
    return scaling_shape(c, &t);
}

static void quantize_float_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const scaling *t = p;
    const fr_call *c = t->c;
    const float *x = (const float *)(const void *)c->in[0]->data;
    const fr_tensor *zero = zero_of(c);
    const int dtype = c->out[0]->dtype;
    (void)thread;
    for (int64_t run; begin < end; begin += run) {
        const int64_t at = scale_index(t, begin, end - begin, &run);
        const float scale = scale_at(c, at), z = zero ? fr_small_to_float(dtype, zero->data[at]) : 0;
        for (int64_t i = begin; i < begin + run; i++)
            c->out[0]->data[i] = fr_small_of(dtype, (double)(x[i] / scale + z), c->attrs[2] != 0, 0);
    }
}

frugal_status fr_quantize_float_run(const fr_call *c) {
    scaling t;
    FR_TRY(scaling_shape(c, &t));
    fr_parallel(c, c->out[0]->n, 4096, quantize_float_range, &t);
    return FRUGAL_OK;
}

/* ---- DEQUANTIZE ---- */

frugal_status fr_dequantize_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *zero = zero_of(c);
    scaling t;
    FR_DTYPE(c, is_code(x->dtype) || x->dtype == FR_I32 || fr_is_small_float(x->dtype),
             "dequantize is of integers of 2 to 16 bits, int32, or floats of 4 or 8 bits");
    FR_DTYPE(c, c->out[0]->dtype == FR_F32, "dequantize gives float32");
    FR_DTYPE(c, !zero || zero->dtype == x->dtype, "the zero point must have the input's data type");
    return scaling_shape(c, &t);
}

/* int32, whose difference may need 33 bits, and less than a byte. */
static void dequantize_other(const fr_call *c, int64_t begin, int64_t n, float scale, int64_t at) {
    const fr_tensor *x = c->in[0], *z = zero_of(c);
    float *y = (float *)(void *)c->out[0]->data + begin;
    if (fr_is_small_float(x->dtype)) {
        const float zero = z ? fr_small_to_float(x->dtype, z->data[at]) : 0;
        for (int64_t i = 0; i < n; i++)
            y[i] = (fr_small_to_float(x->dtype, x->data[begin + i]) - zero) * scale;
        return;
    }
    const int32_t zero = z ? fr_int_at(z, at) : 0;
    for (int64_t i = 0; i < n; i++)
        y[i] = (float)((int64_t)fr_int_at(x, begin + i) - zero) * scale;
}

static void dequantize_part(const fr_call *c, int64_t begin, int64_t n, int64_t at, bool many) {
    const fr_tensor *x = c->in[0], *zero = zero_of(c);
    const int64_t size = fr_dtype_bytes(x->dtype);
    const float *scale = (const float *)(const void *)c->in[1]->data + at;
    float *y = (float *)(void *)c->out[0]->data + begin;
    if (c->isa->rows.uncode(x->dtype, y, x->data + begin * size, n, scale, zero ? zero->data + at * size : NULL, many))
        return;
    for (int64_t i = 0; i < (many ? n : 1); i++)
        dequantize_other(c, begin + i, many ? 1 : n, scale[i], at + i);
}

static void dequantize_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const scaling *t = p;
    (void)thread;
    for (int64_t run; begin < end; begin += run) {
        bool many;
        const int64_t at = scale_run(t, begin, end - begin, &run, &many);
        dequantize_part(t->c, begin, run, at, many);
    }
}

frugal_status fr_dequantize_run(const fr_call *c) {
    scaling t;
    FR_TRY(scaling_shape(c, &t));
    fr_parallel(c, c->out[0]->n, 8192, dequantize_range, &t);
    return FRUGAL_OK;
}

/* ---- DYNAMIC_QUANTIZE ---- */

frugal_status fr_dynamic_quantize_check(const fr_call *c) {
    const fr_tensor *y = c->out[0], *scale = c->out[1], *zero = c->out[2];
    FR_DTYPE(c, c->in[0]->dtype == FR_F32 && y->dtype == FR_U8, "this quantize is of float32 and gives uint8");
    FR_DTYPE(c, scale->dtype == FR_F32 && zero->dtype == FR_U8, "the scale is float32 and the zero point uint8");
    FR_SHAPE(c, scale->n == 1 && zero->n == 1, "scale and zero point are one element each");
    return fr_same_shape(c, y, c->in[0], 1);
}

typedef struct dynamic_ctx {
    const frugal_isa *isa;
    const float *x;
    uint8_t *y;
    float scale;
    uint8_t zero;
} dynamic_ctx;

static void dynamic_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const dynamic_ctx *d = p;
    (void)thread;
    d->isa->rows.codes(FR_U8, d->y + begin, d->x + begin, end - begin, &d->scale, &d->zero, 0);
}

frugal_status fr_dynamic_quantize_run(const fr_call *c) {
    dynamic_ctx d = {c->isa, (const float *)(const void *)c->in[0]->data, c->out[0]->data, 1, 0};
    float low, high;
    c->isa->rows.extremes(d.x, c->in[0]->n, &low, &high);
    d.scale = high == low ? 1.0f : (high - low) / 255.0f;
    float zero = (0.0f - low) / d.scale;
    zero = zero > 0 ? (zero < 255 ? zero : 255) : 0; /* an infinite scale gives 0 or NaN */
    d.zero = (uint8_t)rintf(zero);
    *(float *)(void *)c->out[1]->data = d.scale;
    *c->out[2]->data = d.zero;
    if (c->in[0]->n > 0)
        fr_parallel(c, c->in[0]->n, 16384, dynamic_range, &d);
    return FRUGAL_OK;
}
