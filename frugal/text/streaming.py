"""Tokens to text as they come: no broken UTF-8, no text that a stop string may still swallow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

BROKEN = "\ufffd"
WINDOW = 64  # tokens decoded again with each new one: a character or a space spans fewer


class StreamDecoder:
    """Text of a growing list of tokens, piece by piece.

    decode: tokens -> text.  stops: strings that end the text, themselves left out.
    """

    def __init__(self, decode: Callable[[list[int]], str], stops: Sequence[str] = (), before: Sequence[int] = ()) -> None:
        self._decode, self._stops = decode, [s for s in stops if s]
        self._tokens = list(before[-8:])  # what precedes decides whether a word starts with a space
        self._start = self._read = len(self._tokens)
        self._base = 0
        self.text, self._given = "", 0
        self.stopped = False

    def add(self, tokens: Sequence[int]) -> str:
        """The text that is certain after these tokens and was not given before."""
        for token in tokens:
            if self.stopped:
                break
            self._tokens.append(token)
            self._grow(final=False)
        return self._give(final=False)

    def end(self) -> str:
        """What is left when no more tokens come; broken characters become U+FFFD."""
        if not self.stopped:
            self._grow(final=True)
        return self._give(final=True)

    def _grow(self, final: bool) -> None:
        prefix = self._decode(self._tokens[self._base : self._read])
        whole = self._decode(self._tokens[self._base :])
        if not final and whole.endswith(BROKEN) and len(self._tokens) - self._read < WINDOW:
            return  # the bytes so far may be half of a character
        self.text += whole[len(prefix) :]
        self._read = len(self._tokens)
        self._base = max(self._base, self._read - WINDOW) if self._read - self._base > 2 * WINDOW else self._base
        self._cut()

    def _cut(self) -> None:
        found = [at for s in self._stops if (at := self.text.find(s, max(0, self._given - len(s)))) >= 0]
        if found:
            self.text, self.stopped = self.text[: min(found)], True

    def _give(self, final: bool) -> str:
        end = len(self.text)
        if not (final or self.stopped):
            end -= max((_overlap(self.text, s) for s in self._stops), default=0)
        piece = self.text[self._given : max(end, self._given)]
        self._given += len(piece)
        return piece


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of text may be the start of the stop string."""
    for n in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:n]):
            return n
    return 0
