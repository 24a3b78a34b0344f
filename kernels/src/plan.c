/* plan.c - checks the bytes of a plan and gives out views into them; no field is used before it is checked here. */
#include "session.h"

enum { MAX_RECORDS = 1 << 14 }; /* tensors, steps and dims each: some checks and arena planning are quadratic */

const char *frugal_status_text(frugal_status status) {
    switch (status) {
    case FRUGAL_OK:
        return "ok";
    case FRUGAL_BAD_PLAN:
        return "not a valid plan";
    case FRUGAL_BAD_VERSION:
        return "a plan of another version";
    case FRUGAL_BAD_INPUT:
        return "an input does not fit the plan";
    case FRUGAL_BAD_SHAPE:
        return "shapes inside the plan contradict each other";
    case FRUGAL_TOO_BIG:
        return "more memory than the limit";
    case FRUGAL_BAD_ARG:
        return "a wrong argument";
    case FRUGAL_NO_ISA:
        return "instruction set not available";
    case FRUGAL_UNSUPPORTED:
        return "not supported by this build";
    case FRUGAL_MORE:
        return "the data asks for a larger arena";
    }
    return "unknown status";
}

frugal_status fr_error(frugal_error *err, frugal_status status, int32_t step, int32_t tensor, const char *what) {
    if (err) {
        *err = (frugal_error){.status = (int32_t)status, .step = step, .tensor = tensor, .input = -1, .axis = -1, .what = what};
    }
    return status;
}

static frugal_status bad(frugal_error *err, int64_t step, int64_t tensor, const char *what) {
    return fr_error(err, FRUGAL_BAD_PLAN, (int32_t)step, (int32_t)tensor, what);
}

/* ---- sections ---- */

static uint64_t record_bytes(uint32_t kind) {
    switch (kind) {
    case FRUGAL_SECTION_DIMS:
        return sizeof(frugal_plan_dim);
    case FRUGAL_SECTION_TENSORS:
        return sizeof(frugal_plan_tensor);
    case FRUGAL_SECTION_STEPS:
        return sizeof(frugal_plan_step);
    case FRUGAL_SECTION_ARGS:
        return sizeof(int32_t);
    case FRUGAL_SECTION_ATTRS:
        return sizeof(int64_t);
    default:
        return 0;
    }
}

static void take_section(frugal_plan *p, const frugal_plan_section *s) {
    const uint8_t *at = p->base + s->offset;
    switch (s->kind) {
    case FRUGAL_SECTION_META:
        p->meta = at, p->meta_bytes = s->bytes;
        break;
    case FRUGAL_SECTION_TEXT:
        p->text = (const char *)at, p->text_bytes = s->bytes;
        break;
    case FRUGAL_SECTION_DIMS:
        p->dims = (const frugal_plan_dim *)(const void *)at, p->n_dims = s->count;
        break;
    case FRUGAL_SECTION_TENSORS:
        p->tensors = (const frugal_plan_tensor *)(const void *)at, p->n_tensors = s->count;
        break;
    case FRUGAL_SECTION_STEPS:
        p->steps = (const frugal_plan_step *)(const void *)at, p->n_steps = s->count;
        break;
    case FRUGAL_SECTION_ARGS:
        p->args = (const int32_t *)(const void *)at, p->n_args = s->count;
        break;
    case FRUGAL_SECTION_ATTRS:
        p->attrs = (const int64_t *)(const void *)at, p->n_attrs = s->count;
        break;
    case FRUGAL_SECTION_DATA:
        p->data = at, p->data_bytes = s->bytes;
        break;
    default:
        break; /* a later minor addition: its place is checked, its content is not ours */
    }
}

static frugal_status open_sections(frugal_plan *p, uint32_t n, frugal_error *err) {
    const frugal_plan_section *table = (const frugal_plan_section *)(const void *)(p->base + sizeof(frugal_plan_header));
    uint64_t end = sizeof(frugal_plan_header) + (uint64_t)n * sizeof(frugal_plan_section);
    uint32_t seen = 0;
    if (end > p->bytes)
        return bad(err, -1, -1, "the section table does not fit in the file");
    for (uint32_t i = 0; i < n; i++) {
        const frugal_plan_section *s = &table[i];
        const uint64_t align = s->kind == FRUGAL_SECTION_DATA ? 4096 : 64, each = record_bytes(s->kind);
        if (s->kind == 0 || s->kind > 31)
            return bad(err, -1, -1, "section kind out of range");
        if (seen >> s->kind & 1)
            return bad(err, -1, -1, "a section occurs twice");
        seen |= UINT32_C(1) << s->kind;
        if (s->offset % align)
            return bad(err, -1, -1, "a section is not aligned");
        if (s->offset < end)
            return bad(err, -1, -1, "sections overlap or are out of order");
        if (s->offset > p->bytes || s->bytes > p->bytes - s->offset)
            return bad(err, -1, -1, "a section does not fit in the file");
        if (each ? s->bytes != each * s->count : s->count != 0)
            return bad(err, -1, -1, "a section's size does not match its record count");
        end = s->offset + s->bytes;
        take_section(p, s);
    }
    return FRUGAL_OK;
}

/* ---- dims ---- */

static bool dim_valid(int64_t d, uint32_t known) { return d >= 0 ? d <= FRUGAL_MAX_DIM : (uint64_t)(-1 - d) < known; }

static const char *check_late_dim(const frugal_plan *p, const frugal_plan_dim *d) {
    if (d->a < 0 || d->a >= (int64_t)p->n_tensors)
        return "a late dim refers to a missing tensor";
    const frugal_plan_tensor *t = &p->tensors[d->a];
    if (t->kind == FRUGAL_TENSOR_ALIAS || t->kind == FRUGAL_TENSOR_CONST || t->layout != FRUGAL_PLAIN)
        return "a late dim refers to a tensor of the wrong kind";
    if (d->op == FRUGAL_DIM_SHAPE)
        return d->b >= 0 && d->b < t->rank ? NULL : "a late dim refers to a missing axis";
    if (t->dtype != FR_I32 && t->dtype != FR_I64)
        return "a late dim refers to a tensor that does not hold int32 or int64";
    return d->b >= 0 && d->b <= FRUGAL_MAX_DIM ? NULL : "a late dim refers to an element out of range";
}

static frugal_status check_dims(const frugal_plan *p, frugal_error *err) {
    for (uint32_t i = 0; i < p->n_dims; i++) {
        const frugal_plan_dim *d = &p->dims[i];
        if (d->name >= p->text_bytes)
            return bad(err, -1, -1, "a dim's name lies outside TEXT");
        if (d->op > FRUGAL_DIM_SHAPE)
            return bad(err, -1, -1, "unknown dim operation");
        if (d->op >= FRUGAL_DIM_VALUE) {
            const char *what = check_late_dim(p, d);
            if (what)
                return bad(err, -1, -1, what);
            continue;
        }
        if (d->op != FRUGAL_DIM_INPUT) {
            if (!dim_valid(d->a, i) || !dim_valid(d->b, i))
                return bad(err, -1, -1, "a dim refers to a later one or is too big");
            continue;
        }
        if (d->a < 0 || d->a >= (int64_t)p->n_inputs)
            return bad(err, -1, -1, "a dim refers to a missing input");
        const frugal_plan_tensor *t = &p->tensors[frugal_plan_input(p, (uint32_t)d->a)];
        if (d->b < 0 || d->b >= t->rank)
            return bad(err, -1, -1, "a dim refers to a missing axis of an input");
    }
    return FRUGAL_OK;
}

/* ---- tensors ---- */

static bool kind_allows_layout(const frugal_plan_tensor *t) {
    switch (t->layout) {
    case FRUGAL_PLAIN:
        return true;
    case FRUGAL_F32_P16:
    case FRUGAL_W8_P16:
    case FRUGAL_W4_P16:
    case FRUGAL_W4O_P16:
    case FRUGAL_W8B_P16:
    case FRUGAL_F16_P16:
    case FRUGAL_BF16_P16:
        return t->kind == FRUGAL_TENSOR_CONST;
    case FRUGAL_A8_TOKEN:
    case FRUGAL_A8_BLOCK:
        return t->kind == FRUGAL_TENSOR_TEMP;
    default:
        return false;
    }
}

static const char *check_const(const frugal_plan *p, const frugal_plan_tensor *t) {
    int64_t n, bytes;
    for (int a = 0; a < t->rank; a++) {
        if (t->dims[a] < 0)
            return "a constant has a symbolic dim";
    }
    if (!fr_layout_bytes(t->dtype, t->layout, t->rank, t->dims, &n, &bytes))
        return "a constant is too big";
    if (t->bytes != (uint64_t)bytes)
        return "a constant's size does not match its shape";
    if (t->offset % 64)
        return "a constant is not aligned";
    if (t->offset > p->data_bytes || t->bytes > p->data_bytes - t->offset)
        return "a constant lies outside DATA";
    return NULL;
}

static const char *check_alias(const frugal_plan *p, const frugal_plan_tensor *t) {
    if (t->alias < 0 || (uint32_t)t->alias >= p->n_tensors)
        return "an alias of a missing tensor";
    const frugal_plan_tensor *root = &p->tensors[t->alias];
    if (root->kind == FRUGAL_TENSOR_ALIAS)
        return "an alias of an alias";
    if (root->dtype != t->dtype)
        return "an alias has another data type than its tensor";
    if (root->layout != FRUGAL_PLAIN || t->layout != FRUGAL_PLAIN)
        return "an alias of a packed tensor";
    return NULL;
}

static const char *check_tensor(const frugal_plan *p, const frugal_plan_tensor *t) {
    static const int64_t ones[FRUGAL_MAX_RANK] = {1, 1, 1, 1, 1, 1, 1, 1};
    int64_t n, bytes;
    if (t->name >= p->text_bytes)
        return "a tensor's name lies outside TEXT";
    if (t->kind > FRUGAL_TENSOR_ALIAS)
        return "unknown tensor kind";
    if (t->rank > FRUGAL_MAX_RANK)
        return "rank above 8";
    if (fr_dtype_bytes(t->dtype) == 0)
        return "unknown data type";
    if (!kind_allows_layout(t))
        return "a layout that this kind of tensor cannot have";
    if (!fr_layout_bytes(t->dtype, t->layout, t->rank, ones, &n, &bytes))
        return "a layout that this data type or rank cannot have";
    for (int a = 0; a < FRUGAL_MAX_RANK; a++) {
        if (a < t->rank ? !dim_valid(t->dims[a], p->n_dims) : t->dims[a] != 0)
            return "a tensor's dim is out of range";
    }
    if (t->kind == FRUGAL_TENSOR_CONST)
        return t->alias == -1 ? check_const(p, t) : "a constant with an alias";
    if (t->offset != 0 || t->bytes != 0)
        return "only constants have an offset and a size";
    if (t->kind == FRUGAL_TENSOR_ALIAS)
        return check_alias(p, t);
    return t->alias == -1 ? NULL : "only an alias has an alias";
}

/* First pass: what the checks of dims and steps rely on. */
static frugal_status count_tensors(frugal_plan *p, frugal_error *err) {
    for (uint32_t i = 0; i < p->n_tensors; i++) {
        if (p->tensors[i].rank > FRUGAL_MAX_RANK)
            return bad(err, -1, i, "rank above 8");
        p->n_inputs += p->tensors[i].kind == FRUGAL_TENSOR_INPUT;
        p->n_outputs += p->tensors[i].kind == FRUGAL_TENSOR_OUTPUT;
    }
    return FRUGAL_OK;
}

/* ---- steps ---- */

/* u, b, r: kinds of unary, binary, reduce; a: axis; t: 0 or 1; c: 0, 1 or 2; n: 0 to FRUGAL_MAX_DIM; s: a step, not 0; i: any
 * integer within FRUGAL_MAX_DIM; m: a mask of axes; f: a float, not NaN; d: a dim. */
static bool attr_valid(const frugal_plan *p, char rule, int64_t v) {
    switch (rule) {
    case 'u':
        return v >= 0 && v < FRUGAL_UNARY_COUNT;
    case 'b':
        return v >= 0 && v < FRUGAL_BINARY_COUNT;
    case 'r':
        return v >= 0 && v < FRUGAL_REDUCE_COUNT;
    case 'a':
        return v >= 0 && v < FRUGAL_MAX_RANK;
    case 't':
        return v == 0 || v == 1;
    case 'c':
        return v >= 0 && v <= 2;
    case 'n':
        return v >= 0 && v <= FRUGAL_MAX_DIM;
    case 's':
        return v != 0 && v >= -FRUGAL_MAX_DIM && v <= FRUGAL_MAX_DIM;
    case 'i':
        return v >= -FRUGAL_MAX_DIM && v <= FRUGAL_MAX_DIM;
    case 'm':
        return v >= 0 && v < 1 << FRUGAL_MAX_RANK;
    case 'f':
        return (v & INT64_MAX) <= INT64_C(0x7ff0000000000000);
    case 'd':
        return dim_valid(v, p->n_dims);
    default:
        return false;
    }
}

static const char *check_attrs(const frugal_plan *p, const fr_op *op, const frugal_plan_step *s) {
    const size_t letters = strlen(op->attrs);
    const bool repeat = letters > 0 && op->attrs[letters - 1] == '*';
    const uint32_t n = (uint32_t)letters - (repeat ? 1 : 0);
    if (s->attrs > p->n_attrs || s->n_attr > p->n_attrs - s->attrs)
        return "a step's attributes lie outside ATTRS";
    if (repeat ? s->n_attr % n != 0 : s->n_attr != n)
        return "a step has a wrong number of attributes";
    for (uint32_t i = 0; i < s->n_attr; i++) {
        if (!attr_valid(p, op->attrs[i % n], p->attrs[s->attrs + i]))
            return "a step's attribute is out of range";
    }
    return NULL;
}

/* Which operand may have a layout other than PLAIN. */
static bool layout_allowed(uint16_t op, bool output, uint32_t i, uint8_t layout) {
    const bool act = layout == FRUGAL_A8_TOKEN || layout == FRUGAL_A8_BLOCK;
    if (op == FRUGAL_OP_QUANTIZE_ACT && output)
        return act;
    if (op == FRUGAL_OP_LINEAR && output)
        return layout == FRUGAL_A8_BLOCK || layout == FRUGAL_PLAIN;
    if (op == FRUGAL_OP_LINEAR && !output && i == 0)
        return act || layout == FRUGAL_PLAIN;
    if (op == FRUGAL_OP_LINEAR && !output && i == 1)
        return !act && layout != FRUGAL_PLAIN;
    if (op == FRUGAL_OP_GATHER_PACKED && !output && i == 0)
        return !act && layout != FRUGAL_PLAIN;
    if ((op == FRUGAL_OP_RECURRENT || op == FRUGAL_OP_CONV) && !output && i == 1)
        return layout == FRUGAL_F32_P16 || layout == FRUGAL_PLAIN;
    return layout == FRUGAL_PLAIN;
}

static const char *check_args(const frugal_plan *p, const fr_op *op, const frugal_plan_step *s) {
    const uint32_t n = (uint32_t)s->n_in + s->n_out;
    if (s->n_in < op->in_min || (op->in_max != 255 && s->n_in > op->in_max))
        return "a step has a wrong number of inputs";
    if (s->n_out != op->n_out)
        return "a step has a wrong number of outputs";
    if (s->args > p->n_args || n > p->n_args - s->args)
        return "a step's operands lie outside ARGS";
    for (uint32_t i = 0; i < n; i++) {
        const int32_t t = p->args[s->args + i];
        const bool output = i >= s->n_in, needed = output || op->in_max == 255 || (op->required >> i & 1);
        if (t == -1 && !needed)
            continue;
        if (t < 0 || (uint32_t)t >= p->n_tensors)
            return "a step refers to a missing tensor";
        const uint8_t kind = p->tensors[t].kind;
        if (output && kind != FRUGAL_TENSOR_TEMP && kind != FRUGAL_TENSOR_OUTPUT)
            return "a step writes what it may not write";
        if (!layout_allowed(s->op, output, output ? i - s->n_in : i, p->tensors[t].layout))
            return "a step cannot use this layout";
    }
    return NULL;
}

static frugal_status check_steps(frugal_plan *p, frugal_error *err) {
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const frugal_plan_step *s = &p->steps[i];
        if (s->op >= FRUGAL_OP_COUNT || !fr_ops[s->op].run)
            return fr_error(err, FRUGAL_UNSUPPORTED, (int32_t)i, -1, "unknown operation");
        if (s->name >= p->text_bytes)
            return bad(err, i, -1, "a step's name lies outside TEXT");
        const char *what = check_args(p, &fr_ops[s->op], s);
        if (!what)
            what = check_attrs(p, &fr_ops[s->op], s);
        if (what)
            return bad(err, i, -1, what);
        const uint32_t n = (uint32_t)s->n_in + s->n_out;
        if (n > p->max_args)
            p->max_args = n;
    }
    return FRUGAL_OK;
}

/* ---- public ---- */

static frugal_status open_header(frugal_plan *p, const void *bytes, size_t size, frugal_error *err, uint32_t *sections) {
    const frugal_plan_header *h = bytes;
    if (size < sizeof *h || memcmp(h->magic, FRUGAL_PLAN_MAGIC, 8) != 0)
        return bad(err, -1, -1, "this is not a plan");
    if (h->version != FRUGAL_PLAN_VERSION) {
        fr_error(err, FRUGAL_BAD_VERSION, -1, -1, "this library does not read plans of this version");
        if (err)
            err->want = FRUGAL_PLAN_VERSION, err->got = h->version;
        return FRUGAL_BAD_VERSION;
    }
    if (h->bytes != size) {
        bad(err, -1, -1, "the file has another size than its header says");
        if (err)
            err->want = (int64_t)(h->bytes & INT64_MAX), err->got = (int64_t)size;
        return FRUGAL_BAD_PLAN;
    }
    if (h->sections > FRUGAL_MAX_SECTIONS)
        return bad(err, -1, -1, "too many sections");
    *sections = h->sections;
    p->base = bytes;
    p->bytes = size;
    return FRUGAL_OK;
}

frugal_status frugal_plan_open(frugal_plan *plan, const void *bytes, size_t size, frugal_error *err) {
    uint32_t sections = 0;
    if (!plan || !bytes)
        return fr_error(err, FRUGAL_BAD_ARG, -1, -1, "null pointer");
    if ((uintptr_t)bytes % 64)
        return fr_error(err, FRUGAL_BAD_ARG, -1, -1, "the plan is not 64-aligned in memory");
    frugal_plan p = {0};
    FR_TRY(open_header(&p, bytes, size, err, &sections));
    FR_TRY(open_sections(&p, sections, err));
    if (p.text_bytes == 0 || p.text[0] != 0 || p.text[p.text_bytes - 1] != 0)
        return bad(err, -1, -1, "TEXT must start and end with NUL");
    if (p.n_tensors > MAX_RECORDS || p.n_steps > MAX_RECORDS || p.n_dims > MAX_RECORDS) {
        return bad(err, -1, -1, "more than 16384 tensors, steps or dims");
    }
    FR_TRY(count_tensors(&p, err));
    FR_TRY(check_dims(&p, err));
    for (uint32_t i = 0; i < p.n_tensors; i++) {
        const char *what = check_tensor(&p, &p.tensors[i]);
        if (what)
            return bad(err, -1, i, what);
    }
    FR_TRY(check_steps(&p, err));
    *plan = p;
    return FRUGAL_OK;
}

static int32_t nth_of_kind(const frugal_plan *plan, uint32_t i, uint8_t kind) {
    for (uint32_t t = 0; t < plan->n_tensors; t++) {
        if (plan->tensors[t].kind == kind && i-- == 0)
            return (int32_t)t;
    }
    return -1;
}
int32_t frugal_plan_input(const frugal_plan *plan, uint32_t i) { return nth_of_kind(plan, i, FRUGAL_TENSOR_INPUT); }
int32_t frugal_plan_output(const frugal_plan *plan, uint32_t i) { return nth_of_kind(plan, i, FRUGAL_TENSOR_OUTPUT); }

/* ---- blocks and flow ---- */

enum { MAX_DEPTH = 64 };

frugal_status fr_plan_check_blocks(const frugal_plan *plan, int32_t *parent, int32_t *jump, frugal_error *err) {
    int32_t block = FR_NO_BLOCK;
    int depth = 0;
    for (uint32_t i = 0; i < plan->n_steps; i++) {
        const uint16_t op = plan->steps[i].op, opener = block < 0 ? FRUGAL_OP_COUNT : plan->steps[block].op;
        jump[i] = -1;
        parent[i] = block;
        if (op == FRUGAL_OP_IF || op == FRUGAL_OP_LOOP) {
            if (++depth > MAX_DEPTH)
                return bad(err, i, -1, "blocks are nested more than 64 deep");
            block = (int32_t)i;
        } else if (op == FRUGAL_OP_ELSE) {
            if (opener != FRUGAL_OP_IF)
                return bad(err, i, -1, "an ELSE without its IF");
            jump[block] = (int32_t)i;
            parent[i] = parent[block];
            block = (int32_t)i;
        } else if (op == FRUGAL_OP_END) {
            if (block < 0)
                return bad(err, i, -1, "an END of nothing");
            if (opener != FRUGAL_OP_LOOP && plan->steps[i].n_in > 0)
                return bad(err, i, -1, "the END of an IF has an operand");
            jump[block] = (int32_t)i;
            jump[i] = block;
            block = parent[block];
            depth--;
        }
    }
    return block == FR_NO_BLOCK ? FRUGAL_OK : bad(err, block, -1, "a block without its END");
}

static int32_t root_of(const frugal_plan *plan, int32_t t) {
    return plan->tensors[t].kind == FRUGAL_TENSOR_ALIAS ? plan->tensors[t].alias : t;
}

/* Whether a step in block `from` sees what a step in block `home` wrote. */
static bool sees(const int32_t *parent, int32_t from, int32_t home) {
    while (from != home && from != FR_NO_BLOCK)
        from = parent[from];
    return from == home;
}

/* MERGE may read a from the IF block, and b from the ELSE block, of its condition. */
static bool merges(const frugal_plan *plan, const int32_t *parent, const int32_t *jump, uint32_t step, uint32_t k, int32_t home) {
    if (home == FR_NO_BLOCK || parent[home] != parent[step] || k < 1)
        return false;
    const int32_t *args = plan->args + plan->steps[step].args;
    int32_t opener = home;
    if (k == 2) { /* the IF of this ELSE, which jumps to it */
        if (plan->steps[home].op != FRUGAL_OP_ELSE)
            return false;
        for (opener = home - 1; opener >= 0 && jump[opener] != home;)
            opener--;
    }
    if (opener < 0 || plan->steps[opener].op != FRUGAL_OP_IF)
        return false;
    return root_of(plan, plan->args[plan->steps[opener].args]) == root_of(plan, args[0]);
}

static const char *check_read(const frugal_plan *plan, const int32_t *parent, const int32_t *jump, const int32_t *writer,
                              uint32_t step, uint32_t k) {
    const frugal_plan_step *s = &plan->steps[step];
    const int32_t root = root_of(plan, plan->args[s->args + k]);
    const uint8_t kind = plan->tensors[root].kind;
    const int32_t by = writer[root];
    const bool outside = kind == FRUGAL_TENSOR_CONST || kind == FRUGAL_TENSOR_INPUT;
    if (!outside && by < 0)
        return "a step reads a tensor before it is written";
    const uint16_t op = by < 0 ? FRUGAL_OP_COUNT : plan->steps[by].op;
    if (s->op == FRUGAL_OP_SET && k == 0 && op != FRUGAL_OP_VAR)
        return "a SET of what is no variable";
    if (s->op == FRUGAL_OP_IF && op == FRUGAL_OP_VAR)
        return "a variable decides an IF: its value could change before MERGE";
    if (outside || sees(parent, parent[step], parent[by]))
        return NULL;
    if (s->op == FRUGAL_OP_MERGE && merges(plan, parent, jump, step, k, parent[by]))
        return NULL;
    return "a step reads what another block wrote";
}

frugal_status fr_plan_check_flow(const frugal_plan *plan, const int32_t *parent, const int32_t *jump, int32_t *writer,
                                 frugal_error *err) {
    for (uint32_t t = 0; t < plan->n_tensors; t++)
        writer[t] = -1;
    for (uint32_t i = 0; i < plan->n_steps; i++) {
        const frugal_plan_step *s = &plan->steps[i];
        const int32_t *args = plan->args + s->args;
        for (uint32_t k = 0; k < s->n_in; k++) {
            const char *what = args[k] < 0 ? NULL : check_read(plan, parent, jump, writer, i, k);
            if (what)
                return bad(err, i, args[k], what);
        }
        for (uint32_t k = s->n_in; k < (uint32_t)s->n_in + s->n_out; k++) {
            if (writer[args[k]] >= 0)
                return bad(err, i, args[k], "a tensor is written twice");
            if (parent[i] != FR_NO_BLOCK && plan->tensors[args[k]].kind == FRUGAL_TENSOR_OUTPUT)
                return bad(err, i, args[k], "an output of the model is written inside of a block");
            writer[args[k]] = (int32_t)i;
        }
    }
    for (uint32_t t = 0; t < plan->n_tensors; t++) {
        const uint8_t kind = plan->tensors[t].kind;
        if ((kind == FRUGAL_TENSOR_TEMP || kind == FRUGAL_TENSOR_OUTPUT) && writer[t] < 0)
            return bad(err, -1, t, "a tensor is never written");
    }
    return FRUGAL_OK;
}

/* ---- evaluating dims ---- */

bool fr_eval_dim(uint32_t op, int64_t a, int64_t b, int64_t *v) {
    switch (op) {
    case FRUGAL_DIM_ADD:
        *v = a + b;
        return true;
    case FRUGAL_DIM_SUB:
        *v = a - b;
        return true;
    case FRUGAL_DIM_MUL:
        return !__builtin_mul_overflow(a, b, v);
    case FRUGAL_DIM_DIV:
        return b > 0 ? *v = a / b, true : false;
    case FRUGAL_DIM_CEIL_DIV:
        return b > 0 ? *v = fr_ceil_div(a, b), true : false;
    case FRUGAL_DIM_MOD:
        return b > 0 ? *v = a % b, true : false;
    case FRUGAL_DIM_MIN:
        *v = fr_min(a, b);
        return true;
    case FRUGAL_DIM_MAX:
        *v = fr_max(a, b);
        return true;
    case FRUGAL_DIM_SUB0:
        *v = fr_max(a - b, 0);
        return true;
    case FRUGAL_DIM_BROADCAST:
        *v = b == 1 ? a : b;
        return b == 1 || a == 1 || a == b;
    default:
        return false;
    }
}

frugal_status fr_plan_eval_dims(const frugal_plan *plan, const int32_t *inputs, const int64_t *dims, int64_t *values,
                                frugal_error *err) {
    for (uint32_t i = 0; i < plan->n_dims; i++) {
        const frugal_plan_dim *d = &plan->dims[i];
        if (d->op >= FRUGAL_DIM_VALUE) {
            values[i] = FR_UNKNOWN;
            continue;
        }
        if (d->op == FRUGAL_DIM_INPUT) {
            int64_t at = d->b;
            for (int64_t k = 0; k < d->a; k++)
                at += plan->tensors[inputs[k]].rank;
            values[i] = dims[at];
            if (values[i] >= 0 && values[i] <= FRUGAL_MAX_DIM)
                continue;
            fr_error(err, FRUGAL_BAD_INPUT, -1, inputs[d->a], "a dim of an input is out of range");
            if (err)
                err->input = (int32_t)d->a, err->axis = (int32_t)d->b, err->got = values[i];
            return FRUGAL_BAD_INPUT;
        }
        const int64_t a = d->a >= 0 ? d->a : values[-1 - d->a], b = d->b >= 0 ? d->b : values[-1 - d->b];
        if (a < 0 || b < 0)
            values[i] = a == FR_INVALID || b == FR_INVALID ? FR_INVALID : FR_UNKNOWN;
        else if (!fr_eval_dim(d->op, a, b, &values[i]) || values[i] < 0 || values[i] > FRUGAL_MAX_DIM)
            values[i] = FR_INVALID;
    }
    return FRUGAL_OK;
}
