"""Boards: one TOML file and one linker script each; which compilers and emulators this machine has for them."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument, NoSuchFile, NotAvailable

HERE = Path(__file__).parent
BACKENDS = ("portable", "dsp", "mve")
# Program -> the package that brings it (Debian), for the install command.
PACKAGES = {
    "arm-none-eabi-gcc": "gcc-arm-none-eabi",
    "riscv64-unknown-elf-gcc": "gcc-riscv64-unknown-elf",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "riscv64-linux-gnu-gcc": "gcc-riscv64-linux-gnu libc6-dev-riscv64-cross",
    "qemu-system-arm": "qemu-system-arm",
    "qemu-system-riscv32": "qemu-system-misc",
    "qemu-system-riscv64": "qemu-system-misc",
    "qemu-aarch64": "qemu-user",
    "qemu-riscv64": "qemu-user",
    "gdb-multiarch": "gdb-multiarch",
    "cc": "gcc",
}


@dataclass
class Board:
    """A board's file, checked."""

    name: str
    title: str
    backend: str
    hard_float: bool
    flash: int  # bytes; 0: no limit
    ram: int
    start: str  # start-up code of kernels/mcu/start
    script: str  # the linker script's text; "" on Linux
    flags: list[str]
    compiler: str
    zig: list[str]
    emulator: list[str]
    uf2_family: int
    flash_base: int
    flashers: dict[str, str | list[str]] = field(default_factory=dict)
    path: Path = Path()

    @property
    def linux(self) -> bool:
        return not self.script


def _read(data: dict[str, Any], path: Path) -> Board:
    def need(table: str, key: str, kind: type) -> Any:
        value = data.get(table, {}).get(key) if table else data.get(key)
        if not isinstance(value, kind):
            where = f"[{table}] {key}" if table else key
            raise InvalidArgument(f"{path}: want {where} = a {kind.__name__}, got {value!r}")
        return value

    backend = need("kernels", "backend", str)
    if backend not in BACKENDS:
        raise InvalidArgument(f"{path}: backend {backend!r} is none of {', '.join(BACKENDS)}")
    script_name = data.get("memory", {}).get("script", "")
    script = path.parent / script_name
    if script_name and not script.is_file():
        raise NoSuchFile(f"{path}: there is no linker script {script}")
    return Board(
        name=path.stem,
        title=need("", "title", str),
        backend=backend,
        hard_float=need("kernels", "hard_float", bool),
        flash=int(data.get("memory", {}).get("flash", 0)),
        ram=int(data.get("memory", {}).get("ram", 0)),
        start=need("", "start", str),
        script=script.read_text() if script_name else "",
        flags=list(need("compiler", "flags", list)),
        compiler=need("compiler", "gcc", str),
        zig=list(data.get("compiler", {}).get("zig", [])),
        emulator=list(data.get("emulator", {}).get("command", [])),
        uf2_family=int(data.get("flash", {}).get("uf2_family", 0)),
        flash_base=int(data.get("memory", {}).get("flash_base", 0)),
        flashers=dict(data.get("flash", {}).get("commands", {})),
        path=path,
    )


def names() -> list[str]:
    return sorted(p.stem for p in (HERE / "boards").glob("*.toml"))


def load(name: str) -> Board:
    """A board by name, or by the path of a TOML file.  Raises InvalidArgument, NoSuchFile."""
    path = Path(name) if name.endswith(".toml") else HERE / "boards" / f"{name}.toml"
    if not path.is_file():
        if name.endswith(".toml"):
            raise NoSuchFile(f"{name}: no such file")
        raise InvalidArgument(f"there is no board {name!r}; there are {', '.join(names())}, or give the path of a .toml file")
    try:
        data = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as e:
        raise InvalidArgument(f"{path}: {e}") from e
    return _read(data, path)


def install_command(programs: list[str]) -> str:
    packages = dict.fromkeys(p for name in programs for p in PACKAGES.get(name, name).split())
    return "apt-get install -y --no-install-recommends " + " ".join(packages)


@dataclass
class Tools:
    """What there is for a board; compiler: the words that a compile command begins with."""

    compiler: list[str] | None
    kind: str  # gcc or zig
    emulator: bool
    missing: list[str]
    install: str


def zig() -> list[str] | None:
    """The compiler that `pip install ziglang` brings."""
    return [sys.executable, "-m", "ziglang", "cc"] if importlib.util.find_spec("ziglang") else None


def tools(board: Board, compiler: str = "auto") -> Tools:
    """compiler: auto (gcc, else zig), gcc or zig."""
    missing = []
    found: list[str] | None = None
    kind = "gcc"
    if compiler in ("auto", "gcc") and shutil.which(board.compiler):
        found = [board.compiler]
    elif compiler in ("auto", "zig") and board.zig and zig():
        found, kind = zig(), "zig"
    if found is None:
        missing.append(board.compiler)
    emulator = not board.emulator or bool(shutil.which(board.emulator[0]))
    if not emulator:
        missing.append(board.emulator[0])
    return Tools(found, kind, emulator, missing, install_command(missing) if missing else "")


def need_compiler(board: Board, compiler: str = "auto") -> Tools:
    """Raises NotAvailable with the command that installs what is missing."""
    found = tools(board, compiler)
    if found.compiler is None:
        other = "  (without root: pip install ziglang)" if board.zig else ""
        raise NotAvailable(f"{board.name} needs {board.compiler}: {install_command([board.compiler])}{other}")
    return found
