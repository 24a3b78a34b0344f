/* transpose.c - TRANSPOSE where the axis that lies dense in x is not the one that lies dense in y: a matrix of these two axes for
 * every index of the others, in tiles of 16 bytes a row, so that both sides are read and written by whole vectors. */
#include "ops.h"

typedef struct matrices {
    uint8_t *y;
    const uint8_t *x;
    int64_t size;                       /* bytes of an element */
    int64_t rows, cols, x_step, y_step; /* y[r * y_step + k] = x[k * x_step + r], r < rows, k < cols; in elements */
    int64_t bands;                      /* stretches of BAND rows */
    int32_t rank;                       /* the other axes */
    int64_t dims[FRUGAL_MAX_RANK], x_steps[FRUGAL_MAX_RANK], y_steps[FRUGAL_MAX_RANK];
} matrices;

enum { BAND = 64 };

/* Vector i of t and vector i + half are interleaved, log2(count) times: a transposed tile of 16 / sizeof(T) rows. */
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define TILES 1
#endif
#endif

#ifdef TILES
typedef uint8_t v8 __attribute__((vector_size(16)));
typedef uint16_t v16 __attribute__((vector_size(16)));
typedef uint32_t v32 __attribute__((vector_size(16)));
typedef uint64_t v64 __attribute__((vector_size(16)));
#define LOW8(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH8(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#define LOW16(a, b) __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH16(a, b) __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15)
#define LOW32(a, b) __builtin_shufflevector(a, b, 0, 4, 1, 5)
#define HIGH32(a, b) __builtin_shufflevector(a, b, 2, 6, 3, 7)
#define LOW64(a, b) __builtin_shufflevector(a, b, 0, 2)
#define HIGH64(a, b) __builtin_shufflevector(a, b, 1, 3)

/* N by N elements: N rows of x to N rows of y. */
#define TILE(NAME, T, V, N, LOW, HIGH)                                                                                           \
    static inline void NAME(T *y, int64_t ys, const T *x, int64_t xs) {                                                          \
        V a[N], b[N];                                                                                                            \
        _Pragma("GCC unroll 16") for (int i = 0; i < (N); i++) memcpy(&a[i], x + i * xs, 16);                                    \
        _Pragma("GCC unroll 16") for (int step = 1; step < (N); step *= 2) {                                                     \
            _Pragma("GCC unroll 16") for (int i = 0; i < (N) / 2; i++) {                                                         \
                b[2 * i] = LOW(a[i], a[i + (N) / 2]);                                                                            \
                b[2 * i + 1] = HIGH(a[i], a[i + (N) / 2]);                                                                       \
            }                                                                                                                    \
            memcpy(a, b, sizeof a);                                                                                              \
        }                                                                                                                        \
        _Pragma("GCC unroll 16") for (int i = 0; i < (N); i++) memcpy(y + i * ys, &a[i], 16);                                    \
    }
TILE(tile8, uint8_t, v8, 16, LOW8, HIGH8)
TILE(tile16, uint16_t, v16, 8, LOW16, HIGH16)
TILE(tile32, uint32_t, v32, 4, LOW32, HIGH32)
TILE(tile64, uint64_t, v64, 2, LOW64, HIGH64)
#define MAYBE_TILES(TILE, N)                                                                                                     \
    for (; r + (N) <= rows; r += (N)) {                                                                                          \
        for (k = 0; k + (N) <= cols; k += (N))                                                                                   \
            TILE(y + r * ys + k, ys, x + k * xs + r, xs);                                                                        \
        for (; k < cols; k++) {                                                                                                  \
            for (int i = 0; i < (N); i++)                                                                                        \
                y[(r + i) * ys + k] = x[k * xs + r + i];                                                                         \
        }                                                                                                                        \
    }
#else
#define MAYBE_TILES(TILE, N)
#endif

/* Few columns: y is nearly dense, and is written as it lies. */
#define FEW(COLS)                                                                                                                \
    case COLS:                                                                                                                   \
        for (; r < rows; r++) {                                                                                                  \
            for (k = 0; k < (COLS); k++)                                                                                         \
                y[r * ys + k] = x[k * xs + r];                                                                                   \
        }                                                                                                                        \
        break;
#define BLOCK(NAME, T, TILE, N)                                                                                                  \
    static void NAME(T *restrict y, int64_t ys, const T *restrict x, int64_t xs, int64_t rows, int64_t cols) {                   \
        int64_t r = 0, k = 0;                                                                                                    \
        switch (cols) {                                                                                                          \
            FEW(2)                                                                                                               \
            FEW(3)                                                                                                               \
        default:                                                                                                                 \
            break;                                                                                                               \
        }                                                                                                                        \
        MAYBE_TILES(TILE, N)                                                                                                     \
        for (k = 0; r < rows && k < cols; k++) {                                                                                 \
            for (int64_t i = r; i < rows; i++)                                                                                   \
                y[i * ys + k] = x[k * xs + i];                                                                                   \
        }                                                                                                                        \
    }
BLOCK(block8, uint8_t, tile8, 16)
BLOCK(block16, uint16_t, tile16, 8)
BLOCK(block32, uint32_t, tile32, 4)
BLOCK(block64, uint64_t, tile64, 2)

static void transpose_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const matrices *m = p;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        const int64_t first = i % m->bands * BAND, rows = fr_min(BAND, m->rows - first);
        int64_t rest = i / m->bands, from = first, to = first * m->y_step;
        for (int32_t a = m->rank - 1; a >= 0; a--) {
            from += rest % m->dims[a] * m->x_steps[a];
            to += rest % m->dims[a] * m->y_steps[a];
            rest /= m->dims[a];
        }
        const void *x = m->x + from * m->size;
        void *y = m->y + to * m->size;
        switch (m->size) {
        case 1:
            block8(y, m->y_step, x, m->x_step, rows, m->cols);
            break;
        case 2:
            block16(y, m->y_step, x, m->x_step, rows, m->cols);
            break;
        case 4:
            block32(y, m->y_step, x, m->x_step, rows, m->cols);
            break;
        default:
            block64(y, m->y_step, x, m->x_step, rows, m->cols);
            break;
        }
    }
}

bool fr_transpose_walk(const fr_call *c, fr_walk *w) {
    matrices m = {.y = c->out[0]->data, .x = c->in[0]->data, .size = fr_dtype_bytes(c->in[0]->dtype), .x_step = 1, .cols = 1};
    int64_t stride = 1, units = 1;
    int32_t dense = -1;
    fr_walk_collapse(w);
    const int32_t last = w->rank - 1;
    for (int32_t a = 0; a < last; a++)
        dense = w->step[0][a] == 1 ? a : dense;
    if (dense < 0)
        return false;
    for (int32_t a = last; a >= 0; a--) {
        if (a == last) {
            m.cols = w->dims[a], m.x_step = w->step[0][a];
        } else if (a == dense) {
            m.rows = w->dims[a], m.y_step = stride;
        } else {
            units *= w->dims[a];
        }
        stride *= w->dims[a];
    }
    stride = 1;
    for (int32_t a = last; a >= 0; stride *= w->dims[a], a--) {
        if (a != last && a != dense)
            m.dims[m.rank] = w->dims[a], m.x_steps[m.rank] = w->step[0][a], m.y_steps[m.rank++] = stride;
    }
    m.bands = fr_ceil_div(m.rows, BAND);
    fr_parallel(c, units * m.bands, fr_row_grain(m.cols * BAND), transpose_range, &m);
    return true;
}
