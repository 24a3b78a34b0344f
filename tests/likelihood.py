"""How well a model predicts real text: likelihood of each token, its likeliest token, and two ways to compute them side by side.

A way is a function: tokens -> logits float32 [tokens, vocabulary] of one text from its first token on.  `reference` (onnxruntime,
float activations), `session` (our InferenceSession) and `stepwise` (the Decoder of TextModel, one token after the other, through
its caches) make such functions; tests of other caches or activations bring their own.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Logits = Callable[[list[int]], np.ndarray]


# ---- text ----
def paragraphs(language: str) -> str:
    """The prose of debian-reference ('en' or 'fr'), a line a paragraph: lists, tables, commands and contents are left out."""
    import models

    folder = models.fetch_or_skip(f"debian-reference-{language}")
    raw = gzip.decompress((folder / f"debian-reference.{language}.txt.gz").read_bytes()).decode("utf-8")
    found = []
    for block in raw.split("\n\n"):
        text = " ".join(block.split())
        letters = sum(c.isalpha() or c == " " for c in text)
        if len(text) >= 120 and letters >= 0.88 * len(text) and not text[0].isdigit():
            found.append(text)
    return "\n".join(found)


def windows(tokens: Sequence[int], count: int, length: int) -> list[list[int]]:
    """`count` pieces of `length` tokens, spread evenly over a text."""
    last = len(tokens) - length
    assert last >= (count - 1) * length, "the text is too short for that many windows"
    starts = [round(i * last / max(1, count - 1)) for i in range(count)]
    return [list(tokens[a : a + length]) for a in starts]


# ---- scores ----
@dataclass(frozen=True)
class Scores:
    """nll: of each token after a window's first, in nats; best: the likeliest token there.  Both [windows, length - 1]."""

    nll: np.ndarray
    best: np.ndarray

    @property
    def perplexity(self) -> float:
        """exp of the mean nll."""
        return math.exp(float(self.nll.mean()))


def score(logits: Logits, texts: Sequence[list[int]]) -> Scores:
    """Teacher-forced: every token is predicted from the true ones before it."""
    nll, best = [], []
    for tokens in texts:
        wide = logits(tokens)[:-1].astype(np.float64)
        wide -= wide.max(-1, keepdims=True)
        nll.append(np.log(np.exp(wide).sum(-1)) - wide[np.arange(len(tokens) - 1), tokens[1:]])
        best.append(wide.argmax(-1))
    return Scores(np.array(nll), np.array(best))


@dataclass(frozen=True)
class Comparison:
    """change: perplexity / the reference's - 1; agreement: how often both have the same likeliest token; 95 % intervals."""

    tokens: int
    change: float
    change_interval: tuple[float, float]
    agreement: float
    agreement_interval: tuple[float, float]

    def __str__(self) -> str:
        (a, b), (c, d) = self.change_interval, self.agreement_interval
        return (
            f"{self.tokens} tokens: perplexity {self.change:+.2%} ({a:+.2%} to {b:+.2%}),"
            f" top-1 {self.agreement:.2%} ({c:.2%} to {d:.2%})"
        )


def compare(got: Scores, want: Scores) -> Comparison:
    """Intervals: the windows are the independent samples of the likelihood (normal), Wilson's of the agreement."""
    gap = (got.nll - want.nll).mean(1)
    centre, half = float(gap.mean()), 1.96 * float(gap.std(ddof=1)) / math.sqrt(len(gap)) if len(gap) > 1 else math.inf
    n, p, z = got.best.size, float((got.best == want.best).mean()), 1.96
    middle, reach = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    agreement = (middle - reach) / (1 + z * z / n), (middle + reach) / (1 + z * z / n)
    change = (math.expm1(centre - half), math.expm1(min(centre + half, 700.0)))
    return Comparison(n, math.expm1(centre), change, p, agreement)


# ---- ways ----
def _growing(session: Any, tokens: list[int]) -> np.ndarray:
    """One run of a decoder with growing caches, which are empty."""
    feeds: dict[str, Any] = {
        "input_ids": np.array([tokens]),
        "attention_mask": np.ones((1, len(tokens)), np.int64),
        "position_ids": np.arange(len(tokens))[None],
    }
    inputs = session.get_inputs()
    feeds |= {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32) for i in inputs if "past" in i.name}
    return np.asarray(session.run(["logits"], {i.name: feeds[i.name] for i in inputs})[0][0])


def reference(folder: Path) -> Logits:
    """onnxruntime on the folder's model.onnx, quantized weights times float activations."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    made = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    return lambda tokens: _growing(made, tokens)


def session(folder: Path, activations: str = "int8") -> Logits:
    """frugal.InferenceSession on the folder's model.onnx, a whole text at once."""
    import frugal

    options = frugal.SessionOptions()
    options.add_session_config_entry("frugal.activations", activations)
    made = frugal.InferenceSession(folder / "model.onnx", options)
    return lambda tokens: _growing(made, tokens)


def stepwise(model: Any) -> Logits:
    """A frugal.TextModel's decoder fed one token after the other: what it computes while it writes, with its caches."""

    def logits(tokens: list[int]) -> np.ndarray:
        return np.stack(list(_steps(model._decoder, tokens)))

    return logits


def _steps(decoder: Any, tokens: list[int]) -> Iterator[np.ndarray]:
    from frugal.bindings._ffi import ffi
    from frugal.bindings.text import Sampling

    decoder.start([[(tokens[0] + 1) % decoder.vocabulary]], [Sampling()], [], len(tokens))  # nothing in common: from the start
    for n in range(1, len(tokens) + 1):
        decoder.start([tokens[:n]], [Sampling()], [], len(tokens) - n)
        data = ffi.buffer(decoder._step[0]["logits"], 4 * decoder.vocabulary)
        yield np.frombuffer(data, np.float32).copy()
