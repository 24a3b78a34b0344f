"""If, Loop, Scan and sizes that the data decides: against onnxruntime, and what a run refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.parser import parse_model

import frugal
from frugal.compiler import compile_model, lower_model
from frugal.compiler.ir import Op

RNG = np.random.default_rng(3)


def both(text: str, *feeds: dict[str, Any]) -> None:
    """Every feed through one session of ours and one of onnxruntime's: the same shapes, types and values."""
    model = parse_model(text)
    onnx.checker.check_model(model)
    ours = frugal.InferenceSession(compile_model(model, activations="float"))
    theirs = onnxruntime.InferenceSession(model.SerializeToString())
    for feed in feeds:
        for got, want in zip(ours.run(None, feed), theirs.run(None, feed), strict=True):
            assert got.shape == want.shape and got.dtype == want.dtype
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)  # sums of up to 512 terms in another order


HEAD = '<ir_version: 9, opset_import: ["" : 17]>\n'


def f32(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def test_if_branches_of_different_shapes() -> None:
    text = (
        HEAD
        + """agraph (bool c, float[n, 4] x) => (float[m, 4] y) {
        y = If (c) <
          then_branch = a () => (float[m, 4] p) { p = Concat <axis = 0> (x, x) },
          else_branch = b () => (float[m, 4] q) { two = Constant <value = float[1, 1] {2.0}> ()  q = Mul (x, two) }
        >
    }"""
    )
    both(text, *({"c": np.array(c), "x": f32(n, 4)} for n in (3, 1, 0, 5) for c in (True, False)))


def test_if_of_a_known_condition_is_its_branch() -> None:
    text = (
        HEAD
        + """agraph (float[2] x) => (float[2] y) {
        c = Constant <value = bool {0}> ()
        y = If (c) <
          then_branch = a () => (float[2] p) { p = Neg (x) },
          else_branch = b () => (float[2] q) { q = Exp (x) }
        >
    }"""
    )
    graph, _ = lower_model(parse_model(text))
    assert [s.op for s in graph.steps if s.op != Op.ALIAS] == [Op.UNARY]
    both(text, {"x": f32(2)})


def test_branches_that_return_what_is_outside() -> None:
    text = (
        HEAD
        + """agraph (bool c, float[n] x, float[n] z) => (float[n] y, float[n] w) {
        y, w = If (c) <
          then_branch = a () => (float[n] p, float[n] q) { p = Identity (x) q = Add (x, z) },
          else_branch = b () => (float[n] r, float[n] s) { r = Identity (z) s = Add (x, z) }
        >
    }"""
    )
    both(text, *({"c": np.array(c), "x": f32(3), "z": f32(3)} for c in (True, False)))


LOOP = """agraph (int64 m, bool go, float[k, 3] x) => (float[k2, 3] last, float[t, 3] rows) {
    axis = Constant <value = int64[1] {0}> ()
    last, rows = Loop (m, go, x) <body = b (int64 i, bool c, float[r, 3] v) => (bool again, float[r2, 3] w, float[3] row) {
        fi = Cast <to = 1> (i)
        one = Constant <value = float {1.0}> ()
        grown = Add (fi, one)
        sum = ReduceSum <keepdims = 0> (v, axis)
        row = Mul (sum, grown)
        w = Concat <axis = 0> (v, v)
        total = ReduceSum <keepdims = 0> (w)
        limit = Constant <value = float {LIMIT}> ()
        again = Less (total, limit)
    }>
}"""


@pytest.mark.parametrize("limit", ["1e30", "40.0", "-1e30"])
def test_loop_that_grows_collects_and_stops_early(limit: str) -> None:
    text = HEAD + LOOP.replace("LIMIT", limit)
    feeds = [
        {"m": np.array(m), "go": np.array(go), "x": np.abs(f32(k, 3))} for m, go, k in [(5, True, 2), (0, True, 2), (4, False, 1)]
    ]
    both(text, *feeds, {"m": np.array(9), "go": np.array(True), "x": np.abs(f32(1, 3))})


def test_loop_with_static_rows_swaps_its_variables() -> None:
    text = (
        HEAD
        + """agraph (float[2] a, float[2] b) => (float[2] p, float[2] q, float[7, 2] rows) {
        m = Constant <value = int64 {7}> ()
        p, q, rows = Loop (m, , a, b) <
          body = z (int64 i, bool c, float[2] u, float[2] v) => (bool d, float[2] s, float[2] t, float[2] r) {
            d = Identity (c)
            s = Identity (v)
            t = Add (u, v)
            r = Sub (u, v)
        }>
    }"""
    )
    graph, _ = lower_model(parse_model(text))
    assert graph.outputs[2].shape == (7, 2)
    both(text, {"a": f32(2), "b": f32(2)})


def test_nested_loops_and_ifs_see_outer_names() -> None:
    text = (
        HEAD
        + """agraph (int64 m, float[3] x) => (float[3] y, float[a, b, 3] rows) {
        y, rows = Loop (m, , x) <body = outer (int64 i, bool c, float[3] v) => (bool d, float[3] w, float[b2, 3] block) {
            d = Identity (c)
            two = Constant <value = int64 {2}> ()
            zero = Constant <value = int64 {0}> ()
            w, block = Loop (two, , v) <body = inner (int64 j, bool e, float[3] s) => (bool f, float[3] t, float[3] row) {
                f = Identity (e)
                k = Add (i, j)
                half = Mod (k, two)
                even = Equal (half, zero)
                t = If (even) <
                  then_branch = p () => (float[3] a1) { a1 = Add (s, x) },
                  else_branch = q () => (float[3] a2) { a2 = Mul (s, v) }
                >
                row = Sub (t, x)
            }>
        }>
    }"""
    )
    both(text, *({"m": np.array(m), "x": f32(3)} for m in (1, 3, 4)))


def test_scan_both_ways_and_along_other_axes() -> None:
    text = (
        HEAD
        + """agraph (float[2] s, float[n, 2] x, float[2, n] z) => (float[2] t, float[2, n] a, float[n, 2] b) {
        t, a, b = Scan <num_scan_inputs = 2, scan_input_axes = [0, 1], scan_input_directions = [0, 1],
                        scan_output_axes = [1, 0], scan_output_directions = [0, 1],
          body = g (float[2] v, float[2] p, float[2] q) => (float[2] w, float[2] c, float[2] d) {
            u = Mul (p, q)
            w = Add (v, u)
            c = Identity (w)
            d = Sub (v, q)
          }> (s, x, z)
    }"""
    )
    both(text, *({"s": f32(2), "x": f32(n, 2), "z": f32(2, n)} for n in (1, 4, 7)))


def test_sizes_from_data_one_session_many_values() -> None:
    text = (
        HEAD
        + """agraph (int64[2] shape, float[1, 3] x) => (float[a, 3] y, float[p, q] z) {
        y = Expand (x, shape)
        z = ConstantOfShape <value = float[1] {1.5}> (shape)
    }"""
    )
    both(text, *({"shape": np.array([n, 3]), "x": f32(1, 3)} for n in (1, 5, 40000, 2)))


def session(text: str, **options: str) -> frugal.InferenceSession:
    chosen = frugal.SessionOptions()
    for key, value in options.items():
        chosen.add_session_config_entry(f"frugal.{key}", value)
    return frugal.InferenceSession(compile_model(parse_model(HEAD + text)), chosen)


FILL = "agraph (int64[1] shape) => (float[n] y) { y = ConstantOfShape (shape) }"


def test_sizes_from_data_are_bounded() -> None:
    ours = session(FILL, memory_limit_bytes=str(1 << 20))
    assert ours.run(None, {"shape": np.array([1000])})[0].shape == (1000,)
    with pytest.raises(frugal.OutOfMemory, match="memory_limit_bytes"):
        ours.run(None, {"shape": np.array([1 << 30])})
    with pytest.raises(frugal.InvalidArgument, match="not valid"):
        ours.run(None, {"shape": np.array([-1])})
    assert ours.run(None, {"shape": np.array([3])})[0].tolist() == [0, 0, 0]


def test_a_loop_without_end_is_ended() -> None:
    ours = session("""agraph (float[1] x) => (float[1] y) {
        yes = Constant <value = bool {1}> ()
        y = Loop (, yes, x) <body = b (int64 i, bool c, float[1] v) => (bool d, float[1] w) { d = Identity (c) w = Neg (v) }>
    }""")
    with pytest.raises(frugal.OutOfMemory, match="loops run more often"):
        ours.run(None, {"x": np.zeros(1, np.float32)})


def test_buffers_and_one_wanted_output() -> None:
    ours = session("""agraph (int64[1] n, float[2] x) => (float[m] y, float[2] z) {
        y = ConstantOfShape <value = float[1] {2.0}> (n)
        z = Neg (x)
    }""")
    y, z = ours.run_buffers(None, {"n": [3], "x": [1.0, 2.0]})
    assert y.tolist() == [2, 2, 2] and z.tolist() == [-1, -2]
    assert ours.run(["y"], {"n": np.array([2]), "x": np.zeros(2, np.float32)})[0].tolist() == [2, 2]
    assert ours.run(["z"], {"n": np.array([0]), "x": np.ones(2, np.float32)})[0].tolist() == [-1, -1]


def test_branches_of_different_rank_are_refused_by_name() -> None:
    body = [helper.make_node("Identity", ["x"], ["p"])]
    other = [helper.make_node("Unsqueeze", ["x", "zero"], ["q"])]
    graphs = [
        helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info(nodes[0].output[0], TensorProto.FLOAT, None)])
        for nodes in (body, other)
    ]
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("If", ["c"], ["y"], "chooser", then_branch=graphs[0], else_branch=graphs[1])],
            "g",
            [
                helper.make_tensor_value_info("c", TensorProto.BOOL, []),
                helper.make_tensor_value_info("x", TensorProto.FLOAT, [3]),
            ],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [helper.make_tensor("zero", TensorProto.INT64, [1], [0])],
        )
    )
    with pytest.raises(frugal.UnsupportedOperator, match=r"'chooser' \(If\): its branches give"):
        compile_model(model)


def test_a_size_outlives_the_tensor_it_came_from() -> None:
    """The dims of what a loop gave are used after the variable's bytes have been reused, and by a second loop's rows."""
    text = (
        HEAD
        + """agraph (int64 m, float[n, 3] x) => (float[a, 3] y, float[b, 3] z) {
        yes = Constant <value = bool {1}> ()
        v = Loop (m, yes, x) <body = b (int64 i, bool c, float[r, 3] u) => (bool d, float[s, 3] w) {
            d = Identity (c)
            w = Concat <axis = 0> (u, x)
        }>
        zero = Constant <value = float[3] {0.0, 0.0, 0.0}> ()
        last, y = Scan <num_scan_inputs = 1, body = g (float[3] s, float[3] d) => (float[3] t, float[3] o) {
            t = Add (s, d)
            o = Identity (t)
        }> (zero, v)
        e = Exp (y)
        f = Neg (e)
        z = Add (f, y)
    }"""
    )
    both(text, *({"m": np.array(m), "x": f32(n, 3) / 9} for m, n in [(1, 2), (4, 1), (0, 3), (3, 3)]))


def test_a_branch_that_these_inputs_do_not_fit_is_an_error_only_when_taken() -> None:
    """One branch takes rows in pairs, which an odd number of them cannot give (Silero VAD: one net for each sampling rate)."""
    text = (
        HEAD
        + """agraph (bool c, float[n, 2] x) => (float[a, b] y) {
        y = If (c) <
          then_branch = p () => (float[a1, b1] s) { pairs = Constant <value = int64[2] {-1, 4}> () s = Reshape (x, pairs) },
          else_branch = q () => (float[a2, b2] t) { t = Neg (x) }
        >
    }"""
    )
    yes, no = np.array(True), np.array(False)
    both(text, {"c": yes, "x": f32(4, 2)}, {"c": no, "x": f32(4, 2)}, {"c": no, "x": f32(3, 2)})
    ours = frugal.InferenceSession(compile_model(parse_model(text)))
    with pytest.raises(frugal.InvalidArgument, match="element count"):
        ours.run(None, {"c": yes, "x": f32(3, 2)})
    assert ours.run(None, {"c": yes, "x": f32(2, 2)})[0].shape == (1, 4)


SQUEEZE = """agraph (float[n, k] x) => (float[n] y) {
    size = Shape (x)
    last = Constant <value = int64 {1}> ()
    d = Gather (size, last)
    one = Constant <value = int64 {1}> ()
    c = Equal (d, one)
    axes = Constant <value = int64[1] {1}> ()
    z = If (c) <
      then_branch = p () => (float[n] s) { s = Squeeze (x, axes) },
      else_branch = q () => (float[n, k2] t) { t = Identity (x) }
    >
    y = Neg (z)
}"""


def test_pytorchs_squeeze_is_compiled_for_a_dim_of_one() -> None:
    both(HEAD + SQUEEZE, {"x": f32(3, 1)}, {"x": f32(5, 1)})
    graph, _ = lower_model(parse_model(HEAD + SQUEEZE))
    assert Op.IF not in [s.op for s in graph.steps]
    with pytest.raises(frugal.InvalidArgument):
        frugal.InferenceSession(compile_model(parse_model(HEAD + SQUEEZE))).run(None, {"x": f32(3, 2)})
