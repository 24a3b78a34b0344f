"""Handlers of Einsum, Det and onnxruntime's FusedMatMul.

An Einsum is contracted operand by operand, left to right: each operand first loses its repeated labels (diagonals) and those that
nobody else has (sums); two operands then become one batched matrix product [batch, m, k] x [batch, k, n], or, without a common
label to sum over, one elementwise product.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from . import dims
from .dims import Dim
from .ir import NUMPY, Binary, DType, Op, Reduce, Tensor
from .lower import MICROSOFT, Node, op, show
from .math_ops import FLOATS, binary
from .nn_ops import PRODUCTS, product

ELLIPSIS = "..."


@dataclass
class Labelled:
    """A tensor with a label for each axis."""

    x: Tensor
    labels: list[str]

    def dim(self, label: str) -> Dim:
        return self.x.shape[self.labels.index(label)]


@op("Det")
def det(node: Node) -> Tensor:
    x = node.get(0)
    if x.dtype not in FLOATS or x.rank < 2:
        raise node.unsupported(f"'{x.name}' is not float32 or float64 matrices")
    return node.emit(Op.DET, [x], x.dtype, x.shape[:-2])


@op("FusedMatMul", domain=MICROSOFT)
def fused_matmul(node: Node) -> Tensor:
    """alpha a b, with the last two axes of either transposed, or its first axis moved in front of the last (transBatch)."""
    a, b = (turned(node, node.get(i), node.attr(f"trans{n}", 0), node.attr(f"transBatch{n}", 0)) for i, n in enumerate("AB"))
    return product(node, a, b, float(node.attr("alpha", 1.0)))


def turned(node: Node, x: Tensor, swap: int, batch: int) -> Tensor:
    if x.rank < 2:
        return x
    perm = list(range(x.rank))
    if batch:
        perm = [*perm[1:-1], 0, perm[-1]]
    if swap:
        perm[-2:] = perm[:-3:-1]
    return permuted(node, x, perm)


def permuted(node: Node, x: Tensor, perm: Sequence[int]) -> Tensor:
    if list(perm) == list(range(x.rank)):
        return x
    if x.const is not None:
        return node.constant(np.ascontiguousarray(x.const.transpose(perm)))
    shape = [x.shape[p] for p in perm]
    moving = [p for p in perm if x.shape[p] != 1]
    return node.alias(x, shape) if moving == sorted(moving) else node.emit(Op.TRANSPOSE, [x], x.dtype, shape, *perm)


# ---- Einsum ----
def tokens(node: Node, term: str) -> list[str]:
    """The labels of a term, an ellipsis as one of them."""
    rest = term.replace(" ", "")
    result: list[str] = []
    while rest:
        label = ELLIPSIS if rest.startswith(ELLIPSIS) else rest[0]
        if label != ELLIPSIS and not (label.isascii() and label.isalpha()):
            raise node.fail(f"'{label}' in the equation")
        result.append(label)
        rest = rest[len(label) :]
    if result.count(ELLIPSIS) > 1:
        raise node.fail(f"two ellipses in '{term}'")
    return result


def parse(node: Node, equation: str, operands: Sequence[Tensor]) -> tuple[list[Labelled], list[str]]:
    """The operands with their labels, and the output's; the axes of an ellipsis get labels ".0" (the last axis), ".1" ..."""
    left, arrow, right = equation.partition("->")
    terms = [tokens(node, t) for t in left.split(",")]
    if len(terms) != len(operands):
        raise node.fail(f"{len(terms)} terms for {len(operands)} operands")
    most, labelled = 0, []
    for term, x in zip(terms, operands, strict=True):
        extra = x.rank - len([t for t in term if t != ELLIPSIS])
        if extra < 0 or (extra and ELLIPSIS not in term):
            raise node.fail(f"'{''.join(term)}' for an operand of shape {show(x.shape)}")
        most = max(most, extra if ELLIPSIS in term else 0)
        labelled.append(Labelled(x, spread(term, extra)))
    if arrow:
        output = spread(tokens(node, right), most)
    else:
        used = [label for o in labelled for label in o.labels if not label.startswith(".")]
        output = spread([ELLIPSIS], most) + sorted(label for label in set(used) if used.count(label) == 1)
    every = {label for o in labelled for label in o.labels}
    if len(set(output)) != len(output) or not every.issuperset(output):
        raise node.fail(f"the output of '{equation}' repeats a label, or has one that no operand has")
    return labelled, output


def spread(term: Sequence[str], extra: int) -> list[str]:
    result: list[str] = []
    for label in term:
        result += [f".{i}" for i in reversed(range(extra))] if label == ELLIPSIS else [label]
    return result


def diagonal(node: Node, o: Labelled, label: str) -> Labelled:
    """Of two axes with one label only the diagonal, as one axis."""
    first = o.labels.index(label)
    second = o.labels.index(label, first + 1)
    n = o.x.shape[first]
    index = [node.emit(Op.RANGE, [], DType.INT64, [n], 0, 1)] * 2
    shapes = [[n if i == axis else 1 for i in range(o.x.rank)] for axis in (first, second)]
    same = binary(node, Binary.EQUAL, *(node.alias(t, s) for t, s in zip(index, shapes, strict=True)))
    zero = node.constant(np.zeros((), NUMPY[o.x.dtype]))
    kept = node.emit(Op.WHERE, [same, o.x, zero], o.x.dtype, o.x.shape)
    return summed(node, Labelled(kept, o.labels), [second])


def summed(node: Node, o: Labelled, axes: Collection[int]) -> Labelled:
    if not axes:
        return o
    kept = [1 if i in axes else d for i, d in enumerate(o.x.shape)]
    total = node.emit(Op.REDUCE, [o.x], o.x.dtype, kept, int(Reduce.SUM), sum(1 << i for i in axes))
    shape = [d for i, d in enumerate(o.x.shape) if i not in axes]
    return Labelled(node.alias(total, shape), [label for i, label in enumerate(o.labels) if i not in axes])


def reduced(node: Node, o: Labelled, needed: Collection[str]) -> Labelled:
    """Without repeated labels, and without those that neither another operand nor the output needs."""
    while len(set(o.labels)) < len(o.labels):
        o = diagonal(node, o, next(label for label in o.labels if o.labels.count(label) > 1))
    return summed(node, o, [i for i, label in enumerate(o.labels) if label not in needed])


def arranged(node: Node, o: Labelled, labels: Sequence[str]) -> Labelled:
    return Labelled(permuted(node, o.x, [o.labels.index(label) for label in labels]), list(labels))


def widened(node: Node, o: Labelled, other: Labelled) -> Labelled:
    """With the axes of length 1 that another operand has longer expanded to it."""
    shape = [other.dim(label) if d == 1 and label in other.labels else d for label, d in zip(o.labels, o.x.shape, strict=True)]
    return o if tuple(shape) == o.x.shape else Labelled(node.emit(Op.EXPAND, [o.x], o.x.dtype, shape), o.labels)


def contracted(node: Node, a: Labelled, b: Labelled, needed: Collection[str]) -> Labelled:
    """The product of two operands summed over the labels that both have and nobody needs."""
    common = [label for label in a.labels if label in b.labels]
    over = [label for label in common if label not in needed]
    if not over:
        return outer(node, a, b)
    a, b = widened(node, a, b), widened(node, b, a)
    batch = [label for label in common if label in needed]
    m, n = ([label for label in o.labels if label not in common] for o in (a, b))
    left, right = arranged(node, a, batch + m + over), arranged(node, b, batch + over + n)
    sizes = {label: o.dim(label) for o in (b, a) for label in o.labels}
    count = [dims.product(sizes[label] for label in part) for part in (batch, m, over, n)]
    if not batch:
        lead = [sizes[label] for label in m] or [1]  # several axes stay: a constant on the right becomes a linear's weight
        made = product(node, node.alias(left.x, [*lead, count[2]]), node.alias(right.x, count[2:]))
    else:
        made = product(node, node.alias(left.x, count[:3]), node.alias(right.x, [count[0], *count[2:]]))
    labels = batch + m + n
    return Labelled(node.alias(made, [sizes[label] for label in labels]), labels)


def outer(node: Node, a: Labelled, b: Labelled) -> Labelled:
    """The elementwise product of two operands, each broadcast along the labels of the other."""
    labels = a.labels + [label for label in b.labels if label not in a.labels]
    b = arranged(node, b, [label for label in labels if label in b.labels])
    x, y = (node.alias(o.x, [o.dim(label) if label in o.labels else 1 for label in labels]) for o in (a, b))
    return Labelled(binary(node, Binary.MUL, x, y), labels)


@op("Einsum")
def einsum(node: Node) -> Tensor:
    operands = [node.get(i) for i in range(len(node.inputs))]
    if any(x.dtype not in PRODUCTS or x.dtype != operands[0].dtype for x in operands):
        raise node.unsupported("operands of other or different data types than float32, float64, and 32- and 64-bit integers")
    labelled, output = parse(node, str(node.attr("equation", "")), operands)
    result = None
    for i, o in enumerate(labelled):
        later = {label for rest in labelled[i + 1 :] for label in rest.labels} | set(output)
        before: set[str] = set() if result is None else set(result.labels)
        o = reduced(node, o, later | before)
        result = o if result is None else contracted(node, result, o, later)
        result = reduced(node, result, later)
    assert result is not None
    return arranged(node, result, output).x
