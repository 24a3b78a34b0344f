"""int8 and int4 rounding: error bounds, code ranges, literal bytes. Property tests with hypothesis."""

from __future__ import annotations

import numpy as np
import pytest
from frugal.quantize import int4, int8
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

FINITE = st.floats(-1e4, 1e4, width=32)
SIZES = st.tuples(st.integers(1, 5), st.integers(1, 3))


def matrices(block: int) -> st.SearchStrategy[np.ndarray]:
    """float32 [rows, groups * block], of very different magnitudes."""
    scale = st.sampled_from([0.0, 1e-30, 1e-6, 1e-3, 1.0, 10.0])
    return SIZES.flatmap(
        lambda s: st.tuples(arrays(np.float32, (s[0], s[1] * block), elements=FINITE), scale).map(
            lambda t: (t[0] * np.float32(t[1])).astype(np.float32)
        )
    )


@settings(deadline=None, max_examples=60)
@given(matrices(8))
def test_int8_error_is_at_most_half_a_step(w: np.ndarray) -> None:
    codes, scale = int8.quantize_rows(w)
    assert codes.dtype == np.int8 and codes.min(initial=0) >= -127
    assert (scale >= np.finfo(np.float32).tiny).all()
    error = np.abs(int8.dequantize_rows(codes, scale).astype(np.float64) - w)
    # half a step, and float32 rounding of w / scale and of codes * scale (127 steps of 2^-24 each)
    assert (error <= scale[:, None].astype(np.float64) * (0.5 + 127 * 2.0**-22)).all()


def test_int8_literal() -> None:
    codes, scale = int8.quantize_rows(np.array([[-12.7, 6.35, 0, 12.7], [0, 0, 0, 0]], np.float32))
    np.testing.assert_array_equal(codes, [[-127, 64, 0, 127], [0, 0, 0, 0]])
    np.testing.assert_allclose(scale, [0.1, 1], rtol=1e-6)


@settings(deadline=None, max_examples=60)
@given(matrices(32), st.sampled_from(["rtn", "grid"]))
def test_int4_codes_scales_and_error(w: np.ndarray, method: str) -> None:
    codes, scale, zero = int4.quantize_blocks(w, 32, method)
    assert codes.shape == w.shape and scale.shape == zero.shape == (w.shape[0], w.shape[1] // 32)
    assert min(codes.min(), zero.min()) >= 0 and max(codes.max(), zero.max()) <= 15
    bits = scale.view(np.uint16)
    assert (bits >= 0x0400).all() and (bits <= 0x7BFF).all()
    back = int4.dequantize_blocks(codes, scale, zero).astype(np.float64)
    if method == "rtn":
        step = np.repeat(scale.astype(np.float64), 32, axis=1)
        assert (np.abs(back - w) <= step * (0.5 + 1e-5)).all()
    else:
        plain = int4.dequantize_blocks(*int4.quantize_blocks(w, 32, "rtn")).astype(np.float64)
        blocks = (w.shape[0], -1, 32)
        e, p = (((b - w) ** 2).reshape(blocks).sum(axis=2) for b in (back, plain))
        assert (e <= p * (1 + 1e-4) + 1e-30).all()


@pytest.mark.parametrize("method", ["rtn", "grid"])
@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 1e-7, -3e4, 4e5])
def test_int4_constant_blocks(value: float, method: str) -> None:
    w = np.full((2, 64), value, np.float32)
    back = int4.dequantize_blocks(*int4.quantize_blocks(w, 32, method))
    # a range from 0 to the value in 15 steps; the scale is fp16: 2^-11; values under 2^-14 may vanish
    np.testing.assert_allclose(back, w, rtol=2.0**-10, atol=2.0**-15)


def test_int4_zero_is_exact() -> None:
    w = np.random.default_rng(0).standard_normal((4, 64)).astype(np.float32)
    w[:, ::3] = 0
    codes, scale, zero = int4.quantize_blocks(w)
    back = int4.dequantize_blocks(codes, scale, zero)
    assert (back[:, ::3] == 0).all()


def test_int4_packing_literal() -> None:
    # codes 0..15 minus 8, the first in the low nibble, -8 = 0x8 … 7 = 0x7
    assert int4.pack(np.arange(16, dtype=np.int8)).tobytes() == bytes.fromhex("98badcfe10325476")
    assert int4.pack(np.array([0, 8, 15], np.int8)).tobytes() == bytes.fromhex("0807")
    assert int4.pack(np.zeros(0, np.int8)).tobytes() == b""


def test_int4_many_blocks_are_done_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    w = np.random.default_rng(0).standard_normal((7, 96)).astype(np.float32)
    want = int4.quantize_blocks(w)
    monkeypatch.setattr(int4, "_PIECE", 4)
    for a, b in zip(want, int4.quantize_blocks(w), strict=True):
        np.testing.assert_array_equal(a, b)


def test_grid_is_deterministic_and_better_on_gaussians() -> None:
    w = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    a, b = int4.quantize_blocks(w), int4.quantize_blocks(w)
    assert all((x == y).all() for x, y in zip(a, b, strict=True))
    grid, rtn = (((int4.dequantize_blocks(*int4.quantize_blocks(w, 32, m)) - w) ** 2).mean() for m in ("grid", "rtn"))
    assert grid < 0.95 * rtn
