/* ops_reduce.c - REDUCE over any axes and SOFTMAX over one, with the order of sums that isa.h writes down. */
#include <math.h>

#include "ops.h"

/* ---- REDUCE ---- */

enum { LANES = 16, COLUMNS = 16 /* outputs side by side, so that rows of a matrix are read as they lie */ };

/* Kept axes are the walk of the output; reduced axes are walked for every block of outputs. */
typedef struct reducer {
    const fr_call *c;
    int64_t outer, columns, column_step; /* blocks of the kept axes; outputs of the last kept axis */
    int kept_rank, rank;                 /* kept axes before the columns; reduced axes */
    int64_t kept[FRUGAL_MAX_RANK], kept_step[FRUGAL_MAX_RANK];
    int64_t dims[FRUGAL_MAX_RANK], step[FRUGAL_MAX_RANK];
    int64_t count; /* reduced elements an output */
    int kind;
} reducer;

/* The shape is known before the axes are: every axis of y is kept or 1. */
static frugal_status check_late_axes(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0], *axes = c->in[1];
    FR_DTYPE(c, axes->dtype == FR_I32 || axes->dtype == FR_I64, "axes must be int32 or int64");
    for (int32_t a = 0; a < x->rank; a++) {
        if (y->dims[a] != 1 && y->dims[a] != x->dims[a])
            return fr_fail(c, FRUGAL_BAD_SHAPE, 2, a, x->dims[a], y->dims[a], "the output has another shape than expected");
    }
    return FRUGAL_OK;
}

frugal_status fr_reduce_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    const int64_t mask = c->attrs[1];
    FR_DTYPE(c, x->dtype == y->dtype, "input and output must have one data type");
    const bool number = x->dtype == FR_F32 || x->dtype == FR_F64 || (x->dtype >= FR_U8 && x->dtype <= FR_I64) ||
                        x->dtype == FR_U32 || x->dtype == FR_U64;
    const bool logic = x->dtype == FR_BOOL && (c->attrs[0] == FRUGAL_R_MAX || c->attrs[0] == FRUGAL_R_MIN);
    FR_DTYPE(c, number || logic, "a reduction is of float32, float64, integers of 8 bits and more, or a maximum of bool");
    FR_SHAPE(c, x->rank == y->rank && mask >> x->rank == 0, "the reduced axes are not all axes of the input");
    if (c->in[1])
        return check_late_axes(c);
    for (int32_t a = 0; a < x->rank; a++) {
        const int64_t want = mask >> a & 1 ? 1 : x->dims[a];
        if (y->dims[a] != want)
            return fr_fail(c, FRUGAL_BAD_SHAPE, 1, a, want, y->dims[a], "the output has another shape than expected");
    }
    return FRUGAL_OK;
}

/* The mask of axes that the operand names; it must give the shape that y has. */
static frugal_status late_mask(const fr_call *c, int64_t *mask) {
    const fr_tensor *x = c->in[0], *axes = c->in[1];
    *mask = axes && axes->n > 0 ? 0 : c->attrs[1];
    for (int64_t i = 0; axes && i < axes->n; i++) {
        int64_t a = axes->dtype == FR_I64 ? ((const int64_t *)(const void *)axes->data)[i]
                                          : ((const int32_t *)(const void *)axes->data)[i];
        if (a < -x->rank || a >= x->rank)
            return fr_fail(c, FRUGAL_BAD_INPUT, 1, -1, x->rank, a, "an axis is out of range");
        *mask |= INT64_C(1) << (a < 0 ? a + x->rank : a);
    }
    for (int32_t a = 0; axes && a < x->rank; a++) {
        const int64_t want = *mask >> a & 1 ? 1 : x->dims[a];
        if (c->out[0]->dims[a] != want)
            return fr_fail(c, FRUGAL_BAD_INPUT, 1, a, want, c->out[0]->dims[a], "the axes give another shape than the output's");
    }
    return FRUGAL_OK;
}

static void reduce_cut(const fr_call *c, int64_t mask, reducer *r) {
    const fr_tensor *x = c->in[0];
    *r = (reducer){.c = c, .outer = 1, .columns = 1, .count = 1, .kind = (int)c->attrs[0]};
    int before = -1; /* whether the axis before was reduced; those that lie side by side are one */
    for (int32_t a = 0; a < x->rank; a++) {
        const int64_t stride = fr_product(x, a + 1, x->rank);
        const int reduced = (int)(mask >> a & 1);
        r->count *= reduced ? x->dims[a] : 1;
        if (x->dims[a] == 1)
            continue;
        int64_t *dims = reduced ? r->dims : r->kept, *step = reduced ? r->step : r->kept_step;
        int *rank = reduced ? &r->rank : &r->kept_rank;
        if (reduced != before) {
            dims[*rank] = 1;
            ++*rank;
        }
        dims[*rank - 1] *= x->dims[a], step[*rank - 1] = stride;
        before = reduced;
    }
    if (r->kept_rank > 0) {
        r->kept_rank--;
        r->columns = r->kept[r->kept_rank], r->column_step = r->kept_step[r->kept_rank];
    }
    for (int a = 0; a < r->kept_rank; a++)
        r->outer *= r->kept[a];
}

/* ACC: type of the lanes; START: their value before the first element; STEP: lane l after element v; FOLD: of lanes l and m. */
#define REDUCE_BLOCK(ACC, START, STEP, FOLD)                                                                                     \
    do {                                                                                                                         \
        ACC lanes[LANES][COLUMNS];                                                                                               \
        for (int i = 0; i < LANES; i++) {                                                                                        \
            for (int j = 0; j < COLUMNS; j++)                                                                                    \
                lanes[i][j] = (START);                                                                                           \
        }                                                                                                                        \
        for (int64_t e = 0; e < r->count; e++) {                                                                                 \
            ACC *lane = lanes[e % LANES];                                                                                        \
            for (int64_t j = 0; j < n; j++) {                                                                                    \
                const ACC l = lane[j], v = (ACC)x[at + j * r->column_step];                                                      \
                lane[j] = (STEP);                                                                                                \
            }                                                                                                                    \
            for (int a = r->rank - 1; a >= 0; a--) {                                                                             \
                at += r->step[a];                                                                                                \
                if (++index[a] < r->dims[a])                                                                                     \
                    break;                                                                                                       \
                at -= r->step[a] * r->dims[a];                                                                                   \
                index[a] = 0;                                                                                                    \
            }                                                                                                                    \
        }                                                                                                                        \
        for (int half = LANES / 2; half > 0; half /= 2) {                                                                        \
            for (int i = 0; i < half; i++) {                                                                                     \
                for (int64_t j = 0; j < n; j++) {                                                                                \
                    const ACC l = lanes[i][j], m = lanes[i + half][j];                                                           \
                    lanes[i][j] = (FOLD);                                                                                        \
                }                                                                                                                \
            }                                                                                                                    \
        }                                                                                                                        \
        for (int64_t j = 0; j < n; j++)                                                                                          \
            out[j] = lanes[0][j];                                                                                                \
    } while (0)

/* Floats: NaN wins in MAX and MIN. */
#define REDUCE_FLOAT(NAME, T, ABS, SQRT)                                                                                         \
    static void NAME(const reducer *r, const T *x, T *y, int64_t at, int64_t n) {                                                \
        int64_t index[FRUGAL_MAX_RANK] = {0};                                                                                    \
        T out[COLUMNS] = {0};                                                                                                    \
        switch (r->kind) {                                                                                                       \
        case FRUGAL_R_MAX:                                                                                                       \
            REDUCE_BLOCK(T, -(T)INFINITY, v > l || v != v ? v : l, m > l || m != m ? m : l);                                     \
            break;                                                                                                               \
        case FRUGAL_R_MIN:                                                                                                       \
            REDUCE_BLOCK(T, (T)INFINITY, v < l || v != v ? v : l, m < l || m != m ? m : l);                                      \
            break;                                                                                                               \
        case FRUGAL_R_PROD:                                                                                                      \
            REDUCE_BLOCK(T, 1, l * v, l * m);                                                                                    \
            break;                                                                                                               \
        case FRUGAL_R_L1:                                                                                                        \
            REDUCE_BLOCK(T, 0, l + ABS(v), l + m);                                                                               \
            break;                                                                                                               \
        case FRUGAL_R_SUM_SQUARE:                                                                                                \
        case FRUGAL_R_L2:                                                                                                        \
            REDUCE_BLOCK(T, 0, l + v * v, l + m);                                                                                \
            break;                                                                                                               \
        default:                                                                                                                 \
            REDUCE_BLOCK(T, 0, l + v, l + m);                                                                                    \
            break;                                                                                                               \
        }                                                                                                                        \
        for (int64_t j = 0; j < n; j++) {                                                                                        \
            y[j] = r->kind == FRUGAL_R_MEAN ? out[j] / (T)r->count : r->kind == FRUGAL_R_L2 ? SQRT(out[j]) : out[j];             \
        }                                                                                                                        \
    }
REDUCE_FLOAT(reduce_f32, float, fabsf, sqrtf)
REDUCE_FLOAT(reduce_f64, double, fabs, sqrt)

static double root(double v) { return v > 0 ? sqrt(v) : 0; }
static int64_t mean_of(int64_t v, int64_t count) { return v / count; }
static uint64_t mean_of_u64(uint64_t v, int64_t count) { return v / (uint64_t)count; }

/* Integers wrap: sums run in unsigned arithmetic U, which the order of lanes does not change, and are numbers of type T; E: the
 * elements; MAGNITUDE: of v, as U; MEAN: of v and a count. */
#define REDUCE_INT(NAME, E, T, U, LOW, HIGH, MAGNITUDE, MEAN)                                                                    \
    static void NAME(const reducer *r, const E *x, E *y, int64_t at, int64_t n) {                                                \
        int64_t index[FRUGAL_MAX_RANK] = {0};                                                                                    \
        U out[COLUMNS] = {0};                                                                                                    \
        switch (r->kind) {                                                                                                       \
        case FRUGAL_R_MAX:                                                                                                       \
            REDUCE_BLOCK(U, (U)(LOW), (T)v > (T)l ? v : l, (T)m > (T)l ? m : l);                                                 \
            break;                                                                                                               \
        case FRUGAL_R_MIN:                                                                                                       \
            REDUCE_BLOCK(U, (U)(HIGH), (T)v < (T)l ? v : l, (T)m < (T)l ? m : l);                                                \
            break;                                                                                                               \
        case FRUGAL_R_PROD:                                                                                                      \
            REDUCE_BLOCK(U, 1, l * v, l * m);                                                                                    \
            break;                                                                                                               \
        case FRUGAL_R_L1:                                                                                                        \
            REDUCE_BLOCK(U, 0, l + (MAGNITUDE), l + m);                                                                          \
            break;                                                                                                               \
        case FRUGAL_R_SUM_SQUARE:                                                                                                \
        case FRUGAL_R_L2:                                                                                                        \
            REDUCE_BLOCK(U, 0, l + v * v, l + m);                                                                                \
            break;                                                                                                               \
        default:                                                                                                                 \
            REDUCE_BLOCK(U, 0, l + v, l + m);                                                                                    \
            break;                                                                                                               \
        }                                                                                                                        \
        for (int64_t j = 0; j < n; j++) {                                                                                        \
            const T v = (T)out[j];                                                                                               \
            y[j] = (E)(r->kind == FRUGAL_R_MEAN ? (T)MEAN(v, fr_max(1, r->count))                                                \
                       : r->kind == FRUGAL_R_L2 ? (T)root((double)v)                                                             \
                                                : v);                                                                            \
        }                                                                                                                        \
    }
#define SIGNED ((int64_t)v < 0 ? 0 - v : v)
#define SIGNED32 ((int32_t)v < 0 ? 0 - v : v)
REDUCE_INT(reduce_i8, int8_t, int32_t, uint32_t, INT8_MIN, INT8_MAX, SIGNED32, mean_of)
REDUCE_INT(reduce_u8, uint8_t, int64_t, uint64_t, 0, UINT8_MAX, v, mean_of)
REDUCE_INT(reduce_i16, int16_t, int32_t, uint32_t, INT16_MIN, INT16_MAX, SIGNED32, mean_of)
REDUCE_INT(reduce_u16, uint16_t, int64_t, uint64_t, 0, UINT16_MAX, v, mean_of)
REDUCE_INT(reduce_i32, int32_t, int32_t, uint32_t, INT32_MIN, INT32_MAX, SIGNED32, mean_of)
REDUCE_INT(reduce_u32, uint32_t, int64_t, uint64_t, 0, UINT32_MAX, v, mean_of)
REDUCE_INT(reduce_i64, int64_t, int64_t, uint64_t, INT64_MIN, INT64_MAX, SIGNED, mean_of)
REDUCE_INT(reduce_u64, uint64_t, uint64_t, uint64_t, 0, UINT64_MAX, v, mean_of_u64)

/* The mean's division and the root of n results. */
static void reduce_end(const reducer *r, float *y, int64_t n) {
    for (int64_t j = 0; j < n; j++)
        y[j] = r->kind == FRUGAL_R_MEAN ? y[j] / (float)r->count : r->kind == FRUGAL_R_L2 ? sqrtf(y[j]) : y[j];
}

/* float32 over one stretch of memory an output (rows), or over rows of outputs that lie side by side (columns). */
static bool in_rows(const reducer *r) {
    const bool rows = r->rank == 0 || (r->rank == 1 && r->step[0] == 1);
    return r->c->in[0]->dtype == FR_F32 && r->count > 0 && rows;
}
static bool in_columns(const reducer *r) {
    return r->c->in[0]->dtype == FR_F32 && r->count > 0 && r->rank == 1 && r->column_step == 1;
}

static void reduce_rows(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const reducer *r = p;
    const float *x = (const float *)(const void *)r->c->in[0]->data;
    float *y = (float *)(void *)r->c->out[0]->data;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        y[i] = r->c->isa->rows.reduce(r->kind, x + i * r->count, r->count);
    reduce_end(r, y + begin, end - begin);
}

/* Units: STRIP outputs side by side. */
enum { STRIP = 256 };
static void reduce_strips(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const reducer *r = p;
    const int64_t strips = fr_ceil_div(r->columns, STRIP);
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = i % strips * STRIP, n = fr_min(STRIP, r->columns - first);
        int64_t rest = i / strips, at = first;
        for (int a = r->kept_rank - 1; a >= 0; a--) {
            at += rest % r->kept[a] * r->kept_step[a];
            rest /= r->kept[a];
        }
        float *y = (float *)(void *)r->c->out[0]->data + i / strips * r->columns + first;
        r->c->isa->rows.reduce_columns(r->kind, y, (const float *)(const void *)r->c->in[0]->data + at, r->step[0], r->count, n);
        reduce_end(r, y, n);
    }
}

#define REDUCE(NAME, T)                                                                                                          \
    reduce_##NAME(r, (const T *)(const void *)x->data, (T *)(void *)y, at, n);                                                   \
    break
/* Blocks of COLUMNS outputs. */
static void reduce_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const reducer *r = p;
    const fr_tensor *x = r->c->in[0];
    const int64_t blocks = fr_ceil_div(r->columns, COLUMNS);
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = i % blocks * COLUMNS, n = fr_min(COLUMNS, r->columns - first);
        int64_t rest = i / blocks, at = first * r->column_step;
        uint8_t *y = r->c->out[0]->data + (i / blocks * r->columns + first) * fr_dtype_bytes(x->dtype);
        for (int a = r->kept_rank - 1; a >= 0; a--) {
            at += rest % r->kept[a] * r->kept_step[a];
            rest /= r->kept[a];
        }
        switch (x->dtype) {
        case FR_F32:
            REDUCE(f32, float);
        case FR_F64:
            REDUCE(f64, double);
        case FR_I8:
            REDUCE(i8, int8_t);
        case FR_U8:
        case FR_BOOL:
            REDUCE(u8, uint8_t);
        case FR_I16:
            REDUCE(i16, int16_t);
        case FR_U16:
            REDUCE(u16, uint16_t);
        case FR_I32:
            REDUCE(i32, int32_t);
        case FR_U32:
            REDUCE(u32, uint32_t);
        case FR_U64:
            REDUCE(u64, uint64_t);
        default:
            REDUCE(i64, int64_t);
        }
    }
}

frugal_status fr_reduce_run(const fr_call *c) {
    reducer r;
    int64_t mask;
    FR_TRY(late_mask(c, &mask));
    reduce_cut(c, mask, &r);
    if (in_rows(&r))
        fr_parallel(c, c->out[0]->n, fr_row_grain(r.count), reduce_rows, &r);
    else if (in_columns(&r))
        fr_parallel(c, r.outer * fr_ceil_div(r.columns, STRIP), fr_row_grain(r.count * STRIP), reduce_strips, &r);
    else
        fr_parallel(c, r.outer * fr_ceil_div(r.columns, COLUMNS), fr_row_grain(r.count * COLUMNS), reduce_range, &r);
    return FRUGAL_OK;
}

int64_t fr_reduce_operations(const fr_call *c) { return fr_max(c->in[0]->n, c->out[0]->n); }

/* ---- SOFTMAX ---- */

frugal_status fr_softmax_check(const fr_call *c) {
    const fr_tensor *x = c->in[0];
    FR_DTYPE(c, x->dtype == FR_F32 && c->out[0]->dtype == FR_F32, "softmax is of float32");
    FR_SHAPE(c, c->attrs[0] < x->rank, "the axis is not one of the input's");
    return fr_same_shape(c, c->out[0], x, 1);
}

static bool in_softmax_rows(const fr_call *c) { return fr_product(c->in[0], (int32_t)c->attrs[0] + 1, c->in[0]->rank) == 1; }

/* The logarithm needs the inputs beside the exponentials. */
void fr_softmax_scratch(const fr_call *c, fr_scratch *s) {
    if (in_softmax_rows(c) && c->attrs[1])
        s->thread = 4 * c->in[0]->dims[c->attrs[0]];
}

static void softmax_row(const frugal_isa *isa, float *y, const float *x, int64_t n) {
    if (y != x)
        memcpy(y, x, (size_t)n * sizeof *y);
    const float sum = isa->softmax(y, n), by = sum == 0 ? 0 : 1 / sum; /* a row of only -inf gives zeros */
    isa->scale(y, y, n, by);
}

static void log_softmax_row(const frugal_isa *isa, float *y, const float *x, int64_t n, float *row) {
    const float max = isa->rows.reduce(FRUGAL_R_MAX, x, n);
    memcpy(row, x, (size_t)n * sizeof *row);
    float sum = isa->softmax(row, n);
    isa->unary(FRUGAL_U_LOG, &sum, &sum, 1, 0, 0);
    isa->rows.shift(y, x, n, max, sum);
}

static void softmax_rows(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const int64_t n = c->in[0]->dims[c->attrs[0]];
    float *row = (float *)(void *)fr_thread_scratch(c, thread);
    for (int64_t i = begin; i < end; i++) {
        const float *src = (const float *)(const void *)c->in[0]->data + i * n;
        float *dst = (float *)(void *)c->out[0]->data + i * n;
        if (c->attrs[1])
            log_softmax_row(c->isa, dst, src, n, row);
        else
            softmax_row(c->isa, dst, src, n);
    }
}

/* Units: columns, or vectors of SOFTMAX_STRIP of them. */
enum { SOFTMAX_STRIP = 16 };
static void softmax_strips(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const fr_tensor *x = c->in[0];
    const int32_t axis = (int32_t)c->attrs[0];
    const int64_t n = x->dims[axis], inner = fr_product(x, axis + 1, x->rank), strips = fr_ceil_div(inner, SOFTMAX_STRIP);
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = i % strips * SOFTMAX_STRIP, at = i / strips * n * inner + first;
        c->isa->rows.softmax_columns((float *)(void *)c->out[0]->data + at, (const float *)(const void *)x->data + at, inner, n,
                                     fr_min(SOFTMAX_STRIP, inner - first), c->attrs[1] != 0);
    }
}

frugal_status fr_softmax_run(const fr_call *c) {
    const fr_tensor *x = c->in[0];
    const int32_t axis = (int32_t)c->attrs[0];
    const int64_t n = x->dims[axis], inner = fr_product(x, axis + 1, x->rank);
    if (in_softmax_rows(c))
        fr_parallel(c, x->n / n, fr_row_grain(n), softmax_rows, c);
    else
        fr_parallel(c, x->n / n / inner * fr_ceil_div(inner, SOFTMAX_STRIP), fr_row_grain(n * SOFTMAX_STRIP), softmax_strips, c);
    return FRUGAL_OK;
}
