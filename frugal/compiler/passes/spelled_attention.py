"""Attention that exporters spell out with transposes and two products.

1. softmax(scale * q k^T + mask) v, where q, k, v are [b, s, h*d] viewed as [b, s, h, d] and transposed to [b, h, s, d] (k
   possibly straight to [b, h, d, t]), and the result is transposed back and viewed as [b, s, h*d]: one ATTENTION.
2. The scale is a constant that multiplies or divides the product, or q, or k, or several of them.
3. The mask is added to the scaled product; its shape must broadcast to [b, h, s, t].
"""

from __future__ import annotations

from dataclasses import dataclass

from ..dims import Dim
from ..ir import Binary, Graph, Op, Step, Tensor
from ..lower import merge
from .match import Matcher

HEADS_FIRST = [0, 2, 1, 3]
KEYS_LAST = [0, 2, 3, 1]
SWAP = [0, 1, 3, 2]


@dataclass
class _Scaled:
    tensor: Tensor
    factor: float


def fuse_spelled_attention(graph: Graph) -> None:
    find = Matcher(graph)
    for step in list(graph.steps):
        if step.op == Op.ALIAS and _fuse(find, step):
            find = Matcher(graph)


def _unscale(find: Matcher, tensor: Tensor | None) -> _Scaled | None:
    """A tensor without the constant factors that multiply or divide it."""
    factor = 1.0
    while tensor is not None:
        step = find.producers.get(tensor)
        if step is None or not (step.is_binary(Binary.MUL) or step.is_binary(Binary.DIV)):
            return _Scaled(tensor, factor)
        a, b = step.inputs
        assert a is not None and b is not None
        if step.is_binary(Binary.MUL) and a.scalar() is not None:
            a, b = b, a
        number = b.scalar()
        if number is None or number == 0.0 or a.shape != tensor.shape:
            return _Scaled(tensor, factor)
        factor *= number if step.is_binary(Binary.MUL) else 1.0 / number
        tensor = a
    return None


def _split_heads(find: Matcher, tensor: Tensor | None, perm: list[int]) -> tuple[Tensor, int] | None:
    """([b, s, h*d], h) of a tensor that is its view [b, s, h, d], transposed by perm."""
    turned = find.step(tensor, Op.TRANSPOSE)
    if turned is None or list(turned.attrs) != perm:
        return None
    view = find.step(turned.inputs[0], Op.ALIAS)
    if view is None or view.out.rank != 4:
        return None
    x, heads = view.inputs[0], view.out.shape[2]
    if x is None or x.rank != 3 or not isinstance(heads, int) or x.shape[:2] != view.out.shape[:2]:
        return None
    return x, heads


def _keys(find: Matcher, tensor: Tensor) -> tuple[Tensor, int, float] | None:
    """(k [b, t, h*d], heads, factor) of a tensor [b, h, d, t]."""
    straight = _split_heads(find, tensor, KEYS_LAST)
    if straight is not None:
        return (*straight, 1.0)
    swapped = find.step(tensor, Op.TRANSPOSE)
    if swapped is None or list(swapped.attrs) != SWAP:
        return None
    inner = _unscale(find, swapped.inputs[0])
    parts = _split_heads(find, inner.tensor, HEADS_FIRST) if inner is not None else None
    return (*parts, inner.factor) if parts is not None and inner is not None else None


def _masked(find: Matcher, scores: Tensor | None) -> tuple[_Scaled, Tensor | None] | None:
    """The scaled product and the mask added to it."""
    add = find.binary(scores, Binary.ADD)
    if add is None:
        plain = _unscale(find, scores)
        return None if plain is None else (plain, None)
    for product, mask in (add.inputs, add.inputs[::-1]):
        scaled = _unscale(find, product)
        if scaled is not None and mask is not None and find.step(scaled.tensor, Op.MATMUL) is not None:
            return scaled, mask
    return None


def _product(step: Step | None) -> bool:
    return step is not None and step.attrs[0] == 0 and step.attrs[1] == 1.0


def _fuse(find: Matcher, last: Step) -> bool:
    turned = find.step(last.inputs[0], Op.TRANSPOSE)
    mixed = find.step(turned.inputs[0], Op.MATMUL) if turned is not None and list(turned.attrs) == HEADS_FIRST else None
    if mixed is None or not _product(mixed):
        return False
    softmax = find.step(mixed.inputs[0], Op.SOFTMAX)
    values = _split_heads(find, mixed.inputs[1], HEADS_FIRST)
    if softmax is None or values is None or softmax.attrs[0] != softmax.out.rank - 1 or softmax.attrs[1]:
        return False
    masked = _masked(find, softmax.inputs[0])
    product = find.step(masked[0].tensor, Op.MATMUL) if masked is not None else None
    if masked is None or product is None or not _product(product) or product.inputs[1] is None:
        return False
    query = _unscale(find, product.inputs[0])
    q = _split_heads(find, query.tensor, HEADS_FIRST) if query is not None else None
    right = _unscale(find, product.inputs[1])
    k = _keys(find, right.tensor) if right is not None else None
    if q is None or k is None or query is None or right is None or not q[1] == k[1] == values[1]:
        return False
    wanted: tuple[Dim, ...] = (*q[0].shape[:2], values[0].shape[2])
    if last.out.shape != wanted:
        return False
    mask = masked[1]
    if mask is not None and (mask.rank > 4 or merge([mask.shape, product.out.shape]) != product.out.shape):
        return False
    scale = masked[0].factor * query.factor * right.factor * k[2]
    last.op, last.inputs = Op.ATTENTION, [q[0], k[0], values[0], mask]
    last.attrs = [q[1], q[1], float(scale), 0, 0.0, 0]
    return True
