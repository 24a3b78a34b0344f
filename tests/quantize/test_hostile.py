"""Hostile model files: whatever configuration, header and metadata say, export ends in a model or a clear error."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frugal.quantize import export

from frugal.errors import FrugalError, InvalidModel

from . import decoders, gguf_files

VALUES = [0, -1, 1, 2, 3, 7, 2**31, 2**62, 10**30, 1e308, math.nan, math.inf, 0.5, "", "x", None, True, [], [1], {}, {"a": 1}]
CASES = ["llama", "qwen2", "gemma3", "apertus", "bloom", "gpt2", "smollm3"]
MEMORY = 400 << 20


def change(r: random.Random, value: Any) -> Any:
    """`value` with one thing in it replaced, dropped or doubled."""
    if isinstance(value, dict) and value and r.random() < 0.9:
        key = r.choice(sorted(value))
        if r.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: change(r, value[key])}
    if isinstance(value, list) and value and r.random() < 0.7:
        i = r.randrange(len(value))
        return [*value[:i], change(r, value[i]), *value[i + 1 :]]
    return r.choice(VALUES)


def damaged_checkpoints(folder: Path, case: str, rounds: int) -> Iterator[int]:
    """`folder` with its configuration, its safetensors header or some bytes of that changed, one round after another."""
    r = random.Random(case)
    source = decoders.write(folder / "whole", case, decoders.golden()[0][case])
    raw = (source / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    config, header = json.loads((source / "config.json").read_text()), json.loads(raw[8 : 8 + size])
    for i in range(rounds):
        shutil.copytree(source, folder / "src", dirs_exist_ok=True)
        if i % 3 == 0:
            (folder / "src" / "config.json").write_text(json.dumps(change(r, config)))
        elif i % 3 == 1:
            head = json.dumps(change(r, header)).encode()
            (folder / "src" / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + raw[8 + size :])
        else:
            data = bytearray(raw)
            for _ in range(3):
                data[r.randrange(8 + size)] = r.randrange(256)
            (folder / "src" / "model.safetensors").write_bytes(data)
        yield i


def survives(source: Path, out: Path) -> bool:
    """Whether it was refused; any other exception than ours ends the test."""
    shutil.rmtree(out, ignore_errors=True)
    try:
        export(source, out)
    except FrugalError as e:
        assert str(e) and not out.exists()
        return True
    return False


def peak() -> int:
    """Peak resident bytes of this process since `forget`."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Bytes by which the peak has grown since the test began; 0 where the system does not say."""
    reset = Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")
    except OSError:
        return lambda: 0
    before = peak()
    return lambda: peak() - before


@pytest.mark.parametrize("case", CASES)
def test_damaged_checkpoints(tmp_path: Path, case: str, memory: Callable[[], int]) -> None:
    refused = sum(survives(tmp_path / "src", tmp_path / "out") for _ in damaged_checkpoints(tmp_path, case, 60))
    assert refused > 20  # some changes are of keys that nobody reads
    assert memory() < MEMORY


def damaged_metadata(case: str, folder: Path, rounds: int) -> Iterator[Path]:
    """A .gguf of the case with metadata changed."""
    r = random.Random(case)
    source = gguf_files.tiny(folder / "whole.gguf", case, decoders.write(folder / "whole", case, decoders.golden()[0][case]))
    from frugal.quantize.gguf import GgufFile

    file = GgufFile(source)
    tensors = {n: (0, t.shape, file.read(t)) for n, t in file.tensors.items()}
    storable = [
        v for v in VALUES if v not in (None, [], {}, {"a": 1}, -1, 2**62, 10**30, 1e308)
    ]  # what the writer of tests writes
    for i in range(rounds):
        metadata = dict(file.metadata)
        key = r.choice(sorted(metadata))
        if r.random() < 0.1:
            del metadata[key]
        else:
            metadata[key] = r.choice(storable)
        yield gguf_files.write(folder / f"bad{i % 2}.gguf", metadata, tensors)


@pytest.mark.parametrize("case", ["llama", "qwen3", "gemma3", "apertus", "bloom", "gpt2"])
def test_damaged_metadata(tmp_path: Path, case: str, memory: Callable[[], int]) -> None:
    refused = sum(survives(path, tmp_path / "out") for path in damaged_metadata(case, tmp_path, 50))
    assert refused > 10
    assert memory() < MEMORY


@pytest.mark.parametrize(
    "case,edit",
    [
        ("llama", {"num_hidden_layers": 10**9}),
        ("llama", {"head_dim": 2**31}),
        ("llama", {"vocab_size": 2**62}),
        ("bloom", {"hidden_size": 2**40, "n_head": 2**30}),
        ("bloom", {"n_layer": 10**9}),
        ("gpt2", {"n_layer": 10**9}),
        ("gpt2", {"n_positions": 2**50}),
        ("smollm3", {"num_hidden_layers": 10**8}),
        ("gemma3", {"num_hidden_layers": 10**8}),
    ],
)
def test_sizes_cost_nothing(tmp_path: Path, case: str, edit: dict[str, Any], memory: Callable[[], int]) -> None:
    """Billions in a small file are refused before anything of that size is made."""
    folder = decoders.write(tmp_path / "src", case, decoders.golden()[0][case])
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | edit))
    with pytest.raises(InvalidModel, match=next(iter(edit))):
        export(folder, tmp_path / "out")
    assert memory() < 64 << 20


def test_nan_weights_are_named(tmp_path: Path) -> None:
    """Where they are rounded; a float graph may hold them, and says so when it writes text (tests/text)."""
    from frugal.quantize import quantize
    from safetensors.numpy import load_file, save_file

    folder = decoders.write(tmp_path / "src", "llama", decoders.golden()[0]["llama"])
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = np.nan
    save_file(tensors, folder / "model.safetensors")
    export(folder, tmp_path / "out")
    with pytest.raises(InvalidModel, match=r"'model\.layers\.1\.mlp\.up_proj\.weight' holds NaN"):
        quantize(tmp_path / "out", tmp_path / "q", scheme="int8")
    assert not (tmp_path / "q").exists()
