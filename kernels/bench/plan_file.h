/* plan_file.h - what the benchmarks of whole plans share. */
#ifndef PLAN_FILE_H
#define PLAN_FILE_H
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../include/frugal.h"
#include "../include/frugal_plan.h"

static inline void *alloc(size_t bytes) {
    bytes = (bytes + 127) / 64 * 64;
    void *p = aligned_alloc(64, bytes);
    if (!p) {
        exit(2);
    }
    return memset(p, 0, bytes);
}
static inline void *read_file(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END)) {
        perror(path);
        exit(2);
    }
    *size = (size_t)ftell(f);
    rewind(f);
    void *p = alloc(*size);
    if (fread(p, 1, *size, f) != *size) {
        exit(2);
    }
    fclose(f);
    return p;
}
static inline void must(frugal_status s, const frugal_error *e) {
    if (s != FRUGAL_OK) {
        fprintf(stderr, "step %d: %s\n", e->step, e->what);
        exit(2);
    }
}
static inline size_t width(uint32_t dtype) { /* TensorProto.DataType */
    return dtype == 7 || dtype == 11 || dtype == 13  ? 8
           : dtype == 1 || dtype == 6 || dtype == 12 ? 4
           : dtype == 10 || dtype == 4 || dtype == 5 ? 2
                                                     : 1;
}
#endif
