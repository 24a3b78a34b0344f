"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

import peers
from driver import build_dir, run_json

import frugal


def cpu_model() -> str:
    """The CPU's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model", "CPU part"))]
    return names[0] if names else platform.processor()


def cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def about() -> dict[str, Any]:
    """Date, CPU, versions."""
    return {
        "date": date.today().isoformat(),
        "cpu": cpu_model(),
        "cpus": cpus(),
        "isa": frugal.isa(),
        "frugal": frugal.__version__,
        "python": platform.python_version(),
        "peers": {name: peer.version for name, peer in peers.PEERS.items()},
        "load": os.getloadavg()[0],
    }


def limits(rounds: int) -> dict[str, Any]:
    """Peaks and bandwidth: what kernels/bench/peaks.c prints."""
    return run_json([str(build_dir() / "peaks"), str(rounds)])[0]
