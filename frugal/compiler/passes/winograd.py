"""3 x 3 convolutions that move by one take the form with fewer products (CONV_WINOGRAD), where that pays.

The transformed weights are four times as large, so that they have to be few, and the image large enough to use them: the tiles
of 4 x 4 pixels have to be full for the most part.  Runs last: what fuses into a convolution knows only CONV.
"""

from __future__ import annotations

import numpy as np

from ..conv_ops import PLAIN_WINDOW
from ..ir import DType, Graph, Op, Step, Tensor
from ..pack import PANEL, round_up

MIN_CHANNELS = 12  # in and out: the transforms cost as much as products of so many
MAX_WEIGHTS = 64 * 64 * 9  # more leave the second-level cache when they are transformed
MIN_PIXELS = 36
GROUPS, FORM, WINDOWS = 5, 6, 7
MOVES = (3, 1, 1)  # kernel, stride, dilation
TRANSFORM = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)


def use_winograd(graph: Graph) -> None:
    for step in graph.steps:
        if step.op == Op.CONV and _fits(step) and _pays(step):
            _replace(step)


def _fits(step: Step) -> bool:
    x, weight = step.inputs[0], step.inputs[1]
    assert x is not None and weight is not None
    windows = tuple(step.attrs[WINDOWS:])
    return (
        x.rank == 4
        and step.attrs[GROUPS] == 1
        and step.attrs[FORM] == 0
        and windows[:4] == PLAIN_WINDOW
        and windows[4:7] == MOVES
        and windows[8:11] == MOVES
        and weight.weight is not None
        and weight.weight.values is not None
    )


def _full(pixels: int) -> float:
    """How much of the tiles along an axis is used."""
    return pixels / round_up(pixels, 4)


def _pays(step: Step) -> bool:
    weight, (h, w) = step.inputs[1], step.out.shape[1:3]
    assert weight is not None and weight.weight is not None
    n, k = weight.weight.n, weight.weight.k
    if n < MIN_CHANNELS or k < MIN_CHANNELS * 9 or n * k > MAX_WEIGHTS:
        return False
    return not (isinstance(h, int) and isinstance(w, int)) or (h * w >= MIN_PIXELS and _full(h) * _full(w) > 0.5)


def transformed(rows: np.ndarray, channels: int) -> np.ndarray:
    """float32 [n, 9 c] -> [36, panels, c, 16]."""
    kernels = rows.reshape(-1, 3, 3, channels).transpose(0, 3, 1, 2).astype(np.float64)
    made = (TRANSFORM @ kernels @ TRANSFORM.T).astype(np.float32)
    padded = np.zeros((round_up(len(rows), PANEL), channels, 36), np.float32)
    padded[: len(rows)] = made.reshape(len(rows), channels, 36)
    return np.ascontiguousarray(padded.reshape(-1, PANEL, channels, 36).transpose(3, 0, 2, 1))


def _replace(step: Step) -> None:
    weight = step.inputs[1]
    assert weight is not None and weight.weight is not None and weight.weight.values is not None
    values = transformed(weight.weight.values(), weight.weight.k // 9)
    step.op = Op.CONV_WINOGRAD
    step.inputs[1] = Tensor(weight.name, DType.FLOAT, values.shape, const=values)
    step.attrs = [*step.attrs[:GROUPS], step.attrs[WINDOWS + 7], step.attrs[WINDOWS + 11]]
