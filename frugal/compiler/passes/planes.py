"""Images whose planes come first, read by a convolution as they are.

1. A transpose to channels last that only convolutions of one group and few channels read goes: they read the planes, and the rows
   of their weights take the order in which a plane's pixels come. Of many channels the spans are too short for their number.
"""

from __future__ import annotations

import numpy as np

from ..ir import Graph, Layout, Op, Step, Tensor, Weight

MOST = 16  # channels; 1.0 to 1.8 times as fast as a transpose first
GROUPS, FORM, WINDOWS, EACH = 5, 6, 7, 4  # attributes of CONV
PLANAR = 2


def read_planes(graph: Graph) -> None:
    uses = graph.uses()
    for step in list(graph.steps):
        rank = step.out.rank if step.op == Op.TRANSPOSE else 0
        readers = uses.get(step.out, []) if rank else []
        if not readers or list(step.attrs) != [0, *range(2, rank), 1] or step.out.pinned or step.out in graph.outputs:
            continue
        if all(_fits(reader, step.out) for reader in readers):
            for reader in readers:
                _read(reader, step.inputs[0])


def _fits(step: Step, image: Tensor) -> bool:
    weight = step.inputs[1] if step.op == Op.CONV else None
    channels = image.shape[-1]
    if weight is None or weight.weight is None or weight.weight.values is None or weight.layout != Layout.F32_P16:
        return False
    alone = step.inputs[0] is image and all(t is not image for t in step.inputs[1:])
    return alone and step.attrs[GROUPS] == 1 and step.attrs[FORM] == 0 and isinstance(channels, int) and channels <= MOST


def _read(step: Step, planes: Tensor | None) -> None:
    weight = step.inputs[1]
    assert weight is not None and weight.weight is not None and weight.weight.values is not None
    old, values = weight.weight, weight.weight.values
    width = int(step.attrs[WINDOWS + 2 * EACH])  # type: ignore[arg-type]
    channels = int(step.inputs[0].shape[-1])  # type: ignore[union-attr, arg-type]

    def turned() -> np.ndarray:
        return np.ascontiguousarray(values().reshape(old.n, -1, width, channels).transpose(0, 1, 3, 2)).reshape(old.n, old.k)

    made = Weight(old.layout, old.n, old.k, values=turned)
    step.inputs[:2] = [planes, Tensor(weight.name, weight.dtype, weight.shape, weight=made, layout=weight.layout)]
    step.attrs[FORM] = PLANAR
