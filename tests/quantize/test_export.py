"""Export of tiny checkpoints against the numpy forward pass, and against transformers where that is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from frugal.quantize import export
from safetensors.numpy import load_file, save_file

from frugal.errors import FrugalError, InvalidArgument, InvalidModel

from . import checkpoints as cp

# float32 against float64 over two layers of size 32: rounding only.
TOLERANCE = 2e-5


def run(path: Path | str, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    s = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(s.run(None, {i.name: feeds[i.name] for i in s.get_inputs()}))


def real(f: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Vectors of the tokens that are not padding."""
    return x[f["attention_mask"] == 1]


@pytest.mark.parametrize("family", list(cp.PREFIX))
@pytest.mark.parametrize("single", [False, True])
def test_family_matches_numpy(tmp_path: Path, family: str, single: bool) -> None:
    folder, c, w = cp.tiny(tmp_path / "src", family)
    r = export(folder, tmp_path / ("m.onnx" if single else "out"))
    onnx.checker.check_model(r.model, full_check=True)
    assert (r.exporter, r.opset) == ("frugal", 24)
    assert list(r.outputs) == ["last_hidden_state"]
    for batch, length in ((1, 1), (3, 9), (2, 30)):
        f = cp.feeds(c, batch, length)
        assert set(r.inputs) == set(f)
        np.testing.assert_allclose(real(f, run(r.model, f)[0]), real(f, cp.forward(c, w, f)), atol=TOLERANCE)


@pytest.mark.parametrize("act", ["gelu_new", "relu", "silu", "tanh"])
def test_activations(tmp_path: Path, act: str) -> None:
    folder, c, w = cp.tiny(tmp_path / "src", "bert", hidden_act=act)
    f = cp.feeds(c)
    y = run(export(folder, tmp_path / "m.onnx").model, f)[0]
    np.testing.assert_allclose(real(f, y), real(f, cp.forward(c, w, f)), atol=TOLERANCE)


def test_prefix_old_names_and_shards(tmp_path: Path) -> None:
    c = cp.config("bert")
    w = cp.weights(c, "bert.")
    old = {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v for k, v in w.items()}
    folder = cp.write(tmp_path / "src", c, old)
    (folder / "model.safetensors").unlink()
    names = sorted(old)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({n: old[n] for n in part}, folder / file)
    index = {"weight_map": {n: file for file, part in shards.items() for n in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    f = cp.feeds(c)
    y = run(export(folder, tmp_path / "m.onnx").model, f)[0]
    np.testing.assert_allclose(real(f, y), real(f, cp.forward(c, w, f, "bert.")), atol=TOLERANCE)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_half_precision_checkpoints(tmp_path: Path, dtype: str) -> None:
    import ml_dtypes

    kind = np.float16 if dtype == "F16" else ml_dtypes.bfloat16
    c = cp.config("bert")
    w = {k: v.astype(kind) for k, v in cp.weights(c).items()}
    folder = cp.write(tmp_path / "src", c, w)
    exported = onnx.load(export(folder, tmp_path / "m.onnx").model)
    table = next(t for t in exported.graph.initializer if t.name == "embeddings.word_embeddings.weight")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(table), w[table.name].astype(np.float32))
    f = cp.feeds(c)
    y = run(tmp_path / "m.onnx", f)[0]
    reference = cp.forward(c, {k: v.astype(np.float32) for k, v in w.items()}, f)
    np.testing.assert_allclose(real(f, y), real(f, reference), atol=TOLERANCE)


def st_modules(folder: Path, mode: str, normalize: bool) -> None:
    """Add sentence-transformers' files."""
    names = ["", "1_Pooling"] + (["2_Normalize"] if normalize else [])
    kinds = ["Transformer", "Pooling", "Normalize"]
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {"idx": i, "name": str(i), "path": p, "type": f"sentence_transformers.models.{kinds[i]}"}
                for i, p in enumerate(names)
            ]
        )
    )
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps(
            {
                "word_embedding_dimension": cp.H,
                "pooling_mode_cls_token": mode == "cls",
                "pooling_mode_mean_tokens": mode == "mean",
                "pooling_mode_max_tokens": mode == "max",
            }
        )
    )


@pytest.mark.parametrize("mode,normalize", [("mean", True), ("cls", False), ("max", True)])
def test_pooling(tmp_path: Path, mode: str, normalize: bool) -> None:
    folder, c, w = cp.tiny(tmp_path / "src", "bert")
    st_modules(folder, mode, normalize)
    r = export(folder, tmp_path / "out")
    f = cp.feeds(c)
    x, m = cp.forward(c, w, f), f["attention_mask"][:, :, None]
    want = {"mean": (x * m).sum(1) / m.sum(1), "cls": x[:, 0], "max": np.where(m == 1, x, -1e9).max(1)}[mode]
    if normalize:
        want /= np.linalg.norm(want, axis=1, keepdims=True)
    assert list(r.outputs) == ["last_hidden_state", "sentence_embedding"]
    np.testing.assert_allclose(run(r.model, f)[1], want, atol=TOLERANCE)
    assert (tmp_path / "out" / "1_Pooling" / "config.json").is_file()
    assert (tmp_path / "out" / "config.json").is_file()


def test_unknown_pooling_is_noted(tmp_path: Path) -> None:
    folder, _, _ = cp.tiny(tmp_path / "src", "bert")
    st_modules(folder, "weighted", False)
    r = export(folder, tmp_path / "out")
    assert list(r.outputs) == ["last_hidden_state"]
    assert "Pooling" in r.notes[0]


def test_names_and_metadata(tmp_path: Path) -> None:
    folder, _, w = cp.tiny(tmp_path / "src", "bert")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# a model\n")
    m = onnx.load(export(folder, tmp_path / "m.onnx").model)
    assert {t.name for t in m.graph.initializer if len(t.dims) == 2} == {k for k, v in w.items() if v.ndim == 2}
    assert "encoder.layer.0.attention.self.query/MatMul" in {n.name for n in m.graph.node}
    props = {p.key: p.value for p in m.metadata_props}
    assert props["frugal.license"] == "apache-2.0"
    assert len(props["frugal.sha256.model.safetensors"]) == 64
    assert m.producer_name == "frugal" and m.ir_version == 11


def test_progress_counts_up(tmp_path: Path) -> None:
    folder, _, _ = cp.tiny(tmp_path / "src", "bert")
    seen: list[tuple[str, int, int]] = []
    export(folder, tmp_path / "m.onnx", progress=lambda *a: seen.append(a))
    assert [s[1] for s in seen] == sorted(s[1] for s in seen)
    assert seen[-1][1] == seen[-1][2]


def change(folder: Path, edit: Any) -> None:
    """Rewrite the checkpoint's tensors."""
    w = load_file(folder / "model.safetensors")
    edit(w)
    save_file(w, folder / "model.safetensors")


def drop(w: dict[str, np.ndarray]) -> None:
    del w["encoder.layer.1.output.dense.bias"]


def reshape(w: dict[str, np.ndarray]) -> None:
    w["encoder.layer.1.output.dense.weight"] = w["encoder.layer.1.output.dense.weight"].T.copy()


def integers(w: dict[str, np.ndarray]) -> None:
    w["encoder.layer.1.output.dense.bias"] = np.zeros(cp.H, np.int64)


@pytest.mark.parametrize("edit", [drop, reshape, integers])
def test_bad_tensors_are_named(tmp_path: Path, edit: Any) -> None:
    folder, _, _ = cp.tiny(tmp_path / "src", "bert")
    change(folder, edit)
    with pytest.raises(InvalidModel, match=r"encoder\.layer\.1\.output\.dense\.(bias|weight)"):
        export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("keep", [0, 5, 100, 3000, -1])
def test_truncated_checkpoint(tmp_path: Path, keep: int) -> None:
    folder, _, _ = cp.tiny(tmp_path / "src", "bert")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InvalidModel, match=r"model\.safetensors.*(truncated|not a safetensors)"):
        export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_lying_headers(tmp_path: Path) -> None:
    folder, _, _ = cp.tiny(tmp_path / "src", "bert")
    path = folder / "model.safetensors"
    for entry in (
        {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 12]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 2**64]},
        {"dtype": "X1", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32"},
        3,
    ):
        head = json.dumps({"t": entry}).encode()
        path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(16))
        with pytest.raises(InvalidModel, match="'t'"):
            export(folder, tmp_path / "out")


@pytest.mark.parametrize(
    "source,error,words",
    [
        ("nowhere", InvalidArgument, "no such file"),
        ("x.gguf", InvalidModel, "not a GGUF file|truncated"),
        ("x.txt", InvalidModel, "folder"),
        ("empty", InvalidModel, "config.json"),
        ("x.onnx", InvalidModel, "not an ONNX"),
    ],
)
def test_bad_sources(tmp_path: Path, source: str, error: type[Exception], words: str) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("x.gguf", "x.tflite", "x.txt", "x.onnx"):
        (tmp_path / name).write_bytes(b"\x07\x07nothing")
    with pytest.raises(error, match=words):
        export(tmp_path / source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_arguments(tmp_path: Path) -> None:
    folder, _, _ = cp.tiny(tmp_path / "src", "bert")
    with pytest.raises(InvalidArgument, match="opset 22"):
        export(folder, tmp_path / "out", opset=22)
    with pytest.raises(InvalidArgument, match="text-classification"):
        export(folder, tmp_path / "out", task="dancing")
    with pytest.raises(InvalidArgument, match="source folder"):
        export(folder, folder)


@pytest.mark.parametrize(
    "family,edit",
    [
        ("falcon", {}),
        ("bert", {"position_embedding_type": "relative_key"}),
        ("bert", {"hidden_act": "quick_gelu"}),
        ("bert", {"is_decoder": True}),
    ],
)
def test_others_ask_for_the_extra(tmp_path: Path, family: str, edit: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "optimum.exporters.onnx", None)
    folder, _, _ = cp.tiny(tmp_path / "src", "bert", **edit)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": family}))
    with pytest.raises(FrugalError, match=r"frugal-edge\[export\]") as e:
        export(folder, tmp_path / "out")
    assert isinstance(e.value, ImportError)
    assert not (tmp_path / "out").exists()


def test_onnx_source_is_copied(tmp_path: Path) -> None:
    folder, c, _ = cp.tiny(tmp_path / "src", "bert")
    export(folder, tmp_path / "a")
    r = export(tmp_path / "a" / "model.onnx", tmp_path / "b.onnx")
    f = cp.feeds(c)
    np.testing.assert_array_equal(run(r.model, f)[0], run(tmp_path / "a" / "model.onnx", f)[0])
    assert r.exporter == "onnx" and not (tmp_path / "b.onnx.data").exists()
    with pytest.raises(InvalidArgument, match="itself"):
        export(tmp_path / "b.onnx", tmp_path / "b.onnx")
    assert (tmp_path / "b.onnx").is_file()


TASKS = [
    ("SequenceClassification", ["logits"]),
    ("TokenClassification", ["logits"]),
    ("MaskedLM", ["logits"]),
    ("QuestionAnswering", ["start_logits", "end_logits"]),
    ("", ["last_hidden_state"]),
]


@pytest.mark.slow
@pytest.mark.parametrize("family", [*cp.PREFIX, "mpnet"])
@pytest.mark.parametrize("head,outputs", TASKS)
def test_against_transformers(tmp_path: Path, family: str, head: str, outputs: list[str]) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra `export` is not installed")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    c = cp.config(
        "bert" if family == "mpnet" else family, num_labels=2 if head == "QuestionAnswering" else 3, initializer_range=0.3
    )
    c |= {"pad_token_id": 1} if family == "mpnet" else {}
    c.pop("model_type")
    made = transformers.AutoConfig.for_model(family, **c)
    auto = getattr(transformers, f"AutoModelFor{head}" if head else "AutoModel")
    model = auto.from_config(made).eval()
    model.save_pretrained(tmp_path / "src")
    r = export(tmp_path / "src", tmp_path / "m.onnx")
    assert list(r.outputs) == outputs
    f = cp.feeds({**cp.config("bert"), "pad_token_id": c["pad_token_id"]}, 3, 9)
    f = {k: f[k] for k in r.inputs}
    with torch.no_grad():
        want = model(**{k: torch.from_numpy(v) for k, v in f.items()})
    for name, y in zip(outputs, run(r.model, f), strict=True):
        x = want[name].numpy()
        x, y = (real(f, x), real(f, y)) if x.shape[:2] == f["input_ids"].shape else (x, y)
        np.testing.assert_allclose(y, x, atol=1e-4, rtol=1e-4)  # float32 against float32, other order of sums
