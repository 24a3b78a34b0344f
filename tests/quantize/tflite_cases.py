"""Models of one or a few operators, CASES[name](rng) -> Case: for the tests and the script that records what TFLite gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .tflite_writer import Writer

SAME, VALID = 0, 1
NONE, RELU, RELU_N1_TO_1, RELU6, TANH = range(5)
CASES: dict[str, Callable[[np.random.Generator], Case]] = {}


@dataclass
class Case:
    """A file, and what to feed it: several runs, each NAME -> value. steps: how far integers may be off; atol, rtol: floats."""

    model: bytes
    feeds: list[dict[str, np.ndarray]]
    steps: int = 1
    rtol: float = 1e-5
    atol: float = 1e-5


class Maker(Writer):
    """A writer that knows what is fed to its inputs."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self.rng, self.fed, self.ranges = rng, [], {}

    def activation(self, shape: Any, dtype: str = "float32", scale: float = 0.05, zero: int | None = None, **more: Any) -> int:
        """A tensor; quantized when its dtype is a small integer."""
        if dtype in ("int8", "uint8", "int16") and scale:
            zero = {"int8": -3, "uint8": 121, "int16": 0}[dtype] if zero is None else zero
            more |= {"scale": scale, "zero": zero}
        return self.tensor(shape, dtype, **more)

    def input(self, shape: Any, dtype: str = "float32", low: float = -4, high: float = 4, **more: Any) -> int:
        """A graph input: floats from low to high, integers over their whole range (int32 and int64: low to high)."""
        index = self.activation(shape, dtype, **more)
        self.fed.append(index)
        self.ranges[index] = (low, high)
        return index

    def value(self, index: int) -> np.ndarray:
        t = self.tensors[index]
        dtype = {0: "float32", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8", 1: "float16"}[t["kind"]]
        low, high = self.ranges[index]
        if dtype.startswith("float"):
            return self.rng.uniform(low, high, t["shape"]).astype(dtype)
        if dtype == "bool":
            return self.rng.integers(0, 2, t["shape"]).astype(bool)
        if dtype in ("int8", "uint8", "int16"):
            info = np.iinfo(dtype)
            return self.rng.integers(info.min, info.max + 1, t["shape"]).astype(dtype)
        return self.rng.integers(int(low), int(high), t["shape"]).astype(dtype)

    def case(self, *outputs: int, runs: int = 3, **tolerances: Any) -> Case:
        """Finish the file."""
        self.io(self.fed, list(outputs))
        model = self.bytes()
        if any(d < 0 for i in self.fed for d in self.tensors[i]["shape"]):
            runs = 0
        return Case(model, [{self.tensors[i]["name"]: self.value(i) for i in self.fed} for _ in range(runs)], **tolerances)

    # --- weights -------------------------------------------------------------------------------------------------------------

    def weights(self, shape: Any, dtype: str, axis: int | None = None, limit: int = 127) -> int:
        """Constant weights: float, int8 (one scale, or one an index of axis; symmetric), uint8 (asymmetric)."""
        if dtype == "float32":
            return self.tensor(data=self.rng.normal(0, 0.3, shape).astype(np.float32))
        if dtype == "uint8":
            return self.tensor(dtype="uint8", data=self.rng.integers(0, 256, shape), scale=0.004, zero=117)
        scale = 0.003 if axis is None else self.rng.uniform(0.001, 0.006, shape[axis]).astype(np.float32)
        return self.tensor(dtype="int8", data=self.rng.integers(-limit, limit + 1, shape), scale=scale, axis=axis or 0)

    def bias(self, n: int, x: int, w: int) -> int:
        """A bias that fits input and weights: int32, int64 beside int16, float beside float."""
        kind = self.tensors[x]["kind"]
        if kind == 0:
            return self.tensor(data=self.rng.normal(0, 0.3, n).astype(np.float32))
        scale = np.float32(self.tensors[x]["scale"]) * np.asarray(self.tensors[w]["scale"], np.float32)
        codes = np.round(self.rng.normal(0, 0.5, n) / scale)
        return self.tensor(dtype="int64" if kind == 7 else "int32", data=codes, scale=scale, zero=0)


def case(name: str) -> Callable[[Any], Any]:
    def register(f: Any) -> Any:
        assert name not in CASES
        CASES[name] = f
        return f

    return register


def add(name: str, f: Callable[[Maker], Case]) -> None:
    assert name not in CASES, name
    CASES[name] = lambda rng: f(Maker(rng))


# --- convolutions and products --------------------------------------------------------------------

WEIGHTS = {"float32": "float32", "int8": "int8", "uint8": "uint8", "int16": "int8"}


def conv(
    m: Maker, dtype: str, size: Any, kernel: Any, stride: Any, dilation: Any, padding: int, act: int, depthwise: int = 0
) -> Case:
    h, w, c = size
    out = c * depthwise if depthwise else 6
    x = m.input((1, h, w, c), dtype, scale=0.03 if dtype != "int16" else 0.0002)
    shape = (1, *kernel, out) if depthwise else (out, *kernel, c)
    k = m.weights(shape, WEIGHTS[dtype], axis=None if dtype == "uint8" else 3 if depthwise else 0)
    b = m.bias(out, x, k)
    oh, ow = (
        -(-s // st) if padding == SAME else -(-(s - (kk - 1) * d) // st)
        for s, kk, st, d in zip((h, w), kernel, stride, dilation, strict=True)
    )
    y = m.activation((1, oh, ow, out), dtype, scale=0.06 if dtype != "int16" else 0.0004)
    options = "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions"
    fields = {
        "Padding": padding,
        "StrideH": stride[0],
        "StrideW": stride[1],
        "DilationHFactor": dilation[0],
        "DilationWFactor": dilation[1],
        "FusedActivationFunction": act,
    }
    if depthwise:
        fields["DepthMultiplier"] = depthwise
    m.op("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", [x, k, b], [y], options, **fields)
    return m.case(y)


for dtype in ("float32", "int8", "uint8", "int16"):
    for n, (size, kernel, stride, dilation, padding, act) in enumerate(
        [
            ((9, 7, 3), (3, 3), (1, 1), (1, 1), SAME, NONE),
            ((9, 8, 4), (2, 5), (2, 1), (1, 1), SAME, RELU),
            ((10, 11, 2), (3, 2), (2, 3), (1, 1), VALID, RELU6),
            ((12, 12, 3), (3, 3), (1, 1), (2, 2), SAME, NONE),
            ((6, 5, 8), (1, 1), (1, 1), (1, 1), SAME, RELU_N1_TO_1),
            ((6, 6, 4), (4, 4), (2, 2), (1, 1), SAME, NONE),
        ]
    ):
        for multiplier in (0, 1, 2):
            name = f"{'depthwise' + str(multiplier) if multiplier else 'conv'}_{dtype}_{n}"
            args = (dtype, size, kernel, stride, dilation, padding, act, multiplier)
            if multiplier and stride[0] != stride[1] and dtype != "float32":
                continue  # TFLite's integer kernels want equal strides
            add(name, lambda m, args=args: conv(m, *args))


def fully_connected(m: Maker, dtype: str, shape: Any, out: int, keep: bool, act: int, with_bias: bool, per_channel: bool) -> Case:
    x = m.input(shape, dtype, scale=0.03 if dtype != "int16" else 0.0002)
    cols = shape[-1] if keep else int(np.prod(shape[1:]))
    k = m.weights((out, cols), WEIGHTS[dtype], axis=0 if per_channel else None)
    inputs = [x, k, m.bias(out, x, k) if with_bias else -1]
    y = m.activation((*shape[:-1], out) if keep else (shape[0], out), dtype, scale=0.05 if dtype != "int16" else 0.0004)
    m.op("FULLY_CONNECTED", inputs, [y], "FullyConnectedOptions", FusedActivationFunction=act, KeepNumDims=keep)
    return m.case(y)


for dtype in ("float32", "int8", "uint8", "int16"):
    for n, args in enumerate(
        [
            ((3, 20), 7, False, NONE, True, False),
            ((2, 3, 4), 5, False, RELU, True, False),
            ((2, 3, 8), 6, True, NONE, True, dtype == "int8"),
            ((1, 16), 4, False, RELU6, False, False),
        ]
    ):
        add(f"fully_connected_{dtype}_{n}", lambda m, args=(dtype, *args): fully_connected(m, *args))


def transpose_conv(m: Maker, dtype: str, size: Any, kernel: Any, stride: Any, padding: int, out: Any, with_bias: bool) -> Case:
    c, o = 3, 5
    x = m.input((1, *size, c), dtype, scale=0.03 if dtype != "int16" else 0.0002)
    k = m.weights((o, *kernel, c), WEIGHTS[dtype], axis=None if dtype == "uint8" else 0)
    y = m.activation((1, *out, o), dtype, scale=0.06 if dtype != "int16" else 0.0004)
    inputs = [m.ints([1, *out, o]), k, x] + ([m.bias(o, x, k)] if with_bias else [])
    m.op("TRANSPOSE_CONV", inputs, [y], "TransposeConvOptions", Padding=padding, StrideH=stride[0], StrideW=stride[1])
    return m.case(y)


for dtype in ("float32", "int8", "uint8"):
    for n, args in enumerate(
        [
            ((5, 4), (3, 3), (2, 2), SAME, (10, 8), True),
            ((5, 4), (3, 3), (2, 2), VALID, (11, 9), True),
            ((4, 6), (2, 4), (1, 1), SAME, (4, 6), False),
            ((3, 3), (2, 2), (2, 2), SAME, (6, 6), True),
            ((5, 4), (3, 3), (2, 2), SAME, (9, 7), False),
        ]
    ):
        add(f"transpose_conv_{dtype}_{n}", lambda m, args=(dtype, *args): transpose_conv(m, *args))


def pool(m: Maker, kind: str, dtype: str, size: Any, kernel: Any, stride: Any, padding: int, act: int) -> Case:
    x = m.input((1, *size), dtype)
    oh, ow = (-(-s // st) if padding == SAME else -(-(s - k + 1) // st) for s, k, st in zip(size, kernel, stride, strict=False))
    y = m.activation((1, oh, ow, size[2]), dtype)
    fields = {"FilterHeight": kernel[0], "FilterWidth": kernel[1], "StrideH": stride[0], "StrideW": stride[1]}
    m.op(kind, [x], [y], "Pool2DOptions", Padding=padding, FusedActivationFunction=act, **fields)
    return m.case(y, steps=0)


for kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"):
    for dtype in ("float32",) if kind[0] == "L" else ("float32", "int8", "uint8", "int16"):
        for n, args in enumerate(
            [
                ((8, 7, 3), (2, 2), (2, 2), VALID, NONE),
                ((9, 8, 4), (3, 2), (2, 3), SAME, RELU),
                ((7, 6, 2), (7, 6), (1, 1), VALID, RELU6),
                ((8, 8, 5), (4, 4), (1, 1), SAME, RELU_N1_TO_1),
            ]
        ):
            if kind[0] == "L" and args[3] == SAME:
                continue
            add(f"{kind.lower()}_{dtype}_{n}", lambda m, args=(kind, dtype, *args): pool(m, *args))


def batch_matmul(m: Maker, dtype: str, adj_x: bool, adj_y: bool, constant: bool) -> Case:
    x = m.input((2, 5, 3) if adj_x else (2, 3, 5), dtype)
    shape = (2, 4, 5) if adj_y else (2, 5, 4)
    if constant and dtype == "float32":
        w = m.tensor(data=m.rng.normal(0, 1, shape).astype(np.float32))
    else:
        w = m.input(shape, dtype, scale=0.02, zero=0)
    y = m.activation((2, 3, 4), dtype, scale=0.3)
    m.op("BATCH_MATMUL", [x, w], [y], "BatchMatMulOptions", AdjX=adj_x, AdjY=adj_y)
    return m.case(y)


for dtype in ("float32", "int8"):
    for x in (False, True):
        for y in (False, True):
            add(f"batch_matmul_{dtype}_{x:d}{y:d}", lambda m, a=(dtype, x, y, x == y): batch_matmul(m, *a))


# --- element by element ---------------------------------------------------------------------------

SHAPES = [((1, 4, 5, 3), (1, 4, 5, 3)), ((1, 4, 5, 3), (3,)), ((2, 3), ()), ((1, 1, 1, 6), (1, 4, 3, 6))]


def binary(m: Maker, kind: str, dtype: str, a: Any, b: Any, act: int, constant: bool) -> Case:
    same = kind in ("MAXIMUM", "MINIMUM")
    x = m.input(a, dtype, scale=0.04)
    scale, zero = (0.04, None) if same else (0.07, {"int8": 5, "uint8": 140, "int16": 0}.get(dtype))
    if constant:
        info = np.iinfo(dtype) if dtype != "float32" else None
        data = m.rng.integers(info.min, info.max, b).astype(dtype) if info else m.rng.uniform(1, 3, b).astype(np.float32)
        quantized = {"scale": scale, "zero": zero or {"int8": -3, "uint8": 121}.get(dtype, 0)} if info else {}
        z = m.tensor(dtype=dtype, data=data, **quantized)
    else:
        low = 0.5 if kind in ("DIV", "POW") else -4
        z = m.input(b, dtype, low=low, scale=scale, zero=zero)
        if kind == "POW":
            m.ranges[x] = (0.1, 3)
    y = m.activation(np.broadcast_shapes(a, b), dtype, scale=0.04 if same else 0.15)
    options = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions"}.get(kind)
    m.op(kind, [x, z], [y], options, **({"FusedActivationFunction": act} if options else {}))
    return m.case(y)


for kind, dtypes in {
    "ADD": "float32 int8 uint8 int16",
    "SUB": "float32 int8 uint8 int16",
    "MUL": "float32 int8 uint8 int16",
    "DIV": "float32",
    "MAXIMUM": "float32 int8 uint8 int16",
    "MINIMUM": "float32 int8 uint8 int16",
    "SQUARED_DIFFERENCE": "float32 int8",
    "POW": "float32",
    "FLOOR_DIV": "float32",
    "FLOOR_MOD": "float32",
}.items():
    for dtype in dtypes.split():
        for n, (a, b) in enumerate(SHAPES):
            act = (NONE, RELU, RELU6, NONE)[n] if kind in ("ADD", "SUB", "MUL", "DIV") else NONE
            constant = n == 1 and kind not in ("POW", "SQUARED_DIFFERENCE")
            add(f"{kind.lower()}_{dtype}_{n}", lambda m, args=(kind, dtype, a, b, act, constant): binary(m, *args))


def int_binary(m: Maker, kind: str, dtype: str) -> Case:
    x, z = m.input((2, 5), dtype, low=-20, high=20), m.input((5,), dtype, low=1, high=9)
    y = m.tensor((2, 5), dtype)
    options = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions"}.get(kind)
    m.op(kind, [x, z], [y], options, **({"FusedActivationFunction": 0} if options else {}))
    return m.case(y, steps=0)


for kind in ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "FLOOR_DIV", "FLOOR_MOD"):
    add(f"{kind.lower()}_int32", lambda m, kind=kind: int_binary(m, kind, "int32"))


def unary(
    m: Maker, kind: str, dtype: str, low: float, high: float, in_q: Any = None, out_q: Any = None, steps: int = 1, **fields: Any
) -> Case:
    options = fields.pop("options", None)
    x = m.input((1, 3, 4, 5), dtype, low=low, high=high, **dict(zip(("scale", "zero"), in_q or (), strict=False)))
    y = m.activation((1, 3, 4, 5), dtype, **dict(zip(("scale", "zero"), out_q or (), strict=False)))
    m.op(kind, [x], [y], options, **fields)
    return m.case(y, steps=steps)


for kind, low, high in [
    ("ABS", -4, 4),
    ("NEG", -4, 4),
    ("EXP", -3, 3),
    ("LOG", 0.1, 9),
    ("SQRT", 0, 9),
    ("RSQRT", 0.1, 9),
    ("SQUARE", -4, 4),
    ("SIN", -4, 4),
    ("COS", -4, 4),
    ("FLOOR", -4, 4),
    ("CEIL", -4, 4),
    ("ROUND", -4, 4),
    ("LOGISTIC", -6, 6),
    ("TANH", -4, 4),
    ("RELU", -4, 4),
    ("RELU6", -4, 9),
    ("RELU_N1_TO_1", -4, 4),
    ("ELU", -4, 4),
    ("HARD_SWISH", -6, 6),
    ("SIGN", -4, 4),
]:
    add(f"{kind.lower()}_float32", lambda m, args=(kind, "float32", low, high): unary(m, *args))
add("leaky_relu_float32", lambda m: unary(m, "LEAKY_RELU", "float32", -4, 4, options="LeakyReluOptions", Alpha=0.2))
add("gelu_float32", lambda m: unary(m, "GELU", "float32", -4, 4, options="GeluOptions", Approximate=False))
add("gelu_tanh_float32", lambda m: unary(m, "GELU", "float32", -4, 4, options="GeluOptions", Approximate=True))
for kind, in_q, out_q in [
    ("LOGISTIC", (0.05, 3), (1 / 256, -128)),
    ("TANH", (0.03, -5), (1 / 128, 0)),
    ("RELU", (0.05, 3), (0.04, -128)),
    ("RELU6", (0.05, -40), (6 / 255, -128)),
    ("RELU6", (0.05, -40), (0.05, -100)),
    ("RELU_N1_TO_1", (0.05, 3), (0.04, 7)),
    ("ELU", (0.03, 3), (0.02, -60)),
    ("HARD_SWISH", (0.06, 3), (0.04, -110)),
    ("ABS", (0.05, 3), (0.05, -128)),
    ("RSQRT", (0.05, -128), (0.03, -128)),
    ("EXP", (0.02, 3), (0.06, -128)),
    ("LOG", (0.05, -129 + 1), (0.03, -20)),
]:
    n = sum(k.startswith(f"{kind.lower()}_int8") for k in CASES)
    add(f"{kind.lower()}_int8_{n}", lambda m, args=(kind, "int8", 0, 0, in_q, out_q): unary(m, *args))
add(
    "leaky_relu_int8",
    lambda m: unary(m, "LEAKY_RELU", "int8", 0, 0, (0.05, 3), (0.04, -20), options="LeakyReluOptions", Alpha=0.3),
)
add("logistic_uint8", lambda m: unary(m, "LOGISTIC", "uint8", 0, 0, (0.05, 131), (1 / 256, 0)))
add("tanh_uint8", lambda m: unary(m, "TANH", "uint8", 0, 0, (0.03, 131), (1 / 128, 128)))
add("hard_swish_uint8", lambda m: unary(m, "HARD_SWISH", "uint8", 0, 0, (0.06, 131), (0.04, 20)))
# TFLite's 16-bit functions interpolate in tables, which costs several of 65536 steps; the export computes the function.
add("logistic_int16", lambda m: unary(m, "LOGISTIC", "int16", 0, 0, (1 / 4096, 0), (1 / 32768, 0), 6))
add("tanh_int16", lambda m: unary(m, "TANH", "int16", 0, 0, (1 / 4096, 0), (1 / 32768, 0), 12))


def prelu(m: Maker, dtype: str) -> Case:
    x = m.input((1, 4, 3, 5), dtype)
    if dtype == "float32":
        slope = m.tensor(data=m.rng.uniform(0, 1, (1, 1, 5)).astype(np.float32))
    else:
        slope = m.tensor(dtype=dtype, data=m.rng.integers(0, 127, (1, 1, 5)), scale=0.006, zero=2)
    y = m.activation((1, 4, 3, 5), dtype)
    m.op("PRELU", [x, slope], [y])
    return m.case(y)


for dtype in ("float32", "int8", "uint8"):
    add(f"prelu_{dtype}", lambda m, dtype=dtype: prelu(m, dtype))


def softmax(m: Maker, dtype: str, shape: Any, beta: float, log: bool = False) -> Case:
    x = m.input(shape, dtype, scale=0.1 if dtype != "int16" else 0.0005)
    out = {"int8": (1 / 256, -128), "uint8": (1 / 256, 0), "int16": (1 / 32768, 0)}.get(dtype, ())
    out = (16 / 256, 127) if log and dtype == "int8" else out
    y = m.activation(shape, dtype, **dict(zip(("scale", "zero"), out, strict=False)))
    m.op("LOG_SOFTMAX" if log else "SOFTMAX", [x], [y], None if log else "SoftmaxOptions", **({} if log else {"Beta": beta}))
    return m.case(y, steps=16 if dtype == "int16" else 1)  # 16 bits: a table, as above


for dtype in ("float32", "int8", "uint8", "int16"):
    add(f"softmax_{dtype}_0", lambda m, dtype=dtype: softmax(m, dtype, (3, 12), 1.0))
    if dtype != "int16":
        add(f"softmax_{dtype}_1", lambda m, dtype=dtype: softmax(m, dtype, (1, 2, 3, 5), 0.7))
add("log_softmax_float32", lambda m: softmax(m, "float32", (3, 12), 1.0, True))
add("log_softmax_int8", lambda m: softmax(m, "int8", (3, 12), 1.0, True))


def l2_norm(m: Maker, dtype: str) -> Case:
    x = m.input((2, 7), dtype, zero=0)
    y = m.activation((2, 7), dtype, scale=1 / 128, zero=0)
    m.op("L2_NORMALIZATION", [x], [y], "L2NormOptions", FusedActivationFunction=0)
    return m.case(y)


for dtype in ("float32", "int8"):
    add(f"l2_normalization_{dtype}", lambda m, dtype=dtype: l2_norm(m, dtype))


def compare(m: Maker, kind: str, dtype: str) -> Case:
    x, z = m.input((2, 3, 4), dtype, low=-3, high=3), m.input((4,), dtype, low=-3, high=3)
    y = m.tensor((2, 3, 4), "bool")
    m.op(kind, [x, z], [y])
    return m.case(y, steps=0)


for kind in ("EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"):
    for dtype in ("float32", "int32", "int8"):
        add(f"{kind.lower()}_{dtype}", lambda m, kind=kind, dtype=dtype: compare(m, kind, dtype))


def logical(m: Maker, kind: str) -> Case:
    inputs = [m.input((2, 3), "bool") for _ in range(1 if kind == "LOGICAL_NOT" else 2)]
    y = m.tensor((2, 3), "bool")
    m.op(kind, inputs, [y])
    return m.case(y, steps=0)


for kind in ("LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT"):
    add(kind.lower(), lambda m, kind=kind: logical(m, kind))


def select(m: Maker, kind: str, dtype: str, condition: Any) -> Case:
    c, a, b = m.input(condition, "bool"), m.input((2, 3, 4), dtype), m.input((2, 3, 4), dtype)
    y = m.activation((2, 3, 4), dtype)
    m.op(kind, [c, a, b], [y])
    return m.case(y, steps=0)


for kind, shape in (("SELECT", (2, 3, 4)), ("SELECT", (2,)), ("SELECT_V2", (3, 1))):
    for dtype in ("float32", "int8"):
        add(f"{kind.lower()}_{len(shape)}_{dtype}", lambda m, a=(kind, dtype, shape): select(m, *a))


def cast(m: Maker, a: str, b: str) -> Case:
    x = m.input((2, 5), a, scale=0)
    y = m.tensor((2, 5), b)
    m.op("CAST", [x], [y], "CastOptions", InDataType=0, OutDataType=0)
    return m.case(y, steps=0)


for a, b in (
    ("float32", "int32"),
    ("int32", "float32"),
    ("int8", "float32"),
    ("bool", "int32"),
    ("int32", "int64"),
    ("float32", "bool"),
):
    add(f"cast_{a}_{b}", lambda m, a=a, b=b: cast(m, a, b))


def quantize(m: Maker, a: str, b: str, x_q: Any, y_q: Any) -> Case:
    x = m.input((1, 3, 4, 5), a, **dict(zip(("scale", "zero"), x_q, strict=False)))
    y = m.activation((1, 3, 4, 5), b, **dict(zip(("scale", "zero"), y_q, strict=False)))
    m.op("DEQUANTIZE" if b == "float32" else "QUANTIZE", [x], [y])
    return m.case(y)


for a, b, x_q, y_q in [
    ("float32", "int8", (), (0.04, -3)),
    ("float32", "uint8", (), (0.04, 100)),
    ("float32", "int16", (), (0.0002, 0)),
    ("int8", "uint8", (0.04, -3), (0.04, 125)),
    ("int8", "int8", (0.04, -3), (0.07, 12)),
    ("int8", "int16", (0.04, -3), (0.0002, 0)),
    ("int16", "int8", (0.0002, 0), (0.05, 3)),
    ("int8", "float32", (0.04, -3), ()),
    ("uint8", "float32", (0.04, 131), ()),
    ("int16", "float32", (0.0002, 0), ()),
]:
    add(f"quantize_{a}_{b}", lambda m, args=(a, b, x_q, y_q): quantize(m, *args))


# --- moving data ----------------------------------------------------------------------------------

MOVED = ("float32", "int8", "uint8", "int16", "int32")


def move(
    m: Maker, kind: str, dtype: str, shape: Any, out: Any, more: Any = (), options: str | None = None, first: Any = (), **f: Any
) -> Case:
    """One value in, one out; `first` and `more` are integer constants before and after it."""
    x = m.input(shape, dtype)
    y = m.activation(out, dtype)
    before, after = [m.ints(v) for v in first], [m.ints(v) for v in more]
    m.op(kind, [*before, x, *after], [y], options, **f)
    return m.case(y, steps=0)


def moves(name: str, kind: str, *args: Any, dtypes: Any = MOVED, **f: Any) -> None:
    for dtype in dtypes:
        add(f"{name}_{dtype}", lambda m, dtype=dtype: move(m, kind, dtype, *args, **f))


moves("reshape", "RESHAPE", (2, 3, 4), (4, 6), [[4, -1]])
moves("reshape_options", "RESHAPE", (2, 3, 4), (4, 6), [], "ReshapeOptions", NewShape=[4, 6], dtypes=["float32"])
moves("squeeze", "SQUEEZE", (1, 3, 1, 4), (3, 1, 4), [], "SqueezeOptions", SqueezeDims=[0])
moves("expand_dims", "EXPAND_DIMS", (3, 4), (3, 1, 4), [[1]])
moves("transpose", "TRANSPOSE", (2, 3, 4, 5), (2, 5, 3, 4), [[0, 3, 1, 2]])
moves(
    "strided_slice", "STRIDED_SLICE", (4, 6, 5), (2, 3, 4), [[1, 0, -1], [4, 9, 0], [2, 2, -1]], "StridedSliceOptions", EndMask=2
)
moves(
    "strided_slice_shrink",
    "STRIDED_SLICE",
    (4, 6, 5),
    (6,),
    [[-1, 0, 2], [0, 6, 3], [1, 1, 1]],
    "StridedSliceOptions",
    ShrinkAxisMask=5,
)
moves(
    "strided_slice_masks",
    "STRIDED_SLICE",
    (4, 6),
    (3, 6),
    [[1, 3], [4, 4], [1, 1]],
    "StridedSliceOptions",
    BeginMask=2,
    EndMask=2,
)
moves("slice", "SLICE", (4, 6, 5), (2, 6, 3), [[1, 0, 2], [2, -1, 3]])
moves("gather", "GATHER", (4, 6, 3), (4, 2, 3), [[5, 0]], "GatherOptions", Axis=1)
moves("pad", "PAD", (1, 3, 4, 2), (1, 6, 5, 2), [[[0, 0], [1, 2], [0, 1], [0, 0]]], dtypes=("float32", "int8", "uint8", "int16"))
moves(
    "mirror_reflect",
    "MIRROR_PAD",
    (3, 4),
    (6, 5),
    [[[1, 2], [0, 1]]],
    "MirrorPadOptions",
    Mode=0,
    dtypes=("float32", "int8", "int32"),
)
moves(
    "mirror_symmetric",
    "MIRROR_PAD",
    (3, 4),
    (8, 5),
    [[[3, 2], [0, 1]]],
    "MirrorPadOptions",
    Mode=1,
    dtypes=("float32", "int8", "int32"),
)
moves("tile", "TILE", (2, 3), (4, 9), [[2, 3]], dtypes=("float32", "int8", "int32"))
moves("broadcast_to", "BROADCAST_TO", (3, 1), (2, 3, 4), [[2, 3, 4]], dtypes=("float32", "int8", "int32"))
moves("reverse", "REVERSE_V2", (2, 3, 4), (2, 3, 4), [[1]], dtypes=("float32", "int32"))
moves(
    "space_to_depth",
    "SPACE_TO_DEPTH",
    (1, 4, 6, 3),
    (1, 2, 3, 12),
    [],
    "SpaceToDepthOptions",
    BlockSize=2,
    dtypes=("float32", "int8", "uint8"),
)
moves(
    "depth_to_space",
    "DEPTH_TO_SPACE",
    (1, 2, 3, 12),
    (1, 4, 6, 3),
    [],
    "DepthToSpaceOptions",
    BlockSize=2,
    dtypes=("float32", "int8", "uint8"),
)
moves(
    "space_to_batch",
    "SPACE_TO_BATCH_ND",
    (1, 5, 6, 3),
    (6, 3, 2, 3),
    [[2, 3], [[0, 1], [0, 0]]],
    dtypes=("float32", "int8", "uint8"),
)
moves(
    "batch_to_space",
    "BATCH_TO_SPACE_ND",
    (6, 3, 2, 3),
    (1, 5, 5, 3),
    [[2, 3], [[0, 1], [1, 0]]],
    dtypes=("float32", "int8", "uint8"),
)
moves(
    "nearest",
    "RESIZE_NEAREST_NEIGHBOR",
    (1, 3, 4, 2),
    (1, 7, 9, 2),
    [[7, 9]],
    "ResizeNearestNeighborOptions",
    dtypes=("float32", "int8", "uint8"),
)
moves(
    "nearest_half",
    "RESIZE_NEAREST_NEIGHBOR",
    (1, 3, 4, 2),
    (1, 8, 6, 2),
    [[8, 6]],
    "ResizeNearestNeighborOptions",
    HalfPixelCenters=True,
    dtypes=("float32", "int8"),
)
moves(
    "nearest_corners",
    "RESIZE_NEAREST_NEIGHBOR",
    (1, 3, 4, 2),
    (1, 7, 9, 2),
    [[7, 9]],
    "ResizeNearestNeighborOptions",
    AlignCorners=True,
    dtypes=("float32", "int8"),
)


def bilinear(m: Maker, dtype: str, out: Any, **fields: Any) -> Case:
    x = m.input((1, 4, 5, 3), dtype)
    y = m.activation((1, *out, 3), dtype)
    m.op("RESIZE_BILINEAR", [x, m.ints(list(out))], [y], "ResizeBilinearOptions", **fields)
    return m.case(y, steps=64 if dtype == "int16" else 1)  # TFLite's weights have 10 bits, of 16-bit values up to 64 steps


for dtype in ("float32", "int8", "uint8", "int16"):
    add(f"bilinear_{dtype}", lambda m, dtype=dtype: bilinear(m, dtype, (7, 9)))
    add(f"bilinear_half_{dtype}", lambda m, dtype=dtype: bilinear(m, dtype, (8, 3), HalfPixelCenters=True))
    add(f"bilinear_corners_{dtype}", lambda m, dtype=dtype: bilinear(m, dtype, (7, 9), AlignCorners=True))


def concat(m: Maker, dtype: str, axis: int, scales: Any) -> Case:
    shapes = [(1, 2, 3, 4), (1, 2, 3, 4)]
    inputs = [m.input(s, dtype, scale=scale) for s, scale in zip(shapes, scales, strict=True)]
    out = list(shapes[0])
    out[axis] *= 2
    y = m.activation(out, dtype)
    m.op("CONCATENATION", inputs, [y], "ConcatenationOptions", Axis=axis, FusedActivationFunction=0)
    return m.case(y)


for dtype in MOVED:
    add(f"concat_{dtype}", lambda m, dtype=dtype: concat(m, dtype, 3, (0.05, 0.05)))
    add(f"concat_negative_{dtype}", lambda m, dtype=dtype: concat(m, dtype, -2, (0.05, 0.05)))
add("concat_uint8_scales", lambda m: concat(m, "uint8", 3, (0.05, 0.03)))


def pieces(m: Maker, kind: str, dtype: str) -> Case:
    if kind == "PACK":
        xs = [m.input((2, 3), dtype) for _ in range(3)]
        y = m.activation((2, 3, 3), dtype)
        m.op("PACK", xs, [y], "PackOptions", ValuesCount=3, Axis=1)
        return m.case(y, steps=0)
    x = m.input((2, 6, 4), dtype)
    if kind == "UNPACK":
        ys = [m.activation((6, 4), dtype) for _ in range(2)]
        m.op("UNPACK", [x], ys, "UnpackOptions", Num=2, Axis=0)
    elif kind == "SPLIT":
        ys = [m.activation((2, 2, 4), dtype) for _ in range(3)]
        m.op("SPLIT", [m.ints(1), x], ys, "SplitOptions", NumSplits=3)
    else:
        ys = [m.activation((2, n, 4), dtype) for n in (1, 3, 2)]
        m.op("SPLIT_V", [x, m.ints([1, -1, 2]), m.ints(1)], ys, "SplitVOptions", NumSplits=3)
    return m.case(*ys, steps=0)


for kind in ("PACK", "UNPACK", "SPLIT", "SPLIT_V"):
    for dtype in ("float32", "int8", "int16", "int32"):
        add(f"{kind.lower()}_{dtype}", lambda m, kind=kind, dtype=dtype: pieces(m, kind, dtype))


def padv2(m: Maker, dtype: str) -> Case:
    x = m.input((1, 3, 4, 2), dtype)
    fill = m.activation((), dtype, data=np.array(2, dtype))
    y = m.activation((1, 4, 5, 2), dtype)
    m.op("PADV2", [x, m.ints([[0, 0], [1, 0], [0, 1], [0, 0]]), fill], [y])
    return m.case(y, steps=0)


for dtype in ("float32", "int8", "uint8", "int32"):
    add(f"padv2_{dtype}", lambda m, dtype=dtype: padv2(m, dtype))


def gather_batch(m: Maker, axis: int, batch: int, out: Any) -> Case:
    x = m.input((2, 3, 5, 4), "float32")
    i = m.input((2, 3), "int32", low=0, high=3)
    y = m.tensor(out)
    m.op("GATHER", [x, i], [y], "GatherOptions", Axis=axis, BatchDims=batch)
    return m.case(y, steps=0)


add("gather_batch_1", lambda m: gather_batch(m, 1, 1, (2, 3, 5, 4)))
add("gather_batch_2", lambda m: gather_batch(m, 2, 1, (2, 3, 3, 4)))


@case("gather_nd")
def gather_nd(rng: np.random.Generator) -> Case:
    m = Maker(rng)
    x, i = m.input((3, 3, 4)), m.input((5, 2), "int32", low=0, high=3)
    y = m.tensor((5, 4))
    m.op("GATHER_ND", [x, i], [y])
    return m.case(y)


@case("shape_and_fill")
def shape_fill(rng: np.random.Generator) -> Case:
    """SHAPE of a tensor, part of it cut out, FILL to that size."""
    m = Maker(rng)
    x, v = m.input((2, 3, 4)), m.input(())
    s, part, y = m.tensor((3,), "int32"), m.tensor((2,), "int32"), m.tensor((2, 3))
    m.op("SHAPE", [x], [s], "ShapeOptions", OutType=2)
    m.op("STRIDED_SLICE", [s, m.ints([0]), m.ints([2]), m.ints([1])], [part], "StridedSliceOptions")
    m.op("FILL", [part, v], [y])
    return m.case(y, s)


def one_hot(m: Maker) -> Case:
    i = m.input((2, 3), "int32", low=0, high=4)
    y = m.tensor((2, 3, 4))
    m.op("ONE_HOT", [i, m.ints(4), m.tensor(data=np.float32(2)), m.tensor(data=np.float32(-1))], [y], "OneHotOptions", Axis=-1)
    return m.case(y)


add("one_hot", one_hot)


def topk(m: Maker) -> Case:
    x = m.input((3, 9))
    v, i = m.tensor((3, 4)), m.tensor((3, 4), "int32")
    m.op("TOPK_V2", [x, m.ints(4)], [v, i])
    return m.case(v, i)


add("topk", topk)


# --- reductions -----------------------------------------------------------------------------------


def reduce(m: Maker, kind: str, dtype: str, axes: Any, keep: bool, same: bool) -> Case:
    shape = (1, 4, 5, 3)
    x = m.input(shape, dtype)
    out = tuple(1 if i in axes else d for i, d in enumerate(shape) if keep or i not in axes)
    scale = 0.05 if same else {"SUM": 0.4}.get(kind, 0.03)
    y = m.activation(out, dtype, scale=scale)
    m.op(kind, [x, m.ints(list(axes))], [y], "ReducerOptions", KeepDims=keep)
    return m.case(y)


for kind, dtypes in {
    "MEAN": "float32 int8 uint8 int16",
    "SUM": "float32 int8",
    "REDUCE_MAX": "float32 int8 uint8",
    "REDUCE_MIN": "float32 int8",
    "REDUCE_PROD": "float32",
}.items():
    for dtype in dtypes.split():
        for n, (axes, keep) in enumerate([((1, 2), False), ((1, 2), True), ((3,), False), ((0, 1, 2, 3), True)]):
            same = kind[:3] in ("RED", "MEA") and (n % 2 == 0 or kind[0] == "R")
            add(f"{kind.lower()}_{dtype}_{n}", lambda m, a=(kind, dtype, axes, keep, same): reduce(m, *a))


def arg(m: Maker, kind: str, dtype: str, axis: int) -> Case:
    x = m.input((1, 4, 5, 3), dtype)
    shape = [1, 4, 5, 3]
    del shape[axis]
    y = m.tensor(shape, "int32")
    m.op(kind, [x, m.ints(axis)], [y], "ArgMaxOptions" if kind == "ARG_MAX" else "ArgMinOptions", OutputType=2)
    return m.case(y, steps=0)


for kind in ("ARG_MAX", "ARG_MIN"):
    for dtype in ("float32", "int8", "uint8"):
        add(f"{kind.lower()}_{dtype}", lambda m, kind=kind, dtype=dtype: arg(m, kind, dtype, 3 if kind == "ARG_MAX" else 1))


def cumsum(m: Maker, exclusive: bool, reverse: bool) -> Case:
    x = m.input((2, 5, 3))
    y = m.tensor((2, 5, 3))
    m.op("CUMSUM", [x, m.ints(1)], [y], "CumsumOptions", Exclusive=exclusive, Reverse=reverse)
    return m.case(y)


for e in (False, True):
    for r in (False, True):
        add(f"cumsum_{e:d}{r:d}", lambda m, e=e, r=r: cumsum(m, e, r))


# --- state ----------------------------------------------------------------------------------------


def svdf(m: Maker, integer: bool, rank: int) -> Case:
    inputs, units, memory = 6, 4, 5
    filters = units * rank
    x = m.input((1, inputs), "int8" if integer else "float32", scale=0.03)
    if integer:
        w = m.tensor(dtype="int8", data=m.rng.integers(-127, 128, (filters, inputs)), scale=0.01)
        t = m.tensor(dtype="int16", data=m.rng.integers(-32767, 32768, (filters, memory)), scale=1 / 40000)
        b = m.tensor(dtype="int32", data=m.rng.integers(-200000, 200000, units), scale=0.0006 / 40000)
        s = m.tensor((1, filters * memory), "int16", scale=0.0006, variable=True)
    else:
        w, t = (m.tensor(data=m.rng.normal(0, 0.5, shape).astype(np.float32)) for shape in ((filters, inputs), (filters, memory)))
        b = m.tensor(data=m.rng.normal(0, 0.5, units).astype(np.float32))
        s = m.tensor((1, filters * memory), variable=True)
    y = m.activation((1, units), "int8" if integer else "float32", scale=0.03, zero=-128)
    m.op("SVDF", [x, w, t, b, s], [y], "SVDFOptions", Rank=rank, FusedActivationFunction=RELU)
    return m.case(y, runs=8)


for integer in (False, True):
    for r in (1, 2):
        add(f"svdf_{'int8' if integer else 'float32'}_{r}", lambda m, a=(integer, r): svdf(m, *a))


def lstm(
    m: Maker,
    steps: int,
    time_major: bool,
    projection: int = 0,
    coupled: bool = False,
    norm: bool = False,
    clip: float = 0.0,
    peephole: bool = False,
) -> Case:
    batch, inputs, units = 2, 5, 4
    out = projection or units
    x = m.input((steps, batch, inputs) if time_major else (batch, steps, inputs))

    def w(*shape: int) -> int:
        return m.tensor(data=m.rng.normal(0, 0.5, shape).astype(np.float32))

    gates = [-1 if coupled and g == 0 else g for g in range(4)]
    weights = [-1 if g < 0 else w(units, inputs) for g in gates] + [-1 if g < 0 else w(units, out) for g in gates]
    peepholes = [w(units) if peephole and not (coupled and g == 0) else -1 for g in range(3)]
    biases = [-1 if g < 0 else w(units) for g in gates]
    project = [w(projection, units), w(projection)] if projection else [-1, -1]
    states = [m.tensor((batch, out), variable=True), m.tensor((batch, units), variable=True)]
    norms = [-1 if g < 0 else w(units) for g in gates] if norm else []
    y = m.tensor((steps, batch, out) if time_major else (batch, steps, out))
    fields = {"FusedActivationFunction": TANH, "CellClip": clip, "TimeMajor": time_major}
    m.op(
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        [x, *weights, *peepholes, *biases, *project, *states, *norms],
        [y],
        "UnidirectionalSequenceLSTMOptions",
        **fields,
    )
    return m.case(y, runs=3)


for name, options in {
    "plain": (6, True),
    "batch_major": (6, False),
    "one_step": (1, True),
    "peephole": (4, True, 0, False, False, 0.0, True),
    "projection": (4, False, 3),
    "coupled": (4, True, 0, True),
    "norm": (4, True, 0, False, True),
    "clip": (4, True, 0, False, False, 0.3),
}.items():
    add(f"lstm_float32_{name}", lambda m, o=options: lstm(m, *o))


def lstm_int8(m: Maker, steps: int, time_major: bool) -> Case:
    batch, inputs, units = 1, 6, 5
    x = m.input((steps, batch, inputs) if time_major else (batch, steps, inputs), "int8", scale=0.02, zero=4)

    def w(*shape: int) -> int:
        return m.tensor(dtype="int8", data=m.rng.integers(-127, 128, shape), scale=0.006)

    weights = [w(units, inputs) for _ in range(4)] + [w(units, units) for _ in range(4)]
    biases = [m.tensor(dtype="int32", data=m.rng.integers(-4000, 4000, units), scale=0.02 * 0.006) for _ in range(4)]
    h = m.tensor((batch, units), "int8", scale=1 / 128, zero=3, variable=True)
    c = m.tensor((batch, units), "int16", scale=2.0**-11, variable=True)
    y = m.tensor((steps, batch, units) if time_major else (batch, steps, units), "int8", scale=1 / 128, zero=3)
    middle = [m.tensor((), "int16", scale=2.0**-12) for _ in range(4)] + [m.tensor((), "int8", scale=1 / 128, zero=3)]
    fields = {"FusedActivationFunction": TANH, "TimeMajor": time_major}
    inputs_all = [x, *weights, -1, -1, -1, *biases, -1, -1, h, c, -1, -1, -1, -1]
    m.op("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs_all, [y], "UnidirectionalSequenceLSTMOptions", intermediates=middle, **fields)
    return m.case(y, runs=4)


add("lstm_int8_sequence", lambda m: lstm_int8(m, 6, True))
add("lstm_int8_batch_major", lambda m: lstm_int8(m, 5, False))
add("lstm_int8_one_step", lambda m: lstm_int8(m, 1, True))


@case("variables")
def variables(rng: np.random.Generator) -> Case:
    """A delay line: CALL_ONCE fills it with a pattern, each run shifts it."""
    m = Maker(rng)
    x = m.input((1, 2, 3), "int8")
    handle = m.tensor((), "resource", name="handle")
    old, both, new = m.activation((1, 4, 3), "int8"), m.activation((1, 6, 3), "int8"), m.activation((1, 4, 3), "int8")
    m.op("CALL_ONCE", [], [], "CallOnceOptions", InitSubgraphIndex=1)
    m.op("VAR_HANDLE", [], [handle], "VarHandleOptions", SharedName="line")
    m.op("READ_VARIABLE", [handle], [old], "ReadVariableOptions")
    m.op("CONCATENATION", [old, x], [both], "ConcatenationOptions", Axis=1)
    m.op("STRIDED_SLICE", [both, m.ints([0, 2, 0]), m.ints([1, 6, 3]), m.ints([1, 1, 1])], [new], "StridedSliceOptions")
    m.op("ASSIGN_VARIABLE", [handle, new], [], "AssignVariableOptions")
    m.io(m.fed, [both])
    feeds = [{"t0": m.value(x)} for _ in range(4)]
    m.graph()
    handle, pattern = m.tensor((), "resource"), m.activation((), "int8", data=m.rng.integers(-128, 128, (1, 4, 3)))
    m.op("VAR_HANDLE", [], [handle], "VarHandleOptions", SharedName="line")
    m.op("ASSIGN_VARIABLE", [handle, pattern], [], "AssignVariableOptions")
    return Case(m.bytes(), feeds, steps=0)


@case("while")
def while_(rng: np.random.Generator) -> Case:
    """Doubles x until the counter is 5; the weights of the body are its own constants."""
    m = Maker(rng)
    x, n = m.input((2, 3)), m.input((), "int32", low=0, high=7)
    a, b = m.tensor((2, 3)), m.tensor((), "int32")
    m.op("WHILE", [x, n], [a, b], "WhileOptions", CondSubgraphIndex=1, BodySubgraphIndex=2)
    m.io(m.fed, [a, b])
    feeds = [{"t0": m.value(x), "t1": m.value(n)} for _ in range(4)]
    m.graph()
    x, n, y = m.tensor((2, 3)), m.tensor((), "int32"), m.tensor((), "bool")
    m.op("LESS", [n, m.ints(5)], [y])
    m.io([x, n], [y])
    m.graph()
    x, n, y, k = m.tensor((2, 3)), m.tensor((), "int32"), m.tensor((2, 3)), m.tensor((), "int32")
    m.op("FULLY_CONNECTED", [x, m.weights((3, 3), "float32"), -1], [y], "FullyConnectedOptions", FusedActivationFunction=RELU)
    m.op("ADD", [n, m.ints(1)], [k], "AddOptions", FusedActivationFunction=0)
    m.io([x, n], [y, k])
    return Case(m.bytes(), feeds)


@case("if")
def if_(rng: np.random.Generator) -> Case:
    """x + x, or x itself; int8."""
    m = Maker(rng)
    c, x, y = m.input((), "bool"), m.input((2, 3), "int8"), m.activation((2, 3), "int8")
    m.op("IF", [c, x], [y], "IfOptions", ThenSubgraphIndex=1, ElseSubgraphIndex=2)
    m.io(m.fed, [y])
    feeds = [{"t0": np.array(v), "t1": m.value(x)} for v in (True, False)]
    m.graph()
    x, y = m.activation((2, 3), "int8"), m.activation((2, 3), "int8")
    m.op("ADD", [x, x], [y], "AddOptions", FusedActivationFunction=0)
    m.io([x], [y])
    m.graph()
    x = m.activation((2, 3), "int8")
    m.io([x], [x])
    return Case(m.bytes(), feeds)


def update_slice(m: Maker, dtype: str) -> Case:
    x, u, at = m.input((4, 5), dtype), m.input((2, 3), dtype), m.input((2,), "int32", low=-1, high=5)
    y = m.activation((4, 5), dtype)
    m.op("DYNAMIC_UPDATE_SLICE", [x, u, at], [y])
    return m.case(y, runs=6, steps=0)


for dtype in ("float32", "int8"):
    add(f"dynamic_update_slice_{dtype}", lambda m, dtype=dtype: update_slice(m, dtype))


@case("scatter_nd")
def scatter_nd(rng: np.random.Generator) -> Case:
    m = Maker(rng)
    at, u, y = m.input((3, 1), "int32", low=0, high=5), m.input((3, 4)), m.tensor((5, 4))
    m.op("SCATTER_ND", [at, u, m.ints([5, 4])], [y])
    return m.case(y)


@case("broadcast_args")
def broadcast_args(rng: np.random.Generator) -> Case:
    m = Maker(rng)
    x, y, z = m.input((3, 1)), m.tensor((3,), "int32"), m.tensor((2, 3, 4))
    m.op("BROADCAST_ARGS", [m.ints([3, 1]), m.ints([2, 1, 4])], [y])
    m.op("BROADCAST_TO", [x, y], [z], "BroadcastToOptions")
    return m.case(y, z)
