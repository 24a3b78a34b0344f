"""Exporters repeat themselves.

1. Two steps with the same operation, operands and attributes are one, where the second sees what the first writes; small equal
   constants count as the same operand.
2. A tensor that is expanded only for a step that broadcasts anyway (binary, where, an attention mask) is read as it is.
"""

from __future__ import annotations

from collections.abc import Hashable

from ..ir import CONTROL, Graph, Op, Step, Tensor
from ..lower import merge

SMALL = 1024  # bytes of a constant that is compared by value


def _key(tensor: Tensor | None) -> Hashable:
    if tensor is None:
        return None
    if tensor.const is not None and tensor.const.nbytes <= SMALL:
        return (tensor.dtype, tensor.shape, tensor.const.tobytes())
    return tensor


def merge_equal_steps(graph: Graph) -> None:
    scopes: list[dict[Hashable, Step]] = [{}]  # of the open blocks: what one writes is not seen behind it
    kept = []
    changed: dict[Tensor, Tensor] = {}
    for step in graph.steps:
        step.inputs = [changed.get(t, t) if t is not None else None for t in step.inputs]
        if step.op in (Op.ELSE, Op.END):
            scopes.pop()
        if step.op in (Op.IF, Op.ELSE, Op.LOOP):
            scopes.append({})
        if step.op in CONTROL or any(t.pinned for t in step.outputs):
            kept.append(step)
            continue
        outputs = tuple((t.dtype, t.shape, t.layout) for t in step.outputs)
        key = (step.op, tuple(_key(t) for t in step.inputs), tuple(map(repr, step.attrs)), outputs)
        first = next((scope[key] for scope in scopes if key in scope), None)
        if first is None:
            scopes[-1][key] = step
            kept.append(step)
        else:
            changed.update(zip(step.outputs, first.outputs, strict=True))
    graph.steps = kept
    graph.outputs = [changed.get(t, t) for t in graph.outputs]


def skip_expands(graph: Graph) -> None:
    producers = graph.producers()
    for step in graph.steps:
        if step.op not in (Op.BINARY, Op.WHERE, Op.ATTENTION):
            continue
        for i, tensor in enumerate(step.inputs):
            expand = producers.get(tensor) if tensor is not None else None
            if expand is None or expand.op != Op.EXPAND or (step.op == Op.ATTENTION and i != 3):
                continue
            inputs = list(step.inputs)
            inputs[i] = expand.inputs[0]
            if step.op == Op.ATTENTION or merge(t.shape for t in inputs if t is not None) == step.out.shape:
                step.inputs = inputs
