"""Handlers of attention and of what decoders keep from token to token: caches, rotary positions, recurrent states.

Shapes: b batch, s new tokens, p cached tokens, t = p + s keys, h query heads, g key heads, d size of a query or key head, e of a
value head.  Attention over whole sequences is an ATTENTION step; a cache, a window, a short mask or four axes make it an
ATTENTION_CACHE; only who asks for the scores themselves gets them spelled out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from . import dims
from .dims import Dim
from .ir import NARROW, NUMPY, Binary, DType, Op, Reduce, Step, Tensor, Unary
from .kept_caches import DOMAIN
from .lower import Node, op, show
from .math_ops import binary, unary

FROM_START = 2  # the attribute `causal` of ATTENTION: query i sees keys 0..i


# ---- shapes ----
def split_heads(node: Node, x: Tensor, heads: int) -> Tensor:
    """[b, s, h*d] -> [b, h, s, d]."""
    b, s, width = x.shape
    size = dims.floordiv(width, heads)
    view = node.alias(x, (b, s, heads, size))
    return transposed(node, view, (0, 2, 1, 3))


def join_heads(node: Node, x: Tensor) -> Tensor:
    """[b, h, s, d] -> [b, s, h*d]."""
    b, h, s, d = x.shape
    return node.alias(transposed(node, x, (0, 2, 1, 3)), (b, s, dims.mul(h, d)))


def transposed(node: Node, x: Tensor, perm: Sequence[int]) -> Tensor:
    """x with its axes in the order of perm; a view when only axes of length 1 move."""
    shape = [x.shape[p] for p in perm]
    moving = [p for p in perm if x.shape[p] != 1]
    return node.alias(x, shape) if moving == sorted(moving) else node.emit(Op.TRANSPOSE, [x], x.dtype, shape, *perm)


def concatenated(node: Node, parts: Sequence[Tensor], axis: int) -> Tensor:
    shape = list(parts[0].shape)
    shape[axis] = sum((p.shape[axis] for p in parts[1:]), parts[0].shape[axis])
    return node.emit(Op.CONCAT, list(parts), parts[0].dtype, shape, axis)


def cut(node: Node, x: Tensor, axis: int, start: Dim, size: Dim) -> Tensor:
    """`size` elements of an axis, from `start` on."""
    shape: list[Dim] = list(x.shape)
    attrs: list[Dim] = [v for _ in x.shape for v in (0, 1)]
    shape[axis], attrs[2 * axis] = size, start
    return node.emit(Op.SLICE, [x], x.dtype, shape, *attrs)


def expanded(node: Node, x: Tensor, shape: Sequence[Dim]) -> Tensor:
    return x if x.shape == tuple(shape) else node.emit(Op.EXPAND, [x], x.dtype, shape)


def cast(node: Node, x: Tensor, dtype: int) -> Tensor:
    if x.dtype == dtype:
        return x
    return node.constant(x.const.astype(NUMPY[dtype])) if x.const is not None else node.emit(Op.CAST, [x], dtype, x.shape)


def counting(node: Node, n: Dim, start: Dim = 0) -> Tensor:
    """start, start + 1, ...: int64 [n]."""
    return node.emit(Op.RANGE, [], DType.INT64, [n], start, 1)


def number(node: Node, value: Dim) -> Tensor:
    """A dim as an int64 [1]."""
    if isinstance(value, int):
        return node.constant(np.array([value], np.int64))
    return node.emit(Op.DIMS, [], DType.INT64, [1], value)


def constant_like(node: Node, x: Tensor, value: float) -> Tensor:
    return node.constant(np.array(value, NUMPY[x.dtype]))


# ---- attention ----
@dataclass
class Heads:
    """What an attention reads: q, k, v each [b, tokens, heads * size] or [b, heads, tokens, size]."""

    q: Tensor
    k: Tensor
    v: Tensor
    h: int
    g: int
    scale: float
    softcap: float = 0.0
    mask: Tensor | None = None
    short_mask: bool = False  # the mask may cover fewer keys than there are
    offset: Dim = 0  # query i stands at position offset + i, or, with lengths [b], at lengths - s + i
    lengths: Tensor | None = None
    left: int = -1
    right: int = -1
    sinks: Tensor | None = None  # [h]: one more score of each row, whose weight goes nowhere

    @property
    def four(self) -> bool:
        return self.q.rank == 4

    @property
    def queries(self) -> Dim:
        return self.q.shape[2 if self.four else 1]

    @property
    def keys(self) -> Dim:
        return self.k.shape[2 if self.k.rank == 4 else 1]

    def result(self) -> tuple[Dim, ...]:
        """The shape of the output, which is laid out as q is."""
        e = self.v.shape[3] if self.v.rank == 4 else dims.floordiv(self.v.shape[2], self.g)
        if self.four:
            return (self.q.shape[0], self.h, self.queries, e)
        return (self.q.shape[0], self.queries, dims.mul(e, self.h))


def emit_attention(node: Node, a: Heads) -> Tensor:
    """One step: ATTENTION where it can say it, else ATTENTION_CACHE."""
    simple = not a.four and a.k.rank == a.v.rank == 3 and a.lengths is None and a.left < 0 and a.right <= 0
    simple = simple and (a.right < 0 or a.offset == 0) and a.sinks is None
    if a.mask is not None:
        last = a.mask.shape[-1] if a.mask.rank else 1
        simple = simple and (last in (a.keys, 1) if not a.short_mask else last == a.keys)
    if simple:
        causal = FROM_START if a.right == 0 else 0
        attrs = (a.h, a.g, a.scale, causal, a.softcap, 0)
        return node.emit(Op.ATTENTION, [a.q, a.k, a.v, a.mask], DType.FLOAT, a.result(), *attrs)
    inputs = [a.q, a.k, a.v, a.mask, a.lengths, a.sinks]
    attrs = (a.h, a.g, a.scale, a.softcap, a.offset, a.left, a.right, int(a.short_mask))  # type: ignore[assignment]
    return node.emit(Op.ATTENTION_CACHE, inputs, DType.FLOAT, a.result(), *attrs)


def spelled_out(node: Node, a: Heads, mode: int) -> tuple[Tensor, Tensor]:
    """(y, scores [b, h, s, t]) with the scores of qk_matmul_output_mode 0 to 3."""
    q, k, v = (x if x.rank == 4 else split_heads(node, x, n) for x, n in ((a.q, a.h), (a.k, a.g), (a.v, a.g)))
    b, _, s, d = q.shape
    t, e, shared = k.shape[2], v.shape[3], a.h // a.g
    grouped = node.alias(q, (b, a.g, shared, s, d))
    keys, values = node.alias(k, (b, a.g, 1, t, k.shape[3])), node.alias(v, (b, a.g, 1, t, e))
    product = node.emit(Op.MATMUL, [grouped, keys], q.dtype, (b, a.g, shared, s, t), 1, a.scale)
    stages = [node.alias(product, (b, a.h, s, t))]
    stages.append(stages[0] if not a.softcap else soft_capped(node, stages[0], a.softcap))
    stages.append(masked(node, a, stages[1]))
    top = node.emit(Op.REDUCE, [stages[2]], q.dtype, (b, a.h, s, 1), int(Reduce.MAX), 1 << 3)
    unseen = binary(node, Binary.EQUAL, top, constant_like(node, top, -np.inf))
    soft = node.emit(Op.SOFTMAX, [stages[2]], q.dtype, (b, a.h, s, t), 3, 0)
    stages.append(node.emit(Op.WHERE, [unseen, constant_like(node, soft, 0), soft], q.dtype, soft.shape))
    weights = node.alias(stages[3], (b, a.g, shared, s, t))
    mixed = node.alias(node.emit(Op.MATMUL, [weights, values], q.dtype, (b, a.g, shared, s, e), 0, 1.0), (b, a.h, s, e))
    return (mixed if a.four else join_heads(node, mixed)), stages[mode]


def soft_capped(node: Node, x: Tensor, cap: float) -> Tensor:
    """cap tanh(x / cap)."""
    inner = unary(node, binary(node, Binary.DIV, x, constant_like(node, x, cap)), Unary.TANH)
    return binary(node, Binary.MUL, inner, constant_like(node, x, cap))


def masked(node: Node, a: Heads, x: Tensor) -> Tensor:
    """Scores [b, h, s, t] with the mask added and -inf where a query may not look."""
    hidden = constant_like(node, x, -np.inf)
    if a.mask is not None:
        mask = whole_mask(node, a, a.mask)
        if mask.dtype == DType.BOOL:
            x = node.emit(Op.WHERE, [mask, x, hidden], x.dtype, x.shape)
        else:
            x = binary(node, Binary.ADD, x, mask)
    key = counting(node, a.keys)
    place: Tensor = node.alias(counting(node, a.queries, a.offset), (a.queries, 1))
    rules: list[tuple[Binary, Tensor, Tensor]] = []
    if a.lengths is not None:
        lengths = node.alias(a.lengths, (a.q.shape[0], 1, 1, 1))
        rules.append((Binary.LESS, key, lengths))
        place = binary(node, Binary.SUB, binary(node, Binary.ADD, place, lengths), number(node, a.queries))
    if a.right >= 0:
        rules.append((Binary.LESS_EQUAL, key, binary(node, Binary.ADD, place, number(node, a.right))))
    if a.left >= 0:
        rules.append((Binary.GREATER_EQUAL, key, binary(node, Binary.SUB, place, number(node, a.left))))
    for kind, left, right in rules:
        x = node.emit(Op.WHERE, [binary(node, kind, left, right), x, hidden], x.dtype, x.shape)
    return x


def whole_mask(node: Node, a: Heads, mask: Tensor) -> Tensor:
    """A mask that may be short, extended to all keys by what hides them."""
    if not a.short_mask or not mask.rank or mask.shape[-1] == a.keys:
        return mask
    fill = node.constant(np.array([False if mask.dtype == DType.BOOL else -np.inf], NUMPY[mask.dtype]))
    rest = node.emit(Op.FILL, [fill], mask.dtype, (*mask.shape[:-1], dims.sub0(a.keys, mask.shape[-1])))
    padded = concatenated(node, [mask, rest], mask.rank - 1)
    padded.shape = (*mask.shape[:-1], a.keys)
    return padded


def check_mask(node: Node, mask: Tensor | None, keys: Dim, short: bool) -> None:
    if mask is None:
        return
    if mask.dtype not in (DType.BOOL, DType.FLOAT):
        raise node.unsupported(f"an attention mask of type {DType(mask.dtype).name.lower()}")
    last = mask.shape[-1] if mask.rank else 1
    if mask.rank > 4:
        raise node.fail(f"a mask of {mask.rank} axes")
    if isinstance(last, int) and isinstance(keys, int) and last not in (1, keys) and not (short and last < keys):
        raise node.unsupported(f"a mask over {last} of {keys} keys")


def head_counts(node: Node, q: Tensor, k: Tensor, v: Tensor, names: tuple[str, str]) -> tuple[int, int]:
    """(query heads, key heads) of q, k, v, after checking their shapes."""
    if not q.rank == k.rank == v.rank or q.rank not in (3, 4):
        raise node.fail(f"q, k, v are {show(q.shape)}, {show(k.shape)}, {show(v.shape)}")
    heads, kv_heads = (q.shape[1], k.shape[1]) if q.rank == 4 else (node.attr(names[0]), node.attr(names[1]))
    if not isinstance(heads, int) or not isinstance(kv_heads, int) or heads < 1 or kv_heads < 1 or heads % kv_heads:
        raise node.fail(f"{heads} query heads and {kv_heads} key heads")
    for x, count in ((q, heads), (k, kv_heads), (v, kv_heads)):
        if x.rank == 3 and (not isinstance(x.shape[2], int) or x.shape[2] % count):
            raise node.unsupported(f"the width of '{x.name}' ({x.shape[2]}) is not a fixed multiple of its {count} heads")
    return heads, kv_heads


def size_of_head(node: Node, q: Tensor, heads: int) -> int:
    size = q.shape[-1] if q.rank == 4 else dims.floordiv(q.shape[2], heads)
    if not isinstance(size, int):
        raise node.unsupported(f"the head size {size} is not fixed")
    return size


def grown(node: Node, x: Tensor, past: Tensor | None, heads: int) -> Tensor:
    """The cache [b, g, t, d] after x, [b, s, g*d] or [b, g, s, d], was appended to it."""
    new = x if x.rank == 4 else split_heads(node, x, heads)
    if past is None:
        return new
    if past.rank != 4 or past.dtype != x.dtype:
        raise node.fail(f"the cache '{past.name}' is {show(past.shape)}, not [batch, heads, tokens, size] of the keys' type")
    return concatenated(node, [past, new], 2)


@op("Attention")
def attention(node: Node) -> list[Tensor]:
    q, k, v, mask = node.get(0), node.get(1), node.get(2), node.optional(3)
    past_k, past_v, lengths = node.optional(4), node.optional(5), node.optional(6)
    node.floats(q, k, v)
    if (past_k is None) != (past_v is None) or (past_k is not None and lengths is not None):
        raise node.fail("past_key and past_value belong together, and exclude nonpad_kv_seqlen")
    h, g = head_counts(node, q, k, v, ("q_num_heads", "kv_num_heads"))
    given = node.attr("scale")
    scale = float(np.float32(1.0 / sqrt(size_of_head(node, q, h)) if given is None else given))
    left, right = (int(node.attr(f"{side}_window_size", -1)) for side in ("left", "right"))
    if left < -1 or right < -1:
        raise node.fail(f"a window of {left} to {right}")
    right = 0 if node.attr("is_causal", 0) else right
    wants = [i < len(node.proto.output) and bool(node.proto.output[i]) for i in range(4)]
    present = [k, v]
    if past_k is not None or wants[1] or wants[2]:
        present = [grown(node, k, past_k, g), grown(node, v, past_v, g)]
    keys, values = present if past_k is not None else (k, v)
    a = Heads(q, keys, values, h, g, scale, float(node.attr("softcap", 0.0)), mask, node.opset >= 24, left=left, right=right)
    a.offset = past_k.shape[2] if past_k is not None else 0
    a.lengths = None if lengths is None else cast(node, lengths, DType.INT64)
    check_mask(node, mask, a.keys, a.short_mask)
    if wants[3]:
        mode = node.attr("qk_matmul_output_mode", 0)
        if mode not in (0, 1, 2, 3):
            raise node.fail(f"qk_matmul_output_mode {mode}")
        y, scores = spelled_out(node, a, mode)
        return [y, *present, scores]
    return [emit_attention(node, a), *present]


@op("TensorScatter")
def tensor_scatter(node: Node) -> Tensor:
    past, update, places = node.get(0), node.get(1), node.optional(2)
    axis, mode = node.axis(node.attr("axis", -2), past.rank), node.attr("mode", "linear")
    if axis == 0 or mode not in ("linear", "circular") or past.rank != update.rank:
        raise node.fail(f"axis {axis}, mode '{mode}', {show(update.shape)} into {show(past.shape)}")
    places = None if places is None else cast(node, places, DType.INT64)
    return node.emit(Op.TENSOR_SCATTER, [past, update, places], past.dtype, past.shape, axis, int(mode == "circular"))


@op("KeptAttention", domain=DOMAIN)
def kept_attention(node: Node) -> list[Tensor]:
    """A layer of text generation with its caches (kept_caches.py)."""
    q, k, v = (widened(node, i) for i in range(3))
    places = cast(node, node.get(5), DType.INT64)
    h, g = head_counts(node, q, k, v, ("q_num_heads", "kv_num_heads"))
    window, slopes, given = int(node.attr("window", 0)), node.attr("slopes"), node.attr("scale")
    keys, key_scale = appended(node, node.get(3), k, places, node.optional(6), g, window)
    values, value_scale = appended(node, node.get(4), v, places, node.optional(7), g, window)
    lengths = binary(node, Binary.ADD, places, number(node, q.shape[2 if q.rank == 4 else 1]))
    biases = None if slopes is None else node.constant(np.array(slopes, np.float32))
    scale = float(np.float32(1.0 / sqrt(size_of_head(node, q, h)) if given is None else given))
    y = node.tensor(DType.FLOAT, Heads(q, keys, values, h, g, scale).result())
    inputs = [q, keys, values, None, lengths, None, key_scale, value_scale, biases]
    left = window - 1 if window else -1
    attrs = [h, g, scale, float(node.attr("softcap", 0.0)), 0, left, 0, 1, int(window > 0)]
    node.emit_all(Op.ATTENTION_KEPT, inputs, [y], attrs)
    kind = node.get(0).dtype
    y = node.lowering.narrowed(y, kind if kind in NARROW else None, node)
    return [y, keys, values, *(s for s in (key_scale, value_scale) if s is not None)]


def appended(
    node: Node, past: Tensor, x: Tensor, places: Tensor, scale: Tensor | None, heads: int, window: int
) -> tuple[Tensor, Tensor | None]:
    """A cache and its scales (of int8) after x was written at `places`."""
    present = node.tensor(past.dtype, past.shape)
    after = node.tensor(DType.FLOAT, (0,) if scale is None else scale.shape)
    node.emit_all(Op.CACHE_APPEND, [past, x, places, scale, None, None, None], [present, after], [heads, int(window > 0), 0])
    return present, None if scale is None else after


def widened(node: Node, index: int) -> Tensor:
    """An input in float32."""
    x = node.lowering.widened(node.get(index))
    assert x is not None
    return x


# ---- rotary positions ----
def rotary(node: Node, x: Tensor, tables: Sequence[Tensor], ids: Tensor | None, heads: int, interleaved: int) -> Tensor:
    """x [b, s, h*d] or [b, h, s, d]; tables [positions, r] with ids [b, s] (or broadcast to it), or [b, s, r]."""
    b, s = x.shape[0], x.shape[2 if x.rank == 4 else 1]
    cos, sin = tables
    if ids is not None:
        ids = expanded(node, cast(node, ids, DType.INT64), (b, s))
    else:
        cos, sin = (expanded(node, t, (b, s, t.shape[-1])) for t in (cos, sin))
    return node.emit(Op.ROTARY, [x, cos, sin, ids], x.dtype, x.shape, heads, interleaved)


def check_rotary(node: Node, x: Tensor, cos: Tensor, heads: int, rotated: int) -> None:
    size = x.shape[3] if x.rank == 4 else dims.floordiv(x.shape[2], max(heads, 1))
    half = dims.floordiv(rotated or size, 2)
    if x.rank not in (3, 4) or (x.rank == 3 and heads < 1):
        raise node.fail(f"{show(x.shape)} with {heads} heads")
    if isinstance(half, int) and isinstance(cos.shape[-1], int) and half != cos.shape[-1]:
        raise node.fail(f"tables {show(cos.shape)} for {2 * half} rotated elements of a head of {size}")


@op("RotaryEmbedding")
def rotary_embedding(node: Node) -> Tensor:
    x, cos, sin, ids = node.get(0), node.get(1), node.get(2), node.optional(3)
    node.floats(x, cos, sin)
    heads = int(node.attr("num_heads", 0))
    check_rotary(node, x, cos, heads, int(node.attr("rotary_embedding_dim", 0)))
    return rotary(node, x, (cos, sin), ids, heads if x.rank == 3 else 0, int(node.attr("interleaved", 0)))


# ---- recurrences ----
def emit_all(
    node: Node, code: Op, inputs: list[Tensor | None], shapes: Sequence[Sequence[Dim]], *attrs: int | float
) -> list[Tensor]:
    """A step with two float32 outputs."""
    results = [node.tensor(DType.FLOAT, shape) for shape in shapes]
    operands = [None if t is None else node.lowering.materialize(t) for t in inputs]
    node.graph.steps.append(Step(code, operands, results, list(attrs), node.name))
    return results


@op("LinearAttention")
def linear_attention(node: Node) -> list[Tensor]:
    q, k, v, past, decay, beta = (node.get(i) if i < 3 else node.optional(i) for i in range(6))
    assert q is not None and k is not None and v is not None
    node.floats(q, k, v, past, decay, beta)
    rule = node.attr("update_rule", "gated_delta")
    wanted = {"linear": (0, 0), "gated": (1, 0), "delta": (0, 1), "gated_delta": (1, 1)}.get(rule)
    if wanted != (int(decay is not None), int(beta is not None)):
        raise node.fail(f"update_rule '{rule}' with{'' if decay else 'out'} decay and with{'' if beta else 'out'} beta")
    if q.rank != 3:
        raise node.fail(f"queries {show(q.shape)}")
    h, g = head_counts(node, q, k, v, ("q_num_heads", "kv_num_heads"))
    dk, dv = size_of_head(node, q, h), size_of_head(node, v, g)
    scale = float(np.float32(node.attr("scale", 0.0) or 1.0 / sqrt(dk)))
    shapes = ((*q.shape[:2], h * dv), (q.shape[0], g, dk, dv))
    y, state = emit_all(node, Op.LINEAR_ATTENTION, [q, k, v, past, decay, beta], shapes, h, g, scale)
    if past is None:  # nothing but the queries says what type the state has
        state = cast(node, state, node.lowering.lookup(node.proto.input[0], node).dtype)
    return [y, state]


@op("CausalConvWithState")
def causal_conv(node: Node) -> list[Tensor]:
    x, w, bias, past = node.get(0), node.get(1), node.optional(2), node.optional(3)
    node.floats(x, w, bias, past)
    activations = {"none": Unary.COPY, "silu": Unary.SILU, "swish": Unary.SILU}
    kind = node.attr("activation", "none")
    if x.rank != 3 or w.rank != 3 or w.shape[1] != 1 or kind not in activations:
        raise node.fail(f"{show(x.shape)} with weights {show(w.shape)} and activation '{kind}'")
    shapes = (x.shape, (*x.shape[:2], dims.add(w.shape[2], -1)))
    taps = node.alias(w, (w.shape[0], w.shape[2]))
    return emit_all(node, Op.CAUSAL_CONV, [x, taps, bias, past], shapes, int(activations[kind]))
