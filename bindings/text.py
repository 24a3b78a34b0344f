"""A decoder's plan made ready to write texts: caches that stay in place, tokens, and the loop in C (frugal_text.h)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from frugal.errors import InvalidArgument, InvalidModel, OutOfMemory

from . import kv, library
from ._ffi import ffi, lib
from .kv import Cache
from .plan import PlanBuffer
from .session import Session, _aligned
from .status import check

FLOAT, INT64 = 1, 7
GROW = 256  # tokens by which the caches grow at least
_CACHE = re.compile(r"(?:past_key_values|past)\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen; the fields of frugal_sampling, checked."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind, low, high in (
            ("temperature", float, 0.0, 100.0),
            ("top_k", int, 0, 2**31 - 1),
            ("top_p", float, 0.0, 1.0),
            ("min_p", float, 0.0, 1.0),
            ("repetition_penalty", float, 1e-3, 1e3),
            ("seed", int, 0, 2**64 - 1),
        ):
            value = getattr(self, name)
            right = isinstance(value, int) or (kind is float and isinstance(value, float))
            if isinstance(value, bool) or not right or not low <= value <= high:
                noun = "a whole number from" if kind is int else "a number from"
                raise InvalidArgument(f"{name} must be {noun} {low:g} to {high:g}, got {value!r}")


class Decoder:
    """Texts of one decoder, a row each, that share a plan with fixed caches and logits of the last token.

    Rows keep their caches from one text to the next: what a new text has in common with the old one at its start is not read
    again. Not safe to share between threads, but for `cancel`.
    """

    def __init__(self, plan: PlanBuffer, pool: library.Pool, context: int, memory_limit: int | None = None) -> None:
        self.plan, self.context = plan, context
        self.session, self._limit = Session(plan, pool, memory_limit), memory_limit
        names = [t.name for t in plan.inputs]
        outputs = [t.name for t in plan.outputs]
        for needed in ("input_ids", "write_indices", "last_index"):
            if needed not in names:
                raise InvalidModel(
                    f"the plan has no input {needed!r}: want a decoder with fixed caches and logits of the last token"
                )
        self._at = {n: i for i, n in enumerate(names)}
        self._logits = outputs.index("logits")
        self.vocabulary = int(plan.outputs[self._logits].shape[-1] or 0)
        caches = [(i, t) for i, t in enumerate(plan.inputs) if _CACHE.fullmatch(t.name)]
        self._caches = [Cache.of(t, i, self._present(t.name, outputs)) for i, t in caches]
        if not self._caches:
            raise InvalidModel("the plan has no inputs past_key_values.N.key")
        self._stopped = ffi.new("int32_t *", 0)
        self.rows = self.capacity = 0
        self._tokens: list[list[int]] = []  # of each row, as far as they were read
        self._written: list[int] = []  # of each row: the place after the last that was written
        self._memory: dict[int, tuple[Any, Any]] = {}

    @staticmethod
    def _present(name: str, outputs: Sequence[str]) -> int:
        found = _CACHE.fullmatch(name)
        assert found is not None
        for form in (f"present.{found[1]}.{found[2]}", f"present_key_values.{found[1]}.{found[2]}"):
            if form in outputs:
                return outputs.index(form)
        raise InvalidModel(f"the cache {name!r} has no output present.{found[1]}.{found[2]}")

    def cancel(self) -> None:
        """End the generation or the reading of a prompt that runs now, after the current token; from any thread."""
        self._stopped[0] = 1

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called since the last `start`."""
        return bool(self._stopped[0])

    # ---- texts ----
    def start(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sequence[Sampling],
        stops: Sequence[int],
        most: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Read prompts, one a row; `generate` appends to them.

        most: tokens to make room for after the longest prompt.  Raises InvalidArgument (an empty prompt, a token that is not in
        the vocabulary, a prompt that fills the context), OutOfMemory.
        """
        self._stopped[0] = 0
        self._check(prompts)
        longest = max(map(len, prompts))
        self._make_room(len(prompts), min(self.context, longest + most))
        kept = [self._held(r, p) for r, p in enumerate(prompts)]
        self._written = [n if k else 0 for n, k in zip(self._written, kept, strict=True)]
        self._tokens = [list(p[:k]) for p, k in zip(prompts, kept, strict=True)]
        self._prepare(prompts, sampling, stops)
        self._read(prompts, kept, progress)

    def _check(self, prompts: Sequence[Sequence[int]]) -> None:
        for prompt in prompts:
            if not prompt:
                raise InvalidArgument("the prompt has no tokens")
            if len(prompt) >= self.context:
                raise InvalidArgument(f"the prompt has {len(prompt)} tokens, the model's context {self.context}; shorten it")
            bad = next((t for t in prompt if not 0 <= t < self.vocabulary), None)
            if bad is not None:
                raise InvalidArgument(f"token {bad} is not one of the model's {self.vocabulary}: another model's tokenizer?")

    def _make_room(self, rows: int, tokens: int) -> None:
        """Caches for that many rows and tokens; what they hold is kept while the rows stay."""
        if rows == self.rows and tokens <= self.capacity:
            return
        held = self._written if rows == self.rows else []
        capacity = min(self.context, max(tokens, self.capacity + GROW if held else 0, GROW))
        old, old_capacity = self._memory, self.capacity
        sizes = {c.input: rows * c.row_bytes(capacity) for c in self._caches}
        total, limit = sum(sizes.values()), self._limit
        what = f"{total} bytes of caches ({rows} x {capacity} tokens): take shorter texts, fewer at once, or a cache of int8"
        if limit is not None and total > limit:
            raise OutOfMemory(f"the memory limit of {limit} bytes has no room for {what}")
        try:
            self._memory = {i: _aligned(n) for i, n in sizes.items()}
        except OutOfMemory as e:
            raise OutOfMemory(f"no room for {what}") from e
        for cache in self._caches:
            for r, n in enumerate(held):
                cache.move(self._memory[cache.input][1], capacity, old[cache.input][1], old_capacity, r, n)
        self.rows, self.capacity = rows, capacity
        if not held:
            self._tokens, self._written = [[] for _ in range(rows)], [0] * rows

    def _held(self, row: int, prompt: Sequence[int]) -> int:
        """How many tokens of a new prompt a row's caches hold; the last is read again, for its logits."""
        common = min(_common(self._tokens[row], prompt), len(prompt) - 1)
        return common if all(c.holds(common, self._written[row], self.capacity) for c in self._caches) else 0

    def _prepare(self, prompts: Sequence[Sequence[int]], sampling: Sequence[Sampling], stops: Sequence[int]) -> None:
        """The structure that C reads, and its arrays."""
        rows, capacity = self.rows, self.capacity
        self._isa = library.isa_handle()
        keep = self._keep = {
            "tokens": ffi.new("int64_t[]", rows * capacity),
            "logprobs": ffi.new("float[]", rows * capacity),
            "lengths": ffi.new("int64_t[]", [len(p) for p in prompts]),
            "fed": ffi.new("int64_t[]", [len(p) for p in prompts]),
            "prompts": ffi.new("int64_t[]", [len(p) for p in prompts]),
            "done": ffi.new("uint8_t[]", rows),
            "stops": ffi.new("int64_t[]", list(stops) or [0]),
            "sampling": ffi.new("frugal_sampling[]", rows),
        }
        scratch = _aligned(lib.frugal_sample_bytes(self.vocabulary))
        self._scratch = scratch
        for r, (prompt, how) in enumerate(zip(prompts, sampling, strict=True)):
            keep["tokens"][r * capacity : r * capacity + len(prompt)] = list(prompt)
            s = keep["sampling"][r]
            s.temperature, s.top_k, s.top_p, s.min_p = how.temperature, how.top_k, how.top_p, how.min_p
            s.repetition_penalty, s.seed = how.repetition_penalty, how.seed
        g = self._g = ffi.new("frugal_generation *")
        for name in ("tokens", "logprobs", "lengths", "fed", "prompts", "done", "stops", "sampling"):
            setattr(g, name, keep[name])
        g.n_stops, g.rows, g.vocabulary, g.capacity = len(stops), rows, self.vocabulary, capacity
        g.isa, g.scratch, g.cancel = self._isa, scratch[1], self._stopped

    # ---- runs ----
    def _buffers(self, tokens: int) -> dict[str, Any]:
        """Input arrays for `tokens` tokens a row, and the logits."""
        count = self.rows * tokens
        made = {"input_ids": ffi.new("int64_t[]", count), "write_indices": ffi.new("int64_t[]", self.rows)}
        made["last_index"] = ffi.new("int64_t[]", self.rows)
        if "position_ids" in self._at:
            made["position_ids"] = ffi.new("int64_t[]", count)
        made["logits"] = ffi.new("float[]", self.rows * self.vocabulary)
        return made

    def _bound(self, buffers: dict[str, Any], tokens: int) -> tuple[Any, Any, list[tuple[int, ...]]]:
        """(inputs, outputs) of frugal_session_run for `tokens` tokens a row with the caches in place, and the inputs' shapes."""
        shapes: list[tuple[int, ...]] = []
        inputs = ffi.new("void *[]", len(self.plan.inputs))
        outputs = ffi.new("void *[]", len(self.plan.outputs))
        sizes = {"input_ids": (self.rows, tokens), "position_ids": (self.rows, tokens), "write_indices": (self.rows,)}
        sizes["last_index"] = (self.rows, 1, 1)
        caches = {c.input: c.shape(self.rows, self.capacity) for c in self._caches}
        for i, tensor in enumerate(self.plan.inputs):
            if i in caches:
                inputs[i] = self._memory[i][1]
                shapes.append(caches[i])
            elif tensor.name in sizes:
                inputs[i] = buffers[tensor.name]
                shapes.append(sizes[tensor.name])
            else:
                raise InvalidModel(f"the plan has an input {tensor.name!r} that text generation does not know")
        for cache in self._caches:
            outputs[cache.output] = self._memory[cache.input][1]
        outputs[self._logits] = buffers["logits"]
        return inputs, outputs, shapes

    def _read(self, prompts: Sequence[Sequence[int]], kept: Sequence[int], progress: Callable[[int, int], None] | None) -> None:
        """Run the prompts from `kept` tokens on, and keep the logits of each row's last token."""
        logits = ffi.new("float[]", self.rows * self.vocabulary)
        at, total = list(kept), sum(len(p) for p in prompts)
        while any(a < len(p) for a, p in zip(at, prompts, strict=True)):
            tokens = min(kv.CHUNK, max(len(p) - a for a, p in zip(at, prompts, strict=True)))
            tokens = min(tokens, self.capacity - max(at))
            self._read_chunk(prompts, at, tokens, logits)
            self._tokens = [list(p[:a]) for p, a in zip(prompts, at, strict=True)]
            if progress is not None:
                progress(sum(at), total)
            if self.cancelled:
                return
        self._begin_steps(logits)

    def _begin_steps(self, logits: Any) -> None:
        """Everything that one token a row needs, bound once; logits: of each row's last token."""
        g, buffers = self._g, self._buffers(1)
        ffi.memmove(buffers["logits"], logits, ffi.sizeof(logits))
        self._step = (buffers, *self._bound(buffers, 1))
        g.ids, g.places, g.logits = buffers["input_ids"], buffers["write_indices"], buffers["logits"]
        g.positions = buffers.get("position_ids", ffi.NULL)
        g.inputs, g.outputs = self._step[1], self._step[2]

    def _read_chunk(self, prompts: Sequence[Sequence[int]], at: list[int], tokens: int, logits: Any) -> None:
        """Up to `tokens` tokens of each row; a row that has fewer left is padded, beyond where anything reads its cache."""
        buffers = self._buffers(tokens)
        counts = []
        for r, prompt in enumerate(prompts):
            start = min(at[r], len(prompt) - 1)
            part = list(prompt[start : start + tokens])
            counts.append(len(part))
            buffers["input_ids"][r * tokens : r * tokens + len(part)] = part
            if "position_ids" in buffers:
                last = self.context - 1
                buffers["position_ids"][r * tokens : (r + 1) * tokens] = [min(start + i, last) for i in range(tokens)]
            buffers["write_indices"][r], buffers["last_index"][r] = start, len(part) - 1
            at[r] = start + len(part)
            self._written[r] = max(self._written[r], start + tokens)
        inputs, outputs, shapes = self._bound(buffers, tokens)
        with self.session.pool.lock:
            self.session.prepare(shapes)
            self.session.run_bound(inputs, outputs)
        size = self.vocabulary * ffi.sizeof("float")
        for r, prompt in enumerate(prompts):
            if at[r] == len(prompt):
                ffi.memmove(logits + r * self.vocabulary, buffers["logits"] + r * self.vocabulary, size)

    def generate(self, count: int) -> list[list[int]]:
        """Up to `count` more tokens for every row that is not done; the new ones of each row."""
        before = [int(n) for n in self._keep["lengths"]]
        g, error = self._g, ffi.new("frugal_error *")
        with self.session.pool.lock:
            self.session.prepare(self._step[3])
            g.session, g.arena, g.arena_bytes = self.session.handles()
            status = lib.frugal_generate(g, count, error)
        for r, held in enumerate(self._tokens):
            held += self._row(r, len(held), int(self._keep["fed"][r]))
            self._written[r] = max(self._written[r], len(held))
        check(status, error, self.plan)
        return [self._row(r, before[r], int(self._keep["lengths"][r])) for r in range(self.rows)]

    def _row(self, r: int, start: int, end: int) -> list[int]:
        return list(self._keep["tokens"][r * self.capacity + start : r * self.capacity + end])

    def logprobs(self, r: int, start: int, end: int) -> list[float]:
        """Log-probabilities of a row's generated tokens start to end, counted from the prompt's first token."""
        return list(self._keep["logprobs"][r * self.capacity + start : r * self.capacity + end])

    def likeliest(self, r: int, count: int) -> list[tuple[int, float]]:
        """The likeliest next tokens of a row and their log-probabilities."""
        tokens, values = ffi.new("int64_t[]", count), ffi.new("float[]", count)
        logits = self._step[0]["logits"] + r * self.vocabulary
        n = lib.frugal_likeliest(self._isa, logits, self.vocabulary, count, tokens, values, self._scratch[1])
        return list(zip(tokens[0:n], values[0:n], strict=True))

    def done(self, r: int) -> int:
        """0: goes on, 1: a stop token came, 2: no room for more."""
        return int(self._keep["done"][r])

    def finish(self, r: int) -> None:
        """No more tokens for this row."""
        self._keep["done"][r] = 1


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many elements two sequences share at their start."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
