"""Steps that have no small kernel of their own run in the sources that the PC runs (kernels/src): the same bits by construction.

The bundle takes the files it needs, builds the instruction-set table of scalar.c with the functions they call and no others, and
gets every tensor as a constant struct.  int64 shapes and float arithmetic make this slower on small cores than kernels/mcu.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from ..compiler.dims import Expr
from ..compiler.ir import NUMPY, DType, Layout, Op, Step, Tensor
from ..compiler.pack import pack, round_up
from ..errors import UnsupportedOperator
from .network import Buffer, Network
from .program import NativeOperand, NativeStep, Program

FILES = {
    Op.UNARY: "ops_elementwise.c", Op.BINARY: "ops_elementwise.c", Op.WHERE: "ops_elementwise.c", Op.CAST: "ops_types.c",
    Op.TRANSPOSE: "ops_data.c", Op.EXPAND: "ops_data.c", Op.SLICE: "ops_data.c", Op.CONCAT: "ops_data.c", Op.GATHER: "ops_data.c",
    Op.REDUCE: "ops_reduce.c", Op.SOFTMAX: "ops_reduce.c", Op.LAYER_NORM: "ops_norm.c", Op.RMS_NORM: "ops_norm.c",
    Op.QUANTIZE_ACT: "ops_linear.c", Op.LINEAR: "ops_linear.c", Op.QUANTIZE: "ops_quantize.c", Op.DEQUANTIZE: "ops_quantize.c",
    Op.RECURRENT: "ops_recurrent.c", Op.QBINARY: "ops_qconv.c", Op.QSOFTMAX: "ops_qconv.c", Op.QCODES: "ops_qconv.c",
}  # fmt: skip
ALWAYS = ("ops_common.c", "ops_types.c", "transpose.c", "ops_matrix.c")  # what those files call
HEADERS = ("ops.h", "isa.h", "fmath.h", "dmath.h", "isa/scalar.c", "isa/rows.h", "isa/table.h")
PUBLIC = ("frugal.h", "frugal_plan.h")
PANEL, OUT_ROW = 16, 17 * 16  # ops_linear.c
ROWS, GATES = 16, (1, 3, 4)  # ops_recurrent.c


def _linear(net: Network, step: Step) -> tuple[int, int]:
    y = step.out
    rows = int(np.prod(net.shape(y)[:-1], dtype=np.int64))
    quantized = y.layout in (Layout.A8_TOKEN, Layout.A8_BLOCK)
    return 0, 4 * OUT_ROW * min(1, rows) if quantized else 0


def _softmax(net: Network, step: Step) -> tuple[int, int]:
    shape = net.shape(step.out)
    return 0, 4 * shape[net.number(step.attrs[0])] if step.attrs[1] else 0


def _recurrent(net: Network, step: Step) -> tuple[int, int]:
    x, r = step.inputs[0], step.inputs[1]
    assert x is not None and r is not None
    gates, d = GATES[net.number(step.attrs[0])], 2 if step.attrs[1] == 2 else 1
    first = bool(step.attrs[2])
    b, h = net.shape(step.out)[0 if first else 1], net.shape(step.out)[2]
    hp, s = round_up(h, PANEL), net.shape(x)[2] // (d * gates)
    shared = 0 if r.layout == Layout.F32_P16 else 4 * d * gates * hp * h
    return shared, 4 * (3 * hp + 2 * gates * round_up(s, PANEL)) * min(ROWS, b)


SCRATCH: dict[Op, Callable[[Network, Step], tuple[int, int]]] = {
    Op.LINEAR: _linear, Op.SOFTMAX: _softmax, Op.RECURRENT: _recurrent,
}  # fmt: skip


def _attribute(net: Network, value: object) -> int:
    """As the plan writes it: an integer, or the bits of a float64."""
    if isinstance(value, float):
        return int(struct.unpack("<q", struct.pack("<d", value))[0])
    return net.number(value) if isinstance(value, Expr) else int(value)  # type: ignore[call-overload]


def _constant(t: Tensor) -> bytes:
    if t.weight is not None:
        return pack(t.weight).tobytes()
    value = t.value()
    return np.ascontiguousarray(value, NUMPY[t.dtype]).tobytes()


def _operand(p: Program, t: Tensor) -> NativeOperand:
    net = p.net
    root = net.roots[t]
    if root in net.buffers:
        buffer = net.buffers[root]
        return NativeOperand(t.dtype, t.layout, net.shape(t), buffer.bytes, buffer)
    value = _constant(root)
    offset = p.data.add(value, t.name or "constant", weights=root.weight is not None)
    return NativeOperand(t.dtype, t.layout, net.shape(t), len(value), None, offset)


def lower(p: Program, step: Step) -> None:
    """Append a step.  Raises UnsupportedOperator with the operation's name."""
    if step.op not in FILES:
        raise UnsupportedOperator(
            f"'{step.name}': the operation {step.op.name} does not run on boards; quantize the model to int8 (frugal quantize), "
            f"or leave it out"
        )
    for t in (*step.inputs, *step.outputs):
        if t is not None and t.dtype in (DType.INT64, DType.DOUBLE) and not t.known:
            raise UnsupportedOperator(f"'{step.name}': {DType(t.dtype).name} at run time does not run on boards")
    operands = [None if t is None else _operand(p, t) for t in (*step.inputs, *step.outputs)]
    shared, thread = SCRATCH[step.op](p.net, step) if step.op in SCRATCH else (0, 0)
    made = NativeStep(int(step.op), step.op.name.lower(), operands, len(step.inputs), [], None, None)
    made.attrs = [_attribute(p.net, a) for a in step.attrs]
    made.shared = Buffer(f"shared scratch of {step.name}", shared) if shared else None
    made.scratch = Buffer(f"scratch of {step.name}", round_up(thread, 64)) if thread else None
    reads = [o.buffer for o in operands[: len(step.inputs)] if o is not None and o.buffer is not None]
    writes = [o.buffer for o in operands[len(step.inputs) :] if o is not None and o.buffer is not None]
    extra = [b for b in (made.shared, made.scratch) if b is not None]
    index = len(p.native)
    p.native.append(made)
    p.call(f"native_{index + 1}();", reads, [*writes, *extra], step.name)


def files(steps: list[NativeStep]) -> list[str]:
    """Of kernels/src, what the steps need."""
    return sorted({FILES[Op(s.op)] for s in steps} | set(ALWAYS))
