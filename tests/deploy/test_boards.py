"""Every board gives the PC's bytes: bundles are built, run under QEMU, and checked by their own self-test."""

from __future__ import annotations

import json
import subprocess

import nets
import pytest

from frugal.deploy import DoesNotFit, Options, boards, deploy

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
