"""Traces that another program recorded: CSV with named columns, MLPerf Tiny's `.bin`, Joulescope's `.jls`.

A trace is a recording already, so this is no Meter that polls: `load` gives a Recording and the windows that the file tells.

CSV: columns are named with `time=Timestamp:ms,current=Current:uA,voltage=3.0`.  Quantities: time, power, current, voltage, energy
(joules counted up), trigger (1 while the work runs).  A number in place of a column is a constant; units default to s, W, A,
V, J.

.bin: the byte 0xF1, a little-endian float32 rate in hertz, then float32 microjoules, one a sample.  Beside it a
`*-timestamps.json` with seconds of edges: the first is the start of the session, then start and end of each window in turns.
Window energies equal those that the recording program printed: its sample k lies at the time got by adding the period k times.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InvalidArgument, MissingExtra, NoSuchFile
from ..evidence import Evidence
from ..recording import Recording
from .base import COUNTER, INCREMENT, POWER, Channel, MeterError, Sample

UNITS = {
    "": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9,
    "w": 1.0, "mw": 1e-3, "uw": 1e-6, "µw": 1e-6, "nw": 1e-9,
    "a": 1.0, "ma": 1e-3, "ua": 1e-6, "µa": 1e-6, "na": 1e-9,
    "v": 1.0, "mv": 1e-3, "uv": 1e-6,
    "j": 1.0, "mj": 1e-3, "uj": 1e-6, "µj": 1e-6, "nj": 1e-9, "wh": 3600.0, "mwh": 3.6, "kwh": 3.6e6,
}  # fmt: skip
QUANTITIES = ("time", "power", "current", "voltage", "energy", "trigger")
# The LPM01A, with which most public traces were recorded: 2 % of the reading in dynamic mode (ST UM2243).  Who knows better
# says so.
RELATIVE = 0.02
MARK = 0xF1
MOST_SAMPLES = 50_000_000
Window = tuple[float, float]


@dataclass
class Trace:
    """A recording and the windows in which the work ran, as far as the file tells."""

    recording: Recording
    windows: list[Window]
    about: dict[str, Any]


def load(path: str | os.PathLike[str], columns: str = "", relative: float = RELATIVE) -> Trace:
    """Read a trace.  Raises NoSuchFile, InvalidArgument (a file that is not what it should be), MissingExtra (.jls)."""
    file = Path(path)
    if not file.is_file():
        raise NoSuchFile(f"{file}: no such file")
    with open(file, "rb") as stream:
        first = stream.read(1)
    if file.suffix == ".jls":
        return _jls(file, relative)
    if first == bytes([MARK]):
        return _mlperf(file, relative)
    return _csv(file, parse_columns(columns), relative)


def parse_columns(text: str) -> dict[str, tuple[str, float]]:
    """ "time=t:ms,power=P" -> {"time": ("t", 1e-3), "power": ("P", 1.0)}.  Raises InvalidArgument."""
    columns: dict[str, tuple[str, float]] = {}
    for part in filter(None, text.split(",")):
        quantity, equals, column = part.partition("=")
        name, _, unit = column.rpartition(":") if ":" in column else (column, "", "")
        factor = UNITS.get(unit.lower())
        if quantity not in QUANTITIES or not equals or not name or factor is None:
            raise InvalidArgument(
                f"columns: want QUANTITY=COLUMN[:UNIT] such as power=P:mW, one of {', '.join(QUANTITIES)}; got {part!r}"
            )
        columns[quantity] = (name, factor)
    return columns


# ---- CSV ----


def _csv(file: Path, columns: dict[str, tuple[str, float]], relative: float) -> Trace:
    if not columns:
        raise InvalidArgument(f"{file}: say which columns the CSV has, such as time=Time:ms,power=Power:mW")
    if "time" not in columns or not columns.keys() & {"power", "current", "energy"}:
        raise InvalidArgument(f"{file}: the columns need time, and power, energy, or current and voltage")
    if "current" in columns and "voltage" not in columns:
        raise InvalidArgument(f"{file}: a current needs a voltage: a column, or a number such as voltage=3.0")
    with open(file, newline="", encoding="utf-8-sig", errors="replace") as stream:
        rows, at = _table(stream, columns, file)
        recording, triggers, skipped = _samples(rows, columns, at, relative)
    if not recording.series[0].times:
        raise InvalidArgument(f"{file}: no row has numbers in its columns")
    windows = edges(triggers) if "trigger" in columns else []
    about = {"file": file.name, "format": "csv", "columns": {q: n for q, (n, _) in columns.items()}, "rows_skipped": skipped}
    return Trace(recording, windows, about)


def _table(stream: Any, columns: dict[str, tuple[str, float]], file: Path) -> tuple[Any, dict[str, int]]:
    """A reader behind the header, and where each column is.  Lines before the header (notes of the recorder) are passed over."""
    sample = stream.read(65536)
    stream.seek(0)
    delimiter = max(",;\t", key=sample.count)
    reader = csv.reader(stream, delimiter=delimiter)
    wanted = [name for quantity, (name, _) in columns.items() if not _is_constant(quantity, name)]
    for header in itertools.islice(reader, 100):
        names = [h.strip() for h in header]
        if all(name in names for name in wanted):
            return reader, {q: names.index(n) for q, (n, _) in columns.items() if not _is_constant(q, n)}
    raise InvalidArgument(f"{file}: no line of the first 100 has the columns {', '.join(wanted)}")


def _is_constant(quantity: str, name: str) -> bool:
    return quantity == "voltage" and _number(name) is not None


def _number(text: str) -> float | None:
    try:
        value = float(text.strip().replace(",", "."))  # decimal commas of European recorders, when ; separates
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _samples(
    rows: Any, columns: dict[str, tuple[str, float]], at: dict[str, int], relative: float
) -> tuple[Recording, list[tuple[float, bool]], int]:
    """Samples of the one channel that the columns give, the trigger's states, and how many rows were no numbers."""
    kind = "energy" if "energy" in columns else "power" if "power" in columns else "current"
    constant = _number(columns["voltage"][0]) if "voltage" in columns and "voltage" not in at else None
    points: list[tuple[float, float]] = []
    triggers: list[tuple[float, bool]] = []
    skipped = 0
    for row in rows:
        values = {q: _number(row[i]) if i < len(row) else None for q, i in at.items()}
        if any(v is None for v in values.values()):
            skipped += any(cell.strip() for cell in row)
            continue
        scaled = {q: (v or 0.0) * columns[q][1] for q, v in values.items()}
        value = scaled[kind]
        if kind == "current":
            value *= scaled["voltage"] if constant is None else constant * columns["voltage"][1]
        points.append((scaled["time"], value))
        if "trigger" in scaled:
            triggers.append((scaled["time"], scaled["trigger"] > 0.5))
        if len(points) > MOST_SAMPLES:
            raise MeterError(f"a trace of more than {MOST_SAMPLES} samples")
    steps = sorted(b[0] - a[0] for a, b in itertools.pairwise(points)) or [0.0]
    period = max(steps[len(steps) // 2], 1e-9)
    form = COUNTER if kind == "energy" else POWER
    channel = Channel("trace", "board", form, Evidence.A, relative, 0.0, period, True, f"from the column {columns[kind][0]}")
    recording = Recording.of("trace", [channel])
    recording.add([Sample(0, t, v) for t, v in points])
    return recording, triggers, skipped


def edges(states: Sequence[tuple[float, bool]]) -> list[Window]:
    """Windows in which a trigger is on; one that is on at either end of the trace is not whole and left out."""
    windows: list[Window] = []
    start: float | None = None
    for (_, before), (time, state) in itertools.pairwise(states):
        if state and not before:
            start = time
        elif before and not state and start is not None:
            windows.append((start, time))
            start = None
    return windows


def above(recording: Recording, watts: float, shortest: float) -> list[Window]:
    """Windows in which the power of the first channel stays above a threshold for at least `shortest` seconds.

    For traces without a trigger: a window ends below 80 % of the threshold, so that noise does not cut it.
    """
    series = recording.series[0]
    scale = 1 / series.channel.period if series.channel.kind == INCREMENT else 1.0
    states, on = [], False
    for time, value in zip(series.times, series.values, strict=True):
        on = value * scale > (watts * 0.8 if on else watts)
        states.append((time, on))
    return [(a, b) for a, b in edges(states) if b - a >= shortest]


# ---- MLPerf Tiny ----


def _mlperf(file: Path, relative: float) -> Trace:
    data = file.read_bytes()
    if len(data) < 5 or (len(data) - 5) % 4:
        raise InvalidArgument(f"{file}: want 5 bytes and then four a sample, found {len(data)} bytes")
    (rate,) = struct.unpack_from("<f", data, 1)
    if not (math.isfinite(rate) and 0 < rate <= 10e6):
        raise InvalidArgument(f"{file}: the rate is {rate} Hz")
    values = array("f")
    values.frombytes(data[5:])
    period = 1 / rate
    times = itertools.accumulate(itertools.repeat(period, len(values)), initial=0.0)
    channel = Channel("energy", "board", INCREMENT, Evidence.A, relative, 0.0, period, True, "microjoules a sample")
    recording = Recording.of("trace", [channel])
    recording.add([Sample(0, t, v * 1e-6) for t, v in zip(times, values, strict=False)])
    stamps = file.with_name(file.name.replace("-energy.bin", "-timestamps.json"))
    windows = _stamps(stamps) if stamps != file and stamps.is_file() else []
    return Trace(recording, windows, {"file": file.name, "format": "mlperf-tiny", "rate_hz": rate})


def _stamps(file: Path) -> list[Window]:
    """[start of the session, start, end, start, end, ...]; a start without an end is left out."""
    try:
        times = json.loads(file.read_text(encoding="utf-8"))
        numbers = [float(t) for t in times]
    except (ValueError, TypeError, RecursionError) as e:
        raise InvalidArgument(f"{file}: want a JSON array of seconds: {e}") from e
    if numbers != sorted(numbers):
        raise InvalidArgument(f"{file}: the times do not ascend")
    return list(zip(numbers[1::2], numbers[2::2], strict=False))


# ---- Joulescope ----


def _jls(file: Path, relative: float) -> Trace:
    """Current and voltage of a Joulescope; needs the package pyjls."""
    try:
        from pyjls import Reader
    except ImportError as e:
        raise MissingExtra("reading .jls needs pyjls: pip install 'frugal-edge[joulescope]'") from e
    with Reader(os.fspath(file)) as reader:
        signals = {s.name: s for s in reader.signals.values()}
        if "power" in signals:
            used = ["power"]
        elif {"current", "voltage"} <= signals.keys():
            used = ["current", "voltage"]
        else:
            raise InvalidArgument(f"{file}: has neither power nor current and voltage, but {', '.join(signals)}")
        length = min(signals[n].length for n in used)
        if length > MOST_SAMPLES:
            raise MeterError(f"{file}: {length} samples; at most {MOST_SAMPLES} are read")
        rate = float(signals[used[0]].sample_rate)
        columns = [reader.fsr(signals[n].signal_id, 0, length) for n in used]
    channel = Channel("power", "board", POWER, Evidence.A, relative, 0.0, 1 / rate, True, " x ".join(used))
    recording = Recording.of("trace", [channel])
    recording.add([Sample(0, k / rate, float(math.prod(values))) for k, values in enumerate(zip(*columns, strict=True))])
    return Trace(recording, [], {"file": file.name, "format": "jls", "rate_hz": rate})
