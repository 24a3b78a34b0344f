"""What `generate` and `chat` share: options of sampling, opening the model."""

from __future__ import annotations

import argparse
from typing import Any

from ..text import TextModel
from .common import Progress, add_threads, needs


def add_text_model(command: argparse.ArgumentParser) -> None:
    """MODEL, --threads, --activations, --cache, --context."""
    command.add_argument("model", metavar="MODEL", help="folder with model.onnx (or model.frugal) and tokenizer.json")
    add_threads(command)
    command.add_argument("--activations", default="int8", choices=("int8", "float"), help="of quantized layers (default: int8)")
    caches = ("float32", "float16", "int8")
    text = "how keys and values are kept (default: float16, with float activations float32)"
    command.add_argument("--cache", choices=caches, help=text)
    command.add_argument("--context", type=int, metavar="N", help="most tokens of a text, prompt included")


def add_sampling(command: argparse.ArgumentParser, most: int) -> None:
    """--max-new-tokens, --temperature and the others."""
    command.add_argument("--max-new-tokens", type=int, default=most, metavar="N", help=f"default: {most}")
    command.add_argument("--temperature", type=float, default=0.0, metavar="T", help="0: always the likeliest token (default)")
    command.add_argument("--top-k", type=int, default=0, metavar="K", help="draw among the K likeliest (default: all)")
    command.add_argument("--top-p", type=float, default=1.0, metavar="P", help="draw among the fewest that reach P together")
    command.add_argument(
        "--min-p", type=float, default=0.0, metavar="P", help="draw among those with P times the best's probability"
    )
    command.add_argument("--repetition-penalty", type=float, default=1.0, metavar="R")
    command.add_argument("--seed", type=int, default=0, help="same seed, same text, on every CPU (default: 0)")
    command.add_argument("--stop", action="append", default=[], metavar="TEXT", help="end before this text; repeatable")


def sampling(args: argparse.Namespace) -> dict[str, Any]:
    """The options for TextModel.generate."""
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop")
    return {n: getattr(args, n) for n in names}


def open_model(args: argparse.Namespace) -> TextModel:
    """The TextModel of these arguments; a first opening, which compiles, says so on a terminal."""
    with needs("text", "text generation"), Progress() as progress:
        progress(f"opening {args.model}")
        return TextModel.open(
            args.model, threads=args.threads, activations=args.activations, cache=args.cache, context=args.context
        )
