"""Products: FULLY_CONNECTED, BATCH_MATMUL, EMBEDDING_LOOKUP."""

from __future__ import annotations

from frugal.errors import InvalidModel, UnsupportedOperator

from .conv import bias
from .converter import Op, identity, op


@op("FULLY_CONNECTED")
def fully_connected(o: Op) -> None:
    """x [.., K] or anything with a multiple of K elements, weights [O, K], bias [O] -> [M, O], or [.., O] with keep_num_dims."""
    x, w, y, options = o.input(0), o.input(1), o.output(), "FullyConnectedOptions"
    if o.option(options, "WeightsFormat", 0):
        raise UnsupportedOperator("shuffled weights are not supported: convert without them")
    if w.rank != 2 or min(w.shape) < 1:
        raise InvalidModel(f"weights have shape {list(w.shape)}, want [outputs, inputs]")
    rows, cols = w.shape
    value = o.flat_rows(x, cols)
    inputs = [value, o.c.real(w), *bias(o, 2, x, w, rows)]
    value = o.node("Gemm", inputs, main=True, transB=1)
    if y.rank != 2:
        value = o.reshape_like(value, y, x)
    o.c.put_real(y, value, None, o.activation(options))


@op("BATCH_MATMUL")
def batch_matmul(o: Op) -> None:
    """[.., M, K] times [.., K, N]; adj_x and adj_y swap the last two axes first."""
    x, w = o.input(0), o.input(1)
    values = []
    for t, adjoint in ((x, "AdjX"), (w, "AdjY")):
        if t.rank < 2:
            raise InvalidModel(f"{t} has {t.rank} dimensions, want 2 or more")
        perm = identity(t.rank)
        swapped = (*perm[:-2], perm[-1], perm[-2])
        values.append(o.c.real(t, swapped if o.option("BatchMatMulOptions", adjoint, False) else perm))
    o.c.put_real(o.output(), o.node("MatMul", values, main=True))


@op("EMBEDDING_LOOKUP")
def embedding_lookup(o: Op) -> None:
    """ids [N], table [V, ..] -> [N, ..]; a quantized table may give floats."""
    ids, table, y = o.input(0), o.input(1), o.output()
    if o.moving([table], [y]):
        o.c.put(y, o.node("Gather", [o.c.raw(table), o.c.raw(ids)], main=True, axis=0))
    else:
        o.c.put_real(y, o.node("Gather", [o.c.real(table), o.c.raw(ids)], main=True, axis=0))
