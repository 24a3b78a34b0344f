"""docs/operators.md names exactly the operators that the compiler has."""

from __future__ import annotations

import re
from pathlib import Path

from .operators_doc import handlers


def test_list_is_the_codes() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "operators.md").read_text(encoding="utf-8")
    page = page[page.index("## Operators, one by one") :]
    listed = re.findall(r"^\| (\w+) \| ([\w.]+) \|", page, re.MULTILINE)
    wanted = [(name, domain or "ai.onnx") for domain, name in handlers()]
    assert [row for row in listed if row[0] != "operator"] == wanted, "run tests/compiler/operators_doc.py"
