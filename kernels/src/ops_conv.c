/* ops_conv.c - CONV, CONV_DEPTHWISE: convolutions and transposed convolutions of float32, channels last.
 *
 * The output is cut into rectangles whose positions see the same taps.  A rectangle is a matrix product: its positions lie a
 * fixed distance apart in the input, and its taps are spans of the weights' rows, so nothing is copied and no padding is
 * multiplied. */
#include "window.h"

static float *floats(const fr_tensor *t) { return t ? (float *)(void *)t->data : NULL; }

enum { ACT, P, Q, SCALE, SHIFT, GROUPS, FORM, WINDOWS, EACH = 4 }; /* attributes */
enum { TRANSPOSED = 1, PLANAR };                                   /* forms */

/* What a step computes.  Axes 0..2 are the spatial ones. */
typedef struct conv {
    const fr_call *c;
    bool depthwise, planar;
    fr_window w[FR_SPATIAL];
    int64_t images, groups, cin, cout, cg, og, ogp; /* channels: of x, y, of a group of each; og rounded up to 16 */
    int64_t depth;                                  /* a row of the weights: taps * cg */
    const float *weights;                           /* packed, unless depthwise */
    fr_epilogue e;
    int64_t x_step[FR_SPATIAL], y_step[FR_SPATIAL];              /* floats from one position to the next */
    int64_t x_channel, x_image;                                  /* from one channel, one image to the next */
    int64_t rows, row_tasks, cols, col_tasks, parts, part_tasks; /* of axis 1, axis 2, and panels (or channels) a task */
} conv;

/* ---- reading a step ---- */

static frugal_status read_windows(const fr_call *c, conv *v) {
    const bool transposed = c->attrs[FORM] == TRANSPOSED;
    for (int a = 0; a < FR_SPATIAL; a++)
        FR_SHAPE(c, fr_window_read(c, WINDOWS, EACH, a, transposed, v->planar, &v->w[a]), "a window is out of range");
    int64_t x = v->planar ? 1 : v->cin, y = v->cout;
    for (int a = FR_SPATIAL - 1; a >= 0; a--) {
        v->x_step[a] = x, v->y_step[a] = y;
        x *= v->w[a].in, y *= v->w[a].out;
    }
    v->x_channel = v->planar ? x : 1;
    v->x_image = v->planar ? x * v->cin : x;
    return FRUGAL_OK;
}

static int64_t taps(const conv *v) { return v->w[0].kernel * v->w[1].kernel * v->w[2].kernel; }

/* A kernel of one tap that moves by one is a product of all positions at once. */
static void join_positions(conv *v) {
    for (int a = 0; a < FR_SPATIAL; a++) {
        const fr_window *w = &v->w[a];
        if (w->kernel != 1 || w->stride != 1 || w->pad != 0 || w->in != w->out || v->planar)
            return;
    }
    const int64_t n = v->images * v->w[0].in * v->w[1].in * v->w[2].in;
    v->images = v->w[0].in = v->w[0].out = v->w[1].in = v->w[1].out = 1;
    v->w[2].in = v->w[2].out = n;
}

static frugal_status read_conv(const fr_call *c, conv *v) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    const bool planar = c->attrs[FORM] == PLANAR;
    *v = (conv){
        .c = c, .planar = planar, .images = x->dims[0], .cin = x->dims[planar ? 1 : x->rank - 1], .cout = y->dims[y->rank - 1]};
    v->groups = c->attrs[GROUPS];
    FR_TRY(read_windows(c, v));
    if (v->groups > 0)
        v->cg = v->cin / v->groups, v->og = v->cout / v->groups;
    v->ogp = v->groups > 1 ? fr_round_up(v->og, FR_PANEL) : v->og;
    v->depthwise = false;
    return FRUGAL_OK;
}

static frugal_status check_tensors(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    FR_DTYPE(c, x->dtype == FR_F32 && y->dtype == FR_F32 && c->in[1]->dtype == FR_F32, "a convolution is of float32");
    FR_SHAPE(c, x->rank >= 3 && x->rank <= 2 + FR_SPATIAL && y->rank == x->rank, "a convolution has one to three spatial axes");
    FR_SHAPE(c, x->dims[0] == y->dims[0], "input and output have different batches");
    return FRUGAL_OK;
}

static frugal_status check_epilogue(const fr_call *c, int64_t width) {
    const fr_tensor *bias = c->in[2], *residual = c->in[3];
    const int64_t act = c->attrs[ACT];
    FR_NEED(c, act != FRUGAL_U_NOT && act != FRUGAL_U_ISNAN, FRUGAL_UNSUPPORTED, "this function cannot follow a convolution");
    if (bias)
        FR_TRY(fr_vector(c, bias, width, 2));
    if (!residual)
        return FRUGAL_OK;
    FR_DTYPE(c, residual->dtype == FR_F32, "the residual must be float32");
    return fr_same_shape(c, residual, c->out[0], 3);
}

/* Plain weights [n, kernel.., channels] with as many spatial axes as x; n 0: that axis is absent. */
static frugal_status check_plain_weights(const fr_call *c, const conv *v, int64_t n, int64_t channels) {
    const fr_tensor *w = c->in[1];
    const int spatial = c->in[0]->rank - 2, first = n > 0 ? 1 : 0;
    FR_SHAPE(c, w->rank == spatial + 1 + first, "the weights have another rank than the input asks for");
    FR_SHAPE(c, !first || w->dims[0] == n, "the weights have another number of output channels");
    FR_SHAPE(c, w->dims[w->rank - 1] == channels, "the weights have another number of input channels");
    for (int a = 0; a < spatial; a++)
        FR_SHAPE(c, w->dims[first + a] == v->w[FR_SPATIAL - spatial + a].kernel, "the weights have another size than the kernel");
    return FRUGAL_OK;
}

/* Kernels of missing axes are 1, or taps could exceed what the weights hold. */
static frugal_status check_missing_axes(const fr_call *c, const conv *v) {
    for (int a = 0; a < FR_SPATIAL - (c->in[0]->rank - 2); a++)
        FR_SHAPE(c, v->w[a].kernel == 1 && v->w[a].stride == 1 && v->w[a].pad == 0, "a window along an axis that is not there");
    return FRUGAL_OK;
}

frugal_status fr_conv_check(const fr_call *c) {
    const fr_tensor *w = c->in[1];
    conv v;
    FR_TRY(check_tensors(c));
    FR_TRY(read_conv(c, &v));
    FR_TRY(check_missing_axes(c, &v));
    FR_SHAPE(c, v.groups >= 1 && v.cin % v.groups == 0 && v.cout % v.groups == 0, "channels do not divide into the groups");
    FR_SHAPE(c, v.cout >= 1 && v.cg >= 1, "a convolution needs channels");
    FR_SHAPE(c, !v.planar || (v.groups == 1 && w->layout != FRUGAL_PLAIN), "planes have one group and packed weights");
    const int64_t width = v.groups * fr_round_up(v.og, FR_PANEL);
    FR_TRY(check_epilogue(c, width));
    if (w->layout == FRUGAL_PLAIN)
        return check_plain_weights(c, &v, v.cout, v.cg);
    int64_t depth = v.cg;
    for (int a = 0; a < FR_SPATIAL; a++)
        FR_SHAPE(c, !__builtin_mul_overflow(depth, v.w[a].kernel, &depth), "a kernel is too big");
    FR_SHAPE(c, w->rank == 2 && w->dims[0] == (v.groups > 1 ? width : v.cout) && w->dims[1] == depth,
             "the weights have another shape than the kernel asks for");
    return FRUGAL_OK;
}

frugal_status fr_conv_depthwise_check(const fr_call *c) {
    conv v;
    FR_TRY(check_tensors(c));
    FR_TRY(read_conv(c, &v));
    FR_TRY(check_missing_axes(c, &v));
    FR_SHAPE(c, v.cin == v.cout && v.cin >= 1 && v.groups == v.cin, "a depthwise convolution has one group a channel");
    FR_TRY(check_epilogue(c, fr_round_up(v.cout, FR_PANEL)));
    return check_plain_weights(c, &v, 0, v.cin);
}

/* ---- cutting work ---- */

enum { TASK_FLOATS = 32 << 10, TASK_OPERATIONS = 1 << 18 }; /* input of a task: about the second-level cache's eighth */

/* Blocks of rows, and of columns where a row is long; more panels than fit beside them are a task of their own. */
static void cut(conv *v) {
    const fr_window *row = &v->w[1], *col = &v->w[2];
    const int64_t threads = v->c->threads, positions = fr_max(1, row->out * col->out);
    const int64_t x_floats = fr_max(1, (v->planar ? v->cin : v->x_step[2]) * (v->w[1].in * v->w[2].in / positions + 1));
    int64_t each = fr_max(48, TASK_FLOATS / x_floats); /* positions */
    if (threads > 1)
        each = fr_max(48, fr_min(each, fr_ceil_div(positions * v->images * v->w[0].out, 4 * threads)));
    v->cols = fr_max(1, fr_min(col->out, each <= col->out / 2 ? fr_round_up(each, 48) : col->out));
    if (col->transposed) /* whole periods, so that a task has every phase */
        v->cols = fr_min(fr_max(1, col->out), fr_round_up(v->cols, col->stride));
    v->col_tasks = fr_ceil_div(col->out, v->cols);
    v->rows = fr_max(1, fr_min(row->out, each / v->cols));
    if (row->transposed)
        v->rows = fr_min(fr_max(1, row->out), fr_round_up(v->rows, row->stride));
    v->row_tasks = fr_ceil_div(row->out, v->rows);
    const int64_t units = v->depthwise ? fr_ceil_div(v->cout, FR_PANEL) : fr_ceil_div(v->og, FR_PANEL);
    const int64_t unit = v->depthwise ? 1 : fr_max(1, v->depth * FR_PANEL * 4), tasks = v->row_tasks * v->col_tasks * v->images;
    int64_t parts = v->depthwise ? units : fr_max(1, (512 << 10) / unit);
    if (threads > 1 && tasks * v->w[0].out * v->groups < 4 * threads)
        parts = fr_min(parts, fr_ceil_div(units, fr_ceil_div(4 * threads, fr_max(1, tasks))));
    v->parts = fr_max(1, fr_min(units, parts >= 4 ? parts / 4 * 4 : parts));
    v->part_tasks = fr_ceil_div(units, v->parts);
}

static int64_t span_bytes(const conv *v) {
    return fr_round_up(taps(v) * (v->planar ? v->cin : 1) * (int64_t)sizeof(fr_span), 64);
}

/* Weights that are computed while the plan runs are packed first. */
static int64_t packed_bytes(const conv *v) {
    const int64_t depth = taps(v) * v->cg;
    return v->c->in[1]->layout == FRUGAL_PLAIN ? v->groups * fr_round_up(v->og, FR_PANEL) * depth * 4 : 0;
}

void fr_conv_scratch(const fr_call *c, fr_scratch *s) {
    conv v;
    if (read_conv(c, &v) != FRUGAL_OK)
        return;
    s->thread = span_bytes(&v);
    s->shared = packed_bytes(&v);
}

void fr_conv_depthwise_scratch(const fr_call *c, fr_scratch *s) {
    conv v;
    if (read_conv(c, &v) == FRUGAL_OK)
        s->thread = span_bytes(&v);
}

/* ---- computing ---- */

typedef struct block { /* one task */
    const conv *v;
    int64_t group, part, parts;
    fr_span *spans;
    const float *x; /* of the image, at the group's first channel */
    float *y;       /* of the image, at the first channel of the part */
    fr_epilogue e;  /* residual as y */
} block;

/* Spans of a rectangle from its runs along the three axes; returns how many. */
static int64_t list_spans(const block *b, const fr_run *d, const fr_run *h, const fr_run *w) {
    const conv *v = b->v;
    const int64_t kernel_h = v->w[1].kernel, kernel_w = v->w[2].kernel, n = v->depthwise ? v->cin : v->cg;
    const bool joined = !v->depthwise && w->k_step == 1 && w->i_tap == 1 && v->groups == 1;
    int64_t count = 0;
    for (int64_t i = 0; i < d->taps; i++) {
        for (int64_t j = 0; j < h->taps; j++) {
            const int64_t x = i * d->i_tap * v->x_step[0] + j * h->i_tap * v->x_step[1];
            const int64_t k = ((d->k + i * d->k_step) * kernel_h + h->k + j * h->k_step) * kernel_w + w->k;
            for (int64_t l = 0; l < (joined ? fr_min(1, w->taps) : w->taps); l++) {
                b->spans[count++] = (fr_span){x + l * w->i_tap * v->x_step[2], (k + l * w->k_step) * n, joined ? n * w->taps : n};
            }
        }
    }
    return count;
}

/* The same of planes: a span is what the kernel sees of a row of pixels of one channel. */
static int64_t list_plane_spans(const block *b, const fr_run *d, const fr_run *h, const fr_run *w) {
    const conv *v = b->v;
    const int64_t each = w->i_tap == 1 ? w->taps : fr_min(1, w->taps), spans = w->taps / fr_max(1, each);
    int64_t count = 0;
    for (int64_t i = 0; i < d->taps; i++) {
        for (int64_t j = 0; j < h->taps; j++) {
            const int64_t row = (d->k + i) * v->w[1].kernel + h->k + j;
            for (int64_t ch = 0; ch < v->cin; ch++) {
                const int64_t x = i * d->i_tap * v->x_step[0] + j * h->i_tap * v->x_step[1] + ch * v->x_channel;
                const int64_t k = (row * v->cin + ch) * v->w[2].kernel + w->k;
                for (int64_t l = 0; l < spans; l++)
                    b->spans[count++] = (fr_span){x + l * w->i_tap, k + l, each};
            }
        }
    }
    return count;
}

/* One row or column of positions: m of them, ldx and ldy floats apart. */
static void run_line(const block *b, int64_t x, int64_t y, int64_t spans, int64_t m, int64_t ldx, int64_t ldy) {
    const conv *v = b->v;
    const int64_t first = b->part * FR_PANEL;
    fr_epilogue e = b->e;
    e.ld = ldy;
    e.residual = e.residual ? e.residual + y : NULL;
    if (v->depthwise) {
        const int64_t n = fr_min(v->cout - first, b->parts * FR_PANEL);
        v->c->isa->conv_depthwise(b->y + y, ldy, b->x + x, ldx, b->spans, spans, v->weights + first, m, n, &e);
        return;
    }
    const int64_t n = fr_min(v->og - first, b->parts * FR_PANEL), panel = FR_PANEL * v->depth;
    const int64_t at = b->group * fr_ceil_div(v->og, FR_PANEL) + b->part;
    v->c->isa->conv_f32(b->y + y, ldy, b->x + x, ldx, b->spans, spans, v->weights + at * panel, panel, m, n, &e);
}

/* Along the longer side; where nothing is seen, x is not moved (its position may lie outside). */
static void run_rectangle(const block *b, const fr_run *d, const fr_run *h, const fr_run *w) {
    const conv *v = b->v;
    const int64_t spans = v->planar ? list_plane_spans(b, d, h, w) : list_spans(b, d, h, w);
    const bool rows = w->n >= h->n || w->n >= 12;
    const int64_t n = rows ? h->n : w->n;
    for (int64_t z = 0; z < d->n; z++) {
        const int64_t x0 = (d->i + z * d->i_step) * v->x_step[0] + h->i * v->x_step[1] + w->i * v->x_step[2];
        const int64_t y0 = (d->o + z * d->o_step) * v->y_step[0] + h->o * v->y_step[1] + w->o * v->y_step[2];
        const int64_t xh = h->i_step * v->x_step[1], xw = w->i_step * v->x_step[2];
        const int64_t yh = h->o_step * v->y_step[1], yw = w->o_step * v->y_step[2];
        for (int64_t l = 0; l < n; l++) {
            const int64_t x = spans ? x0 + l * (rows ? xh : xw) : 0, y = y0 + l * (rows ? yh : yw);
            if (rows)
                run_line(b, x, y, spans, w->n, xw, yw);
            else
                run_line(b, x, y, spans, h->n, xh, yh);
        }
    }
}

static void conv_task(void *p, int64_t i, int32_t thread) {
    const conv *v = p;
    const int64_t image_y = v->y_step[0] * v->w[0].out;
    const int64_t col = i % v->col_tasks * v->cols;
    i /= v->col_tasks;
    const int64_t row = i % v->row_tasks * v->rows;
    i /= v->row_tasks;
    const int64_t groups = v->depthwise ? 1 : v->groups;
    const int64_t part = i % v->part_tasks * v->parts, group = i / v->part_tasks % groups;
    const int64_t image = i / v->part_tasks / groups, first = group * v->og + part * FR_PANEL;
    block b = {.v = v, .group = group, .part = part, .parts = v->parts, .e = v->e};
    b.spans = (fr_span *)(void *)fr_thread_scratch(v->c, thread);
    b.x = floats(v->c->in[0]) + image * v->x_image + (v->depthwise ? first : group * v->cg);
    b.y = floats(v->c->out[0]) + image * image_y + first;
    b.e.residual = b.e.residual ? b.e.residual + image * image_y + first : NULL;
    b.e.bias = b.e.bias ? b.e.bias + group * fr_round_up(v->og, FR_PANEL) + part * FR_PANEL : NULL;
    fr_run d, h, w;
    for (fr_runs rd = {.end = v->w[0].out}; fr_next_run(&v->w[0], &rd, &d);) {
        for (fr_runs rh = {.begin = row, .end = fr_min(v->w[1].out, row + v->rows)}; fr_next_run(&v->w[1], &rh, &h);) {
            for (fr_runs rw = {.begin = col, .end = fr_min(v->w[2].out, col + v->cols)}; fr_next_run(&v->w[2], &rw, &w);)
                run_rectangle(&b, &d, &h, &w);
        }
    }
}

static void pack_weights(conv *v) {
    const int64_t rows = fr_round_up(v->og, FR_PANEL);
    float *to = (float *)(void *)v->c->shared;
    for (int64_t g = 0; g < v->groups; g++)
        fr_pack_panels(to + g * rows * v->depth, floats(v->c->in[1]) + g * v->og * v->depth, v->depth, true, v->depth, v->og);
    v->weights = to;
}

static frugal_status run_conv(conv *v) {
    const fr_call *c = v->c;
    v->weights = floats(c->in[1]);
    v->depth = taps(v) * v->cg;
    v->e = (fr_epilogue){.bias = floats(c->in[2]),
                         .residual = floats(c->in[3]),
                         .act = (int)c->attrs[ACT],
                         .p = fr_attr_float(c, P),
                         .q = fr_attr_float(c, Q),
                         .scale = fr_attr_float(c, SCALE),
                         .shift = fr_attr_float(c, SHIFT)};
    v->e.affine = v->e.scale != 1.0f || v->e.shift != 0.0f;
    if (!v->depthwise && c->in[1]->layout == FRUGAL_PLAIN)
        pack_weights(v);
    join_positions(v);
    cut(v);
    const int64_t groups = v->depthwise ? 1 : v->groups;
    fr_pool_run(c->pool, v->images * groups * v->part_tasks * v->row_tasks * v->col_tasks, conv_task, v);
    return FRUGAL_OK;
}

frugal_status fr_conv_run(const fr_call *c) {
    conv v;
    FR_TRY(read_conv(c, &v));
    return run_conv(&v);
}

frugal_status fr_conv_depthwise_run(const fr_call *c) {
    conv v;
    FR_TRY(read_conv(c, &v));
    v.depthwise = true;
    return run_conv(&v);
}

/* Two for every product, those with padding included, saturating. */
int64_t fr_conv_operations(const fr_call *c) {
    conv v;
    int64_t n = 0;
    if (read_conv(c, &v) != FRUGAL_OK)
        return 0;
    const int64_t outputs = v.w[0].transposed ? c->in[0]->n / fr_max(1, v.cg) * v.og : c->out[0]->n;
    const bool over = __builtin_mul_overflow(outputs, taps(&v) * v.cg, &n) || __builtin_add_overflow(n, n, &n);
    return over ? INT64_MAX : n;
}
