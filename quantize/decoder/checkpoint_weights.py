"""Tensors of a Hugging Face checkpoint: names by family, fused projections cut, norms of Gemma with their one added."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frugal.errors import InvalidModel

from ..checkpoint import Checkpoint
from ..graph import Graph
from .spec import Spec

F32 = NDArray[np.float32]

_LLAMA = {
    "embed": "embed_tokens",
    "norm": "norm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
    "layer": "layers.",
}
_AFTER = {"norm1_after": "post_attention_layernorm", "norm2_after": "post_feedforward_layernorm"}
_NAMES: dict[str, dict[str, str]] = {
    "olmo2": _LLAMA | _AFTER,
    "gemma2": _LLAMA | _AFTER | {"norm2": "pre_feedforward_layernorm"},
    "gemma3_text": _LLAMA | _AFTER | {"norm2": "pre_feedforward_layernorm"},
    "apertus": _LLAMA | {"norm1": "attention_layernorm", "norm2": "feedforward_layernorm", "xielu": "mlp.act_fn"},
    "bloom": {
        "embed": "word_embeddings",
        "embed_norm": "word_embeddings_layernorm",
        "norm": "ln_f",
        "qkv": "self_attention.query_key_value",
        "o": "self_attention.dense",
        "up": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h",
        "norm1": "input_layernorm",
        "norm2": "post_attention_layernorm",
        "layer": "h.",
    },
    "gpt2": {
        "embed": "wte",
        "positions": "wpe",
        "norm": "ln_f",
        "qkv": "attn.c_attn",
        "o": "attn.c_proj",
        "up": "mlp.c_fc",
        "down": "mlp.c_proj",
        "norm1": "ln_1",
        "norm2": "ln_2",
        "layer": "h.",
    },
}


class CheckpointWeights:
    """`Weights` of a safetensors folder. Raises InvalidModel naming file and tensor."""

    def __init__(self, checkpoint: Checkpoint, spec: Spec) -> None:
        self.checkpoint, self.spec = checkpoint, spec
        self.names = _NAMES.get(spec.family, _LLAMA)
        end = f"{self.names['embed']}.weight"
        found = sorted((n[: -len(end)] for n in checkpoint.entries if n.endswith(end)), key=len)
        if not found:
            raise InvalidModel(f"{checkpoint.folder}: tensor {end!r} is missing from {checkpoint.files[0].name}")
        self.prefix = found[0]
        self.conv1d = spec.family == "gpt2"  # weights are stored [cols, rows]
        self.plus_one = spec.family.startswith("gemma")

    def name(self, part: str) -> str:
        """The module of a part: 'model.layers.3.self_attn.q_proj'."""
        if part == "head":
            return "lm_head"
        number, dot, what = part.partition(".")
        if not dot:
            return self.prefix + self.names[part]
        return f"{self.prefix}{self.names['layer']}{number}.{self.names[what]}"

    def has(self, part: str) -> bool:
        return f"{self.name(part)}.weight" in self.checkpoint.entries

    def linear(self, g: Graph, x: str, part: str, rows: int, cols: int) -> str:
        number, _, what = part.partition(".")
        if what in ("q", "k", "v") and "qkv" in self.names:
            return self._cut(g, x, number, what, rows, cols)
        name = self.name(part)
        bias = f"{name}.bias" in self.checkpoint.entries
        if not self.conv1d or part == "head":
            return g.linear(x, name, rows, cols, bias=bias)
        y = g.op("MatMul", [x, g.weight(f"{name}.weight", (cols, rows))], name)
        return g.op("Add", [y, g.weight(f"{name}.bias", (rows,))], name) if bias else y

    def _cut(self, g: Graph, x: str, number: str, what: str, rows: int, cols: int) -> str:
        """One of the projections of a fused one, as a weight [rows, cols] of its own."""
        fused = self.name(f"{number}.qkv")
        name = f"{fused}.{what}"
        which = "qkv".index(what)
        shape = (cols, 3 * rows) if self.conv1d else (3 * rows, cols)
        take = self._columns if self.conv1d else self._rows_of_heads
        w = g.derived(f"{name}.weight", (rows, cols), self._reader(f"{fused}.weight", shape), lambda a: take(a, which, rows))
        y = g.op("MatMul", [x, g.op("Transpose", [w], name, perm=[1, 0])], name)
        if f"{fused}.bias" not in self.checkpoint.entries:
            return y
        bias = self._reader(f"{fused}.bias", (3 * rows,))
        b = g.derived(
            f"{name}.bias", (rows,), bias, lambda a: take(a[None] if self.conv1d else a[:, None], which, rows).reshape(rows)
        )
        return g.op("Add", [y, b], name)

    def _reader(self, name: str, shape: tuple[int, ...]) -> Callable[[], F32]:
        self.checkpoint.entry(name, shape)
        return lambda: self.checkpoint.read(name, shape)

    def _rows_of_heads(self, w: F32, which: int, rows: int) -> F32:
        """[heads * 3 * size, cols] (q, k, v of a head side by side) -> [rows, cols] of one of them."""
        return w.reshape(self.spec.heads, 3, self.spec.head_size, -1)[:, which].reshape(rows, -1)

    @staticmethod
    def _columns(w: F32, which: int, rows: int) -> F32:
        """[cols, 3 * rows] -> [rows, cols]."""
        return w[:, which * rows : (which + 1) * rows].T

    def vector(self, g: Graph, part: str, size: int, *, bias: bool = False) -> str:
        name = f"{self.name(part)}.{'bias' if bias else 'weight'}"
        if not self.plus_one:
            return g.weight(name, (size,))
        return g.derived(name, (size,), self._reader(name, (size,)), lambda a: a + np.float32(1))

    def table(self, g: Graph, part: str, rows: int, cols: int, ids: str) -> str:
        name = self.name(part)
        return g.op("Gather", [g.weight(f"{name}.weight", (rows, cols)), ids], name)

    def tied_head(self, g: Graph, x: str, rows: int, cols: int) -> str:
        w = g.weight(f"{self.name('embed')}.weight", (rows, cols))
        return g.op("MatMul", [x, g.op("Transpose", [w], "lm_head", perm=[1, 0])], "lm_head")

    def scalars(self, part: str) -> dict[str, float]:
        name = self.name(part)
        found = {n.rpartition(".")[2]: e for n, e in self.checkpoint.entries.items() if n.rpartition(".")[0] == name}
        large = next((key for key, e in found.items() if math.prod(e.shape) != 1), None)
        if large is not None:
            raise InvalidModel(f"{self.checkpoint.folder}: tensor '{name}.{large}' is not one number")
        return {key: float(self.checkpoint.read(f"{name}.{key}", e.shape).reshape(-1)[0]) for key, e in found.items()}


def missing(checkpoint: Checkpoint, weights: CheckpointWeights, spec: Spec, path: Path) -> None:
    """Raise InvalidModel where the last layer of config.json is not in the checkpoint, or one more is."""
    last = weights.name(f"{len(spec.layers) - 1}.o")
    beyond = weights.name(f"{len(spec.layers)}.o")
    if f"{last}.weight" not in checkpoint.entries:
        raise InvalidModel(f"{path}: config.json says {len(spec.layers)} layers, tensor '{last}.weight' is missing")
    if f"{beyond}.weight" in checkpoint.entries:
        raise InvalidModel(f"{path}: config.json says {len(spec.layers)} layers, the checkpoint has tensor '{beyond}.weight' too")
