"""LayerNormalization and its relatives against onnxruntime, over axes, parameter shapes and symbolic sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from .models import Builder, assert_same, run_frugal, run_onnxruntime

TOLERANCE = 2e-5  # a mean of squares in another order, then a square root


@pytest.mark.parametrize("axis", [-1, -2, 1, 0])
@pytest.mark.parametrize("bias", [False, True])
def test_layer_norm_with_its_statistics(axis: int, bias: bool) -> None:
    rng = np.random.default_rng(axis + 7)
    shape = (2, 3, 5)
    b = Builder(20)
    parameters = [b.const(rng.normal(size=shape[axis:])) for _ in range(1 + bias)]
    outputs = b.op("LayerNormalization", b.input("x", shape), *parameters, axis=axis, epsilon=1e-4, outputs=3)
    assert_same(b.model(*outputs), {"x": rng.normal(size=shape).astype(np.float32)}, TOLERANCE)


@pytest.mark.parametrize("kind", ["LayerNormalization", "RMSNormalization"])
@pytest.mark.parametrize("shape", [(5,), (1,), (3, 5), (3, 1), (2, 3, 5), (2, 1, 5), ()])
@pytest.mark.parametrize("constant", [False, True])
def test_a_scale_of_any_shape_that_broadcasts(kind: str, shape: tuple[int, ...], constant: bool) -> None:
    rng = np.random.default_rng(1)
    feeds = {"x": rng.normal(size=(2, 3, 5)).astype(np.float32), "w": rng.normal(size=shape).astype(np.float32)}
    for axis in (-1, -2):
        b = Builder(23)
        w = b.const(feeds["w"]) if constant else b.input("w", shape)
        model = b.model(b.op(kind, b.input("x", ["n", 3, 5]), w, axis=axis))
        given = {n: v for n, v in feeds.items() if n == "x" or not constant}
        (want,) = ReferenceEvaluator(model).run(None, given)
        (got,) = run_frugal(model, given)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["LayerNormalization", "RMSNormalization"])
def test_symbolic_normalized_sizes(kind: str) -> None:
    rng = np.random.default_rng(2)
    b = Builder(23)
    model = b.model(b.op(kind, b.input("x", ["n", "s", "w"]), b.input("g", ["w"]), axis=-2))
    for n, s, w in ((2, 3, 5), (1, 1, 17), (3, 7, 1)):
        feeds = {"x": rng.normal(size=(n, s, w)).astype(np.float32), "g": rng.normal(size=w).astype(np.float32)}
        (want,) = ReferenceEvaluator(model).run(None, feeds)
        (got,) = run_frugal(model, feeds)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_double() -> None:
    rng = np.random.default_rng(3)
    b = Builder(20)
    x = b.input("x", [4, 6], TensorProto.DOUBLE)
    model = b.model(b.op("LayerNormalization", x, b.const(np.ones(6), np.float64)), kind=TensorProto.DOUBLE)
    feeds = {"x": rng.normal(size=(4, 6))}
    (got,) = run_frugal(model, feeds)
    d = feeds["x"] - feeds["x"].mean(-1, keepdims=True)
    np.testing.assert_allclose(got, d / np.sqrt((d * d).mean(-1, keepdims=True) + 1e-5), rtol=1e-6)


@pytest.mark.parametrize("kind", ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"])
@pytest.mark.parametrize("skip", [(2, 3, 8), (1, 3, 8), (3, 8)])
@pytest.mark.parametrize("bias", [False, True])
def test_skip_normalizations(kind: str, skip: tuple[int, ...], bias: bool) -> None:
    rng = np.random.default_rng(4)
    b = Builder(20)
    x, s = b.input("x", ["n", 3, 8]), b.input("s", ["n", 3, 8] if len(skip) == 3 and skip[0] == 2 else skip)
    parameters = [b.const(rng.normal(size=8)) for _ in range(2 if kind == "SkipLayerNormalization" else 1)]
    parameters += [b.const(rng.normal(size=8))] if bias else []
    outputs = b.op(kind, x, s, *parameters, domain="com.microsoft", epsilon=1e-5, outputs=4)
    for i in (1, 2):
        b.nodes[-1].output[i] = ""
    feeds = {"x": rng.normal(size=(2, 3, 8)).astype(np.float32), "s": rng.normal(size=skip).astype(np.float32)}
    assert_same(b.model(outputs[0], outputs[3]), feeds, TOLERANCE)


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("mask", [False, True])
def test_embed_layer_norm(segments: bool, mask: bool) -> None:
    rng = np.random.default_rng(5)
    b = Builder(20)
    feeds: dict[str, Any] = {"ids": rng.integers(0, 11, (2, 4)).astype(np.int32)}
    names = [b.input("ids", ["n", 4], TensorProto.INT32), ""]
    tables = [b.const(rng.normal(size=(11, 8))), b.const(rng.normal(size=(6, 8))), ""]
    if segments:
        feeds["seg"] = rng.integers(0, 2, (2, 4)).astype(np.int32)
        names[1], tables[2] = b.input("seg", ["n", 4], TensorProto.INT32), b.const(rng.normal(size=(2, 8)))
    last = [b.const(rng.normal(size=8)), b.const(rng.normal(size=8))]
    if mask:
        feeds["mask"] = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], np.int32)
        last.append(b.input("mask", ["n", 4], TensorProto.INT32))
    outputs = b.op("EmbedLayerNormalization", *names, *tables, *last, domain="com.microsoft", outputs=3)
    model = b.model(*outputs)
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.INT32
    for got, want in zip(run_frugal(model, feeds), run_onnxruntime(model, feeds), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
