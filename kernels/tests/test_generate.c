/* test_generate.c - sampling: against a plain sort, on every instruction set this CPU has. */
#include <math.h>
#include <stdbool.h>

#include "count.h"
#include "frugal_text.h"

enum { N = 1000 };
static float logits[N];
static _Alignas(64) unsigned char scratch[1 << 14];
static const frugal_sampling greedy = {.top_p = 1, .repetition_penalty = 1};

static const frugal_isa *set_logits(float spread) {
    for (int i = 0; i < N; i++)
        logits[i] = spread * uniform();
    return frugal_isa_find("scalar");
}

static int64_t sample(const frugal_isa *isa, frugal_sampling how, int64_t n, uint64_t draw, float *logprob) {
    return frugal_sample(isa, &how, logits, n, NULL, 0, draw, scratch, logprob);
}

static void test_greedy(void) {
    const frugal_isa *isa = set_logits(3);
    int best = 0;
    double sum = 0;
    float logprob = 0;
    logits[700] = logits[31] = 9; /* the first of equals */
    for (int i = 0; i < N; i++)
        best = logits[i] > logits[best] ? i : best, sum += exp((double)logits[i] - 9);
    CHECK(best == 31 && sample(isa, greedy, N, 0, &logprob) == 31);
    CHECK(fabs((double)logprob + log(sum)) < 1e-5);
    frugal_sampling cold = greedy;
    cold.temperature = 1, cold.top_k = 1;
    for (uint64_t d = 0; d < 20; d++)
        CHECK(sample(isa, cold, N, d, NULL) == 31);
}

static void test_bad_logits(void) {
    const frugal_isa *isa = set_logits(1);
    logits[N - 1] = NAN;
    CHECK(sample(isa, greedy, N, 0, NULL) == -1);
    logits[N - 1] = INFINITY;
    CHECK(sample(isa, greedy, N, 0, NULL) == -1);
    for (int i = 0; i < N; i++)
        logits[i] = -INFINITY;
    CHECK(sample(isa, greedy, N, 0, NULL) == -1);
    logits[5] = -3;
    frugal_sampling warm = greedy;
    warm.temperature = 2;
    CHECK(sample(isa, greedy, N, 0, NULL) == 5 && sample(isa, warm, N, 1, NULL) == 5);
    CHECK(sample(isa, greedy, 0, 0, NULL) == -1 && sample(NULL, greedy, N, 0, NULL) == -1);
}

static void test_penalty(void) {
    const frugal_isa *isa = set_logits(1);
    const int64_t seen[] = {3, 3, 4, -1, N};
    frugal_sampling how = greedy;
    how.repetition_penalty = 2;
    logits[3] = 5, logits[4] = 4, logits[9] = 3;
    CHECK(frugal_sample(isa, &how, logits, N, seen, 5, 0, scratch, NULL) == 9); /* 3: once only, 2.5; 4: 2 */
    how.repetition_penalty = 1;
    CHECK(frugal_sample(isa, &how, logits, N, seen, 5, 0, scratch, NULL) == 3);
}

static int by_logit(const void *a, const void *b) {
    const float x = logits[*(const int *)a], y = logits[*(const int *)b];
    return x > y ? -1 : x < y ? 1 : *(const int *)a - *(const int *)b;
}

/* Which tokens may be drawn, found by sorting; returns the sum of their probabilities' weights. */
static double allowed(frugal_sampling how, bool *may) {
    int order[N];
    double top = 0, of = 0, kept = 0;
    for (int i = 0; i < N; i++)
        order[i] = i, may[i] = false;
    qsort(order, N, sizeof *order, by_logit);
    top = logits[order[0]];
    const int most = how.top_k > 0 ? how.top_k : N;
    for (int i = 0; i < most; i++)
        of += exp((logits[order[i]] - top) / how.temperature);
    for (int i = 0; i < most; i++) {
        const double p = exp((logits[order[i]] - top) / how.temperature);
        if (p < how.min_p || (i > 0 && how.top_p < 1 && kept >= how.top_p * of))
            break;
        kept += p, may[order[i]] = true;
    }
    return kept;
}

/* Frequencies over many draws stay within 5 standard deviations of the probabilities. */
static void test_distribution(frugal_sampling how) {
    enum { DRAWS = 20000 };
    const frugal_isa *isa = set_logits(4);
    static int counts[N];
    bool may[N];
    memset(counts, 0, sizeof counts);
    const double kept = allowed(how, may);
    double top = -1e9;
    for (int i = 0; i < N; i++)
        top = logits[i] > top ? logits[i] : top;
    how.seed = 42;
    for (uint64_t d = 0; d < DRAWS; d++) {
        const int64_t t = sample(isa, how, N, d, NULL);
        CHECK(t >= 0 && may[t]);
        if (t >= 0)
            counts[t]++;
    }
    for (int i = 0; i < N; i++) {
        const double p = may[i] ? exp((logits[i] - top) / how.temperature) / kept : 0;
        CHECK(fabs(counts[i] - p * DRAWS) <= 5 * sqrt(p * DRAWS) + 1);
    }
}

static void test_likeliest(void) {
    const frugal_isa *isa = set_logits(2);
    int order[N];
    int64_t tokens[N];
    float logprobs[N], one;
    for (int i = 0; i < N; i++)
        order[i] = i;
    logits[8] = logits[9];
    qsort(order, N, sizeof *order, by_logit);
    CHECK(frugal_likeliest(isa, logits, N, N + 5, tokens, logprobs, scratch) == N);
    double sum = 0;
    for (int i = 0; i < N; i++) {
        CHECK(tokens[i] == order[i]);
        sum += exp((double)logprobs[i]);
    }
    CHECK(fabs(sum - 1) < 1e-4);
    sample(isa, greedy, N, 0, &one);
    CHECK(one == logprobs[0]);
    logits[3] = NAN;
    CHECK(frugal_likeliest(isa, logits, N, 3, tokens, logprobs, scratch) == 0);
}

static void test_isas_agree(void) {
    const frugal_isa *scalar = frugal_isa_find("scalar");
    for (uint32_t k = 0; frugal_isa_list(k); k++) {
        const frugal_isa *isa = frugal_isa_find(frugal_isa_list(k));
        for (uint64_t d = 0; d < 300; d++) {
            set_logits(5);
            const int64_t n = 1 + (int64_t)(d * 37 % N);
            const frugal_sampling how = {.temperature = 0.2f + (float)(d % 7) * 0.3f,
                                         .top_p = d % 2 ? 0.9f : 1,
                                         .min_p = d % 3 ? 0 : 0.02f,
                                         .repetition_penalty = 1,
                                         .top_k = d % 5 ? 0 : 40,
                                         .seed = d};
            float a = 0, b = 0;
            CHECK(sample(scalar, how, n, d, &a) == sample(isa, how, n, d, &b));
            CHECK(memcmp(&a, &b, sizeof a) == 0);
        }
    }
}

int main(void) {
    frugal_sampling how = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    test_greedy();
    test_bad_logits();
    test_penalty();
    test_distribution(how);
    how.temperature = 0.7f, how.top_k = 20;
    test_distribution(how);
    how.top_p = 0.8f;
    test_distribution(how);
    how.top_k = 0;
    test_distribution(how);
    how.top_p = 1, how.min_p = 0.05f;
    test_distribution(how);
    test_likeliest();
    test_isas_agree();
    CHECK(frugal_sample_bytes(N) <= sizeof scratch);
    return check_report();
}
