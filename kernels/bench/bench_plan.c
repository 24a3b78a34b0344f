/* bench_plan.c - times a plan through the session, without a binding, by instruction set and step.
 *
 *     bench_plan PLAN [options]    -i avx2,scalar   instruction sets, taking turns (default: the best)
 *                                  -r 200           rounds          -t 1   threads
 *                                  -d 1,49,10,1     all inputs' dims one after another, where they are symbols
 *                                  -s               the steps that take longest, too
 * Prints microseconds of the thread's CPU time (wall time with threads): best and median of the rounds; steps: best.  Inputs are
 * small pseudo-random numbers.
 */
#define _GNU_SOURCE
#include <stdbool.h>

#include "plan_file.h"

enum { MAX_ISAS = 8, MAX_IO = 64, MAX_DIMS = 512 };

static clockid_t clock_id = CLOCK_THREAD_CPUTIME_ID;
static int64_t now(void) {
    struct timespec t;
    clock_gettime(clock_id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void fill(void *p, int64_t n, uint32_t dtype) {
    uint32_t state = 1;
    for (int64_t i = 0; i < n; i++) {
        state = state * 1664525 + 1013904223;
        const uint32_t u = state >> 16;
        if (dtype == 1) {
            ((float *)p)[i] = (float)u / 65536.0f;
        } else if (dtype == 2 || dtype == 3) {
            ((uint8_t *)p)[i] = (uint8_t)u;
        } else if (dtype == 6) {
            ((int32_t *)p)[i] = (int32_t)(u % 100);
        } else if (dtype == 7) {
            ((int64_t *)p)[i] = u % 100;
        }
    }
}

typedef struct run {
    const char *name;
    frugal_session *s;
    void *arena;
    size_t bytes;
    const void *in[MAX_IO];
    frugal_record *records;
    int64_t *best, *times, operations;
} run;

static void open_run(run *r, const frugal_plan *plan, frugal_pool *pool, const int64_t *dims, int rounds) {
    frugal_error e = {0};
    const frugal_isa *isa = frugal_isa_find(r->name);
    if (!isa) {
        fprintf(stderr, "%s: not on this machine\n", r->name);
        exit(2);
    }
    const size_t n = frugal_session_bytes(plan);
    must(frugal_session_init(&r->s, alloc(n), n, plan, isa, pool, (uint64_t)1 << 33, &e), &e);
    must(frugal_session_resolve(r->s, dims, &e), &e);
    for (uint32_t i = 0; i < plan->n_inputs; i++) {
        const int32_t t = frugal_plan_input(plan, i);
        const uint32_t dtype = plan->tensors[t].dtype;
        int64_t shape[FRUGAL_MAX_RANK], count = 1;
        const int32_t rank = frugal_session_shape(r->s, t, shape);
        for (int32_t a = 0; a < rank; a++) {
            count *= shape[a];
        }
        void *data = alloc((size_t)count * width(dtype));
        fill(data, count, dtype);
        r->in[i] = data;
    }
    r->records = alloc(plan->n_steps * sizeof *r->records);
    r->best = alloc(plan->n_steps * sizeof *r->best);
    r->times = alloc((size_t)rounds * sizeof *r->times);
    for (uint32_t i = 0; i < plan->n_steps; i++) {
        r->best[i] = INT64_MAX;
    }
}

static void once(run *r) {
    frugal_error e = {0};
    for (;;) {
        if (frugal_session_arena_bytes(r->s) > r->bytes) {
            r->bytes = frugal_session_arena_bytes(r->s);
            r->arena = alloc(r->bytes);
        }
        const frugal_status s = frugal_session_run(r->s, r->arena, r->bytes, r->in, NULL, &e);
        if (s != FRUGAL_MORE) {
            must(s, &e);
            return;
        }
    }
}

static int compare(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static void measure(run *r, int round, int each) {
    once(r);
    const int64_t start = now();
    for (int i = 0; i < each; i++) {
        once(r);
    }
    r->times[round] = (now() - start) / each;
}

static void steps(run *r, const frugal_plan *plan, int rounds) {
    frugal_session_record(r->s, r->records, now);
    for (int k = 0; k < rounds; k++) {
        once(r);
        for (uint32_t i = 0; i < plan->n_steps; i++) {
            if (r->records[i].nanoseconds < r->best[i]) {
                r->best[i] = r->records[i].nanoseconds;
            }
        }
    }
    for (uint32_t i = 0; i < plan->n_steps; i++) {
        const struct frugal_plan_step *s = plan->steps + i;
        const int32_t out = plan->args[s->args + s->n_in];
        int64_t shape[FRUGAL_MAX_RANK];
        const int32_t rank = frugal_session_shape(r->s, out, shape);
        printf("%4u op %3u %9.2f us %6.1f Gop/s  [", i, s->op, 1e-3 * (double)r->best[i],
               (double)r->records[i].operations / (double)(r->best[i] > 0 ? r->best[i] : 1));
        for (int32_t a = 0; a < rank; a++) {
            printf(a ? ", %lld" : "%lld", (long long)shape[a]);
        }
        printf("]  %s\n", plan->text + s->name);
    }
}

int main(int argc, char **argv) {
    static run runs[MAX_ISAS];
    static int64_t dims[MAX_DIMS];
    int rounds = 200, threads = 1, n = 0, n_dims = 0;
    bool detail = false;
    const char *names = "auto", *given = "";
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "-s")) {
            detail = true;
        } else if (i + 1 < argc && argv[i][0] == '-') {
            const char *v = argv[++i];
            switch (argv[i - 1][1]) {
            case 'i':
                names = v;
                break;
            case 'r':
                rounds = atoi(v);
                break;
            case 't':
                threads = atoi(v);
                break;
            default:
                given = v;
                break;
            }
        }
    }
    if (argc < 2 || rounds < 1) {
        fprintf(stderr, "bench_plan PLAN [-i isa,isa] [-r rounds] [-t threads] [-d dims] [-s]\n");
        return 2;
    }
    size_t size;
    void *bytes = read_file(argv[1], &size);
    frugal_plan plan;
    frugal_error e = {0};
    frugal_pool *pool = NULL;
    must(frugal_plan_open(&plan, bytes, size, &e), &e);
    for (int i = 0; i < MAX_DIMS; i++) {
        dims[i] = 1;
    }
    for (uint32_t i = 0, at = 0; i < plan.n_inputs; i++) { /* fixed dims as they are, symbols 1 */
        const struct frugal_plan_tensor *t = plan.tensors + frugal_plan_input(&plan, i);
        for (uint32_t a = 0; a < (uint32_t)t->rank && at < MAX_DIMS; a++, at++) {
            const int64_t d = t->dims[a];
            dims[at] = d >= 0 ? d : 1;
        }
    }
    char *list = strdup(given);
    for (char *p = strtok(list, ","); p && n_dims < MAX_DIMS; p = strtok(NULL, ",")) {
        dims[n_dims++] = atoll(p);
    }
    if (threads > 1) {
        clock_id = CLOCK_MONOTONIC;
        const size_t b = frugal_pool_bytes(threads);
        must(frugal_pool_start(&pool, alloc(b), b, threads), &e);
    }
    list = strdup(names);
    for (char *p = strtok(list, ","); p && n < MAX_ISAS; p = strtok(NULL, ",")) {
        runs[n].name = p;
        open_run(&runs[n++], &plan, pool, dims, rounds);
    }
    for (int i = 0; i < n; i++) {
        once(&runs[i]);
    }
    const int64_t start = now();
    once(&runs[0]);
    const int64_t took = now() - start;
    const int each = took > 200000 ? 1 : (int)(200000 / (took > 1000 ? took : 1000));
    for (int k = 0; k < rounds; k++) {
        for (int i = 0; i < n; i++) {
            measure(&runs[i], k, each);
        }
    }
    for (int i = 0; i < n; i++) {
        qsort(runs[i].times, (size_t)rounds, sizeof(int64_t), compare);
        printf("%-12s best %9.2f us, median %9.2f us\n", runs[i].name, 1e-3 * (double)runs[i].times[0],
               1e-3 * (double)runs[i].times[rounds / 2]);
        if (detail) {
            steps(&runs[i], &plan, rounds);
        }
    }
    if (pool) {
        frugal_pool_stop(pool);
    }
    return 0;
}
