"""Frequencies of rotary positions and their tables.

Formulas: RoPE arXiv 2104.09864; linear: positions divided by a factor; YaRN arXiv 2309.00071; llama3: the report of
Llama 3.1 (long waves divided by the factor, short ones kept, a linear blend between).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .spec import Rope

F32 = NDArray[np.float32]


def make_rope(theta: float, rotated: int, scaling: dict[str, Any] | None, context: int, interleaved: bool = False) -> Rope:
    """The Rope for a base and config.json's rope_scaling; ValueError where the kind is not known."""
    frequency = (1.0 / np.power(np.float32(theta), np.arange(0, rotated, 2, dtype=np.float32) / np.float32(rotated))).astype("f4")
    scaling = scaling or {}
    kind = str(scaling.get("rope_type", scaling.get("type", "default")))
    if kind == "default":
        return Rope(frequency, 1.0, interleaved)
    if kind not in ("linear", "llama3", "yarn"):
        raise ValueError(f"rope_scaling of type {kind!r} (built in: default, linear, llama3, yarn)")
    try:
        if kind == "linear":
            return Rope((frequency / np.float32(scaling["factor"])).astype("f4"), 1.0, interleaved)
        if kind == "llama3":
            return Rope(_llama3(frequency, scaling), 1.0, interleaved)
        return Rope(*_yarn(theta, rotated, scaling, context), interleaved)
    except (KeyError, TypeError, ZeroDivisionError) as e:
        raise ValueError(f"rope_scaling of type {kind!r} lacks or garbles {e}") from e


def _llama3(frequency: F32, s: dict[str, Any]) -> F32:
    factor, low, high = float(s["factor"]), float(s["low_freq_factor"]), float(s["high_freq_factor"])
    old = float(s["original_max_position_embeddings"])
    wave = 2 * math.pi / frequency.astype(np.float64)
    blend = np.clip((old / wave - low) / (high - low), 0.0, 1.0)
    return ((1 - blend) * frequency / factor + blend * frequency).astype(np.float32)


def _yarn(theta: float, rotated: int, s: dict[str, Any], context: int) -> tuple[F32, float]:
    factor = float(s["factor"])
    old = float(s.get("original_max_position_embeddings") or context)

    def turns_at(turns: float) -> float:
        return rotated * math.log(old / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = turns_at(float(s.get("beta_fast") or 32)), turns_at(float(s.get("beta_slow") or 1))
    if s.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotated - 1)
    high += 0.001 if low == high else 0
    keep = 1 - np.clip((np.arange(rotated // 2, dtype=np.float32) - low) / (high - low), 0, 1)
    wave = np.power(float(theta), np.arange(0, rotated, 2) / rotated)
    frequency = (1 / (factor * wave)) * (1 - keep) + (1 / wave) * keep
    return frequency.astype(np.float32), _yarn_attention(factor, s)


def _yarn_attention(factor: float, s: dict[str, Any]) -> float:
    def of(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if s.get("attention_factor") is not None:
        return float(s["attention_factor"])
    if s.get("mscale") and s.get("mscale_all_dim"):
        return of(float(s["mscale"])) / of(float(s["mscale_all_dim"]))
    return of(1.0)


def tables(rope: Rope, positions: int) -> tuple[F32, F32]:
    """Cosines and sines, float32 [positions, rotated / 2]; the angle itself is rounded to float32, as torch does."""
    angle = (np.arange(positions, dtype=np.float32)[:, None] * rope.frequency[None, :]).astype(np.float32)
    wide = angle.astype(np.float64)
    return (np.cos(wide) * rope.factor).astype(np.float32), (np.sin(wide) * rope.factor).astype(np.float32)


def alibi_slopes(heads: int) -> tuple[float, ...]:
    """Slopes of ALiBi (arXiv 2108.12409): a geometric series; for other numbers than powers of two, every other
    slope of the next power is filled in."""
    power = 2 ** math.floor(math.log2(heads))

    def series(n: int) -> list[float]:
        base = 2.0 ** -(2.0 ** -(math.log2(n) - 3))
        return [base**i for i in range(1, n + 1)]

    return tuple(series(power) + series(2 * power)[0::2][: heads - power])
