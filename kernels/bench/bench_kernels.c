/* bench_kernels.c - the products of whole layers by every instruction set of this CPU, beside what the machine can do at most,
 * measured between them in the same rounds.  One JSON object a line, with the figures of every round.
 *
 *     bench_kernels [rounds] [the only instruction set]
 *     valgrind --tool=callgrind --toggle-collect=counted --dump-after=counted bench_kernels count
 * The second form runs each kernel once and prints "name: n", n multiply-adds or elements, in the order of the dumps.  Work is
 * cut as ops_linear.c cuts it.  One thread: its CPU time; more: wall time.  Rates: 10^9 operations a second, a multiply-add
 * counting two; for products of one row also 10^9 bytes of weights a second, and cycles for a block of 8 rows x 32 weights, of
 * one thread.
 */
#define _GNU_SOURCE
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../include/frugal_plan.h"
#include "../src/isa.h"

enum { MAX_ROUNDS = 101, MAX_ISAS = 8, MAX_LINEARS = 7, STREAM_BYTES = 128 << 20, ROW = 1536 };
typedef enum form { W4, W8_BLOCK, W8_TOKEN, F32 } form;
static const char *const form_name[] = {"int4", "int8, blocks", "int8, tokens", "float32"};

typedef struct linear {
    int64_t n, k;
} linear;
/* The linears of a layer: SmolLM2-135M, all-MiniLM-L6-v2; and a small one, to be counted. */
static const linear smol[] = {{576, 576}, {192, 576}, {192, 576}, {576, 576}, {1536, 576}, {1536, 576}, {576, 1536}};
static const linear minilm[] = {{384, 384}, {384, 384}, {384, 384}, {384, 384}, {1536, 384}, {384, 1536}};
static const linear small[] = {{192, 1536}};

typedef struct work {
    const char *name;
    form form;
    int64_t m;
    const linear *linears;
    int count, layers;
} work;
static const work timed[] = {
    {"GEMV, SmolLM2-135M", W4, 1, smol, 7, 30},     {"GEMM, SmolLM2-135M", W4, 512, smol, 7, 1},
    {"GEMM, MiniLM", W4, 1024, minilm, 6, 1},       {"GEMM, MiniLM", W8_BLOCK, 128, minilm, 6, 1},
    {"GEMM, MiniLM", W8_BLOCK, 1024, minilm, 6, 1}, {"GEMM, MiniLM", W8_TOKEN, 128, minilm, 6, 1},
    {"GEMM, MiniLM", W8_TOKEN, 1024, minilm, 6, 1}, {"GEMM, MiniLM", F32, 128, minilm, 6, 1},
};
static const work counted_work[] = {
    {"gemm", W4, 1, small, 1, 1},        {"gemm", W4, 64, small, 1, 1},  {"gemm", W8_BLOCK, 64, small, 1, 1},
    {"gemm", W8_TOKEN, 64, small, 1, 1}, {"gemm", F32, 64, small, 1, 1},
};

/* ---- operands ---- */

typedef struct operands {
    const work *w;
    uint8_t *weights[MAX_LINEARS]; /* of all layers */
    size_t layer_bytes[MAX_LINEARS];
    float *wscale, *x, *y;
    int8_t *q;
    float *scale;
    int32_t *sum;
    uint8_t *scratch; /* of two threads */
    size_t scratch_bytes;
} operands;

static void *alloc(size_t bytes) {
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes + 64)) {
        exit(2);
    }
    uint32_t state = 1;
    for (size_t i = 0; i < bytes / 4; i++) {
        state = state * 1664525 + 1013904223;
        ((uint32_t *)p)[i] = state;
    }
    return p;
}
static float *floats(size_t n, float around) {
    float *p = alloc(n * 4);
    for (size_t i = 0; i < n; i++) {
        p[i] = around * (1.0f - (float)(i * 37 % 101) * 0.02f);
    }
    return p;
}
static size_t weight_bytes(form f, int64_t n, int64_t k) {
    return f == W4 ? (size_t)(n / FR_PANEL * (k / FR_BLOCK) * FR_W4_BLOCK) : (size_t)(n * k) * (f == F32 ? 4 : 1);
}
static uint8_t *weights(form f, size_t bytes) {
    if (f == F32) {
        return (uint8_t *)floats(bytes / 4, 0.05f);
    }
    uint8_t *p = alloc(bytes);
    for (size_t i = 0; f == W4 && i < bytes; i += FR_W4_BLOCK) { /* scales are normal halves, zero points 0 .. 15 */
        for (int r = 0; r < FR_PANEL; r++) {
            memcpy(p + i + 256 + 2 * (size_t)r, "\x00\x14", 2);
            p[i + 288 + (size_t)r] &= 15;
        }
    }
    for (size_t i = 0; f != W4 && i < bytes; i++) {
        p[i] = p[i] == 128 ? 0 : p[i];
    }
    return p;
}
static operands prepare(const work *w) {
    operands o = {.w = w};
    int64_t k = 0, n = 0;
    for (int i = 0; i < w->count; i++) {
        o.layer_bytes[i] = weight_bytes(w->form, w->linears[i].n, w->linears[i].k);
        o.weights[i] = weights(w->form, o.layer_bytes[i] * (size_t)w->layers);
        k = w->linears[i].k > k ? w->linears[i].k : k;
        n = w->linears[i].n > n ? w->linears[i].n : n;
    }
    o.wscale = floats((size_t)n, 0.001f);
    o.x = floats((size_t)(w->m * k > ROW ? w->m * k : ROW), 1.0f);
    o.y = alloc((size_t)(w->m * n > ROW ? w->m * n : ROW) * 4);
    o.q = alloc((size_t)(w->m * k));
    o.scale = alloc((size_t)(w->m * k / FR_BLOCK) * 4);
    o.sum = alloc((size_t)(w->m * k / FR_BLOCK) * 4);
    const char *isa;
    for (uint32_t i = 0; (isa = frugal_isa_list(i)); i++) {
        const size_t s = (frugal_isa_find(isa)->scratch_bytes(w->m, k) + 63) / 64 * 64;
        o.scratch_bytes = s > o.scratch_bytes ? s : o.scratch_bytes;
    }
    o.scratch = alloc(2 * o.scratch_bytes);
    return o;
}
static void release(operands *o) {
    for (int i = 0; i < o->w->count; i++) {
        free(o->weights[i]);
    }
    void *all[] = {o->wscale, o->x, o->y, o->q, o->scale, o->sum, o->scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]);
    }
}

/* ---- the product of a linear ---- */

typedef struct job {
    const frugal_isa *isa;
    const operands *o;
    const uint8_t *w;
    fr_act8 a;
    int64_t n, panels, each, chunks;
} job;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static void task(void *ctx, int64_t i, int32_t thread) {
    const job *j = ctx;
    const operands *o = j->o;
    const int64_t k = j->a.kp, chunk = j->isa->chunk, m0 = i % j->chunks * chunk, m1 = least(o->w->m, m0 + chunk);
    const int64_t p0 = i / j->chunks * j->each, p1 = least(j->panels, p0 + j->each), n = (p1 - p0) * FR_PANEL;
    const fr_epilogue e = {.ld = j->n, .act = FRUGAL_U_COPY};
    uint8_t *scratch = o->scratch + (size_t)thread * o->scratch_bytes;
    float *y = o->y + p0 * FR_PANEL;
    if (o->w->form == F32) {
        j->isa->gemm_f32(y + m0 * j->n, j->n, o->x + m0 * k, k, (const float *)(const void *)j->w + p0 * FR_PANEL * k, FR_PANEL,
                         FR_PANEL * k, m1 - m0, n, k, 1.0f, &e);
    } else if (o->w->form == W4) {
        j->isa->gemm_w4(y, j->n, &j->a, m0, m1, j->w + p0 * (k / FR_BLOCK) * FR_W4_BLOCK, 0, p1 - p0, n, &e, scratch);
    } else {
        j->isa->gemm_w8(y, j->n, &j->a, m0, m1, (const int8_t *)j->w + p0 * FR_PANEL * k, o->wscale + p0 * FR_PANEL, 0, p1 - p0,
                        n, &e, scratch);
    }
}
static job cut(const frugal_isa *isa, const operands *o, int i, int64_t threads) {
    const int64_t n = o->w->linears[i].n, k = o->w->linears[i].k, m = o->w->m, panels = n / FR_PANEL;
    const int64_t bytes = (int64_t)o->layer_bytes[i] / panels, chunks = (m + isa->chunk - 1) / isa->chunk;
    int64_t each = (512 << 10) / bytes;
    if (threads > 1) {
        each = least(each, (panels * chunks + 4 * threads - 1) / (4 * threads));
    }
    each = least(((each > 1 ? each : 1) + 3) / 4 * 4, panels);
    const fr_act8 a = {o->q, o->scale, o->sum, m, k, o->w->form == W4 || o->w->form == W8_BLOCK};
    return (job){isa, o, o->weights[i], a, n, panels, each, chunks};
}
static void quantize(const job *j, const operands *o) {
    const int64_t nb = j->a.kp / FR_BLOCK, scales = j->a.blocked ? nb : 1;
    for (int64_t i = 0; o->w->form != F32 && i < o->w->m; i++) {
        j->isa->quantize(o->q + i * j->a.kp, o->scale + i * scales, o->sum + i * nb, o->x + i * j->a.kp, j->a.kp, j->a.blocked);
    }
}

static double now(bool wall) {
    struct timespec t;
    clock_gettime(wall ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
/* Seconds of all layers; the activations are quantized outside of the clock. */
static double layers(const operands *o, const frugal_isa *isa, frugal_pool *pool) {
    double spent = 0;
    for (int l = 0; l < o->w->layers; l++) {
        for (int i = 0; i < o->w->count; i++) {
            job j = cut(isa, o, i, pool ? frugal_pool_threads(pool) : 1);
            j.w += (size_t)l * o->layer_bytes[i];
            quantize(&j, o);
            const double start = now(pool);
            fr_pool_run(pool, j.chunks * ((j.panels + j.each - 1) / j.each), task, &j);
            spent += now(pool) - start;
        }
    }
    return spent;
}
static double operations(const work *w) {
    double n = 0;
    for (int i = 0; i < w->count; i++) {
        n += 2.0 * (double)(w->linears[i].n * w->linears[i].k);
    }
    return n * (double)w->m * w->layers;
}

/* ---- counting ---- */

static const char *const row_name[] = {"gelu", "exp", "softmax", "layer_norm", "quantize tokens", "quantize blocks"};
enum { ROWS = sizeof row_name / sizeof *row_name };

/* The only function whose instructions are counted: a task of a product, or a row function; `row` is volatile where it is called,
 * so that the compiler makes no copy for a constant. */
static volatile int product = -1;
__attribute__((noinline)) void counted(job *j, int row);
__attribute__((noinline)) void counted(job *j, int row) {
    const operands *o = j->o;
    switch (row) {
    case -1:
        task(j, 0, 0);
        break;
    case 0:
    case 1:
        j->isa->unary(row ? FRUGAL_U_EXP : FRUGAL_U_GELU, o->y, o->x, ROW, 0, 0);
        break;
    case 2:
        (void)j->isa->softmax(o->y, ROW);
        break;
    case 3:
        j->isa->layer_norm(o->y, o->x, o->x, o->x, o->x, ROW, 1e-5f);
        break;
    default:
        j->isa->quantize(o->q, o->scale, o->sum, o->x, ROW, row == 5);
    }
}
static void count(const frugal_isa *isa) {
    for (size_t i = 0; i < sizeof counted_work / sizeof *counted_work; i++) {
        operands o = prepare(&counted_work[i]);
        job j = cut(isa, &o, 0, 1);
        quantize(&j, &o);
        j.each = j.panels;
        const double rows = (double)least(o.w->m, isa->chunk), n = operations(o.w) / (double)o.w->m * rows;
        counted(&j, product);
        printf("%s %s, %.0f rows: %.0f\n", o.w->name, form_name[o.w->form], rows, n / 2);
        for (int r = 0; r < ROWS && i == 0; r++) {
            memcpy(o.y, o.x, ROW * sizeof *o.y);
            const volatile int row = r;
            counted(&j, row);
            printf("%s: %d\n", row_name[r], ROW);
        }
        release(&o);
    }
    printf("isa %s\n", isa->name);
}

/* ---- timing ---- */

typedef struct series {
    double rate[MAX_ROUNDS], limit[MAX_ROUNDS], read[MAX_ROUNDS], ghz[MAX_ROUNDS];
} series;

static void print(const char *name, const double *v, int rounds, const char *end) {
    printf("\"%s\": [", name);
    for (int i = 0; i < rounds; i++) {
        printf("%s%.4g", i ? ", " : "", v[i]);
    }
    printf("]%s", end);
}
static void report(const work *w, const frugal_isa *isa, int threads, const series *s, int rounds) {
    size_t bytes = 0;
    for (int i = 0; i < w->count; i++) {
        bytes += weight_bytes(w->form, w->linears[i].n, w->linears[i].k);
    }
    printf("{\"work\": \"%s\", \"weights\": \"%s\", \"rows\": %lld, \"isa\": \"%s\", \"threads\": %d, ", w->name,
           form_name[w->form], (long long)w->m, isa->name, threads);
    printf("\"bytes\": %zu, \"operations\": %.0f, ", bytes * (size_t)w->layers, operations(w));
    print("gops", s->rate, rounds, ", ");
    print("peak_gops", s->limit, rounds, ", ");
    print("read_gbps", s->read, rounds, ", ");
    print("ghz", s->ghz, rounds, "}\n");
    fflush(stdout);
}
static void measure(const work *w, const char *only, frugal_pool *pool, const void *stream, int rounds) {
    static series all[MAX_ISAS][2];
    operands o = prepare(w);
    const int32_t peak = w->form == F32 ? FRUGAL_PEAK_F32 : FRUGAL_PEAK_INT8;
    const char *name;
    for (int r = -1; r < rounds; r++) { /* the first is not counted */
        for (uint32_t i = 0; i < MAX_ISAS && (name = frugal_isa_list(i)); i++) {
            if (!strcmp(name, "scalar") || (only && strcmp(only, name))) {
                continue;
            }
            const frugal_isa *isa = frugal_isa_find(name);
            for (int t = 0; t < (pool ? 2 : 1); t++) {
                series *s = &all[i][t];
                frugal_pool *p = t ? pool : NULL;
                const int at = r < 0 ? 0 : r;
                s->rate[at] = operations(w) / layers(&o, isa, p) / 1e9;
                s->limit[at] = frugal_measure(isa, p, peak, NULL, 0);
                s->read[at] = w->m == 1 ? frugal_measure(isa, p, FRUGAL_PEAK_READ, stream, STREAM_BYTES) : 0;
                s->ghz[at] = frugal_measure(isa, NULL, FRUGAL_PEAK_CLOCK, NULL, 0);
            }
        }
    }
    for (uint32_t i = 0; i < MAX_ISAS && (name = frugal_isa_list(i)); i++) {
        for (int t = 0; strcmp(name, "scalar") && !(only && strcmp(only, name)) && t < (pool ? 2 : 1); t++) {
            report(w, frugal_isa_find(name), t ? 2 : 1, &all[i][t], rounds);
        }
    }
    release(&o);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "count")) {
        count(frugal_isa_find("auto"));
        return 0;
    }
    const int rounds = argc > 1 && atoi(argv[1]) > 0 && atoi(argv[1]) <= MAX_ROUNDS ? atoi(argv[1]) : 11;
    frugal_pool *pool = NULL;
    const size_t bytes = frugal_pool_bytes(2);
    if (frugal_cpu_count() > 1 && frugal_pool_start(&pool, alloc(bytes), bytes, 2)) {
        return 2;
    }
    const void *stream = alloc(STREAM_BYTES);
    for (size_t i = 0; i < sizeof timed / sizeof *timed; i++) {
        measure(&timed[i], argc > 2 ? argv[2] : NULL, pool, stream, rounds);
    }
    frugal_pool_stop(pool);
    return 0;
}
