"""Mutated ONNX files: every one compiles (and then runs or is refused) or raises a FrugalError, within a bound on memory.

Bytes are flipped, cut and spliced, and the parsed model is changed where it hurts: dims and attributes at extremes, names
swapped, nodes dropped, types changed.  FRUGAL_FUZZ_RUNS sets how many mutations (default 400); the seed is
fixed, so a failure repeats.
"""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Callable

import numpy as np
import onnx
import onnx.parser
import pytest
from google.protobuf.message import DecodeError
from onnx import TensorProto

import frugal
from frugal.compiler import compile_model

from .models import Builder
from .test_passes import int4_linear, int8_linear

RUNS = int(os.environ.get("FRUGAL_FUZZ_RUNS", "400"))
EXTREMES = [0, 1, -1, 2, 7, 127, 1 << 20, 1 << 31, (1 << 40) + 1, (1 << 62) + 3, -(1 << 31), -(1 << 63), (1 << 63) - 1]
MEMORY = 256 << 20  # bytes that compiling a file of a few kilobytes may take (numpy reports to tracemalloc)


def encoder() -> onnx.ModelProto:
    b = Builder(24)
    ids, mask = b.input("ids", ["n", "s"], TensorProto.INT64), b.input("mask", ["n", "s"], TensorProto.INT64)
    rng = np.random.default_rng(0)
    x = b.op("Gather", b.const(rng.standard_normal((20, 64))), ids)
    s = b.op("Gather", b.op("Shape", ids), b.const(1, np.int64))
    positions = b.op("Range", b.const(0, np.int64), s, b.const(1, np.int64))
    x = b.op("Add", x, b.op("Gather", b.const(rng.standard_normal((32, 64))), positions))
    x = b.op("LayerNormalization", x, b.const(np.ones(64)), b.const(np.zeros(64)), axis=-1, epsilon=1e-5)
    q, k, v = int8_linear(b, x, 64, 64), int4_linear(b, x, 64, 64), b.op("MatMul", x, b.const(rng.standard_normal((64, 64))))
    m = b.op("Unsqueeze", b.op("Cast", mask, to=TensorProto.BOOL), b.const([1, 2], np.int64))
    x = b.op("Add", x, b.op("Attention", q, k, v, m, q_num_heads=4, kv_num_heads=4))
    return b.model(b.op("ReduceMean", x, b.const([1], np.int64), keepdims=0))


def shapes() -> onnx.ModelProto:
    b = Builder(18)
    x = b.input("x", ["n", "s", 12])
    s = b.op("Shape", x)
    parts = [b.op("Slice", s, b.const([0], np.int64), b.const([2], np.int64)), b.const([3, 4], np.int64)]
    y = b.op("Transpose", b.op("Reshape", x, b.op("Concat", *parts, axis=0)), perm=[0, 2, 1, 3])
    y = b.op("Slice", y, b.const([1], np.int64), b.const([3], np.int64), b.const([1], np.int64), b.const([1], np.int64))
    y = b.op("Concat", y, b.op("Expand", b.const([[1.0]]), b.op("Shape", y)), axis=-1)
    a, c = b.op("Split", y, axis=-1, outputs=2, num_outputs=2)
    fill = b.op("ConstantOfShape", b.op("Shape", a), value=onnx.numpy_helper.from_array(np.array([2], np.float32)))
    y = b.op("Softmax", b.op("Div", b.op("Mul", a, c), b.op("Pow", fill, b.const(2.0))), axis=-1)
    y = b.op("Unsqueeze", b.op("Clip", y, b.const(0.0), b.const(1.0)), b.const([0], np.int64))
    return b.model(b.op("Squeeze", y, b.const([0], np.int64)))


def control() -> onnx.ModelProto:
    """Loops, an If, a Scan and sizes that the data decides."""
    return onnx.parser.parse_model("""<ir_version: 9, opset_import: ["" : 17]>
    test (float[n, 3] x, int64[2] size) => (float[a, 3] y, float[t, 3] rows, float[p, q] z) {
        m = Constant <value = int64 {3}> ()
        axis = Constant <value = int64[1] {0}> ()
        v, rows = Loop (m, , x) <body = b (int64 i, bool c, float[r, 3] u) => (bool again, float[s, 3] w, float[3] row) {
            row = ReduceSum <keepdims = 0> (u, axis)
            two = Constant <value = int64 {2}> ()
            odd = Mod (i, two)
            one = Cast <to = 9> (odd)
            w = If (one) < then_branch = t () => (float[s1, 3] p1) { p1 = Concat <axis = 0> (u, x) },
                           else_branch = e () => (float[s2, 3] q1) { q1 = Neg (u) } >
            limit = Constant <value = float {1000.0}> ()
            total = ReduceSum <keepdims = 0> (w)
            again = Less (total, limit)
        }>
        first = Constant <value = float[3] {0.0, 0.0, 0.0}> ()
        last, y = Scan <num_scan_inputs = 1, body = g (float[3] s3, float[3] d) => (float[3] s4, float[3] o) {
            s4 = Add (s3, d)
            o = Identity (s4)
        }> (first, v)
        z = ConstantOfShape (size)
    }""")


def _walk(message: object, rng: random.Random) -> tuple[object, object]:
    """A random scalar field somewhere in a protobuf message, as (message, field descriptor)."""
    while True:
        fields = list(message.ListFields())  # type: ignore[attr-defined]
        if not fields:
            return message, None
        field, value = rng.choice(fields)
        repeated = not isinstance(value, (int, float, str, bytes)) and hasattr(value, "__len__")
        item = rng.choice(list(value)) if repeated and len(value) else value
        if not hasattr(item, "ListFields"):
            return message, field
        message = item


def mutate_model(model: onnx.ModelProto, rng: random.Random) -> bytes:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for _ in range(rng.randint(1, 3)):
        message, field = _walk(copy, rng)
        if field is None:
            continue
        value = getattr(message, field.name)
        try:
            if isinstance(value, int):
                setattr(message, field.name, rng.choice(EXTREMES))
            elif isinstance(value, float):
                setattr(message, field.name, rng.choice([0.0, -1.0, 1e38, float("nan"), float("inf")]))
            elif isinstance(value, bytes):
                setattr(message, field.name, value[: rng.randint(0, len(value))] + bytes(rng.randrange(4)))
            elif isinstance(value, str):
                setattr(message, field.name, rng.choice(["", "x", "ids", "no/such", "Attention", value + "_"]))
            elif len(value) and isinstance(value[0], int):
                value[rng.randrange(len(value))] = rng.choice(EXTREMES)
            elif len(value):
                del value[rng.randrange(len(value))]
        except (ValueError, TypeError):  # protobuf itself refuses this value for this field
            continue
    if copy.graph.node and rng.random() < 0.3:
        del copy.graph.node[rng.randrange(len(copy.graph.node))]
    return copy.SerializeToString()


def mutate_bytes(model: onnx.ModelProto, rng: random.Random) -> bytes:
    data = bytearray(model.SerializeToString())
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data))
        kind = rng.randrange(4)
        if kind == 0:
            data[place] = rng.randrange(256)
        elif kind == 1:
            del data[place : place + rng.randint(1, 9)]
        elif kind == 2:
            data[place:place] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 9)))
        elif len(data) > 64:
            del data[place : None if rng.random() < 0.1 else place + 1]
        if not data:
            break
    return bytes(data)


def try_it(data: bytes) -> str:
    """What became of a file: "refused", "refused when run" or "ran"."""
    try:
        plan = compile_model(data)
        session = frugal.InferenceSession(plan)
        small = {"n": 2, "s": 3}
        feeds = {}
        for i in session.get_inputs():
            shape = [d if isinstance(d, int) else small.get(str(d), 2) for d in i.shape]
            if any(d > 64 for d in shape) or len(shape) > 8:
                return "refused when run"
            feeds[i.name] = np.ones(shape, np.float32 if "float" in i.type else np.int64)
    except frugal.FrugalError:
        return "refused"
    try:
        session.run(None, feeds)
    except frugal.FrugalError:
        return "refused when run"
    return "ran"


@pytest.mark.parametrize("make", [encoder, shapes, control])
@pytest.mark.parametrize("mutate", [mutate_model, mutate_bytes])
def test_mutated_models(make: Callable[[], onnx.ModelProto], mutate: Callable[[onnx.ModelProto, random.Random], bytes]) -> None:
    model = make()
    assert try_it(model.SerializeToString()) == "ran"
    seen: dict[str, int] = {}
    tracemalloc.start()
    try:
        for seed in range(RUNS):
            data = mutate(model, random.Random(seed))
            tracemalloc.reset_peak()
            try:
                outcome = try_it(data)
            except Exception as error:
                raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
            peak = tracemalloc.get_traced_memory()[1]
            assert peak < MEMORY, f"seed {seed}: {peak} bytes"
            seen[outcome] = seen.get(outcome, 0) + 1
    finally:
        tracemalloc.stop()
    assert len(seen) > 1, seen  # the mutations do not all end the same way


def test_not_onnx_at_all() -> None:
    for data in (b"", b"\0" * 100, b"GGUF" + bytes(60), os.urandom(1000)):
        with pytest.raises(frugal.FrugalError):
            compile_model(data)
    with pytest.raises(DecodeError):
        onnx.ModelProto().ParseFromString(b"\xff" * 9)  # what the reader has to catch
