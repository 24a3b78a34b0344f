"""Write a Hugging Face folder, a .gguf, a .tflite or an .onnx as ONNX.

SOURCE is a local folder with config.json and safetensors, or a .gguf, .tflite or .onnx file.  OUT is a folder, which also
receives the tokenizer, or a path that ends in .onnx.
"""

from __future__ import annotations

import argparse

from .common import Progress, add_json, needs, print_json, shape_text, size


def add_arguments(command: argparse.ArgumentParser) -> None:
    """SOURCE OUT [--task T] [--cache C] [--context N]."""
    command.add_argument("source", metavar="SOURCE", help="Hugging Face folder, .gguf, .tflite or .onnx")
    command.add_argument("out", metavar="OUT", help="folder, or .onnx")
    command.add_argument("--task", help="transformers task name (default: by the folder's contents)")
    command.add_argument(
        "--cache", default="growing", choices=("growing", "fixed"), help="form of a decoder's key and value caches"
    )
    command.add_argument(
        "--context", type=int, metavar="N", help="positions a decoder provides for (default: as trained, <= 32768)"
    )
    add_json(command)


def main(args: argparse.Namespace) -> None:
    """Export, then say what was written."""
    with needs("quantize", "exporting"), Progress(not args.json) as progress:
        from frugal.quantize import export

        result = export(args.source, args.out, task=args.task, progress=progress, cache=args.cache, context=args.context)
    if args.json:
        print_json(result.to_dict())
        return
    print(f"{args.out}: {result.architecture}, {result.task}, opset {result.opset}, {size(result.bytes)}")
    for name, shape in result.inputs.items():
        print(f"  input   {name} {shape_text(shape)}")
    for name, shape in result.outputs.items():
        print(f"  output  {name} {shape_text(shape)}")
    for note in result.notes:
        print(f"  note: {note}")
