/* count.h - what all C test programs share: checks that are counted, random values, memory that nothing may take for zeros. */
#ifndef COUNT_H
#define COUNT_H
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long passed, failed;

/* The first failures are printed, with the numbers that tell which case it was. */
static inline void check_numbers(int ok, const char *what, const char *where, int n, const int64_t *numbers) {
    passed += ok != 0;
    failed += ok == 0;
    if (ok || failed >= 40)
        return;
    printf("FAIL %s %s (", where, what);
    for (int i = 0; i < n; i++)
        printf("%s%" PRId64, i ? ", " : "", numbers[i]);
    printf(")\n");
}
#define NUMBERS(...)                                                                                                             \
    (int)(sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]) { __VA_ARGS__ }
#define check(ok, what, where, ...) check_numbers(ok, what, where, NUMBERS(__VA_ARGS__))
#define CHECK(cond) check(!!(cond), #cond, __FILE__, __LINE__)

/* What main returns. */
static inline int check_report(void) {
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed != 0;
}

static inline uint32_t rnd(void) {
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 20);
}
static inline int64_t upto(int64_t n) { return (int64_t)(rnd() % (uint32_t)n); }     /* 0 .. n-1 */
static inline float uniform(void) { return (float)((int32_t)rnd() / 2147483648.0); } /* -1 to 1 */

/* 64-aligned, filled with a pattern; the exact size, so that AddressSanitizer sees a step beyond it. */
static inline void *alloc(size_t bytes) {
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes ? bytes : 1))
        exit(2);
    memset(p, 0x5a, bytes);
    return p;
}
#endif
