"""Float operators between DequantizeLinear and QuantizeLinear, translated to integer steps.

Rules:
1. A group is an operator with an integer form (qconv_ops.py), followed by any Relu and Clip, then by operators that only move
   elements, then by the QuantizeLinear; each result inside is read only by the next.  Relu and Clip become limits of the codes;
   what moves elements moves codes.
2. A QuantizeLinear of what DequantizeLinear gave, moved or not, passes the codes on, by a table where the scales differ.
3. A group that cannot run on integers is translated as it stands, and a note says why; so does one for a convolution of
   dequantized codes whose result nobody quantizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UnsupportedOperator
from .codes import Stay, Target, codes_of, known_zero, positive, quantized, requantized, turned
from .ir import DType, Tensor
from .lower import Lowering, Node

if TYPE_CHECKING:
    import onnx

LIMITS = ("Relu", "Clip")
MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")
NOTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "AveragePool", "GlobalAveragePool", "MaxPool", "Softmax")


@dataclass
class Group:
    """Indices of nodes; head -1: none (rule 2)."""

    head: int
    limits: list[int] = field(default_factory=list)
    moves: list[int] = field(default_factory=list)
    inner: bool = False  # only DequantizeLinear reads the codes

    @property
    def waiting(self) -> list[int]:
        return [*([self.head] if self.head >= 0 else []), *self.limits, *self.moves]


def _names(nodes: Sequence[onnx.NodeProto]) -> Iterator[str]:
    """Every name that nodes read, those of their subgraphs included."""
    for node in nodes:
        yield from node.input
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _names(graph.node)
                yield from (o.name for o in graph.output)


def find_groups(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> dict[int, Group]:
    """The group that ends in each QuantizeLinear, by its index."""
    from .qconv_ops import INTEGER

    uses: dict[str, int] = {}
    for name in (*_names(nodes), *outputs):
        uses[name] = uses.get(name, 0) + 1
    makers = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    dequantized: dict[str, int] = {}
    for node in nodes:
        if node.op_type == "DequantizeLinear" and node.input:
            dequantized[node.input[0]] = dequantized.get(node.input[0], 0) + 1
    groups = {}
    for i, node in enumerate(nodes):
        if node.op_type != "QuantizeLinear" or len(node.input) < 2 or not node.output:
            continue
        group = Group(-1)
        cut = group
        name = node.input[0]
        while name in makers and uses.get(name) == 1 and makers[name] < i:
            at = makers[name]
            kind = nodes[at].op_type
            if nodes[at].domain not in ("", "ai.onnx") or len(nodes[at].output) != 1:
                break
            if kind in MOVES and not group.limits:
                group.moves.insert(0, at)
            elif kind in LIMITS:
                cut = Group(at, list(group.limits), list(group.moves))  # where nothing with an integer form comes before
                group.limits.insert(0, at)
            else:
                group.head = at if kind in INTEGER else -1
                break
            name = nodes[at].input[0] if nodes[at].input else ""
        if group.head < 0:
            group = cut if cut.head >= 0 else Group(-1)
        group.inner = bool(uses.get(node.output[0])) and uses[node.output[0]] == dequantized.get(node.output[0], 0)
        groups[i] = group
    return groups


def lower_nodes(lowering: Lowering, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str]) -> None:
    """Translate the nodes of a graph, groups of rule 1 as one."""
    quantized_graph = any(n.op_type == "QuantizeLinear" for n in nodes) and lowering.activations != "float"
    groups = find_groups(nodes, outputs) if quantized_graph else {}
    waiting = {i for g in groups.values() for i in g.waiting}
    dequantized = {n.output[0] for n in nodes if n.op_type == "DequantizeLinear" and n.output}
    for i, node in enumerate(nodes):
        if i in waiting:
            continue
        group = groups.get(i)
        if group is None:
            if groups and node.op_type in ("Conv", "ConvTranspose") and node.input[0] in dequantized:
                _note(lowering, nodes, Group(i), "its result is not quantized, or not only")
            lowering._node(node)
            continue
        before = len(lowering.graph.steps)
        state = dict(lowering.forms), dict(lowering.moved)
        try:
            _integer(lowering, nodes, group, node)
        except (Stay, UnsupportedOperator) as reason:
            del lowering.graph.steps[before:]
            lowering.forms, lowering.moved = state
            _note(lowering, nodes, group, str(reason))
            for at in (*group.waiting, i):
                lowering._node(nodes[at])


def _note(lowering: Lowering, nodes: Sequence[onnx.NodeProto], group: Group, reason: str) -> None:
    if group.head >= 0 and nodes[group.head].op_type in NOTED:
        head = nodes[group.head]
        lowering.graph.notes.append(f"{head.name or head.output[0]} ({head.op_type}) runs in float32: {reason}")


def _integer(lowering: Lowering, nodes: Sequence[onnx.NodeProto], group: Group, last: onnx.NodeProto) -> None:
    """Emit the steps of a group and name its result."""
    from .qconv_ops import INTEGER

    end = _quantizer(lowering, last)
    target = _target(end, group)
    made: Tensor
    if group.head < 0:
        source = lowering.values.get(last.input[0])
        if source is None or end.attr("block_size", 0):
            raise Stay("its operand is no result")
        made = requantized(end, codes_of(end, source), target)
    else:
        for at in group.limits:
            _limit(lowering, nodes[at], target)
        made = INTEGER[nodes[group.head].op_type](Node(lowering, nodes[group.head]), target)
        for at in group.moves:
            made = _moved(lowering, nodes[at], made)
    if made.shape is None or last.output[0] in lowering.values:
        raise end.fail(f"output '{last.output[0]}' is written twice")
    lowering.values[last.output[0]] = made


def _quantizer(lowering: Lowering, proto: onnx.NodeProto) -> Node:
    """The QuantizeLinear as a node without its first operand, which may not exist."""
    copy = type(proto)()
    copy.CopyFrom(proto)
    copy.input[0] = ""
    return Node(lowering, copy)


def _target(end: Node, group: Group) -> Target:
    zero = end.optional(2)
    dtype = zero.dtype if zero is not None else int(end.attr("output_dtype", 0) or DType.UINT8)
    if end.attr("precision", 0) not in (0, DType.FLOAT):
        raise Stay("its QuantizeLinear has another precision than float32")
    return Target(positive(end.get(1)), known_zero(zero, dtype), dtype, group.inner)


def _limit(lowering: Lowering, proto: onnx.NodeProto, target: Target) -> None:
    """Rule 1: limits of the codes instead of a Relu or Clip."""
    copy = type(proto)()
    copy.CopyFrom(proto)
    copy.input[0] = ""
    node = Node(lowering, copy)
    low, high = (0.0, None) if node.type == "Relu" else (_bound(node, 1, "min"), _bound(node, 2, "max"))
    plain = Target(target.scale, target.zero, target.dtype)
    if low is not None:
        target.low = max(target.low, int(quantized(np.array(low, np.float32), plain)))
    if high is not None:
        target.high = min(target.high, int(quantized(np.array(high, np.float32), plain)))
    if target.low > target.high:
        raise Stay("its limits exclude each other")


def _bound(node: Node, index: int, name: str) -> float | None:
    tensor = node.optional(index)
    if tensor is None:
        value: Any = node.attr(name)
        return None if value is None else float(value)
    if not tensor.known or tensor.value().size != 1:
        raise Stay("a limit is computed at run time")
    return float(tensor.value().reshape(-1)[0])


def _moved(lowering: Lowering, proto: onnx.NodeProto, codes: Tensor) -> Tensor:
    """The result of a node that only moves elements, for codes instead of its first operand."""
    from .lower import HANDLERS

    copy = type(proto)()
    copy.CopyFrom(proto)
    copy.input[0] = f"{proto.output[0]}/codes"
    lowering.values[copy.input[0]] = codes
    if proto.op_type == "Transpose":  # cancels what put the channels first
        node = Node(lowering, copy)
        return turned(node, codes, node.attr("perm", list(range(codes.rank))[::-1]))
    handler = HANDLERS.get(("", proto.op_type))
    if handler is None:
        raise Stay(f"there is no step for {proto.op_type}")
    made: Tensor = handler(Node(lowering, copy))
    return made
