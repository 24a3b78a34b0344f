"""TFLite import: every operator and real models against what ai-edge-litert computes (recorded, see make_tflite_golden.py)."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("tflite", reason="the extra `tflite` is not installed")

from frugal.quantize import export

import frugal
from frugal.errors import InvalidModel, MissingExtra, NotAvailable, UnsupportedOperator

from . import make_tflite_golden as golden
from .tflite_cases import CASES, Case, Maker
from .tflite_run import Feeds, litert, onnx_runs, onnxruntime_session

HAS_LITERT = importlib.util.find_spec("ai_edge_litert") is not None


def exported(tmp_path: Path, model: bytes, name: str = "m") -> Path:
    source, out = tmp_path / f"{name}.tflite", tmp_path / f"{name}.onnx"
    source.write_bytes(model)
    export(source, out)
    return out


def assert_close(got: list[list[np.ndarray]], want: list[list[np.ndarray]], case: Case) -> None:
    """Types and shapes equal; integers at most case.steps apart, floats within its tolerances."""
    assert len(got) == len(want)
    for mine, theirs in zip(got, want, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            if a.dtype.kind == "f":
                np.testing.assert_allclose(a, b, rtol=case.rtol, atol=case.atol)
            elif a.size:
                assert np.abs(a.astype(np.int64) - b.astype(np.int64)).max() <= case.steps


@pytest.mark.parametrize("name", CASES)
def test_operator(tmp_path: Path, name: str) -> None:
    """In onnxruntime without optimizations, as it comes, and in frugal where its operators are there."""
    case = golden.made(name)
    want = golden.recorded(f"case/{name}", case.model, case.feeds)
    path = exported(tmp_path, case.model)
    onnx.checker.check_model(str(path), full_check=True)
    for optimize in (False, True):
        assert_close(onnx_runs(path, onnxruntime_session(path, optimize), case.feeds), want, case)
    try:
        session = frugal.InferenceSession(str(path))
    except (UnsupportedOperator, NotAvailable):
        return
    assert_close(onnx_runs(path, session, case.feeds), want, case)


@pytest.mark.skipif(not HAS_LITERT, reason="ai-edge-litert is not installed")
@pytest.mark.parametrize("name", list(CASES)[::9])
def test_recorded_outputs_are_tflites(name: str) -> None:
    case = golden.made(name)
    assert_close(golden.recorded(f"case/{name}", case.model, case.feeds), litert(case.model, case.feeds), case)


def real(name: str) -> tuple[bytes, Feeds, list[list[np.ndarray]]]:
    model = (golden.DATA / f"{name}.tflite").read_bytes()
    feeds = golden.random_feeds(*golden.REAL[name])
    return model, feeds, golden.recorded(f"model/{name}", model, feeds)


def integer_session(path: Path) -> Any:
    """onnxruntime with its integer kernels for int8 activations, which it uses on x86 only when told to."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def off_by(got: list[list[np.ndarray]], want: list[list[np.ndarray]]) -> np.ndarray:
    """By input: the largest difference of a probability, in steps."""
    return np.array([np.abs(a[0].astype(int) - b[0].astype(int)).max() for a, b in zip(got, want, strict=True)])


@pytest.mark.parametrize("name", ["kws_ref_model", "pretrainedResnet_quant"])
def test_mlperf_tiny_in_onnxruntime(tmp_path: Path, name: str) -> None:
    model, feeds, want = real(name)
    path = exported(tmp_path, model)
    assert off_by(onnx_runs(path, integer_session(path), feeds), want).max() <= 1


@pytest.mark.parametrize("name", ["kws_ref_model", "pretrainedResnet_quant"])
def test_mlperf_tiny_in_frugal(tmp_path: Path, name: str) -> None:
    model, feeds, want = real(name)
    try:
        session = frugal.InferenceSession(str(exported(tmp_path, model)))
    except (UnsupportedOperator, NotAvailable) as e:
        pytest.skip(str(e))
    assert off_by(onnx_runs(tmp_path / "m.onnx", session, feeds), want).max() == 0, "XNNPACK's bits, sums included"


def xnnpack_sum(a: np.ndarray, b: np.ndarray, scales: tuple[float, float, float], zeros: tuple[int, int, int]) -> np.ndarray:
    """int8 [n] as XNNPACK's qs8-vadd gives them: integer multipliers, the larger one of 21 bits, half a step up."""
    ratios = [np.float32(s) / np.float32(scales[2]) for s in scales[:2]]
    shift = 21 - int(np.frexp(max(ratios))[1])
    ma, mb = (int(np.rint(float(r) * 2.0**shift)) for r in ratios)
    total = ma * (a.astype(np.int64) - zeros[0]) + mb * (b.astype(np.int64) - zeros[1])
    return np.clip(((total + (1 << (shift - 1))) >> shift) + zeros[2], -128, 127)


@pytest.mark.parametrize("seed", [1, 6])
def test_sums_round_as_in_litert(tmp_path: Path, seed: int) -> None:
    """All pairs of codes, with scales for which two sums would round otherwise if they were those of the tensors."""
    rng = np.random.default_rng(seed)
    sa, sb, sy = (float(v) for v in rng.uniform(0.02, 0.2, 3).astype(np.float32))
    zeros = tuple(int(v) for v in rng.integers(-20, 20, 3))
    m = Maker(rng)
    a, b = m.input((65536,), "int8", scale=sa, zero=zeros[0]), m.input((65536,), "int8", scale=sb, zero=zeros[1])
    y = m.activation((65536,), "int8", scale=sy, zero=zeros[2])
    m.op("ADD", [a, b], [y], "AddOptions", FusedActivationFunction=0)
    m.io([a, b], [y])
    left, right = (v.reshape(-1).astype(np.int8) for v in np.meshgrid(*[np.arange(-128, 128)] * 2))
    session = frugal.InferenceSession(str(exported(tmp_path, m.bytes())))
    (got,) = session.run(None, {"t0": left, "t1": right})
    np.testing.assert_array_equal(got, xnnpack_sum(left, right, (sa, sb, sy), zeros))


def test_int8_weights_with_float_activations(tmp_path: Path) -> None:
    """TFLite rounds these activations to 8 bits at run time, each of its kernels in another way, the export does not: outputs are
    probabilities, and rounding of the inputs of four layers moves them by a few percent (two of TFLite's own kernels: 0.14)."""
    model, feeds, want = real("kws_ref_model_float32")
    path = exported(tmp_path, model)
    got = onnx_runs(path, onnxruntime_session(path, True), feeds)
    assert max(np.abs(a[0] - b[0]).max() for a, b in zip(got, want, strict=True)) < 0.08
    same = sum(a[0].argmax() == b[0].argmax() for a, b in zip(got, want, strict=True))
    assert same >= len(feeds) * 0.98


def packaged(name: str) -> Path:
    path = Path(__file__).resolve().parents[1] / "models.py"
    spec = importlib.util.spec_from_file_location("frugal_test_models", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.fetch_or_skip(name)


@pytest.mark.parametrize("name", golden.WAKE_WORDS)
def test_wake_words_stream(tmp_path: Path, name: str) -> None:
    """400 steps, six state variables carried: no output differs by more than a step."""
    model, feeds = (packaged("wake-words") / f"{name}.tflite").read_bytes(), golden.streamed_feeds(*golden.WAKE_INPUT)
    want = golden.recorded(f"model/{name}", model, feeds)
    path = exported(tmp_path, model)
    case = Case(model, feeds)
    for session in (onnxruntime_session(path, True), onnxruntime_session(path, False), integer_session(path)):
        assert_close(onnx_runs(path, session, feeds), want, case)
    try:
        mine = frugal.InferenceSession(str(path))
    except (UnsupportedOperator, NotAvailable):
        return
    assert_close(onnx_runs(path, mine, feeds), want, case)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LITERT, reason="ai-edge-litert is not installed")
def test_basic_pitch(tmp_path: Path) -> None:
    """222 float operators, shapes computed from shapes; log and division amplify the rounding of long sums."""
    model = (packaged("basic-pitch") / "nmp.tflite").read_bytes()
    rng = np.random.default_rng(1)
    feeds = [{"serving_default_input_2:0": rng.normal(0, 0.1, (1, 43844, 1)).astype(np.float32)}]
    path = exported(tmp_path, model)
    got = onnx_runs(path, onnxruntime_session(path, True), feeds)
    assert_close(
        [sorted(got[0], key=np.sum)], [sorted(litert(model, feeds)[0], key=np.sum)], Case(model, feeds, rtol=1e-3, atol=1e-4)
    )


# --- the graph -------------------------------------------------------------------------------------------------


def kinds(path: Path) -> list[str]:
    return [n.op_type for n in onnx.load(path).graph.node]


def test_transposes_only_at_the_edges(tmp_path: Path) -> None:
    """An image comes in as NHWC and leaves the pool as a vector: one Transpose in the whole network."""
    for name in ("kws_ref_model", "pretrainedResnet_quant"):
        path = exported(tmp_path, (golden.DATA / f"{name}.tflite").read_bytes())
        assert kinds(path).count("Transpose") == 1


def test_names_types_and_metadata(tmp_path: Path) -> None:
    model = (golden.DATA / "kws_ref_model.tflite").read_bytes()
    proto = onnx.load(exported(tmp_path, model, "kws"))
    (x,), (y,) = proto.graph.input, proto.graph.output
    assert (x.name, y.name) == ("input_1", "Identity")
    assert x.type.tensor_type.elem_type == y.type.tensor_type.elem_type == onnx.TensorProto.INT8
    assert [d.dim_param or d.dim_value for d in x.type.tensor_type.shape.dim] == ["batch", 49, 10, 1]
    props = {p.key: p.value for p in proto.metadata_props}
    assert len(props["frugal.sha256.kws.tflite"]) == 64 and props["frugal.importer"].startswith("tflite ")
    assert {"Identity", "functional_1/average_pooling2d/AvgPool"} <= {n.name for n in proto.graph.node}
    assert len({n.name for n in proto.graph.node}) == len(proto.graph.node)


def test_any_batch(tmp_path: Path) -> None:
    """The file says that the first dimension may change."""
    model, feeds, want = real("kws_ref_model")
    path = exported(tmp_path, model)
    x = np.concatenate([f["input_1"] for f in feeds[:5]])
    (y,) = integer_session(path).run(None, {"input_1": x})
    np.testing.assert_array_equal(y, np.concatenate([w[0] for w in want[:5]]))


def test_adjacent_transposes_cancel(tmp_path: Path) -> None:
    """NHWC -> NCHW -> relu -> NHWC, as converters write around layers of the other order: no Transpose is left."""
    m = Maker(np.random.default_rng(1))
    x, a, b, y = m.input((1, 4, 5, 3)), m.tensor((1, 3, 4, 5)), m.tensor((1, 3, 4, 5)), m.tensor((1, 4, 5, 3))
    k, c = m.weights((3, 1, 1, 3), "float32"), m.tensor((1, 4, 5, 3))
    m.op("CONV_2D", [x, k, -1], [c], "Conv2DOptions", StrideH=1, StrideW=1, Padding=0)
    m.op("TRANSPOSE", [c, m.ints([0, 3, 1, 2])], [a])
    m.op("TANH", [a], [b])
    m.op("TRANSPOSE", [b, m.ints([0, 2, 3, 1])], [y])
    path = exported(tmp_path, m.case(y).model)
    assert kinds(path) == ["Transpose", "Conv", "Tanh", "Transpose"]


def test_shared_weights_are_written_once(tmp_path: Path) -> None:
    m = Maker(np.random.default_rng(1))
    x, h, y = m.input((2, 8), "int8", scale=0.05), m.activation((2, 8), "int8"), m.activation((2, 8), "int8")
    w = m.weights((8, 8), "int8")
    for a, b in ((x, h), (h, y)):
        m.op("FULLY_CONNECTED", [a, w, -1], [b], "FullyConnectedOptions")
    graph = onnx.load(exported(tmp_path, m.case(y).model)).graph
    assert sum(list(t.dims) == [8, 8] for t in graph.initializer) == 1
    assert sum(n.op_type == "DequantizeLinear" and n.input[0] == "t3" for n in graph.node) == 1


def test_clamps_that_the_range_implies_are_left_out(tmp_path: Path) -> None:
    """RELU with the zero point at -128 needs no node, RELU6 up to 6 neither, RELU with another zero point does."""
    for zero, scale, act, want in ((-128, 0.1, 1, 0), (-128, 6 / 255, 3, 0), (-100, 0.1, 1, 1), (-128, 0.1, 3, 1)):
        m = Maker(np.random.default_rng(1))
        x, y = m.input((1, 8), "int8"), m.activation((1, 4), "int8", scale=scale, zero=zero)
        m.op("FULLY_CONNECTED", [x, m.weights((4, 8), "int8"), -1], [y], "FullyConnectedOptions", FusedActivationFunction=act)
        found = kinds(exported(tmp_path, m.case(y).model))
        assert sum(k in ("Relu", "Clip") for k in found) == want


def test_half_precision_weights(tmp_path: Path) -> None:
    """float16 constants behind DEQUANTIZE stay float16 in the file."""
    m = Maker(np.random.default_rng(1))
    x, y = m.input((3, 8)), m.tensor((3, 4))
    values = m.rng.normal(0, 1, (4, 8)).astype(np.float16)
    half, full = m.tensor(dtype="float16", data=values), m.tensor((4, 8))
    m.op("DEQUANTIZE", [half], [full])
    m.op("FULLY_CONNECTED", [x, full, -1], [y], "FullyConnectedOptions")
    case = m.case(y)
    path = exported(tmp_path, case.model)
    assert [t.data_type for t in onnx.load(path).graph.initializer] == [onnx.TensorProto.FLOAT16]
    want = [[f["t0"] @ values.astype(np.float32).T] for f in case.feeds]
    assert_close(onnx_runs(path, onnxruntime_session(path, True), case.feeds), want, case)


def test_int4_weights(tmp_path: Path) -> None:
    m = Maker(np.random.default_rng(1))
    codes = m.rng.integers(-8, 8, (3, 7))
    x, w, y = m.input((2, 7)), m.tensor(dtype="int4", data=codes, scale=0.1), m.tensor((2, 3))
    m.op("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions")
    case = m.case(y)
    path = exported(tmp_path, case.model)
    want = [[f["t0"] @ (codes * np.float32(0.1)).T.astype(np.float32)] for f in case.feeds]
    assert_close(onnx_runs(path, onnxruntime_session(path, True), case.feeds), want, case)


@pytest.mark.parametrize("blocked", [False, True])
def test_sparse_weights(tmp_path: Path, blocked: bool) -> None:
    """[4, 8], two rows with a few elements; or blocks of [1, 4]."""
    m = Maker(np.random.default_rng(1))
    dense = np.zeros((4, 8), np.float32)
    if blocked:
        dense[0, 4:], dense[3, :4] = [1, 2, 3, 4], [5, 6, 7, 8]
        stored, sparsity = np.arange(1, 9), ([0, 1, 2], [1], [4, ([0, 1, 1, 1, 2], [1, 0]), 4])
    else:
        dense[0, 3], dense[0, 7], dense[2, 1] = 1, 2, 3
        stored, sparsity = np.arange(1, 4), ([0, 1], [], [4, ([0, 2, 2, 3, 3], [3, 7, 1])])
    x, y = m.input((3, 8)), m.tensor((3, 4))
    w = m.tensor(data=stored.astype(np.float32), sparsity=sparsity)
    m.tensors[w]["shape"] = [4, 8]
    full = m.tensor((4, 8))
    m.op("DENSIFY", [w], [full])
    m.op("FULLY_CONNECTED", [x, full, -1], [y], "FullyConnectedOptions")
    case = m.case(y)
    path = exported(tmp_path, case.model)
    want = [[f["t0"] @ dense.T] for f in case.feeds]
    assert_close(onnx_runs(path, onnxruntime_session(path, True), case.feeds), want, case)


def test_state_in_the_metadata(tmp_path: Path) -> None:
    case = golden.made("variables")
    proto = onnx.load(exported(tmp_path, case.model))
    state = json.loads({p.key: p.value for p in proto.metadata_props}["frugal.state"])
    assert list(state) == ["line"]
    entry = state["line"]
    assert (entry["input"], entry["output"], entry["dtype"], entry["shape"]) == ("line_in", "line_out", "int8", [1, 4, 3])
    assert [i.name for i in proto.graph.input] == ["t0", "line_in"]
    assert len(proto.graph.output) == 2 and proto.graph.output[1].name == "line_out"


def test_outputs_that_are_inputs_constants_or_twice(tmp_path: Path) -> None:
    """ONNX wants outputs with names of their own."""
    m = Maker(np.random.default_rng(1))
    x, c = m.input((2, 3)), m.tensor(data=np.float32([1, 2]))
    y = m.tensor((2, 3))
    m.op("ABS", [x], [y])
    case = m.case(y, c, y, x)
    path = exported(tmp_path, case.model)
    names = [o.name for o in onnx.load(path).graph.output]
    assert names == ["t2", "t1", "t0/output"]
    got = onnxruntime_session(path, True).run(None, case.feeds[0])
    np.testing.assert_array_equal(got[0], np.abs(case.feeds[0]["t0"]))
    np.testing.assert_array_equal(got[1], [1, 2])
    np.testing.assert_array_equal(got[2], case.feeds[0]["t0"])


def test_equal_and_empty_names(tmp_path: Path) -> None:
    m = Maker(np.random.default_rng(1))
    x = m.input((2, 3), name="same")
    a, b, y = m.tensor((2, 3), name="same"), m.tensor((2, 3), name=""), m.tensor((2, 3), name="same")
    for i, o in ((x, a), (a, b), (b, y)):
        m.op("NEG", [i], [o])
    path = exported(tmp_path, m.case(y).model)
    value = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(onnxruntime_session(path, True).run(None, {"same": value})[0], -value)


# --- what is refused -------------------------------------------------------------------------------------------


def refused(tmp_path: Path, model: bytes, words: str, error: type[Exception] = InvalidModel) -> None:
    with pytest.raises(error, match=words) as caught:
        exported(tmp_path, model)
    assert "m.tflite" in str(caught.value)
    assert not (tmp_path / "m.onnx").exists()


def test_custom_and_unknown_operators_are_named(tmp_path: Path) -> None:
    m = Maker(np.random.default_rng(1))
    x, a, y = m.input((2, 3)), m.tensor((2, 3)), m.tensor((2, 3))
    m.op("CUSTOM", [x], [a], custom="MyFilterbank")
    m.op("LSH_PROJECTION", [a], [y])
    refused(tmp_path, m.case(y).model, "custom operator 'MyFilterbank'.*LSH_PROJECTION", UnsupportedOperator)


@pytest.mark.parametrize("data", [b"", b"\x07\x07nothing", b"\x18\0\0\0TFL3", b"\xff" * 64, b"\xff\xff\xff\x7fTFL3" + bytes(64)])
def test_not_tflite(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path, data, "not a TFLite file|malformed|schema version")


def broken(change: Any) -> bytes:
    """y = x W^T + b with something wrong."""
    m = Maker(np.random.default_rng(1))
    x, y = m.input((2, 8), "int8"), m.activation((2, 4), "int8")
    w = m.weights((4, 8), "int8")
    m.op("FULLY_CONNECTED", [x, w, m.bias(4, x, w)], [y], "FullyConnectedOptions")
    change(m)
    return m.case(y).model


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda m: m.ops[0]["inputs"].__setitem__(1, 99), "tensor 99 of 4"),
        (lambda m: m.tensors[2].update(shape=[4, 9]), "tensor 2 't2'.*36 bytes.*32"),
        (lambda m: m.tensors[2].update(shape=[2**30, 2**30]), "tensor 2 't2'.*times the file"),
        (lambda m: m.tensors[2].update(buffer=77), "tensor 2 't2'.*buffer 77"),
        (lambda m: m.tensors[2].update(scale=[0.1, 0.2]), "2 scales do not fit"),
        (lambda m: m.tensors[2].update(scale=[0.1, float("nan")]), "not finite"),
        (lambda m: m.tensors[1].update(zero=1000), "tensor 1 't1'.*zero point"),
        (lambda m: m.tensors[1].update(scale=None), "tensor 1 't1'.*without scale"),
        (lambda m: m.tensors[3].update(shape=[2, 2]), "bias"),
        (lambda m: m.tensors[0].update(shape=[2, -5]), "shape"),
        (lambda m: m.ops.append(m.ops[0]), "written twice"),
        (lambda m: m.ops.clear(), "tensor 1 't1'.*before any operator"),
        (lambda m: m.ops[0].update(options="Conv2DOptions", fields={}), "FullyConnectedOptions"),
        (lambda m: m.ops[0].update(inputs=[0]), "input 1 is missing"),
    ],
)
def test_contradictions(tmp_path: Path, change: Any, words: str) -> None:
    refused(tmp_path, broken(change), words)


def test_subgraphs_in_themselves(tmp_path: Path) -> None:
    m = Maker(np.random.default_rng(1))
    for graph in range(2):
        c, x, y = m.tensor((), "bool", data=True), m.tensor((2,)), m.tensor((2,))
        m.op("IF", [c, x], [y], "IfOptions", ThenSubgraphIndex=1, ElseSubgraphIndex=1)
        m.io([x], [y])
        if not graph:
            m.graph()
    refused(tmp_path, m.bytes(), "nested more than 16 deep")


def test_damaged_files(tmp_path: Path) -> None:
    """Bits flipped, words replaced, ends cut off: an export or an error of frugal that names the file, never anything else."""
    rng = np.random.default_rng(3)
    models = [CASES[name](np.random.default_rng(1)).model for name in list(CASES)[::11]]
    exports = 0
    for _ in range(600):
        data = bytearray(models[rng.integers(len(models))])
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(data) - 4)) & ~3
            word = (0, 1, 2**31 - 1, 2**32 - 1, 4, len(data))[rng.integers(6)]
            if rng.random() < 0.5:
                data[at] ^= 1 << int(rng.integers(8))
            else:
                data[at : at + 4] = word.to_bytes(4, "little")
        if rng.random() < 0.1:
            del data[rng.integers(len(data)) :]
        try:
            exported(tmp_path, bytes(data))
            exports += 1
        except InvalidModel as e:
            assert "m.tflite" in str(e)
    assert 30 < exports < 570  # some damage is harmless, some is not


def test_the_package_is_named_when_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tflite", None)
    with pytest.raises(MissingExtra, match=r"frugal-edge\[tflite\]"):
        exported(tmp_path, golden.made("abs_float32").model)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from frugal.cli import main

    assert main(["export", str(golden.DATA / "kws_ref_model.tflite"), str(tmp_path / "kws.onnx")]) in (0, None)
    out = capsys.readouterr().out
    assert "tflite" in out and "input_1 [batch, 49, 10, 1]" in out
