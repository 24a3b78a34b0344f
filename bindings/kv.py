"""The caches of a decoder's plan: where a token's keys and values lie, and what is still there."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from ..errors import InvalidModel
from ._ffi import ffi
from .buffers import ITEM_BYTES
from .plan import Tensor

CHUNK = 512  # tokens of a prompt that are read at a time: working memory grows with them, and so do rings
_WINDOW = "window_"


@dataclass(frozen=True)
class Cache:
    """One cache, [rows, .., slots, ..]: it has a slot for each token, or is a ring of the last ones where `window` is not 0.

    input, output: indices in the plan's lists.  pieces: parts of a row that have slots of their own.  step: bytes of a slot.
    """

    input: int
    output: int
    dims: tuple[int, ...]  # without rows; 0 where the slots are
    pieces: int
    step: int
    window: int

    @classmethod
    def of(cls, tensor: Tensor, index: int, output: int) -> Cache:
        """The cache that an input of the plan is; its one axis that is not fixed, beside the rows', is that of the slots."""
        dims = tuple(d if isinstance(d, int) else 0 for d in tensor.shape[1:])
        if dims.count(0) != 1:
            raise InvalidModel(f"the cache {tensor.name!r} is not [batch, .., slots, ..] with all else fixed")
        at = dims.index(0)
        symbol = str(tensor.shape[1 + at])
        digits = symbol.removeprefix(_WINDOW)
        window = int(digits) if symbol.startswith(_WINDOW) and digits.isdecimal() else 0
        return cls(index, output, dims, prod(dims[:at]), prod(dims[at + 1 :]) * ITEM_BYTES[tensor.dtype], window)

    def slots(self, capacity: int) -> int:
        """For texts of up to `capacity` tokens.  A ring also holds what a chunk of a prompt writes beyond its first token."""
        return min(capacity, self.window + CHUNK) if self.window else capacity

    def shape(self, rows: int, capacity: int) -> tuple[int, ...]:
        """With all dims known."""
        return (rows, *(d or self.slots(capacity) for d in self.dims))

    def row_bytes(self, capacity: int) -> int:
        """Of one row."""
        return self.pieces * self.slots(capacity) * self.step

    def holds(self, tokens: int, written: int, capacity: int) -> bool:
        """Whether all is there that a token at position `tokens` sees, after positions up to `written` were written."""
        lost = max(0, written - self.slots(capacity))
        return max(0, tokens - self.window + 1) >= lost if self.window else True

    def move(self, to: Any, capacity: int, source: Any, old_capacity: int, row: int, written: int) -> None:
        """Copy what a row holds to a larger memory.  A ring that grows has not been full: slots keep their numbers."""
        new, old = self.slots(capacity), self.slots(old_capacity)
        for piece in range(row * self.pieces, (row + 1) * self.pieces):
            ffi.memmove(to + piece * new * self.step, source + piece * old * self.step, min(written, old) * self.step)
