"""Shapes, axes and bounds that the data decides: the same model with them as constants gives what it has to give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import frugal

from .models import Builder, run_frugal

RNG = np.random.default_rng(0)
KINDS = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64, np.dtype(np.int32): TensorProto.INT32}


def run(kind: str, inputs: list[Any], late: bool, opset: int = 19, outputs: int = 1, **attributes: Any) -> list[np.ndarray]:
    """One node; input 0 is data of symbolic shape, the others are constants or (late) inputs; None: absent."""
    b, names, feeds = Builder(opset), [], {}
    for i, value in enumerate(inputs):
        if value is None:
            names.append("")
        elif i == 0 or late:
            shape = [f"d{a}" for a in range(value.ndim)] if i == 0 else value.shape
            names.append(b.input(f"x{i}", shape, KINDS[value.dtype]))
            feeds[f"x{i}"] = value
        else:
            names.append(b.const(value, value.dtype))
    made = b.op(kind, *names, outputs=outputs, **attributes)
    return run_frugal(b.model(*(made if outputs > 1 else [made])), feeds)


def same(kind: str, inputs: list[Any], **options: Any) -> None:
    ready = [np.array(v, np.int64) if isinstance(v, list) else v for v in inputs]
    for got, want in zip(run(kind, ready, True, **options), run(kind, ready, False, **options), strict=True):
        assert got.shape == want.shape
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


X = RNG.standard_normal((2, 3, 4)).astype(np.float32)


@pytest.mark.parametrize("shape", [[4, 6], [0, -1], [2, 0, 2, -1], [-1], [24], [1, 1, 24, 1]])
def test_reshape(shape: list[int]) -> None:
    same("Reshape", [X, shape])


def test_reshape_of_nothing() -> None:
    same("Reshape", [np.zeros((0, 3, 4), np.float32), [3, 4, 0]], allowzero=1)


@pytest.mark.parametrize(
    "bounds",
    [
        ([1], [3], [2]),
        ([0, -2], [2, 1 << 40], [0, -1]),
        ([-1, 3], [-(1 << 62), 0], [1, 2], [-1, -2]),
        ([2], [1], [1]),
        ([1, 0], [2, 3]),
        ([5], [9], [2]),
        ([0], [4], [-1], [3]),
        ([-(1 << 62)], [(1 << 63) - 1], [1], [(1 << 62)]),
    ],
)
def test_slice(bounds: tuple[list[int], ...]) -> None:
    wide = any(abs(v) >> 31 for part in bounds for v in part)
    parts = [np.array(b, np.int64) for b in bounds]
    got, want = (run("Slice", [X, *parts], late)[0] for late in (True, False))
    np.testing.assert_array_equal(got, want)
    if not wide:
        np.testing.assert_array_equal(run("Slice", [X, *(p.astype(np.int32) for p in parts)], True)[0], want)


@pytest.mark.parametrize("kind", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"])
@pytest.mark.parametrize("axes", [[1], [-1, 0], [0, 1, 2], []])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reduce(kind: str, axes: list[int], keepdims: int) -> None:
    same(kind, [np.abs(X), axes], keepdims=keepdims)
    same(kind, [np.abs(X), axes], keepdims=1, noop_with_empty_axes=1)


def test_axes() -> None:
    same("Unsqueeze", [X, [0, -1]])
    same("Unsqueeze", [X, [2]])
    same("Squeeze", [X.reshape(1, 6, 1, 4), [0, -2]])
    same("CumSum", [X, [-2]])
    same("Tile", [X, [2, 1, 3]])
    same("Tile", [RNG.standard_normal((1, 2, 1, 2, 1, 3)).astype(np.float32), [2, 1, 3, 2, 1, 2]])
    same("Expand", [X[:1], [2, 1, 4]])
    same("Split", [X, [1, 3]], axis=2, outputs=2)
    same("TopK", [X, [2]], outputs=2)


def test_pad_and_resize() -> None:
    same("Pad", [X, [0, 1, -1, 2, 0, 3]])
    same("Pad", [X, [1, -2, 3, 0], None, [2, 1]], mode="reflect")
    for mode in ("nearest", "linear"):
        x = X.reshape(1, 2, 3, 4)
        same("Resize", [x, None, None, [1, 2, 5, 7]], mode=mode)
        scales = np.array([1, 1, 1.7, 2.5], np.float32)
        got, want = (run("Resize", [x, None, scales], late, mode=mode)[0] for late in (True, False))
        np.testing.assert_array_equal(got, want)
        got, want = (run("Resize", [x, None, scales[2:]], late, mode=mode, axes=[3, 2])[0] for late in (True, False))
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float32])
def test_range(dtype: Any) -> None:
    for start, limit, delta in ((1, 10, 2), (5, -4, -3), (3, 3, 1), (4, 2, 1), (-7, 0, 7)):
        b = Builder(11)
        names = [b.input(n, [], KINDS[np.dtype(dtype)]) for n in ("a", "b", "c")]
        feeds = {n: np.array(v, dtype) for n, v in zip(names, (start, limit, delta), strict=True)}
        np.testing.assert_array_equal(run_frugal(b.model(b.op("Range", *names)), feeds)[0], np.arange(start, limit, delta))


@pytest.mark.parametrize(
    ("kind", "inputs", "message"),
    [
        ("Reshape", [X, [5, -1]], "cannot be worked out"),
        ("Reshape", [X, [-1, -1]], "one -1"),
        ("Reshape", [X, [1, 1, 1, 0]], "not there"),
        ("Reshape", [X, [5, 5]], "another element count"),
        ("Slice", [X, [0], [1], [3]], "out of range"),
        ("Slice", [X, [0, 0], [1, 1], [1, -2]], "occurs twice"),
        ("Slice", [X, [0], [1], [0], [0]], "a step is 0"),
        ("Unsqueeze", [X, [9]], "out of range"),
        ("Squeeze", [X, [0]], "is not 1"),
        ("ReduceSum", [X, [3]], "out of range"),
        ("Tile", [X, [1, -1, 1]], "not valid"),
        ("TopK", [X, [5]], "more values"),
        ("CumSum", [X, [3]], "out of range"),
    ],
)
def test_wrong_values_are_errors(kind: str, inputs: list[Any], message: str) -> None:
    ready = [inputs[0], *(np.array(v, np.int64) for v in inputs[1:])]
    with pytest.raises(frugal.FrugalError, match=message):
        run(kind, ready, True, outputs=2 if kind == "TopK" else 1)


def test_two_models_of_one_shape_do_not_mix() -> None:
    """Late dims of one compilation once served the next."""
    for _ in range(2):
        same("Reshape", [X, [4, 6]])
        same("Reshape", [X, [6, 4]])


@pytest.mark.parametrize(
    ("kind", "declared", "size"),
    [
        ("NonZero", [2, "found"], None),
        ("NonZero", [2, None], None),
        ("Relu", ["rows", 3], 4),
        ("Relu", ["n", "k"], 4),
        ("Relu", None, 4),
    ],
)
def test_dims_of_an_output_are_called_as_the_model_does(kind: str, declared: list[Any] | None, size: int | None) -> None:
    """As onnxruntime reports them; a name of an output changes none of an input, nor the result."""
    ort = pytest.importorskip("onnxruntime")
    b = Builder(18)
    x, other = b.input("x", ["n", 3]), b.input("other", ["n"])
    results = [b.op(kind, x), b.op("Neg", other)]
    model = b.model(*results)
    for output, dims in zip(model.graph.output, (declared, ["n"]), strict=True):
        elem = TensorProto.INT64 if kind == "NonZero" and output.name == results[0] else TensorProto.FLOAT
        output.CopyFrom(helper.make_tensor_value_info(output.name, elem, dims))
    session, reference = (make.InferenceSession(model.SerializeToString()) for make in (frugal, ort))
    assert [o.shape for o in session.get_outputs()] == [o.shape for o in reference.get_outputs()]
    assert session.get_inputs()[0].shape == ["n", 3]
    feeds = {"x": RNG.standard_normal((4, 3)).astype(np.float32), "other": np.ones(4, np.float32)}
    for got, want in zip(session.run(None, feeds), reference.run(None, feeds), strict=True):
        np.testing.assert_array_equal(got, want)
    assert size is None or session.run(None, feeds)[0].shape[0] == size
