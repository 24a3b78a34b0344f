"""The meters, and how a specification such as "hwmon:VDD_IN" becomes one."""

from __future__ import annotations

from collections.abc import Callable

from ..evidence import MeterError
from .base import Channel, Meter, Sample

__all__ = ["AUTO", "NAMES", "Channel", "Meter", "MeterError", "Sample", "find", "make"]


def _powercap(text: str) -> Meter:
    from .powercap import Powercap

    return Powercap(text or "/sys")


def _perf(text: str) -> Meter:
    from .perf import Perf

    return Perf(text or "/sys")


def _hwmon(text: str) -> Meter:
    from .hwmon import Hwmon

    return Hwmon(chosen=text.split("+") if text else ())


def _jetson(text: str) -> Meter:
    from .jetson import Jetson

    return Jetson(chosen=text.split("+") if text else ())


def _pmic(text: str) -> Meter:
    from .pmic import Pmic

    return Pmic()


def _battery(text: str) -> Meter:
    from .battery import Battery

    return Battery(text or "/sys")


def _lpm01a(text: str) -> Meter:
    """PORT[,volts=3.0][,rate=10000][,trigger=d7]"""
    from .lpm01a import Lpm01a

    port, *options = text.split(",")
    values = dict(o.partition("=")[::2] for o in options)
    unknown = values.keys() - {"volts", "rate", "trigger"}
    if not port or unknown:
        raise MeterError(f"lpm01a: want lpm01a:PORT[,volts=V][,rate=HZ][,trigger=d7], got {text!r}")
    try:
        return Lpm01a(port, float(values.get("volts", 3.0)), int(values.get("rate", 10_000)), values.get("trigger", "sw"))
    except ValueError as e:
        raise MeterError(f"lpm01a: {e}") from e


_MAKERS: dict[str, Callable[[str], Meter]] = {
    "powercap": _powercap,
    "perf": _perf,
    "jetson": _jetson,
    "hwmon": _hwmon,
    "pmic": _pmic,
    "battery": _battery,
    "lpm01a": _lpm01a,
}
NAMES = tuple(_MAKERS)
AUTO = ("powercap", "perf", "jetson", "hwmon", "pmic", "battery")  # the first that can be opened


def make(spec: str) -> Meter:
    """ "NAME" or "NAME:ARGUMENT" -> a meter that is not open yet.  Raises MeterError for an unknown name."""
    name, _, argument = spec.partition(":")
    if name not in _MAKERS:
        raise MeterError(f"there is no meter {name!r}; there are auto, {', '.join(NAMES)}, trace:FILE, model")
    return _MAKERS[name](argument)


def find(spec: str = "auto") -> Meter:
    """As make; "auto" tries those that a computer may have built in.  Raises MeterError that says why each one is not there."""
    if spec != "auto":
        return make(spec)
    reasons = []
    for name in AUTO:
        meter = make(name)
        try:
            meter.open()
        except MeterError as e:
            reasons.append(f"{name}: {e}")
            continue
        total = any(c.counted for c in meter.channels)
        meter.close()
        if total:
            return meter
        reasons.append(f"{name}: several channels and none that holds the others ({', '.join(c.name for c in meter.channels)})")
    raise MeterError("no meter here; " + "; ".join(reasons))
