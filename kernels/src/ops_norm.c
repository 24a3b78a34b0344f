/* ops_norm.c - LAYER_NORM and RMS_NORM: one row of the last axis at a time. */
#include "ops.h"

static frugal_status check_norm(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    FR_DTYPE(c, x->dtype == FR_F32 && y->dtype == FR_F32, "a norm is of float32");
    FR_SHAPE(c, x->rank >= 1, "a norm needs an axis");
    FR_TRY(fr_same_shape(c, y, x, c->n_in));
    if (c->in[1]) {
        FR_DTYPE(c, c->in[1]->dtype == FR_F32, "the residual must be float32");
        FR_TRY(fr_same_shape(c, c->in[1], x, 1));
    }
    return fr_vector(c, c->in[2], x->dims[x->rank - 1], 2);
}

frugal_status fr_layer_norm_check(const fr_call *c) {
    FR_TRY(check_norm(c));
    return c->in[3] ? fr_vector(c, c->in[3], c->in[2]->dims[0], 3) : FRUGAL_OK;
}

frugal_status fr_rms_norm_check(const fr_call *c) { return check_norm(c); }

static const float *floats(const fr_tensor *t) { return t ? (const float *)(const void *)t->data : NULL; }

static void layer_norm_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const float *x = floats(c->in[0]), *residual = floats(c->in[1]), *gamma = floats(c->in[2]), *beta = floats(c->in[3]);
    const int64_t n = c->in[2]->dims[0];
    const float eps = fr_attr_float(c, 0);
    float *y = (float *)(void *)c->out[0]->data;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        c->isa->layer_norm(y + i * n, x + i * n, residual ? residual + i * n : NULL, gamma, beta, n, eps);
}

static void rms_norm_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const float *x = floats(c->in[0]), *residual = floats(c->in[1]), *gamma = floats(c->in[2]);
    const int64_t n = c->in[2]->dims[0];
    const float eps = fr_attr_float(c, 0);
    float *y = (float *)(void *)c->out[0]->data;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        c->isa->rms_norm(y + i * n, x + i * n, residual ? residual + i * n : NULL, gamma, n, eps);
}

frugal_status fr_layer_norm_run(const fr_call *c) {
    const int64_t n = c->in[2]->dims[0];
    fr_parallel(c, c->out[0]->n / n, fr_row_grain(n), layer_norm_range, c);
    return FRUGAL_OK;
}

frugal_status fr_rms_norm_run(const fr_call *c) {
    const int64_t n = c->in[2]->dims[0];
    fr_parallel(c, c->out[0]->n / n, fr_row_grain(n), rms_norm_range, c);
    return FRUGAL_OK;
}
