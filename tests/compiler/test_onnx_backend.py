"""ONNX's own tests (nodes, simple models, models converted from PyTorch): every case has to pass, or to stand with its reason in
backend_exceptions.txt.

A case there that is refused (an operator, type or attribute that we do not have) counts as skipped, one with another result as
expected to fail; one that passes has to leave the file.
"""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.backend.test.loader import load_model_tests

from frugal import UnsupportedOperator, backend

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")  # all that the onnx package ships
EXCEPTIONS = Path(__file__).with_name("backend_exceptions.txt")


@cache
def exceptions() -> dict[str, str]:
    lines = [line.partition(":") for line in EXCEPTIONS.read_text().splitlines() if line and not line.startswith("#")]
    return {name.strip(): reason.strip() for name, _, reason in lines}


@cache
def cases() -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases' own arithmetic
        return {c.name: c for kind in KINDS for c in load_model_tests(kind=kind)}


def model_of(case: Any) -> Any:
    return case.model or onnx.load(Path(case.model_dir, "model.onnx"))


def data_of(case: Any) -> Any:
    """Pairs of inputs and outputs: of the case, or of the files beside its model."""
    if case.data_sets:
        return case.data_sets
    folders = sorted(Path(case.model_dir).glob("test_data_set_*"))
    return [[_files(folder, "input"), _files(folder, "output")] for folder in folders]


def _files(folder: Path, kind: str) -> list[Any]:
    paths = (folder / f"{kind}_{i}.pb" for i in range(len(list(folder.glob(f"{kind}_*.pb")))))
    return [onnx.load_tensor(path) for path in paths]


def _array(value: Any) -> Any:
    from onnx import TensorProto, numpy_helper

    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def run_case(case: Any) -> None:
    """Raise UnsupportedOperator when the case cannot be run, AssertionError when it is wrong."""
    model = model_of(case)
    rep = backend.prepare(model)
    wanted = {i.name for i in rep.session.get_inputs()}
    weights = {t.name for t in model.graph.initializer}
    names = [v.name for v in model.graph.input if v.name not in weights]
    for inputs, outputs in data_of(case):
        inputs, outputs = ([_array(v) for v in values] for values in (inputs, outputs))
        results = rep.run({n: v for n, v in zip(names, inputs, strict=False) if n in wanted})
        for got, want in zip(results, outputs, strict=True):
            assert got.shape == np.asarray(want).shape
            assert got.dtype == np.asarray(want).dtype
            np.testing.assert_allclose(got, want, rtol=case.rtol, atol=case.atol)


@pytest.mark.parametrize("name", sorted(cases()))
def test_case(name: str) -> None:
    try:
        run_case(cases()[name])
    except UnsupportedOperator as error:
        assert name in exceptions(), f"refused: {error}"
        pytest.skip(exceptions()[name])
    except Exception:
        if name in exceptions():
            pytest.xfail(exceptions()[name])
        raise
    assert name not in exceptions(), "passes now: take it out of backend_exceptions.txt"


def test_exceptions_are_cases_with_reasons() -> None:
    assert set(exceptions()) <= set(cases())
    assert all(exceptions().values())
