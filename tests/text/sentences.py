"""Sentences and what sentence-transformers makes of them with all-MiniLM-L6-v2 (tests/data/sentences.npz, recorded with 5.1.2).

python -m tests.text.sentences    writes the file anew, where sentence-transformers is installed
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent.parent / "data" / "sentences.npz"
SENTENCES = [
    "hello world",
    "  spaces around, \n",
    "",
    "Où est la bibliothèque ? 😀",
    "a long text " * 200,
    "Hello WORLD",
]
# arguments of `encode` by name
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "normalized": {"normalize_embeddings": True},
    "prompt": {"prompt": "query: "},
    "short": {"truncate_dim": 16, "normalize_embeddings": True},
}


def main() -> None:
    from sentence_transformers import SentenceTransformer

    import models

    model = SentenceTransformer(str(models.fetch("all-MiniLM-L6-v2")), device="cpu")
    np.savez_compressed(GOLDEN, **{name: model.encode(SENTENCES, **how) for name, how in WAYS.items()})


if __name__ == "__main__":
    main()
