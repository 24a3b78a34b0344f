"""A compiled graph as boards see it: every shape a number, batch 1, views resolved, states paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..compiler import dims
from ..compiler.dims import Expr
from ..compiler.ir import NUMPY, Graph, Layout, Op, Step, Tensor
from ..compiler.pack import BLOCK, round_up
from ..errors import InvalidArgument, InvalidModel, UnsupportedOperator

CONTROL = {Op.IF, Op.ELSE, Op.END, Op.LOOP, Op.VAR, Op.SET, Op.MERGE}


@dataclass(eq=False)
class Buffer:
    """Bytes that steps write and read: a place in the arena.  slack: bytes behind it that a kernel may write."""

    name: str
    bytes: int
    slack: int = 0
    persistent: bool = False  # a state: it outlives the run
    offset: int = -1

    @property
    def size(self) -> int:
        return self.bytes + self.slack


@dataclass
class Port:
    """An input or output of the model."""

    name: str  # the model's
    c_name: str
    dtype: int
    shape: tuple[int, ...]
    buffer: Buffer
    scale: float | None = None
    zero: int | None = None
    state: str | None = None  # of an input: the output that becomes it


@dataclass
class Network:
    """Steps in order; `shape` and `buffer` by tensor."""

    steps: list[Step]
    shapes: dict[Tensor, tuple[int, ...]]
    roots: dict[Tensor, Tensor]
    buffers: dict[Tensor, Buffer] = field(default_factory=dict)  # by root; constants have none
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)
    symbols: dict[tuple[int, int], int] = field(default_factory=dict)

    def shape(self, tensor: Tensor) -> tuple[int, ...]:
        return self.shapes[tensor]

    def buffer(self, tensor: Tensor) -> Buffer:
        return self.buffers[self.roots[tensor]]

    def number(self, value: Any) -> int:
        """An integer attribute, which may be a dim."""
        return dims.evaluate(value, self.symbols)


def c_names(names: Sequence[str]) -> list[str]:
    """Identifiers, each once."""
    found: list[str] = []
    for name in names:
        text = "".join(c if c.isascii() and c.isalnum() else "_" for c in name).strip("_").lower() or "tensor"
        text = text if text[0].isalpha() else "t_" + text
        known, text_n, i = set(found), text, 2
        while text_n in known:
            text_n, i = f"{text}_{i}", i + 1
        found.append(text_n)
    return found


def short(name: str) -> str:
    """A node's name for people: TFLite joins the names of all that was fused."""
    first = name.split(";")[0]
    return first if len(first) <= 60 else "…" + first[-59:]


def tensor_bytes(tensor: Tensor, shape: tuple[int, ...]) -> int:
    """As fr_layout_bytes: of plain elements, or of quantized activations with their scales and sums."""
    if tensor.layout in (Layout.A8_TOKEN, Layout.A8_BLOCK):
        m, kp = int(np.prod(shape[:-1], dtype=np.int64)), round_up(shape[-1], BLOCK)
        blocks = kp // BLOCK
        scales = m * (blocks if tensor.layout == Layout.A8_BLOCK else 1)
        return round_up(round_up(m * kp, 64) + 4 * scales, 64) + 4 * m * blocks
    return int(np.prod(shape, dtype=np.int64)) * NUMPY[tensor.dtype].itemsize


def bind(graph: Graph, sizes: Mapping[str, int]) -> dict[tuple[int, int], int]:
    """A number for each symbol of the inputs' shapes: as given by name, else 1 (batch)."""
    symbols: dict[tuple[int, int], int] = {}
    names = set()
    for tensor in graph.inputs:
        for dim in tensor.shape:
            if isinstance(dim, Expr):
                for monomial, _ in dim.terms:
                    for atom in monomial:
                        if isinstance(atom, dims.Symbol):
                            names.add(atom.name)
                            symbols[atom.input, atom.axis] = int(sizes.get(atom.name, 1))
    unknown = set(sizes) - names
    if unknown:
        raise InvalidArgument(f"the model has no dimension {sorted(unknown)[0]!r}; it has: {', '.join(sorted(names)) or 'none'}")
    return symbols


def concrete(tensor: Tensor, symbols: dict[tuple[int, int], int]) -> tuple[int, ...]:
    try:
        return tuple(dims.evaluate(d, symbols) for d in tensor.shape)
    except (KeyError, ValueError, TypeError) as e:
        raise UnsupportedOperator(
            f"the shape of tensor '{tensor.name}' is known only at run time; boards need fixed shapes"
        ) from e


def pair_states(graph: Graph, given: Mapping[str, str]) -> dict[str, str]:
    """{input: output that becomes it in the next run}: those given, and names that differ in nothing but `_in` and `_out`."""
    inputs, outputs = [t.name for t in graph.inputs], graph.output_names
    for name, output in given.items():
        if name not in inputs or output not in outputs:
            raise InvalidArgument(f"state {name}={output}: want an input and an output of the model")
    found = dict(given)
    for name in inputs:
        other = name.replace("_in", "_out")
        if name.endswith("_in") and other != name and other in outputs and name not in found and other not in found.values():
            found[name] = other
    return found


def build(graph: Graph, sizes: Mapping[str, int] | None = None, states: Mapping[str, str] | None = None) -> Network:
    """Network of a graph whose outputs have tensors of their own (planfile.own_outputs).  Raises UnsupportedOperator."""
    symbols = bind(graph, sizes or {})
    net = Network([], {}, {}, symbols=symbols)
    for step in graph.steps:
        if step.op in CONTROL:
            raise UnsupportedOperator(f"'{step.name}': control flow ({step.op.name}) does not run on boards")
    for tensor in (*graph.inputs, *graph.outputs, *graph.operands()):
        if tensor not in net.shapes:
            net.shapes[tensor] = concrete(tensor, symbols)
            net.roots[tensor] = tensor
    for step in graph.steps:
        if step.op == Op.ALIAS:
            source = step.inputs[0]
            assert source is not None
            net.roots[step.out] = net.roots[source]
        else:
            net.steps.append(step)
    for tensor, root in net.roots.items():
        if root is tensor and tensor.const is None and tensor.weight is None:
            net.buffers[tensor] = Buffer(short(tensor.name), tensor_bytes(tensor, net.shapes[tensor]))
    _ports(net, graph, pair_states(graph, states or {}))
    return net


def _ports(net: Network, graph: Graph, states: dict[str, str]) -> None:
    names = [t.name for t in graph.inputs] + list(graph.output_names)
    called = c_names(names)
    for i, tensor in enumerate(graph.inputs):
        net.inputs.append(
            Port(tensor.name, called[i], tensor.dtype, net.shapes[tensor], net.buffers[tensor], state=states.get(tensor.name))
        )
    for i, tensor in enumerate(graph.outputs):
        c_name = called[len(graph.inputs) + i]
        net.outputs.append(Port(graph.output_names[i], c_name, tensor.dtype, net.shapes[tensor], net.buffers[tensor]))
    for port in net.inputs:
        if port.state is None:
            continue
        port.buffer.persistent = True
        other = next(p for p in net.outputs if p.name == port.state)
        if (other.dtype, other.shape) != (port.dtype, port.shape):
            raise InvalidModel(f"state {port.name} {port.shape} and {other.name} {other.shape} differ in shape or type")
