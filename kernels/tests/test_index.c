/* test_index.c - PAD, GATHER_AT, SCATTER_AT, TOPK, NONZERO, UNIQUE, NMS, SIZES, CUMPROD, RANDOM: every instruction set and thread
 * count gives the bytes that the text of frugal_plan.h asks for, computed element by element; and what must be refused. */
#include "check.h"

typedef struct shape {
    int rank;
    int64_t d[FRUGAL_MAX_RANK];
} shape;

static int64_t product(const shape *s, int from, int to) {
    int64_t n = 1;
    for (int a = from; a < to; a++)
        n *= s->d[a];
    return n;
}
static int64_t count(const shape *s) { return product(s, 0, s->rank); }

static shape any_shape(int least, int most, int64_t longest) {
    shape s = {.rank = least + (int)upto(most - least + 1)};
    for (int a = 0; a < s.rank; a++)
        s.d[a] = 1 + upto(longest);
    return s;
}

/* The index along every axis of element i, and back. */
static void split(const shape *s, int64_t i, int64_t *at) {
    for (int a = s->rank - 1; a >= 0; a--)
        at[a] = i % s->d[a], i /= s->d[a];
}
static int64_t join(const shape *s, const int64_t *at) {
    int64_t i = 0;
    for (int a = 0; a < s->rank; a++)
        i = i * s->d[a] + at[a];
    return i;
}

static int32_t tensor(pb *b, int kind, int dtype, const shape *s) { return pb_tensor(b, kind, dtype, 0, s->rank, s->d); }
static int32_t input(pb *b, int dtype, const shape *s) { return tensor(b, FRUGAL_TENSOR_INPUT, dtype, s); }
static int32_t output(pb *b, int dtype, const shape *s) { return tensor(b, FRUGAL_TENSOR_OUTPUT, dtype, s); }

static uint8_t *bytes_of(int64_t n) {
    uint8_t *p = alloc((size_t)n);
    for (int64_t i = 0; i < n; i++)
        p[i] = (uint8_t)rnd();
    return p;
}

/* Runs a plan, whose outputs must have the wanted bytes. */
static void expect(pb *b, const void *const *in, int n_in, const void *const *want, const size_t *sizes, int n_out,
                   const char *what, int64_t index) {
    io x = {.fixed = true};
    for (int k = 0; k < n_in; k++)
        x.in[k] = in[k];
    for (int k = 0; k < n_out; k++)
        x.out[k] = alloc(sizes[k]), x.out_bytes[k] = sizes[k];
    check(run_plan(b, &x) == FRUGAL_OK, x.err.what ? x.err.what : "runs", what, index, 0);
    for (int k = 0; k < n_out; k++) {
        check(memcmp(x.out[k], want[k], sizes[k]) == 0, "the wanted bytes", what, index, k);
        free(x.out[k]);
    }
}
#define INS(...) (const void *const[]){__VA_ARGS__}, (int)(sizeof((const void *const[]){__VA_ARGS__}) / sizeof(void *))
#define OUTS(...)                                                                                                                \
    (const void *const[]) { __VA_ARGS__ }
#define SIZES(...) (const size_t[]){__VA_ARGS__}, (int)(sizeof((const size_t[]){__VA_ARGS__}) / sizeof(size_t))

/* ---- PAD ---- */

static int64_t padded_source(int64_t mode, int64_t i, int64_t n) {
    if (mode == 0)
        return i >= 0 && i < n ? i : -1;
    if (mode == 2)
        return i < 0 ? 0 : i >= n ? n - 1 : i;
    while (i < 0 || i >= n) { /* one bounce or turn at a time */
        if (mode == 3)
            i += i < 0 ? n : -n;
        else
            i = n == 1 ? 0 : i < 0 ? -i : 2 * (n - 1) - i;
    }
    return i;
}

static void test_pad(int64_t index) {
    const int dtypes[] = {FR_F32, FR_I64, FR_U8, FR_F16}, sizes[] = {4, 8, 1, 2};
    const int which = (int)upto(4), dtype = dtypes[which];
    const int64_t size = sizes[which], mode = upto(4);
    const shape x = any_shape(1, 4, 6);
    shape y = x;
    int64_t attrs[9] = {mode};
    for (int a = 0; a < x.rank; a++)
        attrs[1 + a] = upto(9), y.d[a] += attrs[1 + a] + upto(9);
    uint8_t *from = bytes_of(count(&x) * size), *want = alloc((size_t)(count(&y) * size)), value[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const bool given = rnd() & 1;
    for (int64_t i = 0; i < count(&y); i++) {
        int64_t at[FRUGAL_MAX_RANK];
        bool there = true;
        split(&y, i, at);
        for (int a = 0; a < x.rank; a++) {
            at[a] = padded_source(mode, at[a] - attrs[1 + a], x.d[a]);
            there = there && at[a] >= 0;
        }
        if (there)
            memcpy(want + i * size, from + join(&x, at) * size, (size_t)size);
        else
            memcpy(want + i * size, given ? value : (const uint8_t[8]){0}, (size_t)size);
    }
    pb *b = pb_new();
    const int32_t in = input(b, dtype, &x), v = given ? pb_const(b, dtype, 0, PB_NONE, value, (uint64_t)size) : -1;
    const int32_t out = output(b, dtype, &y);
    pb_step(b, FRUGAL_OP_PAD, PB_LIST(in, v), PB_LIST(out), 1 + x.rank, attrs);
    expect(b, INS(from), OUTS(want), SIZES((size_t)(count(&y) * size)), "pad", index);
    free(from), free(want);
}

/* ---- GATHER_AT, SCATTER_AT ---- */

/* Data, ids and what they select: the updates of SCATTER_AT, the output of GATHER_AT. */
typedef struct selection {
    shape x, ids, part;
    bool nd, narrow; /* ids are int32 */
    int axis;
    int64_t depth;
    int64_t *id;
} selection;

static selection select_elements(void) {
    selection s = {.x = any_shape(1, 4, 7), .narrow = rnd() & 1};
    s.axis = (int)upto(s.x.rank);
    s.ids = s.x;
    for (int a = 0; a < s.x.rank; a++)
        s.ids.d[a] = a == s.axis ? upto(9) : 1 + upto(s.x.d[a]);
    s.part = s.ids;
    s.id = alloc((size_t)count(&s.ids) * 8);
    for (int64_t i = 0; i < count(&s.ids); i++)
        s.id[i] = upto(2 * s.x.d[s.axis]) - s.x.d[s.axis];
    return s;
}

static selection select_tuples(void) {
    selection s = {.x = any_shape(1, 4, 5), .nd = true, .narrow = rnd() & 1};
    s.axis = (int)upto(s.x.rank);
    s.depth = 1 + upto(s.x.rank - s.axis);
    s.ids.rank = s.axis + (int)upto(3) + 1;
    for (int a = 0; a < s.ids.rank - 1; a++)
        s.ids.d[a] = a < s.axis ? s.x.d[a] : 1 + upto(4);
    s.ids.d[s.ids.rank - 1] = s.depth;
    s.part.rank = s.ids.rank - 1 + s.x.rank - s.axis - (int)s.depth;
    for (int a = 0; a < s.part.rank; a++)
        s.part.d[a] = a < s.ids.rank - 1 ? s.ids.d[a] : s.x.d[s.axis + s.depth + a - (s.ids.rank - 1)];
    s.id = alloc((size_t)count(&s.ids) * 8);
    for (int64_t i = 0; i < count(&s.ids); i++) {
        const int64_t n = s.x.d[s.axis + i % s.depth];
        s.id[i] = upto(2 * n) - n;
    }
    return s;
}

/* The element of x that element i of the part belongs to. */
static int64_t selected(const selection *s, int64_t i) {
    int64_t at[FRUGAL_MAX_RANK], place[FRUGAL_MAX_RANK];
    split(&s->part, i, at);
    if (!s->nd) {
        const int64_t id = s->id[join(&s->ids, at)];
        at[s->axis] = id < 0 ? id + s->x.d[s->axis] : id;
        return join(&s->x, at);
    }
    const int64_t row = i / product(&s->part, s->ids.rank - 1, s->part.rank);
    for (int a = 0; a < s->axis; a++)
        place[a] = at[a];
    for (int64_t k = 0; k < s->depth; k++) {
        const int64_t id = s->id[row * s->depth + k];
        place[s->axis + k] = id < 0 ? id + s->x.d[s->axis + k] : id;
    }
    for (int a = s->axis + (int)s->depth; a < s->x.rank; a++)
        place[a] = at[s->ids.rank - 1 + a - s->axis - (int)s->depth];
    return join(&s->x, place);
}

static int32_t ids_tensor(pb *b, const selection *s) {
    const int64_t n = count(&s->ids);
    int32_t *small = alloc((size_t)n * 4);
    for (int64_t i = 0; i < n; i++)
        small[i] = (int32_t)s->id[i];
    const int32_t t = s->narrow ? pb_const(b, FR_I32, 0, s->ids.rank, s->ids.d, small, (uint64_t)n * 4)
                                : pb_const(b, FR_I64, 0, s->ids.rank, s->ids.d, s->id, (uint64_t)n * 8);
    free(small);
    return t;
}

static void test_gather(int64_t index) {
    const int dtypes[] = {FR_F32, FR_I64, FR_U8, FR_F16}, sizes[] = {4, 8, 1, 2};
    const int which = (int)upto(4);
    const int64_t size = sizes[which];
    selection s = index % 2 ? select_tuples() : select_elements();
    const int64_t n = count(&s.part);
    uint8_t *x = bytes_of(count(&s.x) * size), *want = alloc((size_t)(n * size));
    for (int64_t i = 0; i < n; i++)
        memcpy(want + i * size, x + selected(&s, i) * size, (size_t)size);
    pb *b = pb_new();
    const int32_t in = input(b, dtypes[which], &s.x), ids = ids_tensor(b, &s), y = output(b, dtypes[which], &s.part);
    pb_step(b, FRUGAL_OP_GATHER_AT, PB_LIST(in, ids), PB_LIST(y), PB_LIST(s.nd, s.axis));
    expect(b, INS(x), OUTS(want), SIZES((size_t)(n * size)), "gather_at", index);
    free(x), free(want), free(s.id);
}

static float reduced_float(int64_t kind, float a, float b) {
    return kind == 0   ? b
           : kind == 1 ? a + b
           : kind == 2 ? a * b
           : b != b    ? b
           : a != a    ? a
           : kind == 3 ? fmaxf(a, b)
                       : fminf(a, b);
}
static int8_t reduced_int(int64_t kind, int8_t a, int8_t b) {
    const int v = kind == 0 ? b : kind == 1 ? a + b : kind == 2 ? a * b : kind == 3 ? (a > b ? a : b) : (a < b ? a : b);
    return (int8_t)(uint8_t)(v & 255); /* wraps */
}

static void test_scatter(int64_t index) {
    const int64_t kind = index % 5, floating = rnd() & 1, size = floating ? 4 : 1;
    selection s = rnd() & 1 ? select_tuples() : select_elements();
    const int64_t n = count(&s.x), m = count(&s.part);
    void *x = floating ? (void *)floats(n) : (void *)bytes_of(n), *u = floating ? (void *)floats(m) : (void *)bytes_of(m);
    void *want = alloc((size_t)(n * size));
    if (floating && m)
        ((float *)u)[upto(m)] = (float)NAN;
    memcpy(want, x, (size_t)(n * size));
    for (int64_t i = 0; i < m; i++) {
        const int64_t at = selected(&s, i);
        if (floating)
            ((float *)want)[at] = reduced_float(kind, ((float *)want)[at], ((float *)u)[i]);
        else
            ((int8_t *)want)[at] = reduced_int(kind, ((int8_t *)want)[at], ((int8_t *)u)[i]);
    }
    pb *b = pb_new();
    const int dtype = floating ? FR_F32 : FR_I8;
    const int32_t in = input(b, dtype, &s.x), ids = ids_tensor(b, &s), updates = input(b, dtype, &s.part),
                  y = output(b, dtype, &s.x);
    pb_step(b, FRUGAL_OP_SCATTER_AT, PB_LIST(in, ids, updates), PB_LIST(y), PB_LIST(s.nd, s.axis, kind));
    expect(b, INS(x, u), OUTS(want), SIZES((size_t)(n * size)), "scatter_at", index);
    free(x), free(u), free(want), free(s.id);
}

/* ---- order ---- */

/* A NaN is larger than everything, -0 equals 0. */
static int order_of(double a, double b) {
    if (a != a || b != b)
        return (a != a) - (b != b);
    return (a > b) - (a < b);
}

/* Few values, so that many are equal, and special ones. */
static float ordered_value(void) {
    static const float special[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f};
    return upto(6) == 0 ? special[upto(5)] : (float)(upto(9) - 4) * 0.5f;
}

static void test_topk(int64_t index) {
    const shape x = any_shape(1, 3, 12);
    const int axis = (int)upto(x.rank), largest = rnd() & 1;
    const bool floating = rnd() & 1;
    shape y = x;
    y.d[axis] = upto(x.d[axis] + 1);
    const int64_t n = count(&x), m = count(&y), step = product(&x, axis + 1, x.rank), length = x.d[axis], k = y.d[axis];
    float *f = floats(n), *want_f = floats(m);
    int64_t *v = alloc((size_t)n * 8), *want_v = alloc((size_t)m * 8), *places = alloc((size_t)m * 8);
    for (int64_t i = 0; i < n; i++)
        f[i] = ordered_value(), v[i] = upto(7) - 3;
    for (int64_t row = 0; row < n / length; row++) {
        const int64_t from = row / step * length * step + row % step, to = row / step * k * step + row % step;
        bool taken[16] = {false};
        for (int64_t j = 0; j < k; j++) {
            int64_t best = -1;
            for (int64_t i = 0; i < length; i++) {
                const double a = floating ? (double)f[from + i * step] : (double)v[from + i * step];
                const double c = best < 0 ? 0 : floating ? (double)f[from + best * step] : (double)v[from + best * step];
                if (!taken[i] && (best < 0 || (largest ? order_of(a, c) : order_of(c, a)) > 0))
                    best = i;
            }
            taken[best] = true;
            places[to + j * step] = best;
            want_f[to + j * step] = f[from + best * step], want_v[to + j * step] = v[from + best * step];
        }
    }
    pb *b = pb_new();
    const int dtype = floating ? FR_F32 : FR_I64;
    const int32_t in = input(b, dtype, &x), values = output(b, dtype, &y), indices = output(b, FR_I64, &y);
    pb_step(b, FRUGAL_OP_TOPK, PB_LIST(in), PB_LIST(values, indices), PB_LIST(axis, largest));
    if (floating)
        expect(b, INS(f), OUTS(want_f, places), SIZES((size_t)m * 4, (size_t)m * 8), "topk", index);
    else
        expect(b, INS(v), OUTS(want_v, places), SIZES((size_t)m * 8, (size_t)m * 8), "topk", index);
    free(f), free(v), free(want_f), free(want_v), free(places);
}

static void test_nonzero(int64_t index) {
    const shape x = any_shape(1, 4, 6);
    uint8_t *v = bytes_of(count(&x));
    int64_t n = 0, at[FRUGAL_MAX_RANK], *want = alloc((size_t)(count(&x) * x.rank) * 8);
    for (int64_t i = 0; i < count(&x); i++)
        v[i] = v[i] % 3 == 0, n += v[i];
    for (int64_t i = 0, k = 0; i < count(&x); i++) {
        if (!v[i])
            continue;
        split(&x, i, at);
        for (int a = 0; a < x.rank; a++)
            want[a * n + k] = at[a];
        k++;
    }
    for (int64_t more = 0; more < 2; more++) {
        pb *b = pb_new();
        const int32_t in = input(b, FR_BOOL, &x), y = pb_output(b, FR_I64, PB_LIST(x.rank, n + more));
        pb_step(b, FRUGAL_OP_NONZERO, PB_LIST(in), PB_LIST(y), PB_NONE);
        if (!more) {
            expect(b, INS(v), OUTS(want), SIZES((size_t)(x.rank * n) * 8), "nonzero", index);
            continue;
        }
        const size_t size = (size_t)(x.rank * (n + 1)) * 8;
        io run = {.fixed = true, .in = {v}, .out = {alloc(size)}, .out_bytes = {size}};
        CHECK(run_plan(b, &run) == FRUGAL_BAD_INPUT);
        free(run.out[0]);
    }
    free(v), free(want);
}

/* Whether slices i and j along the middle axis of [outer, m, inner] are equal, or which comes first. */
static int order_of_slices(const float *x, const int64_t d[3], int64_t i, int64_t j) {
    for (int64_t k = 0; k < d[0] * d[2]; k++) {
        const float *row = x + k / d[2] * d[1] * d[2] + k % d[2];
        const int order = order_of((double)row[i * d[2]], (double)row[j * d[2]]);
        if (order)
            return order;
    }
    return 0;
}

static void test_unique(int64_t index) {
    const int64_t d[3] = {1 + upto(2), 1 + upto(15), 1 + upto(2)}, sorted = rnd() & 1, m = d[1];
    float *x = floats(d[0] * m * d[2]);
    int64_t group[16], first[16] = {0}, inverse[16], counts[16] = {0}, groups = 0, head[16], rank[16];
    for (int64_t i = 0; i < d[0] * m * d[2]; i++)
        x[i] = upto(8) ? (float)upto(2) : ordered_value();
    for (int64_t i = 0; i < m; i++) { /* in the order of first places */
        group[i] = -1;
        for (int64_t g = 0; g < groups; g++)
            group[i] = order_of_slices(x, d, head[g], i) == 0 ? g : group[i];
        if (group[i] < 0)
            head[groups] = i, group[i] = groups++;
    }
    for (int64_t g = 0; g < groups; g++) {
        rank[g] = sorted ? 0 : g;
        for (int64_t o = 0; sorted && o < groups; o++)
            rank[g] += order_of_slices(x, d, head[o], head[g]) < 0;
        first[rank[g]] = head[g];
    }
    for (int64_t i = 0; i < m; i++)
        inverse[i] = rank[group[i]], counts[rank[group[i]]]++;
    pb *b = pb_new();
    const int32_t in = pb_input(b, FR_F32, 3, d), n = pb_output(b, FR_I64, PB_LIST(1)), f = pb_output(b, FR_I64, PB_LIST(m)),
                  v = pb_output(b, FR_I64, PB_LIST(m)), c = pb_output(b, FR_I64, PB_LIST(m));
    pb_step(b, FRUGAL_OP_UNIQUE, PB_LIST(in), PB_LIST(n, f, v, c), PB_LIST(1, sorted));
    const size_t bytes = (size_t)m * 8;
    expect(b, INS(x), OUTS(&groups, first, inverse, counts), SIZES(8, bytes, bytes, bytes), "unique", index);
    free(x);
}

/* ---- NMS ---- */

static bool overlap(const float *a, const float *b, bool center, double limit) {
    double p[2][4];
    for (int k = 0; k < 2; k++) {
        const float *v = k ? b : a;
        for (int i = 0; i < 2; i++) {
            const double u = (double)v[i], w = (double)v[i + 2];
            p[k][i] = center ? u - w / 2 : fmin(u, w), p[k][i + 2] = center ? u + w / 2 : fmax(u, w);
        }
    }
    const double w = fmin(p[0][2], p[1][2]) - fmax(p[0][0], p[1][0]), h = fmin(p[0][3], p[1][3]) - fmax(p[0][1], p[1][1]);
    const double all = (p[0][2] - p[0][0]) * (p[0][3] - p[0][1]) + (p[1][2] - p[1][0]) * (p[1][3] - p[1][1]);
    return w > 0 && h > 0 && w * h > limit * (all - w * h);
}

static void test_nms(int64_t index) {
    const int64_t batch = 1 + upto(2), classes = 1 + upto(3), n = upto(30), most = upto(12), room = batch * classes * (most + 1);
    const bool center = rnd() & 1, scored = rnd() & 1;
    const float iou = 0.3f, least = 0.1f;
    float *boxes = floats(batch * n * 4), *scores = floats(batch * classes * n);
    int64_t found = 0, *want = alloc((size_t)room * 24);
    memset(want, 0, (size_t)room * 24);
    for (int64_t i = 0; i < batch * n * 4; i++)
        boxes[i] = i % 4 > 1 && center ? fabsf(boxes[i]) : boxes[i];
    for (int64_t i = 0; i < batch * classes * n; i++)
        scores[i] = upto(5) ? scores[i] : 0.5f; /* some are equal */
    for (int64_t i = 0; i < batch * classes; i++) {
        const float *box = boxes + i / classes * n * 4, *score = scores + i * n;
        int64_t kept[32], here = 0;
        bool seen[32] = {false};
        for (int64_t turn = 0; turn < n && here < most; turn++) {
            int64_t best = -1;
            for (int64_t k = 0; k < n; k++)
                best = !seen[k] && (!scored || score[k] > least) && (best < 0 || score[k] > score[best]) ? k : best;
            bool free_of_all = best >= 0;
            for (int64_t k = 0; k < here && free_of_all; k++)
                free_of_all = !overlap(box + 4 * best, box + 4 * kept[k], center, (double)iou);
            if (best >= 0)
                seen[best] = true;
            if (!free_of_all)
                continue;
            kept[here++] = best;
            want[3 * found] = i / classes, want[3 * found + 1] = i % classes, want[3 * found++ + 2] = best;
        }
    }
    pb *b = pb_new();
    const int32_t bt = pb_input(b, FR_F32, PB_LIST(batch, n, 4)), s = pb_input(b, FR_F32, PB_LIST(batch, classes, n)),
                  m = pb_const(b, FR_I64, 0, PB_LIST(1), &most, 8), u = pb_const(b, FR_F32, 0, PB_LIST(1), &iou, 4),
                  l = scored ? pb_const(b, FR_F32, 0, PB_LIST(1), &least, 4) : -1, y = pb_output(b, FR_I64, PB_LIST(room, 3)),
                  c = pb_output(b, FR_I64, PB_LIST(1));
    pb_step(b, FRUGAL_OP_NMS, PB_LIST(bt, s, m, u, l), PB_LIST(y, c), PB_LIST(center));
    expect(b, INS(boxes, scores), OUTS(want, &found), SIZES((size_t)room * 24, 8), "nms", index);
    free(boxes), free(scores), free(want);
}

/* ---- SIZES ---- */

/* Operands a, b, axes, steps (n 0: absent) and what must come out of x [2, 3, 4]; want_n -1: FRUGAL_BAD_INPUT. */
typedef struct sizes_case {
    int64_t kind, flag;
    int n[4];
    int64_t v[4][6];
    int want_n;
    int64_t want[12];
} sizes_case;

static const sizes_case SIZES_CASES[] = {
    {0, 0, {2}, {{0, -1}}, 2, {2, 12}},
    {0, 0, {1}, {{-1}}, 1, {24}},
    {0, 1, {2}, {{0, -1}}, -2, {0}}, /* with flag 1 a 0 is a 0, of which -1 gives no size */
    {0, 0, {2}, {{5, -1}}, -2, {0}},
    {0, 0, {2}, {{-1, -1}}, -2, {0}},
    {1, 0, {1, 1, 1, 1}, {{1}, {100}, {-1}, {2}}, 9, {0, 2, 1, 0, 3, 1, 1, 2, 2}},
    {1, 0, {1, 1, 1, 1}, {{100}, {-100}, {0}, {-1}}, 9, {1, 2, -1, 0, 3, 1, 0, 4, 1}},
    {1, 0, {2, 2, 2}, {{0, 0}, {1, 1}, {1, 1}}, -9, {0}}, /* an axis twice */
    {2, 0, {2}, {{0, -1}}, 5, {1, 2, 3, 4, 1}},
    {2, 0, {1}, {{4}}, -4, {0}},
    {3, 0, {1}, {{1}}, 2, {2, 4}},
    {4, 0, {2}, {{0, -1}}, 3, {1, 3, 1}},
    {5, 0, {6}, {{1, 0, 0, 2, 0, 0}}, 12, {1, 5, 0, 2, 0, 3, 0, 3, 0, 4, 0, 4}},
    {6, 0, {1, 1, 1}, {{10}, {1}, {-3}}, 1, {3}},
    {6, 0, {1, 1, 1}, {{0}, {5}, {0}}, -1, {0}},
};

static void test_sizes(void) {
    for (size_t k = 0; k < sizeof SIZES_CASES / sizeof *SIZES_CASES; k++) {
        const sizes_case *t = &SIZES_CASES[k];
        int32_t in[4];
        pb *b = pb_new();
        for (int i = 0; i < 4; i++)
            in[i] = t->n[i] ? pb_const(b, FR_I64, 0, PB_LIST(t->n[i]), t->v[i], (uint64_t)t->n[i] * 8) : -1;
        const bool good = t->want_n > 0;
        int64_t got[12];
        const int32_t y = pb_output(b, FR_I64, PB_LIST(good ? t->want_n : -t->want_n));
        if (t->kind == 6)
            pb_step(b, FRUGAL_OP_SIZES, PB_LIST(in[0], in[1], in[2], in[3]), PB_LIST(y), PB_LIST(t->kind, t->flag));
        else
            pb_step(b, FRUGAL_OP_SIZES, PB_LIST(in[0], in[1], in[2], in[3]), PB_LIST(y), PB_LIST(t->kind, t->flag, 2, 3, 4));
        io x = {.fixed = true, .out = {got}, .out_bytes = {(size_t)(good ? t->want_n : -t->want_n) * 8}};
        const frugal_status st = run_plan(b, &x);
        check(good ? st == FRUGAL_OK && memcmp(got, t->want, x.out_bytes[0]) == 0 : st == FRUGAL_BAD_INPUT, "sizes", "case",
              (int64_t)k, st);
    }
}

/* ---- CUMPROD, RANDOM ---- */

static void test_cumprod(int64_t index) {
    const shape x = any_shape(1, 3, 9);
    const int axis = (int)upto(x.rank), exclusive = rnd() & 1, reverse = rnd() & 1;
    const int64_t step = product(&x, axis + 1, x.rank), n = x.d[axis];
    float *v = floats(count(&x)), *want = floats(count(&x));
    for (int64_t row = 0; row < count(&x) / n; row++) {
        float p = 1;
        for (int64_t i = 0; i < n; i++) {
            const int64_t at = row / step * n * step + row % step + (reverse ? n - 1 - i : i) * step;
            want[at] = exclusive ? p : p * v[at];
            p *= v[at];
        }
    }
    pb *b = pb_new();
    const int32_t in = input(b, FR_F32, &x), y = output(b, FR_F32, &x);
    pb_step(b, FRUGAL_OP_CUMPROD, PB_LIST(in, -1), PB_LIST(y), PB_LIST(axis, exclusive, reverse));
    expect(b, INS(v), OUTS(want), SIZES((size_t)count(&x) * 4), "cumprod", index);
    free(v), free(want);
}

/* The generator's published test vector (Random123, key and counter 0), then its moments. */
static void test_random(void) {
    static const uint32_t known[4] = {0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u};
    enum { N = 4097 };
    for (int normal = 0; normal < 2; normal++) {
        float *got = floats(N);
        double sum = 0, squares = 0;
        pb *b = pb_new();
        const int32_t y = pb_output(b, FR_F32, PB_LIST(N));
        pb_step(b, FRUGAL_OP_RANDOM, PB_NONE, PB_LIST(y), PB_LIST(normal, 0, pb_float(0), pb_float(1)));
        io x = {.fixed = true, .out = {got}, .out_bytes = {N * 4}};
        CHECK(run_plan(b, &x) == FRUGAL_OK);
        for (int i = 0; i < 4 && !normal; i++)
            CHECK(got[i] == (float)(known[i] >> 8) / 16777216.0f);
        if (normal) {
            const double r = sqrt(-2 * log(1 - (known[0] >> 8) / 16777216.0)),
                         t = 2 * 3.14159265358979 * (known[1] >> 8) / 16777216.0;
            CHECK(close_to((double)got[0], r * cos(t), 1e-5) && close_to((double)got[1], r * sin(t), 1e-5));
        }
        for (int i = 0; i < N; i++)
            sum += (double)got[i], squares += (double)got[i] * (double)got[i];
        const double mean = sum / N, deviation = sqrt(squares / N - mean * mean);
        CHECK(fabs(mean - (normal ? 0 : 0.5)) < 0.05 && fabs(deviation - (normal ? 1 : 0.2887)) < 0.05); /* 3 sigma of 4097 */
        free(got);
    }
}

/* ---- refusals ---- */

static void test_refused(void) {
    const int64_t ids[2] = {0, 3};
    const float x[6] = {0};
    float y[6];
    for (int op = FRUGAL_OP_GATHER_AT; op <= FRUGAL_OP_SCATTER_AT; op++) { /* an index behind the axis */
        pb *b = pb_new();
        const int32_t in = pb_input(b, FR_F32, PB_LIST(3)), t = pb_const(b, FR_I64, 0, PB_LIST(2), ids, 16),
                      u = op == FRUGAL_OP_SCATTER_AT ? pb_input(b, FR_F32, PB_LIST(2)) : -1,
                      out = pb_output(b, FR_F32, PB_LIST(op == FRUGAL_OP_SCATTER_AT ? 3 : 2));
        if (op == FRUGAL_OP_SCATTER_AT)
            pb_step(b, op, PB_LIST(in, t, u), PB_LIST(out), PB_LIST(0, 0, 0));
        else
            pb_step(b, op, PB_LIST(in, t), PB_LIST(out), PB_LIST(0, 0));
        io run = {.fixed = true, .in = {x, x}, .out = {y}, .out_bytes = {sizeof y}};
        check(run_plan(b, &run) == FRUGAL_BAD_INPUT, "refused", "index", op, 0);
    }
    pb *b = pb_new(); /* more elements than the axis has */
    const int32_t in = pb_input(b, FR_F32, PB_LIST(3)), v = pb_output(b, FR_F32, PB_LIST(4)),
                  i = pb_output(b, FR_I64, PB_LIST(4));
    pb_step(b, FRUGAL_OP_TOPK, PB_LIST(in), PB_LIST(v, i), PB_LIST(0, 1));
    int64_t places[4];
    io run = {.fixed = true, .in = {x}, .out = {y, places}, .out_bytes = {16, 32}};
    CHECK(run_plan(b, &run) == FRUGAL_BAD_SHAPE);
}

/* With an argument, as under an emulator, fewer rounds. */
int main(int argc, char **argv) {
    (void)argv;
    for (int64_t i = 0; i < (argc > 1 ? 20 : 200); i++) {
        test_pad(i);
        test_gather(i);
        test_scatter(i);
        test_topk(i);
        test_nonzero(i);
        test_unique(i);
        test_nms(i);
        test_cumprod(i);
    }
    test_sizes();
    test_random();
    test_refused();
    return check_report();
}
