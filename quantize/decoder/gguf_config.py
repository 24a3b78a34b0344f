"""Metadata of a .gguf -> the config.json that would say the same, and from it the Spec."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from frugal.errors import InvalidModel

from ..gguf import GgufFile
from ..gguf.blocks import decode
from .families import read_spec
from .spec import Rope, Spec

# general.architecture -> (model_type, whether queries and keys are permuted so that rotary pairs are neighbours)
ARCHITECTURES = {
    "llama": ("llama", True),
    "smollm3": ("smollm3", True),
    "qwen2": ("qwen2", False),
    "qwen3": ("qwen3", False),
    "olmo2": ("olmo2", False),
    "apertus": ("apertus", False),
    "gemma2": ("gemma2", False),
    "gemma3": ("gemma3_text", False),
    "bloom": ("bloom", False),
    "gpt2": ("gpt2", False),
}
_SIZES = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "head_dim": "attention.key_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "layer_norm_epsilon": "attention.layer_norm_epsilon",
    "rope_theta": "rope.freq_base",
    "sliding_window": "attention.sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "vocab_size": "vocab_size",
}
_OTHER_NAMES = {
    "gpt2": {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
    "bloom": {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head"},
}


class _Metadata:
    """Keys of the file's architecture."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        self.arch = file.metadata.get("general.architecture")
        if not isinstance(self.arch, str) or self.arch not in ARCHITECTURES:
            raise InvalidModel(
                f"{file.path}: architecture {self.arch!r} is not built in (built in: {', '.join(sorted(ARCHITECTURES))});"
                " give the Hugging Face folder"
            )

    def get(self, key: str) -> Any:
        """The value, or None; a list that says the same for every layer is its element."""
        value = self.file.metadata.get(f"{self.arch}.{key}")
        if isinstance(value, list):
            if len(set(value)) != 1:
                raise InvalidModel(f"{self.file.path}: '{self.arch}.{key}' differs from layer to layer, which is not built in")
            value = value[0]
        return value


def read_gguf_spec(file: GgufFile, context: int | None) -> tuple[dict[str, Any], Spec]:
    """(config.json's contents, Spec). Raises InvalidModel naming the file and the key."""
    m = _Metadata(file)
    try:
        config = _config(m)
    except (ValueError, TypeError, ArithmeticError) as e:
        raise InvalidModel(f"{file.path}: the metadata of {m.arch!r} are garbled ({e})") from e
    spec = read_spec(config, file.path, context)
    permuted = ARCHITECTURES[str(m.arch)][1]
    ropes = tuple(replace(r, interleaved=permuted) for r in spec.ropes)
    if "rope_freqs.weight" in file.tensors and ropes:
        ropes = (_divided(file, ropes[0]), *ropes[1:])
    return config, replace(spec, ropes=ropes)


def _config(m: _Metadata) -> dict[str, Any]:
    family = ARCHITECTURES[str(m.arch)][0]
    rename = _OTHER_NAMES.get(family, {})
    config: dict[str, Any] = {"model_type": family, "architectures": [f"gguf-{m.arch}"]}
    config |= {rename.get(k, k): v for k, g in _SIZES.items() if (v := m.get(g)) is not None}
    table = m.file.tensors.get("token_embd.weight")
    if table is None or len(table.shape) != 2:
        raise InvalidModel(f"{m.file.path}: tensor 'token_embd.weight' is missing or no matrix")
    config["vocab_size"] = table.shape[0]
    config["tie_word_embeddings"] = "output.weight" not in m.file.tensors
    config["rope_scaling"] = _scaling(m)
    head, rotated = m.get("attention.key_length"), m.get("rope.dimension_count")
    if head and rotated and rotated != head:
        config["partial_rotary_factor"] = rotated / head
    if family == "gpt2":
        config |= {"n_positions": config.get("max_position_embeddings"), "n_inner": config.get("intermediate_size")}
    if family == "bloom":
        config["seq_length"] = config.get("max_position_embeddings")
    if family == "qwen2":
        config.pop("sliding_window", None)
    if family.startswith("gemma"):
        config["query_pre_attn_scalar"] = _gemma_scale(config)
    if family == "apertus":
        config["hidden_act"] = "xielu"
    return {k: v for k, v in config.items() if v is not None}


def _gemma_scale(config: dict[str, Any]) -> int:
    """Scores are divided by the root of the head size; in the models of 27 B weights by that of hidden size / heads."""
    large = {"gemma2": 46, "gemma3_text": 62}[config["model_type"]] == config.get("num_hidden_layers")
    if large:
        return int(config["hidden_size"]) // int(config["num_attention_heads"])
    return int(config.get("head_dim", 256))


def _scaling(m: _Metadata) -> dict[str, Any] | None:
    kind = m.get("rope.scaling.type")
    if kind in (None, "none"):
        return None
    scaling = {"rope_type": kind, "factor": m.get("rope.scaling.factor")}
    old = m.get("rope.scaling.original_context_length")
    return scaling | ({"original_max_position_embeddings": old} if old else {})


def _divided(file: GgufFile, rope: Rope) -> Rope:
    """The rope with its frequencies divided by the tensor rope_freqs (how llama3's scaling is stored)."""
    t = file.tensors["rope_freqs.weight"]
    if t.shape != rope.frequency.shape or t.format not in ("F32", "F16"):
        raise InvalidModel(f"{file.path}: tensor 'rope_freqs.weight' {list(t.shape)} does not fit {len(rope.frequency)} pairs")
    factors = decode(np.frombuffer(file.read(t), np.uint8)[None], t.format)[0]
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise InvalidModel(f"{file.path}: tensor 'rope_freqs.weight' holds numbers that are not positive")
    return replace(rope, frequency=(rope.frequency / factors).astype(np.float32))
