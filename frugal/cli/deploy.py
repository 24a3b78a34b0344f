"""Turn a model into a folder of plain C for a board, with a self-test whose outputs are the PC's."""

from __future__ import annotations

import argparse

from .common import Usage, add_json, needs, pairs, print_json, read_arrays


def add_arguments(command: argparse.ArgumentParser) -> None:
    """MODEL --board NAME OUTDIR."""
    command.add_argument("model", metavar="MODEL", help=".onnx, .tflite, or a folder that holds model.onnx")
    command.add_argument("out", metavar="OUTDIR", help="folder to write; an earlier bundle there is replaced")
    command.add_argument("--board", required=True, help="a name of `frugal boards`, or the path of a board's .toml file")
    command.add_argument("--compiler", default="auto", choices=("auto", "gcc", "zig"), help="auto: gcc, else ziglang from pip")
    command.add_argument("--dim", action="append", default=[], metavar="NAME=N", help="size of a dimension (default: 1)")
    command.add_argument(
        "--state", action="append", default=[], metavar="IN=OUT", help="an output that becomes an input of the next run"
    )
    command.add_argument(
        "--input", action="append", default=[], metavar="NAME=FILE.npy", help="[cases, ..]: inputs of the self-test"
    )
    command.add_argument("--cases", type=int, default=20, metavar="N", help="runs of the self-test (default: 20)")
    command.add_argument("--no-build", action="store_true", help="write the folder without compiling and measuring")
    add_json(command)


def main(args: argparse.Namespace) -> None:
    """Print what the bundle takes."""
    if args.cases < 1:
        raise Usage(f"--cases must be 1 or more, got {args.cases}")
    sizes = {}
    for name, value in pairs(args.dim, "--dim").items():
        if not value.isdigit() or int(value) < 1:
            raise Usage(f"--dim {name}: want a number of 1 or more, got {value!r}")
        sizes[name] = int(value)
    with needs("onnx", "deploying"):
        from ..deploy import Options, deploy

        options = Options(args.board, args.compiler, sizes, pairs(args.state, "--state"), args.cases, measure=not args.no_build)
        options.inputs = read_arrays(args.input) if args.input else None
        report = deploy(args.model, args.out, options)
    if args.json:
        print_json(report.manifest)
        return
    m = report.manifest
    ram, flash, bound = m["ram"], m["flash"], m["ram"]["live_bound"]
    print(f"{args.out}: {m['board']}, {m['backend']} kernels")
    print(f"  flash  {flash['weights']} weights, {flash['constants']} other constants, {_known(flash['code'])} code")
    print(
        f"  RAM    {ram['arena']} arena (no plan can go below {bound}), {_known(ram['stack'])} stack, {_known(ram['data'])} data"
    )
    print(f"  instructions: {_known(m['instructions_per_inference'])} a run, {_known(m['instructions_init'])} before the first")
    for text in report.refused:
        print(f"  note: general kernel for {text}")
    for text in m["notes"]:
        print(f"  note: {text}")


def _known(value: int | None) -> str:
    return "?" if value is None else str(value)
