"""Compare our tokenizers of .gguf files with llama.cpp's over a large corpus, and record part of it in tests/data/tokenizers.npz.

    python -m tests.quantize.make_tokenizer_golden PYTHON

PYTHON: an interpreter that has the package xllamacpp (llama.cpp), in an environment of its own.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers import models as tm

from . import decoders, gguf_files, tokenizer_cases

ROOT = Path(__file__).parents[2]
RECORDED = 320
# Control characters, spaces of every kind, emoji with joiners, numerals, letters with marks, punctuation.
SPACES = [
    "",
    "",
    "\t",
    "\n",
    "\r\n",
    "\r",
    "\xa0",
    "\u2003",
    "\u3000",
    "\u200b",
    "\u2028",
    "\x0b",
    "\x0c",
    "\x85",
    "\x1c",
    "\x1f",
    "\u1680",
    "\ufeff",
    "\x00",
    "\x7f",
]
EMOJI = ["😀", "👩\u200d👩\u200d👧", "🇫🇷", "✨", "❤️", "🏳️\u200d🌈", "1️⃣", "\ufffd", "\U0010ffff"]
NUMBERS = ["1", "23", "456", "7 890", "½", "²", "٣", "४", "Ⅷ", "①", "1.5e-3", "０１"]
LETTERS = ["a", "é", "e\u0301", "ß", "ﬁ", "Ω", "я", "中文", "日本語", "한국", "ไทย", "हिन्दी", "عربي", "עברית", "ª", "İ", "ſ"]
SIGNS = [
    "'s",
    "'t",
    "'re",
    "'S",
    "’s",
    "'",
    '"',
    "«",
    "»",
    "…",
    "—",
    "-",
    "_",
    "$",
    "€",
    "+",
    "=",
    "^",
    "`",
    "~",
    "\\",
    "/",
    "//",
    "#!",
    "{}",
    "()",
    ";",
    "'d",
    "'LL",
    "<",
]
ASK = """
import http.client, json, os, sys, xllamacpp
try:
    p = xllamacpp.CommonParams()
    p.model.path, p.n_ctx, p.warmup, p.n_parallel, p.cpuparams.n_threads = sys.argv[1], 64, False, 1, 1
    server = xllamacpp.Server(p)
    connection, out = http.client.HTTPConnection(str(server.listening_address).replace("http://", "")), []
    for text in json.load(open(sys.argv[2])):
        body = json.dumps({"content": text, "add_special": False, "parse_special": True})
        connection.request("POST", "/tokenize", body, {"Content-Type": "application/json"})
        out.append(json.loads(connection.getresponse().read())["tokens"])
    json.dump(out, open(sys.argv[3], "w"))
finally:
    os._exit(0)  # the server's threads do not end by themselves
"""


def corpus(count: int = 10_000) -> list[str]:
    """Pieces of English, French and code; strings of oddities; any code points; bytes that are no UTF-8, as replaced."""
    import likelihood

    r = random.Random(1)
    code = [p.read_text(encoding="utf-8") for p in sorted([*ROOT.glob("tests/**/*.py"), *ROOT.glob("kernels/src/*.c")])]
    documents = [likelihood.paragraphs("en"), likelihood.paragraphs("fr"), *(c for c in code if len(c) > 400)]
    pools = [tokenizer_cases.SPECIAL, [s or " " for s in SPACES], EMOJI, NUMBERS, LETTERS, SIGNS]
    out = ["", " ", "\n", " " * 60, "a" * 200, "é" * 90, " \n" * 30, "1" * 60, "=-" * 50]
    for i in range(count):
        if i % 10 < 4:
            d = documents[i % 2] if i % 4 < 2 else r.choice(documents)
            a = r.randrange(len(d) - 300)
            out.append(d[a : a + r.randrange(1, 160)])
        elif i % 10 < 8:
            out.append("".join(r.choice(r.choice(pools)) for _ in range(r.randrange(1, 14))))
        elif i % 10 == 8:
            points = [r.randrange(r.choice([0x250, 0x3000, 0x10000, 0x110000])) for _ in range(r.randrange(1, 16))]
            out.append("".join(chr(c) for c in points if not 0xD800 <= c < 0xE000))
        else:
            out.append(r.randbytes(r.randrange(1, 24)).decode("utf-8", "replace"))
    return out


def vocabularies(texts: list[str]) -> dict[str, Any]:
    """A byte-level BPE whose merges cross words, so that each splitting shows, and pieces."""
    special = tokenizer_cases.SPECIAL
    lines = [t[i : i + 40] for t in texts for i in range(0, len(t), 40) if not any(s in t for s in special)]
    wide = Tokenizer(tm.BPE())
    wide.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"show_progress": False, "special_tokens": special}
    wide.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, **options))
    made = json.loads(wide.to_str())["model"]
    whole = Tokenizer(tm.BPE())
    spaced = [line.replace(" ", "▁") for line in lines]
    whole.train_from_iterator(spaced, trainers.BpeTrainer(vocab_size=700, limit_alphabet=120, show_progress=False))
    found = json.loads(whole.to_str())["model"]["vocab"]
    return {
        "tokens": sorted(made["vocab"], key=made["vocab"].get),
        "merges": [m if isinstance(m, str) else " ".join(m) for m in made["merges"]],
        "pieces": [t for t in sorted(found, key=found.get) if t not in tokenizer_cases.BYTES and not {"\ufffd", "\0"} & set(t)],
    }


def model(path: Path, metadata: dict[str, Any]) -> Path:
    """A whole decoder around the vocabulary: llama.cpp's package loads nothing less."""
    v = len(metadata["tokenizer.ggml.tokens"])
    c = decoders.config("llama") | {"hidden_size": 64, "intermediate_size": 96, "vocab_size": v}
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (v, 64), "output_norm": (64,)}
    for i in range(2):
        for name, shape in (("attn_norm", (64,)), ("ffn_norm", (64,)), ("attn_q", (64, 64)), ("attn_output", (64, 64))):
            shapes[f"blk.{i}.{name}"] = shape
        for name, shape in (("attn_k", (32, 64)), ("attn_v", (32, 64)), ("ffn_gate", (96, 64)), ("ffn_up", (96, 64))):
            shapes[f"blk.{i}.{name}"] = shape
        shapes[f"blk.{i}.ffn_down"] = (64, 96)
    tensors = {f"{n}.weight": (gguf_files.F32, s, np.ones(s, "f4").tobytes()) for n, s in shapes.items()}
    return gguf_files.write(path, gguf_files.metadata_of(c, {}) | metadata, tensors)


def theirs(python: str, path: Path, texts: list[str], folder: Path) -> list[list[int]]:
    """llama.cpp's ids."""
    (folder / "texts.json").write_text(json.dumps(texts))
    command = [python, "-c", ASK, str(path), str(folder / "texts.json"), str(folder / "ids.json")]
    (folder / "ids.json").unlink(missing_ok=True)
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    return list(json.loads((folder / "ids.json").read_text()))


def main(python: str) -> None:
    from frugal.quantize.gguf import GgufFile
    from frugal.quantize.gguf.tokenizer import companions

    import models

    texts = corpus()
    known = vocabularies(texts)
    kept = texts[:: len(texts) // RECORDED]
    ids = {}
    with tempfile.TemporaryDirectory() as tmp:
        folder = Path(tmp)
        cases = {c: model(folder / f"{c}.gguf", tokenizer_cases.metadata(c, known)) for c in tokenizer_cases.SPLITTINGS}
        cases |= {c: model(folder / f"{c}.gguf", tokenizer_cases.metadata(c, known)) for c in tokenizer_cases.PIECES}
        cases[tokenizer_cases.SMOLLM2] = next(models.fetch("smollm2").glob("*.gguf"))
        for case, path in cases.items():
            want = theirs(python, path, texts, folder)
            ours = Tokenizer.from_str(companions(GgufFile(path))["tokenizer.json"])
            got = [ours.encode(t, add_special_tokens=False).ids for t in texts]
            differ = [i for i, (a, b) in enumerate(zip(got, want, strict=True)) if a != b]
            expected = [i for i in differ if tokenizer_cases.known_difference(case, texts[i])]
            print(f"{case}: {len(texts)} texts, {len(differ)} differ, {len(differ) - len(expected)} of them unexplained")
            for i in [i for i in differ if i not in expected][:5]:
                print("   ", ascii(texts[i]))
            ids[case] = [want[i] for i in range(0, len(texts), len(texts) // RECORDED)]
    tokenizer_cases.save(known, kept, ids)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    main(sys.argv[1])
