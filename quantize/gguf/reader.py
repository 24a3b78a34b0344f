"""The container: metadata and where each tensor lies. Nothing in it is trusted; memory stays below a few times the metadata.

Layout, little-endian: "GGUF", uint32 version, uint64 tensors, uint64 keys; keys {string, uint32 type, value}; tensors {string,
uint32 n, uint64 dims[n] (fastest first), uint32 type, uint64 offset}; padding to general.alignment; data.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from frugal.errors import InvalidModel

from .._files import CHUNK
from .blocks import BLOCKS, FORMATS

MAX_METADATA = 1 << 28  # bytes: the largest vocabularies take about 10 MB
MAX_TENSORS, MAX_KEYS = 1 << 16, 1 << 16
_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class GgufTensor:
    """A tensor's name, format (a key of blocks.BLOCKS), shape (rows first) and place in the file."""

    name: str
    format: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class GgufFile:
    """metadata: key -> number, bool, str or list of them.  tensors: by name.

    Raises InvalidModel, which names file and tensor or key, for anything truncated or inconsistent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, GgufTensor] = {}
        try:
            self.size = path.stat().st_size
            with open(path, "rb") as f:
                _Parser(self, f).run()
        except OSError as e:
            raise InvalidModel(f"{path}: cannot be read ({e})") from e

    def read(self, tensor: GgufTensor, start: int = 0, nbytes: int | None = None) -> bytes:
        """Bytes of a tensor, from `start` on."""
        nbytes = tensor.nbytes - start if nbytes is None else nbytes
        with open(self.path, "rb") as f:
            f.seek(tensor.offset + start)
            data = f.read(nbytes)
        if len(data) != nbytes:
            raise InvalidModel(f"{self.path}: ended while reading tensor {tensor.name!r}")
        return data

    def rows(self, tensor: GgufTensor, limit: int = CHUNK) -> Iterator[tuple[int, int, np.ndarray]]:
        """(first row, rows, uint8 [rows, bytes a row]) in order, about `limit` bytes at a time, an even number of rows."""
        rows = math.prod(tensor.shape[:-1])
        width = tensor.nbytes // rows
        step = max(2, limit // width // 2 * 2)
        for a in range(0, rows, step):
            n = min(step, rows - a)
            yield a, n, np.frombuffer(self.read(tensor, a * width, n * width), np.uint8).reshape(n, width)


class _Parser:
    def __init__(self, out: GgufFile, f: BinaryIO) -> None:
        self.out, self.f, self.path = out, f, out.path
        self.limit = min(out.size, MAX_METADATA)

    def fail(self, what: str) -> InvalidModel:
        return InvalidModel(f"{self.path}: {what}")

    def take(self, n: int, what: str) -> bytes:
        if n > self.limit - self.f.tell():
            raise self.fail(f"truncated or damaged, {what} ends beyond byte {self.limit}; download it again")
        return self.f.read(n)

    def number(self, form: str, what: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form), what))[0]

    def string(self, what: str) -> str:
        raw = self.take(self.number("<Q", what), what)
        return raw.decode("utf-8", errors="surrogateescape")

    def value(self, kind: int, what: str) -> Any:
        if kind == _STRING:
            return self.string(what)
        if kind == _ARRAY:
            inner, count = self.number("<I", what), self.number("<Q", what)
            if inner in _NUMBERS:
                form = np.dtype(_NUMBERS[inner])
                return np.frombuffer(self.take(count * form.itemsize, what), form).tolist()
            if inner != _STRING:
                raise self.fail(f"{what} is an array of type {inner}")
            if count > (self.limit - self.f.tell()) // 8:
                raise self.fail(f"truncated or damaged, {what} says {count} strings")
            return [self.string(what) for _ in range(count)]
        if kind not in _NUMBERS:
            raise self.fail(f"{what} has the unknown type {kind}")
        return self.number(_NUMBERS[kind], what)

    def run(self) -> None:
        if self.take(4, "the head") != b"GGUF":
            raise self.fail("not a GGUF file")
        version = self.number("<I", "the version")
        if version not in (2, 3):
            raise self.fail(f"GGUF version {version} (readable: 2 and 3, little-endian)")
        tensors, keys = self.number("<Q", "the head"), self.number("<Q", "the head")
        if tensors > MAX_TENSORS or keys > MAX_KEYS:
            raise self.fail(f"damaged: {tensors} tensors and {keys} keys")
        for _ in range(keys):
            key = self.string("a metadata key")
            kind = self.number("<I", f"key {key!r}")
            self.out.metadata[key] = self.value(kind, f"key {key!r}")
        heads = [self.head() for _ in range(tensors)]
        align = self.out.metadata.get("general.alignment", 32)
        if isinstance(align, bool) or not isinstance(align, int) or align < 8 or align % 8:
            raise self.fail(f"key 'general.alignment' is {align!r}")
        start = -(-self.f.tell() // align) * align
        for head in heads:
            self.place(*head, start)

    def head(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.string("a tensor's name")
        n = self.number("<I", f"tensor {name!r}")
        if not 1 <= n <= 4:
            raise self.fail(f"tensor {name!r} has {n} dimensions")
        dims = struct.unpack(f"<{n}Q", self.take(8 * n, f"tensor {name!r}"))
        return name, dims[::-1], self.number("<I", f"tensor {name!r}"), self.number("<Q", f"tensor {name!r}")

    def place(self, name: str, shape: tuple[int, ...], kind: int, offset: int, start: int) -> None:
        if name in self.out.tensors:
            raise self.fail(f"tensor {name!r} stands there twice")
        if kind not in FORMATS:
            raise self.fail(f"tensor {name!r} has block type {kind} (readable: {', '.join(FORMATS.values())})")
        form = FORMATS[kind]
        elements, nbytes = BLOCKS[form]
        if 0 in shape or shape[-1] % elements:
            raise self.fail(f"tensor {name!r} {list(shape)} is not made of blocks of {elements}")
        total = math.prod(shape) // elements * nbytes
        if start + offset + total > self.out.size:
            raise self.fail(f"truncated, tensor {name!r} ends at byte {start + offset + total}, the file has {self.out.size}")
        self.out.tensors[name] = GgufTensor(name, form, shape, start + offset, total)
