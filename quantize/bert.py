"""The BERT encoders as coarse standard operators: bert, roberta, xlm-roberta, camembert, distilbert, electra, mpnet.

One layer (post-norm), x [B, S, H]:
    q, k, v = linear(x);  a = Attention(q, k, v, mask);  x = LayerNorm(linear(a) + x)
    x = LayerNorm(linear(Gelu(linear(x))) + x)
The families differ in names, in how positions are counted and in whether token types are an input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugal.errors import InvalidModel

from .checkpoint import Checkpoint
from .graph import ACTIVATIONS, Graph

B, S = "batch", "sequence"


@dataclass(frozen=True)
class Names:
    """Where a family keeps its tensors; layer names are relative to `layer` + the layer's number."""

    layer: str = "encoder.layer."
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    out: str = "attention.output.dense"
    norm1: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    norm2: str = "output.LayerNorm"


BERT = Names()
DISTILBERT = Names(
    "transformer.layer.",
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "sa_layer_norm",
    "ffn.lin1",
    "ffn.lin2",
    "output_layer_norm",
)
MPNET = replace(
    BERT,
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    out="attention.attn.o",
    norm1="attention.LayerNorm",
)
FAMILIES = {
    "bert": BERT,
    "roberta": BERT,
    "xlm-roberta": BERT,
    "camembert": BERT,
    "electra": BERT,
    "distilbert": DISTILBERT,
    "mpnet": MPNET,
}
_KEYS = {"hidden": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads", "inner": "intermediate_size"}
_DISTILBERT_KEYS = {"hidden": "dim", "layers": "n_layers", "heads": "n_heads", "inner": "hidden_dim"}
_PADDED_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet"}


@dataclass(frozen=True)
class Config:
    """What of config.json changes the graph; sizes in elements."""

    family: str
    names: Names
    prefix: str
    vocab: int
    hidden: int
    embedding: int
    layers: int
    heads: int
    inner: int
    positions: int
    types: int
    epsilon: float
    activation: str
    pad: int
    labels: int
    raw: dict[str, Any]


def unsupported(config: dict[str, Any]) -> str | None:
    """Why this module cannot export the config (one line), or None when it can."""
    family = config.get("model_type")
    if family not in FAMILIES:
        return f"model_type {family!r} has no built-in exporter"
    kind = config.get("position_embedding_type", "absolute")
    if kind != "absolute":
        return f"position_embedding_type {kind!r} (only 'absolute' is built in)"
    if config.get("is_decoder") or config.get("add_cross_attention"):
        return "decoder configurations (is_decoder, add_cross_attention) are not built in"
    act = config.get("activation" if family == "distilbert" else "hidden_act", "gelu")
    return None if act in ACTIVATIONS else f"activation {act!r} (built in: {', '.join(ACTIVATIONS)})"


def _labels(raw: dict[str, Any]) -> int:
    names = raw.get("id2label")
    return len(names) if isinstance(names, dict) and names else int(raw.get("num_labels", 2))


def read_config(raw: dict[str, Any], checkpoint: Checkpoint, path: Path) -> Config:
    """Sizes from config.json, with the families' own key names and transformers' defaults. Raises InvalidModel."""
    family = raw["model_type"]
    distil = family == "distilbert"
    key = _DISTILBERT_KEYS if distil else _KEYS
    try:
        size = {k: int(raw[v]) for k, v in key.items()}
        vocab, positions = int(raw["vocab_size"]), int(raw["max_position_embeddings"])
        types = 0 if family in ("distilbert", "mpnet") else int(raw.get("type_vocab_size", 2))
        pad = int(raw.get("pad_token_id", 1 if family in _PADDED_POSITIONS else 0) or 0)
        embedding = int(raw.get("embedding_size", size["hidden"])) if family == "electra" else size["hidden"]
        epsilon = 1e-12 if distil else float(raw.get("layer_norm_eps", 1e-12))
    except (KeyError, TypeError, ValueError) as e:
        raise InvalidModel(f"{path}: config.json lacks or garbles {e}") from e
    if min(*size.values(), vocab, positions, embedding) < 1 or size["hidden"] % size["heads"]:
        raise InvalidModel(f"{path}: hidden size {size['hidden']} is not a positive multiple of {size['heads']} heads")
    return Config(
        family,
        FAMILIES[family],
        _prefix(checkpoint),
        vocab,
        size["hidden"],
        embedding,
        size["layers"],
        size["heads"],
        size["inner"],
        positions,
        types,
        epsilon,
        str(raw.get("activation" if distil else "hidden_act", "gelu")),
        pad,
        _labels(raw),
        raw,
    )


def _prefix(checkpoint: Checkpoint) -> str:
    """What precedes 'embeddings.word_embeddings.weight': 'bert.', 'roberta.', … or nothing."""
    end = "embeddings.word_embeddings.weight"
    found = sorted((n[: -len(end)] for n in checkpoint.entries if n.endswith(end)), key=len)
    if not found:
        raise InvalidModel(f"{checkpoint.folder}: tensor {end!r} is missing from {checkpoint.files[0].name}")
    return found[0]


def encoder(g: Graph, c: Config) -> str:
    """Inputs and all layers; returns the last hidden state, float [B, S, hidden]."""
    g.add_input("input_ids", [B, S])
    g.add_input("attention_mask", [B, S])
    x = _embeddings(g, c)
    mask = _mask(g, c)
    for i in range(c.layers):
        x = _layer(g, c, f"{c.prefix}{c.names.layer}{i}.", x, mask)
    return x


def _embeddings(g: Graph, c: Config) -> str:
    p = c.prefix + "embeddings."
    word = g.weight(p + "word_embeddings.weight", (c.vocab, c.embedding))
    x = g.op("Gather", [word, "input_ids"], p + "word_embeddings")
    if c.types > 0:
        table = g.weight(p + "token_type_embeddings.weight", (c.types, c.embedding))
        if c.types > 1:
            table = g.op("Gather", [table, g.add_input("token_type_ids", [B, S])], p + "token_type_embeddings")
        x = g.op("Add", [x, table], p + "token_type_embeddings")  # a single type: its row [1, H] for every token
    where = g.weight(p + "position_embeddings.weight", (c.positions, c.embedding))
    where = g.op("Gather", [where, _positions(g, c)], p + "position_embeddings")
    x = g.op("Add", [x, where], p + "position_embeddings")
    x = g.layer_norm(x, p + "LayerNorm", c.embedding, c.epsilon)
    if c.embedding != c.hidden:
        x = g.linear(x, c.prefix + "embeddings_project", c.hidden, c.embedding)
    return x


def _positions(g: Graph, c: Config) -> str:
    """Position ids: 0..S-1, int64 [S]; or with RoBERTa counted over the non-padding tokens from pad+1, int64 [B, S]."""
    n = "position_ids"
    if c.family not in _PADDED_POSITIONS:
        return _range(g, n)
    real = g.op("Not", [g.op("Equal", ["input_ids", g.scalar(c.pad)], n)], n)
    real = g.op("Cast", [real], n, to=g.onnx.TensorProto.INT64)
    count = g.op("Mul", [g.op("CumSum", [real, g.scalar(1)], n), real], n)
    return g.op("Add", [count, g.scalar(c.pad)], n)


def _range(g: Graph, name: str) -> str:
    """int64 [S]: 0, 1, … S-1."""
    length = g.op("Squeeze", [g.op("Shape", ["input_ids"], name, start=1, end=2)], name)
    return g.op("Range", [g.scalar(0), length, g.scalar(1)], name)


def _mask(g: Graph, c: Config) -> str:
    """attention_mask [B, S] as bool [B, 1, S, S]; for MPNet a float mask [B, heads, S, S] that carries the bias."""
    n = "attention_mask"
    key = g.op("Cast", ["attention_mask"], n, to=g.onnx.TensorProto.BOOL)
    key = g.op("Unsqueeze", [key, g.ints(1, 2)], n)
    batch, length = (g.op("Shape", ["input_ids"], n, start=i, end=i + 1) for i in (0, 1))
    shape = g.op("Concat", [batch, g.ints(1), length, length], n, axis=0)
    mask = g.op("Expand", [key, shape], n)
    if c.family != "mpnet":
        return mask
    low = g.scalar(float(np.finfo(np.float32).min))
    return g.op("Where", [mask, _relative_bias(g, c), low], n)


def _relative_bias(g: Graph, c: Config) -> str:
    """MPNet's bias, float [1, heads, S, S]: row bucket(j - i) of a table [buckets, heads].

    The buckets (T5, arXiv 1910.10683: exact up to a quarter of them, then logarithmic to distance 128, one half per
    sign) depend on j - i alone, so they are a constant index vector over all offsets.
    """
    n = c.prefix + "encoder.relative_attention_bias"
    buckets = int(c.raw.get("relative_attention_num_buckets", 32))
    table = g.weight(n + ".weight", (buckets, c.heads))
    offsets = np.arange(1 - c.positions, c.positions)
    of = g.const(n + "/bucket_of_offset", _buckets(offsets, buckets))
    r = _range(g, n)
    delta = g.op("Sub", [g.op("Unsqueeze", [r, g.ints(0)], n), g.op("Unsqueeze", [r, g.ints(1)], n)], n)
    index = g.op("Gather", [of, g.op("Add", [delta, g.scalar(c.positions - 1)], n)], n)
    bias = g.op("Transpose", [g.op("Gather", [table, index], n)], n, perm=[2, 0, 1])
    return g.op("Unsqueeze", [bias, g.ints(0)], n)


def _buckets(offset: NDArray[np.int64], buckets: int, far: int = 128) -> NDArray[np.int64]:
    """Bucket of each relative position j - i, int64."""
    half = buckets // 2
    exact = half // 2
    n = np.abs(offset)
    large = np.log(np.maximum(n, 1).astype(np.float32) / exact) / math.log(far / exact) * (half - exact)
    large = np.minimum(exact + large.astype(np.int64), half - 1)
    return np.asarray((offset > 0) * half + np.where(n < exact, n, large), np.int64)


def _layer(g: Graph, c: Config, p: str, x: str, mask: str) -> str:
    n, h = c.names, c.hidden
    q, k, v = (g.linear(x, p + part, h, h) for part in (n.query, n.key, n.value))
    a = g.op("Attention", [q, k, v, mask], p + "attention", q_num_heads=c.heads, kv_num_heads=c.heads)
    a = g.op("Add", [g.linear(a, p + n.out, h, h), x], p + "attention")
    x = g.layer_norm(a, p + n.norm1, h, c.epsilon)
    up = g.activation(g.linear(x, p + n.up, c.inner, h), c.activation, p + n.up)
    return g.layer_norm(g.op("Add", [g.linear(up, p + n.down, h, c.inner), x], p + n.down), p + n.norm2, h, c.epsilon)
