"""Small helpers that passes share: who writes a tensor, who reads it, and constants among two operands."""

from __future__ import annotations

from ..ir import CONTROL, Binary, Graph, Op, Step, Tensor, Unary


class Matcher:
    """Producers and readers of a graph at one moment; make a new one after a rewrite."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.producers = graph.producers()
        self.uses = graph.uses()
        self.blocks = graph.blocks() if any(s.op in CONTROL for s in graph.steps) else {}

    def only_use(self, tensor: Tensor) -> Step | None:
        """The one step that reads a tensor, in the same block; None: there are more, or late dims or the caller read it."""
        readers = self.uses.get(tensor, [])
        if len(readers) != 1 or not readers[0].outputs or readers[0].op in CONTROL or tensor.pinned:
            return None
        writer = self.producers.get(tensor)
        return readers[0] if writer is None or self.blocks.get(writer) is self.blocks.get(readers[0]) else None

    def unary(self, tensor: Tensor | None, kind: Unary) -> Step | None:
        step = self.producers.get(tensor) if tensor is not None else None
        return step if step is not None and step.is_unary(kind) else None

    def binary(self, tensor: Tensor | None, kind: Binary) -> Step | None:
        step = self.producers.get(tensor) if tensor is not None else None
        return step if step is not None and step.is_binary(kind) else None

    def step(self, tensor: Tensor | None, op: Op) -> Step | None:
        step = self.producers.get(tensor) if tensor is not None else None
        return step if step is not None and step.op == op else None


def other(step: Step, tensor: Tensor) -> Tensor | None:
    """The operand of a binary step that is not `tensor`; None when both are, or neither is."""
    a, b = step.inputs
    if (a is tensor) == (b is tensor):
        return None
    return b if a is tensor else a


def with_constant(step: Step, value: float, tolerance: float = 1e-4) -> Tensor | None:
    """The other operand of a commutative binary step one of whose operands is the constant `value`."""
    a, b = step.inputs
    for one, rest in ((a, b), (b, a)):
        number = one.scalar() if one is not None else None
        if number is not None and abs(number - value) <= tolerance * max(1.0, abs(value)):
            return rest
    return None
