"""Quantized graphs: forms, every kind of weight use, reports, static activations, refusals."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from frugal.quantize import export, int4, int8, quantize
from frugal.quantize.calibrate import Histogram
from frugal.quantize.verify import session
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

from frugal.errors import FrugalError, InvalidArgument, InvalidModel

from . import checkpoints as cp

RNG = np.random.default_rng(0)
W = RNG.standard_normal((64, 48)).astype(np.float32)  # [N, K] for Transpose/transB, [K, N] as it is
X = RNG.standard_normal((5, 64)).astype(np.float32)


def save(
    path: Path,
    nodes: list[Any],
    init: dict[str, np.ndarray],
    inputs: dict[str, np.ndarray] | None = None,
    opset: int = 24,
    outputs: tuple[str, ...] = ("y",),
    external: bool = False,
) -> Path:
    """A model; inputs like the arrays given, first dimension free; outputs of unknown shape."""
    ins = [
        h.make_tensor_value_info(k, h.np_dtype_to_tensor_dtype(v.dtype), ["n", *v.shape[1:]])
        for k, v in (inputs or {"x": X}).items()
    ]
    outs = [h.make_tensor_value_info(o, T.FLOAT, None) for o in outputs]
    g = h.make_graph(nodes, "g", ins, outs, [nh.from_array(v, k) for k, v in init.items()])
    m = h.make_model(g, opset_imports=[h.make_opsetid("", opset)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(m)
    onnx.save(inferred, path, save_as_external_data=external, location="w.bin", size_threshold=64)
    return path


def node(kind: str, inputs: list[str], out: str, **a: Any) -> Any:
    return h.make_node(kind, inputs, [out], name=f"{out}_node", **a)


def outputs(path: Path, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    return list(session(path).run(None, feeds))


def close(a: Path, b: Path, feeds: dict[str, np.ndarray], relative: float) -> None:
    """Quantized outputs near the float ones, in 2-norm."""
    for x, y in zip(outputs(a, feeds), outputs(b, feeds), strict=True):
        assert np.linalg.norm(x - y) <= relative * np.linalg.norm(x)


def names(path: Path) -> dict[str, tuple[int, list[int]]]:
    return {t.name: (t.data_type, list(t.dims)) for t in onnx.load(path).graph.initializer}


FORMS = {
    "matmul": ([node("MatMul", ["x", "w"], "y")], {"w": W}),
    "transpose": ([node("Transpose", ["w"], "t", perm=[1, 0]), node("MatMul", ["x", "t"], "y")], {"w": W.T.copy()}),
    "add": ([node("MatMul", ["x", "w"], "m"), node("Add", ["m", "b"], "y")], {"w": W, "b": W[0]}),
    "gemm": ([node("Gemm", ["x", "w", "b"], "y")], {"w": W, "b": W[0]}),
    "gemm-b": ([node("Gemm", ["x", "w"], "y", transB=1)], {"w": W.T.copy()}),
    "gemm-ab": ([node("Gemm", ["x", "w", "b"], "y", alpha=0.5, beta=2.0)], {"w": W, "b": W[0]}),
    "gemm-alpha-t": ([node("Gemm", ["x", "w"], "y", alpha=-2.0, transB=1)], {"w": W.T.copy()}),
    "half": ([node("Cast", ["w"], "f", to=T.FLOAT), node("MatMul", ["x", "f"], "y")], {"w": W.astype(np.float16)}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scheme,relative", [("int8", 0.01), ("int4", 0.12)])
def test_linear_forms(tmp_path: Path, form: str, scheme: str, relative: float) -> None:
    a = save(tmp_path / "a.onnx", *FORMS[form])
    r = quantize(a, tmp_path / "q.onnx", scheme=scheme)
    onnx.checker.check_model(r.out, full_check=True)
    close(a, Path(r.out), {"x": X}, relative)
    have, k = names(Path(r.out)), 64
    if scheme == "int8":
        assert have["w.int8"] == (T.INT8, [48, k]) and have["w.scale"] == (T.FLOAT, [48])
    else:
        blocks = [48, k // 32]
        assert have["w.int4"] == (T.INT4, [48, k])
        assert have["w.scale"] == (T.FLOAT16, blocks) and have["w.zero"] == (T.INT4, blocks)
    assert "w" not in have
    ops = Counter(n.op_type for n in onnx.load(r.out).graph.node)
    assert ops["Gemm"] == 0 and ops["DequantizeLinear"] == 1
    assert r.outputs[0].cosine_mean > 0.99 and r.verified_on == "generated"
    json.dumps(r.to_dict())


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_values_are_exactly_those_of_the_rounding(tmp_path: Path, scheme: str) -> None:
    a = save(tmp_path / "a.onnx", *FORMS["matmul"])
    quantize(a, tmp_path / "q.onnx", scheme=scheme)
    w = np.ascontiguousarray(W.T)
    back = int8.dequantize_rows(*int8.quantize_rows(w)) if scheme == "int8" else int4.dequantize_blocks(*int4.quantize_blocks(w))
    np.testing.assert_allclose(outputs(tmp_path / "q.onnx", {"x": np.eye(64, dtype=np.float32)})[0], back.T, atol=1e-6)


def test_canonical_patterns(tmp_path: Path) -> None:
    """The node patterns of docs/quantization.md, which the compiler recognises, written out."""
    a = save(tmp_path / "a.onnx", *FORMS["matmul"])
    wanted = {
        "int8": [
            ("Transpose", ["w.int8"], {"perm": [1, 0]}),
            ("DequantizeLinear", ["Transpose", "w.scale"], {"axis": 1}),
            ("MatMul", ["x", "DequantizeLinear"], {}),
        ],
        "int4": [
            ("Transpose", ["w.int4"], {"perm": [1, 0]}),
            ("Cast", ["w.scale"], {"to": T.FLOAT}),
            ("Transpose", ["Cast"], {"perm": [1, 0]}),
            ("Transpose", ["w.zero"], {"perm": [1, 0]}),
            ("DequantizeLinear", ["Transpose", "Transpose", "Transpose"], {"axis": 0, "block_size": 32}),
            ("MatMul", ["x", "DequantizeLinear"], {}),
        ],
    }
    for scheme, want in wanted.items():
        quantize(a, tmp_path / "q.onnx", scheme=scheme)
        g = onnx.load(tmp_path / "q.onnx").graph
        made = {o: n.op_type for n in g.node for o in n.output}
        got = [
            (n.op_type, [made.get(i, i) for i in n.input], {x.name: h.get_attribute_value(x) for x in n.attribute})
            for n in g.node
        ]
        assert got == want


def test_table_pattern_and_tied_head(tmp_path: Path) -> None:
    table = RNG.standard_normal((50, 64)).astype(np.float32)
    nodes = [node("Gather", ["w", "ids"], "e"), node("Transpose", ["w"], "t", perm=[1, 0]), node("MatMul", ["e", "t"], "y")]
    ids = np.array([[1, 2, 3], [49, 0, 7]])
    a = save(tmp_path / "a.onnx", nodes, {"w": table}, {"ids": ids})
    for scheme in ("int8", "int4"):
        r = quantize(a, tmp_path / "q.onnx", scheme=scheme)
        assert names(tmp_path / "q.onnx") == {
            "w.int8": (T.INT8, [50, 64]),
            "w.scale": (T.FLOAT, [50]),
            "w.row_scale": (T.FLOAT, [50, 1]),
        }
        assert [t.bits for t in r.tensors] == [8] and len(r.tensors[0].nodes) == 2
        close(a, tmp_path / "q.onnx", {"ids": ids}, 0.02)
        g = onnx.load(tmp_path / "q.onnx").graph
        d = next(n for n in g.node if list(n.output) == ["e"])
        assert d.op_type == "DequantizeLinear"
        assert {x.name: h.get_attribute_value(x) for x in d.attribute} == {"axis": -1, "block_size": 64}


@pytest.mark.parametrize("ids", [np.array([3, 1, 2]), np.zeros((2, 3, 4), np.int64)])
def test_table_with_any_rank_of_ids(tmp_path: Path, ids: np.ndarray) -> None:
    a = save(tmp_path / "a.onnx", [node("Gather", ["w", "ids"], "y")], {"w": W}, {"ids": ids})
    quantize(a, tmp_path / "q.onnx")
    close(a, tmp_path / "q.onnx", {"ids": ids}, 0.01)


def test_zero_rows_and_blocks(tmp_path: Path) -> None:
    w = W.copy()
    w[:, :5] = 0
    a = save(tmp_path / "a.onnx", [node("MatMul", ["x", "w"], "y")], {"w": w})
    for scheme in ("int8", "int4"):
        quantize(a, tmp_path / "q.onnx", scheme=scheme)
        y = outputs(tmp_path / "q.onnx", {"x": X})[0]
        assert np.isfinite(y).all() and (y[:, :5] == 0).all()


def test_int4_falls_back_to_int8(tmp_path: Path) -> None:
    w = RNG.standard_normal((40, 48)).astype(np.float32)
    x = RNG.standard_normal((5, 40)).astype(np.float32)
    a = save(tmp_path / "a.onnx", [node("MatMul", ["x", "w"], "y")], {"w": w}, {"x": x})
    r = quantize(a, tmp_path / "q.onnx", scheme="int4")
    assert [t.bits for t in r.tensors] == [8] and "not a multiple of 32" in r.notes[0]
    close(a, tmp_path / "q.onnx", {"x": x}, 0.01)


def test_shared_weight(tmp_path: Path) -> None:
    w = RNG.standard_normal((64, 64)).astype(np.float32)
    nodes = [
        node("MatMul", ["x", "w"], "a"),
        node("MatMul", ["a", "w"], "b"),
        node("Transpose", ["w"], "t", perm=[1, 0]),
        node("MatMul", ["b", "t"], "y"),
    ]
    a = save(tmp_path / "a.onnx", nodes, {"w": w})
    r = quantize(a, tmp_path / "q.onnx")
    # once as W and once as its transpose: scales belong to different axes
    assert sorted(len(t.nodes) for t in r.tensors) == [1, 2]
    close(a, tmp_path / "q.onnx", {"x": X}, 0.03)


def test_other_uses_keep_the_float_tensor(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], "m"), node("ReduceSum", ["w"], "s", keepdims=0), node("Add", ["m", "s"], "y")]
    a = save(tmp_path / "a.onnx", nodes, {"w": W})
    r = quantize(a, tmp_path / "q.onnx")
    assert {"w", "w.int8"} <= set(names(tmp_path / "q.onnx")) and "stay float" in r.notes[0]
    close(a, tmp_path / "q.onnx", {"x": X}, 0.01)


def test_use_in_a_body_keeps_the_float_tensor(tmp_path: Path) -> None:
    out = h.make_tensor_value_info("r", T.FLOAT, None)
    yes = h.make_graph([h.make_node("MatMul", ["x", "w"], ["r"])], "yes", [], [out])
    no = h.make_graph([h.make_node("MatMul", ["x", "w2"], ["r"])], "no", [], [out])
    nodes = [
        node("MatMul", ["x", "w"], "m"),
        h.make_node("If", ["c"], ["i"], then_branch=yes, else_branch=no),
        node("Add", ["m", "i"], "y"),
    ]
    a = save(tmp_path / "a.onnx", nodes, {"w": W, "w2": W * 2, "c": np.array(True)})
    quantize(a, tmp_path / "q.onnx")
    assert {"w", "w2", "w.int8"} <= set(names(tmp_path / "q.onnx"))
    close(a, tmp_path / "q.onnx", {"x": X}, 0.01)


def test_exclude_small_and_stacked(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "w"], "a"),
        node("MatMul", ["x", "v"], "b"),
        node("MatMul", ["x", "tiny"], "c"),
        node("MatMul", ["x", "stack"], "d"),
        node("Sum", ["a", "b", "c", "d"], "y"),
    ]
    init = {"w": W, "v": W * 2, "tiny": W[:, :1].copy(), "stack": W[None]}
    a = save(tmp_path / "a.onnx", nodes, init)
    r = quantize(a, tmp_path / "q.onnx", exclude=["b_*"])
    assert [t.name for t in r.tensors] == ["w"]
    reasons = dict(r.skipped)
    assert "excluded" in reasons["b_node"] and "fewer" in reasons["c_node"] and "3 dimensions" in reasons["d_node"]
    assert [t.name for t in quantize(a, tmp_path / "q.onnx", exclude=["v"]).tensors] == ["w"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_nan_weights_are_named(tmp_path: Path, bad: float, scheme: str) -> None:
    w = W.copy()
    w[3, 4] = bad
    a = save(tmp_path / "a.onnx", [node("MatMul", ["x", "broken_w"], "y")], {"broken_w": w})
    with pytest.raises(InvalidModel, match="'broken_w' holds NaN"):
        quantize(a, tmp_path / "q.onnx", scheme=scheme)
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]


def test_int4_refuses_huge_weights(tmp_path: Path) -> None:
    a = save(tmp_path / "a.onnx", [node("MatMul", ["x", "w"], "y")], {"w": W * np.float32(1e6)})
    with pytest.raises(InvalidModel, match="'w' passes"):
        quantize(a, tmp_path / "q.onnx", scheme="int4")


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_old_opsets_are_converted(tmp_path: Path, opset: int) -> None:
    nodes = [
        node("Gather", ["w", "ids"], "g"),
        node("Unsqueeze", ["g"], "u", axes=[1]) if opset < 13 else node("Unsqueeze", ["g", "one"], "u"),
        node("MatMul", ["u", "v"], "y"),
    ]
    init = {"w": RNG.standard_normal((20, 64)).astype(np.float32), "v": W, "one": np.array([1])}
    ids = np.array([1, 5, 7])
    a = save(tmp_path / "a.onnx", nodes, init, {"ids": ids}, opset=opset, external=opset == 18)
    r = quantize(a, tmp_path / "q.onnx", scheme="int4")
    assert f"from opset {opset} to 24" in r.notes[0]
    close(a, tmp_path / "q.onnx", {"ids": ids}, 0.15)


def test_already_quantized(tmp_path: Path) -> None:
    a = save(tmp_path / "a.onnx", *FORMS["matmul"])
    quantize(a, tmp_path / "q.onnx")
    with pytest.raises(InvalidModel, match=r"already quantized.*DequantizeLinear"):
        quantize(tmp_path / "q.onnx", tmp_path / "q2.onnx")


@pytest.mark.parametrize(
    "change,words",
    [
        ({"scheme": "int3"}, "scheme 'int3'"),
        ({"block_size": 48}, "block_size 48"),
        ({"exclude": "abc"}, "list"),
        ({"method": "x"}, "method"),
        ({"calibration": [], "calibration_method": "x"}, "calibration_method"),
        ({"calibration": [{"x": X}], "percentile": 3}, "percentile 3"),
    ],
)
def test_bad_arguments(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    a = save(tmp_path / "a.onnx", *FORMS["matmul"])
    with pytest.raises(InvalidArgument, match=words):
        quantize(a, tmp_path / "q.onnx", **change)


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no such file"):
        quantize(tmp_path / "none.onnx", tmp_path / "q.onnx")
    a = save(tmp_path / "a.onnx", [node("Relu", ["x"], "y")], {})
    with pytest.raises(InvalidModel, match="no MatMul"):
        quantize(a, tmp_path / "q.onnx")
    b = save(tmp_path / "b.onnx", *FORMS["matmul"])
    with pytest.raises(InvalidArgument, match="itself"):
        quantize(b, b)
    assert b.is_file()


def test_folder_in_and_out(tmp_path: Path) -> None:
    folder, c, _ = cp.tiny(tmp_path / "src", "bert")
    (folder / "tokenizer.json").write_text("{}")
    export(folder, tmp_path / "float")
    for scheme in ("int8", "int4"):
        r = quantize(tmp_path / "float", tmp_path / scheme, scheme=scheme)
        assert {p.name for p in (tmp_path / scheme).iterdir()} == {"model.onnx", "config.json", "tokenizer.json"}
        assert r.bytes_out < r.bytes_in / 2
        assert len(r.tensors) == 2 + 6 * cp.LAYERS  # the table of 2 token types is too small
        assert [name for name, _ in r.skipped] == ["embeddings.token_type_embeddings/Gather"]
        close(tmp_path / "float" / "model.onnx", Path(r.out), cp.feeds(c), 0.3)


def test_large_results_have_their_data_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from frugal.quantize import onnxfile

    monkeypatch.setattr(onnxfile, "SINGLE_FILE_LIMIT", 1000)
    a = save(tmp_path / "a.onnx", *FORMS["matmul"])
    r = quantize(a, tmp_path / "q.onnx")
    data = tmp_path / "q.onnx.data"
    assert data.is_file() and r.bytes_out == data.stat().st_size + (tmp_path / "q.onnx").stat().st_size
    close(a, tmp_path / "q.onnx", {"x": X}, 0.01)


def two_layers(tmp_path: Path) -> Path:
    v = RNG.standard_normal((48, 32)).astype(np.float32)
    nodes = [node("MatMul", ["x", "w"], "a"), node("Relu", ["a"], "b"), node("MatMul", ["b", "v"], "y")]
    return save(tmp_path / "a.onnx", nodes, {"w": W, "v": v})


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_static(tmp_path: Path, method: str) -> None:
    a = two_layers(tmp_path)
    feeds = [{"x": RNG.standard_normal((n, 64)).astype(np.float32)} for n in (3, 50, 1)]
    r = quantize(a, tmp_path / "q.onnx", calibration=feeds, calibration_method=method, per_layer=True)
    assert r.activations == "int8 static" and r.verified_on == "given"
    assert [n.name for n in r.nodes] == ["a", "y"]
    g = onnx.load(tmp_path / "q.onnx").graph
    assert Counter(n.op_type for n in g.node)["QuantizeLinear"] == 2
    values = {t.name: nh.to_array(t) for t in g.initializer}
    assert values["activation_zero"].dtype == np.int8 and values["activation_zero"] == 0
    if method == "minmax":
        peak = max(np.abs(f["x"]).max() for f in feeds)
        np.testing.assert_allclose(values["x.activation_scale"], peak / 127, rtol=1e-6)
    close(a, tmp_path / "q.onnx", feeds[1], 0.03)


def test_static_shares_the_quantized_input(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], "a"), node("MatMul", ["x", "v"], "b"), node("Add", ["a", "b"], "y")]
    a = save(tmp_path / "a.onnx", nodes, {"w": W, "v": W * 2})
    quantize(a, tmp_path / "q.onnx", calibration=[{"x": X}])
    ops = Counter(n.op_type for n in onnx.load(tmp_path / "q.onnx").graph.node)
    assert ops["QuantizeLinear"] == 1 and ops["DequantizeLinear"] == 3


def test_calibration_files(tmp_path: Path) -> None:
    a = two_layers(tmp_path)
    folder = tmp_path / "data"
    folder.mkdir()
    np.savez(folder / "1.npz", x=X)
    np.save(folder / "2.npy", X * 2)
    for source in (folder, str(folder / "1.npz"), iter([{"x": X}])):
        r = quantize(a, tmp_path / "q.onnx", calibration=source, validation=[{"x": X}])
        assert r.activations == "int8 static"


def test_bad_calibration_is_named(tmp_path: Path) -> None:
    a = two_layers(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    nan = X.copy()
    nan[0, 0] = np.nan
    for source, words in [
        ([{"x": nan}], "'x' holds NaN"),
        ([{"z": X}], "missing x.*unknown z"),
        ([3], "item 0"),
        ([], "no feeds"),
        ([{"x": X.astype(np.int64)}], "wants float32"),
        (tmp_path / "empty", "no .npz"),
        (tmp_path / "bad.npz", "bad.npz"),
        (tmp_path / "x.csv", "x.csv"),
        ([{"x": X[:, :3]}], "onnxruntime cannot run"),
    ]:
        with pytest.raises(FrugalError, match=words):
            quantize(a, tmp_path / "q.onnx", calibration=source)
        assert not (tmp_path / "q.onnx").exists()


def test_nan_inside_the_model_is_named(tmp_path: Path) -> None:
    nodes = [node("Log", ["x"], "logs"), node("MatMul", ["logs", "w"], "y")]
    a = save(tmp_path / "a.onnx", nodes, {"w": W})
    with pytest.raises(InvalidModel, match="'logs'"):
        quantize(a, tmp_path / "q.onnx", calibration=[{"x": X}])


def test_histogram_grows_and_bounds() -> None:
    x = [np.float32(RNG.standard_normal(5000) * s) for s in (0.01, 1, 30)]
    hist = Histogram()
    for part in x:
        hist.add(part)
    everything = np.abs(np.concatenate(x))
    assert hist.counts.sum() == everything.size and hist.peak == everything.max()
    for p in (50.125, 99, 99.875, 100):
        exact = np.percentile(everything, p, method="inverted_cdf")
        assert exact <= hist.percentile(p) * (1 + 1e-6) <= exact + hist.top / 1024
    assert Histogram().percentile(99) == 0


def test_static_encoder_runs(tmp_path: Path) -> None:
    folder, c, _ = cp.tiny(tmp_path / "src", "roberta")
    export(folder, tmp_path / "f.onnx")
    feeds = [cp.feeds(c, seed=s) for s in range(4)]
    r = quantize(tmp_path / "f.onnx", tmp_path / "q.onnx", calibration=feeds)
    assert r.outputs[0].cosine_mean > 0.995  # random weights of scale 0.3: int8 noise stays small
    assert ort.InferenceSession(r.out).get_inputs()[0].shape == ["batch", "sequence"]
