"""Meters of this machine, calibration of the estimation model, and reports: replay, convert."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ..errors import FrugalError
from .common import add_json, print_json, print_table
from .system import cpu_model


def add_arguments(command: argparse.ArgumentParser) -> None:
    """meters | calibrate [--meter SPEC] | replay REPORT | convert REPORT [FORMAT:]FILE"""
    actions = command.add_subparsers(metavar="ACTION", required=True, dest="action")
    meters = actions.add_parser("meters", help="what this machine can measure with, and why not with the rest")
    add_json(meters)
    calibrate = actions.add_parser("calibrate", help="fit the estimation model to this machine with a meter: class C")
    calibrate.add_argument("--meter", default="auto", metavar="SPEC", help="as of `frugal profile` (default: auto)")
    calibrate.add_argument("--out", metavar="FILE", help="where the calibration goes (default: beside the plan cache)")
    calibrate.add_argument("--seconds", type=float, default=1.0, metavar="S", help="length of a window (default: 1)")
    calibrate.add_argument("--windows", type=int, default=5, metavar="N", help="windows of each workload (default: 5)")
    add_json(calibrate)
    replay = actions.add_parser("replay", help="compute a report again from its raw data and print it: the same bytes")
    replay.add_argument("report", metavar="REPORT", help="a JSON report")
    replay.add_argument("--check", action="store_true", help="print nothing; fail when the bytes differ")
    convert = actions.add_parser("convert", help="write a report in another format")
    convert.add_argument("report", metavar="REPORT", help="a JSON report")
    convert.add_argument(
        "target",
        metavar="[FORMAT:]FILE",
        nargs="+",
        help="json, csv, html, boamps, sci, cyclonedx, card, openmetrics",
    )


def main(args: argparse.Namespace) -> None:
    """Do the action."""
    {"meters": _meters, "calibrate": _calibrate, "replay": _replay, "convert": _convert}[args.action](args)


def _meters(args: argparse.Namespace) -> None:
    from ..energy.meters import AUTO, MeterError, make

    found: list[dict[str, Any]] = []
    for name in AUTO:
        meter = make(name)
        try:
            meter.open()
        except MeterError as e:
            found.append({"meter": name, "evidence_class": "X", "channels": [], "reason": str(e)})
            continue
        channels = [c.to_dict() for c in meter.channels]
        counted = [c for c in meter.channels if c.counted]
        reason = "" if counted else f"several channels: name those to add up, such as {name}:{meter.channels[0].name}"
        found.append({"meter": name, "evidence_class": "B" if counted else "X", "channels": channels, "reason": reason})
        meter.close()
    if args.json:
        print_json({"meters": found})
        return
    rows = [
        [
            m["meter"],
            m["evidence_class"],
            ", ".join(c["name"] + ("" if c["counted"] else " (inside)") for c in m["channels"]) or m["reason"],
        ]
        for m in found
    ]
    print_table(rows, ["meter", "class", "channels, or why not"])
    print("\nexternal: lpm01a:PORT, trace:FILE (class A); --meter model estimates (class C or D)")


def _calibrate(args: argparse.Namespace) -> None:
    from ..energy.calibration import calibrate

    about = calibrate(args.meter, args.windows, args.seconds, args.out, cpu_model())
    if args.json:
        print_json(about)
        return
    print_table(
        [[f.replace("_", " "), f"{about['prices'][f]:.4g} {about['units'][f]}"] for f in about["prices"]], ["per", "price"]
    )
    print("\nleave-one-out error:")
    print_table([[name, f"{error:+.1%}"] for name, error in about["errors"].items()])
    print(f"\nwritten to {about['file']}; `--meter model` is class C on this CPU from now on")


def _replay(args: argparse.Namespace) -> None:
    from ..energy.report import load, replay

    text = replay(load(args.report))
    if not args.check:
        sys.stdout.write(text)
    elif text != Path(args.report).read_text(encoding="utf-8"):
        raise FrugalError(f"{args.report}: its figures do not follow from its raw data (or another version of frugal wrote it)")


def _convert(args: argparse.Namespace) -> None:
    from ..energy import exports
    from ..energy.report import build, load, replay

    report = load(args.report)
    replay(report)  # says what is wrong with a file that is no report
    report = build(report)
    for form, file in [exports.target(text) for text in args.target]:
        exports.write(report, form, file)
