"""Flashing against QEMU's gdb server, a fake flasher and a folder; the image formats against what reads them."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import time

import pytest

from frugal.cli import main
from frugal.deploy import Options, boards, deploy, flash, images
from frugal.errors import FrugalError, InvalidArgument, NotAvailable


@pytest.fixture(scope="module")
def bundle(models, tmp_path_factory, tooled):
    if boards.tools(boards.load("netduinoplus2")).missing:
        pytest.skip("no tools for netduinoplus2")
    out = tmp_path_factory.mktemp("flash") / "bundle"
    deploy(models["keyword"], out, Options("netduinoplus2", cases=2))
    return out


@pytest.fixture
def server():
    """(port, started process): a Netduino Plus 2 that is halted and empty."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    words = ["qemu-system-arm", "-M", "netduinoplus2", "-nographic", "-monitor", "none", "-serial", "none"]
    words += ["-semihosting-config", "enable=on,target=native", "-S", "-gdb", f"tcp:127.0.0.1:{port}"]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(100):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield port
    process.kill()
    process.wait()


def test_gdb_loads_compares_and_runs(bundle, server, capsys):
    if not shutil.which("gdb-multiarch"):
        pytest.skip("missing: gdb-multiarch")
    assert main(["flash", str(bundle), "--tool", "gdb", "--target", f"127.0.0.1:{server}", "--run"]) == 0
    text = capsys.readouterr().out
    assert "$ gdb-multiarch" in text and "verified" in text and "exit code 0" in text


def fake(folder, monkeypatch, name: str, script: str) -> None:
    """A program `name` first on PATH."""
    path = folder / name
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_what_is_read_back_is_compared(bundle, tmp_path, monkeypatch, capsys):
    script = 'if [ "$5" = -D ]; then cp "$6" %s; else cp %s "$6"; fi\n' % ((tmp_path / "flash",) * 2)
    fake(tmp_path, monkeypatch, "dfu-util", script)
    assert flash.flash(bundle, "dfu-util", None).verified
    assert "dfu-util -a 0 -s 0x8000000 -D" in capsys.readouterr().out
    fake(tmp_path, monkeypatch, "dfu-util", 'if [ "$5" = -U ]; then head -c 100000 /dev/zero > "$6"; fi\n')
    with pytest.raises(FrugalError, match="differs"):
        flash.flash(bundle, "dfu-util", None)
    fake(tmp_path, monkeypatch, "dfu-util", "echo no device >&2; exit 74\n")
    with pytest.raises(FrugalError, match="exit code 74: no device"):
        flash.flash(bundle, "dfu-util", None)


def test_uf2_is_copied(bundle, tmp_path):
    done = flash.flash(bundle, "uf2", str(tmp_path))
    data = (tmp_path / "selftest.uf2").read_bytes()
    assert done.verified and len(data) % 512 == 0
    start, second, flags, address, size, block, blocks, family = struct.unpack_from("<8I", data)
    assert (start, second, flags) == (0x0A324655, 0x9E5D5157, 0x2000)
    assert (address, size, block, blocks, family) == (0x08000000, 256, 0, len(data) // 512, 0x57755A57)


def test_images_are_what_objcopy_makes(bundle):
    paths = flash.images(bundle, flash.read_manifest(bundle))
    image = images.read_elf(paths["elf"].read_bytes())
    for kind, format_name in (("bin", "binary"), ("hex", "ihex")):
        made = paths["elf"].with_suffix(".reference")
        subprocess.run(["arm-none-eabi-objcopy", "-O", format_name, paths["elf"], made], check=True)
        if kind == "bin":
            assert image.binary() == (0x08000000, made.read_bytes())
        else:  # objcopy ends with the entry point, which no flasher needs
            ours, theirs = paths["hex"].read_text().split(), made.read_text().split()
            assert [r for r in ours if r[7:9] == "00"] == [r for r in theirs if r[7:9] == "00"]


def test_wrong_use(bundle, tmp_path, monkeypatch):
    with pytest.raises(InvalidArgument, match="is flashed with"):
        flash.flash(bundle, "esptool", None)
    with pytest.raises(InvalidArgument, match="HOST:PORT"):
        flash.flash(bundle, "gdb", None)
    with pytest.raises(InvalidArgument, match="no bundle"):
        flash.flash(tmp_path, "gdb", "x:1")
    if not shutil.which("openocd"):
        with pytest.raises(NotAvailable, match="apt-get install -y openocd"):
            flash.flash(bundle, "openocd", None)
    shown: list[str] = []
    assert not flash.flash(bundle, "openocd", None, dry=True, show=shown.append).verified
    assert "program" in shown[0] and "verify" in shown[0]


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\x01\x01" + b"\xff" * 100, b"\x7fELF\x02\x01" + b"\x10" * 200])
def test_a_damaged_elf_is_refused(data):
    with pytest.raises(InvalidArgument, match="ELF"):
        images.read_elf(data)
