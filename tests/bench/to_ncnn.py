"""A small float ONNX network as ncnn's two files: Conv, Relu, Add, AveragePool over all, Reshape to a vector, Gemm, Softmax, one
image at a time.  ncnn itself reads no ONNX.  A Transpose at the entrance is left out: the input is channels first."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper


class Writer:
    """Layers as text, weights as bytes.  A value that several layers read goes through ncnn's Split."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        self.nodes = list(graph.node)
        self.readers = Counter(name for n in self.nodes for name in n.input)
        self.layers: list[str] = []
        self.weights = bytearray()
        self.blob: dict[str, list[str]] = {}  # ONNX name -> ncnn names, one for each reader
        self.blobs = 0
        self.output = graph.output[0].name
        self.made("Input", "input", [], graph.input[0].name)

    def take(self, name: str) -> str:
        return self.blob[name].pop()

    def made(self, kind: str, label: str, inputs: list[str], name: str, **parameters: Any) -> None:
        out = "input" if kind == "Input" else "output" if name == self.output else f"b{self.blobs}"
        values = " ".join(f"{k[1:]}={v}" for k, v in parameters.items())
        self.layers.append(f"{kind} {label} {len(inputs)} 1 {' '.join([*inputs, out])} {values}".rstrip())
        self.blobs += 1
        readers = self.readers[name]
        if readers > 1:
            copies = [f"{out}_{i}" for i in range(readers)]
            self.layers.append(f"Split split_{out} 1 {readers} {out} {' '.join(copies)}")
            self.blobs += readers
            self.blob[name] = copies
        else:
            self.blob[name] = [out]

    def alias(self, name: str, new: str) -> None:
        if self.readers[name] != 1:
            raise ValueError(f"{name} has several readers")
        self.blob[new] = self.blob.pop(name)

    def floats(self, array: np.ndarray, flag: bool) -> None:
        if flag:
            self.weights += struct.pack("<I", 0)
        self.weights += np.ascontiguousarray(array, np.float32).tobytes()

    def conv(self, index: int, node: onnx.NodeProto, attributes: dict[str, Any], relu: bool, name: str) -> None:
        w = self.constants[node.input[1]]
        group, strides = attributes.get("group", 1), attributes.get("strides", [1, 1])
        top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
        self.made(
            "Convolution" if group == 1 else "ConvolutionDepthWise",
            f"conv{index}",
            [self.take(node.input[0])],
            name,
            **{"_0": w.shape[0], "_1": w.shape[3], "_11": w.shape[2], "_3": strides[1], "_13": strides[0]},
            **{"_4": left, "_14": top, "_15": right, "_16": bottom, "_5": 1, "_6": w.size, "_9": int(relu)},
            **({} if group == 1 else {"_7": group}),
        )
        self.floats(w, True)
        self.floats(self.constants[node.input[2]], False)

    def node(self, index: int, node: onnx.NodeProto, name: str, relu: bool) -> None:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        kind = node.op_type
        if kind == "Conv":
            self.conv(index, node, attributes, relu, name)
        elif kind in ("Transpose", "Reshape"):
            self.alias(node.input[0], name)
        elif kind == "Relu":
            self.made("ReLU", f"relu{index}", [self.take(node.input[0])], name)
        elif kind == "Add":
            self.made("BinaryOp", f"add{index}", [self.take(i) for i in node.input], name, _0=0)
        elif kind == "AveragePool":
            self.made("Pooling", f"pool{index}", [self.take(node.input[0])], name, _0=1, _4=1)
        elif kind == "Gemm":
            w = self.constants[node.input[1]]
            self.made("InnerProduct", f"dense{index}", [self.take(node.input[0])], name, _0=w.shape[0], _1=1, _2=w.size)
            self.floats(w, True)
            self.floats(self.constants[node.input[2]], False)
        elif kind == "Softmax":
            self.made("Softmax", f"softmax{index}", [self.take(node.input[0])], name, _0=0, _1=1)
        else:
            raise ValueError(f"no {kind} in this converter")

    def write(self, path: Path) -> None:
        skip = -1
        for i, node in enumerate(self.nodes):
            if i == skip:
                continue
            name, following = node.output[0], self.nodes[i + 1] if i + 1 < len(self.nodes) else None
            relu = bool(node.op_type == "Conv" and following and following.op_type == "Relu" and following.input[0] == name) and (
                self.readers[name] == 1
            )
            if relu and following:
                name, skip = following.output[0], i + 1
            self.node(i, node, name, relu)
        path.write_text(f"7767517\n{len(self.layers)} {self.blobs}\n" + "\n".join(self.layers) + "\n", encoding="ascii")
        path.with_suffix(".bin").write_bytes(self.weights)


def convert(source: Path, target: Path) -> Path:
    """source: .onnx; target: .param, and .bin beside it."""
    Writer(onnx.load(source)).write(target)
    return target
