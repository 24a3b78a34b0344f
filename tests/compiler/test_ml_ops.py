"""Operators of ai.onnx.ml against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from frugal.errors import InvalidModel, UnsupportedOperator

from .models import run_frugal, run_onnxruntime

RNG = np.random.default_rng(2)


def model(kind: str, feeds: dict[str, np.ndarray], **attributes: Any) -> onnx.ModelProto:
    node = helper.make_node(kind, list(feeds), ["y"], domain="ai.onnx.ml", name="node", **attributes)
    kinds = {"f": TensorProto.FLOAT, "i": TensorProto.INT64}
    infos = [helper.make_tensor_value_info(n, kinds[v.dtype.kind], [f"rows of {n}", *v.shape[1:]]) for n, v in feeds.items()]
    graph = helper.make_graph([node], "g", infos, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("Binarizer", {"threshold": 0.25}),
        ("Scaler", {"offset": [0.5], "scale": [2.0]}),
        ("Scaler", {"offset": [0.5, 1.0, -1.0, 2.0], "scale": [2.0, 0.5, -1.0, 0.1]}),
        ("LinearRegressor", {"coefficients": [0.5, 1.0, -1.0, 2.0], "intercepts": [0.75]}),
        ("LinearRegressor", {"coefficients": [float(v) for v in range(12)], "targets": 3}),
    ],
)
def test_of_a_matrix(kind: str, attributes: dict[str, Any]) -> None:
    feeds = {"x": RNG.standard_normal((5, 4)).astype(np.float32)}
    made = model(kind, feeds, **attributes)
    (got,), (want,) = run_frugal(made, feeds), run_onnxruntime(made, feeds)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4)])
def test_array_feature_extractor(shape: tuple[int, ...]) -> None:
    feeds = {"x": RNG.standard_normal(shape).astype(np.float32), "ids": np.array([3, 0, 3])}
    made = model("ArrayFeatureExtractor", feeds)
    np.testing.assert_array_equal(run_frugal(made, feeds)[0], run_onnxruntime(made, feeds)[0])


def test_what_is_refused() -> None:
    feeds = {"x": np.zeros((5, 4), np.float32)}
    with pytest.raises(UnsupportedOperator, match="LOGISTIC"):
        run_frugal(model("LinearRegressor", feeds, coefficients=[1.0] * 4, post_transform="LOGISTIC"), feeds)
    with pytest.raises(InvalidModel, match="3 values of offset"):
        run_frugal(model("Scaler", feeds, offset=[1.0] * 3, scale=[1.0]), feeds)
