"""Process-wide facts and choices: instruction sets, CPUs, thread pools, and the epoch that says when they changed."""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Any, ClassVar

from frugal.errors import InvalidArgument, NotAvailable, OutOfMemory

from ._ffi import ffi, lib

MAX_THREADS = 1024

# Sessions compare this number with the one they started in and start anew when it moved: after set_isa, and in the
# child of a fork, which has the parent's memory but none of its threads.
_epoch = 0
_isa: Any = None  # frugal_isa *, once chosen
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def epoch() -> int:
    """Number of the current state of the process; changes when sessions must restart."""
    return _epoch


def _forked() -> None:
    global _epoch
    _epoch += 1
    for pool in _pools:
        pool.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def isa_list() -> list[str]:
    """Instruction sets that this build has and this CPU can run, best first; the last is "scalar"."""
    names: list[str] = []
    while (name := lib.frugal_isa_list(len(names))) != ffi.NULL:
        names.append(ffi.string(name).decode())
    return names


def isa_lacks() -> dict[str, str]:
    """Every instruction set of this architecture, best first -> "" when usable, "build" when this build's compiler had not its
    instructions, else the first feature that the CPU or the operating system lacks."""
    lacks: dict[str, str] = {}
    while (name := lib.frugal_isa_known(len(lacks))) != ffi.NULL:
        lacks[ffi.string(name).decode()] = ffi.string(lib.frugal_isa_lacks(name)).decode()
    return lacks


def isa_differs(name: str) -> str | None:
    """The first kernel of a quick test in which this instruction set differs from scalar, or None."""
    kernel = lib.frugal_isa_check(lib.frugal_isa_find(name.encode()))
    return None if kernel == ffi.NULL else ffi.string(kernel).decode()


def isa_handle() -> Any:
    """The frugal_isa * in use: set_isa's, else FRUGAL_ISA's (NotAvailable when unknown), else the best."""
    if _isa is None:
        set_isa(os.environ.get("FRUGAL_ISA") or "auto")
    return _isa


def isa() -> str:
    """Name of the instruction set in use, such as "avx2"."""
    name: str = ffi.string(lib.frugal_isa_name(isa_handle())).decode()
    return name


def set_isa(name: str) -> None:
    """Use this instruction set ("auto": the best) from the next run of every session on.  Raises NotAvailable."""
    global _isa, _epoch
    found = lib.frugal_isa_find(name.encode())
    if found == ffi.NULL:
        usable = ", ".join([*isa_list(), "auto"])
        raise NotAvailable(
            f"instruction set {name!r} is not in this build or not on this CPU; usable here: {usable}",
            code=lib.FRUGAL_NO_ISA,
        )
    if found != _isa:
        _isa, _epoch = found, _epoch + 1


def cpu_count() -> int:
    """CPUs this process may use (affinity and cgroup quota), at least 1."""
    return int(lib.frugal_cpu_count())


class Pool:
    """Worker threads, and the lock of those who use them.

    threads: 0 for one a usable CPU; 1 for none beside the caller.  Sessions that share a pool run one at a time.
    The threads end when the last user of the pool is collected, and at exit.
    """

    def __init__(self, threads: int = 0) -> None:
        if not 0 <= threads <= MAX_THREADS:
            raise InvalidArgument(f"the number of threads must be 0 to {MAX_THREADS}, got {threads}")
        self.threads = threads or cpu_count()
        self.lock = threading.Lock()
        self._handle: Any = ffi.NULL
        self._stop: weakref.finalize[[Any, Any, threading.Lock], Pool] | None = None
        _pools.add(self)

    def handle(self) -> Any:
        """frugal_pool * (NULL for one thread); starts the threads at first use.  Hold the lock."""
        if self.threads > 1 and self._stop is None:
            size = lib.frugal_pool_bytes(self.threads)
            memory = ffi.new("char[]", size + 64)
            handle = ffi.new("frugal_pool **")
            aligned = memory + -int(ffi.cast("uintptr_t", memory)) % 64
            status = lib.frugal_pool_start(handle, aligned, size, self.threads)
            if status != lib.FRUGAL_OK:
                text = ffi.string(lib.frugal_status_text(status)).decode()
                raise OutOfMemory(f"cannot start {self.threads} threads: {text}", code=int(status))
            self._handle = handle[0]
            self._stop = weakref.finalize(self, _stop, self._handle, memory, self.lock)
        return self._handle

    def forget(self) -> None:
        """In the child of a fork: the threads are not there, and the lock may have been held by one of them."""
        self.lock, self._handle = threading.Lock(), ffi.NULL
        if self._stop is not None:
            self._stop.detach()
            self._stop = None


def _stop(handle: Any, memory: Any, lock: threading.Lock) -> None:
    """Join the threads; not at exit under a daemon thread that still runs.  memory: the pool's, kept until here."""
    if lock.acquire(blocking=False):
        lib.frugal_pool_stop(handle)
        lock.release()


def clock() -> Any:
    """The C function frugal_clock, as frugal_session_record wants it."""
    return ffi.addressof(lib, "frugal_clock")


def peaks(threads: int, memory: Any, rounds: int = 3) -> dict[str, float]:
    """Limits of this machine, 10^9 a second: "int8" and "float" operations of the instruction set in use, bytes "read" from
    `memory` (a writable buffer beyond the caches).  0 where they are not known.  threads: 0 for one a usable CPU."""
    pool = Pool(threads)
    with pool.lock:
        handle = pool.handle()
        view = ffi.from_buffer(memory, require_writable=True)
        ffi.memmove(view, b"\1" * len(view), len(view))  # pages that are there, and are not all the same one
        what = {"int8": lib.FRUGAL_PEAK_INT8, "float": lib.FRUGAL_PEAK_F32, "read": lib.FRUGAL_PEAK_READ}
        found = {
            name: max(lib.frugal_measure(isa_handle(), handle, number, view, len(view)) for _ in range(rounds))
            for name, number in what.items()
        }
        ffi.release(view)
    return found


class Exercise:
    """Known work for a calibration: what frugal_measure does, as often as one likes.  threads: as of Pool."""

    _WHAT: ClassVar[dict[str, int]] = {"int8": lib.FRUGAL_PEAK_INT8, "float": lib.FRUGAL_PEAK_F32, "read": lib.FRUGAL_PEAK_READ}

    def __init__(self, threads: int) -> None:
        self._pool = Pool(threads)

    def run(self, what: str, memory: Any = None) -> float:
        """Do it once ("int8", "float"; "read" of a buffer); 10^9 operations or bytes a second, 0 where it is not known."""
        with self._pool.lock:
            view = ffi.NULL if memory is None else ffi.from_buffer(memory)
            size = 0 if memory is None else len(view)
            return float(lib.frugal_measure(isa_handle(), self._pool.handle(), self._WHAT[what], view, size))

    def amount(self, what: str, size: int = 0) -> float:
        """Operations of one run, from its rate and time (within 1 %), or bytes that a run reads of a buffer of
        `size` (exactly)."""
        if what == "read":
            return size // 48 // 8 // 64 * 64 * 8 * 48  # tasks, streams, lines of measure.c
        clock = time.thread_time if self._pool.threads == 1 else time.perf_counter
        found = []
        for _ in range(7):
            start = clock()
            rate = self.run(what)
            found.append(rate * 1e9 * (clock() - start))
        return sorted(found)[3]
