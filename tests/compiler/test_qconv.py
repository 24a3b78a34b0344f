"""Integer convolutions and QDQ groups: QLinearConv and ConvInteger against numpy to the bit, every rule of frugal/compiler/qdq.py
against onnxruntime's float computation of the same graph, to one step of the output's scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from frugal.bindings.library import isa_list
from onnx import TensorProto, helper, numpy_helper

import frugal
from frugal.compiler import lower_model
from frugal.compiler.ir import Op

INTEGER_OPS = {Op.QCONV, Op.QDEPTH, Op.QBINARY, Op.QPOOL, Op.QLOOKUP, Op.QSOFTMAX}
FLOAT_OPS = {Op.QUANTIZE, Op.DEQUANTIZE, Op.LINEAR, Op.UNARY, Op.BINARY, Op.SOFTMAX, Op.REDUCE, Op.MATMUL}


class Net:
    """A model being written: nodes, initializers, and the QDQ pairs around float operators."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.feeds: dict[str, np.ndarray] = {}
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def constant(self, values: Any, dtype: Any) -> str:
        name = self.name()
        self.constants.append(numpy_helper.from_array(np.array(values, dtype), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], domain: str = "", **attrs: Any) -> str:
        name = self.name()
        self.nodes.append(helper.make_node(kind, list(inputs), [name], domain=domain, **attrs))
        return name

    def codes(self, shape: Sequence[int], dtype: Any, symbols: Sequence[Any] | None = None) -> str:
        """An input of random codes, extremes among them."""
        name, info = self.name(), np.iinfo(dtype)
        values = self.rng.integers(info.min, info.max + 1, shape)
        values.reshape(-1)[:: max(1, values.size // 5)] = info.min
        self.feeds[name] = values.astype(dtype)
        self.inputs.append(helper.make_tensor_value_info(name, numpy_type(dtype), symbols or list(shape)))
        return name

    def dequantized(self, name: str, scale: float, zero: int, dtype: Any) -> str:
        return self.node("DequantizeLinear", [name, self.constant(scale, np.float32), self.constant(zero, dtype)])

    def quantized(self, name: str, scale: float, zero: int, dtype: Any) -> str:
        return self.node("QuantizeLinear", [name, self.constant(scale, np.float32), self.constant(zero, dtype)])

    def weights(self, shape: Sequence[int], axis: int | None, dtype: Any = np.int8, zero: int = 0) -> str:
        info = np.iinfo(dtype)
        codes = self.constant(self.rng.integers(info.min, info.max + 1, shape), dtype)
        n = shape[axis] if axis is not None else 1
        scale = self.rng.uniform(0.001, 0.01, n if axis is not None else ()).astype(np.float32)
        zeros = np.full(n if axis is not None else (), zero)
        attrs = {} if axis is None else {"axis": axis}
        return self.node("DequantizeLinear", [codes, self.constant(scale, np.float32), self.constant(zeros, dtype)], **attrs)

    def model(self, output: str, dtype: int, opset: int = 21) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes, "net", self.inputs, [helper.make_tensor_value_info(output, dtype, None)], self.constants
        )
        imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)


def numpy_type(dtype: Any) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def onnxruntime_result(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """Without optimizations, so that what stands between DequantizeLinear and QuantizeLinear is computed in float."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3
    result: np.ndarray = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feeds)[0]
    return result


def frugal_result(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """The same bytes from every instruction set of this CPU."""
    session = frugal.InferenceSession(model.SerializeToString())
    results: list[np.ndarray] = []
    for name in isa_list():
        frugal.set_isa(name)
        results.append(session.run(None, feeds)[0])
    frugal.set_isa("auto")
    assert all(r.tobytes() == results[0].tobytes() for r in results)
    return results[0]


def operations(model: onnx.ModelProto) -> set[Op]:
    return {step.op for step in lower_model(model)[0].steps}


def check(model: onnx.ModelProto, feeds: dict[str, np.ndarray], whole: bool = True, steps: int = 1) -> None:
    """Within one step of onnxruntime (roundings of float32 products fall on the other side of a half), and no float steps."""
    want, got = onnxruntime_result(model, feeds), frugal_result(model, feeds)
    assert got.shape == want.shape and got.dtype == want.dtype
    assert np.abs(got.astype(np.int32) - want.astype(np.int32)).max(initial=0) <= steps
    used = operations(model)
    assert not whole or (used & INTEGER_OPS and not used & FLOAT_OPS), used


# ---- QLinearConv and ConvInteger, to the bit ----
def exact_conv(
    x: np.ndarray, w: np.ndarray, strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int], groups: int
) -> np.ndarray:
    """int64 sums of x [n, c, h, w] and w [oc, c/g, kh, kw], zero points taken off already."""
    x = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    oc, cg, kh, kw = w.shape
    oh = (x.shape[2] - (kh - 1) * dilations[0] - 1) // strides[0] + 1
    ow = (x.shape[3] - (kw - 1) * dilations[1] - 1) // strides[1] + 1
    y = np.zeros((x.shape[0], oc, oh, ow), np.int64)
    for o in range(oc):
        for c in range(cg):
            for ky in range(kh):
                for kx in range(kw):
                    top, left = ky * dilations[0], kx * dilations[1]
                    part = x[:, o // (oc // groups) * cg + c, top:, left:]
                    y[:, o] += (
                        part[:, : (oh - 1) * strides[0] + 1 : strides[0], : (ow - 1) * strides[1] + 1 : strides[1]]
                        * w[o, c, ky, kx]
                    )
    return y


def random_conv(rng: np.random.Generator) -> dict[str, Any]:
    groups = int(rng.choice([1, 1, 2, 3]))
    cg, og = int(rng.choice([1, 2, 3, 4, 8, 17])), int(rng.choice([1, 2, 5, 16, 20]))
    if rng.random() < 0.3:
        groups, cg, og = int(rng.choice([3, 16, 20, 70])), 1, int(rng.choice([1, 1, 2]))
    kernel = [int(k) for k in rng.choice([1, 2, 3, 5], 2)]
    dilations = [int(k) for k in rng.choice([1, 1, 2], 2)]
    size = [(k - 1) * d + 1 + int(rng.integers(0, 8)) for k, d in zip(kernel, dilations, strict=True)]
    return {
        "groups": groups, "cg": cg, "oc": og * groups, "kernel": kernel, "dilations": dilations, "size": size,
        "strides": [int(k) for k in rng.choice([1, 1, 2, 3], 2)], "pads": [int(p) for p in rng.integers(0, 3, 4)],
        "n": int(rng.integers(1, 3)), "x": rng.choice([np.uint8, np.int8]), "w": rng.choice([np.int8, np.int8, np.uint8]),
    }  # fmt: skip


def conv_attrs(c: dict[str, Any]) -> dict[str, Any]:
    return {"group": c["groups"], "strides": c["strides"], "dilations": c["dilations"], "pads": c["pads"]}


@pytest.mark.parametrize("run_time", [False, True])
@pytest.mark.parametrize("seed", range(25))
def test_qlinear_conv(seed: int, run_time: bool) -> None:
    net = Net(seed)
    rng = net.rng
    c = random_conv(rng)
    y_type = c["x"]
    x = net.codes((c["n"], c["cg"] * c["groups"], *c["size"]), c["x"])
    info = np.iinfo(c["w"])
    w = rng.integers(info.min, info.max + 1, (c["oc"], c["cg"], *c["kernel"])).astype(c["w"])
    zeros = {t: int(rng.choice([np.iinfo(t).min, np.iinfo(t).max, 3])) for t in (c["x"], c["w"])}
    w_zero = np.full((), zeros[c["w"]] if c["w"] == np.uint8 else 0, c["w"])
    w_scale = rng.uniform(0.001, 0.01, c["oc"] if rng.random() < 0.7 else ()).astype(np.float32)
    bias = rng.integers(-5000, 5000, c["oc"]).astype(np.int32)
    x_scale, y_scale, y_zero = np.float32(0.02), np.float32(0.05), int(rng.integers(0, 100))
    if run_time:
        name = net.name()
        net.inputs.append(helper.make_tensor_value_info(name, numpy_type(c["w"]), list(w.shape)))
        net.feeds[name] = w
    else:
        name = net.constant(w, c["w"])
    y = net.node(
        "QLinearConv",
        [
            x, net.constant(x_scale, np.float32), net.constant(zeros[c["x"]], c["x"]), name, net.constant(w_scale, np.float32),
            net.constant(w_zero, c["w"]), net.constant(y_scale, np.float32), net.constant(y_zero, y_type),
            net.constant(bias, np.int32),
        ],
        **conv_attrs(c),
    )  # fmt: skip
    model = net.model(y, numpy_type(y_type))
    sums = exact_conv(
        net.feeds[x].astype(np.int64) - zeros[c["x"]],
        w.astype(np.int64) - int(w_zero),
        c["strides"],
        c["dilations"],
        c["pads"],
        c["groups"],
    ) + bias.reshape(-1, 1, 1)
    multiplier = np.broadcast_to(x_scale * w_scale / y_scale, (c["oc"],)).reshape(-1, 1, 1)
    limits = np.iinfo(y_type)
    want = np.clip(np.rint(sums.astype(np.float32) * multiplier) + y_zero, limits.min, limits.max).astype(y_type)
    got = frugal_result(model, net.feeds)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)
    if c["w"] == np.int8 or c["x"] == np.uint8:  # onnxruntime has no uint8 weights for int8 codes
        assert np.abs(onnxruntime_result(model, net.feeds).astype(int) - got).max() <= 1
    assert bool(operations(model) & {Op.QCONV, Op.QDEPTH}) is not run_time


@pytest.mark.parametrize("run_time", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_conv_integer(seed: int, run_time: bool) -> None:
    net = Net(100 + seed)
    c = random_conv(net.rng)
    x = net.codes((c["n"], c["cg"] * c["groups"], *c["size"]), c["x"])
    info = np.iinfo(c["w"])
    w = net.rng.integers(info.min, info.max + 1, (c["oc"], c["cg"], *c["kernel"])).astype(c["w"])
    x_zero, w_zero = int(np.iinfo(c["x"]).min), net.rng.integers(info.min, info.max + 1, c["oc"]).astype(c["w"])
    name = net.constant(w, c["w"])
    if run_time:
        net.constants.pop()
        net.inputs.append(helper.make_tensor_value_info(name, numpy_type(c["w"]), list(w.shape)))
        net.feeds[name] = w
    y = net.node("ConvInteger", [x, name, net.constant(x_zero, c["x"]), net.constant(w_zero, c["w"])], **conv_attrs(c))
    want = exact_conv(
        net.feeds[x].astype(np.int64) - x_zero,
        w.astype(np.int64) - w_zero.astype(np.int64).reshape(-1, 1, 1, 1),
        c["strides"],
        c["dilations"],
        c["pads"],
        c["groups"],
    )
    np.testing.assert_array_equal(frugal_result(net.model(y, TensorProto.INT32), net.feeds), want)


def test_extremes_do_not_saturate() -> None:
    """255 times -128 and 127 with zero points at both ends: what pmaddubsw would limit to 16 bits."""
    for code, zero, weight in ((255, 0, -128), (255, 0, 127), (0, 255, -128), (0, 255, 127)):
        net = Net(0)
        x = net.codes((1, 64, 5, 5), np.uint8)
        net.feeds[x][:] = code
        w = net.constant(np.full((32, 64, 3, 3), weight), np.int8)
        y = net.node("ConvInteger", [x, w, net.constant(zero, np.uint8), net.constant(0, np.int8)])
        got = frugal_result(net.model(y, TensorProto.INT32), net.feeds)
        assert (got == 64 * 9 * (code - zero) * weight).all()


# ---- groups ----
TYPES = [np.int8, np.uint8]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("seed", range(12))
def test_group_conv(seed: int, dtype: Any) -> None:
    net = Net(200 + seed)
    c = random_conv(net.rng)
    x = net.dequantized(net.codes((c["n"], c["cg"] * c["groups"], *c["size"]), dtype), 0.02, 5, dtype)
    axis = 0 if net.rng.random() < 0.7 else None
    zero = 120 if c["w"] == np.uint8 else 0
    w = net.weights((c["oc"], c["cg"], *c["kernel"]), axis, c["w"], zero)
    bias = net.constant(net.rng.uniform(-1, 1, c["oc"]), np.float32)
    y = net.node("Conv", [x, w, bias], **conv_attrs(c))
    after = ("Relu", "Clip", "")[seed % 3]
    if after:
        y = net.node(after, [y, net.constant(-0.5, np.float32), net.constant(3.0, np.float32)] if after == "Clip" else [y])
    check(net.model(net.quantized(y, 0.05, 7, dtype), numpy_type(dtype)), net.feeds)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_group_conv_dynamic(auto_pad: str) -> None:
    """Batch, height and width known only at run time."""
    net = Net(7)
    x = net.codes((2, 3, 9, 10), np.uint8, ["n", 3, "h", "w"])
    y = net.node("Conv", [net.dequantized(x, 0.02, 5, np.uint8), net.weights((8, 3, 3, 3), 0)], auto_pad=auto_pad, strides=[2, 2])
    model = net.model(net.quantized(y, 0.05, 7, np.uint8), TensorProto.UINT8)
    check(model, net.feeds)
    for size in ((1, 3, 7, 4), (3, 3, 12, 33), (0, 3, 8, 8)):
        check(model, {x: net.rng.integers(0, 256, size).astype(np.uint8)})


@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("seed", range(6))
def test_group_conv_transpose(seed: int, rank: int) -> None:
    net = Net(300 + seed)
    groups = [1, 1, 2, 3, 1, 2][seed]
    strides, kernel, spatial = [1 + seed % 3] * (rank - 2), [3, 2, 4][seed % 3], [5, 6][: rank - 2]
    pads = [min(seed % 2, kernel - 1)] * (2 * (rank - 2))
    x = net.dequantized(net.codes((2, 4 * groups, *spatial), np.int8), 0.02, -3, np.int8)
    w = net.weights((4 * groups, 5, *[kernel] * (rank - 2)), 1 if groups == 1 else None)
    y = net.node("ConvTranspose", [x, w], strides=strides, pads=pads, group=groups)
    check(net.model(net.quantized(y, 0.05, 7, np.int8), TensorProto.INT8), net.feeds)


def test_group_conv_1d() -> None:
    net = Net(8)
    x = net.dequantized(net.codes((2, 6, 30), np.int8), 0.02, -3, np.int8)
    y = net.node("Conv", [x, net.weights((9, 6, 5), 0)], strides=[2], pads=[1, 2])
    check(net.model(net.quantized(y, 0.05, 7, np.int8), TensorProto.INT8), net.feeds)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("form", ["gemm", "transposed", "matmul", "matmul3"])
def test_group_product(form: str, dtype: Any) -> None:
    net = Net(9)
    shape = (2, 5, 33) if form == "matmul3" else (5, 33)
    x = net.dequantized(net.codes(shape, dtype, ["n", *shape[1:]]), 0.02, 5, dtype)
    if form.startswith("matmul"):
        y = net.node("MatMul", [x, net.weights((33, 20), 1)])
    else:
        w = net.weights((20, 33) if form == "transposed" else (33, 20), None)
        bias = net.constant(net.rng.uniform(-1, 1, 20), np.float32)
        y = net.node("Gemm", [x, w, bias], transB=int(form == "transposed"))
    check(net.model(net.quantized(y, 0.05, 7, dtype), numpy_type(dtype)), net.feeds)


@pytest.mark.parametrize("other", ["same", "channel", "row", "constant", "scalar"])
@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul"])
def test_group_arithmetic(kind: str, other: str) -> None:
    net = Net(10)
    x = net.dequantized(net.codes((2, 5, 4, 3), np.uint8), 0.02, 128, np.uint8)
    shape = {"same": (2, 5, 4, 3), "channel": (1, 5, 1, 1), "row": (3,), "constant": (1, 5, 1, 1), "scalar": ()}[other]
    if other == "scalar":
        b = net.constant(1.5, np.float32)
    elif other == "constant":
        b = net.dequantized(net.constant(net.rng.integers(0, 256, shape), np.uint8), 0.03, 20, np.uint8)
    else:
        b = net.dequantized(net.codes(shape, np.int8), 0.03, -20, np.int8)
    y = net.node("Relu", [net.node(kind, [x, b])])
    check(net.model(net.quantized(y, 0.02, 7, np.uint8), TensorProto.UINT8), net.feeds)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("kind", "attrs"),
    [
        ("AveragePool", {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
        ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 2]}),
        ("GlobalAveragePool", {}),
        ("GlobalMaxPool", {}),
        ("ReduceMean", {"keepdims": 0}),
        ("ReduceMean", {"keepdims": 1}),
    ],
)
def test_group_pool(kind: str, attrs: dict[str, Any], dtype: Any) -> None:
    net = Net(11)
    x = net.dequantized(net.codes((2, 70, 9, 8), dtype), 0.02, 5, dtype)
    axes = [net.constant([2, -1], np.int64)] if kind == "ReduceMean" else []
    y = net.node(kind, [x, *axes], **attrs)
    scale, zero = (0.02, 5) if kind == "MaxPool" and "dilations" in attrs else (0.011, 3)
    check(net.model(net.quantized(y, scale, zero, dtype), numpy_type(dtype)), net.feeds)


@pytest.mark.parametrize("kind", ["Relu", "Clip", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Elu", "Exp", "Abs", "Sqrt"])
def test_group_table(kind: str) -> None:
    net = Net(12)
    x = net.dequantized(net.codes((3, 50), np.int8), 0.03, -10, np.int8)
    limits = [net.constant(-1.0, np.float32), net.constant(2.0, np.float32)] if kind == "Clip" else []
    y = net.node(kind, [x, *limits])
    if kind == "Sqrt":
        net.feeds = {name: np.maximum(v, -10) for name, v in net.feeds.items()}  # NaN has no code that runtimes agree on
    check(net.model(net.quantized(y, 0.02, -7, np.int8), TensorProto.INT8), net.feeds)


@pytest.mark.parametrize("axis", [-1, 1])
def test_group_softmax(axis: int) -> None:
    net = Net(13)
    x = net.dequantized(net.codes((3, 12, 5), np.int8), 0.1, 4, np.int8)
    y = net.node("Softmax", [x], axis=axis)
    check(net.model(net.quantized(y, 1 / 256, -128, np.int8), TensorProto.INT8), net.feeds)


def moved(net: Net, kind: str, x: str) -> str:
    ints = {"Reshape": [2, 12, 10], "Squeeze": [4], "Unsqueeze": [1], "Slice": [1]}
    if kind in ints and kind != "Slice":
        if kind == "Squeeze":
            x = net.node("Unsqueeze", [x, net.constant([4], np.int64)])
        return net.node(kind, [x, net.constant(ints[kind], np.int64)])
    if kind == "Slice":
        return net.node(kind, [x, *(net.constant([v], np.int64) for v in (1, 5, 2, 2))])
    if kind == "Transpose":
        return net.node(kind, [x], perm=[0, 3, 1, 2])
    if kind == "Pad":
        return net.node(kind, [x, net.constant([0, 1, 0, 2, 0, 0, 1, 0], np.int64), net.constant(0.5, np.float32)])
    if kind == "Resize":
        return net.node(
            kind,
            [x, "", net.constant([1, 1, 2, 2], np.float32)],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    return net.node(kind, [x])


@pytest.mark.parametrize("scale", [0.02, 0.03])
@pytest.mark.parametrize("kind", ["Reshape", "Squeeze", "Unsqueeze", "Slice", "Transpose", "Flatten", "Pad", "Resize"])
def test_group_moves(kind: str, scale: float) -> None:
    """Codes move as they are; with another scale they go through a table."""
    net = Net(14)
    x = net.dequantized(net.codes((2, 6, 4, 5), np.int8), 0.02, 4, np.int8)
    model = net.model(net.quantized(moved(net, kind, x), scale, 4, np.int8), TensorProto.INT8)
    check(model, net.feeds, whole=False)
    used = operations(model)
    assert not used & {Op.QUANTIZE, Op.DEQUANTIZE} and (Op.QLOOKUP in used) is (scale != 0.02)


def test_group_concat() -> None:
    net = Net(15)
    a = net.dequantized(net.codes((2, 3, 4, 5), np.uint8), 0.02, 4, np.uint8)
    b = net.dequantized(net.codes((2, 6, 4, 5), np.uint8), 0.05, 100, np.uint8)
    y = net.node("Concat", [a, b, a], axis=1)
    check(net.model(net.quantized(y, 0.05, 100, np.uint8), TensorProto.UINT8), net.feeds)


def test_moves_between_operator_and_quantize() -> None:
    """DequantizeLinear, Transpose, Conv, Transpose, QuantizeLinear: an exporter from channels-last frameworks."""
    net = Net(16)
    x = net.dequantized(net.codes((2, 7, 8, 6), np.int8), 0.02, 4, np.int8)
    y = net.node("Conv", [net.node("Transpose", [x], perm=[0, 3, 1, 2]), net.weights((10, 6, 3, 3), 0)])
    y = net.node("Transpose", [net.node("Relu", [y])], perm=[0, 2, 3, 1])
    model = net.model(net.quantized(y, 0.05, -7, np.int8), TensorProto.INT8)
    check(model, net.feeds)
    assert Op.TRANSPOSE not in operations(model)


def test_what_stays_float_says_why() -> None:
    net = Net(17)
    x = net.dequantized(net.codes((1, 4, 6, 6), np.uint8), 0.02, 4, np.uint8)
    w = net.constant(net.rng.uniform(-1, 1, (4, 4, 3, 3)), np.float32)
    y = net.node("Conv", [x, w])
    model = net.model(net.quantized(y, 0.05, 7, np.uint8), TensorProto.UINT8)
    check(model, net.feeds, whole=False)
    notes = lower_model(model)[0].notes
    assert any("(Conv) runs in float32: its weights are not quantized constants" in note for note in notes), notes
    quantized = net.quantized(x, 0.03, 4, np.uint8)
    model = net.model(net.node("Conv", [x, net.weights((4, 4, 3, 3), 0)]), TensorProto.FLOAT)
    model.graph.output.append(helper.make_tensor_value_info(quantized, TensorProto.UINT8, None))
    notes = lower_model(model)[0].notes
    assert any("(Conv) runs in float32: its result is not quantized" in note for note in notes), notes


def test_a_result_read_twice_is_no_group() -> None:
    """The float sum is a model output too: it must exist, so nothing is fused."""
    net = Net(18)
    x = net.dequantized(net.codes((1, 4, 6), np.uint8), 0.02, 4, np.uint8)
    s = net.node("Add", [x, x])
    q = net.quantized(s, 0.05, 7, np.uint8)
    model = net.model(q, TensorProto.UINT8)
    model.graph.output.append(helper.make_tensor_value_info(s, TensorProto.FLOAT, None))
    session = frugal.InferenceSession(model.SerializeToString())
    codes, values = session.run(None, net.feeds)
    np.testing.assert_array_equal(codes, onnxruntime_result(model, net.feeds))
    assert values.dtype == np.float32


@pytest.mark.parametrize("last", [0, 1])
def test_qlinear_pools(last: int) -> None:
    net = Net(19)
    shape = (2, 6, 5, 9) if last else (2, 9, 6, 5)
    x = net.codes(shape, np.uint8)
    scales = [
        net.constant(0.02, np.float32),
        net.constant(20, np.uint8),
        net.constant(0.03, np.float32),
        net.constant(9, np.uint8),
    ]
    for kind, attrs in (("QLinearGlobalAveragePool", {}), ("QLinearAveragePool", {"kernel_shape": [3, 2], "strides": [2, 1]})):
        net.nodes = []
        y = net.node(kind, [x, *scales], "com.microsoft", channels_last=last, **attrs)
        model = net.model(y, TensorProto.UINT8)
        want, got = onnxruntime_result(model, net.feeds), frugal_result(model, net.feeds)
        assert got.shape == want.shape and np.abs(got.astype(int) - want).max() <= 1


@pytest.mark.parametrize("kind", ["QLinearAdd", "QLinearMul"])
def test_qlinear_pair(kind: str) -> None:
    net = Net(20)
    a, b = net.codes((2, 5, 4, 3), np.int8), net.codes((1, 5, 1, 1), np.int8)
    scales = [
        [net.constant(scale, np.float32), net.constant(zero, np.int8)] for scale, zero in ((0.02, 20), (0.03, -9), (0.05, 3))
    ]
    y = net.node(kind, [a, *scales[0], b, *scales[1], *scales[2]], "com.microsoft")
    check(net.model(y, TensorProto.INT8), net.feeds)


# ---- whole nets ----
def float_cnn(rng: np.random.Generator, opset: int = 17) -> onnx.ModelProto:
    """Convolution, depthwise, pointwise, a residual, pooling, a classifier."""
    net = Net(0)
    net.rng = rng

    def conv(x: str, oc: int, cg: int, k: int, **attrs: Any) -> str:
        w = net.constant(rng.normal(0, (2 / (cg * k * k)) ** 0.5, (oc, cg, k, k)), np.float32)
        return net.node("Conv", [x, w, net.constant(rng.normal(0, 0.1, oc), np.float32)], **attrs)

    net.inputs.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 20, 20]))
    a = net.node("Relu", [conv("x", 16, 3, 3, strides=[2, 2], pads=[1] * 4)])
    b = net.node("Relu", [conv(a, 16, 1, 3, group=16, pads=[1] * 4)])
    b = net.node("Add", [a, conv(b, 16, 16, 1)])
    c = net.node("MaxPool", [net.node("Relu", [b])], kernel_shape=[2, 2], strides=[2, 2])
    c = net.node("HardSigmoid", [conv(c, 24, 16, 3, pads=[0, 1, 0, 1])])
    d = net.node("Flatten", [net.node("GlobalAveragePool", [c])])
    w = net.constant(rng.normal(0, 0.3, (24, 10)), np.float32)
    y = net.node("Softmax", [net.node("Gemm", [d, w, net.constant(rng.normal(0, 0.1, 10), np.float32)])])
    return net.model(y, TensorProto.FLOAT, opset)


class Reader:
    def __init__(self, batches: list[np.ndarray]) -> None:
        self.batches = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"x": batch}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activation", ["QUInt8", "QInt8"])
def test_quantize_static(tmp_path: Any, activation: str, per_channel: bool) -> None:
    """A net of onnxruntime's quantize_static runs on integers from end to end; 2 steps: one each of the last two layers."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    rng = np.random.default_rng(3)
    CalibrationDataReader.register(Reader)
    onnx.save(float_cnn(rng), tmp_path / "float.onnx")
    batches = [rng.normal(size=(4, 3, 20, 20)).astype(np.float32) for _ in range(4)]
    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "int8.onnx",
        Reader(batches),
        quant_format=QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=QuantType[activation],
        weight_type=QuantType.QInt8,
    )
    model = onnx.load(tmp_path / "int8.onnx")
    feeds = {"x": rng.normal(size=(5, 3, 20, 20)).astype(np.float32)}
    want, got = onnxruntime_result(model, feeds), frugal_result(model, feeds)
    assert np.abs(want - got).max() <= 2 / 256
    used = [step.op for step in lower_model(model)[0].steps]
    assert used.count(Op.QCODES) == 1 and used.count(Op.DEQUANTIZE) <= 1  # the input and the output
    assert not FLOAT_OPS & set(used) - {Op.QUANTIZE, Op.DEQUANTIZE}
