"""Every board gives the PC's bytes: bundles are built, run under QEMU, and checked by their own self-test."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import nets
import numpy as np
import pytest

import models as packages
from frugal.deploy import DoesNotFit, Options, boards, deploy
from frugal.errors import InvalidArgument, NotAvailable, UnsupportedOperator

BOARDS = boards.names()
QUICK = {"keyword": BOARDS, "image": ["mps2-an385", "mps2-an386", "mps3-an547"], "wake": ["microbit", "mps2-an505", "mps3-an547"],
         "digits": ["mps2-an386", "riscv32-virt"], "gru": ["microbit", "mps2-an500"]}  # fmt: skip


def test_every_backend_has_a_board():
    assert {boards.load(name).backend for name in BOARDS} == set(boards.BACKENDS)
    assert len(BOARDS) == 11


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("model", nets.MAKERS)
def test_the_bytes_of_the_pc(model, board, models, tmp_path, tooled, request):
    if board not in QUICK[model] and not request.config.getoption("--all-boards"):
        pytest.skip("--all-boards runs every model on every board")
    found = boards.tools(boards.load(board))
    if found.missing:
        pytest.skip(f"missing: {', '.join(found.missing)} ({found.install})")
    manifest = deploy(models[model], tmp_path / "out", Options(board, states=nets.STATEFUL.get(model, {}))).manifest
    assert manifest["instructions_per_inference"] > 1000  # it ran, and its exit code was 0
    assert manifest["ram"]["arena"] >= manifest["ram"]["live_bound"]
    assert manifest["notes"] == []
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest


@pytest.mark.parametrize("board", ["microbit", "mps2-an386", "mps3-an547"])
@pytest.mark.parametrize("seed", range(12))
def test_shapes_of_all_kinds(seed, board, tmp_path, tooled, request):
    if seed >= 1 and not request.config.getoption("--all-boards"):
        pytest.skip("--all-boards tries more shapes")
    if boards.tools(boards.load(board)).missing:
        pytest.skip(f"no tools for {board}")
    model = nets.shapes(tmp_path / "shapes.onnx", seed)
    report = deploy(model, tmp_path / "out", Options(board, cases=8))
    assert report.manifest["instructions_per_inference"] > 1000
    assert report.refused or seed > 1  # some shapes are for the general kernels


TRIGGERED = r"""
#include <stdio.h>
#include "model.h"
static char seen[16];
static int n;
void model_begins(void) { seen[n++] = 'b'; }
void model_ends(void) { seen[n++] = 'e'; }
int main(void) {
    if (model_init() != 0) return 2;
    for (int i = 0; i < 3; i++) model_run();
    return puts(seen) < 0;
}
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="needs cc")
def test_a_pin_marks_each_inference(models, tmp_path):
    """With -DMODEL_TRIGGER the program's two functions are called around every run; without it the model does not know them."""
    out = tmp_path / "out"
    deploy(models["keyword"], out, Options("aarch64-linux", measure=False))
    (out / "triggered.c").write_text(TRIGGERED)
    sources = [f.name for f in out.glob("*.c") if f.name not in ("selftest.c",)]
    command = ["cc", "-std=c11", "-O1", "-ffp-contract=off", *sources, "-lm", "-o", "triggered"]
    subprocess.run([*command, "-DMODEL_TRIGGER"], cwd=out, check=True)
    assert subprocess.run([out / "triggered"], capture_output=True, text=True, check=True).stdout == "bebebe\n"
    subprocess.run(command, cwd=out, check=True)
    assert subprocess.run([out / "triggered"], capture_output=True, text=True, check=True).stdout == "\n"


REAL = Path(__file__).parent.parent / "data" / "tflite"
M = 1_000_000


@pytest.mark.parametrize(
    "model, board, instructions, arena",
    [
        ("kws_ref_model", "mps2-an386", 3.7 * M, 20_000),
        ("kws_ref_model", "mps3-an547", 0.95 * M, 20_000),
        ("kws_ref_model", "microbit", 20 * M, 20_000),
        ("pretrainedResnet_quant", "netduinoplus2", 13.5 * M, 50_000),
        ("pretrainedResnet_quant", "mps3-an547", 2.6 * M, 50_000),
    ],
)
def test_networks_of_mlperf_tiny(model, board, instructions, arena, tmp_path, tooled):
    """Through the TFLite import; what issue 7 asks of instructions and memory."""
    if boards.tools(boards.load(board)).missing:
        pytest.skip(f"no tools for {board}")
    cases = 20 if model.startswith("kws") else 5
    manifest = deploy(REAL / f"{model}.tflite", tmp_path / "out", Options(board, cases=cases)).manifest
    assert manifest["instructions_per_inference"] <= instructions
    assert manifest["ram"]["arena"] <= arena
    assert manifest["flash"]["code"] <= 20_000
    assert manifest["instructions_init"] <= 8 * manifest["flash"]["weights"]  # a checksum, and nothing else
    assert manifest["inputs"][0]["scale"] is not None and manifest["outputs"][0]["zero"] == -128


@pytest.mark.parametrize("model", ["kws_ref_model", "pretrainedResnet_quant"])
@pytest.mark.parametrize("board", BOARDS)
def test_networks_of_mlperf_tiny_everywhere(model, board, tmp_path, tooled, request):
    if not request.config.getoption("--all-boards"):
        pytest.skip("--all-boards runs both networks on every board")
    if boards.tools(boards.load(board)).missing:
        pytest.skip(f"no tools for {board}")
    if (model, board) == ("pretrainedResnet_quant", "microbit"):
        with pytest.raises(DoesNotFit, match="16384 bytes of RAM"):
            deploy(REAL / f"{model}.tflite", tmp_path / "out", Options(board))
        return
    deploy(REAL / f"{model}.tflite", tmp_path / "out", Options(board))


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("name", ["okay_nabu", "alexa"])
def test_wake_words_keep_their_state(name, board, tmp_path, tooled, request):
    """Twenty runs one after another, the states of each those of the one before."""
    if (name != "okay_nabu" or board not in ("microbit", "mps2-an386")) and not request.config.getoption("--all-boards"):
        pytest.skip("--all-boards runs every wake word on every board")
    if boards.tools(boards.load(board)).missing:
        pytest.skip(f"no tools for {board}")
    model = packages.fetch_or_skip("wake-words") / f"{name}.tflite"
    manifest = deploy(model, tmp_path / "out", Options(board)).manifest
    assert sum(port["state"] is not None for port in manifest["inputs"]) == 6
    assert manifest["ram"]["arena"] <= 6000


def test_a_wrong_byte_fails_the_self_test(models, tmp_path, tooled):
    if boards.tools(boards.load("mps2-an386")).missing:
        pytest.skip("no Cortex-M4 here")
    out = tmp_path / "out"
    deploy(models["keyword"], out, Options("mps2-an386", cases=2))
    assert subprocess.run(["make", "-s", "check"], cwd=out, capture_output=True, check=False).returncode == 0
    golden = (out / "golden.h").read_text()
    at = golden.index("golden_out[]")
    number = golden[at:].split("\n")[1].split(",")[0].strip()
    (out / "golden.h").write_text(golden[:at] + golden[at:].replace(f" {number},", f" {int(number) ^ 1},", 1))
    done = subprocess.run(["make", "-s", "check"], cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "FAIL" in done.stdout + done.stderr


@pytest.mark.parametrize("file", ["model_data.c", "model.c"])
def test_damaged_constants_are_refused_at_the_start(models, tmp_path, tooled, file):
    if boards.tools(boards.load("mps2-an386")).missing:
        pytest.skip("no Cortex-M4 here")
    out = tmp_path / "out"
    deploy(models["keyword"], out, Options("mps2-an386", cases=1))
    text = (out / file).read_text()
    old, new = ("0x", "0x1") if file == "model_data.c" else (".zy = ", ".zy = 1")
    at = text.index(old, text.index("*/"))
    digits = text[at + len(old) :]
    damaged = text[:at] + (new + digits[1:] if file == "model_data.c" else new + digits.lstrip("-"))
    (out / file).write_text(damaged)
    done = subprocess.run(["make", "-s", "check"], cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "checksum" in done.stdout + done.stderr


def test_the_same_input_gives_the_same_folder(models, tmp_path, tooled):
    measured = not boards.tools(boards.load("mps2-an386")).missing
    for name in "ab":
        deploy(models["image"], tmp_path / name, Options("mps2-an386", measure=measured))
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "b") for p in (tmp_path / "b").rglob("*") if p.is_file())
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_what_does_not_fit_says_by_how_much(models, tmp_path):
    text = boards.load("microbit").path.read_text().replace("ram = 16384", "ram = 2048")
    (tmp_path / "tiny.toml").write_text(text)
    (tmp_path / "arm.ld").write_text(boards.load("microbit").script)
    with pytest.raises(DoesNotFit, match=r"has 2048 bytes of RAM; the model needs \d+ more.*What would make it fit"):
        deploy(models["image"], tmp_path / "out", Options(str(tmp_path / "tiny.toml")))
    assert not (tmp_path / "out").exists()


def test_an_operator_that_boards_lack_is_named(tmp_path):
    m = nets.Maker(7)
    m.node("TopK", ["x", m.constant(np.array([2]))], axis=-1)
    m.nodes[-1].output.append("at")
    m.nodes[-1].output[0] = "y"
    floats, whole = nets.TensorProto.FLOAT, nets.TensorProto.INT64
    model = m.save(tmp_path / "top.onnx", [("x", floats, [1, 8])], [("y", floats, [1, 2]), ("at", whole, [1, 2])])
    with pytest.raises(UnsupportedOperator, match="TOPK does not run on boards"):
        deploy(model, tmp_path / "out", Options("microbit", measure=False))


def test_a_missing_compiler_gives_the_command(models, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotAvailable, match=r"apt-get install -y --no-install-recommends gcc-arm-none-eabi"):
        deploy(models["keyword"], tmp_path / "out", Options("microbit", compiler="gcc"))
    found = boards.tools(boards.load("microbit"), "gcc")
    assert found.missing == ["arm-none-eabi-gcc", "qemu-system-arm"] and "qemu-system-arm" in found.install
    report = deploy(models["keyword"], tmp_path / "out", Options("microbit", compiler="gcc", measure=False))
    assert report.manifest["instructions_per_inference"] is None and report.manifest["notes"]


def test_a_plan_and_a_foreign_folder_are_refused(models, tmp_path):
    (tmp_path / "m.frugal").write_bytes(b"FRUGALP\n" + bytes(100))
    with pytest.raises(InvalidArgument, match="plan for PCs"):
        deploy(tmp_path / "m.frugal", tmp_path / "out", Options("microbit", measure=False))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    with pytest.raises(InvalidArgument, match="no bundle"):
        deploy(models["keyword"], tmp_path / "home", Options("microbit", measure=False))
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"
    with pytest.raises(InvalidArgument, match="there is no board 'amiga'; there are aarch64-linux"):
        boards.load("amiga")
