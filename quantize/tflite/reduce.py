"""Reductions: MEAN, SUM, REDUCE_*, ARG_MAX, ARG_MIN, CUMSUM."""

from __future__ import annotations

import numpy as np

from .converter import Op, checked_axis, identity, op

KINDS = {
    "MEAN": "ReduceMean",
    "SUM": "ReduceSum",
    "REDUCE_PROD": "ReduceProd",
    "REDUCE_MAX": "ReduceMax",
    "REDUCE_MIN": "ReduceMin",
    "REDUCE_ANY": "ReduceMax",
    "REDUCE_ALL": "ReduceMin",
}


@op(*KINDS)
def reduce(o: Op) -> None:
    """Over constant axes; kept axes of size 1 stay in the order of the input, else the order of what is left."""
    x, y = o.input(0), o.output()
    axes = sorted({checked_axis(a, x.rank) for a in o.const_ints(1, "the axes")})
    keep = bool(o.option("ReducerOptions", "KeepDims", False))
    perm = o.pick(x)
    bools = o.kind in ("REDUCE_ANY", "REDUCE_ALL")
    raw = o.kind in ("REDUCE_MAX", "REDUCE_MIN") and o.moving([x], [y], "")
    value = o.get(x, perm, raw)
    if bools:
        value = o.node("Cast", [value], to=o.c.onnx.TensorProto.INT32)
    places = sorted(perm.index(a) for a in axes)
    if axes:
        value = o.node(KINDS[o.kind], [value, o.c.ints(places)], main=not bools, keepdims=int(keep))
    if bools:
        value = o.node("Cast", [value], main=True, to=o.c.onnx.TensorProto.BOOL)
    if not keep:
        left = [a for a in perm if a not in axes]
        perm = tuple(sorted(left).index(a) for a in left)
    if len(perm) != y.rank:
        perm = identity(y.rank)
    o.set(y, value if axes or bools else o.node("Identity", [value], main=True), perm, raw or bools)


@op("ARG_MAX", "ARG_MIN")
def arg(o: Op) -> None:
    """The first place of the extreme along an axis, which goes."""
    x, y = o.input(0), o.output()
    axis = checked_axis(o.const_ints(1, "the axis")[0], x.rank)
    kind = "ArgMax" if o.kind == "ARG_MAX" else "ArgMin"
    perm = o.pick(x)
    value = o.node(kind, [o.get(x, perm, o.moving([x], [], "i1 u1"))], main=True, axis=perm.index(axis), keepdims=0)
    if y.dtype != np.int64:
        value = o.node("Cast", [value], to=o.c.elem(y))
    left = [a for a in perm if a != axis]
    o.c.put(y, value, tuple(sorted(left).index(a) for a in left))


@op("CUMSUM")
def cumsum(o: Op) -> None:
    """Running sums along a constant axis."""
    x, y = o.input(0), o.output()
    axis = checked_axis(o.const_ints(1, "the axis")[0], x.rank)
    perm = o.pick(x)
    flags = {
        key: int(o.option("CumsumOptions", name, False)) for key, name in (("exclusive", "Exclusive"), ("reverse", "Reverse"))
    }
    place = o.c.scalar(perm.index(axis), np.int64)
    o.c.put_real(y, o.node("CumSum", [o.c.real(x, perm), place], main=True, **flags), perm)
