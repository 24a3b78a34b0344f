"""Piecewise activations that exporters spell out.

1. clip(x + 3, 0, 6) / 6 (or * 1/6) is HARD_SIGMOID(1/6, 1/2).
2. x * clip(x + 3, 0, 6) / 6, divided before or after the product, is HARD_SWISH(x).
3. x * HARD_SIGMOID(1/6, 1/2)(x) is HARD_SWISH(x).
"""

from __future__ import annotations

import numpy as np

from ..ir import Binary, DType, Graph, Op, Step, Tensor, Unary
from .match import Matcher, other, with_constant

SIXTH = 1 / 6


def fuse_hard_activations(graph: Graph) -> None:
    for rule in (_sigmoid, _swish):
        find = Matcher(graph)
        for step in graph.steps:
            if step.op == Op.BINARY and step.out.dtype == DType.FLOAT:
                rule(find, step)


def _clipped(find: Matcher, tensor: Tensor | None) -> Tensor | None:
    """x of clip(x + 3, 0, 6)."""
    clip = find.unary(tensor, Unary.CLIP)
    if clip is None or clip.attrs[1:] != [0.0, 6.0]:
        return None
    shifted = find.binary(clip.inputs[0], Binary.ADD)
    return with_constant(shifted, 3.0) if shifted is not None else None


def _sixth(step: Step) -> Tensor | None:
    """What the step divides by 6."""
    if step.is_binary(Binary.MUL):
        return with_constant(step, SIXTH)
    divisor = step.inputs[1] if step.is_binary(Binary.DIV) else None
    return step.inputs[0] if divisor is not None and divisor.scalar() == 6.0 else None


def _become(step: Step, x: Tensor, kind: Unary, p: float = 0.0, q: float = 0.0) -> None:
    if x.shape == step.out.shape:
        step.op, step.inputs, step.attrs = Op.UNARY, [x], [int(kind), p, q]


def _sigmoid(find: Matcher, step: Step) -> None:
    whole = _sixth(step)
    x = _clipped(find, whole)
    if x is not None:
        _become(step, x, Unary.HARD_SIGMOID, SIXTH, 0.5)
        return
    product = find.binary(whole, Binary.MUL)
    for part in product.inputs if product is not None else ():
        x = _clipped(find, part)
        if x is not None and product is not None and part is not None and other(product, part) is x:
            _become(step, x, Unary.HARD_SWISH)


def _swish(find: Matcher, step: Step) -> None:
    if not step.is_binary(Binary.MUL):
        return
    for part in step.inputs:
        gate = find.unary(part, Unary.HARD_SIGMOID)
        slopes = [v for v in gate.attrs[1:] if isinstance(v, float)] if gate is not None else []
        if gate is None or part is None or len(slopes) != 2 or not np.allclose(slopes, (SIXTH, 0.5), atol=1e-6):
            continue
        x = other(step, part)
        if x is not None and x is gate.inputs[0]:
            _become(step, x, Unary.HARD_SWISH)
            return
