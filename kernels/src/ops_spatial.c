/* ops_spatial.c - operations that sample: RESIZE. */
#include <math.h>

#include "ops.h"

/* ---- RESIZE ---- */

enum { RESIZE_NEAREST = 0, RESIZE_LINEAR = 1, RESIZE_CUBIC = 2 };
enum { HALF_PIXEL, HALF_PIXEL_SYMMETRIC, PYTORCH_HALF_PIXEL, ALIGN_CORNERS, ASYMMETRIC, TF_CROP_AND_RESIZE };
enum { ROUND_PREFER_FLOOR, ROUND_PREFER_CEIL, ROUND_FLOOR, ROUND_CEIL, ROUND_SIMPLE };
/* attrs */
enum { R_MODE, R_TRANSFORM, R_ROUND, R_EXCLUDE, R_ANTIALIAS, R_CUBIC_A, R_AXES, R_COUNT };
/* inputs */
enum { R_X, R_SCALES, R_ROI, R_VALUE, R_Y };

typedef struct resize_axis {
    int64_t in, out;
    float scale, length; /* of the output before it was rounded */
    float roi0, roi1;
} resize_axis;

static const float *values_of(const fr_tensor *t) { return (const float *)(const void *)t->data; }

frugal_status fr_resize_check(const fr_call *c) {
    const fr_tensor *x = c->in[R_X], *scales = c->in[R_SCALES], *roi = c->in[R_ROI], *value = c->in[R_VALUE], *y = c->out[0];
    const int64_t *at = c->attrs, axes = at[R_AXES];
    FR_DTYPE(c, x->dtype == y->dtype && (!value || value->dtype == x->dtype), "input, value and output must have one data type");
    FR_DTYPE(c, at[R_MODE] == RESIZE_NEAREST || x->dtype == FR_F32, "interpolation is of float32");
    FR_SHAPE(c, at[R_MODE] <= RESIZE_CUBIC && at[R_TRANSFORM] <= TF_CROP_AND_RESIZE && at[R_ROUND] <= ROUND_SIMPLE,
             "no such mode");
    FR_SHAPE(c, x->rank == y->rank && axes >> x->rank == 0, "input and output differ in rank, or an axis is not one of them");
    FR_SHAPE(c, at[R_MODE] == RESIZE_NEAREST || (axes && (axes & (axes - 1)) == 0), "interpolation is along one axis");
    FR_SHAPE(c, !value || value->n == 1, "the value must be one element");
    if (scales)
        FR_TRY(fr_vector(c, scales, x->rank, R_SCALES));
    if (roi)
        FR_TRY(fr_vector(c, roi, 2 * x->rank, R_ROI));
    FR_SHAPE(c, roi || at[R_TRANSFORM] != TF_CROP_AND_RESIZE, "a crop needs its region");
    for (int32_t a = 0; a < x->rank; a++) {
        const bool resized = axes >> a & 1;
        if (!resized && x->dims[a] != y->dims[a])
            return fr_fail(c, FRUGAL_BAD_SHAPE, c->n_in, a, x->dims[a], y->dims[a], "an axis that is kept has another length");
        FR_SHAPE(c, !resized || x->dims[a] > 0 || y->n == 0, "an empty axis has nothing to sample");
    }
    return FRUGAL_OK;
}

/* What in * scale may be, given that the output has `out` elements: rounded down, to nearest, or exact. */
static const double SLACK_BELOW = 0.51, SLACK_ABOVE = 1.01;

/* Bound of the number of inputs that an output is a sum of. */
static int64_t most_taps(const fr_call *c, int32_t a) {
    const int64_t reach = c->attrs[R_MODE] == RESIZE_CUBIC ? 2 : 1;
    if (!c->attrs[R_ANTIALIAS])
        return 2 * reach;
    const double least = fmin(1.0, ((double)c->out[0]->dims[a] - SLACK_BELOW) / (double)c->in[0]->dims[a]);
    const int64_t taps = 2 * (int64_t)ceil((double)reach / least) + 4;
    return fr_min(taps, c->in[0]->dims[a] + 4); /* those outside are folded into the first and last */
}

static int32_t lowest(int64_t mask) {
    int32_t a = 0;
    while (!(mask >> a & 1))
        a++;
    return a;
}

/* Interpolation: first, count int64 [out], weights float [out][taps]. */
void fr_resize_scratch(const fr_call *c, fr_scratch *s) {
    if (c->attrs[R_MODE] == RESIZE_NEAREST) {
        s->shared = fr_map_scratch(c->out[0]);
        return;
    }
    const int32_t a = lowest(c->attrs[R_AXES]);
    int64_t bytes;
    if (c->out[0]->n == 0)
        return;
    if (__builtin_mul_overflow(c->out[0]->dims[a], 16 + 4 * most_taps(c, a), &bytes))
        bytes = INT64_MAX / 4;
    s->shared = bytes;
}

static frugal_status axis_of(const fr_call *c, int32_t a, resize_axis *r) {
    const fr_tensor *x = c->in[R_X], *scales = c->in[R_SCALES], *roi = c->in[R_ROI];
    *r = (resize_axis){.in = x->dims[a], .out = c->out[0]->dims[a], .roi1 = 1};
    r->scale = scales ? values_of(scales)[a] : (float)r->out / (float)r->in;
    r->length = scales ? r->scale * (float)r->in : (float)r->out;
    const double length = (double)r->scale * (double)r->in, slack = 1e-5 * (double)r->out; /* float32 products in the model */
    if (!(length >= (double)r->out - SLACK_BELOW - slack && length <= (double)r->out + SLACK_ABOVE + slack))
        return fr_fail(c, FRUGAL_BAD_INPUT, R_SCALES, a, r->out, (int64_t)fmin(fmax(length, -1), 1e15),
                       "a scale does not give the output's length");
    if (roi) {
        r->roi0 = values_of(roi)[a];
        r->roi1 = values_of(roi)[x->rank + a];
        if (!(fabsf(r->roi0) <= 1e6f && fabsf(r->roi1) <= 1e6f))
            return fr_fail(c, FRUGAL_BAD_INPUT, R_ROI, a, 0, 0, "a region of interest is not a range of numbers");
    }
    return FRUGAL_OK;
}

/* Where output j lies among the inputs; in float32, as the models' exporters test it. */
static float source_of(const resize_axis *r, int64_t transform, int64_t j) {
    const float x = (float)j, in = (float)r->in;
    switch (transform) {
    case HALF_PIXEL_SYMMETRIC: {
        const float adjustment = (float)r->out / r->length, center = in / 2;
        return center * (1 - adjustment) + (x + 0.5f) / r->scale - 0.5f;
    }
    case PYTORCH_HALF_PIXEL:
        return r->length > 1 ? (x + 0.5f) / r->scale - 0.5f : 0;
    case ALIGN_CORNERS:
        return r->length == 1 ? 0 : x * (in - 1) / (r->length - 1);
    case ASYMMETRIC:
        return x / r->scale;
    case TF_CROP_AND_RESIZE:
        if (r->length == 1)
            return r->roi0 * (in - 1) + (r->roi1 - r->roi0) * (in - 1) / 2;
        return r->roi0 * (in - 1) + x * (r->roi1 - r->roi0) * (in - 1) / (r->length - 1);
    default:
        return (x + 0.5f) / r->scale - 0.5f;
    }
}

static bool outside(const resize_axis *r, int64_t transform, float x) {
    return transform == TF_CROP_AND_RESIZE && (x < 0 || x > (float)(r->in - 1));
}

/* Any float, also a NaN (length near 1 may divide by zero), to an integer far inside int64. */
static int64_t whole(double x) { return x >= -0x1p41 && x <= 0x1p41 ? (int64_t)x : 0; }

static int64_t nearest(const resize_axis *r, int64_t rounding, float x) {
    float i;
    switch (rounding) {
    case ROUND_PREFER_FLOOR:
        i = ceilf(x - 0.5f);
        break;
    case ROUND_PREFER_CEIL:
        i = floorf(x + 0.5f);
        break;
    case ROUND_CEIL:
        i = ceilf(x);
        break;
    case ROUND_SIMPLE: /* Resize 10: up when it shrinks */
        i = r->scale < 1 ? ceilf(x) : floorf(x);
        break;
    default:
        i = floorf(x);
        break;
    }
    const int64_t k = whole(i);
    return k < 0 ? 0 : fr_min(k, r->in - 1);
}

static frugal_status resize_nearest(const fr_call *c) {
    static const uint8_t zero[8];
    const fr_tensor *x = c->in[R_X], *y = c->out[0];
    fr_map m;
    fr_map_init(&m, x, y, c->in[R_VALUE] ? c->in[R_VALUE]->data : zero, c->shared);
    for (int32_t a = 0; a < y->rank; a++) {
        resize_axis r;
        const bool resized = c->attrs[R_AXES] >> a & 1;
        if (resized)
            FR_TRY(axis_of(c, a, &r));
        for (int64_t j = 0; j < y->dims[a]; j++) {
            const float from = resized ? source_of(&r, c->attrs[R_TRANSFORM], j) : 0;
            m.at[a][j] = !resized ? j : outside(&r, c->attrs[R_TRANSFORM], from) ? -1 : nearest(&r, c->attrs[R_ROUND], from);
        }
    }
    fr_map_run(c, &m);
    return FRUGAL_OK;
}

typedef struct taps {
    const fr_call *c;
    int64_t *first, *count; /* [out]; count 0: the value outside */
    float *weights;         /* [out][most] */
    int64_t most, inner, in, out;
    float value;
} taps;

static double kernel_at(const fr_call *c, double x) {
    const double a = fr_attr_double(c, R_CUBIC_A);
    x = fabs(x);
    if (c->attrs[R_MODE] == RESIZE_LINEAR)
        return x < 1 ? 1 - x : 0;
    if (x <= 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

/* Weights of one output; those of inputs before the first and behind the last go to these, or to nothing. */
static frugal_status weigh(const fr_call *c, const resize_axis *r, taps *t, int64_t j, float from) {
    const double x = (double)whole(floorf(from)), ratio = x == floorf(from) ? (double)from - x : 0;
    const double scale = c->attrs[R_ANTIALIAS] ? fmin((double)r->scale, 1) : 1;
    const double reach = c->attrs[R_MODE] == RESIZE_CUBIC ? 2 : 1;
    const int64_t start = whole(floor(-reach / scale)) + 1, n = 2 - 2 * start, base = whole(x) + start, end = r->in - 1;
    const int64_t lo = fr_max(0, fr_min(base, end)), hi = fr_max(0, fr_min(base + n - 1, end));
    float *w = t->weights + j * t->most;
    double sum = 0, here = 0;
    if (hi - lo + 1 > t->most || n > 64 * (r->in + 64))
        return fr_fail(c, FRUGAL_BAD_INPUT, R_SCALES, -1, t->most, hi - lo + 1, "a scale does not give the output's length");
    t->first[j] = lo;
    t->count[j] = hi - lo + 1;
    for (int64_t k = 0; k < t->count[j]; k++)
        w[k] = 0;
    for (int pass = 0; pass < 2; pass++) { /* the sum, then the weights */
        const bool normalize = c->attrs[R_ANTIALIAS] || c->attrs[R_EXCLUDE];
        for (int64_t k = 0; k < n; k++) {
            const int64_t i = base + k, at = fr_max(lo, fr_min(i, hi));
            const double v = i != at && c->attrs[R_EXCLUDE] ? 0 : kernel_at(c, scale * ((double)(start + k) - ratio));
            if (pass == 0) {
                sum += v;
                continue;
            }
            here = i > lo && i <= hi ? v : here + v;
            w[at - lo] = (float)(normalize && sum != 0 ? here / sum : here);
        }
    }
    return FRUGAL_OK;
}

/* y[o, j, :] = sum over k of w[j][k] x[o, first[j] + k, :], ascending k, each product rounded and then added. */
static void interpolate_row(const taps *t, float *y, const float *x, int64_t j) {
    const float *w = t->weights + j * t->most;
    const int64_t n = t->inner, count = t->count[j];
    x += t->first[j] * n;
    if (count == 0) {
        for (int64_t i = 0; i < n; i++)
            y[i] = t->value;
    } else if (count == 1) {
        for (int64_t i = 0; i < n; i++)
            y[i] = w[0] * x[i];
    } else {
        for (int64_t i = 0; i < n; i++)
            y[i] = w[0] * x[i] + w[1] * x[n + i];
    }
    for (int64_t k = 2; k < count; k++) {
        for (int64_t i = 0; i < n; i++)
            y[i] += w[k] * x[k * n + i];
    }
}

/* The same where the axis is the last: no vectors, so no loop over i. */
static void interpolate_last(const taps *t, float *y, const float *x, int64_t j0, int64_t j1) {
    for (int64_t j = j0; j < j1; j++) {
        const float *w = t->weights + j * t->most, *from = x + t->first[j];
        const int64_t count = t->count[j];
        float v = count == 0 ? t->value : w[0] * from[0];
        for (int64_t k = 1; k < count; k++)
            v += w[k] * from[k];
        y[j] = v;
    }
}

static void interpolate_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const taps *t = p;
    float *y = (float *)(void *)t->c->out[0]->data;
    (void)thread;
    while (begin < end) {
        const int64_t o = begin / t->out, j0 = begin % t->out, j1 = fr_min(t->out, j0 + end - begin);
        const float *x = values_of(t->c->in[R_X]) + o * t->in * t->inner;
        if (t->inner == 1)
            interpolate_last(t, y + o * t->out, x, j0, j1);
        else
            for (int64_t j = j0; j < j1; j++)
                interpolate_row(t, y + (o * t->out + j) * t->inner, x, j);
        begin += j1 - j0;
    }
}

frugal_status fr_resize_run(const fr_call *c) {
    const fr_tensor *x = c->in[R_X], *y = c->out[0];
    if (c->attrs[R_MODE] == RESIZE_NEAREST)
        return resize_nearest(c);
    const int32_t a = lowest(c->attrs[R_AXES]);
    resize_axis r;
    FR_TRY(axis_of(c, a, &r));
    taps t = {.c = c, .most = most_taps(c, a), .inner = fr_product(x, a + 1, x->rank), .in = r.in, .out = r.out};
    t.value = c->in[R_VALUE] ? values_of(c->in[R_VALUE])[0] : 0;
    t.first = (int64_t *)(void *)c->shared;
    t.count = t.first + r.out;
    t.weights = (float *)(void *)(t.count + r.out);
    for (int64_t j = 0; j < r.out; j++) {
        const float from = source_of(&r, c->attrs[R_TRANSFORM], j);
        t.first[j] = t.count[j] = 0;
        if (!outside(&r, c->attrs[R_TRANSFORM], from))
            FR_TRY(weigh(c, &r, &t, j, from));
    }
    fr_parallel(c, y->n / t.inner, fr_row_grain(t.inner), interpolate_range, &t);
    return FRUGAL_OK;
}
