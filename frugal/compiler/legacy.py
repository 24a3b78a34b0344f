"""Models of opsets 1 to 6: what changed with opset 7, undone node by node before the handlers see it.

1. Binary operators broadcast only with `broadcast = 1`, the second operand beginning at `axis` of the first (from the right where
   it is absent): it gets the axes of length 1 that numpy's rule wants.
2. Gemm's third operand did the same.
3. PRelu's slope had one value for each channel, axis 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .lower import Node

FIRST_WITH_NUMPY_RULES = 7
BROADCASTING = {
    "Add": 1, "Sub": 1, "Mul": 1, "Div": 1, "Pow": 1, "And": 1, "Or": 1, "Xor": 1, "Less": 1, "Greater": 1, "Equal": 1, "Gemm": 2,
}  # fmt: skip


def align_operands(node: Node) -> None:
    """Rules 1 to 3."""
    slope = node.type == "PRelu" and node.get(1).rank == 1 and node.get(1).shape != (1,)
    index = 1 if slope else BROADCASTING.get(node.type)
    axis = 1 if slope else node.attr("axis")
    if index is None or axis is None or not (slope or node.attr("broadcast", 0)):
        return
    rank = 2 if node.type == "Gemm" else node.get(0).rank
    x = node.get(index)
    behind = rank - node.axis(axis, rank) - x.rank
    if behind < 0:
        raise node.fail(f"axis {axis} leaves no room for '{x.name}' of rank {x.rank}")
    node.inputs[index] = node.alias(x, [*x.shape, *[1] * behind])
