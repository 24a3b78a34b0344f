"""Tensors without numpy: buffers in, memoryviews out.

Importing numpy takes several times as long as opening and running a small plan.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Sequence
from struct import calcsize
from typing import Any

from frugal.errors import InvalidArgument

from ._ffi import lib
from .plan import Tensor

# ONNX TensorProto.DataType -> struct's code.  memoryview has none for float16, so its bits travel as uint16; likewise bfloat16,
# and as bytes the floats of 8 and 4 bits; integers of 4 and 2 bits take a byte each.
CODES: dict[int, Any] = {
    1: "f", 2: "B", 3: "b", 4: "H", 5: "h", 6: "i", 7: "q", 9: "?", 10: "H", 11: "d", 12: "I", 13: "Q", 16: "H", 17: "B", 18: "B",
    19: "B", 20: "B", 21: "B", 22: "b", 23: "B", 24: "B", 25: "B", 26: "b",
}  # fmt: skip
ITEM_BYTES = {dtype: calcsize(code) for dtype, code in CODES.items()}
_SAME = {"l": "q" if calcsize("l") == 8 else "i", "L": "Q" if calcsize("L") == 8 else "I", "n": "q", "N": "Q", "e": "H"}
_NATIVE = {"", "@", "=", "<" if sys.byteorder == "little" else ">"}


def as_buffer(tensor: Tensor, value: Any) -> memoryview:
    """A dense memoryview of an input: of a buffer of exactly its element type, or of a nested list of numbers.

    Raises InvalidArgument that names the input.
    """
    code = CODES[tensor.dtype]
    if isinstance(value, list | tuple | int | float):
        return _from_list(tensor, value, code)
    try:
        view = memoryview(value)
    except TypeError as error:
        raise _wrong(tensor, f"want a buffer or a list, got {type(value).__name__}") from error
    order, found = view.format[:-1], view.format[-1:]
    if order not in _NATIVE or _SAME.get(found, found) != code:
        raise _wrong(tensor, f"want elements of struct code {code!r}, got {view.format!r}")
    if not view.c_contiguous:
        view = memoryview(view.tobytes()).cast(code, list(view.shape or ()))
    return view


def empty(shape: Sequence[int], dtype: int) -> memoryview:
    """A writable memoryview of zeros; one dimension when the shape has none or is empty, as memoryview cannot say otherwise."""
    code, count = CODES[dtype], 1
    for d in shape:
        count *= d
    flat = memoryview(bytearray(count * ITEM_BYTES[dtype]))
    view: memoryview = flat.cast(code, list(shape)) if count and shape else flat.cast(code)
    return view


def _from_list(tensor: Tensor, value: Any, code: Any) -> memoryview:
    shape: list[int] = []
    level = value
    while isinstance(level, list | tuple):
        shape.append(len(level))
        if not level:
            break
        level = level[0]
    try:
        flat = array("B" if code == "?" else code, _flatten(value, shape))
    except (TypeError, OverflowError, ValueError) as error:
        raise _wrong(tensor, f"not a regular list of numbers that fit {code!r}: {error}") from error
    if not flat or not shape:
        return memoryview(flat)
    view: memoryview = memoryview(flat).cast("B").cast(code, shape)
    return view


def _flatten(value: Any, shape: list[int]) -> Iterator[Any]:
    if not shape:
        yield value
        return
    if len(value) != shape[0]:
        raise ValueError("rows differ in length")
    for row in value:
        yield from _flatten(row, shape[1:])


def _wrong(tensor: Tensor, what: str) -> InvalidArgument:
    return InvalidArgument(f"input {tensor.name!r}: {what}", code=lib.FRUGAL_BAD_INPUT)
