/* ops_pool.c - POOL, MAX_POOL_INDICES: windows over one to three spatial axes, channels last. */
#include <math.h>

#include "window.h"

enum { KIND, WINDOWS, EACH = 5 }; /* attributes */
enum { MAXIMUM, MEAN, MEAN_PADDED, SUM };

typedef struct pool {
    const fr_call *c;
    fr_window w[FR_SPATIAL];
    int64_t after[FR_SPATIAL]; /* padding */
    int64_t channels;
} pool;

static frugal_status read_pool(const fr_call *c, pool *p) {
    const fr_tensor *x = c->in[0];
    *p = (pool){.c = c, .channels = x->dims[x->rank - 1]};
    for (int a = 0; a < FR_SPATIAL; a++) {
        p->after[a] = fr_attr_dim(c, WINDOWS + EACH * a + 4);
        FR_SHAPE(c, fr_window_read(c, WINDOWS, EACH, a, false, false, &p->w[a]), "a window is out of range");
        FR_SHAPE(c, p->after[a] >= 0 && p->after[a] <= FRUGAL_MAX_DIM, "a padding is out of range");
    }
    return FRUGAL_OK;
}

static frugal_status check_pool(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    pool p;
    FR_SHAPE(c, x->rank >= 3 && x->rank <= 2 + FR_SPATIAL && y->rank == x->rank, "pooling has one to three spatial axes");
    FR_SHAPE(c, x->dims[0] == y->dims[0] && x->dims[x->rank - 1] == y->dims[x->rank - 1],
             "pooling keeps the batch and the channels");
    FR_DTYPE(c, x->dtype == y->dtype, "input and output must have one data type");
    FR_TRY(read_pool(c, &p));
    for (int a = 0; a < FR_SPATIAL - (x->rank - 2); a++)
        FR_SHAPE(c, p.w[a].kernel == 1 && p.w[a].stride == 1 && p.w[a].pad == 0, "a window along an axis that is not there");
    return FRUGAL_OK;
}

frugal_status fr_window_pool_check(const fr_call *c) {
    const int t = c->in[0]->dtype;
    const int64_t kind = c->attrs[KIND];
    FR_NEED(c, kind <= SUM, FRUGAL_UNSUPPORTED, "unknown kind of pooling");
    FR_DTYPE(c, t == FR_F32 || (kind == MAXIMUM && (t == FR_I8 || t == FR_U8)), "pooling is of float32, maxima also of bytes");
    return check_pool(c);
}

frugal_status fr_max_pool_indices_check(const fr_call *c) {
    const int t = c->in[0]->dtype;
    FR_DTYPE(c, t == FR_F32 || t == FR_I8 || t == FR_U8, "maxima are of float32 or bytes");
    FR_DTYPE(c, c->out[1]->dtype == FR_I64, "indices are int64");
    FR_SHAPE(c, c->attrs[KIND] <= 1, "the order of indices is 0 or 1");
    FR_TRY(fr_same_shape(c, c->out[1], c->out[0], 2));
    return check_pool(c);
}

/* ---- one position ---- */

/* The taps of an output position along each axis, and where the image starts. */
typedef struct position {
    fr_run r[FR_SPATIAL];
    int64_t image;
} position;

static position position_of(const pool *p, int64_t i) {
    position at;
    for (int a = FR_SPATIAL - 1; a >= 0; a--) {
        fr_taps(&p->w[a], i % p->w[a].out, &at.r[a]);
        i /= p->w[a].out;
    }
    at.image = i;
    return at;
}

/* Runs BODY for every tap inside, with src the element of its first channel. */
#define FOR_TAPS(p, at, src, ...)                                                                                                \
    for (int64_t d_ = 0; d_ < (at)->r[0].taps; d_++) {                                                                           \
        for (int64_t h_ = 0; h_ < (at)->r[1].taps; h_++) {                                                                       \
            for (int64_t w_ = 0; w_ < (at)->r[2].taps; w_++) {                                                                   \
                const int64_t id_ = (at)->r[0].i + d_ * (at)->r[0].i_tap, ih_ = (at)->r[1].i + h_ * (at)->r[1].i_tap;            \
                const int64_t iw_ = (at)->r[2].i + w_ * (at)->r[2].i_tap;                                                        \
                const int64_t plain_ = (id_ * (p)->w[1].in + ih_) * (p)->w[2].in + iw_;                                          \
                const int64_t src = ((at)->image * (p)->w[0].in * (p)->w[1].in * (p)->w[2].in + plain_) * (p)->channels;         \
                __VA_ARGS__                                                                                                      \
            }                                                                                                                    \
        }                                                                                                                        \
    }

/* How many taps a mean divides by: along one axis, those inside, or those that the padding does not lack either. */
static int64_t counted(const pool *p, int a, int64_t o, const fr_run *r, bool padded) {
    const fr_window *w = &p->w[a];
    const int64_t first = o * w->stride - w->pad, end = w->in + p->after[a];
    if (!padded)
        return r->taps;
    return first >= end ? 0 : fr_min(w->kernel, (end - 1 - first) / w->dilation + 1);
}

static void mean_position(const pool *p, const position *at, int64_t i, float *y) {
    const bool padded = p->c->attrs[KIND] == MEAN_PADDED;
    int64_t n = 1, rest = i;
    for (int a = FR_SPATIAL - 1; a >= 0; a--) {
        n *= counted(p, a, rest % p->w[a].out, &at->r[a], padded);
        rest /= p->w[a].out;
    }
    for (int64_t c = 0; c < p->channels && n > 0; c++)
        y[c] = y[c] / (float)n;
}

static void sum_position(const pool *p, const position *at, int64_t i) {
    const float *x = (const float *)(const void *)p->c->in[0]->data;
    const int64_t n = p->channels;
    float *y = (float *)(void *)p->c->out[0]->data + i * n;
    memset(y, 0, (size_t)n * 4);
    FOR_TAPS(p, at, src, {
        for (int64_t c = 0; c < n; c++)
            y[c] = y[c] + x[src + c];
    })
    if (p->c->attrs[KIND] != SUM)
        mean_position(p, at, i, y);
}

#define MAX_POSITION(NAME, T, LOW)                                                                                               \
    static void NAME(const pool *p, const position *at, int64_t i) {                                                             \
        const T *x = (const T *)(const void *)p->c->in[0]->data;                                                                 \
        const int64_t n = p->channels;                                                                                           \
        T *y = (T *)(void *)p->c->out[0]->data + i * n;                                                                          \
        for (int64_t c = 0; c < n; c++)                                                                                          \
            y[c] = LOW;                                                                                                          \
        FOR_TAPS(p, at, src, {                                                                                                   \
            for (int64_t c = 0; c < n; c++) {                                                                                    \
                const T v = x[src + c];                                                                                          \
                y[c] = v > y[c] || v != v ? v : y[c];                                                                            \
            }                                                                                                                    \
        })                                                                                                                       \
    }
MAX_POSITION(max_f32, float, -INFINITY)
MAX_POSITION(max_i8, int8_t, INT8_MIN)
MAX_POSITION(max_u8, uint8_t, 0)

static void pool_range(const void *ctx, int64_t begin, int64_t end, int32_t thread) {
    const pool *p = ctx;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const position at = position_of(p, i);
        if (p->c->attrs[KIND] != MAXIMUM)
            sum_position(p, &at, i);
        else if (p->c->in[0]->dtype == FR_F32)
            max_f32(p, &at, i);
        else if (p->c->in[0]->dtype == FR_I8)
            max_i8(p, &at, i);
        else
            max_u8(p, &at, i);
    }
}

/* Channels are at least 1: only outputs with elements are run. */
static frugal_status each_position(const fr_call *c, fr_range fn) {
    pool p;
    FR_TRY(read_pool(c, &p));
    const int64_t taps = p.w[0].kernel * fr_min(64, p.w[1].kernel) * fr_min(64, p.w[2].kernel);
    fr_parallel(c, c->out[0]->n / p.channels, fr_row_grain(p.channels * fr_min(64, taps)), fn, &p);
    return FRUGAL_OK;
}

frugal_status fr_window_pool_run(const fr_call *c) { return each_position(c, pool_range); }

/* ---- MAX_POOL_INDICES ---- */

/* Where the tap is in [n, c, ..]; order 1: the spatial axes count from the first on. */
static int64_t plain_index(const pool *p, int64_t image, int64_t c, int64_t d, int64_t h, int64_t w) {
    const int64_t all = p->w[0].in * p->w[1].in * p->w[2].in, base = (image * p->channels + c) * all;
    if (p->c->attrs[KIND] == 0)
        return base + (d * p->w[1].in + h) * p->w[2].in + w;
    return base + (w * p->w[1].in + h) * p->w[0].in + d;
}

#define MAX_INDEX(NAME, T)                                                                                                       \
    static void NAME(const pool *p, const position *at, int64_t i) {                                                             \
        const T *x = (const T *)(const void *)p->c->in[0]->data;                                                                 \
        const int64_t n = p->channels;                                                                                           \
        T *y = (T *)(void *)p->c->out[0]->data + i * n;                                                                          \
        int64_t *index = (int64_t *)(void *)p->c->out[1]->data + i * n;                                                          \
        bool first = true;                                                                                                       \
        FOR_TAPS(p, at, src, {                                                                                                   \
            for (int64_t c = 0; c < n; c++) {                                                                                    \
                const T v = x[src + c];                                                                                          \
                if (first || v > y[c] || (v != v && y[c] == y[c]))                                                               \
                    y[c] = v, index[c] = plain_index(p, at->image, c, id_, ih_, iw_);                                            \
            }                                                                                                                    \
            first = false;                                                                                                       \
        })                                                                                                                       \
    }
MAX_INDEX(index_f32, float)
MAX_INDEX(index_i8, int8_t)
MAX_INDEX(index_u8, uint8_t)

static void index_range(const void *ctx, int64_t begin, int64_t end, int32_t thread) {
    const pool *p = ctx;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const position at = position_of(p, i);
        memset((int64_t *)(void *)p->c->out[1]->data + i * p->channels, 0, (size_t)p->channels * 8);
        if (p->c->in[0]->dtype == FR_F32)
            max_f32(p, &at, i), index_f32(p, &at, i);
        else if (p->c->in[0]->dtype == FR_I8)
            max_i8(p, &at, i), index_i8(p, &at, i);
        else
            max_u8(p, &at, i), index_u8(p, &at, i);
    }
}

frugal_status fr_max_pool_indices_run(const fr_call *c) { return each_position(c, index_range); }

int64_t fr_window_pool_operations(const fr_call *c) {
    pool p;
    int64_t n;
    if (read_pool(c, &p) != FRUGAL_OK || __builtin_mul_overflow(p.w[0].kernel, p.w[1].kernel, &n) ||
        __builtin_mul_overflow(n, p.w[2].kernel, &n) || __builtin_mul_overflow(n, c->out[0]->n, &n))
        return INT64_MAX;
    return n;
}
