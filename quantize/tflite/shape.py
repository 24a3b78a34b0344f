"""What moves data: reshape, transpose, concatenate, split, slice, gather, pad, resize, and the operators on shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from frugal.errors import InvalidModel, UnsupportedOperator

from .conv import want_rank
from .converter import Op, Perm, channels_first, checked_axis, identity, inverse, op
from .reader import Tensor

FAR = 2**31 - 1  # "to the end" for Slice


@op("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
def reshape(o: Op) -> None:
    """The same elements in another shape. An order of axes that only moved axes of size 1 needs no Transpose first."""
    x, y = o.input(0), o.output()
    raw = o.moving([x], [y])
    value = o.get(x, o.same_order(x), raw)
    shape = list(y.shape)
    if o.kind == "RESHAPE" and o.has(1) and o.c.value(o.input(1)) is None:
        o.set(y, o.node("Reshape", [value, o.int64(1)], main=True), identity(y.rank), raw)
        return
    if o.kind == "RESHAPE" and o.has(1):
        shape = o.const_ints(1, "the new shape")
    elif sum(d < 0 for d in shape) > 1:
        squeeze_unknown(o, x, y, raw)
        return
    if len(shape) != y.rank:
        raise InvalidModel(f"new shape {shape} does not fit the output's {list(y.shape)}")
    zeros = {"allowzero": 1} if 0 in shape else {}
    o.set(y, o.node("Reshape", [value, o.c.ints(shape)], main=True, **zeros), identity(y.rank), raw)


def squeeze_unknown(o: Op, x: Tensor, y: Tensor, raw: bool) -> None:
    """SQUEEZE and EXPAND_DIMS of a tensor with several unknown dims."""
    value = o.get(x, identity(x.rank), raw)
    if o.kind == "EXPAND_DIMS":
        axes = [checked_axis(o.const_ints(1, "the axis")[0], x.rank + 1)]
        made = o.node("Unsqueeze", [value, o.c.ints(axes)], main=True)
    elif o.kind == "SQUEEZE":
        axes = [checked_axis(a, x.rank) for a in o.option("SqueezeOptions", "SqueezeDims", [])]
        axes = axes or [i for i, d in enumerate(x.shape) if d == 1]
        made = o.node("Squeeze", [value, o.c.ints(axes)], main=True)
    else:
        raise UnsupportedOperator(f"the new shape is not known: {list(y.shape)}")
    o.set(y, made, identity(y.rank), raw)


@op("TRANSPOSE")
def transpose(o: Op) -> None:
    """No node: the output is the input in another order of axes; a Transpose appears where a reader wants it (rule 1)."""
    x, y = o.input(0), o.output()
    order = tuple(checked_axis(a, x.rank) for a in o.const_ints(1, "the permutation"))
    if sorted(order) != list(range(x.rank)) or y.rank != x.rank:
        raise InvalidModel(f"{order} is no permutation of {x.rank} axes")
    if not o.moving([x], [y]):
        back = inverse(order)
        perm = o.pick(x)
        o.c.put_real(y, o.c.real(x, perm), tuple(back[a] for a in perm))
        return
    value = o.c.value(x)
    if value is not None:
        o.c.values[y.index] = value.transpose(order)
        return
    back = inverse(order)
    known = {tuple(back[a] for a in p): o.c.raw(x, p) for p in o.c.perms(x) or [identity(x.rank)]}
    first, *others = known.items()
    o.c.put(y, first[1], first[0])
    for perm, name in others:
        o.c.forms[y.index][perm, False] = name


@op("CONCATENATION")
def concatenation(o: Op) -> None:
    """Along one axis; inputs of other scales are requantized through reals."""
    tensors, y = [o.input(i) for i in range(len(o.operator.inputs))], o.output()
    if not tensors:
        raise InvalidModel("no input")
    for t in tensors:
        want_rank(t, y.rank)
    axis = checked_axis(o.option("ConcatenationOptions", "Axis", 0), y.rank)
    activation = o.activation("ConcatenationOptions")
    raw = o.moving(tensors, [y]) and activation == "NONE"
    perm = o.pick(*tensors)
    value = o.node("Concat", [o.get(t, perm, raw) for t in tensors], main=True, axis=perm.index(axis))
    if raw:
        o.c.put(y, value, perm)
    else:
        o.c.put_real(y, value, perm, activation)


@op("SPLIT", "SPLIT_V")
def split(o: Op) -> None:
    """Into equal parts (axis first, value second), or parts of given sizes (value, sizes, axis)."""
    even = o.kind == "SPLIT"
    x, axis_input = (o.input(1), 0) if even else (o.input(0), 2)
    count = len(o.operator.outputs)
    outputs = [o.output(i) for i in range(count)]
    axis = checked_axis(o.const_ints(axis_input, "the axis")[0], x.rank)
    if x.shape[axis] < 0 and not even:
        raise UnsupportedOperator(f"axis {axis} of {x} has unknown size")
    sizes = [x.shape[axis] // count] * count if even else o.const_ints(1, "the sizes")
    if -1 in sizes:
        sizes[sizes.index(-1)] = x.shape[axis] - sum(sizes) - 1
    if len(sizes) != count or (x.shape[axis] >= 0 and (sum(sizes) != x.shape[axis] or min(sizes) < 0)):
        raise InvalidModel(f"parts of {sizes} do not make {x.shape[axis]}, or are not {count}")
    raw, perm = o.moving([x], outputs), o.pick(x)
    inputs, attributes = [o.get(x, perm, raw)], {"axis": perm.index(axis)}
    if even:
        attributes["num_outputs"] = count
    else:
        inputs.append(o.c.ints(sizes))
    for t, value in zip(outputs, o.nodes("Split", inputs, main=True, outputs=count, **attributes), strict=True):
        o.set(t, value, perm, raw)


@op("PACK")
def pack(o: Op) -> None:
    """Stack along a new axis."""
    tensors, y = [o.input(i) for i in range(len(o.operator.inputs))], o.output()
    if not tensors:
        raise InvalidModel("no input")
    axis = checked_axis(o.option("PackOptions", "Axis", 0), y.rank)
    raw = o.moving(tensors, [y])
    axes = o.c.ints([axis])
    parts = [o.node("Unsqueeze", [o.get(t, identity(t.rank), raw), axes]) for t in tensors]
    o.set(y, o.node("Concat", parts, main=True, axis=axis), identity(y.rank), raw)


@op("UNPACK")
def unpack(o: Op) -> None:
    """Cut along an axis, which goes."""
    x, count = o.input(0), len(o.operator.outputs)
    outputs = [o.output(i) for i in range(count)]
    axis = checked_axis(o.option("UnpackOptions", "Axis", 0), x.rank)
    if x.shape[axis] >= 0 and x.shape[axis] != count:
        raise InvalidModel(f"{count} outputs for {x.shape[axis]} slices")
    raw = o.moving([x], outputs)
    value = o.get(x, identity(x.rank), raw)
    parts = [value] if count == 1 else o.nodes("Split", [value], outputs=count, axis=axis, num_outputs=count)
    for t, part in zip(outputs, parts, strict=True):
        name = o.c.node_name(o.c.names[t.index])
        o.set(t, o.c.graph.node("Squeeze", [part, o.c.ints([axis])], name)[0], identity(t.rank), raw)


@op("SLICE")
def slice_(o: Op) -> None:
    """x[begin : begin + size], size -1: to the end."""
    x, y = o.input(0), o.output()
    raw, perm = o.moving([x], [y]), o.pick(x)
    begin, size = o.c.value(o.input(1)), o.c.value(o.input(2))
    if begin is not None and size is not None:
        starts, sizes = o.const_ints(1, "begin"), o.const_ints(2, "size")
        if len(starts) != x.rank or len(sizes) != x.rank:
            raise InvalidModel(f"begin {starts} and size {sizes} for rank {x.rank}")
        ends = [FAR if n < 0 else b + n for b, n in zip(starts, sizes, strict=True)]
        value = cut(o, o.get(x, perm, raw), perm, starts, ends, [1] * x.rank, x.shape, main=True)
    else:
        perm = identity(x.rank)
        starts_value, sizes_value = o.int64(1), o.int64(2)
        open_ended = o.node("Less", [sizes_value, o.c.scalar(0, np.int64)])
        ends_value = o.node("Add", [starts_value, sizes_value])
        ends_value = o.node("Where", [open_ended, o.c.scalar(FAR, np.int64), ends_value])
        value = o.node("Slice", [o.get(x, perm, raw), starts_value, ends_value], main=True)
    o.set(y, value, perm, raw)


def cut(
    o: Op,
    value: str,
    perm: Perm,
    starts: Sequence[int],
    ends: Sequence[int],
    steps: Sequence[int],
    shape: Sequence[int],
    main: bool = False,
) -> str:
    """Slice along the axes where something is cut off; bounds are by TFLite's axes. No node when nothing is."""
    axes = [
        a for a in range(len(starts)) if steps[a] != 1 or starts[a] != 0 or not (ends[a] == FAR or (0 <= shape[a] <= ends[a]))
    ]
    if not axes:
        return o.node("Identity", [value], main=main) if main else value
    axes.sort(key=perm.index)
    bounds = [o.c.ints([v[a] for a in axes]) for v in (starts, ends)]
    inputs = [value, *bounds, o.c.ints([perm.index(a) for a in axes])]
    if any(steps[a] != 1 for a in axes):
        inputs.append(o.c.ints([steps[a] for a in axes]))
    return o.node("Slice", inputs, main=main)


def expand_masks(o: Op, rank: int, count: int) -> tuple[list[int | None], list[int]]:
    """Which entry of begin/end/strides serves each axis of x (None: none, whole axis), and where new axes go in the output."""
    ellipsis, new_axis = (o.option("StridedSliceOptions", n, 0) for n in ("EllipsisMask", "NewAxisMask"))
    if ellipsis & (ellipsis - 1):
        raise InvalidModel("more than one ellipsis")
    entries: list[int | None] = []
    new: list[int] = []
    real = sum(not (new_axis >> i & 1 or ellipsis >> i & 1) for i in range(count))
    shrink = o.option("StridedSliceOptions", "ShrinkAxisMask", 0)
    place = 0  # in the output
    for i in range(count):
        if ellipsis >> i & 1:
            entries += [None] * (rank - real)
            place += rank - real
        elif new_axis >> i & 1:
            new.append(place)
            place += 1
        else:
            entries.append(i)
            place += not shrink >> i & 1
    entries += [None] * (rank - len(entries))
    if len(entries) != rank:
        raise InvalidModel(f"{count} bounds for rank {rank}")
    return entries, new


@op("STRIDED_SLICE")
def strided_slice(o: Op) -> None:
    """x[begin:end:stride] with numpy's rules, masks for open ends, dropped and new axes."""
    x, y, options = o.input(0), o.output(), "StridedSliceOptions"
    count = o.input(1).shape[0] if o.input(1).rank == 1 else -1
    if not 0 <= count <= 32:
        raise InvalidModel(f"begin has shape {list(o.input(1).shape)}, want a vector")
    entries, new = expand_masks(o, x.rank, count)
    raw = o.moving([x], [y])
    masks = [o.option(options, n, 0) for n in ("BeginMask", "EndMask", "ShrinkAxisMask")]
    offset = o.option(options, "Offset", False)
    shrink = [a for a, i in enumerate(entries) if i is not None and masks[2] >> i & 1]
    strides = o.const_ints(3, "the strides")
    if len(strides) != count or 0 in strides:
        raise InvalidModel(f"strides {strides} for {count} axes")
    steps = [1 if i is None else strides[i] for i in entries]
    known = o.c.value(o.input(1)) is not None and (o.c.value(o.input(2)) is not None or offset)
    changes_rank = bool(shrink or new)
    perm = identity(x.rank) if changes_rank or not known else o.pick(x)
    value = o.get(x, perm, raw)
    if known:
        begin, end = o.const_ints(1, "begin"), o.const_ints(2, "end")
        starts, ends = bounds(begin, end, entries, masks, steps, offset)
        value = cut(o, value, perm, starts, ends, steps, x.shape, main=not changes_rank)
    else:
        value = cut_unknown(o, value, entries, masks, steps, offset, not changes_rank)
    if shrink:
        value = o.node("Squeeze", [value, o.c.ints(shrink)], main=not new)
    if new:
        value = o.node("Unsqueeze", [value, o.c.ints(new)], main=True)
    o.set(y, value, perm if perm != identity(x.rank) else identity(y.rank), raw)


def bounds(
    begin: Sequence[int],
    end: Sequence[int],
    entries: Sequence[int | None],
    masks: Sequence[int],
    steps: Sequence[int],
    offset: bool,
) -> tuple[list[int], list[int]]:
    """Starts and ends for ONNX's Slice, by axis."""
    starts, ends = [], []
    for i, step in zip(entries, steps, strict=True):
        if i is None:
            starts.append(0)
            ends.append(FAR)
            continue
        start = (0 if step > 0 else FAR) if masks[0] >> i & 1 else begin[i]
        stop = (FAR if step > 0 else -FAR) if masks[1] >> i & 1 else begin[i] + end[i] if offset else end[i]
        if masks[2] >> i & 1:
            start = begin[i]
            stop = start + 1 if start != -1 else FAR
        starts.append(start)
        ends.append(stop)
    return starts, ends


def cut_unknown(
    o: Op, value: str, entries: Sequence[int | None], masks: Sequence[int], steps: list[int], offset: bool, main: bool
) -> str:
    """Slice with bounds that are known only at run time: the masks' open ends are put in by Where."""
    axes = [a for a, i in enumerate(entries) if i is not None]
    if [entries[a] for a in axes] != list(range(o.input(1).shape[0])):
        raise UnsupportedOperator("new axes together with bounds that are not constants")
    bits = [entries[a] or 0 for a in axes]
    begin = o.int64(1)
    end = o.node("Add", [begin, o.int64(2)]) if offset else o.int64(2)
    far = o.c.scalar(FAR, np.int64)
    if any(masks[2] >> i & 1 for i in bits):  # a dropped axis: one cell, also when it is the last, -1
        one = o.node("Add", [begin, o.c.scalar(1, np.int64)])
        one = o.node("Where", [o.node("Equal", [one, o.c.scalar(0, np.int64)]), far, one])
        end = o.node("Where", [flags(o, [masks[2] >> i & 1 for i in bits]), one, end])
    limits = [(masks[0], 0, FAR, "begin"), (masks[1] & ~masks[2], FAR, -FAR, "end")]
    made = {"begin": begin, "end": end}
    for mask, up, down, name in limits:
        if any(mask >> i & 1 for i in bits):
            open_end = o.c.ints([up if steps[a] > 0 else down for a in axes])
            made[name] = o.node("Where", [flags(o, [mask >> i & 1 for i in bits]), open_end, made[name]])
    inputs = [value, made["begin"], made["end"], o.c.ints(axes), o.c.ints([steps[a] for a in axes])]
    return o.node("Slice", inputs, main=main)


def flags(o: Op, values: Sequence[int]) -> str:
    """Bool vector constant."""
    a = np.array(values, np.bool_)
    return o.c.constant("const/flags", a, ("flags", *a.tolist()))


@op("GATHER")
def gather(o: Op) -> None:
    """Slices along an axis by indices; the first batch_dims axes of both go together."""
    x, indices, y = o.input(0), o.input(1), o.output()
    axis = checked_axis(o.option("GatherOptions", "Axis", 0), x.rank)
    batch = o.option("GatherOptions", "BatchDims", 0)
    batch += indices.rank if batch < 0 else 0
    raw = o.moving([x], [y])
    if not batch:
        value = o.node("Gather", [o.get(x, identity(x.rank), raw), o.c.raw(indices)], main=True, axis=axis)
        o.set(y, value, identity(y.rank), raw)
        return
    if not 0 <= batch <= min(axis, indices.rank):
        raise InvalidModel(f"batch_dims {batch} for axis {axis} and indices of rank {indices.rank}")
    # GatherND wants the axis right after the batch, gives [batch, indices, rest]; the axes before `axis` then go back in place.
    order = (*range(batch), axis, *(a for a in range(batch, x.rank) if a != axis))
    picks = o.node("Unsqueeze", [o.c.raw(indices), o.c.ints([indices.rank])])
    if indices.dtype != np.int64:
        picks = o.node("Cast", [picks], to=o.c.onnx.TensorProto.INT64)
    value = o.node("GatherND", [o.get(x, order, raw), picks], main=True, batch_dims=batch)
    before, n = axis - batch, indices.rank - batch
    moved = (*range(batch), *range(batch + n, batch + n + before), *range(batch, batch + n), *range(batch + n + before, y.rank))
    o.set(y, value, inverse(moved), raw)


@op("GATHER_ND")
def gather_nd(o: Op) -> None:
    """Slices by index vectors."""
    x, indices, y = o.input(0), o.input(1), o.output()
    raw = o.moving([x], [y])
    o.set(y, o.node("GatherND", [o.get(x, identity(x.rank), raw), o.int64(1)], main=True), identity(y.rank), raw)
    want_rank(y, indices.rank - 1 + x.rank - indices.shape[-1])


@op("PAD", "PADV2")
def pad(o: Op) -> None:
    """With zero (a quantized tensor: its zero point), or with the value given."""
    x, y = o.input(0), o.output()
    raw = o.moving([x], [y], "i1 u1")
    known = o.c.value(o.input(1))
    perm = identity(x.rank) if known is None else o.pick(x)
    if known is None:
        pads = o.node("Transpose", [o.int64(1)], perm=[1, 0])
        pads = o.node("Reshape", [pads, o.c.ints([-1])])
    else:
        pads = o.c.ints(padding(known, x, perm))
    inputs = [o.get(x, perm, raw), pads]
    if o.kind == "PADV2":
        inputs.append(o.get(o.input(2), identity(o.input(2).rank), raw and x.quantized))
        if o.input(2).rank:
            inputs[-1] = o.node(
                "Reshape", [inputs[-1], o.c.constant("const/scalar_shape", np.zeros(0, np.int64), "scalar shape")]
            )
    elif raw and x.quantized:
        inputs.append(o.c.scales(x)[1])
    elif x.dtype != np.float32 and not x.quantized:
        inputs.append(o.c.scalar(0, x.dtype))
    o.set(y, o.node("Pad", inputs, main=True), perm, raw)


def padding(paddings: Any, x: Tensor, perm: Perm) -> list[int]:
    """[rank, 2] -> ONNX's pads: all the beginnings, then all the ends."""
    if paddings.shape != (x.rank, 2) or paddings.dtype.kind not in "iu" or (paddings < 0).any():
        raise InvalidModel(f"paddings of shape {list(paddings.shape)}: want non-negative integers [{x.rank}, 2]")
    return [int(v) for v in paddings[list(perm), 0]] + [int(v) for v in paddings[list(perm), 1]]


@op("MIRROR_PAD")
def mirror_pad(o: Op) -> None:
    """REFLECT leaves the border out, SYMMETRIC repeats it (which ONNX lacks: slices run backwards instead)."""
    x, y = o.input(0), o.output()
    raw, perm = o.moving([x], [y], "i1 u1"), o.pick(x)
    pads = padding(o.const(1, "the paddings"), x, perm)
    value = o.get(x, perm, raw)
    mode = o.option("MirrorPadOptions", "Mode", 0)
    edge = 1 if mode == 0 else 0
    for i, a in enumerate(perm):
        if max(pads[i], pads[i + x.rank]) > x.shape[a] - edge >= 0:
            raise InvalidModel(f"axis {a} of {x} is shorter than its padding")
    if mode == 0:
        o.set(y, o.node("Pad", [value, o.c.ints(pads)], main=True, mode="reflect"), perm, raw)
        return
    for i in range(x.rank):
        before, after = pads[i], pads[i + x.rank]
        parts = [value]
        if before:
            parts.insert(0, o.node("Slice", [value, *(o.c.ints([v]) for v in (before - 1, -FAR, i, -1))]))
        if after:
            parts.append(o.node("Slice", [value, *(o.c.ints([v]) for v in (-1, -after - 1, i, -1))]))
        value = o.node("Concat", parts, axis=i) if len(parts) > 1 else value
    o.set(y, o.node("Identity", [value], main=True), perm, raw)


@op("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
def resize(o: Op) -> None:
    """x [N, H, W, C] to size [2]. Nearest takes floor(cell * scale), with half-pixel centers floor((cell + 1/2) scale)."""
    x, y = o.input(0), o.output()
    for t in (x, y):
        want_rank(t, 4)
    linear = o.kind == "RESIZE_BILINEAR"
    options = "ResizeBilinearOptions" if linear else "ResizeNearestNeighborOptions"
    corners, half = (bool(o.option(options, n, False)) for n in ("AlignCorners", "HalfPixelCenters"))
    raw = not linear and o.moving([x], [y], "i1 u1")
    first = channels_first(4)
    attributes: dict[str, Any] = {"mode": "linear" if linear else "nearest"}
    attributes["coordinate_transformation_mode"] = "align_corners" if corners else "half_pixel" if half else "asymmetric"
    if not linear:
        attributes["nearest_mode"] = "round_prefer_ceil" if corners or half else "floor"
    known = o.c.value(o.input(1))
    if known is not None and min(x.shape) >= 0:
        height, width = o.const_ints(1, "the size")
        sizes = o.c.ints([x.shape[0], x.shape[3], height, width])
    else:
        sizes, attributes["axes"] = o.int64(1), [2, 3]
    o.set(y, o.node("Resize", [o.get(x, first, raw), "", "", sizes], main=True, **attributes), first, raw)


@op("SHAPE")
def shape(o: Op) -> None:
    """Known shapes are constants."""
    x, y = o.input(0), o.output()
    if min(x.shape, default=0) >= 0 and y.dtype is not None:
        o.c.values[y.index] = np.array(x.shape, y.dtype)
        return
    perm = o.pick(x)
    value = o.node("Shape", [o.c.raw(x, perm)], main=True)
    if perm != identity(x.rank):
        value = o.node("Gather", [value, o.c.ints(inverse(perm))])
    if y.dtype != np.int64:
        value = o.node("Cast", [value], to=o.c.elem(y))
    o.c.put(y, value)


@op("RANK")
def rank(o: Op) -> None:
    """A constant."""
    o.c.values[o.output().index] = np.array(o.input(0).rank, np.int32)


@op("FILL", "BROADCAST_TO")
def expand(o: Op) -> None:
    """A value, or a tensor, repeated to a shape."""
    i, shape_input = (1, 0) if o.kind == "FILL" else (0, 1)
    x, y = o.input(i), o.output()
    raw = o.moving([x], [y], "i1 u1")
    o.set(y, o.node("Expand", [o.get(x, identity(x.rank), raw), o.int64(shape_input)], main=True), identity(y.rank), raw)


@op("ZEROS_LIKE")
def zeros_like(o: Op) -> None:
    """Zeros in the shape of x."""
    x, y = o.input(0), o.output()
    value = o.node("Shape", [o.c.raw(x)])
    o.c.put_real(y, o.node("Expand", [o.c.scalar(0, np.float32 if y.quantized else y.dtype), value], main=True))


@op("TILE")
def tile(o: Op) -> None:
    """x repeated along each axis."""
    x, y = o.input(0), o.output()
    raw = o.moving([x], [y], "i1 u1")
    o.set(y, o.node("Tile", [o.get(x, identity(x.rank), raw), o.int64(1)], main=True), identity(y.rank), raw)


@op("RANGE")
def range_(o: Op) -> None:
    """start, limit, delta: scalars."""
    y = o.output()
    o.c.put(y, o.node("Range", [o.c.raw(o.input(i)) for i in range(3)], main=True))


@op("REVERSE_V2")
def reverse(o: Op) -> None:
    """x with some axes backwards."""
    x, y = o.input(0), o.output()
    raw, perm = o.moving([x], [y]), o.pick(x)
    axes = [perm.index(checked_axis(a, x.rank)) for a in o.const_ints(1, "the axes")]
    n = len(axes)
    inputs = [o.get(x, perm, raw), *(o.c.ints(v) for v in ([-1] * n, [-FAR] * n, axes, [-1] * n))]
    o.set(y, o.node("Slice", inputs, main=True), perm, raw)


@op("SPACE_TO_DEPTH", "DEPTH_TO_SPACE")
def space_depth(o: Op) -> None:
    """Blocks of cells to channels (row, column, channel) and back."""
    x, y = o.input(0), o.output()
    to_depth = o.kind == "SPACE_TO_DEPTH"
    size = o.option("SpaceToDepthOptions" if to_depth else "DepthToSpaceOptions", "BlockSize", 0)
    want_rank(x, 4)
    if size < 1 or (to_depth and any(d > 0 and d % size for d in x.shape[1:3])) or (not to_depth and x.shape[3] % (size * size)):
        raise InvalidModel(f"block size {size} does not divide {list(x.shape)}")
    first, kind = channels_first(4), "SpaceToDepth" if to_depth else "DepthToSpace"
    raw = o.moving([x], [y], "")
    o.set(y, o.node(kind, [o.get(x, first, raw)], main=True, blocksize=size), first, raw)


@op("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND")
def space_batch(o: Op) -> None:
    """Blocks of cells to the batch and back, with padding before or cropping after: Reshape, Transpose, Reshape."""
    x, y = o.input(0), o.output()
    blocks = o.const_ints(1, "the block's shape")
    edges = o.const(2, "paddings or crops")
    m = len(blocks)
    space, rest = list(x.shape[1 : 1 + m]), list(x.shape[1 + m :])
    if x.rank < 1 + m or edges.shape != (m, 2) or min(blocks, default=0) < 1 or (edges < 0).any() or min([*space, *rest]) < 0:
        raise InvalidModel(f"blocks {blocks} and edges {edges.tolist()} for shape {list(x.shape)}")
    raw = o.moving([x], [y], "i1 u1")
    value = o.get(x, identity(x.rank), raw)
    if o.kind == "SPACE_TO_BATCH_ND":
        if edges.any():
            pads = [0, *edges[:, 0].tolist(), *[0] * len(rest), 0, *edges[:, 1].tolist(), *[0] * len(rest)]
            fill = [o.c.scales(x)[1]] if raw and x.quantized else []
            value = o.node("Pad", [value, o.c.ints(pads), *fill])
        space = [s + int(a) + int(b) for s, (a, b) in zip(space, edges, strict=True)]
        if any(s % b for s, b in zip(space, blocks, strict=True)):
            raise InvalidModel(f"blocks {blocks} do not divide {space}")
        small = [s // b for s, b in zip(space, blocks, strict=True)]
        pairs = [v for pair in zip(small, blocks, strict=True) for v in pair]
        value = o.node("Reshape", [value, o.c.ints([-1, *pairs, *rest])])
        tail = range(1 + 2 * m, 1 + 2 * m + len(rest))
        value = o.node("Transpose", [value], perm=[*range(2, 2 * m + 1, 2), 0, *range(1, 2 * m, 2), *tail])
        value = o.node("Reshape", [value, o.c.ints([-1, *small, *rest])], main=True)
    else:
        value = o.node("Reshape", [value, o.c.ints([*blocks, -1, *space, *rest])])
        tail = range(1 + 2 * m, 1 + 2 * m + len(rest))
        woven = [v for i in range(m) for v in (m + 1 + i, i)]
        value = o.node("Transpose", [value], perm=[m, *woven, *tail])
        large = [s * b for s, b in zip(space, blocks, strict=True)]
        value = o.node("Reshape", [value, o.c.ints([-1, *large, *rest])], main=not edges.any())
        if edges.any():
            starts = [0, *edges[:, 0].tolist(), *[0] * len(rest)]
            ends = [FAR, *(n - int(e) for n, e in zip(large, edges[:, 1], strict=True)), *[FAR] * len(rest)]
            value = cut(o, value, identity(x.rank), starts, ends, [1] * x.rank, [-1, *large, *rest], main=True)
    o.set(y, value, identity(y.rank), raw)


@op("ONE_HOT")
def one_hot(o: Op) -> None:
    """indices, depth, on value, off value."""
    y = o.output()
    depth, on, off = (o.c.raw(o.input(i)) for i in (1, 2, 3))
    values = [o.node("Reshape", [v, o.c.ints([1])]) for v in (off, on)]
    pair = o.node("Concat", values, axis=0)
    o.c.put(y, o.node("OneHot", [o.c.raw(o.input(0)), depth, pair], main=True, axis=o.option("OneHotOptions", "Axis", -1)))


@op("TOPK_V2")
def top_k(o: Op) -> None:
    """The k largest along the last axis, sorted, and where they were."""
    x, values, places = o.input(0), o.output(0), o.output(1)
    k = o.node("Reshape", [o.int64(1), o.c.ints([1])])
    made = o.nodes("TopK", [o.c.real(x), k], main=True, outputs=2, axis=-1)
    o.c.put_real(values, made[0])
    o.c.put(places, made[1] if places.dtype == np.int64 else o.node("Cast", [made[1]], to=o.c.elem(places)))


@op("BROADCAST_ARGS")
def broadcast_args(o: Op) -> None:
    """The shape to which two shapes broadcast."""
    y = o.output()
    ones = o.node("Expand", [o.c.scalar(0, np.int64), o.int64(0)])
    value = o.node("Shape", [o.node("Expand", [ones, o.int64(1)])], main=True)
    o.c.put(y, value if y.dtype == np.int64 else o.node("Cast", [value], to=o.c.elem(y)))


@op("DYNAMIC_UPDATE_SLICE")
def dynamic_update_slice(o: Op) -> None:
    """x with the cells from `start` on replaced by those of `update`; start is moved back where they would not fit."""
    x, update, y = o.input(0), o.input(1), o.output()
    if (
        min((*x.shape, *update.shape), default=0) < 0
        or x.rank != update.rank
        or any(a < b for a, b in zip(x.shape, update.shape, strict=True))
    ):
        raise UnsupportedOperator(f"shapes {list(x.shape)} and {list(update.shape)}")
    room = [a - b for a, b in zip(x.shape, update.shape, strict=True)]
    start = o.node("Min", [o.node("Max", [o.int64(2), o.c.ints([0] * x.rank)]), o.c.ints(room)])
    pads = o.node("Concat", [start, o.node("Sub", [o.c.ints(room), start])], axis=0)
    here = o.node("Expand", [o.c.scalar(1, np.int32), o.c.ints(list(update.shape))])
    mask = o.node("Cast", [o.node("Pad", [here, pads, o.c.scalar(0, np.int32)])], to=o.c.onnx.TensorProto.BOOL)
    zero = o.c.scalar(0, np.float32 if x.quantized else x.dtype)
    moved = o.node("Pad", [o.c.real(update), pads, zero])
    o.c.put_real(y, o.node("Where", [mask, moved, o.c.real(x)], main=True))


@op("SCATTER_ND")
def scatter_nd(o: Op) -> None:
    """Zeros of a shape with updates added at index vectors."""
    updates, y = o.input(1), o.output()
    zero = o.c.scalar(0, np.float32 if updates.quantized else updates.dtype)
    start = o.node("Expand", [zero, o.int64(2)])
    o.c.put_real(y, o.node("ScatterND", [start, o.int64(0), o.c.real(updates)], main=True, reduction="add"))


@op("WHERE")
def where(o: Op) -> None:
    """The places of what is not zero, a row each."""
    y = o.output()
    value = o.node("Transpose", [o.node("NonZero", [o.c.raw(o.input(0))])], main=True, perm=[1, 0])
    o.c.put(y, value if y.dtype == np.int64 else o.node("Cast", [value], to=o.c.elem(y)))
