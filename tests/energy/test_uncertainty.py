"""Intervals: Student's t against scipy, and coverage over simulated runs of the whole protocol."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from energy.world import Clock, Simulated
from frugal.energy.analysis import analyse
from frugal.energy.protocol import Settings, measure
from frugal.energy.uncertainty import Component, combine, expand, standard_error, student

RUNS = 1000


@pytest.mark.parametrize("dof", [1, 2, 3.7, 9, 30, 1e4, 1e9, math.inf])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_student(level, dof):
    want = stats.t.ppf((1 + level) / 2, dof) if math.isfinite(dof) else stats.norm.ppf((1 + level) / 2)
    assert student(level, dof) == pytest.approx(want, rel=1e-8)  # beyond 10^6 degrees the normal stands in


def test_combination_is_the_gums():
    """H.1 of the GUM in short: quadrature, and Welch-Satterthwaite's degrees of freedom."""
    parts = [Component("a", "A", 3.0, 4), Component("b", "B", 4.0)]
    u, dof = combine(parts)
    assert u == 5.0 and dof == pytest.approx(5**4 / (3**4 / 4))
    low, high = expand(100.0, parts)
    assert (low + high) / 2 == pytest.approx(100) and high - 100 == pytest.approx(5 * student(0.95, dof))
    assert Component.rectangular("r", 3).u == pytest.approx(3**0.5)
    assert math.isnan(standard_error([1.0])) and standard_error([1.0, 3.0]) == pytest.approx(1.0)


def simulated(seed, step, period, noise, gain_spread, drift, windows=8, idle=4.0, extra=6.0):
    """One run of the protocol in simulated time; (results, true gross, true net) of an inference.

    The machine: an idle power and an extra power while it runs, whose amount varies from run to run; both drift by up to `drift`
    watts in a straight line and a slow wave.  The meter: a counter in steps, updated every `period`, with a gain that is off
    by up to its declared share, noise in joules, and marks that are late.
    """
    rng = np.random.default_rng(seed)
    clock = Clock(0.0)
    slope, wave, phase = rng.uniform(-1, 1) * drift / 20, rng.uniform(0, 1) * drift, rng.uniform(0, 2 * math.pi)
    level = {"watts": idle}

    def drifted(a, b):
        """Integral of the drift."""
        w = 2 * math.pi / 30
        return slope * (b * b - a * a) / 2 - wave / w * (math.cos(w * b + phase) - math.cos(w * a + phase))

    def power(a, b):
        return level["watts"] * (b - a) + drifted(a, b)

    gain = 1 + rng.uniform(-1, 1) * gain_spread
    meter = Simulated(clock, power, step, period, gain, gain_spread, jitter=2e-4, rng=rng, noise=noise)
    nominal = 0.05

    def run():
        meter.advance()
        level["watts"] = idle + extra * (1 + 0.05 * rng.standard_normal())
        clock.sleep(nominal * (1 + 0.01 * rng.standard_normal()))
        meter.advance()
        level["watts"] = idle

    settings = Settings(windows=windows, seconds=1.0)
    measured = measure({"model": run}, meter, settings, clock, clock.sleep, None)
    results = analyse(measured.recording, measured.windows)
    rows = [w for w in measured.windows if w.kind == "run"]
    runs = sum(w.runs for w in rows)
    moved = math.fsum(drifted(w.start, w.end) for w in rows) / runs
    return results["variants"]["model"], idle * nominal + moved + extra * nominal, extra * nominal


WORLDS = {
    "rapl": {"step": 6.1e-5, "period": 0.001, "noise": 0.0, "gain_spread": 0.05, "drift": 0.3},
    "coarse": {"step": 0.02, "period": 0.004, "noise": 0.01, "gain_spread": 0.01, "drift": 0.5},
    "few windows": {"step": 1e-3, "period": 0.001, "noise": 0.02, "gain_spread": 0.0, "drift": 0.2, "windows": 4},
    "precise": {"step": 1e-6, "period": 1e-4, "noise": 0.0, "gain_spread": 0.001, "drift": 0.05, "windows": 12},
}


@pytest.mark.parametrize("world", WORLDS)
def test_coverage(world):
    """Nominal 95 % intervals hold the truth in at least 93 % of simulated runs, and are not simply wide."""
    hits = {"gross": 0, "net": 0}
    widths = {"gross": [], "net": []}
    for seed in range(RUNS // len(WORLDS)):
        results, gross, net = simulated(seed, **WORLDS[world])
        for name, truth in (("gross", gross), ("net", net)):
            low, high = results[name]["interval"]
            hits[name] += low <= truth <= high
            widths[name].append((high - low) / 2 / truth)
    n = RUNS // len(WORLDS)
    print(world, {k: v / n for k, v in hits.items()}, {k: float(np.median(v)) for k, v in widths.items()})
    for name, count in hits.items():
        assert count >= 0.93 * n, (world, name, count / n)
        assert np.median(widths[name]) < 0.15
