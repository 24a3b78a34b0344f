"""pyfrspell's two int8 models decode French words to what onnxruntime decodes, letter by letter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import frugal
import models
from frugal.compiler import compile_model

ort = pytest.importorskip("onnxruntime")

WORDS = [
    "mangeaient", "chevaux", "belles", "finissons", "étudiante", "travaillé", "oeil", "nationaux", "rapidement", "jouerions",
    "pris", "vieille", "héroïque", "voyageons", "naïf", "garçons", "qu'", "aujourd'hui", "parlera", "ouvertes", "cailloux",
    "vécu", "actrices", "connaît",
]  # fmt: skip
FORMS = [
    ("manger", "VERB", "P3", "INDI", "IMPA"), ("finir", "VERB", "P1", "INDI", "PRES"), ("cheval", "NOUN", "P3", "ALL", "ALL"),
    ("beau", "ADJE", "P3", "ALL", "ALL"), ("aller", "VERB", "P4", "INDI", "FUTU"), ("être", "VERB", "S1", "SUBJ", "PRES"),
]  # fmt: skip
# Relative to the largest logit.  Activations are quantized to 8 bits in the run: where a value lies between two codes the GRU's
# last bit decides, and one code of 160 to 320 moves a logit by less than a thousandth of the largest.
TOLERANCE = 1e-3


def decode(session: Any, text: str, vocabulary: list[str], limit: int = 32) -> tuple[str, list[np.ndarray]]:
    """Greedy decoding as the package does it: (letters, outputs of the last call)."""
    ids = {letter: i for i, letter in enumerate(vocabulary)}
    unknown, end, begin = ids["<unk>"], ids["<eos>"], ids["<bos>"]
    source = np.array([[*(ids.get(c, unknown) for c in text), end]], np.int64)
    names = {i.name for i in session.get_inputs()}
    target, outputs = [begin], []
    while len(target) <= limit:
        feeds = {"src": source, "src_len": np.array([source.shape[1]], np.int64), "tgt_in": np.array([target], np.int64)}
        outputs = list(session.run(None, {n: v for n, v in feeds.items() if n in names}))
        letters = next(o for o in outputs if o.ndim == 3)
        target.append(int(letters[0, -1].argmax()))
        if target[-1] == end:
            break
    return "".join(vocabulary[i] for i in target[1:] if i != end), outputs


def pair(path: Path) -> tuple[Any, Any]:
    return frugal.InferenceSession(compile_model(path)), ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def compare(path: Path, vocabulary: list[str], texts: list[str]) -> list[str]:
    ours, theirs = pair(path)
    spelled = []
    for text in texts:
        (got, outputs), (want, wanted) = decode(ours, text, vocabulary), decode(theirs, text, vocabulary)
        assert got == want, text
        for a, b in zip(outputs, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE * max(1.0, float(np.abs(b).max())))
        spelled.append(got)
    return spelled


def test_lemmas() -> None:
    folder = models.fetch_or_skip("pyfrspell")
    vocabulary = json.loads((folder / "lemma_type_vocab.json").read_text(encoding="utf-8"))["itos"]
    lemmas = compare(folder / "lemma_type_model.int8.onnx", vocabulary, WORDS)
    assert lemmas[0] == "manger" and lemmas[1] == "cheval"


def test_forms() -> None:
    folder = models.fetch_or_skip("pyfrspell")
    vocabulary = json.loads((folder / "derive_form_vocab.json").read_text(encoding="utf-8"))["itos"]
    texts = [f"L:{lemma}|W:{kind}|P:{person}|M:{mode}|T:{tense}" for lemma, kind, person, mode, tense in FORMS]
    assert all(compare(folder / "derive_form_model.int8.onnx", vocabulary, texts))
