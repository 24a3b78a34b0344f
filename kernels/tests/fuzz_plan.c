/* fuzz_plan.c - no plan may crash, hang or leak: opens, resolves and runs whatever the bytes say.
 *
 * With clang -fsanitize=fuzzer this is a libFuzzer target.  Otherwise it is a program that mutates seeds (test_session writes
 * some) and is meant to be built with -fsanitize=address,undefined: fuzz_plan ITERATIONS SEED FILE...        without arguments it
 * does nothing Every buffer has exactly the size that the library asked for, so that the sanitizer sees a step outside. */
#define _POSIX_C_SOURCE 200112L /* posix_memalign */
#include <stdio.h>
#include <stdlib.h>

#include "session.h"

enum {
    LIMIT = 16 << 20,      /* bytes of arena */
    INPUT_BYTES = 1 << 20, /* of a model input */
    TURNS = 100,           /* of its loops */
    OPERATIONS = 20000000, /* of a run: bounds the time of one case */
    MAX_SIZE = 1 << 20,
    MAX_INPUTS = 64
};

static struct {
    long opened, flows, resolved, ran, refused;
} counts;

static void *exact(size_t bytes) {
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes ? bytes : 1) != 0) {
        exit(2);
    }
    return p;
}

static uint64_t state = 1;
static uint32_t random_bits(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

/* ---- one case ---- */

typedef struct subject {
    frugal_plan plan;
    frugal_session *s;
    void *in[MAX_INPUTS], *out[MAX_INPUTS];
    int64_t dims[MAX_INPUTS * FRUGAL_MAX_RANK];
} subject;

/* Constant dims as the plan has them; symbolic ones start at `guess` and follow the plan's expressions. */
static void choose_dims(subject *x, int64_t guess) {
    int64_t *values = exact(x->plan.n_dims * sizeof *values);
    int32_t inputs[MAX_INPUTS];
    for (uint32_t i = 0; i < x->plan.n_inputs; i++) {
        inputs[i] = frugal_plan_input(&x->plan, i);
    }
    for (int round = 0; round < 2; round++) {
        int64_t *d = x->dims;
        const int known = round > 0 && fr_plan_eval_dims(&x->plan, inputs, x->dims, values, NULL) == FRUGAL_OK;
        for (uint32_t i = 0; i < x->plan.n_inputs; i++) {
            const struct frugal_plan_tensor *t = &x->plan.tensors[inputs[i]];
            for (int a = 0; a < t->rank; a++, d++) {
                *d = t->dims[a] >= 0 ? t->dims[a] : known ? values[-1 - t->dims[a]] : guess;
            }
        }
    }
    free(values);
}

static int64_t bytes_of(const subject *x, int32_t t) {
    int64_t dims[FRUGAL_MAX_RANK], n = fr_dtype_bytes(x->plan.tensors[t].dtype);
    const int32_t rank = frugal_session_shape(x->s, t, dims);
    for (int a = 0; a < rank; a++) {
        n *= dims[a]; /* resolve has bounded the product unless a dim is 0 */
        if (n == 0) {
            return 0;
        }
    }
    return n;
}

static void fill(uint8_t *p, int64_t bytes, int how) {
    for (int64_t i = 0; i < bytes; i++) {
        p[i] = how < 2 ? (uint8_t)(how == 1 && i % 8 == 0) : (uint8_t)random_bits();
    }
}

static int make_buffers(subject *x, int how) {
    for (uint32_t i = 0; i < x->plan.n_inputs; i++) {
        const int64_t n = bytes_of(x, frugal_plan_input(&x->plan, i));
        if (n > INPUT_BYTES) {
            return 0;
        }
        x->in[i] = exact((size_t)n);
        fill(x->in[i], n, how);
    }
    for (uint32_t i = 0; i < x->plan.n_outputs; i++) {
        const int none = frugal_session_late(x->s, i) || (how == 1 && i % 2);
        x->out[i] = none ? NULL : exact((size_t)bytes_of(x, frugal_plan_output(&x->plan, i)));
    }
    return 1;
}

/* Reads every byte of the outputs whose size the data decided. */
static void read_late(const subject *x) {
    static volatile uint8_t sink;
    for (uint32_t i = 0; i < x->plan.n_outputs; i++) {
        const uint8_t *p = frugal_session_data(x->s, i);
        for (int64_t k = 0; frugal_session_late(x->s, i) && k < bytes_of(x, frugal_plan_output(&x->plan, i)); k++) {
            sink = (uint8_t)(sink ^ p[k]);
        }
    }
}

/* With an arena that grows as long as the data asks. */
static void run_session(subject *x, frugal_error *err) {
    frugal_status st = FRUGAL_MORE;
    for (int tries = 0; st == FRUGAL_MORE && tries < 4; tries++) {
        const size_t bytes = frugal_session_arena_bytes(x->s);
        void *arena = exact(bytes);
        st = frugal_session_run(x->s, arena, bytes, (const void *const *)x->in, x->out, err);
        if (st == FRUGAL_OK) {
            read_late(x);
        }
        free(arena);
    }
    counts.ran += st == FRUGAL_OK;
    counts.refused += st != FRUGAL_OK;
}

static void run_once(subject *x, int64_t guess, int how) {
    frugal_error err = {.what = NULL};
    choose_dims(x, guess);
    if (frugal_session_resolve(x->s, x->dims, &err) != FRUGAL_OK) {
        if (!err.what) {
            abort();
        }
        return;
    }
    counts.resolved++;
    if (fr_session_operations(x->s) > OPERATIONS) {
        return;
    }
    memset(x->in, 0, sizeof x->in);
    memset(x->out, 0, sizeof x->out);
    if (make_buffers(x, how)) {
        run_session(x, &err);
    }
    for (int i = 0; i < MAX_INPUTS; i++) {
        free(x->in[i]);
        free(x->out[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static frugal_pool *pool; /* one for all cases: a thread a case would take most of the time */
    static _Alignas(64) uint8_t pool_memory[4096];
    if (!pool && (frugal_pool_bytes(2) > sizeof pool_memory ||
                  frugal_pool_start(&pool, pool_memory, sizeof pool_memory, 2) != FRUGAL_OK)) {
        exit(2);
    }
    if (size > MAX_SIZE) {
        return 0;
    }
    subject x;
    uint8_t *file = exact(size);
    memcpy(file, data, size);
    if (frugal_plan_open(&x.plan, file, size, NULL) == FRUGAL_OK && x.plan.n_inputs <= MAX_INPUTS &&
        x.plan.n_outputs <= MAX_INPUTS) {
        counts.opened++;
        const int how = (int)(random_bits() % 3);
        void *mem = exact(frugal_session_bytes(&x.plan));
        const frugal_isa *isa = frugal_isa_find(random_bits() % 2 ? "auto" : "scalar");
        if (frugal_session_init(&x.s, mem, frugal_session_bytes(&x.plan), &x.plan, isa, random_bits() % 4 ? NULL : pool, LIMIT,
                                NULL) == FRUGAL_OK) {
            counts.flows++;
            x.s->max_turns = TURNS;
            run_once(&x, 3, how);
            run_once(&x, 18, how);
        }
        free(mem);
    }
    free(file);
    return 0;
}

/* ---- mutation ---- */

#if !defined(FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION)

typedef struct bytes {
    uint8_t *at;
    size_t size;
} bytes;

static const int64_t extremes[] = {0,
                                   1,
                                   2,
                                   3,
                                   4,
                                   7,
                                   8,
                                   15,
                                   16,
                                   17,
                                   31,
                                   32,
                                   33,
                                   64,
                                   100,
                                   127,
                                   128,
                                   255,
                                   256,
                                   1000,
                                   65535,
                                   65536,
                                   131072,
                                   131073,
                                   -1,
                                   -2,
                                   -3,
                                   -4,
                                   -5,
                                   -8,
                                   -128,
                                   INT32_MAX,
                                   INT32_MIN,
                                   UINT32_MAX,
                                   INT64_MAX,
                                   INT64_MIN,
                                   FRUGAL_MAX_DIM,
                                   FRUGAL_MAX_DIM + 1,
                                   FRUGAL_MAX_DIM / 2,
                                   FRUGAL_MAX_DIM / 1024};

static size_t record_size(uint32_t kind) {
    static const size_t sizes[9] = {1, 1, 1, sizeof(frugal_plan_dim), sizeof(frugal_plan_tensor), sizeof(frugal_plan_step),
                                    4, 8, 1};
    return kind < 9 ? sizes[kind] : 1;
}

/* A section of x (as far as x still looks like a plan), or NULL. */
static const frugal_plan_section *section_of(const bytes *x, uint32_t index) {
    frugal_plan_header h;
    if (x->size < sizeof h + 64) {
        return NULL;
    }
    memcpy(&h, x->at, sizeof h);
    const size_t at = sizeof h + index * sizeof(frugal_plan_section);
    if (index >= h.sections || at + sizeof(frugal_plan_section) > x->size) {
        return NULL;
    }
    const frugal_plan_section *s = (const frugal_plan_section *)(const void *)(x->at + at);
    return s->bytes > 0 && s->offset < x->size && s->bytes <= x->size - s->offset ? s : NULL;
}

/* Another value for one field of 1, 2, 4 or 8 bytes of a record. */
static void change_field(bytes *x) {
    const frugal_plan_section *s = section_of(x, random_bits() % 8);
    if (!s) {
        return;
    }
    const size_t each = record_size(s->kind), n = s->bytes / each, record = random_bits() % (n ? n : 1);
    const size_t width = each < 4 ? 1 : each == 4 ? 4 : each == 8 ? 8 : (size_t)1 << random_bits() % 4;
    const size_t field = random_bits() % (each / width) * width, at = (size_t)s->offset + record * each + field;
    int64_t v = 0;
    if (at + width > x->size) {
        return;
    }
    memcpy(&v, x->at + at, width);
    switch (random_bits() % 4) {
    case 0:
        v = extremes[random_bits() % (sizeof extremes / sizeof *extremes)];
        break;
    case 1:
        v = (int64_t)((uint64_t)v + (uint64_t)(random_bits() % 9) - 4);
        break;
    case 2:
        v = (int64_t)(random_bits() % 24);
        break;
    default:
        memcpy(&v, x->at + s->offset + random_bits() % (n ? n : 1) * each + field, width);
        break; /* of another record */
    }
    memcpy(x->at + at, &v, width);
}

static void flip_bit(bytes *x) {
    if (x->size > 0) {
        x->at[random_bits() % x->size] ^= (uint8_t)(1 << random_bits() % 8);
    }
}

static void truncate_file(bytes *x) {
    x->size = x->size ? random_bits() % x->size : 0;
    frugal_plan_header *h = (frugal_plan_header *)(void *)x->at;
    if (x->size >= sizeof *h && random_bits() % 2) {
        h->bytes = x->size; /* so that the next check is reached */
    }
}

/* Records of another seed over ours. */
static void splice(bytes *x, const bytes *other) {
    const uint32_t index = random_bits() % 8;
    const frugal_plan_section *s = section_of(x, index), *o = section_of(other, index);
    if (!s || !o || s->kind != o->kind) {
        return;
    }
    const size_t each = record_size(s->kind), least = (size_t)(s->bytes < o->bytes ? s->bytes : o->bytes) / each;
    if (least > 0) {
        const size_t first = random_bits() % least, n = 1 + random_bits() % (least - first);
        memcpy(x->at + s->offset + first * each, other->at + o->offset + first * each, n * each);
    }
}

static void mutate(bytes *x, const bytes *other) {
    for (uint32_t n = 1 + random_bits() % 4; n > 0; n--) {
        const uint32_t kind = random_bits() % 32;
        if (kind < 26) {
            change_field(x);
        } else if (kind < 28) {
            flip_bit(x);
        } else if (kind < 31) {
            splice(x, other);
        } else {
            truncate_file(x);
        }
    }
}

static bytes read_seed(const char *path) {
    bytes x = {exact(MAX_SIZE), 0};
    FILE *f = fopen(path, "rb");
    if (!f) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(2);
    }
    x.size = fread(x.at, 1, MAX_SIZE, f);
    fclose(f);
    uint8_t *at = exact(x.size); /* not a megabyte for each */
    memcpy(at, x.at, x.size);
    free(x.at);
    x.at = at;
    return x;
}

int main(int argc, char **argv) {
    const int n = argc - 3;
    const char *crash = getenv("FUZZ_LAST"); /* a file that keeps the case under test */
    if (n < 1) {
        return 0;
    }
    bytes *seeds = exact((size_t)n * sizeof *seeds);
    for (int i = 0; i < n; i++) {
        seeds[i] = read_seed(argv[3 + i]);
    }
    const long iterations = atol(argv[1]);
    state = strtoull(argv[2], NULL, 10) * 2 + 1;
    for (long i = 0; i < iterations + n; i++) {
        const bytes *from = &seeds[i < n ? (uint32_t)i : random_bits() % (uint32_t)n];
        bytes x = {exact(from->size), from->size};
        memcpy(x.at, from->at, x.size);
        if (i >= n) { /* the seeds themselves first */
            mutate(&x, &seeds[random_bits() % (uint32_t)n]);
        }
        if (crash) {
            FILE *f = fopen(crash, "wb");
            fwrite(x.at, 1, x.size, f);
            fclose(f);
        }
        LLVMFuzzerTestOneInput(x.at, x.size);
        free(x.at);
    }
    for (int i = 0; i < n; i++) {
        free(seeds[i].at);
    }
    free(seeds);
    printf("%ld cases: %ld opened, %ld with valid flow, %ld resolved, %ld ran, %ld refused by run\n", iterations, counts.opened,
           counts.flows, counts.resolved, counts.ran, counts.refused);
    return 0;
}
#endif
