"""Handlers of sequences and optional values.

A sequence exists while a model is compiled only: a list of tensors (``Tensor.items``).  Its operators cost nothing in a run, but
positions and the number of parts have to be known, and no sequence can be an input or output of a graph.
"""

from __future__ import annotations

import numpy as np

from .dims import Dim
from .ir import DType, Tensor
from .lower import Node, op, show
from .shape_ops import concat, parts

PART_LIMIT = 1024  # tensors that one operator makes


def sequence(node: Node, items: list[Tensor]) -> Tensor:
    node.foldable = False
    result = node.tensor(items[0].dtype if items else DType.FLOAT, ())
    result.items = items
    return result


def items_of(node: Node, index: int) -> list[Tensor]:
    tensor = node.inputs[index] if index < len(node.inputs) else None
    if tensor is None or tensor.items is None:
        raise node.fail(f"input {index} is no sequence")
    return tensor.items


def position(node: Node, index: int, length: int, default: int, end: int = 0) -> int:
    """A position that counts from either end, within [0, length), or up to length with end = 1."""
    values = node.ints(index, "the position") if node.optional(index) is not None else [default]
    if len(values) != 1 or not -length <= values[0] < length + end:
        raise node.fail(f"position {values} of {length}")
    return values[0] + length if values[0] < 0 else values[0]


@op("SequenceEmpty")
def sequence_empty(node: Node) -> Tensor:
    return sequence(node, [])


@op("SequenceConstruct")
def sequence_construct(node: Node) -> Tensor:
    return sequence(node, [node.get(i) for i in range(len(node.inputs))])


@op("SequenceInsert")
def sequence_insert(node: Node) -> Tensor:
    items = list(items_of(node, 0))
    items.insert(position(node, 2, len(items), len(items), end=1), node.get(1))
    return sequence(node, items)


@op("SequenceErase")
def sequence_erase(node: Node) -> Tensor:
    items = list(items_of(node, 0))
    del items[position(node, 1, len(items), -1)]
    return sequence(node, items)


@op("SequenceAt")
def sequence_at(node: Node) -> Tensor:
    items = items_of(node, 0)
    return items[position(node, 1, len(items), 0)]


@op("SequenceLength")
def sequence_length(node: Node) -> Tensor:
    return node.constant(np.array(len(items_of(node, 0)), np.int64))


@op("ConcatFromSequence")
def concat_from_sequence(node: Node) -> Tensor:
    items = items_of(node, 0)
    if not items:
        raise node.fail("the sequence is empty")
    if node.attr("new_axis", 0):
        axis = node.axis(node.attr("axis"), items[0].rank + 1)
        items = [node.alias(t, [*t.shape[:axis], 1, *t.shape[axis:]]) for t in items]
    node.inputs = list(items)
    made: Tensor = concat(node)
    return made


@op("SplitToSequence")
def split_to_sequence(node: Node) -> Tensor:
    x, split = node.get(0), node.optional(1)
    axis = node.axis(node.attr("axis", 0), x.rank)
    length = x.shape[axis]
    if split is not None and split.rank == 1:
        return sequence(node, parts(node, x, axis, node.sizes(1, "split")))
    (size,) = node.ints(1, "split") if split is not None else [1]
    if not isinstance(length, int) or size < 1 or length > PART_LIMIT * size:
        raise node.unsupported(f"parts of {size} along axis {axis} of {show(x.shape)}: their number has to be known")
    sizes: list[Dim] = [min(size, length - i) for i in range(0, length, size)]
    made = parts(node, x, axis, sizes)
    if split is None and not node.attr("keepdims", 1):
        made = [node.alias(t, dims_without(t, axis)) for t in made]
    return sequence(node, made)


def dims_without(x: Tensor, axis: int) -> list[Dim]:
    return [d for i, d in enumerate(x.shape) if i != axis]


@op("Optional", "OptionalGetElement")
def optional(node: Node) -> Tensor:
    """An optional value that is there is the value."""
    if not node.inputs or node.inputs[0] is None:
        raise node.unsupported("a value that is not there")
    return node.inputs[0]


@op("OptionalHasElement")
def optional_has_element(node: Node) -> Tensor:
    return node.constant(np.array(bool(node.inputs) and node.inputs[0] is not None))
