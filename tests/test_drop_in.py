"""One script, two runtimes: what holds for onnxruntime must hold for frugal."""

from __future__ import annotations

import warnings

import numpy as np
import onnxruntime
import pytest

import frugal
import tiny


@pytest.fixture(params=[onnxruntime, frugal], ids=["onnxruntime", "frugal"])
def rt(request):
    return request.param


IDS = np.array([[1, 2, 3], [4, 5, 49]])
SHIFT = np.linspace(-1, 1, 8, dtype=np.float32)
FEEDS = {"ids": IDS, "shift": SHIFT}


@pytest.fixture
def session(rt, embed_onnx):
    return rt.InferenceSession(str(embed_onnx), providers=["CPUExecutionProvider"])


def test_inputs_and_outputs(session):
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [
        ("ids", ["batch", "sequence"], "tensor(int64)"),
        ("shift", [8], "tensor(float)"),
    ]
    assert [(o.name, o.shape, o.type) for o in session.get_outputs()] == [
        ("rows", ["batch", "sequence", 8], "tensor(float)"),
        ("same", ["batch", "sequence"], "tensor(int64)"),
    ]


def test_every_type(rt):
    session = rt.InferenceSession(tiny.every_type().SerializeToString())
    assert [i.type for i in session.get_inputs()] == [
        "tensor(float)",
        "tensor(double)",
        "tensor(bool)",
        "tensor(int32)",
        "tensor(uint8)",
    ]
    assert session.get_inputs()[0].shape == ["n", None]
    feeds = {
        "f": np.array([[1.5, -2], [0, np.inf]], np.float32),
        "d": np.array([1e300, -1]),
        "b": np.array([True, False]),
        "i": np.array([-(2**31), 7], np.int32),
        "u": np.array([0, 255], np.uint8),
    }
    for want, got in zip(feeds.values(), session.run(None, feeds), strict=True):
        assert got.dtype == want.dtype
        assert np.array_equal(got, want)


def check(outputs, ids=IDS, shift=SHIFT):
    rows, same = outputs
    assert type(rows) is np.ndarray
    assert (rows.dtype, same.dtype) == (np.float32, np.int64)
    assert rows.shape == (*np.shape(ids), 8)
    np.testing.assert_allclose(rows, tiny.embed_reference(np.asarray(ids), np.asarray(shift)), rtol=1e-6)
    assert np.array_equal(same, ids)


def test_run(session):
    check(session.run(None, FEEDS))
    check(session.run([], FEEDS))
    check(session.run(output_names=["rows", "same"], input_feed=FEEDS))


def test_outputs_by_name(session):
    (same,) = session.run(["same"], FEEDS)
    assert np.array_equal(same, IDS)
    same, rows = session.run(("same", "rows"), FEEDS)
    check([rows, same])
    assert [a.shape for a in session.run(["same", "same"], FEEDS)] == [(2, 3), (2, 3)]


def test_run_options(session, rt):
    options = rt.RunOptions()
    options.log_severity_level = 3
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    assert options.get_run_config_entry("memory.enable_memory_arena_shrinkage") == "cpu:0"
    check(session.run(None, FEEDS, rt.RunOptions()))


def test_outputs_are_the_callers(session):
    first = session.run(None, FEEDS)
    kept = [a.copy() for a in first]
    session.run(None, {"ids": IDS + 1 - (IDS == 49), "shift": SHIFT * 2})
    assert all(np.array_equal(a, b) for a, b in zip(first, kept, strict=True))
    first[0][:] = 0


@pytest.mark.parametrize(
    "change",
    [
        lambda a: np.asfortranarray(a),
        lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
        lambda a: a[::-1][::-1],
        lambda a: a.tolist(),
        lambda a: np.ma.array(a),
    ],
    ids=["fortran", "strided", "reversed", "list", "masked"],
)
def test_kinds_of_arrays(session, change):
    check(session.run(None, {"ids": change(IDS), "shift": change(SHIFT)}))


def test_shapes_may_change(session):
    for shape in [(1, 1), (3, 5), (1, 1), (0, 3), (2, 0), (7, 2)]:
        ids = np.arange(np.prod(shape)).reshape(shape)
        check(session.run(None, {"ids": ids, "shift": SHIFT}), ids)


def test_missing_input(session):
    with pytest.raises(ValueError, match=r"\['shift'\]"):
        session.run(None, {"ids": IDS})
    with pytest.raises(ValueError, match=r"\['ids', 'shift'\]"):
        session.run(None, {})
    with pytest.raises(ValueError, match=r"\['ids'\]"):
        session.run(None, {"idz": IDS, "shift": SHIFT})


def errors(rt):
    if rt is frugal:
        return frugal.InvalidArgument
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

    return InvalidArgument


def test_invalid_arguments(session, rt):
    cases = [
        ({**FEEDS, "more": IDS}, "more"),
        ({**FEEDS, "ids": IDS.astype(np.int32)}, r"int32.*int64|int64.*int32"),
        ({**FEEDS, "shift": SHIFT.astype(np.float64)}, "double|float64"),
        ({**FEEDS, "ids": IDS[0]}, "ids"),
        ({**FEEDS, "shift": np.ones(9, np.float32)}, "shift"),
    ]
    for feeds, text in cases:
        with pytest.raises(errors(rt), match=text):
            session.run(None, feeds)
    with pytest.raises(errors(rt), match="nothing"):
        session.run(["nothing"], FEEDS)
    check(session.run(None, FEEDS))  # and the session goes on


def test_value_out_of_range(session, rt):
    with pytest.raises(Exception) as e:
        session.run(None, {**FEEDS, "ids": IDS + 1})
    assert isinstance(e.value, errors(rt)) and "50" in str(e.value)
    check(session.run(None, FEEDS))


def test_wrong_types(session):
    with pytest.raises(TypeError):
        session.run("rows", FEEDS)
    with pytest.raises(Exception):
        session.run(None, {**FEEDS, "ids": None})
    with pytest.raises(Exception):
        session.run(None, [IDS, SHIFT])


def test_bytes(rt, embed_onnx):
    check(rt.InferenceSession(embed_onnx.read_bytes()).run(None, FEEDS))


def test_pathlib(rt, embed_onnx):
    check(rt.InferenceSession(embed_onnx).run(None, FEEDS))


def test_models_that_are_none(rt, tmp_path):
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    for bad in (tmp_path / "missing.onnx", tmp_path / "junk.onnx", b"junk", b"", 3, None):
        with pytest.raises(Exception):
            rt.InferenceSession(bad)
    with pytest.raises(TypeError):
        rt.InferenceSession(None)
    with pytest.raises(TypeError):
        rt.InferenceSession(b"", sess_options=3)


def test_session_options(rt, embed_onnx):
    options = rt.SessionOptions()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (0, 0)
    options.intra_op_num_threads = 2
    options.inter_op_num_threads = 1
    options.graph_optimization_level = rt.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.execution_mode = rt.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.enable_profiling = False
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    with pytest.raises(RuntimeError):
        options.get_session_config_entry("none")
    session = rt.InferenceSession(str(embed_onnx), options, ["CPUExecutionProvider"])
    assert session.get_session_options().intra_op_num_threads == 2
    check(session.run(None, FEEDS))


def test_providers(rt, embed_onnx):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for providers in (["CPUExecutionProvider"], [("CPUExecutionProvider", {})], [], None):
            session = rt.InferenceSession(str(embed_onnx), providers=providers)
            assert "CPUExecutionProvider" in session.get_providers()
    with pytest.warns(UserWarning, match="TensorrtExecutionProvider"):
        rt.InferenceSession(str(embed_onnx), providers=["TensorrtExecutionProvider"])
    assert "CPUExecutionProvider" in rt.get_available_providers()
    assert rt.get_device() == "CPU"


def test_metadata(session):
    meta = session.get_modelmeta()
    assert meta.producer_name == "frugal-tests"
    assert meta.custom_metadata_map == {"answer": "42"}
    assert meta.graph_name is not None and meta.version is not None


def test_external_data(rt, tmp_path):
    check(rt.InferenceSession(str(tiny.save_external(tmp_path / "m.onnx"))).run(None, FEEDS))
