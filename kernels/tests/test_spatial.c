/* test_spatial.c - RESIZE, GRID_SAMPLE, ROI_ALIGN, COL2IM: every instruction set and thread count gives the same bytes, and these
 * agree with ONNX's formulas computed in double, element by element. */
#include "check.h"

static void agree(const float *got, const double *want, int64_t n, double tolerance, const char *what, int64_t index) {
    int64_t wrong = -1;
    for (int64_t i = 0; i < n && wrong < 0; i++)
        wrong = close_to((double)got[i], want[i], tolerance) ? -1 : i;
    check(wrong < 0, what, "element", wrong, index);
}

/* Runs a plan of one float32 output and compares it. */
static void expect(pb *b, const void *x, const void *z, const double *want, int64_t n, double tolerance, const char *what,
                   int64_t index) {
    io run = {.fixed = true, .in = {x, z}, .out = {alloc((size_t)n * 4)}, .out_bytes = {(size_t)n * 4}};
    check(run_plan(b, &run) == FRUGAL_OK, run.err.what ? run.err.what : "runs", what, index, 0);
    agree(run.out[0], want, n, tolerance, what, index);
    free(run.out[0]);
}

/* ---- RESIZE ---- */

enum { NEAREST, LINEAR, CUBIC };
enum { HALF_PIXEL, SYMMETRIC, PYTORCH, CORNERS, ASYMMETRIC };

typedef struct resize {
    int64_t mode, transform, rounding, exclude, antialias, outer, in, out, inner;
    double scale;
} resize;

static double source_of(const resize *r, int64_t j) {
    const double x = (double)j, in = (double)r->in, out = (double)r->out;
    switch (r->transform) {
    case PYTORCH:
        return r->out > 1 ? (x + 0.5) / r->scale - 0.5 : 0;
    case CORNERS:
        return r->out == 1 ? 0 : x * (in - 1) / (out - 1);
    case ASYMMETRIC:
        return x / r->scale;
    default: /* the symmetric one is the same where the length is exact */
        return (x + 0.5) / r->scale - 0.5;
    }
}

static int64_t clamp(int64_t i, int64_t n) { return i < 0 ? 0 : i >= n ? n - 1 : i; }

static int64_t rounded(const resize *r, double x) {
    const double v[5] = {ceil(x - 0.5), floor(x + 0.5), floor(x), ceil(x), r->scale < 1 ? ceil(x) : floor(x)};
    return clamp((int64_t)v[r->rounding], r->in);
}

static double weight_at(const resize *r, double x) {
    const double a = -0.75;
    x = fabs(x);
    if (r->mode == LINEAR)
        return x < 1 ? 1 - x : 0;
    return x <= 1 ? (a + 2) * x * x * x - (a + 3) * x * x + 1 : x < 2 ? a * x * x * x - 5 * a * x * x + 8 * a * x - 4 * a : 0;
}

/* The weighted mean of what the kernel reaches; what lies outside is the edge, or not there. */
static double interpolated(const resize *r, const float *x, int64_t j) {
    const double at = source_of(r, j), narrow = r->antialias ? fmin(r->scale, 1) : 1, reach = (r->mode == CUBIC ? 2 : 1) / narrow;
    double sum = 0, total = 0;
    for (int64_t i = (int64_t)floor(at - reach); i <= (int64_t)ceil(at + reach); i++) {
        const double w = weight_at(r, narrow * ((double)i - at));
        if (r->exclude && (i < 0 || i >= r->in))
            continue;
        total += w;
        sum += w * (double)x[clamp(i, r->in) * r->inner];
    }
    return r->exclude || r->antialias ? sum / total : sum;
}

static void test_resize(int64_t index) {
    resize r = {.mode = index % 3, .transform = upto(5), .rounding = upto(5), .outer = 1 + upto(3), .inner = 1 + upto(5)};
    r.in = 1 + upto(12), r.out = 1 + upto(24);
    r.exclude = r.mode == CUBIC && rnd() & 1, r.antialias = r.mode != NEAREST && upto(3) == 0;
    r.scale = (double)((float)r.out / (float)r.in);
    const int64_t n = r.outer * r.out * r.inner;
    float *x = floats(r.outer * r.in * r.inner);
    double *want = alloc((size_t)n * 8);
    bool tie = false;
    for (int64_t i = 0; i < n; i++) {
        const int64_t j = i / r.inner % r.out, row = i / r.inner / r.out;
        const float *line = x + row * r.in * r.inner + i % r.inner;
        const double at = source_of(&r, j), twice = 2 * at;
        tie = tie || (r.mode == NEAREST && fabs(twice - rint(twice)) < 1e-4); /* float32 may fall on the other side */
        want[i] = r.mode == NEAREST ? (double)line[rounded(&r, at) * r.inner] : interpolated(&r, line, j);
    }
    if (!tie) {
        pb *b = pb_new();
        const int32_t in = pb_input(b, FR_F32, PB_LIST(r.outer, r.in, r.inner)),
                      y = pb_output(b, FR_F32, PB_LIST(r.outer, r.out, r.inner));
        pb_step(b, FRUGAL_OP_RESIZE, PB_LIST(in, -1, -1, -1), PB_LIST(y),
                PB_LIST(r.mode, r.transform, r.rounding, r.exclude, r.antialias, pb_float(-0.75), 2));
        expect(b, x, NULL, want, n, 1e-5, "resize", index);
    }
    free(x), free(want);
}

/* Every rounding at places that are exact: scale 2, and half as many. */
static void test_resize_ties(void) {
    static const float x[4] = {0, 1, 2, 3};
    static const struct {
        int64_t rounding, n;
        double want[8];
    } cases[] = {{0, 8, {0, 0, 1, 1, 2, 2, 3, 3}},
                 {2, 8, {0, 0, 0, 1, 1, 2, 2, 3}},
                 {3, 8, {0, 1, 1, 2, 2, 3, 3, 3}},
                 {0, 2, {0, 2}},
                 {1, 2, {1, 3}},
                 {2, 2, {0, 2}},
                 {3, 2, {1, 3}},
                 {4, 2, {1, 3}}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        pb *b = pb_new();
        const int32_t in = pb_input(b, FR_F32, PB_LIST(4)), y = pb_output(b, FR_F32, PB_LIST(cases[k].n));
        pb_step(b, FRUGAL_OP_RESIZE, PB_LIST(in, -1, -1, -1), PB_LIST(y),
                PB_LIST(NEAREST, HALF_PIXEL, cases[k].rounding, 0, 0, pb_float(-0.75), 1));
        expect(b, x, NULL, cases[k].want, cases[k].n, 0, "rounding", (int64_t)k);
    }
}

static void test_resize_refused(void) {
    static const float x[4] = {0}, scale = 3;
    float y[8];
    for (int64_t k = 0; k < 2; k++) {
        pb *b = pb_new();
        const int32_t in = pb_input(b, FR_F32, PB_LIST(2, 2)), s = pb_const(b, FR_F32, 0, PB_LIST(2), (float[2]){1, scale}, 8),
                      out = pb_output(b, FR_F32, PB_LIST(2, 4));
        pb_step(b, FRUGAL_OP_RESIZE, PB_LIST(in, s, -1, -1), PB_LIST(out),
                PB_LIST(LINEAR, k ? 5 : HALF_PIXEL, 0, 0, 0, pb_float(-0.75), 2));
        io run = {.fixed = true, .in = {x}, .out = {y}, .out_bytes = {sizeof y}};
        check(run_plan(b, &run) == (k ? FRUGAL_BAD_SHAPE : FRUGAL_BAD_INPUT), "refused", "resize", k,
              0); /* a crop of no region */
    }
}

/* ---- GRID_SAMPLE ---- */

typedef struct grid {
    int64_t mode, padding, coords, axes, n, c, in[3], out[3];
} grid;

/* The value at an index along every axis, or what the padding makes of it. */
static double padded(const grid *g, const float *x, const int64_t *index) {
    int64_t at = 0;
    for (int64_t a = 0; a < g->axes; a++) {
        const int64_t n = g->in[a];
        int64_t i = index[a];
        if ((i < 0 || i >= n) && g->padding == 0)
            return 0;
        if (g->padding == 1)
            i = clamp(i, n);
        while (g->padding == 2 && (i < 0 || i >= n)) { /* about the centers, or the outer edges */
            if (n == 1)
                i = 0;
            else if (g->coords == 1)
                i = i < 0 ? -i : 2 * (n - 1) - i;
            else
                i = i < 0 ? -1 - i : 2 * n - 1 - i;
        }
        at = at * n + i;
    }
    return (double)x[at];
}

static double kernel_weight(int64_t mode, double x) {
    const resize like = {.mode = mode};
    return weight_at(&like, x);
}

static double sampled(const grid *g, const float *x, const float *place) {
    int64_t base[3] = {0}, index[3];
    double at[3], sum = 0;
    const int64_t reach = g->mode == CUBIC ? 2 : 1, each = g->mode == NEAREST ? 1 : 2 * reach;
    int64_t combinations = 1;
    for (int64_t a = 0; a < g->axes; a++) {
        const double v = (double)place[g->axes - 1 - a], n = (double)g->in[a];
        at[a] = g->coords == 2 ? v : g->coords == 1 ? (v + 1) / 2 * (n - 1) : ((v + 1) * n - 1) / 2;
        base[a] = g->mode == NEAREST ? (int64_t)rint(at[a]) : (int64_t)floor(at[a]) - reach + 1;
        combinations *= each;
    }
    for (int64_t k = 0; k < combinations; k++) {
        double w = 1;
        for (int64_t a = g->axes - 1, rest = k; a >= 0; a--, rest /= each) {
            index[a] = base[a] + rest % each;
            w *= g->mode == NEAREST ? 1 : kernel_weight(g->mode, (double)index[a] - at[a]);
        }
        sum += w * padded(g, x, index);
    }
    return sum;
}

static void test_grid_sample(int64_t index) {
    grid g = {.mode = index % 3, .padding = upto(3), .coords = upto(3), .axes = 1 + upto(3), .n = 1 + upto(2), .c = 1 + upto(3)};
    int64_t ins = 1, outs = 1, x_dims[5] = {g.n, g.c}, grid_dims[5] = {g.n}, y_dims[5] = {g.n, g.c};
    for (int64_t a = 0; a < g.axes; a++) {
        g.in[a] = 1 + upto(5), g.out[a] = 1 + upto(5);
        x_dims[2 + a] = g.in[a], y_dims[2 + a] = grid_dims[1 + a] = g.out[a];
        ins *= g.in[a], outs *= g.out[a];
    }
    grid_dims[1 + g.axes] = g.axes;
    float *x = floats(g.n * g.c * ins), *places = floats(g.n * outs * g.axes);
    double *want = alloc((size_t)(g.n * g.c * outs) * 8);
    for (int64_t i = 0; i < g.n * outs * g.axes; i++)
        places[i] = g.coords == 2 ? places[i] * 9.0f + 2.0f : places[i] * 1.7f;
    for (int64_t i = 0; i < g.n * g.c * outs; i++)
        want[i] = sampled(&g, x + i / outs * ins, places + (i / outs / g.c * outs + i % outs) * g.axes);
    pb *b = pb_new();
    const int32_t in = pb_input(b, FR_F32, (int)g.axes + 2, x_dims), p = pb_input(b, FR_F32, (int)g.axes + 2, grid_dims),
                  y = pb_output(b, FR_F32, (int)g.axes + 2, y_dims);
    pb_step(b, FRUGAL_OP_GRID_SAMPLE, PB_LIST(in, p), PB_LIST(y), PB_LIST(g.mode, g.padding, g.coords));
    expect(b, x, places, want, g.n * g.c * outs, 1e-4, "grid_sample",
           index); /* linear at an edge: a step of the place is one of x */
    free(x), free(places), free(want);
}

/* ---- ROI_ALIGN ---- */

/* Bilinear at (v, h); 0 outside of the image by more than a pixel.  corners: the four products. */
static double bilinear(const float *x, int64_t rows, int64_t cols, double v, double h, double corners[4]) {
    double sum = 0;
    for (int k = 0; k < 4; k++)
        corners[k] = 0;
    if (v < -1 || v > (double)rows || h < -1 || h > (double)cols)
        return 0;
    v = fmin(fmax(v, 0), (double)(rows - 1)), h = fmin(fmax(h, 0), (double)(cols - 1));
    const int64_t r = (int64_t)v, c = (int64_t)h;
    for (int k = 0; k < 4; k++) {
        const double wv = k / 2 ? v - (double)r : 1 - (v - (double)r), wh = k % 2 ? h - (double)c : 1 - (h - (double)c);
        corners[k] = wv * wh * (double)x[clamp(r + k / 2, rows) * cols + clamp(c + k % 2, cols)];
        sum += corners[k];
    }
    return sum;
}

static void test_roi_align(int64_t index) {
    const int64_t n = 1 + upto(2), c = 1 + upto(2), h = 1 + upto(7), w = 1 + upto(7), rois = 1 + upto(3), oh = 1 + upto(3),
                  ow = 1 + upto(3);
    const int64_t most = index % 2, fixed = upto(3), half = rnd() & 1;
    const double scale = 0.5;
    float *x = floats(n * c * h * w), *box = floats(rois * 4);
    int64_t batch[4];
    double *want = alloc((size_t)(rois * c * oh * ow) * 8), corners[4];
    for (int64_t i = 0; i < rois * 4; i++)
        box[i] = box[i] * 6.0f + (i % 4 < 2 ? 2.0f : 11.0f);
    for (int64_t i = 0; i < rois; i++)
        batch[i] = upto(n);
    for (int64_t i = 0; i < rois * c * oh * ow; i++) {
        const int64_t r = i / (c * oh * ow), ph = i / ow % oh, pw = i % ow;
        const double off = half ? 0.5 : 0, top = (double)box[4 * r + 1] * scale - off, left = (double)box[4 * r] * scale - off;
        double high = ((double)box[4 * r + 3] - (double)box[4 * r + 1]) * scale,
               wide = ((double)box[4 * r + 2] - (double)box[4 * r]) * scale;
        high = half ? high : fmax(high, 1), wide = half ? wide : fmax(wide, 1);
        const double bh = high / (double)oh, bw = wide / (double)ow;
        const int64_t sh = fixed ? fixed : (int64_t)fmax(ceil(bh), 0), sw = fixed ? fixed : (int64_t)fmax(ceil(bw), 0);
        const float *image = x + (batch[r] * c + i / (oh * ow) % c) * h * w;
        double sum = 0, top_corner = -INFINITY;
        for (int64_t k = 0; k < sh * sw; k++) {
            sum += bilinear(image, h, w, top + bh * ((double)ph + ((double)(k / sw) + 0.5) / (double)sh),
                            left + bw * ((double)pw + ((double)(k % sw) + 0.5) / (double)sw), corners);
            top_corner = fmax(top_corner, fmax(fmax(corners[0], corners[1]), fmax(corners[2], corners[3])));
        }
        want[i] = sh * sw == 0 ? 0 : most ? top_corner : sum / (double)(sh * sw);
    }
    pb *b = pb_new();
    const int32_t in = pb_input(b, FR_F32, PB_LIST(n, c, h, w)), r = pb_input(b, FR_F32, PB_LIST(rois, 4)),
                  bt = pb_const(b, FR_I64, 0, PB_LIST(rois), batch, (uint64_t)rois * 8),
                  y = pb_output(b, FR_F32, PB_LIST(rois, c, oh, ow));
    pb_step(b, FRUGAL_OP_ROI_ALIGN, PB_LIST(in, r, bt), PB_LIST(y), PB_LIST(most, fixed, pb_float(scale), half));
    expect(b, x, box, want, rois * c * oh * ow, 1e-4, "roi_align", index);
    free(x), free(box), free(want);
}

/* ---- COL2IM ---- */

static void test_col2im(int64_t index) {
    const int64_t n = 1 + upto(2), c = 1 + upto(3);
    int64_t out[2], block[2], dilation[2], before[2], behind[2], stride[2], places[2];
    for (int a = 0; a < 2; a++) {
        block[a] = 1 + upto(3), dilation[a] = 1 + upto(2), before[a] = upto(3), behind[a] = upto(3), stride[a] = 1 + upto(3);
        const int64_t reach = (block[a] - 1) * dilation[a] + 1;
        out[a] = 1 + upto(6) + fr_max(0, reach - before[a] - behind[a]);
        places[a] = (out[a] + before[a] + behind[a] - reach) / stride[a] + 1;
    }
    const int64_t taps = block[0] * block[1], cols = places[0] * places[1], pixels = out[0] * out[1];
    float *x = floats(n * c * taps * cols);
    double *want = alloc((size_t)(n * c * pixels) * 8);
    for (int64_t i = 0; i < n * c * pixels; i++)
        want[i] = 0;
    for (int64_t i = 0; i < n * c * taps * cols; i++) {
        const int64_t k = i / cols % taps, p = i % cols;
        const int64_t row = p / places[1] * stride[0] + k / block[1] * dilation[0] - before[0];
        const int64_t col = p % places[1] * stride[1] + k % block[1] * dilation[1] - before[1];
        if (row >= 0 && row < out[0] && col >= 0 && col < out[1])
            want[i / cols / taps * pixels + row * out[1] + col] += (double)x[i];
    }
    pb *b = pb_new();
    const int32_t in = pb_input(b, FR_F32, PB_LIST(n, c * taps, cols)), y = pb_output(b, FR_F32, PB_LIST(n, c, out[0], out[1]));
    pb_step(
        b, FRUGAL_OP_COL2IM, PB_LIST(in), PB_LIST(y),
        PB_LIST(block[0], dilation[0], before[0], behind[0], stride[0], block[1], dilation[1], before[1], behind[1], stride[1]));
    expect(b, x, NULL, want, n * c * pixels, 1e-5, "col2im", index);
    free(x), free(want);
}

/* With an argument, as under an emulator, fewer rounds. */
int main(int argc, char **argv) {
    (void)argv;
    for (int64_t i = 0; i < (argc > 1 ? 40 : 400); i++) {
        test_resize(i);
        test_grid_sample(i);
        test_roi_align(i);
        test_col2im(i);
    }
    test_resize_ties();
    test_resize_refused();
    return check_report();
}
