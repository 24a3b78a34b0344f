/* table.h - the functions of an instruction set's table that every file defines under the same names. */
#ifndef FRUGAL_TABLE_H
#define FRUGAL_TABLE_H
#define FR_FUNCTIONS                                                                                                             \
    .scratch_bytes = scratch_bytes, .gemm_f32 = gemm_f32, .gemm_half = gemm_half, .conv_f32 = conv_f32,                          \
    .conv_depthwise = conv_depthwise, .wino_in = wino_in, .wino_out = wino_out, .gemm_w8 = gemm_w8, .gemm_w4 = gemm_w4,          \
    .gemm_w4o = gemm_w4o, .gemm_w8b = gemm_w8b, .quantize = quantize, .quantize_static = quantize_static,                        \
    .layer_norm = layer_norm, .rms_norm = rms_norm, .softmax = softmax, .unary = unary, .scale = scale, .rows = FR_ROWS,         \
    .qconv = qconv, .qdepth = qdepth, .qadd = qadd, .softmax_top = softmax_top, .pack_rows = pack_rows, .widen = widen,          \
    .qk8 = qk8, .weights8 = weights8, .pv8 = pv8
#endif
