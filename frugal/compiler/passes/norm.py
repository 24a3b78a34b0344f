"""Normalizations.

1. LayerNormalization spelled out: d = x - mean(x); d / sqrt(mean(d^2 or d*d) + eps) * gamma + beta, over the last axis.
2. A sum x + y that only a normalization reads, of two tensors of the same shape, becomes the normalization's residual.
"""

from __future__ import annotations

from ..ir import Binary, DType, Graph, Op, Reduce, Step, Tensor, Unary
from .match import Matcher, other


def fuse_norms(graph: Graph) -> None:
    find = Matcher(graph)
    for step in graph.steps:
        if step.is_binary(Binary.ADD):
            _spelled_out(find, step)


def _constant_row(find: Matcher, step: Step, n: object) -> tuple[Tensor, Tensor] | None:
    """(the constant [n] operand, the other one) of a binary step."""
    for one in step.inputs:
        if one is not None and one.const is not None and one.shape == (n,):
            rest = other(step, one)
            if rest is not None:
                return one, rest
    return None


def _is_mean(find: Matcher, tensor: Tensor | None) -> Step | None:
    step = find.step(tensor, Op.REDUCE)
    if step is None or step.attrs[0] != Reduce.MEAN:
        return None
    x = step.inputs[0]
    return step if x is not None and step.attrs[1] == 1 << (x.rank - 1) else None


def _spelled_out(find: Matcher, step: Step) -> None:
    n = step.out.shape[-1] if step.out.rank else 0
    outer = _constant_row(find, step, n)
    scale = find.binary(outer[1], Binary.MUL) if outer else None
    inner = _constant_row(find, scale, n) if scale is not None else None
    divided = find.binary(inner[1], Binary.DIV) if inner else None
    if divided is None or outer is None or inner is None:
        return
    centered, root = divided.inputs
    matched = _variance(find, centered, root)
    if matched is None:
        return
    x, eps = matched
    if x.dtype == DType.FLOAT and x.shape == step.out.shape:
        step.op, step.inputs, step.attrs = Op.LAYER_NORM, [x, None, inner[0], outer[0]], [eps]


def _variance(find: Matcher, centered: Tensor | None, root: Tensor | None) -> tuple[Tensor, float] | None:
    """(x, eps) when centered = x - mean(x) and root = sqrt(mean(centered^2) + eps)."""
    sub, sqrt = find.binary(centered, Binary.SUB), find.unary(root, Unary.SQRT)
    plus = find.binary(sqrt.inputs[0], Binary.ADD) if sqrt is not None else None
    if sub is None or plus is None:
        return None
    x, mean = sub.inputs
    average = _is_mean(find, mean)
    constants = [t for t in plus.inputs if t is not None and t.scalar() is not None]
    if average is None or average.inputs[0] is not x or x is None or len(constants) != 1:
        return None
    variance = _is_mean(find, other(plus, constants[0]))
    squared = find.producers.get(variance.inputs[0]) if variance is not None and variance.inputs[0] is not None else None
    if squared is None or squared.op != Op.BINARY or squared.inputs[0] is not centered:
        return None
    power = squared.inputs[1]
    square = squared.is_binary(Binary.MUL) and power is centered
    square = square or (squared.is_binary(Binary.POW) and power is not None and power.scalar() == 2.0)
    eps = constants[0].scalar()
    return (x, float(eps)) if square and eps is not None else None


def fuse_residual_norms(graph: Graph) -> None:
    find = Matcher(graph)
    for step in graph.steps:
        if step.op not in (Op.LAYER_NORM, Op.RMS_NORM) or step.inputs[1] is not None:
            continue
        x = step.inputs[0]
        add = find.binary(x, Binary.ADD)
        if add is None or x is None or find.only_use(x) is not step:
            continue
        a, b = add.inputs
        if a is not None and b is not None and a.shape == b.shape == x.shape:
            step.inputs[:2] = [a, b]
