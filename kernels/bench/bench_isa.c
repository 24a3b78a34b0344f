/* bench_isa.c - times the matrix products of every instruction set of this CPU, interleaved, next to the peak measured in the
 * same run.
 *
 *     bench_isa [rounds] [name of the only instruction set]
 * Prints GMAC/s: median of the rounds, the 10th percentile and the best.  One thread, its CPU time; the executor's chunk of
 * tokens at a time.  The int8 peak of avx2 is that of pmaddubsw + pmaddwd + paddd; gemm_w4, which adds up in int16, can exceed
 * it.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../src/fmath.h"
#include "../src/isa.h"

#ifndef BENCH_FLAGS
#define BENCH_FLAGS "not recorded"
#endif

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static void *alloc(size_t bytes) {
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes)) {
        exit(2);
    }
    for (size_t i = 0; i < bytes; i++) {
        ((uint8_t *)p)[i] = (uint8_t)(i * 37 % 101);
    }
    return p;
}

/* ---- peak rates: independent multiply-adds on registers, no memory ---- */

#if defined(__x86_64__)
#define PEAK(name, flags, reg, one, per)                                                                                         \
    __attribute__((target(flags), noinline)) static double name(void) {                                                          \
        const long loops = 2000000;                                                                                              \
        double t = now();                                                                                                        \
        for (long i = 0; i < loops; i++) {                                                                                       \
            __asm__ volatile(one(reg, 0) one(reg, 1) one(reg, 2) one(reg, 3) one(reg, 4) one(reg, 5) one(reg, 6) one(reg, 7)     \
                                 one(reg, 8) one(reg, 9) one(reg, 10) one(reg, 11)::                                             \
                                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",  \
                                       "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                                             \
        }                                                                                                                        \
        return 12.0 * (per) * (double)loops / (now() - t) / 1e9;                                                                 \
    }
#define FMA(r, i) "vfmadd231ps %%" r "14, %%" r "15, %%" r #i "\n"
#define DOT(r, i) "vpdpbusd %%" r "14, %%" r "15, %%" r #i "\n"
#define PAIR(r, i)                                                                                                               \
    "vpmaddubsw %%" r "14, %%" r "15, %%" r "13\n vpmaddwd %%" r "12, %%" r "13, %%" r "13\n"                                    \
    "vpaddd %%" r "13, %%" r #i ", %%" r #i "\n"
PEAK(peak_fma256, "avx2,fma", "ymm", FMA, 8)
PEAK(peak_madd256, "avx2", "ymm", PAIR, 32)
PEAK(peak_fma512, "avx512f", "zmm", FMA, 16)
PEAK(peak_dot512, "avx512f,avx512vnni", "zmm", DOT, 64)
#endif

static double best_of(double (*f)(void)) {
    double best = 0;
    for (int i = 0; i < 5; i++) {
        double v = f();
        best = v > best ? v : best;
    }
    return best;
}
static void peaks(const char *isa, double *int8, double *fp32) {
    *int8 = *fp32 = 0;
    (void)best_of, (void)isa;
#if defined(__x86_64__)
    if (!strcmp(isa, "avx2")) {
        *int8 = best_of(peak_madd256);
        *fp32 = best_of(peak_fma256);
    } else if (!strcmp(isa, "avx512vnni")) {
        *int8 = best_of(peak_dot512);
        *fp32 = best_of(peak_fma512);
    }
#endif
}

/* ---- products ---- */

enum { TOKEN8, BLOCK8, WEIGHT4, FLOAT32, FLOAT32_GELU, TOKEN8_GELU, KINDS };
static const char *const kind_name[KINDS] = {"w8 token", "w8 blocked", "w4 blocked", "f32", "f32 gelu", "w8 token gelu"};
typedef struct data {
    int64_t m, n, k;
    float *x, *w, *y, *scale, *wscale, *bias;
    int8_t *q, *w8;
    uint8_t *w4;
    int32_t *sum;
    void *scratch;
} data;

static data make(int64_t m, int64_t k, int64_t n, size_t scratch) {
    data d = {.m = m, .n = n, .k = k};
    d.x = alloc((size_t)(m * k) * 4);
    d.w = alloc((size_t)(n * k) * 4);
    d.y = alloc((size_t)(m * n) * 4);
    d.scale = alloc((size_t)(m * k / 32) * 4);
    d.wscale = alloc((size_t)n * 4);
    d.bias = alloc((size_t)n * 4);
    d.q = alloc((size_t)(m * k));
    d.w8 = alloc((size_t)(n * k));
    d.w4 = alloc((size_t)(n / 16 * (k / 32) * FR_W4_BLOCK));
    d.sum = alloc((size_t)(m * k / 32) * 4);
    d.scratch = alloc(scratch + 64);
    for (int64_t i = 0; i < m * k; i++) {
        d.x[i] = (float)(i % 97) * 0.01f - 0.5f;
    }
    for (int64_t i = 0; i < n * k; i++) {
        d.w[i] = (float)(i % 89) * 0.001f - 0.04f;
    }
    for (int64_t i = 0; i < n; i++) {
        d.wscale[i] = d.bias[i] = 0.001f;
    }
    for (int64_t i = 0; i < n / 16 * (k / 32); i++) {
        for (int j = 0; j < 16; j++) {
            memcpy(d.w4 + i * FR_W4_BLOCK + 256 + 2 * j, "\x00\x14", 2);
        }
    }
    return d;
}
static void free_data(data *d) {
    void *all[] = {d->x, d->w, d->y, d->scale, d->wscale, d->bias, d->q, d->w8, d->w4, d->sum, d->scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]);
    }
}

static void product(const frugal_isa *isa, int kind, data *d) {
    const int blocked = kind == BLOCK8 || kind == WEIGHT4, act = kind >= FLOAT32_GELU ? FRUGAL_U_GELU : FRUGAL_U_COPY;
    const fr_epilogue e = {.bias = d->bias, .ld = d->n, .act = act};
    const fr_act8 a = {d->q, d->scale, d->sum, d->m, d->k, blocked};
    for (int64_t i = 0; i < d->m; i += isa->chunk) {
        const int64_t end = i + isa->chunk < d->m ? i + isa->chunk : d->m;
        if (kind == FLOAT32 || kind == FLOAT32_GELU) {
            isa->gemm_f32(d->y + i * d->n, d->n, d->x + i * d->k, d->k, d->w, 16, 16 * d->k, end - i, d->n, d->k, 1.0f, &e);
        } else if (kind == WEIGHT4) {
            isa->gemm_w4(d->y, d->n, &a, i, end, d->w4, 0, d->n / 16, d->n, &e, d->scratch);
        } else {
            isa->gemm_w8(d->y, d->n, &a, i, end, d->w8, d->wscale, 0, d->n / 16, d->n, &e, d->scratch);
        }
    }
}
static void quantize(const frugal_isa *isa, data *d, int blocked) {
    const int64_t nb = d->k / 32;
    for (int64_t i = 0; i < d->m; i++) {
        isa->quantize(d->q + i * d->k, d->scale + i * (blocked ? nb : 1), d->sum + i * nb, d->x + i * d->k, d->k, blocked);
    }
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
enum { MAX_ROUNDS = 101 };
static void shape(int64_t m, int64_t k, int64_t n, int rounds, const char *only) {
    static double rate[4][KINDS][MAX_ROUNDS];
    size_t scratch = 0;
    for (uint32_t i = 0; frugal_isa_list(i); i++) {
        const size_t s = frugal_isa_find(frugal_isa_list(i))->scratch_bytes(m, k);
        scratch = s > scratch ? s : scratch;
    }
    data d = make(m, k, n, scratch);
    for (int r = 0; r < rounds; r++) {
        for (uint32_t i = 0; frugal_isa_list(i); i++) {
            const frugal_isa *isa = frugal_isa_find(frugal_isa_list(i));
            if ((only && strcmp(only, isa->name)) || (!strcmp(isa->name, "scalar") && m > 16 && r > 0)) {
                continue;
            }
            for (int kind = 0; kind < KINDS; kind++) {
                quantize(isa, &d, kind == BLOCK8 || kind == WEIGHT4);
                product(isa, kind, &d);
                double spent = 0, t0 = now();
                long times = 0;
                do {
                    product(isa, kind, &d);
                    times++;
                    spent = now() - t0;
                } while (spent < 2e-3 && strcmp(isa->name, "scalar"));
                rate[i][kind][r] = (double)times * (double)(m * n * k) / spent / 1e9;
            }
        }
    }
    for (uint32_t i = 0; frugal_isa_list(i); i++) {
        const char *name = frugal_isa_list(i);
        const int count = !strcmp(name, "scalar") && m > 16 ? 1 : rounds;
        double int8, fp32;
        if (only && strcmp(only, name)) {
            continue;
        }
        peaks(name, &int8, &fp32);
        for (int kind = 0; kind < KINDS; kind++) {
            double *v = rate[i][kind], top = kind == FLOAT32 || kind == FLOAT32_GELU ? fp32 : int8;
            qsort(v, (size_t)count, sizeof *v, by_value);
            printf("%5lld %5lld %5lld  %-11s %-14s %8.1f  [%.1f, %.1f]", (long long)m, (long long)k, (long long)n, name,
                   kind_name[kind], v[count / 2], v[count / 10], v[count - 1]);
            if (top > 0) {
                printf("  %3.0f %% of %.0f", 100 * v[count / 2] / top, top);
            }
            printf("\n");
        }
    }
    free_data(&d);
}

/* Millions of elements a second of the row functions, 1536 at a time. */
static void rows(const frugal_isa *isa, int rounds) {
    enum { N = 1536, TIMES = 200 };
    static float x[N], y[N], g[N];
    static int8_t q[N];
    static int32_t sum[N / 32];
    static float scale[N / 32];
    const char *names[] = {"gelu", "exp", "tanh", "silu", "softmax", "layer_norm", "quantize token", "quantize blocked"};
    for (int i = 0; i < N; i++) {
        x[i] = (float)(i % 101) * 0.08f - 4.0f, g[i] = 1.0f;
    }
    for (int f = 0; f < 8; f++) {
        double v[MAX_ROUNDS];
        for (int r = 0; r < rounds; r++) {
            double t = now();
            for (int i = 0; i < TIMES; i++) {
                switch (f) {
                case 0:
                    isa->unary(FRUGAL_U_GELU, y, x, N, 0, 0);
                    break;
                case 1:
                    isa->unary(FRUGAL_U_EXP, y, x, N, 0, 0);
                    break;
                case 2:
                    isa->unary(FRUGAL_U_TANH, y, x, N, 0, 0);
                    break;
                case 3:
                    isa->unary(FRUGAL_U_SILU, y, x, N, 0, 0);
                    break;
                case 4:
                    isa->softmax(y, N);
                    break;
                case 5:
                    isa->layer_norm(y, x, g, g, g, N, 1e-5f);
                    break;
                case 6:
                    isa->quantize(q, scale, sum, x, N, 0);
                    break;
                default:
                    isa->quantize(q, scale, sum, x, N, 1);
                }
            }
            v[r] = (double)(N * TIMES) / (now() - t) / 1e6;
        }
        qsort(v, (size_t)rounds, sizeof *v, by_value);
        printf("%-11s %-16s %8.0f M/s  [%.0f, %.0f]\n", isa->name, names[f], v[rounds / 2], v[rounds / 10], v[rounds - 1]);
    }
}

static void print_cpu(void) {
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        if (!strncmp(line, "model name", 10)) {
            printf("CPU%s", strchr(line, ':') ? strchr(line, ':') : "\n");
            break;
        }
    }
    if (f) {
        fclose(f);
    }
    printf("compiler %s, flags %s, instruction sets", __VERSION__, BENCH_FLAGS);
    for (uint32_t i = 0; frugal_isa_list(i); i++) {
        printf(" %s", frugal_isa_list(i));
    }
    printf("\n");
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 11;
    const char *only = argc > 2 ? argv[2] : NULL;
    rounds = rounds < 1 ? 1 : rounds > MAX_ROUNDS ? MAX_ROUNDS : rounds;
    print_cpu();
    printf(
        "    m     k     n  isa         kernel           GMAC/s  [p10, best]  share of the register peak measured in this run\n");
    for (int64_t m = 1024; m >= 1; m = m == 1024 ? 16 : m == 16 ? 1 : 0) {
        shape(m, 384, 384, rounds, only);
        shape(m, 384, 1536, rounds, only);
        shape(m, 1536, 384, rounds, only);
    }
    for (uint32_t i = 0; frugal_isa_list(i); i++) {
        if (!only || !strcmp(only, frugal_isa_list(i))) {
            rows(frugal_isa_find(frugal_isa_list(i)), rounds);
        }
    }
    return 0;
}
