"""Handlers of operators that sample: Resize, GridSample, RoiAlign, DeformConv, and what belongs to them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from . import dims
from .dims import Dim
from .index_ops import cast, ramp
from .ir import NUMPY, Binary, DType, Op, Reduce, Shape, Tensor, elements
from .lower import Node, op, show, type_name
from .math_ops import binary
from .shape_ops import Sizes, late_sizes

MODES = {"nearest": 0, "linear": 1, "bilinear": 1, "cubic": 2}
TRANSFORMS = {
    "half_pixel": 0, "half_pixel_symmetric": 1, "pytorch_half_pixel": 2, "align_corners": 3, "asymmetric": 4,
    "tf_crop_and_resize": 5,
}  # fmt: skip
ROUNDINGS = {"round_prefer_floor": 0, "round_prefer_ceil": 1, "floor": 2, "ceil": 3, "simple": 4}
NUMERATOR_LIMIT = 1 << 24  # a dim times this stays below FRUGAL_MAX_DIM for dims up to 65536


def choice(node: Node, table: dict[str, int], name: str, default: str) -> int:
    value = node.attr(name, default)
    if value not in table:
        raise node.fail(f"{name} '{value}' is not one of {', '.join(table)}")
    return table[value]


def scaled_dim(node: Node, d: Dim, scale: float) -> Dim:
    """floor(d * scale), the product in float32 as onnxruntime has it; a symbolic dim by a fraction that is the same float32."""
    if not (np.isfinite(scale) and scale > 0):
        raise node.fail(f"a scale is {scale}")
    if isinstance(d, int):
        return int(np.float32(d) * np.float32(scale))
    ratio = Fraction(scale).limit_denominator(4096)
    if np.float32(ratio.numerator / ratio.denominator) != np.float32(scale):
        ratio = Fraction(float(np.float32(scale)))
    if max(ratio.numerator, ratio.denominator) > NUMERATOR_LIMIT:
        raise node.unsupported(f"scale {scale} of an axis whose length is symbolic")
    return dims.floordiv(dims.mul(d, ratio.numerator), ratio.denominator)


def places(node: Node, rank: int) -> list[int]:
    axes = node.attr("axes")
    result = list(range(rank)) if axes is None else [node.axis(int(a), rank) for a in axes]
    if len(set(result)) != len(result):
        raise node.fail(f"axes {axes} repeat")
    return result


def kept_ratio(node: Node, x: Tensor, axes: list[int], sizes: list[Dim], policy: str) -> tuple[list[Dim], Tensor]:
    """Sizes and the common scale when the aspect ratio is kept: the smallest or largest ratio, each size rounded half up."""
    pick, kind = (dims.minimum, Reduce.MIN) if policy == "not_larger" else (dims.maximum, Reduce.MAX)
    result = list(x.shape)
    for a in axes:
        values = [
            dims.floordiv(dims.add(dims.mul(dims.mul(s, 2), x.shape[a]), x.shape[b]), dims.mul(x.shape[b], 2))
            for b, s in zip(axes, sizes, strict=True)
        ]
        size = values[0]
        for v in values[1:]:
            size = pick(size, v)
        result[a] = size
    wanted, have = (
        node.emit(Op.CAST, [node.emit(Op.DIMS, [], DType.INT64, [len(axes)], *d)], DType.FLOAT, [len(axes)])
        for d in (sizes, [x.shape[a] for a in axes])
    )
    ratio = node.emit(Op.REDUCE, [binary(node, Binary.DIV, wanted, have)], DType.FLOAT, [1], int(kind), 1)
    ones = node.constant(np.ones(x.rank, np.float32))
    chosen = node.constant(np.isin(np.arange(x.rank), axes))
    return result, node.emit(Op.WHERE, [chosen, ratio, ones], DType.FLOAT, [x.rank])


def spread(node: Node, values: np.ndarray, axes: list[int], rank: int, rest: float) -> np.ndarray:
    if values.size != len(axes):
        raise node.fail(f"{values.size} values for {len(axes)} axes")
    result = np.full(rank, rest, np.float32)
    result[axes] = values.reshape(-1)
    return result


def target(node: Node, x: Tensor, axes: list[int]) -> tuple[list[Dim], Tensor | None]:
    """The output's shape, and the scales where they are not its quotient by the input's."""
    after_roi = node.type == "Resize" and node.opset >= 11
    sizes = node.optional(3) if after_roi else None
    if sizes is not None and sizes.shape != (0,):
        wanted = node.sizes(3, "sizes")
        if len(wanted) != len(axes):
            raise node.fail(f"{len(wanted)} sizes for {len(axes)} axes")
        policy = node.attr("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            return kept_ratio(node, x, axes, wanted, policy)
        result = list(x.shape)
        for a, d in zip(axes, wanted, strict=True):
            result[a] = d
        return result, None
    if node.type == "Upsample" and node.opset < 9:
        scales = np.array(node.attr("scales"), np.float32)
    else:
        given = node.get(2 if after_roi else 1)
        if given.const is None:
            return late_scales(node, x, axes, given)
        scales = given.const.astype(np.float32)
    scales = spread(node, scales, axes, x.rank, 1)
    return [scaled_dim(node, d, float(s)) if s != 1 else d for d, s in zip(x.shape, scales, strict=True)], node.constant(scales)


def region(node: Node, x: Tensor, axes: list[int]) -> Tensor | None:
    """The region of tf_crop_and_resize as float32 [2 rank]; None in the other modes."""
    if node.attr("coordinate_transformation_mode") != "tf_crop_and_resize":
        return None
    roi = node.get(1)
    if roi.const is not None:
        values = roi.const.reshape(-1)
        low = spread(node, values[: len(axes)], axes, x.rank, 0)
        return node.constant(np.concatenate([low, spread(node, values[len(axes) :], axes, x.rank, 1)]))
    roi = cast(node, roi, DType.FLOAT)
    if axes == list(range(x.rank)):
        return roi
    return late_spread(node, roi, axes, x.rank, (0, 1))


def late_spread(node: Node, values: Tensor, axes: list[int], rank: int, rest: tuple[float, ...]) -> Tensor:
    """Run-time values of `axes`, one list for each of `rest`, as float32 lists of all axes; the others get `rest`."""
    n, values = len(axes), cast(node, values, DType.FLOAT)
    if isinstance(values.shape[0], int) and values.shape[0] != n * len(rest):
        raise node.fail(f"'{values.name}' is {show(values.shape)} for {n} axes")
    if axes == list(range(rank)):
        return values
    both = node.emit(Op.CONCAT, [values, node.constant(np.array(rest, np.float32))], DType.FLOAT, [n * len(rest) + len(rest)], 0)
    order = [k * n + axes.index(a) if a in axes else n * len(rest) + k for k in range(len(rest)) for a in range(rank)]
    return node.emit(Op.GATHER, [both, node.constant(np.array(order, np.int64))], DType.FLOAT, [len(order)], 0)


def late_scales(node: Node, x: Tensor, axes: list[int], scales: Tensor) -> tuple[list[Dim], Tensor]:
    """The output's shape and the scales, when these are known in a run only."""
    if scales.dtype not in (DType.FLOAT, DType.DOUBLE):
        raise node.fail(f"scales '{scales.name}' are {type_name(scales.dtype)}")
    made = late_sizes(node, Sizes.SCALE, [scales], len(axes), [x.shape[a] for a in axes])
    result = list(x.shape)
    for a, d in zip(axes, made, strict=True):
        result[a] = d
    return result, late_spread(node, scales, axes, x.rank, (1,))


def settings(node: Node, mode: int) -> list[int | float]:
    """The attributes of RESIZE but for the axes."""
    old = node.type == "Upsample" or node.opset < 11
    transform = choice(node, TRANSFORMS, "coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    default = ("floor" if node.type == "Upsample" else "simple") if old else "round_prefer_floor"
    rounding = choice(node, ROUNDINGS, "nearest_mode", default)
    antialias = int(node.attr("antialias", 0))
    if antialias and mode == MODES["nearest"]:
        raise node.fail("antialias does not go with mode 'nearest'")
    cubic = float(node.attr("cubic_coeff_a", -0.75))
    return [mode, transform, rounding, int(node.attr("exclude_outside", 0)), antialias, cubic]


def growth(x: Tensor, shape: Shape, a: int) -> float:
    """By how much axis a grows; symbolic ones count as growing."""
    have, want = x.shape[a], shape[a]
    return want / max(have, 1) if isinstance(have, int) and isinstance(want, int) else 1.5


def changed(node: Node, x: Tensor, shape: Shape, scales: Tensor | None, axes: list[int]) -> list[int]:
    """The axes that are not kept as they are."""
    if node.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        return axes
    known = None if scales is None else scales.const
    return [a for a in axes if shape[a] != x.shape[a] or (scales is not None and (known is None or known[a] != 1))]


@op("Resize", "Upsample")
def resize(node: Node) -> Tensor:
    """One step when elements are copied; else one for each axis, those that shrink first and the last axis before the others."""
    x = node.get(0)
    mode = choice(node, MODES, "mode", "nearest")
    axes = places(node, x.rank)
    wanted, scales = target(node, x, axes)
    roi = region(node, x, axes)
    attrs = settings(node, mode)
    axes = changed(node, x, tuple(wanted), scales, axes)
    kind = x.dtype
    if kind == DType.BOOL and mode:
        raise node.unsupported(f"'{x.name}' {show(x.shape)} is bool and cannot be interpolated")
    beyond = None
    if roi is not None:
        beyond = node.constant(np.array(node.attr("extrapolation_value", 0.0)).astype(NUMPY[kind] if not mode else np.float32))
    if mode == MODES["nearest"]:
        mask = sum(1 << a for a in axes)
        return node.emit(Op.RESIZE, [x, scales, roi, beyond], kind, wanted, *attrs, mask) if axes else x
    x = cast(node, x, DType.FLOAT)
    for a in sorted(axes, key=lambda a: (growth(x, tuple(wanted), a), -a)):
        shape = [wanted[a] if i == a else d for i, d in enumerate(x.shape)]
        x = node.emit(Op.RESIZE, [x, scales, roi, beyond], DType.FLOAT, shape, *attrs, 1 << a)
    return cast(node, x, kind)


# ---- sampling at places that the data gives ----
SAMPLES = {"nearest": 0, "linear": 1, "bilinear": 1, "cubic": 2, "bicubic": 2}
PADDINGS = {"zeros": 0, "border": 1, "reflection": 2}
PIXELS = 2  # the attribute `coords` of GRID_SAMPLE: the grid holds indices


@op("GridSample")
def grid_sample(node: Node) -> Tensor:
    x, grid = node.get(0), node.get(1)
    node.floats(x, grid)
    if not 3 <= x.rank == grid.rank <= 5:
        raise node.fail(f"an input {show(x.shape)} with a grid {show(grid.shape)}")
    attrs = (
        choice(node, SAMPLES, "mode", "linear"),
        choice(node, PADDINGS, "padding_mode", "zeros"),
        int(node.attr("align_corners", 0)),
    )
    return node.emit(Op.GRID_SAMPLE, [x, grid], DType.FLOAT, [*x.shape[:2], *grid.shape[1:-1]], *attrs)


@op("RoiAlign")
def roi_align(node: Node) -> Tensor:
    x, rois, batch = node.get(0), node.get(1), cast(node, node.get(2), DType.INT64)
    node.floats(x, rois)
    half = node.attr("coordinate_transformation_mode", "half_pixel" if node.opset >= 16 else "output_half_pixel")
    shape = [rois.shape[0], x.shape[1], int(node.attr("output_height", 1)), int(node.attr("output_width", 1))]
    attrs = (
        int(node.attr("mode", "avg") == "max"),
        int(node.attr("sampling_ratio", 0)),
        float(node.attr("spatial_scale", 1.0)),
        int(half == "half_pixel"),
    )
    return node.emit(Op.ROI_ALIGN, [x, rois, batch], DType.FLOAT, shape, *attrs)


@op("Col2Im")
def col2im(node: Node) -> Tensor:
    x, image, block = node.get(0), node.sizes(1, "image_shape"), node.sizes(2, "block_shape")
    node.floats(x)
    n = len(image)
    if x.rank != 3 or len(block) != n:
        raise node.fail(f"columns {show(x.shape)} for an image {show(image)} and blocks {show(block)}")
    dilations, strides, pads = (node.attr(k, [v] * m) for k, v, m in (("dilations", 1, n), ("strides", 1, n), ("pads", 0, 2 * n)))
    attrs = [v for a in range(n) for v in (block[a], dilations[a], pads[a], pads[n + a], strides[a])]
    return node.emit(Op.COL2IM, [x], DType.FLOAT, [x.shape[0], dims.floordiv(x.shape[1], dims.product(block)), *image], *attrs)


@op("MaxUnpool")
def max_unpool(node: Node) -> Tensor:
    """Zeros with each element at its flat index in the output without padding, which a larger output_shape continues."""
    x, ids = node.get(0), node.get(1)
    kernel, spatial = node.attr("kernel_shape"), x.rank - 2
    strides, pads = node.attr("strides", [1] * spatial), node.attr("pads", [0] * 2 * spatial)
    if ids.dtype != DType.INT64 or len(kernel) != spatial:
        raise node.fail(f"indices '{ids.name}' are {type_name(ids.dtype)}, or the kernel {list(kernel)} does not fit")
    inner: list[Dim] = [
        dims.add(dims.mul(dims.add(d, -1), strides[a]), kernel[a] - pads[a] - pads[spatial + a])
        for a, d in enumerate(x.shape[2:])
    ]
    shape = [*x.shape[:2], *inner]
    flat = node.emit(Op.FILL, [node.constant(np.zeros(1, NUMPY[x.dtype]))], x.dtype, [elements(tuple(shape))])
    count = [elements(x.shape)]
    parts = [flat, node.alias(ids, count), node.alias(x, count)]
    made = node.alias(node.emit(Op.SCATTER_AT, parts, x.dtype, flat.shape, 0, 0, 0), shape)
    if node.optional(2) is None:
        return made
    wanted = node.sizes(2, "output_shape")
    if len(wanted) != x.rank:
        raise node.fail(f"the output shape {show(wanted)} has another rank")
    return node.emit(Op.PAD, [made, None], x.dtype, wanted, 0, *[0] * x.rank)


def as_float(node: Node, *values: Dim) -> Tensor:
    """Dims as float32 [n]."""
    return node.emit(Op.CAST, [node.emit(Op.DIMS, [], DType.INT64, [len(values)], *values)], DType.FLOAT, [len(values)])


def number(node: Node, value: float) -> Tensor:
    return node.constant(np.array(value, np.float32))


def grid_axis(node: Node, n: Dim, aligned: bool) -> Tensor:
    """Coordinates of n elements in [-1, 1] as float32 [n]: centers at the ends (aligned), else edges."""
    i, length = cast(node, ramp(node, n), DType.FLOAT), as_float(node, n)
    if not aligned:
        odd = binary(node, Binary.ADD, binary(node, Binary.MUL, i, number(node, 2)), number(node, 1))
        return binary(node, Binary.SUB, binary(node, Binary.DIV, odd, length), number(node, 1))
    steps = binary(node, Binary.MAX, binary(node, Binary.SUB, length, number(node, 1)), number(node, 1))
    scaled = binary(
        node, Binary.SUB, binary(node, Binary.DIV, binary(node, Binary.MUL, i, number(node, 2)), steps), number(node, 1)
    )
    return scaled


@op("AffineGrid")
def affine_grid(node: Node) -> Tensor:
    """theta [n, k, k + 1] times the coordinates (x, y, .., 1) of every place of an image of the given size."""
    theta, size = node.get(0), node.sizes(1, "size")
    node.floats(theta)
    axes = len(size) - 2
    if axes not in (2, 3) or theta.rank != 3:
        raise node.fail(f"theta {show(theta.shape)} for a size {show(size)}")
    n, spatial = theta.shape[0], size[2:]
    total: Tensor | None = None
    for k in range(axes + 1):
        column = node.emit(Op.SLICE, [theta], DType.FLOAT, [n, axes, 1], 0, 1, 0, 1, k, 1)
        part = node.alias(column, [n, *[1] * axes, axes])
        if k < axes:
            a = axes - 1 - k
            places = grid_axis(node, spatial[a], bool(node.attr("align_corners", 0)))
            part = binary(node, Binary.MUL, part, node.alias(places, [spatial[a], *[1] * (axes - a)]))
        total = part if total is None else binary(node, Binary.ADD, total, part)
    assert total is not None
    return total


@op("DeformConv")
def deform_conv(node: Node) -> Tensor:
    """The input sampled where kernel and offsets say (zeros outside), times the mask: columns of a product with the weights."""
    x, w, offset, bias, mask = node.get(0), node.get(1), node.get(2), node.optional(3), node.optional(4)
    node.floats(x, w, offset)
    if x.rank != 4 or not all(isinstance(d, int) for d in w.shape):
        raise node.unsupported(
            f"an input {show(x.shape)} with weights {show(w.shape)}: two spatial axes and known weights are needed"
        )
    n, channels, (oh, ow) = x.shape[0], x.shape[1], offset.shape[2:]
    out_channels, each, kh, kw = (int(d) for d in w.shape)  # type: ignore[arg-type]
    groups, shared, taps = int(node.attr("group", 1)), int(node.attr("offset_group", 1)), kh * kw
    if not isinstance(channels, int) or channels != each * groups or channels % shared or out_channels % groups:
        raise node.fail(f"input {show(x.shape)}, weights {show(w.shape)}, {groups} groups, {shared} offset groups")
    grid = deform_grid(node, offset, (n, shared, kh, kw, oh, ow))
    images = node.alias(x, [dims.mul(n, shared), channels // shared, *x.shape[2:]])
    sampled = node.emit(
        Op.GRID_SAMPLE, [images, grid], DType.FLOAT, [*images.shape[:2], dims.mul(oh, taps), ow], SAMPLES["linear"], 0, PIXELS
    )
    columns = node.alias(sampled, [n, shared, channels // shared, taps, oh, ow])
    if mask is not None:
        columns = binary(node, Binary.MUL, columns, node.alias(mask, [n, shared, 1, taps, oh, ow]))
    columns = node.alias(columns, [n, groups, each * taps, dims.mul(oh, ow)])
    rows = node.alias(w, [groups, out_channels // groups, each * taps])
    made = node.emit(Op.MATMUL, [rows, columns], DType.FLOAT, [n, groups, out_channels // groups, dims.mul(oh, ow)], 0, 1.0)
    made = node.alias(made, [n, out_channels, oh, ow])
    return made if bias is None else binary(node, Binary.ADD, made, node.alias(bias, [out_channels, 1, 1]))


def deform_grid(node: Node, offset: Tensor, sizes: tuple[Dim, ...]) -> Tensor:
    """Indices [n * groups, taps * oh, ow, 2] (x first) of what each element of the kernel meets."""
    n, shared, kh, kw, oh, ow = sizes
    split = node.alias(offset, [n, shared, dims.mul(kh, kw), 2, oh, ow])
    strides, dilations, pads = (node.attr(k, v) for k, v in (("strides", [1, 1]), ("dilations", [1, 1]), ("pads", [0] * 4)))
    parts = []
    for a in (1, 0):
        moved = node.emit(
            Op.SLICE, [split], DType.FLOAT, [n, shared, dims.mul(kh, kw), 1, oh, ow], 0, 1, 0, 1, 0, 1, a, 1, 0, 1, 0, 1
        )
        kernel = np.indices((int(kh), int(kw)))[a].reshape(-1, 1, 1, 1) * dilations[a] - pads[a]  # type: ignore[arg-type]
        start = cast(node, ramp(node, (oh, ow)[a], 1 - a), DType.FLOAT)
        base = binary(
            node, Binary.ADD, binary(node, Binary.MUL, start, number(node, strides[a])), node.constant(kernel.astype(np.float32))
        )
        place = binary(node, Binary.ADD, moved, base)
        parts.append(node.alias(place, [dims.mul(n, shared), dims.product((kh, kw, oh)), ow, 1]))
    return node.emit(Op.CONCAT, parts, DType.FLOAT, [*parts[0].shape[:3], 2], 3)
