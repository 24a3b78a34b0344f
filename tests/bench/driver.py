"""Workers, one process each, that take turns: while one runs the others are stopped, spinning threads included."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import peers

HERE = Path(__file__).resolve().parent
Feeds = dict[str, np.ndarray]


class Unusable(Exception):
    """An engine that cannot run this here; says why."""


@dataclass
class Worker:
    """A started worker; between turns it is stopped."""

    command: list[str]
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        env = {**os.environ, "OMP_WAIT_POLICY": "passive", **self.env}
        log = subprocess.DEVNULL if not os.environ.get("BENCH_VERBOSE") else None
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=env, start_new_session=True
        )
        try:
            self._read()
        except Unusable:
            self.close()
            raise
        self._stop()

    def _stop(self) -> None:
        """Stopped when this returns, or ended."""
        self._signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise Unusable(f"its process ended with {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Unusable(answer["error"].splitlines()[0][:200])
        return answer

    def ask(self, line: str, stay_awake: bool = False) -> dict[str, Any]:
        """One turn."""
        self._signal(signal.SIGCONT)
        assert self.process.stdin
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as e:
            raise Unusable("its process has ended") from e
        answer = self._read()
        if not stay_awake:
            self._stop()
        return answer

    def seconds(self, repeat: int, clock: Literal["wall", "cpu"] = "wall") -> float:
        """Of one run, the mean of `repeat`."""
        return float(self.ask(str(repeat))[clock]) / repeat

    def outputs(self, path: Path) -> list[np.ndarray]:
        """Of one more run, in order; not for plan_loop."""
        self.ask(f"save {path}")
        with np.load(path) as file:
            return [file[k] for k in file.files]

    def peak_rss(self) -> int:
        """Bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii", errors="replace")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    def cpu_ns(self) -> int:
        """Nanoseconds that all threads of it have run."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks)

    def close(self) -> None:
        if self.process.poll() is None:
            self._signal(signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


def start(engine: str, model: Path, feeds: Path | None = None, threads: int = 1, isa: str = "", **more: Any) -> Worker:
    """A worker of an engine by its name in worker.py.  Raises Unusable."""
    python = sys.executable if engine == "frugal" else peers.python_of(engine)
    if python is None:
        raise Unusable(peers.PEERS[engine].reason)
    spec = {"engine": engine, "model": str(model), "feeds": str(feeds) if feeds else None, "threads": threads, **more}
    env = {"OMP_NUM_THREADS": str(threads)} | ({"FRUGAL_ISA": isa} if isa else {})
    return Worker([python, str(HERE / "worker.py"), json.dumps(spec)], env)


def start_loop(plan: Path, feeds: Feeds, work: Path, threads: int = 1, isa: str = "") -> Worker:
    """plan_loop, the C executor without Python, on a plan; feeds in the order of the plan's inputs."""
    program = build_dir() / "plan_loop"
    if not program.exists():
        raise Unusable(f"{program} is not built")
    raw = work / f"{plan.stem}.inputs"
    raw.write_bytes(b"".join(np.ascontiguousarray(v).tobytes() for v in feeds.values()))
    dims = ",".join(str(d) for v in feeds.values() for d in v.shape)
    return Worker([str(program), str(plan), str(threads), dims, str(raw)], {"FRUGAL_ISA": isa} if isa else {})


def build_dir() -> Path:
    """Where the C programs are: $BENCH_BUILD or build/release."""
    return Path(os.environ.get("BENCH_BUILD") or peers.ROOT / "build" / "release")


def save_feeds(path: Path, feeds: Feeds) -> Path:
    np.savez(path, **feeds)
    return path


@dataclass
class Field:
    """Engines that race on one work; those that cannot are in `skipped` with the reason."""

    workers: dict[str, Worker] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, make: Any, *arguments: Any, **options: Any) -> None:
        """make(*arguments, **options) gives a Worker or raises Unusable."""
        try:
            self.workers[name] = make(*arguments, **options)
        except Unusable as e:
            self.skipped[name] = str(e)
            print(f"  {name}: {e}", file=sys.stderr)

    def race(self, rounds: int, clock: Literal["wall", "cpu"], turn: float = 0.03, fixed: int = 0) -> dict[str, list[float]]:
        """Seconds a run of every engine in every round; a turn is about `turn` seconds or `fixed` runs long."""
        repeat = {}
        for name, worker in list(self.workers.items()):
            try:
                repeat[name] = fixed or max(1, int(turn / max(worker.seconds(1), 1e-6)))
                worker.seconds(repeat[name])
            except Unusable as e:
                self.skipped[name] = str(e)
                self.workers.pop(name).close()
        times: dict[str, list[float]] = {name: [] for name in self.workers}
        for _ in range(rounds):
            for name, worker in self.workers.items():
                times[name].append(worker.seconds(repeat[name], clock))
        return times

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()

    def __enter__(self) -> Field:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def clock_of(threads: int) -> Literal["wall", "cpu"]:
    """One thread: CPU time of the process, so that what else runs on the machine does not count; more: wall time."""
    return "cpu" if threads == 1 else "wall"


def run_json(command: Sequence[str], env: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """The JSON objects, one a line, that a program prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **(env or {})})
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def have(program: str) -> bool:
    return shutil.which(program) is not None
