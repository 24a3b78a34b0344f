"""QuantizeLinear and DequantizeLinear of 16-bit integers (TFLite's 16x8 graphs have them), in steps that others use too.

Float32 holds all 16-bit integers and their differences, so each of these steps rounds at most once, as ONNX's definition does.
"""

from __future__ import annotations

import numpy as np

from .ir import NUMPY, Binary, DType, Tensor, Unary, elements
from .lower import Node
from .math_ops import binary, unary
from .types_ops import cast_to

WIDE = (DType.INT16, DType.UINT16)


def spread(node: Node, values: Tensor, rank: int, axis: int) -> Tensor:
    """A scale or zero point as float32 in the form in which it broadcasts: scalar, or [n, 1, ..] for axis `axis` of `rank`."""
    shape = () if elements(values.shape) == 1 else (*values.shape, *[1] * (rank - 1 - axis))
    if values.const is not None:
        return node.constant(
            np.asarray(values.const, np.float32).reshape(values.const.shape + (1,) * (rank - 1 - axis) if shape else ())
        )
    wide = cast_to(node, values, DType.FLOAT)
    return wide if wide.shape == shape else node.alias(wide, shape)


def quantize_wide(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None, dtype: int, axis: int, block: int) -> Tensor:
    """saturate(round(x / scale) + zero), halves to even."""
    no_blocks(node, block)
    codes = unary(node, binary(node, Binary.DIV, x, spread(node, scale, x.rank, axis)), Unary.ROUND)
    if zero is not None:
        codes = binary(node, Binary.ADD, codes, spread(node, zero, x.rank, axis))
    limits = np.iinfo(NUMPY[dtype])
    return cast_to(node, unary(node, codes, Unary.CLIP, float(limits.min), float(limits.max)), dtype)


def dequantize_wide(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None, axis: int, block: int) -> Tensor:
    """(x - zero) scale. Products of the result keep float activations: rounding to 8 bits would undo the 16."""
    no_blocks(node, block)
    value = cast_to(node, x, DType.FLOAT)
    if zero is not None and (zero.const is None or zero.const.any()):
        value = binary(node, Binary.SUB, value, spread(node, zero, x.rank, axis))
    value = binary(node, Binary.MUL, value, spread(node, scale, x.rank, axis))
    node.lowering.keep_float.add(value)
    return value


def no_blocks(node: Node, block: int) -> None:
    if block:
        raise node.unsupported("integers of 16 bits with one scale a block")
