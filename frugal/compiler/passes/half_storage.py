"""Weights that float16 or bfloat16 holds exactly are stored so: half the bytes, the same result bit for bit.

A float32 weight of a linear, whether it comes from such a model or was written as float32, is kept as float16 when every value
is one (else as bfloat16); the kernels widen it when they read it.  Runs last: other passes see float32.
"""

from __future__ import annotations

import numpy as np

from ..ir import NUMPY, DType, Graph, Layout, Op, Tensor, ml_dtypes

PROBE = 4096  # values that are looked at before the rest


def store_halves(graph: Graph) -> None:
    seen = set[Tensor]()
    for step in graph.steps:
        packed = step.inputs[1] if step.op == Op.LINEAR else None
        if packed is None or packed in seen or packed.layout != Layout.F32_P16 or packed.weight is None:
            continue
        seen.add(packed)
        assert packed.weight.values is not None
        values = packed.weight.values()
        if holds(values, np.dtype(np.float16)):
            _store(packed, Layout.F16_P16, DType.FLOAT16)
        elif ml_dtypes is not None and holds(values, NUMPY[DType.BFLOAT16]):
            _store(packed, Layout.BF16_P16, DType.BFLOAT16)


def holds(values: np.ndarray, dtype: np.dtype) -> bool:
    """Whether every value survives as `dtype`; a NaN does not."""
    with np.errstate(over="ignore", invalid="ignore"):
        for part in (values.reshape(-1)[:PROBE], values):
            if not (part.astype(dtype).astype(np.float32) == part).all():
                return False
    return True


def _store(packed: Tensor, layout: Layout, dtype: DType) -> None:
    assert packed.weight is not None
    packed.layout = packed.weight.layout = layout
    packed.dtype = dtype
