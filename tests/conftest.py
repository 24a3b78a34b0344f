"""Every test has a cache of its own, and small models to run."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """FRUGAL_CACHE_DIR of this test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FRUGAL_CACHE_DIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def same_isa_after() -> Iterator[None]:
    """A test may call set_isa; the next one starts from the best again."""
    yield
    if importlib.util.find_spec("frugal.bindings._ffi"):
        import frugal

        frugal.set_isa("auto")


@pytest.fixture
def embed_onnx(tmp_path: Path) -> Path:
    """tiny.embed in a file."""
    import tiny

    path = tmp_path / "embed.onnx"
    path.write_bytes(tiny.embed().SerializeToString())
    return path
