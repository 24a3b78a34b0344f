/* ops_cache.c - what a decoder keeps from token to token: TENSOR_SCATTER, CACHE_APPEND, ROTARY, LINEAR_ATTENTION, CAUSAL_CONV.
 *
 * Plain C: every sum has one order, products are rounded before they are added, and loops run over outputs, so that compilers
 * vectorise them without changing a bit.  A cache whose output is bound to the memory of its input is updated in place. */
#include "ops.h"

static float *floats(const fr_tensor *t) { return t ? (float *)(void *)t->data : NULL; }
static const int64_t *longs(const fr_tensor *t) { return (const int64_t *)(const void *)t->data; }

static frugal_status all_float(const fr_call *c) {
    for (int32_t i = 0; i < c->n_in; i++)
        FR_DTYPE(c, !c->in[i] || c->in[i]->dtype == FR_F32, "an operand must be float32");
    for (int32_t i = 0; i < c->n_out; i++)
        FR_DTYPE(c, c->out[i]->dtype == FR_F32, "the outputs are float32");
    return FRUGAL_OK;
}

/* Operand pos must be float32 [b, s, n]. */
static frugal_status cube(const fr_call *c, const fr_tensor *x, int64_t b, int64_t s, int64_t n, int32_t pos) {
    const int64_t want[3] = {b, s, n};
    if (x->rank != 3)
        return fr_fail(c, FRUGAL_BAD_SHAPE, pos, -1, 3, x->rank, "an operand must have three axes");
    for (int32_t a = 0; a < 3; a++) {
        if (x->dims[a] != want[a])
            return fr_fail(c, FRUGAL_BAD_SHAPE, pos, a, want[a], x->dims[a], "an operand has another shape than expected");
    }
    return FRUGAL_OK;
}

/* ---- TENSOR_SCATTER ---- */

frugal_status fr_tensor_scatter_check(const fr_call *c) {
    const fr_tensor *past = c->in[0], *update = c->in[1], *at = c->in[2], *y = c->out[0];
    const int32_t axis = (int32_t)c->attrs[0];
    FR_SHAPE(c, axis >= 1 && axis < past->rank, "a cache is not written along this axis");
    FR_DTYPE(c, past->dtype == update->dtype && past->dtype == y->dtype, "the cache and its update differ in data type");
    FR_TRY(fr_same_shape(c, y, past, c->n_in));
    fr_tensor like = *past;
    FR_SHAPE(c, update->rank == past->rank && update->dims[axis] <= past->dims[axis], "the update does not fit into the cache");
    like.dims[axis] = update->dims[axis];
    FR_TRY(fr_same_shape(c, update, &like, 1));
    if (!at)
        return FRUGAL_OK;
    FR_DTYPE(c, at->dtype == FR_I64, "the places to write at must be int64");
    FR_SHAPE(c, at->rank == 1 && at->dims[0] == past->dims[0], "there must be one place for each batch entry");
    return FRUGAL_OK;
}

static void copy_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    (void)thread;
    memcpy(c->out[0]->data + begin, c->in[0]->data + begin, (size_t)(end - begin));
}

static void scatter_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const fr_tensor *past = c->in[0], *update = c->in[1];
    const int32_t axis = (int32_t)c->attrs[0];
    const int64_t n = past->dims[axis], u = update->dims[axis], inner = fr_product(past, 1, axis);
    const int64_t row = fr_product(past, axis + 1, past->rank) * fr_dtype_bytes(past->dtype);
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int64_t at = c->in[2] ? longs(c->in[2])[i / inner] % n : 0, straight = fr_min(u, n - at);
        const uint8_t *src = update->data + i * u * row;
        uint8_t *dst = c->out[0]->data + i * n * row;
        memcpy(dst + at * row, src, (size_t)(straight * row));
        memcpy(dst, src + straight * row, (size_t)((u - straight) * row)); /* circular: around the end */
    }
}

frugal_status fr_tensor_scatter_run(const fr_call *c) {
    const fr_tensor *past = c->in[0], *update = c->in[1], *at = c->in[2];
    const int32_t axis = (int32_t)c->attrs[0];
    const int64_t n = past->dims[axis], u = update->dims[axis];
    for (int64_t i = 0; at && i < past->dims[0]; i++) {
        const int64_t v = longs(at)[i], most = c->attrs[1] ? INT64_MAX : n - u;
        if (v < 0 || v > most)
            return fr_fail(c, FRUGAL_BAD_INPUT, 2, 0, most, v, "a place to write at lies outside the cache");
    }
    if (c->out[0]->data != past->data)
        fr_parallel(c, past->bytes, 1 << 18, copy_range, c);
    if (update->n > 0)
        fr_parallel(c, fr_product(past, 0, axis), fr_row_grain(update->n / fr_product(past, 0, axis)), scatter_range, c);
    return FRUGAL_OK;
}

/* ---- CACHE_APPEND ---- */

typedef struct append {
    const fr_call *c;
    int64_t b, s, m, g, d, half;      /* batch, new tokens, slots, heads, size, rotated pairs */
    int64_t x_row, x_head, row, head; /* elements from one token, head to the next: of x, of the cache */
    int64_t scale_row, scale_head;
    const int64_t *places, *ids;
} append;

/* [b, tokens, g * d] or [b, g, tokens, d]. */
static bool heads_of(const fr_tensor *x, int64_t g, int64_t *tokens, int64_t *d, int64_t *row, int64_t *head) {
    if (x->rank == 3) {
        *tokens = x->dims[1], *row = x->dims[2], *d = *head = x->dims[2] / g;
        return x->dims[2] % g == 0;
    }
    if (x->rank != 4)
        return false;
    *tokens = x->dims[2], *row = *d = x->dims[3], *head = *tokens * *d;
    return x->dims[1] == g;
}

static frugal_status append_shape(const fr_call *c, append *a) {
    const fr_tensor *past = c->in[0], *x = c->in[1];
    int64_t d;
    *a = (append){.c = c, .g = c->attrs[0], .b = x->dims[0]};
    FR_SHAPE(c, a->g >= 1 && a->g <= 1 << 20 && heads_of(past, a->g, &a->m, &a->d, &a->row, &a->head),
             "a cache is not [batch, tokens, heads * size] or [batch, heads, tokens, size]");
    FR_SHAPE(c, heads_of(x, a->g, &a->s, &d, &a->x_row, &a->x_head) && d == a->d && past->dims[0] == a->b && a->s <= a->m,
             "the new tokens do not fit into the cache");
    a->scale_row = past->rank == 3 ? a->g : 1, a->scale_head = past->rank == 3 ? 1 : a->m;
    a->half = c->in[4] && c->in[4]->rank >= 1 ? c->in[4]->dims[c->in[4]->rank - 1] : 0;
    FR_SHAPE(c, a->half <= a->d / 2, "the tables are wider than half a head");
    return FRUGAL_OK;
}

/* cos, sin and ids, as in ROTARY. */
static frugal_status tables_shape(const fr_call *c, const append *a) {
    const fr_tensor *cos = c->in[4], *sin = c->in[5], *ids = c->in[6];
    FR_SHAPE(c, (cos != NULL) == (sin != NULL) && (cos || !ids), "cosines and sines belong together");
    if (!cos)
        return FRUGAL_OK;
    FR_DTYPE(c, cos->dtype == FR_F32 && sin->dtype == FR_F32, "a rotary embedding is of float32");
    FR_TRY(fr_same_shape(c, sin, cos, 5));
    if (!ids)
        return cube(c, cos, a->b, a->s, a->half, 4);
    FR_SHAPE(c, cos->rank == 2, "with positions the tables are [positions, half of the rotated size]");
    FR_DTYPE(c, ids->dtype == FR_I64, "positions must be int64");
    FR_SHAPE(c, ids->rank == 2 && ids->dims[0] == a->b && ids->dims[1] == a->s, "positions must be [batch, tokens]");
    return FRUGAL_OK;
}

frugal_status fr_cache_append_check(const fr_call *c) {
    const fr_tensor *past = c->in[0], *places = c->in[2], *scale = c->in[3], *out = c->out[1];
    append a;
    FR_DTYPE(c, past->dtype == FR_F32 || past->dtype == FR_F16 || past->dtype == FR_I8, "a cache is float32, float16 or int8");
    FR_DTYPE(c, c->in[1]->dtype == FR_F32 && out->dtype == FR_F32 && c->out[0]->dtype == past->dtype,
             "new tokens and scales are float32, a cache keeps its type");
    FR_TRY(append_shape(c, &a));
    FR_TRY(tables_shape(c, &a));
    FR_TRY(fr_same_shape(c, c->out[0], past, c->n_in));
    FR_SHAPE(c, (scale != NULL) == (past->dtype == FR_I8), "an int8 cache needs scales, others must not have any");
    if (scale) {
        FR_DTYPE(c, scale->dtype == FR_F32, "the scales of a cache must be float32");
        FR_SHAPE(c,
                 scale->rank == 3 && scale->dims[0] == a.b && scale->dims[1] == (past->rank == 3 ? a.m : a.g) &&
                     scale->dims[2] == (past->rank == 3 ? a.g : a.m),
                 "there must be one scale for each head and token of the cache");
        FR_TRY(fr_same_shape(c, out, scale, c->n_in + 1));
    } else {
        FR_SHAPE(c, out->n == 0, "only an int8 cache has scales");
    }
    if (!places)
        return FRUGAL_OK;
    FR_DTYPE(c, places->dtype == FR_I64, "the places to write at must be int64");
    FR_SHAPE(c, places->rank == 1 && places->dims[0] == a.b, "there must be one place for each batch entry");
    return FRUGAL_OK;
}

void fr_cache_append_scratch(const fr_call *c, fr_scratch *s) {
    append a;
    if (append_shape(c, &a) == FRUGAL_OK) /* a rotated row, its codes and their sums */
        s->thread = fr_round_up(4 * a.d, 64) + fr_round_up(a.d, 64) + fr_ceil_div(a.d, FR_BLOCK) * 4;
}

/* fp32 -> fp16 as fr_double_to_half, with selects instead of branches so that compilers vectorise it. */
static void halve(uint16_t *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t u, sub;
        memcpy(&u, x + i, 4);
        const uint32_t b = u & 0x7fffffffu, normal = (b + 0xfffu + (b >> 13 & 1u) - 0x38000000u) >> 13;
        float small;
        memcpy(&small, &b, 4);
        small = small + 0.5f; /* leaves the bits of a subnormal half at the end of the fraction */
        memcpy(&sub, &small, 4);
        uint32_t h = b < 0x38800000u ? sub - 0x3f000000u : normal;
        h = b >= 0x477ff000u ? 0x7c00u : h;
        h = b > 0x7f800000u ? 0x7e00u : h;
        y[i] = (uint16_t)(h | (u >> 16 & 0x8000u));
    }
}

/* One head of one token: x, rotated, to slot `at` of the cache. */
static void append_row(const append *a, const float *x, int64_t batch, int64_t head, int64_t at, uint8_t *scratch) {
    const fr_call *c = a->c;
    const int64_t to = batch * a->m * a->g * a->d + head * a->head + at * a->row;
    if (c->in[0]->dtype == FR_F32) {
        memcpy(floats(c->out[0]) + to, x, (size_t)a->d * 4);
    } else if (c->in[0]->dtype == FR_F16) {
        halve((uint16_t *)(void *)c->out[0]->data + to, x, a->d);
    } else {
        int8_t *codes = (int8_t *)scratch;
        int32_t *sums = (int32_t *)(void *)(scratch + fr_round_up(a->d, 64));
        float *scale = floats(c->out[1]) + batch * a->m * a->g + head * a->scale_head + at * a->scale_row;
        c->isa->quantize(codes, scale, sums, x, a->d, 0);
        memcpy(c->out[0]->data + to, codes, (size_t)a->d);
    }
}

static void rotate(float *y, const float *x, const float *cos, const float *sin, int64_t half, int64_t gap, int64_t step);

static void append_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const append *a = p;
    const fr_call *c = a->c;
    uint8_t *scratch = fr_thread_scratch(c, thread);
    float *turned = (float *)(void *)scratch;
    for (int64_t i = begin; i < end; i++) {
        const int64_t token = i / a->g, head = i % a->g, batch = token / a->s;
        const int64_t at = ((a->places ? a->places[batch] : 0) + token % a->s) % a->m;
        const float *x = floats(c->in[1]) + batch * a->s * a->g * a->d + token % a->s * a->x_row + head * a->x_head;
        if (c->in[4]) {
            const int64_t row = (a->ids ? a->ids[token] : token) * a->half;
            rotate(turned, x, floats(c->in[4]) + row, floats(c->in[5]) + row, a->half, c->attrs[2] ? 1 : a->half,
                   c->attrs[2] ? 2 : 1);
            memcpy(turned + 2 * a->half, x + 2 * a->half, (size_t)(a->d - 2 * a->half) * 4);
            x = turned;
        }
        append_row(a, x, batch, head, at, scratch + fr_round_up(4 * a->d, 64));
    }
}

static void copy_scales(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    (void)thread;
    memcpy(c->out[1]->data + begin, c->in[3]->data + begin, (size_t)(end - begin));
}

frugal_status fr_cache_append_run(const fr_call *c) {
    append a;
    FR_TRY(append_shape(c, &a));
    a.places = c->in[2] ? longs(c->in[2]) : NULL, a.ids = c->in[6] ? longs(c->in[6]) : NULL;
    for (int64_t i = 0; a.places && i < a.b; i++) {
        const int64_t most = c->attrs[1] ? FRUGAL_MAX_DIM : a.m - a.s;
        if (a.places[i] < 0 || a.places[i] > most)
            return fr_fail(c, FRUGAL_BAD_INPUT, 2, 0, most, a.places[i], "a place to write at lies outside the cache");
    }
    for (int64_t i = 0; a.ids && i < c->in[6]->n; i++) {
        const int64_t n = c->in[4]->dims[0];
        if (a.ids[i] < 0 || a.ids[i] >= n)
            return fr_fail(c, FRUGAL_BAD_INPUT, 6, -1, n, a.ids[i], "a position lies outside the tables of the rotary embedding");
    }
    if (c->out[0]->data != c->in[0]->data)
        fr_parallel(c, c->in[0]->bytes, 1 << 18, copy_range, c);
    if (c->in[3] && c->out[1]->data != c->in[3]->data)
        fr_parallel(c, c->in[3]->bytes, 1 << 18, copy_scales, c);
    if (c->in[1]->n > 0)
        fr_parallel(c, a.b * a.s * a.g, fr_row_grain(4 * a.d), append_range, &a);
    return FRUGAL_OK;
}

/* ---- ROTARY ---- */

typedef struct rotary {
    int64_t b, s, h, d, half;
    bool heads_first;
} rotary;

static frugal_status rotary_shape(const fr_call *c, rotary *r) {
    const fr_tensor *x = c->in[0], *cos = c->in[1];
    FR_SHAPE(c, x->rank == 3 || x->rank == 4, "a rotary embedding wants [b, s, h * d] or [b, h, s, d]");
    *r = (rotary){.b = x->dims[0], .heads_first = x->rank == 4, .h = x->rank == 4 ? x->dims[1] : c->attrs[0]};
    FR_SHAPE(c, x->rank == 4 || (r->h >= 1 && x->dims[2] % r->h == 0), "the features are not a whole number of heads");
    r->s = x->rank == 4 ? x->dims[2] : x->dims[1];
    r->d = x->rank == 4 ? x->dims[3] : x->dims[2] / r->h;
    FR_SHAPE(c, cos->rank >= 1, "the table of cosines is a scalar");
    r->half = cos->dims[cos->rank - 1];
    FR_SHAPE(c, r->half <= r->d / 2, "the tables are wider than half a head");
    return FRUGAL_OK;
}

frugal_status fr_rotary_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *cos = c->in[1], *sin = c->in[2], *ids = c->in[3], *y = c->out[0];
    rotary r;
    FR_DTYPE(c, x->dtype == FR_F32 && cos->dtype == FR_F32 && sin->dtype == FR_F32 && y->dtype == FR_F32,
             "a rotary embedding is of float32");
    FR_TRY(rotary_shape(c, &r));
    FR_TRY(fr_same_shape(c, y, x, c->n_in));
    FR_TRY(fr_same_shape(c, sin, cos, 2));
    if (!ids)
        return cube(c, cos, r.b, r.s, r.half, 1);
    FR_SHAPE(c, cos->rank == 2, "with positions the tables are [positions, half of the rotated size]");
    FR_DTYPE(c, ids->dtype == FR_I64, "positions must be int64");
    FR_SHAPE(c, ids->rank == 2 && ids->dims[0] == r.b && ids->dims[1] == r.s, "positions must be [batch, tokens]");
    return FRUGAL_OK;
}

static void rotate(float *y, const float *x, const float *cos, const float *sin, int64_t half, int64_t gap, int64_t step) {
    for (int64_t i = 0; i < half; i++) {
        const float a = x[i * step], b = x[i * step + gap];
        y[i * step] = cos[i] * a - sin[i] * b;
        y[i * step + gap] = sin[i] * a + cos[i] * b;
    }
}

static void rotary_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const int64_t *ids = c->in[3] ? longs(c->in[3]) : NULL;
    rotary r;
    (void)thread;
    if (rotary_shape(c, &r) != FRUGAL_OK)
        return;
    for (int64_t i = begin; i < end; i++) {
        const int64_t token = r.heads_first ? i / (r.h * r.s) * r.s + i % r.s : i / r.h;
        const int64_t at = (ids ? ids[token] : token) * r.half;
        const float *x = floats(c->in[0]) + i * r.d, *cos = floats(c->in[1]) + at, *sin = floats(c->in[2]) + at;
        float *y = floats(c->out[0]) + i * r.d;
        if (c->attrs[1])
            rotate(y, x, cos, sin, r.half, 1, 2);
        else
            rotate(y, x, cos, sin, r.half, r.half, 1);
        memcpy(y + 2 * r.half, x + 2 * r.half, (size_t)(r.d - 2 * r.half) * sizeof(float));
    }
}

frugal_status fr_rotary_run(const fr_call *c) {
    rotary r;
    FR_TRY(rotary_shape(c, &r));
    for (int64_t i = 0; c->in[3] && i < c->in[3]->n; i++) {
        const int64_t v = longs(c->in[3])[i], n = c->in[1]->dims[0];
        if (v < 0 || v >= n)
            return fr_fail(c, FRUGAL_BAD_INPUT, 3, -1, n, v, "a position lies outside the tables of the rotary embedding");
    }
    fr_parallel(c, r.b * r.h * r.s, fr_row_grain(r.d), rotary_range, c);
    return FRUGAL_OK;
}

/* ---- LINEAR_ATTENTION ---- */

enum { COLUMNS = 64 }; /* columns of the state a task: dk rows of them stay in the first-level cache */

typedef struct recurrence {
    const fr_call *c;
    const float *q, *k, *v, *decay, *beta;
    float *state, *y;
    int64_t b, t, h, g, dk, dv, decays, betas, parts; /* decays: 1 or dk a head; betas: 1 or g a token */
    float scale;
} recurrence;

static frugal_status recurrence_shape(const fr_call *c, recurrence *r) {
    const fr_tensor *q = c->in[0], *v = c->in[2], *decay = c->in[4], *beta = c->in[5];
    *r = (recurrence){.c = c, .h = c->attrs[0], .g = c->attrs[1], .scale = fr_attr_float(c, 2)};
    FR_SHAPE(c, r->h >= 1 && r->g >= 1 && r->h <= 1 << 20 && r->h % r->g == 0,
             "the heads are not a whole multiple of the key heads");
    FR_SHAPE(c, q->rank == 3 && v->rank == 3 && q->dims[2] % r->h == 0 && v->dims[2] % r->g == 0,
             "queries and values are not [batch, tokens, heads * size]");
    r->b = q->dims[0], r->t = q->dims[1], r->dk = q->dims[2] / r->h, r->dv = v->dims[2] / r->g;
    FR_SHAPE(c, r->dk >= 1 && r->dv >= 1, "a head of the linear attention is empty");
    r->decays = decay && decay->rank == 3 && decay->dims[2] == r->g ? 1 : r->dk;
    r->betas = beta && beta->rank == 3 && beta->dims[2] == 1 ? 1 : r->g;
    r->parts = fr_ceil_div(r->dv, COLUMNS);
    return FRUGAL_OK;
}

static frugal_status state_shape(const fr_call *c, const recurrence *r, const fr_tensor *x, int32_t pos) {
    if (x->rank != 4 || x->dims[0] != r->b || x->dims[1] != r->g || x->dims[2] != r->dk || x->dims[3] != r->dv)
        return fr_fail(c, FRUGAL_BAD_SHAPE, pos, -1, 0, 0, "a state is not [batch, key heads, key size, value size]");
    return FRUGAL_OK;
}

frugal_status fr_linear_attention_check(const fr_call *c) {
    recurrence r;
    FR_TRY(all_float(c));
    FR_TRY(recurrence_shape(c, &r));
    FR_TRY(cube(c, c->in[1], r.b, r.t, r.g * r.dk, 1));
    FR_TRY(cube(c, c->in[2], r.b, r.t, r.g * r.dv, 2));
    if (c->in[3])
        FR_TRY(state_shape(c, &r, c->in[3], 3));
    if (c->in[4])
        FR_TRY(cube(c, c->in[4], r.b, r.t, r.g * r.decays, 4));
    if (c->in[5])
        FR_TRY(cube(c, c->in[5], r.b, r.t, r.betas, 5));
    FR_TRY(cube(c, c->out[0], r.b, r.t, r.h * r.dv, c->n_in));
    return state_shape(c, &r, c->out[1], c->n_in + 1);
}

void fr_linear_attention_scratch(const fr_call *c, fr_scratch *s) {
    recurrence r;
    if (recurrence_shape(c, &r) == FRUGAL_OK)
        s->thread = 4 * r.dk;
}

/* The state's columns shrink by exp(decay). */
static void forget(const recurrence *r, float *state, const float *decay, float *factor, int64_t n) {
    r->c->isa->unary(FRUGAL_U_EXP, factor, decay, r->decays, 0, 0);
    for (int64_t d = 0; d < r->dk; d++) {
        const float f = factor[r->decays == 1 ? 0 : d];
        float *row = state + d * r->dv;
        for (int64_t m = 0; m < n; m++)
            row[m] *= f;
    }
}

/* out[m] = sum over d, ascending, of x[d] state[d][m]. */
static void read_state(const recurrence *r, float *out, const float *x, const float *state, int64_t n) {
    for (int64_t m = 0; m < n; m++)
        out[m] = 0;
    for (int64_t d = 0; d < r->dk; d++) {
        const float *row = state + d * r->dv;
        for (int64_t m = 0; m < n; m++)
            out[m] += x[d] * row[m];
    }
}

/* One token of n columns of one key head. */
static void token(const recurrence *r, int64_t batch, int64_t t, int64_t kv, int64_t m0, int64_t n, float *factor) {
    const int64_t at = batch * r->t + t, shared = r->h / r->g;
    const float *k = r->k + (at * r->g + kv) * r->dk, *v = r->v + (at * r->g + kv) * r->dv + m0;
    float *state = r->state + (batch * r->g + kv) * r->dk * r->dv + m0, wrote[COLUMNS], got[COLUMNS];
    if (r->decay)
        forget(r, state, r->decay + (at * r->g + kv) * r->decays, factor, n);
    if (r->beta) {
        const float beta = r->beta[at * r->betas + (r->betas == 1 ? 0 : kv)];
        read_state(r, got, k, state, n);
        for (int64_t m = 0; m < n; m++)
            wrote[m] = beta * (v[m] - got[m]);
        v = wrote;
    }
    for (int64_t d = 0; d < r->dk; d++) {
        float *row = state + d * r->dv;
        for (int64_t m = 0; m < n; m++)
            row[m] += k[d] * v[m];
    }
    for (int64_t head = kv * shared; head < (kv + 1) * shared; head++) {
        float *y = r->y + (at * r->h + head) * r->dv + m0;
        read_state(r, y, r->q + (at * r->h + head) * r->dk, state, n);
        for (int64_t m = 0; m < n; m++)
            y[m] *= r->scale;
    }
}

static void recurrence_task(void *p, int64_t i, int32_t thread) {
    const recurrence *r = p;
    const int64_t unit = i / r->parts, m0 = i % r->parts * COLUMNS, n = fr_min(COLUMNS, r->dv - m0);
    float *factor = (float *)(void *)fr_thread_scratch(r->c, thread);
    for (int64_t t = 0; t < r->t; t++)
        token(r, unit / r->g, t, unit % r->g, m0, n, factor);
}

frugal_status fr_linear_attention_run(const fr_call *c) {
    recurrence r;
    FR_TRY(recurrence_shape(c, &r));
    r.q = floats(c->in[0]), r.k = floats(c->in[1]), r.v = floats(c->in[2]), r.decay = floats(c->in[4]), r.beta = floats(c->in[5]);
    r.y = floats(c->out[0]), r.state = floats(c->out[1]);
    if (!c->in[3])
        memset(r.state, 0, (size_t)c->out[1]->bytes);
    else if (c->in[3]->data != c->out[1]->data)
        memcpy(r.state, c->in[3]->data, (size_t)c->out[1]->bytes);
    fr_pool_run(c->pool, r.b * r.g * r.parts, recurrence_task, &r);
    return FRUGAL_OK;
}

int64_t fr_linear_attention_operations(const fr_call *c) {
    recurrence r;
    int64_t n;
    if (recurrence_shape(c, &r) != FRUGAL_OK)
        return 0;
    if (__builtin_mul_overflow(c->out[0]->n, r.dk, &n) || __builtin_mul_overflow(n, INT64_C(6), &n))
        return INT64_MAX;
    return n;
}

/* ---- CAUSAL_CONV ---- */

frugal_status fr_causal_conv_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *w = c->in[1];
    FR_TRY(all_float(c));
    FR_SHAPE(c, x->rank == 3, "a causal convolution wants [batch, channels, length]");
    FR_SHAPE(c, w->rank == 2 && w->dims[0] == x->dims[1] && w->dims[1] >= 1, "its weights are not [channels, taps]");
    if (c->in[2])
        FR_TRY(fr_vector(c, c->in[2], x->dims[1], 2));
    if (c->in[3])
        FR_TRY(cube(c, c->in[3], x->dims[0], x->dims[1], w->dims[1] - 1, 3));
    FR_TRY(fr_same_shape(c, c->out[0], x, c->n_in));
    FR_TRY(cube(c, c->out[1], x->dims[0], x->dims[1], w->dims[1] - 1, c->n_in + 1));
    FR_DTYPE(c, c->attrs[0] == FRUGAL_U_COPY || c->attrs[0] == FRUGAL_U_SILU, "a causal convolution ends in nothing or silu");
    return FRUGAL_OK;
}

/* y[i] += w * x[i - back], where what lies before x is the end of past (n elements; NULL: zeros). */
static void add_tap(float *y, const float *x, int64_t len, const float *past, int64_t n, float w, int64_t back) {
    const int64_t early = fr_min(back, len);
    for (int64_t i = 0; i < early; i++)
        y[i] += w * (past ? past[n - back + i] : 0.0f);
    for (int64_t i = early; i < len; i++)
        y[i] += w * x[i - back];
}

/* The last n values of past and x; state may be past. */
static void keep_last(float *state, const float *past, const float *x, int64_t len, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const int64_t from = len + i;
        state[i] = from >= n ? x[from - n] : past ? past[from] : 0.0f;
    }
}

static void conv_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const int64_t channels = c->in[0]->dims[1], len = c->in[0]->dims[2], taps = c->in[1]->dims[1], n = taps - 1;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const float *x = floats(c->in[0]) + i * len, *w = floats(c->in[1]) + i % channels * taps;
        const float *past = c->in[3] ? floats(c->in[3]) + i * n : NULL;
        const float bias = c->in[2] ? floats(c->in[2])[i % channels] : 0.0f;
        float *y = floats(c->out[0]) + i * len;
        for (int64_t j = 0; j < len; j++)
            y[j] = 0;
        for (int64_t j = 0; j < taps; j++)
            add_tap(y, x, len, past, n, w[j], n - j);
        for (int64_t j = 0; j < len; j++)
            y[j] += bias;
        if (c->attrs[0] == FRUGAL_U_SILU)
            c->isa->unary(FRUGAL_U_SILU, y, y, len, 0, 0);
        keep_last(floats(c->out[1]) + i * n, past, x, len, n);
    }
}

frugal_status fr_causal_conv_run(const fr_call *c) {
    const fr_tensor *x = c->in[0];
    fr_parallel(c, x->dims[0] * x->dims[1], fr_row_grain((x->dims[2] + 1) * c->in[1]->dims[1]), conv_range, c);
    return FRUGAL_OK;
}

int64_t fr_causal_conv_operations(const fr_call *c) {
    int64_t n;
    return __builtin_mul_overflow(c->out[0]->n, 2 * c->in[1]->dims[1], &n) ? INT64_MAX : n;
}
