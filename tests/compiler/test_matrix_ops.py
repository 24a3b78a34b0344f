"""Einsum, MatMul, Gemm, FusedMatMul and Det against onnxruntime or numpy over shapes, types and symbolic dims."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from frugal import InvalidModel, UnsupportedOperator

from .models import Builder, assert_same, run_frugal

KINDS = {"float64": TensorProto.DOUBLE, "int32": TensorProto.INT32, "int64": TensorProto.INT64, "uint64": TensorProto.UINT64}
EQUATIONS = [
    ("ij,jk->ik", (3, 4), (4, 5)),
    ("ij,jk", (3, 4), (4, 5)),
    ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
    ("bij,bjk->bik", (1, 3, 4), (2, 4, 5)),
    ("b i d , b j d -> b i j", (2, 3, 4), (2, 5, 4)),
    ("bhqd,bhkd->bhqk", (2, 3, 4, 5), (2, 3, 6, 5)),
    ("bqhd,bkhd->bhqk", (2, 4, 3, 5), (2, 6, 3, 5)),
    ("bsd,dhe->bshe", (2, 3, 4), (4, 2, 5)),
    ("...ij,...jk->...ik", (2, 3, 4), (2, 4, 5)),
    ("...ij,jk->...ik", (2, 2, 3, 4), (4, 5)),
    ("i,j->ij", (3,), (4,)),
    ("i,i->i", (3,), (3,)),
    ("i,i->", (3,), (3,)),
    ("ij,ij->", (3, 4), (3, 4)),
    ("ij,kl->", (3, 4), (2, 2)),
    ("iij,jk->ik", (3, 3, 4), (4, 2)),
    ("ab,cb->ca", (3, 4), (2, 4)),
]


@pytest.mark.parametrize(("equation", "left", "right"), EQUATIONS)
@pytest.mark.parametrize("constant", [False, True])
def test_einsum(equation: str, left: tuple[int, ...], right: tuple[int, ...], constant: bool) -> None:
    rng = np.random.default_rng(len(equation))
    feeds = {"a": rng.normal(size=left).astype(np.float32), "b": rng.normal(size=right).astype(np.float32)}
    b = Builder(20)
    a = b.input("a", left)
    other = b.const(feeds.pop("b")) if constant else b.input("b", right)
    assert_same(b.model(b.op("Einsum", a, other, equation=equation)), feeds)


def test_einsum_of_one_and_of_three() -> None:
    rng = np.random.default_rng(0)
    x, y, z, wide = (rng.normal(size=s).astype(np.float32) for s in ((3, 3, 4), (4, 5), (5, 2), (2, 1, 3, 4)))
    cube, tall = (rng.normal(size=s).astype(np.float32) for s in ((3, 3, 3), (5, 4, 2)))
    cases = [("iij->ji", [x]), ("iii->i", [cube]), ("kkl", [x]), ("ij...->...", [x])]
    cases += [("...ij,...jk->...ik", [wide, tall]), ("abc,cd,de->abe", [x, y, z]), ("abc,cd,de->ea", [x, y, z])]
    for equation, operands in cases:
        b = Builder(20)
        names = [b.input(f"x{i}", o.shape) for i, o in enumerate(operands)]
        model = b.model(b.op("Einsum", *names, equation=equation))
        (got,) = run_frugal(model, dict(zip(names, operands, strict=True)))
        want = np.einsum(equation, *operands)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)  # sums in another order


def test_einsum_with_symbolic_dims() -> None:
    rng = np.random.default_rng(1)
    b = Builder(20)
    q, k = b.input("q", ["b", "s", 2, 8]), b.input("k", ["b", "t", 2, 8])
    model = b.model(b.op("Einsum", q, k, equation="bshd,bthd->bhst"))
    for size, s, t in ((1, 3, 5), (2, 1, 1), (2, 4, 0)):
        feeds = {
            "q": rng.normal(size=(size, s, 2, 8)).astype(np.float32),
            "k": rng.normal(size=(size, t, 2, 8)).astype(np.float32),
        }
        (got,) = run_frugal(model, feeds)
        np.testing.assert_allclose(got, np.einsum("bshd,bthd->bhst", feeds["q"], feeds["k"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("equation", ["ij,jk->il", "ij->", "i1->i", "ij,jk->ikk", "......->"])
def test_einsum_refuses_what_is_no_equation(equation: str) -> None:
    b = Builder(20)
    with pytest.raises(InvalidModel):
        run_frugal(b.model(b.op("Einsum", b.input("a", [2, 2]), b.input("b", [2, 2]), equation=equation)), {})


@pytest.mark.parametrize("name", sorted(KINDS))
@pytest.mark.parametrize(("left", "right"), [((2, 3), (3, 4)), ((2, 1, 3, 4), (5, 4, 2)), ((3,), (2, 3, 4)), ((2, 3), (3,))])
def test_matmul_of_other_types(name: str, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    kind = np.dtype(name)
    limit = 1 << 40 if kind.itemsize == 8 else 1 << 20  # products wrap
    feeds: dict[str, Any] = {n: rng.integers(0, limit, s).astype(kind) for n, s in (("a", left), ("b", right))}
    b = Builder(20)
    product = b.op("MatMul", b.input("a", left, KINDS[name]), b.input("b", right, KINDS[name]))
    (got,) = run_frugal(b.model(product, kind=KINDS[name]), feeds)
    want = np.matmul(feeds["a"], feeds["b"])
    assert got.dtype == kind
    np.testing.assert_allclose(got, want, rtol=1e-12 if kind.kind == "f" else 0)


@pytest.mark.parametrize("trans", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("factors", [(1.0, 1.0), (0.5, 2.0), (1.5, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("shape", [None, (), (1,), (5,), (3, 1), (1, 5), (3, 5)])
@pytest.mark.parametrize("constant", [False, True])
def test_gemm(trans: tuple[int, int], factors: tuple[float, float], shape: tuple[int, ...] | None, constant: bool) -> None:
    rng = np.random.default_rng(3)
    left, right = (4, 3) if trans[0] else (3, 4), (5, 4) if trans[1] else (4, 5)
    feeds = {"a": rng.normal(size=left).astype(np.float32), "b": rng.normal(size=right).astype(np.float32)}
    b = Builder(20)
    operands = [b.input("a", left)]
    operands.append(b.const(feeds.pop("b")) if constant else b.input("b", right))
    if shape is not None:
        feeds["c"] = rng.normal(size=shape).astype(np.float32)
        operands.append(b.input("c", shape))
    attributes = {"alpha": factors[0], "beta": factors[1], "transA": trans[0], "transB": trans[1]}
    assert_same(b.model(b.op("Gemm", *operands, **attributes)), feeds)


def test_gemm_of_integers_and_its_refusals() -> None:
    rng = np.random.default_rng(4)
    feeds = {n: rng.integers(-9, 9, (3, 3)).astype(np.int64) for n in "abc"}

    def model(alpha: float) -> onnx.ModelProto:
        b = Builder(20)
        names = [b.input(n, [3, 3], TensorProto.INT64) for n in "abc"]
        return b.model(b.op("Gemm", *names, alpha=alpha, beta=2.0), kind=TensorProto.INT64)

    (got,) = run_frugal(model(3.0), feeds)
    np.testing.assert_array_equal(got, 3 * (feeds["a"] @ feeds["b"]) + 2 * feeds["c"])
    with pytest.raises(UnsupportedOperator, match="integers times"):
        run_frugal(model(0.5), feeds)


@pytest.mark.parametrize("flags", range(16))
def test_fused_matmul(flags: int) -> None:
    rng = np.random.default_rng(5)
    names = ("transA", "transB", "transBatchA", "transBatchB")
    attributes = {n: flags >> i & 1 for i, n in enumerate(names)}
    shapes = []
    for m, n, swap, batch in ((3, 4, attributes["transA"], attributes["transBatchA"]),
                              (4, 5, attributes["transB"], attributes["transBatchB"])):  # fmt: skip
        m, n = (n, m) if swap else (m, n)
        shapes.append((m, 2, n) if batch else (2, m, n))
    feeds = {n: rng.normal(size=s).astype(np.float32) for n, s in zip("ab", shapes, strict=True)}
    b = Builder(20)
    operands = [b.input(n, s) for n, s in zip("ab", shapes, strict=True)]
    assert_same(b.model(b.op("FusedMatMul", *operands, domain="com.microsoft", alpha=0.25, **attributes)), feeds)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 20])
def test_det(kind: Any, n: int) -> None:
    rng = np.random.default_rng(n)
    x = rng.normal(size=(2, 3, n, n)).astype(kind)
    if n:
        x[0, 0] = 0  # singular
    b = Builder(20)
    number = TensorProto.FLOAT if kind is np.float32 else TensorProto.DOUBLE
    (got,) = run_frugal(b.model(b.op("Det", b.input("x", ["a", 3, n, n], number)), kind=number), {"x": x})
    want = np.linalg.det(x.astype(np.float64))
    assert got.dtype == kind
    np.testing.assert_allclose(got, want, rtol=1e-6 if kind is np.float32 else 1e-11, atol=1e-11)  # rounding of the result
