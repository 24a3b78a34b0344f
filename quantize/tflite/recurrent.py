"""SVDF and UNIDIRECTIONAL_SEQUENCE_LSTM: their state tensors become inputs and outputs (state.py).

A plain float LSTM is ONNX's LSTM. What ONNX's lacks (integers, projection, layer normalization, clipping, coupled gates) is one
step as nodes of its own, run by Scan over the time axis, or once where the sequence has one step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from frugal.errors import InvalidModel, UnsupportedOperator

from .conv import bias, want_rank
from .converter import CLAMPS, Graph, Op, identity, op
from .reader import Tensor
from .state import keep_state, tensor_state

GATES = ("input", "forget", "cell", "output")
INPUT_WEIGHTS, RECURRENT_WEIGHTS, PEEPHOLES, BIASES, PROJECTION, PROJECTION_BIAS = 1, 5, 9, 12, 16, 17
OUTPUT_STATE, CELL_STATE, NORMS = 18, 19, 20


def requantize(o: Op, value: str, t: Tensor) -> tuple[str, str]:
    """`value` rounded to the integers of t: (raw, real)."""
    if not t.quantized:
        return value, value
    scales = o.c.scales(t)
    raw = o.node("QuantizeLinear", [value, *scales])
    return raw, o.node("DequantizeLinear", [raw, *scales])


@op("SVDF")
def svdf(o: Op) -> None:
    """x [B, I], feature weights [F, I], time weights [F, M], bias [F / rank], state [B, F M].

    state [B, F, M] moves one cell left, x W_f^T comes in at its end; y = sum over M and rank of state W_t, plus bias.
    """
    x, w, time, y = o.input(0), o.input(1), o.input(2), o.output()
    rank = o.option("SVDFOptions", "Rank", 0)
    for t in (x, w, time):
        want_rank(t, 2)
    filters, memory = time.shape
    if w.shape[0] != filters or rank < 1 or filters < 1 or filters % rank or memory < 1:
        raise InvalidModel(f"weights {list(w.shape)} and {list(time.shape)} with rank {rank}")
    state = tensor_state(o, 4)
    feature = o.node("Gemm", [o.c.real(x), o.c.real(w)], transB=1)
    feature = requantize(o, feature, state)[0]
    memories = o.node("Reshape", [o.c.raw(state), o.c.ints([-1, filters, memory])])
    old = o.node("Slice", [memories, o.c.ints([1]), o.c.ints([memory]), o.c.ints([2])])
    new = o.node("Concat", [old, o.node("Unsqueeze", [feature, o.c.ints([2])])], axis=2)
    keep_state(o, state, o.node("Reshape", [new, o.c.ints([-1, filters * memory])]))
    if state.quantized:
        new = o.node("DequantizeLinear", [new, *o.c.scales(state)])
    value = o.node("Mul", [new, o.c.real(time)])
    value = o.node("Reshape", [value, o.c.ints([-1, filters // rank, rank * memory])])
    value = o.node("ReduceSum", [value, o.c.ints([2])], main=True, keepdims=0)
    for b in bias(o, 3, state, time, filters // rank):
        value = o.node("Add", [value, b])
    o.c.put_real(y, value, None, o.activation("SVDFOptions"))


@op("UNIDIRECTIONAL_SEQUENCE_LSTM")
def lstm(o: Op) -> None:
    """x [T, B, I] (time major) or [B, T, I] -> [T, B, P] or [B, T, P]."""
    x, y, options = o.input(0), o.output(), "UnidirectionalSequenceLSTMOptions"
    want_rank(x, 3)
    time_axis = 0 if o.option(options, "TimeMajor", False) else 1
    h, c = tensor_state(o, OUTPUT_STATE), tensor_state(o, CELL_STATE)
    cell = Cell(o, h, c)
    if cell.plain():
        onnx_lstm(o, cell, time_axis)
        return
    if x.shape[time_axis] == 1:
        axis = o.c.ints([time_axis])
        hidden, memory = cell.step(o.node("Squeeze", [o.c.raw(x), axis]), o.c.raw(h), o.c.raw(c))
        sequence = o.node("Unsqueeze", [hidden, axis], main=True)
    else:
        sequence, hidden, memory = scan(o, cell, time_axis)
    o.c.put(y, sequence)
    keep_state(o, h, hidden)
    keep_state(o, c, memory)


def onnx_lstm(o: Op, cell: Cell, time_axis: int) -> None:
    """A float LSTM: gates in ONNX's order input, output, forget, cell."""
    x, c, order = o.input(0), o.c, (0, 3, 1, 2)
    first = o.c.ints([0])
    perm = identity(3) if time_axis == 0 else (1, 0, 2)
    weights = [
        o.node("Concat", [c.real(o.input(base + g)) for g in order], axis=0) for base in (INPUT_WEIGHTS, RECURRENT_WEIGHTS)
    ]
    weights = [o.node("Unsqueeze", [w, first]) for w in weights]
    zeros = c.constant(f"{o.name}/zeros", np.zeros(4 * cell.units, np.float32))
    biases = o.node("Concat", [*(c.real(o.input(BIASES + g)) for g in order), zeros], axis=0)
    biases = o.node("Unsqueeze", [biases, first])
    states = [o.node("Unsqueeze", [c.raw(t), first]) for t in (cell.h, cell.c)]
    inputs = [c.real(x, perm), *weights, biases, "", *states]
    if o.has(PEEPHOLES):
        peepholes = o.node("Concat", [c.real(o.input(PEEPHOLES + i)) for i in (0, 2, 1)], axis=0)
        inputs.append(o.node("Unsqueeze", [peepholes, first]))
    names = {"TANH": "Tanh", "RELU": "Relu"}
    shape = {"activations": ["Sigmoid", names[cell.activation], names[cell.activation]]} if cell.activation != "TANH" else {}
    made = o.nodes("LSTM", inputs, main=True, outputs=3, hidden_size=cell.units, **shape)
    o.c.put_real(o.output(), o.node("Squeeze", [made[0], c.ints([1])]), perm)
    keep_state(o, cell.h, o.node("Squeeze", [made[1], first]))
    keep_state(o, cell.c, o.node("Squeeze", [made[2], first]))


def scan(o: Op, cell: Cell, time_axis: int) -> tuple[str, str, str]:
    """All steps: the sequence of outputs, and both states after the last."""
    c, h = o.c, c_info(o)
    outer, body = c.graph, Graph(c.graph.names, c.graph)
    cell.prepare()  # so do dequantized weights
    names = [body.unique(f"{o.name}/{n}") for n in ("h", "c", "x")]
    c.graph = body
    try:
        hidden, memory = cell.step(names[2], names[0], names[1])
        (again,) = body.node("Identity", [hidden], c.node_name(f"{o.name}/Identity"))
    finally:
        c.graph = outer
    x, state, y = o.input(0), cell.h, o.output()
    shapes = [(cell.h, cell.h.shape), (cell.c, cell.c.shape), (x, tuple(d for i, d in enumerate(x.shape) if i != time_axis))]
    ins = [h(n, t, s) for n, (t, s) in zip(names, shapes, strict=True)]
    outs = [h(hidden, state, state.shape), h(memory, cell.c, cell.c.shape), h(again, y, state.shape)]
    graph = c.onnx.helper.make_graph(body.nodes, f"{o.name}/step", ins, outs)
    inputs = [c.raw(cell.h), c.raw(cell.c), c.raw(x)]
    axes = {"scan_input_axes": [time_axis], "scan_output_axes": [time_axis]}
    made = o.nodes("Scan", inputs, main=True, outputs=3, body=graph, num_scan_inputs=1, **axes)
    return made[2], made[0], made[1]


def c_info(o: Op) -> Any:
    """Makes the ValueInfo of a value with the type of a tensor; unknown dimensions stay open."""

    def info(name: str, t: Tensor, shape: tuple[int, ...]) -> Any:
        return o.c.onnx.helper.make_tensor_value_info(name, o.c.elem(t), [None if d < 0 else d for d in shape])

    return info


class Cell:
    """One LSTM step. Integers (8-bit activations, 16-bit cell) are rounded where TFLite's kernel rounds them."""

    def __init__(self, o: Op, h: Tensor, c: Tensor) -> None:
        self.o, self.h, self.c = o, h, c
        options = "UnidirectionalSequenceLSTMOptions"
        self.activation = o.activation(options)
        self.cell_clip = o.option(options, "CellClip", 0.0)
        self.projection_clip = o.option(options, "ProjClip", 0.0)
        self.coupled = not o.has(INPUT_WEIGHTS)
        self.integer = h.quantized
        want_rank(h, 2)
        want_rank(c, 2)
        self.units = c.shape[1]
        if self.activation not in ("TANH", "NONE", *CLAMPS) or (self.integer and self.activation != "TANH"):
            raise UnsupportedOperator(f"activation {self.activation}")
        if self.integer and (any(o.has(NORMS + g) for g in range(4)) or c.dtype != np.int16):
            raise UnsupportedOperator("integer LSTM with layer normalization, or without a 16-bit cell")
        for g in range(4):
            if (g or not self.coupled) and o.input(INPUT_WEIGHTS + g).shape != (self.units, o.input(0).shape[2]):
                raise InvalidModel(f"weights of the {GATES[g]} gate have shape {list(o.input(INPUT_WEIGHTS + g).shape)}")

    def plain(self) -> bool:
        """Whether it is ONNX's LSTM."""
        special = self.coupled or self.integer or self.cell_clip > 0 or self.activation not in ("TANH", "RELU")
        return not special and not any(self.o.has(i) for i in (PROJECTION, *range(NORMS, NORMS + 4)))

    def prepare(self) -> None:
        """Make the forms of all constants, outside the body of a Scan."""
        o = self.o
        for i in (*range(INPUT_WEIGHTS, OUTPUT_STATE), *range(NORMS, NORMS + 4)):
            if o.has(i) and o.input(i).dtype != np.int32:
                o.c.real(o.input(i))
        for g in range(4):
            self.gate_bias(g)
        if o.has(PROJECTION):
            self.projection_bias()

    def gate_bias(self, g: int) -> list[str]:
        if g == 0 and self.coupled:
            return []
        o = self.o
        return bias(o, BIASES + g, o.input(0), o.input(INPUT_WEIGHTS + g), self.units)

    def projection_bias(self) -> list[str]:
        o = self.o
        w = o.input(PROJECTION)
        return bias(o, PROJECTION_BIAS, self.hidden_type(), w, w.shape[0])

    def hidden_type(self) -> Tensor:
        """The type of o * tanh(c) before a projection: the last intermediate tensor, or the output state."""
        o = self.o
        if not self.integer or not o.has(PROJECTION):
            return self.h
        if len(o.operator.intermediates) < 5 or o.operator.intermediates[4] < 0:
            raise InvalidModel("an integer LSTM with projection needs 5 intermediate tensors")
        t = o.c.tensor(o.operator.intermediates[4])
        if t.quantization is None:
            raise InvalidModel(f"{t} has no scale")
        return Tensor(t.index, t.name, t.shape, self.h.kind, self.h.dtype, t.quantization, t.buffer, False, False)

    def fixed(self, value: str, bits: int) -> str:
        """`value` rounded to 16-bit integers of scale 2^-bits."""
        if not self.integer:
            return value
        o = self.o
        scales = [o.c.scalar(2.0**-bits), o.c.scalar(0, np.int16)]
        return o.node("DequantizeLinear", [o.node("QuantizeLinear", [value, *scales]), *scales])

    def gate(self, g: int, x: str, h: str, c: str) -> str:
        """sigmoid(W x + R h + p c + b), tanh for the cell's gate; x, h and c are reals."""
        o = self.o
        first = [x, o.c.real(o.input(INPUT_WEIGHTS + g))]
        normed = o.has(NORMS + g)
        biases = self.gate_bias(g)
        value = self.fixed(o.node("Gemm", first + ([] if normed else biases), transB=1), 12)
        recurrent = self.fixed(o.node("Gemm", [h, o.c.real(o.input(RECURRENT_WEIGHTS + g))], transB=1), 12)
        value = o.node("Add", [value, recurrent])
        peephole = PEEPHOLES + {0: 0, 1: 1, 3: 2}.get(g, 99)
        if g != 2 and o.has(peephole):
            value = o.node("Add", [value, self.fixed(o.node("Mul", [c, o.c.real(o.input(peephole))]), 12)])
        if normed:
            norm = o.c.real(o.input(NORMS + g))
            value = o.node("LayerNormalization", [value, norm, *biases], axis=-1, epsilon=1e-8)
        if g == 2:
            return self.fixed(self.shape(self.fixed(value, 12)), 15)
        return self.fixed(o.node("Sigmoid", [self.fixed(value, 12)]), 15)

    def shape(self, value: str) -> str:
        """The activation of the cell."""
        if self.activation == "NONE":
            return value
        if self.activation == "TANH":
            return self.o.node("Tanh", [value])
        return self.o.c.clamp(value, *CLAMPS[self.activation], self.o.name, self.h)

    def step(self, x: str, h: str, c: str) -> tuple[str, str]:
        """Raw values of one step: x [B, I], h [B, P], c [B, H] -> the new h and c."""
        o = self.o
        x, h_real, c_real = (
            o.node("DequantizeLinear", [v, *o.c.scales(t)]) if t.quantized else v
            for v, t in ((x, o.input(0)), (h, self.h), (c, self.c))
        )
        forget = self.gate(1, x, h_real, c_real)
        if self.coupled:
            one = o.c.scalar(1 - 2.0**-15 if self.integer else 1.0)
            entry = o.node("Sub", [one, forget])
        else:
            entry = self.gate(0, x, h_real, c_real)
        kept = requantize(o, o.node("Mul", [forget, c_real]), self.c)[1]
        new = requantize(o, o.node("Mul", [entry, self.gate(2, x, h_real, c_real)]), self.c)[1]
        memory = o.node("Add", [kept, new])
        if self.cell_clip > 0:
            memory = o.node("Clip", [memory, o.c.scalar(-self.cell_clip), o.c.scalar(self.cell_clip)])
        memory_raw, memory = requantize(o, memory, self.c)
        out = self.gate(3, x, h_real, memory)
        hidden = o.node("Mul", [out, self.fixed(self.shape(memory), 15)])
        if o.has(PROJECTION):
            real = requantize(o, hidden, self.hidden_type())[1]
            hidden = o.node("Gemm", [real, o.c.real(o.input(PROJECTION)), *self.projection_bias()], transB=1)
            if self.projection_clip > 0:
                hidden = o.node("Clip", [hidden, o.c.scalar(-self.projection_clip), o.c.scalar(self.projection_clip)])
        return requantize(o, hidden, self.h)[0], memory_raw
