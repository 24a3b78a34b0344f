"""Random numbers: reproducible, the same on every instruction set and number of threads, and distributed as asked."""

from __future__ import annotations

import numpy as np
import pytest
from frugal.bindings import library

import frugal
from frugal.compiler import compile_model

from .models import Builder, run_frugal

N = 40000  # five standard errors of a mean are then 0.025 of a standard deviation


def drawn(kind: str, name: str = "a", **attributes: object) -> np.ndarray:
    b = Builder(22)
    y = b.op(kind, shape=[N // 100, 100], **attributes)
    b.nodes[-1].name = name
    return run_frugal(b.model(y), {})[0]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 5.0)])
def test_uniform(low: float, high: float) -> None:
    x = drawn("RandomUniform", low=low, high=high)
    assert low <= x.min() and x.max() < high
    assert abs(x.mean() - (low + high) / 2) < 0.01 * (high - low)
    counts = np.histogram(x, 20, (low, high))[0]
    assert np.abs(counts - N / 20).max() < 5 * np.sqrt(N / 20)


def test_normal() -> None:
    x = drawn("RandomNormal", mean=2.0, scale=3.0)
    z = (x - 2) / 3
    assert abs(z.mean()) < 0.025 and abs(z.std() - 1) < 0.02
    assert abs((np.abs(z) < 1).mean() - 0.6827) < 0.012


def test_runs_repeat_and_seeds_and_names_differ() -> None:
    same = [drawn("RandomNormal", seed=1.0) for _ in range(2)]
    assert np.array_equal(*same)
    assert np.array_equal(same[0], drawn("RandomNormal", name="b", seed=1.0))
    assert not np.array_equal(same[0], drawn("RandomNormal", seed=2.0))
    assert not np.array_equal(drawn("RandomUniform"), drawn("RandomUniform", name="b"))


def test_every_instruction_set_and_thread_count() -> None:
    b = Builder(22)
    plan = compile_model(b.model(b.op("RandomNormal", shape=[N], seed=4.0)))
    results = []
    chosen = frugal.isa()
    try:
        for isa in library.isa_list():
            frugal.set_isa(isa)
            for threads in (1, 3):
                options = frugal.SessionOptions()
                options.intra_op_num_threads = threads
                results.append(frugal.InferenceSession(plan, options).run(None, {})[0].tobytes())
    finally:
        frugal.set_isa(chosen)
    assert len(set(results)) == 1


def test_bernoulli_and_multinomial() -> None:
    b = Builder(22)
    p = b.input("p", ["n"])
    x = b.input("x", ["m", 3])
    y = b.op("Bernoulli", p, seed=3.0)
    z = b.op("Multinomial", x, sample_size=N, seed=5.0)
    model = b.model(y)
    model.graph.output.append(b.model(z, kind=6).graph.output[0])
    log = np.log(np.array([[0.2, 0.5, 0.3]], np.float32)) + 7  # unnormalized
    coins, classes = run_frugal(model, {"p": np.full(N, 0.3, np.float32), "x": log})
    assert set(np.unique(coins)) == {0.0, 1.0} and abs(coins.mean() - 0.3) < 0.012
    assert np.abs(np.bincount(classes[0], minlength=3) / N - [0.2, 0.5, 0.3]).max() < 0.013
