"""Operators that are short formulas over steps the executor has."""

from __future__ import annotations

import numpy as np

from . import dims
from .dims import Dim
from .ir import NUMPY, Binary, Op, Reduce, Tensor, Unary, elements
from .lower import Node, op, show
from .math_ops import binary, unary
from .shape_ops import reduction


def scalar(node: Node, like: Tensor, value: float) -> Tensor:
    """A constant of one element and the data type of `like`."""
    return node.constant(np.array(value, NUMPY[like.dtype]))


def scaled(node: Node, x: Tensor, by: float) -> Tensor:
    return x if by == 1.0 else binary(node, Binary.MUL, x, scalar(node, x, by))


@op("Mean")
def mean(node: Node) -> Tensor:
    total = node.get(0)
    for i in range(1, len(node.inputs)):
        total = binary(node, Binary.ADD, total, node.get(i))
    return total if len(node.inputs) == 1 else binary(node, Binary.DIV, total, scalar(node, total, len(node.inputs)))


@op("Softsign")
def softsign(node: Node) -> Tensor:
    """x / (1 + |x|)."""
    x = node.get(0)
    return binary(node, Binary.DIV, x, binary(node, Binary.ADD, unary(node, x, Unary.ABS), scalar(node, x, 1)))


@op("Mish")
def mish(node: Node) -> Tensor:
    """x tanh(softplus(x))."""
    x = node.get(0)
    return binary(node, Binary.MUL, x, unary(node, unary(node, x, Unary.SOFTPLUS), Unary.TANH))


@op("PRelu")
def prelu(node: Node) -> Tensor:
    x, slope = node.get(0), node.get(1)
    condition = binary(node, Binary.LESS, x, scalar(node, x, 0))
    below = binary(node, Binary.MUL, x, slope)
    return node.emit(Op.WHERE, [condition, below, x], x.dtype, node.broadcast(x.shape, below.shape))


@op("ThresholdedRelu")
def thresholded_relu(node: Node) -> Tensor:
    x = node.get(0)
    condition = binary(node, Binary.GREATER, x, scalar(node, x, node.attr("alpha", 1.0)))
    return node.emit(Op.WHERE, [condition, x, scalar(node, x, 0)], x.dtype, x.shape)


@op("Selu")
def selu(node: Node) -> Tensor:
    """gamma elu(x) with slope alpha."""
    x = node.get(0)
    alpha, gamma = node.attr("alpha", 1.67326319217681884765625), node.attr("gamma", 1.05070102214813232421875)
    return scaled(node, unary(node, x, Unary.ELU, alpha), gamma)


@op("Celu")
def celu(node: Node) -> Tensor:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1)) = alpha elu(x / alpha)."""
    x, alpha = node.get(0), node.attr("alpha", 1.0)
    if not alpha:
        raise node.fail("alpha is 0")
    return scaled(node, unary(node, scaled(node, x, 1.0 / alpha), Unary.ELU, 1.0), alpha)


@op("ReduceLogSum", "ReduceLogSumExp")
def reduce_log_sum(node: Node) -> Tensor:
    """log of the sum, or max + log of the sum of exp(x - max)."""
    x = node.get(0)
    asked = reduction(node, x)
    if asked is None:
        return unary(node, x, Unary.LOG) if node.type == "ReduceLogSum" else x

    def reduced(t: Tensor, kind: Reduce) -> Tensor:
        return asked.emit(node, t, int(kind))

    if node.type == "ReduceLogSum":
        made = unary(node, reduced(x, Reduce.SUM), Unary.LOG)
    else:
        top = reduced(x, Reduce.MAX)
        finite = node.emit(Op.WHERE, [finite_of(node, top), top, scalar(node, x, 0)], x.dtype, top.shape)
        total = reduced(unary(node, binary(node, Binary.SUB, x, finite), Unary.EXP), Reduce.SUM)
        made = binary(node, Binary.ADD, unary(node, total, Unary.LOG), finite)
    return made if node.attr("keepdims", 1) else node.alias(made, asked.dropped)


def finite_of(node: Node, x: Tensor) -> Tensor:
    """Whether each element is a finite number: x - x = 0."""
    return binary(node, Binary.EQUAL, binary(node, Binary.SUB, x, x), scalar(node, x, 0))


@op("SpaceToDepth", "DepthToSpace")
def space_depth(node: Node) -> Tensor:
    x, size = node.get(0), node.attr("blocksize", 0)
    if x.rank != 4 or size < 1:
        raise node.fail(f"wants 4 axes and a block size, got {show(x.shape)} and {size}")
    n, c, h, w = x.shape
    if node.type == "SpaceToDepth":
        small = (dims.floordiv(h, size), dims.floordiv(w, size))
        perm = (0, 3, 5, 1, 2, 4) if node.attr("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
        split: tuple[Dim, ...] = (n, c, small[0], size, small[1], size)
        result = (n, dims.mul(c, size * size), *small)
    else:
        depth = dims.floordiv(c, size * size)
        columns_first = node.attr("mode", "DCR") == "DCR"
        split = (n, size, size, depth, h, w) if columns_first else (n, depth, size, size, h, w)
        perm = (0, 3, 4, 1, 5, 2) if columns_first else (0, 1, 4, 2, 5, 3)
        result = (n, depth, dims.mul(h, size), dims.mul(w, size))
    have, want = elements(x.shape), elements(split)
    if isinstance(have, int) and have != want:
        raise node.fail(f"{show(x.shape)} does not split into blocks of {size}")
    turned = node.emit(Op.TRANSPOSE, [node.alias(x, split)], x.dtype, [split[p] for p in perm], *perm)
    return node.alias(turned, result)
