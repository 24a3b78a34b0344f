/* fb_native.c - what the PC's own operations (ops_*.c) want of their surroundings, on one thread. */
#include "native.h"

frugal_error native_error;

frugal_status fr_fail(const fr_call *c, frugal_status status, int32_t pos, int32_t axis, int64_t want, int64_t got,
                      const char *what) {
    (void)c, (void)pos, (void)axis, (void)want, (void)got, (void)what;
    return status;
}

void fr_pool_run(frugal_pool *pool, int64_t n, fr_task task, void *ctx) {
    (void)pool;
    for (int64_t i = 0; i < n; i++)
        task(ctx, i, 0);
}

/* Transformed weights are for larger machines: bundles leave them out. */
frugal_status fr_qwino_check(const fr_call *c) {
    (void)c;
    return FRUGAL_UNSUPPORTED;
}
frugal_status fr_qwino_run(const fr_call *c, bool small) {
    (void)c, (void)small;
    return FRUGAL_UNSUPPORTED;
}
int64_t fr_qwino_scratch(const fr_call *c) {
    (void)c;
    return 0;
}
