"""Two threads when another process keeps one of two cores busy, and what an idle session costs after a run."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import minilm
import stats
from driver import Field, Worker, save_feeds, start

BUSY = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nprint(flush=True)\nwhile True: pass"


def busy_core(core: int) -> subprocess.Popen[bytes]:
    """A process that keeps one core busy; it has begun."""
    made = subprocess.Popen([sys.executable, "-c", BUSY, str(core)], stdout=subprocess.PIPE)
    assert made.stdout
    made.stdout.readline()
    return made


def slowdowns(field: Field, cores: list[int], rounds: int, repeat: int) -> dict[str, dict[str, Any]]:
    """Seconds a run with both cores free and with one busy, in turn; their ratio in each round."""
    for worker in field.workers.values():
        for task in Path(f"/proc/{worker.process.pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)
    times: dict[str, tuple[list[float], list[float]]] = {n: ([], []) for n in field.workers}
    for _ in range(rounds):
        for name, worker in field.workers.items():
            times[name][0].append(worker.seconds(repeat))
            other = busy_core(cores[1])
            try:
                times[name][1].append(worker.seconds(repeat))
            finally:
                other.kill()
                other.wait()
                if other.stdout:
                    other.stdout.close()
    return {
        n: {
            "free_ms": 1e3 * statistics.median(free),
            "busy_ms": 1e3 * statistics.median(busy),
            "slowdown": stats.spread([b / f for b, f in zip(busy, free, strict=True)]),
        }
        for n, (free, busy) in times.items()
    }


def idle(worker: Worker) -> dict[str, float]:
    """CPU that a worker uses in the 5 ms after an answer, in ms, and from then on for 0.2 s, in percent."""
    worker.ask("3", stay_awake=True)
    before = worker.cpu_ns()
    time.sleep(0.005)
    settled = worker.cpu_ns()
    time.sleep(0.2)
    used = worker.cpu_ns() - settled
    worker.ask("1")
    return {"first_5_ms": (settled - before) / 1e6, "percent": used / 0.2e9 * 100}


def measure(work: Path, rounds: int) -> dict[str, Any]:
    """MiniLM of 128 tokens, batch 1, 2 threads: engine -> slowdown, idle CPU.  A reason where there are not two cores."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) < 2:
        return {"reason": "needs two cores"}
    paths = minilm.prepare(work)
    saved = save_feeds(work / "minilm.npz", minilm.feeds_of(1, 128))
    with Field() as field:
        for form in ("int8", "int4"):
            field.add(f"frugal {form}", start, "frugal", paths[f"{form}.frugal"], saved, 2)
        field.add("onnxruntime int8", start, "onnxruntime", paths["onnxruntime int8"], saved, 2)
        field.add("openvino fp32", start, "openvino", paths["onnxruntime float, spelled out"], saved, 2)
        rows = slowdowns(field, cores[:2], rounds, 10)
        for name, worker in field.workers.items():
            found = [idle(worker) for _ in range(rounds)]
            rows[name]["idle"] = {k: statistics.median(f[k] for f in found) for k in found[0]}
            said = f"{name}: / {rows[name]['slowdown'][0]:.2f} with a busy core, idle {rows[name]['idle']['percent']:.2f} %"
            print(said, file=sys.stderr, flush=True)
        return {"engines": rows, "skipped": dict(field.skipped)}
