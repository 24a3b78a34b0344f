"""Fixtures: the real MiniLM (fetched once, or skipped) and its exports, made once per run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="the extra `quantize` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `quantize` is not installed")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Folder of all-MiniLM-L6-v2 as on the hub."""
    path = Path(__file__).resolve().parents[1] / "models.py"
    spec = importlib.util.spec_from_file_location("frugal_test_models", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module.fetch_or_skip("all-MiniLM-L6-v2")


@pytest.fixture(scope="session")
def minilm_onnx(minilm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with its float ONNX."""
    from frugal.quantize import export

    out = tmp_path_factory.mktemp("minilm") / "float"
    export(minilm, out)
    return out
