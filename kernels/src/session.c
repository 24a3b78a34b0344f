/* session.c - one plan with its shapes resolved and its memory laid out: init once, resolve for every new set of input shapes,
 * run as often as you like. */
#include "session.h"

enum { SPARE_OPERANDS = 12 }; /* absent trailing operands read as NULL */

/* ---- memory ---- */

/* Adds n records of size bytes at a multiple of 64; with mem the address, else NULL.  *total saturates. */
static void *carve(uint8_t *mem, uint64_t *total, uint64_t n, uint64_t size) {
    const uint64_t at = *total;
    *total += (n * size + 63) / 64 * 64; /* counts are below 2^33 and sizes below 2^10: no overflow */
    return mem ? mem + at : NULL;
}

static uint64_t lay_out(frugal_session *s, const frugal_plan *p, uint8_t *mem) {
    uint64_t total = 0;
    (void)carve(mem, &total, 1, sizeof *s);
    s->values = carve(mem, &total, p->n_dims, sizeof *s->values);
    s->tensors = carve(mem, &total, p->n_tensors, sizeof *s->tensors);
    s->offset = carve(mem, &total, p->n_tensors, sizeof *s->offset);
    s->first = carve(mem, &total, p->n_tensors, sizeof *s->first);
    s->last = carve(mem, &total, p->n_tensors, sizeof *s->last);
    s->order = carve(mem, &total, p->n_tensors, sizeof *s->order);
    s->placed = carve(mem, &total, p->n_tensors, sizeof *s->placed);
    s->inputs = carve(mem, &total, p->n_inputs, sizeof *s->inputs);
    s->outputs = carve(mem, &total, p->n_outputs, sizeof *s->outputs);
    s->operands = carve(mem, &total, (uint64_t)p->max_args + SPARE_OPERANDS, sizeof *s->operands);
    s->parent = carve(mem, &total, p->n_steps, sizeof *s->parent);
    s->jump = carve(mem, &total, p->n_steps, sizeof *s->jump);
    s->turn = carve(mem, &total, p->n_steps, sizeof *s->turn);
    s->turns = carve(mem, &total, p->n_steps, sizeof *s->turns);
    s->dying = carve(mem, &total, p->n_steps, sizeof *s->dying);
    s->next_dying = carve(mem, &total, p->n_tensors, sizeof *s->next_dying);
    s->room = carve(mem, &total, p->n_tensors, sizeof *s->room);
    s->late_dim = carve(mem, &total, p->n_dims, sizeof *s->late_dim);
    s->late = carve(mem, &total, p->n_tensors, sizeof *s->late);
    s->late_step = carve(mem, &total, p->n_steps, sizeof *s->late_step);
    s->bad = carve(mem, &total, p->n_tensors, sizeof *s->bad);
    s->doubtful = carve(mem, &total, p->n_steps, sizeof *s->doubtful);
    s->operations = carve(mem, &total, p->n_steps, sizeof *s->operations);
    s->source = carve(mem, &total, p->n_tensors, sizeof *s->source);
    s->ready = carve(mem, &total, p->n_tensors, sizeof *s->ready);
    return total;
}

size_t frugal_session_bytes(const frugal_plan *plan) {
    frugal_session s;
    if (!plan)
        return 0;
    return (size_t)lay_out(&s, plan, NULL);
}

static void init_tensors(frugal_session *s) {
    const frugal_plan *p = &s->plan;
    uint32_t n_in = 0, n_out = 0;
    for (uint32_t i = 0; i < p->n_tensors; i++) {
        const frugal_plan_tensor *t = &p->tensors[i];
        fr_tensor *x = &s->tensors[i];
        *x = (fr_tensor){.root = t->kind == FRUGAL_TENSOR_ALIAS ? t->alias : (int32_t)i,
                         .dtype = t->dtype,
                         .rank = t->rank,
                         .layout = t->layout,
                         .kind = t->kind};
        if (t->kind == FRUGAL_TENSOR_INPUT)
            s->inputs[n_in++] = (int32_t)i;
        if (t->kind == FRUGAL_TENSOR_OUTPUT)
            s->outputs[n_out++] = (int32_t)i;
    }
    for (uint32_t i = 0; i < p->n_tensors; i++) {
        const frugal_plan_tensor *root = &p->tensors[s->tensors[i].root];
        /* Read only: plan.c lets no step write a constant. */
        if (root->kind == FRUGAL_TENSOR_CONST)
            s->tensors[i].data = root->bytes ? (uint8_t *)(uintptr_t)(p->data + root->offset) : s->nothing;
    }
}

/* The step until which what `step` reads has to live when `writer` wrote it: a step inside of a block that the writer is not in
 * may run again, or not at all. */
static int32_t needed_until(const frugal_session *s, int32_t writer, int32_t step) {
    const int32_t home = writer < 0 ? FR_NO_BLOCK : s->parent[writer];
    int32_t until = step, block = s->parent[step];
    while (block != FR_NO_BLOCK && block != home)
        block = s->parent[block];
    if (block != home)
        return step; /* a MERGE, behind the block */
    for (block = s->parent[step]; block != home; block = s->parent[block])
        until = s->plan.steps[s->jump[block]].op == FRUGAL_OP_ELSE ? s->jump[s->jump[block]] : s->jump[block];
    return until;
}

/* Lifetimes do not depend on the shapes. */
static void init_lifetimes(frugal_session *s) {
    const frugal_plan *p = &s->plan;
    for (uint32_t i = 0; i < p->n_tensors; i++)
        s->last[i] = s->first[i];
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const int32_t *args = p->args + p->steps[i].args;
        for (uint32_t k = 0; k < p->steps[i].n_in; k++) {
            const int32_t root = args[k] >= 0 ? s->tensors[args[k]].root : -1;
            if (root >= 0)
                s->last[root] = (int32_t)fr_max(s->last[root], needed_until(s, s->first[root], (int32_t)i));
        }
    }
}

frugal_status frugal_session_init(frugal_session **out, void *mem, size_t mem_bytes, const frugal_plan *plan,
                                  const frugal_isa *isa, frugal_pool *pool, uint64_t limit, frugal_error *err) {
    if (!out || !mem || !plan)
        return fr_error(err, FRUGAL_BAD_ARG, -1, -1, "null pointer");
    if (!isa)
        return fr_error(err, FRUGAL_NO_ISA, -1, -1, "this instruction set is not available");
    if ((uintptr_t)mem % 64)
        return fr_error(err, FRUGAL_BAD_ARG, -1, -1, "the session's memory is not 64-aligned");
    frugal_session *s = mem, sizes;
    if (lay_out(&sizes, plan, NULL) > mem_bytes)
        return fr_error(err, FRUGAL_BAD_ARG, -1, -1, "the session's memory is too small");
    *s = (frugal_session){
        .plan = *plan, .isa = isa, .pool = pool, .threads = frugal_pool_threads(pool), .limit = limit, .repeat_step = -1};
    (void)lay_out(s, plan, mem);
    FR_TRY(fr_plan_check_blocks(plan, s->parent, s->jump, err));
    FR_TRY(fr_plan_check_flow(plan, s->parent, s->jump, s->first, err));
    init_tensors(s);
    init_lifetimes(s);
    FR_TRY(fr_control_init(s, err));
    *out = s;
    return FRUGAL_OK;
}

/* ---- calls ---- */

void fr_make_call(frugal_session *s, uint32_t step, fr_call *c, frugal_error *err) {
    const frugal_plan_step *t = &s->plan.steps[step];
    const int32_t *args = s->plan.args + t->args;
    fr_tensor **in = s->operands, **out = in + t->n_in;
    uint32_t n = t->n_in;
    for (uint32_t k = 0; k < n; k++)
        in[k] = args[k] < 0 ? NULL : &s->tensors[args[k]];
    for (uint32_t k = 0; k + t->n_in < SPARE_OPERANDS; k++)
        in[n++] = NULL; /* in[0..11] may always be read */
    out = in + n;
    for (uint32_t k = 0; k < t->n_out; k++)
        out[k] = &s->tensors[args[t->n_in + k]];
    *c = (fr_call){.isa = s->isa,
                   .pool = s->pool,
                   .threads = s->threads,
                   .n_in = t->n_in,
                   .n_out = t->n_out,
                   .n_attr = t->n_attr,
                   .in = in,
                   .out = out,
                   .args = args,
                   .attrs = s->plan.attrs + t->attrs,
                   .values = s->values,
                   .scratch_bytes = s->scratch_bytes,
                   .err = err};
}

frugal_status fr_fail(const fr_call *c, frugal_status status, int32_t pos, int32_t axis, int64_t want, int64_t got,
                      const char *what) {
    *c->err = (frugal_error){.status = (int32_t)status,
                             .step = -1, /* the session knows it */
                             .tensor = pos < 0 ? -1 : c->args[pos],
                             .input = -1,
                             .axis = axis,
                             .want = want,
                             .got = got,
                             .what = what};
    return status;
}

frugal_status fr_give(frugal_error *err, const frugal_error *from, uint32_t step) {
    if (err) {
        *err = *from;
        err->step = (int32_t)step;
    }
    return (frugal_status)from->status;
}

/* ---- resolve ---- */

static frugal_status tensor_error(frugal_error *err, frugal_status status, uint32_t t, int32_t axis, int64_t want, int64_t got,
                                  const char *what) {
    fr_error(err, status, -1, (int32_t)t, what);
    if (err)
        err->axis = axis, err->want = want, err->got = got;
    return status;
}

static bool invalid(const frugal_session *s, int64_t d) { return d < 0 && s->values[-1 - d] == FR_INVALID; }

/* The first of the expressions that a dim without a value is made of. */
static frugal_status dim_error(const frugal_session *s, int64_t d, uint32_t t, frugal_error *err) {
    const frugal_plan_dim *e = &s->plan.dims[-1 - d];
    while (invalid(s, e->a) || invalid(s, e->b))
        e = &s->plan.dims[-1 - (invalid(s, e->a) ? e->a : e->b)];
    const int64_t a = e->a >= 0 ? e->a : s->values[-1 - e->a], b = e->b >= 0 ? e->b : s->values[-1 - e->b];
    return tensor_error(err, FRUGAL_BAD_SHAPE, t, -1, a, b,
                        "an expression of the input dims has no valid value for these inputs");
}

frugal_status fr_bad_tensor(const frugal_session *s, uint32_t t, frugal_error *err) {
    const fr_tensor *x = &s->tensors[t], *root = &s->tensors[x->root];
    if (x->root != (int32_t)t && s->bad[x->root])
        return fr_bad_tensor(s, (uint32_t)x->root, err);
    for (int a = 0; a < x->rank; a++) {
        if (invalid(s, s->plan.tensors[t].dims[a]))
            return dim_error(s, s->plan.tensors[t].dims[a], t, err);
    }
    int64_t n, bytes;
    if (!fr_layout_bytes(x->dtype, x->layout, x->rank, x->dims, &n, &bytes))
        return tensor_error(err, FRUGAL_TOO_BIG, t, -1, 0, 0, "a tensor has more than 2^40 elements");
    return tensor_error(err, FRUGAL_BAD_SHAPE, t, -1, root->n, n, "an alias has another element count than its tensor");
}

static bool take_shape(frugal_session *s, uint32_t t) {
    fr_tensor *x = &s->tensors[t];
    bool valid = true;
    x->n = x->bytes = 0;
    for (int a = 0; a < x->rank; a++) {
        const int64_t d = s->plan.tensors[t].dims[a];
        x->dims[a] = d >= 0 ? d : s->values[-1 - d];
        valid &= x->dims[a] >= 0;
    }
    return s->late[t] || (valid && fr_layout_bytes(x->dtype, x->layout, x->rank, x->dims, &x->n, &x->bytes));
}

/* Shapes that are not valid are an error where a step needs them: no run may come there. */
static frugal_status resolve_shapes(frugal_session *s, frugal_error *err) {
    for (uint32_t i = 0; i < s->plan.n_tensors; i++)
        s->bad[i] = !take_shape(s, i);
    for (uint32_t i = 0; i < s->plan.n_tensors; i++) {
        const fr_tensor *x = &s->tensors[i], *root = &s->tensors[x->root];
        s->bad[i] |= !s->late[i] && (s->bad[x->root] || x->n != root->n);
    }
    for (uint32_t i = 0; i < s->plan.n_inputs; i++) {
        if (s->bad[s->inputs[i]])
            return fr_bad_tensor(s, (uint32_t)s->inputs[i], err);
    }
    return FRUGAL_OK;
}

static frugal_status check_inputs(const frugal_session *s, const int64_t *dims, frugal_error *err) {
    for (uint32_t i = 0; i < s->plan.n_inputs; i++) {
        const fr_tensor *x = &s->tensors[s->inputs[i]];
        for (int32_t a = 0; a < x->rank; a++) {
            const int64_t got = *dims++;
            if (got == x->dims[a])
                continue;
            tensor_error(err, FRUGAL_BAD_INPUT, (uint32_t)s->inputs[i], a, x->dims[a], got,
                         "an input has another shape than the plan asks for");
            if (err)
                err->input = (int32_t)i;
            return FRUGAL_BAD_INPUT;
        }
    }
    return FRUGAL_OK;
}

static frugal_status check_operands(frugal_session *s, uint32_t step, frugal_error *err) {
    const frugal_plan_step *p = &s->plan.steps[step];
    const int32_t *args = s->plan.args + p->args;
    for (uint32_t k = 0; k < (uint32_t)p->n_in + p->n_out; k++) {
        const bool either = p->op == FRUGAL_OP_MERGE && k > 0 && k < p->n_in; /* the branch that did not run */
        if (args[k] >= 0 && s->bad[args[k]] && !either)
            return fr_bad_tensor(s, (uint32_t)args[k], err);
    }
    for (uint32_t k = 0; k < p->n_attr; k++) {
        const int64_t d = fr_dim_attr(s, p, k);
        if (invalid(s, d) && !s->late_dim[-1 - d])
            return dim_error(s, d, UINT32_MAX, err);
    }
    return FRUGAL_OK;
}

frugal_status fr_check_step(frugal_session *s, uint32_t step, fr_call *c, frugal_error *err) {
    const frugal_status status = check_operands(s, step, err);
    frugal_error e;
    if (status != FRUGAL_OK || s->late_step[step])
        return status;
    fr_make_call(s, step, c, &e);
    return fr_ops[s->plan.steps[step].op].check(c) == FRUGAL_OK ? FRUGAL_OK : fr_give(err, &e, step);
}

/* Checks every step and takes the largest scratch.  What a block may never come to is no error yet. */
static frugal_status check_steps(frugal_session *s, frugal_error *err) {
    s->shared_bytes = s->scratch_bytes = s->work = 0;
    for (uint32_t i = 0; i < s->plan.n_steps; i++) {
        const fr_op *op = &fr_ops[s->plan.steps[i].op];
        fr_call c;
        const frugal_status status = fr_check_step(s, i, &c, err);
        s->doubtful[i] = status != FRUGAL_OK;
        s->operations[i] = 0;
        if (s->doubtful[i] && s->parent[i] == FR_NO_BLOCK)
            return status;
        if (s->doubtful[i] || s->late_step[i])
            continue;
        s->operations[i] = fr_step_operations(op, &c);
        if (__builtin_add_overflow(s->work, s->operations[i], &s->work))
            s->work = INT64_MAX;
        if (!op->scratch)
            continue;
        fr_scratch need = {0, 0};
        op->scratch(&c, &need);
        s->shared_bytes = fr_max(s->shared_bytes, fr_round_up(need.shared, 64));
        s->scratch_bytes = fr_max(s->scratch_bytes, fr_round_up(need.thread, 64));
    }
    return FRUGAL_OK;
}

bool fr_in_arena(const fr_tensor *x) { return x->kind == FRUGAL_TENSOR_TEMP || x->kind == FRUGAL_TENSOR_OUTPUT; }

/* Bigger first, then lower index: a total order, so every sort gives the same plan. */
static bool before(const frugal_session *s, int32_t a, int32_t b) {
    const int64_t x = s->tensors[a].bytes, y = s->tensors[b].bytes;
    return x != y ? x > y : a < b;
}

static void sift(const frugal_session *s, int32_t *heap, int64_t i, int64_t n) {
    const int32_t v = heap[i];
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(s, heap[child], heap[child + 1]))
            child++;
        if (!before(s, v, heap[child]))
            break;
        heap[i] = heap[child];
    }
    heap[i] = v;
}

/* Heap sort: in place, no recursion, n log n for every input. */
static void sort_by_size(const frugal_session *s, int32_t *order, int64_t n) {
    for (int64_t i = n / 2; i-- > 0;)
        sift(s, order, i, n);
    for (int64_t i = n; i-- > 1;) {
        const int32_t v = order[0];
        order[0] = order[i];
        order[i] = v;
        sift(s, order, 0, i);
    }
}

/* The offset of the smallest gap, among the tensors alive at the same time, that holds x; behind them when there is none. */
static int64_t best_gap(const frugal_session *s, int32_t x, int64_t n_placed) {
    const int64_t bytes = fr_round_up(s->tensors[x].bytes, 64);
    const int32_t first = s->first[x], last = s->last[x];
    int64_t end = 0, best = -1, best_size = INT64_MAX;
    for (int64_t i = 0; i < n_placed; i++) {
        const int32_t y = s->placed[i];
        if (s->last[y] < first || last < s->first[y])
            continue;
        const int64_t gap = s->offset[y] - end, y_end = s->offset[y] + fr_round_up(s->tensors[y].bytes, 64);
        if (gap >= bytes && gap < best_size)
            best = end, best_size = gap;
        if (y_end > end)
            end = y_end;
    }
    return best >= 0 ? best : end;
}

/* Greedy by size: near the lower bound in practice, and quick enough to repeat for every new length. */
static frugal_status plan_arena(frugal_session *s, frugal_error *err) {
    int64_t n = 0, placed = 0, top = 0;
    for (uint32_t i = 0; i < s->plan.n_tensors; i++) {
        const fr_tensor *x = &s->tensors[i];
        s->offset[i] = 0;
        if (!fr_in_arena(x) || x->bytes == 0 || s->late[i])
            continue;
        if ((uint64_t)x->bytes > s->limit) {
            return tensor_error(err, FRUGAL_TOO_BIG, i, -1, (int64_t)(s->limit & INT64_MAX), x->bytes,
                                "a tensor alone needs more memory than the limit");
        }
        s->order[n++] = (int32_t)i;
    }
    sort_by_size(s, s->order, n);
    for (int64_t i = 0; i < n; i++) {
        const int32_t x = s->order[i];
        const int64_t at = best_gap(s, x, placed);
        int64_t k = placed++;
        s->offset[x] = at;
        for (; k > 0 && s->offset[s->placed[k - 1]] > at; k--)
            s->placed[k] = s->placed[k - 1];
        s->placed[k] = x;
        top = fr_max(top, at + fr_round_up(s->tensors[x].bytes, 64));
    }
    s->shared_at = top;
    s->scratch_at = top + s->shared_bytes;
    int64_t all;
    if (__builtin_mul_overflow(s->scratch_bytes, (int64_t)s->threads, &all) || __builtin_add_overflow(s->scratch_at, all, &all))
        all = INT64_MAX;
    if ((uint64_t)all > s->limit || (uint64_t)all > SIZE_MAX) {
        return tensor_error(err, FRUGAL_TOO_BIG, UINT32_MAX, -1, (int64_t)(s->limit & INT64_MAX), all,
                            "the arena needs more memory than the limit");
    }
    s->arena_bytes = all;
    return FRUGAL_OK;
}

frugal_status frugal_session_resolve(frugal_session *s, const int64_t *dims, frugal_error *err) {
    if (!s || (!dims && s->plan.n_inputs))
        return fr_error(err, FRUGAL_BAD_ARG, -1, -1, "null pointer");
    s->resolved = false;
    s->arena_bytes = 0;
    FR_TRY(fr_plan_eval_dims(&s->plan, s->inputs, dims, s->values, err));
    FR_TRY(resolve_shapes(s, err));
    FR_TRY(check_inputs(s, dims, err));
    FR_TRY(check_steps(s, err));
    FR_TRY(plan_arena(s, err));
    s->resolved = true;
    return FRUGAL_OK;
}

size_t frugal_session_arena_bytes(const frugal_session *s) {
    return s && s->resolved ? (size_t)(s->arena_bytes + s->heap_want) : 0;
}

int32_t frugal_session_shape(const frugal_session *s, int32_t t, int64_t *dims) {
    if (!s || !s->resolved || t < 0 || (uint32_t)t >= s->plan.n_tensors)
        return -1;
    for (int a = 0; a < s->tensors[t].rank; a++)
        dims[a] = s->tensors[t].dims[a];
    return s->tensors[t].rank;
}

int32_t frugal_session_late(const frugal_session *s, uint32_t i) {
    return s && i < s->plan.n_outputs ? s->late[s->outputs[i]] : 0;
}

const void *frugal_session_data(const frugal_session *s, uint32_t i) {
    return s && s->resolved && i < s->plan.n_outputs ? s->tensors[s->outputs[i]].data : NULL;
}

/* One an output element where the operation does not say. */
int64_t fr_step_operations(const fr_op *op, const fr_call *c) {
    return op->operations ? op->operations(c) : c->n_out > 0 ? c->out[0]->n : 0;
}

int64_t fr_session_operations(const frugal_session *s) { return s->resolved ? s->work : 0; }

/* ---- run ---- */

static frugal_status bind_inputs(frugal_session *s, const void *const *inputs, frugal_error *err) {
    for (uint32_t i = 0; i < s->plan.n_inputs; i++) {
        fr_tensor *x = &s->tensors[s->inputs[i]];
        const uintptr_t at = inputs ? (uintptr_t)inputs[i] : 0;
        const char *what = NULL;
        if (x->n > 0 && at == 0)
            what = "an input is NULL";
        if (x->n > 0 && at % (uintptr_t)fr_dtype_bytes(x->dtype))
            what = "an input is not aligned";
        if (what) {
            fr_error(err, FRUGAL_BAD_ARG, -1, s->inputs[i], what);
            if (err)
                err->input = (int32_t)i;
            return FRUGAL_BAD_ARG;
        }
        x->data = x->n > 0 ? (uint8_t *)at : s->nothing;
    }
    return FRUGAL_OK;
}

static frugal_status bind(frugal_session *s, uint8_t *arena, const void *const *inputs, void *const *outputs, frugal_error *err) {
    FR_TRY(bind_inputs(s, inputs, err));
    for (uint32_t i = 0; i < s->plan.n_tensors; i++) {
        fr_tensor *x = &s->tensors[i];
        if (fr_in_arena(x))
            x->data = x->bytes > 0 && !s->late[i] ? arena + s->offset[i] : s->nothing;
    }
    for (uint32_t i = 0; outputs && i < s->plan.n_outputs; i++) {
        fr_tensor *x = &s->tensors[s->outputs[i]];
        if (!outputs[i] || x->n == 0 || s->late[s->outputs[i]])
            continue;
        if ((uintptr_t)outputs[i] % (uintptr_t)fr_dtype_bytes(x->dtype)) {
            return fr_error(err, FRUGAL_BAD_ARG, -1, s->outputs[i], "an output is not aligned");
        }
        x->data = outputs[i];
    }
    for (uint32_t i = 0; i < s->plan.n_tensors; i++)
        s->tensors[i].data = s->tensors[s->tensors[i].root].data;
    return FRUGAL_OK;
}

void fr_record_step(const frugal_session *s, uint32_t step, const fr_call *c, int64_t nanoseconds) {
    const fr_op *op = &fr_ops[s->plan.steps[step].op];
    frugal_record *r = &s->records[step];
    r->nanoseconds += nanoseconds;
    for (int32_t k = 0; k < c->n_in; k++)
        r->bytes_read += c->in[k] ? c->in[k]->bytes : 0;
    for (int32_t k = 0; k < c->n_out; k++)
        r->bytes_written += c->out[k]->bytes;
    r->operations += fr_step_operations(op, c);
}

frugal_status fr_run_op(const frugal_session *s, uint32_t step, const fr_op *op, const fr_call *c) {
    frugal_status status = op->run(c);
    for (int64_t n = (int32_t)step == s->repeat_step ? s->repeat_times : 1; n > 1 && status == FRUGAL_OK; n--)
        status = op->run(c);
    return status;
}

static frugal_status run_steps(frugal_session *s, frugal_error *err) {
    for (uint32_t i = 0; i < s->plan.n_steps; i++) {
        const fr_op *op = &fr_ops[s->plan.steps[i].op];
        frugal_error e;
        fr_call c;
        fr_make_call(s, i, &c, &e);
        c.shared = s->base + s->shared_at;
        c.scratch = s->base + s->scratch_at;
        const bool timed = s->records && s->clock;
        fr_pool_expect(s->pool, s->operations[i]);
        const int64_t start = timed ? s->clock() : 0;
        if (fr_any_output(&c) && fr_run_op(s, i, op, &c) != FRUGAL_OK)
            return fr_give(err, &e, i);
        if (s->records)
            fr_record_step(s, i, &c, timed ? s->clock() - start : 0);
    }
    return FRUGAL_OK;
}

frugal_status frugal_session_run(frugal_session *s, void *arena, size_t arena_bytes, const void *const *inputs,
                                 void *const *outputs, frugal_error *err) {
    if (!s)
        return fr_error(err, FRUGAL_BAD_ARG, -1, -1, "null pointer");
    if (!s->resolved)
        return fr_error(err, FRUGAL_BAD_ARG, -1, -1, "the session's shapes are not resolved");
    if (arena_bytes < (size_t)s->arena_bytes)
        return fr_error(err, FRUGAL_BAD_ARG, -1, -1, "the arena is too small");
    if (arena_bytes > 0 && (!arena || (uintptr_t)arena % 64))
        return fr_error(err, FRUGAL_BAD_ARG, -1, -1, "the arena is NULL or not 64-aligned");
    uint8_t *base = arena_bytes > 0 ? arena : s->nothing;
    FR_TRY(bind(s, base, inputs, outputs, err));
    if (s->records && s->plan.n_steps)
        memset(s->records, 0, s->plan.n_steps * sizeof *s->records);
    s->base = base;
    fr_pool_begin(s->pool, s->work);
    const frugal_status status = s->dynamic ? fr_run_dynamic(s, arena_bytes, err) : run_steps(s, err);
    fr_pool_end(s->pool);
    return status;
}

void frugal_session_repeat(frugal_session *s, int32_t step, int64_t times) {
    if (!s)
        return;
    s->repeat_step = step;
    s->repeat_times = times;
}

void frugal_session_record(frugal_session *s, frugal_record *records, int64_t (*clock)(void)) {
    if (!s)
        return;
    s->records = records;
    s->clock = clock;
}
