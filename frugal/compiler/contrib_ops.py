"""Handlers of the operators that onnxruntime's optimizers and exporters write (com.microsoft): attention and activations.

Letters as in attention_ops.py.  What onnxruntime's CPU provider does not have is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from . import dims
from .attention_ops import (
    FROM_START,
    Heads,
    cast,
    concatenated,
    counting,
    cut,
    emit_attention,
    expanded,
    grown,
    number,
    rotary,
    size_of_head,
    split_heads,
)
from .dims import Dim
from .ir import Binary, DType, Op, Tensor, Unary
from .lower import MICROSOFT, Node, op, show
from .math_ops import binary, unary
from .nn_ops import product
from .norm_ops import normalized, wanted


# ---- activations ----
@op("BiasGelu", "FastGelu", domain=MICROSOFT)
def bias_gelu(node: Node) -> Tensor:
    x, bias = node.get(0), node.optional(1)
    kind = Unary.GELU if node.type == "BiasGelu" else Unary.GELU_TANH
    return unary(node, x if bias is None else binary(node, Binary.ADD, x, bias), kind)


@op("QuickGelu", domain=MICROSOFT)
def quick_gelu(node: Node) -> Tensor:
    """x sigmoid(alpha x)."""
    x, alpha = node.get(0), float(node.attr("alpha", 1.702))
    if alpha == 1.0:
        return unary(node, x, Unary.SILU)
    inner = binary(node, Binary.MUL, x, node.constant(np.array(alpha, np.float32)))
    return binary(node, Binary.MUL, x, unary(node, inner, Unary.SIGMOID))


# ---- what they share ----
def refuse(node: Node, attributes: Sequence[tuple[str, object]] = (), inputs: Sequence[tuple[int, str]] = ()) -> None:
    """Refuse attributes that differ from their default, and inputs that are there."""
    for name, default in attributes:
        if node.attr(name, default) != default:
            raise node.unsupported(f"{name} {node.attr(name)}")
    for index, what in inputs:
        if node.optional(index) is not None:
            raise node.unsupported(what)


def scale_of(node: Node, size: int) -> float:
    return float(np.float32(node.attr("scale", 0.0) or 1.0 / sqrt(size)))


def padding(node: Node, mask: Tensor, b: Dim, keys: Dim) -> Tensor:
    """A mask of numbers, [b, t] or [b, s, t] with 1 to keep, or [b] with how many to keep, as float32 [b, 1, 1 or s, t]."""
    low = node.constant(np.array(node.attr("mask_filter_value", -10000.0), np.float32))
    zero = node.constant(np.zeros((), np.float32))
    if mask.rank == 1:
        if mask.shape != (b,) and isinstance(mask.shape[0], int):
            raise node.unsupported(f"a mask of shape {show(mask.shape)}")
        shape: tuple[Dim, ...] = (b, 1, 1, keys)
        keep = binary(node, Binary.LESS, counting(node, keys), node.alias(cast(node, mask, DType.INT64), (b, 1, 1, 1)))
    elif mask.rank in (2, 3):
        shape = (mask.shape[0], 1, mask.shape[1] if mask.rank == 3 else 1, mask.shape[-1])
        none = node.constant(np.zeros((), np.int64))
        keep = binary(node, Binary.GREATER, node.alias(cast(node, mask, DType.INT64), shape), none)
    else:
        raise node.unsupported(f"a mask of shape {show(mask.shape)}")
    return node.emit(Op.WHERE, [keep, zero, low], DType.FLOAT, shape)


def biased(node: Node, mask: Tensor | None, bias: Tensor | None) -> Tensor | None:
    if bias is not None:
        node.floats(bias)
    if mask is None or bias is None:
        return mask or bias
    return binary(node, Binary.ADD, mask, bias)


def widths(node: Node, *tensors: Tensor) -> list[int]:
    result = [t.shape[-1] for t in tensors]
    if not all(isinstance(w, int) for w in result):
        raise node.unsupported("a width that is not fixed")
    return [int(w) for w in result if isinstance(w, int)]


def parts(node: Node, x: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """The last axis cut into pieces of these sizes."""
    starts = np.cumsum([0, *sizes[:-1]])
    return [cut(node, x, x.rank - 1, int(start), size) for start, size in zip(starts, sizes, strict=True)]


# ---- Attention and MultiHeadAttention ----
@op("Attention", domain=MICROSOFT)
def packed_attention(node: Node) -> list[Tensor]:
    """Projects x [b, s, w] to q, k and v in one product, then attends; past and present are [2, b, h, t, d]."""
    refuse(node, [("do_rotary", 0), ("past_present_share_buffer", 0)], [(6, "past_sequence_length")])
    x, weights, bias, mask, past, added = (node.get(i) if i < 2 else node.optional(i) for i in range(6))
    assert x is not None and weights is not None
    node.floats(x, weights, bias, past)
    h = int(node.attr("num_heads"))
    qkv = product(node, x, weights)
    qkv = qkv if bias is None else binary(node, Binary.ADD, qkv, bias)
    (width,) = widths(node, qkv)
    sizes = [int(n) for n in node.attr("qkv_hidden_sizes") or [width // 3] * 3]
    if len(sizes) != 3 or sum(sizes) != width or sizes[0] != sizes[1] or any(n % h for n in sizes) or qkv.rank != 3:
        raise node.fail(f"{show(qkv.shape)} as q, k, v of {sizes} in {h} heads")
    b, s = qkv.shape[:2]
    causal, scale = bool(node.attr("unidirectional", 0)), scale_of(node, sizes[0] // h)
    length = dims.add(s, past.shape[3]) if past is not None else s
    scores = biased(node, None if mask is None else padding(node, mask, b, length), added)
    if past is None and not wanted(node, 1) and len(set(sizes)) == 1:
        attrs = (h, h, scale, FROM_START if causal else 0, 0.0, 1)
        return [node.emit(Op.ATTENTION, [qkv, None, None, scores], DType.FLOAT, (b, s, sizes[2]), *attrs)]
    q, k, v = parts(node, qkv, sizes)
    keys, values = present = present_of(node, (k, v), past, h)
    a = Heads(q, keys, values, h, h, scale, mask=scores, right=0 if causal else -1)
    a.offset = past.shape[3] if past is not None else 0
    stacked = [node.alias(t, (1, *t.shape)) for t in present]
    return [emit_attention(node, a), concatenated(node, stacked, 0) if wanted(node, 1) else present[0]]


def present_of(node: Node, new: Sequence[Tensor], past: Tensor | None, heads: int) -> list[Tensor]:
    """Keys and values [b, h, t, d] after a past of [2, b, h, p, d]."""
    if past is None:
        return [split_heads(node, t, heads) for t in new]
    if past.rank != 5 or past.shape[0] != 2:
        raise node.fail(f"a past of shape {show(past.shape)}")
    halves = [node.alias(cut(node, past, 0, i, 1), past.shape[1:]) for i in range(2)]
    return [grown(node, t, half, heads) for t, half in zip(new, halves, strict=True)]


@op("MultiHeadAttention", domain=MICROSOFT)
def multi_head_attention(node: Node) -> list[Tensor]:
    refuse(node, inputs=[(8, "past_sequence_length (a shared buffer)"), (9, "cache_indirection")])
    if wanted(node, 3):
        raise node.unsupported("the output qk")
    h = int(node.attr("num_heads"))
    q, k, v = projections(node, h)
    past_k, past_v = node.optional(6), node.optional(7)
    if (past_k is None) != (past_v is None):
        raise node.fail("past_key and past_value belong together")
    present = [grown(node, k, past_k, h), grown(node, v, past_v, h)] if past_k is not None or wanted(node, 1) else [k, v]
    keys, values = present if past_k is not None else (k, v)
    a = Heads(q, keys, values, h, h, scale_of(node, size_of_head(node, q, h)))
    mask = node.optional(4)
    a.mask = biased(node, None if mask is None else padding(node, mask, q.shape[0], a.keys), node.optional(5))
    a.right = 0 if node.attr("unidirectional", 0) else -1
    a.offset = past_k.shape[2] if past_k is not None else 0
    return [emit_attention(node, a), *present]


def projections(node: Node, h: int) -> list[Tensor]:
    """q, k, v with their biases: three inputs of [b, s, h*d], keys and values [b, h, t, d], or packed in one tensor or two."""
    q, k, v, bias = node.get(0), node.optional(1), node.optional(2), node.optional(3)
    node.floats(q, k, v, bias)
    if q.rank == 5 and k is None and v is None:
        q, k, v = unpacked(node, q, h, 3)
    elif k is not None and k.rank == 5 and v is None:
        k, v = unpacked(node, k, h, 2)
    if k is None or v is None or q.rank != 3 or k.rank != v.rank or k.rank not in (3, 4):
        raise node.fail("query, key and value are not of a form that MultiHeadAttention has")
    size = widths(node, q)[0] // h
    sizes = [size * h, *(w if t.rank == 3 else w * h for t, w in zip((k, v), widths(node, k, v), strict=True))]
    if sizes[0] != sizes[1] or any(n % h for n in sizes):
        raise node.fail(f"q, k, v are {sizes} wide, in {h} heads")
    if bias is None:
        return [q, k, v]
    pieces = parts(node, bias, sizes)
    return [binary(node, Binary.ADD, t, piece) if t.rank == 3 else t for t, piece in zip((q, k, v), pieces, strict=True)]


def unpacked(node: Node, x: Tensor, h: int, count: int) -> list[Tensor]:
    """[b, s, h, count, d] as `count` tensors [b, s, h*d]."""
    b, s, heads, have, d = x.shape
    if heads != h or have != count:
        raise node.fail(f"a packed operand of shape {show(x.shape)}")
    return [node.alias(cut(node, x, 3, i, 1), (b, s, dims.mul(d, h))) for i in range(count)]


# ---- decoders ----
@op("RotaryEmbedding", domain=MICROSOFT)
def rotary_embedding(node: Node) -> Tensor:
    """x [b, s, h*d] or [b, h, s, d]; positions [b, s], or [1]: where the first token stands."""
    refuse(node, [("scale", 1.0), ("is_packed_batching", 0)])
    x, places, cos, sin = (node.get(i) for i in range(4))
    node.floats(x, cos, sin)
    heads, half = int(node.attr("num_heads", 0)), cos.shape[-1]
    if x.rank == 3 and not heads:
        if not isinstance(half, int) or not half:
            raise node.unsupported(f"no num_heads, and tables of shape {show(cos.shape)}")
        heads = widths(node, x)[0] // (2 * half)
    if places.rank == 1:
        places = binary(node, Binary.ADD, counting(node, x.shape[2 if x.rank == 4 else 1]), cast(node, places, DType.INT64))
    return rotary(node, x, (cos, sin), places, heads if x.rank == 3 else 0, int(node.attr("interleaved", 0)))


GROUP_INPUTS = [(12, "k_scale (a quantized cache)"), (13, "v_scale (a quantized cache)"), (16, "query_seqlens")]
GROUP_ATTRIBUTES = [("k_quant_type", "NONE"), ("v_quant_type", "NONE"), ("qk_output", 0), ("sliding_window_cache", 0)]


@op("GroupQueryAttention", domain=MICROSOFT)
def group_query_attention(node: Node) -> list[Tensor]:
    """Attention whose cache [b, g, m, d] holds total - s tokens of each row; the s new ones are written behind them."""
    refuse(node, GROUP_ATTRIBUTES, GROUP_INPUTS)
    if wanted(node, 3):
        raise node.unsupported("the output output_qk")
    h, g = int(node.attr("num_heads")), int(node.attr("kv_num_heads"))
    q, k, v = group_projections(node, h, g)
    s = q.shape[1]
    places = written_at(node, s)
    if node.attr("do_rotary", 0):
        q, k = group_rotary(node, (q, k), (h, g), places)
    keys, values = present = [fixed_cache(node, new, node.optional(i), places, g) for new, i in ((k, 3), (v, 4))]
    a = Heads(q, keys, values, h, g, scale_of(node, size_of_head(node, q, h)), float(node.attr("softcap", 0.0)))
    a.lengths = binary(node, Binary.ADD, places, number(node, s))
    a.mask, a.short_mask = node.optional(10), True
    a.right = 0 if node.attr("causal", 1) else -1
    window = int(node.attr("local_window_size", -1))
    a.left = window - 1 if window > 0 else -1  # counts the query's own key
    a.sinks = node.optional(11)
    if a.sinks is None and node.attr("smooth_softmax", 0) > 0:
        a.sinks = node.constant(np.zeros(h, np.float32))
    node.floats(a.mask, a.sinks)
    return [emit_attention(node, a), *present]


def group_projections(node: Node, h: int, g: int) -> list[Tensor]:
    """q [b, s, h*d], k and v [b, s, g*d], normalized head by head where the node says so."""
    q, k, v = node.get(0), node.optional(1), node.optional(2)
    node.floats(q, k, v)
    if h < 1 or g < 1 or h % g or q.rank != 3:
        raise node.fail(f"{h} query heads and {g} key heads for {show(q.shape)}")
    if k is None and v is None:
        (width,) = widths(node, q)
        size = width // (h + 2 * g)
        q, k, v = parts(node, q, [h * size, g * size, g * size])
    if k is None or v is None or k.rank != 3 or v.rank != 3:
        raise node.fail("query, key and value are not of a form that GroupQueryAttention has")
    if any(w % n for w, n in zip(widths(node, q, k, v), (h, g, g), strict=True)):
        raise node.fail(f"{h} query heads and {g} key heads for {show(q.shape)} and {show(k.shape)}")
    norms = [(q, h, node.optional(14), "q_norm_epsilon"), (k, g, node.optional(15), "k_norm_epsilon")]
    return [*(head_norm(node, *each) for each in norms), v]


def head_norm(node: Node, x: Tensor, heads: int, weight: Tensor | None, epsilon: str) -> Tensor:
    if weight is None:
        return x
    b, s, width = x.shape
    eps = float(np.float32(node.attr(epsilon, node.attr("qk_norm_epsilon", 1e-6))))
    split = node.alias(x, (b, s, heads, dims.floordiv(width, heads)))
    return node.alias(normalized(node, split, 3, weight, None, eps, False), x.shape)


def written_at(node: Node, s: Dim) -> Tensor:
    """Where each row's new tokens start, int64 [b]: max(0, seqlens_k + 1 - s), as short rows of a prompt are padded behind."""
    lengths = cast(node, node.get(5), DType.INT64)
    lengths = node.alias(lengths, (node.get(0).shape[0],))
    start = binary(node, Binary.SUB, lengths, number(node, dims.add(s, -1)))
    return binary(node, Binary.MAX, start, node.constant(np.zeros(1, np.int64)))


def group_rotary(node: Node, qk: Sequence[Tensor], heads: Sequence[int], places: Tensor) -> list[Tensor]:
    cos, sin, ids = node.get(7), node.get(8), node.optional(9)
    node.floats(cos, sin)
    b, s = qk[0].shape[:2]
    if ids is None:
        ids = binary(node, Binary.ADD, node.alias(places, (b, 1)), counting(node, s))
    ids = expanded(node, cast(node, ids, DType.INT64), (b, s))
    interleaved = int(node.attr("rotary_interleaved", 0))
    return [rotary(node, x, (cos, sin), ids, n, interleaved) for x, n in zip(qk, heads, strict=True)]


def fixed_cache(node: Node, new: Tensor, past: Tensor | None, places: Tensor, g: int) -> Tensor:
    """The cache, of max(its length, total_sequence_length) tokens, with the new ones written at `places`."""
    update = split_heads(node, new, g)
    if past is None:
        return update
    if past.rank != 4 or past.shape[1] != g:
        raise node.fail(f"a cache of shape {show(past.shape)}")
    (total,) = node.sizes(6, "total_sequence_length")
    more = dims.sub0(total, past.shape[2])
    if more != 0:
        zero = node.constant(np.zeros(1, np.float32))
        rest = node.emit(Op.FILL, [zero], DType.FLOAT, (*past.shape[:2], more, past.shape[3]))
        past = concatenated(node, [past, rest], 2)
    return node.emit(Op.TENSOR_SCATTER, [past, update, places], DType.FLOAT, past.shape, 2, 0)
