"""Tensors of a .gguf: names by part, block formats as quantized initializers (docs/quantization.md has the node forms)."""

from __future__ import annotations

from frugal.errors import InvalidModel

from ..gguf import GgufFile, GgufTensor
from ..gguf.stored import BLOCK, FOUR_BITS, PLAIN, StoredTensor, plain
from ..graph import Graph
from .spec import Spec

_PARTS = {
    "embed": "token_embd",
    "embed_norm": "token_embd_norm",
    "positions": "position_embd",
    "norm": "output_norm",
    "head": "output",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "qkv": "attn_qkv",
    "o": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
    "norm1": "attn_norm",
    "norm2": "ffn_norm",
    "norm1_after": "post_attention_norm",
    "norm2_after": "post_ffw_norm",
}


class GgufWeights:
    """`Weights` of a GGUF file. Raises InvalidModel naming file and tensor."""

    def __init__(self, file: GgufFile, spec: Spec) -> None:
        self.file, self.spec = file, spec
        self.stored: dict[str, StoredTensor] = {}
        self._sums: dict[str, str] = {}  # of blocks of an activation
        self._thirds: dict[str, list[str]] = {}

    def name(self, part: str) -> str:
        """'blk.3.attn_q'."""
        number, dot, what = part.partition(".")
        return f"blk.{number}.{_PARTS[what]}" if dot else _PARTS[part]

    def has(self, part: str) -> bool:
        return f"{self.name(part)}.weight" in self.file.tensors

    def tensor(self, name: str, shape: tuple[int, ...]) -> GgufTensor:
        t = self.file.tensors.get(name)
        if t is None:
            raise InvalidModel(f"{self.file.path}: tensor {name!r} is missing")
        if t.shape != shape:
            raise InvalidModel(f"{self.file.path}: tensor {name!r} has shape {list(t.shape)}, the metadata says {list(shape)}")
        return t

    def vector(self, g: Graph, part: str, size: int, *, bias: bool = False) -> str:
        return self._float(g, f"{self.name(part)}.{'bias' if bias else 'weight'}", (size,))

    def _float(self, g: Graph, name: str, shape: tuple[int, ...]) -> str:
        t = self.tensor(name, shape)
        g.tensors.setdefault(name, plain(self.file, t, name))
        return name

    def linear(self, g: Graph, x: str, part: str, rows: int, cols: int) -> str:
        number, _, what = part.partition(".")
        if what in ("q", "k", "v") and not self.has(part):
            return self._cut(g, x, number, what, rows)
        return self._product(g, x, self.name(part), rows, cols)

    def _cut(self, g: Graph, x: str, number: str, what: str, rows: int) -> str:
        """A third of a fused projection (as many key heads as query heads), whose product is made once."""
        name = self.name(f"{number}.qkv")
        if name not in self._thirds:
            y = self._product(g, x, name, 3 * rows, self.spec.hidden)
            self._thirds[name] = g.many("Split", [y], name, 3, axis=-1, num_outputs=3)
        return self._thirds[name]["qkv".index(what)]

    def _product(self, g: Graph, x: str, name: str, rows: int, cols: int) -> str:
        t = self.tensor(f"{name}.weight", (rows, cols))
        if t.format in PLAIN or cols % BLOCK:
            w = self._float(g, f"{name}.weight", (rows, cols))
            y = g.op("MatMul", [x, g.op("Transpose", [w], name, perm=[1, 0])], name)
        else:
            y = self._quantized(g, x, name, self._store(g, t))
        if f"{name}.bias" not in self.file.tensors:
            return y
        return g.op("Add", [y, self._float(g, f"{name}.bias", (rows,))], name)

    def _store(self, g: Graph, t: GgufTensor, eight: bool = False) -> StoredTensor:
        """The tensor's initializers, made once for each width."""
        name = f"{t.name}.rows" if eight and t.format in FOUR_BITS else t.name
        if name not in self.stored:
            s = self.stored[name] = StoredTensor(self.file, t, name, eight)
            g.tensors |= {o.name: o for o in s.initializers()}
        return self.stored[name]

    def _quantized(self, g: Graph, x: str, name: str, s: StoredTensor) -> str:
        """MatMul(x, DequantizeLinear(q^T, d^T)) and, with offsets, the block sums of x times the offsets."""
        codes = g.op("Transpose", [s.codes], name, perm=[1, 0])
        scale = g.op("Cast", [g.op("Transpose", [f"{s.name}.scale"], name, perm=[1, 0])], name, to=g.onnx.TensorProto.FLOAT)
        w = g.op("DequantizeLinear", [codes, scale], name, axis=0, block_size=BLOCK)
        y = g.op("MatMul", [x, w], name)
        if not s.offsets:
            return y
        if x not in self._sums:
            cut = g.op("Reshape", [x, g.ints(0, 0, s.cols // BLOCK, BLOCK)], f"{name}.sums")
            self._sums[x] = g.op("ReduceSum", [cut, g.ints(-1)], f"{name}.sums", keepdims=0)
        offset = g.op("Cast", [f"{s.name}.offset"], name, to=g.onnx.TensorProto.FLOAT)
        return g.op("Add", [y, g.op("MatMul", [self._sums[x], offset], f"{name}.offset")], f"{name}.offset")

    def table(self, g: Graph, part: str, rows: int, cols: int, ids: str) -> str:
        name = self.name(part)
        t = self.tensor(f"{name}.weight", (rows, cols))
        if t.format in PLAIN or cols % BLOCK:
            return g.op("Gather", [self._float(g, t.name, (rows, cols)), ids], name)
        s = self._store(g, t, eight=True)  # Gather takes no 4-bit types
        codes, scale = (g.op("Gather", [n, ids], name) for n in (s.codes, f"{s.name}.scale"))
        scale = g.op("Cast", [scale], name, to=g.onnx.TensorProto.FLOAT)
        return g.op("DequantizeLinear", [codes, scale], name, axis=-1, block_size=BLOCK)

    def tied_head(self, g: Graph, x: str, rows: int, cols: int) -> str:
        return self._product(g, x, self.name("embed"), rows, cols)

    def scalars(self, part: str) -> dict[str, float]:
        layer, found = int(part.partition(".")[0]), {}
        for key in ("alpha_p", "alpha_n", "beta", "eps"):
            values = self.file.metadata.get(f"{self.file.metadata['general.architecture']}.xielu.{key}")
            values = values if isinstance(values, list) else [values] * (layer + 1)
            if len(values) <= layer or not isinstance(values[layer], float):
                raise InvalidModel(f"{self.file.path}: key 'xielu.{key}' has no number for layer {layer}")
            found[key] = values[layer]
        return found
