/* ops.h - what an operation is to the executor: a row of fr_ops, and the helpers that the ops_*.c files share. */
#ifndef FRUGAL_OPS_H
#define FRUGAL_OPS_H
#include <stdbool.h>
#include <string.h>

#include "frugal_plan.h"
#include "isa.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "plans are little-endian and read in place");

enum { /* ONNX TensorProto.DataType */
       FR_F32 = 1,
       FR_U8 = 2,
       FR_I8 = 3,
       FR_U16 = 4,
       FR_I16 = 5,
       FR_I32 = 6,
       FR_I64 = 7,
       FR_BOOL = 9,
       FR_F16 = 10,
       FR_F64 = 11,
       FR_U32 = 12,
       FR_U64 = 13,
       FR_BF16 = 16,
       /* One byte an element: a float of 8 bits as its code; 4 and 2 bits in the low bits, integers extended to the byte. */
       FR_F8E4M3FN = 17,
       FR_F8E4M3FNUZ = 18,
       FR_F8E5M2 = 19,
       FR_F8E5M2FNUZ = 20,
       FR_U4 = 21,
       FR_I4 = 22,
       FR_F4E2M1 = 23,
       FR_F8E8M0 = 24,
       FR_U2 = 25,
       FR_I2 = 26
};

/* A tensor after resolve.  n and every partial product of dims (zeros counted as ones) are at most FRUGAL_MAX_DIM. */
typedef struct fr_tensor {
    uint8_t *data; /* set by run; CONST from init on */
    int64_t dims[FRUGAL_MAX_RANK];
    int64_t n;     /* elements */
    int64_t bytes; /* in this layout */
    int32_t root;  /* the tensor whose bytes these are: itself unless ALIAS */
    uint8_t dtype, rank, layout, kind;
} fr_tensor;

/* One step with its operands.  Absent optional operands are NULL. */
typedef struct fr_call {
    const frugal_isa *isa;
    frugal_pool *pool;
    int32_t threads;
    int32_t n_in, n_out, n_attr;
    fr_tensor *const *in;
    fr_tensor *const *out;
    const int32_t *args;   /* tensor indices, inputs first */
    const int64_t *attrs;  /* raw */
    const int64_t *values; /* of the plan's DIMS */
    uint8_t *shared;       /* the operation's scratch: one piece of all threads, and one of each thread */
    uint8_t *scratch;
    int64_t scratch_bytes; /* of each thread; a multiple of 64 */
    frugal_error *err;     /* never NULL */
} fr_call;

typedef struct fr_scratch {
    int64_t shared, thread; /* bytes */
} fr_scratch;

typedef struct fr_op {
    const char *name;
    uint8_t in_min, in_max; /* in_max 255: any number */
    uint8_t n_out;
    uint32_t required; /* bit i: operand i may not be absent; with in_max 255 none may */
    const char
        *attrs; /* one letter an attribute, see fr_attrs_valid in plan.c; a final '*' repeats the letters any number of times */
    frugal_status (*check)(const fr_call *c);         /* after FRUGAL_OK no run goes out of bounds */
    void (*scratch)(const fr_call *c, fr_scratch *s); /* NULL: none */
    frugal_status (*run)(const fr_call *c);           /* only called when an output has elements */
    int64_t (*operations)(const fr_call *c);          /* NULL: one an output element */
} fr_op;

extern const fr_op fr_ops[FRUGAL_OP_COUNT];

/* ---- errors ---- */

/* Fills c->err.  pos: operand (inputs first) or -1. */
frugal_status fr_fail(const fr_call *c, frugal_status status, int32_t pos, int32_t axis, int64_t want, int64_t got,
                      const char *what);

#define FR_NEED(c, cond, status, what)                                                                                           \
    do {                                                                                                                         \
        if (!(cond))                                                                                                             \
            return fr_fail((c), (status), -1, -1, 0, 0, (what));                                                                 \
    } while (0)
#define FR_SHAPE(c, cond, what) FR_NEED(c, cond, FRUGAL_BAD_SHAPE, what)
#define FR_DTYPE(c, cond, what) FR_NEED(c, cond, FRUGAL_UNSUPPORTED, what)
#define FR_TRY(call)                                                                                                             \
    do {                                                                                                                         \
        const frugal_status fr_status_ = (call);                                                                                 \
        if (fr_status_ != FRUGAL_OK)                                                                                             \
            return fr_status_;                                                                                                   \
    } while (0)

/* Operand pos must have the shape of tensor like. */
frugal_status fr_same_shape(const fr_call *c, const fr_tensor *x, const fr_tensor *like, int32_t pos);
/* Operand pos must be float32 with the given rank and, where want >= 0, the dim want[i]. */
frugal_status fr_vector(const fr_call *c, const fr_tensor *x, int64_t n, int32_t pos);

/* ---- types, sizes, attributes ---- */

int64_t fr_dtype_bytes(int dtype); /* 0 when this library does not know the type */
/* Bytes of rank dims in a layout; false when the combination or the size is not allowed. */
bool fr_layout_bytes(int dtype, int layout, int rank, const int64_t *dims, int64_t *n, int64_t *bytes);
void fr_act8_view(const fr_tensor *t, fr_act8 *a);

static inline int64_t fr_round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }
static inline int64_t fr_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t fr_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t fr_max(int64_t a, int64_t b) { return a > b ? a : b; }

static inline double fr_attr_double(const fr_call *c, int32_t i) {
    double v;
    memcpy(&v, &c->attrs[i], sizeof v);
    return v;
}
static inline float fr_attr_float(const fr_call *c, int32_t i) { return (float)fr_attr_double(c, i); }
/* The value of an attribute that is a dim. */
static inline int64_t fr_attr_dim(const fr_call *c, int32_t i) {
    return c->attrs[i] >= 0 ? c->attrs[i] : c->values[-1 - c->attrs[i]];
}
/* Product of dims [from, to). */
static inline int64_t fr_product(const fr_tensor *t, int32_t from, int32_t to) {
    int64_t n = 1;
    for (int32_t i = from; i < to; i++)
        n *= t->dims[i];
    return n;
}
/* Whether there is anything to write. */
static inline bool fr_any_output(const fr_call *c) {
    for (int32_t k = 0; k < c->n_out; k++) {
        if (c->out[k]->n > 0)
            return true;
    }
    return false;
}
float fr_half_to_float(uint16_t h);
uint16_t fr_double_to_half(double v);   /* to nearest, ties to even, in one rounding */
uint16_t fr_float_to_bfloat16(float v); /* likewise */
bool fr_is_small_float(int dtype);      /* 8 and 4 bits */
bool fr_is_small_int(int dtype);        /* 4 and 2 bits */
float fr_small_to_float(int dtype, uint8_t code);
/* mode: for E8M0 0 up, 1 down, 2 to nearest; the others round to nearest even.  Without saturate what is too big is inf or NaN.
 */
uint8_t fr_small_of(int dtype, double v, bool saturate, int mode);
/* The lowest and highest value of an integer type of at most 16 bits. */
void fr_int_range(int dtype, int32_t *low, int32_t *high);
/* Element i of any integer type of at most 32 bits; 4 and 2 bits are taken from the low bits of the byte. */
int32_t fr_int_at(const fr_tensor *t, int64_t i);

/* ---- cutting work ---- */

typedef void (*fr_range)(const void *ctx, int64_t begin, int64_t end, int32_t thread);
/* fn over [0, n) in ranges of about grain or more; in the calling thread when n is small. */
void fr_parallel(const fr_call *c, int64_t n, int64_t grain, fr_range fn, const void *ctx);
/* Rows of n elements each: a grain of about 16k elements. */
static inline int64_t fr_row_grain(int64_t n) { return n >= 16384 ? 1 : 16384 / (n > 0 ? n : 1); }
static inline uint8_t *fr_thread_scratch(const fr_call *c, int32_t thread) {
    return c->scratch + (int64_t)thread * c->scratch_bytes;
}

/* Walks a dense output beside up to three operands with a step (in elements, any sign, 0 to repeat) for every axis. */
enum { FR_WALK_OPERANDS = 3 };
typedef struct fr_walk {
    int32_t rank, operands;
    int64_t dims[FRUGAL_MAX_RANK];
    int64_t step[FR_WALK_OPERANDS][FRUGAL_MAX_RANK];
    int64_t start[FR_WALK_OPERANDS];
} fr_walk;
/* Elements [out, out + n) of the output; operand k starts at element at[k] and advances by step[k]. */
typedef void (*fr_inner)(const void *ctx, int64_t out, const int64_t *at, const int64_t *step, int64_t n);

void fr_walk_init(fr_walk *w, const fr_tensor *y);
void fr_walk_broadcast(fr_walk *w, const fr_tensor *x); /* adds an operand; x broadcasts to y */
void fr_walk_collapse(fr_walk *w);                      /* fewer and longer axes, the same elements */
void fr_walk_run(const fr_call *c, fr_walk *w, fr_inner fn, const void *ctx);
bool fr_broadcasts_to(const fr_tensor *x, const fr_tensor *y);
/* n elements of size bytes: dst dense, src with a step in elements. */
/* TRANSPOSE as a walk of x; false where a stretch of x stays one, which a plain walk copies well. */
bool fr_transpose_walk(const fr_call *c, fr_walk *w);
void fr_copy(uint8_t *dst, const uint8_t *src, int64_t step, int64_t n, int64_t size);

/* b [k] rows of n columns (row stride ldb; transposed: n rows of k) to panels [ceil(n / 16)][k][16]; missing columns are 0. */
void fr_pack_panels(float *dst, const float *b, int64_t ldb, bool transposed, int64_t k, int64_t n);

/* ---- the operations, by file ---- */
#define FR_DECLARE(name)                                                                                                         \
    frugal_status fr_##name##_check(const fr_call *c);                                                                           \
    frugal_status fr_##name##_run(const fr_call *c);
FR_DECLARE(unary)
FR_DECLARE(binary)
FR_DECLARE(where)
FR_DECLARE(cast)
FR_DECLARE(transpose)
FR_DECLARE(expand)
FR_DECLARE(slice)
FR_DECLARE(concat)
FR_DECLARE(gather)
FR_DECLARE(gather_dequantize)
FR_DECLARE(gather_packed)
FR_DECLARE(range)
FR_DECLARE(dims)
FR_DECLARE(fill)
FR_DECLARE(reduce)
FR_DECLARE(softmax)
FR_DECLARE(layer_norm)
FR_DECLARE(rms_norm)
FR_DECLARE(quantize_act)
FR_DECLARE(linear)
FR_DECLARE(matmul)
FR_DECLARE(attention)
FR_DECLARE(cumsum)
FR_DECLARE(quantize)
FR_DECLARE(dequantize)
FR_DECLARE(arg)
/* -- control flow and shapes known at run time -- */
FR_DECLARE(control) /* IF, ELSE, END, LOOP: the session runs them itself */
FR_DECLARE(merge)
FR_DECLARE(var)
FR_DECLARE(set)

/* -- convolution and pooling -- */
FR_DECLARE(conv)
FR_DECLARE(conv_depthwise)
FR_DECLARE(window_pool)
FR_DECLARE(max_pool_indices)

/* -- moving, sorting, searching, sampling -- */
FR_DECLARE(pad)
FR_DECLARE(resize)
FR_DECLARE(gather_at)
FR_DECLARE(scatter_at)
FR_DECLARE(topk)
FR_DECLARE(sizes)
FR_DECLARE(cumprod)
FR_DECLARE(nonzero)
FR_DECLARE(unique)
FR_DECLARE(nms)
FR_DECLARE(grid_sample)
FR_DECLARE(roi_align)
FR_DECLARE(col2im)
FR_DECLARE(random)

/* -- quantization and data types -- */
FR_DECLARE(convert)
FR_DECLARE(bit_cast)
FR_DECLARE(quantize_float)
FR_DECLARE(dynamic_quantize)
FR_DECLARE(linear_integer)

/* -- integer convolution and pooling -- */
FR_DECLARE(qconv)
FR_DECLARE(qdepth)
FR_DECLARE(qbinary)
FR_DECLARE(qpool)
FR_DECLARE(qlookup)
FR_DECLARE(qsoftmax)
FR_DECLARE(conv_integer)
FR_DECLARE(qcodes)
void fr_qconv_scratch(const fr_call *c, fr_scratch *s);
/* QCONV with transformed weights (ops_winograd.c). */
frugal_status fr_qwino_check(const fr_call *c);
frugal_status fr_qwino_run(const fr_call *c, bool small);
int64_t fr_qwino_scratch(const fr_call *c);
int64_t fr_qconv_operations(const fr_call *c);
int64_t fr_qdepth_operations(const fr_call *c);
int64_t fr_qpool_operations(const fr_call *c);
int64_t fr_conv_integer_operations(const fr_call *c);

/* -- recurrences and transforms -- */
FR_DECLARE(recurrent)
FR_DECLARE(dft)
FR_DECLARE(stft)
FR_DECLARE(window)
FR_DECLARE(mel)
void fr_recurrent_scratch(const fr_call *c, fr_scratch *s);
void fr_dft_scratch(const fr_call *c, fr_scratch *s);
void fr_stft_scratch(const fr_call *c, fr_scratch *s);
int64_t fr_recurrent_operations(const fr_call *c);

/* -- attention and its caches -- */
FR_DECLARE(attention_cache)
FR_DECLARE(tensor_scatter)
FR_DECLARE(rotary)
FR_DECLARE(linear_attention)
FR_DECLARE(causal_conv)
FR_DECLARE(det)
FR_DECLARE(cache_append)
FR_DECLARE(attention_kept)

/* -- convolutions in other forms -- */
FR_DECLARE(conv_winograd)
void fr_conv_winograd_scratch(const fr_call *c, fr_scratch *s);
int64_t fr_conv_winograd_operations(const fr_call *c);

#undef FR_DECLARE
void fr_linear_integer_scratch(const fr_call *c, fr_scratch *s);
int64_t fr_linear_integer_operations(const fr_call *c);
void fr_softmax_scratch(const fr_call *c, fr_scratch *s);
void fr_linear_scratch(const fr_call *c, fr_scratch *s);
void fr_matmul_scratch(const fr_call *c, fr_scratch *s);
void fr_attention_scratch(const fr_call *c, fr_scratch *s);
void fr_conv_scratch(const fr_call *c, fr_scratch *s);
void fr_conv_depthwise_scratch(const fr_call *c, fr_scratch *s);
int64_t fr_conv_operations(const fr_call *c);
int64_t fr_window_pool_operations(const fr_call *c);
int64_t fr_linear_operations(const fr_call *c);
int64_t fr_matmul_operations(const fr_call *c);
int64_t fr_attention_operations(const fr_call *c);
void fr_attention_kept_scratch(const fr_call *c, fr_scratch *s);
int64_t fr_attention_kept_operations(const fr_call *c);
void fr_cache_append_scratch(const fr_call *c, fr_scratch *s);
void fr_attention_cache_scratch(const fr_call *c, fr_scratch *s);
int64_t fr_attention_cache_operations(const fr_call *c);
void fr_linear_attention_scratch(const fr_call *c, fr_scratch *s);
int64_t fr_linear_attention_operations(const fr_call *c);
int64_t fr_causal_conv_operations(const fr_call *c);
void fr_det_scratch(const fr_call *c, fr_scratch *s);
bool fr_matmul_any_dtype(int dtype); /* MATMUL of what is not float32 */
frugal_status fr_matmul_any_run(const fr_call *c);
int64_t fr_reduce_operations(const fr_call *c);

/* moving, sorting, searching, sampling */
void fr_pad_scratch(const fr_call *c, fr_scratch *s);
void fr_resize_scratch(const fr_call *c, fr_scratch *s);
void fr_topk_scratch(const fr_call *c, fr_scratch *s);
int64_t fr_topk_operations(const fr_call *c);
void fr_unique_scratch(const fr_call *c, fr_scratch *s);
int64_t fr_unique_operations(const fr_call *c);
void fr_nms_scratch(const fr_call *c, fr_scratch *s);
int64_t fr_nms_operations(const fr_call *c);

/* y[j0, j1, ..] = x[at[0][j0], at[1][j1], ..], the fill where one is negative.  fr_map_init points at[] into scratch of
 * fr_map_scratch(y) bytes; the caller writes at[a][0 .. y.dims[a]), each below x.dims[a]; fr_map_run copies. */
typedef struct fr_map {
    const fr_tensor *x, *y;
    const uint8_t *fill; /* one element */
    int64_t *at[FRUGAL_MAX_RANK];
    int32_t first, last;                                            /* axes that are no plain copy, and those between */
    bool picks;                                                     /* the last one single elements, not runs */
    int64_t size, x_step[FRUGAL_MAX_RANK], y_step[FRUGAL_MAX_RANK]; /* bytes */
} fr_map;
int64_t fr_map_scratch(const fr_tensor *y);
void fr_map_init(fr_map *m, const fr_tensor *x, const fr_tensor *y, const uint8_t *fill, uint8_t *scratch);
void fr_map_run(const fr_call *c, fr_map *m);

/* n elements, `step` apart, as unsigned integers of the same order (-0 as 0, a NaN last); false for a type without an order. */
bool fr_sort_keys(uint64_t *keys, const uint8_t *x, int dtype, int64_t n, int64_t step);
/* best[k]: indices of the k largest of n keys, largest first, among equals the lower index first.  k <= n. */
void fr_topk_indices(const uint64_t *keys, int64_t n, int64_t *best, int64_t k);
#endif
