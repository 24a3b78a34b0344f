"""The tokenizer of a model's folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidModel, MissingExtra, NoSuchFile

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def open_tokenizer(folder: Path) -> Tokenizer:
    """The Tokenizer of a folder's tokenizer.json, without truncation and padding of its own.

    Raises NoSuchFile, InvalidModel, MissingExtra.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as e:
        raise MissingExtra("text needs tokenizers: pip install 'frugal-edge[text]'") from e
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise NoSuchFile(f"{path}: no such file (it belongs to the model's repository)")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as e:  # the library raises plain Exception
        raise InvalidModel(f"{path}: not a tokenizer that the `tokenizers` library reads ({e})") from e
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
