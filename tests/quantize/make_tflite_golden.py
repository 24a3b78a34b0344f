"""Records what TFLite computes (tests/data/tflite/golden.npz), so that the tests need no ai-edge-litert:

    pip install ai-edge-litert tflite && python tests/quantize/make_tflite_golden.py

With `--wav FILE` it instead streams a recording (8 or 16 kHz, mono) through the wake words in ai-edge-litert and in the exported
ONNX, and prints how many outputs differ (needs pymicro-features and scipy).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import wave
import zlib
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = "quantize"
    import quantize  # noqa: F401

from .tflite_cases import CASES, Case
from .tflite_run import Feeds, litert, onnx_runs, onnxruntime_session

DATA = Path(__file__).resolve().parents[1] / "data" / "tflite"
GOLDEN = DATA / "golden.npz"
SEED = 7
RANDOM_RUNS = 1000


def made(name: str) -> Case:
    """The case as the tests build it."""
    return CASES[name](np.random.default_rng([SEED, zlib.crc32(name.encode())]))


def digest(model: bytes, feeds: Feeds) -> str:
    """Of everything that the recorded outputs depend on."""
    h = hashlib.sha256(model)
    for feed in feeds:
        for value in feed.values():
            h.update(np.ascontiguousarray(value).tobytes())
    return h.hexdigest()[:16]


def random_feeds(name: str, shape: tuple[int, ...], dtype: str, runs: int) -> Feeds:
    """int8 over the whole range, floats from the normal distribution times 10 (as MFCCs are)."""
    rng = np.random.default_rng(SEED)
    if dtype == "int8":
        return [{name: rng.integers(-128, 128, shape).astype(np.int8)} for _ in range(runs)]
    return [{name: (10 * rng.standard_normal(shape)).astype(np.float32)} for _ in range(runs)]


def streamed_feeds(name: str, shape: tuple[int, ...], runs: int) -> Feeds:
    """A smooth random sequence: like features of sound, neighbours in time are alike."""
    rng, x = np.random.default_rng(SEED), np.zeros(shape[2])
    feeds = []
    for _ in range(runs):
        frames = []
        for _ in range(shape[1]):
            x = 0.95 * x + rng.normal(0, 22, shape[2])
            frames.append(x)
        feeds.append({name: np.clip(np.round(frames), -128, 127).astype(np.int8)[None]})
    return feeds


REAL: dict[str, Any] = {
    "kws_ref_model": ("input_1", (1, 49, 10, 1), "int8", RANDOM_RUNS),
    "kws_ref_model_float32": ("input_1", (1, 49, 10, 1), "float32", 200),
    "pretrainedResnet_quant": ("input_1_int8", (1, 32, 32, 3), "int8", RANDOM_RUNS),
}
WAKE_WORDS = ("okay_nabu", "alexa", "hey_jarvis", "hey_mycroft")
WAKE_INPUT = ("serving_default_input_audio:0", (1, 3, 40), 400)


def wake_word_folder() -> Path:
    import models

    return models.fetch("wake-words")


def record() -> None:
    """Run everything in ai-edge-litert and write golden.npz."""
    index, blobs, offset = {}, [], 0
    jobs = {f"case/{name}": made(name) for name in CASES}
    for name, args in REAL.items():
        jobs[f"model/{name}"] = Case((DATA / f"{name}.tflite").read_bytes(), random_feeds(*args))
    for name in WAKE_WORDS:
        model = (wake_word_folder() / f"{name}.tflite").read_bytes()
        jobs[f"model/{name}"] = Case(model, streamed_feeds(*WAKE_INPUT))
    for key, job in jobs.items():
        runs = litert(job.model, job.feeds)
        kinds = [(a.dtype.name, list(a.shape)) for a in runs[0]]
        raw = b"".join(np.ascontiguousarray(a).tobytes() for run in runs for a in run)
        index[key] = {
            "digest": digest(job.model, job.feeds),
            "runs": len(runs),
            "outputs": kinds,
            "at": offset,
            "bytes": len(raw),
        }
        blobs.append(raw)
        offset += len(raw)
    np.savez_compressed(GOLDEN, index=json.dumps(index), data=np.frombuffer(b"".join(blobs), np.uint8))
    print(f"{GOLDEN}: {len(index)} entries, {GOLDEN.stat().st_size} bytes")


def recorded(key: str, model: bytes, feeds: Feeds) -> list[list[np.ndarray]]:
    """The outputs recorded for `key`. Raises ValueError when model or inputs are not those that were recorded."""
    with np.load(GOLDEN) as golden:
        index, data = json.loads(str(golden["index"])), golden["data"]
    entry = index[key]
    if entry["digest"] != digest(model, feeds):
        raise ValueError(f"{key}: the model or its inputs changed since golden.npz was made: run make_tflite_golden.py")
    raw, at, runs = data[entry["at"] : entry["at"] + entry["bytes"]].tobytes(), 0, []
    for _ in range(entry["runs"]):
        run = []
        for dtype, shape in entry["outputs"]:
            count = int(np.prod(shape))
            run.append(np.frombuffer(raw, dtype, count, at).reshape(shape))
            at += count * np.dtype(dtype).itemsize
        runs.append(run)
    return runs


def features(path: Path, shape: tuple[int, ...], scale: float, zero: int, name: str) -> Feeds:
    """A recording as the wake words take it."""
    from pymicro_features import MicroFrontend
    from scipy.signal import resample_poly

    with wave.open(str(path)) as w:
        sound = np.frombuffer(w.readframes(w.getnframes()), np.int16).astype(float)
        sound = resample_poly(sound, 16000 // w.getframerate(), 1)
    raw, front, at, rows = np.clip(np.round(sound), -32768, 32767).astype("<i2").tobytes(), MicroFrontend(), 0, []
    while at + 320 <= len(raw):
        made = front.process_samples(raw[at : at + 320])
        at += made.samples_read * 2
        rows += [made.features] if made.features else []
    codes = np.clip(np.round(np.array(rows, np.float32) / np.float32(scale) + zero), -128, 127).astype(np.int8)
    return [{name: codes[i : i + shape[1]][None]} for i in range(0, len(codes) - shape[1] + 1, shape[1])]


def stream(path: Path) -> None:
    """Compare the wake words on a recording."""
    from ai_edge_litert.interpreter import Interpreter
    from frugal.quantize import export

    for word in WAKE_WORDS:
        model = wake_word_folder() / f"{word}.tflite"
        scale, zero = Interpreter(str(model)).get_input_details()[0]["quantization"]
        feeds = features(path, WAKE_INPUT[1], scale, zero, WAKE_INPUT[0])
        want = litert(model.read_bytes(), feeds)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "m.onnx"
            export(model, out)
            got = onnx_runs(out, onnxruntime_session(out, True), feeds)
        off = np.array([abs(int(a[0][0, 0]) - int(b[0][0, 0])) for a, b in zip(want, got, strict=True)])
        most = max(int(a[0][0, 0]) for a in want)
        print(f"{word}: {off.size} steps, {np.count_nonzero(off)} differ, by {off.max()} at most; largest output {most}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wav", type=Path, help="a recording to stream through the wake words instead")
    wav = parser.parse_args().wav
    if wav:
        stream(wav)
    else:
        record()


if __name__ == "__main__":
    main()
