/* check.h - what the C tests of whole plans share: values, and whole lives of sessions in every instruction set. */
#ifndef CHECK_H
#define CHECK_H
#include <math.h>

#include "count.h"
#include "isa.h"
#include "ops.h"
#include "plan_builder.h"

/* ---- values ---- */

static inline int64_t one_of(int n, const int64_t *v) { return v[upto(n)]; }
#define ONE_OF(...) one_of(PB_LIST(__VA_ARGS__))
static inline float *floats(int64_t n) {
    float *p = alloc((size_t)n * 4);
    for (int64_t i = 0; i < n; i++)
        p[i] = uniform();
    return p;
}
/* Within tolerance of b, relative where b is large; a NaN or an infinity only of its like. */
static inline int close_to(double a, double b, double tolerance) {
    if (b != b)
        return a != a;
    if (isinf(b))
        return a == b;
    return fabs(a - b) <= tolerance * (1 + fabs(b));
}

/* ---- running a plan ---- */

enum { MAX_IO = 16, GUARD = 0x77 };

typedef struct io {
    const void *in[MAX_IO];
    void *out[MAX_IO];
    size_t out_bytes[MAX_IO];
    int64_t dims[64]; /* of the inputs, one after another */
    bool fixed;       /* take them from the plan, which has no symbols */
    uint64_t limit;   /* of memory; 0: plenty */
    frugal_error err;
} io;

static const char *seed_dir; /* where plans are also written, as seeds for fuzz_plan; NULL: nowhere */
static int plans;

static inline void save_seed(const uint8_t *file, size_t size, const char *prefix) {
    char path[512];
    const int number = plans++;
    if (!seed_dir)
        return;
    snprintf(path, sizeof path, "%s/%s%03d.frugal", seed_dir, prefix, number);
    FILE *f = fopen(path, "wb");
    assert(f);
    fwrite(file, 1, size, f);
    fclose(f);
}

static inline void plan_dims(const frugal_plan *plan, int64_t *dims) {
    int n = 0;
    for (uint32_t t = 0; t < plan->n_tensors; t++) {
        for (int a = 0; plan->tensors[t].kind == FRUGAL_TENSOR_INPUT && a < plan->tensors[t].rank; a++)
            dims[n++] = plan->tensors[t].dims[a];
    }
}

/* One whole life of a session. */
static inline frugal_status live(const uint8_t *file, size_t size, io *x, const char *isa, int threads) {
    frugal_plan plan;
    frugal_session *s = NULL;
    frugal_pool *pool = NULL;
    void *pool_mem = NULL, *arena = NULL;
    frugal_status st = frugal_plan_open(&plan, file, size, &x->err);
    if (st)
        return st;
    if (x->fixed)
        plan_dims(&plan, x->dims);
    if (threads > 1) {
        pool_mem = alloc(frugal_pool_bytes(threads));
        assert(frugal_pool_start(&pool, pool_mem, frugal_pool_bytes(threads), threads) == FRUGAL_OK);
    }
    void *mem = alloc(frugal_session_bytes(&plan));
    st = frugal_session_init(&s, mem, frugal_session_bytes(&plan), &plan, frugal_isa_find(isa), pool,
                             x->limit ? x->limit : 1u << 30, &x->err);
    if (!st)
        st = frugal_session_resolve(s, x->dims, &x->err);
    if (!st) {
        arena = alloc(frugal_session_arena_bytes(s));
        st = frugal_session_run(s, arena, frugal_session_arena_bytes(s), x->in, x->out, &x->err);
    }
    free(arena);
    free(mem);
    frugal_pool_stop(pool);
    free(pool_mem);
    return st;
}

/* Another run, which must end as the first, with the same bytes and nothing written behind them. */
static inline void live_again(const uint8_t *file, size_t size, const io *x, frugal_status st, const char *isa, int threads) {
    io y = *x;
    for (int k = 0; k < MAX_IO; k++) {
        y.out[k] = x->out[k] ? alloc(x->out_bytes[k] + 1) : NULL;
        if (y.out[k])
            memset(y.out[k], GUARD, x->out_bytes[k] + 1);
    }
    int same = live(file, size, &y, isa, threads) == st;
    for (int k = 0; k < MAX_IO; k++) {
        if (x->out[k] && !st)
            same = same && memcmp(x->out[k], y.out[k], x->out_bytes[k]) == 0 && ((uint8_t *)y.out[k])[x->out_bytes[k]] == GUARD;
        free(y.out[k]);
    }
    check(same, "the same bytes, in bounds (plan, threads)", isa, plans - 1, threads);
}

/* Runs a plan in scalar, then in every instruction set with one to three threads.  Frees b. */
static inline frugal_status run_plan(pb *b, io *x) {
    size_t size;
    uint8_t *file = pb_finish(b, &size);
    save_seed(file, size, "");
    free(b);
    const frugal_status st = live(file, size, x, "scalar", 1);
    const char *name;
    for (uint32_t i = 0; (name = frugal_isa_list(i)) != NULL; i++) {
        for (int threads = 1; threads <= 3; threads++)
            live_again(file, size, x, st, name, threads);
    }
    free(file);
    return st;
}
#endif
