"""DFT, STFT, windows and mel filter banks against numpy's double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import frugal
from frugal.compiler import compile_model

from .models import Builder

LENGTHS = [1, 2, 3, 4, 5, 8, 12, 16, 30, 61, 64, 67, 100, 127, 134, 243, 400, 509, 512, 1000, 1024, 4099, 10007]
# float32 outputs are the double result rounded once: half a unit in the last place, relative to the largest value since a sum
# of n numbers cancels to that in double only
EPS = {np.float32: 1e-7, np.float64: 1e-14}


def run(model: onnx.ModelProto, *feeds: np.ndarray, threads: int = 1) -> np.ndarray:
    options = frugal.SessionOptions()
    options.intra_op_num_threads = threads
    session = frugal.InferenceSession(compile_model(model), options)
    (result,) = session.run(None, dict(zip([i.name for i in session.get_inputs()], feeds, strict=True)))
    assert isinstance(result, np.ndarray)
    return result


def close(got: np.ndarray, want: np.ndarray, kind: Any = np.float32) -> None:
    assert got.shape == want.shape
    assert got.dtype == kind
    np.testing.assert_allclose(got, want, rtol=EPS[kind], atol=EPS[kind] * np.abs(want).max(initial=1e-30))


def parts(z: np.ndarray) -> np.ndarray:
    return np.stack([z.real, z.imag], axis=-1)


def whole(x: np.ndarray) -> np.ndarray:
    return x[..., 0].astype(np.float64) + (1j * x[..., 1] if x.shape[-1] == 2 else 0)


def dft_model(
    shape: list[Any], axis: int, length: int | None = None, opset: int = 20, kind: int = 1, **more: Any
) -> onnx.ModelProto:
    b = Builder(opset)
    operands = [b.input("x", shape, kind), "" if length is None else b.const(length, np.int64)]
    if opset >= 20:
        operands.append(b.const(axis, np.int64))
    else:
        more["axis"] = axis
    return b.model(b.op("DFT", *operands, **more), kind=kind)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_lengths(n: int, kind: Any) -> None:
    """Every kind of length: powers, mixed factors, the largest radix, primes beyond it; there and back."""
    rng = np.random.default_rng(n)
    x = rng.standard_normal((2, n, 2)).astype(kind)
    number = int(TensorProto.FLOAT if kind is np.float32 else TensorProto.DOUBLE)
    close(run(dft_model([2, n, 2], 1, kind=number), x), parts(np.fft.fft(whole(x), axis=1)), kind)
    close(run(dft_model([2, "n", 2], 1, kind=number), x), parts(np.fft.fft(whole(x), axis=1)), kind)
    close(run(dft_model([2, n, 2], 1, kind=number, inverse=1), x), parts(np.fft.ifft(whole(x), axis=1)), kind)


@pytest.mark.parametrize("opset", [17, 19, 20, 24])
@pytest.mark.parametrize("axis", [0, 1, 2, -2, -3])
@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("length", [None, 1, 5, 6, 9])
def test_axes_and_lengths(opset: int, axis: int, width: int, length: int | None) -> None:
    """Cut and padded signals; the axis as an attribute and as an input."""
    x = np.random.default_rng(0).standard_normal((4, 6, 7, width)).astype(np.float32)
    at = axis if axis >= 0 else axis + 4
    for shape in ([4, 6, 7, width], ["a", "b", "c", width]):
        close(run(dft_model(shape, axis, length, opset), x), parts(np.fft.fft(whole(x), length, at)))
        close(run(dft_model(shape, axis, length, opset, inverse=1), x), parts(np.fft.ifft(whole(x), length, at)))
        if width == 1:
            close(
                run(dft_model(shape, axis, length, opset, onesided=1), x), parts(np.fft.rfft(x[..., 0].astype(float), length, at))
            )
        else:
            want = np.fft.irfft(whole(x), length, at)[..., None]
            close(run(dft_model(shape, axis, length, opset, onesided=1, inverse=1), x), want)


@pytest.mark.parametrize("axis", [0, 1, -2, -3])
@pytest.mark.parametrize(("onesided", "inverse"), [(0, 0), (1, 0), (1, 1), (0, 1)])
def test_operands_of_the_run(axis: int, onesided: int, inverse: int) -> None:
    """Axis and length that only the run knows, the axis also counted from the back."""
    width = 2 if inverse else 1
    x = np.random.default_rng(0).standard_normal((5, 6, width)).astype(np.float32)
    at = axis if axis >= 0 else axis + 3
    for given in (None, 8):
        b = Builder(20)
        b.input("x", [5, 6, width])
        length = b.input("length", [], TensorProto.INT64) if given else ""
        axes = b.input("axis", [], TensorProto.INT64)
        model = b.model(b.op("DFT", "x", length, axes, onesided=onesided, inverse=inverse))
        feeds = [x] + [np.array(v, np.int64) for v in (given, axis) if v is not None]
        if onesided:
            want = np.fft.irfft(whole(x), given, at)[..., None] if inverse else parts(np.fft.rfft(x[..., 0], given, at))
        else:
            want = parts((np.fft.ifft if inverse else np.fft.fft)(whole(x), given, at))
        close(run(model, *feeds), want)


def test_bad_axis_of_the_run() -> None:
    b = Builder(20)
    model = b.model(b.op("DFT", b.input("x", [5, 6, 1]), "", b.input("axis", [], TensorProto.INT64)))
    with pytest.raises(frugal.FrugalError):
        run(model, np.zeros((5, 6, 1), np.float32), np.array(2, np.int64))


@pytest.mark.parametrize("n", [6, 64, 67])
def test_lines_do_not_matter(n: int) -> None:
    """A line alone has the bits it has among others and on threads."""
    x = np.random.default_rng(n).standard_normal((300, n, 2)).astype(np.float32)
    model = dft_model(["lines", n, 2], 1)
    together = run(model, x, threads=3)
    for line in (0, 150, 299):
        np.testing.assert_array_equal(run(model, x[line : line + 1])[0], together[line])


def stft_model(shape: list[Any], step: int, length: int | None, window: np.ndarray | None, **more: Any) -> onnx.ModelProto:
    b = Builder(17)
    operands = [
        b.input("x", shape),
        b.const(step, np.int64),
        "" if window is None else b.const(window),
        "" if length is None else b.const(length, np.int64),
    ]
    return b.model(b.op("STFT", *operands, **more))


def stft(x: np.ndarray, step: int, n: int, window: np.ndarray | None, onesided: bool) -> np.ndarray:
    z = whole(x)
    frames = [z[:, i : i + n] for i in range(0, z.shape[1] - n + 1, step)]
    framed = np.stack(frames, axis=1) * (1.0 if window is None else window.astype(np.float64))
    spectrum = np.fft.fft(framed, axis=-1)
    return parts(spectrum[..., : n // 2 + 1] if onesided else spectrum)


@pytest.mark.parametrize(("step", "n"), [(3, 16), (16, 16), (20, 16), (5, 67), (1, 99), (7, 100)])
@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("onesided", [0, 1])
def test_stft(step: int, n: int, windowed: bool, onesided: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 100, 1)).astype(np.float32)
    window = rng.uniform(0, 1, n).astype(np.float32) if windowed else None
    want = stft(x, step, n, window, bool(onesided))
    for shape in ([2, 100, 1], ["batch", "time", 1]):
        close(run(stft_model(shape, step, n, window, onesided=onesided), x), want)
        if windowed:
            close(run(stft_model(shape, step, None, window, onesided=onesided), x), want)
    two = rng.standard_normal((2, 100, 2)).astype(np.float32)
    close(run(stft_model([2, 100, 2], step, n, window, onesided=0), two), stft(two, step, n, window, False))


def test_stft_of_the_run() -> None:
    """Step, window and length that come with the run, and a signal shorter than a frame."""
    x = np.random.default_rng(0).standard_normal((1, 50, 1)).astype(np.float32)
    b = Builder(17)
    step = b.input("step", [], TensorProto.INT64)
    model = b.model(b.op("STFT", b.input("x", [1, "time", 1]), step, b.input("w", ["n"]), b.input("n", [], TensorProto.INT64)))
    session = frugal.InferenceSession(compile_model(model))
    window = np.hanning(12).astype(np.float32)
    feeds = {"step": np.array(5), "x": x, "w": window, "n": np.array(12)}
    (got,) = session.run(None, feeds)
    close(got, stft(x, 5, 12, window, True))
    with pytest.raises(frugal.FrugalError):
        session.run(None, {**feeds, "step": np.array(0)})
    with pytest.raises(frugal.FrugalError):
        session.run(None, {**feeds, "x": x[:, :11]})
    with pytest.raises(frugal.FrugalError):
        session.run(None, {**feeds, "w": window[1:]})


FORMULAS = {
    "HannWindow": lambda a: 0.5 - 0.5 * np.cos(a),
    "HammingWindow": lambda a: 25 / 46 - 21 / 46 * np.cos(a),
    "BlackmanWindow": lambda a: 0.42 - 0.5 * np.cos(a) + 0.08 * np.cos(2 * a),
}


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("periodic", [0, 1])
@pytest.mark.parametrize("n", [0, 2, 5, 16, 401])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_windows(kind: str, periodic: int, n: int, dtype: Any) -> None:
    """The size as a constant, as a dim of an input, as an input."""
    number = int(TensorProto.FLOAT if dtype is np.float32 else TensorProto.DOUBLE)
    want = FORMULAS[kind](np.arange(n) * 2 * np.pi / (n if periodic else n - 1))
    more = {"periodic": periodic, "output_datatype": number}
    b = Builder(17)
    b.input("size", [], TensorProto.INT64)
    close(run(b.model(b.op(kind, "size", **more), kind=number), np.array(n)), want, dtype)
    b = Builder(17)
    size = b.op("Squeeze", b.op("Shape", b.input("x", ["n"])))
    close(run(b.model(b.op(kind, size, **more), kind=number), np.zeros(n, np.float32)), want, dtype)
    if n:
        b = Builder(17)
        window = b.op(kind, b.const(n, np.int64), **more)
        result = run(b.model(b.op("Mul", b.input("x", [n], number), window), kind=number), np.ones(n, dtype))
        np.testing.assert_allclose(result, want, rtol=1e-6, atol=1e-6)  # onnx.reference made it, in the type of the output


@pytest.mark.parametrize(
    ("bands", "length", "rate", "low", "high"), [(8, 16, 8192, 0, 4096), (40, 400, 16000, 20, 7600), (1, 2, 10, 0, 1)]
)
def test_mel(bands: int, length: int, rate: int, low: float, high: float) -> None:
    b = Builder(17)
    names = [b.input(n, [], TensorProto.INT64) for n in ("bands", "length", "rate")]
    names += [b.input(n, [], TensorProto.FLOAT) for n in ("low", "high")]
    model = b.model(b.op("MelWeightMatrix", *names))
    feeds = [np.array(v, np.int64) for v in (bands, length, rate)] + [np.array(v, np.float32) for v in (low, high)]
    want = ReferenceEvaluator(model).run(None, dict(zip(names, feeds, strict=True)))[0]
    np.testing.assert_allclose(run(model, *feeds), want, rtol=1e-6)
    with pytest.raises(frugal.InvalidArgument):
        run(model, *feeds[:4], np.array(100 * rate, np.float32))  # the highest band would begin behind the spectrum
    with pytest.raises(frugal.InvalidArgument):
        run(model, *feeds[:2], np.array(0), *feeds[3:])


def test_refused() -> None:
    with pytest.raises(frugal.InvalidModel, match="one side"):
        run(dft_model([2, 5, 2], 1, onesided=1), np.zeros((2, 5, 2), np.float32))
    with pytest.raises(frugal.InvalidModel, match="real and imaginary"):
        run(dft_model([2, 5, 2], -1), np.zeros((2, 5, 2), np.float32))
    with pytest.raises(frugal.UnsupportedOperator, match="1 or 2"):
        run(dft_model([2, 5, 3], 1), np.zeros((2, 5, 3), np.float32))


def test_half() -> None:
    x = np.random.default_rng(0).standard_normal((1, 12, 1)).astype(np.float16)
    node = helper.make_node("DFT", ["x"], ["y"])
    types = [helper.make_tensor_value_info(n, TensorProto.FLOAT16, s) for n, s in (("x", [1, 12, 1]), ("y", [1, 12, 2]))]
    model = helper.make_model(
        helper.make_graph([node], "t", types[:1], types[1:]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    )
    got = run(model, x)
    assert got.dtype == np.float16
    np.testing.assert_array_equal(got, parts(np.fft.fft(x[..., 0].astype(float))).astype(np.float32).astype(np.float16))
