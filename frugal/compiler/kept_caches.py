"""Text generation's caches: attention layers that keep their keys and values in a type of their own.

1. A layer is Attention over what two TensorScatters (axis 1, at write_indices) wrote into inputs of the model: what fix_caches
   makes, and what `frugal export --cache fixed` writes.
2. It becomes one frugal::KeptAttention(q, k, v, past_key, past_value, write_indices, key_scale?, value_scale?) -> y, present_key,
   present_value, present_key_scale?, present_value_scale?; the caches become [batch, heads, slots, size] of float32, float16 or
   int8, with int8 one scale a head and token in inputs and outputs of their own, `past_key_values.N.key.scale`.
3. A window (metadata frugal.windows) takes the place of its mask, and the cache becomes a ring of `window_W` slots: W - 1 and as
   many as the tokens that are fed at once, or more.  Slopes (frugal.alibi) take the place of theirs.
4. A layer whose mask the metadata do not explain stays as it is, in float32.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np

from ..errors import InvalidArgument
from .generation import PLACES
from .ir import DType

DOMAIN = "frugal"
TYPES = {"float32": DType.FLOAT, "float16": DType.FLOAT16, "int8": DType.INT8}


def keep_caches(model: Any, cache: str) -> None:
    """Rewrite a decoder with fixed caches in place.  cache: 'float32', 'float16' or 'int8'."""
    if cache not in TYPES:
        raise InvalidArgument(f"cache: want one of {', '.join(TYPES)}, got {cache!r}")
    _Keeper(model, TYPES[cache]).run()


class _Keeper:
    def __init__(self, model: Any, dtype: DType) -> None:
        import onnx

        self.onnx, self.model, self.graph, self.dtype = onnx, model, model.graph, dtype
        self.inputs = {i.name: i for i in self.graph.input}
        self.outputs = {o.name: o for o in self.graph.output}
        said = {p.key: p.value for p in model.metadata_props}
        self.windows: list[int] = json.loads(said.get("frugal.windows", "[]"))
        self.alibi: list[float] = json.loads(said.get("frugal.alibi", "[]"))
        self.readers = Counter(name for n in self.graph.node for name in n.input)
        self.writers = {n.output[0]: n for n in self.graph.node if n.op_type == "TensorScatter" and self._of_model(n)}

    def _of_model(self, node: Any) -> bool:
        """Whether a TensorScatter writes an input of the model into an output of it, at write_indices, for one reader."""
        if len(node.input) != 3 or self.readers[node.output[0]] != 1:
            return False
        past, _, places = node.input
        if past not in self.inputs or node.output[0] not in self.outputs or places != PLACES:
            return False
        dims = self.inputs[past].type.tensor_type.shape.dim
        return len(dims) == 3 and dims[2].dim_value > 0

    def run(self) -> None:
        layers = [n for n in self.graph.node if n.op_type == "Attention" and {n.input[1], n.input[2]} <= self.writers.keys()]
        windows = self.windows or [0] * len(layers)
        body = list(self.graph.node)
        for node, window in zip(layers, windows, strict=len(windows) == len(layers)):
            if len(node.input) > 3 and node.input[3] and not (window or self.alibi):
                continue  # rule 4
            writers = [self.writers[node.input[i]] for i in (1, 2)]
            body = [n for n in body if not any(n is w for w in writers)]
            body[next(i for i, n in enumerate(body) if n is node)] = self.kept(node, writers, window)
        del self.graph.node[:]
        self.graph.node.extend(body)
        del self.graph.value_info[:]
        if all(o.domain != DOMAIN for o in self.model.opset_import):
            self.model.opset_import.append(self.onnx.helper.make_opsetid(DOMAIN, 1))

    def kept(self, node: Any, writers: list[Any], window: int) -> Any:
        attributes = {a.name: self.onnx.helper.get_attribute_value(a) for a in node.attribute}
        heads = attributes["kv_num_heads"]
        scales = [self.retype(w, heads, window) for w in writers]
        inputs = [node.input[0], *(w.input[1] for w in writers), *(w.input[0] for w in writers), PLACES]
        outputs = [node.output[0], *(w.output[0] for w in writers)]
        if self.dtype == DType.INT8:
            inputs += [past for past, _ in scales]
            outputs += [present for _, present in scales]
        wanted = {k: attributes[k] for k in ("q_num_heads", "kv_num_heads", "scale", "softcap") if k in attributes}
        if window:
            wanted["window"] = window
        if self.alibi:
            wanted["slopes"] = [float(np.float32(s)) for s in self.alibi]
        return self.onnx.helper.make_node("KeptAttention", inputs, outputs, name=node.name, domain=DOMAIN, **wanted)

    def retype(self, writer: Any, heads: int, window: int) -> tuple[str, str]:
        """The cache's input and output in their new form; with int8 also their scales.  Returns the scales' names."""
        past, present = writer.input[0], writer.output[0]
        dims = self.inputs[past].type.tensor_type.shape.dim
        slots = f"window_{window}" if window else dims[1].dim_param or "capacity"
        shape = [dims[0].dim_param or "batch", heads, slots]
        size = dims[2].dim_value // heads
        names = []
        for name, values, all_values in (
            (past, self.inputs, self.graph.input),
            (present, self.outputs, self.graph.output),
        ):
            values[name].CopyFrom(self.onnx.helper.make_tensor_value_info(name, int(self.dtype), [*shape, size]))
            names.append(f"{name}.scale")
            if self.dtype == DType.INT8:
                all_values.append(self.onnx.helper.make_tensor_value_info(names[-1], int(DType.FLOAT), shape))
        return names[0], names[1]
