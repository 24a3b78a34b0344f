"""Where the C of bundles lies: in the installed package, or in the repository next to it."""

from __future__ import annotations

from pathlib import Path

from ..errors import NotAvailable

HERE = Path(__file__).parent


def folder(name: str) -> Path:
    """name: mcu (small kernels, start-up), src or include (the PC's own)."""
    for place in (HERE / name, HERE.parent.parent / "kernels" / name):
        if (place / {"mcu": "fb.h", "src": "ops.h", "include": "frugal_plan.h"}[name]).is_file():
            return place
    raise NotAvailable(f"this installation of frugal lacks the C sources of boards (kernels/{name})")
