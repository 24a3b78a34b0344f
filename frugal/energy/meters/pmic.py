"""Raspberry Pi 5: currents and voltages of the power-management chip, through `vcgencmd pmic_read_adc`.

The sum of the rails' products is the power behind the board's converters: without their loss, USB devices and what the 5 V
input feeds directly.  Class B, gain ± 5 %: no specification is published; the ADC has 10 bits and rails compare with each
other within that.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from ..evidence import Evidence
from .base import POWER, Channel, Meter, MeterError, Sample

LINE = re.compile(r"(\w+)_([AV])\s+(?:current|volt)\(\d+\)=([-+0-9.eE]+)([AV])")


class Pmic(Meter):
    """command: what prints the lines; tests put a script of theirs."""

    name = "pmic"
    title = "Raspberry Pi 5 PMIC"
    poll_seconds = 0.1

    def __init__(
        self,
        command: Sequence[str] = ("vcgencmd", "pmic_read_adc"),
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__(clock)
        self.command = list(command)
        self.rails: list[str] = []

    def open(self) -> None:
        rails = self._read()
        if not rails:
            raise MeterError(f"{self.command[0]}: no rail has a current and a voltage: this is not a Raspberry Pi 5")
        self.rails = list(rails)
        self.channels = [Channel(rail, "rail", POWER, Evidence.B, 0.05, 0.001, 0.1) for rail in self.rails]

    def _read(self) -> dict[str, float]:
        """Rail -> watts.  Raises MeterError."""
        try:
            done = subprocess.run(self.command, capture_output=True, text=True, timeout=2, check=False)
        except FileNotFoundError as e:
            raise MeterError(f"{self.command[0]}: no such command: this is not a Raspberry Pi") from e
        except (OSError, subprocess.TimeoutExpired) as e:
            raise MeterError(f"{self.command[0]}: {e}") from e
        if done.returncode:
            raise MeterError(f"{self.command[0]}: {(done.stderr or done.stdout).strip() or f'exit code {done.returncode}'}")
        values: dict[tuple[str, str], float] = {}
        for rail, quantity, number, unit in LINE.findall(done.stdout):
            try:
                if quantity == unit:
                    values[rail, quantity] = float(number)
            except ValueError:
                continue
        rails = dict.fromkeys(rail for rail, _ in values)
        return {r: values[r, "A"] * values[r, "V"] for r in rails if (r, "A") in values and (r, "V") in values}

    def poll(self) -> list[Sample]:
        before = self.clock()
        try:
            rails, fault = self._read(), ""
        except MeterError as e:
            rails, fault = {}, str(e)
        now = (before + self.clock()) / 2  # the command takes some milliseconds
        faults = [("" if rail in rails else fault or f"{rail}: not given") for rail in self.rails]
        return [Sample(i, now, rails.get(rail, float("nan")), faults[i]) for i, rail in enumerate(self.rails)]

    def about(self) -> dict[str, Any]:
        return {"command": self.command[-2:]}
