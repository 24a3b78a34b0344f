"""Handlers of elementwise operators, reductions and softmax."""

from __future__ import annotations

import numpy as np

from .ir import INTEGERS, NUMPY, Binary, DType, Op, Reduce, Tensor, Unary, elements
from .lower import Node, op, type_name
from .shape_ops import followed, reduction, symbolic, symbolic_binary, symbolic_compare
from .types_ops import cast_to

UNARY = {
    "Neg": Unary.NEG, "Abs": Unary.ABS, "Sign": Unary.SIGN, "Sqrt": Unary.SQRT, "Reciprocal": Unary.RECIPROCAL,
    "Floor": Unary.FLOOR, "Ceil": Unary.CEIL, "Round": Unary.ROUND, "Exp": Unary.EXP, "Log": Unary.LOG, "Erf": Unary.ERF,
    "Tanh": Unary.TANH, "Sigmoid": Unary.SIGMOID, "Relu": Unary.RELU, "Sin": Unary.SIN, "Cos": Unary.COS, "Not": Unary.NOT,
    "Softplus": Unary.SOFTPLUS, "HardSwish": Unary.HARD_SWISH, "Tan": Unary.TAN, "Asin": Unary.ASIN, "Acos": Unary.ACOS,
    "Atan": Unary.ATAN, "Sinh": Unary.SINH, "Cosh": Unary.COSH, "Asinh": Unary.ASINH, "Acosh": Unary.ACOSH,
    "Atanh": Unary.ATANH, "BitwiseNot": Unary.BIT_NOT,
}  # fmt: skip
BINARY = {
    "Add": Binary.ADD, "Sub": Binary.SUB, "Mul": Binary.MUL, "Div": Binary.DIV, "Pow": Binary.POW, "Equal": Binary.EQUAL,
    "Less": Binary.LESS, "LessOrEqual": Binary.LESS_EQUAL, "Greater": Binary.GREATER, "GreaterOrEqual": Binary.GREATER_EQUAL,
    "And": Binary.AND, "Or": Binary.OR, "Xor": Binary.XOR, "BitwiseAnd": Binary.BIT_AND, "BitwiseOr": Binary.BIT_OR,
    "BitwiseXor": Binary.BIT_XOR,
}  # fmt: skip
VARIADIC = {"Min": Binary.MIN, "Max": Binary.MAX, "Sum": Binary.ADD}
REDUCE = {
    "ReduceSum": Reduce.SUM, "ReduceMean": Reduce.MEAN, "ReduceMax": Reduce.MAX, "ReduceMin": Reduce.MIN,
    "ReduceProd": Reduce.PROD, "ReduceSumSquare": Reduce.SUM_SQUARE, "ReduceL1": Reduce.L1, "ReduceL2": Reduce.L2,
}  # fmt: skip


FLOATS = {DType.FLOAT, DType.DOUBLE}
INTEGER_UNARY = {Unary.NEG, Unary.ABS, Unary.SIGN, Unary.CLIP, Unary.RELU, Unary.BIT_NOT}
TESTS = {Unary.ISNAN, Unary.ISINF}
BITWISE = {Binary.BIT_AND, Binary.BIT_OR, Binary.BIT_XOR, Binary.SHIFT_LEFT, Binary.SHIFT_RIGHT}


def unary(node: Node, x: Tensor, kind: Unary, p: float = 0.0, q: float = 0.0) -> Tensor:
    if kind == Unary.NOT:
        fits = x.dtype == DType.BOOL
    elif x.dtype in INTEGERS:
        fits = kind in INTEGER_UNARY
    else:
        fits = x.dtype in FLOATS and kind != Unary.BIT_NOT
    if not fits:
        raise node.unsupported(f"'{x.name}' is {type_name(x.dtype)}")
    return node.emit(Op.UNARY, [x], DType.BOOL if kind in TESTS else x.dtype, x.shape, int(kind), float(p), float(q))


def binary(node: Node, kind: Binary, a: Tensor, b: Tensor) -> Tensor:
    if a.dtype != b.dtype:
        raise node.fail(f"'{a.name}' is {type_name(a.dtype)} and '{b.name}' is {type_name(b.dtype)}")
    if kind in (Binary.AND, Binary.OR, Binary.XOR):
        fits = a.dtype == DType.BOOL
    elif kind in BITWISE:
        fits = a.dtype in INTEGERS
    else:
        fits = a.dtype in FLOATS or a.dtype in INTEGERS or (a.dtype == DType.BOOL and kind == Binary.EQUAL)
    if not fits:
        raise node.unsupported(f"'{a.name}' is {type_name(a.dtype)}")
    compares = Binary.EQUAL <= kind <= Binary.GREATER_EQUAL
    return node.emit(Op.BINARY, [a, b], DType.BOOL if compares else a.dtype, node.broadcast(a.shape, b.shape), int(kind))


@op(*UNARY)
def elementwise(node: Node) -> Tensor:
    return unary(node, node.get(0), UNARY[node.type])


@op("IsNaN")
def is_nan(node: Node) -> Tensor:
    return unary(node, as_float(node, node.get(0)), Unary.ISNAN)


@op("IsInf")
def is_inf(node: Node) -> Tensor:
    negative, positive = (float(bool(node.attr(f"detect_{name}", 1))) for name in ("negative", "positive"))
    return unary(node, as_float(node, node.get(0)), Unary.ISINF, negative, positive)


def as_float(node: Node, x: Tensor) -> Tensor:
    """x in float32 unless it is float64: every float of at most 16 bits is one exactly."""
    return x if x.dtype in FLOATS else node.emit(Op.CAST, [x], DType.FLOAT, x.shape)


@op("BitShift")
def bit_shift(node: Node) -> Tensor:
    directions = {"LEFT": Binary.SHIFT_LEFT, "RIGHT": Binary.SHIFT_RIGHT}
    return binary(node, directions[node.attr("direction")], node.get(0), node.get(1))


@op("Shrink")
def shrink(node: Node) -> Tensor:
    """In float32, also for integers: lambd and bias are floats."""
    x, limits = node.get(0), (node.attr("lambd", 0.5), node.attr("bias", 0.0))
    if x.dtype in INTEGERS:
        shrunk = unary(node, node.emit(Op.CAST, [x], DType.DOUBLE, x.shape), Unary.SHRINK, *limits)
        return node.emit(Op.CAST, [shrunk], x.dtype, x.shape)
    return unary(node, x, Unary.SHRINK, *limits)


@op("LeakyRelu")
def leaky_relu(node: Node) -> Tensor:
    return unary(node, node.get(0), Unary.LEAKY_RELU, node.attr("alpha", 0.01))


@op("Elu")
def elu(node: Node) -> Tensor:
    return unary(node, node.get(0), Unary.ELU, node.attr("alpha", 1.0))


@op("HardSigmoid")
def hard_sigmoid(node: Node) -> Tensor:
    return unary(node, node.get(0), Unary.HARD_SIGMOID, node.attr("alpha", 0.2), node.attr("beta", 0.5))


@op("Gelu")
def gelu(node: Node) -> Tensor:
    kinds = {"none": Unary.GELU, "tanh": Unary.GELU_TANH}
    return unary(node, node.get(0), kinds[node.attr("approximate", "none")])


@op("Gelu", domain="com.microsoft")
def gelu_microsoft(node: Node) -> Tensor:
    return unary(node, node.get(0), Unary.GELU)


@op("Swish")
def swish(node: Node) -> Tensor:
    x, alpha = node.get(0), node.attr("alpha", 1.0)
    if alpha == 1.0:
        return unary(node, x, Unary.SILU)
    scaled = binary(node, Binary.MUL, x, node.constant(np.array(alpha, NUMPY[x.dtype])))
    return binary(node, Binary.MUL, x, unary(node, scaled, Unary.SIGMOID))


@op("Clip")
def clip(node: Node) -> Tensor:
    """min(max(x, low), high), so high where low is above it; bounds known at compile time become the step's own."""
    x, bounds = node.get(0), [node.optional(1), node.optional(2)]
    if x.dtype not in FLOATS and x.dtype not in INTEGERS:
        raise node.unsupported(f"'{x.name}' is {type_name(x.dtype)}")
    low, high = float(node.attr("min", -np.inf)), float(node.attr("max", np.inf))
    if all(t is None or t.const is not None for t in bounds):
        values = [
            v if t is None or t.const is None else float(t.const.reshape(-1)[0]) for t, v in zip(bounds, (low, high), strict=True)
        ]
        if not any(np.isnan(v) or (x.dtype in INTEGERS and 2.0**53 <= abs(v) < np.inf) for v in values):
            return unary(node, x, Unary.CLIP, *values)
    for tensor, rule in zip(bounds, (Binary.MAX, Binary.MIN), strict=True):
        x = x if tensor is None else binary(node, rule, x, tensor)
    return x


@op(*BINARY)
def arithmetic(node: Node) -> Tensor:
    known = symbolic_binary(node) or symbolic_compare(node)
    if known is not None:
        return known
    a, b = node.get(0), node.get(1)
    if node.type == "Pow" and a.dtype != b.dtype:
        return power(node, a, b)
    return binary(node, BINARY[node.type], a, b)


def power(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Powers whose exponent has a data type of its own: of integers in float64, unless the exponent is an integer too."""
    exponent_fits = a.dtype in FLOATS or b.dtype in INTEGERS
    dtype = a.dtype if exponent_fits else DType.DOUBLE
    operands = [t if t.dtype == dtype else cast_to(node, t, dtype) for t in (a, b)]
    result = binary(node, Binary.POW, *operands)
    return result if exponent_fits else node.emit(Op.CAST, [result], a.dtype, result.shape)


@op("Mod")
def modulo(node: Node) -> Tensor:
    known = symbolic_binary(node)
    if known is not None:
        return known
    return binary(node, Binary.FMOD if node.attr("fmod", 0) else Binary.MOD, node.get(0), node.get(1))


@op(*VARIADIC)
def variadic(node: Node) -> Tensor:
    known = symbolic_binary(node)
    if known is not None:
        return known
    result = node.get(0)
    for i in range(1, len(node.inputs)):
        result = binary(node, VARIADIC[node.type], result, node.get(i))
    return result


@op("Where")
def where(node: Node) -> Tensor:
    condition, a, b = (node.get(i) for i in range(3))
    if condition.const is not None and a.dtype in (DType.INT64, DType.INT32):
        values = followed(node, 1, 2)
        if values is not None:
            return symbolic(node, np.where(condition.const, *values), a.dtype)
    if condition.dtype != DType.BOOL or a.dtype != b.dtype:
        raise node.fail("the condition is not bool, or the two values differ in data type")
    return node.emit(Op.WHERE, [condition, a, b], a.dtype, node.broadcast(condition.shape, a.shape, b.shape))


@op(*REDUCE)
def reduce(node: Node) -> Tensor:
    x = node.get(0)
    asked = reduction(node, x)
    if asked is None:
        return x
    if x.sym is not None and node.type == "ReduceProd" and x.rank <= 1:
        return symbolic(node, np.full([1] * x.rank if node.attr("keepdims", 1) else [], elements(tuple(x.sym)), dtype=object))
    made = asked.emit(node, x, int(REDUCE[node.type]))
    return made if node.attr("keepdims", 1) else node.alias(made, asked.dropped)


@op("Hardmax")
def hardmax(node: Node) -> Tensor:
    """1 at the first largest element along an axis, else 0; before opset 13 of all axes from there on as one."""
    x = node.get(0)
    axis = node.axis(node.attr("axis", -1 if node.opset >= 13 else 1), x.rank)
    rows = x if node.opset >= 13 else node.alias(x, [elements(x.shape[:axis]), elements(x.shape[axis:])])
    axis = axis if node.opset >= 13 else 1
    kept = [1 if i == axis else d for i, d in enumerate(rows.shape)]
    first = node.emit(Op.ARG, [rows], DType.INT64, kept, axis, 0, 0)
    ramp = [d if i == axis else 1 for i, d in enumerate(rows.shape)]
    places = node.alias(node.emit(Op.RANGE, [], DType.INT64, [rows.shape[axis]], 0, 1), ramp)
    chosen = binary(node, Binary.EQUAL, first, places)
    return node.alias(node.emit(Op.CAST, [chosen], x.dtype, rows.shape), x.shape)


@op("Softmax", "LogSoftmax")
def softmax(node: Node) -> Tensor:
    x = node.get(0)
    log = int(node.type == "LogSoftmax")
    one_axis = node.opset >= 13
    axis = node.axis(node.attr("axis", -1 if one_axis else 1), x.rank)
    if x.dtype == DType.DOUBLE and one_axis:
        return double_softmax(node, x, axis, bool(log))
    node.floats(x)
    if one_axis or axis == x.rank - 1:
        return node.emit(Op.SOFTMAX, [x], x.dtype, x.shape, axis, log)
    flat = node.alias(x, [elements(x.shape[:axis]), elements(x.shape[axis:])])
    return node.alias(node.emit(Op.SOFTMAX, [flat], x.dtype, flat.shape, 1, log), x.shape)


def double_softmax(node: Node, x: Tensor, axis: int, log: bool) -> Tensor:
    """exp(x - max) / sum, or x - max - log(sum), of float64."""
    kept = [1 if i == axis else d for i, d in enumerate(x.shape)]
    lowered = binary(node, Binary.SUB, x, node.emit(Op.REDUCE, [x], x.dtype, kept, int(Reduce.MAX), 1 << axis))
    powers = unary(node, lowered, Unary.EXP)
    total = node.emit(Op.REDUCE, [powers], x.dtype, kept, int(Reduce.SUM), 1 << axis)
    if log:
        return binary(node, Binary.SUB, lowered, unary(node, total, Unary.LOG))
    return binary(node, Binary.DIV, powers, total)
