"""Sparse constants (TACO's format, as in the schema's SparsityParameters) made dense."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from frugal.errors import UnsupportedOperator

if TYPE_CHECKING:
    from .reader import Reader, Tensor

DENSE, SPARSE_CSR = 0, 1
MAX_BYTES = 256 << 20  # that the indices may take while a tensor is made dense
VECTORS = {1: "Int32Vector", 2: "Uint16Vector", 3: "Uint8Vector"}


def densify(reader: Reader, t: Tensor, values: NDArray[Any]) -> NDArray[Any]:
    """The dense array of `t`; `values` are its stored elements in traversal order.

    Every level turns each of its parent's cells into (cell, index) pairs: all indices of a dense level, the listed ones of a
    CSR level. The pairs of the last level are the stored elements.
    """
    s, schema = t.sparsity, reader.schema
    order, blocks = reader.ints(s, "TraversalOrder"), reader.ints(s, "BlockMap")
    levels = s.DimMetadataLength()
    rank = t.rank
    if levels != len(order) or sorted(order) != list(range(rank + len(blocks))) or any(not 0 <= b < rank for b in blocks):
        raise reader.fail(t, f"sparsity: traversal {order}, block map {blocks}, {levels} levels for rank {rank}")
    cells = np.zeros((1, 0), np.int64)  # indices so far, a row a cell
    sizes: dict[int, int] = {}
    for level in range(levels):
        d = s.DimMetadata(level)
        if d.Format() == DENSE:
            size = d.DenseSize()
            if size < 1 or 8 * levels * cells.shape[0] * size > MAX_BYTES:
                raise reader.fail(t, f"sparsity: dense level {level} of size {size}")
            parent, index = np.repeat(np.arange(cells.shape[0]), size), np.tile(np.arange(size), cells.shape[0])
        elif d.Format() == SPARSE_CSR:
            segments = vector(schema, d.ArraySegmentsType(), d.ArraySegments())
            index = vector(schema, d.ArrayIndicesType(), d.ArrayIndices())
            counts = np.diff(segments)
            if segments.size != cells.shape[0] + 1 or (counts < 0).any() or segments[0] != 0 or segments[-1] != index.size:
                raise reader.fail(t, f"sparsity: segments of level {level} do not fit")
            parent = np.repeat(np.arange(cells.shape[0]), counts)
        else:
            raise UnsupportedOperator(f"{reader.path}: {t}: sparsity format {d.Format()}")
        cells = np.concatenate([cells[parent], index[:, None]], axis=1)
        sizes[order[level]] = d.DenseSize()
    if cells.shape[0] > values.size:
        raise reader.fail(t, f"sparsity: {cells.shape[0]} elements, its buffer has {values.size}")
    return scatter(reader, t, cells, order, blocks, values[: cells.shape[0]], sizes)


def vector(schema: Any, kind: int, table: Any) -> NDArray[np.int64]:
    """One of the three integer vectors of the schema."""
    typed = getattr(schema, VECTORS[kind])()
    typed.Init(table.Bytes, table.Pos)
    return np.array(typed.ValuesAsNumpy() if typed.ValuesLength() else [], np.int64)


def scatter(
    reader: Reader,
    t: Tensor,
    cells: NDArray[np.int64],
    order: list[int],
    blocks: list[int],
    values: NDArray[Any],
    sizes: dict[int, int],
) -> NDArray[Any]:
    """Put the elements in their places: index of an axis = index of its blocks * block size + index inside the block."""
    index = np.zeros((cells.shape[0], t.rank), np.int64)
    column = {dim: cells[:, level] for level, dim in enumerate(order)}
    for axis in range(t.rank):
        index[:, axis] = column[axis]
    for number, axis in enumerate(blocks):
        dim = t.rank + number
        index[:, axis] = index[:, axis] * sizes[dim] + column[dim]
    if (index < 0).any() or (index >= np.array(t.shape)).any():
        raise reader.fail(t, "sparsity: an index lies outside the shape")
    dense = np.zeros(t.shape, t.dtype)
    dense[tuple(index.T)] = values
    return dense
