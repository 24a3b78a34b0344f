"""The report as one HTML page: no script, no network, plots as inline SVG, readable at 390 pixels and on paper."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from . import plots
from .evidence import Evidence, joules_text
from .recording import Recording
from .report import unpack_recording

WIDE, NARROW = 760.0, 350.0


def page(report: dict[str, Any]) -> str:
    """The whole page."""
    recording, _ = unpack_recording(report["raw"])
    names = " and ".join(report["results"]["variants"])
    sections = [
        _head(report, names),
        _comparison(report),
        _timeline(report, recording),
        _windows(report),
        _operators(report),
        _uncertainty(report),
        _carbon(report),
        _conditions(report),
        _sources(report),
    ]
    title = escape(f"Energy of {names}")
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f"<style>{style}</style>\n</head>\n<body>\n<main>\n" + "\n".join(filter(None, sections)) + "\n</main>\n</body>\n</html>\n"
    )


def _plot(draw: Callable[[float], str], caption: str) -> str:
    """A plot for wide screens and one for narrow ones, whose letters keep their size."""
    wide = draw(WIDE)
    if not wide:
        return ""
    return (
        f'<figure><div class="wide">{wide}</div><div class="narrow">{draw(NARROW)}</div>'
        f'<figcaption class="note">{escape(caption)}</figcaption></figure>'
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """numbers: columns that are set flush right.  Cells are HTML."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}{' class=n' if i in numbers else ''}>{cell}</{tag}>" for i, cell in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells("th", header)}</tr></thead><tbody>{body}</tbody></table></div>'


def _class(letter: str) -> str:
    return f'<span class="class {letter}" title="{escape(Evidence(letter).meaning)}">{letter}</span>'


def _between(figure: dict[str, Any]) -> str:
    if not figure["interval"]:
        return ""
    low, high = figure["interval"]
    return f"{joules_text(low)} to {joules_text(high)}"


def _head(report: dict[str, Any], names: str) -> str:
    machine = report["machine"]
    where = ", ".join(filter(None, (machine["cpu"], machine["isa"], f"{machine['threads']} threads", machine["system"])))
    cards = "".join(_cards(name, v) for name, v in report["results"]["variants"].items())
    warnings = "".join(f'<p class="warning">{escape(w)}</p>' for w in report["warnings"])
    return (
        f"<h1>Energy of {escape(names)}</h1>"
        f'<p class="where">{escape(where)}. Meter: {escape(report["meter"]["title"])}. {escape(report["created"])}, '
        f'frugal {escape(report["tool"]["version"])}.</p><div class="cards">{cards}</div>{warnings}'
    )


def _cards(name: str, variant: dict[str, Any]) -> str:
    cards = []
    for key, what in (("gross", "gross, one inference"), ("net", "net of the idle baseline")):
        figure = variant[key]
        big = "unavailable" if figure["joules"] is None else joules_text(figure["joules"])
        between = _between(figure)
        why = figure["reason"] or figure["source"]
        if key == "net" and why == variant["gross"]["reason"]:
            why = "as gross"
        cards.append(
            f'<div class="card"><div class="what">{escape(name)}: {what} {_class(figure["evidence_class"])}</div>'
            f'<div class="big">{escape(big)}</div>'
            + (f'<div class="between">95 %: {escape(between)}</div>' if between else "")
            + f'<div class="why">{escape(why)}</div></div>'
        )
    return "".join(cards)


def _comparison(report: dict[str, Any]) -> str:
    rows, verdicts = [], []
    for c in report["results"]["comparisons"]:
        d, ratio = c["difference"], c["ratio"]
        times = "-" if not ratio or ratio["value"] is None else f"{ratio['value']:.4g} ×"
        span = f" ({ratio['interval'][0]:.4g} to {ratio['interval'][1]:.4g})" if ratio and ratio["interval"] else ""
        amount = escape(d["reason"]) if d["joules"] is None else joules_text(d["joules"])
        rows.append([escape(f"{c['other']} less {c['first']}"), amount, _between(d), escape(times + span)])
        verdicts.append(f"<p>{escape(c['verdict'])}.</p>" if "verdict" in c else "")
    plot = _plot(lambda w: plots.comparison(report, w), "Points with 95 % intervals; hollow: net. The axis starts at 0.")
    if not rows and not plot:
        return ""
    table = _table(["", "difference", "95 %", "ratio"], rows, (1,)) + "".join(verdicts) if rows else ""
    note = (
        '<p class="note">Taken round by round: drift cancels in the difference, the gain of the meter in the ratio.</p>'
        if rows
        else ""
    )
    return f"<h2>{'Comparison' if rows else 'Gross and net'}</h2>{plot}{table}<p class=note>{note}</p>"


def _key(report: dict[str, Any]) -> str:
    names = list(report["results"]["variants"])
    return "".join(f'<b style="background:{plots.colour_of(report, n)}"></b>{escape(n)}' for n in names)


def _timeline(report: dict[str, Any], recording: Recording) -> str:
    plot = _plot(lambda w: plots.timeline(report, recording, w), f"Power of {recording.label()}. Shaded: the windows.")
    if not plot:
        return ""
    return f'<h2>Power over time</h2><p class="key">{_key(report)}<b style="background:#4a5568"></b>idle</p>{plot}'


def _windows(report: dict[str, Any]) -> str:
    caption = "A dot is a window; dashed: the mean; shaded: its 95 % interval, which holds the gain of the meter too."
    plot = _plot(lambda w: plots.windows(report, w), caption)
    return f'<h2>Windows</h2><p class="key">{_key(report)}</p>{plot}' if plot else ""


def _operators(report: dict[str, Any]) -> str:
    parts = []
    for name, about in report["operators"].items():
        if not about:
            continue
        colour = plots.colour_of(report, name)
        what = "Time" if about["evidence_class"] == "X" else f"Energy, apportioned by {about['method']}"
        caption = f"{what}; class {about['evidence_class']}. {len(about['steps'])} steps."
        parts.append(f"<h3>{escape(name)}</h3>" + _plot(lambda w, a=about, c=colour: plots.operators(a, w, c), caption))  # type: ignore[misc]
        if about["roofline"]:
            caption = "A dot is a step, its area its time. Bytes are its operands': what stays in caches may lie above the slope."
            parts.append(_plot(lambda w, a=about: plots.roofline(a["roofline"], w), caption))  # type: ignore[misc]
    return "<h2>Operators and roofline</h2>" + "".join(parts) if parts else ""


def _uncertainty(report: dict[str, Any]) -> str:
    rows, channels = [], []
    for name, v in report["results"]["variants"].items():
        for key in ("gross", "net"):
            for c in v[key]["components"]:
                dof = "∞" if c["dof"] is None else f"{c['dof']:g}"
                rows.append([escape(f"{name}, {key}"), escape(c["name"]), c["kind"], joules_text(c["u"]), dof])
        for c in v["channels"]:
            amount = "X" if c["joules"] is None else joules_text(c["joules"])
            counted = "counted" if c["counted"] else "inside another"
            channels.append([escape(name), escape(c["name"]), escape(c["scope"]), counted, amount, escape(c["note"])])
    parts = []
    if rows:
        parts.append("<h3>Components of uncertainty</h3>" + _table(["figure", "component", "type", "u", "dof"], rows, (3, 4)))
    if channels:
        parts.append("<h3>Channels</h3>" + _table(["model", "channel", "scope", "", "an inference", ""], channels, (4,)))
    return "<h2>Uncertainty and channels</h2>" + "".join(parts) if parts else ""


def _carbon(report: dict[str, Any]) -> str:
    if not report["carbon"]:
        return ""
    grid = report["carbon"]["grid"]
    rows = []
    for name, c in report["carbon"]["variants"].items():
        grams = f"{c['grams'][0]:.3g} to {c['grams'][1]:.3g} g" if c["grams"] else "X"
        score = f"{c['sci']['sci_g'][0]:.3g} to {c['sci']['sci_g'][1]:.3g} g" if c["sci"] else "-"
        same = c["reason"] == report["results"]["variants"][name]["gross"]["reason"]
        rows.append([escape(name), grams, score, "" if same else escape(c["reason"])])
    low, high = grid["range_g_per_kwh"]
    sources = "; ".join(
        f"{v['g_per_kwh']:g} ({v['year'] or 'given'}, {v['source']}{', ' + v['licence'] if v['licence'] else ''})"
        for v in grid["values"]
    )
    return (
        f"<h2>Carbon</h2><p>{escape(grid['name'])}: {low:g} to {high:g} g CO₂e/kWh, location-based, no offsets.</p>"
        + _table(["model", "CO₂e an inference", "SCI (ISO/IEC 21031)", ""], rows)
        + f'<p class="note">{escape(sources)}</p>'
    )


def _conditions(report: dict[str, Any]) -> str:
    rows = [[escape(k.replace("_", " ")), escape(_words(v))] for k, v in (report["conditions"] or {}).items()]
    settings = [[escape(k.replace("_", " ")), escape(_words(v))] for k, v in report["protocol"]["settings"].items()]
    for name, w in report["protocol"]["warmup"].items():
        state = "steady" if w["steady"] else "not steady"
        settings.append([escape(f"warm-up of {name}"), escape(f"{w['runs']} runs, {w['seconds']:.3g} s, {state} ({w['test']})")])
    parts = ["<h2>Protocol and conditions</h2>", _table(["protocol", ""], settings)]
    if rows:
        parts.append(_table(["conditions", ""], rows))
    return "".join(parts)


def _words(value: Any) -> str:
    if value is None:
        return "not told by this system"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " to ".join(_words(v) for v in value) if any(v is not None for v in value) else "not told by this system"
    return str(value)


def _sources(report: dict[str, Any]) -> str:
    rows = []
    for name, m in report["models"].items():
        quality = ", ".join(f"{k} {v}" for k, v in m.get("quality", {}).items()) or "-"
        rows.append(
            [
                escape(name),
                escape(m["file"]),
                escape(str(m.get("bytes", "-"))),
                escape(quality),
                f"<code>{m.get('sha256', '-')}</code>",
            ]
        )
    hashes = {c["name"]: c["values"]["sha256"] for c in report["raw"]["channels"]}
    raw = "".join(f"<li>{escape(n)}: <code>{escape(h)}</code></li>" for n, h in hashes.items())
    meter = json.dumps(report["meter"]["about"], sort_keys=True, ensure_ascii=False)
    return (
        "<h2>Sources</h2>"
        + _table(["model", "file", "bytes", "quality", "SHA-256"], rows, (2,))
        + f'<p class="note">Meter: <code>{escape(meter)}</code></p>'
        + (f'<p class="note">Raw samples, SHA-256:</p><ul class="note">{raw}</ul>' if raw else "")
        + f'<p class="note">Report {escape(report["id"])}. Its JSON holds the raw samples; <code>frugal energy replay</code> '
        "computes every figure from them again, to the same bytes. Classes: "
        + "; ".join(f"{e.value} {escape(e.meaning)}" for e in Evidence)
        + ".</p>"
    )
