"""Query, key and value projections of one input.

1. Three linears without activation or residual, of the same input and the same weight layout, each read only by one attention
   with equal head sizes, become one linear with the three weights stacked, and the attention reads its result in place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir import DType, Graph, Layout, Op, Step, Tensor, Weight
from ..pack import PANEL, round_up
from .match import Matcher


def join_qkv(graph: Graph) -> None:
    find = Matcher(graph)
    for step in list(graph.steps):
        if step.op == Op.ATTENTION and step.attrs[5] == 0:
            _join(graph, find, step)


def _join(graph: Graph, find: Matcher, attention: Step) -> None:
    operands = attention.inputs[:3]
    linears = [find.step(t, Op.LINEAR) for t in operands]
    if any(s is None for s in linears) or len({id(s) for s in linears}) < 3:
        return
    steps = [s for s in linears if s is not None]
    weights = [s.inputs[1].weight for s in steps if s.inputs[1] is not None and s.inputs[1].weight is not None]
    first = steps[0]
    same = all(s.inputs[0] is first.inputs[0] and not s.attrs[0] and s.inputs[4] is None for s in steps)
    same = same and len(weights) == 3 and len({w.layout for w in weights}) == 1
    same = same and all(find.only_use(s.out) is attention for s in steps)
    heads, kv_heads = int(attention.attrs[0]), int(attention.attrs[1])  # type: ignore[arg-type]
    if not same or weights[1].n != weights[2].n or weights[0].n * kv_heads != weights[1].n * heads:
        return
    n = sum(w.n for w in weights)
    layout = weights[0].layout
    joined = Tensor(f"{attention.name}/qkv", _weight_dtype(first), (n, weights[0].k), weight=stack(weights), layout=layout)
    result = Tensor(f"{attention.name}/qkv_out", DType.FLOAT, (*first.out.shape[:-1], n))
    place = max(i for i, s in enumerate(graph.steps) if s in steps)
    x = first.inputs[0]
    fused = Step(Op.LINEAR, [x, joined, None, _biases(steps, weights, n), None], [result], [0], attention.name)
    graph.steps.insert(place + 1, fused)
    attention.inputs[:3] = [result, None, None]
    attention.attrs[5] = 1


def _weight_dtype(step: Step) -> int:
    weight = step.inputs[1]
    assert weight is not None
    return weight.dtype


def stack(weights: Sequence[Weight]) -> Weight:
    """Weights of one layout, one below the other."""
    layout, k, n = weights[0].layout, weights[0].k, sum(w.n for w in weights)
    if layout == Layout.F32_P16:
        return Weight(layout, n, k, values=lambda: np.concatenate([w.values() for w in weights if w.values is not None]))

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(w, name) for w in weights])

    zero = joined("zero") if layout == Layout.W4_P16 else None
    offset = joined("offset") if layout == Layout.W4O_P16 else None
    return Weight(layout, n, k, codes=joined("codes"), scale=joined("scale"), zero=zero, offset=offset)


def _biases(steps: Sequence[Step], weights: Sequence[Weight], n: int) -> Tensor | None:
    if all(s.inputs[3] is None for s in steps):
        return None
    values, start = np.zeros(round_up(n, PANEL), np.float32), 0
    for step, weight in zip(steps, weights, strict=True):
        bias = step.inputs[3]
        if bias is not None and bias.const is not None:
            values[start : start + weight.n] = bias.const[: weight.n]
        start += weight.n
    return Tensor(f"{steps[0].name}/qkv_bias", DType.FLOAT, values.shape, const=values)
