"""What else decides joules: governor, frequency, throttling, temperature, load of other processes.  None where the
system is silent."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

CPU = "devices/system/cpu"


def state(root: str | os.PathLike[str] = "/sys", proc: str | os.PathLike[str] = "/proc") -> dict[str, Any]:
    """Facts at this moment; two of them around a run give `between`."""
    sysfs, procfs = Path(root), Path(proc)
    cpus = sorted((sysfs / CPU).glob("cpu[0-9]*"), key=lambda p: int(p.name[3:]))
    frequencies = [f for c in cpus if (f := _number(c / "cpufreq" / "scaling_cur_freq")) is not None]
    governors = sorted({g for c in cpus if (g := _text(c / "cpufreq" / "scaling_governor"))})
    throttles = [_number(c / "thermal_throttle" / "core_throttle_count") for c in cpus]
    counted = [t for t in throttles if t is not None]
    return {
        "governor": ", ".join(governors) or None,
        "frequency_mhz": sum(frequencies) / len(frequencies) / 1000 if frequencies else _mhz(procfs),
        "turbo": _turbo(sysfs),
        "throttle_count": sum(counted) if counted else None,
        "temperature_celsius": _hottest(sysfs),
        "load_average": _load(procfs),
        "busy_seconds": busy_seconds(procfs),
        "own_seconds": own_seconds(),
        "time": time.monotonic(),
    }


def between(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What happened between two states: throttling, and CPUs' worth of time that other processes took."""
    seconds = after["time"] - before["time"]
    others = None
    if before["busy_seconds"] is not None and after["busy_seconds"] is not None and seconds > 0:
        busy = after["busy_seconds"] - before["busy_seconds"]
        others = max(busy - (after["own_seconds"] - before["own_seconds"]), 0.0) / seconds
    throttled = None
    if before["throttle_count"] is not None and after["throttle_count"] is not None:
        throttled = after["throttle_count"] - before["throttle_count"]
    frequencies = [s["frequency_mhz"] for s in (before, after) if s["frequency_mhz"] is not None]
    return {
        "seconds": seconds,
        "governor": after["governor"],
        "turbo": after["turbo"],
        "frequency_mhz": frequencies or None,
        "throttled": throttled,
        "temperature_celsius": [before["temperature_celsius"], after["temperature_celsius"]],
        "load_average": after["load_average"],
        "others_cpus": others,
    }


def warnings(about: dict[str, Any]) -> list[str]:
    """What a reader of the figures should know."""
    found = []
    if about["throttled"]:
        found.append(f"the CPU throttled {about['throttled']} times during the run")
    if about["others_cpus"] is not None and about["others_cpus"] > 0.05:
        found.append(f"other processes took {about['others_cpus']:.2f} CPUs; their energy is in every gross figure")
    if about["governor"] in ("powersave", "ondemand", "schedutil", "conservative"):
        found.append(f"the governor {about['governor']} changes the frequency while the run goes on")
    return found


def busy_seconds(proc: Path) -> float | None:
    """CPU time of all processes since the machine started, from /proc/stat; guests are in user time already, steal
    is not ours."""
    text = _text(proc / "stat")
    fields = text.partition("\n")[0].split() if text else []
    if len(fields) < 8 or fields[0] != "cpu":
        return None
    user, nice, system, _idle, _wait, irq, soft = (int(f) for f in fields[1:8])
    ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    return (user + nice + system + irq + soft) / ticks


def own_seconds() -> float:
    """CPU time of this process and of the children that it waited for."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


def _mhz(proc: Path) -> float | None:
    values = []
    for line in (_text(proc / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "cpu MHz":
            try:
                values.append(float(value))
            except ValueError:
                return None
    return sum(values) / len(values) if values else None


def _turbo(root: Path) -> bool | None:
    off = _number(root / CPU / "intel_pstate" / "no_turbo")
    if off is not None:
        return off == 0
    on = _number(root / CPU / "cpufreq" / "boost")
    return None if on is None else on == 1


def _hottest(root: Path) -> float | None:
    zones = [_number(z / "temp") for z in (root / "class" / "thermal").glob("thermal_zone*")]
    known = [z / 1000 for z in zones if z is not None and 0 < z < 200_000]
    return max(known, default=None)


def _load(proc: Path) -> float | None:
    text = _text(proc / "loadavg")
    try:
        return float(text.split()[0]) if text else None
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _number(path: Path) -> float | None:
    text = _text(path)
    try:
        return float(text) if text else None
    except ValueError:
        return None
