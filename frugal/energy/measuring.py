"""`with frugal.energy.measure() as m:` around anything."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from ..errors import FrugalError
from .evidence import MEASURED, Figure, MeterError
from .meters import Meter, find
from .recording import Recorder

__all__ = ["BudgetExceeded", "Measurement", "measure"]


class BudgetExceeded(FrugalError):
    """More joules than allowed, or none that could be compared with the limit."""


class Measurement:
    """The joules of a block, when it is over.

    gross: Figure; net: Figure (class X unless a baseline was asked for); seconds.  Never raises because a meter is missing: the
    figures are then of class X with the reason.
    """

    def __init__(self, meter: str | Meter = "auto", baseline: float = 0.0) -> None:
        self.gross = Figure.unavailable("none", "the measurement is not over")
        self.net = self.gross
        self.seconds = 0.0
        self.channels: list[dict[str, Any]] = []
        self._spec, self._baseline = meter, baseline
        self._recorder: Recorder | None = None
        self._reason = ""
        self._idle: tuple[float, float] | None = None
        self._start = self._cpu = 0.0
        self._mark = 0.0

    def __enter__(self) -> Measurement:
        if self._spec == "model":
            self._cpu = time.process_time()
            self._start = time.perf_counter()
            return self
        try:
            meter = find(self._spec) if isinstance(self._spec, str) else self._spec
            recorder = Recorder(meter)
            recorder.__enter__()
            self._recorder = recorder
        except MeterError as e:
            self._reason = str(e)
        if self._recorder is not None:
            if self._baseline > 0:
                begin = self._recorder.mark()
                time.sleep(self._baseline)
                self._idle = (begin, self._recorder.mark())
            self._mark = self._recorder.mark()
        self._start = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.seconds = time.perf_counter() - self._start
        if self._spec == "model":
            self._estimate()
        elif self._recorder is None:
            self.gross = Figure.unavailable(str(self._spec), self._reason)
            self.net = self.gross
        else:
            end = self._recorder.mark()
            self._recorder.settle(end)
            self._recorder.__exit__(kind, error, trace)
            self._take(self._recorder, end)

    def _take(self, recorder: Recorder, end: float) -> None:
        recording = recorder.recording
        self.gross = recording.figure(self._mark, end)
        source = f"{self.gross.source}, less the idle baseline"
        self.channels = [
            {"name": s.channel.name, "scope": s.channel.scope, "joules": s.energy(self._mark, end).joules}
            for s in recording.series
        ]
        if self._idle is None:
            self.net = Figure.unavailable(source, "no idle baseline was asked for: measure(baseline=SECONDS)")
            return
        from .analysis import analyse
        from .protocol import Window

        windows = [Window("baseline", "", *self._idle), Window("run", "run", self._mark, end, 1)]
        net = analyse(recording, windows)["variants"]["run"]["net"]
        if net["joules"] is None:
            self.net = Figure.unavailable(source, net["reason"])
        else:
            low, high = net["interval"]
            self.net = Figure(net["joules"], (low, high), self.gross.evidence, source, net["reason"])

    def _estimate(self) -> None:
        from .estimate import estimate_process

        self.gross = estimate_process(self.seconds, time.process_time() - self._cpu)
        self.net = Figure.unavailable(self.gross.source, "an estimate of this kind has no baseline")

    def check(self, max_joules: float) -> None:
        """Raise BudgetExceeded when the gross joules are above the limit, or not of class A, B or C: no gate passes
        on a guess."""
        check_budget(self.gross, max_joules)

    def to_dict(self) -> dict[str, Any]:
        """gross_joules, net_joules, interval (of gross), evidence_class, source, seconds, reason, net_interval,
        net_reason, channels."""
        return {
            "gross_joules": self.gross.joules,
            "net_joules": self.net.joules,
            "interval": None if self.gross.interval is None else list(self.gross.interval),
            "evidence_class": str(self.gross.evidence),
            "source": self.gross.source,
            "seconds": self.seconds,
            "reason": self.gross.reason,
            "net_interval": None if self.net.interval is None else list(self.net.interval),
            "net_reason": self.net.reason,
            "channels": self.channels,
        }


def measure(meter: str | Meter = "auto", baseline: float = 0.0) -> Measurement:
    """Measure the energy of a block of code.

        with frugal.energy.measure() as m:
            work()
        print(m.gross)

    meter: "auto" (a counter of this machine), a specification such as "powercap" or "hwmon:VDD_IN", an open Meter of your own, or
    "model" (an estimate of class D; never used unless asked for).  baseline: seconds of idling to measure first, for net.
    """
    return Measurement(meter, baseline)


def check_budget(figure: Figure, max_joules: float, names: Sequence[str] = ()) -> None:
    """Raise BudgetExceeded unless the figure is measured (A, B, C) and at most max_joules."""
    what = f"{' '.join(names)}: " if names else ""
    if figure.evidence not in MEASURED or figure.joules is None:
        raise BudgetExceeded(f"{what}a limit of {max_joules} J needs a figure of class A, B or C; this one is {figure}")
    if figure.joules > max_joules:
        raise BudgetExceeded(f"{what}{figure} is above the limit of {max_joules} J")
