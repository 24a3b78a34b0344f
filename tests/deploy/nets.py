"""Networks of the kinds that boards run, made here: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STATEFUL = {"gru": {"h0": "yh"}, "wake": {}}


class Maker:
    """A QDQ graph under construction: int8 activations, per-channel int8 weights."""

    def __init__(self, seed: int) -> None:
        self.chance = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.values: list[onnx.TensorProto] = []
        self.count = 0

    def constant(self, value: np.ndarray) -> str:
        self.count += 1
        self.values.append(numpy_helper.from_array(value, f"c{self.count}"))
        return f"c{self.count}"

    def node(self, kind: str, inputs: list[str], **attributes) -> str:
        self.count += 1
        self.nodes.append(helper.make_node(kind, inputs, [f"t{self.count}"], name=f"n{self.count}", **attributes))
        return f"t{self.count}"

    def scale(self, value: float) -> str:
        return self.constant(np.float32(value))

    def dequantize(self, x: str, scale: float, zero: int) -> str:
        return self.node("DequantizeLinear", [x, self.scale(scale), self.constant(np.int8(zero))])

    def quantize(self, x: str, scale: float, zero: int) -> str:
        return self.node("QuantizeLinear", [x, self.scale(scale), self.constant(np.int8(zero))])

    def requantize(self, x: str, scale: float, zero: int) -> str:
        return self.dequantize(self.quantize(x, scale, zero), scale, zero)

    def conv(
        self, x: str, cin: int, cout: int, kernel: tuple[int, int], scale: float, zero: int, groups: int = 1, **attributes
    ) -> str:
        shape = (cout, cin // groups, *kernel)
        w = self.chance.integers(-127, 128, shape).astype(np.int8)
        ws = (self.chance.uniform(0.5, 1.5, cout) * 0.02 / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        weights = self.node(
            "DequantizeLinear", [self.constant(w), self.constant(ws), self.constant(np.zeros(cout, np.int8))], axis=0
        )
        bias = self.constant(self.chance.normal(0, 0.1, cout).astype(np.float32))
        y = self.node("Conv", [x, weights, bias], group=groups, **attributes)
        return self.requantize(y, scale, zero)

    def save(self, path: Path, inputs: list[tuple[str, int, list]], outputs: list[tuple[str, int, list]]) -> Path:
        make = helper.make_tensor_value_info
        graph = helper.make_graph(self.nodes, path.stem, [make(*i) for i in inputs], [make(*o) for o in outputs], self.values)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        model = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path

    def last(self, name: str) -> None:
        """The newest result is an output of the model."""
        self.nodes[-1].output[0] = name


def keyword(path: Path) -> Path:
    """DS-CNN as in keyword spotting: a wide first layer, depthwise and 1 x 1, mean, classes, softmax."""
    m = Maker(1)
    x = m.conv(m.dequantize("x", 0.5, 83), 1, 16, (10, 4), 0.04, -128, strides=[2, 2], pads=[4, 1, 5, 1])
    for _ in range(2):
        x = m.conv(x, 16, 16, (3, 3), 0.04, -128, groups=16, pads=[1, 1, 1, 1])
        x = m.conv(x, 16, 16, (1, 1), 0.04, -128)
    x = m.conv(x, 16, 16, (3, 3), 0.04, -128, groups=16, strides=[2, 2], pads=[0, 0, 1, 1])
    x = m.requantize(m.node("GlobalAveragePool", [x]), 0.04, -128)
    x = m.node("Flatten", [x])
    weights = m.node("DequantizeLinear", [m.constant(m.chance.integers(-127, 128, (16, 12)).astype(np.int8)), m.scale(0.002)])
    x = m.requantize(m.node("MatMul", [x, weights]), 0.1, 14)
    m.quantize(m.node("Softmax", [x], axis=-1), 1 / 256, -128)
    m.last("y")
    return m.save(path, [("x", TensorProto.INT8, [1, 1, 25, 10])], [("y", TensorProto.INT8, [1, 12])])


def image(path: Path) -> Path:
    """A residual network: additions of different scales, strides, relu limits, odd sizes."""
    m = Maker(2)
    x = m.conv(m.dequantize("x", 0.02, 3), 3, 8, (3, 3), 0.03, -128, pads=[1, 1, 1, 1])
    y = m.conv(x, 8, 8, (3, 3), 0.03, -128, pads=[1, 1, 1, 1])
    y = m.conv(y, 8, 8, (3, 3), 0.05, 4, pads=[1, 1, 1, 1])
    x = m.requantize(m.node("Relu", [m.node("Add", [x, y])]), 0.04, -128)
    y = m.conv(x, 8, 16, (3, 3), 0.03, -20, strides=[2, 2], pads=[1, 1, 1, 1])
    z = m.conv(x, 8, 16, (1, 1), 0.03, 5, strides=[2, 2])
    x = m.requantize(m.node("Add", [y, z]), 0.07, -11)
    x = m.conv(x, 16, 6, (3, 3), 0.03, 0, dilations=[2, 2], pads=[2, 2, 2, 2])
    x = m.conv(x, 6, 6, (2, 3), 0.03, 7, groups=2, pads=[0, 1, 1, 1])
    x = m.requantize(m.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2]), 0.03, 7)
    x = m.requantize(m.node("AveragePool", [x], kernel_shape=[2, 2]), 0.03, 1)
    m.quantize(x, 0.03, 1)
    m.last("y")
    return m.save(path, [("x", TensorProto.INT8, [1, 3, 13, 13])], [("y", TensorProto.INT8, [1, 6, 2, 2])])


def wake(path: Path) -> Path:
    """A streaming net: two rings of past columns, whose states go in and out, and a score."""
    m = Maker(3)
    joined = m.node("Concat", ["ring1/state_in", "x"], axis=2)
    m.node("Slice", [joined, m.constant(np.array([2])), m.constant(np.array([5])), m.constant(np.array([2]))])
    m.last("ring1/state_out")
    c1 = m.conv(m.dequantize(joined, 0.1, -128), 12, 16, (5, 1), 0.05, -128)
    codes = m.nodes[-1].input[0]
    both = m.node("Concat", ["ring2/state_in", codes], axis=2)
    m.node("Slice", [both, m.constant(np.array([1])), m.constant(np.array([7])), m.constant(np.array([2]))])
    m.last("ring2/state_out")
    assert c1
    x = m.conv(m.dequantize(both, 0.05, -128), 16, 16, (7, 1), 0.04, 9, groups=16)
    x = m.conv(x, 16, 1, (1, 1), 0.1, 0)
    m.quantize(m.node("Sigmoid", [x]), 1 / 256, -128)
    m.last("score")
    return m.save(
        path,
        [
            ("x", TensorProto.INT8, [1, 12, 2, 1]),
            ("ring1/state_in", TensorProto.INT8, [1, 12, 3, 1]),
            ("ring2/state_in", TensorProto.INT8, [1, 16, 6, 1]),
        ],
        [
            ("score", TensorProto.INT8, [1, 1, 1, 1]),
            ("ring1/state_out", TensorProto.INT8, [1, 12, 3, 1]),
            ("ring2/state_out", TensorProto.INT8, [1, 16, 6, 1]),
        ],
    )


def digits_float(path: Path) -> Path:
    """Two linear layers on 8 x 8 digits."""
    m = Maker(4)
    w1, w2 = m.chance.normal(0, 0.2, (32, 64)).astype(np.float32), m.chance.normal(0, 0.2, (10, 32)).astype(np.float32)
    bias = m.constant(m.chance.normal(0, 0.1, 32).astype(np.float32))
    x = m.node("Relu", [m.node("Gemm", ["x", m.constant(w1), bias], transB=1)])
    m.node("Softmax", [m.node("Gemm", [x, m.constant(w2)], transB=1)], axis=-1)
    m.last("y")
    return m.save(path, [("x", TensorProto.FLOAT, [1, 64])], [("y", TensorProto.FLOAT, [1, 10])])


def digits(path: Path) -> Path:
    """The same with int4 weights."""
    from frugal.quantize import quantize

    quantize(digits_float(path.with_name("digits_float.onnx")), path, scheme="int4")
    return path


def gru(path: Path) -> Path:
    """A GRU in float, its state carried from run to run, and a softmax."""
    m = Maker(5)
    i, h = 6, 10

    def random(*shape: int) -> str:
        return m.constant(m.chance.normal(0, 0.4, shape).astype(np.float32))

    m.count += 1
    m.nodes.append(
        helper.make_node(
            "GRU", ["x", random(1, 3 * h, i), random(1, 3 * h, h), random(1, 6 * h), "", "h0"], ["", "yh"],
            hidden_size=h, linear_before_reset=1, name="gru",
        )
    )  # fmt: skip
    s = m.node("Squeeze", ["yh", m.constant(np.array([0]))])
    m.node("Softmax", [m.node("Gemm", [s, random(4, h)], transB=1)], axis=-1)
    m.last("p")
    return m.save(
        path,
        [("x", TensorProto.FLOAT, [3, 1, i]), ("h0", TensorProto.FLOAT, [1, 1, h])],
        [("p", TensorProto.FLOAT, [1, 4]), ("yh", TensorProto.FLOAT, [1, 1, h])],
    )


def shapes(path: Path, seed: int) -> Path:
    """Convolutions of many shapes on one input, each an output: what the packed kernels take, and what they refuse."""
    m = Maker(100 + seed)
    chance = m.chance
    c, h, w = int(chance.choice([1, 3, 4, 8, 12, 20])), int(chance.integers(3, 10)), int(chance.integers(3, 10))
    x = m.dequantize("x", 0.03, int(chance.integers(-128, 128)))
    names = []
    for i in range(12):
        depthwise = i % 3 == 2
        kernel = (3, 3) if depthwise and i % 2 else tuple(int(k) for k in chance.integers(1, 4, 2))
        groups, out = (c, c) if depthwise else (1, int(chance.choice([1, 4, 5, 8, 16])))
        if i == 7 and c % 4 == 0:
            groups, out = 2, 6
        strides = [1 + int(chance.integers(0, 2))] * 2
        pads = [int(p) for p in (chance.integers(0, 2, 4) if i % 4 else np.zeros(4))]
        pads = [min(p, kernel[j % 2] - 1) for j, p in enumerate(pads)]
        m.conv(x, c, out, kernel, 0.02 if i % 5 else 0.4, int(chance.integers(-128, 128)), groups, strides=strides, pads=pads)
        m.nodes[-1].input[0] = f"codes{i}"
        m.nodes[-2].output[0] = f"codes{i}"
        names.append(f"codes{i}")
    m.conv(x, c, 8, (h, w), 0.1, 3)  # one pixel: fully connected
    m.nodes[-2].output[0] = m.nodes[-1].input[0] = "codes12"
    for a, b in ((1.0, 0.02), (0.013, 0.3), (0.5, 0.5)):
        left, right = m.requantize(x, a, -5), m.requantize(x, b, 17)
        m.quantize(m.node("Add", [left, right]), a + b / 3, 11)
        names.append(m.nodes[-1].output[0])
    outputs = [(n, TensorProto.INT8, None) for n in [*names, "codes12"]]
    return m.save(path, [("x", TensorProto.INT8, [1, c, h, w])], outputs)


MAKERS = {"keyword": keyword, "image": image, "wake": wake, "digits": digits, "gru": gru}


def write_all(folder: Path) -> dict[str, Path]:
    return {name: make(folder / f"{name}.onnx") for name, make in MAKERS.items()}
