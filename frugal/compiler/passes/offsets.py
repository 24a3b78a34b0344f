"""Weights in blocks with offsets (GGUF's Q4_1 and Q4_K): w = d q + o, written as two products.

1. linear(x, d q) + linear(sums of x over blocks of 32, o), q in 0..15 without zero points, o that fp16 holds: one linear with
   weights d q + o (W4O_P16).
2. Where fp16 does not hold o: the codes get the zero point 8, and o becomes o + 8 d (float32).  The sum is the same; but 8-bit
   activations x' enter the first product only, and what they miss, x' - x, then meets d (q - 8), which is centred, and no longer
   d q, whose mean is 7.5 d.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..ir import Binary, Graph, Layout, Op, Reduce, Step, Tensor, Weight
from ..pack import BLOCK
from .epilogue import replace_follower
from .match import Matcher

CENTRE = 8


def take_offsets(graph: Graph) -> None:
    find = Matcher(graph)
    for step in list(graph.steps):
        if not step.is_binary(Binary.ADD):
            continue
        for codes, offsets in (step.inputs, step.inputs[::-1]):
            first, second = find.step(codes, Op.LINEAR), find.step(offsets, Op.LINEAR)
            if first is not None and second is not None and _belong(find, first, second):
                if not _join(graph, find, first, second, step):
                    _center(find, first, second)
                break


def _join(graph: Graph, find: Matcher, first: Step, second: Step, add: Step) -> bool:
    """Rule 1."""
    codes, offsets = _weight(find, first, Layout.W4_P16), _weight(find, second, Layout.F32_P16)
    assert codes is not None and offsets is not None and offsets.values is not None
    values = offsets.values()
    half = values.astype(np.float16)
    if find.only_use(first.out) is not add or (half.astype(np.float32) != values).any():
        return False
    tensor = first.inputs[1]
    assert tensor is not None
    codes.layout = tensor.layout = Layout.W4O_P16
    codes.zero, codes.offset = None, np.ascontiguousarray(half)
    replace_follower(graph, first, add)
    return True


def _weight(find: Matcher, step: Step, layout: Layout) -> Weight | None:
    """The weight of a linear, when it has this layout and no other reader."""
    tensor = step.inputs[1]
    if tensor is None or tensor.weight is None or tensor.weight.layout != layout or len(find.uses.get(tensor, [])) != 1:
        return None
    return tensor.weight


def _belong(find: Matcher, first: Step, second: Step) -> bool:
    codes, offsets = _weight(find, first, Layout.W4_P16), _weight(find, second, Layout.F32_P16)
    if codes is None or offsets is None or codes.zero is None or codes.zero.any() or codes.k % BLOCK:
        return False
    plain = all(not s.attrs[0] and s.inputs[3] is None and s.inputs[4] is None for s in (first, second))
    return plain and (offsets.n, offsets.k) == (codes.n, codes.k // BLOCK) and _sums_of(find, second.inputs[0], first.inputs[0])


def _sums_of(find: Matcher, sums: Tensor | None, x: Tensor | None) -> bool:
    """Whether `sums` holds the sums of x over blocks of 32 of its last axis."""
    view = find.step(sums, Op.ALIAS)
    reduce = find.step(view.inputs[0] if view is not None else sums, Op.REDUCE)
    blocks = find.step(reduce.inputs[0], Op.ALIAS) if reduce is not None else None
    if reduce is None or blocks is None or blocks.inputs[0] is not x or x is None:
        return False
    last = blocks.out.rank - 1
    return blocks.out.shape[-1] == BLOCK and blocks.out.rank == x.rank + 1 and reduce.attrs == [int(Reduce.SUM), 1 << last]


def _center(find: Matcher, first: Step, second: Step) -> None:
    codes, offsets = _weight(find, first, Layout.W4_P16), _weight(find, second, Layout.F32_P16)
    assert codes is not None and offsets is not None and codes.zero is not None and offsets.values is not None
    codes.zero = np.full_like(codes.zero, CENTRE)
    assert codes.scale is not None
    offsets.values = _moved(offsets.values, codes.scale)


def _moved(values: Callable[[], np.ndarray], scale: np.ndarray) -> Callable[[], np.ndarray]:
    def moved() -> np.ndarray:
        return np.asarray(values() + np.float32(CENTRE) * scale.astype(np.float32), np.float32)

    return moved
