"""GGUF files for tests: a writer, and the tiny decoders of decoders.py under GGUF's names."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from . import decoders

F32, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 0, 4, 5, 6, 7, 8, 9


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(v: Any) -> tuple[int, bytes]:
    if isinstance(v, bool):
        return BOOL, struct.pack("<?", v)
    if isinstance(v, int):
        return UINT32, struct.pack("<I", v)
    if isinstance(v, float):
        return FLOAT32, struct.pack("<f", v)
    if isinstance(v, str):
        return STRING, _string(v)
    if isinstance(v, np.ndarray):
        return ARRAY, struct.pack("<IQ", INT32, len(v)) + v.astype("<i4").tobytes()
    inner = [_value(x) for x in v]
    return ARRAY, struct.pack("<IQ", inner[0][0], len(v)) + b"".join(raw for _, raw in inner)


def head(metadata: dict[str, Any], tensors: dict[str, tuple[int, tuple[int, ...], int]]) -> bytes:
    """What stands before the data.  tensors: name -> (ggml type, shape with rows first, bytes)."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    for key, v in metadata.items():
        kind, raw = _value(v)
        parts += [_string(key), struct.pack("<I", kind), raw]
    at = 0
    for name, (kind, shape, nbytes) in tensors.items():
        dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape[::-1])
        parts += [_string(name), dims, struct.pack("<IQ", kind, at)]
        at += nbytes + -nbytes % 32
    body = b"".join(parts)
    return body + bytes(-len(body) % 32)


def write(path: Path, metadata: dict[str, Any], tensors: dict[str, tuple[int, tuple[int, ...], bytes]]) -> Path:
    """tensors: name -> (ggml type, shape with rows first, bytes)."""
    data = b"".join(raw + bytes(-len(raw) % 32) for _, _, raw in tensors.values())
    path.write_bytes(head(metadata, {n: (kind, shape, len(raw)) for n, (kind, shape, raw) in tensors.items()}) + data)
    return path


_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attention.query_key_value": "attn_qkv",
    "self_attention.dense": "attn_output",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
    "input_layernorm": "attn_norm",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
}
_WHOLE = {
    "embed_tokens": "token_embd",
    "wte": "token_embd",
    "wpe": "position_embd",
    "word_embeddings": "token_embd",
    "word_embeddings_layernorm": "token_embd_norm",
    "norm": "output_norm",
    "ln_f": "output_norm",
    "lm_head": "output",
}
_NORMS = {
    "olmo2": {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm"},
    "gemma": {
        "post_attention_layernorm": "post_attention_norm",
        "pre_feedforward_layernorm": "ffn_norm",
        "post_feedforward_layernorm": "post_ffw_norm",
    },
    "apertus": {"attention_layernorm": "attn_norm", "feedforward_layernorm": "ffn_norm"},
}
ARCHITECTURE = {"gemma3_text": "gemma3"}
PERMUTED = ("llama", "smollm3")


def name_of(tensor: str, family: str) -> str | None:
    """GGUF's name of a tensor of transformers; None for what becomes metadata."""
    module, _, kind = tensor.rpartition(".")
    parts = module.removeprefix("transformer.").removeprefix("model.").split(".")
    if parts[0] not in ("layers", "h"):
        return f"{_WHOLE['.'.join(parts)]}.{kind}"
    norms = next((v for k, v in _NORMS.items() if family.startswith(k)), {"post_attention_layernorm": "ffn_norm"})
    what = ".".join(parts[2:])
    return None if what == "mlp.act_fn" else f"blk.{parts[1]}.{(_LAYER | norms)[what]}.{kind}"


def permuted(w: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a head reordered so that rotary pairs are neighbours."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def as_stored(name: str, w: np.ndarray, c: dict[str, Any]) -> np.ndarray:
    """A tensor's values as llama.cpp's converter stores them."""
    family, heads = c["model_type"], c.get("num_attention_heads", c.get("n_head", 1))
    if family in PERMUTED and ("q_proj" in name or "k_proj" in name):
        return permuted(w, heads if "q_proj" in name else c["num_key_value_heads"])
    if family == "bloom" and "query_key_value" in name:
        size = w.shape[0] // heads // 3
        return w.reshape(heads, 3, size, *w.shape[1:]).swapaxes(0, 1).reshape(w.shape)
    if family == "gpt2" and w.ndim == 2 and ("c_" in name):
        return np.ascontiguousarray(w.T)
    return w + np.float32(1) if family.startswith("gemma") and name.endswith("norm.weight") else w


def metadata_of(c: dict[str, Any], tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """The keys of llama.cpp's converter."""
    family = c["model_type"]
    arch = ARCHITECTURE.get(family, family)
    heads = c.get("num_attention_heads", c.get("n_head"))
    hidden, layers = c.get("hidden_size", c.get("n_embd")), c.get("num_hidden_layers", c.get("n_layer"))
    keys: dict[str, Any] = {
        "embedding_length": hidden,
        "block_count": layers,
        "attention.head_count": heads,
        "attention.head_count_kv": c.get("num_key_value_heads", heads),
        "feed_forward_length": c.get("intermediate_size", 4 * hidden),
        "context_length": c.get("max_position_embeddings", 64),
        "rope.freq_base": c.get("rope_theta"),
        "attention.layer_norm_rms_epsilon": 1e-5 if family == "mistral" else 1e-6,
        "attention.layer_norm_epsilon": 1e-5,
        "attention.key_length": c.get("head_dim"),
        "attention.sliding_window": c.get("sliding_window"),
        "attn_logit_softcapping": c.get("attn_logit_softcapping"),
        "final_logit_softcapping": c.get("final_logit_softcapping"),
    }
    scaling = c.get("rope_scaling")
    if scaling and scaling["rope_type"] != "llama3":
        keys |= {f"rope.scaling.{k}": v for k, v in {"type": scaling["rope_type"], "factor": scaling["factor"]}.items()}
        keys["rope.scaling.original_context_length"] = scaling.get("original_max_position_embeddings")
    for key in ("alpha_p", "alpha_n"):
        values = [float(tensors[n].reshape(-1)[0]) for n in sorted(tensors) if n.endswith(f"act_fn.{key}")]
        keys[f"xielu.{key}"] = values or None
    if keys["xielu.alpha_p"]:
        keys |= {"xielu.beta": [0.5] * layers, "xielu.eps": [-1e-6] * layers}
    return {"general.architecture": arch} | {f"{arch}.{k}": v for k, v in keys.items() if v is not None}


def tiny(path: Path, case: str, folder: Path) -> Path:
    """The checkpoint of a case as .gguf with float32 tensors."""
    c = decoders.config(case)
    stored = load_file(folder / "model.safetensors")
    tensors = {}
    for name, w in stored.items():
        new = name_of(name, c["model_type"])
        if new is not None:
            value = np.ascontiguousarray(as_stored(name, w, c), "<f4")
            tensors[new] = (F32, value.shape, value.tobytes())
    scaling = c.get("rope_scaling") or {}
    if scaling.get("rope_type") == "llama3":
        from frugal.quantize.decoder.rope import make_rope

        size = c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])
        factors = make_rope(10000.0, size, None, 64).frequency / make_rope(10000.0, size, scaling, 64).frequency
        tensors["rope_freqs.weight"] = (F32, factors.shape, factors.astype("<f4").tobytes())
    return write(path, metadata_of(c, stored), tensors)
