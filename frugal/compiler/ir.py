"""The compiler's graph: tensors with symbolic shapes, and steps of the executor (kernels/include/frugal_plan.h).

The importer turns ONNX nodes straight into these steps; passes rewrite them; planfile.py writes them.  A tensor that is known
at compile time carries its value (``const``), or its symbolic integers (``sym``), or, for a dequantized weight, the quantized
form from which the value can be made (``quant``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np

from . import dims
from .dims import Dim

ml_dtypes: Any
try:  # comes with onnx; without it no model is read
    import ml_dtypes
except ImportError:
    ml_dtypes = None

Shape = tuple[Dim, ...]


class DType(IntEnum):
    """ONNX TensorProto.DataType numbers."""

    FLOAT = 1
    UINT8 = 2
    INT8 = 3
    UINT16 = 4
    INT16 = 5
    INT32 = 6
    INT64 = 7
    BOOL = 9
    FLOAT16 = 10
    DOUBLE = 11
    UINT32 = 12
    UINT64 = 13
    BFLOAT16 = 16
    FLOAT8E4M3FN = 17
    FLOAT8E4M3FNUZ = 18
    FLOAT8E5M2 = 19
    FLOAT8E5M2FNUZ = 20
    UINT4 = 21  # 4 and 2 bits: one element a byte, but packed in a model's file
    INT4 = 22
    FLOAT4E2M1 = 23
    FLOAT8E8M0 = 24
    UINT2 = 25
    INT2 = 26


NUMPY: dict[int, np.dtype] = {
    DType.FLOAT: np.dtype(np.float32),
    DType.UINT8: np.dtype(np.uint8),
    DType.INT8: np.dtype(np.int8),
    DType.UINT16: np.dtype(np.uint16),
    DType.INT16: np.dtype(np.int16),
    DType.INT32: np.dtype(np.int32),
    DType.INT64: np.dtype(np.int64),
    DType.BOOL: np.dtype(np.bool_),
    DType.FLOAT16: np.dtype(np.float16),
    DType.DOUBLE: np.dtype(np.float64),
    DType.UINT32: np.dtype(np.uint32),
    DType.UINT64: np.dtype(np.uint64),
}
if ml_dtypes is not None:
    NUMPY |= {
        DType.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
        DType.FLOAT8E4M3FN: np.dtype(ml_dtypes.float8_e4m3fn),
        DType.FLOAT8E4M3FNUZ: np.dtype(ml_dtypes.float8_e4m3fnuz),
        DType.FLOAT8E5M2: np.dtype(ml_dtypes.float8_e5m2),
        DType.FLOAT8E5M2FNUZ: np.dtype(ml_dtypes.float8_e5m2fnuz),
        DType.UINT4: np.dtype(ml_dtypes.uint4),
        DType.INT4: np.dtype(ml_dtypes.int4),
        DType.FLOAT4E2M1: np.dtype(ml_dtypes.float4_e2m1fn),
        DType.FLOAT8E8M0: np.dtype(ml_dtypes.float8_e8m0fnu),
        DType.UINT2: np.dtype(ml_dtypes.uint2),
        DType.INT2: np.dtype(ml_dtypes.int2),
    }
NARROW = frozenset({DType.FLOAT16, DType.BFLOAT16})  # floats that are computed in float32
SMALL_INTS = {DType.UINT4: 4, DType.INT4: 4, DType.UINT2: 2, DType.INT2: 2}  # bits of an element in a model's file
INTEGERS = {d for d in NUMPY if "INT" in DType(d).name and d not in SMALL_INTS}
SMALL_FLOATS = {
    DType.FLOAT8E4M3FN, DType.FLOAT8E4M3FNUZ, DType.FLOAT8E5M2, DType.FLOAT8E5M2FNUZ, DType.FLOAT4E2M1, DType.FLOAT8E8M0,
}  # fmt: skip
FROM_NUMPY = {dtype: DType(number) for number, dtype in NUMPY.items()}


class Op(IntEnum):
    """enum frugal_op of frugal_plan.h (a test compares the two), and ALIAS, which becomes a tensor instead of a step."""

    ALIAS = -1
    UNARY = 0
    BINARY = 1
    WHERE = 2
    CAST = 3
    TRANSPOSE = 4
    EXPAND = 5
    SLICE = 6
    CONCAT = 7
    GATHER = 8
    GATHER_DEQUANTIZE = 9
    RANGE = 10
    DIMS = 11
    FILL = 12
    REDUCE = 13
    SOFTMAX = 14
    LAYER_NORM = 15
    RMS_NORM = 16
    QUANTIZE_ACT = 17
    LINEAR = 18
    MATMUL = 19
    ATTENTION = 20
    CUMSUM = 21
    QUANTIZE = 22
    DEQUANTIZE = 23
    ARG = 24
    # -- 25..31: control flow and shapes known at run time
    IF = 25
    ELSE = 26
    END = 27
    MERGE = 28
    LOOP = 29
    VAR = 30
    SET = 31

    # -- 32..39: convolution and pooling
    CONV = 32
    CONV_DEPTHWISE = 33
    POOL = 34
    MAX_POOL_INDICES = 35

    # -- 40..55: moving, sorting, searching, sampling
    PAD = 40
    RESIZE = 41
    GATHER_AT = 42
    SCATTER_AT = 43
    TOPK = 44
    NONZERO = 45
    UNIQUE = 46
    NMS = 47
    SIZES = 48
    GRID_SAMPLE = 49
    ROI_ALIGN = 50
    COL2IM = 51
    CUMPROD = 52
    RANDOM = 53

    # -- 56..63: quantization and data types
    CONVERT = 56
    BIT_CAST = 57
    QUANTIZE_FLOAT = 58
    DYNAMIC_QUANTIZE = 59
    LINEAR_INTEGER = 60

    # -- 64..71: integer convolution and pooling
    QCONV = 64
    QDEPTH = 65
    QBINARY = 66
    QPOOL = 67
    QLOOKUP = 68
    QSOFTMAX = 69
    CONV_INTEGER = 70
    QCODES = 71

    # -- 72..79: recurrences and transforms
    RECURRENT = 72
    DFT = 73
    STFT = 74
    WINDOW = 75
    MEL = 76

    # -- 80..87: attention and its caches
    ATTENTION_CACHE = 80
    TENSOR_SCATTER = 81
    ROTARY = 82
    LINEAR_ATTENTION = 83
    CAUSAL_CONV = 84
    DET = 85
    # -- 88..91: caches of a type of their own
    CACHE_APPEND = 88
    ATTENTION_KEPT = 89

    # -- 92..95: convolutions in other forms
    CONV_WINOGRAD = 92

    # -- 96..99: text
    GATHER_PACKED = 96


CONTROL = frozenset((Op.IF, Op.ELSE, Op.END, Op.MERGE, Op.LOOP, Op.VAR, Op.SET))


class Unary(IntEnum):
    COPY = 0
    NEG = 1
    ABS = 2
    SIGN = 3
    SQRT = 4
    RECIPROCAL = 5
    FLOOR = 6
    CEIL = 7
    ROUND = 8
    EXP = 9
    LOG = 10
    ERF = 11
    TANH = 12
    SIGMOID = 13
    RELU = 14
    LEAKY_RELU = 15
    CLIP = 16
    GELU = 17
    GELU_TANH = 18
    SILU = 19
    SIN = 20
    COS = 21
    NOT = 22
    SOFTPLUS = 23
    ELU = 24
    HARD_SIGMOID = 25
    HARD_SWISH = 26
    ISNAN = 27
    BIT_NOT = 28
    ISINF = 29
    TAN = 30
    ASIN = 31
    ACOS = 32
    ATAN = 33
    SINH = 34
    COSH = 35
    ASINH = 36
    ACOSH = 37
    ATANH = 38
    SHRINK = 39


class Cell(IntEnum):
    """Activations of a recurrence beside those of Unary."""

    AFFINE = 64
    THRESHOLDED_RELU = 65
    SCALED_TANH = 66
    SOFTSIGN = 67


class Binary(IntEnum):
    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    MIN = 4
    MAX = 5
    POW = 6
    MOD = 7
    FMOD = 8
    EQUAL = 9
    LESS = 10
    LESS_EQUAL = 11
    GREATER = 12
    GREATER_EQUAL = 13
    AND = 14
    OR = 15
    XOR = 16
    BIT_AND = 17
    BIT_OR = 18
    BIT_XOR = 19
    SHIFT_LEFT = 20
    SHIFT_RIGHT = 21


class Reduce(IntEnum):
    SUM = 0
    MEAN = 1
    MAX = 2
    MIN = 3
    PROD = 4
    SUM_SQUARE = 5
    L1 = 6
    L2 = 7


class Layout(IntEnum):
    PLAIN = 0
    F32_P16 = 1
    W8_P16 = 2
    W4_P16 = 3
    A8_TOKEN = 4
    A8_BLOCK = 5
    F16_P16 = 6
    BF16_P16 = 7
    W4O_P16 = 8
    W8B_P16 = 9


@dataclass(eq=False)
class Quantized:
    """A quantized constant: value = (codes - zero) * scale, along ``axis`` in blocks of ``block`` (0: one scale a channel).

    codes: int8, uint8 or int32, for 4-bit types one code an element; bits: 4, 8 or 32; scale float32; zero as codes, or None.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray | None
    axis: int
    block: int
    bits: int

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Scales or zero points so that they broadcast to the codes."""
        if values.size == 1:
            return values.reshape(())
        if self.block:
            values = np.repeat(values, min(self.block, self.codes.shape[self.axis]), axis=self.axis)
            return values[tuple(slice(0, n) for n in self.codes.shape)]
        shape = [1] * self.codes.ndim
        shape[self.axis] = values.size
        return values.reshape(shape)

    def value(self) -> np.ndarray:
        codes = self.codes.astype(np.int32)
        if self.zero is not None:
            codes = codes - self.spread(self.zero.astype(np.int32))
        values: np.ndarray = codes.astype(np.float32) * self.spread(self.scale)
        return values

    def transposed(self, perm: tuple[int, ...]) -> Quantized:
        def turn(values: np.ndarray) -> np.ndarray:
            return values.transpose(perm) if values.ndim == len(perm) else values

        zero = None if self.zero is None else turn(self.zero)
        return Quantized(turn(self.codes), turn(self.scale), zero, perm.index(self.axis), self.block, self.bits)


@dataclass(eq=False)
class Weight:
    """The right operand of a linear, as natural arrays of [n, k]; packed only when the plan is written.

    One of: float32 ``values`` (F16_P16, BF16_P16: of which 16 bits hold every one); int8 ``codes`` in [-127, 127] with float32
    ``scale`` [n], or (W8B_P16) float16 ``scale`` [n, ceil(k/32)]; uint8 ``codes`` 0..15 with float16 ``scale`` and uint8 ``zero``
    or (W4O_P16) float16 ``offset`` [n, ceil(k/32)].
    """

    layout: Layout
    n: int
    k: int
    values: Callable[[], np.ndarray] | None = None
    codes: np.ndarray | None = None
    scale: np.ndarray | None = None
    zero: np.ndarray | None = None
    offset: np.ndarray | None = None


@dataclass(eq=False)
class Tensor:
    name: str
    dtype: int
    shape: Shape
    const: np.ndarray | None = None
    sym: np.ndarray | None = None  # object array of Dim: integers known but for the symbols
    quant: Quantized | None = None
    weight: Weight | None = None
    layout: Layout = Layout.PLAIN
    input: int = -1  # index of the model input this is, or -1
    items: list[Tensor] | None = None  # of a sequence, which exists at compile time only
    pinned: bool = False  # late dims read it: no other tensor may take its place
    wide: Tensor | None = None  # of a float16 or bfloat16 result: the float32 it was rounded from (lower.py, rule 6)

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def known(self) -> bool:
        """Whether the value is known at compile time."""
        return self.const is not None or self.quant is not None

    @property
    def value_shape(self) -> tuple[int, ...]:
        """The shape of a known value."""
        return tuple(d for d in self.shape if isinstance(d, int))

    def value(self) -> np.ndarray:
        """The constant value, dequantized if need be."""
        if self.const is None:
            assert self.quant is not None, self.name
            return self.quant.value()
        return self.const

    def scalar(self) -> float | None:
        """The value of a constant of one element, else None."""
        if self.const is None or self.const.size != 1:
            return None
        return float(self.const.reshape(-1)[0])


@dataclass(eq=False)
class Step:
    op: Op
    inputs: list[Tensor | None]
    outputs: list[Tensor]
    attrs: list[int | float | Dim] = field(default_factory=list)
    name: str = ""

    @property
    def out(self) -> Tensor:
        return self.outputs[0]

    def is_unary(self, kind: Unary) -> bool:
        return self.op == Op.UNARY and self.attrs[0] == kind

    def is_binary(self, kind: Binary) -> bool:
        return self.op == Op.BINARY and self.attrs[0] == kind


@dataclass(eq=False)
class Graph:
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    output_names: list[str] = field(default_factory=list)
    output_dims: list[list[str]] = field(default_factory=list)  # what the model calls the dims of each output; "": nothing
    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # for `frugal inspect`: what stayed float, and why
    guards: list[Tensor] = field(default_factory=list)  # kept though nobody reads them: steps that some inputs have to stop at
    history: list[tuple[str, dict[str, int]]] = field(default_factory=list)  # steps by operation after each pass

    def count(self) -> dict[str, int]:
        """How many steps of each operation there are; views are none."""
        return dict(Counter(step.op.name.lower() for step in self.steps if step.op != Op.ALIAS))

    def producers(self) -> dict[Tensor, Step]:
        return {t: s for s in self.steps for t in s.outputs}

    def uses(self) -> dict[Tensor, list[Step]]:
        """The steps that read each tensor; a model output counts as one more reader, of op None."""
        table: dict[Tensor, list[Step]] = {}
        for step in self.steps:
            for tensor in step.inputs:
                if tensor is not None:
                    table.setdefault(tensor, []).append(step)
        for tensor in self.outputs:
            table.setdefault(tensor, []).append(OUTSIDE)
        return table

    def operands(self) -> Iterator[Tensor]:
        for step in self.steps:
            yield from (t for t in step.inputs if t is not None)
            yield from step.outputs

    def replace(self, old: Tensor, new: Tensor) -> None:
        """Let every reader of ``old`` read ``new``."""
        for step in self.steps:
            step.inputs = [new if t is old else t for t in step.inputs]
        self.outputs = [new if t is old else t for t in self.outputs]

    def blocks(self) -> dict[Step, Step | None]:
        """The IF, ELSE or LOOP in whose block each step is; None outside of all."""
        table: dict[Step, Step | None] = {}
        stack: list[Step] = []
        for step in self.steps:
            if step.op in (Op.ELSE, Op.END):
                stack.pop()
            table[step] = stack[-1] if stack else None
            if step.op in (Op.IF, Op.ELSE, Op.LOOP):
                stack.append(step)
        return table

    def drop_dead(self) -> None:
        """Remove the steps whose results nobody reads, and the blocks that are left empty."""
        groups = self._groups()
        live, alive = _live((*self.outputs, *self.guards)), set[Step]()
        before = -1
        while before != len(alive):  # again: a variable may be read before the step that sets it
            before = len(alive)
            for step in reversed(self.steps):
                written = step.inputs[:1] if step.op == Op.SET else step.outputs
                if step in alive or not any(t in live for t in written):
                    continue
                for needed in {step, *(s for block in groups.get(step, ()) for s in block)} - alive:
                    alive.add(needed)
                    live |= _live((*(t for t in needed.inputs if t is not None), *needed.outputs), needed.attrs)
        self.steps = [s for s in self.steps if s in alive]

    def _groups(self) -> dict[Step, tuple[list[Step], ...]]:
        """The control steps (IF, ELSE, END; LOOP, END) of all the blocks that each step is in; a LOOP is in its own."""
        groups: dict[Step, tuple[list[Step], ...]] = {}
        stack: list[list[Step]] = []
        for step in self.steps:
            if step.op in (Op.IF, Op.LOOP):
                stack.append([])
            if step.op in (Op.IF, Op.LOOP, Op.ELSE, Op.END):
                stack[-1].append(step)
            if stack and step.op not in (Op.IF, Op.ELSE, Op.END):
                groups[step] = tuple(stack)
            if step.op == Op.END:
                stack.pop()
        return groups


def _live(tensors: Iterable[Tensor], attrs: Iterable[object] = ()) -> set[Tensor]:
    """Tensors, and those from which their late dims come."""
    found = set(tensors)
    for dim in (*attrs, *(d for t in tuple(found) for d in t.shape)):
        found.update(atom.tensor for atom in dims.late_atoms(dim))
    return found


OUTSIDE = Step(Op.ALIAS, [], [], name="(model output)")


def elements(shape: Shape) -> Dim:
    return dims.product(shape)
