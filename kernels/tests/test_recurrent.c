/* test_recurrent.c - RECURRENT, DFT, STFT, WINDOW, MEL: every instruction set and thread count gives the same bytes, and these
 * agree with ONNX's equations and the definition of the Fourier transform in double. */
#include "check.h"

/* ---- recurrences ---- */

enum { RNN, GRU, LSTM };
enum { FORWARD, REVERSE, BOTH };

typedef struct net {
    int cell, direction;
    bool batch_first, after, coupled, packed, padded; /* packed weights; gates of x padded to 16 columns */
    int64_t t, b, h, d, g;
    double clip;
    int kind[6]; /* functions */
    float p[6], q[6];
    float *x, *r, *bias, *h0, *c0, *peep; /* x [t, b, d, g, h], r [d, g, h, h], bias [d, h], states [d, b, h], peep [d, 3, h] */
    int32_t *lens;                        /* NULL: all steps */
    double *y, *yh, *yc;                  /* y [t, d, b, h] */
} net;

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static double activation(const net *n, int64_t f, double x) {
    const double p = (double)n->p[f], q = (double)n->q[f];
    switch (n->kind[f]) {
    case FRUGAL_U_SIGMOID:
        return sigmoid(x);
    case FRUGAL_U_TANH:
        return tanh(x);
    case FRUGAL_U_RELU:
        return x > 0 ? x : 0;
    case FRUGAL_CELL_AFFINE:
        return p * x + q;
    case FRUGAL_CELL_THRESHOLDED_RELU:
        return x >= p ? x : 0;
    case FRUGAL_CELL_SCALED_TANH:
        return p * tanh(q * x);
    default: /* FRUGAL_CELL_SOFTSIGN */
        return x / (1 + fabs(x));
    }
}

/* What gate g of unit i gets: x + the product of the state (times scale, if given). */
static double gate(const net *n, int64_t d, const float *x, const double *state, const double *scale, int64_t g, int64_t i) {
    const float *r = n->r + ((d * n->g + g) * n->h + i) * n->h;
    double v = x ? (double)x[g * n->h + i] : 0;
    for (int64_t k = 0; k < n->h; k++)
        v += (double)r[k] * state[k] * (scale ? scale[k] : 1);
    return v;
}

static double clipped(const net *n, double v) { return fmax(-n->clip, fmin(n->clip, v)); }

static void rnn_step(const net *n, int64_t d, const float *x, const double *old, double *h) {
    for (int64_t i = 0; i < n->h; i++)
        h[i] = activation(n, 3 * d, clipped(n, gate(n, d, x, old, NULL, 0, i)));
}

static void gru_step(const net *n, int64_t d, const float *x, const double *old, double *h) {
    double r[64];
    for (int64_t i = 0; i < n->h; i++)
        r[i] = activation(n, 3 * d, clipped(n, gate(n, d, x, old, NULL, 1, i)));
    for (int64_t i = 0; i < n->h; i++) {
        const double z = activation(n, 3 * d, clipped(n, gate(n, d, x, old, NULL, 0, i))), bias = (double)n->bias[d * n->h + i];
        const double xv = (double)x[2 * n->h + i];
        const double v = n->after ? r[i] * (gate(n, d, NULL, old, NULL, 2, i) + bias) + xv : gate(n, d, x, old, r, 2, i) + bias;
        h[i] = (1 - z) * activation(n, 3 * d + 1, clipped(n, v)) + z * old[i];
    }
}

static void lstm_step(const net *n, int64_t d, const float *x, const double *old, double *h, double *c) {
    const float *p = n->peep ? n->peep + d * 3 * n->h : NULL;
    for (int64_t k = 0; k < n->h; k++) {
        const double pi = p ? (double)p[k] : 0, po = p ? (double)p[n->h + k] : 0, pf = p ? (double)p[2 * n->h + k] : 0;
        const double i = activation(n, 3 * d, clipped(n, gate(n, d, x, old, NULL, 0, k) + pi * c[k]));
        const double own = activation(n, 3 * d, clipped(n, gate(n, d, x, old, NULL, 2, k) + pf * c[k]));
        const double g = activation(n, 3 * d + 1, clipped(n, gate(n, d, x, old, NULL, 3, k)));
        c[k] = (n->coupled ? 1 - i : own) * c[k] + i * g;
        const double o = activation(n, 3 * d, clipped(n, gate(n, d, x, old, NULL, 1, k) + po * c[k]));
        h[k] = o * activation(n, 3 * d + 2, c[k]);
    }
}

static void compute(net *n) {
    for (int64_t i = 0; i < n->t * n->d * n->b * n->h; i++)
        n->y[i] = 0;
    for (int64_t d = 0; d < n->d; d++) {
        for (int64_t b = 0; b < n->b; b++) {
            double h[64], c[64], old[64];
            const int64_t at = (d * n->b + b) * n->h, steps = n->lens ? n->lens[b] : n->t;
            for (int64_t i = 0; i < n->h; i++)
                h[i] = n->h0 ? (double)n->h0[at + i] : 0, c[i] = n->c0 ? (double)n->c0[at + i] : 0;
            for (int64_t s = 0; s < steps; s++) {
                const int64_t place = n->direction == REVERSE || d == 1 ? steps - 1 - s : s;
                const float *x = n->x + ((place * n->b + b) * n->d + d) * n->g * n->h;
                memcpy(old, h, sizeof h);
                if (n->cell == RNN)
                    rnn_step(n, d, x, old, h);
                else if (n->cell == GRU)
                    gru_step(n, d, x, old, h);
                else
                    lstm_step(n, d, x, old, h, c);
                memcpy(n->y + ((place * n->d + d) * n->b + b) * n->h, h, (size_t)n->h * 8);
            }
            memcpy(n->yh + at, h, (size_t)n->h * 8);
            memcpy(n->yc + at, c, (size_t)n->h * 8);
        }
    }
}

/* The input as the step reads it: [t, b, ..] or [b, t, ..], gates h or hp columns apart. */
static float *given_input(const net *n) {
    const int64_t s = n->padded ? fr_round_up(n->h, 16) : n->h, row = n->d * n->g * s;
    float *to = alloc((size_t)(n->t * n->b * row) * 4);
    for (int64_t i = 0; i < n->t * n->b * row; i++)
        to[i] = 7; /* padding has no effect */
    for (int64_t t = 0; t < n->t; t++) {
        for (int64_t b = 0; b < n->b; b++) {
            for (int64_t g = 0; g < n->d * n->g; g++)
                memcpy(to + (n->batch_first ? b * n->t + t : t * n->b + b) * row + g * s,
                       n->x + ((t * n->b + b) * n->d * n->g + g) * n->h, (size_t)n->h * 4);
        }
    }
    return to;
}

static int32_t weights(pb *b, const net *n) {
    const int64_t hp = fr_round_up(n->h, 16), gates = n->d * n->g;
    if (!n->packed)
        return pb_const(b, FR_F32, 0, PB_LIST(n->d, n->g * n->h, n->h), n->r, (uint64_t)(gates * n->h * n->h * 4));
    float *panels = alloc((size_t)(gates * hp * n->h * 4));
    memset(panels, 0, (size_t)(gates * hp * n->h * 4));
    for (int64_t i = 0; i < gates * n->h; i++) {
        const int64_t row = i / n->h * hp + i % n->h;
        for (int64_t k = 0; k < n->h; k++)
            panels[(row / 16 * n->h + k) * 16 + row % 16] = n->r[i * n->h + k];
    }
    const int32_t made =
        pb_const(b, FR_F32, FRUGAL_F32_P16, PB_LIST(gates * hp, n->h), panels, (uint64_t)(gates * hp * n->h * 4));
    free(panels);
    return made;
}

/* States [d, b, h] in the order of the plan. */
static float *state(const net *n, const float *from) {
    float *to = alloc((size_t)(n->d * n->b * n->h) * 4);
    for (int64_t i = 0; i < n->d * n->b; i++)
        memcpy(to + (n->batch_first ? i % n->b * n->d + i / n->b : i) * n->h, from + i * n->h, (size_t)n->h * 4);
    return to;
}

static int32_t state_tensor(pb *b, const net *n, int kind) {
    return n->batch_first ? pb_tensor(b, kind, FR_F32, 0, PB_LIST(n->b, n->d, n->h))
                          : pb_tensor(b, kind, FR_F32, 0, PB_LIST(n->d, n->b, n->h));
}

static int32_t given_state(pb *b, const net *n, const float *from) {
    if (!from)
        return -1;
    float *values = state(n, from);
    const int32_t t = state_tensor(b, n, FRUGAL_TENSOR_CONST);
    b->n_tensors--; /* the same tensor with its data */
    const frugal_plan_tensor *like = &b->tensors[t];
    const int64_t dims[3] = {like->dims[0], like->dims[1], like->dims[2]};
    const int32_t made = pb_const(b, FR_F32, 0, 3, dims, values, (uint64_t)(n->d * n->b * n->h * 4));
    free(values);
    return made;
}

static int32_t given_bias(pb *b, const net *n) {
    const int64_t hp = fr_round_up(n->h, 16);
    float values[128] = {0};
    if (n->cell != GRU)
        return -1;
    for (int64_t i = 0; i < n->d * n->h; i++)
        values[i / n->h * hp + i % n->h] = n->bias[i];
    return pb_const(b, FR_F32, 0, PB_LIST(n->d * hp), values, (uint64_t)(n->d * hp * 4));
}

static pb *plan_of(const net *n) {
    pb *b = pb_new();
    const int64_t s = n->padded ? fr_round_up(n->h, 16) : n->h, t = n->batch_first ? n->b : n->t,
                  u = n->batch_first ? n->t : n->b;
    const int32_t x = pb_input(b, FR_F32, PB_LIST(t, u, n->d * n->g * s)), r = weights(b, n), bias = given_bias(b, n);
    const int32_t h = given_state(b, n, n->h0), c = given_state(b, n, n->c0);
    const int32_t peep = n->peep ? pb_const(b, FR_F32, 0, PB_LIST(n->d, 3 * n->h), n->peep, (uint64_t)(n->d * 3 * n->h * 4)) : -1;
    const int32_t lens = n->lens ? pb_const(b, FR_I32, 0, PB_LIST(n->b), n->lens, (uint64_t)(n->b * 4)) : -1;
    const int32_t yh = state_tensor(b, n, FRUGAL_TENSOR_OUTPUT);
    const int32_t y = n->batch_first ? pb_output(b, FR_F32, PB_LIST(n->b, n->t, n->d, n->h))
                                     : pb_output(b, FR_F32, PB_LIST(n->t, n->d, n->b, n->h));
    const int32_t yc = n->cell == LSTM ? state_tensor(b, n, FRUGAL_TENSOR_OUTPUT) : pb_output(b, FR_F32, PB_LIST(0));
    int64_t attrs[24] = {n->cell, n->direction, n->batch_first, n->after, n->coupled, pb_float(n->clip)};
    for (int f = 0; f < 6; f++)
        attrs[6 + 3 * f] = n->kind[f], attrs[7 + 3 * f] = pb_float((double)n->p[f]), attrs[8 + 3 * f] = pb_float((double)n->q[f]);
    pb_step(b, FRUGAL_OP_RECURRENT, PB_LIST(x, r, bias, h, c, peep, lens), PB_LIST(yh, y, yc), 24, attrs);
    return b;
}

static void same_numbers(const float *got, const double *want, int64_t n, double tolerance, const char *what, int64_t index) {
    int64_t wrong = -1;
    for (int64_t i = 0; i < n && wrong < 0; i++)
        wrong = close_to((double)got[i], want[i], tolerance) ? -1 : i;
    check(wrong < 0, what, "element", wrong, index);
}

/* Compares outputs in the order of the plan with those in ONNX's. 5e-5: each of five steps feeds the rounding of 36 products on.
 */
static void compare(const net *n, const io *x, int64_t index) {
    const int64_t states = n->d * n->b, rows = n->t * states;
    double *turned = alloc((size_t)((rows + states) * n->h) * 8);
    for (int64_t i = 0; i < rows; i++) { /* [t, d, b] or [b, t, d] */
        const int64_t t = i / states, d = i / n->b % n->d, b = i % n->b;
        memcpy(turned + (n->batch_first ? (b * n->t + t) * n->d + d : i) * n->h, n->y + i * n->h, (size_t)n->h * 8);
    }
    same_numbers(x->out[1], turned, rows * n->h, 5e-5, "y of a recurrence", index);
    for (int k = 0; k < 3; k += 2) {
        for (int64_t i = 0; i < states; i++)
            memcpy(turned + (n->batch_first ? i % n->b * n->d + i / n->b : i) * n->h, (k ? n->yc : n->yh) + i * n->h,
                   (size_t)n->h * 8);
        if (k == 0 || n->cell == LSTM)
            same_numbers(x->out[k], turned, states * n->h, 5e-5, "state of a recurrence", index);
    }
    free(turned);
}

static void choose_functions(net *n) {
    static const int plain[3][3] = {{FRUGAL_U_TANH, FRUGAL_U_TANH, FRUGAL_U_TANH},
                                    {FRUGAL_U_SIGMOID, FRUGAL_U_TANH, FRUGAL_U_TANH},
                                    {FRUGAL_U_SIGMOID, FRUGAL_U_TANH, FRUGAL_U_TANH}};
    const bool usual = rnd() & 1;
    for (int f = 0; f < 6; f++) {
        n->kind[f] = usual ? plain[n->cell][f % 3]
                           : (int)ONE_OF(FRUGAL_U_SIGMOID, FRUGAL_U_TANH, FRUGAL_U_RELU, FRUGAL_CELL_AFFINE,
                                         FRUGAL_CELL_THRESHOLDED_RELU, FRUGAL_CELL_SCALED_TANH, FRUGAL_CELL_SOFTSIGN);
        n->p[f] = n->kind[f] == FRUGAL_CELL_THRESHOLDED_RELU ? -3.0f : 0.75f; /* no jump where values are */
        n->q[f] = 0.25f;
    }
}

static void test_recurrent(int64_t index) {
    net n = {
        .cell = (int)(index % 3), .direction = (int)upto(3), .batch_first = rnd() & 1, .after = rnd() & 1, .packed = rnd() & 1};
    n.t = upto(6), n.b = 1 + upto(20), n.h = 1 + upto(36), n.d = n.direction == BOTH ? 2 : 1;
    n.g = n.cell == LSTM ? 4 : n.cell == GRU ? 3 : 1, n.padded = rnd() & 1, n.coupled = n.cell == LSTM && upto(4) == 0;
    n.clip = rnd() & 1 ? (double)INFINITY : 0.5;
    choose_functions(&n);
    const int64_t states = n.d * n.b * n.h;
    n.x = floats(n.t * n.b * n.d * n.g * n.h), n.r = floats(n.d * n.g * n.h * n.h), n.bias = floats(n.d * n.h);
    for (int64_t i = 0; i < n.d * n.g * n.h * n.h; i++)
        n.r[i] *= 0.2f;
    n.h0 = rnd() & 1 ? floats(states) : NULL, n.c0 = n.cell == LSTM && rnd() & 1 ? floats(states) : NULL;
    n.peep = n.cell == LSTM && rnd() & 1 ? floats(n.d * 3 * n.h) : NULL;
    n.lens = rnd() & 1 ? alloc((size_t)n.b * 4) : NULL;
    for (int64_t i = 0; n.lens && i < n.b; i++)
        n.lens[i] = (int32_t)upto(n.t + 1);
    n.y = alloc((size_t)(n.t * states) * 8), n.yh = alloc((size_t)states * 8), n.yc = alloc((size_t)states * 8);
    compute(&n);
    float *x = given_input(&n);
    io run = {.fixed = true, .in = {x}};
    const int64_t sizes[3] = {states, n.t * states, n.cell == LSTM ? states : 0};
    for (int k = 0; k < 3; k++)
        run.out_bytes[k] = (size_t)sizes[k] * 4, run.out[k] = alloc(run.out_bytes[k]);
    CHECK(run_plan(plan_of(&n), &run) == FRUGAL_OK);
    compare(&n, &run, index);
    for (int k = 0; k < 3; k++)
        free(run.out[k]);
    free(x), free(n.x), free(n.r), free(n.bias), free(n.h0), free(n.c0), free(n.peep), free(n.lens);
    free(n.y), free(n.yh), free(n.yc);
}

static void test_refused(void) {
    net n = {.t = 2, .b = 2, .h = 3, .d = 1, .g = 1, .clip = (double)INFINITY, .kind = {FRUGAL_U_TANH}};
    int32_t lens[2] = {1, 3};
    float x[12] = {0}, y[12], yh[6], r[9] = {0};
    n.x = x, n.r = r;
    for (int k = 0; k < 5; k++) {
        n.lens = k == 0 ? lens : NULL;
        pb *b = plan_of(&n);
        int64_t *attrs = b->attrs + b->steps[0].attrs;
        if (k == 1)
            attrs[5] = pb_float(0); /* a clip of nothing */
        if (k == 2)
            attrs[6] = FRUGAL_U_NOT; /* of bool */
        if (k == 3)
            attrs[0] = LSTM; /* of four gates */
        if (k == 4)
            b->tensors[0].dims[1] = 3; /* another batch than the state */
        io run = {.fixed = true, .in = {x}, .out = {yh, y, x}, .out_bytes = {sizeof yh, sizeof y, 0}};
        static const frugal_status want[5] = {FRUGAL_BAD_INPUT, FRUGAL_BAD_PLAN, FRUGAL_UNSUPPORTED, FRUGAL_BAD_SHAPE,
                                              FRUGAL_BAD_SHAPE};
        check(run_plan(b, &run) == want[k], "refused", "recurrence", k, 0);
    }
}

/* ---- Fourier transforms ---- */

static const double PI = 3.14159265358979323846;

/* The table of cos and sin that a plan gives. */
static double *circle(int64_t n) {
    double *table = alloc((size_t)n * 16);
    for (int64_t i = 0; i < n; i++)
        table[2 * i] = cos(2 * PI * (double)i / (double)n), table[2 * i + 1] = sin(2 * PI * (double)i / (double)n);
    return table;
}

/* The transform of n complex numbers by its definition. */
static void transform(const double *x, double *y, int64_t n, bool inverse) {
    for (int64_t k = 0; k < n; k++) {
        y[2 * k] = y[2 * k + 1] = 0;
        for (int64_t i = 0; i < n; i++) {
            const double angle = (inverse ? 2 : -2) * PI * (double)(i * k % n) / (double)n, c = cos(angle), s = sin(angle);
            y[2 * k] += (x[2 * i] * c - x[2 * i + 1] * s) / (inverse ? (double)n : 1);
            y[2 * k + 1] += (x[2 * i] * s + x[2 * i + 1] * c) / (inverse ? (double)n : 1);
        }
    }
}

/* float or double [count] with the same values. */
static void *numbers(int dtype, const double *from, int64_t count) {
    uint8_t *to = alloc((size_t)count * (dtype == FR_F64 ? 8 : 4));
    for (int64_t i = 0; i < count; i++) {
        const float f = (float)from[i];
        memcpy(to + i * (dtype == FR_F64 ? 8 : 4), dtype == FR_F64 ? (const void *)&from[i] : (const void *)&f,
               dtype == FR_F64 ? 8 : 4);
    }
    return to;
}
static double number_at(int dtype, const void *x, int64_t i) {
    return dtype == FR_F64 ? ((const double *)x)[i] : (double)((const float *)x)[i];
}
static double tolerance(int dtype, int64_t n) { return (dtype == FR_F64 ? 1e-12 : 1e-6) * (double)(8 + n); }

/* Values that float32 holds exactly, so that both types transform the same. */
static double *doubles(int64_t n) {
    double *x = alloc((size_t)n * 8);
    for (int64_t i = 0; i < n; i++)
        x[i] = (double)uniform();
    return x;
}

/* x [rows, given, inner, parts] along axis 1. */
static void test_dft(int64_t index) {
    static const int64_t lengths[] = {1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 25, 30, 49, 61, 64, 67, 97, 100, 128, 134, 360};
    const int64_t n = lengths[index % 21], rows = 1 + upto(3), inner = 1 + upto(3);
    const int dtype = rnd() & 1 ? FR_F64 : FR_F32;
    const bool inverse = rnd() & 1, onesided = upto(3) == 0, mirrored = inverse && onesided;
    const int64_t parts = mirrored ? 2 : onesided ? 1 : 1 + upto(2), have = mirrored ? n / 2 + 1 : 1 + upto(n + 3);
    const int64_t out = onesided && !inverse ? n / 2 + 1 : n, out_parts = mirrored ? 1 : 2;
    double *x = doubles(rows * have * inner * parts), *table = circle(n), *line = alloc((size_t)n * 16),
           *want = alloc((size_t)n * 16);
    for (int64_t i = 0; mirrored && i < rows * inner; i++) { /* what is its own mirror image is real */
        x[(i / inner * have * inner + i % inner) * 2 + 1] = 0;
        if (n % 2 == 0)
            x[((i / inner * have + have - 1) * inner + i % inner) * 2 + 1] = 0;
    }
    void *given = numbers(dtype, x, rows * have * inner * parts);
    pb *b = pb_new();
    const int32_t in = pb_input(b, dtype, PB_LIST(rows, have, inner, parts)),
                  t = pb_const(b, FR_F64, 0, PB_LIST(n, 2), table, (uint64_t)n * 16),
                  y = pb_output(b, dtype, PB_LIST(rows, out, inner, out_parts));
    pb_step(b, FRUGAL_OP_DFT, PB_LIST(in, t), PB_LIST(y), PB_LIST(1, n, inverse, onesided));
    io run = {.fixed = true, .in = {given}, .out_bytes = {(size_t)(rows * out * inner * out_parts) * (dtype == FR_F64 ? 8 : 4)}};
    run.out[0] = alloc(run.out_bytes[0]);
    CHECK(run_plan(b, &run) == FRUGAL_OK);
    for (int64_t i = 0; i < rows * inner; i++) {
        for (int64_t k = 0; k < n; k++) {
            const int64_t from = mirrored && k >= have ? n - k : k, at = ((i / inner * have + from) * inner + i % inner) * parts;
            const bool there = from < have;
            line[2 * k] = there ? x[at] : 0;
            line[2 * k + 1] = there && parts == 2 ? (from == k ? x[at + 1] : -x[at + 1]) : 0;
        }
        transform(line, want, n, inverse);
        int64_t wrong = -1;
        for (int64_t k = 0; k < out * out_parts; k++) {
            const int64_t at = ((i / inner * out + k / out_parts) * inner + i % inner) * out_parts + k % out_parts;
            const double v = want[k / out_parts * 2 + k % out_parts];
            wrong = close_to(number_at(dtype, run.out[0], at), v, tolerance(dtype, n)) ? wrong : k;
        }
        check(wrong < 0, "dft", inverse ? "inverse" : "forward", n, wrong);
    }
    free(run.out[0]), free(given), free(x), free(table), free(line), free(want);
}

static void test_stft(int64_t index) {
    const int64_t length = ONE_OF(1, 4, 5, 16, 30), step = 1 + upto(9), frames = 1 + upto(5), batch = 1 + upto(2);
    const int64_t n = (frames - 1) * step + length + upto(step), parts = 1 + upto(2);
    const int dtype = index % 2 ? FR_F64 : FR_F32;
    const bool onesided = parts == 1 && rnd() & 1, windowed = rnd() & 1;
    const int64_t out = onesided ? length / 2 + 1 : length;
    double *x = doubles(batch * n * parts), *window = doubles(length), *table = circle(length);
    double line[64], want[64];
    void *given = numbers(dtype, x, batch * n * parts), *w = numbers(dtype, window, length);
    pb *b = pb_new();
    const int32_t in = pb_input(b, dtype, PB_LIST(batch, n, parts)),
                  cw = windowed ? pb_const(b, dtype, 0, PB_LIST(length), w, (uint64_t)length * (dtype == FR_F64 ? 8 : 4)) : -1,
                  t = pb_const(b, FR_F64, 0, PB_LIST(length, 2), table, (uint64_t)length * 16),
                  y = pb_output(b, dtype, PB_LIST(batch, frames, out, 2));
    pb_step(b, FRUGAL_OP_STFT, PB_LIST(in, cw, t), PB_LIST(y), PB_LIST(step, length, onesided));
    io run = {.fixed = true, .in = {given}, .out_bytes = {(size_t)(batch * frames * out * 2) * (dtype == FR_F64 ? 8 : 4)}};
    run.out[0] = alloc(run.out_bytes[0]);
    CHECK(run_plan(b, &run) == FRUGAL_OK);
    for (int64_t i = 0; i < batch * frames; i++) {
        for (int64_t k = 0; k < length; k++) {
            const int64_t at = (i / frames * n + i % frames * step + k) * parts;
            line[2 * k] = x[at] * (windowed ? window[k] : 1);
            line[2 * k + 1] = parts == 2 ? x[at + 1] * (windowed ? window[k] : 1) : 0;
        }
        transform(line, want, length, false);
        bool good = true;
        for (int64_t k = 0; k < 2 * out; k++)
            good = good && close_to(number_at(dtype, run.out[0], i * out * 2 + k), want[k], tolerance(dtype, length));
        check(good, "stft", "frame", length, i);
    }
    free(run.out[0]), free(given), free(w), free(x), free(window), free(table);
}

static void test_window(void) {
    for (int64_t k = 0; k < 24; k++) {
        const int dtype = k & 1 ? FR_F64 : FR_F32;
        const int64_t n = k / 4, periodic = k >> 1 & 1, m = periodic ? n : n - 1;
        double got[8];
        pb *b = pb_new();
        const int32_t y = pb_output(b, dtype, PB_LIST(n));
        pb_step(b, FRUGAL_OP_WINDOW, PB_NONE, PB_LIST(y), PB_LIST(periodic, pb_float(0.42), pb_float(-0.5), pb_float(0.08)));
        io run = {.fixed = true, .out = {got}, .out_bytes = {(size_t)n * (dtype == FR_F64 ? 8 : 4)}};
        CHECK(run_plan(b, &run) == FRUGAL_OK);
        for (int64_t i = 0; i < n && m > 0; i++) {
            const double a = 2 * PI * (double)i / (double)m;
            CHECK(close_to(number_at(dtype, got, i), 0.42 - 0.5 * cos(a) + 0.08 * cos(2 * a), 1e-6));
        }
    }
}

static double mel(double hertz) { return 2595 * log10(1 + hertz / 700); }

/* ONNX's text: triangles between neighbouring edges, which are bins. */
static void test_mel(void) {
    const int32_t bands = 5, length = 64, rate = 16000;
    const float low = 100, high = 7000;
    float got[33 * 5];
    int64_t edge[7];
    pb *b = pb_new();
    const int32_t in[5] = {pb_const(b, FR_I32, 0, PB_NONE, &bands, 4), pb_const(b, FR_I32, 0, PB_NONE, &length, 4),
                           pb_const(b, FR_I32, 0, PB_NONE, &rate, 4), pb_const(b, FR_F32, 0, PB_NONE, &low, 4),
                           pb_const(b, FR_F32, 0, PB_NONE, &high, 4)};
    const int32_t y = pb_output(b, FR_F32, PB_LIST(33, 5));
    pb_step(b, FRUGAL_OP_MEL, PB_LIST(in[0], in[1], in[2], in[3], in[4]), PB_LIST(y), PB_NONE);
    io run = {.fixed = true, .out = {got}, .out_bytes = {sizeof got}};
    CHECK(run_plan(b, &run) == FRUGAL_OK);
    for (int i = 0; i < 7; i++) {
        const double at = mel(low) + (mel(high) - mel(low)) * i / 7; /* as ONNX has it: one edge more than there are */
        edge[i] = (int64_t)floor(65 * 700 * (pow(10, at / 2595) - 1) / rate);
    }
    for (int64_t i = 0; i < 33; i++) {
        for (int64_t k = 0; k < 5; k++) {
            const int64_t from = edge[k], top = edge[k + 1], to = edge[k + 2];
            const double up = (double)(i - from) / fmax(1, (double)(top - from)),
                         down = (double)(to - i) / fmax(1, (double)(to - top));
            const double want = i == top ? 1 : i < from || i >= to ? 0 : i < top ? up : down;
            CHECK(close_to((double)got[i * 5 + k], want, 1e-6));
        }
    }
}

/* With an argument, as under an emulator, fewer rounds. */
int main(int argc, char **argv) {
    (void)argv;
    for (int64_t i = 0; i < (argc > 1 ? 60 : 600); i++)
        test_recurrent(i);
    test_refused();
    for (int64_t i = 0; i < (argc > 1 ? 42 : 210); i++)
        test_dft(i), test_stft(i);
    test_window();
    test_mel();
    return check_report();
}
