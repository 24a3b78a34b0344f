"""Weights that 16 bits hold are stored so, and change no bit of a result."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import frugal
import plan_reader
from frugal.compiler import compile_model

RNG = np.random.default_rng(5)


def model(w: np.ndarray, cast: bool = False) -> bytes:
    """y = x w with x float32 [m, k]; cast: the weight is stored narrow, and a Cast makes it float32."""
    nodes = [helper.make_node("Cast", ["w"], ["wide"], to=TensorProto.FLOAT)] if cast else []
    nodes.append(helper.make_node("MatMul", ["x", "wide" if cast else "w"], ["y"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["m", w.shape[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", w.shape[1]])
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(w, "w")])
    data: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10).SerializeToString()
    return data


def layouts(data: bytes) -> set[str]:
    """Layouts of the packed constants."""
    return {t["layout"] for t in plan_reader.read(compile_model(data))["tensors"]} - {"plain"}


def run(data: bytes, x: np.ndarray) -> np.ndarray:
    options = frugal.SessionOptions()
    options.intra_op_num_threads = 1
    result: np.ndarray = frugal.InferenceSession(data, options).run(None, {"x": x})[0]
    return result


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)], ids=str)
@pytest.mark.parametrize("k, n", [(1, 1), (33, 17), (130, 100)])
def test_half_weights_change_no_bit(dtype: np.dtype, k: int, n: int) -> None:
    """The chain of fmaf is that of float32."""
    size = 0.1 if dtype == np.float16 else 1e-12  # smaller than any float16
    narrow = (RNG.standard_normal((k, n)) * size).astype(dtype)
    wide = narrow.astype(np.float32)
    assert layouts(model(wide)) == layouts(model(narrow, cast=True)) == {"f16_p16" if dtype == np.float16 else "bf16_p16"}
    # one more column that 16 bits do not hold: all of the weight stays float32, and so does the first part of the result
    mixed = np.concatenate([wide, np.full((k, 1), 1 + 2**-20, np.float32)], axis=1)
    assert layouts(model(mixed)) == {"f32_p16"}
    for m in (1, 2, 5, 6, 7, 12, 13, 100):
        x = RNG.standard_normal((m, k)).astype(np.float32)
        got = run(model(wide), x)
        assert got.tobytes() == run(model(mixed), x)[:, :n].tobytes(), m
        assert got.tobytes() == run(model(narrow, cast=True), x).tobytes(), m


def test_values_that_are_no_halves_stay() -> None:
    w = RNG.standard_normal((40, 16)).astype(np.float32)
    assert layouts(model(w)) == {"f32_p16"}
    w = np.ones((4, 16), np.float32)
    w[1, 1] = np.nan
    assert layouts(model(w)) == {"f32_p16"}
    w[1, 1] = 1e5  # beyond float16, and no bfloat16
    assert layouts(model(w)) == {"f32_p16"}
    w[1, 1] = 2.0**120
    assert layouts(model(w)) == {"bf16_p16"}
