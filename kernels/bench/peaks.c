/* peaks.c - what this machine can do at most, one JSON object: {"isa": {name: {"int8_gops": [1 thread, all], "f32_gflops": ..}},
 * "read_gbps": [..], "ghz": .., "threads": n}.
 *
 *     peaks [rounds] [megabytes to read]
 * The best of the rounds; all threads: the CPUs that this process may use. */
#define _POSIX_C_SOURCE 200112L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frugal.h"

static double best(const char *isa, frugal_pool *pool, int32_t what, const void *memory, size_t bytes, int rounds) {
    double most = 0;
    for (int i = 0; i < rounds; i++) {
        const double v = frugal_measure(isa ? frugal_isa_find(isa) : NULL, pool, what, memory, bytes);
        most = v > most ? v : most;
    }
    return most;
}
static void *alloc(size_t bytes) {
    void *p = NULL;
    if (posix_memalign(&p, 64, bytes)) {
        exit(2);
    }
    memset(p, 1, bytes);
    return p;
}

int main(int argc, char **argv) {
    const int rounds = argc > 1 && atoi(argv[1]) > 0 ? atoi(argv[1]) : 5;
    const size_t bytes = (size_t)(argc > 2 && atoi(argv[2]) > 0 ? atoi(argv[2]) : 128) << 20;
    const int32_t threads = frugal_cpu_count();
    frugal_pool *pool;
    if (frugal_pool_start(&pool, alloc(frugal_pool_bytes(threads)), frugal_pool_bytes(threads), threads)) {
        return 2;
    }
    void *memory = alloc(bytes);
    printf("{\"isa\": {");
    const char *name;
    for (uint32_t i = 0; (name = frugal_isa_list(i)); i++) {
        printf("%s\"%s\": {\"int8_gops\": [%.1f, %.1f], \"f32_gflops\": [%.1f, %.1f]}", i ? ", " : "", name,
               best(name, NULL, FRUGAL_PEAK_INT8, NULL, 0, rounds), best(name, pool, FRUGAL_PEAK_INT8, NULL, 0, rounds),
               best(name, NULL, FRUGAL_PEAK_F32, NULL, 0, rounds), best(name, pool, FRUGAL_PEAK_F32, NULL, 0, rounds));
    }
    printf("}, \"read_gbps\": [%.1f, %.1f], \"ghz\": %.2f, \"threads\": %d}\n",
           best(NULL, NULL, FRUGAL_PEAK_READ, memory, bytes, rounds), best(NULL, pool, FRUGAL_PEAK_READ, memory, bytes, rounds),
           best(NULL, NULL, FRUGAL_PEAK_CLOCK, NULL, 0, rounds), threads);
    frugal_pool_stop(pool);
    free(memory);
    return 0;
}
