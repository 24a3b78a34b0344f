"""A laptop's battery while it discharges: power_now, or current_now times voltage_now, of /sys/class/power_supply.

The power of the whole computer, screen included, updated every few seconds.  While the charger is connected the battery says
nothing about the computer, so that is a fault.  Class B, gain ± 5 % (fuel gauges are specified at 1 to 5 %).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from ..evidence import Evidence
from .base import POWER, Channel, Meter, MeterError, Sample, read_number, read_text


class Battery(Meter):
    """root: the sysfs to read."""

    name = "battery"
    title = "battery"
    poll_seconds = 0.5

    def __init__(self, root: str | os.PathLike[str] = "/sys", clock: Callable[[], float] = monotonic) -> None:
        super().__init__(clock)
        self.root = Path(root)
        self.folders: list[Path] = []

    def open(self) -> None:
        folder = self.root / "class" / "power_supply"
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        self.folders = [p for p in found if _text(p / "type") == "Battery" and _text(p / "scope") != "Device"]
        if not self.folders:
            raise MeterError(f"{folder}: there is no battery")
        for path in self.folders:
            _watts(path)
        if all(_text(p / "status") == "Full" for p in self.folders):
            raise MeterError("the batteries are full and the charger is connected")
        self.channels = [Channel(p.name, "system", POWER, Evidence.B, 0.05, 0.001, 5.0) for p in self.folders]

    def poll(self) -> list[Sample]:
        samples = []
        for index, path in enumerate(self.folders):
            now = self.clock()
            try:
                samples.append(Sample(index, now, _watts(path)))
            except MeterError as e:
                samples.append(Sample(index, now, float("nan"), str(e)))
        return samples

    def about(self) -> dict[str, Any]:
        return {"batteries": [{"name": p.name, "model": _text(p / "model_name")} for p in self.folders]}


def _watts(path: Path) -> float:
    status = read_text(path / "status")
    if status not in ("Discharging", "Not charging", "Full"):
        raise MeterError(f"{path}: the battery is {status.lower()}: its power is not the computer's")
    if status != "Discharging":
        others = (p for p in path.parent.iterdir() if p != path and _text(p / "type") == "Battery")
        if any(_text(p / "status") == "Discharging" for p in others):
            return 0.0  # the computer runs on another one
        raise MeterError(f"{path}: the charger is connected ({status.lower()})")
    if (path / "power_now").exists():
        return abs(read_number(path / "power_now")) / 1e6  # some drivers give the discharge a sign
    return abs(read_number(path / "current_now")) * read_number(path / "voltage_now") / 1e12


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except MeterError:
        return ""
