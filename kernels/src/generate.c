/* generate.c - text generation: sampling and the loop around frugal_session_run (frugal_text.h). */
#include "frugal_text.h"

#include <math.h>
#include <string.h>

#include "ops.h"
#include "random.h"
#include "session.h"

/* Candidates in a heap: the likeliest on top, of equals the smaller token. */
typedef struct heap {
    const float *p;
    int32_t *at;
    int64_t n;
} heap;

static bool before(const heap *h, int32_t a, int32_t b) { return h->p[a] > h->p[b] || (h->p[a] == h->p[b] && a < b); }

static void sink(heap *h, int64_t i) {
    const int32_t moving = h->at[i];
    for (int64_t child = 2 * i + 1; child < h->n; child = 2 * i + 1) {
        if (child + 1 < h->n && before(h, h->at[child + 1], h->at[child]))
            child++;
        if (!before(h, h->at[child], moving))
            break;
        h->at[i] = h->at[child];
        i = child;
    }
    h->at[i] = moving;
}

/* A heap of the tokens with p >= least. */
static heap make_heap(const float *p, int64_t n, float least, int32_t *at) {
    heap h = {.p = p, .at = at};
    for (int64_t i = 0; i < n; i++)
        if (p[i] >= least)
            at[h.n++] = (int32_t)i;
    for (int64_t i = h.n / 2 - 1; i >= 0; i--)
        sink(&h, i);
    return h;
}

/* The top leaves the heap and is put where the heap ended: what has left lies there, likeliest last. */
static int32_t pop(heap *h) {
    const int32_t top = h->at[0];
    h->at[0] = h->at[--h->n];
    h->at[h->n] = top;
    if (h->n > 0)
        sink(h, 0);
    return top;
}

size_t frugal_sample_bytes(int64_t n) {
    const size_t each = sizeof(float) + sizeof(int32_t);
    return n > 0 && n <= INT32_MAX ? ((size_t)n * each + 127) / 64 * 64 : 64;
}

/* The largest logit's index, the first of equals; -1 where one is NaN or none is finite (an infinity cannot be a probability). */
static int64_t largest(const float *x, int64_t n) {
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++) {
        if (x[i] != x[i] || x[i] == INFINITY)
            return -1;
        if (x[i] > -INFINITY && (best < 0 || x[i] > x[best]))
            best = i;
    }
    return best;
}

static float log_of(const frugal_isa *isa, float x) {
    isa->unary(FRUGAL_U_LOG, &x, &x, 1, 0, 0);
    return x;
}

/* log softmax of token t. */
static float log_probability(const frugal_isa *isa, const float *logits, int64_t n, int64_t top, int64_t t, float *p) {
    memcpy(p, logits, (size_t)n * sizeof *p);
    return logits[t] - logits[top] - log_of(isa, isa->softmax(p, n));
}

static void penalize(const frugal_sampling *how, float *x, int64_t n, const int64_t *seen, int64_t n_seen, uint8_t *marks) {
    memset(marks, 0, (size_t)n);
    for (int64_t i = 0; i < n_seen; i++) {
        const int64_t t = seen[i];
        if (t < 0 || t >= n || marks[t])
            continue;
        marks[t] = 1;
        x[t] = x[t] > 0 ? x[t] / how->repetition_penalty : x[t] * how->repetition_penalty;
    }
}

/* The token in whose part of the sum `want` falls; the last one where rounding leaves none.  order: NULL for 0, 1, ..; else read
 * backwards. */
static int64_t token_at(const float *p, const int32_t *order, int64_t n, float want) {
    float sum = 0;
    int64_t last = 0;
    for (int64_t i = 0; i < n; i++) {
        const int64_t t = order ? order[-i] : i;
        if (p[t] <= 0)
            continue;
        sum += p[t], last = t;
        if (sum > want)
            break;
    }
    return last;
}

/* One of the likeliest, of which top_k, top_p and min_p leave `count`.  p: exp(logit - largest), total their sum.  top_p counts
 * the probabilities that top_k leaves. */
static int64_t draw_few(const frugal_sampling *how, const float *p, int64_t n, float total, float u, int32_t *at) {
    heap h = make_heap(p, n, how->min_p > 0 ? how->min_p : 0x1p-100f, at);
    const int32_t *best = at + h.n - 1; /* what has left the heap lies from here downwards */
    const int64_t most = how->top_k > 0 && how->top_k < h.n ? how->top_k : h.n;
    float kept = 0, of = total;
    int64_t count = 0, popped = 0;
    if (how->top_k > 0)
        for (of = 0; popped < most; popped++)
            of += p[pop(&h)];
    while (count < most && (count == 0 || how->top_p >= 1 || kept < how->top_p * of)) {
        if (count == popped)
            pop(&h), popped++;
        kept += p[best[-count++]];
    }
    return token_at(p, best, count, u * kept);
}

int64_t frugal_sample(const frugal_isa *isa, const frugal_sampling *how, const float *logits, int64_t n, const int64_t *seen,
                      int64_t n_seen, uint64_t draw, void *scratch, float *logprob) {
    if (!isa || !how || !logits || !scratch || n < 1 || n > INT32_MAX)
        return -1;
    float *p = scratch;
    int32_t *at = (int32_t *)(void *)(p + n);
    const int64_t top = largest(logits, n);
    if (top < 0)
        return -1;
    memcpy(p, logits, (size_t)n * sizeof *p);
    if (how->repetition_penalty > 0 && how->repetition_penalty != 1)
        penalize(how, p, n, seen, n_seen, (uint8_t *)at);
    int64_t t = largest(p, n);
    if (how->temperature > 0 && t >= 0) {
        const float most = p[t], cold = 1.0f / how->temperature;
        for (int64_t i = 0; i < n; i++)
            p[i] = (p[i] - most) * cold;
        const float total = isa->softmax(p, n);
        uint32_t w[4];
        fr_philox(w, how->seed, draw);
        const bool few = how->top_k > 0 || how->top_p < 1 || how->min_p > 0;
        t = few ? draw_few(how, p, n, total, fr_unit(w[0]), at) : token_at(p, NULL, n, fr_unit(w[0]) * total);
    }
    if (logprob && t >= 0)
        *logprob = log_probability(isa, logits, n, top, t, p);
    return t;
}

int64_t frugal_likeliest(const frugal_isa *isa, const float *logits, int64_t n, int64_t k, int64_t *tokens, float *logprobs,
                         void *scratch) {
    if (!isa || !logits || !scratch || n < 1 || n > INT32_MAX)
        return 0;
    float *p = scratch;
    const int64_t top = largest(logits, n);
    if (top < 0)
        return 0;
    memcpy(p, logits, (size_t)n * sizeof *p);
    const float log_sum = log_of(isa, isa->softmax(p, n));
    heap h = make_heap(logits, n, -INFINITY, (int32_t *)(void *)(p + n));
    k = k < h.n ? k : h.n;
    for (int64_t i = 0; i < k; i++) {
        tokens[i] = pop(&h);
        logprobs[i] = logits[tokens[i]] - logits[top] - log_sum;
    }
    return k;
}

/* ---- the loop ---- */

static bool stops(const frugal_generation *g, int64_t token) {
    for (int64_t i = 0; i < g->n_stops; i++)
        if (g->stops[i] == token)
            return true;
    return false;
}

/* One token for every row; a row that is done gives its last one again, which changes nothing. */
static frugal_status feed(frugal_generation *g, frugal_error *err) {
    bool any = false;
    for (int64_t r = 0; r < g->rows; r++)
        any = any || (!g->done[r] && g->fed[r] < g->lengths[r]);
    if (!any)
        return FRUGAL_OK;
    for (int64_t r = 0; r < g->rows; r++) {
        const int64_t at = !g->done[r] && g->fed[r] < g->lengths[r] ? g->fed[r] : g->lengths[r] - 1;
        g->ids[r] = g->tokens[r * g->capacity + at];
        if (g->positions)
            g->positions[r] = at;
        if (g->places)
            g->places[r] = at;
    }
    const frugal_status status = frugal_session_run(g->session, g->arena, g->arena_bytes, g->inputs, g->outputs, err);
    for (int64_t r = 0; r < g->rows && status == FRUGAL_OK; r++)
        g->fed[r] += !g->done[r] && g->fed[r] < g->lengths[r];
    return status;
}

static frugal_status choose(frugal_generation *g, int64_t r, frugal_error *err) {
    int64_t *tokens = g->tokens + r * g->capacity;
    const int64_t at = g->lengths[r];
    float *logprob = g->logprobs ? g->logprobs + r * g->capacity + at : NULL;
    const uint64_t draw = (uint64_t)(at - g->prompts[r]);
    const int64_t t = frugal_sample(g->isa, &g->sampling[r], g->logits + r * g->vocabulary, g->vocabulary, tokens, at, draw,
                                    g->scratch, logprob);
    if (t < 0)
        return fr_error(err, FRUGAL_BAD_INPUT, -1, -1, "the logits hold a NaN or an infinity");
    tokens[at] = t;
    g->lengths[r] = at + 1;
    g->done[r] = (uint8_t)(stops(g, t) ? 1 : at + 1 == g->capacity ? 2 : 0);
    return FRUGAL_OK;
}

static frugal_status check_generation(const frugal_generation *g, frugal_error *err) {
    const bool null = !g || !g->session || !g->ids || !g->logits || !g->isa || !g->sampling || !g->scratch || !g->tokens ||
                      !g->lengths || !g->fed || !g->prompts || !g->done || (g->n_stops > 0 && !g->stops);
    if (null)
        return fr_error(err, FRUGAL_BAD_ARG, -1, -1, "null pointer");
    for (int64_t r = 0; r < g->rows; r++)
        if (g->lengths[r] < 1 || g->lengths[r] > g->capacity || g->fed[r] < 0 || g->fed[r] > g->lengths[r])
            return fr_error(err, FRUGAL_BAD_ARG, -1, -1, "a row's tokens do not fit its capacity");
    return FRUGAL_OK;
}

frugal_status frugal_generate(frugal_generation *g, int64_t n, frugal_error *err) {
    FR_TRY(check_generation(g, err));
    for (int64_t r = 0; r < g->rows; r++)
        if (!g->done[r] && g->lengths[r] == g->capacity)
            g->done[r] = 2;
    for (int64_t i = 0; i < n; i++) {
        if (g->cancel && *g->cancel)
            return FRUGAL_OK;
        FR_TRY(feed(g, err));
        bool all = true;
        for (int64_t r = 0; r < g->rows; r++) {
            if (!g->done[r] && g->fed[r] == g->lengths[r])
                FR_TRY(choose(g, r, err));
            all = all && g->done[r];
        }
        if (all)
            break;
    }
    return FRUGAL_OK;
}
