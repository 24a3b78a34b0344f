"""Activations and normalizations along the last axis."""

from __future__ import annotations

from frugal.errors import InvalidModel

from .converter import CLAMPS, Op, op
from .elementwise import check_broadcast, operands


@op("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1")
def relu(o: Op) -> None:
    """A clamp, on reals: input and output may have different scales."""
    x, y = o.input(0), o.output()
    perm = o.pick(x)
    value = o.c.real(x, perm)
    low, high = CLAMPS[o.kind]
    dtype = y.dtype
    if low == 0.0 and high is None:
        value = o.node("Relu", [value], main=True)
    else:
        kind = "float32" if y.quantized or dtype is None else dtype
        value = o.node("Clip", [value, *(o.c.scalar(b or 0.0, kind) for b in (low, high))], main=True)
    o.c.put_real(y, value, perm)


@op("LOGISTIC", "TANH", "HARD_SWISH")
def function(o: Op) -> None:
    """Sigmoid, Tanh, HardSwish."""
    kind = {"LOGISTIC": "Sigmoid", "TANH": "Tanh", "HARD_SWISH": "HardSwish"}[o.kind]
    x = o.input(0)
    perm = o.pick(x)
    o.c.put_real(o.output(), o.node(kind, [o.c.real(x, perm)], main=True), perm)


@op("ELU")
def elu(o: Op) -> None:
    """x, or exp(x) - 1 below zero."""
    x = o.input(0)
    perm = o.pick(x)
    o.c.put_real(o.output(), o.node("Elu", [o.c.real(x, perm)], main=True, alpha=1.0), perm)


@op("LEAKY_RELU")
def leaky_relu(o: Op) -> None:
    """x, or alpha x below zero."""
    x = o.input(0)
    perm = o.pick(x)
    alpha = o.option("LeakyReluOptions", "Alpha", 0.0)
    o.c.put_real(o.output(), o.node("LeakyRelu", [o.c.real(x, perm)], main=True, alpha=alpha), perm)


@op("GELU")
def gelu(o: Op) -> None:
    """x Phi(x), with erf or in the tanh form."""
    x = o.input(0)
    perm = o.pick(x)
    form = "tanh" if o.option("GeluOptions", "Approximate", False) else "none"
    o.c.put_real(o.output(), o.node("Gelu", [o.c.real(x, perm)], main=True, approximate=form), perm)


@op("PRELU")
def prelu(o: Op) -> None:
    """x, or slope x below zero; the slope broadcasts to x."""
    x, slope = o.input(0), o.input(1)
    check_broadcast([slope], x)
    perm = o.pick(x, slope)
    o.c.put_real(o.output(), o.node("PRelu", operands(o, [x, slope], perm, [False, False]), main=True), perm)


@op("SOFTMAX", "LOG_SOFTMAX")
def softmax(o: Op) -> None:
    """Along the last axis, of beta x."""
    x = o.input(0)
    if x.rank < 1:
        raise InvalidModel("softmax of a scalar")
    perm = o.pick(x)
    value = o.c.real(x, perm)
    beta = o.option("SoftmaxOptions", "Beta", 1.0) if o.kind == "SOFTMAX" else 1.0
    if beta != 1.0:
        value = o.node("Mul", [value, o.c.scalar(beta)])
    kind, axis = "Softmax" if o.kind == "SOFTMAX" else "LogSoftmax", perm.index(x.rank - 1)
    axis = -1 if axis == x.rank - 1 else axis
    o.c.put_real(o.output(), o.node(kind, [value], main=True, axis=axis), perm)


@op("L2_NORMALIZATION")
def l2_normalization(o: Op) -> None:
    """x / max(|x|, 1e-6), norm along the last axis."""
    x = o.input(0)
    if x.rank < 1:
        raise InvalidModel("the norm of a scalar")
    perm = o.pick(x)
    value = o.c.real(x, perm)
    norm = o.node("ReduceL2", [value, o.c.ints([perm.index(x.rank - 1)])], keepdims=1)
    value = o.node("Div", [value, o.node("Max", [norm, o.c.scalar(1e-6)])], main=True)
    o.c.put_real(o.output(), value, perm, o.activation("L2NormOptions"))


@op("LOCAL_RESPONSE_NORMALIZATION")
def lrn(o: Op) -> None:
    """x / (bias + alpha * sum of squares over 2 radius + 1 channels)^beta."""
    x, options = o.input(0), "LocalResponseNormalizationOptions"
    if x.rank != 4:
        raise InvalidModel(f"{x} has shape {list(x.shape)}, want 4 dimensions")
    first = (0, 3, 1, 2)
    size = 2 * o.option(options, "Radius", 0) + 1
    if size < 1:
        raise InvalidModel(f"radius {size // 2}")
    alpha, beta, bias = (o.option(options, name, 0.0) for name in ("Alpha", "Beta", "Bias"))
    value = o.node("LRN", [o.c.real(x, first)], main=True, size=size, alpha=alpha * size, beta=beta, bias=bias)
    o.c.put_real(o.output(), value, first)
