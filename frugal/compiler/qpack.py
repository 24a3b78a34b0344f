"""Weights and parameters of integer convolutions in the order of FRUGAL_OP_QCONV and QDEPTH (kernels/include/frugal_plan.h)."""

from __future__ import annotations

import numpy as np

from .pack import PANEL, round_up

QUAD = 4


def panels_of(rows: np.ndarray, groups: int) -> np.ndarray:
    """[oc, ..] -> [groups * panels, 16, ..], zero rows where a group does not fill its last panel."""
    each = rows.shape[0] // groups
    padded = np.zeros((groups, round_up(each, PANEL), *rows.shape[1:]), rows.dtype)
    padded[:, :each] = rows.reshape(groups, each, *rows.shape[1:])
    return padded.reshape(-1, PANEL, *rows.shape[1:])


def pack_conv(weights: np.ndarray, groups: int, dilated: bool) -> np.ndarray:
    """int8 [oc, cg, kh, kw] -> [panels, runs, quads, 16, 4]; dilated: a run is one tap, else a row of the kernel."""
    oc, cg, kh, kw = weights.shape
    runs = (
        weights.transpose(0, 2, 3, 1).reshape(oc, kh * kw, cg)
        if dilated
        else weights.transpose(0, 2, 3, 1).reshape(oc, kh, kw * cg)
    )
    padded = np.zeros((*runs.shape[:2], round_up(runs.shape[2], QUAD)), np.int8)
    padded[..., : runs.shape[2]] = runs
    panels = panels_of(padded, groups).reshape(-1, PANEL, runs.shape[1], padded.shape[2] // QUAD, QUAD)
    return np.ascontiguousarray(panels.transpose(0, 2, 3, 1, 4))


# G of Winograd's F(4 x 4, 3 x 3) times what makes it integers, so that the result comes out 576-fold.
TRANSFORM = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 12]], np.int32)
MAX_WEIGHT_SUM = ((1 << 25) - 1) // 255


def can_transform(weights: np.ndarray) -> bool:
    """Whether transformed weights give the sums of int8 [oc, c, kh, kw] exactly whatever the codes are."""
    sums = np.abs(weights.astype(np.int64)).sum((1, 2, 3))
    return weights.shape[2:] == (3, 3) and weights.shape[1] % PANEL == 0 and bool((sums <= MAX_WEIGHT_SUM).all())


def pack_transformed(weights: np.ndarray) -> np.ndarray:
    """int8 [oc, c, 3, 3] -> int16 [36, panels, c/2, 16, 2]."""
    made = (TRANSFORM @ weights.astype(np.int32) @ TRANSFORM.T).astype(np.int16)
    panels = panels_of(made, 1).reshape(-1, PANEL, weights.shape[1] // 2, 2, 36)
    return np.ascontiguousarray(panels.transpose(4, 0, 2, 1, 3))


def pack_depth(weights: np.ndarray) -> np.ndarray:
    """int8 [oc, 1, kh, kw] -> [panels, quads, 16, 4]: taps in fours along the longer side of the kernel."""
    taps = weights[:, 0] if weights.shape[2] < weights.shape[3] else weights[:, 0].transpose(0, 2, 1)
    oc, across, along = taps.shape
    padded = np.zeros((oc, across, round_up(along, QUAD)), np.int8)
    padded[..., :along] = taps
    panels = panels_of(padded.reshape(oc, -1, QUAD), 1)
    return np.ascontiguousarray(panels.transpose(0, 2, 1, 3))


def pack_params(
    weights: np.ndarray, weight_zero: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, zero: int, groups: int
) -> np.ndarray:
    """int32 [panels, 4, 16] of int8 weights [oc, ..], their zero points, int32 bias and float32 multiplier [oc]."""
    total = weights.reshape(weights.shape[0], -1).astype(np.int64).sum(1) - weight_zero.astype(np.int64) * weights[0].size
    rows = np.zeros((weights.shape[0], 4), np.int32)
    for row, less in ((0, zero), (1, zero - 128)):
        rows[:, row] = ((bias.astype(np.int64) - less * total) & 0xFFFFFFFF).astype(np.uint32).view(np.int32)
    rows[:, 2] = multiplier.astype(np.float32).view(np.int32)
    rows[:, 3] = weight_zero
    return np.ascontiguousarray(panels_of(rows, groups).transpose(0, 2, 1))
