"""Written whole or not at all; ONNX files read and written in pieces."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from frugal.quantize import _files, export, onnxfile, quantize
from frugal.quantize.onnxfile import OnnxFile
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

from frugal.errors import FrugalError, InvalidModel

from . import checkpoints as cp


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("fail", [RuntimeError("half way"), KeyboardInterrupt(), OSError(errno.ENOSPC, "disk full")])
@pytest.mark.parametrize("existing", [False, True])
def test_interrupted_export_changes_nothing(tmp_path: Path, fail: BaseException, existing: bool) -> None:
    folder, _, _ = cp.tiny(tmp_path / "src", "bert")
    out = tmp_path / "deep" / "out"
    if existing:
        export(folder, out)
    before = contents(tmp_path)

    def stop(name: str, done: int, total: int) -> None:
        if done > total // 2:
            raise fail

    with pytest.raises(FrugalError if isinstance(fail, OSError) else type(fail)):
        export(folder, out, progress=stop)
    assert contents(tmp_path) == before
    assert existing or not (tmp_path / "deep").exists()


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_interrupted_quantize_changes_nothing(tmp_path: Path, scheme: str) -> None:
    folder, _, _ = cp.tiny(tmp_path / "src", "bert")
    export(folder, tmp_path / "m.onnx")
    before = contents(tmp_path)

    def stop(name: str, done: int, total: int) -> None:
        if done > total // 2:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", scheme=scheme, progress=stop)
    assert contents(tmp_path) == before


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_export_leaves_only_the_hidden_folder(tmp_path: Path) -> None:
    folder, _, _ = cp.tiny(tmp_path / "src", "bert")
    code = (
        "import sys, time; from frugal.quantize import export\n"
        "def wait(*a): print('half', flush=True); time.sleep(60)\n"
        f"export({str(folder)!r}, {str(tmp_path / 'out')!r}, progress=wait)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
    assert child.stdout is not None and child.stdout.readline().strip() == b"half"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert [p.name for p in (tmp_path / "out").iterdir()] == [".model.onnx.part"]
    export(folder, tmp_path / "out")
    assert not (tmp_path / "out" / ".model.onnx.part").exists()


def test_model_is_moved_last_and_old_one_goes_first(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("old")
    with _files.staging(tmp_path, "m") as part:
        (part / "m").write_text("new")
        (part / "z").mkdir()
        (part / "z" / "data").write_text("d")
        assert (tmp_path / "m").read_text() == "old"
    assert contents(tmp_path) == {"m": b"new", os.path.join("z", "data"): b"d"}


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom rights bind")
def test_read_only_target(tmp_path: Path) -> None:
    folder, _, _ = cp.tiny(tmp_path / "src", "bert")
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(FrugalError, match="cannot write"):
        export(folder, tmp_path / "out")


def model(tmp_path: Path, external: bool = False, typed: bool = False) -> tuple[Path, dict[str, np.ndarray]]:
    """A model with a large, a small, an empty and a scalar initializer."""
    rng = np.random.default_rng(0)
    a = {
        "w": rng.standard_normal((40, 30)).astype(np.float32),
        "b": rng.standard_normal(30).astype(np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.array(2, np.float32),
    }
    nodes = [
        h.make_node("MatMul", ["x", "w"], ["y"]),
        h.make_node("Add", ["y", "b"], ["z"]),
        h.make_node("Mul", ["z", "scalar"], ["o"]),
        h.make_node("Identity", ["empty"], ["e"]),
    ]
    tensors = [h.make_tensor(k, T.FLOAT, v.shape, v.reshape(-1)) if typed else nh.from_array(v, k) for k, v in a.items()]
    outputs = [h.make_tensor_value_info("o", T.FLOAT, ["n", 30]), h.make_tensor_value_info("e", T.FLOAT, [0, 3])]
    g = h.make_graph(nodes, "g", [h.make_tensor_value_info("x", T.FLOAT, ["n", 40])], outputs, tensors)
    path = tmp_path / "model.onnx"
    m = h.make_model(g, opset_imports=[h.make_opsetid("", 21)], ir_version=10)
    onnx.save(m, path, save_as_external_data=external, location="weights.bin", size_threshold=64)
    return path, a


@pytest.mark.parametrize("external,typed", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("write_external", [False, True])
def test_read_and_write(tmp_path: Path, external: bool, typed: bool, write_external: bool) -> None:
    path, arrays = model(tmp_path, external, typed)
    m = OnnxFile(path)
    assert ("w" in m.refs) is not typed
    for t in m.proto.graph.initializer:
        np.testing.assert_array_equal(m.tensor(t), arrays[t.name])
    tensors = [o for t in m.proto.graph.initializer if (o := m.out(t)) is not None]
    out = tmp_path / "copy.onnx"
    onnxfile.write(onnxfile.strip(m.proto, {t.name for t in tensors}), tensors, out, write_external)
    onnx.checker.check_model(str(out), full_check=True)
    assert (tmp_path / "copy.onnx.data").exists() == (write_external and not typed)
    back = {t.name: nh.to_array(t, str(tmp_path)) for t in onnx.load(out).graph.initializer}
    assert set(back) == set(arrays)
    for k, v in arrays.items():
        np.testing.assert_array_equal(back[k], v)


@pytest.mark.parametrize("keep", [0, 1, 50, 2000, -1])
def test_truncated_onnx(tmp_path: Path, keep: int) -> None:
    path, _ = model(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InvalidModel, match=r"model\.onnx|ONNX"):
        OnnxFile(path)


def test_truncated_and_missing_data_file(tmp_path: Path) -> None:
    path, _ = model(tmp_path, external=True)
    data = tmp_path / "weights.bin"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(InvalidModel, match="'w'"):
        OnnxFile(path)
    data.unlink()
    with pytest.raises(InvalidModel, match=r"weights\.bin.*'w'.*missing"):
        OnnxFile(path)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", ""])
def test_data_outside_the_folder(tmp_path: Path, location: str) -> None:
    path, _ = model(tmp_path, external=True)
    m = onnx.load(path, load_external_data=False)
    for e in m.graph.initializer[0].external_data:
        if e.key == "location":
            e.value = location
    path.write_bytes(m.SerializeToString())
    with pytest.raises(InvalidModel, match="folder"):
        OnnxFile(path)


@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes_never_crash(tmp_path: Path, seed: int) -> None:
    path, _ = model(tmp_path)
    good, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    start = time.perf_counter()
    for _ in range(60):
        bad = bytearray(good)
        for i in rng.integers(0, len(bad), 4):
            bad[i] = rng.integers(0, 256)
        for i in rng.integers(0, 200, 2):
            bad[i] = rng.integers(0, 256)
        path.write_bytes(bad)
        with contextlib.suppress(FrugalError):
            quantize(path, tmp_path / "q.onnx", verify_result=False)
    assert time.perf_counter() - start < 20


def test_wrong_length_is_refused(tmp_path: Path) -> None:
    path, _ = model(tmp_path)
    m = OnnxFile(path)
    bad = onnxfile.OutTensor("w", T.FLOAT, (40, 30), lambda: [b"\0" * 4796])
    for external in (False, True):
        with pytest.raises(InvalidModel, match="'w' should have 4800"):
            onnxfile.write(onnxfile.strip(m.proto, {"w"}), [bad], tmp_path / "o.onnx", external)


def test_import_is_light() -> None:
    code = "import sys, frugal.quantize; sys.exit(any(m in sys.modules for m in ('onnx', 'onnxruntime', 'torch')))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


@pytest.mark.parametrize("module", ["onnx", "onnxruntime"])
def test_missing_packages_name_the_extra(tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = model(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, f"{module}.helper", None)
    with pytest.raises(FrugalError, match=r"frugal-edge\[quantize\]") as e:
        quantize(path, tmp_path / "q.onnx")
    assert isinstance(e.value, ImportError) and not (tmp_path / "q.onnx").exists()
