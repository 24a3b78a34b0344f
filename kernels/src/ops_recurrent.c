/* ops_recurrent.c - RNN, GRU and LSTM over inputs that a LINEAR has already multiplied with the input weights.
 *
 * A task is one direction of a few batch rows, step by step: the product with the recurrent weights by the gemm of the
 * instruction set (one fmaf chain an output, so neither rows nor chunks change a bit), activations by its unary rows, and
 * additions and products that are each rounded.
 */
#include <math.h>

#include "ops.h"

enum { IN_X, IN_R, IN_BIAS, IN_H, IN_C, IN_PEEP, IN_LENS };
enum { OUT_H, OUT_Y, OUT_C };
enum { CELL_RNN, CELL_GRU, CELL_LSTM };
enum { DIR_FORWARD, DIR_REVERSE, DIR_BOTH };
enum { A_CELL, A_DIRECTION, A_BATCH_FIRST, A_AFTER, A_COUPLED, A_CLIP, A_FUNCTIONS, ATTRS_A_FUNCTION = 3 };
enum { ROWS = 16 }; /* batch rows a task: what the gemm kernels read the weights once for */

typedef struct cell {
    const fr_call *c;
    int64_t t, b, d, h, hp, g;  /* steps, batch, directions, units, units rounded up to 16, gates */
    int64_t s;                  /* columns from one gate of x to the next: h or hp */
    int64_t xt, xb, yt, yb, yd; /* elements from one step, batch row, direction to the next */
    int64_t hb, hd;             /* the same in h, c, y_h, y_c */
    int64_t chunks;             /* tasks a direction */
    const float *r;             /* panels of hp rows a gate */
    float clip;
} cell;

/* The piece of scratch of one task, and what it works on. */
typedef struct part {
    const cell *j;
    int64_t dir, b0, rows;
    float *h, *c; /* [rows][h]: the state */
    float *z;     /* [rows][g * s]: the gates */
    float *u;     /* [rows][hp]: reset state of a GRU */
    float *x;     /* [rows][g * s]: inputs of rows that are at different steps */
} part;

static float *floats(const fr_tensor *t) { return t ? (float *)(void *)t->data : NULL; }

static int64_t gates_of(int64_t kind) { return kind == CELL_LSTM ? 4 : kind == CELL_GRU ? 3 : 1; }

/* ---- check ---- */

static frugal_status check_function(const fr_call *c, int32_t at) {
    const int64_t kind = c->attrs[at];
    const bool known = (kind >= 0 && kind < FRUGAL_UNARY_COUNT && kind != FRUGAL_U_NOT && kind != FRUGAL_U_ISNAN) ||
                       (kind >= FRUGAL_CELL_AFFINE && kind <= FRUGAL_CELL_SOFTSIGN);
    FR_NEED(c, known, FRUGAL_UNSUPPORTED, "unknown activation of a recurrence");
    return FRUGAL_OK;
}

static frugal_status check_state(const fr_call *c, const fr_tensor *x, int32_t pos) {
    if (!x)
        return FRUGAL_OK;
    FR_DTYPE(c, x->dtype == FR_F32, "the state of a recurrence is float32");
    return fr_same_shape(c, x, c->out[OUT_H], pos);
}

static frugal_status check_weights(const fr_call *c, int64_t d, int64_t g, int64_t h) {
    const fr_tensor *x = c->in[IN_X], *r = c->in[IN_R], *bias = c->in[IN_BIAS], *p = c->in[IN_PEEP];
    const int64_t hp = fr_round_up(h, FR_PANEL);
    const bool packed = r->layout == FRUGAL_F32_P16;
    FR_DTYPE(c, x->dtype == FR_F32 && r->dtype == FR_F32, "a recurrence is of float32");
    FR_SHAPE(c, x->rank == 3, "the input of a recurrence has steps, batch and gates");
    FR_SHAPE(c, x->dims[2] == d * g * h || x->dims[2] == d * g * hp, "the input does not have a column for every gate");
    if (packed)
        FR_SHAPE(c, r->dims[0] == d * g * hp && r->dims[1] == h, "packed recurrent weights are [gates, units]");
    else
        FR_SHAPE(c, r->rank == 3 && r->dims[0] == d && r->dims[1] == g * h && r->dims[2] == h,
                 "recurrent weights are [directions, gates, units]");
    FR_SHAPE(c, h <= FR_MAX_K, "a recurrence has at most 131072 units");
    if (bias)
        FR_TRY(fr_vector(c, bias, d * hp, IN_BIAS));
    if (p) {
        FR_DTYPE(c, p->dtype == FR_F32, "peepholes are float32");
        FR_SHAPE(c, p->rank == 2 && p->dims[0] == d && p->dims[1] == 3 * h, "peepholes are [directions, 3 units]");
    }
    return FRUGAL_OK;
}

static frugal_status check_outputs(const fr_call *c, int64_t t, int64_t b, int64_t d, int64_t h) {
    const fr_tensor *y = c->out[OUT_Y], *yc = c->out[OUT_C];
    const bool first = c->attrs[A_BATCH_FIRST] != 0;
    FR_DTYPE(c, y->dtype == FR_F32 && yc->dtype == FR_F32, "a recurrence is of float32");
    if (y->n > 0) {
        const int64_t want[4] = {first ? b : t, first ? t : d, first ? d : b, h};
        FR_SHAPE(c, y->rank == 4, "the output of a recurrence has four axes");
        for (int32_t a = 0; a < 4; a++) {
            if (y->dims[a] != want[a])
                return fr_fail(c, FRUGAL_BAD_SHAPE, c->n_in + OUT_Y, a, want[a], y->dims[a], "the output has another shape");
        }
    }
    if (yc->n > 0) {
        FR_SHAPE(c, c->attrs[A_CELL] == CELL_LSTM, "only an LSTM has a cell state");
        FR_TRY(fr_same_shape(c, yc, c->out[OUT_H], c->n_in + OUT_C));
    }
    return FRUGAL_OK;
}

frugal_status fr_recurrent_check(const fr_call *c) {
    const fr_tensor *yh = c->out[OUT_H], *x = c->in[IN_X], *lens = c->in[IN_LENS];
    const bool first = c->attrs[A_BATCH_FIRST] != 0;
    const int64_t d = c->attrs[A_DIRECTION] == DIR_BOTH ? 2 : 1;
    FR_DTYPE(c, yh->dtype == FR_F32, "a recurrence is of float32");
    FR_SHAPE(c, yh->rank == 3 && yh->dims[first ? 1 : 0] == d, "the last state is [directions, batch, units]");
    const int64_t b = yh->dims[first ? 0 : 1], h = yh->dims[2];
    FR_TRY(check_weights(c, d, gates_of(c->attrs[A_CELL]), h));
    const int64_t t = x->dims[first ? 1 : 0];
    FR_SHAPE(c, x->dims[first ? 0 : 1] == b, "input and state differ in the batch");
    FR_TRY(check_outputs(c, t, b, d, h));
    FR_TRY(check_state(c, c->in[IN_H], IN_H));
    FR_TRY(check_state(c, c->in[IN_C], IN_C));
    if (lens) {
        FR_DTYPE(c, lens->dtype == FR_I32, "sequence lengths are int32");
        FR_SHAPE(c, lens->rank == 1 && lens->dims[0] == b, "one sequence length a batch row");
    }
    FR_NEED(c, fr_attr_double(c, A_CLIP) > 0.0, FRUGAL_BAD_PLAN, "the clip of a recurrence is above 0");
    for (int32_t f = 0; f < 6; f++)
        FR_TRY(check_function(c, A_FUNCTIONS + ATTRS_A_FUNCTION * f));
    return FRUGAL_OK;
}

/* ---- set up ---- */

static void cell_of(const fr_call *c, cell *j) {
    const fr_tensor *x = c->in[IN_X], *yh = c->out[OUT_H];
    const bool first = c->attrs[A_BATCH_FIRST] != 0;
    *j = (cell){.c = c, .g = gates_of(c->attrs[A_CELL]), .d = c->attrs[A_DIRECTION] == DIR_BOTH ? 2 : 1, .h = yh->dims[2]};
    j->t = x->dims[first ? 1 : 0], j->b = x->dims[first ? 0 : 1];
    j->hp = fr_round_up(j->h, FR_PANEL);
    j->s = x->dims[2] / (j->d * j->g);
    j->xt = first ? x->dims[2] : x->dims[2] * j->b, j->xb = first ? x->dims[2] * j->t : x->dims[2];
    j->yt = j->d * j->h * (first ? 1 : j->b), j->yb = first ? j->t * j->d * j->h : j->h, j->yd = first ? j->h : j->b * j->h;
    j->hb = first ? j->d * j->h : j->h, j->hd = first ? j->h : j->b * j->h;
    j->chunks = fr_ceil_div(j->b, ROWS);
    j->clip = fr_attr_float(c, A_CLIP);
}

static int64_t packed_floats(const cell *j) { return j->d * j->g * j->hp * j->h; }

/* h, c, u: hp each; z, x: g s each.  s <= hp <= 131072 and 16 rows: no overflow. */
static int64_t row_floats(const cell *j) { return 3 * j->hp + 2 * j->g * fr_round_up(j->s, FR_PANEL); }

void fr_recurrent_scratch(const fr_call *c, fr_scratch *s) {
    cell j;
    cell_of(c, &j);
    s->thread = 4 * row_floats(&j) * fr_min(ROWS, j.b);
    s->shared = c->in[IN_R]->layout == FRUGAL_F32_P16 ? 0 : 4 * packed_floats(&j);
}

int64_t fr_recurrent_operations(const fr_call *c) {
    cell j;
    int64_t n;
    cell_of(c, &j);
    return __builtin_mul_overflow(j.t * j.b, 2 * packed_floats(&j), &n) ? INT64_MAX : n;
}

/* Weights that the run brings: the same panels as a constant's. */
static void pack_gates(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const cell *j = p;
    float *to = (float *)(void *)j->c->shared;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        fr_pack_panels(to + i * j->hp * j->h, floats(j->c->in[IN_R]) + i * j->h * j->h, j->h, true, j->h, j->h);
}

/* ---- one step ---- */

/* y = f(x) for a row of n; f: 0 to 2 of this direction.  y may be x. */
static void activate(const part *k, int f, float *y, const float *x, int64_t n) {
    const fr_call *c = k->j->c;
    const int32_t at = A_FUNCTIONS + ATTRS_A_FUNCTION * (int32_t)(3 * k->dir + f);
    const float p = fr_attr_float(c, at + 1), q = fr_attr_float(c, at + 2);
    switch (c->attrs[at]) {
    case FRUGAL_CELL_AFFINE:
        for (int64_t i = 0; i < n; i++)
            y[i] = p * x[i] + q;
        return;
    case FRUGAL_CELL_THRESHOLDED_RELU:
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] >= p ? x[i] : x[i] != x[i] ? x[i] : 0.0f;
        return;
    case FRUGAL_CELL_SCALED_TANH:
        for (int64_t i = 0; i < n; i++)
            y[i] = q * x[i];
        c->isa->unary(FRUGAL_U_TANH, y, y, n, 0.0f, 0.0f);
        c->isa->scale(y, y, n, p);
        return;
    case FRUGAL_CELL_SOFTSIGN:
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] / (1.0f + fabsf(x[i]));
        return;
    default:
        c->isa->unary((int)c->attrs[at], y, x, n, p, q);
    }
}

/* What goes into the activation of a gate. */
static void clip(const cell *j, float *x, int64_t n) {
    const float high = j->clip, low = -high;
    for (int64_t i = 0; high != INFINITY && i < n; i++)
        x[i] = x[i] < low ? low : x[i] > high ? high : x[i];
}

/* z[.., g0 s .. g1 s) = a [rows][h] times the weights of gates [g0, g1), + bias, + x. */
static void products(const part *k, const float *a, int64_t g0, int64_t g1, const float *bias, const float *x, int64_t ldx) {
    const cell *j = k->j;
    const int64_t gate = j->hp * j->h, each = j->s == j->hp ? g1 - g0 : 1, n = each == 1 ? j->s : each * j->s;
    for (int64_t g = g0; g < g1; g += each) {
        const fr_epilogue e = {.bias = bias, .residual = x ? x + g * j->s : NULL, .ld = ldx};
        j->c->isa->gemm_f32(k->z + g * j->s, j->g * j->s, a, j->h, j->r + (k->dir * j->g + g) * gate, FR_PANEL, FR_PANEL * j->h,
                            k->rows, n, j->h, 1.0f, &e);
    }
}

/* c = f c + i g, h = o func(c), with the gates i, o, f, g side by side. */
static void lstm_row(const part *k, int64_t row) {
    const cell *j = k->j;
    const int64_t h = j->h, s = j->s;
    const bool coupled = j->c->attrs[A_COUPLED] != 0;
    float *i = k->z + row * 4 * s, *o = i + s, *f = o + s, *g = f + s, *c = k->c + row * h, *y = k->h + row * h;
    const float *p = j->c->in[IN_PEEP] ? floats(j->c->in[IN_PEEP]) + k->dir * 3 * h : NULL;
    for (int64_t n = 0; p && n < h; n++) {
        i[n] = i[n] + p[n] * c[n];
        f[n] = f[n] + p[2 * h + n] * c[n];
    }
    clip(j, i, p ? s : 2 * s);
    clip(j, f, 2 * s);
    activate(k, 0, i, i, p ? s : coupled ? 2 * s : 3 * s);
    activate(k, 1, g, g, s);
    if (coupled) {
        for (int64_t n = 0; n < h; n++)
            f[n] = 1.0f - i[n];
    } else if (p) {
        activate(k, 0, f, f, s);
    }
    for (int64_t n = 0; n < h; n++)
        c[n] = f[n] * c[n] + i[n] * g[n];
    if (p) {
        for (int64_t n = 0; n < h; n++)
            o[n] = o[n] + p[h + n] * c[n];
        clip(j, o, s);
        activate(k, 0, o, o, s);
    }
    activate(k, 2, g, c, h);
    for (int64_t n = 0; n < h; n++)
        y[n] = o[n] * g[n];
}

/* Whether a row still has steps to do; without lengths all have. */
static bool active(const part *k, int64_t row, int64_t step) {
    const fr_tensor *lens = k->j->c->in[IN_LENS];
    return !lens || step < ((const int32_t *)(const void *)lens->data)[k->b0 + row];
}

static void lstm_step(const part *k, int64_t step, const float *x, int64_t ldx) {
    products(k, k->h, 0, 4, NULL, x, ldx);
    for (int64_t row = 0; row < k->rows; row++) {
        if (active(k, row, step))
            lstm_row(k, row);
    }
}

static void rnn_step(const part *k, int64_t step, const float *x, int64_t ldx) {
    const cell *j = k->j;
    products(k, k->h, 0, 1, NULL, x, ldx);
    for (int64_t row = 0; row < k->rows; row++) {
        float *z = k->z + row * j->s;
        if (!active(k, row, step))
            continue;
        clip(j, z, j->h);
        activate(k, 0, k->h + row * j->h, z, j->h);
    }
}

/* Gates z, r, then the candidate from r h (before) or from r times the product of h (after). */
static void gru_step(const part *k, int64_t step, const float *x, int64_t ldx) {
    const cell *j = k->j;
    const int64_t h = j->h, s = j->s, ldz = 3 * s;
    const bool after = j->c->attrs[A_AFTER] != 0;
    const float *bias = j->c->in[IN_BIAS] ? floats(j->c->in[IN_BIAS]) + k->dir * j->hp : NULL;
    products(k, k->h, 0, 2, NULL, x, ldx);
    if (after)
        products(k, k->h, 2, 3, bias, NULL, 0);
    for (int64_t row = 0; row < k->rows; row++) {
        float *z = k->z + row * ldz, *r = z + s, *u = k->u + row * h;
        const float *old = k->h + row * h;
        clip(j, z, 2 * s);
        activate(k, 0, z, z, 2 * s);
        for (int64_t n = 0; !after && n < h; n++)
            u[n] = r[n] * old[n];
    }
    if (!after)
        products(k, k->u, 2, 3, bias, x, ldx);
    for (int64_t row = 0; row < k->rows; row++) {
        float *z = k->z + row * ldz, *r = z + s, *v = r + s, *y = k->h + row * h;
        const float *xv = x + row * ldx + 2 * s;
        if (!active(k, row, step))
            continue;
        for (int64_t n = 0; after && n < h; n++)
            v[n] = r[n] * v[n] + xv[n];
        clip(j, v, h);
        activate(k, 1, v, v, h);
        for (int64_t n = 0; n < h; n++)
            y[n] = (1.0f - z[n]) * v[n] + z[n] * y[n];
    }
}

/* ---- all steps ---- */

static int64_t length_of(const part *k, int64_t row) {
    const fr_tensor *lens = k->j->c->in[IN_LENS];
    return lens ? ((const int32_t *)(const void *)lens->data)[k->b0 + row] : k->j->t;
}

static bool reversed(const part *k) { return k->j->c->attrs[A_DIRECTION] == DIR_REVERSE || k->dir == 1; }

/* The place of a row's step in the input and output. */
static int64_t place_of(const part *k, int64_t row, int64_t step) { return reversed(k) ? length_of(k, row) - 1 - step : step; }

/* The inputs of a step: in place, or gathered where the rows are at different places. */
static const float *inputs_of(const part *k, int64_t step, int64_t *ld) {
    const cell *j = k->j;
    const int64_t n = j->g * j->s;
    const float *x = floats(j->c->in[IN_X]) + k->b0 * j->xb + k->dir * n;
    *ld = j->xb;
    if (!j->c->in[IN_LENS] || !reversed(k))
        return x + place_of(k, 0, step) * j->xt;
    for (int64_t row = 0; row < k->rows; row++)
        memcpy(k->x + row * n, x + row * j->xb + fr_max(0, place_of(k, row, step)) * j->xt, (size_t)n * sizeof *x);
    *ld = n;
    return k->x;
}

static void load_state(const part *k, const fr_tensor *from, float *to) {
    const cell *j = k->j;
    for (int64_t row = 0; row < k->rows; row++) {
        float *state = to + row * j->h;
        if (from)
            memcpy(state, floats(from) + (k->b0 + row) * j->hb + k->dir * j->hd, (size_t)j->h * sizeof *state);
        else
            memset(state, 0, (size_t)j->h * sizeof *state);
    }
}

static void store_state(const part *k, const fr_tensor *to, const float *from) {
    const cell *j = k->j;
    for (int64_t row = 0; row < k->rows && to->n > 0; row++)
        memcpy(floats(to) + (k->b0 + row) * j->hb + k->dir * j->hd, from + row * j->h, (size_t)j->h * sizeof *from);
}

/* The state after a step to its place in y; the places behind a row's length are 0. */
static void store_step(const part *k, int64_t step) {
    const cell *j = k->j;
    for (int64_t row = 0; row < k->rows; row++) {
        float *y = floats(j->c->out[OUT_Y]) + (k->b0 + row) * j->yb + k->dir * j->yd;
        if (step < length_of(k, row))
            memcpy(y + place_of(k, row, step) * j->yt, k->h + row * j->h, (size_t)j->h * sizeof *y);
        else
            memset(y + step * j->yt, 0, (size_t)j->h * sizeof *y);
    }
}

static void recurrent_task(void *p, int64_t i, int32_t thread) {
    const cell *j = p;
    const int64_t kind = j->c->attrs[A_CELL];
    part k = {.j = j, .dir = i / j->chunks, .b0 = i % j->chunks * ROWS};
    k.rows = fr_min(ROWS, j->b - k.b0);
    k.h = (float *)(void *)fr_thread_scratch(j->c, thread);
    k.c = k.h + k.rows * j->hp, k.u = k.c + k.rows * j->hp;
    k.z = k.u + k.rows * j->hp, k.x = k.z + k.rows * j->g * fr_round_up(j->s, FR_PANEL);
    load_state(&k, j->c->in[IN_H], k.h);
    load_state(&k, j->c->in[IN_C], k.c);
    for (int64_t step = 0; step < j->t; step++) {
        int64_t ld;
        const float *x = inputs_of(&k, step, &ld);
        if (kind == CELL_LSTM)
            lstm_step(&k, step, x, ld);
        else if (kind == CELL_GRU)
            gru_step(&k, step, x, ld);
        else
            rnn_step(&k, step, x, ld);
        if (j->c->out[OUT_Y]->n > 0)
            store_step(&k, step);
    }
    store_state(&k, j->c->out[OUT_H], k.h);
    store_state(&k, j->c->out[OUT_C], k.c);
}

frugal_status fr_recurrent_run(const fr_call *c) {
    const fr_tensor *r = c->in[IN_R], *lens = c->in[IN_LENS];
    cell j;
    cell_of(c, &j);
    for (int64_t i = 0; lens && i < j.b; i++) {
        const int64_t n = ((const int32_t *)(const void *)lens->data)[i];
        if (n < 0 || n > j.t)
            return fr_fail(c, FRUGAL_BAD_INPUT, IN_LENS, 0, j.t, n, "a sequence length is below 0 or above the number of steps");
    }
    j.r = r->layout == FRUGAL_F32_P16 ? floats(r) : (const float *)(const void *)c->shared;
    if (r->layout != FRUGAL_F32_P16)
        fr_parallel(c, j.d * j.g, fr_row_grain(j.h * j.h), pack_gates, &j);
    fr_pool_run(c->pool, j.d * j.chunks, recurrent_task, &j);
    return FRUGAL_OK;
}
