/* ops_cache.c - what a decoder keeps from token to token: TENSOR_SCATTER, ROTARY, LINEAR_ATTENTION, CAUSAL_CONV.
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
