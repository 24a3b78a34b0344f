"""How a model is measured, so that someone else would find the same: warm-up, idle baseline, windows, one interval at the end.

1. Warm-up: batches of runs until the times of the last five batches and of the five before differ in their medians by at
   most 2 %, or `warmup_seconds` have passed (then the report says that it was not steady).
2. A window is so long that its edges matter little: at least 200 update periods of the meter, at least 2000 of its energy
   steps, and `seconds`.  It holds a whole number of runs, the same for every window of a variant.
3. Idle windows (the process sleeps, the model is loaded) and run windows take turns, idle first and last.  The baseline
   of a run window is the mean power of its two idle neighbours, so that slow drift cancels.
4. Variants to be compared take turns inside a round, in an order that reverses each round.
5. Gross is what the meter showed.  Net is gross less baseline; it is refused where the baseline is not below the run: when the
   interval of their difference reaches 0.

This module only runs and marks; `analysis` turns the recording into figures, and does so again in a replay.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Protocol

from . import conditions
from .recording import Recording

WARMUP_GROUP = 5
WARMUP_CHANGE = 0.02
BATCH_SECONDS = 0.02
SETTLE_SECONDS = 0.05  # after a run before an idle window: clocks and caches come to rest
PERIODS = 200
STEPS = 2000


@dataclass(frozen=True)
class Settings:
    """windows: of each variant; seconds: the shortest window; idle: what the process does in the baseline, for the report."""

    windows: int = 10
    seconds: float = 1.0
    baseline: bool = True
    warmup_seconds: float = 20.0
    idle: str = "the process sleeps, the model is loaded, its threads wait"

    def to_dict(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


@dataclass
class Window:
    """kind: "baseline" or "run"; start, end: on the meter's clock; runs: inferences in it."""

    kind: str
    variant: str
    start: float
    end: float
    runs: int = 0
    conditions: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass
class Measured:
    """What a protocol leaves: everything that the figures are computed from."""

    recording: Recording | None
    windows: list[Window]
    settings: Settings
    warmup: dict[str, dict[str, Any]]
    reason: str = ""  # why there is no recording


class Marks(Protocol):
    """What the protocol needs of a recorder; a simulation has its own."""

    @property
    def recording(self) -> Recording: ...

    def mark(self) -> float: ...

    def settle(self, end: float) -> None: ...


Sleep = Callable[[float], None]
Clock = Callable[[], float]


def warm_up(
    run: Callable[[], Any], most_seconds: float, clock: Clock = time.monotonic, group: int = WARMUP_GROUP
) -> dict[str, Any]:
    """Run until steady; {"runs", "seconds", "steady", "seconds_per_run"}."""
    start = clock()
    run()
    once = max(clock() - start, 1e-9)
    batch = max(1, math.ceil(BATCH_SECONDS / once))
    times: list[float] = []
    runs, steady = 1, False
    while not steady and (len(times) < 2 * group or clock() - start < most_seconds):
        before = clock()
        for _ in range(batch):
            run()
        runs += batch
        times.append((clock() - before) / batch)
        if len(times) >= 2 * group:
            last, previous = median(times[-group:]), median(times[-2 * group : -group])
            steady = abs(last - previous) <= WARMUP_CHANGE * previous
    return {
        "runs": runs,
        "seconds": clock() - start,
        "steady": steady,
        "seconds_per_run": median(times[-group:]),
        "test": f"medians of the last {group} batches and of the {group} before differ by at most {WARMUP_CHANGE:.0%}",
    }


def window_seconds(recording: Recording, shortest: float, watts: float | None = None) -> float:
    """The length that the meter's rate and resolution ask for; watts: power of a run, when it is known."""
    seconds = shortest
    for series in recording.counted:
        channel = series.channel
        seconds = max(seconds, PERIODS * channel.period)
        if channel.kind == "counter" and watts:
            seconds = max(seconds, STEPS * channel.resolution / watts)
    return seconds


def measure(
    variants: Mapping[str, Callable[[], Any]],
    recorder: Marks,
    settings: Settings,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
    observe: Callable[[], dict[str, Any]] | None = conditions.state,
) -> Measured:
    """Run the protocol; the recorder is entered already.  observe: machine state around each window, or None."""
    warmup = {name: warm_up(run, settings.warmup_seconds, clock) for name, run in variants.items()}
    length = window_seconds(recorder.recording, settings.seconds, _power(recorder, next(iter(variants.values())), clock))
    runs = {name: max(1, math.ceil(length / warmup[name]["seconds_per_run"])) for name in variants}
    windows: list[Window] = []

    def idle() -> None:
        if settings.baseline:
            sleep(SETTLE_SECONDS)
            windows.append(_window("baseline", "", lambda: sleep(length), 0, recorder, observe))

    idle()
    for turn in range(settings.windows):
        names = list(variants)
        for name in names if turn % 2 == 0 else reversed(names):
            run, count = variants[name], runs[name]
            windows.append(_window("run", name, lambda run=run, count=count: _repeat(run, count), count, recorder, observe))  # type: ignore[misc]
        idle()
    recorder.settle(windows[-1].end)
    return Measured(recorder.recording, windows, settings, warmup)


def _power(recorder: Marks, run: Callable[[], Any], clock: Clock) -> float | None:
    """Watts of a short run, to choose the length of the windows; None when the meter is too slow to tell."""
    start = recorder.mark()
    end = clock() + 0.1
    while clock() < end:
        run()
    stop = recorder.mark()
    joules = recorder.recording.total(start, stop).joules
    return joules / (stop - start) if joules and stop > start else None


def _repeat(run: Callable[[], Any], count: int) -> None:
    for _ in range(count):
        run()


def _window(
    kind: str,
    variant: str,
    work: Callable[[], Any],
    runs: int,
    recorder: Marks,
    observe: Callable[[], dict[str, Any]] | None,
) -> Window:
    before = observe() if observe else None
    start = recorder.mark()
    work()
    end = recorder.mark()
    about = conditions.between(before, observe()) if observe and before else {}
    return Window(kind, variant, start, end, runs, about)
