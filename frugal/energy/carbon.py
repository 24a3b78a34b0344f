"""Grams of CO2 equivalent: joules times the carbon intensity of a grid, as a range with its sources; and SCI (ISO/IEC 21031).

No offsets, no certificates: location-based.  The table is grid.json beside this file.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument

JOULES_A_KWH = 3.6e6


@cache
def _table() -> dict[str, Any]:
    table: dict[str, Any] = json.loads(Path(__file__).with_name("grid.json").read_text(encoding="utf-8"))
    return table


def intensity(country: str) -> dict[str, Any]:
    """{"country", "name", "range_g_per_kwh": [low, high], "values": [...]}; country: two or three letters of ISO 3166.

    A number in place of a country ("52" or "40-60", g/kWh) is taken as it is.  Raises InvalidArgument for an unknown one.
    """
    low, _, high = country.partition("-")
    try:
        bounds = sorted(float(x) for x in (low, high or low))
    except ValueError:
        bounds = []
    if bounds:
        if not (math.isfinite(bounds[1]) and bounds[0] > 0):
            raise InvalidArgument(f"a carbon intensity is a positive number of g/kWh, got {country!r}")
        source = [{"g_per_kwh": b, "year": None, "source": "given by the user", "licence": ""} for b in dict.fromkeys(bounds)]
        return {"country": "", "name": "given", "range_g_per_kwh": bounds, "values": source}
    table = _table()
    for code, row in table["countries"].items():
        if country.upper() in (code, row["alpha2"]):
            values = [
                {
                    "g_per_kwh": v["g_per_kwh"],
                    "year": v["year"],
                    "source": table["sources"][v["source"]]["title"],
                    "licence": table["sources"][v["source"]]["licence"],
                }
                for v in row["values"]
            ]
            grams = [v["g_per_kwh"] for v in values]
            return {"country": code, "name": row["name"], "range_g_per_kwh": [min(grams), max(grams)], "values": values}
    known = ", ".join(row["alpha2"] for row in table["countries"].values())
    raise InvalidArgument(f"no carbon intensity for {country!r}; there are {known}, or give a number or range of g/kWh")


def grams(interval_joules: list[float], grid: dict[str, Any]) -> list[float]:
    """Range of grams for an interval of joules: its low end with the grid's, its high end with the grid's."""
    low, high = grid["range_g_per_kwh"]
    return [interval_joules[0] / JOULES_A_KWH * low, interval_joules[1] / JOULES_A_KWH * high]


def parse_embodied(text: str) -> dict[str, float]:
    """ "KG[,YEARS[,SHARE]]" -> total embodied kg CO2e of the machine, its life in years (4), the share of it in use (1)."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if (
        not 1 <= len(numbers) <= 3
        or any(not (math.isfinite(n) and n > 0) for n in numbers)
        or (len(numbers) == 3 and numbers[2] > 1)
    ):
        raise InvalidArgument(f"--embodied wants KG[,YEARS[,SHARE]], such as 300,5,0.5; got {text!r}")
    return dict(zip(("kg", "years", "share"), [*numbers, *(4.0, 1.0)[len(numbers) - 1 :]], strict=True))


def sci(interval_joules: list[float], seconds: float, grid: dict[str, Any], embodied: dict[str, float]) -> dict[str, Any]:
    """Software Carbon Intensity of ISO/IEC 21031: ((E * I) + M) / R with R = one inference.

    M = TE * (TiR / EL) * (RR / ToR): embodied emissions, times the inference's time over the machine's life, times the
    share of the machine that it uses.  All in grams; E and I are ranges, hence so is the result.
    """
    life = embodied["years"] * 365.25 * 86400
    m = embodied["kg"] * 1000 * (seconds / life) * embodied["share"]
    operational = grams(interval_joules, grid)
    return {
        "functional_unit": "one inference",
        "E_kwh": [j / JOULES_A_KWH for j in interval_joules],
        "I_g_per_kwh": grid["range_g_per_kwh"],
        "M_g": m,
        "operational_g": operational,
        "sci_g": [g + m for g in operational],
        "TE_kg": embodied["kg"],
        "TiR_seconds": seconds,
        "EL_years": embodied["years"],
        "RR_over_ToR": embodied["share"],
        "offsets": "none",
    }
