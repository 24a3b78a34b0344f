/* session.h - what plan.c and session.c share. */
#ifndef FRUGAL_SESSION_H
#define FRUGAL_SESSION_H
#include "ops.h"

/* Writes a step's error record and returns status; err may be NULL. */
frugal_status fr_error(frugal_error *err, frugal_status status, int32_t step, int32_t tensor, const char *what);
enum { FR_NO_BLOCK = -1, FR_UNKNOWN = -1, FR_INVALID = -2 };

/* One plan with its shapes resolved and its memory laid out. */
struct frugal_session {
    uint8_t nothing[64]; /* where tensors without elements point: not NULL, never read */
    frugal_plan plan;
    const frugal_isa *isa;
    frugal_pool *pool;
    int32_t threads;
    bool resolved, dynamic; /* dynamic: the plan has blocks or late dims (control.c) */
    uint64_t limit;
    int64_t shared_at, shared_bytes, scratch_at, scratch_bytes, arena_bytes;
    frugal_record *records;
    int64_t (*clock)(void);
    int32_t repeat_step; /* that runs do repeat_times times, or -1 */
    int64_t repeat_times;
    int64_t *values;      /* [n_dims]; late ones FR_UNKNOWN until a run knows better; FR_INVALID where there is no value */
    fr_tensor *tensors;   /* [n_tensors] */
    int64_t *offset;      /* [n_tensors] in the arena; of late tensors in the heap */
    int32_t *first;       /* [n_tensors] the step that writes it, -1 for none */
    int32_t *last;        /* [n_tensors] the last step that needs its bytes */
    int32_t *order;       /* [n_tensors] roots in the arena, biggest first */
    int32_t *placed;      /* [n_tensors] of those, already placed, by offset; in a run: late tensors in the heap, by offset */
    int32_t *inputs;      /* [n_inputs] tensors */
    int32_t *outputs;     /* [n_outputs] */
    fr_tensor **operands; /* [max_args + 8] of one step */
    /* Blocks and late dims; filled by frugal_session_init. */
    int32_t *parent;     /* [n_steps] the IF, ELSE or LOOP whose block the step is in, or FR_NO_BLOCK */
    int32_t *jump;       /* [n_steps] IF: its ELSE or END; ELSE, LOOP: its END; END: its LOOP or IF */
    int64_t *turn;       /* [n_steps] of a LOOP */
    int64_t *turns;      /* [n_steps] of a LOOP: how many there are */
    int32_t *dying;      /* [n_steps] the first late tensor whose last step this is, or -1 */
    int32_t *next_dying; /* [n_tensors] the next one */
    int64_t *room;       /* [n_tensors] bytes of its place in the heap; 0: none */
    uint8_t *late_dim;   /* [n_dims] */
    uint8_t *late;       /* [n_tensors] it, or what it is a view of, has a late dim */
    uint8_t *late_step;  /* [n_steps] to be checked when it runs */
    uint8_t *bad;        /* [n_tensors] not late, and without a valid shape for these inputs */
    uint8_t *doubtful;   /* [n_steps] in a block, and an error for these inputs if the run comes there */
    uint8_t *source;     /* [n_tensors] late dims read it */
    uint8_t *ready;      /* [n_tensors] late tensors and sources: written in this run */
    int32_t n_live;      /* late tensors in the heap */
    int64_t heap_at, heap_bytes, heap_want, turns_left, max_turns;
    uint8_t *base;       /* of the arena, while it runs */
    int64_t *operations; /* [n_steps] as resolved; 0: not known before it runs */
    int64_t work;        /* their sum */
};

/* Fills s->parent and s->jump: every IF, ELSE and LOOP has its END. */
frugal_status fr_plan_check_blocks(const frugal_plan *plan, int32_t *parent, int32_t *jump, frugal_error *err);
/* Every temporary and output is written exactly once, before it is read and where the reader sees it, and nothing else is.
 * writer: n_tensors entries, filled with the step that writes each, or -1.  With fr_plan_check_blocks the checks of a plan that
 * need memory, so frugal_session_init makes them. */
frugal_status fr_plan_check_flow(const frugal_plan *plan, const int32_t *parent, const int32_t *jump, int32_t *writer,
                                 frugal_error *err);
/* a op b; the result may lie outside the range of a dim.  false: there is none. */
bool fr_eval_dim(uint32_t op, int64_t a, int64_t b, int64_t *v);
/* Evaluates DIMS into values, late ones to FR_UNKNOWN, those that have no valid value to FR_INVALID; dims: the shapes of all
 * inputs one after another. */
frugal_status fr_plan_eval_dims(const frugal_plan *plan, const int32_t *inputs, const int64_t *dims, int64_t *values,
                                frugal_error *err);
/* Operations of all steps as resolved (saturating): lets a caller refuse work it would not wait for. */
int64_t fr_session_operations(const frugal_session *s);

/* ---- session.c to control.c and back ---- */

void fr_make_call(frugal_session *s, uint32_t step, fr_call *c, frugal_error *err);
/* Whether a step that is not late can run with these inputs. */
frugal_status fr_check_step(frugal_session *s, uint32_t step, fr_call *c, frugal_error *err);
/* What is wrong with a tensor that is s->bad. */
frugal_status fr_bad_tensor(const frugal_session *s, uint32_t t, frugal_error *err);
/* Writes what a step's function found to err, with the step's number. */
frugal_status fr_give(frugal_error *err, const frugal_error *from, uint32_t step);
/* Attribute i of a step when it is a dim, else 0. */
int64_t fr_dim_attr(const frugal_session *s, const frugal_plan_step *t, uint32_t i);
bool fr_in_arena(const fr_tensor *x);
int64_t fr_step_operations(const fr_op *op, const fr_call *c);
/* The step's function, as often as frugal_session_repeat said. */
frugal_status fr_run_op(const frugal_session *s, uint32_t step, const fr_op *op, const fr_call *c);
void fr_record_step(const frugal_session *s, uint32_t step, const fr_call *c, int64_t nanoseconds);
/* Which dims, tensors and steps are late, and when late tensors die; s->first and s->last are known. */
frugal_status fr_control_init(frugal_session *s, frugal_error *err);
/* Runs a dynamic plan whose static tensors are bound. */
frugal_status fr_run_dynamic(frugal_session *s, size_t arena_bytes, frugal_error *err);
#endif
