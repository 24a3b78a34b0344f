/* ops_linear.c - QUANTIZE_ACT, LINEAR, MATMUL.  Work is cut over tokens and output columns, never over the sums, so that neither
 * the thread count nor the batch changes a bit. */
#include "ops.h"

static float *floats(const fr_tensor *t) { return t ? (float *)(void *)t->data : NULL; }
static bool is_act(const fr_tensor *t) { return t->layout == FRUGAL_A8_TOKEN || t->layout == FRUGAL_A8_BLOCK; }

static bool has_codes(const fr_tensor *w) {
    return w->layout == FRUGAL_W8_P16 || w->layout == FRUGAL_W4_P16 || w->layout == FRUGAL_W4O_P16 || w->layout == FRUGAL_W8B_P16;
}

/* ---- QUANTIZE_ACT ---- */

frugal_status fr_quantize_act_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *scale = c->in[1], *y = c->out[0];
    FR_DTYPE(c, x->dtype == FR_F32, "activations to quantize must be float32");
    FR_SHAPE(c, x->rank >= 1 && x->dims[x->rank - 1] >= 1 && x->dims[x->rank - 1] <= FR_MAX_K,
             "activations must have a last axis of 1 to 131072");
    FR_TRY(fr_same_shape(c, y, x, c->n_in));
    if (!scale)
        return FRUGAL_OK;
    FR_TRY(fr_vector(c, scale, 1, 1));
    FR_SHAPE(c, y->layout == FRUGAL_A8_TOKEN, "a static scale needs the layout with one scale a token");
    FR_SHAPE(c, scale->kind == FRUGAL_TENSOR_CONST, "a static scale must be a constant");
    const float s = *floats(scale);
    FR_SHAPE(c, s > 0 && 1 / s > 0 && 1 / s <= 3.4e38f, "a static scale must be a positive number with a reciprocal");
    return FRUGAL_OK;
}

static void quantize_act_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const fr_tensor *x = c->in[0];
    const int64_t k = x->dims[x->rank - 1];
    fr_act8 a;
    (void)thread;
    fr_act8_view(c->out[0], &a);
    const int64_t nb = a.kp / FR_BLOCK, scales = a.blocked ? nb : 1;
    int8_t *q = (int8_t *)(uintptr_t)a.q;
    float *scale = (float *)(uintptr_t)a.scale;
    int32_t *sum = (int32_t *)(uintptr_t)a.sum;
    for (int64_t i = begin; i < end; i++) {
        const float *row = floats(x) + i * k;
        if (c->in[1])
            c->isa->quantize_static(q + i * a.kp, scale + i, sum + i * nb, row, k, *floats(c->in[1]));
        else
            c->isa->quantize(q + i * a.kp, scale + i * scales, sum + i * nb, row, k, a.blocked);
    }
}

frugal_status fr_quantize_act_run(const fr_call *c) {
    const int64_t k = c->in[0]->dims[c->in[0]->rank - 1];
    fr_parallel(c, c->out[0]->n / k, fr_row_grain(k), quantize_act_range, c);
    return FRUGAL_OK;
}

/* ---- LINEAR ---- */

static frugal_status check_linear_operands(const fr_call *c) {
    const fr_tensor *x = c->in[0], *w = c->in[1], *y = c->out[0];
    const bool act = is_act(x);
    FR_DTYPE(c, act || x->dtype == FR_F32, "the input of a linear must be float32 or quantized activations");
    FR_DTYPE(c, y->dtype == FR_F32 || y->layout == FRUGAL_A8_BLOCK, "the output of a linear is float32 or quantized in blocks");
    FR_DTYPE(c, act == has_codes(w), "these weights do not go with this input");
    FR_SHAPE(c, x->rank >= 1 && x->rank == y->rank, "input and output of a linear must have one rank");
    const int32_t last = x->rank - 1;
    for (int32_t a = 0; a < last; a++) {
        if (x->dims[a] != y->dims[a])
            return fr_fail(c, FRUGAL_BAD_SHAPE, c->n_in, a, x->dims[a], y->dims[a], "output and input have different rows");
    }
    if (x->dims[last] != w->dims[1])
        return fr_fail(c, FRUGAL_BAD_SHAPE, 0, last, w->dims[1], x->dims[last], "the input is not as deep as the weights");
    if (y->dims[last] != w->dims[0])
        return fr_fail(c, FRUGAL_BAD_SHAPE, c->n_in, last, w->dims[0], y->dims[last],
                       "the output has another width than the weights");
    FR_SHAPE(c, w->dims[1] >= 1 && w->dims[1] <= FR_MAX_K, "the depth of a linear must be 1 to 131072");
    return FRUGAL_OK;
}

frugal_status fr_linear_check(const fr_call *c) {
    const fr_tensor *w = c->in[1], *scale = c->in[2], *bias = c->in[3], *residual = c->in[4], *y = c->out[0];
    const int64_t np = fr_round_up(w->dims[0], FR_PANEL), act = c->attrs[0];
    FR_TRY(check_linear_operands(c));
    FR_SHAPE(c, (scale != NULL) == (w->layout == FRUGAL_W8_P16), "int8 weights need a scale, others must not have one");
    if (scale)
        FR_TRY(fr_vector(c, scale, np, 2));
    if (bias)
        FR_TRY(fr_vector(c, bias, np, 3));
    if (residual) {
        FR_DTYPE(c, residual->dtype == FR_F32, "the residual must be float32");
        FR_TRY(fr_same_shape(c, residual, y, 4));
    }
    const bool plain = act != FRUGAL_U_LEAKY_RELU && act != FRUGAL_U_CLIP && act != FRUGAL_U_NOT && act != FRUGAL_U_ELU &&
                       act != FRUGAL_U_HARD_SIGMOID && act < FRUGAL_U_ISNAN;
    FR_NEED(c, plain, FRUGAL_UNSUPPORTED, "this function cannot be fused into a linear");
    return FRUGAL_OK;
}

typedef struct linear_job {
    const fr_call *c;
    fr_act8 act, out; /* views of the quantized input and output */
    fr_epilogue e;
    int64_t m, n, k, chunk, chunks, panels, each; /* tokens, tokens a task, panels, panels a task */
    bool by_rows;                                 /* tasks go over the panels first */
} linear_job;

/* A quantized output is computed in float, OUT_PANELS at a time, in the thread's scratch: it never leaves the cache.  The rows
 * are a line further apart than they are long, or they would share few sets of the cache. */
enum { OUT_PANELS = 16, OUT_ROW = (OUT_PANELS + 1) * FR_PANEL };

static int64_t chunk_of(const fr_call *c) { return fr_max(1, c->isa->chunk); }
static int64_t rows_of(const fr_tensor *y) { return fr_product(y, 0, y->rank - 1); }
static bool is_half(const fr_tensor *w) { return w->layout == FRUGAL_F16_P16 || w->layout == FRUGAL_BF16_P16; }

/* More tokens than HALF_TOKENS meet weights of 16 bits that were widened first, as many panels at a time as stay in the
 * second-level cache, at most HALF_PANELS; fewer would wait for the stores. */
enum { HALF_TOKENS = 6, HALF_PANELS = 4, HALF_BYTES = 256 << 10 };
static int64_t half_panels(const fr_tensor *w) {
    return fr_max(1, fr_min(HALF_PANELS, HALF_BYTES / (4 * FR_PANEL * w->dims[1])));
}

static int64_t gemm_scratch(const fr_call *c) {
    if (!is_act(c->in[0]))
        return is_half(c->in[1]) && rows_of(c->out[0]) > HALF_TOKENS ? half_panels(c->in[1]) * 4 * FR_PANEL * c->in[1]->dims[1]
                                                                     : 0;
    return fr_round_up((int64_t)c->isa->scratch_bytes(fr_min(chunk_of(c), rows_of(c->out[0])), c->in[1]->dims[1]), 64);
}

/* m tokens from x on, panels from w on. */
static void half_part(const linear_job *j, float *y, int64_t ldy, const float *x, int64_t m, const uint16_t *w, int64_t cols,
                      const fr_epilogue *e, float *wide) {
    const fr_call *c = j->c;
    const int dtype = c->in[1]->dtype;
    const int64_t k = j->k, step = half_panels(c->in[1]) * FR_PANEL;
    if (m <= HALF_TOKENS) {
        c->isa->gemm_half(y, ldy, x, k, w, dtype == FR_BF16, m, cols, k, e);
        return;
    }
    for (int64_t at = 0; at < cols; at += step) {
        const int64_t n = fr_min(step, cols - at);
        fr_epilogue part = *e;
        part.bias = e->bias ? e->bias + at : NULL;
        part.residual = e->residual ? e->residual + at : NULL;
        c->isa->rows.cast(FR_F32, dtype, wide, w + at * k, fr_round_up(n, FR_PANEL) * k);
        c->isa->gemm_f32(y + at, ldy, x, k, wide, FR_PANEL, FR_PANEL * k, m, n, k, 1.0f, &part);
    }
}

/* Tokens m0 .. m1 - 1, panels p0 .. p1 - 1, to y: the first of these tokens and columns. */
static void linear_part(const linear_job *j, float *y, int64_t ldy, int64_t m0, int64_t m1, int64_t p0, int64_t p1,
                        uint8_t *scratch) {
    const fr_call *c = j->c;
    const fr_tensor *w = c->in[1];
    const int64_t nb = j->act.kp / FR_BLOCK, cols = fr_min(j->n, p1 * FR_PANEL) - p0 * FR_PANEL;
    fr_epilogue e = j->e;
    e.bias = e.bias ? e.bias + p0 * FR_PANEL : NULL;
    e.residual = e.residual ? e.residual + m0 * j->n + p0 * FR_PANEL : NULL;
    fr_act8 a = j->act;
    if (is_act(c->in[0])) {
        a.q += m0 * a.kp, a.scale += m0 * (a.blocked ? nb : 1), a.sum += m0 * nb;
        a.m = m1 - m0;
    }
    if (w->layout == FRUGAL_W8_P16) {
        c->isa->gemm_w8(y, ldy, &a, 0, m1 - m0, (const int8_t *)w->data + p0 * FR_PANEL * a.kp, floats(c->in[2]) + p0 * FR_PANEL,
                        0, p1 - p0, cols, &e, scratch);
    } else if (w->layout == FRUGAL_W4_P16) {
        c->isa->gemm_w4(y, ldy, &a, 0, m1 - m0, w->data + p0 * nb * FR_W4_BLOCK, 0, p1 - p0, cols, &e, scratch);
    } else if (w->layout == FRUGAL_W4O_P16) {
        c->isa->gemm_w4o(y, ldy, &a, 0, m1 - m0, w->data + p0 * nb * FR_W4O_BLOCK, 0, p1 - p0, cols, &e, scratch);
    } else if (w->layout == FRUGAL_W8B_P16) {
        c->isa->gemm_w8b(y, ldy, &a, 0, m1 - m0, w->data + p0 * nb * FR_W8B_BLOCK, 0, p1 - p0, cols, &e, scratch);
    } else if (is_half(w)) {
        half_part(j, y, ldy, floats(c->in[0]) + m0 * j->k, m1 - m0,
                  (const uint16_t *)(const void *)w->data + p0 * FR_PANEL * j->k, cols, &e, (float *)(void *)scratch);
    } else {
        c->isa->gemm_f32(y, ldy, floats(c->in[0]) + m0 * j->k, j->k, floats(w) + p0 * FR_PANEL * j->k, FR_PANEL, FR_PANEL * j->k,
                         m1 - m0, cols, j->k, 1.0f, &e);
    }
}

/* The same, quantized; p0 is even. */
static void linear_quantized(const linear_job *j, int64_t m0, int64_t m1, int64_t p0, int64_t p1, uint8_t *scratch) {
    float *y = (float *)(void *)(scratch + gemm_scratch(j->c));
    const int64_t kp = j->out.kp, nb = kp / FR_BLOCK, b0 = p0 * FR_PANEL / FR_BLOCK;
    int8_t *q = (int8_t *)(uintptr_t)j->out.q + p0 * FR_PANEL;
    float *scale = (float *)(uintptr_t)j->out.scale + b0;
    int32_t *sum = (int32_t *)(uintptr_t)j->out.sum + b0;
    linear_part(j, y, OUT_ROW, m0, m1, p0, p1, scratch);
    for (int64_t i = m0; i < m1; i++) {
        j->c->isa->quantize(q + i * kp, scale + i * nb, sum + i * nb, y + (i - m0) * OUT_ROW,
                            fr_min(j->n, p1 * FR_PANEL) - p0 * FR_PANEL, 1);
    }
}

static void linear_task(void *p, int64_t i, int32_t thread) {
    const linear_job *j = p;
    const int64_t cuts = fr_ceil_div(j->panels, j->each), row = j->by_rows ? i / cuts : i % j->chunks;
    const int64_t m0 = row * j->chunk, m1 = fr_min(j->m, m0 + j->chunk);
    const int64_t p0 = (j->by_rows ? i % cuts : i / j->chunks) * j->each, p1 = fr_min(j->panels, p0 + j->each);
    uint8_t *scratch = fr_thread_scratch(j->c, thread);
    if (!is_act(j->c->out[0])) {
        linear_part(j, floats(j->c->out[0]) + m0 * j->n + p0 * FR_PANEL, j->n, m0, m1, p0, p1, scratch);
        return;
    }
    for (int64_t at = p0; at < p1; at += OUT_PANELS)
        linear_quantized(j, m0, m1, at, fr_min(p1, at + OUT_PANELS), scratch);
}

/* Panels a task: a block of weights that stays in the second-level cache while all token chunks pass over it, but enough tasks
 * for every thread, and no task too small to be worth handing out. */
static int64_t panels_of_task(const linear_job *j, const fr_tensor *w, int32_t threads) {
    const int64_t bytes = fr_max(1, w->bytes / fr_max(1, j->panels));
    int64_t each = fr_max(1, (512 << 10) / bytes);
    if (threads > 1)
        each = fr_min(each, fr_ceil_div(j->panels * j->chunks, 4 * (int64_t)threads));
    each = fr_round_up(fr_max(each, fr_ceil_div(8 << 10, bytes)), 4); /* kernels read up to 4 panels side by side */
    return fr_max(1, fr_min(each, j->panels));
}

static void linear_cut(const fr_call *c, linear_job *j) {
    const fr_tensor *w = c->in[1], *y = c->out[0];
    *j = (linear_job){.c = c, .m = rows_of(y), .n = w->dims[0], .k = w->dims[1], .chunk = chunk_of(c)};
    /* Few rows: each thread takes rows of its own, so that it finds in its cache what it wrote in the step before.  Many: it
     * keeps a block of weights there, while all rows pass over it. */
    j->by_rows = c->threads > 1 && j->m >= 8 * (int64_t)c->threads && j->m <= j->chunk * c->threads;
    if (j->by_rows)
        j->chunk = fr_min(j->chunk, fr_round_up(fr_ceil_div(j->m, c->threads), 4));
    j->chunks = fr_ceil_div(j->m, j->chunk);
    j->panels = fr_ceil_div(j->n, FR_PANEL);
    j->each = panels_of_task(j, w, c->threads);
}

void fr_linear_scratch(const fr_call *c, fr_scratch *s) {
    s->thread = gemm_scratch(c);
    if (is_act(c->out[0]))
        s->thread += fr_min(chunk_of(c), rows_of(c->out[0])) * OUT_ROW * (int64_t)sizeof(float);
}

frugal_status fr_linear_run(const fr_call *c) {
    linear_job j;
    linear_cut(c, &j);
    if (is_act(c->in[0]))
        fr_act8_view(c->in[0], &j.act);
    if (is_act(c->out[0]))
        fr_act8_view(c->out[0], &j.out);
    j.e = (fr_epilogue){.bias = floats(c->in[3]), .residual = floats(c->in[4]), .ld = j.n, .act = (int)c->attrs[0]};
    fr_pool_run(c->pool, j.chunks * fr_ceil_div(j.panels, j.each), linear_task, &j);
    return FRUGAL_OK;
}

/* a * b * 2, saturating. */
static int64_t operations(int64_t a, int64_t b) {
    int64_t n;
    return __builtin_mul_overflow(a, b, &n) || __builtin_add_overflow(n, n, &n) ? INT64_MAX : n;
}

int64_t fr_linear_operations(const fr_call *c) { return operations(c->out[0]->n, fr_max(1, c->in[1]->dims[1])); }

/* ---- MATMUL ---- */

typedef struct matmul_job {
    const fr_call *c;
    fr_walk batch; /* over the batch dims; operand 0: matrices of a, 1: of b */
    int64_t batches, m, n, k;
    bool transposed;
    float alpha;
    int64_t rows, row_tasks, panels, each, panel_tasks; /* rows a task, panels a task */
} matmul_job;

enum { MATMUL_ROWS = 256, MATMUL_PACK = 256 << 10 /* bytes of packed b a thread */ };

static bool depth_fits(const fr_tensor *a, const fr_tensor *b, bool transposed) {
    return a->dims[a->rank - 1] == b->dims[b->rank - (transposed ? 1 : 2)];
}

frugal_status fr_matmul_check(const fr_call *c) {
    const fr_tensor *a = c->in[0], *b = c->in[1], *y = c->out[0];
    const bool t = c->attrs[0] != 0;
    FR_DTYPE(c, a->dtype == FR_F32 || fr_matmul_any_dtype(a->dtype), "a matrix product is of float32, float64, or integers");
    FR_DTYPE(c, a->dtype == b->dtype && a->dtype == y->dtype, "the operands of a matrix product differ in data type");
    FR_DTYPE(c, a->dtype == FR_F32 || a->dtype == FR_F64 || fr_attr_double(c, 1) == 1, "a product of integers has no factor");
    FR_SHAPE(c, a->rank >= 2 && b->rank >= 2 && y->rank == (a->rank > b->rank ? a->rank : b->rank),
             "a matrix product needs two axes each");
    FR_SHAPE(c, depth_fits(a, b, t), "the two matrices have different depths");
    FR_SHAPE(c, y->dims[y->rank - 2] == a->dims[a->rank - 2], "the output has another row count than the first matrix");
    FR_SHAPE(c, y->dims[y->rank - 1] == b->dims[b->rank - (t ? 2 : 1)],
             "the output has another column count than the second matrix");
    fr_tensor ab = *a, bb = *b, yb = *y; /* the batch dims alone */
    ab.rank = (uint8_t)(a->rank - 2), bb.rank = (uint8_t)(b->rank - 2), yb.rank = (uint8_t)(y->rank - 2);
    FR_SHAPE(c, fr_broadcasts_to(&ab, &yb) && fr_broadcasts_to(&bb, &yb), "the batch dims do not broadcast to the output's");
    return FRUGAL_OK;
}

static void matmul_cut(const fr_call *c, matmul_job *j) {
    const fr_tensor *a = c->in[0], *b = c->in[1], *y = c->out[0];
    fr_tensor ab = *a, bb = *b, yb = *y;
    ab.rank = (uint8_t)(a->rank - 2), bb.rank = (uint8_t)(b->rank - 2), yb.rank = (uint8_t)(y->rank - 2);
    *j = (matmul_job){.c = c, .transposed = c->attrs[0] != 0, .alpha = fr_attr_float(c, 1)};
    j->batches = fr_product(&yb, 0, yb.rank);
    j->m = y->dims[y->rank - 2], j->n = y->dims[y->rank - 1], j->k = a->dims[a->rank - 1];
    fr_walk_init(&j->batch, &yb);
    fr_walk_broadcast(&j->batch, &ab);
    fr_walk_broadcast(&j->batch, &bb);
    j->panels = fr_ceil_div(j->n, FR_PANEL);
    j->each = fr_max(1, fr_min(j->panels, MATMUL_PACK / (FR_PANEL * 4 * fr_max(1, j->k))));
    j->rows = fr_max(chunk_of(c), MATMUL_ROWS);
    const int64_t tasks = j->batches * fr_ceil_div(j->panels, j->each) * fr_ceil_div(j->m, j->rows);
    if (tasks < 2 * (int64_t)c->threads) { /* enough for every thread; columns first, since splitting rows packs b again */
        j->each = fr_max(1, fr_min(j->each, fr_ceil_div(j->panels * fr_max(1, j->batches), 2 * (int64_t)c->threads)));
    }
    j->panel_tasks = fr_ceil_div(j->panels, j->each);
    j->row_tasks = fr_ceil_div(j->m, j->rows);
}

/* Columns that are not a whole number of panels, or rows: packed in the thread's scratch first. */
static void matmul_block(const matmul_job *j, float *y, const float *a, const float *b, int64_t m, int64_t col, int64_t n,
                         float *pack) {
    const frugal_isa *isa = j->c->isa;
    const fr_epilogue e = {.act = FRUGAL_U_COPY};
    const int64_t whole = j->transposed ? 0 : n / FR_PANEL * FR_PANEL;
    if (whole > 0)
        isa->gemm_f32(y + col, j->n, a, j->k, b + col, j->n, FR_PANEL, m, whole, j->k, j->alpha, &e);
    if (whole == n)
        return;
    const int64_t ldb = j->transposed ? j->k : j->n;
    fr_pack_panels(pack, j->transposed ? b + col * ldb : b + col + whole, ldb, j->transposed, j->k, n - whole);
    isa->gemm_f32(y + col + whole, j->n, a, j->k, pack, FR_PANEL, FR_PANEL * j->k, m, n - whole, j->k, j->alpha, &e);
}

static void matmul_task(void *p, int64_t i, int32_t thread) {
    const matmul_job *j = p;
    const int64_t row = i % j->row_tasks * j->rows, col = i / j->row_tasks % j->panel_tasks * j->each * FR_PANEL;
    int64_t rest = i / j->row_tasks / j->panel_tasks, at_a = 0, at_b = 0;
    float *y = floats(j->c->out[0]) + rest * j->m * j->n;
    for (int x = j->batch.rank - 1; x >= 0; x--) {
        const int64_t index = rest % j->batch.dims[x];
        rest /= j->batch.dims[x];
        at_a += index * j->batch.step[0][x];
        at_b += index * j->batch.step[1][x];
    }
    const float *a = floats(j->c->in[0]) + at_a * j->m * j->k, *b = floats(j->c->in[1]) + at_b * j->n * j->k;
    const int64_t n = fr_min(j->n - col, j->each * FR_PANEL);
    matmul_block(j, y + row * j->n, a + row * j->k, b, fr_min(j->rows, j->m - row), col, n,
                 (float *)(void *)fr_thread_scratch(j->c, thread));
}

void fr_matmul_scratch(const fr_call *c, fr_scratch *s) {
    matmul_job j;
    if (c->in[0]->dtype != FR_F32)
        return;
    matmul_cut(c, &j);
    const int64_t packed = j.transposed ? j.each : j.n % FR_PANEL ? 1 : 0;
    s->thread = packed * FR_PANEL * j.k * 4;
}

frugal_status fr_matmul_run(const fr_call *c) {
    matmul_job j;
    if (c->in[0]->dtype != FR_F32)
        return fr_matmul_any_run(c);
    matmul_cut(c, &j);
    fr_pool_run(c->pool, j.batches * j.row_tasks * j.panel_tasks, matmul_task, &j);
    return FRUGAL_OK;
}

int64_t fr_matmul_operations(const fr_call *c) { return operations(c->out[0]->n, fr_max(1, c->in[0]->dims[c->in[0]->rank - 1])); }
