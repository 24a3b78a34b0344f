"""Weights in the order in which the kernels read them: panels of 16 rows (kernels/include/frugal_plan.h, enum frugal_layout)."""

from __future__ import annotations

import numpy as np

from .ir import NUMPY, DType, Layout, Weight

PANEL = 16
BLOCK = 32
FLOATS = {Layout.F32_P16: DType.FLOAT, Layout.F16_P16: DType.FLOAT16, Layout.BF16_P16: DType.BFLOAT16}
W4_BLOCK = 304  # 256 bytes of codes, 16 fp16 scales, 16 zero points
W4O_BLOCK = 320  # 256 bytes of codes, 16 fp16 scales, 16 fp16 offsets
W8B_BLOCK = 544  # 512 bytes of codes, 16 fp16 scales
CODE_TYPES = {Layout.W8_P16: DType.INT8, Layout.W4_P16: DType.UINT8, Layout.W4O_P16: DType.UINT8, Layout.W8B_P16: DType.UINT8}


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
        Layout.W4O_P16: rows // PANEL * (columns // BLOCK) * W4O_BLOCK,
        Layout.W8B_P16: rows // PANEL * (columns // BLOCK) * W8B_BLOCK,
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


def pack_w8b(codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """int8 [n, k] in [-127, 127], float16 scale [n, ceil(k/32)] -> uint8 [np/16][kp/32][544]."""
    n, k = codes.shape
    rows, blocks = round_up(n, PANEL), round_up(k, BLOCK) // BLOCK
    result = np.empty((rows // PANEL, blocks, W8B_BLOCK), np.uint8)
    panels = _padded(codes, rows, blocks * BLOCK).view(np.uint32).reshape(rows // PANEL, PANEL, blocks, 8)  # by fours of k
    result[..., :512] = np.ascontiguousarray(panels.transpose(0, 2, 3, 1)).view(np.uint8).reshape(rows // PANEL, blocks, 512)
    result[..., 512:] = _halves(scale, rows, blocks)
    return result


def _halves(values: np.ndarray, rows: int, blocks: int) -> np.ndarray:
    """float16 [n, blocks] -> bytes [panels, blocks, 32]."""
    panels = _padded(values.astype(np.float16, copy=False), rows, blocks).reshape(-1, PANEL, blocks).transpose(0, 2, 1)
    return np.ascontiguousarray(panels).view(np.uint8).reshape(rows // PANEL, blocks, 2 * PANEL)


def _nibbles(codes: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """uint8 codes 0..15 of whole panels and blocks -> bytes [panels, blocks, 256]."""
    fours = np.ascontiguousarray(codes).view(np.uint32).reshape(rows // PANEL, PANEL, columns // BLOCK, 2, 4)
    halves = fours.transpose(3, 0, 2, 4, 1)  # half, panel, block, v, row; a four of k is one uint32
    return np.ascontiguousarray(halves[0] | halves[1] << 4).view(np.uint8).reshape(rows // PANEL, columns // BLOCK, 256)


def pack_w4(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """uint8 codes [n, k] 0..15, float16 scale and uint8 zero [n, ceil(k/32)] -> uint8 [np/16][kp/32][304]."""
    n, k = codes.shape
    rows, columns = round_up(n, PANEL), round_up(k, BLOCK)
    blocks = columns // BLOCK
    padded = _padded(codes, rows, columns)
    padded[:n, k:] = zero[:, -1:]  # beyond k the code equals the zero point: nothing is added
    result = np.empty((rows // PANEL, blocks, W4_BLOCK), np.uint8)
    result[..., :256] = _nibbles(padded, rows, columns)
    result[..., 256:288] = _halves(scale, rows, blocks)
    result[..., 288:] = _padded(zero, rows, blocks).reshape(-1, PANEL, blocks).transpose(0, 2, 1)
    return result


def pack_w4o(codes: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """uint8 codes [n, k] 0..15, float16 scale and offset [n, ceil(k/32)] -> uint8 [np/16][kp/32][320]."""
    n, k = codes.shape
    rows, columns = round_up(n, PANEL), round_up(k, BLOCK)
    result = np.empty((rows // PANEL, columns // BLOCK, W4O_BLOCK), np.uint8)
    result[..., :256] = _nibbles(_padded(codes, rows, columns), rows, columns)
    result[..., 256:288] = _halves(scale, rows, columns // BLOCK)
    result[..., 288:] = _halves(offset, rows, columns // BLOCK)
    return result


def pack(weight: Weight) -> np.ndarray:
    if weight.layout in FLOATS:
        assert weight.values is not None
        return pack_floats(weight.values(), NUMPY[FLOATS[weight.layout]])
    assert weight.codes is not None
    if weight.layout == Layout.W8_P16:
        return pack_w8(weight.codes)
    assert weight.scale is not None
    if weight.layout == Layout.W8B_P16:
        return pack_w8b(weight.codes, weight.scale)
    if weight.layout == Layout.W4O_P16:
        assert weight.offset is not None
        return pack_w4o(weight.codes, weight.scale, weight.offset)
    assert weight.zero is not None
    return pack_w4(weight.codes, weight.scale, weight.zero)
