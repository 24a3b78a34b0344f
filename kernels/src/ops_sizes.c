/* ops_sizes.c - SIZES: shapes that an operator takes from integers known only while the plan runs, with ONNX's rules for negative
 * values worked out.  What it writes is read as late dims, and checked again there. */
#include <math.h>

#include "ops.h"

enum { S_RESHAPE, S_SLICE, S_UNSQUEEZE, S_SQUEEZE, S_REDUCE, S_PAD, S_RANGE, S_SCALE, S_KINDS };
enum { FIRST_DIM = 2 }; /* attrs kind, flag, dims of x */

static int64_t int_at(const fr_tensor *t, int64_t i) {
    return t->dtype == FR_I64 ? ((const int64_t *)(const void *)t->data)[i] : ((const int32_t *)(const void *)t->data)[i];
}

static bool integers(const fr_tensor *t) { return !t || t->dtype == FR_I32 || t->dtype == FR_I64; }
static bool floats(const fr_tensor *t) { return t->dtype == FR_F32 || t->dtype == FR_F64; }

/* How many values come out; -1 when the operands do not fit. */
static int64_t wanted(const fr_call *c, int64_t rank) {
    const fr_tensor *a = c->in[0], *b = c->in[1], *axes = c->in[2], *steps = c->in[3];
    switch (fr_attr_dim(c, 0)) {
    case S_RESHAPE:
        return a->n <= FRUGAL_MAX_RANK ? a->n : -1;
    case S_SLICE:
        return b && a->n == b->n && (axes ? axes->n == a->n : a->n <= rank) && (!steps || steps->n == a->n) ? 3 * rank : -1;
    case S_UNSQUEEZE:
        return a->n <= FRUGAL_MAX_RANK - rank ? rank + a->n : -1;
    case S_SQUEEZE:
        return a->n <= rank ? rank - a->n : -1;
    case S_REDUCE:
        return rank;
    case S_PAD:
        return !b && a->n % 2 == 0 && (axes ? axes->n == a->n / 2 : a->n == 2 * rank) ? 4 * rank : -1;
    case S_RANGE:
        return b && axes && a->n == 1 && b->n == 1 && axes->n == 1 && a->dtype == b->dtype && a->dtype == axes->dtype ? 1 : -1;
    default:
        return a->n == rank ? rank : -1;
    }
}

frugal_status fr_sizes_check(const fr_call *c) {
    const int64_t rank = c->n_attr - FIRST_DIM, kind = rank >= 0 ? fr_attr_dim(c, 0) : S_KINDS;
    const bool real = kind == S_SCALE || kind == S_RANGE;
    FR_SHAPE(c, kind < S_KINDS && rank <= FRUGAL_MAX_RANK, "no such kind of sizes");
    FR_DTYPE(c, c->out[0]->dtype == FR_I64, "sizes are int64");
    FR_DTYPE(c, integers(c->in[0]) ? kind != S_SCALE : real && floats(c->in[0]), "sizes come from int32 or int64");
    for (int32_t k = 1; k < c->n_in && kind != S_RANGE; k++)
        FR_DTYPE(c, integers(c->in[k]), "sizes come from int32 or int64");
    FR_SHAPE(c, wanted(c, rank) == c->out[0]->n, "the operands do not fit this kind of sizes");
    return FRUGAL_OK;
}

static frugal_status bad(const fr_call *c, int32_t pos, int64_t want, int64_t got, const char *what) {
    return fr_fail(c, FRUGAL_BAD_INPUT, pos, -1, want, got, what);
}

/* Value k of the axes in operand pos, counted from the front; every one at most once. */
static frugal_status axis_at(const fr_call *c, int32_t pos, int64_t k, int64_t rank, uint32_t *seen, int64_t *axis) {
    const fr_tensor *axes = c->in[pos];
    int64_t a = axes ? int_at(axes, k) : k;
    if (a < -rank || a >= rank)
        return bad(c, pos, rank, a, "an axis is out of range");
    a += a < 0 ? rank : 0;
    if (*seen >> a & 1)
        return bad(c, pos, rank, a, "an axis occurs twice");
    *seen |= UINT32_C(1) << a;
    *axis = a;
    return FRUGAL_OK;
}

static frugal_status run_reshape(const fr_call *c, const int64_t *dims, int64_t rank, int64_t *y) {
    int64_t all = 1, rest = 1, hole = -1;
    for (int64_t a = 0; a < rank; a++) {
        if (__builtin_mul_overflow(all, dims[a], &all))
            return bad(c, 0, 0, 0, "the input has too many elements");
    }
    for (int64_t i = 0; i < c->in[0]->n; i++) {
        int64_t d = int_at(c->in[0], i);
        if (d == 0 && fr_attr_dim(c, 1) == 0) {
            if (i >= rank)
                return bad(c, 0, rank, i, "a 0 of the shape copies an axis that is not there");
            d = dims[i];
        }
        if (d < -1 || (d == -1 && hole >= 0))
            return bad(c, 0, 0, d, "a shape may hold one -1, and nothing below");
        hole = d == -1 ? i : hole;
        y[i] = d;
        if (d != -1 && __builtin_mul_overflow(rest, d, &rest))
            return bad(c, 0, 0, d, "the shape has too many elements");
    }
    if (hole >= 0 && (rest == 0 || all % rest != 0))
        return bad(c, 0, all, rest, "the -1 of the shape cannot be worked out");
    if (hole >= 0)
        y[hole] = all / rest;
    return FRUGAL_OK;
}

/* start, count, step of every axis. */
static frugal_status run_slice(const fr_call *c, const int64_t *dims, int64_t rank, int64_t *y) {
    uint32_t seen = 0;
    for (int64_t a = 0; a < rank; a++)
        y[3 * a] = 0, y[3 * a + 1] = dims[a], y[3 * a + 2] = 1;
    for (int64_t k = 0; k < c->in[0]->n; k++) {
        int64_t a, start = int_at(c->in[0], k), end = int_at(c->in[1], k);
        const int64_t step = c->in[3] ? int_at(c->in[3], k) : 1;
        FR_TRY(axis_at(c, 2, k, rank, &seen, &a));
        if (step == 0)
            return bad(c, 3, 1, 0, "a step is 0");
        const int64_t n = dims[a], low = step > 0 ? 0 : -1, high = step > 0 ? n : n - 1;
        start = fr_max(low, fr_min(start < 0 ? start + n : start, high)); /* n is at most 2^40 and added to what is below 0 */
        end = fr_max(low, fr_min(end < 0 ? end + n : end, high));
        const uint64_t by = step > 0 ? (uint64_t)step : 0 - (uint64_t)step,
                       span = (uint64_t)(step > 0 ? end - start : start - end);
        const bool empty = step > 0 ? end <= start : end >= start;
        y[3 * a + 1] = empty ? 0 : (int64_t)((span - 1) / by + 1);
        y[3 * a] = empty ? 0 : start;
        y[3 * a + 2] = y[3 * a + 1] > 1 ? step : 1;
    }
    return FRUGAL_OK;
}

static frugal_status run_unsqueeze(const fr_call *c, const int64_t *dims, int64_t rank, int64_t *y) {
    const int64_t n = rank + c->in[0]->n;
    uint32_t seen = 0;
    for (int64_t k = 0, a; k < c->in[0]->n; k++)
        FR_TRY(axis_at(c, 0, k, n, &seen, &a));
    for (int64_t i = 0; i < n; i++)
        y[i] = seen >> i & 1 ? 1 : *dims++;
    return FRUGAL_OK;
}

/* Squeeze (flag: the axes must be 1) drops axes, REDUCE makes them 1: all of them when none is given and the flag is 0. */
static frugal_status run_without(const fr_call *c, const int64_t *dims, int64_t rank, int64_t *y) {
    const bool keep = fr_attr_dim(c, 0) == S_REDUCE, all = keep && c->in[0]->n == 0 && fr_attr_dim(c, 1) == 0;
    uint32_t seen = 0;
    for (int64_t k = 0, a; k < c->in[0]->n; k++) {
        FR_TRY(axis_at(c, 0, k, rank, &seen, &a));
        if (!keep && fr_attr_dim(c, 1) && dims[a] != 1)
            return bad(c, 0, 1, dims[a], "an axis to squeeze is not 1");
    }
    for (int64_t a = 0; a < rank; a++) {
        if (keep)
            *y++ = all || seen >> a & 1 ? 1 : dims[a];
        else if (!(seen >> a & 1))
            *y++ = dims[a];
    }
    return FRUGAL_OK;
}

/* Elements in front, length of the result, first element taken, how many. */
static frugal_status run_pad(const fr_call *c, const int64_t *dims, int64_t rank, int64_t *y) {
    const int64_t n = c->in[0]->n / 2;
    uint32_t seen = 0;
    for (int64_t a = 0; a < rank; a++)
        y[4 * a] = y[4 * a + 2] = 0, y[4 * a + 1] = y[4 * a + 3] = dims[a];
    for (int64_t k = 0; k < n; k++) {
        const int64_t low = int_at(c->in[0], k), high = int_at(c->in[0], n + k);
        int64_t a;
        FR_TRY(axis_at(c, 2, k, rank, &seen, &a));
        if (low < -FRUGAL_MAX_DIM || low > FRUGAL_MAX_DIM || high < -FRUGAL_MAX_DIM || high > FRUGAL_MAX_DIM)
            return bad(c, 0, 0, low, "a pad is out of range");
        const int64_t first = low < 0 ? -low : 0, cut = first + (high < 0 ? -high : 0);
        y[4 * a] = low > 0 ? low : 0;
        y[4 * a + 2] = fr_min(first, dims[a]);
        y[4 * a + 3] = fr_max(dims[a] - cut, 0);
        y[4 * a + 1] = y[4 * a] + y[4 * a + 3] + (high > 0 ? high : 0);
    }
    return FRUGAL_OK;
}

static double real_at(const fr_tensor *t) {
    return t->dtype == FR_F32 ? (double)*(const float *)(const void *)t->data : *(const double *)(const void *)t->data;
}

/* ceil((limit - start) / delta), 0 when it is negative. */
static frugal_status run_range(const fr_call *c, int64_t *y) {
    if (floats(c->in[0])) {
        const double n = ceil((real_at(c->in[1]) - real_at(c->in[0])) / real_at(c->in[2]));
        if (!(n <= (double)FRUGAL_MAX_DIM))
            return bad(c, 2, 0, 0, "a range is endless");
        y[0] = n > 0 ? (int64_t)n : 0;
        return FRUGAL_OK;
    }
    const int64_t start = int_at(c->in[0], 0), limit = int_at(c->in[1], 0), delta = int_at(c->in[2], 0);
    if (delta == 0)
        return bad(c, 2, 1, 0, "a range is endless");
    const bool some = delta > 0 ? limit > start : limit < start;
    const uint64_t span = delta > 0 ? (uint64_t)limit - (uint64_t)start : (uint64_t)start - (uint64_t)limit;
    const uint64_t n = some ? (span - 1) / (delta > 0 ? (uint64_t)delta : 0 - (uint64_t)delta) + 1 : 0;
    if (n > (uint64_t)FRUGAL_MAX_DIM)
        return bad(c, 1, FRUGAL_MAX_DIM, 0, "a range is too long");
    y[0] = (int64_t)n;
    return FRUGAL_OK;
}

/* floor(dim * scale), the product in float32 as onnxruntime has it. */
static frugal_status run_scale(const fr_call *c, const int64_t *dims, int64_t rank, int64_t *y) {
    for (int64_t a = 0; a < rank; a++) {
        const float scale = c->in[0]->dtype == FR_F32 ? ((const float *)(const void *)c->in[0]->data)[a]
                                                      : (float)((const double *)(const void *)c->in[0]->data)[a];
        const float size = floorf((float)dims[a] * scale);
        if (!(scale > 0 && size <= 0x1p40f))
            return bad(c, 0, 0, a, "a scale is not above 0, or too large");
        y[a] = (int64_t)size;
    }
    return FRUGAL_OK;
}

frugal_status fr_sizes_run(const fr_call *c) {
    const int64_t rank = c->n_attr - FIRST_DIM;
    int64_t dims[FRUGAL_MAX_RANK], *y = (int64_t *)(void *)c->out[0]->data;
    for (int32_t a = 0; a < rank; a++)
        dims[a] = fr_attr_dim(c, FIRST_DIM + a);
    switch (fr_attr_dim(c, 0)) {
    case S_RESHAPE:
        return run_reshape(c, dims, rank, y);
    case S_SLICE:
        return run_slice(c, dims, rank, y);
    case S_UNSQUEEZE:
        return run_unsqueeze(c, dims, rank, y);
    case S_SQUEEZE:
    case S_REDUCE:
        return run_without(c, dims, rank, y);
    case S_PAD:
        return run_pad(c, dims, rank, y);
    case S_RANGE:
        return run_range(c, y);
    default:
        return run_scale(c, dims, rank, y);
    }
}
