"""Compiles a bundle's self-test, measures it, and runs it in the board's emulator with the instruction counter."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ..errors import FrugalError
from .boards import Board, Tools
from .images import Image, read_elf
from .sources import folder

COMMON = [
    "-std=c11", "-O2", "-ffp-contract=off", "-fno-math-errno", "-ffunction-sections", "-fdata-sections", "-Wall", "-Wextra",
]  # fmt: skip
GCC_ONLY = ["-fno-tree-loop-distribute-patterns"]
ZIG_ONLY = ["-fno-sanitize=all", "-Wno-unused-command-line-argument"]
LIBC = ["-fno-builtin"]
EMULATOR_SECONDS = 300


@dataclass
class Flags:
    compile: list[str]
    link: list[str]
    libc: list[str]


def flags(board: Board, tools: Tools) -> Flags:
    """Of every file, of the link, and additionally of fb_libc.c."""
    target = board.flags if tools.kind == "gcc" else board.zig
    own = GCC_ONLY if tools.kind == "gcc" else ZIG_ONLY
    include = ["-I.", *([] if board.linux else ["-Ilibc"])]
    stack = [] if board.linux else ["-DBOARD_STACK"]
    if board.linux:
        return Flags([*target, *COMMON, *own, *include], [*target, "-static", "-Wl,--gc-sections", "-lm"], LIBC)
    entry = "Reset_Handler" if board.start == "cortexm" else "_start"  # lld does not take it from the script
    bare = ["-nostdlib"] if tools.kind == "gcc" else ["-nostartfiles", f"-Wl,-e,{entry}"]  # zig brings its own libgcc
    link = [*target, *bare, "-T", "board.ld", "-Wl,--gc-sections", *(["-lgcc"] if tools.kind == "gcc" else [])]
    return Flags([*target, *COMMON, *own, *include, *stack], link, LIBC)


def _run(words: list[str], cwd: Path, what: str) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FrugalError(f"{what} failed: {' '.join(words)}\n{(done.stderr or done.stdout)[-3000:]}")
    return done.stdout + done.stderr


def compile_bundle(path: Path, sources: list[str], board: Board, tools: Tools, out: Path) -> Image:
    """Object by object below `out`, then selftest.elf.  Raises FrugalError with the compiler's words."""
    assert tools.compiler is not None
    f = flags(board, tools)
    out.mkdir(parents=True, exist_ok=True)
    objects = []
    for name in sources:
        target = out / (name.replace("/", "_") + ".o")
        extra = f.libc if name == "libc/fb_libc.c" else []
        _run([*tools.compiler, *f.compile, *extra, "-c", name, "-o", str(target)], path, "compiling")
        objects.append(str(target))
    elf = out / "selftest.elf"
    split = [w for w in f.link if not w.startswith("-l")], [w for w in f.link if w.startswith("-l")]
    _run([*tools.compiler, *split[0], *objects, *split[1], "-o", str(elf)], path, "linking")
    return read_elf(elf.read_bytes())


def plugin(out: Path) -> Path | None:
    """The counting plugin, compiled for this machine; None without a C compiler."""
    cc = shutil.which("cc") or shutil.which("gcc")
    if cc is None:
        return None
    target = out / "count.so"
    if not target.exists():
        _run([cc, "-O2", "-shared", "-fPIC", "-o", str(target), str(folder("mcu") / "qemu" / "count.c")], out, "compiling")
    return target


@dataclass
class Result:
    """Of the self-test in the emulator."""

    code: int
    text: str
    init_instructions: int | None
    instructions: list[int]
    stack: int | None
    symbols: dict[str, int]


def emulate(elf: Path, image: Image, board: Board, count: Path | None, profile: bool = False) -> Result:
    """Run selftest.elf; count: the plugin."""
    words = list(board.emulator)
    if count is not None:
        begin, end = (image.symbols[name][0] & ~1 for name in ("roi_begin", "roi_end"))
        option = f"{count},begin={begin:#x},end={end:#x}" + (",profile=on" if profile else "")
        words += ["-plugin", option, "-d", "plugin"]
    words += [str(elf)] if board.linux else ["-kernel", str(elf)]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=EMULATOR_SECONDS, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as e:
        raise FrugalError(f"the self-test did not end within {EMULATOR_SECONDS} s in {words[0]}") from e
    text = done.stdout + done.stderr
    counts = [int(m) for m in re.findall(r"^roi \d+ instructions=(\d+)", text, re.M)]
    stack = re.search(r"^stack (\d+)", text, re.M)
    symbols = {m[0]: int(m[1]) for m in re.findall(r"^symbol (\S+) instructions=(\d+)", text, re.M)}
    used = int(stack[1]) if stack and int(stack[1]) else None
    return Result(done.returncode, text, counts[0] if counts else None, counts[1:], used, symbols)


def scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="frugal-deploy-")
