"""Writes a graph as a plan file: the byte-for-byte counterpart of kernels/include/frugal_plan.h and docs/plan-format.md."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from ..errors import InvalidModel
from .dims import Call, Dim, Expr, Late, Symbol
from .ir import NUMPY, Graph, Layout, Op, Step, Tensor, Unary
from .pack import pack, packed_bytes, round_up

MAGIC = b"FRUGALP\n"
VERSION = 1
META, TEXT, DIMS, TENSORS, STEPS, ARGS, ATTRS, DATA = range(1, 9)
TEMP, CONST, INPUT, OUTPUT, ALIAS = range(5)
MAX_RANK = 8
DIM_OPS = {
    "input": 0, "add": 1, "sub": 2, "mul": 3, "floordiv": 4, "ceildiv": 5, "mod": 6, "min": 7, "max": 8, "sub0": 9,
    "broadcast": 10, "value": 11, "shape": 12,
}  # fmt: skip


@dataclass
class _Text:
    data: bytearray = field(default_factory=lambda: bytearray(b"\0"))
    known: dict[str, int] = field(default_factory=lambda: {"": 0})

    def add(self, text: str) -> int:
        text = text.replace("\0", "")
        if text not in self.known:
            self.known[text] = len(self.data)
            self.data += text.encode() + b"\0"
        return self.known[text]


@dataclass
class _Dims:
    text: _Text
    index: dict[Tensor, int]
    records: list[bytes] = field(default_factory=list)
    known: dict[tuple[int, int, int], int] = field(default_factory=dict)
    named: dict[tuple[int, str], int] = field(default_factory=dict)

    def _record(self, op: str, a: int, b: int, name: str = "") -> int:
        key = (DIM_OPS[op], a, b)
        if key not in self.known:
            self.known[key] = -1 - len(self.records)
            self.records.append(struct.pack("<IIqq", DIM_OPS[op], self.text.add(name), a, b))
        return self.known[key]

    def add(self, dim: Dim) -> int:
        """The dim as the file writes it: itself when it is a number, else -1 - index of its expression."""
        if not isinstance(dim, Expr):
            return int(dim)
        plus = [(m, c) for m, c in dim.terms if c > 0]
        minus = [(m, -c) for m, c in dim.terms if c < 0]
        total = self._sum(plus) if plus else 0
        return self._record("sub", total, self._sum(minus)) if minus else total

    def called(self, dim: Dim, name: str) -> int:
        """The same under a name: a record of its own, as other tensors may have the dim under another name, or none."""
        number = self.add(dim)
        if number >= 0 or not name:
            return number
        op, _, a, b = struct.unpack("<IIqq", self.records[-1 - number])
        if (number, name) not in self.named:
            self.named[number, name] = -1 - len(self.records)
            self.records.append(struct.pack("<IIqq", op, self.text.add(name), a, b))
        return self.named[number, name]

    def _sum(self, terms: list[tuple[tuple[Any, ...], int]]) -> int:
        parts = [self._product(monomial, coefficient) for monomial, coefficient in terms]
        total = parts[0]
        for part in parts[1:]:
            total = self._record("add", total, part)
        return total

    def _product(self, monomial: tuple[Symbol | Call | Late, ...], coefficient: int) -> int:
        parts = [self._atom(atom) for atom in monomial]
        if coefficient != 1 or not parts:
            parts.append(coefficient)
        total = parts[0]
        for part in parts[1:]:
            total = self._record("mul", total, part)
        return total

    def _atom(self, atom: Symbol | Call | Late) -> int:
        if isinstance(atom, Symbol):
            return self._record("input", atom.input, atom.axis, atom.name)
        if isinstance(atom, Late):
            return self._record("shape" if atom.axis else "value", self.index[atom.tensor], atom.index)
        return self._record(atom.op, self.add(atom.a), self.add(atom.b))


class _Writer:
    """Numbers tensors and strings, then writes section after section; constants are packed one at a time."""

    def __init__(self, graph: Graph, meta: dict[str, Any]) -> None:
        self.graph = graph
        self.text = _Text()
        self.tensors: list[Tensor] = []
        self.index: dict[Tensor, int] = {}
        self.dims = _Dims(self.text, self.index)
        self.alias: dict[Tensor, Tensor] = {}
        self.offsets: dict[Tensor, tuple[int, int]] = {}
        self.data_bytes = 0
        self.meta = meta
        for step in graph.steps:
            if step.op == Op.ALIAS:
                source = step.inputs[0]
                assert source is not None
                self.alias[step.out] = self.alias.get(source, source)
        for tensor in (*graph.inputs, *graph.outputs, *graph.operands()):
            if tensor not in self.index:
                self.index[tensor] = len(self.tensors)
                self.tensors.append(tensor)

    def _place(self, tensor: Tensor) -> tuple[int, int]:
        if tensor.weight is not None:
            size = packed_bytes(tensor.weight.layout, tensor.weight.n, tensor.weight.k)
        else:
            assert tensor.const is not None
            size = tensor.const.size * NUMPY[tensor.dtype].itemsize
        offset = round_up(self.data_bytes, 64)
        self.data_bytes = offset + size
        self.offsets[tensor] = (offset, size)
        return offset, size

    def _tensor(self, tensor: Tensor) -> bytes:
        if tensor.rank > MAX_RANK:
            raise InvalidModel(f"tensor '{tensor.name}' has rank {tensor.rank}; frugal handles at most {MAX_RANK}")
        kind, offset, size, alias = TEMP, 0, 0, -1
        if tensor.input >= 0:
            kind = INPUT
        elif tensor in self.alias:
            kind, alias = ALIAS, self.index[self.alias[tensor]]
        elif any(tensor is t for t in self.graph.outputs):
            kind = OUTPUT
        elif tensor.weight is not None or tensor.const is not None:
            kind = CONST
            offset, size = self._place(tensor)
        output = next((i for i, t in enumerate(self.graph.outputs) if t is tensor), None)
        name = self.text.add(tensor.name if output is None else self.graph.output_names[output])
        called = [] if output is None else self.graph.output_dims[output]
        called = called if len(called) == tensor.rank else [""] * tensor.rank
        shape = [self.dims.called(*d) for d in zip(tensor.shape, called, strict=True)] + [0] * (MAX_RANK - tensor.rank)
        head = struct.pack("<BBBBIQQiI", tensor.dtype, kind, tensor.rank, tensor.layout, name, offset, size, alias, 0)
        return head + struct.pack("<8q", *shape)

    def _attr(self, value: Any) -> bytes:
        if isinstance(value, float):
            return struct.pack("<d", value)
        return struct.pack("<q", self.dims.add(value) if isinstance(value, Expr) else int(value))

    def _tables(self) -> dict[int, tuple[int, bytes]]:
        tensors = [self._tensor(t) for t in self.tensors]
        steps: list[bytes] = []
        args: list[int] = []
        attrs: list[bytes] = []
        for step in self.graph.steps:
            if step.op == Op.ALIAS:
                continue
            head = (
                int(step.op),
                len(step.inputs),
                len(step.outputs),
                len(step.attrs),
                self.text.add(step.name),
                len(args),
            )
            steps.append(struct.pack("<4H6I", *head, len(attrs), 0, 0, 0))
            args += [-1 if t is None else self.index[t] for t in (*step.inputs, *step.outputs)]
            attrs += [self._attr(a) for a in step.attrs]
        return {
            META: (0, json.dumps(self.meta, sort_keys=True, ensure_ascii=False).encode()),
            TEXT: (0, bytes(self.text.data)),
            DIMS: (len(self.dims.records), b"".join(self.dims.records)),
            TENSORS: (len(tensors), b"".join(tensors)),
            STEPS: (len(steps), b"".join(steps)),
            ARGS: (len(args), np.array(args, "<i4").tobytes()),
            ATTRS: (len(attrs), b"".join(attrs)),
        }

    def write(self, file: BinaryIO) -> None:
        tables = self._tables()
        position = 64 + 64 * (len(tables) + 1)
        entries = b""
        places = []
        for kind, (count, data) in tables.items():
            position = round_up(position, 64)
            places.append((position, data))
            entries += struct.pack("<IIQQQ", kind, count, position, len(data), 0) + hashlib.sha256(data).digest()
            position += len(data)
        start = round_up(position, 4096)
        for position, data in places:
            _write_at(file, position, data)
        digest = self._write_data(file, start)
        entries += struct.pack("<IIQQQ", DATA, 0, start, self.data_bytes, 0) + digest
        header = struct.pack("<8sIIQQ", MAGIC, VERSION, len(tables) + 1, start + self.data_bytes, 0)
        _write_at(file, 0, header + hashlib.sha256(entries).digest() + entries)
        file.seek(start + self.data_bytes)

    def _write_data(self, file: BinaryIO, start: int) -> bytes:
        digest, position = hashlib.sha256(), 0
        _write_at(file, start, b"")
        for tensor, (offset, size) in self.offsets.items():
            gap = bytes(offset - position)
            data = np.ascontiguousarray(_constant(tensor)).view(np.uint8).data if size else memoryview(b"")
            assert len(data) == size, (tensor.name, len(data), size)
            for part in (gap, data):
                file.write(part)
                digest.update(part)
            position = offset + size
        return digest.digest()


def _constant(tensor: Tensor) -> np.ndarray:
    values = pack(tensor.weight) if tensor.weight is not None else tensor.const
    assert values is not None
    return values.reshape(-1)


def _write_at(file: BinaryIO, position: int, data: bytes) -> None:
    end = file.seek(0, 2)
    if end < position:
        file.write(bytes(position - end))
    file.seek(position)
    file.write(data)


def own_outputs(graph: Graph) -> None:
    """Give every model output a tensor of its own, written by a step: copy inputs, constants, views, variables, repetitions."""
    written = {t for s in graph.steps if s.op not in (Op.ALIAS, Op.VAR) for t in s.outputs}
    taken: set[Tensor] = set()
    for i, tensor in enumerate(graph.outputs):
        if tensor in written and tensor not in taken:
            taken.add(tensor)
            continue
        copy = Tensor(graph.output_names[i], tensor.dtype, tensor.shape)
        graph.steps.append(Step(Op.UNARY, [tensor], [copy], [int(Unary.COPY), 0.0, 0.0], graph.output_names[i]))
        graph.outputs[i] = copy
        taken.add(copy)


def write_plan(graph: Graph, meta: dict[str, Any], file: BinaryIO) -> None:
    """Write the plan of ``graph`` to a seekable binary file.  Weights are packed and written one at a time."""
    own_outputs(graph)
    for tensor in graph.operands():
        if tensor.layout not in (Layout.PLAIN, Layout.A8_TOKEN, Layout.A8_BLOCK) and tensor.weight is None:
            raise InvalidModel(f"tensor '{tensor.name}' has no weight to pack")
    _Writer(graph, meta).write(file)
