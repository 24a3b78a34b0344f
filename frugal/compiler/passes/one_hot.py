"""Products with one-hot rows.

1. (ids == 0 1 .. v-1), cast to float32, times a finite constant [v, n]: rows of that table.  An id outside gives zeros, as
   the product does: the table has a row of zeros in front and one behind, and ids are limited to these.
"""

from __future__ import annotations

import numpy as np

from ..ir import NUMPY, Binary, DType, Graph, Layout, Op, Step, Tensor
from .match import Matcher

ZERO_ROWS = 2


def gather_one_hot(graph: Graph) -> None:
    find = Matcher(graph)
    for step in list(graph.steps):
        ids = _ids(find, step)
        table = _table(step) if ids is not None else None
        if ids is None or table is None:
            continue
        rows, made = _limited(ids, table.shape[0] - ZERO_ROWS)
        graph.steps[graph.steps.index(step) : graph.steps.index(step)] = made
        step.op, step.attrs = Op.GATHER, [0]
        step.inputs = [Tensor(f"{step.name}/rows", DType.FLOAT, table.shape, const=table), rows]


def _ids(find: Matcher, step: Step) -> Tensor | None:
    """The ids [.., 1] when the step is a plain LINEAR of their one-hot rows."""
    if step.op != Op.LINEAR or any(t is not None for t in step.inputs[2:]) or step.attrs[0]:
        return None
    cast = find.step(step.inputs[0], Op.CAST)
    equal = find.binary(cast.inputs[0], Binary.EQUAL) if cast is not None else None
    for ids, codes in (equal.inputs, equal.inputs[::-1]) if equal is not None else ():
        if ids is None or codes is None or codes.const is None or ids.dtype not in (DType.INT32, DType.INT64):
            continue
        values = codes.const.reshape(-1)
        counts = codes.shape[-1:] == values.shape and (values == np.arange(values.size)).all()
        if counts and ids.shape == (*step.out.shape[:-1], 1):
            return ids
    return None


def _table(step: Step) -> np.ndarray | None:
    """Rows of the weight [v, n] between two of zeros; None when it is not of finite floats."""
    packed = step.inputs[1]
    weight = packed.weight if packed is not None else None
    if weight is None or weight.layout != Layout.F32_P16 or weight.values is None:
        return None
    values = weight.values().T.astype(np.float32)
    if not np.isfinite(values).all():
        return None  # 0 times such a weight is not 0
    table: np.ndarray = np.pad(values, ((1, 1), (0, 0))) + np.float32(0)  # the product's sum never is -0
    return table


def _limited(ids: Tensor, v: int) -> tuple[Tensor, list[Step]]:
    """Steps from ids [.., 1] to places [..] in the table."""
    x, steps = ids, list[Step]()
    for kind, number in ((Binary.MAX, -1), (Binary.MIN, v), (Binary.ADD, 1)):
        value = np.array(number, NUMPY[ids.dtype])
        limit = Tensor(f"{ids.name}/{kind.name.lower()}", ids.dtype, (), const=value)
        made = Tensor(f"{ids.name}/row", ids.dtype, ids.shape)
        steps.append(Step(Op.BINARY, [x, limit], [made], [int(kind)], ids.name))
        x = made
    flat = Tensor(f"{ids.name}/rows", ids.dtype, ids.shape[:-1])
    steps.append(Step(Op.ALIAS, [x], [flat], [], ids.name))
    return flat, steps
