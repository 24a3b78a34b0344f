"""The tokenizer of a .gguf as Hugging Face's tokenizer.json (read by the `tokenizers` library), and the files beside it.

tokenizer.ggml.model 'gpt2' is byte-level BPE with merges, whose splitting of words is named by tokenizer.ggml.pre; 'llama' is
SentencePiece's BPE: pieces with scores, from which the merges follow, and byte pieces for what is not in the vocabulary.
"""

from __future__ import annotations

import json
from typing import Any

from frugal.errors import InvalidModel

from .reader import GgufFile

NORMAL, CONTROL, USER_DEFINED, BYTE = 1, 3, 4, 6

_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
# tokenizer.ggml.pre -> (digits one by one, the pattern of words)
_PATTERNS = {
    "gpt-2": (False, _GPT2),
    "gpt2": (False, _GPT2),
    "smollm": (True, _GPT2),
    "llama-bpe": (False, _LLAMA3),
    "llama3": (False, _LLAMA3),
    "llama-v3": (False, _LLAMA3),
    "smaug-bpe": (False, _LLAMA3),
    "dbrx": (False, _LLAMA3),
    "olmo": (False, _GPT2),
    "qwen2": (False, _QWEN2),
    "deepseek-r1-qwen": (False, _QWEN2),
    "tekken": (False, _TEKKEN),
    "bloom": (False, _BLOOM),
    "poro-chat": (False, _BLOOM),
    "gpt3-finnish": (False, _BLOOM),
    "viking": (True, _BLOOM),
    "minerva-7b": (True, _GPT2),
}
_DIGITS_LAST = ("viking",)
_NFC = ("qwen2", "deepseek-r1-qwen")
_WHOLE_WORDS = ("llama-bpe", "llama3", "llama-v3", "smaug-bpe", "dbrx", "tekken")  # a word in the vocabulary is not cut


def why_not(file: GgufFile) -> str | None:
    """Why tokenizer.json cannot be made (one line), or None."""
    kind, pre = (file.metadata.get(f"tokenizer.ggml.{k}") for k in ("model", "pre"))
    if kind == "llama":
        return None if file.metadata.get("tokenizer.ggml.scores") else "the tokenizer has no scores"
    if kind != "gpt2":
        return f"tokenizers of kind {kind!r} are not built in (built in: gpt2, llama)"
    return None if (pre or "gpt-2") in _PATTERNS else f"the word splitting {pre!r} is not built in ({', '.join(_PATTERNS)})"


def tokenizer_json(file: GgufFile) -> dict[str, Any]:
    """The contents of tokenizer.json; `why_not(file)` must be None. Raises InvalidModel for a garbled vocabulary."""
    m = file.metadata
    tokens, types = _vocabulary(file)
    vocabulary = {t: i for i, t in enumerate(tokens)}
    pieces = m["tokenizer.ggml.model"] == "llama"
    out = _pieces(file, tokens, vocabulary, types) if pieces else _byte_level(file, vocabulary)
    special = [_added(i, t, types[i] == CONTROL) for i, t in enumerate(tokens) if types[i] in (CONTROL, USER_DEFINED)]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": special} | out


def _vocabulary(file: GgufFile) -> tuple[list[str], list[int]]:
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens or not all(isinstance(t, str) for t in tokens):
        raise InvalidModel(f"{file.path}: key 'tokenizer.ggml.tokens' is no list of strings")
    tokens = [t.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for t in tokens]
    types = file.metadata.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    if not isinstance(types, list) or len(types) != len(tokens):
        raise InvalidModel(f"{file.path}: key 'tokenizer.ggml.token_type' does not go with {len(tokens)} tokens")
    return tokens, types


def _added(number: int, text: str, special: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": number, "content": text} | flags | {"special": special}


def _byte_level(file: GgufFile, vocabulary: dict[str, int]) -> dict[str, Any]:
    pre = file.metadata.get("tokenizer.ggml.pre") or "gpt-2"
    digits, pattern = _PATTERNS[pre]
    merges = file.metadata.get("tokenizer.ggml.merges")
    if not isinstance(merges, list) or not all(isinstance(x, str) and x.count(" ") == 1 for x in merges):
        raise InvalidModel(f"{file.path}: key 'tokenizer.ggml.merges' is no list of pairs")
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    steps: list[dict[str, Any]] = [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}]
    if digits:
        steps.insert(pre in _DIGITS_LAST, {"type": "Digits", "individual_digits": True})
    return {
        "normalizer": {"type": "NFC"} if pre in _NFC else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps, level]},
        "post_processor": _begin_and_end(file, vocabulary),
        "decoder": level | {"add_prefix_space": True, "use_regex": True},
        "model": _bpe(vocabulary, merges, ignore_merges=pre in _WHOLE_WORDS),
    }


def _bpe(vocabulary: dict[str, int], merges: list[str], **change: Any) -> dict[str, Any]:
    base = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
    more = {"fuse_unk": False, "byte_fallback": False, "ignore_merges": False} | change
    return {"type": "BPE"} | base | more | {"vocab": vocabulary, "merges": [m.split(" ") for m in merges]}


def _pieces(file: GgufFile, tokens: list[str], vocabulary: dict[str, int], types: list[int]) -> dict[str, Any]:
    m = file.metadata
    scores = m["tokenizer.ggml.scores"]
    if len(scores) != len(tokens):
        raise InvalidModel(f"{file.path}: {len(scores)} scores for {len(tokens)} tokens")
    prefix = m.get("tokenizer.ggml.add_space_prefix", True)
    unknown = m.get("tokenizer.ggml.unknown_token_id", 0)
    prepend = [{"type": "Prepend", "prepend": "▁"}] if prefix else []
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prepend, replace]},
        "pre_tokenizer": None,
        "post_processor": _begin_and_end(file, vocabulary),
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]},
        "model": _bpe(
            vocabulary,
            _merges(tokens, vocabulary, scores, types),
            unk_token=tokens[unknown] if isinstance(unknown, int) and 0 <= unknown < len(tokens) else None,
            fuse_unk=True,
            byte_fallback=True,
        ),
    }


def _merges(tokens: list[str], vocabulary: dict[str, int], scores: list[float], types: list[int]) -> list[str]:
    """Every way to join two pieces into a third, best score first: what SentencePiece's BPE does at each step."""
    joins = []
    for i, token in enumerate(tokens):
        if types[i] not in (NORMAL, USER_DEFINED):
            continue
        for cut in range(1, len(token)):
            left, right = vocabulary.get(token[:cut]), vocabulary.get(token[cut:])
            if left is not None and right is not None:
                joins.append((-scores[i], left, right))
    return [f"{tokens[a]} {tokens[b]}" for _, a, b in sorted(joins) if " " not in tokens[a] and " " not in tokens[b]]


def _begin_and_end(file: GgufFile, vocabulary: dict[str, int]) -> dict[str, Any] | None:
    """A post-processor that adds the tokens of begin and end of text where the file says so."""
    m = file.metadata
    names = {i: t for t, i in vocabulary.items()}
    begin = m.get("tokenizer.ggml.bos_token_id") if _adds(m, "bos", m.get("tokenizer.ggml.model") == "llama") else None
    end = m.get("tokenizer.ggml.eos_token_id") if _adds(m, "eos", False) else None
    if begin is None and end is None:
        return None
    if any(i is not None and i not in names for i in (begin, end)):
        raise InvalidModel(f"{file.path}: the tokens of begin and end ({begin}, {end}) are not in the vocabulary")

    def around(name: str, kind: int) -> list[dict[str, Any]]:
        def token(i: int | None) -> list[dict[str, Any]]:
            return [] if i is None else [{"SpecialToken": {"id": names[i], "type_id": kind}}]

        return [*token(begin), {"Sequence": {"id": name, "type_id": kind}}, *token(end)]

    special = {names[i]: {"id": names[i], "ids": [i], "tokens": [names[i]]} for i in (begin, end) if i is not None}
    pair = around("A", 0) + around("B", 1)
    return {"type": "TemplateProcessing", "single": around("A", 0), "pair": pair, "special_tokens": special}


def _adds(metadata: dict[str, Any], which: str, default: bool) -> bool:
    value = metadata.get(f"tokenizer.ggml.add_{which}_token")
    return default if value is None else bool(value)


def companions(file: GgufFile) -> dict[str, str]:
    """Name -> contents of the files beside the model: tokenizer, its configuration, generation configuration, chat template."""
    m = file.metadata
    out: dict[str, Any] = {}
    ids = {k: m.get(f"tokenizer.ggml.{k}_token_id") for k in ("bos", "eos", "padding", "unknown")}
    tokens = m.get("tokenizer.ggml.tokens") or []
    ends = [i for i in (ids["eos"], m.get("tokenizer.ggml.eot_token_id")) if isinstance(i, int)]
    generation = {"bos_token_id": ids["bos"], "eos_token_id": sorted(set(ends)), "pad_token_id": ids["padding"]}
    out["generation_config.json"] = json.dumps({k: v for k, v in generation.items() if v not in (None, [])}, indent=2)
    if why_not(file) is None:
        out["tokenizer.json"] = json.dumps(tokenizer_json(file), ensure_ascii=False)
    names = {"bos": "bos_token", "eos": "eos_token", "padding": "pad_token", "unknown": "unk_token"}
    config = {names[k]: tokens[i] for k, i in ids.items() if isinstance(i, int) and 0 <= i < len(tokens)}
    template = m.get("tokenizer.chat_template")
    if isinstance(template, str):
        config["chat_template"] = template
        out["chat_template.jinja"] = template
    out["tokenizer_config.json"] = json.dumps(config, ensure_ascii=False, indent=2)
    return out
