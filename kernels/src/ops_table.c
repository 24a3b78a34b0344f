/* ops_table.c - every operation of enum frugal_op in one table; adding an operation is a row here and a file's functions. */
#include "ops.h"

#define IN(min, max, out) .in_min = (min), .in_max = (max), .n_out = (out)
#define DO(name) .check = fr_##name##_check, .run = fr_##name##_run

const fr_op fr_ops[FRUGAL_OP_COUNT] = {
    [FRUGAL_OP_UNARY] = {.name = "unary", IN(1, 1, 1), .required = 1, .attrs = "uff", DO(unary)},
    [FRUGAL_OP_BINARY] = {.name = "binary", IN(2, 2, 1), .required = 3, .attrs = "b", DO(binary)},
    [FRUGAL_OP_WHERE] = {.name = "where", IN(3, 3, 1), .required = 7, .attrs = "", DO(where)},
    [FRUGAL_OP_CAST] = {.name = "cast", IN(1, 1, 1), .required = 1, .attrs = "", DO(cast)},
    [FRUGAL_OP_TRANSPOSE] = {.name = "transpose", IN(1, 1, 1), .required = 1, .attrs = "a*", DO(transpose)},
    [FRUGAL_OP_EXPAND] = {.name = "expand", IN(1, 1, 1), .required = 1, .attrs = "", DO(expand)},
    [FRUGAL_OP_SLICE] = {.name = "slice", IN(1, 1, 1), .required = 1, .attrs = "ds*", DO(slice)},
    [FRUGAL_OP_CONCAT] = {.name = "concat", IN(1, 255, 1), .attrs = "a", DO(concat)},
    [FRUGAL_OP_GATHER] = {.name = "gather", IN(2, 2, 1), .required = 3, .attrs = "a", DO(gather)},
    [FRUGAL_OP_GATHER_DEQUANTIZE] = {.name = "gather_dequantize", IN(3, 3, 1), .required = 7, .attrs = "", DO(gather_dequantize)},
    [FRUGAL_OP_RANGE] = {.name = "range", IN(0, 0, 1), .attrs = "di", DO(range)},
    [FRUGAL_OP_DIMS] = {.name = "dims", IN(0, 0, 1), .attrs = "d*", DO(dims)},
    [FRUGAL_OP_FILL] = {.name = "fill", IN(1, 1, 1), .required = 1, .attrs = "", DO(fill)},
    [FRUGAL_OP_REDUCE] =
        {.name = "reduce", IN(1, 1, 1), .required = 1, .attrs = "rm", DO(reduce), .operations = fr_reduce_operations},
    [FRUGAL_OP_SOFTMAX] =
        {.name = "softmax", IN(1, 1, 1), .required = 1, .attrs = "at", DO(softmax), .scratch = fr_softmax_scratch},
    [FRUGAL_OP_LAYER_NORM] = {.name = "layer_norm", IN(3, 4, 1), .required = 5, .attrs = "f", DO(layer_norm)},
    [FRUGAL_OP_RMS_NORM] = {.name = "rms_norm", IN(3, 3, 1), .required = 5, .attrs = "f", DO(rms_norm)},
    [FRUGAL_OP_QUANTIZE_ACT] = {.name = "quantize_act", IN(1, 2, 1), .required = 1, .attrs = "", DO(quantize_act)},
    [FRUGAL_OP_LINEAR] = {.name = "linear",
                          IN(2, 5, 1),
                          .required = 3,
                          .attrs = "u",
                          DO(linear),
                          .scratch = fr_linear_scratch,
                          .operations = fr_linear_operations},
    [FRUGAL_OP_MATMUL] = {.name = "matmul",
                          IN(2, 2, 1),
                          .required = 3,
                          .attrs = "tf",
                          DO(matmul),
                          .scratch = fr_matmul_scratch,
                          .operations = fr_matmul_operations},
    [FRUGAL_OP_ATTENTION] = {.name = "attention",
                             IN(1, 4, 1),
                             .required = 1,
                             .attrs = "nnfcft",
                             DO(attention),
                             .scratch = fr_attention_scratch,
                             .operations = fr_attention_operations},
    [FRUGAL_OP_CUMSUM] = {.name = "cumsum", IN(1, 1, 1), .required = 1, .attrs = "att", DO(cumsum)},
    [FRUGAL_OP_QUANTIZE] = {.name = "quantize", IN(2, 3, 1), .required = 3, .attrs = "an", DO(quantize)},
    [FRUGAL_OP_DEQUANTIZE] = {.name = "dequantize", IN(2, 3, 1), .required = 3, .attrs = "an", DO(dequantize)},
    [FRUGAL_OP_ARG] = {.name = "arg", IN(1, 1, 1), .required = 1, .attrs = "att", DO(arg), .operations = fr_reduce_operations},
    /* -- control flow and shapes known at run time -- */
    [FRUGAL_OP_IF] = {.name = "if", IN(1, 1, 0), .required = 1, .attrs = "", DO(control)},
    [FRUGAL_OP_ELSE] = {.name = "else", IN(0, 0, 0), .attrs = "", DO(control)},
    [FRUGAL_OP_END] = {.name = "end", IN(0, 1, 0), .attrs = "", DO(control)},
    [FRUGAL_OP_MERGE] = {.name = "merge", IN(3, 3, 1), .required = 7, .attrs = "", DO(merge)},
    [FRUGAL_OP_LOOP] = {.name = "loop", IN(0, 2, 1), .attrs = "", DO(control)},
    [FRUGAL_OP_VAR] = {.name = "var", IN(0, 1, 1), .attrs = "", DO(var)},
    [FRUGAL_OP_SET] = {.name = "set", IN(2, 3, 0), .required = 3, .attrs = "t", DO(set)},

    /* -- convolution and pooling -- */

    /* -- moving, sorting, searching, sampling -- */
    [FRUGAL_OP_PAD] = {.name = "pad", IN(1, 2, 1), .required = 1, .attrs = "d*", DO(pad), .scratch = fr_pad_scratch},
    [FRUGAL_OP_RESIZE] =
        {.name = "resize", IN(1, 4, 1), .required = 1, .attrs = "cnnttfm", DO(resize), .scratch = fr_resize_scratch},
    [FRUGAL_OP_GATHER_AT] = {.name = "gather_at", IN(2, 2, 1), .required = 3, .attrs = "ta", DO(gather_at)},
    [FRUGAL_OP_SCATTER_AT] = {.name = "scatter_at", IN(3, 3, 1), .required = 7, .attrs = "tan", DO(scatter_at)},
    [FRUGAL_OP_TOPK] = {.name = "topk",
                        IN(1, 1, 2),
                        .required = 1,
                        .attrs = "at",
                        DO(topk),
                        .scratch = fr_topk_scratch,
                        .operations = fr_topk_operations},

    /* -- quantization and data types -- */
    [FRUGAL_OP_CONVERT] = {.name = "convert", IN(1, 1, 1), .required = 1, .attrs = "tc", DO(convert)},
    [FRUGAL_OP_BIT_CAST] = {.name = "bit_cast", IN(1, 1, 1), .required = 1, .attrs = "", DO(bit_cast)},

    /* -- integer convolution and pooling -- */

    /* -- recurrences and transforms -- */
    [FRUGAL_OP_RECURRENT] = {.name = "recurrent",
                             IN(2, 7, 3),
                             .required = 3,
                             .attrs = "cctttfnffnffnffnffnffnff",
                             DO(recurrent),
                             .scratch = fr_recurrent_scratch,
                             .operations = fr_recurrent_operations},
    [FRUGAL_OP_DFT] = {.name = "dft", IN(1, 2, 1), .required = 1, .attrs = "ddtt", DO(dft), .scratch = fr_dft_scratch},
    [FRUGAL_OP_STFT] = {.name = "stft", IN(1, 3, 1), .required = 1, .attrs = "ddt", DO(stft), .scratch = fr_stft_scratch},
    [FRUGAL_OP_WINDOW] = {.name = "window", IN(0, 0, 1), .attrs = "tfff", DO(window)},
    [FRUGAL_OP_MEL] = {.name = "mel", IN(5, 5, 1), .required = 31, .attrs = "", DO(mel)},

    /* -- attention and its caches -- */
    [FRUGAL_OP_ATTENTION_CACHE] = {.name = "attention_cache",
                                   IN(3, 5, 1),
                                   .required = 7,
                                   .attrs = "nnffdiit",
                                   DO(attention_cache),
                                   .scratch = fr_attention_cache_scratch,
                                   .operations = fr_attention_cache_operations},
    [FRUGAL_OP_TENSOR_SCATTER] = {.name = "tensor_scatter", IN(2, 3, 1), .required = 3, .attrs = "at", DO(tensor_scatter)},
    [FRUGAL_OP_ROTARY] = {.name = "rotary", IN(3, 4, 1), .required = 7, .attrs = "nt", DO(rotary)},
    [FRUGAL_OP_LINEAR_ATTENTION] = {.name = "linear_attention",
                                    IN(3, 6, 2),
                                    .required = 7,
                                    .attrs = "nnf",
                                    DO(linear_attention),
                                    .scratch = fr_linear_attention_scratch,
                                    .operations = fr_linear_attention_operations},
    [FRUGAL_OP_CAUSAL_CONV] = {.name = "causal_conv",
                               IN(2, 4, 2),
                               .required = 3,
                               .attrs = "u",
                               DO(causal_conv),
                               .operations = fr_causal_conv_operations},
    [FRUGAL_OP_DET] = {.name = "det", IN(1, 1, 1), .required = 1, .attrs = "", DO(det), .scratch = fr_det_scratch},
};
