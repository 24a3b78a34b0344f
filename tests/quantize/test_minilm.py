"""The real model end to end: what int8 and int4 cost MiniLM on sentences, English and French."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from frugal.quantize import export, quantize
from frugal.quantize.verify import session

from frugal.errors import InvalidArgument

SENTENCES = [
    "The harbour was quiet except for the gulls.",
    "She fixed the bicycle with a spoon and a piece of wire.",
    "Our train leaves at six, so please don't be late.",
    "Prices rose faster than wages for the third year.",
    "A small dog sleeps under the table in the kitchen.",
    "He plays the violin in an orchestra of amateurs.",
    "The committee rejected the proposal without a vote.",
    "Fresh snow covered the road to the village.",
    "How do I reset the password of my account?",
    "The pump stops when the pressure falls below two bar.",
    "Le marché ouvre à huit heures tous les samedis.",
    "Elle a oublié son parapluie dans le tramway.",
    "La pompe s'arrête quand la pression tombe sous deux bars.",
    "Mon voisin répare de vieilles horloges.",
    "Il neige depuis hier soir et la route est fermée.",
    "Les enfants jouent au ballon derrière l'école.",
    "Comment puis-je changer mon mot de passe ?",
    "Le chat dort sur le fauteuil près de la fenêtre.",
    "Nous cherchons un appartement avec un balcon.",
    "Le prix du pain a encore augmenté cette année.",
]


def feeds(folder: Path) -> dict[str, np.ndarray]:
    tokenizers = pytest.importorskip("tokenizers")
    t = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    t.enable_padding()
    e = t.encode_batch(SENTENCES)
    return {
        "input_ids": np.array([x.ids for x in e]),
        "attention_mask": np.array([x.attention_mask for x in e]),
        "token_type_ids": np.array([x.type_ids for x in e]),
    }


def embed(model: Path | str, f: dict[str, np.ndarray]) -> np.ndarray:
    return np.asarray(session(Path(model)).run(["sentence_embedding"], f)[0])


def test_float_export(minilm_onnx: Path) -> None:
    """Unit vectors, and a sentence and its translation-free twin close: the checkpoint's meaning survived."""
    f = feeds(minilm_onnx)
    e = embed(minilm_onnx / "model.onnx", f)
    np.testing.assert_allclose(np.linalg.norm(e, axis=1), 1, atol=1e-5)
    alone = embed(minilm_onnx / "model.onnx", {k: v[4:5, : f["attention_mask"][4].sum()] for k, v in f.items()})
    np.testing.assert_allclose(alone[0], e[4], atol=1e-5)  # padding changes only the order of float sums
    assert e[12] @ e[9] > e[12] @ e[0]


@pytest.mark.parametrize("scheme,mean,least,megabytes", [("int8", 0.999, 0.998, 23.5), ("int4", 0.970, 0.93, 19)])
def test_cost_on_sentences(minilm_onnx: Path, tmp_path: Path, scheme: str, mean: float, least: float, megabytes: float) -> None:
    f = feeds(minilm_onnx)
    r = quantize(minilm_onnx, tmp_path / "q.onnx", scheme=scheme, validation=[f])
    out = next(o for o in r.outputs if o.name == "sentence_embedding")
    print(f"{scheme}: mean cosine {out.cosine_mean:.5f}, least {out.cosine_min:.5f}, {r.bytes_out} bytes")
    assert out.cosine_mean >= mean and out.cosine_min >= least
    assert r.bytes_out < megabytes * 1e6
    one = {k: v[:1, : f["attention_mask"][0].sum()] for k, v in f.items()}
    cosine = (embed(minilm_onnx / "model.onnx", one) * embed(tmp_path / "q.onnx", one)).sum()
    assert cosine >= out.cosine_min - 1e-4


def test_static_on_sentences(minilm_onnx: Path, tmp_path: Path) -> None:
    """Per-tensor static activations cost a BERT far more than weights do; this pins that they work at all."""
    f = feeds(minilm_onnx)
    half = {k: v[::2] for k, v in f.items()}
    r = quantize(minilm_onnx, tmp_path / "q.onnx", calibration=[half], validation=[f])
    assert next(o for o in r.outputs if o.name == "sentence_embedding").cosine_mean >= 0.97


def test_calibration_by_lines_of_text(minilm_onnx: Path, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    text = tmp_path / "lines.txt"
    text.write_text("\n".join(SENTENCES[::4]) + "\n\n", encoding="utf-8")
    r = quantize(minilm_onnx, tmp_path / "q.onnx", calibration=text)
    assert r.activations == "int8 static" and r.verified_on == "given"
    assert next(o for o in r.outputs if o.name == "sentence_embedding").cosine_mean >= 0.97
    (tmp_path / "bare").mkdir()
    export(minilm_onnx / "model.onnx", tmp_path / "bare" / "m.onnx")
    with pytest.raises(InvalidArgument, match=r"tokenizer\.json"):
        quantize(tmp_path / "bare" / "m.onnx", tmp_path / "q2.onnx", calibration=text)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads VmHWM")
@pytest.mark.parametrize("what", ["export", "int8"])
def test_memory_does_not_hold_the_model(minilm: Path, minilm_onnx: Path, tmp_path: Path, what: str) -> None:
    """Growth of the peak while 91 MB are written stays under two 16 MiB pieces and their float copies."""
    import os
    import subprocess

    call = (
        f"export({str(minilm)!r}, {str(tmp_path / 'o.onnx')!r})"
        if what == "export"
        else f"quantize({str(minilm_onnx)!r}, {str(tmp_path / 'o.onnx')!r}, verify_result=False)"
    )
    code = (
        "import onnx, onnx.checker, numpy, frugal.quantize.quantizer\n"
        "from frugal.quantize import export, quantize\nfrom frugal.quantize._files import peak_rss_bytes as peak\n"
        f"a = peak(); {call}; print(peak() - a)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    print(what, done.stdout)
    assert int(done.stdout) < (60 if what == "export" else 85) * 2**20


@pytest.mark.slow
def test_same_as_optimum(minilm: Path, minilm_onnx: Path, tmp_path: Path) -> None:
    """Our graph and optimum's traced one compute the same hidden states: float32, different order of sums."""
    pytest.importorskip("optimum.exporters.onnx", reason="the extra `export` (optimum-onnx, torch) is not installed")
    import json

    from frugal.quantize.optimum_export import export_with_optimum

    import frugal

    config = json.loads((minilm / "config.json").read_text())
    r = export_with_optimum(minilm, tmp_path / "opt", config, None, 24, "asked for by a test")
    f = feeds(minilm)
    x = session(Path(r.model)).run(["last_hidden_state"], f)[0]
    y = session(minilm_onnx / "model.onnx").run(["last_hidden_state"], f)[0]
    mask = f["attention_mask"] == 1
    np.testing.assert_allclose(y[mask], x[mask], atol=2e-5)
    z = frugal.InferenceSession(r.model).run(["last_hidden_state"], f)[0]  # 500 nodes, recognised as the same 60 steps
    np.testing.assert_allclose(z[mask], x[mask], atol=2e-5)
    q = quantize(tmp_path / "opt", tmp_path / "q.onnx", scheme="int4", validation=[f])
    assert len(q.tensors) == 39 and q.outputs[0].cosine_mean > 0.96


def test_single_file_equals_folder(minilm: Path, minilm_onnx: Path, tmp_path: Path) -> None:
    f = feeds(minilm)
    export(minilm, tmp_path / "one.onnx")
    np.testing.assert_array_equal(embed(tmp_path / "one.onnx", f), embed(minilm_onnx / "model.onnx", f))
