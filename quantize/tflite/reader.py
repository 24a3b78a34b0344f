"""Reads a .tflite file without trusting it: subgraphs, tensors and operators as plain records, constants as arrays.

The flatbuffer is walked with the classes of the package `tflite`. Python bounds every access to the file's bytes, so a
hostile offset can only yield nonsense or an exception, which becomes an InvalidModel; what bounds time and memory here is a
budget: tables and bytes taken out of the file may not exceed a small multiple of its size, however often they are aliased.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugal.errors import FrugalError, InvalidModel, UnsupportedOperator

from .. import _lazy

# TensorType of the schema -> numpy; the types that are missing (strings, resources, variants, complex) have no array here.
DTYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"),
    1: np.dtype("<f2"),
    2: np.dtype("<i4"),
    3: np.dtype("u1"),
    4: np.dtype("<i8"),
    6: np.dtype("?"),
    7: np.dtype("<i2"),
    9: np.dtype("i1"),
    10: np.dtype("<f8"),
    12: np.dtype("<u8"),
    15: np.dtype("<u4"),
    16: np.dtype("<u2"),
    17: np.dtype("i1"),  # INT4, two a byte in the file
}
INT4, BFLOAT16, RESOURCE = 17, 18, 13
LARGEST_DIM = 2**31 - 1
MIN_CONSTANTS = 64 << 20  # bytes of constants that any file may have, however small
CONSTANTS_FACTOR = 16  # constants may take this many times the file: two tensors may share one buffer, sparse ones grow
MALFORMED = (
    struct.error,
    IndexError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    RecursionError,
    MemoryError,
)


@dataclass(frozen=True)
class Quantization:
    """real = scale * (q - zero); one scale, or one for each index of `axis`."""

    scale: NDArray[np.float32]
    zero: NDArray[np.int64]
    axis: int

    @property
    def per_channel(self) -> bool:
        return self.scale.size > 1


@dataclass
class Tensor:
    """A tensor of a subgraph. shape: static; -1 where the signature says that it may change."""

    index: int
    name: str
    shape: tuple[int, ...]
    kind: int  # TensorType
    dtype: np.dtype[Any] | None
    quantization: Quantization | None
    buffer: int
    variable: bool
    constant: bool
    sparsity: Any = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def quantized(self) -> bool:
        """Integers that stand for reals."""
        return self.quantization is not None and self.dtype is not None and self.dtype.kind in "iu" and self.dtype.itemsize <= 2

    def __str__(self) -> str:
        return f"tensor {self.index} {self.name!r}"


@dataclass
class Operator:
    """One operator. inputs: tensor indices, -1 where an optional one is missing."""

    index: int
    kind: str
    custom: str
    version: int
    inputs: list[int]
    outputs: list[int]
    intermediates: list[int]
    options_kind: int
    table: Any
    options2_kind: int
    table2: Any

    def __str__(self) -> str:
        return f"operator {self.index} {self.kind}" + (f" {self.custom!r}" if self.custom else "")


@dataclass
class Subgraph:
    """Tensors and operators in the order in which they run."""

    name: str
    tensors: list[Tensor]
    operators: list[Operator]
    inputs: list[int]
    outputs: list[int]


@dataclass
class Model:
    """A parsed file."""

    path: Path
    sha256: str
    size: int
    subgraphs: list[Subgraph]
    reader: Reader = field(repr=False)
    description: str = ""


class Reader:
    """Walks one file. Every method raises InvalidModel that names the file and the tensor or operator."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.schema = _lazy.tflite()
        try:
            self.data = path.read_bytes()
        except OSError as e:
            raise InvalidModel(f"{path}: cannot be read ({e})") from e
        self.budget = 2 * len(self.data) + 4096
        self.constants_left = max(MIN_CONSTANTS, CONSTANTS_FACTOR * len(self.data))
        self.kinds = {v: k for k, v in vars(self.schema.BuiltinOperator).items() if isinstance(v, int)}
        self.options_names = {v: k for k, v in vars(self.schema.BuiltinOptions).items() if isinstance(v, int)}
        self.options2_names = {v: k for k, v in vars(self.schema.BuiltinOptions2).items() if isinstance(v, int)}
        self.root: Any = None

    @contextmanager
    def at(self, what: str) -> Iterator[None]:
        """Exceptions inside become an InvalidModel about `what`."""
        try:
            yield
        except FrugalError:
            raise
        except MALFORMED as e:
            why = "an offset points outside the file" if isinstance(e, struct.error) else e or type(e).__name__
            raise InvalidModel(f"{self.path}: {what}: malformed ({why})") from e

    def fail(self, what: object, why: str) -> InvalidModel:
        """An InvalidModel to raise."""
        return InvalidModel(f"{self.path}: {what}: {why}")

    def take(self, count: int) -> None:
        """Charge `count` bytes to the budget."""
        self.budget -= count
        if count < 0 or self.budget < 0:
            raise InvalidModel(f"{self.path}: malformed (its tables refer to more bytes than the file has)")

    def model(self) -> Model:
        """Everything but the constants."""
        if len(self.data) < 16 or self.data[4:8] != b"TFL3":
            raise InvalidModel(f"{self.path}: not a TFLite file, or truncated (no identifier TFL3)")
        with self.at("header"):
            self.root = self.schema.Model.GetRootAs(self.data, 0)
            count = self.root.SubgraphsLength()
            self.take(16 * count + 4 * self.root.BuffersLength())
            version = self.root.Version()
        if version != 3:
            raise self.fail("header", f"schema version {version}, want 3")
        if not count:
            raise self.fail("header", "no subgraph")
        subgraphs = [self.subgraph(i) for i in range(count)]
        return Model(self.path, hashlib.sha256(self.data).hexdigest(), len(self.data), subgraphs, self)

    def subgraph(self, index: int) -> Subgraph:
        what = f"subgraph {index}"
        with self.at(what):
            g = self.root.Subgraphs(index)
            self.take(8 * (g.TensorsLength() + g.OperatorsLength()))
            name, n, m = self.text(g.Name()), g.TensorsLength(), g.OperatorsLength()
            inputs, outputs = (self.ints(g, field) for field in ("Inputs", "Outputs"))
        tensors = [self.tensor(g, i, f"{what}: tensor {i}") for i in range(n)]
        operators = [self.operator(g, i, n, f"{what}: operator {i}") for i in range(m)]
        for i in (*inputs, *outputs):
            if not 0 <= i < n:
                raise self.fail(what, f"an input or output refers to tensor {i} of {n}")
        return Subgraph(name, tensors, operators, inputs, outputs)

    def text(self, raw: bytes | None) -> str:
        self.take(len(raw or b""))
        return (raw or b"").decode("utf-8", "replace").replace("\0", "")

    def ints(self, table: Any, name: str) -> list[int]:
        """A vector of numbers of a table; [] when it is missing."""
        count = getattr(table, name + "Length")()
        self.take(count)
        return [int(v) for v in getattr(table, name + "AsNumpy")()] if count else []

    def tensor(self, g: Any, index: int, what: str) -> Tensor:
        with self.at(what):
            t = g.Tensors(index)
            name = self.text(t.Name())
            what += f" {name[:200]!r}"
            shape, signature = self.ints(t, "Shape"), self.ints(t, "ShapeSignature")
            kind, buffer = t.Type(), t.Buffer()
            quantization = self.quantization(t.Quantization(), what)
            constant = self.has_data(buffer, what)
            variable, sparsity = bool(t.IsVariable()), t.Sparsity()
        if any(not 0 <= d <= LARGEST_DIM for d in shape) or len(shape) > 8:
            raise self.fail(what, f"shape {shape}: want at most 8 dimensions from 0 to {LARGEST_DIM}")
        if signature and not constant:
            if len(signature) != len(shape) or any(s not in (-1, d) for s, d in zip(signature, shape, strict=True)):
                signature = shape  # older converters wrote signatures that contradict the shape, which is what runs
            shape = signature
        dtype = DTYPES.get(kind)
        if dtype is not None and quantization is not None and quantization.per_channel:
            axis = quantization.axis
            if not 0 <= axis < len(shape) or shape[axis] != quantization.scale.size:
                raise self.fail(what, f"{quantization.scale.size} scales do not fit axis {axis} of shape {shape}")
        return Tensor(index, name, tuple(shape), kind, dtype, quantization, buffer, variable, constant, sparsity)

    def quantization(self, q: Any, what: str) -> Quantization | None:
        if q is None or not q.ScaleLength():
            return None
        self.take(12 * (q.ScaleLength() + q.ZeroPointLength()))
        scale = np.array(q.ScaleAsNumpy(), np.float32)
        zero = np.array(q.ZeroPointAsNumpy(), np.int64) if q.ZeroPointLength() else np.zeros(scale.size, np.int64)
        if zero.size == 1 and scale.size > 1:
            zero = np.repeat(zero, scale.size)
        if zero.size != scale.size:
            raise self.fail(what, f"{scale.size} scales but {zero.size} zero points")
        if not np.isfinite(scale).all() or (scale < 0).any():
            raise self.fail(what, "a scale is negative or not finite")
        if (scale == 0).any():
            return None
        return Quantization(scale, zero, int(q.QuantizedDimension()))

    def has_data(self, buffer: int, what: str) -> bool:
        if buffer >= self.root.BuffersLength():
            raise self.fail(what, f"refers to buffer {buffer} of {self.root.BuffersLength()}")
        b = self.root.Buffers(buffer)
        return bool(b.DataLength() or b.Size() > 1)

    def operator(self, g: Any, index: int, tensors: int, what: str) -> Operator:
        with self.at(what):
            o = g.Operators(index)
            if not 0 <= o.OpcodeIndex() < self.root.OperatorCodesLength():
                raise self.fail(what, f"refers to operator code {o.OpcodeIndex()} of {self.root.OperatorCodesLength()}")
            code = self.root.OperatorCodes(o.OpcodeIndex())
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            custom = self.text(code.CustomCode())
            inputs, outputs, middle = (self.ints(o, name) for name in ("Inputs", "Outputs", "Intermediates"))
            kind = self.kinds.get(number, f"number {number}")
            kinds = o.BuiltinOptionsType(), o.BuiltinOptions2Type()
            tables = o.BuiltinOptions(), o.BuiltinOptions2()
            version = code.Version()
            made = Operator(index, kind, custom, version, inputs, outputs, middle, kinds[0], tables[0], kinds[1], tables[1])
        for i in made.inputs + made.outputs + made.intermediates:
            if not -1 <= i < tensors:
                raise self.fail(f"{what} {kind}", f"refers to tensor {i} of {tensors}")
        return made

    def option(self, op: Operator, options: str, name: str, default: Any) -> Any:
        """Field `name` of the options table of an operator; the default when the operator has no table."""
        with self.at(f"{op}: options"):
            for kind, table, names in (
                (op.options_kind, op.table, self.options_names),
                (op.options2_kind, op.table2, self.options2_names),
            ):
                if kind and table is not None and names.get(kind) == options:
                    typed = getattr(self.schema, options)()
                    typed.Init(table.Bytes, table.Pos)
                    if isinstance(default, list):
                        return self.ints(typed, name) or default
                    value = getattr(typed, name)()
                    return self.text(value) if isinstance(default, str) else type(default)(value)
        if op.options_kind and self.options_names.get(op.options_kind) != options and not op.options2_kind:
            raise self.fail(op, f"has options of kind {self.options_names.get(op.options_kind)}, want {options}")
        return default

    def array(self, t: Tensor) -> NDArray[Any]:
        """The value of a constant tensor, in its own dtype and shape; a view of the file where possible."""
        with self.at(str(t)):
            if t.dtype is None and t.kind != BFLOAT16:
                raise UnsupportedOperator(f"{self.path}: {t}: constants of type number {t.kind} are not supported")
            raw = self.raw(t.buffer)
            itemsize = 2 if t.dtype is None else t.dtype.itemsize
            count = int(np.prod(t.shape, dtype=object)) if t.shape else 1
            self.constants_left -= count * itemsize
            if self.constants_left < 0:
                raise self.fail(t, f"shape {t.shape}: constants take more than {CONSTANTS_FACTOR} times the file")
            if t.sparsity is not None and t.dtype is not None:
                return self.dense(t, raw)
            want = -(-count // 2) if t.kind == INT4 else count * itemsize
            if len(raw) != want:
                raise self.fail(t, f"shape {t.shape} needs {want} bytes, its buffer has {len(raw)}")
            if t.kind == INT4:
                return unpack_int4(raw, count).reshape(t.shape)
            if t.dtype is None:
                return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(t.shape)
            return np.frombuffer(raw, t.dtype).reshape(t.shape)

    def raw(self, buffer: int) -> NDArray[np.uint8]:
        """The bytes of a buffer, inside the flatbuffer or (files above 2 GB) after it."""
        b = self.root.Buffers(buffer)
        if b.DataLength():
            return np.asarray(b.DataAsNumpy())
        start, size = b.Offset(), b.Size()
        if start + size > len(self.data):
            raise self.fail(f"buffer {buffer}", f"bytes {start} to {start + size} are not in the file ({len(self.data)})")
        return np.frombuffer(self.data, np.uint8, size, start)

    def dense(self, t: Tensor, raw: NDArray[np.uint8]) -> NDArray[Any]:
        from .sparse import densify

        assert t.dtype is not None
        values = unpack_int4(raw, 2 * raw.size) if t.kind == INT4 else np.frombuffer(raw, t.dtype)
        return densify(self, t, values)


def unpack_int4(raw: NDArray[np.uint8], count: int) -> NDArray[np.int8]:
    """Two codes a byte, the low nibble first -> int8."""
    codes = np.empty(2 * raw.size, np.uint8)
    codes[0::2], codes[1::2] = raw & 15, raw >> 4
    return ((codes[:count] ^ 8).astype(np.int16) - 8).astype(np.int8)


def read(path: Path) -> Model:
    """Parse a .tflite file. Raises InvalidModel, MissingExtra."""
    return Reader(path).model()
