"""The report: one JSON document that holds what was measured and everything that follows from it.

`build` takes the inputs (keys of INPUTS) and adds what is derived from them; `replay` does so again from a report, and gives the
same bytes.  report.schema.json beside this file describes the document; docs/energy.md explains it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument, NoSuchFile
from . import carbon, work
from .analysis import analyse
from .conditions import warnings
from .estimate import FEATURES, Model
from .evidence import Evidence, Figure
from .meters.base import Channel
from .protocol import Window
from .recording import Recording, Series

SCHEMA = "frugal-energy-report"
VERSION = "1.0"
INPUTS = (
    "schema", "version", "id", "created", "tool", "machine", "meter", "protocol", "conditions", "models", "raw", "model",
    "options",
)  # fmt: skip
MOST_VALUES = 100_000_000  # of one series: a report must not ask for all memory


# ---- raw data ----


def pack(values: Sequence[float]) -> dict[str, Any]:
    """float64 numbers as text: little-endian, zlib, base64, with the SHA-256 of their bytes."""
    data = struct.pack(f"<{len(values)}d", *values)
    return {
        "dtype": "float64-le",
        "encoding": "zlib+base64",
        "count": len(values),
        "sha256": hashlib.sha256(data).hexdigest(),
        "data": base64.b64encode(zlib.compress(data, 9)).decode("ascii"),
    }


def unpack(packed: dict[str, Any]) -> list[float]:
    """What pack took.  Raises InvalidArgument when it is damaged."""
    try:
        count = int(packed["count"])
        if not 0 <= count <= MOST_VALUES:
            raise ValueError(f"{count} values")
        inflater = zlib.decompressobj()
        data = inflater.decompress(base64.b64decode(packed["data"], validate=True), count * 8 + 1)
        if len(data) != count * 8 or hashlib.sha256(data).hexdigest() != packed["sha256"]:
            raise ValueError("the SHA-256 differs")
    except (KeyError, TypeError, ValueError, zlib.error) as e:
        raise InvalidArgument(f"the report's raw data is damaged: {e}") from e
    return list(struct.unpack(f"<{count}d", data))


def pack_recording(recording: Recording | None, windows: Sequence[Window], reason: str) -> dict[str, Any]:
    """The key `raw`: channels with their samples, windows, and why there is no recording."""
    series = recording.series if recording else []
    return {
        "source": recording.source if recording else "none",
        "reason": reason,
        "channels": [
            s.channel.to_dict()
            | {
                "times": pack(s.times),
                "values": pack(s.values),
                "faults": [{"time": t, "reason": why, "lost": lost} for t, why, lost in s.faults],
            }
            for s in series
        ],
        "windows": [
            {
                "kind": w.kind,
                "variant": w.variant,
                "start": w.start,
                "end": w.end,
                "runs": w.runs,
                "conditions": w.conditions,
            }
            for w in windows
        ],
    }


def unpack_recording(raw: dict[str, Any]) -> tuple[Recording, list[Window]]:
    """What pack_recording took.  Raises InvalidArgument."""
    try:
        series = []
        for channel in raw["channels"]:
            fields = {f: channel[f] for f in Channel.__dataclass_fields__} | {"evidence": Evidence(channel["evidence"])}
            faults = [(f["time"], f["reason"], f["lost"]) for f in channel["faults"]]
            one = Series(Channel(**fields), unpack(channel["times"]), unpack(channel["values"]), faults)
            if len(one.times) != len(one.values):
                raise InvalidArgument("the report's raw data is damaged: a channel has other numbers of times and values")
            series.append(one)
        windows = [Window(w["kind"], w["variant"], w["start"], w["end"], w["runs"], w["conditions"]) for w in raw["windows"]]
        return Recording(raw["source"], series, raw["reason"]), windows
    except (KeyError, TypeError, ValueError) as e:
        raise InvalidArgument(f"not a report of `frugal profile`: {type(e).__name__} {e}") from e


# ---- the document ----


def build(inputs: dict[str, Any]) -> dict[str, Any]:
    """The whole report from its inputs (json of plain values)."""
    missing = [k for k in INPUTS if k not in inputs]
    if missing:
        raise InvalidArgument(f"a report needs {', '.join(missing)}")
    if inputs["schema"] != SCHEMA or str(inputs["version"]).partition(".")[0] != VERSION.partition(".")[0]:
        raise InvalidArgument(f"this is a {inputs['schema']} {inputs['version']}; this frugal reads {SCHEMA} {VERSION}")
    report = {k: inputs[k] for k in INPUTS}
    recording, windows = unpack_recording(report["raw"])
    results = analyse(recording, windows)
    if report["model"]:
        _estimate(report, results)
    for name, variant in results["variants"].items():
        if "estimate" in report["models"][name]:  # a board that is not here: its window is none, and has no time
            variant["seconds_per_run"] = None
    report["results"] = results
    report["operators"] = {name: _operators(report, name) for name in report["models"]}
    report["carbon"] = _carbon(report)
    report["warnings"] = _warnings(report)
    return report


def _estimate(report: dict[str, Any], results: dict[str, Any]) -> None:
    """`--meter model`: put the estimates where a meter's figures would be."""
    model = _model(report)
    for name, variant in results["variants"].items():
        about = report["models"][name]
        if about.get("work"):
            figure = model.estimate(about["work"])
        else:
            given = about["estimate"]
            figure = Figure(given["joules"], tuple(given["interval"]), Evidence(given["evidence_class"]), given["source"])
        net = Figure.unavailable(figure.source, "an estimate has no baseline")
        variant["gross"] = figure.to_dict() | {"components": []}
        variant["net"] = net.to_dict() | {"components": []}
    names = list(results["variants"])
    results["comparisons"] = [_guess(results, names[0], other, model) for other in names[1:]]


def _guess(results: dict[str, Any], first: str, other: str, model: Model) -> dict[str, Any]:
    a, b = (results["variants"][n]["gross"]["joules"] for n in (first, other))
    return {
        "first": first,
        "other": other,
        "difference": Figure(b - a, None, model.evidence, model.source).to_dict() | {"components": []},
        "ratio": {"value": b / a if a else None, "interval": None, "u_log": None},
        "verdict": "not ranked: both figures come from one model, which prices work and sees nothing of the machine",
    }


def _model(report: dict[str, Any]) -> Model:
    m = report["model"]
    return Model({f: m["prices"][f] for f in FEATURES}, Evidence(m["evidence"]), m["source"], m["cpu"], m["errors"])


def _operators(report: dict[str, Any], name: str) -> dict[str, Any] | None:
    """Energy of each step and operator of a variant, and its roofline."""
    about = report["models"][name]
    rows = about.get("steps")
    if not rows:
        return None
    gross = report["results"]["variants"].get(name, {}).get("gross")
    method = report["options"]["operators"]
    if method == "repeated" and all(r.get("repeated_joules") is None for r in rows):
        method = "time"  # nothing could measure a step alone
    joules = gross["joules"] if gross else None
    if joules is not None:
        model = _model(report) if report["model"] else Model(report["options"]["prices"])
        shares = work.apportion(joules, rows, method, model, report["machine"]["cache_bytes"])
        rows = [r | {"joules": j} for r, j in zip(rows, shares, strict=True)]
    return {
        "method": method,
        "evidence_class": gross["evidence_class"] if gross else "X",
        "steps": rows,
        "by_operator": work.by_operator(rows),
        "roofline": work.roofline(rows, report["machine"]["peaks"]) if report["machine"].get("peaks") else None,
    }


def _carbon(report: dict[str, Any]) -> dict[str, Any] | None:
    """Grams for one inference, per variant; None when no country was given."""
    country = report["options"]["country"]
    if not country:
        return None
    grid = carbon.intensity(country)
    variants = {}
    for name, variant in report["results"]["variants"].items():
        interval = variant["gross"]["interval"]
        if interval is None:
            variants[name] = {"grams": None, "sci": None, "reason": variant["gross"]["reason"] or "the energy has no interval"}
            continue
        embodied = report["options"]["embodied"] if variant["seconds_per_run"] is not None else None
        share = carbon.sci(interval, variant["seconds_per_run"], grid, embodied) if embodied else None
        variants[name] = {
            "grams": carbon.grams(interval, grid),
            "sci": share,
            "reason": "" if share else "no embodied emissions of the machine were given",
        }
    return {"grid": grid, "variants": variants}


def _warnings(report: dict[str, Any]) -> list[str]:
    found = warnings(report["conditions"]) if report["conditions"] else []
    for name, about in report["protocol"]["warmup"].items():
        if not about["steady"]:
            found.append(f"{name} was not steady after {about['seconds']:.1f} s of warm-up")
    for name, variant in report["results"]["variants"].items():
        if variant["windows"] < 5 and variant["gross"]["evidence_class"] in "ABC":
            found.append(f"{name}: only {variant['windows']} windows")
    if report["model"] and len(report["results"]["variants"]) > 1:
        found.append("estimates of different models are not ranked: the estimation model prices work, it does not measure")
    return found


def dumps(report: dict[str, Any]) -> str:
    """The bytes of a report: sorted keys, one indentation, no NaN."""
    return json.dumps(report, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A report's document.  Raises NoSuchFile, InvalidArgument."""
    file = Path(path)
    if not file.is_file():
        raise NoSuchFile(f"{file}: no such file")
    try:
        report = json.loads(file.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as e:
        raise InvalidArgument(f"{file}: not a report: {e}") from e
    if not isinstance(report, dict):
        raise InvalidArgument(f"{file}: not a report: not a JSON object")
    return report


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def replay(report: dict[str, Any]) -> str:
    """The report computed again from its own raw data.  Raises InvalidArgument."""
    try:
        return dumps(build(report))
    except (KeyError, TypeError, AttributeError, ZeroDivisionError, OverflowError) as e:
        raise InvalidArgument(f"not a report of `frugal profile`: {type(e).__name__} {e}") from e


def plain(value: Any) -> Any:
    """JSON values only: paths become text, numbers that are not finite null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if value is None or isinstance(value, str | int | bool):
        return value
    tolist = getattr(value, "tolist", None)
    return plain(tolist()) if tolist else str(value)
