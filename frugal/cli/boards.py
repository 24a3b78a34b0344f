"""List the boards, and which compilers and emulators are installed for them."""

from __future__ import annotations

import argparse
from typing import Any

from .common import add_json, print_json, print_table


def add_arguments(command: argparse.ArgumentParser) -> None:
    """[BOARD ...] [--json]."""
    command.add_argument("boards", nargs="*", metavar="BOARD", help="names or .toml files (default: all that come with frugal)")
    add_json(command)


def main(args: argparse.Namespace) -> None:
    """A row a board; what is missing with the command that installs it."""
    from ..deploy import boards

    rows: list[dict[str, Any]] = []
    for name in args.boards or boards.names():
        board = boards.load(name)
        found = boards.tools(board)
        rows.append(
            {
                "name": board.name,
                "title": board.title,
                "backend": board.backend,
                "flash": board.flash or None,
                "ram": board.ram or None,
                "compiler": found.kind if found.compiler else None,
                "emulator": bool(board.emulator) and found.emulator,
                "missing": found.missing,
                "install": found.install or None,
            }
        )
    if args.json:
        print_json({"boards": rows, "zig": boards.zig() is not None})
        return
    print_table(
        [(r["name"], r["title"], r["backend"], r["compiler"] or "missing", "yes" if r["emulator"] else "missing") for r in rows],
        ("board", "", "kernels", "compiler", "emulator"),
    )
    missing = sorted({m for r in rows for m in r["missing"]})
    if missing:
        print(f"\nmissing: {', '.join(missing)}\n  {boards.install_command(missing)}")
        print("  without root: pip install ziglang (the compiler)")
