"""Weights of the plan's integer convolutions, unpacked, and packed again in the layout of each back end (kernels/mcu)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..compiler.pack import round_up


@dataclass
class Weights:
    """codes int8 [co, kh, kw, cg] (depthwise: cg 1), bias int32 [co], scale float32 [co], wzero int32 [co]."""

    codes: np.ndarray
    bias: np.ndarray
    scale: np.ndarray
    wzero: np.ndarray

    def folded(self, zx: int) -> np.ndarray:
        """int64 bias less zx times the sum of the weights."""
        sums: np.ndarray = self.codes.reshape(len(self.bias), -1).sum(1, dtype=np.int64)
        folded: np.ndarray = self.bias.astype(np.int64) - zx * sums
        return folded

    def extremes(self, zx: int) -> tuple[np.ndarray, np.ndarray]:
        """The least and greatest sum of each channel over all inputs."""
        w = self.codes.reshape(len(self.bias), -1).astype(np.int64)
        up, down = np.maximum(w, 0).sum(1), np.minimum(w, 0).sum(1)
        b = self.folded(zx)
        return b - 128 * up + 127 * down, b + 127 * up - 128 * down


def _parameters(params: np.ndarray, groups: int, each: int, codes: np.ndarray, zero: int) -> Weights:
    """zero: of the unsigned codes of x, as the plan has it."""
    rows = params.transpose(0, 2, 1).reshape(groups, -1, 4)[:, :each].reshape(-1, 4)
    wzero = rows[:, 3].astype(np.int32)
    flat = codes.reshape(len(rows), -1)
    total = flat.astype(np.int64).sum(1) - wzero.astype(np.int64) * flat.shape[1]
    bias = (rows[:, 0].astype(np.int64) + zero * total) & 0xFFFFFFFF
    scale = np.ascontiguousarray(rows[:, 2]).view(np.float32)
    return Weights(codes, bias.astype(np.uint32).view(np.int32), scale, wzero)


def unpack_conv(
    weights: np.ndarray, params: np.ndarray, groups: int, oc: int, kh: int, kw: int, cg: int, dilated: bool, zero: int
) -> Weights:
    """Of QCONV's int8 [panels, runs, quads, 16, 4] and int32 [panels, 4, 16]."""
    _, runs, quads, _, _ = weights.shape
    rows = weights.transpose(0, 3, 1, 2, 4).reshape(groups, -1, runs, quads * 4)[:, : oc // groups]
    rows = rows[..., : cg if dilated else kw * cg].reshape(oc, kh, kw, cg)
    return _parameters(params, groups, oc // groups, np.ascontiguousarray(rows), zero)


def unpack_depth(weights: np.ndarray, params: np.ndarray, oc: int, kh: int, kw: int, zero: int) -> Weights:
    """Of QDEPTH's int8 [panels, quads, 16, 4]."""
    across, along = (kw, kh) if kh >= kw else (kh, kw)
    rows = weights.transpose(0, 2, 1, 3).reshape(-1, across, round_up(along, 4))[:oc, :, :along]
    taps = rows.transpose(0, 2, 1) if kh >= kw else rows
    return _parameters(params, 1, oc, np.ascontiguousarray(taps.reshape(oc, kh, kw, 1)), zero)


def _records(*columns: np.ndarray) -> bytes:
    """4-byte columns [n] side by side."""
    return np.stack([np.ascontiguousarray(c).view(np.uint32) for c in columns], 1).tobytes()


def _int32(values: np.ndarray) -> np.ndarray:
    return (values & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def channels(w: Weights, bias: np.ndarray) -> bytes:
    """fb_channel [co]."""
    return _records(_int32(bias.astype(np.int64)), w.scale, w.wzero)


# ---- portable ----
def portable(w: Weights, zx: int) -> tuple[bytes, bytes]:
    """Rows padded to four codes; fb_channel, whose wzero says that four products fit in 16 bits."""
    rows = w.codes.reshape(len(w.bias), -1)
    padded = np.zeros((rows.shape[0], round_up(rows.shape[1], 4)), np.int8)
    padded[:, : rows.shape[1]] = rows
    fours = np.abs(padded.astype(np.int32)).reshape(len(rows), -1, 4).sum(2)
    light = Weights(w.codes, w.bias, w.scale, (fours.max(1) <= 255).astype(np.int32))
    return padded.tobytes(), channels(light, w.folded(zx))


def portable_depth3(w: Weights, zx: int) -> tuple[bytes, bytes]:
    return w.codes.reshape(len(w.bias), 9).tobytes(), channels(w, w.folded(zx))


# ---- DSP ----
def _pair_places(nb: int) -> tuple[list[int], list[int]]:
    """Depth pairs of a row of nb codes: (0, 2) (1, 3) of every four; -1: none."""
    first, second = [], []
    for word in range(0, nb, 4):
        for odd in range(min(2, nb - word)):
            first.append(word + odd)
            second.append(word + 2 + odd if word + 2 + odd < nb else -1)
    return first, second


def dsp(w: Weights, zx: int) -> tuple[bytes, bytes] | None:
    """Two channels a halfword, 256 w0 + w1 (fb_dsp.c); None where a sum of an even channel could leave 24 bits, or a halfword."""
    co, kh, kw, cg = w.codes.shape
    low, high = w.extremes(zx)
    if (low[::2] < -(1 << 23)).any() or (high[::2] >= 1 << 23).any():
        return None
    rows = np.zeros((round_up(co, 4), kh, kw * cg + 1), np.int32)
    rows[:co, :, :-1] = w.codes.reshape(co, kh, kw * cg)
    first, second = _pair_places(kw * cg)
    both = 256 * rows[0::2] + rows[1::2]
    if both.min() < -32768:
        return None
    halves = np.stack([both[..., first], both[..., second]], -1).astype(np.int16)  # [channels / 2, kh, pairs, 2]
    words = halves.reshape(-1, 2, kh, len(first), 2).transpose(0, 2, 3, 1, 4)
    bias, scale = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.float32)
    bias[:co], scale[:co] = w.folded(zx), w.scale
    start = _int32(np.where(np.arange(len(rows)) % 2 == 0, 256 * bias + np.roll(bias, -1), bias))
    scale[::2] *= np.float32(1 / 256)
    groups = np.concatenate([start.reshape(-1, 4).view(np.uint32), scale.reshape(-1, 4).view(np.uint32)], 1)
    return np.ascontiguousarray(words).tobytes(), groups.tobytes()


def dsp_depth3(w: Weights, zx: int) -> tuple[bytes, bytes]:
    """A record of 32 bytes a channel: rows (0, 1) and (1, 2) of each column as halfwords, bias, scale."""
    t = w.codes.reshape(-1, 3, 3).astype(np.int16)
    upper, lower = (np.stack([t[:, i], t[:, i + 1]], -1) for i in (0, 1))
    pairs = np.ascontiguousarray(np.concatenate([upper, lower], 1)).view(np.uint32).reshape(-1, 6)
    return np.concatenate(
        [pairs, _int32(w.folded(zx)).view(np.uint32)[:, None], w.scale.view(np.uint32)[:, None]], 1
    ).tobytes(), b""


# ---- MVE ----
def _fours(w: Weights, zx: int) -> bytes:
    n = round_up(len(w.bias), 4)
    bias, scale = np.zeros(n, np.int64), np.zeros(n, np.float32)
    bias[: len(w.bias)], scale[: len(w.bias)] = w.folded(zx), w.scale
    return np.concatenate([_int32(bias).reshape(-1, 4).view(np.uint32), scale.reshape(-1, 4).view(np.uint32)], 1).tobytes()


def mve(w: Weights, zx: int) -> tuple[bytes, bytes]:
    """[co / 4][K / 16][4][16], zero padded."""
    rows = w.codes.reshape(len(w.bias), -1)
    padded = np.zeros((round_up(rows.shape[0], 4), round_up(rows.shape[1], 16)), np.int8)
    padded[: rows.shape[0], : rows.shape[1]] = rows
    return padded.reshape(-1, 4, padded.shape[1] // 16, 16).transpose(0, 2, 1, 3).tobytes(), _fours(w, zx)


def mve_depth3(w: Weights, zx: int) -> tuple[bytes, bytes]:
    """16 bytes a channel, taps column by column, behind 16 zeros."""
    rows = np.zeros((len(w.bias) + 1, 16), np.int8)
    rows[1:, :9] = w.codes.reshape(-1, 3, 3).transpose(0, 2, 1).reshape(-1, 9)
    return rows.tobytes(), _fours(w, zx)
