"""Attention over caches, windows and masks: against onnxruntime where it has the form, else against a few lines of numpy.

The numpy attention is written from the text of ONNX's Attention: positions, windows, lengths and masks, one query at a time.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

import frugal
from frugal.compiler import compile_model, lower_model
from frugal.compiler.ir import Op

from .models import Builder, run_frugal, run_onnxruntime

CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # sums in another order, and exp of our own


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, *, mask: np.ndarray | None = None, offset: Any = 0, lengths: Any = None,
           left: int = -1, right: int = -1, softcap: float = 0.0) -> np.ndarray:  # fmt: skip
    """q [b, h, s, d], k [b, g, t, d], v [b, g, t, e] -> [b, h, s, e]; a mask broadcasts to [b, h, s, up to t]."""
    b, h, s, d = q.shape
    t = k.shape[2]
    y = np.zeros((b, h, s, v.shape[3]))
    for n, m, i in product(range(b), range(h), range(s)):
        kv = m // (h // k.shape[1])
        scores = k[n, kv].astype(np.float64) @ q[n, m, i] / np.sqrt(d)
        scores = softcap * np.tanh(scores / softcap) if softcap else scores
        place, key = i + (offset if lengths is None else lengths[n] - s), np.arange(t)
        seen = key < (t if lengths is None else lengths[n])
        seen &= (left < 0) | (key >= place - left)
        seen &= (right < 0) | (key <= place + right)
        if mask is not None:
            row = np.broadcast_to(mask, (b, h, s, mask.shape[-1]))[n, m, i]
            seen[row.size :] = False
            row = np.pad(row, (0, t - row.size))
            seen, scores = (seen & row, scores) if row.dtype == bool else (seen & np.isfinite(row), scores + row)
        if seen.any():
            weights = np.where(seen, np.exp(scores - scores[seen].max()), 0)
            y[n, m, i] = weights @ v[n, kv] / weights.sum()
    return y


def heads_last(x: np.ndarray) -> np.ndarray:
    b, h, s, d = x.shape
    return x.transpose(0, 2, 1, 3).reshape(b, s, h * d)


def attention_model(feeds: dict[str, np.ndarray], opset: int = 25, outputs: int = 1, **attributes: Any) -> onnx.ModelProto:
    """Inputs q, k, v, mask, pk, pv, lengths as given, every dim but the last symbolic."""
    b = Builder(opset)
    names = []
    for name in ("q", "k", "v", "mask", "pk", "pv", "lengths"):
        if name not in feeds:
            names.append("")
            continue
        x = feeds[name]
        kind = {"b": TensorProto.BOOL, "i": TensorProto.INT64, "f": TensorProto.FLOAT}[x.dtype.kind]
        fixed = 2 if x.ndim == 4 and name != "mask" else 1
        shape: list[Any] = [f"{name}{i}" for i in range(x.ndim)]
        if name in ("q", "k", "v", "pk", "pv"):
            shape[-1] = x.shape[-1]
            if fixed == 2:
                shape[1] = x.shape[1]
        names.append(b.input(name, shape, kind))
    while not names[-1]:
        names.pop()
    made = b.op("Attention", *names, outputs=outputs, **attributes)
    return b.model(*(made if outputs > 1 else [made]))


MASKS: list[tuple[tuple[str, ...], type]] = [
    (shape, kind) for shape in (("t",), ("s", "t"), ("h", "s", "t"), ("1", "1", "t"), ("b", "1", "s", "t"), ("b", "h", "s", "t"))
    for kind in (bool, float)
]  # fmt: skip


@pytest.mark.parametrize("four", [False, True])
@pytest.mark.parametrize("window", [(-1, -1), (-1, 0), (3, 0), (2, 1), (0, 0), (-1, 2), (4, -1)])
@pytest.mark.parametrize("cache", ["none", "past", "lengths"])
@pytest.mark.parametrize("queries", [1, 5, 20])
def test_every_window_over_every_cache(four: bool, window: tuple[int, int], cache: str, queries: int) -> None:
    rng = np.random.default_rng(queries)
    b, h, g, d, e, past = 2, 4, 2, 8, 6, 37
    t = past + queries if cache == "lengths" else queries
    q, k, v = normal(rng, b, h, queries, d), normal(rng, b, g, t, d), normal(rng, b, g, t, e)
    feeds = {"q": q, "k": k, "v": v}
    attributes: dict[str, Any] = {"left_window_size": window[0], "right_window_size": window[1]}
    if window == (-1, 0):
        attributes = {"is_causal": 1}
    given: dict[str, Any] = {"left": window[0], "right": window[1]}
    if cache == "past":
        feeds |= {"pk": normal(rng, b, g, past, d), "pv": normal(rng, b, g, past, e)}
        k, v = np.concatenate([feeds["pk"], k], 2), np.concatenate([feeds["pv"], v], 2)
        given["offset"] = past
    if cache == "lengths":
        feeds["lengths"] = given["lengths"] = np.array([t, queries // 2], np.int64)
    want = attend(q, k, v, **given)
    if not four:
        feeds |= {n: heads_last(feeds[n]) for n in "qkv"}
        attributes |= {"q_num_heads": h, "kv_num_heads": g}
        want = heads_last(want)
    model = attention_model(feeds, **attributes)
    for options in ({}, {"optimize": False}):
        np.testing.assert_allclose(run_frugal(model, feeds, **options)[0], want, **CLOSE)


@pytest.mark.parametrize(("shape", "kind"), MASKS)
@pytest.mark.parametrize("missing", [0, 2])
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("softcap", [0.0, 1.5])
def test_every_mask(shape: tuple[str, ...], kind: type, missing: int, causal: int, softcap: float) -> None:
    rng = np.random.default_rng(len(shape))
    sizes = {"b": 2, "h": 4, "s": 5, "t": 9 - missing, "1": 1}
    q, k, v = normal(rng, 2, 4, 5, 8), normal(rng, 2, 2, 9, 8), normal(rng, 2, 2, 9, 8)
    kept = rng.integers(0, 3, [sizes[c] for c in shape]) > 0
    kept[..., :1] = rng.integers(0, 2, kept[..., :1].shape) > 0  # some rows of queries see nothing
    mask = kept if kind is bool else np.where(kept, normal(rng, *kept.shape), -np.inf).astype(np.float32)
    feeds = {"q": q, "k": k, "v": v, "mask": mask}
    (got,) = run_frugal(attention_model(feeds, 24, is_causal=causal, softcap=softcap), feeds)
    want = attend(q, k, v, mask=mask, right=0 if causal else -1, softcap=softcap)
    np.testing.assert_allclose(got, want, **CLOSE)


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "extra", [{}, {"is_causal": 1, "softcap": 2.0}, {"left_window_size": 2, "right_window_size": 1}], ids=str
)
@pytest.mark.parametrize("cache", ["past", "lengths"])
def test_the_scores_are_the_references(mode: int, extra: dict[str, Any], cache: str) -> None:
    rng = np.random.default_rng(mode)
    past, t = (3, 5) if cache == "past" else (0, 8)
    feeds = {"q": normal(rng, 2, 4, 5, 8), "k": normal(rng, 2, 2, t, 8), "v": normal(rng, 2, 2, t, 8)}
    feeds["mask"] = rng.integers(0, 4, (2, 1, 5, 6)) > 0
    if cache == "past":
        feeds |= {"pk": normal(rng, 2, 2, past, 8), "pv": normal(rng, 2, 2, past, 8)}
    else:
        feeds["lengths"] = np.array([8, 4], np.int64)
    model = attention_model(feeds, 25, 4, qk_matmul_output_mode=mode, **extra)
    drop = [1, 2] if cache == "lengths" else []
    for i in reversed(drop):
        del model.graph.output[i]
        model.graph.node[0].output[i] = ""
    results = run_frugal(model, feeds)
    wanted = ReferenceEvaluator(model).run(None, feeds)
    if mode == 0 and "softcap" in extra:  # the text says "raw"; the reference gives them after the soft cap
        raw = [a for a in model.graph.node[0].attribute if a.name != "softcap"]
        del model.graph.node[0].attribute[:]
        model.graph.node[0].attribute.extend(raw)
        wanted[-1] = ReferenceEvaluator(model).run(None, feeds)[-1]
    for got, want in zip(results, wanted, strict=True):
        np.testing.assert_allclose(got, want, **CLOSE)


def test_a_length_beyond_the_cache_is_refused() -> None:
    rng = np.random.default_rng(0)
    feeds = {"q": normal(rng, 1, 2, 1, 8), "k": normal(rng, 1, 2, 4, 8), "v": normal(rng, 1, 2, 4, 8)}
    for bad in (5, -1):
        feeds["lengths"] = np.array([bad], np.int64)
        with pytest.raises(frugal.FrugalError, match="length"):
            run_frugal(attention_model(feeds, 24), feeds)


# ---- a decoder layer: projections, QK-norm, rotary positions, attention over a cache ----
WIDTH, HEADS, GROUPS, SIZE, PLACES = 24, 4, 2, 8, 40


class Layer:
    """One attention layer with fixed weights and either form of cache."""

    def __init__(self, *, fixed: int = 0, mask: str = "", norm: bool = False, window: int = 0) -> None:
        rng = np.random.default_rng(11)
        b = Builder(24)
        x, ids = b.input("x", ["b", "s", WIDTH]), b.input("ids", ["b", "s"], TensorProto.INT64)
        shapes = {"q": HEADS * SIZE, "k": GROUPS * SIZE, "v": GROUPS * SIZE}
        made = {n: b.op("MatMul", x, b.const(normal(rng, WIDTH, w) / 4)) for n, w in shapes.items()}
        tables = [b.const(f(np.outer(np.arange(PLACES), 0.7 ** np.arange(SIZE // 2)))) for f in (np.cos, np.sin)]
        for n, heads in (("q", HEADS), ("k", GROUPS)):
            if norm:
                split = b.op("Reshape", made[n], b.const([0, 0, -1, SIZE], np.int64))
                scaled = b.op("RMSNormalization", split, b.const(1 + normal(rng, SIZE) / 9), axis=-1)
                made[n] = b.op("Reshape", scaled, b.const([0, 0, -1], np.int64))
            made[n] = b.op("RotaryEmbedding", made[n], *tables, ids, num_heads=heads, interleaved=1)
        operands = [made["q"], made["k"], made["v"]]
        operands.append(b.input("mask", ["b", 1, "s", "t"] if window or mask else [], TensorProto.BOOL) if mask or window else "")
        attributes = {"is_causal": 1, "q_num_heads": HEADS, "kv_num_heads": GROUPS}
        self.fixed = fixed
        if fixed:
            places, lengths = (b.input(n, ["b"], TensorProto.INT64) for n in ("places", "lengths"))
            presents = [
                b.op("TensorScatter", b.input(f"past_{n}", ["b", fixed, GROUPS * SIZE]), made[n], places, axis=1) for n in "kv"
            ]
            operands[1:3] = presents
            y = b.op("Attention", *operands, "", "", lengths, **attributes)
        else:
            past = [b.input(f"past_{n}", ["b", GROUPS, "p", SIZE]) for n in "kv"]
            y, *presents = b.op("Attention", *operands, *past, outputs=3, **attributes)
        self.model = b.model(b.op("MatMul", y, b.const(normal(rng, HEADS * SIZE, WIDTH) / 4)), *presents)
        self.session = frugal.InferenceSession(compile_model(self.model))

    def empty(self, b: int) -> dict[str, np.ndarray]:
        shape = (b, self.fixed, GROUPS * SIZE) if self.fixed else (b, GROUPS, 0, SIZE)
        return {f"past_{n}": np.zeros(shape, np.float32) for n in "kv"}

    def run(self, x: np.ndarray, state: dict[str, np.ndarray], start: Any = 0, **more: np.ndarray) -> np.ndarray:
        b, s, _ = x.shape
        start = np.broadcast_to(start, (b,)).astype(np.int64)
        feeds = {"x": x, "ids": start[:, None] + np.arange(s, dtype=np.int64), **state, **more}
        if self.fixed:
            feeds |= {"places": start, "lengths": start + s}
        y, state["past_k"], state["past_v"] = self.session.run(None, feeds)
        return y


@pytest.mark.parametrize("fixed", [0, 16])
@pytest.mark.parametrize("norm", [False, True])
def test_one_token_steps_give_the_bits_of_the_whole(fixed: int, norm: bool) -> None:
    layer = Layer(fixed=fixed, norm=norm)
    x = normal(np.random.default_rng(0), 2, 12, WIDTH)
    whole = layer.run(x, layer.empty(2))
    state = layer.empty(2)
    steps = [layer.run(x[:, :5], state)]
    steps += [layer.run(x[:, i : i + 1], state, i) for i in range(5, 12)]
    np.testing.assert_array_equal(np.concatenate(steps, 1), whole)


def test_both_caches_give_the_same_bits_as_each_other_and_what_onnxruntime_gives() -> None:
    growing, fixed = Layer(), Layer(fixed=16)
    x = normal(np.random.default_rng(1), 2, 7, WIDTH)
    a, b = growing.run(x, growing.empty(2)), fixed.run(x, fixed.empty(2))
    np.testing.assert_array_equal(a, b)
    feeds = {"x": x, "ids": np.broadcast_to(np.arange(7, dtype=np.int64), (2, 7)), **growing.empty(2)}
    for got, want in zip(run_frugal(growing.model, feeds), run_onnxruntime(growing.model, feeds), strict=True):
        np.testing.assert_allclose(got, want, **CLOSE)


def test_a_left_padded_batch_gives_each_row_what_it_gives_alone() -> None:
    layer, plain = Layer(mask="padding"), Layer()
    rng = np.random.default_rng(2)
    lengths, total = (6, 3, 1), 6
    rows = [normal(rng, 1, n, WIDTH) for n in lengths]
    x = np.concatenate([np.pad(r, ((0, 0), (total - r.shape[1], 0), (0, 0)), constant_values=7.0) for r in rows])
    pad = np.array([total - n for n in lengths])
    state = layer.empty(3)

    def step(x: np.ndarray, start: int) -> np.ndarray:
        s = x.shape[1]
        seen = np.arange(start + s)[None] >= pad[:, None]
        mask = np.ascontiguousarray(np.broadcast_to(seen[:, None, None], (3, 1, s, start + s)))
        ids = np.maximum(start + np.arange(s)[None] - pad[:, None], 0)
        feeds = {"x": x, "ids": ids.astype(np.int64), "mask": mask, **state}
        y, state["past_k"], state["past_v"] = layer.session.run(None, feeds)
        return y

    prompt, more = step(x, 0), normal(rng, 3, 1, WIDTH)
    following = step(more, total)
    for i, (row, n) in enumerate(zip(rows, lengths, strict=True)):
        alone = plain.empty(1)
        np.testing.assert_allclose(prompt[i : i + 1, total - n :], plain.run(row, alone), **CLOSE)
        np.testing.assert_allclose(following[i : i + 1], plain.run(more[i : i + 1], alone, n), **CLOSE)


def test_a_ragged_batch_in_a_fixed_cache() -> None:
    layer = Layer(fixed=16)
    rng = np.random.default_rng(3)
    lengths, total = np.array([6, 2, 4]), 6
    x, more = normal(rng, 3, total, WIDTH), normal(rng, 3, 1, WIDTH)
    state = layer.empty(3)
    prompt = layer.run(x, state)
    following = layer.run(more, state, lengths)  # writes over the padding
    for i, n in enumerate(lengths):
        alone = layer.empty(1)
        np.testing.assert_array_equal(prompt[i : i + 1, :n], layer.run(x[i : i + 1, :n], alone))
        np.testing.assert_array_equal(following[i : i + 1], layer.run(more[i : i + 1], alone, n))


def test_a_sliding_window_as_a_mask_or_as_an_attribute() -> None:
    rng = np.random.default_rng(4)
    s, w = 40, 5
    feeds = {n: normal(rng, 2, s, 4 * 8) for n in "qkv"}
    heads = {"q_num_heads": 4, "kv_num_heads": 4, "is_causal": 1}
    (want,) = run_frugal(attention_model(feeds, left_window_size=w - 1, **heads), feeds)
    feeds["mask"] = np.arange(s)[None] > np.arange(s)[:, None] - w
    model = attention_model(feeds, 24, **heads)
    np.testing.assert_allclose(run_frugal(model, feeds)[0], want, **CLOSE)
    np.testing.assert_allclose(run_onnxruntime(model, feeds)[0], want, **CLOSE)


def test_a_ring_buffer_keeps_the_last_tokens() -> None:
    rng = np.random.default_rng(5)
    size, steps = 4, 11
    b = Builder(24)
    past, new = b.input("past", [2, size, 6]), b.input("new", [2, "s", 6])
    model = b.model(b.op("TensorScatter", past, new, b.input("at", [2], TensorProto.INT64), axis=1, mode="circular"))
    x = normal(rng, 2, steps, 6)
    ring = np.zeros((2, size, 6), np.float32)
    session = frugal.InferenceSession(compile_model(model))
    for i in range(steps):
        (ring,) = session.run(None, {"past": ring, "new": x[:, i : i + 1], "at": np.array([i, i], np.int64)})
    np.testing.assert_array_equal(ring, x[:, [8, 9, 10, 7]])
    (ring,) = session.run(None, {"past": ring, "new": x[:, :3], "at": np.array([3, 6], np.int64)})
    np.testing.assert_array_equal(ring[0], x[0, [1, 2, 10, 0]])
    np.testing.assert_array_equal(ring[1], x[1, [2, 9, 0, 1]])


def test_a_place_outside_the_cache_is_refused() -> None:
    b = Builder(24)
    names = b.input("past", [1, 4, 2]), b.input("new", [1, 2, 2]), b.input("at", [1], TensorProto.INT64)
    model = b.model(b.op("TensorScatter", *names, axis=1))
    for at in (-1, 3):
        feeds = {"past": np.zeros((1, 4, 2), np.float32), "new": np.ones((1, 2, 2), np.float32), "at": np.array([at], np.int64)}
        with pytest.raises(frugal.FrugalError, match="place"):
            run_frugal(model, feeds)


@pytest.mark.parametrize("form", ["alibi", "sinks"])
def test_forms_that_attention_does_not_name(form: str) -> None:
    """ALiBi and sinks as float masks; numpy says what they mean."""
    rng = np.random.default_rng(6)
    q, k, v = (normal(rng, 2, 4, 7, 8) for _ in range(3))
    key = np.arange(7, dtype=np.float32)
    if form == "alibi":
        mask = np.broadcast_to(np.array([0.5, 0.25, 0.1, 0.0], np.float32)[:, None, None] * key, (1, 4, 7, 7))
    else:
        k[:, :, 0], v[:, :, 0] = 0, 0
        mask = np.zeros((1, 4, 7, 7), np.float32)
        mask[0, :, :, 0] = np.array([0.3, -1.0, 2.0, 0.0])[:, None]
    feeds = {"q": q, "k": k, "v": v, "mask": np.ascontiguousarray(mask, np.float32)}
    (got,) = run_frugal(attention_model(feeds, 24, is_causal=1), feeds)
    np.testing.assert_allclose(got, attend(q, k, v, mask=feeds["mask"], right=0), **CLOSE)


def test_the_steps_of_a_decoder_layer() -> None:
    """A growing cache costs two transposes of the new tokens and two copies; a fixed one two writes; nothing else moves."""
    graph, _ = lower_model(Layer().model)
    kinds = [s.op for s in graph.steps if s.op not in (Op.ALIAS, Op.LINEAR)]
    assert sorted(kinds) == sorted([Op.ROTARY] * 2 + [Op.TRANSPOSE] * 2 + [Op.CONCAT] * 2 + [Op.ATTENTION_CACHE])
    graph, _ = lower_model(Layer(fixed=8).model)
    kinds = [s.op for s in graph.steps if s.op not in (Op.ALIAS, Op.LINEAR)]
    assert sorted(kinds) == sorted([Op.ROTARY] * 2 + [Op.TENSOR_SCATTER] * 2 + [Op.ATTENTION_CACHE])


# ---- rotary positions, recurrences ----
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("rotated", [0, 4])
@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("four", [False, True])
def test_rotary_embedding(interleaved: int, rotated: int, ids: bool, four: bool) -> None:
    rng = np.random.default_rng(7)
    b, n, s, h, d = Builder(23), 2, 3, 4, 8
    half = (rotated or d) // 2
    feeds: dict[str, Any] = {"x": normal(rng, n, h, s, d) if four else normal(rng, n, s, h * d)}
    x = b.input("x", ["n", h, "s", d] if four else ["n", "s", h * d])
    for name in ("cos", "sin"):
        feeds[name] = normal(rng, 9, half) if ids else normal(rng, n, s, half)
    tables = [b.input(name, ["p", half] if ids else ["n", "s", half]) for name in ("cos", "sin")]
    if ids:
        feeds["ids"] = rng.integers(0, 9, (n, s)).astype(np.int64)
        tables.append(b.input("ids", ["n", "s"], TensorProto.INT64))
    attributes = {"interleaved": interleaved, "rotary_embedding_dim": rotated} | ({} if four else {"num_heads": h})
    model = b.model(b.op("RotaryEmbedding", x, *tables, **attributes))
    (want,) = ReferenceEvaluator(model).run(None, feeds)
    np.testing.assert_allclose(run_frugal(model, feeds)[0], want, rtol=1e-6, atol=1e-6)
    if ids:
        feeds["ids"][0, 0] = 9
        with pytest.raises(frugal.FrugalError, match="position"):
            run_frugal(model, feeds)


RULES = {"linear": (False, False), "gated": (True, False), "delta": (False, True), "gated_delta": (True, True)}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("per_key", [False, True])
@pytest.mark.parametrize("dv", [6, 70])
def test_linear_attention_in_one_go_and_token_by_token(rule: str, heads: tuple[int, int], per_key: bool, dv: int) -> None:
    rng = np.random.default_rng(8)
    (h, g), b, n, t, dk = heads, Builder(27), 2, 9, 8
    feeds = {"q": normal(rng, n, t, h * dk), "k": normal(rng, n, t, g * dk) / 3, "v": normal(rng, n, t, g * dv)}
    feeds["past"] = normal(rng, n, g, dk, dv)
    names = [b.input(x, ["n", "t", feeds[x].shape[-1]]) for x in "qkv"] + [b.input("past", ["n", g, dk, dv])]
    for name, there in zip(("decay", "beta"), RULES[rule], strict=True):
        width = g if name == "beta" or not per_key else g * dk
        if there:
            feeds[name] = -np.abs(normal(rng, n, t, width)) if name == "decay" else rng.random((n, t, width)).astype(np.float32)
        names.append(b.input(name, ["n", "t", width]) if there else "")
    while not names[-1]:
        names.pop()
    model = b.model(*b.op("LinearAttention", *names, outputs=2, q_num_heads=h, kv_num_heads=g, update_rule=rule))
    whole = run_frugal(model, feeds)
    for got, want in zip(whole, ReferenceEvaluator(model).run(None, feeds), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)  # nine steps of a recurrence in float32
    session, state, steps = frugal.InferenceSession(compile_model(model)), feeds["past"], []
    for i in range(t):
        y, state = session.run(None, {x: v[:, i : i + 1] for x, v in feeds.items() if x != "past"} | {"past": state})
        steps.append(y)
    np.testing.assert_array_equal(np.concatenate(steps, 1), whole[0])
    np.testing.assert_array_equal(state, whole[1])
    nothing = {x: v[:, :0] for x, v in feeds.items() if x != "past"} | {"past": feeds["past"]}
    np.testing.assert_array_equal(session.run(None, nothing)[1], feeds["past"])


@pytest.mark.parametrize("taps", [1, 2, 4])
@pytest.mark.parametrize("activation", ["none", "silu"])
@pytest.mark.parametrize("bias", [False, True])
def test_causal_convolution_in_one_go_and_piece_by_piece(taps: int, activation: str, bias: bool) -> None:
    rng = np.random.default_rng(9)
    b, n, c, length = Builder(27), 2, 3, 11
    names = [b.input("x", ["n", c, "l"]), b.const(normal(rng, c, 1, taps)), b.const(normal(rng, c)) if bias else ""]
    names.append(b.input("past", ["n", c, taps - 1]))
    model = b.model(*b.op("CausalConvWithState", *names, outputs=2, activation=activation))
    feeds = {"x": normal(rng, n, c, length), "past": normal(rng, n, c, taps - 1)}
    whole = run_frugal(model, feeds)
    for got, want in zip(whole, ReferenceEvaluator(model).run(None, feeds), strict=True):
        np.testing.assert_allclose(got, want, **CLOSE)
    session, state, pieces, at = frugal.InferenceSession(compile_model(model)), feeds["past"], [], 0
    for size in (1, 0, 2, 1, 7):
        y, state = session.run(None, {"x": feeds["x"][:, :, at : at + size], "past": state})
        pieces.append(y)
        at += size
    np.testing.assert_array_equal(np.concatenate(pieces, 2), whole[0])
    np.testing.assert_array_equal(state, whole[1])
