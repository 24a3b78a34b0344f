"""SmolLM2-135M-Instruct, Q4_1: tokens a second of frugal, llama.cpp and ik_llama.cpp, beside what memory and arithmetic allow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import stats
from driver import Field, start
from frugal.quantize import export

from models import fetch

MULTIPLY_ADDS = 106_200_000  # of a token in the layers
WORKS = {  # name: (options of the worker, tokens)
    "decode, depth 0": ({"text": "decode", "depth": 0}, 32),
    "decode, depth 512": ({"text": "decode", "depth": 512}, 32),
    "prefill 512": ({"text": "prefill"}, 512),
}


def limit(work: str, threads: int, limits: dict[str, Any], isa: str, file_bytes: int) -> float:
    """Tokens a second that the machine allows: the file read once a token, or the multiply-adds of a token at the int8 peak."""
    if work.startswith("decode"):
        return float(limits["read_gbps"][threads > 1]) * 1e9 / file_bytes
    peak = limits["isa"].get(isa, {}).get("int8_gops", [0, 0])[threads > 1]
    return float(peak) * 1e9 / (2 * MULTIPLY_ADDS)


def measure(work: Path, rounds: int, limits: dict[str, Any], isa: str) -> dict[str, Any]:
    """Work and threads -> tokens a second of every engine, and the limit."""
    model = next(fetch("smollm2").rglob("*.gguf"))
    folder = work / "smollm2"
    if not (folder / "model.onnx").exists():
        export(model, folder)
    report: dict[str, Any] = {"works": {}, "skipped": {}}
    for threads in (1, 2):
        for name, (options, tokens) in WORKS.items():
            with Field() as field:
                field.add("frugal", start, "frugal", folder, None, threads, **options)
                for engine in ("llama.cpp", "ik_llama.cpp"):
                    field.add(engine, start, engine, model, None, threads, **options)
                times = field.race(rounds, "wall", fixed=tokens)
                report["skipped"] |= field.skipped
            rates = {n: stats.spread([1 / v for v in t]) for n, t in times.items()}
            most = limit(name, threads, limits, isa, model.stat().st_size)
            report["works"][f"{name}, {threads} thread{'s' * (threads > 1)}"] = {"tokens_per_second": rates, "limit": most}
            said = ", ".join(f"{n} {v[0]:.0f}" for n, v in rates.items())
            print(f"SmolLM2 {name}, {threads} thread(s), tokens/s: {said}; limit {most:.0f}", file=sys.stderr, flush=True)
    return report
