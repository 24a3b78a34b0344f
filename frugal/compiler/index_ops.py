"""Handlers of operators that move elements by index, sort, or search."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import dims
from .dims import Dim
from .ir import NUMPY, Binary, DType, Op, Reduce, Shape, Tensor, elements
from .lower import Node, op, show, type_name
from .math_ops import binary
from .shape_ops import Sizes, cut_out, known, late_sizes, length

PAD_MODES = {"constant": 0, "reflect": 1, "edge": 2, "wrap": 3}
REDUCTIONS = {"none": 0, "add": 1, "mul": 2, "max": 3, "min": 4}
HALVES = (DType.FLOAT16, 16)  # float16 and bfloat16: arithmetic on them is done in float32


def cast(node: Node, x: Tensor, dtype: int) -> Tensor:
    return x if x.dtype == dtype else node.emit(Op.CAST, [x], dtype, x.shape)


def indices(node: Node, index: int) -> Tensor:
    """An input of indices, int32 or int64."""
    ids = node.get(index)
    if ids.dtype not in (DType.INT32, DType.INT64):
        raise node.fail(f"indices '{ids.name}' are {type_name(ids.dtype)}, not int32 or int64")
    return ids


def ramp(node: Node, length: Dim, places: int = 0) -> Tensor:
    """0, 1, ..., length - 1 as int64, followed by `places` axes of length 1."""
    return node.alias(node.emit(Op.RANGE, [], DType.INT64, [length], 0, 1), [length, *[1] * places])


# ---- Pad ----
def pads_of(node: Node, rank: int) -> tuple[list[Dim], list[Dim]]:
    """How many elements go before and behind each axis (fewer than 0: are cut off)."""
    if node.opset < 11:
        values: list[Dim] = [int(v) for v in node.attr("pads", [])]
        axes = list(range(rank))
    else:
        values = node.integers(1, "pads")
        axes = node.ints(3, "axes") if node.optional(3) is not None else list(range(rank))
    if len(values) != 2 * len(axes):
        raise node.fail(f"{len(values)} pads for {len(axes)} axes")
    before: list[Dim] = [0] * rank
    behind: list[Dim] = [0] * rank
    for i, a in enumerate(axes):
        before[node.axis(a, rank)], behind[node.axis(a, rank)] = values[i], values[len(axes) + i]
    return before, behind


def cut(node: Node, x: Tensor, before: list[Dim], behind: list[Dim]) -> Tensor:
    """x without the elements that negative pads take away."""
    result, attrs = list(x.shape), list[Any]()
    for a, (low, high) in enumerate(zip(before, behind, strict=True)):
        first = -low if isinstance(low, int) and low < 0 else 0
        last = -high if isinstance(high, int) and high < 0 else 0
        if first or last:
            result[a] = dims.sub0(x.shape[a], first + last)
        attrs += [first, 1]
    return cut_out(node, x, result, attrs)


def padded(node: Node, x: Tensor, before: list[Dim], behind: list[Dim], mode: str, value: Tensor | None) -> Tensor:
    x = cut(node, x, before, behind)
    starts = [0 if isinstance(d, int) and d < 0 else d for d in before]
    ends = [0 if isinstance(d, int) and d < 0 else d for d in behind]
    result = [low + d + high for low, d, high in zip(starts, x.shape, ends, strict=True)]
    if tuple(result) == x.shape:
        return x
    return node.emit(Op.PAD, [x, value if mode == "constant" else None], x.dtype, result, PAD_MODES[mode], *starts)


def late_pad(node: Node, x: Tensor, mode: str, value: Tensor | None) -> Tensor:
    """A pad that the data decides: SIZES gives elements in front, length, first element kept and how many, of every axis."""
    fixed = known(node, 3)
    axes = node.ints(3, "axes") if fixed and node.optional(3) is not None else list(range(x.rank))
    touched = {node.axis(a, x.rank) for a in axes} if fixed else set(range(x.rank))
    length(node, node.get(1), "pads")
    each = late_sizes(node, Sizes.PAD, [node.get(1), None, node.optional(3)], 4 * x.rank, x.shape)
    starts, result, first, kept = (
        [each[4 * a + k] if a in touched else rest for a, rest in enumerate(whole)]
        for k, whole in enumerate(([0] * x.rank, x.shape, [0] * x.rank, x.shape))
    )
    x = node.emit(Op.SLICE, [x], x.dtype, kept, *(v for d in first for v in (d, 1)))
    return node.emit(Op.PAD, [x, value if mode == "constant" else None], x.dtype, result, PAD_MODES[mode], *starts)


@op("Pad")
def pad(node: Node) -> Tensor:
    x, mode = node.get(0), node.attr("mode", "constant")
    if mode not in PAD_MODES:
        raise node.fail(f"mode '{mode}' is not one of {', '.join(PAD_MODES)}")
    if node.opset < 11:
        value: Tensor | None = node.constant(np.array(node.attr("value", 0.0), NUMPY[x.dtype]))
    else:
        value = node.optional(2)
    if value is not None and (value.dtype != x.dtype or value.shape not in ((), (1,))):
        raise node.fail(f"the value '{value.name}' is not one element of the input's data type")
    if node.opset >= 11 and not known(node, 1, 3):
        return late_pad(node, x, mode, value)
    return padded(node, x, *pads_of(node, x.rank), mode, value)


# ---- gathering and scattering ----
@op("GatherElements")
def gather_elements(node: Node) -> Tensor:
    x, ids = node.get(0), indices(node, 1)
    if x.rank != ids.rank:
        raise node.fail(f"indices {show(ids.shape)} for an input {show(x.shape)}")
    return node.emit(Op.GATHER_AT, [x, ids], x.dtype, ids.shape, 0, node.axis(node.attr("axis", 0), x.rank))


def tuple_shape(node: Node, x: Tensor, ids: Tensor, batch: int) -> Shape:
    """The shape that tuples of indices select from x."""
    depth = ids.shape[-1] if ids.rank else 0
    if not isinstance(depth, int):
        raise node.unsupported(f"the last axis of the indices {show(ids.shape)} must be known")
    if not 1 <= depth <= x.rank - batch or not 0 <= batch < min(x.rank, ids.rank):
        raise node.fail(f"indices {show(ids.shape)} for an input {show(x.shape)}, {batch} batch axes")
    return ids.shape[:-1] + x.shape[batch + depth :]


@op("GatherND")
def gather_nd(node: Node) -> Tensor:
    x, ids, batch = node.get(0), indices(node, 1), node.attr("batch_dims", 0)
    return node.emit(Op.GATHER_AT, [x, ids], x.dtype, tuple_shape(node, x, ids, batch), 1, batch)


def scatter(node: Node, x: Tensor, ids: Tensor, updates: Tensor, reduction: str, nd: int, axis: int) -> Tensor:
    if reduction not in REDUCTIONS:
        raise node.fail(f"reduction '{reduction}' is not one of {', '.join(REDUCTIONS)}")
    if updates.dtype != x.dtype:
        raise node.fail(f"'{updates.name}' is {type_name(updates.dtype)}, '{x.name}' is {type_name(x.dtype)}")
    kind = x.dtype
    between = {DType.BOOL: DType.UINT8, **dict.fromkeys(HALVES, DType.FLOAT)}.get(kind, kind) if reduction != "none" else kind
    x, updates = cast(node, x, between), cast(node, updates, between)
    made = node.emit(Op.SCATTER_AT, [x, ids, updates], between, x.shape, nd, axis, REDUCTIONS[reduction])
    return cast(node, made, kind)


@op("ScatterElements", "Scatter")
def scatter_elements(node: Node) -> Tensor:
    x, ids, updates = node.get(0), indices(node, 1), node.get(2)
    if not x.rank == ids.rank == updates.rank:
        raise node.fail(f"indices {show(ids.shape)} and updates {show(updates.shape)} for an input {show(x.shape)}")
    return scatter(node, x, ids, updates, node.attr("reduction", "none"), 0, node.axis(node.attr("axis", 0), x.rank))


@op("ScatterND")
def scatter_nd(node: Node) -> Tensor:
    x, ids, updates = node.get(0), indices(node, 1), node.get(2)
    if len(tuple_shape(node, x, ids, 0)) != updates.rank:
        raise node.fail(f"indices {show(ids.shape)} and updates {show(updates.shape)} for an input {show(x.shape)}")
    return scatter(node, x, ids, updates, node.attr("reduction", "none"), 1, 0)


# ---- TopK ----
@op("TopK")
def topk(node: Node) -> list[Tensor]:
    """Sorted or not: the order is always that of the values, which `sorted = 0` leaves open."""
    x = node.get(0)
    axis = node.axis(node.attr("axis", -1), x.rank)
    (k,) = node.sizes(1, "k") if node.opset >= 10 else [node.attr("k")]
    length = x.shape[axis]
    if isinstance(k, int) and (k < 0 or (isinstance(length, int) and k > length)):
        raise node.fail(f"k is {k} for an axis of {length}")
    shape = [k if a == axis else d for a, d in enumerate(x.shape)]
    values = node.emit(Op.TOPK, [x], x.dtype, shape, axis, int(node.attr("largest", 1)))
    places = node.tensor(DType.INT64, shape)
    node.graph.steps[-1].outputs.append(places)
    return [values, places]


# ---- matrices by their diagonals ----
def diagonal(node: Node, rows: Dim, columns: Dim, shift: Tensor | int, kind: Binary) -> Tensor:
    """bool [rows, columns]: whether row + shift stands in the relation `kind` to the column."""
    offset = node.constant(np.array(shift, np.int64)) if isinstance(shift, int) else node.alias(shift, ())
    return binary(node, kind, binary(node, Binary.ADD, ramp(node, rows, 1), offset), ramp(node, columns))


@op("Trilu")
def trilu(node: Node) -> Tensor:
    """Upper: keep column >= row + k; lower: column <= row + k."""
    x, k = node.get(0), node.optional(1)
    if x.rank < 2:
        raise node.fail(f"the input {show(x.shape)} has no matrices")
    kind = Binary.LESS_EQUAL if node.attr("upper", 1) else Binary.GREATER_EQUAL
    mask = diagonal(node, x.shape[-2], x.shape[-1], 0 if k is None else cast(node, k, DType.INT64), kind)
    zero = node.constant(np.zeros((), NUMPY[x.dtype]))
    return node.emit(Op.WHERE, [mask, x, zero], x.dtype, x.shape)


@op("EyeLike")
def eye_like(node: Node) -> Tensor:
    x = node.get(0)
    if x.rank != 2:
        raise node.fail(f"the input {show(x.shape)} is no matrix")
    dtype = node.attr("dtype", x.dtype)
    if dtype not in NUMPY:
        raise node.unsupported(f"data type {dtype} (of TensorProto.DataType)")
    return cast(node, diagonal(node, x.shape[0], x.shape[1], int(node.attr("k", 0)), Binary.EQUAL), dtype)


# ---- sizes that the data decides ----
def true_places(node: Node, mask: Tensor) -> tuple[Tensor, Dim]:
    """(int64 [rank, n], n): where a bool tensor is true, in row-major order; a scalar counts as one element."""
    mask = node.alias(mask, mask.shape or (1,))
    ones = cast(node, mask, DType.INT64)
    every = (1 << mask.rank) - 1
    total = node.emit(Op.REDUCE, [ones], DType.INT64, [1] * mask.rank, int(Reduce.SUM), every)
    count = node.late(node.alias(total, (1,)))
    return node.emit(Op.NONZERO, [mask], DType.INT64, [mask.rank, count]), count


@op("NonZero")
def nonzero(node: Node) -> Tensor:
    return true_places(node, cast(node, node.get(0), DType.BOOL))[0]


@op("Compress")
def compress(node: Node) -> Tensor:
    """The slices whose condition is true; a condition shorter than the axis leaves the rest out."""
    x, condition, axis = node.get(0), node.get(1), node.attr("axis")
    if condition.dtype != DType.BOOL or condition.rank != 1:
        raise node.fail(f"the condition '{condition.name}' {show(condition.shape)} is no list of bool")
    if axis is None:
        x, axis = node.alias(x, [elements(x.shape)]), 0
    axis = node.axis(axis, x.rank)
    places, count = true_places(node, condition)
    ids = node.alias(places, [count])
    return node.emit(Op.GATHER, [x, ids], x.dtype, [*x.shape[:axis], count, *x.shape[axis + 1 :]], axis)


@op("Unique")
def unique(node: Node) -> list[Tensor]:
    x, axis = node.get(0), node.attr("axis")
    if axis is None:
        x, axis = node.alias(x, [elements(x.shape)]), 0
    axis = node.axis(axis, x.rank)
    m = x.shape[axis]
    found = [node.tensor(DType.INT64, shape) for shape in ([1], [m], [m], [m])]
    node.emit_all(Op.UNIQUE, [x], found, [axis, int(node.attr("sorted", 1))])
    count = node.late(found[0])
    first, counts = (node.emit(Op.SLICE, [found[k]], DType.INT64, [count], 0, 1) for k in (1, 3))
    values = node.emit(Op.GATHER, [x, first], x.dtype, [*x.shape[:axis], count, *x.shape[axis + 1 :]], axis)
    return [values, first, found[2], counts]


@op("NonMaxSuppression")
def non_max_suppression(node: Node) -> Tensor:
    """Room for the most boxes there can be, cut to those that were kept."""
    boxes, scores, most = node.get(0), node.get(1), node.optional(2)
    node.floats(boxes, scores)
    if boxes.rank != 3 or scores.rank != 3:
        raise node.fail(f"boxes {show(boxes.shape)} and scores {show(scores.shape)}")
    room = scores.shape[2]
    if most is not None and most.const is not None:
        room = dims.minimum(room, max(int(most.const.reshape(-1)[0]), 0))
    total = elements((scores.shape[0], scores.shape[1], room)) if most is not None else 0
    kept, count = node.tensor(DType.INT64, [total, 3]), node.tensor(DType.INT64, [1])
    operands = [boxes, scores, most, node.optional(3), node.optional(4)]
    node.emit_all(Op.NMS, operands, [kept, count], [int(node.attr("center_point_box", 0))])
    return node.emit(Op.SLICE, [kept], DType.INT64, [node.late(count), 3], 0, 1, 0, 1)


# ---- OneHot, ReverseSequence, Hardmax ----
@op("OneHot")
def one_hot(node: Node) -> Tensor:
    """values[1] where the index, counted from the end when negative, is the place along the new axis; else values[0]."""
    ids, values = node.get(0), node.get(2)
    axis = node.axis(node.attr("axis", -1), ids.rank + 1)
    if node.lowering.symbols(node.get(1)) is None:
        depth = node.late(node.alias(cast(node, node.get(1), DType.INT64), (1,)))
    elif isinstance(known_depth := node.lowering.late(node.get(1), 0), int) and known_depth < 1:
        raise node.fail(f"the depth is {known_depth}")
    else:
        depth = known_depth
    ids = cast(node, ids, DType.INT64)
    shape = (*ids.shape[:axis], depth, *ids.shape[axis:])
    places = ramp(node, depth, ids.rank - axis)
    flat = node.alias(ids, (*ids.shape[:axis], 1, *ids.shape[axis:]))
    length = node.emit(Op.DIMS, [], DType.INT64, [], depth)
    zero = node.constant(np.array(0, np.int64))
    shifted = node.emit(
        Op.WHERE,
        [binary(node, Binary.LESS, flat, zero), binary(node, Binary.ADD, flat, length), flat],
        DType.INT64,
        flat.shape,
    )
    hit = binary(node, Binary.EQUAL, shifted, places)
    off, on = (node.alias(node.emit(Op.SLICE, [values], values.dtype, [1], k, 1), ()) for k in (0, 1))
    return node.emit(Op.WHERE, [hit, on, off], values.dtype, shape)


@op("ReverseSequence")
def reverse_sequence(node: Node) -> Tensor:
    """Row i is read backward up to its length, forward behind it."""
    x, lengths = node.get(0), cast(node, node.get(1), DType.INT64)
    time, batch = node.axis(node.attr("time_axis", 0), x.rank), node.axis(node.attr("batch_axis", 1), x.rank)
    if {time, batch} != {0, 1}:
        raise node.fail(f"time axis {time} and batch axis {batch} are not 0 and 1")
    n, t = x.shape[batch], x.shape[time]
    column = node.alias(lengths, (n, 1))
    forward = ramp(node, t)
    one = node.constant(np.array(1, np.int64))
    back = binary(node, Binary.SUB, binary(node, Binary.SUB, column, one), forward)
    early = binary(node, Binary.LESS, forward, column)
    where = node.emit(Op.WHERE, [early, back, forward], DType.INT64, (n, t))
    if batch == 1:
        where = node.emit(Op.TRANSPOSE, [where], DType.INT64, (t, n), 1, 0)
    ids = node.alias(where, (*where.shape, *[1] * (x.rank - 2)))
    ids = ids if x.rank == 2 else node.emit(Op.EXPAND, [ids], DType.INT64, x.shape)
    return node.emit(Op.GATHER_AT, [x, ids], x.dtype, x.shape, 0, time)


@op("Hardmax")
def hardmax(node: Node) -> Tensor:
    """1 at the first largest element along the axis, 0 elsewhere."""
    x = node.get(0)
    axis = node.axis(node.attr("axis", -1 if node.opset >= 13 else 1), x.rank)
    flat = x if node.opset >= 13 else node.alias(x, [elements(x.shape[:axis]), elements(x.shape[axis:])])
    along = axis if node.opset >= 13 else 1
    kept = [1 if a == along else d for a, d in enumerate(flat.shape)]
    best = node.emit(Op.ARG, [flat], DType.INT64, kept, along, 0, 0)
    hit = binary(node, Binary.EQUAL, best, ramp(node, flat.shape[along], flat.rank - 1 - along))
    return node.alias(cast(node, hit, x.dtype), x.shape)
