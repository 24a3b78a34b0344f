"""A second reader of the plan format, written from kernels/include/frugal_plan.h alone; it shares no code with frugal.

What it says of a file must be what the C library says of it (test_plan.py).
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

SECTIONS = {1: "META", 2: "TEXT", 3: "DIMS", 4: "TENSORS", 5: "STEPS", 6: "ARGS", 7: "ATTRS", 8: "DATA"}
KINDS = ("temp", "const", "input", "output", "alias")
LAYOUTS = ("plain", "f32_p16", "w8_p16", "w4_p16", "a8_token", "a8_block", "f16_p16", "bf16_p16")


def read(data: bytes) -> dict[str, Any]:
    """Everything in the plan but the bytes of the constants; AssertionError where the file breaks a rule."""
    magic, version, count, size, _, digest = struct.unpack_from("<8sIIQQ32s", data)
    assert (magic, version, size) == (b"FRUGALP\n", 1, len(data))
    table = data[64 : 64 + 64 * count]
    assert hashlib.sha256(table).digest() == digest
    raw: dict[str, bytes] = {}
    for i in range(count):
        kind, records, offset, length, _, sha = struct.unpack_from("<IIQQQ32s", table, 64 * i)
        name = SECTIONS[kind]
        assert name not in raw and offset % (4096 if name == "DATA" else 64) == 0
        raw[name] = data[offset : offset + length]
        assert len(raw[name]) == length and hashlib.sha256(raw[name]).digest() == sha
        width = {"DIMS": 24, "TENSORS": 96, "STEPS": 32, "ARGS": 4, "ATTRS": 8}.get(name)
        assert records == (length // width if width else 0)

    text = raw["TEXT"]
    assert text[:1] == text[-1:] == b"\0"

    def string(offset: int) -> str:
        return text[offset : text.index(b"\0", offset)].decode()

    dims = list(struct.iter_unpack("<IIqq", raw.get("DIMS", b"")))

    def dim(value: int) -> int | str | None:
        return value if value >= 0 else string(dims[-1 - value][1]) or None

    tensors = []
    for row in struct.iter_unpack("<BBBBIQQiI8q", raw.get("TENSORS", b"")):
        dtype, kind, rank, layout, name, offset, length, alias, _ = row[:9]
        assert offset % 64 == 0 and offset + length <= len(raw.get("DATA", b""))
        tensors.append(
            {
                "name": string(name),
                "dtype": dtype,
                "kind": KINDS[kind],
                "layout": LAYOUTS[layout],
                "shape": tuple(dim(d) for d in row[9 : 9 + rank]),
                "bytes": length,
                "alias": alias,
            }
        )
    args = [a for (a,) in struct.iter_unpack("<i", raw.get("ARGS", b""))]
    attrs = [a for (a,) in struct.iter_unpack("<q", raw.get("ATTRS", b""))]
    steps = []
    for op, n_in, n_out, n_attr, name, first, attr, *_ in struct.iter_unpack("<HHHHIII3I", raw.get("STEPS", b"")):
        operands = args[first : first + n_in + n_out]
        steps.append(
            {
                "op": op,
                "name": string(name),
                "inputs": tuple(operands[:n_in]),
                "outputs": tuple(operands[n_in:]),
                "attributes": tuple(attrs[attr : attr + n_attr]),
            }
        )
    return {"meta": json.loads(raw.get("META") or b"{}"), "tensors": tensors, "steps": steps, "text": text}
