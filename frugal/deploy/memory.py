"""Places in the arena: buffers whose lives overlap do not, except where a step may write over what it is reading.

A step declares how far its output may lie beyond its input (`lag` bytes, mostly negative: the output runs ahead of what is still
to be read), or that both may begin at one place only (EXACT).  Buffers are placed one by one at the lowest place their neighbours
allow; the order decides, so many are tried, always the same ones.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from .network import Buffer

EXACT = "exact"
ALIGN = 16
TRIES = 400


@dataclass
class Life:
    """A buffer from the step that writes it to the last that reads it; over: (input, lag) of the step that writes it."""

    buffer: Buffer
    first: int
    last: int
    over: dict[Buffer, int | str] = field(default_factory=dict)


@dataclass
class Arena:
    bytes: int  # what was reached
    bound: int  # what no plan can go below: the largest sum of bytes that live between two steps
    bound_step: int


def live_bound(lives: Sequence[Life], steps: int) -> tuple[int, int]:
    """(bytes, step before which they live): outputs and inputs of a step need not live together."""
    best, at = 0, 0
    for point in range(steps + 1):  # between step point - 1 and point
        total = sum(life.buffer.bytes for life in lives if life.first < point <= life.last)
        if total > best:
            best, at = total, point
    return best, at


def _allowed(me: Life, other: Life, size: int) -> list[tuple[int, int]]:
    """Offsets of me that other forbids, as open intervals (from, to)."""
    o, osize = other.buffer.offset, other.buffer.size
    low, high = o - size, o + osize
    if me.first == other.last and other.buffer in me.over:  # me is written while other is read
        lag = me.over[other.buffer]
        if lag == EXACT:
            return [(low, o), (o, high)]
        assert isinstance(lag, int)
        return [(max(low, o + lag), high)] if o + lag < high else []
    if other.first == me.last and me.buffer in other.over:
        lag = other.over[me.buffer]
        if lag == EXACT:
            return [(low, o), (o, high)]
        assert isinstance(lag, int)
        return [(low, min(high, o - lag))] if o - lag > low else []
    return [(low, high)]


def _place(order: Sequence[Life], limit: int) -> int:
    """Give every buffer of the order an offset; returns the bytes in all, or limit when that is reached."""
    placed: list[Life] = []
    peak = 0
    for life in order:
        size = life.buffer.size
        gaps: list[tuple[int, int]] = []
        for other in placed:
            if life.first <= other.last and other.first <= life.last:
                gaps += _allowed(life, other, size)
        at = 0
        moved = True
        while moved:
            moved = False
            for low, high in gaps:
                if low < at < high:
                    at, moved = -(-high // ALIGN) * ALIGN, True
        life.buffer.offset = at
        placed.append(life)
        peak = max(peak, at + size)
        if peak >= limit:
            return limit
    return peak


def plan(lives: Sequence[Life], steps: int) -> Arena:
    """Offsets of all buffers, the arena's size and the bound."""
    bound, at = live_bound(lives, steps)
    orders = [
        sorted(lives, key=lambda n: (-n.buffer.size, -n.first)),
        sorted(lives, key=lambda n: (-n.buffer.size, n.first)),
        sorted(lives, key=lambda n: (-n.last, -n.buffer.size)),
        sorted(lives, key=lambda n: (n.first, -n.buffer.size)),
    ]
    best, peak = orders[0], 1 << 62
    for order in orders:
        reached = _place(order, peak)
        if reached < peak:
            best, peak = order, reached
    chance = random.Random(0)
    for _ in range(TRIES if len(lives) > 1 else 0):
        if peak <= bound:
            break
        order = list(best)
        for _ in range(chance.randint(1, 3)):
            order.insert(chance.randrange(len(order)), order.pop(chance.randrange(len(order))))
        reached = _place(order, peak + 1)
        if reached <= peak:
            best, peak = order, reached
    _place(best, 1 << 62)
    return Arena(-(-peak // ALIGN) * ALIGN, bound, at)
