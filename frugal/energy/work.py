"""What a model does, step by step: time, bytes, operations, and the energy that is apportioned to each step.

The executor's records give nanoseconds, bytes and operations of one run; from the plan come names, kinds and where the bytes lie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgument
from .estimate import Model

if TYPE_CHECKING:
    from ..session import InferenceSession
    from .protocol import Marks, Settings

METHODS = ("time", "counters", "repeated")
INDEXED = ("gather", "gather_dequantize", "gather_at")  # read as much of their table as they write
INT8 = (2, 3, 21, 22, 25, 26)  # uint8, int8, uint4, int4, uint2, int2 of TensorProto.DataType
DEFAULT_CACHE = 8 << 20


def last_level_cache(root: str = "/sys") -> int:
    """Bytes of the largest cache of the first CPU; 8 MiB where the system does not tell."""
    sizes = []
    for file in Path(root, "devices/system/cpu/cpu0/cache").glob("index*/size"):
        try:
            text = file.read_text(encoding="ascii").strip()
            sizes.append(int(text.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(text[-1:], 0))
        except (OSError, ValueError):
            continue
    return max(sizes, default=DEFAULT_CACHE)


def steps(session: InferenceSession, feeds: dict[str, Any], runs: int = 5) -> list[dict[str, Any]]:
    """One dict a step: number, op, name, kind, isa, nanoseconds (median of `runs`), bytes_read, bytes_written, constant_bytes,
    operations.

    Bytes are those of the operands; an indexed table counts as much as is taken from it.
    """
    import frugal

    records = session.step_records(feeds, runs)
    tensors = session.plan.tensors()
    found = []
    for step, rows in zip(session.plan.steps(), zip(*records, strict=True), strict=True):
        read, written, operations = rows[0][1:]
        constants = sum(tensors[i].bytes for i in step.inputs if i >= 0 and tensors[i].kind == "const")
        if step.op in INDEXED and step.inputs[0] >= 0:
            table = max(read - written, 0)
            read -= table
            constants = min(constants, read)
        kinds = {tensors[i].dtype for i in step.inputs if i >= 0}
        found.append(
            {
                "number": step.number,
                "op": step.op,
                "name": step.name,
                "kind": "int8" if kinds & set(INT8) else "float",
                "isa": frugal.isa(),
                "nanoseconds": median(r[0] for r in rows),
                "bytes_read": read,
                "bytes_written": written,
                "constant_bytes": constants,
                "operations": operations,
            }
        )
    return found


def totals(rows: Sequence[dict[str, Any]], seconds: float, cache_bytes: int) -> dict[str, float]:
    """The features of the estimation model for one inference.

    Constants that together do not fit the last level of cache come from memory each time; everything else from caches.
    """
    constants = math.fsum(r["constant_bytes"] for r in rows)
    moved = math.fsum(r["bytes_read"] + r["bytes_written"] for r in rows)
    memory = constants if constants > cache_bytes else 0.0
    return {
        "seconds": seconds,
        "int8_operations": math.fsum(r["operations"] for r in rows if r["kind"] == "int8"),
        "float_operations": math.fsum(r["operations"] for r in rows if r["kind"] != "int8"),
        "memory_bytes": memory,
        "cache_bytes": moved - memory,
    }


def apportion(
    joules: float,
    rows: Sequence[dict[str, Any]],
    method: str = "time",
    model: Model | None = None,
    cache_bytes: int = DEFAULT_CACHE,
) -> list[float]:
    """Joules of each step; they add up to `joules` exactly (math.fsum of them is joules).

    "time"      in proportion to the step's time
    "counters"  in proportion to what the estimation model says for the step's time, operations and bytes
    "repeated"  from `repeated_joules` of the rows that have it, measured by running that step many times; the others by their
                time at the mean power of those; then scaled to the whole
    """
    if method not in METHODS:
        raise InvalidArgument(f"a method of apportioning is one of {', '.join(METHODS)}, got {method!r}")
    if not rows:
        return []
    weights = [_weight(row, rows, method, model, cache_bytes) for row in rows]
    whole = math.fsum(weights)
    if whole <= 0:
        raise InvalidArgument(f"no step has a weight by the method {method!r}")
    shares = [joules * w / whole for w in weights]
    return _exact(shares, joules)


def _weight(row: dict[str, Any], rows: Sequence[dict[str, Any]], method: str, model: Model | None, cache_bytes: int) -> float:
    if method == "repeated":
        return _repeated_weight(row, rows)
    if method == "time":
        return float(row["nanoseconds"])
    if model is None:
        raise InvalidArgument("the method 'counters' needs the estimation model")
    constants = math.fsum(r["constant_bytes"] for r in rows)
    memory = row["constant_bytes"] if constants > cache_bytes else 0.0
    work = {
        "seconds": row["nanoseconds"] * 1e-9,
        "int8_operations": row["operations"] if row["kind"] == "int8" else 0.0,
        "float_operations": row["operations"] if row["kind"] != "int8" else 0.0,
        "memory_bytes": memory,
        "cache_bytes": row["bytes_read"] + row["bytes_written"] - memory,
    }
    return math.fsum(model.parts(work).values())


def _repeated_weight(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> float:
    measured = [r for r in rows if r.get("repeated_joules") is not None]
    if not measured:
        raise InvalidArgument("the method 'repeated' needs a meter that measured steps alone")
    if row.get("repeated_joules") is not None:
        return max(float(row["repeated_joules"]), 0.0)
    price = math.fsum(r["repeated_joules"] for r in measured) / math.fsum(r["nanoseconds"] for r in measured)
    return max(price, 0.0) * float(row["nanoseconds"])


def _exact(shares: list[float], joules: float) -> list[float]:
    """Give the rounding error to the largest share until the correctly rounded sum is the whole."""
    largest = max(range(len(shares)), key=lambda i: shares[i])
    for _ in range(4):
        error = joules - math.fsum(shares)
        if error == 0:
            break
        shares[largest] += error
    return shares


def repeat_steps(
    session: InferenceSession,
    feeds: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    recorder: Marks,
    settings: Settings,
    least_share: float = 0.02,
    most_steps: int = 12,
) -> None:
    """Measure the steps that take at least `least_share` of the time one by one; adds repeated_joules and its interval to them.

    A run that does the step `times` times and a plain run take turns; their difference over times - 1 is the step's energy, with
    its operands where the repetition leaves them: in caches that hold them.
    """
    from .analysis import analyse
    from .protocol import measure

    whole = math.fsum(r["nanoseconds"] for r in rows)
    chosen = sorted(rows, key=lambda r: -r["nanoseconds"])[:most_steps]
    chosen = [r for k, r in enumerate(chosen) if k == 0 or r["nanoseconds"] >= least_share * whole]

    def run(step: int, times: int) -> None:
        session.repeat_step(step, times)
        session.run(None, feeds)

    try:
        for row in chosen:
            times = max(2, min(1000, math.ceil(whole / max(row["nanoseconds"], 1.0))) + 1)
            turns = {"plain": partial(run, -1, 1), "repeated": partial(run, row["number"], times)}
            measured = measure(turns, recorder, settings)
            difference = analyse(recorder.recording, measured.windows)["comparisons"][0]["difference"]
            if difference["joules"] is not None:
                row["repeated_times"] = times
                row["repeated_joules"] = difference["joules"] / (times - 1)
                row["repeated_interval"] = [x / (times - 1) for x in difference["interval"]]
    finally:
        session.repeat_step(-1, 1)


def by_operator(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the same operator and kind added up, the most expensive first; joules where the rows have them."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["op"], row["kind"]), []).append(row)
    table = []
    for (op, kind), members in groups.items():
        row = {"op": op, "kind": kind, "steps": len(members)}
        for key in ("nanoseconds", "bytes_read", "bytes_written", "operations"):
            row[key] = math.fsum(m[key] for m in members)
        row["joules"] = math.fsum(m["joules"] for m in members) if all(m.get("joules") is not None for m in members) else None
        table.append(row)
    return sorted(table, key=lambda r: (-(r["joules"] or 0.0), -r["nanoseconds"], r["op"]))


def roofline(rows: Sequence[dict[str, Any]], peaks: dict[str, float]) -> dict[str, Any]:
    """Points (operations a byte, 10^9 operations a second) of the steps that compute, under the limits of this machine.

    peaks: "int8", "float" in 10^9 operations a second and "read" in 10^9 bytes a second, of `frugal_measure`.
    """
    points = []
    for row in rows:
        moved = row["bytes_read"] + row["bytes_written"]
        if row["operations"] > 0 and moved > 0 and row["nanoseconds"] > 0:
            points.append(
                {
                    "number": row["number"],
                    "op": row["op"],
                    "kind": row["kind"],
                    "intensity": row["operations"] / moved,
                    "gops": row["operations"] / row["nanoseconds"],
                    "nanoseconds": row["nanoseconds"],
                }
            )
    return {"peaks": peaks, "points": points}


def peaks(threads: int) -> dict[str, float]:
    """What this machine can do at most with so many threads (0.1 s): int8 and float32 operations, bytes read; 10^9 a second."""
    import mmap

    from ..bindings import library

    return library.peaks(threads, mmap.mmap(-1, 64 << 20))
