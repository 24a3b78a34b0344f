"""Linux powercap (RAPL of Intel and AMD): energy counters of packages, cores, memory and platform in /sys/class/powercap.

Zones form a tree: psys holds packages, a package holds core and uncore; dram stands beside the package although it is listed
below it.  The total is packages and memory, or psys where there is no package.  Counters wrap at max_energy_range_uj.

Class B.  Gain: ± 5 % for packages and platform, ± 20 % for dram (Hackenberg et al., HPPAC 2015; Desrochers et al., MEMSYS 2016);
± 15 % on AMD, whose counters come from a model of the chip (Schöne et al., CLUSTER 2021).  Updated every millisecond.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

from ..evidence import Evidence
from .base import COUNTER, Channel, Meter, MeterError, Sample, read_number, read_text

# No domain takes more than this; a counter that jumped further was reset, not wrapped.
LARGEST_WATTS = 20_000.0
SHORTEST_SECONDS = 0.05  # for that comparison: two polls may be close
MIRROR_JOULES = 0.1  # two reads of one counter differ by what it gained between them
RESOLUTION = 2.0**-14  # the coarsest energy unit in use, joules

SCOPES = {"psys": "platform", "core": "cpu_core", "uncore": "cpu_uncore", "dram": "dram"}


class _Zone:
    """One counter: its file, and the joules it has counted since it was first read, wraps included."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.label = read_text(path / "name")
        self.time = 0.0
        self.fault = ""  # why the first read failed
        self.raw: float | None = None
        try:
            self.raw = read_number(path / "energy_uj")
        except MeterError as e:
            self.fault = str(e)
        self.joules = (self.raw or 0.0) / 1e6
        self.range: float | None
        try:
            self.range = read_number(path / "max_energy_range_uj")
        except MeterError:
            self.range = None

    def read(self, now: float) -> float:
        """Joules, never going back.  Raises MeterError; ResetError when the counter cannot have come here by counting."""
        raw = read_number(self.path / "energy_uj")
        if self.raw is None:
            self.raw, self.joules, self.time = raw, raw / 1e6, now
            raise ResetError(self.fault)
        step = raw - self.raw
        if step < 0:
            step = self._wrapped(raw, step, now - self.time)
        self.raw, self.time = raw, now
        self.joules += step / 1e6
        return self.joules

    def _wrapped(self, raw: float, step: float, seconds: float) -> float:
        """The step of a counter that went back: through its range, or by a reset."""
        before, self.raw, self.time = self.raw or 0.0, raw, self.time + seconds  # whatever is raised, go on from here
        if self.range is None:
            raise ResetError(f"{self.path}: the counter went back from {before:.0f} to {raw:.0f} µJ and gives no range")
        step += self.range
        limit = LARGEST_WATTS * 1e6 * max(seconds, SHORTEST_SECONDS)
        if step < 0 or step > self.range / 2 or step > limit:
            raise ResetError(
                f"{self.path}: the counter went back from {before:.0f} to {raw:.0f} µJ, not by wrapping at its range"
            )
        return step


class ResetError(MeterError):
    """What was counted before is lost."""


class Powercap(Meter):
    """root: the sysfs to read, "/sys" but in tests."""

    name = "powercap"
    title = "RAPL counters (powercap)"

    def __init__(self, root: str | os.PathLike[str] = "/sys", clock: Callable[[], float] = monotonic) -> None:
        super().__init__(clock)
        self.root = Path(root)
        self.zones: list[_Zone] = []

    def open(self) -> None:
        folder = self.root / "class" / "powercap"
        if not folder.is_dir():
            raise MeterError(f"{folder}: no such folder: this kernel or virtual machine offers no RAPL counters")
        paths = sorted((p for p in folder.iterdir() if (p / "energy_uj").exists()), key=_order)
        if not paths:
            raise MeterError(f"{folder}: no zone has an energy counter")
        self.zones = [_Zone(path) for path in paths]
        totals = [z for z in self.zones if _scope(z) in ("cpu_package", "platform")]
        if not totals:
            raise MeterError(f"{folder}: neither a package nor the platform has an energy counter")
        if all(z.fault for z in totals):
            raise MeterError(totals[0].fault)
        now = self.clock()
        for zone in self.zones:
            zone.time = now
        self.channels = self._channels()
        ranges = [z.range / 1e6 for z in self.zones if z.range]
        # Two polls in the time in which the largest plausible power passes half a range.
        self.poll_seconds = max(0.001, min([0.1, *(r / 2 / LARGEST_WATTS for r in ranges)]))

    def _channels(self) -> list[Channel]:
        amd = "AuthenticAMD" in _cpuinfo()
        names = _unique([z.label for z in self.zones])
        channels = []
        for zone, name in zip(self.zones, names, strict=True):
            scope = _scope(zone)
            relative = 0.2 if scope == "dram" else 0.15 if amd else 0.05
            counted = scope in ("cpu_package", "dram")
            channels.append(Channel(name, scope, COUNTER, Evidence.B, relative, RESOLUTION, 0.001, counted))
        if not any(c.scope == "cpu_package" for c in channels):
            channels = [replace(c, counted=c.scope == "platform") for c in channels]
        for index, other in self._mirrors().items():
            note = f"shows the counter of {names[other]} again"
            channels[index] = replace(channels[index], counted=False, note=note)
        return channels

    def _mirrors(self) -> dict[int, int]:
        """Zone -> the earlier zone whose counter it shows: dies of one socket, or the same domain by another interface (MMIO).

        Two reads of the one bracket a read of the other only when both are the same counter, or by a chance of one in millions.
        """
        found: dict[int, int] = {}
        for i, zone in enumerate(self.zones):
            for j in range(i):
                first = self.zones[j]
                alike = _scope(first) == _scope(zone) and self._package(first) == self._package(zone)
                if j in found or not alike or first.fault or zone.fault:
                    continue
                other = _interface(first) != _interface(zone) and first.label == zone.label
                if other or self._same_counter(first, zone):
                    found[i] = j
                    break
        return found

    def _package(self, zone: _Zone) -> str:
        """ "package-0" for "package-0-die-1" and for what lies below it: counters of two sockets are never the same one."""
        top = ":".join(zone.path.name.split(":")[:2])
        label = next((z.label for z in self.zones if z.path.name == top), zone.label)
        return label.partition("-die-")[0]

    @staticmethod
    def _same_counter(first: _Zone, zone: _Zone) -> bool:
        for _ in range(2):
            before, value, after = (read_number(z.path / "energy_uj") / 1e6 for z in (first, zone, first))
            if value == 0 or not before - MIRROR_JOULES <= value <= after + MIRROR_JOULES:
                return False
        return True

    def poll(self) -> list[Sample]:
        samples = []
        now = self.clock()
        for index, zone in enumerate(self.zones):
            try:
                samples.append(Sample(index, now, zone.read(now)))
            except MeterError as e:
                lost = isinstance(e, ResetError)
                samples.append(Sample(index, now, float("nan"), str(e), lost))
                if lost:  # it counts on from here
                    samples.append(Sample(index, now, zone.joules))
        return samples

    def about(self) -> dict[str, Any]:
        return {"zones": [{"zone": z.path.name, "label": z.label, "max_energy_range_uj": z.range} for z in self.zones]}


def _order(path: Path) -> list[object]:
    """intel-rapl:10 after intel-rapl:9, and below its own parent."""
    interface, *numbers = path.name.split(":")
    return [len(interface), interface, *(int(n) if n.isdecimal() else -1 for n in numbers)]


def _interface(zone: _Zone) -> str:
    return zone.path.name.partition(":")[0]


def _scope(zone: _Zone) -> str:
    if zone.label.startswith("package"):
        return "cpu_package"
    return SCOPES.get(zone.label, zone.label)


def _unique(labels: list[str]) -> list[str]:
    """Labels that repeat (core of every package) get a number."""
    seen: dict[str, int] = {}
    names = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        names.append(label if labels.count(label) == 1 else f"{label} #{seen[label]}")
    return names


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
