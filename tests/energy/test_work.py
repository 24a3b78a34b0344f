"""Step records and what is made of them: apportioning, roofline, repeated steps, the estimation model and its calibration."""

from __future__ import annotations

import json
import math
import random
import time

import numpy as np
import pytest

import frugal
import tiny
from energy.world import Clock, Simulated
from frugal.energy import Evidence, work
from frugal.energy.calibration import calibrate
from frugal.energy.estimate import DEFAULT, FEATURES, Model, estimate_board, fit, leave_one_out, load, nnls
from frugal.energy.meters.base import COUNTER, Channel, Meter, Sample
from frugal.energy.protocol import Settings
from frugal.errors import InvalidArgument, NoSuchFile

FEEDS = {"ids": np.array([[1, 2, 3, 4]]), "shift": np.ones(8, np.float32)}


@pytest.fixture
def session():
    return frugal.InferenceSession(tiny.embed().SerializeToString())


def row(number, nanoseconds, operations=100, kind="float", constants=0, **more):
    about = {"number": number, "op": f"op{number % 3}", "name": "", "kind": kind, "isa": "scalar", "nanoseconds": nanoseconds}
    sizes = {"bytes_read": 64 + constants, "bytes_written": 32, "constant_bytes": constants, "operations": operations}
    return about | sizes | more


def test_records_of_a_session(session):
    rows = work.steps(session, FEEDS)
    assert [r["op"] for r in rows] == [s.op for s in session.plan.steps()]
    gather = next(r for r in rows if r["op"] == "gather")
    assert gather["bytes_written"] == 4 * 8 * 4 and gather["bytes_read"] == gather["bytes_written"]  # not the whole table
    assert all(r["nanoseconds"] >= 0 and r["isa"] == frugal.isa() for r in rows)
    totals = work.totals(rows, 0.5, 8 << 20)
    assert totals["seconds"] == 0.5 and totals["memory_bytes"] == 0.0  # the constants fit the cache
    assert work.totals(rows, 0.5, 1)["memory_bytes"] == sum(r["constant_bytes"] for r in rows)


@pytest.mark.parametrize("method", ["time", "counters", "repeated"])
def test_shares_add_up_exactly(method):
    rng = random.Random(4)
    for _ in range(200):
        rows = [row(k, rng.random() * 10 ** rng.randint(0, 9), rng.randint(0, 10**9)) for k in range(rng.randint(1, 300))]
        for r in rows[:5]:
            r["repeated_joules"] = rng.random()
        joules = rng.random() * 10 ** rng.randint(-9, 3)
        assert math.fsum(work.apportion(joules, rows, method, Model(DEFAULT))) == joules


def test_methods():
    rows = [row(0, 300, 1000), row(1, 100, 3000)]
    assert work.apportion(4.0, rows, "time") == [3.0, 1.0]
    prices = dict.fromkeys(FEATURES, 0.0) | {"float_operations": 1.0}
    assert work.apportion(4.0, rows, "counters", Model(prices)) == [1.0, 3.0]
    rows[0]["repeated_joules"] = 0.6
    assert work.apportion(4.0, rows, "repeated") == pytest.approx([3.0, 1.0])  # the other by its time
    with pytest.raises(InvalidArgument, match="one of time, counters"):
        work.apportion(1.0, rows, "guess")
    with pytest.raises(InvalidArgument, match="needs the estimation model"):
        work.apportion(1.0, rows, "counters")
    with pytest.raises(InvalidArgument, match="no step has a weight"):
        work.apportion(1.0, [row(0, 0)], "time")
    assert work.apportion(1.0, [], "time") == []


def test_tables():
    rows = [row(0, 10, joules=1.0), row(3, 10, joules=2.0), row(1, 50, joules=0.5), row(2, 5, operations=0, joules=0.1)]
    table = work.by_operator(rows)
    assert [(t["op"], t["steps"], t["joules"]) for t in table] == [("op0", 2, 3.0), ("op1", 1, 0.5), ("op2", 1, 0.1)]
    points = work.roofline(rows, {"float": 100.0, "int8": 400.0, "read": 20.0})["points"]
    assert len(points) == 3 and points[0]["intensity"] == pytest.approx(100 / 96) and points[0]["gops"] == pytest.approx(10)


def test_a_repeated_step_leaves_the_outputs_alone(session):
    want = session.run(None, FEEDS)
    for step in range(len(list(session.plan.steps()))):
        session.repeat_step(step, 7)
        for a, b in zip(session.run(None, FEEDS), want, strict=True):
            np.testing.assert_array_equal(a, b)
    session.repeat_step(-1, 1)


def test_a_repeated_step_is_measured_alone(session):
    """In a world where every step costs what it costs, the measured energy of a step is that of the step."""
    clock = Clock()
    power = {"watts": 1.0}
    meter = Simulated(clock, lambda a, b: power["watts"] * (b - a), step=1e-9, period=1e-6)
    steps = {0: (0.002, 5.0), 1: (0.001, 20.0), 2: (0.0001, 1.0)}  # number -> seconds, watts

    class Played:
        now = (-1, 1)

        def repeat_step(self, step, times):
            self.now = (step, times)

        def run(self, _, feeds):
            for number, (seconds, watts) in steps.items():
                meter.advance()
                power["watts"] = watts
                clock.sleep(seconds * (self.now[1] if number == self.now[0] else 1))
                meter.advance()
            power["watts"] = 1.0

    rows = [row(n, s * 1e9) for n, (s, _) in steps.items()]
    from frugal.energy import protocol

    settings = Settings(3, 0.2, False, 0.2)
    original = protocol.measure
    try:
        protocol.measure = lambda variants, recorder, settings: original(variants, recorder, settings, clock, clock.sleep, None)
        work.repeat_steps(Played(), {}, rows, meter, settings)
    finally:
        protocol.measure = original
    for r in rows:
        seconds, watts = steps[r["number"]]
        assert r["repeated_joules"] == pytest.approx(seconds * watts, rel=0.01)
        assert r["repeated_interval"][0] <= r["repeated_joules"] <= r["repeated_interval"][1]
    joules = math.fsum(s * w for s, w in steps.values())
    assert work.apportion(joules, rows, "repeated") == pytest.approx([s * w for s, w in steps.values()], rel=0.01)


def test_overhead_of_records_is_small(session):
    """Recording must not change what it records; measured on a run of microseconds, the worst case."""
    from frugal.bindings import library
    from frugal.bindings._ffi import ffi, lib

    records = ffi.new("frugal_record[]", session._session.plan.c.n_steps)
    spent = {True: [], False: []}
    for turn in range(60):
        on = turn % 2 == 0
        session.run(None, FEEDS)
        clock = library.clock()
        lib.frugal_session_record(session._session._handle, records if on else ffi.NULL, clock if on else ffi.NULL)
        start = time.thread_time()
        for _ in range(100):
            session.run(None, FEEDS)
        spent[on].append((time.thread_time() - start) / 100)
    lib.frugal_session_record(session._session._handle, ffi.NULL, ffi.NULL)
    steps = session._session.plan.c.n_steps
    assert (
        min(spent[True]) - min(spent[False]) < steps * 1e-6
    )  # a microsecond a step: two clocks and a few sums take a tenth of it


# ---- the estimation model ----


def test_nnls_finds_what_made_the_data():
    rng = np.random.default_rng(5)
    for _ in range(20):
        a = rng.random((12, 5))
        want = np.maximum(rng.standard_normal(5), 0)
        got = nnls(a.tolist(), (a @ want).tolist())
        assert got == pytest.approx(want, abs=1e-6)
        assert min(nnls(a.tolist(), rng.standard_normal(12).tolist())) >= 0


def world(prices, amounts):
    """Work and joules of workloads by these prices."""
    rows = [dict(zip(FEATURES, a, strict=True)) for a in amounts]
    return rows, [math.fsum(Model(prices).parts(r).values()) for r in rows]


AMOUNTS = [
    (1.0, 0, 0, 0, 0), (0.1, 1e10, 0, 0, 0), (0.1, 0, 1e10, 0, 0), (0.1, 0, 0, 1e9, 0), (0.1, 0, 0, 0, 1e10),
    (0.1, 2e10, 0, 1e8, 0), (0.2, 0, 3e10, 0, 1e9), (0.1, 1e9, 1e9, 1e9, 1e9),
]  # fmt: skip


def test_prices_are_found_again_and_left_out_workloads_predicted():
    prices = {"seconds": 2.0, "int8_operations": 5.0, "float_operations": 40.0, "memory_bytes": 90.0, "cache_bytes": 8.0}
    rows, joules = world(prices, AMOUNTS)
    assert fit(rows, joules) == pytest.approx(prices, rel=1e-6)
    noisy = [j * f for j, f in zip(joules, (1.01, 0.98, 1.02, 1.0, 0.99, 1.01, 0.99, 1.0), strict=True)]
    errors = leave_one_out(rows[4:] + rows[:4], noisy[4:] + noisy[:4], [str(k) for k in range(8)])
    assert set(errors) == {str(k) for k in range(8)}
    assert abs(errors["2"]) < 0.2  # a mixture, predicted from the others


def test_intervals_of_the_model():
    low, high = Model(DEFAULT).estimate({"seconds": 1.0}).interval
    assert (low, high) == pytest.approx((1.0, 9.0))
    model = Model(DEFAULT, Evidence.C, "s", "cpu", {"a": 0.1, "b": -0.1, "c": 0.1, "d": -0.1})
    figure = model.estimate({"seconds": 1.0})
    assert figure.evidence is Evidence.C and figure.interval[1] / figure.joules == pytest.approx(1 + 0.1 * 2.776, rel=1e-3)


class Priced(Meter):
    """A machine that takes 2 W and 10 W more a busy CPU of this process."""

    name = "priced"
    title = "priced"
    poll_seconds = 0.01

    def open(self):
        self.channels = [Channel("supply", "board", COUNTER, Evidence.A, 0.01, 1e-6, 1e-4)]
        self.start = self.clock(), time.process_time()

    def poll(self):
        now = self.clock()
        return [Sample(0, now, 2.0 * (now - self.start[0]) + 10.0 * (time.process_time() - self.start[1]))]


def test_calibrate_on_this_machine(tmp_path):
    about = calibrate(Priced(), 3, 0.05, tmp_path / "c.json", "this CPU")
    assert about["evidence"] == "C" and set(about["errors"]) == set(about["workloads"]) and "sleep" in about["errors"]
    model = load(tmp_path / "c.json", "this CPU")
    assert model.evidence is Evidence.C and all(v >= 0 for v in model.prices.values())
    assert load(tmp_path / "c.json", "another").evidence is Evidence.D
    asleep = about["workloads"]["sleep"]
    assert asleep["joules"] / asleep["work"]["seconds"] == pytest.approx(2.0, rel=0.3)  # what this process does beside sleeping


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"prices": 3}', '{"prices": {"seconds": -1}}'])
def test_damaged_calibrations(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InvalidArgument):
        load(tmp_path / "c.json")
    with pytest.raises(NoSuchFile):
        load(tmp_path / "d.json")


@pytest.mark.parametrize("value", [0, -5, True, None, "many", float("inf"), []])
def test_strange_instruction_counts(tmp_path, value):
    (tmp_path / "manifest.json").write_text(json.dumps({"instructions": value}))
    with pytest.raises(InvalidArgument):
        estimate_board(tmp_path)


def test_board_classes(tmp_path):
    (tmp_path / "manifest.json").write_text(
        json.dumps({"board": "NUCLEO-U575ZI (STM32U575)", "instructions_per_inference": 10**6})
    )
    figure, about = estimate_board(tmp_path / "manifest.json")
    assert (
        about["board"] == "stm32u575" and figure.evidence is Evidence.D and figure.interval[1] == pytest.approx(3 * figure.joules)
    )
