"""Single operators, ours beside onnxruntime, one thread: what a step costs that is neither a product nor a convolution.

    python tests/bench/operators.py [--only transpose] [--rounds 60] [--below 1.0]

CPU time of the calling thread, best of many short rounds, both engines in turn in one process; outputs lie in memory that was
touched before (onnxruntime: bound once; ours: malloc is told not to give memory back).  ratio = theirs / ours.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

Case = tuple[str, Any, dict[str, np.ndarray]]
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 31), "MALLOC_TOP_PAD_": str(64 << 20)}
RNG = np.random.default_rng(7)


def f32(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def i64(*shape: int) -> np.ndarray:
    return RNG.integers(-1000, 1000, shape)


def flag(*shape: int) -> np.ndarray:
    return RNG.random(shape) < 0.5


def case(
    name: str, op: str, inputs: Sequence[np.ndarray], constants: Sequence[np.ndarray] = (), outputs: int = 1, **attrs: Any
) -> Case:
    """A model of one node whose first operands are inputs and whose last ones are constants."""
    from onnx import helper, numpy_helper

    opset = attrs.pop("opset", 21)
    domain = attrs.pop("domain", "")
    feeds = {f"x{i}": x for i, x in enumerate(inputs)}
    weights = [numpy_helper.from_array(c, f"c{i}") for i, c in enumerate(constants)]
    outs = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, [*feeds, *(w.name for w in weights)], outs, domain=domain, **attrs)
    infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in feeds.items()]
    graph = helper.make_graph([node], "g", infos, [helper.make_empty_tensor_value_info(n) for n in outs], weights)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return name, helper.make_model(graph, opset_imports=opsets, ir_version=10), feeds


def transposes() -> Iterator[Case]:
    for shape, perm in [
        ((512, 768), (1, 0)),
        ((1000, 100), (1, 0)),
        ((8, 512, 64), (0, 2, 1)),
        ((1, 128, 12, 64), (0, 2, 1, 3)),
        ((1, 12, 128, 64), (0, 2, 3, 1)),
        ((1, 64, 56, 56), (0, 2, 3, 1)),
        ((1, 56, 56, 64), (0, 3, 1, 2)),
        ((64, 32, 3, 3), (2, 3, 1, 0)),
        ((4, 3, 224, 224), (0, 2, 3, 1)),
        ((128, 8, 96), (1, 0, 2)),
        ((1, 224, 224, 3), (0, 3, 1, 2)),
    ]:
        yield case(f"transpose {shape} {perm}", "Transpose", [f32(*shape)], perm=perm)
    for dtype in (np.uint8, np.int64, np.float16):
        yield case(f"transpose {dtype.__name__} (512, 768)", "Transpose", [f32(512, 768).astype(dtype)], perm=(1, 0))
        yield case(
            f"transpose {dtype.__name__} (1, 56, 56, 64) 0312", "Transpose", [f32(1, 56, 56, 64).astype(dtype)], perm=(0, 3, 1, 2)
        )


BROADCASTS = {
    "same": ((256, 1024), (256, 1024)),
    "scalar": ((256, 1024), ()),
    "row": ((256, 1024), (1024,)),
    "column": ((256, 1024), (256, 1)),
    "channels": ((8, 64, 28, 28), (64, 1, 1)),
    "outer": ((512, 1), (1, 512)),
    "scalar left": ((), (256, 1024)),
    "column left": ((256, 1), (256, 1024)),
    "row left": ((1024,), (256, 1024)),
    "N1C": ((64, 32, 96), (64, 1, 96)),
    "short rows": ((20000, 7), (7,)),
    "small": ((16, 64), (16, 64)),
}


def binaries() -> Iterator[Case]:
    for op in ("Add", "Sub", "Mul", "Div"):
        for label, (a, b) in BROADCASTS.items():
            yield case(f"{op} {label}", op, [f32(*a), f32(*b)])
    for op in ("Max", "Min", "Pow", "Equal", "Less", "GreaterOrEqual", "PRelu"):
        for label in ("same", "scalar", "row", "column"):
            a, b = BROADCASTS[label]
            x = np.abs(f32(*a)) if op == "Pow" else f32(*a)
            yield case(f"{op} {label}", op, [x, f32(*b)], opset=17 if op in ("Less", "GreaterOrEqual", "Equal") else 21)
    yield case("Pow 2", "Pow", [f32(256, 1024)], [np.array(2, np.float32)])
    yield case("Pow 3", "Pow", [f32(256, 1024)], [np.array(3, np.float32)])
    yield case("Pow 0.5", "Pow", [np.abs(f32(256, 1024))], [np.array(0.5, np.float32)])
    yield case("Mod float", "Mod", [f32(256, 1024), f32(256, 1024)], fmod=1)
    for op in ("Add", "Mul", "Div", "Equal", "Less", "Max", "Mod"):
        for label in ("same", "scalar", "row"):
            a, b = BROADCASTS[label]
            yield case(f"int64 {op} {label}", op, [i64(*a), np.abs(i64(*b)) + 1])
    for op in ("Add", "Mul", "Less"):
        yield case(f"int32 {op} same", op, [i64(256, 1024).astype(np.int32), i64(256, 1024).astype(np.int32)])
        yield case(f"double {op} same", op, [f32(256, 1024).astype(np.float64), f32(256, 1024).astype(np.float64)])
    for op in ("And", "Or", "Xor"):
        for label in ("same", "row"):
            a, b = BROADCASTS[label]
            yield case(f"{op} {label}", op, [flag(*a), flag(*b)])
    yield case("Not", "Not", [flag(256, 1024)])


def unaries() -> Iterator[Case]:
    for op in (
        "Relu",
        "Sigmoid",
        "Tanh",
        "Erf",
        "Exp",
        "Log",
        "Sqrt",
        "Neg",
        "Abs",
        "Floor",
        "Ceil",
        "Round",
        "Sign",
        "Reciprocal",
        "Softplus",
        "Elu",
        "Gelu",
        "LeakyRelu",
        "HardSigmoid",
        "HardSwish",
        "Sin",
        "Cos",
        "Tan",
        "Atan",
        "IsNaN",
        "IsInf",
        "Softsign",
        "Selu",
        "ThresholdedRelu",
        "Mish",
        "Celu",
    ):
        x = f32(256, 1024)
        yield case(op, op, [np.abs(x) + 0.1 if op in ("Log", "Sqrt") else x])
    yield case("Gelu tanh", "Gelu", [f32(256, 1024)], approximate="tanh")
    yield case("QuickGelu", "QuickGelu", [f32(256, 1024)], domain="com.microsoft", alpha=1.702)
    yield case("FastGelu", "FastGelu", [f32(256, 1024)], domain="com.microsoft")
    yield case("Clip", "Clip", [f32(256, 1024)], [np.array(-1, np.float32), np.array(1, np.float32)])
    for op in ("Abs", "Neg", "Sign"):
        yield case(f"int64 {op}", op, [i64(256, 1024)])


def reductions() -> Iterator[Case]:
    for op in (
        "ReduceSum",
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceL1",
        "ReduceLogSumExp",
    ):
        for label, shape, axes in (
            ("last", (256, 1024), [1]),
            ("first", (256, 1024), [0]),
            ("middle", (16, 128, 96), [1]),
            ("all", (256, 1024), [0, 1]),
            ("last two", (8, 64, 28, 28), [2, 3]),
            ("short", (8192, 12), [1]),
        ):
            yield case(f"{op} {label}", op, [f32(*shape)], [np.array(axes)])
    yield case("int64 ReduceSum last", "ReduceSum", [i64(256, 1024)], [np.array([1])])
    yield case("int32 ReduceMax last", "ReduceMax", [i64(256, 1024).astype(np.int32)], [np.array([1])])
    for axis, shape in ((1, (256, 1024)), (0, (256, 1024)), (1, (16, 128, 96)), (1, (8192, 10))):
        yield case(f"ArgMax {shape} {axis}", "ArgMax", [f32(*shape)], axis=axis)
    yield case("CumSum last", "CumSum", [f32(256, 1024)], [np.array(1)])
    yield case("CumSum first", "CumSum", [f32(256, 1024)], [np.array(0)])
    yield case("int64 CumSum", "CumSum", [i64(8, 512)], [np.array(1)])


def softmaxes() -> Iterator[Case]:
    for op in ("Softmax", "LogSoftmax"):
        for axis, shape in (
            (-1, (256, 1024)),
            (-1, (1536, 128)),
            (-1, (8192, 10)),
            (0, (256, 1024)),
            (1, (8, 21, 1024)),
            (1, (16, 128, 96)),
        ):
            yield case(f"{op} {shape} {axis}", op, [f32(*shape)], axis=axis)


def selections() -> Iterator[Case]:
    patterns: dict[str, list[tuple[int, ...]]] = {
        "same": [(256, 1024)] * 3,
        "scalar": [(256, 1024), (256, 1024), ()],
        "mask": [(1, 1, 128, 128), (8, 12, 128, 128), ()],
        "row": [(1024,), (256, 1024), (256, 1024)],
        "column": [(256, 1), (256, 1024), (256, 1024)],
    }
    for label, shapes in patterns.items():
        yield case(f"Where {label}", "Where", [flag(*shapes[0]), f32(*shapes[1]), f32(*shapes[2])])
    yield case("Where int64", "Where", [flag(256, 1024), i64(256, 1024), i64(256, 1024)])
    for a, b in (
        (np.float32, np.int64),
        (np.int64, np.float32),
        (np.bool_, np.float32),
        (np.float32, np.bool_),
        (np.int32, np.int64),
        (np.int64, np.int32),
        (np.float32, np.float16),
        (np.float16, np.float32),
        (np.uint8, np.float32),
        (np.float32, np.uint8),
        (np.int64, np.bool_),
        (np.bool_, np.int64),
        (np.float32, np.float64),
        (np.int32, np.float32),
        (np.float32, np.int32),
    ):
        from onnx import helper

        yield case(
            f"Cast {a.__name__} {b.__name__}",
            "Cast",
            [np.abs(f32(256, 1024) * 50).astype(a)],
            to=helper.np_dtype_to_tensor_dtype(np.dtype(b)),
        )


def movers() -> Iterator[Case]:
    yield case("Concat last", "Concat", [f32(256, 512), f32(256, 512)], axis=1)
    yield case("Concat last short", "Concat", [f32(20000, 4), f32(20000, 4)], axis=1)
    yield case("Concat channels", "Concat", [f32(4, 32, 28, 28), f32(4, 32, 28, 28)], axis=1)
    yield case("Slice half", "Slice", [f32(256, 1024)], [np.array([512]), np.array([1024]), np.array([1])])
    yield case("Slice step 2", "Slice", [f32(256, 1024)], [np.array([0]), np.array([1024]), np.array([1]), np.array([2])])
    yield case("Gather rows", "Gather", [f32(4096, 256), RNG.integers(0, 4096, (512,))], axis=0)
    yield case("Gather columns", "Gather", [f32(256, 1024), RNG.integers(0, 1024, (512,))], axis=1)
    yield case("Expand rows", "Expand", [f32(1, 1024)], [np.array([256, 1024])])
    yield case("Expand columns", "Expand", [f32(256, 1)], [np.array([256, 1024])])
    yield case("Tile", "Tile", [f32(64, 64)], [np.array([4, 4])])
    yield case("Pad", "Pad", [f32(4, 32, 28, 28)], [np.array([0, 0, 1, 1, 0, 0, 1, 1])])
    yield case("Split", "Split", [f32(256, 1024)], [np.array([512, 512])], outputs=2, axis=1)


def norms() -> Iterator[Case]:
    for n in (384, 768, 100):
        yield case(f"LayerNormalization {n}", "LayerNormalization", [f32(256, n)], [f32(n), f32(n)])
        yield case(
            f"SimplifiedLayerNormalization {n}", "SimplifiedLayerNormalization", [f32(256, n)], [f32(n)], axis=-1, epsilon=1e-5
        )
    yield case(
        "SkipLayerNormalization",
        "SkipLayerNormalization",
        [f32(1, 256, 384), f32(1, 256, 384)],
        [f32(384), f32(384)],
        domain="com.microsoft",
    )
    yield case("InstanceNormalization", "InstanceNormalization", [f32(2, 64, 28, 28)], [f32(64), f32(64)])
    yield case("GroupNormalization", "GroupNormalization", [f32(2, 64, 28, 28)], [f32(64), f32(64)], num_groups=8)
    yield case("BatchNormalization", "BatchNormalization", [f32(2, 64, 28, 28)], [f32(64), f32(64), f32(64), np.abs(f32(64))])
    yield case("LpNormalization", "LpNormalization", [f32(256, 384)], axis=-1)
    cos, sin = f32(512, 32), f32(512, 32)
    yield case(
        "RotaryEmbedding", "RotaryEmbedding", [f32(1, 9, 256, 64), np.arange(256)[None]], [cos, sin], domain="com.microsoft"
    )
    yield case(
        "RotaryEmbedding flat",
        "RotaryEmbedding",
        [f32(1, 256, 576), np.arange(256)[None]],
        [cos, sin],
        domain="com.microsoft",
        num_heads=9,
    )


def quantizations() -> Iterator[Case]:
    scale, zero = np.array(0.02, np.float32), np.array(3, np.int8)
    many = np.full(1024, 0.02, np.float32)
    for dtype in (np.int8, np.uint8, np.int16, np.uint16):
        yield case(f"QuantizeLinear {dtype.__name__}", "QuantizeLinear", [f32(256, 1024)], [scale, zero.astype(dtype)])
        yield case(
            f"DequantizeLinear {dtype.__name__}", "DequantizeLinear", [i64(256, 1024).astype(dtype)], [scale, zero.astype(dtype)]
        )
    for axis, n in ((0, 256), (1, 1024)):
        zeros = np.full(n, 3, np.int8)
        yield case(f"QuantizeLinear axis {axis}", "QuantizeLinear", [f32(256, 1024)], [many[:n], zeros], axis=axis)
        yield case(
            f"DequantizeLinear axis {axis}", "DequantizeLinear", [i64(256, 1024).astype(np.int8)], [many[:n], zeros], axis=axis
        )
    yield case(
        "DequantizeLinear block",
        "DequantizeLinear",
        [i64(256, 1024).astype(np.int8)],
        [np.full((256, 32), 0.02, np.float32)],
        axis=1,
        block_size=32,
    )
    yield case(
        "QuantizeLinear block",
        "QuantizeLinear",
        [f32(256, 1024)],
        [np.full((256, 32), 0.02, np.float32), np.zeros((256, 32), np.int8)],
        axis=1,
        block_size=32,
    )
    yield case(
        "QuantizeLinear block axis 0",
        "QuantizeLinear",
        [f32(256, 1024)],
        [np.full((8, 1024), 0.02, np.float32), np.zeros((8, 1024), np.int8)],
        axis=0,
        block_size=32,
    )
    yield case("DynamicQuantizeLinear", "DynamicQuantizeLinear", [f32(256, 1024)], outputs=3)
    yield case("DynamicQuantizeLinear small", "DynamicQuantizeLinear", [f32(16, 384)], outputs=3)


GROUPS: dict[str, Callable[[], Iterator[Case]]] = {
    "transpose": transposes,
    "binary": binaries,
    "unary": unaries,
    "reduce": reductions,
    "softmax": softmaxes,
    "select": selections,
    "move": movers,
    "norm": norms,
    "quantize": quantizations,
}


def one_thread(module: Any) -> Any:
    options = module.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def rivals(model: Any, feeds: dict[str, np.ndarray]) -> tuple[Callable[[], Any], Callable[[], Any]]:
    import onnxruntime

    import frugal

    data = model.SerializeToString()
    ours = frugal.InferenceSession(data, one_thread(frugal))
    options = one_thread(onnxruntime)
    options.log_severity_level = 4
    theirs = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    binding = theirs.io_binding()
    for name, x in feeds.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(x))
    for output, value in zip(theirs.get_outputs(), theirs.run(None, feeds), strict=True):
        binding.bind_ortvalue_output(output.name, onnxruntime.OrtValue.ortvalue_from_numpy(value))
    session, arrays = ours._session, list(feeds.values())
    return lambda: session.run(arrays), lambda: theirs.run_with_iobinding(binding)


def best(calls: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """Least CPU seconds of a call of each."""
    least = [float("inf")] * len(calls)
    for i in range(rounds):
        for k, call in enumerate(calls):
            start = time.thread_time()
            call()
            if i > 2:
                least[k] = min(least[k], time.thread_time() - start)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="part of a group's or a case's name")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--below", type=float, default=float("inf"), help="show ratios below this only")
    args = parser.parse_args()
    if any(os.environ.get(k) != v for k, v in MALLOC.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | MALLOC)
    rows = []
    for group, cases in GROUPS.items():
        for name, model, feeds in cases():
            if args.only and args.only not in group and args.only not in name:
                continue
            try:
                ours, theirs = best(rivals(model, feeds), args.rounds)
            except Exception as error:  # an operator that one of the two lacks
                print(f"   -              {name}: {str(error).splitlines()[0][:90]}", flush=True)
                continue
            rows.append((theirs / ours, ours, theirs, f"{group}: {name}"))
    for ratio, ours, theirs, name in sorted(rows):
        if ratio < args.below:
            print(f"{ratio:6.2f} {ours * 1e6:9.1f} us {theirs * 1e6:9.1f} us  {name}")


if __name__ == "__main__":
    main()
