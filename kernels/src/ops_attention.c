/* ops_attention.c - ATTENTION and ATTENTION_CACHE: softmax(scale q k^T, masked) v, for all heads, without ever writing the whole
 * score matrix.
 *
 * A tile is up to `rows` query rows that share one key/value head.  Its keys are cut to those that some row can see; the keys
 * around them would add exp(-inf) = 0 to every sum, so cutting changes nothing: in front only whole multiples of 16 are cut, so
 * that every key keeps its lane.  (A sum of -0 would become +0: the last step makes every zero +0.)  Tiles do not depend on the
 * thread count. */
#include "ops.h"

enum {
    KEYS = 512 /* packed at a time */,
    MAX_ROWS = 64,
    MIN_ROWS = 16,
    SCORES = 64 << 10 /* floats of a tile we like to stay below */
};

typedef struct attention {
    const fr_call *c;
    const float *q, *k, *v;
    float *y;
    const fr_tensor *mask;
    int64_t b, s, t, h, g, d, e;        /* batch, queries, keys, heads, key heads, sizes */
    int64_t q_row, k_row, v_row, y_row; /* floats from one token to the next */
    int64_t q_head, k_head, v_head, y_head, q_batch, k_batch, v_batch, y_batch; /* from one head, batch entry to the next */
    int64_t mask_step[4];               /* elements a step of b, h, s, t; 0 where broadcast */
    int64_t rows, tiles, parts, tp, ep; /* rows of a tile, tiles and tasks of one key head */
    float scale, softcap;
    int64_t offset;         /* query i stands at position i + offset ... */
    const int64_t *lengths; /* or, when there, at i + lengths[batch] - s, and no query sees keys from lengths[batch] on */
    const float *sinks;     /* one score a head that no key has, or NULL */
    int64_t limit;          /* no query sees keys from here on: t, or what a short mask covers */
    int64_t left, right;    /* the query at p sees keys p - left .. p + right; -1: no bound.  Causal: right = 0 */
    bool copy_v, short_mask;
} attention;

/* A tile's place: rows are queries i0.. of one head or, with one query, consecutive heads.  Its keys are first .. keys - 1. */
typedef struct tile {
    int64_t batch, head, i0, rows, first, keys;
    const float *q;
    int64_t q_row;
    float *y;
    int64_t y_row;
} tile;

typedef struct workspace {
    float *keys, *values, *scores;
} workspace;

/* ---- shapes ---- */

static frugal_status attention_shape(const fr_call *c, attention *a) {
    const fr_tensor *q = c->in[0], *k = c->in[1], *v = c->in[2], *y = c->out[0];
    const bool fused = c->attrs[5] != 0;
    *a = (attention){.c = c,
                     .mask = c->in[3],
                     .h = c->attrs[0],
                     .g = c->attrs[1],
                     .scale = fr_attr_float(c, 2),
                     .left = -1,
                     .right = c->attrs[3] ? 0 : -1,
                     .softcap = fr_attr_float(c, 4)};
    FR_SHAPE(c, a->h >= 1 && a->g >= 1 && a->h <= 1 << 20 && a->h % a->g == 0,
             "the heads are not a whole multiple of the key heads");
    FR_SHAPE(c, q->rank == 3 && y->rank == 3, "attention needs [batch, tokens, features]");
    FR_SHAPE(c, fused == (k == NULL) && fused == (v == NULL), "keys and values must be there unless fused");
    const int64_t heads = fused ? a->h + 2 * a->g : a->h;
    FR_SHAPE(c, q->dims[2] % heads == 0, "the features are not a whole number of heads");
    a->b = q->dims[0], a->s = q->dims[1], a->d = q->dims[2] / heads;
    a->t = fused ? a->s : k->rank == 3 ? k->dims[1] : -1;
    a->limit = a->t, a->offset = c->attrs[3] == 1 ? a->t - a->s : 0;
    a->e = fused ? a->d : v->rank == 3 ? v->dims[2] / a->g : -1;
    a->q_row = q->dims[2];
    a->k_row = fused ? a->q_row : a->g * a->d;
    a->v_row = fused ? a->q_row : a->g * a->e;
    a->y_row = a->h * a->e;
    a->q_head = a->k_head = a->d, a->v_head = a->y_head = a->e;
    a->q_batch = a->s * a->q_row, a->k_batch = a->t * a->k_row, a->v_batch = a->t * a->v_row, a->y_batch = a->s * a->y_row;
    FR_SHAPE(c, a->t >= 0 && a->e >= 0, "keys and values must have three axes");
    FR_SHAPE(c, y->dims[0] == a->b && y->dims[1] == a->s && y->dims[2] == a->h * a->e,
             "the output has another shape than the queries give");
    if (fused)
        return FRUGAL_OK;
    FR_SHAPE(c, k->dims[0] == a->b && k->dims[2] == a->k_row, "the keys have another shape than the queries");
    FR_SHAPE(c, v->dims[0] == a->b && v->dims[1] == a->t && v->dims[2] == a->v_row,
             "the values have another shape than the keys");
    return FRUGAL_OK;
}

/* One operand of ATTENTION_CACHE, [b, tokens, heads * size] or [b, heads, tokens, size]: tokens, size and the steps. */
static bool strides(const fr_tensor *x, int64_t heads, int64_t *tokens, int64_t *size, int64_t *batch, int64_t *head,
                    int64_t *row) {
    if (x->rank == 3) {
        *tokens = x->dims[1], *row = x->dims[2], *head = *size = x->dims[2] / heads;
        *batch = *tokens * *row;
        return x->dims[2] % heads == 0;
    }
    *tokens = x->dims[2], *row = *size = x->dims[3], *head = *tokens * *row, *batch = heads * *head;
    return x->rank == 4 && x->dims[1] == heads;
}

static frugal_status cache_shape(const fr_call *c, attention *a) {
    const fr_tensor *q = c->in[0], *k = c->in[1], *v = c->in[2], *lengths = c->in[4], *y = c->out[0];
    int64_t tokens, size;
    *a = (attention){.c = c,
                     .mask = c->in[3],
                     .h = c->attrs[0],
                     .g = c->attrs[1],
                     .scale = fr_attr_float(c, 2),
                     .softcap = fr_attr_float(c, 3),
                     .offset = fr_attr_dim(c, 4),
                     .left = c->attrs[5],
                     .right = c->attrs[6],
                     .short_mask = c->attrs[7] != 0};
    FR_SHAPE(c, a->left >= -1 && a->right >= -1, "a window is -1 or more");
    FR_SHAPE(c, a->h >= 1 && a->g >= 1 && a->h <= 1 << 20 && a->h % a->g == 0,
             "the heads are not a whole multiple of the key heads");
    FR_SHAPE(c, (q->rank == 3 || q->rank == 4) && strides(q, a->h, &a->s, &a->d, &a->q_batch, &a->q_head, &a->q_row),
             "the queries are not [batch, tokens, heads * size] or [batch, heads, tokens, size]");
    FR_SHAPE(c, (k->rank == 3 || k->rank == 4) && strides(k, a->g, &a->t, &size, &a->k_batch, &a->k_head, &a->k_row),
             "the keys are not [batch, tokens, heads * size] or [batch, heads, tokens, size]");
    FR_SHAPE(c, (v->rank == 3 || v->rank == 4) && strides(v, a->g, &tokens, &a->e, &a->v_batch, &a->v_head, &a->v_row),
             "the values are not [batch, tokens, heads * size] or [batch, heads, tokens, size]");
    FR_SHAPE(c, size == a->d && tokens == a->t, "queries, keys and values do not fit each other");
    FR_SHAPE(c, (y->rank == 3 || y->rank == 4) && strides(y, a->h, &tokens, &size, &a->y_batch, &a->y_head, &a->y_row),
             "the output is not [batch, tokens, heads * size] or [batch, heads, tokens, size]");
    a->b = q->dims[0], a->limit = a->t;
    FR_SHAPE(c, size == a->e && tokens == a->s && y->dims[0] == a->b && k->dims[0] == a->b && v->dims[0] == a->b,
             "the operands differ in batch, or the output has another shape than the queries give");
    if (c->in[5])
        FR_TRY(fr_vector(c, c->in[5], a->h, 5));
    if (lengths) {
        FR_DTYPE(c, lengths->dtype == FR_I64, "the lengths must be int64");
        FR_SHAPE(c, lengths->rank == 1 && lengths->dims[0] == a->b, "there must be one length for each batch entry");
    }
    return FRUGAL_OK;
}

static frugal_status shapes(const fr_call *c, attention *a, bool cache) {
    return cache ? cache_shape(c, a) : attention_shape(c, a);
}

static frugal_status mask_shape(const fr_call *c, attention *a) {
    const fr_tensor *m = a->mask;
    int64_t full[4] = {a->b, a->h, a->s, a->t};
    int64_t stride = 1;
    if (!m)
        return FRUGAL_OK;
    if (a->short_mask && m->rank > 0 && m->dims[m->rank - 1] < a->t)
        full[3] = a->limit = m->dims[m->rank - 1];
    FR_DTYPE(c, m->dtype == FR_BOOL || m->dtype == FR_F32, "a mask must be bool or float32");
    FR_SHAPE(c, m->rank <= 4, "a mask has at most four axes");
    for (int32_t x = m->rank - 1, at = 3; x >= 0; x--, at--) {
        if (m->dims[x] != 1 && m->dims[x] != full[at])
            return fr_fail(c, FRUGAL_BAD_SHAPE, 3, x, full[at], m->dims[x],
                           "the mask does not broadcast to [batch, heads, queries, keys]");
        a->mask_step[at] = m->dims[x] == 1 ? 0 : stride;
        stride *= m->dims[x];
    }
    return FRUGAL_OK;
}

/* After the shapes: how the work is cut. */
static void attention_cut(attention *a) {
    const int64_t shared = a->h / a->g; /* query heads of a key head */
    a->tp = fr_round_up(a->t, FR_PANEL), a->ep = fr_round_up(a->e, FR_PANEL);
    a->copy_v = a->e % FR_PANEL != 0;
    a->rows = fr_max(MIN_ROWS, fr_min(MAX_ROWS, SCORES / fr_max(1, a->tp)));
    a->tiles = a->s == 1 ? fr_ceil_div(shared, a->rows) : shared * fr_ceil_div(a->s, a->rows);
    const int64_t units = fr_max(1, a->b * a->g),
                  wanted = a->c->threads == 1 ? 1 : fr_ceil_div(4 * (int64_t)a->c->threads, units);
    a->parts = fr_max(1, fr_min(a->tiles, wanted));
}

static frugal_status check(const fr_call *c, bool cache) {
    attention a;
    FR_DTYPE(c, c->in[0]->dtype == FR_F32 && c->out[0]->dtype == FR_F32, "attention is of float32");
    FR_DTYPE(c, !c->in[1] || c->in[1]->dtype == FR_F32, "keys must be float32");
    FR_DTYPE(c, !c->in[2] || c->in[2]->dtype == FR_F32, "values must be float32");
    FR_TRY(shapes(c, &a, cache));
    return mask_shape(c, &a);
}

frugal_status fr_attention_check(const fr_call *c) { return check(c, false); }
frugal_status fr_attention_cache_check(const fr_call *c) { return check(c, true); }

/* Floats of a thread's workspace; each part starts at a multiple of 64 bytes. */
static int64_t keys_floats(const attention *a) { return fr_min(a->tp, KEYS) * a->d; }
static int64_t values_floats(const attention *a) { return a->copy_v ? a->t * a->ep : 0; }
static int64_t scores_floats(const attention *a) { return a->rows * a->tp; }

static void scratch(const fr_call *c, fr_scratch *s, bool cache) {
    attention a;
    if (c->out[0]->n == 0 || shapes(c, &a, cache) != FRUGAL_OK)
        return;
    attention_cut(&a);
    s->thread = 4 * (keys_floats(&a) + values_floats(&a) + scores_floats(&a));
}

void fr_attention_scratch(const fr_call *c, fr_scratch *s) { scratch(c, s, false); }
void fr_attention_cache_scratch(const fr_call *c, fr_scratch *s) { scratch(c, s, true); }

/* ---- what a query sees ---- */

static int64_t key_limit(const attention *a, int64_t batch) {
    return a->lengths ? fr_min(a->limit, a->lengths[batch]) : a->limit;
}

static int64_t position(const attention *a, int64_t batch, int64_t i) {
    return i + (a->lengths ? a->lengths[batch] - a->s : a->offset);
}

/* Query i sees keys first_key .. end_key - 1, masks apart. */
static int64_t end_key(const attention *a, int64_t batch, int64_t i) {
    const int64_t limit = key_limit(a, batch);
    return a->right < 0 ? limit : fr_max(0, fr_min(limit, position(a, batch, i) + a->right + 1));
}

static int64_t first_key(const attention *a, int64_t batch, int64_t i) {
    return a->left < 0 ? 0 : fr_max(0, position(a, batch, i) - a->left);
}

/* ---- masks ---- */

/* Where the keys end that all rows of the tile see, all of them and nothing else, or -1 when the mask has no such form.  That is
 * how padding looks, and it needs no pass over the scores. */
static int64_t visible_prefix(const attention *a, const tile *t) {
    const bool same = t->rows == 1 || (a->s == 1 ? a->mask_step[1] == 0 : a->mask_step[2] == 0);
    if (a->mask->dtype != FR_BOOL || !same)
        return -1;
    const uint8_t *m = a->mask->data + t->batch * a->mask_step[0] + t->head * a->mask_step[1] + t->i0 * a->mask_step[2];
    if (a->mask_step[3] == 0)
        return *m ? t->keys : 0;
    int64_t first = t->first, last = t->keys;
    while (first < t->keys && m[first])
        first++;
    while (last > first && !m[last - 1])
        last--;
    return last == first ? first : -1;
}

/* Masks the scores x of keys j0 .. j1 - 1. */
static void mask_row(const attention *a, float *x, int64_t batch, int64_t head, int64_t i, int64_t j0, int64_t j1) {
    const int64_t at = batch * a->mask_step[0] + head * a->mask_step[1] + i * a->mask_step[2], step = a->mask_step[3];
    if (a->mask->dtype == FR_BOOL) {
        const uint8_t *m = a->mask->data + at + j0 * step;
        for (int64_t j = 0; j < j1 - j0; j++)
            x[j] = m[j * step] ? x[j] : -__builtin_inff();
    } else {
        const float *m = (const float *)(const void *)a->mask->data + at + j0 * step;
        for (int64_t j = 0; j < j1 - j0; j++)
            x[j] += m[j * step];
    }
}

/* ---- one tile ---- */

static tile tile_at(const attention *a, int64_t batch, int64_t kv, int64_t i) {
    const int64_t shared = a->h / a->g, per_head = fr_ceil_div(a->s, a->rows);
    tile t = {.batch = batch};
    if (a->s == 1) {
        t.head = kv * shared + i * a->rows;
        t.rows = fr_min(a->rows, (kv + 1) * shared - t.head);
        t.q_row = a->q_head, t.y_row = a->y_head;
        t.keys = end_key(a, batch, 0);
    } else {
        t.head = kv * shared + i / per_head;
        t.i0 = i % per_head * a->rows;
        t.rows = fr_min(a->rows, a->s - t.i0);
        t.q_row = a->q_row, t.y_row = a->y_row;
        t.keys = end_key(a, batch, t.i0 + t.rows - 1);
    }
    t.first = fr_min(t.keys, first_key(a, batch, t.i0)) / FR_PANEL * FR_PANEL;
    t.q = a->q + batch * a->q_batch + t.i0 * a->q_row + t.head * a->q_head;
    t.y = a->y + batch * a->y_batch + t.i0 * a->y_row + t.head * a->y_head;
    return t;
}

static void tile_scores(const attention *a, const tile *t, const float *k, workspace *w, bool packed) {
    const fr_epilogue none = {.act = FRUGAL_U_COPY};
    const float *keys = packed ? w->keys + t->first * a->d : w->keys;
    for (int64_t j = t->first; j < t->keys; j += KEYS) {
        const int64_t n = fr_min(KEYS, t->keys - j);
        if (!packed)
            fr_pack_panels(w->keys, k + j * a->k_row, a->k_row, true, a->d, n);
        a->c->isa->gemm_f32(w->scores + (j - t->first), a->tp, t->q, t->q_row, keys, FR_PANEL, FR_PANEL * a->d, t->rows, n, a->d,
                            a->scale, &none);
    }
}

/* What a sink adds to the sum of exp(x - max). */
static float sink_weight(const attention *a, const float *x, int64_t n, int64_t head) {
    float top = -__builtin_inff();
    for (int64_t j = 0; j < n; j++)
        top = x[j] > top ? x[j] : top;
    float weight = a->sinks[head] - top;
    a->c->isa->unary(FRUGAL_U_EXP, &weight, &weight, 1, 0, 0);
    return top == -__builtin_inff() ? 0 : weight;
}

static void hide(float *x, int64_t n) {
    for (int64_t j = 0; j < n; j++)
        x[j] = -__builtin_inff();
}

/* Scores of row r become weights; returns their sum. */
static float tile_softmax(const attention *a, const tile *t, int64_t r, float *x, bool masked) {
    const frugal_isa *isa = a->c->isa;
    const int64_t i = a->s == 1 ? 0 : t->i0 + r, head = a->s == 1 ? t->head + r : t->head;
    const int64_t j1 = fr_max(t->first, fr_min(t->keys, end_key(a, t->batch, i)));
    const int64_t j0 = fr_min(j1, fr_max(t->first, first_key(a, t->batch, i)));
    float *seen = x + (j0 - t->first);
    if (a->softcap != 0) {
        isa->scale(seen, seen, j1 - j0, 1 / a->softcap);
        isa->unary(FRUGAL_U_TANH, seen, seen, j1 - j0, 0, 0);
        isa->scale(seen, seen, j1 - j0, a->softcap);
    }
    if (masked)
        mask_row(a, seen, t->batch, head, i, j0, j1);
    hide(x, j0 - t->first);
    hide(x + (j1 - t->first), t->keys - j1);
    const float more = a->sinks ? sink_weight(a, x, t->keys - t->first, head) : 0;
    return isa->softmax(x, t->keys - t->first) + more;
}

/* The tile's result, still to be divided by the sums. */
static void tile_values(const attention *a, const tile *t, const float *v, const workspace *w) {
    const fr_epilogue none = {.act = FRUGAL_U_COPY};
    const int64_t bk = a->copy_v ? FR_PANEL : a->v_row, bp = a->copy_v ? FR_PANEL * a->t : FR_PANEL;
    const float *values = a->copy_v ? w->values + t->first * FR_PANEL : v + t->first * a->v_row;
    a->c->isa->gemm_f32(t->y, t->y_row, w->scores, a->tp, values, bk, bp, t->rows, a->e, t->keys - t->first, 1.0f, &none);
}

static void divide_row(float *y, int64_t n, float sum) {
    const float by = sum == 0 ? 0 : 1 / sum;
    for (int64_t j = 0; j < n; j++)
        y[j] = sum == 0 ? 0 : y[j] * by + 0.0f;
}

static void run_tile(const attention *a, tile *t, const float *k, const float *v, workspace *w, bool packed) {
    float sums[MAX_ROWS];
    bool masked = a->mask != NULL;
    if (masked) {
        const int64_t prefix = visible_prefix(a, t);
        if (prefix >= 0)
            masked = false, t->keys = prefix;
    }
    if (t->keys <= t->first) {
        for (int64_t r = 0; r < t->rows; r++)
            memset(t->y + r * t->y_row, 0, (size_t)a->e * sizeof(float));
        return;
    }
    tile_scores(a, t, k, w, packed);
    for (int64_t r = 0; r < t->rows; r++)
        sums[r] = tile_softmax(a, t, r, w->scores + r * a->tp, masked);
    tile_values(a, t, v, w);
    for (int64_t r = 0; r < t->rows; r++)
        divide_row(t->y + r * t->y_row, a->e, sums[r]);
}

/* ---- all of it ---- */

/* Packs the values of n keys into panels that are t keys long. */
static void copy_values(const attention *a, float *dst, const float *v, int64_t n) {
    for (int64_t j = 0; j < a->e; j += FR_PANEL, dst += FR_PANEL * a->t)
        fr_pack_panels(dst, v + j, a->v_row, false, n, fr_min(FR_PANEL, a->e - j));
}

/* Task: some tiles of one key head of one batch entry; keys (when few) and values are packed once for all of them. */
static void attention_task(void *p, int64_t i, int32_t thread) {
    const attention *a = p;
    const int64_t unit = i / a->parts, part = i % a->parts, batch = unit / a->g, kv = unit % a->g;
    const int64_t first = a->tiles * part / a->parts, end = a->tiles * (part + 1) / a->parts, limit = key_limit(a, batch);
    const float *k = a->k + batch * a->k_batch + kv * a->k_head, *v = a->v + batch * a->v_batch + kv * a->v_head;
    workspace w;
    w.keys = (float *)(void *)fr_thread_scratch(a->c, thread);
    w.values = w.keys + keys_floats(a);
    w.scores = w.values + values_floats(a);
    const bool packed = a->t <= KEYS && end - first > 1;
    if (packed)
        fr_pack_panels(w.keys, k, a->k_row, true, a->d, limit);
    if (a->copy_v)
        copy_values(a, w.values, v, limit);
    for (int64_t x = first; x < end; x++) {
        tile t = tile_at(a, batch, kv, x);
        run_tile(a, &t, k, v, &w, packed);
    }
}

static frugal_status run(const fr_call *c, bool cache) {
    attention a;
    FR_TRY(shapes(c, &a, cache));
    FR_TRY(mask_shape(c, &a));
    attention_cut(&a);
    a.q = (const float *)(const void *)c->in[0]->data;
    a.k = c->in[1] ? (const float *)(const void *)c->in[1]->data : a.q + a.h * a.d;
    a.v = c->in[2] ? (const float *)(const void *)c->in[2]->data : a.q + (a.h + a.g) * a.d;
    a.y = (float *)(void *)c->out[0]->data;
    a.sinks = cache && c->in[5] ? (const float *)(const void *)c->in[5]->data : NULL;
    if (cache && c->in[4]) {
        a.lengths = (const int64_t *)(const void *)c->in[4]->data;
        for (int64_t i = 0; i < a.b; i++) {
            if (a.lengths[i] < 0 || a.lengths[i] > a.t)
                return fr_fail(c, FRUGAL_BAD_INPUT, 4, -1, a.t, a.lengths[i], "a length is negative or beyond the keys");
        }
    }
    fr_pool_run(c->pool, a.b * a.g * a.parts, attention_task, &a);
    return FRUGAL_OK;
}

frugal_status fr_attention_run(const fr_call *c) { return run(c, false); }
frugal_status fr_attention_cache_run(const fr_call *c) { return run(c, true); }

static int64_t operations(const fr_call *c, bool cache) {
    attention a;
    int64_t n;
    if (shapes(c, &a, cache) != FRUGAL_OK)
        return 0;
    if (__builtin_mul_overflow(a.b * a.s, a.h, &n) || __builtin_mul_overflow(n, a.t, &n) ||
        __builtin_mul_overflow(n, 2 * (a.d + a.e) + 1, &n))
        return INT64_MAX;
    return n;
}

int64_t fr_attention_operations(const fr_call *c) { return operations(c, false); }
int64_t fr_attention_cache_operations(const fr_call *c) { return operations(c, true); }
