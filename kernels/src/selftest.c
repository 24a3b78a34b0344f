/* selftest.c - does an instruction set give scalar's bytes on this machine?  A second of suspicion, not the test suite: it shows
 * a broken build or CPU where there is no compiler. */
#include <string.h>

#include "fmath.h"
#include "isa.h"

enum { M = 7, K = 96, BLOCKS = K / FR_BLOCK, N = 40, PANELS = 3, SCRATCH = 16384 };

typedef struct state {
    float a[M * K], b[PANELS * 16 * K], wscale[PANELS * 16], bias[PANELS * 16], scale[M * BLOCKS];
    int8_t q[M * K], w8[PANELS * 16 * K];
    uint8_t w4[PANELS * BLOCKS * FR_W4_BLOCK];
    int32_t sum[M * BLOCKS];
} state;

static uint32_t next(uint32_t *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}
static void fill_floats(float *x, int n, uint32_t *seed) {
    for (int i = 0; i < n; i++) {
        x[i] = (float)((int32_t)(next(seed) & 0xffff) - 32768) * 0x1p-13f;
    }
}
static void fill(state *s) {
    uint32_t seed = 1;
    fill_floats(s->a, M * K, &seed);
    fill_floats(s->b, PANELS * 16 * K, &seed);
    fill_floats(s->wscale, PANELS * 16, &seed);
    fill_floats(s->bias, PANELS * 16, &seed);
    for (int i = 0; i < PANELS * 16 * K; i++) {
        s->w8[i] = (int8_t)((int32_t)(next(&seed) % 255) - 127);
    }
    for (int i = 0; i < PANELS * BLOCKS; i++) {
        uint8_t *block = s->w4 + i * FR_W4_BLOCK;
        for (int j = 0; j < FR_W4_BLOCK; j++) { /* codes, then fp16 scales from 2^-10 to 2^-6, then zero points */
            block[j] = (uint8_t)(j < 256 ? next(&seed) : j >= 288 ? next(&seed) & 15 : j % 2 ? 0x14 + (next(&seed) & 15) : 0);
        }
    }
}

/* y of product kind (0 float32, 1 int8, 2 int4) with activations quantized by isa itself. */
static void product(const frugal_isa *isa, state *s, int kind, int blocked, float *y) {
    uint8_t scratch[SCRATCH] __attribute__((aligned(64)));
    const fr_epilogue e = {.bias = s->bias, .ld = N, .act = FRUGAL_U_GELU};
    const fr_act8 act = {s->q, s->scale, s->sum, M, K, blocked};
    if (kind == 0) {
        isa->gemm_f32(y, N, s->a, K, s->b, 16, 16 * K, M, N, K, 1.0f, &e);
        return;
    }
    for (int i = 0; i < M; i++) {
        isa->quantize(s->q + i * K, s->scale + i * (blocked ? BLOCKS : 1), s->sum + i * BLOCKS, s->a + i * K, K, blocked);
    }
    if (kind == 1) {
        isa->gemm_w8(y, N, &act, 0, M, s->w8, s->wscale, 0, PANELS, N, &e, scratch);
    } else {
        isa->gemm_w4(y, N, &act, 0, M, s->w4, 0, PANELS, N, &e, scratch);
    }
}
static void rows(const frugal_isa *isa, const state *s, float *y) {
    const float total[1] = {isa->softmax(memcpy(y, s->a, K * sizeof *y), K)};
    memcpy(y + K, total, sizeof total);
    isa->layer_norm(y + K + 1, s->a, NULL, s->b, s->wscale, N, 1e-5f);
    isa->unary(FRUGAL_U_TANH, y + K + 1 + N, s->a, M * N - K - 1 - N, 0.0f, 0.0f);
}

const char *frugal_isa_check(const frugal_isa *isa) {
    static const char *const names[] = {"gemm_f32", "gemm_w8", "gemm_w4"};
    float want[M * N], got[M * N];
    state s;
    memset(&s, 0, sizeof s);
    fill(&s);
    if (!isa || isa->scratch_bytes(M, K) > SCRATCH) {
        return "scratch";
    }
    for (int kind = 0; kind < 3; kind++) {
        for (int blocked = 0; blocked < 2; blocked++) {
            product(fr_isa_scalar, &s, kind, blocked, want);
            product(isa, &s, kind, blocked, got);
            if (memcmp(want, got, sizeof want) != 0) {
                return names[kind];
            }
        }
    }
    rows(fr_isa_scalar, &s, want);
    rows(isa, &s, got);
    return memcmp(want, got, sizeof want) != 0 ? "rows" : NULL;
}
