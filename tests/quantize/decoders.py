"""Tiny random decoders of each family: config.json and weights by seed, with the tensors that transformers gives them.

Logits of transformers (float32, CPU) are recorded in tests/data/decoders.npz by make_decoder_golden.py, so that the tests need no
torch; test_decoder.py compares with transformers itself where it is installed.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

GOLDEN = Path(__file__).parent.parent / "data" / "decoders.npz"
VOCAB, LENGTH, PADDED = 64, 12, 4
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_BASE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rope_theta": 10000.0,
} | _IDS
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
CASES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama-biased": {"model_type": "llama", "attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4},
    "llama3": {"model_type": "llama", "rope_scaling": _LLAMA3, "tie_word_embeddings": True},
    "llama-linear": {"model_type": "llama", "rope_scaling": {"rope_type": "linear", "factor": 2.0}, "num_key_value_heads": 1},
    "yarn": {"model_type": "llama", "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    "mistral": {"model_type": "mistral", "sliding_window": 5, "head_dim": 16},
    "mistral-full": {"model_type": "mistral", "sliding_window": None},
    "qwen2": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "helium": {"model_type": "helium", "head_dim": 8},
    "olmo2": {"model_type": "olmo2"},
    "apertus": {"model_type": "apertus", "hidden_act": "xielu", "rope_scaling": _LLAMA3},
    "smollm3": {"model_type": "smollm3", "num_hidden_layers": 5},
    "gemma3": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 7,
        "head_dim": 16,
        "sliding_window": 5,
        "query_pre_attn_scalar": 16,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "final_logit_softcapping": 6.0,
    },
    "gemma2": {
        "model_type": "gemma2",
        "head_dim": 16,
        "sliding_window": 5,
        "query_pre_attn_scalar": 16,
        "final_logit_softcapping": 6.0,
        "attn_logit_softcapping": 4.0,
    },
    "bloom": {"model_type": "bloom", "hidden_size": 24, "n_layer": 2, "n_head": 6},
    "bloom-after-norm": {
        "model_type": "bloom",
        "hidden_size": 24,
        "n_layer": 2,
        "n_head": 4,
        "apply_residual_connection_post_layernorm": True,
    },
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
}


def config(case: str) -> dict[str, Any]:
    """The case's config.json."""
    own = CASES[case]
    base = {"vocab_size": VOCAB} | _IDS if own["model_type"] in ("bloom", "gpt2") else _BASE
    return base | own


def value(name: str, shape: tuple[int, ...], family: str) -> np.ndarray:
    """Random values of a tensor, far from linear behaviour; norms near the identity of their family."""
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if len(shape) > 1:
        return x * np.float32(0.3)
    around_one = "norm" in name or "ln_" in name
    return x * np.float32(0.2) + np.float32(around_one and name.endswith("weight") and not family.startswith("gemma"))


def write(folder: Path, case: str, shapes: dict[str, list[int]]) -> Path:
    """The checkpoint folder; shapes: of transformers' state dict, tied tensors once."""
    folder.mkdir(parents=True, exist_ok=True)
    c = config(case)
    (folder / "config.json").write_text(json.dumps(c))
    save_file({n: value(n, tuple(s), c["model_type"]) for n, s in shapes.items()}, folder / "model.safetensors")
    return folder


def tokens() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ids, attention_mask, position_ids), int64 [2, LENGTH]; row 1 is padded on the left."""
    ids = np.random.default_rng(7).integers(3, VOCAB, (2, LENGTH))
    mask = np.ones((2, LENGTH), np.int64)
    mask[1, :PADDED] = 0
    return ids, mask, np.maximum(mask.cumsum(1) - 1, 0)


def golden() -> tuple[dict[str, dict[str, list[int]]], dict[str, np.ndarray]]:
    """(shapes by case, logits [2, LENGTH, VOCAB] by case)."""
    with np.load(GOLDEN) as f:
        shapes = json.loads(bytes(f["shapes"]).decode())
        return shapes, {case: f[case] for case in CASES}
