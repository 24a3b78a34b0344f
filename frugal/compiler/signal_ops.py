"""Handlers of Fourier transforms, window functions and mel filter banks."""

from __future__ import annotations

from math import pi

import numpy as np

from . import dims
from .dims import Dim
from .ir import Binary, DType, Op, Tensor
from .lower import Node, op, show, type_name
from .math_ops import binary
from .types_ops import cast_to

TABLE_LIMIT = 1 << 16  # numbers of a transform whose table the plan holds
MAX_FACTOR = 61  # the largest prime factor that the executor's stages have
# constant term, factors of the cosines of one and of two periods
WINDOWS = {"HannWindow": (0.5, -0.5, 0.0), "HammingWindow": (25 / 46, 25 / 46 - 1, 0.0), "BlackmanWindow": (0.42, -0.5, 0.08)}


def real_or_complex(node: Node, x: Tensor) -> Tensor:
    """A signal whose last axis has 1 or 2 parts, as float32 or float64."""
    if x.rank < 2 or x.shape[-1] not in (1, 2):
        raise node.unsupported(f"'{x.name}' is {show(x.shape)}; the last axis has to be known to be 1 or 2")
    if x.dtype not in (DType.FLOAT, DType.DOUBLE):
        raise node.unsupported(f"'{x.name}' is {type_name(x.dtype)}; signals are float32 or float64")
    return x


def table(node: Node, length: Dim) -> Tensor | None:
    """cos and sin of 2 pi i / length, where a transform of known length reads them."""
    if not isinstance(length, int) or not 0 < length <= TABLE_LIMIT:
        return None
    rest = length
    for factor in range(2, MAX_FACTOR + 1):
        while rest % factor == 0:
            rest //= factor
    if rest != 1:
        return None
    angles = np.arange(length) * (2 * pi / length)
    return node.constant(np.stack([np.cos(angles), np.sin(angles)], axis=1))


def scalar(node: Node, index: int, what: str) -> Dim | None:
    """A size given as a tensor of one element, known now or in the run; None when absent."""
    tensor = node.optional(index)
    if tensor is None:
        return None
    values = node.sizes(index, what)
    if len(values) != 1:
        raise node.fail(f"{what} '{tensor.name}' is {show(tensor.shape)}, not one number")
    return values[0]


# ---- DFT ----
def axis_of(node: Node, x: Tensor) -> Dim:
    """The axis of a DFT, counted from the front; one that the run brings is counted there."""
    tensor = node.optional(2) if node.opset >= 20 else None
    if tensor is None:
        value = node.attr("axis", 1) if node.opset < 20 else -2
    elif node.lowering.symbols(tensor) is not None:
        (value,) = node.ints(2, "axis")
    else:
        rank = node.constant(np.array(x.rank, np.int64))
        positive = binary(node, Binary.ADD, cast_to(node, tensor, DType.INT64), rank)
        return node.late(binary(node, Binary.MOD, positive, rank))
    axis = node.axis(int(value), x.rank)
    if axis == x.rank - 1:
        raise node.fail("the axis is the one of real and imaginary parts")
    return axis


def along(shape: tuple[Dim, ...], axis: Dim) -> Dim:
    """The dim of shape along an axis that may only be known in the run."""
    if isinstance(axis, int):
        return shape[axis]
    total: Dim = 0
    for i, d in enumerate(shape):
        total = dims.add(total, dims.mul(dims.equal(axis, i), d))
    return total


def replaced(shape: tuple[Dim, ...], axis: Dim, size: Dim) -> list[Dim]:
    """shape with another size along an axis."""
    if isinstance(axis, int):
        return [size if i == axis else d for i, d in enumerate(shape)]
    if size == along(shape, axis):
        return list(shape)
    result: list[Dim] = []
    for i, d in enumerate(shape):
        here = dims.equal(axis, i)
        result.append(dims.add(dims.mul(here, size), dims.mul(dims.sub0(1, here), d)))
    return result


@op("DFT")
def dft(node: Node) -> Tensor:
    x = real_or_complex(node, node.get(0))
    inverse, onesided = bool(node.attr("inverse", 0)), bool(node.attr("onesided", 0))
    if onesided and not inverse and x.shape[-1] != 1:
        raise node.fail("one side of the transform of a complex signal")
    if onesided and inverse and x.shape[-1] != 2:
        raise node.fail("the inverse of one side of a transform needs real and imaginary parts")
    axis, length = axis_of(node, x), scalar(node, 1, "dft_length")
    if length is None:
        length = along(x.shape[:-1], axis)
        if onesided and inverse:
            length = dims.mul(2, dims.sub0(length, 1))
    out = dims.add(dims.floordiv(length, 2), 1) if onesided and not inverse else length
    result = [*replaced(x.shape[:-1], axis, out), 1 if onesided and inverse else 2]
    return node.emit(Op.DFT, [x, table(node, length)], x.dtype, result, axis, length, int(inverse), int(onesided))


@op("STFT")
def stft(node: Node) -> Tensor:
    signal, window = node.get(0), node.optional(2)
    if signal.rank == 2:
        signal = node.alias(signal, (*signal.shape, 1))
    x = real_or_complex(node, signal)
    if x.rank != 3:
        raise node.fail(f"the signal is {show(x.shape)}, not [batch, length, 1 or 2]")
    if window is not None:
        window = cast_to(node, window, x.dtype)
        if window.rank != 1:
            raise node.fail(f"the window is {show(window.shape)}")
    onesided = bool(node.attr("onesided", 1))
    if onesided and x.shape[2] != 1:
        raise node.fail("one side of the transform of a complex signal")
    step, length = scalar(node, 1, "frame_step"), scalar(node, 3, "frame_length")
    if step is None or step == 0:
        raise node.fail("the step between frames is missing or 0")
    if length is None:
        length = x.shape[1] if window is None else window.shape[0]
    frames = dims.add(dims.floordiv(dims.sub0(x.shape[1], length), step), 1)
    bins = dims.add(dims.floordiv(length, 2), 1) if onesided else length
    shape = (x.shape[0], frames, bins, 2)
    return node.emit(Op.STFT, [x, window, table(node, length)], x.dtype, shape, step, length, int(onesided))


# ---- windows and filter banks ----
@op(*WINDOWS)
def window_function(node: Node) -> Tensor:
    size = scalar(node, 0, "the size")
    if size is None:
        raise node.fail("the size is missing")
    dtype = node.attr("output_datatype", int(DType.FLOAT))
    made_as = dtype if dtype in (DType.FLOAT, DType.DOUBLE) else DType.FLOAT
    made = node.emit(Op.WINDOW, [], made_as, (size,), int(bool(node.attr("periodic", 1))), *WINDOWS[node.type])
    return cast_to(node, made, dtype)


@op("MelWeightMatrix")
def mel_weight_matrix(node: Node) -> Tensor:
    bands, length = scalar(node, 0, "num_mel_bins"), scalar(node, 1, "dft_length")
    if bands is None or length is None:
        raise node.fail("num_mel_bins or dft_length is missing")
    dtype = node.attr("output_datatype", int(DType.FLOAT))
    made_as = dtype if dtype in (DType.FLOAT, DType.DOUBLE) else DType.FLOAT
    sizes = [node.get(i) for i in range(3)]
    edges = [t if t.dtype == DType.DOUBLE else cast_to(node, t, DType.FLOAT) for t in (node.get(3), node.get(4))]
    shape = (dims.add(dims.floordiv(length, 2), 1), bands)
    return cast_to(node, node.emit(Op.MEL, [*sizes, *edges], made_as, shape), dtype)
