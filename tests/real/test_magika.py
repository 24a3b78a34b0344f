"""Magika on every file of a folder: the label that onnxruntime gives, with the package's own features."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

import frugal
import models
from frugal.compiler import compile_model

ort = pytest.importorskip("onnxruntime")

ROOT = Path(__file__).resolve().parents[2]
# The model takes a variance as mean(x^2) - mean(x)^2.  In a short file, mostly padding, it is 3e-6 of terms of 0.7, and the
# sum of 512 of them that onnxruntime makes is off by 4 % of it, ours (16 lanes) by 0.01 %: scores differ by up to 1e-3.
TOLERANCE, LONG_TOLERANCE = 2e-3, 1e-4


def features(data: bytes) -> np.ndarray:
    """The first 1024 and last 1024 bytes without white space at either end; 256 where there are none (magika 1.0, version 2)."""
    begin, end = data[:4096].lstrip()[:1024], data[-4096:].rstrip()[-1024:]
    numbers = [*begin, *[256] * (1024 - len(begin)), *[256] * (1024 - len(end)), *end]
    return np.array(numbers, np.int32)


def files() -> dict[str, np.ndarray]:
    """The files of this project, and some that are not text."""
    found = [p for pattern in ("*", "docs/*", "frugal/**/*", "kernels/**/*", "tests/**/*") for p in ROOT.glob(pattern)]
    chosen = sorted({p for p in found if p.is_file() and p.stat().st_size > 8})
    result = {str(p.relative_to(ROOT)): features(p.read_bytes()) for p in chosen}
    text = b"".join(p.read_bytes() for p in chosen[:20])
    result["zlib"] = features(zlib.compress(text))
    result["noise"] = features(np.random.default_rng(0).bytes(5000))
    result["zeros"] = features(bytes(3000))
    return result


def test_every_file() -> None:
    folder = models.fetch_or_skip("magika")
    labels = json.loads((folder / "config.min.json").read_text())["target_labels_space"]
    theirs = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    ours = frugal.InferenceSession(compile_model(folder / "model.onnx"))
    named = files()
    kinds = set()
    for batch in np.array_split(np.arange(len(named)), max(1, len(named) // 8)):
        names = [list(named)[i] for i in batch]
        feeds = {"bytes": np.stack([named[n] for n in names])}
        (got,), (want,) = ours.run(None, feeds), theirs.run(None, feeds)
        padded = (feeds["bytes"] == 256).any(axis=1)
        np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(got[~padded], want[~padded], rtol=0, atol=LONG_TOLERANCE)
        for name, a, b in zip(names, got.argmax(-1), want.argmax(-1), strict=True):
            assert labels[a] == labels[b], name
            kinds.add(labels[a])
    assert {"python", "c", "markdown"} <= kinds


def test_alone_and_in_a_batch() -> None:
    """A file's scores do not depend on its neighbours by a single bit."""
    session = frugal.InferenceSession(compile_model(models.fetch_or_skip("magika") / "model.onnx"))
    some = np.stack(list(files().values())[:5])
    (together,) = session.run(None, {"bytes": some})
    for i, row in enumerate(some):
        np.testing.assert_array_equal(session.run(None, {"bytes": row[None]})[0][0], together[i])
