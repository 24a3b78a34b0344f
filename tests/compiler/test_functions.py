"""Operators translated from the definitions that ONNX gives for them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto

from frugal import UnsupportedOperator
from frugal.compiler import lower_model
from frugal.compiler.functions import body_of
from frugal.compiler.ir import DType, Tensor

from .models import Builder, assert_same


def test_a_definition_runs_with_symbolic_dims() -> None:
    b = Builder(18)
    y = b.op("GroupNormalization", b.input("x", ["n", 5, "t"]), b.const(np.ones(5)), b.const(np.zeros(5)), num_groups=5)
    model = b.model(y)
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32)}
    assert_same(model, feeds)


def test_attributes_reach_the_definition() -> None:
    from onnx.reference import ReferenceEvaluator

    from .models import run_frugal

    b = Builder(28)
    model = b.model(b.op("SwiGLU", b.input("a", ["n", 4]), b.input("b", ["n", 4]), alpha=1.7))
    rng = np.random.default_rng(1)
    feeds = {name: rng.normal(size=(3, 4)).astype(np.float32) for name in "ab"}
    (want,) = ReferenceEvaluator(model).run(None, feeds)
    (got,) = run_frugal(model, feeds)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)  # float32 exp and products in another order


def test_absent_inputs_and_attributes_are_filled_in() -> None:
    from onnx import helper

    node = helper.make_node("ClipLike", ["x", "", "high"], ["y"])  # an absent input in the middle stays absent in every part
    found = body_of(helper.make_node("Clip", ["x", "", "high"], ["y"]), [_floats(), None, _floats()], "", 18)
    assert found is not None
    body, opsets = found
    assert opsets[""] <= 18
    assert not any(name == body.input[1] for part in body.node for name in part.input)
    assert body_of(node, [], "", 18) is None
    softplus = body_of(helper.make_node("Elu", ["x"], ["y"], alpha=0.25), [_floats()], "", 18)
    assert softplus is not None
    assert not any(a.ref_attr_name for part in softplus[0].node for a in part.attribute)
    assert any(0.25 in [a.f, *a.floats] for part in softplus[0].node for a in part.attribute)


def _floats() -> Tensor:
    return Tensor("x", DType.FLOAT, (4,))


def test_an_error_in_a_part_names_the_node_of_the_model() -> None:
    b = Builder(22)
    name = b.op("MeanVarianceNormalization", b.input("x", ["n", 2], TensorProto.BOOL), axes=[0])
    with pytest.raises(UnsupportedOperator, match=rf"node '{name}' \(MeanVarianceNormalization\), whose definition has"):
        lower_model(b.model(name))
