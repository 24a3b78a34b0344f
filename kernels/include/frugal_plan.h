/* frugal_plan.h - the plan file, byte for byte, and the meaning of every step (docs/plan-format.md is the page for people).
 *
 * Little-endian.  Header, section table, sections; every section starts at a multiple of 64, DATA at a multiple of 4096.
 * A dim is an int64: >= 0 a constant, < 0 the expression with index -1 - value in DIMS.  Expressions refer only to earlier ones.
 * A string is an offset into TEXT of NUL-terminated UTF-8; TEXT starts and ends with NUL, so offset 0 is "".
 * Data types are the numbers of ONNX TensorProto.DataType.
 */
#ifndef FRUGAL_PLAN_H
#define FRUGAL_PLAN_H
#include <stdint.h>

#define FRUGAL_PLAN_MAGIC "FRUGALP\n"
#define FRUGAL_PLAN_VERSION 1
#define FRUGAL_MAX_SECTIONS 16
#define FRUGAL_MAX_TURNS (INT64_C(1) << 24) /* of loops, nested ones included, in one run */
#define FRUGAL_MAX_DIM (INT64_C(1) << 40)   /* every dim and every tensor's element count is at most this */

typedef struct frugal_plan_header {
    char magic[8];
    uint32_t version;
    uint32_t sections; /* entries of the section table that follows */
    uint64_t bytes;    /* of the whole file */
    uint64_t reserved;
    uint8_t sha256[32]; /* of the section table */
} frugal_plan_header;
_Static_assert(sizeof(frugal_plan_header) == 64, "plan header");

enum frugal_section_kind {
    FRUGAL_SECTION_META = 1, /* JSON: producer, source hash, options */
    FRUGAL_SECTION_TEXT = 2,
    FRUGAL_SECTION_DIMS = 3,    /* frugal_plan_dim */
    FRUGAL_SECTION_TENSORS = 4, /* frugal_plan_tensor */
    FRUGAL_SECTION_STEPS = 5,   /* frugal_plan_step */
    FRUGAL_SECTION_ARGS = 6,    /* int32: tensor index, or -1 for an absent optional operand */
    FRUGAL_SECTION_ATTRS = 7,   /* int64; a float attribute is its float64 bit pattern */
    FRUGAL_SECTION_DATA = 8     /* constants, each at a multiple of 64 */
};

typedef struct frugal_plan_section {
    uint32_t kind;
    uint32_t count; /* records; for META, TEXT and DATA the value 0 */
    uint64_t offset;
    uint64_t bytes;
    uint64_t reserved;
    uint8_t sha256[32];
} frugal_plan_section;
_Static_assert(sizeof(frugal_plan_section) == 64, "plan section");

enum frugal_dim_op { /* a and b are dims, except for INPUT; every result must lie in [0, FRUGAL_MAX_DIM], SUB and ADD_CONST
                        included */
                     FRUGAL_DIM_INPUT = 0, /* axis b of model input a (plain numbers) */
                     FRUGAL_DIM_ADD = 1,
                     FRUGAL_DIM_SUB = 2,
                     FRUGAL_DIM_MUL = 3,
                     FRUGAL_DIM_DIV = 4,      /* floor(a / b), b > 0 */
                     FRUGAL_DIM_CEIL_DIV = 5, /* b > 0 */
                     FRUGAL_DIM_MOD = 6,      /* b > 0 */
                     FRUGAL_DIM_MIN = 7,
                     FRUGAL_DIM_MAX = 8,
                     FRUGAL_DIM_SUB0 = 9,       /* max(a - b, 0) */
                     FRUGAL_DIM_BROADCAST = 10, /* a if b is 1; b if a is 1 or a equals b; otherwise an error */
                     /* Late dims: known only while the plan runs, once tensor a (a plain number) is written.  What depends on
                      * them is late too: such tensors are checked and placed when a step writes them. */
                     FRUGAL_DIM_VALUE = 11, /* element b of tensor a, int32 or int64 */
                     FRUGAL_DIM_SHAPE = 12  /* axis b of tensor a, which a MERGE or a VAR writes and gives its shape */
};

typedef struct frugal_plan_dim {
    uint32_t op;
    uint32_t name; /* string: the symbol's name (INPUT), or what the model calls this dim of an output */
    int64_t a, b;
} frugal_plan_dim;
_Static_assert(sizeof(frugal_plan_dim) == 24, "plan dim");

enum frugal_tensor_kind {
    FRUGAL_TENSOR_TEMP = 0,   /* in the arena, from the step that writes it to the last that reads it */
    FRUGAL_TENSOR_CONST = 1,  /* in DATA */
    FRUGAL_TENSOR_INPUT = 2,  /* the caller's; numbered in the order of the table */
    FRUGAL_TENSOR_OUTPUT = 3, /* the caller's; numbered likewise; may be read by later steps */
    FRUGAL_TENSOR_ALIAS = 4   /* the bytes of tensor `alias` (no alias itself, any other kind) under another shape of the same
                               * element count and data type; never the output of a step */
};

enum frugal_layout {
    FRUGAL_PLAIN = 0, /* dense, row-major */
    /* Constants of a linear, logical dims [n, k]; np = n rounded up to 16, kp = k rounded up to 32; padding rows and columns
     * have no effect on the result (zero weight; for W4 the code equals the zero point).  A panel is 16 rows. */
    FRUGAL_F32_P16 = 1, /* float32 [np/16][k][16]                                       bytes 4 * np * k */
    FRUGAL_W8_P16 = 2,  /* int8 in [-127, 127], [np/16][kp/4][16][4]                    bytes np * kp */
    FRUGAL_W4_P16 = 3,  /* uint8 [np/16][kp/32] blocks of 304 bytes: 256 of codes, fp16 scale[16], uint8 zero[16] (0..15).
                         * code byte 64 v + 4 r + j (v 0..3, r 0..15, j 0..3): low nibble k = 4 v + j, high nibble k = 16 + 4 v +
                         * j, of row r.  w = scale * (code - zero).                        bytes np/16 * kp/32 * 304 */
    FRUGAL_W4O_P16 = 8, /* uint8 [np/16][kp/32] blocks of 320 bytes: codes as in W4_P16, fp16 scale[16], fp16 offset[16].
                         * w = scale * code + offset.                                      bytes np/16 * kp/32 * 320 */
    FRUGAL_W8B_P16 = 9, /* uint8 [np/16][kp/32] blocks of 544 bytes: int8 codes in [-127, 127] as in W8_P16 [8][16][4], fp16
                         * scale[16].  w = scale * code.                                   bytes np/16 * kp/32 * 544 */
    /* As F32_P16, weights that 16 bits hold exactly; they are widened when they are read. */
    FRUGAL_F16_P16 = 6,  /* float16 [np/16][k][16]                                      bytes 2 * np * k */
    FRUGAL_BF16_P16 = 7, /* bfloat16 [np/16][k][16]                                     bytes 2 * np * k */
    /* Quantized activations, dtype int8, temporaries only, logical dims [.., k]; m = product of the other dims:
     * int8 q[m][kp] in [-127, 127] (zero beyond k), then at the next multiple of 64 float32 scale[m] or scale[m][kp/32],
     * then at the next multiple of 64 int32 sum[m][kp/32] (sums of q over blocks of 32). */
    FRUGAL_A8_TOKEN = 4, /* one scale a token */
    FRUGAL_A8_BLOCK = 5  /* one scale a block of 32 of a token */
};

typedef struct frugal_plan_tensor {
    uint8_t dtype;
    uint8_t kind;
    uint8_t rank;
    uint8_t layout;
    uint32_t name;   /* string; what the model calls it */
    uint64_t offset; /* CONST: in DATA, a multiple of 64; else 0 */
    uint64_t bytes;  /* CONST: exactly the size of the shape in this layout; else 0 */
    int32_t alias;   /* ALIAS: the tensor whose bytes these are; else -1 */
    uint32_t reserved;
    int64_t dims[8]; /* unused ones 0 */
} frugal_plan_tensor;
_Static_assert(sizeof(frugal_plan_tensor) == 96, "plan tensor");

typedef struct frugal_plan_step {
    uint16_t op;
    uint16_t n_in, n_out, n_attr;
    uint32_t name;  /* string; the model's node */
    uint32_t args;  /* first of n_in + n_out entries of ARGS, inputs first */
    uint32_t attrs; /* first of n_attr entries of ATTRS */
    uint32_t reserved[3];
} frugal_plan_step;
_Static_assert(sizeof(frugal_plan_step) == 32, "plan step");

/* Elementwise functions.  UNARY_* of float32 (also float64 where nothing else is said); p, q: attributes 1 and 2. */
enum frugal_unary {
    FRUGAL_U_COPY = 0, /* any dtype */
    FRUGAL_U_NEG = 1,
    FRUGAL_U_ABS = 2,
    FRUGAL_U_SIGN = 3, /* also integers */
    FRUGAL_U_SQRT = 4,
    FRUGAL_U_RECIPROCAL = 5,
    FRUGAL_U_FLOOR = 6,
    FRUGAL_U_CEIL = 7,
    FRUGAL_U_ROUND = 8, /* half to even */
    FRUGAL_U_EXP = 9,
    FRUGAL_U_LOG = 10,
    FRUGAL_U_ERF = 11,
    FRUGAL_U_TANH = 12,
    FRUGAL_U_SIGMOID = 13,
    FRUGAL_U_RELU = 14,
    FRUGAL_U_LEAKY_RELU = 15 /* p */,
    FRUGAL_U_CLIP = 16 /* p low, q high; also integers */,
    FRUGAL_U_GELU = 17,
    /* x/2 (1 + erf(x/sqrt 2)) */ FRUGAL_U_GELU_TANH = 18,
    FRUGAL_U_SILU = 19,
    FRUGAL_U_SIN = 20,
    FRUGAL_U_COS = 21,
    FRUGAL_U_NOT = 22,
    /* bool */ FRUGAL_U_SOFTPLUS = 23,
    FRUGAL_U_ELU = 24 /* p */,
    FRUGAL_U_HARD_SIGMOID = 25,
    /* max(0, min(1, p x + q)) */ FRUGAL_U_HARD_SWISH = 26,
    FRUGAL_U_ISNAN = 27, /* -> bool */
    /* From here on: not as the function of a linear.  float32 and float64 (dmath.h). */
    FRUGAL_U_BIT_NOT = 28, /* integers */
    FRUGAL_U_ISINF = 29,   /* -> bool; p != 0: -inf counts, q != 0: +inf counts */
    FRUGAL_U_TAN = 30,
    FRUGAL_U_ASIN = 31,
    FRUGAL_U_ACOS = 32,
    FRUGAL_U_ATAN = 33,
    FRUGAL_U_SINH = 34,
    FRUGAL_U_COSH = 35,
    FRUGAL_U_ASINH = 36,
    FRUGAL_U_ACOSH = 37,
    FRUGAL_U_ATANH = 38,
    FRUGAL_U_SHRINK = 39, /* x < -p: x + q;  x > p: x - q;  else 0 */
    FRUGAL_UNARY_COUNT = 40
};
enum frugal_binary { /* float32, float64, int32, int64 (and other integers for ADD..MAX); comparisons give bool */
                     FRUGAL_B_ADD = 0,
                     FRUGAL_B_SUB = 1,
                     FRUGAL_B_MUL = 2,
                     FRUGAL_B_DIV = 3, /* integers: toward zero; by zero gives 0 */
                     FRUGAL_B_MIN = 4,
                     FRUGAL_B_MAX = 5,
                     FRUGAL_B_POW = 6,
                     FRUGAL_B_MOD = 7, /* sign of the divisor, as Python */
                     FRUGAL_B_FMOD = 8,
                     FRUGAL_B_EQUAL = 9,
                     FRUGAL_B_LESS = 10,
                     FRUGAL_B_LESS_EQUAL = 11,
                     FRUGAL_B_GREATER = 12,
                     FRUGAL_B_GREATER_EQUAL = 13,
                     FRUGAL_B_AND = 14,
                     FRUGAL_B_OR = 15,
                     FRUGAL_B_XOR = 16,     /* bool */
                     FRUGAL_B_BIT_AND = 17, /* from here on: integers */
                     FRUGAL_B_BIT_OR = 18,
                     FRUGAL_B_BIT_XOR = 19,
                     FRUGAL_B_SHIFT_LEFT = 20,  /* by the width or more, or by less than 0: nothing of the number is left */
                     FRUGAL_B_SHIFT_RIGHT = 21, /* likewise; signed types fill with the sign */
                     FRUGAL_BINARY_COUNT = 22
};
enum frugal_reduce {
    FRUGAL_R_SUM = 0,
    FRUGAL_R_MEAN = 1,
    FRUGAL_R_MAX = 2,
    FRUGAL_R_MIN = 3,
    FRUGAL_R_PROD = 4,
    FRUGAL_R_SUM_SQUARE = 5,
    FRUGAL_R_L1 = 6,
    FRUGAL_R_L2 = 7,
    FRUGAL_REDUCE_COUNT = 8
};

/* Activations of a recurrence beside those of frugal_unary. */
enum frugal_cell {
    FRUGAL_CELL_AFFINE = 64,           /* p x + q */
    FRUGAL_CELL_THRESHOLDED_RELU = 65, /* x >= p ? x : 0 */
    FRUGAL_CELL_SCALED_TANH = 66,      /* p tanh(q x) */
    FRUGAL_CELL_SOFTSIGN = 67          /* x / (1 + |x|) */
};

/* Steps.  x?: optional operand (-1 when absent).  [..]: shapes; dims with one letter must agree.  d: an attribute that is a dim.
 */
enum frugal_op {
    /* in x; out y, same shape.  attrs kind, p (float), q (float). */
    FRUGAL_OP_UNARY = 0,
    /* in a, b; out y of the numpy-broadcast shape; a, b the same dtype.  attrs kind. */
    FRUGAL_OP_BINARY = 1,
    /* in condition (bool), a, b; out y broadcast.  a, b, y of one dtype of any size. */
    FRUGAL_OP_WHERE = 2,
    /* in x; out y of the same shape and another dtype, any two.  float -> integer truncates and saturates, NaN gives 0; integers
     * wrap, and so does what becomes 4 or 2 bits; to bool: x != 0; to a float of 8 bits: as CONVERT with saturate 1, up. */
    FRUGAL_OP_CAST = 3,
    /* in x; out y with y.dims[i] = x.dims[perm[i]].  attrs perm[rank]. */
    FRUGAL_OP_TRANSPOSE = 4,
    /* in x; out y: x broadcast (numpy rules) to y's shape. */
    FRUGAL_OP_EXPAND = 5,
    /* in x, bounds? int64 [3 rank]; out y.  attrs, for every axis: start (d), step (plain, not 0).  y[i..] = x[start + i step
     * ..]; all indices inside x; with a dim of y 0 nothing is read.  bounds: start, count (of y), step an axis instead of the
     * attrs. */
    FRUGAL_OP_SLICE = 6,
    /* in x0..xn; out y, the concatenation along axis.  attrs axis. */
    FRUGAL_OP_CONCAT = 7,
    /* in table, ids (int32 or int64, may be negative: counted from the end); out y = table.dims[:axis] + ids.dims +
     * table.dims[axis+1:]. attrs axis.  An id outside [-n, n) is FRUGAL_BAD_INPUT. */
    FRUGAL_OP_GATHER = 8,
    /* in table int8 [v, k], scale float32 or float16 [v, g] with k a multiple of g, ids; out y float32 ids.dims + [k];
     * y = (float)q * scale of its group of k/g.  No attrs. */
    FRUGAL_OP_GATHER_DEQUANTIZE = 9,
    /* no input; out y int64 [n]: y[i] = start + i step.  attrs start (d), step (plain). */
    FRUGAL_OP_RANGE = 10,
    /* no input; out y int64 [n] or []: the values of n dims.  attrs d[n]. */
    FRUGAL_OP_DIMS = 11,
    /* in value (one element); out y of any shape, every element that value. */
    FRUGAL_OP_FILL = 12,
    /* in x, axes? (int32 or int64); out y with the reduced axes of length 1 (a later ALIAS drops them).  attrs kind, axes as a
     * bit mask: with the operand those that are reduced when it is empty.
     * Order of a float sum: the reduced elements in row-major order, 16 lanes, lane i mod 16, folded 8, 4, 2, 1 (see isa.h);
     * MAX and MIN propagate NaN; integers wrap; bool: MAX (or) and MIN (and). */
    FRUGAL_OP_REDUCE = 13,
    /* in x float32; out y.  Over `axis`.  attrs axis, log (0 or 1: log-softmax). */
    FRUGAL_OP_SOFTMAX = 14,
    /* in x [.., n], residual? [.., n], gamma [n], beta? [n]; out y.  Normalizes x + residual over the last axis.  attrs eps
     * (float). All float32. */
    FRUGAL_OP_LAYER_NORM = 15,
    /* the same without subtracting the mean: y = v / sqrt(mean(v^2) + eps) * gamma. */
    FRUGAL_OP_RMS_NORM = 16,
    /* in x float32 [.., k], scale? float32 [1] (static: constant > 0); out y A8_TOKEN or A8_BLOCK of the same dims.
     * With a scale (A8_TOKEN only) q = round(x / scale) saturated to [-127, 127]. */
    FRUGAL_OP_QUANTIZE_ACT = 17,
    /* in x, w [n, k], scale? float32 [np] (W8 only), bias? float32 [np], residual? float32 [.., n]; out y [.., n], float32 or
     * A8_BLOCK (as QUANTIZE_ACT of the float32 result would give it).
     * x: float32 [.., k] with w F32_P16, F16_P16 or BF16_P16; A8 with w W8_P16, W4_P16, W4O_P16 or W8B_P16.  y = act(x w^T +
     * bias) + residual. attrs act: a frugal_unary without parameters, FRUGAL_U_COPY for none.  np, scale, bias: n rounded up
     * to 16. */
    FRUGAL_OP_LINEAR = 18,
    /* in a [.., m, k], b [.., k, n] (batch dims broadcast), out y; one of float32, float64, int32, uint32, int64, uint64.  attrs
     * transpose_b (b is [.., n, k]), alpha (float; 1 for integers): y = alpha * (a b).  Integers wrap. */
    FRUGAL_OP_MATMUL = 19,
    /* in q float32, k, v float32, mask? (bool or float32, broadcastable from the right to [b, h, s, t]); out y as q.
     * attrs heads h, kv_heads g, scale (float), causal (0, 1 or 2), softcap (float, 0: none), fused (0 or 1).
     * fused 0: q [b, s, h*d], k [b, t, g*d], v [b, t, g*e], y [b, s, h*e].
     * fused 1: q is [b, s, h*d + g*d + g*e], the three side by side (d = e), k and v absent, t = s, y [b, s, h*d].
     * Query i sees key j when causal is 0, or 1 and j <= i + (t - s), or 2 and j <= i.  A bool mask keeps where true; a float
     * mask is added. A row that sees no key gives 0.
     * Keys go in blocks of 256; of each, a row has m = the maximum of its scores, l = the sum of w = exp(score - m) (16 lanes)
     * and o = the sum of w v (one fmaf chain).  Blocks in which the row sees something are merged in ascending order: M' = max(M,
     * m), c = exp(M - M'), f = exp(m - M'), L = L c + l f, O = O c + o f, each operation rounded; the first one as it is.  y = O
     * * (1 / L). */
    FRUGAL_OP_ATTENTION = 20,
    /* in x, axis? (int32 or int64, one element, may be negative); out y: running sum along axis, ascending.  attrs axis (without
     * the operand), exclusive, reverse.  float32, float64, and integers, which wrap. */
    FRUGAL_OP_CUMSUM = 21,
    /* in x float32, scale float32, zero? (dtype of y); out y, integers of 2, 4, 8 or 16 bits.  attrs axis, block.  scale has one
     * element, or x.dims[axis] (block 0), or the shape of x with ceil(dims[axis]/block).  y = saturate(round_half_even(x / scale)
     * + zero). */
    FRUGAL_OP_QUANTIZE = 22,
    /* in x (integers of 2 to 16 bits, int32, floats of 8 or 4 bits), scale float32, zero? (dtype of x); out y float32.  attrs
       axis, block.  y = (float)(x - zero) * scale. */
    FRUGAL_OP_DEQUANTIZE = 23,
    /* in x; out y int64 with `axis` of length 1: index of the first largest (smallest).  attrs axis, smallest (0, 1), last (0,
       1). */
    FRUGAL_OP_ARG = 24,
    /* Numbers come in blocks, one for each file of operations; a number that names none is FRUGAL_UNSUPPORTED. */

    /* -- 25..31: control flow and shapes known at run time (control.c) -- */
    /* IF .. ELSE .. END and LOOP .. END are blocks of steps, nested.  What a step inside writes can be read inside only, except
     * by MERGE.  A condition has one bool element. */
    /* in condition (not written by a VAR).  No output, no attrs: when it is false the run goes on behind ELSE, or END. */
    FRUGAL_OP_IF = 25,
    FRUGAL_OP_ELSE = 26, /* nothing: the end of the first half */
    /* in condition?; closes an IF (no operand) or a LOOP: back to its first step while turns are left and condition is true. */
    FRUGAL_OP_END = 27,
    /* in condition, a, b; out y = condition ? a : b.  The condition of an IF that stands before; a may be written between it and
     * its ELSE, b between ELSE and END. */
    FRUGAL_OP_MERGE = 28,
    /* in turns? (int32 or int64, one element), condition?; out i int64, one element: the number of the turn from 0.  Without
     * turns at most FRUGAL_MAX_TURNS of all loops of a run. */
    FRUGAL_OP_LOOP = 29,
    /* in x?; out v, a variable: x to begin with, or zeros (along an axis that is its own: nothing).  Only SET changes it. */
    FRUGAL_OP_VAR = 30,
    /* in v (written by a VAR), x, i? (int64, one element); no output.  attrs append.  append 0: v = x.  append 1: x becomes
     * v[i], or, where the first axis of v is its own (SHAPE of v), one more row of v. */
    FRUGAL_OP_SET = 31,

    /* -- 32..39: convolution and pooling (ops_conv.c, ops_pool.c) -- */
    /* Channels last, one to three spatial axes.  Attributes of three windows follow the others, for depth, height and width; axes
     * that x does not have come first, with kernel 1, stride 1, dilation 1, pad 0.  A window: kernel, stride, dilation, pad
     * before (d).  Output position o and tap k meet at input o * stride + k * dilation - pad; transposed: at the i with i *
     * stride + k * dilation - pad = o.  Taps outside of the input are left out. */
    /* in x [n, .., c], w, bias?, residual? [as y]; out y [n, .., e], all float32.  w: F32_P16 [e, taps * c / g], or plain
     * [e, kernel.., c / g]; where g > 1 the packed rows of each group are rounded up to 16, [g * ep, taps * c / g].
     * bias [g * ep], ep = e / g rounded up to 16.
     * v = one fmaf chain over the taps in row-major order, channels of the group innermost; then as LINEAR:
     * y = act(v + bias) * scale + shift + residual, without the middle part when scale is 1 and shift 0.
     * attrs act (a frugal_unary), p, q (its parameters), scale, shift (floats), groups g, form, windows.
     * form: 0, 1 (transposed), or 2 (planar): x is [n, c, ..], g is 1, w is F32_P16, and the channels come before the last axis
     * of the kernel, in w's rows and in the chain: rows of pixels are read where they lie. */
    FRUGAL_OP_CONV = 32,
    /* The same with g = c = e and form 0 or 1; w plain [kernel.., c], bias [c rounded up to 16]. */
    FRUGAL_OP_CONV_DEPTHWISE = 33,
    /* in x [n, .., c]; out y.  attrs kind, and windows with a fifth attribute, pad after (d).
     * kind 0: maximum, of float32, int8 or uint8 (a NaN wins; a window without taps gives the lowest value);
     * float32 only: 1 mean of the taps inside, 2 of those inside or in the padding, 3 sum.  Sums: one chain of additions in
     * row-major order from 0; a mean of nothing is 0. */
    FRUGAL_OP_POOL = 34,
    /* The same for kind 0; out y, and i int64 like y: where the first largest element is in the plain array [n, c, ..].
     * attrs order (0: row-major; 1: the spatial axes count column-major), windows. */
    FRUGAL_OP_MAX_POOL_INDICES = 35,

    /* -- 40..55: moving, sorting, searching, sampling (ops_index.c, ops_spatial.c) -- */
    /* in x, value?; out y, x with y.dims[a] - x.dims[a] elements more along axis a, begin[a] of them in front.  attrs mode (0
     * constant: value, default 0; 1 reflect, the edge not repeated; 2 edge; 3 wrap), begin (d) for every axis. */
    FRUGAL_OP_PAD = 40,
    /* in x, scales? float32 [rank], roi? float32 [2 rank], value? (one element); out y.  attrs mode (0 nearest: any dtype, any
     * axes; 1 linear, 2 cubic: float32, along one axis), transform (0 half_pixel, 1 half_pixel_symmetric, 2 pytorch_half_pixel,
     * 3 align_corners, 4 asymmetric, 5 tf_crop_and_resize, which gives value outside x), rounding (0 round_prefer_floor, 1
     * round_prefer_ceil, 2 floor, 3 ceil, 4: ceil where it shrinks, else floor), exclude_outside, antialias, cubic a (float),
     * axes (mask).  Without scales: y.dims / x.dims.  A sum runs over ascending inputs, each product rounded, then added.  A
     * scale that does not give y.dims is FRUGAL_BAD_INPUT. */
    FRUGAL_OP_RESIZE = 41,
    /* in x, ids (int32 or int64, may be negative); out y.  attrs nd, axis.
     * nd 0: y.dims = ids.dims; y[i..] = x[i.. with ids[i..] in place of the index of axis]; ids no longer than x elsewhere.
     * nd 1: y = ids.dims[:-1] + x.dims[axis + ids.dims[-1]:], a tuple of ids selects a slice; axis: leading axes that x and ids
     * share.  An id outside its axis is FRUGAL_BAD_INPUT. */
    FRUGAL_OP_GATHER_AT = 42,
    /* in x, ids, updates; out y: x, with the updates written at the places that GATHER_AT reads (shape of updates: of its
     * output), one after another in row-major order.  attrs nd, axis, reduction (0 none, 1 add, 2 mul, 3 max, 4 min). */
    FRUGAL_OP_SCATTER_AT = 43,
    /* in x; out values, indices int64, of y.dims[axis] elements along axis: the largest (smallest) in their order, among equals
     * the lower index first; -0 equals 0, and a NaN is larger than everything.  attrs axis, largest. */
    FRUGAL_OP_TOPK = 44,
    /* in x bool; out y int64 [rank of x, n]: the places of the n true elements in row-major order; another number of them is
     * FRUGAL_BAD_INPUT. */
    FRUGAL_OP_NONZERO = 45,
    /* in x; out int64: count [1] of different slices along axis (order and equality of TOPK, slices by their first difference),
     * first, inverse, counts [x.dims[axis]]: of the k-th of them where it stands first, of every slice which of them it is, how
     * often the k-th occurs; 0 behind count.  attrs axis, sorted (0: in the order of their first places). */
    FRUGAL_OP_UNIQUE = 46,
    /* in boxes float32 [b, n, 4], scores float32 [b, c, n], most? int64 (none: 0), iou? float32 (none: 0), least score? float32;
     * out selected int64 [m, 3] (batch, class, box), count int64 [1] of its rows.  attrs center (0: y1 x1 y2 x2 in any order, 1:
     * x y width height).  In each class the best box (among equals the lower index) that overlaps none taken by more than iou. */
    FRUGAL_OP_NMS = 47,
    /* in a, b?, axes?, steps? (int32 or int64; RANGE, SCALE: also float32, float64); out y int64: sizes for late dims.  attrs
     * kind, flag, x.dims (d).  An axis out of range or twice, or what gives no size, is FRUGAL_BAD_INPUT.  Kinds: 0 reshape: a a
     * shape with 0 (flag 0: as x) and -1 -> the shape;  1 slice: starts a, ends b -> start, count, step an axis; 2 unsqueeze:
     * axes a -> the shape;  3 squeeze, or with flag 0 drop: axes a -> the shape;  4 reduce: axes a -> x.dims with them 1 (none
     * given, flag 0: all);  5 pad: pads a -> elements in front, length, first element kept, how many, an axis; 6 range: a, b,
     * axes are start, limit, delta -> count;  7 scale: floor(x.dims * a). */
    FRUGAL_OP_SIZES = 48,
    /* in x float32 [n, c, d..] (1 to 3 axes d), grid float32 [n, o.., axes] (the last axis of x first); out y [n, c, o..].  attrs
     * mode (0 nearest, half to even, 1 linear, 2 cubic with a = -0.75), padding (0 zeros, 1 border, 2 reflection), coords (0: -1
     * and 1 are the outer edges, 1: the centers of the first and last element, 2: indices). */
    FRUGAL_OP_GRID_SAMPLE = 49,
    /* in x float32 [n, c, h, w], rois float32 [r, 4] (x1 y1 x2 y2), batch int64 [r]; out y [r, c, oh, ow].  attrs max, samples
     * (0: by the size of a bin), scale (float), half_pixel.  The mean of bilinear samples; max: of their weighted corners. */
    FRUGAL_OP_ROI_ALIGN = 50,
    /* in x float32 [n, c * blocks, places]; out y [n, c, d..]: the sum of the blocks where they lie, in ascending order of the
     * element of a block.  attrs (d), for every axis: block, dilation, padding in front, behind, stride. */
    FRUGAL_OP_COL2IM = 51,
    /* As CUMSUM: the running product. */
    FRUGAL_OP_CUMPROD = 52,
    /* out y float32.  attrs normal (0: uniform), seed, p, q (float): y = p + q v; v in [0, 1) or of the normal distribution. Four
     * elements are made of the four words of Philox 4x32-10 with the seed as key and their index / 4 as counter: uniform the
     * upper 24 bits of each, normal Box-Muller of words 0, 1 and 2, 3 (cosine first). */
    FRUGAL_OP_RANDOM = 53,

    /* -- 56..63: quantization and data types (ops_quantize.c, ops_types.c) -- */
    /* CAST with attrs saturate (0, 1), mode (FLOAT8E8M0: 0 up, 1 down, 2 to nearest with ties up; else unused).  A float of 8
     * bits rounds to nearest even; beyond its largest: that one with saturate, else inf where it has one, else NaN. */
    FRUGAL_OP_CONVERT = 56,
    /* in x; out y: the bytes of x as another dtype of as many bits. */
    FRUGAL_OP_BIT_CAST = 57,
    /* in x float32, scale float32, zero? (dtype of y); out y, a float of 8 or 4 bits.  attrs axis, block, saturate (0, 1): as
     * QUANTIZE; y = x / scale + zero as CONVERT makes it. */
    FRUGAL_OP_QUANTIZE_FLOAT = 58,
    /* in x float32; out y uint8 of its shape, scale float32 [] or [1], zero uint8 likewise.  low = min(0, x), high = max(0, x),
     * NaN passed over; scale = (high - low) / 255, or 1 where both are 0; zero = round_half_even(limit(-low / scale, 0, 255)); y
     * = saturate(round_half_even(x / scale) + zero). */
    FRUGAL_OP_DYNAMIC_QUANTIZE = 59,
    /* in x int8 or uint8 [.., k], w int8 [p, 1, quads, 16, 4] (panels of 16 rows, p = n / 16 and quads = k / 4 rounded up, padded
     * with zeros), params int32 [p, 4, 16], zero? (of x, its dtype, one element), scale? float32 (of x, one element), bias?
     * float32 [n]; out y int32 or float32 [.., n].  params: for every row (0) the sum of its weights, (1) an int32 to begin with,
     * (2) the float32 scale m, (3) the zero point of its weights.  acc = sum of (x - zero) * (w - wzero) + (1), modulo 2^32;
     * int32: acc;   float32: (float)acc * (scale * m) + bias, each operation rounded. */
    FRUGAL_OP_LINEAR_INTEGER = 60,

    /* -- 64..71: integer convolution and pooling (ops_qconv.c) -- */

    /* Codes are uint8, or int8, which count as uint8 with bit 7 flipped: zero points in attributes are in 0..255 and belong to
     * the unsigned code.  limit(v, a, b) = v > a ? (v < b ? v : b) : a.  low and high: codes between which a result is kept (so
     * that Relu costs nothing).
     *
     * in x codes [n, h, w, c], weights int8 [g p, runs, quads, 16, 4], params int32 [g p, 4, 16], transformed?; out y [n, oh, ow,
     * oc] codes, int32 or float32.  attrs g, kh, kw, stride h, stride w, dilation h, dilation w, spread h, spread w, top (d),
     * left (d), zero of x, zero of y, low, high. A convolution in g groups; p = oc / g rounded up to panels of 16.  x is spread
     * (spread - 1 pixels of zero points between its own) and surrounded by as many zero points as it takes, top and left of them
     * before it.  A run is what lies side by side of the kernel: kh runs of kw c/g codes, or, where dilation w is not 1, kh kw
     * runs of c/g; quads = a run / 4 rounded up, padded with zero weights.  params: for every channel (0) the bias less the zero
     * of x times the sum of its weights, (1) the same with the zero less 128, (2) the float32 multiplier m, (3) a zero point of
     * the weights. acc = sum of (code - zero of x) * (w - wzero) + bias;   codes: y = limit(acc * m, low - zero, high - zero)
     * rounded half to even, plus zero; float32: acc * m;   int32: acc.      Exact while |acc| < 2^31, else modulo 2^32.
     * transformed: int16 [36, p, c/2, 16, 2], the same weights for Winograd's F(4 x 4, 3 x 3), which some instruction sets use
     * for the same result: G w G^T at place 6 i + j, G = (6 0 0; -4 -4 -4; -4 4 -4; 1 2 4; 1 -2 4; 0 0 12).  Only of a 3 x 3
     * kernel that moves by one in one group, without dilation and spread, c a multiple of 16, the weights of a channel at most
     * 131585 in absolute sum. */
    FRUGAL_OP_QCONV = 64,
    /* The same with one kernel a channel: in x [n, h, w, c], weights int8 [p, quads, 16, 4], params [p, 4, 16]; out y codes [n,
     * oh, ow, oc], oc = c times a multiplier, p = oc / 16 rounded up; channel o reads channel o / multiplier.  attrs as above, g
     * = c. A quad is four taps: rows 4 i .. 4 i + 3 of a column, column by column (kh >= kw), or columns of a row, row by row. */
    FRUGAL_OP_QDEPTH = 65,
    /* in a, b codes; out y codes of the numpy-broadcast shape.  attrs kind (0 add, 1 multiply), zero of a, of b, of y, low, high,
     * ma, mb (float).  add: t = (a - za) * ma + (b - zb) * mb, each operation rounded;  multiply: t = (float)((a - za) * (b -
     * zb))
     * * ma;  y = limit(t, low - zero, high - zero) rounded half to even, plus zero. */
    FRUGAL_OP_QBINARY = 66,
    /* in x codes [n, h, w, c]; out y codes [n, oh, ow, c].  attrs kind (0 mean of the pixels inside x, 1 mean with the padding, 2
     * maximum), kh, kw, stride h, stride w, dilation h, dilation w, top (d), left (d), zero of x, zero of y, m (float).  kh or kw
     * 0: all of h or w.  mean: y = limit((float)(sum of (code - zero of x)) * (m / count), -zero, 255 - zero) rounded half to
     * even, plus zero; maximum: of the codes (then the zeros do not matter).  A window without a pixel gives the zero of y. */
    FRUGAL_OP_QPOOL = 67,
    /* in x codes, table [256] of any dtype; out y of the table's dtype: table[unsigned code of x]. */
    FRUGAL_OP_QLOOKUP = 68,
    /* in x codes, table float32 [256] (table[d] = exp(-d scale of x)); out y codes.  attrs axis, zero of y, m (float: 1 / scale
     * of y).  e = table[max - x]; y = limit(e / sum of e * m, -zero, 255 - zero) rounded half to even, plus zero; the sum
     * ascending. */
    FRUGAL_OP_QSOFTMAX = 69,
    /* The convolution of ConvInteger with everything known only at run time: in x codes [n, c, h, w], w codes [oc, c/g, kh, kw],
     * x_zero? (dtype of x, one element), w_zero? (dtype of w, one element or [oc]); out y int32 [n, oc, oh, ow].  attrs g, stride
     * h, stride w, dilation h, dilation w, top (d), left (d).  Zero points as they are, padding is the zero point. */
    FRUGAL_OP_CONV_INTEGER = 70,
    /* in x float32; out y codes of the same shape or, with last 1, of x [n, c, ..] as [n, .., c].  attrs last, zero of y, scale
     * (float).  y = limit(x / scale, -zero, 255 - zero) rounded half to even, plus zero. */
    FRUGAL_OP_QCODES = 71,

    /* -- 72..79: recurrences and transforms (ops_recurrent.c, ops_signal.c) -- */
    /* in x float32 [t, b, d g s], r F32_P16 [d g hp, h] or float32 [d, g h, h], bias? [d hp] (of the last gate of a GRU, for
     * the recurrent product), h? [d, b, h], c? [d, b, h], peepholes? [d, 3 h] (i, o, f), lens? int32 [b], each 0 to t;
     * out y_h [d, b, h], y [t, d, b, h] or empty when nobody reads it, y_c as y_h (LSTM) or empty.
     * hp: h rounded up to 16; s: h or hp; g gates in ONNX's order: RNN 1, GRU z r h, LSTM i o f c.  x holds the products with
     * the input weights and all biases but that of `bias`.
     * attrs cell (0 RNN, 1 GRU, 2 LSTM), direction (0 forward, 1 reverse, 2 both: d = 2), batch_first (0 or 1: x [b, t, ..],
     * y [b, t, d, h], states [b, d, h]), after (0 or 1: GRU resets behind the product), coupled (0 or 1: LSTM f = 1 - i), clip
     * (float above 0, inf for none; of what goes into the activation of a gate, not of c), 6 times: function (a frugal_unary or
     * frugal_cell), p, q. v = product of h (one fmaf chain) (+ bias) + x; further sums and products rounded one by one, in the
     * order of ONNX's equations.  y is 0 behind a row's length, its last state is the one at its length. */
    FRUGAL_OP_RECURRENT = 72,
    /* in x float32 or float64 [.., 1 or 2] (real, or real and imaginary parts), table? float64 [length, 2] of cos and sin of
     * 2 pi i / length (read when no prime factor is above 61); out y of x's dtype [.., 2].  The Fourier transform along `axis`
     * of as many numbers, or of those there are and zeros; inverse: divided by length; onesided: y has length / 2 + 1 numbers
     * or, inverse too, x has them, mirrored, and y is real [.., 1].  attrs axis (d), length (d), inverse, onesided. */
    FRUGAL_OP_DFT = 73,
    /* in signal [b, n, 1 or 2], window? [length], table? as in DFT; out y [b, frames, length or length / 2 + 1 (onesided), 2]:
     * transforms of window * signal[frame * step + ..].  attrs step (d), length (d), onesided. */
    FRUGAL_OP_STFT = 74,
    /* no input; out y float32 or float64 [n]: y[i] = p + q cos(2 pi i / m) + r cos(4 pi i / m), m = n (periodic) or n - 1.
     * attrs periodic, p, q, r (floats). */
    FRUGAL_OP_WINDOW = 75,
    /* in bands, length, rate (int32 or int64), low, high (float32 or float64), one element each; out y float32 or float64
     * [length / 2 + 1, bands]: ONNX's MelWeightMatrix.  No attrs. */
    FRUGAL_OP_MEL = 76,

    /* -- 80..87: attention and its caches (ops_attention.c) -- */
    /* in q, k, v, mask?, lengths? (int64 [b]), sinks? (float32 [h]); out y; each of q, k, v, y is [b, tokens, heads * size] or
     * [b, heads, tokens, size], all but the mask and the lengths float32.  attrs heads h, kv_heads g, scale (float), softcap
     * (float, 0: none), offset (d), left, right (each -1: no bound), short_mask (0 or 1). Query i stands at p = i + offset or,
     * with lengths, at p = i + lengths[b] - s, and sees the keys j with p - left <= j <= p + right, j < lengths[b]; causal is
     * right = 0.  The mask is as in ATTENTION, but with short_mask its last axis may be shorter than t (1 is then a length too),
     * and hides what it does not cover.  A row that sees no key gives 0.  A sink is one more score of each row of its head, whose
     * weight goes nowhere.  A length outside [0, t] is FRUGAL_BAD_INPUT. */
    FRUGAL_OP_ATTENTION_CACHE = 80,
    /* in past, update, places? (int64 [b]); out y of past's shape and data type (any): past with update written along axis (1 or
     * more) from places[b] on, or from 0.  attrs axis, circular (0, 1: past the end it goes on at 0).  update has past's shape
     * but for the axis, which may be shorter.  A place below 0, or not circular and beyond the end, is FRUGAL_BAD_INPUT.  y may
     * be bound to the memory of past; then only the update is copied. */
    FRUGAL_OP_TENSOR_SCATTER = 81,
    /* in x [b, s, h * d] or [b, h, s, d], cos, sin [positions, r], ids int64 [b, s], or cos, sin [b, s, r] without ids; out y as
     * x, all float32.  attrs heads h (for three axes), interleaved (0, 1).  Of each head the pairs (x[i], x[i + r]) or (x[2 i],
     * x[2 i + 1]), i < r, become (cos x1 - sin x2, sin x1 + cos x2), each operation rounded; the rest of d is copied.  An id
     * outside the tables is FRUGAL_BAD_INPUT. */
    FRUGAL_OP_ROTARY = 82,
    /* in q [b, t, h * dk], k [b, t, g * dk], v [b, t, g * dv], past? [b, g, dk, dv], decay? [b, t, g or g * dk], beta? [b, t, g
     * or 1]; out y [b, t, h * dv], state [b, g, dk, dv], all float32.  attrs heads h, kv_heads g, scale (float).  For each token:
     * state *= exp(decay) for each row; v = beta (v - sum over dk of k state), with beta; state += k v; y = scale * (sum over dk
     * of q state).  Sums ascend from 0, products are rounded.  state may be bound to the memory of past. */
    FRUGAL_OP_LINEAR_ATTENTION = 83,
    /* in x [b, c, l], w [c, k], bias? [c], past? [b, c, k - 1]; out y [b, c, l], state [b, c, k - 1], all float32.  attrs act
     * (FRUGAL_U_COPY or SILU).  z = past (or zeros) followed by x; y[i] = act(sum over j of w[j] z[i + j], ascending from 0, +
     * bias); state: the last k - 1 of z.  state may be bound to the memory of past. */
    FRUGAL_OP_CAUSAL_CONV = 84,
    /* in x [.., n, n] float32 or float64; out y [..]: determinants, by elimination with column pivots in float64. */
    FRUGAL_OP_DET = 85,

    /* -- 88..91: caches of a type of their own (ops_cache.c, ops_attention.c) -- */
    /* in past, x float32, places? int64 [b], scale? float32, cos?, sin?, ids? int64 [b, s]; out y of past's shape and type,
     * y_scale. past: float32, float16 or int8 [b, m, g * d], with int8 its scale [b, m, g], or [b, g, m, d], scale [b, g, m]; x
     * [b, s, g * d] or [b, g, s, d]; y_scale as scale, or empty.  attrs heads g, circular (0, 1), interleaved (0, 1). past with
     * the s <= m tokens of x, rotated as in ROTARY where there are tables, at the slots from places[b] (or 0) on; circular: slot
     * modulo m, and a place may be anything from 0 to FRUGAL_MAX_DIM.  float16: rounded to nearest even.  int8: codes and scale
     * of each head and token as A8_TOKEN.  y may be bound to the memory of past, y_scale to that of scale. */
    FRUGAL_OP_CACHE_APPEND = 88,
    /* ATTENTION_CACHE over keys and values that are float32, float16 or int8: in q, k, v, mask?, lengths?, sinks?, k_scale?,
     * v_scale? (as in CACHE_APPEND; with int8 only), slopes? (float32 [h]); out y.  attrs as ATTENTION_CACHE, then ring (0, 1).
     * k and v have the same number of axes.  With slopes, slope * (position of the key - position of the query) is added to a
     * score (ALiBi; rounded twice), after the softcap and before the mask.
     * ring: t slots hold the last t of lengths[b] positions, position p in slot p mod t; lengths may be anything from 0 to
     * FRUGAL_MAX_DIM; there is no mask.  The keys' order, for sums, is that of the slots.
     * int8: a query is quantized as A8_TOKEN; score = (float)(dot of codes) * ((scale of q * scale) * k_scale).  In a block, of
     * w = exp(score - m) the products u = w v_scale are rounded to p = rintf(u (32512 / max |u|)), and o = (float)(sum of p times
     * codes) * (max |u| / 32512). */
    FRUGAL_OP_ATTENTION_KEPT = 89,

    /* -- 92..95: convolutions in other forms (ops_winograd.c) -- */
    /* in x [n, h, w, c], u [36, p, c, 16], bias? [16 p], residual? [as y]; out y [n, oh, ow, e], all float32, p = e / 16 rounded
     * up.  attrs act, p, q, scale, shift, pad before in height (d), in width (d).
     * A 3 x 3 convolution that moves by one, by Winograd's F(4 x 4, 3 x 3): tiles of 4 x 4 pixels from the first of y on; u holds
     * G w G^T at place 6 i + j, G = (1/4 0 0; -1/6 -1/6 -1/6; -1/6 1/6 -1/6; 1/24 1/12 1/6; 1/24 -1/12 1/6; 0 0 1).  A tile's
     * 6 x 6 pixels are transformed (wino_in of isa.h), the product with u at each place is one fmaf chain over the channels, and
     * its output pixels are transformed from the 36 (wino_out); then as CONV. */
    FRUGAL_OP_CONV_WINOGRAD = 92,

    /* -- 96..99: text (ops_data.c, ops_linear.c) -- */
    /* in table [v, k] in W8_P16, W4_P16, W4O_P16 or W8B_P16, scale? float32 [vp] (W8_P16 only), ids (int32 or int64, negative:
     * from the end); out y float32 ids.dims + [k]: rows of a linear's weights.  (float)(code - zero) * scale, in W4O_P16 +
     * offset, each operation rounded.  No attrs. */
    FRUGAL_OP_GATHER_PACKED = 96,
    FRUGAL_OP_COUNT = 100
};
#endif
