"""Compiled plans kept between runs, found again by what they were made from.

The key is the SHA-256 of the .onnx file, of every external data file it names, of the compile options, of the versions of
frugal and the plan format, and of the dates of the compiler's files: so an entry is never stale, and two models never
share one.  The folder is $FRUGAL_CACHE_DIR, else `frugal` in the user's cache folder.  Entries are written beside and
renamed, so any number of processes may share it; they are checked (SHA-256 of every section) when read back; the least
recently used go once there are more than $FRUGAL_CACHE_BYTES (default 4 GiB).
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from .errors import FrugalError, InvalidArgument, NoSuchFile
from .plan import VERSION, Plan, written_beside

DEFAULT_BYTES = 4 << 30
ABANDONED_SECONDS = 3600

# Where an ONNX file may hold tensors: message -> field number -> message of that field (onnx.proto).
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_MAX_DEPTH = 100


def cache_dir() -> Path:
    """Where compiled plans are kept (the folder need not exist)."""
    if chosen := os.environ.get("FRUGAL_CACHE_DIR"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "frugal" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "frugal"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "frugal"


def compiled(model: str | os.PathLike[str] | bytes, **options: Any) -> tuple[Plan, str]:
    """The plan of an ONNX model, and where it came from: "cache" or "compiled".

    model: path of an .onnx file, or its bytes.  options: of frugal.compiler.compile_model.  Where the folder cannot be
    written, the plan stays in memory and a warning says so.
    """
    name = f"{key(model, **options)}.frugal"
    try:
        path = cache_dir() / name
        plan = _read(path)
        if plan is not None:
            return plan, "cache"
        return _write(path, model, options), "compiled"
    except FrugalError:
        raise
    except (OSError, RuntimeError) as e:  # RuntimeError: Path.home() of a user who has none
        from . import compile

        warnings.warn(f"frugal cannot keep compiled models: {e}", stacklevel=4)
        return compile(model, **options), "compiled"


def _write(path: Path, model: str | os.PathLike[str] | bytes, options: dict[str, Any]) -> Plan:
    """Compile into the cache.  The plan is opened before it gets its name: what others do to the entry is theirs."""
    from .compiler import compile_to

    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as beside:
        with open(beside, "xb") as file:
            compile_to(model, file, **options)
        plan = Plan.open(beside)
    _trim(path)
    return plan


def key(model: str | os.PathLike[str] | bytes, **options: Any) -> str:
    """Name of the cache entry: hexadecimal SHA-256 of all that the plan depends on.  Raises NoSuchFile."""
    from . import __version__

    about = {"frugal": __version__, "plan": VERSION, "compiler": _compiler(), "options": dict(sorted(options.items()))}
    digest = sha256(json.dumps(about).encode() + b"\0")
    if isinstance(model, bytes):
        digest.update(sha256(model).digest())
        return digest.hexdigest()
    digest.update(_file_digest(Path(model)))
    for location in external_files(_content(Path(model))):
        if Path(location).is_absolute() or ".." in Path(location).parts:
            continue  # outside of the model's folder: the compiler refuses it
        digest.update(location.encode() + b"\0")
        digest.update(_file_digest(Path(model).parent / location))
    return digest.hexdigest()


def _compiler() -> list[Any]:
    """Sizes and times of the compiler's files: a clone that moves on keeps its version for a while."""
    folder = Path(__file__).parent / "compiler"
    files = sorted((*folder.glob("*.py"), *folder.glob("passes/*.py")))
    return [[f.name, (about := f.stat()).st_size, about.st_mtime_ns] for f in files]


def _content(path: Path) -> memoryview:
    import mmap

    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _file_digest(path: Path) -> bytes:
    from hashlib import file_digest

    try:
        with open(path, "rb") as file:
            return file_digest(file, "sha256").digest()
    except FileNotFoundError as e:
        raise NoSuchFile(f"{path}: no such file") from e
    except IsADirectoryError as e:
        raise InvalidArgument(f"{path} is a folder, not a model") from e


def model_bytes(path: Path) -> int:
    """Size of a model on disk, its external data included."""
    names = {path.parent / name for name in external_files(_content(path))}
    return sum(p.stat().st_size for p in [path, *names] if p.is_file())


def external_files(model: memoryview) -> list[str]:
    """Relative paths of the external data files that an ONNX file names, sorted; [] for bytes that are no protobuf.

    Walks the wire format itself: importing onnx and parsing the model costs a hundred times as much as a cache hit.
    """
    try:
        return sorted(set(_locations(model, "model", 0)))
    except (IndexError, ValueError):
        return []


def _locations(data: memoryview, message: str, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    fields = _FIELDS[message]
    for number, value in _messages(data):
        child = fields.get(number)
        if child == "entry":
            entry = dict(_messages(value))
            if bytes(entry.get(1, b"")) == b"location":
                yield bytes(entry.get(2, b"")).decode()
        elif child:
            yield from _locations(value, child, depth + 1)


def _messages(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(field number, bytes) of the length-delimited fields of a protobuf message."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 2:
            size, at = _varint(data, at)
            if size > end - at:
                raise ValueError("field beyond the end")
            yield tag >> 3, data[at : at + size]
            at += size
        elif wire == 0:
            _, at = _varint(data, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")


def _read(path: Path) -> Plan | None:
    """The entry, whole and unchanged, or None; a damaged one is removed."""
    try:
        plan = Plan.open(path)
        plan.verify()
    except OSError:
        return None
    except FrugalError:  # damaged
        _remove(path)
        return None
    with suppress(OSError):  # the time of last use, for _trim; a read-only cache is still a cache
        os.utime(path)
    return plan


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def entries(suffix: str = ".frugal") -> list[tuple[Path, int, float]]:
    """(path, bytes, time of last use) of the plans in the cache."""
    found = []
    with suppress(OSError, RuntimeError):
        for entry in os.scandir(cache_dir()):
            if entry.name.endswith(suffix):
                info = entry.stat()
                found.append((Path(entry.path), info.st_size, info.st_mtime))
    return found


def _trim(keep: Path) -> None:
    """Remove the least recently used plans above the limit, never `keep`, and what killed processes left behind."""
    for path, _, written in entries(".tmp"):
        if written < time.time() - ABANDONED_SECONDS:
            _remove(path)
    try:
        limit = int(os.environ.get("FRUGAL_CACHE_BYTES", DEFAULT_BYTES))
    except ValueError:
        limit = DEFAULT_BYTES
    plans = sorted(entries(), key=lambda e: e[2])
    total = sum(size for _, size, _ in plans)
    for path, size, _ in plans:
        if total > limit and path != keep:
            _remove(path)
            total -= size
