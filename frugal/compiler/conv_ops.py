"""Handlers of convolution, pooling, and the normalizations that convolutional networks use.

CONV and POOL want channels last: a handler transposes before and after, and the passes remove what cancels (passes/layout.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from . import dims
from .dims import Dim
from .ir import Binary, DType, Layout, Op, Reduce, Tensor, Unary, Weight, elements
from .lower import MICROSOFT, Node, op, show
from .math_ops import binary, unary
from .pack import PANEL, round_up

SPATIAL = 3  # windows of a step
PLAIN_WINDOW: tuple[Dim, ...] = (1, 1, 1, 0)
POOL_KINDS = {"MaxPool": 0, "AveragePool": 1, "LpPool": 3}
MEAN_PADDED = 2


# ---- windows ----
@dataclass
class Window:
    """One spatial axis; out is the size of the result there."""

    kernel: int
    stride: int
    dilation: int
    before: Dim
    after: Dim
    out: Dim

    @property
    def extent(self) -> int:
        return (self.kernel - 1) * self.dilation + 1

    @property
    def attrs(self) -> tuple[Dim, ...]:
        return (self.kernel, self.stride, self.dilation, self.before)

    @property
    def moves(self) -> bool:
        """Whether a position sees more than itself."""
        return self.attrs != PLAIN_WINDOW


def spatial(node: Node, x: Tensor) -> tuple[Dim, ...]:
    if not 1 <= x.rank - 2 <= SPATIAL:
        raise node.unsupported(f"an input of shape {show(x.shape)}; one to three spatial axes are computed")
    return x.shape[2:]


def windows(node: Node, sizes: Sequence[Dim], kernel: Sequence[int]) -> list[Window]:
    """The windows that the attributes say, their results still those of an unpadded convolution."""
    n = len(sizes)
    strides, dilations = list(node.attr("strides", [1] * n)), list(node.attr("dilations", [1] * n))
    pads = list(node.attr("pads", [0] * (2 * n)))
    if not len(kernel) == len(strides) == len(dilations) == n or len(pads) != 2 * n:
        raise node.fail(f"kernel, strides, dilations or pads do not fit {n} spatial axes")
    if min((*kernel, *strides, *dilations)) < 1:
        raise node.fail("kernel, strides and dilations must be positive")
    made = [Window(*v, pads[i], pads[i + n], 0) for i, v in enumerate(zip(kernel, strides, dilations, strict=True))]
    if min(pads) < 0:
        raise node.unsupported(f"negative pads {pads}")
    return made


def same_padding(total: Dim, upper: bool) -> tuple[Dim, Dim]:
    """(before, after) of a padding; the odd one comes after when upper."""
    small = dims.floordiv(total, 2)
    large = dims.add(total, dims.mul(small, -1))
    return (small, large) if upper else (large, small)


def forward(node: Node, sizes: Sequence[Dim], kernel: Sequence[int], ceil: bool = False) -> list[Window]:
    """Windows of a convolution or pooling with their results."""
    made = windows(node, sizes, kernel)
    auto = node.attr("auto_pad", "NOTSET")
    for w, size in zip(made, sizes, strict=True):
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            w.out = dims.ceildiv(size, w.stride)
            need = dims.add(dims.mul(dims.add(w.out, -1), w.stride), w.extent)
            w.before, w.after = same_padding(dims.sub0(need, size), auto == "SAME_UPPER")
            continue
        if auto == "VALID":
            w.before = w.after = 0
        padded = dims.add(size, dims.add(w.before, w.after))
        room = dims.add(padded, w.stride - w.extent)
        if isinstance(room, int) and room < 0:
            raise node.fail(f"a window of {w.extent} does not fit {padded} elements")
        w.out = dims.floordiv(room, w.stride)
        if ceil:  # a last window may stick out, but not start in the padding behind
            w.out = dims.minimum(dims.ceildiv(room, w.stride), dims.ceildiv(dims.add(size, w.before), w.stride))
    return made


def backward(node: Node, sizes: Sequence[Dim], kernel: Sequence[int]) -> list[Window]:
    """Windows of a transposed convolution with their results."""
    made = windows(node, sizes, kernel)
    auto = node.attr("auto_pad", "NOTSET")
    extra = list(node.attr("output_padding", [0] * len(sizes)))
    wanted = list(node.attr("output_shape", []))[-len(sizes) :]
    for i, (w, size) in enumerate(zip(made, sizes, strict=True)):
        whole = dims.add(dims.mul(dims.add(size, -1), w.stride), w.extent + extra[i])
        if wanted or auto in ("SAME_UPPER", "SAME_LOWER"):
            w.out = wanted[i] if wanted else dims.mul(size, w.stride)
            w.before, w.after = same_padding(dims.sub0(whole, w.out), auto == "SAME_UPPER")
            continue
        if auto == "VALID":
            w.before = w.after = 0
        w.out = dims.add(whole, dims.mul(dims.add(w.before, w.after), -1))
        if isinstance(w.out, int) and w.out < 0:
            raise node.fail("the padding is larger than the result")
    return made


# ---- layouts ----
def turned(node: Node, x: Tensor, perm: Sequence[int]) -> Tensor:
    if x.const is not None:
        return node.constant(np.ascontiguousarray(x.const.transpose(perm)))
    return node.emit(Op.TRANSPOSE, [x], x.dtype, [x.shape[p] for p in perm], *perm)


def channels_last(node: Node, x: Tensor) -> Tensor:
    return turned(node, x, (0, *range(2, x.rank), 1))


def channels_first(node: Node, x: Tensor) -> Tensor:
    return turned(node, x, (0, x.rank - 1, *range(1, x.rank - 1)))


# ---- convolutions ----
def grouped(rows: np.ndarray, groups: int) -> np.ndarray:
    """Rows of each group rounded up to whole panels: [e, ..] -> [groups * ep, ..]; as they are for one group."""
    each = rows.shape[0] // groups
    if groups == 1 or each % PANEL == 0:
        return rows
    padded = np.zeros((groups, round_up(each, PANEL), *rows.shape[1:]), rows.dtype)
    padded[:, :each] = rows.reshape(groups, each, *rows.shape[1:])
    return padded.reshape(-1, *rows.shape[1:])


def bias_of(values: np.ndarray, groups: int) -> np.ndarray:
    """The bias operand of a CONV: each group rounded up to whole panels."""
    rows = grouped(values.astype(np.float32).reshape(-1), groups)
    result = np.zeros(round_up(rows.size, PANEL), np.float32)
    result[: rows.size] = rows
    return result


def packed(node: Node, w: Tensor, rows: Callable[[], np.ndarray], n: int, k: int) -> Tensor:
    made = node.tensor(DType.FLOAT, (n, k), w.name)
    made.weight, made.layout = Weight(Layout.F32_P16, n, k, values=rows), Layout.F32_P16
    return made


def convolve(
    node: Node, x: Tensor, w: Tensor, b: Tensor | None, places: list[Window], groups: int, rows: Tensor, transposed: bool
) -> Tensor:
    """The steps of a convolution of x [n, c, ..]; rows: the weights as [e, kernel.., c / groups], constant or not."""
    out_channels, depth = int(rows.shape[0]), rows.shape[-1]  # type: ignore[arg-type]
    last = channels_last(node, x)
    attrs: list[int | float | Dim] = [int(Unary.COPY), 0.0, 0.0, 1.0, 0.0, groups, int(transposed)]
    for window in (PLAIN_WINDOW,) * (SPATIAL - len(places)) + tuple(p.attrs for p in places):
        attrs += window
    shape = (x.shape[0], *(p.out for p in places), out_channels)
    depthwise = groups == out_channels == x.shape[1] and groups > 1
    if depthwise:
        taps = turned(node, node.alias(rows, rows.shape[:-1]), (*range(1, rows.rank - 1), 0))
        weight, code = taps, Op.CONV_DEPTHWISE
    else:
        weight, code = rows, Op.CONV
        if rows.const is not None:
            values, k = rows.const, int(np.prod(rows.const.shape[1:], dtype=np.int64))
            n = out_channels if groups == 1 else groups * round_up(out_channels // groups, PANEL)
            weight = packed(node, w, lambda: grouped(values.reshape(out_channels, k), groups), n, k)
    assert isinstance(depth, int)
    known = None
    if b is not None:
        if elements(b.shape) != out_channels:
            raise node.fail(f"a bias of shape {show(b.shape)} for {out_channels} channels")
        if b.known:
            known = node.constant(bias_of(b.value(), 1 if depthwise else groups))
    made = node.emit(code, [last, weight, known, None], DType.FLOAT, shape, *attrs)
    if b is not None and known is None:
        made = binary(node, Binary.ADD, made, b)
    return channels_first(node, made)


def kernel_of(node: Node, w: Tensor) -> list[int]:
    kernel = [d for d in w.shape[2:] if isinstance(d, int)]
    if w.rank < 3 or len(kernel) != w.rank - 2 or not all(isinstance(d, int) for d in w.shape):
        raise node.unsupported(f"weights of shape {show(w.shape)}")
    if list(node.attr("kernel_shape", kernel)) != kernel:
        raise node.fail(f"kernel_shape {node.attr('kernel_shape')} differs from the weights {show(w.shape)}")
    return kernel


def materialized(node: Node, w: Tensor) -> Tensor:
    """Dequantized weights as a constant."""
    return node.constant(w.value().astype(np.float32)) if w.known and w.const is None else w


@op("Conv")
def conv(node: Node) -> Tensor:
    x, w, b = node.get(0), materialized(node, node.get(1)), node.optional(2)
    node.floats(x, w, b)
    sizes, kernel, groups = spatial(node, x), kernel_of(node, w), node.attr("group", 1)
    if w.rank != x.rank or groups < 1 or (isinstance(x.shape[1], int) and x.shape[1] != dims.mul(w.shape[1], groups)):
        raise node.fail(f"weights {show(w.shape)} in {groups} groups do not fit an input {show(x.shape)}")
    if int(w.shape[0]) % groups or not w.shape[0] or not w.shape[1]:  # type: ignore[arg-type]
        raise node.fail(f"weights {show(w.shape)} do not divide into {groups} groups")
    rows = turned(node, w, (0, *range(2, w.rank), 1))
    return convolve(node, x, w, b, forward(node, sizes, kernel), groups, rows, False)


@op("ConvTranspose")
def conv_transpose(node: Node) -> Tensor:
    x, w, b = node.get(0), materialized(node, node.get(1)), node.optional(2)
    node.floats(x, w, b)
    sizes, kernel, groups = spatial(node, x), kernel_of(node, w), node.attr("group", 1)
    channels, each = int(w.shape[0]), int(w.shape[1])  # type: ignore[arg-type]
    if w.rank != x.rank or groups < 1 or channels % groups or not channels or not each:
        raise node.fail(f"weights {show(w.shape)} do not divide into {groups} groups")
    if isinstance(x.shape[1], int) and x.shape[1] != channels:
        raise node.fail(f"weights {show(w.shape)} do not fit an input {show(x.shape)}")
    split = node.alias(w, (groups, channels // groups, each, *kernel))
    rows = turned(node, split, (0, 2, *range(3, split.rank), 1))
    rows = node.alias(rows, (groups * each, *kernel, channels // groups))
    return convolve(node, x, w, b, backward(node, sizes, kernel), groups, rows, True)


@op("FusedConv", domain=MICROSOFT)
def fused_conv(node: Node) -> Tensor:
    """act(Conv(x, w, b) + z)."""
    result, z = conv(node), node.optional(3)
    if z is not None:
        result = binary(node, Binary.ADD, result, z)
    name, params = node.attr("activation", ""), [float(v) for v in node.attr("activation_params", [])]
    kinds = {
        "": Unary.COPY, "Relu": Unary.RELU, "Tanh": Unary.TANH, "Sigmoid": Unary.SIGMOID, "LeakyRelu": Unary.LEAKY_RELU,
        "Clip": Unary.CLIP, "HardSigmoid": Unary.HARD_SIGMOID,
    }  # fmt: skip
    if name not in kinds or len(params) > 2:
        raise node.unsupported(f"the activation '{name}' with parameters {params}")
    return unary(node, result, kinds[name], *params) if name else result


# ---- pooling ----
def pool(node: Node, x: Tensor, kind: int, places: list[Window]) -> Tensor:
    """x [n, c, ..] through one POOL."""
    return channels_first(node, pool_last(node, channels_last(node, x), kind, places))


def pool_attrs(places: list[Window]) -> list[Dim]:
    missing = (*PLAIN_WINDOW, 0)
    return [v for p in (missing,) * (SPATIAL - len(places)) + tuple((*p.attrs, p.after) for p in places) for v in p]


def pool_last(node: Node, x: Tensor, kind: int, places: list[Window]) -> Tensor:
    shape = (x.shape[0], *(p.out for p in places), x.shape[-1])
    return node.emit(Op.POOL, [x], x.dtype, shape, kind, *pool_attrs(places))


def pool_windows(node: Node, x: Tensor) -> list[Window]:
    kernel = node.attr("kernel_shape")
    if kernel is None:
        raise node.fail("kernel_shape is missing")
    return forward(node, spatial(node, x), list(kernel), bool(node.attr("ceil_mode", 0)))


@op("MaxPool")
def max_pool(node: Node) -> Tensor | list[Tensor]:
    x = node.get(0)
    if x.dtype not in (DType.FLOAT, DType.INT8, DType.UINT8):
        raise node.unsupported(f"'{x.name}' is {DType(x.dtype).name.lower()}")
    places = pool_windows(node, x)
    if not any(node.proto.output[1:]):
        return pool(node, x, POOL_KINDS["MaxPool"], places)
    last = channels_last(node, x)
    shape = (x.shape[0], *(p.out for p in places), x.shape[1])
    made = node.emit(Op.MAX_POOL_INDICES, [last], x.dtype, shape, node.attr("storage_order", 0), *pool_attrs(places))
    indices = node.tensor(DType.INT64, shape)
    node.graph.steps[-1].outputs.append(indices)
    return [channels_first(node, made), channels_first(node, indices)]


@op("AveragePool")
def average_pool(node: Node) -> Tensor:
    x = node.get(0)
    node.floats(x)
    kind = MEAN_PADDED if node.attr("count_include_pad", 0) else POOL_KINDS["AveragePool"]
    return pool(node, x, kind, pool_windows(node, x))


def powers(node: Node, x: Tensor, p: float) -> Tensor:
    """|x|^p."""
    if p == 2:
        return binary(node, Binary.MUL, x, x)
    x = unary(node, x, Unary.ABS)
    return x if p == 1 else binary(node, Binary.POW, x, node.constant(np.array(p, np.float32)))


def root(node: Node, x: Tensor, p: float) -> Tensor:
    if p == 2:
        return unary(node, x, Unary.SQRT)
    return x if p == 1 else binary(node, Binary.POW, x, node.constant(np.array(1 / p, np.float32)))


@op("LpPool")
def lp_pool(node: Node) -> Tensor:
    x, p = node.get(0), float(node.attr("p", 2))
    node.floats(x)
    return root(node, pool(node, powers(node, x, p), POOL_KINDS["LpPool"], pool_windows(node, x)), p)


def reduced(node: Node, x: Tensor, kind: Reduce, axes: Sequence[int]) -> Tensor:
    """A reduction that keeps its axes."""
    shape = [1 if i in axes else d for i, d in enumerate(x.shape)]
    return node.emit(Op.REDUCE, [x], x.dtype, shape, int(kind), sum(1 << a for a in axes))


@op("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(node: Node) -> Tensor:
    x = node.get(0)
    node.floats(x)
    if x.rank < 2:
        raise node.fail(f"an input of shape {show(x.shape)}")
    if x.rank == 2:
        return x
    axes = range(2, x.rank)
    if node.type != "GlobalLpPool":
        return reduced(node, x, Reduce.MEAN if node.type == "GlobalAveragePool" else Reduce.MAX, axes)
    p = float(node.attr("p", 2))
    return root(node, reduced(node, powers(node, x, p), Reduce.SUM, axes), p)


# ---- normalizations ----
@op("BatchNormalization")
def batch_normalization(node: Node) -> Tensor | list[Tensor]:
    """(x - mean) / sqrt(var + eps) * scale + bias along axis 1; with constant parameters one product and one sum."""
    x, parameters = node.get(0), [node.get(i) for i in range(1, 5)]
    node.floats(x, *parameters)
    if x.rank < 2 or any(t.shape != parameters[0].shape or t.rank != 1 for t in parameters):
        raise node.fail(f"parameters of shape {show(parameters[0].shape)} for an input of shape {show(x.shape)}")
    eps, shape = float(node.attr("epsilon", 1e-5)), (x.shape[1], *[1] * (x.rank - 2))
    if node.attr("training_mode", 0):
        return batch_statistics(node, x, parameters, eps, shape)
    if any(node.proto.output[1:]):
        raise node.unsupported("outputs of a training that is not asked for; export the model for inference")
    if any(not t.known for t in parameters):
        factor, shift = batch_affine(node, parameters, eps)
    else:
        scale, bias, average, variance = (t.value().astype(np.float64) for t in parameters)
        by = scale / np.sqrt(variance + eps)
        factor, shift = (node.constant(v.astype(np.float32)) for v in (by, bias - average * by))
    return binary(node, Binary.ADD, binary(node, Binary.MUL, x, node.alias(factor, shape)), node.alias(shift, shape))


def batch_affine(node: Node, parameters: Sequence[Tensor], eps: float) -> tuple[Tensor, Tensor]:
    """(factor, shift) of parameters that are computed at run time."""
    scale, bias, average, variance = parameters
    shifted = binary(node, Binary.ADD, variance, node.constant(np.array(eps, np.float32)))
    factor = binary(node, Binary.DIV, scale, unary(node, shifted, Unary.SQRT))
    return factor, binary(node, Binary.SUB, bias, binary(node, Binary.MUL, average, factor))


def batch_statistics(
    node: Node, x: Tensor, parameters: Sequence[Tensor], eps: float, shape: Sequence[Dim]
) -> Tensor | list[Tensor]:
    """Training mode: the statistics of this batch, and running ones moved towards them by 1 - momentum."""
    scale, bias, *running = parameters
    axes, momentum = [0, *range(2, x.rank)], node.attr("momentum", 0.9)
    mean = reduced(node, x, Reduce.MEAN, axes)
    centered = binary(node, Binary.SUB, x, mean)
    variance = reduced(node, binary(node, Binary.MUL, centered, centered), Reduce.MEAN, axes)
    old, new = (node.constant(np.array(v, np.float32)) for v in (momentum, 1 - momentum))
    moved = [
        binary(node, Binary.ADD, binary(node, Binary.MUL, r, old), binary(node, Binary.MUL, node.alias(s, r.shape), new))
        for r, s in zip(running, (mean, variance), strict=True)
    ]
    shifted = binary(node, Binary.ADD, variance, node.constant(np.array(eps, np.float32)))
    normal = binary(node, Binary.DIV, centered, unary(node, shifted, Unary.SQRT))
    result = binary(node, Binary.MUL, normal, node.alias(scale, shape))
    return [binary(node, Binary.ADD, result, node.alias(bias, shape)), *moved]


def standardized(node: Node, x: Tensor, axes: Sequence[int], eps: float) -> Tensor:
    """(x - mean) / sqrt(var + eps) over axes."""
    centered = binary(node, Binary.SUB, x, reduced(node, x, Reduce.MEAN, axes))
    variance = reduced(node, binary(node, Binary.MUL, centered, centered), Reduce.MEAN, axes)
    shifted = binary(node, Binary.ADD, variance, node.constant(np.array(eps, np.float32)))
    return binary(node, Binary.DIV, centered, unary(node, shifted, Unary.SQRT))


def scaled_by_channel(node: Node, x: Tensor, scale: Tensor, bias: Tensor, like: Tensor) -> Tensor:
    """x [n, c, ..] times scale [c] plus bias [c]."""
    node.floats(scale, bias)
    for t in (scale, bias):
        if elements(t.shape) != like.shape[1] and isinstance(like.shape[1], int):
            raise node.fail(f"a parameter of shape {show(t.shape)} for an input of shape {show(like.shape)}")
    shape = (like.shape[1], *[1] * (like.rank - 2))
    product = binary(node, Binary.MUL, x, node.alias(scale, shape))
    return binary(node, Binary.ADD, product, node.alias(bias, shape))


@op("InstanceNormalization")
def instance_normalization(node: Node) -> Tensor:
    x = node.get(0)
    node.floats(x)
    if x.rank < 3:
        raise node.fail(f"an input of shape {show(x.shape)}")
    made = standardized(node, x, range(2, x.rank), node.attr("epsilon", 1e-5))
    return scaled_by_channel(node, made, node.get(1), node.get(2), x)


@op("GroupNormalization")
def group_normalization(node: Node) -> Tensor:
    """Statistics over a group's channels and the spatial axes; before opset 21 one scale a group, since then one a channel."""
    x, scale, bias, groups = node.get(0), node.get(1), node.get(2), node.attr("num_groups")
    node.floats(x, scale, bias)
    if x.rank < 2 or not isinstance(x.shape[1], int) or not groups or x.shape[1] % groups:
        raise node.fail(f"{groups} groups of an input of shape {show(x.shape)}")
    each = x.shape[1] // groups
    split = node.alias(x, (x.shape[0], groups, elements((each, *x.shape[2:]))))
    made = standardized(node, split, (2,), node.attr("epsilon", 1e-5))
    if node.opset < 21:
        return node.alias(scaled_by_channel(node, made, scale, bias, split), x.shape)
    return scaled_by_channel(node, node.alias(made, x.shape), scale, bias, x)


@op("LRN")
def lrn(node: Node) -> Tensor:
    """x / (bias + alpha * mean of the squares of `size` channels around)^beta: the channels are the axis a window moves along."""
    x, size = node.get(0), node.attr("size")
    node.floats(x)
    if x.rank < 2 or not size or size < 1:
        raise node.fail(f"size {size} for an input of shape {show(x.shape)}")
    flat = node.alias(x, (x.shape[0], x.shape[1], elements(x.shape[2:])))
    before = (size - 1) // 2
    window = Window(size, 1, 1, before, size - 1 - before, x.shape[1])
    mean = pool_last(node, binary(node, Binary.MUL, flat, flat), MEAN_PADDED, [window])
    scaled = binary(node, Binary.MUL, mean, node.constant(np.array(node.attr("alpha", 1e-4), np.float32)))
    base = binary(node, Binary.ADD, scaled, node.constant(np.array(node.attr("bias", 1.0), np.float32)))
    power = binary(node, Binary.POW, base, node.constant(np.array(node.attr("beta", 0.75), np.float32)))
    return node.alias(binary(node, Binary.DIV, flat, power), x.shape)
