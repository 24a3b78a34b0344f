"""Continue a text with a decoder.

MODEL is a folder that `frugal export` wrote.  The prompt is --prompt, or what comes on standard input; the text appears on
standard output as it is written.
"""

from __future__ import annotations

import argparse
import sys
import time

from .common import Progress, Usage, add_json, print_json
from .texts import add_sampling, add_text_model, open_model, sampling


def add_arguments(command: argparse.ArgumentParser) -> None:
    """MODEL [--prompt TEXT] and how to choose tokens."""
    add_text_model(command)
    command.add_argument("--prompt", metavar="TEXT", help="default: standard input")
    command.add_argument("--chat", action="store_true", help="put the prompt into the model's chat template as a user's message")
    add_sampling(command, 256)
    add_json(command)


def main(args: argparse.Namespace) -> None:
    """Generate, and stream to standard output."""
    prompt = args.prompt
    if prompt is None:
        if sys.stdin.isatty():
            raise Usage("give --prompt, or a text on standard input")
        prompt = sys.stdin.read()
    if args.max_new_tokens < 0 or args.threads < 0:
        raise Usage("--max-new-tokens and --threads must be 0 or more")
    start = time.perf_counter()
    model = open_model(args)
    opened = time.perf_counter()
    options = sampling(args)
    if args.chat:
        prompt, options["add_special_tokens"] = model.chat_prompt([{"role": "user", "content": prompt}]), False
    with Progress() as progress:
        options["progress"] = lambda done, total: progress(f"reading the prompt: {done} of {total} tokens")
        if args.json:
            found = model.generate(prompt, logprobs=True, **options)
            seconds = {"open_seconds": opened - start, "generate_seconds": time.perf_counter() - opened}
            print_json(found.to_dict() | seconds)
            return
        for piece in model.generate(prompt, stream=True, **options):
            print(piece, end="", flush=True)
    print()
