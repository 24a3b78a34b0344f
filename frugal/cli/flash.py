"""Put a bundle's self-test on a board, and verify what was written."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import add_json, print_json


def add_arguments(command: argparse.ArgumentParser) -> None:
    """OUTDIR [--tool NAME] [--target WHERE]."""
    command.add_argument("bundle", metavar="OUTDIR", help="folder that `frugal deploy` wrote")
    command.add_argument(
        "--tool", help="one of the board's (pyocd, openocd, dfu-util ..), gdb or uf2; default: the board's first"
    )
    command.add_argument("--target", metavar="WHERE", help="gdb: HOST:PORT of its server; uf2: folder of the mounted drive")
    command.add_argument("--run", action="store_true", help="with gdb: run the self-test and say its exit code")
    command.add_argument("--dry-run", action="store_true", help="build and show the command, but do not run it")
    add_json(command)


def main(args: argparse.Namespace) -> None:
    """Show each command before it runs."""
    from ..deploy import flash
    from ..errors import FrugalError

    bundle = Path(args.bundle)
    tool = args.tool or flash.tools(flash.read_manifest(bundle))[0]
    show = (lambda text: None) if args.json else (lambda text: print(f"$ {text}", flush=True))
    done = flash.flash(bundle, tool, args.target, args.run, args.dry_run, show)
    if args.json:
        print_json({"tool": tool, "commands": done.commands, "verified": done.verified, "exit_code": done.exit_code})
    elif not args.dry_run:
        print("verified" if done.verified else "written; the board took the file and left, so it was not read back")
        if done.exit_code is not None:
            print(f"self-test: exit code {done.exit_code}")
    if done.exit_code:
        raise FrugalError(f"the self-test ended with exit code {done.exit_code}")
