"""Small vocabularies under every way of splitting words, and the ids that llama.cpp gives for hard texts (recorded).

tests/data/tokenizers.npz holds the vocabularies, the texts and the ids; make_tokenizer_golden.py writes it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent.parent / "data" / "tokenizers.npz"
SPLITTINGS = ("gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "bloom", "viking", "minerva-7b")
PIECES = ("pieces", "pieces-with-space")
SMOLLM2 = "smollm2"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>", "<filename>"]
BYTES = [f"<0x{i:02X}>" for i in range(256)]
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


def byte_level(splitting: str, tokens: list[str], merges: list[str]) -> dict[str, Any]:
    """Metadata of a .gguf with byte-level BPE; the special tokens come first."""
    types = np.array([CONTROL if t in SPECIAL else NORMAL for t in tokens])
    names = {"model": "gpt2", "pre": splitting, "tokens": tokens, "token_type": types, "merges": merges}
    return {f"tokenizer.ggml.{k}": v for k, v in names.items()} | {"tokenizer.ggml.eos_token_id": 0}


def pieces(prefix: bool, tokens: list[str]) -> dict[str, Any]:
    """Metadata of a .gguf with SentencePiece's BPE; earlier tokens have better scores."""
    base = ["<unk>", "<s>", "</s>", *BYTES]
    every = base + tokens + SPECIAL
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(tokens) + [CONTROL] * len(SPECIAL)
    scores = [0.0] * len(base) + [-float(i) for i in range(len(tokens))] + [0.0] * len(SPECIAL)
    names: dict[str, Any] = {"model": "llama", "tokens": every, "token_type": np.array(types), "scores": scores}
    names |= {"add_space_prefix": prefix, "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}
    return {f"tokenizer.ggml.{k}": v for k, v in names.items()}


def metadata(case: str, vocabularies: dict[str, Any]) -> dict[str, Any]:
    """Of one of SPLITTINGS or PIECES."""
    if case in PIECES:
        return pieces(case == PIECES[1], vocabularies["pieces"])
    return byte_level(case, vocabularies["tokens"], vocabularies["merges"])


def save(vocabularies: dict[str, Any], texts: list[str], ids: dict[str, list[list[int]]]) -> None:
    """Write GOLDEN."""
    arrays: dict[str, Any] = {"texts": np.frombuffer(json.dumps([vocabularies, texts]).encode(), np.uint8)}
    for case, rows in ids.items():
        arrays[case] = np.array([i for row in rows for i in row], np.uint16)
        arrays[f"{case}.lengths"] = np.array([len(row) for row in rows], np.uint16)
    np.savez_compressed(GOLDEN, **arrays)


def load() -> tuple[dict[str, Any], list[str], dict[str, list[list[int]]]]:
    """(vocabularies, texts, case -> ids of each text)."""
    with np.load(GOLDEN) as f:
        vocabularies, texts = json.loads(bytes(f["texts"]).decode())
        cases = [k for k in f.files if k != "texts" and not k.endswith(".lengths")]
        cut = {c: np.split(f[c].astype(int), np.cumsum(f[f"{c}.lengths"].astype(int))[:-1]) for c in cases}
    return vocabularies, texts, {c: [row.tolist() for row in rows] for c, rows in cut.items()}


# Bytes that SmolLM2's vocabulary lacks: llama.cpp keeps their neighbours apart, the `tokenizers` library does not.
_MISSING = {0x04, 0x06, 0x13, 0x14, 0x15, 0x16, 0x1D, 0xC0, 0xC1, *range(0xF1, 0x100)}


def known_difference(case: str, text: str) -> bool:
    """Where the model's own tokenizer and llama.cpp's are known to part, and ours is the model's."""
    import unicodedata

    if case == "qwen2":  # llama.cpp does not normalize
        return unicodedata.normalize("NFC", text) != text
    if case == "tekken":  # llama.cpp's pattern has no \p{M}
        return any(unicodedata.category(c).startswith("M") for c in text)
    return case == SMOLLM2 and bool(_MISSING & set(text.encode()))
