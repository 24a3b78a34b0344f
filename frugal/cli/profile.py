"""Measure the energy of an inference, with an evidence class and an interval, beside other models if you like."""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..cache import model_bytes
from ..errors import InvalidArgument
from .bench import DEFAULT_LENGTH, id_bounds, make_feeds
from .common import (
    Usage,
    add_activations,
    add_inputs,
    add_json,
    add_model,
    add_threads,
    model_path,
    needs,
    open_session,
    pairs,
    print_json,
    print_table,
    read_arrays,
)
from .system import cpu_model, memory

if TYPE_CHECKING:  # the commands are all imported at every start: what this one needs, when it runs
    from ..energy.evidence import Figure
    from ..energy.protocol import Measured
    from ..energy.recording import Recorder

QUICK = (5, 0.2)  # windows and their seconds where no meter has to be waited for


def add_arguments(command: argparse.ArgumentParser) -> None:
    """MODEL [--meter SPEC] [--against MODEL] [--windows N] [--seconds S] [--report [FORMAT:]FILE] ..."""
    add_model(command)
    command.add_argument(
        "--meter",
        default="auto",
        metavar="SPEC",
        help="auto, powercap, perf, hwmon[:LABEL+LABEL], jetson, pmic, battery, lpm01a:PORT, trace:FILE, or model (an estimate)",
    )
    command.add_argument("--against", action="append", default=[], metavar="MODEL", help="compare with this model, in turns")
    add_threads(command)
    command.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME=AxB",
        help=f"an input's shape (default: 1 for a batch, {DEFAULT_LENGTH})",
    )
    add_inputs(command)
    add_activations(command)
    _add_protocol(command)
    _add_trace(command)
    _add_outcome(command)
    add_json(command)


def _add_protocol(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("protocol")
    group.add_argument("--windows", type=int, default=None, metavar="N", help="windows of each model (default: 10)")
    group.add_argument("--seconds", type=float, default=None, metavar="S", help="length of a window at least (default: 1)")
    group.add_argument("--warmup", type=float, default=20.0, metavar="S", help="warm up at most this long (default: 20)")
    group.add_argument("--no-baseline", action="store_true", help="no idle windows: then there is no net figure")
    group.add_argument(
        "--operators", choices=("time", "counters", "repeated", "none"), default="time", help="how energy is apportioned"
    )
    group.add_argument(
        "--quality", action="append", default=[], metavar="[MODEL:]NAME=VALUE", help="a quality metric, kept beside the joules"
    )


def _add_trace(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("traces (--meter trace:FILE)")
    group.add_argument("--columns", default="", metavar="LIST", help="such as time=t:ms,current=I:uA,voltage=3.0,trigger=D0")
    group.add_argument("--inferences", type=int, default=1, metavar="N", help="inferences in each window of the trace")
    group.add_argument("--window", action="append", default=[], metavar="START:END", help="a window, in seconds")
    group.add_argument("--threshold", type=float, metavar="WATTS", help="windows are where the power is above")
    group.add_argument("--meter-accuracy", type=float, default=2.0, metavar="PERCENT", help="of the recording meter (default: 2)")


def _add_outcome(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("outcome")
    group.add_argument("--report", action="append", default=[], metavar="[FORMAT:]FILE", help="write a report; may be repeated")
    group.add_argument("--max-joules", type=float, metavar="J", help="fail unless an inference takes at most J (class A, B, C)")
    group.add_argument("--country", default="", metavar="CODE", help="for carbon: ISO code, or g/kWh as a number or range")
    group.add_argument("--embodied", default="", metavar="KG[,YEARS[,SHARE]]", help="embodied kg CO2e of the machine, for SCI")
    group.add_argument("--calibration", metavar="FILE", help="of `frugal energy calibrate`, for --meter model")


def main(args: argparse.Namespace) -> None:
    """Measure, print, write reports, check the limit."""
    from ..energy import exports
    from ..energy.measuring import check_budget
    from ..energy.report import build, plain

    _check(args)
    targets = [exports.target(text) for text in args.report]
    inputs = _inputs(args)
    report = build(plain(inputs))
    for form, file in targets:
        exports.write(report, form, file)
    about = summary(report)
    if args.json:
        print_json(about)
    else:
        _print(about, report)
    if args.max_joules is not None:
        for name, variant in report["results"]["variants"].items():
            check_budget(_figure(variant["gross"]), args.max_joules, [name])


def _check(args: argparse.Namespace) -> None:
    if args.windows is not None and not 1 <= args.windows <= 10_000:
        raise Usage(f"--windows must be 1 to 10000, got {args.windows}")
    if args.seconds is not None and not 0 < args.seconds <= 3600:
        raise Usage(f"--seconds must be above 0 and at most 3600, got {args.seconds}")
    if args.inferences < 1:
        raise Usage(f"--inferences must be 1 or more, got {args.inferences}")
    if args.embodied and not args.country:
        raise Usage("--embodied needs --country")
    if not 0 <= args.meter_accuracy < 100:
        raise Usage(f"--meter-accuracy is a percentage, got {args.meter_accuracy}")
    if args.against and args.meter.startswith("trace:"):
        raise Usage("--against cannot be used with a recorded trace")


def _figure(about: dict[str, Any]) -> Figure:
    from ..energy.evidence import Evidence, Figure

    interval = about["interval"]
    pair = None if interval is None else (interval[0], interval[1])
    return Figure(about["joules"], pair, Evidence(about["evidence_class"]), about["source"], about["reason"])


def _inputs(args: argparse.Namespace) -> dict[str, Any]:
    """The inputs of the report, by whichever way they are had."""
    from ..energy import carbon
    from ..energy.estimate import DEFAULT
    from ..energy.report import SCHEMA, VERSION

    options = {
        "country": args.country,
        "embodied": carbon.parse_embodied(args.embodied) if args.embodied else None,
        "operators": "time" if args.operators == "none" else args.operators,
        "prices": DEFAULT,
    }
    if args.country:
        carbon.intensity(args.country)  # an unknown country is said before anything is measured
    base = {
        "schema": SCHEMA,
        "version": VERSION,
        "id": str(uuid.uuid4()),
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "tool": {"name": "frugal", "version": __version__, "python": platform.python_version()},
        "options": options,
        "model": None,
        "conditions": None,
    }
    if _is_bundle(args.model):
        return base | _board(args)
    if args.meter.startswith("trace:"):
        return base | _trace(args)
    return base | _live(args)


def _is_bundle(text: str) -> bool:
    """Whether this is a board bundle of `frugal deploy`."""
    path = Path(text)
    return path.name == "manifest.json" or (path.is_dir() and (path / "manifest.json").is_file())


# ---- on this machine ----


def _live(args: argparse.Namespace) -> dict[str, Any]:
    from ..energy import conditions, estimate, work
    from ..energy.report import pack_recording

    paths = [model_path(text) for text in (args.model, *args.against)]
    names = _names(paths)
    sessions = {}
    with needs("onnx", "reading .onnx"):
        for name, path in zip(names, paths, strict=True):
            sessions[name] = open_session(path, args.threads, args.activations)
    given = read_arrays(args.input)
    feeds = {n: make_feeds(s.get_inputs(), args.shape, given, id_bounds(s.plan)) for n, s in sessions.items()}
    runs: dict[str, Callable[[], Any]] = {n: (lambda s=s, f=feeds[n]: s.run(None, f)) for n, s in sessions.items()}  # type: ignore[misc]
    machine = _machine(args.threads)
    model = None
    if args.meter == "model":
        model = estimate.load(args.calibration, machine["cpu"])
    before = conditions.state()
    steps = {} if args.operators == "none" and not model else {n: work.steps(s, feeds[n]) for n, s in sessions.items()}
    measured, meter = _measured(args, runs, lambda recorder: _repeat(args, sessions, feeds, steps, recorder))
    models = {}
    for (name, session), path in zip(sessions.items(), paths, strict=True):
        models[name] = _about_model(path, session, feeds[name], _quality(args.quality, name, names))
        if steps:
            models[name] |= _work(steps[name], measured, name, machine)
    return {
        "machine": machine,
        "meter": meter,
        "protocol": {"settings": measured.settings.to_dict(), "warmup": measured.warmup},
        "conditions": conditions.between(before, conditions.state()),
        "models": models,
        "raw": pack_recording(measured.recording, measured.windows, measured.reason),
        "model": model.to_dict() if model else None,
    }


def _names(paths: list[Path]) -> list[str]:
    """Short names that differ: the file's, or its folder's for model.onnx."""
    names = [p.parent.name if p.stem == "model" and p.parent.name else p.stem for p in paths]
    return [n if names.count(n) == 1 else f"{n}#{i + 1}" for i, n in enumerate(names)]


def _quality(texts: list[str], name: str, names: list[str]) -> dict[str, str]:
    """The metrics of one model; without MODEL: they are the first one's."""
    found = {}
    for key, value in pairs(texts, "--quality").items():
        owner, colon, metric = key.rpartition(":")
        if colon and owner not in names:
            raise Usage(f"--quality: there is no model {owner!r}; there are {', '.join(names)}")
        if (owner if colon else names[0]) == name:
            found[metric] = value
    return found


def _repeat(
    args: argparse.Namespace, sessions: dict[str, Any], feeds: dict[str, Any], steps: dict[str, Any], recorder: Recorder
) -> None:
    """--operators repeated: measure the steps alone, when the models have been measured."""
    from ..energy.protocol import Settings
    from ..energy.work import repeat_steps

    if args.operators == "repeated":
        settings = Settings(max(3, (args.windows or 10) // 2), args.seconds or 1.0, False, min(args.warmup, 2.0))
        for name, session in sessions.items():
            repeat_steps(session, feeds[name], steps[name], recorder, settings)


def _measured(
    args: argparse.Namespace, runs: dict[str, Callable[[], Any]], afterwards: Callable[[Recorder], None]
) -> tuple[Measured, dict[str, Any]]:
    """Run the protocol with the meter, or without one and with the reason; afterwards: more work for an open meter."""
    from ..energy.meters import MeterError, find
    from ..energy.protocol import Settings, measure
    from ..energy.recording import NoRecorder, Recorder

    reason = "--meter model: the figure is an estimate"
    if args.meter != "model":
        try:
            meter = find(args.meter)
            settings = Settings(args.windows or 10, args.seconds or 1.0, not args.no_baseline, args.warmup)
            with Recorder(meter) as recorder:
                measured = measure(runs, recorder, settings)
                edges = [t for w in measured.windows for t in (w.start, w.end)]
                measured.recording = recorder.recording.between(min(edges), max(edges))
                afterwards(recorder)
                about = {"name": meter.name, "title": meter.title, "about": meter.about()}
            return measured, about
        except MeterError as e:
            reason = str(e)
    settings = Settings(args.windows or QUICK[0], args.seconds or QUICK[1], False, args.warmup)
    measured = measure(runs, NoRecorder(reason, time.monotonic), settings)
    measured.reason = reason
    name, title = ("model", "estimation model") if args.meter == "model" else ("none", "none")
    return measured, {"name": name, "title": title, "about": {"asked": args.meter}}


def _machine(threads: int) -> dict[str, Any]:
    import frugal

    from ..bindings import library
    from ..energy.work import last_level_cache, peaks

    return {
        "cpu": cpu_model(),
        "system": f"{platform.system()} {platform.machine()}",
        "isa": frugal.isa(),
        "threads": threads or library.cpu_count(),
        "memory_bytes": memory()[0],
        "cache_bytes": last_level_cache(),
        "peaks": peaks(threads),
    }


def _about_model(path: Path, session: Any, feeds: dict[str, Any], quality: dict[str, str]) -> dict[str, Any]:
    return {
        "file": path.name,
        "bytes": model_bytes(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "plan_bytes": len(session.plan),
        "shapes": {name: list(a.shape) for name, a in feeds.items()},
        "quality": quality,
    }


def _work(rows: list[dict[str, Any]], measured: Measured, name: str, machine: dict[str, Any]) -> dict[str, Any]:
    from ..energy import work
    from ..energy.uncertainty import mean

    seconds = mean([w.seconds / w.runs for w in measured.windows if w.kind == "run" and w.variant == name])
    return {"steps": rows, "work": work.totals(rows, seconds, machine["cache_bytes"])}


# ---- recorded elsewhere ----


def _trace(args: argparse.Namespace) -> dict[str, Any]:
    from ..energy.meters.trace import above, load
    from ..energy.protocol import Settings, Window
    from ..energy.report import pack_recording

    file = args.meter.partition(":")[2]
    trace = load(file, args.columns, args.meter_accuracy / 100)
    spans = [_span(text) for text in args.window] or trace.windows
    if not spans and args.threshold:
        spans = above(trace.recording, args.threshold, 20 * trace.recording.series[0].channel.period)
    if not spans:
        raise InvalidArgument(f"{file} tells no windows: give --window START:END, --threshold WATTS, or a trigger in --columns")
    path = Path(args.model)
    name = path.stem or "model"
    windows = _with_gaps([Window("run", name, a, b, args.inferences) for a, b in spans], not args.no_baseline)
    idle = "what the board did between the windows"
    settings = Settings(len(spans), min(b - a for a, b in spans), not args.no_baseline, 0.0, idle)
    return {
        "machine": {"cpu": "as the trace's board", "system": "", "isa": "", "threads": 1, "memory_bytes": None, "cache_bytes": 0},
        "meter": {"name": "trace", "title": f"trace {os.path.basename(file)}", "about": trace.about | {"sha256": _sha256(file)}},
        "protocol": {"settings": settings.to_dict(), "warmup": {}},
        "models": {name: {"file": path.name, "quality": pairs(args.quality, "--quality")}},
        "raw": pack_recording(trace.recording, windows, ""),
    }


def _sha256(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def _span(text: str) -> tuple[float, float]:
    start, colon, end = text.partition(":")
    try:
        span = float(start), float(end)
    except ValueError as e:
        raise Usage(f"--window wants START:END in seconds, got {text!r}") from e
    if not colon or not span[0] < span[1]:
        raise Usage(f"--window wants START:END with START below END, got {text!r}")
    return span


def _with_gaps(windows: list[Any], baseline: bool) -> list[Any]:
    """Idle windows between those of a trace: the gap without a twentieth at either side."""
    from ..energy.protocol import Window

    ordered = sorted(windows, key=lambda w: w.start)
    found: list[Any] = []
    for window in ordered:
        if baseline and found:
            gap = window.start - found[-1].end
            if gap > 0:
                found.append(Window("baseline", "", found[-1].end + gap / 20, window.start - gap / 20))
        found.append(window)
    return found


# ---- a board bundle ----


def _board(args: argparse.Namespace) -> dict[str, Any]:
    """Class D from the instructions that the bundle's emulator counted."""
    from ..energy.estimate import DEFAULT, SOURCE_D, estimate_board
    from ..energy.protocol import Settings, Window
    from ..energy.report import pack_recording

    if args.meter not in ("auto", "model"):
        raise Usage("a board bundle is estimated (--meter model), or measured elsewhere and read with --meter trace:FILE")
    name = Path(args.model).resolve().name if Path(args.model).is_dir() else Path(args.model).resolve().parent.name
    reason = "the board is not here; --meter model estimates from its instructions"
    model, estimate = None, None
    if args.meter == "model":
        figure, about = estimate_board(args.model)
        estimate = figure.to_dict() | about
        model = {"prices": DEFAULT, "evidence": "D", "source": SOURCE_D, "cpu": "", "errors": None}
    return {
        "machine": {"cpu": "a board", "system": "", "isa": "", "threads": 1, "memory_bytes": None, "cache_bytes": 0},
        "meter": {"name": "model" if model else "none", "title": reason, "about": {}},
        "protocol": {"settings": Settings(1, 1.0, False).to_dict(), "warmup": {}},
        "models": {name: {"file": "manifest.json", "quality": {}, "estimate": estimate}},
        "raw": pack_recording(None, [Window("run", name, 0.0, 1.0, 1)], reason),
        "model": model,
    }


# ---- printing ----


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """What --json prints: the figures of an inference, without raw data."""
    variants = {}
    for name, v in report["results"]["variants"].items():
        carbon = report["carbon"]["variants"][name] if report["carbon"] else None
        variants[name] = {
            "gross_joules": v["gross"]["joules"],
            "net_joules": v["net"]["joules"],
            "interval": v["gross"]["interval"],
            "evidence_class": v["gross"]["evidence_class"],
            "source": v["gross"]["source"],
            "reason": v["gross"]["reason"],
            "net_interval": v["net"]["interval"],
            "net_reason": v["net"]["reason"],
            "seconds": v["seconds_per_run"],
            "watts": v["watts"],
            "windows": v["windows"],
            "runs": v["runs"],
            "components": v["gross"]["components"],
            "channels": v["channels"],
            "quality": report["models"].get(name, {}).get("quality", {}),
            "grams_co2e": carbon["grams"] if carbon else None,
        }
    first = next(iter(variants))
    operators = report["operators"][first]
    return {
        "model": first,
        **variants[first],
        "meter": report["meter"]["name"],
        "variants": variants,
        "comparisons": report["results"]["comparisons"],
        "baseline": report["results"]["baseline"],
        "operators": operators["by_operator"] if operators else None,
        "conditions": report["conditions"],
        "machine": report["machine"],
        "warnings": report["warnings"],
    }


def _print(about: dict[str, Any], report: dict[str, Any]) -> None:
    from ..energy.evidence import joules_text

    machine = report["machine"]
    print(f"{machine['cpu']}, {machine['isa']}, {machine['threads']} threads; meter: {report['meter']['name']}\n")
    rows = []
    for name, v in about["variants"].items():
        rows.append([name, *_cells(v, "gross_joules", "interval", v["evidence_class"]), _milliseconds(v), v["source"]])
        net = "X" if v["net_joules"] is None else v["evidence_class"]
        why = "" if v["net_reason"] == v["reason"] else v["net_reason"]
        rows.append(["  net", *_cells(v, "net_joules", "net_interval", net), "", why])
    print_table(rows, ["one inference", "class", "energy", "95 % interval", "ms", "source"])
    for v in about["variants"].values():
        if v["reason"]:
            print(f"\n{v['evidence_class']}: {v['reason']}")
            break
    for c in about["comparisons"]:
        d = c["difference"]
        if d["joules"] is not None:
            ratio = f", {c['ratio']['value']:.3f} x" if c["ratio"] and c["ratio"]["value"] is not None else ""
            between = f" [{joules_text(d['interval'][0])}, {joules_text(d['interval'][1])}]" if d["interval"] else ""
            print(f"\n{c['other']} less {c['first']}: {joules_text(d['joules'])}{between}{ratio}; {c['verdict']}")
    if about["operators"]:
        print()
        total = sum(r["nanoseconds"] for r in about["operators"]) or 1
        table = [
            [
                r["op"],
                r["kind"],
                r["steps"],
                f"{r['nanoseconds'] / 1e6:.4f}",
                f"{r['nanoseconds'] / total:.1%}",
                "-" if r["joules"] is None else joules_text(r["joules"]),
            ]
            for r in about["operators"][:12]
        ]
        print_table(table, ["operator", "kind", "steps", "ms", "time", "energy"])
    if report["carbon"]:
        grid = report["carbon"]["grid"]
        low, high = grid["range_g_per_kwh"]
        print(f"\ncarbon at {low:g} to {high:g} g CO2e/kWh ({grid['name']}):")
        for name, c in report["carbon"]["variants"].items():
            grams = c["grams"]
            print(f"  {name}: " + (f"{grams[0]:.3g} to {grams[1]:.3g} g" if grams else "X"))
    for text in about["warnings"]:
        print(f"warning: {text}")


def _milliseconds(v: dict[str, Any]) -> str:
    return "-" if v["seconds"] is None else f"{v['seconds'] * 1e3:.3f}"


def _cells(v: dict[str, Any], joules: str, interval: str, evidence: str) -> list[str]:
    from ..energy.evidence import joules_text

    value, between = v[joules], v[interval]
    if value is None:
        return ["X", "-", "-"]
    span = f"{joules_text(between[0])} to {joules_text(between[1])}" if between else "-"
    return [evidence, joules_text(value), span]
