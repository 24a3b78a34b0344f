"""Statistics of interleaved rounds: a list of numbers an engine, one a round, all engines in the same rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

Spread = tuple[float, float, float]


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear between the two nearest, as numpy does it."""
    ordered = sorted(values)
    at = (len(ordered) - 1) * percent / 100
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def spread(values: Sequence[float]) -> Spread:
    """(median, 10th percentile, 90th percentile)."""
    return statistics.median(values), percentile(values, 10), percentile(values, 90)


def best_of_rounds(times: Mapping[str, Sequence[float]], names: Sequence[str]) -> list[float]:
    """The shortest time of these engines in each round."""
    return [min(of_round) for of_round in zip(*(times[n] for n in names), strict=True)]


def compare(times: Mapping[str, Sequence[float]], rivals: Sequence[str]) -> dict[str, dict[str, object]]:
    """Each engine beside the rivals, the fastest of them: above 1 the engine is the faster one.

    ratio: the rivals' best time of a round over the engine's in the same round, median and range; of_medians: the smallest median
    of a rival over the engine's; of_best: the rivals' best round over the engine's.
    """
    if not rivals:
        return {name: {} for name in times}
    best = best_of_rounds(times, rivals)
    median = min(statistics.median(times[n]) for n in rivals)
    least = min(min(times[n]) for n in rivals)
    return {
        name: {
            "ratio": spread([b / v for b, v in zip(best, values, strict=True)]),
            "of_medians": median / statistics.median(values),
            "of_best": least / min(values),
        }
        for name, values in times.items()
    }
