"""Activation functions that exporters spell out.

1. GELU: x/2 (1 + erf(x/sqrt 2)), as 0.5 x (1 + erf) or x (1 + erf) 0.5, the argument of erf as x / sqrt 2 or x * 1/sqrt 2.
2. SiLU: x sigmoid(x).
"""

from __future__ import annotations

from math import sqrt

from ..ir import Binary, Graph, Op, Step, Tensor, Unary
from .match import Matcher, other, with_constant


def fuse_activations(graph: Graph) -> None:
    find = Matcher(graph)
    for step in graph.steps:
        if not step.is_binary(Binary.MUL):
            continue
        source = _gelu(find, step)
        kind = Unary.GELU
        if source is None:
            source, kind = _silu(find, step), Unary.SILU
        if source is not None and source.shape == step.out.shape:
            step.op, step.inputs, step.attrs = Op.UNARY, [source], [int(kind), 0.0, 0.0]


def _silu(find: Matcher, step: Step) -> Tensor | None:
    for x in step.inputs:
        rest = other(step, x) if x is not None else None
        sigmoid = find.unary(rest, Unary.SIGMOID)
        if sigmoid is not None and sigmoid.inputs[0] is x:
            return x
    return None


def _erf_argument(find: Matcher, plus_one: Tensor | None) -> Tensor | None:
    """x when the tensor is 1 + erf(x / sqrt 2)."""
    add = find.binary(plus_one, Binary.ADD)
    erf = find.unary(with_constant(add, 1.0), Unary.ERF) if add is not None else None
    if erf is None:
        return None
    divided = find.binary(erf.inputs[0], Binary.DIV)
    if divided is not None:
        divisor = divided.inputs[1]
        number = divisor.scalar() if divisor is not None else None
        return divided.inputs[0] if number is not None and abs(number - sqrt(2)) < 1e-4 else None
    scaled = find.binary(erf.inputs[0], Binary.MUL)
    return with_constant(scaled, sqrt(0.5)) if scaled is not None else None


def _gelu(find: Matcher, step: Step) -> Tensor | None:
    product = with_constant(step, 0.5)
    inner = find.binary(product, Binary.MUL)
    if inner is not None:
        for a in inner.inputs:
            x = _erf_argument(find, a)
            if x is not None and a is not None and other(inner, a) is x:
                return x
    for a in step.inputs:
        x = _erf_argument(find, a)
        half = find.binary(other(step, a), Binary.MUL) if x is not None and a is not None else None
        if half is not None and with_constant(half, 0.5) is x:
            return x
    return None
