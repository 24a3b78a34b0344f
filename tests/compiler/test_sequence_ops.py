"""Sequences and optional values inside a graph, against onnxruntime, and what is refused."""

from __future__ import annotations

import pytest
from onnx.parser import parse_model

import frugal
from frugal.compiler import compile_model, lower_model
from frugal.compiler.ir import Op

from .test_control import HEAD, both, f32


def test_split_pick_and_join() -> None:
    text = (
        HEAD
        + """agraph (float[n, 5] x) => (float[n, 5] y, float[2, n] z, int64 count) {
        two = Constant <value = int64 {2}> ()
        last = Constant <value = int64 {-1}> ()
        first = Constant <value = int64 {0}> ()
        s = SplitToSequence <axis = 1> (x, two)
        count = SequenceLength (s)
        a = SequenceAt (s, last)
        e = SequenceErase (s, last)
        t = SequenceInsert (e, a, first)
        y = ConcatFromSequence <axis = 1> (t)
        r = SplitToSequence <axis = 1, keepdims = 0> (x)
        b = SequenceAt (r, first)
        c = SequenceAt (r, last)
        u = SequenceConstruct (b, c)
        z = ConcatFromSequence <axis = 0, new_axis = 1> (u)
    }"""
    )
    both(text, {"x": f32(3, 5)}, {"x": f32(1, 5)})


def test_parts_of_given_sizes_cost_no_more_than_slices() -> None:
    text = (
        HEAD
        + """agraph (float[6] x) => (float[2] y) {
        sizes = Constant <value = int64[3] {1, 2, 3}> ()
        s = SplitToSequence (x, sizes)
        at = Constant <value = int64 {1}> ()
        y = SequenceAt (s, at)
    }"""
    )
    both(text, {"x": f32(6)})
    graph, _ = lower_model(parse_model(text))
    assert [step.op for step in graph.steps] == [Op.SLICE]


@pytest.mark.parametrize(
    ("nodes", "error", "what"),
    [
        ("s = SequenceConstruct (x, x) y = Neg (s)", frugal.UnsupportedOperator, "'.*' is a sequence"),
        (
            "one = Constant <value = int64 {2}> () s = SequenceConstruct (x, x) y = SequenceAt (s, one)",
            frugal.InvalidModel,
            "of 2",
        ),
        ("s = SplitToSequence (x) y = ConcatFromSequence <axis = 0> (s)", frugal.UnsupportedOperator, "number has to be known"),
        ("y = ConcatFromSequence <axis = 0> (x)", frugal.InvalidModel, "no sequence"),
    ],
)
def test_refused_by_name(nodes: str, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        compile_model(parse_model(HEAD + f"agraph (float[n] x) => (float[m] y) {{ {nodes} }}"))
