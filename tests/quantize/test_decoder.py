"""Decoders exported without torch compute what transformers computes, in onnxruntime and in our executor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from frugal.quantize import export, quantize
from safetensors.numpy import load_file, save_file

import frugal
from frugal.errors import FrugalError, InvalidArgument, InvalidModel

from . import decoders

CASES = list(decoders.CASES)
# float32 sums in another order than torch's, which layers of random weights amplify; logits are around 5.
RELATIVE = 1e-4
ENGINES: dict[str, Callable[[str], Any]] = {
    "onnxruntime": lambda m: ort.InferenceSession(m, providers=["CPUExecutionProvider"]),
    "frugal": frugal.InferenceSession,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoints."""
    shapes, _ = decoders.golden()
    root = tmp_path_factory.mktemp("decoders")
    return {case: decoders.write(root / case, case, shapes[case]) for case in CASES}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], str]:
    """model(case, cache) -> path of the exported model, made once."""
    made: dict[tuple[str, str], str] = {}
    root = tmp_path_factory.mktemp("exported")

    def get(case: str, cache: str) -> str:
        if (case, cache) not in made:
            made[case, cache] = export(folders[case], root / f"{case}-{cache}", cache=cache).model
        return made[case, cache]

    return get


def empty_caches(session: Any, batch: int, length: int) -> dict[str, np.ndarray]:
    """Zero caches of `length` tokens."""
    out = {}
    for i in session.get_inputs():
        if i.name.startswith("past_key_values."):
            shape = [batch, i.shape[1], length, i.shape[3]] if len(i.shape) == 4 else [batch, length, i.shape[2]]
            out[i.name] = np.zeros(shape, np.float32)
    return out


def run(session: Any, feeds: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(logits, caches for the next call)."""
    names = {i.name for i in session.get_inputs()}
    out = session.run(None, {k: v for k, v in feeds.items() if k in names})
    outputs = [o.name for o in session.get_outputs()]
    return out[0], {n.replace("present", "past_key_values"): v for n, v in zip(outputs[1:], out[1:], strict=True)}


def growing(session: Any, parts: tuple[int, ...]) -> np.ndarray:
    """Logits of the whole text, fed in parts."""
    ids, mask, positions = decoders.tokens()
    caches, got, a = empty_caches(session, 2, 0), [], 0
    for n in parts:
        b = a + n
        feeds = {"input_ids": ids[:, a:b], "attention_mask": mask[:, :b], "position_ids": positions[:, a:b]}
        logits, caches = run(session, feeds | caches)
        got.append(logits)
        a = b
    return np.concatenate(got, 1)


def fixed(session: Any, capacity: int) -> np.ndarray:
    """Logits [2, LENGTH, VOCAB] with right padding: prefill of unequal rows, then one token at a time."""
    ids, mask, _ = decoders.tokens()
    rows = [row[m == 1] for row, m in zip(ids, mask, strict=True)]
    first = [5, 3]
    out = np.zeros((*ids.shape, decoders.VOCAB), np.float32)
    prompt = np.zeros((2, 5), np.int64)
    for b, row in enumerate(rows):
        prompt[b, : first[b]] = row[: first[b]]
    caches = empty_caches(session, 2, capacity)
    at = np.zeros(2, np.int64)
    positions = np.tile(np.arange(5), (2, 1))
    logits, caches = run(session, {"input_ids": prompt, "position_ids": positions, "write_indices": at} | caches)
    offsets = [ids.shape[1] - len(r) for r in rows]
    for b in range(2):
        out[b, offsets[b] : offsets[b] + first[b]] = logits[b, : first[b]]
    at = np.array(first)
    while (at < [len(r) for r in rows]).any():
        last = np.minimum(at, [len(r) - 1 for r in rows])
        step = np.array([[row[i]] for row, i in zip(rows, last, strict=True)])
        logits, caches = run(session, {"input_ids": step, "position_ids": last[:, None], "write_indices": last} | caches)
        for b in range(2):
            out[b, offsets[b] + last[b]] = logits[b, 0]
        at = at + 1
    return out


def close(case: str, got: np.ndarray) -> None:
    _, logits = decoders.golden()
    real = decoders.tokens()[1] == 1
    want = logits[case]
    assert np.abs(got - want)[real].max() <= RELATIVE * np.abs(want).max()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_growing_cache(models: Callable[[str, str], str], case: str, engine: str) -> None:
    session = ENGINES[engine](models(case, "growing"))
    for parts in ((12,), (7, 1, 1, 3), (4, 4, 4)):
        close(case, growing(session, parts))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_fixed_cache(models: Callable[[str, str], str], case: str, engine: str) -> None:
    close(case, fixed(ENGINES[engine](models(case, "fixed")), 16))


@pytest.mark.parametrize("case", CASES)
def test_transformers_gives_what_is_recorded(case: str) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    from . import make_decoder_golden

    shapes, logits = make_decoder_golden.logits(case)
    recorded = decoders.golden()
    assert shapes == recorded[0][case]
    assert np.abs(logits - recorded[1][case]).max() <= RELATIVE * np.abs(logits).max()


@pytest.mark.parametrize("scheme,least", [("int8", 0.999), ("int4", 0.9)])
@pytest.mark.parametrize("case", ["llama3", "qwen3", "gemma3", "bloom", "gpt2"])
def test_quantized(models: Callable[[str, str], str], tmp_path: Path, case: str, scheme: str, least: float) -> None:
    """Both engines run the quantized graph alike; random weights of 32 columns are a hard case for int4."""
    quantize(models(case, "growing"), tmp_path / "q.onnx", scheme=scheme, verify_result=False)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    theirs = growing(ort.InferenceSession(str(tmp_path / "q.onnx"), options, providers=["CPUExecutionProvider"]), (7, 1, 4))
    ours = growing(frugal.InferenceSession(tmp_path / "q.onnx"), (7, 1, 4))
    real = decoders.tokens()[1] == 1
    want = decoders.golden()[1][case][real]
    for got in (theirs[real], ours[real]):
        assert (got * want).sum() / np.sqrt((got * got).sum() * (want * want).sum()) > least


def test_export_result(folders: dict[str, Path], tmp_path: Path) -> None:
    (folders["llama"] / "generation_config.json").write_text("{}")
    r = export(folders["llama"], tmp_path / "out", context=16)
    assert (r.exporter, r.task, r.opset) == ("frugal", "text-generation", 24)
    assert r.inputs["past_key_values.1.value"] == ["batch", 2, "past", 8]
    assert r.outputs["present.0.key"] == ["batch", 2, "total", 8]
    assert {Path(f).name for f in r.files} == {"model.onnx", "model.onnx.data", "config.json", "generation_config.json"}
    session = frugal.InferenceSession(r.model)
    feeds = {"input_ids": np.array([[3]]), "attention_mask": np.array([[1]]), **empty_caches(session, 1, 0)}
    run(session, feeds | {"position_ids": np.array([[15]])})
    with pytest.raises(FrugalError, match="16"):  # a position beyond the context is refused, not read from elsewhere
        run(session, feeds | {"position_ids": np.array([[16]])})


BAD_CONFIGS = [
    ({"num_attention_heads": 5}, "num_attention_heads|multiple|heads"),
    ({"num_key_value_heads": 3}, "3 key heads"),
    ({"num_hidden_layers": 3}, "3 layers"),
    ({"num_hidden_layers": 1}, "1 layers"),
    ({"num_hidden_layers": -1}, "num_hidden_layers"),
    ({"hidden_size": 40}, "shape|multiple"),
    ({"vocab_size": "many"}, "vocab_size"),
    ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
    ({"rope_scaling": {"rope_type": "llama3"}}, "llama3"),
    ({"rope_scaling": 3}, "rope_scaling"),
    ({"rms_norm_eps": "small"}, "rms_norm_eps"),
    ({"hidden_act": "mystery"}, "mystery"),
    ({"layer_types": ["chunked_attention"] * 2, "model_type": "mistral"}, "chunked_attention"),
]


@pytest.mark.parametrize("change,message", BAD_CONFIGS)
def test_bad_config(folders: dict[str, Path], tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(decoders.config("llama") | change))
    (folder / "model.safetensors").write_bytes((folders["llama"] / "model.safetensors").read_bytes())
    with pytest.raises(InvalidModel, match=message):
        export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_and_misshapen_tensors(folders: dict[str, Path], tmp_path: Path) -> None:
    tensors = load_file(folders["llama"] / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    for change in ({name: None}, {name: tensors[name][:, :8].copy()}, {name: tensors[name].astype(np.int32)}):
        folder = tmp_path / "src"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(decoders.config("llama")))
        save_file({k: v for k, v in (tensors | change).items() if v is not None}, folder / "model.safetensors")
        with pytest.raises(InvalidModel, match="mlp.up_proj.weight"):
            export(folder, tmp_path / "out")


def test_arguments(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cache 'ring'"):
        export(folders["llama"], tmp_path / "out", cache="ring")
    with pytest.raises(InvalidArgument, match="task 'fill-mask'"):
        export(folders["llama"], tmp_path / "out", task="fill-mask")
    with pytest.raises(InvalidModel, match="64 learned positions"):
        export(folders["gpt2"], tmp_path / "out", context=65)
    quantized = json.loads((folders["llama"] / "config.json").read_text()) | {"quantization_config": {"bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(quantized))
    with pytest.raises(FrugalError, match="quantized already"):
        export(tmp_path, tmp_path / "out")
