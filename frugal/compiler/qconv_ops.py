"""Integer convolution, pooling, addition and the like: the operators ConvInteger, QLinearConv and QLinear*Pool, and the integer
forms of float operators that stand between DequantizeLinear and QuantizeLinear (found by qdq.py).

An integer form is `@integer(names)`: it gets the node and the Target of the QuantizeLinear behind it, and returns the codes; it
raises Stay, with the reason, where the node has to run in float.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import dims
from .codes import (
    CODE_TYPES,
    Codes,
    Stay,
    Target,
    codes_of,
    form,
    has_last,
    known_zero,
    last_perm,
    look_up,
    positive,
    publish,
    requantized,
    spread_shape,
    values_of,
)
from .conv_ops import Window, backward, forward
from .dims import Dim
from .ir import Binary, DType, Op, Quantized, Tensor, elements
from .lower import HANDLERS, MICROSOFT, Node, op, show
from .math_ops import binary
from .qpack import can_transform, pack_conv, pack_depth, pack_params, pack_transformed

Integer = Callable[[Node, Target], Tensor]
INTEGER: dict[str, Integer] = {}
MEAN, MEAN_PADDED, MAXIMUM = 0, 1, 2
ADD, MULTIPLY = 0, 1
MAX_MULTIPLIER = 4  # channels of a group of one channel that a depthwise step computes
MIN_TRANSFORMED = 12  # output channels; fewer leave lanes of a panel idle
MAX_TRANSFORMED = 64 * 64 * 9  # weights; more leave the second-level cache when they are transformed
MAX_DEPTH = 1 << 15  # products of a sum that int32 holds whatever the codes are


def integer(*names: str) -> Callable[[Integer], Integer]:
    """Register the integer form of float operators."""

    def register(handler: Integer) -> Integer:
        for name in names:
            INTEGER[name] = handler
        return handler

    return register


# ---- convolutions ----
@dataclass
class Kernel:
    """Weights int8 [oc, c/g, kh, kw], their zero points and scales [oc], and a bias of int32 [oc]."""

    codes: np.ndarray
    zero: np.ndarray
    scale: np.ndarray
    bias: np.ndarray


def signed(codes: np.ndarray, zero: np.ndarray | None, n: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 or uint8 codes as int8, and a zero point for each of n channels."""
    zeros = np.zeros(n, np.int32) if zero is None else np.broadcast_to(zero.reshape(-1), (n,)).astype(np.int32)
    if codes.dtype == np.uint8:
        return (codes ^ 0x80).view(np.int8), zeros - 128
    return codes, zeros


def kernel_of(quant: Quantized, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(codes, zero, scale) of weights that are quantized as a whole or along an axis of channels."""
    if quant.bits != 8 or quant.block or quant.codes.dtype not in (np.int8, np.uint8):
        raise Stay("its weights have other than 8 bits or are quantized in blocks")
    if quant.scale.size > 1 and quant.axis != axis:
        raise Stay("its weights are not quantized by output channel")
    n = quant.codes.shape[axis]
    codes, zero = signed(quant.codes, quant.zero, n)
    scale = np.broadcast_to(quant.scale.reshape(-1), (n,)).astype(np.float32)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise Stay("a scale of its weights is not a positive number")
    return codes, zero, scale


def bias_of(tensor: Tensor | None, scale: np.ndarray) -> np.ndarray:
    """A bias as int32 of scale [oc]: its own codes where that is their scale, else rounded."""
    if tensor is None:
        return np.zeros(scale.size, np.int32)
    if not tensor.known:
        raise Stay("its bias is computed at run time")
    quant = tensor.quant
    if quant is not None and quant.bits == 32 and quant.zero is None and np.allclose(quant.scale, scale, rtol=1e-5, atol=0.0):
        return np.broadcast_to(quant.codes.reshape(-1), scale.shape).astype(np.int32)
    values = np.rint(tensor.value().reshape(-1).astype(np.float64) / scale.astype(np.float64))
    if not (np.abs(values) < 2.0**30).all():
        raise Stay("its bias is too large for int32 at the scale of the products")
    return np.broadcast_to(values, scale.shape).astype(np.int32)


def conv_attrs(groups: int, windows: Sequence[Window], spread: Sequence[int]) -> list[Any]:
    rows, columns = windows
    return [
        groups, rows.kernel, columns.kernel, rows.stride, columns.stride, rows.dilation, columns.dilation, *spread, rows.before,
        columns.before,
    ]  # fmt: skip


def flat(size: Dim) -> Window:
    return Window(1, 1, 1, 0, 0, size)


def pays_transformed(kernel: Kernel, windows: Sequence[Window], spread: Sequence[int], groups: int) -> bool:
    """Whether Winograd's transformed weights go into the plan as well: int16, eight times the bytes of the plain ones."""
    if groups != 1 or any(w.stride != 1 or w.dilation != 1 for w in windows) or any(s != 1 for s in spread):
        return False
    return (
        kernel.codes.shape[0] >= MIN_TRANSFORMED
        and kernel.codes.size <= MAX_TRANSFORMED
        and not kernel.zero.any()
        and can_transform(kernel.codes)
    )


def emit_conv(
    node: Node, data: Tensor, zero: int, kernel: Kernel, multiplier: np.ndarray, windows: Sequence[Window], spread: Sequence[int],
    groups: int, target: Target, dtype: int,
) -> Tensor:  # fmt: skip
    """A QCONV or QDEPTH of data [n, h, w, c] -> [n, oh, ow, oc]."""
    oc, cg = kernel.codes.shape[:2]
    depth = cg == 1 and groups > 1 and oc // groups <= MAX_MULTIPLIER and dtype in CODE_TYPES and not kernel.zero.any()
    dilated = windows[1].dilation != 1
    if cg * kernel.codes[0, 0].size > MAX_DEPTH:
        raise Stay("it sums more products than int32 holds")
    weights = pack_depth(kernel.codes) if depth else pack_conv(kernel.codes, groups, dilated)
    params = pack_params(kernel.codes, kernel.zero, kernel.bias, multiplier, zero, 1 if depth else groups)
    attrs = [*conv_attrs(groups, windows, spread), zero, target.zero, target.low, target.high]
    shape = (data.shape[0], windows[0].out, windows[1].out, oc)
    operands = [data, node.constant(weights), node.constant(params)]
    if not depth and pays_transformed(kernel, windows, spread, groups):
        operands.append(node.constant(pack_transformed(kernel.codes)))
    return node.emit(Op.QDEPTH if depth else Op.QCONV, operands, dtype, shape, *attrs)


def image(node: Node, tensor: Tensor) -> Tensor:
    """Codes of [n, c, ..] as [n, h, w, c]."""
    data = form(node, tensor, last=True)
    return node.alias(data, spread_shape(data.shape))


def convolve(
    node: Node, x: Codes, kernel: Kernel, made: Sequence[Window], spread: Sequence[int], groups: int, target: Target
) -> Tensor:
    """Codes of a convolution with one or two spatial axes; windows and spread are those of its axes."""
    windows = list(made) if len(made) == 2 else [flat(1), *made]
    steps = list(spread) if len(made) == 2 else [1, *spread]
    codes = kernel.codes if kernel.codes.ndim == 4 else kernel.codes[:, :, None]
    kernel = Kernel(codes, kernel.zero, kernel.scale, kernel.bias)
    multiplier = (x.scale * kernel.scale) / target.scale
    y = emit_conv(
        node, image(node, x.tensor), x.zero, kernel, multiplier, windows, steps, groups, target, target.step_dtype
    )  # fmt: skip
    result = node.alias(y, (y.shape[0], *(w.out for w in made), y.shape[3]))
    return publish(node, result, target.dtype, last=True)


def check_image(x: Tensor, channels: int) -> None:
    if x.rank not in (3, 4):
        raise Stay(f"its input {show(x.shape)} has not one or two spatial axes")
    if x.shape[1] != channels:
        raise Stay(f"its input {show(x.shape)} has not the {channels} channels of its weights")


def weight_quant(node: Node, index: int) -> Quantized:
    quant = node.get(index).quant
    if quant is None:
        raise Stay("its weights are not quantized constants")
    return quant


@integer("Conv")
def conv(node: Node, target: Target) -> Tensor:
    x, groups = codes_of(node, node.get(0)), node.attr("group", 1)
    codes, zero, scale = kernel_of(weight_quant(node, 1), 0)
    check_image(x.tensor, codes.shape[1] * groups)
    if codes.ndim != x.tensor.rank or codes.shape[0] % groups:
        raise node.fail(f"weights {codes.shape} do not fit an input of {show(x.tensor.shape)} in {groups} groups")
    kernel = Kernel(codes, zero, scale, bias_of(node.optional(2), x.scale * scale))
    made = forward(node, x.tensor.shape[2:], list(node.attr("kernel_shape", codes.shape[2:])))
    return convolve(node, x, kernel, made, [1] * len(made), groups, target)


@integer("ConvTranspose")
def conv_transpose(node: Node, target: Target) -> Tensor:
    """A convolution of the spread input with the kernel turned round."""
    x, groups, quant = codes_of(node, node.get(0)), node.attr("group", 1), weight_quant(node, 1)
    if quant.scale.size > 1 and groups > 1:
        raise Stay("its weights are quantized by channel of several groups")
    codes, zero, scale = kernel_of(quant, 1)
    check_image(x.tensor, codes.shape[0])
    made = backward(node, x.tensor.shape[2:], list(node.attr("kernel_shape", codes.shape[2:])))
    spread = [w.stride for w in made]
    for w in made:
        w.before = dims.add(w.extent - 1, dims.mul(w.before, -1))
        if not isinstance(w.before, int) or w.before < 0:
            raise Stay("it cuts off more than its kernel adds")
        w.stride = 1
    each = codes.reshape(groups, -1, *codes.shape[1:])
    turned = np.flip(each.swapaxes(1, 2), tuple(range(3, each.ndim))).reshape(-1, each.shape[1], *codes.shape[2:])
    zero, scale = np.tile(zero, groups), np.tile(scale, groups)
    kernel = Kernel(np.ascontiguousarray(turned), zero, scale, bias_of(node.optional(2), x.scale * scale))
    return convolve(node, x, kernel, made, spread, groups, target)


def product(node: Node, target: Target, n_axis: int, bias: Tensor | None) -> Tensor:
    """x [.., k] times constant weights [n, k] (n_axis 0) or [k, n], as a convolution of one-pixel kernels."""
    x = codes_of(node, node.get(0))
    quant = weight_quant(node, 1)
    if quant.codes.ndim != 2 or x.tensor.rank < 2:
        raise Stay("it is not the product of a matrix and constant weights")
    codes, zero, scale = kernel_of(quant, n_axis)
    codes = codes if n_axis == 0 else codes.T
    n, k = codes.shape
    if x.tensor.shape[-1] != k:
        raise Stay(f"its input {show(x.tensor.shape)} is not {k} deep")
    data = form(node, x.tensor, last=False)
    rows = elements(data.shape[:-1])
    kernel = Kernel(codes.reshape(n, k, 1, 1), zero, scale, bias_of(bias, x.scale * scale))
    multiplier = (x.scale * scale) / target.scale
    pixels = node.alias(data, (1, 1, rows, k))
    y = emit_conv(node, pixels, x.zero, kernel, multiplier, [flat(1), flat(rows)], (1, 1), 1, target, target.step_dtype)
    return publish(node, node.alias(y, (*x.tensor.shape[:-1], n)), target.dtype, last=False)


@integer("Gemm")
def gemm(node: Node, target: Target) -> Tensor:
    if (
        node.attr("transA", 0)
        or node.attr("alpha", 1.0) != 1.0
        or (node.optional(2) is not None and node.attr("beta", 1.0) != 1.0)
    ):
        raise Stay("its first matrix is transposed, or alpha or beta is not 1")
    n_axis, bias = (0 if node.attr("transB", 0) else 1), node.optional(2)
    n = node.get(1).shape[n_axis]
    if bias is not None and elements(bias.shape) not in (1, n):
        raise Stay("its bias is a matrix")
    return product(node, target, n_axis, bias)


@integer("MatMul")
def matmul(node: Node, target: Target) -> Tensor:
    return product(node, target, 1, None)


# ---- two operands ----
def same_form(node: Node, operands: Sequence[Codes]) -> bool:
    """Whether operands are best read with their channels last: all of one rank, and the codes of one lie so already."""
    ranks = {c.tensor.rank for c in operands}
    return len(ranks) == 1 and any(has_last(node, c.tensor) for c in operands)


def pair(node: Node, target: Target, kind: int, ma: float, mb: float, a: Codes, b: Codes) -> Tensor:
    last = same_form(node, (a, b))
    x, y = (form(node, c.tensor, last) for c in (a, b))
    attrs = (kind, a.zero, b.zero, target.zero, target.low, target.high, ma, mb)
    made = node.emit(Op.QBINARY, [x, y], target.step_dtype, node.broadcast(x.shape, y.shape), *attrs)
    return publish(node, made, target.dtype, last)


def constant_function(node: Node, target: Target) -> Tensor | None:
    """The table of an operator all of whose operands but one are constants of one element."""
    variable = [i for i, t in enumerate(node.inputs) if t is not None and not t.known]
    fixed = [t for t in node.inputs if t is not None and t.known]
    if len(variable) != 1 or any(t.value().size != 1 or t.rank > node.get(variable[0]).rank for t in fixed):
        return None
    x = codes_of(node, node.get(variable[0]))
    return look_up(node, x, evaluate(node, variable[0], values_of(x)), target)


@integer("Add", "Sub", "Mul")
def arithmetic(node: Node, target: Target) -> Tensor:
    made = constant_function(node, target)
    if made is not None:
        return made
    a, b = codes_of(node, node.get(0)), codes_of(node, node.get(1))
    if node.type == "Mul":
        return pair(node, target, MULTIPLY, float((a.scale * b.scale) / target.scale), 0.0, a, b)
    sign = -1.0 if node.type == "Sub" else 1.0
    return pair(node, target, ADD, float(a.scale / target.scale), sign * float(b.scale / target.scale), a, b)


def qlinear_pair(node: Node) -> Tensor | None:
    """QLinearAdd or QLinearMul on integers; None where a scale or zero point is known only at run time."""
    dtype = node.get(0).dtype
    try:
        a = Codes(node.get(0), positive(node.get(1)), known_zero(node.optional(2), dtype))
        b = Codes(node.get(3), positive(node.get(4)), known_zero(node.optional(5), node.get(3).dtype))
        target = Target(positive(node.get(6)), known_zero(node.optional(7), dtype), dtype)
    except Stay:
        return None
    if node.type == "QLinearMul":
        return pair(node, target, MULTIPLY, float((a.scale * b.scale) / target.scale), 0.0, a, b)
    return pair(node, target, ADD, float(a.scale / target.scale), float(b.scale / target.scale), a, b)


# ---- pooling ----
def pool(node: Node, x: Codes, kind: int, windows: Sequence[Window] | None, target: Target) -> Tensor:
    """Over windows of one or two spatial axes, or all of them."""
    data = image(node, x.tensor)
    kernel: list[Any] = [0, 0, 1, 1, 1, 1, 0, 0]
    out: tuple[Dim, ...] = tuple(1 for _ in x.tensor.shape[2:])
    if windows is not None:
        rows, columns = windows if len(windows) == 2 else (flat(1), *windows)
        kernel = [
            rows.kernel, columns.kernel, rows.stride, columns.stride, rows.dilation, columns.dilation, rows.before,
            columns.before,
        ]  # fmt: skip
        out = tuple(w.out for w in windows)
    ratio = 1.0 if kind == MAXIMUM else float(x.scale / target.scale)
    dtype = data.dtype if kind == MAXIMUM else target.step_dtype
    shape = spread_shape((data.shape[0], *out, data.shape[3]))
    made = node.emit(Op.QPOOL, [data], dtype, shape, kind, *kernel, x.zero, target.zero, ratio)
    result = node.alias(made, (data.shape[0], *out, data.shape[3]))
    if kind != MAXIMUM:
        return publish(node, result, target.dtype, last=True)
    return requantized(node, Codes(publish(node, result, x.tensor.dtype, last=True), x.scale, x.zero), target)


def unclamped(target: Target) -> None:
    if (target.low, target.high) != (0, 255):
        raise Stay("an activation follows a pooling")


def pooled(node: Node) -> Codes:
    x = codes_of(node, node.get(0))
    check_image(x.tensor, x.tensor.shape[1] if x.tensor.rank > 1 else 0)  # type: ignore[arg-type]
    return x


@integer("AveragePool", "MaxPool")
def window_pool(node: Node, target: Target) -> Tensor:
    unclamped(target)
    if node.type == "MaxPool" and (node.attr("storage_order", 0) or any(node.proto.output[1:])):
        raise Stay("it also returns indices")
    x = pooled(node)
    ceil, padded = bool(node.attr("ceil_mode", 0)), bool(node.attr("count_include_pad", 0))
    made = forward(node, x.tensor.shape[2:], list(node.attr("kernel_shape")), ceil)
    if ceil and padded:
        raise Stay("its last windows stick out of the padding that it counts")
    kind = MAXIMUM if node.type == "MaxPool" else MEAN_PADDED if padded else MEAN
    return pool(node, x, kind, made, target)


@integer("GlobalAveragePool", "GlobalMaxPool")
def global_pool(node: Node, target: Target) -> Tensor:
    unclamped(target)
    return pool(node, pooled(node), MAXIMUM if node.type == "GlobalMaxPool" else MEAN, None, target)


@integer("ReduceMean")
def reduce_mean(node: Node, target: Target) -> Tensor:
    """The mean over all spatial axes."""
    unclamped(target)
    x, axes = pooled(node), node.axes(1)
    rank = x.tensor.rank
    if axes is None or sorted(a % rank for a in axes) != list(range(2, rank)):
        raise Stay("its mean is not over the spatial axes")
    made = pool(node, x, MEAN, None, target)
    return made if node.attr("keepdims", 1) else node.alias(made, made.shape[:2])


# ---- functions of one operand ----
def evaluate(node: Node, index: int, values: np.ndarray) -> np.ndarray:
    """The results of an elementwise operator for values of one input, by onnx.reference."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    feeds: dict[Any, np.ndarray] = {
        name: t.value() for name, t in zip(node.proto.input, node.inputs, strict=True) if t is not None and t.known
    }
    feeds[node.proto.input[index]] = values
    infos = [onnx.helper.make_value_info(n, onnx.TypeProto()) for n in feeds]
    outputs = [onnx.helper.make_value_info(node.proto.output[0], onnx.TypeProto())]
    imports = [onnx.helper.make_opsetid(d, v) for d, v in node.lowering.opsets.items()]
    model = onnx.helper.make_model(onnx.helper.make_graph([node.proto], "table", infos, outputs), opset_imports=imports)
    try:
        with np.errstate(all="ignore"):
            results: Any = ReferenceEvaluator(model).run(None, feeds)
            result = np.asarray(results[0])
    except Exception as error:  # the reference has its own gaps
        raise Stay("onnx.reference cannot say what it computes") from error
    if result.size != values.size:
        raise Stay("it is not a function of one element")
    return result.reshape(values.shape)


@integer(
    "Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Selu", "HardSigmoid", "HardSwish", "Gelu", "Softplus", "Softsign",
    "Exp", "Log", "Sqrt", "Abs", "Neg", "Reciprocal", "Erf", "Floor", "Ceil", "Round", "Mish", "Swish", "Celu", "ThresholdedRelu",
    "Div", "Pow", "Sin", "Cos", "Min", "Max", "QuickGelu",
)  # fmt: skip
def function(node: Node, target: Target) -> Tensor:
    made = constant_function(node, target)
    if made is None:
        raise Stay("it has more than one operand that is no constant of one element")
    return made


@integer("Softmax")
def softmax(node: Node, target: Target) -> Tensor:
    unclamped(target)
    x = codes_of(node, node.get(0))
    rank = x.tensor.rank
    axis = node.axis(node.attr("axis", -1 if node.opset >= 13 else 1), rank)
    if node.opset < 13 and axis != rank - 1:
        raise Stay("it is over several axes")
    data = form(node, x.tensor, last=False)
    table = np.exp(-np.arange(256, dtype=np.float64) * float(x.scale)).astype(np.float32)
    ratio = float(np.float32(1.0) / target.scale)
    made = node.emit(Op.QSOFTMAX, [data, node.constant(table)], target.step_dtype, data.shape, axis, target.zero, ratio)
    return publish(node, made, target.dtype, last=False)


# ---- moving codes ----
@integer("Concat")
def concat(node: Node, target: Target) -> Tensor:
    unclamped(target)
    parts = [codes_of(node, t) for t in node.inputs]
    rank = parts[0].tensor.rank
    axis = node.axis(node.attr("axis", 0), rank)
    inner = Target(target.scale, target.zero, DType.UINT8 if target.inner else target.dtype)
    same = [Codes(requantized(node, part, inner), target.scale, target.zero) for part in parts]
    last = same_form(node, same) and rank > 2
    data = [form(node, c.tensor, last) for c in same]
    if len({t.dtype for t in data}) > 1:
        raise Stay("its operands are int8 and uint8")
    shape = list(data[0].shape)
    at = last_perm(rank).index(axis) if last else axis
    for t in data[1:]:
        shape[at] = dims.add(shape[at], t.shape[at])
    made = node.emit(Op.CONCAT, data, data[0].dtype, shape, at)
    return publish(node, made, target.dtype, last)


@integer("Pad", "Resize", "DepthToSpace", "SpaceToDepth")
def moved(node: Node, target: Target) -> Tensor:
    """Operators that move elements, by their own handlers on codes; what Pad adds is the code of its value."""
    from onnx import NodeProto

    unclamped(target)
    nearest = node.attr("mode", "nearest") == "nearest"
    if (node.type == "Resize" and not nearest) or (node.opset < 11 and node.type in ("Pad", "Resize")):
        raise Stay("it computes new values")
    x = codes_of(node, node.get(0))
    data = form(node, x.tensor, last=False)
    proto = NodeProto()
    proto.CopyFrom(node.proto)
    values = node.lowering.values
    proto.input[0] = f"{node.name}/codes"
    values[proto.input[0]] = data
    if node.type == "Pad" and node.attr("mode", "constant") == "constant":
        value = node.optional(2)
        if value is not None and (not value.known or value.value().size != 1):
            raise Stay("its value is computed at run time")
        number = 0.0 if value is None else float(value.value().reshape(-1)[0])
        code = np.clip(np.rint(number / x.scale) + x.zero, 0, 255).astype(np.uint8)
        while len(proto.input) < 3:
            proto.input.append("")
        proto.input[2] = f"{node.name}/value"
        values[proto.input[2]] = node.constant((code ^ 0x80).view(np.int8) if data.dtype == DType.INT8 else np.array(code))
    handler = HANDLERS.get(("", node.type))
    if handler is None:
        raise Stay("there is no step that moves codes like this")
    made = handler(Node(node.lowering, proto))
    return requantized(node, Codes(made, x.scale, x.zero), target)


# ---- the operators themselves ----
def spatial_four(node: Node, x: Tensor) -> Tensor:
    """[n, c, l] as [n, c, 1, l]."""
    if x.rank == 4:
        return x
    if x.rank != 3:
        raise node.unsupported(f"an integer convolution of {show(x.shape)}; one and two spatial axes are computed")
    return node.alias(x, (*x.shape[:2], 1, x.shape[2]))


def run_time_sums(node: Node, x: Tensor, w: Tensor, x_zero: Tensor | None, w_zero: Tensor | None) -> Tensor:
    """int32 sums of operands known only at run time, by CONV_INTEGER."""
    data, weights, groups = spatial_four(node, x), spatial_four(node, w), node.attr("group", 1)
    kernel = [d for d in w.shape[2:] if isinstance(d, int)]
    if len(kernel) != x.rank - 2:
        raise node.unsupported("a kernel of a size known only at run time")
    made = forward(node, x.shape[2:], kernel)
    rows, columns = made if len(made) == 2 else (flat(1), *made)
    attrs = (groups, rows.stride, columns.stride, rows.dilation, columns.dilation, rows.before, columns.before)
    shape = (x.shape[0], w.shape[0], rows.out, columns.out)
    y = node.emit(Op.CONV_INTEGER, [data, weights, x_zero, w_zero], DType.INT32, shape, *attrs)
    return node.alias(y, (*shape[:2], *(w.out for w in made)))


def constant_kernel(w: Tensor, zero: Tensor | None, scale: np.ndarray, bias: np.ndarray) -> Kernel | None:
    if w.const is None or (zero is not None and zero.const is None):
        return None
    codes, zeros = signed(w.const, None if zero is None else zero.const, w.const.shape[0])
    return Kernel(codes, zeros, np.broadcast_to(scale.reshape(-1), zeros.shape).astype(np.float32), bias)


def integer_types(node: Node, *operands: Tensor) -> None:
    for t in operands:
        if t.dtype not in CODE_TYPES:
            raise node.unsupported(f"'{t.name}' is neither int8 nor uint8")


@op("ConvInteger")
def conv_integer(node: Node) -> Tensor:
    x, w, x_zero, w_zero = node.get(0), node.get(1), node.optional(2), node.optional(3)
    integer_types(node, x, w)
    n, groups = w.shape[0], node.attr("group", 1)
    kernel = constant_kernel(w, w_zero, np.ones(1, np.float32), np.zeros(0, np.int32))
    fits = x.rank in (3, 4) and isinstance(n, int) and x.shape[1] == w.shape[1] * groups and x.const is None
    if kernel is None or not fits or (x_zero is not None and x_zero.const is None):
        return run_time_sums(node, x, w, x_zero, w_zero)
    kernel.bias = np.zeros(kernel.zero.size, np.int32)
    made = forward(node, x.shape[2:], list(kernel.codes.shape[2:]))
    windows = list(made) if len(made) == 2 else [flat(1), *made]
    kernel.codes = kernel.codes if kernel.codes.ndim == 4 else kernel.codes[:, :, None]
    zero, target = known_zero(x_zero, x.dtype), Target(np.float32(1), 0, DType.INT32)
    y = emit_conv(
        node, image(node, x), zero, kernel, kernel.scale, windows, (1, 1), groups, target, DType.INT32
    )  # fmt: skip
    return publish(node, node.alias(y, (y.shape[0], *(w.out for w in made), y.shape[3])), DType.INT32, last=True)


@op("QLinearConv")
def qlinear_conv(node: Node) -> Tensor:
    x, w, bias, groups = node.get(0), node.get(3), node.optional(8), node.attr("group", 1)
    integer_types(node, x, w, node.get(7))
    if x.const is None and w.const is not None and (bias is None or bias.const is not None):
        try:
            target = Target(positive(node.get(6)), known_zero(node.get(7), node.get(7).dtype), node.get(7).dtype)
            codes = Codes(x, positive(node.get(1)), known_zero(node.get(2), x.dtype))
            scale = node.array(4, "the scale of the weights")
            check_image(x, w.const.shape[1] * groups)
            values = np.zeros(w.const.shape[0], np.int32) if bias is None or bias.const is None else bias.const
            kernel = constant_kernel(w, node.get(5), scale, values)
            made = forward(node, x.shape[2:], list(w.const.shape[2:]))
            if kernel is not None:
                return convolve(node, codes, kernel, made, [1] * len(made), groups, target)
        except Stay:
            pass  # with run-time operands
    return qlinear_conv_at_run_time(node, x, w, bias)


def qlinear_conv_at_run_time(node: Node, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
    """The sums, scaled as (x_scale * w_scale) / y_scale in float32 and rounded to codes."""
    sums = run_time_sums(node, x, w, node.get(2), node.get(5))
    channels = (*(1 for _ in x.shape[2:]),)
    if bias is not None:
        sums = binary(node, Binary.ADD, sums, node.alias(bias, (*bias.shape, *channels)))
    scale = binary(node, Binary.MUL, one(node, node.get(1)), channel_scale(node, node.get(4), channels))
    scale = binary(node, Binary.DIV, scale, one(node, node.get(6)))
    values = binary(node, Binary.MUL, node.emit(Op.CAST, [sums], DType.FLOAT, sums.shape), scale)
    unit = node.constant(np.ones((), np.float32))
    return node.emit(Op.QUANTIZE, [values, unit, one(node, node.get(7))], node.get(7).dtype, values.shape, 0, 0)


def one(node: Node, scalar: Tensor) -> Tensor:
    """A tensor of one element without axes."""
    if elements(scalar.shape) != 1:
        raise node.unsupported(f"'{scalar.name}' is {show(scalar.shape)} instead of one number")
    return node.alias(scalar, ())


def channel_scale(node: Node, scale: Tensor, channels: tuple[int, ...]) -> Tensor:
    return node.alias(scale, ()) if elements(scale.shape) == 1 else node.alias(scale, (*scale.shape, *channels))


@op("QLinearAveragePool", "QLinearGlobalAveragePool", domain=MICROSOFT)
def qlinear_pool(node: Node) -> Tensor:
    """x, its scale and zero point, the scale and zero point of y; channels_last: x is [n, .., c]."""
    x = node.get(0)
    integer_types(node, x)
    zeros = (node.optional(2), node.optional(4))
    try:
        codes = Codes(x, positive(node.get(1)), known_zero(zeros[0], x.dtype))
        target = Target(positive(node.get(3)), known_zero(zeros[1], x.dtype), x.dtype)
    except Stay as reason:
        raise node.unsupported(str(reason)) from None
    if node.attr("channels_last", 0):
        perm = (0, x.rank - 1, *range(1, x.rank - 1))
        turned = node.emit(Op.TRANSPOSE, [x], x.dtype, [x.shape[p] for p in perm], *perm)
        codes.tensor = turned
    if codes.tensor.rank not in (3, 4):
        raise node.unsupported(f"pooling of {show(x.shape)}; one and two spatial axes are computed")
    padded, ceil = bool(node.attr("count_include_pad", 0)), bool(node.attr("ceil_mode", 0))
    windows = None
    if node.type == "QLinearAveragePool":
        windows = forward(node, codes.tensor.shape[2:], list(node.attr("kernel_shape")), ceil)
        if padded and ceil:
            raise node.unsupported("counting the padding when the last windows stick out of it")
    y = pool(node, codes, MEAN_PADDED if padded and windows else MEAN, windows, target)
    if not node.attr("channels_last", 0):
        return y
    return node.emit(Op.TRANSPOSE, [y], y.dtype, [y.shape[p] for p in last_perm(y.rank)], *last_perm(y.rank))
