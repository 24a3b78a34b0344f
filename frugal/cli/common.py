"""What the subcommands share: parsing NAME=VALUE, opening models, printing tables, JSON and progress."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgument, MissingExtra, NoSuchFile

if TYPE_CHECKING:
    import numpy.typing as npt

    from ..session import InferenceSession, NodeArg


class Usage(Exception):
    """The command line contradicts itself or the model: exit code 2."""


def add_model(command: argparse.ArgumentParser) -> None:
    """The positional MODEL."""
    command.add_argument("model", metavar="MODEL", help=".onnx, .frugal, or a folder that holds model.onnx")


def add_json(command: argparse.ArgumentParser) -> None:
    """The option --json."""
    command.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def add_threads(command: argparse.ArgumentParser) -> None:
    """The option --threads."""
    command.add_argument("--threads", type=int, default=0, metavar="N", help="threads (default: one a usable CPU)")


def add_inputs(command: argparse.ArgumentParser) -> None:
    """The option --input."""
    command.add_argument(
        "--input", action="append", default=[], metavar="NAME=FILE.npy", help="an input's value; repeat for each input"
    )


def add_activations(command: argparse.ArgumentParser) -> None:
    """The option --activations."""
    command.add_argument(
        "--activations",
        default="int8",
        choices=("int8", "int8-token", "int8-block", "float"),
        help="how quantized layers take their activations when an .onnx is compiled (default: int8)",
    )


def model_path(text: str) -> Path:
    """The model's file; a folder stands for its model.onnx, else its model.frugal.  Raises NoSuchFile."""
    path = Path(text)
    if path.is_dir():
        found = [path / name for name in ("model.onnx", "model.frugal") if (path / name).is_file()]
        if not found:
            raise NoSuchFile(f"{path} has neither model.onnx nor model.frugal")
        return found[0]
    if not path.exists():
        raise NoSuchFile(f"{path}: no such file")
    return path


def open_session(path: Path, threads: int, activations: str) -> InferenceSession:
    """An InferenceSession with these options."""
    from ..session import InferenceSession, SessionOptions

    if threads < 0:
        raise Usage(f"--threads must be 0 or more, got {threads}")
    options = SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("frugal.activations", activations)
    return InferenceSession(path, options)


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """["a=b", ...] -> {"a": "b"}.  Raises Usage."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals or not value:
            raise Usage(f"{option} wants NAME=VALUE, got {text!r}")
        found[name] = value
    return found


def read_arrays(texts: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """["name=file.npy", ...] -> arrays; pickled objects are refused."""
    import numpy as np

    arrays = {}
    for name, file in pairs(texts, "--input").items():
        try:
            arrays[name] = np.load(file, allow_pickle=False)
        except ValueError as e:
            raise InvalidArgument(f"{file}: not a .npy array: {e}") from e
    return arrays


def check_names(given: Sequence[str], inputs: Sequence[NodeArg], option: str) -> None:
    """Every name must be an input of the model.  Raises Usage."""
    names = [i.name for i in inputs]
    for name in given:
        if name not in names:
            raise Usage(f"{option}: the model has no input {name!r}; its inputs are {', '.join(names)}")


@contextlib.contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Turns a failed import inside into a MissingExtra that says what to install."""
    try:
        yield
    except MissingExtra:
        raise
    except ImportError as e:
        name = e.name or str(e)
        raise MissingExtra(f"{what} needs {name}: pip install 'frugal-edge[{extra}]'") from e


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout; NaN and infinities as null, as JSON has none."""
    print(json.dumps(_finite(value), indent=2, default=_plain))


def _plain(value: object) -> object:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    tolist = getattr(value, "tolist", None)  # numpy scalars and arrays
    if tolist is None:
        raise TypeError(f"cannot write a {type(value).__name__} as JSON")
    return _finite(tolist())


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def printable(text: str) -> str:
    """Text from a model, safe for a terminal: control characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_table(rows: Sequence[Sequence[object]], header: Sequence[str] = ()) -> None:
    """Columns padded to their widest cell; the first left, the others as they are."""
    cells = [[printable(str(c)) for c in row] for row in ([header, *rows] if header else rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def shape_text(shape: Sequence[object]) -> str:
    """[batch, ?, 384]"""
    return "[" + ", ".join("?" if d is None else str(d) for d in shape) + "]"


class Progress:
    """A line on stderr that is rewritten, only when stderr is a terminal (and `on`).  Called with what there is to say; of
    (what, bytes done, bytes in all) it makes a percentage."""

    def __init__(self, on: bool = True) -> None:
        self._on = on and sys.stderr.isatty()
        self._shown = False

    def __call__(self, *parts: object) -> None:
        if self._on:
            self._shown = True
            print("\r\x1b[K" + printable(_progress_text(parts))[:100], end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _progress_text(parts: tuple[object, ...]) -> str:
    match parts:
        case (str(what), int(done), int(total)) if total:
            return f"{done / total:4.0%} of {size(total)}  {what}"
    return " ".join(map(str, parts))
