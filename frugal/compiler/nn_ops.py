"""Handlers of products, normalizations and quantization."""

from __future__ import annotations

import numpy as np

from .dims import Dim
from .ir import NUMPY, Binary, DType, Layout, Op, Quantized, Tensor, Weight
from .lower import MICROSOFT, Node, op, show, type_name
from .math_ops import binary
from .pack import BLOCK, CODE_TYPES


# ---- products ----
def weight_of(node: Node, x: Tensor, n_axis: int, keep_float: bool = False) -> Weight:
    """A constant 2-D right operand as a weight [n, k]; n_axis says which of its axes is n. keep_float: never as codes."""
    quant = x.quant
    n, k = x.value_shape[n_axis], x.value_shape[1 - n_axis]
    if quant is not None and node.lowering.activations != "float" and not keep_float:
        oriented = quant if n_axis == 0 else quant.transposed((1, 0))
        made = int8_weight(oriented, n, k) or int8_blocks(oriented, n, k) or int4_weight(oriented, n, k)
        if made is not None:
            return made
        node.graph.notes.append(f"{node.name}: the quantized weight '{x.name}' runs in float32: its form has no integer kernel")

    def values() -> np.ndarray:
        return x.value() if n_axis == 0 else x.value().T

    return Weight(Layout.F32_P16, n, k, values=values)


def int8_weight(quant: Quantized, n: int, k: int) -> Weight | None:
    """Per channel (or per tensor) symmetric int8 within [-127, 127]."""
    if quant.bits != 8 or quant.block or (quant.scale.size > 1 and quant.axis != 0):
        return None
    codes = symmetric_codes(quant)
    if codes is None:
        return None
    scale = np.broadcast_to(quant.scale.reshape(-1), (n,)).astype(np.float32)
    return Weight(Layout.W8_P16, n, k, codes=codes, scale=scale)


def symmetric_codes(quant: Quantized) -> np.ndarray | None:
    """int8 codes within [-127, 127] that have no zero points."""
    codes = quant.codes
    if quant.zero is not None and quant.zero.any():
        if codes.dtype != np.uint8 or (quant.zero != 128).any():
            return None
        codes = (codes ^ 0x80).view(np.int8)
    elif codes.dtype != np.int8:
        return None
    return None if codes.size and codes.min() < -127 else codes


def int8_blocks(quant: Quantized, n: int, k: int) -> Weight | None:
    """Symmetric int8 in blocks along k of a multiple of 32, with scales that fp16 holds exactly."""
    if quant.bits != 8 or not quant.block or quant.axis != 1 or quant.block % BLOCK:
        return None
    codes, half = symmetric_codes(quant), quant.scale.astype(np.float16)
    if codes is None or (half.astype(np.float32) != quant.scale).any():
        return None
    scale = np.repeat(half.reshape(n, -1), quant.block // BLOCK, axis=1)[:, : -(-k // BLOCK)]
    return Weight(Layout.W8B_P16, n, k, codes=codes, scale=np.ascontiguousarray(scale))


def int4_weight(quant: Quantized, n: int, k: int) -> Weight | None:
    """4-bit codes in blocks along k of a multiple of 32 (or per channel), with scales that fp16 holds exactly."""
    if quant.bits != 4:
        return None
    blocks = -(-k // BLOCK)
    if quant.block:
        if quant.axis != 1 or quant.block % BLOCK:
            return None
        repeat = quant.block // BLOCK
    elif quant.axis == 0 or quant.scale.size == 1:
        repeat = blocks
    else:
        return None

    def spread(values: np.ndarray) -> np.ndarray:
        values = np.broadcast_to(
            values.reshape(n, -1) if values.size > 1 else values.reshape(1, 1), (n, max(1, values.size // n))
        )
        return np.ascontiguousarray(np.repeat(values, repeat, axis=1)[:, :blocks])

    half = spread(quant.scale).astype(np.float16)
    if (half.astype(np.float32) != spread(quant.scale)).any():
        return None
    offset = 8 if quant.codes.dtype == np.int8 else 0
    zero = np.zeros((n, blocks), np.int16) if quant.zero is None else spread(quant.zero).astype(np.int16)
    codes = (quant.codes + np.int8(offset)).astype(np.uint8)
    return Weight(Layout.W4_P16, n, k, codes=codes, scale=half, zero=(zero + offset).astype(np.uint8))


def linear(node: Node, x: Tensor, w: Tensor, n_axis: int) -> Tensor:
    """x [.., k] times a constant [n, k] (n_axis 0) or [k, n] (n_axis 1)."""
    k, n = w.shape[1 - n_axis], w.shape[n_axis]
    if isinstance(x.shape[-1], int) and x.shape[-1] != k:
        raise node.fail(f"inner dimensions differ: {show(x.shape)} and {show(w.shape)}")
    weight = weight_of(node, w, n_axis, keep_float=x in node.lowering.keep_float)
    packed = node.tensor(CODE_TYPES.get(weight.layout, DType.FLOAT), (n, k), w.name)
    packed.weight, packed.layout = weight, weight.layout
    return node.emit(Op.LINEAR, [x, packed, None, None, None], DType.FLOAT, (*x.shape[:-1], n), 0)


@op("MatMul")
def matmul(node: Node) -> Tensor:
    return product(node, node.get(0), node.get(1))


def product(node: Node, a: Tensor, b: Tensor, factor: float = 1.0) -> Tensor:
    """factor (a b) by the rules of MatMul; a constant matrix on the right becomes the weight of a linear."""
    multiplicable(node, a, b)
    if a.rank == 0 or b.rank == 0:
        raise node.fail("an operand is a scalar")
    if is_weight(a, b) and b.rank == 2 and a.rank >= 2:
        return scaled_by(node, linear(node, a, b, 1), factor)
    left = node.alias(a, (1, *a.shape)) if a.rank == 1 else a
    right = node.alias(b, (*b.shape, 1)) if b.rank == 1 else b
    if all(isinstance(d, int) for d in (left.shape[-1], right.shape[-2])) and left.shape[-1] != right.shape[-2]:
        raise node.fail(f"inner dimensions differ: {show(a.shape)} and {show(b.shape)}")
    batch = node.broadcast(left.shape[:-2], right.shape[:-2])
    made = node.emit(Op.MATMUL, [left, right], a.dtype, (*batch, left.shape[-2], right.shape[-1]), 0, factor)
    result: list[Dim] = list(batch)
    result += [] if a.rank == 1 else [left.shape[-2]]
    result += [] if b.rank == 1 else [right.shape[-1]]
    return node.alias(made, result)


PRODUCTS = {DType.FLOAT, DType.DOUBLE, DType.INT32, DType.UINT32, DType.INT64, DType.UINT64}


def multiplicable(node: Node, a: Tensor, b: Tensor) -> None:
    if a.dtype != b.dtype or a.dtype not in PRODUCTS:
        raise node.unsupported(f"a product of {type_name(a.dtype)} and {type_name(b.dtype)}")


def is_weight(a: Tensor, b: Tensor) -> bool:
    """Whether b is a constant that a linear can hold as its weight, for an a that is computed."""
    return b.known and a.const is None and b.dtype == DType.FLOAT and all(d != 0 for d in b.shape)


def scaled_by(node: Node, x: Tensor, factor: float) -> Tensor:
    if factor == 1.0:
        return x
    if x.dtype not in (DType.FLOAT, DType.DOUBLE) and factor != int(factor):
        raise node.unsupported(f"integers times {factor}")
    return binary(node, Binary.MUL, x, node.constant(np.array(factor).astype(NUMPY[x.dtype])))


@op("Gemm")
def gemm(node: Node) -> Tensor:
    a, b, c = node.get(0), node.get(1), node.optional(2)
    multiplicable(node, a, b)
    alpha, beta = node.attr("alpha", 1.0), node.attr("beta", 1.0)
    if a.rank != 2 or b.rank != 2:
        raise node.fail(f"operands are {show(a.shape)} and {show(b.shape)}; Gemm wants matrices")
    trans_a, trans_b = node.attr("transA", 0), node.attr("transB", 0)
    depths = (a.shape[0 if trans_a else 1], b.shape[1 if trans_b else 0])
    if all(isinstance(d, int) for d in depths) and depths[0] != depths[1]:
        raise node.fail(f"inner dimensions differ: {show(a.shape)} and {show(b.shape)}")
    if trans_a:
        a = node.emit(Op.TRANSPOSE, [a], a.dtype, a.shape[::-1], 1, 0)
    n = b.shape[0] if trans_b else b.shape[1]
    if is_weight(a, b):
        result = scaled_by(node, linear(node, a, b, 0 if trans_b else 1), alpha)
    else:
        inside = float(alpha) if a.dtype in (DType.FLOAT, DType.DOUBLE) else 1.0
        result = node.emit(Op.MATMUL, [a, b], a.dtype, (a.shape[0], n), int(trans_b), inside)
        result = scaled_by(node, result, alpha / inside if inside else 1.0)
    if c is None or beta == 0.0:
        return result
    added = binary(node, Binary.ADD, result, scaled_by(node, c, beta))
    if added.rank != 2:
        raise node.fail(f"C {show(c.shape)} does not broadcast to the product")
    return added


@op("MatMulNBits", domain=MICROSOFT)
def matmul_nbits(node: Node) -> Tensor:
    """x [.., K] times a packed [N, K] weight in blocks; only blocks of 32 and more in 4 bits keep an integer kernel."""
    x, n, k = node.get(0), node.attr("N"), node.attr("K")
    bits, block = node.attr("bits", 4), node.attr("block_size")
    if bits not in (4, 8) or (node.optional(4) is not None):
        raise node.unsupported(f"{bits} bits, or a g_idx; 4 and 8 bits in order are read")
    blocks = -(-k // block)
    raw = node.array(1, "the weight").reshape(n, blocks, -1)
    codes = unpack(raw, bits).reshape(n, -1)[:, :k]
    scale = node.array(2, "scales").astype(np.float32).reshape(n, blocks)
    zeros = node.optional(3)
    zero = np.full((n, blocks), 1 << (bits - 1), np.uint8)
    if zeros is not None and zeros.const is not None:
        if zeros.const.dtype != np.uint8:
            raise node.unsupported("zero points that are not packed uint8")
        zero = unpack(zeros.const.reshape(n, -1), bits)[:, :blocks]
    weight = node.tensor(DType.FLOAT, (n, k), node.proto.input[1])
    weight.quant = Quantized(codes, scale, zero, 1, block, bits)
    result = linear(node, x, weight, 0)
    bias = node.optional(5)
    return result if bias is None else binary(node, Binary.ADD, result, bias)


def unpack(raw: np.ndarray, bits: int) -> np.ndarray:
    """Bytes to codes, low nibble first, along the last axis."""
    if bits == 8:
        return raw
    codes = np.empty((*raw.shape[:-1], 2 * raw.shape[-1]), np.uint8)
    codes[..., 0::2], codes[..., 1::2] = raw & 15, raw >> 4
    return codes


# ---- normalizations ----
@op("LpNormalization")
def lp_normalization(node: Node) -> Tensor:
    from .ir import Reduce

    x, axis, p = node.get(0), node.attr("axis", -1), node.attr("p", 2)
    node.floats(x)
    axis = node.axis(axis, x.rank)
    kept = [1 if i == axis else d for i, d in enumerate(x.shape)]
    kind = Reduce.L2 if p == 2 else Reduce.L1
    norm = node.emit(Op.REDUCE, [x], x.dtype, kept, int(kind), 1 << axis)
    zero = node.constant(np.zeros((), np.float32))
    divided = binary(node, Binary.DIV, x, norm)  # a vector of zeros stays one
    return node.emit(Op.WHERE, [binary(node, Binary.EQUAL, norm, zero), zero, divided], x.dtype, x.shape)
