"""Quantization as the models spell it: QuantizeLinear and its like, and products of 8-bit integers."""

from __future__ import annotations

import numpy as np

from . import dims
from .dims import Dim
from .ir import FROM_NUMPY, NARROW, SMALL_FLOATS, SMALL_INTS, Binary, DType, Op, Quantized, Tensor, Unary, elements
from .lower import MICROSOFT, Node, op, show, type_name
from .math_ops import binary, unary
from .nn_ops import product
from .qconv_ops import qlinear_pair
from .qpack import panels_of
from .types_ops import bits, cast_to

CODES = {DType.INT8, DType.UINT8, DType.INT16, DType.UINT16, *SMALL_INTS}
BYTES = (DType.INT8, DType.UINT8)


# ---- QuantizeLinear, DequantizeLinear ----
def quantize(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None, dtype: int, axis: int = 0, block: int = 0) -> Tensor:
    """x / scale in float32, rounded, plus zero, as a type of CODES; or as a float of 8 or 4 bits."""
    x, scale = (cast_to(node, t, DType.FLOAT) for t in (x, scale))
    zero = None if zero is None else node.alias(zero, scale.shape)
    if dtype in SMALL_FLOATS:
        return node.emit(Op.QUANTIZE_FLOAT, [x, scale, zero], dtype, x.shape, axis, block, int(bool(node.attr("saturate", 1))))
    return node.emit(Op.QUANTIZE, [x, scale, zero], dtype, x.shape, axis, block)


@op("QuantizeLinear")
@op("QuantizeLinear", domain=MICROSOFT)
def quantize_linear(node: Node) -> Tensor:
    x, scale, zero = node.get(0), node.get(1), node.optional(2)
    dtype = zero.dtype if zero is not None else (node.attr("output_dtype", 0) or DType.UINT8)
    if dtype not in CODES and (dtype not in SMALL_FLOATS or dtype == DType.FLOAT8E8M0):
        raise node.unsupported(f"quantization to {type_name(dtype)}")
    axis, block = quantized_axis(node, x, scale)
    precision = node.attr("precision", 0)
    if precision in (0, DType.FLOAT):
        return quantize(node, x, scale, zero, dtype, axis, block)
    if block:
        raise node.unsupported(f"blocks divided in {type_name(precision)}")
    place = [d if i == axis else 1 for i, d in enumerate(x.shape)] if elements(scale.shape) != 1 else []
    divided = quotient(node, x, node.alias(scale, place), precision)
    return quantize(node, divided, ones(node, scale.shape), zero, dtype, axis, block)


def quotient(node: Node, x: Tensor, scale: Tensor, precision: int) -> Tensor:
    """x / scale rounded to a data type of floats."""
    inside = DType.DOUBLE if precision == DType.DOUBLE else DType.FLOAT
    made = binary(node, Binary.DIV, *(cast_to(node, cast_to(node, t, precision), inside) for t in (x, scale)))
    return cast_to(node, cast_to(node, made, precision), DType.FLOAT)


def ones(node: Node, shape: tuple[Dim, ...]) -> Tensor:
    if all(isinstance(d, int) for d in shape):
        return node.constant(np.ones([int(d) for d in shape if isinstance(d, int)], np.float32))
    return node.emit(Op.FILL, [node.constant(np.ones(1, np.float32))], DType.FLOAT, shape)


@op("DequantizeLinear")
@op("DequantizeLinear", domain=MICROSOFT)
def dequantize_linear(node: Node) -> Tensor:
    x, scale, zero = node.get(0), node.get(1), node.optional(2)
    if x.dtype not in CODES and x.dtype not in SMALL_FLOATS and x.dtype != DType.INT32:
        raise node.unsupported(f"dequantization of {type_name(x.dtype)}")
    kind = node.attr("output_dtype", 0) or (scale.dtype if scale.dtype in NARROW else DType.FLOAT)
    if kind != DType.FLOAT and kind not in NARROW:
        raise node.unsupported(f"dequantization to {type_name(kind)}")
    axis, block = quantized_axis(node, x, scale)
    scale = cast_to(node, scale, DType.FLOAT)
    zero = None if zero is None else node.alias(zero, scale.shape)
    if x.const is not None and scale.const is not None and (zero is None or zero.const is not None):
        return known_value(node, x, scale.const, None if zero is None else zero.const, axis, block, kind)
    made = node.emit(Op.DEQUANTIZE, [x, scale, zero], DType.FLOAT, x.shape, axis, block)
    if x.dtype in (DType.INT16, DType.UINT16):
        node.lowering.keep_float.add(made)  # 8 bits, which activations of integer weights have, would lose what 16 hold
    return node.lowering.narrowed(made, kind if kind in NARROW else None, node)


def known_value(node: Node, x: Tensor, scale: np.ndarray, zero: np.ndarray | None, axis: int, block: int, kind: int) -> Tensor:
    """A dequantized constant, which keeps its codes; of float codes its float32."""
    assert x.const is not None
    result = node.tensor(kind, x.shape, x.name)
    if x.dtype in SMALL_FLOATS:
        form = Quantized(x.const, scale, zero, axis, block, 8)
        values = x.const.astype(np.float32)
        values = values if zero is None else values - form.spread(zero.astype(np.float32))
        wide = (values * form.spread(scale)).astype(np.float32)
        return node.lowering.narrowed(node.constant(wide), kind if kind in NARROW else None, node)
    codes, zeros = plain(x.const), None if zero is None else plain(zero)
    zeros = None if zeros is None or not zeros.any() else zeros
    result.quant = Quantized(codes, scale, zeros, axis, block, bits(x.dtype))
    return result


def plain(codes: np.ndarray) -> np.ndarray:
    """Integers of 4 and 2 bits as int8 or uint8."""
    dtype = FROM_NUMPY[codes.dtype]
    return codes.astype(np.int8 if dtype in (DType.INT4, DType.INT2) else np.uint8) if dtype in SMALL_INTS else codes


def quantized_axis(node: Node, x: Tensor, scale: Tensor) -> tuple[int, int]:
    """(axis, block) with the scale's shape checked; block 0: one scale an index of the axis."""
    block = node.attr("block_size", 0)
    if elements(scale.shape) == 1 and not block:
        return 0, 0
    axis = node.axis(node.attr("axis", 1), x.rank)
    if block:
        want = [dims.ceildiv(d, block) if i == axis else d for i, d in enumerate(x.shape)]
        fixed = all(isinstance(d, int) for d in (*want, *scale.shape))
        if scale.rank != x.rank or (fixed and tuple(want) != scale.shape):
            raise node.fail(f"scale {show(scale.shape)} does not fit {show(x.shape)} in blocks of {block} along axis {axis}")
    elif scale.rank != 1 or (
        isinstance(x.shape[axis], int) and isinstance(scale.shape[0], int) and scale.shape[0] != x.shape[axis]
    ):
        raise node.fail(f"scale {show(scale.shape)} does not fit axis {axis} of {show(x.shape)}")
    return axis, block


@op("DynamicQuantizeLinear")
def dynamic_quantize_linear(node: Node) -> list[Tensor]:
    return dynamic_codes(node, node.get(0))


def dynamic_codes(node: Node, x: Tensor) -> list[Tensor]:
    """uint8 codes of x, their scale and their zero point, as the data asks for."""
    node.floats(x)
    outputs = [node.tensor(DType.UINT8, x.shape), node.tensor(DType.FLOAT, ()), node.tensor(DType.UINT8, ())]
    node.emit_all(Op.DYNAMIC_QUANTIZE, [x], outputs, [])
    return outputs


# ---- products of codes ----
def integer_product(node: Node, a: Tensor, b: Tensor, a_zero: Tensor | None, b_zero: Tensor | None) -> Tensor:
    """(a - a_zero)(b - b_zero) in int32 by the rules of MatMul; zero points of all, of a's rows, or of b's columns."""
    if a.dtype not in BYTES or b.dtype not in BYTES:
        raise node.unsupported(f"a product of {type_name(a.dtype)} and {type_name(b.dtype)}")
    if is_panels(a, b, a_zero, b_zero):
        return linear_integer(node, a, b, a_zero, b_zero)
    left, right = (node.emit(Op.CAST, [t], DType.INT32, t.shape) for t in (a, b))
    if a_zero is not None:
        left = binary(node, Binary.SUB, left, cast_to(node, of_rows(node, a_zero, a), DType.INT32))
    if b_zero is not None:
        right = binary(node, Binary.SUB, right, cast_to(node, b_zero, DType.INT32))
    return product(node, left, right)


def of_rows(node: Node, values: Tensor, a: Tensor) -> Tensor:
    """One value a row of a [.., m, k], so that it broadcasts."""
    return node.alias(values, (*values.shape, 1)) if values.rank == 1 and elements(values.shape) != 1 and a.rank > 1 else values


def is_panels(a: Tensor, b: Tensor, a_zero: Tensor | None, b_zero: Tensor | None) -> bool:
    """Whether LINEAR_INTEGER takes them: a constant matrix, one zero point of a."""
    if b.const is None or b.rank != 2 or a.rank < 2 or a.const is not None or not b.const.size:
        return False
    if a_zero is not None and (elements(a_zero.shape) != 1 or a_zero.dtype != a.dtype):
        return False
    return b_zero is None or (b_zero.const is not None and b_zero.const.size in (1, b.const.shape[1]))


def linear_integer(
    node: Node,
    x: Tensor,
    w: Tensor,
    x_zero: Tensor | None,
    w_zero: Tensor | None,
    *,
    scales: tuple[Tensor, np.ndarray] | None = None,
    bias: Tensor | None = None,
    start: np.ndarray | None = None,
) -> Tensor:
    """x [.., k] times a constant w [k, n] of codes: int32, or float32 with the scale of x and the scales of w.

    start: int32 [n] that the sums begin with; bias: float32 [n].
    """
    assert w.const is not None
    k, n = w.const.shape
    if isinstance(x.shape[-1], int) and x.shape[-1] != k:
        raise node.fail(f"inner dimensions differ: {show(x.shape)} and {show(w.shape)}")
    zeros = np.zeros(n, np.int32) if w_zero is None or w_zero.const is None else w_zero.const.reshape(-1).astype(np.int32)
    codes = w.const.T
    if codes.dtype == np.uint8:
        codes, zeros = (codes ^ 0x80).view(np.int8), zeros - 128
    rows = np.zeros((n, 4), np.int32)
    rows[:, 0] = codes.astype(np.int32).sum(1)
    rows[:, 1] = 0 if start is None else start
    rows[:, 2] = (np.ones(n, np.float32) if scales is None else np.broadcast_to(scales[1].reshape(-1), (n,))).view(np.int32)
    rows[:, 3] = zeros
    padded = np.zeros((n, -(-k // 4) * 4), np.int8)
    padded[:, :k] = codes
    panels = panels_of(padded, 1).reshape(-1, 16, 1, padded.shape[1] // 4, 4).transpose(0, 2, 3, 1, 4)
    params = panels_of(rows, 1).transpose(0, 2, 1)
    operands = [x, node.constant(np.ascontiguousarray(panels)), node.constant(np.ascontiguousarray(params)), x_zero]
    if scales is not None:
        operands += [scales[0], bias]
    return node.emit(Op.LINEAR_INTEGER, operands, DType.INT32 if scales is None else DType.FLOAT, (*x.shape[:-1], n))


@op("MatMulInteger")
def matmul_integer(node: Node) -> Tensor:
    return integer_product(node, node.get(0), node.get(1), node.optional(2), node.optional(3))


@op("QLinearMatMul")
@op("QLinearMatMul", domain=MICROSOFT)
def qlinear_matmul(node: Node) -> Tensor:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (node.get(i) for i in range(8))
    total = cast_to(node, integer_product(node, a, b, a_zero, b_zero), DType.FLOAT)
    a_scale, b_scale, y_scale = (cast_to(node, t, DType.FLOAT) for t in (a_scale, b_scale, y_scale))
    factor = binary(node, Binary.MUL, of_rows(node, a_scale, a), b_scale)
    scaled = binary(node, Binary.MUL, total, binary(node, Binary.DIV, factor, of_rows(node, y_scale, a)))
    axis = 0 if elements(y_zero.shape) == 1 else max(total.rank - 2, 0)
    return quantize(node, scaled, ones(node, y_zero.shape), y_zero, y_zero.dtype, axis)


def float_product(
    node: Node,
    a: Tensor,
    b: Tensor,
    scales: tuple[Tensor, Tensor],
    zeros: tuple[Tensor | None, Tensor | None],
    bias: Tensor | None,
) -> Tensor:
    """A product of codes in float32: its int32 times (scale of a * scale of b), plus a bias."""
    a_scale, b_scale = scales
    simple = (
        is_panels(a, b, *zeros) and elements(a_scale.shape) == 1 and b_scale.const is not None and b_scale.dtype == DType.FLOAT
    )
    if simple and b.const is not None and b_scale.const is not None and b_scale.const.size in (1, b.const.shape[1]):
        fits = bias is None or (bias.rank == 1 and bias.shape[0] == b.const.shape[1])
        made = linear_integer(node, a, b, *zeros, scales=(a_scale, b_scale.const), bias=bias if fits else None)
        return made if fits or bias is None else binary(node, Binary.ADD, made, bias)
    factor = binary(node, Binary.MUL, of_rows(node, a_scale, a), b_scale)
    made = binary(node, Binary.MUL, cast_to(node, integer_product(node, a, b, *zeros), DType.FLOAT), factor)
    return made if bias is None else binary(node, Binary.ADD, made, bias)


@op("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(node: Node) -> Tensor:
    scales, zeros = (node.get(2), node.get(3)), (node.optional(4), node.optional(5))
    node.floats(*scales)
    return float_product(node, node.get(0), node.get(1), scales, zeros, node.optional(6))


@op("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(node: Node) -> Tensor:
    codes, scale, zero = dynamic_codes(node, node.get(0))
    return float_product(node, codes, node.get(1), (scale, node.get(2)), (zero, node.optional(3)), node.optional(4))


@op("QGemm", domain=MICROSOFT)
def qgemm(node: Node) -> Tensor:
    """alpha a_scale b_scale (a b + c), as float32 or, with a y_scale, as codes; c is int32."""
    a, a_scale, a_zero, b, b_scale, b_zero = (node.get(i) for i in range(6))
    c, y_scale, y_zero = (node.optional(i) for i in range(6, 9))
    if node.attr("transA", 0):
        a = node.emit(Op.TRANSPOSE, [a], a.dtype, a.shape[::-1], 1, 0)
    if node.attr("transB", 0):
        turned = b.shape[::-1]
        b = node.constant(b.const.T) if b.const is not None else node.emit(Op.TRANSPOSE, [b], b.dtype, turned, 1, 0)
    total = integer_product(node, a, b, a_zero, b_zero)
    total = total if c is None else binary(node, Binary.ADD, total, c)
    factor = binary(node, Binary.MUL, a_scale, b_scale)
    if node.attr("alpha", 1.0) != 1.0:
        factor = binary(node, Binary.MUL, factor, node.constant(np.array(node.attr("alpha"), np.float32)))
    scaled = binary(node, Binary.MUL, cast_to(node, total, DType.FLOAT), factor)
    if y_scale is None:
        return scaled
    return quantize(node, scaled, y_scale, y_zero, a.dtype if y_zero is None else y_zero.dtype)


# ---- elementwise on codes: between a dequantization and a quantization ----
def values(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    """Codes of one scale as float32."""
    scale = node.alias(scale, ())
    return node.emit(Op.DEQUANTIZE, [x, scale, None if zero is None else node.alias(zero, ())], DType.FLOAT, x.shape, 0, 0)


@op("QLinearAdd", "QLinearMul", domain=MICROSOFT)
def qlinear_binary(node: Node) -> Tensor:
    codes = qlinear_pair(node)
    if codes is not None:
        return codes
    a = values(node, node.get(0), node.get(1), node.optional(2))
    b = values(node, node.get(3), node.get(4), node.optional(5))
    made = binary(node, Binary.ADD if node.type == "QLinearAdd" else Binary.MUL, a, b)
    return quantize(node, made, node.get(6), node.optional(7), node.get(0).dtype)


@op("QLinearSigmoid", "QLinearLeakyRelu", domain=MICROSOFT)
def qlinear_unary(node: Node) -> Tensor:
    x = values(node, node.get(0), node.get(1), node.optional(2))
    kind = Unary.SIGMOID if node.type == "QLinearSigmoid" else Unary.LEAKY_RELU
    return quantize(node, unary(node, x, kind, node.attr("alpha", 0.01)), node.get(3), node.optional(4), node.get(0).dtype)


@op("QLinearSoftmax", domain=MICROSOFT)
def qlinear_softmax(node: Node) -> Tensor:
    x = values(node, node.get(0), node.get(1), node.optional(2))
    axis = node.axis(node.attr("axis", -1), x.rank)
    rows, at = x, axis
    if node.attr("opset", 13) < 13:
        rows, at = node.alias(x, (elements(x.shape[:axis]), elements(x.shape[axis:]))), 1
    made = node.alias(node.emit(Op.SOFTMAX, [rows], DType.FLOAT, rows.shape, at, 0), x.shape)
    return quantize(node, made, node.get(3), node.optional(4), node.get(0).dtype)


@op("QLinearConcat", domain=MICROSOFT)
def qlinear_concat(node: Node) -> Tensor:
    scale, zero = node.get(0), node.get(1)
    parts = [values(node, node.get(i), node.get(i + 1), node.get(i + 2)) for i in range(2, len(node.inputs), 3)]
    axis = node.axis(node.attr("axis"), parts[0].rank)
    if any(p.rank != parts[0].rank for p in parts):
        raise node.fail("inputs differ in rank: " + ", ".join(show(p.shape) for p in parts))
    shape = list(parts[0].shape)
    for p in parts[1:]:
        shape[axis] = dims.add(shape[axis], p.shape[axis])
    return quantize(node, node.emit(Op.CONCAT, parts, DType.FLOAT, shape, axis), scale, zero, zero.dtype)


@op("QLinearWhere", domain=MICROSOFT)
def qlinear_where(node: Node) -> Tensor:
    condition = node.get(0)
    a, b = (values(node, *(node.get(i + j) for j in range(3))) for i in (1, 4))
    made = node.emit(Op.WHERE, [condition, a, b], DType.FLOAT, node.broadcast(condition.shape, a.shape, b.shape))
    return quantize(node, made, node.get(7), node.get(8), node.get(8).dtype)
