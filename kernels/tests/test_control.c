/* test_control.c - blocks, variables and late dims: what they compute, in arenas of every size, and which plans are refused.
 *
 * Usage: test_control [DIRECTORY]    with a directory, every plan is also written there, as a seed for fuzz_plan. */
#include "check.h"

enum { F32 = FR_F32, I64 = FR_I64, BOOL = FR_BOOL, MAX_LATE = 4096 };

typedef struct late_io {
    const void *in[4];
    int64_t dims[16];
    void *out[4];
    float late[MAX_LATE]; /* output 0 when it is late */
    int64_t shape[FRUGAL_MAX_RANK];
    int arenas; /* that it took */
    uint64_t limit;
    frugal_error err;
} late_io;

static void take_late(const frugal_plan *plan, frugal_session *s, late_io *x) {
    int64_t n = 1;
    const int32_t rank = frugal_session_shape(s, frugal_plan_output(plan, 0), x->shape);
    for (int a = 0; a < rank; a++)
        n *= x->shape[a];
    assert(n <= MAX_LATE);
    memcpy(x->late, frugal_session_data(s, 0), (size_t)n * sizeof(float));
}

/* One whole life of a session; frees b. */
static frugal_status run_late(pb *b, late_io *x) {
    size_t size;
    frugal_plan plan;
    frugal_session *s = NULL;
    uint8_t *file = pb_finish(b, &size);
    save_seed(file, size, "control-");
    free(b);
    frugal_status st = frugal_plan_open(&plan, file, size, &x->err);
    void *mem = st ? NULL : alloc(frugal_session_bytes(&plan));
    if (!st) {
        st = frugal_session_init(&s, mem, frugal_session_bytes(&plan), &plan, frugal_isa_find("auto"), NULL,
                                 x->limit ? x->limit : 1u << 30, &x->err);
    }
    if (!st)
        st = frugal_session_resolve(s, x->dims, &x->err);
    for (int more = !st; more && x->arenas < 50; more = st == FRUGAL_MORE) {
        void *arena = alloc(frugal_session_arena_bytes(s));
        st = frugal_session_run(s, arena, frugal_session_arena_bytes(s), x->in, x->out, &x->err);
        x->arenas++;
        if (!st && frugal_session_late(s, 0))
            take_late(&plan, s, x);
        free(arena);
    }
    free(mem);
    free(file);
    return st;
}

/* ---- pieces of plans ---- */

static int32_t scalar_i64(pb *b, int64_t v) { return pb_const(b, I64, 0, PB_NONE, &v, 8); }
static int32_t vector_f32(pb *b, float v, int64_t n) {
    float values[64];
    for (int64_t i = 0; i < n; i++)
        values[i] = v;
    return pb_const(b, F32, 0, PB_LIST(n), values, (uint64_t)n * 4);
}
static void binary(pb *b, int kind, int32_t x, int32_t y, int32_t z) {
    pb_step(b, FRUGAL_OP_BINARY, PB_LIST(x, y), PB_LIST(z), PB_LIST(kind));
}
static void copy(pb *b, int32_t x, int32_t y) {
    pb_step(b, FRUGAL_OP_UNARY, PB_LIST(x), PB_LIST(y), PB_LIST(FRUGAL_U_COPY, 0, 0));
}
/* A tensor of one axis whose length is its own. */
static int32_t own_length(pb *b, int kind) {
    const int64_t d = pb_dim(b, FRUGAL_DIM_SHAPE, b->n_tensors, 0);
    return pb_tensor(b, kind, F32, 0, PB_LIST(d));
}

/* ---- IF ---- */

/* y = c ? x + 1 : x twice; the branches have other shapes. */
static pb *if_plan(void) {
    pb *b = pb_new();
    const int32_t c = pb_input(b, BOOL, PB_NONE), x = pb_input(b, F32, PB_LIST(4));
    const int32_t one = vector_f32(b, 1.0f, 4), grown = pb_temp(b, F32, 0, PB_LIST(4)), twice = pb_temp(b, F32, 0, PB_LIST(8));
    const int32_t y = own_length(b, FRUGAL_TENSOR_OUTPUT);
    pb_step(b, FRUGAL_OP_IF, PB_LIST(c), PB_NONE, PB_NONE);
    binary(b, FRUGAL_B_ADD, x, one, grown);
    pb_step(b, FRUGAL_OP_ELSE, PB_NONE, PB_NONE, PB_NONE);
    pb_step(b, FRUGAL_OP_CONCAT, PB_LIST(x, x), PB_LIST(twice), PB_LIST(0));
    pb_step(b, FRUGAL_OP_END, PB_NONE, PB_NONE, PB_NONE);
    pb_step(b, FRUGAL_OP_MERGE, PB_LIST(c, grown, twice), PB_LIST(y), PB_NONE);
    return b;
}

static void test_if(void) {
    const float x[4] = {1, 2, 3, 4};
    for (uint8_t c = 0; c < 2; c++) {
        late_io a = {.in = {&c, x}, .dims = {4}};
        CHECK(run_late(if_plan(), &a) == FRUGAL_OK);
        CHECK(a.shape[0] == (c ? 4 : 8));
        for (int i = 0; i < a.shape[0]; i++)
            CHECK(a.late[i] == (c ? x[i] + 1 : x[i % 4]));
    }
}

/* ---- LOOP ---- */

/* v = x; m times: v = v v (its length doubles), rows[i] = sum(v).  Outputs v (late) or, with few, rows [m]. */
static pb *loop_plan(int64_t m, int rows_known) {
    pb *b = pb_new();
    const int32_t x = pb_input(b, F32, PB_LIST(2)), turns = scalar_i64(b, m);
    const int32_t v = own_length(b, FRUGAL_TENSOR_TEMP);
    const int64_t row_count = rows_known ? m : pb_dim(b, FRUGAL_DIM_SHAPE, b->n_tensors, 0);
    const int32_t rows = pb_tensor(b, FRUGAL_TENSOR_TEMP, F32, 0, PB_LIST(row_count));
    const int32_t i = pb_temp(b, I64, 0, PB_NONE), sum = pb_temp(b, F32, 0, PB_LIST(1)), row = pb_alias(b, sum, PB_NONE);
    const int64_t length = pb_dim(b, FRUGAL_DIM_MUL, pb_dim(b, FRUGAL_DIM_SHAPE, v, 0), 2);
    const int32_t twice = pb_temp(b, F32, 0, PB_LIST(length));
    const int64_t v_dim = pb_dim(b, FRUGAL_DIM_SHAPE, v, 0);
    const int32_t out = pb_output(b, F32, PB_LIST(v_dim));
    const int64_t r_dim = rows_known ? m : pb_dim(b, FRUGAL_DIM_SHAPE, rows, 0);
    const int32_t out_rows = pb_output(b, F32, PB_LIST(r_dim));
    pb_step(b, FRUGAL_OP_VAR, PB_LIST(x), PB_LIST(v), PB_NONE);
    pb_step(b, FRUGAL_OP_VAR, PB_LIST(-1), PB_LIST(rows), PB_NONE);
    pb_step(b, FRUGAL_OP_LOOP, PB_LIST(turns, -1), PB_LIST(i), PB_NONE);
    pb_step(b, FRUGAL_OP_REDUCE, PB_LIST(v), PB_LIST(sum), PB_LIST(FRUGAL_R_SUM, 1));
    pb_step(b, FRUGAL_OP_CONCAT, PB_LIST(v, v), PB_LIST(twice), PB_LIST(0));
    pb_step(b, FRUGAL_OP_SET, PB_LIST(rows, row, i), PB_NONE, PB_LIST(1));
    pb_step(b, FRUGAL_OP_SET, PB_LIST(v, twice), PB_NONE, PB_LIST(0));
    pb_step(b, FRUGAL_OP_END, PB_LIST(-1), PB_NONE, PB_NONE);
    copy(b, v, out);
    copy(b, rows, out_rows);
    return b;
}

static void test_loop(void) {
    const float x[2] = {1, 3};
    for (int64_t m = 0; m <= 10; m++) {
        float rows[16] = {0};
        late_io a = {.in = {x}, .dims = {2}, .out = {NULL, rows}};
        CHECK(run_late(loop_plan(m, 1), &a) == FRUGAL_OK);
        CHECK(a.shape[0] == INT64_C(2) << m);
        for (int64_t k = 0; k < a.shape[0]; k++)
            CHECK(a.late[k] == x[k % 2]);
        for (int64_t k = 0; k < m; k++)
            CHECK(rows[k] == (float)(INT64_C(4) << k));
        late_io c = {.in = {x}, .dims = {2}};
        CHECK(run_late(loop_plan(m, 0), &c) == FRUGAL_OK && c.shape[0] == INT64_C(2) << m);
    }
}

static void test_memory(void) {
    const float x[2] = {1, 3};
    float rows[32];
    late_io small = {.in = {x}, .dims = {2}, .out = {NULL, rows}, .limit = 300000};
    CHECK(run_late(loop_plan(10, 1), &small) == FRUGAL_OK);
    late_io big = {.in = {x}, .dims = {2}, .out = {NULL, rows}, .limit = 300000}; /* 2^20 floats do not fit */
    CHECK(run_late(loop_plan(19, 1), &big) == FRUGAL_TOO_BIG && big.arenas < 12);
    late_io huge = {.in = {x}, .dims = {2}, .out = {NULL, rows}, .limit = UINT64_MAX};
    CHECK(run_late(loop_plan(0, 1), &huge) == FRUGAL_OK && huge.arenas <= 2);
}

/* y [n] = fill, n read from the data. */
static void test_value(void) {
    for (int64_t n = -2; n < 3000; n = n < 2 ? n + 1 : 3 * n) {
        pb *b = pb_new();
        const int32_t count = pb_input(b, I64, PB_LIST(1)), value = vector_f32(b, 2.5f, 1);
        const int64_t d = pb_dim(b, FRUGAL_DIM_VALUE, count, 0);
        const int32_t y = pb_output(b, F32, PB_LIST(d));
        pb_step(b, FRUGAL_OP_FILL, PB_LIST(value), PB_LIST(y), PB_NONE);
        late_io a = {.in = {&n}, .dims = {1}};
        const frugal_status st = run_late(b, &a);
        CHECK(st == (n < 0 ? FRUGAL_BAD_SHAPE : FRUGAL_OK));
        CHECK(st || (a.shape[0] == n && (n == 0 || a.late[n - 1] == 2.5f)));
    }
}

/* ---- what is refused ---- */

static frugal_status refused(pb *b, const char *what) {
    const float x[8] = {0};
    const uint8_t c = 1;
    float y[8];
    late_io a = {.in = {&c, x}, .dims = {4}, .out = {y, y}};
    const frugal_status st = run_late(b, &a);
    if (st == FRUGAL_OK || !strstr(a.err.what, what))
        printf("want '%s', got status %d '%s'\n", what, st, st ? a.err.what : "");
    CHECK(st != FRUGAL_OK && strstr(a.err.what, what));
    return st;
}

static void test_refused(void) {
    pb *b = if_plan();
    b->steps[4].op = FRUGAL_OP_ELSE; /* ELSE ELSE, no END */
    CHECK(refused(b, "ELSE without its IF") == FRUGAL_BAD_PLAN);
    b = if_plan();
    b->steps[0] = b->steps[3], b->args[b->steps[0].args + 2] = 7; /* an END of nothing */
    CHECK(refused(b, "") == FRUGAL_BAD_PLAN);
    b = if_plan();
    b->n_steps = 4;
    CHECK(refused(b, "a block without its END") == FRUGAL_BAD_PLAN);
    b = if_plan(); /* the second branch reads what the first wrote */
    b->args[b->steps[3].args] = 3;
    CHECK(refused(b, "another block wrote") == FRUGAL_BAD_PLAN);
    b = if_plan(); /* MERGE with its values exchanged */
    b->args[b->steps[5].args + 1] = 4, b->args[b->steps[5].args + 2] = 3;
    CHECK(refused(b, "another block wrote") == FRUGAL_BAD_PLAN);
    b = if_plan(); /* behind the block, not a MERGE */
    b->steps[5] = b->steps[1];
    CHECK(refused(b, "") == FRUGAL_BAD_PLAN);
    b = loop_plan(3, 1); /* SET of the input */
    b->args[b->steps[6].args] = 0;
    CHECK(refused(b, "no variable") == FRUGAL_BAD_PLAN);
    b = loop_plan(3, 1); /* another element type */
    b->tensors[2].dtype = BOOL;
    refused(b, "");
    b = loop_plan(3, 1); /* fewer rows than turns */
    b->tensors[3].dims[0] = 2;
    b->tensors[9].dims[0] = 2;
    refused(b, "");
}

int main(int argc, char **argv) {
    seed_dir = argc > 1 ? argv[1] : NULL;
    test_if();
    test_loop();
    test_memory();
    test_value();
    test_refused();
    return check_report();
}
