"""The cffi layer says what the C headers say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
from frugal.bindings import status
from frugal.bindings._ffi import ffi, lib

from frugal import plan as plan_module
from frugal.errors import FrugalError, InvalidArgument, InvalidPlan, NotAvailable, OutOfMemory

ROOT = Path(__file__).resolve().parent.parent
HEADERS = [ROOT / "kernels" / "include" / name for name in ("frugal.h", "frugal_plan.h")]


def make_ffi():
    spec = importlib.util.spec_from_file_location("make_ffi", ROOT / "bindings" / "make_ffi.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def declared() -> str:
    return "".join(make_ffi().declarations(h.read_text()) for h in HEADERS)


def test_every_function_is_bound():
    text = declared()
    names = re.findall(r"^[\w *]*?\b(frugal_\w+)\(", text, re.MULTILINE)
    assert len(names) > 15
    assert set(names) <= set(dir(lib))


def test_every_enumerator_is_bound():
    names = set(re.findall(r"\b(FRUGAL_[A-Z0-9_]+)\b(?=\s*=)", declared()))
    assert len(names) > 90
    assert names <= set(dir(lib))


def test_integer_macros_are_bound():
    assert (lib.FRUGAL_MAX_RANK, lib.FRUGAL_PLAN_VERSION, lib.FRUGAL_MAX_DIM) == (8, plan_module.VERSION, 1 << 40)


def test_declarations_keep_nothing_of_the_preprocessor():
    kept = [line for line in declared().splitlines() if line.startswith("#")]
    assert all(re.fullmatch(r"#define FRUGAL_\w+ \.\.\.", line) for line in kept)
    assert "/*" not in declared() and "_Static_assert" not in declared()


@pytest.mark.parametrize(
    ("name", "size"),
    [("header", 64), ("section", 64), ("dim", 24), ("tensor", 96), ("step", 32)],
)
def test_sizes_of_the_file_records(name, size):
    assert ffi.sizeof(f"frugal_plan_{name}") == size


def test_every_status_has_an_exception_and_a_text():
    want = {
        "BAD_PLAN": InvalidPlan,
        "BAD_VERSION": InvalidPlan,
        "BAD_INPUT": InvalidArgument,
        "BAD_SHAPE": InvalidArgument,
        "TOO_BIG": OutOfMemory,
        "BAD_ARG": FrugalError,
        "NO_ISA": NotAvailable,
        "UNSUPPORTED": NotAvailable,
        "MORE": OutOfMemory,
    }
    values = ffi.typeof("frugal_status").elements
    assert {name.removeprefix("FRUGAL_") for name in values.values()} == {"OK", *want}
    for value, name in values.items():
        error = ffi.new("frugal_error *", {"step": -1, "tensor": -1, "input": -1, "axis": -1})
        if name == "FRUGAL_OK":
            status.check(value, error)
            continue
        with pytest.raises(want[name.removeprefix("FRUGAL_")]) as e:
            status.check(value, error)
        assert e.value.code == value and str(e.value)


def test_messages_without_a_plan():
    what = ffi.new("char[]", b"two things differ")
    error = ffi.new("frugal_error *", {"step": 4, "tensor": 2, "input": -1, "axis": 1, "want": 384, "got": 383})
    error.what = what
    assert status.message(1, error) == "step 4, tensor 2, axis 1: two things differ (want 384, got 383)"


def test_clock_counts_nanoseconds():
    import time

    start = lib.frugal_clock()
    time.sleep(0.01)
    assert 9_000_000 < lib.frugal_clock() - start < 5_000_000_000


def test_cpu_count():
    import os

    assert 1 <= lib.frugal_cpu_count() <= (os.cpu_count() or 1)
