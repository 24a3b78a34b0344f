"""What the project wants to reach, and what a report says was reached on the machine that it was made on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Report = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """must, aim: the smallest value (least=False) or the largest (least=True) that is wanted; unit is written behind."""

    work: str
    must: float
    aim: float
    find: Callable[[Report], Iterator[tuple[str, float]]]
    unit: str = "×"
    least: bool = False

    def reached(self, value: float) -> str:
        def within(limit: float) -> bool:
            return value <= limit if self.least else value >= limit

        return "aim" if within(self.aim) else "yes" if within(self.must) else "no"


def kernel(weights: str, rows: tuple[int, ...], key: str, threads: tuple[int, ...] = (1, 2), work: str = "") -> Any:
    """Rows of the kernel section: (what, value) of a key, in percent where it is a share."""

    def find(report: Report) -> Iterator[tuple[str, float]]:
        for row in report.get("kernels", []):
            if row["weights"] != weights or row["rows"] not in rows or row["threads"] not in threads or work not in row["work"]:
                continue
            if key == "cycles_a_block" and row["read_gbps"][0] <= 25:
                continue  # where memory is slower than that, the share of its bandwidth says it
            if key in row:
                value = row[key][0] if isinstance(row[key], list | tuple) else row[key]
                counts = ", ".join(f"{row[k]} {k[:-1]}{'s' * (row[k] > 1)}" for k in ("rows", "threads"))
                where = f"{row['isa']}, {counts}"
                yield where, value * 100 if "share" in key else value

    return find


def minilm(shape: str, engine: str, against: str = "int8") -> Any:
    def find(report: Report) -> Iterator[tuple[str, float]]:
        for work, row in report.get("minilm", {}).get("speed", {}).items():
            if work.startswith(shape):
                threads = work.rpartition(", ")[2]
                for name, result in row[against].items():
                    if name.partition(",")[0] == engine and "ratio" in result:
                        yield threads + name.removeprefix(engine), result["ratio"][0]

    return find


def small(net: str, form: str, against: str) -> Any:
    def find(report: Report) -> Iterator[tuple[str, float]]:
        for work, row in report.get("small", {}).items():
            if work == f"{net}, executor":
                for name, result in row[against].items():
                    if name.startswith(f"frugal {form}") and "ratio" in result:
                        yield name.partition(", ")[2] or "1 thread", result["ratio"][0]

    return find


def graphs(report: Report) -> Iterator[tuple[str, float]]:
    for name, row in report.get("graphs", {}).get("graphs", {}).items():
        if name.startswith(("PP-OCR", "Silero", "Magika", "Basic Pitch")) and "ratio" in row["compare"].get("frugal", {}):
            yield name, row["compare"]["frugal"]["ratio"][0]


def threads(key: str) -> Any:
    def find(report: Report) -> Iterator[tuple[str, float]]:
        for name, row in report.get("threads", {}).get("engines", {}).items():
            if name.startswith("frugal"):
                yield f"MiniLM {name.removeprefix('frugal ')}", row["slowdown"][0] if key == "slowdown" else row["idle"][key]

    return find


def attention(report: Report) -> Iterator[tuple[str, float]]:
    """Milliseconds of two threads, scaled to a core of 221 Gop/s by the int8 peak measured in the same run."""
    for row in report.get("attention", {}).get("rows", []):
        if row["cache"] == "int8" and row["peak_gops"] > 0:
            yield f"{row['isa']}, best", row["best_2"] * row["peak_gops"] / 221
            yield f"{row['isa']}, median", row["median_2"] * row["peak_gops"] / 221


SHARE = "of the int8 peak"
INT8_ROWS = (128, 1024)
TARGETS = (
    Target("int4 GEMV, SmolLM2-135M, of the stream bandwidth", 80, 90, kernel("int4", (1,), "read_share"), "%"),
    Target("or, where a core reads over 25 GB/s: cycles / block", 14, 11, kernel("int4", (1,), "cycles_a_block"), "", True),
    Target(f"int4 GEMM, {SHARE}, best rounds", 85, 95, kernel("int4", (512,), "best_peak_share", (1,)), "%"),
    Target("the same, median", 80, 95, kernel("int4", (512,), "peak_share"), "%"),
    Target(f"int8 GEMM in blocks, {SHARE}, best rounds", 70, 76, kernel("int8, blocks", INT8_ROWS, "best_peak_share", (1,)), "%"),
    Target(f"int8 GEMM by tokens, {SHARE}, best rounds", 70, 76, kernel("int8, tokens", INT8_ROWS, "best_peak_share", (1,)), "%"),
    Target("attention decode, int8 cache, 30 x 3 heads, depth 2048, ms at 221 Gop/s", 1.1, 0.9, attention, "", True),
    Target("MiniLM int8, 128 tokens, batch 8, over onnxruntime int8", 1.15, 1.4, minilm("128 tokens, batch 8", "frugal int8")),
    Target("MiniLM int8, 16 tokens, batch 1, over onnxruntime int8", 1.2, 1.5, minilm("16 tokens, batch 1", "frugal int8")),
    Target("MiniLM int4, 128 tokens, batch 8, over onnxruntime int8", 1.4, 1.7, minilm("128 tokens, batch 8", "frugal int4")),
    Target("the same, over onnxruntime int4", 3, 3, minilm("128 tokens, batch 8", "frugal int4", "int4")),
    Target("kws int8, over the best peer of either form", 2.2, 3, small("kws", "int8", "any")),
    Target("ic int8, over the best peer of either form", 1.6, 2.5, small("ic", "int8", "any")),
    Target("kws float32, over the best float32 peer", 1.8, 2, small("kws", "float32", "float")),
    Target("ic float32, over the best float32 peer", 1.1, 1.4, small("ic", "float32", "float")),
    Target("real graphs, float32, over onnxruntime", 1.0, 1.3, graphs),
    Target("one of two cores kept busy, 2 threads: times as long", 1.5, 1.33, threads("slowdown"), "", True),
    Target("idle session, CPU from 5 ms after a run on", 0.05, 0.05, threads("percent"), "%", True),
)


def results(report: Report) -> list[tuple[Target, str, float, str]]:
    """(target, where, value, reached) of everything that the report measured."""
    return [(t, where, value, t.reached(value)) for t in TARGETS for where, value in t.find(report)]
