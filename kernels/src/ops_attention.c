/* ops_attention.c - ATTENTION, ATTENTION_CACHE and ATTENTION_KEPT:
 * softmax(scale q k^T, masked) v, for all heads, without ever writing the whole
 * score matrix.
 *
 * Keys go in blocks of 256, aligned to the first key.  A block gives a row its
 * maximum m, the sum l of exp(score - m) and the weighted sum o of the values;
 * the blocks are merged one after another, ascending (merge, below).  A tile is
 * up to 64 query rows that share one key head.  Keys that no row of a tile can
 * see are cut off: they would add exp(-inf) = 0 to every sum, so cutting
 * changes nothing; in front only whole multiples of 16 are cut, so that every
 * key keeps its lane.  (A sum of -0 would become +0: the last step makes every
 * zero +0.)
 *
 * Work is cut into tiles, and where these are few into blocks too: since blocks
 * are merged in one order, neither changes a bit.
 */
#include "ops.h"

enum {
    BLOCK = 256,    /* keys; FR_MAX of pv8 is 512 */
    MAX_ROWS = 64,  /* of a tile */
    MAX_TILES = 4,  /* of a task: they share the packed keys and values of a block */
    FEW_ROWS = 8,   /* up to here int8 keys are read in place instead of being packed */
    SPLIT = 1 << 20 /* floats of the results of all blocks that we like to stay below */
};

typedef struct attention {
    const fr_call *c;
    const float *q;
    const uint8_t *k, *v;
    float *y;
    const fr_tensor *mask;
    int dtype, size;                    /* of keys and values, and its bytes */
    int64_t b, s, t, h, g, d, e;        /* batch, queries, keys, heads, key heads, sizes */
    int64_t q_row, k_row, v_row, y_row; /* elements from one token to the next */
    int64_t q_head, k_head, v_head, y_head, q_batch, k_batch, v_batch, y_batch; /* from one head, batch entry to the next */
    int64_t mask_step[4];                    /* elements a step of b, h, s, t; 0 where broadcast */
    const float *k_scale, *v_scale, *slopes; /* int8: one a head and token;  ALiBi: one a head, or NULL */
    int64_t scale_row, scale_head;
    float scale, softcap;
    int64_t offset;         /* query i stands at position i + offset ... */
    const int64_t *lengths; /* or, when there, at i + lengths[batch] - s, and no
                               query sees keys from lengths[batch] on */
    const float *sinks;     /* one score a head that no key has, or NULL */
    int64_t limit;          /* no query sees keys from here on: t, or what a short mask
                               covers */
    int64_t left, right;    /* the query at p sees keys p - left .. p + right; -1: no
                               bound.  Causal: right = 0 */
    bool short_mask, ring;  /* ring: position p lies in slot p mod t */
    /* How the work is cut. */
    int64_t heads, count, tiles; /* heads and queries of a tile; tiles of one key head */
    int64_t each, chunks;        /* tiles of a task, tasks of one key head */
    int64_t blocks;              /* of all keys */
    bool split, direct, copy_v;  /* tasks are blocks too;  int8 keys are read in
                                    place;  values are copied */
    int64_t ld, ep, kp;          /* floats of a row of scores, e rounded up to 16, bytes of
                                    a quantized query */
    float *partial;              /* split: of every tile and block m[rows], l[rows], o[rows][e] */
} attention;

/* A tile's place: `count` queries from i0 on of `heads` heads from `head` on,
 * row r being query r mod count of head r / count. Its keys are first .. keys
 * - 1. */
typedef struct tile {
    int64_t batch, head, heads, i0, count, rows, first, keys;
    int64_t low, high; /* keys that a mask in the form of padding leaves visible */
    bool masked;       /* by a mask of another form */
    const float *q;    /* float32 */
    int64_t q_row;
    fr_act8 a8; /* int8 */
} tile;

/* Of the rows of a tile, over some blocks of keys: the maximum of the scores,
 * the sum of exp(score - m), and the weighted sum of the values, rows ld apart.
 */
typedef struct result {
    float *m, *l, *o;
    int64_t ld;
} result;

/* Of one thread. */
typedef struct workspace {
    float *keys, *values, *scores, *k_scale, *v_scale;
    int16_t *weights;
    float *q, *o, *state; /* each of the task's tiles: queries; one block's
                             result; m[rows], l[rows], o[rows][e] */
    uint8_t *gemm;
} workspace;

/* ---- shapes ---- */

static frugal_status attention_shape(const fr_call *c, attention *a) {
    const fr_tensor *q = c->in[0], *k = c->in[1], *v = c->in[2], *y = c->out[0];
    const bool fused = c->attrs[5] != 0;
    *a = (attention){.c = c,
                     .mask = c->in[3],
                     .dtype = FR_F32,
                     .size = 4,
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

/* One operand of ATTENTION_CACHE or ATTENTION_KEPT, [b, tokens, heads * size]
 * or [b, heads, tokens, size]: tokens, size and the steps. */
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
                     .dtype = k->dtype,
                     .size = (int)fr_dtype_bytes(k->dtype),
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
             "the queries are not [batch, tokens, heads * size] or [batch, heads, "
             "tokens, size]");
    FR_SHAPE(c, (k->rank == 3 || k->rank == 4) && strides(k, a->g, &a->t, &size, &a->k_batch, &a->k_head, &a->k_row),
             "the keys are not [batch, tokens, heads * size] or [batch, heads, "
             "tokens, size]");
    FR_SHAPE(c, (v->rank == 3 || v->rank == 4) && strides(v, a->g, &tokens, &a->e, &a->v_batch, &a->v_head, &a->v_row),
             "the values are not [batch, tokens, heads * size] or [batch, heads, "
             "tokens, size]");
    FR_SHAPE(c, size == a->d && tokens == a->t, "queries, keys and values do not fit each other");
    FR_SHAPE(c, (y->rank == 3 || y->rank == 4) && strides(y, a->h, &tokens, &size, &a->y_batch, &a->y_head, &a->y_row),
             "the output is not [batch, tokens, heads * size] or [batch, heads, "
             "tokens, size]");
    a->b = q->dims[0], a->limit = a->t;
    FR_SHAPE(c, size == a->e && tokens == a->s && y->dims[0] == a->b && k->dims[0] == a->b && v->dims[0] == a->b,
             "the operands differ in batch, or the output has another shape than "
             "the queries give");
    if (c->in[5])
        FR_TRY(fr_vector(c, c->in[5], a->h, 5));
    if (lengths) {
        FR_DTYPE(c, lengths->dtype == FR_I64, "the lengths must be int64");
        FR_SHAPE(c, lengths->rank == 1 && lengths->dims[0] == a->b, "there must be one length for each batch entry");
    }
    return FRUGAL_OK;
}

/* The scales of int8 keys or values: [b, t, g] where these have three axes,
 * else [b, g, t]. */
static frugal_status scale_shape(const fr_call *c, const attention *a, const fr_tensor *x, int rank, int32_t pos) {
    if ((x != NULL) != (a->dtype == FR_I8))
        return fr_fail(c, FRUGAL_BAD_SHAPE, pos, -1, 0, 0, "int8 keys and values need scales, others must not have any");
    if (!x)
        return FRUGAL_OK;
    FR_DTYPE(c, x->dtype == FR_F32, "the scales of keys and values must be float32");
    FR_SHAPE(c,
             x->rank == 3 && x->dims[0] == a->b && x->dims[1] == (rank == 3 ? a->t : a->g) &&
                 x->dims[2] == (rank == 3 ? a->g : a->t),
             "there must be one scale for each head and token of the cache");
    return FRUGAL_OK;
}

static frugal_status kept_shape(const fr_call *c, attention *a) {
    const fr_tensor *k = c->in[1], *v = c->in[2];
    FR_TRY(cache_shape(c, a));
    a->ring = c->attrs[8] != 0;
    FR_SHAPE(c, k->rank == v->rank, "keys and values have another number of axes");
    FR_SHAPE(c, a->dtype != FR_I8 || a->d <= FR_MAX_K, "the heads are too large for int8");
    FR_SHAPE(c, !a->ring || (c->in[4] && !a->mask && a->t > 0), "a ring needs lengths and must not have a mask");
    FR_TRY(scale_shape(c, a, c->in[6], k->rank, 6));
    FR_TRY(scale_shape(c, a, c->in[7], v->rank, 7));
    a->scale_row = k->rank == 3 ? a->g : 1, a->scale_head = k->rank == 3 ? 1 : a->t;
    return c->in[8] ? fr_vector(c, c->in[8], a->h, 8) : FRUGAL_OK;
}

enum form { WHOLE, CACHE, KEPT };
static frugal_status shapes(const fr_call *c, attention *a, enum form form) {
    return form == WHOLE ? attention_shape(c, a) : form == CACHE ? cache_shape(c, a) : kept_shape(c, a);
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
    const int64_t shared = a->h / a->g, threads = a->c->threads, units = fr_max(1, a->b * a->g);
    a->count = fr_max(1, fr_min(a->s, MAX_ROWS));
    a->heads = fr_min(shared, MAX_ROWS / a->count);
    a->tiles = fr_ceil_div(shared, a->heads) * fr_ceil_div(a->s, a->count);
    a->blocks = fr_ceil_div(a->t, BLOCK);
    const int64_t wanted = threads == 1 ? 1 : fr_ceil_div(4 * threads, units), tasks = fr_min(wanted, fr_max(1, a->tiles));
    a->each = fr_max(1, fr_min(MAX_TILES, a->tiles / tasks));
    a->chunks = fr_ceil_div(a->tiles, a->each);
    a->split = false;
    if (threads > 1 && units * a->tiles < 4 * threads && a->blocks > 1 && a->e < SPLIT &&
        units * a->tiles * a->heads * a->count * a->blocks < SPLIT / (a->e + 2))
        a->split = true, a->each = 1, a->chunks = a->tiles;
    a->ld = fr_min(BLOCK, fr_round_up(a->t, FR_PANEL)), a->ep = fr_round_up(a->e, FR_PANEL);
    a->direct = a->heads * a->count <= FEW_ROWS || a->d % FR_BLOCK != 0;
    a->kp = fr_round_up(a->d, a->direct ? 64 : FR_BLOCK);
    a->copy_v = a->dtype == FR_F16 || (a->dtype == FR_F32 && (a->e % FR_PANEL != 0));
}

/* Floats of one tile's queries, and of one tile's or block's result. */
static int64_t query_floats(const attention *a) {
    const int64_t rows = a->heads * a->count;
    return a->dtype == FR_I8 ? fr_round_up(rows * (a->kp / 4 + 1 + a->kp / FR_BLOCK), 16) : fr_round_up(rows * a->d, 16);
}
static int64_t result_floats(const attention *a) { return fr_round_up(a->heads * a->count * (a->e + 2), 16); }

/* Bytes of a thread's workspace; each part starts at a multiple of 64 bytes. */
static int64_t lay_out(const attention *a, uint8_t *mem, workspace *w) {
    const int64_t n = a->ld, rows = a->heads * a->count;
    const bool i8 = a->dtype == FR_I8;
    int64_t at = 0;
#define PART(field, bytes)                                                                                                       \
    do {                                                                                                                         \
        w->field = mem ? (void *)(mem + at) : NULL;                                                                              \
        at += fr_round_up(bytes, 64);                                                                                            \
    } while (0)
    PART(keys, i8 ? (a->direct ? 0 : n * a->kp) : 4 * n * a->d);
    PART(values, a->copy_v ? 4 * n * a->ep : 0);
    PART(scores, 4 * n * rows);
    PART(weights, i8 ? 2 * n * rows : 0);
    PART(k_scale, i8 ? 4 * n : 0);
    PART(v_scale, i8 ? 4 * n : 0);
    PART(q, 4 * a->each * query_floats(a));
    PART(o, 4 * result_floats(a));
    PART(state, 4 * a->each * result_floats(a));
    PART(gemm, i8 && !a->direct ? (int64_t)a->c->isa->scratch_bytes(rows, a->d) : 0);
#undef PART
    return at;
}

static frugal_status check(const fr_call *c, enum form form) {
    attention a;
    const int k = c->in[1] ? c->in[1]->dtype : FR_F32, v = c->in[2] ? c->in[2]->dtype : FR_F32;
    FR_DTYPE(c, c->in[0]->dtype == FR_F32 && c->out[0]->dtype == FR_F32, "attention is of float32");
    FR_DTYPE(c, k == v && (k == FR_F32 || (form == KEPT && (k == FR_F16 || k == FR_I8))),
             "keys and values must be float32, in a cache also both float16 or int8");
    FR_TRY(shapes(c, &a, form));
    return mask_shape(c, &a);
}

frugal_status fr_attention_check(const fr_call *c) { return check(c, WHOLE); }
frugal_status fr_attention_cache_check(const fr_call *c) { return check(c, CACHE); }
frugal_status fr_attention_kept_check(const fr_call *c) { return check(c, KEPT); }

static void scratch(const fr_call *c, fr_scratch *s, enum form form) {
    attention a;
    workspace w;
    if (c->out[0]->n == 0 || shapes(c, &a, form) != FRUGAL_OK)
        return;
    attention_cut(&a);
    s->thread = lay_out(&a, NULL, &w);
    s->shared = a.split ? 4 * a.b * a.g * a.tiles * a.blocks * result_floats(&a) : 0;
}

void fr_attention_scratch(const fr_call *c, fr_scratch *s) { scratch(c, s, WHOLE); }
void fr_attention_cache_scratch(const fr_call *c, fr_scratch *s) { scratch(c, s, CACHE); }
void fr_attention_kept_scratch(const fr_call *c, fr_scratch *s) { scratch(c, s, KEPT); }

/* ---- what a query sees ---- */

static int64_t key_limit(const attention *a, int64_t batch) {
    return a->lengths ? fr_min(a->limit, a->lengths[batch]) : a->limit;
}

static int64_t position(const attention *a, int64_t batch, int64_t i) {
    return i + (a->lengths ? a->lengths[batch] - a->s : a->offset);
}

/* Query i sees the positions first_key .. end_key - 1, masks apart. */
static int64_t end_key(const attention *a, int64_t batch, int64_t i) {
    const int64_t limit = a->ring ? a->lengths[batch] : key_limit(a, batch);
    return a->right < 0 ? limit : fr_max(0, fr_min(limit, position(a, batch, i) + a->right + 1));
}

static int64_t first_key(const attention *a, int64_t batch, int64_t i) {
    const int64_t kept = a->ring ? fr_max(0, a->lengths[batch] - a->t) : 0;
    return a->left < 0 ? kept : fr_max(kept, position(a, batch, i) - a->left);
}

static tile tile_at(const attention *a, int64_t batch, int64_t kv, int64_t i) {
    const int64_t shared = a->h / a->g, cuts = fr_ceil_div(a->s, a->count);
    tile t = {.batch = batch, .head = kv * shared + i / cuts * a->heads, .i0 = i % cuts * a->count, .high = INT64_MAX};
    t.heads = fr_min(a->heads, (kv + 1) * shared - t.head);
    t.count = fr_min(a->count, a->s - t.i0);
    t.rows = t.heads * t.count;
    t.keys = end_key(a, batch, t.i0 + t.count - 1);
    t.first = fr_min(t.keys, first_key(a, batch, t.i0));
    if (a->ring)
        t.first = 0, t.keys = fr_min(a->t, a->lengths[batch]);
    return t;
}

/* ---- masks ---- */

/* Notes which keys the mask leaves visible, where all rows of the tile see the
 * same ones and they stand side by side: so padding looks, in front or behind,
 * and it needs no pass over the scores. */
static void cut_padding(const attention *a, tile *t) {
    const bool same = (t->heads == 1 || a->mask_step[1] == 0) && (t->count == 1 || a->mask_step[2] == 0);
    t->masked = true;
    if (a->mask->dtype != FR_BOOL || !same)
        return;
    const uint8_t *m = a->mask->data + t->batch * a->mask_step[0] + t->head * a->mask_step[1] + t->i0 * a->mask_step[2];
    int64_t low = t->first, high = t->keys;
    if (a->mask_step[3] == 0) {
        high = *m ? high : low;
    } else {
        while (high > low && !m[high - 1])
            high--;
        while (low < high && !m[low])
            low++;
        for (int64_t j = low; j < high; j++) {
            if (!m[j])
                return;
        }
    }
    t->masked = false;
    t->low = t->first = low, t->high = t->keys = high;
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

/* Of the scores x of keys j0 .. j1 - 1, hides those of keys from .. to - 1. */
static void hide(float *x, int64_t j0, int64_t j1, int64_t from, int64_t to) {
    for (int64_t j = fr_max(j0, from); j < fr_min(j1, to); j++)
        x[j - j0] = -__builtin_inff();
}

static void hide_unseen(const attention *a, const tile *t, float *x, int64_t i, int64_t j0, int64_t j1) {
    int64_t first = first_key(a, t->batch, i), end = end_key(a, t->batch, i);
    if (a->ring && first < end) { /* at most t positions: slots first .. end - 1,
                                     around the end */
        end -= first, first %= a->t, end += first;
        if (end > a->t) {
            hide(x, j0, j1, end - a->t, first);
            return;
        }
    }
    hide(x, j0, j1, 0, fr_max(first, t->low));
    hide(x, j0, j1, fr_max(fr_min(end, t->high), fr_max(first, t->low)), a->t);
}

/* x += slope * (position of the key - position of the query). */
static void lean(const attention *a, const tile *t, float *x, int64_t head, int64_t i, int64_t j0, int64_t j1) {
    const int64_t n = a->ring ? a->lengths[t->batch] : 0, wrap = n > a->t ? n % a->t : a->t;
    const int64_t base = n > a->t ? n - wrap : 0, p = position(a, t->batch, i);
    const float slope = a->slopes[head];
    for (int64_t j = j0; j < j1; j++)
        x[j - j0] += slope * (float)(j + (j < wrap ? base : base - a->t) - p);
}

/* ---- one tile and one block of keys ---- */

/* Scores of row r become weights, of which m is the maximum and l the sum. */
static void row_weights(const attention *a, const tile *t, int64_t r, float *x, int64_t j0, int64_t j1, float *m, float *l) {
    const frugal_isa *isa = a->c->isa;
    const int64_t i = t->i0 + r % t->count, head = t->head + r / t->count, n = j1 - j0;
    if (a->softcap != 0) {
        isa->scale(x, x, n, 1 / a->softcap);
        isa->unary(FRUGAL_U_TANH, x, x, n, 0, 0);
        isa->scale(x, x, n, a->softcap);
    }
    if (a->slopes)
        lean(a, t, x, head, i, j0, j1);
    if (t->masked)
        mask_row(a, x, t->batch, head, i, j0, j1);
    hide_unseen(a, t, x, i, j0, j1);
    *l = isa->softmax_top(x, n, m);
}

/* What a block has ready: keys packed, scales and values copied, from key j on.
 */
typedef struct block {
    int64_t j, n;
    const uint8_t *k, *v; /* of its first key, as they lie in memory */
    const float *k_scale, *v_scale;
    const uint8_t *next_k,
        *next_v; /* with few rows: the `next` keys and values that this thread will probably read after these */
    int64_t next;
} block;

/* Rows from .. to - 1 of the next block, of `row` elements and `size` used ones, to the second-level cache: a block is read
 * faster than memory answers, so each phase asks for some of the block to come (int8: qk8 and pv8 do). */
static void fetch(const attention *a, const block *b, const uint8_t *next, int64_t row, int64_t size, int64_t from, int64_t to) {
    for (int64_t i = from; i < fr_min(to, b->next); i++) {
        for (int64_t at = 0; at < size * a->size; at += 64)
            __builtin_prefetch(next + i * row * a->size + at, 0, 2);
    }
}

static const uint8_t *keys_at(const attention *a, int64_t batch, int64_t kv, int64_t j) {
    return a->k + (batch * a->k_batch + kv * a->k_head + j * a->k_row) * a->size;
}
static const uint8_t *values_at(const attention *a, int64_t batch, int64_t kv, int64_t j) {
    return a->v + (batch * a->v_batch + kv * a->v_head + j * a->v_row) * a->size;
}

/* What follows block j: the next one, or the first of the next key head. */
static void find_next(const attention *a, block *b, int64_t batch, int64_t kv, int64_t end) {
    int64_t j = b->j + BLOCK;
    b->next_k = b->k, b->next_v = b->v;
    if (a->heads * a->count > FEW_ROWS || a->each > 1)
        return;
    if (j >= end) {
        batch += ++kv / a->g, kv %= a->g;
        if (batch >= a->b)
            return;
        const tile t = tile_at(a, batch, kv, 0);
        j = t.first / BLOCK * BLOCK, end = t.keys;
    }
    b->next = fr_max(0, fr_min(BLOCK, end - j));
    b->next_k = keys_at(a, batch, kv, j), b->next_v = values_at(a, batch, kv, j);
}

/* n scales, scale_row apart, side by side, with zeros up to a whole panel: in place where they are that already. */
static const float *scales_at(const attention *a, float *copy, const float *from, int64_t n) {
    if (a->direct && a->scale_row == 1)
        return from;
    for (int64_t i = 0; i < n; i++)
        copy[i] = from[i * a->scale_row];
    for (int64_t i = n; i % FR_PANEL != 0; i++)
        copy[i] = 0;
    return copy;
}

static void open_block(const attention *a, const workspace *w, block *b, int64_t batch, int64_t kv, int64_t j, int64_t end) {
    const int64_t scales = batch * a->t * a->g + kv * a->scale_head + j * a->scale_row;
    *b = (block){.j = j, .n = fr_min(BLOCK, end - j), .k = keys_at(a, batch, kv, j), .v = values_at(a, batch, kv, j)};
    find_next(a, b, batch, kv, end);
    if (a->dtype == FR_I8) {
        b->k_scale = scales_at(a, w->k_scale, a->k_scale + scales, b->n);
        b->v_scale = scales_at(a, w->v_scale, a->v_scale + scales, b->n);
        if (!a->direct) /* as W8_P16: 4 codes are 32 bits */
            a->c->isa->pack_rows(w->keys, b->k, a->k_row, FR_ROWS_32, b->n, a->d / 4);
        return;
    }
    for (int64_t i = 0; i < b->n; i += FR_PANEL) {
        fetch(a, b, b->next_k, a->k_row, a->d, i, i + FR_PANEL);
        a->c->isa->pack_rows(w->keys + i * a->d, b->k + i * a->k_row * a->size, a->k_row * a->size,
                             a->dtype == FR_F16 ? FR_ROWS_HALF : FR_ROWS_32, fr_min(FR_PANEL, b->n - i), a->d);
    }
    for (int64_t i = 0; a->copy_v && i < b->n; i++) {
        const uint8_t *row = b->v + i * a->v_row * a->size;
        if (a->dtype == FR_F16)
            a->c->isa->widen(w->values + i * a->ep, (const uint16_t *)(const void *)row, a->e);
        else
            memcpy(w->values + i * a->ep, row, (size_t)a->e * 4);
    }
}

static void tile_scores(const attention *a, const tile *t, const block *b, const workspace *w, int64_t j0, int64_t j1) {
    const fr_epilogue none = {.act = FRUGAL_U_COPY};
    const frugal_isa *isa = a->c->isa;
    const int64_t at = j0 - b->j, n = j1 - j0;
    if (a->dtype != FR_I8)
        isa->gemm_f32(w->scores, a->ld, t->q, t->q_row, w->keys + at * a->d, FR_PANEL, FR_PANEL * a->d, t->rows, n, a->d,
                      a->scale, &none);
    else if (a->direct)
        isa->qk8(w->scores, a->ld, t->a8.q, a->kp, t->a8.scale, (const int8_t *)b->k + at * a->k_row, a->k_row, b->k_scale + at,
                 t->rows, n, a->d, (const int8_t *)b->next_k, b->next);
    else
        isa->gemm_w8(w->scores, a->ld, &t->a8, 0, t->rows, (const int8_t *)(const void *)w->keys + at * a->kp, b->k_scale + at, 0,
                     fr_ceil_div(n, FR_PANEL), n, &none, w->gemm);
}

static void tile_values(const attention *a, const tile *t, const block *b, const workspace *w, const result *to, int64_t j0,
                        int64_t j1) {
    const fr_epilogue none = {.act = FRUGAL_U_COPY};
    const frugal_isa *isa = a->c->isa;
    const int64_t at = j0 - b->j, n = j1 - j0;
    if (a->dtype == FR_I8) {
        float scale[MAX_ROWS];
        for (int64_t r = 0; r < t->rows; r++)
            scale[r] = isa->weights8(w->weights + r * a->ld, w->scores + r * a->ld, b->v_scale + at, n);
        isa->pv8(to->o, to->ld, w->weights, a->ld, scale, (const int8_t *)b->v + at * a->v_row, a->v_row, t->rows, n, a->e,
                 (const int8_t *)b->next_v, b->next);
        return;
    }
    const int64_t row = a->copy_v ? a->ep : a->v_row;
    const float *v = a->copy_v ? w->values + at * row : (const float *)(const void *)b->v + at * row;
    isa->gemm_f32(to->o, to->ld, w->scores, a->ld, v, row, FR_PANEL, t->rows, a->e, n, 1.0f, &none);
}

/* A block's result; m = -inf where a row sees none of it, with o and l 0 or,
 * when no row does, unset. */
static void run_block(const attention *a, const tile *t, const block *b, const workspace *w, const result *to) {
    const int64_t j0 = fr_max(b->j, t->first / FR_PANEL * FR_PANEL), j1 = fr_min(b->j + b->n, t->keys);
    if (j0 >= j1) {
        for (int64_t r = 0; r < t->rows; r++)
            to->m[r] = -__builtin_inff();
        return;
    }
    tile_scores(a, t, b, w, j0, j1);
    for (int64_t r = 0; r < t->rows; r++) {
        if (a->dtype != FR_I8)
            fetch(a, b, b->next_v, a->v_row, a->e, b->next * r / t->rows, b->next * (r + 1) / t->rows);
        row_weights(a, t, r, w->scores + r * a->ld, j0, j1, to->m + r, to->l + r);
    }
    tile_values(a, t, b, w, to, j0, j1);
}

/* ---- blocks together ---- */

static result result_at(const attention *a, int64_t rows, float *mem) { return (result){mem, mem + rows, mem + 2 * rows, a->e}; }

/* Of no block. */
static void open_result(int64_t rows, const result *to) {
    for (int64_t r = 0; r < rows; r++)
        to->m[r] = -__builtin_inff(), to->l[r] = 0;
}

/* Adds a block to the blocks before it, row by row, unless its m or M is -inf:
 * M' = max(m, M);  c = exp(M - M'), f = exp(m - M'); L = L c + l f and O = O c
 * + o f, each product and the sum rounded;  M = M'. */
static void merge(const attention *a, int64_t rows, const result *all, const result *add) {
    for (int64_t r = 0; r < rows; r++) {
        const float m = add->m[r], before = all->m[r], most = m > before || m != m ? m : before;
        float by[2] = {before - most, m - most}, *restrict o = all->o + r * all->ld;
        const float *restrict more = add->o + r * add->ld;
        if (m == -__builtin_inff())
            continue;
        all->m[r] = most;
        if (before == -__builtin_inff()) {
            all->l[r] = add->l[r];
            memcpy(o, more, (size_t)a->e * 4);
            continue;
        }
        a->c->isa->unary(FRUGAL_U_EXP, by, by, 2, 0, 0);
        all->l[r] = all->l[r] * by[0] + add->l[r] * by[1];
        const float keep = by[0], take = by[1];
        for (int64_t j = 0; j < a->e; j++)
            o[j] = o[j] * keep + more[j] * take;
    }
}

/* What a sink adds to the sum of exp(x - top). */
static float sink_weight(const attention *a, float top, int64_t head) {
    float weight = a->sinks[head] - top;
    a->c->isa->unary(FRUGAL_U_EXP, &weight, &weight, 1, 0, 0);
    return top == -__builtin_inff() ? 0 : weight;
}

/* The tile's rows of y; all->o may be these. */
static void close_tile(const attention *a, const tile *t, const result *all) {
    for (int64_t r = 0; r < t->rows; r++) {
        const int64_t head = t->head + r / t->count, i = t->i0 + r % t->count;
        const float sum = all->l[r] + (a->sinks ? sink_weight(a, all->m[r], head) : 0), by = 1 / sum;
        const float *o = all->o + r * all->ld;
        float *y = a->y + t->batch * a->y_batch + head * a->y_head + i * a->y_row;
        if (sum == 0) {
            memset(y, 0, (size_t)a->e * 4);
            continue;
        }
        for (int64_t j = 0; j < a->e; j++)
            y[j] = o[j] * by + 0.0f;
    }
}

/* ---- all of it ---- */

/* The tile's queries, in place where they stand a fixed distance apart, else
 * copied to q; int8: quantized, their scale times the attention's. */
static void open_queries(const attention *a, tile *t, float *q) {
    const float *from = a->q + t->batch * a->q_batch + t->i0 * a->q_row + t->head * a->q_head;
    const bool i8 = a->dtype == FR_I8, copy = t->heads > 1 && t->count > 1;
    int8_t *codes = (int8_t *)q;
    float *scales = q + t->rows * a->kp / 4;
    int32_t *sums = (int32_t *)(void *)(scales + t->rows);
    t->q = from, t->q_row = t->count > 1 ? a->q_row : a->q_head;
    t->a8 = (fr_act8){.q = codes, .scale = scales, .sum = sums, .m = t->rows, .kp = a->kp};
    if (!i8 && !copy)
        return;
    if (i8)
        memset(codes, 0, (size_t)(t->rows * a->kp));
    else
        t->q = q, t->q_row = a->d;
    for (int64_t r = 0; r < t->rows; r++) {
        const float *x = from + r / t->count * a->q_head + r % t->count * a->q_row;
        if (i8) {
            a->c->isa->quantize(codes + r * a->kp, scales + r, sums + r * (a->kp / FR_BLOCK), x, a->d, 0);
            scales[r] *= a->scale;
        } else {
            memcpy(q + r * a->d, x, (size_t)a->d * 4);
        }
    }
}

static tile open_tile(const attention *a, int64_t unit, int64_t i, float *q) {
    tile t = tile_at(a, unit / a->g, unit % a->g, i);
    if (a->mask)
        cut_padding(a, &t);
    open_queries(a, &t, q);
    return t;
}

/* Where the blocks of a tile add up: in y itself when there is one block and
 * the rows stand a fixed distance apart. */
static result tile_result(const attention *a, const tile *t, float *mem) {
    result to = result_at(a, t->rows, mem);
    if (a->blocks == 1 && (t->heads == 1 || t->count == 1)) {
        to.o = a->y + t->batch * a->y_batch + t->head * a->y_head + t->i0 * a->y_row;
        to.ld = t->count > 1 ? a->y_row : a->y_head;
    }
    open_result(t->rows, &to);
    return to;
}

/* Task: some tiles of one key head of one batch entry, block by block. */
static void tiles_task(void *p, int64_t i, int32_t thread) {
    const attention *a = p;
    const int64_t unit = i / a->chunks, first = i % a->chunks * a->each, n = fr_min(a->each, a->tiles - first);
    int64_t begin = INT64_MAX, end = 0;
    tile tiles[MAX_TILES];
    result all[MAX_TILES];
    workspace w;
    lay_out(a, fr_thread_scratch(a->c, thread), &w);
    for (int64_t x = 0; x < n; x++) {
        tiles[x] = open_tile(a, unit, first + x, w.q + x * query_floats(a));
        all[x] = tile_result(a, tiles + x, w.state + x * result_floats(a));
        if (tiles[x].first < tiles[x].keys)
            begin = fr_min(begin, tiles[x].first / BLOCK * BLOCK), end = fr_max(end, tiles[x].keys);
    }
    for (int64_t j = begin; j < end; j += BLOCK) {
        block b;
        open_block(a, &w, &b, unit / a->g, unit % a->g, j, end);
        for (int64_t x = 0; x < n; x++) {
            const result one = result_at(a, tiles[x].rows, w.o);
            const bool fresh = j == fr_max(begin, tiles[x].first / BLOCK * BLOCK);
            if (tiles[x].keys <= j || tiles[x].first >= j + b.n)
                continue;
            run_block(a, tiles + x, &b, &w, fresh ? all + x : &one);
            if (!fresh)
                merge(a, tiles[x].rows, all + x, &one);
        }
    }
    for (int64_t x = 0; x < n; x++)
        close_tile(a, tiles + x, all + x);
}

/* Task: one block of one tile. */
static void block_task(void *p, int64_t i, int32_t thread) {
    const attention *a = p;
    const int64_t unit = i / a->blocks / a->tiles, j = i % a->blocks * BLOCK;
    workspace w;
    lay_out(a, fr_thread_scratch(a->c, thread), &w);
    const tile t = open_tile(a, unit, i / a->blocks % a->tiles, w.q);
    block b = {.j = j};
    if (j < t.keys && j + BLOCK > t.first)
        open_block(a, &w, &b, unit / a->g, unit % a->g, j, t.keys);
    const result to = result_at(a, t.rows, a->partial + i * result_floats(a));
    run_block(a, &t, &b, &w, &to);
}

/* Task: the blocks of one tile together. */
static void merge_task(void *p, int64_t i, int32_t thread) {
    const attention *a = p;
    workspace w;
    lay_out(a, fr_thread_scratch(a->c, thread), &w);
    const tile t = tile_at(a, i / a->tiles / a->g, i / a->tiles % a->g, i % a->tiles);
    const result all = result_at(a, t.rows, w.state);
    open_result(t.rows, &all);
    for (int64_t j = 0; j < a->blocks; j++) {
        const result one = result_at(a, t.rows, a->partial + (i * a->blocks + j) * result_floats(a));
        merge(a, t.rows, &all, &one);
    }
    close_tile(a, &t, &all);
}

static frugal_status check_lengths(const attention *a) {
    for (int64_t i = 0; a->lengths && i < a->b; i++) {
        if (a->lengths[i] < 0 || a->lengths[i] > (a->ring ? FRUGAL_MAX_DIM : a->t))
            return fr_fail(a->c, FRUGAL_BAD_INPUT, 4, -1, a->t, a->lengths[i], "a length is negative or beyond the keys");
    }
    return FRUGAL_OK;
}

static const float *floats(const fr_tensor *t) { return t ? (const float *)(const void *)t->data : NULL; }

static frugal_status run(const fr_call *c, enum form form) {
    attention a;
    FR_TRY(shapes(c, &a, form));
    FR_TRY(mask_shape(c, &a));
    attention_cut(&a);
    a.q = floats(c->in[0]);
    a.k = c->in[1] ? c->in[1]->data : (const uint8_t *)(a.q + a.h * a.d);
    a.v = c->in[2] ? c->in[2]->data : (const uint8_t *)(a.q + (a.h + a.g) * a.d);
    a.y = (float *)(void *)c->out[0]->data;
    if (form != WHOLE) {
        a.lengths = c->in[4] ? (const int64_t *)(const void *)c->in[4]->data : NULL;
        a.sinks = floats(c->in[5]);
    }
    if (form == KEPT)
        a.k_scale = floats(c->in[6]), a.v_scale = floats(c->in[7]), a.slopes = floats(c->in[8]);
    FR_TRY(check_lengths(&a));
    if (!a.split) {
        fr_pool_run(c->pool, a.b * a.g * a.chunks, tiles_task, &a);
        return FRUGAL_OK;
    }
    a.partial = (float *)(void *)c->shared;
    fr_pool_run(c->pool, a.b * a.g * a.tiles * a.blocks, block_task, &a);
    fr_pool_run(c->pool, a.b * a.g * a.tiles, merge_task, &a);
    return FRUGAL_OK;
}

frugal_status fr_attention_run(const fr_call *c) { return run(c, WHOLE); }
frugal_status fr_attention_cache_run(const fr_call *c) { return run(c, CACHE); }
frugal_status fr_attention_kept_run(const fr_call *c) { return run(c, KEPT); }

static int64_t operations(const fr_call *c, enum form form) {
    attention a;
    int64_t n;
    if (shapes(c, &a, form) != FRUGAL_OK)
        return 0;
    if (__builtin_mul_overflow(a.b * a.s, a.h, &n) || __builtin_mul_overflow(n, a.t, &n) ||
        __builtin_mul_overflow(n, 2 * (a.d + a.e) + 1, &n))
        return INT64_MAX;
    return n;
}

int64_t fr_attention_operations(const fr_call *c) { return operations(c, WHOLE); }
int64_t fr_attention_cache_operations(const fr_call *c) { return operations(c, CACHE); }
int64_t fr_attention_kept_operations(const fr_call *c) { return operations(c, KEPT); }
