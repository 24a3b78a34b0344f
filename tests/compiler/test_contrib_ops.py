"""com.microsoft operators against onnxruntime's own, which defines them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from frugal import UnsupportedOperator
from frugal.compiler import lower_model
from frugal.compiler.ir import Op

from .models import Builder, assert_same, run_frugal, run_onnxruntime

MS = "com.microsoft"


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def check(model: onnx.ModelProto, feeds: dict[str, Any], tolerance: float = 1e-5) -> list[np.ndarray]:
    """frugal's outputs, equal to onnxruntime's relative to the largest value of each."""
    results = run_frugal(model, feeds)
    for got, want in zip(results, run_onnxruntime(model, feeds), strict=True):
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(1.0, float(np.abs(want).max(initial=0))))
    return results


@pytest.mark.parametrize(("kind", "inputs"), [("BiasGelu", 2), ("FastGelu", 1), ("FastGelu", 2), ("QuickGelu", 1), ("Gelu", 1)])
def test_activations(kind: str, inputs: int) -> None:
    rng = np.random.default_rng(0)
    b = Builder(20)
    names = [b.input("x", ["n", 8]), b.const(rng.normal(size=8))][:inputs]
    assert_same(b.model(b.op(kind, *names, domain=MS)), {"x": 4 * normal(rng, 5, 8)}, 2e-6)


def test_quick_gelu_with_another_alpha() -> None:
    for alpha in (1.0, 0.5):
        b = Builder(20)
        x = np.linspace(-6, 6, 97, dtype=np.float32)
        assert_same(b.model(b.op("QuickGelu", b.input("x", [97]), domain=MS, alpha=alpha)), {"x": x}, 2e-6)


MASKS = [None, "lengths", "keys", "pairs"]


def mask_of(rng: np.random.Generator, kind: str | None, b: int, s: int, t: int) -> np.ndarray | None:
    if kind is None:
        return None
    if kind == "lengths":
        return rng.integers(1, t + 1, b).astype(np.int32)
    mask = rng.integers(0, 2, (b, t) if kind == "keys" else (b, s, t)).astype(np.int32)
    mask[..., 0] = 1
    return mask


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("past", [0, 3])
@pytest.mark.parametrize("added", [False, True])
def test_packed_attention(mask: str | None, causal: int, past: int, added: bool) -> None:
    if added and past:
        pytest.skip("onnxruntime refuses an attention_bias beside a past")
    rng = np.random.default_rng(1)
    n, s, w, h = 2, 4, 12, 3
    feeds: dict[str, Any] = {"x": normal(rng, n, s, w)}
    b = Builder(20)
    names = [b.input("x", ["n", "s", w]), b.const(rng.normal(size=(w, 3 * w)) / 3), b.const(rng.normal(size=3 * w)), "", "", ""]
    if (value := mask_of(rng, mask, n, s, s + past)) is not None:
        feeds["m"] = value
        names[3] = b.input("m", [["n"], ["n", "t"], ["n", "s", "t"]][value.ndim - 1], TensorProto.INT32)
    if past:
        feeds["p"] = normal(rng, 2, n, h, past, w // h)
        names[4] = b.input("p", [2, "n", h, "p", w // h])
    if added:
        feeds["a"] = normal(rng, 1, h, s, s + past)
        names[5] = b.input("a", [1, h, s, s + past])
    outputs = b.op("Attention", *names, domain=MS, num_heads=h, unidirectional=causal, outputs=2 if past else 1)
    check(b.model(*(outputs if past else [outputs])), feeds)


def test_packed_attention_reads_the_projection_in_place() -> None:
    b = Builder(20)
    x = b.input("x", ["n", "s", 12])
    y = b.op("Attention", x, b.const(np.ones((12, 36))), b.const(np.ones(36)), domain=MS, num_heads=3)
    graph, _ = lower_model(b.model(y))
    assert [s.op for s in graph.steps] == [Op.LINEAR, Op.ATTENTION]


def test_packed_attention_with_wider_values() -> None:
    rng = np.random.default_rng(2)
    b = Builder(20)
    x, weight = b.input("x", [2, 4, 12]), b.const(rng.normal(size=(12, 42)) / 3)
    y = b.op("Attention", x, weight, b.const(np.zeros(42)), domain=MS, num_heads=3, qkv_hidden_sizes=[12, 12, 18])
    check(b.model(y), {"x": normal(rng, 2, 4, 12)})


@pytest.mark.parametrize("mask", [None, "lengths", "keys", "pairs"])
@pytest.mark.parametrize("form", ["three", "heads", "past", "bias"])
@pytest.mark.parametrize("causal", [0, 1])
def test_multi_head_attention(mask: str | None, form: str, causal: int) -> None:
    rng = np.random.default_rng(3)
    n, s, t, h, d, p = 2, 4, 4, 2, 8, 3
    feeds: dict[str, Any] = {"q": normal(rng, n, s, h * d)}
    b = Builder(20)
    names = [b.input("q", ["n", s, h * d]), *[""] * 7]
    for i, name in ((1, "k"), (2, "v")):
        feeds[name] = normal(rng, n, h, t, d) if form == "heads" else normal(rng, n, t, h * d)
        names[i] = b.input(name, ["n", h, t, d] if form == "heads" else ["n", t, h * d])
    if form == "bias":
        names[3] = b.const(rng.normal(size=3 * h * d))
    if form == "past":
        for i, name in ((6, "pk"), (7, "pv")):
            feeds[name] = normal(rng, n, h, p, d)
            names[i] = b.input(name, ["n", h, "p", d])
    keys = t + p if form == "past" else t
    if (value := mask_of(rng, mask, n, s, keys)) is not None:
        feeds["m"] = value
        names[4] = b.input("m", [["n"], ["n", keys], ["n", s, keys]][value.ndim - 1], TensorProto.INT32)
    feeds["a"] = normal(rng, 1, h, s, keys)
    names[5] = b.input("a", [1, h, s, keys])
    count = 3 if form == "past" else 1
    outputs = b.op("MultiHeadAttention", *names, domain=MS, num_heads=h, unidirectional=causal, outputs=count)
    model = b.model(*(outputs if count == 3 else [outputs]))
    try:
        run_onnxruntime(model, feeds)
    except Exception as error:  # forms that onnxruntime's CPU provider refuses
        pytest.skip(str(error)[:100])
    check(model, feeds)


@pytest.mark.parametrize("positions", ["first", "each"])
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("partial", [0, 4])
def test_rotary(positions: str, interleaved: int, partial: int) -> None:
    rng = np.random.default_rng(4)
    n, s, h, d = 2, 3, 2, 8
    b = Builder(20)
    each = positions == "each"
    x, places = b.input("x", ["n", "s", h * d]), b.input("p", ["n", "s"] if each else [1], TensorProto.INT64)
    half = (partial or d) // 2
    tables = [b.const(rng.normal(size=(11, half))) for _ in range(2)]
    attributes = {"interleaved": interleaved, "rotary_embedding_dim": partial, "num_heads": h if partial else 0}
    ids = rng.integers(0, 11, (n, s)).astype(np.int64) if each else np.array([4], np.int64)
    check(
        b.model(b.op("RotaryEmbedding", x, places, *tables, domain=MS, **attributes)), {"x": normal(rng, n, s, h * d), "p": ids}
    )


class Group:
    """A GroupQueryAttention model and the feeds of one run."""

    def __init__(self, s: int, lengths: list[int], total: int, cache: int, *, h: int = 4, g: int = 2, **attributes: Any) -> None:
        bias, sink, packed = (attributes.pop(name, False) for name in ("bias", "sink", "packed"))
        d = 16
        rng = np.random.default_rng(s + total)
        n, b = len(lengths), Builder(20)
        if packed:
            self.feeds: dict[str, Any] = {"q": normal(rng, n, s, (h + 2 * g) * d)}
            names = [b.input("q", ["n", "s", (h + 2 * g) * d]), "", ""]
        else:
            self.feeds = {"q": normal(rng, n, s, h * d), "k": normal(rng, n, s, g * d), "v": normal(rng, n, s, g * d)}
            names = [b.input(x, ["n", "s", self.feeds[x].shape[-1]]) for x in "qkv"]
        for x in ("pk", "pv"):
            self.feeds[x] = np.zeros((n, g, cache, d), np.float32)
            for i, length in enumerate(lengths):
                past = max(0, length - s)
                self.feeds[x][i, :, :past] = normal(rng, g, past, d)
            names.append(b.input(x, ["n", g, "m", d]))
        self.feeds["lengths"] = np.array(lengths, np.int32) - 1
        names += [b.input("lengths", ["n"], TensorProto.INT32), b.const(total, np.int32)]
        names += [b.const(rng.normal(size=(32, d // 2))) for _ in range(2)] if attributes.get("do_rotary") else ["", ""]
        names += ["", b.const(normal(rng, 1, h, s, total)) if bias else "", b.const(rng.normal(size=h)) if sink else ""]
        while not names[-1]:
            names.pop()
        outputs = b.op("GroupQueryAttention", *names, domain=MS, num_heads=h, kv_num_heads=g, outputs=3, **attributes)
        self.model = b.model(*outputs)


OPTIONS: list[dict[str, Any]] = [
    {}, {"packed": True}, {"do_rotary": 1}, {"do_rotary": 1, "rotary_interleaved": 1}, {"softcap": 2.0}, {"scale": 0.3},
    {"local_window_size": 2}, {"local_window_size": 20}, {"bias": True}, {"smooth_softmax": 1}, {"sink": True}, {"g": 4},
    {"g": 1},
]  # fmt: skip
RUNS = [  # new tokens, tokens of each row with them, the most of these, capacity of the cache
    (5, [5, 5], 5, 0), (5, [5, 5], 5, 9), (5, [5, 3], 5, 9), (1, [6, 6], 6, 9), (1, [6, 3], 6, 9), (1, [6, 6], 6, 5),
    (3, [7], 7, 9),
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("s", "lengths", "total", "cache"), RUNS)
def test_group_query_attention(options: dict[str, Any], s: int, lengths: list[int], total: int, cache: int) -> None:
    group = Group(s, lengths, total, cache, **options)
    got, want = run_frugal(group.model, group.feeds), run_onnxruntime(group.model, group.feeds)
    for i, length in enumerate(lengths):  # what lies behind a row's tokens is nobody's
        rows = min(s, length)
        np.testing.assert_allclose(got[0][i, :rows], want[0][i, :rows], rtol=1e-4, atol=1e-5)
        for a, w in zip(got[1:], want[1:], strict=True):
            assert a.shape == w.shape
            np.testing.assert_allclose(a[i, :, :length], w[i, :, :length], rtol=1e-5, atol=1e-5)


def test_what_onnxruntime_has_beyond_is_refused() -> None:
    group = Group(1, [3], 3, 4, k_quant_type="PER_TENSOR")
    with pytest.raises(UnsupportedOperator, match="k_quant_type"):
        lower_model(group.model)
