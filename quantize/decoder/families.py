"""config.json of each decoder family -> Spec, with transformers' defaults for what an old file does not say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from frugal.errors import InvalidArgument, InvalidModel

from ..graph import ACTIVATIONS
from .rope import alibi_slopes, make_rope
from .spec import Layer, Rope, Spec

MAX_SIZE, MAX_COUNT = 2**31 - 1, 2**14  # what a configuration may ask for: it is not trusted
MAX_CONTEXT = 32768  # positions of the rotary tables unless asked otherwise


@dataclass(frozen=True)
class Family:
    """tied: whether the head is the embedding where config.json does not say. read: config -> Spec."""

    read: Callable[[_Config], Spec]
    tied: bool = False


class _Config:
    """config.json with messages that name the key."""

    def __init__(self, raw: dict[str, Any], context: int | None) -> None:
        self.raw, self.asked = raw, context

    def size(self, key: str, default: int | None = None) -> int:
        """A positive integer."""
        return self._integer(key, default, MAX_SIZE)

    def count(self, key: str, default: int | None = None) -> int:
        """A positive integer of which something is made for each: layers, heads, elements of a head."""
        return self._integer(key, default, MAX_COUNT)

    def _integer(self, key: str, default: int | None, most: int) -> int:
        value = self.raw.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise ValueError(f"{key!r} is {value!r}, want an integer from 1 to {most}")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.raw.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{key!r} is {value!r}, want a number")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.raw.get(key)
        return default if value is None else bool(value)

    def list_of(self, key: str, count: int) -> list[Any] | None:
        """A list with an entry a layer, or None."""
        value = self.raw.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) < count:
            raise ValueError(f"{key!r} is {value!r}, want a list of {count}")
        return value[:count]

    def activation(self, *keys: str, default: str = "silu") -> str:
        kind = next((str(self.raw[k]) for k in keys if self.raw.get(k)), default)
        if kind not in ACTIVATIONS:
            raise ValueError(f"activation {kind!r} (built in: {', '.join(ACTIVATIONS)})")
        return kind

    def context(self, trained: int) -> int:
        """Positions that the graph's tables hold."""
        return min(trained, MAX_CONTEXT) if self.asked is None else self.asked

    def rope_parameters(self, layer_type: str = "full_attention") -> tuple[float, dict[str, Any] | None]:
        """(theta, scaling) from rope_theta and rope_scaling, or from transformers 5's rope_parameters."""
        new = self.raw.get("rope_parameters")
        if isinstance(new, dict):
            new = new[layer_type] if isinstance(new.get(layer_type), dict) else new
            return float(new.get("rope_theta", 10000.0)), new
        scaling = self.raw.get("rope_scaling")
        if scaling is not None and not isinstance(scaling, dict):
            raise ValueError(f"'rope_scaling' is {scaling!r}, want an object")
        return self.number("rope_theta", 10000.0), scaling


def _head_size(c: _Config, hidden: int, heads: int) -> int:
    if c.raw.get("head_dim") is None and hidden % heads:
        raise ValueError(f"hidden_size {hidden} is not a multiple of {heads} heads")
    return c.count("head_dim", hidden // heads)


def _rope(c: _Config, head_size: int, interleaved: bool = False) -> Rope:
    theta, scaling = c.rope_parameters()
    rotated = int(head_size * c.number("partial_rotary_factor", 1.0)) // 2 * 2
    return make_rope(theta, rotated, scaling, c.size("max_position_embeddings", 2048), interleaved)


def _llama(c: _Config) -> Spec:
    """llama and everything built like it."""
    hidden, heads = c.size("hidden_size"), c.count("num_attention_heads")
    head_size, kv_heads = _head_size(c, hidden, heads), c.count("num_key_value_heads", heads)
    if heads % kv_heads:
        raise ValueError(f"{heads} query heads are not a multiple of {kv_heads} key heads")
    count = c.count("num_hidden_layers")
    return Spec(
        str(c.raw["model_type"]),
        c.size("vocab_size"),
        hidden,
        c.size("intermediate_size"),
        heads,
        kv_heads,
        head_size,
        tuple(Layer(rope=0) for _ in range(count)),
        c.number("rms_norm_eps", 1e-6),
        c.activation("hidden_act"),
        c.context(c.size("max_position_embeddings", 2048)),
        head_size**-0.5,
        ropes=(_rope(c, head_size),),
    )


def _windows(c: _Config, spec: Spec, default_types: Callable[[int], str]) -> Spec:
    """Sliding windows by layer_types, or by a rule where config.json has none."""
    given = c.list_of("layer_types", len(spec.layers))
    types = given or [default_types(i) for i in range(len(spec.layers))]
    unknown = sorted({str(t) for t in types} - {"full_attention", "sliding_attention"})
    if unknown:
        raise ValueError(f"layer_types {', '.join(unknown)} (built in: full_attention, sliding_attention)")
    window = c.size("sliding_window") if "sliding_attention" in types else 0
    layers = (replace(x, window=window if t == "sliding_attention" else 0) for x, t in zip(spec.layers, types, strict=True))
    return replace(spec, layers=tuple(layers))


def _mistral(c: _Config) -> Spec:
    slides = c.raw.get("sliding_window") is not None
    return _windows(c, _llama(c), lambda _: "sliding_attention" if slides else "full_attention")


def _qwen(c: _Config) -> Spec:
    slides = c.flag("use_sliding_window") and c.raw.get("sliding_window") is not None
    first = int(c.raw.get("max_window_layers", 28) or 0)
    if not slides:
        c = _Config({k: v for k, v in c.raw.items() if k != "layer_types"}, c.asked)
    spec = _windows(c, _llama(c), lambda i: "sliding_attention" if slides and i >= first else "full_attention")
    return replace(spec, qk_norm="head" if c.raw["model_type"] == "qwen3" else "")


def _helium(c: _Config) -> Spec:
    spec = _llama(c)
    return replace(spec, ropes=(_rope(c, spec.head_size, interleaved=True),))


def _smollm3(c: _Config) -> Spec:
    spec = _llama(c)
    every = c.size("no_rope_layer_interval", 4)
    rotate = c.list_of("no_rope_layers", len(spec.layers)) or [(i + 1) % every for i in range(len(spec.layers))]
    slides = c.flag("use_sliding_window") and c.raw.get("sliding_window") is not None
    spec = replace(spec, layers=tuple(Layer(rope=0 if r else None) for r in rotate))
    if not slides:
        return spec
    return _windows(c, spec, lambda i: "full_attention" if rotate[i] else "sliding_attention")


def _olmo2(c: _Config) -> Spec:
    return replace(_llama(c), order="post", qk_norm="full")


def _apertus(c: _Config) -> Spec:
    kind = c.raw.get("hidden_act", "xielu")
    if kind != "xielu":
        raise ValueError(f"activation {kind!r} (apertus has 'xielu')")
    spec = _llama(_Config(c.raw | {"hidden_act": "silu"}, c.asked))
    return replace(spec, qk_norm="head", gated=False, activation="xielu")


def _gemma(c: _Config) -> Spec:
    """What Gemma 2 and 3 share; one rope, windows by layer."""
    if c.flag("use_bidirectional_attention"):
        raise ValueError("'use_bidirectional_attention' is not built in")
    act = c.activation("hidden_activation", "hidden_act", default="gelu_pytorch_tanh")
    spec = _llama(_Config({"head_dim": 256} | c.raw | {"hidden_act": act}, c.asked))
    default = 2 if c.raw["model_type"] == "gemma2" else 6
    every = c.size("sliding_window_pattern", c.size("_sliding_window_pattern", default))
    spec = _windows(c, spec, lambda i: "sliding_attention" if (i + 1) % every else "full_attention")
    return replace(
        spec,
        order="both",
        scale=c.number("query_pre_attn_scalar", 256) ** -0.5,
        embed_scale=spec.hidden**0.5,
        logit_softcap=c.number("final_logit_softcapping", 0.0),
    )


def _gemma2(c: _Config) -> Spec:
    return replace(_gemma(c), softcap=c.number("attn_logit_softcapping", 0.0))


def _gemma3(c: _Config) -> Spec:
    """Its windowed layers have a rope of their own; transformers does not use attn_logit_softcapping here."""
    spec = _gemma(c)
    if isinstance(c.raw.get("rope_parameters"), dict):
        theta, scaling = c.rope_parameters("sliding_attention")
    else:
        theta, scaling = c.number("rope_local_base_freq", 10000.0), None
    local = make_rope(theta, spec.head_size, scaling, spec.context)
    layers = tuple(replace(x, rope=1 if x.window else 0) for x in spec.layers)
    return replace(spec, layers=layers, ropes=(spec.ropes[0], local), qk_norm="head")


def _bloom(c: _Config) -> Spec:
    hidden = c.size("hidden_size", c.raw.get("n_embed"))
    heads, count = c.count("n_head", c.raw.get("num_attention_heads")), c.count("n_layer", c.raw.get("num_hidden_layers"))
    if hidden % heads:
        raise ValueError(f"hidden_size {hidden} is not a multiple of {heads} heads")
    return Spec(
        "bloom",
        c.size("vocab_size"),
        hidden,
        4 * hidden,
        heads,
        heads,
        hidden // heads,
        tuple(Layer() for _ in range(count)),
        c.number("layer_norm_epsilon", 1e-5),
        "gelu_new",
        c.context(c.size("seq_length", 2048)),
        (hidden // heads) ** -0.5,
        norm="layer",
        gated=False,
        alibi=alibi_slopes(heads),
        embed_norm=True,
        residual_after_norm=c.flag("apply_residual_connection_post_layernorm"),
    )


def _gpt2(c: _Config) -> Spec:
    hidden, heads, positions = c.size("n_embd", 768), c.count("n_head", 12), c.size("n_positions", 1024)
    if hidden % heads:
        raise ValueError(f"n_embd {hidden} is not a multiple of {heads} heads")
    for key in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        if c.flag(key):
            raise ValueError(f"{key!r} is not built in")
    size = hidden // heads
    return Spec(
        "gpt2",
        c.size("vocab_size", 50257),
        hidden,
        c.size("n_inner", 4 * hidden),
        heads,
        heads,
        size,
        tuple(Layer() for _ in range(c.count("n_layer", 12))),
        c.number("layer_norm_epsilon", 1e-5),
        c.activation("activation_function", default="gelu_new"),
        positions if c.asked is None else c.asked,
        size**-0.5 if c.flag("scale_attn_weights", True) else 1.0,
        norm="layer",
        gated=False,
        positions=positions,
    )


FAMILIES = {
    "llama": Family(_llama),
    "mistral": Family(_mistral),
    "helium": Family(_helium),
    "olmo2": Family(_olmo2),
    "apertus": Family(_apertus),
    "smollm3": Family(_smollm3, tied=True),
    "qwen2": Family(_qwen),
    "qwen3": Family(_qwen),
    "gemma2": Family(_gemma2, tied=True),
    "gemma3_text": Family(_gemma3, tied=True),
    "bloom": Family(_bloom, tied=True),
    "gpt2": Family(_gpt2, tied=True),
}


def unsupported(config: dict[str, Any]) -> str | None:
    """Why the decoder exporter cannot take the config (one line), or None when it can."""
    family = config.get("model_type")
    if family not in FAMILIES:
        return f"model_type {family!r} has no built-in exporter"
    if config.get("quantization_config"):
        return "the checkpoint is quantized already ('quantization_config'); give the float checkpoint, or a .gguf"
    return None


def read_spec(config: dict[str, Any], path: Path, context: int | None = None) -> Spec:
    """The Spec of a supported config.  context: positions to provide for, None: as trained, at most MAX_CONTEXT.

    Raises InvalidModel naming the file and the key.
    """
    if context is not None and context < 1:
        raise InvalidArgument(f"context {context}: want 1 or more positions")
    family = FAMILIES[str(config["model_type"])]
    c = _Config(config, context)
    try:
        spec = family.read(c)
    except (ValueError, TypeError, KeyError, ArithmeticError) as e:
        raise InvalidModel(f"{path / 'config.json'}: {e}") from e
    if spec.positions and spec.context > spec.positions:
        raise InvalidModel(f"{path}: context {spec.context} is more than the {spec.positions} learned positions")
    return replace(spec, tied=c.flag("tie_word_embeddings", family.tied))
