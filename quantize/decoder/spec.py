"""What of a decoder's configuration changes its graph, whatever file it came from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rope:
    """Rotary positions: angle of position p and pair i is p * frequency[i]; cosines and sines are times `factor`.

    frequency: float32 [rotated / 2].  interleaved: pairs are neighbours (x0, x1), not halves (x0, x[n/2]).
    """

    frequency: NDArray[np.float32]
    factor: float = 1.0
    interleaved: bool = False


@dataclass(frozen=True)
class Layer:
    """One layer's differences. rope: index into Spec.ropes, None for none; window: keys a query sees, 0 for all."""

    rope: int | None = None
    window: int = 0


@dataclass(frozen=True)
class Spec:
    """A decoder of width `hidden`: x = embed(ids); layers; norm; logits. Sizes in elements.

    norm: 'rms' or 'layer'.  order: 'pre' x + f(norm(x)), 'post' x + norm(f(x)), 'both' x + norm(f(norm(x))).
    gated: down(act(gate(x)) * up(x)), else down(act(up(x))).
    qk_norm: '' none, 'head' over each head, 'full' over all heads at once.
    alibi: slope a head, added as slope * key position; positions: rows of a learned position table, 0 for none.
    scale: of the scores; softcap, logit_softcap: c tanh(x / c), 0 for none.
    embed_scale: factor of the embeddings; logit_scale: of the logits.
    """

    family: str
    vocab: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_size: int
    layers: tuple[Layer, ...]
    epsilon: float
    activation: str
    context: int
    scale: float
    norm: str = "rms"
    order: str = "pre"
    gated: bool = True
    qk_norm: str = ""
    ropes: tuple[Rope, ...] = ()
    alibi: tuple[float, ...] = ()
    positions: int = 0
    embed_norm: bool = False
    embed_scale: float = 1.0
    softcap: float = 0.0
    logit_softcap: float = 0.0
    residual_after_norm: bool = False
    tied: bool = False
    notes: tuple[str, ...] = field(default=())
