"""Convolutions and pools: CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV, CONV_3D, AVERAGE_POOL_2D, MAX_POOL_2D, L2_POOL_2D.

All are channels first in ONNX. SAME puts the odd cell of padding at the end, as ONNX's SAME_UPPER; pads are written out where
the image's size is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from frugal.errors import InvalidModel, UnsupportedOperator

from .converter import CLAMPS, Op, channels_first, op
from .reader import Tensor

SAME, VALID = 0, 1


def window_padding(padding: int, size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """Cells before and after one axis of `size` cells."""
    if padding == VALID:
        return 0, 0
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def window(
    o: Op, x: Tensor, padding: int, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> dict[str, Any]:
    """The attributes that Conv and the pools share. x: [N, space.., C]."""
    if min(*kernel, *strides, *dilations) < 1:
        raise InvalidModel(f"kernel {list(kernel)}, strides {list(strides)}, dilations {list(dilations)}: want 1 or more")
    if padding not in (SAME, VALID):
        raise InvalidModel(f"padding {padding}, want 0 (SAME) or 1 (VALID)")
    attributes: dict[str, Any] = {"kernel_shape": list(kernel), "strides": list(strides)}
    if any(d != 1 for d in dilations):
        attributes["dilations"] = list(dilations)
    space = x.shape[1:-1]
    if padding == SAME and min(space) < 0:
        return attributes | {"auto_pad": "SAME_UPPER"}
    pads = [window_padding(padding, *axis) for axis in zip(space, kernel, strides, dilations, strict=True)]
    if any(map(any, pads)):
        attributes["pads"] = [p[0] for p in pads] + [p[1] for p in pads]
    return attributes


def want_rank(t: Tensor, rank: int) -> None:
    """Raises InvalidModel unless t has so many axes."""
    if t.rank != rank:
        raise InvalidModel(f"{t} has shape {list(t.shape)}, want {rank} dimensions")


def bias(o: Op, i: int, x: Tensor, w: Tensor, channels: int) -> list[str]:
    """The bias as floats: int32 through DequantizeLinear with scale s_x s_w, as the integer kernels add it; [] when missing."""
    if not o.has(i):
        return []
    b, c = o.input(i), o.c
    if b.shape not in ((channels,), (1, channels), (1, 1, 1, channels)):
        raise InvalidModel(f"bias {b} has shape {list(b.shape)}, want [{channels}]")
    name = c.names[b.index]
    if b.dtype is None or b.dtype.kind == "f":
        if b.rank != 1:
            return [o.node("Reshape", [c.raw(b), o.c.ints([channels])])]
        return [c.raw(b)]
    if x.quantization is None or w.quantization is None:
        raise InvalidModel(f"bias {b} is {b.dtype}, but input or weights have no scale")
    scale = (x.quantization.scale[0] * w.quantization.scale).astype(np.float32)
    if b.dtype.itemsize == 8:  # DequantizeLinear has no int64
        value = o.const(i, "a 64-bit bias").reshape(-1) * scale.astype(np.float64)
        return [c.constant(f"{name}/real", value.astype(np.float32), ("bias", b.index, scale.tobytes()))]
    scales = c.constant(f"{name}/scale", scale if scale.size > 1 else scale.reshape(()), ("bias scale", scale.tobytes()))
    raw = c.raw(b)
    if b.rank != 1:
        raw = o.node("Reshape", [raw, c.ints([channels])])
    key = ("bias", b.index, scale.tobytes())
    if key not in c.shared:
        c.shared[key] = c.graph.node(
            "DequantizeLinear",
            [raw, scales],
            c.node_name(f"{name}/DequantizeLinear"),
            **({"axis": 0} if scale.size > 1 else {}),
        )[0]
    return [c.shared[key]]


def spatial(o: Op, options: str, names: str, rank: int, default: int = 1) -> list[int]:
    """Options like StrideH, StrideW (names: "Stride") of the spatial axes in order."""
    axes = "DHW"[5 - rank :]
    return [int(o.option(options, names.format(a), default)) for a in axes]


@op("CONV_2D", "CONV_3D")
def conv(o: Op) -> None:
    """x [N, H, W, C], weights [O, kh, kw, C / groups] ([kd, kh, kw, C, O] in 3 D), bias [O]."""
    x, w, y = o.input(0), o.input(1), o.output()
    rank = 4 if o.kind == "CONV_2D" else 5
    options = "Conv2DOptions" if rank == 4 else "Conv3DOptions"
    for t in (x, w, y):
        want_rank(t, rank)
    to_onnx = channels_first(4) if rank == 4 else (4, 3, 0, 1, 2)
    out_channels, in_channels, *kernel = (w.shape[a] for a in to_onnx)
    if x.shape[-1] < 1 or in_channels < 1 or x.shape[-1] % in_channels:
        raise InvalidModel(f"input has {x.shape[-1]} channels, the weights take {in_channels}")
    groups = x.shape[-1] // in_channels
    if out_channels < 1 or out_channels % groups:
        raise InvalidModel(f"{out_channels} output channels in {groups} groups")
    strides, dilations = spatial(o, options, "Stride{}", rank), spatial(o, options, "Dilation{}Factor", rank)
    attributes = window(o, x, o.option(options, "Padding", SAME), kernel, strides, dilations)
    if groups > 1:
        attributes["group"] = groups
    first = channels_first(rank)
    inputs = [o.c.real(x, first), o.c.real(w, to_onnx), *bias(o, 2, x, w, out_channels)]
    o.c.put_real(y, o.node("Conv", inputs, main=True, **attributes), first, o.activation(options))


@op("DEPTHWISE_CONV_2D")
def depthwise(o: Op) -> None:
    """x [N, H, W, C], weights [1, kh, kw, C * multiplier], bias [C * multiplier]."""
    x, w, y = o.input(0), o.input(1), o.output()
    for t in (x, w, y):
        want_rank(t, 4)
    channels, (one, *kernel, out_channels) = x.shape[3], w.shape
    if one != 1 or channels < 1 or out_channels < 1 or out_channels % channels:
        raise InvalidModel(f"weights {list(w.shape)} do not fit {channels} channels")
    options = "DepthwiseConv2DOptions"
    strides, dilations = spatial(o, options, "Stride{}", 4), spatial(o, options, "Dilation{}Factor", 4)
    attributes = window(o, x, o.option(options, "Padding", SAME), kernel, strides, dilations) | {"group": channels}
    first = channels_first(4)
    inputs = [o.c.real(x, first), o.c.real(w, (3, 0, 1, 2)), *bias(o, 2, x, w, out_channels)]
    o.c.put_real(y, o.node("Conv", inputs, main=True, **attributes), first, o.activation(options))


@op("TRANSPOSE_CONV")
def transpose_conv(o: Op) -> None:
    """Output's shape [4], weights [O, kh, kw, I], x [N, H, W, I], bias [O]."""
    w, x, y = o.input(1), o.input(2), o.output()
    for t in (w, x, y):
        want_rank(t, 4)
    shape = o.c.value(o.input(0))
    sizes = list(y.shape) if shape is None else [int(v) for v in shape.reshape(-1)]
    if len(sizes) != 4 or min(sizes[1:3]) < 1 or min(x.shape[1:3]) < 1:
        raise UnsupportedOperator(f"the height and width of input {list(x.shape)} and output {sizes} must be known")
    if w.shape[3] != x.shape[3]:
        raise InvalidModel(f"input has {x.shape[3]} channels, the weights take {w.shape[3]}")
    options = "TransposeConvOptions"
    kernel, strides, padding = list(w.shape[1:3]), spatial(o, options, "Stride{}", 4), o.option(options, "Padding", SAME)
    if min(*kernel, *strides) < 1 or padding not in (SAME, VALID):
        raise InvalidModel(f"kernel {kernel}, strides {strides}, padding {padding}")
    pads, extra = [], []
    for size, out, k, stride in zip(x.shape[1:3], sizes[1:3], kernel, strides, strict=True):
        full = (size - 1) * stride + k
        total = max(full - out, 0) if padding == SAME else 0
        more = out - (full - total)
        # VALID may ask for less than the full size: what lies beyond is cut off, here by padding at the end.
        pads.append((total // 2, total - total // 2 - min(more, 0)))
        extra.append(max(more, 0))
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    if any(map(any, pads)):
        attributes["pads"] = [p[0] for p in pads] + [p[1] for p in pads]
    if any(extra):
        if any(e >= s for e, s in zip(extra, strides, strict=True)):
            raise UnsupportedOperator(f"output {sizes} is larger than stride and kernel reach")
        attributes["output_padding"] = extra
    first = channels_first(4)
    inputs = [o.c.real(x, first), o.c.real(w, (3, 0, 1, 2)), *bias(o, 3, x, w, w.shape[0])]
    o.c.put_real(y, o.node("ConvTranspose", inputs, main=True, **attributes), first, o.activation(options))


@op("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D")
def pool(o: Op) -> None:
    """x [N, H, W, C]; padding counts neither for the average nor for the maximum."""
    x, y = o.input(0), o.output()
    for t in (x, y):
        want_rank(t, 4)
    options, first = "Pool2DOptions", channels_first(4)
    kernel = [o.option(options, name, 0) for name in ("FilterHeight", "FilterWidth")]
    strides = spatial(o, options, "Stride{}", 4)
    attributes = window(o, x, o.option(options, "Padding", SAME), kernel, strides, (1, 1))
    activation = o.activation(options)
    if o.kind == "MAX_POOL_2D":
        raw = o.moving([x], [y], "i1 u1")
        value = o.node("MaxPool", [o.get(x, first, raw)], main=True, **attributes)
        if raw and y.quantized:
            o.c.put(y, clamp_integers(o, value, y, activation, y.dtype), first)
        else:
            o.c.put_real(y, value, first, activation)
        return
    if o.kind == "AVERAGE_POOL_2D" and x.quantized and o.alike(x, y):
        integer_average(o, x, y, attributes, kernel[0] * kernel[1], activation)
        return
    value = o.c.real(x, first)
    if o.kind == "L2_POOL_2D":
        value = o.node("Mul", [value, value])
    value = o.node("AveragePool", [value], main=True, **attributes)
    if o.kind == "L2_POOL_2D":
        value = o.node("Sqrt", [value])
    o.c.put_real(y, value, first, activation)


def integer_average(o: Op, x: Tensor, y: Tensor, attributes: dict[str, Any], count: int, activation: str) -> None:
    """The mean of the integers, halves rounded away from 0 as TFLite does: ties are frequent, and what follows amplifies them.

    The integers are averaged as they are (scale 1, zero point 0), and QuantizeLinear's scale is a little below 1: q / (1 - e) =
    q (1 + e) moves a half off the tie, away from 0, and nothing else, since other means are 1 / (2 count) or more from it.
    """
    assert x.dtype is not None
    c, first, name = o.c, channels_first(4), o.name
    limit = float(np.iinfo(x.dtype).max) + 1
    nudge = max(2.0 ** -np.ceil(np.log2(8 * count * limit)), 2.0**-22)
    zero = c.scalar(0, x.dtype)
    value = c.graph.node("DequantizeLinear", [c.raw(x, first), c.scalar(1.0), zero], c.node_name(f"{name}/DequantizeLinear"))[0]
    value = o.node("AveragePool", [value], main=True, **attributes)
    value = clamp_integers(o, value, y, activation, np.float32)
    inputs = [value, c.constant("const/round_away", np.array(1 - nudge, np.float32), ("round away", nudge)), zero]
    c.put(y, c.graph.node("QuantizeLinear", inputs, c.node_name(f"{name}/QuantizeLinear"))[0], first)


def clamp_integers(o: Op, value: str, y: Tensor, activation: str, dtype: Any) -> str:
    """A fused clamp of integers of y's scale, which `value` holds as `dtype`."""
    if activation == "NONE":
        return value
    if activation not in CLAMPS:
        raise UnsupportedOperator(f"fused activation {activation} is not supported")
    if y.quantization is None:
        raise InvalidModel(f"{y} has no scale for the fused {activation}")
    scale, shift = float(y.quantization.scale[0]), int(y.quantization.zero[0])
    bounds = (None if b is None else shift + round(b / scale) for b in o.c.needed_clamp(y, *CLAMPS[activation]))
    made = ["" if b is None else o.c.scalar(b, dtype) for b in bounds]
    return o.node("Clip", [value, *made]) if any(made) else value
