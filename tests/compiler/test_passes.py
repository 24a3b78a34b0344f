"""Each pass finds its pattern, keeps the result that onnxruntime gives, and leaves look-alikes alone."""

from __future__ import annotations

from collections import Counter
from math import sqrt

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from frugal.compiler import lower_model
from frugal.compiler.ir import Op

from .models import Builder, assert_same, run_frugal, run_onnxruntime

RNG = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def counts(model: onnx.ModelProto, **options: str) -> Counter[Op]:
    return Counter(s.op for s in lower_model(model, **options)[0].steps)


@pytest.mark.parametrize("divide", [True, False])
@pytest.mark.parametrize("half_first", [True, False])
def test_gelu_spelled_out(divide: bool, half_first: bool) -> None:
    b = Builder(17)
    x = b.input("x", ["n", 40])
    argument = b.op("Div", x, b.const(sqrt(2))) if divide else b.op("Mul", x, b.const(sqrt(0.5)))
    one = b.op("Add", b.op("Erf", argument), b.const(1.0))
    y = b.op("Mul", b.op("Mul", x, b.const(0.5)), one) if half_first else b.op("Mul", b.op("Mul", x, one), b.const(0.5))
    model = b.model(y)
    assert counts(model) == {Op.UNARY: 1}
    assert_same(model, {"x": normal(5, 40) * 3})


def test_gelu_of_something_else_is_left_alone() -> None:
    b = Builder(17)
    x, z = b.input("x", ["n", 40]), b.input("z", ["n", 40])
    one = b.op("Add", b.op("Erf", b.op("Div", x, b.const(sqrt(2)))), b.const(1.0))
    model = b.model(b.op("Mul", b.op("Mul", z, b.const(0.5)), one))
    assert counts(model)[Op.UNARY] == 1 and counts(model)[Op.BINARY] == 4
    assert_same(model, {"x": normal(5, 40), "z": normal(5, 40)})


def test_silu() -> None:
    b = Builder(17)
    x = b.input("x", ["n", 33])
    model = b.model(b.op("Mul", b.op("Sigmoid", x), x))
    assert counts(model) == {Op.UNARY: 1}
    assert_same(model, {"x": normal(3, 33) * 5})


@pytest.mark.parametrize("square", ["Pow", "Mul"])
def test_layer_norm_spelled_out(square: str) -> None:
    b = Builder(13)
    x, r = b.input("x", ["n", "s", 48]), b.input("r", ["n", "s", 48])
    x = b.op("Add", x, r)
    d = b.op("Sub", x, b.op("ReduceMean", x, axes=[-1]))
    squared = b.op("Pow", d, b.const(2.0)) if square == "Pow" else b.op("Mul", d, d)
    root = b.op("Sqrt", b.op("Add", b.op("ReduceMean", squared, axes=[-1]), b.const(1e-5)))
    y = b.op("Add", b.op("Mul", b.op("Div", d, root), b.const(normal(48))), b.const(normal(48)))
    model = b.model(y)
    assert counts(model) == {Op.LAYER_NORM: 1}
    assert_same(model, {"x": normal(2, 3, 48), "r": normal(2, 3, 48)})


@pytest.mark.parametrize("transposed", [False, True])
def test_linear_takes_bias_activation_and_residual(transposed: bool) -> None:
    b = Builder()
    x, r = b.input("x", ["n", 5, 40]), b.input("r", ["n", 5, 24])
    w = b.op("Transpose", b.const(normal(24, 40)), perm=[1, 0]) if transposed else b.const(normal(40, 24))
    y = b.op("Add", r, b.op("Gelu", b.op("Add", b.op("MatMul", x, w), b.const(normal(24)))))
    model = b.model(y)
    assert counts(model) == {Op.LINEAR: 1}
    assert_same(model, {"x": normal(3, 5, 40), "r": normal(3, 5, 24)})


def test_linear_that_is_read_twice_keeps_its_result() -> None:
    b = Builder()
    x = b.input("x", ["n", 40])
    y = b.op("MatMul", x, b.const(normal(40, 40)))
    model = b.model(b.op("Relu", y), b.op("Add", y, x))
    assert counts(model) == {Op.LINEAR: 1, Op.UNARY: 1, Op.BINARY: 1}
    assert_same(model, {"x": normal(3, 40)})


def test_sum_of_two_linears_is_the_residual_of_one() -> None:
    b = Builder()
    x, h = b.input("x", ["n", 40]), b.input("h", ["n", 24])
    model = b.model(b.op("Add", b.op("MatMul", x, b.const(normal(40, 24))), b.op("MatMul", h, b.const(normal(24, 24)))))
    assert counts(model) == {Op.LINEAR: 2}
    assert_same(model, {"x": normal(3, 40), "h": normal(3, 24)})


def test_bias_of_another_shape_is_not_a_bias() -> None:
    b = Builder()
    x = b.input("x", ["n", 4, 40])
    model = b.model(b.op("Add", b.op("MatMul", x, b.const(normal(40, 4))), b.const(normal(4, 1))))
    assert counts(model) == {Op.LINEAR: 1, Op.BINARY: 1}
    assert_same(model, {"x": normal(2, 4, 40)})


def _projections(b: Builder, x: str, hidden: int) -> list[str]:
    return [b.op("Add", b.op("MatMul", x, b.const(normal(hidden, hidden) / 8)), b.const(normal(hidden))) for _ in range(3)]


@pytest.mark.parametrize("masked", [False, True])
def test_attention_joins_its_projections(masked: bool) -> None:
    b = Builder()
    x = b.input("x", ["n", "s", 64])
    q, k, v = _projections(b, x, 64)
    feeds = {"x": normal(2, 7, 64)}
    operands = [q, k, v]
    if masked:
        m = b.input("m", ["n", "s"], TensorProto.BOOL)
        s = b.op("Shape", m, start=1)
        full = b.op("Concat", b.op("Shape", m, end=1), b.const([1], np.int64), s, s, axis=0)
        operands.append(b.op("Expand", b.op("Unsqueeze", m, b.const([1, 2], np.int64)), full))
        feeds["m"] = np.arange(7)[None] < np.array([[7], [4]])
    model = b.model(b.op("Attention", *operands, q_num_heads=4, kv_num_heads=4))
    assert counts(model)[Op.LINEAR] == 1 and counts(model)[Op.ATTENTION] == 1
    assert_same(model, feeds)


@pytest.mark.parametrize("causal", [0, 1])
def test_grouped_query_attention(causal: int) -> None:
    b = Builder()
    q, k, v = b.input("q", ["n", "s", 64]), b.input("k", ["n", "t", 32]), b.input("v", ["n", "t", 48])
    model = b.model(b.op("Attention", q, k, v, q_num_heads=4, kv_num_heads=2, is_causal=causal))
    assert_same(model, {"q": normal(2, 6, 64), "k": normal(2, 6, 32), "v": normal(2, 6, 48)})


@pytest.mark.parametrize("scaled", ["product", "both"])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_spelled_out(scaled: str, masked: bool) -> None:
    b = Builder(14)
    x = b.input("x", ["n", "s", 64])
    split = b.op(
        "Concat",
        b.op("Slice", b.op("Shape", x), *[b.const([i], np.int64) for i in (0, 2, 0)]),
        b.const([4, 16], np.int64),
        axis=0,
    )
    q, k, v = (b.op("Reshape", t, split) for t in _projections(b, x, 64))
    q, v = (b.op("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
    k = b.op("Transpose", k, perm=[0, 2, 3, 1])
    if scaled == "both":
        q, k = (b.op("Mul", t, b.const(0.5)) for t in (q, k))
    scores = b.op("MatMul", q, k)
    scores = scores if scaled == "both" else b.op("Div", scores, b.const(4.0))
    feeds = {"x": normal(2, 5, 64)}
    if masked:
        m = b.input("m", ["n", 1, 1, "s"])
        scores = b.op("Add", scores, m)
        feeds["m"] = np.where(np.arange(5) < np.array([[5], [3]]), 0, -3e38).astype(np.float32).reshape(2, 1, 1, 5)
    mixed = b.op("Transpose", b.op("MatMul", b.op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    model = b.model(b.op("Reshape", mixed, b.const([0, 0, 64], np.int64)))
    assert counts(model) == {Op.ATTENTION: 1, Op.LINEAR: 1}
    assert_same(model, feeds)


@pytest.mark.parametrize("opset", [11, 14])
@pytest.mark.parametrize("pick", ["slice", "gather", "split"])
def test_attention_of_one_product(pick: str, opset: int) -> None:
    """q, k and v are the parts of one product, as vision transformers write it."""
    b = Builder(opset)
    x = b.input("x", ["n", "s", 64])
    both = b.op("MatMul", x, b.const(RNG.normal(0, 0.2, (64, 192))))
    turned = b.op("Transpose", b.op("Reshape", both, b.const([0, -1, 3, 4, 16], np.int64)), perm=[2, 0, 3, 1, 4])

    def squeezed(t: str) -> str:
        return str(b.op("Squeeze", t, axes=[0]) if opset < 13 else b.op("Squeeze", t, b.const([0], np.int64)))

    if pick == "gather":
        q, k, v = (b.op("Gather", turned, b.const(i, np.int64)) for i in range(3))
    elif pick == "split":
        q, k, v = (squeezed(t) for t in b.op("Split", turned, outputs=3, axis=0))
    else:
        q, k, v = (squeezed(b.op("Slice", turned, *[b.const([j], np.int64) for j in (i, i + 1, 0)])) for i in range(3))
    scores = b.op("MatMul", b.op("Mul", q, b.const(0.25)), b.op("Transpose", k, perm=[0, 1, 3, 2]))
    mixed = b.op("Transpose", b.op("MatMul", b.op("Softmax", scores, axis=3), v), perm=[0, 2, 1, 3])
    model = b.model(b.op("Reshape", mixed, b.const([0, -1, 64], np.int64)))
    assert counts(model) == {Op.ATTENTION: 1, Op.LINEAR: 1}
    assert_same(model, {"x": normal(2, 5, 64)})


def test_parts_in_another_order_are_not_one_product() -> None:
    b = Builder()
    x = b.input("x", ["n", "s", 96])
    turned = b.op("Transpose", b.op("Reshape", x, b.const([0, -1, 3, 2, 16], np.int64)), perm=[2, 0, 3, 1, 4])
    k, q, v = (b.op("Gather", turned, b.const(i, np.int64)) for i in range(3))
    scores = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2]))
    mixed = b.op("Transpose", b.op("MatMul", b.op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    model = b.model(b.op("Reshape", mixed, b.const([0, -1, 32], np.int64)))
    assert Op.ATTENTION not in counts(model)
    assert_same(model, {"x": normal(2, 5, 96)})


@pytest.mark.parametrize("kind", ["Mul", "Div", "Sub", "Add"])
@pytest.mark.parametrize("shape", [(), (1,), (8,), (2, 1, 8)])
def test_arithmetic_that_changes_nothing(kind: str, shape: tuple[int, ...]) -> None:
    """As PaddlePaddle writes swish: x sigmoid(1 x).  A sum with 0 stays: it makes 0 of -0; so does what broadcasts x."""
    b = Builder()
    x = b.input("x", ["n", 8])
    one = b.op(kind, x, b.const(np.full(shape, kind in ("Mul", "Div"))))
    model = b.model(b.op("Mul", x, b.op("Sigmoid", one)))
    kept = kind == "Add" or len(shape) > 2
    assert (counts(model) == {Op.UNARY: 1}) != kept
    assert_same(model, {"x": normal(3, 8)})


def test_a_variable_is_copied_by_a_product_with_one() -> None:
    """Two variables that change places: each next value is what the other one was, not what it becomes."""
    infos = {n: onnx.helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in ("a", "b", "p", "q", "x", "z")}
    i, more = (onnx.helper.make_tensor_value_info(n, t, []) for n, t in (("i", TensorProto.INT64), ("more", TensorProto.BOOL)))
    swap = [onnx.helper.make_node("Mul", [f, "one"], [t]) for f, t in (("b", "p"), ("a", "q"))]
    goes = onnx.helper.make_node("Identity", ["more"], ["goes"])
    last = onnx.helper.make_tensor_value_info("goes", TensorProto.BOOL, [])
    body = onnx.helper.make_graph([*swap, goes], "b", [i, more, infos["a"], infos["b"]], [last, infos["p"], infos["q"]])
    loop = onnx.helper.make_node("Loop", ["turns", "", "x", "z"], ["u", "v"], body=body)
    outs = [onnx.helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in ("u", "v")]
    one, turns = (onnx.numpy_helper.from_array(np.array(v, t), n) for v, t, n in ((1, np.float32, "one"), (3, np.int64, "turns")))
    graph = onnx.helper.make_graph([loop], "g", [infos["x"], infos["z"]], outs, [one, turns])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    assert_same(model, {"x": normal(3), "z": normal(3)})


def test_repeated_steps_are_done_once() -> None:
    b = Builder()
    x = b.input("x", ["n", 8])
    one, two = (b.op("Exp", b.op("Mul", x, b.const(2.0))) for _ in range(2))
    model = b.model(b.op("Add", one, two))
    assert counts(model) == {Op.BINARY: 2, Op.UNARY: 1}
    assert_same(model, {"x": normal(3, 8)})


def test_shape_chains_cost_no_step() -> None:
    b = Builder()
    x = b.input("x", ["n", "s", 12])
    s = b.op("Shape", x)
    n = b.op("Gather", s, b.const(0, np.int64))
    parts = [b.op("Unsqueeze", n, b.const([0], np.int64)), b.const([-1], np.int64), b.const([4], np.int64)]
    model = b.model(b.op("Reshape", x, b.op("Concat", *parts, axis=0)))
    assert set(counts(model)) <= {Op.ALIAS}
    assert_same(model, {"x": normal(2, 5, 12)})


def int8_linear(b: Builder, x: str, k: int, n: int) -> str:
    codes = RNG.integers(-127, 128, (k, n), dtype=np.int8)
    w = b.op("DequantizeLinear", b.const(codes, np.int8), b.const(RNG.uniform(0.001, 0.02, n)), axis=1)
    return str(b.op("MatMul", x, w))


def int4_linear(b: Builder, x: str, k: int, n: int, block: int = 32) -> str:
    codes = RNG.integers(-8, 8, (n, k))
    q = b.tensor(TensorProto.INT4, (n, k), codes.reshape(-1).tolist())
    z = b.tensor(TensorProto.INT4, (n, k // block), RNG.integers(-8, 8, n * (k // block)).tolist())
    d = b.const(RNG.uniform(0.01, 0.1, (n, k // block)), np.float16)
    turn = {"perm": [1, 0]}
    scale = b.op("Transpose", b.op("Cast", d, to=TensorProto.FLOAT), **turn)
    w = b.op("DequantizeLinear", b.op("Transpose", q, **turn), scale, b.op("Transpose", z, **turn), axis=0, block_size=block)
    return str(b.op("MatMul", x, w))


@pytest.mark.parametrize(("build", "block"), [(int8_linear, 0), (int4_linear, 32), (int4_linear, 64)])
def test_quantized_linear_close_to_float(build: object, block: int) -> None:
    b = Builder(24)
    x = b.input("x", ["n", 128])
    y = int8_linear(b, x, 128, 40) if build is int8_linear else int4_linear(b, x, 128, 40, block)
    model = b.model(y)
    assert counts(model) == {Op.QUANTIZE_ACT: 1, Op.LINEAR: 1}
    feeds = {"x": normal(9, 128)}
    (want,) = run_onnxruntime(model, feeds)
    for activations, limit in (("float", 1e-5), ("int8-block", 0.02), ("int8-token", 0.02), ("int8", 0.02)):
        (got,) = run_frugal(model, feeds, activations=activations)
        assert np.abs(got - want).max() <= limit * np.abs(want).max(), activations


def test_linear_quantizes_its_own_result() -> None:
    b = Builder(24)
    x = b.input("x", ["n", 128])
    hidden = b.op("Relu", int8_linear(b, x, 128, 80))
    y = int8_linear(b, hidden, 80, 40)
    alone, shared = b.model(y), b.model(y, hidden)  # in the second the float result is wanted too
    assert counts(alone) == {Op.QUANTIZE_ACT: 1, Op.LINEAR: 2}
    assert counts(shared) == {Op.QUANTIZE_ACT: 2, Op.LINEAR: 2}
    feeds = {"x": normal(9, 128)}
    for activations in ("int8-token", "int8-block"):
        (one,), (other, _) = (run_frugal(m, feeds, activations=activations) for m in (alone, shared))
        assert one.tobytes() == other.tobytes()
        np.testing.assert_allclose(one, run_onnxruntime(alone, feeds)[0], rtol=0, atol=0.03 * np.abs(one).max())


def test_static_activations_are_the_codes_of_the_graph() -> None:
    b = Builder(24)
    x = b.input("x", ["n", 64])
    scale, zero = b.const(0.03), b.const(0, np.int8)
    x8 = b.op("DequantizeLinear", b.op("QuantizeLinear", x, scale, zero), scale, zero)
    model = b.model(int8_linear(b, x8, 64, 24))
    graph = lower_model(model)[0]
    assert [s.op for s in graph.steps] == [Op.QUANTIZE_ACT, Op.LINEAR]
    feeds = {"x": np.clip(normal(9, 64), -3.8, 3.8)}
    (want,), (got,) = run_onnxruntime(model, feeds), run_frugal(model, feeds)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_quantized_embedding() -> None:
    b = Builder(24)
    ids = b.input("ids", ["n", "s"], TensorProto.INT64)
    table, scale = b.const(RNG.integers(-127, 128, (50, 48)), np.int8), b.const(RNG.uniform(0.001, 0.1, (50, 1)))
    y = b.op("DequantizeLinear", b.op("Gather", table, ids), b.op("Gather", scale, ids), axis=-1, block_size=48)
    model = b.model(y)
    assert counts(model) == {Op.GATHER_DEQUANTIZE: 1}
    assert_same(model, {"ids": RNG.integers(-50, 50, (3, 4))}, tolerance=1e-7)


def test_matmul_nbits() -> None:
    b = Builder(24)
    x = b.input("x", ["n", 64])
    packed = b.const(RNG.integers(0, 256, (40, 2, 16)), np.uint8)
    scale = b.const(RNG.uniform(0.01, 0.1, 80).astype(np.float16).astype(np.float32))
    zeros = b.const(RNG.integers(0, 256, 40), np.uint8)
    y = b.op("MatMulNBits", x, packed, scale, zeros, domain="com.microsoft", K=64, N=40, bits=4, block_size=32)
    model = b.model(y)
    assert counts(model) == {Op.QUANTIZE_ACT: 1, Op.LINEAR: 1}
    feeds = {"x": normal(6, 64)}
    (want,), (got,) = run_onnxruntime(model, feeds), run_frugal(model, feeds, activations="float")
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_two_linears_into_one_addition() -> None:
    """The first takes the addition over, with the other's result as its residual."""
    b = Builder(17)
    x, z = b.input("x", ["n", 8]), b.input("z", ["n", 12])
    first, second = b.op("MatMul", x, b.const(normal(8, 5))), b.op("MatMul", z, b.const(normal(12, 5)))
    model = b.model(b.op("Tanh", b.op("Add", first, second)))
    assert counts(model) == {Op.LINEAR: 2, Op.UNARY: 1}
    assert_same(model, {"x": normal(3, 8), "z": normal(3, 12)})


@pytest.mark.parametrize("spelling", ["factors", "power", "half first"])
def test_gelu_by_tanh_spelled_out(spelling: str) -> None:
    b = Builder(17)
    x = b.op("Mul", b.input("x", ["n", 40]), b.const(2.0))  # a product itself, which must stay whole
    if spelling == "power":
        cube = b.op("Mul", b.op("Pow", x, b.const(3.0)), b.const(0.044715))
    else:
        cube = b.op("Mul", x, b.op("Mul", x, b.op("Mul", b.const(0.044715), x)))
    one = b.op("Add", b.const(1.0), b.op("Tanh", b.op("Mul", b.const(sqrt(2 / np.pi)), b.op("Add", x, cube))))
    if spelling == "half first":
        y = b.op("Mul", b.op("Mul", b.const(0.5), x), one)
    else:
        y = b.op("Mul", x, b.op("Mul", b.const(0.5), one))
    model = b.model(y)
    assert counts(model)[Op.UNARY] == 1
    assert counts(model)[Op.BINARY] == 1
    assert_same(model, {"x": normal(5, 40)})


@pytest.mark.parametrize(
    ("cube", "scale", "half"), [(0.05, sqrt(2 / np.pi), 0.5), (0.044715, 0.8, 0.5), (0.044715, sqrt(2 / np.pi), 0.6)]
)
def test_tanh_of_something_else_is_left_alone(cube: float, scale: float, half: float) -> None:
    b = Builder(17)
    x = b.input("x", ["n", 40])
    inner = b.op("Add", x, b.op("Mul", b.op("Mul", x, x), b.op("Mul", b.const(cube), x)))
    one = b.op("Add", b.const(1.0), b.op("Tanh", b.op("Mul", b.const(scale), inner)))
    model = b.model(b.op("Mul", x, b.op("Mul", b.const(half), one)))
    assert counts(model)[Op.BINARY] == 8
    assert_same(model, {"x": normal(5, 40)})


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_one_hot_product_is_a_gather(kind: type) -> None:
    """Also of ids that are no row, which give zeros; the bits are the product's."""
    table = normal(7, 5)
    table[3] = -0.0
    b = Builder(17)
    number = int(TensorProto.INT32 if kind is np.int32 else TensorProto.INT64)
    ids = b.op("Unsqueeze", b.input("ids", ["n", 6], number), b.const([2], np.int64))
    hot = b.op("Cast", b.op("Equal", ids, b.const(np.arange(7), kind)), to=int(TensorProto.FLOAT))
    model = b.model(b.op("Add", b.op("MatMul", hot, b.const(table)), b.const(normal(5))))
    feeds = {"ids": RNG.integers(-2, 9, (3, 6)).astype(kind)}
    assert counts(model)[Op.GATHER] == 1 and Op.LINEAR not in counts(model)
    np.testing.assert_array_equal(*(run_frugal(model, feeds, optimize=o)[0] for o in (True, False)))
    assert_same(model, feeds)


@pytest.mark.parametrize("odd", ["codes", "table", "shape"])
def test_products_that_are_no_gather(odd: str) -> None:
    table = normal(7, 5)
    table[2, 2] = np.inf if odd == "table" else 1
    b = Builder(17)
    ids = b.input("ids", ["n", 6, 7 if odd == "shape" else 1], int(TensorProto.INT64))
    codes = np.arange(7) + (odd == "codes")
    hot = b.op("Cast", b.op("Equal", ids, b.const(codes, np.int64)), to=int(TensorProto.FLOAT))
    assert counts(b.model(b.op("MatMul", hot, b.const(table))))[Op.LINEAR] == 1


@pytest.mark.parametrize("form", ["int8 in blocks", "int8 a row", "int8 a row, block"])
def test_tied_embedding_is_one_table(form: str) -> None:
    """Rows of a table that is also the weight of a linear: read from its packed form, to the bit."""
    b = Builder(24)
    ids, x = b.input("ids", ["n"], TensorProto.INT64), b.input("x", ["n", 64])
    groups = 2 if form == "int8 in blocks" else 1
    codes = b.const(RNG.integers(-127, 128, (50, 64)), np.int8)
    scales = RNG.uniform(0.001, 0.1, (50, groups)).astype(np.float16).astype(np.float32)
    scale = b.const(scales)
    block = {"axis": -1, "block_size": 64 // groups}
    row = b.op("DequantizeLinear", b.op("Gather", codes, ids), b.op("Gather", scale, ids), **block)
    if form == "int8 a row":
        weight = b.op("DequantizeLinear", codes, b.const(scales[:, 0]), axis=0)
    else:
        weight = b.op("DequantizeLinear", codes, scale, axis=1, block_size=64 // groups)
    model = b.model(row, b.op("MatMul", x, b.op("Transpose", weight, perm=[1, 0])))
    found = counts(model)
    assert [found[o] for o in (Op.GATHER_PACKED, Op.QUANTIZE_ACT, Op.LINEAR)] == [1, 1, 1]
    feeds = {"ids": RNG.integers(-50, 50, 7), "x": normal(7, 64)}
    (rows, want), (got_rows, got) = run_onnxruntime(model, feeds), run_frugal(model, feeds)
    np.testing.assert_array_equal(got_rows, rows)
    error = 2e-4 if form == "int8 in blocks" else 0.02  # of 16 and of 8 bits of the activations
    np.testing.assert_allclose(got, want, rtol=0, atol=error * np.abs(want).max())


@pytest.mark.parametrize("exact", [True, False])
def test_offsets_become_part_of_the_weights(exact: bool) -> None:
    """Blocks with offsets, written as a second product of the sums of x; where fp16 does not hold them it stays."""
    b = Builder(24)
    x = b.input("x", ["n", 96])
    codes = RNG.integers(0, 16, (40, 96))
    packed = b.tensor(TensorProto.UINT4, (40, 96), codes.reshape(-1))
    scale, offset = (RNG.uniform(0.01, 0.1, (40, 3)).astype(np.float16).astype(np.float32) for _ in range(2))
    offset = (-7.5 * offset).astype(np.float16).astype(np.float32) + (0 if exact else 1e-6)
    weight = b.op("DequantizeLinear", packed, b.const(scale), axis=1, block_size=32)
    product = b.op("MatMul", x, b.op("Transpose", weight, perm=[1, 0]))
    sums = b.op("ReduceSum", b.op("Reshape", x, b.const([0, 3, 32], np.int64)), b.const([-1], np.int64), keepdims=0)
    model = b.model(b.op("Add", product, b.op("MatMul", sums, b.const(offset.T))))
    found = counts(model)
    assert (found[Op.LINEAR], found[Op.REDUCE]) == ((1, 0) if exact else (2, 1))
    feeds = {"x": normal(9, 96)}
    real = codes * np.repeat(scale, 32, 1) + np.repeat(offset, 32, 1)
    want = feeds["x"] @ real.T.astype(np.float32)
    (got,) = run_frugal(model, feeds)
    np.testing.assert_allclose(got, want, rtol=0, atol=0.02 * np.abs(want).max())  # of 8-bit activations
