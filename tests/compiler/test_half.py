"""float16 and bfloat16 behind every operator: ONNX's float32 node cases with their floats narrowed, wherever the schema allows.

The handlers know nothing of these types (rule 6 of lower.py), so the first cases of each operator say enough.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, defs, helper, numpy_helper

from frugal import UnsupportedOperator, backend

from .test_onnx_backend import cases, exceptions

# Their results depend on the exact type or value of an operand, or the case or the
# schema gives their parts different types.
OTHERS = {
    "BitCast", "Cast", "CastLike", "DequantizeLinear", "If", "LinearAttention", "Loop", "QuantizeLinear", "Scan", "Tan",
    "Bernoulli", "OptionalGetElement", "RandomNormalLike", "RandomUniformLike",
}  # fmt: skip
EACH = 2  # cases of an operator
KINDS = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
TOLERANCE = {"float16": 5e-3, "bfloat16": 3e-2}  # of the largest value: a few roundings of the inputs


@cache
def chosen() -> list[str]:
    """The first cases of one node of each operator that has float32 inputs."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, case in sorted(cases().items()):
        model = case.model
        if model is None or len(model.graph.node) != 1 or name in exceptions() or name.endswith("_expanded"):
            continue
        node = model.graph.node[0]
        floats = any(i.type.tensor_type.elem_type == TensorProto.FLOAT for i in model.graph.input)
        if (
            floats
            and node.domain == ""
            and node.op_type not in OTHERS
            and "large" not in name
            and len(found[node.op_type]) < EACH
        ):
            found[node.op_type].append(name)
    return [name for names in found.values() for name in names]


def narrowed(model: onnx.ModelProto, kind: str) -> tuple[onnx.ModelProto, set[str], set[str]] | None:
    """The model with the floats of its node as `kind`, and the inputs and outputs that are; None where that is not allowed."""
    node = model.graph.node[0]
    schema: Any = defs.get_schema(node.op_type, model.opset_import[0].version, "")
    allowed = {t.type_param_str for t in schema.type_constraints if f"tensor({kind})" in t.allowed_type_strs}
    made = onnx.ModelProto.FromString(model.SerializeToString())
    changed, bound = set(), set()
    for values, names, formal in (
        (made.graph.input, node.input, schema.inputs),
        (made.graph.output, node.output, schema.outputs),
    ):
        infos = {v.name: v.type.tensor_type for v in values}
        for i, name in enumerate(names):
            parameter = formal[min(i, len(formal) - 1)].type_str
            info = infos.get(name)
            fits = info is not None and info.elem_type == TensorProto.FLOAT and parameter in allowed
            if info is not None and fits and (values is made.graph.input or parameter in bound):
                info.elem_type = KINDS[kind]
                changed.add(name)
                bound.add(parameter)
    inputs = {v.name for v in made.graph.input} & changed
    return (made, inputs, changed - inputs) if inputs else None


def array(value: Any) -> np.ndarray:
    return np.asarray(numpy_helper.to_array(value) if isinstance(value, TensorProto) else value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", chosen())
def test_narrow_floats(name: str, kind: str) -> None:
    case, dtype = cases()[name], helper.tensor_dtype_to_np_dtype(KINDS[kind])
    made = narrowed(case.model, kind)
    if made is None:
        pytest.skip("the operator does not have this type")
    model, inputs, outputs = made
    try:
        rep = backend.prepare(model)
    except UnsupportedOperator as error:
        with pytest.raises(UnsupportedOperator):  # then float32 is refused too
            backend.prepare(case.model)
        pytest.skip(str(error))
    wanted = {i.name for i in rep.session.get_inputs()}
    for values, results in case.data_sets:
        arrays = {v.name: array(x) for v, x in zip(model.graph.input, values, strict=False)}
        feeds = {n: x.astype(dtype) if n in inputs else x for n, x in arrays.items() if n in wanted}
        for info, got, want in zip(model.graph.output, rep.run(feeds), map(array, results), strict=True):
            assert got.shape == want.shape
            assert (got.dtype == dtype) == (info.name in outputs)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # values that the narrow type rounds to infinity
                exact = want.astype(dtype).astype(np.float64) if info.name in outputs else want.astype(np.float64)
            top = float(np.abs(exact[np.isfinite(exact)]).max(initial=1))
            np.testing.assert_allclose(got.astype(np.float64), exact, rtol=0, atol=TOLERANCE[kind] * top)
