"""Handlers of elementwise operators, reductions and softmax."""

from __future__ import annotations

import numpy as np

from .ir import INTEGERS, NUMPY, Binary, DType, Op, Reduce, Tensor, Unary, elements
from .lower import Node, op, type_name
from .shape_ops import followed, reduction, symbolic, symbolic_binary, symbolic_compare

UNARY = {
    "Neg": Unary.NEG, "Abs": Unary.ABS, "Sign": Unary.SIGN, "Sqrt": Unary.SQRT, "Reciprocal": Unary.RECIPROCAL,
    "Floor": Unary.FLOOR, "Ceil": Unary.CEIL, "Round": Unary.ROUND, "Exp": Unary.EXP, "Log": Unary.LOG, "Erf": Unary.ERF,
    "Tanh": Unary.TANH, "Sigmoid": Unary.SIGMOID, "Relu": Unary.RELU, "Sin": Unary.SIN, "Cos": Unary.COS, "Not": Unary.NOT,
    "Softplus": Unary.SOFTPLUS, "HardSwish": Unary.HARD_SWISH,
}  # fmt: skip
BINARY = {
    "Add": Binary.ADD, "Sub": Binary.SUB, "Mul": Binary.MUL, "Div": Binary.DIV, "Pow": Binary.POW, "Equal": Binary.EQUAL,
    "Less": Binary.LESS, "LessOrEqual": Binary.LESS_EQUAL, "Greater": Binary.GREATER, "GreaterOrEqual": Binary.GREATER_EQUAL,
    "And": Binary.AND, "Or": Binary.OR, "Xor": Binary.XOR,
}  # fmt: skip
VARIADIC = {"Min": Binary.MIN, "Max": Binary.MAX, "Sum": Binary.ADD}
REDUCE = {
    "ReduceSum": Reduce.SUM, "ReduceMean": Reduce.MEAN, "ReduceMax": Reduce.MAX, "ReduceMin": Reduce.MIN,
    "ReduceProd": Reduce.PROD, "ReduceSumSquare": Reduce.SUM_SQUARE, "ReduceL1": Reduce.L1, "ReduceL2": Reduce.L2,
}  # fmt: skip


FLOATS = {DType.FLOAT, DType.DOUBLE}
INTEGER_UNARY = {Unary.NEG, Unary.ABS, Unary.SIGN, Unary.CLIP}


DOUBLE_UNARY = {
    Unary.NEG, Unary.ABS, Unary.SIGN, Unary.SQRT, Unary.RECIPROCAL, Unary.FLOOR, Unary.CEIL, Unary.ROUND, Unary.RELU,
    Unary.LEAKY_RELU, Unary.CLIP, Unary.HARD_SIGMOID, Unary.HARD_SWISH, Unary.ISNAN, Unary.COPY,
}  # fmt: skip


def unary(node: Node, x: Tensor, kind: Unary, p: float = 0.0, q: float = 0.0) -> Tensor:
    fits = x.dtype == DType.FLOAT or (x.dtype == DType.DOUBLE and kind in DOUBLE_UNARY)
    fits = fits or (x.dtype in INTEGERS and kind in INTEGER_UNARY) or (x.dtype == DType.BOOL and kind == Unary.NOT)
    if not fits:
        raise node.unsupported(f"'{x.name}' is {type_name(x.dtype)}")
    dtype = DType.BOOL if kind == Unary.ISNAN else x.dtype
    return node.emit(Op.UNARY, [x], dtype, x.shape, int(kind), float(p), float(q))


def is_half(x: Tensor) -> bool:
    return x.dtype == DType.FLOAT16


def binary(node: Node, kind: Binary, a: Tensor, b: Tensor) -> Tensor:
    if a.dtype != b.dtype:
        raise node.fail(f"'{a.name}' is {type_name(a.dtype)} and '{b.name}' is {type_name(b.dtype)}")
    logical = kind in (Binary.AND, Binary.OR, Binary.XOR)
    if is_half(a) or logical != (a.dtype == DType.BOOL and kind != Binary.EQUAL):
        raise node.unsupported(f"'{a.name}' is {type_name(a.dtype)}")
    compares = Binary.EQUAL <= kind <= Binary.GREATER_EQUAL
    return node.emit(Op.BINARY, [a, b], DType.BOOL if compares else a.dtype, node.broadcast(a.shape, b.shape), int(kind))


@op(*UNARY)
def elementwise(node: Node) -> Tensor:
    return unary(node, node.get(0), UNARY[node.type])


@op("IsNaN")
def is_nan(node: Node) -> Tensor:
    return unary(node, node.get(0), Unary.ISNAN)


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
    x = node.get(0)
    kind = NUMPY[x.dtype]
    limits = np.iinfo(kind) if kind.kind in "iu" else np.finfo(kind)
    low, high = float(node.attr("min", limits.min)), float(node.attr("max", limits.max))
    bounds = [node.optional(1), node.optional(2)]
    if all(t is None or t.const is not None for t in bounds):
        values = [None if t is None or t.const is None else t.const.reshape(-1)[0] for t in bounds]
        low, high = (low if values[0] is None else values[0]), (high if values[1] is None else values[1])
        if kind.kind == "f" or all(abs(float(v)) < 2**53 or t is None for v, t in zip((low, high), bounds, strict=True)):
            return unary(node, x, Unary.CLIP, float(low), float(high))
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
        b = node.emit(Op.CAST, [b], a.dtype, b.shape) if b.const is None else node.constant(b.const.astype(NUMPY[a.dtype]))
    return binary(node, BINARY[node.type], a, b)


@op("Mod")
def modulo(node: Node) -> Tensor:
    known = symbolic_binary(node)
    if known is not None:
        return known
    a, b = node.get(0), node.get(1)
    if not node.attr("fmod", 0) and a.dtype in FLOATS:
        return floored_modulo(node, a, b)
    return binary(node, Binary.FMOD if node.attr("fmod", 0) else Binary.MOD, a, b)


def floored_modulo(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """The remainder with the sign of the divisor: fmod(a, b), plus b where the two signs differ."""
    zero = node.constant(np.zeros((), NUMPY[a.dtype]))
    rest = binary(node, Binary.FMOD, a, b)
    below = [binary(node, Binary.LESS, t, zero) for t in (rest, b)]
    nonzero = unary(node, binary(node, Binary.EQUAL, rest, zero), Unary.NOT)
    wrong = binary(node, Binary.AND, binary(node, Binary.XOR, *below), nonzero)
    return node.emit(Op.WHERE, [wrong, binary(node, Binary.ADD, rest, b), rest], a.dtype, rest.shape)


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


@op("Softmax", "LogSoftmax")
def softmax(node: Node) -> Tensor:
    x = node.get(0)
    log = int(node.type == "LogSoftmax")
    if x.dtype == DType.DOUBLE and node.opset >= 13:
        return double_softmax(node, x, node.axis(node.attr("axis", -1), x.rank), bool(log))
    node.floats(x)
    if node.opset >= 13:
        return node.emit(Op.SOFTMAX, [x], x.dtype, x.shape, node.axis(node.attr("axis", -1), x.rank), log)
    axis = node.axis(node.attr("axis", 1), x.rank)
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
