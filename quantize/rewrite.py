"""The float graph becomes a quantized one: the node patterns of docs/quantization.md, and the tensors they read.

Patterns (N outputs, K inputs; q is stored [N, K] whatever the source's layout):
    int8   MatMul(x, DequantizeLinear(Transpose(q INT8 [N,K]), scale FLOAT [N]; axis=1))
    int4   MatMul(x, DequantizeLinear(Transpose(q INT4 [N,K]), Transpose(Cast(d FLOAT16 [N,K/32])),
                                      Transpose(z INT4 [N,K/32]); axis=0, block_size=32))
    table  DequantizeLinear(Gather(q INT8 [R,K], ids), Gather(scale FLOAT [R,1], ids); axis=-1, block_size=K)
    static x -> DequantizeLinear(QuantizeLinear(x, s FLOAT, 0 INT8), s, 0), shared by the products of x
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from frugal.errors import InvalidModel

from . import _lazy, int4, int8, onnxfile
from .onnxfile import OnnxFile, OutTensor
from .report import TensorReport
from .targets import Found, Target, all_nodes, attribute

INT8, INT4, FLOAT16, BFLOAT16, FLOAT = 3, 22, 10, 16, 1
_STORED: dict[int, np.dtype[Any]] = {FLOAT: np.dtype("<f4"), FLOAT16: np.dtype("<f2"), BFLOAT16: np.dtype("<u2")}
F32 = NDArray[np.float32]
_ROWS = 1 << 22  # bytes of float32 rows rounded at a time; rounding needs several copies of them


@dataclass
class Weight:
    """One stored quantized tensor [rows, cols] and everything that reads it. Quantized when its bytes are asked for."""

    model: OnnxFile
    initializer: Any
    name: str  # of the new initializers: name.int8, name.scale, …
    rows: int
    cols: int
    transposed: bool
    alpha: float
    bits: int
    block: int
    method: str
    kinds: set[str] = field(default_factory=set)
    nodes: list[str] = field(default_factory=list)
    report: TensorReport | None = None
    _scales: list[NDArray[Any]] = field(default_factory=list)
    _zeros: list[NDArray[Any]] = field(default_factory=list)

    def initializers(self) -> list[OutTensor]:
        """q first: writing it fills scales and zeros."""
        if self.bits == 4:
            blocks = (self.rows, self.cols // self.block)
            return [
                OutTensor(f"{self.name}.int4", INT4, (self.rows, self.cols), self._codes, self),
                OutTensor(f"{self.name}.scale", FLOAT16, blocks, lambda: self._scales, self),
                OutTensor(f"{self.name}.zero", INT4, blocks, lambda: [int4.pack(np.concatenate(self._zeros))], self),
            ]
        out = [OutTensor(f"{self.name}.int8", INT8, (self.rows, self.cols), self._codes, self)]
        if "linear" in self.kinds:
            out.append(OutTensor(f"{self.name}.scale", FLOAT, (self.rows,), lambda: self._scales, self))
        if "table" in self.kinds:
            out.append(OutTensor(f"{self.name}.row_scale", FLOAT, (self.rows, 1), lambda: self._scales, self))
        return out

    def state(self) -> Any:
        """For a write that goes on later: what the rounding cost."""
        self._scales, self._zeros = [], []
        return asdict(self.report) if self.report is not None else None

    def restore(self, state: Any) -> None:
        """See `state`."""
        self.report = TensorReport(**state)

    def _codes(self) -> Iterator[onnxfile.Bytes]:
        self._scales, self._zeros = [], []
        stats = _Stats()
        for w in self._rows():
            if not np.isfinite(w).all():
                raise InvalidModel(
                    f"{self.model.path}: weight {self.initializer.name!r} holds NaN or infinity;"
                    " repair the checkpoint, or name the tensor in `exclude`"
                )
            if self.bits == 4:
                yield self._block4(w, stats)
            else:
                codes, scale = int8.quantize_rows(w)
                self._scales.append(scale)
                stats.add(w, int8.dequantize_rows(codes, scale))
                yield codes
        nbytes = sum(t.nbytes for t in self.initializers())
        self.report = TensorReport(
            self.initializer.name,
            self.nodes,
            self.bits,
            self.block if self.bits == 4 else None,
            [self.rows, self.cols],
            nbytes,
            stats.cosine(),
            stats.worst,
        )

    def _block4(self, w: F32, stats: _Stats) -> NDArray[np.uint8]:
        if np.abs(w).max(initial=0) > 65504 * 7:
            raise InvalidModel(
                f"{self.model.path}: weight {self.initializer.name!r} passes 458528, the most that int4"
                " with fp16 scales holds; name the tensor in `exclude`"
            )
        codes, scale, zero = int4.quantize_blocks(w, self.block, self.method)
        self._scales.append(scale)
        self._zeros.append(zero)
        stats.add(w, int4.dequantize_blocks(codes, scale, zero))
        return int4.pack(codes)

    def _rows(self) -> Iterator[F32]:
        """float32 [some rows, cols] in order; an even number of rows each, so that INT4 packing is seamless."""
        ref, stored = self.model.refs.get(self.initializer.name), self.initializer.data_type
        step = max(2, _ROWS // (4 * max(1, self.cols)) // 2 * 2)
        if ref is None:
            w = np.asarray(self.model.tensor(self.initializer), np.float32)
            w = w.T if self.transposed else w
            for a in range(0, self.rows, step):
                yield self._scaled(np.ascontiguousarray(w[a : a + step]))
            return
        read = _columns if self.transposed else _lines
        with open(ref.path, "rb", buffering=0) as f:
            for a in range(0, self.rows, step):
                n = min(step, self.rows - a)
                raw = read(f, ref.offset, a, n, self.rows, self.cols, _STORED[stored])
                yield self._scaled(_floats(raw, stored).reshape(n, self.cols))

    def _scaled(self, w: F32) -> F32:
        return w if self.alpha == 1 else np.asarray(w * np.float32(self.alpha), np.float32)


def _lines(f: IO[bytes], offset: int, first: int, n: int, _: int, cols: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Rows first to first + n of a matrix stored [rows, cols]."""
    f.seek(offset + first * cols * dtype.itemsize)
    return np.fromfile(f, dtype, n * cols)


def _columns(f: IO[bytes], offset: int, first: int, n: int, rows: int, cols: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Rows first to first + n of a matrix stored [cols, rows]: strips of it, so that it never lies in memory whole."""
    strips = np.empty((cols, n), dtype)
    for c in range(cols):
        f.seek(offset + (c * rows + first) * dtype.itemsize)
        f.readinto(strips[c])  # type: ignore[attr-defined]
    return np.ascontiguousarray(strips.T)


def _floats(raw: NDArray[Any], stored: int) -> F32:
    """Stored numbers as float32; BFLOAT16 is the upper half of one."""
    return np.asarray((raw.astype("<u4") << 16).view("<f4") if stored == BFLOAT16 else raw, np.float32)


class _Stats:
    """Cosine and largest error of a tensor against its quantized values, summed piece by piece."""

    def __init__(self) -> None:
        self.dot = self.a = self.b = self.worst = 0.0

    def add(self, w: F32, q: F32) -> None:
        for i in range(0, w.size, 1 << 18):  # float64 copies of 2 MiB
            x, y = (v.reshape(-1)[i : i + (1 << 18)].astype(np.float64) for v in (w, q))
            self.dot, self.a, self.b = self.dot + float(x @ y), self.a + float(x @ x), self.b + float(y @ y)
            self.worst = max(self.worst, float(np.abs(x - y).max(initial=0)))

    def cosine(self) -> float:
        norm = (self.a * self.b) ** 0.5
        return self.dot / norm if norm > 0 else 1.0


@dataclass
class Rewritten:
    """The quantized graph without its tensors, and the tensors to write with it."""

    proto: Any
    tensors: list[OutTensor]
    weights: list[Weight]
    notes: list[str]


def rewrite(model: OnnxFile, found: Found, bits: int, block: int, method: str, ranges: dict[str, float] | None) -> Rewritten:
    """Replace every target by its pattern. ranges: largest |x| of each activation, for static int8 (else None)."""
    r = _Rewriter(model, found, bits, block, method, ranges)
    return r.run()


class _Rewriter:
    def __init__(
        self, model: OnnxFile, found: Found, bits: int, block: int, method: str, ranges: dict[str, float] | None
    ) -> None:
        self.model, self.found, self.ranges = model, found, ranges
        self.bits, self.block, self.method = bits, block, method
        self.onnx: Any = _lazy.onnx()
        self.graph = model.proto.graph
        self.by_name = {t.name: t for t in self.graph.initializer}
        self.used = {v for n in all_nodes(self.graph) for v in (*n.input, *n.output, n.name)} | set(self.by_name)
        self.weights: dict[tuple[Any, ...], Weight] = {}
        self.small: dict[str, OutTensor] = {}
        self.nodes: list[Any] = []
        self.made: dict[tuple[str, str], str] = {}  # (what, of which) -> value already computed by an emitted node
        self.notes: list[str] = []
        self.tables = {t.weight for t in found.targets if t.kind == "table"}

    def run(self) -> Rewritten:
        at = {t.node: t for t in self.found.targets}
        weights = {i: self.weight_of(t, node) for i, t in at.items() for node in (self.graph.node[i],)}
        for i, node in enumerate(self.graph.node):
            if i not in at:
                self.nodes.append(node)
            elif at[i].kind == "table":
                self.table(node, at[i], weights[i])
            else:
                self.linear(node, at[i], weights[i])
        proto = self.assemble()
        kept = {t.name for t in proto.graph.initializer}
        for t in self.found.targets:
            if t.weight in kept:
                self.notes.append(f"{t.weight}: has uses that stay float, so the float tensor is kept too")
        large = [o for t in proto.graph.initializer if (o := self.model.out(t)) is not None]
        tensors = [o for w in self.weights.values() for o in w.initializers()] + list(self.small.values()) + large
        proto = onnxfile.strip(proto, {o.name for o in large})
        return Rewritten(proto, tensors, list(self.weights.values()), sorted(set(self.notes)))

    def weight_of(self, t: Target, node: Any) -> Weight:
        """The stored tensor for a target; uses of one tensor in one orientation share it (a tied head stays int8)."""
        alpha = attribute(node, "alpha", 1.0) if node.op_type == "Gemm" else 1.0
        bits = self.bits
        if t.kind == "table" or (t.weight in self.tables and not t.transposed):
            bits = 8
        elif bits == 4 and t.cols % self.block:
            self.notes.append(f"{t.weight}: {t.cols} inputs are not a multiple of {self.block}, stays int8")
            bits = 8
        key = (t.weight, t.transposed, alpha, bits)
        if key not in self.weights:
            same = sum(k[0] == t.weight for k in self.weights)
            name = self.fresh(t.weight if same == 0 else f"{t.weight}.{same + 1}")
            self.weights[key] = Weight(
                self.model, self.by_name[t.weight], name, t.rows, t.cols, t.transposed, alpha, bits, self.block, self.method
            )
        w = self.weights[key]
        w.kinds.add(t.kind)
        w.nodes.append(t.name)
        return w

    def fresh(self, base: str) -> str:
        """A prefix under which no value of the graph lives yet."""
        name, n = base, 1
        while any(
            v.startswith(name + ".") and v[len(name) + 1 :] in ("int8", "int4", "scale", "row_scale", "zero") for v in self.used
        ):
            n += 1
            name = f"{base}.q{n}"
        return name

    def op(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Emit a node with an unused name; returns its output."""
        full, n = f"{name}/{kind}", 1
        while full in self.used:
            n += 1
            full = f"{name}/{kind}_{n}"
        self.used.add(full)
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [full], name=full, **attributes))
        return full

    def once(self, what: str, of: str, kind: str, inputs: list[str], **attributes: Any) -> str:
        """As op, but one node for all who ask for the same thing."""
        if (what, of) not in self.made:
            self.made[what, of] = self.op(kind, inputs, of, **attributes)
        return self.made[what, of]

    def const(self, name: str, value: NDArray[Any]) -> str:
        self.small.setdefault(name, onnxfile.from_array(name, value))
        return name

    def dequantized(self, w: Weight) -> str:
        """The value [K, N] that a MatMul reads."""
        n = w.name
        q = self.once("codes", n, "Transpose", [f"{n}.int{w.bits}"], perm=[1, 0])
        if w.bits == 8:
            return self.once("weight", n, "DequantizeLinear", [q, f"{n}.scale"], axis=1)
        d = self.once("cast", n, "Cast", [f"{n}.scale"], to=FLOAT)
        d = self.once("scale", n, "Transpose", [d], perm=[1, 0])
        z = self.once("zero", n, "Transpose", [f"{n}.zero"], perm=[1, 0])
        return self.once("weight", n, "DequantizeLinear", [q, d, z], axis=0, block_size=w.block)

    def table(self, node: Any, t: Target, w: Weight) -> None:
        base = node.name or node.output[0]
        q = self.op("Gather", [f"{w.name}.int8", node.input[1]], f"{base}/codes")
        s = self.op("Gather", [f"{w.name}.row_scale", node.input[1]], f"{base}/scale")
        self.nodes.append(
            self.onnx.helper.make_node("DequantizeLinear", [q, s], list(node.output), name=node.name, axis=-1, block_size=t.cols)
        )

    def linear(self, node: Any, t: Target, w: Weight) -> None:
        x, right = self.activation(node.input[0]), self.dequantized(w)
        if node.op_type == "MatMul":
            new = self.onnx.NodeProto()
            new.CopyFrom(node)
            new.input[:] = [x, right]
            self.nodes.append(new)
            return
        base = node.name or node.output[0]
        if attribute(node, "transA", 0):
            x = self.op("Transpose", [x], base, perm=[1, 0])
        last = {"outputs": list(node.output), "name": node.name}
        if len(node.input) < 3 or not node.input[2]:
            self.nodes.append(self.onnx.helper.make_node("MatMul", [x, right], **last))
            return
        y, c, beta = self.op("MatMul", [x, right], base), node.input[2], attribute(node, "beta", 1.0)
        if beta != 1:
            c = self.op("Mul", [c, self.const(f"{base}/beta", np.array(beta, np.float32))], base)
        self.nodes.append(self.onnx.helper.make_node("Add", [y, c], **last))

    def activation(self, x: str) -> str:
        """x itself, or its static int8 form when its range is known."""
        if self.ranges is None or x not in self.ranges:
            return x
        s = self.const(f"{x}.activation_scale", np.array(self.ranges[x] / 127, np.float32))
        z = self.const("activation_zero", np.array(0, np.int8))
        q = self.once("quantize", x, "QuantizeLinear", [x, s, z])
        return self.once("dequantize", x, "DequantizeLinear", [q, s, z])

    def assemble(self) -> Any:
        """The model with the new nodes; float weights, and Transposes of them, that nobody reads any more are gone."""
        proto = self.onnx.ModelProto()
        proto.CopyFrom(self.model.proto)
        g = proto.graph
        del g.node[:]
        g.node.extend(_alive(self.nodes, {o.name for o in g.output}))
        used = {v for n in all_nodes(g) for v in n.input} | {o.name for o in g.output}
        keep = [t for t in g.initializer if t.name in used]
        del g.initializer[:]
        g.initializer.extend(keep)
        made = {o for n in g.node for o in n.output}
        info = [v for v in g.value_info if v.name in made]
        del g.value_info[:]
        g.value_info.extend(info)
        return proto


def _alive(nodes: list[Any], outputs: Iterable[str]) -> list[Any]:
    """The nodes without Transpose, Identity and Cast nodes whose output nobody reads."""
    while True:
        used = {v for n in nodes for v in n.input} | set(outputs)
        for n in nodes:
            for a in n.attribute:
                for body in [a.g] if a.type == 5 else a.graphs:
                    used |= {v for m in all_nodes(body) for v in m.input} | {o.name for o in body.output}
        kept = [n for n in nodes if n.op_type not in ("Transpose", "Identity", "Cast") or used & set(n.output)]
        if len(kept) == len(nodes):
            return nodes
        nodes = kept
