"""What every meter offers: channels, and samples of them.  One file a meter, beside this one."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ..evidence import Evidence, MeterError

__all__ = ["COUNTER", "INCREMENT", "POWER", "Channel", "Meter", "MeterError", "Sample", "read_number", "read_text"]

COUNTER = "counter"  # joules since some moment; the value between two samples is interpolated
POWER = "power"  # watts; integrated by trapezoids
INCREMENT = "increment"  # joules of the interval that begins at the sample's time


@dataclass(frozen=True)
class Channel:
    """One quantity that a meter gives.

    scope      what the energy includes, such as "cpu_package", "dram", "board", "system", "rail"
    kind       COUNTER, POWER or INCREMENT
    relative   the meter's gain may be off by ± this share (rectangular); source of the number in `note`
    resolution one step of the value, joules or watts
    period     seconds between updates of the value
    counted    whether the total has it: not what lies inside another channel, nor a mirror of one
    """

    name: str
    scope: str
    kind: str
    evidence: Evidence
    relative: float
    resolution: float
    period: float
    counted: bool = True
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As the report keeps it."""
        return asdict(self) | {"evidence": str(self.evidence)}


class Sample(NamedTuple):
    """A channel's value at a time of the meter's clock.  fault: why there is no value (NaN); lost: what lay before is lost too,
    as when a counter was reset: no window may hold this moment."""

    channel: int
    time: float
    value: float
    fault: str = ""
    lost: bool = False


class Meter(ABC):
    """Opened once, then polled from one thread at a time.

    Everything that can be unreadable is a MeterError from `open`, or a sample with a fault: never a value of 0.
    """

    name: ClassVar[str]
    title: ClassVar[str]  # for people
    # Seconds between polls that the recorder keeps at least: a counter must not wrap twice unseen.
    poll_seconds: float = 0.1
    streams: ClassVar[bool] = False  # samples come with times of their own, some time after

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.channels: list[Channel] = []

    @abstractmethod
    def open(self) -> None:
        """Find the channels.  Raises MeterError with the reason."""

    @abstractmethod
    def poll(self) -> list[Sample]:
        """What is new: one sample a channel of a meter that is asked, any number of one that streams."""

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of files and ports; may be called twice."""

    def about(self) -> dict[str, Any]:
        """Facts for the report: device, firmware, settings."""
        return {}


def read_text(path: Path) -> str:
    """A small file of the system.  Raises MeterError that names it and says what to do about a missing permission."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except PermissionError as e:
        raise MeterError(f"{path}: permission denied; it needs root or a rule that lets this user read it") from e
    except OSError as e:
        raise MeterError(f"{path}: {e.strerror or e}") from e


def read_number(path: Path) -> float:
    """The number in such a file.  Raises MeterError."""
    text = ""
    for _ in range(20):  # a file that is being written, as in a container's imitation of sysfs, is empty for a moment
        text = read_text(path)
        try:
            return float(int(text))
        except ValueError:
            if text:
                break
            time.sleep(0.001)
    raise MeterError(f"{path}: not a number: {text[:40]!r}")
