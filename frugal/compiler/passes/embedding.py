"""Quantized embedding tables.

1. Dequantize(Gather(codes, ids), Gather(scales, ids)), both along axis 0 of constant tables with the same ids, the scale one per
   row (or per block of a row), possibly through a Cast or a view: one GATHER_DEQUANTIZE.
"""

from __future__ import annotations

import numpy as np

from ..ir import DType, Graph, Op, Step, Tensor
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
