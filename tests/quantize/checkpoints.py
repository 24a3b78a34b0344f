"""Tiny random checkpoints of each family, and the same forward pass in numpy, written from the papers' formulas."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

H, INNER, LAYERS, HEADS, VOCAB, POSITIONS = 32, 64, 2, 4, 50, 40
PREFIX = {
    "bert": "bert.",
    "roberta": "roberta.",
    "xlm-roberta": "roberta.",
    "camembert": "roberta.",
    "distilbert": "distilbert.",
    "electra": "electra.",
}
PAD = {"roberta": 1, "xlm-roberta": 1, "camembert": 1}


def config(family: str, **change: Any) -> dict[str, Any]:
    """config.json of a tiny model."""
    c: dict[str, Any] = {
        "model_type": family,
        "vocab_size": VOCAB,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": PAD.get(family, 0),
    }
    if family == "distilbert":
        c |= {"dim": H, "hidden_dim": INNER, "n_layers": LAYERS, "n_heads": HEADS, "activation": "gelu"}
    else:
        c |= {
            "hidden_size": H,
            "intermediate_size": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-5,
            "type_vocab_size": 1 if family in PAD else 2,
        }
    if family == "electra":
        c["embedding_size"] = 24
    return c | change


def layer_names(family: str, i: int) -> dict[str, str]:
    """Role -> name below the prefix."""
    if family == "distilbert":
        p = f"transformer.layer.{i}."
        return {
            "q": p + "attention.q_lin",
            "k": p + "attention.k_lin",
            "v": p + "attention.v_lin",
            "o": p + "attention.out_lin",
            "n1": p + "sa_layer_norm",
            "up": p + "ffn.lin1",
            "down": p + "ffn.lin2",
            "n2": p + "output_layer_norm",
        }
    p = f"encoder.layer.{i}."
    return {
        "q": p + "attention.self.query",
        "k": p + "attention.self.key",
        "v": p + "attention.self.value",
        "o": p + "attention.output.dense",
        "n1": p + "attention.output.LayerNorm",
        "up": p + "intermediate.dense",
        "down": p + "output.dense",
        "n2": p + "output.LayerNorm",
    }


def weights(c: dict[str, Any], prefix: str = "", seed: int = 0) -> dict[str, np.ndarray]:
    """Random tensors, float32; scale 0.3 so that attention and activations are far from linear."""
    rng, family = np.random.default_rng(seed), c["model_type"]
    e, w = c.get("embedding_size", H), {}

    def add(name: str, *shape: int) -> None:
        w[prefix + name] = (rng.standard_normal(shape) * 0.3).astype(np.float32)

    def norm(name: str, size: int) -> None:
        w[prefix + name + ".weight"] = (1 + rng.standard_normal(size) * 0.1).astype(np.float32)
        add(name + ".bias", size)

    add("embeddings.word_embeddings.weight", VOCAB, e)
    add("embeddings.position_embeddings.weight", POSITIONS, e)
    if family != "distilbert":
        add("embeddings.token_type_embeddings.weight", c["type_vocab_size"], e)
    norm("embeddings.LayerNorm", e)
    if e != H:
        add("embeddings_project.weight", H, e)
        add("embeddings_project.bias", H)
    for i in range(LAYERS):
        n = layer_names(family, i)
        sizes = {"q": (H, H), "k": (H, H), "v": (H, H), "o": (H, H), "up": (INNER, H), "down": (H, INNER)}
        for role, (rows, cols) in sizes.items():
            add(n[role] + ".weight", rows, cols)
            add(n[role] + ".bias", rows)
        norm(n["n1"], H)
        norm(n["n2"], H)
    return w


def write(folder: Path, c: dict[str, Any], w: dict[str, np.ndarray]) -> Path:
    """A Hugging Face folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(c))
    save_file(w, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def tiny(folder: Path, family: str, **change: Any) -> tuple[Path, dict[str, Any], dict[str, np.ndarray]]:
    """Write a tiny checkpoint; returns folder, config and tensors."""
    c = config(family, **change)
    w = weights(c)
    return write(folder, c, w), c, w


def feeds(c: dict[str, Any], batch: int = 3, length: int = 9, seed: int = 1) -> dict[str, np.ndarray]:
    """Ids with padding at the end of all rows but the first, mask, and token types where the family takes them."""
    rng, pad = np.random.default_rng(seed), c["pad_token_id"]
    ids = rng.integers(2, VOCAB, (batch, length))
    mask = np.ones((batch, length), np.int64)
    for b in range(1, batch):
        mask[b, length - 2 * b :] = 0
    f = {"input_ids": np.where(mask == 1, ids, pad), "attention_mask": mask}
    if c.get("type_vocab_size", 0) > 1:
        f["token_type_ids"] = rng.integers(0, 2, (batch, length))
    return f


_erf = np.vectorize(math.erf)
ACTIVATION = {
    "gelu": lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2))),
    "relu": lambda x: np.maximum(x, 0),
    "gelu_new": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


def _norm(x: np.ndarray, w: dict[str, np.ndarray], name: str, eps: float) -> np.ndarray:
    m, v = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - m) / np.sqrt(v + eps) * w[name + ".weight"] + w[name + ".bias"]


def linear(x: np.ndarray, w: dict[str, np.ndarray], name: str) -> np.ndarray:
    """x W^T + b."""
    return x @ w[name + ".weight"].T + w[name + ".bias"]


def forward(c: dict[str, Any], w: dict[str, np.ndarray], f: dict[str, np.ndarray], prefix: str = "") -> np.ndarray:
    """Last hidden state in float64, [batch, length, H]."""
    w = {k[len(prefix) :]: v.astype(np.float64) for k, v in w.items() if k.startswith(prefix)}
    family, ids = c["model_type"], f["input_ids"]
    eps = 1e-12 if family == "distilbert" else c["layer_norm_eps"]
    x = w["embeddings.word_embeddings.weight"][ids]
    if family in PAD:
        real = (ids != c["pad_token_id"]).astype(np.int64)
        where = np.cumsum(real, 1) * real + c["pad_token_id"]
    else:
        where = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    x = x + w["embeddings.position_embeddings.weight"][where]
    if family != "distilbert":
        x = x + w["embeddings.token_type_embeddings.weight"][f.get("token_type_ids", np.zeros_like(ids))]
    x = _norm(x, w, "embeddings.LayerNorm", eps)
    if "embeddings_project.weight" in w:
        x = linear(x, w, "embeddings_project")
    act = ACTIVATION[c["activation" if family == "distilbert" else "hidden_act"]]
    for i in range(LAYERS):
        n = layer_names(family, i)
        x = _norm(_attention(x, w, n, f["attention_mask"]) + x, w, n["n1"], eps)
        x = _norm(linear(act(linear(x, w, n["up"])), w, n["down"]) + x, w, n["n2"], eps)
    return x


def _attention(x: np.ndarray, w: dict[str, np.ndarray], n: dict[str, str], mask: np.ndarray) -> np.ndarray:
    b, s, h = x.shape
    q, k, v = (linear(x, w, n[r]).reshape(b, s, HEADS, h // HEADS).transpose(0, 2, 1, 3) for r in "qkv")
    scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(h // HEADS)
    scores = np.where(mask[:, None, None, :] == 1, scores, -1e30)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return linear((p @ v).transpose(0, 2, 1, 3).reshape(b, s, h), w, n["o"])
