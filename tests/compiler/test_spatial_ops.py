"""Operators that sample, beside onnxruntime over modes, layouts and symbolic sizes."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import frugal

from .models import Builder, assert_same, run_frugal, run_onnxruntime

RNG = np.random.default_rng(0)
TRANSFORMS = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]


def resize(shape: list, kind: int = TensorProto.FLOAT, opset: int = 19, **options: object) -> onnx.ModelProto:
    """x resized by `scales` or to `sizes` (lists), with the other options as attributes."""
    b = Builder(opset)
    x = b.input("x", shape, kind)
    sizes, scales, roi = options.pop("sizes", None), options.pop("scales", None), options.pop("roi", None)
    inputs = [
        x,
        "" if roi is None else b.const(roi),
        "" if scales is None else b.const(scales),
        "" if sizes is None else b.const(sizes, np.int64),
    ]
    return b.model(b.op("Resize", *inputs, **options), kind=kind)


@pytest.mark.parametrize(("mode", "transform"), list(itertools.product(["nearest", "linear", "cubic"], TRANSFORMS)))
@pytest.mark.parametrize("sizes", [[1, 2, 8, 10], [1, 2, 3, 4], [1, 2, 5, 7], [1, 2, 1, 1], [1, 2, 12, 3]])
def test_resize_2d(mode: str, transform: str, sizes: list[int]) -> None:
    if transform == "pytorch_half_pixel" and mode == "cubic" and sizes[2] == 1:
        pytest.skip("onnxruntime's own length-1 rule differs from the specification for cubic")
    x = RNG.standard_normal((1, 2, 5, 7)).astype(np.float32)
    model = resize(["n", "c", "h", "w"], mode=mode, coordinate_transformation_mode=transform, sizes=sizes)
    assert_same(model, {"x": x})


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_nearest_rounding_over_types_and_axes(rounding: str, transform: str) -> None:
    for dtype, kind in ((np.uint8, TensorProto.UINT8), (np.int8, TensorProto.INT8), (np.int32, TensorProto.INT32)):
        x = RNG.integers(0, 100, (2, 6, 4, 3)).astype(dtype)
        for scales in ([1, 2, 2, 1], [1, 1.5, 0.75, 1], [1, 1, 1, 3], [1, 0.4, 1, 1]):
            if transform == "align_corners" and scales[1] == 0.4:
                continue  # 0.4 * 6 is no length: the specification divides by 1.4, onnxruntime by 1
            options = {"nearest_mode": rounding, "coordinate_transformation_mode": transform, "scales": scales}
            assert_same(resize(["n", "h", "w", "c"], kind, mode="nearest", **options), {"x": x})


@pytest.mark.parametrize("scales", [[1, 1, 2, 2], [1, 1, 0.5, 0.5], [1, 1, 2, 1.25], [1, 1, 0.7, 3]])
def test_symbolic_sizes_follow_the_scales(scales: list[float]) -> None:
    model = resize(["n", 3, "h", "w"], mode="linear", scales=scales)
    for h, w in ((8, 6), (13, 9), (32, 10)):
        assert_same(model, {"x": RNG.standard_normal((2, 3, h, w)).astype(np.float32)})


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("sizes", [[4, 3], [7, 11], [30, 20], [5, 28]])
def test_antialias(mode: str, sizes: list[int]) -> None:
    x = RNG.standard_normal((1, 2, 14, 22)).astype(np.float32)
    model = resize([1, 2, "h", "w"], mode=mode, sizes=sizes, antialias=1, exclude_outside=1, axes=[2, 3])
    assert_same(model, {"x": x}, 1e-4)  # onnxruntime's antialias weights are rounded elsewhere


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_kept_aspect_ratio(policy: str) -> None:
    model = resize(["n", 1, "h", "w"], mode="nearest", sizes=[9, 12], axes=[2, 3], keep_aspect_ratio_policy=policy)
    for h, w in ((5, 7), (7, 5), (20, 20), (3, 19)):
        assert_same(model, {"x": RNG.standard_normal((1, 1, h, w)).astype(np.float32)})


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_crop_and_resize(mode: str) -> None:
    options = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 10.0, "sizes": [1, 1, 4, 3]}
    x = RNG.standard_normal((1, 1, 5, 6)).astype(np.float32)
    for roi in ([0, 0, 0.25, 0.12, 1, 1, 0.8, 0.88], [0, 0, -0.3, 0.2, 1, 1, 1.2, 0.88], [0, 0, 0.87, 0.87, 1, 1, 0.12, 0.12]):
        assert_same(resize([1, 1, "h", "w"], mode=mode, roi=roi, **options), {"x": x})


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("opset", [7, 9])
def test_upsample(mode: str, opset: int) -> None:
    b, scales = Builder(opset), [1.0, 1.0, 2.0, 3.0]
    x = b.input("x", [1, 2, 3, 4])
    y = b.op("Upsample", x, mode=mode, scales=scales) if opset < 9 else b.op("Upsample", x, b.const(scales), mode=mode)
    assert_same(b.model(y), {"x": RNG.standard_normal((1, 2, 3, 4)).astype(np.float32)})


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [[1, 1, 2, 2], [1, 1, 0.6, 0.5]])
def test_resize_10(mode: str, scales: list[float]) -> None:
    b = Builder(10)
    y = b.op("Resize", b.input("x", [1, 2, 8, 9]), b.const(scales), mode=mode)
    assert_same(b.model(y), {"x": RNG.standard_normal((1, 2, 8, 9)).astype(np.float32)})


def test_layout_does_not_matter() -> None:
    x = RNG.standard_normal((2, 5, 6, 4)).astype(np.float32)
    for mode in ("nearest", "linear", "cubic"):
        last = run_frugal(resize([2, "h", "w", 4], mode=mode, scales=[1, 2, 2, 1]), {"x": x})[0]
        first = run_frugal(resize([2, 4, "h", "w"], mode=mode, scales=[1, 1, 2, 2]), {"x": x.transpose(0, 3, 1, 2).copy()})[0]
        np.testing.assert_array_equal(last, first.transpose(0, 2, 3, 1))


def test_uint8_is_interpolated_as_onnxruntime_does() -> None:
    x = RNG.integers(0, 255, (1, 3, 6, 8)).astype(np.uint8)
    model = resize([1, 3, "h", "w"], TensorProto.UINT8, mode="linear", scales=[1, 1, 2, 2])
    got, want = run_frugal(model, {"x": x})[0], run_onnxruntime(model, {"x": x})[0]
    assert np.abs(got.astype(int) - want.astype(int)).max() <= 1  # a value on the border of two codes may fall either way


def test_empty() -> None:
    x = np.zeros((0, 3, 4, 4), np.float32)
    for mode in ("nearest", "linear"):
        assert run_frugal(resize(["n", 3, 4, 4], mode=mode, scales=[1, 1, 2, 2]), {"x": x})[0].shape == (0, 3, 8, 8)
    empty = {"x": np.zeros((1, 3, 0, 4), np.float32)}
    with pytest.raises(frugal.FrugalError, match="nothing to sample"):
        run_frugal(resize([1, 3, "h", 4], mode="nearest", sizes=[1, 3, 2, 4]), empty)


def test_bad_models_are_named() -> None:
    for options in ({"scales": [1, 1, -2, 2]}, {"sizes": [1, 2]}, {"scales": [1, 1, 2, 2], "mode": "best"}):
        with pytest.raises(frugal.InvalidModel, match="Resize"):
            run_frugal(resize([1, 1, 4, 4], **options), {"x": np.zeros((1, 1, 4, 4), np.float32)})


# ---- sampling at places that the data gives ----
@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [0, 1])
def test_grid_sample(mode: str, padding: str, align: int) -> None:
    for shape in ((2, 3, 5, 6), (1, 2, 4, 3, 5)):
        if len(shape) == 5 and mode == "cubic":
            continue  # onnxruntime has it in two dimensions only
        b, axes = Builder(20), len(shape) - 2
        x, grid = b.input("x", list(shape)), b.input("grid", ["n", *"abc"[:axes], axes])
        feeds = {"x": RNG.standard_normal(shape).astype(np.float32)}
        feeds["grid"] = RNG.uniform(-1.7, 1.7, (shape[0], *[3, 4, 2][:axes], axes)).astype(np.float32)
        assert_same(b.model(b.op("GridSample", x, grid, mode=mode, padding_mode=padding, align_corners=align)), feeds, 1e-4)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("samples", [0, 2])
def test_roi_align(mode: str, samples: int) -> None:
    b = Builder(16)
    names = [b.input("x", ["n", 2, "h", "w"]), b.input("rois", ["r", 4]), b.input("batch", ["r"], TensorProto.INT64)]
    y = b.op("RoiAlign", *names, mode=mode, sampling_ratio=samples, output_height=3, output_width=2, spatial_scale=0.5)
    rois = np.array([[0, 0, 9, 9], [3, 2, 15, 14], [-4, -4, 2, 3]], np.float32)
    feeds = {"x": RNG.standard_normal((2, 2, 8, 9)).astype(np.float32), "rois": rois, "batch": np.array([0, 1, 1])}
    assert_same(b.model(y), feeds)
    with pytest.raises(frugal.FrugalError, match="outside the images"):
        run_frugal(b.model(y), {**feeds, "batch": np.array([0, 2, 1])})
    with pytest.raises(frugal.FrugalError, match="near the image"):
        run_frugal(b.model(y), {**feeds, "rois": rois * np.float32(1e20)})
