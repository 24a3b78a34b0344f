"""SmolLM2-135M-Instruct from its GGUF: greedy text as onnxruntime writes it on the same weights; int8 activations; tokenizer."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import frugal
import likelihood
import models

pytest.importorskip("onnxruntime")
pytest.importorskip("tokenizers")

PROMPTS = [
    "The capital of France is",
    "La capitale de la France est",
    "def fibonacci(n):",
    "Il était une fois, dans une forêt,",
    "Water boils at a temperature of",
    "Les trois couleurs du drapeau français sont",
    "Once upon a time, a fox and a crow",
    "Pour faire une omelette, il faut",
    "The three laws of thermodynamics state that",
    "Les planètes du système solaire sont",
    "Dear Sir or Madam,",
    "Madame, Monsieur,",
    "1, 1, 2, 3, 5, 8,",
    "Aujourd'hui, à Paris, il fait",
    "import numpy as np\n",
    "La Révolution française commence en",
    "A good way to save energy at home is",
    "Pour économiser l'énergie à la maison,",
    "Q: What is the largest ocean?\nA:",
    "Question : quel est le plus long fleuve d'Europe ?\nRéponse :",
]
COUNT = 64
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


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this module's plans are kept."""
    return tmp_path_factory.mktemp("plans")


@pytest.fixture(autouse=True)
def own_cache(plans: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One cache for the module: its tests compile the same large model."""
    monkeypatch.setenv("FRUGAL_CACHE_DIR", str(plans))
    return plans


def test_greedy_text_is_that_of_the_float_reference(smollm2: Path) -> None:
    """With float activations each token is onnxruntime's likeliest after the same text, so by induction the texts are equal;
    up to a token whose two best logits lie within rounding."""
    model, logits = frugal.TextModel.open(smollm2, activations="float"), likelihood.reference(smollm2)
    for prompt, text in zip(PROMPTS, model.generate(PROMPTS, max_new_tokens=COUNT, ignore_eos=True), strict=True):
        ids, made = model.tokenizer.encode(prompt).ids, text.tokens
        assert len(made) == COUNT
        want = logits([*ids, *made])[len(ids) - 1 : -1]
        behind = want.max(-1) - want[np.arange(COUNT), made]
        assert behind.max() < 1e-3, (prompt, int(behind.argmax()), float(behind.max()))


# (windows, tokens of each): the long form is for who works on the precision.
LONG = bool(os.environ.get("FRUGAL_TEST_LONG"))
WINDOWS = (40, 512) if LONG else (4, 256)


@pytest.mark.parametrize("language", ["en", "fr"])
def test_int8_activations_agree(smollm2: Path, language: str) -> None:
    """Real prose, teacher-forced: 97 % the same likeliest token, perplexity within 0.5 %, as far as so few tokens can tell (the
    intervals must reach that)."""
    model = frugal.TextModel.open(smollm2)
    texts = likelihood.windows(model.tokenizer.encode(likelihood.paragraphs(language)).ids, *WINDOWS)
    want = likelihood.score(likelihood.reference(smollm2), texts)
    plain = likelihood.compare(likelihood.score(likelihood.session(smollm2, "float"), texts), want)
    assert abs(plain.change) < 1e-4 and plain.agreement > 0.999, str(plain)
    got = likelihood.compare(likelihood.score(likelihood.session(smollm2), texts), want)
    print(f"{language}: float perplexity {want.perplexity:.2f}; int8 activations, {got}")
    assert got.agreement_interval[1] >= 0.97 and got.change_interval[0] <= 0.005, str(got)


def test_writing_predicts_as_reading_does(smollm2: Path) -> None:
    """One token after the other through the caches of TextModel gives the logits of the whole text at once, bit for bit."""
    model = frugal.TextModel.open(smollm2, cache="float32")
    tokens = model.tokenizer.encode(PROMPTS[3]).ids[:12]
    np.testing.assert_array_equal(likelihood.stepwise(model)(tokens), likelihood.session(smollm2)(tokens))


@pytest.mark.parametrize("language", ["en", "fr"])
def test_int8_cache_agrees(smollm2: Path, language: str) -> None:
    """With a cache of int8 too, perplexity within 1 % as far as so few tokens can tell, and little more than without it."""
    model = frugal.TextModel.open(smollm2, cache="int8")
    texts = likelihood.windows(model.tokenizer.encode(likelihood.paragraphs(language)).ids, *((16, 512) if LONG else (8, 64)))
    want = likelihood.score(likelihood.reference(smollm2), texts)
    got = likelihood.score(likelihood.stepwise(model), texts)
    over = likelihood.compare(got, likelihood.score(likelihood.session(smollm2), texts))
    whole = likelihood.compare(got, want)
    print(f"{language}: int8 activations and cache, {whole}; against a float cache, {over}")
    assert whole.change_interval[0] <= 0.01 and over.change_interval[0] <= 0.005, (str(whole), str(over))


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
