"""Compile an .onnx to a .frugal plan, which opens in a millisecond."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import Usage, add_activations, model_path, needs, size


def add_arguments(command: argparse.ArgumentParser) -> None:
    """IN OUT [--target host]."""
    command.add_argument("model", metavar="IN", help=".onnx, or a folder that holds model.onnx")
    command.add_argument("out", metavar="OUT", help=".frugal file to write")
    command.add_argument("--target", default="host", help="host (default); a plan of host runs on every CPU")
    add_activations(command)


def main(args: argparse.Namespace) -> None:
    """Compile beside OUT, then rename."""
    from ..plan import Plan, has_magic, written_beside

    if args.target != "host":
        raise Usage(f"unknown target {args.target!r}; this version knows: host")
    source, out = model_path(args.model), Path(args.out)
    if has_magic(source):
        raise Usage(f"{source} is a plan already")
    if out.is_dir():
        raise Usage(f"{out} is a folder; OUT is the file to write")
    with needs("onnx", "compiling"):
        from ..compiler import compile_to

        with written_beside(out) as beside, open(beside, "xb") as file:
            compile_to(source, file, activations=args.activations)
    plan = Plan.open(out)
    print(f"{out}: {plan.buffer.c.n_steps} steps, {size(len(plan))}")
    for note in plan.meta.get("notes", []):
        print(f"  note: {note}")
