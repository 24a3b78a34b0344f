"""From a model to a folder for a board: lower, place, write beside, build, measure, rename."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..compiler import lower_model
from ..compiler.ir import NUMPY, DType, Graph
from ..compiler.planfile import own_outputs, write_plan
from ..errors import FrugalError, InvalidArgument, NotAvailable
from ..session import InferenceSession
from . import build, emit, native, network, texts
from .boards import Board, Tools, load, tools
from .emit import Placed
from .kernels import Lowering
from .network import Port
from .sources import folder

CASES = 20
STACK_ROOM = 1024  # what a model of a board's RAM must leave for the stack when it has not been measured


class DoesNotFit(FrugalError):
    """The model needs more flash or RAM than the board has."""


@dataclass
class Options:
    board: str
    compiler: str = "auto"
    sizes: Mapping[str, int] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    cases: int = CASES
    inputs: Mapping[str, np.ndarray] | None = None  # [cases, ..] a name; else generated
    measure: bool = True


@dataclass
class Report:
    """What deploy did: the manifest, and lines for people."""

    manifest: dict[str, Any]
    refused: list[str]


def deploy(model: str | os.PathLike[str], out: str | os.PathLike[str], options: Options) -> Report:
    """Write the bundle of an .onnx or .tflite model into the folder `out`, which must not hold anything else than a bundle.

    Raises UnsupportedOperator, DoesNotFit, NotAvailable (no compiler), InvalidArgument, InvalidModel.
    """
    board = load(options.board)
    target = Path(out)
    if target.exists() and not (target.is_dir() and (not any(target.iterdir()) or (target / "manifest.json").is_file())):
        raise InvalidArgument(f"{target} exists and is no bundle of frugal deploy")
    source = _read(Path(model))
    graph, meta = lower_model(source)
    own_outputs(graph)
    plan = io.BytesIO()
    write_plan(graph, meta, plan)
    placed = lower(graph, board, options, source)
    _check_fit(placed, board)
    made = tools(board, options.compiler)
    if options.measure and made.compiler is None:
        from .boards import need_compiler

        need_compiler(board, options.compiler)
    cases, start = golden(plan.getvalue(), placed, options)
    files = bundle_files(placed, board, made, cases, start, Path(model).name)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        _write(beside, files)
        manifest = _manifest(placed, board, made, files, source, plan.getvalue(), options, beside)
        (beside / "manifest.json").write_text(emit.manifest_text(manifest))
        if target.exists():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return Report(manifest, placed.program.refused)


def _read(path: Path) -> bytes:
    """The ONNX bytes of a model; .tflite is imported first."""
    if path.is_dir():
        path = path / "model.onnx"
    if path.suffix == ".tflite":
        import tempfile

        from frugal.quantize import export

        with tempfile.TemporaryDirectory() as folder_name:
            target = Path(folder_name) / "model.onnx"
            export(path, target)
            return target.read_bytes()
    data = path.read_bytes()
    if data[:8] == b"FRUGALP\n":
        raise InvalidArgument(f"{path} is a plan for PCs; deploy takes the .onnx or .tflite it was compiled from")
    return data


def lower(graph: Graph, board: Board, options: Options, source: bytes) -> Placed:
    """A placed program."""
    net = network.build(graph, options.sizes, options.states)
    _scales(net.inputs, net.outputs, source)
    return emit.place(Lowering(net, board.backend, board.hard_float).run())


SAME_CODES = {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Concat"}


def _scales(inputs: Sequence[Port], outputs: Sequence[Port], source: bytes) -> None:
    """Scales and zero points of ports, from the DequantizeLinear or QuantizeLinear that they meet, past what only moves codes."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load_from_string(source).graph
    values = {t.name: numpy_helper.to_array(t) for t in model.initializer}
    for node in model.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    codes: dict[str, tuple[float, int]] = {}
    moves = [n for n in model.node if n.op_type in SAME_CODES]
    for node in model.node:
        index = {"DequantizeLinear": 0, "QuantizeLinear": None}.get(node.op_type, -1)
        if index == -1 or node.input[1] not in values or values[node.input[1]].size != 1:
            continue
        zero = values.get(node.input[2]) if len(node.input) > 2 else None
        name = node.output[0] if index is None else node.input[0]
        codes[name] = (float(values[node.input[1]].reshape(-1)[0]), 0 if zero is None else int(zero.reshape(-1)[0]))
    for _ in range(2):
        for node in moves:  # to what comes of it
            for name in node.input:
                if name in codes:
                    codes.setdefault(node.output[0], codes[name])
        for node in reversed(moves):  # to what it comes from
            if node.output[0] in codes:
                for name in node.input if node.op_type == "Concat" else node.input[:1]:
                    codes.setdefault(name, codes[node.output[0]])
    for port in (*inputs, *outputs):
        if port.name in codes and NUMPY[port.dtype].itemsize == 1:
            port.scale, port.zero = codes[port.name]


# ---- golden data ----
def generated(port: Port, chance: np.random.Generator, case: int) -> np.ndarray:
    """Case 0 the lowest codes, 1 the highest, others random; floats around 0."""
    dtype = NUMPY[port.dtype]
    if dtype.kind == "f":
        return chance.normal(0, 1, port.shape).astype(dtype)
    if dtype.kind == "b":
        return chance.integers(0, 2, port.shape).astype(dtype)
    limits = np.iinfo(dtype)
    low, high = (limits.min, limits.max) if dtype.itemsize == 1 else (0, 1)
    if case < 2:
        return np.full(port.shape, low if case == 0 else high, dtype)
    return chance.integers(low, high + 1, port.shape).astype(dtype)


Case = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


def golden(plan: bytes, placed: Placed, options: Options) -> tuple[list[Case], dict[str, np.ndarray]]:
    """Inputs and the outputs of the PC's session, one run after another where there are states; the states at the start."""
    net = placed.program.net
    session = InferenceSession(plan)
    chance = np.random.default_rng(0)
    states = {p.name: np.full(p.shape, p.zero or 0, NUMPY[p.dtype]) for p in net.inputs if p.state}
    start = dict(states)
    cases: list[Case] = []
    for i in range(options.cases):
        feeds = {}
        for port in net.inputs:
            if port.state:
                continue
            given = None if options.inputs is None else options.inputs.get(port.name)
            feeds[port.name] = generated(port, chance, i) if given is None else _given(given, i, port)
        results = dict(
            zip([p.name for p in net.outputs], session.run([p.name for p in net.outputs], {**feeds, **states}), strict=True)
        )
        cases.append((feeds, results))
        states = {p.name: results[p.state] for p in net.inputs if p.state}
    return cases, start


def _given(values: np.ndarray, i: int, port: Port) -> np.ndarray:
    if values.dtype != NUMPY[port.dtype] or values.shape[1:] != port.shape or i >= len(values):
        raise InvalidArgument(
            f"input {port.name}: want {DType(port.dtype).name} [cases, {', '.join(map(str, port.shape))}], "
            f"got {values.dtype} {values.shape}"
        )
    case: np.ndarray = values[i]
    return case


# ---- files ----
def isa_functions(names: Sequence[str]) -> list[str]:
    """Functions of the instruction-set table that these files of kernels/src call."""
    found: set[str] = {"scratch_bytes"}
    for name in names:
        found |= set(re.findall(r"isa->((?:rows\.)?[a-z_0-9]+)", (folder("src") / name).read_text()))
    return sorted(found)


def bundle_files(
    placed: Placed, board: Board, made: Tools, cases: list[Case], start: dict[str, np.ndarray], title: str
) -> dict[str, str]:
    """Every file but the manifest, by its path in the bundle."""
    p = placed.program
    mcu = folder("mcu")
    copied = ["fb.h", "fb_round.h", "fb_ops.c", *sorted(p.sources)]
    files = {name: (mcu / name).read_text() for name in copied}
    begin = {"cortexm": "cortexm.c", "riscv": "riscv.S", "linux": "linux.c"}
    if board.start not in begin:
        raise InvalidArgument(f"{board.path}: start {board.start!r} is none of {', '.join(begin)}")
    for name in ("board.h", "board_common.c", "selftest.c", begin[board.start], *([] if board.linux else ["semihost.c"])):
        files[f"start/{name}"] = (mcu / "start" / name).read_text().replace('"board.h"', '"start/board.h"')
    if not board.linux:
        files |= {f"libc/{name}": (mcu / "libc" / name).read_text() for name in ("stdint.h", "string.h", "math.h", "fb_libc.c")}
        files["board.ld"] = texts.linker_script(board)
    if p.native:
        needed = native.files(p.native)
        files |= {name: (folder("src") / name).read_text() for name in (*needed, *native.HEADERS)}
        files |= {name: (folder("include") / name).read_text() for name in native.PUBLIC}
        files |= emit.native_files(p, isa_functions(needed))
        files["fb_native.c"] = (mcu / "fb_native.c").read_text()
    files |= {
        "model.h": emit.model_header(placed, title),
        "model.c": emit.model_source(placed),
        "model_plan.h": emit.plan_header(p),
        "model_data.c": emit.data_source(p),
        "golden.h": emit.golden_header(placed, cases, start),
    }
    sources = sources_of(files)
    files["Makefile"] = texts.makefile(board, made, sources)
    files["CMakeLists.txt"] = texts.cmake(sources)
    files["README.md"] = texts.readme(placed, board, title)
    return files


def sources_of(files: Mapping[str, str]) -> list[str]:
    """What is compiled; native.c includes scalar.c itself."""
    return sorted(name for name in files if name.endswith((".c", ".S")) and name != "isa/scalar.c")


def _write(path: Path, files: Mapping[str, str]) -> None:
    shutil.rmtree(path, ignore_errors=True)
    for name, text in files.items():
        place = path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8", newline="\n")


# ---- what it takes ----
def _check_fit(placed: Placed, board: Board) -> None:
    """Raises DoesNotFit with how much is missing, where it goes and what would help."""
    data, arena = len(placed.program.data.blob), placed.arena_bytes
    if board.ram and arena + STACK_ROOM > board.ram:
        raise DoesNotFit(texts.too_much_ram(placed, board, arena + STACK_ROOM - board.ram))
    if board.flash and data > board.flash:
        raise DoesNotFit(texts.too_much_flash(placed, board, data - board.flash))


def _manifest(
    placed: Placed, board: Board, made: Tools, files: dict[str, str], source: bytes, plan: bytes, options: Options, path: Path
) -> dict[str, Any]:
    p = placed.program
    manifest: dict[str, Any] = {
        "schema": "frugal-bundle-1",
        "frugal": __version__,
        "board": board.name,
        "model_sha256": hashlib.sha256(source).hexdigest(),
        "plan_sha256": hashlib.sha256(plan).hexdigest(),
        "backend": board.backend,
        "inputs": [_port(q) for q in p.net.inputs],
        "outputs": [_port(q) for q in p.net.outputs],
        "ram": {"arena": placed.arena_bytes, "live_bound": placed.arena.bound, "stack": None, "data": None},
        "flash": {"weights": p.data.weights, "constants": len(p.data.blob) - p.data.weights, "code": None},
        "instructions_per_inference": None,
        "instructions_init": None,
        "general_kernels": p.refused,
        "flash_tools": {"commands": board.flashers, "uf2_family": board.uf2_family},
        "compiler": None,
        "flags": build.flags(board, made).compile if made.compiler else None,
        "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in sorted(files.items())},
        "notes": [],
    }
    if not options.measure:
        manifest["notes"].append("not built: sizes and instructions are unknown")
        return manifest
    with build.scratch() as folder_name:
        out = Path(folder_name)
        image = build.compile_bundle(path, sources_of(files), board, made, out)
        _sizes(manifest, placed, board, image)
        manifest["compiler"] = build._run([*(made.compiler or []), "--version"], out, "asking the compiler").split("\n")[0]
        if not made.emulator:
            manifest["notes"].append(f"not run: {board.emulator[0]} is missing ({made.install})")
            return manifest
        count = build.plugin(out)
        if count is None:
            manifest["notes"].append("instructions were not counted: no C compiler for the counting plugin")
        result = build.emulate(out / "selftest.elf", image, board, count)
        if result.code != 0:
            raise FrugalError(f"the self-test failed in the emulator with exit code {result.code}:\n{result.text[-1500:]}")
        manifest["ram"]["stack"] = result.stack
        manifest["instructions_init"] = result.init_instructions
        if result.instructions:
            manifest["instructions_per_inference"] = round(sum(result.instructions) / len(result.instructions))
    return manifest


def _port(port: Port) -> dict[str, Any]:
    return {
        "name": port.name,
        "c_name": f"model_{port.c_name}",
        "dtype": DType(port.dtype).name.lower(),
        "shape": list(port.shape),
        "scale": None if port.scale is None else float(np.float32(port.scale)),
        "zero": port.zero,
        "state": port.state,
    }


def _sizes(manifest: dict[str, Any], placed: Placed, board: Board, image: Any) -> None:
    """Flash of the code without golden data and constants; RAM beside the arena."""
    flash, ram = image.memory()
    tests = sum(size for name, (_, size) in image.symbols.items() if name.startswith("golden_"))
    data = image.symbols["model_data"][1]
    manifest["flash"]["code"] = flash - tests - data
    manifest["ram"]["data"] = ram - placed.arena_bytes
    if board.flash and flash > board.flash:
        manifest["notes"].append("the self-test with its golden data is larger than the flash; the model itself is not")
        if flash - tests > board.flash:
            raise DoesNotFit(texts.too_much_flash(placed, board, flash - tests - board.flash))


__all__ = ["DoesNotFit", "NotAvailable", "Options", "Report", "deploy"]
