/* ops_qlinear.c - LINEAR_INTEGER: products of 8-bit codes with constant weights, whose zero point and scale may come from the run
 * (DynamicQuantizeLinear).  Rows are staged once in the form that the instruction set reads, then strips of rows meet stretches
 * of panels; all sums are exact modulo 2^32, so that no cut changes a bit. */
#include "ops.h"

enum { SLACK = 128, STRIP_BYTES = 96 << 10, STRIP_STEP = 24, STRIP_MOST = 480, PANEL_BYTES = 256 << 10 };

static bool is_codes(const fr_tensor *t) { return t->dtype == FR_U8 || t->dtype == FR_I8; }

/* The operands by name; absent ones are NULL. */
typedef struct operands {
    const fr_tensor *x, *w, *params, *zero, *scale, *bias, *y;
} operands;
static operands operands_of(const fr_call *c) {
    return (operands){
        c->in[0], c->in[1], c->in[2], c->n_in > 3 ? c->in[3] : NULL, c->n_in > 4 ? c->in[4] : NULL, c->n_in > 5 ? c->in[5] : NULL,
        c->out[0]};
}

frugal_status fr_linear_integer_check(const fr_call *c) {
    const operands o = operands_of(c);
    FR_DTYPE(c, is_codes(o.x), "the input must be int8 or uint8");
    FR_DTYPE(c, o.y->dtype == FR_I32 || o.y->dtype == FR_F32, "the output is int32 or float32");
    FR_DTYPE(c, o.w->dtype == FR_I8 && o.params->dtype == FR_I32, "weights must be int8 and parameters int32");
    FR_SHAPE(c, o.x->rank >= 1 && o.x->rank == o.y->rank, "input and output must have one rank");
    const int32_t last = o.x->rank - 1;
    for (int32_t a = 0; a < last; a++) {
        if (o.x->dims[a] != o.y->dims[a])
            return fr_fail(c, FRUGAL_BAD_SHAPE, c->n_in, a, o.x->dims[a], o.y->dims[a], "output and input have different rows");
    }
    const int64_t k = o.x->dims[last], n = o.y->dims[last], panels = fr_ceil_div(n, FR_PANEL);
    FR_SHAPE(c, k >= 1 && k <= FR_MAX_K && n >= 1, "the depth must be 1 to 131072 and the width at least 1");
    const int64_t want[] = {panels, 1, fr_ceil_div(k, 4), FR_PANEL, 4}, rows[] = {panels, 4, FR_PANEL};
    FR_SHAPE(c, o.w->rank == 5 && o.params->rank == 3, "weights or parameters have another rank");
    for (int i = 0; i < 5; i++)
        FR_SHAPE(c, o.w->dims[i] == want[i], "the weights have another shape than input and output give");
    for (int i = 0; i < 3; i++)
        FR_SHAPE(c, o.params->dims[i] == rows[i], "the parameters have another shape than the output gives");
    FR_DTYPE(c, !o.zero || (o.zero->dtype == o.x->dtype && o.zero->n == 1), "the zero point is one element of the input's type");
    FR_DTYPE(c, !o.scale || (o.scale->dtype == FR_F32 && o.scale->n == 1), "the scale is one float32");
    if (o.bias)
        FR_TRY(fr_vector(c, o.bias, n, 5));
    FR_DTYPE(c, o.y->dtype == FR_F32 || (!o.scale && !o.bias), "an int32 output has neither scale nor bias");
    return FRUGAL_OK;
}

/* ---- scratch: of all threads staged rows, sums of each row, offsets, parameters of this run; of a thread what the kernel needs
 * ---- */

typedef struct job {
    const fr_call *c;
    operands o;
    int64_t m, n, k, quads, panels;
    int64_t size, strip, strips, each, chunks; /* bytes of a staged code; rows a strip; panels a task */
    int64_t window, pixel, params, bytes;      /* places in the shared scratch */
    uint8_t flip;                              /* of x to unsigned codes */
    bool zeros;                                /* some weights have a zero point */
} job;

static void cut(const fr_call *c, job *j) {
    const operands o = operands_of(c);
    *j = (job){.c = c, .o = o, .k = o.x->dims[o.x->rank - 1], .n = o.y->dims[o.y->rank - 1]};
    j->m = fr_product(o.x, 0, o.x->rank - 1);
    j->quads = fr_ceil_div(j->k, 4), j->panels = fr_ceil_div(j->n, FR_PANEL);
    j->size = c->isa->codes == FR_CODES_I16 ? 2 : 1;
    j->flip = o.x->dtype == FR_I8 ? 0x80 : 0;
    j->strip = fr_min(STRIP_MOST, fr_max(STRIP_STEP, STRIP_BYTES / (j->k * j->size) / STRIP_STEP * STRIP_STEP));
    j->strips = fr_ceil_div(j->m, j->strip);
    j->each = fr_max(4, PANEL_BYTES / (j->quads * 64) / 4 * 4); /* kernels take up to 4 panels side by side */
    if (c->threads > 1)
        j->each = fr_max(4, fr_min(j->each, fr_round_up(fr_ceil_div(j->panels * j->strips, 4 * (int64_t)c->threads), 4)));
    j->chunks = fr_ceil_div(j->panels, j->each);
    j->window = fr_round_up((j->m * j->k + SLACK) * j->size, 64);
    j->pixel = j->window + fr_round_up(4 * j->m, 64);
    j->params = j->pixel + fr_round_up(4 * j->strip, 64);
    j->bytes = j->params + 4 * FR_QPARAMS * j->panels;
}

void fr_linear_integer_scratch(const fr_call *c, fr_scratch *s) {
    job j;
    cut(c, &j);
    s->shared = j.bytes;
    s->thread = c->isa->quad_bytes * j.quads;
}

static int64_t saturated(int64_t a, int64_t b) {
    int64_t n;
    return __builtin_mul_overflow(a, b, &n) ? INT64_MAX : n;
}
int64_t fr_linear_integer_operations(const fr_call *c) { return saturated(c->out[0]->n, 2 * c->in[0]->dims[c->in[0]->rank - 1]); }

/* ---- staging ---- */

static uint8_t code_flip(const job *j) { return j->c->isa->codes == FR_CODES_I8 ? j->flip ^ 0x80 : j->flip; }

static void stage_rows(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const job *j = p;
    const uint8_t *x = j->o.x->data + begin * j->k, flip = code_flip(j);
    const int64_t n = (end - begin) * j->k;
    (void)thread;
    if (j->size == 2) {
        int16_t *d = (int16_t *)(void *)j->c->shared + begin * j->k;
        for (int64_t i = 0; i < n; i++)
            d[i] = (int16_t)(x[i] ^ flip);
    } else {
        uint8_t *d = j->c->shared + begin * j->k;
        for (int64_t i = 0; i < n; i++)
            d[i] = x[i] ^ flip;
    }
    if (!j->zeros)
        return;
    int32_t *window = (int32_t *)(void *)(j->c->shared + j->window);
    for (int64_t i = begin; i < end; i++, x += j->k) {
        int32_t sum = 0;
        for (int64_t k = 0; k < j->k; k++)
            sum += x[k] ^ flip;
        window[i] = j->c->isa->codes == FR_CODES_I8 ? 0 : sum;
        if (j->c->isa->codes == FR_CODES_I8) { /* the same bytes as signed numbers */
            for (int64_t k = 0; k < j->k; k++)
                window[i] += (int8_t)(x[k] ^ flip);
        }
    }
}

/* sum of (u - zu)(w - wz) = sum of u w - zu sum w - wz sum u + k zu wz, for unsigned codes u and for u - 128. */
static void make_params(const job *j) {
    const int32_t *from = (const int32_t *)(const void *)j->o.params->data;
    int32_t *to = (int32_t *)(void *)(j->c->shared + j->params);
    const uint32_t zero = (uint32_t)((j->o.zero ? j->o.zero->data[0] : 0) ^ j->flip), k = (uint32_t)j->k;
    const float scale = j->o.scale ? *(const float *)(const void *)j->o.scale->data : 1.0f;
    for (int64_t p = 0; p < j->panels; p++, from += FR_QPARAMS, to += FR_QPARAMS) {
        for (int i = 0; i < FR_PANEL; i++) {
            const uint32_t total = (uint32_t)from[i], start = (uint32_t)from[16 + i], wz = (uint32_t)from[48 + i];
            const uint32_t u = start - zero * total + k * zero * wz, s = start - (zero - 128) * total + k * (zero - 128) * wz;
            float m;
            memcpy(&m, from + 32 + i, 4);
            m = j->o.scale ? scale * m : m;
            memcpy(to + i, &u, 4), memcpy(to + 16 + i, &s, 4), memcpy(to + 32 + i, &m, 4), memcpy(to + 48 + i, &wz, 4);
        }
    }
}

static bool any_zero(const job *j) {
    const int32_t *p = (const int32_t *)(const void *)j->o.params->data;
    int32_t any = 0;
    for (int64_t i = 0; i < j->panels; i++) {
        for (int r = 0; r < FR_PANEL; r++)
            any |= p[i * FR_QPARAMS + 48 + r];
    }
    return any != 0;
}

/* ---- running ---- */

static void task(void *p, int64_t i, int32_t thread) {
    const job *j = p;
    const fr_call *c = j->c;
    const int64_t m0 = i % j->strips * j->strip, p0 = i / j->strips * j->each, n0 = p0 * FR_PANEL;
    const int64_t n = fr_min(j->n, (p0 + j->each) * FR_PANEL) - n0;
    const int32_t run = 0;
    fr_qconv q = {.codes = c->shared + m0 * j->k * j->size,
                  .pixel = (const int32_t *)(const void *)(c->shared + j->pixel),
                  .run = &run,
                  .pixels = fr_min(j->strip, j->m - m0),
                  .runs = 1,
                  .quads = j->quads,
                  .w = (const int8_t *)j->o.w->data + p0 * j->quads * 64,
                  .params = (const int32_t *)(const void *)(c->shared + j->params) + p0 * FR_QPARAMS,
                  .window = j->zeros ? (const int32_t *)(const void *)(c->shared + j->window) + m0 : NULL,
                  .y = j->o.y->data + 4 * (m0 * j->n + n0),
                  .n = n,
                  .ldy = j->n,
                  .dtype = j->o.y->dtype,
                  .scratch = fr_thread_scratch(c, thread)};
    q.row = q.pixels;
    c->isa->qconv(&q);
    if (!j->o.bias)
        return;
    const float *bias = (const float *)(const void *)j->o.bias->data + n0;
    float *y = q.y;
    for (int64_t r = 0; r < q.pixels; r++, y += j->n) {
        for (int64_t k = 0; k < n; k++)
            y[k] += bias[k];
    }
}

frugal_status fr_linear_integer_run(const fr_call *c) {
    job j;
    cut(c, &j);
    j.zeros = any_zero(&j);
    make_params(&j);
    memset(c->shared + j.m * j.k * j.size, 0, (size_t)(SLACK * j.size)); /* read beyond the last row, times zero weights */
    int32_t *pixel = (int32_t *)(void *)(c->shared + j.pixel);
    for (int64_t i = 0; i < j.strip; i++)
        pixel[i] = (int32_t)(i * j.k);
    fr_parallel(c, j.m, fr_row_grain(j.k), stage_rows, &j);
    fr_pool_run(c->pool, j.strips * j.chunks, task, &j);
    return FRUGAL_OK;
}
