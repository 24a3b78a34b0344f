"""What is imported when, and how long it takes."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

import frugal
import tiny

HEAVY = ("onnx", "onnxruntime", "google.protobuf", "onnx_ir", "onnxscript", "torch", "transformers", "tokenizers")


def modules(code: str, *args: str) -> list[str]:
    """Modules loaded in a new process after `code`."""
    code += "\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_frugal_imports_nothing():
    loaded = modules("import frugal; frugal.FrugalError; frugal.__version__; dir(frugal)")
    ours = [m for m in loaded if m.split(".")[0] == "frugal"]
    assert ours == ["frugal", "frugal.errors"]
    assert not {"numpy", "cffi", "_cffi_backend", *HEAVY} & set(loaded)


def test_plans_need_no_numpy():
    loaded = modules("import frugal; frugal.Plan; frugal.isa()")
    assert "frugal.bindings._ffi" in loaded and "numpy" not in loaded


def test_sessions_open_without_numpy(tmp_path):
    path = tmp_path / "m.frugal"
    frugal.compile(tiny.embed().SerializeToString()).save(path)
    loaded = modules("import sys, frugal; frugal.InferenceSession(sys.argv[1])", str(path))
    assert not {"numpy", *HEAVY} & set(loaded)


def test_quantize_is_lazy():
    assert not set(HEAVY) & set(modules("import frugal.quantize"))


def test_help_is_light():
    loaded = modules("from frugal.cli import parser; parser().format_help()")
    assert not {"numpy", *HEAVY} & set(loaded)


def test_every_public_name_exists():
    for name in frugal.__all__:
        assert getattr(frugal, name) is not None
    assert set(frugal._HOME) <= set(frugal.__all__) <= set(dir(frugal))
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = frugal.nothing_like_it


def test_import_time():
    """A new process imports frugal, and maps a plan, in little more than Python's own start."""

    def best(code: str) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-S", "-c", code], check=True)
            times.append(time.perf_counter() - start)
        return min(times)

    path = next(p for p in frugal.__path__)
    code = f"import sys; sys.path.insert(0, {path.rpartition('/')[0]!r}); import frugal"
    assert best(code) - best("import sys") < 0.05
