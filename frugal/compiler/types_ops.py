"""Handlers about data types: casts between all of them."""

from __future__ import annotations

import numpy as np

from .ir import NUMPY, SMALL_FLOATS, SMALL_INTS, DType, Op, Tensor
from .lower import Node, op, type_name
from .shape_ops import symbolic

ROUND_MODES = {"up": 0, "down": 1, "nearest": 2}  # attribute 1 of CONVERT
FLOATS = (DType.FLOAT, DType.DOUBLE, DType.FLOAT16, DType.BFLOAT16)


@op("Cast")
def cast(node: Node) -> Tensor:
    return cast_to(node, node.get(0), node.attr("to"), node.attr("saturate", 1), node.attr("round_mode", "up"))


@op("CastLike")
def cast_like(node: Node) -> Tensor:
    return cast_to(node, node.get(0), node.get(1).dtype, node.attr("saturate", 1), node.attr("round_mode", "up"))


def cast_to(node: Node, x: Tensor, to: int, saturate: int = 1, mode: str = "up") -> Tensor:
    """x as another data type; saturate and mode count for floats of 8 bits alone."""
    if to not in NUMPY:
        raise node.unsupported(f"cast to data type {to} (of TensorProto.DataType)")
    if to == x.dtype:
        return x
    if to == DType.FLOAT and x.wide is not None:
        return x.wide
    if x.sym is not None and to in (DType.INT64, DType.INT32):
        return symbolic(node, x.sym, to)
    if x.const is not None and to in FLOATS and x.dtype != DType.BOOL:
        with np.errstate(over="ignore"):
            return node.constant(x.const.astype(NUMPY[to]))
    if to in SMALL_FLOATS and (not saturate or mode != "up"):
        return node.emit(Op.CONVERT, [x], to, x.shape, int(bool(saturate)), ROUND_MODES[mode])
    return node.emit(Op.CAST, [x], to, x.shape)


@op("BitCast")
def bit_cast(node: Node) -> Tensor:
    """The same bits under another data type of the same width."""
    x, to = node.get(0), node.attr("to")
    if to not in NUMPY:
        raise node.unsupported(f"data type {to} (of TensorProto.DataType)")
    if bits(x.dtype) != bits(to):
        raise node.fail(f"{type_name(x.dtype)} and {type_name(to)} differ in width")
    return x if to == x.dtype else node.emit(Op.BIT_CAST, [x], to, x.shape)


def bits(dtype: int) -> int:
    """Bits of an element, as the model's file stores it."""
    return 4 if dtype == DType.FLOAT4E2M1 else SMALL_INTS.get(DType(dtype), 8 * NUMPY[dtype].itemsize)
