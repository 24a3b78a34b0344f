/* ops_common.c - sizes of types and layouts, cutting work for the pool, walking broadcast and strided operands. */
#include "ops.h"

/* ---- types and sizes ---- */

int64_t fr_dtype_bytes(int dtype) {
    switch (dtype) {
    case FR_U8:
    case FR_I8:
    case FR_BOOL:
    case FR_F8E4M3FN:
    case FR_F8E4M3FNUZ:
    case FR_F8E5M2:
    case FR_F8E5M2FNUZ:
    case FR_F8E8M0:
    case FR_F4E2M1:
    case FR_U4:
    case FR_I4:
    case FR_U2:
    case FR_I2:
        return 1;
    case FR_U16:
    case FR_I16:
    case FR_F16:
    case FR_BF16:
        return 2;
    case FR_F32:
    case FR_I32:
    case FR_U32:
        return 4;
    case FR_I64:
    case FR_F64:
    case FR_U64:
        return 8;
    default:
        return 0;
    }
}

/* Zeros count as ones in the limit, so that a product of some of the dims never overflows either. */
static bool count(int rank, const int64_t *dims, int64_t *n) {
    int64_t all = 1;
    bool empty = false;
    for (int a = 0; a < rank; a++) {
        if (dims[a] == 0)
            empty = true;
        if (dims[a] > 0 && (__builtin_mul_overflow(all, dims[a], &all) || all > FRUGAL_MAX_DIM))
            return false;
    }
    *n = empty ? 0 : all;
    return true;
}

/* No overflow below: n is at most 2^40, rounding up multiplies by at most 16 * 32, an element has at most 8 bytes. */
bool fr_layout_bytes(int dtype, int layout, int rank, const int64_t *dims, int64_t *n, int64_t *bytes) {
    if (!count(rank, dims, n))
        return false;
    if (layout == FRUGAL_PLAIN)
        return *bytes = *n * fr_dtype_bytes(dtype), true;
    if (rank < 1)
        return false;
    const int64_t k = dims[rank - 1], kp = fr_round_up(k, FR_BLOCK), np = fr_round_up(dims[0], FR_PANEL);
    switch (layout) {
    case FRUGAL_F32_P16:
        return *bytes = 4 * np * k, rank == 2 && dtype == FR_F32;
    case FRUGAL_F16_P16:
    case FRUGAL_BF16_P16:
        return *bytes = 2 * np * k, rank == 2 && dtype == (layout == FRUGAL_F16_P16 ? FR_F16 : FR_BF16);
    case FRUGAL_W8_P16:
        return *bytes = np * kp, rank == 2 && dtype == FR_I8;
    case FRUGAL_W4_P16:
        return *bytes = np / FR_PANEL * (kp / FR_BLOCK) * FR_W4_BLOCK, rank == 2 && dtype == FR_U8;
    case FRUGAL_W4O_P16:
        return *bytes = np / FR_PANEL * (kp / FR_BLOCK) * FR_W4O_BLOCK, rank == 2 && dtype == FR_U8;
    case FRUGAL_W8B_P16:
        return *bytes = np / FR_PANEL * (kp / FR_BLOCK) * FR_W8B_BLOCK, rank == 2 && dtype == FR_U8;
    case FRUGAL_A8_TOKEN:
    case FRUGAL_A8_BLOCK:
        break;
    default:
        return false;
    }
    int64_t m = 1;
    for (int a = 0; a + 1 < rank; a++)
        m *= dims[a];
    const int64_t scales = layout == FRUGAL_A8_TOKEN ? m : m * (kp / FR_BLOCK);
    *bytes = fr_round_up(m * kp, 64) + fr_round_up(4 * scales, 64) + 4 * m * (kp / FR_BLOCK);
    return dtype == FR_I8;
}

void fr_act8_view(const fr_tensor *t, fr_act8 *a) {
    a->m = fr_product(t, 0, t->rank - 1);
    a->kp = fr_round_up(t->dims[t->rank - 1], FR_BLOCK);
    a->blocked = t->layout == FRUGAL_A8_BLOCK;
    const int64_t scale_at = fr_round_up(a->m * a->kp, 64), scales = a->blocked ? a->m * (a->kp / FR_BLOCK) : a->m;
    a->q = (const int8_t *)t->data;
    a->scale = (const float *)(const void *)(t->data + scale_at);
    a->sum = (const int32_t *)(const void *)(t->data + scale_at + fr_round_up(4 * scales, 64));
}

float fr_half_to_float(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, frac = h & 1023;
    uint32_t bits;
    float f;
    if (exp == 31)
        bits = sign | 0x7f800000 | frac << 13;
    else if (exp > 0)
        bits = sign | (exp + 112) << 23 | frac << 13;
    else {
        f = (float)frac * 0x1p-24f; /* exact */
        memcpy(&bits, &f, 4);
        bits |= sign;
    }
    memcpy(&f, &bits, 4);
    return f;
}

/* ---- checks ---- */

frugal_status fr_same_shape(const fr_call *c, const fr_tensor *x, const fr_tensor *like, int32_t pos) {
    if (x->rank != like->rank)
        return fr_fail(c, FRUGAL_BAD_SHAPE, pos, -1, like->rank, x->rank, "an operand has another rank than expected");
    for (int32_t a = 0; a < x->rank; a++) {
        if (x->dims[a] == like->dims[a])
            continue;
        return fr_fail(c, FRUGAL_BAD_SHAPE, pos, a, like->dims[a], x->dims[a], "an operand has another shape than expected");
    }
    return FRUGAL_OK;
}

frugal_status fr_vector(const fr_call *c, const fr_tensor *x, int64_t n, int32_t pos) {
    if (x->dtype != FR_F32)
        return fr_fail(c, FRUGAL_UNSUPPORTED, pos, -1, FR_F32, x->dtype, "an operand must be float32");
    if (x->rank != 1)
        return fr_fail(c, FRUGAL_BAD_SHAPE, pos, -1, 1, x->rank, "an operand must have one axis");
    if (x->dims[0] != n)
        return fr_fail(c, FRUGAL_BAD_SHAPE, pos, 0, n, x->dims[0], "an operand has another length than expected");
    return FRUGAL_OK;
}

/* ---- cutting work ---- */

typedef struct range_job {
    fr_range fn;
    const void *ctx;
    int64_t n, each;
} range_job;

static void range_task(void *p, int64_t i, int32_t thread) {
    const range_job *j = p;
    j->fn(j->ctx, i * j->each, fr_min(j->n, (i + 1) * j->each), thread);
}

void fr_parallel(const fr_call *c, int64_t n, int64_t grain, fr_range fn, const void *ctx) {
    if (c->threads == 1 || n <= grain) {
        fn(ctx, 0, n, 0);
        return;
    }
    const int64_t tasks = fr_min(fr_ceil_div(n, grain), 4 * (int64_t)c->threads);
    range_job j = {fn, ctx, n, fr_ceil_div(n, tasks)};
    fr_pool_run(c->pool, fr_ceil_div(n, j.each), range_task, &j);
}

/* ---- walking ---- */

void fr_walk_init(fr_walk *w, const fr_tensor *y) {
    *w = (fr_walk){.rank = y->rank};
    for (int a = 0; a < y->rank; a++)
        w->dims[a] = y->dims[a];
}

bool fr_broadcasts_to(const fr_tensor *x, const fr_tensor *y) {
    if (x->rank > y->rank)
        return false;
    for (int a = 0; a < x->rank; a++) {
        const int64_t d = x->dims[x->rank - 1 - a];
        if (d != 1 && d != y->dims[y->rank - 1 - a])
            return false;
    }
    return true;
}

void fr_walk_broadcast(fr_walk *w, const fr_tensor *x) {
    int64_t *step = w->step[w->operands++], stride = 1;
    for (int a = 1; a <= w->rank; a++) {
        const int64_t d = a <= x->rank ? x->dims[x->rank - a] : 1;
        step[w->rank - a] = d == 1 ? 0 : stride;
        stride *= d;
    }
}

static bool mergeable(const fr_walk *w, int a) {
    for (int k = 0; k < w->operands; k++) {
        if (w->step[k][a] != w->step[k][a + 1] * w->dims[a + 1])
            return false;
    }
    return true;
}

static void drop_axis(fr_walk *w, int a) {
    w->rank--;
    for (; a < w->rank; a++) {
        w->dims[a] = w->dims[a + 1];
        for (int k = 0; k < w->operands; k++)
            w->step[k][a] = w->step[k][a + 1];
    }
}

/* Fewer and longer axes, the same elements in the same order.  At least one axis remains. */
void fr_walk_collapse(fr_walk *w) {
    for (int a = w->rank - 1; a >= 0; a--) {
        if (w->dims[a] == 1)
            drop_axis(w, a);
    }
    for (int a = w->rank - 2; a >= 0; a--) {
        if (!mergeable(w, a))
            continue;
        w->dims[a + 1] *= w->dims[a];
        drop_axis(w, a);
    }
    if (w->rank == 0)
        w->rank = 1, w->dims[0] = 1;
}

typedef struct walk_job {
    const fr_walk *w;
    fr_inner fn;
    const void *ctx;
} walk_job;

static void walk_range(const void *p, int64_t begin, int64_t end, int32_t thread) {
    const walk_job *j = p;
    const fr_walk *w = j->w;
    const int inner = w->rank - 1;
    int64_t index[FRUGAL_MAX_RANK], at[FR_WALK_OPERANDS], step[FR_WALK_OPERANDS], rest = begin;
    (void)thread;
    for (int k = 0; k < w->operands; k++)
        at[k] = w->start[k], step[k] = w->step[k][inner];
    for (int a = inner; a >= 0; a--) {
        index[a] = rest % w->dims[a];
        rest /= w->dims[a];
        for (int k = 0; k < w->operands; k++)
            at[k] += index[a] * w->step[k][a];
    }
    while (begin < end) {
        const int64_t n = fr_min(w->dims[inner] - index[inner], end - begin);
        j->fn(j->ctx, begin, at, step, n);
        begin += n;
        for (int k = 0; k < w->operands; k++)
            at[k] -= index[inner] * step[k];
        index[inner] = 0;
        for (int a = inner - 1; a >= 0; a--) {
            for (int k = 0; k < w->operands; k++)
                at[k] += w->step[k][a];
            if (++index[a] < w->dims[a])
                break;
            for (int k = 0; k < w->operands; k++)
                at[k] -= w->step[k][a] * w->dims[a];
            index[a] = 0;
        }
    }
}

void fr_walk_run(const fr_call *c, fr_walk *w, fr_inner fn, const void *ctx) {
    int64_t n = 1;
    fr_walk_collapse(w);
    for (int a = 0; a < w->rank; a++)
        n *= w->dims[a];
    const walk_job j = {w, fn, ctx};
    if (n > 0)
        fr_parallel(c, n, 16384, walk_range, &j);
}

#define COPY(T)                                                                                                                  \
    do {                                                                                                                         \
        T *y = (T *)(void *)dst;                                                                                                 \
        const T *x = (const T *)(const void *)src;                                                                               \
        for (int64_t i = 0; i < n; i++)                                                                                          \
            y[i] = x[i * step];                                                                                                  \
    } while (0)

void fr_copy(uint8_t *dst, const uint8_t *src, int64_t step, int64_t n, int64_t size) {
    if (step == 1) {
        memcpy(dst, src, (size_t)(n * size));
        return;
    }
    switch (size) {
    case 1:
        COPY(uint8_t);
        break;
    case 2:
        COPY(uint16_t);
        break;
    case 4:
        COPY(uint32_t);
        break;
    default:
        COPY(uint64_t);
        break;
    }
}

/* ---- panels ---- */

/* Columns kk .. kk + 3 of four rows to d[0 .. 3], d[16 .. 19], ... */
static void transpose4(float *d, const float *r0, const float *r1, const float *r2, const float *r3) {
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
    typedef float quad __attribute__((vector_size(16)));
    quad a, b, c, e;
    memcpy(&a, r0, 16), memcpy(&b, r1, 16), memcpy(&c, r2, 16), memcpy(&e, r3, 16);
    const quad ab0 = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab2 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const quad ce0 = __builtin_shufflevector(c, e, 0, 4, 1, 5), ce2 = __builtin_shufflevector(c, e, 2, 6, 3, 7);
    a = __builtin_shufflevector(ab0, ce0, 0, 1, 4, 5), b = __builtin_shufflevector(ab0, ce0, 2, 3, 6, 7);
    c = __builtin_shufflevector(ab2, ce2, 0, 1, 4, 5), e = __builtin_shufflevector(ab2, ce2, 2, 3, 6, 7);
    memcpy(d, &a, 16), memcpy(d + 16, &b, 16), memcpy(d + 32, &c, 16), memcpy(d + 48, &e, 16);
    return;
#endif
#endif
    for (int i = 0; i < 4; i++) {
        d[16 * i] = r0[i], d[16 * i + 1] = r1[i], d[16 * i + 2] = r2[i], d[16 * i + 3] = r3[i];
    }
}

/* Up to 16 rows of k, each dense, to [k][16]; missing rows are 0. */
static void pack_rows(float *dst, const float *b, int64_t ldb, int64_t k, int64_t rows) {
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        const float *row = b + r * ldb;
        int64_t kk = 0;
        for (; kk + 4 <= k; kk += 4) {
            transpose4(dst + kk * FR_PANEL + r, row + kk, row + ldb + kk, row + 2 * ldb + kk, row + 3 * ldb + kk);
        }
        for (; kk < k; kk++) {
            for (int64_t i = 0; i < 4; i++)
                dst[kk * FR_PANEL + r + i] = row[i * ldb + kk];
        }
    }
    for (; r < FR_PANEL; r++) {
        for (int64_t kk = 0; kk < k; kk++)
            dst[kk * FR_PANEL + r] = r < rows ? b[r * ldb + kk] : 0.0f;
    }
}

void fr_pack_panels(float *dst, const float *b, int64_t ldb, bool transposed, int64_t k, int64_t n) {
    for (int64_t j = 0; j < n; j += FR_PANEL, dst += k * FR_PANEL) {
        const int64_t cols = fr_min(FR_PANEL, n - j);
        if (transposed) {
            pack_rows(dst, b + j * ldb, ldb, k, cols);
            continue;
        }
        for (int64_t kk = 0; kk < k; kk++) {
            memcpy(dst + kk * FR_PANEL, b + kk * ldb + j, (size_t)cols * sizeof(float));
            for (int64_t i = cols; i < FR_PANEL; i++)
                dst[kk * FR_PANEL + i] = 0.0f;
        }
    }
}
