"""What a bundle is made of, before it is text: constants, layers, calls, and the buffers they work on."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from .memory import Life
from .network import Buffer, Network


@dataclass
class Data:
    """All constants as 32-bit words; equal ones once."""

    blob: bytearray = field(default_factory=bytearray)
    notes: list[tuple[int, str]] = field(default_factory=list)  # what begins at an offset
    known: dict[bytes, int] = field(default_factory=dict)
    weights: int = 0  # bytes of weights, without the constants beside them

    def add(self, value: bytes, note: str, align: int = 16, weights: bool = False) -> int:
        if value in self.known:
            return self.known[value]
        self.blob += bytes(-len(self.blob) % align)
        offset = len(self.blob)
        self.blob += value
        self.notes.append((offset, note))
        self.known[value] = offset
        self.weights += len(value) if weights else 0
        return offset

    def words(self) -> np.ndarray:
        return np.frombuffer(bytes(self.blob) + bytes(-len(self.blob) % 4), "<u4")


@dataclass
class Layer:
    """A constant struct of 32-bit members."""

    type: str
    name: str
    values: list[tuple[str, int | float]]

    def packed(self) -> bytes:
        return b"".join(
            struct.pack("<f", v) if isinstance(v, float) else struct.pack("<I", int(v) & 0xFFFFFFFF) for _, v in self.values
        )


@dataclass
class Call:
    """One line of model_run: text with {0}, {1}.. for the addresses of buffers."""

    text: str
    buffers: list[Buffer]
    step: int


@dataclass
class Program:
    net: Network
    data: Data = field(default_factory=Data)
    layers: list[Layer] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    sources: set[str] = field(default_factory=set)  # of kernels/mcu
    native: list[NativeStep] = field(default_factory=list)
    lives: dict[Buffer, Life] = field(default_factory=dict)
    step: int = 0  # the call that is being made
    names: list[str] = field(default_factory=list)  # of the model's node, by call
    refused: list[str] = field(default_factory=list)  # layers that run in the general kernels, and why

    def touch(self, buffer: Buffer) -> None:
        life = self.lives.setdefault(buffer, Life(buffer, self.step, self.step))
        life.first, life.last = min(life.first, self.step), max(life.last, self.step)

    def call(
        self,
        text: str,
        reads: list[Buffer],
        writes: list[Buffer],
        name: str,
        scratch: int = 0,
        over: dict[Buffer, int | str] | None = None,
    ) -> None:
        """{0}.. are reads, then writes, then the scratch.  over: see Life; of the first write."""
        used = [*reads, *writes]
        if scratch:
            used.append(Buffer(f"scratch of {name}", scratch))
        for buffer in used:
            self.touch(buffer)
        if over and self.lives[writes[0]].first == self.step:
            self.lives[writes[0]].over |= over
        self.calls.append(Call(text, used, self.step))
        self.names.append(name)
        self.step += 1

    def layer(self, kind: str, values: list[tuple[str, int | float]]) -> str:
        name = f"{kind.removeprefix('fb_')}_{sum(layer.type == kind for layer in self.layers) + 1}"
        self.layers.append(Layer(kind, name, values))
        return f"&plan.{name}"


@dataclass
class NativeStep:
    """A step that runs in the PC's own sources (native.py); buffers of its operands by position."""

    op: int
    name: str
    operands: list[NativeOperand | None]
    n_in: int
    attrs: list[int]
    shared: Buffer | None
    scratch: Buffer | None


@dataclass
class NativeOperand:
    dtype: int
    layout: int
    shape: tuple[int, ...]
    bytes: int
    buffer: Buffer | None  # None: a constant at `offset` of the data
    offset: int = 0
