"""Files that appear whole or not at all: everything is written in a hidden folder beside the target, then renamed."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from frugal.errors import FrugalError

CHUNK = 1 << 24  # bytes moved at a time when a file or tensor is copied: what streaming costs in memory
JOURNAL = ".journal"  # in a staging folder: what a write that was killed has done (_journal.py)


@contextmanager
def staging(out: Path, main: str) -> Iterator[Path]:
    """A temporary folder inside `out`; when the block ends well its files move to `out`, the file `main` last.

    An existing `main` is removed just before the first move: at no time does an old model stand beside new data.
    On an exception (or Ctrl-C) the temporary folder goes and `out` is as it was. After SIGKILL or a power cut
    only the temporary folder `.MAIN.part` is left; the next run into the same place goes on with what its journal
    vouches for, and replaces the rest. One run at a time may write to one target. Raises FrugalError where the disk
    refuses (full, read-only, not a folder).
    """
    made = _missing_parents(out)
    part = out / f".{main}.part"
    try:
        out.mkdir(parents=True, exist_ok=True)
        _clear(part, main)
        part.mkdir(exist_ok=True)
        yield part
        _commit(part, out, main)
    except OSError as e:
        raise FrugalError(f"cannot write {out / main}: {e}. Nothing was left there; check space and rights.") from e
    finally:
        shutil.rmtree(part, ignore_errors=True)
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _missing_parents(folder: Path) -> list[Path]:
    """Folders that mkdir will have to make, deepest first."""
    made = []
    while not folder.exists():
        made.append(folder)
        folder = folder.parent
    return made


def _clear(part: Path, main: str) -> None:
    """Leave in an old staging folder only what a journal may vouch for."""
    if not (part / JOURNAL).is_file():
        shutil.rmtree(part, ignore_errors=True)
        return
    for path in part.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (JOURNAL, main, f"{main}.data"):
            path.unlink()


def staged(part: Path) -> list[Path]:
    """The files of a staging folder that will be moved."""
    return sorted(p for p in part.rglob("*") if p.is_file() and p.name != JOURNAL)


def _commit(part: Path, out: Path, main: str) -> None:
    files = staged(part)
    for path in files:
        with open(path, "rb+") as f:
            os.fsync(f.fileno())
    (out / main).unlink(missing_ok=True)
    for path in sorted(files, key=lambda p: p == part / main):
        target = out / path.relative_to(part)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file, read CHUNK bytes at a time."""
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(CHUNK):
            h.update(block)
    return h.hexdigest()


def peak_rss_bytes() -> int | None:
    """Largest resident set of this process so far, in bytes; None where the system does not say (Windows)."""
    if sys.platform == "win32":
        return None
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss of a child starts at its parent's peak, VmHWM does not
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
