/* ops_matrix.c - DET, and MATMUL of what is not float32: every sum in ascending order, products rounded before they are added. */
#include "ops.h"

/* ---- DET ---- */

frugal_status fr_det_check(const fr_call *c) {
    const fr_tensor *x = c->in[0], *y = c->out[0];
    FR_DTYPE(c, (x->dtype == FR_F32 || x->dtype == FR_F64) && y->dtype == x->dtype, "a determinant is of float32 or float64");
    FR_SHAPE(c, x->rank >= 2 && x->dims[x->rank - 1] == x->dims[x->rank - 2], "a determinant wants square matrices");
    fr_tensor like = *x;
    like.rank = (uint8_t)(x->rank - 2);
    return fr_same_shape(c, y, &like, c->n_in);
}

static int64_t det_bytes(const fr_tensor *x) { return 8 * x->dims[x->rank - 1] * x->dims[x->rank - 1]; }

void fr_det_scratch(const fr_call *c, fr_scratch *s) { s->thread = det_bytes(c->in[0]); }

/* Gaussian elimination with the largest pivot of each column (the first of equals); a is overwritten. */
static double determinant(double *a, int64_t n) {
    double det = 1;
    for (int64_t j = 0; j < n; j++) {
        int64_t best = j;
        for (int64_t i = j + 1; i < n; i++) {
            if (__builtin_fabs(a[i * n + j]) > __builtin_fabs(a[best * n + j]))
                best = i;
        }
        for (int64_t k = j; best != j && k < n; k++) {
            const double v = a[j * n + k];
            a[j * n + k] = a[best * n + k];
            a[best * n + k] = v;
        }
        const double pivot = a[j * n + j];
        det *= best == j ? pivot : -pivot;
        if (pivot == 0)
            return 0;
        for (int64_t i = j + 1; i < n; i++) {
            const double by = a[i * n + j] / pivot;
            for (int64_t k = j + 1; k < n; k++)
                a[i * n + k] -= by * a[j * n + k];
        }
    }
    return det;
}

static void det_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const fr_call *c = p;
    const fr_tensor *x = c->in[0];
    const int64_t n = x->dims[x->rank - 1];
    double *a = (double *)(void *)fr_thread_scratch(c, thread);
    for (int64_t i = begin; i < end; i++) {
        if (x->dtype == FR_F64) {
            memcpy(a, x->data + i * det_bytes(x), (size_t)det_bytes(x));
            ((double *)(void *)c->out[0]->data)[i] = determinant(a, n);
            continue;
        }
        const float *from = (const float *)(const void *)x->data + i * n * n;
        for (int64_t k = 0; k < n * n; k++)
            a[k] = (double)from[k];
        ((float *)(void *)c->out[0]->data)[i] = (float)determinant(a, n);
    }
}

frugal_status fr_det_run(const fr_call *c) {
    const int64_t n = c->in[0]->dims[c->in[0]->rank - 1];
    fr_parallel(c, c->out[0]->n, fr_row_grain(n * n), det_range, c);
    return FRUGAL_OK;
}

/* ---- MATMUL of float64 and integers ---- */

typedef struct matrix_job {
    const fr_call *c;
    fr_walk batch; /* operand 0: matrices of a, 1: of b */
    int64_t m, n, k;
    bool transposed;
    double alpha;
} matrix_job;

/* y [n] = alpha * a [k] b.  b: [k, n], or [n, k] when transposed.  Integers wrap. */
#define MATRIX_ROW(NAME, T, SCALE)                                                                                               \
    static void NAME(uint8_t *out, const uint8_t *left, const uint8_t *right, const matrix_job *j) {                             \
        T *y = (T *)(void *)out;                                                                                                 \
        const T *a = (const T *)(const void *)left, *b = (const T *)(const void *)right;                                         \
        for (int64_t x = 0; x < j->n; x++)                                                                                       \
            y[x] = 0;                                                                                                            \
        for (int64_t kk = 0; kk < j->k; kk++) {                                                                                  \
            const T v = a[kk];                                                                                                   \
            if (j->transposed) {                                                                                                 \
                for (int64_t x = 0; x < j->n; x++)                                                                               \
                    y[x] += v * b[x * j->k + kk];                                                                                \
            } else {                                                                                                             \
                for (int64_t x = 0; x < j->n; x++)                                                                               \
                    y[x] += v * b[kk * j->n + x];                                                                                \
            }                                                                                                                    \
        }                                                                                                                        \
        SCALE                                                                                                                    \
    }

MATRIX_ROW(row_f64, double, for (int64_t x = 0; x < j->n; x++) y[x] *= j->alpha;)
MATRIX_ROW(row_32, uint32_t, )
MATRIX_ROW(row_64, uint64_t, )

bool fr_matmul_any_dtype(int dtype) {
    return dtype == FR_F64 || dtype == FR_I32 || dtype == FR_U32 || dtype == FR_I64 || dtype == FR_U64;
}

/* Rows of all products, one after the other. */
static void matrix_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const matrix_job *j = p;
    const fr_tensor *a = j->c->in[0];
    const int64_t size = fr_dtype_bytes(a->dtype);
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        int64_t rest = i / j->m, at_a = 0, at_b = 0;
        for (int x = j->batch.rank - 1; x >= 0; x--) {
            const int64_t index = rest % j->batch.dims[x];
            rest /= j->batch.dims[x];
            at_a += index * j->batch.step[0][x];
            at_b += index * j->batch.step[1][x];
        }
        uint8_t *y = j->c->out[0]->data + i * j->n * size;
        const uint8_t *left = a->data + (at_a * j->m + i % j->m) * j->k * size;
        const uint8_t *right = j->c->in[1]->data + at_b * j->n * j->k * size;
        if (a->dtype == FR_F64)
            row_f64(y, left, right, j);
        else if (size == 4)
            row_32(y, left, right, j);
        else
            row_64(y, left, right, j);
    }
}

frugal_status fr_matmul_any_run(const fr_call *c) {
    const fr_tensor *a = c->in[0], *y = c->out[0];
    fr_tensor ab = *a, bb = *c->in[1], yb = *y; /* the batch dims alone */
    matrix_job j = {.c = c, .transposed = c->attrs[0] != 0, .alpha = fr_attr_double(c, 1)};
    ab.rank = (uint8_t)(ab.rank - 2), bb.rank = (uint8_t)(bb.rank - 2), yb.rank = (uint8_t)(yb.rank - 2);
    j.m = y->dims[y->rank - 2], j.n = y->dims[y->rank - 1], j.k = a->dims[a->rank - 1];
    fr_walk_init(&j.batch, &yb);
    fr_walk_broadcast(&j.batch, &ab);
    fr_walk_broadcast(&j.batch, &bb);
    fr_parallel(c, y->n / j.n, fr_row_grain(fr_max(1, fr_min(j.n, 16384) * fr_min(j.k, 16384))), matrix_range, &j);
    return FRUGAL_OK;
}
