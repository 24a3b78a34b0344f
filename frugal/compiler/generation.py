"""The form of a decoder that text generation runs: caches of fixed places, written in place.

1. A model that has the input `write_indices` stays as it is.
2. Attention(q, k, v, mask, past_k, past_v) whose past and present are the model's own: the caches become [b, capacity, width],
   TensorScatter writes the new tokens from write_indices [b] on, and nonpad_kv_seqlen = write_indices + s hides what lies beyond.
3. attention_mask goes: rows of unequal length are padded on the right.  What else the mask says (windows, ALiBi) is in the
   metadata that `frugal export` writes (frugal.windows, frugal.alibi), and is written again for fixed places.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ..errors import InvalidModel

PLACES, MASK = "write_indices", "attention_mask"
INT64 = 7


def fix_caches(model: Any, name: str) -> None:
    """Rewrite the graph in place.  Raises InvalidModel where it is not a decoder of this form."""
    graph = model.graph
    inputs = {i.name for i in graph.input}
    if PLACES in inputs:
        return
    nodes = [
        n for n in graph.node if n.op_type == "Attention" and len(n.input) > 5 and n.input[4] in inputs and n.input[5] in inputs
    ]
    if "input_ids" not in inputs or not nodes:
        raise InvalidModel(
            f"{name}: not a decoder whose caches text generation knows (input_ids, and Attention with past_key_values.N.key and"
            " .value); export the model with `frugal export`"
        )
    _Rewriter(model, nodes).run()


class _Rewriter:
    def __init__(self, model: Any, nodes: list[Any]) -> None:
        import onnx

        self.onnx, self.model, self.graph, self.nodes = onnx, model, model.graph, nodes
        said = {p.key: p.value for p in model.metadata_props}
        self.windows: list[int] = json.loads(said.get("frugal.windows", "[]")) or [0] * len(nodes)
        self.alibi: list[float] = json.loads(said.get("frugal.alibi", "[]"))
        self.new: list[Any] = []
        self.masks: dict[int, str] = {}

    def run(self) -> None:
        graph = self.graph
        places = self.onnx.helper.make_tensor_value_info(PLACES, INT64, [graph.input[0].type.tensor_type.shape.dim[0].dim_param])
        kept = [i for i in graph.input if i.name != MASK]
        del graph.input[:]
        graph.input.extend([*kept, places])
        self.value = {v.name: v for v in (*graph.input, *graph.output)}
        self.lengths = self.op("Add", [PLACES, self.op("Shape", ["input_ids"], start=1, end=2)])
        body = list(graph.node)
        for node, window in zip(self.nodes, self.windows, strict=True):
            at = next(i for i, n in enumerate(body) if n is node)
            body[at : at + 1] = self.attention(node, window)
        del graph.node[:]
        graph.node.extend(_alive([*self.new, *body], {o.name for o in graph.output}))
        del graph.value_info[:]

    def op(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """A node before all others; returns its output."""
        out = f"generation/{len(self.new)}/{kind}"
        self.new.append(self.onnx.helper.make_node(kind, inputs, [out], name=out, **attributes))
        return out

    def const(self, value: Any, dtype: Any = np.int64) -> str:
        out = f"generation/{len(self.new)}/Constant"
        tensor = self.onnx.numpy_helper.from_array(np.array(value, dtype))
        self.new.append(self.onnx.helper.make_node("Constant", [], [out], name=out, value=tensor))
        return out

    def attention(self, node: Any, window: int) -> list[Any]:
        """The nodes that take the place of one Attention."""
        q, k, v, past_k, past_v = (node.input[i] for i in (0, 1, 2, 4, 5))
        present = [node.output[1], node.output[2]]
        made = []
        for past, new, out in ((past_k, k, present[0]), (past_v, v, present[1])):
            self.reshape(past, out)
            made.append(
                self.onnx.helper.make_node(
                    "TensorScatter", [past, new, PLACES], [out], name=f"{out}/scatter", axis=1, mode="linear"
                )
            )
        attention = self.onnx.NodeProto()
        attention.CopyFrom(node)
        attention.input[:] = [q, *present, self.mask(window, past_k), "", "", self.lengths]
        attention.output[:] = [node.output[0]]
        return [*made, attention]

    def reshape(self, past: str, present: str) -> None:
        """[b, g, p, d] -> [b, capacity, g * d], of the input and of the output."""
        dims = self.value[past].type.tensor_type.shape.dim
        width = dims[1].dim_value * dims[3].dim_value
        if len(dims) != 4 or not width:
            raise InvalidModel(f"the cache {past!r} is not [batch, heads, tokens, size] with fixed heads and size")
        for name in (past, present):
            kind = self.value[name].type.tensor_type
            info = self.onnx.helper.make_tensor_value_info(name, kind.elem_type, ["batch", "capacity", width])
            self.value[name].CopyFrom(info)

    def mask(self, window: int, past: str) -> str:
        """'' where causality and lengths say everything; bool [b, 1, s, m]; with ALiBi float [1 or b, h, s, m]."""
        if window not in self.masks:
            self.masks[window] = self.make_mask(window, past)
        return self.masks[window]

    def make_mask(self, window: int, past: str) -> str:
        if not window and not self.alibi:
            return ""
        zero, one = self.const(0), self.const(1)
        keys = self.op("Squeeze", [self.op("Shape", [past], start=1, end=2)])
        new = self.op("Squeeze", [self.op("Shape", ["input_ids"], start=1, end=2)])
        index = self.op("Range", [zero, keys, one])
        seen = ""
        if window:
            steps = self.op("Range", [zero, new, one])
            at = self.op("Add", [self.op("Unsqueeze", [PLACES, self.const([1])]), steps])
            first = self.op("Sub", [self.op("Unsqueeze", [at, self.const([1, 3])]), self.const(window)])
            seen = self.op("Greater", [index, first])
        if not self.alibi:
            return seen
        slopes = self.const(np.reshape(self.alibi, (1, -1, 1, 1)), np.float32)
        bias = self.op("Mul", [self.op("Cast", [index], to=1), slopes])
        bias = self.op("Where", [seen, bias, self.const(np.finfo(np.float32).min, np.float32)]) if seen else bias
        shape = self.op("Concat", [self.const([1, 1]), self.op("Shape", ["input_ids"], start=1, end=2), self.const([1])], axis=0)
        return self.op("Expand", [bias, shape])


def _alive(nodes: list[Any], wanted: set[str]) -> list[Any]:
    """The nodes that the outputs need, in their order."""
    needed, kept = set(wanted), []
    for node in reversed(nodes):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input)
    return kept[::-1]
