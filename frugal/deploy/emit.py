"""The text of a bundle: model.c, model.h, the constants, golden data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..compiler.ir import NUMPY, DType, Op
from . import memory, native
from .memory import Arena
from .network import Buffer, Port
from .program import Layer, NativeOperand, Program

C_TYPES = {
    DType.FLOAT: "float", DType.UINT8: "uint8_t", DType.INT8: "int8_t", DType.UINT16: "uint16_t", DType.INT16: "int16_t",
    DType.INT32: "int32_t", DType.UINT32: "uint32_t", DType.BOOL: "uint8_t", DType.INT64: "int64_t", DType.DOUBLE: "double",
}  # fmt: skip
READ_AHEAD = 16  # bytes behind the arena and the constants that a kernel may read


@dataclass
class Placed:
    """A program whose buffers have places."""

    program: Program
    arena: Arena

    @property
    def arena_bytes(self) -> int:
        return self.arena.bytes + READ_AHEAD


def place(program: Program) -> Placed:
    """Plan the arena; a state's output takes the place of its input where that is read before."""
    net, lives = program.net, program.lives
    for port in net.outputs:
        program.touch(port.buffer)
        lives[port.buffer].last = program.step
    for port in net.inputs:
        if port.state is None:
            continue
        life = lives[port.buffer]
        target = next(p for p in net.outputs if p.name == port.state)
        if target.buffer is not port.buffer and life.last < lives[target.buffer].first and not target.buffer.slack:
            _substitute(program, target.buffer, port.buffer)
        life.first, life.last = -1, program.step
    return Placed(program, memory.plan(list(lives.values()), program.step))


def _substitute(program: Program, old: Buffer, new: Buffer) -> None:
    for call in program.calls:
        call.buffers = [new if b is old else b for b in call.buffers]
    for port in program.net.outputs:
        port.buffer = new if port.buffer is old else port.buffer
    for step in program.native:
        for operand in step.operands:
            if operand is not None and operand.buffer is old:
                operand.buffer = new
    for life in program.lives.values():
        if old in life.over:
            del life.over[old]
    del program.lives[old]


def checksum(words: np.ndarray, start: int = 0) -> int:
    """fb_checksum."""
    a = (start + np.cumsum(words.astype(np.uint64) + 1)) & 0xFFFFFFFF
    b = (start + int(a.sum(dtype=np.uint64))) & 0xFFFFFFFF
    last = int(a[-1]) if len(a) else start
    return last ^ ((b << 16 | b >> 16) & 0xFFFFFFFF)


def _number(value: int | float) -> str:
    if isinstance(value, float):
        return np.float32(value).item().hex() + "f"
    return str(int(value)) if -(1 << 31) < value < 1 << 31 else f"{int(value)}u"


def words_text(words: np.ndarray, notes: Sequence[tuple[int, str]] = ()) -> str:
    """Initializers, eight a line, a comment where something begins."""
    starts = {offset // 4: note for offset, note in notes}
    lines: list[str] = []
    line: list[str] = []
    for i, word in enumerate(words.tolist()):
        if i in starts:
            if line:
                lines.append("    " + " ".join(line))
                line = []
            lines.append(f"    /* {4 * i}: {safe(starts[i])} */")
        line.append(f"0x{word:08x},")
        if len(line) == 10:
            lines.append("    " + " ".join(line))
            line = []
    return "\n".join([*lines, "    " + " ".join(line)] if line else lines)


def safe(text: str) -> str:
    """Text from a model inside of a C comment."""
    return "".join(c if c.isprintable() and c not in "*/\\" else "_" for c in text)


def bytes_text(values: np.ndarray) -> str:
    data = values.tolist()
    return "\n".join("    " + " ".join(f"{v}," for v in data[i : i + 24]) for i in range(0, len(data), 24))


def data_source(program: Program) -> str:
    words = program.data.words()
    return (
        "/* model_data.c - the constants of the model: weights as the kernels read them, scales, tables.\n"
        " * Written by frugal deploy. */\n"
        '#include "model_plan.h"\n\n'
        f"const uint32_t model_data[{len(words) + READ_AHEAD // 4}] __attribute__((aligned(16))) = {{\n"
        f"{words_text(words, program.data.notes)}\n}};\n"
    )


def plan_header(program: Program) -> str:
    words = program.data.words()
    members = "\n".join(f"    {layer.type} {layer.name};" for layer in program.layers) or "    uint32_t nothing;"
    return (
        "/* model_plan.h - the layers of the model, and its constants.  Written by frugal deploy. */\n"
        "#ifndef MODEL_PLAN_H\n#define MODEL_PLAN_H\n"
        '#include "fb.h"\n\n'
        f"#define MODEL_DATA_WORDS {len(words)}u\n"
        f"extern const uint32_t model_data[];\n\n"
        "typedef struct model_plan {\n" + members + "\n} model_plan;\n#endif\n"
    )


def _layer(layer: Layer) -> str:
    return f"    .{layer.name} = {{" + ", ".join(f".{k} = {_number(v)}" for k, v in layer.values) + "},"


def plan_words(program: Program) -> np.ndarray:
    packed = b"".join(layer.packed() for layer in program.layers) or bytes(4)
    return np.frombuffer(packed, "<u4")


def model_source(placed: Placed) -> str:
    """model.c: the plan, its checksum, and model_run, a call a step."""
    p = placed.program
    total = checksum(plan_words(p), checksum(p.data.words()))
    layers = "\n".join(_layer(layer) for layer in p.layers) or "    .nothing = 0,"
    calls = []
    for call, name in zip(p.calls, p.names, strict=True):
        places = [f"(void *)(model_arena + {b.offset})" for b in call.buffers]
        calls.append(f"    {call.text.format(*places)} /* {safe(name)[:60]} */")
    for port in p.net.inputs:
        target = next((o for o in p.net.outputs if o.name == port.state), None)
        if target is not None and target.buffer is not port.buffer:
            calls.append(
                f"    memcpy(model_arena + {port.buffer.offset}, model_arena + {target.buffer.offset}, {port.buffer.bytes});"
            )
    body = "\n".join(calls)
    resets = "\n".join(
        f"    memset(model_arena + {port.buffer.offset}, {_state_zero(port)}, {port.buffer.bytes}); /* {safe(port.name)} */"
        for port in p.net.inputs
        if port.state is not None
    )
    needs_data = any("data" in call.text for call in p.calls)
    data = "    const uint32_t *const data = model_data;\n" if needs_data else ""
    natives = native_source(placed) if p.native else ""
    return (
        "/* model.c - the model as calls of its kernels, one after another.\n"
        " * Written by frugal deploy; read it, but do not edit it. */\n"
        '#include <string.h>\n\n#include "model.h"\n#include "model_plan.h"\n\n'
        f"uint8_t model_arena[MODEL_ARENA_BYTES] __attribute__((aligned(16)));\n\n"
        f"static const model_plan plan = {{\n{layers}\n}};\n{natives}\n"
        "int model_init(void) {\n"
        f"    const uint32_t data = fb_checksum(model_data, MODEL_DATA_WORDS, 0);\n"
        f"    return fb_checksum((const uint32_t *)(const void *)&plan, sizeof plan / 4, data) == 0x{total:08x}u ? 0 : -1;\n"
        "}\n\n"
        f"void model_reset(void) {{\n{resets}\n}}\n\n"
        f"void model_run(void) {{\n    MODEL_BEGINS();\n{data}{body}\n    MODEL_ENDS();\n}}\n"
    )


def _state_zero(port: Port) -> int:
    return port.zero if port.zero is not None and port.dtype in (DType.INT8, DType.UINT8) else 0


def _shape(port: Port) -> str:
    return "[" + ", ".join(map(str, port.shape)) + "]"


def model_header(placed: Placed, title: str) -> str:
    p = placed.program
    lines = [
        f"/* model.h - {safe(title)}.  Written by frugal deploy.",
        " *",
        " *     if (model_init() != 0) ...      the constants do not have their checksum: do not run",
        " *     model_reset();                  states to their zero, when there are any",
        " *     fill model_<input>();  model_run();  read model_<output>()",
        " *",
        " * Inputs and outputs lie in the arena; model_run overwrites inputs, but for states, which it brings up to date.",
        " *",
        " * With -DMODEL_TRIGGER model_run calls model_begins() first and model_ends() last, which your program defines: raise",
        " * and lower a pin there, and a power meter's trigger input sees each inference. */",
        "#ifndef MODEL_H",
        "#define MODEL_H",
        "#include <stdint.h>",
        "",
        f"#define MODEL_ARENA_BYTES {placed.arena_bytes}u",
        "extern uint8_t model_arena[MODEL_ARENA_BYTES];",
        "int model_init(void);",
        "void model_reset(void);",
        "void model_run(void);",
        "#ifdef MODEL_TRIGGER",
        "void model_begins(void);",
        "void model_ends(void);",
        "#define MODEL_BEGINS() model_begins()",
        "#define MODEL_ENDS() model_ends()",
        "#else",
        "#define MODEL_BEGINS() ((void)0)",
        "#define MODEL_ENDS() ((void)0)",
        "#endif",
    ]
    states = {i.state for i in p.net.inputs if i.state}
    for kind, ports in (("input", p.net.inputs), ("output", p.net.outputs)):
        for port in ports:
            state = " (a state)" if port.state or port.name in states else ""
            lines += [
                "",
                f"/* {kind} '{safe(port.name)}'{state}: {C_TYPES[DType(port.dtype)]} {_shape(port)}" + _real(port) + " */",
            ]
            upper = port.c_name.upper()
            elements = int(np.prod(port.shape, dtype=np.int64))
            lines.append(f"#define MODEL_{upper}_ELEMENTS {elements}u")
            lines += [f"#define MODEL_{upper}_DIM_{i} {d}u" for i, d in enumerate(port.shape)]
            if port.scale is not None:
                lines.append(f"#define MODEL_{upper}_SCALE {np.float32(port.scale).item()!r}f")
                lines.append(f"#define MODEL_{upper}_ZERO ({port.zero})")
            ctype = C_TYPES[DType(port.dtype)]
            lines.append(
                f"static inline {ctype} *model_{port.c_name}(void) {{\n"
                f"    return ({ctype} *)(void *)(model_arena + {port.buffer.offset});\n}}"
            )
    return "\n".join([*lines, "#endif", ""])


def _real(port: Port) -> str:
    return "" if port.scale is None else f"; the number is (code - {port.zero}) * {np.float32(port.scale).item()!r}"


# ---- steps in the PC's own sources ----
def native_source(placed: Placed) -> str:
    p = placed.program
    lines = ['\n#include "native.h"\n']
    for i, step in enumerate(p.native, 1):
        names = []
        for k, operand in enumerate(step.operands):
            names.append(f"&t{i}_{k}" if operand is not None else "0")
            if operand is not None:
                lines.append(f"static const fr_tensor t{i}_{k} = {_tensor(operand)};")
        inputs, outputs = names[: step.n_in], names[step.n_in :]
        cast = "(fr_tensor *)(uintptr_t)"
        lines.append(f"static fr_tensor *const in{i}[] = {{{', '.join(n if n == '0' else cast + n for n in inputs) or '0'}}};")
        lines.append(f"static fr_tensor *const out{i}[] = {{{', '.join(cast + n for n in outputs)}}};")
        lines.append(f"static const int64_t attrs{i}[] = {{{', '.join(_int64(a) for a in step.attrs) or '0'}}};")
        scratch = ["0" if b is None else f"model_arena + {b.offset}" for b in (step.shared, step.scratch)]
        size = 0 if step.scratch is None else step.scratch.bytes
        lines.append(
            f"static void native_{i}(void) {{\n"
            f"    const fr_call c = {{.isa = &native_isa, .threads = 1, .n_in = {len(inputs)}, .n_out = {len(outputs)},\n"
            f"                       .n_attr = {len(step.attrs)},\n"
            f"                       .in = in{i}, .out = out{i}, .attrs = attrs{i},\n"
            f"                       .shared = {scratch[0]}, .scratch = {scratch[1]},\n"
            f"                       .scratch_bytes = {size}, .err = &native_error}};\n"
            f"    (void)fr_{step.name}_run(&c);\n}}"
        )
    return "\n".join(lines) + "\n"


def _int64(value: int) -> str:
    return f"INT64_C({value})" if value != -(1 << 63) else "INT64_MIN"


def _tensor(o: NativeOperand) -> str:
    place = (
        f"model_arena + {o.buffer.offset}"
        if o.buffer is not None
        else f"(uint8_t *)(uintptr_t)((const uint8_t *)model_data + {o.offset})"
    )
    dims = ", ".join(map(str, o.shape)) or "0"
    kind = 1 if o.buffer is None else 0
    n = int(np.prod(o.shape, dtype=np.int64))
    return (
        f"{{.data = {place}, .dims = {{{dims}}}, .n = {n}, .bytes = {o.bytes}, .dtype = {int(o.dtype)}, .rank = {len(o.shape)}, "
        f".layout = {int(o.layout)}, .kind = {kind}}}"
    )


def native_files(program: Program, functions: Sequence[str]) -> dict[str, str]:
    """native.h and native.c: the instruction-set table with these functions of scalar.c."""
    entries = []
    rows = []
    for name in sorted(set(functions)):
        if name.startswith("rows."):
            rows.append(f".{name[5:]} = row_{name[5:]}")
        elif name not in ("chunk", "codes", "wino_from", "quad_bytes", "qwino"):
            entries.append(f".{name} = {name}")
    if rows:
        entries.append(".rows = {" + ", ".join(rows) + "}")
    table = ",\n    ".join(['.name = "scalar"', ".chunk = 1", ".codes = FR_CODES_U8", *entries])
    header = (
        "/* native.h - operations of the PC's own sources, on one thread.  Written by frugal deploy. */\n"
        '#ifndef NATIVE_H\n#define NATIVE_H\n#include "frugal.h"\n#include "ops.h"\n'
        "extern const frugal_isa native_isa;\nextern frugal_error native_error;\n#endif\n"
    )
    source = (
        "/* native.c - scalar.c, of whose functions the table names those that this model calls.  Written by frugal deploy. */\n"
        '#include "isa/scalar.c"\n\n'
        f"extern const frugal_isa native_isa;\nconst frugal_isa native_isa = {{\n    {table}}};\n"
    )
    return {"native.h": header, "native.c": source}


# ---- golden data ----
def golden_header(
    placed: Placed, cases: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]], start: dict[str, np.ndarray]
) -> str:
    """cases: inputs without states, and all outputs, by name; start: the states before the first."""
    net = placed.program.net
    inputs = [p for p in net.inputs if p.state is None]
    flat_in = b"".join(np.ascontiguousarray(c[0][p.name]).tobytes() for c in cases for p in inputs)
    flat_out = b"".join(np.ascontiguousarray(c[1][p.name]).tobytes() for c in cases for p in net.outputs)

    def table(name: str, ports: Sequence[Port]) -> str:
        rows = ", ".join(f"{{model_arena + {p.buffer.offset}, {p.buffer.bytes}}}" for p in ports) or "{0, 0}"
        return f"static const golden_tensor {name}[] = {{{rows}}};"

    def array(name: str, value: bytes) -> str:
        return f"static const uint8_t {name}[] = {{\n{bytes_text(np.frombuffer(value or bytes(1), np.uint8))}\n}};"

    states = [p for p in net.inputs if p.state is not None]
    fills = "".join(
        f"    for (uint32_t i = 0; i < {p.buffer.bytes}; i++)\n"
        f"        model_arena[{p.buffer.offset} + i] = golden_state_{p.c_name}[i];\n"
        for p in states
    )
    return "\n".join(
        [
            "/* golden.h - inputs, and the outputs that the PC computes from them.  Written by frugal deploy. */",
            '#ifndef GOLDEN_H\n#define GOLDEN_H\n#include "model.h"',
            "typedef struct golden_tensor {\n    void *tensor;\n    uint32_t bytes;\n} golden_tensor;",
            f"enum {{ GOLDEN_CASES = {len(cases)}, GOLDEN_INPUTS = {len(inputs)}, GOLDEN_OUTPUTS = {len(net.outputs)} }};",
            f"enum {{ GOLDEN_IN_BYTES = {sum(p.buffer.bytes for p in inputs)} }};",
            f"enum {{ GOLDEN_OUT_BYTES = {sum(p.buffer.bytes for p in net.outputs)} }};",
            table("golden_inputs", inputs),
            table("golden_outputs", net.outputs),
            array("golden_in", flat_in),
            array("golden_out", flat_out),
            *(array(f"golden_state_{p.c_name}", np.ascontiguousarray(start[p.name]).tobytes()) for p in states),
            f"static void golden_states(void) {{\n{fills}}}",
            "#endif\n",
        ]
    )


def manifest_text(manifest: dict[str, object]) -> str:
    return json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


__all__ = ["NUMPY", "Op", "native"]
