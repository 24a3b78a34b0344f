/* test_qconv.c - the integer operations of ops_qconv.c: every instruction set and thread count against the formulas of
 * frugal_plan.h computed the plain way from natural weights, over random shapes with every tail and with extreme codes. */
#include "check.h"

/* Runs a plan of one output everywhere; it must have the wanted bytes.  Frees b. */
static void run(pb *b, const void *const *in, int n_in, const void *want, size_t bytes, const char *what, int64_t p, int64_t q) {
    io x = {.fixed = true, .out = {alloc(bytes)}, .out_bytes = {bytes}};
    for (int k = 0; k < n_in; k++)
        x.in[k] = in[k];
    check(run_plan(b, &x) == FRUGAL_OK && memcmp(x.out[0], want, bytes) == 0, what, "scalar", p, q);
    free(x.out[0]);
}

/* ---- what the formulas say ---- */

static float limit(float v, float low, float high) { return v > low ? (v < high ? v : high) : low; }
static int64_t to_code(float v, int64_t zero, int64_t low, int64_t high) {
    return (int64_t)rintf(limit(v, (float)(low - zero), (float)(high - zero))) + zero;
}
static uint8_t random_code(int style) {
    return (uint8_t)(style == 0 ? 255 : style == 1 ? 0 : style == 2 ? (rnd() & 1) * 255 : (uint32_t)upto(256));
}

typedef struct shape {
    int64_t n, h, w, g, cg, og, kh, kw, sh, sw, dh, dw, uh, uw, top, left, oh, ow;
    int64_t zx, zy, low, high;
    int dtype_x, dtype_y, depth, wzeros;
} shape;

static int64_t out_size(int64_t n, int64_t spread, int64_t pads, int64_t k, int64_t d, int64_t stride) {
    const int64_t room = (n - 1) * spread + 1 + pads - (k - 1) * d - 1;
    return room < 0 ? 1 : room / stride + 1;
}

static shape random_shape(int depth) {
    shape s = {.n = 1 + upto(2),
               .h = 1 + upto(12),
               .w = 1 + upto(14),
               .g = ONE_OF(1, 1, 1, 2, 3),
               .kh = 1 + upto(5),
               .kw = 1 + upto(5),
               .sh = 1 + upto(3),
               .sw = 1 + upto(3),
               .dh = 1 + upto(2),
               .dw = 1 + upto(2),
               .uh = 1,
               .uw = 1,
               .depth = depth};
    s.cg = ONE_OF(1, 2, 3, 4, 5, 8, 16, 17, 20);
    s.og = ONE_OF(1, 3, 7, 8, 9, 12, 16, 17, 33, 64, 70, 80);
    if (upto(3) == 0)
        s.kh = s.kw = ONE_OF(1, 3), s.dh = s.dw = 1;
    if (upto(4) == 0)
        s.kh = s.kw = s.sh = s.sw = 1; /* pixels only */
    if (upto(5) == 0)
        s.uh = 1 + upto(3), s.uw = 1 + upto(3);
    if (depth) {
        s.g = ONE_OF(1, 3, 4, 8, 15, 16, 17, 32, 33, 64, 65, 128, 140), s.cg = 1, s.og = ONE_OF(1, 1, 1, 2);
        if (upto(2))
            s.kh = s.kw = 3, s.dh = s.dw = 1, s.sh = s.sw = 1 + upto(2);
    }
    s.top = upto(s.kh + 1), s.left = upto(s.kw + 1);
    if (s.kh * s.kw == 1 && upto(2))
        s.top = s.left = 0;
    s.oh = out_size(s.h, s.uh, s.top + upto(3), s.kh, s.dh, s.sh);
    s.ow = out_size(s.w, s.uw, s.left + upto(3), s.kw, s.dw, s.sw);
    s.zx = ONE_OF(0, 255, 128, upto(256)), s.zy = ONE_OF(0, 255, 128, upto(256));
    s.low = upto(3) ? 0 : s.zy, s.high = upto(3) ? 255 : s.low + upto(256 - s.low);
    s.dtype_x = upto(2) ? FR_U8 : FR_I8;
    s.dtype_y = (int)(depth ? ONE_OF(FR_U8, FR_I8) : ONE_OF(FR_U8, FR_I8, FR_U8, FR_I8, FR_I32, FR_F32));
    s.wzeros = !depth && upto(4) == 0;
    return s;
}

typedef struct values {
    uint8_t *x; /* as stored */
    int8_t *w;  /* [oc][kh][kw][cg] */
    int32_t *bias, *wzero;
    float *m;
} values;

static values random_values(const shape *s) {
    const int64_t oc = s->g * s->og, k = s->kh * s->kw * s->cg, nx = s->n * s->h * s->w * s->g * s->cg;
    const int style = (int)upto(7), wstyle = (int)upto(5), large = upto(3) == 0;
    values v = {alloc((size_t)nx), alloc((size_t)(oc * k)), alloc((size_t)oc * 4), alloc((size_t)oc * 4), alloc((size_t)oc * 4)};
    for (int64_t i = 0; i < nx; i++)
        v.x[i] = random_code(style) ^ (s->dtype_x == FR_I8 ? 0x80 : 0);
    for (int64_t i = 0; i < oc * k; i++)
        v.w[i] = (int8_t)(wstyle == 0 ? -128 : wstyle == 1 ? 127 : upto(256) - 128);
    for (int64_t i = 0; i < oc; i++) {
        v.bias[i] = (int32_t)(upto(40001) - 20000);
        v.wzero[i] = s->wzeros ? (int32_t)(upto(256) - 128) : 0;
        v.m[i] = (float)(1 + upto(1000)) * (large && upto(4) == 0 ? 1e3f : 1e-5f);
    }
    return v;
}
static void free_values(values *v) { free(v->x), free(v->w), free(v->bias), free(v->wzero), free(v->m); }

static int64_t code_at(const shape *s, const values *v, int64_t n, int64_t y, int64_t x, int64_t c) {
    if (y < 0 || x < 0 || y % s->uh || x % s->uw || y / s->uh >= s->h || x / s->uw >= s->w)
        return s->zx;
    const uint8_t b = v->x[((n * s->h + y / s->uh) * s->w + x / s->uw) * s->g * s->cg + c];
    return s->dtype_x == FR_I8 ? b ^ 0x80 : b;
}
static int32_t naive_sum(const shape *s, const values *v, int64_t n, int64_t oy, int64_t ox, int64_t o) {
    int64_t acc = v->bias[o];
    for (int64_t ky = 0; ky < s->kh; ky++) {
        for (int64_t kx = 0; kx < s->kw; kx++) {
            for (int64_t c = 0; c < s->cg; c++) {
                const int64_t a =
                    code_at(s, v, n, oy * s->sh - s->top + ky * s->dh, ox * s->sw - s->left + kx * s->dw, o / s->og * s->cg + c);
                acc += (a - s->zx) * (v->w[((o * s->kh + ky) * s->kw + kx) * s->cg + c] - v->wzero[o]);
            }
        }
    }
    return (int32_t)acc;
}
static void *naive_conv(const shape *s, const values *v, size_t *bytes) {
    const int64_t oc = s->g * s->og, n = s->n * s->oh * s->ow * oc;
    *bytes = (size_t)(n * fr_dtype_bytes(s->dtype_y));
    void *want = alloc(*bytes);
    for (int64_t i = 0; i < n; i++) {
        const int64_t o = i % oc, ox = i / oc % s->ow, oy = i / oc / s->ow % s->oh, b = i / oc / s->ow / s->oh;
        const int32_t sum = naive_sum(s, v, b, oy, ox, o);
        const float f = (float)sum * v->m[o];
        if (s->dtype_y == FR_I32)
            ((int32_t *)want)[i] = sum;
        else if (s->dtype_y == FR_F32)
            ((float *)want)[i] = f;
        else
            ((uint8_t *)want)[i] = (uint8_t)(to_code(f, s->zy, s->low, s->high) ^ (s->dtype_y == FR_I8 ? 0x80 : 0));
    }
    return want;
}

/* ---- packing, the plain way ---- */

static int32_t *pack_params(const shape *s, const values *v, int64_t panels) {
    int32_t *p = alloc((size_t)panels * 256);
    const int64_t k = s->kh * s->kw * s->cg, per = s->depth ? panels : panels / s->g;
    memset(p, 0, (size_t)panels * 256);
    for (int64_t o = 0; o < s->g * s->og; o++) {
        const int64_t group = s->depth ? 0 : o / s->og, j = s->depth ? o : o % s->og;
        int32_t *at = p + (group * per + j / 16) * 64 + j % 16;
        int64_t sum = 0;
        for (int64_t i = 0; i < k; i++)
            sum += v->w[o * k + i] - v->wzero[o];
        at[0] = (int32_t)(v->bias[o] - s->zx * sum);
        at[16] = (int32_t)(v->bias[o] - (s->zx - 128) * sum);
        memcpy(at + 32, v->m + o, 4);
        at[48] = v->wzero[o];
    }
    return p;
}

static int8_t *pack_conv(const shape *s, const values *v, int64_t panels, int64_t runs, int64_t quads) {
    int8_t *w = alloc((size_t)(panels * runs * quads * 64));
    const int64_t length = s->dw == 1 ? s->kw * s->cg : s->cg, per = panels / s->g;
    memset(w, 0, (size_t)(panels * runs * quads * 64));
    for (int64_t o = 0; o < s->g * s->og; o++) {
        int8_t *panel = w + (o / s->og * per + o % s->og / 16) * runs * quads * 64 + o % s->og % 16 * 4;
        for (int64_t i = 0; i < runs * length; i++)
            panel[(i / length * quads + i % length / 4) * 64 + i % length % 4] = v->w[o * runs * length + i];
    }
    return w;
}
static int8_t *pack_depth(const shape *s, const values *v, int64_t panels, int64_t quads) {
    int8_t *w = alloc((size_t)(panels * quads * 64));
    const int tall = s->kh >= s->kw;
    const int64_t fours = ((tall ? s->kh : s->kw) + 3) / 4;
    memset(w, 0, (size_t)(panels * quads * 64));
    for (int64_t o = 0; o < s->g * s->og; o++) {
        for (int64_t i = 0; i < s->kh * s->kw; i++) {
            const int64_t along = tall ? i / s->kw : i % s->kw, across = tall ? i % s->kw : i / s->kw;
            w[((o / 16 * quads + across * fours + along / 4) * 16 + o % 16) * 4 + along % 4] = v->w[o * s->kh * s->kw + i];
        }
    }
    return w;
}

/* G w G^T of every kernel, [36][panels][c / 2][16][2]. */
static int16_t *pack_transformed(const shape *s, const values *v, int64_t panels) {
    static const int g[6][3] = {{6, 0, 0}, {-4, -4, -4}, {-4, 4, -4}, {1, 2, 4}, {1, -2, 4}, {0, 0, 12}};
    int16_t *u = alloc((size_t)(36 * panels * s->cg * 32));
    memset(u, 0, (size_t)(36 * panels * s->cg * 32));
    for (int64_t i = 0; i < 36 * s->og * s->cg; i++) {
        const int64_t q = i / s->og / s->cg, o = i / s->cg % s->og, c = i % s->cg;
        int sum = 0;
        for (int k = 0; k < 9; k++)
            sum += g[q / 6][k / 3] * g[q % 6][k % 3] * v->w[(o * 9 + k) * s->cg + c];
        u[((q * panels + o / 16) * s->cg / 2 + c / 2) * 32 + o % 16 * 2 + c % 2] = (int16_t)sum;
    }
    return u;
}
/* A shape that transformed weights are for. */
static shape transformed_shape(void) {
    shape s = random_shape(0);
    s.g = s.sh = s.sw = s.dh = s.dw = s.uh = s.uw = 1, s.kh = s.kw = 3, s.wzeros = 0;
    s.cg = ONE_OF(16, 32, 48, 64);
    s.top = upto(4), s.left = upto(4);
    s.oh = out_size(s.h, 1, s.top + upto(4), 3, 1, 1), s.ow = out_size(s.w, 1, s.left + upto(4), 3, 1, 1);
    return s;
}

enum { PLAIN, DEPTH, TRANSFORMED };
static void test_conv(int kind, int64_t index) {
    const int depth = kind == DEPTH;
    const shape s = kind == TRANSFORMED ? transformed_shape() : random_shape(depth);
    values v = random_values(&s);
    const int64_t oc = s.g * s.og, runs = depth ? 1 : s.dw == 1 ? s.kh : s.kh * s.kw;
    const int64_t along = s.kh >= s.kw ? s.kh : s.kw, across = s.kh >= s.kw ? s.kw : s.kh;
    const int64_t quads = depth ? across * ((along + 3) / 4) : ((s.dw == 1 ? s.kw * s.cg : s.cg) + 3) / 4;
    const int64_t panels = depth ? (oc + 15) / 16 : s.g * ((s.og + 15) / 16);
    int8_t *w = depth ? pack_depth(&s, &v, panels, quads) : pack_conv(&s, &v, panels, runs, quads);
    int32_t *params = pack_params(&s, &v, panels);
    size_t bytes;
    void *want = naive_conv(&s, &v, &bytes);
    pb *b = pb_new();
    const int32_t x = pb_input(b, s.dtype_x, PB_LIST(s.n, s.h, s.w, s.g * s.cg));
    const int32_t cw =
        depth ? pb_const(b, FR_I8, 0, PB_LIST(panels, quads, 16, 4), w, (uint64_t)(panels * quads * 64))
              : pb_const(b, FR_I8, 0, PB_LIST(panels, runs, quads, 16, 4), w, (uint64_t)(panels * runs * quads * 64));
    const int32_t cp = pb_const(b, FR_I32, 0, PB_LIST(panels, 4, 16), params, (uint64_t)(panels * 256));
    const int32_t y = pb_output(b, s.dtype_y, PB_LIST(s.n, s.oh, s.ow, oc));
    int16_t *u = kind == TRANSFORMED ? pack_transformed(&s, &v, panels) : NULL;
    const int32_t cu =
        u ? pb_const(b, FR_I16, 0, PB_LIST(36, panels, s.cg / 2, 16, 2), u, (uint64_t)(36 * panels * s.cg * 32)) : -1;
    pb_step(b, depth ? FRUGAL_OP_QDEPTH : FRUGAL_OP_QCONV, u ? 4 : 3, (const int64_t[]){x, cw, cp, cu}, PB_LIST(y),
            PB_LIST(s.g, s.kh, s.kw, s.sh, s.sw, s.dh, s.dw, s.uh, s.uw, s.top, s.left, s.zx, s.zy, s.low, s.high));
    run(b, (const void *const[]){v.x}, 1, want, bytes, depth ? "qdepth" : u ? "transformed" : "qconv", index, s.dtype_y);
    free(want), free(params), free(w), free(u);
    free_values(&v);
}

/* ---- the others ---- */

static uint8_t *random_codes(int64_t n) {
    uint8_t *x = alloc((size_t)n);
    const int style = (int)upto(6);
    for (int64_t i = 0; i < n; i++)
        x[i] = random_code(style);
    return x;
}
static int random_type(void) { return upto(2) ? FR_U8 : FR_I8; }
static uint8_t flip(int dtype) { return dtype == FR_I8 ? 0x80 : 0; }

static void test_binary(int64_t index) {
    const int64_t n = 1 + upto(90), rows = 1 + upto(3), kind = upto(2), spread = upto(3) == 0;
    const int64_t za = ONE_OF(0, 255, upto(256)), zb = ONE_OF(0, 255, upto(256)), zy = ONE_OF(0, 255, upto(256));
    const int64_t low = upto(2) ? 0 : zy, high = low + upto(256 - low);
    const int ta = random_type(), tb = random_type(), ty = random_type();
    const float ma = (float)(1 + upto(2000)) * 1e-3f, mb = (float)(1 + upto(2000)) * 1e-3f;
    uint8_t *a = random_codes(rows * n), *c = random_codes(rows * n), *want = alloc((size_t)(rows * n));
    for (int64_t i = 0; i < rows * n; i++) {
        const int64_t u = (a[i] ^ flip(ta)) - za, v = (c[spread ? i % n : i] ^ flip(tb)) - zb;
        const float t = kind ? (float)(u * v) * ma : (float)u * ma + (float)v * mb;
        want[i] = (uint8_t)(to_code(t, zy, low, high) ^ flip(ty));
    }
    pb *b = pb_new();
    const int32_t x = pb_input(b, ta, PB_LIST(rows, n)),
                  z = spread ? pb_input(b, tb, PB_LIST(n)) : pb_input(b, tb, PB_LIST(rows, n));
    const int32_t y = pb_output(b, ty, PB_LIST(rows, n));
    pb_step(b, FRUGAL_OP_QBINARY, PB_LIST(x, z), PB_LIST(y),
            PB_LIST(kind, za, zb, zy, low, high, pb_float((double)ma), pb_float((double)mb)));
    run(b, (const void *const[]){a, c}, 2, want, (size_t)(rows * n), "qbinary", index, n);
    free(a), free(c), free(want);
}

static void test_pool(int64_t index) {
    const int64_t kind = upto(3), h = 1 + upto(9), w = 1 + upto(9), c = ONE_OF(1, 3, 16, 63, 64, 65, 130), all = upto(4) == 0;
    const int64_t kh = all ? h : 1 + upto(4), kw = all ? w : 1 + upto(4), sh = 1 + upto(2), sw = 1 + upto(2), d = 1 + upto(2);
    const int64_t top = all ? 0 : upto(kh), left = all ? 0 : upto(kw), oh = all ? 1 : 1 + upto(6), ow = all ? 1 : 1 + upto(6);
    const int64_t zx = upto(256), zy = upto(256);
    const int tx = random_type(), ty = kind == 2 ? tx : random_type();
    const float m = (float)(1 + upto(3000)) * 1e-3f;
    uint8_t *x = random_codes(h * w * c), *want = alloc((size_t)(oh * ow * c));
    for (int64_t i = 0; i < oh * ow * c; i++) {
        int64_t sum = 0, top_code = 0, count = 0;
        for (int64_t k = 0; k < kh * kw; k++) {
            const int64_t py = i / c / ow * sh - top + k / kw * d, px = i / c % ow * sw - left + k % kw * d;
            if (py < 0 || px < 0 || py >= h || px >= w)
                continue;
            const int64_t code = x[(py * w + px) * c + i % c] ^ flip(tx);
            sum += code - zx, count++;
            top_code = code > top_code ? code : top_code;
        }
        int64_t v = kind == 2 ? top_code : to_code((float)sum * (m / (float)(kind ? kh * kw : count)), zy, 0, 255);
        want[i] = (uint8_t)((count ? v : zy) ^ flip(ty));
    }
    pb *b = pb_new();
    const int32_t in = pb_input(b, tx, PB_LIST(1, h, w, c)), y = pb_output(b, ty, PB_LIST(1, oh, ow, c));
    pb_step(b, FRUGAL_OP_QPOOL, PB_LIST(in), PB_LIST(y),
            PB_LIST(kind, all ? 0 : kh, all ? 0 : kw, sh, sw, d, d, top, left, zx, zy, pb_float((double)m)));
    run(b, (const void *const[]){x}, 1, want, (size_t)(oh * ow * c), "qpool", index, kind);
    free(x), free(want);
}

static void test_tables(int64_t index) {
    const int64_t n = 1 + upto(70), inner = 1 + upto(4), zy = upto(256);
    const int tx = random_type(), ty = random_type();
    const float m = (float)(1 + upto(400));
    uint8_t *x = random_codes(n * inner), *want = alloc((size_t)(n * inner));
    float table[256], *looked = alloc((size_t)(n * inner) * 4);
    for (int d = 0; d < 256; d++)
        table[d] = expf(-0.05f * (float)d);
    for (int64_t i = 0; i < inner; i++) {
        int64_t top = 0;
        float sum = 0;
        for (int64_t k = 0; k < n; k++)
            top = (x[k * inner + i] ^ flip(tx)) > top ? x[k * inner + i] ^ flip(tx) : top;
        for (int64_t k = 0; k < n; k++)
            sum += table[top - (x[k * inner + i] ^ flip(tx))];
        for (int64_t k = 0; k < n; k++) {
            const uint8_t code = x[k * inner + i] ^ flip(tx);
            looked[k * inner + i] = table[code];
            want[k * inner + i] = (uint8_t)(to_code(table[top - code] / sum * m, zy, 0, 255) ^ flip(ty));
        }
    }
    pb *b = pb_new();
    int32_t in = pb_input(b, tx, PB_LIST(n, inner)), t = pb_const(b, FR_F32, 0, PB_LIST(256), table, sizeof table);
    int32_t y = pb_output(b, ty, PB_LIST(n, inner));
    pb_step(b, FRUGAL_OP_QSOFTMAX, PB_LIST(in, t), PB_LIST(y), PB_LIST(0, zy, pb_float((double)m)));
    run(b, (const void *const[]){x}, 1, want, (size_t)(n * inner), "qsoftmax", index, n);
    b = pb_new();
    in = pb_input(b, tx, PB_LIST(n, inner)), t = pb_const(b, FR_F32, 0, PB_LIST(256), table, sizeof table);
    y = pb_output(b, FR_F32, PB_LIST(n, inner));
    pb_step(b, FRUGAL_OP_QLOOKUP, PB_LIST(in, t), PB_LIST(y), PB_NONE);
    run(b, (const void *const[]){x}, 1, looked, (size_t)(n * inner) * 4, "qlookup", index, n);
    free(x), free(want), free(looked);
}

static void test_codes(int64_t index) {
    const int64_t n = 1 + upto(2), c = 1 + upto(5), p = 1 + upto(600), zero = ONE_OF(0, 255, upto(256)), last = upto(2);
    const int ty = random_type();
    const float scale = (float)(1 + upto(100)) * 1e-2f;
    float *x = alloc((size_t)(n * c * p) * 4);
    uint8_t *want = alloc((size_t)(n * c * p));
    for (int64_t i = 0; i < n * c * p; i++) {
        const int64_t to = last ? (i / (c * p) * p + i % p) * c + i / p % c : i;
        x[i] = upto(50) == 0 ? (upto(2) ? NAN : INFINITY) : (float)(upto(2000) - 1000) * 0.1f;
        want[to] = (uint8_t)(to_code(x[i] / scale, zero, 0, 255) ^ flip(ty));
    }
    pb *b = pb_new();
    const int32_t in = pb_input(b, FR_F32, PB_LIST(n, c, p)),
                  y = last ? pb_output(b, ty, PB_LIST(n, p, c)) : pb_output(b, ty, PB_LIST(n, c, p));
    pb_step(b, FRUGAL_OP_QCODES, PB_LIST(in), PB_LIST(y), PB_LIST(last, zero, pb_float((double)scale)));
    run(b, (const void *const[]){x}, 1, want, (size_t)(n * c * p), "qcodes", index, last);
    free(x), free(want);
}

/* ---- what a check must refuse ---- */

/* Transformed weights beside plain ones that are all w, with a kernel that moves by stride. */
static frugal_status transformed_status(int64_t places, int64_t channels, int64_t stride, int w) {
    enum { CHANNELS = 256 };
    static int8_t plain[3 * 3 * CHANNELS * 16];
    static int16_t u[37 * CHANNELS * 16];
    static int32_t params[64];
    static uint8_t in[16 * CHANNELS], out[64];
    memset(plain, w, sizeof plain);
    pb *b = pb_new();
    const int32_t x = pb_input(b, FR_U8, PB_LIST(1, 4, 4, channels));
    const int32_t cw = pb_const(b, FR_I8, 0, PB_LIST(1, 3, 3 * channels / 4, 16, 4), plain, (uint64_t)(9 * channels * 16));
    const int32_t cp = pb_const(b, FR_I32, 0, PB_LIST(1, 4, 16), params, 256);
    const int32_t cu = pb_const(b, FR_I16, 0, PB_LIST(places, 1, channels / 2, 16, 2), u, (uint64_t)(places * channels * 32));
    const int32_t y = pb_output(b, FR_U8, PB_LIST(1, 2, 2, 16));
    pb_step(b, FRUGAL_OP_QCONV, PB_LIST(x, cw, cp, cu), PB_LIST(y), PB_LIST(1, 3, 3, stride, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 255));
    io run_io = {.fixed = true, .in = {in}, .out = {out}, .out_bytes = {sizeof out}}; /* [1, 2, 2, 16] */
    return run_plan(b, &run_io);
}
static void test_refused_transformed(void) {
    check(transformed_status(36, 64, 1, -128) == FRUGAL_OK, "transformed accepted", "", 0, 0);
    check(transformed_status(36, 256, 1, 57) == FRUGAL_OK, "sum of weights accepted", "", 0, 0); /* 131328 */
    check(transformed_status(36, 256, 1, 58) == FRUGAL_BAD_SHAPE, "sum of weights", "", 0, 0);   /* 133632 */
    check(transformed_status(37, 64, 1, 1) == FRUGAL_BAD_SHAPE, "places", "", 0, 0);
    check(transformed_status(36, 24, 1, 1) == FRUGAL_BAD_SHAPE, "channels", "", 0, 0);
    check(transformed_status(36, 64, 2, 1) == FRUGAL_BAD_SHAPE, "stride", "", 0, 0);
}

static int64_t limits_low; /* of the next plan: the limits are this and 255 less it */
static frugal_status conv_status(int64_t kh, int64_t runs, int64_t groups, int64_t zero, int64_t stride, int rank_of_w) {
    static int8_t w[4096];
    static int32_t params[64];
    pb *b = pb_new();
    const int32_t x = pb_input(b, FR_U8, PB_LIST(1, 4, 4, 4));
    const int32_t cw = rank_of_w == 5 ? pb_const(b, FR_I8, 0, PB_LIST(1, runs, 3, 16, 4), w, (uint64_t)(runs * 192))
                                      : pb_const(b, FR_I8, 0, PB_LIST(runs, 3, 16, 4), w, (uint64_t)(runs * 192));
    const int32_t cp = pb_const(b, FR_I32, 0, PB_LIST(1, 4, 16), params, 256), y = pb_output(b, FR_U8, PB_LIST(1, 2, 2, 8));
    pb_step(b, FRUGAL_OP_QCONV, PB_LIST(x, cw, cp), PB_LIST(y),
            PB_LIST(groups, kh, 3, stride, 1, 1, 1, 1, 1, 0, 0, zero, 0, limits_low, 255 - limits_low));
    uint8_t in[64] = {0}, out[64];
    io run_io = {.fixed = true, .in = {in}, .out = {out}, .out_bytes = {32}}; /* [1, 2, 2, 8] */
    return run_plan(b, &run_io);
}

static void test_refusals(void) {
    test_refused_transformed();
    check(conv_status(3, 3, 1, 0, 1, 5) == FRUGAL_OK, "accepted", "", 0, 0);
    check(conv_status(2, 3, 1, 0, 1, 5) == FRUGAL_BAD_SHAPE, "runs", "", 0, 0);
    check(conv_status(3, 3, 3, 0, 1, 5) == FRUGAL_BAD_SHAPE, "groups", "", 0, 0);
    check(conv_status(3, 3, 0, 0, 1, 5) == FRUGAL_BAD_SHAPE, "no groups", "", 0, 0);
    check(conv_status(3, 3, 1, 256, 1, 5) == FRUGAL_BAD_SHAPE, "zero point", "", 0, 0);
    check(conv_status(3, 3, 1, 0, 0, 5) == FRUGAL_BAD_SHAPE, "stride 0", "", 0, 0);
    check(conv_status(3, 3, 1, 0, 1 << 20, 5) == FRUGAL_BAD_SHAPE, "stride", "", 0, 0);
    check(conv_status(3, 3, 1, 0, 1, 4) == FRUGAL_BAD_SHAPE, "rank", "", 0, 0);
    limits_low = 200;
    check(conv_status(3, 3, 1, 0, 1, 5) == FRUGAL_BAD_SHAPE, "limits", "", 0, 0);
    limits_low = 0;
    check(conv_status(INT64_C(1) << 40, 3, 1, 0, 1, 5) == FRUGAL_BAD_SHAPE, "kernel", "", 0, 0);
}

/* With an argument, as under an emulator, fewer rounds. */
int main(int argc, char **argv) {
    const int64_t rounds = argc > 1 ? 40 : 400;
    (void)argv;
    for (int64_t i = 0; i < rounds; i++) {
        test_conv(PLAIN, i);
        test_conv(DEPTH, i);
        test_conv(TRANSFORMED, i);
        test_binary(i);
        test_pool(i);
        test_tables(i);
        test_codes(i);
    }
    test_refusals();
    return check_report();
}
