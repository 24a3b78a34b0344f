"""ONNX files read and written one tensor at a time, so that memory does not grow with the model.

Reading walks the protobuf wire format and notes where each large initializer's bytes lie, inside the .onnx file or
beside it (external data); what is loaded is the graph alone. Writing takes that graph and a list of tensors that are
produced when their turn comes. A ModelProto is `... graph(7){ ... initializer(5){ ... raw_data(9) } }`, and protobuf
allows fields in any order, so the tensors are appended after the rest of the graph with lengths known beforehand.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from frugal import __version__
from frugal.errors import FrugalError, InvalidModel

from . import _lazy
from ._files import CHUNK
from ._journal import Entry, Journal, Source, key_of

Bytes = bytes | NDArray[Any]
Progress = Callable[[str, int, int], None]  # tensor name, bytes written so far, bytes in all

INLINE = 1024  # bytes: smaller tensors stay in the graph
SINGLE_FILE_LIMIT = 1_900_000_000  # bytes: protobuf stops at 2 GiB
_ALIGN = 64  # bytes: tensors in a data file start at multiples of this, so that a runtime can map them
_BITS = {
    1: 32,
    2: 8,
    3: 8,
    4: 16,
    5: 16,
    6: 32,
    7: 64,
    9: 8,
    10: 16,
    11: 64,
    12: 32,
    13: 64,
    14: 64,
    15: 128,
    16: 16,
    17: 8,
    18: 8,
    19: 8,
    20: 8,
    21: 4,
    22: 4,
    23: 4,
}


def tensor_bytes(data_type: int, dims: Iterable[int]) -> int | None:
    """Bytes of raw_data of a TensorProto; None for types without raw form (string, unknown)."""
    bits = _BITS.get(data_type)
    return None if bits is None else -(-math.prod(dims) * bits // 8)


@dataclass(frozen=True)
class Ref:
    """Where the bytes of a tensor lie in a file."""

    path: Path
    offset: int
    nbytes: int

    def chunks(self) -> Iterator[bytes]:
        """The bytes in order, at most CHUNK at a time."""
        with open(self.path, "rb") as f:
            f.seek(self.offset)
            left = self.nbytes
            while left:
                block = f.read(min(left, CHUNK))
                if not block:
                    raise InvalidModel(f"{self.path}: ended {left} bytes early")
                left -= len(block)
                yield block

    def read(self) -> bytes:
        """All bytes."""
        return b"".join(self.chunks())


@dataclass
class OutTensor:
    """One initializer to be written: its bytes are asked for (`chunks()`) only when its turn comes.

    source: shared by neighbours that are produced together, which a resumed write takes or leaves as one.
    """

    name: str
    data_type: int
    dims: tuple[int, ...]
    chunks: Callable[[], Iterable[Bytes]]
    source: Source | None = None

    @property
    def nbytes(self) -> int:
        n = tensor_bytes(self.data_type, self.dims)
        assert n is not None
        return n


def from_array(name: str, array: NDArray[Any]) -> OutTensor:
    """An OutTensor over an array in memory (any numpy type ONNX has)."""
    kind = _lazy.onnx().helper.np_dtype_to_tensor_dtype(array.dtype)
    a = np.ascontiguousarray(array)
    return OutTensor(name, kind, array.shape, lambda: [a.reshape(-1).view(np.uint8)])


class OnnxFile:
    """A model whose large initializers stay on disk.

    proto: ModelProto; large initializers keep name, type and dims but have no data.  refs: their place by name.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.refs: dict[str, Ref] = {}
        try:
            self._size = path.stat().st_size
            with open(path, "rb") as f:
                raw = self._walk_model(f)
            self.proto = _lazy.onnx().ModelProto.FromString(raw)
        except OSError as e:
            raise InvalidModel(f"{path}: cannot be read ({e})") from e
        except (FrugalError, MemoryError):
            raise
        except Exception as e:  # protobuf's DecodeError has no stable home
            raise InvalidModel(f"{path}: not an ONNX file, or truncated ({e})") from e
        if not self.proto.graph.node and not self.proto.graph.output:
            raise InvalidModel(f"{path}: not an ONNX model (no graph)")
        for t in self.proto.graph.initializer:
            self._check(t)
        self._check_names()

    def _walk_model(self, f: IO[bytes]) -> bytes:
        return self._walk(f, 0, self._size, 7, lambda a, b: self._walk(f, a, b, 5, lambda c, d: self._walk_tensor(f, c, d)))

    def _walk(self, f: IO[bytes], a: int, b: int, field: int, inner: Callable[[int, int], bytes]) -> bytes:
        """Bytes a..b of a message with every length-delimited `field` replaced by inner(start, end)."""
        out, pos = bytearray(), a
        while pos < b:
            tag, body, end = self._field(f, pos, b)
            if tag == field << 3 | 2:
                new = inner(body, end)
                out += _varint(tag) + _varint(len(new)) + new
            else:
                f.seek(pos)
                out += f.read(end - pos)
            pos = end
        return bytes(out)

    def _walk_tensor(self, f: IO[bytes], a: int, b: int) -> bytes:
        """A TensorProto's bytes without its raw_data when that is large; its place goes to self.refs."""
        out, pos, raw, name = bytearray(), a, None, None
        while pos < b:
            tag, body, end = self._field(f, pos, b)
            if tag == 9 << 3 | 2 and end - body >= INLINE:
                raw = Ref(self.path, body, end - body)
            else:
                f.seek(pos)
                out += f.read(end - pos)
                if tag == 8 << 3 | 2:
                    name = bytes(out[len(out) - (end - body) :]).decode()
            pos = end
        if raw is not None:
            if not name:
                raise InvalidModel(f"{self.path}: an initializer of {raw.nbytes} bytes has no name")
            self.refs[name] = raw
        return bytes(out)

    def _field(self, f: IO[bytes], pos: int, limit: int) -> tuple[int, int, int]:
        """Tag, first byte of the value and end of the field at pos."""
        f.seek(pos)
        head = f.read(min(20, limit - pos))
        tag, n = _read_varint(head, 0)
        kind = tag & 7
        if kind == 2:
            length, n = _read_varint(head, n)
            end = pos + n + length
        elif kind == 0:
            _, m = _read_varint(head, n)
            end = pos + m
        elif kind in (1, 5):
            end = pos + n + (8 if kind == 1 else 4)
        else:
            raise InvalidModel(f"{self.path}: not an ONNX file (wire type {kind} at byte {pos})")
        if end > limit:
            raise InvalidModel(f"{self.path}: truncated, or not an ONNX file (a field ends at byte {end} of {limit})")
        return tag, pos + n, end

    def _check_names(self) -> None:
        """protobuf hands out names that are not UTF-8 as bytes: refuse the file here, not in the middle of a pass."""
        g = self.proto.graph
        names = [n for node in g.node for n in (node.name, node.op_type, node.domain, *node.input, *node.output)]
        names += [x.name for part in (g.initializer, g.input, g.output, g.value_info) for x in part]
        if not all(isinstance(n, str) for n in names):
            raise InvalidModel(f"{self.path}: damaged, a name in the graph is not UTF-8 text")

    def _check(self, t: Any) -> None:
        if t.data_location == t.EXTERNAL:
            self.refs[t.name] = self._external(t)
            del t.external_data[:]
            t.ClearField("data_location")
        if t.name in self.refs:
            want, got = tensor_bytes(t.data_type, t.dims), self.refs[t.name].nbytes
            if want != got:
                raise InvalidModel(f"{self.path}: initializer {t.name!r} {list(t.dims)} has {got} bytes, want {want}")

    def _external(self, t: Any) -> Ref:
        info = {e.key: e.value for e in t.external_data}
        location = Path(info.get("location", ""))
        if not info.get("location") or location.is_absolute() or ".." in location.parts:
            raise InvalidModel(
                f"{self.path}: initializer {t.name!r} names the data file {str(location)!r}, not inside the model's folder"
            )
        path = self.path.parent / location
        if not path.is_file():
            raise InvalidModel(f"{self.path}: data file {location} of initializer {t.name!r} is missing")
        try:
            offset = int(info.get("offset", 0))
            size = path.stat().st_size
            length = int(info["length"]) if "length" in info else tensor_bytes(t.data_type, t.dims) or size - offset
        except ValueError as e:
            raise InvalidModel(f"{self.path}: initializer {t.name!r} has a malformed offset or length ({e})") from e
        if offset < 0 or length < 0 or offset + length > size:
            raise InvalidModel(
                f"{path}: truncated, initializer {t.name!r} needs bytes {offset} to {offset + length}, the file has {size}"
            )
        return Ref(path, offset, length)

    def data_size(self) -> int:
        """Bytes of the .onnx file and of the external data it uses."""
        outside = sum(r.nbytes for r in self.refs.values() if r.path != self.path)
        return self._size + outside

    def tensor(self, t: Any) -> NDArray[Any]:
        """The values of an initializer (TensorProto of this model), numpy array of its dims."""
        onnx = _lazy.onnx()
        if t.name not in self.refs:
            return np.asarray(onnx.numpy_helper.to_array(t))
        full = onnx.TensorProto(name=t.name, data_type=t.data_type, dims=t.dims, raw_data=self.refs[t.name].read())
        return np.asarray(onnx.numpy_helper.to_array(full))

    def out(self, t: Any) -> OutTensor | None:
        """The initializer as something to write again; None when its data is in the graph already."""
        ref = self.refs.get(t.name)
        return None if ref is None else OutTensor(t.name, t.data_type, tuple(t.dims), ref.chunks)


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def _read_varint(b: bytes, pos: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if pos >= len(b) or shift > 63:
            raise InvalidModel("not an ONNX file, or truncated (a length is malformed)")
        value |= (b[pos] & 127) << shift
        pos += 1
        if b[pos - 1] < 128:
            return value, pos
        shift += 7


def without_data(proto: Any, names: Iterable[str]) -> Any:
    """A copy of the model with the initializers `names` turned into graph inputs: for tools that want whole models."""
    onnx, drop = _lazy.onnx(), set(names)
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    g = copy.graph
    keep = [t for t in g.initializer if t.name not in drop]
    inputs = {i.name for i in g.input}
    g.input.extend(
        onnx.helper.make_tensor_value_info(t.name, t.data_type, list(t.dims))
        for t in g.initializer
        if t.name in drop and t.name not in inputs
    )
    del g.initializer[:]
    g.initializer.extend(keep)
    return copy


def strip(proto: Any, names: set[str]) -> Any:
    """A copy of the model without the initializers `names` (they will be written from OutTensors)."""
    copy = _lazy.onnx().ModelProto()
    copy.CopyFrom(proto)
    keep = [t for t in proto.graph.initializer if t.name not in names]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(keep)
    return copy


def check(proto: Any, tensors: Iterable[OutTensor], path: Path, infer: bool = True) -> None:
    """onnx.checker on the graph, the large tensors standing in as inputs. Raises InvalidModel.

    infer: strict shape inference too; not for models of others, whose recorded shapes may be stale and still run.
    """
    onnx = _lazy.onnx()
    copy = without_data(proto, ())
    have = {i.name for i in copy.graph.input}
    copy.graph.input.extend(
        onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors if t.name not in have
    )
    try:
        onnx.checker.check_model(copy, full_check=infer)
    except Exception as e:
        raise InvalidModel(f"{path}: the graph is not valid ONNX: {e}") from e


def write(
    proto: Any,
    tensors: list[OutTensor],
    path: Path,
    external: bool | None = None,
    progress: Progress | None = None,
    source: str | None = None,
) -> list[Path]:
    """Write `proto` plus `tensors` (not yet among its initializers) to `path`; returns the files written.

    external: tensors of 1 KiB and more go to `path`.data, 64-byte aligned; None: only when they pass 1.9 GB.
    source: what else than the graph determines the bytes (which files, which method); with it, a write that was killed goes on
    where it was.  Memory: the graph plus one piece of one tensor.  Raises InvalidModel when a tensor yields a wrong number of
    bytes, FrugalError when the disk has too little room.
    """
    total = sum(t.nbytes for t in tensors)
    if external is None:
        external = total + proto.ByteSize() > SINGLE_FILE_LIMIT
    form = _external_form(proto, tensors, path) if external else _single_form(proto, tensors, path)
    key = None if source is None else _key(proto, form, source)
    journal = Journal(form.data, key)
    _check_room(form, journal.resumes)
    with open(form.data, "rb+" if journal.resumes else "wb") as f:
        small = _Filler(f, journal, path, total, progress).run(form)
    return form.finish(small)


def _key(proto: Any, form: _Form, source: str) -> str:
    """Everything that determines the bytes of a write."""
    heads = (p.head or _header(p.tensor).SerializeToString() for p in form.places)
    return key_of(__version__, source, form.data.name, proto.SerializeToString(deterministic=True), *heads)


@dataclass(frozen=True)
class _Place:
    """Where a tensor goes: `head` at `offset` of the data file, its bytes behind; offset None: they go into the graph."""

    tensor: OutTensor
    offset: int | None
    head: bytes


@dataclass(frozen=True)
class _Form:
    """data: the file the tensors go to; start: its first bytes; finish: what remains, given the bytes of the small tensors."""

    data: Path
    start: bytes
    places: list[_Place]
    finish: Callable[[dict[str, bytes]], list[Path]]


def _check_room(form: _Form, resumes: bool) -> None:
    """Refuse at once what the disk cannot hold."""
    need = len(form.start) + sum(len(p.head) + p.tensor.nbytes for p in form.places)
    need -= form.data.stat().st_size if resumes else 0
    free = shutil.disk_usage(form.data.parent).free
    if need > free:
        raise FrugalError(
            f"cannot write {form.data.name}: it needs {need} bytes more, the disk has {free}; nothing was left there"
        )


class _Filler:
    """Writes the tensors of a form, group after group, or takes them as the journal has them."""

    def __init__(self, f: IO[bytes], journal: Journal, path: Path, total: int, progress: Progress | None) -> None:
        self.f, self.journal, self.path, self.total, self.progress = f, journal, path, total, progress
        self.small: dict[str, bytes] = {}
        self.done = 0

    def run(self, form: _Form) -> dict[str, bytes]:
        """Bytes of the tensors that are not in the file, by name."""
        if not self.journal.resumes:
            self.f.write(form.start)
        for _, places in groupby(form.places, lambda p: id(p.tensor.source or p.tensor)):
            self._group(list(places))
        self.f.truncate()
        return self.small

    def _group(self, places: list[_Place]) -> None:
        names, source = [p.tensor.name for p in places], places[0].tensor.source
        entry = self.journal.take(names)
        if entry is not None:
            self.f.seek(entry.end)
            self.small |= entry.small
            if source is not None:
                source.restore(entry.state)
            self._tell(names[-1], sum(p.tensor.nbytes for p in places))
            return
        self.f.truncate()
        for p in places:
            self._put(p)
            self._tell(p.tensor.name, p.tensor.nbytes)
        small = {n: self.small[n] for n in names if n in self.small}
        self.journal.add(self.f, Entry(names, self.f.tell(), small, source.state() if source is not None else None))

    def _put(self, p: _Place) -> None:
        t, n = p.tensor, 0
        if p.offset is None:
            self.small[t.name] = b"".join(bytes(_view(b)) for b in t.chunks())
            n = len(self.small[t.name])
        else:
            self.f.write(bytes(p.offset - self.f.tell()) + p.head)
            for block in t.chunks():
                data = _view(block)
                n += data.nbytes
                if n > t.nbytes:
                    break
                self.f.write(data)
        if n != t.nbytes:
            raise InvalidModel(f"{self.path}: tensor {t.name!r} should have {t.nbytes} bytes, its source gave {n}")

    def _tell(self, name: str, nbytes: int) -> None:
        self.done += nbytes
        if self.progress is not None:
            self.progress(name, self.done, self.total)


def _view(block: Bytes) -> memoryview:
    """The block's bytes in C order."""
    if isinstance(block, np.ndarray):
        return np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
    return memoryview(block)


def _header(t: OutTensor) -> Any:
    return _lazy.onnx().TensorProto(name=t.name, data_type=t.data_type, dims=t.dims)


def _single_form(proto: Any, tensors: list[OutTensor], path: Path) -> _Form:
    """The graph, then the tensors as initializers with raw_data."""
    rest = _lazy.onnx().ModelProto()
    rest.CopyFrom(proto)
    graph = rest.graph.SerializeToString()
    rest.ClearField("graph")
    heads = []
    for t in tensors:
        head = _header(t).SerializeToString() + b"\x4a" + _varint(t.nbytes)  # raw_data = 9
        heads.append(b"\x2a" + _varint(len(head) + t.nbytes) + head)  # initializer = 5
    length = len(graph) + sum(len(h) + t.nbytes for h, t in zip(heads, tensors, strict=True))
    start = rest.SerializeToString() + b"\x3a" + _varint(length) + graph  # graph = 7
    places, at = [], len(start)
    for head, t in zip(heads, tensors, strict=True):
        places.append(_Place(t, at, head))
        at += len(head) + t.nbytes
    return _Form(path, start, places, lambda _: [path])


def _external_form(proto: Any, tensors: list[OutTensor], path: Path) -> _Form:
    """The large tensors in a data file, the graph says where."""
    data, places, at = path.with_name(path.name + ".data"), [], 0
    for t in tensors:
        if t.nbytes < INLINE:
            places.append(_Place(t, None, b""))
            continue
        at += -at % _ALIGN
        places.append(_Place(t, at, b""))
        at += t.nbytes

    def finish(small: dict[str, bytes]) -> list[Path]:
        _write_graph(proto, places, path, data.name, small)
        if at == 0:
            data.unlink()
            return [path]
        return [path, data]

    return _Form(data, b"", places, finish)


def _write_graph(proto: Any, places: list[_Place], path: Path, data: str, small: dict[str, bytes]) -> None:
    onnx = _lazy.onnx()
    full = onnx.ModelProto()
    full.CopyFrom(proto)
    for p in places:
        head = _header(p.tensor)
        if p.offset is None:
            head.raw_data = small[p.tensor.name]
        else:
            head.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", data), ("offset", p.offset), ("length", p.tensor.nbytes)):
                head.external_data.add(key=key, value=str(value))
        full.graph.initializer.append(head)
    path.write_bytes(full.SerializeToString())
