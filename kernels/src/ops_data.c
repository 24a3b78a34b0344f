/* ops_data.c - operations that move or make elements without arithmetic on them: TRANSPOSE, EXPAND, SLICE, CONCAT, GATHER,
 * GATHER_DEQUANTIZE, RANGE, DIMS, FILL, and CUMSUM and ARG, which walk one axis. */
#include "ops.h"

/* ---- TRANSPOSE, EXPAND, SLICE: a walk with other steps ---- */

typedef struct copy_ctx {
    uint8_t *y;
    const uint8_t *x;
    int64_t size;
} copy_ctx;

static void copy_inner(const void *ctx, int64_t out, const int64_t *at, const int64_t *step, int64_t n) {
    const copy_ctx *t = ctx;
    fr_copy(t->y + out * t->size, t->x + at[0] * t->size, step[0], n, t->size);
}

static frugal_status copy_walk(const fr_call *c, fr_walk *w) {
    const copy_ctx t = {c->out[0]->data, c->in[0]->data, fr_dtype_bytes(c->out[0]->dtype)};
    fr_walk_run(c, w, copy_inner, &t);
    return FRUGAL_OK;
}

static frugal_status same_dtype(const fr_call *c, const fr_tensor *x) {
    FR_DTYPE(c, x->dtype == c->out[0]->dtype, "input and output must have one data type");
    return FRUGAL_OK;
}

frugal_status fr_transpose_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    uint32_t seen = 0;
    FR_TRY(same_dtype(c, x));
    FR_SHAPE(c, x->rank == y->rank && c->n_attr == x->rank, "the permutation has another length than the shape");
    for (int32_t a = 0; a < y->rank; a++) {
        const int64_t from = c->attrs[a];
        FR_SHAPE(c, from < x->rank && !(seen >> from & 1), "not a permutation");
        seen |= UINT32_C(1) << from;
        if (y->dims[a] != x->dims[from])
            return fr_fail(c, FRUGAL_BAD_SHAPE, 1, a, x->dims[from], y->dims[a],
                           "the output's dim differs from the permuted input's");
    }
    return FRUGAL_OK;
}

frugal_status fr_transpose_run(const fr_call *c) {
    const fr_tensor *x = c->in[0];
    fr_walk w;
    fr_walk_init(&w, c->out[0]);
    w.operands = 1;
    for (int a = 0; a < x->rank; a++)
        w.step[0][a] = fr_product(x, (int32_t)c->attrs[a] + 1, x->rank);
    return fr_transpose_walk(c, &w) ? FRUGAL_OK : copy_walk(c, &w);
}

frugal_status fr_expand_check(const fr_call *c) {
    FR_TRY(same_dtype(c, c->in[0]));
    FR_SHAPE(c, fr_broadcasts_to(c->in[0], c->out[0]), "the input does not broadcast to the output's shape");
    return FRUGAL_OK;
}

frugal_status fr_expand_run(const fr_call *c) {
    fr_walk w;
    fr_walk_init(&w, c->out[0]);
    fr_walk_broadcast(&w, c->in[0]);
    return copy_walk(c, &w);
}

/* Start and step of an axis, from the attributes or the operand. */
static void slice_bound(const fr_call *c, int32_t a, int64_t *start, int64_t *step) {
    const int64_t *bounds = c->in[1] ? (const int64_t *)(const void *)c->in[1]->data : NULL;
    *start = bounds ? bounds[3 * a] : fr_attr_dim(c, 2 * a);
    *step = bounds ? bounds[3 * a + 2] : c->attrs[2 * a + 1];
}

static frugal_status check_bounds(const fr_call *c, frugal_status status) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    for (int32_t a = 0; a < x->rank && y->n > 0; a++) {
        int64_t start, step, last;
        slice_bound(c, a, &start, &step);
        const bool fits = !__builtin_mul_overflow(y->dims[a] - 1, step, &last) && !__builtin_add_overflow(start, last, &last);
        if (!fits || start < 0 || start >= x->dims[a] || last < 0 || last >= x->dims[a])
            return fr_fail(c, status, 0, a, x->dims[a], start, "a slice reaches outside its input");
    }
    return FRUGAL_OK;
}

frugal_status fr_slice_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0], *bounds = c->in[1];
    FR_TRY(same_dtype(c, x));
    FR_SHAPE(c, x->rank == y->rank && c->n_attr == 2 * x->rank, "a slice needs a start and a step for every axis");
    if (!bounds)
        return check_bounds(c, FRUGAL_BAD_SHAPE);
    FR_DTYPE(c, bounds->dtype == FR_I64, "bounds must be int64");
    FR_SHAPE(c, bounds->n == 3 * x->rank, "bounds are three for every axis");
    return FRUGAL_OK;
}

frugal_status fr_slice_run(const fr_call *c) {
    const fr_tensor *x = c->in[0];
    fr_walk w;
    if (c->in[1])
        FR_TRY(check_bounds(c, FRUGAL_BAD_INPUT));
    fr_walk_init(&w, c->out[0]);
    w.operands = 1;
    for (int32_t a = 0; a < x->rank; a++) {
        const int64_t stride = fr_product(x, a + 1, x->rank);
        int64_t start, step;
        slice_bound(c, a, &start, &step);
        w.start[0] += start * stride;
        w.step[0][a] = w.dims[a] > 1 ? step * stride : 0; /* with one index any step is legal: it could overflow */
    }
    return copy_walk(c, &w);
}

/* ---- CONCAT ---- */

frugal_status fr_concat_check(const fr_call *c) {
    const fr_tensor *y = c->out[0];
    const int64_t axis = c->attrs[0];
    int64_t sum = 0;
    FR_SHAPE(c, axis < y->rank, "the axis is not one of the output's");
    for (int32_t k = 0; k < c->n_in; k++) {
        const fr_tensor *x = c->in[k];
        FR_TRY(same_dtype(c, x));
        if (x->rank != y->rank)
            return fr_fail(c, FRUGAL_BAD_SHAPE, k, -1, y->rank, x->rank, "an operand has another rank than the output");
        for (int32_t a = 0; a < y->rank; a++) {
            if (a != axis && x->dims[a] != y->dims[a])
                return fr_fail(c, FRUGAL_BAD_SHAPE, k, a, y->dims[a], x->dims[a], "an operand has another shape than the output");
        }
        sum += x->dims[axis]; /* fewer than 2^16 operands of at most 2^40 */
    }
    if (sum != y->dims[axis])
        return fr_fail(c, FRUGAL_BAD_SHAPE, c->n_in, (int32_t)axis, sum, y->dims[axis], "the output is not as long as its parts");
    return FRUGAL_OK;
}

frugal_status fr_concat_run(const fr_call *c) {
    const fr_tensor *y = c->out[0];
    const int32_t axis = (int32_t)c->attrs[0];
    const int64_t outer = fr_product(y, 0, axis), inner = fr_product(y, axis + 1, y->rank) * fr_dtype_bytes(y->dtype);
    const int64_t row = y->dims[axis] * inner;
    uint8_t *at = y->data;
    for (int32_t k = 0; k < c->n_in; k++) {
        const int64_t part = c->in[k]->dims[axis] * inner;
        if (part == 0)
            continue;
        for (int64_t i = 0; i < outer; i++)
            memcpy(at + i * row, c->in[k]->data + i * part, (size_t)part);
        at += part;
    }
    return FRUGAL_OK;
}

/* ---- GATHER, GATHER_DEQUANTIZE ---- */

static int64_t id_at(const fr_tensor *ids, int64_t i) {
    return ids->dtype == FR_I64 ? ((const int64_t *)(const void *)ids->data)[i] : ((const int32_t *)(const void *)ids->data)[i];
}

/* Before anything is copied, so that the tasks need no way to fail. */
static frugal_status check_ids(const fr_call *c, const fr_tensor *ids, int32_t pos, int64_t n) {
    for (int64_t i = 0; i < ids->n; i++) {
        const int64_t id = id_at(ids, i);
        if (id < -n || id >= n)
            return fr_fail(c, FRUGAL_BAD_INPUT, pos, -1, n, id, "an index lies outside its table");
    }
    return FRUGAL_OK;
}

static frugal_status check_gather_shape(const fr_call *c, const fr_tensor *table, const fr_tensor *ids, int32_t axis) {
    const fr_tensor *y = c->out[0];
    const int32_t pos = c->n_in;
    FR_DTYPE(c, ids->dtype == FR_I32 || ids->dtype == FR_I64, "indices must be int32 or int64");
    FR_SHAPE(c, axis < table->rank, "the axis is not one of the table's");
    FR_SHAPE(c, y->rank == table->rank - 1 + ids->rank, "the output has another rank than table and indices give");
    for (int32_t a = 0; a < y->rank; a++) {
        const int64_t want = a < axis               ? table->dims[a]
                             : a < axis + ids->rank ? ids->dims[a - axis]
                                                    : table->dims[a - ids->rank + 1];
        if (y->dims[a] != want)
            return fr_fail(c, FRUGAL_BAD_SHAPE, pos, a, want, y->dims[a],
                           "the output has another shape than table and indices give");
    }
    return FRUGAL_OK;
}

typedef struct gather_ctx {
    const fr_tensor *table, *ids;
    uint8_t *y;
    int64_t length, inner; /* of the axis; bytes behind it */
} gather_ctx;

static void gather_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const gather_ctx *g = p;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int64_t id = id_at(g->ids, i % g->ids->n), row = (i / g->ids->n) * g->length + (id < 0 ? id + g->length : id);
        memcpy(g->y + i * g->inner, g->table->data + row * g->inner, (size_t)g->inner);
    }
}

frugal_status fr_gather_check(const fr_call *c) {
    FR_TRY(same_dtype(c, c->in[0]));
    return check_gather_shape(c, c->in[0], c->in[1], (int32_t)c->attrs[0]);
}

frugal_status fr_gather_run(const fr_call *c) {
    const fr_tensor *table = c->in[0], *ids = c->in[1];
    const int32_t axis = (int32_t)c->attrs[0];
    const gather_ctx g = {table, ids, c->out[0]->data, table->dims[axis],
                          fr_product(table, axis + 1, table->rank) * fr_dtype_bytes(table->dtype)};
    FR_TRY(check_ids(c, ids, 1, g.length));
    fr_parallel(c, fr_product(table, 0, axis) * ids->n, fr_row_grain(g.inner / 4), gather_range, &g);
    return FRUGAL_OK;
}

frugal_status fr_gather_dequantize_check(const fr_call *c) {
    const fr_tensor *table = c->in[0], *scale = c->in[1];
    FR_DTYPE(c, table->dtype == FR_I8 && c->out[0]->dtype == FR_F32, "table must be int8 and the output float32");
    FR_DTYPE(c, scale->dtype == FR_F32 || scale->dtype == FR_F16, "scales must be float32 or float16");
    FR_SHAPE(c, table->rank == 2 && scale->rank == 2, "table and scales must have two axes");
    FR_SHAPE(c, table->dims[0] == scale->dims[0], "table and scales have different row counts");
    FR_SHAPE(c, scale->dims[1] > 0 && table->dims[1] % scale->dims[1] == 0, "a row is not a whole number of groups");
    return check_gather_shape(c, table, c->in[2], 0);
}

static void gather_dequantize_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const fr_tensor *table = c->in[0], *scale = c->in[1], *ids = c->in[2];
    const int64_t k = table->dims[1], groups = scale->dims[1], each = k / groups;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int64_t id = id_at(ids, i), row = id < 0 ? id + table->dims[0] : id;
        const int8_t *q = (const int8_t *)table->data + row * k;
        float *y = (float *)(void *)c->out[0]->data + i * k;
        for (int64_t g = 0; g < groups; g++) {
            const int64_t at = row * groups + g;
            const float s = scale->dtype == FR_F32 ? ((const float *)(const void *)scale->data)[at]
                                                   : fr_half_to_float(((const uint16_t *)(const void *)scale->data)[at]);
            for (int64_t j = 0; j < each; j++)
                *y++ = (float)*q++ * s;
        }
    }
}

frugal_status fr_gather_dequantize_run(const fr_call *c) {
    FR_TRY(check_ids(c, c->in[2], 2, c->in[0]->dims[0]));
    fr_parallel(c, c->in[2]->n, fr_row_grain(c->in[0]->dims[1]), gather_dequantize_range, c);
    return FRUGAL_OK;
}

/* ---- GATHER_PACKED ---- */

frugal_status fr_gather_packed_check(const fr_call *c) {
    const fr_tensor *table = c->in[0], *scale = c->in[1];
    const bool plain = table->layout == FRUGAL_W4_P16 || table->layout == FRUGAL_W4O_P16 || table->layout == FRUGAL_W8B_P16;
    FR_DTYPE(c, plain || table->layout == FRUGAL_W8_P16, "the table must be packed integer weights");
    FR_DTYPE(c, c->out[0]->dtype == FR_F32, "rows of a packed table are float32");
    FR_SHAPE(c, (scale != NULL) == !plain, "int8 weights need a scale, others must not have one");
    if (scale)
        FR_TRY(fr_vector(c, scale, fr_round_up(table->dims[0], FR_PANEL), 1));
    FR_SHAPE(c, table->dims[1] >= 1, "the rows of a packed table must not be empty");
    return check_gather_shape(c, table, c->in[2], 0);
}

/* Half r of those at p. */
static float half_at(const uint8_t *p, int64_t r) {
    uint16_t h;
    memcpy(&h, p + 2 * r, 2);
    return fr_half_to_float(h);
}

/* Up to 32 elements of row r of a panel, from one of its blocks. */
static void unpack4(float *y, const uint8_t *block, int64_t r, int64_t n, bool offsets) {
    const float scale = half_at(block + 256, r), offset = offsets ? half_at(block + 288, r) : 0.0f;
    const int zero = offsets ? 0 : block[288 + r];
    for (int64_t k = 0; k < n; k++) {
        const int byte = block[k % 16 / 4 * 64 + r * 4 + k % 4];
        y[k] = (float)((k < 16 ? byte & 15 : byte >> 4) - zero) * scale;
        if (offsets)
            y[k] = y[k] + offset;
    }
}
static void unpack8(float *y, const int8_t *block, int64_t r, int64_t n, float scale) {
    for (int64_t k = 0; k < n; k++)
        y[k] = (float)block[k / 4 * 64 + r * 4 + k % 4] * scale;
}

static void gather_packed_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const fr_tensor *w = c->in[0];
    const int64_t k = w->dims[1], nb = fr_ceil_div(k, FR_BLOCK);
    const int64_t bytes = w->layout == FRUGAL_W4_P16    ? FR_W4_BLOCK
                          : w->layout == FRUGAL_W4O_P16 ? FR_W4O_BLOCK
                          : w->layout == FRUGAL_W8B_P16 ? FR_W8B_BLOCK
                                                        : FR_BLOCK * FR_PANEL;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int64_t id = id_at(c->in[2], i), row = id < 0 ? id + w->dims[0] : id, r = row % FR_PANEL;
        const uint8_t *block = w->data + row / FR_PANEL * nb * bytes;
        float *y = (float *)(void *)c->out[0]->data + i * k;
        for (int64_t b = 0; b < nb; b++, block += bytes, y += FR_BLOCK) {
            const int64_t n = fr_min(FR_BLOCK, k - b * FR_BLOCK);
            if (w->layout == FRUGAL_W8_P16)
                unpack8(y, (const int8_t *)block, r, n, ((const float *)(const void *)c->in[1]->data)[row]);
            else if (w->layout == FRUGAL_W8B_P16)
                unpack8(y, (const int8_t *)block, r, n, half_at(block + 512, r));
            else
                unpack4(y, block, r, n, w->layout == FRUGAL_W4O_P16);
        }
    }
}

frugal_status fr_gather_packed_run(const fr_call *c) {
    FR_TRY(check_ids(c, c->in[2], 2, c->in[0]->dims[0]));
    fr_parallel(c, c->in[2]->n, fr_row_grain(c->in[0]->dims[1]), gather_packed_range, c);
    return FRUGAL_OK;
}

/* ---- RANGE, DIMS, FILL ---- */

frugal_status fr_range_check(const fr_call *c) {
    const fr_tensor *y = c->out[0];
    int64_t last;
    FR_DTYPE(c, y->dtype == FR_I64, "a range is int64");
    FR_SHAPE(c, y->rank == 1, "a range has one axis");
    const bool fits =
        !__builtin_mul_overflow(y->dims[0], c->attrs[1], &last) && !__builtin_add_overflow(last, fr_attr_dim(c, 0), &last);
    FR_SHAPE(c, fits, "a range overflows");
    return FRUGAL_OK;
}

frugal_status fr_range_run(const fr_call *c) {
    int64_t *y = (int64_t *)(void *)c->out[0]->data;
    const int64_t start = fr_attr_dim(c, 0), step = c->attrs[1];
    for (int64_t i = 0; i < c->out[0]->n; i++)
        y[i] = start + i * step;
    return FRUGAL_OK;
}

frugal_status fr_dims_check(const fr_call *c) {
    const fr_tensor *y = c->out[0];
    FR_DTYPE(c, y->dtype == FR_I64, "dims are int64");
    FR_SHAPE(c, y->rank <= 1 && y->n == c->n_attr, "the output has another length than the list of dims");
    return FRUGAL_OK;
}

frugal_status fr_dims_run(const fr_call *c) {
    int64_t *y = (int64_t *)(void *)c->out[0]->data;
    for (int32_t i = 0; i < c->n_attr; i++)
        y[i] = fr_attr_dim(c, i);
    return FRUGAL_OK;
}

frugal_status fr_fill_check(const fr_call *c) {
    FR_TRY(same_dtype(c, c->in[0]));
    FR_SHAPE(c, c->in[0]->n == 1, "the value must be one element");
    return FRUGAL_OK;
}

frugal_status fr_fill_run(const fr_call *c) {
    const fr_tensor *y = c->out[0];
    fr_copy(y->data, c->in[0]->data, 0, y->n, fr_dtype_bytes(y->dtype));
    return FRUGAL_OK;
}

/* ---- CUMSUM, CUMPROD ---- */

frugal_status fr_cumsum_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *axis = c->in[1];
    FR_TRY(same_dtype(c, x));
    FR_DTYPE(c, x->dtype != FR_BOOL && x->dtype <= FR_U64 && x->dtype != FR_F16, "not a type of numbers that can be added up");
    FR_SHAPE(c, x->rank > 0 && c->attrs[0] < x->rank, "the axis is not one of the input's");
    FR_DTYPE(c, !axis || axis->dtype == FR_I32 || axis->dtype == FR_I64, "the axis must be int32 or int64");
    FR_SHAPE(c, !axis || axis->n == 1, "the axis must be one element");
    return fr_same_shape(c, c->out[0], x, c->n_in);
}

typedef struct running {
    int64_t first, n, inner;
    bool exclusive, reverse, product;
} running;

/* SUM: unsigned and as wide as an int for integers, which wrap. */
#define RUNNING(T, SUM)                                                                                                          \
    do {                                                                                                                         \
        const T *x = (const T *)(const void *)c->in[0]->data + r->first;                                                         \
        T *y = (T *)(void *)c->out[0]->data + r->first;                                                                          \
        SUM sum = r->product ? 1 : 0;                                                                                            \
        for (int64_t i = 0; i < r->n; i++) {                                                                                     \
            const int64_t at = (r->reverse ? r->n - 1 - i : i) * r->inner;                                                       \
            const SUM next = r->product ? sum * (SUM)x[at] : sum + (SUM)x[at];                                                   \
            y[at] = (T)(r->exclusive ? sum : next);                                                                              \
            sum = next;                                                                                                          \
        }                                                                                                                        \
    } while (0)

static void run_along(const fr_call *c, const running *r) {
    switch (c->in[0]->dtype) {
    case FR_F32:
        RUNNING(float, float);
        break;
    case FR_F64:
        RUNNING(double, double);
        break;
    case FR_I8:
    case FR_U8:
        RUNNING(uint8_t, uint32_t);
        break;
    case FR_I16:
    case FR_U16:
        RUNNING(uint16_t, uint32_t);
        break;
    case FR_I32:
    case FR_U32:
        RUNNING(uint32_t, uint32_t);
        break;
    default:
        RUNNING(uint64_t, uint64_t);
        break;
    }
}

static frugal_status cumulate(const fr_call *c, bool product) {
    const fr_tensor *x = c->in[0];
    int64_t axis = c->in[1] ? id_at(c->in[1], 0) : c->attrs[0];
    if (axis < -x->rank || axis >= x->rank)
        return fr_fail(c, FRUGAL_BAD_INPUT, 1, -1, x->rank, axis, "an axis is out of range");
    axis += axis < 0 ? x->rank : 0;
    running r = {.n = x->dims[axis], .inner = fr_product(x, (int32_t)axis + 1, x->rank), .product = product};
    r.exclusive = c->attrs[1] != 0, r.reverse = c->attrs[2] != 0;
    for (int64_t k = 0; k < fr_product(x, 0, (int32_t)axis) * r.inner; k++) {
        r.first = k / r.inner * r.n * r.inner + k % r.inner;
        run_along(c, &r);
    }
    return FRUGAL_OK;
}

frugal_status fr_cumsum_run(const fr_call *c) { return cumulate(c, false); }
frugal_status fr_cumprod_check(const fr_call *c) { return fr_cumsum_check(c); }
frugal_status fr_cumprod_run(const fr_call *c) { return cumulate(c, true); }

/* ---- ARG ---- */

frugal_status fr_arg_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    const bool known = x->dtype == FR_F32 || x->dtype == FR_F64 || x->dtype == FR_I8 || x->dtype == FR_U8 || x->dtype == FR_I32 ||
                       x->dtype == FR_I64;
    FR_DTYPE(c, known && y->dtype == FR_I64, "arg is of float32, float64, int8, uint8, int32 or int64 and gives int64");
    FR_SHAPE(c, c->attrs[0] < x->rank && x->rank == y->rank, "the axis is not one of the input's");
    for (int32_t a = 0; a < x->rank; a++) {
        const int64_t want = a == c->attrs[0] ? 1 : x->dims[a];
        if (y->dims[a] != want)
            return fr_fail(c, FRUGAL_BAD_SHAPE, 1, a, want, y->dims[a], "the output has another shape than expected");
    }
    FR_SHAPE(c, x->dims[c->attrs[0]] > 0 || y->n == 0, "arg of an empty axis");
    return FRUGAL_OK;
}

/* A NaN never wins over what came before it. */
#define ARG(T)                                                                                                                   \
    do {                                                                                                                         \
        const T *x = (const T *)(const void *)t->data + first;                                                                   \
        T top = x[0];                                                                                                            \
        for (int64_t i = 1; i < n; i++) {                                                                                        \
            const T v = x[i * inner];                                                                                            \
            if (smallest ? v < top : v > top)                                                                                    \
                top = v, best = i;                                                                                               \
            else if (last && v == top)                                                                                           \
                best = i;                                                                                                        \
        }                                                                                                                        \
    } while (0)

static void arg_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const fr_tensor *t = c->in[0];
    const int32_t axis = (int32_t)c->attrs[0];
    const bool smallest = c->attrs[1] != 0, last = c->attrs[2] != 0;
    const int64_t n = t->dims[axis], inner = fr_product(t, axis + 1, t->rank);
    (void)thread;
    for (int64_t k = begin; k < end; k++) {
        const int64_t first = k / inner * n * inner + k % inner;
        int64_t best = 0;
        switch (t->dtype) {
        case FR_F32:
            ARG(float);
            break;
        case FR_F64:
            ARG(double);
            break;
        case FR_I8:
            ARG(int8_t);
            break;
        case FR_U8:
            ARG(uint8_t);
            break;
        case FR_I32:
            ARG(int32_t);
            break;
        default:
            ARG(int64_t);
            break;
        }
        ((int64_t *)(void *)c->out[0]->data)[k] = best;
    }
}

frugal_status fr_arg_run(const fr_call *c) {
    fr_parallel(c, c->out[0]->n, fr_row_grain(c->in[0]->dims[c->attrs[0]]), arg_range, c);
    return FRUGAL_OK;
}
