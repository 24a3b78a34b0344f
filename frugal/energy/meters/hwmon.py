"""Sensors of the kernel's hwmon class: INA2xx and INA3221 shunt monitors, power supplies, CPUs that publish energy or power.

Of each chip: energyN_input (µJ), else powerN_input or powerN_average (µW), else currN_input (mA) times inN_input (mV).
Channels are added up only where that cannot count anything twice: a chip with one channel, one whose label says that it is
the input of the board, or those named with `hwmon:LABEL+LABEL`.

Class B.  Gain ± 2 %: an INA2xx (± 0.5 to 1 %, Texas Instruments SBOS547) and its 1 % shunt.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from ..evidence import Evidence
from .base import COUNTER, POWER, Channel, Meter, MeterError, Sample, read_number, read_text

RELATIVE = 0.02
BOARD_INPUTS = ("vdd_in", "vin", "vin_sys_5v0", "5v_in", "pom_5v_in", "input", "total", "main", "board")
# Chips whose power is not that of this computer's processor or board.
OTHERS = ("nvme", "amdgpu", "nouveau", "i915", "xe", "iwlwifi", "bat", "ucsi", "acpitz", "drivetemp")


@dataclass
class Sensor:
    """Files of one channel, and what their numbers are to be multiplied with."""

    chip: str
    label: str
    kind: str
    files: tuple[Path, ...]
    factor: float
    period: float

    def read(self) -> float:
        """Joules or watts.  Raises MeterError."""
        value = self.factor
        for file in self.files:
            value *= read_number(file)
        return value


class Hwmon(Meter):
    """root: the sysfs to read; chosen: labels ("vdd_in") or chip/label to add up."""

    name = "hwmon"
    title = "board sensors (hwmon)"
    poll_seconds = 0.02

    def __init__(
        self,
        root: str | os.PathLike[str] = "/sys",
        clock: Callable[[], float] = monotonic,
        chosen: Sequence[str] = (),
    ) -> None:
        super().__init__(clock)
        self.root, self.chosen = Path(root), [c.lower() for c in chosen]
        self.sensors: list[Sensor] = []
        self.last: dict[int, float] = {}

    def open(self) -> None:
        folder = self.root / "class" / "hwmon"
        if not folder.is_dir():
            raise MeterError(f"{folder}: no such folder: there are no sensors here")
        chips = sorted((p for p in folder.iterdir() if (p / "name").exists()), key=lambda p: _natural(p.name))
        self.take([s for chip in chips for s in sensors(chip)], f"{folder}: no chip measures power or energy")

    def take(self, found: list[Sensor], otherwise: str) -> None:
        """Make channels of these sensors; raises MeterError(otherwise) when there are none, or none can be read."""
        if not found:
            raise MeterError(otherwise)
        failures = []
        for sensor in found:
            try:
                sensor.read()
            except MeterError as e:
                failures.append(str(e))
        if len(failures) == len(found):
            raise MeterError(failures[0])
        self.sensors, self.last = found, {}
        counted = self._counted()
        self.channels = [
            Channel(
                f"{s.chip}/{s.label}",
                "board" if _is_input(s.label) else "rail",
                s.kind,
                Evidence.B,
                RELATIVE,
                s.factor if len(s.files) == 1 else s.factor * 5000,  # 1 mA at 5 V
                s.period,
                i in counted,
            )
            for i, s in enumerate(found)
        ]
        self.poll_seconds = min(max(min(s.period for s in found), 0.005), 0.5)

    def _counted(self) -> set[int]:
        """Which sensors add up to the total."""
        sensors = self.sensors
        if self.chosen:
            counted = {i for i, s in enumerate(sensors) if {s.label.lower(), f"{s.chip}/{s.label}".lower()} & set(self.chosen)}
            known = {n for i in counted for n in (sensors[i].label.lower(), f"{sensors[i].chip}/{sensors[i].label}".lower())}
            missing = [c for c in self.chosen if c not in known]
            if missing:
                names = ", ".join(f"{s.chip}/{s.label}" for s in sensors)
                raise MeterError(f"there is no sensor {missing[0]!r}; there are {names}")
            return counted
        inputs = [i for i, s in enumerate(sensors) if _is_input(s.label)]
        if inputs:
            return {inputs[0]}  # a second input of a board would be said with `chosen`
        return {0} if len(sensors) == 1 else set()

    def poll(self) -> list[Sample]:
        samples = []
        for index, sensor in enumerate(self.sensors):
            now = self.clock()
            try:
                value = sensor.read()
            except MeterError as e:
                samples.append(Sample(index, now, float("nan"), str(e)))
                continue
            last = self.last.get(index)
            self.last[index] = value
            back = sensor.kind == COUNTER and last is not None and value < last
            fault = f"{sensor.label}: the counter went back from {last:g} to {value:g} J" if back else ""
            samples.append(Sample(index, now, value, fault, back))
        return samples

    def about(self) -> dict[str, Any]:
        return {"sensors": [{"chip": s.chip, "label": s.label, "files": [f.name for f in s.files]} for s in self.sensors]}


def sensors(chip: Path) -> list[Sensor]:
    """The power and energy channels of one hwmon folder."""
    try:
        name = read_text(chip / "name")
    except MeterError:
        return []
    if any(name.lower().startswith(other) for other in OTHERS):
        return []
    period = _period(chip)
    found: dict[int, Sensor] = {}
    rates = (("energy", "input", COUNTER, 1e-6), ("power", "input", POWER, 1e-6), ("power", "average", POWER, 1e-6))
    for quantity, form, kind, factor in rates:
        for file in chip.glob(f"{quantity}*_{form}"):
            number = _number(file.name)
            if number is not None and number not in found:
                label = _label(chip, (f"{quantity}{number}", f"in{number}", f"curr{number}"))
                found[number] = Sensor(name, label or f"{quantity}{number}", kind, (file,), factor, period)
    for file in chip.glob("curr*_input"):
        number = _number(file.name)
        volts = chip / f"in{number}_input"
        if number is not None and number not in found and volts.exists():
            label = _label(chip, (f"in{number}", f"curr{number}"))
            found[number] = Sensor(name, label or f"in{number}", POWER, (file, volts), 1e-6, period)
    # An INA3221 adds a channel for the sum of its shunts; it has a current without a voltage and does not come here.
    return [found[n] for n in sorted(found)]


def _period(chip: Path) -> float:
    """update_interval (ms) where the driver has it; else 35 ms, above what INA2xx take with their default averaging."""
    try:
        return max(read_number(chip / "update_interval") / 1000, 0.001)
    except MeterError:
        return 0.035


def _label(chip: Path, names: Sequence[str]) -> str:
    for name in names:
        try:
            text = read_text(chip / f"{name}_label")
        except MeterError:
            continue
        if text:
            return text
    return ""


def _number(name: str) -> int | None:
    digits = re.match(r"[a-z]+(\d+)_", name)
    return int(digits[1]) if digits else None


def _natural(name: str) -> list[object]:
    return [int(part) if part.isdecimal() else 0 for part in re.split(r"(\d+)", name)]


def _is_input(label: str) -> bool:
    return label.lower() in BOARD_INPUTS
