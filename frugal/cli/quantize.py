"""Quantize a float ONNX model to int8 or int4 standard ONNX.

The result holds standard operators only: onnxruntime runs it too.
"""

from __future__ import annotations

import argparse

from .common import Progress, add_json, needs, print_json, printable, size


def add_arguments(command: argparse.ArgumentParser) -> None:
    """IN OUT --scheme S and the options of frugal.quantize.quantize."""
    command.add_argument("model", metavar="IN", help="float .onnx, or a folder that holds model.onnx")
    command.add_argument("out", metavar="OUT", help=".onnx or folder to write")
    command.add_argument("--scheme", required=True, choices=("int8", "int4"), help="what the weights become")
    command.add_argument(
        "--calibration", metavar="DATA", help=".npz, folder of .npz, or text file with a line a sample"
    )
    command.add_argument("--block-size", type=int, default=32, metavar="N", help="weights that share a scale in int4")
    command.add_argument(
        "--exclude", action="append", default=[], metavar="NAME", help="leave this layer float; repeat"
    )
    command.add_argument("--per-layer", action="store_true", help="measure the error of every layer")
    add_json(command)


def main(args: argparse.Namespace) -> None:
    """Quantize, then say what it did and what it cost."""
    with needs("quantize", "quantizing"), Progress() as progress:
        from frugal.quantize import quantize

        report = quantize(
            args.model,
            args.out,
            scheme=args.scheme,
            calibration=args.calibration,
            block_size=args.block_size,
            exclude=tuple(args.exclude),
            per_layer=args.per_layer,
            progress=progress,
        ).to_dict()
    if args.json:
        print_json(report)
        return
    for key, value in report.items():
        if isinstance(value, list):
            print(f"{key}: {len(value)}")
        elif isinstance(value, dict):
            print(f"{key}: " + ", ".join(f"{printable(str(k))} {_text(k, v)}" for k, v in value.items()))
        else:
            print(f"{key}: {_text(key, value)}")


def _text(key: str, value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and "bytes" in key:
        return size(value)
    return f"{value:.6g}" if isinstance(value, float) else printable(str(value))
