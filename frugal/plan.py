"""A compiled model: one flat file, mapped and run as it is.  docs/plan-format.md describes the bytes."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .bindings.plan import DTYPES, PlanBuffer, Step, Tensor
from .errors import InvalidPlan, NoSuchFile, NotAvailable

Buffer = bytes | bytearray | memoryview | mmap.mmap

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = b"FRUGALP\n"
VERSION = 1
_HEADER = struct.Struct("<8sIIQQ32s")
_SECTION = struct.Struct("<IIQQQ32s")
_SECTION_NAMES = {1: "meta", 2: "text", 3: "dims", 4: "tensors", 5: "steps", 6: "args", 7: "attrs", 8: "data"}

__all__ = ["Plan", "Step", "Tensor"]


def is_plan(data: bytes) -> bool:
    """Whether these bytes (a file's first eight are enough) begin a plan."""
    return bytes(data[:8]) == MAGIC


def has_magic(path: str | os.PathLike[str]) -> bool:
    """Whether this file begins as a plan; False where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return is_plan(file.read(len(MAGIC)))
    except OSError:
        return False


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A new name beside `path`, renamed to it at the end: readers see the old file or the new one, whole.

    The file is removed when the body raises.  Raises NoSuchFile where the folder does not exist.
    """
    if not path.parent.is_dir():
        raise NoSuchFile(f"{path.parent}: no such folder")
    beside = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        yield beside
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


class Plan:
    """A plan in memory or mapped from a file; immutable, and valid as a whole (every offset was checked).

    Plan.open(path) maps a file; Plan(data) takes bytes.  Both raise InvalidPlan, or NotAvailable for an operation that
    this build lacks.  Do not truncate a file while it is open; Plan.save replaces files whole, which is safe.
    """

    def __init__(self, data: Buffer) -> None:
        self._data = _aligned(data)
        self.buffer = PlanBuffer(self._data)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Plan:
        """Map a .frugal file.  Raises NoSuchFile, InvalidPlan."""
        try:
            with open(path, "rb") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    raise InvalidPlan(f"{os.fspath(path)}: the file is empty")
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as e:
            raise NoSuchFile(f"{os.fspath(path)}: no such file") from e
        try:
            return cls(data)
        except (InvalidPlan, NotAvailable) as e:
            raise type(e)(f"{os.fspath(path)}: {e}", code=e.code) from e

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan to `path`, whole or not at all."""
        from pathlib import Path

        with written_beside(Path(path)) as beside, open(beside, "xb") as file:
            file.write(self._data)

    def __len__(self) -> int:
        """Bytes of the file."""
        return len(self.buffer)

    def __bytes__(self) -> bytes:
        return bytes(self._data)

    def __reduce__(self) -> tuple[type[Plan], tuple[bytes]]:
        return Plan, (bytes(self),)

    @property
    def meta(self) -> dict[str, Any]:
        """What the compiler wrote about the model: producer, source hash, options.  {} when there is nothing."""
        import json

        try:
            meta = json.loads(self.buffer.meta() or b"{}")
        except (ValueError, RecursionError) as e:
            raise InvalidPlan(f"the META section is not JSON: {e}") from e
        if not isinstance(meta, dict):
            raise InvalidPlan("the META section is not a JSON object")
        return meta

    @property
    def inputs(self) -> list[Tensor]:
        """The model's inputs, in its order."""
        return list(self.buffer.inputs)

    @property
    def outputs(self) -> list[Tensor]:
        """The model's outputs, in its order."""
        return list(self.buffer.outputs)

    def tensors(self) -> list[Tensor]:
        """The whole tensor table."""
        return [self.buffer.tensor(i) for i in range(self.buffer.c.n_tensors)]

    def steps(self) -> Iterator[Step]:
        """The step table, in order of execution."""
        return self.buffer.steps()

    def sections(self) -> list[dict[str, Any]]:
        """kind, count, offset, bytes and sha256 of every section."""
        _, _, count, _, _, _ = _HEADER.unpack_from(self._data)
        rows = [_SECTION.unpack_from(self._data, _HEADER.size + i * _SECTION.size) for i in range(count)]
        names = ("kind", "count", "offset", "bytes", "sha256")
        return [
            dict(zip(names, (_SECTION_NAMES.get(kind, str(kind)), n, at, size, digest.hex()), strict=True))
            for kind, n, at, size, _, digest in rows
        ]

    def verify(self) -> None:
        """Compare the SHA-256 of the section table and of every section.  Raises InvalidPlan; reads the whole file."""
        from hashlib import sha256

        view = memoryview(self._data)
        _, _, count, _, _, table_digest = _HEADER.unpack_from(self._data)
        table = view[_HEADER.size : _HEADER.size + count * _SECTION.size]
        if sha256(table).digest() != table_digest:
            raise InvalidPlan("the section table was changed after it was written (SHA-256 differs)")
        for section in self.sections():
            at, size = section["offset"], section["bytes"]
            if sha256(view[at : at + size]).hexdigest() != section["sha256"]:
                raise InvalidPlan(f"section {section['kind']} was changed after it was written (SHA-256 differs)")

    def __repr__(self) -> str:
        return f"<frugal.Plan {len(self)} bytes, {self.buffer.c.n_steps} steps>"


def dtype_name(dtype: int) -> str:
    """numpy's name of an ONNX data type number, or the number."""
    return DTYPES[dtype][0] if dtype in DTYPES else f"onnx-{dtype}"


def _aligned(data: Buffer) -> Any:
    """data itself when it is mapped (a page is a multiple of 64), else a copy at a multiple of 64."""
    if isinstance(data, mmap.mmap):
        return data
    source = memoryview(data)
    if not source.nbytes:
        raise InvalidPlan("a plan cannot be empty")
    copy = mmap.mmap(-1, source.nbytes)
    copy[:] = source.tobytes() if source.format != "B" else source
    return copy
