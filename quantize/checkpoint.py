"""Hugging Face weights, one tensor at a time: reads model.safetensors (or its shards) without loading them.

The format (https://github.com/huggingface/safetensors#format): 8 bytes little-endian header length, a JSON header
{name: {dtype, shape, data_offsets}}, then the bytes. Every figure in the header is checked before it is used.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugal.errors import InvalidModel

from ._files import CHUNK

_FLOAT: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}
_SIZE = {
    **{k: v.itemsize for k, v in _FLOAT.items()},
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "U16": 2,
    "I32": 4,
    "U32": 4,
    "I64": 8,
    "U64": 8,
}
_MAX_HEADER = 100_000_000  # bytes, the limit of the reference implementation
# Names older than 2019's BERT conversions -> today's.
_OLD = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: file, dtype name as in the header, shape, first byte, bytes."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def _entry(path: Path, name: str, raw: Any, start: int, size: int) -> Entry:
    try:
        dtype, shape = str(raw["dtype"]), tuple(operator.index(d) for d in raw["shape"])
        a, b = (operator.index(v) for v in raw["data_offsets"])
    except (KeyError, TypeError, ValueError) as e:
        raise InvalidModel(f"{path}: header entry of tensor {name!r} is malformed ({e!r})") from e
    if dtype not in _SIZE:
        raise InvalidModel(f"{path}: tensor {name!r} has dtype {dtype!r}, known are {', '.join(sorted(_SIZE))}")
    if min(shape, default=1) < 0 or not 0 <= a <= b or b - a != math.prod(shape) * _SIZE[dtype]:
        raise InvalidModel(f"{path}: tensor {name!r} says {dtype} {list(shape)} but occupies bytes {a} to {b}")
    if start + b > size:
        raise InvalidModel(f"{path}: truncated, tensor {name!r} ends at byte {start + b}, the file has {size}; download it again")
    return Entry(path, dtype, shape, start + a, b - a)


def read_header(path: Path) -> dict[str, Entry]:
    """Tensors of one .safetensors file. Raises InvalidModel naming the file and tensor for anything inconsistent."""
    try:
        size = path.stat().st_size
        with open(path, "rb") as f:
            head = int.from_bytes(f.read(8), "little")
            if size < 8 or head > min(size - 8, _MAX_HEADER):
                raise InvalidModel(f"{path}: not a safetensors file, or truncated ({size} bytes, header {head})")
            header = json.loads(f.read(head))
    except OSError as e:
        raise InvalidModel(f"{path}: cannot be read ({e})") from e
    except ValueError as e:
        raise InvalidModel(f"{path}: the safetensors header is not JSON ({e})") from e
    if not isinstance(header, dict):
        raise InvalidModel(f"{path}: the safetensors header is not a JSON object")
    return {k: _entry(path, k, v, 8 + head, size) for k, v in header.items() if k != "__metadata__"}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; InvalidModel otherwise."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise InvalidModel(f"{path}: cannot be read as JSON ({e})") from e
    if not isinstance(value, dict):
        raise InvalidModel(f"{path}: want a JSON object, got {type(value).__name__}")
    return value


class Checkpoint:
    """All tensors of a folder by name. `read` and `chunks` give float32 whatever float type is stored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
        if single.is_file():
            self.files = [single]
        elif index.is_file():
            self.files = self._shards(index)
        else:
            raise InvalidModel(
                f"{folder}: no model.safetensors (nor model.safetensors.index.json); convert older"
                " formats with transformers' save_pretrained(safe_serialization=True)"
            )
        self.entries: dict[str, Entry] = {}
        for path in self.files:
            self.entries.update(read_header(path))

    def _shards(self, index: Path) -> list[Path]:
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise InvalidModel(f"{index}: no 'weight_map'")
        names = sorted({str(v) for v in weight_map.values()})
        for name in names:
            if Path(name).name != name or not (self.folder / name).is_file():
                raise InvalidModel(f"{index}: shard {name!r} is not a file of this folder")
        return [self.folder / name for name in names]

    def resolve(self, name: str) -> str | None:
        """The stored name of `name`, which may be an old one (LayerNorm.gamma); None when there is none."""
        if name in self.entries:
            return name
        for new, old in _OLD.items():
            if name.endswith(new) and name[: -len(new)] + old in self.entries:
                return name[: -len(new)] + old
        return None

    def entry(self, name: str, shape: tuple[int, ...]) -> Entry:
        """The tensor's place; InvalidModel when missing, not float, or of another shape."""
        stored = self.resolve(name)
        if stored is None:
            raise InvalidModel(f"{self.folder}: tensor {name!r} is missing from {self.files[0].name}")
        e = self.entries[stored]
        if e.dtype not in _FLOAT:
            raise InvalidModel(f"{e.path}: tensor {stored!r} is {e.dtype}, want one of {', '.join(_FLOAT)}")
        if e.shape != shape:
            raise InvalidModel(f"{e.path}: tensor {stored!r} has shape {list(e.shape)}, config.json says {list(shape)}")
        return e

    def chunks(self, name: str, shape: tuple[int, ...]) -> Iterator[NDArray[np.float32]]:
        """The tensor as flat float32 pieces of at most CHUNK stored bytes, in order."""
        e = self.entry(name, shape)
        with open(e.path, "rb") as f:
            f.seek(e.offset)
            left = e.nbytes
            while left:
                raw = f.read(min(left, CHUNK))
                if not raw:
                    raise InvalidModel(f"{e.path}: ended while reading tensor {name!r}")
                left -= len(raw)
                yield to_float32(raw, e.dtype)

    def read(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The whole tensor, float32 `shape`."""
        parts = list(self.chunks(name, shape)) or [np.zeros(0, np.float32)]
        return np.concatenate(parts).reshape(shape)


def to_float32(raw: bytes, dtype: str) -> NDArray[np.float32]:
    """Bytes of a safetensors float type -> float32 (BF16 is the upper half of a float32: exact)."""
    a = np.frombuffer(raw, _FLOAT[dtype])
    if dtype == "BF16":
        a = (a.astype("<u4") << 16).view("<f4")
    return np.asarray(a, np.float32)
