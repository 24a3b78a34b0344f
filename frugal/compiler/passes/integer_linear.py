"""Scales of a product of codes with constant weights, taken into the step: what dynamic quantization in ONNX is made of.

1. Cast(LINEAR_INTEGER) * (s * m), with one scale s of the activations and constant scales m of the weights (one, or one for
   each column), is a LINEAR_INTEGER that gives float32; so is Cast(LINEAR_INTEGER) * m with no s.
2. A constant [n] that is then added is its bias.
The fused step takes the place of the last one it replaces, so that the scale is written before it.
"""

from __future__ import annotations

import numpy as np

from ..ir import Binary, DType, Graph, Op, Step, Tensor, elements
from ..qpack import panels_of
from .match import Matcher, other


def fuse_integer_scales(graph: Graph) -> None:
    for rule in (_scale, _bias):
        find = Matcher(graph)
        for step in list(graph.steps):
            if step.op == Op.LINEAR_INTEGER:
                rule(graph, find, step)


def _scale(graph: Graph, find: Matcher, linear: Step) -> None:
    cast = find.only_use(linear.out)
    product = find.only_use(cast.out) if cast is not None and cast.op == Op.CAST and cast.out.dtype == DType.FLOAT else None
    if cast is None or product is None or not product.is_binary(Binary.MUL) or product.out.shape != linear.out.shape:
        return
    factor = other(product, cast.out)
    parts = _parts(find, factor) if factor is not None else None
    n = linear.out.shape[-1]
    if parts is None or not isinstance(n, int) or parts[1].size not in (1, n) or linear.inputs[2] is None:
        return
    if parts[1].size == n and parts[1].size > 1 and parts[1].shape[-1] != n:
        return  # one scale a row
    multiplier = np.broadcast_to(parts[1].reshape(-1), (n,)).astype(np.float32)
    linear.inputs = [*linear.inputs[:2], _with_scales(linear.inputs[2], multiplier), linear.inputs[3], parts[0], None]
    _move(graph, linear, product)
    graph.steps.remove(cast)


def _parts(find: Matcher, factor: Tensor) -> tuple[Tensor | None, np.ndarray] | None:
    """(scale of the activations, scales of the weights) of a factor."""
    if factor.dtype != DType.FLOAT:
        return None
    if factor.const is not None:
        return None, factor.const
    made = find.binary(factor, Binary.MUL)
    for a, b in ((0, 1), (1, 0)):
        s, m = (made.inputs[a], made.inputs[b]) if made is not None else (None, None)
        if s is not None and m is not None and m.const is not None and elements(s.shape) == 1:
            return s, m.const
    return (factor, np.ones(1, np.float32)) if elements(factor.shape) == 1 else None


def _with_scales(params: Tensor, multiplier: np.ndarray) -> Tensor:
    assert params.const is not None
    values = params.const.copy()
    values[:, 2] = panels_of(multiplier, 1).view(np.int32)
    return Tensor(params.name, DType.INT32, values.shape, const=values)


def _bias(graph: Graph, find: Matcher, linear: Step) -> None:
    follower = find.only_use(linear.out)
    if follower is None or not follower.is_binary(Binary.ADD) or follower.out.shape != linear.out.shape:
        return
    added, n = other(follower, linear.out), linear.out.shape[-1]
    if added is None or added.const is None or linear.out.dtype != DType.FLOAT or (len(linear.inputs) > 5 and linear.inputs[5]):
        return
    if added.const.size != n or added.const.shape[-1] != n:
        return
    inputs = [*linear.inputs, None, None][:5]
    linear.inputs = [*inputs, Tensor(added.name, DType.FLOAT, (added.const.size,), const=added.const.reshape(-1))]
    _move(graph, linear, follower)


def _move(graph: Graph, linear: Step, follower: Step) -> None:
    """Put the linear where the follower stands, writing the follower's output."""
    linear.outputs = follower.outputs
    graph.steps.remove(linear)
    graph.steps[next(i for i, s in enumerate(graph.steps) if s is follower)] = linear
