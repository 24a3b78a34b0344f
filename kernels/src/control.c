/* control.c - plans whose steps or sizes depend on data: blocks (IF, LOOP), variables, and late dims.
 *
 * A late tensor has no place until a step writes it: then its dims are known, the step is checked, and the tensor gets a place in
 * the heap, the part of the arena behind what frugal_session_resolve laid out.  It leaves the heap after the last step that reads
 * it.  When the heap is full the run ends with FRUGAL_MORE and starts anew in a larger arena: nothing of it has to be kept. */
#include "session.h"

enum { FIRST_HEAP = 1 << 16 }; /* bytes to begin with */

/* ---- what is late ---- */

static bool dim_is_late(const frugal_session *s, int64_t d) { return d < 0 && s->late_dim[-1 - d]; }

static void find_late_dims(frugal_session *s) {
    for (uint32_t i = 0; i < s->plan.n_dims; i++) {
        const frugal_plan_dim *d = &s->plan.dims[i];
        s->late_dim[i] = d->op >= FRUGAL_DIM_VALUE;
        if (s->late_dim[i])
            s->source[d->a] = 1;
        else if (d->op != FRUGAL_DIM_INPUT)
            s->late_dim[i] = dim_is_late(s, d->a) || dim_is_late(s, d->b);
    }
}

static void find_late_tensors(frugal_session *s) {
    for (uint32_t i = 0; i < s->plan.n_tensors; i++) {
        for (int a = 0; a < s->tensors[i].rank; a++)
            s->late[i] |= dim_is_late(s, s->plan.tensors[i].dims[a]);
    }
    for (uint32_t i = 0; i < s->plan.n_tensors; i++)
        s->late[i] |= s->late[s->tensors[i].root];
}

/* Attribute i of a step when it is a dim, else 0. */
int64_t fr_dim_attr(const frugal_session *s, const frugal_plan_step *t, uint32_t i) {
    const char *rules = fr_ops[t->op].attrs;
    const size_t letters = strlen(rules), n = letters - (letters > 0 && rules[letters - 1] == '*');
    return n > 0 && rules[i % n] == 'd' ? s->plan.attrs[t->attrs + i] : 0;
}

static bool step_is_late(const frugal_session *s, const frugal_plan_step *t) {
    const int32_t *args = s->plan.args + t->args;
    for (uint32_t k = 0; k < (uint32_t)t->n_in + t->n_out; k++) {
        if (args[k] >= 0 && s->late[args[k]])
            return true;
    }
    for (uint32_t k = 0; k < t->n_attr; k++) {
        if (dim_is_late(s, fr_dim_attr(s, t, k)))
            return true;
    }
    return false;
}

frugal_status fr_control_init(frugal_session *s, frugal_error *err) {
    const frugal_plan *p = &s->plan;
    for (uint32_t i = 0; i < p->n_tensors; i++)
        s->late[i] = s->source[i] = s->ready[i] = 0, s->room[i] = 0, s->next_dying[i] = -1;
    find_late_dims(s);
    find_late_tensors(s);
    s->dynamic = false;
    s->heap_want = 0;
    s->max_turns = FRUGAL_MAX_TURNS;
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const uint16_t op = p->steps[i].op;
        s->late_step[i] = step_is_late(s, &p->steps[i]);
        s->dying[i] = -1;
        s->dynamic |= s->late_step[i] || (op >= FRUGAL_OP_IF && op <= FRUGAL_OP_SET);
    }
    for (uint32_t i = 0; i < p->n_tensors; i++) {
        if (s->late[i] && s->tensors[i].kind == FRUGAL_TENSOR_INPUT)
            return fr_error(err, FRUGAL_BAD_PLAN, -1, (int32_t)i, "an input of the model has a late dim");
        if (!s->late[i] || !fr_in_arena(&s->tensors[i]) || s->tensors[i].kind == FRUGAL_TENSOR_OUTPUT || s->last[i] < 0)
            continue;
        s->heap_want = FIRST_HEAP;
        s->next_dying[i] = s->dying[s->last[i]];
        s->dying[s->last[i]] = (int32_t)i;
    }
    return FRUGAL_OK;
}

/* ---- errors ---- */

static frugal_status fail(frugal_error *err, frugal_status status, uint32_t step, int32_t tensor, int64_t want, int64_t got,
                          const char *what) {
    fr_error(err, status, (int32_t)step, tensor, what);
    if (err)
        err->want = want, err->got = got;
    return status;
}

/* ---- late dims ---- */

static int64_t late_value(const frugal_session *s, const frugal_plan_dim *d) {
    const fr_tensor *t = &s->tensors[d->a];
    int64_t v;
    if (d->op == FRUGAL_DIM_SHAPE)
        return t->dims[d->b];
    if (d->b >= t->n)
        return FR_INVALID;
    if (t->dtype == FR_I64) {
        memcpy(&v, t->data + 8 * d->b, 8);
    } else {
        int32_t small;
        memcpy(&small, t->data + 4 * d->b, 4);
        v = small;
    }
    return v >= 0 && v <= FRUGAL_MAX_DIM ? v : FR_INVALID;
}

/* After tensor t was written, or with -1 to forget all.  What other tensors gave is kept: their bytes may be gone.  A dim
 * without a valid value is an error only where a tensor needs it. */
static void eval_late_dims(frugal_session *s, int64_t t) {
    for (uint32_t i = 0; i < s->plan.n_dims; i++) {
        const frugal_plan_dim *d = &s->plan.dims[i];
        int64_t *v = &s->values[i];
        if (!s->late_dim[i])
            continue;
        if (d->op >= FRUGAL_DIM_VALUE) {
            if (t < 0 || d->a == t)
                *v = t < 0 ? FR_UNKNOWN : late_value(s, d);
            continue;
        }
        const int64_t a = d->a >= 0 ? d->a : s->values[-1 - d->a], b = d->b >= 0 ? d->b : s->values[-1 - d->b];
        if (a < 0 || b < 0)
            *v = a < 0 ? a : b;
        else if (!fr_eval_dim(d->op, a, b, v) || *v < 0 || *v > FRUGAL_MAX_DIM)
            *v = FR_INVALID;
    }
}

/* Dims, element count and bytes of a late tensor from the values known now. */
static frugal_status take_dims(frugal_session *s, uint32_t step, int32_t t, frugal_error *err) {
    fr_tensor *x = &s->tensors[t];
    for (int a = 0; a < x->rank; a++) {
        const int64_t d = s->plan.tensors[t].dims[a];
        x->dims[a] = d >= 0 ? d : s->values[-1 - d];
        if (x->dims[a] >= 0)
            continue;
        fail(err, FRUGAL_BAD_SHAPE, step, t, 0, x->dims[a],
             x->dims[a] == FR_UNKNOWN ? "a size is not known when it is needed" : "a size that the data gives is not valid");
        if (err)
            err->axis = a;
        return FRUGAL_BAD_SHAPE;
    }
    if (!fr_layout_bytes(x->dtype, x->layout, x->rank, x->dims, &x->n, &x->bytes))
        return fail(err, FRUGAL_TOO_BIG, step, t, 0, 0, "a tensor has more than 2^40 elements");
    return FRUGAL_OK;
}

/* ---- the heap ---- */

static uint64_t heap_limit(const frugal_session *s) {
    return s->limit > (uint64_t)s->heap_at ? s->limit - (uint64_t)s->heap_at : 0;
}

/* Where bytes fit among the tensors in the heap (*at of them before), at a multiple of 64; FRUGAL_MORE where the arena ends. */
static frugal_status find_room(frugal_session *s, uint32_t step, int32_t t, int64_t bytes, int64_t *offset, int32_t *at,
                               frugal_error *err) {
    int64_t end = 0, need;
    int32_t k = 0;
    for (; k < s->n_live; k++) {
        const int32_t y = s->placed[k];
        if (s->offset[y] - end >= bytes)
            break;
        end = s->offset[y] + s->room[y];
    }
    if (__builtin_add_overflow(end, bytes, &need) || (uint64_t)need > heap_limit(s))
        return fail(err, FRUGAL_TOO_BIG, step, t, (int64_t)(s->limit & INT64_MAX), need,
                    "sizes that the data gives need more memory than the limit");
    if (need > s->heap_bytes) {
        s->heap_want = fr_max(s->heap_want, fr_round_up(need, 64));
        const int64_t more =
            s->heap_want + s->heap_want / 2; /* so that a loop that grows something is begun anew only a few times */
        if ((uint64_t)more <= heap_limit(s))
            s->heap_want = fr_round_up(more, 64);
        return fail(err, FRUGAL_MORE, step, t, need, s->heap_bytes, "the data asks for a larger arena");
    }
    *offset = end, *at = k;
    return FRUGAL_OK;
}

static void leave_heap(frugal_session *s, int32_t t) {
    int32_t k = 0;
    if (s->room[t] == 0)
        return;
    while (s->placed[k] != t)
        k++;
    for (s->n_live--; k < s->n_live; k++)
        s->placed[k] = s->placed[k + 1];
    s->room[t] = 0;
}

/* Gives t a place of at least its bytes; `spare` asks for more than it needs now. */
static frugal_status enter_heap(frugal_session *s, uint32_t step, int32_t t, int64_t spare, frugal_error *err) {
    fr_tensor *x = &s->tensors[t];
    int64_t bytes, offset;
    int32_t at;
    leave_heap(s, t);
    x->data = s->nothing;
    if (x->bytes == 0)
        return FRUGAL_OK;
    if (__builtin_add_overflow(x->bytes, spare, &bytes) || bytes > INT64_MAX - 64)
        bytes = x->bytes;
    bytes = fr_round_up(bytes, 64);
    FR_TRY(find_room(s, step, t, bytes, &offset, &at, err));
    for (int32_t k = s->n_live++; k > at; k--)
        s->placed[k] = s->placed[k - 1];
    s->placed[at] = t;
    s->offset[t] = offset;
    s->room[t] = bytes;
    x->data = s->base + s->heap_at + offset;
    return FRUGAL_OK;
}

/* ---- one step ---- */

static frugal_status prepare_input(frugal_session *s, uint32_t step, int32_t t, frugal_error *err) {
    fr_tensor *x = &s->tensors[t];
    const fr_tensor *root = &s->tensors[x->root];
    if (s->late[x->root] && !s->ready[x->root])
        return fail(err, FRUGAL_BAD_PLAN, step, t, 0, 0, "a step reads a tensor that was not written in this run");
    if (x->root == t)
        return FRUGAL_OK;
    FR_TRY(take_dims(s, step, t, err));
    if (x->n != root->n)
        return fail(err, FRUGAL_BAD_SHAPE, step, t, root->n, x->n, "an alias has another element count than its tensor");
    x->data = root->data;
    return FRUGAL_OK;
}

static frugal_status prepare(frugal_session *s, uint32_t step, frugal_error *err) {
    const frugal_plan_step *p = &s->plan.steps[step];
    const int32_t *args = s->plan.args + p->args;
    for (uint32_t k = 0; k < p->n_in; k++) {
        if (args[k] >= 0 && s->late[args[k]] && p->op != FRUGAL_OP_MERGE)
            FR_TRY(prepare_input(s, step, args[k], err));
    }
    for (uint32_t k = 0; k < p->n_attr; k++) {
        const int64_t d = fr_dim_attr(s, p, k);
        if (d < 0 && s->values[-1 - d] < 0)
            return fail(err, FRUGAL_BAD_SHAPE, step, -1, 0, s->values[-1 - d], "a size that the data gives is not valid");
    }
    for (uint32_t k = p->n_in; k < (uint32_t)p->n_in + p->n_out; k++) {
        if (!s->late[args[k]] || p->op == FRUGAL_OP_MERGE || p->op == FRUGAL_OP_VAR)
            continue;
        FR_TRY(take_dims(s, step, args[k], err));
        FR_TRY(enter_heap(s, step, args[k], 0, err));
    }
    return FRUGAL_OK;
}

/* The step's scratch: that of resolve where it is large enough, else behind what lives in the heap now. */
static frugal_status take_scratch(frugal_session *s, uint32_t step, const fr_op *op, fr_call *c, frugal_error *err) {
    fr_scratch need = {0, 0};
    int64_t all, offset;
    int32_t at;
    c->shared = s->base + s->shared_at;
    c->scratch = s->base + s->scratch_at;
    if (!s->late_step[step] || !op->scratch)
        return FRUGAL_OK;
    op->scratch(c, &need);
    const int64_t shared = fr_round_up(need.shared, 64), thread = fr_round_up(need.thread, 64);
    if (shared <= s->shared_bytes && thread <= s->scratch_bytes)
        return FRUGAL_OK;
    if (__builtin_mul_overflow(thread, (int64_t)s->threads, &all) || __builtin_add_overflow(all, shared, &all))
        all = INT64_MAX;
    FR_TRY(find_room(s, step, -1, all, &offset, &at, err));
    c->shared = s->base + s->heap_at + offset;
    c->scratch = c->shared + shared;
    c->scratch_bytes = thread;
    return FRUGAL_OK;
}

static void mark_written(frugal_session *s, int32_t t) {
    s->ready[t] = 1;
    if (s->source[t])
        eval_late_dims(s, t);
}

static frugal_status run_step(frugal_session *s, uint32_t step, fr_call *c, frugal_error *err) {
    const frugal_plan_step *p = &s->plan.steps[step];
    const fr_op *op = &fr_ops[p->op];
    const int32_t *outs = s->plan.args + p->args + p->n_in;
    frugal_error e;
    FR_TRY(prepare(s, step, err));
    fr_make_call(s, step, c, &e);
    if (s->late_step[step] && op->check(c) != FRUGAL_OK)
        return fr_give(err, &e, step);
    FR_TRY(take_scratch(s, step, op, c, err));
    if (fr_any_output(c) && fr_run_op(s, step, op, c) != FRUGAL_OK)
        return fr_give(err, &e, step);
    c->err = err;
    for (uint32_t k = 0; k < p->n_out; k++)
        mark_written(s, outs[k]);
    return FRUGAL_OK;
}

/* ---- MERGE, VAR, SET ---- */

/* Whether axis a of tensor t is what t itself says: then a value may give it any length. */
static bool own_axis(const frugal_session *s, int32_t t, int a) {
    const int64_t d = s->plan.tensors[t].dims[a];
    const frugal_plan_dim *dim = d < 0 ? &s->plan.dims[-1 - d] : NULL;
    return dim && dim->op == FRUGAL_DIM_SHAPE && dim->a == t && dim->b == a;
}

/* y becomes a copy of x, whose shape it takes along its own late axes. */
static frugal_status assign(frugal_session *s, uint32_t step, int32_t y, int32_t x, frugal_error *err) {
    fr_tensor *to = &s->tensors[y];
    if (s->bad[x])
        return fr_bad_tensor(s, (uint32_t)x, err);
    if (s->late[x])
        FR_TRY(prepare_input(s, step, x, err));
    const fr_tensor from = s->tensors[x];
    if (to->dtype != from.dtype || to->rank != from.rank)
        return fail(err, FRUGAL_BAD_SHAPE, step, y, to->rank, from.rank, "another rank or data type than the other values have");
    for (int a = 0; a < to->rank; a++) {
        const int64_t d = s->plan.tensors[y].dims[a];
        const int64_t want = own_axis(s, y, a) ? from.dims[a] : d >= 0 ? d : s->values[-1 - d];
        if (want != from.dims[a])
            return fail(err, FRUGAL_BAD_SHAPE, step, y, want, from.dims[a], "another shape than the other values have");
        to->dims[a] = want;
    }
    to->n = from.n, to->bytes = from.bytes;
    if (s->late[y] && s->room[y] < to->bytes)
        FR_TRY(enter_heap(s, step, y, 0, err)); /* x may be a view of y: what left the heap stays readable for the copy */
    if (to->bytes > 0)
        memmove(to->data, from.data, (size_t)to->bytes);
    mark_written(s, y);
    return FRUGAL_OK;
}

/* A variable without a first value: zeros, of length 0 along its own late axes. */
static frugal_status clear(frugal_session *s, uint32_t step, int32_t v, frugal_error *err) {
    fr_tensor *x = &s->tensors[v];
    if (s->late[v]) {
        s->ready[v] = 1;
        for (int a = 0; a < x->rank; a++)
            x->dims[a] = 0;
        eval_late_dims(s, v);
        FR_TRY(take_dims(s, step, v, err));
        FR_TRY(enter_heap(s, step, v, 0, err));
    }
    if (x->bytes > 0)
        memset(x->data, 0, (size_t)x->bytes);
    mark_written(s, v);
    return FRUGAL_OK;
}

static frugal_status append_row(frugal_session *s, uint32_t step, int32_t v, int32_t x, int64_t row, frugal_error *err) {
    fr_tensor *to = &s->tensors[v];
    if (s->late[x])
        FR_TRY(prepare_input(s, step, x, err));
    const fr_tensor *from = &s->tensors[x];
    const bool grows = own_axis(s, v, 0);
    if (to->dtype != from->dtype || to->rank != from->rank + 1)
        return fail(err, FRUGAL_BAD_SHAPE, step, v, to->rank - 1, from->rank, "a row of another rank or data type");
    if (grows)
        row = to->dims[0];
    for (int a = 0; a < from->rank; a++) {
        if (row == 0 && own_axis(s, v, a + 1))
            to->dims[a + 1] = from->dims[a];
        if (to->dims[a + 1] != from->dims[a])
            return fail(err, FRUGAL_BAD_SHAPE, step, v, to->dims[a + 1], from->dims[a], "a row of another shape");
    }
    if (row < 0 || row >= (grows ? FRUGAL_MAX_DIM : to->dims[0]))
        return fail(err, FRUGAL_BAD_SHAPE, step, v, to->dims[0], row, "a loop gives more rows than its result has");
    if (grows)
        to->dims[0] = row + 1;
    if (!fr_layout_bytes(to->dtype, FRUGAL_PLAIN, to->rank, to->dims, &to->n, &to->bytes))
        return fail(err, FRUGAL_TOO_BIG, step, v, 0, 0, "a tensor has more than 2^40 elements");
    if (s->late[v] && s->room[v] < to->bytes) {
        const uint8_t *old = to->data;
        FR_TRY(enter_heap(s, step, v, to->bytes, err));
        if (row > 0)
            memmove(to->data, old, (size_t)(row * from->bytes));
        else if (!grows)
            memset(to->data, 0, (size_t)to->bytes);
    }
    if (from->bytes > 0)
        memcpy(to->data + row * from->bytes, s->tensors[x].data, (size_t)from->bytes);
    mark_written(s, v);
    return FRUGAL_OK;
}

static frugal_status truth(const frugal_session *s, uint32_t step, int32_t t, bool *yes, frugal_error *err) {
    const fr_tensor *x = &s->tensors[t];
    if (x->dtype != FR_BOOL || x->n != 1)
        return fail(err, FRUGAL_BAD_SHAPE, step, t, 1, x->n, "a condition is not one bool");
    *yes = x->data[0] != 0;
    return FRUGAL_OK;
}

static frugal_status number(const frugal_session *s, uint32_t step, int32_t t, int64_t *v, frugal_error *err) {
    const fr_tensor *x = &s->tensors[t];
    if ((x->dtype != FR_I64 && x->dtype != FR_I32) || x->n != 1)
        return fail(err, FRUGAL_BAD_SHAPE, step, t, 1, x->n, "a count is not one int32 or int64");
    int32_t small = 0;
    memcpy(x->dtype == FR_I64 ? (void *)v : (void *)&small, x->data, (size_t)fr_dtype_bytes(x->dtype));
    if (x->dtype == FR_I32)
        *v = small;
    return FRUGAL_OK;
}

static frugal_status merge(frugal_session *s, uint32_t step, const int32_t *args, frugal_error *err) {
    bool yes = false;
    if (s->late[args[0]])
        FR_TRY(prepare_input(s, step, args[0], err));
    FR_TRY(truth(s, step, args[0], &yes, err));
    return assign(s, step, args[3], yes ? args[1] : args[2], err);
}

static frugal_status set(frugal_session *s, uint32_t step, const frugal_plan_step *p, const int32_t *args, frugal_error *err) {
    int64_t row = 0;
    if (!s->plan.attrs[p->attrs])
        return assign(s, step, args[0], args[1], err);
    if (p->n_in > 2 && args[2] >= 0) {
        if (s->late[args[2]])
            FR_TRY(prepare_input(s, step, args[2], err));
        FR_TRY(number(s, step, args[2], &row, err));
    }
    if (s->tensors[args[0]].rank < 1)
        return fail(err, FRUGAL_BAD_SHAPE, step, args[0], 1, 0, "rows are appended to a scalar");
    return append_row(s, step, args[0], args[1], row, err);
}

/* ---- blocks ---- */

/* Begins turn t of a loop. */
static frugal_status begin_turn(frugal_session *s, uint32_t loop, int64_t t, frugal_error *err) {
    const frugal_plan_step *p = &s->plan.steps[loop];
    const int32_t i = s->plan.args[p->args + p->n_in];
    if (s->turns_left-- <= 0)
        return fail(err, FRUGAL_TOO_BIG, loop, -1, s->max_turns, s->max_turns + 1, "loops run more often than the limit");
    s->turn[loop] = t;
    memcpy(s->tensors[i].data, &t, sizeof t);
    mark_written(s, i);
    return FRUGAL_OK;
}

/* *next: the step that follows. */
static frugal_status loop(frugal_session *s, uint32_t step, const frugal_plan_step *p, const int32_t *args, uint32_t *next,
                          frugal_error *err) {
    bool go = true;
    int64_t turns = INT64_MAX;
    const int64_t zero = 0;
    const fr_tensor *i = &s->tensors[args[p->n_in]];
    if (i->dtype != FR_I64 || i->n != 1)
        return fail(err, FRUGAL_BAD_SHAPE, step, args[p->n_in], 1, i->n, "the number of a turn is not one int64");
    if (p->n_in > 0 && args[0] >= 0)
        FR_TRY(number(s, step, args[0], &turns, err));
    if (p->n_in > 1 && args[1] >= 0)
        FR_TRY(truth(s, step, args[1], &go, err));
    s->turns[step] = turns;
    memcpy(i->data, &zero, sizeof zero);
    mark_written(s, args[p->n_in]);
    if (!go || turns <= 0) {
        *next = (uint32_t)s->jump[step] + 1;
        return FRUGAL_OK;
    }
    return begin_turn(s, step, 0, err);
}

static frugal_status end(frugal_session *s, uint32_t step, const frugal_plan_step *p, const int32_t *args, uint32_t *next,
                         frugal_error *err) {
    const uint32_t opener = (uint32_t)s->jump[step];
    bool go = true;
    if (s->plan.steps[opener].op != FRUGAL_OP_LOOP)
        return FRUGAL_OK;
    if (p->n_in > 0 && args[0] >= 0)
        FR_TRY(truth(s, step, args[0], &go, err));
    if (!go || s->turn[opener] + 1 >= s->turns[opener])
        return FRUGAL_OK;
    *next = opener + 1;
    return begin_turn(s, opener, s->turn[opener] + 1, err);
}

/* A step that decides or moves whole tensors; *next is the one behind it already. */
static frugal_status control(frugal_session *s, uint32_t step, uint32_t *next, frugal_error *err) {
    const frugal_plan_step *p = &s->plan.steps[step];
    const int32_t *args = s->plan.args + p->args;
    bool yes = true;
    if (p->op != FRUGAL_OP_MERGE)
        FR_TRY(prepare(s, step, err));
    switch (p->op) {
    case FRUGAL_OP_IF:
        FR_TRY(truth(s, step, args[0], &yes, err));
        if (!yes)
            *next = (uint32_t)s->jump[step] + (s->plan.steps[s->jump[step]].op == FRUGAL_OP_ELSE);
        return FRUGAL_OK;
    case FRUGAL_OP_ELSE:
        *next = (uint32_t)s->jump[step];
        return FRUGAL_OK;
    case FRUGAL_OP_END:
        return end(s, step, p, args, next, err);
    case FRUGAL_OP_LOOP:
        return loop(s, step, p, args, next, err);
    case FRUGAL_OP_MERGE:
        return merge(s, step, args, err);
    case FRUGAL_OP_VAR:
        return p->n_in > 0 && args[0] >= 0 ? assign(s, step, args[p->n_in], args[0], err) : clear(s, step, args[p->n_in], err);
    default:
        return set(s, step, p, args, err);
    }
}

/* ---- the run ---- */

static void begin_run(frugal_session *s, size_t arena_bytes) {
    s->heap_at = s->arena_bytes;
    s->heap_bytes = (int64_t)arena_bytes - s->arena_bytes;
    s->n_live = 0;
    s->turns_left = s->max_turns;
    eval_late_dims(s, -1);
    for (uint32_t i = 0; i < s->plan.n_tensors; i++) {
        s->ready[i] = 0;
        s->room[i] = 0;
        if (s->tensors[i].kind == FRUGAL_TENSOR_INPUT)
            mark_written(s, (int32_t)i);
    }
}

/* After the last step that reads them. */
static void bury(frugal_session *s, uint32_t step) {
    for (int32_t t = s->dying[step]; t >= 0; t = s->next_dying[t])
        leave_heap(s, t), s->ready[t] = 0;
}

frugal_status fr_run_dynamic(frugal_session *s, size_t arena_bytes, frugal_error *err) {
    const bool timed = s->records && s->clock;
    begin_run(s, arena_bytes);
    for (uint32_t i = 0, next; i < s->plan.n_steps; i = next) {
        const uint16_t op = s->plan.steps[i].op;
        const int64_t start = timed ? s->clock() : 0;
        fr_call c;
        next = i + 1;
        if (s->doubtful[i])
            return fr_check_step(s, i, &c, err);
        if (op >= FRUGAL_OP_IF && op <= FRUGAL_OP_SET) {
            frugal_error e;
            FR_TRY(control(s, i, &next, err));
            fr_make_call(s, i, &c, &e);
        } else {
            fr_pool_expect(s->pool, s->operations[i]);
            FR_TRY(run_step(s, i, &c, err));
        }
        if (s->records)
            fr_record_step(s, i, &c, timed ? s->clock() - start : 0);
        if (next != i + 1 && op == FRUGAL_OP_END)
            continue; /* back to the loop: what it reads lives on */
        bury(s, i);
        if (next != i + 1 && op == FRUGAL_OP_LOOP)
            bury(s, next - 1); /* its END, which no turn came to */
    }
    return FRUGAL_OK;
}

/* ---- the rows of the table: what can be checked before a run ---- */

static bool one_bool(const fr_tensor *x) { return !x || (x->dtype == FR_BOOL && x->n == 1); }

frugal_status fr_control_check(const fr_call *c) {
    for (int32_t k = 0; k < c->n_in; k++) {
        const fr_tensor *x = c->in[k];
        const bool count = c->n_out == 1 && k == 0 && (!x || ((x->dtype == FR_I64 || x->dtype == FR_I32) && x->n == 1));
        if (!count && !one_bool(x))
            return fr_fail(c, FRUGAL_BAD_SHAPE, k, -1, 1, x ? x->n : 0, "a condition is one bool, a count one int32 or int64");
    }
    if (c->n_out == 1 && (c->out[0]->dtype != FR_I64 || c->out[0]->n != 1))
        return fr_fail(c, FRUGAL_BAD_SHAPE, c->n_in, -1, 1, c->out[0]->n, "the number of a turn is one int64");
    return FRUGAL_OK;
}

/* Where all of the shapes are known; a late operand is compared in the run. */
frugal_status fr_merge_check(const fr_call *c) {
    FR_SHAPE(c, one_bool(c->in[0]), "a condition is not one bool");
    for (int32_t k = 1; k < 3; k++) {
        FR_DTYPE(c, c->in[k]->dtype == c->out[0]->dtype, "the values and the result must have one data type");
        FR_TRY(fr_same_shape(c, c->in[k], c->out[0], k));
    }
    return FRUGAL_OK;
}

frugal_status fr_var_check(const fr_call *c) {
    if (!c->in[0])
        return FRUGAL_OK;
    FR_DTYPE(c, c->in[0]->dtype == c->out[0]->dtype, "a variable has the data type of its first value");
    return fr_same_shape(c, c->in[0], c->out[0], 0);
}

frugal_status fr_set_check(const fr_call *c) {
    const fr_tensor *v = c->in[0], *x = c->in[1];
    FR_DTYPE(c, v->dtype == x->dtype, "a variable keeps its data type");
    if (!c->attrs[0])
        return fr_same_shape(c, x, v, 1);
    FR_SHAPE(c, v->rank == x->rank + 1, "a row has one axis less than its variable");
    for (int32_t a = 0; a < x->rank; a++) {
        if (v->dims[a + 1] != x->dims[a])
            return fr_fail(c, FRUGAL_BAD_SHAPE, 1, a, v->dims[a + 1], x->dims[a], "a row of another shape than its variable's");
    }
    return FRUGAL_OK;
}

/* The session runs these steps itself. */
#define NOT_HERE(name)                                                                                                           \
    frugal_status fr_##name##_run(const fr_call *c) {                                                                            \
        return fr_fail(c, FRUGAL_BAD_PLAN, -1, -1, 0, 0, "a step of control flow outside of a session");                         \
    }
NOT_HERE(control)
NOT_HERE(merge)
NOT_HERE(var)
NOT_HERE(set)
