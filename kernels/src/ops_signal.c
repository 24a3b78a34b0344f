/* ops_signal.c - discrete Fourier transforms of any length, window functions, mel filter banks; all of it in double, so that
 * float32 results are right to the last bit or nearly, and in plain C whose order of operations is the definition.
 *
 * A transform of length n, whose prime factors are at most 61, goes through stages of radix 4, 2, 3, 5, 7 .. in this order; the
 * stages swap two buffers (Stockham's form, which needs no reordering).  Other lengths are a convolution with a chirp
 * (Bluestein), done by three transforms of a power of two.
 */
#include <math.h>

#include "dmath.h"
#include "ops.h"

enum { MAX_RADIX = 61, MAX_STAGES = 32, MAX_LENGTH = 1 << 26 };

typedef struct complex64 {
    double re, im;
} complex64;

/* ---- sine and cosine ---- */

/* cos and sin of 2 pi k / n for 0 <= k < n <= 2^40: the octant is exact, then Taylor series on [0, pi / 4], error < 2e-16. */
static complex64 unit_root(int64_t k, int64_t n) {
    static const double c[] = {0x1p-1,
                               4.16666666666666666667e-02,
                               1.38888888888888888889e-03,
                               2.48015873015873015873e-05,
                               2.75573192239858906526e-07,
                               2.08767569878680989792e-09,
                               1.14707455977297247139e-11,
                               4.77947733238738529744e-14};
    static const double s[] = {1.66666666666666666667e-01, 8.33333333333333333333e-03, 1.98412698412698412698e-04,
                               2.75573192239858906526e-06, 2.50521083854417187751e-08, 1.60590438368216145994e-10,
                               7.64716373181981647590e-13, 2.81145725434552076320e-15};
    const int64_t octant = 8 * k / n, rest = 8 * k % n;
    const double x = 0.78539816339744830962 * ((double)(octant & 1 ? n - rest : rest) / (double)n), u = -x * x;
    double co = c[7], si = s[7];
    for (int i = 6; i >= 0; i--)
        co = c[i] + u * co, si = s[i] + u * si;
    co = 1.0 + u * co, si = x + x * (u * si);
    const bool swap = ((octant + 1) >> 1) & 1;
    const double a = swap ? si : co, b = swap ? co : si;
    return (complex64){octant >= 2 && octant < 6 ? -a : a, octant >= 4 ? -b : b};
}

/* ---- transforms ---- */

/* Of length n: the stages, and exp(2 pi i k / n) for k < n. */
typedef struct stages {
    int64_t n;
    int32_t count;
    int32_t radix[MAX_STAGES];
    const complex64 *roots;
} stages;

/* false when a prime factor is above MAX_RADIX. */
static bool cut_into_stages(stages *s, int64_t n) {
    static const int32_t first[] = {4, 2, 3};
    int64_t rest = n;
    *s = (stages){.n = n};
    for (int i = 0; i < 3; i++) {
        for (; rest % first[i] == 0; rest /= first[i])
            s->radix[s->count++] = first[i];
    }
    for (int32_t r = 5; r <= MAX_RADIX; r += 2) {
        for (; rest % r == 0; rest /= r)
            s->radix[s->count++] = r;
    }
    return rest == 1;
}

static complex64 times(complex64 a, complex64 w) { return (complex64){a.re * w.re - a.im * w.im, a.re * w.im + a.im * w.re}; }
/* a times the conjugate of w. */
static complex64 times_back(complex64 a, complex64 w) {
    return (complex64){a.re * w.re + a.im * w.im, a.im * w.re - a.re * w.im};
}
static complex64 plus(complex64 a, complex64 b) { return (complex64){a.re + b.re, a.im + b.im}; }
static complex64 minus(complex64 a, complex64 b) { return (complex64){a.re - b.re, a.im - b.im}; }

/* a[k] for k < r to their transform: a'[j] = sum over k ascending of a[k] exp(-2 pi i j k / r). */
static inline void butterfly(const stages *s, int32_t r, complex64 *a) {
    if (r == 2) {
        const complex64 b = a[0];
        a[0] = plus(b, a[1]), a[1] = minus(b, a[1]);
        return;
    }
    if (r == 4) {
        const complex64 p = plus(a[0], a[2]), q = minus(a[0], a[2]), u = plus(a[1], a[3]), v = minus(a[1], a[3]);
        a[0] = plus(p, u), a[2] = minus(p, u);
        a[1] = (complex64){q.re + v.im, q.im - v.re}, a[3] = (complex64){q.re - v.im, q.im + v.re};
        return;
    }
    complex64 y[MAX_RADIX];
    const int64_t each = s->n / r;
    for (int32_t j = 0; j < r; j++) {
        y[j] = a[0];
        for (int32_t k = 1; k < r; k++)
            y[j] = plus(y[j], times_back(a[k], s->roots[each * (j * k % r)]));
    }
    memcpy(a, y, (size_t)r * sizeof *a);
}

/* One stage of x [r][m][q], with q the product of the radices before it, to y [m][r][q]. */
static inline __attribute__((always_inline)) void stage_of(const stages *s, const int32_t r, int64_t m, int64_t q,
                                                           const complex64 *x, complex64 *y) {
    complex64 w[MAX_RADIX], a[MAX_RADIX];
    for (int64_t p = 0; p < m; p++) {
        for (int32_t j = 1; j < r; j++)
            w[j] = s->roots[q * p * j];
        for (int64_t i = 0; i < q; i++) {
            for (int32_t k = 0; k < r; k++)
                a[k] = x[i + q * (p + m * k)];
            butterfly(s, r, a);
            y[i + q * r * p] = a[0];
            for (int32_t j = 1; j < r; j++)
                y[i + q * (r * p + j)] = times_back(a[j], w[j]);
        }
    }
}

/* The same code for every radix, compiled for the small ones. */
static void stage(const stages *s, int32_t r, int64_t m, int64_t q, const complex64 *x, complex64 *y) {
    if (r == 4)
        stage_of(s, 4, m, q, x, y);
    else if (r == 2)
        stage_of(s, 2, m, q, x, y);
    else if (r == 3)
        stage_of(s, 3, m, q, x, y);
    else if (r == 5)
        stage_of(s, 5, m, q, x, y);
    else
        stage_of(s, r, m, q, x, y);
}

/* The transform of x in x or in y, whichever is returned. */
static complex64 *transform(const stages *s, complex64 *x, complex64 *y) {
    int64_t m = s->n, q = 1;
    for (int32_t i = 0; i < s->count; i++) {
        m /= s->radix[i];
        stage(s, s->radix[i], m, q, x, y);
        q *= s->radix[i];
        complex64 *swap = x;
        x = y, y = swap;
    }
    return x;
}

/* A transform of any length: its stages or, with a chirp, those of the convolution. */
typedef struct plan {
    int64_t n, room; /* length; complex numbers in each of two buffers of a thread */
    stages s;
    const complex64 *chirp;    /* exp(i pi k^2 / n) for k < n, or NULL */
    const complex64 *spectrum; /* the transform of the chirp, around 0, divided by its length */
} plan;

static int64_t power_above(int64_t n) {
    int64_t m = 1;
    while (m < n)
        m *= 2;
    return m;
}

/* Everything but the tables. */
static void plan_of(int64_t n, plan *p) {
    *p = (plan){.n = n, .room = n};
    if (cut_into_stages(&p->s, n))
        return;
    p->room = power_above(2 * n - 1);
    cut_into_stages(&p->s, p->room);
}

static bool has_chirp(const plan *p) { return p->room != p->n; }

/* Complex numbers of a run's tables, and of a table that was made before: the roots of unity of the stages. */
static int64_t table_size(const plan *p, bool made) { return has_chirp(p) ? 3 * p->room + p->n : made ? 0 : p->n; }

/* Fills in the tables; `made`: the roots of length n, or NULL; `to` has room for table_size. */
static void make_tables(plan *p, const complex64 *made, complex64 *to) {
    p->s.roots = made && !has_chirp(p) ? made : to;
    if (p->s.roots != to)
        return;
    for (int64_t k = 0; k < p->room; k++)
        to[k] = unit_root(k, p->room);
    if (!has_chirp(p))
        return;
    complex64 *chirp = to + p->room, *x = chirp + p->n, *y = x + p->room;
    memset(x, 0, (size_t)p->room * sizeof *x);
    for (int64_t k = 0; k < p->n; k++) {
        chirp[k] = unit_root(k * k % (2 * p->n), 2 * p->n);
        x[k] = (complex64){chirp[k].re / (double)p->room, chirp[k].im / (double)p->room};
        if (k > 0)
            x[p->room - k] = x[k];
    }
    p->chirp = chirp;
    p->spectrum = transform(&p->s, x, y);
}

/* The transform of n numbers in x, with room for p->room there and in y. */
static complex64 *transform_any(const plan *p, complex64 *x, complex64 *y) {
    if (!has_chirp(p))
        return transform(&p->s, x, y);
    for (int64_t k = 0; k < p->n; k++)
        x[k] = times_back(x[k], p->chirp[k]);
    memset(x + p->n, 0, (size_t)(p->room - p->n) * sizeof *x);
    complex64 *a = transform(&p->s, x, y), *b = a == x ? y : x;
    for (int64_t k = 0; k < p->room; k++) { /* the conjugate, so that the same transform leads back */
        const complex64 v = times(a[k], p->spectrum[k]);
        a[k] = (complex64){v.re, -v.im};
    }
    complex64 *c = transform(&p->s, a, b);
    for (int64_t k = 0; k < p->n; k++)
        c[k] = times_back((complex64){c[k].re, -c[k].im}, p->chirp[k]);
    return c;
}

/* ---- what DFT and STFT share ---- */

static double load(const fr_tensor *x, int64_t i) {
    return x->dtype == FR_F64 ? ((const double *)(const void *)x->data)[i] : (double)((const float *)(const void *)x->data)[i];
}

static void store(const fr_tensor *y, int64_t i, double v) {
    if (y->dtype == FR_F64)
        ((double *)(void *)y->data)[i] = v;
    else
        ((float *)(void *)y->data)[i] = (float)v;
}

static bool is_float(const fr_tensor *x) { return x->dtype == FR_F32 || x->dtype == FR_F64; }

/* Input, output and table of a transform of length n. */
static frugal_status check_transform(const fr_call *c, int64_t n, int32_t table) {
    const fr_tensor *x = c->in[0], *y = c->out[0], *t = c->in[table];
    FR_DTYPE(c, is_float(x) && y->dtype == x->dtype, "a Fourier transform is of float32 or float64");
    FR_NEED(c, n <= MAX_LENGTH, FRUGAL_TOO_BIG, "a Fourier transform is of at most 2^26 numbers");
    FR_SHAPE(c, n >= 1 || y->n == 0, "a Fourier transform has a length of at least 1");
    if (!t)
        return FRUGAL_OK;
    FR_DTYPE(c, t->dtype == FR_F64, "the table of a Fourier transform is float64");
    FR_SHAPE(c, t->rank == 2 && t->dims[0] == n && t->dims[1] == 2, "the table of a Fourier transform is [length, 2]");
    return FRUGAL_OK;
}

static void transform_scratch(const fr_call *c, int64_t n, int32_t table, fr_scratch *s) {
    plan p;
    if (n < 1)
        return;
    plan_of(n, &p);
    s->shared = table_size(&p, c->in[table] != NULL) * (int64_t)sizeof(complex64);
    s->thread = 2 * p.room * (int64_t)sizeof(complex64);
}

static void start_transform(const fr_call *c, int64_t n, int32_t table, plan *p) {
    plan_of(n, p);
    make_tables(p, c->in[table] ? (const complex64 *)(const void *)c->in[table]->data : NULL, (complex64 *)(void *)c->shared);
}

/* ---- DFT ---- */

enum { DFT_AXIS, DFT_LENGTH, DFT_INVERSE, DFT_ONESIDED, DFT_TABLE = 1 };

frugal_status fr_dft_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    const int64_t axis = fr_attr_dim(c, DFT_AXIS), n = fr_attr_dim(c, DFT_LENGTH);
    const bool inverse = c->attrs[DFT_INVERSE] != 0, onesided = c->attrs[DFT_ONESIDED] != 0;
    FR_TRY(check_transform(c, n, DFT_TABLE));
    FR_SHAPE(c, x->rank >= 2 && x->rank == y->rank, "input and output of a Fourier transform have one rank of at least 2");
    const int32_t last = x->rank - 1;
    FR_SHAPE(c, axis >= 0 && axis < last, "a Fourier transform is along an axis before the last");
    FR_SHAPE(c, x->dims[last] == 1 || x->dims[last] == 2, "the last axis of a Fourier transform has real and imaginary parts");
    for (int32_t a = 0; a <= last; a++) {
        int64_t want = x->dims[a];
        if (a == last)
            want = inverse && onesided ? 1 : 2;
        else if (a == axis)
            want = onesided && !inverse ? n / 2 + 1 : n;
        if (y->dims[a] != want)
            return fr_fail(c, FRUGAL_BAD_SHAPE, c->n_in, a, want, y->dims[a], "the output has another shape");
    }
    return FRUGAL_OK;
}

void fr_dft_scratch(const fr_call *c, fr_scratch *s) { transform_scratch(c, fr_attr_dim(c, DFT_LENGTH), DFT_TABLE, s); }

typedef struct dft_job {
    const fr_call *c;
    plan p;
    int64_t have, inner; /* numbers along the axis, elements behind it without the last */
    bool inverse, onesided;
} dft_job;

/* n numbers of line i: zeros behind its end, the mirror image of one side; parts swapped when the transform goes back. */
static void dft_load(const dft_job *j, int64_t i, complex64 *to) {
    const fr_tensor *x = j->c->in[0];
    const int64_t parts = x->dims[x->rank - 1], n = j->p.n;
    const int64_t at = i / j->inner * j->have * j->inner + i % j->inner;
    const int64_t wanted = j->inverse && j->onesided ? n / 2 + 1 : n, given = fr_min(j->have, wanted);
    for (int64_t k = 0; k < n; k++) {
        complex64 v = {0.0, 0.0};
        if (k < given) {
            const int64_t e = (at + k * j->inner) * parts;
            v = (complex64){load(x, e), parts == 2 ? load(x, e + 1) : 0.0};
        }
        to[k] = j->inverse ? (complex64){v.im, v.re} : v;
    }
    for (int64_t k = wanted; k < n; k++)
        to[k] = (complex64){-to[n - k].re, to[n - k].im};
}

static void dft_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const dft_job *j = p;
    const fr_tensor *y = j->c->out[0];
    const int64_t parts = y->dims[y->rank - 1], n = j->p.n, out = j->onesided && !j->inverse ? n / 2 + 1 : n;
    complex64 *x = (complex64 *)(void *)fr_thread_scratch(j->c, thread);
    for (int64_t i = begin; i < end; i++) {
        const int64_t at = i / j->inner * out * j->inner + i % j->inner;
        dft_load(j, i, x);
        const complex64 *v = transform_any(&j->p, x, x + j->p.room);
        for (int64_t k = 0; k < out; k++) {
            const int64_t e = (at + k * j->inner) * parts;
            store(y, e, j->inverse ? v[k].im / (double)n : v[k].re);
            if (parts == 2)
                store(y, e + 1, j->inverse ? v[k].re / (double)n : v[k].im);
        }
    }
}

frugal_status fr_dft_run(const fr_call *c) {
    const fr_tensor *x = c->in[0];
    const int32_t axis = (int32_t)fr_attr_dim(c, DFT_AXIS);
    dft_job j = {.c = c,
                 .have = x->dims[axis],
                 .inner = fr_product(x, axis + 1, x->rank - 1),
                 .inverse = c->attrs[DFT_INVERSE] != 0,
                 .onesided = c->attrs[DFT_ONESIDED] != 0};
    start_transform(c, fr_attr_dim(c, DFT_LENGTH), DFT_TABLE, &j.p);
    fr_parallel(c, fr_product(x, 0, axis) * j.inner, fr_row_grain(8 * j.p.n), dft_range, &j);
    return FRUGAL_OK;
}

/* ---- STFT ---- */

enum { STFT_STEP, STFT_LENGTH, STFT_ONESIDED, STFT_WINDOW = 1, STFT_TABLE = 2 };

frugal_status fr_stft_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *w = c->in[STFT_WINDOW], *y = c->out[0];
    const int64_t step = fr_attr_dim(c, STFT_STEP), n = fr_attr_dim(c, STFT_LENGTH);
    FR_TRY(check_transform(c, n, STFT_TABLE));
    FR_SHAPE(c, x->rank == 3 && (x->dims[2] == 1 || x->dims[2] == 2), "a signal is [batch, length, 1 or 2]");
    FR_SHAPE(c, y->rank == 4 && y->dims[0] == x->dims[0] && y->dims[3] == 2, "frames are [batch, frames, numbers, 2]");
    FR_SHAPE(c, y->dims[2] == (c->attrs[STFT_ONESIDED] ? n / 2 + 1 : n), "frames have another length than their transform");
    FR_SHAPE(c, step >= 1, "the step between frames is at least 1");
    const int64_t most = x->dims[1] >= n ? (x->dims[1] - n) / step + 1 : 0;
    FR_SHAPE(c, y->dims[1] <= most, "the signal is too short for so many frames");
    if (w) {
        FR_DTYPE(c, w->dtype == x->dtype, "signal and window have one data type");
        FR_SHAPE(c, w->rank == 1 && w->dims[0] == n, "the window is as long as a frame");
    }
    return FRUGAL_OK;
}

void fr_stft_scratch(const fr_call *c, fr_scratch *s) { transform_scratch(c, fr_attr_dim(c, STFT_LENGTH), STFT_TABLE, s); }

typedef struct stft_job {
    const fr_call *c;
    plan p;
    int64_t step;
} stft_job;

static void stft_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const stft_job *j = p;
    const fr_tensor *x = j->c->in[0], *w = j->c->in[STFT_WINDOW], *y = j->c->out[0];
    const int64_t parts = x->dims[2], frames = y->dims[1], out = y->dims[2];
    complex64 *to = (complex64 *)(void *)fr_thread_scratch(j->c, thread);
    for (int64_t i = begin; i < end; i++) {
        const int64_t at = i / frames * x->dims[1] + i % frames * j->step;
        for (int64_t k = 0; k < j->p.n; k++) {
            const double scale = w ? load(w, k) : 1.0;
            to[k].re = load(x, (at + k) * parts) * scale;
            to[k].im = parts == 2 ? load(x, (at + k) * parts + 1) * scale : 0.0;
        }
        const complex64 *v = transform_any(&j->p, to, to + j->p.room);
        for (int64_t k = 0; k < out; k++) {
            store(y, (i * out + k) * 2, v[k].re);
            store(y, (i * out + k) * 2 + 1, v[k].im);
        }
    }
}

frugal_status fr_stft_run(const fr_call *c) {
    stft_job j = {.c = c, .step = fr_attr_dim(c, STFT_STEP)};
    start_transform(c, fr_attr_dim(c, STFT_LENGTH), STFT_TABLE, &j.p);
    fr_parallel(c, c->out[0]->dims[0] * c->out[0]->dims[1], fr_row_grain(8 * j.p.n), stft_range, &j);
    return FRUGAL_OK;
}

/* ---- WINDOW ---- */

frugal_status fr_window_check(const fr_call *c) {
    const fr_tensor *y = c->out[0];
    FR_DTYPE(c, is_float(y), "a window is float32 or float64");
    FR_SHAPE(c, y->rank == 1, "a window has one axis");
    return FRUGAL_OK;
}

static void window_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const fr_tensor *y = c->out[0];
    const int64_t n = c->attrs[0] ? y->n : y->n - 1;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const double one = n > 0 ? unit_root(i % n, n).re : 1.0, two = n > 0 ? unit_root(2 * i % n, n).re : 1.0;
        store(y, i, fr_attr_double(c, 1) + fr_attr_double(c, 2) * one + fr_attr_double(c, 3) * two);
    }
}

frugal_status fr_window_run(const fr_call *c) {
    fr_parallel(c, c->out[0]->n, 4096, window_range, c);
    return FRUGAL_OK;
}

/* ---- MEL ---- */

enum { MEL_BINS, MEL_LENGTH, MEL_RATE, MEL_LOW, MEL_HIGH };

frugal_status fr_mel_check(const fr_call *c) {
    const fr_tensor *y = c->out[0];
    for (int32_t i = 0; i < 5; i++) {
        const bool fits = i < MEL_LOW ? c->in[i]->dtype == FR_I32 || c->in[i]->dtype == FR_I64 : is_float(c->in[i]);
        FR_DTYPE(c, fits, "sizes are int32 or int64, frequencies float32 or float64");
        FR_SHAPE(c, c->in[i]->n == 1, "an operand of one element");
    }
    FR_DTYPE(c, is_float(y), "a filter bank is float32 or float64");
    FR_SHAPE(c, y->rank == 2, "a filter bank is [frequencies, bands]");
    return FRUGAL_OK;
}

static int64_t integer(const fr_tensor *x) {
    return x->dtype == FR_I64 ? *(const int64_t *)(const void *)x->data : *(const int32_t *)(const void *)x->data;
}

#define MEL_LOG10 2.30258509299404568402

/* The number of the frequency at which band i begins, limited to a range that no later product leaves. */
static int64_t mel_edge(double low, double step, int64_t i, int64_t length, int64_t rate) {
    const double hertz = 700.0 * (fr_exp64((low + (double)i * step) * (MEL_LOG10 / 2595.0)) - 1.0);
    const double at = floor((double)(length + 1) * hertz / (double)rate);
    return at >= 0.0 && at <= (double)MAX_LENGTH ? (int64_t)at : -1;
}

/* Band i: from 0 at its begin up to 1 at the begin of the next, down to 0 at that of the next but one. */
static void mel_band(const fr_tensor *y, int64_t i, int64_t from, int64_t top, int64_t to) {
    const int64_t bands = y->dims[1];
    if (top == from)
        store(y, top * bands + i, 1.0);
    for (int64_t k = from; from < top && k <= top; k++)
        store(y, k * bands + i, (double)(k - from) / (double)(top - from));
    for (int64_t k = top; k < to; k++)
        store(y, k * bands + i, (double)(to - k) / (double)(to - top));
}

frugal_status fr_mel_run(const fr_call *c) {
    const fr_tensor *y = c->out[0];
    const int64_t bins = integer(c->in[MEL_BINS]), length = integer(c->in[MEL_LENGTH]), rate = integer(c->in[MEL_RATE]);
    FR_NEED(c, bins == y->dims[1] && length >= 0 && length <= MAX_LENGTH && length / 2 + 1 == y->dims[0], FRUGAL_BAD_INPUT,
            "the sizes of a filter bank do not fit its shape");
    FR_NEED(c, rate > 0, FRUGAL_BAD_INPUT, "the sample rate is above 0");
    const double low = 2595.0 / MEL_LOG10 * fr_log64(1.0 + load(c->in[MEL_LOW], 0) / 700.0);
    const double step = (2595.0 / MEL_LOG10 * fr_log64(1.0 + load(c->in[MEL_HIGH], 0) / 700.0) - low) / (double)(bins + 2);
    memset(y->data, 0, (size_t)y->bytes);
    for (int64_t i = 0; i < bins; i++) {
        const int64_t from = mel_edge(low, step, i, length, rate), top = mel_edge(low, step, i + 1, length, rate);
        const int64_t to = mel_edge(low, step, i + 2, length, rate);
        FR_NEED(c, from >= 0 && from <= top && top <= to && top < y->dims[0] && to <= y->dims[0], FRUGAL_BAD_INPUT,
                "the edges of a filter bank lie outside the spectrum");
        mel_band(y, i, from, top, to);
    }
    return FRUGAL_OK;
}
