"""16-bit QuantizeLinear and DequantizeLinear with scales that the run brings, against onnxruntime, bit for bit."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import frugal

KINDS = {np.int16: TensorProto.INT16, np.uint16: TensorProto.UINT16}


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize(
    "shape,axis", [((3, 4, 5), 1), ((3, 4, 5), -1), ((3, 4, 5), 0), ((2, 3), None), ((0, 3), None), ((), None), ((1, 4), 0)]
)
@pytest.mark.parametrize("constant", [False, True])
def test_wide_codes(dtype: type, shape: tuple[int, ...], axis: int | None, constant: bool) -> None:
    rng = np.random.default_rng(3)
    size = () if axis is None else (shape[axis],)
    feeds = {
        "x": np.asarray(rng.uniform(-40, 40, shape), np.float32),
        "scale": np.asarray(rng.uniform(1e-4, 2e-3, size), np.float32),
        "zero": np.asarray(rng.integers(0, 100, size), dtype),
    }
    kinds = {"x": TensorProto.FLOAT, "scale": TensorProto.FLOAT, "zero": KINDS[dtype]}
    attributes = {} if axis is None else {"axis": axis}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], **attributes),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], **attributes),
    ]
    fixed = ["scale", "zero"] if constant else []
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, k, feeds[n].shape) for n, k in kinds.items() if n not in fixed],
        [helper.make_tensor_value_info(n, k, shape) for n, k in (("q", KINDS[dtype]), ("y", TensorProto.FLOAT))],
        [helper.make_tensor(n, kinds[n], feeds[n].shape, feeds[n].reshape(-1)) for n in fixed],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11).SerializeToString()
    given = {n: v for n, v in feeds.items() if n not in fixed}
    got = frugal.InferenceSession(model).run(None, given)
    want = ort.InferenceSession(model).run(None, given)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_products_of_16_bit_activations_stay_float() -> None:
    """Rounded to 8 bits, as activations of int8 weights usually are, they would be off by 1 in 256."""
    rng = np.random.default_rng(3)
    codes, weights = rng.integers(-32768, 32767, (4, 64)).astype(np.int16), rng.integers(-127, 128, (64, 32)).astype(np.int8)
    scalar = [helper.make_tensor(n, TensorProto.FLOAT, (), [v]) for n, v in (("s", 1e-4), ("ws", 1e-2))]
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["x", "s"], ["a"]),
            helper.make_node("DequantizeLinear", ["w", "ws"], ["b"]),
            helper.make_node("MatMul", ["a", "b"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.INT16, codes.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (4, 32))],
        [*scalar, helper.make_tensor("w", TensorProto.INT8, weights.shape, weights.reshape(-1))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11).SerializeToString()
    (y,) = frugal.InferenceSession(model).run(None, {"x": codes})
    want = (codes * 1e-4) @ (weights * 1e-2)
    np.testing.assert_allclose(y, want, atol=1e-4)  # float32 sums of 64 products up to 4; 8-bit activations would be off by 0.1
