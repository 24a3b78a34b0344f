"""GGUF: the container, the block formats, whole decoders, the tokenizer, damaged files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from frugal.quantize import export
from frugal.quantize.gguf import GgufFile, blocks
from frugal.quantize.gguf.stored import EXACT, FOUR_BITS, StoredTensor, parts

import frugal
import frugal.compiler.passes
from frugal.errors import InvalidModel

from . import decoders, gguf_files
from .test_decoder import close, growing

GOLDEN = Path(__file__).parent.parent / "data" / "gguf_blocks.npz"
FORMATS = [f for f in blocks.BLOCKS if f not in ("F32", "F16", "BF16")]
# transformers' models whose GGUF says the same; qwen2's window and mistral's are not in the format.
CASES = ["llama", "llama-biased", "llama3", "llama-linear", "yarn", "qwen3", "olmo2", "apertus", "smollm3"]
CASES += ["gemma2", "gemma3", "bloom", "gpt2"]
TYPE = {v: k for k, v in blocks.FORMATS.items()}


@pytest.mark.parametrize("form", FORMATS)
def test_block_values_are_those_of_ggml(form: str) -> None:
    """Recorded with the package gguf 0.17 on random blocks."""
    with np.load(GOLDEN) as f:
        np.testing.assert_array_equal(blocks.decode(f[f"{form}.blocks"], form), f[f"{form}.values"])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("eight", [False, True])
def test_stored_form(form: str, eight: bool) -> None:
    with np.load(GOLDEN) as f:
        rows, values = f[f"{form}.blocks"], f[f"{form}.values"]
    got = parts(rows, form, eight).values()
    if form in EXACT and not (eight and form == "Q4_1"):
        np.testing.assert_array_equal(got, values)
    # 8 bits: half a step of the block's largest weight, plus fp16 rounding of the step
    limit = np.abs(values.reshape(len(values), -1, 32)).max(-1).repeat(32, 1) * (0.5 / 127 + 2**-10)
    assert (np.abs(got - values) <= limit).all()


@pytest.mark.parametrize("case", CASES)
def test_decoder_of_gguf_is_that_of_transformers(case: str, tmp_path: Path) -> None:
    folder = decoders.write(tmp_path / "src", case, decoders.golden()[0][case])
    r = export(gguf_files.tiny(tmp_path / "m.gguf", case, folder), tmp_path / "out")
    close(case, growing(ort.InferenceSession(r.model, providers=["CPUExecutionProvider"]), (7, 1, 4)))
    close(case, growing(frugal.InferenceSession(r.model), (5, 7)))


def encode(w: np.ndarray, form: str) -> bytes:
    """Rows [n, K] in a block format, plainly rounded (test weights, not a good quantizer)."""
    x = w.reshape(len(w), -1, 32)
    peak = np.abs(x).max(-1, keepdims=True)
    if form == "Q8_0":
        d = (peak / 127).astype("<f2")
        return np.concatenate([d.view(np.uint8), np.rint(x / d.astype("f4")).astype(np.int8).view(np.uint8)], -1).tobytes()
    low = x.min(-1, keepdims=True)
    d, m = (((x.max(-1, keepdims=True) - low) / 15).astype("<f2"), low.astype("<f2"))
    q = np.rint((x - m) / d.astype("f4")).clip(0, 15).astype(np.uint8)
    return np.concatenate([d.view(np.uint8), m.view(np.uint8), q[..., :16] | q[..., 16:] << 4], -1).tobytes()


def quantized_llama(
    path: Path, embed: str = "Q8_0", change: dict[str, Any] | None = None, replace: dict[str, Any] | None = None
) -> tuple[Path, dict[str, Any]]:
    """A llama of hidden size 64 with Q4_1 projections, and its tensors as float32.  replace: tensors for gguf_files.write."""
    c = decoders.config("llama") | {"hidden_size": 64, "intermediate_size": 96}
    rng = np.random.default_rng(3)
    shapes = {"token_embd": (64, 64), "output_norm": (64,)}
    for i in range(2):
        b = f"blk.{i}."
        shapes |= {b + "attn_norm": (64,), b + "ffn_norm": (64,), b + "attn_q": (64, 64), b + "attn_output": (64, 64)}
        shapes |= {b + "attn_k": (32, 64), b + "attn_v": (32, 64), b + "ffn_gate": (96, 64), b + "ffn_up": (96, 64)}
        shapes |= {b + "ffn_down": (64, 96)}
    stored, values = {}, {}
    for name, shape in shapes.items():
        w = rng.standard_normal(shape).astype("f4") * np.float32(0.2) + np.float32(len(shape) == 1)
        form = "F32" if len(shape) == 1 else embed if name == "token_embd" else "Q4_1"
        raw = w.tobytes() if form == "F32" else encode(w, form)
        stored[f"{name}.weight"] = (TYPE[form], shape, raw)
        values[f"{name}.weight"] = blocks.decode(np.frombuffer(raw, np.uint8).reshape(-1, len(raw) // shape[0]), form).reshape(
            shape
        )
    return gguf_files.write(path, gguf_files.metadata_of(c, {}) | (change or {}), stored | (replace or {})), values


@pytest.mark.parametrize("embed", ["Q8_0", "Q4_1"])
def test_quantized_weights_are_kept(tmp_path: Path, embed: str) -> None:
    """The quantized graph equals the same graph of the dequantized weights, in both engines."""
    source, values = quantized_llama(tmp_path / "q.gguf", embed)
    floats = {n: (0, w.shape, w.astype("<f4").tobytes()) for n, w in values.items()}
    plain = gguf_files.write(tmp_path / "f.gguf", GgufFile(source).metadata, floats)
    r = export(source, tmp_path / "q")
    want = growing(ort.InferenceSession(export(plain, tmp_path / "f").model), (7, 1, 4))
    options = ort.SessionOptions()
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    mine = frugal.SessionOptions()
    mine.add_session_config_entry("frugal.activations", "float")
    limit = (1e-5 if embed == "Q8_0" else 5e-2) * np.abs(want).max()  # a Q4_1 table is gathered from its 8-bit form
    assert np.abs(growing(ort.InferenceSession(r.model, options), (7, 1, 4)) - want).max() <= limit
    assert np.abs(growing(frugal.InferenceSession(r.model, mine), (7, 1, 4)) - want).max() <= limit
    notes = [n for n in r.notes if "converted" in n]
    assert len(notes) == (embed == "Q4_1")


def test_8_bit_activations_meet_centred_codes(tmp_path: Path) -> None:
    """The pass take_offsets: activations of 8 bits meet Q4_1's whole weights, not its codes, whose mean is 7.5."""
    source, values = quantized_llama(tmp_path / "q.gguf")
    floats = {n: (0, w.shape, w.astype("<f4").tobytes()) for n, w in values.items()}
    want = growing(
        ort.InferenceSession(
            export(gguf_files.write(tmp_path / "f.gguf", GgufFile(source).metadata, floats), tmp_path / "f").model
        ),
        (12,),
    )
    model = export(source, tmp_path / "q").model

    def error(plan: frugal.Plan) -> float:
        plan.save(tmp_path / "m.frugal")
        got = growing(frugal.InferenceSession(tmp_path / "m.frugal"), (12,))
        return float(np.linalg.norm(got - want) / np.linalg.norm(want))

    centred = error(frugal.compile(model))
    passes = frugal.compiler.passes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "OPTIMIZING", tuple(p for p in passes.OPTIMIZING if p.__name__ != "take_offsets"))
        plain = error(frugal.compile(model))
    assert centred < 0.7 * plain


def test_bytes_of_q4_1_and_q8_0(tmp_path: Path) -> None:
    source, _ = quantized_llama(tmp_path / "q.gguf")
    model = onnx.load(export(source, tmp_path / "q").model)
    t = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    file = GgufFile(source)
    tensor = file.tensors["blk.1.ffn_down.weight"]
    raw = np.frombuffer(file.read(tensor), np.uint8).reshape(64, 3, 20)
    np.testing.assert_array_equal(t["blk.1.ffn_down.weight.scale"], raw[..., 0:2].copy().view("<f2")[..., 0])
    np.testing.assert_array_equal(t["blk.1.ffn_down.weight.offset"], raw[..., 2:4].copy().view("<f2")[..., 0].T)
    codes = np.concatenate([raw[..., 4:] & 15, raw[..., 4:] >> 4], -1).reshape(64, 96)
    np.testing.assert_array_equal(t["blk.1.ffn_down.weight.int4"].astype(np.uint8), codes)
    raw = np.frombuffer(file.read(file.tensors["token_embd.weight"]), np.uint8).reshape(64, 2, 34)
    np.testing.assert_array_equal(t["token_embd.weight.int8"].view(np.uint8).reshape(64, 2, 32), raw[..., 2:])


def test_bytes_of_q4_0(tmp_path: Path) -> None:
    """The blocks can be put together again from what is in the graph."""
    raw = np.random.default_rng(1).integers(0, 256, (64, 3, 18), np.uint8)
    raw[..., :2] = np.random.default_rng(2).uniform(-1, 1, (64, 3)).astype("<f2").view(np.uint8).reshape(64, 3, 2)
    change = {"blk.1.ffn_down.weight": (TYPE["Q4_0"], (64, 96), raw.tobytes())}
    r = export(quantized_llama(tmp_path / "q.gguf", replace=change)[0], tmp_path / "q")
    t = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(r.model).graph.initializer}
    codes = (t["blk.1.ffn_down.weight.int4"].astype(np.int8) + 8).astype(np.uint8).reshape(64, 3, 32)
    scale = t["blk.1.ffn_down.weight.scale"].astype("<f2").view(np.uint8).reshape(64, 3, 2)
    np.testing.assert_array_equal(np.concatenate([scale, codes[..., :16] | codes[..., 16:] << 4], -1), raw)
    assert "blk.1.ffn_down.weight.offset" not in t and r.notes == [n for n in r.notes if "Q4_0" not in n]


def test_error_is_stated(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (8, 2 * 210), np.uint8)
    rows.reshape(8, 2, 210)[..., 208:] = np.array([0.01], "<f2").view(np.uint8)
    path = gguf_files.write(tmp_path / "x.gguf", {}, {"w": (TYPE["Q6_K"], (8, 512), rows.tobytes())})
    file = GgufFile(path)
    s = StoredTensor(file, file.tensors["w"], "w")
    assert sum(t.nbytes for t in s.initializers()) == sum(
        len(memoryview(np.ascontiguousarray(b)).cast("B")) for t in s.initializers() for b in t.chunks()
    )
    assert 1e-4 < s.error() < 1e-2  # 8 bits a weight of blocks whose scales vary


# ---- tokenizer ----
def byte_level(pre: str, **more: Any) -> dict[str, Any]:
    """Metadata of a byte-level BPE with the 256 bytes and a few merges."""
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = ["<|end|>", *sorted(ByteLevel.alphabet()), "Ġl", "Ġla", "Ã©", "12", "ĊĊ"]
    return {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] + [1] * (len(tokens) - 1),
        "tokenizer.ggml.merges": ["Ġ l", "Ġl a", "Ã ©", "1 2", "Ċ Ċ"],
        "tokenizer.ggml.eos_token_id": 0,
    } | more


def tokenizer(tmp_path: Path, metadata: dict[str, Any]) -> Any:
    """The Tokenizer of a file with this metadata."""
    from frugal.quantize.gguf.tokenizer import companions
    from tokenizers import Tokenizer

    file = GgufFile(gguf_files.write(tmp_path / "t.gguf", metadata, {}))
    return Tokenizer.from_str(companions(file)["tokenizer.json"])


TEXT = "Où va la 1234e été ?\n\n  l'île\t<|end|> 😀"


@pytest.mark.parametrize(
    "pre,twelve", [("gpt-2", True), ("smollm", False), ("llama-bpe", True), ("qwen2", False), ("tekken", False)]
)
def test_byte_level_tokenizer(tmp_path: Path, pre: str, twelve: bool) -> None:
    t = tokenizer(tmp_path, byte_level(pre))
    got = t.encode(TEXT)
    assert t.decode(got.ids, skip_special_tokens=False) == TEXT
    assert ("12" in got.tokens) == twelve  # digits one by one, or in groups
    assert "Ġla" in got.tokens and "Ã©" in got.tokens and "<|end|>" in got.tokens
    assert t.encode("la").tokens == ["l", "a"]


def test_begin_and_end_of_text(tmp_path: Path) -> None:
    t = tokenizer(tmp_path, byte_level("gpt-2", **{"tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.add_bos_token": True}))
    assert t.encode("la").tokens == ["<|end|>", "l", "a"]
    assert t.encode("la", add_special_tokens=False).tokens == ["l", "a"]


def test_sentencepiece_tokenizer(tmp_path: Path) -> None:
    """Merges follow from the scores; what is not in the vocabulary becomes bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    words = ["▁", "l", "a", "e", "t", "é", "▁l", "la", "▁la", "et", "té", "été"]
    scores = [0.0] * len(pieces) + [-9.0, -9.0, -9.0, -9.0, -9.0, -9.0, -3.0, -2.0, -4.0, -5.0, -6.0, -7.0]
    t = tokenizer(
        tmp_path,
        {
            "general.architecture": "llama",
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": pieces + words,
            "tokenizer.ggml.scores": scores,
            "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(words),
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.unknown_token_id": 0,
        },
    )
    got = t.encode("la été ☃")
    # "la" joins before "▁l" does (score -2 against -3), then "▁" and "la"; the snowman has three bytes
    assert got.tokens == ["<s>", "▁la", "▁", "été", "▁", "<0xE2>", "<0x98>", "<0x83>"]
    assert t.decode(got.ids) == "la été ☃"


def test_unknown_splitting_is_a_note(tmp_path: Path) -> None:
    source, _ = quantized_llama(tmp_path / "q.gguf", change=byte_level("martian"))
    r = export(source, tmp_path / "out")
    assert not (tmp_path / "out" / "tokenizer.json").exists()
    assert any("'martian'" in n for n in r.notes)


def test_companions(tmp_path: Path) -> None:
    source, _ = quantized_llama(tmp_path / "q.gguf", change=byte_level("smollm", **{"tokenizer.chat_template": "{{ x }}"}))
    export(source, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [0]
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ x }}"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model_type"] == "llama"


# ---- damaged files ----
def test_every_truncation_is_refused(tmp_path: Path) -> None:
    source, _ = quantized_llama(tmp_path / "q.gguf")
    whole = source.read_bytes()
    bad = tmp_path / "bad.gguf"
    for n in [*range(0, 3000, 7), len(whole) // 2, len(whole) - 4000]:
        bad.write_bytes(whole[:n])
        with pytest.raises(InvalidModel, match=r"bad\.gguf"):
            export(bad, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_flipped_bytes_never_crash(tmp_path: Path) -> None:
    source, _ = quantized_llama(tmp_path / "q.gguf")
    whole, rng, bad = source.read_bytes(), np.random.default_rng(5), tmp_path / "bad.gguf"
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, 2600, 3):
            data[at] = rng.integers(0, 256)
        bad.write_bytes(data)
        try:
            export(bad, tmp_path / "out")
        except InvalidModel as e:
            refused += 1
            assert "bad.gguf" in str(e)
    assert refused > 50  # some flips hit names of keys that nobody reads, or numbers that still fit


@pytest.mark.parametrize(
    "change,message",
    [
        ({"general.architecture": "mamba"}, "'mamba' is not built in"),
        ({"llama.attention.head_count": 5}, "multiple"),
        ({"llama.attention.head_count_kv": [2, 1]}, "differs from layer to layer"),
        ({"llama.block_count": 3}, "blk.2"),
        ({"llama.embedding_length": 32}, r"shape \[64"),
        ({"llama.rope.scaling.type": "martian"}, "martian"),
        ({"general.alignment": 7}, "general.alignment"),
    ],
)
def test_bad_metadata(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    source, _ = quantized_llama(tmp_path / "bad.gguf", change=change)
    with pytest.raises(InvalidModel, match=message):
        export(source, tmp_path / "out")


def test_huge_counts_cost_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    for head in (
        struct.pack("<IQQ", 3, 1 << 60, 1),
        struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1 << 60),
        struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 8, 1 << 61),
        struct.pack("<IQQ", 3, 1, 0) + struct.pack("<Q", 1) + b"w" + struct.pack("<IQQIQ", 2, 1 << 62, 1 << 62, 0, 0),
    ):
        bad.write_bytes(b"GGUF" + head + bytes(64))
        with pytest.raises(InvalidModel, match=r"bad\.gguf"):
            GgufFile(bad)


def test_nan_scales_are_refused(tmp_path: Path) -> None:
    raw = bytearray(encode(np.ones((4, 64), "f4"), "Q8_0"))
    raw[0:2] = np.array([np.nan], "<f2").tobytes()
    path = gguf_files.write(tmp_path / "x.gguf", {}, {"w": (TYPE["Q8_0"], (4, 64), bytes(raw))})
    file = GgufFile(path)
    with pytest.raises(InvalidModel, match="tensor 'w' holds scales that are NaN"):
        list(StoredTensor(file, file.tensors["w"], "w").initializers()[0].chunks())


def test_four_bit_formats() -> None:
    assert set(FOUR_BITS) < set(FORMATS)
