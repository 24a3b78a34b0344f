"""Passes around convolutions: layouts, folding into weights, activations; each against the same graph without passes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import frugal
from frugal.compiler import compile_model, lower_model
from frugal.compiler.ir import Op, Unary

TOLERANCE = 1e-5  # of the largest result: constants folded in float64 round once where the steps round twice


class Net:
    """Builds a graph node by node; every call returns the name of its result."""

    def __init__(self, shape: list[Any]) -> None:
        self.rng = np.random.default_rng(5)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shape = shape

    def const(self, values: Any) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def random(self, *shape: int) -> str:
        return self.const(self.rng.standard_normal(shape).astype(np.float32) * 0.3)

    def add(self, op_type: str, *inputs: str, **attrs: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], **attrs))
        return name

    def conv(
        self, x: str, channels: int, filters: int, kernel: int = 3, groups: int = 1, bias: bool = True, stride: int = 1
    ) -> str:
        operands = [x, self.random(filters, channels // groups, kernel, kernel)] + ([self.random(filters)] if bias else [])
        pads = [kernel // 2] * 4
        return self.add("Conv", *operands, pads=pads, group=groups, strides=[stride, stride])

    def model(self, *outputs: str) -> onnx.ModelProto:
        infos = [helper.make_empty_tensor_value_info(o) for o in outputs]
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)
        graph = helper.make_graph(self.nodes, "net", [x], infos, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def checked(model: onnx.ModelProto, *shape: int) -> Counter[Op]:
    """Compare with and without passes; returns the operations of the optimized graph."""
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    plain, fast = (
        frugal.InferenceSession(compile_model(model, activations="float", optimize=o)).run(None, {"x": x}) for o in (False, True)
    )
    for p, f in zip(plain, fast, strict=True):
        assert p.shape == f.shape
        np.testing.assert_allclose(f, p, atol=TOLERANCE * max(1.0, float(np.abs(p).max())), rtol=0)
    graph, _ = lower_model(model, activations="float")
    return Counter(s.op for s in graph.steps)


def test_a_chain_is_turned_once_at_each_end() -> None:
    net = Net(["n", 3, "h", "w"])
    t = net.add("Relu", net.conv("x", 3, 8))
    t = net.add("MaxPool", net.conv(t, 8, 8, groups=8), kernel_shape=[2, 2], strides=[2, 2])
    a, b = net.conv(t, 8, 12), net.conv(t, 8, 12, kernel=1)
    t = net.add("Concat", net.add("Sigmoid", a), b, net.add("Add", a, b), axis=1)
    t = net.add("Mul", t, net.random(36, 1, 1))
    t = net.add("Pad", t, net.const(np.array([0, 0, 1, 2, 0, 0, 3, 0])))
    t = net.add("Slice", t, net.const(np.array([1, 2])), net.const(np.array([30, 9])), net.const(np.array([1, 2])))
    t = net.add("Softmax", net.conv(t, 29, 5, stride=2), axis=1)
    ops = checked(net.model(t), 2, 3, 18, 22)
    assert ops[Op.TRANSPOSE] == 1, "the result's; the image is read as it is"


def test_what_the_pool_reduces_stays_in_place() -> None:
    """Squeeze and excite: no transpose, and the views are gone."""
    net = Net([1, 16, "h", "w"])
    t = net.conv("x", 16, 24)
    gate = net.conv(net.add("Relu", net.conv(net.add("GlobalAveragePool", t), 24, 8, kernel=1)), 8, 24, kernel=1)
    t = net.add("Mul", t, net.add("HardSigmoid", gate, alpha=0.2, beta=0.5))
    t = net.add("ReduceMean", net.conv(t, 24, 4), net.const(np.array([2, 3])), keepdims=0)
    ops = checked(net.model(t), 1, 16, 12, 20)
    assert ops[Op.TRANSPOSE] == 0
    assert ops[Op.ALIAS] <= 1
    assert ops[Op.UNARY] == 0


def test_transposes_of_a_channels_last_exporter_cancel() -> None:
    """As tf2onnx writes it: the model is channels last, every convolution between two transposes."""
    net = Net(["n", 20, 20, 3])
    t = "x"
    for c, f in ((3, 8), (8, 8), (8, 4)):
        t = net.add("Transpose", net.conv(net.add("Transpose", t, perm=[0, 3, 1, 2]), c, f), perm=[0, 2, 3, 1])
        t = net.add("Relu", net.add("Add", t, net.random(f)))
    ops = checked(net.model(t), 2, 20, 20, 3)
    assert ops == {Op.CONV: 3}


def test_resize_and_reductions_follow() -> None:
    net = Net(["n", 4, "h", "w"])
    t = net.conv("x", 4, 8)
    up = net.add("Resize", t, "", net.const(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    t = net.add("ReduceMax", net.conv(up, 8, 6), net.const(np.array([1])), keepdims=1)
    ops = checked(net.model(net.conv(t, 1, 3)), 1, 4, 7, 5)
    assert ops[Op.TRANSPOSE] == 1


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize("channels", [2, 3, 16])
@pytest.mark.parametrize("attrs", [{}, {"strides": 2}, {"dilations": 2}, {"pads": 2, "strides": 3}, {"pads": 3, "dilations": 2}])
def test_planes_are_read_as_they_are(spatial: int, channels: int, attrs: dict[str, int]) -> None:
    """Two convolutions of one image, one with a residual; transposes are left for the results only."""
    net = Net(["n", channels, *(f"d{i}" for i in range(spatial))])
    lists = {k: [v] * (spatial * (2 if k == "pads" else 1)) for k, v in attrs.items()}
    a, b = (net.add("Conv", "x", net.random(6, channels, *kernel), net.random(6), **lists) for kernel in ([3] * spatial,) * 2)
    ops = checked(net.model(net.add("Add", net.add("Relu", a), b)), 2, channels, *(9, 7, 8)[:spatial])
    assert ops == {Op.CONV: 2, Op.TRANSPOSE: 1}


def test_planes_that_others_read_or_of_many_channels() -> None:
    """A pool wants channels last, so the convolution takes that too; many channels are transposed."""
    net = Net([1, 3, 8, 8])
    pool = net.add("MaxPool", "x", kernel_shape=[3, 3], pads=[1] * 4)
    assert checked(net.model(net.conv(net.add("Add", "x", pool), 3, 4), net.conv("x", 3, 4)), 1, 3, 8, 8)[Op.CONV] == 2
    net = Net([1, 48, 8, 8])
    assert checked(net.model(net.conv("x", 48, 1)), 1, 48, 8, 8)[Op.TRANSPOSE] == 1


@pytest.mark.parametrize("end", ["Flatten", "Reshape", "Squeeze"])
def test_layouts_pass_through_views(end: str) -> None:
    """As text recognizers end: planes of height 1 or joined, then positions by channels."""
    net = Net(["n", 12, 1 if end == "Squeeze" else 2, "w"])
    t = net.conv("x", 12, 8)
    if end == "Squeeze":
        t = net.add("Squeeze", t, net.const(np.array([2])))
    elif end == "Reshape":
        t = net.add("Reshape", t, net.const(np.array([0, 0, -1])))
    else:
        t = net.add("Unsqueeze", net.add("Flatten", t, axis=2), net.const(np.array([0])))
        t = net.add("Reshape", t, net.const(np.array([-1, 8, 26])))
    t = net.add("Relu", net.add("Transpose", t, perm=[0, 2, 1]))
    ops = checked(net.model(net.add("MatMul", t, net.random(8, 5))), 2, 12, 1 if end == "Squeeze" else 2, 13)
    assert ops[Op.TRANSPOSE] == (2 if end == "Flatten" else 0), "images and channels joined tear the pixels apart"


def test_a_flattened_image_is_transposed_back() -> None:
    net = Net(["n", 3, 4, 5])
    t = net.add("Flatten", net.add("Relu", net.conv("x", 3, 6)))
    ops = checked(net.model(net.add("MatMul", t, net.random(120, 3))), 2, 3, 4, 5)
    assert ops[Op.TRANSPOSE] == 1


def test_an_inner_result_that_the_caller_reads() -> None:
    net = Net([1, 3, 9, 9])
    a = net.add("Relu", net.conv("x", 3, 8))
    b = net.add("Tanh", net.conv(a, 8, 8))
    ops = checked(net.model(a, b, net.add("Add", a, b)), 1, 3, 9, 9)
    assert ops[Op.CONV] == 2


def test_graphs_without_convolutions_keep_their_transposes() -> None:
    net = Net(["n", 6, 4, 5])
    t = net.add("Transpose", "x", perm=[0, 2, 1, 3])
    t = net.add("MatMul", net.add("Relu", t), net.random(5, 7))
    ops = checked(net.model(net.add("Transpose", t, perm=[0, 2, 1, 3])), 2, 6, 4, 5)
    assert ops[Op.TRANSPOSE] == 2


@pytest.mark.parametrize(("channels", "filters", "groups"), [(6, 20, 1), (6, 6, 6), (6, 40, 2), (1, 1, 1)])
@pytest.mark.parametrize("bias", [False, True])
def test_batch_normalization_and_constants_fold(channels: int, filters: int, groups: int, bias: bool) -> None:
    net = Net(["n", channels, 8, 9])
    t = net.conv("x", channels, filters, groups=groups, bias=bias)
    parameters = [net.random(filters), net.random(filters), net.random(filters)]
    parameters.append(net.const(np.linspace(0.5, 2, filters, dtype=np.float32)))
    t = net.add("BatchNormalization", t, *parameters)
    t = net.add("Div", net.add("Sub", t, net.random(filters, 1, 1)), net.const(np.array([0.7], np.float32)))
    t = net.add("Mul", net.add("Clip", t, net.const(np.float32(-0.5)), net.const(np.float32(2))), net.const(np.float32(1.7)))
    t = net.add("Add", t, net.const(np.float32(0.3)))
    ops = checked(net.model(t), 3, channels, 8, 9)
    kind = Op.CONV_DEPTHWISE if groups == channels == filters and groups > 1 else Op.CONV
    assert set(ops) <= {kind, Op.TRANSPOSE, Op.ALIAS}


def test_a_residual_is_written_before_it_is_added() -> None:
    net = Net(["n", 8, 8, 8])
    a = net.conv("x", 8, 8)
    t = net.add("Add", a, net.add("Relu", net.conv(net.add("Sigmoid", a), 8, 8)))
    ops = checked(net.model(net.conv(t, 8, 2)), 2, 8, 8, 8)
    assert ops[Op.BINARY] == 0


@pytest.mark.parametrize("form", range(4))
def test_hard_activations(form: int) -> None:
    net = Net([2, 5])
    three, zero, six = (net.const(np.array(v, np.float32)) for v in (3, 0, 6))
    clipped = net.add("Clip", net.add("Add", "x", three), zero, six)
    if form == 0:
        t = net.add("Div", net.add("Mul", "x", clipped), six)
    elif form == 1:
        t = net.add("Mul", "x", net.add("Mul", clipped, net.const(np.array(1 / 6, np.float32))))
    elif form == 2:
        t = net.add("Div", clipped, six)
    else:
        t = net.add("Mul", net.add("HardSigmoid", "x", alpha=1 / 6, beta=0.5), "x")
    model = net.model(t)
    assert checked(model, 2, 5) == {Op.UNARY: 1}
    graph, _ = lower_model(model)
    assert graph.steps[0].attrs[0] == (Unary.HARD_SIGMOID if form == 2 else Unary.HARD_SWISH)
