"""TextModel against plain greedy decoding in onnxruntime, and what it promises: same bits, batches, prefixes, stops, errors."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

import frugal
from frugal import TextModel
from frugal.errors import FrugalError, InvalidArgument, InvalidModel, NoSuchFile, OutOfMemory
from tests.quantize import decoders
from tests.quantize.test_decoder import empty_caches, run

Folder = Callable[..., Path]
PROMPTS = [[5, 9, 31, 7, 12], [40, 41], [3, 3, 3, 8, 60, 22, 17, 9, 9, 30]]


def reference(folder: Path, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
    """Greedy tokens and their log-probabilities from onnxruntime, the whole text anew for each token."""
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    tokens, logprobs = list(prompt), []
    for _ in range(count):
        ids = np.array([tokens])
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(len(tokens))[None]}
        logits = run(session, feeds | empty_caches(session, 1, 0))[0][0, -1].astype(np.float64)
        tokens.append(int(logits.argmax()))
        logprobs.append(float(logits.max() - np.log(np.exp(logits).sum())))
    return tokens[len(prompt) :], logprobs


@pytest.mark.parametrize("cache", ["growing", "fixed"])
@pytest.mark.parametrize("case", list(decoders.CASES))
def test_greedy_is_onnxruntimes(text_folder: Folder, case: str, cache: str) -> None:
    model = TextModel.open(text_folder(case, cache), cache="float32")
    for prompt in PROMPTS:
        want, logprobs = reference(text_folder(case, "growing"), prompt, 12)
        got = model.generate(prompt, max_new_tokens=12, ignore_eos=True, logprobs=True)
        assert got.tokens == want and got.finish_reason == "length" and got.prompt_tokens == len(prompt)
        assert got.logprobs is not None
        np.testing.assert_allclose(got.logprobs, logprobs, atol=2e-3)  # float32 sums of other orders; logits are around 5


def test_same_text_for_all_isas_threads_and_batches(text_folder: Folder) -> None:
    """Sampled texts: one prompt alone or among others, each instruction set, 1 to 3 threads."""
    how: dict[str, Any] = {
        "max_new_tokens": 20,
        "temperature": 1.5,
        "top_p": 0.95,
        "seed": 11,
        "ignore_eos": True,
        "logprobs": True,
    }
    texts = ["hello there", "a", "what is 1 and 2 ?"]
    found = []
    before = frugal.isa()
    from frugal.bindings.library import isa_list

    try:
        for isa in isa_list():
            frugal.set_isa(isa)
            for threads in (1, 2, 3):
                model = TextModel.open(text_folder(), threads=threads)
                together = model.generate(texts, **how)
                alone = [model.generate(t, **(how | {"seed": 11 + i})) for i, t in enumerate(texts)]
                found.append([(g.tokens, g.logprobs) for g in together])
                assert [(g.tokens, g.logprobs) for g in alone] == found[0]
    finally:
        frugal.set_isa(before)
    assert all(f == found[0] for f in found)
    assert len({tuple(t) for t, _ in found[0]}) == 3
    assert model.generate(texts[0], **(how | {"seed": 12})).tokens != found[0][0][0]


def test_prefix_is_reused_and_changes_nothing(text_folder: Folder) -> None:
    model = TextModel.open(text_folder())
    reads: list[tuple[int, int]] = []
    long = [int(t) for t in np.random.default_rng(0).integers(3, 60, 40)]
    model.generate(long, max_new_tokens=4, ignore_eos=True)
    for prompt in ([*long, 7, 8], long[:20], [*long[:10], 9, 9], long, [4, *long]):
        reads.clear()
        got = model.generate(prompt, max_new_tokens=6, ignore_eos=True, logprobs=True, progress=lambda a, b: reads.append((a, b)))
        want = TextModel.open(text_folder()).generate(prompt, max_new_tokens=6, ignore_eos=True, logprobs=True)
        assert (got.tokens, got.logprobs) == (want.tokens, want.logprobs)
        assert reads[-1] == (len(prompt), len(prompt))


def test_long_prompt_in_chunks(text_folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt read in several chunks gives the text of one that was read at once, rows of unequal length too."""
    from frugal.bindings import kv

    prompts = ["abc def ghi jkl mno pqr stu", "a"]
    whole = TextModel.open(text_folder()).generate(prompts, max_new_tokens=8, ignore_eos=True, logprobs=True)
    monkeypatch.setattr(kv, "CHUNK", 5)
    parts = TextModel.open(text_folder()).generate(prompts, max_new_tokens=8, ignore_eos=True, logprobs=True)
    assert [(g.tokens, g.logprobs) for g in parts] == [(g.tokens, g.logprobs) for g in whole]


def test_stop_strings_and_tokens(text_folder: Folder) -> None:
    model = TextModel.open(text_folder())
    whole = model.generate("what is it", max_new_tokens=24, temperature=1.0, seed=3, ignore_eos=True)
    stop = str(whole)[6:9]
    cut = model.generate("what is it", max_new_tokens=24, temperature=1.0, seed=3, ignore_eos=True, stop=stop)
    assert cut.finish_reason == "stop" and str(cut) == str(whole)[: str(whole).index(stop)]
    pieces = list(
        model.generate("what is it", max_new_tokens=24, temperature=1.0, seed=3, ignore_eos=True, stop=[stop], stream=True)
    )
    assert "".join(pieces) == str(cut) and len(pieces) > 1
    assert model.stop_tokens == [2]
    model.stop_tokens = [whole.tokens[4]]
    short = model.generate("what is it", max_new_tokens=24, temperature=1.0, seed=3)
    assert short.tokens == whole.tokens[: whole.tokens.index(whole.tokens[4])] and short.finish_reason == "stop"


def test_streaming_equals_the_whole(text_folder: Folder) -> None:
    model = TextModel.open(text_folder())
    options: dict[str, Any] = {"max_new_tokens": 40, "temperature": 3.0, "ignore_eos": True}
    for seed in range(5):
        pieces = list(model.generate("où", stream=True, seed=seed, **options))
        assert "".join(pieces) == str(model.generate("où", seed=seed, **options))
        assert not any(p.endswith("\ufffd") for p in pieces[:-1])


def test_context_is_the_end(text_folder: Folder) -> None:
    model = TextModel.open(text_folder(), context=16)
    got = model.generate(PROMPTS[0], max_new_tokens=100, ignore_eos=True)
    assert got.finish_reason == "context" and got.prompt_tokens + len(got.tokens) == 16
    assert got.tokens == reference(text_folder(), PROMPTS[0], 11)[0]
    with pytest.raises(InvalidArgument, match="16 tokens, the model's context 16"):
        model.generate([5] * 16)
    with pytest.raises(InvalidArgument, match="2 to 64 tokens"):
        TextModel.open(text_folder(), context=65)


def test_rows_end_on_their_own(text_folder: Folder) -> None:
    """A row that reached its stop token waits for the others, whose tokens stay what they are."""
    model = TextModel.open(text_folder())
    alone = [reference(text_folder(), p, 16)[0] for p in PROMPTS]
    model.stop_tokens = [alone[0][3]]
    texts = [model.tokenizer.decode(p, skip_special_tokens=False) for p in PROMPTS]
    prompts = [model.tokenizer.encode(t).ids for t in texts]
    got = model.generate(texts, max_new_tokens=16)
    for g, prompt in zip(got, prompts, strict=True):
        want = reference(text_folder(), prompt, 16)[0]
        end = want.index(alone[0][3]) if alone[0][3] in want else 16
        assert g.tokens == want[:end]


def test_cancel_from_another_thread(text_folder: Folder) -> None:
    model = TextModel.open(text_folder())
    got: list[Any] = []
    how = {"ignore_eos": True, "temperature": 1.0}
    for piece in model.generate("hello", max_new_tokens=50, stream=True, **how):
        got.append(piece)
        if len(got) == 3:
            model.cancel()
    assert len(got) <= 5
    thread = threading.Thread(target=lambda: (time.sleep(0.01), model.cancel()))
    thread.start()
    done = model.generate("hello", max_new_tokens=58, **how)
    thread.join()
    assert done.finish_reason in ("cancelled", "length")
    assert model.generate("hello", max_new_tokens=3, **how).finish_reason == "length"


def test_leaving_the_iterator_frees_the_model(text_folder: Folder) -> None:
    model = TextModel.open(text_folder())
    for _ in model.generate("hello", max_new_tokens=50, stream=True, ignore_eos=True):
        break
    assert len(model.generate("hello", max_new_tokens=3, ignore_eos=True).tokens) == 3


def test_threads_take_turns(text_folder: Folder) -> None:
    model = TextModel.open(text_folder())
    want = [model.generate(p, max_new_tokens=10, ignore_eos=True).tokens for p in PROMPTS]
    got: dict[int, list[int]] = {}

    def work(i: int) -> None:
        for _ in range(5):
            got[i] = model.generate(PROMPTS[i], max_new_tokens=10, ignore_eos=True).tokens

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [got[i] for i in range(3)] == want


@pytest.mark.parametrize(
    "options,message",
    [
        ({"temperature": -1}, "temperature must be a number from 0 to 100"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"top_k": 2.5}, "top_k must be a whole number"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"seed": -1}, "seed"),
        ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"stop": [3]}, "stop must be strings"),
    ],
)
def test_bad_options(text_folder: Folder, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        TextModel.open(text_folder()).generate("a", **options)


def test_bad_prompts(text_folder: Folder) -> None:
    model = TextModel.open(text_folder())
    for prompt in ("", [], [64], [-1], [1.5], [["a"]]):
        with pytest.raises(InvalidArgument):
            model.generate(prompt)
    assert model.generate("a", max_new_tokens=0) == ""


def test_bad_folders(text_folder: Folder, tmp_path: Path) -> None:
    with pytest.raises(NoSuchFile, match="no such folder"):
        TextModel.open(tmp_path / "none")
    with pytest.raises(NoSuchFile, match=r"neither model\.onnx"):
        TextModel.open(tmp_path)
    folder = tmp_path / "m"
    shutil.copytree(text_folder(), folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(NoSuchFile, match=r"tokenizer\.json"):
        TextModel.open(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidModel, match="not a tokenizer"):
        TextModel.open(folder)
    large = json.loads((text_folder() / "tokenizer.json").read_text())
    large["model"]["vocab"] |= {f"x{i}": 64 + i for i in range(9)}
    (folder / "tokenizer.json").write_text(json.dumps(large))
    with pytest.raises(InvalidModel, match="73 tokens, the model 64"):
        TextModel.open(folder)


def test_nan_weights(text_folder: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(text_folder(), folder)
    data = bytearray((folder / "model.onnx.data").read_bytes())
    data[-4096:] = np.full(1024, np.nan, np.float32).tobytes()
    (folder / "model.onnx.data").write_bytes(data)
    with pytest.raises(FrugalError, match="NaN"):
        TextModel.open(folder).generate("hello")


def test_memory_limit(text_folder: Folder) -> None:
    with pytest.raises(FrugalError, match="memory"):
        TextModel.open(text_folder(), memory_limit_bytes=10_000).generate("hello")
    model = TextModel.open(text_folder(), memory_limit_bytes=1_000_000)
    assert len(model.generate("hello", max_new_tokens=3, ignore_eos=True).tokens) == 3
    with pytest.raises(OutOfMemory, match=r"limit of 1000000 bytes .* 1638400 bytes of caches \(200 x 64 tokens\)"):
        model.generate(["hello"] * 200, max_new_tokens=60)
    assert len(model.generate("hello", max_new_tokens=3, ignore_eos=True).tokens) == 3  # and the model lives on


def test_an_encoder_is_no_text_model(tmp_path: Path) -> None:
    from frugal.quantize import export

    from tests.quantize import checkpoints

    folder, _, _ = checkpoints.tiny(tmp_path / "src", "bert")
    export(folder, tmp_path / "out")
    with pytest.raises(InvalidModel, match="not a decoder"):
        TextModel.open(tmp_path / "out")


# ---- chat ----
def test_chat(text_folder: Folder) -> None:
    model = TextModel.open(text_folder())
    messages = [{"role": "system", "content": "be good"}, {"role": "user", "content": "hi"}]
    assert model.chat_prompt(messages) == "<s><s>be good;<u>hi;<a>"
    want = model.generate(model.chat_prompt(messages), max_new_tokens=5, add_special_tokens=False)
    assert model.chat(messages, max_new_tokens=5).tokens == want.tokens
    assert "".join(model.chat(messages, max_new_tokens=5, stream=True)) == str(want)
    with pytest.raises(InvalidArgument, match="no judges here"):
        model.chat([{"role": "judge", "content": "x"}])
    with pytest.raises(InvalidArgument, match="'role' and 'content'"):
        model.chat([{"role": "user"}])


@pytest.mark.parametrize(
    "template,message",
    [
        ("{{ ''.__class__.__mro__ }}", "sandbox"),
        ("{{ messages.append(1) }}", "sandbox"),
        ("{% for", "fails"),
        ("{{ 1 // 0 }}", "fails"),
        ("{{ range(10**9) | list }}", "fails|sandbox"),
    ],
)
def test_hostile_templates(text_folder: Folder, tmp_path: Path, template: str, message: str) -> None:
    folder = tmp_path / "m"
    shutil.copytree(text_folder(), folder)
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(InvalidModel, match=message):
        TextModel.open(folder).chat([{"role": "user", "content": "hi"}])


def test_model_without_template(text_folder: Folder, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(text_folder(), folder)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(InvalidArgument, match="no chat template"):
        TextModel.open(folder).chat([{"role": "user", "content": "hi"}])
