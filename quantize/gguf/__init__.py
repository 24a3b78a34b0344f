"""GGUF files (llama.cpp's format): the container, its block formats, its tokenizer.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; blocks: ggml-common.h of the same project.
"""

from __future__ import annotations

from .reader import GgufFile, GgufTensor

__all__ = ["GgufFile", "GgufTensor"]
