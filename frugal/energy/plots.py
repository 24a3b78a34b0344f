"""The report's plots: power over time, windows, comparison, operators, roofline.  Each takes the report and a width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from .evidence import joules_text
from .recording import Recording
from .svg import COLOURS, GREY, INK, LIGHT, Axes, Svg

BINS = 240
MOST_BARS = 12


def colour_of(report: dict[str, Any], name: str) -> str:
    """A variant's colour, the same in every plot."""
    names = list(report["results"]["variants"])
    return COLOURS[names.index(name) % len(COLOURS)] if name in names else GREY


def timeline(report: dict[str, Any], recording: Recording, width: float) -> str:
    """Power of the total over time, run windows shaded in the variant's colour, idle ones in grey."""
    windows = report["raw"]["windows"]
    if not recording.counted or not windows:
        return ""
    start, end = min(w["start"] for w in windows), max(w["end"] for w in windows)
    edges = [start + (end - start) * k / BINS for k in range(BINS + 1)]
    watts: list[float | None] = []
    for a, b in pairwise(edges):
        joules = recording.total(a, b).joules
        watts.append(None if joules is None else joules / (b - a))
    known = [w for w in watts if w is not None]
    if not known:
        return ""
    svg = Svg(width, 280, "Power over time")
    axes = Axes(svg, 52, 28, width - 12, 236, (0, end - start), (0, max(known) * 1.08 or 1))
    for w in windows:
        fill = GREY if w["kind"] == "baseline" else colour_of(report, w["variant"])
        x = axes.x(w["start"] - start)
        svg.rect(x, axes.top, axes.x(w["end"] - start) - x, axes.bottom - axes.top, fill, 'fill-opacity="0.12"')
    axes.frame("seconds", "watts")
    run: list[tuple[float, float]] = []
    for (a, b), w in zip(pairwise(edges), watts, strict=True):
        if w is None:  # a gap stays a gap
            svg.path(run, INK)
            run = []
        else:
            run.append((axes.x((a + b) / 2 - start), axes.y(w)))
    svg.path(run, INK)
    return str(svg)


def windows(report: dict[str, Any], width: float) -> str:
    """Joules of an inference in each window, with the mean and the 95 % interval of every variant."""
    rows = [r for r in report["results"]["windows"] if r["joules"] is not None]
    if not rows:
        return ""
    values = [r["joules"] / r["runs"] for r in rows]
    intervals = [v["gross"]["interval"] for v in report["results"]["variants"].values() if v["gross"]["interval"]]
    bounds = [*values, *(b for i in intervals for b in i)]
    low, high = min(bounds), max(bounds)
    pad = (high - low) * 0.08 or high * 0.05
    scale, unit = _unit(high)
    svg = Svg(width, 280, "Energy of each window")
    axes = Axes(svg, 62, 28, width - 12, 236, (0, len(rows) + 1), ((low - pad) * scale, (high + pad) * scale))
    for name, v in report["results"]["variants"].items():
        if v["gross"]["interval"]:
            a, b = (axes.y(x * scale) for x in v["gross"]["interval"])
            svg.rect(axes.left, b, axes.right - axes.left, a - b, colour_of(report, name), 'fill-opacity="0.1"')
    axes.frame("window, in order of time", f"{unit} an inference")
    for name, v in report["results"]["variants"].items():
        if v["gross"]["joules"] is not None:
            y = axes.y(v["gross"]["joules"] * scale)
            svg.line(axes.left, y, axes.right, y, colour_of(report, name), 1.5, 'stroke-dasharray="5 3"')
    for k, (row, value) in enumerate(zip(rows, values, strict=True), 1):
        svg.dot(axes.x(k), axes.y(value * scale), 4, colour_of(report, row["variant"]), f"{row['variant']}: {joules_text(value)}")
    return str(svg)


def _unit(joules: float) -> tuple[float, str]:
    for factor, unit in ((1.0, "J"), (1e3, "mJ"), (1e6, "µJ")):
        if joules * factor >= 1:
            return factor, unit
    return 1e9, "nJ"


def comparison(report: dict[str, Any], width: float) -> str:
    """Gross and net of every variant as points with their intervals, from zero on."""
    rows = []
    for name, v in report["results"]["variants"].items():
        for key in ("gross", "net"):
            if v[key]["joules"] is not None:
                rows.append((f"{name}, {key}", v[key], colour_of(report, name), key == "net"))
    if len(rows) < 2:
        return ""
    highest = max((r[1]["interval"] or [0, r[1]["joules"]])[1] for r in rows)
    scale, unit = _unit(highest)
    svg = Svg(width, 66 + 34 * len(rows), "Energy of an inference, with intervals")
    axes = Axes(svg, 12, 20, width - 12, 24 + 34 * len(rows), (0, highest * scale * 1.05), (0, 1))
    for k, (label, figure, colour, hollow) in enumerate(rows):
        y = axes.top + 34 * k + 24
        svg.text(axes.left, y - 11, label, colour=INK)
        if figure["interval"]:
            a, b = (axes.x(x * scale) for x in figure["interval"])
            svg.line(a, y, b, y, colour, 3)
            for x in (a, b):
                svg.line(x, y - 4, x, y + 4, colour, 1.5)
        svg.dot(axes.x(figure["joules"] * scale), y, 5, "#ffffff" if hollow else colour)
        if hollow:
            svg.parts.append(svg.parts.pop().replace("<circle", f'<circle stroke="{colour}" stroke-width="2"'))
    _x_axis(svg, axes, f"{unit} an inference")
    return str(svg)


def _x_axis(svg: Svg, axes: Axes, label: str) -> None:
    from .svg import short, ticks

    svg.line(axes.left, axes.bottom, axes.right, axes.bottom)
    for value in ticks(*axes.x_range, max(3, int((axes.right - axes.left) / 90))):
        svg.line(axes.x(value), axes.bottom, axes.x(value), axes.bottom + 4)
        svg.text(min(axes.x(value), axes.right - 8), axes.bottom + 17, short(value), "middle")
    svg.text((axes.left + axes.right) / 2, axes.bottom + 34, label, "middle")


def operators(about: dict[str, Any], width: float, colour: str) -> str:
    """Bars of the operators' energy, or of their time where the energy is unavailable; the rest in one bar."""
    rows = about["by_operator"]
    by = "joules" if rows and rows[0]["joules"] is not None else "nanoseconds"
    rows = sorted(rows, key=lambda r: -r[by])
    shown, rest = rows[:MOST_BARS], rows[MOST_BARS:]
    bars = [(f"{r['op']} ({r['kind']}) × {r['steps']}", r[by]) for r in shown]
    if rest:
        bars.append((f"{len(rest)} others", math.fsum(r[by] for r in rest)))
    whole = math.fsum(value for _, value in bars) or 1.0
    largest = max((value for _, value in bars), default=0) or 1.0
    svg = Svg(width, 12 + 36 * len(bars), f"{'Energy' if by == 'joules' else 'Time'} by operator")
    for k, (label, value) in enumerate(bars):
        y = 36 * k + 8
        amount = joules_text(value) if by == "joules" else f"{value / 1e6:.4g} ms"
        svg.text(0, y + 9, label, colour=INK)
        svg.text(width, y + 9, f"{amount}, {value / whole:.1%}", "end")
        svg.rect(0, y + 14, width, 9, LIGHT, 'rx="2"')
        svg.rect(0, y + 14, width * value / largest, 9, colour, 'rx="2"')
    return str(svg)


def roofline(about: dict[str, Any], width: float) -> str:
    """Operations a byte and a second of every step, under what the machine can do; area: time."""
    points = about["points"]
    roofs = {k: v for k, v in about["peaks"].items() if k != "read" and v > 0}
    read = about["peaks"].get("read", 0)
    if not points or not roofs or read <= 0:
        return ""
    ridge = max(roofs.values()) / read
    xs, ys = [p["intensity"] for p in points], [p["gops"] for p in points]
    x_range = (min(*xs, ridge / 10) / 1.5, max(*xs, ridge * 10) * 1.5)
    y_range = (min(ys) / 2, max(*ys, *roofs.values()) * 3)
    svg = Svg(width, 340, "Roofline")
    axes = Axes(svg, 58, 28, width - 12, 296, x_range, y_range, log=True)
    axes.frame("operations a byte of operands", "10⁹ operations a second")
    for k, (kind, peak) in enumerate(sorted(roofs.items())):
        _roof(svg, axes, kind, peak, read, COLOURS[k])
    longest = max(p["nanoseconds"] for p in points)
    kinds = sorted(roofs)
    for p in sorted(points, key=lambda p: -p["nanoseconds"]):
        colour = COLOURS[kinds.index(p["kind"])] if p["kind"] in kinds else GREY
        radius = 2.5 + 9 * math.sqrt(p["nanoseconds"] / longest)
        label = f"step {p['number']} {p['op']}: {p['intensity']:.3g} op/byte, {p['gops']:.3g} Gop/s"
        svg.dot(axes.x(p["intensity"]), axes.y(p["gops"]), radius, colour, label, 0.45)
    return str(svg)


def _roof(svg: Svg, axes: Axes, kind: str, peak: float, read: float, colour: str) -> None:
    """The slope of memory up to the ridge, then the flat peak."""
    low, high = axes.x_range
    ridge = min(max(peak / read, low), high)
    start = max(low, axes.y_range[0] / read)
    points: Sequence[tuple[float, float]] = [
        (start, start * read),
        (ridge, min(peak, ridge * read)),
        (high, min(peak, high * read)),
    ]
    svg.path([(axes.x(x), axes.y(y)) for x, y in points], colour)
    svg.text(axes.right - 4, axes.y(peak) - 5, f"{kind}: {peak:.0f} Gop/s", "end", 11, colour)
