"""Quantized embedding tables.

1. Dequantize(Gather(codes, ids), Gather(scales, ids)), both along axis 0 of constant tables with the same ids, the scale one per
   row (or per block of a row), possibly through a Cast or a view: one GATHER_DEQUANTIZE.
2. Where the table is also the weight of a linear (tied embeddings), of the same codes and scales: GATHER_PACKED of that weight,
   so that the plan holds it once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..ir import DType, Graph, Layout, Op, Step, Tensor, Weight
from .match import Matcher


def gather_dequantize(graph: Graph) -> None:
    find = Matcher(graph)
    for step in graph.steps:
        if step.op == Op.DEQUANTIZE:
            _fuse(graph, find, step)


def _fuse(graph: Graph, find: Matcher, step: Step) -> None:
    codes, scales, zero = step.inputs
    axis, block = int(step.attrs[0]), int(step.attrs[1])  # type: ignore[arg-type]
    rows, lookup = find.step(codes, Op.GATHER), scales
    while lookup is not None and (before := find.producers.get(lookup)) is not None and before.op in (Op.CAST, Op.ALIAS):
        lookup = before.inputs[0]
    factors = find.step(lookup, Op.GATHER)
    if rows is None or factors is None or (zero is not None and (zero.const is None or zero.const.any())):
        return
    table, ids = rows.inputs
    scale, same = factors.inputs
    if ids is not same or table is None or scale is None or table.const is None or scale.const is None:
        return
    if table.rank != 2 or table.dtype != DType.INT8 or rows.attrs[0] != 0 or factors.attrs[0] != 0:
        return
    k, groups = table.const.shape[1], int(np.prod(scale.const.shape[1:]))
    if axis != step.out.rank - 1 or not block or groups == 0 or k % groups or (groups > 1 and k // groups != block) or block > k:
        return
    if groups == 1 and block < k:
        return
    factor = Tensor(scale.name, scale.dtype, (scale.const.shape[0], groups), const=scale.const.reshape(-1, groups))
    step.op, step.inputs, step.attrs = Op.GATHER_DEQUANTIZE, [table, factor, ids], []


def tie_tables(graph: Graph) -> None:
    weights = list(_weights(graph))
    for step in graph.steps:
        if step.op != Op.GATHER_DEQUANTIZE:
            continue
        table, scale, ids = step.inputs
        for tensor, weight in weights:
            if table is not None and scale is not None and _same(table, scale, weight):
                step.op, step.inputs = Op.GATHER_PACKED, [tensor, None, ids]
                break


def _weights(graph: Graph) -> Iterator[tuple[Tensor, Weight]]:
    for step in graph.steps:
        tensor = step.inputs[1] if step.op == Op.LINEAR else None
        if tensor is not None and tensor.weight is not None and tensor.layout in (Layout.W8_P16, Layout.W8B_P16):
            yield tensor, tensor.weight


def _same(table: Tensor, scale: Tensor, weight: Weight) -> bool:
    """Whether a table [v, k] of int8 with scales [v, groups] holds the values of a weight."""
    assert table.const is not None and scale.const is not None and weight.codes is not None and weight.scale is not None
    groups = scale.const.shape[1]
    own = weight.scale.reshape(weight.n, -1).astype(np.float32)
    if table.shape != (weight.n, weight.k) or own.shape[1] % groups:
        return False
    spread = np.repeat(scale.const.astype(np.float32), own.shape[1] // groups, axis=1)
    return np.array_equal(spread, own) and np.array_equal(table.const, weight.codes)
