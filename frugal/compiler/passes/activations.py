"""Quantized activations for linears with integer weights; always runs, since such a linear reads nothing else.

1. A linear with int8 or int4 weights reads QUANTIZE_ACT(x); linears of the same x share it.
2. Where x is DequantizeLinear(QuantizeLinear(y)) with one constant scale and zero point 0 (a static int8 graph), it reads
   QUANTIZE_ACT(y, scale): the codes of the graph itself (codes of -128, which QuantizeLinear may give, become -127).
3. int8 weights with one scale a row get their scales as an operand, padded to whole panels; so does GATHER_PACKED of them.
   Weights of 8 bits in blocks read 16 bits of x: x = x1 + x2, where x1 is what 8 bits hold and x2 what they miss.  Both are rows
   of one product, so that the weights are read once.  (SmolLM2's head: top-1 agreement 95.9 % with x1 alone.)
4. A linear whose result is only read by QUANTIZE_ACT in blocks gives the quantized result itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..dims import Dim
from ..ir import Binary, DType, Graph, Layout, Op, Reduce, Step, Tensor, Unary
from ..pack import BLOCK, FLOATS, PANEL, round_up
from .match import Matcher

DEFAULT = Layout.A8_BLOCK  # MiniLM int8, mean cosine to fp32 on STS-B: 0.9992 with blocks, 0.9971 with one scale a token


def quantize_activations(graph: Graph, activations: str) -> None:
    for step in list(graph.steps):
        if (
            step.op == Op.LINEAR
            and step.inputs[1] is not None
            and step.inputs[1].layout == Layout.W8B_P16
            and activations == "int8"
        ):
            _split(graph, step)
    find = Matcher(graph)
    made: dict[tuple[Tensor, Layout, Step | None], Tensor] = {}
    for step in list(graph.steps):
        table = step.inputs[0] if step.op == Op.GATHER_PACKED else None
        if table is not None and table.layout == Layout.W8_P16:
            step.inputs[1] = _scales(table)
        weight = step.inputs[1] if step.op == Op.LINEAR else None
        if weight is None or weight.weight is None or weight.layout in FLOATS:
            continue
        x = step.inputs[0]
        assert x is not None
        source, scale = _static(find, x)
        layout = DEFAULT if activations == "int8" else Layout[f"A8_{activations[5:].upper()}"]
        layout = Layout.A8_TOKEN if scale is not None else layout
        key = (x, layout, find.blocks.get(step))
        if key not in made:
            quantized = Tensor(f"{x.name}/int8", DType.INT8, x.shape, layout=layout)
            made[key] = quantized
            graph.steps.insert(graph.steps.index(step), Step(Op.QUANTIZE_ACT, [source, scale], [quantized], [], step.name))
        step.inputs[0] = made[key]
        if weight.layout == Layout.W8_P16:
            step.inputs[2] = _scales(weight)
    _quantize_results(graph)


def _split(graph: Graph, step: Step) -> None:
    """The second part of rule 3: step reads x1 and x2 as [2, .., k]; their results are added."""
    x, out = step.inputs[0], step.out
    assert x is not None
    k = x.shape[-1]
    if not isinstance(k, int) or k % BLOCK or step.attrs[0] or step.inputs[3] is not None or step.inputs[4] is not None:
        return
    steps: list[Step] = []
    blocks = (*x.shape[:-1], k // BLOCK, BLOCK)

    def emit(op: Op, inputs: list[Tensor | None], shape: Sequence[Dim], *attrs: Any) -> Tensor:
        made = Tensor(f"{x.name}/split{len(steps)}", DType.FLOAT, tuple(shape))
        steps.append(Step(op, inputs, [made], list(attrs), step.name))
        return made

    def constant(value: float) -> Tensor:
        return Tensor(f"{x.name}/{value:g}", DType.FLOAT, (), const=np.array(value, np.float32))

    whole = emit(Op.ALIAS, [x], blocks)
    size = emit(Op.UNARY, [whole], blocks, Unary.ABS, 0.0, 0.0)
    top = emit(Op.REDUCE, [size], (*blocks[:-1], 1), int(Reduce.MAX), 1 << (len(blocks) - 1))
    scale = emit(Op.BINARY, [top, constant(1 / 127)], top.shape, Binary.MUL)
    scale = emit(Op.BINARY, [scale, constant(2.0**-100)], top.shape, Binary.MAX)
    code = emit(Op.BINARY, [whole, scale], blocks, Binary.DIV)
    code = emit(Op.UNARY, [code], blocks, Unary.ROUND, 0.0, 0.0)
    first = emit(Op.BINARY, [code, scale], blocks, Binary.MUL)
    rest = emit(Op.BINARY, [whole, first], blocks, Binary.SUB)
    parts: list[Tensor | None] = [emit(Op.ALIAS, [t], (1, *x.shape)) for t in (first, rest)]
    both = emit(Op.CONCAT, parts, (2, *x.shape), 0)
    at = next(i for i, s in enumerate(graph.steps) if s is step)
    graph.steps[at:at] = steps
    step.inputs[0] = both
    step.outputs = [Tensor(f"{out.name}/parts", DType.FLOAT, (2, *out.shape))]
    total = Tensor(f"{out.name}/sum", DType.FLOAT, (1, *out.shape))
    at = next(i for i, s in enumerate(graph.steps) if s is step)
    graph.steps[at + 1 : at + 1] = [
        Step(Op.REDUCE, [step.out], [total], [int(Reduce.SUM), 1], step.name),
        Step(Op.ALIAS, [total], [out], [], step.name),
    ]


def _quantize_results(graph: Graph) -> None:
    find = Matcher(graph)
    for step in list(graph.steps):
        if step.op != Op.QUANTIZE_ACT or step.out.layout != Layout.A8_BLOCK:
            continue
        x = step.inputs[0]
        linear = find.step(x, Op.LINEAR)
        if x is not None and linear is not None and find.only_use(x) is step:
            linear.outputs = step.outputs
            graph.steps.remove(step)


def _scales(weight: Tensor) -> Tensor:
    assert weight.weight is not None and weight.weight.scale is not None
    values = np.zeros(round_up(weight.weight.n, PANEL), np.float32)
    values[: weight.weight.n] = weight.weight.scale
    return Tensor(f"{weight.name}/scale", DType.FLOAT, values.shape, const=values)


def _static(find: Matcher, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """(y, scale) of rule 2, or (x, None)."""
    back = find.step(x, Op.DEQUANTIZE)
    forth = find.step(back.inputs[0], Op.QUANTIZE) if back is not None else None
    if back is None or forth is None:
        return x, None
    scales = [s.inputs[1] for s in (back, forth)]
    zeros = [s.inputs[2] for s in (back, forth)]
    values = [t.scalar() if t is not None else None for t in scales]
    y = forth.inputs[0]
    if y is None or forth.out.dtype != DType.INT8 or None in values or values[0] != values[1]:
        return x, None
    if any(t is not None and (t.const is None or t.const.any()) for t in zeros) or not values[0] or values[0] <= 0:
        return x, None
    scale = Tensor(f"{x.name}/scale", DType.FLOAT, (1,), const=np.array([values[0]], np.float32))
    return y, scale
