"""Makefile, CMakeLists.txt, README and the long messages of bundles."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Sequence

from ..compiler.ir import DType
from . import build
from .boards import Board, Tools
from .emit import C_TYPES, Placed, safe


def linker_script(board: Board) -> str:
    """The board's script with the numbers of its TOML file."""
    memory = tomllib.loads(board.path.read_text())["memory"]
    text = board.script
    for key in ("flash_base", "flash", "ram_base", "ram"):
        name = "FRUGAL_" + (key if key.endswith("base") else key + "_bytes").upper()
        text = text.replace(name, hex(int(memory.get(key, 0))))
    return text


def makefile(board: Board, made: Tools, sources: Sequence[str]) -> str:
    """all, check, hex, bin, size, clean.  The compiler is the one that is there, by name only, so that any machine can build."""
    kind = made.kind if made.compiler else "gcc"
    compiler = board.compiler if kind == "gcc" else "python3 -m ziglang cc"
    f = build.flags(board, Tools([compiler], kind, True, [], ""))
    link = [w for w in f.link if not w.startswith("-l")], [w for w in f.link if w.startswith("-l")]
    prefix = board.compiler.removesuffix("gcc")
    emulator = shlex.join(board.emulator)
    run = f"{emulator} build/selftest.elf" if board.linux else f"{emulator} -kernel build/selftest.elf"
    objects = " ".join(f"build/{name.replace('/', '_')}.o" for name in sources)
    rules = "\n".join(
        f"build/{name.replace('/', '_')}.o: {name} $(wildcard *.h */*.h) | build\n"
        f"\t$(CC) $(CFLAGS){' ' + ' '.join(f.libc) if name == 'libc/fb_libc.c' else ''} -c {name} -o $@"
        for name in sources
    )
    images = (
        ""
        if board.linux
        else f"""
hex: build/selftest.elf
\t{prefix}objcopy -O ihex $< build/selftest.hex
bin: build/selftest.elf
\t{prefix}objcopy -O binary $< build/selftest.bin
"""
    )
    return f"""# Written by frugal deploy for {board.title}.
# make        build the self-test        make check  run it in the emulator: exit code 0 when every byte equals the PC's
# make hex, make bin        make size        make clean
CC = {compiler}
CFLAGS = {" ".join(f.compile)}
LDFLAGS = {" ".join(link[0])}
LIBS = {" ".join(link[1])}
OBJECTS = {objects}

all: build/selftest.elf
build:
\tmkdir -p build
build/selftest.elf: $(OBJECTS)
\t$(CC) $(LDFLAGS) $(OBJECTS) $(LIBS) -o $@
{rules}
check: build/selftest.elf
\t{run}
{images}size: build/selftest.elf
\t{prefix}size build/selftest.elf
clean:
\trm -rf build
.PHONY: all check hex bin size clean
"""


def cmake(sources: Sequence[str]) -> str:
    """A library for other projects, which bring compiler and start-up code."""
    model = [s for s in sources if not s.startswith(("start/", "libc/"))]
    listed = "\n".join(f"  {s}" for s in model)
    return f"""# Written by frugal deploy.  As a library: target_link_libraries(app PRIVATE frugal_model); #include "model.h"
cmake_minimum_required(VERSION 3.13)
project(frugal_model C)
add_library(frugal_model STATIC
{listed})
target_include_directories(frugal_model PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})
target_compile_features(frugal_model PUBLIC c_std_11)
# The bits of the results depend on it: no fused multiply-add but where the source says fmaf.
target_compile_options(frugal_model PRIVATE -O2 -ffp-contract=off -fno-math-errno -ffunction-sections -fdata-sections)
"""


def readme(placed: Placed, board: Board, title: str) -> str:
    p = placed.program
    ports = "\n".join(
        f"| {kind} | {safe(q.name)} | `model_{q.c_name}()` | {C_TYPES[DType(q.dtype)]} {list(q.shape)} | "
        f"{'' if q.scale is None else f'(code - {q.zero}) * {q.scale:.9g}'} | {q.state or ''} |"
        for kind, all_of in (("input", p.net.inputs), ("output", p.net.outputs))
        for q in all_of
    )
    return f"""# {safe(title)} for {board.title}

Plain C11, written by `frugal deploy`: no heap, no operating system, nothing to configure.  The outputs are the bytes that
the PC computes.

    make check      # builds the self-test and runs it in the emulator; exit code 0: all outputs equal the PC's

In your program: compile the `.c` files here except `start/` (and `libc/` when you have a C library), include `model.h`:

    if (model_init() != 0) {{ /* flash is damaged: the constants do not have their checksum */ }}
    model_reset();
    /* fill the inputs */  model_run();  /* read the outputs */

`model_run` takes no memory but `model_arena` ({placed.arena_bytes} bytes, static) and the stack (manifest.json).  It works on one
image at a time and is not reentrant.  Inputs lie in the arena and are overwritten by a run; states are kept.

| | model's name | pointer | type | number it stands for | state: becomes |
|---|---|---|---|---|---|
{ports}

To measure energy, compile with `-DMODEL_TRIGGER` and define `model_begins` and `model_ends` (model.h): raise a pin in one and
lower it in the other, and let the meter record the pin beside the current.  `frugal profile --meter trace:log.csv` with a column
`trigger` then takes each inference as a window; `lpm01a:PORT,trigger=d7` starts at the first edge.  Without it nothing is called.

`model.c` is the network as one call a layer, `model_plan.h` the layers' types, `model_data.c` the constants, `fb*.c` the kernels,
`golden.h` what the self-test compares.  `manifest.json` says what it takes: flash, RAM, instructions, compiler, hashes.
"""


def _largest(placed: Placed, count: int = 3) -> str:
    lives = sorted(placed.program.lives.values(), key=lambda n: -n.buffer.bytes)[:count]
    return ", ".join(f"'{n.buffer.name}' {n.buffer.bytes} bytes" for n in lives)


def too_much_ram(placed: Placed, board: Board, missing: int) -> str:
    at = placed.arena.bound_step
    names = placed.program.names
    where = names[min(at, len(names) - 1)] if names else ""
    best = (
        "a smaller input or fewer channels there"
        if placed.arena.bound > board.ram // 2
        else "fewer channels in the largest layers"
    )
    return (
        f"{board.name} has {board.ram} bytes of RAM; the model needs {missing} more: arena {placed.arena_bytes} (no plan can go "
        f"below {placed.arena.bound}, which live before '{where}') and stack.  Largest: {_largest(placed)}.  "
        f"What would make it fit: {best}, or a board with more RAM; int4 weights do not help, as weights stay in flash"
    )


def too_much_flash(placed: Placed, board: Board, missing: int) -> str:
    p = placed.program
    notes = sorted(p.data.notes)
    ends = [*(o for o, _ in notes[1:]), len(p.data.blob)]
    largest = sorted(((e - o, n) for (o, n), e in zip(notes, ends, strict=True)), key=lambda v: (-v[0], v[1]))[:3]
    layers = ", ".join(f"{n} {b} bytes" for b, n in largest)
    return (
        f"{board.name} has {board.flash} bytes of flash; the model needs {missing} more, {p.data.weights} of it weights.  "
        f"Largest: {layers}.  "
        f"What would make it fit: int4 weights (frugal quantize --scheme int4) halve those of linear layers, fewer channels, "
        f"or a board with more flash"
    )
