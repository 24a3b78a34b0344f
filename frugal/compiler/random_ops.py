"""Handlers of random numbers: a counter-based generator (RANDOM in frugal_plan.h), the same in every run and on every CPU.

The key is the attribute `seed`, or, without one, a hash of the node's name: two nodes differ, two runs do not.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np

from .dims import Dim
from .index_ops import cast
from .ir import NUMPY, Binary, DType, Op, Reduce, Tensor, Unary
from .lower import Node, op, show
from .math_ops import binary, unary


def seed_of(node: Node) -> int:
    """32 bits that the node's seed, or its name, decides."""
    seed = node.attr("seed")
    material = node.name.encode() if seed is None else struct.pack("<f", seed)
    return int.from_bytes(hashlib.sha256(material).digest()[:4], "little")


def numbers(node: Node, shape: tuple[Dim, ...], normal: bool, start: float, spread: float) -> Tensor:
    node.foldable = False
    return node.emit(Op.RANDOM, [], DType.FLOAT, shape, int(normal), seed_of(node), float(start), float(spread))


@op("RandomUniform", "RandomNormal", "RandomUniformLike", "RandomNormalLike")
def random(node: Node) -> Tensor:
    like = node.get(0) if node.type.endswith("Like") else None
    shape = tuple(node.attr("shape", [])) if like is None else like.shape
    dtype = node.attr("dtype", DType.FLOAT if like is None else like.dtype)
    if dtype not in NUMPY or any(isinstance(d, int) and d < 0 for d in shape):
        raise node.fail(f"data type {dtype}, shape {show(shape)}")
    if "Normal" in node.type:
        made = numbers(node, shape, True, node.attr("mean", 0.0), node.attr("scale", 1.0))
    else:
        low, high = node.attr("low", 0.0), node.attr("high", 1.0)
        made = numbers(node, shape, False, low, high - low)
    return cast(node, made, dtype)


@op("Bernoulli")
def bernoulli(node: Node) -> Tensor:
    """1 with the probability that the input gives."""
    x = node.get(0)
    drawn = numbers(node, x.shape, False, 0.0, 1.0)
    return cast(node, binary(node, Binary.LESS, drawn, cast(node, x, DType.FLOAT)), node.attr("dtype", x.dtype))


@op("Multinomial")
def multinomial(node: Node) -> Tensor:
    """Classes drawn by unnormalized log probabilities: how many running sums of exp(x - max) lie at or below a random part."""
    x, count = node.get(0), int(node.attr("sample_size", 1))
    node.floats(x)
    if x.rank != 2 or count < 0:
        raise node.fail(f"an input {show(x.shape)}, {count} samples")
    n, classes = x.shape
    top = node.emit(Op.REDUCE, [x], DType.FLOAT, [n, 1], int(Reduce.MAX), 2)
    weights = unary(node, binary(node, Binary.SUB, x, top), Unary.EXP)
    total = node.emit(Op.REDUCE, [weights], DType.FLOAT, [n, 1], int(Reduce.SUM), 2)
    running = node.alias(node.emit(Op.CUMSUM, [weights], DType.FLOAT, x.shape, 1, 0, 0), [n, 1, classes])
    drawn = binary(node, Binary.MUL, numbers(node, (n, count), False, 0.0, 1.0), total)
    below = binary(node, Binary.LESS_EQUAL, running, node.alias(drawn, [n, count, 1]))
    index = node.emit(Op.REDUCE, [cast(node, below, DType.INT64)], DType.INT64, [n, count, 1], int(Reduce.SUM), 4)
    last = node.emit(Op.DIMS, [], DType.INT64, [], classes)
    bounded = binary(node, Binary.MIN, node.alias(index, [n, count]), binary(node, Binary.SUB, last, node.constant(np.array(1))))
    return cast(node, bounded, node.attr("dtype", DType.INT32))
