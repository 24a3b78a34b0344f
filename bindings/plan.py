"""A plan opened over a buffer: checked once by the C library, then read through its views."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from frugal.errors import InvalidPlan

from ._ffi import ffi, lib
from .status import check

if TYPE_CHECKING:
    import numpy as np

# ONNX TensorProto.DataType -> (numpy's name, ONNX Runtime's name).  What may cross the border to numpy.
DTYPES: dict[int, tuple[str, str]] = {
    1: ("float32", "tensor(float)"),
    2: ("uint8", "tensor(uint8)"),
    3: ("int8", "tensor(int8)"),
    4: ("uint16", "tensor(uint16)"),
    5: ("int16", "tensor(int16)"),
    6: ("int32", "tensor(int32)"),
    7: ("int64", "tensor(int64)"),
    9: ("bool", "tensor(bool)"),
    10: ("float16", "tensor(float16)"),
    11: ("float64", "tensor(double)"),
    12: ("uint32", "tensor(uint32)"),
    13: ("uint64", "tensor(uint64)"),
    16: ("bfloat16", "tensor(bfloat16)"),
    17: ("float8_e4m3fn", "tensor(float8e4m3fn)"),
    18: ("float8_e4m3fnuz", "tensor(float8e4m3fnuz)"),
    19: ("float8_e5m2", "tensor(float8e5m2)"),
    20: ("float8_e5m2fnuz", "tensor(float8e5m2fnuz)"),
    21: ("uint4", "tensor(uint4)"),
    22: ("int4", "tensor(int4)"),
    23: ("float4_e2m1fn", "tensor(float4e2m1)"),
    24: ("float8_e8m0fnu", "tensor(float8e8m0)"),
    25: ("uint2", "tensor(uint2)"),
    26: ("int2", "tensor(int2)"),
}
BITS = {16: "uint16", **dict.fromkeys(range(17, 27), "uint8")}  # types that numpy itself lacks, and what holds their bits


def numpy_dtype(number: int) -> np.dtype[Any]:
    """numpy's dtype for a data type: that of the package ml_dtypes where numpy has none, or without it that of the bits."""
    import numpy as np

    name = DTYPES[number][0]
    if number not in BITS:
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        return np.dtype(BITS[number])
    made: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return made


Dim = int | str | None


def _names(enum: str, prefix: str) -> dict[int, str]:
    return {number: name.removeprefix(prefix).lower() for number, name in ffi.typeof(f"enum {enum}").elements.items()}


class Tensor(NamedTuple):
    """Row `number` of the tensor table.  shape: ints, names of symbols, None for other expressions."""

    number: int
    name: str
    dtype: int
    kind: str
    layout: str
    shape: tuple[Dim, ...]
    bytes: int  # of a constant, else 0


class Step(NamedTuple):
    """Row `number` of the step table; inputs, outputs: tensor indices, -1 for an absent optional operand."""

    number: int
    op: str
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attributes: tuple[int, ...]


class PlanBuffer:
    """Views into `buffer` (any buffer, 64-aligned), which it keeps alive.  Raises InvalidPlan."""

    def __init__(self, buffer: Any) -> None:
        self.view = ffi.from_buffer(buffer)
        self.c = ffi.new("frugal_plan *")
        error = ffi.new("frugal_error *")
        check(lib.frugal_plan_open(self.c, self.view, len(self.view), error), error)
        c = self.c
        self.inputs = [self.tensor(lib.frugal_plan_input(c, i)) for i in range(c.n_inputs)]
        self.outputs = [self.tensor(lib.frugal_plan_output(c, i)) for i in range(c.n_outputs)]
        for t in self.inputs + self.outputs:
            if t.dtype not in DTYPES:
                raise InvalidPlan(f"model input or output {t.name!r} has data type {t.dtype}, which numpy has not")

    def __len__(self) -> int:
        return len(self.view)

    def string(self, offset: int) -> str:
        """The string at `offset` of TEXT."""
        text: bytes = ffi.string(self.c.text + offset, self.c.text_bytes - offset)
        return text.decode("utf-8", "backslashreplace")

    def meta(self) -> bytes:
        """The META section: JSON of whoever made the plan."""
        return bytes(ffi.buffer(self.c.meta, self.c.meta_bytes)) if self.c.meta_bytes else b""

    @cached_property
    def _enums(self) -> tuple[dict[int, str], dict[int, str], dict[int, str]]:
        return (
            _names("frugal_op", "FRUGAL_OP_"),
            _names("frugal_tensor_kind", "FRUGAL_TENSOR_"),
            _names("frugal_layout", "FRUGAL_"),
        )

    def dim(self, value: int) -> Dim:
        """A dim as people see it: a number, the name of a symbol, None for a nameless expression."""
        return value if value >= 0 else self.string(self.c.dims[-1 - value].name) or None

    def tensor(self, index: int) -> Tensor:
        """Row `index` of the tensor table."""
        if not 0 <= index < self.c.n_tensors:
            raise IndexError(index)
        t = self.c.tensors[index]
        _, kinds, layouts = self._enums
        shape = tuple(self.dim(t.dims[axis]) for axis in range(t.rank))
        return Tensor(index, self.string(t.name), t.dtype, kinds[t.kind], layouts[t.layout], shape, t.bytes)

    def steps(self) -> Iterator[Step]:
        """The step table in order of execution."""
        ops = self._enums[0]
        for index in range(self.c.n_steps):
            s = self.c.steps[index]
            args = ffi.unpack(self.c.args + s.args, s.n_in + s.n_out) if s.n_in + s.n_out else []
            attributes = ffi.unpack(self.c.attrs + s.attrs, s.n_attr) if s.n_attr else []
            yield Step(index, ops[s.op], self.string(s.name), tuple(args[: s.n_in]), tuple(args[s.n_in :]), tuple(attributes))

    def step_label(self, index: int) -> str:
        """ "step 12 'encoder.layer.0' (linear)": for messages."""
        if index >= self.c.n_steps:
            return f"step {index}"
        step = self.c.steps[index]
        return f"step {index} {self.string(step.name)!r} ({self._enums[0].get(step.op, step.op)})"

    def tensor_label(self, index: int) -> str:
        """ "tensor 'x'": for messages."""
        return f"tensor {self.string(self.c.tensors[index].name)!r}" if index < self.c.n_tensors else f"tensor {index}"

    def input_label(self, index: int) -> str:
        """ "input 'x'": for messages."""
        return f"input {self.inputs[index].name!r}" if index < len(self.inputs) else f"input {index}"
