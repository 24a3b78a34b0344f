"""`frugal generate` and `frugal chat` in pipes and in a terminal."""

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

import pytest

from frugal import TextModel

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
