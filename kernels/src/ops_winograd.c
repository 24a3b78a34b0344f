/* ops_winograd.c - 3 x 3 convolutions that move by one, by Winograd's F(4 x 4, 3 x 3): 36 products in the place of 144.
 *
 * On codes this is exact (isa/x86_winograd.h), so that it gives the bytes of the plain QCONV, whose weights lie beside the
 * transformed ones: an instruction set takes whichever it is quicker with.  On floats it rounds differently than a plain
 * convolution (about eight times its error), so that it is an operation of its own. */
#include "ops.h"

enum { TILE = 4, PLACES = 36, MAX_WEIGHT_SUM = ((1 << 25) - 1) / 255 };

typedef struct job {
    const fr_call *c;
    int64_t h, w, ch, oh, ow, oc, top, left;
    int64_t across, down, tiles, blocks, scratch; /* tiles of a row, of a column, of all images; blocks of them: tasks */
    bool small;
    int64_t v_step, m_step; /* of floats: from one place to the next */
    fr_epilogue e;
} job;

/* pads: the attributes that hold them; most: tiles of a block. */
static job job_of(const fr_call *c, int pads, int64_t most) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    job j = {.c = c,
             .h = x->dims[1],
             .w = x->dims[2],
             .ch = x->dims[3],
             .oh = y->dims[1],
             .ow = y->dims[2],
             .oc = y->dims[3],
             .top = fr_attr_dim(c, pads),
             .left = fr_attr_dim(c, pads + 1)};
    j.across = fr_ceil_div(j.ow, TILE), j.down = fr_ceil_div(j.oh, TILE);
    j.tiles = x->dims[0] * j.down * j.across;
    const int64_t threads = c->threads > 1 ? 2 * (int64_t)c->threads : 1;
    const int64_t each = fr_min(most, fr_max(TILE, fr_ceil_div(j.tiles, threads)));
    j.blocks = fr_ceil_div(j.tiles, each);
    return j;
}

/* The first pixel, in x and in y, of tile i; the first of x may lie outside. */
typedef struct spot {
    int64_t image, oy, ox, iy, ix;
} spot;
static spot spot_of(const job *j, int64_t i) {
    spot s = {.image = i / (j->across * j->down), .oy = i / j->across % j->down * TILE, .ox = i % j->across * TILE};
    s.iy = s.oy - j->top, s.ix = s.ox - j->left;
    return s;
}
/* Of six columns from ix on, those inside: [from, to), both 0 where there is none. */
static void inside(const job *j, int64_t ix, int32_t *from, int32_t *to) {
    *from = (int32_t)fr_max(0, fr_min(-ix, TILE + 2));
    *to = (int32_t)fr_max(*from, fr_min(j->w - ix, TILE + 2));
}

/* ---- codes ---- */

/* Weights of plain QCONV [panels, 3, quads, 16, 4]: whether no sum of a row can leave 2^25 in size. */
static bool sums_fit(const fr_tensor *w) {
    const int64_t panel = w->dims[1] * w->dims[2] * 64;
    for (int64_t p = 0; p < w->dims[0]; p++) {
        const int8_t *at = (const int8_t *)w->data + p * panel;
        int32_t sum[FR_PANEL] = {0};
        for (int64_t k = 0; k < panel; k += 64) {
            for (int i = 0; i < 64; i++)
                sum[i / 4] += at[k + i] < 0 ? -at[k + i] : at[k + i];
        }
        for (int i = 0; i < FR_PANEL; i++) {
            if (sum[i] > MAX_WEIGHT_SUM)
                return false;
        }
    }
    return true;
}

frugal_status fr_qwino_check(const fr_call *c) {
    const fr_tensor *u = c->in[3], *w = c->in[1];
    const int64_t *a = c->attrs, ch = c->in[0]->dims[3], oc = c->out[0]->dims[3];
    const int64_t want[] = {PLACES, fr_ceil_div(oc, FR_PANEL), ch / 2, FR_PANEL, 2}, plain[] = {1, 3, 3, 1, 1, 1, 1, 1, 1};
    for (int i = 0; i < 9; i++)
        FR_SHAPE(c, a[i] == plain[i], "transformed weights are of a 3 x 3 kernel that moves by one");
    FR_SHAPE(c, ch % 16 == 0, "transformed weights are of a multiple of 16 channels");
    FR_DTYPE(c, u->dtype == FR_I16 && w->kind == FRUGAL_TENSOR_CONST, "transformed weights must be int16, plain ones constant");
    FR_SHAPE(c, u->rank == 5, "transformed weights have five axes");
    for (int i = 0; i < 5; i++) {
        if (u->dims[i] != want[i])
            return fr_fail(c, FRUGAL_BAD_SHAPE, 3, i, want[i], u->dims[i], "transformed weights of another shape");
    }
    FR_SHAPE(c, sums_fit(w), "the weights are too large to be transformed");
    return FRUGAL_OK;
}

static job codes_job(const fr_call *c) {
    job j = job_of(c, 9, FR_WINO_TILES);
    j.scratch = fr_round_up(fr_wino_scratch(j.ch), 64);
    return j;
}

static void place(const job *j, fr_wino_tile *t, int64_t i, const uint8_t *border) {
    const fr_tensor *x = j->c->in[0], *y = j->c->out[0];
    const spot s = spot_of(j, i);
    const uint8_t *from = x->data + s.image * j->h * j->w * j->ch;
    for (int k = 0; k < TILE + 2; k++)
        t->row[k] = s.iy + k >= 0 && s.iy + k < j->h ? from + ((s.iy + k) * j->w + s.ix) * j->ch : border;
    inside(j, s.ix, &t->from, &t->to);
    t->y = y->data + (((s.image * j->oh + s.oy) * j->ow + s.ox) * j->oc) * fr_dtype_bytes(y->dtype);
    t->rows = (int32_t)fr_min(TILE, j->oh - s.oy), t->columns = (int32_t)fr_min(TILE, j->ow - s.ox);
}

static void codes_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const job *j = p;
    const fr_tensor *x = j->c->in[0], *y = j->c->out[0];
    const int64_t *a = j->c->attrs;
    uint8_t *scratch = fr_thread_scratch(j->c, thread), *border = scratch + j->scratch;
    const uint8_t *rows[TILE + 2] = {border, border, border, border, border, border};
    fr_wino_tile tile[FR_WINO_TILES];
    fr_qwino w = {.tile = tile,
                  .c = j->ch,
                  .border = rows,
                  .is_signed = x->dtype == FR_I8,
                  .u = (const int16_t *)(const void *)j->c->in[3]->data,
                  .out = {.params = (const int32_t *)(const void *)j->c->in[2]->data,
                          .n = j->oc,
                          .ldy = j->oc,
                          .dtype = y->dtype,
                          .zero = (int32_t)a[12],
                          .low = (int32_t)a[13],
                          .high = (int32_t)a[14],
                          .small = j->small},
                  .y_row = j->ow * j->oc * fr_dtype_bytes(y->dtype),
                  .scratch = scratch};
    memset(border, (int)a[11] ^ (w.is_signed ? 0x80 : 0), (size_t)((TILE + 2) * j->ch));
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = i * j->tiles / j->blocks;
        w.tiles = (i + 1) * j->tiles / j->blocks - first;
        for (int64_t k = 0; k < w.tiles; k++)
            place(j, tile + k, first + k, border);
        j->c->isa->qwino(&w);
    }
}

frugal_status fr_qwino_run(const fr_call *c, bool small) {
    job j = codes_job(c);
    j.small = small;
    fr_parallel(c, j.blocks, 1, codes_range, &j);
    return FRUGAL_OK;
}

int64_t fr_qwino_scratch(const fr_call *c) {
    const job j = codes_job(c);
    return j.scratch + fr_round_up((TILE + 2) * j.ch, 64);
}

/* ---- floats ---- */

enum { FLOAT_TILES = 48, FLOAT_BLOCK = 64 << 10, PADS = 5 }; /* floats of a block's two transforms, about */

static float *floats(const fr_tensor *t) { return t ? (float *)(void *)t->data : NULL; }

/* Places are an odd number of cache lines apart, or their 36 would meet in one set. */
static int64_t apart(int64_t n) { return fr_round_up(n, 16) | 16; }

static job floats_job(const fr_call *c) {
    const int64_t ch = c->in[0]->dims[3], np = fr_round_up(c->out[0]->dims[3], FR_PANEL);
    const int64_t fit = FLOAT_BLOCK / (PLACES * (ch + np));
    job j = job_of(c, PADS, fr_max(6, fr_min(FLOAT_TILES, fit / 6 * 6)));
    const int64_t tiles = fr_ceil_div(j.tiles, fr_max(1, j.blocks));
    j.v_step = apart(tiles * ch), j.m_step = apart(tiles * np);
    j.scratch = 4 * PLACES * (j.v_step + j.m_step);
    j.e = (fr_epilogue){.bias = c->n_in > 2 ? floats(c->in[2]) : NULL,
                        .residual = c->n_in > 3 ? floats(c->in[3]) : NULL,
                        .ld = j.oc,
                        .act = (int)c->attrs[0],
                        .p = fr_attr_float(c, 1),
                        .q = fr_attr_float(c, 2),
                        .scale = fr_attr_float(c, 3),
                        .shift = fr_attr_float(c, 4)};
    j.e.affine = j.e.scale != 1.0f || j.e.shift != 0.0f;
    return j;
}

frugal_status fr_conv_winograd_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *u = c->in[1], *y = c->out[0];
    const fr_tensor *bias = c->n_in > 2 ? c->in[2] : NULL, *residual = c->n_in > 3 ? c->in[3] : NULL;
    FR_DTYPE(c, x->dtype == FR_F32 && u->dtype == FR_F32 && y->dtype == FR_F32, "a convolution is of float32");
    FR_SHAPE(c, x->rank == 4 && u->rank == 4 && y->rank == 4 && x->dims[0] == y->dims[0], "tensors of another rank or batch");
    const int64_t panels = fr_ceil_div(y->dims[3], FR_PANEL);
    FR_SHAPE(c, x->dims[3] >= 1 && x->dims[3] <= FR_MAX_K && y->dims[3] >= 1 && y->dims[3] <= FR_MAX_K, "too many channels");
    FR_SHAPE(c, u->dims[0] == PLACES && u->dims[1] == panels && u->dims[2] == x->dims[3] && u->dims[3] == FR_PANEL,
             "transformed weights of another shape");
    FR_SHAPE(c, fr_attr_dim(c, PADS) <= FRUGAL_MAX_DIM && fr_attr_dim(c, PADS + 1) <= FRUGAL_MAX_DIM, "a padding is too large");
    FR_NEED(c, c->attrs[0] != FRUGAL_U_NOT && c->attrs[0] != FRUGAL_U_ISNAN, FRUGAL_UNSUPPORTED,
            "this function cannot follow a convolution");
    if (bias)
        FR_TRY(fr_vector(c, bias, panels * FR_PANEL, 2));
    if (!residual)
        return FRUGAL_OK;
    FR_DTYPE(c, residual->dtype == FR_F32, "the residual must be float32");
    return fr_same_shape(c, residual, y, 3);
}

/* Tile i, number k of its block, to v. */
static void transform_in(const job *j, int64_t i, int64_t k, const float *border, float *v) {
    const spot s = spot_of(j, i);
    const float *x = floats(j->c->in[0]) + s.image * j->h * j->w * j->ch, *rows[TILE + 2], *borders[TILE + 2];
    int32_t from, to;
    for (int r = 0; r < TILE + 2; r++) {
        rows[r] = s.iy + r >= 0 && s.iy + r < j->h ? x + ((s.iy + r) * j->w + s.ix) * j->ch : border;
        borders[r] = border;
    }
    inside(j, s.ix, &from, &to);
    j->c->isa->wino_in(v + k * j->ch, j->v_step, rows, borders, from, to, j->ch);
}
static void transform_out(const job *j, int64_t i, int64_t k, const float *m) {
    const spot s = spot_of(j, i);
    const int64_t at = ((s.image * j->oh + s.oy) * j->ow + s.ox) * j->oc, np = fr_round_up(j->oc, FR_PANEL);
    fr_epilogue e = j->e;
    e.residual = e.residual ? e.residual + at : NULL;
    j->c->isa->wino_out(floats(j->c->out[0]) + at, j->oc, j->ow * j->oc, m + k * np, j->m_step, (int)fr_min(TILE, j->oh - s.oy),
                        (int)fr_min(TILE, j->ow - s.ox), j->oc, &e);
}

static void floats_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const job *j = p;
    const int64_t np = fr_round_up(j->oc, FR_PANEL), panel = FR_PANEL * j->ch;
    const float *u = floats(j->c->in[1]);
    float *v = (float *)(void *)fr_thread_scratch(j->c, thread), *m = v + PLACES * j->v_step, *border = m + PLACES * j->m_step;
    const fr_epilogue none = {.act = FRUGAL_U_COPY};
    memset(border, 0, (size_t)((TILE + 2) * j->ch) * sizeof *border);
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = i * j->tiles / j->blocks, tiles = (i + 1) * j->tiles / j->blocks - first;
        for (int64_t k = 0; k < tiles; k++)
            transform_in(j, first + k, k, border, v);
        for (int64_t q = 0; q < PLACES; q++)
            j->c->isa->gemm_f32(m + q * j->m_step, np, v + q * j->v_step, j->ch, u + q * np / FR_PANEL * panel, FR_PANEL, panel,
                                tiles, np, j->ch, 1.0f, &none);
        for (int64_t k = 0; k < tiles; k++)
            transform_out(j, first + k, k, m);
    }
}

frugal_status fr_conv_winograd_run(const fr_call *c) {
    const job j = floats_job(c);
    fr_parallel(c, j.blocks, 1, floats_range, &j);
    return FRUGAL_OK;
}

void fr_conv_winograd_scratch(const fr_call *c, fr_scratch *s) {
    const job j = floats_job(c);
    if (c->out[0]->n > 0)
        s->thread = j.scratch + fr_round_up(4 * (TILE + 2) * j.ch, 64);
}

/* As many as a plain convolution: what a caller wants done. */
int64_t fr_conv_winograd_operations(const fr_call *c) {
    int64_t n;
    return __builtin_mul_overflow(c->out[0]->n, 18 * c->in[0]->dims[3], &n) ? INT64_MAX : n;
}
