"""Quantization operators and products of 8-bit codes, against onnxruntime, or ONNX's reference where it has no kernel."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from frugal.bindings import library
from onnx import TensorProto, helper, numpy_helper

import frugal
from frugal.compiler import lower_model
from frugal.compiler.ir import Op

from .models import run_frugal, run_onnxruntime

RNG = np.random.default_rng(11)
CODES = {
    "int8": TensorProto.INT8, "uint8": TensorProto.UINT8, "int16": TensorProto.INT16, "uint16": TensorProto.UINT16,
    "int4": TensorProto.INT4, "uint4": TensorProto.UINT4, "int2": TensorProto.INT2, "uint2": TensorProto.UINT2,
}  # fmt: skip
RANGES = {"int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}


def dtype_of(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name)) if name in RANGES else np.dtype(name)


def code_range(name: str) -> tuple[int, int]:
    return RANGES.get(name) or (int(np.iinfo(name).min), int(np.iinfo(name).max))


def codes(name: str, *shape: int) -> np.ndarray:
    low, high = code_range(name)
    return RNG.integers(low, high + 1, shape).astype(dtype_of(name))


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def model_of(
    op: str, operands: list[np.ndarray | None], kind: int, constant: set[int] | frozenset[int] = frozenset(), domain: str = "",
    version: int = 25, outputs: int = 1, **attrs: Any,
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:  # fmt: skip
    """One node; the operands whose index is in `constant` are initializers, the others inputs."""
    names = ["" if a is None else f"x{i}" for i, a in enumerate(operands)]
    node = helper.make_node(op, names, [f"y{i}" for i in range(outputs)], domain=domain, **attrs)
    infos, inits, feeds = [], [], {}
    for i, (name, a) in enumerate(zip(names, operands, strict=True)):
        if a is None:
            continue
        if i in constant:
            inits.append(numpy_helper.from_array(a, name))
        else:
            infos.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape))
            feeds[name] = np.asarray(a)
    result = [helper.make_tensor_value_info(f"y{i}", kind, None) for i in range(outputs)]
    graph = helper.make_graph([node], "g", infos, result, inits)
    imports = [helper.make_opsetid("", version), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10), feeds


def reference(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    from onnx.reference import ReferenceEvaluator

    return np.asarray(ReferenceEvaluator(model).run(None, feeds)[0])


def assert_codes(model: onnx.ModelProto, feeds: dict[str, np.ndarray], want: np.ndarray, step: int = 0) -> None:
    (got,) = run_frugal(model, feeds)
    assert got.dtype == want.dtype and got.shape == want.shape
    np.testing.assert_allclose(got.astype(np.int64), want.astype(np.int64), rtol=0, atol=step)


FORMS = ["tensor", "axis", "last", "blocked", "blocked-last"]


def scales_of(form: str, shape: tuple[int, ...]) -> tuple[np.ndarray, dict[str, int]]:
    """Scales for x of a shape of three axes, and the attributes that go with them."""
    axis = {"axis": 1, "last": 2, "blocked": 1, "blocked-last": 2}.get(form, 0)
    if form == "tensor":
        return np.float32(0.05), {}
    if not form.startswith("blocked"):
        return (RNG.random(shape[axis]) / 10 + 0.01).astype(np.float32), {"axis": axis}
    blocks = list(shape)
    blocks[axis] = -(-shape[axis] // 4)
    return (RNG.random(blocks) / 10 + 0.01).astype(np.float32), {"axis": axis, "block_size": 4}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("half", [False, True])
def test_quantize_and_dequantize(name: str, form: str, half: bool) -> None:
    """Against the formula of the standard, in float32 (of float16 operands: their float32)."""
    shape = (3, 6, 8)
    scale, attrs = scales_of(form, shape)
    x = floats(*shape)
    x[0, 0, :2] = [1e9, -1e9]
    if half:
        scale, x = np.asarray(scale, np.float16), np.clip(x, -6e4, 6e4).astype(np.float16)
    zero = codes(name, *np.shape(scale))
    low, high = code_range(name)
    axis = attrs.get("axis", 0)

    def spread(values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, np.float32)
        if values.ndim == 1:
            return values.reshape([-1 if i == axis else 1 for i in range(3)])
        return np.repeat(values, 4, axis=axis)[:, : shape[1], : shape[2]] if values.ndim == 3 else values

    quotient = np.rint(x.astype(np.float32) / spread(scale))
    want = np.clip(quotient + spread(zero), low, high).astype(dtype_of(name))
    assert_codes(*model_of("QuantizeLinear", [x, scale, zero], CODES[name], **attrs), want)
    back = ((want.astype(np.int32) - spread(zero)) * spread(scale)).astype(scale.dtype)
    model, feeds = model_of("DequantizeLinear", [want, scale, zero], TensorProto.FLOAT16 if half else TensorProto.FLOAT, **attrs)
    (got,) = run_frugal(model, feeds)
    assert got.dtype == scale.dtype
    np.testing.assert_array_equal(got, back)


@pytest.mark.parametrize("name", ["int8", "uint8", "int16", "uint16"])
@pytest.mark.parametrize("form", ["tensor", "axis"])
def test_quantize_as_onnxruntime(name: str, form: str) -> None:
    x = 2 * floats(2, 5, 7)
    scale, attrs = scales_of(form, x.shape)
    model, feeds = model_of("QuantizeLinear", [x, scale, codes(name, *np.shape(scale))], CODES[name], version=21, **attrs)
    assert_codes(model, feeds, run_onnxruntime(model, feeds)[0])


@pytest.mark.parametrize(
    "kind", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fnuz, ml_dtypes.float4_e2m1fn]
)
@pytest.mark.parametrize("form", FORMS)
def test_small_floats(kind: Any, form: str) -> None:
    x, dtype = 3 * floats(3, 6, 8), np.dtype(kind)
    scale, attrs = scales_of(form, x.shape)
    zero, number = np.zeros(np.shape(scale), dtype), helper.np_dtype_to_tensor_dtype(dtype)
    model, feeds = model_of("QuantizeLinear", [x, scale, zero], number, **attrs)
    want = reference(model, feeds)
    (got,) = run_frugal(model, feeds)
    np.testing.assert_array_equal(got.astype(np.float32), want.astype(np.float32))
    for constant in (frozenset(), {0, 1}):
        model, feeds = model_of("DequantizeLinear", [want, scale], TensorProto.FLOAT, constant, **attrs)
        np.testing.assert_array_equal(run_frugal(model, feeds)[0], reference(model, feeds))


@pytest.mark.parametrize("precision", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_precision_of_the_division(precision: int) -> None:
    x, scale = floats(40, 3), np.float32([0.013, 0.021, 0.5])
    model, feeds = model_of(
        "QuantizeLinear", [x, scale], TensorProto.INT8, axis=1, output_dtype=TensorProto.INT8, precision=precision
    )
    kind = helper.tensor_dtype_to_np_dtype(precision)
    want = np.clip(np.rint(x.astype(kind) / scale.astype(kind)), -128, 127).astype(np.int8)
    assert_codes(model, feeds, want)


@pytest.mark.parametrize("values", ["normal", "positive", "negative", "zero", "large"])
def test_dynamic_quantize(values: str) -> None:
    x = floats(7, 33)
    x = {"normal": x, "positive": abs(x), "negative": -abs(x), "zero": 0 * x, "large": x * np.float32(1e30)}[values]
    model, feeds = model_of("DynamicQuantizeLinear", [x], TensorProto.UINT8, outputs=3, version=20)
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.FLOAT
    for got, want in zip(run_frugal(model, feeds), run_onnxruntime(model, feeds), strict=True):
        assert got.dtype == want.dtype and got.shape == want.shape
        np.testing.assert_array_equal(got, want)


# ---- products ----
def exact(a: np.ndarray, b: np.ndarray, za: Any = 0, zb: Any = 0) -> np.ndarray:
    """The product in int64, which int32 holds."""
    total = np.matmul(a.astype(np.int64) - za, b.astype(np.int64) - zb)
    assert np.abs(total).max(initial=0) < 2**31
    return total.astype(np.int32)


@pytest.mark.parametrize("left", ["uint8", "int8"])
@pytest.mark.parametrize("right", ["uint8", "int8"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 33, 17), (5, 64, 16), (7, 3, 70), (40, 130, 100), (3, 700, 33)])
@pytest.mark.parametrize("constant", [False, True])
def test_matmul_integer(left: str, right: str, shape: tuple[int, int, int], constant: bool) -> None:
    """Exact, with the extremes of both types and zero points of either side."""
    m, k, n = shape
    a, b = codes(left, m, k), codes(right, k, n)
    a.flat[0], b.flat[0] = code_range(left)[0], code_range(right)[0]
    for za, zb in ((None, None), (codes(left), None), (codes(left, 1), codes(right)), (codes(left), codes(right, n))):
        model, feeds = model_of("MatMulInteger", [a, b, za, zb], TensorProto.INT32, {1, 3} if constant else frozenset())
        want = exact(a, b, 0 if za is None else za.astype(int), 0 if zb is None else zb.astype(int))
        (got,) = run_frugal(model, feeds)
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", library.isa_list())
def test_matmul_integer_on_every_instruction_set(name: str) -> None:
    a, b = codes("uint8", 9, 70), codes("int8", 70, 37)
    model, feeds = model_of("MatMulInteger", [a, b, np.uint8(200)], TensorProto.INT32, {1})
    before = frugal.isa()
    frugal.set_isa(name)
    try:
        np.testing.assert_array_equal(run_frugal(model, feeds)[0], exact(a, b, 200))
    finally:
        frugal.set_isa(before)


def test_matmul_integer_of_many_axes() -> None:
    a, b = codes("uint8", 2, 3, 5, 8), codes("int8", 3, 8, 4)
    np.testing.assert_array_equal(run_frugal(*model_of("MatMulInteger", [a, b], TensorProto.INT32))[0], exact(a, b))
    zero = codes("uint8", 2, 1, 5, 1)
    model, feeds = model_of("MatMulInteger", [a, b[0], zero], TensorProto.INT32, {1})
    np.testing.assert_array_equal(run_frugal(model, feeds)[0], exact(a, b[0], zero.astype(int)))
    rows = codes("uint8", 5)
    model, feeds = model_of("MatMulInteger", [a[0, 0], b[0], rows], TensorProto.INT32, {1})
    np.testing.assert_array_equal(run_frugal(model, feeds)[0], exact(a[0, 0], b[0], rows.astype(int)[:, None]))


def test_sums_beyond_float32_are_exact() -> None:
    """More than 2^24, where float32 would round: the deepest product of the largest codes."""
    a, b = np.full((2, 60000), 255, np.uint8), np.full((60000, 3), 127, np.int8)
    b[0] = 126
    model, feeds = model_of("MatMulInteger", [a, b], TensorProto.INT32, {1})
    np.testing.assert_array_equal(run_frugal(model, feeds)[0], exact(a, b))


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("columns", [False, True])
def test_qlinear_matmul(kind: str, constant: bool, columns: bool) -> None:
    a, b = codes(kind, 6, 40), codes(kind, 40, 9)
    sb, zb = (np.float32(0.02), codes(kind)) if not columns else ((RNG.random(9) / 50).astype(np.float32), codes(kind, 9))
    operands = [a, np.float32(0.05), codes(kind), b, sb, zb, np.float32(0.5), codes(kind)]
    model, feeds = model_of("QLinearMatMul", operands, CODES[kind], {3, 4, 5} if constant else frozenset(), version=21)
    assert_codes(model, feeds, run_onnxruntime(model, feeds)[0], step=1)


@pytest.mark.parametrize("op", ["MatMulIntegerToFloat", "DynamicQuantizeMatMul"])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("constant", [False, True])
def test_float_products_of_codes(op: str, columns: bool, constant: bool) -> None:
    b, n = codes("int8", 48, 20), 20
    scale = (RNG.random(n) / 50).astype(np.float32) if columns else np.float32([0.013])
    zero, bias = codes("int8", n) if columns else codes("int8", 1), floats(n)
    if op == "MatMulIntegerToFloat":
        operands: list[Any] = [codes("uint8", 2, 5, 48), b, np.float32([0.05]), scale, codes("uint8", 1), zero, bias]
        known = {1, 3, 5, 6}
    else:
        operands, known = [floats(2, 5, 48), b, scale, zero, bias], {1, 2, 3, 4}
    model, feeds = model_of(op, operands, TensorProto.FLOAT, known if constant else frozenset(), "com.microsoft")
    want = run_onnxruntime(model, feeds)[0]
    np.testing.assert_allclose(run_frugal(model, feeds)[0], want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("transposed", [0, 1])
def test_qgemm(quantized: bool, transposed: int) -> None:
    b = codes("int8", 12, 30) if transposed else codes("int8", 30, 12)
    operands: list[Any] = [
        codes("uint8", 5, 30), np.float32(0.04), codes("uint8"), b, (RNG.random(12) / 40).astype(np.float32),
        np.zeros(12, np.int8), RNG.integers(-2000, 2000, 12).astype(np.int32),
    ]  # fmt: skip
    operands += [np.float32(0.1), codes("uint8")] if quantized else []
    kind = TensorProto.UINT8 if quantized else TensorProto.FLOAT
    model, feeds = model_of("QGemm", operands, kind, {3, 4, 5}, "com.microsoft", transB=transposed, alpha=1.0)
    want = run_onnxruntime(model, feeds)[0]
    limit = 1 if quantized else 1e-5 * np.abs(want).max()
    np.testing.assert_allclose(run_frugal(model, feeds)[0].astype(float), want.astype(float), rtol=0, atol=limit)


@pytest.mark.parametrize("kind", ["uint8", "int8"])
@pytest.mark.parametrize(
    "op", ["QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "QLinearConcat"]
)
def test_elementwise_on_codes(op: str, kind: str) -> None:
    def operand(*shape: int, scale: float = 0.05) -> list[Any]:
        return [codes(kind, *shape), np.float32(scale), codes(kind)]

    attrs: dict[str, Any] = {}
    if op in ("QLinearAdd", "QLinearMul"):
        operands = [*operand(3, 4, 5), *operand(4, 5, scale=0.03), np.float32(0.11), codes(kind)]
    elif op == "QLinearConcat":
        operands, attrs = [np.float32(0.07), codes(kind), *operand(3, 4), *operand(3, 2, scale=0.02)], {"axis": 1}
    else:
        x = operand(3, 20, scale=0.02)
        small = op in ("QLinearSigmoid", "QLinearSoftmax")
        operands = [
            *x,
            np.float32(1 / 256 if small else 0.03),
            np.array(0 if kind == "uint8" else -128, kind) if small else codes(kind),
        ]
        attrs = {"axis": -1, "opset": 13} if op == "QLinearSoftmax" else {"alpha": 0.1} if op == "QLinearLeakyRelu" else {}
    scalars = {i for i, a in enumerate(operands) if a.ndim == 0}
    model, feeds = model_of(op, operands, CODES[kind], scalars, "com.microsoft", **attrs)
    assert_codes(model, feeds, run_onnxruntime(model, feeds)[0], step=1)


# ---- what onnxruntime's quantize_dynamic writes ----
def dynamic_network(tmp_path: Path, **options: Any) -> onnx.ModelProto:
    """Two linear layers with biases that share their input, quantized dynamically."""
    from onnxruntime.quantization import quantize_dynamic

    names = {"w0": floats(48, 64) / 6, "w1": floats(48, 64) / 6, "w2": floats(64, 10) / 8, "b0": floats(64), "b2": floats(10)}
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["m0"], name="m0"),
        helper.make_node("Add", ["m0", "b0"], ["a0"], name="a0"),
        helper.make_node("MatMul", ["x", "w1"], ["m1"], name="m1"),
        helper.make_node("Mul", ["a0", "m1"], ["p"], name="p"),
        helper.make_node("MatMul", ["p", "w2"], ["m2"], name="m2"),
        helper.make_node("Add", ["m2", "b2"], ["y"], name="y"),
    ]
    info = [helper.make_tensor_value_info("x", 1, ["n", "s", 48]), helper.make_tensor_value_info("y", 1, ["n", "s", 10])]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], [numpy_helper.from_array(v, k) for k, v in names.items()])
    source, made = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), source)
    quantize_dynamic(source, made, **options)
    return onnx.load(made)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("weights", ["QInt8", "QUInt8"])
def test_quantize_dynamic_is_one_step_a_layer(tmp_path: Path, per_channel: bool, weights: str) -> None:
    import onnxruntime.quantization as quantization

    model = dynamic_network(tmp_path, per_channel=per_channel, weight_type=getattr(quantization.QuantType, weights))
    graph, _ = lower_model(model)
    ops = [s.op for s in graph.steps if s.op != Op.ALIAS]
    assert ops.count(Op.LINEAR_INTEGER) == 3 and ops.count(Op.DYNAMIC_QUANTIZE) == 2
    assert Op.CAST not in ops and Op.MATMUL not in ops
    biases = [len(s.inputs) > 5 and s.inputs[5] is not None for s in graph.steps if s.op == Op.LINEAR_INTEGER]
    assert sum(biases) == 2
    for shape in ((1, 1, 48), (2, 7, 48), (3, 40, 48)):
        feeds = {"x": floats(*shape)}
        want = run_onnxruntime(model, feeds)[0]
        for optimize in (True, False):
            got = run_frugal(model, feeds, optimize=optimize)[0]
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_results_do_not_depend_on_threads() -> None:
    a, b = codes("uint8", 61, 300), codes("int8", 300, 250)
    model, feeds = model_of("MatMulInteger", [a, b, np.uint8(3)], TensorProto.INT32, {1})
    for threads in (1, 2, 5):
        options = frugal.SessionOptions()
        options.intra_op_num_threads = threads
        plan = io.BytesIO()
        frugal.compiler.compile_to(model, plan)
        session = frugal.InferenceSession(plan.getvalue(), options)
        np.testing.assert_array_equal(session.run(None, feeds)[0], exact(a, b, 3))
