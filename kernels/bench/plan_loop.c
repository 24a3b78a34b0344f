/* plan_loop.c - runs a plan as often as it is told, without Python's call: the benchmark's worker for the C executor.
 *
 *     plan_loop PLAN THREADS DIMS INPUTS        ISA from FRUGAL_ISA
 * DIMS: the shapes of all inputs one after another, "1,49,10,1"; INPUTS: a file with the inputs' bytes one after another.
 * Prints {"ready": ...}; for every line "N" of its input runs once unmeasured, then N times, and prints {"wall": s, "cpu": s} of
 * the N runs (cpu: of the process); for a line "save FILE" writes the outputs of the last run there, one after another.
 */
#define _GNU_SOURCE
#include "plan_file.h"

enum { MAX_IO = 64, MAX_DIMS = MAX_IO * FRUGAL_MAX_RANK };

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct loop {
    frugal_plan plan;
    frugal_session *s;
    void *arena;
    size_t arena_bytes, out_bytes[MAX_IO];
    const void *in[MAX_IO];
    void *out[MAX_IO];
} loop;

static size_t tensor_bytes(const loop *l, int32_t t) {
    int64_t dims[FRUGAL_MAX_RANK];
    const int32_t rank = frugal_session_shape(l->s, t, dims);
    size_t n = width(l->plan.tensors[t].dtype);
    for (int32_t a = 0; a < rank; a++) {
        n *= dims[a] > 0 ? (size_t)dims[a] : 0;
    }
    return n;
}
static void open_loop(loop *l, char **argv) {
    frugal_error e = {0};
    size_t size, inputs;
    const void *bytes = read_file(argv[1], &size);
    must(frugal_plan_open(&l->plan, bytes, size, &e), &e);
    int64_t dims[MAX_DIMS] = {0};
    int n = 0;
    for (char *at = argv[3]; *at && n < MAX_DIMS; at += *at == ',') {
        dims[n++] = strtoll(at, &at, 10);
    }
    const int32_t threads = atoi(argv[2]);
    frugal_pool *pool = NULL;
    if (threads > 1) {
        must(frugal_pool_start(&pool, alloc(frugal_pool_bytes(threads)), frugal_pool_bytes(threads), threads), &e);
    }
    const char *isa = getenv("FRUGAL_ISA");
    const size_t need = frugal_session_bytes(&l->plan);
    must(
        frugal_session_init(&l->s, alloc(need), need, &l->plan, frugal_isa_find(isa ? isa : "auto"), pool, (uint64_t)1 << 33, &e),
        &e);
    must(frugal_session_resolve(l->s, dims, &e), &e);
    const uint8_t *data = read_file(argv[4], &inputs);
    for (uint32_t i = 0; i < l->plan.n_inputs && i < MAX_IO; i++) {
        const size_t take = tensor_bytes(l, frugal_plan_input(&l->plan, i));
        if (take > inputs) {
            fprintf(stderr, "%s is too short\n", argv[4]);
            exit(2);
        }
        l->in[i] = memcpy(alloc(take), data, take);
        data += take, inputs -= take;
    }
    for (uint32_t i = 0; i < l->plan.n_outputs && i < MAX_IO; i++) {
        l->out_bytes[i] = frugal_session_late(l->s, i) ? 0 : tensor_bytes(l, frugal_plan_output(&l->plan, i));
        l->out[i] = frugal_session_late(l->s, i) ? NULL : alloc(l->out_bytes[i]);
    }
}
__attribute__((noinline)) void counted(loop *l);
__attribute__((noinline)) void counted(loop *l) {
    frugal_error e = {0};
    frugal_status s = FRUGAL_MORE;
    while (s == FRUGAL_MORE) {
        if (frugal_session_arena_bytes(l->s) > l->arena_bytes) {
            l->arena_bytes = frugal_session_arena_bytes(l->s);
            l->arena = alloc(l->arena_bytes);
        }
        s = frugal_session_run(l->s, l->arena, l->arena_bytes, l->in, l->out, &e);
    }
    must(s, &e);
}
static void save(const loop *l, const char *path) {
    FILE *f = fopen(path, "wb");
    for (uint32_t i = 0; f && i < l->plan.n_outputs && i < MAX_IO; i++) {
        fwrite(l->out[i], 1, l->out_bytes[i], f);
    }
    if (!f || fclose(f)) {
        exit(2);
    }
    printf("{\"saved\": true}\n");
}

int main(int argc, char **argv) {
    static loop l;
    static char line[4096];
    if (argc != 5) {
        fprintf(stderr, "plan_loop PLAN THREADS DIMS INPUTS\n");
        return 2;
    }
    open_loop(&l, argv);
    printf("{\"ready\": \"frugal\"}\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (!strncmp(line, "save ", 5)) {
            line[strcspn(line, "\n")] = 0;
            save(&l, line + 5);
        } else {
            const long n = atol(line);
            counted(&l);
            const double cpu = now(CLOCK_PROCESS_CPUTIME_ID), wall = now(CLOCK_MONOTONIC);
            for (long i = 0; i < n; i++) {
                counted(&l);
            }
            const double end = now(CLOCK_MONOTONIC);
            printf("{\"wall\": %.9f, \"cpu\": %.9f}\n", end - wall, now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
        }
        fflush(stdout);
    }
    return 0;
}
