"""Reads an ONNX file without trusting it: nodes, initializers as arrays (external data mapped, inside the model's folder)."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidModel, MissingExtra, UnsupportedOperator
from .ir import NUMPY, SMALL_INTS, DType

if TYPE_CHECKING:
    import onnx

PACKED = {**SMALL_INTS, DType.FLOAT4E2M1: 4}  # bits of an element where that is less than a byte
OPSETS = range(1, 29)


@dataclass
class Source:
    """A parsed model, the folder its external data lies in (None: none allowed), and what to call it in errors."""

    model: onnx.ModelProto
    folder: Path | None
    name: str
    sha256: str
    bytes: int = 0  # of the file, without external data
    opsets: dict[str, int] = field(default_factory=dict)

    def array(self, tensor: onnx.TensorProto) -> np.ndarray:
        """The value of an initializer: numpy's data type, or that of ml_dtypes (4 and 2 bits: one element a byte)."""
        try:
            return self._array(tensor)
        except (ValueError, TypeError, OSError, OverflowError) as error:
            if isinstance(error, InvalidModel):
                raise
            raise InvalidModel(f"{self.name}: initializer '{tensor.name}': {error}") from error

    def _array(self, tensor: onnx.TensorProto) -> np.ndarray:
        from onnx import TensorProto, numpy_helper

        if tensor.data_type not in NUMPY:
            kind = TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in TensorProto.DataType.values() else "?"
            raise InvalidModel(f"{self.name}: initializer '{tensor.name}' has data type {kind}, which frugal does not read")
        shape = tuple(tensor.dims)
        if any(d < 0 for d in shape):
            raise InvalidModel(f"{self.name}: initializer '{tensor.name}' has a negative dimension: {shape}")
        if tensor.data_location == TensorProto.EXTERNAL:
            return self._decode(tensor, self._external(tensor), shape)
        if tensor.HasField("raw_data"):
            return self._decode(tensor, np.frombuffer(tensor.raw_data, np.uint8), shape)
        values: np.ndarray = numpy_helper.to_array(tensor)
        return values

    def _decode(self, tensor: onnx.TensorProto, raw: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        count = 1
        for d in shape:
            count *= d
        dtype = NUMPY[tensor.data_type]
        bits = PACKED.get(DType(tensor.data_type), 8 * dtype.itemsize)
        want = (count * bits + 7) // 8
        if raw.size != want:
            raise InvalidModel(f"{self.name}: initializer '{tensor.name}' of shape {shape} needs {want} bytes, it has {raw.size}")
        if bits < 8:
            raw = _unpack(raw, bits)[:count]
            if tensor.data_type in (DType.INT4, DType.INT2):
                raw = (raw ^ (1 << (bits - 1))) - np.uint8(1 << (bits - 1))  # extends the sign
        return raw.view(dtype).reshape(shape)

    def _external(self, tensor: onnx.TensorProto) -> np.ndarray:
        path, offset, length = external_location(self, tensor)
        if length == 0:
            return np.empty(0, np.uint8)
        return np.memmap(path, np.uint8, "r", offset, (length,))


def _unpack(raw: np.ndarray, bits: int) -> np.ndarray:
    """Bytes to one code a byte, the lowest bits first."""
    codes = np.empty((raw.size, 8 // bits), np.uint8)
    for i in range(8 // bits):
        codes[:, i] = raw >> (bits * i) & ((1 << bits) - 1)
    return codes.reshape(-1)


def external_location(source: Source, tensor: onnx.TensorProto) -> tuple[Path, int, int]:
    """Path, offset and length of an initializer's external data; it must lie inside the model's folder and the file."""
    entries = {e.key: e.value for e in tensor.external_data}
    where = f"{source.name}: external data of initializer '{tensor.name}'"
    if source.folder is None:
        raise InvalidModel(f"{where}: the model was given as bytes, so it has no folder; open it by its path")
    location = entries.get("location", "")
    folder = source.folder.resolve()
    path = (folder / location).resolve()
    if not location or os.path.isabs(location) or folder not in path.parents:
        raise InvalidModel(f"{where}: location '{location}' is outside the model's folder")
    if not path.is_file():
        raise InvalidModel(f"{where}: file '{location}' is missing beside the model")
    size = path.stat().st_size
    try:
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", size - offset))
    except ValueError as error:
        raise InvalidModel(f"{where}: offset or length is not a number") from error
    if offset < 0 or length < 0 or offset + length > size:
        raise InvalidModel(f"{where}: bytes {offset} to {offset + length} do not lie in '{location}' ({size} bytes)")
    return path, offset, length


def read(model: str | os.PathLike[str] | bytes | bytearray | memoryview | Any) -> Source:
    """Parse a path, the bytes of an .onnx file, or an onnx.ModelProto.

    Raises InvalidModel for what is not ONNX or out of range, UnsupportedOperator for an opset that is not read.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtra("reading .onnx files needs the onnx package: pip install 'frugal-edge[onnx]'") from error
    folder, name = None, "model"
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        folder, name = path.parent, path.name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InvalidModel(f"cannot read '{path}': {error.strerror}") from error
        proto = _parse(onnx, data, name)
    elif isinstance(model, (bytes, bytearray, memoryview)):
        data = bytes(model)
        proto = _parse(onnx, data, name)
    else:
        proto, data = model, model.SerializeToString()
    source = Source(proto, folder, name, hashlib.sha256(data).hexdigest(), len(data))
    source.model = _inline(onnx, source)
    _check(source)
    return source


def _parse(onnx: Any, data: bytes, name: str) -> Any:
    from google.protobuf.message import DecodeError

    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise InvalidModel(f"{name}: not an ONNX file, or cut short ({error})") from error
    return proto


def _inline(onnx: Any, source: Source) -> Any:
    if not source.model.functions:
        return source.model
    from onnx import inliner

    try:
        return inliner.inline_local_functions(source.model)
    except Exception as error:  # the inliner is C++ behind several exception types
        raise InvalidModel(f"{source.name}: its local functions cannot be inlined: {error}") from error


def _check(source: Source) -> None:
    graph = source.model.graph
    if not graph.output:
        raise InvalidModel(f"{source.name}: not an ONNX model: its graph has no outputs")
    source.opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in source.model.opset_import}
    version = source.opsets.get("", 0)
    if graph.node and any(n.domain in ("", "ai.onnx") for n in graph.node) and version not in OPSETS:
        raise UnsupportedOperator(
            f"{source.name}: opset {version}; frugal reads {OPSETS.start} to {OPSETS.stop - 1}: "
            "convert it with onnx.version_converter"
        )
