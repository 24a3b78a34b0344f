"""Plan: opening, saving, verifying; agreement with an independent reader; damaged files."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from frugal.bindings._ffi import ffi

import frugal
import plan_reader
import tiny


@pytest.fixture
def plan() -> frugal.Plan:
    return frugal.compile(tiny.embed().SerializeToString())


@pytest.mark.parametrize("model", [tiny.embed, tiny.every_type, tiny.square])
def test_agrees_with_the_independent_reader(model):
    plan = frugal.compile(model().SerializeToString())
    want = plan_reader.read(bytes(plan))
    assert plan.meta == want["meta"]
    keys = ("name", "dtype", "kind", "layout", "shape", "bytes")
    assert [{k: getattr(t, k) for k in keys} for t in plan.tensors()] == [{k: t[k] for k in keys} for t in want["tensors"]]
    ops = {name: n for n, name in ffi.typeof("enum frugal_op").elements.items()}
    keys = ("name", "inputs", "outputs", "attributes")
    for step, expected in zip(plan.steps(), want["steps"], strict=True):
        assert {k: getattr(step, k) for k in keys} == {k: expected[k] for k in keys}
        assert ops["FRUGAL_OP_" + step.op.upper()] == expected["op"]
    assert [t.name for t in plan.inputs] == [t["name"] for t in want["tensors"] if t["kind"] == "input"]
    assert {t.name for t in plan.outputs} == {t["name"] for t in want["tensors"] if t["kind"] == "output"}


def test_save_open_verify(plan, tmp_path):
    path = tmp_path / "a.frugal"
    plan.save(path)
    again = frugal.Plan.open(path)
    again.verify()
    assert bytes(again) == bytes(plan) == path.read_bytes()
    assert os.listdir(tmp_path) == ["a.frugal"]
    assert len(again) == path.stat().st_size
    assert [s["kind"] for s in again.sections()][-1] == "data"


def test_save_replaces_a_file_that_is_in_use(plan, tmp_path):
    path = tmp_path / "a.frugal"
    plan.save(path)
    session = frugal.InferenceSession(path)
    feeds = {"ids": np.array([[1, 2]]), "shift": np.ones(8, np.float32)}
    before = session.run(None, feeds)
    frugal.compile(tiny.square().SerializeToString()).save(path)
    assert all(np.array_equal(a, b) for a, b in zip(before, session.run(None, feeds), strict=True))
    assert frugal.Plan.open(path).inputs[0].name == "x"


def test_save_honours_the_umask(plan, tmp_path):
    old = os.umask(0o027)
    try:
        plan.save(tmp_path / "a.frugal")
    finally:
        os.umask(old)
    assert (tmp_path / "a.frugal").stat().st_mode & 0o777 == 0o640


def test_save_that_fails_leaves_nothing(plan, tmp_path):
    with pytest.raises(frugal.NoSuchFile, match="no such folder"):
        plan.save(tmp_path / "missing" / "a.frugal")
    (tmp_path / "b.frugal").mkdir()
    with pytest.raises(OSError):
        plan.save(tmp_path / "b.frugal")
    assert os.listdir(tmp_path) == ["b.frugal"]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_any_alignment(plan, kind):
    data = bytes(plan)
    for shift in (0, 1, 17):
        view = kind(b"x" * shift + data)[shift:]
        assert bytes(frugal.Plan(view)) == data


def test_pickles(plan):
    assert bytes(pickle.loads(pickle.dumps(plan))) == bytes(plan)


def test_metadata(plan):
    assert plan.meta["metadata"]["answer"] == "42"
    assert repr(plan).startswith("<frugal.Plan ")


@pytest.mark.parametrize("data", [b"", b"F", b"FRUGALP\n", b"FRUGALP\n" + bytes(56), b"x" * 4096])
def test_what_is_no_plan(data, tmp_path):
    with pytest.raises(frugal.InvalidPlan):
        frugal.Plan(data)
    path = tmp_path / "a.frugal"
    path.write_bytes(data)
    with pytest.raises(frugal.InvalidPlan, match=r"a\.frugal"):
        frugal.Plan.open(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError) as e:
        frugal.Plan.open(tmp_path / "none.frugal")
    assert isinstance(e.value, frugal.FrugalError)


def test_newer_version(plan):
    data = bytearray(bytes(plan))
    data[8] = 2
    with pytest.raises(frugal.InvalidPlan) as e:
        frugal.Plan(data)
    assert e.value.code == 2


def test_truncated_anywhere(plan):
    data = bytes(plan)
    for size in [*range(0, 1024, 7), *range(1024, len(data), 61), len(data) - 1]:
        with pytest.raises(frugal.InvalidPlan):
            frugal.Plan(data[:size])


def test_verify_sees_every_changed_byte(plan):
    """A changed byte is refused when the plan is opened, or by verify(); padding between sections is nobody's."""
    data = bytes(plan)
    padding = set(range(len(data))) - set(range(64 + 64 * len(plan.sections())))
    for s in plan.sections():
        padding -= set(range(s["offset"], s["offset"] + s["bytes"]))
    for at in range(len(data)):
        if at in padding or 24 <= at < 32:  # the reserved field of the header
            continue
        damaged = bytearray(data)
        damaged[at] ^= 0x41
        with pytest.raises((frugal.InvalidPlan, frugal.NotAvailable)):  # the latter: an operation of the future
            frugal.Plan(damaged).verify()


def test_damaged_plans_run_or_fail_but_never_crash(plan):
    """Random damage outside of the constants: opened, resolved and run, it gives an answer or a FrugalError."""
    data = bytes(plan)
    end = next(s["offset"] for s in plan.sections() if s["kind"] == "data")
    rng = np.random.default_rng(1)
    opened = 0
    for _ in range(1500):
        damaged = bytearray(data)
        for at in rng.integers(0, end, rng.integers(1, 4)):
            damaged[at] = rng.integers(0, 256)
        try:
            session = frugal.InferenceSession(bytes(damaged))
            opened += 1
            feeds = {
                i.name: np.ones([d if isinstance(d, int) else 2 for d in i.shape], frugal_dtype(i.type))
                for i in session.get_inputs()
                if np.prod([d if isinstance(d, int) else 2 for d in i.shape], dtype=float) < 1e6
            }
            session.run(None, feeds)
        except frugal.FrugalError:
            pass
        except TypeError:  # no magic left: not a plan, nor a protobuf
            assert damaged[:8] != data[:8]
    assert opened > 100


def frugal_dtype(name: str) -> str:
    from frugal.bindings.plan import DTYPES

    return next(numpy for numpy, ort in DTYPES.values() if ort == name)


def test_open_does_not_read_the_constants(plan, tmp_path):
    """Opening maps: a plan of 1 GiB (sparse on disk) opens at once."""
    import hashlib
    import struct

    data = bytearray(bytes(plan))
    big = 1 << 30
    sections = plan.sections()
    index = next(i for i, s in enumerate(sections) if s["kind"] == "data")
    struct.pack_into("<Q", data, 16, sections[index]["offset"] + big)
    struct.pack_into("<Q", data, 64 + 64 * index + 16, big)
    data[32:64] = hashlib.sha256(data[64 : 64 + 64 * len(sections)]).digest()
    path = Path(tmp_path / "big.frugal")
    with open(path, "wb") as file:
        file.write(data)
        file.truncate(sections[index]["offset"] + big)
    import time

    start = time.perf_counter()
    frugal.Plan.open(path)
    assert time.perf_counter() - start < 0.1
