"""Handlers of operators that sample: Resize and Upsample."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from . import dims
from .dims import Dim
from .index_ops import cast
from .ir import NUMPY, Binary, DType, Op, Reduce, Shape, Tensor
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
