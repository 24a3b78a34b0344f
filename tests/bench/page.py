"""docs/benchmarks.md from a report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import targets

Report = dict[str, Any]


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table; cells may hold no line breaks."""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(str(c).replace("\n", " ").replace("|", "\\|") for c in row) + " |" for row in rows]
    return [*lines, ""]


def number(value: float) -> str:
    """Three significant digits or so."""
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"


def between(values: Sequence[float]) -> str:
    """median (10 %-90 %)."""
    return f"{number(values[0])} ({number(values[1])}-{number(values[2])})"


def ratio(result: dict[str, Any]) -> list[str]:
    """Three cells: of rounds, of medians, of best rounds."""
    if "ratio" not in result:
        return ["-", "-", "-"]
    return [between(result["ratio"]), f"{result['of_medians']:.2f}", f"{result['of_best']:.2f}"]


CONDITIONS = ("date", "cpu", "isa", "rounds", "load", "command")  # of a part
RATIOS = ("median of rounds' ratios", "ratio of medians", "best rounds")


def left_out(skipped: dict[str, str]) -> list[str]:
    return [f"Left out: {'; '.join(f'{n} ({why})' for n, why in sorted(skipped.items()))}.", ""] if skipped else []


def busy(about: dict[str, Any]) -> list[str]:
    """A warning, where there was more to do than CPUs."""
    if about["load"] <= about["cpus"]:
        return []
    text = f"**Other work kept the machine busy (load {about['load']:.0f} on {about['cpus']} CPUs): "
    text += "rows of two threads say little.** "
    return [text + "Rows of one thread count CPU time, and share the caches and the memory with that work.", ""]


def head(report: Report) -> list[str]:
    about = report["about"]
    versions = ", ".join(f"{n} {v}" for n, v in about["peers"].items())
    return [
        "# Benchmarks",
        "",
        f"Measured {about['date']} with `{about['command']}` on {about['cpu']}, {about['cpus']} CPUs, ISA {about['isa']}; "
        f"frugal {about['frugal']}, Python {about['python']}, {versions}, from pip.",
        "",
        *busy(about),
        "Engines run in processes of their own and take turns, round by round; who does not run is stopped, spinning threads "
        f"included. {about['rounds']} rounds; a time is the median of the rounds (10-90 %), with one thread the CPU time of the "
        "process, with two wall time. Ratios are the peers' time, the fastest of them in each round, over the row's: above 1 the "
        f"row is faster. The machine is shared (load {about['load']:.1f} at the start): compare ratios, not times.",
        "",
    ]


def section_targets(report: Report) -> list[str]:
    rows = [
        [t.work, where, f"{number(value)} {t.unit}".strip(), t.must, t.aim, reached]
        for t, where, value, reached in targets.results(report)
    ]
    return ["## Targets, and what was reached here", "", *table(["work", "where", "measured", "must", "aim", "reached"], rows)]


def section_limits(report: Report) -> list[str]:
    limits = report["limits"]
    rows = [
        [isa, f"{v['int8_gops'][0]:.0f} / {v['int8_gops'][1]:.0f}", f"{v['f32_gflops'][0]:.0f} / {v['f32_gflops'][1]:.0f}"]
        for isa, v in limits["isa"].items()
        if v["int8_gops"][0] > 0
    ]
    read, threads = limits["read_gbps"], limits["threads"]
    return [
        "## What the machine can do",
        "",
        f"Best rounds, 1 / {threads} threads (`kernels/src/measure.c`); a multiply-add is two operations. Memory is read at "
        f"{read[0]:.1f} / {read[1]:.1f} GB/s, one thread runs at {limits['ghz']:.2f} GHz.",
        "",
        *table(["ISA", "int8, Gop/s", "float32, GFLOP/s"], rows),
    ]


def section_kernels(report: Report) -> list[str]:
    def cells(row: dict[str, Any]) -> list[str]:
        share = between([100 * v for v in row["peak_share"]]) if "peak_share" in row else "-"
        read = between([100 * v for v in row["read_share"]]) if "read_share" in row else "-"
        best = f"{100 * row['best_peak_share']:.0f}" if "best_peak_share" in row else "-"
        best = f"{100 * row['best_read_share']:.0f} (read)" if "best_read_share" in row else best
        cycles = between(row["cycles_a_block"]) if "cycles_a_block" in row else "-"
        what = f"{row['work']}, {row['weights']}, {row['rows']} row{'s' * (row['rows'] > 1)}"
        return [what, row["isa"], str(row["threads"]), between(row["gops"]), share, best, read, cycles]

    names = ["work", "ISA", "threads", "Gop/s", "% of the peak", "best rounds, %", "% of the bandwidth", "cycles / block 8 × 32"]
    return [
        "## Kernels",
        "",
        "The products of all linears of a layer (GEMV: of all 30 layers, 63 MB, more than the caches), cut as the executor cuts "
        "them; the limits are measured between them in the same rounds. Best rounds: the best rate over the best limit.",
        "",
        *table(names, (cells(r) for r in report["kernels"])),
    ]


def section_attention(report: Report) -> list[str]:
    part = report["attention"]
    title = ["## Attention of one token, SmolLM2-135M's 30 layers, 2048 tokens in the cache", ""]
    if "reason" in part:
        return [*title, f"Left out: {part['reason']}.", ""]
    heads = ["ISA", "cache", "1 thread, ms: best", "median", "2 threads, ms: best", "median", "cycles a position and key head"]
    keys = ("isa", "cache", "best_1", "median_1", "best_2", "median_2", "cycles")
    return [*title, *table(heads, ([r[k] for k in keys] for r in part["rows"]))]


def section_counts(report: Report) -> list[str]:
    counts = report["counts"]
    title = ["## Instructions of hot kernels, by callgrind", ""]
    if "reason" in counts:
        return [*title, f"Left out: {counts['reason']}.", ""]
    rows = [[n, i, f"{i / units:.4f}" if units else "-"] for n, (i, units) in counts["counts"].items()]
    text = f"ISA {counts['isa']}, {counts['compiler']}; exact and repeatable, `make bench-check` compares them with "
    text += "`tests/bench/counts.json`. Units: multiply-adds, or elements of a row function."
    return [*title, text, "", *table(["kernel", "instructions", "a unit"], rows)]


def section_minilm(report: Report) -> list[str]:
    part = report["minilm"]
    rows, skipped = [], dict[str, str]()
    for work, entry in part["speed"].items():
        skipped |= entry["skipped"]
        for name, ms in entry["ms"].items():
            int4 = entry["int4"].get(name, {})
            rows.append([work, name, between(ms), *ratio(entry["int8"].get(name, {})), ratio(int4)[0]])
    lines = [
        "## all-MiniLM-L6-v2, milliseconds a batch",
        "",
        "The ratios are to the fastest onnxruntime int8 of each round (per channel; as exported, spelled out, or QAttention; "
        "full or reduced range); the last column to onnxruntime on our int4 file. With FRUGAL_ISA=avx2 ours is held to AVX2 "
        "while onnxruntime keeps what the CPU has: it has no such switch.",
        "",
        *table(["work", "engine", "ms", *RATIOS, "× onnxruntime int4"], rows),
        *left_out(skipped),
        "## Cold start: process start to first output, token ids given, warm page cache, 1 thread",
        "",
        "`run_buffers` takes lists and returns memoryviews, so that numpy is not imported; the other rows give numpy arrays.",
        "",
    ]
    cold, rows = part["cold_start"], []
    for name, seconds in cold["seconds"].items():
        size, rss = cold["file_bytes"][name] / 2**20, cold["peak_rss_bytes"][name] / 2**20
        rows.append([name, between(seconds), between(cold["ratio"][name]), f"{size:.1f}", f"{rss:.1f}", f"{rss - size:.1f}"])
    heads = ["engine", "seconds", "× onnxruntime int8", "file, MiB", "peak RSS, MiB", "peak RSS - file, MiB"]
    return [*lines, *table(heads, rows)]


def section_accuracy(report: Report) -> list[str]:
    lines = []
    for name, engines in report["accuracy"].items():
        lines += [f"## Accuracy, {name} ({next(iter(engines.values()))['pairs']} sentence pairs)", ""]
        rows = [[n, f"{r['spearman']:.2f}", f"{r['cosine_mean']:.5f}", f"{r['cosine_min']:.4f}"] for n, r in engines.items()]
        lines += table(["engine", "Spearman × 100", "mean cosine to fp32", "worst cosine"], rows)
    return lines


def section_small(report: Report) -> list[str]:
    rows, skipped = [], dict[str, str]()
    for work, entry in report["small"].items():
        skipped |= entry["skipped"]
        for name, us in entry["us"].items():
            apart = entry["difference"].get(name)
            either, plain = ratio(entry["any"].get(name, {})), ratio(entry["float"].get(name, {}))
            rows.append([work, name, between(us), *either, plain[0], "-" if apart is None else f"{apart:.1e}"])
    return [
        "## Small networks (MLPerf Tiny), one image, 1 thread, microseconds",
        "",
        "Executor: ours in C, the peers by the shortest way of their Python bindings (inputs bound once, outputs not handed "
        "out); Python: an array in, an array out. Ratios: to the fastest peer, int8 or float32; the last but one to the fastest "
        "float32 peer alone. Difference: to onnxruntime's output, in steps of int8 or absolute. kws float32: LiteRT keeps the "
        "file's int8 weights, the others get them as floats.",
        "",
        *table(["work", "engine", "us", *RATIOS, "× best float32", "difference"], rows),
        *left_out(skipped),
    ]


def section_graphs(report: Report) -> list[str]:
    part, rows, skipped = report["graphs"], [], dict[str, str]()
    for graph, entry in part["graphs"].items():
        skipped |= entry["skipped"]
        for name, ms in entry["ms"].items():
            apart = f"{entry['difference']:.1e}" if name == "frugal" and "difference" in entry else "-"
            cells = [*ratio(entry["compare"].get(name, {})), apart, f"{entry['peak_rss'][name] / 2**20:.0f}"]
            rows.append([graph, name, between(ms), *cells])
    extra, run = (part["new_length"][k] for k in ("extra_us", "run_us"))
    return [
        "## Real graphs, one thread, milliseconds",
        "",
        "The same file and real input for both.  Difference: the largest, relative to the largest output.",
        "",
        *table(["graph", "engine", "ms", *RATIOS, "difference", "peak RSS, MiB"], rows),
        *left_out(skipped | part["skipped"]),
        f"A new input length costs MiniLM int8 {extra:.0f} us more than a known one (9 tokens: {run:.0f} us).",
        "",
    ]


def section_threads(report: Report) -> list[str]:
    part = report["threads"]
    title = ["## Two threads, one of two cores kept busy by another process; and idle", ""]
    if "reason" in part:
        return [*title, f"Left out: {part['reason']}.", ""]
    rows = [
        [
            n,
            number(r["free_ms"]),
            number(r["busy_ms"]),
            between(r["slowdown"]),
            *(number(r["idle"][k]) for k in ("first_5_ms", "percent")),
        ]
        for n, r in part["engines"].items()
    ]
    heads = ["engine", "ms, both free", "ms, one busy", "times as long", "CPU ms in the 5 ms after a run", "CPU % afterwards"]
    text = "MiniLM, 128 tokens, batch 1, wall time. Two threads with a core and a half left would take 1.33 times as long."
    return [*title, text, "", *table(heads, rows), *left_out(part["skipped"])]


def section_text(report: Report) -> list[str]:
    part, rows = report["text"], []
    for work, entry in part["works"].items():
        for name, rate in entry["tokens_per_second"].items():
            rows.append([work, name, between(rate), number(entry["limit"]), f"{100 * rate[0] / entry['limit']:.0f}"])
    return [
        "## SmolLM2-135M-Instruct, Q4_1, tokens a second",
        "",
        "The limit: the file read once a token (decoding), the multiply-adds of a token at the int8 peak (prefill). Wall time.",
        "",
        *table(["work", "engine", "tokens/s", "limit", "% of it"], rows),
        *left_out(part["skipped"]),
    ]


SECTIONS = {
    "limits": section_limits,
    "kernels": section_kernels,
    "attention": section_attention,
    "counts": section_counts,
    "minilm": section_minilm,
    "accuracy": section_accuracy,
    "small": section_small,
    "graphs": section_graphs,
    "threads": section_threads,
    "text": section_text,
}


def markdown(report: Report) -> str:
    """The page; sections that were measured at another time or with other rounds than the head says say so."""
    lines = head(report) + section_targets(report)
    for name, section in SECTIONS.items():
        if report.get(name):
            part = section(report)
            own = report.get("measured", {}).get(name)
            if own and "note" in own:
                part[1:1] = ["", own["note"]]
            elif own and any(own[k] != report["about"].get(k) for k in own):
                said = f"Measured {own['date']} on {own['cpu']}, ISA {own['isa']}, {own['rounds']} rounds, load {own['load']:.1f}"
                part[1:1] = ["", f"{said}, with `{own['command']}`."]
            lines += part
    return "\n".join(lines).rstrip() + "\n"
