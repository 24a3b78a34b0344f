"""What follows a convolution: folded into its weights, or done while its result is in registers (CONV, CONV_DEPTHWISE).

Each rule looks at the only reader of the result, again and again until none applies:
1. A product with (or quotient by) constants, one a channel or one in all, scales the weights and the bias. (Batch normalization
   is a product and a sum by then.)
2. A sum with (or difference of) such constants becomes the bias.
3. Any function of one operand that keeps float32 becomes the activation.
4. A product or sum with one constant after an activation becomes `scale` or `shift`.
5. The sum with a tensor of the same shape becomes the residual.
1 and 2 want no activation before them, 4 no residual, 1 weights that are constant.
The fused step takes the place of the last one it replaces, so that a residual is always written before it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..conv_ops import bias_of, grouped
from ..ir import Binary, DType, Graph, Op, Step, Tensor, Unary, Weight
from .epilogue import replace_follower
from .match import Matcher, other

CONVOLUTIONS = (Op.CONV, Op.CONV_DEPTHWISE)
ACT, P, Q, SCALE, SHIFT, GROUPS = range(6)
NOT_ACTIVATIONS = (Unary.COPY, Unary.NOT, Unary.ISNAN)


def fuse_convolutions(graph: Graph) -> None:
    changed = True
    while changed:
        changed = False
        find = Matcher(graph)
        for step in list(graph.steps):
            if step.op not in CONVOLUTIONS:
                continue
            follower = find.only_use(step.out)
            if follower is not None and any(rule(step, follower) for rule in RULES):
                replace_follower(graph, step, follower)
                find, changed = Matcher(graph), True


def _plain(step: Step) -> bool:
    return step.attrs[ACT] == Unary.COPY and _unscaled(step)


def _unscaled(step: Step) -> bool:
    return step.attrs[SCALE] == 1.0 and step.attrs[SHIFT] == 0.0 and step.inputs[3] is None


def _groups(step: Step) -> int:
    """Groups as the bias is laid out."""
    return int(step.attrs[GROUPS]) if step.op == Op.CONV else 1  # type: ignore[arg-type]


def _channels(step: Step, follower: Step) -> np.ndarray | None:
    """The constant operand of the follower as one value a channel, in float64."""
    constant = other(follower, step.out)
    n = step.out.shape[-1]
    if constant is None or constant.const is None or constant.dtype != DType.FLOAT or follower.out.shape != step.out.shape:
        return None
    values = constant.const
    if values.size != 1 and (values.size != n or values.shape[-1] != n):
        return None
    return np.broadcast_to(values.reshape(-1), (n,)).astype(np.float64)  # type: ignore[arg-type]


def _bias(step: Step) -> np.ndarray:
    """The bias of a step as one value a channel, in float64."""
    n, groups, bias = int(step.out.shape[-1]), _groups(step), step.inputs[2]  # type: ignore[arg-type]
    if bias is None:
        return np.zeros(n)
    assert bias.const is not None
    rows = bias.const.astype(np.float64)
    return rows.reshape(groups, -1)[:, : n // groups].reshape(-1) if groups > 1 else rows[:n]


def _set_bias(step: Step, values: np.ndarray) -> None:
    rows = bias_of(values, _groups(step))
    step.inputs[2] = Tensor(f"{step.name}/bias", DType.FLOAT, rows.shape, const=rows)


def _scaled_weights(step: Step, by: np.ndarray) -> Tensor | None:
    weight = step.inputs[1]
    assert weight is not None
    if step.op == Op.CONV_DEPTHWISE:
        if weight.const is None:
            return None
        return Tensor(weight.name, DType.FLOAT, weight.shape, const=(weight.const * by).astype(np.float32))
    old = weight.weight
    if old is None or old.values is None:
        return None
    rows, values = grouped(by, _groups(step)), old.values
    made = Weight(old.layout, old.n, old.k, values=lambda: (values() * rows[:, None]).astype(np.float32))
    return Tensor(weight.name, DType.FLOAT, weight.shape, weight=made, layout=weight.layout)


def _multiply(step: Step, follower: Step) -> bool:
    divides = follower.is_binary(Binary.DIV) and follower.inputs[0] is step.out
    if not _plain(step) or not (divides or follower.is_binary(Binary.MUL)):
        return False
    by = _channels(step, follower)
    if by is None or (divides and not by.all()):
        return False
    by = 1 / by if divides else by
    weight = _scaled_weights(step, by) if np.isfinite(by).all() else None
    if weight is None:
        return False
    step.inputs[1] = weight
    if step.inputs[2] is not None:
        _set_bias(step, _bias(step) * by)
    return True


def _added(step: Step, follower: Step) -> np.ndarray | None:
    """Constants that the follower adds."""
    minus = follower.is_binary(Binary.SUB) and follower.inputs[0] is step.out
    if not (minus or follower.is_binary(Binary.ADD)):
        return None
    values = _channels(step, follower)
    return -values if minus and values is not None else values


def _add(step: Step, follower: Step) -> bool:
    values = _added(step, follower) if _plain(step) else None
    if values is None:
        return False
    _set_bias(step, _bias(step) + values)
    return True


def _activation(step: Step, follower: Step) -> bool:
    if follower.op != Op.UNARY or follower.attrs[0] in NOT_ACTIVATIONS or not _plain(step):
        return False
    step.attrs[ACT : Q + 1] = follower.attrs[:3]
    return True


def _one(values: np.ndarray | None) -> float | None:
    """The one number that all are."""
    return float(values[0]) if values is not None and values.size and (values == values[0]).all() else None


def _scale(step: Step, follower: Step) -> bool:
    number = _one(_channels(step, follower)) if follower.is_binary(Binary.MUL) and _unscaled(step) else None
    if number is None or not np.isfinite(number):
        return False
    step.attrs[SCALE] = number
    return True


def _shift(step: Step, follower: Step) -> bool:
    number = _one(_added(step, follower)) if step.attrs[SHIFT] == 0.0 and step.inputs[3] is None else None
    if number is None or not np.isfinite(number):
        return False
    step.attrs[SHIFT] = number
    return True


def _residual(step: Step, follower: Step) -> bool:
    if not follower.is_binary(Binary.ADD) or step.inputs[3] is not None:
        return False
    added = other(follower, step.out)
    if added is None or added.const is not None or added.shape != step.out.shape or added.dtype != DType.FLOAT:
        return False
    step.inputs[3] = added
    return True


RULES: tuple[Callable[[Step, Step], bool], ...] = (_multiply, _add, _activation, _scale, _shift, _residual)
