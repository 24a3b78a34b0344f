/* frugal.h - the whole public C API: check a plan, make a session in memory you own, run it.
 *
 * C11, no allocation, no I/O, no global state, no abort: every function returns a status, every byte of working memory comes
 * from the caller.  The plan (docs/plan-format.md) is untrusted input: whatever its bytes are, these functions return a status.
 *
 *     frugal_plan plan;  frugal_error err;
 *     frugal_plan_open(&plan, bytes, size, &err);                       views into bytes; keep them alive
 *     void *mem = ... frugal_session_bytes(&plan) bytes, 64-aligned ...
 *     frugal_session *s;
 *     frugal_session_init(&s, mem, mem_bytes, &plan, isa, pool, limit, &err);
 *     frugal_session_resolve(s, dims, &err);                            once for every new set of input shapes
 *     void *arena = ... frugal_session_arena_bytes(s), 64-aligned ...
 *     frugal_session_run(s, arena, arena_bytes, inputs, outputs, &err);  as often as you like
 */
#ifndef FRUGAL_H
#define FRUGAL_H
#include <stddef.h>
#include <stdint.h>

#define FRUGAL_MAX_RANK 8

typedef enum frugal_status {
    FRUGAL_OK = 0,
    FRUGAL_BAD_PLAN = 1,    /* the bytes are not a valid plan (offset, size, index, count, attribute) */
    FRUGAL_BAD_VERSION = 2, /* a plan of a version this library does not read */
    FRUGAL_BAD_INPUT = 3,   /* a shape or value given to resolve or run does not fit the plan */
    FRUGAL_BAD_SHAPE = 4,   /* shapes inside the plan contradict each other once the symbols are known */
    FRUGAL_TOO_BIG = 5,     /* more memory than the limit given to frugal_session_init */
    FRUGAL_BAD_ARG = 6,     /* null pointer, buffer too small or not aligned: a mistake of the caller */
    FRUGAL_NO_ISA = 7,      /* this instruction set is not in this build or not on this CPU */
    FRUGAL_UNSUPPORTED = 8, /* an operation, data type or layout this build does not have */
    FRUGAL_MORE = 9         /* sizes that depend on data: run again with an arena of frugal_session_arena_bytes() bytes */
} frugal_status;

/* Filled whenever a function returns other than FRUGAL_OK (err may be NULL). */
typedef struct frugal_error {
    int32_t status; /* frugal_status */
    int32_t step;   /* index of the step at fault, or -1 */
    int32_t tensor; /* index of the tensor at fault, or -1 */
    int32_t input;  /* index of the model input at fault, or -1 */
    int32_t axis;   /* axis at fault, or -1 */
    int32_t reserved;
    int64_t want; /* what was needed and what was found, when `what` speaks of them; else 0 */
    int64_t got;
    const char *what; /* a static English sentence without numbers; never NULL */
} frugal_error;

/* Views into the caller's bytes; treat as read-only.  Valid only while the bytes are. */
typedef struct frugal_plan {
    const uint8_t *base;
    uint64_t bytes;
    uint32_t n_dims, n_tensors, n_steps, n_args, n_attrs, n_inputs, n_outputs;
    uint32_t max_args; /* the largest n_in + n_out of a step */
    const struct frugal_plan_dim *dims;
    const struct frugal_plan_tensor *tensors;
    const struct frugal_plan_step *steps;
    const int32_t *args;
    const int64_t *attrs;
    const char *text;
    uint64_t text_bytes;
    const uint8_t *data;
    uint64_t data_bytes;
    const uint8_t *meta; /* JSON, not NUL-terminated; not read by this library */
    uint64_t meta_bytes;
} frugal_plan;

typedef struct frugal_session frugal_session;
typedef struct frugal_isa frugal_isa;
typedef struct frugal_pool frugal_pool;

/* One executed step, when recording is on. */
typedef struct frugal_record {
    int64_t nanoseconds;
    int64_t bytes_read, bytes_written; /* of the operands, computed from their shapes */
    int64_t operations;                /* multiply-adds count two */
} frugal_record;

/* Check every field of [bytes, bytes+size) and fill plan.  bytes must be 64-aligned. */
frugal_status frugal_plan_open(frugal_plan *plan, const void *bytes, size_t size, frugal_error *err);
/* Index into plan->tensors of model input (output) i, or -1. */
int32_t frugal_plan_input(const frugal_plan *plan, uint32_t i);
int32_t frugal_plan_output(const frugal_plan *plan, uint32_t i);

/* Memory that frugal_session_init needs. */
size_t frugal_session_bytes(const frugal_plan *plan);
/* isa: from frugal_isa_find; pool: NULL for the calling thread alone; limit: the largest arena in bytes that resolve may ask for.
 */
frugal_status frugal_session_init(frugal_session **s, void *mem, size_t mem_bytes, const frugal_plan *plan, const frugal_isa *isa,
                                  frugal_pool *pool, uint64_t limit, frugal_error *err);
/* dims: the shapes of all inputs one after another (rank of each is in the plan).  Evaluates every symbolic dim, checks every
 * step's shapes, plans the arena. */
frugal_status frugal_session_resolve(frugal_session *s, const int64_t *dims, frugal_error *err);
size_t frugal_session_arena_bytes(const frugal_session *s);
/* Shape of tensor t after resolve: writes rank values, returns the rank, or -1.  A late dim (frugal_plan.h) is -1 until a run. */
int32_t frugal_session_shape(const frugal_session *s, int32_t t, int64_t *dims);
/* 1 when output i has a late dim: run writes it into the arena, where frugal_session_data finds it until the next run. */
int32_t frugal_session_late(const frugal_session *s, uint32_t i);
const void *frugal_session_data(const frugal_session *s, uint32_t i);
/* inputs[i], outputs[i]: dense row-major, element-aligned, of the resolved shapes.  outputs[i] may be NULL: not computed for the
 * caller. Inputs are read only; outputs must not overlap inputs, but for a cache that tensor_scatter writes: it may be the same
 * buffer, written in place.  Not reentrant for one session.  FRUGAL_MORE, from plans with
 * late dims only: the arena was too small for what the data asks; nothing was lost, run again with a larger one. */
frugal_status frugal_session_run(frugal_session *s, void *arena, size_t arena_bytes, const void *const *inputs,
                                 void *const *outputs, frugal_error *err);
/* Step records: clock returns nanoseconds; records has room for plan->n_steps; NULL switches recording off. */
void frugal_session_record(frugal_session *s, frugal_record *records, int64_t (*clock)(void));
/* From now on runs do step `step` `times` times in a row where they would do it once, so that its time and energy can be measured
 * alone; -1: none.  The outputs stay the same, but for a state that a step updates in place (bound to the memory of its past). */
void frugal_session_repeat(frugal_session *s, int32_t step, int64_t times);

/* Instruction sets: "auto" is the best this CPU has.  NULL where the build or the CPU lacks it. */
const frugal_isa *frugal_isa_find(const char *name);
/* The i-th name this CPU can run, best first ("scalar" is last), or NULL. */
const char *frugal_isa_list(uint32_t i);
const char *frugal_isa_name(const frugal_isa *isa);
/* The i-th name of this architecture, best first, usable or not, or NULL. */
const char *frugal_isa_known(uint32_t i);
/* What is missing for a known name: "" when it is usable, "build" when this build's compiler had not the instructions, else the
 * first feature that this CPU or its operating system lacks.  NULL for an unknown name. */
const char *frugal_isa_lacks(const char *name);
/* A quick test of isa on this machine: NULL when a few products and rows are scalar's bit for bit, else the kernel that is not. */
const char *frugal_isa_check(const frugal_isa *isa);

/* Thread pool (kernels/src/pool.c, pthreads; left out on bare metal). */
size_t frugal_pool_bytes(int32_t threads);
frugal_status frugal_pool_start(frugal_pool **pool, void *mem, size_t mem_bytes, int32_t threads);
void frugal_pool_stop(frugal_pool *pool);
int32_t frugal_pool_threads(const frugal_pool *pool);
/* CPUs this process may use: the smaller of its affinity mask and its cgroup quota (rounded up), at least 1. */
int32_t frugal_cpu_count(void);
int64_t frugal_clock(void); /* CLOCK_MONOTONIC in nanoseconds */

/* What this machine can do at most, measured in some milliseconds (best of several calls): 10^9 operations a second of an
 * instruction set, a multiply-add counting two; 10^9 bytes read a second from [memory, memory + bytes), 8-aligned, which should
 * be well beyond the caches and written before; GHz, of one thread.  pool: all of its threads together, in wall time; NULL: this
 * thread, in CPU time.  0 where this is not known. */
enum frugal_peak { FRUGAL_PEAK_INT8, FRUGAL_PEAK_F32, FRUGAL_PEAK_READ, FRUGAL_PEAK_CLOCK };
double frugal_measure(const frugal_isa *isa, frugal_pool *pool, int32_t what, const void *memory, size_t bytes);

const char *frugal_status_text(frugal_status status);
#endif
