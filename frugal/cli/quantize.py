"""Quantize a float ONNX model to int8 or int4 standard ONNX.

The result holds standard operators only: onnxruntime runs it too.
"""

from __future__ import annotations

import argparse
from typing import Any

from .common import Progress, add_json, needs, print_json, print_table, printable, size


def add_arguments(command: argparse.ArgumentParser) -> None:
    """IN OUT --scheme S and the options of frugal.quantize.quantize."""
    command.add_argument("model", metavar="IN", help="float .onnx, or a folder that holds model.onnx")
    command.add_argument("out", metavar="OUT", help=".onnx or folder to write")
    command.add_argument("--scheme", required=True, choices=("int8", "int4"), help="what the weights become")
    command.add_argument("--calibration", metavar="DATA", help=".npz, folder of .npz, or text file with a line a sample")
    command.add_argument("--block-size", type=int, default=32, metavar="N", help="weights that share a scale in int4")
    command.add_argument("--exclude", action="append", default=[], metavar="NAME", help="leave this layer float; repeat")
    command.add_argument("--per-layer", action="store_true", help="measure the error of every layer")
    command.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        help="compare with the float model in onnxruntime (default: where that is below 1 GB)",
    )
    add_json(command)


def main(args: argparse.Namespace) -> None:
    """Quantize, then say what it did and what it cost."""
    with needs("quantize", "quantizing"), Progress(not args.json) as progress:
        from frugal.quantize import quantize

        report = quantize(
            args.model,
            args.out,
            scheme=args.scheme,
            calibration=args.calibration,
            block_size=args.block_size,
            exclude=tuple(args.exclude),
            per_layer=args.per_layer,
            verify_result=args.verify,
            progress=progress,
        ).to_dict()
    if args.json:
        print_json(report)
        return
    _print(report)


def _print(report: dict[str, Any]) -> None:
    print(f"{report['out']}: {report['scheme']}, {len(report['tensors'])} tensors, ", end="")
    print(f"{size(report['bytes_in'])} -> {size(report['bytes_out'])} in {report['seconds']:.1f} s")
    header = ("cosine mean", "cosine min", "relative error", "max error")
    for title in ("outputs", "nodes"):
        if report[title]:
            print(f"\n{title} against float ({report['verified_on']} inputs)")
            keys = ("cosine_mean", "cosine_min", "relative_error", "max_abs_error")
            rows = [["  " + row["name"], *(f"{row[k]:.5g}" for k in keys)] for row in report[title]]
            print_table(rows, ("", *header))
    for name, why in report["skipped"]:
        print(printable(f"left float: {name}: {why}"))
    for note in report["notes"]:
        print(printable(f"note: {note}"))
