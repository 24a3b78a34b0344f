"""One plan and one input give the same bytes: every instruction set here, any number of threads, any batch, any padding.

On a small random encoder (odd sizes, so that every kernel meets its tails) and on the real MiniLM, as float, int8 (blocks and
tokens) and int4.  Only instruction sets that this CPU has take part.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from frugal.bindings import library
from onnx import TensorProto

import frugal
import models as real_models
from frugal.compiler import compile_model

from .models import Builder
from .test_passes import int4_linear, int8_linear

RNG = np.random.default_rng(11)
KINDS = ["float", "int8-block", "int8-token", "int4"]
LENGTHS = [1, 2, 7, 16, 33]


def encoder(kind: str) -> onnx.ModelProto:
    """Two layers of width 96 with 3 heads, feed-forward 224: no dimension is a multiple of every tile."""
    b = Builder(24)
    ids, mask = b.input("input_ids", ["n", "s"], TensorProto.INT64), b.input("attention_mask", ["n", "s"], TensorProto.INT64)

    def linear(x: str, k: int, n: int) -> str:
        if kind == "float":
            return str(b.op("MatMul", x, b.const(RNG.standard_normal((k, n)) / np.sqrt(k))))
        return int4_linear(b, x, k, n) if kind == "int4" else int8_linear(b, x, k, n)

    def bias(x: str, n: int) -> str:
        return str(b.op("Add", x, b.const(RNG.standard_normal(n) / 4)))

    def norm(x: str) -> str:
        return str(b.op("LayerNormalization", x, b.const(RNG.uniform(0.5, 1.5, 96)), b.const(RNG.standard_normal(96)), axis=-1))

    x = norm(b.op("Gather", b.const(RNG.standard_normal((64, 96))), ids))
    keep = b.op("Unsqueeze", b.op("Cast", mask, to=TensorProto.BOOL), b.const([1, 2], np.int64))
    for _ in range(2):
        q, k, v = (bias(linear(x, 96, 96), 96) for _ in range(3))
        mixed = b.op("Attention", q, k, v, keep, q_num_heads=3, kv_num_heads=3)
        x = norm(b.op("Add", bias(linear(mixed, 96, 96), 96), x))
        wide = b.op("Gelu", bias(linear(x, 96, 224), 224))
        x = norm(b.op("Add", bias(linear(wide, 224, 96), 96), x))
    weights = b.op("Unsqueeze", b.op("Cast", mask, to=TensorProto.FLOAT), b.const([2], np.int64))
    pooled = b.op("ReduceSum", b.op("Mul", x, weights), b.const([1], np.int64), keepdims=0)
    return b.model(x, b.op("Div", pooled, b.op("ReduceSum", weights, b.const([1], np.int64), keepdims=0)))


@cache
def small_plan(kind: str) -> bytes:
    return compile_model(encoder(kind), activations=kind if kind.startswith("int8") else "int8")


@cache
def minilm_plan(kind: str, folder: Path) -> bytes:
    from frugal.quantize import export, quantize

    exported = folder / "float.onnx"
    if not exported.exists():
        export(real_models.fetch_or_skip("all-MiniLM-L6-v2"), exported)
    if kind == "float":
        return compile_model(exported)
    quantized = folder / f"{kind[:4]}.onnx"
    if not quantized.exists():
        quantize(exported, quantized, scheme=kind[:4], verify_result=False)
    return compile_model(quantized, activations=kind if kind.startswith("int8") else "int8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("minilm")


def session(plan: bytes, threads: int = 1) -> frugal.InferenceSession:
    options = frugal.SessionOptions()
    options.intra_op_num_threads = threads
    return frugal.InferenceSession(plan, options)


def rows(lengths: list[int], vocabulary: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(1, vocabulary, n) for n in lengths]


def feeds_of(some: list[np.ndarray], width: int, names: list[str]) -> dict[str, np.ndarray]:
    """Right-padded to `width` with id 0 and mask 0."""
    ids = np.zeros((len(some), width), np.int64)
    mask = np.zeros_like(ids)
    for i, row in enumerate(some):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    every = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {n: every[n] for n in names}


def check(plan: bytes, lengths: list[int], vocabulary: int, isas: list[str]) -> None:
    """Every row alone by the first ISA, and the same rows by every ISA, thread count, batch and padding."""
    some = rows(lengths, vocabulary)
    names = [i.name for i in session(plan).get_inputs()]
    frugal.set_isa(isas[0])
    alone = [session(plan).run(None, feeds_of([r], len(r), names)) for r in some]
    batches = [[0], [3, 1], list(range(len(some)))]
    for isa in isas:
        frugal.set_isa(isa)
        for threads in (1, 2, 3):
            run = session(plan, threads)
            for batch in batches:
                width = max(len(some[i]) for i in batch)
                for padding in (0, 5):
                    tokens, pooled = run.run(None, feeds_of([some[i] for i in batch], width + padding, names))[:2]
                    for place, i in enumerate(batch):
                        n, where = len(some[i]), (isa, threads, batch, padding, i)
                        assert tokens[place, :n].tobytes() == alone[i][0][0].tobytes(), where
                        assert pooled[place].tobytes() == alone[i][1][0].tobytes(), where


def usable() -> list[str]:
    """Scalar first: it is the definition."""
    return sorted(library.isa_list(), key=lambda name: name != "scalar")


@pytest.mark.parametrize("kind", KINDS)
def test_small_encoder(kind: str) -> None:
    check(small_plan(kind), LENGTHS, 64, usable())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_minilm(kind: str, folder: Path) -> None:
    fast = [name for name in usable() if name != "scalar"] or ["scalar"]
    check(minilm_plan(kind, folder), [3, 9, 16, 40], 30000, fast)


def test_minilm_scalar(folder: Path) -> None:
    """One short sentence of the real model by scalar and by the best here."""
    plan = minilm_plan("int8-block", folder)
    (row,) = rows([6], 30000)
    results = []
    for isa in ("scalar", "auto"):
        frugal.set_isa(isa)
        run = session(plan)
        results.append(run.run(None, feeds_of([row], len(row), [i.name for i in run.get_inputs()])))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*results, strict=True))
