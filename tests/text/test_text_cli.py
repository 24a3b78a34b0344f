"""`frugal generate` and `frugal chat` in pipes and in a terminal; EmbeddingModel."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frugal import EmbeddingModel, InferenceSession, TextModel
from frugal.errors import InvalidArgument, InvalidModel

Folder = Callable[..., Path]
FRUGAL = [sys.executable, "-m", "frugal"]


def frugal(*args: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run([*FRUGAL, *args], input=text, capture_output=True, text=True, timeout=120)


def test_generate(text_folder: Folder) -> None:
    want = TextModel.open(text_folder()).generate("hello", max_new_tokens=9)
    done = frugal("generate", str(text_folder()), "--prompt", "hello", "--max-new-tokens", "9")
    assert (done.returncode, done.stdout) == (0, str(want) + "\n")
    piped = frugal("generate", str(text_folder()), "--max-new-tokens", "9", text="hello")
    assert piped.stdout == done.stdout and piped.stderr == ""


def test_generate_json(text_folder: Folder) -> None:
    done = frugal("generate", str(text_folder()), "--prompt", "hello", "--max-new-tokens", "4", "--json")
    found = json.loads(done.stdout)
    assert len(found["tokens"]) == len(found["logprobs"]) <= 4 and found["generate_seconds"] > 0
    assert set(found) >= {"text", "finish_reason", "prompt_tokens", "open_seconds"}


@pytest.mark.parametrize(
    "args,code,message",
    [
        (["--prompt", "x", "--max-new-tokens", "-1"], 2, "--max-new-tokens"),
        (["--prompt", "x", "--temperature", "-1"], 1, "temperature"),
        (["--prompt", ""], 1, "no tokens"),
        (["--prompt", "x", "--context", "1000"], 1, "context 1000"),
    ],
)
def test_generate_errors(text_folder: Folder, args: list[str], code: int, message: str) -> None:
    done = frugal("generate", str(text_folder()), *args)
    assert done.returncode == code and message in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_leaves_ends_it_quietly(text_folder: Folder) -> None:
    command = f"{sys.executable} -m frugal generate {text_folder()} --prompt hello --max-new-tokens 50 | head -c 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=120)
    assert done.stderr == "" and len(done.stdout) == 1


def test_chat_in_a_pipe(text_folder: Folder) -> None:
    model = TextModel.open(text_folder())
    first = model.chat([{"role": "user", "content": "hi"}], max_new_tokens=6)
    talk = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": str(first)}, {"role": "user", "content": "you"}]
    second = model.chat(talk, max_new_tokens=6)
    done = frugal("chat", str(text_folder()), "--max-new-tokens", "6", text="hi\nyou\n/new\nhi\n")
    assert done.returncode == 0 and done.stdout == f"{first}\n{second}\n{first}\n"


def test_chat_in_a_terminal(text_folder: Folder) -> None:
    main, other = pty.openpty()
    args = [*FRUGAL, "chat", str(text_folder()), "--max-new-tokens", "5"]
    with subprocess.Popen(args, stdin=other, stdout=other, stderr=other, start_new_session=True) as p:
        os.close(other)
        try:
            assert b"context 64 tokens" in _until(main, b"> ")
            os.write(main, b"hi\n")
            got = _until(main, b" s]")
            assert b" s]" in got
            if b"> " not in got.partition(b" s]")[2]:
                _until(main, b"> ", 10)
            os.write(main, b"/help\n")
            assert b"/undo" in _until(main, b"Ctrl-D)")
            for _ in range(60):  # a key pressed before the prompt is ready may be lost
                os.write(main, b"\x04")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    p.wait(timeout=0.5)
                    break
            assert p.returncode == 0
        finally:
            p.kill()
            os.close(main)


class Interrupted:
    """A model during whose answer the user presses Ctrl-C."""

    context = 10

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.cancelled = 0

    def chat(self, messages: list[dict[str, str]], stream: bool, **_: Any) -> Iterator[str]:
        self.asked.append(messages)
        yield "half an "
        raise KeyboardInterrupt

    def cancel(self) -> None:
        self.cancelled += 1


def test_ctrl_c_ends_the_answer_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from frugal.cli.chat import _Talk

    model = Interrupted()
    lines = iter(["one", "/system be brief", "two", "/undo", "/new", "three"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    talk = _Talk(model, None, {}, False)
    for _ in range(6):
        assert talk.turn()
    assert model.cancelled == 3 and capsys.readouterr().out == "half an \n" * 3
    assert [m["content"] for m in model.asked[1]] == ["be brief", "one", "half an ", "two"]
    assert [m["content"] for m in model.asked[2]] == ["be brief", "three"]


def _until(fd: int, mark: bytes, seconds: float = 60) -> bytes:
    """What a terminal shows until `mark` comes."""
    got, end = b"", time.monotonic() + seconds
    while mark not in got and time.monotonic() < end:
        if select.select([fd], [], [], 0.2)[0]:
            try:
                got += os.read(fd, 4096)
            except OSError:
                break
    return got


# ---- embeddings ----
@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny sentence encoder with the byte tokenizer."""
    from frugal.quantize import export

    from tests.quantize import checkpoints
    from tests.quantize.test_export import st_modules

    from .conftest import tokenizer_json

    root = tmp_path_factory.mktemp("encoder")
    folder, _, _ = checkpoints.tiny(root / "src", "bert")
    st_modules(folder, "mean", True)
    (folder / "tokenizer.json").write_text(tokenizer_json(50), encoding="utf-8")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    export(folder, root / "out")
    return root / "out"


def test_encode(encoder: Path) -> None:
    model, session = EmbeddingModel.open(encoder), InferenceSession(encoder / "model.onnx")
    texts = ["hello you", "a", "what is this ?", "a very long sentence that is cut at twenty tokens, surely so"]
    got = model.encode(texts, batch_size=3)
    assert got.shape == (4, model.size) and got.dtype == np.float32
    for text, vector in zip(texts, got, strict=True):
        ids = np.array([model.tokenizer.encode(text).ids[:20]])
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        np.testing.assert_array_equal(vector, session.run(["sentence_embedding"], feeds)[0][0])
        np.testing.assert_array_equal(vector, model.encode(text))
    np.testing.assert_allclose(np.linalg.norm(model.encode(texts, normalize_embeddings=True), axis=1), 1, atol=1e-6)
    assert model.encode([]).shape == (0, model.size)


def test_encode_refuses(encoder: Path, text_folder: Folder) -> None:
    with pytest.raises(InvalidArgument, match="encode takes"):
        EmbeddingModel.open(encoder).encode([3])  # type: ignore[list-item]
    with pytest.raises(InvalidModel, match="no output 'sentence_embedding'"):
        EmbeddingModel.open(text_folder())
