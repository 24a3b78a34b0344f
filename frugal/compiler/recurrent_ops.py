"""Handlers of RNN, GRU and LSTM: one LINEAR for the inputs of all steps and directions, then one RECURRENT step.

DynamicQuantizeLSTM, which onnxruntime's quantize_dynamic writes, is an LSTM of its dequantized weights: inputs and states, which
onnxruntime rounds to 8 bits anew at each step, stay float32.
"""

from __future__ import annotations

from math import inf

import numpy as np

from .dims import Dim
from .ir import Binary, Cell, DType, Layout, Op, Tensor, Unary, Weight
from .lower import MICROSOFT, Node, op, show, type_name
from .math_ops import binary
from .pack import PANEL, round_up

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
CELLS = {"RNN": 0, "GRU": 1, "LSTM": 2}
DIRECTIONS = {"forward": 0, "reverse": 1, "bidirectional": 2}
DEFAULTS = {"RNN": ["tanh"], "GRU": ["sigmoid", "tanh"], "LSTM": ["sigmoid", "tanh", "tanh"]}
# name: (function, default alpha, default beta); None: takes none
FUNCTIONS: dict[str, tuple[int, float | None, float | None]] = {
    "relu": (Unary.RELU, None, None),
    "tanh": (Unary.TANH, None, None),
    "sigmoid": (Unary.SIGMOID, None, None),
    "affine": (Cell.AFFINE, 1.0, 0.0),
    "leakyrelu": (Unary.LEAKY_RELU, 0.01, None),
    "thresholdedrelu": (Cell.THRESHOLDED_RELU, 1.0, None),
    "scaledtanh": (Cell.SCALED_TANH, 1.0, 1.0),
    "hardsigmoid": (Unary.HARD_SIGMOID, 0.2, 0.5),
    "elu": (Unary.ELU, 1.0, None),
    "softsign": (Cell.SOFTSIGN, None, None),
    "softplus": (Unary.SOFTPLUS, None, None),
}


class Recurrence:
    """The operands of a node, checked: d directions, g gates, h units."""

    def __init__(self, node: Node) -> None:
        self.node, self.kind = node, node.type.removeprefix("DynamicQuantize")
        self.x, self.bias, self.lens, self.h0 = node.get(0), node.optional(3), node.optional(4), node.optional(5)
        quantized = node.type != self.kind
        self.w, self.r = (dequantized(node, 1, 8), dequantized(node, 2, 10)) if quantized else (node.get(1), node.get(2))
        lstm = self.kind == "LSTM"
        self.c0, self.peepholes = (node.optional(6), node.optional(7)) if lstm else (None, None)
        node.floats(self.x, self.w, self.r, self.bias, self.h0, self.c0, self.peepholes)
        direction = str(node.attr("direction", "forward")).lower()
        if direction not in DIRECTIONS:
            raise node.fail(f"direction '{direction}'")
        self.direction, self.g = DIRECTIONS[direction], GATES[self.kind]
        self.d = 2 if self.direction == 2 else 1
        self.batch_first = int(node.attr("layout", 0))
        self.h = self._units()
        self.padded = round_up(self.h, PANEL)

    def _units(self) -> int:
        """The number of units, with all shapes that are known compared to it."""
        node, units = self.node, self.r.shape[-1]
        if self.x.rank != 3 or self.w.rank != 3 or self.r.rank != 3:
            raise node.fail(f"X, W, R are {show(self.x.shape)}, {show(self.w.shape)}, {show(self.r.shape)}")
        if not isinstance(units, int) or not units:
            raise node.unsupported("the number of units (the last dimension of R) has to be known and above 0")
        rows: Dim = self.g * units
        wanted = [
            (self.w, (self.d, rows, self.x.shape[2])),
            (self.r, (self.d, rows, units)),
            (self.bias, (self.d, 2 * self.g * units)),
            (self.h0, self.states(units)),
            (self.c0, self.states(units)),
            (self.peepholes, (self.d, 3 * units)),
        ]
        for tensor, want in wanted:
            if tensor is not None and not _fits(tensor.shape, want):
                raise node.fail(f"'{tensor.name}' is {show(tensor.shape)}, not {show(want)}")
        return units

    def states(self, units: int) -> tuple[Dim, ...]:
        batch = self.x.shape[1 - self.batch_first]
        return (batch, self.d, units) if self.batch_first else (self.d, batch, units)

    @property
    def after(self) -> bool:
        """Whether a GRU applies its reset gate behind the recurrent product, whose bias then stays apart."""
        return self.kind == "GRU" and bool(self.node.attr("linear_before_reset", 0))

    # ---- the input's part ----
    def inputs(self) -> Tensor:
        """x times the input weights plus the biases, [.., .., d g s]: s is padded to whole panels where all is constant."""
        if self.w.known and (self.bias is None or self.bias.const is not None):
            return self._linear()
        node, n = self.node, self.d * self.g * self.h
        flat = node.alias(self.w, (n, self.w.shape[2]))
        result = node.emit(Op.MATMUL, [self.x, flat], DType.FLOAT, (*self.x.shape[:2], n), 1, 1.0)
        bias = self._bias_at_run_time()
        return result if bias is None else binary(node, Binary.ADD, result, node.alias(bias, (n,)))

    def _linear(self) -> Tensor:
        node, depth = self.node, self.w.value_shape[2]
        n = self.d * self.g * self.padded
        packed = node.tensor(DType.FLOAT, (n, depth), self.w.name)
        packed.weight = Weight(Layout.F32_P16, n, depth, values=lambda: self._gates(self.w.value()).reshape(n, depth))
        packed.layout = Layout.F32_P16
        bias = None
        if self.bias is not None and self.bias.const is not None:
            of_input, of_state = self.bias.const.reshape(self.d, 2, -1).transpose(1, 0, 2).copy()
            if self.after:
                of_state[:, 2 * self.h :] = 0
            bias = node.constant(self._gates(of_input + of_state).reshape(n))
        return node.emit(Op.LINEAR, [self.x, packed, None, bias, None], DType.FLOAT, (*self.x.shape[:2], n), 0)

    def _gates(self, values: np.ndarray) -> np.ndarray:
        """[d, g h, ..] with the rows of each gate padded to whole panels."""
        split = values.reshape(self.d, self.g, self.h, -1)
        return np.pad(split, ((0, 0), (0, 0), (0, self.padded - self.h), (0, 0)))

    def _bias_at_run_time(self) -> Tensor | None:
        if self.bias is None:
            return None
        rows = self.g * self.h
        of_input, of_state = self._columns(self.bias, 0, rows), self._columns(self.bias, rows, rows)
        if self.after:
            zeros = self.node.constant(np.zeros((self.d, self.h), np.float32))
            kept = self._columns(of_state, 0, 2 * self.h)
            of_state = self.node.emit(Op.CONCAT, [kept, zeros], DType.FLOAT, (self.d, rows), 1)
        return binary(self.node, Binary.ADD, of_input, of_state)

    def _columns(self, x: Tensor, start: int, n: int) -> Tensor:
        return self.node.emit(Op.SLICE, [x], x.dtype, (self.d, n), 0, 1, start, 1)

    # ---- the state's part ----
    def weights(self) -> Tensor:
        """The recurrent weights, packed when they are constant."""
        if not self.r.known:
            return self.r
        n = self.d * self.g * self.padded
        packed = self.node.tensor(DType.FLOAT, (n, self.h), self.r.name)
        packed.weight = Weight(Layout.F32_P16, n, self.h, values=lambda: self._gates(self.r.value()).reshape(n, self.h))
        packed.layout = Layout.F32_P16
        return packed

    def reset_bias(self) -> Tensor | None:
        """The bias of the recurrent product of a GRU's last gate, [d hp]."""
        if self.bias is None or not self.after:
            return None
        node, start, more = self.node, (2 * self.g - 1) * self.h, self.padded - self.h
        if self.bias.const is not None:
            values = np.pad(self.bias.const[:, start:], ((0, 0), (0, more)))
            return node.constant(np.ascontiguousarray(values.reshape(-1)))
        last = self._columns(self.bias, start, self.h)
        zeros = node.constant(np.zeros((self.d, more), np.float32))
        whole = node.emit(Op.CONCAT, [last, zeros], DType.FLOAT, (self.d, self.padded), 1) if more else last
        return node.alias(whole, (self.d * self.padded,))

    def functions(self) -> list[int | float]:
        """Function, alpha, beta for f, g, h of both directions; ONNX hands alphas and betas out to those that take one."""
        node, each = self.node, DEFAULTS[self.kind]
        names = [_text(name).lower() for name in node.attr("activations") or each * self.d]
        if len(names) != len(each) * self.d:
            raise node.fail(f"{len(names)} activations, not {len(each) * self.d}")
        alphas, betas = iter(node.attr("activation_alpha") or []), iter(node.attr("activation_beta") or [])
        result: list[int | float] = []
        for place in range(6):
            used = place % 3 < len(each) and place // 3 < self.d
            name = names[place // 3 * len(each) + place % 3] if used else "tanh"
            if name not in FUNCTIONS:
                raise node.unsupported(f"the activation '{name}'")
            kind, alpha, beta = FUNCTIONS[name]
            result += [
                int(kind),
                0.0 if alpha is None else float(next(alphas, alpha)),
                0.0 if beta is None else float(next(betas, beta)),
            ]
        return result


def _fits(shape: tuple[Dim, ...], want: tuple[Dim, ...]) -> bool:
    """Whether two shapes may be equal; the executor compares what is symbolic."""
    return len(shape) == len(want) and all(
        a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in zip(shape, want, strict=True)
    )


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def dequantized(node: Node, place: int, scale_place: int) -> Tensor:
    """Codes [d, n, 4 h] with a scale and zero point a direction, or a column, as the weights [d, 4 h, n] of an LSTM."""
    codes, scale, zero = node.get(place), node.get(scale_place), node.optional(scale_place + 1)
    if codes.const is None or scale.const is None or (zero is not None and zero.const is None):
        raise node.unsupported("quantized weights, scales or zero points that are not constants")
    if codes.dtype not in (DType.INT8, DType.UINT8):
        raise node.unsupported(f"weights of {type_name(codes.dtype)}")
    d, columns = codes.const.shape[0], codes.const.shape[-1]
    sizes = {scale.const.size, 1 if zero is None or zero.const is None else zero.const.size}
    if codes.rank != 3 or not sizes <= {1, d, d * columns}:
        raise node.fail(f"'{scale.name}' {show(scale.shape)} does not fit weights {show(codes.shape)}")
    zeros = np.zeros(1, np.float32) if zero is None or zero.const is None else zero.const.astype(np.float32)
    per_column = [np.broadcast_to(v.reshape(-1, 1, max(v.size // d, 1)), (d, 1, columns)) for v in (zeros, scale.const)]
    values = (codes.const.astype(np.float32) - per_column[0]) * per_column[1]
    return node.constant(np.ascontiguousarray(values.transpose(0, 2, 1)))


@op("DynamicQuantizeLSTM", domain=MICROSOFT)
@op("RNN", "GRU", "LSTM")
def recurrent(node: Node) -> list[Tensor]:
    """Y [t, d, b, h], Y_h [d, b, h], Y_c likewise (LSTM), batch first with layout 1."""
    node.foldable = False  # onnx.reference knows neither lengths nor every direction
    its = Recurrence(node)
    if its.lens is not None and its.lens.dtype != DType.INT32:
        raise node.fail("sequence_lens has to be int32")
    limit = node.attr("clip")
    attrs = [
        CELLS[its.kind], its.direction, its.batch_first, int(its.after),
        int(its.kind == "LSTM" and bool(node.attr("input_forget", 0))), float(limit) if limit else inf, *its.functions(),
    ]  # fmt: skip
    time, batch = its.x.shape[its.batch_first], its.x.shape[1 - its.batch_first]
    wanted = [bool(name) for name in node.proto.output] + [False] * 3
    every: tuple[Dim, ...] = (batch, time, its.d, its.h) if its.batch_first else (time, its.d, batch, its.h)
    states = its.states(its.h)
    y = node.tensor(DType.FLOAT, every if wanted[0] else (0,))
    last = node.tensor(DType.FLOAT, states)
    cell = node.tensor(DType.FLOAT, states if its.kind == "LSTM" and wanted[2] else (0,))
    operands = [its.inputs(), its.weights(), its.reset_bias(), its.h0, its.c0, its.peepholes, its.lens]
    node.emit_all(Op.RECURRENT, operands, [last, y, cell], attrs)
    return [y, last, cell][: 3 if its.kind == "LSTM" else 2]
