"""IF and WHILE: their subgraphs become the bodies of ONNX's If and Loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from frugal.errors import InvalidModel, UnsupportedOperator

from .converter import MAX_DEPTH, Converter, Graph, Op, identity, load_handlers, op
from .reader import Tensor


def inline(o: Op, index: int, inputs: Sequence[str], graph: Graph) -> tuple[list[str], list[Tensor]]:
    """Append a subgraph's nodes to `graph`, its inputs being these values (TFLite's order of axes, own dtype).

    Returns its outputs, distinct values made by these nodes, and their tensors.
    """
    model, outer = o.c.model, o.c
    if not 0 < index < len(model.subgraphs):
        raise InvalidModel(f"subgraph {index} of {len(model.subgraphs)}")
    if outer.depth >= MAX_DEPTH:
        raise InvalidModel(f"subgraphs are nested more than {MAX_DEPTH} deep")
    g = model.subgraphs[index]
    if len(g.inputs) != len(inputs) or len(set(g.inputs)) != len(inputs):
        raise InvalidModel(f"subgraph {index} has {len(g.inputs)} inputs, {len(inputs)} are given")
    inner = Converter(model, g, outer.opset, outer, f"{o.name}/")
    inner.graph = graph
    inner.refuse_unknown(load_handlers())
    inner.given.update(inputs)
    for i, value in zip(g.inputs, inputs, strict=True):
        inner.forms[i] = {(identity(g.tensors[i].rank), False): value}
    inner.convert()
    if inner.variables:
        raise UnsupportedOperator(f"subgraph {index} has variables of its own")
    outputs = [inner.output_value(i) for i in g.outputs]
    for i, value in enumerate(outputs):
        if value in outputs[:i]:
            outputs[i] = graph.node("Identity", [value], inner.node_name(f"{value}/Identity"))[0]
    inner.rename(graph.nodes)
    return outputs, [g.tensors[i] for i in g.outputs]


def info(o: Op, name: str, t: Tensor) -> Any:
    """Type of a body's input or output; of unknown shape, since a loop may change it."""
    return o.c.onnx.helper.make_tensor_value_info(name, o.c.elem(t), [None] * t.rank)


def check(o: Op, inner: Sequence[Tensor], outer: Sequence[Tensor]) -> None:
    """A body's values must be what the operator's are."""
    if len(inner) != len(outer) or any(
        a.kind != b.kind or a.rank != b.rank or not o.alike(a, b) for a, b in zip(inner, outer, strict=True)
    ):
        raise InvalidModel("a subgraph's inputs or outputs differ in number, type, rank or scale from the operator's")


@op("IF")
def if_(o: Op) -> None:
    """Condition first, then what both branches take."""
    operands = [o.input(i) for i in range(1, len(o.operator.inputs))]
    outputs = [o.output(i) for i in range(len(o.operator.outputs))]
    values = [o.c.raw(t) for t in operands]
    branches = {}
    for name in ("Then", "Else"):
        body = Graph(o.c.graph.names, o.c.graph)
        index = o.option("IfOptions", f"{name}SubgraphIndex", 0)
        made, tensors = inline(o, index, values, body)
        check(o, tensors, outputs)
        ends = [info(o, v, t) for v, t in zip(made, tensors, strict=True)]
        branches[f"{name.lower()}_branch"] = o.c.onnx.helper.make_graph(body.nodes, f"{o.name}/{name.lower()}", [], ends)
    condition = scalar(o, o.c.raw(o.input(0)), o.input(0))
    for t, value in zip(outputs, o.nodes("If", [condition], main=True, outputs=len(outputs), **branches), strict=True):
        o.c.put(t, value)


def scalar(o: Op, value: str, t: Tensor) -> str:
    """A condition of one element as a scalar."""
    if t.dtype != np.bool_:
        raise InvalidModel(f"the condition {t} is not bool")
    if t.rank == 0:
        return value
    shape = o.c.constant("const/scalar_shape", np.zeros(0, np.int64), "scalar shape")
    return o.c.graph.node("Reshape", [value, shape], o.c.node_name(f"{o.name}/condition"))[0]


@op("WHILE")
def while_(o: Op) -> None:
    """Condition(values) is asked first and after each step; values = body(values)."""
    tensors = [o.input(i) for i in range(len(o.operator.inputs))]
    outputs = [o.output(i) for i in range(len(o.operator.outputs))]
    check(o, tensors, outputs)
    asked, done = (o.option("WhileOptions", f"{n}SubgraphIndex", 0) for n in ("Cond", "Body"))
    c, outer = o.c, o.c.graph
    start = [c.raw(t) for t in tensors]
    first = ask(o, asked, start, outer)
    body = Graph(outer.names, outer)
    names = [body.unique(f"{o.name}/{n}") for n in ("step", "going", *(f"value_{i}" for i in range(len(tensors))))]
    c.graph = body
    try:
        made, inner = inline(o, done, names[2:], body)
        check(o, inner, outputs)
        going = ask(o, asked, made, body)
    finally:
        c.graph = outer
    h = c.onnx.helper
    ins = [
        h.make_tensor_value_info(n, k, [])
        for n, k in zip(names, (c.onnx.TensorProto.INT64, c.onnx.TensorProto.BOOL), strict=False)
    ]
    ins += [info(o, n, t) for n, t in zip(names[2:], tensors, strict=True)]
    ends = [h.make_tensor_value_info(going, c.onnx.TensorProto.BOOL, [])]
    ends += [info(o, n, t) for n, t in zip(made, inner, strict=True)]
    graph = h.make_graph(body.nodes, f"{o.name}/body", ins, ends)
    for t, value in zip(outputs, o.nodes("Loop", ["", first, *start], main=True, outputs=len(outputs), body=graph), strict=True):
        c.put(t, value)


def ask(o: Op, index: int, values: Sequence[str], graph: Graph) -> str:
    """The condition's subgraph on these values: a bool scalar."""
    made, tensors = inline(o, index, values, graph)
    if len(made) != 1:
        raise InvalidModel(f"the condition, subgraph {index}, has {len(made)} outputs")
    return scalar(o, made[0], tensors[0])
