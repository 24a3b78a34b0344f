"""`frugal profile` and `frugal energy` as a user runs them, on a counter that a thread plays, on traces, on bundles."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import struct
import threading
import time
from html.parser import HTMLParser

import numpy as np
import pytest

import tiny
from energy.world import zone
from frugal.cli import main
from frugal.energy.exports import CODECARBON
from frugal.energy.report import dumps, load, replay

IDLE, WORK = 4.0, 12.0  # watts of the played machine, and more for every CPU that works


class Machine(threading.Thread):
    """A powercap tree whose package takes IDLE watts and WORK more a busy CPU of this process."""

    def __init__(self, root, work=WORK):
        super().__init__(daemon=True)
        self.file = zone(root, "intel-rapl:0", "package-0", 262_143_000_000)  # wraps in the first seconds
        self.other = self.file.with_name("next")
        self.work, self.done = work, threading.Event()

    def run(self):
        start, cpu = time.monotonic(), time.process_time()
        while not self.done.wait(0.0005):
            joules = IDLE * (time.monotonic() - start) + self.work * (time.process_time() - cpu)
            self.other.write_text(str(int(262_143_000_000 + joules * 1e6) % 262_143_328_850))
            os.replace(self.other, self.file)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.join()


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "embed.onnx"
    path.write_bytes(tiny.embed().SerializeToString())
    return str(path)


def profile(capsys, *args, code=0):
    assert main(["profile", *args, "--json"]) == code
    out = capsys.readouterr()
    return json.loads(out.out) if out.out else out.err


QUICK = ("--windows", "4", "--seconds", "0.15", "--warmup", "0.3", "--shape", "ids=1x16", "--threads", "1")


def test_profile_with_a_counter(capsys, tmp_path, model):
    with Machine(tmp_path):
        about = profile(capsys, model, "--meter", f"powercap:{tmp_path}", *QUICK, "--report", f"{tmp_path}/r.json")
    assert about["evidence_class"] == "B" and about["source"] == "powercap: cpu_package"
    watts = about["gross_joules"] / about["seconds"]
    assert IDLE < watts < IDLE + 2.5 * WORK  # the thread that plays works too
    low, high = about["interval"]
    assert low < about["gross_joules"] < high
    assert about["net_joules"] is None or about["net_joules"] < about["gross_joules"]
    assert about["baseline"]["windows"] == 5 and about["windows"] == 4
    assert {c["name"] for c in about["components"]} <= {"windows", "edges", "gain"} and about["components"][-1]["name"] == "gain"
    report = load(tmp_path / "r.json")
    assert replay(report) == (tmp_path / "r.json").read_text()  # the same bytes
    steps = report["operators"]["embed"]["steps"]
    assert math.fsum(s["joules"] for s in steps) == report["results"]["variants"]["embed"]["gross"]["joules"]  # exactly
    assert main(["energy", "replay", f"{tmp_path}/r.json", "--check"]) == 0


def test_net_is_refused_where_idle_is_not_below(capsys, tmp_path, model):
    with Machine(tmp_path, work=0.0):
        about = profile(capsys, model, "--meter", f"powercap:{tmp_path}", *QUICK)
    assert about["net_joules"] is None and "refused: the idle baseline" in about["net_reason"]
    assert about["gross_joules"] == pytest.approx(IDLE * about["seconds"], rel=0.05)


def test_two_models_take_turns(capsys, tmp_path, model):
    other = tmp_path / "square.onnx"
    other.write_bytes(tiny.embed().SerializeToString())
    with Machine(tmp_path):
        about = profile(
            capsys, model, "--against", str(other), "--meter", f"powercap:{tmp_path}", *QUICK, "--report", f"{tmp_path}/r.json"
        )
    assert list(about["variants"]) == ["embed", "square"]
    (comparison,) = about["comparisons"]
    low, high = comparison["difference"]["interval"]
    assert low <= comparison["difference"]["joules"] <= high
    assert comparison["ratio"]["interval"][0] < comparison["ratio"]["value"] < comparison["ratio"]["interval"][1]
    order = [w["variant"] for w in load(tmp_path / "r.json")["raw"]["windows"] if w["kind"] == "run"]
    assert order == ["embed", "square", "square", "embed"] * 2


def test_without_a_meter(capsys, tmp_path, model):
    about = profile(capsys, model, "--meter", f"powercap:{tmp_path}", *QUICK, "--country", "FR", "--report", f"{tmp_path}/r.json")
    assert about["evidence_class"] == "X" and about["gross_joules"] is None and about["interval"] is None
    assert "no such folder" in about["reason"] and about["seconds"] > 0 and about["grams_co2e"] is None
    assert about["operators"] and all(o["joules"] is None for o in about["operators"])
    assert replay(load(tmp_path / "r.json")) == (tmp_path / "r.json").read_text()
    assert main(["profile", model, "--meter", f"powercap:{tmp_path}", *QUICK]) == 0
    assert "X: " in capsys.readouterr().out


def test_estimates_and_the_gate(capsys, tmp_path, model):
    about = profile(capsys, model, "--meter", "model", *QUICK, "--country", "40-60", "--embodied", "300")
    low, high = about["interval"]
    assert about["evidence_class"] == "D" and high / low == pytest.approx(9)
    assert about["grams_co2e"] == pytest.approx([low / 3.6e6 * 40, high / 3.6e6 * 60])
    assert main(["profile", model, "--meter", "model", *QUICK, "--max-joules", "1e9"]) == 1
    assert "class A, B or C" in capsys.readouterr().err
    with Machine(tmp_path):
        assert main(["profile", model, "--meter", f"powercap:{tmp_path}", *QUICK, "--max-joules", "1e9"]) == 0
        assert main(["profile", model, "--meter", f"powercap:{tmp_path}", *QUICK, "--max-joules", "1e-12"]) == 1
    assert "above the limit" in capsys.readouterr().err


def test_estimates_are_not_ranked(capsys, tmp_path, model):
    about = profile(capsys, model, "--against", model, "--meter", "model", *QUICK)
    assert (
        about["comparisons"][0]["verdict"].startswith("not ranked") and about["comparisons"][0]["difference"]["interval"] is None
    )
    assert any("not ranked" in w for w in about["warnings"])


def trace(path, watts, idle, windows=3, inferences=10):
    """A .bin with timestamps: `windows` seconds of work, idle between them."""
    rate = 1000
    power = np.full(rate * (2 * windows + 1), idle)
    stamps = [0.0]
    for w in range(windows):
        power[rate * (2 * w + 1) : rate * (2 * w + 2)] = watts
        stamps += [2 * w + 1.0, 2 * w + 2.0]
    data = b"\xf1" + struct.pack("<f", rate) + (power * 1e3).astype("<f4").tobytes()  # W x 1 ms in uJ
    (path / "t-energy.bin").write_bytes(data)
    (path / "t-timestamps.json").write_text(json.dumps(stamps))
    return str(path / "t-energy.bin")


def test_a_trace_of_a_board(capsys, tmp_path):
    file = trace(tmp_path, 0.075, 0.025)
    about = profile(capsys, "kws.tflite", "--meter", f"trace:{file}", "--inferences", "10", "--report", f"{tmp_path}/r.json")
    assert about["evidence_class"] == "A"
    assert about["gross_joules"] == pytest.approx(0.0075, rel=5e-4) and about["net_joules"] == pytest.approx(0.005, rel=2e-3)
    assert replay(load(tmp_path / "r.json")) == (tmp_path / "r.json").read_text()


def test_a_trace_whose_idle_is_busier_than_its_work(capsys, tmp_path):
    about = profile(capsys, "kws.tflite", "--meter", f"trace:{trace(tmp_path, 0.03, 0.05)}")
    assert about["net_joules"] is None and "not clearly below" in about["net_reason"]


def test_a_trace_without_windows(capsys, tmp_path):
    (tmp_path / "p.csv").write_text("t,p\n" + "".join(f"{k / 100},{1 + (100 <= k < 200)}\n" for k in range(300)))
    args = ["kws", "--meter", f"trace:{tmp_path}/p.csv", "--columns", "time=t,power=p"]
    assert "tells no windows" in profile(capsys, *args, code=1)
    assert profile(capsys, *args, "--window", "1:2")["gross_joules"] == pytest.approx(2.0, rel=0.01)
    assert profile(capsys, *args, "--threshold", "1.5")["gross_joules"] == pytest.approx(2.0, rel=0.02)
    assert "wants START:END" in profile(capsys, *args, "--window", "2:1", code=2)


def test_a_board_bundle(capsys, tmp_path):
    bundle = tmp_path / "kws-l4r5"
    bundle.mkdir()
    (bundle / "manifest.json").write_text(json.dumps({"board": "stm32l4r5", "instructions": 2_000_000}))
    about = profile(capsys, str(bundle), "--meter", "model", "--report", f"{tmp_path}/r.json")
    assert about["seconds"] is None  # the board is not here
    for form in ("e.csv", "e.prom", "e.html", "cyclonedx:b.json"):
        assert (
            main(
                [
                    "energy",
                    "convert",
                    f"{tmp_path}/r.json",
                    form.replace(":", f":{tmp_path}/") if ":" in form else f"{tmp_path}/{form}",
                ]
            )
            == 0
        )
    assert main(["profile", str(bundle), "--meter", "model"]) == 0
    capsys.readouterr()
    assert about["evidence_class"] == "D" and about["gross_joules"] == pytest.approx(2e6 * 195 * 1.8 * 1.3 * 1e-12)
    assert replay(load(tmp_path / "r.json")) == (tmp_path / "r.json").read_text()
    assert profile(capsys, str(bundle))["evidence_class"] == "X"
    (bundle / "manifest.json").write_text(json.dumps({"instructions_per_inference": {"total": 1000}}))
    assert profile(capsys, str(bundle), "--meter", "model")["gross_joules"] == pytest.approx(3e-7)
    (bundle / "manifest.json").write_text("{}")
    assert "has no `instructions`" in profile(capsys, str(bundle), "--meter", "model", code=1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--windows", "0"], ["--seconds", "-1"], ["--embodied", "3"], ["--meter-accuracy", "200"], ["--inferences", "0"],
    ],
)  # fmt: skip
def test_wrong_usage(capsys, model, arguments):
    profile(capsys, model, *arguments, code=2)


@pytest.mark.parametrize(
    "arguments",
    [["--country", "XX"], ["--country", "FR", "--embodied", "x"], ["--report", "r.pdf"], ["--meter", "trace:none.bin"]],
)
def test_what_cannot_be_done(capsys, model, arguments):
    assert "frugal: error" in profile(capsys, model, *arguments, code=1)


# ---- reports ----


@pytest.fixture
def report(capsys, tmp_path, model):
    file = trace(tmp_path, 0.075, 0.025)
    profile(
        capsys, "kws.tflite", "--meter", f"trace:{file}", "--country", "FR", "--embodied", "2,5", "--quality", "accuracy=0.91",
        "--report", f"{tmp_path}/r.json",
    )  # fmt: skip
    return tmp_path / "r.json"


def test_csv_has_codecarbons_columns(report, tmp_path):
    assert main(["energy", "convert", str(report), f"{tmp_path}/e.csv"]) == 0
    (row,) = csv.DictReader(io.StringIO((tmp_path / "e.csv").read_text()))
    assert list(row)[: len(CODECARBON)] == list(CODECARBON)
    assert float(row["energy_consumed"]) == pytest.approx(3 * 0.075 / 3.6e6, rel=1e-3)
    assert row["evidence_class"] == "A" and row["country_iso_code"] == "FRA" and float(row["duration"]) == pytest.approx(3)
    assert float(row["emissions_low"]) < float(row["emissions"]) < float(row["emissions_high"])


def test_openmetrics_parses(report, tmp_path):
    """By the grammar of the standard: metadata before samples, labels quoted, a final EOF."""
    import re

    main(["energy", "convert", str(report), f"{tmp_path}/e.prom"])
    lines = (tmp_path / "e.prom").read_text().splitlines()
    assert lines[-1] == "# EOF" and "" not in lines
    seen = {}
    for line in lines[:-1]:
        meta = re.fullmatch(r"# (TYPE|UNIT|HELP) ([a-z_]+) (.*)", line)
        if meta:
            seen.setdefault(meta[2], {})[meta[1]] = meta[3]
            continue
        sample = re.fullmatch(r'([a-z_]+)\{((?:[a-z_]+="(?:[^"\\]|\\.)*",?)*)\} ([-+0-9.e]+)', line)
        assert sample, line
        family = sample[1].removesuffix("_info")
        assert seen[family]["TYPE"] in ("gauge", "info")
        if "UNIT" in seen[family]:
            assert family.endswith("_" + seen[family]["UNIT"])
    assert any(line.startswith("frugal_inference_energy_joules{") for line in lines)


def test_openmetrics_by_the_reference_parser(report, tmp_path):
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    main(["energy", "convert", str(report), f"{tmp_path}/e.prom"])
    families = {f.name: f for f in parser.text_string_to_metric_families((tmp_path / "e.prom").read_text())}
    (sample,) = families["frugal_inference_energy_joules"].samples
    assert sample.value == pytest.approx(0.075, rel=1e-3) and sample.labels["evidence_class"] == "A"


def test_boamps_has_what_its_schema_requires(report, tmp_path):
    """Written from Boavizta's data model 1.1: required keys, enumerations, types (their schema files are not bundled)."""
    main(["energy", "convert", str(report), f"boamps:{tmp_path}/b.json"])
    b = json.loads((tmp_path / "b.json").read_text())
    assert {"task", "measures", "infrastructure"} <= b.keys()
    assert {"taskStage", "taskFamily", "algorithms", "dataset"} <= b["task"].keys()
    assert b["header"]["reportDatetime"] and b["header"]["publisher"]["confidentialityLevel"] in ("public", "internal")
    for d in b["task"]["dataset"]:
        assert d["dataUsage"] in ("input", "output") and d["dataType"] in ("other", "token", "image", "text", "audio")
    for m in b["measures"]:
        assert isinstance(m["measurementMethod"], str) and m["powerConsumption"] == pytest.approx(0.225 / 3.6e6, rel=1e-3)
        assert m["durationCalibrationMeasurement"] > 0
    assert b["infrastructure"]["infraType"] in ("publicCloud", "privateCloud", "onPremise", "other")
    assert all({"componentType", "nbComponent"} <= c.keys() for c in b["infrastructure"]["components"])
    assert b["system"]["os"] and b["software"]["language"] and b["quality"] == "high" and b["environment"]["country"] == "France"


def test_cyclonedx_is_valid(report, tmp_path):
    main(["energy", "convert", str(report), f"cyclonedx:{tmp_path}/bom.json"])
    text = (tmp_path / "bom.json").read_text()
    bom = json.loads(text)
    (component,) = bom["components"]
    (energy,) = component["modelCard"]["considerations"]["environmentalConsiderations"]["energyConsumptions"]
    assert energy["activity"] == "inference" and energy["activityEnergyCost"]["unit"] == "kWh"
    assert energy["activityEnergyCost"]["value"] == pytest.approx(0.075 / 3.6e6, rel=1e-3)
    assert component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"] == [{"type": "accuracy", "value": "0.91"}]
    validation = pytest.importorskip("cyclonedx.validation.json")
    from cyclonedx.schema import SchemaVersion

    assert validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_sci_is_the_equation(report, tmp_path):
    main(["energy", "convert", str(report), f"sci:{tmp_path}/s.json"])
    score = json.loads((tmp_path / "s.json").read_text())["scores"]["kws"]
    m = 2000 * 1.0 / (5 * 365.25 * 86400)  # grams of a second
    assert score["M_g"] == pytest.approx(m, rel=1e-3)
    for i in (0, 1):
        want = score["E_kwh"][i] * score["I_g_per_kwh"][i] + score["M_g"]
        assert score["sci_g"][i] == pytest.approx(want)


def test_model_card_is_yaml(report, tmp_path):
    main(["energy", "convert", str(report), f"card:{tmp_path}/c.md"])
    text = (tmp_path / "c.md").read_text()
    head = text.split("---")[1]
    yaml = pytest.importorskip("yaml")
    emissions = yaml.safe_load(head)["co2_eq_emissions"]
    assert (
        emissions["emissions"] > 0
        and emissions["training_type"] == "inference"
        and emissions["geographical_location"] == "France"
    )
    assert "evidence class A" in text


def test_forms_refuse_what_they_cannot_say(capsys, tmp_path, model):
    profile(capsys, model, "--meter", f"powercap:{tmp_path}", *QUICK, "--report", f"{tmp_path}/x.json")
    for form in ("boamps", "cyclonedx", "sci", "card"):
        assert main(["energy", "convert", f"{tmp_path}/x.json", f"{form}:{tmp_path}/y"]) == 1
        assert "unavailable (class X)" in capsys.readouterr().err
    assert main(["energy", "convert", f"{tmp_path}/x.json", f"{tmp_path}/x.csv", f"{tmp_path}/x.prom"]) == 0
    (row,) = csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text()))
    assert row["energy_consumed"] == "" and row["gross_joules"] == "" and row["evidence_class"] == "X"
    assert "frugal_inference_energy_joules{" not in (tmp_path / "x.prom").read_text()


def test_a_changed_report_is_found(capsys, report, tmp_path):
    document = json.loads(report.read_text())
    document["results"]["variants"]["kws"]["gross"]["joules"] /= 2
    report.write_text(dumps(document))
    assert main(["energy", "replay", str(report), "--check"]) == 1
    assert "do not follow from its raw data" in capsys.readouterr().err
    document["raw"]["channels"][0]["values"]["data"] = document["raw"]["channels"][0]["times"]["data"]
    report.write_text(dumps(document))
    assert main(["energy", "replay", str(report)]) == 1
    assert "SHA-256 differs" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": NaN}', '{"schema": "other"}', "[" * 100_000])
def test_no_report(capsys, tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    assert main(["energy", "replay", f"{tmp_path}/r.json"]) == 1
    assert "frugal: error" in capsys.readouterr().err


def test_damaged_reports_are_refused_not_crashed_on(capsys, report):
    """Every value of a report replaced by others, one at a time: an answer or an error, never a crash."""
    import random

    rng = random.Random(3)
    document = json.loads(report.read_text())

    def places(value, path=()):
        if isinstance(value, dict):
            for k, v in value.items():
                yield (*path, k)
                yield from places(v, (*path, k))
        elif isinstance(value, list):
            for i, v in enumerate(value):
                yield (*path, i)
                yield from places(v, (*path, i))

    found = list(places({k: document[k] for k in ("raw", "models", "options", "protocol", "machine")}))
    for path in rng.sample(found, min(120, len(found))):
        damaged = json.loads(report.read_text())
        at = damaged
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = rng.choice([None, -1, "x", [], {}, 1e308])
        report_file = report.with_name("damaged.json")
        report_file.write_text(json.dumps(damaged))
        main(["energy", "replay", str(report_file)])
        assert "a defect of frugal" not in capsys.readouterr().err, path


def test_meters_are_listed(capsys):
    assert main(["energy", "meters", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["meters"]
    assert [r["meter"] for r in rows][:2] == ["powercap", "perf"]
    assert all(r["evidence_class"] == "B" or r["reason"] for r in rows)


def test_reports_match_the_published_schema(capsys, report, tmp_path, model):
    """The schema that the package holds and docs/energy.md points to."""
    from pathlib import Path

    import frugal.energy.report as module

    jsonschema = pytest.importorskip("jsonschema")
    file = Path(module.__file__).with_name("report.schema.json")
    schema = json.loads(file.read_text())
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    profile(capsys, model, "--meter", f"powercap:{tmp_path}", *QUICK, "--report", f"{tmp_path}/x.json")
    profile(capsys, model, "--meter", "model", *QUICK, "--report", f"{tmp_path}/d.json", "--against", model, "--country", "FR")
    for path in (report, tmp_path / "x.json", tmp_path / "d.json"):
        validator.validate(json.loads(path.read_text()))
    damaged = json.loads(report.read_text())
    damaged["results"]["variants"]["kws"]["gross"]["evidence_class"] = "X"  # with joules: a contradiction
    assert not validator.is_valid(damaged)


# ---- the page ----


class Page(HTMLParser):
    """Whether the tags of a page match, what it loads, and its text."""

    VOID = ("meta",)

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.loads, self.text, self.tags = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "action", "data") or key.startswith("on"):
                self.loads.append((tag, key, value))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page(tmp_path, report):
    assert main(["energy", "convert", str(report), f"{tmp_path}/r.html"]) == 0
    text = (tmp_path / "r.html").read_text()
    found = Page(text)
    assert not found.loads and "script" not in found.tags and "://" not in text and "@import" not in text and "url(" not in text
    assert "NaN" not in text and "None" not in " ".join(found.text)
    return found, text


def test_page_of_a_trace(report, tmp_path):
    found, text = page(tmp_path, report)
    words = " ".join(found.text)
    for heading in ("Power over time", "Windows", "Gross and net", "Carbon", "Uncertainty and channels", "Sources"):
        assert heading in words
    assert found.tags.count("svg") == 6  # three plots, wide and narrow
    assert "SCI" in words and "accuracy 0.91" in words and "@media print" in text


def test_page_of_a_comparison_with_operators(capsys, tmp_path, model):
    with Machine(tmp_path):
        profile(capsys, model, "--against", model, "--meter", f"powercap:{tmp_path}", *QUICK, "--report", f"{tmp_path}/r.json")
    found, _ = page(tmp_path, tmp_path / "r.json")
    words = " ".join(found.text)
    assert "Comparison" in words and "Operators and roofline" in words and "Gop/s" in words


def test_page_of_an_unavailable_figure_says_so(capsys, tmp_path, model):
    profile(capsys, model, "--meter", f"powercap:{tmp_path}", *QUICK, "--report", f"{tmp_path}/r.json")
    found, _ = page(tmp_path, tmp_path / "r.json")
    words = " ".join(found.text)
    assert "unavailable" in words and "no such folder" in words and "Power over time" not in words


def test_page_escapes_what_a_model_is_called(capsys, tmp_path):
    (tmp_path / "t").mkdir()
    file = trace(tmp_path / "t", 0.075, 0.025)
    name = "<script>alert(1)</script>&"
    profile(capsys, f"{name.replace('/', chr(92))}", "--meter", f"trace:{file}", "--report", f"{tmp_path}/r.json")
    _, text = page(tmp_path, tmp_path / "r.json")
    assert "&lt;script&gt;" in text


def test_operators_measured_alone(capsys, tmp_path, model):
    args = ("--windows", "6", "--seconds", "0.05", "--warmup", "0.2", "--shape", "ids=1x4096", "--threads", "1")
    with Machine(tmp_path):
        profile(
            capsys, model, "--operators", "repeated", "--meter", f"powercap:{tmp_path}", *args, "--report", f"{tmp_path}/r.json"
        )
    report = load(tmp_path / "r.json")
    assert replay(report) == (tmp_path / "r.json").read_text()
    about = report["operators"]["embed"]
    measured = [s for s in about["steps"] if s.get("repeated_joules") is not None]
    assert about["method"] == "repeated" and measured and all(s["repeated_times"] >= 2 for s in measured)
    assert math.fsum(s["joules"] for s in about["steps"]) == report["results"]["variants"]["embed"]["gross"]["joules"]


def test_quality_of_each_model(capsys, tmp_path, model):
    quality = ("--quality", "acc=0.9", "--quality", "embed#2:acc=0.8")
    about = profile(capsys, model, "--against", model, "--meter", "model", *QUICK, *quality)
    assert [v["quality"] for v in about["variants"].values()] == [{"acc": "0.9"}, {"acc": "0.8"}]
    assert "there is no model" in profile(capsys, model, "--meter", "model", *QUICK, "--quality", "x:acc=1", code=2)
