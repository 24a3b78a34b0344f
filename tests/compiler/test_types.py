"""Data types and elementwise operators: against onnxruntime where it has a kernel, else against numpy and ml_dtypes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import frugal
from frugal.compiler import compile_model

from .models import run_frugal, run_onnxruntime

RNG = np.random.default_rng(7)
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
SMALL = {  # TensorProto.DataType to the type of ml_dtypes
    TensorProto.FLOAT8E4M3FN: ml_dtypes.float8_e4m3fn,
    TensorProto.FLOAT8E4M3FNUZ: ml_dtypes.float8_e4m3fnuz,
    TensorProto.FLOAT8E5M2: ml_dtypes.float8_e5m2,
    TensorProto.FLOAT8E5M2FNUZ: ml_dtypes.float8_e5m2fnuz,
    TensorProto.FLOAT8E8M0: ml_dtypes.float8_e8m0fnu,
    TensorProto.FLOAT4E2M1: ml_dtypes.float4_e2m1fn,
}


def kind_of(array: np.ndarray) -> int:
    return helper.np_dtype_to_tensor_dtype(array.dtype)


def one_node(op: str, *arrays: np.ndarray, result: int | None = None, outputs: int = 1, opset: int = 24, **attrs: Any) -> Any:
    """(model, feeds) of one node whose operands are all inputs; the first axis of each is symbolic."""
    names = [f"x{i}" for i in range(len(arrays))]
    node = helper.make_node(op, names, [f"y{i}" for i in range(outputs)], **attrs)
    shapes = [[f"n{i}" if axis == 0 and d > 1 else d for axis, d in enumerate(a.shape)] for i, a in enumerate(arrays)]
    infos = [helper.make_tensor_value_info(n, kind_of(a), s) for n, a, s in zip(names, arrays, shapes, strict=True)]
    kind = result or attrs.get("to") or kind_of(arrays[0])
    graph = helper.make_graph([node], "g", infos, [helper.make_tensor_value_info(f"y{i}", kind, None) for i in range(outputs)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return model, dict(zip(names, arrays, strict=True))


def run_one(op: str, *arrays: np.ndarray, **attrs: Any) -> np.ndarray:
    return run_frugal(*one_node(op, *arrays, **attrs))[0]


def same(op: str, *arrays: np.ndarray, tolerance: float = 0, **attrs: Any) -> None:
    """frugal and onnxruntime give the same, relative to the largest value (tolerance 0: exactly)."""
    model, feeds = one_node(op, *arrays, **attrs)
    for got, want in zip(run_frugal(model, feeds), run_onnxruntime(model, feeds), strict=True):
        assert got.dtype == want.dtype and got.shape == want.shape
        finite = np.isfinite(np.asarray(want, np.float64))
        limit = tolerance * max(1.0, float(np.abs(np.asarray(want, np.float64)[finite]).max(initial=0)))
        np.testing.assert_allclose(np.asarray(got, np.float64), np.asarray(want, np.float64), rtol=0, atol=limit)


def integers(dtype: str, *shape: int, low: int | None = None, high: int | None = None) -> np.ndarray:
    info = np.iinfo(dtype)
    low, high = info.min if low is None else max(low, info.min), info.max if high is None else min(high, info.max)
    return RNG.integers(low, high, shape, dtype=dtype, endpoint=True)


# ---- casts ----
def special(dtype: Any) -> np.ndarray:
    values = np.concatenate(
        [RNG.standard_normal(500) * 10.0 ** RNG.integers(-9, 6, 500), [0.0, -0.0, 1, -1, 448, 464, 465, 57344, 61440]]
    )
    return np.concatenate([values, -values, [np.nan, np.inf, -np.inf]]).astype(dtype)


@pytest.mark.parametrize("source", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("to", [t for t in SMALL if t != TensorProto.FLOAT8E8M0])
@pytest.mark.parametrize("saturate", [0, 1])
def test_cast_to_small_floats(source: Any, to: int, saturate: int) -> None:
    x = special(source)
    with np.errstate(all="ignore"):
        wide = x.astype(np.float32)
        info = ml_dtypes.finfo(SMALL[to])
        limited = np.clip(wide, float(info.min), float(info.max)) if saturate else wide
        want = limited.astype(SMALL[to]).astype(np.float32)
    got = run_one("Cast", x, to=to, saturate=saturate).astype(np.float32)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("to", SMALL)
def test_small_floats_to_float_are_exact(to: int) -> None:
    codes = np.arange(16 if to == TensorProto.FLOAT4E2M1 else 256, dtype=np.uint8).view(SMALL[to])
    np.testing.assert_array_equal(run_one("Cast", codes, to=TensorProto.FLOAT), codes.astype(np.float32))


@pytest.mark.parametrize("mode", ["up", "down", "nearest"])
@pytest.mark.parametrize("saturate", [0, 1])
def test_cast_to_e8m0(mode: str, saturate: int) -> None:
    x = np.abs(np.concatenate([special(np.float32), np.float32([3.4e38, 1.7e38, 2**-126, 2**-127, 1e-45, 1.5, 0.75])]))
    got = run_one("Cast", x, to=TensorProto.FLOAT8E8M0, saturate=saturate, round_mode=mode)
    want = numpy_helper.to_float8e8m0(x, bool(saturate), mode)
    np.testing.assert_array_equal(got.view(np.uint8), want.view(np.uint8))


@pytest.mark.parametrize("source", ["float32", "float64", "float16"])
def test_cast_between_floats_rounds_once(source: str) -> None:
    x = special(source)
    x = x[~np.isnan(x)]
    for to in ("float16", "float32", "float64"):
        if to != source:
            with np.errstate(over="ignore"):
                want = x.astype(to)
            np.testing.assert_array_equal(run_one("Cast", x, to=kind_of(np.empty(0, to))), want)


@pytest.mark.parametrize("source", [*INTEGERS, "bool"])
@pytest.mark.parametrize("to", [*INTEGERS, "bool", "float32", "float16", "float64"])
def test_cast_of_integers(source: str, to: str) -> None:
    if source != to:
        x = RNG.integers(0, 2, 50).astype(bool) if source == "bool" else integers(source, 50)
        with np.errstate(over="ignore"):
            want = x.astype(to)
        np.testing.assert_array_equal(run_one("Cast", x, to=kind_of(np.empty(0, to))), want)


@pytest.mark.parametrize("small", [ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.uint2])
@pytest.mark.parametrize("other", ["int8", "uint8", "int32", "float32", "float16", "bool"])
def test_small_integers_there_and_back(small: Any, other: str) -> None:
    bits = 4 if small in (ml_dtypes.int4, ml_dtypes.uint4) else 2
    x = np.arange(1 << bits, dtype=np.uint8).astype(small)
    np.testing.assert_array_equal(run_one("Cast", x, to=kind_of(np.empty(0, other))), x.astype(np.int8).astype(other))
    if other != "bool":
        back = run_one("Cast", np.arange(-9, 10).astype(other), to=kind_of(x))
        with np.errstate(invalid="ignore"):
            want = np.arange(-9, 10).astype(other).astype(np.int32) if other != "uint8" else np.arange(-9, 10)
        np.testing.assert_array_equal(back.astype(np.int32), want.astype(small).astype(np.int32))


def test_packed_constants_of_every_small_type() -> None:
    for kind in (*SMALL, TensorProto.INT4, TensorProto.UINT4, TensorProto.INT2, TensorProto.UINT2, TensorProto.BFLOAT16):
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        values = np.array([1, 0, 1, 1, 0, 0, 1], np.float32).astype(dtype)
        for raw in (True, False):
            data = numpy_helper.from_array(values, "c") if raw else helper.make_tensor("c", kind, [7], values.astype(np.float32))
            node = helper.make_node("Identity", ["c"], ["y"])
            graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", kind, [7])], [data])
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=12)
            (got,) = run_frugal(model, {})
            assert got.dtype == dtype
            np.testing.assert_array_equal(got.astype(np.float32), values.astype(np.float32))


def test_buffers_hold_the_bits() -> None:
    model, feeds = one_node("Cast", special(np.float32), to=TensorProto.BFLOAT16)
    session = frugal.InferenceSession(compile_model(model))
    (view,) = session.run_buffers(None, {k: memoryview(v) for k, v in feeds.items()})
    (array,) = session.run(None, feeds)
    assert view.format == "H" and bytes(view) == array.tobytes()
    assert session.get_outputs()[0].type == "tensor(bfloat16)"
    with pytest.raises(ValueError, match="want dtype float32"):
        session.run(None, {"x0": array})


# ---- float16, bfloat16 ----
def chain(kind: int) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A small network, all of whose tensors are of one type: linear layer, norm, softmax, and moves between them."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    consts = {
        "w": RNG.standard_normal((16, 8)) / 4, "b": RNG.standard_normal(8), "g": RNG.standard_normal(8) + 2, "h": np.float64(0.5),
    }  # fmt: skip
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["a"]),
        helper.make_node("LayerNormalization", ["a", "g"], ["n"]),
        helper.make_node("Transpose", ["n"], ["t"], perm=[1, 0]),
        helper.make_node("Mul", ["t", "h"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=0),
        helper.make_node("ReduceMax", ["p"], ["r"], keepdims=0),
        helper.make_node("Greater", ["p", "h"], ["c"]),
        helper.make_node("Where", ["c", "p", "t"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info(n, kind, None) for n in ("y", "r")]
    inits = [numpy_helper.from_array(np.asarray(v).astype(dtype), k) for k, v in consts.items()]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", kind, ["n", 16])], outputs, inits)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    return model, {"x": RNG.standard_normal((5, 16)).astype(dtype)}


def test_float16_network_as_onnxruntime() -> None:
    model, feeds = chain(TensorProto.FLOAT16)
    for got, want in zip(run_frugal(model, feeds), run_onnxruntime(model, feeds), strict=True):
        assert got.dtype == np.float16
        np.testing.assert_allclose(got.astype(np.float32), want.astype(np.float32), rtol=0, atol=4e-3)  # one rounding of 2


def test_bfloat16_network_is_float32_inside() -> None:
    """Against the same network in float32 with the same (rounded) constants and input: one rounding, at the end."""
    model, feeds = chain(TensorProto.BFLOAT16)
    wide = onnx.ModelProto.FromString(model.SerializeToString())
    for info in (*wide.graph.input, *wide.graph.output):
        info.type.tensor_type.elem_type = TensorProto.FLOAT
    for i, t in enumerate(wide.graph.initializer):
        wide.graph.initializer[i].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float32), t.name))
    results = run_frugal(wide, {"x": feeds["x"].astype(np.float32)})
    for got, want in zip(run_frugal(model, feeds), results, strict=True):
        np.testing.assert_array_equal(got.astype(np.float32), want.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_half_precision_is_fused_like_float32() -> None:
    """The casts of neighbours are gone: only the model's input and outputs are converted."""
    from frugal.compiler import lower_model
    from frugal.compiler.ir import Op

    graph, _ = lower_model(chain(TensorProto.FLOAT16)[0])
    assert sum(s.op == Op.CAST for s in graph.steps) == 3
    linear = next(s for s in graph.steps if s.op == Op.LINEAR)
    assert linear.inputs[3] is not None  # its bias


def test_a_cast_of_the_model_rounds() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Add", ["h", "h"], ["d"]),
        helper.make_node("Cast", ["d"], ["y"], to=TensorProto.FLOAT),
    ]
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [3]) for n in ("x", "y")]
    model = helper.make_model(helper.make_graph(nodes, "g", info[:1], info[1:]), opset_imports=[helper.make_opsetid("", 17)])
    x = np.float32([1 + 2**-12, 3, 1e-9])
    np.testing.assert_array_equal(run_frugal(model, {"x": x})[0], 2 * x.astype(np.float16).astype(np.float32))


# ---- elementwise ----
@pytest.mark.parametrize("dtype", [*INTEGERS, "float32", "float64", "float16"])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Equal", "Less", "GreaterOrEqual"])
def test_arithmetic_of_every_type(op: str, dtype: str) -> None:
    """numpy's values: exact for integers (which wrap, and divide toward zero), and one rounding for floats."""
    shapes = [(3, 1, 4), (1, 5, 4)]
    if dtype in INTEGERS:
        a, b = (integers(dtype, *s) for s in shapes)
        b[b == 0] = 1
        if op == "Div":
            a[a == np.iinfo(dtype).min] = 0
    else:
        a, b = (RNG.standard_normal(s).astype(dtype) for s in shapes)
    rules: dict[str, Any] = {
        "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Max": np.maximum, "Min": np.minimum, "Equal": np.equal,
        "Less": np.less, "GreaterOrEqual": np.greater_equal, "Div": np.divide,
    }  # fmt: skip
    if op == "Div" and dtype in INTEGERS:
        want = _truncated(a, b).astype(dtype)
    else:
        with np.errstate(over="ignore"):
            want = rules[op](a, b)
    boolean = op in ("Equal", "Less", "GreaterOrEqual")
    got = run_one(op, a, b, result=TensorProto.BOOL if boolean else None)
    np.testing.assert_array_equal(got, want)


def _truncated(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    quotient = np.vectorize(lambda p, q: abs(int(p)) // abs(int(q)) * (1 if (p < 0) == (q < 0) else -1), otypes=[object])
    result: np.ndarray = quotient(a, b)
    return result


@pytest.mark.parametrize("dtype", [*INTEGERS, "float32", "float64", "float16"])
@pytest.mark.parametrize("fmod", [0, 1])
def test_mod(dtype: str, fmod: int) -> None:
    if dtype in INTEGERS:
        a, b = integers(dtype, 40), integers(dtype, 40)
        b[b == 0] = 3
    else:
        a, b = ((10 * RNG.standard_normal(40)).astype(dtype) for _ in range(2))
        a[:4], b[:4] = [np.inf, 1, -1, 0], [2, np.inf, np.inf, -3]
    with np.errstate(invalid="ignore"):
        want = np.fmod(a, b) if fmod else np.mod(a, b)
    np.testing.assert_array_equal(run_one("Mod", a, b, fmod=fmod), want)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"])
@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_bit_shift(dtype: str, direction: str) -> None:
    a = integers(dtype, 3, 30)
    b = RNG.integers(0, 8 * np.dtype(dtype).itemsize + 3, 30).astype(dtype)
    with np.errstate(all="ignore"):
        want = np.left_shift(a, b) if direction == "LEFT" else np.right_shift(a, b)
    np.testing.assert_array_equal(run_one("BitShift", a, b, direction=direction, opset=28), want)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_bitwise(dtype: str) -> None:
    a, b = integers(dtype, 7, 9), integers(dtype, 9)
    for op, rule in (("BitwiseAnd", np.bitwise_and), ("BitwiseOr", np.bitwise_or), ("BitwiseXor", np.bitwise_xor)):
        np.testing.assert_array_equal(run_one(op, a, b), rule(a, b))
    np.testing.assert_array_equal(run_one("BitwiseNot", a), ~a)


@pytest.mark.parametrize("dtype", [*INTEGERS, "float32", "float64"])
def test_sign_abs_clip_of_every_type(dtype: str) -> None:
    x = integers(dtype, 60) if dtype in INTEGERS else (5 * RNG.standard_normal(60)).astype(dtype)
    np.testing.assert_array_equal(run_one("Sign", x), np.sign(x))
    np.testing.assert_array_equal(run_one("Abs", x), np.abs(x))
    for low, high in ((2, 60), (60, 2)):  # the second as the standard says: all becomes high
        bounds = np.array(low, dtype), np.array(high, dtype)
        np.testing.assert_array_equal(run_one("Clip", x, *bounds), np.minimum(np.maximum(x, bounds[0]), bounds[1]))


@pytest.mark.parametrize("base", ["float32", "float64", "int32", "int64"])
@pytest.mark.parametrize("exponent", ["float32", "float64", "int32", "int64"])
def test_pow_of_two_types(base: str, exponent: str) -> None:
    a, b = integers("int32", 40, low=1, high=9).astype(base), integers("int32", 40, low=0, high=4).astype(exponent)
    same("Pow", a, b, tolerance=1e-6)


TRIGONOMETRY = ["Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"]
NUMPY_NAMES = {"Asin": "arcsin", "Acos": "arccos", "Atan": "arctan", "Asinh": "arcsinh", "Acosh": "arccosh", "Atanh": "arctanh"}


@pytest.mark.parametrize("op", [*TRIGONOMETRY, "Exp", "Log", "Tanh", "Sqrt", "Floor", "Ceil"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_functions(op: str, dtype: str) -> None:
    """Within a few units in the last place of numpy's in float64."""
    x = (3 * RNG.standard_normal(2000)).astype(dtype)
    x = np.clip(x, -1, 1) if op in ("Asin", "Acos", "Atanh") else x
    if op in ("Log", "Sqrt", "Acosh"):
        x = np.abs(x) + np.array(1 if op == "Acosh" else 0.01, dtype)
    with np.errstate(divide="ignore"):
        want = getattr(np, NUMPY_NAMES.get(op, op.lower()))(x.astype(np.float64))
    got = run_one(op, x)
    assert got.dtype == x.dtype
    eps = {"float16": 1e-3, "float32": 4e-7, "float64": 4e-15}[dtype]
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=eps, atol=eps if op in ("Sin", "Cos", "Log") else 1e-300)


@pytest.mark.parametrize(
    "op", ["Sigmoid", "Softplus", "Erf", "Softsign", "Mish", "HardSwish", "Gelu", "Selu", "Elu", "Celu", "Relu"]
)
def test_activations_in_float64_are_those_of_float32(op: str) -> None:
    """The float64 functions against the float32 ones, which have a test of their own: within float32's steps."""
    x = 3 * RNG.standard_normal(500)
    got, want = run_one(op, x), run_one(op, x.astype(np.float32))
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_is_nan_and_is_inf(dtype: str) -> None:
    x = np.array([0, np.nan, np.inf, -np.inf, 1], dtype)
    np.testing.assert_array_equal(run_one("IsNaN", x, result=TensorProto.BOOL), np.isnan(x))
    for negative in (0, 1):
        for positive in (0, 1):
            want = (np.isposinf(x) & bool(positive)) | (np.isneginf(x) & bool(negative))
            got = run_one("IsInf", x, result=TensorProto.BOOL, detect_negative=negative, detect_positive=positive, opset=20)
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint8", "int32"])
def test_shrink(dtype: str) -> None:
    x = np.arange(5).astype(dtype) if dtype == "uint8" else np.arange(-4, 5).astype(dtype)
    same("Shrink", x, lambd=1.5, bias=1.0)


@pytest.mark.parametrize("op", ["Sum", "Mean", "Max", "Min"])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_variadic(op: str, count: int) -> None:
    same(op, *(RNG.standard_normal((3, 1, 5) if i % 2 else (1, 4, 5)).astype(np.float32) for i in range(count)), tolerance=1e-6)


def test_nan_in_extremes() -> None:
    a, b = np.float32([np.nan, 1, np.nan, 2]), np.float32([1, np.nan, np.nan, 3])
    np.testing.assert_array_equal(run_one("Max", a, b), np.maximum(a, b))
    np.testing.assert_array_equal(run_one("Min", a, b), np.minimum(a, b))


@pytest.mark.parametrize("op", ["PRelu", "Where"])
def test_broadcast_choices(op: str) -> None:
    x, s = RNG.standard_normal((2, 3, 4)).astype(np.float32), RNG.standard_normal((3, 1)).astype(np.float32)
    if op == "PRelu":
        same(op, x, s)
    else:
        np.testing.assert_array_equal(run_one(op, x > 0, x, s, result=TensorProto.FLOAT), np.where(x > 0, x, s))


@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_hardmax(axis: int, opset: int) -> None:
    x = RNG.integers(0, 3, (3, 4, 5)).astype(np.float32)  # ties: the first wins
    same("Hardmax", x, axis=axis, opset=opset)


def test_dropout_of_inference() -> None:
    x = RNG.standard_normal((3, 4)).astype(np.float32)
    model, feeds = one_node("Dropout", x, outputs=2, opset=13)
    y, mask = run_frugal(model, feeds)
    np.testing.assert_array_equal(y, x)
    assert mask.dtype == np.bool_ and mask.all()


# ---- reductions ----
@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint16", "int32", "int64", "uint32", "uint64", "bool", "float16", "float64"]
)
@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
def test_extremes_of_every_type(op: str, dtype: str) -> None:
    x = RNG.integers(0, 2, (4, 5, 6)).astype(bool) if dtype == "bool" else (9 * RNG.standard_normal((4, 5, 6))).astype(dtype)
    x = integers(dtype, 4, 5, 6) if dtype in INTEGERS else x
    want = (np.max if op == "ReduceMax" else np.min)(x, axis=(0, 2))
    node_axes = np.array([0, 2])
    model, feeds = _reduction(op, x, node_axes)
    np.testing.assert_array_equal(run_frugal(model, feeds)[0], want)


def _reduction(op: str, x: np.ndarray, axes: np.ndarray, keepdims: int = 0) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    node = helper.make_node(op, ["x", "axes"], ["y"], keepdims=keepdims)
    info = [helper.make_tensor_value_info(n, kind_of(x), s) for n, s in (("x", x.shape), ("y", None))]
    graph = helper.make_graph([node], "g", info[:1], info[1:], [numpy_helper.from_array(axes, "axes")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), {"x": x}


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare"])
@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64"])
def test_sums_of_every_type(op: str, dtype: str) -> None:
    x = integers("int32", 3, 4, 5, low=-3, high=3).astype(dtype)
    model, feeds = _reduction(op, x, np.array([-1, 0]), keepdims=1)
    got, want = run_frugal(model, feeds)[0], run_onnxruntime(model, feeds)[0]
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=1e-6)


EMPTY = {
    "ReduceSum": 0, "ReduceProd": 1, "ReduceMax": -np.inf, "ReduceMin": np.inf, "ReduceL1": 0, "ReduceL2": 0,
    "ReduceMean": np.nan, "ReduceLogSum": -np.inf, "ReduceLogSumExp": -np.inf, "ReduceSumSquare": 0,
}  # fmt: skip


@pytest.mark.parametrize("op", EMPTY)
def test_empty_reductions(op: str) -> None:
    model, feeds = _reduction(op, np.empty((2, 0, 3), np.float32), np.array([1]))
    np.testing.assert_array_equal(run_frugal(model, feeds)[0], np.full((2, 3), EMPTY[op], np.float32))


def test_log_sum_exp_does_not_overflow() -> None:
    x = np.float32([[1000, 1000.5, -np.inf], [-1000, -1001, -1000], [-np.inf, -np.inf, -np.inf]])
    model, feeds = _reduction("ReduceLogSumExp", x, np.array([1]))
    with np.errstate(divide="ignore"):
        want = np.float32([1000.974077, -999.137995, -np.inf])
    np.testing.assert_allclose(run_frugal(model, feeds)[0], want, rtol=1e-6)
