"""run_buffers: the same results as run, without numpy, and the same errors."""

from __future__ import annotations

import subprocess
import sys
from array import array
from pathlib import Path

import numpy as np
import pytest

import frugal
import tiny

IDS, SHIFT = [[1, 2, 3], [4, 5, 49]], [i / 8 for i in range(8)]
ARRAYS = {"ids": np.array(IDS), "shift": np.array(SHIFT, np.float32)}


@pytest.fixture
def session() -> frugal.InferenceSession:
    return frugal.InferenceSession(tiny.embed().SerializeToString())


@pytest.mark.parametrize(
    "feeds",
    [
        {"ids": IDS, "shift": SHIFT},
        {"ids": tuple(map(tuple, IDS)), "shift": array("f", SHIFT)},
        {"ids": memoryview(array("q", IDS[0] + IDS[1])).cast("B").cast("q", [2, 3]), "shift": memoryview(array("f", SHIFT))},
        ARRAYS,
        {"ids": np.asfortranarray(ARRAYS["ids"]), "shift": ARRAYS["shift"]},
    ],
)
def test_same_bytes_as_run(session: frugal.InferenceSession, feeds: dict[str, object]) -> None:
    want = session.run(None, ARRAYS)
    got = session.run_buffers(None, feeds)
    assert [bytes(g) for g in got] == [w.tobytes() for w in want]
    assert [g.shape for g in got] == [w.shape for w in want]
    assert [g.format for g in got] == ["f", "q"]
    assert np.array_equal(np.asarray(got[0]), want[0])


def test_names_in_any_order(session: frugal.InferenceSession) -> None:
    one, two = session.run_buffers(["same", "rows"], {"ids": IDS, "shift": SHIFT})
    assert (one.shape, two.shape) == ((2, 3), (2, 3, 8))
    assert one.tolist() == IDS


def test_every_type() -> None:
    model = frugal.InferenceSession(tiny.every_type().SerializeToString())
    feeds = {
        "f": [[1.5, -2], [0, float("inf")]],
        "d": array("d", [1e300, -1]),
        "b": [True, False],
        "i": array("i", [-(2**31), 7]),
        "u": bytes([0, 255]),
    }
    results = model.run_buffers(None, feeds)
    assert [r.tolist() for r in results] == [[[1.5, -2], [0, float("inf")]], [1e300, -1], [True, False], [-(2**31), 7], [0, 255]]


def test_empty_batch(session: frugal.InferenceSession) -> None:
    rows, same = session.run_buffers(None, {"ids": np.zeros((0, 3), np.int64), "shift": SHIFT})
    assert (rows.nbytes, same.nbytes, rows.format) == (0, 0, "f")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"ids": None}, "want a buffer or a list"),
        ({"ids": [[1, 2], [3]]}, "regular list"),
        ({"ids": [[1, 2.5]]}, "regular list"),
        ({"ids": [[1 << 70]]}, "regular list"),
        ({"ids": array("f", [1.0])}, "struct code"),
        ({"ids": [1, 2]}, "rank 2"),
        ({"shift": [1.0, 2.0]}, "shift"),
        ({"ids": [[50]]}, "ids|gather|index"),
    ],
)
def test_bad_input(session: frugal.InferenceSession, change: dict[str, object], text: str) -> None:
    with pytest.raises(frugal.InvalidArgument, match=text):
        session.run_buffers(None, {"ids": IDS, "shift": SHIFT} | change)


def test_wrong_names(session: frugal.InferenceSession) -> None:
    with pytest.raises(ValueError, match="missing"):
        session.run_buffers(None, {"ids": IDS})
    with pytest.raises(frugal.InvalidArgument, match="nothing"):
        session.run_buffers(["nothing"], {"ids": IDS, "shift": SHIFT})


def test_numpy_stays_out(tmp_path: Path) -> None:
    path = tmp_path / "m.frugal"
    frugal.compile(tiny.embed().SerializeToString()).save(path)
    script = (
        "import sys, frugal; s = frugal.InferenceSession(sys.argv[1]); "
        f"r = s.run_buffers(['rows'], {{'ids': {IDS}, 'shift': {SHIFT}}}); assert 'numpy' not in sys.modules; print(r[0].shape)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(2, 3, 8)"
