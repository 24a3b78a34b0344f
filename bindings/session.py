"""A plan made ready to run: session memory, arena and pointer arrays, kept from one run to the next."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from frugal.errors import InvalidArgument, OutOfMemory

from . import library
from ._ffi import ffi, lib
from .buffers import ITEM_BYTES, as_buffer, empty
from .plan import BITS, PlanBuffer, numpy_dtype
from .status import check, message

if TYPE_CHECKING:  # numpy is imported by those who give arrays
    import numpy as np
    import numpy.typing as npt

    Array: TypeAlias = npt.NDArray[Any]
Shape = tuple[int, ...]

MIB = 1 << 20
NO_LIMIT = (1 << 63) - 1
LIMIT_HINT = "; the session config entry frugal.memory_limit_bytes sets the limit"


def default_memory_limit(plan_bytes: int, input_bytes: int) -> int:
    """Bytes that a plan of this size may ask for with inputs of this size: 256 MiB + 32 x plan + 64 KiB x inputs.

    Far above what real models need, and still a bound: a few hostile bytes cannot demand all the memory of the machine.
    """
    return 256 * MIB + 32 * plan_bytes + 65536 * input_bytes


# Looked up once: a small net runs in less time than a few dozen attributes of modules take.
_from_buffer, _run = ffi.from_buffer, lib.frugal_session_run
_allocate = ffi.new_allocator(should_clear_after_alloc=False)


def _aligned(size: int) -> tuple[Any, Any]:
    """(owner, pointer): `size` bytes at a multiple of 64, not cleared."""
    try:
        owner = _allocate("char[]", size + 64)
    except MemoryError as e:
        raise OutOfMemory(f"this machine has no room for {size} bytes of working memory") from e
    return owner, owner + -int(ffi.cast("uintptr_t", owner)) % 64


class Session:
    """Runs a plan.  Safe to share between threads: runs are serialised by the pool's lock.

    memory_limit: the most bytes the arena and the outputs may take; None for default_memory_limit.
    """

    def __init__(self, plan: PlanBuffer, pool: library.Pool, memory_limit: int | None = None) -> None:
        self.plan = plan
        self.pool = pool
        self.memory_limit = memory_limit
        self._ranks = [len(t.shape) for t in plan.inputs]
        self._all_outputs = range(len(plan.outputs))
        self._has_bits = any(t.dtype in BITS for t in (*plan.inputs, *plan.outputs))
        self._error = ffi.new("frugal_error *")
        self._inputs = ffi.new("void *[]", max(len(plan.inputs), 1))
        self._outputs = ffi.new("void *[]", max(len(plan.outputs), 1))
        self._arena: tuple[Any, Any] = (None, ffi.NULL)
        self._arena_bytes = 0
        self._shapes: list[Shape] | None = None
        self._output_shapes: list[Shape] = []
        self._late: frozenset[int] = frozenset()  # outputs whose shapes the data decides
        self._limit = self._fixed_bytes = 0
        self._epoch = -1
        self._memory: tuple[Any, Any] = (None, ffi.NULL)
        self._handle: Any = ffi.NULL
        with pool.lock:
            self._start()

    @cached_property
    def input_dtypes(self) -> list[np.dtype[Any]]:
        """numpy's dtype of each input."""
        return [numpy_dtype(t.dtype) for t in self.plan.inputs]

    @cached_property
    def output_dtypes(self) -> list[np.dtype[Any]]:
        """numpy's dtype of each output."""
        return [numpy_dtype(t.dtype) for t in self.plan.outputs]

    def _start(self) -> None:
        """Initialise the C session; again after set_isa and in the child of a fork."""
        epoch, isa = library.epoch(), library.isa_handle()
        size = lib.frugal_session_bytes(self.plan.c)
        if self._memory[0] is None:
            self._memory = _aligned(size)
        handle = ffi.new("frugal_session **")
        limit = NO_LIMIT if self.memory_limit is None else self.memory_limit
        status = lib.frugal_session_init(handle, self._memory[1], size, self.plan.c, isa, self.pool.handle(), limit, self._error)
        check(status, self._error, self.plan)
        self._handle, self._shapes, self._epoch = handle[0], None, epoch
        self._late = frozenset(i for i in range(len(self.plan.outputs)) if lib.frugal_session_late(self._handle, i))

    def run(self, arrays: Sequence[Array], wanted: Sequence[int] | None = None) -> list[Array]:
        """One inference.

        arrays: one array for each input of the plan, in its order; of exactly its dtype in any byte order, with any strides.
        wanted: indices of the outputs to compute, in ascending order; None for all.  Returns new arrays, in that order.
        Raises InvalidArgument (rank, dtype, dim or value), OutOfMemory.
        """
        with self.pool.lock:
            if self._epoch != library.epoch():
                self._start()
            return self._run_arrays(arrays, wanted)

    def run_buffers(self, values: Sequence[Any], wanted: Sequence[int] | None = None) -> list[memoryview]:
        """`run` without numpy: buffers (or nested lists of numbers) in, memoryviews of new memory out.

        Raises InvalidArgument (rank, element type, dim or value), OutOfMemory.
        """
        with self.pool.lock:
            if self._epoch != library.epoch():
                self._start()
            views = [as_buffer(t, v) for t, v in zip(self.plan.inputs, values, strict=True)]
            shapes = [_view_shape(v, rank) for v, rank in zip(views, self._ranks, strict=True)]
            if shapes != self._shapes:
                self._resolve(shapes)
            chosen = self._all_outputs if wanted is None else wanted
            fixed = [i for i in chosen if i not in self._late]
            made = {i: empty(self._output_shapes[i], self.plan.outputs[i].dtype) for i in fixed}
            self._call(views, fixed, list(made.values()))
            for i in self._late.intersection(chosen):
                shape, data = self._late_output(i)
                made[i] = empty(shape, self.plan.outputs[i].dtype)
                if data is not None:
                    made[i].cast("B")[:] = memoryview(data).cast("B")
            return [made[i] for i in chosen]

    def prepare(self, shapes: list[Shape]) -> None:
        """Make ready for inputs of these shapes.  Hold the pool's lock."""
        if self._epoch != library.epoch():
            self._start()
        if shapes != self._shapes:
            self._resolve(shapes)

    def handles(self) -> tuple[Any, Any, int]:
        """frugal_session *, the arena and its bytes, as `prepare` left them.  Hold the pool's lock."""
        return self._handle, self._arena[1], self._arena_bytes

    def run_bound(self, inputs: Any, outputs: Any) -> None:
        """Run on the caller's buffers (void *[]), after `prepare`.  Hold the pool's lock."""
        status = lib.frugal_session_run(self._handle, self._arena[1], self._arena_bytes, inputs, outputs, self._error)
        check(status, self._error, self.plan)

    def _run_arrays(self, arrays: Sequence[Array], wanted: Sequence[int] | None) -> list[Array]:
        import numpy as np

        arrays = [self._dense(i, a) for i, a in enumerate(arrays)]
        shapes = [a.shape for a in arrays]
        if shapes != self._shapes:
            self._resolve(shapes)
        chosen = self._all_outputs if wanted is None else wanted
        fixed = [i for i in chosen if i not in self._late] if self._late else chosen
        output_shapes, dtypes, new = self._output_shapes, self.output_dtypes, np.empty
        try:
            results = [new(output_shapes[i], dtypes[i]) for i in fixed]
        except MemoryError as e:
            raise OutOfMemory(f"this machine has no room for outputs of shapes {self._output_shapes}") from e
        if self._has_bits:
            inputs = [_plain(a, t.dtype) for a, t in zip(arrays, self.plan.inputs, strict=True)]
            self._call(inputs, fixed, [_plain(r, self.plan.outputs[i].dtype) for r, i in zip(results, fixed, strict=True)])
        else:
            self._call(arrays, fixed, results)
        if not self._late:
            return results
        made = dict(zip(fixed, results, strict=True))
        for i in self._late.intersection(chosen):
            shape, data = self._late_output(i)
            made[i] = np.empty(shape, self.output_dtypes[i])
            if data is not None:
                made[i].reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)
        return [made[i] for i in chosen]

    def _late_output(self, index: int) -> tuple[Shape, Any]:
        """Shape and bytes (None: there are none) of an output whose shape the last run decided; lent until the next."""
        tensor = self.plan.outputs[index]
        shape = self._shape(tensor.number)
        size = _nbytes(shape, tensor.dtype)
        return shape, ffi.buffer(lib.frugal_session_data(self._handle, index), size) if size else None

    def records(self, arrays: Sequence[Array]) -> list[tuple[int, int, int, int]]:
        """Run once with recording on: (nanoseconds, bytes read, bytes written, operations) for each step."""
        count = self.plan.c.n_steps
        records = ffi.new("frugal_record[]", max(count, 1))
        with self.pool.lock:
            if self._epoch != library.epoch():
                self._start()
            lib.frugal_session_record(self._handle, records, library.clock())
            try:
                self._run_arrays(arrays, None)
            finally:
                lib.frugal_session_record(self._handle, ffi.NULL, ffi.NULL)
        return [(r.nanoseconds, r.bytes_read, r.bytes_written, r.operations) for r in records[0:count]]

    def repeat(self, step: int, times: int) -> None:
        """From now on a run does this step of the plan `times` times in place of once (-1: none), until a set_isa or a fork."""
        with self.pool.lock:
            if self._epoch != library.epoch():
                self._start()
            lib.frugal_session_repeat(self._handle, step, times)

    def _dense(self, index: int, array: Array) -> Array:
        """The array as C can read it: itself, or a copy."""
        want = self.input_dtypes[index]
        if array.dtype is not want and array.dtype != want:
            if array.dtype.newbyteorder("=") != want:
                name = self.plan.inputs[index].name
                raise InvalidArgument(f"input {name!r}: want dtype {want}, got {array.dtype}", code=lib.FRUGAL_BAD_INPUT)
            array = array.astype(want)
        flags = array.flags
        if flags.carray or (flags.c_contiguous and flags.aligned):  # carray: also writeable, and one question
            return array
        import numpy as np

        return np.require(array, requirements=["C", "A"])

    def _resolve(self, shapes: list[Shape]) -> None:
        """Tell the C library the shapes and make room for what they need."""
        self._shapes = None
        for tensor, rank, shape in zip(self.plan.inputs, self._ranks, shapes, strict=True):
            if len(shape) != rank:
                raise InvalidArgument(_mismatch(tensor, shape, f"want rank {rank}"), code=lib.FRUGAL_BAD_INPUT)
        dims = ffi.new("int64_t[]", [d for shape in shapes for d in shape] or [0])
        status = lib.frugal_session_resolve(self._handle, dims, self._error)
        if status == lib.FRUGAL_BAD_INPUT and 0 <= self._error.input < len(shapes):
            at = self._error.input
            self._error.input = self._error.tensor = -1  # _mismatch names it
            text = _mismatch(self.plan.inputs[at], shapes[at], message(status, self._error))
            raise InvalidArgument(text, code=int(status))
        if status == lib.FRUGAL_TOO_BIG:
            raise OutOfMemory(message(status, self._error, self.plan) + LIMIT_HINT, code=int(status))
        check(status, self._error, self.plan)
        output_shapes = [self._shape(t.number) for t in self.plan.outputs]
        self._reserve(output_shapes, sum(_nbytes(s, t.dtype) for s, t in zip(shapes, self.plan.inputs, strict=True)))
        self._output_shapes, self._shapes = output_shapes, shapes

    def _shape(self, index: int) -> Shape:
        dims = ffi.new("int64_t[]", lib.FRUGAL_MAX_RANK)
        rank = lib.frugal_session_shape(self._handle, index, dims)
        return tuple(dims[0:rank])

    def _reserve(self, output_shapes: list[Shape], input_bytes: int) -> None:
        arena = lib.frugal_session_arena_bytes(self._handle)
        fixed = [
            (s, t.dtype) for i, (s, t) in enumerate(zip(output_shapes, self.plan.outputs, strict=True)) if i not in self._late
        ]
        self._fixed_bytes = sum(_nbytes(s, d) for s, d in fixed)
        need = arena + self._fixed_bytes
        limit = self.memory_limit
        if limit is None:
            limit = default_memory_limit(len(self.plan), input_bytes)
        self._limit = limit
        if need > limit:
            raise OutOfMemory(
                f"these inputs need {need} bytes of working memory, more than the limit of {limit}" + LIMIT_HINT,
                code=lib.FRUGAL_TOO_BIG,
            )
        if arena > self._arena_bytes or self._arena[0] is None:
            self._arena, self._arena_bytes = (None, ffi.NULL), 0  # free first: never hold both
            self._arena = _aligned(arena)
            self._arena_bytes = arena

    def _call(self, inputs: Sequence[Any], wanted: Sequence[int], results: Sequence[Any]) -> None:
        """Run on dense buffers of the resolved shapes; the outputs `wanted` go to `results`."""
        pointers, outputs = self._inputs, self._outputs
        held = [_from_buffer(value) for value in inputs]  # while these live, numpy refuses to resize what C reads
        for i, view in enumerate(held):
            pointers[i] = view
        if len(wanted) != len(self._all_outputs):
            for i in self._all_outputs:
                outputs[i] = ffi.NULL
        for k, i in enumerate(wanted):
            outputs[i] = _from_buffer(results[k])
        while status := _run(self._handle, self._arena[1], self._arena_bytes, pointers, outputs, self._error):
            if status == lib.FRUGAL_TOO_BIG:
                raise OutOfMemory(message(status, self._error, self.plan) + LIMIT_HINT, code=int(status))
            if status != lib.FRUGAL_MORE:
                check(status, self._error, self.plan)
            self._grow()

    def _grow(self) -> None:
        """A larger arena, for sizes that the data decided; at most what the limit leaves beside the outputs."""
        room = self._limit - self._fixed_bytes
        want = min(lib.frugal_session_arena_bytes(self._handle), room)
        if want <= self._arena_bytes:
            raise OutOfMemory(
                f"sizes that the data decides need more working memory than the limit of {self._limit}" + LIMIT_HINT,
                code=lib.FRUGAL_TOO_BIG,
            )
        self._arena, self._arena_bytes = (None, ffi.NULL), 0
        self._arena = _aligned(want)
        self._arena_bytes = want


def _plain(array: Array, dtype: int) -> Array:
    """The bits of an array whose dtype is from ml_dtypes, which have no buffer protocol."""
    return array.view(BITS[dtype]) if dtype in BITS else array


def _view_shape(view: memoryview, rank: int) -> Shape:
    """The shape of a buffer; a memoryview of one element stands for a scalar too."""
    return () if rank == 0 and view.nbytes == view.itemsize else tuple(view.shape or ())


def _nbytes(shape: Shape, dtype: int) -> int:
    count = ITEM_BYTES[dtype]
    for dim in shape:
        count *= dim
    return count


def _mismatch(tensor: Any, shape: Shape, what: str) -> str:
    declared = "[" + ", ".join("?" if d is None else str(d) for d in tensor.shape) + "]"
    return f"input {tensor.name!r}: {what}; declared {declared}, got {list(shape)}"
