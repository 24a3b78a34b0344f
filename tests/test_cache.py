"""The cache of compiled plans: never stale, shared by processes, whole or absent."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest

import frugal
import tiny
from frugal import cache

FEEDS = {"ids": np.array([[1, 2]]), "shift": np.ones(8, np.float32)}


def entries(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


def loaded_from(model, **config) -> str:
    options = frugal.SessionOptions()
    for key, value in config.items():
        options.add_session_config_entry(f"frugal.{key}", value)
    session = frugal.InferenceSession(model, options)
    session.run(None, FEEDS)
    return session.loaded_from


def test_second_time_from_the_cache(embed_onnx, own_cache):
    assert loaded_from(embed_onnx) == "compiled"
    assert loaded_from(embed_onnx) == "cache"
    assert loaded_from(embed_onnx.read_bytes()) == "cache"
    assert [Path(name).suffix for name in entries(own_cache)] == [".frugal"]


def test_a_copy_elsewhere_is_the_same_model(embed_onnx, tmp_path):
    loaded_from(embed_onnx)
    copy = tmp_path / "other" / "name.onnx"
    copy.parent.mkdir()
    copy.write_bytes(embed_onnx.read_bytes())
    assert loaded_from(copy) == "cache"


def test_everything_in_the_key(embed_onnx, monkeypatch):
    keys = {cache.key(embed_onnx, activations="int8"), cache.key(embed_onnx, activations="float")}
    embed_onnx.write_bytes(embed_onnx.read_bytes() + _with_doc())
    keys.add(cache.key(embed_onnx, activations="int8"))
    monkeypatch.setattr(frugal, "__version__", "9.9")
    keys.add(cache.key(embed_onnx, activations="int8"))
    assert len(keys) == 4


def _with_doc() -> bytes:
    return onnx.ModelProto(doc_string="changed").SerializeToString()


def test_external_data_is_part_of_the_key(tmp_path):
    path = tiny.save_external(tmp_path / "m.onnx")
    assert loaded_from(path) == "compiled"
    assert loaded_from(path) == "cache"
    before = frugal.InferenceSession(path).run(["rows"], FEEDS)[0]
    weights = tmp_path / "weights.bin"
    changed = (np.frombuffer(weights.read_bytes(), np.float32) * 2).tobytes()
    weights.write_bytes(changed)
    assert loaded_from(path) == "compiled"
    after = frugal.InferenceSession(path).run(["rows"], FEEDS)[0]
    np.testing.assert_allclose(after, before * 2)


def test_external_files_are_found_wherever_onnx_allows():
    def tensor(name, where):
        t = onnx.TensorProto(name=name, data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
        for key, value in (("offset", "0"), ("location", where), ("length", "4")):
            t.external_data.add(key=key, value=value)
        return t

    make = onnx.helper.make_graph
    inner = make([], "inner", [], [], [tensor("w", "inner.bin")])
    nodes = [
        onnx.helper.make_node("Constant", [], ["c"], value=tensor("c", "attribute.bin")),
        onnx.helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner),
    ]
    graph = make(nodes, "outer", [], [], [tensor("a", "one.bin"), tensor("b", "one.bin"), tensor("c", "dir/two.bin")])
    graph.sparse_initializer.add(values=tensor("v", "sparse.bin"), indices=tensor("i", "indices.bin"))
    model = onnx.helper.make_model(graph)
    function = model.functions.add(name="f", domain="d")
    function.node.append(onnx.helper.make_node("Constant", [], ["c"], value=tensor("c", "function.bin")))
    want = ["attribute", "dir/two", "function", "indices", "inner", "one", "sparse"]
    data = memoryview(model.SerializeToString())
    assert cache.external_files(data) == [name + ".bin" for name in want]


@pytest.mark.parametrize(
    "data", [b"", b"\xff" * 50, b"\x3a\xff\xff\xff\xff\x0f", b"\x0b", b"\x3a\x05\x2a\x10aaa", os.urandom(99)]
)
def test_what_is_no_protobuf_names_no_files(data):
    assert cache.external_files(memoryview(data)) == []


def test_nesting_is_bounded():
    data = b""
    for _ in range(40):  # graph > node > attribute > graph ...
        for number in (6, 5, 1):
            data = bytes([number << 3 | 2]) + _varint(len(data)) + data
    assert cache.external_files(memoryview(bytes([7 << 3 | 2]) + _varint(len(data)) + data)) == []


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


@pytest.mark.parametrize("damage", [lambda d: d[:100], lambda d: b"", lambda d: d[:-9] + b"x" + d[-8:], lambda d: b"x" * len(d)])
def test_damaged_entries_are_compiled_again(embed_onnx, own_cache, damage):
    loaded_from(embed_onnx)
    (name,) = entries(own_cache)
    good = (own_cache / name).read_bytes()
    (own_cache / name).write_bytes(damage(good))
    assert loaded_from(embed_onnx) == "compiled"
    assert (own_cache / name).read_bytes() == good
    assert loaded_from(embed_onnx) == "cache"


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("FRUGAL_CACHE_DIR", str(tmp_path / "a"))
    assert cache.cache_dir() == tmp_path / "a"
    monkeypatch.delenv("FRUGAL_CACHE_DIR")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache.cache_dir() == tmp_path / "b" / "frugal"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_dir() == tmp_path / ".cache" / "frugal"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache.cache_dir() == tmp_path / "Library" / "Caches" / "frugal"


def test_unwritable_cache(embed_onnx, monkeypatch, tmp_path):
    """A file where the folder should be: not even root can write there."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FRUGAL_CACHE_DIR", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot keep"):
        assert loaded_from(embed_onnx) == "compiled"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_cache_is_still_read(embed_onnx, own_cache):
    loaded_from(embed_onnx)
    own_cache.chmod(0o500)
    try:
        assert loaded_from(embed_onnx) == "cache"
    finally:
        own_cache.chmod(0o700)


def test_failed_compilation_leaves_nothing(own_cache):
    with pytest.raises(frugal.FrugalError):
        frugal.InferenceSession(b"not a model at all")
    assert entries(own_cache) == []


def test_missing_model_and_missing_data(tmp_path):
    with pytest.raises(frugal.NoSuchFile, match="nothing.onnx"):
        frugal.InferenceSession(tmp_path / "nothing.onnx")
    path = tiny.save_external(tmp_path / "m.onnx")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(frugal.FrugalError, match="weights.bin"):
        frugal.InferenceSession(path)
    with pytest.raises(frugal.FrugalError):
        frugal.InferenceSession(tmp_path)


def test_least_recently_used_go_first(own_cache, monkeypatch):
    models = [tiny.embed(), tiny.square(), tiny.every_type()]
    frugal.InferenceSession(models[0].SerializeToString())
    frugal.InferenceSession(models[1].SerializeToString())
    for i, (path, _, _) in enumerate(sorted(cache.entries())):
        os.utime(path, (i + 1, i + 1))
    oldest, newer = sorted(entries(own_cache))
    room = sum(size for _, size, _ in cache.entries())
    monkeypatch.setenv("FRUGAL_CACHE_BYTES", str(room))
    abandoned = own_cache / ".x.frugal.1-2.tmp"
    abandoned.write_bytes(b"half")
    os.utime(abandoned, (1, 1))
    frugal.InferenceSession(models[2].SerializeToString())
    left = entries(own_cache)
    assert oldest not in left and newer in left and len(left) == 2


WORKER = """
import sys, time, numpy as np, frugal
while time.time() < float(sys.argv[2]):
    pass
for _ in range(10):
    session = frugal.InferenceSession(sys.argv[1])
    rows = session.run(["rows"], {"ids": np.array([[1, 2]]), "shift": np.ones(8, np.float32)})[0]
print(rows.tobytes().hex())
"""


def test_many_processes_at_once(embed_onnx, own_cache):
    """Six processes start together on an empty cache, while entries are deleted and damaged under them."""
    start = time.time() + 1.5
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(embed_onnx), str(start)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(6)
    ]
    stop = threading.Event()

    def vandal():
        while not stop.is_set():
            for path in own_cache.glob("*.frugal"):
                other = own_cache / "damaged"
                try:
                    other.write_bytes(path.read_bytes()[:-1] + b"!")
                    other.replace(path)
                except OSError:
                    pass
            time.sleep(0.002)

    thread = threading.Thread(target=vandal)
    thread.start()
    outputs = [w.communicate(timeout=120) for w in workers]
    stop.set()
    thread.join()
    assert [err for _, err in outputs] == [b""] * 6
    assert len({out for out, _ in outputs}) == 1
    assert not [name for name in entries(own_cache) if name.endswith(".tmp")]


def test_a_hit_does_not_import_onnx(embed_onnx):
    loaded_from(embed_onnx)
    code = (
        "import sys, frugal; frugal.InferenceSession(sys.argv[1]); "
        "print([m for m in ('onnx', 'onnxruntime', 'google.protobuf', 'frugal.compiler') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(embed_onnx)], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_no_warning_when_all_is_well(embed_onnx):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded_from(embed_onnx)
        loaded_from(embed_onnx)
