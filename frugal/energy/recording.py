"""Samples of a meter, and the joules between two moments computed from them.

Recorder polls a live meter in a thread and at every edge of a window; Recording is what it leaves, and what a report keeps.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from .evidence import Evidence, Figure, MeterError, worst
from .meters.base import COUNTER, INCREMENT, POWER, Channel, Meter, Sample
from .uncertainty import Component, combine, expand

GAP_PERIODS = 5  # a power that was not seen for so many periods (and a tenth of a second) is not interpolated
STUCK_PERIODS = 50  # a counter of the total that stands still for so long is not counting
DEAD_SECONDS = 0.5  # a memory that took nothing for so long is not counted at all
EDGE = 1e-9  # a sample this close to an edge is at it


class Energy(NamedTuple):
    """Joules of a window in one channel, or the reason why there are none.

    edge: half-width in joules of what the two edges leave open (update period, resolution), a triangular error.
    """

    joules: float | None
    edge: float = 0.0
    reason: str = ""


@dataclass
class Series:
    """One channel's samples in order of time; faults: (time, why, whether what lay before is lost)."""

    channel: Channel
    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    faults: list[tuple[float, str, bool]] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Append; a sample that is not later than the last (a clock that went back) is a fault."""
        if sample.fault:
            self.faults.append((sample.time, sample.fault, sample.lost))
        elif not math.isfinite(sample.value):
            self.faults.append((sample.time, "the value is not a number", False))
        elif self.times and sample.time < self.times[-1]:
            self.faults.append(
                (sample.time, f"a sample came {self.times[-1] - sample.time:.3g} s before the one it follows", False)
            )
        else:
            self.times.append(sample.time)
            self.values.append(sample.value)

    def energy(self, start: float, end: float) -> Energy:
        """Joules in [start, end)."""
        for time, why, lost in self.faults:
            if lost and start < time <= end:
                return Energy(None, reason=why)
        if not self.times:
            return Energy(None, reason=self.faults[0][1] if self.faults else "there is no sample")
        if self.channel.kind == INCREMENT:
            return self._sum(start, end)
        missing = self._missing(start, end)
        if missing:
            return Energy(None, reason=missing)
        return self._counted(start, end) if self.channel.kind == COUNTER else self._integral(start, end)

    def _missing(self, start: float, end: float) -> str:
        """Why the samples do not cover the window, or "".

        A counter needs its edges only, within a period; a power needs all of it.
        """
        tolerance = max(GAP_PERIODS * self.channel.period, 0.1)
        first, last = bisect_right(self.times, start + EDGE), bisect_left(self.times, end - EDGE)
        tolerance_at_edges = EDGE if self.channel.kind == COUNTER else tolerance
        if self.times[0] - start > tolerance_at_edges or end - self.times[-1] > tolerance_at_edges:
            return self._why(start, end) or "the samples do not reach the edges of the window"
        if self.channel.kind == POWER:
            inside = [start, *self.times[first:last], end]
            widest = max(b - a for a, b in pairwise(inside))
            before, after = self.times[max(first - 1, 0)], self.times[min(last, len(self.times) - 1)]
            if len(inside) == 2:  # no sample inside: what counts is how far apart the neighbours are
                widest = max(after - before, widest)
            if widest > tolerance:
                return self._why(start, end) or f"no sample for {widest:.3g} s"
        elif max(self._bracket(start), self._bracket(end)) > max(tolerance, 0.5):
            return self._why(start, end) or "no sample near an edge of the window"
        return ""

    def _bracket(self, time: float) -> float:
        """Seconds between the samples around a time, 0 where there is one at it."""
        i = bisect_left(self.times, time - EDGE)
        if i == 0 or i == len(self.times) or self.times[i] <= time + EDGE:
            return 0.0
        return self.times[i] - self.times[i - 1]

    def _why(self, start: float, end: float) -> str:
        inside = [why for time, why, _ in self.faults if start - EDGE <= time <= end + EDGE]
        return inside[0] if inside else ""

    def dead_memory(self) -> bool:
        """Whether this is a dram counter that never moved: many desktop CPUs show one."""
        still = self.channel.scope == "dram" and self.channel.kind == COUNTER and len(self.times) > 1
        return still and self.values[0] == self.values[-1] and self.times[-1] - self.times[0] >= DEAD_SECONDS

    def at(self, time: float) -> float:
        """The value at a time, interpolated; the nearest one outside."""
        i = bisect_left(self.times, time - EDGE)
        if i == len(self.times):
            return self.values[-1]
        if i == 0 or self.times[i] <= time + EDGE:
            return self.values[i]
        t0, t1, v0, v1 = self.times[i - 1], self.times[i], self.values[i - 1], self.values[i]
        return v0 + (v1 - v0) * (time - t0) / (t1 - t0)

    def _counted(self, start: float, end: float) -> Energy:
        joules = self.at(end) - self.at(start)
        if self.channel.counted and joules <= 0:
            seconds = end - start
            short = seconds < STUCK_PERIODS * self.channel.period
            why = "the window is too short for it" if short else "it does not count here"
            return Energy(None, reason=f"the counter stood still for {seconds:.3g} s: {why}")
        watts = joules / (end - start) if end > start else 0.0
        return Energy(joules, self.channel.resolution + watts * self.channel.period)

    def _integral(self, start: float, end: float) -> Energy:
        first, last = bisect_right(self.times, start + EDGE), bisect_left(self.times, end - EDGE)
        times = [start, *self.times[first:last], end]
        watts = [self.at(start), *self.values[first:last], self.at(end)]
        joules = math.fsum((watts[i] + watts[i + 1]) / 2 * (times[i + 1] - times[i]) for i in range(len(times) - 1))
        # What the meter shows lags by up to a period: at the edges the power may still be, or already be, another one.
        swing = max(watts) - min(watts)
        gaps = math.fsum(b - a for a, b in pairwise(times) if b - a > 3 * self.channel.period)
        steps = math.sqrt(len(times)) * self.channel.resolution * (end - start) / max(len(times) - 1, 1)
        return Energy(joules, max(swing, max(watts) * 0.01) * (self.channel.period + gaps / 2) + steps)

    def _sum(self, start: float, end: float) -> Energy:
        first, last = bisect_left(self.times, start), bisect_left(self.times, end)
        if not self.values or start < self.times[0] - self.channel.period or end > self.times[-1] + 2 * self.channel.period:
            return Energy(None, reason="the trace does not reach the edges of the window")
        reason = self._why(start, end)
        if reason:
            return Energy(None, reason=reason)
        joules = math.fsum(self.values[first:last])
        watts = joules / (end - start) if end > start else 0.0
        return Energy(joules, watts * self.channel.period)


@dataclass
class Recording:
    """All channels of a meter over a run; source: the meter's name; reason: why there is no channel."""

    source: str
    series: list[Series]
    reason: str = ""

    @classmethod
    def of(cls, source: str, channels: Sequence[Channel]) -> Recording:
        """An empty one."""
        return cls(source, [Series(c) for c in channels])

    def add(self, samples: Sequence[Sample]) -> None:
        """Take what a poll gave."""
        for sample in samples:
            self.series[sample.channel].add(sample)

    def between(self, start: float, end: float) -> Recording:
        """A copy that holds what the energies inside [start, end] need: the samples there and one at either side."""
        cut = []
        for s in self.series:
            first = max(bisect_right(s.times, start) - 1, 0)
            last = bisect_left(s.times, end) + 1
            faults = [f for f in s.faults if start <= f[0] <= end or not s.times]
            cut.append(Series(s.channel, s.times[first:last], s.values[first:last], faults))
        return Recording(self.source, cut, self.reason)

    @property
    def counted(self) -> list[Series]:
        """The channels whose sum is the total; without a memory that the machine lists and does not count."""
        return [s for s in self.series if s.channel.counted and not s.dead_memory()]

    def total(self, start: float, end: float) -> Energy:
        """Joules of the counted channels; edges of channels are independent."""
        parts = [(s.channel.name, s.energy(start, end)) for s in self.counted]
        if not parts:
            several = "the meter has several channels and none that holds the others: name those to add up"
            return Energy(None, reason=self.reason or several)
        for name, part in parts:
            if part.joules is None:
                return Energy(None, reason=f"{name}: {part.reason}")
        joules = math.fsum(p.joules or 0.0 for _, p in parts)
        return Energy(joules, math.sqrt(math.fsum(p.edge**2 for _, p in parts)))

    def evidence(self) -> Evidence:
        """The class of the total."""
        return worst([s.channel.evidence for s in self.counted] or [Evidence.X])

    def label(self) -> str:
        """ "powercap: cpu_package + dram": what a total includes."""
        scopes = dict.fromkeys(s.channel.scope for s in self.counted)
        return f"{self.source}: {' + '.join(scopes)}" if scopes else self.source

    def gain(self) -> float:
        """Half-width, as a share, of the gain of the total: channels of one meter may be off together, so the largest."""
        return max((s.channel.relative for s in self.counted), default=0.0)

    def figure(self, start: float, end: float) -> Figure:
        """The total of one window with its type B interval: there is one window, hence no type A."""
        energy = self.total(start, end)
        if energy.joules is None:
            return Figure.unavailable(self.label(), energy.reason)
        parts = [
            Component.rectangular("gain", self.gain() * energy.joules),
            Component.triangular("edges", energy.edge),
        ]
        return Figure(energy.joules, interval(energy.joules, parts), self.evidence(), self.label())


def interval(joules: float, parts: Sequence[Component]) -> tuple[float, float]:
    """95 % interval of an energy; energies are not below 0."""
    low, high = expand(joules, parts)
    return (max(low, 0.0), high) if joules >= 0 else (low, high)


def share(parts: Sequence[Component], value: float) -> float:
    """Combined standard uncertainty as a share of a value."""
    return combine(parts)[0] / abs(value) if value else math.inf


class NoRecorder:
    """Stands where a meter would be: marks have times, figures are of class X with the reason."""

    def __init__(self, reason: str, clock: Callable[[], float]) -> None:
        self.recording = Recording("none", [], reason)
        self._clock = clock

    def mark(self) -> float:
        """Now."""
        return self._clock()

    def settle(self, end: float) -> None:
        """There is nothing to wait for."""


class Recorder:
    """Polls a meter in a thread while it is entered.  Raises MeterError when the meter cannot be opened.

    mark() reads the meter now: a window that begins and ends at marks has exact edges.
    """

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.recording = Recording.of(meter.name, [])
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Recorder:
        self.meter.open()
        self.recording = Recording.of(self.meter.name, self.meter.channels)
        period = self.meter.poll_seconds
        self._thread = threading.Thread(target=self._run, args=(period,), name="frugal-meter", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.meter.close()

    def _run(self, period: float) -> None:
        while not self._stop.wait(period):
            self.mark()

    def now(self) -> float:
        """The meter's clock."""
        return self.meter.clock()

    def mark(self) -> float:
        """Poll now; the time of the samples of a meter that is asked, or of the call for one that streams."""
        with self._lock:
            now = self.meter.clock()
            try:
                samples = self.meter.poll()
            except MeterError as e:
                samples = [Sample(i, now, math.nan, str(e)) for i in range(len(self.meter.channels))]
            self.recording.add(samples)
            return max((s.time for s in samples), default=now) if samples and not self.streams else now

    @property
    def streams(self) -> bool:
        """Whether samples come with times of their own."""
        return self.meter.streams

    def settle(self, end: float) -> None:
        """Wait until a streaming meter's samples have passed `end`, at most two seconds."""
        if self.streams:
            deadline = self.now() + 2
            while self.now() < deadline and any(not s.times or s.times[-1] < end for s in self.recording.series):
                self._stop.wait(0.01)
                self.mark()
