"""Activation functions that exporters spell out.

1. GELU: x/2 (1 + erf(x/sqrt 2)), as 0.5 x (1 + erf) or x (1 + erf) 0.5, the argument of erf as x / sqrt 2 or x * 1/sqrt 2.
2. SiLU: x sigmoid(x).
3. GELU by tanh: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), the factors of each product in any order.
"""

from __future__ import annotations

from math import pi, sqrt

from ..ir import Binary, Graph, Op, Step, Tensor, Unary
from .match import Matcher, other, with_constant


def fuse_activations(graph: Graph) -> None:
    find = Matcher(graph)
    for step in graph.steps:
        if not step.is_binary(Binary.MUL):
            continue
        source = _gelu(find, step)
        kind = Unary.GELU
        if source is None:
            source, kind = _silu(find, step), Unary.SILU
        if source is None:
            source, kind = _gelu_tanh(find, step), Unary.GELU_TANH
        if source is not None and source.shape == step.out.shape:
            step.op, step.inputs, step.attrs = Op.UNARY, [source], [int(kind), 0.0, 0.0]


def _silu(find: Matcher, step: Step) -> Tensor | None:
    for x in step.inputs:
        rest = other(step, x) if x is not None else None
        sigmoid = find.unary(rest, Unary.SIGMOID)
        if sigmoid is not None and sigmoid.inputs[0] is x:
            return x
    return None


def _erf_argument(find: Matcher, plus_one: Tensor | None) -> Tensor | None:
    """x when the tensor is 1 + erf(x / sqrt 2)."""
    add = find.binary(plus_one, Binary.ADD)
    erf = find.unary(with_constant(add, 1.0), Unary.ERF) if add is not None else None
    if erf is None:
        return None
    divided = find.binary(erf.inputs[0], Binary.DIV)
    if divided is not None:
        divisor = divided.inputs[1]
        number = divisor.scalar() if divisor is not None else None
        return divided.inputs[0] if number is not None and abs(number - sqrt(2)) < 1e-4 else None
    scaled = find.binary(erf.inputs[0], Binary.MUL)
    return with_constant(scaled, sqrt(0.5)) if scaled is not None else None


def _gelu(find: Matcher, step: Step) -> Tensor | None:
    product = with_constant(step, 0.5)
    inner = find.binary(product, Binary.MUL)
    if inner is not None:
        for a in inner.inputs:
            x = _erf_argument(find, a)
            if x is not None and a is not None and other(inner, a) is x:
                return x
    for a in step.inputs:
        x = _erf_argument(find, a)
        half = find.binary(other(step, a), Binary.MUL) if x is not None and a is not None else None
        if half is not None and with_constant(half, 0.5) is x:
            return x
    return None


def _factors(find: Matcher, tensor: Tensor | None, whole: Tensor | None, depth: int = 4) -> tuple[float, list[Tensor | None]]:
    """A product as a number and the tensors whose product it is; `whole` is not taken apart."""
    number = tensor.scalar() if tensor is not None else None
    if number is not None:
        return number, []
    product = find.binary(tensor, Binary.MUL) if tensor is not whole and depth else None
    if product is not None:
        (a, some), (b, more) = (_factors(find, x, whole, depth - 1) for x in product.inputs)
        return a * b, some + more
    power = find.binary(tensor, Binary.POW) if tensor is not whole else None
    if power is not None and power.inputs[1] is not None and power.inputs[1].scalar() == 3.0:
        return 1.0, [power.inputs[0]] * 3
    return 1.0, [tensor]


def _is_product(find: Matcher, tensor: Tensor | None, number: float, *tensors: Tensor, whole: Tensor) -> bool:
    found, rest = _factors(find, tensor, whole)
    same = len(rest) == len(tensors) and sorted(map(id, rest)) == sorted(map(id, tensors))
    return same and abs(found - number) <= 1e-5 * number


def _tanh_argument(find: Matcher, plus_one: Tensor) -> Tensor | None:
    """x when the tensor is 1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))."""
    add = find.binary(plus_one, Binary.ADD)
    tanh = find.unary(with_constant(add, 1.0), Unary.TANH) if add is not None else None
    scaled = find.binary(tanh.inputs[0], Binary.MUL) if tanh is not None else None
    total = find.binary(with_constant(scaled, sqrt(2 / pi), 1e-5), Binary.ADD) if scaled is not None else None
    for x, cube in (total.inputs, total.inputs[::-1]) if total is not None else ():
        if x is not None and _is_product(find, cube, 0.044715, x, x, x, whole=x):
            return x
    return None


def _gelu_tanh(find: Matcher, step: Step) -> Tensor | None:
    for tensor in _factors(find, step.out, None)[1]:
        x = _tanh_argument(find, tensor) if tensor is not None else None
        if x is not None and tensor is not None and _is_product(find, step.out, 0.5, x, tensor, whole=x):
            return x
    return None
