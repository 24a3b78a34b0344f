"""Writes tiny .tflite files for tests: tensors, operators with options, subgraphs."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
import tflite

KINDS = {
    "float32": 0,
    "float16": 1,
    "int32": 2,
    "uint8": 3,
    "int64": 4,
    "bool": 6,
    "int16": 7,
    "int8": 9,
    "resource": 13,
    "int4": 17,
}
VERSIONS = {"BROADCAST_TO": 2}  # operators whose first version TFLite no longer has


class Writer:
    """Collects one subgraph. `tensor` and `op` give and take tensor indices; bytes() is the file."""

    def __init__(self) -> None:
        self.b = flatbuffers.Builder(1024)
        self.buffers: list[bytes] = [b""]
        self.graphs: list[dict[str, Any]] = []
        self.codes: list[tuple[int, str | None, int]] = []
        self.graph()

    def graph(self) -> None:
        """Start another subgraph."""
        self.tensors: list[dict[str, Any]] = []
        self.ops: list[dict[str, Any]] = []
        self.graphs.append({"tensors": self.tensors, "ops": self.ops, "inputs": [], "outputs": []})

    def io(self, inputs: list[int], outputs: list[int]) -> None:
        """The inputs and outputs of the subgraph."""
        self.graphs[-1] |= {"inputs": inputs, "outputs": outputs}

    def tensor(
        self,
        shape: Any = (),
        dtype: str = "float32",
        data: Any = None,
        scale: Any = None,
        zero: Any = 0,
        axis: int = 0,
        name: str | None = None,
        variable: bool = False,
        signature: Any = None,
        sparsity: Any = None,
    ) -> int:
        """A tensor; a constant when data is given (its shape is then the data's)."""
        buffer = 0
        if data is not None:
            value = np.asarray(data, np.int8 if dtype == "int4" else dtype)
            shape = value.shape
            raw = value.tobytes()
            if dtype == "int4":
                flat = np.append(value.reshape(-1), [0] * (value.size % 2)).astype(np.uint8) & 15
                raw = (flat[0::2] | flat[1::2] << 4).tobytes()
            self.buffers.append(raw)
            buffer = len(self.buffers) - 1
        index = len(self.tensors)
        self.tensors.append(
            {
                "shape": list(shape),
                "kind": KINDS[dtype],
                "buffer": buffer,
                "name": f"t{index}" if name is None else name,
                "scale": scale,
                "zero": zero,
                "axis": axis,
                "variable": variable,
                "signature": signature,
                "sparsity": sparsity,
            }
        )
        return index

    def ints(self, values: Any, dtype: str = "int32") -> int:
        """An integer constant."""
        return self.tensor(dtype=dtype, data=values)

    def op(
        self,
        kind: str,
        inputs: list[int],
        outputs: list[int],
        options: str | None = None,
        intermediates: Any = (),
        custom: str | None = None,
        **fields: Any,
    ) -> None:
        """An operator; fields are those of its options table."""
        code = (getattr(tflite.BuiltinOperator, kind), custom, VERSIONS.get(kind, 1))
        if code not in self.codes:
            self.codes.append(code)
        self.ops.append(
            {
                "code": self.codes.index(code),
                "inputs": inputs,
                "outputs": outputs,
                "intermediates": list(intermediates),
                "options": options,
                "fields": fields,
            }
        )

    # --- serialization -------------------------------------------------------------------------------------------------------

    def vector(self, values: Any, dtype: Any = np.int32) -> int:
        return self.b.CreateNumpyVector(np.array(values, dtype))

    def offsets(self, start: Any, items: list[int]) -> int:
        start(self.b, len(items))
        for i in reversed(items):
            self.b.PrependUOffsetTRelative(i)
        return self.b.EndVector()

    def table(self, name: str, **fields: Any) -> int:
        """Table `name`; strings and lists are written first."""
        made = {}
        for key, value in fields.items():
            if isinstance(value, str):
                made[key] = self.b.CreateString(value)
            elif isinstance(value, (list, np.ndarray)):
                made[key] = self.vector(value)
            else:
                made[key] = value
        getattr(tflite, name + "Start")(self.b)
        for key, value in made.items():
            getattr(tflite, f"{name}Add{key}")(self.b, value)
        return int(getattr(tflite, name + "End")(self.b))

    def write_tensor(self, t: dict[str, Any]) -> int:
        fields = {"Shape": t["shape"], "Type": t["kind"], "Buffer": t["buffer"], "Name": t["name"]}
        if t["scale"] is not None:
            scale = np.atleast_1d(np.asarray(t["scale"], np.float32))
            zero = np.broadcast_to(np.asarray(t["zero"], np.int64), scale.shape)
            s, z = self.vector(scale, np.float32), self.vector(zero, np.int64)
            fields["Quantization"] = self.table("QuantizationParameters", Scale=s, ZeroPoint=z, QuantizedDimension=t["axis"])
        if t["variable"]:
            fields["IsVariable"] = True
        if t["signature"] is not None:
            fields["ShapeSignature"] = list(t["signature"])
        if t["sparsity"] is not None:
            fields["Sparsity"] = self.write_sparsity(*t["sparsity"])
        return self.table("Tensor", **fields)

    def write_sparsity(self, order: list[int], blocks: list[int], levels: list[Any]) -> int:
        """levels: an int is a dense level of that size, a pair (segments, indices) a compressed one."""
        made = []
        for level in levels:
            fields = {"Format": 0, "DenseSize": level}
            if not isinstance(level, int):
                tables = [self.table("Int32Vector", Values=list(v)) for v in level]
                fields = {"Format": 1, "ArraySegmentsType": 1, "ArraySegments": tables[0]}
                fields |= {"ArrayIndicesType": 1, "ArrayIndices": tables[1]}
            made.append(self.table("DimensionMetadata", **fields))
        metadata = self.offsets(tflite.SparsityParametersStartDimMetadataVector, made)
        return self.table("SparsityParameters", TraversalOrder=order, BlockMap=blocks, DimMetadata=metadata)

    def write_op(self, o: dict[str, Any]) -> int:
        fields = {"OpcodeIndex": o["code"], "Inputs": o["inputs"], "Outputs": o["outputs"]}
        if o["intermediates"]:
            fields["Intermediates"] = o["intermediates"]
        if o["options"]:
            table = self.table(o["options"], **o["fields"])
            number = "2" if hasattr(tflite.BuiltinOptions2, o["options"]) else ""
            kinds = tflite.BuiltinOptions2 if number else tflite.BuiltinOptions
            fields |= {f"BuiltinOptions{number}Type": getattr(kinds, o["options"]), f"BuiltinOptions{number}": table}
        return self.table("Operator", **fields)

    def write_graph(self, g: dict[str, Any]) -> int:
        tensors = self.offsets(tflite.SubGraphStartTensorsVector, [self.write_tensor(t) for t in g["tensors"]])
        ops = self.offsets(tflite.SubGraphStartOperatorsVector, [self.write_op(o) for o in g["ops"]])
        return self.table("SubGraph", Tensors=tensors, Operators=ops, Inputs=g["inputs"], Outputs=g["outputs"], Name="main")

    def bytes(self) -> bytes:
        """The whole file."""
        codes = []
        for number, custom, version in self.codes:
            fields = {"DeprecatedBuiltinCode": min(number, 127), "BuiltinCode": number, "Version": version}
            codes.append(self.table("OperatorCode", **fields | ({"CustomCode": custom} if custom else {})))
        buffers = []
        for raw in self.buffers:
            data = {"Data": self.b.CreateNumpyVector(np.frombuffer(raw, np.uint8))} if raw else {}
            buffers.append(self.table("Buffer", **data))
        graphs = [self.write_graph(g) for g in self.graphs]
        model = self.table(
            "Model",
            Version=3,
            OperatorCodes=self.offsets(tflite.ModelStartOperatorCodesVector, codes),
            Subgraphs=self.offsets(tflite.ModelStartSubgraphsVector, graphs),
            Buffers=self.offsets(tflite.ModelStartBuffersVector, buffers),
        )
        self.b.Finish(model, b"TFL3")
        return bytes(self.b.Output())
