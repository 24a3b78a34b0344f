"""`frugal energy calibrate`: known work on this machine, its measured energy, and the prices that explain it."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..bindings import library
from ..errors import FrugalError
from .analysis import analyse
from .estimate import FEATURES, Model, calibration_file, fit, leave_one_out
from .evidence import Evidence
from .meters import Meter, find
from .protocol import Settings, measure
from .recording import Recorder

SMALL, LARGE = 256 << 10, 64 << 20  # bytes that caches hold, and that they do not

Workload = tuple[Callable[[], Any], dict[str, float]]  # what to run, and its work but for the seconds


def workloads(threads: int) -> dict[str, Workload]:
    """Peaks of integer and float arithmetic, reading from caches and from memory, sleeping; on one thread and on all."""
    found: dict[str, Workload] = {"sleep": (_sleep, {})}
    for n in dict.fromkeys((1, threads)):
        exercise = library.Exercise(n)
        suffix = f" x{n}"
        for name, feature in (("int8", "int8_operations"), ("float", "float_operations")):
            amount = exercise.amount(name)
            if amount:
                found[name + suffix] = (lambda e=exercise, w=name: e.run(w), {feature: amount})  # type: ignore[misc]
        for name, size, feature in (("cache", SMALL, "cache_bytes"), ("memory", LARGE, "memory_bytes")):
            buffer = mmap.mmap(-1, size)
            buffer[:] = b"\1" * size
            repeat = LARGE // size
            amount = exercise.amount("read", size) * repeat
            found[name + suffix] = (lambda e=exercise, b=buffer, r=repeat: _read(e, b, r), {feature: amount})  # type: ignore[misc]
    return found


def _sleep() -> None:
    import time

    time.sleep(0.05)


def _read(exercise: library.Exercise, buffer: mmap.mmap, repeat: int) -> None:
    for _ in range(repeat):
        exercise.run("read", buffer)


def calibrate(
    meter: str | Meter,
    windows: int,
    seconds: float,
    out: str | os.PathLike[str] | None,
    cpu: str,
    work: dict[str, Workload] | None = None,
) -> dict[str, Any]:
    """Measure the workloads, fit the prices, write the file; returns its content.  Raises MeterError without a meter."""
    found = find(meter) if isinstance(meter, str) else meter
    chosen = work or workloads(library.cpu_count())
    with Recorder(found) as recorder:
        measured = measure({n: run for n, (run, _) in chosen.items()}, recorder, Settings(windows, seconds, False, 3.0))
    variants = analyse(recorder.recording, measured.windows)["variants"]
    bad = [f"{n}: {v['gross']['reason']}" for n, v in variants.items() if v["gross"]["joules"] is None]
    if bad:
        raise FrugalError(f"the meter gave no energy for {bad[0]}")
    names = list(variants)
    rows = [chosen[n][1] | {"seconds": variants[n]["seconds_per_run"]} for n in names]
    joules = [variants[n]["gross"]["joules"] for n in names]
    prices = fit(rows, joules)
    label = variants[names[0]]["gross"]["source"]
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    errors = leave_one_out(rows, joules, names)
    model = Model(prices, Evidence.C, f"model (calibrated {when} with {label})", cpu, errors)
    file = Path(out) if out else calibration_file()
    about = model.to_dict() | {
        "features": list(FEATURES),
        "workloads": {n: {"work": w, "joules": j} for n, w, j in zip(names, rows, joules, strict=True)},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(about, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return about | {"file": str(file)}
