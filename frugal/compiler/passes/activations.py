"""Quantized activations for linears with integer weights; always runs, since such a linear reads nothing else.

1. A linear with int8 or int4 weights reads QUANTIZE_ACT(x); linears of the same x share it.
2. Where x is DequantizeLinear(QuantizeLinear(y)) with one constant scale and zero point 0 (a static int8 graph), it reads
   QUANTIZE_ACT(y, scale): the codes of the graph itself (codes of -128, which QuantizeLinear may give, become -127).
3. int8 weights with one scale a row get their scales as an operand, padded to whole panels; so does GATHER_PACKED of them.
4. A linear whose result is only read by QUANTIZE_ACT in blocks gives the quantized result itself.
"""

from __future__ import annotations

import numpy as np

from ..ir import DType, Graph, Layout, Op, Step, Tensor
from ..pack import FLOATS, PANEL, round_up
from .match import Matcher

DEFAULT = Layout.A8_BLOCK  # MiniLM int8, mean cosine to fp32 on STS-B: 0.9992 with blocks, 0.9971 with one scale a token


def quantize_activations(graph: Graph, activations: str) -> None:
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
