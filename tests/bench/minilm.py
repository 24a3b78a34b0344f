"""all-MiniLM-L6-v2: ours beside onnxruntime and OpenVINO, on the same weights: milliseconds a batch, cold start, accuracy.

onnxruntime's int8 is made from the same float file in six forms (rivals.py); the peer of a round is the fastest of them in that
round, so that a ratio above 1 says that ours won against its best.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rivals
import stats
from driver import Feeds, Field, clock_of, save_feeds, start

import frugal
from models import fetch

MODEL = "all-MiniLM-L6-v2"
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


def prepare(work: Path) -> dict[str, Path]:
    """Export and quantize once; the paths by name."""
    from frugal.quantize import export, quantize

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


def enter(field: Field, paths: dict[str, Path], saved: Path, threads: int) -> None:
    """Start every engine: ours float, int8, int4 (also held to AVX2 where the CPU has more), onnxruntime float,
    int4 and int8 in six forms, OpenVINO float."""
    wanted = ["last_hidden_state"]
    for isa in ["", "avx2"] if frugal.isa().startswith("avx512") else [""]:
        for name in ("float", "int8", "int4"):
            label = f"frugal {name}" + (f", FRUGAL_ISA={isa}" if isa else "")
            field.add(label, start, "frugal", paths[f"{name}.frugal"], saved, threads, isa, outputs=wanted)
    peers = {"onnxruntime fp32": paths["float"], "onnxruntime int4": paths["int4"]}
    for name, path in (peers | {n: p for n, p in paths.items() if n.startswith("onnxruntime int8")}).items():
        field.add(name, start, "onnxruntime", path, saved, threads, outputs=wanted)
    field.add("openvino fp32", start, "openvino", paths["onnxruntime float, spelled out"], saved, threads)


def sessions(paths: dict[str, Path], threads: int) -> dict[str, Callable[[Feeds], Any]]:
    """Ours and onnxruntime's in this process, for accuracy alone."""
    import onnxruntime

    made: dict[str, Callable[[Feeds], Any]] = {}
    for name in ("float", "int8", "int4"):
        options = frugal.SessionOptions()
        options.intra_op_num_threads = threads
        session = frugal.InferenceSession(paths[f"{name}.frugal"], options)
        made[f"frugal {name}"] = lambda feeds, s=session: s.run(["last_hidden_state"], feeds)
    peers = {"onnxruntime fp32": paths["float"]} | {n: p for n, p in paths.items() if n.startswith("onnxruntime int8")}
    for name, path in peers.items():
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads, settings.log_severity_level = threads, 3
        peer = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        made[name] = lambda feeds, s=peer: s.run(["last_hidden_state"], feeds)
    return made


def feeds_of(batch: int, length: int) -> Feeds:
    ids = np.random.default_rng(batch * length).integers(1000, 30000, (batch, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


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
    ratios = {n: stats.spread([a / b for a, b in zip(peer, v, strict=True)]) for n, v in seconds.items()}
    return {
        "seconds": {n: stats.spread(v) for n, v in seconds.items()},
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


def measure(work: Path, rounds: int) -> dict[str, Any]:
    """Work -> milliseconds of every engine and its ratio to the fastest int8 of onnxruntime; cold start."""
    paths = prepare(work)
    report: dict[str, Any] = {"speed": {}}
    for threads in (1, 2):
        for label, shape in SHAPES.items():
            with Field() as field:
                enter(field, paths, save_feeds(work / "minilm.npz", feeds_of(*shape)), threads)
                times = field.race(rounds, clock_of(threads))
                skipped = dict(field.skipped)
            peers = [n for n in times if n.startswith("onnxruntime int8")]
            entry = {"ms": {n: stats.spread([1e3 * v for v in t]) for n, t in times.items()}, "skipped": skipped}
            report["speed"][f"{label}, {threads} thread{'s' * (threads > 1)}"] = entry | {
                "int8": stats.compare(times, peers),
                "int4": stats.compare(times, [n for n in times if n == "onnxruntime int4"]),
            }
            said = ", ".join(f"{n} {v[0]:.2f}" for n, v in entry["ms"].items())
            print(f"MiniLM {label}, {threads} thread(s), ms: {said}", file=sys.stderr, flush=True)
    report["cold_start"] = cold_start(paths, rounds)
    return report
