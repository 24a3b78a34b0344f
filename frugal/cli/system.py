"""Facts about the machine and this process."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path


def cpu_model() -> str:
    """The CPU's name as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "cpu model"):
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_rss_bytes() -> int | None:
    """The most memory this process has held since it was started; None where the system does not tell.

    VmHWM where there is one: ru_maxrss of a child starts at what its parent had.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _read(path: str) -> str:
    """A small file of the system without the blanks around it; empty where there is none."""
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def affinity() -> int | None:
    """CPUs that this process may be scheduled on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def cpu_quota() -> float | None:
    """CPUs' worth of time that control groups allow (the least along the path, either version); None for no limit."""
    limits = []
    for line in ("0::/", "0:cpu:/", *_read("/proc/self/cgroup").splitlines()):
        _, names, path = (*line.split(":", 2), "", "")[:3]
        for folder in (path, *map(str, Path(path).parents)):
            folder = folder.rstrip("/")
            if names == "":
                quota, _, period = _read(f"/sys/fs/cgroup{folder}/cpu.max").partition(" ")
            elif "cpu" in names.split(","):
                quota, period = (_read(f"/sys/fs/cgroup/cpu{folder}/cpu.cfs_{part}_us") for part in ("quota", "period"))
            else:
                continue
            if quota.isdigit() and period.isdigit() and int(period):
                limits.append(int(quota) / int(period))
    return min(limits, default=None)


def caches() -> list[str]:
    """The caches of the first CPU, such as "L2 1024K" or "L3 32768K shared by CPUs 0-7"."""
    found = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size, shared = (_read(f"{folder}/{name}") for name in ("level", "type", "size", "shared_cpu_list"))
        letter = {"Data": "d", "Instruction": "i"}.get(kind, "")
        if level and size:
            found.append(f"L{level}{letter} {size}" + ("" if shared.isdigit() or not shared else f" shared by CPUs {shared}"))
    return found


def memory() -> tuple[int | None, int | None]:
    """Bytes of memory that there are, and that are available."""
    sizes: dict[str, int] = {}
    for line in _read("/proc/meminfo").splitlines():
        key, _, value = line.partition(":")
        number = value.split()[:1]
        if number and number[0].isdigit():
            sizes[key] = int(number[0]) * 1024
    return sizes.get("MemTotal"), sizes.get("MemAvailable")


def huge_pages() -> str | None:
    """The mode of transparent huge pages: "always", "madvise" or "never"; None where the system does not tell."""
    modes = _read("/sys/kernel/mm/transparent_hugepage/enabled")
    return modes.partition("[")[2].partition("]")[0] or None
