"""Uncertainty by the rules of the GUM (JCGM 100:2008): type A from windows, type B from the meter, one interval from both.

Numbers in comments are the GUM's clauses.  Pure Python and correctly rounded sums (math.fsum): the same bytes on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Component", "combine", "expand", "mean", "standard_error", "student"]

LEVEL = 0.95


@dataclass(frozen=True)
class Component:
    """One contribution to a standard uncertainty.  kind: "A" or "B"; dof: degrees of freedom (infinite for an exact type B)."""

    name: str
    kind: str
    u: float
    dof: float = math.inf

    @classmethod
    def rectangular(cls, name: str, half_width: float) -> Component:
        """Anywhere within ± half_width with equal chance (4.3.7)."""
        return cls(name, "B", abs(half_width) / math.sqrt(3))

    @classmethod
    def triangular(cls, name: str, half_width: float) -> Component:
        """The difference of two rectangular errors of this full width, as of a window's two edges (4.3.9)."""
        return cls(name, "B", abs(half_width) / math.sqrt(6))


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean (4.2.1)."""
    return math.fsum(values) / len(values)


def standard_error(values: Sequence[float]) -> float:
    """Standard deviation of the mean (4.2.3), NaN for fewer than two values."""
    n = len(values)
    if n < 2:
        return math.nan
    m = mean(values)
    return math.sqrt(math.fsum((v - m) ** 2 for v in values) / (n - 1) / n)


def combine(components: Sequence[Component]) -> tuple[float, float]:
    """Combined standard uncertainty (5.1.2, uncorrelated) and effective degrees of freedom (Welch-Satterthwaite, G.4.1)."""
    u2 = math.fsum(c.u**2 for c in components)
    if u2 == 0:
        return 0.0, math.inf
    spread = math.fsum((c.u**2 / u2) ** 2 / c.dof for c in components if math.isfinite(c.dof) and c.dof > 0)
    return math.sqrt(u2), (1 / spread if spread else math.inf)


def expand(value: float, components: Sequence[Component], level: float = LEVEL) -> tuple[float, float]:
    """The interval value ± k u with k from Student's t (6.3, G.3)."""
    u, dof = combine(components)
    k = student(level, dof)
    return value - k * u, value + k * u


def student(level: float, dof: float) -> float:
    """t such that a Student variable of `dof` degrees of freedom lies within ± t with probability `level`.

    dof is not rounded down to an integer (G.4.1 allows either).
    """
    if not 0 < level < 1 or not dof > 0:
        raise ValueError(f"need 0 < level < 1 and dof > 0, got {level} and {dof}")
    low, high = 0.0, 1.0
    while _within(high, dof) < level:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, dof) < level else (low, middle)
    return high


def _within(t: float, dof: float) -> float:
    """P(|T| < t)."""
    if dof > 1e6:
        return math.erf(t / math.sqrt(2))
    return 1 - _beta(dof / 2, 0.5, dof / (dof + t * t))


def _beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(b, a, 1 - x)
    front = math.exp(a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)) / a
    tiny = 1e-300
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1), tiny)
    f = d
    for m in range(1, 500):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away(1 + numerator * d, tiny)
            c = _away(1 + numerator / c, tiny)
            f *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * f


def _away(x: float, tiny: float) -> float:
    """x, or a tiny number in place of 0."""
    return x if abs(x) > tiny else tiny
