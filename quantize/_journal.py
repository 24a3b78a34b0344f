"""A write that was killed goes on where it was: a journal in the staging folder says which tensors are whole.

Lines of JSON: the key of the write, then {"tensors": names, "end": bytes, "small": …, "state": …} for each group of tensors that
the disk has. Data is synced before the line that vouches for it is written.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from ._files import JOURNAL

STEP = 1 << 26  # bytes between two syncs: what a kill costs at most, beside the tensor that was being written


class Source(Protocol):
    """What produces several tensors, and knows something else of them when they are written (errors for a report)."""

    def state(self) -> Any:
        """That, as JSON."""

    def restore(self, state: Any) -> None:
        """Take it back, instead of producing the tensors again."""


@dataclass(frozen=True)
class Entry:
    """Tensors that are whole: where they end in the file, bytes of those that are not in it, the state of their source."""

    tensors: list[str]
    end: int
    small: dict[str, bytes]
    state: Any


class Journal:
    """Of the write of `path`.  key: what determines every byte that is written; None: not resumable."""

    def __init__(self, path: Path, key: str | None) -> None:
        self.path, self.key = path.parent / JOURNAL, key
        self._saved = self._read(path) if key else []
        self._pending: list[str] = []
        self._synced = self._saved[-1].end if self._saved else 0
        if not self._saved:
            self.path.unlink(missing_ok=True)

    @property
    def resumes(self) -> bool:
        """Whether anything is there already."""
        return bool(self._saved)

    def _read(self, path: Path) -> list[Entry]:
        """Entries of an earlier write of the same bytes; what is cut off or damaged ends them."""
        try:
            size, lines = path.stat().st_size, self.path.read_text(encoding="utf-8").split("\n")[:-1]
        except (OSError, ValueError):
            return []
        if not lines or lines[0] != json.dumps(self.key):
            return []
        found: list[Entry] = []
        for line in lines[1:]:
            try:
                raw = json.loads(line)
                small = {k: base64.b64decode(v) for k, v in raw["small"].items()}
                entry = Entry(raw["tensors"], raw["end"], small, raw["state"])
            except (ValueError, KeyError, TypeError, AttributeError):
                break
            if entry.end > size:
                break
            found.append(entry)
        return found

    def take(self, tensors: list[str]) -> Entry | None:
        """The entry of these tensors, if they are whole; asked in the order of the write."""
        return self._saved.pop(0) if self._saved and self._saved[0].tensors == tensors else None

    def add(self, f: IO[bytes], entry: Entry) -> None:
        """These tensors were written to `f`, which ends with them."""
        if not self.key:
            return
        small = {k: base64.b64encode(v).decode() for k, v in entry.small.items()}
        self._pending.append(
            json.dumps({"tensors": entry.tensors, "end": entry.end, "small": small, "state": entry.state}) + "\n"
        )
        if entry.end - self._synced >= STEP:
            self._sync(f, entry.end)

    def _sync(self, f: IO[bytes], end: int) -> None:
        f.flush()
        os.fsync(f.fileno())
        new = not self.path.exists()
        with open(self.path, "a", encoding="utf-8", newline="\n") as journal:
            journal.write((json.dumps(self.key) + "\n" if new else "") + "".join(self._pending))
            journal.flush()
            os.fsync(journal.fileno())
        self._pending, self._synced = [], end


def key_of(*parts: bytes | str) -> str:
    """One key of everything that determines a write."""
    h = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        h.update(len(raw).to_bytes(8, "little") + raw)
    return h.hexdigest()


def file_key(path: Path) -> str:
    """Which file this is, as far as can be told without reading it."""
    s = path.stat()
    return f"{path.name} {s.st_size} {s.st_mtime_ns}"
