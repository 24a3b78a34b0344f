"""Where a figure comes from: the evidence classes, and Figure, joules that never go without theirs.

A  an external meter                  D  a model that was not calibrated (an interval of ×/÷ 3)
B  a counter or sensor on the board   E  a constant
C  a model calibrated on this board   X  unavailable: there is no figure, there is a reason
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ..errors import FrugalError

__all__ = ["MEASURED", "Evidence", "Figure", "MeterError"]


class MeterError(FrugalError):
    """A meter cannot be opened or read; the message is the reason that the figure's class X carries."""


class Evidence(StrEnum):
    """Ordered from the best; the sum of two figures has the worse of their classes."""

    A = "A"
    B = "B"
    C = "C"
    D = "D"
    E = "E"
    X = "X"

    @property
    def meaning(self) -> str:
        """What the letter says, for people."""
        return _MEANING[self]


_MEANING = {
    Evidence.A: "external meter",
    Evidence.B: "counter or sensor on the board",
    Evidence.C: "model calibrated on this machine",
    Evidence.D: "uncalibrated model",
    Evidence.E: "constant",
    Evidence.X: "unavailable",
}
MEASURED = frozenset((Evidence.A, Evidence.B, Evidence.C))  # good enough for a gate


@dataclass(frozen=True)
class Figure:
    """Joules, with what is needed to believe them.

    joules: None when and only when evidence is X, and then reason says why.  interval: 95 %, or None where none is known.
    source: the meter or model and what it includes, such as "powercap: cpu_package".
    """

    joules: float | None
    interval: tuple[float, float] | None
    evidence: Evidence
    source: str
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.joules is None) != (self.evidence is Evidence.X):
            raise ValueError(f"class {self.evidence} with joules {self.joules}: X has none, every other class has some")
        if self.evidence is Evidence.X and not self.reason:
            raise ValueError("a figure of class X needs a reason")
        if self.joules is not None and not math.isfinite(self.joules):
            raise ValueError(f"joules must be finite, got {self.joules}")

    @classmethod
    def unavailable(cls, source: str, reason: str) -> Figure:
        """Class X."""
        return cls(None, None, Evidence.X, source, reason)

    def scaled(self, factor: float) -> Figure:
        """For instance one inference of a window: everything times a factor above 0."""
        if self.joules is None:
            return self
        interval = None if self.interval is None else (self.interval[0] * factor, self.interval[1] * factor)
        return Figure(self.joules * factor, interval, self.evidence, self.source, self.reason)

    def to_dict(self) -> dict[str, Any]:
        """joules, interval, evidence_class, source, reason."""
        return {
            "joules": self.joules,
            "interval": None if self.interval is None else list(self.interval),
            "evidence_class": str(self.evidence),
            "source": self.source,
            "reason": self.reason,
        }

    def __str__(self) -> str:
        if self.joules is None:
            return f"X ({self.reason})"
        text = joules_text(self.joules)
        if self.interval is not None:
            text += f" [{joules_text(self.interval[0])}, {joules_text(self.interval[1])}]"
        return f"{text} (class {self.evidence}: {self.source})"


def worst(classes: Iterable[Evidence]) -> Evidence:
    """The class of a sum."""
    return max(classes, key=lambda c: "ABCDEX".index(c))


def joules_text(joules: float) -> str:
    """Four digits and a unit that fits: "12.34 mJ"."""
    size = abs(joules)
    for unit, factor in (("J", 1.0), ("mJ", 1e3), ("µJ", 1e6), ("nJ", 1e9)):
        if size * factor >= 1 or unit == "nJ" or size == 0:
            return f"{joules * factor:.4g} {unit}"
    raise AssertionError
