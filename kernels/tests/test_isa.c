/* test_isa.c - every instruction set of this CPU gives the bytes of scalar.c, and scalar.c agrees with plain double arithmetic.
 *
 * Bytes are compared exactly, except that any NaN equals any NaN.  Prints one line per instruction set and "N passed, M failed".
 */
#include "../src/fmath.h"
#include "../src/isa.h"
#include "count.h"

static float *floats(int64_t n, float range) {
    float *p = alloc((size_t)n * 4);
    for (int64_t i = 0; i < n; i++) {
        p[i] = uniform() * range;
    }
    return p;
}
static int same(const float *a, const float *b, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (fr_bits(a[i]) != fr_bits(b[i]) && (a[i] == a[i] || b[i] == b[i])) {
            if (failed < 5) {
                printf("  element %lld: scalar %a, here %a\n", (long long)i, (double)a[i], (double)b[i]);
            }
            return 0;
        }
    }
    return 1;
}
static int64_t up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

/* ---- matrix products ---- */

enum { F32, W8, W4, W4O, W8B };
static const char *const PRODUCT[] = {"gemm_f32", "gemm_w8", "gemm_w4", "gemm_w4o", "gemm_w8b"};
typedef struct problem {
    int kind, blocked, in_place;
    int64_t m, n, k, kp, nb, np, ldy;
    float *a, *b, *wscale, *bias, *residual, *y0; /* y0: what the result buffer holds before */
    int8_t *q, *w8;
    uint8_t *w4, *w4o, *w8b;
    float *scale, alpha;
    int32_t *sum;
    int act;
} problem;

enum { LEAST = 5, MOST = 6, WEIGHT_STYLES = 7 }; /* the extremes: of int4 codes with the farthest zero point */
static int8_t code8(int style) {
    return (int8_t)(style == 0 || style == MOST ? 127
                    : style == LEAST            ? -127
                    : style == 1                ? (rnd() & 1 ? 127 : -127)
                                                : upto(255) - 127);
}
static uint8_t zero4(int style) {
    return (uint8_t)(style == LEAST ? 15 : style == MOST ? 0 : style == 1 ? (rnd() & 1) * 15 : (uint32_t)upto(16));
}
static uint16_t half_scale(int style) {
    static const uint16_t odd[8] = {0x0000, 0x0001, 0x03ff, 0x0400, 0x7bff, 0xfbff, 0x8001, 0x83ff};
    return (uint16_t)(style == 3 ? odd[upto(8)] : 0x1400 + upto(0x1000));
}

/* The same codes with offsets, and int8 codes in blocks. */
static void make_blocks(problem *p, int style) {
    const int64_t blocks = p->np / 16 * p->nb;
    p->w4o = alloc((size_t)(blocks * FR_W4O_BLOCK));
    p->w8b = alloc((size_t)(blocks * FR_W8B_BLOCK));
    for (int64_t i = 0; i < blocks; i++) {
        uint8_t *block = p->w4o + i * FR_W4O_BLOCK;
        memcpy(block, p->w4 + i * FR_W4_BLOCK, 288);
        for (int j = 0; j < 16; j++) {
            uint16_t h = (uint16_t)(half_scale(style) ^ (upto(2) << 15));
            memcpy(block + 288 + 2 * j, &h, 2);
            h = half_scale(style);
            memcpy(p->w8b + i * FR_W8B_BLOCK + 512 + 2 * j, &h, 2);
        }
        memcpy(p->w8b + i * FR_W8B_BLOCK, p->w8 + i * 512, 512);
    }
}

static void make_weights(problem *p) {
    const int style = (int)upto(WEIGHT_STYLES);
    p->wscale = floats(p->np, 0.01f);
    p->w8 = alloc((size_t)(p->np * p->kp));
    for (int64_t i = 0; i < p->np * p->kp; i++) {
        p->w8[i] = code8(style);
    }
    p->w4 = alloc((size_t)(p->np / 16 * p->nb * FR_W4_BLOCK));
    for (int64_t i = 0; i < p->np / 16 * p->nb; i++) {
        uint8_t *block = p->w4 + i * FR_W4_BLOCK;
        for (int j = 0; j < 256; j++) {
            block[j] = (uint8_t)(style == 0 || style == MOST ? 255 : style == LEAST ? 0 : upto(256));
        }
        for (int j = 0; j < 16; j++) {
            uint16_t h = half_scale(style);
            memcpy(block + 256 + 2 * j, &h, 2);
            block[288 + j] = zero4(style);
        }
    }
    make_blocks(p, style);
    p->b = floats(p->np * p->k, 1.0f);
}

static void make_tokens(problem *p) {
    const int style = (int)upto(LEAST + 1);
    p->q = alloc((size_t)(p->m * p->kp));
    p->sum = alloc((size_t)(p->m * p->nb) * 4);
    p->scale = floats(p->m * (p->blocked ? p->nb : 1), 0.02f);
    for (int64_t i = 0; i < p->m; i++) {
        for (int64_t b = 0; b < p->nb; b++) {
            int32_t s = 0;
            for (int64_t k = b * 32; k < b * 32 + 32; k++) {
                int8_t v = k >= p->k || (style == 2 && i % 3 == 0) ? 0 : code8(style);
                p->q[i * p->kp + k] = v;
                s += v;
            }
            p->sum[i * p->nb + b] = s;
        }
    }
    if (style == 4) {
        p->scale[0] = NAN; /* a token that held NaN or inf */
    }
    p->a = floats(p->m * p->k, style == 3 ? 1e30f : 1.0f);
}

static problem make_problem(int kind, int64_t m, int64_t n, int64_t k) {
    static const int acts[8] = {FRUGAL_U_COPY, FRUGAL_U_GELU, FRUGAL_U_RELU,      FRUGAL_U_SILU,
                                FRUGAL_U_TANH, FRUGAL_U_COPY, FRUGAL_U_GELU_TANH, FRUGAL_U_SIGMOID};
    problem p = {.kind = kind, .m = m, .n = n, .k = k, .kp = up(k, 32), .nb = up(k, 32) / 32, .np = up(n, 16)};
    p.blocked = (int)upto(2);
    p.ldy = n + upto(3) * 5;
    p.act = acts[upto(8)];
    p.alpha = rnd() & 1 ? 1.0f : 0.125f;
    make_weights(&p);
    make_tokens(&p);
    p.bias = rnd() & 1 ? floats(p.np, 1.0f) : NULL;
    p.residual = rnd() & 1 ? floats(m * p.ldy, 2.0f) : NULL;
    p.in_place = (int)upto(2);
    p.y0 = floats(m * p.ldy, 1.0f);
    return p;
}
static void free_problem(problem *p) {
    void *all[] = {p->a, p->b, p->wscale, p->bias, p->residual, p->y0, p->q, p->w8, p->w4, p->w4o, p->w8b, p->scale, p->sum};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]);
    }
}

/* Runs tokens [m0, m1) and panels [p0, p1). */
static void run_part(const frugal_isa *isa, const problem *p, float *y, const fr_epilogue *e, int64_t m0, int64_t m1, int64_t p0,
                     int64_t p1) {
    const fr_act8 a = {p->q, p->scale, p->sum, p->m, p->kp, p->blocked};
    void *scratch = alloc(isa->scratch_bytes(m1 - m0, p->k));
    if (p->kind == W8) {
        isa->gemm_w8(y, p->ldy, &a, m0, m1, p->w8, p->wscale, p0, p1, p->n, e, scratch);
    } else if (p->kind == W4) {
        isa->gemm_w4(y, p->ldy, &a, m0, m1, p->w4, p0, p1, p->n, e, scratch);
    } else if (p->kind == W4O) {
        isa->gemm_w4o(y, p->ldy, &a, m0, m1, p->w4o, p0, p1, p->n, e, scratch);
    } else if (p->kind == W8B) {
        isa->gemm_w8b(y, p->ldy, &a, m0, m1, p->w8b, p0, p1, p->n, e, scratch);
    } else {
        int64_t n = (p1 * 16 < p->n ? p1 * 16 : p->n) - p0 * 16;
        fr_epilogue part = *e;
        part.bias = e->bias ? e->bias + p0 * 16 : NULL;
        part.residual = e->residual ? e->residual + m0 * e->ld + p0 * 16 : NULL;
        int packed = p->m % 2 == 0; /* or row-major [k][np] */
        isa->gemm_f32(y + m0 * p->ldy + p0 * 16, p->ldy, p->a + m0 * p->k, p->k, p->b + p0 * 16 * (packed ? p->k : 1),
                      packed ? 16 : p->np, packed ? 16 * p->k : 16, m1 - m0, n, p->k, p->alpha, &part);
    }
    free(scratch);
}
static float *run(const frugal_isa *isa, const problem *p, int64_t ms, int64_t ps) {
    float *y = alloc((size_t)(p->m * p->ldy) * 4);
    memcpy(y, p->y0, (size_t)(p->m * p->ldy) * 4);
    fr_epilogue e = {.bias = p->bias, .residual = p->in_place ? y : p->residual, .ld = p->ldy, .act = p->act};
    const int64_t end = p->np / 16;
    run_part(isa, p, y, &e, 0, ms, 0, ps);
    run_part(isa, p, y, &e, 0, ms, ps, end);
    run_part(isa, p, y, &e, ms, p->m, 0, ps);
    run_part(isa, p, y, &e, ms, p->m, ps, end);
    return y;
}

static double half_in(const uint8_t *at, int64_t r) {
    uint16_t h;
    memcpy(&h, at + 2 * (r % 16), 2);
    return (double)fr_half_to_float(h);
}
/* The same result in double from the layouts' definitions, checked loosely: it catches a wrong formula, not a wrong bit. */
static double naive(const problem *p, int64_t i, int64_t r) {
    double v = 0;
    for (int64_t k = 0; k < p->k; k++) {
        double s = p->kind == F32 ? 1 : (double)p->scale[p->blocked || p->kind == F32 ? i * p->nb + k / 32 : i], w,
               x = p->q[i * p->kp + k];
        if (p->kind == F32) {
            x = (double)p->a[i * p->k + k];
            w = (double)(p->m % 2 == 0 ? p->b[r / 16 * 16 * p->k + k * 16 + r % 16] : p->b[k * p->np + r]) * (double)p->alpha;
        } else if (p->kind == W8) {
            w = (double)p->w8[r / 16 * 16 * p->kp + k / 4 * 64 + r % 16 * 4 + k % 4] * (double)p->wscale[r];
        } else if (p->kind == W8B) {
            const uint8_t *block = p->w8b + (r / 16 * p->nb + k / 32) * FR_W8B_BLOCK;
            w = half_in(block + 512, r) * (int8_t)block[k % 32 / 4 * 64 + r % 16 * 4 + k % 4];
        } else {
            const uint8_t *block = p->w4 + (r / 16 * p->nb + k / 32) * FR_W4_BLOCK;
            int byte = block[k % 16 / 4 * 64 + r % 16 * 4 + k % 4], code = k % 32 < 16 ? byte & 15 : byte >> 4;
            w = half_in(block + 256, r) * (code - (p->kind == W4 ? block[288 + r % 16] : 0));
            w += p->kind == W4O ? half_in(p->w4o + (r / 16 * p->nb + k / 32) * FR_W4O_BLOCK + 288, r) : 0;
        }
        v += w * x * s;
    }
    v += p->bias ? (double)p->bias[r] : 0;
    v = (double)fr_unary(p->act, (float)v, 0, 0);
    return v + (p->in_place ? (double)p->y0[i * p->ldy + r] : p->residual ? (double)p->residual[i * p->ldy + r] : 0);
}
/* Not fmax: gcc 12 for aarch64 breaks off at a loop of it. */
static double larger(double a, double b) { return a > b ? a : b; }
static void check_naive(const problem *p, const float *y) {
    for (int t = 0; t < 3; t++) {
        int64_t i = upto(p->m), r = upto(p->n);
        double want = naive(p, i, r), got = (double)y[i * p->ldy + r], size = 1;
        for (int64_t k = 0; p->kind == F32 && k < p->k; k++) { /* cancellation: errors are relative to the largest term */
            size = larger(size, fabs((double)p->a[i * p->k + k]));
        }
        size = larger(size, fabs(want));
        for (int64_t b = 0; p->kind >= W4 && b < p->nb; b++) {
            const int64_t at = r / 16 * p->nb + b;
            size = larger(size, fabs(half_in(p->w4 + at * FR_W4_BLOCK + 256, r)) * 15 * 4096);
            size = larger(size, p->kind == W4O ? fabs(half_in(p->w4o + at * FR_W4O_BLOCK + 288, r)) * 4096 : 0);
            size = larger(size, p->kind == W8B ? fabs(half_in(p->w8b + at * FR_W8B_BLOCK + 512, r)) * 127 * 4096 : 0);
        }
        check(want != want || fabs(got - want) <= 3e-5 * size * sqrt((double)p->k), "naive product", "scalar", p->kind, i, r);
    }
}

static void test_product(int kind, int64_t m, int64_t n, int64_t k) {
    problem p = make_problem(kind, m, n, k);
    float *want = run(fr_isa_scalar, &p, m, p.np / 16);
    check_naive(&p, want);
    for (uint32_t i = 0; frugal_isa_list(i); i++) {
        const frugal_isa *isa = frugal_isa_find(frugal_isa_list(i));
        for (int whole = 0; whole < 2; whole++) {
            float *y = run(isa, &p, whole ? m : upto(m + 1), whole ? p.np / 16 : upto(p.np / 16 + 1));
            check(same(want, y, m * p.ldy), PRODUCT[kind], isa->name, m, n, k);
            free(y);
        }
    }
    free(want);
    free_problem(&p);
}

static void test_products(void) {
    for (int kind = F32; kind <= W8B; kind++) {
        for (int64_t m = 1; m <= 26; m++) {
            for (int t = 0; t < 6; t++) {
                test_product(kind, m, 1 + upto(t == 0 ? 200 : 90), 1 + upto(t < 2 ? 40 : 200));
            }
        }
        test_product(kind, 37, 33, 384);
        test_product(kind, 97, 70, 65);
        test_product(kind, 131, 17, 32);
        test_product(kind, 1, 400, 96);
        test_product(kind, 2, 400, 64);
        test_product(kind, 1, 16, FR_MAX_K);
        test_product(kind, 7, 5, FR_MAX_K);
    }
}

/* ---- convolutions ---- */

typedef struct windowed {
    int64_t m, n, ldx, ldy, spans, rows, np; /* rows of the weights */
    fr_span span[12];
    float *x, *w, *bias, *residual;
    fr_epilogue e;
} windowed;

static windowed make_windowed(int64_t m, int64_t n, int depthwise) {
    static const int acts[6] = {FRUGAL_U_COPY,       FRUGAL_U_RELU,         FRUGAL_U_CLIP,
                                FRUGAL_U_HARD_SWISH, FRUGAL_U_HARD_SIGMOID, FRUGAL_U_SILU};
    windowed v = {.m = m, .n = n, .spans = upto(12), .np = up(n, 16)};
    int64_t reach = 0;
    v.ldy = n + upto(2) * 3;
    for (int64_t i = 0; i < v.spans; i++) {
        v.span[i] = (fr_span){upto(50), v.rows, depthwise ? n : 1 + upto(23)};
        v.rows += depthwise ? v.np : v.span[i].n + upto(2);
        reach = v.span[i].a + v.span[i].n > reach ? v.span[i].a + v.span[i].n : reach;
    }
    v.ldx = 1 + upto(40);
    v.x = floats((m - 1) * v.ldx + reach + (reach == 0), 1.0f);
    v.w = floats(depthwise ? v.rows : v.rows * v.np, 1.0f);
    v.bias = floats(v.np, 1.0f);
    v.residual = floats(m * v.ldy, 1.0f);
    v.e = (fr_epilogue){.bias = rnd() & 1 ? v.bias : NULL,
                        .residual = rnd() & 1 ? v.residual : NULL,
                        .ld = v.ldy,
                        .act = acts[upto(6)],
                        .affine = (int)upto(2),
                        .p = -0.25f,
                        .q = 0.5f,
                        .scale = 1.25f,
                        .shift = -0.125f};
    return v;
}

static float *run_windowed(const frugal_isa *isa, const windowed *v, int depthwise) {
    float *y = alloc((size_t)(v->m * v->ldy) * 4);
    if (depthwise) {
        isa->conv_depthwise(y, v->ldy, v->x, v->ldx, v->span, v->spans, v->w, v->m, v->n, &v->e);
    } else {
        isa->conv_f32(y, v->ldy, v->x, v->ldx, v->span, v->spans, v->w, 16 * v->rows, v->m, v->n, &v->e);
    }
    return y;
}

/* One element in double before the epilogue, which the products have tested. */
static void check_windowed(windowed *v, int depthwise) {
    const int64_t i = upto(v->m), j = upto(v->n);
    double sum = 0, size = 1;
    v->e = (fr_epilogue){0};
    float *y = run_windowed(fr_isa_scalar, v, depthwise);
    for (int64_t s = 0; s < v->spans; s++) {
        for (int64_t k = 0; k < (depthwise ? 1 : v->span[s].n); k++) {
            const double a = (double)v->x[i * v->ldx + v->span[s].a + (depthwise ? j : k)];
            sum += a * (double)(depthwise ? v->w[v->span[s].k + j] : v->w[(j / 16 * v->rows + v->span[s].k + k) * 16 + j % 16]);
            size += fabs(a);
        }
    }
    check(fabs((double)y[i * v->ldy + j] - sum) <= 1e-6 * size, "naive convolution", "scalar", i, j, depthwise);
    free(y);
}

static void test_windowed(int64_t m, int64_t n, int depthwise) {
    windowed v = make_windowed(m, n, depthwise);
    float *want = run_windowed(fr_isa_scalar, &v, depthwise);
    for (uint32_t i = 0; frugal_isa_list(i); i++) {
        const frugal_isa *isa = frugal_isa_find(frugal_isa_list(i));
        float *y = run_windowed(isa, &v, depthwise);
        check(same(want, y, m * v.ldy), depthwise ? "conv_depthwise" : "conv_f32", isa->name, m, n, v.spans);
        free(y);
    }
    check_windowed(&v, depthwise);
    free(want);
    free(v.x), free(v.w), free(v.bias), free(v.residual);
}

static void test_convolutions(void) {
    for (int depthwise = 0; depthwise < 2; depthwise++) {
        for (int64_t m = 1; m <= 30; m++) {
            for (int64_t n = 1; n <= 34; n++) {
                test_windowed(m, n, depthwise);
            }
        }
        for (int t = 0; t < 60; t++) {
            test_windowed(1 + upto(150), 1 + upto(200), depthwise);
        }
    }
}

/* One weight of 1 at a time, written as literal bytes: row r, column k of the result is the activation k. */
static void test_packing(void) {
    int8_t w8[16 * 32], q[32];
    uint8_t w4[FR_W4_BLOCK];
    float scale = 1.0f, wscale[16], y[16];
    int32_t sum = 0;
    for (int k = 0; k < 32; k++) {
        q[k] = (int8_t)(3 * k - 40);
        sum += q[k];
    }
    const fr_act8 a = {q, &scale, &sum, 1, 32, 0};
    const fr_epilogue e = {0};
    for (int r = 0; r < 16; r++) {
        wscale[r] = 1.0f;
        for (int k = 0; k < 32; k++) {
            memset(w8, 0, sizeof w8);
            memset(w4, 0, sizeof w4);
            w8[(k / 4) * 64 + 4 * r + k % 4] = 1;
            w4[(k % 16) / 4 * 64 + 4 * r + k % 4] = k < 16 ? 0x01 : 0x10;
            w4[256 + 2 * r] = 0x00; /* fp16 1.0 is 0x3c00 */
            w4[256 + 2 * r + 1] = 0x3c;
            fr_isa_scalar->gemm_w8(y, 16, &a, 0, 1, w8, wscale, 0, 1, 16, &e, NULL);
            check(y[r] == (float)q[k], "W8_P16 byte", "scalar", r, k, 0);
            fr_isa_scalar->gemm_w4(y, 16, &a, 0, 1, w4, 0, 1, 16, &e, NULL);
            check(y[r] == (float)q[k] && y[(r + 1) % 16] == 0.0f, "W4_P16 nibble", "scalar", r, k, 0);
        }
        w4[288 + r] = 5;
        fr_isa_scalar->gemm_w4(y, 16, &a, 0, 1, w4, 0, 1, 16, &e, NULL);
        check(y[r] == (float)(q[31] - 5 * sum), "W4_P16 zero", "scalar", r, 0, 0);
    }
}

/* ---- rows ---- */

/* Rows with everything that can go wrong: style 0 plain, then zeros, huge, tiny, subnormal, -inf, NaN, +inf, mixed. */
enum { STYLES = 10 };
static float *make_row(int64_t n, int style) {
    float *x = floats(n, style == 2 ? 3e38f : style == 3 ? 1e-30f : style == 4 ? 1e-40f : 8.0f);
    for (int64_t i = 0; i < n; i++) {
        x[i] = style == 1 ? (i % 2 ? 0.0f : -0.0f) : style == 5 && rnd() % 2 ? -INFINITY : style == 9 ? -INFINITY : x[i];
    }
    if (n && style >= 6 && style <= 8) {
        x[upto(n)] = style == 6 ? NAN : style == 7 ? INFINITY : 3.4e38f;
    }
    return x;
}

static void test_quantize(const frugal_isa *isa, int64_t k, int style) {
    const int64_t nb = up(k, 32) / 32;
    float *x = make_row(k, style), s0[64], s1[64];
    int8_t *q0 = alloc((size_t)nb * 32), *q1 = alloc((size_t)nb * 32);
    int32_t *sum0 = alloc((size_t)nb * 4), *sum1 = alloc((size_t)nb * 4);
    for (int mode = 0; mode < 3; mode++) { /* token, blocked, static */
        const float s = mode == 2 ? (style == 4 ? 1e-40f : 0.04f) : 0.0f;
        int64_t scales = mode == 1 ? nb : 1;
        if (mode < 2) {
            fr_isa_scalar->quantize(q0, s0, sum0, x, k, mode);
            isa->quantize(q1, s1, sum1, x, k, mode);
        } else {
            fr_isa_scalar->quantize_static(q0, s0, sum0, x, k, s);
            isa->quantize_static(q1, s1, sum1, x, k, s);
        }
        check(!memcmp(q0, q1, (size_t)nb * 32) && !memcmp(sum0, sum1, (size_t)nb * 4) && !memcmp(s0, s1, (size_t)scales * 4),
              "quantize", isa->name, k, style, mode);
        int ok = 1; /* what the header says of scalar's result */
        for (int64_t i = 0; i < k && isa == fr_isa_scalar; i++) {
            float scale = s0[mode == 1 ? i / 32 : 0];
            ok &= q0[i] >= -127 &&
                  (style != 0 || fabsf((float)q0[i] * scale - x[i]) <= 0.501f * scale || fabsf(x[i]) > 127 * scale);
        }
        check(ok, "quantize error", "scalar", k, style, mode);
    }
    free(x), free(q0), free(q1), free(sum0), free(sum1);
}

static void test_norms(const frugal_isa *isa, int64_t n, int style) {
    float *x = make_row(n, style), *r = make_row(n, 0), *g = floats(n, 2.0f), *b = floats(n, 1.0f);
    float *y0 = alloc((size_t)n * 4), *y1 = alloc((size_t)n * 4);
    for (int mode = 0; mode < 12; mode++) { /* residual, beta, which buffer y is */
        const float *res = mode & 1 ? r : NULL, *beta = mode & 2 ? b : NULL, *res1 = res;
        const int place = mode / 4;
        float *y = y1;
        if (place == 1) {
            memcpy(y1, x, (size_t)n * 4);
        } else if (place == 2 && res) {
            memcpy(y1, r, (size_t)n * 4);
            res1 = y1;
        }
        fr_isa_scalar->layer_norm(y0, x, res, g, beta, n, 1e-5f);
        isa->layer_norm(y, place == 1 ? y : x, res1, g, beta, n, 1e-5f);
        check(same(y0, y, n), "layer_norm", isa->name, n, style, mode);
        if (place == 1) {
            memcpy(y1, x, (size_t)n * 4);
        } else if (place == 2 && res) {
            memcpy(y1, r, (size_t)n * 4);
        }
        fr_isa_scalar->rms_norm(y0, x, res, g, n, 1e-6f);
        isa->rms_norm(y, place == 1 ? y : x, res1, g, n, 1e-6f);
        check(same(y0, y, n), "rms_norm", isa->name, n, style, mode);
    }
    if (isa == fr_isa_scalar && style == 0 && n > 0) {
        double mean = 0, var = 0;
        for (int64_t i = 0; i < n; i++) {
            mean += (double)x[i] / (double)n;
        }
        for (int64_t i = 0; i < n; i++) {
            var += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)n;
        }
        isa->layer_norm(y0, x, NULL, g, b, n, 1e-5f);
        for (int64_t i = 0; i < n; i++) {
            double want = ((double)x[i] - mean) / sqrt(var + 1e-5) * (double)g[i] + (double)b[i];
            check(fabs(want - (double)y0[i]) < 1e-4, "layer_norm in double", "scalar", n, i, 0);
        }
    }
    free(x), free(r), free(g), free(b), free(y0), free(y1);
}

static void test_softmax(const frugal_isa *isa, int64_t n, int style) {
    float *x = make_row(n, style), *a = alloc((size_t)n * 4), *b = alloc((size_t)n * 4), *c = alloc((size_t)(n + 37) * 4);
    memcpy(a, x, (size_t)n * 4);
    memcpy(b, x, (size_t)n * 4);
    memcpy(c, x, (size_t)n * 4);
    for (int64_t i = n; i < n + 37; i++) {
        c[i] = -INFINITY;
    }
    float sa = fr_isa_scalar->softmax(a, n), sb = isa->softmax(b, n), sc = isa->softmax(c, n + 37);
    check(same(a, b, n) && same(&sa, &sb, 1), "softmax", isa->name, n, style, 0);
    check(same(a, c, n) && same(&sa, &sc, 1), "softmax padded with -inf", isa->name, n, style, 0);
    if (style == 9) {
        check(sa == 0.0f && (n == 0 || a[n - 1] == 0.0f), "softmax of -inf", isa->name, n, style, 0);
    }
    if (style == 6 && n) {
        check(sa != sa && a[0] != a[0] && a[n - 1] != a[n - 1], "softmax of NaN", isa->name, n, style, 0);
    }
    free(x), free(a), free(b), free(c);
}

static void test_rows(const frugal_isa *isa) {
    for (int style = 0; style < STYLES; style++) {
        for (int64_t n = 0; n <= 70; n++) {
            test_softmax(isa, n, style);
            if (n) {
                test_quantize(isa, n, style);
                test_norms(isa, n, style);
            }
        }
        test_softmax(isa, 1500, style);
        test_quantize(isa, 1536, style);
        test_norms(isa, 1024, style);
    }
}

/* ---- attention over a cache ---- */

static int8_t cached_code(int style) {
    return (int8_t)(style == 0 ? -128 : style == 1 ? (rnd() & 1 ? 127 : -128) : upto(256) - 128);
}
static int8_t *cached_codes(int64_t rows, int64_t ld, int64_t width, int style) { /* ends with the last code of the last row */
    const int64_t n = rows ? (rows - 1) * ld + width : 0;
    int8_t *p = alloc((size_t)n);
    for (int64_t i = 0; i < n; i++) {
        p[i] = cached_code(style);
    }
    return p;
}

static void test_qk8(const frugal_isa *isa, int64_t m, int64_t n, int64_t d, int style) {
    const int64_t ldq = up(d, 64), ldk = d + upto(3) * 17, ldy = n + upto(3);
    int8_t *q = alloc((size_t)(m * ldq)), *k = cached_codes(n, ldk, d, style);
    float *qs = floats(m, 1.0f), *ks = floats(n, style == 3 ? 1e30f : 1.0f), *a = floats(m * ldy, 1.0f),
          *b = alloc((size_t)(m * ldy) * 4);
    for (int64_t i = 0; i < m * ldq; i++) {
        q[i] = i % ldq < d ? code8(style) : 0;
    }
    memcpy(b, a, (size_t)(m * ldy) * 4); /* what lies between the rows must stay */
    fr_isa_scalar->qk8(a, ldy, q, ldq, qs, k, ldk, ks, m, n, d, NULL, 0);
    isa->qk8(b, ldy, q, ldq, qs, k, ldk, ks, m, n, d, k, n / 2);
    check(same(a, b, m * ldy), "qk8", isa->name, m, n, d);
    free(q), free(k), free(qs), free(ks), free(a), free(b);
}

static void test_pv8(const frugal_isa *isa, int64_t m, int64_t n, int64_t e, int style) {
    const int64_t ldp = up(n, 16), ldv = e + upto(3) * 17, ldy = e + upto(3);
    int16_t *p = alloc((size_t)(m * ldp) * 2);
    int8_t *v = cached_codes(n, ldv, e, style);
    float *ps = floats(m, 1.0f), *a = floats(m * ldy, 1.0f), *b = alloc((size_t)(m * ldy) * 4);
    for (int64_t i = 0; i < m * ldp; i++) {
        p[i] = (int16_t)(i % ldp >= n ? 0 : style == 0 ? 32512 : style == 1 ? (rnd() & 1 ? 32512 : -32512) : upto(65025) - 32512);
    }
    memcpy(b, a, (size_t)(m * ldy) * 4);
    fr_isa_scalar->pv8(a, ldy, p, ldp, ps, v, ldv, m, n, e, NULL, 0);
    isa->pv8(b, ldy, p, ldp, ps, v, ldv, m, n, e, v, n / 2);
    check(same(a, b, m * ldy), "pv8", isa->name, m, n, e);
    free(p), free(v), free(ps), free(a), free(b);
}

static void test_weights8(const frugal_isa *isa, int64_t n, int style) {
    float *w = make_row(n, style), *s = make_row(n, style == 6 ? 0 : (int)((style + n) % STYLES));
    int16_t *a = alloc((size_t)up(n, 16) * 2), *b = alloc((size_t)up(n, 16) * 2);
    for (int64_t i = 0; i < n; i += 3) {
        w[i] = 0;
    }
    if (style == 6 && n) {
        s[0] = NAN; /* of a hidden token: does not count */
    }
    const float x = fr_isa_scalar->weights8(a, w, s, n), y = isa->weights8(b, w, s, n);
    check(same(&x, &y, 1) && !memcmp(a, b, (size_t)up(n, 16) * 2), "weights8", isa->name, n, style, 0);
    for (int64_t i = 0; i < n && x == x; i++) { /* half a step, and the roundings of u, 32512 / a and the product */
        const double u = w[i] == 0 ? 0 : (double)(w[i] * s[i]);
        check(fabs(a[i] * (double)x - u) <= 0.51 * (double)x + 0x1p-100, "weights8 in double", "scalar", n, style, i);
    }
    free(w), free(s), free(a), free(b);
}

static void test_pack_rows(const frugal_isa *isa, int64_t n, int64_t k, int form) {
    const int64_t size = form == FR_ROWS_HALF ? 2 : 4, ld = (k + upto(3)) * size;
    uint8_t *src = alloc((size_t)(n ? (n - 1) * ld + k * size : 0));
    float *a = alloc((size_t)(up(n, 16) * k) * 4), *b = alloc((size_t)(up(n, 16) * k) * 4), *x = alloc((size_t)k * 4),
          *y = alloc((size_t)k * 4);
    for (int64_t i = 0; n && i < (n - 1) * ld + k * size; i++) {
        src[i] = (uint8_t)rnd();
    }
    fr_isa_scalar->pack_rows(a, src, ld, form, n, k);
    isa->pack_rows(b, src, ld, form, n, k);
    check(form == FR_ROWS_HALF ? same(a, b, up(n, 16) * k) : !memcmp(a, b, (size_t)(up(n, 16) * k) * 4), "pack_rows", isa->name,
          n, k, form);
    if (n && form == FR_ROWS_HALF) {
        fr_isa_scalar->widen(x, (const uint16_t *)(const void *)src, k);
        isa->widen(y, (const uint16_t *)(const void *)src, k);
        check(same(x, y, k), "widen", isa->name, n, k, 0);
    }
    free(src), free(a), free(b), free(x), free(y);
}

static void test_cache(const frugal_isa *isa) {
    static const int64_t sizes[] = {1, 7, 16, 24, 32, 40, 48, 64, 80, 96, 100, 112, 128, 200, 256, 320, 520};
    for (int64_t i = 0; i < 120; i++) {
        const int64_t d = sizes[upto(17)], n = i % 9 == 0 ? 512 : 1 + upto(70), m = 1 + upto(i % 5 == 0 ? 20 : 7);
        test_qk8(isa, m, n, d, (int)(i % 4));
        test_pv8(isa, m, n, d, (int)(i % 4));
        test_pack_rows(isa, upto(40), 1 + upto(70), (int)(i % 2));
    }
    for (int style = 0; style < STYLES; style++) {
        for (int64_t n = 0; n <= 66; n++) {
            test_weights8(isa, n, style);
        }
        test_weights8(isa, 512, style);
    }
}

static void test_unary(const frugal_isa *isa) {
    enum { N = 1 << 13 };
    static float x[N], want[N], got[N];
    const uint32_t special[] = {0,          0x80000000, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00001, 0x7f800001, 1,
                                0x80000001, 0x7f7fffff, 0xff7fffff, 0x3f800000, 0xbf800000, 0x3f000000, 0x40200000, 0x4a800000};
    for (int kind = 0; kind < FRUGAL_UNARY_COUNT; kind++) {
        int ok = 1;
        uint32_t u = rnd();
        for (int part = 0; part < 64 && ok; part++) {
            for (int i = 0; i < N; i++) { /* a step through all bit patterns; every other part the range where things happen */
                u += part % 2 ? 8209u : 8191u * 2 + 1;
                x[i] = part % 2 ? fr_from_bits((u & 0x80000000u) | (0x3a000000u + (u & 0x7fffffffu) % 0x0a000000u))
                                : fr_from_bits(u);
            }
            for (size_t i = 0; i < sizeof special / 4; i++) {
                x[(size_t)part + 16 * i] = fr_from_bits(special[i]);
            }
            fr_isa_scalar->unary(kind, want, x, N, 0.3f, 0.6f);
            isa->unary(kind, got, x, N, 0.3f, 0.6f);
            ok = same(want, got, N);
        }
        check(ok, "unary sweep", isa->name, kind, 0, 0);
        for (int64_t n = 0; n <= 40; n++) { /* tails, in place */
            float *t = alloc((size_t)n * 4);
            memcpy(t, x, (size_t)n * 4);
            isa->unary(kind, t, t, n, 0.3f, 0.6f);
            fr_isa_scalar->unary(kind, want, x, n, 0.3f, 0.6f);
            check(same(want, t, n), "unary tail", isa->name, kind, n, 0);
            isa->scale(t, t, n, 1.7f);
            fr_isa_scalar->scale(want, want, n, 1.7f);
            check(same(want, t, n), "scale", isa->name, kind, n, 0);
            free(t);
        }
    }
}

/* ---- accuracy of fmath.h ---- */

static double d_gelu(double x) { return 0.5 * x * erfc(-x / sqrt(2.0)); }
static double d_gelu_tanh(double x) { return 0.5 * x * (1 + tanh(0.79788456080286541 * (x + 0.044715 * x * x * x))); }
static double d_sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double d_silu(double x) { return x / (1 + exp(-x)); }
static double d_softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }

static void test_accuracy(void) {
    const struct {
        const char *name;
        float (*f)(float);
        double (*d)(double);
        double low, high, absolute, relative; /* the error is below absolute + relative * |result| */
    } t[] = {{"exp", fr_exp, exp, -87.3, 88.72, 0, 1.3e-7},
             {"expm1", fr_expm1, expm1, -30, 0, 0, 3e-7},
             {"log", fr_log, log, 1e-45, 3.4e38, 0, 3e-7},
             {"erf", fr_erf, erf, -10, 10, 2e-7, 0},
             {"erf", fr_erf, erf, -1, 1, 0, 3e-7},
             {"gelu", fr_gelu, d_gelu, -40, 1, 2e-7, 0},
             {"gelu", fr_gelu, d_gelu, 1, 1e30, 0, 2e-7},
             {"gelu_tanh", fr_gelu_tanh, d_gelu_tanh, -40, 1, 3e-7, 0},
             {"gelu_tanh", fr_gelu_tanh, d_gelu_tanh, 1, 1000, 0, 3e-7},
             {"tanh", fr_tanh, tanh, -30, 30, 0, 3e-7},
             {"sigmoid", fr_sigmoid, d_sigmoid, -87, 40, 0, 3e-7},
             {"silu", fr_silu, d_silu, -87, 87, 0, 3e-7},
             {"softplus", fr_softplus, d_softplus, -87, 1000, 0, 4e-7},
             {"sin", fr_sin, sin, -1e5, 1e5, 1e-7, 0},
             {"cos", fr_cos, cos, -1e5, 1e5, 1e-7, 0}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        double worst = 0, at = 0;
        for (int j = 0; j < 600000; j++) {
            float x = j < 300000 ? fr_from_bits((uint32_t)j * 14317u)
                                 : (float)(t[i].low + (t[i].high - t[i].low) * (j - 300000) / 299999.0);
            if ((double)x >= t[i].low && (double)x <= t[i].high) {
                double want = t[i].d((double)x),
                       e = fabs((double)t[i].f(x) - want) / (t[i].absolute + t[i].relative * fabs(want) + 1e-300);
                at = e > worst && fabs(want) < 3e38 ? (double)x : at;
                worst = e > worst && fabs(want) < 3e38 && (fabs(want) > 1.2e-38 || want == 0 || t[i].absolute > 0) ? e : worst;
            }
        }
        check(worst < 1, t[i].name, "scalar", (int64_t)i, (int64_t)(worst * 1000), (int64_t)at);
    }
}

static void test_special(void) {
    for (int kind = 0; kind < FRUGAL_UNARY_COUNT; kind++) {
        float v = fr_unary(kind, NAN, 0, 1);
        check(v != v, "NaN stays NaN", "scalar", kind, 0, 0);
    }
    check(fr_exp(0.0f) == 1.0f && fr_exp(-87.31f) == 0.0f && fr_exp(-INFINITY) == 0.0f && fr_exp(89.0f) == INFINITY, "exp",
          "scalar", 0, 0, 0);
    check(fr_gelu(INFINITY) == INFINITY && fr_gelu(-INFINITY) == 0.0f && fr_silu(-INFINITY) == 0.0f &&
              fr_gelu_tanh(-INFINITY) == 0.0f,
          "limits", "scalar", 0, 0, 0);
    check(fr_tanh(INFINITY) == 1.0f && fr_erf(-INFINITY) == -1.0f && fr_log(0.0f) == -INFINITY, "limits", "scalar", 1, 0, 0);
    const float v[] = {0,      -0.0f, 1,    -1,     2,        -2,        0.5f, -0.5f, 3,     -3,   7,
                       8,      -7.5,  0.1f, 1e-30f, 1e30f,    -1e30f,    65,   -65,   2.5f,  -3.5, 1.5f,
                       1e-42f, 100,   1e9f, -1e9f,  INFINITY, -INFINITY, NAN,  31,    0.99f, 1.01f};
    const int n = sizeof v / sizeof *v;
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++) {
            float got = fr_pow(v[i], v[j]), want = (float)pow((double)v[i], (double)v[j]);
            int ok = got != got ? want != want : fr_bits(got) == fr_bits(want) || fabsf(got - want) <= 1.2e-7f * fabsf(want);
            check(ok, "pow", "scalar", i, j, 0);
        }
    }
    for (uint32_t h = 0; h < 65536; h++) { /* against the definition: 2^(e-15) (1 + m/1024), subnormal m 2^-24 */
        int e = (int)(h >> 10 & 31), m = (int)(h & 1023);
        float f = fr_half_to_float((uint16_t)h), want = e ? ldexpf((float)(1024 + m), e - 25) : ldexpf((float)m, -24);
        want = e == 31 ? (m ? NAN : INFINITY) : want;
        want = h & 0x8000 ? -want : want;
        check(same(&want, &f, 1) && (f != f || fr_float_to_half(f) == h), "half", "scalar", h, 0, 0);
        if (e < 30) { /* just off the middle between two halves */
            float next = fr_half_to_float((uint16_t)(h + 1)), mid = 0.5f * (f + next);
            check(fr_float_to_half(mid) == h + (h & 1), "half, tie", "scalar", h, 0, 0);
            check(fr_float_to_half(nextafterf(mid, f)) == h && fr_float_to_half(nextafterf(mid, next)) == h + 1, "half, near tie",
                  "scalar", h, 0, 0);
        }
    }
}

/* What an x86 CPU has to say before its kernels are chosen. */
static void test_detection(void) {
#if defined(__x86_64__) || defined(__i386__)
    fr_x86 cpu = {{0}, 0};
    check(*fr_avx2_lacks(&cpu) && *fr_avxvnni_lacks(&cpu) && *fr_avx512vnni_lacks(&cpu), "a CPU with nothing", "", 0, 0, 0);
    cpu = (fr_x86){{1 << 12 | 1 << 29, 1 << 5, 0, 0}, 0x07};
    check(!*fr_avx2_lacks(&cpu) && *fr_avxvnni_lacks(&cpu) && *fr_avx512vnni_lacks(&cpu), "avx2", "", 0, 0, 0);
    cpu.saved = 0x03;
    check(*fr_avx2_lacks(&cpu), "avx2 without its registers saved", "", 0, 0, 0);
    cpu = (fr_x86){{1 << 12 | 1 << 29, 1 << 5, 0, 1 << 4}, 0x07};
    check(!*fr_avxvnni_lacks(&cpu) && *fr_avx512vnni_lacks(&cpu), "avx_vnni", "", 0, 0, 0);
    cpu = (fr_x86){{1 << 12 | 1 << 29, 1u << 5 | 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31, 0, 0}, 0xe7};
    check(!*fr_avx2_lacks(&cpu) && !strcmp(fr_avx512vnni_lacks(&cpu), "avx512_vnni"), "AVX-512 without VNNI", "", 0, 0, 0);
    cpu.word[FR_X86_7C] = 1 << 11;
    check(!*fr_avx512vnni_lacks(&cpu), "avx512_vnni", "", 0, 0, 0);
    cpu.saved = 0x07;
    check(!*fr_avx2_lacks(&cpu) && *fr_avx512vnni_lacks(&cpu), "AVX-512 without its registers saved", "", 0, 0, 0);
#endif
}

static void test_names(void) {
    uint32_t usable = 0;
    for (uint32_t i = 0; frugal_isa_known(i); i++) {
        const char *name = frugal_isa_known(i), *lacks = frugal_isa_lacks(name);
        const frugal_isa *isa = frugal_isa_find(name);
        check((isa != NULL) == !*lacks && (!isa || !strcmp(name, frugal_isa_name(isa))), "known name", name, i, 0, 0);
        check(!isa || !strcmp(frugal_isa_list(usable++), name), "list", name, i, 0, 0);
        check(!isa || !frugal_isa_check(isa), "self-test", name, i, 0, 0);
    }
    check(!frugal_isa_list(usable) && !frugal_isa_lacks("none") && !frugal_isa_lacks(NULL), "names end", "", usable, 0, 0);
    check(frugal_isa_find("auto") == frugal_isa_find(frugal_isa_list(0)) && frugal_isa_find("scalar") == fr_isa_scalar &&
              !frugal_isa_find("none") && !frugal_isa_find(NULL),
          "find", "", 0, 0, 0);
}

/* With an argument, as under an emulator, without what has no instruction set in it; "list": only the names, best first. */
int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "list")) {
        for (uint32_t i = 0; frugal_isa_list(i); i++) {
            puts(frugal_isa_list(i));
        }
        return 0;
    }
    if (argc == 1) {
        test_accuracy();
    }
    test_special();
    test_packing();
    test_products();
    test_convolutions();
    printf("products and accuracy: %ld checks\n", passed + failed);
    for (uint32_t i = 0; frugal_isa_list(i); i++) {
        const frugal_isa *isa = frugal_isa_find(frugal_isa_list(i));
        const long before = passed + failed;
        test_rows(isa);
        test_cache(isa);
        test_unary(isa);
        printf("%s: %ld checks\n", isa->name, passed + failed - before);
    }
    test_detection();
    test_names();
    return check_report();
}
