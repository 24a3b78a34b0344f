"""The estimation model, used only when asked for (`--meter model`): static power, operations and bytes, each with its price.

    joules = watts_static * seconds + sum of operations * pJ of their kind + sum of bytes * pJ of the level they come from

Uncalibrated it is class D with an interval of ×/÷ 3; `frugal energy calibrate` fits the prices with a meter of this machine and
makes it class C with an interval from its leave-one-out error.  It sees work, not machines: two models may be compared with
it only where they do the same kind of work, and the report says so.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument, NoSuchFile
from .evidence import Evidence, Figure
from .uncertainty import student

FACTOR_D = 3.0  # the spread of implied energy of one chip and model over published boards is 3.1
FEATURES = ("seconds", "int8_operations", "float_operations", "memory_bytes", "cache_bytes")
UNITS = ("W", "pJ", "pJ", "pJ", "pJ")
# Prices without a calibration.  Arithmetic itself is small (8-bit multiply-add 0.23 pJ, float32 4.6 pJ at 45 nm; M. Horowitz,
# ISSCC 2014, fig. 1.1.9); what counts is the instruction around it: about 500 pJ for one of 256 bits on an out-of-order core,
# which holds 64 int8 operations or 16 of float32.  Memory: 1.3 to 2.6 nJ for 8 bytes of DRAM (same source), half of that
# since; caches 100 pJ for 8 bytes of 1 MB (same source).  Static: the share of a package's idle power of one thread that
# works, 1 to 9 W.
DEFAULT = {
    "seconds": 3.0,
    "int8_operations": 8.0,
    "float_operations": 30.0,
    "memory_bytes": 120.0,
    "cache_bytes": 12.0,
}
SOURCE_D = "model (uncalibrated: Horowitz, ISSCC 2014, and the width of the instructions)"
BUSY_CORE_WATTS = 8.0  # a core at work with its share of caches and memory: 3 to 25 W over laptops and servers

# Picojoule an instruction of microcontrollers: supply current per megahertz (median of public MLPerf Tiny energy traces, our
# reading of them) x 1.8 V x cycles an instruction (1.3 in order; 0.8 on the dual-issue M7).
BOARD_PJ = {
    "stm32l4r5": 195 * 1.8 * 1.3,
    "stm32u575": 79 * 1.8 * 1.3,
    "stm32h7a3": 145 * 1.8 * 0.8,
    "": 300.0,  # any other
}


def in_interval(joules: float, factor: float = FACTOR_D) -> tuple[float, float]:
    """An interval that multiplies and divides."""
    return joules / factor, joules * factor


@dataclass(frozen=True)
class Model:
    """Prices: watts for "seconds", picojoules for the others.

    evidence: D, or C for the machine `cpu` that it was calibrated on; errors: leave-one-out, relative, of each workload.
    """

    prices: Mapping[str, float]
    evidence: Evidence = Evidence.D
    source: str = SOURCE_D
    cpu: str = ""
    errors: Mapping[str, float] | None = None

    def parts(self, work: Mapping[str, float]) -> dict[str, float]:
        """Joules of each term; work: amounts by feature, missing ones 0."""
        return {f: work.get(f, 0.0) * self.prices[f] * (1.0 if f == "seconds" else 1e-12) for f in FEATURES}

    def estimate(self, work: Mapping[str, float]) -> Figure:
        """Joules of some work."""
        joules = math.fsum(self.parts(work).values())
        return Figure(joules, self.interval(joules), self.evidence, self.source)

    def interval(self, joules: float) -> tuple[float, float]:
        """×/÷ 3, or ± t times the root mean square of the leave-one-out errors."""
        if self.evidence is Evidence.D or not self.errors:
            return in_interval(joules)
        errors = list(self.errors.values())
        spread = math.sqrt(math.fsum(e * e for e in errors) / len(errors)) * student(0.95, len(errors))
        return max(joules * (1 - spread), 0.0), joules * (1 + spread)

    def to_dict(self) -> dict[str, Any]:
        """For the report and the calibration file."""
        about = asdict(self) | {"evidence": str(self.evidence), "prices": dict(self.prices)}
        return about | {"units": dict(zip(FEATURES, UNITS, strict=True))}


def estimate_process(seconds: float, cpu_seconds: float) -> Figure:
    """Class D for any code: wall time and CPU time are all that is known of it."""
    joules = DEFAULT["seconds"] * seconds + BUSY_CORE_WATTS * cpu_seconds
    source = f"model (uncalibrated: {DEFAULT['seconds']:g} W and {BUSY_CORE_WATTS:g} W a busy core)"
    return Figure(joules, in_interval(joules), Evidence.D, source)


def estimate_board(manifest: str | os.PathLike[str]) -> tuple[Figure, dict[str, Any]]:
    """Class D for a bundle of `frugal deploy`: instructions of an inference times the energy of one.

    manifest: manifest.json, or the folder that holds it; keys `instructions` or `instructions_per_inference`, and `board`.
    """
    path = Path(manifest)
    path = path / "manifest.json" if path.is_dir() else path
    if not path.is_file():
        raise NoSuchFile(f"{path}: no such file")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise InvalidArgument(f"{path}: not JSON: {e}") from e
    count = _instructions(about)
    if count is None:
        raise InvalidArgument(f"{path}: has no `instructions`: run the bundle's `make check`, which counts them")
    board = json.dumps(about.get("board", "")).lower()
    known = next((name for name in BOARD_PJ if name and name in board.replace("-", "").replace("_", "")), "")
    price = BOARD_PJ[known]
    joules = count * price * 1e-12
    what = f"measured on a {known.upper()}" if known else "of microcontrollers in general"
    source = f"model (instructions x {price:.0f} pJ, {what})"
    return Figure(joules, in_interval(joules), Evidence.D, source), {"instructions": count, "picojoules": price, "board": known}


def _instructions(about: Any) -> float | None:
    """The count under either key; a nested object gives its total."""
    if not isinstance(about, dict):
        return None
    for key in ("instructions", "instructions_per_inference"):
        value = about.get(key)
        if isinstance(value, dict):
            value = value.get("total", value.get("per_inference"))
        if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and math.isfinite(value):
            return float(value)
    return None


# ---- calibration ----


def fit(work: Sequence[Mapping[str, float]], joules: Sequence[float]) -> dict[str, float]:
    """Prices of non-negative least squares; every row is divided by its joules, so that small workloads count as much."""
    rows = [[w.get(f, 0.0) * (1.0 if f == "seconds" else 1e-12) / j for f in FEATURES] for w, j in zip(work, joules, strict=True)]
    values = nnls(rows, [1.0] * len(rows))
    return dict(zip(FEATURES, values, strict=True))


def leave_one_out(work: Sequence[Mapping[str, float]], joules: Sequence[float], names: Sequence[str]) -> dict[str, float]:
    """Relative error of each workload, predicted by prices that were fitted without it."""
    errors = {}
    for i, name in enumerate(names):
        others = [k for k in range(len(work)) if k != i]
        prices = fit([work[k] for k in others], [joules[k] for k in others])
        predicted = math.fsum(Model(prices).parts(work[i]).values())
        errors[name] = predicted / joules[i] - 1
    return errors


def nnls(a: Sequence[Sequence[float]], b: Sequence[float]) -> list[float]:
    """Least squares with x >= 0 by trying every set of positive unknowns: exact, and there are five of them
    (Karush-Kuhn-Tucker)."""
    n = len(a[0])
    best, best_cost = [0.0] * n, math.fsum(v * v for v in b)
    for mask in range(1, 1 << n):
        chosen = [i for i in range(n) if mask >> i & 1]
        solved = _solve(a, b, chosen)
        if solved is None or min(solved) < 0:
            continue
        x = [0.0] * n
        for i, v in zip(chosen, solved, strict=True):
            x[i] = v
        cost = math.fsum((math.fsum(r * v for r, v in zip(row, x, strict=True)) - y) ** 2 for row, y in zip(a, b, strict=True))
        if cost < best_cost * (1 - 1e-12):
            best, best_cost = x, cost
    return best


def _solve(a: Sequence[Sequence[float]], b: Sequence[float], chosen: Sequence[int]) -> list[float] | None:
    """Least squares over some columns by normal equations, columns scaled to length 1; None where they depend on each other."""
    size = [math.sqrt(math.fsum(row[i] ** 2 for row in a)) for i in chosen]
    if min(size) == 0 or len(chosen) > len(a):
        return None
    columns = [[row[i] / s for row in a] for i, s in zip(chosen, size, strict=True)]
    m = [[_dot(p, q) for q in columns] + [_dot(p, b)] for p in columns]
    for k in range(len(m)):
        pivot = max(range(k, len(m)), key=lambda r: abs(m[r][k]))
        if abs(m[pivot][k]) < 1e-12:
            return None
        m[k], m[pivot] = m[pivot], m[k]
        for r in range(len(m)):
            if r != k:
                factor = m[r][k] / m[k][k]
                m[r] = [x - factor * y for x, y in zip(m[r], m[k], strict=True)]
    return [m[k][-1] / m[k][k] / size[k] for k in range(len(m))]


def _dot(p: Sequence[float], q: Sequence[float]) -> float:
    return math.fsum(x * y for x, y in zip(p, q, strict=True))


def calibration_file() -> Path:
    """Where `frugal energy calibrate` writes and `--meter model` looks."""
    from ..cache import cache_dir

    return cache_dir() / "energy-calibration.json"


def load(path: str | os.PathLike[str] | None = None, cpu: str = "") -> Model:
    """The calibration of this machine, else the uncalibrated model.  A given path must be one; the default one may be missing.

    A calibration of another CPU is class D here.
    """
    file = Path(path) if path else calibration_file()
    if not path and not file.is_file():
        return Model(DEFAULT)
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        prices = {f: float(about["prices"][f]) for f in FEATURES}
        errors = {str(k): float(v) for k, v in about["errors"].items()}
        source, home = str(about["source"]), str(about["cpu"])
    except FileNotFoundError as e:
        raise NoSuchFile(f"{file}: no such file") from e
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise InvalidArgument(f"{file}: not a calibration of `frugal energy calibrate`: {e}") from e
    if any(not math.isfinite(v) or v < 0 for v in prices.values()):
        raise InvalidArgument(f"{file}: prices must be numbers of 0 or more")
    if cpu and home != cpu:
        return Model(prices, Evidence.D, f"{source}, but calibrated on another CPU ({home})", home, errors)
    return Model(prices, Evidence.C, source, home, errors)
