"""Fakes for the tests: sysfs trees, a clock that only moves when told, meters that play a known power."""

from __future__ import annotations

import math
from pathlib import Path

from frugal.energy.evidence import Evidence
from frugal.energy.meters.base import COUNTER, Channel, Meter, Sample
from frugal.energy.recording import Recording

RANGE = 262_143_328_850  # µJ, of a common package


class Clock:
    """Seconds that pass when told to."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def zone(root: Path, name: str, label: str, microjoules: int, maximum: int | None = RANGE) -> Path:
    """A powercap zone under root/class/powercap; returns its energy_uj."""
    folder = root / "class" / "powercap" / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(label + "\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    if maximum is not None:
        (folder / "max_energy_range_uj").write_text(f"{maximum}\n")
    return folder / "energy_uj"


def hwmon(root: Path, number: int, name: str, **files: object) -> Path:
    """A chip under root/class/hwmon."""
    folder = root / "class" / "hwmon" / f"hwmon{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    for file, value in files.items():
        (folder / file).write_text(f"{value}\n")
    return folder


class Simulated:
    """A recorder in simulated time: a counter over a known power, with the faults of real ones.

    power: watts at a time; step: joules of one count; period: the counter shows the energy of the last multiple of it; gain: what
    the meter's reading is multiplied with; jitter: seconds by which a mark may be late (rng gives them).
    """

    def __init__(self, clock, power, step=0.0, period=0.001, gain=1.0, relative=0.0, jitter=0.0, rng=None, noise=0.0):
        self.clock, self.power, self.step, self.period, self.gain = clock, power, step, period, gain
        self.jitter, self.rng, self.noise = jitter, rng, noise
        self.true = 0.0
        self.at = clock.now
        self.channel = Channel("package-0", "cpu_package", COUNTER, Evidence.B, relative, step, period)
        self.recording = Recording.of("simulated", [self.channel])

    def advance(self):
        """Integrate the power up to now."""
        now = self.clock.now
        if now > self.at:
            self.true += self.power(self.at, now)
            self.at = now

    def mark(self):
        self.advance()
        now = self.clock.now
        late = self.rng.random() * self.jitter if self.rng is not None else 0.0
        lag = self.rng.random() * self.period if self.rng is not None else 0.0  # since the counter's last update
        watts = self.power(now - 1e-6, now) / 1e-6
        shown = (self.true + (late - lag) * watts) * self.gain
        if self.noise:
            shown += self.rng.normal() * self.noise
        if self.step:
            shown = math.floor(shown / self.step) * self.step
        self.recording.add([Sample(0, now, shown)])
        return now

    def settle(self, end):
        pass


class Played(Meter):
    """A meter for the real Recorder: a counter of constant watts by a clock."""

    name = "played"
    title = "played"
    poll_seconds = 0.005

    def __init__(self, watts=10.0, clock=None, fault="", relative=0.01):
        super().__init__(*([clock] if clock else []))
        self.watts, self.fault, self.relative = watts, fault, relative
        self.closed = 0

    def open(self):
        self.channels = [Channel("supply", "board", COUNTER, Evidence.A, self.relative, 1e-6, 1e-4)]

    def poll(self):
        now = self.clock()
        return [Sample(0, now, self.watts * now, self.fault)]

    def close(self):
        self.closed += 1
