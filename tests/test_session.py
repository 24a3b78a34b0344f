"""What frugal's session promises beyond onnxruntime's: exactness, limits, threads, forks, collection."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from frugal.bindings import library
from frugal.bindings.plan import PlanBuffer
from frugal.bindings.session import Session, default_memory_limit

import frugal
import tiny

IDS = np.array([[1, 2, 3], [4, 5, 49]])
SHIFT = np.linspace(-1, 1, 8, dtype=np.float32)
FEEDS = {"ids": IDS, "shift": SHIFT}


def options(**entries):
    made = frugal.SessionOptions()
    made.intra_op_num_threads = entries.pop("threads", 1)
    for key, value in entries.items():
        made.add_session_config_entry(f"frugal.{key}", value)
    return made


@pytest.fixture(scope="module")
def plan():
    return frugal.compile(tiny.embed().SerializeToString())


def test_everything_that_opens(plan, embed_onnx, tmp_path):
    plan.save(tmp_path / "m.frugal")
    (tmp_path / "plan_of_another_name").write_bytes(bytes(plan))
    want = frugal.InferenceSession(embed_onnx).run(None, FEEDS)
    for model in (
        plan,
        bytes(plan),
        bytearray(bytes(plan)),
        memoryview(bytes(plan)),
        tmp_path / "m.frugal",
        str(tmp_path / "m.frugal"),
        tmp_path / "plan_of_another_name",
        embed_onnx.read_bytes(),
        bytearray(embed_onnx.read_bytes()),
    ):
        got = frugal.InferenceSession(model).run(None, FEEDS)
        assert all(np.array_equal(a, b) for a, b in zip(want, got, strict=True))


def test_where_it_was_loaded_from(embed_onnx, plan):
    assert frugal.InferenceSession(embed_onnx).loaded_from == "compiled"
    assert frugal.InferenceSession(embed_onnx).loaded_from == "cache"
    assert frugal.InferenceSession(bytes(plan)).loaded_from == "plan"


def test_big_endian_is_converted(plan):
    got = frugal.InferenceSession(plan).run(None, {"ids": IDS.astype(">i8"), "shift": SHIFT.astype(">f4")})
    np.testing.assert_array_equal(got[1], IDS)


def test_unaligned_arrays(plan):
    raw = np.zeros(IDS.nbytes + 1, np.uint8)
    ids = raw[1:].view(IDS.dtype).reshape(IDS.shape)
    ids[:] = IDS
    np.testing.assert_array_equal(frugal.InferenceSession(plan).run(["same"], {"ids": ids, "shift": SHIFT})[0], IDS)


def test_read_only_arrays(plan):
    ids = IDS.copy()
    ids.flags.writeable = False
    frugal.InferenceSession(plan).run(None, {"ids": ids, "shift": SHIFT})


@pytest.mark.parametrize("value", [[[1.5]], [["a"]], [[1], [2, 3]], None, "text", object(), [[2**70]], {}])
def test_lists_that_do_not_fit(plan, value):
    with pytest.raises(frugal.InvalidArgument, match="ids"):
        frugal.InferenceSession(plan).run(None, {"ids": value, "shift": SHIFT})


def test_lists_never_wrap():
    session = frugal.InferenceSession(tiny.every_type().SerializeToString())
    feeds = {"f": [[1]], "d": [1], "b": [True], "i": [1], "u": [255]}
    assert session.run(["u_out"], feeds)[0] == 255
    for bad in ({"u": [256]}, {"u": [-1]}, {"i": [2**31]}, {"b": [2]}, {"i": [0.5]}):
        with pytest.raises(frugal.InvalidArgument):
            session.run(None, feeds | bad)


def test_messages_name_what_was_wrong(plan):
    session = frugal.InferenceSession(plan)
    cases = {
        "input 'ids': want rank 2; declared [batch, sequence], got [3]": {"ids": IDS[0]},
        "input 'shift': want dtype float32, got float64": {"shift": SHIFT.astype(float)},
        "want 8, got 9": {"shift": np.ones(9, np.float32)},
        "'rows'": {},
    }
    for text, change in list(cases.items())[:3]:
        with pytest.raises(frugal.InvalidArgument) as e:
            session.run(None, FEEDS | change)
        assert text in str(e.value)
    with pytest.raises(frugal.InvalidArgument) as e:
        session.run(None, FEEDS | {"ids": IDS + 1})
    assert e.value.code == 3
    assert "step 0 'find' (gather)" in str(e.value)


def test_memory_limit():
    model = tiny.square().SerializeToString()
    x = np.ones(4096, np.float32)
    assert frugal.InferenceSession(model).run(None, {"x": x})[0].shape == (4096, 4096)
    tight = frugal.InferenceSession(model, options(memory_limit_bytes=str(1 << 20)))
    with pytest.raises(frugal.OutOfMemory, match="1048576.*frugal.memory_limit_bytes") as e:
        tight.run(None, {"x": x})
    assert isinstance(e.value, MemoryError)
    assert tight.run(None, {"x": x[:10]})[0].shape == (10, 10)
    for bad in ("-1", "0", "many", "", str(1 << 70)):
        with pytest.raises(frugal.InvalidArgument, match="memory_limit_bytes"):
            frugal.InferenceSession(model, options(memory_limit_bytes=bad))


def test_default_memory_limit_is_a_bound():
    """A few bytes of plan and input cannot ask for the machine: 200000 floats squared would be 160 GB."""
    session = frugal.InferenceSession(tiny.square().SerializeToString())
    x = np.ones(200_000, np.float32)
    with pytest.raises(frugal.OutOfMemory, match=str(default_memory_limit(len(session.plan), x.nbytes))):
        session.run(None, {"x": x})


def test_same_bits_for_every_isa_and_any_threads(plan):
    outputs = []
    for name in library.isa_list():
        frugal.set_isa(name)
        assert frugal.isa() == name
        for threads in (1, 2, 5):
            outputs.append(frugal.InferenceSession(plan, options(threads=threads)).run(None, FEEDS)[0].tobytes())
    assert len(set(outputs)) == 1


def test_set_isa_applies_to_open_sessions(plan):
    session = frugal.InferenceSession(plan)
    before = session.run(None, FEEDS)
    frugal.set_isa("scalar")
    after = session.run(None, FEEDS)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_unknown_isa():
    with pytest.raises(frugal.NotAvailable, match="usable here: .*scalar"):
        frugal.set_isa("mmx")
    assert frugal.isa() == library.isa_list()[0]


@pytest.mark.parametrize("name", ["scalar", "mmx"])
def test_isa_from_the_environment(name):
    code = "import frugal; print(frugal.isa())"
    env = os.environ | {"FRUGAL_ISA": name}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    if name == "scalar":
        assert done.stdout == "scalar\n"
    else:
        assert done.returncode == 1 and "NotAvailable: instruction set 'mmx'" in done.stderr


@pytest.mark.parametrize("threads", [1, 3])
def test_concurrent_runs(plan, threads):
    """Many Python threads, one session, changing shapes: every answer belongs to its question."""
    session = frugal.InferenceSession(plan, options(threads=threads))

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(40):
            ids = rng.integers(0, 50, rng.integers(1, 6, 2))
            rows, same = session.run(None, {"ids": ids, "shift": SHIFT})
            np.testing.assert_array_equal(same, ids)
            np.testing.assert_allclose(rows, tiny.embed_reference(ids, SHIFT), rtol=1e-6)
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_sessions_may_share_a_pool(plan):
    pool = library.Pool(2)
    sessions = [Session(PlanBuffer(plan._data), pool) for _ in range(3)]
    with ThreadPoolExecutor(3) as workers:
        jobs = [workers.submit(sessions[i % 3].run, [IDS, SHIFT]) for i in range(60)]
        results = [job.result() for job in jobs]
    assert len({r[0].tobytes() for r in results}) == 1


def test_running_releases_the_gil():
    session = frugal.InferenceSession(tiny.square().SerializeToString(), options(threads=1))
    x = np.ones(4000, np.float32)
    session.run(None, {"x": x})
    ticks = 0
    done = threading.Event()

    def tick():
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.0005)

    other = threading.Thread(target=tick)
    other.start()
    end = time.perf_counter() + 0.4
    while time.perf_counter() < end:
        session.run(None, {"x": x})
    done.set()
    other.join()
    assert ticks > 50


@pytest.mark.parametrize("bad", [-1, 100_000])
def test_number_of_threads(bad, plan):
    made = frugal.SessionOptions()
    made.intra_op_num_threads = bad
    if bad < 0:  # onnxruntime takes it as "you choose"
        frugal.InferenceSession(plan, made).run(None, FEEDS)
    else:
        with pytest.raises(frugal.InvalidArgument, match="threads"):
            frugal.InferenceSession(plan, made)


def threads_of_this_process():
    return len(os.listdir("/proc/self/task"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc")
def test_threads_end_with_the_session(plan):
    frugal.InferenceSession(plan, options(threads=2)).run(None, FEEDS)
    gc.collect()
    before = threads_of_this_process()
    session = frugal.InferenceSession(plan, options(threads=4))
    session.run(None, FEEDS)
    assert threads_of_this_process() == before + 3
    del session
    gc.collect()
    assert threads_of_this_process() == before


def test_plan_lives_as_long_as_its_sessions(tmp_path):
    frugal.compile(tiny.embed().SerializeToString()).save(tmp_path / "m.frugal")
    session = frugal.InferenceSession(frugal.Plan.open(tmp_path / "m.frugal"))
    os.unlink(tmp_path / "m.frugal")
    gc.collect()
    np.testing.assert_array_equal(session.run(["same"], FEEDS)[0], IDS)


def test_many_sessions_do_not_leak(plan):
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    x = np.ones(500, np.float32)
    data = bytes(frugal.compile(tiny.square().SerializeToString()))
    sizes = []
    for _ in range(6):
        for _ in range(50):
            frugal.InferenceSession(data, options(threads=2)).run(None, {"x": x})
        gc.collect()
        sizes.append(resident())
    assert sizes[-1] - sizes[1] < 8 << 20


FORK = """
import os, sys, threading
import numpy as np
import frugal, tiny
plan = frugal.compile(tiny.embed().SerializeToString())
options = frugal.SessionOptions()
options.intra_op_num_threads = 3
session = frugal.InferenceSession(plan, options)
feeds = {"ids": np.arange(50).reshape(5, 10), "shift": np.ones(8, np.float32)}
want = session.run(None, feeds)[0]
stop = False
def busy():
    while not stop:
        session.run(None, feeds)
other = threading.Thread(target=busy)   # so that locks are held when the fork comes
other.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        ok = all(np.array_equal(session.run(None, feeds)[0], want) for _ in range(20))
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
stop = True
other.join()
assert np.array_equal(session.run(None, feeds)[0], want)
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork():
    """Sessions go on in the child, with threads of its own, even when the fork came in the middle of a run."""
    here = os.path.dirname(__file__)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK],
        env=os.environ | {"PYTHONPATH": here},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")


EXIT = """
import threading, numpy as np, frugal, tiny
options = frugal.SessionOptions()
options.intra_op_num_threads = 3
session = frugal.InferenceSession(tiny.square().SerializeToString(), options)
x = np.ones(2000, np.float32)
def forever():
    while True:
        session.run(None, {"x": x})
threading.Thread(target=forever, daemon=True).start()
session.run(None, {"x": x})
"""


def test_exit_while_a_daemon_thread_runs():
    done = subprocess.run(
        [sys.executable, "-c", EXIT],
        env=os.environ | {"PYTHONPATH": os.path.dirname(__file__)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_step_records(plan):
    session = frugal.InferenceSession(plan)._session
    records = session.records([IDS, SHIFT])
    assert len(records) == len(list(plan.steps()))
    assert all(ns >= 0 and written > 0 for ns, _, written, _ in records)
    session.run([IDS, SHIFT])


def test_unsupported_parts_of_onnxruntime(plan):
    session = frugal.InferenceSession(plan)
    for call in (
        session.io_binding,
        lambda: session.run_with_iobinding(None),
        lambda: session.run_with_ort_values(None, {}),
        session.end_profiling,
    ):
        with pytest.raises(frugal.FrugalError, match="not supported"):
            call()


def test_activations_are_checked(embed_onnx):
    with pytest.raises(frugal.InvalidArgument, match="activations"):
        frugal.InferenceSession(embed_onnx, options(activations="int3"))
    frugal.InferenceSession(embed_onnx, options(activations="float")).run(None, FEEDS)
