"""Arithmetic that changes nothing (exporters write the constants that a layer happens to have), and that hides patterns.

1. x * 1, x / 1, x - 0 are x, where the constant does not broadcast x.  Not x + 0: it makes 0 of -0.
2. A variable of a loop, or a view of one, stays: the copy keeps what it holds before its next value is set.
"""

from __future__ import annotations

from ..ir import Binary, Graph, Op, Step, Tensor


def drop_identities(graph: Graph) -> None:
    producers = graph.producers()

    def is_variable(tensor: Tensor) -> bool:
        step = producers.get(tensor)
        while step is not None and step.op == Op.ALIAS and step.inputs[0] is not None:
            step = producers.get(step.inputs[0])
        return step is not None and step.op == Op.VAR

    for step in graph.steps:
        source = _same(step)
        if source is None or is_variable(source):
            continue
        if source.shape == step.out.shape and source.dtype == step.out.dtype and not step.out.pinned:
            graph.replace(step.out, source)


def _same(step: Step) -> Tensor | None:
    """The operand that a step returns unchanged."""
    if step.op != Op.BINARY:
        return None
    a, b = step.inputs
    if _all(b, 1) and step.attrs[0] in (Binary.MUL, Binary.DIV):
        return a
    if _all(a, 1) and step.attrs[0] == Binary.MUL:
        return b
    return a if step.attrs[0] == Binary.SUB and _all(b, 0) else None


def _all(tensor: Tensor | None, value: int) -> bool:
    return tensor is not None and tensor.const is not None and tensor.const.size > 0 and bool((tensor.const == value).all())
