"""Real graphs, ours beside onnxruntime: the same file and real input, one thread; and what a new input length costs.

The largest difference of the outputs is reported, and the peak memory of a process that holds one engine and one model (ours as a
plan) and has run it.
"""

from __future__ import annotations

import sys
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import minilm
import numpy as np
import stats
from driver import Feeds, Field, clock_of, save_feeds, start

import frugal
from models import Unavailable, fetch
from photographs import photograph

TESTS = Path(__file__).resolve().parents[1]


def speech(rate: int, samples: int) -> np.ndarray:
    """float32 [1, samples] of a French voice, stretched to a sampling rate."""
    with wave.open(str(fetch("french-speech") / "demo-instruct.wav")) as file:
        voice = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    at = np.arange(samples) * 8000 / rate + 8000
    return np.interp(at, np.arange(len(voice)), voice).astype(np.float32)[None]


def picture(height: int, width: int) -> np.ndarray:
    """float32 [1, 3, height, width] in [-1, 1]: a page of text, repeated."""
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


def input_names(path: Path) -> list[str]:
    import onnx

    graph = onnx.load(path).graph
    return [i.name for i in graph.input if i.name not in {t.name for t in graph.initializer}]


def apart(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """The largest difference, relative to the largest value of its output."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if b.size]
    return max(float(np.abs(a.astype(np.float64) - b).max() / max(np.abs(b).max(), 1e-9)) for a, b in pairs)


def race(path: Path, feeds: Feeds, work: Path, rounds: int) -> dict[str, Any]:
    """One graph."""
    plan = work / f"{path.stem}.frugal"
    frugal.compile(path).save(plan)
    saved = save_feeds(work / f"{path.stem}.npz", feeds)
    with Field() as field:
        field.add("frugal", start, "frugal", plan, saved)
        if frugal.isa().startswith("avx512"):
            field.add("frugal, FRUGAL_ISA=avx2", start, "frugal", plan, saved, 1, "avx2")
        field.add("onnxruntime", start, "onnxruntime", path, saved)
        times = field.race(rounds, clock_of(1))
        rss = {n: w.peak_rss() for n, w in field.workers.items()}
        outputs = {n: w.outputs(work / "out.npz") for n, w in field.workers.items()}
        skipped = dict(field.skipped)
    row: dict[str, Any] = {"ms": {n: stats.spread([1e3 * v for v in t]) for n, t in times.items()}, "skipped": skipped}
    row |= {"peak_rss": rss, "compare": stats.compare(times, [n for n in times if n == "onnxruntime"])}
    if "onnxruntime" in outputs:
        row["difference"] = apart(outputs["frugal"], outputs["onnxruntime"])
    return row


def new_length(work: Path) -> dict[str, float]:
    """Microseconds that a first run of a length takes beyond the second, MiniLM int8, lengths 8 and 9 in turn."""
    options = frugal.SessionOptions()
    options.intra_op_num_threads = 1
    session = frugal.InferenceSession(minilm.prepare(work)["int8.frugal"], options)
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


def measure(work: Path, rounds: int) -> dict[str, Any]:
    """Graph -> milliseconds of both, ratios, difference, memory; graphs that cannot be had are left out with the reason."""
    report: dict[str, Any] = {"graphs": {}, "skipped": {}}
    for name, (package, file, make) in CASES.items():
        try:
            path = next(fetch(package).rglob(file))
            feeds = {n: v for n, v in make().items() if n in input_names(path)}
        except Unavailable as e:
            report["skipped"][name] = str(e)
            continue
        row = report["graphs"][name] = race(path, feeds, work, rounds)
        ratio = row["compare"]["frugal"].get("ratio", (0.0,))[0]
        print(f"{name}: {ratio:.2f} x onnxruntime, {row.get('difference', 0):.1e} apart", file=sys.stderr, flush=True)
    report["new_length"] = new_length(work)
    return report
