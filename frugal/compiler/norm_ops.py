"""Handlers of normalizations over trailing axes: LayerNormalization, RMSNormalization and onnxruntime's fused ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .dims import Dim
from .ir import NUMPY, Binary, DType, Op, Reduce, Tensor, Unary, elements
from .lower import MICROSOFT, Node, merge, op, show
from .math_ops import FLOATS, binary, unary


def vector(node: Node, x: Tensor | None, axes: Sequence[Dim], fill: float) -> Tensor | None:
    """A parameter as one value for each normalized element, [n]; None when it varies over other axes too."""
    n = elements(tuple(axes))
    if x is None:
        if isinstance(n, int):
            return node.constant(np.full(n, fill, np.float32))
        return node.emit(Op.FILL, [node.constant(np.array([fill], np.float32))], DType.FLOAT, [n])
    if x.rank > len(axes) or merge([x.shape, tuple(axes)]) != tuple(axes):
        return None
    if x.shape == tuple(axes):
        return node.alias(x, [n])
    if x.const is not None and all(isinstance(d, int) for d in axes):
        return node.constant(np.ascontiguousarray(np.broadcast_to(x.const, tuple(axes))).reshape(-1))  # type: ignore[arg-type]
    return node.alias(node.emit(Op.EXPAND, [x], x.dtype, axes), [n])


def statistics(node: Node, x: Tensor, axis: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean, mean, 1 / sqrt(variance + eps)) over the axes from `axis` on."""
    kept = [*x.shape[:axis], *[1] * (x.rank - axis)]
    mask = sum(1 << i for i in range(axis, x.rank))
    mean = node.emit(Op.REDUCE, [x], x.dtype, kept, int(Reduce.MEAN), mask)
    centered = binary(node, Binary.SUB, x, mean)
    squares = binary(node, Binary.MUL, centered, centered)
    variance = node.emit(Op.REDUCE, [squares], x.dtype, kept, int(Reduce.MEAN), mask)
    return centered, mean, inverse_root(node, variance, eps)


def inverse_root(node: Node, x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(x + eps)."""
    summed = binary(node, Binary.ADD, x, node.constant(np.array(eps, NUMPY[x.dtype])))
    return unary(node, unary(node, summed, Unary.SQRT), Unary.RECIPROCAL)


def normalized(node: Node, x: Tensor, axis: int, gamma: Tensor | None, beta: Tensor | None, eps: float, centers: bool) -> Tensor:
    """x normalized over the axes from `axis` on, times gamma, plus beta, which broadcast to x."""
    if x.dtype != DType.FLOAT:
        return spelled_out(node, x, axis, gamma, beta, eps, centers)
    axes = x.shape[axis:]
    rows = node.alias(x, (*x.shape[:axis], elements(axes)))
    factors, offsets = vector(node, gamma, axes, 1.0), None if beta is None else vector(node, beta, axes, 0.0)
    fused = factors is not None and (beta is None or offsets is not None)
    if not fused:
        factors, offsets = vector(node, None, axes, 1.0), None
    operands = [rows, None, factors, offsets] if centers else [rows, None, factors]
    made = node.emit(Op.LAYER_NORM if centers else Op.RMS_NORM, operands, x.dtype, rows.shape, eps)
    y = node.alias(made, x.shape)
    return y if fused and (centers or beta is None) else scaled(node, y, gamma if not fused else None, beta)


def scaled(node: Node, y: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
    y = y if gamma is None else binary(node, Binary.MUL, y, gamma)
    return y if beta is None else binary(node, Binary.ADD, y, beta)


def spelled_out(node: Node, x: Tensor, axis: int, gamma: Tensor | None, beta: Tensor | None, eps: float, centers: bool) -> Tensor:
    if x.dtype not in FLOATS:
        raise node.unsupported(f"'{x.name}' is not float32 or float64")
    if centers:
        x, _, inverse = statistics(node, x, axis, eps)
    else:
        kept = [*x.shape[:axis], *[1] * (x.rank - axis)]
        mask = sum(1 << i for i in range(axis, x.rank))
        squares = binary(node, Binary.MUL, x, x)
        inverse = inverse_root(node, node.emit(Op.REDUCE, [squares], x.dtype, kept, int(Reduce.MEAN), mask), eps)
    return scaled(node, binary(node, Binary.MUL, x, inverse), gamma, beta)


def wanted(node: Node, index: int) -> bool:
    return index < len(node.proto.output) and bool(node.proto.output[index])


@op("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def normalization(node: Node) -> list[Tensor]:
    x, gamma, beta = node.get(0), node.get(1), node.optional(2)
    axis, centers = node.axis(node.attr("axis", -1), x.rank), node.type == "LayerNormalization"
    eps = float(np.float32(node.attr("epsilon", 1e-5)))
    results = [normalized(node, x, axis, gamma, beta, eps, centers)]
    if results[0].rank != x.rank:
        raise node.fail(f"a parameter does not broadcast to {show(x.shape)}")
    if wanted(node, 1) or wanted(node, 2):
        if not centers:
            raise node.unsupported("outputs other than the first")
        results += statistics(node, x, axis, eps)[1:]
    return results


@op("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_normalization(node: Node) -> list[Tensor]:
    """normalize(input + skip + bias); the sum is the fourth output."""
    centers = node.type == "SkipLayerNormalization"
    x, skip, gamma = node.get(0), node.get(1), node.get(2)
    beta, bias = (node.optional(3), node.optional(4)) if centers else (None, node.optional(3))
    node.floats(x, skip, gamma, beta, bias)
    total = binary(node, Binary.ADD, x, skip)
    if bias is not None:
        total = binary(node, Binary.ADD, total, bias)
    if total.shape != x.shape:
        raise node.fail(f"skip {show(skip.shape)} or the bias does not broadcast to {show(x.shape)}")
    eps = float(np.float32(node.attr("epsilon", 1e-12)))
    results = [normalized(node, total, x.rank - 1, gamma, beta, eps, centers)]
    if wanted(node, 1) or wanted(node, 2):
        raise node.unsupported("the mean and inverse deviation, which onnxruntime leaves unwritten")
    return [*results, results[0], results[0], total] if wanted(node, 3) else results


@op("EmbedLayerNormalization", domain=MICROSOFT)
def embed_normalization(node: Node) -> list[Tensor]:
    """normalize(words[ids] + positions[0, 1, ..] + segments[segment ids]) of ids [b, s]; the sum is the third output."""
    ids, segment_ids, words, places, segments = (node.optional(i) for i in range(5))
    gamma, beta, mask, place_ids = node.get(5), node.get(6), node.optional(7), node.optional(8)
    if ids is None or words is None or places is None or (segment_ids is None) != (segments is None):
        raise node.fail("an input is missing")
    width = words.shape[1]

    def rows(table: Tensor, of: Tensor) -> Tensor:
        return node.emit(Op.GATHER, [table, of], table.dtype, (*of.shape, width), 0)

    if place_ids is None:
        place_ids = node.emit(Op.RANGE, [], DType.INT64, [ids.shape[1]], 0, 1)
    total = binary(node, Binary.ADD, rows(words, ids), rows(places, place_ids))
    if segment_ids is not None and segments is not None:
        total = binary(node, Binary.ADD, total, rows(segments, segment_ids))
    eps = float(np.float32(node.attr("epsilon", 1e-12)))
    results = [normalized(node, total, 2, gamma, beta, eps, True), valid_tokens(node, ids, mask)]
    return [*results, total] if wanted(node, 2) else results


def valid_tokens(node: Node, ids: Tensor, mask: Tensor | None) -> Tensor:
    """int32 [b]: how many tokens the mask [b, s] keeps; 0 without a mask."""
    if mask is None:
        return node.emit(Op.FILL, [node.constant(np.zeros(1, np.int32))], DType.INT32, [ids.shape[0]])
    one = node.constant(np.ones((), NUMPY[mask.dtype]))
    kept = node.emit(Op.CAST, [binary(node, Binary.EQUAL, mask, one)], DType.INT32, mask.shape)
    total = node.emit(Op.REDUCE, [kept], DType.INT32, (mask.shape[0], 1), int(Reduce.SUM), 1 << 1)
    return node.alias(total, [mask.shape[0]])
