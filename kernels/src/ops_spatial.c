/* ops_spatial.c - operations that sample, and on boxes: RESIZE, GRID_SAMPLE, ROI_ALIGN, COL2IM, NMS. */
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

/* ---- GRID_SAMPLE ---- */

enum { PAD_ZEROS, PAD_BORDER, PAD_REFLECTION };
enum { COORDS_PIXELS_AS_AREAS, COORDS_ALIGNED, COORDS_PIXELS };
enum { MOST_AXES = 3, MOST_TAPS = 4 };

/* The inputs of one output along each axis: index (-1 for a zero) and weight. */
typedef struct grid_taps {
    int64_t at[MOST_AXES][MOST_TAPS];
    float w[MOST_AXES][MOST_TAPS];
} grid_taps;

frugal_status fr_grid_sample_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *grid = c->in[1], *y = c->out[0];
    FR_DTYPE(c, x->dtype == FR_F32 && grid->dtype == FR_F32 && y->dtype == FR_F32, "sampling is of float32");
    FR_SHAPE(c, x->rank >= 3 && x->rank <= 2 + MOST_AXES && grid->rank == x->rank && y->rank == x->rank,
             "input, grid and output must have 3 to 5 axes");
    FR_SHAPE(c, grid->dims[0] == x->dims[0] && y->dims[0] == x->dims[0] && y->dims[1] == x->dims[1], "batches differ");
    FR_SHAPE(c, grid->dims[x->rank - 1] == x->rank - 2, "a place of the grid has another number of coordinates");
    for (int32_t a = 2; a < x->rank; a++) {
        if (y->dims[a] != grid->dims[a - 1])
            return fr_fail(c, FRUGAL_BAD_SHAPE, 2, a, grid->dims[a - 1], y->dims[a],
                           "the output has another shape than the grid");
        FR_SHAPE(c, x->dims[a] > 0 || y->n == 0, "an empty axis has nothing to sample");
    }
    return FRUGAL_OK;
}

static float pixel_of(int64_t coords, float g, int64_t n) {
    if (coords == COORDS_PIXELS)
        return g;
    return coords == COORDS_ALIGNED ? (g + 1) / 2 * (float)(n - 1) : ((g + 1) * (float)n - 1) / 2;
}

/* An index outside of [0, n) by the padding; -1 where it is zero.  Reflection is about the centers (aligned) or edges. */
static int64_t inside(const fr_call *c, int64_t i, int64_t n) {
    if (i >= 0 && i < n)
        return i;
    if (c->attrs[1] == PAD_ZEROS)
        return -1;
    if (c->attrs[1] == PAD_BORDER)
        return i < 0 ? 0 : n - 1;
    const bool aligned = c->attrs[2] == COORDS_ALIGNED;
    const int64_t period = aligned ? fr_max(2 * (n - 1), 1) : 2 * n, r = (i % period + period) % period;
    return r < n ? r : aligned ? period - r : period - 1 - r;
}

static void take_axis(const fr_call *c, float g, int64_t n, int64_t *at, float *w) {
    const float x = pixel_of(c->attrs[2], g, n);
    const bool wild = !(fabsf(x) < 0x1p31f); /* an index beyond has no fraction; a NaN has no place */
    const float f = wild ? 0 : floorf(x), r = wild ? 0 : x - f;
    const int64_t i = wild ? (x > 0 ? INT64_C(1) << 31 : -(INT64_C(1) << 31)) : (int64_t)f;
    const float a = -0.75f;
    if (c->attrs[0] == RESIZE_NEAREST) {
        at[0] = inside(c, wild ? i : (int64_t)rintf(x), n), w[0] = 1;
    } else if (c->attrs[0] == RESIZE_LINEAR) {
        at[0] = inside(c, i, n), at[1] = inside(c, i + 1, n);
        w[0] = 1 - r, w[1] = r;
    } else {
        for (int k = 0; k < 4; k++)
            at[k] = inside(c, i - 1 + k, n);
        w[0] = ((a * (r + 1) - 5 * a) * (r + 1) + 8 * a) * (r + 1) - 4 * a;
        w[1] = ((a + 2) * r - (a + 3)) * r * r + 1;
        w[2] = ((a + 2) * (1 - r) - (a + 3)) * (1 - r) * (1 - r) + 1;
        w[3] = ((a * (2 - r) - 5 * a) * (2 - r) + 8 * a) * (2 - r) - 4 * a;
    }
}

/* The sum over the last axis first, each product rounded and then added, ascending. */
static float sample(const grid_taps *t, const float *x, const int64_t *dims, int32_t axes, int32_t taps) {
    float sum = 0;
    for (int32_t k = 0; k < taps; k++) {
        if (t->at[0][k] < 0)
            continue;
        const float *row = x + t->at[0][k] * (axes > 1 ? dims[1] * (axes > 2 ? dims[2] : 1) : 1);
        float part = 0;
        for (int32_t l = 0; axes > 1 && l < taps; l++) {
            if (t->at[1][l] < 0)
                continue;
            const float *line = row + t->at[1][l] * (axes > 2 ? dims[2] : 1);
            float inner = 0;
            for (int32_t m = 0; axes > 2 && m < taps; m++)
                inner += t->at[2][m] < 0 ? 0 : t->w[2][m] * line[t->at[2][m]];
            part += t->w[1][l] * (axes > 2 ? inner : *line);
        }
        sum += t->w[0][k] * (axes > 1 ? part : *row);
    }
    return sum;
}

static void grid_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const fr_tensor *x = c->in[0], *y = c->out[0];
    const int32_t axes = x->rank - 2, taps = c->attrs[0] == RESIZE_NEAREST ? 1 : c->attrs[0] == RESIZE_LINEAR ? 2 : 4;
    const int64_t places = fr_product(y, 2, y->rank), plane = fr_product(x, 2, x->rank), channels = x->dims[1];
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const float *g = values_of(c->in[1]) + i * axes;
        grid_taps t;
        for (int32_t a = 0; a < axes; a++)
            take_axis(c, g[axes - 1 - a], x->dims[2 + a], t.at[a], t.w[a]);
        for (int64_t k = 0; k < channels; k++) {
            const int64_t at = i / places * channels + k;
            float *to = (float *)(void *)y->data + at * places + i % places;
            *to = sample(&t, values_of(x) + at * plane, x->dims + 2, axes, taps);
        }
    }
}

frugal_status fr_grid_sample_run(const fr_call *c) {
    const fr_tensor *y = c->out[0];
    fr_parallel(c, y->dims[0] * fr_product(y, 2, y->rank), fr_row_grain(8 * y->dims[1]), grid_range, c);
    return FRUGAL_OK;
}

/* ---- ROI_ALIGN ---- */

enum { ROI_MAX, ROI_SAMPLES, ROI_SCALE, ROI_HALF_PIXEL };
enum { FARTHEST_ROI = 64 }; /* times the image: bounds the samples of a bin */

frugal_status fr_roi_align_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *rois = c->in[1], *batch = c->in[2], *y = c->out[0];
    FR_DTYPE(c, x->dtype == FR_F32 && rois->dtype == FR_F32 && y->dtype == FR_F32, "regions are of float32");
    FR_DTYPE(c, batch->dtype == FR_I64, "batch indices must be int64");
    FR_SHAPE(c, x->rank == 4 && y->rank == 4 && rois->rank == 2 && rois->dims[1] == 4, "regions are [n, 4], images have 4 axes");
    FR_SHAPE(c, batch->n == rois->dims[0] && y->dims[0] == rois->dims[0] && y->dims[1] == x->dims[1],
             "the output has another shape than regions and image give");
    FR_SHAPE(c, y->n == 0 || (x->dims[2] > 0 && x->dims[3] > 0), "an empty image has no regions");
    FR_SHAPE(c, c->attrs[ROI_SAMPLES] <= 1024, "too many samples");
    return FRUGAL_OK;
}

/* One axis of a region: first place, length of a bin, samples in a bin, outputs. */
typedef struct roi_axis {
    float start, bin;
    int64_t samples, n;
} roi_axis;

static frugal_status roi_of(const fr_call *c, int64_t r, int32_t vertical, roi_axis *a) {
    const float *roi = values_of(c->in[1]) + 4 * r + vertical, scale = fr_attr_float(c, ROI_SCALE);
    const int64_t out = c->out[0]->dims[vertical ? 2 : 3], fixed = c->attrs[ROI_SAMPLES];
    const float half = c->attrs[ROI_HALF_PIXEL] ? 0.5f : 0.0f;
    float length = roi[2] * scale - half - (roi[0] * scale - half);
    *a = (roi_axis){.start = roi[0] * scale - half, .n = c->in[0]->dims[vertical ? 2 : 3]};
    if (!c->attrs[ROI_HALF_PIXEL] && length < 1)
        length = 1;
    if (!(fabsf(length) <= (float)FARTHEST_ROI * ((float)a->n + FARTHEST_ROI) && fabsf(a->start) <= 0x1p40f))
        return fr_fail(c, FRUGAL_BAD_INPUT, 1, (int32_t)r, a->n, 0, "a region is no range of numbers near the image");
    a->bin = length / (float)out;
    a->samples = fixed > 0 ? fixed : (int64_t)fmaxf(ceilf(length / (float)out), 0);
    return FRUGAL_OK;
}

/* The two inputs and weights of a sample; false outside. */
static bool roi_sample(const roi_axis *a, int64_t bin, int64_t k, int64_t at[2], float w[2]) {
    float p = a->start + (float)bin * a->bin + ((float)k + 0.5f) * a->bin / (float)a->samples;
    if (!(p >= -1 && p <= (float)a->n))
        return false;
    p = p > 0 ? p : 0;
    at[0] = (int64_t)p;
    at[1] = at[0] + 1;
    if (at[0] >= a->n - 1)
        at[0] = at[1] = a->n - 1, p = (float)at[0];
    w[1] = p - (float)at[0];
    w[0] = 1 - w[1];
    return true;
}

/* One output: the mean of the samples, or the largest of their weighted corners (as onnxruntime has it). */
static float roi_bin(const fr_call *c, const float *x, const roi_axis *v, const roi_axis *h, int64_t ph, int64_t pw) {
    float sum = 0, most = 0;
    bool any = false;
    for (int64_t i = 0; i < v->samples; i++) {
        for (int64_t j = 0; j < h->samples; j++) {
            int64_t row[2] = {0, 0}, col[2] = {0, 0};
            float wr[2] = {0, 0}, wc[2] = {0, 0}, part[4];
            if (!roi_sample(v, ph, i, row, wr) || !roi_sample(h, pw, j, col, wc))
                row[0] = row[1] = col[0] = col[1] = 0, wr[0] = wr[1] = 0;
            for (int k = 0; k < 4; k++)
                part[k] = wr[k / 2] * wc[k % 2] * x[row[k / 2] * h->n + col[k % 2]];
            const float top = fmaxf(fmaxf(part[0], part[1]), fmaxf(part[2], part[3]));
            most = any ? fmaxf(most, top) : top;
            any = true;
            sum += part[0] + part[1] + part[2] + part[3];
        }
    }
    return c->attrs[ROI_MAX] ? most : sum / (float)fr_max(v->samples * h->samples, 1);
}

static void roi_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const fr_tensor *x = c->in[0], *y = c->out[0];
    const int64_t *batch = (const int64_t *)(const void *)c->in[2]->data;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int64_t r = i / y->dims[1], channel = i % y->dims[1];
        const float *from = values_of(x) + (batch[r] * x->dims[1] + channel) * x->dims[2] * x->dims[3];
        float *to = (float *)(void *)y->data + i * y->dims[2] * y->dims[3];
        roi_axis v, h;
        (void)roi_of(c, r, 1, &v), (void)roi_of(c, r, 0, &h); /* checked before */
        for (int64_t k = 0; k < y->dims[2] * y->dims[3]; k++)
            to[k] = roi_bin(c, from, &v, &h, k / y->dims[3], k % y->dims[3]);
    }
}

frugal_status fr_roi_align_run(const fr_call *c) {
    const int64_t *batch = (const int64_t *)(const void *)c->in[2]->data;
    for (int64_t r = 0; r < c->out[0]->dims[0]; r++) {
        roi_axis a;
        if (batch[r] < 0 || batch[r] >= c->in[0]->dims[0])
            return fr_fail(c, FRUGAL_BAD_INPUT, 2, -1, c->in[0]->dims[0], batch[r], "a batch index lies outside the images");
        FR_TRY(roi_of(c, r, 1, &a));
        FR_TRY(roi_of(c, r, 0, &a));
    }
    fr_parallel(c, c->out[0]->dims[0] * c->out[0]->dims[1], 1, roi_range, c);
    return FRUGAL_OK;
}

/* ---- COL2IM ---- */

enum { C_BLOCK, C_DILATION, C_BEFORE, C_BEHIND, C_STRIDE, C_EACH };

static int64_t col_attr(const fr_call *c, int32_t axis, int32_t which) { return fr_attr_dim(c, C_EACH * axis + which); }

/* Positions of the block along an axis; -1 when it does not fit. */
static int64_t positions(const fr_call *c, int32_t a) {
    const int64_t block = col_attr(c, a, C_BLOCK), dilation = col_attr(c, a, C_DILATION), stride = col_attr(c, a, C_STRIDE);
    const int64_t room = c->out[0]->dims[2 + a] + col_attr(c, a, C_BEFORE) + col_attr(c, a, C_BEHIND);
    int64_t reach;
    if (block < 1 || stride < 1 || __builtin_mul_overflow(block - 1, dilation, &reach) || reach >= room)
        return -1;
    return (room - 1 - reach) / stride + 1;
}

frugal_status fr_col2im_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    int64_t block = 1, places = 1;
    FR_DTYPE(c, x->dtype == FR_F32 && y->dtype == FR_F32, "columns are float32");
    FR_SHAPE(c, x->rank == 3 && y->rank >= 3 && c->n_attr == C_EACH * (y->rank - 2), "the attributes do not fit the image");
    for (int32_t a = 0; a < y->rank - 2; a++) {
        const int64_t n = positions(c, a);
        FR_SHAPE(c, n > 0, "a block does not fit the image");
        FR_SHAPE(c,
                 !__builtin_mul_overflow(block, col_attr(c, a, C_BLOCK), &block) && !__builtin_mul_overflow(places, n, &places),
                 "too many blocks");
    }
    int64_t rows;
    FR_SHAPE(c,
             x->dims[0] == y->dims[0] && !__builtin_mul_overflow(y->dims[1], block, &rows) && x->dims[1] == rows &&
                 x->dims[2] == places,
             "the columns do not fit blocks and image");
    return FRUGAL_OK;
}

/* Adds one row of columns to its image: block element `k`, ascending positions. */
static void add_row(const fr_call *c, float *y, const float *x, int64_t k) {
    const fr_tensor *image = c->out[0];
    const int32_t axes = image->rank - 2;
    int64_t offset[FRUGAL_MAX_RANK], n[FRUGAL_MAX_RANK], index[FRUGAL_MAX_RANK] = {0};
    for (int32_t a = axes - 1; a >= 0; a--) {
        n[a] = positions(c, a);
        offset[a] = k % col_attr(c, a, C_BLOCK) * col_attr(c, a, C_DILATION) - col_attr(c, a, C_BEFORE);
        k /= col_attr(c, a, C_BLOCK);
    }
    for (int64_t i = 0; i < c->in[0]->dims[2]; i++) {
        int64_t at = 0;
        bool in = true;
        for (int32_t a = 0; a < axes; a++) {
            const int64_t p = offset[a] + index[a] * col_attr(c, a, C_STRIDE);
            in = in && p >= 0 && p < image->dims[2 + a];
            at = at * image->dims[2 + a] + (in ? p : 0);
        }
        if (in)
            y[at] += x[i];
        for (int32_t a = axes - 1; a >= 0 && ++index[a] == n[a]; a--)
            index[a] = 0;
    }
}

static void col2im_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const fr_tensor *x = c->in[0], *y = c->out[0];
    const int64_t plane = fr_product(y, 2, y->rank), block = x->dims[1] / y->dims[1];
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        float *to = (float *)(void *)y->data + i * plane;
        memset(to, 0, (size_t)plane * sizeof *to);
        for (int64_t k = 0; k < block; k++)
            add_row(c, to, values_of(x) + (i * block + k) * x->dims[2], k);
    }
}

frugal_status fr_col2im_run(const fr_call *c) {
    fr_parallel(c, c->out[0]->dims[0] * c->out[0]->dims[1], 1, col2im_range, c);
    return FRUGAL_OK;
}

/* ---- NMS ---- */

enum { N_BOXES, N_SCORES, N_MOST, N_IOU, N_SCORE };

frugal_status fr_nms_check(const fr_call *c) {
    const fr_tensor *boxes = c->in[N_BOXES], *scores = c->in[N_SCORES], *most = c->in[N_MOST], *y = c->out[0];
    FR_DTYPE(c, boxes->dtype == FR_F32 && scores->dtype == FR_F32, "boxes and scores are float32");
    FR_DTYPE(c, (!most || most->dtype == FR_I64) && y->dtype == FR_I64 && c->out[1]->dtype == FR_I64, "counts are int64");
    for (int32_t k = N_IOU; k <= N_SCORE; k++) {
        FR_DTYPE(c, !c->in[k] || c->in[k]->dtype == FR_F32, "thresholds are float32");
        FR_SHAPE(c, !c->in[k] || c->in[k]->n == 1, "a threshold is one element");
    }
    FR_SHAPE(c, !most || most->n == 1, "a count is one element");
    FR_SHAPE(c, boxes->rank == 3 && scores->rank == 3 && boxes->dims[2] == 4, "boxes are [b, n, 4], scores [b, c, n]");
    FR_SHAPE(c, boxes->dims[0] == scores->dims[0] && boxes->dims[1] == scores->dims[2], "boxes and scores differ");
    FR_SHAPE(c, y->rank == 2 && y->dims[1] == 3 && c->out[1]->n == 1, "the outputs are [m, 3] and one count");
    return FRUGAL_OK;
}

void fr_nms_scratch(const fr_call *c, fr_scratch *s) { s->shared = 8 * 3 * c->in[N_BOXES]->dims[1]; }

static void corners(const fr_call *c, const float *b, float v[4]) {
    if (c->attrs[0]) { /* center x, y, width, height */
        v[0] = b[0] - b[2] / 2, v[2] = b[0] + b[2] / 2;
        v[1] = b[1] - b[3] / 2, v[3] = b[1] + b[3] / 2;
        return;
    }
    v[0] = fminf(b[0], b[2]), v[2] = fmaxf(b[0], b[2]);
    v[1] = fminf(b[1], b[3]), v[3] = fmaxf(b[1], b[3]);
}

static bool overlaps(const fr_call *c, const float *a, const float *b, float limit) {
    float p[4], q[4];
    corners(c, a, p), corners(c, b, q);
    const float w = fminf(p[2], q[2]) - fmaxf(p[0], q[0]), h = fminf(p[3], q[3]) - fmaxf(p[1], q[1]);
    const float first = (p[2] - p[0]) * (p[3] - p[1]), second = (q[2] - q[0]) * (q[3] - q[1]);
    if (!(w > 0 && h > 0 && first > 0 && second > 0))
        return false;
    return w * h / (first + second - w * h) > limit;
}

/* The boxes of one class that are kept, best first, to keep[]; returns how many. */
static int64_t keep_boxes(const fr_call *c, const float *boxes, const float *scores, int64_t most) {
    const int64_t n = c->in[N_BOXES]->dims[1];
    const float limit = c->in[N_IOU] ? *values_of(c->in[N_IOU]) : 0;
    uint64_t *keys = (uint64_t *)(void *)c->shared;
    int64_t *order = (int64_t *)(void *)(keys + n), *keep = order + n, kept = 0, candidates = 0;
    (void)fr_sort_keys(keys, (const uint8_t *)scores, FR_F32, n, 1);
    for (int64_t i = 0; i < n; i++) {
        const bool good = scores[i] == scores[i] && (!c->in[N_SCORE] || scores[i] > *values_of(c->in[N_SCORE]));
        keys[i] = good ? keys[i] : 0; /* below every number */
        candidates += good;
    }
    fr_topk_indices(keys, n, order, candidates);
    for (int64_t i = 0; i < candidates && kept < most; i++) {
        bool free = true;
        for (int64_t k = 0; k < kept && free; k++)
            free = !overlaps(c, boxes + 4 * order[i], boxes + 4 * keep[k], limit);
        if (free)
            keep[kept++] = order[i];
    }
    return kept;
}

frugal_status fr_nms_run(const fr_call *c) {
    const int64_t classes = c->in[N_SCORES]->dims[1], n = c->in[N_BOXES]->dims[1], room = c->out[0]->dims[0];
    const int64_t most = c->in[N_MOST] ? *(const int64_t *)(const void *)c->in[N_MOST]->data : 0;
    const int64_t *keep = (const int64_t *)(const void *)c->shared + 2 * n;
    int64_t *y = (int64_t *)(void *)c->out[0]->data, found = 0;
    memset(y, 0, (size_t)c->out[0]->bytes);
    for (int64_t i = 0; i < c->in[N_SCORES]->dims[0] * classes && n > 0; i++) {
        const int64_t batch = i / classes;
        const int64_t kept = keep_boxes(c, values_of(c->in[N_BOXES]) + batch * n * 4, values_of(c->in[N_SCORES]) + i * n, most);
        if (kept > room - found)
            return fr_fail(c, FRUGAL_BAD_INPUT, N_MOST, -1, room, found + kept, "more boxes are kept than there is room for");
        for (int64_t k = 0; k < kept; k++, found++)
            y[3 * found] = batch, y[3 * found + 1] = i % classes, y[3 * found + 2] = keep[k];
    }
    *(int64_t *)(void *)c->out[1]->data = found;
    return FRUGAL_OK;
}

int64_t fr_nms_operations(const fr_call *c) { return c->in[N_SCORES]->n; }
