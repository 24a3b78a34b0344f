/* plan_builder.h - writes small plans in memory for the C tests: add tensors and steps, then pb_finish.  Every size is checked
 * with assert, since a test that does not fit is a mistake of the test. */
#ifndef PLAN_BUILDER_H
#define PLAN_BUILDER_H
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "frugal_plan.h"

enum { PB_MAX = 256, PB_DATA = 1 << 20 };

typedef struct pb {
    frugal_plan_dim dims[PB_MAX];
    frugal_plan_tensor tensors[PB_MAX];
    frugal_plan_step steps[PB_MAX];
    int32_t args[4 * PB_MAX];
    int64_t attrs[4 * PB_MAX];
    uint32_t n_dims, n_tensors, n_steps, n_args, n_attrs, n_inputs, n_outputs;
    uint64_t data_bytes;
    uint8_t data[PB_DATA];
} pb;

/* A list of values with its length in front: pb_input(b, 1, PB_LIST(2, 3)). */
#define PB_LIST(...)                                                                                                             \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]) { __VA_ARGS__ }
#define PB_NONE 0, NULL

static inline pb *pb_new(void) {
    pb *b = calloc(1, sizeof *b);
    assert(b);
    return b;
}

static inline int64_t pb_dim(pb *b, uint32_t op, int64_t x, int64_t y) {
    assert(b->n_dims < PB_MAX);
    b->dims[b->n_dims] = (frugal_plan_dim){op, 0, x, y};
    return -1 - (int64_t)b->n_dims++;
}
static inline int64_t pb_symbol(pb *b, int64_t input, int64_t axis) { return pb_dim(b, FRUGAL_DIM_INPUT, input, axis); }

static inline int32_t pb_tensor(pb *b, int kind, int dtype, int layout, int rank, const int64_t *dims) {
    assert(b->n_tensors < PB_MAX && rank <= 8);
    frugal_plan_tensor *t = &b->tensors[b->n_tensors];
    *t = (frugal_plan_tensor){
        .dtype = (uint8_t)dtype, .kind = (uint8_t)kind, .rank = (uint8_t)rank, .layout = (uint8_t)layout, .alias = -1};
    for (int i = 0; i < rank; i++)
        t->dims[i] = dims[i];
    b->n_inputs += kind == FRUGAL_TENSOR_INPUT;
    b->n_outputs += kind == FRUGAL_TENSOR_OUTPUT;
    return (int32_t)b->n_tensors++;
}
static inline int32_t pb_input(pb *b, int dtype, int rank, const int64_t *dims) {
    return pb_tensor(b, FRUGAL_TENSOR_INPUT, dtype, 0, rank, dims);
}
static inline int32_t pb_output(pb *b, int dtype, int rank, const int64_t *dims) {
    return pb_tensor(b, FRUGAL_TENSOR_OUTPUT, dtype, 0, rank, dims);
}
static inline int32_t pb_temp(pb *b, int dtype, int layout, int rank, const int64_t *dims) {
    return pb_tensor(b, FRUGAL_TENSOR_TEMP, dtype, layout, rank, dims);
}
static inline int32_t pb_alias(pb *b, int32_t of, int rank, const int64_t *dims) {
    const int32_t t = pb_tensor(b, FRUGAL_TENSOR_ALIAS, b->tensors[of].dtype, 0, rank, dims);
    b->tensors[t].alias = of;
    return t;
}
static inline int32_t pb_const(pb *b, int dtype, int layout, int rank, const int64_t *dims, const void *data, uint64_t bytes) {
    const int32_t t = pb_tensor(b, FRUGAL_TENSOR_CONST, dtype, layout, rank, dims);
    const uint64_t at = (b->data_bytes + 63) / 64 * 64;
    assert(at + bytes <= PB_DATA);
    if (bytes)
        memcpy(b->data + at, data, bytes);
    b->tensors[t].offset = at;
    b->tensors[t].bytes = bytes;
    b->data_bytes = at + bytes;
    return t;
}

static inline int64_t pb_float(double v) {
    int64_t bits;
    memcpy(&bits, &v, 8);
    return bits;
}

/* Operands as PB_LIST; -1 for an absent one. */
static inline void pb_step(pb *b, int op, int n_in, const int64_t *in, int n_out, const int64_t *out, int n_attr,
                           const int64_t *attrs) {
    assert(b->n_steps < PB_MAX && b->n_args + (uint32_t)(n_in + n_out) <= 4 * PB_MAX &&
           b->n_attrs + (uint32_t)n_attr <= 4 * PB_MAX);
    b->steps[b->n_steps++] = (frugal_plan_step){.op = (uint16_t)op,
                                                .n_in = (uint16_t)n_in,
                                                .n_out = (uint16_t)n_out,
                                                .n_attr = (uint16_t)n_attr,
                                                .args = b->n_args,
                                                .attrs = b->n_attrs};
    for (int i = 0; i < n_in; i++)
        b->args[b->n_args++] = (int32_t)in[i];
    for (int i = 0; i < n_out; i++)
        b->args[b->n_args++] = (int32_t)out[i];
    for (int i = 0; i < n_attr; i++)
        b->attrs[b->n_attrs++] = attrs[i];
}

static inline void pb_section(uint8_t *file, uint64_t *at, uint32_t kind, uint32_t count, const void *data, uint64_t bytes) {
    frugal_plan_header *h = (frugal_plan_header *)(void *)file;
    frugal_plan_section *s = (frugal_plan_section *)(void *)(file + sizeof *h) + h->sections++;
    const uint64_t align = kind == FRUGAL_SECTION_DATA ? 4096 : 64;
    *at = (*at + align - 1) / align * align;
    *s = (frugal_plan_section){.kind = kind, .count = count, .offset = *at, .bytes = bytes};
    if (bytes)
        memcpy(file + *at, data, bytes);
    *at += bytes;
}

/* The file, 64-aligned, for free(). */
static inline uint8_t *pb_finish(const pb *b, size_t *size) {
    const size_t room = sizeof *b + 16384;
    uint8_t *file = aligned_alloc(64, (room + 63) / 64 * 64);
    assert(file);
    memset(file, 0, room);
    frugal_plan_header *h = (frugal_plan_header *)(void *)file;
    memcpy(h->magic, FRUGAL_PLAN_MAGIC, 8);
    h->version = FRUGAL_PLAN_VERSION;
    uint64_t at = sizeof *h + 8 * sizeof(frugal_plan_section);
    pb_section(file, &at, FRUGAL_SECTION_META, 0, "{}", 2);
    pb_section(file, &at, FRUGAL_SECTION_TEXT, 0, "\0name", 6);
    pb_section(file, &at, FRUGAL_SECTION_DIMS, b->n_dims, b->dims, b->n_dims * sizeof *b->dims);
    pb_section(file, &at, FRUGAL_SECTION_TENSORS, b->n_tensors, b->tensors, b->n_tensors * sizeof *b->tensors);
    pb_section(file, &at, FRUGAL_SECTION_STEPS, b->n_steps, b->steps, b->n_steps * sizeof *b->steps);
    pb_section(file, &at, FRUGAL_SECTION_ARGS, b->n_args, b->args, b->n_args * sizeof *b->args);
    pb_section(file, &at, FRUGAL_SECTION_ATTRS, b->n_attrs, b->attrs, b->n_attrs * sizeof *b->attrs);
    pb_section(file, &at, FRUGAL_SECTION_DATA, 0, b->data, b->data_bytes);
    h->bytes = at;
    *size = at;
    return file;
}
#endif
