"""Small ONNX models for the tests of the package: big enough to have symbols, several inputs and a constant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper, numpy_helper

RNG = np.random.default_rng(7)
TABLE = RNG.standard_normal((50, 8)).astype(np.float32)
BIAS = RNG.standard_normal(8).astype(np.float32)


def embed() -> onnx.ModelProto:
    """ids int64 [batch, sequence], shift float [8] -> rows [batch, sequence, 8] = relu(table[ids] + bias) * shift."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["found"], name="find"),
        helper.make_node("Add", ["found", "bias"], ["sum"], name="add"),
        helper.make_node("Relu", ["sum"], ["positive"], name="relu"),
        helper.make_node("Mul", ["positive", "shift"], ["rows"], name="mul"),
        helper.make_node("Identity", ["ids"], ["same"], name="same"),
    ]
    graph = helper.make_graph(
        nodes,
        "embed",
        [_info("ids", T.INT64, ["batch", "sequence"]), _info("shift", T.FLOAT, [8])],
        [_info("rows", T.FLOAT, ["batch", "sequence", 8]), _info("same", T.INT64, ["batch", "sequence"])],
        [numpy_helper.from_array(TABLE, "table"), numpy_helper.from_array(BIAS, "bias")],
    )
    return _model(graph)


def embed_reference(ids: Any, shift: Any) -> Any:
    """rows of `embed`, in numpy."""
    return np.maximum(TABLE[ids] + BIAS, 0) * shift


def every_type() -> onnx.ModelProto:
    """f float [n, ?], d double [n], b bool [n], i int32 [n], u uint8 [n] -> the same, copied."""
    types = {"f": T.FLOAT, "d": T.DOUBLE, "b": T.BOOL, "i": T.INT32, "u": T.UINT8}
    shape = {"f": ["n", None]}
    nodes = [helper.make_node("Identity", [name], [name + "_out"]) for name in types]
    graph = helper.make_graph(
        nodes,
        "copies",
        [_info(name, t, shape.get(name, ["n"])) for name, t in types.items()],
        [_info(name + "_out", t, shape.get(name, ["n"])) for name, t in types.items()],
    )
    return _model(graph)


def square() -> onnx.ModelProto:
    """x float [n] -> y float [n, n] = x x^T: the output grows with the square of the input."""
    nodes = [
        helper.make_node("Unsqueeze", ["x", "one"], ["column"]),
        helper.make_node("Mul", ["column", "x"], ["y"]),
    ]
    one = numpy_helper.from_array(np.array([1], np.int64), "one")
    return _model(helper.make_graph(nodes, "square", [_info("x", T.FLOAT, ["n"])], [_info("y", T.FLOAT, ["n", "n"])], [one]))


def save_external(path: Path) -> Path:
    """`embed` with its constants in weights.bin beside it."""
    onnx.save(embed(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def _info(name: str, dtype: int, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def _model(graph: onnx.GraphProto) -> onnx.ModelProto:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10, producer_name="frugal-tests")
    helper.set_model_props(model, {"answer": "42"})
    onnx.checker.check_model(model)
    return model
