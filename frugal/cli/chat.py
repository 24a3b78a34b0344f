"""Talk with a decoder in the terminal.

MODEL is a folder that `frugal export` wrote, of a model with a chat template.  Ctrl-C ends an answer, at the prompt the talk;
so does Ctrl-D.  /new starts again, /system TEXT sets the system message, /undo takes the last exchange back, /help lists these.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from typing import Any

from ..errors import InvalidArgument
from .common import printable
from .texts import add_sampling, add_text_model, open_model, sampling

HELP = "/new  start again    /undo  take the last exchange back    /system TEXT  system message    /quit  end (or Ctrl-D)"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """MODEL [--system TEXT] and how to choose tokens."""
    add_text_model(command)
    command.add_argument("--system", metavar="TEXT", help="system message")
    add_sampling(command, 512)


def main(args: argparse.Namespace) -> None:
    """Read a line, answer, and so on."""
    model = open_model(args)
    model.chat_prompt([{"role": "user", "content": "?"}])  # a model without a template fails now
    talk = _Talk(model, args.system, sampling(args), sys.stdin.isatty())
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() history and editing
    if talk.terminal:
        print(f"{printable(str(args.model))}: context {model.context} tokens; /help for commands", file=sys.stderr)
    while talk.turn():
        pass


class _Talk:
    """The conversation so far."""

    def __init__(self, model: Any, system: str | None, options: dict[str, Any], terminal: bool) -> None:
        self.model, self.system, self.options, self.terminal = model, system, options, terminal
        self.messages: list[dict[str, str]] = []

    def turn(self) -> bool:
        """One line and its answer; False when the talk is over."""
        try:
            line = input("> " if self.terminal else "").strip()
        except (EOFError, KeyboardInterrupt):
            if self.terminal:
                print(file=sys.stderr)
            return False
        if line.startswith("/"):
            return self.command(line)
        if line:
            self.answer(line)
        return True

    def command(self, line: str) -> bool:
        """A line that starts with a slash."""
        name, _, rest = line.partition(" ")
        if name == "/quit":
            return False
        if name == "/new":
            self.messages = []
        elif name == "/undo":
            self.messages = self.messages[:-2]
        elif name == "/system":
            self.system = rest.strip() or None
        else:
            print(HELP, file=sys.stderr)
        return True

    def answer(self, line: str) -> None:
        """Stream the answer; Ctrl-C ends it and keeps what was said."""
        first = [{"role": "system", "content": self.system}] if self.system else []
        asked = [*self.messages, {"role": "user", "content": line}]
        said, start = "", time.perf_counter()
        try:
            pieces = self.model.chat([*first, *asked], stream=True, **self.options)
            try:
                for piece in pieces:
                    said += piece
                    print(piece, end="", flush=True)
            except KeyboardInterrupt:
                self.model.cancel()
                pieces.close()
        except InvalidArgument as e:  # the talk has outgrown the context, or the template refuses
            print(f"frugal: {e} (/new starts again, /undo goes back)", file=sys.stderr)
            return
        print(flush=True)
        self.messages = [*asked, {"role": "assistant", "content": said}]
        if self.terminal:
            seconds = time.perf_counter() - start
            print(f"[{seconds:.1f} s]", file=sys.stderr)
