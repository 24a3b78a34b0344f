"""Element by element, with broadcasting: arithmetic, comparisons, logic, SELECT, unary functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from frugal.errors import InvalidModel, UnsupportedOperator

from .converter import Op, Perm, identity, op
from .reader import Tensor

SUM_BITS = 21  # of the multipliers of a quantized sum in XNNPACK, which runs these operators in LiteRT
SUM_RATIOS = 2.0**-10, 2.0**8  # an operand's scale over the result's, from (including) and to, that XNNPACK takes

BINARY = {
    "ADD": ("Add", "AddOptions"),
    "SUB": ("Sub", "SubOptions"),
    "MUL": ("Mul", "MulOptions"),
    "DIV": ("Div", "DivOptions"),
    "MAXIMUM": ("Max", ""),
    "MINIMUM": ("Min", ""),
    "POW": ("Pow", ""),
}
UNARY = {
    "ABS": "Abs",
    "NEG": "Neg",
    "EXP": "Exp",
    "LOG": "Log",
    "SQRT": "Sqrt",
    "SIN": "Sin",
    "COS": "Cos",
    "FLOOR": "Floor",
    "CEIL": "Ceil",
    "ROUND": "Round",
    "SIGN": "Sign",
}
COMPARE = {
    "EQUAL": "Equal",
    "NOT_EQUAL": "Equal",
    "LESS": "Less",
    "LESS_EQUAL": "LessOrEqual",
    "GREATER": "Greater",
    "GREATER_EQUAL": "GreaterOrEqual",
}


def operands(o: Op, tensors: Sequence[Tensor], perm: Perm, raw: Sequence[bool]) -> list[str]:
    """The operands of a broadcast in the order of axes `perm`; constants of fewer axes get leading ones first."""
    return [operand(o, t, perm, r) for t, r in zip(tensors, raw, strict=True)]


def operand(o: Op, t: Tensor, perm: Perm, raw: bool) -> str:
    rank = len(perm)
    if t.rank == rank or perm == identity(rank) or t.rank == 0:
        return o.get(t, identity(t.rank) if t.rank != rank else perm, raw)
    value = o.c.value(t)
    assert value is not None  # Op.pick keeps TFLite's order otherwise
    if t.quantization is not None and t.quantization.per_channel:
        raise UnsupportedOperator(f"{t}: one scale a channel of a broadcast constant is not supported")
    full = value.reshape((1,) * (rank - t.rank) + value.shape).transpose(perm)
    while full.ndim and full.shape[0] == 1:
        full = full[0]
    made = o.c.constant(f"{o.c.names[t.index]}{o.c.suffix(perm)}", full, ("broadcast", t.index, perm))
    if raw or not t.quantized:
        return made
    return o.node("DequantizeLinear", [made, *o.c.scales(t)])


def check_broadcast(tensors: Sequence[Tensor], y: Tensor) -> None:
    """The operands' shapes must broadcast to the output's."""
    for t in tensors:
        tail = y.shape[y.rank - t.rank :] if t.rank <= y.rank else ()
        if t.rank > y.rank or any(a not in (1, b) and a >= 0 <= b for a, b in zip(t.shape, tail, strict=True)):
            raise InvalidModel(f"{t} of shape {list(t.shape)} does not broadcast to the output's {list(y.shape)}")


@op(*BINARY)
def binary(o: Op) -> None:
    """y = f(a, b) with a fused activation."""
    kind, options = BINARY[o.kind]
    tensors, y = [o.input(0), o.input(1)], o.output()
    check_broadcast(tensors, y)
    perm = o.pick(*tensors)
    rounded = summed_scales(tensors, y) if kind in ("Add", "Sub") else None
    values = operands(o, tensors, perm, [rounded is not None] * 2)
    if rounded is not None:
        values = [summand(o, t, value, scale) for t, value, scale in zip(tensors, values, rounded, strict=True)]
    if kind == "Div" and y.dtype is not None and y.dtype.kind in "iu" and not y.quantized:
        o.c.put(y, o.node("Div", values, main=True), perm)
        return
    o.c.put_real(y, o.node(kind, values, main=True), perm, o.activation(options) if options else "NONE")


def summed_scales(tensors: Sequence[Tensor], y: Tensor) -> list[np.float32] | None:
    """The scales that a sum of 8-bit codes has in LiteRT, or None where it has those of the tensors.

    XNNPACK multiplies codes by round(2^shift s / s_y), the larger one of 21 bits, so its sums round as those of scales that
    differ by up to 2^-21. Writing these scales makes a real sum round where LiteRT's does.
    """
    if not all(t.quantized and t.dtype in (np.int8, np.uint8) and t.quantization for t in (*tensors, y)):
        return None
    known = [t.quantization for t in (*tensors, y) if t.quantization is not None and not t.quantization.per_channel]
    if len(known) < 3:
        return None
    *scales, out = (np.float32(q.scale.reshape(-1)[0]) for q in known)
    ratios = [s / out for s in scales]
    if not all(SUM_RATIOS[0] <= r < SUM_RATIOS[1] for r in ratios):
        return None
    shift = SUM_BITS - int(np.frexp(max(ratios))[1])
    return [np.float32(np.ldexp(np.rint(np.ldexp(np.float64(r), shift)), -shift) * np.float64(out)) for r in ratios]


def summand(o: Op, t: Tensor, codes: str, scale: np.float32) -> str:
    """The reals of codes of a tensor by another scale."""
    made = o.c.constant(f"{o.name}/scale", np.asarray(scale), ("summand", scale.tobytes()))
    return o.node("DequantizeLinear", [codes, made, o.c.scales(t)[1]])


@op("SQUARED_DIFFERENCE")
def squared_difference(o: Op) -> None:
    """(a - b)^2."""
    tensors = [o.input(0), o.input(1)]
    check_broadcast(tensors, o.output())
    perm = o.pick(*tensors)
    d = o.node("Sub", operands(o, tensors, perm, [False, False]))
    o.c.put_real(o.output(), o.node("Mul", [d, d], main=True), perm)


@op("FLOOR_DIV", "FLOOR_MOD")
def floor_division(o: Op) -> None:
    """floor(a / b), or a - b floor(a / b): the remainder has the divisor's sign."""
    tensors, y = [o.input(0), o.input(1)], o.output()
    check_broadcast(tensors, y)
    perm = o.pick(*tensors)
    a, b = operands(o, tensors, perm, [False, False])
    if y.dtype is not None and y.dtype.kind in "iu" and not y.quantized:
        remainder = o.node("Mod", [a, b], main=o.kind == "FLOOR_MOD")
        if o.kind == "FLOOR_DIV":  # a - (a mod b) is a multiple of b, so Div has nothing to round
            remainder = o.node("Div", [o.node("Sub", [a, remainder]), b], main=True)
        o.c.put(y, remainder, perm)
        return
    quotient = o.node("Floor", [o.node("Div", [a, b])], main=o.kind == "FLOOR_DIV")
    if o.kind == "FLOOR_MOD":
        quotient = o.node("Sub", [a, o.node("Mul", [quotient, b])], main=True)
    o.c.put_real(y, quotient, perm)


@op("ADD_N")
def add_n(o: Op) -> None:
    """The sum of all inputs."""
    tensors = [o.input(i) for i in range(len(o.operator.inputs))]
    perm = o.pick(*tensors)
    value, *rest = operands(o, tensors, perm, [False] * len(tensors))
    for other in rest:
        value = o.node("Add", [value, other], main=other is rest[-1])
    o.c.put_real(o.output(), value if rest else o.node("Identity", [value], main=True), perm)


@op(*UNARY)
def unary(o: Op) -> None:
    """y = f(x)."""
    x = o.input(0)
    perm = o.pick(x)
    o.c.put_real(o.output(), o.node(UNARY[o.kind], [o.c.real(x, perm)], main=True), perm)


@op("SQUARE")
def square(o: Op) -> None:
    """x * x."""
    x = o.input(0)
    perm = o.pick(x)
    value = o.c.real(x, perm)
    o.c.put_real(o.output(), o.node("Mul", [value, value], main=True), perm)


@op("RSQRT")
def rsqrt(o: Op) -> None:
    """1 / sqrt(x)."""
    x = o.input(0)
    perm = o.pick(x)
    o.c.put_real(o.output(), o.node("Reciprocal", [o.node("Sqrt", [o.c.real(x, perm)])], main=True), perm)


@op("ATAN2")
def atan2(o: Op) -> None:
    raise UnsupportedOperator("ONNX has no two-argument arc tangent")


@op(*COMPARE)
def compare(o: Op) -> None:
    """Bool. Integers quantized alike are compared as they are, others as reals."""
    tensors, y = [o.input(0), o.input(1)], o.output()
    check_broadcast(tensors, y)
    perm = o.pick(*tensors)
    values = operands(o, tensors, perm, [False, False])
    value = o.node(COMPARE[o.kind], values, main=o.kind != "NOT_EQUAL")
    if o.kind == "NOT_EQUAL":
        value = o.node("Not", [value], main=True)
    o.c.put(y, value, perm)


@op("LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT")
def logical(o: Op) -> None:
    """Of bools."""
    tensors = [o.input(i) for i in range(1 if o.kind == "LOGICAL_NOT" else 2)]
    check_broadcast(tensors, o.output())
    perm = o.pick(*tensors)
    kind = {"LOGICAL_AND": "And", "LOGICAL_OR": "Or", "LOGICAL_NOT": "Not"}[o.kind]
    o.c.put(o.output(), o.node(kind, operands(o, tensors, perm, [True] * len(tensors)), main=True), perm)


@op("BITWISE_XOR", "RIGHT_SHIFT")
def bitwise(o: Op) -> None:
    """Of integers; bools too for XOR. A right shift of negative numbers rounds down."""
    tensors = [o.input(0), o.input(1)]
    perm = o.pick(*tensors)
    values = operands(o, tensors, perm, [True, True])
    if o.kind == "BITWISE_XOR":
        kind = "Xor" if tensors[0].dtype == np.bool_ else "BitwiseXor"
        o.c.put(o.output(), o.node(kind, values, main=True), perm)
        return
    if tensors[0].dtype is None or tensors[0].dtype.kind != "u":
        raise UnsupportedOperator("ONNX shifts unsigned integers only")
    o.c.put(o.output(), o.node("BitShift", values, main=True, direction="RIGHT"), perm)


@op("SELECT", "SELECT_V2")
def select(o: Op) -> None:
    """Where(condition, a, b). SELECT's condition may be a vector over the first axis."""
    condition, a, b, y = o.input(0), o.input(1), o.input(2), o.output()
    vector = o.kind == "SELECT" and condition.rank == 1 and a.rank > 1
    check_broadcast([a, b] if vector else [condition, a, b], y)
    raw = o.moving([a, b], [y], "u1")
    if vector:
        perm = identity(y.rank)
        mask = o.node("Reshape", [o.c.raw(condition), o.c.ints([-1] + [1] * (a.rank - 1))])
        values = operands(o, [a, b], perm, [raw, raw])
    else:
        perm = o.pick(condition, a, b)
        mask, *values = operands(o, [condition, a, b], perm, [True, raw, raw])
    o.set(y, o.node("Where", [mask, *values], main=True), perm, raw)


@op("CAST")
def cast(o: Op) -> None:
    """Numbers as they are stored; fractions are cut off."""
    x, y = o.input(0), o.output()
    perm = o.pick(x)
    o.c.put(y, o.node("Cast", [o.c.raw(x, perm)], main=True, to=o.c.elem(y)), perm)


@op("QUANTIZE")
def quantize(o: Op) -> None:
    """Floats to integers, or integers to integers of another scale."""
    x, y = o.input(0), o.output()
    perm = o.pick(x)
    o.c.put_real(y, o.c.real(x, perm), perm)


@op("DEQUANTIZE", "DENSIFY")
def dequantize(o: Op) -> None:
    """Integers, or half precision, to floats; sparse constants to dense ones (which they are by now)."""
    x, y = o.input(0), o.output()
    perm = o.pick(x)
    if x.quantized and not y.quantized:
        o.c.put(y, o.c.graph.node("DequantizeLinear", [o.c.raw(x, perm), *o.c.scales(x)], o.c.node_name(o.name))[0], perm)
    elif x.dtype != y.dtype:
        o.c.put(y, o.node("Cast", [o.c.raw(x, perm)], main=True, to=o.c.elem(y)), perm)
    else:
        o.c.put(y, o.node("Identity", [o.c.raw(x, perm)], main=True), perm)
