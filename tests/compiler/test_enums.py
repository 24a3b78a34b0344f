"""The numbers that Python writes are the numbers that C reads: enums, sizes and the magic of kernels/include/frugal_plan.h."""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import Path

import pytest

from frugal.compiler import ir, planfile

HEADER = (Path(__file__).resolve().parents[2] / "kernels" / "include" / "frugal_plan.h").read_text(encoding="utf-8")


def constants(prefix: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(rf"\b{prefix}([A-Z0-9_]+) = (\d+)", HEADER)}


@pytest.mark.parametrize(
    ("enum", "prefix", "skip"),
    [
        (ir.Op, "FRUGAL_OP_", {"ALIAS", "COUNT"}),
        (ir.Unary, "FRUGAL_U_", set()),
        (ir.Binary, "FRUGAL_B_", set()),
        (ir.Reduce, "FRUGAL_R_", set()),
    ],
)
def test_enum(enum: type[IntEnum], prefix: str, skip: set[str]) -> None:
    python = {m.name: m.value for m in enum if m.name not in skip}
    assert python == {k: v for k, v in constants(prefix).items() if k not in skip}


def test_layouts_sections_and_kinds() -> None:
    layouts = {k: v for k, v in constants("FRUGAL_").items() if k in ir.Layout.__members__}
    assert layouts == {m.name: m.value for m in ir.Layout}
    for name, value in constants("FRUGAL_SECTION_").items():
        assert getattr(planfile, name) == value
    for name, value in constants("FRUGAL_TENSOR_").items():
        assert getattr(planfile, name) == value
    renamed = {"div": "floordiv", "ceil_div": "ceildiv"}
    dims = {renamed.get(k.lower(), k.lower()): v for k, v in constants("FRUGAL_DIM_").items()}
    assert dims == planfile.DIM_OPS
    assert f'FRUGAL_PLAN_MAGIC "{planfile.MAGIC.decode().strip()}\\n"' in HEADER
    assert f"FRUGAL_PLAN_VERSION {planfile.VERSION}\n" in HEADER
