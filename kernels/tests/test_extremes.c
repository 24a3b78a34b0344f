/* test_extremes.c - the integer kernels of every instruction set where an int8 or int16 operation could saturate, or an int32 sum
 * wrap: operands at both ends of their range, depths up to the largest, compared with scalar.c byte for byte and with int64. */
#include "../src/fmath.h"
#include "../src/isa.h"
#include "count.h"

/* Patterns: all high, all low, high and low in turns of 1, 2, 4, 32, and mixed by a hash. */
enum { PATTERNS = 7 };
static int at_end(int pattern, int64_t i) {
    static const int turn[5] = {1, 2, 4, 32, 0};
    return pattern < 2   ? pattern == 0
           : pattern < 6 ? (i / turn[pattern - 2] & 1) == 0
                         : ((uint64_t)i * 2654435761u >> 13 & 1) != 0;
}

enum { N = 17, PANELS = 2 };

/* ---- products ---- */

typedef struct operands {
    int64_t m, kp, nb;
    int8_t *q, *w8;
    uint8_t *w4, *w4o, *w8b;
    int32_t *sum;
    float *scale, *wscale;
} operands;
static operands make_operands(int64_t m, int64_t kp) {
    const int64_t nb = kp / FR_BLOCK;
    operands o = {.m = m, .kp = kp, .nb = nb};
    o.q = alloc((size_t)(m * kp)), o.w8 = alloc((size_t)(PANELS * 16 * kp)), o.w4 = alloc((size_t)(PANELS * nb * FR_W4_BLOCK));
    o.w4o = alloc((size_t)(PANELS * nb * FR_W4O_BLOCK)), o.w8b = alloc((size_t)(PANELS * nb * FR_W8B_BLOCK));
    o.sum = alloc((size_t)(m * nb) * 4), o.scale = alloc((size_t)(m * nb) * 4), o.wscale = alloc(PANELS * 64);
    for (int64_t i = 0; i < m * nb; i++) {
        o.scale[i] = 1.0f;
    }
    for (int i = 0; i < PANELS * 16; i++) {
        o.wscale[i] = 1.0f;
    }
    return o;
}
static void free_operands(operands *o) {
    free(o->q), free(o->w8), free(o->w4), free(o->w4o), free(o->w8b), free(o->sum), free(o->scale), free(o->wscale);
}

/* zero: 0, 15, or both in turns. */
static void fill(operands *o, int tokens, int weights, int zero) {
    for (int64_t i = 0; i < o->m; i++) {
        memset(o->sum + i * o->nb, 0, (size_t)o->nb * 4);
        for (int64_t k = 0; k < o->kp; k++) {
            o->q[i * o->kp + k] = at_end(tokens, k + (i & 1)) ? 127 : -127;
            o->sum[i * o->nb + k / 32] += o->q[i * o->kp + k];
        }
    }
    for (int64_t i = 0; i < PANELS * 16 * o->kp; i++) { /* [k/4][16][4]: by k, other rows one on */
        const int64_t k = i / 64 % (o->kp / 4) * 4 + i % 4, r = i / 4 % 16;
        o->w8[i] = at_end(weights, k + (r & 1)) ? 127 : -127;
    }
    for (int64_t b = 0; b < PANELS * o->nb; b++) {
        uint8_t *block = o->w4 + b * FR_W4_BLOCK;
        for (int i = 0; i < 256; i++) {
            const int64_t k = i / 64 * 4 + i % 4, r = i / 4 % 16;
            block[i] = (uint8_t)((at_end(weights, k + (r & 1)) ? 15 : 0) | (at_end(weights, k + 16 + (r & 1)) ? 0xf0 : 0));
        }
        for (int r = 0; r < 16; r++) {
            block[256 + 2 * r] = 0, block[257 + 2 * r] = 0x3c; /* 1 */
            block[288 + r] = (uint8_t)(zero == 2 ? r % 2 * 15 : zero * 15);
        }
        uint8_t *more = o->w4o + b * FR_W4O_BLOCK, *eight = o->w8b + b * FR_W8B_BLOCK;
        memcpy(more, block, 288);
        memcpy(eight, o->w8 + b * 512, 512);
        memcpy(eight + 512, block + 256, 32);
        for (int r = 0; r < 16; r++) { /* the offset: 0, -15, or both in turns */
            const uint16_t h = block[288 + r] ? 0xcb80 : 0;
            memcpy(more + 288 + 2 * r, &h, 2);
        }
    }
}

enum { FORMS = 4 };
static const char *const FORM[FORMS] = {"gemm_w8", "gemm_w4", "gemm_w4o", "gemm_w8b"};
static void run_product(const frugal_isa *isa, const operands *o, int form, int blocked, float *y) {
    const fr_act8 a = {o->q, o->scale, o->sum, o->m, o->kp, blocked};
    const fr_epilogue e = {0};
    void *scratch = alloc(isa->scratch_bytes(o->m, o->kp));
    memset(y, 0, (size_t)(o->m * N) * 4);
    if (form == 1) {
        isa->gemm_w4(y, N, &a, 0, o->m, o->w4, 0, PANELS, N, &e, scratch);
    } else if (form == 2) {
        isa->gemm_w4o(y, N, &a, 0, o->m, o->w4o, 0, PANELS, N, &e, scratch);
    } else if (form == 3) {
        isa->gemm_w8b(y, N, &a, 0, o->m, o->w8b, 0, PANELS, N, &e, scratch);
    } else {
        isa->gemm_w8(y, N, &a, 0, o->m, o->w8, o->wscale, 0, PANELS, N, &e, scratch);
    }
    free(scratch);
}
/* By token: the exact int64 sum must have been held by the int32. */
static void check_sum(const operands *o, const float *y) {
    for (int64_t r = 0; r < N; r += 3) {
        int64_t sum = 0;
        for (int64_t k = 0; k < o->kp; k++) {
            sum += o->w8[r / 16 * 16 * o->kp + k / 4 * 64 + r % 16 * 4 + k % 4] * o->q[k];
        }
        check(y[r] == (float)sum, "sum", "scalar", o->kp, r, sum);
    }
}

static void test_products(int64_t m, int64_t kp, int step) {
    operands o = make_operands(m, kp);
    float *want = alloc((size_t)(m * N) * 4), *got = alloc((size_t)(m * N) * 4);
    for (int c = 0; c < PATTERNS * PATTERNS; c += step) {
        fill(&o, c / PATTERNS, c % PATTERNS, c % 3);
        for (int form = 0; form < 2 * FORMS; form++) {
            run_product(fr_isa_scalar, &o, form / 2, form % 2, want);
            if (form == 0) {
                check_sum(&o, want);
            }
            for (uint32_t i = 0; frugal_isa_list(i); i++) {
                const frugal_isa *isa = frugal_isa_find(frugal_isa_list(i));
                run_product(isa, &o, form / 2, form % 2, got);
                check(!memcmp(want, got, (size_t)(m * N) * 4), FORM[form / 2], isa->name, m, kp, c);
            }
        }
    }
    free(want), free(got);
    free_operands(&o);
}

/* ---- integer convolutions ---- */

enum { PIXELS = 7, LENGTH_MORE = 64 };
/* Codes 0 and 255 in the form of an instruction set. */
static void *make_codes(const frugal_isa *isa, int64_t n, int pattern) {
    const size_t size = isa->codes == FR_CODES_I16 ? 2 : 1;
    uint8_t *codes = alloc((size_t)(n + LENGTH_MORE) * size);
    for (int64_t i = 0; i < n + LENGTH_MORE; i++) {
        const uint8_t code = at_end(pattern, i) ? 255 : 0;
        if (isa->codes == FR_CODES_I16) {
            ((int16_t *)(void *)codes)[i] = code;
        } else {
            codes[i] = isa->codes == FR_CODES_I8 ? code ^ 0x80 : code;
        }
    }
    return codes;
}

typedef struct conv_case {
    int64_t quads;
    int depth, dtype, codes, weights, large;
} conv_case;

static void make_params(int32_t *params, const int8_t *w, const conv_case *c, int64_t steps) {
    const float m = c->large ? 0.75f : 1e-5f;
    for (int j = 0; j < PANELS * 16; j++) {
        int32_t *at = params + j / 16 * FR_QPARAMS + j % 16;
        uint32_t sum = 0; /* of the weights: signed codes are 128 less */
        for (int64_t k = 0; k < steps * 4; k++) {
            const int32_t v = w[j / 16 * steps * 64 + k / 4 * 64 + j % 16 * 4 + k % 4];
            sum += (uint32_t)v;
        }
        at[0] = j * 1000 - 9000;
        at[16] = (int32_t)((uint32_t)at[0] + 128u * sum);
        memcpy(at + 32, &m, 4);
        at[48] = j % 2 ? 127 : -128;
    }
}

static void run_conv(const frugal_isa *isa, const conv_case *c, const int8_t *w, const int32_t *params, void *y) {
    const int64_t n = c->depth ? 64 * c->quads + 400 : 4 * c->quads + 8 * PIXELS;
    void *codes = make_codes(isa, n, c->codes);
    int32_t pixel[PIXELS], window[PIXELS], *run = alloc((size_t)(4 * c->quads) * 4);
    void *scratch = alloc((size_t)(c->quads * (c->depth ? FR_QSCRATCH : isa->quad_bytes)));
    for (int i = 0; i < PIXELS; i++) {
        pixel[i] = 8 * i;
        window[i] = i % 2 ? 255 * 4 * (int32_t)c->quads : 0;
    }
    for (int64_t k = 0; k < 4 * c->quads; k++) {
        run[k] = c->depth ? (int32_t)(16 * k) : 0;
    }
    const fr_qconv q = {.codes = codes,
                        .pixel = pixel,
                        .run = run,
                        .pixels = PIXELS,
                        .runs = 1,
                        .quads = c->quads,
                        .w = w,
                        .params = params,
                        .window = c->depth || !c->large ? NULL : window,
                        .y = y,
                        .n = N,
                        .ldy = N,
                        .dtype = c->dtype,
                        .zero = 3,
                        .low = 0,
                        .high = 255,
                        .small = !c->large,
                        .scratch = scratch,
                        .row = PIXELS};
    if (c->depth) {
        isa->qdepth(&q);
    } else {
        isa->qconv(&q);
    }
    free(codes), free(run), free(scratch);
}

static void test_conv(const conv_case *c) {
    const int64_t steps = c->quads, bytes = (c->dtype == 6 || c->dtype == 1 ? 4 : 1) * PIXELS * N;
    int8_t *w = alloc((size_t)(PANELS * steps * 64));
    int32_t params[PANELS * FR_QPARAMS];
    for (int64_t i = 0; i < PANELS * steps * 64; i++) {
        const int64_t k = i / 64 % steps * 4 + i % 4;
        w[i] = at_end(c->weights, k + (i / 4 & 1)) ? 127 : -128;
    }
    make_params(params, w, c, steps);
    uint8_t *want = alloc((size_t)bytes), *got = alloc((size_t)bytes);
    run_conv(fr_isa_scalar, c, w, params, want);
    for (uint32_t i = 0; frugal_isa_list(i); i++) {
        const frugal_isa *isa = frugal_isa_find(frugal_isa_list(i));
        memset(got, 0, (size_t)bytes);
        run_conv(isa, c, w, params, got);
        check(!memcmp(want, got, (size_t)bytes), c->depth ? "qdepth" : "qconv", isa->name, c->quads, c->dtype,
              10 * c->codes + c->weights);
    }
    free(w), free(want), free(got);
}

static void test_convs(int64_t deepest) {
    for (int codes = 0; codes < PATTERNS; codes++) {
        for (int weights = 0; weights < PATTERNS; weights++) {
            const int64_t quads[] = {1, 2, 9, codes == weights ? deepest : 33};
            for (int i = 0; i < 4; i++) {
                for (int dtype = 0; dtype < 4; dtype++) {
                    static const int types[4] = {2, 3, 6, 1}; /* uint8, int8, int32, float32 */
                    test_conv(&(conv_case){quads[i], 0, types[dtype], codes, weights, dtype % 2});
                    if (dtype < 2 && quads[i] < 64) {
                        test_conv(&(conv_case){quads[i], 1, types[dtype], codes, weights, (codes + i) % 2});
                    }
                }
            }
        }
    }
}

static void test_add(void) {
    enum { LENGTH = 83 };
    static const float by[] = {1e-3f, 1.0f, 255.0f, 0x1p20f, 3e6f, -3e30f};
    static const int32_t zeros[] = {0, 255, 128};
    uint8_t a[LENGTH], b[LENGTH], want[LENGTH], got[LENGTH];
    for (int c = 0; c < 6 * 6 * 27; c++) {
        const fr_qadd p = {zeros[c % 3], zeros[c / 3 % 3],        zeros[c / 9 % 3],        by[c / 27 % 6],         by[c / 162], 0,
                           255,          (uint8_t)((c & 1) << 7), (uint8_t)((c & 2) << 6), (uint8_t)((c & 4) << 5)};
        for (int i = 0; i < LENGTH; i++) {
            a[i] = at_end(c % PATTERNS, i) ? 255 : 0, b[i] = at_end(c / 7 % PATTERNS, i) ? 255 : 0;
        }
        fr_isa_scalar->qadd(want, a, b, LENGTH, &p);
        for (uint32_t i = 0; frugal_isa_list(i); i++) {
            const frugal_isa *isa = frugal_isa_find(frugal_isa_list(i));
            isa->qadd(got, a, b, LENGTH, &p);
            check(!memcmp(want, got, LENGTH), "qadd", isa->name, c, 0, 0);
        }
    }
}

/* With an argument, as under an emulator, fewer of the deep ones. */
int main(int argc, char **argv) {
    const int quick = argc > 1;
    (void)argv;
    for (int64_t m = 1; m <= 14; m += m < 7 ? 1 : 7) {
        test_products(m, 32, 1);
        test_products(m, 96, 1);
    }
    for (int64_t m = 1; m <= 7; m += quick ? 6 : 1) {
        test_products(m, FR_MAX_K, quick ? 48 : 8); /* 48: all high, and by the hash */
    }
    test_convs(quick ? 1 << 10 : 17000); /* 255 * 128 * 4 * 17000 exceeds int32 */
    test_add();
    return check_report();
}
