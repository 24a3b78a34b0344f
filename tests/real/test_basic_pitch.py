"""Basic Pitch (audio to notes: a constant-Q transform as convolutions, then a net) on speech and chords, against onnxruntime."""

from __future__ import annotations

import wave
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import frugal
import models
from frugal.compiler import lower_model
from frugal.compiler.ir import Op

ort = pytest.importorskip("onnxruntime")

# Relative to the largest value of an output (all are sigmoids), as the project's issue 3 asks: a logarithm of sums of squares,
# normalized, then up to 936 float32 products in another order.
TOLERANCE = 1e-4
RATE, SAMPLES = 22050, 43844  # what the model takes: two seconds


def path_of() -> Path:
    return models.fetch_or_skip("basic-pitch") / "nmp.onnx"


@cache
def sessions() -> tuple[Any, Any, Any]:
    """(onnxruntime, frugal with one thread, with two)."""
    path, choices = path_of(), []
    for threads in (1, 2):
        choice = frugal.SessionOptions()
        choice.intra_op_num_threads = threads
        choices.append(frugal.InferenceSession(path, choice))
    return (ort.InferenceSession(path, providers=["CPUExecutionProvider"]), *choices)


def compare(x: np.ndarray) -> list[np.ndarray]:
    reference, one, two = sessions()
    feeds = {reference.get_inputs()[0].name: x}
    got = one.run(None, feeds)
    for g, t, w in zip(got, two.run(None, feeds), reference.run(None, feeds), strict=True):
        assert g.shape == w.shape
        assert np.abs(g - w).max() <= TOLERANCE * np.abs(w).max()
        assert np.array_equal(g, t)
    return [np.asarray(g) for g in got]


def speech() -> np.ndarray:
    """Windows [n, samples, 1] of a recorded voice, by linear interpolation from 8 kHz."""
    with wave.open(str(models.fetch_or_skip("french-speech") / "demo-instruct.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
    at = np.arange(int(len(samples) * RATE / file.getframerate()) - 1) * file.getframerate() / RATE
    sound = np.interp(at, np.arange(len(samples)), samples).astype(np.float32)
    return sound[: len(sound) // SAMPLES * SAMPLES].reshape(-1, SAMPLES, 1)


def chord(*midi: int) -> np.ndarray:
    """[1, samples, 1]: notes with three partials each, dying away."""
    seconds = np.arange(SAMPLES) / RATE
    partials = [(440 * 2 ** ((m - 69) / 12) * k, 0.2 / k) for m in midi for k in (1, 2, 3)]
    sound = sum(a * np.sin(2 * np.pi * f * seconds) for f, a in partials) * np.exp(-seconds)
    return np.asarray(sound, np.float32)[None, :, None]


@pytest.mark.parametrize("window", [0, 7, 20])
def test_speech(window: int) -> None:
    compare(speech()[window][None])


def test_a_batch_of_speech() -> None:
    batch = speech()[3:6]
    together = compare(batch)
    alone = [sessions()[1].run(None, {sessions()[0].get_inputs()[0].name: b[None]}) for b in batch]
    for i, result in enumerate(together):
        assert np.array_equal(result, np.concatenate([a[i] for a in alone])), "a batch changes no bit"


def test_the_notes_of_a_chord() -> None:
    notes = compare(chord(60, 64, 67))[1]  # [1, frames, 88 keys from A0, which is note 21]
    loudest = np.argsort(-notes[0].mean(axis=0))[:3]
    assert sorted(loudest + 21) == [60, 64, 67]


def test_layouts() -> None:
    """None of the transposes around the 32 convolutions is left."""
    graph, _ = lower_model(path_of())
    assert not [s.name for s in graph.steps if s.op == Op.TRANSPOSE]
