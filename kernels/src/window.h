/* window.h - how a convolution or pooling window moves along its (up to three) spatial axes: which taps of an output position lie
 * inside the input.  Positions with the same taps come as runs, so that a kernel works on many of them without asking. */
#ifndef FRUGAL_WINDOW_H
#define FRUGAL_WINDOW_H
#include "ops.h"

enum { FR_SPATIAL = 3 }; /* axes of a window; missing ones come first and have length 1 */

/* Output position o and tap k meet at input o * stride + k * dilation - pad or, transposed, at the i with
 * i * stride + k * dilation - pad = o, where there is one. */
typedef struct fr_window {
    int64_t in, out, kernel, stride, dilation, pad;
    bool transposed;
} fr_window;

/* Output positions o, o + o_step, ..: n of them.  Position number p meets with tap k + t * k_step the input position
 * i + p * i_step + t * i_tap, for t < taps; these are all of its taps, k ascending. */
typedef struct fr_run {
    int64_t o, o_step, n, i, i_step, k, k_step, i_tap, taps;
} fr_run;

typedef struct fr_runs { /* of output positions begin <= o < end; start from zeros in phase, next */
    int64_t begin, end, phase, next;
    bool inside;
} fr_runs;

static inline int64_t fr_gcd(int64_t a, int64_t b) {
    while (b) {
        const int64_t r = a % b;
        a = b, b = r;
    }
    return a;
}

/* The taps of position o. */
static inline void fr_taps_forward(const fr_window *w, int64_t o, fr_run *r) {
    const int64_t first = o * w->stride - w->pad;
    int64_t k = 0, end = 0;
    if (first < 0)
        k = fr_ceil_div(-first, w->dilation);
    if (first < w->in)
        end = fr_min(w->kernel, (w->in - 1 - first) / w->dilation + 1);
    r->k = k, r->taps = fr_max(0, end - k);
    r->i = first + k * w->dilation;
    r->k_step = 1, r->i_tap = w->dilation, r->i_step = w->stride, r->o_step = 1;
}

static inline void fr_taps_transposed(const fr_window *w, int64_t o, fr_run *r) {
    const int64_t g = fr_gcd(w->stride, w->dilation), period = w->stride / g, u = o + w->pad;
    int64_t k = 0;
    r->k_step = period, r->i_tap = -(w->dilation / g), r->i_step = 1, r->o_step = w->stride;
    r->k = r->i = r->taps = 0;
    while (k < period && k < w->kernel && (u - k * w->dilation) % w->stride)
        k++;
    if (k >= period || k >= w->kernel)
        return;
    const int64_t i = (u - k * w->dilation) / w->stride, step = w->dilation / g; /* of the first tap; exact */
    const int64_t skip = i >= w->in ? fr_ceil_div(i - (w->in - 1), step) : 0;
    const int64_t end = i < 0 ? 0 : fr_min((w->kernel - 1 - k) / period, i / step) + 1;
    r->taps = fr_max(0, end - skip);
    r->k = k + skip * period;
    r->i = i - skip * step;
}

static inline void fr_taps(const fr_window *w, int64_t o, fr_run *r) {
    if (w->transposed)
        fr_taps_transposed(w, o, r);
    else
        fr_taps_forward(w, o, r);
}

/* Of how many positions from o on every tap that exists lies inside (at least 1): the long run in the middle of an axis. */
static inline int64_t fr_run_middle(const fr_window *w, const fr_run *r) {
    const int64_t last = r->i + (r->taps - 1) * r->i_tap, high = fr_max(r->i, last), low = fr_min(r->i, last);
    if (r->taps == 0 || low < 0)
        return 1;
    const bool whole = w->transposed ? r->k < r->k_step && r->k + r->taps * r->k_step >= w->kernel : r->taps == w->kernel;
    return whole ? (w->in - 1 - high) / r->i_step + 1 : 1;
}

/* The next run, false when there is none.  Transposed windows come phase by phase: o mod stride. */
static inline bool fr_next_run(const fr_window *w, fr_runs *s, fr_run *r) {
    const int64_t step = w->transposed ? w->stride : 1;
    if (!s->inside)
        s->next = s->begin + s->phase, s->inside = true;
    while (s->next >= s->end) {
        if (++s->phase >= step || s->begin + s->phase >= s->end)
            return false;
        s->next = s->begin + s->phase;
    }
    fr_taps(w, s->next, r);
    r->o = s->next;
    r->n = fr_min(fr_run_middle(w, r), fr_ceil_div(s->end - s->next, step));
    s->next += r->n * step;
    for (fr_run q; s->next < s->end; r->n++, s->next += step) {
        fr_taps(w, s->next, &q);
        if (q.taps != r->taps || (q.taps && (q.k != r->k || q.i != r->i + r->n * r->i_step)))
            break;
    }
    return true;
}

/* Window number a (0..2) of a step from its attributes, 4 or more an axis: kernel, stride, dilation, pad before (a dim).
 * planar: the channels of x come before its spatial axes.  False when the numbers are out of range, so that nothing overflows
 * later. */
static inline bool fr_window_read(const fr_call *c, int32_t first, int32_t each, int a, bool transposed, bool planar,
                                  fr_window *w) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    const int axis = x->rank - 1 - FR_SPATIAL + a; /* of the tensor; below 1 for axes it does not have */
    const int64_t *v = c->attrs + first + each * a;
    *w = (fr_window){.in = axis < 1 ? 1 : x->dims[axis + planar],
                     .out = axis < 1 ? 1 : y->dims[axis],
                     .kernel = v[0],
                     .stride = v[1],
                     .dilation = v[2],
                     .pad = fr_attr_dim(c, first + each * a + 3),
                     .transposed = transposed};
    int64_t reach, far;
    return w->kernel >= 1 && w->stride >= 1 && w->dilation >= 1 && w->pad >= 0 && w->pad <= FRUGAL_MAX_DIM &&
           !__builtin_mul_overflow(w->kernel, w->dilation, &reach) && reach <= FRUGAL_MAX_DIM &&
           !__builtin_mul_overflow(w->stride, fr_max(1, fr_max(w->out, w->in)), &far) && far <= INT64_C(1) << 50;
}
#endif
