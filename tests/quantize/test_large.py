"""Decoders with large tensors: memory stays bounded by the largest, a run that was killed goes on, a full disk says so."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from frugal.quantize import _journal, export, quantize

from frugal.errors import FrugalError

from . import decoders

MiB = 1 << 20
ALLOWED = 300 * MiB  # beside 1.5 times the largest tensor in float32


def checkpoint(folder: Path, hidden: int, vocabulary: int, inner: int, **more: Any) -> Path:
    """A sharded bfloat16 llama of two layers and an untied head, in files that are made a piece at a time."""
    c = decoders.config("llama") | {"hidden_size": hidden, "vocab_size": vocabulary, "intermediate_size": inner} | more
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(c))
    narrow = c["num_key_value_heads"] * hidden // c["num_attention_heads"]
    shapes: dict[str, list[int]] = {"model.embed_tokens.weight": [vocabulary, hidden], "lm_head.weight": [vocabulary, hidden]}
    shapes["model.norm.weight"] = [hidden]
    for i in range(c["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for name, rows, cols in (("q", hidden, hidden), ("k", narrow, hidden), ("v", narrow, hidden), ("o", hidden, hidden)):
            shapes[f"{at}self_attn.{name}_proj.weight"] = [rows, cols]
        for name, rows, cols in (("gate", inner, hidden), ("up", inner, hidden), ("down", hidden, inner)):
            shapes[f"{at}mlp.{name}_proj.weight"] = [rows, cols]
        shapes |= {f"{at}{n}.weight": [hidden] for n in ("input_layernorm", "post_attention_layernorm")}
    names, weight_map = list(shapes), {}
    for shard, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :])):
        file = f"model-{shard + 1:05}-of-00002.safetensors"
        weight_map |= dict.fromkeys(part, file)
        _shard(folder / file, {n: shapes[n] for n in part}, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def _shard(path: Path, shapes: dict[str, list[int]], seed: int) -> None:
    header, at = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + 2 * int(np.prod(shape))]}
        at += 2 * int(np.prod(shape))
    head = json.dumps(header).encode()
    piece = (np.random.default_rng(seed).standard_normal(1 << 18).astype("<f4") * np.float32(0.05)).view("<u4") >> 16
    raw = piece.astype("<u2").tobytes()
    with open(path, "wb") as f:
        f.write(len(head).to_bytes(8, "little") + head)
        for _ in range(at // len(raw)):
            f.write(raw)
        f.write(raw[: at % len(raw)])


def child(code: str, **more: Any) -> subprocess.Popen[bytes]:
    """Python in a process of its own."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, **more)


def peak(code: str) -> int:
    """Peak resident bytes of a child that runs `code`, as the system counts them."""
    # ru_maxrss of a forked child starts at its parent's, so the child says itself what it had
    own = "\nimport re; print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    out, err = (c := child(code + own)).communicate()
    assert c.returncode == 0, err.decode()
    return int(out.split()[-1]) * 1024


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/self/status")
def test_memory_is_bounded_by_the_largest_tensor(tmp_path: Path) -> None:
    """A model of 403 MB of float32 whose largest tensor has 50 MB, from bfloat16 shards to float32, int8 and int4."""
    source = checkpoint(tmp_path / "src", 256, 49152, 49152)
    limit = int(1.5 * 49152 * 256 * 4) + ALLOWED
    code = f"from frugal.quantize import export; export({str(source)!r}, {str(tmp_path / 'float')!r})"
    found = {"export": peak(code)}
    total = sum(p.stat().st_size for p in (tmp_path / "float").iterdir())
    assert total > limit  # a program that loads the model cannot pass
    for scheme in ("int8", "int4"):
        arguments = f"{str(tmp_path / 'float')!r}, {str(tmp_path / scheme)!r}, scheme={scheme!r}, verify_result=False"
        found[scheme] = peak(f"from frugal.quantize import quantize; quantize({arguments}, method='rtn')")
    print({k: f"{v / MiB:.0f} MiB" for k, v in found.items()}, f"allowed {limit / MiB:.0f} MiB")
    assert max(found.values()) < limit


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


RUN = """
import sys
from frugal.quantize import _journal, export, quantize
_journal.STEP = 1 << 17
seen = []
def wait(name, done, total):
    seen.append((name, done / total))
    if done > 0.6 * total:
        print('half', flush=True)
        sys.stdin.read()
"""


def killed(code: str) -> None:
    """Run until 60 % are written, then SIGKILL."""
    c = child(RUN + code, stdin=subprocess.PIPE)
    assert c.stdout is not None and c.stdout.readline().strip() == b"half", c.communicate()[1].decode()
    c.send_signal(signal.SIGKILL)
    c.communicate()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 MB of float32."""
    return checkpoint(tmp_path_factory.mktemp("sources") / "src", 64, 8192, 6144)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize("how", ["export", "onnx", "int8", "int4"])
def test_a_killed_run_goes_on(tmp_path: Path, source: Path, how: str) -> None:
    """Killed at 60 %: the second run produces only what was missing; files and report are those of an undisturbed run."""
    if how == "export":
        call = f"export({str(source)!r}, OUT, progress=wait)"
    elif how == "onnx":  # everything in one file
        call = f"export({str(source)!r}, OUT / 'm.onnx', progress=wait)"
    else:
        export(source, tmp_path / "float")
        call = f"quantize({str(tmp_path / 'float')!r}, OUT, scheme={how!r}, progress=wait, verify_result=False)"
    out = tmp_path / "out"
    killed(call.replace("OUT", f"__import__('pathlib').Path({str(out)!r})"))
    name = "m.onnx" if how == "onnx" else "model.onnx"
    assert [p.name for p in out.iterdir()] == [f".{name}.part"]  # nothing half written under the final name
    calls = {"export": export, "quantize": quantize}
    told: list[tuple[str, int, int]] = []
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_journal.Journal, "add", lambda self, f, entry: made.extend(entry.tensors))
        resumed = eval(call, calls | {"OUT": out, "wait": lambda *a: told.append(a)})
    whole = tmp_path / "whole"
    seen: list[tuple[str, int, int]] = []
    plain = eval(call, calls | {"OUT": whole, "wait": lambda *a: seen.append(a)})
    assert contents(out) == contents(whole)
    assert told[-1] == seen[-1]
    sizes = {n: b - a for (n, b, _), a in zip(seen, [0, *(d for _, d, _ in seen)], strict=False)}
    assert 0 < sum(sizes[n] for n in made) < 0.55 * seen[-1][2]  # 40 % and at most the tensor that was being written
    if how in ("int8", "int4"):
        assert resumed.tensors == plain.tensors and resumed.bytes_out == plain.bytes_out


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_changed_source_begins_anew(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "src", 64, 4096, 3072)
    killed(f"export({str(folder)!r}, {str(tmp_path / 'out')!r}, progress=wait)")
    shard = folder / "model-00001-of-00002.safetensors"
    raw = bytearray(shard.read_bytes())
    raw[-1000:] = bytes(1000)
    shard.write_bytes(raw)
    export(folder, tmp_path / "out")
    export(folder, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_damaged_journal_costs_nothing_but_time(tmp_path: Path, source: Path) -> None:
    killed(f"export({str(source)!r}, {str(tmp_path / 'out')!r}, progress=wait)")
    export(source, tmp_path / "whole")
    kept = tmp_path / "kept"
    (tmp_path / "out").rename(kept)
    journal = Path(".model.onnx.part") / _journal.JOURNAL
    lines = (kept / journal).read_text().splitlines(keepends=True)
    assert len(lines) > 4
    cut = "".join(lines[:3])
    for i, damaged in enumerate((cut + lines[3][:20], cut + "{}\n", cut + "[3]\n", "\n".join(["x", *lines]), "")):
        out = tmp_path / f"out{i}"
        shutil.copytree(kept, out)
        (out / journal).write_text(damaged)
        export(source, out)
        assert contents(out) == contents(tmp_path / "whole")


def test_gguf_errors_survive_a_kill(tmp_path: Path) -> None:
    """What a conversion cost is in the journal too: the note of a resumed export is the same."""
    from .test_gguf import TYPE, quantized_llama

    rows = np.random.default_rng(0).integers(0, 256, (64, 24 * 2), np.uint8)
    rows.reshape(64, 2, 24)[..., :4] = np.array([0.01, -0.1], "<f2").view(np.uint8)
    path, _ = quantized_llama(tmp_path / "q.gguf", replace={"blk.0.attn_q.weight": (TYPE["Q5_1"], (64, 64), rows.tobytes())})
    want = export(path, tmp_path / "whole").notes
    assert any("Q5_1" in n and "relative RMS error" in n for n in want)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_journal, "STEP", 1)
        killed_at = []

        def stop(name: str, done: int, total: int) -> None:
            killed_at.append(name)
            if name.startswith("blk.1.ffn_down"):
                os._exit(9)

        pid = os.fork()
        if pid == 0:
            export(path, tmp_path / "out", progress=stop)
        os.waitpid(pid, 0)
    assert (tmp_path / "out" / ".model.onnx.part").is_dir()
    assert export(path, tmp_path / "out").notes == want
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process")
def test_full_disk(tmp_path: Path, source: Path) -> None:
    """A file that may not grow any more, and a disk that is seen to be too small before anything is written."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))\n"
        f"from frugal.quantize import export; export({str(source)!r}, {str(tmp_path / 'out')!r})"
    )
    c = child(code)
    err = c.communicate()[1].decode().splitlines()[-1]
    assert c.returncode and "FrugalError: cannot write" in err and "model.onnx" in err and "File too large" in err
    assert not (tmp_path / "out").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1 << 20))
        with pytest.raises(FrugalError, match=r"model\.onnx\.data: it needs 1\d{7} bytes more, the disk has 1048576"):
            export(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
