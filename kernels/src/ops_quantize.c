/* ops_quantize.c - QUANTIZE and DEQUANTIZE: the standard operators, with a scale for the tensor, an axis, or blocks of an axis.
 */
#include <math.h>

#include "ops.h"

typedef struct scaling {
    const fr_call *c;
    int64_t length, inner, block, blocks; /* of the axis; elements behind it; block 0: one scale an index */
    bool single;
} scaling;

/* x: the tensor whose shape counts. */
static frugal_status scaling_shape(const fr_call *c, scaling *t) {
    const fr_tensor *x = c->in[0], *scale = c->in[1], *zero = c->in[2];
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

/* Index of the scale of element i. */
static int64_t scale_index(const scaling *t, int64_t i) {
    if (t->single)
        return 0;
    const int64_t at = i / t->inner % t->length;
    return t->block ? (i / t->inner / t->length * t->blocks + at / t->block) * t->inner + i % t->inner : at;
}

static int32_t integer_at(const fr_tensor *t, int64_t i) {
    switch (t->dtype) {
    case FR_U8:
        return t->data[i];
    case FR_I8:
        return ((const int8_t *)t->data)[i];
    default:
        return ((const int32_t *)(const void *)t->data)[i];
    }
}

frugal_status fr_quantize_check(const fr_call *c) {
    const fr_tensor *y = c->out[0];
    scaling t;
    FR_DTYPE(c, c->in[0]->dtype == FR_F32, "quantize is of float32");
    FR_DTYPE(c, y->dtype == FR_I8 || y->dtype == FR_U8, "quantize gives int8 or uint8");
    FR_DTYPE(c, !c->in[2] || c->in[2]->dtype == y->dtype, "the zero point must have the output's data type");
    return scaling_shape(c, &t);
}

static void quantize_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const scaling *t = p;
    const fr_call *c = t->c;
    const float *x = (const float *)(const void *)c->in[0]->data, *scale = (const float *)(const void *)c->in[1]->data;
    const bool is_signed = c->out[0]->dtype == FR_I8;
    const float low = is_signed ? -128.0f : 0.0f, high = is_signed ? 127.0f : 255.0f;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int64_t at = scale_index(t, i);
        float v = rintf(x[i] / scale[at]) + (c->in[2] ? (float)integer_at(c->in[2], at) : 0.0f);
        v = !(v > low) ? low : v > high ? high : v; /* NaN: the lowest code */
        c->out[0]->data[i] = (uint8_t)(int32_t)v;
    }
}

frugal_status fr_quantize_run(const fr_call *c) {
    scaling t;
    FR_TRY(scaling_shape(c, &t));
    fr_parallel(c, c->out[0]->n, 8192, quantize_range, &t);
    return FRUGAL_OK;
}

frugal_status fr_dequantize_check(const fr_call *c) {
    const fr_tensor *x = c->in[0];
    scaling t;
    FR_DTYPE(c, x->dtype == FR_I8 || x->dtype == FR_U8 || x->dtype == FR_I32, "dequantize is of int8, uint8 or int32");
    FR_DTYPE(c, c->out[0]->dtype == FR_F32, "dequantize gives float32");
    FR_DTYPE(c, !c->in[2] || c->in[2]->dtype == x->dtype, "the zero point must have the input's data type");
    return scaling_shape(c, &t);
}

static void dequantize_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const scaling *t = p;
    const fr_call *c = t->c;
    const float *scale = (const float *)(const void *)c->in[1]->data;
    float *y = (float *)(void *)c->out[0]->data;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int64_t at = scale_index(t, i), zero = c->in[2] ? integer_at(c->in[2], at) : 0;
        y[i] = (float)(integer_at(c->in[0], i) - zero) * scale[at];
    }
}

frugal_status fr_dequantize_run(const fr_call *c) {
    scaling t;
    FR_TRY(scaling_shape(c, &t));
    fr_parallel(c, c->out[0]->n, 8192, dequantize_range, &t);
    return FRUGAL_OK;
}
