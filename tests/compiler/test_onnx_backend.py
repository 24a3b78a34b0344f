"""ONNX's own node tests: every case whose operators we have must pass, or stand with its reason in backend_exceptions.txt.

A case that is refused with UnsupportedOperator (an operator, type or attribute we do not have yet) is skipped and counted; a wrong
result, a crash or any other error fails.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx.backend.test.loader import load_model_tests

from frugal import UnsupportedOperator
from frugal import backend

EXCEPTIONS = Path(__file__).with_name("backend_exceptions.txt")


@cache
def exceptions() -> dict[str, str]:
    lines = [line.partition(":") for line in EXCEPTIONS.read_text().splitlines() if line and not line.startswith("#")]
    return {name.strip(): reason.strip() for name, _, reason in lines}


@cache
def cases() -> dict[str, Any]:
    return {c.name: c for c in load_model_tests(kind="node")}


def _load(folder: Path, kind: str, values: Any) -> list[Any]:
    from onnx import TensorProto, numpy_helper

    arrays = []
    for i, value in enumerate(values):
        if not value.type.HasField("tensor_type"):
            raise UnsupportedOperator(f"{kind} {i} is not a tensor")
        tensor = TensorProto()
        tensor.ParseFromString((folder / f"{kind}_{i}.pb").read_bytes())
        arrays.append(numpy_helper.to_array(tensor))
    return arrays


def run_case(case: Any) -> None:
    """Raise UnsupportedOperator when the case cannot be run, AssertionError when it is wrong."""
    import onnx

    folder = Path(case.model_dir)
    model = case.model if case.model is not None else onnx.load(folder / "model.onnx")
    rep = backend.prepare(model)
    for data in case.data_sets or sorted(folder.glob("test_data_set_*")):
        if isinstance(data, tuple):
            inputs, outputs = data
        else:
            inputs = _load(data, "input", model.graph.input)
            outputs = _load(data, "output", model.graph.output)
        names = [v.name for v in model.graph.input]
        wanted = {i.name for i in rep.session.get_inputs()}
        results = rep.run({n: v for n, v in zip(names, inputs, strict=True) if n in wanted})
        for got, want in zip(results, outputs, strict=True):
            assert got.shape == np.asarray(want).shape
            assert got.dtype == np.asarray(want).dtype
            np.testing.assert_allclose(got, want, rtol=case.rtol, atol=case.atol)


@pytest.mark.parametrize("name", sorted(cases()))
def test_node(name: str) -> None:
    try:
        run_case(cases()[name])
    except UnsupportedOperator as error:
        pytest.skip(str(error))
    except Exception:
        if name in exceptions():
            pytest.xfail(exceptions()[name])
        raise
    assert name not in exceptions(), "passes now: take it out of backend_exceptions.txt"


def test_exceptions_are_cases_with_reasons() -> None:
    assert set(exceptions()) <= set(cases())
    assert all(exceptions().values())
