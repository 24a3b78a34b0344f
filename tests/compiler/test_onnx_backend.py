"""ONNX's own node tests: every case whose operators we have must pass, or stand with its reason in backend_exceptions.txt.

A case that is refused with UnsupportedOperator (an operator, type or attribute we do not have yet) is skipped and counted; a
wrong result, a crash or any other error fails.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx.backend.test.loader import load_model_tests

from frugal import UnsupportedOperator, backend

EXCEPTIONS = Path(__file__).with_name("backend_exceptions.txt")


@cache
def exceptions() -> dict[str, str]:
    lines = [line.partition(":") for line in EXCEPTIONS.read_text().splitlines() if line and not line.startswith("#")]
    return {name.strip(): reason.strip() for name, _, reason in lines}


@cache
def cases() -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases' own arithmetic
        return {c.name: c for c in load_model_tests(kind="node")}


def _array(value: Any) -> Any:
    from onnx import TensorProto, numpy_helper

    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def run_case(case: Any) -> None:
    """Raise UnsupportedOperator when the case cannot be run, AssertionError when it is wrong."""
    rep = backend.prepare(case.model)
    wanted = {i.name for i in rep.session.get_inputs()}
    names = [v.name for v in case.model.graph.input]
    for inputs, outputs in case.data_sets:
        inputs, outputs = ([_array(v) for v in values] for values in (inputs, outputs))
        results = rep.run({n: v for n, v in zip(names, inputs, strict=False) if n in wanted})
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
