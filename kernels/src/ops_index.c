/* ops_index.c - operations that move elements by index, and what sorts and searches: PAD, GATHER_AT, SCATTER_AT, TOPK,
 * NONZERO, UNIQUE; and RANDOM. */
#include <math.h>

#include "ops.h"
#include "random.h"

/* ---- copies with an index map for every axis (PAD, RESIZE) ---- */

int64_t fr_map_scratch(const fr_tensor *y) {
    int64_t n = 0;
    for (int32_t a = 0; a < y->rank; a++)
        n += 2 * y->dims[a]; /* at most 8 axes of 2^40: no overflow below */
    return n * (int64_t)sizeof(int64_t);
}

void fr_map_init(fr_map *m, const fr_tensor *x, const fr_tensor *y, const uint8_t *fill, uint8_t *scratch) {
    *m = (fr_map){.x = x, .y = y, .fill = fill};
    int64_t *at = (int64_t *)(void *)scratch;
    for (int32_t a = 0; a < y->rank; a++, at += 2 * y->dims[a - 1])
        m->at[a] = at;
}

static bool identity(const int64_t *at, int64_t n, int64_t x) {
    for (int64_t j = 0; j < n; j++) {
        if (at[j] != j)
            return false;
    }
    return n == x;
}

/* Lengths of the runs that one memcpy (or one fill) can do, behind the map; returns how many runs there are. */
static int64_t find_runs(int64_t *at, int64_t n) {
    int64_t *run = at + n, runs = 0;
    for (int64_t j = n - 1; j >= 0; j--) {
        const bool joins = j + 1 < n && (at[j] < 0 ? at[j + 1] < 0 : at[j + 1] == at[j] + 1);
        run[j] = joins ? run[j + 1] + 1 : 1;
        runs += !joins;
    }
    return runs;
}

#define PICK(T)                                                                                                                  \
    do {                                                                                                                         \
        T *to = (T *)(void *)y, fill;                                                                                            \
        const T *from = (const T *)(const void *)x;                                                                              \
        memcpy(&fill, m->fill, sizeof fill);                                                                                     \
        for (int64_t j = j0; j < j1; j++)                                                                                        \
            to[j] = at[j] < 0 ? fill : from[at[j]];                                                                              \
    } while (0)

/* Single elements in no order. */
static void pick(const fr_map *m, const int64_t *at, uint8_t *y, const uint8_t *x, int64_t j0, int64_t j1) {
    switch (m->size) {
    case 1:
        PICK(uint8_t);
        break;
    case 2:
        PICK(uint16_t);
        break;
    case 4:
        PICK(uint32_t);
        break;
    default:
        PICK(uint64_t);
        break;
    }
}

/* Indices [j0, j1) of axis a; y and x point at index 0 of it.  An output block equal to the one before is copied from there. */
static void map_level(const fr_map *m, int32_t a, uint8_t *y, const uint8_t *x, int64_t j0, int64_t j1) {
    const int64_t *at = m->at[a], *run = at + m->y->dims[a], by = m->y_step[a], bx = m->x_step[a];
    if (a == m->last && m->picks) {
        pick(m, at, y, x, j0, j1);
        return;
    }
    for (int64_t j = j0, n; j < j1; j += n) {
        n = a == m->last || at[j] < 0 ? fr_min(run[j], j1 - j) : 1;
        if (at[j] < 0)
            fr_copy(y + j * by, m->fill, 0, n * by / m->size, m->size);
        else if (a == m->last)
            memcpy(y + j * by, x + at[j] * bx, (size_t)(n * by));
        else if (j > j0 && at[j] == at[j - 1])
            memcpy(y + j * by, y + (j - 1) * by, (size_t)by);
        else
            map_level(m, a + 1, y + j * by, x + at[j] * bx, 0, m->y->dims[a + 1]);
    }
}

static void map_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_map *m = p;
    const int32_t a = m->first;
    const int64_t n = m->y->dims[a], x_block = m->x->dims[a] * m->x_step[a], y_block = n * m->y_step[a];
    (void)thread;
    while (begin < end) {
        const int64_t o = begin / n, j0 = begin % n, j1 = fr_min(n, j0 + end - begin);
        map_level(m, a, m->y->data + o * y_block, m->x->data + o * x_block, j0, j1);
        begin += j1 - j0;
    }
}

void fr_map_run(const fr_call *c, fr_map *m) {
    const fr_tensor *x = m->x, *y = m->y;
    int64_t runs = 0;
    m->size = fr_dtype_bytes(y->dtype);
    m->first = y->rank;
    m->last = -1;
    for (int32_t a = 0; a < y->rank; a++) {
        if (identity(m->at[a], y->dims[a], x->dims[a]))
            continue;
        m->first = m->first == y->rank ? a : m->first;
        m->last = a;
    }
    if (m->last < 0) {
        memcpy(y->data, x->data, (size_t)y->bytes);
        return;
    }
    for (int32_t a = m->first; a <= m->last; a++) {
        runs = find_runs(m->at[a], y->dims[a]);
        m->x_step[a] = fr_product(x, a + 1, x->rank) * m->size;
        m->y_step[a] = fr_product(y, a + 1, y->rank) * m->size;
    }
    m->picks = m->y_step[m->last] == m->size && runs * 8 > y->dims[m->last];
    const int64_t rows = fr_product(y, 0, m->first + 1);
    fr_parallel(c, rows, fr_row_grain(y->n / rows), map_range, m);
}

/* ---- PAD ---- */

enum { PAD_CONSTANT = 0, PAD_REFLECT = 1, PAD_EDGE = 2, PAD_WRAP = 3 };

frugal_status fr_pad_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *value = c->in[1], *y = c->out[0];
    FR_DTYPE(c, x->dtype == y->dtype && (!value || value->dtype == x->dtype), "input, value and output must have one data type");
    FR_SHAPE(c, x->rank == y->rank && c->n_attr == 1 + x->rank, "a pad needs a start for every axis");
    FR_SHAPE(c, fr_attr_dim(c, 0) <= PAD_WRAP, "no such mode");
    FR_SHAPE(c, !value || value->n == 1, "the value must be one element");
    for (int32_t a = 0; a < x->rank; a++) {
        const int64_t begin = fr_attr_dim(c, 1 + a), least = begin + x->dims[a]; /* both at most 2^40 */
        if (y->dims[a] < least)
            return fr_fail(c, FRUGAL_BAD_SHAPE, 2, a, least, y->dims[a], "the output is shorter than the input and its padding");
        FR_SHAPE(c, fr_attr_dim(c, 0) == PAD_CONSTANT || x->dims[a] > 0 || y->n == 0, "an empty axis has nothing to repeat");
    }
    return FRUGAL_OK;
}

void fr_pad_scratch(const fr_call *c, fr_scratch *s) { s->shared = fr_map_scratch(c->out[0]); }

static int64_t pad_source(int64_t mode, int64_t i, int64_t n) {
    if (i >= 0 && i < n)
        return i;
    switch (mode) {
    case PAD_REFLECT: {
        const int64_t period = n > 1 ? 2 * (n - 1) : 1, r = (i % period + period) % period;
        return r < n ? r : period - r;
    }
    case PAD_EDGE:
        return i < 0 ? 0 : n - 1;
    case PAD_WRAP:
        return (i % n + n) % n;
    default:
        return -1;
    }
}

frugal_status fr_pad_run(const fr_call *c) {
    static const uint8_t zero[8];
    const fr_tensor *x = c->in[0], *y = c->out[0];
    fr_map m;
    fr_map_init(&m, x, y, c->in[1] ? c->in[1]->data : zero, c->shared);
    for (int32_t a = 0; a < y->rank; a++) {
        const int64_t begin = fr_attr_dim(c, 1 + a);
        for (int64_t j = 0; j < y->dims[a]; j++)
            m.at[a][j] = pad_source(fr_attr_dim(c, 0), j - begin, x->dims[a]);
    }
    fr_map_run(c, &m);
    return FRUGAL_OK;
}

/* ---- GATHER_AT, SCATTER_AT ---- */

static int64_t id_at(const fr_tensor *ids, int64_t i) {
    return ids->dtype == FR_I64 ? ((const int64_t *)(const void *)ids->data)[i] : ((const int32_t *)(const void *)ids->data)[i];
}

/* How indices of the tensor x are meant: a plane of x for every index ("elements"), or one tuple for every row ("nd"). */
typedef struct index_map {
    const fr_tensor *ids;
    int32_t axis;                                         /* elements: of x; nd: the number of batch axes */
    int32_t depth;                                        /* nd: length of a tuple */
    int64_t row;                                          /* nd: elements that a tuple selects */
    int64_t batch;                                        /* nd: elements of x in one batch */
    int64_t tuples;                                       /* nd: of one batch */
    int64_t step[FRUGAL_MAX_RANK], dims[FRUGAL_MAX_RANK]; /* of x; elements: row-major; nd: of the indexed axes, in elements */
} index_map;

static frugal_status index_dtype(const fr_call *c, const fr_tensor *ids) {
    FR_DTYPE(c, ids->dtype == FR_I32 || ids->dtype == FR_I64, "indices must be int32 or int64");
    return FRUGAL_OK;
}

/* The axes of ids but `axis` may not be longer than those of x. */
static frugal_status check_elements(const fr_call *c, const fr_tensor *x, const fr_tensor *ids, int32_t axis, int32_t pos) {
    FR_TRY(index_dtype(c, ids));
    FR_SHAPE(c, axis < x->rank, "the axis is not one of the input's");
    FR_SHAPE(c, ids->rank == x->rank, "the indices have another rank than the input");
    for (int32_t a = 0; a < x->rank; a++) {
        if (a != axis && ids->dims[a] > x->dims[a])
            return fr_fail(c, FRUGAL_BAD_SHAPE, pos, a, x->dims[a], ids->dims[a], "the indices are longer than the input");
    }
    return FRUGAL_OK;
}

/* part is ids.dims[:-1] + x.dims[batch + depth:], the shape that tuples select from x. */
static frugal_status check_nd(const fr_call *c, const fr_tensor *x, const fr_tensor *ids, const fr_tensor *part, int32_t batch,
                              int32_t pos) {
    FR_TRY(index_dtype(c, ids));
    FR_SHAPE(c, ids->rank > 0 && batch < ids->rank && batch < x->rank, "too few axes for the batch");
    const int64_t depth = ids->dims[ids->rank - 1];
    FR_SHAPE(c, depth >= 1 && depth <= x->rank - batch, "an index tuple is empty or longer than the input's axes");
    FR_SHAPE(c, part->rank == ids->rank - 1 + x->rank - batch - (int32_t)depth, "indices select another rank");
    for (int32_t a = 0; a < batch; a++)
        FR_SHAPE(c, ids->dims[a] == x->dims[a], "indices and input have different batches");
    for (int32_t a = 0; a < part->rank; a++) {
        const int64_t want = a < ids->rank - 1 ? ids->dims[a] : x->dims[a - (ids->rank - 1) + batch + depth];
        if (part->dims[a] != want)
            return fr_fail(c, FRUGAL_BAD_SHAPE, pos, a, want, part->dims[a], "another shape than the indices select");
    }
    return FRUGAL_OK;
}

static void map_indices(index_map *m, const fr_tensor *x, const fr_tensor *ids, bool nd, int32_t axis) {
    *m = (index_map){.ids = ids, .axis = axis};
    m->depth = nd ? (int32_t)ids->dims[ids->rank - 1] : 0;
    const int32_t first = nd ? axis : 0;
    for (int32_t a = first; a < x->rank; a++) {
        m->dims[a - first] = x->dims[a];
        m->step[a - first] = fr_product(x, a + 1, x->rank);
    }
    m->row = nd ? fr_product(x, axis + m->depth, x->rank) : 1;
    m->batch = nd ? fr_product(x, axis, x->rank) : 0;
    m->tuples = nd ? fr_product(ids, axis, ids->rank - 1) : 0;
}

/* Before anything is copied, so that the tasks need no way to fail. */
static frugal_status check_values(const fr_call *c, const index_map *m, bool nd, int32_t pos) {
    for (int64_t i = 0; i < m->ids->n; i++) {
        const int64_t id = id_at(m->ids, i), n = m->dims[nd ? (int32_t)(i % m->depth) : m->axis];
        if (id < -n || id >= n)
            return fr_fail(c, FRUGAL_BAD_INPUT, pos, -1, n, id, "an index lies outside its axis");
    }
    return FRUGAL_OK;
}

/* The first element of x that tuple i selects. */
static int64_t tuple_at(const index_map *m, int64_t i) {
    int64_t at = i / m->tuples * m->batch;
    for (int32_t k = 0; k < m->depth; k++) {
        const int64_t id = id_at(m->ids, i * m->depth + k);
        at += (id < 0 ? id + m->dims[k] : id) * m->step[k];
    }
    return at;
}

typedef struct gather_ctx {
    const index_map *m;
    const uint8_t *x;
    uint8_t *y;
    int64_t size;
} gather_ctx;

static void gather_rows(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const gather_ctx *g = p;
    const int64_t bytes = g->m->row * g->size;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        memcpy(g->y + i * bytes, g->x + tuple_at(g->m, i) * g->size, (size_t)bytes);
}

#define GATHER(T)                                                                                                                \
    for (int64_t i = 0; i < n; i++) {                                                                                            \
        const int64_t id = id_at(g->m->ids, out + i);                                                                            \
        ((T *)(void *)g->y)[out + i] =                                                                                           \
            ((const T *)(const void *)g->x)[at[0] + i * step[0] + (id < 0 ? id + length : id) * along];                          \
    }

static void gather_inner(const void *p, int64_t out, const int64_t *at, const int64_t *step, int64_t n) {
    const gather_ctx *g = p;
    const int64_t length = g->m->dims[g->m->axis], along = g->m->step[g->m->axis];
    switch (g->size) {
    case 1:
        GATHER(uint8_t);
        break;
    case 2:
        GATHER(uint16_t);
        break;
    case 4:
        GATHER(uint32_t);
        break;
    default:
        GATHER(uint64_t);
        break;
    }
}

frugal_status fr_gather_at_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *ids = c->in[1], *y = c->out[0];
    const int32_t axis = (int32_t)c->attrs[1];
    FR_DTYPE(c, x->dtype == y->dtype, "input and output must have one data type");
    if (c->attrs[0])
        return check_nd(c, x, ids, y, axis, 2);
    FR_TRY(check_elements(c, x, ids, axis, 1));
    return fr_same_shape(c, y, ids, 2);
}

frugal_status fr_gather_at_run(const fr_call *c) {
    const fr_tensor *x = c->in[0], *ids = c->in[1];
    const bool nd = c->attrs[0] != 0;
    index_map m;
    map_indices(&m, x, ids, nd, (int32_t)c->attrs[1]);
    FR_TRY(check_values(c, &m, nd, 1));
    const gather_ctx g = {&m, x->data, c->out[0]->data, fr_dtype_bytes(x->dtype)};
    if (nd) {
        fr_parallel(c, ids->n / m.depth, fr_row_grain(m.row), gather_rows, &g);
        return FRUGAL_OK;
    }
    fr_walk w;
    fr_walk_init(&w, c->out[0]);
    w.operands = 1;
    for (int32_t a = 0; a < x->rank; a++)
        w.step[0][a] = a == m.axis ? 0 : m.step[a];
    fr_walk_run(c, &w, gather_inner, &g);
    return FRUGAL_OK;
}

enum { SCATTER_NONE = 0, SCATTER_ADD = 1, SCATTER_MUL = 2, SCATTER_MAX = 3, SCATTER_MIN = 4 };

static bool arithmetic(int dtype) {
    switch (dtype) {
    case FR_F32:
    case FR_F64:
    case FR_I8:
    case FR_U8:
    case FR_I16:
    case FR_U16:
    case FR_I32:
    case FR_U32:
    case FR_I64:
    case FR_U64:
        return true;
    default:
        return false;
    }
}

frugal_status fr_scatter_at_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *ids = c->in[1], *updates = c->in[2];
    const int32_t axis = (int32_t)c->attrs[1];
    FR_DTYPE(c, x->dtype == c->out[0]->dtype && x->dtype == updates->dtype, "data, updates and output must have one data type");
    FR_DTYPE(c, c->attrs[2] == SCATTER_NONE || arithmetic(x->dtype), "this data type cannot be reduced");
    FR_SHAPE(c, c->attrs[2] <= SCATTER_MIN, "no such reduction");
    FR_TRY(fr_same_shape(c, c->out[0], x, 3));
    if (c->attrs[0])
        return check_nd(c, x, ids, updates, axis, 2);
    FR_TRY(check_elements(c, x, ids, axis, 1));
    return fr_same_shape(c, updates, ids, 2);
}

/* Integers wrap (WIDE is unsigned and at least as wide); a NaN wins in MAX and MIN. */
#define SCATTER(T, WIDE)                                                                                                         \
    do {                                                                                                                         \
        T *to = (T *)(void *)y;                                                                                                  \
        const T *from = (const T *)(const void *)u;                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                                                        \
            const T a = to[i], b = from[i];                                                                                      \
            switch (kind) {                                                                                                      \
            case SCATTER_ADD:                                                                                                    \
                to[i] = (T)((WIDE)a + (WIDE)b);                                                                                  \
                break;                                                                                                           \
            case SCATTER_MUL:                                                                                                    \
                to[i] = (T)((WIDE)a * (WIDE)b);                                                                                  \
                break;                                                                                                           \
            case SCATTER_MAX:                                                                                                    \
                to[i] = b > a || b != b ? b : a;                                                                                 \
                break;                                                                                                           \
            default:                                                                                                             \
                to[i] = b < a || b != b ? b : a;                                                                                 \
                break;                                                                                                           \
            }                                                                                                                    \
        }                                                                                                                        \
    } while (0)

/* y = y op u for n dense elements. */
static void combine(uint8_t *y, const uint8_t *u, int64_t n, int dtype, int64_t kind) {
    if (kind == SCATTER_NONE) {
        memcpy(y, u, (size_t)(n * fr_dtype_bytes(dtype)));
        return;
    }
    switch (dtype) {
    case FR_F32:
        SCATTER(float, float);
        break;
    case FR_F64:
        SCATTER(double, double);
        break;
    case FR_I8:
        SCATTER(int8_t, uint32_t);
        break;
    case FR_U8:
        SCATTER(uint8_t, uint32_t);
        break;
    case FR_I16:
        SCATTER(int16_t, uint32_t);
        break;
    case FR_U16:
        SCATTER(uint16_t, uint32_t);
        break;
    case FR_I32:
        SCATTER(int32_t, uint32_t);
        break;
    case FR_U32:
        SCATTER(uint32_t, uint32_t);
        break;
    case FR_I64:
        SCATTER(int64_t, uint64_t);
        break;
    default:
        SCATTER(uint64_t, uint64_t);
        break;
    }
}

/* In the order of the updates, in one thread: an element may be written twice. */
static void scatter_elements(const fr_call *c, const index_map *m) {
    const fr_tensor *ids = m->ids;
    const int64_t size = fr_dtype_bytes(c->in[0]->dtype), length = m->dims[m->axis];
    int64_t index[FRUGAL_MAX_RANK] = {0}, base = 0;
    for (int64_t i = 0; i < ids->n; i++) {
        const int64_t id = id_at(ids, i), at = base + (id < 0 ? id + length : id) * m->step[m->axis];
        combine(c->out[0]->data + at * size, c->in[2]->data + i * size, 1, c->in[0]->dtype, c->attrs[2]);
        for (int32_t a = ids->rank - 1; a >= 0; a--) {
            const int64_t step = a == m->axis ? 0 : m->step[a];
            base += step;
            if (++index[a] < ids->dims[a])
                break;
            base -= step * ids->dims[a];
            index[a] = 0;
        }
    }
}

frugal_status fr_scatter_at_run(const fr_call *c) {
    const fr_tensor *x = c->in[0], *ids = c->in[1], *y = c->out[0];
    const bool nd = c->attrs[0] != 0;
    const int64_t size = fr_dtype_bytes(x->dtype);
    index_map m;
    map_indices(&m, x, ids, nd, (int32_t)c->attrs[1]);
    FR_TRY(check_values(c, &m, nd, 1));
    memcpy(y->data, x->data, (size_t)x->bytes);
    if (ids->n == 0 || c->in[2]->n == 0)
        return FRUGAL_OK;
    if (!nd) {
        scatter_elements(c, &m);
        return FRUGAL_OK;
    }
    for (int64_t i = 0; i < ids->n / m.depth; i++)
        combine(y->data + tuple_at(&m, i) * size, c->in[2]->data + i * m.row * size, m.row, x->dtype, c->attrs[2]);
    return FRUGAL_OK;
}

/* ---- TOPK ---- */

/* Numbers as unsigned integers of the same order; -0 is 0, and a NaN is above everything. */
static uint64_t float_key(uint64_t bits, int width) {
    const uint64_t sign = UINT64_C(1) << (width - 1), mask = sign | (sign - 1);
    if ((bits & (sign - 1)) == 0)
        return sign;
    return bits & sign ? ~bits & mask : bits | sign;
}

#define KEYS(T, KEY)                                                                                                             \
    do {                                                                                                                         \
        const T *from = (const T *)(const void *)x;                                                                              \
        for (int64_t i = 0; i < n; i++) {                                                                                        \
            const T v = from[i * step];                                                                                          \
            keys[i] = (KEY);                                                                                                     \
        }                                                                                                                        \
    } while (0)
#define FLOAT_KEY(width, inf) (v & ((UINT64_C(1) << (width - 1)) - 1)) > (inf) ? UINT64_MAX : float_key(v, width)
#define SIGNED_KEY (uint64_t)v ^ UINT64_C(1) << 63

bool fr_sort_keys(uint64_t *keys, const uint8_t *x, int dtype, int64_t n, int64_t step) {
    switch (dtype) {
    case FR_F32:
        KEYS(uint32_t, FLOAT_KEY(32, UINT64_C(0x7f800000)));
        return true;
    case FR_F64:
        KEYS(uint64_t, FLOAT_KEY(64, UINT64_C(0x7ff0000000000000)));
        return true;
    case FR_F16:
        KEYS(uint16_t, FLOAT_KEY(16, UINT64_C(0x7c00)));
        return true;
    case FR_BF16:
        KEYS(uint16_t, FLOAT_KEY(16, UINT64_C(0x7f80)));
        return true;
    case FR_I8:
        KEYS(int8_t, SIGNED_KEY);
        return true;
    case FR_I16:
        KEYS(int16_t, SIGNED_KEY);
        return true;
    case FR_I32:
        KEYS(int32_t, SIGNED_KEY);
        return true;
    case FR_I64:
        KEYS(int64_t, SIGNED_KEY);
        return true;
    case FR_U8:
    case FR_BOOL:
        KEYS(uint8_t, v);
        return true;
    case FR_U16:
        KEYS(uint16_t, v);
        return true;
    case FR_U32:
        KEYS(uint32_t, v);
        return true;
    case FR_U64:
        KEYS(uint64_t, v);
        return true;
    default:
        return false;
    }
}

frugal_status fr_topk_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *values = c->out[0], *indices = c->out[1];
    uint64_t none;
    FR_DTYPE(c, fr_sort_keys(&none, NULL, x->dtype, 0, 1), "this data type has no order");
    FR_DTYPE(c, values->dtype == x->dtype && indices->dtype == FR_I64, "values are of the input's type and indices int64");
    FR_SHAPE(c, x->rank == values->rank && c->attrs[0] < x->rank, "the axis is not one of the input's");
    for (int32_t a = 0; a < x->rank; a++) {
        const bool fits = a == c->attrs[0] ? values->dims[a] <= x->dims[a] : values->dims[a] == x->dims[a];
        if (!fits)
            return fr_fail(c, FRUGAL_BAD_SHAPE, 1, a, x->dims[a], values->dims[a], "more values are asked for than there are");
    }
    return fr_same_shape(c, indices, values, 2);
}

/* Keys of one row, and the heap. */
void fr_topk_scratch(const fr_call *c, fr_scratch *s) {
    const int64_t axis = c->attrs[0];
    s->thread = 8 * (c->in[0]->dims[axis] + c->out[0]->dims[axis]);
}

/* heap[0] comes last in the order: smaller key, then larger index. */
static bool comes_after(const uint64_t *keys, int64_t a, int64_t b) { return keys[a] != keys[b] ? keys[a] < keys[b] : a > b; }

static void sift(const uint64_t *keys, int64_t *heap, int64_t i, int64_t n) {
    const int64_t v = heap[i];
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && comes_after(keys, heap[child + 1], heap[child]))
            child++;
        if (!comes_after(keys, heap[child], v))
            break;
        heap[i] = heap[child];
    }
    heap[i] = v;
}

void fr_topk_indices(const uint64_t *keys, int64_t n, int64_t *best, int64_t k) {
    for (int64_t i = 0; i < k; i++)
        best[i] = i;
    for (int64_t i = k / 2; i-- > 0;)
        sift(keys, best, i, k);
    for (int64_t i = k; i < n && k > 0; i++) {
        if (keys[i] <= keys[best[0]]) /* an equal one comes later */
            continue;
        best[0] = i;
        sift(keys, best, 0, k);
    }
    for (int64_t i = k; i-- > 1;) {
        const int64_t v = best[0];
        best[0] = best[i];
        best[i] = v;
        sift(keys, best, 0, i);
    }
}

static void topk_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const fr_tensor *x = c->in[0];
    const int32_t axis = (int32_t)c->attrs[0];
    const int64_t n = x->dims[axis], k = c->out[0]->dims[axis], size = fr_dtype_bytes(x->dtype);
    const int64_t inner = fr_product(x, axis + 1, x->rank);
    uint64_t *keys = (uint64_t *)(void *)fr_thread_scratch(c, thread);
    int64_t *best = (int64_t *)(void *)(keys + n), *indices = (int64_t *)(void *)c->out[1]->data;
    for (int64_t r = begin; r < end; r++) {
        const int64_t from = r / inner * n * inner + r % inner, to = r / inner * k * inner + r % inner;
        (void)fr_sort_keys(keys, x->data + from * size, x->dtype, n, inner);
        for (int64_t i = 0; i < n && !c->attrs[1]; i++)
            keys[i] = ~keys[i];
        fr_topk_indices(keys, n, best, k);
        for (int64_t i = 0; i < k; i++) {
            indices[to + i * inner] = best[i];
            memcpy(c->out[0]->data + (to + i * inner) * size, x->data + (from + best[i] * inner) * size, (size_t)size);
        }
    }
}

frugal_status fr_topk_run(const fr_call *c) {
    const fr_tensor *x = c->in[0];
    fr_parallel(c, c->out[0]->n / c->out[0]->dims[c->attrs[0]], fr_row_grain(4 * x->dims[c->attrs[0]]), topk_range, c);
    return FRUGAL_OK;
}

int64_t fr_topk_operations(const fr_call *c) { return fr_max(c->in[0]->n, c->out[0]->n); }

/* ---- NONZERO ---- */

frugal_status fr_nonzero_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    FR_DTYPE(c, x->dtype == FR_BOOL && y->dtype == FR_I64, "the input must be bool and the output int64");
    FR_SHAPE(c, y->rank == 2 && y->dims[0] == x->rank, "the output must have a row for every axis");
    return FRUGAL_OK;
}

frugal_status fr_nonzero_run(const fr_call *c) {
    const fr_tensor *x = c->in[0];
    const int64_t room = c->out[0]->dims[1];
    int64_t *y = (int64_t *)(void *)c->out[0]->data, found = 0;
    for (int64_t i = 0; i < x->n; i++) {
        if (!x->data[i])
            continue;
        if (found == room)
            return fr_fail(c, FRUGAL_BAD_INPUT, 0, -1, room, found + 1, "more elements are true than the output has columns");
        int64_t rest = i;
        for (int32_t a = x->rank - 1; a >= 0; a--) {
            y[a * room + found] = rest % x->dims[a];
            rest /= x->dims[a];
        }
        found++;
    }
    if (found != room)
        return fr_fail(c, FRUGAL_BAD_INPUT, 0, -1, room, found, "fewer elements are true than the output has columns");
    return FRUGAL_OK;
}

/* ---- UNIQUE ---- */

enum { U_COUNT, U_FIRST, U_INVERSE, U_COUNTS };

frugal_status fr_unique_check(const fr_call *c) {
    const fr_tensor *x = c->in[0];
    uint64_t none;
    FR_DTYPE(c, fr_sort_keys(&none, NULL, x->dtype, 0, 1), "this data type has no order");
    FR_SHAPE(c, c->attrs[0] < x->rank, "the axis is not one of the input's");
    for (int32_t k = 0; k < 4; k++) {
        FR_DTYPE(c, c->out[k]->dtype == FR_I64, "the outputs are int64");
        FR_SHAPE(c, c->out[k]->n == (k == U_COUNT ? 1 : x->dims[c->attrs[0]]), "an output has another length than the axis");
    }
    return FRUGAL_OK;
}

/* Keys of all elements, the order of the slices twice, and two numbers a group. */
void fr_unique_scratch(const fr_call *c, fr_scratch *s) {
    s->shared = 8 * (c->in[0]->n + 4 * c->in[0]->dims[c->attrs[0]]); /* both at most 2^40 */
}

static int compare_slices(const uint64_t *a, const uint64_t *b, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (a[i] != b[i])
            return a[i] < b[i] ? -1 : 1;
    }
    return 0;
}

/* Stable, from short runs to long ones: no recursion.  Returns the array that holds the result. */
static int64_t *merge_sort(int64_t *order, int64_t *spare, int64_t m, const uint64_t *keys, int64_t n) {
    for (int64_t i = 0; i < m; i++)
        order[i] = i;
    for (int64_t width = 1; width < m; width *= 2) {
        for (int64_t lo = 0; lo < m; lo += 2 * width) {
            const int64_t mid = fr_min(lo + width, m), hi = fr_min(lo + 2 * width, m);
            for (int64_t i = lo, j = mid, k = lo; k < hi; k++) {
                const bool left = i < mid && (j >= hi || compare_slices(keys + order[i] * n, keys + order[j] * n, n) <= 0);
                spare[k] = left ? order[i++] : order[j++];
            }
        }
        int64_t *t = order;
        order = spare, spare = t;
    }
    return order;
}

static int64_t *out_of(const fr_call *c, int32_t k) { return (int64_t *)(void *)c->out[k]->data; }

/* Groups in sorted order; group[i] of slice i, head[g] its first slice.  Returns how many there are. */
static int64_t group_slices(const int64_t *order, int64_t m, const uint64_t *keys, int64_t n, int64_t *group, int64_t *head) {
    int64_t groups = 0;
    for (int64_t p = 0; p < m; p++) {
        if (p == 0 || compare_slices(keys + order[p - 1] * n, keys + order[p] * n, n) != 0)
            head[groups++] = order[p];
        group[order[p]] = groups - 1;
    }
    return groups;
}

frugal_status fr_unique_run(const fr_call *c) {
    const fr_tensor *x = c->in[0];
    const int32_t axis = (int32_t)c->attrs[0];
    const int64_t m = x->dims[axis], inner = fr_product(x, axis + 1, x->rank), outer = fr_product(x, 0, axis), n = outer * inner;
    uint64_t *keys = (uint64_t *)(void *)c->shared;
    int64_t *order = (int64_t *)(void *)(keys + x->n), *head = order + 2 * m, *number = head + m, *group = out_of(c, U_INVERSE);
    for (int64_t i = 0; i < outer * m; i++) {
        const uint8_t *from = x->data + i * inner * fr_dtype_bytes(x->dtype);
        (void)fr_sort_keys(keys + i % m * n + i / m * inner, from, x->dtype, inner, 1);
    }
    const int64_t groups = group_slices(merge_sort(order, order + m, m, keys, n), m, keys, n, group, head);
    int64_t seen = 0;
    out_of(c, U_COUNT)[0] = groups;
    memset(c->out[U_FIRST]->data, 0, (size_t)c->out[U_FIRST]->bytes);
    memset(c->out[U_COUNTS]->data, 0, (size_t)c->out[U_COUNTS]->bytes);
    for (int64_t i = 0; i < m; i++) {
        const int64_t g = group[i];
        if (head[g] == i)
            number[g] = c->attrs[1] ? g : seen++;
        group[i] = number[g];
        if (head[g] == i)
            out_of(c, U_FIRST)[number[g]] = i;
        out_of(c, U_COUNTS)[number[g]]++;
    }
    return FRUGAL_OK;
}

int64_t fr_unique_operations(const fr_call *c) { return c->in[0]->n; }

/* ---- RANDOM ---- */

frugal_status fr_random_check(const fr_call *c) {
    FR_DTYPE(c, c->out[0]->dtype == FR_F32, "random numbers are float32");
    return FRUGAL_OK;
}

/* Two normal numbers of two words (Box and Muller). */
static void normal_pair(const frugal_isa *isa, uint32_t a, uint32_t b, float out[2]) {
    float r = 1 - fr_unit(a), t = 6.2831853f * fr_unit(b);
    isa->unary(FRUGAL_U_LOG, &r, &r, 1, 0, 0);
    r = sqrtf(-2 * r);
    isa->unary(FRUGAL_U_COS, &out[0], &t, 1, 0, 0);
    isa->unary(FRUGAL_U_SIN, &out[1], &t, 1, 0, 0);
    out[0] *= r, out[1] *= r;
}

static void random_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const float low = fr_attr_float(c, 2), span = fr_attr_float(c, 3);
    float *y = (float *)(void *)c->out[0]->data;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        uint32_t w[4];
        float v[4];
        fr_philox(w, (uint64_t)c->attrs[1], (uint64_t)i);
        for (int k = 0; k < 4; k++)
            v[k] = fr_unit(w[k]);
        if (c->attrs[0])
            normal_pair(c->isa, w[0], w[1], v), normal_pair(c->isa, w[2], w[3], v + 2);
        for (int64_t k = 0; k < 4 && 4 * i + k < c->out[0]->n; k++)
            y[4 * i + k] = v[k] * span + low;
    }
}

frugal_status fr_random_run(const fr_call *c) {
    fr_parallel(c, fr_ceil_div(c->out[0]->n, 4), 1024, random_range, c);
    return FRUGAL_OK;
}
