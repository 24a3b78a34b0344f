"""`TextModel`: a folder with a decoder and its tokenizer writes text."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from ..bindings.text import Decoder, Sampling
from ..errors import InvalidArgument, InvalidModel, NoSuchFile
from . import chat
from .streaming import StreamDecoder
from .tokenizer import open_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BLOCK = 8  # tokens that C makes between two looks at stop strings, where nobody watches
REASONS = {1: "stop", 2: "context"}


class Generation(str):
    """The text that was written, with what belongs to it.

    tokens: list[int], the stop token left out.  prompt_tokens: int.  finish_reason: 'stop' (a stop token or string),
    'length' (max_new_tokens), 'context' (no room left), 'cancelled'.  logprobs: of each token under softmax(logits), or None.
    """

    tokens: list[int]
    prompt_tokens: int
    finish_reason: str
    logprobs: list[float] | None

    @classmethod
    def of(cls, text: str, tokens: list[int], prompt: int, reason: str, logprobs: list[float] | None) -> Generation:
        """All fields at once."""
        made = cls(text)
        made.tokens, made.prompt_tokens, made.finish_reason, made.logprobs = tokens, prompt, reason, logprobs
        return made

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "text": str(self),
            "tokens": self.tokens,
            "prompt_tokens": self.prompt_tokens,
            "finish_reason": self.finish_reason,
            "logprobs": self.logprobs,
        }


@dataclass
class _Row:
    """One text that is being written."""

    stream: StreamDecoder
    prompt: int
    tokens: list[int] = field(default_factory=list)
    reason: str = ""


class TextModel:
    """A decoder, its tokenizer and its caches.  One generation at a time (others wait); `cancel` from any thread."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, decoder: Decoder, stops: Sequence[int]) -> None:
        self.folder, self.tokenizer = folder, tokenizer
        self.stop_tokens = list(stops)
        self._decoder = decoder
        self._busy = threading.Lock()
        self._template = chat.read_template(folder)
        self._special = chat.special_tokens(folder)

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        threads: int = 0,
        activations: str = "int8",
        cache: str | None = None,
        context: int | None = None,
        memory_limit_bytes: int | None = None,
    ) -> TextModel:
        """Open a folder written by `frugal export` (and `frugal quantize`): model.onnx or model.frugal, tokenizer.json.

        threads: 0 for one a usable CPU.  activations: 'int8' or 'float', as in frugal.compile.  cache: how keys and values are
        kept, 'float32', 'float16' or 'int8' (a scale for each head and token); None: float32 with float activations, else
        float16.  context: the most tokens of a text, prompt included; None: what the model provides for.  The first opening
        compiles the model and keeps the plan (frugal.cache).  Raises NoSuchFile, InvalidModel, InvalidArgument, MissingExtra.
        """
        from ..bindings import library

        path = Path(folder)
        if not path.is_dir():
            raise NoSuchFile(f"{path}: no such folder (a text model is a folder with model.onnx and tokenizer.json)")
        plan = _open_plan(path, activations, cache or ("float32" if activations == "float" else "float16"))
        trained = int(plan.meta.get("metadata", {}).get("frugal.context", 0) or 0)
        if context is not None and (context < 2 or (trained and context > trained)):
            raise InvalidArgument(f"context {context}: the model provides for 2 to {trained} tokens")
        if not (context or trained):
            raise InvalidModel(f"{path}: the model does not say its context; give context=")
        decoder = Decoder(plan.buffer, library.Pool(threads), context or trained, memory_limit_bytes)
        tokenizer = open_tokenizer(path)
        if tokenizer.get_vocab_size() > decoder.vocabulary:
            raise InvalidModel(
                f"{path / 'tokenizer.json'}: has {tokenizer.get_vocab_size()} tokens, the model {decoder.vocabulary}:"
                " it is another model's"
            )
        return cls(path, tokenizer, decoder, _stop_tokens(path, tokenizer))

    @property
    def context(self) -> int:
        """The most tokens of a text, prompt included."""
        return self._decoder.context

    def cancel(self) -> None:
        """End the running generation after the current token; from any thread."""
        self._decoder.cancel()

    @overload
    def generate(self, prompt: str | Sequence[int], *, stream: Literal[False] = False, **options: Any) -> Generation: ...
    @overload
    def generate(self, prompt: list[str], *, stream: Literal[False] = False, **options: Any) -> list[Generation]: ...
    @overload
    def generate(self, prompt: str | Sequence[int], *, stream: Literal[True], **options: Any) -> Iterator[str]: ...

    def generate(self, prompt: Any, *, stream: bool = False, **options: Any) -> Any:
        """Continue a prompt.

        prompt: str, a list of token ids, or a list of str (a batch: they are read and written together).
        options: max_new_tokens=256, temperature=0.0 (the likeliest token), top_k=0, top_p=1.0, min_p=0.0,
        repetition_penalty=1.0, seed=0 (row r of a batch draws with seed + r), stop=() strings, ignore_eos=False, logprobs=False,
        add_special_tokens=True, progress=None (called with tokens of the prompt read, and all).
        The same seed gives the same text on every CPU and with any number of threads.
        Returns a Generation (a str), a list of them, or with stream=True an iterator of pieces of text.
        Raises InvalidArgument (an empty prompt, one beyond the context), OutOfMemory.
        """
        asked = _Options(**options)
        if not stream:
            batch = isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], str)
            rows = self._write(self._prompts(prompt, asked), asked)
            return rows if batch else rows[0]
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], str):
            raise InvalidArgument("stream=True takes one prompt, not a batch")
        return self._pieces(self._prompts(prompt, asked), asked)

    def chat(self, messages: Sequence[Mapping[str, Any]], *, stream: bool = False, **options: Any) -> Any:
        """`generate` on the model's chat template of messages [{'role': 'user', 'content': …}, …]."""
        prompt = self.chat_prompt(messages)
        return self.generate(prompt, stream=stream, **{"add_special_tokens": False} | options)  # type: ignore[call-overload]

    def chat_prompt(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The text that the chat template makes of messages. Raises InvalidArgument where the model has no template."""
        if self._template is None:
            raise InvalidArgument(f"{self.folder}: the model has no chat template; use generate() with a prompt of your own")
        return chat.render(self._template, messages, self._special)

    # ---- inside ----
    def _prompts(self, prompt: Any, asked: _Options) -> list[list[int]]:
        if isinstance(prompt, str):
            return [self._encode(prompt, asked)]
        prompt = list(prompt)
        if prompt and all(isinstance(p, str) for p in prompt):
            return [self._encode(p, asked) for p in prompt]
        if not prompt or not all(isinstance(t, int) and not isinstance(t, bool) for t in prompt):
            raise InvalidArgument("the prompt must be a str, a list of str or a list of token ids, not empty")
        return [prompt]

    def _encode(self, text: str, asked: _Options) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=asked.add_special_tokens).ids)

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))

    def _pieces(self, prompts: list[list[int]], asked: _Options) -> Iterator[str]:
        """The first row's text piece by piece; leaving the iterator ends the generation."""
        with self._busy:
            rows = self._begin(prompts, asked)
            while not rows[0].reason:
                piece = self._advance(rows, asked, 1)[0]
                if piece:
                    yield piece
            piece = rows[0].stream.end()
            if piece:
                yield piece

    def _write(self, prompts: list[list[int]], asked: _Options) -> list[Generation]:
        with self._busy:
            rows = self._begin(prompts, asked)
            while not all(r.reason for r in rows):
                self._advance(rows, asked, BLOCK if not asked.stop else 1)
            out = []
            for i, row in enumerate(rows):
                row.stream.end()
                found = self._decoder.logprobs(i, row.prompt, row.prompt + len(row.tokens)) if asked.logprobs else None
                out.append(Generation.of(row.stream.text, row.tokens, row.prompt, row.reason, found))
            return out

    def _begin(self, prompts: list[list[int]], asked: _Options) -> list[_Row]:
        stops = [] if asked.ignore_eos else self.stop_tokens
        how = [asked.sampling(r) for r in range(len(prompts))]
        self._decoder.start(prompts, how, stops, asked.max_new_tokens, asked.progress)
        return [_Row(StreamDecoder(self._decode, asked.stop, p), len(p)) for p in prompts]

    def _advance(self, rows: list[_Row], asked: _Options, count: int) -> list[str]:
        """Up to `count` more tokens for each row; the text that became certain."""
        count = min(count, asked.max_new_tokens - max(len(r.tokens) for r in rows if not r.reason))
        new = self._decoder.generate(count) if count > 0 and not self._decoder.cancelled else [[] for _ in rows]
        return [self._take(i, row, got, asked) for i, (row, got) in enumerate(zip(rows, new, strict=True))]

    def _take(self, i: int, row: _Row, got: list[int], asked: _Options) -> str:
        if row.reason:
            return ""
        done = self._decoder.done(i)
        text = got[:-1] if done == 1 else got  # a stop token is no text
        row.tokens += text
        piece = row.stream.add(text)
        if row.stream.stopped:
            row.reason = "stop"
        elif done:
            row.reason = REASONS[done]
        elif self._decoder.cancelled:
            row.reason = "cancelled"
        elif len(row.tokens) >= asked.max_new_tokens:
            row.reason = "length"
        if row.reason:
            self._decoder.finish(i)
        return piece


@dataclass(frozen=True)
class _Options(Sampling):
    """The options of `generate`, checked; those of one row's sampling are the base's."""

    max_new_tokens: int = 256
    stop: str | Sequence[str] = ()
    ignore_eos: bool = False
    logprobs: bool = False
    add_special_tokens: bool = True
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        n = self.max_new_tokens
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise InvalidArgument(f"max_new_tokens must be a number from 0 on, got {n!r}")
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        if not all(isinstance(s, str) for s in self.stop):
            raise InvalidArgument(f"stop must be strings, got {self.stop!r}")

    def sampling(self, row: int) -> Sampling:
        """Of one row of a batch."""
        return replace(self, seed=(self.seed + row) % 2**64)


def _open_plan(folder: Path, activations: str, cache: str) -> Any:
    from ..cache import compiled
    from ..plan import Plan

    if (folder / "model.onnx").is_file():
        return compiled(folder / "model.onnx", activations=activations, generation=cache)[0]
    if (folder / "model.frugal").is_file():
        return Plan.open(folder / "model.frugal")
    raise NoSuchFile(f"{folder} has neither model.onnx nor model.frugal")


def _stop_tokens(folder: Path, tokenizer: Tokenizer) -> list[int]:
    """Ends of text: eos_token_id of generation_config.json and config.json, eos_token of the tokenizer."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        ids = chat.read_json(folder / name).get("eos_token_id")
        found |= {i for i in (ids if isinstance(ids, list) else [ids]) if isinstance(i, int)}
        if found:
            break
    text = chat.special_tokens(folder).get("eos_token")
    number = tokenizer.token_to_id(text) if text else None
    return sorted(found | ({number} if number is not None else set()))
