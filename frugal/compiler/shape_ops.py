"""Handlers of the operators that move data or compute with shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from . import dims
from .dims import Dim, Expr
from .ir import FROM_NUMPY, INTEGERS, NUMPY, Binary, DType, Op, Reduce, Tensor, elements
from .lower import SYM_LIMIT, Node, op, show, type_name

FAR = 1 << 31  # a slice bound beyond this means "to the end"
SIZE_TYPES = (DType.INT64, DType.INT32)


def symbolic(node: Node, values: Any, dtype: int = DType.INT64) -> Tensor:
    """A tensor of integers known but for symbols; a plain constant when there are none."""
    array = np.asarray(values, dtype=object)
    if array.size > SYM_LIMIT:
        raise node.unsupported(f"{array.size} integers computed from shapes; at most {SYM_LIMIT} are followed")
    result = node.tensor(dtype, array.shape)
    if not any(isinstance(v, Expr) for v in array.reshape(-1)):
        result.const = array.astype(NUMPY[dtype])
    else:
        result.sym = array
    return result


def followed(node: Node, *indices: int) -> list[np.ndarray] | None:
    """The symbolic values of these inputs, when all are known and at least one holds a symbol."""
    values = [node.lowering.symbols(node.get(i)) for i in indices]
    if any(v is None for v in values) or all(node.get(i).const is not None for i in indices):
        return None
    return [v for v in values if v is not None]


# ---- shapes known at run time ----
class Sizes(IntEnum):
    """The kinds of the SIZES step (frugal_plan.h)."""

    RESHAPE = 0
    SLICE = 1
    UNSQUEEZE = 2
    SQUEEZE = 3
    REDUCE = 4
    PAD = 5
    RANGE = 6
    SCALE = 7


def sizes_step(
    node: Node, kind: Sizes, operands: Sequence[Tensor | None], count: int, shape: Sequence[Dim], flag: int = 0
) -> Tensor:
    """`count` integers worked out from run-time operands and the dims of an input, as a tensor."""
    odd = set(INTEGERS) - set(SIZE_TYPES)
    ready = [t if t is None or t.dtype not in odd else node.emit(Op.CAST, [t], DType.INT64, t.shape) for t in operands]
    return node.emit(Op.SIZES, ready, DType.INT64, [count], int(kind), flag, *shape)


def late_sizes(
    node: Node, kind: Sizes, operands: Sequence[Tensor | None], count: int, shape: Sequence[Dim], flag: int = 0
) -> list[Dim]:
    """The same as late dims."""
    made = sizes_step(node, kind, operands, count, shape, flag)
    return [node.late(made, i) for i in range(count)]


def known(node: Node, *indices: int) -> bool:
    """Whether these inputs, where present, hold integers that are known but for symbols."""
    return all(t is None or node.lowering.symbols(t) is not None for t in map(node.optional, indices))


def length(node: Node, tensor: Tensor, what: str) -> int:
    """How many elements a list has that the data decides."""
    count = elements(tensor.shape)
    if not isinstance(count, int) or tensor.dtype not in INTEGERS:
        raise node.unsupported(f"{what} ('{tensor.name}', {show(tensor.shape)}) is no list of integers of known length")
    return count


@dataclass
class Reduction:
    """Axes to reduce: as a mask, or (late) as a tensor that the executor reads.

    kept: the shape with them 1; dropped: without them.
    """

    mask: int
    kept: Sequence[Dim]
    dropped: Sequence[Dim]
    axes: Tensor | None = None

    def emit(self, node: Node, x: Tensor, kind: int) -> Tensor:
        logic = x.dtype == DType.BOOL and kind in (Reduce.MAX, Reduce.MIN)
        if x.dtype not in (DType.FLOAT, DType.DOUBLE) and x.dtype not in INTEGERS and not logic:
            raise node.unsupported(f"'{x.name}' is {type_name(x.dtype)}")
        return node.emit(Op.REDUCE, [x, self.axes] if self.axes else [x], x.dtype, self.kept, kind, self.mask)


def reduction(node: Node, x: Tensor) -> Reduction | None:
    """What a Reduce* node is asked for; None: nothing."""
    noop, every = int(node.attr("noop_with_empty_axes", 0)), (1 << x.rank) - 1
    axes = node.optional(1)
    if axes is not None and not known(node, 1):
        count = length(node, axes, "axes")
        kept = late_sizes(node, Sizes.REDUCE, [axes], x.rank, x.shape, noop)
        if count == 0:
            dropped: Sequence[Dim] = x.shape if noop else []
        elif node.attr("keepdims", 1):
            dropped = kept
        else:
            dropped = late_sizes(node, Sizes.SQUEEZE, [axes], max(x.rank - count, 0), x.shape)
        return Reduction(0 if noop else every, kept, dropped, axes if axes.dtype in SIZE_TYPES else None)
    given = node.axes(1)
    if not given and noop:
        return None
    places = {node.axis(a, x.rank) for a in given} if given else set(range(x.rank))
    return Reduction(
        sum(1 << i for i in places),
        [1 if i in places else d for i, d in enumerate(x.shape)],
        [d for i, d in enumerate(x.shape) if i not in places],
    )


@op("Constant")
def constant(node: Node) -> Tensor:
    tensor = node.attr("value")
    if tensor is not None:
        array = node.lowering.source.array(tensor)
        return Tensor(node.name, FROM_NUMPY[array.dtype], array.shape, const=array)
    for name, dtype in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if (value := node.attr(name)) is not None:
            return node.constant(np.asarray(value, dtype))
    raise node.unsupported("only numeric constants are read")


@op("Identity")
def identity(node: Node) -> Tensor:
    return node.get(0)


@op("Dropout")
def dropout(node: Node) -> list[Tensor]:
    """x, and a mask of ones: nothing is dropped in inference, nor in training with a ratio of 0."""
    x, ratio, training = node.get(0), node.optional(1), node.optional(2)
    if training is not None and (training.const is None or bool(training.const)):
        rate = node.attr("ratio", 0.5) if ratio is None else ratio.scalar()
        if rate != 0:
            raise node.unsupported("training mode drops elements at random; export the model for inference")
    if not any(node.proto.output[1:]):
        return [x]
    kind = x.dtype if node.opset < 10 else DType.BOOL
    one = node.constant(np.ones(1, NUMPY[kind]))
    return [x, node.emit(Op.FILL, [one], kind, x.shape)]


@op("Shape")
def shape(node: Node) -> Tensor:
    dims_of = node.get(0).shape
    return symbolic(node, list(dims_of[slice(node.attr("start", 0), node.attr("end"))]))


@op("Size")
def size(node: Node) -> Tensor:
    return symbolic(node, elements(node.get(0).shape))


# ---- views ----
@op("Reshape")
def reshape(node: Node) -> Tensor:
    x = node.get(0)
    if node.optional(1) is not None and not known(node, 1):
        count = length(node, node.get(1), "shape")
        flag = int(node.attr("allowzero", 0))
        return view(node, x, late_sizes(node, Sizes.RESHAPE, [node.get(1)], count, x.shape, flag))
    wanted = node.integers(1, "shape") if node.optional(1) is not None else [int(v) for v in node.attr("shape", [])]
    result: list[Dim] = []
    for i, d in enumerate(wanted):
        if isinstance(d, int) and d == 0 and not node.attr("allowzero", 0):
            if i >= x.rank:
                raise node.fail(f"shape {show(wanted)} copies dimension {i} of a tensor of rank {x.rank}")
            d = x.shape[i]
        result.append(d)
    holes = [i for i, d in enumerate(result) if isinstance(d, int) and d == -1]
    if len(holes) > 1 or any(isinstance(d, int) and d < -1 for d in result):
        raise node.fail(f"shape {show(wanted)} is not one")
    if holes:
        rest = dims.product(d for i, d in enumerate(result) if i != holes[0])
        result[holes[0]] = dims.floordiv(elements(x.shape), rest)
    return view(node, x, result)


def view(node: Node, x: Tensor, result: list[Dim]) -> Tensor:
    have, want = elements(x.shape), elements(tuple(result))
    if isinstance(have, int) and isinstance(want, int) and have != want:
        raise node.fail(f"cannot view {show(x.shape)} as {show(result)}")
    if x.sym is not None and all(isinstance(d, int) for d in result):
        return symbolic(node, x.sym.reshape([int(d) for d in result if isinstance(d, int)]), x.dtype)
    return node.alias(x, result)


@op("Flatten")
def flatten(node: Node) -> Tensor:
    x = node.get(0)
    axis = node.attr("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    return view(node, x, [elements(x.shape[:axis]), elements(x.shape[axis:])])


@op("Unsqueeze")
def unsqueeze(node: Node) -> Tensor:
    x = node.get(0)
    if not known(node, 1):
        count = length(node, node.get(1), "axes")
        return view(node, x, late_sizes(node, Sizes.UNSQUEEZE, [node.get(1)], x.rank + count, x.shape))
    axes = node.axes(1)
    if axes is None:
        raise node.fail("axes are missing")
    rank = x.rank + len(axes)
    places = {node.axis(a, rank) for a in axes}
    if len(places) != len(axes):
        raise node.fail(f"axes {axes} repeat")
    rest = iter(x.shape)
    return view(node, x, [1 if i in places else next(rest) for i in range(rank)])


@op("Squeeze")
def squeeze(node: Node) -> Tensor:
    x = node.get(0)
    if not known(node, 1):
        count = length(node, node.get(1), "axes")
        return view(node, x, late_sizes(node, Sizes.SQUEEZE, [node.get(1)], max(x.rank - count, 0), x.shape, 1))
    axes = node.axes(1)
    if axes is None:
        if any(isinstance(d, Expr) for d in x.shape):
            raise node.unsupported(f"no axes given and the shape {show(x.shape)} is not known")
        places = {i for i, d in enumerate(x.shape) if d == 1}
    else:
        places = {node.axis(a, x.rank) for a in axes}
    for i in places:
        if isinstance(x.shape[i], int) and x.shape[i] != 1:
            raise node.fail(f"axis {i} of {show(x.shape)} is not 1")
    return view(node, x, [d for i, d in enumerate(x.shape) if i not in places])


@op("Transpose")
def transpose(node: Node) -> Tensor:
    x = node.get(0)
    perm = tuple(int(p) for p in node.attr("perm", range(x.rank)[::-1]))
    if sorted(perm) != list(range(x.rank)):
        raise node.fail(f"perm {list(perm)} does not fit rank {x.rank}")
    result = [x.shape[p] for p in perm]
    if x.quant is not None:
        made = node.tensor(x.dtype, result)
        made.quant = x.quant.transposed(perm)
        return made
    if x.const is not None:
        return node.constant(x.const.transpose(perm))
    moving = [(p, x.shape[p]) for p in perm if x.shape[p] != 1]
    if [p for p, _ in moving] == sorted(p for p, _ in moving):
        return node.alias(x, result)
    return node.emit(Op.TRANSPOSE, [x], x.dtype, result, *perm)


# ---- copies ----
@op("Expand")
def expand(node: Node) -> Tensor:
    x = node.get(0)
    result = node.broadcast(x.shape, tuple(node.sizes(1, "shape")))
    if result == x.shape:
        return x
    return node.emit(Op.EXPAND, [x], x.dtype, result)


@op("Tile")
def tile(node: Node) -> Tensor:
    """Repeat each axis: [outer, d, inner] -> [outer, 1, d, inner] expanded to [outer, r, d, inner] -> [outer, r d, inner]; all
    axes at once where the rank allows it.
    """
    x = node.get(0)
    repeats = node.sizes(1, "repeats")
    if len(repeats) != x.rank:
        raise node.fail(f"{len(repeats)} repeats for rank {x.rank}")
    moving = [a for a, r in enumerate(repeats) if r != 1]
    for group in [moving] if x.rank + len(moving) <= 8 else [[a] for a in moving]:
        x = repeated(node, x, {a: repeats[a] for a in group})
    return x


def repeated(node: Node, x: Tensor, repeats: dict[int, Dim]) -> Tensor:
    result = [dims.mul(repeats.get(a, 1), d) for a, d in enumerate(x.shape)]
    split, wide = list[Dim](), list[Dim]()
    for a, d in enumerate(x.shape):
        if a in repeats:
            split.append(1)
            wide.append(repeats[a])
        split.append(d)
        wide.append(d)
    if len(split) > 8:
        ((a, times),) = repeats.items()
        outer, inner = elements(x.shape[:a]), elements(x.shape[a + 1 :])
        split, wide = [outer, 1, x.shape[a], inner], [outer, times, x.shape[a], inner]
    if not repeats:
        return x
    return node.alias(node.emit(Op.EXPAND, [node.alias(x, split)], x.dtype, wide), result)


@op("Concat")
def concat(node: Node) -> Tensor:
    parts = [t for t in node.inputs if t is not None]
    if not parts:
        raise node.fail("no inputs")
    axis = node.axis(node.attr("axis", 1), parts[0].rank)
    if values := followed(node, *range(len(parts))):
        return symbolic(node, np.concatenate(values, axis=axis), parts[0].dtype)
    if any(p.rank != parts[0].rank or p.dtype != parts[0].dtype for p in parts):
        raise node.fail("inputs differ in rank or data type: " + ", ".join(show(p.shape) for p in parts))
    result = list(parts[0].shape)
    for i, _ in enumerate(result):
        others = [p.shape[i] for p in parts]
        if i == axis:
            result[i] = sum(others[1:], others[0])
            continue
        fixed = {d for d in others if isinstance(d, int)}
        if len(fixed) > 1:
            raise node.fail("inputs do not fit: " + ", ".join(show(p.shape) for p in parts))
        result[i] = fixed.pop() if fixed else others[0]
    return parts[0] if len(parts) == 1 else node.emit(Op.CONCAT, parts, parts[0].dtype, result, axis)


def bound(value: Dim, length: Dim) -> Dim:
    """A slice bound for a positive step, counted from the start and within [0, length]."""
    if isinstance(value, Expr):
        return dims.minimum(value, length)
    if value >= FAR:
        return length
    if value <= -FAR:
        return 0
    return dims.minimum(value, length) if value >= 0 else dims.sub0(length, -value)


def slice_axis(node: Node, length: Dim, start: Dim, end: Dim, step: int) -> tuple[Dim, Dim] | None:
    """(first index, count) of one sliced axis; None where no expression says it: a backward step over part of a symbolic axis."""
    if step == 0:
        raise node.fail("a step is 0")
    if all(isinstance(v, int) for v in (length, start, end)):
        indices = range(int(length))[slice(start, end, step)]  # type: ignore[arg-type]
        return (indices[0] if len(indices) else 0), len(indices)
    if 0 < step <= FAR:
        first, last = bound(start, length), bound(end, length)
        return first, dims.ceildiv(dims.sub0(last, first), step)
    whole = isinstance(start, int) and (start == -1 or start >= FAR) and isinstance(end, int) and end <= -FAR
    if not whole or step < -FAR:
        return None
    return dims.add(length, -1), dims.ceildiv(length, -step)


@op("Slice")
def slice_(node: Node) -> Tensor:
    x = node.get(0)
    if node.opset < 10:
        starts, ends = list(node.attr("starts")), list(node.attr("ends"))
        axes = list(node.attr("axes", range(len(starts))))
        steps = [1] * len(starts)
    else:
        if not known(node, 1, 2, 3, 4):
            return late_slice(node, x)
        starts, ends = node.integers(1, "starts"), node.integers(2, "ends")
        axes = node.ints(3, "axes") if node.optional(3) is not None else list(range(len(starts)))
        steps = node.ints(4, "steps") if node.optional(4) is not None else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise node.fail("starts, ends, axes and steps differ in length")
    values = node.lowering.symbols(x) if x.sym is not None else None
    if values is not None and all(isinstance(v, int) for v in (*starts, *ends)):
        cut: list[Any] = [slice(None)] * values.ndim
        for a, s, e, step in zip(axes, starts, ends, steps, strict=True):
            cut[node.axis(a, values.ndim)] = slice(s, e, step)
        return symbolic(node, values[tuple(cut)], x.dtype)
    result = list(x.shape)
    attrs: list[Any] = [v for _ in x.shape for v in (0, 1)]
    for a, start, end, step in zip(axes, starts, ends, steps, strict=True):
        i = node.axis(a, x.rank)
        taken = slice_axis(node, x.shape[i], start, end, step)
        if taken is None:
            return late_slice(node, x)
        attrs[2 * i], result[i] = taken
        attrs[2 * i + 1] = 1 if taken[1] in (0, 1) else step  # the step of one element may be beyond every size
    return cut_out(node, x, result, attrs)


def late_slice(node: Node, x: Tensor) -> Tensor:
    """A slice whose bounds the data decides: a SIZES step works out start, count and step of every axis."""
    count, fixed = length(node, node.get(1), "starts"), known(node, 3)
    axes = node.ints(3, "axes") if fixed and node.optional(3) is not None else list(range(count))
    touched = {node.axis(a, x.rank) for a in axes} if fixed else set(range(x.rank))
    bounds = sizes_step(node, Sizes.SLICE, [node.optional(i) for i in range(1, 5)], 3 * x.rank, x.shape)
    result = [node.late(bounds, 3 * a + 1) if a in touched else d for a, d in enumerate(x.shape)]
    return node.emit(Op.SLICE, [x, bounds], x.dtype, result, *(v for _ in x.shape for v in (0, 1)))


def cut_out(node: Node, x: Tensor, result: list[Dim], attrs: list[Any]) -> Tensor:
    return x if tuple(result) == x.shape and set(attrs[1::2]) <= {1} else node.emit(Op.SLICE, [x], x.dtype, result, *attrs)


@op("Split")
def split(node: Node) -> list[Tensor]:
    x, count = node.get(0), len(node.proto.output)
    axis = node.axis(node.attr("axis", 0), x.rank)
    length = x.shape[axis]
    if node.optional(1) is not None:
        sizes = node.sizes(1, "split")
    elif node.attr("split") is not None:
        sizes = list(node.attr("split"))
    else:
        each = dims.ceildiv(length, node.attr("num_outputs", count))
        sizes = [each] * (count - 1)
        sizes.append(dims.sub0(length, dims.mul(each, count - 1)))
    return parts(node, x, axis, sizes)


def parts(node: Node, x: Tensor, axis: int, sizes: Sequence[Dim]) -> list[Tensor]:
    """x cut along an axis into parts of these sizes."""
    length = x.shape[axis]
    results: list[Tensor] = []
    start: Dim = 0
    for n in sizes:
        result = list(x.shape)
        attrs: list[Any] = [v for _ in x.shape for v in (0, 1)]
        result[axis], attrs[2 * axis] = n, start
        if x.sym is not None and isinstance(n, int) and isinstance(start, int):
            results.append(symbolic(node, x.sym[start : start + n], x.dtype))
        else:
            results.append(cut_out(node, x, result, attrs))
        start = dims.add(start, n)
    if isinstance(start, int) and isinstance(length, int) and start != length:
        raise node.fail(f"the parts add up to {start}, the axis has {length}")
    return results


@op("Gather")
def gather(node: Node) -> Tensor:
    table, ids = node.get(0), node.get(1)
    axis = node.axis(node.attr("axis", 0), table.rank)
    if table.sym is not None and ids.const is not None:
        return symbolic(node, np.take(table.sym, ids.const, axis=axis), table.dtype)
    if ids.dtype not in (DType.INT32, DType.INT64):
        raise node.fail(f"indices '{ids.name}' are not int32 or int64")
    result = table.shape[:axis] + ids.shape + table.shape[axis + 1 :]
    quant = table.quant
    if quant is not None and axis == 0 and table.rank == 2 and quant.codes.dtype == np.int8 and quant.zero is None:
        scale = quant.scale.reshape(-1, 1) if not quant.block and quant.axis == 0 and quant.scale.size > 1 else None
        if quant.block and quant.axis == 1 and table.shape[1] % quant.block == 0:  # type: ignore[operator]
            scale = quant.scale
        if scale is not None:
            codes, scales = node.constant(quant.codes), node.constant(np.ascontiguousarray(scale, np.float32))
            return node.emit(Op.GATHER_DEQUANTIZE, [codes, scales, ids], DType.FLOAT, result)
    return node.emit(Op.GATHER, [table, ids], table.dtype, result, axis)


@op("Range")
def range_(node: Node) -> Tensor:
    start, limit, delta = (node.get(i) for i in range(3))
    if all(t.const is not None for t in (start, limit, delta)):
        first, last, step = (t.const.reshape(-1)[0] for t in (start, limit, delta) if t.const is not None)
        count = max(0, int(np.ceil((float(last) - float(first)) / float(step)))) if step else 0
        if not step or count > SYM_LIMIT * 1024:
            raise node.fail(f"range from {first} to {last} by {step}")
        return node.constant((first + np.arange(count) * step).astype(NUMPY[start.dtype]))
    if start.dtype in SIZE_TYPES and known(node, 0, 1, 2):
        (first,), (last,), (step,) = (node.integers(i, "bound") for i in range(3))
        if isinstance(step, int) and step and not (isinstance(first, int) and first < 0):
            low, high = (first, last) if step > 0 else (last, first)
            made = node.emit(Op.RANGE, [], DType.INT64, [dims.ceildiv(dims.sub0(high, low), abs(step))], first, step)
            return made if start.dtype == DType.INT64 else node.emit(Op.CAST, [made], start.dtype, made.shape)
    return late_range(node, start, limit, delta)


def late_range(node: Node, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """start + i delta, for a count that the data decides."""
    if not start.dtype == limit.dtype == delta.dtype:
        raise node.fail("start, limit and delta differ in data type")
    bounds = [start, limit, delta]
    if start.dtype not in (*SIZE_TYPES, DType.FLOAT, DType.DOUBLE):
        wide = DType.INT64 if start.dtype in INTEGERS else DType.FLOAT
        bounds = [node.emit(Op.CAST, [t], wide, t.shape) for t in bounds]
    count = node.late(node.emit(Op.SIZES, bounds, DType.INT64, [1], int(Sizes.RANGE), 0))
    steps = node.emit(Op.CAST, [node.emit(Op.RANGE, [], DType.INT64, [count], 0, 1)], start.dtype, [count])
    scaled = node.emit(Op.BINARY, [steps, node.alias(delta, ())], start.dtype, [count], int(Binary.MUL))
    return node.emit(Op.BINARY, [scaled, node.alias(start, ())], start.dtype, [count], int(Binary.ADD))


@op("ConstantOfShape")
def constant_of_shape(node: Node) -> Tensor:
    value = node.attr("value")
    array = np.zeros(1, np.float32) if value is None else node.lowering.source.array(value).reshape(1)
    result = node.sizes(0, "shape")
    if len(result) == 1 and isinstance(result[0], int) and result[0] <= SYM_LIMIT:
        return node.constant(np.full(result[0], array[0]))
    return node.emit(Op.FILL, [node.constant(array)], FROM_NUMPY[array.dtype], result)


@op("CumSum", "CumProd")
def cumulate(node: Node) -> Tensor:
    x, code = node.get(0), Op.CUMSUM if node.type == "CumSum" else Op.CUMPROD
    flags = (int(node.attr("exclusive", 0)), int(node.attr("reverse", 0)))
    if not known(node, 1):
        return node.emit(code, [x, node.get(1)], x.dtype, x.shape, 0, *flags)
    (axis,) = node.ints(1, "axis")
    return node.emit(code, [x], x.dtype, x.shape, node.axis(axis, x.rank), *flags)


@op("ArgMax", "ArgMin")
def arg(node: Node) -> Tensor:
    x = node.get(0)
    axis = node.axis(node.attr("axis", 0), x.rank)
    result = [1 if i == axis else d for i, d in enumerate(x.shape)]
    attrs = (axis, int(node.type == "ArgMin"), int(node.attr("select_last_index", 0)))
    made = node.emit(Op.ARG, [x], DType.INT64, result, *attrs)
    return made if node.attr("keepdims", 1) else node.alias(made, x.shape[:axis] + x.shape[axis + 1 :])


# ---- integers that describe shapes ----
SYMBOLIC_BINARY: dict[str, Callable[[Dim, Dim], Dim]] = {
    "Add": dims.add,
    "Sub": lambda a, b: dims.add(a, dims.mul(b, -1)),
    "Mul": dims.mul,
    "Div": dims.floordiv,
    "Mod": dims.mod,
    "Min": dims.minimum,
    "Max": dims.maximum,
}


def symbolic_binary(node: Node) -> Tensor | None:
    """Add, Sub, ... of integers known but for symbols; None when they are not."""
    rule = SYMBOLIC_BINARY.get(node.type)
    if rule is None or len(node.inputs) != 2 or node.get(0).dtype not in (DType.INT64, DType.INT32):
        return None
    values = followed(node, 0, 1)
    if values is None:
        return None
    return symbolic(node, np.vectorize(rule, otypes=[object])(*values), node.get(0).dtype)


def symbolic_compare(node: Node) -> Tensor | None:
    """Equal of symbolic integers: an answer for every symbol (equal expressions, or a size against -1) or 0 or 1 as a dim."""
    values = followed(node, 0, 1) if node.type == "Equal" else None
    if values is None:
        return None

    def equal(a: Dim, b: Dim) -> Dim:
        if (isinstance(a, int) and isinstance(b, int)) or a == b:
            return int(a == b)
        return 0 if any(isinstance(v, int) and v < 0 for v in (a, b)) else dims.equal(a, b)

    answers = np.vectorize(equal, otypes=[object])(*values)
    if any(isinstance(v, Expr) for v in answers.reshape(-1)):
        return symbolic(node, answers, DType.BOOL)
    return node.constant(answers.astype(np.bool_))
