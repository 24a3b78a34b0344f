"""Caches of float32, float16 and int8, with windows as rings: against onnxruntime, and what they must not change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frugal.bindings import kv

import frugal
from frugal import TextModel
from frugal.errors import InvalidArgument
from tests.quantize import decoders
from tests.text.test_text_model import PROMPTS, reference

Folder = Callable[..., Path]
# Of a log-probability of these tiny models, whose logits are around 5 and spread by random weights: what half floats (2^-11 of a
# key) and int8 (2^-8 of a head's largest) may change.
TOLERANCE = {"float32": 2e-3, "float16": 1e-2, "int8": 0.2}
WINDOWED = ["mistral", "qwen2", "gemma2", "gemma3"]
RANDOM = [int(t) for t in np.random.default_rng(0).integers(3, 60, 50)]


def likeliest(model: TextModel, tokens: list[int]) -> tuple[int, float]:
    """The next token and its log-probability."""
    got = model.generate(tokens, max_new_tokens=1, ignore_eos=True, logprobs=True)
    assert got.logprobs is not None
    return got.tokens[0], got.logprobs[0]


@pytest.mark.parametrize("cache", list(TOLERANCE))
@pytest.mark.parametrize("case", list(decoders.CASES))
def test_each_step_is_onnxruntimes(text_folder: Folder, case: str, cache: str) -> None:
    """Along onnxruntime's text; with int8 another token may be the likeliest, where two are about as likely."""
    model = TextModel.open(text_folder(case), cache=cache)
    for prompt in PROMPTS:
        want, logprobs = reference(text_folder(case), prompt, 12)
        got = [likeliest(model, [*prompt, *want[:i]]) for i in range(12)]
        np.testing.assert_allclose([p for _, p in got], logprobs, atol=TOLERANCE[cache])
        if cache != "int8":
            assert [t for t, _ in got] == want


def test_caches_have_the_types_asked_for(text_folder: Folder) -> None:
    kinds = {"float32": (1, 1), "float16": (10, 10), "int8": (3, 1)}
    for cache, (keys, scales) in kinds.items():
        plan = TextModel.open(text_folder(), cache=cache)._decoder.plan
        found = {t.name: (t.dtype, len(t.shape)) for t in plan.inputs if "past" in t.name}
        assert {t for n, t in found.items() if not n.endswith(".scale")} == {(keys, 4)}
        assert {t for n, t in found.items() if n.endswith(".scale")} == ({(scales, 3)} if cache == "int8" else set())
    with pytest.raises(InvalidArgument, match="cache: want one of float32, float16, int8"):
        TextModel.open(text_folder(), cache="int4")


@pytest.mark.parametrize("cache", list(TOLERANCE))
@pytest.mark.parametrize("case", ["llama", *WINDOWED, "bloom"])
def test_same_text_for_all_isas_threads_batches_and_chunks(
    text_folder: Folder, case: str, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from frugal.bindings.library import isa_list

    how: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.5, "ignore_eos": True, "logprobs": True}
    texts = ["hello there, what is that", "a", "1 and 2 ?"]
    found, before = [], frugal.isa()
    try:
        for isa, threads, chunk in [(i, t, 512) for i in isa_list() for t in (1, 2)] + [(before, 2, 7)]:
            frugal.set_isa(isa)
            # A chunk also sets the size of rings; where one has wrapped, sums have another order.
            monkeypatch.setattr(kv, "CHUNK", chunk if case not in WINDOWED else 512)
            model = TextModel.open(text_folder(case), threads=threads, cache=cache)
            rows = model.generate(texts, seed=5, **how)
            found.append([(g.tokens, g.logprobs) for g in rows])
            alone = [model.generate(t, seed=5 + i, **how) for i, t in enumerate(texts)]
            assert [(g.tokens, g.logprobs) for g in alone] == found[-1]
    finally:
        frugal.set_isa(before)
    assert all(f == found[0] for f in found)


@pytest.mark.parametrize("cache", list(TOLERANCE))
@pytest.mark.parametrize("case", WINDOWED)
def test_rings_that_wrap(text_folder: Folder, case: str, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rings of a few slots give the text of caches that hold everything; rows of unequal length, prefixes that are still there
    and others that are not.  Sums are in the order of the slots; with int8 a code may fall to the other side."""
    whole = TextModel.open(text_folder(case), cache=cache)
    long = {"max_new_tokens": 10, "ignore_eos": True, "logprobs": True}
    prompts = [RANDOM, RANDOM[:3], [*RANDOM[:47], 9], RANDOM[:44], RANDOM[:20], [*RANDOM[:20], 5, 5]]
    want = [whole.generate(p, **long) for p in prompts]
    texts = ["hello there, what is that ? i do not know", "a", "1 and 2"]
    want_rows = whole.generate(texts, **long)
    monkeypatch.setattr(kv, "CHUNK", 6)
    small = TextModel.open(text_folder(case), cache=cache)
    got = [small.generate(p, **long) for p in prompts]
    windows = [c for c in small._decoder._caches if c.window]
    assert windows and all(c.slots(64) == c.window + 6 < 20 for c in windows)
    for g, w in zip([*got, *small.generate(texts, **long)], [*want, *want_rows], strict=True):
        assert g.tokens == w.tokens
        np.testing.assert_allclose(g.logprobs or [], w.logprobs or [], atol=1e-3 if cache == "int8" else 1e-4)


@pytest.mark.parametrize("case", ["llama", "gemma3"])
@pytest.mark.parametrize("cache", list(TOLERANCE))
def test_prefixes_and_growth_change_nothing(text_folder: Folder, case: str, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from frugal.bindings import text

    monkeypatch.setattr(text, "GROW", 8)
    model = TextModel.open(text_folder(case), cache=cache)
    for prompt in (RANDOM[:5], RANDOM[:6], RANDOM[:30], RANDOM[:12], [*RANDOM[:12], 4], RANDOM):
        how: dict[str, Any] = {"max_new_tokens": 3, "ignore_eos": True, "logprobs": True}
        got = model.generate(prompt, **how)
        want = TextModel.open(text_folder(case), cache=cache).generate(prompt, **how)
        assert (got.tokens, got.logprobs) == (want.tokens, want.logprobs)


@pytest.mark.parametrize("form", ["growing", "fixed"])
@pytest.mark.parametrize("case", ["llama", "mistral", "bloom"])
def test_layers_are_two_writes_and_one_read(text_folder: Folder, case: str, form: str) -> None:
    """Masks, the copies of caches and the turning of keys are gone from the steps."""
    from frugal.compiler import lower_model

    graph, _ = lower_model(text_folder(case, form) / "model.onnx", generation="int8")
    count = graph.count()
    layers = count["attention_kept"]
    assert layers == 2 and count["cache_append"] == 2 * layers
    assert not {"tensor_scatter", "attention", "attention_cache", "where"} & count.keys()
    assert count.get("rotary", 0) == (0 if case == "bloom" else layers)  # of queries
