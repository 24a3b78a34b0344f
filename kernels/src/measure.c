/* measure.c - what this machine can do at most: multiply-adds of an instruction set, bytes read from memory, its clock.
 *
 * The loops that give peaks are whole in assembly, on registers set to zero: a compiler hoists and spills in loops of intrinsics,
 * and denormal numbers are slow on some CPUs.  Bytes are read by C, as loads cannot be left out, in eight streams, which memory
 * systems serve better than one. */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* clock_gettime */
#endif
#include <string.h>
#include <time.h>

#include "isa.h"

enum { STREAMS = 8, LOOPS = 20000, TASKS = 48 };

/* One loop does `work` operations (or cycles): a multiply-add counts two. */
typedef struct peak {
    const char *isa; /* NULL: any */
    int32_t what;
    double work;
    void (*run)(int64_t loops);
} peak;

#if defined(__x86_64__) && defined(__GNUC__)
/* Twelve independent chains: more than latency times throughput of any x86 so far. */
#define TWELVE(one, r)                                                                                                           \
    one(r, 0) one(r, 1) one(r, 2) one(r, 3) one(r, 4) one(r, 5) one(r, 6) one(r, 7) one(r, 8) one(r, 9) one(r, 10) one(r, 11)
#define SIX(one, r) one(r, 0, 8) one(r, 1, 9) one(r, 2, 10) one(r, 3, 11) one(r, 4, 12) one(r, 5, 13)
#define ZERO(r, i) "vxorps %%xmm" #i ", %%xmm" #i ", %%xmm" #i "\n"
#define CLEAR TWELVE(ZERO, ) ZERO(, 12) ZERO(, 13) ZERO(, 14) ZERO(, 15)
#define LOOP(name, body)                                                                                                         \
    static void name(int64_t loops) {                                                                                            \
        __asm__ volatile(CLEAR "1:\n" body "dec %0\n jnz 1b\n vzeroupper\n"                                                      \
                         : "+r"(loops)::"cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",    \
                           "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                                                \
    }
#define FMA(r, i) "vfmadd231ps %%" r "14, %%" r "15, %%" r #i "\n"
#define DOT(r, i) "vpdpbusd %%" r "14, %%" r "15, %%" r #i "\n"
#define DOT_VEX(r, i) "%{vex%} vpdpbusd %%" r "14, %%" r "15, %%" r #i "\n"
#define PAIR(r, i, t)                                                                                                            \
    "vpmaddubsw %%" r "14, %%" r "15, %%" r #t "\n vpmaddwd %%" r "14, %%" r #t ", %%" r #t "\n vpaddd %%" r #t ", %%" r #i      \
    ", %%" r #i "\n"
LOOP(fma256, TWELVE(FMA, "ymm"))
LOOP(maddubs256, SIX(PAIR, "ymm"))
LOOP(dot256, TWELVE(DOT_VEX, "ymm"))
LOOP(fma512, TWELVE(FMA, "zmm"))
LOOP(dot512, TWELVE(DOT, "zmm"))
static void cycles(int64_t loops) { /* imul takes 3 cycles wherever AVX2 is */
    int64_t x = 1;
    __asm__ volatile("1:\n imul %1, %1\n imul %1, %1\n imul %1, %1\n imul %1, %1\n imul %1, %1\n dec %0\n jnz 1b\n"
                     : "+r"(loops), "+r"(x)::"cc");
}
static const peak peaks[] = {{"avx2", FRUGAL_PEAK_INT8, 6 * 64, maddubs256},
                             {"avx2", FRUGAL_PEAK_F32, 12 * 16, fma256},
                             {"avxvnni", FRUGAL_PEAK_INT8, 12 * 64, dot256},
                             {"avxvnni", FRUGAL_PEAK_F32, 12 * 16, fma256},
                             {"avx512vnni", FRUGAL_PEAK_INT8, 12 * 128, dot512},
                             {"avx512vnni", FRUGAL_PEAK_F32, 12 * 32, fma512},
                             {NULL, FRUGAL_PEAK_CLOCK, 15, cycles}};

#elif defined(__aarch64__) && defined(__GNUC__)
#define SIXTEEN(one)                                                                                                             \
    one(0) one(1) one(2) one(3) one(4) one(5) one(6) one(7) one(8) one(9) one(10) one(11) one(12) one(13) one(14) one(15)
#define EIGHT(one) one(0, 8) one(1, 9) one(2, 10) one(3, 11) one(4, 12) one(5, 13) one(6, 14) one(7, 15)
#define ZERO(i) "movi v" #i ".16b, #0\n"
#define LOOP(name, arch, body)                                                                                                   \
    static void name(int64_t loops) {                                                                                            \
        __asm__ volatile(arch SIXTEEN(ZERO) ZERO(16) ZERO(17) "1:\n" body "subs %0, %0, #1\n b.ne 1b\n"                          \
                         : "+r"(loops)::"cc", "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12",   \
                           "v13", "v14", "v15", "v16", "v17");                                                                   \
    }
#define FMA(i) "fmla v" #i ".4s, v16.4s, v17.4s\n"
#define SDOT(i) "sdot v" #i ".4s, v16.16b, v17.16b\n"
#define SMMLA(i) "smmla v" #i ".4s, v16.16b, v17.16b\n"
#define LONG(i, t) "smull v" #t ".8h, v16.8b, v17.8b\n smlal2 v" #t ".8h, v16.16b, v17.16b\n sadalp v" #i ".4s, v" #t ".8h\n"
LOOP(fma128, "", SIXTEEN(FMA))
LOOP(long128, "", EIGHT(LONG))
LOOP(sdot128, ".arch armv8.2-a+dotprod\n", SIXTEEN(SDOT))
LOOP(smmla128, ".arch armv8.2-a+i8mm\n", SIXTEEN(SMMLA))
static void cycles(int64_t loops) {
    int64_t x = 1;
    __asm__ volatile("1:\n add %1, %1, %0\n add %1, %1, %0\n add %1, %1, %0\n add %1, %1, %0\n add %1, %1, %0\n add %1, %1, %0\n"
                     "add %1, %1, %0\n add %1, %1, %0\n subs %0, %0, #1\n b.ne 1b\n"
                     : "+r"(loops), "+r"(x)::"cc");
}
static const peak peaks[] = {{"neon", FRUGAL_PEAK_INT8, 8 * 32, long128},
                             {"neon", FRUGAL_PEAK_F32, 16 * 8, fma128},
                             {"dotprod", FRUGAL_PEAK_INT8, 16 * 32, sdot128},
                             {"dotprod", FRUGAL_PEAK_F32, 16 * 8, fma128},
                             {"i8mm", FRUGAL_PEAK_INT8, 16 * 64, smmla128},
                             {"i8mm", FRUGAL_PEAK_F32, 16 * 8, fma128},
                             {NULL, FRUGAL_PEAK_CLOCK, 8, cycles}};

#else
static const peak peaks[] = {{NULL, -1, 0, NULL}};
#endif

typedef struct job {
    const peak *p;
    const uint64_t *memory;
    int64_t words; /* of a task, in each of its streams */
    uint64_t mix[TASKS];
} job;

static void run_peak(void *ctx, int64_t i, int32_t thread) {
    (void)i, (void)thread;
    ((const job *)ctx)->p->run(LOOPS);
}
static void run_read(void *ctx, int64_t i, int32_t thread) {
    job *j = ctx;
    const int64_t n = j->words;
    const uint64_t *m = j->memory + i * STREAMS * n;
    uint64_t a[8] = {0};
    (void)thread;
    for (int64_t k = 0; k + 8 <= n; k += 8) { /* a line of every stream */
        for (int s = 0; s < STREAMS; s++) {
            for (int w = 0; w < 8; w++)
                a[w] ^= m[s * n + k + w];
        }
    }
    for (int w = 0; w < 8; w++)
        j->mix[i] ^= a[w];
}

/* CPU time of this thread where it works alone: what else runs on the machine does not count. */
static double seconds(const frugal_pool *pool) {
    struct timespec t;
    clock_gettime(pool ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
static double rate(frugal_pool *pool, fr_task task, job *j, double work) {
    const double start = seconds(pool);
    fr_pool_run(pool, TASKS, task, j);
    const double spent = seconds(pool) - start;
    return spent > 0 ? TASKS * work / spent / 1e9 : 0;
}

double frugal_measure(const frugal_isa *isa, frugal_pool *pool, int32_t what, const void *memory, size_t bytes) {
    job j = {.memory = memory};
    if (what == FRUGAL_PEAK_READ) {
        j.words = memory ? (int64_t)(bytes / TASKS / STREAMS / 64) * 8 : 0;
        return j.words ? rate(pool, run_read, &j, (double)j.words * 8 * STREAMS) : 0;
    }
    for (size_t i = 0; i < sizeof peaks / sizeof *peaks; i++) {
        j.p = &peaks[i];
        if (j.p->what == what && (!j.p->isa || (isa && !strcmp(j.p->isa, frugal_isa_name(isa)))))
            return rate(pool, run_peak, &j, j.p->work * LOOPS);
    }
    return 0;
}
