/* session.h - what plan.c and session.c share. */
#ifndef FRUGAL_SESSION_H
#define FRUGAL_SESSION_H
#include "ops.h"

/* Writes a step's error record and returns status; err may be NULL. */
frugal_status fr_error(frugal_error *err, frugal_status status, int32_t step, int32_t tensor, const char *what);
/* Every temporary and output is written exactly once, before it is read, and nothing else is.  writer: n_tensors entries, filled
 * with the step that writes each, or -1.  The one check of a plan that needs memory, so frugal_session_init makes it. */
frugal_status fr_plan_check_flow(const frugal_plan *plan, int32_t *writer, frugal_error *err);
/* Evaluates DIMS into values; dims: the shapes of all inputs one after another. */
frugal_status fr_plan_eval_dims(const frugal_plan *plan, const int32_t *inputs, const int64_t *dims, int64_t *values,
                                frugal_error *err);
/* Operations of all steps as resolved (saturating): lets a caller refuse work it would not wait for. */
int64_t fr_session_operations(const frugal_session *s);
#endif
