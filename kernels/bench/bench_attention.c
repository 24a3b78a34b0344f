/* bench_attention.c - attention over caches: cycles a position of one key head, and the milliseconds of one token of a decoder
 * with 30 layers, 3 key heads, 9 query heads of 64 and a cache of 2048 tokens, beside the int8 peak measured in the same run.
 *
 *     bench_attention [rounds] [name of the only instruction set]
 * A step of the executor runs (ATTENTION_KEPT), layer after layer, each with a cache of its own, with 1 thread (CPU time) and 2
 * (time passed).  Best of the rounds and their median; a busy machine shows in the distance between the two.  Cycles are those of
 * the fastest dependent additions seen (one a cycle).
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../src/ops.h"

enum { LAYERS = 30, G = 3, H = 9, D = 64, KEYS = 2048 };

static double clock_of(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static double cpu(void) { return clock_of(CLOCK_THREAD_CPUTIME_ID); }
static void *alloc(size_t bytes) {
    void *p = NULL;
    if (posix_memalign(&p, 4096, bytes)) {
        exit(2);
    }
    for (size_t i = 0; i < bytes; i++) {
        ((uint8_t *)p)[i] = (uint8_t)(i * 37 % 101);
    }
    return p;
}
static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* ---- what the machine can do ---- */

static double cycle(void) { /* seconds */
    double best = 1;
    for (int r = 0; r < 20; r++) {
        const long n = 200000;
        long x = r;
        const double t = cpu();
        for (long i = 0; i < n; i++) {
            __asm__ volatile("" : "+r"(x));
            x += i;
            __asm__ volatile("" : "+r"(x));
        }
        const double each = (cpu() - t) / (double)n;
        best = each < best ? each : best;
    }
    return best;
}
#if defined(__x86_64__)
#define PEAK(name, flags, one, per)                                                                                              \
    __attribute__((target(flags), noinline)) static double name(void) {                                                          \
        const long loops = 200000;                                                                                               \
        const double t = cpu();                                                                                                  \
        for (long i = 0; i < loops; i++) {                                                                                       \
            __asm__ volatile(one(0) one(1) one(2) one(3) one(4) one(5) one(6) one(7) one(8) one(9) one(10)::                     \
                                 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",      \
                                   "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                                                 \
        }                                                                                                                        \
        return 2 * 11.0 * (per) * (double)loops / (cpu() - t) / 1e9;                                                             \
    }
/* As the issue of the kernels counts AVX2's peak: maddubs, madd, add. */
#define U8(i)                                                                                                                    \
    "vpmaddubsw %%ymm14, %%ymm15, %%ymm13\n vpmaddwd %%ymm13, %%ymm12, %%ymm13\n vpaddd %%ymm13, %%ymm" #i ", %%ymm" #i "\n"
#define DOT(i) "vpdpbusd %%zmm14, %%zmm15, %%zmm" #i "\n"
PEAK(peak_avx2, "avx2", U8, 32)
PEAK(peak_vnni, "avx512f,avx512vnni", DOT, 64)
#endif
static double peak_of(const char *name) {
    double best = 0;
    for (int r = 0; r < 20; r++) {
        double p = 0;
#if defined(__x86_64__)
        p = !strcmp(name, "avx512vnni") ? peak_vnni() : !strcmp(name, "avx2") ? peak_avx2() : 0;
#endif
        (void)name;
        best = p > best ? p : best;
    }
    return best;
}

/* ---- one step ---- */

typedef struct bench {
    fr_tensor q, k, v, lengths, k_scale, v_scale, y;
    fr_tensor *in[12], *out[1];
    int64_t attrs[9], length[1];
    frugal_error err;
    fr_call call;
    uint8_t *scratch, *codes, *scales;
    int64_t layer_bytes;
} bench;

static fr_tensor tensor(int dtype, int rank, const int64_t *dims, void *data) {
    fr_tensor t = {.dtype = (uint8_t)dtype, .rank = (uint8_t)rank, .data = data, .n = 1};
    for (int i = 0; i < rank; i++) {
        t.dims[i] = dims[i], t.n *= dims[i];
    }
    t.bytes = t.n * fr_dtype_bytes(dtype);
    return t;
}
static int64_t float_bits(double x) {
    int64_t v;
    memcpy(&v, &x, 8);
    return v;
}

static void open_bench(bench *b, int dtype, int64_t s) {
    const int64_t q[3] = {1, s, H * D}, k[4] = {1, G, KEYS, D}, scale[3] = {1, G, KEYS}, one[1] = {1};
    b->layer_bytes = 2 * G * KEYS * D * fr_dtype_bytes(dtype);
    b->codes = alloc((size_t)(LAYERS * b->layer_bytes));
    for (int64_t i = 0; dtype == FR_F32 && i < LAYERS * b->layer_bytes / 4; i++) {
        ((float *)(void *)b->codes)[i] = (float)(i % 97) * 0.01f;
    }
    b->scales = alloc(LAYERS * 2 * G * KEYS * 4);
    b->q = tensor(FR_F32, 3, q, alloc((size_t)(s * H * D * 4)));
    b->y = tensor(FR_F32, 3, q, alloc((size_t)(s * H * D * 4)));
    b->k = b->v = tensor(dtype, 4, k, NULL);
    b->k_scale = b->v_scale = tensor(FR_F32, 3, scale, NULL);
    b->length[0] = KEYS;
    b->lengths = tensor(FR_I64, 1, one, b->length);
    for (int64_t i = 0; i < s * H * D; i++) {
        ((float *)(void *)b->q.data)[i] = (float)(i % 89) * 0.02f - 0.8f;
    }
    for (int64_t i = 0; i < LAYERS * 2 * G * KEYS; i++) {
        ((float *)(void *)b->scales)[i] = 0.01f;
    }
    const int64_t attrs[9] = {H, G, float_bits(0.125), 0, 0, -1, 0, 0, 0};
    memcpy(b->attrs, attrs, sizeof attrs);
    fr_tensor *in[12] = {&b->q, &b->k, &b->v, NULL, &b->lengths};
    if (dtype == FR_I8) {
        in[6] = &b->k_scale, in[7] = &b->v_scale;
    }
    memcpy(b->in, in, sizeof in);
    b->out[0] = &b->y;
}

static void prepare(bench *b, const frugal_isa *isa, frugal_pool *pool, int32_t threads) {
    fr_scratch s = {0, 0};
    b->call = (fr_call){.isa = isa,
                        .pool = pool,
                        .threads = threads,
                        .n_in = 9,
                        .n_out = 1,
                        .n_attr = 9,
                        .in = b->in,
                        .out = b->out,
                        .attrs = b->attrs,
                        .err = &b->err};
    if (fr_attention_kept_check(&b->call) != FRUGAL_OK) {
        printf("%s\n", b->err.what);
        exit(1);
    }
    fr_attention_kept_scratch(&b->call, &s);
    const int64_t shared = fr_round_up(s.shared, 64), each = fr_round_up(s.thread, 64);
    free(b->scratch);
    b->scratch = alloc((size_t)(shared + threads * each));
    b->call.shared = b->scratch, b->call.scratch = b->scratch + shared, b->call.scratch_bytes = each;
}

/* Seconds of all layers. */
static double run(bench *b, clockid_t id) {
    const double t = clock_of(id);
    for (int64_t i = 0; i < LAYERS; i++) {
        b->k.data = b->codes + i * b->layer_bytes, b->v.data = b->k.data + b->layer_bytes / 2;
        b->k_scale.data = b->scales + i * 2 * G * KEYS * 4, b->v_scale.data = b->k_scale.data + G * KEYS * 4;
        fr_attention_kept_run(&b->call);
    }
    return clock_of(id) - t;
}

static void report(const frugal_isa *isa, const char *what, int dtype, int64_t s, int rounds, double second_per_cycle,
                   double peak) {
    bench b = {0};
    double *t[2] = {alloc((size_t)rounds * 8), alloc((size_t)rounds * 8)};
    frugal_pool *pool = NULL;
    const size_t bytes = frugal_pool_bytes(2);
    void *mem = alloc(bytes);
    open_bench(&b, dtype, s);
    frugal_pool_start(&pool, mem, bytes, 2);
    for (int r = 0; r < rounds; r++) {
        prepare(&b, isa, NULL, 1);
        t[0][r] = run(&b, CLOCK_THREAD_CPUTIME_ID);
        prepare(&b, isa, pool, 2);
        t[1][r] = run(&b, CLOCK_MONOTONIC);
    }
    frugal_pool_stop(pool);
    for (int i = 0; i < 2; i++) {
        qsort(t[i], (size_t)rounds, sizeof(double), by_size);
    }
    const double cycles = t[0][0] / second_per_cycle / (LAYERS * G * KEYS), op = 4.0 * LAYERS * H * KEYS * D * (double)s;
    printf("%-11s %-16s 1 thread %8.3f ms (median %8.3f), 2 threads %8.3f ms (median %8.3f), %7.1f cycles a position, %3.0f %% "
           "of the int8 peak\n",
           isa->name, what, 1e3 * t[0][0], 1e3 * t[0][rounds / 2], 1e3 * t[1][0], 1e3 * t[1][rounds / 2], cycles,
           peak > 0 ? 100 * op / t[0][0] / 1e9 / peak : 0);
    if (dtype == FR_I8 && s == 1 && peak > 0) {
        printf("%-11s %-16s scaled to 221 Gop/s a core: 2 threads %.3f ms\n", isa->name, "", 1e3 * t[1][0] * peak / 221);
    }
    fflush(stdout);
    void *all[] = {b.codes, b.scales, b.q.data, b.y.data, b.scratch, t[0], t[1], mem};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]);
    }
}

int main(int argc, char **argv) {
    const int rounds = argc > 1 ? atoi(argv[1]) : 20;
    const double second = cycle();
    printf("%d layers, %d key heads, %d query heads of %d, %d keys; %.2f GHz\n", LAYERS, G, H, D, KEYS, 1e-9 / second);
    for (uint32_t i = 0; rounds > 0 && frugal_isa_list(i); i++) {
        const frugal_isa *isa = frugal_isa_find(frugal_isa_list(i));
        if ((argc > 2 && strcmp(argv[2], isa->name) != 0) || (argc <= 2 && isa == fr_isa_scalar)) {
            continue;
        }
        const double peak = peak_of(isa->name);
        printf("%-11s int8 peak %.0f Gop/s\n", isa->name, peak);
        report(isa, "int8", FR_I8, 1, rounds, second, peak);
        report(isa, "fp16", FR_F16, 1, rounds, second, peak);
        report(isa, "fp32", FR_F32, 1, rounds, second, peak);
        report(isa, "int8, 4 queries", FR_I8, 4, rounds, second, peak);
        const int few = rounds / 10 > 0 ? rounds / 10 : 1;
        report(isa, "int8, 256 queries", FR_I8, 256, few, second, peak);
        report(isa, "fp32, 256 queries", FR_F32, 256, few, second, peak);
    }
    return 0;
}
