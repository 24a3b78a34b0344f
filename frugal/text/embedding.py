"""`EmbeddingModel`: sentences to vectors, with sentence-transformers' `encode`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgument, InvalidModel, NoSuchFile
from . import chat
from .tokenizer import open_tokenizer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from tokenizers import Tokenizer

    from ..session import InferenceSession


class EmbeddingModel:
    """An encoder with pooling and its tokenizer, as `frugal export` writes sentence-transformers folders."""

    def __init__(
        self, session: InferenceSession, tokenizer: Tokenizer, longest: int, prompts: Mapping[str, str] | None = None
    ) -> None:
        self.session, self.tokenizer, self.max_seq_length = session, tokenizer, longest
        self.prompts = dict(prompts or {})  # by name; '' is the name of what goes before a sentence unless told otherwise
        self._inputs = [i.name for i in session.get_inputs()]
        names = [o.name for o in session.get_outputs()]
        if "sentence_embedding" not in names:
            raise InvalidModel(
                f"the model has no output 'sentence_embedding' (it has {', '.join(names)}): export it with its pooling"
            )

    @classmethod
    def open(cls, folder: str | os.PathLike[str], *, threads: int = 0, activations: str = "int8") -> EmbeddingModel:
        """Open a folder with model.onnx (or model.frugal) and tokenizer.json.  Raises NoSuchFile, InvalidModel, MissingExtra."""
        from ..session import InferenceSession, SessionOptions

        path = Path(folder)
        model = next((path / n for n in ("model.onnx", "model.frugal") if (path / n).is_file()), None)
        if model is None:
            raise NoSuchFile(f"{path} has neither model.onnx nor model.frugal")
        options = SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("frugal.activations", activations)
        return cls(InferenceSession(model, options), open_tokenizer(path), _longest(path), _prompts(path))

    def encode(
        self,
        sentences: str | Sequence[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> npt.NDArray[np.float32]:
        """Vectors of sentences: float32 [size] for a str, [sentences, size] for a list, in its order.

        prompt: text before each sentence; prompt_name: one of `prompts`, which the model's configuration names.
        truncate_dim: only so many first elements (normalized after that).  Spaces around a sentence do not count.
        Sentences are cut at max_seq_length tokens and run in batches of like length. Raises InvalidArgument.
        """
        import numpy as np

        one = isinstance(sentences, str)
        texts = [sentences] if isinstance(sentences, str) else list(sentences)
        if not all(isinstance(t, str) for t in texts) or batch_size < 1:
            raise InvalidArgument("encode takes a str or a list of str, and a batch_size of 1 or more")
        if truncate_dim is not None and not 1 <= truncate_dim <= self.size:
            raise InvalidArgument(f"truncate_dim must be 1 to {self.size}, got {truncate_dim!r}")
        before = self._prompt(prompt_name, prompt)
        encoded = [e.ids for e in self._encode([(before + t).strip() for t in texts])]
        order = sorted(range(len(texts)), key=lambda i: len(encoded[i]))
        found: dict[int, Any] = {}
        for a in range(0, len(order), batch_size):
            part = order[a : a + batch_size]
            found |= dict(zip(part, self._run([encoded[i] for i in part]), strict=True))
        width = truncate_dim or self.size
        vectors = np.stack([found[i][:width] for i in range(len(texts))]) if texts else np.zeros((0, width), np.float32)
        if normalize_embeddings:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors[0] if one else vectors

    def encode_query(self, sentences: str | Sequence[str], **options: Any) -> npt.NDArray[np.float32]:
        """`encode` with the prompt that the model has for queries, if it has one."""
        return self.encode(sentences, **self._named("query") | options)

    def encode_document(self, sentences: str | Sequence[str], **options: Any) -> npt.NDArray[np.float32]:
        """`encode` with the prompt that the model has for documents, if it has one."""
        return self.encode(sentences, **self._named("document", "passage", "corpus") | options)

    def _named(self, *names: str) -> dict[str, Any]:
        known = [name for name in names if name in self.prompts]
        return {"prompt_name": known[0]} if known else {}

    def _prompt(self, name: str | None, prompt: str | None) -> str:
        if prompt is not None:
            if not isinstance(prompt, str):
                raise InvalidArgument(f"prompt must be a str, got {prompt!r}")
            return prompt
        if name is None:
            return self.prompts.get("", "")
        if name not in self.prompts:
            known = ", ".join(repr(n) for n in self.prompts if n) or "none"
            raise InvalidArgument(f"the model has no prompt {name!r}; it has {known}")
        return self.prompts[name]

    @property
    def size(self) -> int:
        """Elements of a vector."""
        output = next(o for o in self.session.get_outputs() if o.name == "sentence_embedding")
        return int(output.shape[-1] or 0)

    def _encode(self, texts: list[str]) -> list[Any]:
        self.tokenizer.enable_truncation(self.max_seq_length)
        return list(self.tokenizer.encode_batch(texts))

    def _run(self, rows: list[list[int]]) -> Any:
        import numpy as np

        longest = max(1, *map(len, rows)) if rows else 1
        ids, mask = (np.zeros((len(rows), longest), np.int64) for _ in range(2))
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return self.session.run(["sentence_embedding"], {n: feeds[n] for n in self._inputs})[0]


def _longest(folder: Path) -> int:
    """max_seq_length of sentence-transformers, else what the positions allow."""
    found = chat.read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    if isinstance(found, int) and found > 0:
        return found
    positions = chat.read_json(folder / "config.json").get("max_position_embeddings", 512)
    return int(positions) if isinstance(positions, int) and positions > 2 else 512


def _prompts(folder: Path) -> dict[str, str]:
    """Prompts by name of config_sentence_transformers.json, the default one as ''.

    Raises InvalidModel where a default prompt must be kept out of the pooling, which the exported graph cannot.
    """
    config = chat.read_json(folder / "config_sentence_transformers.json")
    found = config.get("prompts")
    prompts = {k: v for k, v in found.items() if isinstance(v, str)} if isinstance(found, dict) else {}
    default = config.get("default_prompt_name")
    if isinstance(default, str) and default in prompts:
        prompts[""] = prompts[default]
    pooled = [chat.read_json(p).get("include_prompt", True) for p in folder.glob("*_Pooling/config.json")]
    if not all(pooled) and any(prompts.values()):
        raise InvalidModel(f"{folder}: its pooling leaves prompts out (include_prompt), which is not built in")
    return prompts
