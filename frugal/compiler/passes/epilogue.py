"""What follows a linear and can be done while its result is in registers.

1. A constant [n] (or of one element, spread) that is added and read by nobody else: the bias.
2. Then an activation function without parameters that alone reads the result.
3. Then the addition of a tensor of the same shape: the residual.
The fused step takes the place of the last one it replaces, so that a residual is always written before it.
"""

from __future__ import annotations

import numpy as np

from ..ir import Binary, DType, Graph, Op, Step, Tensor, Unary
from ..pack import PANEL, round_up
from .match import Matcher, other

PLAIN_ACTIVATIONS = {
    Unary.RELU, Unary.GELU, Unary.GELU_TANH, Unary.SILU, Unary.TANH, Unary.SIGMOID, Unary.ERF, Unary.EXP, Unary.SOFTPLUS,
    Unary.HARD_SWISH, Unary.ABS, Unary.NEG, Unary.SQRT,
}  # fmt: skip


def fuse_epilogues(graph: Graph) -> None:
    for rule in (_bias, _activation, _residual):
        find, gone = Matcher(graph), set[int]()  # two products may have one follower: the sum of both
        for step in list(graph.steps):
            if step.op == Op.LINEAR:
                follower = find.only_use(step.out)
                if follower is not None and id(follower) not in gone and rule(step, follower):
                    replace_follower(graph, step, follower)
                    gone.add(id(follower))


def replace_follower(graph: Graph, linear: Step, follower: Step) -> None:
    """Put the step where the follower stands, writing the follower's output."""
    linear.outputs = follower.outputs
    graph.steps.remove(linear)
    graph.steps[next(i for i, s in enumerate(graph.steps) if s is follower)] = linear


def _bias(linear: Step, follower: Step) -> bool:
    if not follower.is_binary(Binary.ADD) or follower.out.shape != linear.out.shape:
        return False
    added = other(follower, linear.out)
    n = linear.out.shape[-1]
    if added is None or added.const is None or not isinstance(n, int) or linear.inputs[3] is not None or linear.attrs[0]:
        return False
    if added.const.size not in (1, n) or (added.const.size == n and n != 1 and added.const.shape[-1] != n):
        return False
    values = np.zeros(round_up(n, PANEL), np.float32)
    values[:n] = np.broadcast_to(added.const.reshape(-1), (n,))
    linear.inputs[3] = Tensor(added.name, DType.FLOAT, values.shape, const=values)
    return True


def _activation(linear: Step, follower: Step) -> bool:
    if follower.op != Op.UNARY or follower.attrs[0] not in PLAIN_ACTIVATIONS or linear.attrs[0]:
        return False
    linear.attrs[0] = follower.attrs[0]
    return True


def _residual(linear: Step, follower: Step) -> bool:
    if not follower.is_binary(Binary.ADD) or linear.inputs[4] is not None:
        return False
    added = other(follower, linear.out)
    if added is None or added.const is not None or added.shape != linear.out.shape:
        return False
    linear.inputs[4] = added
    return True
