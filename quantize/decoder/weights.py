"""What the graph builder asks of a model file: tensors by the part they play, as nodes and initializers of the graph.

Parts: embed, embed_norm, norm, head, positions; of layer i (prefix "i."): q k v o gate up down (weights and biases),
norm1 norm1_after norm2 norm2_after q_norm k_norm, xielu.
"""

from __future__ import annotations

from typing import Protocol

from ..graph import Graph


class Weights(Protocol):
    """Where a decoder's tensors come from. All sizes in elements; values are float32 in the graph."""

    def linear(self, g: Graph, x: str, part: str, rows: int, cols: int) -> str:
        """y [.., rows] = x [.., cols] W^T (+ b where the file has one)."""

    def vector(self, g: Graph, part: str, size: int, *, bias: bool = False) -> str:
        """The weight (or bias) [size] of a norm."""

    def table(self, g: Graph, part: str, rows: int, cols: int, ids: str) -> str:
        """Rows of a table [rows, cols] by int64 ids of any shape."""

    def tied_head(self, g: Graph, x: str, rows: int, cols: int) -> str:
        """Logits by the embedding table."""

    def scalars(self, part: str) -> dict[str, float]:
        """Learned numbers of an activation, by name."""

    def has(self, part: str) -> bool:
        """Whether the file has the part's weight."""
