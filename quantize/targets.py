"""Which tensors of a float graph can be quantized: constant right operands of MatMul and Gemm, tables of Gather.

Rules:
1. MatMul(x, w): w is a 2-D float initializer [K, N], or Transpose(perm=[1, 0]) of one stored [N, K]; x is not constant.
2. Gemm(x, w, c): the same, transB counted in; it becomes MatMul and Add.
3. Gather(w, ids), axis 0: w is a 2-D float initializer [rows, K].
4. Identity and Cast(to FLOAT) between initializer and use are looked through. FLOAT, FLOAT16, BFLOAT16 initializers.
5. A node in `exclude` (by its own name or its tensor's), a tensor of fewer than 256 elements, or anything not
   float32 at its use stays float. Where a tensor has other uses too, those keep the float tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

MIN_ELEMENTS = 256
FLOAT, FLOAT16, BFLOAT16 = 1, 10, 16
QUANTIZED_OPS = {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "ConvInteger",
    "QLinearMatMul",
    "QLinearConv",
    "MatMulNBits",
    "GatherBlockQuantized",
    "QGemm",
    "QAttention",
    "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
    "MatMulBnb4",
    "QLinearAdd",
    "QEmbedLayerNormalization",
}


@dataclass(frozen=True)
class Target:
    """One use of a weight. rows [N] x cols [K]: of the matrix y = W x, or of the table; transposed: stored [K, N]."""

    kind: str  # 'linear' or 'table'
    node: int  # index in graph.node
    name: str  # of the node, or of its output
    weight: str  # initializer
    rows: int
    cols: int
    transposed: bool
    activation: str  # the float input x, or the ids


@dataclass
class Found:
    """Targets in graph order, and (name, reason) of MatMul/Gemm/Gather weights that stay float."""

    targets: list[Target]
    skipped: list[tuple[str, str]]


def attribute(node: Any, name: str, default: Any) -> Any:
    """Value of an int, float, ints or string attribute."""
    for a in node.attribute:
        if a.name == name:
            return {1: a.f, 2: a.i, 3: a.s, 7: list(a.ints)}.get(a.type, default)
    return default


def all_nodes(graph: Any) -> Iterator[Any]:
    """Nodes of the graph and of the bodies inside them."""
    for node in graph.node:
        yield node
        for a in node.attribute:
            for body in [a.g] if a.type == 5 else a.graphs:
                yield from all_nodes(body)


def already_quantized(model: Any) -> str | None:
    """Name of the first quantized operator, None for a float model."""
    graphs = [model.graph, *model.functions]
    for g in graphs:
        for node in all_nodes(g):
            if node.op_type in QUANTIZED_OPS:
                return f"{node.name or node.output[0]} ({node.op_type})"
    return None


def find(graph: Any, exclude: tuple[str, ...] = ()) -> Found:
    """All quantizable uses in the main graph (bodies of If and Loop stay as they are)."""
    return _Finder(graph, exclude).run()


class _Finder:
    def __init__(self, graph: Any, exclude: tuple[str, ...]) -> None:
        self.graph, self.exclude = graph, exclude
        fed = {i.name for i in graph.input}  # an initializer that is an input too is a default, not a constant
        self.initializers = {t.name: t for t in graph.initializer if t.name not in fed}
        self.producer = {o: n for n in graph.node for o in n.output}

    def run(self) -> Found:
        found = Found([], [])
        for index, node in enumerate(self.graph.node):
            if node.domain not in ("", "ai.onnx") or node.op_type not in ("MatMul", "Gemm", "Gather"):
                continue
            data = node.input[0 if node.op_type == "Gather" else 1]
            source = self.trace(data)
            if source is None:
                continue
            weight, flipped = source
            name = node.name or node.output[0]
            reason = self.refuse(node, name, weight, flipped)
            if reason == "":
                continue
            if reason is None:
                found.targets.append(self.target(index, node, name, weight, flipped))
            else:
                found.skipped.append((name, f"{weight}: {reason}"))
        return found

    def trace(self, value: str) -> tuple[str, bool] | None:
        """The initializer behind a value, and whether an odd number of Transposes lies between; None: not constant."""
        flipped = False
        while value not in self.initializers:
            node = self.producer.get(value)
            if node is None or node.op_type not in ("Transpose", "Identity", "Cast"):
                return None
            if node.op_type == "Cast" and attribute(node, "to", 0) != FLOAT:
                return None
            if node.op_type == "Transpose":
                if attribute(node, "perm", [1, 0]) != [1, 0]:
                    return None
                flipped = not flipped
            value = node.input[0]
        return value, flipped

    def refuse(self, node: Any, name: str, weight: str, flipped: bool) -> str | None:
        """Why this use stays float; '' for uses that are no candidates at all; None: quantize it."""
        t = self.initializers[weight]
        if t.data_type not in (FLOAT, FLOAT16, BFLOAT16) or len(t.dims) < 2:
            return ""
        if any(fnmatchcase(name, e) or fnmatchcase(weight, e) for e in self.exclude):
            return "excluded"
        if len(t.dims) != 2:
            return f"has {len(t.dims)} dimensions, only 2 are quantized"
        if t.data_type != FLOAT and not self.cast(node):
            return "the graph computes in half precision here"
        if t.dims[0] * t.dims[1] < MIN_ELEMENTS:
            return f"has fewer than {MIN_ELEMENTS} elements"
        if node.op_type == "Gather":
            return "gathered along an axis other than 0" if attribute(node, "axis", 0) != 0 or flipped else None
        return "both operands are constant" if self.trace(node.input[0]) is not None else None

    def cast(self, node: Any) -> bool:
        """Whether a Cast to FLOAT lies between the initializer and this use."""
        value = node.input[0 if node.op_type == "Gather" else 1]
        while value not in self.initializers:
            producer = self.producer[value]
            if producer.op_type == "Cast":
                return True
            value = producer.input[0]
        return False

    def target(self, index: int, node: Any, name: str, weight: str, flipped: bool) -> Target:
        a, b = self.initializers[weight].dims
        if node.op_type == "Gather":
            return Target("table", index, name, weight, a, b, False, node.input[1])
        if node.op_type == "Gemm" and attribute(node, "transB", 0):
            flipped = not flipped
        rows, cols = (a, b) if flipped else (b, a)
        return Target("linear", index, name, weight, rows, cols, not flipped, node.input[0])
