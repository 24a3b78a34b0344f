"""Block formats of GGUF and their values.

Names are ggml's: a super-block of Q?_K holds 256 weights. Formulas: ggml-common.h and ggml-quants.c (MIT) describe them.
    Q4_0  w = d (q - 8)               Q4_1  w = d q + m              Q8_0  w = d q
    Q5_0  w = d (q - 16)              Q5_1  w = d q + m
    Q4_K, Q5_K  w = d s q - e t, s and t 6-bit numbers of each 32 weights
    Q6_K  w = d s (q - 32), s an int8 of each 16 weights
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# ggml_type numbers, and (weights, bytes) of a block.
FORMATS = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    6: "Q5_0",
    7: "Q5_1",
    8: "Q8_0",
    12: "Q4_K",
    13: "Q5_K",
    14: "Q6_K",
    30: "BF16",
}
BLOCKS = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q4_0": (32, 18),
    "Q4_1": (32, 20),
    "Q5_0": (32, 22),
    "Q5_1": (32, 24),
    "Q8_0": (32, 34),
    "Q4_K": (256, 144),
    "Q5_K": (256, 176),
    "Q6_K": (256, 210),
}


def half(b: U8, at: int) -> F32:
    """The fp16 at byte `at` of blocks [.., bytes], float32 [.., 1]."""
    return np.ascontiguousarray(b[..., at : at + 2]).view("<f2").astype(np.float32)


def nibbles(b: U8) -> U8:
    """[.., n] bytes -> [.., 2 n] codes, low nibbles first."""
    return np.concatenate([b & 15, b >> 4], -1)


def _fifth(b: U8) -> U8:
    """The 32 bits of 4 bytes as 0 or 16, [.., 32]."""
    return np.asarray(np.unpackbits(np.ascontiguousarray(b), axis=-1, bitorder="little") << 4, np.uint8)


def codes5(b: U8, at: int) -> U8:
    """The codes 0 to 31 of Q5_0 and Q5_1, whose high bits start at byte `at`."""
    return nibbles(b[..., at + 4 :]) | _fifth(b[..., at : at + 4])


def scales6(b: U8) -> tuple[U8, U8]:
    """The 8 scales and 8 minima, 6 bits each, of the 12 bytes of Q4_K and Q5_K: uint8 [.., 8]."""
    low, mid, high = b[..., 0:4], b[..., 4:8], b[..., 8:12]
    s = np.concatenate([low & 63, (high & 15) | (low >> 6) << 4], -1)
    return s, np.concatenate([mid & 63, (high >> 4) | (mid >> 6) << 4], -1)


def pairs_of_32(b: U8) -> U8:
    """[.., 128] bytes -> codes [.., 8, 32]: each 32 bytes hold 32 weights in their low and 32 in their high nibbles."""
    q = b.reshape(*b.shape[:-1], 4, 1, 32)
    return np.concatenate([q & 15, q >> 4], -2).reshape(*b.shape[:-1], 8, 32)


def _q4_k(b: U8) -> F32:
    s, t = scales6(b[..., 4:16])
    q = pairs_of_32(b[..., 16:])
    return np.asarray((half(b, 0) * s)[..., None] * q - (half(b, 2) * t)[..., None], np.float32)


def _q5_k(b: U8) -> F32:
    s, t = scales6(b[..., 4:16])
    high = b[..., None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    q = pairs_of_32(b[..., 48:]) | high << 4
    return np.asarray((half(b, 0) * s)[..., None] * q - (half(b, 2) * t)[..., None], np.float32)


def _q6_k(b: U8) -> F32:
    low = b[..., :128].reshape(*b.shape[:-1], 2, 2, 32)
    low = np.concatenate([low & 15, low >> 4], -2)
    high = b[..., 128:192].reshape(*b.shape[:-1], 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3
    q = (low | high << 4).astype(np.int8) - np.int8(32)
    s = half(b, 208) * np.ascontiguousarray(b[..., 192:208]).view(np.int8)
    return np.asarray(s[..., None] * q.reshape(*b.shape[:-1], 16, 16), np.float32)


_DECODE: dict[str, Callable[[U8], F32]] = {
    "Q4_0": lambda b: half(b, 0) * (nibbles(b[..., 2:]).astype(np.int8) - np.int8(8)),
    "Q4_1": lambda b: half(b, 0) * nibbles(b[..., 4:]) + half(b, 2),
    "Q5_0": lambda b: half(b, 0) * (codes5(b, 2).astype(np.int8) - np.int8(16)),
    "Q5_1": lambda b: half(b, 0) * codes5(b, 4) + half(b, 2),
    "Q8_0": lambda b: half(b, 0) * np.ascontiguousarray(b[..., 2:]).view(np.int8),
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}


def split(rows: U8, form: str) -> U8:
    """Rows of bytes [n, bytes] -> blocks [n, blocks, bytes of a block]."""
    return rows.reshape(len(rows), -1, BLOCKS[form][1])


def decode(rows: U8, form: str) -> F32:
    """float32 [n, weights of a row] of rows of bytes [n, bytes]."""
    if form == "F32":
        return rows.view("<f4").astype(np.float32)
    if form == "F16":
        return rows.view("<f2").astype(np.float32)
    if form == "BF16":
        return (rows.view("<u2").astype("<u4") << 16).view("<f4").astype(np.float32)
    return np.asarray(_DECODE[form](split(rows, form)), np.float32).reshape(len(rows), -1)
