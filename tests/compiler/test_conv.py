"""Convolution and pooling against onnxruntime, over random shapes and attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import frugal
from frugal.compiler import lower_model
from frugal.compiler.ir import Op

TOLERANCE = 2e-5  # of the largest result: sums of up to some thousand products in another order


def model(
    op_type: str,
    inputs: dict[str, np.ndarray],
    constants: dict[str, np.ndarray],
    symbolic: bool = False,
    outputs: int = 1,
    **attrs: Any,
) -> bytes:
    names = list(inputs) + list(constants)
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int8): TensorProto.INT8, np.dtype(np.uint8): TensorProto.UINT8}
    values = [
        helper.make_tensor_value_info(n, kinds[v.dtype], [f"{n}{i}" for i in range(v.ndim)] if symbolic else v.shape)
        for n, v in inputs.items()
    ]
    results = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op_type, names, results, **attrs)
    infos = [helper.make_empty_tensor_value_info(r) for r in results]
    initializers = [numpy_helper.from_array(v, n) for n, v in constants.items()]
    graph = helper.make_graph([node], "g", values, infos, initializers)
    return onnx.shape_inference.infer_shapes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    ).SerializeToString()


def compare(data: bytes, feeds: dict[str, np.ndarray]) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    want = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, feeds)
    results = []
    for threads in (1, 2):
        choice = frugal.SessionOptions()
        choice.intra_op_num_threads = threads
        got = frugal.InferenceSession(data, choice).run(None, feeds)
        results.append([g.tobytes() for g in got])
        for g, w in zip(got, want, strict=True):
            assert g.shape == w.shape and g.dtype == w.dtype
            if g.size:
                np.testing.assert_allclose(g, w, atol=TOLERANCE * max(1, np.abs(w.astype(np.float64)).max()), rtol=0)
    assert results[0] == results[1]


def floats(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def pick(rng: np.random.Generator, *values: Any) -> Any:
    return values[rng.integers(len(values))]


def conv_case(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, dict[str, Any]]:
    """(input, weights, bias, attributes) of a convolution with one to three spatial axes."""
    rng = np.random.default_rng(seed)
    axes = pick(rng, 1, 2, 2, 2, 3)
    kernel = [pick(rng, 1, 2, 3, 5) for _ in range(axes)]
    dilations = [pick(rng, 1, 1, 2) for _ in range(axes)]
    groups = pick(rng, 1, 1, 2, 3, 20)
    each_in, each_out = (1, pick(rng, 1, 2)) if groups == 20 else (pick(rng, 1, 3, 8), pick(rng, 1, 5, 16, 24))
    sizes = [int((k - 1) * d + rng.integers(1, 12 if axes < 3 else 5)) for k, d in zip(kernel, dilations, strict=True)]
    attrs: dict[str, Any] = {"strides": [pick(rng, 1, 1, 2, 3) for _ in range(axes)], "dilations": dilations, "group": groups}
    if (auto := pick(rng, "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")) != "NOTSET":
        attrs["auto_pad"], attrs["dilations"] = auto, [1] * axes
        # beyond that onnxruntime's padding becomes negative, and shifts the windows
        attrs["strides"] = [min(s, k) for s, k in zip(attrs["strides"], kernel, strict=True)]
    else:
        attrs["pads"] = [int(v) for v in rng.integers(0, 3, 2 * axes)]
    x = floats(rng, int(rng.integers(1, 4)), groups * each_in, *sizes)
    return {"x": x}, floats(rng, groups * each_out, each_in, *kernel), floats(rng, groups * each_out), attrs


@pytest.mark.parametrize("seed", range(60))
def test_conv(seed: int) -> None:
    inputs, w, b, attrs = conv_case(seed)
    constants = {"w": w, "b": b} if seed % 3 else {"w": w}
    if seed % 5 == 4:  # weights that are computed at run time
        inputs, constants = {**inputs, **constants}, {}
        compare(model("Conv", inputs, constants, **attrs), inputs)
    else:
        compare(model("Conv", inputs, constants, symbolic=seed % 2 == 0, **attrs), inputs)


@pytest.mark.parametrize("symbolic", [False, True])
def test_winograd(symbolic: bool) -> None:
    """3 x 3 kernels that move by one take the form with fewer products; its rounding stays within the tolerance."""
    rng = np.random.default_rng(5)
    for channels, made, padding in ((24, 16, "SAME_UPPER"), (33, 20, "VALID"), (64, 64, "SAME_LOWER")):
        x = {"x": floats(rng, 2, channels, 9, 13)}
        weights = {"w": floats(rng, made, channels, 3, 3), "b": floats(rng, made)}
        data = model("Conv", x, weights, symbolic=symbolic, auto_pad=padding)
        ops = [s.op for s in lower_model(onnx.load_from_string(data))[0].steps]
        assert ops.count(Op.CONV_WINOGRAD) == 1 and Op.CONV not in ops
        compare(data, x)


@pytest.mark.parametrize("seed", range(50))
def test_conv_transpose(seed: int) -> None:
    rng = np.random.default_rng(1000 + seed)
    inputs, w, _, attrs = conv_case(seed)
    del attrs["group"]
    axes = w.ndim - 2
    groups = pick(rng, 1, 1, 2, inputs["x"].shape[1])
    groups = groups if inputs["x"].shape[1] % groups == 0 else 1
    each = 1 if groups > 3 else pick(rng, 1, 4, 17)
    w = floats(rng, inputs["x"].shape[1], each, *w.shape[2:])
    attrs.pop("auto_pad", None)
    attrs["pads"] = [int(rng.integers(0, k)) for k in w.shape[2:]] * 2
    attrs["output_padding"] = [int(rng.integers(0, s)) for s in attrs["strides"]] if seed % 2 else [0] * axes
    attrs["group"] = groups
    attrs["dilations"] = [1 if k == 1 else d for k, d in zip(w.shape[2:], attrs["dilations"], strict=True)]
    sizes = zip(inputs["x"].shape[2:], attrs["strides"], w.shape[2:], attrs["dilations"], attrs["pads"], strict=False)
    if any((n - 1) * s + (k - 1) * d + 1 - 2 * p < 1 for n, s, k, d, p in sizes):
        pytest.skip("nothing is left of this result")
    compare(model("ConvTranspose", inputs, {"w": w, "b": floats(rng, groups * each)}, symbolic=seed % 3 == 0, **attrs), inputs)


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool", "LpPool"])
def test_pool(op_type: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs, w, _, attrs = conv_case(seed)
    del attrs["group"]
    kernel = list(w.shape[2:])
    attrs.update(kernel_shape=kernel)
    if "pads" in attrs:
        attrs["pads"] = [int(rng.integers(0, k)) for k in kernel] * 2
        attrs["ceil_mode"] = int(rng.integers(0, 2)) if op_type != "LpPool" else 0
    outputs = 1
    if op_type == "MaxPool":
        if seed % 4 == 1:
            inputs["x"] = rng.integers(0, 255, inputs["x"].shape).astype(np.uint8)
        elif seed % 4 == 3:
            outputs, attrs["storage_order"] = 2, int(rng.integers(0, 2))
    elif op_type == "AveragePool":
        attrs["count_include_pad"] = int(rng.integers(0, 2))
        attrs["dilations"] = attrs["dilations"] if "pads" in attrs else [1] * len(kernel)
    else:
        attrs["p"] = pick(rng, 1, 2, 3)
    compare(model(op_type, inputs, {}, symbolic=seed % 2 == 0, outputs=outputs, **attrs), inputs)


@pytest.mark.parametrize("op_type", ["InstanceNormalization", "GroupNormalization"])
def test_normalization(op_type: str) -> None:
    rng = np.random.default_rng(7)
    attrs = {"num_groups": 4} if op_type == "GroupNormalization" else {}
    inputs = {"x": floats(rng, 2, 12, 5, 7)}
    compare(model(op_type, inputs, {"s": floats(rng, 12), "b": floats(rng, 12)}, **attrs), inputs)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_lrn(size: int) -> None:
    inputs = {"x": floats(np.random.default_rng(size), 2, 9, 4, 5)}
    compare(model("LRN", inputs, {}, symbolic=True, size=size, alpha=0.3, beta=0.75, bias=1.5), inputs)


@pytest.mark.parametrize(
    ("activation", "params"),
    [("Relu", []), ("Clip", [-0.5, 0.5]), ("LeakyRelu", [0.1]), ("HardSigmoid", [0.2, 0.4]), ("Tanh", [])],
)
def test_fused_conv(activation: str, params: list[float]) -> None:
    rng = np.random.default_rng(3)
    feeds = {"x": floats(rng, 1, 4, 9, 9), "z": floats(rng, 1, 24, 9, 9)}
    attrs: dict[str, Any] = {"activation": activation, "pads": [1, 1, 1, 1], "domain": "com.microsoft"}
    if params:
        attrs["activation_params"] = params
    node = helper.make_node("FusedConv", ["x", "w", "b", "z"], ["y"], **attrs)
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in feeds.items()]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 24, 9, 9))
    weights = [numpy_helper.from_array(floats(rng, 24, 4, 3, 3), "w"), numpy_helper.from_array(floats(rng, 24), "b")]
    graph = helper.make_graph([node], "g", infos, [out], weights)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    compare(helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString(), feeds)


def test_empty_batch_and_sizes() -> None:
    rng = np.random.default_rng(0)
    data = model("Conv", {"x": floats(rng, 2, 3, 8, 8)}, {"w": floats(rng, 5, 3, 3, 3)}, symbolic=True, pads=[1, 1, 1, 1])
    session = frugal.InferenceSession(data)
    for shape in ((0, 3, 8, 8), (1, 3, 1, 1), (2, 3, 40, 3), (1, 3, 3, 40)):
        x = floats(rng, *shape)
        want = ReferenceEvaluator(onnx.load_from_string(data)).run(None, {"x": x})[0] if x.size else None
        got = session.run(None, {"x": x})[0]
        assert got.shape == (shape[0], 5, *shape[2:])
        if want is not None:
            np.testing.assert_allclose(got, want, atol=1e-5)  # sums of 27 products


def test_refused_by_name() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(frugal.UnsupportedOperator, match="one to three spatial axes"):
        frugal.compile(
            onnx.load_from_string(model("Conv", {"x": floats(rng, 1, 2, 3, 3, 3, 3)}, {"w": floats(rng, 1, 2, 1, 1, 1, 1)}))
        )
