"""Attention decoding over caches: what bench_attention.c prints, as rows."""

from __future__ import annotations

import re
import subprocess
from typing import Any

from driver import build_dir

PEAK = re.compile(r"^(\w+) +int8 peak (\d+) Gop/s", re.MULTILINE)
ROW = re.compile(
    r"^(?P<isa>\w+) +(?P<cache>\w+) +1 thread +(?P<best_1>[\d.]+) ms \(median +(?P<median_1>[\d.]+)\), +"
    r"2 threads +(?P<best_2>[\d.]+) ms \(median +(?P<median_2>[\d.]+)\), +(?P<cycles>[\d.]+) cycles",
    re.MULTILINE,
)


def rows_of(printed: str) -> list[dict[str, Any]]:
    """{"isa", "cache", "best_1", "median_1", "best_2", "median_2" (ms), "cycles", "peak_gops"} of each line."""
    peaks = {isa: float(value) for isa, value in PEAK.findall(printed)}
    rows = []
    for match in ROW.finditer(printed):
        row: dict[str, Any] = {k: v if k in ("isa", "cache") else float(v) for k, v in match.groupdict().items()}
        rows.append(row | {"peak_gops": peaks.get(row["isa"], 0.0)})
    return rows


def measure(rounds: int) -> dict[str, Any]:
    program = build_dir() / "bench_attention"
    if not program.exists():
        return {"reason": f"{program.name} is not built"}
    done = subprocess.run([str(program), str(rounds)], capture_output=True, text=True, check=True)
    return {"rows": rows_of(done.stdout)}
