"""`measure()`, its gate, the pytest fixture."""

from __future__ import annotations

import time

import pytest

import frugal
from energy.world import Played
from frugal.energy import BudgetExceeded, Evidence, Figure, measure
from frugal.energy.evidence import joules_text, worst


def test_gross_net_and_channels():
    meter = Played(10.0)
    with measure(meter, baseline=0.05) as m:
        meter.watts = 10.0
        time.sleep(0.05)
    assert m.gross.joules == pytest.approx(10.0 * m.seconds, rel=0.05)
    assert m.gross.evidence is Evidence.A and m.gross.source == "played: board"
    assert m.net.joules is None and "not clearly below" in m.net.reason  # it took no more than idling does
    assert m.channels[0]["joules"] == m.gross.joules and meter.closed == 1


def test_net_above_an_idle_baseline():
    class Rising(Played):
        extra = 0.0

        def poll(self):
            samples = super().poll()
            return [samples[0]._replace(value=samples[0].value + self.extra)]

    meter = Rising(2.0)
    with measure(meter, baseline=0.05) as m:
        meter.extra = 1.0  # one joule at once
        time.sleep(0.05)
    assert m.net.joules == pytest.approx(1.0, rel=0.05)
    low, high = m.net.interval
    assert low < 1.0 < high and m.gross.joules > m.net.joules


def test_a_fault_inside_is_a_reason():
    meter = Played(10.0, fault="the cable fell out")
    with measure(meter) as m:
        pass
    assert m.gross.evidence is Evidence.X and "cable" in m.gross.reason
    assert m.to_dict()["gross_joules"] is None


def test_an_exception_inside_comes_out_and_the_meter_is_closed():
    meter = Played()
    with pytest.raises(KeyError), measure(meter):
        raise KeyError
    assert meter.closed == 1


def test_the_model_is_class_d_and_only_when_asked():
    with measure("model") as m:
        sum(range(300_000))
    low, high = m.gross.interval
    assert (
        m.gross.evidence is Evidence.D and high / m.gross.joules == pytest.approx(3) and m.gross.joules / low == pytest.approx(3)
    )
    with measure() as m:
        pass
    assert m.gross.evidence in (Evidence.B, Evidence.X)  # whatever this machine has, no estimate


def test_gate():
    with measure(Played(10.0)) as m:
        time.sleep(0.01)
    m.check(1.0)
    with pytest.raises(BudgetExceeded, match="above the limit of 1e-06 J"):
        m.check(1e-6)
    with measure("model") as m:
        pass
    with pytest.raises(BudgetExceeded, match="needs a figure of class A, B or C"):
        m.check(1e9)
    assert issubclass(BudgetExceeded, frugal.FrugalError)


@pytest.mark.parametrize(
    "arguments",
    [
        (None, None, Evidence.B, "s"),
        (1.0, None, Evidence.X, "s", "r"),
        (None, None, Evidence.X, "s"),
        (float("nan"), None, "A", "s"),
    ],
)
def test_a_figure_never_goes_without_its_class(arguments):
    with pytest.raises(ValueError):
        Figure(*arguments)


def test_words():
    assert joules_text(0.0123) == "12.3 mJ" and joules_text(2e-9) == "2 nJ" and joules_text(0) == "0 J"
    assert joules_text(-1.5e-6) == "-1.5 µJ"
    assert worst([Evidence.A, Evidence.C, Evidence.B]) is Evidence.C
    assert str(Figure.unavailable("x", "no tree")) == "X (no tree)"
    assert "class B: powercap" in str(Figure(1.0, (0.9, 1.1), Evidence.B, "powercap"))
    assert Figure(1.0, (0.9, 1.1), Evidence.B, "s").scaled(2) == Figure(2.0, (1.8, 2.2), Evidence.B, "s")


PLUGIN_TEST = """
import time
from energy.world import Played
import frugal.energy.measuring as measuring

def test_passes(energy, monkeypatch):
    monkeypatch.setattr(measuring, "find", lambda spec: Played(10.0))
    with energy(max_joules=1.0) as m:
        time.sleep(0.01)
    assert m.gross.joules > 0.05

def test_fails(energy, monkeypatch):
    monkeypatch.setattr(measuring, "find", lambda spec: Played(10.0))
    with energy(max_joules=1e-6):
        time.sleep(0.01)

def test_is_skipped(energy):
    with energy(max_joules=1.0, meter="model"):
        pass

def test_without_a_limit(energy):
    with energy(meter="model") as m:
        pass
    assert m.seconds >= 0
"""


@pytest.mark.parametrize(("option", "outcome"), [([], (2, 1, 1)), (["--energy-required"], (2, 2, 0))])
def test_fixture(tmp_path, option, outcome):
    import os
    import re
    import subprocess
    import sys
    from pathlib import Path

    (tmp_path / "test_it.py").write_text(PLUGIN_TEST)
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "frugal.energy.pytest_plugin", *option, "."],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": tests, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    counts = [int((re.search(rf"(\d+) {word}", done.stdout) or [0, 0])[1]) for word in ("passed", "failed", "skipped")]
    assert tuple(counts) == outcome, done.stdout
