/* ops_winograd.c - 3 x 3 convolutions that move by one, by Winograd's F(4 x 4, 3 x 3): 36 products in the place of 144.
 *
 * On codes this is exact (isa/x86_winograd.h), so that it gives the bytes of the plain QCONV, whose weights lie beside the
 * transformed ones: an instruction set takes whichever it is quicker with. */
#include "ops.h"

enum { TILE = 4, PLACES = 36, MAX_WEIGHT_SUM = ((1 << 25) - 1) / 255 };

typedef struct job {
    const fr_call *c;
    int64_t h, w, ch, oh, ow, oc, top, left;
    int64_t across, down, tiles, blocks, scratch; /* tiles of a row, of a column, of all images; blocks of them: tasks */
    bool small;
} job;

static job job_of(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    job j = {.c = c,
             .h = x->dims[1],
             .w = x->dims[2],
             .ch = x->dims[3],
             .oh = y->dims[1],
             .ow = y->dims[2],
             .oc = y->dims[3],
             .top = fr_attr_dim(c, 9),
             .left = fr_attr_dim(c, 10)};
    j.across = fr_ceil_div(j.ow, TILE), j.down = fr_ceil_div(j.oh, TILE);
    j.tiles = x->dims[0] * j.down * j.across;
    const int64_t threads = c->threads > 1 ? 2 * (int64_t)c->threads : 1;
    const int64_t each = fr_min(FR_WINO_TILES, fr_max(TILE, fr_ceil_div(j.tiles, threads)));
    j.blocks = fr_ceil_div(j.tiles, each);
    j.scratch = fr_round_up(fr_wino_scratch(j.ch), 64);
    return j;
}

/* ---- checks ---- */

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

/* ---- running ---- */

static void place(const job *j, fr_wino_tile *t, int64_t i, const uint8_t *border) {
    const fr_tensor *x = j->c->in[0], *y = j->c->out[0];
    const int64_t image = i / (j->across * j->down), oy = i / j->across % j->down * TILE, ox = i % j->across * TILE;
    const int64_t iy = oy - j->top, ix = ox - j->left;
    const uint8_t *from = x->data + image * j->h * j->w * j->ch;
    for (int k = 0; k < TILE + 2; k++)
        t->row[k] = iy + k >= 0 && iy + k < j->h ? from + ((iy + k) * j->w + ix) * j->ch : border;
    t->from = (int32_t)fr_max(0, fr_min(-ix, TILE + 2));
    t->to = (int32_t)fr_max(t->from, fr_min(j->w - ix, TILE + 2));
    t->y = y->data + (((image * j->oh + oy) * j->ow + ox) * j->oc) * fr_dtype_bytes(y->dtype);
    t->rows = (int32_t)fr_min(TILE, j->oh - oy), t->columns = (int32_t)fr_min(TILE, j->ow - ox);
}

static void range(const void *p, int64_t begin, int64_t end, int32_t thread) {
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
    job j = job_of(c);
    j.small = small;
    fr_parallel(c, j.blocks, 1, range, &j);
    return FRUGAL_OK;
}

int64_t fr_qwino_scratch(const fr_call *c) {
    const job j = job_of(c);
    return j.scratch + fr_round_up((TILE + 2) * j.ch, 64);
}
