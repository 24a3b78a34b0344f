"""Operators that move elements by index, sort, or search, beside numpy and onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

import frugal

from .models import Builder, assert_same, run_frugal, run_onnxruntime

RNG = np.random.default_rng(0)
KINDS = {
    np.float32: TensorProto.FLOAT,
    np.float64: TensorProto.DOUBLE,
    np.float16: TensorProto.FLOAT16,
    np.int8: TensorProto.INT8,
    np.uint8: TensorProto.UINT8,
    np.int16: TensorProto.INT16,
    np.uint16: TensorProto.UINT16,
    np.int32: TensorProto.INT32,
    np.uint32: TensorProto.UINT32,
    np.int64: TensorProto.INT64,
    np.uint64: TensorProto.UINT64,
    np.bool_: TensorProto.BOOL,
}


def values(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    x = RNG.standard_normal(shape) * 50
    return (np.abs(x) if np.dtype(dtype).kind == "u" else x > 0 if dtype == np.bool_ else x).astype(dtype)


def one_node(opset: int, kind: str, inputs: list[np.ndarray], const: set[int] | None = None, **attributes: Any) -> Any:
    """A model of one node whose inputs have symbolic dims, and its feeds; `const`: the inputs that are constants."""
    b, names, feeds = Builder(opset), [], {}
    for i, x in enumerate(inputs):
        if const and i in const:
            names.append(b.const(x, x.dtype))
        else:
            names.append(b.input(f"x{i}", [f"d{i}_{a}" for a in range(x.ndim)], KINDS[x.dtype.type]))
            feeds[f"x{i}"] = x
    return b, names, feeds


def run(opset: int, kind: str, inputs: list[np.ndarray], const: set[int] | None = None, **attributes: Any) -> np.ndarray:
    b, names, feeds = one_node(opset, kind, inputs, const)
    return run_frugal(b.model(b.op(kind, *names, **attributes)), feeds)[0]


# ---- Pad ----
@pytest.mark.parametrize("dtype", list(KINDS))
@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_pad(mode: str, dtype: Any) -> None:
    for shape, pads in (((4, 5), (1, 2, 3, 0)), ((3, 4, 2), (2, 0, 1, 0, 3, 1)), ((6,), (9, 13)), ((2, 3), (0, 0, 0, 2))):
        x = values(shape, dtype)
        width = list(zip(pads[: len(shape)], pads[len(shape) :], strict=True))
        got = run(19, "Pad", [x, np.array(pads)], {1}, mode=mode)
        np.testing.assert_array_equal(got, np.pad(x, width, mode=mode))


def test_pad_value_axes_and_negative_pads() -> None:
    x = values((4, 6, 5), np.float32)
    b, names, feeds = one_node(18, "Pad", [x, np.array([1, -2, 2, -1]), np.array(7.5, np.float32), np.array([-1, 0])], {1, 3})
    assert_same(b.model(b.op("Pad", *names)), feeds)
    for mode in ("reflect", "edge"):
        b, names, feeds = one_node(18, "Pad", [x, np.array([0, -1, 2, 1, -2, 0])], {1})
        assert_same(b.model(b.op("Pad", *names, mode=mode)), feeds)


def test_pad_2_and_empty() -> None:
    assert_same(
        (b := Builder(10)).model(b.op("Pad", b.input("x", ["n", 3]), pads=[0, 1, 2, 0], value=2.0)),
        {"x": np.ones((2, 3), np.float32)},
    )
    np.testing.assert_array_equal(run(18, "Pad", [np.zeros((0, 2), np.float32), np.array([1, 0, 1, 1])], {1}), np.zeros((2, 3)))
    with pytest.raises(frugal.FrugalError, match="nothing to repeat"):
        run(18, "Pad", [np.zeros((0, 2), np.float32), np.array([1, 0, 1, 1])], {1}, mode="edge")


# ---- gathering and scattering ----
@pytest.mark.parametrize("dtype", list(KINDS))
def test_gather_elements(dtype: Any) -> None:
    for shape, ids_shape, axis in (
        ((4, 5, 6), (4, 3, 6), 1),
        ((4, 5), (2, 5), 0),
        ((7,), (9,), -1),
        ((3, 4), (3, 8), 1),
        ((3, 4), (0, 4), 0),
    ):
        x = values(shape, dtype)
        ids = RNG.integers(-x.shape[axis], x.shape[axis], ids_shape).astype(RNG.choice([np.int32, np.int64]))
        cut = tuple(slice(None) if a == axis % x.ndim else slice(0, n) for a, n in enumerate(ids_shape))
        np.testing.assert_array_equal(run(13, "GatherElements", [x, ids], axis=axis), np.take_along_axis(x[cut], ids, axis))


def test_gather_nd() -> None:
    x = values((3, 4, 5, 2), np.float32)
    for depth, batch in ((1, 0), (2, 0), (4, 0), (1, 1), (2, 1), (1, 2), (3, 1)):
        ids = np.stack([RNG.integers(-x.shape[batch + k], x.shape[batch + k], (*x.shape[:batch], 6)) for k in range(depth)], -1)
        b, names, feeds = one_node(13, "GatherND", [x, ids], {1})
        assert_same(b.model(b.op("GatherND", *names, batch_dims=batch)), feeds)


@pytest.mark.parametrize("kind", ["GatherElements", "GatherND", "ScatterElements", "ScatterND"])
@pytest.mark.parametrize("bad", [5, -6, 1 << 40, -(1 << 63)])
def test_an_index_outside_is_an_error_that_names_it(kind: str, bad: int) -> None:
    x, ids = values((5,), np.float32), np.array([0, bad, 1])
    inputs = [x, ids if "Elements" in kind else ids.reshape(3, 1)] + ([values((3,), np.float32)] if "Scatter" in kind else [])
    b, names, feeds = one_node(18, kind, inputs)
    b.inputs[1].type.tensor_type.shape.dim[-1].dim_value = inputs[1].shape[-1]
    with pytest.raises(frugal.FrugalError, match="x1.*outside"):
        run_frugal(b.model(b.op(kind, *names)), feeds)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@pytest.mark.parametrize("dtype", [d for d in KINDS if d not in (np.float16, np.bool_)])
def test_scatter(reduction: str, dtype: Any) -> None:
    for shape, ids_shape, axis in (((4, 5), (3, 7), 1), ((6, 3), (2, 2), 0), ((3, 2, 4), (3, 1, 4), 1)):
        x, updates = (values(s, dtype) // 10 for s in (shape, ids_shape))
        ids = RNG.integers(-x.shape[axis], x.shape[axis], ids_shape)
        want = x.copy()
        rule = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}.get(reduction, lambda a, b: b)
        with np.errstate(over="ignore"):
            for at in np.ndindex(*ids_shape):
                to = (*at[:axis], ids[at], *at[axis + 1 :])
                want[to] = rule(want[to], updates[at])
        got = run(18, "ScatterElements", [x, ids, updates.astype(dtype)], axis=axis, reduction=reduction)
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_scatter_nd() -> None:
    x = values((4, 5, 3), np.float32)
    for reduction in ("none", "add", "mul", "max", "min"):
        for depth in (1, 2, 3):
            ids = np.stack([RNG.permutation(x.shape[k])[:3] for k in range(depth)], -1)
            b, names, feeds = one_node(18, "ScatterND", [x, ids, values((3, *x.shape[depth:]), np.float32)], {1})
            assert_same(b.model(b.op("ScatterND", *names, reduction=reduction)), feeds)


# ---- TopK ----
@pytest.mark.parametrize("dtype", [d for d in KINDS if d != np.bool_])
@pytest.mark.parametrize("largest", [0, 1])
def test_topk(dtype: Any, largest: int) -> None:
    """Few distinct values: ties go to the lower index."""
    for shape, axis, k in (((5, 9), -1, 3), ((6, 4), 0, 6), ((2, 7, 3), 1, 4), ((300,), 0, 50), ((3, 0), 0, 2)):
        x = (values(shape, dtype) // 20).astype(dtype)
        b, names, feeds = one_node(24, "TopK", [x, np.array([k])], {1})
        got, places = run_frugal(b.model(*b.op("TopK", *names, outputs=2, axis=axis, largest=largest)), feeds)
        order = np.argsort(-x.astype(np.float64) if largest else x, axis=axis, kind="stable")
        want = np.take(order, range(k), axis=axis)
        np.testing.assert_array_equal(places, want)
        np.testing.assert_array_equal(got, np.take_along_axis(x, want, axis))


def test_topk_of_special_floats() -> None:
    x = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, -1e-45, -np.nan], np.float32)
    for largest, want in ((1, [2, 7, 3, 5, 0, 1, 6, 4]), (0, [4, 6, 0, 1, 5, 3, 2, 7])):
        b, names, feeds = one_node(24, "TopK", [x, np.array([8])], {1})
        assert run_frugal(b.model(*b.op("TopK", *names, outputs=2, largest=largest)), feeds)[1].tolist() == want


# ---- matrices ----
@pytest.mark.parametrize("upper", [0, 1])
def test_trilu_and_eye(upper: int) -> None:
    for k in (-2, 0, 1, 9):
        for x in (values((2, 4, 5), np.float32), values((3, 3), np.int64), values((5, 2), np.bool_), values((0, 3), np.float32)):
            want = np.triu(x, k) if upper else np.tril(x, k)
            np.testing.assert_array_equal(run(14, "Trilu", [x, np.array(k)], upper=upper), want)
    x = values((4, 6), np.int32)
    np.testing.assert_array_equal(run(22, "EyeLike", [x], k=upper, dtype=TensorProto.FLOAT), np.eye(4, 6, upper, np.float32))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode: str) -> None:
    b, names, feeds = one_node(13, "DepthToSpace", [values((2, 8, 3, 4), np.float32)])
    assert_same(b.model(b.op("DepthToSpace", *names, blocksize=2, mode=mode)), feeds)


# ---- sizes that the data decides ----
def beside_onnxruntime(
    opset: int, kind: str, inputs: list[np.ndarray], const: set[int] | None = None, outputs: int = 1, **a: Any
) -> None:
    b, names, feeds = one_node(opset, kind, inputs, const)
    made = b.op(kind, *names, outputs=outputs, **a)
    model = b.model(*(made if outputs > 1 else [made]))
    for o in model.graph.output:
        o.type.Clear()
    for got, want in zip(run_frugal(model, feeds), run_onnxruntime(model, feeds), strict=True):
        assert got.shape == want.shape
        np.testing.assert_array_equal(got, want)


def test_nonzero_and_compress() -> None:
    for dtype in (np.float32, np.int64, np.uint8, np.bool_):
        for shape in ((3, 4), (5,), (2, 0, 3), (2, 3, 2)):
            x = (RNG.integers(0, 3, shape) - 1).clip(0).astype(dtype)
            np.testing.assert_array_equal(run(13, "NonZero", [x]), np.array(np.nonzero(x)))
    x = values((3, 4), np.float32)
    for axis, condition in ((0, [1, 0, 1]), (1, [0, 1]), (-1, [0, 0, 0, 0]), (None, [1, 0, 0, 1, 1])):
        options = {} if axis is None else {"axis": axis}
        mask = np.array(condition, np.bool_)
        np.testing.assert_array_equal(run(11, "Compress", [x, mask], **options), np.compress(mask, x, axis=axis))


@pytest.mark.parametrize("order", [0, 1])
def test_unique(order: int) -> None:
    for dtype in (np.float32, np.int64, np.int8):
        for shape, axis in (((7,), None), ((4, 3), None), ((6, 2), 0), ((2, 6), 1), ((40,), 0)):
            x = RNG.integers(-1, 2, shape).astype(dtype)
            beside_onnxruntime(11, "Unique", [x], outputs=4, sorted=order, **({} if axis is None else {"axis": axis}))


def test_non_max_suppression() -> None:
    corners = RNG.random((2, 30, 4)).astype(np.float32)
    scores = RNG.random((2, 3, 30)).astype(np.float32)
    for most, iou, least in ((5, 0.3, 0.2), (100, 0.9, 0.0), (0, 0.5, 0.5), (3, 0.0, 0.99)):
        limits = [np.array([most]), np.array([iou], np.float32), np.array([least], np.float32)]
        for center in (0, 1):
            for const in (None, {2, 3, 4}):
                beside_onnxruntime(11, "NonMaxSuppression", [corners, scores, *limits], const, center_point_box=center)


def test_one_hot_reverse_and_hardmax() -> None:
    ids = RNG.integers(-6, 8, (3, 4))
    for axis in (-1, 0, 1):
        for const in (None, {1, 2}):
            beside_onnxruntime(11, "OneHot", [ids, np.array(5), np.array([-1.5, 2.5], np.float32)], const, axis=axis)
    x = values((4, 3, 2), np.float32)
    beside_onnxruntime(10, "ReverseSequence", [x, np.array([1, 4, 2])], time_axis=0, batch_axis=1)
    beside_onnxruntime(10, "ReverseSequence", [x, np.array([1, 3, 2, 1])], time_axis=1, batch_axis=0)
    for opset, axis in ((13, -1), (13, 1), (11, 1)):
        beside_onnxruntime(opset, "Hardmax", [np.round(x / 40)], axis=axis)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.uint16, np.int32, np.uint64])
@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_running_sum(dtype: Any, exclusive: int, reverse: int) -> None:
    x = values((3, 4), dtype)
    for axis in (0, -1):
        want = np.cumsum(np.flip(x, axis) if reverse else x, axis=axis, dtype=dtype)
        if exclusive:
            want = np.roll(want, 1, axis)
            want[(slice(None),) * (axis % 2) + (0,)] = 0
        got = run(14, "CumSum", [x, np.array(axis)], exclusive=exclusive, reverse=reverse)
        np.testing.assert_allclose(got, np.flip(want, axis) if reverse else want, rtol=1e-5, atol=1e-4)
