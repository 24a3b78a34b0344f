/* test_conv.c - CONV, CONV_DEPTHWISE, POOL, MAX_POOL_INDICES: every instruction set and thread count against the formulas of
 * frugal_plan.h computed position by position, over random windows; and what their checks must refuse. */
#include "check.h"

/* Runs a plan everywhere; the outputs must have the wanted bytes. */
static void compare(pb *b, const void *const *in, int n_in, const void *const *want, const size_t *bytes, int outputs,
                    const char *what, int64_t index) {
    io x = {.fixed = true};
    for (int k = 0; k < n_in; k++)
        x.in[k] = in[k];
    for (int k = 0; k < outputs; k++)
        x.out[k] = alloc(bytes[k]), x.out_bytes[k] = bytes[k];
    check(run_plan(b, &x) == FRUGAL_OK, "runs", what, index, 0);
    for (int k = 0; k < outputs; k++) {
        check(memcmp(x.out[k], want[k], bytes[k]) == 0, "the wanted bytes", what, index, k);
        free(x.out[k]);
    }
}

/* ---- windows ---- */

typedef struct windows {
    int spatial; /* axes */
    bool transposed;
    int64_t images, in[3], out[3], kernel[3], stride[3], dilation[3], pad[3], after[3];
} windows;

static windows make_windows(bool transposed) {
    windows v = {.spatial = 1 + (int)upto(3), .transposed = transposed, .images = 1 + upto(3)};
    for (int a = 0; a < 3; a++) {
        const bool there = a >= 3 - v.spatial;
        v.in[a] = there ? 1 + upto(a == 2 ? 40 : 7) : 1;
        v.kernel[a] = there ? 1 + upto(4) : 1;
        v.stride[a] = there ? 1 + upto(3) : 1;
        v.dilation[a] = there ? 1 + upto(3) : 1;
        v.pad[a] = there ? upto(4) : 0;
        v.after[a] = there ? upto(3) : 0;
        v.out[a] = there ? 1 + upto(a == 2 ? 40 : 6) : 1; /* anything: taps outside are left out */
    }
    return v;
}

/* The input position that output o and tap k meet along axis a, or -1. */
static int64_t meet(const windows *v, int a, int64_t o, int64_t k) {
    int64_t i = o * v->stride[a] + k * v->dilation[a] - v->pad[a];
    if (v->transposed) {
        i = o + v->pad[a] - k * v->dilation[a];
        i = i % v->stride[a] ? -1 : i / v->stride[a];
    }
    return i >= 0 && i < v->in[a] ? i : -1;
}

static int64_t positions(const int64_t *n) { return n[0] * n[1] * n[2]; }

/* The input position of tap t (row-major) of output position o, or -1. */
static int64_t input_of(const windows *v, int64_t o, int64_t t) {
    int64_t at[3], result = 0;
    for (int a = 2; a >= 0; a--) {
        at[a] = meet(v, a, o % v->out[a], t % v->kernel[a]);
        o /= v->out[a], t /= v->kernel[a];
    }
    for (int a = 0; a < 3; a++) {
        if (at[a] < 0)
            return -1;
        result = result * v->in[a] + at[a];
    }
    return result;
}

static int32_t tensor(pb *b, int kind, int dtype, const windows *v, const int64_t *sizes, int64_t channels) {
    int64_t dims[5] = {v->images};
    for (int a = 0; a < v->spatial; a++)
        dims[1 + a] = sizes[3 - v->spatial + a];
    dims[1 + v->spatial] = channels;
    return pb_tensor(b, kind, dtype, 0, v->spatial + 2, dims);
}

static int32_t planes(pb *b, const windows *v, int64_t channels) {
    int64_t dims[5] = {v->images, channels};
    for (int a = 0; a < v->spatial; a++)
        dims[2 + a] = v->in[3 - v->spatial + a];
    return pb_tensor(b, FRUGAL_TENSOR_INPUT, FR_F32, 0, v->spatial + 2, dims);
}

static int list_windows(const windows *v, int64_t *attrs, bool after) {
    int n = 0;
    for (int a = 0; a < 3; a++) {
        attrs[n++] = v->kernel[a], attrs[n++] = v->stride[a], attrs[n++] = v->dilation[a], attrs[n++] = v->pad[a];
        if (after)
            attrs[n++] = v->after[a];
    }
    return n;
}

/* ---- convolutions ---- */

typedef struct conv {
    windows v;
    int64_t groups, cg, og; /* channels of a group of x and y */
    bool depthwise, packed, planar;
    float *x, *w, *bias, *residual, *want; /* w natural: [e][taps][cg], planar [e][rows of taps][cg][taps], depthwise [taps][c] */
} conv;

static float finish(const conv *t, float v, int64_t channel, int64_t at) {
    v = v + t->bias[channel];
    v = v > 0.0f ? v : 0.0f;
    v = v * 1.5f;
    v = v + 0.25f;
    return v + t->residual[at];
}

/* Product number q of a chain as (tap, channel of the group). */
static int64_t tap_of(const conv *t, int64_t q, int64_t *channel) {
    const int64_t last = t->planar ? t->v.kernel[2] : 1;
    *channel = q / last % t->cg;
    return q / (t->cg * last) * last + q % last;
}

static void compute(const conv *t) {
    const int64_t depth = positions(t->v.kernel) * t->cg, e = t->groups * t->og, c = t->groups * t->cg;
    const int64_t outs = positions(t->v.out), ins = positions(t->v.in);
    for (int64_t p = 0; p < t->v.images * outs; p++) {
        for (int64_t j = 0; j < e; j++) {
            float v = 0.0f;
            for (int64_t q = 0, l; q < depth; q++) {
                const int64_t i = input_of(&t->v, p % outs, tap_of(t, q, &l)), image = p / outs, at = j / t->og * t->cg + l;
                if (i >= 0)
                    v = fmaf(t->x[t->planar ? (image * c + at) * ins + i : (image * ins + i) * c + at],
                             t->w[t->depthwise ? q * c + j : j * depth + q], v);
            }
            t->want[p * e + j] = finish(t, v, j, p * e + j);
        }
    }
}

/* The weights as an operand: plain, or packed with each group rounded up to whole panels. */
static int32_t weights(pb *b, const conv *t) {
    const int64_t taps = positions(t->v.kernel), e = t->groups * t->og, ep = fr_round_up(t->og, 16), depth = taps * t->cg;
    int64_t dims[5], n = 0;
    if (!t->packed || t->depthwise) {
        if (!t->depthwise)
            dims[n++] = e;
        for (int a = 3 - t->v.spatial; a < 3; a++)
            dims[n++] = t->v.kernel[a];
        dims[n++] = t->depthwise ? e : t->cg;
        return pb_const(b, FR_F32, 0, (int)n, dims, t->w, (uint64_t)(4 * (t->depthwise ? taps * e : e * depth)));
    }
    float *panels = alloc((size_t)(4 * t->groups * ep * depth));
    memset(panels, 0, (size_t)(4 * t->groups * ep * depth));
    for (int64_t j = 0; j < e; j++) {
        const int64_t row = j / t->og * ep + j % t->og;
        for (int64_t k = 0; k < depth; k++)
            panels[(row / 16 * depth + k) * 16 + row % 16] = t->w[j * depth + k];
    }
    const int64_t rows = t->groups > 1 ? t->groups * ep : e;
    const int32_t w =
        pb_const(b, FR_F32, FRUGAL_F32_P16, PB_LIST(rows, depth), panels, (uint64_t)(4 * fr_round_up(rows, 16) * depth));
    free(panels);
    return w;
}

static void test_conv(int64_t index) {
    const bool planar = index % 3 == 1;
    conv t = {
        .v = make_windows(!planar && rnd() & 1), .depthwise = index % 3 == 0, .packed = planar || rnd() & 1, .planar = planar};
    t.groups = t.depthwise ? 2 + upto(40) : planar ? 1 : 1 + upto(3), t.cg = t.depthwise ? 1 : 1 + upto(7);
    t.og = t.depthwise ? 1 : 1 + upto(20);
    const int64_t c = t.groups * t.cg, e = t.groups * t.og, outs = t.v.images * positions(t.v.out);
    const int64_t og = t.depthwise ? e : t.og, each = fr_round_up(og, 16), groups = t.depthwise ? 1 : t.groups;
    t.x = floats(t.v.images * positions(t.v.in) * c), t.w = floats(positions(t.v.kernel) * t.cg * e), t.bias = floats(e);
    t.residual = floats(outs * e), t.want = floats(outs * e);
    compute(&t);
    float *bias = floats(groups * each);
    for (int64_t j = 0; j < e; j++)
        bias[j / og * each + j % og] = t.bias[j];
    pb *b = pb_new();
    const int32_t x = planar ? planes(b, &t.v, c) : tensor(b, FRUGAL_TENSOR_INPUT, FR_F32, &t.v, t.v.in, c),
                  r = tensor(b, FRUGAL_TENSOR_INPUT, FR_F32, &t.v, t.v.out, e), w = weights(b, &t),
                  bt = pb_const(b, FR_F32, 0, PB_LIST(groups * each), bias, (uint64_t)(4 * groups * each)),
                  y = tensor(b, FRUGAL_TENSOR_OUTPUT, FR_F32, &t.v, t.v.out, e);
    int64_t attrs[19] = {FRUGAL_U_RELU, 0, 0, pb_float(1.5), pb_float(0.25), t.groups, planar ? 2 : t.v.transposed};
    const int n = 7 + list_windows(&t.v, attrs + 7, false);
    pb_step(b, t.depthwise ? FRUGAL_OP_CONV_DEPTHWISE : FRUGAL_OP_CONV, PB_LIST(x, w, bt, r), PB_LIST(y), n, attrs);
    compare(b, (const void *const[]){t.x, t.residual}, 2, (const void *const[]){t.want}, (const size_t[]){(size_t)(outs * e) * 4},
            1,
            t.depthwise ? "conv_depthwise"
            : planar    ? "conv of planes"
                        : "conv",
            index);
    free(t.x), free(t.w), free(t.bias), free(t.residual), free(t.want), free(bias);
}

/* ---- Winograd ---- */

typedef struct winograd {
    int64_t n, h, w, c, e, oh, ow, top, left, extra; /* extra: places of u beyond 36 */
    float *x, *kernel, *u, *bias, *residual;         /* kernel [e][9][c] */
} winograd;

static winograd make_winograd(void) {
    winograd t = {.n = 1 + upto(2), .h = 1 + upto(14), .w = 1 + upto(20), .c = 1 + upto(40), .e = 1 + upto(40)};
    t.top = upto(3), t.left = upto(3), t.oh = 1 + upto(t.h + 2), t.ow = 1 + upto(t.w + 2);
    const int64_t panels = (t.e + 15) / 16;
    t.x = floats(t.n * t.h * t.w * t.c), t.kernel = floats(t.e * 9 * t.c), t.bias = floats(panels * 16);
    t.residual = floats(t.n * t.oh * t.ow * t.e), t.u = floats(36 * panels * t.c * 16);
    const double g[6][3] = {{0.25, 0, 0},
                            {-1.0 / 6, -1.0 / 6, -1.0 / 6},
                            {-1.0 / 6, 1.0 / 6, -1.0 / 6},
                            {1.0 / 24, 1.0 / 12, 1.0 / 6},
                            {1.0 / 24, -1.0 / 12, 1.0 / 6},
                            {0, 0, 1}};
    for (int64_t i = 0; i < 36 * t.e * t.c; i++) {
        const int64_t q = i / t.e / t.c, o = i / t.c % t.e, c = i % t.c;
        double sum = 0;
        for (int k = 0; k < 9; k++)
            sum += g[q / 6][k / 3] * g[q % 6][k % 3] * (double)t.kernel[(o * 9 + k) * t.c + c];
        t.u[((q * panels + o / 16) * t.c + c) * 16 + o % 16] = (float)sum;
    }
    return t;
}

/* The convolution in double, with a ReLU, 1.5 v + 0.25 and the residual behind it. */
static double plain_pixel(const winograd *t, int64_t at) {
    const int64_t o = at % t->e, ox = at / t->e % t->ow, oy = at / t->e / t->ow % t->oh, image = at / t->e / t->ow / t->oh;
    double v = (double)t->bias[o];
    for (int64_t k = 0; k < 9; k++) {
        const int64_t y = oy - t->top + k / 3, x = ox - t->left + k % 3;
        for (int64_t c = 0; c < t->c && y >= 0 && y < t->h && x >= 0 && x < t->w; c++)
            v += (double)t->x[((image * t->h + y) * t->w + x) * t->c + c] * (double)t->kernel[(o * 9 + k) * t->c + c];
    }
    return (v > 0 ? v : 0) * 1.5 + 0.25 + (double)t->residual[at];
}

static pb *winograd_plan(const winograd *t) {
    const int64_t panels = (t->e + 15) / 16, places = 36 + t->extra;
    pb *b = pb_new();
    const int32_t x = pb_input(b, FR_F32, PB_LIST(t->n, t->h, t->w, t->c)),
                  r = pb_input(b, FR_F32, PB_LIST(t->n, t->oh, t->ow, t->e)),
                  u = pb_const(b, FR_F32, 0, PB_LIST(places, panels, t->c, 16), t->u, (uint64_t)(places * panels * t->c * 64)),
                  bias = pb_const(b, FR_F32, 0, PB_LIST(panels * 16), t->bias, (uint64_t)(panels * 64)),
                  y = pb_output(b, FR_F32, PB_LIST(t->n, t->oh, t->ow, t->e));
    pb_step(b, FRUGAL_OP_CONV_WINOGRAD, PB_LIST(x, u, bias, r), PB_LIST(y),
            PB_LIST(FRUGAL_U_RELU, 0, 0, pb_float(1.5), pb_float(0.25), t->top, t->left));
    return b;
}

static void free_winograd(winograd *t) { free(t->x), free(t->kernel), free(t->u), free(t->bias), free(t->residual); }

static void test_winograd(int64_t index) {
    winograd t = make_winograd();
    const int64_t n = t.n * t.oh * t.ow * t.e;
    float *got = alloc((size_t)n * 4);
    io x = {.fixed = true, .in = {t.x, t.residual}, .out = {got}, .out_bytes = {(size_t)n * 4}};
    check(run_plan(winograd_plan(&t), &x) == FRUGAL_OK, "runs", "conv_winograd", index, 0);
    double worst = 0; /* products of numbers below 1: 1e-6 for each is about what transforms that multiply by up to 100 cost */
    for (int64_t i = 0; i < n; i++)
        worst = fmax(worst, fabs((double)got[i] - plain_pixel(&t, i)));
    check(worst < 1e-6 * (double)(9 * t.c + 9), "a convolution", "conv_winograd", index, (int64_t)(1e9 * worst));
    free_winograd(&t);
    free(got);
}

static frugal_status winograd_status(int64_t extra, int64_t top) {
    winograd t = make_winograd();
    const int64_t n = t.n * t.oh * t.ow * t.e;
    t.extra = extra;
    free(t.u), t.u = floats((36 + extra) * ((t.e + 15) / 16) * t.c * 16), t.top = top;
    float *y = floats(n);
    io x = {.fixed = true, .in = {t.x, t.residual}, .out = {y}, .out_bytes = {(size_t)n * 4}};
    const frugal_status s = run_plan(winograd_plan(&t), &x);
    free_winograd(&t);
    free(y);
    return s;
}
static void test_refused_winograd(void) {
    check(winograd_status(0, 1) == FRUGAL_OK, "accepted", "", 0, 0);
    check(winograd_status(0, FRUGAL_MAX_DIM) == FRUGAL_OK, "all of it padding", "", 0, 0);
    check(winograd_status(1, 1) == FRUGAL_BAD_SHAPE, "places", "", 0, 0);
}

/* ---- pooling ---- */

/* Positions that a padded mean counts: those of the window in front of the padding's end. */
static int64_t counted(const windows *v, int64_t o) {
    int64_t n = 1;
    for (int a = 2; a >= 0; a--) {
        int64_t inside = 0;
        for (int64_t k = 0; k < v->kernel[a]; k++)
            inside += o % v->out[a] * v->stride[a] + k * v->dilation[a] - v->pad[a] < v->in[a] + v->after[a];
        n *= inside, o /= v->out[a];
    }
    return n;
}

static float pooled(const windows *v, const float *x, int64_t c, int64_t p, int64_t j, int kind, int64_t *index) {
    const int64_t outs = positions(v->out), ins = positions(v->in);
    float result = kind == 0 ? -INFINITY : 0.0f;
    int64_t seen = 0;
    *index = 0;
    for (int64_t k = 0; k < positions(v->kernel); k++) {
        const int64_t i = input_of(v, p % outs, k);
        if (i < 0)
            continue;
        const float u = x[(p / outs * ins + i) * c + j];
        if (kind == 0 && (seen == 0 || u > result))
            result = u, *index = (p / outs * c + j) * ins + i;
        result = kind == 0 ? result : result + u;
        seen++;
    }
    const int64_t n = kind == 2 ? counted(v, p % outs) : seen;
    return (kind == 1 || kind == 2) && n > 0 ? result / (float)n : result;
}

static void test_pool(int64_t round) {
    const windows v = make_windows(false);
    const int kind = (int)upto(5), indices = kind == 4; /* 4: with indices */
    const int64_t c = 1 + upto(20), n = v.images * positions(v.out) * c;
    float *x = floats(v.images * positions(v.in) * c), *want = floats(n);
    int64_t *index = alloc((size_t)n * 8), attrs[16] = {indices ? 0 : kind};
    for (int64_t i = 0; i < n; i++)
        want[i] = pooled(&v, x, c, i / c, i % c, indices ? 0 : kind, index + i);
    pb *b = pb_new();
    const int32_t in = tensor(b, FRUGAL_TENSOR_INPUT, FR_F32, &v, v.in, c),
                  y = tensor(b, FRUGAL_TENSOR_OUTPUT, FR_F32, &v, v.out, c);
    const int count = 1 + list_windows(&v, attrs + 1, true);
    if (indices) {
        const int32_t at = tensor(b, FRUGAL_TENSOR_OUTPUT, FR_I64, &v, v.out, c);
        pb_step(b, FRUGAL_OP_MAX_POOL_INDICES, PB_LIST(in), PB_LIST(y, at), count, attrs);
    } else {
        pb_step(b, FRUGAL_OP_POOL, PB_LIST(in), PB_LIST(y), count, attrs);
    }
    compare(b, (const void *const[]){x}, 1, (const void *const[]){want, index}, (const size_t[]){(size_t)n * 4, (size_t)n * 8},
            1 + indices, "pool", round);
    free(x), free(want), free(index);
}

/* ---- what the checks must refuse ---- */

/* A 3x3 convolution of [1, 4, 4, 4] with one attribute or one dim of the weights replaced. */
static frugal_status status_of(int op, int place, int64_t value, int64_t w0, int64_t w1) {
    static float w[4096];
    int64_t attrs[19] = {0, 0, 0, pb_float(1), 0, op == FRUGAL_OP_CONV ? 1 : 4, 0, 1, 1, 1, 0, 3, 1, 1, 1, 3, 1, 1, 1};
    pb *b = pb_new();
    const int32_t image = pb_input(b, FR_F32, PB_LIST(1, 4, 4, 4));
    const int32_t cw = op == FRUGAL_OP_CONV
                           ? pb_const(b, FR_F32, FRUGAL_F32_P16, PB_LIST(w0, w1), w, (uint64_t)(4 * fr_round_up(w0, 16) * w1))
                           : pb_const(b, FR_F32, 0, PB_LIST(3, w0, w1), w, (uint64_t)(12 * w0 * w1));
    const int32_t y = pb_output(b, FR_F32, PB_LIST(1, 4, 4, op == FRUGAL_OP_CONV ? 8 : 4));
    if (place >= 0)
        attrs[place] = value;
    pb_step(b, op, PB_LIST(image, cw), PB_LIST(y), 19, attrs);
    float in[64] = {0}, out[128];
    io x = {.fixed = true, .in = {in}, .out = {out}, .out_bytes = {op == FRUGAL_OP_CONV ? sizeof out : sizeof out / 2}};
    return run_plan(b, &x);
}

static void test_refusals(void) {
    const int conv = FRUGAL_OP_CONV, depthwise = FRUGAL_OP_CONV_DEPTHWISE;
    const int64_t huge = INT64_C(1) << 40;
    check(status_of(conv, -1, 0, 8, 36) == FRUGAL_OK, "accepted", "", 0, 0);
    check(status_of(depthwise, -1, 0, 3, 4) == FRUGAL_OK, "accepted", "", 1, 0);
    check(status_of(conv, -1, 0, 9, 36) == FRUGAL_BAD_SHAPE, "output channels", "", 0, 0);
    check(status_of(conv, -1, 0, 8, 35) == FRUGAL_BAD_SHAPE, "depth", "", 0, 0);
    check(status_of(depthwise, -1, 0, 2, 4) == FRUGAL_BAD_SHAPE, "kernel", "", 1, 0);
    check(status_of(depthwise, -1, 0, 3, 5) == FRUGAL_BAD_SHAPE, "channels", "", 1, 0);
    for (int op = conv; op <= depthwise; op++) {
        check(status_of(op, 5, 0, op == conv ? 8 : 3, op == conv ? 36 : 4) == FRUGAL_BAD_SHAPE, "no groups", "", op, 0);
        check(status_of(op, 5, 3, op == conv ? 8 : 3, op == conv ? 36 : 4) == FRUGAL_BAD_SHAPE, "groups", "", op, 0);
        for (int place = 7; place < 19; place++) { /* huge fits where it is never multiplied out of range */
            const bool pad = place % 4 == 2, ok = (pad && place > 10) || place == 9 || place == 12 || place == 16;
            const int64_t a = op == conv ? 8 : 3, d = op == conv ? 36 : 4;
            check((status_of(op, place, 0, a, d) == FRUGAL_OK) == pad, "zero", "", op, place);
            check((status_of(op, place, huge, a, d) == FRUGAL_OK) == ok, "huge", "", op, place);
            check(status_of(op, place, huge + 1, a, d) != FRUGAL_OK, "too big", "", op, place);
        }
    }
    check(status_of(conv, 0, FRUGAL_U_NOT, 8, 36) == FRUGAL_UNSUPPORTED, "activation", "", 0, 0);
}

/* With an argument, as under an emulator, fewer rounds. */
int main(int argc, char **argv) {
    const int64_t rounds = argc > 1 ? 30 : 300;
    (void)argv;
    for (int64_t i = 0; i < rounds; i++) {
        test_conv(i);
        test_pool(i);
        test_winograd(i);
    }
    test_refused_winograd();
    test_refusals();
    return check_report();
}
