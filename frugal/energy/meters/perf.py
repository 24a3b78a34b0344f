"""The kernel's perf energy events (PMU "power"): the RAPL counters where powercap is closed but perf is open.

Read through the system call perf_event_open; one file descriptor for each CPU that the PMU names (one a package).  64 bits wide:
no wrap.  Class B, gain as powercap's.  Needs CAP_PERFMON, or kernel.perf_event_paranoid at 0 or below.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from ..evidence import Evidence
from .base import COUNTER, Channel, Meter, MeterError, Sample, read_number, read_text
from .powercap import _cpuinfo

SYSCALLS = {"x86_64": 298, "i686": 336, "aarch64": 241, "armv7l": 364, "riscv64": 241, "ppc64le": 319}
EVENTS = {
    "energy-pkg": ("cpu_package", True),
    "energy-ram": ("dram", True),
    "energy-psys": ("platform", False),
    "energy-cores": ("cpu_core", False),
    "energy-gpu": ("gpu", False),
}


class Kernel(Protocol):
    """The two system calls; tests put their own in."""

    def open(self, kind: int, config: int, cpu: int) -> int: ...

    def read(self, fd: int) -> int: ...

    def close(self, fd: int) -> None: ...


class _Linux:
    def open(self, kind: int, config: int, cpu: int) -> int:
        number = SYSCALLS.get(platform.machine())
        if number is None:
            raise MeterError(f"perf_event_open is not known for {platform.machine()}")
        # struct perf_event_attr: type, size, config, then zeros (PERF_ATTR_SIZE_VER0 is 64 bytes)
        attributes = ctypes.create_string_buffer(struct.pack("<IIQ", kind, 64, config), 64)
        libc = ctypes.CDLL(None, use_errno=True)
        fd = int(libc.syscall(number, attributes, -1, cpu, -1, 8))  # all processes on this CPU; PERF_FLAG_FD_CLOEXEC
        if fd < 0:
            code = ctypes.get_errno()
            hint = "; it needs CAP_PERFMON or kernel.perf_event_paranoid = 0" if code in (1, 13) else ""
            raise MeterError(f"perf_event_open on CPU {cpu}: {os.strerror(code)}{hint}")
        return fd

    def read(self, fd: int) -> int:
        data = os.read(fd, 8)
        if len(data) != 8:
            raise OSError(f"a counter gave {len(data)} bytes, not 8")
        return int(struct.unpack("<Q", data)[0])

    def close(self, fd: int) -> None:
        os.close(fd)


class Perf(Meter):
    """root: the sysfs to read; kernel: the system calls."""

    name = "perf"
    title = "RAPL counters (perf events)"

    def __init__(
        self,
        root: str | os.PathLike[str] = "/sys",
        clock: Callable[[], float] = monotonic,
        kernel: Kernel | None = None,
    ) -> None:
        super().__init__(clock)
        self.root = Path(root)
        self.kernel: Kernel = kernel or _Linux()
        self.counters: list[tuple[int, float, float]] = []  # descriptor, joules a count, first value

    def open(self) -> None:
        pmu = self.root / "bus" / "event_source" / "devices" / "power"
        if not pmu.is_dir():
            raise MeterError(f"{pmu}: no such folder: this kernel or virtual machine has no energy events")
        kind = int(read_number(pmu / "type"))
        cpus = _cpu_list(read_text(pmu / "cpumask"))
        relative = 0.15 if "AuthenticAMD" in _cpuinfo() else 0.05
        self.channels, self.counters = [], []
        try:
            for event, (scope, counted) in EVENTS.items():
                file = pmu / "events" / event
                if not file.exists():
                    continue
                config, scale = _config(read_text(file), file), _scale(pmu / "events" / f"{event}.scale")
                for cpu in cpus:
                    self._add(kind, config, cpu, scale)
                    name = event if len(cpus) == 1 else f"{event} cpu{cpu}"
                    gain = 0.2 if scope == "dram" else relative
                    self.channels.append(Channel(name, scope, COUNTER, Evidence.B, gain, scale, 0.001, counted))
        except MeterError:
            self.close()
            raise
        if not any(c.counted for c in self.channels):
            self.close()
            raise MeterError(f"{pmu}/events: there is no energy-pkg event")

    def _add(self, kind: int, config: int, cpu: int, scale: float) -> None:
        fd = self.kernel.open(kind, config, cpu)
        self.counters.append((fd, scale, 0.0))
        try:
            first = self.kernel.read(fd) * scale
        except OSError as e:
            raise MeterError(f"an energy event on CPU {cpu} cannot be read: {e}") from e
        self.counters[-1] = (fd, scale, first)

    def poll(self) -> list[Sample]:
        now = self.clock()
        samples = []
        for index, (fd, scale, last) in enumerate(self.counters):
            try:
                value = self.kernel.read(fd) * scale
            except OSError as e:
                samples.append(Sample(index, now, float("nan"), f"{self.channels[index].name}: {e}"))
                continue
            back = value < last
            self.counters[index] = (fd, scale, value)
            fault = f"{self.channels[index].name}: the counter went back from {last:g} to {value:g} J" if back else ""
            samples.append(Sample(index, now, value, fault, back))
        return samples

    def close(self) -> None:
        for fd, _, _ in self.counters:
            self.kernel.close(fd)
        self.counters = []

    def about(self) -> dict[str, Any]:
        return {"events": [c.name for c in self.channels]}


def _cpu_list(text: str) -> list[int]:
    """ "0,8-9" -> [0, 8, 9]."""
    cpus: list[int] = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            cpus += range(int(first), int(last or first) + 1)
    except ValueError as e:
        raise MeterError(f"not a list of CPUs: {text!r}") from e
    return cpus


def _config(text: str, file: Path) -> int:
    """ "event=0x02" -> 2."""
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key.strip() == "event":
            try:
                return int(value, 0)
            except ValueError:
                break
    raise MeterError(f"{file}: want event=NUMBER, found {text!r}")


def _scale(file: Path) -> float:
    text = read_text(file)
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not 0 < scale < 1:
        raise MeterError(f"{file}: want joules a count, found {text!r}")
    return scale
