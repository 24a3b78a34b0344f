/* ops_qconv.c - integer convolution, pooling, addition, table look-up and softmax on 8-bit codes.
 *
 * A convolution goes strip by strip: the codes under some rows of output pixels are staged (copied, with their border of zero
 * points) in the form that the instruction set reads, then every pixel's kernel is a few runs of consecutive codes. */
#include "ops.h"

enum { STRIP_BYTES = 24 << 10, STRIP_PIXELS = 512, MAX_KERNEL = 1 << 12, MAX_DEPTH = 1 << 20, STAGED_LIMIT = 1 << 28 };
enum { SLACK = 128 }; /* staged codes that a kernel may read beyond the last */

static bool is_codes(const fr_tensor *t) { return t->dtype == FR_U8 || t->dtype == FR_I8; }
static uint8_t flip_of(const fr_tensor *t) { return t->dtype == FR_I8 ? 0x80 : 0; }

/* Rounds half to even what limit() let through, far below 2^22: in a sum of about 1.5 * 2^23 nothing is left behind the point. */
static inline int32_t nearest(float v) {
    int32_t bits;
    v += 0x1.8p23f;
    memcpy(&bits, &v, 4);
    return bits - 0x4b400000;
}
static inline float limit(float v, float low, float high) {
    v = v > low ? v : low;
    return v < high ? v : high;
}

/* ---- the shape of a convolution ---- */

typedef struct conv {
    const fr_call *c;
    bool depth;
    int64_t n, h, w, ch, oh, ow, oc; /* ch: channels of x */
    int64_t g, kh, kw, sh, sw, dh, dw, uh, uw, top, left;
    int64_t cg, og;                 /* channels of a group, in and out; depthwise: all of oc, staged side by side */
    int64_t runs, length, quads;    /* of a kernel; depthwise: runs 1 */
    int64_t rows, strips, iw, line; /* output rows a strip; staged pixels and codes of a row */
    int64_t size;                   /* bytes of a staged code */
    bool column;                    /* flatten did: one column of pixels */
    bool direct;                    /* x can be read where it is */
} conv;

/* One column of n h w pixels: a convolution that mixes nothing but channels, so that a strip is any number of pixels. */
static void flatten(conv *v) {
    if (v->depth || v->kh * v->kw != 1 || v->sh * v->sw * v->uh * v->uw != 1 || v->top || v->left || v->oh != v->h ||
        v->ow != v->w)
        return;
    v->h = v->oh = v->n * v->h * v->w;
    v->n = v->w = v->ow = 1;
    v->column = true;
}

/* Output rows whose staged rows fit: at least one; whole threads' worth of work. */
static void cut(conv *v) {
    const int64_t eh = (v->kh - 1) * v->dh + 1;
    const int64_t fit = (STRIP_BYTES - eh * v->line * v->size) / (v->sh * v->line * v->size) + 1;
    int64_t rows = fr_min(fr_max(1, fit), fr_max(1, STRIP_PIXELS / v->ow));
    if (v->c->threads > 1)
        rows = fr_min(rows, fr_max(1, fr_ceil_div(v->n * v->oh, 2 * (int64_t)v->c->threads)));
    if (v->ow == 1 && rows > 24)
        rows = rows / 24 * 24; /* whole tiles of every instruction set */
    v->rows = fr_max(1, fr_min(rows, v->oh));
    v->strips = fr_ceil_div(v->oh, v->rows);
}

static void describe(const fr_call *c, bool depth, conv *v) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    const int64_t *a = c->attrs;
    *v = (conv){.c = c,
                .depth = depth,
                .n = x->dims[0],
                .h = x->dims[1],
                .w = x->dims[2],
                .ch = x->dims[3],
                .oh = y->dims[1],
                .ow = y->dims[2],
                .oc = y->dims[3]};
    v->g = a[0], v->kh = a[1], v->kw = a[2], v->sh = a[3], v->sw = a[4], v->dh = a[5], v->dw = a[6], v->uh = a[7], v->uw = a[8];
    v->top = fr_attr_dim(c, 9), v->left = fr_attr_dim(c, 10);
    v->size = c->isa->codes == FR_CODES_I16 ? 2 : 1;
}

/* What follows from checked dims. */
static void derive(conv *v) {
    v->cg = v->depth ? v->oc : v->ch / v->g;
    v->og = v->depth ? v->oc : v->oc / v->g;
    v->runs = v->depth ? 1 : v->dw == 1 ? v->kh : v->kh * v->kw;
    v->length = v->depth ? 0 : v->dw == 1 ? v->kw * v->cg : v->cg;
    v->quads =
        v->depth ? (v->kh >= v->kw ? v->kw * fr_ceil_div(v->kh, 4) : v->kh * fr_ceil_div(v->kw, 4)) : fr_ceil_div(v->length, 4);
    flatten(v);
    v->iw = (v->ow - 1) * v->sw + (v->kw - 1) * v->dw + 1;
    v->line = v->iw * v->cg;
    v->direct =
        v->column && v->g == 1 && v->cg % 4 == 0 && v->c->isa->codes == (v->c->in[0]->dtype == FR_U8 ? FR_CODES_U8 : FR_CODES_I8);
    cut(v);
}

/* ---- checks ---- */

static frugal_status check_attrs(const fr_call *c, const conv *v) {
    const int64_t small[] = {v->kh, v->kw, v->sh, v->sw, v->dh, v->dw, v->uh, v->uw};
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        FR_SHAPE(c, small[i] >= 1 && small[i] <= MAX_KERNEL, "a kernel, stride or dilation is out of range");
    FR_SHAPE(c, v->top < STAGED_LIMIT && v->left < STAGED_LIMIT, "a padding is out of range");
    for (int i = 11; i < 15; i++)
        FR_SHAPE(c, c->attrs[i] <= 255, "a zero point or limit is no code");
    FR_SHAPE(c, c->attrs[13] <= c->attrs[14], "the limits exclude each other");
    FR_SHAPE(c, v->kh * v->kw <= MAX_KERNEL, "a kernel is too large");
    return FRUGAL_OK;
}

static frugal_status check_shape(const fr_call *c, const conv *v) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    const int64_t sizes[] = {v->h, v->w, v->oh, v->ow};
    FR_SHAPE(c, x->dims[0] == y->dims[0], "input and output have different batches");
    for (size_t i = 0; i < 4; i++)
        FR_SHAPE(c, sizes[i] < STAGED_LIMIT, "an image is too large");
    FR_SHAPE(c, v->ch >= 1 && v->oc >= 1 && v->ch <= MAX_DEPTH && v->oc <= MAX_DEPTH, "the channels are out of range");
    FR_SHAPE(c, v->g >= 1 && v->ch % v->g == 0 && v->oc % v->g == 0, "the channels do not divide into the groups");
    FR_SHAPE(c, !v->depth || v->g == v->ch, "a depthwise convolution has a group a channel");
    return FRUGAL_OK;
}

/* A staged strip of one output row must be small enough for int32 offsets; so must one of several rows (cut sees to it). */
static frugal_status check_size(const fr_call *c, const conv *v) {
    const int64_t columns = (fr_max(v->ow, 1) - 1) * v->sw + (v->kw - 1) * v->dw + 1; /* at most 2^28 * 2^12 + 2^24 */
    const int64_t rows = (v->kh - 1) * v->dh + 1, cg = v->depth ? v->oc : v->ch / v->g;
    FR_SHAPE(c, columns < STAGED_LIMIT && columns * cg < STAGED_LIMIT && columns * cg * rows < STAGED_LIMIT,
             "a row of the output takes too much of the input");
    FR_SHAPE(c, (v->h - 1) * v->uh < INT64_C(1) << 40 && (v->w - 1) * v->uw < INT64_C(1) << 40, "a spread image is too large");
    return FRUGAL_OK;
}

static frugal_status check_constants(const fr_call *c, const conv *v) {
    const fr_tensor *w = c->in[1], *params = c->in[2];
    const int64_t panels = v->depth ? fr_ceil_div(v->oc, FR_PANEL) : v->g * fr_ceil_div(v->og, FR_PANEL);
    const int64_t all[] = {panels, v->runs, v->quads, FR_PANEL, 4};
    const int64_t depth[] = {panels, v->quads, FR_PANEL, 4}, *want = v->depth ? depth : all;
    FR_SHAPE(c, v->runs * v->quads * 4 <= MAX_DEPTH, "a kernel is too deep");
    FR_DTYPE(c, w->dtype == FR_I8 && params->dtype == FR_I32, "weights must be int8 and parameters int32");
    FR_SHAPE(c, w->rank == (v->depth ? 4 : 5) && params->rank == 3, "weights or parameters have another rank");
    for (int i = 0; i < w->rank; i++) {
        if (w->dims[i] != want[i])
            return fr_fail(c, FRUGAL_BAD_SHAPE, 1, i, want[i], w->dims[i], "the weights have another shape than the kernel");
    }
    FR_SHAPE(c, params->dims[0] == panels && params->dims[1] == 4 && params->dims[2] == FR_PANEL,
             "the parameters have another shape than [panels, 4, 16]");
    return FRUGAL_OK;
}

static frugal_status check_conv(const fr_call *c, bool depth) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    conv v;
    FR_DTYPE(c, is_codes(x), "the input of an integer convolution must be int8 or uint8");
    FR_DTYPE(c, is_codes(y) || (!depth && (y->dtype == FR_I32 || y->dtype == FR_F32)),
             "the output of an integer convolution is of another type than the operation has");
    FR_SHAPE(c, x->rank == 4 && y->rank == 4, "an integer convolution is of [n, h, w, c]");
    describe(c, depth, &v);
    FR_TRY(check_attrs(c, &v));
    FR_TRY(check_shape(c, &v));
    FR_TRY(check_size(c, &v));
    if (y->n == 0)
        v.oh = v.ow = 1; /* nothing will run */
    derive(&v);
    FR_TRY(check_constants(c, &v));
    return !depth && c->n_in > 3 && c->in[3] ? fr_qwino_check(c) : FRUGAL_OK;
}
frugal_status fr_qconv_check(const fr_call *c) { return check_conv(c, false); }
frugal_status fr_qdepth_check(const fr_call *c) { return check_conv(c, true); }

/* ---- staging ---- */

static int64_t strip_rows(const conv *v, int64_t rows) { return (rows - 1) * v->sh + (v->kh - 1) * v->dh + 1; }

/* n codes to the form of the instruction set; flip: of the codes to unsigned ones. */
static void stage(const conv *v, uint8_t *d, const uint8_t *s, int64_t n, uint8_t flip) {
    if (v->size == 2) {
        int16_t *wide = (int16_t *)(void *)d;
        for (int64_t i = 0; i < n; i++)
            wide[i] = (int16_t)(s[i] ^ flip);
        return;
    }
    flip = v->c->isa->codes == FR_CODES_I8 ? flip ^ 0x80 : flip;
    if (!flip) {
        memcpy(d, s, (size_t)n);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        d[i] = s[i] ^ flip;
}

static void fill(const conv *v, uint8_t *d, int64_t n) {
    const uint8_t zero = (uint8_t)v->c->attrs[11];
    if (v->size == 2) {
        int16_t *wide = (int16_t *)(void *)d;
        for (int64_t i = 0; i < n; i++)
            wide[i] = zero;
        return;
    }
    memset(d, v->c->isa->codes == FR_CODES_I8 ? zero ^ 0x80 : zero, (size_t)n);
}

/* Pixels [from, to) of a staged row, which lie inside a row of x without spread; x at the row's group. */
static void stage_pixels(const conv *v, uint8_t *d, const uint8_t *x, int64_t from, int64_t to) {
    const uint8_t flip = flip_of(v->c->in[0]);
    const int64_t many = v->depth ? v->oc / v->ch : 1;
    x += (from - v->left) * v->ch;
    d += from * v->cg * v->size;
    if (v->cg == v->ch) {
        stage(v, d, x, (to - from) * v->ch, flip);
        return;
    }
    for (int64_t i = from; i < to; i++, x += v->ch, d += v->cg * v->size) {
        if (many == 1) {
            stage(v, d, x, v->cg, flip);
            continue;
        }
        for (int64_t k = 0; k < v->cg; k++)
            stage(v, d + k * v->size, x + k / many, 1, flip);
    }
}

/* A row of x, spread: a pixel at a time. */
static void stage_spread(const conv *v, uint8_t *d, const uint8_t *x) {
    for (int64_t i = 0; i < v->w; i++) {
        const int64_t at = v->left + i * v->uw;
        if (at >= v->iw)
            break;
        stage_pixels(v, d + (at - (v->left + i)) * v->cg * v->size, x, v->left + i, v->left + i + 1);
    }
}

/* The staged rows of output rows [y0, y0 + rows) of image x, at its group's channels. */
static void stage_strip(const conv *v, uint8_t *d, const uint8_t *x, int64_t y0, int64_t rows) {
    const int64_t left = fr_min(v->left, v->iw), bytes = v->line * v->size;
    const int64_t end = fr_max(left, fr_min(v->iw, v->left + v->w)), n = strip_rows(v, rows);
    if (v->column && v->cg == v->ch) {
        stage(v, d, x + y0 * v->ch, rows * v->ch, flip_of(v->c->in[0]));
        return;
    }
    for (int64_t r = 0; r < n; r++, d += bytes) {
        const int64_t at = y0 * v->sh + r - v->top, y = v->uh == 1 ? at : at / v->uh;
        if (at < 0 || y * v->uh != at || y >= v->h || v->w == 0) {
            fill(v, d, v->line);
            continue;
        }
        const uint8_t *row = x + y * v->w * v->ch;
        if (v->uw > 1) {
            fill(v, d, v->line);
            stage_spread(v, d, row);
            continue;
        }
        fill(v, d, left * v->cg);
        fill(v, d + end * v->cg * v->size, (v->iw - end) * v->cg);
        if (end > left)
            stage_pixels(v, d, row, left, end);
    }
}

/* ---- running ---- */

/* Where each run of the kernel begins; depthwise: where each tap is, four a quad, repeating the last where there are fewer. */
static void place_runs(const conv *v, int32_t *run) {
    if (!v->depth) {
        for (int64_t r = 0; r < v->runs; r++) {
            const int64_t ky = v->dw == 1 ? r : r / v->kw, kx = v->dw == 1 ? 0 : r % v->kw;
            run[r] = (int32_t)(ky * v->dh * v->line + kx * v->dw * v->cg);
        }
        return;
    }
    const bool tall = v->kh >= v->kw;
    const int64_t along = tall ? v->kh : v->kw, across = tall ? v->kw : v->kh, fours = fr_ceil_div(along, 4);
    for (int64_t i = 0; i < across * fours * 4; i++) {
        const int64_t k = fr_min(i % (fours * 4), along - 1), o = i / (fours * 4);
        const int64_t ky = tall ? k : o, kx = tall ? o : k;
        run[i] = (int32_t)(ky * v->dh * v->line + kx * v->dw * v->cg);
    }
}

static int64_t run_count(const conv *v) { return v->depth ? 4 * v->quads : v->runs; }

static void place_pixels(const conv *v, int32_t *pixel) {
    const int32_t down = (int32_t)(v->sh * v->line), right = (int32_t)(v->sw * v->cg);
    const int64_t columns = v->ow == 1 ? v->rows : v->ow, rows = v->ow == 1 ? 1 : v->rows; /* the inner loop is the long one */
    const uint32_t step = (uint32_t)(v->ow == 1 ? down : right);
    for (int64_t y = 0; y < rows; y++, pixel += columns) {
        for (int64_t x = 0; x < columns; x++)
            pixel[x] = (int32_t)((uint32_t)(y * down) + (uint32_t)x * step);
    }
}

static int32_t staged_code(const conv *v, const void *codes, int64_t i) {
    switch (v->c->isa->codes) {
    case FR_CODES_I16:
        return ((const int16_t *)codes)[i];
    case FR_CODES_I8:
        return ((const int8_t *)codes)[i];
    default:
        return ((const uint8_t *)codes)[i];
    }
}

static void sum_windows(const conv *v, const fr_qconv *q, int32_t *window) {
    for (int64_t i = 0; i < q->pixels; i++) {
        int32_t sum = 0;
        for (int64_t r = 0; r < v->runs; r++) {
            for (int64_t k = 0; k < v->length; k++)
                sum += staged_code(v, q->codes, (int64_t)q->pixel[i] + q->run[r] + k);
        }
        window[i] = sum;
    }
}

/* Whether some weights have a zero point, and whether every |m| is at most 1/2. */
static void scan_params(const fr_tensor *params, bool *zeros, bool *small) {
    const uint32_t *p = (const uint32_t *)(const void *)params->data, *end = p + params->n;
    uint32_t any = 0, largest = 0;
    for (; p < end; p += FR_QPARAMS) {
        for (int j = 0; j < FR_PANEL; j++) {
            any |= p[48 + j];
            largest = (p[32 + j] & INT32_MAX) > largest ? p[32 + j] & INT32_MAX : largest;
        }
    }
    *zeros = any != 0;
    *small = largest <= 0x3f000000; /* the bits of 0.5; those of a NaN are larger */
}

/* The scratch of a thread: staged codes, offsets of pixels and runs, window sums, the kernel's own; each 64-aligned. */
typedef struct pieces {
    int64_t pixel, run, window, own, bytes;
} pieces;
static pieces pieces_of(const conv *v) {
    pieces p;
    p.pixel = fr_round_up(v->direct ? 0 : strip_rows(v, v->rows) * v->line * v->size + SLACK * v->size, 64);
    p.run = p.pixel + fr_round_up(4 * v->rows * v->ow, 64);
    p.window = p.run + fr_round_up(4 * run_count(v), 64);
    p.own = p.window + fr_round_up(4 * v->rows * v->ow, 64);
    p.bytes = p.own + (v->depth ? FR_QSCRATCH * v->quads : v->c->isa->quad_bytes * v->runs * v->quads);
    return p;
}

typedef struct conv_job {
    conv v;
    pieces at;
    bool zeros, small; /* as scan_params says */
} conv_job;

static void run_group(const conv_job *j, fr_qconv *q, uint8_t *scratch, int64_t image, int64_t y0, int64_t group) {
    const conv *v = &j->v;
    const fr_tensor *x = v->c->in[0], *y = v->c->out[0];
    const int64_t panels = group * fr_ceil_div(v->og, FR_PANEL), rows = fr_min(v->rows, v->oh - y0);
    const uint8_t *from = x->data + image * v->h * v->w * v->ch + (v->depth ? 0 : group * v->cg);
    q->pixels = rows * v->ow;
    q->row = v->ow == 1 ? q->pixels : v->ow; /* pixels below each other lie as regularly */
    if (v->direct)
        q->codes = from + y0 * v->ch;
    else
        stage_strip(v, scratch, from, y0, rows);
    q->w = (const int8_t *)v->c->in[1]->data + panels * v->runs * v->quads * 64;
    q->params = (const int32_t *)(const void *)v->c->in[2]->data + panels * FR_QPARAMS;
    q->y = y->data + ((image * v->oh + y0) * v->ow * v->oc + group * v->og) * fr_dtype_bytes(y->dtype);
    if (j->zeros) {
        sum_windows(v, q, (int32_t *)(void *)(scratch + j->at.window));
        q->window = (const int32_t *)(void *)(scratch + j->at.window);
    }
    if (v->depth)
        v->c->isa->qdepth(q);
    else
        v->c->isa->qconv(q);
}

static void conv_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const conv_job *j = p;
    const conv *v = &j->v;
    const int64_t *a = v->c->attrs;
    const fr_tensor *y = v->c->out[0];
    uint8_t *scratch = fr_thread_scratch(v->c, thread);
    int32_t *pixel = (int32_t *)(void *)(scratch + j->at.pixel), *run = (int32_t *)(void *)(scratch + j->at.run);
    fr_qconv q = {.codes = scratch,
                  .pixel = pixel,
                  .run = run,
                  .runs = v->runs,
                  .quads = v->quads,
                  .n = v->og,
                  .ldy = v->oc,
                  .dtype = y->dtype,
                  .zero = (int32_t)a[12],
                  .low = (int32_t)a[13],
                  .high = (int32_t)a[14],
                  .small = j->small,
                  .scratch = scratch + j->at.own,
                  .columns = v->depth && v->kh <= 4 && v->kw == 3 && v->kh >= 3 ? v->dw * v->cg : 0};
    place_pixels(v, pixel);
    place_runs(v, run);
    for (int64_t i = begin; i < end; i++) {
        for (int64_t group = 0; group < (v->depth ? 1 : v->g); group++)
            run_group(j, &q, scratch, i / v->strips, i % v->strips * v->rows, group);
    }
}

/* Whether there are transformed weights that this instruction set uses. */
static bool transformed(const fr_call *c) {
    return c->n_in > 3 && c->in[3] && c->isa->qwino && c->in[0]->dims[3] >= c->isa->wino_from;
}

static frugal_status run_conv(const fr_call *c, bool depth) {
    conv_job j = {0};
    scan_params(c->in[2], &j.zeros, &j.small);
    if (transformed(c) && !j.zeros)
        return fr_qwino_run(c, j.small);
    describe(c, depth, &j.v);
    derive(&j.v);
    j.at = pieces_of(&j.v);
    j.zeros = j.zeros && !depth;
    fr_parallel(c, j.v.n * j.v.strips, 1, conv_range, &j);
    return FRUGAL_OK;
}
frugal_status fr_qconv_run(const fr_call *c) { return run_conv(c, false); }
frugal_status fr_qdepth_run(const fr_call *c) { return run_conv(c, true); }

void fr_qconv_scratch(const fr_call *c, fr_scratch *s) {
    conv v;
    if (c->out[0]->n == 0)
        return;
    describe(c, c->in[1]->rank == 4, &v);
    derive(&v);
    s->thread = pieces_of(&v).bytes;
    if (transformed(c))
        s->thread = fr_max(s->thread, fr_qwino_scratch(c));
}

static int64_t times(int64_t a, int64_t b) {
    int64_t n;
    return __builtin_mul_overflow(a, b, &n) ? INT64_MAX : n;
}
int64_t fr_qconv_operations(const fr_call *c) {
    const int64_t k = c->attrs[1] * c->attrs[2] * (c->in[0]->dims[3] / fr_max(1, c->attrs[0]));
    return times(c->out[0]->n, 2 * k);
}
int64_t fr_qdepth_operations(const fr_call *c) { return times(c->out[0]->n, 2 * c->attrs[1] * c->attrs[2]); }

/* ---- two operands ---- */

typedef struct pair_job {
    fr_qadd p;
    uint8_t *y;
    const uint8_t *a, *b;
    const frugal_isa *isa;
    bool product;
} pair_job;

frugal_status fr_qbinary_check(const fr_call *c) {
    const fr_tensor *y = c->out[0];
    FR_DTYPE(c, is_codes(c->in[0]) && is_codes(c->in[1]) && is_codes(y), "operands must be int8 or uint8 codes");
    FR_SHAPE(c, fr_broadcasts_to(c->in[0], y) && fr_broadcasts_to(c->in[1], y), "the operands do not broadcast to the output");
    for (int i = 1; i < 6; i++)
        FR_SHAPE(c, c->attrs[i] <= 255, "a zero point or limit is no code");
    FR_SHAPE(c, c->attrs[4] <= c->attrs[5], "the limits exclude each other");
    return FRUGAL_OK;
}

static inline uint8_t pair_code(const fr_qadd *p, float t) {
    return (uint8_t)(nearest(limit(t, (float)(p->low - p->zero), (float)(p->high - p->zero))) + p->zero) ^ p->flip_y;
}

static void product_span(uint8_t *y, const uint8_t *a, const uint8_t *b, int64_t n, const fr_qadd *job) {
    const fr_qadd p = *job; /* in registers: y could be anything to the compiler */
    for (int64_t i = 0; i < n; i++)
        y[i] = pair_code(&p, (float)(((a[i] ^ p.flip_a) - p.za) * ((b[i] ^ p.flip_b) - p.zb)) * p.ma);
}

static void pair_inner(const void *ctx, int64_t out, const int64_t *at, const int64_t *step, int64_t n) {
    const pair_job *j = ctx;
    const fr_qadd *p = &j->p;
    if (step[0] == 1 && step[1] == 1) {
        if (j->product)
            product_span(j->y + out, j->a + at[0], j->b + at[1], n, p);
        else
            j->isa->qadd(j->y + out, j->a + at[0], j->b + at[1], n, p);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        const int32_t a = (j->a[at[0] + i * step[0]] ^ p->flip_a) - p->za, b = (j->b[at[1] + i * step[1]] ^ p->flip_b) - p->zb;
        j->y[out + i] = pair_code(p, j->product ? (float)(a * b) * p->ma : (float)a * p->ma + (float)b * p->mb);
    }
}

frugal_status fr_qbinary_run(const fr_call *c) {
    const int64_t *a = c->attrs;
    fr_walk w;
    pair_job j = {.y = c->out[0]->data, .a = c->in[0]->data, .b = c->in[1]->data, .isa = c->isa, .product = a[0] == 1};
    j.p = (fr_qadd){.za = (int32_t)a[1],
                    .zb = (int32_t)a[2],
                    .zero = (int32_t)a[3],
                    .ma = fr_attr_float(c, 6),
                    .mb = fr_attr_float(c, 7),
                    .low = (int32_t)a[4],
                    .high = (int32_t)a[5],
                    .flip_a = flip_of(c->in[0]),
                    .flip_b = flip_of(c->in[1]),
                    .flip_y = flip_of(c->out[0])};
    fr_walk_init(&w, c->out[0]);
    fr_walk_broadcast(&w, c->in[0]);
    fr_walk_broadcast(&w, c->in[1]);
    fr_walk_run(c, &w, pair_inner, &j);
    return FRUGAL_OK;
}

/* ---- pooling ---- */

typedef struct pool_job {
    const fr_call *c;
    int64_t h, w, ch, oh, ow, kh, kw, sh, sw, dh, dw, top, left;
} pool_job;

static pool_job pool_of(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    const int64_t *a = c->attrs;
    pool_job j = {c,    x->dims[1], x->dims[2], x->dims[3], y->dims[1], y->dims[2],        a[1],
                  a[2], a[3],       a[4],       a[5],       a[6],       fr_attr_dim(c, 7), fr_attr_dim(c, 8)};
    if (j.kh == 0 || j.kw == 0)
        j.kh = j.h, j.kw = j.w;
    return j;
}

frugal_status fr_qpool_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    FR_DTYPE(c, is_codes(x) && is_codes(y), "pooling of codes is of int8 or uint8");
    FR_SHAPE(c, x->rank == 4 && y->rank == 4 && x->dims[0] == y->dims[0] && x->dims[3] == y->dims[3],
             "pooling keeps the batch and the channels of [n, h, w, c]");
    const pool_job j = pool_of(c);
    const int64_t sizes[] = {j.kh, j.kw, j.sh, j.sw, j.dh, j.dw, j.h, j.w, j.oh, j.ow, j.top, j.left};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        FR_SHAPE(c, sizes[i] < 1 << 20, "a size of a pooling is out of range");
    FR_SHAPE(c, j.sh >= 1 && j.sw >= 1 && j.dh >= 1 && j.dw >= 1, "a stride or dilation of a pooling is 0");
    FR_SHAPE(c, times(j.kh, j.kw) <= 1 << 22, "a window of a pooling is too large");
    FR_SHAPE(c, c->attrs[9] <= 255 && c->attrs[10] <= 255, "a zero point is no code");
    FR_DTYPE(c, c->attrs[0] != 2 || x->dtype == y->dtype, "a maximum keeps its data type");
    return FRUGAL_OK;
}

enum { POOL_LANES = 64, POOL_SHORT = 256 /* pixels whose sum fits uint16 */ };

/* Adds a pixel's n unsigned codes, or takes their maximum. */
static void pool_pixel(uint16_t *acc, const uint8_t *p, int64_t n, uint8_t flip, bool maximum) {
    if (maximum) {
        for (int64_t i = 0; i < n; i++) {
            const uint16_t code = p[i] ^ flip;
            acc[i] = code > acc[i] ? code : acc[i];
        }
    } else if (n == POOL_LANES) {
        for (int64_t i = 0; i < POOL_LANES; i++)
            acc[i] = (uint16_t)(acc[i] + (p[i] ^ flip));
    } else {
        for (int64_t i = 0; i < n; i++)
            acc[i] = (uint16_t)(acc[i] + (p[i] ^ flip));
    }
}

static void pool_flush(int32_t *acc, uint16_t *part, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        acc[i] += part[i];
        part[i] = 0;
    }
}

/* Sums (or maxima) of unsigned codes of n channels over the pixels of a window; returns how many there were. */
static int64_t pool_window(const pool_job *j, const uint8_t *x, int64_t y0, int64_t x0, int64_t n, int32_t *acc) {
    const uint8_t flip = flip_of(j->c->in[0]);
    const bool maximum = j->c->attrs[0] == 2;
    uint16_t part[POOL_LANES] = {0};
    int64_t count = 0;
    for (int64_t ky = 0; ky < j->kh; ky++) {
        const int64_t row = y0 + ky * j->dh;
        for (int64_t kx = 0; row >= 0 && row < j->h && kx < j->kw; kx++) {
            const int64_t column = x0 + kx * j->dw;
            if (column < 0 || column >= j->w)
                continue;
            pool_pixel(part, x + (row * j->w + column) * j->ch, n, flip, maximum);
            if (++count % POOL_SHORT == 0 && !maximum)
                pool_flush(acc, part, n);
        }
    }
    pool_flush(acc, part, n);
    return count;
}

static void pool_store(const pool_job *j, uint8_t *y, const int32_t *acc, int64_t n, int64_t count) {
    const int64_t *a = j->c->attrs;
    const uint8_t flip = flip_of(j->c->out[0]);
    const float low = (float)-a[10], high = (float)(255 - a[10]);
    const float m = fr_attr_float(j->c, 11) / (float)(a[0] == 1 ? j->kh * j->kw : count);
    for (int64_t i = 0; i < n; i++) {
        int32_t v = acc[i];
        if (count == 0)
            v = (int32_t)a[10];
        else if (a[0] != 2)
            v = nearest(limit((float)(v - (int32_t)(count * a[9])) * m, low, high)) + (int32_t)a[10];
        y[i] = (uint8_t)v ^ flip;
    }
}

static void pool_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const pool_job *j = p;
    int32_t acc[POOL_LANES];
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int64_t image = i / (j->oh * j->ow), y0 = i / j->ow % j->oh * j->sh - j->top, x0 = i % j->ow * j->sw - j->left;
        const uint8_t *x = j->c->in[0]->data + image * j->h * j->w * j->ch;
        for (int64_t at = 0, n; at < j->ch; at += n) {
            n = fr_min(POOL_LANES, j->ch - at);
            memset(acc, 0, sizeof acc);
            const int64_t count = pool_window(j, x + at, y0, x0, n, acc);
            pool_store(j, j->c->out[0]->data + i * j->ch + at, acc, n, count);
        }
    }
}

frugal_status fr_qpool_run(const fr_call *c) {
    const pool_job j = pool_of(c);
    const int64_t work = fr_max(1, j.kh * j.kw * j.ch);
    fr_parallel(c, c->out[0]->n / fr_max(1, j.ch), fr_row_grain(work), pool_range, &j);
    return FRUGAL_OK;
}

int64_t fr_qpool_operations(const fr_call *c) {
    const pool_job j = pool_of(c);
    return times(c->out[0]->n, fr_max(1, j.kh * j.kw));
}

/* ---- from float ---- */

typedef struct codes_job {
    const fr_call *c;
    int64_t batch, ch, pixels, blocks; /* x [batch, ch, pixels], y [batch, pixels, ch]; blocks of pixels */
    float scale;
    int32_t zero;
} codes_job;
enum { CODES_BLOCK = 256 };

static codes_job codes_of(const fr_call *c) {
    const fr_tensor *x = c->in[0];
    const bool last = c->attrs[0] != 0;
    codes_job j = {.c = c,
                   .batch = last ? x->dims[0] : 1,
                   .ch = last ? x->dims[1] : 1,
                   .pixels = last ? fr_product(x, 2, x->rank) : x->n,
                   .scale = fr_attr_float(c, 2),
                   .zero = (int32_t)c->attrs[1]};
    j.blocks = fr_ceil_div(j.pixels, CODES_BLOCK);
    return j;
}

frugal_status fr_qcodes_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    const bool last = c->attrs[0] != 0;
    FR_DTYPE(c, x->dtype == FR_F32 && is_codes(y), "codes are made of float32, as int8 or uint8");
    FR_SHAPE(c, c->attrs[1] <= 255, "a zero point is no code");
    FR_SHAPE(c, x->rank == y->rank && (!last || x->rank >= 3), "input and output have different ranks");
    for (int32_t a = 0; a < x->rank; a++) {
        const int32_t to = !last || a == 0 ? a : a == 1 ? x->rank - 1 : a - 1;
        if (x->dims[a] != y->dims[to])
            return fr_fail(c, FRUGAL_BAD_SHAPE, 1, to, x->dims[a], y->dims[to], "the output has another shape than the input");
    }
    return FRUGAL_OK;
}

static void codes_span(const codes_job *j, uint8_t *y, const float *x, int64_t n) {
    const float least = (float)-j->zero, most = (float)(255 - j->zero), scale = j->scale;
    const int32_t zero = j->zero;
    const uint8_t flip = flip_of(j->c->out[0]);
    for (int64_t i = 0; i < n; i++) {
        y[i] = (uint8_t)(nearest(limit(x[i] / scale, least, most)) + zero) ^ flip;
    }
}

/* Codes of k channels side by side: y[m ch + i] = part[i][m]. */
static inline void weave(uint8_t *y, int64_t ch, uint8_t (*part)[CODES_BLOCK], int64_t n, const int k) {
    for (int64_t m = 0; m < n; m++) {
        for (int i = 0; i < k; i++)
            y[m * ch + i] = part[i][m];
    }
}

static void codes_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const codes_job *j = p;
    const float *x = (const float *)(const void *)j->c->in[0]->data;
    uint8_t part[4][CODES_BLOCK];
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int64_t at = i % j->blocks * CODES_BLOCK, n = fr_min(CODES_BLOCK, j->pixels - at), image = i / j->blocks;
        uint8_t *y = j->c->out[0]->data + (image * j->pixels + at) * j->ch;
        if (j->ch == 1) {
            codes_span(j, y, x + image * j->pixels + at, n);
            continue;
        }
        for (int64_t k = 0; k < j->ch; k += 4) {
            const int64_t many = fr_min(4, j->ch - k);
            for (int64_t m = 0; m < many; m++)
                codes_span(j, part[m], x + (image * j->ch + k + m) * j->pixels + at, n);
            if (many == 4)
                weave(y + k, j->ch, part, n, 4);
            else if (many == 3)
                weave(y + k, j->ch, part, n, 3);
            else if (many == 2)
                weave(y + k, j->ch, part, n, 2);
            else
                weave(y + k, j->ch, part, n, 1);
        }
    }
}

frugal_status fr_qcodes_run(const fr_call *c) {
    const codes_job j = codes_of(c);
    fr_parallel(c, j.batch * j.blocks, fr_row_grain(CODES_BLOCK * j.ch), codes_range, &j);
    return FRUGAL_OK;
}

/* ---- tables ---- */

frugal_status fr_qlookup_check(const fr_call *c) {
    FR_DTYPE(c, is_codes(c->in[0]), "a look-up is of int8 or uint8 codes");
    FR_DTYPE(c, c->out[0]->dtype == c->in[1]->dtype, "a look-up gives the data type of its table");
    FR_SHAPE(c, c->in[1]->rank == 1 && c->in[1]->dims[0] == 256, "a table has 256 entries");
    return fr_same_shape(c, c->out[0], c->in[0], c->n_in);
}

#define LOOK_UP(T)                                                                                                               \
    for (int64_t i = begin; i < end; i++)                                                                                        \
    ((T *)(void *)c->out[0]->data)[i] = ((const T *)(const void *)c->in[1]->data)[c->in[0]->data[i] ^ flip]
static void lookup_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const uint8_t flip = flip_of(c->in[0]);
    (void)thread;
    switch (fr_dtype_bytes(c->out[0]->dtype)) {
    case 1:
        LOOK_UP(uint8_t);
        break;
    case 2:
        LOOK_UP(uint16_t);
        break;
    case 4:
        LOOK_UP(uint32_t);
        break;
    default:
        LOOK_UP(uint64_t);
        break;
    }
}
#undef LOOK_UP

frugal_status fr_qlookup_run(const fr_call *c) {
    fr_parallel(c, c->out[0]->n, 16384, lookup_range, c);
    return FRUGAL_OK;
}

frugal_status fr_qsoftmax_check(const fr_call *c) {
    const fr_tensor *x = c->in[0];
    FR_DTYPE(c, is_codes(x) && is_codes(c->out[0]), "a softmax of codes is of int8 or uint8");
    FR_SHAPE(c, c->attrs[0] < x->rank, "the axis is not one of the input's");
    FR_SHAPE(c, c->attrs[1] <= 255, "a zero point is no code");
    FR_TRY(fr_vector(c, c->in[1], 256, 1));
    return fr_same_shape(c, c->out[0], x, c->n_in);
}

/* One row of n codes, stride apart. */
static void softmax_row(const fr_call *c, uint8_t *y, const uint8_t *x, int64_t n, int64_t stride) {
    const float *table = (const float *)(const void *)c->in[1]->data, m = fr_attr_float(c, 2);
    const uint8_t flip = flip_of(c->in[0]), flip_y = flip_of(c->out[0]);
    const float low = (float)-c->attrs[1], high = (float)(255 - c->attrs[1]);
    int32_t top = 0;
    float sum = 0.0f;
    for (int64_t i = 0; i < n; i++)
        top = (x[i * stride] ^ flip) > top ? x[i * stride] ^ flip : top;
    for (int64_t i = 0; i < n; i++)
        sum += table[top - (x[i * stride] ^ flip)];
    for (int64_t i = 0; i < n; i++) {
        const float v = table[top - (x[i * stride] ^ flip)] / sum * m;
        y[i * stride] = (uint8_t)(nearest(limit(v, low, high)) + (int32_t)c->attrs[1]) ^ flip_y;
    }
}

static void softmax_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const fr_tensor *x = c->in[0];
    const int32_t axis = (int32_t)c->attrs[0];
    const int64_t n = x->dims[axis], inner = fr_product(x, axis + 1, x->rank);
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int64_t at = i / inner * n * inner + i % inner;
        softmax_row(c, c->out[0]->data + at, x->data + at, n, inner);
    }
}

frugal_status fr_qsoftmax_run(const fr_call *c) {
    const int64_t n = c->in[0]->dims[c->attrs[0]];
    fr_parallel(c, c->out[0]->n / n, fr_row_grain(4 * n), softmax_range, c);
    return FRUGAL_OK;
}

/* ---- ConvInteger of operands known only at run time ---- */

typedef struct plain_conv {
    const fr_call *c;
    int64_t ch, h, w, oc, oh, ow, cg, og, kh, kw, sh, sw, dh, dw, top, left;
    int32_t x_zero;
} plain_conv;

static plain_conv plain_of(const fr_call *c) {
    const fr_tensor *x = c->in[0], *w = c->in[1], *y = c->out[0];
    const int64_t *a = c->attrs, g = fr_max(1, a[0]);
    return (plain_conv){c,          x->dims[1], x->dims[2],     x->dims[3],        y->dims[1],        y->dims[2],
                        y->dims[3], w->dims[1], y->dims[1] / g, w->dims[2],        w->dims[3],        a[1],
                        a[2],       a[3],       a[4],           fr_attr_dim(c, 5), fr_attr_dim(c, 6), 0};
}

frugal_status fr_conv_integer_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *w = c->in[1], *xz = c->in[2], *wz = c->in[3], *y = c->out[0];
    FR_DTYPE(c, is_codes(x) && is_codes(w) && y->dtype == FR_I32, "an integer convolution of int8 or uint8 gives int32");
    FR_DTYPE(c, (!xz || xz->dtype == x->dtype) && (!wz || wz->dtype == w->dtype), "a zero point has another data type");
    FR_SHAPE(c, x->rank == 4 && w->rank == 4 && y->rank == 4, "an integer convolution is of [n, c, h, w]");
    FR_SHAPE(c, (!xz || xz->n == 1) && (!wz || wz->n == 1 || wz->n == y->dims[1]), "a zero point has another shape");
    const plain_conv v = plain_of(c);
    const int64_t g = c->attrs[0];
    FR_SHAPE(c, g >= 1 && v.ch == v.cg * g && v.oc == v.og * g && w->dims[0] == v.oc, "the channels do not fit the groups");
    FR_SHAPE(c, x->dims[0] == y->dims[0], "input and output have different batches");
    const int64_t sizes[] = {v.h, v.w, v.oh, v.ow, v.kh, v.kw, v.sh, v.sw, v.dh, v.dw, v.top, v.left};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        FR_SHAPE(c, sizes[i] < 1 << 24, "a size of a convolution is out of range");
    FR_SHAPE(c, times(times(v.kh, v.kw), v.cg) <= 32768, "an int32 sum of so many products could overflow");
    return FRUGAL_OK;
}

static int32_t plain_code(const fr_tensor *t, int64_t i) {
    return t->dtype == FR_I8 ? (int32_t)((const int8_t *)t->data)[i] : (int32_t)t->data[i];
}

/* Output pixel (oy, ox) of channel o of image n. */
static int32_t plain_pixel(const plain_conv *v, int64_t n, int64_t o, int64_t oy, int64_t ox) {
    const fr_tensor *x = v->c->in[0], *w = v->c->in[1], *wz = v->c->in[3];
    const int32_t w_zero = wz ? plain_code(wz, wz->n == 1 ? 0 : o) : 0;
    int32_t acc = 0;
    for (int64_t ci = 0; ci < v->cg; ci++) {
        const int64_t plane = (n * v->ch + o / v->og * v->cg + ci) * v->h, kernel = (o * v->cg + ci) * v->kh;
        for (int64_t ky = 0; ky < v->kh; ky++) {
            const int64_t iy = oy * v->sh - v->top + ky * v->dh;
            for (int64_t kx = 0; iy >= 0 && iy < v->h && kx < v->kw; kx++) {
                const int64_t ix = ox * v->sw - v->left + kx * v->dw;
                if (ix >= 0 && ix < v->w)
                    acc += (plain_code(x, (plane + iy) * v->w + ix) - v->x_zero) *
                           (plain_code(w, (kernel + ky) * v->kw + kx) - w_zero);
            }
        }
    }
    return acc;
}

static void plain_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const plain_conv *v = p;
    int32_t *y = (int32_t *)(void *)v->c->out[0]->data;
    (void)thread;
    for (int64_t i = begin; i < end; i++)
        y[i] = plain_pixel(v, i / v->ow / v->oh / v->oc, i / v->ow / v->oh % v->oc, i / v->ow % v->oh, i % v->ow);
}

frugal_status fr_conv_integer_run(const fr_call *c) {
    plain_conv v = plain_of(c);
    v.x_zero = c->in[2] ? plain_code(c->in[2], 0) : 0;
    fr_parallel(c, c->out[0]->n, fr_row_grain(v.cg * v.kh * v.kw), plain_range, &v);
    return FRUGAL_OK;
}

int64_t fr_conv_integer_operations(const fr_call *c) {
    const fr_tensor *w = c->in[1];
    return times(c->out[0]->n, 2 * fr_product(w, 1, w->rank));
}
