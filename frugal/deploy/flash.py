"""Puts a bundle's self-test on a board: builds the images, shows and runs a flashing tool's command, verifies the result."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FrugalError, InvalidArgument, NotAvailable
from .images import Image, intel_hex, read_elf, uf2

INSTALL = {
    "pyocd": "pip install pyocd",
    "openocd": "apt-get install -y openocd",
    "esptool": "pip install esptool",
    "dfu-util": "apt-get install -y dfu-util",
    "picotool": "apt-get install -y picotool",
    "gdb-multiarch": "apt-get install -y gdb-multiarch",
    "make": "apt-get install -y make",
}
SECONDS = 300
RISCV = 243


@dataclass
class Flashed:
    """commands: what was (or, dry, would be) run; exit_code: of the self-test, when gdb ran it."""

    commands: list[str]
    verified: bool
    exit_code: int | None = None


def read_manifest(bundle: Path) -> dict[str, Any]:
    """Raises InvalidArgument when the folder is no bundle."""
    try:
        manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    except (OSError, ValueError) as e:
        raise InvalidArgument(f"{bundle} is no bundle of frugal deploy: {e}") from e
    return manifest


def images(bundle: Path, manifest: dict[str, Any]) -> dict[str, Path]:
    """Build the self-test, and from the ELF a HEX, a BIN and a UF2 beside it."""
    _need("make")
    done = subprocess.run(["make", "-s", "all"], cwd=bundle, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FrugalError(f"building failed: {(done.stderr or done.stdout)[-2000:]}")
    paths = {kind: bundle / "build" / f"selftest.{kind}" for kind in ("elf", "hex", "bin", "uf2")}
    image = read_elf(paths["elf"].read_bytes())
    paths["hex"].write_text(intel_hex(image))
    paths["bin"].write_bytes(image.binary()[1])
    paths["uf2"].write_bytes(uf2(image, int(manifest.get("flash_tools", {}).get("uf2_family", 0))))
    return paths


def tools(manifest: dict[str, Any]) -> list[str]:
    """What this bundle can be flashed with."""
    return [*sorted(manifest.get("flash_tools", {}).get("commands", {})), "gdb", "uf2"]


def flash(
    bundle: Path, tool: str, target: str | None, run: bool = False, dry: bool = False, show: Callable[[str], None] = print
) -> Flashed:
    """tool: one of `tools`; target: gdb's host:port, or the folder of a mounted UF2 drive; run: the self-test, through gdb."""
    manifest = read_manifest(bundle)
    if tool not in tools(manifest):
        raise InvalidArgument(f"{manifest['board']} is flashed with {', '.join(tools(manifest))}; not {tool!r}")
    if tool in ("gdb", "uf2") and target is None:
        raise InvalidArgument("--target: want gdb's HOST:PORT" if tool == "gdb" else "--target: want the folder of the UF2 drive")
    paths = images(bundle, manifest)
    image = read_elf(paths["elf"].read_bytes())
    if tool == "uf2":
        return _copy(paths["uf2"], Path(str(target)), dry, show)
    if tool == "gdb":
        return _gdb(paths["elf"], str(target), image, run, dry, show)
    return _commands(manifest, tool, paths, image, dry, show)


def _need(program: str) -> None:
    if not shutil.which(program):
        raise NotAvailable(f"{program} is not installed: {INSTALL.get(program, 'install ' + program)}")


def _run(words: list[str]) -> str:
    _need(words[0])
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as e:
        raise FrugalError(f"{words[0]} did not end within {SECONDS} s") from e
    if done.returncode != 0:
        raise FrugalError(f"{words[0]} failed with exit code {done.returncode}: {(done.stderr or done.stdout)[-1500:]}")
    return done.stdout + done.stderr


def _commands(
    manifest: dict[str, Any], tool: str, paths: dict[str, Path], image: Image, dry: bool, show: Callable[[str], None]
) -> Flashed:
    """The board's own commands; one that names {readback} brings the flash back, to be compared here."""
    given = manifest["flash_tools"]["commands"][tool]
    base, data = image.binary()
    readback = paths["bin"].with_suffix(".readback")
    values = {kind: shlex.quote(str(path)) for kind, path in paths.items()}
    values |= {"base": hex(base), "bytes": str(len(data)), "readback": shlex.quote(str(readback))}
    lines = [text.format(**values) for text in ([given] if isinstance(given, str) else given)]
    for line in lines:
        show(line)
        if not dry:
            _run(shlex.split(line))
    compares = any("{readback}" in text for text in ([given] if isinstance(given, str) else given))
    if compares and not dry and readback.read_bytes()[: len(data)] != data:
        raise FrugalError(f"{tool}: what was read back from the board differs from what was written")
    return Flashed(lines, not dry)


def _copy(source: Path, drive: Path, dry: bool, show: Callable[[str], None]) -> Flashed:
    """A UF2 onto a mounted drive; boards that leave at once (and take the drive with them) have accepted the file."""
    line = f"cp {shlex.quote(str(source))} {shlex.quote(str(drive))}/"
    show(line)
    if dry:
        return Flashed([line], False)
    if not drive.is_dir():
        raise InvalidArgument(f"{drive}: no such folder; is the board in its boot loader?")
    target = drive / source.name
    shutil.copyfile(source, target)
    if target.exists() and target.read_bytes() != source.read_bytes():
        raise FrugalError(f"{target} differs from {source} after copying")
    return Flashed([line], target.exists())


def _gdb(elf: Path, target: str, image: Image, run: bool, dry: bool, show: Callable[[str], None]) -> Flashed:
    """load, compare-sections, and the self-test up to its exit code."""
    steps = [f"target remote {target}", "load", "compare-sections"]
    if run:
        top = image.symbols["__stack_top"][0]
        stop, register = image.symbols["board_exit"][0] & ~1, "$a0" if image.machine == RISCV else "$r0"
        steps += [f"set $sp = {top:#x}", f"break *{stop:#x}", "continue", f'printf "exit code %d\\n", {register}']
    words = ["gdb-multiarch", "-q", "-batch", *(w for s in steps for w in ("-ex", s)), str(elf)]
    show(shlex.join(words))
    if dry:
        return Flashed([shlex.join(words)], False)
    text = _run(words)
    if "MIS-MATCHED" in text or "matched" not in text:
        raise FrugalError(f"what gdb read back differs from the image:\n{text[-1000:]}")
    code = re.search(r"^exit code (\d+)", text, re.M)
    if run and code is None:
        raise FrugalError(f"the self-test did not come to its end under gdb:\n{text[-1000:]}")
    return Flashed([shlex.join(words)], True, int(code[1]) if code else None)
