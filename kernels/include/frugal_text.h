/* frugal_text.h - text generation on top of frugal.h: choose a token from logits, feed it back, run again.
 *
 * Like frugal.h: no allocation, no I/O, no global state; the same bits on every CPU and with any number of threads.
 */
#ifndef FRUGAL_TEXT_H
#define FRUGAL_TEXT_H
#include "frugal.h"

/* How a token is chosen, in this order: logits of tokens seen before are divided by repetition_penalty (multiplied where they are
 * negative); temperature 0 takes the largest, the first of equals; else logits / temperature, of which the top_k largest stay (0:
 * all), of these the fewest whose probabilities reach top_p (1: all; at least one), of these those with at least min_p times the
 * largest probability; one is drawn.  Random numbers: Philox 4x32-10 of (seed, draw). */
typedef struct frugal_sampling {
    float temperature;
    float top_p;
    float min_p;
    float repetition_penalty; /* 1: none */
    int32_t top_k;
    int32_t reserved;
    uint64_t seed;
} frugal_sampling;

/* Bytes of scratch (64-aligned) for n logits. */
size_t frugal_sample_bytes(int64_t n);
/* A token of logits [n], or -1 where they hold a NaN or no finite number.  seen [n_seen]: for the penalty, may repeat; others than
 * 0 .. n-1 are ignored.  draw: 0, 1, .. of the text, so that a text can be continued.  logprob: NULL, or receives the log of the
 * token's probability under softmax(logits). */
int64_t frugal_sample(const frugal_isa *isa, const frugal_sampling *how, const float *logits, int64_t n, const int64_t *seen,
                      int64_t n_seen, uint64_t draw, void *scratch, float *logprob);
/* The k likeliest tokens of logits [n], best first, and the logs of their probabilities; returns how many (NaN: 0). */
int64_t frugal_likeliest(const frugal_isa *isa, const float *logits, int64_t n, int64_t k, int64_t *tokens, float *logprobs,
                         void *scratch);

/* Texts of one decoder that grow together, one a row.  All memory is the caller's. */
typedef struct frugal_generation {
    frugal_session *session; /* resolved for one token a row */
    void *arena;
    size_t arena_bytes;
    const void *const *inputs; /* of frugal_session_run; the caches are the same buffers as their outputs */
    void *const *outputs;
    int64_t *ids;       /* [rows], the input of tokens */
    int64_t *positions; /* [rows], the input of positions, or NULL */
    int64_t *places;    /* [rows], the input of places in the cache, or NULL */
    const float *logits; /* [rows][vocabulary], the output: of the last token of every row when frugal_generate is called */
    const frugal_isa *isa;
    const frugal_sampling *sampling; /* [rows] */
    void *scratch;                   /* frugal_sample_bytes(vocabulary) */
    int64_t rows, vocabulary;
    int64_t capacity;  /* tokens that a row may have */
    int64_t *tokens;   /* [rows][capacity] */
    float *logprobs;   /* [rows][capacity] of generated tokens, or NULL */
    int64_t *lengths;  /* [rows], tokens so far */
    int64_t *fed;      /* [rows], tokens whose keys and values are in the cache */
    int64_t *prompts;  /* [rows], tokens of the prompt: draws are counted from there */
    uint8_t *done;     /* [rows]: 1 when a stop token came, 2 when the row is full */
    const int64_t *stops; /* tokens that end a row; they are appended */
    int64_t n_stops;
    const volatile int32_t *cancel; /* NULL, or: not 0 ends the call after the current token */
} frugal_generation;

/* Append up to n tokens to every row that is not done.  Returns early when all are done, or on cancel. */
frugal_status frugal_generate(frugal_generation *g, int64_t n, frugal_error *err);
#endif
