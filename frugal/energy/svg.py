"""The little of SVG that the report's plots need: shapes, text, axes with round ticks.  Strings in, one string out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

INK, GREY, LIGHT = "#1a202c", "#4a5568", "#e2e8f0"
COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280", "#975a16")  # apart in brightness too, for print


def number(x: float) -> str:
    """A coordinate: two decimals are enough, and the same everywhere."""
    return f"{x:.2f}".rstrip("0").rstrip(".")


@dataclass
class Svg:
    """A drawing of width x height; title is read aloud by screen readers."""

    width: float
    height: float
    title: str
    parts: list[str] = field(default_factory=list)

    def rect(self, x: float, y: float, w: float, h: float, fill: str, extra: str = "") -> None:
        """A filled rectangle."""
        size = f'width="{number(max(w, 0))}" height="{number(max(h, 0))}"'
        self.parts.append(f'<rect x="{number(x)}" y="{number(y)}" {size} fill="{fill}" {extra}/>')

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str = GREY, width: float = 1, extra: str = "") -> None:
        """A straight line."""
        at = f'x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"'
        self.parts.append(f'<line {at} stroke="{colour}" stroke-width="{number(width)}" {extra}/>')

    def path(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1.5) -> None:
        """A polyline."""
        if len(points) > 1:
            d = "M" + " ".join(f"{number(x)},{number(y)}" for x, y in points)
            self.parts.append(
                f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="{number(width)}" stroke-linejoin="round"/>'
            )

    def dot(self, x: float, y: float, r: float, fill: str, label: str = "", opacity: float = 1) -> None:
        """A circle; label appears when pointed at."""
        tip = f"<title>{escape(label)}</title>" if label else ""
        shape = f'cx="{number(x)}" cy="{number(y)}" r="{number(r)}" fill="{fill}" fill-opacity="{number(opacity)}"'
        self.parts.append(f"<circle {shape}>{tip}</circle>")

    def text(
        self, x: float, y: float, text: str, anchor: str = "start", size: float = 12, colour: str = GREY, extra: str = ""
    ) -> None:
        """One line of text."""
        at = f'x="{number(x)}" y="{number(y)}" text-anchor="{anchor}" font-size="{number(size)}" fill="{colour}" {extra}'
        self.parts.append(f"<text {at}>{escape(text)}</text>")

    def __str__(self) -> str:
        head = f'<svg viewBox="0 0 {number(self.width)} {number(self.height)}" role="img" aria-label="{escape(self.title)}">'
        return head + "".join(self.parts) + "</svg>"


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers (1, 2, 5 times a power of ten) inside [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / max(most - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten inside [low, high]."""
    return [10.0**k for k in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]


def short(value: float) -> str:
    """A tick's label: 0.002, 50, 2k, 3M."""
    size = abs(value)
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size >= factor:
            return f"{value / (1e3 if letter == 'k' else factor):g}{letter}"
    return f"{value:g}"


@dataclass
class Axes:
    """Maps data to a rectangle of an Svg and draws its frame.  log: both axes in powers of ten."""

    svg: Svg
    left: float
    top: float
    right: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log: bool = False

    def x(self, value: float) -> float:
        """Where a value lies."""
        return self.left + self._part(value, self.x_range) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Where a value lies."""
        return self.bottom - self._part(value, self.y_range) * (self.bottom - self.top)

    def _part(self, value: float, bounds: tuple[float, float]) -> float:
        low, high = bounds
        if self.log:
            return (math.log10(value) - math.log10(low)) / (math.log10(high) - math.log10(low))
        return (value - low) / (high - low) if high > low else 0.5

    def frame(self, x_label: str, y_label: str, x_ticks: bool = True) -> None:
        """Grid lines, tick labels, titles of the axes."""
        make = decades if self.log else ticks
        wide = self.right - self.left
        for value in make(*self.y_range):
            self.svg.line(self.left, self.y(value), self.right, self.y(value), LIGHT)
            self.svg.text(self.left - 6, self.y(value) + 4, short(value), "end")
        for value in make(*self.x_range) if self.log else ticks(*self.x_range, max(3, int(wide / 90))) if x_ticks else ():
            self.svg.line(self.x(value), self.bottom, self.x(value), self.bottom + 4)
            self.svg.text(self.x(value), self.bottom + 17, short(value), "middle")
        self.svg.line(self.left, self.bottom, self.right, self.bottom)
        self.svg.text((self.left + self.right) / 2, self.bottom + 34, x_label, "middle")
        self.svg.text(self.left, self.top - 8, y_label)
