"""Transposes, reductions and softmax over random shapes and axes: whichever way the elements lie, the same values as numpy's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

import frugal

RNG = np.random.default_rng(3)


def run(op: str, x: np.ndarray, constants: tuple[np.ndarray, ...] = (), **attrs: Any) -> np.ndarray:
    weights = [numpy_helper.from_array(c, f"c{i}") for i, c in enumerate(constants)]
    node = helper.make_node(op, ["x", *(w.name for w in weights)], ["y"], **attrs)
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    result: np.ndarray = frugal.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    return result


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.int64])
@pytest.mark.parametrize("rank", [2, 3, 4])
def test_transpose(dtype: type, rank: int) -> None:
    perms = list(itertools.permutations(range(rank)))
    for perm in perms:
        for _ in range(2):
            shape = tuple(int(RNG.choice([1, 2, 3, 4, 5, 16, 17, 35])) for _ in range(rank))
            x: np.ndarray = RNG.integers(0, 250, shape).astype(dtype)
            np.testing.assert_array_equal(run("Transpose", x, perm=perm), x.transpose(perm), err_msg=f"{shape} {perm}")


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare"])
def test_reduce(op: str) -> None:
    functions: dict[str, Callable[..., np.ndarray]] = {
        "ReduceSum": np.sum,
        "ReduceMean": np.mean,
        "ReduceMax": np.max,
        "ReduceMin": np.min,
        "ReduceL1": lambda x, **k: np.abs(x).sum(**k),
        "ReduceL2": lambda x, **k: np.sqrt((x * x).sum(**k)),
        "ReduceSumSquare": lambda x, **k: (x * x).sum(**k),
    }
    for axes in [a for n in (1, 2, 3, 4) for a in itertools.combinations(range(4), n)]:
        shape = tuple(int(RNG.choice([1, 2, 7, 16, 33])) for _ in range(4))
        x = RNG.standard_normal(shape).astype(np.float32)
        want = functions[op](x.astype(np.float64), axis=axes, keepdims=True)
        # sums of up to 33^4 elements of size 1: their float32 rounding, with 16 lanes, stays below 1e-5 of the sum of sizes
        size = np.abs(x).sum(axis=axes, keepdims=True) + 1
        got = run(op, x, (np.array(axes),))
        assert got.shape == want.shape and (np.abs(got - want) <= 1e-5 * (size if op != "ReduceL2" else 1 + want)).all(), (
            shape,
            axes,
        )


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_softmax(op: str) -> None:
    for axis, _ in itertools.product(range(3), range(4)):
        shape = tuple(int(RNG.choice([1, 2, 7, 16, 33, 70])) for _ in range(3))
        x = (RNG.standard_normal(shape) * 3).astype(np.float32)
        e = np.exp(x.astype(np.float64) - x.max(axis=axis, keepdims=True))
        want = e / e.sum(axis=axis, keepdims=True)
        want = want if op == "Softmax" else np.log(want)
        # exp and log of fmath.h are good to 3e-7, scores reach 20
        np.testing.assert_allclose(run(op, x, axis=axis), want, rtol=2e-6, atol=4e-6, err_msg=f"{shape} {axis}")


def test_reduce_of_equal_bits_along_any_axis() -> None:
    """A sum has one order, however the elements lie: a row, a column, or spread over two axes."""
    x = RNG.standard_normal((24, 35)).astype(np.float32)
    row = run("ReduceSum", x, (np.array([1]),))
    column = run("ReduceSum", np.ascontiguousarray(x.T), (np.array([0]),))
    spread = run("ReduceSum", np.ascontiguousarray(x.reshape(24, 5, 7).transpose(1, 0, 2)), (np.array([0, 2]),))
    assert row.tobytes() == column.tobytes() == spread.tobytes()
