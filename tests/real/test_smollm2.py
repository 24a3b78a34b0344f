"""SmolLM2-135M-Instruct from its GGUF: greedy text as onnxruntime writes it on the same weights; int8 activations; tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import frugal
import models

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("tokenizers")

PROMPTS = [
    "The capital of France is",
    "La capitale de la France est",
    "def fibonacci(n):",
    "Il était une fois, dans une forêt,",
    "Water boils at a temperature of",
    "Les trois couleurs du drapeau français sont",
]
COUNT = 32
TEXT = "L'été à Paris : 12 345 € d'économies ! They're 100% sure… \n\n\tdéjà vu 😀 <|im_start|>user\n"

ROUND_TRIPS = [TEXT, "", " a", "a  b   c", "\r\n\r\n", "naïve café — “quotes”", "x" * 200]


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported folder."""
    from frugal.quantize import export

    source = next(models.fetch_or_skip("smollm2").glob("*.gguf"))
    out = tmp_path_factory.mktemp("smollm2") / "out"
    result = export(source, out)
    assert result.notes == []  # every bit of the file is kept, and the tokenizer is known
    return out


@pytest.fixture(scope="module", autouse=True)
def plans(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Plans are kept for this module only: they are large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRUGAL_CACHE_DIR", str(tmp_path_factory.mktemp("plans")))
        yield


class Reference:
    """onnxruntime with float activations on the same file."""

    def __init__(self, folder: Path) -> None:
        options = ort.SessionOptions()
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
        options.log_severity_level = 3
        self.session = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        self.outputs = [o.name for o in self.session.get_outputs()]

    def logits(self, tokens: list[int]) -> np.ndarray:
        """float32 [tokens, vocabulary] of a whole text."""
        return self._run(tokens, 0, {})[0][0]

    def _run(self, tokens: list[int], past: int, caches: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        feeds: dict[str, Any] = {
            "input_ids": np.array([tokens]),
            "attention_mask": np.ones((1, past + len(tokens)), np.int64),
            "position_ids": np.arange(past, past + len(tokens))[None],
        }
        empty = {
            i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32) for i in self.session.get_inputs() if "past" in i.name
        }
        got = self.session.run(None, feeds | (caches or empty))
        return got[0], {n.replace("present", "past_key_values"): v for n, v in zip(self.outputs[1:], got[1:], strict=True)}

    def greedy(self, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
        """Tokens, and how far the best logit was ahead of the second."""
        made, ahead, part, past, caches = list[int](), list[float](), prompt, 0, dict[str, np.ndarray]()
        for _ in range(count):
            logits, caches = self._run(part, past, caches)
            past += len(part)
            best = np.sort(logits[0, -1])[-2:]
            ahead.append(float(best[1] - best[0]))
            part = [int(logits[0, -1].argmax())]
            made += part
        return made, ahead


def test_greedy_text_is_that_of_the_float_reference(smollm2: Path) -> None:
    """Equal, up to a token whose two best logits lie within rounding."""
    model, reference = frugal.TextModel.open(smollm2, activations="float"), Reference(smollm2)
    whole = 0
    for prompt in PROMPTS:
        ids = model.tokenizer.encode(prompt).ids
        want, ahead = reference.greedy(ids, COUNT)
        got = model.generate(prompt, max_new_tokens=COUNT, ignore_eos=True).tokens
        differ = next((i for i in range(COUNT) if got[i] != want[i]), None)
        assert differ is None or ahead[differ] < 1e-3, (prompt, differ, ahead[differ])
        whole += differ is None
    assert whole >= len(PROMPTS) - 1


def test_int8_activations_agree(smollm2: Path) -> None:
    """Top-1 of every position of a text, teacher-forced: logits of int8 activations against float ones."""
    options = frugal.SessionOptions()
    session = frugal.InferenceSession(smollm2 / "model.onnx", options)
    reference = Reference(smollm2)
    tokenizer = frugal.TextModel.open(smollm2).tokenizer
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")[:1600]
    ids = tokenizer.encode(text).ids[:384]
    feeds: dict[str, Any] = {
        "input_ids": np.array([ids]),
        "attention_mask": np.ones((1, len(ids)), np.int64),
        "position_ids": np.arange(len(ids))[None],
    }
    feeds |= {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32) for i in session.get_inputs() if "past" in i.name}
    got = session.run(["logits"], feeds)[0][0]
    want = reference.logits(ids)
    assert (got.argmax(-1) == want.argmax(-1)).mean() >= 0.95  # issue: 97 % over long texts; these are 384 tokens

    def surprise(logits: np.ndarray) -> float:
        wide = logits[:-1].astype(np.float64)
        wide -= wide.max(-1, keepdims=True)
        return float(np.mean(np.log(np.exp(wide).sum(-1)) - wide[np.arange(len(ids) - 1), ids[1:]]))

    assert abs(surprise(got) - surprise(want)) < 0.02


def test_tokenizer_round_trips(smollm2: Path) -> None:
    tokenizer = frugal.TextModel.open(smollm2).tokenizer
    for text in ROUND_TRIPS:
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
    assert tokenizer.encode("<|im_start|>user").ids[0] == 1
    assert [tokenizer.id_to_token(i) for i in tokenizer.encode("12 345").ids] == ["1", "2", "Ġ", "3", "4", "5"]


def test_chat_template(smollm2: Path) -> None:
    model = frugal.TextModel.open(smollm2)
    prompt = model.chat_prompt([{"role": "user", "content": "Quelle est la capitale de la France ?"}])
    assert prompt.endswith("<|im_start|>user\nQuelle est la capitale de la France ?<|im_end|>\n<|im_start|>assistant\n")
    answer = model.chat([{"role": "user", "content": "Bonjour"}], max_new_tokens=24)
    assert answer and answer.finish_reason in ("stop", "length")
    assert model.generate("The capital of France is", max_new_tokens=1) == " Paris"
