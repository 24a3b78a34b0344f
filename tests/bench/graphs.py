"""Real graphs, ours beside onnxruntime: same file and input, one thread, interleaved in one run; a section of docs/benchmarks.md.

    python tests/bench/graphs.py --work .cache/bench --out docs/benchmarks.md [--seconds 4] [--only silero]

Both engines run in one process and take turns call by call; the ratio is taken pair by pair, median and 10-90 % range reported,
and so is the largest difference of the outputs.  Memory is the peak of a process of its own that imports one engine, opens
the model (ours as .frugal) and runs it once.  The cost of a new input length is measured on MiniLM int8.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import wave
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "bench")]

Feeds = dict[str, np.ndarray]
TITLE = "## Real graphs, one thread"

PEAK = """
import sys
import numpy as np
engine, path, feeds = sys.argv[1:4]
if engine == "onnxruntime":
    import onnxruntime as rt
else:
    import frugal as rt
options = rt.SessionOptions()
options.intra_op_num_threads = 1
session = rt.InferenceSession(path, options)
session.run(None, dict(np.load(feeds)))
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


def speech(rate: int, samples: int) -> np.ndarray:
    """float32 [1, samples] of a French voice, stretched to a sampling rate."""
    from models import fetch

    with wave.open(str(fetch("french-speech") / "demo-instruct.wav")) as file:
        voice = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    at = np.arange(samples) * 8000 / rate + 8000
    return np.interp(at, np.arange(len(voice)), voice).astype(np.float32)[None]


def picture(height: int, width: int) -> np.ndarray:
    """float32 [1, 3, height, width] in [-1, 1]: a page of text, repeated."""
    from photographs import photograph

    page = photograph("page")
    page = np.tile(page, (-(-height // page.shape[0]), -(-width // page.shape[1]), 1))[:height, :width]
    return np.ascontiguousarray((page.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None])


def silero() -> Feeds:
    state = np.zeros((2, 1, 128), np.float32)
    return {"input": speech(16000, 576), "state": state, "sr": np.array(16000, np.int64)}


def lemma() -> Feeds:
    return {
        "src": np.arange(5, 15, dtype=np.int64)[None],
        "src_len": np.array([10], np.int64),
        "tgt_in": np.arange(1, 7, dtype=np.int64)[None],
    }


def magika() -> Feeds:
    data = (TESTS.parent / "README.md").read_bytes()
    return {"bytes": np.frombuffer(data[:1024] + data[-1024:], np.uint8).astype(np.int32)[None]}


CASES: dict[str, tuple[str, str, Callable[[], Feeds]]] = {  # name: package of tests/models.py, file, input
    "Silero VAD, 32 ms": ("silero-vad", "silero_vad.onnx", silero),
    "Silero VAD, opset 15": ("silero-vad", "silero_vad_16k_op15.onnx", silero),
    "Magika, one file": ("magika", "model.onnx", magika),
    "Basic Pitch, 2 s": ("basic-pitch", "nmp.onnx", lambda: {"serving_default_input_2:0": speech(22050, 43844)[..., None]}),
    "PP-OCR detection, 640 x 480": ("pp-ocr", "ch_PP-OCRv4_det_infer.onnx", lambda: {"x": picture(480, 640)}),
    "PP-OCR recognition, 48 x 320": ("pp-ocr", "ch_PP-OCRv4_rec_infer.onnx", lambda: {"x": picture(48, 320)}),
    "PP-OCR orientation, 48 x 192": ("pp-ocr", "ch_ppocr_mobile_v2.0_cls_infer.onnx", lambda: {"x": picture(48, 192)}),
    "pyfrspell lemmas, int8": ("pyfrspell", "lemma_type_model.int8.onnx", lemma),
    "pyfrspell forms, int8": ("pyfrspell", "derive_form_model.int8.onnx", lemma),
}


def one_thread(module: Any) -> Any:
    options = module.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def measure(path: Path, feeds: Feeds, seconds: float) -> dict[str, Any]:
    """Milliseconds of both, turn by turn, and how far their outputs are apart relative to the largest value."""
    import onnxruntime

    import frugal

    theirs = onnxruntime.InferenceSession(str(path), one_thread(onnxruntime), providers=["CPUExecutionProvider"])
    ours = frugal.InferenceSession(path, one_thread(frugal))
    feeds = {i.name: feeds[i.name] for i in theirs.get_inputs()}
    pairs = zip(ours.run(None, feeds), theirs.run(None, feeds), strict=True)
    apart = max(float(np.abs(a.astype(np.float64) - b).max() / max(np.abs(b).max(), 1e-9)) for a, b in pairs if b.size)
    times: list[tuple[float, float]] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 11:
        start = time.perf_counter()
        ours.run(None, feeds)
        middle = time.perf_counter()
        theirs.run(None, feeds)
        times.append((middle - start, time.perf_counter() - middle))
    table = np.array(times[1:]) * 1000
    ratios = table[:, 1] / table[:, 0]
    return {
        "frugal_ms": float(np.median(table[:, 0])),
        "onnxruntime_ms": float(np.median(table[:, 1])),
        "ratio": [float(np.percentile(ratios, p)) for p in (50, 10, 90)],
        "calls": len(ratios),
        "difference": apart,
    }


def peak_rss(engine: str, path: Path, feeds: Path) -> int:
    """Peak resident bytes of a process that runs the model once."""
    arguments = [sys.executable, "-c", PEAK, engine, str(path), str(feeds)]
    return int(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout) * 1024


def memory(path: Path, feeds: Feeds, work: Path) -> dict[str, int]:
    import frugal

    plan, file = work / f"{path.stem}.frugal", work / f"{path.stem}.npz"
    frugal.compile(path).save(plan)
    np.savez(file, **feeds)
    return {engine: peak_rss(engine, plan if engine == "frugal" else path, file) for engine in ("frugal", "onnxruntime")}


def input_names(path: Path) -> list[str]:
    import onnx

    graph = onnx.load(path).graph
    return [i.name for i in graph.input if i.name not in {t.name for t in graph.initializer}]


def new_length(work: Path) -> dict[str, float]:
    """Microseconds that a first run of a length takes beyond the second, MiniLM int8, lengths 8 and 9 in turn."""
    from minilm import prepare

    import frugal

    session = frugal.InferenceSession(prepare(work)["int8.frugal"], one_thread(frugal))
    names = [i.name for i in session.get_inputs()]

    def timed(length: int) -> float:
        feeds = {n: np.ones((1, length), np.int64) for n in names}
        start = time.perf_counter()
        session.run(None, feeds)
        return (time.perf_counter() - start) * 1e6

    first, second = [], []
    for _ in range(300):
        timed(8)
        first.append(timed(9))
        second.append(timed(9))
    extra = np.array(first) - np.array(second)
    return {"extra_us": float(np.median(extra)), "run_us": float(np.median(second))}


def section(report: dict[str, Any]) -> str:
    lines = [
        TITLE,
        "",
        f"Measured {report['date']} with `make bench` on {report['cpu']}, {report['cpus']} CPUs, ISA {report['isa']}; "
        f"frugal {report['frugal']}, onnxruntime {report['onnxruntime']}. The same file and real input for both, taking turns "
        "call by call; the ratio is onnxruntime's time over ours, pair by pair, median (10-90 %): above 1 ours wins. "
        "Difference: the largest, relative to the largest output.",
        "",
        "| graph | frugal ms | onnxruntime ms | ratio | difference | peak RSS, MiB | onnxruntime's |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in report["graphs"].items():
        middle, low, high = row["ratio"]
        ours, theirs = (row["peak_rss"][e] / 2**20 for e in ("frugal", "onnxruntime"))
        lines.append(
            f"| {name} | {row['frugal_ms']:.3f} | {row['onnxruntime_ms']:.3f} | {middle:.2f} ({low:.2f}-{high:.2f}) "
            f"| {row['difference']:.1e} | {ours:.0f} | {theirs:.0f} |"
        )
    if "new_length" in report:
        extra, run = (report["new_length"][k] for k in ("extra_us", "run_us"))
        lines += [
            "",
            f"A new input length costs MiniLM int8 {extra:.0f} us more than a known one (9 tokens: {run:.0f} us).",
        ]
    return "\n".join(lines) + "\n"


def write(report: dict[str, Any], out: Path) -> None:
    """Put the section into the page, in the place of the one before."""
    page = out.read_text(encoding="utf-8") if out.exists() else "# Benchmarks\n"
    before, _, rest = page.partition(TITLE)
    _, found, behind = rest.partition("\n## ")
    out.write_text(before.rstrip() + "\n\n" + section(report) + ("\n## " + behind if found else ""), encoding="utf-8")
    out.with_name("benchmarks-graphs.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    import onnxruntime
    from minilm import cpu_model

    import frugal
    from models import fetch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=4.0, help="of turns for each graph")
    parser.add_argument("--only", default="", help="graphs whose name has this in it")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "isa": frugal.isa(),
        "python": platform.python_version(),
        "frugal": frugal.__version__,
        "onnxruntime": onnxruntime.__version__,
        "graphs": {},
    }
    for name, (package, file, make) in CASES.items():
        if args.only.lower() not in name.lower():
            continue
        path = next(fetch(package).rglob(file))
        feeds = {n: v for n, v in make().items() if n in input_names(path)}
        row = measure(path, feeds, args.seconds) | {"peak_rss": memory(path, feeds, args.work)}
        report["graphs"][name] = row
        print(f"{name}: {row['ratio'][0]:.2f} x onnxruntime, {row['difference']:.1e} apart", file=sys.stderr, flush=True)
    if not args.only:
        report["new_length"] = new_length(args.work)
    print(section(report))
    if args.out:
        write(report, args.out)


if __name__ == "__main__":
    main()
