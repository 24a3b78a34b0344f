"""GGUF tensors as ONNX initializers: 4-bit and 8-bit blocks of 32 along K.

    4 bits  q UINT4 [N,K] 0..15 or INT4 -8..7, d FLOAT16 [N,K/32], and where there are offsets o FLOAT16 [K/32,N]: w = d q + o
    8 bits  q INT8 [N,K], d FLOAT16 [N,K/32]: w = d q
    float   FLOAT [N,K]
Q4_0, Q4_1, Q5_0 and Q8_0 keep every bit.  Q4_K keeps its codes, its scales and minima are rounded to fp16; Q5_1, Q5_K and
Q6_K are rounded to 8 bits.  `StoredTensor.error` says what that cost once everything was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from frugal.errors import InvalidModel

from .. import onnxfile
from ..onnxfile import Bytes, OutTensor
from . import blocks
from .blocks import F32, U8
from .reader import GgufFile, GgufTensor

FLOAT, INT8, FLOAT16, UINT4, INT4 = 1, 3, 10, 21, 22
BLOCK = 32
FOUR_BITS = ("Q4_0", "Q4_1", "Q4_K")
WITH_OFFSETS = ("Q4_1", "Q4_K")
PLAIN = ("F32", "F16", "BF16")
EXACT = (*PLAIN, "Q4_0", "Q4_1", "Q5_0", "Q8_0")


@dataclass(frozen=True)
class Parts:
    """Some rows: codes [n, K] (int8 or uint8), d float16 [n, K/32], o float16 [n, K/32] or None."""

    codes: np.ndarray
    d: np.ndarray
    o: np.ndarray | None = None

    def values(self) -> F32:
        """float32 [n, K]."""
        w = self.d.astype(np.float32)[..., None] * self.codes.reshape(*self.d.shape, BLOCK)
        if self.o is not None:
            w = w + self.o.astype(np.float32)[..., None]
        return np.asarray(w.reshape(self.codes.shape), np.float32)


def _fp16(x: F32) -> np.ndarray:
    return x.astype(np.float16)


def _take(b: U8, at: int) -> np.ndarray:
    return np.ascontiguousarray(b[..., at : at + 2]).view("<f2")[..., 0]


def _q4_k(b: U8) -> Parts:
    s, t = blocks.scales6(b[..., 4:16])
    n = len(b)
    d, o = blocks.half(b, 0) * s, -(blocks.half(b, 2) * t)
    return Parts(blocks.pairs_of_32(b[..., 16:]).reshape(n, -1), _fp16(d).reshape(n, -1), _fp16(o).reshape(n, -1))


def eight_bits(w: F32) -> Parts:
    """float32 [n, K] rounded to int8 with fp16 scales of 32 weights."""
    x = w.reshape(len(w), -1, BLOCK)
    d = _fp16(np.abs(x).max(-1) / np.float32(127))
    wide = d.astype(np.float32)[..., None]
    codes = np.rint(np.divide(x, wide, out=np.zeros_like(x), where=wide != 0)).clip(-127, 127)
    return Parts(codes.astype(np.int8).reshape(w.shape), d)


def _signed(codes: U8, zero: int) -> np.ndarray:
    return codes.astype(np.int8) - np.int8(zero)


_PARTS: dict[str, Callable[[U8], Parts]] = {
    "Q4_0": lambda b: Parts(_signed(blocks.nibbles(b[..., 2:]), 8).reshape(len(b), -1), _take(b, 0)),
    "Q4_1": lambda b: Parts(blocks.nibbles(b[..., 4:]).reshape(len(b), -1), _take(b, 0), _take(b, 2)),
    "Q5_0": lambda b: Parts(_signed(blocks.codes5(b, 2), 16).reshape(len(b), -1), _take(b, 0)),
    "Q8_0": lambda b: Parts(np.ascontiguousarray(b[..., 2:]).view(np.int8).reshape(len(b), -1), _take(b, 0)),
    "Q4_K": _q4_k,
}


def parts(rows: U8, form: str, eight: bool = False) -> Parts:
    """The stored form of rows of bytes [n, bytes]; eight: never with offsets, so that a table can be gathered from."""
    if form in _PARTS and not (eight and form in WITH_OFFSETS):
        return _PARTS[form](blocks.split(rows, form))
    return eight_bits(blocks.decode(rows, form))


def pack(codes: np.ndarray) -> U8:
    """Codes [n, K], n K even -> two to a byte, the first in the low nibble: ONNX's INT4 and UINT4."""
    flat = codes.reshape(-1).astype(np.uint8) & 15
    return np.asarray(flat[0::2] | flat[1::2] << 4, np.uint8)


class StoredTensor:
    """One quantized tensor [rows, cols] and the initializers that hold it; name: prefix of theirs; eight: 8 bits whatever the
    file has."""

    def __init__(self, file: GgufFile, tensor: GgufTensor, name: str, eight: bool = False) -> None:
        self.file, self.tensor, self.name, self.eight = file, tensor, name, eight
        self.rows, self.cols = tensor.shape
        self.four = tensor.format in FOUR_BITS and not eight
        self.offsets = self.four and tensor.format in WITH_OFFSETS
        self.exact = tensor.format in EXACT and not (eight and tensor.format in WITH_OFFSETS)
        self._difference = self._norm = 0.0

    @property
    def codes(self) -> str:
        return f"{self.name}.{'int4' if self.four else 'int8'}"

    def initializers(self) -> list[OutTensor]:
        """Codes, scales, and offsets where there are some."""
        blocks_of = (self.rows, self.cols // BLOCK)
        kind = INT8 if not self.four else UINT4 if self.offsets else INT4
        out = [
            OutTensor(self.codes, kind, (self.rows, self.cols), self._codes, self),
            OutTensor(f"{self.name}.scale", FLOAT16, blocks_of, lambda: (p.d for p in self._parts()), self),
        ]
        if self.offsets:
            out.append(OutTensor(f"{self.name}.offset", FLOAT16, blocks_of[::-1], self._offsets, self))
        return out

    def _parts(self) -> Iterator[Parts]:
        for _, _, rows in self.file.rows(self.tensor, 1 << 21):
            p = parts(rows, self.tensor.format, self.eight)
            if not np.isfinite(p.d).all() or (p.o is not None and not np.isfinite(p.o).all()):
                raise InvalidModel(f"{self.file.path}: tensor {self.tensor.name!r} holds scales that are NaN or infinite")
            yield p

    def _codes(self) -> Iterator[Bytes]:
        self._difference = self._norm = 0.0
        for (_, _, rows), p in zip(self.file.rows(self.tensor, 1 << 21), self._parts(), strict=True):
            if not self.exact:
                w = blocks.decode(rows, self.tensor.format).astype(np.float64)
                self._difference += float(((p.values() - w) ** 2).sum())
                self._norm += float((w * w).sum())
            yield pack(p.codes) if self.four else p.codes

    def _offsets(self) -> list[Bytes]:
        return [np.ascontiguousarray(np.concatenate([p.o for p in self._parts() if p.o is not None]).T)]

    def state(self) -> list[float]:
        """For a write that goes on later: what `error` is made of."""
        return [self._difference, self._norm]

    def restore(self, state: list[float]) -> None:
        """See `state`."""
        self._difference, self._norm = state

    def error(self) -> float:
        """Relative RMS error of what was written against the file's values; 0 where every bit is kept."""
        return (self._difference / self._norm) ** 0.5 if self._norm else 0.0


def plain(file: GgufFile, tensor: GgufTensor, name: str) -> OutTensor:
    """An initializer of float32 values, whatever the format."""

    def chunks() -> Iterator[Bytes]:
        for _, _, rows in file.rows(tensor, 1 << 21):
            yield blocks.decode(rows, tensor.format)

    return onnxfile.OutTensor(name, FLOAT, tensor.shape, chunks)
