"""Tokenizers of .gguf files give llama.cpp's ids: 320 texts recorded of 10 000 that were compared (make_tokenizer_golden.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from frugal.quantize.gguf import GgufFile
from frugal.quantize.gguf.tokenizer import companions
from tokenizers import Tokenizer

import models

from . import gguf_files, tokenizer_cases


def differing(file: Path, case: str) -> list[str]:
    """Texts whose ids are not llama.cpp's."""
    _, texts, ids = tokenizer_cases.load()
    ours = Tokenizer.from_str(companions(GgufFile(file))["tokenizer.json"])
    assert len(texts) == len(ids[case]) > 300
    return [t for t, want in zip(texts, ids[case], strict=True) if ours.encode(t, add_special_tokens=False).ids != want]


@pytest.mark.parametrize("case", [*tokenizer_cases.SPLITTINGS, *tokenizer_cases.PIECES])
def test_ids_are_llama_cpps(tmp_path: Path, case: str) -> None:
    vocabularies, texts, _ = tokenizer_cases.load()
    base = {"general.architecture": "llama"}
    file = gguf_files.write(tmp_path / "t.gguf", base | tokenizer_cases.metadata(case, vocabularies), {})
    found = differing(file, case)
    assert [t for t in found if not tokenizer_cases.known_difference(case, t)] == []
    assert len(found) < len(texts) / 8


def test_smollm2(tmp_path: Path) -> None:
    found = differing(next(models.fetch_or_skip("smollm2").glob("*.gguf")), tokenizer_cases.SMOLLM2)
    assert [t for t in found if not tokenizer_cases.known_difference(tokenizer_cases.SMOLLM2, t)] == []
