"""From a recording and its windows to figures: gross, net, differences, each with components of uncertainty and an interval.

Everything here is a pure function of what a report keeps, in pure Python with correctly rounded sums, so that a replay gives the
same bytes.  docs/energy.md has the equations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from .evidence import Figure
from .protocol import Window
from .recording import Recording, interval
from .uncertainty import Component, combine, expand, mean, standard_error

ROOT6 = math.sqrt(6)


def analyse(recording: Recording, windows: Sequence[Window]) -> dict[str, Any]:
    """{"windows", "variants", "comparisons", "baseline"}: JSON."""
    idle = [_idle(recording, w) for w in windows if w.kind == "baseline"]
    rows = [_row(recording, i, windows) for i, w in enumerate(windows) if w.kind == "run"]
    names = list(dict.fromkeys(w.variant for w in windows if w.kind == "run"))
    variants = {name: _variant(recording, [r for r in rows if r["variant"] == name], idle) for name in names}
    comparisons = [_compare(recording, rows, names[0], other) for other in names[1:]]
    return {
        "windows": rows,
        "baseline": _baseline(idle),
        "variants": variants,
        "comparisons": comparisons,
    }


def _idle(recording: Recording, window: Window) -> dict[str, Any]:
    energy = recording.total(window.start, window.end)
    watts = None if energy.joules is None else energy.joules / window.seconds
    return {"start": window.start, "end": window.end, "watts": watts, "edge": energy.edge, "reason": energy.reason}


def _baseline(idle: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Mean power of the idle windows, or why there is none."""
    if not idle:
        return None
    watts = [w["watts"] for w in idle if w["watts"] is not None]
    reason = next((w["reason"] for w in idle if w["watts"] is None), "")
    return {"watts": mean(watts) if watts else None, "windows": len(idle), "reason": reason}


def _row(recording: Recording, index: int, windows: Sequence[Window]) -> dict[str, Any]:
    """One run window: its energy, and the power of its idle neighbours."""
    window = windows[index]
    energy = recording.total(window.start, window.end)
    before = next((w for w in reversed(windows[:index]) if w.kind == "baseline"), None)
    after = next((w for w in windows[index + 1 :] if w.kind == "baseline"), None)
    powers = [_idle(recording, w)["watts"] for w in (before, after) if w is not None]
    baseline = None if not powers or None in powers else mean(powers)
    return {
        "variant": window.variant,
        "start": window.start,
        "end": window.end,
        "runs": window.runs,
        "joules": energy.joules,
        "edge_joules": energy.edge,
        "watts": None if energy.joules is None else energy.joules / window.seconds,
        "baseline_watts": baseline,
        "channels": {s.channel.name: s.energy(window.start, window.end).joules for s in recording.series},
        "reason": energy.reason,
    }


def _variant(recording: Recording, rows: Sequence[dict[str, Any]], idle: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures of one inference of a variant."""
    gross, parts = _gross(recording, rows)
    net, net_parts = _net(recording, rows, idle)
    seconds = [(r["end"] - r["start"]) / r["runs"] for r in rows]
    return {
        "runs": sum(r["runs"] for r in rows),
        "windows": len(rows),
        "seconds_per_run": mean(seconds),
        "watts": mean([r["watts"] for r in rows]) if gross.joules is not None else None,
        "gross": gross.to_dict() | {"components": _components(parts)},
        "net": net.to_dict() | {"components": _components(net_parts)},
        "channels": _channels(recording, rows),
    }


def _components(parts: Sequence[Component]) -> list[dict[str, Any]]:
    return [{"name": c.name, "kind": c.kind, "u": c.u, "dof": c.dof if math.isfinite(c.dof) else None} for c in parts]


def _channels(recording: Recording, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean joules of an inference in each channel, the total's and the others."""
    found = []
    for series in recording.series:
        c = series.channel
        values = [r["channels"][c.name] for r in rows]
        known = all(v is not None for v in values)
        joules = mean([v / r["runs"] for v, r in zip(values, rows, strict=True)]) if known else None
        about = {"name": c.name, "scope": c.scope, "counted": c.counted, "evidence_class": str(c.evidence) if known else "X"}
        found.append(about | {"joules": joules, "note": c.note})
    return found


def _gross(recording: Recording, rows: Sequence[dict[str, Any]]) -> tuple[Figure, list[Component]]:
    source = recording.label()
    bad = [r for r in rows if r["joules"] is None]
    if bad:
        return Figure.unavailable(source, bad[0]["reason"]), []
    values = [r["joules"] / r["runs"] for r in rows]
    joules = mean(values)
    parts = [*_scatter(values, [r["edge_joules"] / r["runs"] for r in rows]), _gain(recording, joules)]
    return Figure(joules, interval(joules, parts), recording.evidence(), source, _few(rows)), parts


def _few(rows: Sequence[dict[str, Any]]) -> str:
    return "one window: the interval has no type A part" if len(rows) < 2 else ""


def _scatter(values: Sequence[float], edges: Sequence[float]) -> list[Component]:
    """Type A of the mean; what the edges leave open scatters too, so it is no second component but a lower bound of the first."""
    open_edges = math.sqrt(math.fsum((e / ROOT6) ** 2 for e in edges)) / len(edges)
    spread = standard_error(values)
    if math.isnan(spread) or spread < open_edges:
        return [Component("edges", "B", open_edges)]
    return [Component("windows", "A", spread, len(values) - 1)]


def _gain(recording: Recording, joules: float) -> Component:
    return Component.rectangular("gain", recording.gain() * joules)


def _net(recording: Recording, rows: Sequence[dict[str, Any]], idle: Sequence[dict[str, Any]]) -> tuple[Figure, list[Component]]:
    """Gross less baseline, of one inference; refused where the baseline is not below the run."""
    source = f"{recording.label()}, less the idle baseline"
    bad = [r for r in rows if r["joules"] is None] + [w for w in idle if w["watts"] is None]
    if bad:
        return Figure.unavailable(source, bad[0]["reason"]), []
    if not idle or any(r["baseline_watts"] is None for r in rows):
        return Figure.unavailable(source, "no idle baseline was measured"), []
    parts = [*_scatter(_nets(rows), [r["edge_joules"] / r["runs"] for r in rows]), *_shared(rows, idle)]
    joules = mean(_nets(rows))
    low, _ = expand(joules, parts)
    if low <= 0:
        run, base = mean([r["watts"] for r in rows]), mean([r["baseline_watts"] for r in rows])
        reason = f"refused: the idle baseline ({base:.4g} W) is not clearly below the run ({run:.4g} W)"
        return Figure.unavailable(source, reason), parts
    parts.append(_gain(recording, joules))
    return Figure(joules, interval(joules, parts), recording.evidence(), source, _few(rows)), parts


def _nets(rows: Sequence[dict[str, Any]]) -> list[float]:
    return [(r["joules"] - r["baseline_watts"] * (r["end"] - r["start"])) / r["runs"] for r in rows]


def _shared(rows: Sequence[dict[str, Any]], idle: Sequence[dict[str, Any]]) -> list[Component]:
    """The part of the baseline's scatter that the scatter of the nets does not show.

    Neighbours share an idle window, so their errors go the same way: the variance of their mean has sigma^2 / n of the
    baseline, the scatter shows half of it.  sigma from successive differences (von Neumann), which drift hardly touches.
    """
    watts = [w["watts"] for w in idle]
    seconds = mean([(r["end"] - r["start"]) / r["runs"] for r in rows])
    if len(watts) < 3:
        open_edges = math.sqrt(math.fsum((w["edge"] / (w["end"] - w["start"]) / ROOT6) ** 2 for w in idle)) / len(idle)
        return [Component("baseline", "B", seconds * open_edges)]
    variance = math.fsum((b - a) ** 2 for a, b in pairwise(watts)) / (2 * (len(watts) - 1))
    return [Component("baseline", "A", seconds * math.sqrt(variance / (2 * len(rows))), len(watts) - 1)]


# ---- comparisons ----


def _compare(recording: Recording, rows: Sequence[dict[str, Any]], first: str, other: str) -> dict[str, Any]:
    """other less first, of one inference, round by round: what both share (drift, the meter's gain in the ratio) cancels."""
    a, b = ([r for r in rows if r["variant"] == name] for name in (first, other))
    about: dict[str, Any] = {"first": first, "other": other}
    bad = [r for r in (*a, *b) if r["joules"] is None]
    if bad or len(a) != len(b) or not a:
        reason = bad[0]["reason"] if bad else "the variants have different numbers of windows"
        return about | {"difference": Figure.unavailable(recording.label(), reason).to_dict(), "ratio": None}
    differences = [y["joules"] / y["runs"] - x["joules"] / x["runs"] for x, y in zip(a, b, strict=True)]
    edges = [math.hypot(x["edge_joules"] / x["runs"], y["edge_joules"] / y["runs"]) for x, y in zip(a, b, strict=True)]
    joules = mean(differences)
    parts = [*_scatter(differences, edges), _gain(recording, joules)]
    figure = Figure(joules, expand(joules, parts), recording.evidence(), recording.label(), _few(a))
    low, high = figure.interval or (joules, joules)
    verdict = "lower" if high < 0 else "higher" if low > 0 else "not distinguishable"
    return about | {
        "difference": figure.to_dict() | {"components": _components(parts)},
        "ratio": _ratio(a, b, edges),
        "verdict": f"{other} is {verdict}" if verdict != "not distinguishable" else f"{other} and {first} are {verdict}",
    }


def _ratio(a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]], edges: Sequence[float]) -> dict[str, Any] | None:
    """other / first as a geometric mean over rounds; the gain of the meter cancels."""
    gross = [(x["joules"] / x["runs"], y["joules"] / y["runs"]) for x, y in zip(a, b, strict=True)]
    if any(x <= 0 or y <= 0 for x, y in gross):
        return None
    logs = [math.log(y / x) for x, y in gross]
    parts = _scatter(logs, [e / min(x, y) for e, (x, y) in zip(edges, gross, strict=True)])
    low, high = expand(mean(logs), parts)
    return {"value": math.exp(mean(logs)), "interval": [math.exp(low), math.exp(high)], "u_log": combine(parts)[0]}
