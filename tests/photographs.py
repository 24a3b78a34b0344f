"""scikit-image's sample photographs as arrays, without an image library: 8-bit PNG, not interlaced."""

from __future__ import annotations

import struct
import zlib

import numpy as np

import models


def _unfilter(kind: int, row: np.ndarray, above: np.ndarray, step: int) -> np.ndarray:
    """One row of bytes, as the PNG specification (section 9) says; step: bytes of a pixel."""
    if kind == 0:
        return row
    if kind == 2:
        return row + above
    out = np.zeros_like(row)
    for i in range(len(row)):
        left = int(out[i - step]) if i >= step else 0
        up, corner = int(above[i]), int(above[i - step]) if i >= step else 0
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + up) // 2
        else:
            guess = min((left, up, corner), key=lambda v: abs(left + up - corner - v))
        out[i] = (int(row[i]) + guess) & 255
    return out


def photograph(name: str) -> np.ndarray:
    """uint8 [height, width, 3] of NAME.png; the calling test is skipped when it cannot be downloaded."""
    data = (models.fetch_or_skip("photographs") / f"{name}.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed, header = 8, b"", b""
    while at < len(data):
        (size,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + size]
        header, packed = (body, packed) if kind == b"IHDR" else (header, packed + body if kind == b"IDAT" else packed)
        at += size + 12
    width, height, depth, color, *_, interlaced = struct.unpack(">IIBBBBB", header)
    channels = {0: 1, 2: 3, 6: 4}[color]
    assert depth == 8 and not interlaced
    lines = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + width * channels)
    rows = np.zeros((height, width * channels), np.uint8)
    above = np.zeros(width * channels, np.uint8)
    for y in range(height):
        rows[y] = above = _unfilter(int(lines[y, 0]), lines[y, 1:], above, channels)
    pixels = rows.reshape(height, width, channels)[:, :, :3]
    return np.repeat(pixels, 3, axis=2) if channels == 1 else pixels
