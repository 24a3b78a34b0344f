"""EmbeddingModel: sentence-transformers' vectors, prompts, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from frugal import EmbeddingModel, InferenceSession
from frugal.errors import InvalidArgument, InvalidModel

from . import sentences

Folder = Callable[..., Path]


# ---- embeddings ----
@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny sentence encoder with the byte tokenizer."""
    from frugal.quantize import export

    from tests.quantize import checkpoints
    from tests.quantize.test_export import st_modules

    from .conftest import tokenizer_json

    root = tmp_path_factory.mktemp("encoder")
    folder, _, _ = checkpoints.tiny(root / "src", "bert")
    st_modules(folder, "mean", True)
    (folder / "tokenizer.json").write_text(tokenizer_json(50), encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    export(folder, root / "out")
    return root / "out"


def test_encode(encoder: Path) -> None:
    model, session = EmbeddingModel.open(encoder), InferenceSession(encoder / "model.onnx")
    texts = ["hello you", "a", "what is this ?", "a very long sentence that is cut at twenty tokens, surely so"]
    got = model.encode(texts, batch_size=3)
    assert got.shape == (4, model.size) and got.dtype == np.float32
    for text, vector in zip(texts, got, strict=True):
        ids = np.array([model.tokenizer.encode(text).ids[:20]])
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        np.testing.assert_array_equal(vector, session.run(["sentence_embedding"], feeds)[0][0])
        np.testing.assert_array_equal(vector, model.encode(text))
    np.testing.assert_allclose(np.linalg.norm(model.encode(texts, normalize_embeddings=True), axis=1), 1, atol=1e-6)
    assert model.encode([]).shape == (0, model.size)


def test_encode_refuses(encoder: Path, text_folder: Folder) -> None:
    with pytest.raises(InvalidArgument, match="encode takes"):
        EmbeddingModel.open(encoder).encode([3])  # type: ignore[list-item]
    with pytest.raises(InvalidModel, match="no output 'sentence_embedding'"):
        EmbeddingModel.open(text_folder())


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingModel:
    """all-MiniLM-L6-v2 with its float weights."""
    from frugal.quantize import export

    import models

    out = tmp_path_factory.mktemp("minilm") / "out"
    export(models.fetch_or_skip("all-MiniLM-L6-v2"), out)
    return EmbeddingModel.open(out)


@pytest.mark.parametrize("way", sentences.WAYS)
def test_vectors_are_those_of_sentence_transformers(minilm: EmbeddingModel, way: str) -> None:
    """Recorded: prompts, spaces around, an empty and a long sentence, fewer elements; and each sentence alone."""
    with np.load(sentences.GOLDEN) as f:
        want = f[way]
    got = minilm.encode(sentences.SENTENCES, batch_size=2, **sentences.WAYS[way])
    np.testing.assert_allclose(got, want, atol=2e-6)  # float32 sums of another order; elements are around 0.05
    assert got.dtype == want.dtype and minilm.max_seq_length == 256
    one = minilm.encode(sentences.SENTENCES[3], **sentences.WAYS[way])
    np.testing.assert_array_equal(one, got[3])


def test_prompts(encoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(encoder, folder)
    named = {"prompts": {"query": "what ", "passage": "text: ", "other": "x "}, "default_prompt_name": "other"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(named))
    model, plain = EmbeddingModel.open(folder), EmbeddingModel.open(encoder)
    np.testing.assert_array_equal(model.encode(["is it", "a"], prompt_name="query"), plain.encode(["what is it", "what a"]))
    np.testing.assert_array_equal(model.encode_query("is it"), plain.encode("what is it"))
    np.testing.assert_array_equal(model.encode_document("is it"), plain.encode("text: is it"))
    np.testing.assert_array_equal(model.encode("is it"), plain.encode("x is it"))
    np.testing.assert_array_equal(model.encode("is it", prompt=""), plain.encode("is it"))
    np.testing.assert_array_equal(plain.encode_query("is it"), plain.encode("is it"))
    with pytest.raises(InvalidArgument, match="no prompt 'nothing'; it has 'query', 'passage', 'other'"):
        model.encode("a", prompt_name="nothing")
    with pytest.raises(InvalidArgument, match="truncate_dim must be 1 to"):
        model.encode("a", truncate_dim=0)
    pooling = next(folder.glob("*_Pooling/config.json"))
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"include_prompt": False}))
    with pytest.raises(InvalidModel, match="include_prompt"):
        EmbeddingModel.open(folder)
