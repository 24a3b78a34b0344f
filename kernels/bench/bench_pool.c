/* bench_pool.c - what handing out work costs: latencies of a job while the workers are awake and after a pause, a chain of small
 * jobs with sequential pieces between them, and the same chain while another process keeps one CPU busy.
 *
 *     bench_pool [threads]
 *
 * The last column is the time that this program's threads stood in the system's queues in that measurement: above a few percent
 * somebody else wanted the CPUs, and the line says more about them than about the pool. */
#define _GNU_SOURCE
#include <assert.h>
#include <dirent.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "isa.h"

enum { ROUNDS = 300, JOBS = 40, UNITS = 16 };

static int64_t units_per_us; /* steps of the chain below in a microsecond */

static uint32_t spin(int64_t steps, uint32_t x) {
    for (int64_t i = 0; i < steps; i++) {
        x = x * 1664525u + 1013904223u;
        __asm__ volatile("" : "+r"(x));
    }
    return x;
}

static void pause_for(int64_t ns) { nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL); }

/* Nanoseconds that the threads of this process could have run and did not. */
static int64_t queued(void) {
    DIR *d = opendir("/proc/self/task");
    int64_t sum = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[300];
        long long ran, waited;
        snprintf(path, sizeof path, "/proc/self/task/%s/schedstat", e->d_name);
        FILE *f = e->d_name[0] != '.' ? fopen(path, "r") : NULL;
        if (f && fscanf(f, "%lld %lld", &ran, &waited) == 2)
            sum += waited;
        if (f)
            fclose(f);
    }
    if (d)
        closedir(d);
    return sum;
}

typedef struct job {
    int64_t steps;
} job;

static void unit(void *ctx, int64_t i, int32_t thread) {
    const job *j = ctx;
    (void)thread;
    (void)spin(j->steps, (uint32_t)i);
}

static int by_value(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

typedef struct spread {
    double low, median, high; /* microseconds: 10 %, 50 %, 90 % */
    double queued;            /* of the time, in percent */
} spread;

/* The time of a call of f, after a pause of gap nanoseconds each. */
static spread measure(void (*f)(frugal_pool *), frugal_pool *pool, int rounds, int64_t gap) {
    int64_t t[ROUNDS], sum = 0;
    const int64_t before = queued();
    f(pool);
    for (int i = 0; i < rounds; i++) {
        if (gap)
            pause_for(gap);
        const int64_t start = frugal_clock();
        f(pool);
        t[i] = frugal_clock() - start;
        sum += t[i];
    }
    const double late = 100.0 * (double)(queued() - before) / (double)sum;
    qsort(t, (size_t)rounds, sizeof *t, by_value);
    return (spread){(double)t[rounds / 10] * 1e-3, (double)t[rounds / 2] * 1e-3, (double)t[rounds - 1 - rounds / 10] * 1e-3,
                    late};
}

static void line(const char *what, spread s) {
    printf("%-58s %9.2f %9.2f %9.2f us  %5.1f %%\n", what, s.low, s.median, s.high, s.queued);
}

static void run_units(frugal_pool *pool, int64_t n, double us) {
    job j = {(int64_t)(us * (double)units_per_us)};
    fr_pool_run(pool, n, unit, &j);
}

static void empty(frugal_pool *pool) { run_units(pool, UNITS, 0); }
static void small(frugal_pool *pool) { run_units(pool, UNITS, 0.5); }
static void medium(frugal_pool *pool) { run_units(pool, UNITS, 4); }
static void large(frugal_pool *pool) { run_units(pool, 4 * UNITS, 16); }
static void chain(frugal_pool *pool) {
    for (int i = 0; i < JOBS; i++) {
        run_units(pool, UNITS, 2.5);
        (void)spin(2 * units_per_us, 1);
    }
}
/* As MiniLM with 16 tokens: jobs of a few tens of microseconds for one millisecond. */
static void long_chain(frugal_pool *pool) {
    for (int i = 0; i < 10; i++)
        chain(pool);
}

static void calibrate(void) {
    int64_t best = INT64_MAX;
    for (int i = 0; i < 50; i++) {
        const int64_t start = frugal_clock();
        (void)spin(100000, 1);
        const int64_t t = frugal_clock() - start;
        best = t < best ? t : best;
    }
    units_per_us = 100000 * 1000 / best;
}

static pid_t hog(void) {
    const pid_t child = fork();
    if (child == 0) {
        for (;;)
            (void)spin(1 << 20, 1);
    }
    return child;
}

int main(int argc, char **argv) {
    const int32_t threads = argc > 1 ? atoi(argv[1]) : 2;
    frugal_pool *pool = NULL;
    const size_t size = (frugal_pool_bytes(threads) + 63) / 64 * 64;
    void *memory = aligned_alloc(64, size);
    if (!memory || frugal_pool_start(&pool, memory, size, threads) != FRUGAL_OK)
        return 1;
    calibrate();
    pause_for(50000000); /* the workers find their CPUs */
    printf("%d threads                                       10 %%      50 %%      90 %%     queued\n", (int)threads);
    line("16 empty items, no pause", measure(empty, pool, ROUNDS, 0));
    line("16 items of 0.5 us, no pause", measure(small, pool, ROUNDS, 0));
    line("16 items of 4 us, one thread", measure(medium, NULL, ROUNDS, 0));
    line("16 items of 4 us, no pause", measure(medium, pool, ROUNDS, 0));
    line("16 items of 4 us after 200 us of sleep", measure(medium, pool, ROUNDS, 200000));
    line("16 items of 4 us after 3 ms of sleep", measure(medium, pool, ROUNDS, 3000000));
    line("16 empty items after 3 ms of sleep", measure(empty, pool, ROUNDS, 3000000));
    line("64 items of 16 us after 3 ms of sleep", measure(large, pool, ROUNDS, 3000000));
    const spread alone = measure(chain, NULL, 100, 0), both = measure(chain, pool, ROUNDS, 0);
    line("40 jobs of 40 us, 2 us between, one thread", alone);
    line("40 jobs of 40 us, 2 us between", both);
    line("40 jobs of 40 us, 2 us between, after 3 ms of sleep", measure(chain, pool, ROUNDS, 3000000));
    const spread calm = measure(long_chain, pool, 60, 0);
    line("400 jobs of 40 us", calm);
    const pid_t child = hog();
    pause_for(50000000);
    const spread busy = measure(long_chain, pool, 60, 0);
    line("400 jobs of 40 us, one CPU busy", busy);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    printf("two threads over one: %.2f; one CPU busy: / %.2f (median), / %.2f (10 %%)\n", alone.median / both.median,
           busy.median / calm.median, busy.low / calm.low);
    frugal_pool_stop(pool);
    free(memory);
    return 0;
}
