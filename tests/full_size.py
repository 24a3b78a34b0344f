"""7-billion-parameter decoders with random weights, at full size on this machine: sizes, times, memory, tokens a second.

    python -m tests.full_size {lucie,mistral} FOLDER     (FOLDER: 14 GB of space; what is made there is deleted)

A .gguf of 4-bit blocks (8 bits for the embedding and the head) is written with random codes, exported, compiled and run, each in
a process of its own.  Not a test: it takes minutes.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.quantize import gguf_files

Q4_0, Q8_0, F32 = 2, 8, 0
BLOCK_BYTES = {Q4_0: 18, Q8_0: 34}
_SHARED = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32}
_SHARED |= {"num_attention_heads": 32, "num_key_value_heads": 8}
_LUCIE = {"vocab_size": 65024, "intermediate_size": 12288, "rope_theta": 5e5, "max_position_embeddings": 32000}
_MISTRAL = {"vocab_size": 32768, "intermediate_size": 14336, "rope_theta": 1e6, "max_position_embeddings": 32768}
MODELS: dict[str, dict[str, Any]] = {"lucie": _LUCIE | _SHARED, "mistral": _MISTRAL | _SHARED}
CONTEXT, PROMPT, TOKENS = 4096, 64, 32


def tensors_of(c: dict[str, Any]) -> dict[str, tuple[int, tuple[int, ...]]]:
    """name -> (ggml type, shape)."""
    wide, inner = c["hidden_size"], c["intermediate_size"]
    narrow = wide // c["num_attention_heads"] * c["num_key_value_heads"]
    table = (Q8_0, (c["vocab_size"], wide))
    shapes: dict[str, tuple[int, tuple[int, ...]]] = {"token_embd.weight": table, "output.weight": table}
    shapes["output_norm.weight"] = (F32, (wide,))
    products = {"attn_q": (wide, wide), "attn_k": (narrow, wide), "attn_v": (narrow, wide), "attn_output": (wide, wide)}
    products |= {"ffn_gate": (inner, wide), "ffn_up": (inner, wide), "ffn_down": (wide, inner)}
    for i in range(c["num_hidden_layers"]):
        shapes |= {f"blk.{i}.{name}.weight": (Q4_0, shape) for name, shape in products.items()}
        shapes |= {f"blk.{i}.{name}.weight": (F32, (wide,)) for name in ("attn_norm", "ffn_norm")}
    return shapes


def nbytes(kind: int, shape: tuple[int, ...]) -> int:
    """Of a tensor in its format."""
    count = math.prod(shape)
    return 4 * count if kind == F32 else count // 32 * BLOCK_BYTES[kind]


def blocks(kind: int) -> bytes:
    """65 536 random blocks whose weights have a deviation near 0.02."""
    r = np.random.default_rng(kind)
    raw = r.integers(0, 256, (1 << 16, BLOCK_BYTES[kind]), np.uint8)
    deviation = 4.6 if kind == Q4_0 else 74.0  # of uniform codes
    scale = (r.uniform(0.5, 1.5, (1 << 16, 1)) * 0.02 / deviation).astype("<f2")
    raw[:, :2] = scale.view(np.uint8)
    return raw.tobytes()


def write(path: Path, c: dict[str, Any]) -> None:
    """The .gguf, a piece at a time."""
    metadata, shapes = gguf_files.metadata_of(c, {}), tensors_of(c)
    head = gguf_files.head(metadata, {n: (kind, shape, nbytes(kind, shape)) for n, (kind, shape) in shapes.items()})
    pieces = {kind: blocks(kind) for kind in BLOCK_BYTES}
    with open(path, "wb") as f:
        f.write(head)
        for kind, shape in shapes.values():
            left = nbytes(kind, shape)
            if kind == F32:
                f.write(np.ones(shape, "<f4").tobytes())
            while kind != F32 and left:
                left -= f.write(pieces[kind][: min(left, len(pieces[kind]))])
            f.write(bytes(-nbytes(kind, shape) % 32))


def tokenizer(size: int) -> str:
    """Every token is its number: the models have no real vocabulary."""
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [],
            "model": {"type": "WordLevel", "vocab": {str(i): i for i in range(size)}, "unk_token": "0"},
        }
    )


def peak() -> float:
    """GiB, resident, of this process so far."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def stage(what: str, name: str, folder: Path) -> None:
    """One step, in this process."""
    c, start = MODELS[name], time.perf_counter()
    gguf, out = folder / f"{name}.gguf", folder / name
    said = ""
    if what == "write":
        write(gguf, c)
    elif what == "export":
        from frugal.quantize import export

        export(gguf, out, context=CONTEXT)
        (out / "tokenizer.json").write_text(tokenizer(c["vocab_size"]))
    else:
        import frugal

        model = frugal.TextModel.open(out, context=CONTEXT, threads=2)
        said = _run(model, c["vocab_size"]) if what == "run" else ""
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    seconds, cpu = time.perf_counter() - start, time.process_time()
    print(f"{what}: {seconds:.1f} s ({cpu:.0f} s of CPU), peak {peak():.2f} GiB, folder {size / 1e9:.2f} GB{said}", flush=True)


def _run(model: Any, vocabulary: int) -> str:
    opened = time.process_time()
    prompt = np.random.default_rng(0).integers(0, vocabulary, PROMPT).tolist()
    how = {"ignore_eos": True, "logprobs": True}
    a = time.perf_counter()
    model.generate(prompt, max_new_tokens=1, **how)
    b = time.perf_counter()
    got = model.generate(prompt, max_new_tokens=TOKENS, **how)
    c = time.perf_counter()
    assert len(got.tokens) == TOKENS and all(math.isfinite(x) for x in got.logprobs)
    cpu = time.process_time() - opened
    return f"; {PROMPT} tokens read in {b - a:.2f} s, {TOKENS} written at {TOKENS / (c - b):.2f} a second ({cpu:.0f} s of CPU)"


def main(name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # plans of this size would be trimmed from the usual cache
    env = os.environ | {"FRUGAL_CACHE_DIR": str(folder / "plans"), "FRUGAL_CACHE_BYTES": str(1 << 36)}
    try:
        for what in ("write", "export", "compile", "run"):
            subprocess.run([sys.executable, "-m", "tests.full_size", what, name, str(folder)], check=True, env=env)
            if what == "export":
                (folder / f"{name}.gguf").unlink()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        stage(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    else:
        main(sys.argv[1], Path(sys.argv[2]))
