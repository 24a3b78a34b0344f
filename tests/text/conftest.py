"""Tiny text models: the decoders of tests/quantize with a byte-level tokenizer of 64 tokens."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="the extra `quantize` is not installed")
pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from tests.quantize import decoders

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'judge' %}{{ raise_exception('no judges here') }}{% endif %}"
    "<{{ m['role'][0] }}>{{ m['content'] }};{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def tokenizer_json(size: int = 64) -> str:
    """`size` tokens: three special ones, bytes of a small alphabet, and the two halves of 'é' as bytes of their own."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers import decoders as td

    letters = list("abcdefghijklmnopqrstuvwxyz<>;?!.,'01234")
    special = ["<pad>", "<s>", "</s>"]
    halves = ["Ã", "©"]  # the bytes C3 A9
    words = ["Ġ", "Ċ"]
    tokens = special + letters + halves + words
    tokens += [f"Ġ{c}" for c in "abcdefghijklmnopqrstuvwxyz"][: size - len(tokens)]
    merges = [("Ġ", t[1:]) for t in tokens if len(t) == 2 and t.startswith("Ġ")]
    t = Tokenizer(models.BPE({c: i for i, c in enumerate(tokens)}, merges))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = td.ByteLevel()
    t.add_special_tokens(special)
    return str(t.to_str())


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """text_folder(case, cache) -> an exported folder, made once."""
    from frugal.quantize import export

    made: dict[tuple[str, str], Path] = {}
    root = tmp_path_factory.mktemp("texts")
    shapes, _ = decoders.golden()

    def get(case: str = "llama", cache: str = "growing") -> Path:
        if (case, cache) not in made:
            source = decoders.write(root / f"{case}-{cache}-src", case, shapes[case])
            (source / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
            names = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE}
            (source / "tokenizer_config.json").write_text(json.dumps(names))
            export(source, root / f"{case}-{cache}", cache=cache)
            made[case, cache] = root / f"{case}-{cache}"
        return made[case, cache]

    return get


@pytest.fixture(autouse=True)
def plan_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled plans stay among the tests."""
    monkeypatch.setenv("FRUGAL_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "plans"))
