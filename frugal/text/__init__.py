"""Text generation and embeddings with models on this machine; needs the extra `text` (tokenizers)."""

from __future__ import annotations

from .embedding import EmbeddingModel
from .model import Generation, TextModel

__all__ = ["EmbeddingModel", "Generation", "TextModel"]
