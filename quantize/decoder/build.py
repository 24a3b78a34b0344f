"""Spec and weights become a graph of standard operators with a growing cache (frugal.compiler.generation makes it a fixed one).

B batch, S new tokens, P past, T = P + S, G key heads, D head size, V vocabulary:
    input_ids [B,S], attention_mask [B,T], position_ids [B,S], past_key_values.i.key|value [B,G,P,D]
    -> logits [B,S,V], present.i.key|value [B,G,T,D]
position_ids only where the model has positions.  Key i of the mask is 0 for padding, which stands on the left.
"""

from __future__ import annotations

import numpy as np

from frugal.errors import InvalidModel

from ..graph import Graph
from .rope import tables
from .spec import Layer, Rope, Spec
from .weights import Weights

B, S, PAST, TOTAL = "batch", "sequence", "past", "total"


def build(g: Graph, spec: Spec, weights: Weights) -> None:
    """Fill the graph: inputs, layers, outputs."""
    _Builder(g, spec, weights).run()


class _Builder:
    def __init__(self, g: Graph, spec: Spec, weights: Weights) -> None:
        self.g, self.s, self.w = g, spec, weights
        self.masks: dict[int, str] = {}  # by window
        self.keys = ""  # how many there are

    def run(self) -> None:
        g, s = self.g, self.s
        g.add_input("input_ids", [B, S])
        g.add_input("attention_mask", [B, TOTAL])
        if s.ropes or s.positions:
            g.add_input("position_ids", [B, S])
        for i in range(len(s.layers)):
            for what in ("key", "value"):
                g.add_input(f"past_key_values.{i}.{what}", self._cache_shape(PAST), g.onnx.TensorProto.FLOAT)
        self.keys = g.op("Squeeze", [g.op("Shape", ["attention_mask"], "keys", start=1, end=2)], "keys")
        x, presents = self._embed(), list[str]()
        for i, layer in enumerate(s.layers):
            x, key, value = self._layer(x, i, layer)
            presents += [key, value]
        g.add_output(self._logits(self._norm(x, "norm")), "logits", [B, S, s.vocab])
        for i, present in enumerate(presents):
            g.add_output(present, f"present.{i // 2}.{('key', 'value')[i % 2]}", self._cache_shape(TOTAL))

    def _cache_shape(self, length: str) -> list[str | int]:
        return [B, self.s.kv_heads, length, self.s.head_size]

    # ---- masks ----
    def _queries(self) -> str:
        """Where the queries stand among the keys, int64 [1, 1, S, 1]."""
        g, n = self.g, "query_index"
        new = g.op("Squeeze", [g.op("Shape", ["input_ids"], n, start=1, end=2)], n)
        steps = g.op("Range", [g.scalar(0), new, g.scalar(1)], n)
        at = g.op("Add", [steps, g.op("Sub", [self.keys, new], n)], n)
        return g.op("Unsqueeze", [at, g.ints(0, 1, 3)], n)

    def _mask(self, window: int) -> str:
        """bool [B,1,S,T], or with ALiBi float [B,H,S,T]."""
        if window not in self.masks:
            self.masks[window] = self._make_mask(window)
        return self.masks[window]

    def _make_mask(self, window: int) -> str:
        g, n = self.g, f"mask/{window}" if window else "mask"
        seen = g.op("Unsqueeze", [g.op("Cast", ["attention_mask"], n, to=g.onnx.TensorProto.BOOL), g.ints(1, 2)], n)
        index = g.op("Range", [g.scalar(0), self.keys, g.scalar(1)], n)
        if window:
            first = g.op("Sub", [self._queries(), g.scalar(window)], n)
            seen = g.op("And", [seen, g.op("Greater", [index, first], n)], n)
        if self.s.alibi:
            return self._alibi(n, index, seen)
        return seen if window else self._over_queries(seen, n, 1)

    def _over_queries(self, mask: str, name: str, heads: int) -> str:
        """A mask over keys written out for every query: [B or 1, heads, S, T]."""
        g = self.g
        new = g.op("Shape", ["input_ids"], name, start=1, end=2)
        shape = g.op("Concat", [g.ints(1, heads), new, g.ints(1)], name, axis=0)
        return g.op("Expand", [mask, shape], name)

    def _alibi(self, name: str, index: str, seen: str) -> str:
        """slope * key position (the constant of a row cancels), and the lowest float where a key is hidden."""
        g, heads = self.g, self.s.heads
        slopes = g.const("alibi_slopes", np.array(self.s.alibi, np.float32).reshape(1, heads, 1, 1))
        bias = g.op("Mul", [g.op("Cast", [index], name, to=g.onnx.TensorProto.FLOAT), slopes], name)
        bias = g.op("Where", [seen, bias, g.scalar(float(np.finfo(np.float32).min))], name)
        return self._over_queries(bias, name, heads)

    # ---- layers ----
    def _embed(self) -> str:
        g, s = self.g, self.s
        x = self.w.table(g, "embed", s.vocab, s.hidden, "input_ids")
        if s.embed_scale != 1.0:
            x = g.op("Mul", [x, g.const("embed_scale", np.array(s.embed_scale, np.float32))], "embed")
        if s.positions:
            x = g.op("Add", [x, self.w.table(g, "positions", s.positions, s.hidden, "position_ids")], "positions")
        return self._norm(x, "embed_norm") if s.embed_norm else x

    def _norm(self, x: str, part: str, size: int = 0) -> str:
        g, s, size = self.g, self.s, size or self.s.hidden
        w = self.w.vector(g, part, size)
        if s.norm == "rms":
            return g.op("RMSNormalization", [x, w], part, axis=-1, epsilon=s.epsilon)
        return g.op("LayerNormalization", [x, w, self.w.vector(g, part, size, bias=True)], part, axis=-1, epsilon=s.epsilon)

    def _layer(self, x: str, i: int, layer: Layer) -> tuple[str, str, str]:
        g, s = self.g, self.s
        before, after = s.order in ("pre", "both"), s.order in ("post", "both")
        h = self._norm(x, f"{i}.norm1") if before else x
        residual = h if s.residual_after_norm else x
        y, key, value = self._attention(h, i, layer)
        x = g.op("Add", [residual, self._norm(y, f"{i}.norm1_after") if after else y], f"{i}.residual1")
        h = self._norm(x, f"{i}.norm2") if before else x
        residual = h if s.residual_after_norm else x
        y = self._feed_forward(h, i)
        return g.op("Add", [residual, self._norm(y, f"{i}.norm2_after") if after else y], f"{i}.residual2"), key, value

    def _feed_forward(self, x: str, i: int) -> str:
        g, s = self.g, self.s
        up = self.w.linear(g, x, f"{i}.up", s.inner, s.hidden)
        if s.gated:
            gate = g.activation(self.w.linear(g, x, f"{i}.gate", s.inner, s.hidden), s.activation, f"{i}.gate")
            y = g.op("Mul", [gate, up], f"{i}.gated")
        else:
            y = self._xielu(up, i) if s.activation == "xielu" else g.activation(up, s.activation, f"{i}.up")
        return self.w.linear(g, y, f"{i}.down", s.hidden, s.inner)

    def _xielu(self, x: str, i: int) -> str:
        """xIELU (arXiv 2411.13010): x > 0: p x^2 + b x; else n (exp(min(x, e)) - 1 - x) + b x; p = softplus(alpha_p),
        n = b + softplus(alpha_n)."""
        g, n = self.g, f"{i}.xielu"
        a = {"beta": 0.5, "eps": -1e-6} | self.w.scalars(n)
        lacking = [k for k in ("alpha_p", "alpha_n") if k not in a]
        if lacking:
            raise InvalidModel(f"layer {i}: the activation xIELU has no {' and no '.join(lacking)}")
        p, q = (float(np.logaddexp(0.0, a[k])) for k in ("alpha_p", "alpha_n"))

        def number(key: str, value: float) -> str:
            return g.const(f"{n}.{key}", np.array(value, np.float32))

        below = g.op("Sub", [g.op("Exp", [g.op("Min", [x, number("eps", a["eps"])], n)], n), g.scalar(1.0)], n)
        below = g.op("Mul", [g.op("Sub", [below, x], n), number("alpha_n", a["beta"] + q)], n)
        above = g.op("Mul", [g.op("Mul", [x, x], n), number("alpha_p", p)], n)
        y = g.op("Where", [g.op("Greater", [x, g.scalar(0.0)], n), above, below], n)
        return g.op("Add", [y, g.op("Mul", [x, number("beta", a["beta"])], n)], n)

    def _attention(self, x: str, i: int, layer: Layer) -> tuple[str, str, str]:
        """(y, present key, present value)."""
        g, s = self.g, self.s
        wide, narrow = s.heads * s.head_size, s.kv_heads * s.head_size
        q = self._placed(self.w.linear(g, x, f"{i}.q", wide, s.hidden), i, "q", s.heads, layer)
        k = self._placed(self.w.linear(g, x, f"{i}.k", narrow, s.hidden), i, "k", s.kv_heads, layer)
        v = self.w.linear(g, x, f"{i}.v", narrow, s.hidden)
        attributes = {"q_num_heads": s.heads, "kv_num_heads": s.kv_heads, "scale": s.scale, "is_causal": 1}
        if s.softcap:
            attributes["softcap"] = s.softcap
        past = [f"past_key_values.{i}.{what}" for what in ("key", "value")]
        y, *held = g.many("Attention", [q, k, v, self._mask(layer.window), *past], f"{i}.attention", 3, **attributes)
        return self.w.linear(g, y, f"{i}.o", s.hidden, wide), held[0], held[1]

    def _placed(self, x: str, i: int, what: str, heads: int, layer: Layer) -> str:
        """A query or key after its norm and its rotation."""
        g, s, name = self.g, self.s, f"{i}.{what}"
        if s.qk_norm == "full":
            x = self._norm(x, f"{name}_norm", heads * s.head_size)
        elif s.qk_norm == "head":
            x = g.op("Reshape", [x, g.ints(0, 0, heads, s.head_size)], name)
            x = self._norm(x, f"{name}_norm", s.head_size)
            x = g.op("Reshape", [x, g.ints(0, 0, heads * s.head_size)], name)
        if layer.rope is None:
            return x
        rope = s.ropes[layer.rope]
        attributes = {"num_heads": heads, "interleaved": int(rope.interleaved)}
        rotated = 2 * len(rope.frequency)
        if rotated != s.head_size:
            attributes["rotary_embedding_dim"] = rotated
        cos, sin = self._tables(rope, layer.rope)
        return g.op("RotaryEmbedding", [x, cos, sin, "position_ids"], name, **attributes)

    def _tables(self, rope: Rope, number: int) -> tuple[str, str]:
        names = f"rotary.{number}.cos", f"rotary.{number}.sin"
        if names[0] not in self.g.tensors:
            for name, value in zip(names, tables(rope, self.s.context), strict=True):
                self.g.const(name, value)
        return names

    def _logits(self, x: str) -> str:
        g, s = self.g, self.s
        if s.tied or not self.w.has("head"):
            y = self.w.tied_head(g, x, s.vocab, s.hidden)
        else:
            y = self.w.linear(g, x, "head", s.vocab, s.hidden)
        if not s.logit_softcap:
            return y
        cap = g.const("logit_softcap", np.array(s.logit_softcap, np.float32))
        return g.op("Mul", [g.op("Tanh", [g.op("Div", [y, cap], "softcap")], "softcap"), cap], "softcap")
