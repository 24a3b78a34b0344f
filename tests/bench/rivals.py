"""onnxruntime's int8 of the same float model in every form that might be its fastest; the benchmark takes the fastest of a round.

    as exported     with the Attention and Gelu operators of ONNX
    spelled out     what optimum exports: MatMul, Softmax, MatMul with reshapes and transposes, GELU as Erf, opset 18
    QAttention      com.microsoft.Attention, which quantize_dynamic turns into QAttention

Each is quantized by onnxruntime's quantize_dynamic per channel (MatMul, Gather, Attention), with the full and the reduced range
of weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

HEADS = 12
Rewrite = Callable[["Graph", onnx.NodeProto], bool]


class Graph:
    """A model being rewritten: its nodes go through `rewrite` one by one, constants come with `const`."""

    def __init__(self, path: Path) -> None:
        self.model = onnx.load(path)
        self.constants = {i.name: i for i in self.model.graph.initializer}
        self.producers = {o: n for n in self.model.graph.node for o in n.output}
        self.nodes: list[onnx.NodeProto] = []

    def value(self, name: str) -> np.ndarray:
        """A constant, through the Transpose that a weight may have."""
        if name in self.constants:
            array: np.ndarray = numpy_helper.to_array(self.constants[name])
            return array
        node = self.producers[name]
        assert node.op_type == "Transpose", node.op_type
        return self.value(node.input[0]).T

    def const(self, name: str, value: Any) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def rewrite(self, rule: Rewrite) -> None:
        """Keeps every node that the rule does not replace; weights become [k, n] constants, all that the quantizer sees."""
        for node in self.model.graph.node:
            if node.op_type == "Transpose" and node.input[0] in self.constants:
                self.const(node.output[0], self.value(node.output[0]))
            elif not rule(self, node):
                self.nodes.append(node)

    def save(self, path: Path, opset: int) -> None:
        graph, live, kept = self.model.graph, {o.name for o in self.model.graph.output}, []
        for node in reversed(self.nodes):
            if live.intersection(node.output):
                kept.append(node)
                live.update(node.input)
        constants = [c for name, c in self.constants.items() if name in live]
        for field, values in ((graph.node, kept[::-1]), (graph.initializer, constants), (graph.value_info, [])):
            del field[:]
            field.extend(values)
        opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
        del self.model.opset_import[:]
        self.model.opset_import.extend(opsets)
        self.model.ir_version = min(self.model.ir_version, 10)
        onnx.save(self.model, path)


def spelled_out(graph: Graph, node: onnx.NodeProto) -> bool:
    """Attention and Gelu as optimum's export of BERT writes them."""
    y = node.output[0]

    def step(kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        return graph.node(kind, inputs, f"{y}/{name}", **attributes)

    if node.op_type == "Gelu":
        x = node.input[0]
        erf = step("Erf", [step("Div", [x, graph.const("sqrt_2", np.float32(np.sqrt(2)))], "div")], "erf")
        twice = step("Mul", [x, step("Add", [erf, graph.const("one", np.float32(1))], "add")], "mul")
        graph.node("Mul", [twice, graph.const("half", np.float32(0.5))], y)
        return True
    if node.op_type != "Attention":
        return False
    size = graph.value(graph.producers[node.input[0]].input[1]).size // HEADS
    split = graph.const("split", np.array([0, 0, HEADS, size]))
    q, k, v = (
        step("Transpose", [step("Reshape", [x, split], f"split_{name}")], name, perm=perm)
        for x, name, perm in zip(node.input, "qkv", ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=False)
    )
    root = graph.const("root", np.float32(np.sqrt(size)))
    scores = step("Add", [step("Div", [step("MatMul", [q, k], "scores"), root], "scaled"), additive_mask(graph)], "masked")
    mixed = step("MatMul", [step("Softmax", [scores], "softmax", axis=-1), v], "mixed")
    joined = step("Transpose", [mixed], "joined", perm=[0, 2, 1, 3])
    graph.node("Reshape", [joined, graph.const("join", np.array([0, 0, HEADS * size]))], y)
    return True


def additive_mask(graph: Graph) -> str:
    """0 where attention_mask is 1, the lowest float where it is 0, [batch, 1, 1, keys]; made once."""
    if not any(n.name == "mask/added" for n in graph.nodes):
        graph.node("Unsqueeze", ["attention_mask", graph.const("mask/axes", np.array([1, 2]))], "mask/4d")
        graph.node("Cast", ["mask/4d"], "mask/float", to=onnx.TensorProto.FLOAT)
        graph.node("Sub", [graph.const("one", np.float32(1)), "mask/float"], "mask/hidden")
        graph.node("Mul", ["mask/hidden", graph.const("lowest", np.finfo(np.float32).min)], "mask/added")
    return "mask/added"


def contrib_attention(graph: Graph, node: onnx.NodeProto) -> bool:
    """com.microsoft.Attention with the three projections inside."""
    if node.op_type != "Attention":
        return False
    biases = [graph.producers[x] for x in node.input[:3]]
    products = [graph.producers[b.input[0]] for b in biases]
    weight = graph.const(f"{node.name}/w", np.concatenate([graph.value(p.input[1]) for p in products], 1))
    bias = graph.const(f"{node.name}/b", np.concatenate([graph.value(b.input[1]) for b in biases]))
    mask = "mask/int32"
    if not any(n.name == mask for n in graph.nodes):
        graph.node("Cast", ["attention_mask"], mask, to=onnx.TensorProto.INT32)
    inputs = [products[0].input[0], weight, bias, mask]
    graph.node("Attention", inputs, node.output[0], domain="com.microsoft", num_heads=HEADS)
    return True


FORMS: dict[str, tuple[Rewrite, int]] = {
    "": (lambda graph, node: False, 24),
    "spelled out": (spelled_out, 18),
    "QAttention": (contrib_attention, 20),
}


def make(source: Path, work: Path) -> dict[str, Path]:
    """The rivals of an exported float model, by label; files that are there are taken as they are."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)  # the quantizer recommends a pre-processing that these graphs do not need
    made = {"float, spelled out": work / "ort-float-spelled-out.onnx"}  # for engines that lack ONNX's Attention
    if not made["float, spelled out"].exists():
        graph = Graph(source)
        graph.rewrite(spelled_out)
        graph.save(made["float, spelled out"], FORMS["spelled out"][1])
    for form, (rule, opset) in FORMS.items():
        for label, reduced in (("int8", False), ("int8 reduced range", True)):
            name = f"{label}, {form}" if form else label
            made[name] = work / f"ort-{name.replace(', ', '-').replace(' ', '-')}.onnx"
            if made[name].exists():
                continue
            graph, plain = Graph(source), work / "ort-float.onnx"
            graph.rewrite(rule)
            graph.save(plain, opset)
            quantize_dynamic(
                plain,
                made[name],
                op_types_to_quantize=["MatMul", "Gather", "Attention"] if form == "QAttention" else ["MatMul", "Gather"],
                per_channel=True,
                reduce_range=reduced,
                weight_type=QuantType.QInt8,
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
            )
            plain.unlink()
            if made[name].stat().st_size > source.stat().st_size / 3:
                raise RuntimeError(f"{made[name].name}: onnxruntime left weights in float; the comparison would flatter us")
    return made
