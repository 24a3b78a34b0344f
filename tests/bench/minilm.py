"""all-MiniLM-L6-v2: ours beside onnxruntime, on the same weights, interleaved in one run; writes docs/benchmarks.md and JSON.

    python tests/bench/minilm.py --work .cache/bench --out docs/benchmarks.md [--rounds 11] [--pairs en.csv fr.csv]

Every round runs every engine once on the same feeds, so that what else the machine does hits all alike; ratios are taken round by
round and their median and 10-90 % range reported.  onnxruntime's int8 is made from the same float file in six forms (rivals.py);
the peer of a round is the fastest of them in that round, so that a ratio above 1 says that ours won against its best.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/models.py

MODEL = "all-MiniLM-L6-v2"
Feeds = dict[str, np.ndarray]
SHAPES = {"16 tokens, batch 1": (1, 16), "128 tokens, batch 1": (1, 128), "128 tokens, batch 8": (8, 128)}

COLD = """
import sys, time
start = float(sys.argv[1])
def finish():
    end = time.time()
    peak = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0]
    print(end - start, int(peak) * 1024)
    sys.exit()
engine, path = sys.argv[2:4]
if engine == "frugal without numpy":
    import frugal as rt
    options = rt.SessionOptions(); options.intra_op_num_threads = 1
    session = rt.InferenceSession(path, options)
    ids = [[101, 2023, 2003, 1037, 7099, 6251, 2005, 1996, 2034, 6434, 1997, 1996, 2944, 1012, 102, 0]]
    session.run_buffers(None, {"input_ids": ids, "attention_mask": [[1] * 15 + [0]], "token_type_ids": [[0] * 16]})
    finish()
import numpy as np
if engine == "onnxruntime":
    import onnxruntime as rt
    options = rt.SessionOptions(); options.intra_op_num_threads = 1
    session = rt.InferenceSession(path, options, providers=["CPUExecutionProvider"])
elif engine == "frugal":
    import frugal as rt
    options = rt.SessionOptions(); options.intra_op_num_threads = 1
    session = rt.InferenceSession(path, options)
ids = np.array([[101, 2023, 2003, 1037, 7099, 6251, 2005, 1996, 2034, 6434, 1997, 1996, 2944, 1012, 102, 0]])
names = [i.name for i in session.get_inputs()]
feeds = {n: ids if n == "input_ids" else (ids != 0).astype(np.int64) if "mask" in n else np.zeros_like(ids) for n in names}
session.run(None, feeds)
finish()
"""


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model", "CPU part"))]
    return names[0] if names else platform.processor()


def prepare(work: Path) -> dict[str, Path]:
    """Export and quantize once; the paths by name."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    import rivals
    from frugal.quantize import export, quantize

    import frugal
    from models import fetch

    work.mkdir(parents=True, exist_ok=True)
    paths = {n: work / f"{n}.onnx" for n in ("float", "int8", "int4")}
    if not paths["float"].exists():
        export(fetch(MODEL), paths["float"])
    for scheme in ("int8", "int4"):
        if not paths[scheme].exists():
            quantize(paths["float"], paths[scheme], scheme=scheme)
    for name in ("float", "int8", "int4"):
        paths[f"{name}.frugal"] = work / f"{name}.frugal"
        frugal.compile(paths[name]).save(paths[f"{name}.frugal"])
    for label, path in rivals.make(paths["float"], work).items():
        paths[f"onnxruntime {label}"] = path
    return paths


def sessions(paths: dict[str, Path], threads: int) -> dict[str, Callable[[Feeds], Any]]:
    import onnxruntime

    import frugal

    made: dict[str, Callable[[Feeds], Any]] = {}
    for name in ("float", "int8", "int4"):
        options = frugal.SessionOptions()
        options.intra_op_num_threads = threads
        session = frugal.InferenceSession(paths[f"{name}.frugal"], options)
        made[f"frugal {name}"] = lambda feeds, s=session: s.run(["last_hidden_state"], feeds)
    peers = {"onnxruntime fp32": paths["float"]} | {n: p for n, p in paths.items() if n.startswith("onnxruntime")}
    for name, path in peers.items():
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads, settings.log_severity_level = threads, 3
        peer = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        made[name] = lambda feeds, s=peer: s.run(["last_hidden_state"], feeds)
    return made


def feeds_of(batch: int, length: int) -> Feeds:
    ids = np.random.default_rng(batch * length).integers(1000, 30000, (batch, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def time_all(engines: dict[str, Callable[[Feeds], Any]], feeds: Feeds, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each engine in each round."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    repeat = {}
    for name, run in engines.items():
        start = time.perf_counter()
        run(feeds)
        repeat[name] = max(1, int(0.03 / max(time.perf_counter() - start, 1e-6)))
        run(feeds)
    for _ in range(rounds):
        for name, run in engines.items():
            time.sleep(0.05)  # the engine before may keep its threads spinning for a while
            run(feeds)
            start = time.perf_counter()
            for _ in range(repeat[name]):
                run(feeds)
            times[name].append((time.perf_counter() - start) / repeat[name] * 1e3)
    return times


def spread(values: list[float]) -> tuple[float, float, float]:
    """(median, 10th, 90th percentile)."""
    low, high = np.percentile(values, [10, 90])
    return statistics.median(values), float(low), float(high)


def cold_start(paths: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Process start to the first output, and peak RSS, of each engine in fresh processes, interleaved."""
    runs = {
        "frugal int8": ("frugal", paths["int8.frugal"]),
        "frugal int8, run_buffers": ("frugal without numpy", paths["int8.frugal"]),
        "frugal int4": ("frugal", paths["int4.frugal"]),
    }
    runs["onnxruntime int8"] = ("onnxruntime", paths["onnxruntime int8"])
    seconds: dict[str, list[float]] = {n: [] for n in runs}
    peak: dict[str, int] = {}
    for _ in range(rounds):
        for name, (engine, path) in runs.items():
            command = [sys.executable, "-c", COLD, str(time.time()), engine, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            took, rss = done.stdout.split()
            seconds[name].append(float(took))
            peak[name] = int(rss)
    peer = seconds["onnxruntime int8"]
    ratios = {n: spread([a / b for a, b in zip(peer, v, strict=True)]) for n, v in seconds.items()}
    return {
        "seconds": {n: spread(v) for n, v in seconds.items()},
        "peak_rss_bytes": peak,
        "file_bytes": {n: Path(p).stat().st_size for n, (_, p) in runs.items()},
        "ratio": ratios,
    }


def embed(run: Callable[[Feeds], Any], tokenizer: Any, texts: list[str]) -> np.ndarray:
    """Mean-pooled, normalized sentence embeddings [n, 384]."""
    rows = []
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids[:128]])
        hidden = run({"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)})[0][0]
        mean = hidden.mean(0)
        rows.append(mean / np.linalg.norm(mean))
    return np.array(rows)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    def ranks(x: np.ndarray) -> np.ndarray:
        _, inverse, count = np.unique(x, return_inverse=True, return_counts=True)
        return (np.cumsum(count) - (count - 1) / 2)[inverse]

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def accuracy(paths: dict[str, Path], files: list[str], every: int) -> dict[str, Any]:
    """Spearman on the sentence pairs of CSV files (sentence1, sentence2, score), and cosine to fp32, of every engine."""
    from tokenizers import Tokenizer

    from models import fetch

    tokenizer = Tokenizer.from_file(str(fetch(MODEL) / "tokenizer.json"))
    tokenizer.no_padding()
    engines, result = sessions(paths, os.cpu_count() or 1), dict[str, Any]()
    for file in files:
        with open(file, newline="", encoding="utf-8") as stream:
            pairs = list(csv.reader(stream))[::every]
        texts, scores = [t for p in pairs for t in p[:2]], np.array([float(p[2]) for p in pairs])
        base: np.ndarray | None = None
        for name in sorted(engines, key=lambda n: n != "onnxruntime fp32"):
            rows = embed(engines[name], tokenizer, texts)
            base = rows if base is None else base
            cosine = (rows * base).sum(1)
            rho = 100 * spearman((rows[0::2] * rows[1::2]).sum(1), scores)
            entry = {
                "spearman": rho,
                "cosine_mean": float(cosine.mean()),
                "cosine_min": float(cosine.min()),
                "pairs": len(pairs),
            }
            result.setdefault(Path(file).stem, {})[name] = entry
    return result


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import onnxruntime

    import frugal

    paths = prepare(Path(arguments.work))
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "cpu": cpu_model(),
        "isa": frugal.isa(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": {
            "frugal": frugal.__version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "rounds": arguments.rounds,
        "command": "make bench",
        "speed": {},
    }
    for threads in (1, 2):
        engines = sessions(paths, threads)
        for label, shape in SHAPES.items():
            times = time_all(engines, feeds_of(*shape), arguments.rounds)
            peers = [times[n] for n in times if n.startswith("onnxruntime int8")]
            best = [min(of_round) for of_round in zip(*peers, strict=True)]
            ratios = {n: spread([p / t for p, t in zip(best, times[n], strict=True)]) for n in times}
            least = {n: min(min(p) for p in peers) / min(t) for n, t in times.items()}
            entry = {"ms": {n: spread(t) for n, t in times.items()}, "ratio": ratios, "ratio_of_best_rounds": least}
            report["speed"][f"{label}, {threads} thread{'s' * (threads > 1)}"] = entry
            print(
                f"{label}, {threads} thread(s): " + ", ".join(f"{n} {spread(t)[0]:.2f} ms" for n, t in times.items()),
                file=sys.stderr,
            )
    report["cold_start"] = cold_start(paths, arguments.rounds)
    if arguments.pairs:
        report["accuracy"] = accuracy(paths, arguments.pairs, arguments.every)
    return report


def _range(values: tuple[float, float, float]) -> str:
    return f"{values[0]:.2f} ({values[1]:.2f}-{values[2]:.2f})"


def markdown(report: dict[str, Any]) -> str:
    lines = [
        "# Benchmarks",
        "",
        f"Measured {report['date']} with `{report['command']}` on {report['cpu']}, {report['cpus']} CPUs, ISA {report['isa']}; "
        + ", ".join(f"{k} {v}" for k, v in report["versions"].items())
        + f"; {report['rounds']} interleaved rounds, median (10-90 %). The machine is shared: compare ratios, not times.",
        "",
        "## all-MiniLM-L6-v2, milliseconds a batch",
        "",
        "The ratio is the fastest onnxruntime int8 of each round (per channel; as exported, spelled out, or QAttention;",
        "full or reduced range) over the row's time in that round: above 1 ours wins. Last column: best rounds.",
        "",
        "| work | engine | ms | × onnxruntime int8 | best rounds |",
        "|---|---|---|---|---|",
    ]
    for work, entry in report["speed"].items():
        for name, (median, low, high) in entry["ms"].items():
            ratio = entry["ratio"][name]
            took = f"{median:.2f} ({low:.2f}-{high:.2f})"
            lines.append(f"| {work} | {name} | {took} | {_range(ratio)} | {entry['ratio_of_best_rounds'][name]:.2f} |")
    cold = report["cold_start"]
    lines += [
        "",
        "## Cold start: process start to first output, token ids given, warm page cache, 1 thread",
        "",
        "`run_buffers` takes lists and returns memoryviews, so that numpy is not imported; the other rows give numpy arrays.",
        "",
        "| engine | seconds | × onnxruntime int8 | file, MiB | peak RSS, MiB | peak RSS - file, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, (median, low, high) in cold["seconds"].items():
        size, rss = cold["file_bytes"][name] / 2**20, cold["peak_rss_bytes"][name] / 2**20
        took = f"{median:.3f} ({low:.3f}-{high:.3f}) | {_range(cold['ratio'][name])}"
        lines.append(f"| {name} | {took} | {size:.1f} | {rss:.1f} | {rss - size:.1f} |")
    for name, rows in report.get("accuracy", {}).items():
        lines += ["", f"## Accuracy, {name} ({next(iter(rows.values()))['pairs']} sentence pairs)", ""]
        lines += ["| engine | Spearman × 100 | mean cosine to fp32 | worst cosine |", "|---|---|---|---|"]
        for engine, r in rows.items():
            lines.append(f"| {engine} | {r['spearman']:.2f} | {r['cosine_mean']:.5f} | {r['cosine_min']:.4f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default=".cache/bench", help="folder for the models")
    parser.add_argument("--out", help="Markdown file to write; JSON goes beside it")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--pairs", nargs="*", default=[], help="CSV files of sentence1, sentence2, score")
    parser.add_argument("--every", type=int, default=1, help="take every n-th pair")
    arguments = parser.parse_args()
    report = measure(arguments)
    text = markdown(report)
    print(text)
    if arguments.out:
        Path(arguments.out).write_text(text, encoding="utf-8")
        Path(arguments.out).with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
