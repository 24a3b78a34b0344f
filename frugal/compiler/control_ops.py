"""Handlers of the operators that have subgraphs: If, Loop, Scan.

A subgraph's nodes become steps of the same plan, between the control steps IF .. ELSE .. END or LOOP .. END.

1. An If whose condition is known is the branch that it takes.
2. A result of an If has the dims on which its two branches agree; the others are late: MERGE takes them from the branch that ran.
3. A variable of a loop has the dims of its first value as long as every turn keeps them; the others are late.
   Where their ranks differ and the condition compares sizes of the inputs, the If is its `then` branch: exporters write so that
   an axis is dropped if its size is 1.  Inputs for which the condition does not hold are refused when their shapes are known.
4. What a loop collects is preallocated where the number of turns is known but for symbols and no condition can end it early; else
   it grows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import dims
from .dims import Dim, Expr
from .ir import Binary, DType, Op, Shape, Step, Tensor, Unary
from .lower import Node, op, show, type_name

BODY_LIMIT = 1000  # a body is translated again for every variable whose shape changes, and so are the loops inside
TURN = (DType.INT64, DType.INT32)


def made_since(node: Node, start: int) -> set[Tensor]:
    """What the steps from number `start` on write."""
    return {t for step in node.graph.steps[start:] for t in step.outputs}


def inner(dim: Dim, made: set[Tensor]) -> bool:
    """Whether a dim depends on data that is not seen outside of the block where `made` was written."""
    return any(atom.tensor in made for atom in dims.late_atoms(dim))


def control(node: Node, code: Op, inputs: Sequence[Tensor | None], outputs: Sequence[Tensor] = (), *attrs: Dim) -> None:
    operands = [None if t is None else node.lowering.materialize(t) for t in inputs]
    node.graph.steps.append(Step(code, operands, list(outputs), list(attrs), node.name))


def one(node: Node, tensor: Tensor, what: str, dtypes: Sequence[int]) -> Tensor:
    """A tensor of one element as a scalar."""
    if tensor.dtype not in dtypes or any(isinstance(d, int) and d != 1 for d in tensor.shape):
        raise node.fail(f"{what} '{tensor.name}' is {type_name(tensor.dtype)} {show(tensor.shape)}, not one element")
    return tensor


def copied(node: Node, tensor: Tensor) -> Tensor:
    return node.emit(Op.UNARY, [tensor], tensor.dtype, tensor.shape, int(Unary.COPY), 0.0, 0.0)


# ---- If ----
@op("If")
def if_(node: Node) -> list[Tensor]:
    condition = one(node, node.get(0), "the condition", (DType.BOOL,))
    branches = [node.attr("then_branch"), node.attr("else_branch")]
    if any(b is None or len(b.output) != len(node.proto.output) for b in branches):
        raise node.fail("a branch is missing, or has another number of outputs")
    if condition.const is not None:
        return node.lowering.subgraph(node, branches[0 if condition.const.reshape(-1)[0] else 1], [])
    sizes = node.lowering.symbols(condition)
    before, notes = len(node.graph.steps), len(node.graph.notes)
    condition = copied(node, condition)  # a loop's variable may change before MERGE asks again
    start, cache = len(node.graph.steps), node.lowering.dims_steps
    results = []
    for code, branch in zip((Op.IF, Op.ELSE), branches, strict=True):
        control(node, code, [condition] if code == Op.IF else [])
        node.lowering.dims_steps = dict(cache)
        results.append(node.lowering.subgraph(node, branch, []))
    control(node, Op.END, [])
    node.lowering.dims_steps = cache
    holds = sizes.reshape(-1)[0] if sizes is not None else 0
    if any(a.rank != b.rank for a, b in zip(*results, strict=True)) and isinstance(holds, Expr) and not dims.late_atoms(holds):
        node.lowering.take_back(before)
        del node.graph.notes[notes:]
        guard = node.tensor(DType.INT64, (1,), f"{node.name}/condition")
        guard.pinned = True
        control(node, Op.DIMS, [], [guard], dims.floordiv(1, holds))  # no value where the condition does not hold
        node.graph.guards.append(guard)
        return node.lowering.subgraph(node, branches[0], [])
    made = made_since(node, start)
    return [merged(node, condition, a, b, made) for a, b in zip(*results, strict=True)]


def merged(node: Node, condition: Tensor, a: Tensor, b: Tensor, made: set[Tensor]) -> Tensor:
    """Rule 2."""
    if a.dtype != b.dtype or a.rank != b.rank:
        raise node.unsupported(
            f"its branches give {type_name(a.dtype)} {show(a.shape)} and {type_name(b.dtype)} {show(b.shape)}: one rank and data "
            "type are needed"
        )
    result = node.tensor(a.dtype, a.shape)
    agreed = [d for d, e in zip(a.shape, b.shape, strict=True) if d == e and not inner(d, made)]
    if len(agreed) < a.rank:
        result.shape = tuple(
            d if d == e and not inner(d, made) else node.lowering.late_axis(result, i)
            for i, (d, e) in enumerate(zip(a.shape, b.shape, strict=True))
        )
    control(node, Op.MERGE, [condition, a, b], [result])
    return result


# ---- loops ----
@dataclass
class Turn:
    """What the body of a loop gives: whether to go on (None: always), the next values, and a row of each collected result."""

    going: Tensor | None
    values: list[Tensor]
    rows: list[Tensor]


Body = Callable[[Tensor, list[Tensor]], Turn]


def emit_loop(
    node: Node, turns: Tensor | None, going: Tensor | None, count: Dim | None, first: Sequence[Tensor], body: Body
) -> tuple[list[Tensor], list[Tensor]]:
    """(last values, collected rows) of a loop; count: how often it runs when nothing ends it early, None: the data decides."""
    shapes = [t.shape for t in first]
    lowering = node.lowering
    place, cache, budget, notes = len(node.graph.steps), lowering.dims_steps, lowering.fold_budget, len(node.graph.notes)
    while True:
        lowering.loop_bodies += 1
        if lowering.loop_bodies > BODY_LIMIT:
            raise node.unsupported(f"loops nested so that their bodies are translated more than {BODY_LIMIT} times")
        lowering.dims_steps, lowering.fold_budget = dict(cache), budget
        del node.graph.steps[place:], node.graph.notes[notes:]
        variables = [variable(node, t, shape) for t, shape in zip(first, shapes, strict=True)]
        opened = len(node.graph.steps)
        number = node.tensor(DType.INT64, ())
        control(node, Op.LOOP, [turns, going], [number])
        turn = body(number, variables)
        made = made_since(node, opened)
        settled = [settle(node, v, x, made) for v, x in zip(variables, turn.values, strict=True)]
        if all(kept for kept, _ in settled):
            break
        shapes = [shape for _, shape in settled]
    known = count if turn.going is None else None
    rows = [collector(node, row, known, made) for row in turn.rows]
    node.graph.steps[opened:opened] = [step for _, step in rows]
    finish(node, turn, variables, [t for t, _ in rows], number)
    lowering.dims_steps = cache
    return variables, [t for t, _ in rows]


LATE = -1  # in a shape that a loop is tried with


def variable(node: Node, first: Tensor, shape: Shape) -> Tensor:
    """A variable; a dim of `shape` that is LATE becomes one of its own."""
    result = node.tensor(first.dtype, shape)
    result.shape = tuple(node.lowering.late_axis(result, i) if d == LATE else d for i, d in enumerate(shape))
    control(node, Op.VAR, [first], [result])
    return result


def settle(node: Node, v: Tensor, x: Tensor, made: set[Tensor]) -> tuple[bool, Shape]:
    """Whether x can be the next value of a variable, and the shape that allows it: its own, or with more late dims (rule 3)."""
    if x.dtype != v.dtype or x.rank != v.rank:
        raise node.unsupported(
            f"a loop turns {type_name(v.dtype)} {show(v.shape)} into {type_name(x.dtype)} {show(x.shape)}: "
            "one rank and data type are needed"
        )
    own = [any(a.axis and a.tensor is v for a in dims.late_atoms(d)) for d in v.shape]
    same = [d == e and not inner(e, made) for d, e in zip(v.shape, x.shape, strict=True)]
    shape = tuple(LATE if late or not kept else d for d, late, kept in zip(v.shape, own, same, strict=True))
    return all(late or kept for late, kept in zip(own, same, strict=True)), shape


def collector(node: Node, row: Tensor, count: Dim | None, made: set[Tensor]) -> tuple[Tensor, Step]:
    """The variable that holds the rows of all turns (rule 4), and the step that makes it."""
    result = node.tensor(row.dtype, ())
    shape: list[Dim] = [LATE if count is None else count, *(LATE if inner(d, made) else d for d in row.shape)]
    result.shape = tuple(node.lowering.late_axis(result, i) if d == LATE else d for i, d in enumerate(shape))
    return result, Step(Op.VAR, [None], [result], [], node.name)


def finish(node: Node, turn: Turn, variables: Sequence[Tensor], collected: Sequence[Tensor], number: Tensor) -> None:
    """The end of a turn: rows first, then the next values all at once."""
    for c, row in zip(collected, turn.rows, strict=True):
        control(node, Op.SET, [c, row, number], [], 1)
    moving = [(v, x) for v, x in zip(variables, turn.values, strict=True) if v is not x]
    views = {s.out: s.inputs[0] for s in node.graph.steps if s.op == Op.ALIAS}

    def root(t: Tensor) -> Tensor:
        while t in views:
            t = views[t] or t
        return t

    targets = {v for v, _ in moving}
    ready = [copied(node, x) if root(x) in targets else x for _, x in moving]
    going = copied(node, turn.going) if turn.going is not None and root(turn.going) in targets else turn.going
    for (v, _), x in zip(moving, ready, strict=True):
        control(node, Op.SET, [v, x], [], 0)
    control(node, Op.END, [going])


@op("Loop")
def loop(node: Node) -> list[Tensor]:
    turns, going, first = node.optional(0), node.optional(1), [node.get(i) for i in range(2, len(node.inputs))]
    body = node.attr("body")
    collected = len(body.output) - 1 - len(first) if body is not None else -1
    if collected < 0 or len(body.input) != 2 + len(first) or len(node.proto.output) != len(first) + collected:
        raise node.fail("the body is missing, or its inputs and outputs do not fit")
    if turns is not None:
        one(node, turns, "the number of turns", TURN)
    if going is not None:
        one(node, going, "the condition", (DType.BOOL,))
    known = node.lowering.symbols(turns) if turns is not None else None
    count = None if known is None else known.reshape(-1)[0]
    if going is not None and going.const is not None and going.const.reshape(-1)[0]:
        going = None
    if isinstance(count, int):
        count = max(count, 0)

    def run(number: Tensor, variables: list[Tensor]) -> Turn:
        yes = node.constant(np.array(True))  # a turn runs only where the condition holds
        results = node.lowering.subgraph(node, body, [number, yes, *variables])
        again = one(node, results[0], "the condition", (DType.BOOL,))
        always = again.const is not None and bool(again.const.reshape(-1)[0])
        return Turn(None if always else again, results[1 : 1 + len(first)], results[1 + len(first) :])

    last, rows = emit_loop(node, turns, going, count if going is None else None, first, run)
    return [*last, *rows]


# ---- Scan ----
@op("Scan")
def scan(node: Node) -> list[Tensor]:
    """Opset 9 and later; opset 8 has a batch axis of its own and is scan_8."""
    body, scanned = node.attr("body"), node.attr("num_scan_inputs")
    if body is None or not scanned:
        raise node.fail("the body or num_scan_inputs is missing")
    if node.opset < 9:
        return scan_8(node, body, scanned)
    operands = [node.get(i) for i in range(len(node.inputs))]
    first, sequences = operands[: len(operands) - scanned], operands[len(operands) - scanned :]
    outputs = len(body.output) - len(first)
    axes = [node.axis(a, t.rank) for a, t in zip(node.attr("scan_input_axes", [0] * scanned), sequences, strict=True)]
    back = node.attr("scan_input_directions", [0] * scanned)
    length = sequences[0].shape[axes[0]]
    turns = node.constant(np.array(length, np.int64)) if isinstance(length, int) else dim_tensor(node, length)

    def run(number: Tensor, variables: list[Tensor]) -> Turn:
        parts = [
            element(node, t, a, number if not b else from_end(node, number, length))
            for t, a, b in zip(sequences, axes, back, strict=True)
        ]
        results = node.lowering.subgraph(node, body, [*variables, *parts])
        return Turn(None, results[: len(first)], results[len(first) :])

    last, rows = emit_loop(node, turns, None, length, first, run)
    turned = node.attr("scan_output_directions", [0] * outputs)
    places = node.attr("scan_output_axes", [0] * outputs)
    return [*last, *(arranged(node, r, p, t) for r, p, t in zip(rows, places, turned, strict=True))]


def scan_8(node: Node, body: Any, scanned: int) -> list[Tensor]:
    """Every row of the batch is a scan of its own: a loop around one."""
    if node.optional(0) is not None:
        raise node.unsupported("sequence_lens of opset 8; convert the model to opset 9 or later")
    operands = [node.get(i) for i in range(1, len(node.inputs))]
    first, sequences = operands[: len(operands) - scanned], operands[len(operands) - scanned :]
    back = node.attr("directions", [0] * scanned)
    batch, length = sequences[0].shape[0], sequences[0].shape[1]

    def row(number: Tensor, _: list[Tensor]) -> Turn:
        mine = [element(node, t, 0, number) for t in first]
        parts = [element(node, t, 0, number) for t in sequences]

        def run(turn: Tensor, variables: list[Tensor]) -> Turn:
            steps = [
                element(node, t, 0, turn if not b else from_end(node, turn, length)) for t, b in zip(parts, back, strict=True)
            ]
            results = node.lowering.subgraph(node, body, [*variables, *steps])
            return Turn(None, results[: len(first)], results[len(first) :])

        last, rows = emit_loop(node, dim_tensor(node, length), None, length, mine, run)
        return Turn(None, [], [*last, *rows])

    _, results = emit_loop(node, dim_tensor(node, batch), None, batch, [], row)
    return results


def dim_tensor(node: Node, dim: Dim) -> Tensor:
    """A dim as an int64 scalar."""
    if isinstance(dim, int):
        return node.constant(np.array(dim, np.int64))
    result = node.tensor(DType.INT64, ())
    result.sym = np.array(dim, dtype=object)
    return result


def element(node: Node, x: Tensor, axis: int, number: Tensor) -> Tensor:
    return node.emit(Op.GATHER, [x, number], x.dtype, x.shape[:axis] + x.shape[axis + 1 :], axis)


def from_end(node: Node, number: Tensor, length: Dim) -> Tensor:
    last = dim_tensor(node, dims.add(length, -1))
    return node.emit(Op.BINARY, [last, number], DType.INT64, (), int(Binary.SUB))


def arranged(node: Node, rows: Tensor, axis: int, reverse: int) -> Tensor:
    """Collected rows [turns, ..] with the turns along `axis`, from the last on when asked."""
    if reverse:
        attrs: list[Any] = [dims.add(rows.shape[0], -1), -1, *(v for _ in rows.shape[1:] for v in (0, 1))]
        rows = node.emit(Op.SLICE, [rows], rows.dtype, rows.shape, *attrs)
    axis = node.axis(axis, rows.rank)
    if axis == 0:
        return rows
    perm = [*range(1, axis + 1), 0, *range(axis + 1, rows.rank)]
    return node.emit(Op.TRANSPOSE, [rows], rows.dtype, [rows.shape[p] for p in perm], *perm)
