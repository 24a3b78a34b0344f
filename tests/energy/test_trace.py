"""Imported traces: CSV with named columns, MLPerf Tiny's .bin, Joulescope files."""

from __future__ import annotations

import itertools
import json
import struct
import sys
import types

import numpy as np
import pytest

from frugal.energy.evidence import Evidence
from frugal.energy.meters.trace import above, load, parse_columns
from frugal.errors import InvalidArgument, MissingExtra, NoSuchFile


def energies(trace):
    return [trace.recording.total(a, b).joules for a, b in trace.windows]


def mlperf(path, microjoules, rate=1000.0, stamps=None):
    file = path / "trace1-energy.bin"
    file.write_bytes(b"\xf1" + struct.pack("<f", rate) + np.asarray(microjoules, "<f4").tobytes())
    if stamps is not None:
        (path / "trace1-timestamps.json").write_text(json.dumps(stamps))
    return file


def as_the_runner_prints(microjoules, rate, start, end):
    """Window energy by the rule of the program that wrote the trace: samples at 0, 1/rate added k times, in [start, end)."""
    time, whole = 0.0, 0.0
    for value in microjoules:
        if start <= time < end:
            whole += float(value)
        time += 1 / rate
    return whole * 1e-6


def test_mlperf_windows_equal_those_of_the_runner(tmp_path):
    rng = np.random.default_rng(1)
    microjoules = (65 + 10 * rng.standard_normal(12_000)).astype(np.float32)
    stamps = [0.016, 1.103, 3.681, 4.556, 7.472, 8.341, 9.257, 10.001]  # the last start has no end
    trace = load(mlperf(tmp_path, microjoules, stamps=stamps))
    assert trace.windows == [(1.103, 3.681), (4.556, 7.472), (8.341, 9.257)]
    for got, (start, end) in zip(energies(trace), trace.windows, strict=True):
        assert got == pytest.approx(as_the_runner_prints(microjoules, 1000, start, end), rel=1e-6)
    assert trace.recording.evidence() is Evidence.A
    figure = trace.recording.figure(*trace.windows[0])
    low, high = figure.interval
    assert (high - low) / 2 / figure.joules == pytest.approx(0.02 / 3**0.5 * 1.96, rel=0.05)  # the meter's 2 %


def test_mlperf_window_outside_the_trace(tmp_path):
    trace = load(mlperf(tmp_path, np.ones(1000), stamps=[0, 0.5, 2.0]))
    assert trace.recording.total(*trace.windows[0]).reason == "energy: the trace does not reach the edges of the window"


@pytest.mark.parametrize("data", [b"\xf1", b"\xf1\0\0\0\0\0\0\0\0", b"\xf1\0\0\x7aD\0\0", b"\xf1\0\0\xc0\x7f"])
def test_mlperf_damaged(tmp_path, data):
    (tmp_path / "t-energy.bin").write_bytes(data)
    with pytest.raises(InvalidArgument):
        load(tmp_path / "t-energy.bin")


@pytest.mark.parametrize("stamps", ['"x"', "[1, 0.5, 2]", "{", "[null]"])
def test_mlperf_damaged_timestamps(tmp_path, stamps):
    file = mlperf(tmp_path, np.ones(100))
    (tmp_path / "trace1-timestamps.json").write_text(stamps)
    with pytest.raises(InvalidArgument):
        load(file)


def test_csv_of_current_with_trigger_and_notes_before_the_header(tmp_path):
    lines = ["# recorder 1.2", "settings;x", "", "t (ms);I;D0"]
    for k in range(1001):
        on = 200 <= k < 700
        lines.append(f"{k};{20000 if on else 1000},5;{int(on)}")  # decimal comma
    (tmp_path / "t.csv").write_text("\n".join([*lines, "end;;"]), encoding="utf-8-sig")
    trace = load(tmp_path / "t.csv", "time=t (ms):ms,current=I:uA,voltage=3.0,trigger=D0")
    assert trace.windows == [pytest.approx((0.2, 0.7))]
    assert energies(trace)[0] == pytest.approx(0.02 * 3 * 0.5, rel=1e-3)  # one sample of 500 lies on the edge
    assert trace.about["rows_skipped"] == 1


def test_csv_of_power_and_energy(tmp_path):
    (tmp_path / "p.csv").write_text("time,power\n" + "".join(f"{k / 10},{10 + k}\n" for k in range(11)))
    trace = load(tmp_path / "p.csv", "time=time,power=power:mW")
    assert trace.recording.total(0.0, 1.0).joules == pytest.approx(0.015)
    (tmp_path / "e.csv").write_text("time,e\n" + "".join(f"{k / 10},{k * 0.5}\n" for k in range(11)))
    trace = load(tmp_path / "e.csv", "time=time,energy=e:mJ")
    assert trace.recording.total(0.25, 0.75).joules == pytest.approx(0.0025)


def test_csv_with_a_gap_is_not_interpolated_over_it(tmp_path):
    times = [k / 100 for k in range(500) if not 200 <= k < 300]
    (tmp_path / "g.csv").write_text("t,p\n" + "".join(f"{t},1\n" for t in times))
    recording = load(tmp_path / "g.csv", "time=t,power=p").recording
    assert recording.total(0.0, 1.5).joules == pytest.approx(1.5)
    assert "no sample for 1.01 s" in recording.total(1.0, 4.0).reason


def test_csv_that_goes_back_in_time(tmp_path):
    (tmp_path / "b.csv").write_text("t,p\n0,1\n1,1\n0.5,1\n2,1\n")
    assert load(tmp_path / "b.csv", "time=t,power=p").recording.series[0].faults[0][1].startswith("a sample came 0.5 s before")


@pytest.mark.parametrize(
    "columns",
    ["", "time=t", "power=p", "time=t,current=p", "time=t,power=q", "x=t", "time=t:parsec,power=p", "time", "time=t,voltage=3"],
)
def test_csv_columns_that_do_not_fit(tmp_path, columns):
    (tmp_path / "p.csv").write_text("t,p\n0,1\n1,1\n")
    with pytest.raises(InvalidArgument):
        load(tmp_path / "p.csv", columns)


def test_csv_of_words(tmp_path):
    (tmp_path / "p.csv").write_text("t,p\nx,y\nnan,1\n")
    with pytest.raises(InvalidArgument, match="no row has numbers"):
        load(tmp_path / "p.csv", "time=t,power=p")
    with pytest.raises(NoSuchFile):
        load(tmp_path / "q.csv", "time=t,power=p")


def test_columns_with_units():
    assert parse_columns("time=a:ms,power=b:c:uW,voltage=3.3") == {
        "time": ("a", 1e-3),
        "power": ("b:c", 1e-6),
        "voltage": ("3.3", 1.0),
    }


def test_windows_by_threshold(tmp_path):
    """Noise around the threshold does not cut a window in two; a spike is none."""
    rng = np.random.default_rng(2)
    power = np.full(3000, 0.1)
    power[500:1500] = power[2000:2500] = 1.0
    power[1800] = 5.0
    power += 0.15 * rng.random(3000)
    power[700:1400:7] = 0.7
    file = tmp_path / "p.csv"
    file.write_text("t,p\n" + "".join(f"{k / 1000},{p}\n" for k, p in enumerate(power)))
    found = above(load(file, "time=t,power=p").recording, 0.8, 0.1)
    assert found == [(0.5, 1.5), (2.0, 2.5)]


def test_jls_without_and_with_its_package(tmp_path, monkeypatch):
    file = tmp_path / "t.jls"
    file.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "pyjls", None)
    with pytest.raises(MissingExtra, match="joulescope"):
        load(file)

    class Reader:
        """The part of pyjls that is used: signals by number, samples by fsr(signal, start, length)."""

        def __init__(self, path):
            signal = types.SimpleNamespace
            self.signals = {
                1: signal(name="current", signal_id=1, sample_rate=1000, length=100),
                2: signal(name="voltage", signal_id=2, sample_rate=1000, length=101),
            }

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def fsr(self, number, start, length):
            return np.full(length, {1: 0.5, 2: 4.0}[number], np.float32)

    monkeypatch.setitem(sys.modules, "pyjls", types.SimpleNamespace(Reader=Reader))
    assert load(file).recording.total(0.0, 0.05).joules == pytest.approx(0.1)


def test_sums_are_exact():
    """What itertools.accumulate gives is what the rule says: adding the period k times."""
    times = list(itertools.accumulate(itertools.repeat(0.001, 3), initial=0.0))
    assert times == [0.0, 0.001, 0.001 + 0.001, 0.001 + 0.001 + 0.001]
