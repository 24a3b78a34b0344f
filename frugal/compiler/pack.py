"""Weights in the order in which the kernels read them: panels of 16 rows (kernels/include/frugal_plan.h, enum frugal_layout)."""

from __future__ import annotations

import numpy as np

from .ir import NUMPY, DType, Layout, Weight

PANEL = 16
BLOCK = 32
FLOATS = {Layout.F32_P16: DType.FLOAT, Layout.F16_P16: DType.FLOAT16, Layout.BF16_P16: DType.BFLOAT16}
W4_BLOCK = 304  # 256 bytes of codes, 16 fp16 scales, 16 zero points


def round_up(n: int, to: int) -> int:
    return -(-n // to) * to


def packed_bytes(layout: Layout, n: int, k: int) -> int:
    """Size of a packed [n, k] weight in bytes."""
    rows, columns = round_up(n, PANEL), round_up(k, BLOCK)
    return {
        Layout.F32_P16: 4 * rows * k,
        Layout.F16_P16: 2 * rows * k,
        Layout.BF16_P16: 2 * rows * k,
        Layout.W8_P16: rows * columns,
        Layout.W4_P16: rows // PANEL * (columns // BLOCK) * W4_BLOCK,
    }[layout]


def _padded(values: np.ndarray, rows: int, columns: int, fill: int = 0) -> np.ndarray:
    if values.shape == (rows, columns):
        return values
    result = np.full((rows, columns), fill, values.dtype)
    result[: values.shape[0], : values.shape[1]] = values
    return result


def pack_floats(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """[n, k] -> [np/16][k][16] as float32, float16 or bfloat16."""
    n, k = values.shape
    rows = round_up(n, PANEL)
    return np.ascontiguousarray(_padded(values.astype(dtype, copy=False), rows, k).reshape(-1, PANEL, k).transpose(0, 2, 1))


def pack_w8(codes: np.ndarray) -> np.ndarray:
    """int8 [n, k] in [-127, 127] -> [np/16][kp/4][16][4]."""
    n, k = codes.shape
    rows, columns = round_up(n, PANEL), round_up(k, BLOCK)
    panels = _padded(codes, rows, columns).reshape(rows // PANEL, PANEL, columns // 4, 4)
    return np.ascontiguousarray(panels.transpose(0, 2, 1, 3))


def pack_w4(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """uint8 codes [n, k] 0..15, float16 scale and uint8 zero [n, ceil(k/32)] -> uint8 [np/16][kp/32][304]."""
    n, k = codes.shape
    rows, columns = round_up(n, PANEL), round_up(k, BLOCK)
    blocks = columns // BLOCK
    padded = _padded(codes, rows, columns)
    padded[:n, k:] = zero[:, -1:]  # beyond k the code equals the zero point: nothing is added
    halves = padded.reshape(rows // PANEL, PANEL, blocks, 2, 4, 4)  # panel, row, block, half, v, j
    nibbles = halves.transpose(3, 0, 2, 4, 1, 5)  # half, panel, block, v, row, j
    result = np.zeros((rows // PANEL, blocks, W4_BLOCK), np.uint8)
    result[..., :256] = (nibbles[0] | nibbles[1] << 4).reshape(rows // PANEL, blocks, 256)
    scales = _padded(scale.astype(np.float16, copy=False), rows, blocks).reshape(-1, PANEL, blocks).transpose(0, 2, 1)
    result[..., 256:288] = np.ascontiguousarray(scales).view(np.uint8).reshape(rows // PANEL, blocks, 32)
    result[..., 288:] = _padded(zero, rows, blocks).reshape(-1, PANEL, blocks).transpose(0, 2, 1)
    return result


def pack(weight: Weight) -> np.ndarray:
    if weight.layout in FLOATS:
        assert weight.values is not None
        return pack_floats(weight.values(), NUMPY[FLOATS[weight.layout]])
    assert weight.codes is not None
    if weight.layout == Layout.W8_P16:
        return pack_w8(weight.codes)
    assert weight.scale is not None and weight.zero is not None
    return pack_w4(weight.codes, weight.scale, weight.zero)
