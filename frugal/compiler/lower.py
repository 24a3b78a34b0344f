"""Turns ONNX nodes into executor steps, one handler an operator, folding what is known at compile time.

Rules:
1. Every tensor gets a dtype and a shape here; nothing is inferred later.
2. Integers that describe shapes are followed as symbols (``Tensor.sym``), so that Shape/Gather/Concat/Reshape chains cost nothing
   at run time; a step that really reads such integers gets them from a DIMS step.
3. A node whose inputs are all constants is evaluated with onnx.reference, after its handler has accepted it and said how big
   its result is.
4. A node without a handler, or that its handler refuses, is translated from the definition that ONNX gives for its operator in
   terms of others (functions.py), when there is one.
5. An operator with neither is an UnsupportedOperator that names the node of the model, before anything runs.
6. float16 and bfloat16 are storage, computed in float32: a handler that refuses them, or emits a step that does, runs again on
   float32 casts of its operands, and its results are cast back.  A result remembers the float32 it was rounded from
   (``Tensor.wide``), which its readers take instead: no rounding between consecutive operators, as onnxruntime does, and every
   pass sees plain float32.  A Cast that the model itself holds does round.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FrugalError, InvalidModel, UnsupportedOperator
from . import dims
from .dims import Dim, Expr
from .functions import body_of
from .ir import (
    FROM_NUMPY,
    INTEGERS,
    NARROW,
    NUMPY,
    SMALL_FLOATS,
    SMALL_INTS,
    DType,
    Graph,
    Op,
    Shape,
    Step,
    Tensor,
    Unary,
    elements,
)
from .legacy import FIRST_WITH_NUMPY_RULES, align_operands
from .reader import Source

if TYPE_CHECKING:
    import onnx

    from .codes import Codes

Handler = Callable[["Node"], Any]
HANDLERS: dict[tuple[str, str], Handler] = {}
HANDLER_MODULES = (
    "attention_ops",
    "contrib_ops",
    "control_ops",
    "composed_ops",
    "conv_ops",
    "index_ops",
    "math_ops",
    "ml_ops",
    "matrix_ops",
    "nn_ops",
    "norm_ops",
    "qconv_ops",
    "random_ops",
    "recurrent_ops",
    "quantize_ops",
    "sequence_ops",
    "shape_ops",
    "signal_ops",
    "spatial_ops",
    "types_ops",
)  # each registers its handlers when it is imported
FOLD_LIMIT = 1 << 20  # bytes of a folded result that is larger than what it was made of
FOLD_BUDGET = 64 << 20  # bytes that all folded results of a model may take, beside 4 times its own size
SYM_LIMIT = 1024  # integers of a tensor whose values are followed as symbols
MICROSOFT = "com.microsoft"
# Operators whose handlers take float16 and bfloat16 as they are (rule 6): types or exact values are what they are about.
EXACT = {
    "BitCast", "Cast", "CastLike", "ConstantOfShape", "DequantizeLinear", "EyeLike", "Identity", "If", "IsInf", "IsNaN",
    "KeptAttention", "Loop", "QuantizeLinear", "RandomNormalLike", "RandomUniformLike", "Scan", "Shape", "Size",
}  # fmt: skip
# Steps that only move elements, of any data type; in the blocks of other files their handlers say so themselves.
MOVES = {
    Op.ALIAS, Op.WHERE, Op.CAST, Op.CONVERT, Op.BIT_CAST, Op.TRANSPOSE, Op.EXPAND, Op.SLICE, Op.CONCAT, Op.GATHER, Op.FILL,
    Op.QUANTIZE, Op.DEQUANTIZE, Op.GATHER_DEQUANTIZE,
}  # fmt: skip
KEEP = {Op.CACHE_APPEND, Op.ATTENTION_KEPT}  # caches have types of their own


def load_handlers() -> dict[tuple[str, str], Handler]:
    """Import every module of handlers; returns HANDLERS."""
    for module in HANDLER_MODULES:
        importlib.import_module(f"{__package__}.{module}")
    return HANDLERS


def op(*names: str, domain: str = "") -> Callable[[Handler], Handler]:
    """Register the handler of one or more ONNX operators."""

    def register(handler: Handler) -> Handler:
        for name in names:
            HANDLERS[domain, name] = handler
        return handler

    return register


class Node:
    """One ONNX node while it is being translated: its inputs, attributes, and ways to emit steps."""

    def __init__(self, lowering: Lowering, proto: onnx.NodeProto) -> None:
        self.lowering, self.proto, self.graph = lowering, proto, lowering.graph
        own = proto.name or next(iter(proto.output), "") or proto.op_type
        self.part_of: Node | None = lowering.inside[-1] if lowering.inside else None
        self.type: str
        self.name: str
        self.type, self.name = proto.op_type, f"{self.part_of.name}/{own}" if self.part_of else own
        self.opset = lowering.opsets.get("", 0)
        self.inputs = [lowering.lookup(name, self) if name else None for name in proto.input]
        self.temporaries = 0
        self.foldable = True  # a handler clears it where onnx.reference would not give the same

    def fail(self, message: str) -> InvalidModel:
        return InvalidModel(f"{self.where}: {message}")

    def unsupported(self, message: str) -> UnsupportedOperator:
        return UnsupportedOperator(f"{self.where}: {message}")

    @property
    def where(self) -> str:
        """The node of the model, and the part of its definition that this is."""
        if self.part_of is not None:
            return f"{self.part_of.where}, whose definition has '{self.name}' ({self.type})"
        return f"{self.lowering.source.name}: node '{self.name}' ({self.type})"

    # ---- operands and attributes ----
    def get(self, index: int) -> Tensor:
        tensor = self.optional(index)
        if tensor is None:
            raise self.fail(f"input {index} is missing")
        return tensor

    def optional(self, index: int) -> Tensor | None:
        tensor = self.inputs[index] if index < len(self.inputs) else None
        if tensor is not None and tensor.items is not None:
            raise self.unsupported(f"'{tensor.name}' is a sequence")
        return tensor

    def attr(self, name: str, default: Any = None) -> Any:
        from onnx import helper

        for attribute in self.proto.attribute:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                return value.decode(errors="replace") if isinstance(value, bytes) else value
        return default

    def axis(self, value: int, rank: int) -> int:
        if not -rank <= value < max(rank, 1):
            raise self.fail(f"axis {value} is out of range for rank {rank}")
        return value + rank if value < 0 else value

    def floats(self, *tensors: Tensor | None) -> None:
        """Refuse operands that are not float32."""
        for tensor in tensors:
            if tensor is not None and tensor.dtype != DType.FLOAT:
                raise self.unsupported(f"'{tensor.name}' is {type_name(tensor.dtype)}; frugal computes this in float32 only")

    def array(self, index: int, what: str) -> np.ndarray:
        """The value of an input that has to be a constant."""
        tensor = self.get(index)
        if tensor.const is None:
            raise self.unsupported(f"{what} ('{tensor.name}') is computed at run time; frugal needs a constant there")
        return tensor.const

    def integers(self, index: int, what: str) -> list[Dim]:
        """The values of an integer input known at compile time, but for symbols."""
        tensor = self.get(index)
        values = self.lowering.symbols(tensor)
        if values is None:
            raise self.unsupported(f"{what} ('{tensor.name}') depends on data, not only on the shapes of the inputs")
        return list(values.reshape(-1))

    def ints(self, index: int, what: str) -> list[int]:
        values = self.integers(index, what)
        if any(isinstance(v, Expr) for v in values):
            raise self.unsupported(f"{what} ('{self.get(index).name}') must be constant")
        return [int(v) for v in values]  # type: ignore[arg-type]

    def sizes(self, index: int, what: str) -> list[Dim]:
        """The values of an integer input, none below 0, as dims: known now but for symbols, or late (known in a run)."""
        tensor = self.get(index)
        values = self.lowering.symbols(tensor)
        if values is not None:
            return list(values.reshape(-1))
        count = elements(tensor.shape)
        if not isinstance(count, int) or count > SYM_LIMIT or tensor.dtype not in INTEGERS:
            raise self.unsupported(f"{what} ('{tensor.name}', {show(tensor.shape)}) is no short list of integers of known length")
        return [self.late(tensor, i) for i in range(count)]

    def late(self, tensor: Tensor, index: int = 0) -> Dim:
        """Element `index` of an integer tensor as a dim; one that the data decides has to be 0 or more when it is used."""
        return self.lowering.late(tensor, index)

    def axes(self, index: int) -> list[int] | None:
        """The `axes` of an operator that took them as an attribute before and takes them as an input now; None when absent."""
        if self.optional(index) is not None:
            return self.ints(index, "axes")
        value = self.attr("axes")
        return None if value is None else [int(v) for v in value]

    # ---- emitting ----
    def tensor(self, dtype: int, shape: Sequence[Dim], name: str = "") -> Tensor:
        self.temporaries += 1
        return Tensor(name or f"{self.name}/{self.temporaries}", dtype, tuple(shape))

    def emit(self, code: Op, inputs: Sequence[Tensor | None], dtype: int, shape: Sequence[Dim], *attrs: Any) -> Tensor:
        """Append a step with one output of this dtype and shape, and return the output."""
        result = self.tensor(dtype, shape)
        self.emit_all(code, inputs, [result], attrs)
        return result

    def emit_all(self, code: Op, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor], attrs: Sequence[Any]) -> None:
        """Append a step with these outputs."""
        self._refuse_small(code, inputs, attrs)
        operands = [None if t is None else self.lowering.materialize(t) for t in inputs]
        self.graph.steps.append(Step(code, operands, list(outputs), list(attrs), self.name))

    def _refuse_small(self, code: Op, inputs: Sequence[Tensor | None], attrs: Sequence[Any]) -> None:
        """Refuse a step that computes with floats of at most 16 bits or integers of less than 8, which none does."""
        if code in MOVES | KEEP or 25 <= code < 32 or 40 <= code < 56 or (code == Op.UNARY and attrs[0] == Unary.COPY):
            return
        for t in inputs:
            if t is not None and (t.dtype in NARROW or ((t.dtype in SMALL_FLOATS or t.dtype in SMALL_INTS) and code < 56)):
                raise self.unsupported(f"'{t.name}' is {type_name(t.dtype)}, which no step computes with")

    def constant(self, values: np.ndarray) -> Tensor:
        result = self.tensor(FROM_NUMPY[values.dtype], values.shape)
        result.const = values
        return result

    def alias(self, x: Tensor, shape: Sequence[Dim]) -> Tensor:
        """x under another shape of as many elements."""
        if tuple(shape) == x.shape:
            return x
        if x.const is not None and all(isinstance(d, int) for d in shape):
            return self.constant(x.const.reshape([int(d) for d in shape if isinstance(d, int)]))
        return self.emit(Op.ALIAS, [x], x.dtype, shape)

    def broadcast(self, *shapes: Shape) -> Shape:
        """The numpy broadcast of shapes."""
        result = merge(shapes)
        if result is None:
            raise self.fail(f"shapes do not broadcast: {', '.join(show(s) for s in shapes)}")
        return result


class Lowering:
    """Translates a whole graph; `run` returns it."""

    def __init__(self, source: Source, activations: str) -> None:
        self.source = source
        self.activations = activations
        self.keep_float: set[Tensor] = set()  # left operands of products whose weights stay float
        self.graph = Graph()
        self.values: dict[str, Tensor] = {}
        self.initializers = {t.name: t for t in source.model.graph.initializer}
        self.outer: list[tuple[dict[str, Tensor], dict[str, onnx.TensorProto]]] = []  # the scopes around a subgraph's
        self.opsets = source.opsets  # of the nodes being translated: a function body has its own
        self.inside: list[Node] = []  # the nodes whose definitions are being translated, outermost first
        self.dims_steps: dict[Tensor, Tensor] = {}  # what was written to be read: symbols by steps, integers by late dims
        self.late_numbers: dict[Tensor, int] = {}
        self.forms: dict[tuple[Tensor, bool], Tensor] = {}  # of tensors of codes, see codes.py
        self.moved: dict[Tensor, Codes] = {}
        self.loop_bodies = 0  # translated so far
        self.wide_constants: dict[Tensor, Tensor] = {}
        self.fold_budget = FOLD_BUDGET + 4 * source.bytes

    # ---- names ----
    def lookup(self, name: str, node: Node) -> Tensor:
        for values, initializers in ((self.values, self.initializers), *reversed(self.outer)):
            if name in values:
                return values[name]
            if name in initializers:
                array = self.source.array(initializers[name])
                tensor = Tensor(name, FROM_NUMPY[array.dtype], array.shape, const=array)
                values[name] = tensor
                return tensor
        raise InvalidModel(
            f"{node.where}: input '{name}' is written by no node before it: "
            "the graph has a cycle, is unsorted, or lost an initializer"
        )

    def symbols(self, tensor: Tensor) -> np.ndarray | None:
        """The integers of a tensor as an object array of dims, when they are known but for symbols."""
        if tensor.sym is not None:
            return tensor.sym
        if tensor.const is not None and tensor.const.dtype.kind in "iub" and tensor.const.size <= SYM_LIMIT:
            return np.vectorize(int, otypes=[object])(tensor.const) if tensor.const.size else tensor.const.astype(object)
        return None

    def materialize(self, tensor: Tensor) -> Tensor:
        """A tensor that the executor can read: symbolic integers come from a DIMS step, quantized constants become float."""
        if tensor.items is not None:
            raise UnsupportedOperator(f"{self.source.name}: '{tensor.name}' is a sequence; only tensors leave a graph")
        if tensor.quant is not None and tensor.const is None:
            tensor.const = tensor.quant.value().astype(NUMPY[tensor.dtype], copy=False)
        if tensor.sym is None or tensor.const is not None or tensor.input >= 0:
            return tensor
        if tensor not in self.dims_steps:
            flat = Tensor(f"{tensor.name}/dims", DType.INT64, (tensor.sym.size,))
            self.graph.steps.append(Step(Op.DIMS, [], [flat], list(tensor.sym.reshape(-1)), tensor.name))
            result = flat
            if tensor.dtype != DType.INT64:
                result = Tensor(f"{tensor.name}/cast", tensor.dtype, flat.shape)
                self.graph.steps.append(Step(Op.CAST, [flat], [result], [], tensor.name))
            if tensor.shape != result.shape:
                view = Tensor(f"{tensor.name}/view", tensor.dtype, tensor.shape)
                self.graph.steps.append(Step(Op.ALIAS, [result], [view], [], tensor.name))
                result = view
            self.dims_steps[tensor] = result
        return self.dims_steps[tensor]

    def late(self, tensor: Tensor, index: int) -> Dim:
        """Element `index` of an integer tensor as a dim, known now or in a run."""
        known = self.symbols(tensor)
        if known is not None:
            value: Dim = known.reshape(-1)[index]
            return value
        return dims.late(self._number(self._pinned(tensor)), self._pinned(tensor), index)

    def late_axis(self, tensor: Tensor, axis: int) -> Dim:
        """The dim that a tensor written by MERGE or VAR has along an axis once it is written."""
        tensor.pinned = True
        return dims.late(self._number(tensor), tensor, axis, True)

    def _number(self, tensor: Tensor) -> int:
        return self.late_numbers.setdefault(tensor, len(self.late_numbers))

    def _pinned(self, tensor: Tensor) -> Tensor:
        """A tensor of int32 or int64 that no pass replaces, with the values of this one."""
        if tensor.input >= 0 and tensor.dtype in (DType.INT32, DType.INT64):
            return tensor
        if tensor not in self.dims_steps:
            exact = tensor.dtype in (DType.INT32, DType.INT64)
            copy = Tensor(f"{tensor.name}/late", tensor.dtype if exact else DType.INT64, tensor.shape, pinned=True)
            step = (Op.UNARY, [int(Unary.COPY), 0.0, 0.0]) if exact else (Op.CAST, [])
            self.graph.steps.append(Step(step[0], [self.materialize(tensor)], [copy], list(step[1]), tensor.name))
            self.dims_steps[tensor] = copy
        return self.dims_steps[tensor]

    # ---- the graph ----
    def run(self) -> Graph:
        from .qdq import lower_nodes

        proto = self.source.model.graph
        self._inputs(proto)
        lower_nodes(self, proto.node, [o.name for o in proto.output])
        for output in proto.output:
            tensor = self.values.get(output.name)
            if tensor is None and output.name in self.initializers:
                tensor = self.lookup(output.name, Node(self, _nothing()))
            if tensor is None:
                raise InvalidModel(f"{self.source.name}: output '{output.name}' is written by no node")
            self.graph.outputs.append(self.materialize(tensor))
            self.graph.output_names.append(output.name)
            self.graph.output_dims.append([d.dim_param for d in output.type.tensor_type.shape.dim])
        return self.graph

    def _inputs(self, proto: onnx.GraphProto) -> None:
        named: dict[str, Expr] = {}
        for value in proto.input:
            if value.name in self.initializers:
                continue
            where = f"{self.source.name}: input '{value.name}'"
            kind = value.type.tensor_type
            if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
                raise UnsupportedOperator(
                    f"{where} is not a tensor of known rank; give it a shape with onnx.tools.update_model_dims"
                )
            if kind.elem_type not in NUMPY:
                raise UnsupportedOperator(
                    f"{where} has data type {kind.elem_type} (of TensorProto.DataType), which frugal does not read"
                )
            index, shape = len(self.graph.inputs), list[Dim]()
            for axis, d in enumerate(kind.shape.dim):
                if d.HasField("dim_value"):
                    if d.dim_value == -1:  # Paddle's way to say that it is not known
                        shape.append(dims.symbol(index, axis))
                        continue
                    if d.dim_value < 0:
                        raise InvalidModel(f"{where}: dimension {axis} is {d.dim_value}")
                    shape.append(d.dim_value)
                elif d.dim_param and d.dim_param != "?":
                    shape.append(named.setdefault(d.dim_param, dims.symbol(index, axis, d.dim_param)))
                else:
                    shape.append(dims.symbol(index, axis))
            tensor = Tensor(value.name, kind.elem_type, tuple(shape), input=index)
            self.graph.inputs.append(tensor)
            self.values[value.name] = tensor

    def _node(self, proto: onnx.NodeProto) -> None:
        if not all(isinstance(text, str) for text in (proto.op_type, proto.domain, proto.name, *proto.input, *proto.output)):
            raise InvalidModel(f"{self.source.name}: node {proto.name!r} ({proto.op_type!r}) has names that are not UTF-8")
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        node = Node(self, proto)
        before = len(self.graph.steps)
        if node.opset < FIRST_WITH_NUMPY_RULES and domain == "":
            align_operands(node)
        results = self._translate(node, domain, before)
        if len(proto.output) > len(results):
            missing = [n for n in proto.output[len(results) :] if n]
            if missing:
                raise node.unsupported(f"output '{missing[0]}' is not one that frugal computes")
        self._fold(node, results, before)
        for name, tensor in zip(proto.output, results, strict=False):
            if name:
                if name in self.values or name in self.initializers:
                    raise node.fail(f"output '{name}' is written twice")
                self.values[name] = tensor

    def _translate(self, node: Node, domain: str, before: int) -> list[Tensor]:
        """The results of a node by its handler or, where that is missing or refuses, by its definition."""
        handler = HANDLERS.get((domain, node.type))
        try:
            if handler is None:
                raise self._unknown(node, domain)
            results = self._results(handler, node)
            if not any(node.proto.output[len(results) :]):
                return results
            raise node.unsupported(f"output '{node.proto.output[len(results)]}' is not one that frugal computes")
        except UnsupportedOperator as refusal:
            function = body_of(node.proto, node.inputs, domain, self.opsets.get(domain, 0))
            if function is None:
                raise
            self.take_back(before)
            try:
                return self.expand(node, *function)
            except UnsupportedOperator:
                if handler is None:
                    raise  # names the part that is missing
                raise refusal from None

    def _unknown(self, node: Node, domain: str) -> UnsupportedOperator:
        opset = self.opsets.get(domain, "none")
        where = f"{node.part_of.where}, whose definition" if node.part_of else f"{self.source.name}: node '{node.name}'"
        return UnsupportedOperator(
            f"{where} uses {domain or 'ai.onnx'}::{node.type} (opset {opset}), "
            "which frugal does not have; see docs/operators.md, or replace it before compiling"
        )

    def expand(self, node: Node, body: onnx.FunctionProto, opsets: dict[str, int]) -> list[Tensor]:
        """Translate a function body in a scope of its own, whose names are the node's operands; returns its outputs."""
        outer = self.values, self.initializers, self.opsets, self.outer
        bound = zip(body.input, node.inputs, strict=False)
        self.values, self.initializers = {name: tensor for name, tensor in bound if tensor is not None}, {}
        self.opsets, self.outer = {**self.opsets, **opsets}, []
        self.inside.append(node)
        try:
            for part in body.node:
                self._node(part)
            wanted = zip(body.output, node.proto.output, strict=False)
            return [self.lookup(name, node) if taken else node.tensor(DType.FLOAT, ()) for name, taken in wanted]
        finally:
            self.inside.pop()
            self.values, self.initializers, self.opsets, self.outer = outer

    def subgraph(self, node: Node, proto: onnx.GraphProto, operands: Sequence[Tensor]) -> list[Tensor]:
        """Translate the body of an If, Loop or Scan where it stands; it also sees the names around it.  Returns its outputs."""
        if len(operands) != len(proto.input):
            raise node.fail(f"a subgraph has {len(proto.input)} inputs instead of {len(operands)}")
        self.outer.append((self.values, self.initializers))
        self.values = {value.name: tensor for value, tensor in zip(proto.input, operands, strict=True)}
        self.initializers = {t.name: t for t in proto.initializer}
        try:
            for part in proto.node:
                self._node(part)
            return [self.materialize(self.lookup(output.name, node)) for output in proto.output]
        finally:
            self.values, self.initializers = self.outer.pop()

    def _results(self, handler: Handler, node: Node) -> list[Tensor]:
        """What a handler makes of a node, in float32 where that is rule 6."""
        narrow = [t for t in node.inputs if t is not None and t.dtype in NARROW]
        if not narrow or node.type in EXACT:
            return _call(handler, node)
        before, notes = len(self.graph.steps), len(self.graph.notes)
        if not any(t.wide for t in narrow):
            try:
                return _call(handler, node)
            except UnsupportedOperator:
                self.take_back(before)
                del self.graph.notes[notes:]
        inputs = node.inputs
        node.inputs = [self.widened(t) for t in inputs]
        known = {wide: t for wide, t in zip(node.inputs, inputs, strict=True) if wide is not None and wide is not t}
        try:
            results = _call(handler, node)
        finally:
            node.inputs = inputs
        kinds = _result_types(node)
        return [known.get(t) or self.narrowed(t, kind, node) for t, kind in zip(results, kinds, strict=False)]

    def widened(self, tensor: Tensor | None) -> Tensor | None:
        """The float32 behind a float16 or bfloat16 tensor."""
        if tensor is None or tensor.dtype not in NARROW:
            return tensor
        if tensor.wide is None:
            wide = Tensor(f"{tensor.name}/float32", DType.FLOAT, tensor.shape)
            if not tensor.known:
                self.graph.steps.append(Step(Op.CAST, [tensor], [wide], [], tensor.name))
                return wide
            wide.quant = tensor.quant
            wide.const = None if tensor.const is None else tensor.const.astype(np.float32)
            if tensor.quant is not None:
                return wide
            self.wide_constants[tensor] = wide = self.wide_constants.get(tensor, wide)
            return wide
        return tensor.wide

    def narrowed(self, tensor: Tensor, kind: int | None, node: Node) -> Tensor:
        """A float32 result as float16 or bfloat16, when that is its type."""
        if kind is None or tensor.dtype != DType.FLOAT:
            return tensor
        if tensor.const is not None:
            return Tensor(tensor.name, kind, tensor.shape, const=tensor.const.astype(NUMPY[kind]))
        result = Tensor(f"{tensor.name}/{type_name(kind)}", kind, tensor.shape, wide=tensor)
        self.graph.steps.append(Step(Op.CAST, [self.materialize(tensor)], [result], [], node.name))
        return result

    def take_back(self, before: int) -> None:
        """Remove the steps from `before` on."""
        made = {t for s in self.graph.steps[before:] for t in s.outputs}
        del self.graph.steps[before:]
        self.dims_steps = {k: v for k, v in self.dims_steps.items() if v not in made}

    def _fold(self, node: Node, results: list[Tensor], before: int) -> None:
        """Rule 3: evaluate a node of constants now, and take back its steps."""
        operands = [t for t in node.inputs if t is not None]
        results = [t for t, name in zip(results, node.proto.output, strict=False) if name]
        new = self.graph.steps[before:]
        if not new or not node.foldable or not all(t.const is not None for t in operands):
            return
        sizes = [elements(t.shape) for t in results]
        if not all(isinstance(s, int) for s in sizes):
            return
        size = sum(int(s) * NUMPY[t.dtype].itemsize for s, t in zip(sizes, results, strict=True) if isinstance(s, int))
        if size > max(FOLD_LIMIT, 2 * sum(t.const.nbytes for t in operands if t.const is not None)) or size > self.fold_budget:
            return
        self.fold_budget -= size
        values = _reference(node)
        if values is None or any(v.shape != t.shape for v, t in zip(values, results, strict=False)):
            return
        self.take_back(before)
        for tensor, value in zip(results, values, strict=False):
            tensor.const = np.ascontiguousarray(value, NUMPY[tensor.dtype]).reshape(value.shape)


def _call(handler: Handler, node: Node) -> list[Tensor]:
    """What a handler returns, as a list; what a malformed node makes Python say becomes an InvalidModel that names the node."""
    try:
        result = handler(node)
    except FrugalError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, ZeroDivisionError) as error:
        raise node.fail(f"malformed: {error}") from error
    return list(result) if isinstance(result, (list, tuple)) else [result]


def _result_types(node: Node) -> list[int | None]:
    """For each output float16 or bfloat16 where ONNX gives it the type of such an input, else None.

    Operators of other domains have no schema here: all their outputs are of the first such input's type.
    """
    from onnx import defs

    kinds = [t.dtype if t is not None and t.dtype in NARROW else None for t in node.inputs]
    try:
        schema = defs.get_schema(node.type, node.opset, "" if node.proto.domain == "ai.onnx" else node.proto.domain)
    except defs.SchemaError:
        return [next(k for k in kinds if k)] * len(node.proto.output)
    bound: dict[str, int] = {}
    for i, kind in enumerate(kinds):
        if kind is not None:
            bound.setdefault(schema.inputs[min(i, len(schema.inputs) - 1)].type_str, kind)
    formal = schema.outputs
    return [bound.get(formal[min(i, len(formal) - 1)].type_str) for i in range(len(node.proto.output))]


def _nothing() -> onnx.NodeProto:
    import onnx

    return onnx.NodeProto(op_type="output")


def _reference(node: Node) -> list[np.ndarray] | None:
    """The outputs of a node of constants by onnx.reference, or None where that cannot say."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    names = list(node.proto.input)
    feeds = {n: t.const for n, t in zip(names, node.inputs, strict=True) if t is not None}
    graph = onnx.helper.make_graph(
        [node.proto],
        "fold",
        [onnx.helper.make_value_info(n, onnx.TypeProto()) for n in feeds],
        [onnx.helper.make_value_info(n, onnx.TypeProto()) for n in node.proto.output if n],
    )
    imports = [onnx.helper.make_opsetid(d, v) for d, v in node.lowering.opsets.items()]
    try:
        with np.errstate(all="ignore"):
            values = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=imports)).run(None, feeds)
    except Exception:  # the reference has its own gaps; the steps stay and run later
        return None
    return [np.asarray(v) for v in values]


def merge(shapes: Iterable[Shape]) -> Shape | None:
    """The numpy broadcast of shapes, or None."""
    every = list(shapes)
    rank = max(len(s) for s in every)
    result: list[Dim] = [1] * rank
    for shape in every:
        for i, d in enumerate(shape, rank - len(shape)):
            both = dims.broadcast(result[i], d)
            if both is None:
                return None
            result[i] = both
    return tuple(result)


def type_name(number: int) -> str:
    return DType(number).name.lower() if number in NUMPY else f"type {number}"


def show(shape: Sequence[Dim]) -> str:
    return "[" + ", ".join(str(d) for d in shape) + "]"
