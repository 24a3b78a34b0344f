"""StreamDecoder: whole characters only, stop strings never shown in part."""

from __future__ import annotations

import pytest

from frugal.text.streaming import StreamDecoder


def decode(tokens: list[int]) -> str:
    """Tokens are bytes."""
    return bytes(tokens).decode("utf-8", errors="replace")


TEXT = "été ☃ 😀 fin\n"


def test_characters_are_never_cut() -> None:
    s = StreamDecoder(decode)
    pieces = [s.add([b]) for b in TEXT.encode()]
    assert "".join(pieces) + s.end() == TEXT == s.text
    assert "\ufffd" not in "".join(pieces)
    assert pieces[0] == "" and pieces[1] == "é"


def test_broken_bytes_come_at_the_end() -> None:
    s = StreamDecoder(decode)
    assert s.add([65, 0xC3]) == "A"
    assert s.end() == "\ufffd"


def test_bytes_that_never_become_a_character_do_not_block_for_ever() -> None:
    s = StreamDecoder(decode)
    got = "".join(s.add([0xFF]) for _ in range(200)) + s.add(list(b"ok"))
    assert got.endswith("ok") and len(s.text) == 202


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_stop_strings(size: int) -> None:
    data = list(b"one STO two STOP three")
    s = StreamDecoder(decode, ["STOP", "never"])
    pieces = [s.add(data[i : i + size]) for i in range(0, len(data), size)]
    assert "".join(pieces) + s.end() == "one STO two " and s.stopped


def test_half_a_stop_string_is_given_at_the_end() -> None:
    s = StreamDecoder(decode, ["STOP"])
    assert s.add(list(b"x STO")) == "x " and s.end() == "STO"


def test_long_texts_keep_a_window() -> None:
    text = "la vie est belle, été comme hiver ☃. " * 40
    s = StreamDecoder(decode)
    assert "".join(s.add([b]) for b in text.encode()) + s.end() == text


def test_what_precedes_decides_on_spaces() -> None:
    words = {0: "▁a", 1: "▁b"}

    def spm(tokens: list[int]) -> str:
        return "".join(words[t] for t in tokens).replace("▁", " ").removeprefix(" ")

    assert StreamDecoder(spm, before=[0]).add([1]) == " b"
    assert StreamDecoder(spm).add([1]) == "b"
