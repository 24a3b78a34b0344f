"""Graph builder for our own exports: nodes and initializers with the checkpoint's names, tensors read when written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _lazy, onnxfile
from .checkpoint import Checkpoint
from .onnxfile import OutTensor

OPSET, IR_VERSION = 24, 11


class Graph:
    """Collects nodes; `op` returns the name of its output, which is the node's name unless told otherwise."""

    def __init__(self, checkpoint: Checkpoint | None) -> None:
        self.onnx: Any = _lazy.onnx()
        self.checkpoint = checkpoint
        self.nodes: list[Any] = []
        self.tensors: dict[str, OutTensor] = {}
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self._names: set[str] = set()
        self._shared: dict[str, str] = {}

    def op(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Append a node of the default domain called `name`/`kind`; returns its output's name."""
        full, n = f"{name}/{kind}", 1
        while full in self._names:
            n += 1
            full = f"{name}/{kind}_{n}"
        self._names.add(full)
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [full], name=full, **attributes))
        return full

    def many(self, kind: str, inputs: list[str], name: str, count: int, **attributes: Any) -> list[str]:
        """`op` for a node with `count` outputs; returns their names."""
        first = self.op(kind, inputs, name, **attributes)
        self.nodes[-1].output.extend(f"{first}.{i}" for i in range(1, count))
        return list(self.nodes[-1].output)

    def const(self, name: str, value: NDArray[Any]) -> str:
        """A small constant; equal names must carry equal values."""
        self.tensors.setdefault(name, onnxfile.from_array(name, value))
        return name

    def ints(self, *values: int) -> str:
        """int64 vector constant."""
        return self.const("const/" + "_".join(map(str, values)), np.array(values, np.int64))

    def scalar(self, value: float | int) -> str:
        """Scalar constant: int64 for int, float32 for float."""
        a = np.array(value, np.int64 if isinstance(value, int) else np.float32)
        return self.const(f"const/scalar/{value}", a)

    def weight(self, name: str, shape: tuple[int, ...], checkpoint: Checkpoint | None = None, prefix: str = "") -> str:
        """The checkpoint's tensor `name` as float32 initializer prefix+name; checked now, read when written."""
        source = checkpoint or self.checkpoint
        assert source is not None
        source.entry(name, shape)
        full = prefix + name
        self.tensors.setdefault(full, OutTensor(full, self.onnx.TensorProto.FLOAT, shape, lambda: source.chunks(name, shape)))
        return full

    def derived(
        self, name: str, shape: tuple[int, ...], read: Callable[[], NDArray[Any]], make: Callable[[NDArray[Any]], NDArray[Any]]
    ) -> str:
        """Initializer `name`, float32 `shape`: make(read()), computed when written."""

        def chunks() -> list[NDArray[Any]]:
            return [np.ascontiguousarray(make(read()), np.float32)]

        self.tensors.setdefault(name, OutTensor(name, self.onnx.TensorProto.FLOAT, shape, chunks))
        return name

    def linear(
        self,
        x: str,
        name: str,
        rows: int,
        cols: int,
        checkpoint: Checkpoint | None = None,
        prefix: str = "",
        weight: str | None = None,
        bias: str | bool | None = True,
    ) -> str:
        """y = x W^T + b, W [rows, cols] as stored: MatMul(x, Transpose(W)), Add(b [rows])."""
        w = weight or self.weight(f"{name}.weight", (rows, cols), checkpoint, prefix)
        y = self.op("MatMul", [x, self.op("Transpose", [w], prefix + name, perm=[1, 0])], prefix + name)
        if bias is False or bias is None:
            return y
        b = bias if isinstance(bias, str) else f"{name}.bias"
        return self.op("Add", [y, self.weight(b, (rows,), checkpoint, prefix)], prefix + name)

    def layer_norm(self, x: str, name: str, size: int, epsilon: float) -> str:
        """LayerNormalization over the last axis [.., size]."""
        w, b = (self.weight(f"{name}.{p}", (size,)) for p in ("weight", "bias"))
        return self.op("LayerNormalization", [x, w, b], name, axis=-1, epsilon=epsilon)

    def activation(self, x: str, kind: str, name: str) -> str:
        """gelu (erf), gelu_new / gelu_pytorch_tanh (tanh form), relu, silu, tanh."""
        if kind in ("silu", "swish"):
            return self.op("Mul", [x, self.op("Sigmoid", [x], name)], name)
        if kind in ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"):
            return self.op("Gelu", [x], name, approximate="tanh")
        return self.op({"gelu": "Gelu", "relu": "Relu", "tanh": "Tanh"}[kind], [x], name)

    def add_input(self, name: str, shape: list[str | int], dtype: int | None = None) -> str:
        """Graph input, int64 unless told otherwise."""
        kind = self.onnx.TensorProto.INT64 if dtype is None else dtype
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, kind, shape))
        return name

    def add_output(self, value: str, name: str, shape: list[str | int]) -> None:
        """float32 graph output `name` from `value`, which is renamed to it."""
        for node in self.nodes:
            node.input[:] = [name if i == value else i for i in node.input]
            node.output[:] = [name if o == value else o for o in node.output]
        self.outputs.append(self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, shape))

    def proto(self, name: str, opset: int, metadata: dict[str, str]) -> Any:
        """The ModelProto without the initializers, which are self.tensors."""
        h = self.onnx.helper
        graph = h.make_graph(self.nodes, name, self.inputs, self.outputs)
        model = h.make_model(graph, opset_imports=[h.make_opsetid("", opset)], ir_version=IR_VERSION, producer_name="frugal")
        h.set_model_props(model, metadata)
        return model


ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "silu", "swish", "tanh")
