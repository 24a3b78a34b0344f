"""The command `frugal`: one module for each subcommand.  Exit codes: 0 done, 1 failed, 2 wrong usage."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from typing import Any

from .. import __version__
from ..errors import FrugalError
from . import bench, boards, chat, compile, deploy, doctor, energy, export, flash, generate, inspect, profile, quantize, run
from .common import Usage

COMMANDS = (export, quantize, compile, run, generate, chat, bench, profile, energy, deploy, boards, flash, inspect, doctor)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; each subcommand leaves its function in `main`."""
    top = argparse.ArgumentParser(
        prog="frugal", description="Quantize models to standard ONNX and run them with small C kernels."
    )
    top.add_argument("--version", action="version", version=f"frugal {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for module in COMMANDS:
        name = module.__name__.rpartition(".")[2]
        text = (module.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(name, help=text, description=text)
        module.add_arguments(command)
        command.set_defaults(main=module.main)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (argparse itself exits with 0 or 2)."""
    args = parser().parse_args(argv)
    warnings.showwarning = _warn
    try:
        args.main(args)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    except Usage as e:
        return _fail(str(e), 2)
    except (FrugalError, OSError) as e:
        return _fail(_text(e), 1)
    except Exception as e:
        if os.environ.get("FRUGAL_TRACEBACK"):
            raise
        return _fail(f"{type(e).__name__}: {_text(e)} (a defect of frugal; FRUGAL_TRACEBACK=1 shows where)", 1)
    return 0


def _fail(text: str, code: int) -> int:
    print(f"frugal: error: {text}", file=sys.stderr)
    return code


def _text(error: BaseException) -> str:
    """An exception's message on one line."""
    if isinstance(error, OSError) and not isinstance(error, FrugalError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"frugal: warning: {message}", file=sys.stderr)
