"""int8 rounding: one symmetric float32 scale per row, codes in [-127, 127], zero point 0. numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def quantize_rows(w: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """w [rows, cols] finite -> codes int8 [rows, cols] and scales float32 [rows], w ~ codes * scale.

    scale = max|row| / 127, so that no value is clipped and the error is at most scale / 2 (plus rounding of float32);
    a row of zeros has scale 1. Scales are normal numbers.
    """
    peak = np.abs(w).max(axis=1, initial=0).astype(np.float32)
    scale = np.maximum(peak / np.float32(127), np.finfo(np.float32).tiny)
    scale = np.where(peak == 0, np.float32(1), scale).astype(np.float32)
    codes = np.clip(np.rint(w / scale[:, None]), -127, 127).astype(np.int8)
    return codes, scale


def dequantize_rows(codes: NDArray[np.int8], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values that the codes stand for, float32 [rows, cols]."""
    return np.asarray(codes * scale[:, None], np.float32)
