"""Attention that exporters spell out with transposes and two products.

1. softmax(scale * q k^T + mask) v, where q, k, v are [b, s, h*d] viewed as [b, s, h, d] and transposed to [b, h, s, d] (k
   possibly straight to [b, h, d, t]), and the result is transposed back and viewed as [b, s, h*d]: one ATTENTION.
2. The scale is a constant that multiplies or divides the product, or q, or k, or several of them.
3. The mask is added to the scaled product; its shape must broadcast to [b, h, s, t].
4. q, k and v may be the parts of one tensor [b, s, 3*h*d], viewed as [b, s, 3, h, d], transposed to [3, b, h, s, d] and sliced or
   indexed: ATTENTION reads that tensor as it is.
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
PARTS_FIRST = [2, 0, 3, 1, 4]


@dataclass
class _Scaled:
    tensor: Tensor
    factor: float


@dataclass
class _Heads:
    """What [b, h, s, d] is a view of: x [b, s, h*d], or part 0, 1 or 2 of x [b, s, 3*h*d]."""

    x: Tensor
    heads: int
    part: int | None = None


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


def _split_heads(find: Matcher, tensor: Tensor | None, perm: list[int]) -> _Heads | None:
    """A tensor that is a view [b, s, h, d] transposed by perm."""
    turned = find.step(tensor, Op.TRANSPOSE)
    if turned is None or list(turned.attrs) != perm:
        return None
    view = find.step(turned.inputs[0], Op.ALIAS)
    if view is None or view.out.rank != 4:
        return None
    x, heads = view.inputs[0], view.out.shape[2]
    if x is None or x.rank != 3 or not isinstance(heads, int) or x.shape[:2] != view.out.shape[:2]:
        return None
    return _Heads(x, heads)


def _chosen(find: Matcher, tensor: Tensor | None) -> tuple[Tensor, int] | None:
    """(x, i) of a tensor x[i]."""
    gather = find.step(tensor, Op.GATHER)
    if gather is not None:
        x, index = gather.inputs[:2]
        number = index.scalar() if index is not None and index.rank == 0 else None
        return (x, int(number)) if x is not None and number is not None and number >= 0 and gather.attrs[0] == 0 else None
    squeeze = find.step(tensor, Op.ALIAS)
    piece = find.step(squeeze.inputs[0], Op.SLICE) if squeeze is not None else None
    x = piece.inputs[0] if piece is not None and len(piece.inputs) == 1 else None
    if piece is None or squeeze is None or x is None or piece.out.shape != (1, *squeeze.out.shape):
        return None
    first, *rest = piece.attrs[::2]
    whole = piece.out.shape[1:] == x.shape[1:] and not any(rest) and all(step == 1 for step in piece.attrs[1::2])
    return (x, first) if whole and isinstance(first, int) else None


def _part(find: Matcher, tensor: Tensor | None) -> _Heads | None:
    """A tensor [b, h, s, d] that is a third of [b, s, 3*h*d]."""
    chosen = _chosen(find, tensor)
    turned = find.step(chosen[0], Op.TRANSPOSE) if chosen is not None else None
    view = find.step(turned.inputs[0], Op.ALIAS) if turned is not None and list(turned.attrs) == PARTS_FIRST else None
    if chosen is None or view is None:
        return None
    x, shape = view.inputs[0], view.out.shape
    if x is None or x.rank != 3 or shape[2] != 3 or not isinstance(shape[3], int) or x.shape[:2] != shape[:2]:
        return None
    return _Heads(x, shape[3], chosen[1])


def _heads(find: Matcher, tensor: Tensor | None) -> _Heads | None:
    return _split_heads(find, tensor, HEADS_FIRST) or _part(find, tensor)


def _keys(find: Matcher, tensor: Tensor) -> tuple[_Heads, float] | None:
    """(keys, factor) of a tensor [b, h, d, t]."""
    straight = _split_heads(find, tensor, KEYS_LAST)
    if straight is not None:
        return straight, 1.0
    swapped = find.step(tensor, Op.TRANSPOSE)
    if swapped is None or list(swapped.attrs) != SWAP:
        return None
    inner = _unscale(find, swapped.inputs[0])
    heads = _heads(find, inner.tensor) if inner is not None else None
    return (heads, inner.factor) if heads is not None and inner is not None else None


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
    v = _heads(find, mixed.inputs[1])
    if softmax is None or v is None or softmax.attrs[0] != softmax.out.rank - 1 or softmax.attrs[1]:
        return False
    masked = _masked(find, softmax.inputs[0])
    product = find.step(masked[0].tensor, Op.MATMUL) if masked is not None else None
    if masked is None or product is None or not _product(product) or product.inputs[1] is None:
        return False
    query = _unscale(find, product.inputs[0])
    q = _heads(find, query.tensor) if query is not None else None
    right = _unscale(find, product.inputs[1])
    keys = _keys(find, right.tensor) if right is not None else None
    if q is None or keys is None or query is None or right is None:
        return False
    operands = _operands(q, keys[0], v)
    if operands is None or last.out.shape != (*q.x.shape[:2], v.x.shape[2] if v.part is None else _third(v.x.shape[2])):
        return False
    mask = masked[1]
    if mask is not None and (mask.rank > 4 or merge([mask.shape, product.out.shape]) != product.out.shape):
        return False
    scale = masked[0].factor * query.factor * right.factor * keys[1]
    last.op, last.inputs = Op.ATTENTION, [*operands, mask]
    last.attrs = [q.heads, q.heads, float(scale), 0, 0.0, int(q.part is not None)]
    return True


def _third(width: Dim) -> Dim | None:
    return width // 3 if isinstance(width, int) else None


def _operands(q: _Heads, k: _Heads, v: _Heads) -> list[Tensor | None] | None:
    """The first three operands of ATTENTION: three tensors, or one that holds all of them."""
    if not q.heads == k.heads == v.heads:
        return None
    parts = (q.part, k.part, v.part)
    if parts == (None, None, None):
        return [q.x, k.x, v.x]
    return [q.x, None, None] if parts == (0, 1, 2) and q.x is k.x is v.x else None
