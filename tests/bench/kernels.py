"""Kernels beside what the machine can do (bench_kernels.c), and instructions of the hot ones (callgrind)."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import small
import stats
from driver import build_dir, have, run_json


def measure(rounds: int) -> list[dict[str, Any]]:
    """Work, weights, rows, isa, threads; spreads of rate, share of the peak, share of the stream bandwidth, cycles a block."""
    return [row_of(o) for o in run_json([str(build_dir() / "bench_kernels"), str(rounds)])]


def row_of(raw: dict[str, Any]) -> dict[str, Any]:
    """Statistics of one line of bench_kernels."""
    row = {k: raw[k] for k in ("work", "weights", "rows", "isa", "threads", "bytes", "operations")}
    rates = raw["gops"]
    shares = [a / b for a, b in zip(rates, raw["peak_gops"], strict=True) if b > 0]
    row |= {"gops": stats.spread(rates), "best_gops": max(rates)}
    if shares:  # of the best rounds: both at their best, since either may have been disturbed
        row |= {"peak_share": stats.spread(shares), "best_peak_share": max(rates) / max(raw["peak_gops"])}
        row["peak_gops"] = stats.spread(raw["peak_gops"])
    if row["rows"] == 1:
        read = [g / raw["operations"] * raw["bytes"] for g in rates]
        row |= {"gbps": stats.spread(read), "read_gbps": stats.spread(raw["read_gbps"])}
        row["read_share"] = stats.spread([a / b for a, b in zip(read, raw["read_gbps"], strict=True)])
        row["best_read_share"] = max(read) / max(raw["read_gbps"])
        if row["threads"] == 1:
            blocks = raw["operations"] / 2 / (8 * 32)
            cycles = [raw["operations"] / g * z / blocks for g, z in zip(rates, raw["ghz"], strict=True)]
            row["cycles_a_block"] = stats.spread(cycles)
    return row


def totals(pattern: Path) -> list[int]:
    """Of callgrind's dumps pattern.1, pattern.2, ..."""
    found = []
    while (dump := pattern.with_name(f"{pattern.name}.{len(found) + 1}")).exists():
        match = re.search(r"^totals: (\d+)", dump.read_text(encoding="utf-8"), re.MULTILINE)
        found.append(int(match[1]) if match else 0)
    return found


def callgrind(command: list[str], typed: str = "") -> tuple[list[int], str]:
    """Instructions of every call of the function `counted`, and what the program printed."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind"
        tool = ["valgrind", "-q", "--tool=callgrind", "--toggle-collect=counted", "--dump-after=counted"]
        done = subprocess.run(
            [*tool, f"--callgrind-out-file={out}", *command], input=typed, capture_output=True, text=True, check=True
        )
        return totals(out), done.stdout


def compiler() -> str:
    """What built the C programs, as CMake found it."""
    for file in build_dir().glob("CMakeFiles/*/CMakeCCompiler.cmake"):
        text = file.read_text(encoding="utf-8")
        names = re.search(r'set\(CMAKE_C_COMPILER_ID "(.*)"\)', text), re.search(r'set\(CMAKE_C_COMPILER_VERSION "(.*)"\)', text)
        if all(names):
            return " ".join(m[1] for m in names if m)
    return "unknown"


def counts(work: Path) -> dict[str, Any]:
    """Instructions by kernel and small network: {"compiler", "isa", "counts": {name: [instructions, multiply-adds or elements]}}.

    valgrind shows programs a CPU with AVX2 and nothing beyond, so these are AVX2's.  A reason instead, where it is not installed.
    """
    if not have("valgrind"):
        return {"reason": "valgrind is not installed"}
    found, printed = callgrind([str(build_dir() / "bench_kernels"), "count"])
    *lines, last = printed.strip().splitlines()
    if len(found) != len(lines):
        return {"reason": f"callgrind made {len(found)} dumps of {len(lines)} kernels"}
    result = {name: [n, int(units)] for n, (name, units) in zip(found, (line.rsplit(": ", 1) for line in lines), strict=True)}
    for name, (shape, files) in small.NETS.items():
        for form, file in files.items():
            _, plan, feeds = small.prepare(file, shape, form, work)
            raw = work / f"{file}.inputs"
            raw.write_bytes(b"".join(v.tobytes() for v in feeds.values()))
            dims = ",".join(str(d) for d in shape)
            runs, _ = callgrind([str(build_dir() / "plan_loop"), str(plan), "1", dims, str(raw)], "1\n")
            result[f"{name} {form}, one image"] = [runs[-1], small.MULTIPLY_ADDS[name]]
    return {"compiler": compiler(), "isa": last.removeprefix("isa "), "counts": result}


def regressions(now: dict[str, Any], before: dict[str, Any], tolerance: float) -> list[str]:
    """What takes more than `tolerance` more instructions than before, or is gone; a sentence each."""
    worse = []
    for name, (old, _) in before["counts"].items():
        if name not in now["counts"]:
            worse.append(f"{name}: not measured any more")
            continue
        new = now["counts"][name][0]
        if new > old * (1 + tolerance):
            worse.append(f"{name}: {new} instructions, {old} before ({new / old - 1:+.1%})")
    return worse
