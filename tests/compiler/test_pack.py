"""Weight layouts against literal bytes and against the formulas of kernels/include/frugal_plan.h, read index by index."""

from __future__ import annotations

import numpy as np
import pytest

from frugal.compiler import pack
from frugal.compiler.ir import Layout


def test_w8_literal_bytes() -> None:
    codes = (np.arange(16)[:, None] * 8 + np.arange(8)).astype(np.int8)
    packed = pack.pack_w8(codes)
    assert packed.shape == (1, 8, 16, 4)
    assert packed.reshape(-1)[:8].tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    assert packed.reshape(-1)[64:68].tolist() == [4, 5, 6, 7]
    assert not packed.reshape(-1)[128:].any()


def test_w4_literal_bytes() -> None:
    codes = np.zeros((1, 32), np.uint8)
    codes[0, :4], codes[0, 16:20] = [1, 2, 3, 4], [5, 6, 7, 8]
    packed = pack.pack_w4(codes, np.array([[1.0]], np.float16), np.array([[9]], np.uint8)).reshape(-1)
    assert packed.size == pack.W4_BLOCK
    assert packed[:4].tolist() == [0x51, 0x62, 0x73, 0x84]
    assert packed[256:260].tolist() == [0x00, 0x3C, 0, 0]
    assert packed[288:290].tolist() == [9, 0]


def halves(packed: np.ndarray, at: int, row: int) -> bytes:
    return packed[at + 2 * row :][:2].tobytes()


@pytest.mark.parametrize(("n", "k"), [(1, 1), (16, 32), (17, 33), (40, 100)])
def test_blocks_with_offsets_and_of_8_bits(n: int, k: int) -> None:
    rng = np.random.default_rng(n * k + 1)
    nb = pack.round_up(k, 32) // 32
    w4, w8 = rng.integers(0, 16, (n, k), dtype=np.uint8), rng.integers(-127, 128, (n, k), dtype=np.int8)
    scale, offset = (rng.uniform(-1, 1, (n, nb)).astype(np.float16) for _ in range(2))
    p4, p8 = pack.pack_w4o(w4, scale, offset).reshape(-1), pack.pack_w8b(w8, scale).reshape(-1)
    assert [p4.size, p8.size] == [pack.packed_bytes(layout, n, k) for layout in (Layout.W4O_P16, Layout.W8B_P16)]
    for r in range(n):
        for i in range(k):
            four, eight = ((r // 16 * nb + i // 32) * size for size in (320, 544))
            byte = p4[four + 64 * (i % 16 // 4) + 4 * (r % 16) + i % 4]
            assert (byte >> 4 if i % 32 >= 16 else byte & 15) == w4[r, i]
            assert p8[eight + 64 * (i % 32 // 4) + 4 * (r % 16) + i % 4].view(np.int8) == w8[r, i]
            assert halves(p4, four + 256, r % 16) == halves(p8, eight + 512, r % 16) == scale[r, i // 32].tobytes()
            assert halves(p4, four + 288, r % 16) == offset[r, i // 32].tobytes()


@pytest.mark.parametrize(("n", "k"), [(1, 1), (16, 32), (17, 33), (40, 100)])
def test_every_element_lies_where_the_header_says(n: int, k: int) -> None:
    rng = np.random.default_rng(n * k)
    kp, np_ = pack.round_up(k, 32), pack.round_up(n, 16)
    w8 = rng.integers(-127, 128, (n, k), dtype=np.int8)
    w4 = rng.integers(0, 16, (n, k), dtype=np.uint8)
    scale = rng.uniform(0.01, 1, (n, kp // 32)).astype(np.float16)
    zero = rng.integers(0, 16, (n, kp // 32), dtype=np.uint8)
    f32 = rng.standard_normal((n, k)).astype(np.float32)
    p8, p4, pf = (
        a.reshape(-1) for a in (pack.pack_w8(w8), pack.pack_w4(w4, scale, zero), pack.pack_floats(f32, np.dtype(np.float32)))
    )
    sizes = [pack.packed_bytes(layout, n, k) for layout in (Layout.W8_P16, Layout.W4_P16, Layout.F32_P16)]
    assert sizes == [p8.nbytes, p4.nbytes, pf.nbytes] == [np_ * kp, np_ // 16 * kp // 32 * 304, 4 * np_ * k]
    for r in range(n):
        for i in range(kp):
            block = p4[(r // 16 * (kp // 32) + i // 32) * 304 :][:304]
            byte = block[64 * (i % 16 // 4) + 4 * (r % 16) + i % 4]
            code = byte >> 4 if i % 32 >= 16 else byte & 15
            assert code == (w4[r, i] if i < k else zero[r, -1])
            assert block[288 + r % 16] == zero[r, i // 32]
            assert block[256 + 2 * (r % 16) :][:2].tobytes() == scale[r, i // 32].tobytes()
            assert p8[(r // 16 * (kp // 4) + i // 4) * 64 + 4 * (r % 16) + i % 4] == (w8[r, i] if i < k else 0)
        for i in range(k):
            assert pf[(r // 16 * k + i) * 16 + r % 16] == f32[r, i]
