"""int4 rounding in blocks along the inputs: fp16 scale and integer zero point per block. numpy only.

w ~ (code - zero) * scale, code and zero in 0..15; stored as INT4 code - 8 and zero - 8, which leaves the difference as
it is. Scales are positive normal fp16 (0x0400 to 0x7bff) and codes are computed against the rounded scale, so that what
is measured here is what every runtime computes.

Methods: 'rtn' takes scale and zero from the block's minimum and maximum (error at most scale / 2). 'grid' (default)
also tries smaller scales, neighbouring zeros and one least-squares refit of the scale, and keeps for each block
whatever has the least squared error, plain rounding included.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
SHRINK = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
_LO, _HI = np.float32(2.0**-14), np.float32(65504.0)
_PIECE = 1 << 15  # blocks handled at a time: 4 MiB temporaries


def quantize_blocks(
    w: F32, block: int = 32, method: str = "grid"
) -> tuple[NDArray[np.int8], NDArray[np.float16], NDArray[np.int8]]:
    """w [rows, cols] finite, cols a multiple of block -> codes int8 [rows, cols], scales fp16 and zeros int8
    [rows, cols / block]; codes and zeros in 0..15. |w| must stay below 65504 * 7.
    """
    rows, cols = w.shape
    blocks = np.ascontiguousarray(w, np.float32).reshape(-1, block)
    codes = np.empty(blocks.shape, np.int8)
    scale, zero = np.empty(len(blocks), np.float16), np.empty(len(blocks), np.int8)
    fit = _rtn if method == "rtn" else _grid
    for a in range(0, len(blocks), _PIECE):
        v = blocks[a : a + _PIECE]
        s, z = fit(v)
        codes[a : a + _PIECE] = _codes(v, s, z)
        scale[a : a + _PIECE] = s
        zero[a : a + _PIECE] = z
    return codes.reshape(rows, cols), scale.reshape(rows, -1), zero.reshape(rows, -1)


def dequantize_blocks(codes: NDArray[np.int8], scale: NDArray[np.float16], zero: NDArray[np.int8]) -> F32:
    """The values that codes (0..15) stand for, float32 [rows, cols]."""
    rows, cols = codes.shape
    q = codes.reshape(rows, scale.shape[1], -1).astype(np.float32) - zero[:, :, None]
    return np.asarray(q * scale.astype(np.float32)[:, :, None], np.float32).reshape(rows, cols)


def pack(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Codes 0..15 -> ONNX INT4 raw bytes of code - 8: two per byte in C order, the first in the low nibble."""
    flat = (codes.reshape(-1) - 8).astype(np.uint8) & 15
    if flat.size % 2:
        flat = np.append(flat, np.uint8(0))
    return np.asarray(flat[0::2] | flat[1::2] << 4, np.uint8)


def _half_up(s: F32) -> F32:
    """The smallest positive normal fp16 not below s, as float32 (65504 where s is larger)."""
    s = np.clip(s, _LO, _HI)
    h = s.astype(np.float16)
    h = np.where(h.astype(np.float32) < s, np.nextafter(h, np.float16(65504)), h)
    return np.asarray(h, np.float32)


def _half(s: F32) -> F32:
    """The nearest positive normal fp16, as float32."""
    return np.asarray(np.clip(s, _LO, _HI).astype(np.float16), np.float32)


def _rtn(v: F32) -> tuple[F32, F32]:
    """Scale and zero of each block [n, block] from its range, which always includes 0 (so zeros stay exact)."""
    lo, hi = np.minimum(v.min(axis=1), 0), np.maximum(v.max(axis=1), 0)
    s = _half_up((hi / 15 - lo / 15).astype(np.float32))
    return s, np.clip(np.rint(-lo / s), 0, 15).astype(np.float32)


def _codes(v: F32, s: F32, z: F32) -> F32:
    q = v / s[:, None]
    q += z[:, None]
    np.rint(q, q)
    return np.clip(q, 0, 15, q)


def _grid(v: F32) -> tuple[F32, F32]:
    """As _rtn, then the best of shrunken scales, zeros one step away, and a least-squares scale."""
    s0, z0 = _rtn(v)
    best_s, best_z = s0, z0
    best_e, _ = _error(v, s0, z0)

    def offer(s: F32, z: F32) -> None:
        nonlocal best_s, best_z, best_e
        e, _ = _error(v, s, z)
        better = e < best_e
        best_s, best_z = np.where(better, s, best_s), np.where(better, z, best_z)
        best_e = np.where(better, e, best_e)

    for p in SHRINK:
        offer(_half(s0 * np.float32(p)), z0)
    for step in (-1, 1):
        offer(best_s, np.clip(best_z + np.float32(step), 0, 15))
    _, d = _error(v, best_s, best_z)
    power = (d * d).sum(axis=1)
    offer(_half(np.where(power > 0, (d * v).sum(axis=1) / np.maximum(power, 1), best_s)), best_z)
    return best_s, best_z


def _error(v: F32, s: F32, z: F32) -> tuple[F32, F32]:
    """Sum of squared errors of each block, and code - zero."""
    d = _codes(v, s, z)
    d -= z[:, None]
    e = d * s[:, None]
    e -= v
    return np.einsum("ij,ij->i", e, e), d
