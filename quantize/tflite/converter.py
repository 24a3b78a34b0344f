"""Walks a subgraph and collects ONNX nodes; what every operator's handler works with.

Rules:
1. A TFLite tensor lives in ONNX as one or more *forms*: a permutation of its axes, and either its own dtype ("raw") or, for a
   quantized tensor, the reals it stands for ("real"). Forms are made on demand and remembered, so that each Transpose and each
   DequantizeLinear exists once and adjacent pairs of them never do.
2. Handlers that only move data use the raw form when input and output are quantized alike; handlers that compute use reals,
   and `put_real` appends the clamp of the fused activation (where the integers' range does not imply it) and QuantizeLinear.
3. Convolutions and pools want channels first, CHANNELS_FIRST[rank]; what is indifferent to the order of axes follows its inputs.
4. Names: the form that an operator produces is called like the TFLite tensor, unless that name belongs to a graph input or
   output in TFLite's order of axes; nodes are called like the tensor, helper nodes `TENSOR/Kind`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from frugal.errors import FrugalError, InvalidModel, UnsupportedOperator

from .. import _lazy, onnxfile
from ..graph import IR_VERSION
from ..onnxfile import OutTensor
from .reader import BFLOAT16, MALFORMED, RESOURCE, Model, Operator, Subgraph, Tensor

if TYPE_CHECKING:
    from .state import Variable

Perm = tuple[int, ...]
Handler = Callable[["Op"], None]
HANDLERS: dict[str, Handler] = {}
HANDLER_MODULES = ("conv", "dense", "elementwise", "activation", "shape", "reduce", "state", "recurrent", "control")
ACTIVATIONS = {0: "NONE", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}
CLAMPS: dict[str, tuple[float | None, float | None]] = {
    "RELU": (0.0, None),
    "RELU_N1_TO_1": (-1.0, 1.0),
    "RELU6": (0.0, 6.0),
    "RELU_0_TO_1": (0.0, 1.0),
}
MIN_NODES = 20_000  # that any file may give, and one more for 4 of its bytes: subgraphs may be used often
MAX_DEPTH = 16  # of subgraphs in subgraphs


def identity(rank: int) -> Perm:
    """TFLite's own order of axes."""
    return tuple(range(rank))


def channels_first(rank: int) -> Perm:
    """N, C, then space: (0, 3, 1, 2) for rank 4; rank 2 and less are left alone."""
    return (0, rank - 1, *range(1, rank - 1)) if rank > 2 else identity(rank)


def inverse(perm: Perm) -> Perm:
    """The permutation that undoes `perm`."""
    return tuple(int(i) for i in np.argsort(perm))


def op(*kinds: str) -> Callable[[Handler], Handler]:
    """Register the handler of one or more TFLite operators."""

    def register(handler: Handler) -> Handler:
        for kind in kinds:
            HANDLERS[kind] = handler
        return handler

    return register


def load_handlers() -> dict[str, Handler]:
    """Import every module of handlers; returns HANDLERS."""
    for module in HANDLER_MODULES:
        importlib.import_module(f"{__package__}.{module}")
    return HANDLERS


class Graph:
    """Nodes and initializers under construction: the main graph, or a body inside `outer`, with which it shares initializers."""

    def __init__(self, names: set[str], outer: Graph | None = None, limit: int = 0) -> None:
        self.onnx: Any = _lazy.onnx()
        self.nodes: list[Any] = []
        self.tensors: dict[str, OutTensor] = outer.tensors if outer else {}
        self.names = names
        self.left: list[int] = outer.left if outer else [limit]  # nodes that may follow, bodies included

    def unique(self, name: str) -> str:
        """`name`, or `name_2`, … when it is taken; marks it as taken."""
        found, n = name, 1
        while found in self.names:
            n += 1
            found = f"{name}_{n}"
        self.names.add(found)
        return found

    def node(self, kind: str, inputs: Sequence[str], name: str, outputs: int | Sequence[str] = 1, **attributes: Any) -> list[str]:
        """Append a node; returns the names of its outputs, fresh ones unless given."""
        self.left[0] -= 1
        if self.left[0] < 0:
            raise InvalidModel("the graph has far more nodes than the file has operators")
        base = name if f"/{kind}" in name[-len(kind) - 5 :] else f"{name}/{kind}"
        made = [self.unique(base) for _ in range(outputs)] if isinstance(outputs, int) else list(outputs)
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), made, name=name, **attributes))
        return made


class Converter:
    """One subgraph on its way to ONNX: the main one, or (with a parent) one that becomes a body or part of the parent's graph."""

    def __init__(self, model: Model, subgraph: Subgraph, opset: int, parent: Converter | None = None, prefix: str = "") -> None:
        self.model, self.subgraph, self.opset = model, subgraph, opset
        self.onnx: Any = _lazy.onnx()
        self.path = model.path
        self.forms: dict[int, dict[tuple[Perm, bool], str]] = {}  # tensor -> (axes, real) -> ONNX value
        self.final: dict[str, str] = {}  # value -> the name it gets at the end
        self.values: dict[int, NDArray[Any]] = {}  # tensors whose value is known: constants, shapes
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.state: dict[str, dict[str, Any]] = {}  # NAME -> what the metadata says of it
        self.variables: dict[str, Variable] = {}
        self.handles: dict[int, str] = {}  # tensor of a VAR_HANDLE -> its variable
        self.shared: dict[Any, str] = {}
        self.given: set[str] = set()  # values that come from outside
        self.claimed: set[str] = set()  # names that outputs have by now
        self.output_set = set(subgraph.outputs)
        self.depth: int = parent.depth + 1 if parent else 0
        self.notes: list[str] = parent.notes if parent else []
        self.node_names: set[str] = parent.node_names if parent else set()
        self.names = self.tensor_names(parent.graph.names if parent else set(), prefix)
        self.own_names = set(self.names)
        self.graph: Graph = parent.graph if parent else Graph({*self.names}, limit=MIN_NODES + model.size // 4)

    def tensor_names(self, seen: set[str], prefix: str) -> list[str]:
        """A unique name for each tensor, graph inputs and outputs first served; `seen` are taken, and grows."""
        g, names = self.subgraph, [""] * len(self.subgraph.tensors)
        first = dict.fromkeys([*g.inputs, *g.outputs])
        for i in [*first, *(i for i in range(len(names)) if i not in first)]:
            base = prefix + (g.tensors[i].name or f"tensor_{i}")
            name, n = base, 1
            while name in seen:
                n += 1
                name = f"{base}_{n}"
            seen.add(name)
            names[i] = name
        return names

    # --- running -------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Convert all operators."""
        self.refuse_unknown(load_handlers())
        for i in dict.fromkeys(self.subgraph.inputs):
            self.add_input(i)
        self.convert()
        with self.model.reader.at("graph outputs"):
            self.finish()

    def convert(self) -> None:
        """All operators in order."""
        handlers = load_handlers()
        for operator in self.subgraph.operators:
            what = f"{self.path}: {operator}" + (f" (output {self.names[operator.outputs[0]]!r})" if operator.outputs else "")
            try:
                handlers[operator.kind](Op(self, operator))
            except UnsupportedOperator as e:
                raise e if str(e).startswith(str(self.path)) else UnsupportedOperator(f"{what}: {e}") from e
            except FrugalError as e:
                raise e if str(e).startswith(str(self.path)) else InvalidModel(f"{what}: {e}") from e
            except MALFORMED as e:
                raise InvalidModel(f"{what}: malformed ({e or type(e).__name__})") from e

    def refuse_unknown(self, handlers: dict[str, Handler]) -> None:
        """Name every operator that has no handler, before any work."""
        missing: dict[str, int] = {}
        for o in self.subgraph.operators:
            if o.kind == "CUSTOM" or o.kind not in handlers:
                name = f"custom operator {o.custom!r}" if o.kind == "CUSTOM" else o.kind
                missing.setdefault(name, o.index)
        if missing:
            listed = ", ".join(f"{name} (first: operator {index})" for name, index in missing.items())
            raise UnsupportedOperator(
                f"{self.path}: cannot be written as ONNX: {listed}. Convert the model without "
                f"{'these operators' if len(missing) > 1 else 'this operator'}, or cut it before and after."
            )

    def add_input(self, index: int) -> None:
        t = self.tensor(index)
        if t.constant:
            raise InvalidModel(f"{self.path}: {t}: is a graph input and a constant at once")
        name = self.names[index]
        dims = ["batch" if i == 0 and d < 0 else f"{name}_{i}" if d < 0 else d for i, d in enumerate(t.shape)]
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, self.elem(t), dims))
        self.forms[index] = {(identity(t.rank), False): name}
        self.given.add(name)

    def elem(self, t: Tensor) -> int:
        """The ONNX data type of a tensor."""
        if t.kind == BFLOAT16:
            return int(self.onnx.TensorProto.FLOAT)
        if t.dtype is None:
            kind = "a resource" if t.kind == RESOURCE else f"of type number {t.kind}"
            raise InvalidModel(f"{self.path}: {t}: is {kind}, which has no place in an ONNX graph here")
        return int(self.onnx.helper.np_dtype_to_tensor_dtype(t.dtype))

    def tensor(self, index: int) -> Tensor:
        return self.subgraph.tensors[index]

    # --- values --------------------------------------------------------------------------------------------------------------

    def value(self, t: Tensor) -> NDArray[Any] | None:
        """The value of a tensor that is known now, else None."""
        if t.index in self.values:
            return self.values[t.index]
        if not t.constant:
            if 0 in t.shape and t.index not in self.forms and t.dtype is not None:
                return np.zeros(t.shape, t.dtype)  # an empty constant has no bytes, so it looks like none
            return None
        return self.model.reader.array(t)

    def perms(self, t: Tensor) -> list[Perm]:
        """The orders of axes in which a tensor exists already."""
        return list(dict.fromkeys(p for p, _ in self.forms.get(t.index, {})))

    def raw(self, t: Tensor, perm: Perm | None = None) -> str:
        """The tensor in its own dtype, axes in the order `perm` (None: TFLite's)."""
        return self.form(t, perm or identity(t.rank), False)

    def real(self, t: Tensor, perm: Perm | None = None) -> str:
        """The tensor as floats, through DequantizeLinear when it is quantized."""
        return self.form(t, perm or identity(t.rank), t.quantized)

    def form(self, t: Tensor, perm: Perm, real: bool) -> str:
        made = self.forms.setdefault(t.index, {})
        if (perm, real) in made:
            return made[perm, real]
        value = self.value(t)
        if value is not None and not made.get((identity(t.rank), False)):
            name = self.names[t.index] + ("/value" if t.index in self.output_set else "") + self.suffix(perm)
            made[perm, False] = self.constant(name, value.transpose(perm), (t.index, perm))
        elif not made:
            raise InvalidModel(f"{self.path}: {t}: is used before any operator produces it")
        if (perm, False) not in made:
            have = next(p for p, r in made if not r)
            axes = [have.index(a) for a in perm]
            name = self.names[t.index]
            fresh = perm == identity(t.rank) and name not in self.node_names  # a TRANSPOSE, which made no node itself
            node = self.node_name(name if fresh else f"{name}/Transpose")
            (made[perm, False],) = self.graph.node("Transpose", [made[have, False]], node, perm=axes)
        if real:
            made[perm, True] = self.dequantize(t, made[perm, False], perm)
        return made[perm, real]

    @staticmethod
    def suffix(perm: Perm) -> str:
        if perm == identity(len(perm)):
            return ""
        named: dict[Perm, str] = {(0, 3, 1, 2): "/nchw", (3, 0, 1, 2): "/oihw"}
        return named.get(perm, "/" + "".join(map(str, perm)))

    def node_name(self, name: str) -> str:
        """A node name that no other node has."""
        found, n = name, 1
        while found in self.node_names:
            n += 1
            found = f"{name}_{n}"
        self.node_names.add(found)
        return found

    def constant(self, name: str, value: NDArray[Any], key: Any = None) -> str:
        """An initializer; the same key gives the same one. bool, ints and floats as ONNX has them."""
        if key is not None and key in self.shared:
            return self.shared[key]
        value = np.asarray(value)
        full = self.graph.unique(name) if name not in self.own_names or name in self.graph.tensors else name
        self.graph.tensors[full] = onnxfile.from_array(full, np.ascontiguousarray(value).reshape(value.shape))
        if key is not None:
            self.shared[key] = full
        return full

    def ints(self, values: Sequence[int]) -> str:
        """int64 vector constant."""
        name = "const/" + "_".join(str(v) for v in values)
        return self.constant(name[:60], np.array(values, np.int64), ("ints", *values))

    def scalar(self, value: float | int | bool, dtype: Any = np.float32) -> str:
        """0-dimensional constant."""
        a = np.array(value, dtype)
        return self.constant(f"const/{a.dtype}/{value}", a, ("scalar", a.dtype.str, a.tobytes()))

    # --- quantization --------------------------------------------------------------------------------------------------------

    def scales(self, t: Tensor) -> tuple[str, str]:
        """Initializers with the scale and the zero point (in the tensor's dtype) of a quantized tensor."""
        q = t.quantization
        if q is None or t.dtype is None:
            raise InvalidModel(f"{self.path}: {t}: has no quantization parameters")
        info = np.iinfo(t.dtype)
        if (q.zero < info.min).any() or (q.zero > info.max).any():
            raise InvalidModel(f"{self.path}: {t}: a zero point does not fit its type {t.dtype}")
        scale = q.scale if q.per_channel else q.scale.reshape(())
        zero = (q.zero if q.per_channel else q.zero.reshape(())).astype(t.dtype)
        zero_name = "_".join(dict.fromkeys(str(z) for z in zero.flat[:4])) + (f"_x{zero.size}" if zero.ndim else "")
        return (
            self.constant(f"{self.names[t.index]}/scale", scale, ("scale", t.index)),
            self.constant(f"zero_point/{zero.dtype}/{zero_name}", zero, ("zero", zero.dtype.str, zero.shape, zero.tobytes())),
        )

    def dequantize(self, t: Tensor, value: str, perm: Perm) -> str:
        assert t.quantization is not None
        attributes = {"axis": perm.index(t.quantization.axis)} if t.quantization.per_channel else {}
        inputs = [value, *self.scales(t)]
        name = self.names[t.index]
        (out,) = self.graph.node("DequantizeLinear", inputs, self.node_name(f"{name}/DequantizeLinear"), **attributes)
        return out

    def put(self, t: Tensor, value: str, perm: Perm | None = None) -> None:
        """`value` is the tensor, in its own dtype and the order of axes `perm`."""
        if t.index in self.forms or t.constant or t.variable:
            raise InvalidModel(f"{self.path}: {t}: is written twice, or is a constant, a graph input or a state")
        perm = identity(t.rank) if perm is None else perm
        if len(perm) != t.rank:
            raise InvalidModel(f"{self.path}: {t}: has shape {list(t.shape)}, the operator gives {len(perm)} dimensions")
        self.forms[t.index] = {(perm, False): value}
        if t.index not in self.output_set and value not in self.final and not self.owned(value):
            self.final[value] = self.names[t.index]

    def owned(self, value: str) -> bool:
        """Whether a value has a name of its own: graph inputs, constants, values that are a tensor already."""
        return value in self.graph.tensors or value in self.given or value in self.final

    def put_real(self, t: Tensor, value: str, perm: Perm | None = None, activation: str = "NONE") -> None:
        """`value` are the reals of the tensor before the fused activation: clamp and quantize as its type asks."""
        name = self.names[t.index]
        value = self.activate(t, value, activation, name)
        if t.quantized:
            assert t.quantization is not None
            attributes = {"axis": (perm or identity(t.rank)).index(t.quantization.axis)} if t.quantization.per_channel else {}
            inputs = [value, *self.scales(t)]
            (value,) = self.graph.node("QuantizeLinear", inputs, self.node_name(f"{name}/QuantizeLinear"), **attributes)
        elif t.dtype is not None and t.dtype.kind in "iu" and t.dtype.itemsize == 1:
            raise InvalidModel(f"{self.path}: {t}: {t.dtype} without scale cannot hold the result of arithmetic")
        self.put(t, value, perm)

    def activate(self, t: Tensor, value: str, activation: str, name: str) -> str:
        if activation == "NONE":
            return value
        if activation == "TANH":
            return self.graph.node("Tanh", [value], self.node_name(f"{name}/Tanh"))[0]
        if activation not in CLAMPS:
            raise UnsupportedOperator(f"fused activation {activation} is not supported")
        low, high = CLAMPS[activation]
        if t.quantized:
            low, high = self.needed_clamp(t, low, high)
        return self.clamp(value, low, high, name, t)

    def clamp(self, value: str, low: float | None, high: float | None, name: str, t: Tensor) -> str:
        """Relu or Clip; in the tensor's own type, or float for a quantized one."""
        dtype = np.dtype(np.float32) if t.quantized or t.dtype is None else t.dtype
        if low is None and high is None:
            return value
        if low == 0.0 and high is None:
            return self.graph.node("Relu", [value], self.node_name(f"{name}/Relu"))[0]
        bounds = ["" if b is None else self.scalar(b, dtype) for b in (low, high)]
        return self.graph.node("Clip", [value, *bounds], self.node_name(f"{name}/Clip"))[0]

    @staticmethod
    def needed_clamp(t: Tensor, low: float | None, high: float | None) -> tuple[float | None, float | None]:
        """The bounds that saturation to the integer type does not give already."""
        assert t.quantization is not None and t.dtype is not None
        info, scale, zero = np.iinfo(t.dtype), float(t.quantization.scale[0]), int(t.quantization.zero[0])
        if low is not None and zero + round(low / scale) <= info.min:
            low = None
        if high is not None and zero + round(high / scale) >= info.max:
            high = None
        return low, high

    # --- the end -------------------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Graph outputs, and the names that were chosen on the way."""
        for i in dict.fromkeys(self.subgraph.outputs):
            self.add_output(self.output_value(i), self.tensor(i))
        self.finish_state()
        self.rename(self.graph.nodes)

    def output_value(self, index: int) -> str:
        """The name of an output of the subgraph: its tensor's, of a node's result that has no other name."""
        value, name = self.raw(self.tensor(index)), self.names[index]
        if not self.owned(value) and value != name:
            self.final[value] = name
            self.claimed.add(name)
            return name
        taken = index in self.subgraph.inputs or name in self.claimed
        out = self.graph.unique(f"{name}/output") if taken else name
        self.graph.node("Identity", [value], self.node_name(f"{name}/Identity"), outputs=[out])
        self.claimed.add(out)
        self.given.add(out)
        return out

    def rename(self, nodes: Any) -> None:
        """Give values their final names, in bodies too."""
        for node in nodes:
            node.input[:] = [self.final.get(v, v) for v in node.input]
            node.output[:] = [self.final.get(v, v) for v in node.output]
            for a in node.attribute:
                if a.type == a.GRAPH:
                    self.rename(a.g.node)

    def add_output(self, name: str, t: Tensor) -> None:
        dims = ["batch" if i == 0 and d < 0 else f"{name}_{i}" if d < 0 else d for i, d in enumerate(t.shape)]
        self.outputs.append(self.onnx.helper.make_tensor_value_info(name, self.elem(t), dims))

    def finish_state(self) -> None:
        """Variables become inputs and outputs (state.py)."""
        from .state import finish

        finish(self)

    def proto(self, name: str, metadata: dict[str, str]) -> Any:
        """The ModelProto without the initializers, which are self.graph.tensors."""
        h = self.onnx.helper
        used = {o.name for o in self.outputs} | self.reads(self.graph.nodes)
        self.graph.tensors = {k: v for k, v in self.graph.tensors.items() if k in used}
        graph = h.make_graph(self.graph.nodes, name, self.inputs, self.outputs)
        model = h.make_model(graph, opset_imports=[h.make_opsetid("", self.opset)], ir_version=IR_VERSION, producer_name="frugal")
        h.set_model_props(model, metadata)
        return model

    def reads(self, nodes: Any) -> set[str]:
        """What nodes read, in bodies too."""
        found = {v for n in nodes for v in n.input}
        for a in (a for n in nodes for a in n.attribute if a.type == a.GRAPH):
            found |= self.reads(a.g.node) | {o.name for o in a.g.output}
        return found


class Op:
    """One operator in the hands of its handler."""

    def __init__(self, c: Converter, operator: Operator) -> None:
        self.c, self.operator = c, operator
        self.kind = operator.kind

    @property
    def name(self) -> str:
        """The name of the first output: what nodes are called."""
        return self.c.names[self.operator.outputs[0]] if self.operator.outputs else f"{self.kind}_{self.operator.index}"

    def has(self, i: int) -> bool:
        """Whether the optional input i is there."""
        return i < len(self.operator.inputs) and self.operator.inputs[i] >= 0

    def input(self, i: int) -> Tensor:
        """Input i. Raises InvalidModel when it is missing."""
        if not self.has(i):
            raise InvalidModel(f"input {i} is missing")
        return self.c.tensor(self.operator.inputs[i])

    def output(self, i: int = 0) -> Tensor:
        """Output i. Raises InvalidModel when it is missing."""
        if i >= len(self.operator.outputs) or self.operator.outputs[i] < 0:
            raise InvalidModel(f"output {i} is missing")
        return self.c.tensor(self.operator.outputs[i])

    def option(self, options: str, name: str, default: Any) -> Any:
        """Field `name` of the options table."""
        return self.c.model.reader.option(self.operator, options, name, default)

    def activation(self, options: str) -> str:
        """The fused activation's name."""
        number = self.option(options, "FusedActivationFunction", 0)
        return ACTIVATIONS.get(number, f"number {number}")

    def const(self, i: int, what: str) -> NDArray[Any]:
        """Input i, whose value must be known. Raises UnsupportedOperator."""
        value = self.c.value(self.input(i))
        if value is None:
            raise UnsupportedOperator(f"{what} (input {i}, {self.input(i)}) must be a constant")
        return value

    def const_ints(self, i: int, what: str) -> list[int]:
        """Input i, integers known now, as a flat list."""
        value = self.const(i, what)
        if value.dtype.kind not in "iu":
            raise InvalidModel(f"{what} (input {i}) has type {value.dtype}, want integers")
        return [int(v) for v in value.reshape(-1)]

    def node(self, kind: str, inputs: Sequence[str], main: bool = False, outputs: int = 1, **attributes: Any) -> str:
        """Append a node, called like the output tensor (main) or `TENSOR/Kind`; returns its (first) output."""
        return self.nodes(kind, inputs, main, outputs, **attributes)[0]

    def nodes(self, kind: str, inputs: Sequence[str], main: bool = False, outputs: int = 1, **attributes: Any) -> list[str]:
        """As `node`, all outputs."""
        name = self.name if main and self.name not in self.c.node_names else f"{self.name}/{kind}"
        return self.c.graph.node(kind, inputs, self.c.node_name(name), outputs, **attributes)

    def pick(self, *tensors: Tensor) -> Perm:
        """The order of axes for an operator indifferent to it: that with the fewest Transposes, channels first on ties."""
        rank = max((t.rank for t in tensors), default=0)
        live = [t for t in tensors if t.rank == rank and self.c.value(t) is None]
        first, plain = channels_first(rank), identity(rank)
        if any(t.rank not in (0, rank) and self.c.value(t) is None for t in tensors):
            return plain  # a value of fewer axes would have to be reshaped first
        missing = {p: sum(p not in self.c.perms(t) for t in live) for p in (first, plain)}
        return first if live and missing[first] < len(live) and missing[first] <= missing[plain] else plain

    def alike(self, a: Tensor, b: Tensor) -> bool:
        """Whether two tensors' integers mean the same reals, so that they can be moved as they are."""
        if a.kind != b.kind:
            return False
        p, q = a.quantization, b.quantization
        if not a.quantized or not b.quantized or p is None or q is None:
            return True
        return bool(np.array_equal(p.scale, q.scale) and np.array_equal(p.zero, q.zero))

    def moving(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], integers: str = "i1 u1 i2") -> bool:
        """Whether data can be moved in its own dtype: all quantized alike, and ONNX's operator takes it (`integers`)."""
        if not all(self.alike(inputs[0], t) for t in [*inputs, *outputs]):
            return False
        dtype = inputs[0].dtype
        return not inputs[0].quantized or (dtype is not None and dtype.str[1:] in integers.split())

    def get(self, t: Tensor, perm: Perm, raw: bool) -> str:
        return self.c.raw(t, perm) if raw else self.c.real(t, perm)

    def set(self, t: Tensor, value: str, perm: Perm, raw: bool) -> None:
        if raw:
            self.c.put(t, value, perm)
        else:
            self.c.put_real(t, value, perm)

    def flat_rows(self, x: Tensor, cols: int) -> str:
        """The reals of x as a matrix of rows of `cols` values; any order of axes that only moves axes of size 1 will do."""
        perm = self.same_order(x)
        if x.rank == 2 and x.shape[1] == cols:
            return self.c.real(x)
        if not x.quantized:
            return self.node("Reshape", [self.c.real(x, perm), self.c.ints([-1, cols])])
        # Reshape the integers: DequantizeLinear then stands right before the product, where runtimes look for it.
        assert x.quantization is not None
        flat = self.node("Reshape", [self.c.raw(x, perm), self.c.ints([-1, cols])])
        name = self.c.node_name(f"{self.name}/DequantizeLinear")
        return self.c.graph.node("DequantizeLinear", [flat, *self.c.scales(x)], name)[0]

    def same_order(self, x: Tensor) -> Perm:
        """An order of axes in which x exists and whose elements lie as in TFLite's, else TFLite's own."""
        for perm in self.c.perms(x):
            if [a for a in perm if x.shape[a] != 1] == [a for a in range(x.rank) if x.shape[a] != 1]:
                return perm
        return identity(x.rank)

    def reshape_like(self, value: str, y: Tensor, x: Tensor) -> str:
        """`value` in the shape of y, of which one axis may be unknown; or, when more are, that of x but for the last axis."""
        if sum(d < 0 for d in y.shape) <= 1:
            return self.node("Reshape", [value, self.c.ints(list(y.shape))])
        if y.rank != x.rank or y.shape[-1] < 0:
            raise UnsupportedOperator(f"the shape of {y} is not known: {list(y.shape)}")
        lead = self.node("Shape", [self.c.raw(x)], end=x.rank - 1)
        shape = self.node("Concat", [lead, self.c.ints([y.shape[-1]])], axis=0)
        return self.node("Reshape", [value, shape])

    def int64(self, i: int) -> str:
        """Input i as int64 vector or scalar, for the shape inputs of ONNX operators."""
        t = self.input(i)
        value = self.c.value(t)
        if value is not None:
            name = f"{self.c.names[t.index]}/int64"
            return self.c.constant(name, value.astype(np.int64), ("int64", t.index))
        raw = self.c.raw(t)
        return raw if t.dtype == np.int64 else self.node("Cast", [raw], to=self.c.onnx.TensorProto.INT64)


def checked_axis(axis: int, rank: int) -> int:
    """A possibly negative axis as 0 … rank - 1. Raises InvalidModel."""
    if not -rank <= axis < rank:
        raise InvalidModel(f"axis {axis} is out of range for rank {rank}")
    return axis % rank
