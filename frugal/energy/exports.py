"""A report in the forms that others read: CSV with CodeCarbon's columns, BoAmps, SCI, CycloneDX, Hugging Face card,
OpenMetrics, HTML.

Each is a pure function of the report.  A form that has no place for an unavailable figure refuses it: InvalidArgument says
why, and no number is made up.
"""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument
from .carbon import JOULES_A_KWH
from .report import dumps

SUFFIXES = {".json": "json", ".html": "html", ".csv": "csv", ".prom": "openmetrics", ".md": "card"}

# Columns of codecarbon's emissions.csv (EmissionsData of codecarbon 3), then ours.
CODECARBON = (
    "timestamp", "project_name", "run_id", "experiment_id", "duration", "emissions", "emissions_rate", "cpu_power", "gpu_power",
    "ram_power", "cpu_energy", "gpu_energy", "ram_energy", "energy_consumed", "water_consumed", "country_name",
    "country_iso_code", "region", "cloud_provider", "cloud_region", "os", "python_version", "codecarbon_version", "cpu_count",
    "cpu_model", "gpu_count", "gpu_model", "longitude", "latitude", "ram_total_size", "tracking_mode", "cpu_utilization_percent",
    "gpu_utilization_percent", "ram_utilization_percent", "ram_used_gb", "on_cloud", "pue", "wue",
)  # fmt: skip
OURS = (
    "evidence_class", "source", "reason", "inferences", "gross_joules", "gross_joules_low", "gross_joules_high", "net_joules",
    "net_joules_low", "net_joules_high", "net_reason", "seconds_per_inference", "emissions_low", "emissions_high", "sha256",
)  # fmt: skip


def target(text: str) -> tuple[str, Path]:
    """ "FORMAT:FILE", or a file whose suffix tells the format.  Raises InvalidArgument."""
    form, colon, file = text.partition(":")
    if colon and form in FORMATS and file:
        return form, Path(file)
    form = SUFFIXES.get(Path(text).suffix.lower(), "")
    if not form:
        raise InvalidArgument(f"{text}: give a suffix of {', '.join(SUFFIXES)}, or FORMAT:FILE with one of {', '.join(FORMATS)}")
    return form, Path(text)


def write(report: dict[str, Any], form: str, file: Path) -> None:
    """Write the report in a format, whole or not at all."""
    from ..plan import written_beside

    text = FORMATS[form](report)
    with written_beside(file) as beside:
        beside.write_text(text, encoding="utf-8", newline="")


def _json(report: dict[str, Any]) -> str:
    return dumps(report)


def _html(report: dict[str, Any]) -> str:
    from .html import page

    return page(report)


# ---- CSV ----


def table(report: dict[str, Any]) -> str:
    """One row a variant: CodeCarbon's columns (kWh, kg, W, s of all windows together), then figures of one inference.

    Cells of what is unknown are empty.  `emissions` is the middle of its range, whose ends stand in columns of their own.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, [*CODECARBON, *OURS], lineterminator="\n")
    writer.writeheader()
    for name in report["results"]["variants"]:
        writer.writerow(_row(report, name))
    return out.getvalue()


def _row(report: dict[str, Any], name: str) -> dict[str, Any]:
    variant, model = report["results"]["variants"][name], report["models"][name]
    gross, net = variant["gross"], variant["net"]
    seconds = None if variant["seconds_per_run"] is None else variant["runs"] * variant["seconds_per_run"]
    carbon = report["carbon"]["variants"][name] if report["carbon"] else None
    kwh = None if gross["joules"] is None else gross["joules"] * variant["runs"] / JOULES_A_KWH
    row: dict[str, Any] = {
        "timestamp": report["created"].rstrip("Z"),
        "project_name": name,
        "run_id": report["id"],
        "duration": seconds,
        "cpu_energy": _scope(variant, ("cpu_package", "platform"), variant["runs"]),
        "ram_energy": _scope(variant, ("dram",), variant["runs"]),
        "energy_consumed": kwh,
        "os": report["machine"]["system"],
        "python_version": report["tool"]["python"],
        "cpu_count": report["machine"]["threads"],
        "cpu_model": report["machine"]["cpu"],
        "tracking_mode": "machine",
        "pue": 1.0,
        "evidence_class": gross["evidence_class"],
        "source": gross["source"],
        "reason": gross["reason"],
        "inferences": variant["runs"],
        "gross_joules": gross["joules"],
        "net_joules": net["joules"],
        "net_reason": net["reason"],
        "seconds_per_inference": variant["seconds_per_run"],
        "sha256": model.get("sha256"),
    }
    for key, figure in (("gross", gross), ("net", net)):
        if figure["interval"]:
            row[f"{key}_joules_low"], row[f"{key}_joules_high"] = figure["interval"]
    for key, energy in (("cpu_power", "cpu_energy"), ("ram_power", "ram_energy")):
        row[key] = None if row[energy] is None or not seconds else row[energy] * JOULES_A_KWH / seconds
    if report["machine"]["memory_bytes"]:
        row["ram_total_size"] = report["machine"]["memory_bytes"] / 2**30
    if carbon and carbon["grams"]:
        low, high = (g * variant["runs"] / 1000 for g in carbon["grams"])
        row |= {"emissions": (low + high) / 2, "emissions_low": low, "emissions_high": high}
        row["emissions_rate"] = row["emissions"] / seconds if seconds else None
        row |= {"country_iso_code": report["carbon"]["grid"]["country"], "country_name": report["carbon"]["grid"]["name"]}
    return row


def _scope(variant: dict[str, Any], scopes: tuple[str, ...], runs: int) -> float | None:
    """kWh of the counted channels of these scopes."""
    values = [c["joules"] for c in variant["channels"] if c["scope"] in scopes and c["counted"]]
    return None if not values or None in values else sum(values) * runs / JOULES_A_KWH


# ---- forms that need a figure ----


def _measured(report: dict[str, Any], what: str) -> dict[str, dict[str, Any]]:
    """Variants that have joules.  Raises InvalidArgument when there is none."""
    found = {n: v for n, v in report["results"]["variants"].items() if v["gross"]["joules"] is not None}
    if not found:
        reason = next(iter(report["results"]["variants"].values()))["gross"]["reason"]
        raise InvalidArgument(f"{what} cannot be written: the energy is unavailable (class X): {reason}")
    return found


def boamps(report: dict[str, Any]) -> str:
    """Boavizta's BoAmps report of the first variant (kWh of all its inferences)."""
    name, variant = next(iter(_measured(report, "a BoAmps report").items()))
    gross, model, machine = variant["gross"], report["models"][name], report["machine"]
    interval = gross["interval"] or [gross["joules"]] * 2
    half = (interval[1] - interval[0]) / 2 / gross["joules"]
    inputs = [{"dataUsage": "input", "dataType": "other", "dataQuantity": variant["runs"]}]
    if model.get("shapes"):
        inputs[0]["shape"] = "; ".join(f"{k} {tuple(v)}" for k, v in model["shapes"].items())
    components: list[dict[str, Any]] = [{"componentName": machine["cpu"], "componentType": "cpu", "nbComponent": 1}]
    if machine["memory_bytes"]:
        components.append({"componentType": "ram", "nbComponent": 1, "memorySize": round(machine["memory_bytes"] / 2**30)})
    document: dict[str, Any] = {
        "header": {
            "licensing": "Creative Commons 4.0",
            "formatVersion": "1.1.0",
            "reportId": report["id"],
            "reportDatetime": report["created"].replace("T", " ").rstrip("Z"),
            "reportStatus": "draft",
            "publisher": {"confidentialityLevel": "public"},
        },
        "task": {
            "taskStage": "inference",
            "taskFamily": "inference",
            "nbRequest": variant["runs"],
            "algorithms": [{"algorithmName": name, "framework": "frugal", "frameworkVersion": report["tool"]["version"]}],
            "dataset": inputs,
            "taskDescription": f"evidence class {gross['evidence_class']}; 95 % interval of one inference "
            f"{interval[0]:.6g} to {interval[1]:.6g} J",
        },
        "measures": [
            {
                "measurementMethod": f"frugal {gross['source']}",
                "version": report["tool"]["version"],
                "cpuTrackingMode": "rapl" if report["meter"]["name"] in ("powercap", "perf") else report["meter"]["name"],
                "powerConsumption": gross["joules"] * variant["runs"] / JOULES_A_KWH,
                "measurementDateTime": report["created"].replace("T", " ").rstrip("Z"),
            }
        ],
        "system": {"os": machine["system"].partition(" ")[0].lower() or "none"},
        "software": {"language": "python", "version": report["tool"]["python"]},
        "infrastructure": {"infraType": "other", "components": components},
    }
    if variant["seconds_per_run"] is not None:
        document["measures"][0]["measurementDuration"] = variant["runs"] * variant["seconds_per_run"]
    baseline = report["results"]["baseline"]
    if baseline and baseline["watts"] is not None:
        idle = [w for w in report["raw"]["windows"] if w["kind"] == "baseline"]
        seconds = sum(w["end"] - w["start"] for w in idle)
        document["measures"][0]["powerCalibrationMeasurement"] = baseline["watts"] * seconds / JOULES_A_KWH
        document["measures"][0]["durationCalibrationMeasurement"] = seconds
    # high: within 10 %, medium: 25 %, low: 50 %; a class D is within a factor of three and has no word of theirs.
    quality = "high" if half <= 0.1 else "medium" if half <= 0.25 else "low" if half <= 0.5 else None
    if quality:
        document["quality"] = quality
    grid = report["carbon"]["grid"] if report["carbon"] else None
    if grid and grid["country"]:
        low, high = grid["range_g_per_kwh"]
        document["environment"] = {"country": grid["name"], "powerSourceCarbonIntensity": (low + high) / 2}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def sci(report: dict[str, Any]) -> str:
    """Software Carbon Intensity (ISO/IEC 21031) of one inference of each variant, as ranges.  Needs a country and
    embodied emissions."""
    _measured(report, "an SCI score")
    if not report["carbon"]:
        raise InvalidArgument("an SCI score needs the carbon intensity of the grid: --country")
    scores = {n: c["sci"] for n, c in report["carbon"]["variants"].items() if c["sci"]}
    if not scores:
        raise InvalidArgument("an SCI score includes the embodied emissions of the machine: --embodied KG[,YEARS[,SHARE]]")
    document = {
        "standard": "ISO/IEC 21031:2024",
        "equation": "SCI = ((E * I) + M) / R; M = TE * (TiR / EL) * (RR / ToR)",
        "boundary": {n: report["results"]["variants"][n]["gross"]["source"] for n in scores},
        "evidence_class": {n: report["results"]["variants"][n]["gross"]["evidence_class"] for n in scores},
        "grid": report["carbon"]["grid"],
        "scores": scores,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def cyclonedx(report: dict[str, Any]) -> str:
    """CycloneDX 1.6 ML-BOM: a component a variant, with the energy of one inference in kWh (the only unit that it has)."""
    components = [_component(report, n, v) for n, v in _measured(report, "a CycloneDX BOM").items()]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(report['id'])}",
        "version": 1,
        "metadata": {
            "timestamp": report["created"],
            "tools": {"components": [{"type": "application", "name": "frugal", "version": report["tool"]["version"]}]},
        },
        "components": components,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _component(report: dict[str, Any], name: str, variant: dict[str, Any]) -> dict[str, Any]:
    gross, model = variant["gross"], report["models"][name]
    kwh = {"value": gross["joules"] / JOULES_A_KWH, "unit": "kWh"}
    notes = {
        "frugal:energy:evidence_class": gross["evidence_class"],
        "frugal:energy:source": gross["source"],
        "frugal:energy:functional_unit": "one inference",
        "frugal:energy:joules": repr(gross["joules"]),
    }
    if gross["interval"]:
        notes["frugal:energy:interval_joules"] = "{!r} {!r}".format(*gross["interval"])
    consumption: dict[str, Any] = {
        "activity": "inference",
        "energyProviders": [
            {"organization": {"name": "unknown"}, "energySource": "unknown", "energyProvided": dict(kwh)},
        ],
        "activityEnergyCost": kwh,
        "properties": [{"name": k, "value": v} for k, v in notes.items()],
    }
    carbon = report["carbon"]["variants"][name] if report["carbon"] else None
    if carbon and carbon["grams"]:
        consumption["co2CostEquivalent"] = {"value": sum(carbon["grams"]) / 2 / 1e6, "unit": "tCO2eq"}
    card: dict[str, Any] = {"considerations": {"environmentalConsiderations": {"energyConsumptions": [consumption]}}}
    if model.get("quality"):
        metrics = [{"type": k, "value": str(v)} for k, v in model["quality"].items()]
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    component: dict[str, Any] = {"type": "machine-learning-model", "bom-ref": f"model-{name}", "name": name, "modelCard": card}
    if model.get("sha256"):
        component["hashes"] = [{"alg": "SHA-256", "content": model["sha256"]}]
    return component


def card(report: dict[str, Any]) -> str:
    """YAML front matter of a Hugging Face model card (co2_eq_emissions, in grams) and a paragraph; needs a country."""
    name, variant = next(iter(_measured(report, "a model card").items()))
    carbon = report["carbon"]["variants"][name] if report["carbon"] else None
    if not carbon or not carbon["grams"]:
        raise InvalidArgument("a model card tells grams of CO2e: --country, and an energy with an interval")
    gross, grid = variant["gross"], report["carbon"]["grid"]
    low, high = carbon["grams"]
    lines = [
        "---",
        "co2_eq_emissions:",
        f"  emissions: {(low + high) / 2:.9g}",
        f"  source: {_yaml('frugal ' + report['tool']['version'] + ', ' + gross['source'])}",
        '  training_type: "inference"',
        f"  geographical_location: {_yaml(grid['name'])}",
        f"  hardware_used: {_yaml(report['machine']['cpu'])}",
        "---",
        "",
        f"One inference of {name} took {gross['joules']:.6g} J (evidence class {gross['evidence_class']}, 95 % interval "
        f"{gross['interval'][0]:.6g} to {gross['interval'][1]:.6g} J): {low:.3g} to {high:.3g} g CO2e at "
        f"{grid['range_g_per_kwh'][0]:g} to {grid['range_g_per_kwh'][1]:g} g/kWh.",
    ]
    return "\n".join(lines) + "\n"


def _yaml(text: str) -> str:
    """A double-quoted scalar; JSON's strings are YAML's."""
    return json.dumps(text, ensure_ascii=False)


def openmetrics(report: dict[str, Any]) -> str:
    """OpenMetrics text: gauges of one inference.  A figure of class X has no sample, only its evidence class."""
    gauges = {
        "frugal_inference_energy_joules": ("joules", "Gross energy of one inference."),
        "frugal_inference_energy_low_joules": ("joules", "Lower end of its 95 % interval."),
        "frugal_inference_energy_high_joules": ("joules", "Upper end of its 95 % interval."),
        "frugal_inference_net_energy_joules": ("joules", "The same less the idle baseline."),
        "frugal_inference_duration_seconds": ("seconds", "Time of one inference."),
    }
    lines = []
    for metric, (unit, text) in gauges.items():
        lines += [f"# TYPE {metric} gauge", f"# UNIT {metric} {unit}", f"# HELP {metric} {text}"]
        for name, v in report["results"]["variants"].items():
            interval = v["gross"]["interval"] or (None, None)
            values = (v["gross"]["joules"], interval[0], interval[1], v["net"]["joules"], v["seconds_per_run"])
            value = dict(zip(gauges, values, strict=True))[metric]
            if value is not None:
                labels = {"model": name, "evidence_class": v["gross"]["evidence_class"], "meter": report["meter"]["name"]}
                lines.append(f"{metric}{{{_labels(labels)}}} {value!r}")
    family = "frugal_inference_energy_evidence"
    lines += [f"# TYPE {family} info", f"# HELP {family} Evidence class and source."]
    for name, v in report["results"]["variants"].items():
        labels = {"model": name, "evidence_class": v["gross"]["evidence_class"], "source": v["gross"]["source"]}
        lines.append(f"frugal_inference_energy_evidence_info{{{_labels(labels | {'reason': v['gross']['reason']})}}} 1")
    return "\n".join([*lines, "# EOF"]) + "\n"


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f'{k}="{_escape(v)}"' for k, v in labels.items())


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


FORMATS: dict[str, Callable[[dict[str, Any]], str]] = {
    "json": dumps,
    "html": _html,
    "csv": table,
    "boamps": boamps,
    "sci": sci,
    "cyclonedx": cyclonedx,
    "card": card,
    "openmetrics": openmetrics,
}
