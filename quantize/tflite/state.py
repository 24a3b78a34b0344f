"""Streaming state: resource variables and variable tensors become inputs NAME_in and outputs NAME_out.

What a variable holds before the first run stands in the model's metadata, key `frugal.state`: JSON, NAME -> {"input", "output",
"dtype", "shape", and "fill" (every element) or "base64" (all bytes, little-endian, C order)}.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from frugal.errors import InvalidModel, UnsupportedOperator

from .converter import Op, identity, op
from .reader import Operator, Tensor

if TYPE_CHECKING:
    from .converter import Converter


@dataclass
class Variable:
    """One variable while the graph is walked."""

    name: str
    input: str = ""
    tensor: Tensor | None = None  # a tensor of its shape and type
    value: str = ""  # what it holds now, an ONNX value
    initial: NDArray[Any] | None = None
    holder: Tensor | None = None  # the tensor that was assigned last


def variable_name(c: Converter, operator: Operator) -> str:
    """container/shared_name of a VAR_HANDLE."""
    parts = [str(c.model.reader.option(operator, "VarHandleOptions", n, "")) for n in ("Container", "SharedName")]
    return "/".join(p for p in parts if p) or "variable"


@op("VAR_HANDLE")
def var_handle(o: Op) -> None:
    """No node: remembers which variable the handle means."""
    name = variable_name(o.c, o.operator)
    o.c.variables.setdefault(name, Variable(name))
    o.c.handles[o.output().index] = name


def variable(o: Op) -> Variable:
    """The variable that input 0 is a handle of."""
    name = o.c.handles.get(o.input(0).index)
    if name is None:
        raise InvalidModel(f"input 0, {o.input(0)}, is not the handle of a variable")
    return o.c.variables[name]


@op("READ_VARIABLE")
def read_variable(o: Op) -> None:
    """What was assigned before in this run, else the state that came in."""
    v, y = variable(o), o.output()
    if v.holder is not None:
        if v.holder.shape != y.shape or not o.alike(v.holder, y):
            raise InvalidModel(f"variable {v.name!r} is written and read with different shapes or scales")
        o.c.forms[y.index] = dict(o.c.forms[v.holder.index])
        return
    if not v.input:
        start(o.c, v, y)
    elif v.tensor is None or v.tensor.shape != y.shape or not o.alike(v.tensor, y):
        raise InvalidModel(f"variable {v.name!r} is read with different shapes or scales")
    o.c.forms[y.index] = {(identity(y.rank), False): v.input}


def start(c: Converter, v: Variable, t: Tensor) -> None:
    """Make the graph input of a variable that is read before it is written."""
    if min(t.shape, default=0) < 0:
        raise UnsupportedOperator(f"variable {v.name!r} has unknown dimensions: {list(t.shape)}")
    v.tensor = t
    v.input = c.graph.unique(f"{v.name}_in")
    c.inputs.append(c.onnx.helper.make_tensor_value_info(v.input, c.elem(t), list(t.shape)))


@op("ASSIGN_VARIABLE")
def assign_variable(o: Op) -> None:
    """The variable's new value; an initial one in a CALL_ONCE subgraph."""
    v, x = variable(o), o.input(1)
    if v.tensor is not None and (v.tensor.shape != x.shape or not o.alike(v.tensor, x)):
        raise InvalidModel(f"variable {v.name!r} is assigned {x} of another shape, type or scale")
    v.holder = x
    o.c.raw(x, (o.c.perms(x) or [identity(x.rank)])[0])  # it must exist by now


@op("CALL_ONCE")
def call_once(o: Op) -> None:
    """A subgraph that assigns constants to variables: their values before the first run."""
    index = o.option("CallOnceOptions", "InitSubgraphIndex", 0)
    if not 0 <= index < len(o.c.model.subgraphs):
        raise InvalidModel(f"subgraph {index} of {len(o.c.model.subgraphs)}")
    g = o.c.model.subgraphs[index]
    handles: dict[int, str] = {}
    for inner in g.operators:
        if inner.kind == "VAR_HANDLE" and inner.outputs:
            handles[inner.outputs[0]] = variable_name(o.c, inner)
        elif inner.kind == "ASSIGN_VARIABLE" and len(inner.inputs) == 2 and inner.inputs[0] in handles and inner.inputs[1] >= 0:
            t = g.tensors[inner.inputs[1]]
            if not t.constant:
                raise UnsupportedOperator(f"the initial value {t} of {handles[inner.inputs[0]]!r} is not a constant")
            name = handles[inner.inputs[0]]
            o.c.variables.setdefault(name, Variable(name)).initial = o.c.model.reader.array(t)
        else:
            raise UnsupportedOperator(f"{inner} in the initialization subgraph {index}")


def tensor_state(o: Op, i: int) -> Tensor:
    """Input i, a tensor that keeps its value from run to run (SVDF, LSTM), as a graph input; zero before the first run."""
    t = o.input(i)
    if not t.variable:
        raise InvalidModel(f"input {i}, {t}, is not a variable")
    name = o.c.names[t.index]
    v = o.c.variables.setdefault(name, Variable(name))
    if not v.input:
        start(o.c, v, t)
        o.c.forms[t.index] = {(identity(t.rank), False): v.input}
        zero = int(t.quantization.zero[0]) if t.quantization is not None and t.dtype == np.int8 else 0
        v.initial = np.full(t.shape, zero, t.dtype)
    return t


def keep_state(o: Op, t: Tensor, value: str) -> None:
    """`value` (raw) is what the variable tensor t holds after this operator."""
    v = o.c.variables[o.c.names[t.index]]
    o.c.forms[t.index] = {(identity(t.rank), False): value}
    v.holder = t


def finish(c: Converter) -> None:
    """Graph outputs for all variables, and their description for the metadata."""
    for v in c.variables.values():
        if not v.input and v.holder is None:
            continue
        t = v.holder or v.tensor
        assert t is not None
        if not v.input:  # written and never read: a plain output
            c.notes.append(f"variable {v.name!r} is only written: an output without an input")
        value = c.raw(t)
        out = c.graph.unique(f"{v.name}_out")
        if c.owned(value):
            c.graph.node("Identity", [value], c.node_name(f"{out}/Identity"), outputs=[out])
        else:
            c.final[value] = out
        c.outputs.append(c.onnx.helper.make_tensor_value_info(out, c.elem(t), list(t.shape)))
        describe(c, v, t, out)


def describe(c: Converter, v: Variable, t: Tensor, out: str) -> None:
    """The entry of `frugal.state`."""
    initial = np.zeros(t.shape, t.dtype) if v.initial is None else v.initial
    if v.input and (initial.shape != t.shape or initial.dtype != t.dtype):
        raise InvalidModel(
            f"{c.path}: variable {v.name!r} starts as {initial.dtype}{list(initial.shape)}, is {t.dtype}{list(t.shape)}"
        )
    entry: dict[str, Any] = {"input": v.input, "output": out, "dtype": initial.dtype.name, "shape": list(t.shape)}
    if initial.size and (initial == initial.flat[0]).all():
        entry["fill"] = initial.flat[0].item()
    else:
        entry["base64"] = base64.b64encode(np.ascontiguousarray(initial).tobytes()).decode()
    c.state[v.name] = entry
