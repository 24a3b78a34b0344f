"""Say what this installation and this machine can do."""

from __future__ import annotations

import argparse
import os
import platform
from typing import Any

from .. import __version__
from ..bindings import library
from ..cache import cache_dir, entries
from ..errors import FrugalError
from .common import add_json, print_json, print_table, size
from .system import affinity, caches, cpu_model, cpu_quota, huge_pages, memory

PACKAGES = ("numpy", "onnx", "onnxruntime")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """[--json]."""
    add_json(command)


def main(args: argparse.Namespace) -> None:
    """Print the facts; fails when frugal cannot run here."""
    about = facts()
    if args.json:
        print_json(about)
    else:
        rows = [[key.replace("_", " "), _text(key, value)] for key, value in about.items() if not isinstance(value, dict)]
        print_table(rows)
        for title in ("isas", "packages", "meters"):
            print(f"\n{title}")
            print_table([["  " + name, state or "-"] for name, state in about[title].items()])
        print("\nextras")
        print_table([["  " + name, _state(packages)] for name, packages in about["extras"].items()])
    if about["isa_error"]:
        raise FrugalError(about["isa_error"])
    if about["self_test"] not in (None, "passed"):
        raise FrugalError(f"{about['isa']} gives other bits than scalar on this machine: {about['self_test']}")


def facts() -> dict[str, Any]:
    """What doctor prints."""
    active, error = None, None
    try:
        active = library.isa()
    except FrugalError as e:
        error = str(e)
    plans = entries()
    total, available = memory()
    return {
        "frugal": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_model(),
        "cpus_online": os.cpu_count(),
        "cpus_affinity": affinity(),
        "cpu_quota": cpu_quota(),
        "cpus_usable": library.cpu_count(),
        "threads": library.Pool().threads,
        "isa": active,
        "isa_error": error,
        "isas_usable": library.isa_list(),
        "self_test": _self_test(active),
        "caches": caches(),
        "memory_bytes": total,
        "memory_available_bytes": available,
        "huge_pages": huge_pages(),
        "cache_dir": cache_dir(),
        "cache_writable": _writable(),
        "cache_plans": len(plans),
        "cache_bytes": sum(n for _, n, _ in plans),
        "isas": {name: _isa_state(name, lacks, active) for name, lacks in library.isa_lacks().items()},
        "packages": {name: _version(name) for name in PACKAGES},
        "extras": extras(),
        "meters": _meters(),
    }


def _isa_state(name: str, lacks: str, active: str | None) -> str:
    if name == active:
        return "in use"
    return {"": "usable", "build": "not in this build"}.get(lacks, f"needs {lacks}")


def _self_test(active: str | None) -> str | None:
    """Whether the instruction set in use gives scalar's bits for a few kernels."""
    if active is None:
        return None
    kernel = library.isa_differs(active)
    return "passed" if kernel is None else f"{kernel} differs"


def _meters() -> dict[str, str]:
    """What this machine can measure energy with, or why not."""
    from ..energy.meters import AUTO, MeterError, make

    found = {}
    for name in AUTO:
        meter = make(name)
        try:
            meter.open()
        except MeterError as e:
            found[name] = str(e)
        else:
            found[name] = f"usable: {', '.join(c.name for c in meter.channels)}"
            meter.close()
    return found


def _writable() -> bool:
    folder = cache_dir()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK)


def extras() -> dict[str, dict[str, str | None]]:
    """Extra -> its packages -> installed version or None, from the metadata of the installed frugal-edge."""
    from importlib.metadata import PackageNotFoundError, requires  # slow to import: not for every command

    found: dict[str, dict[str, str | None]] = {}
    try:
        lines = requires("frugal-edge") or []
    except PackageNotFoundError:
        return found
    for line in lines:
        requirement, _, marker = line.partition(";")
        if "extra ==" not in marker:
            continue
        extra = marker.partition("extra ==")[2].strip().strip("'\")")
        name = requirement.strip()
        for stop in "<>=!~[ (":
            name = name.partition(stop)[0]
        if name != "frugal-edge" and extra not in ("test", "dev"):
            found.setdefault(extra, {})[name] = _version(name)
    return found


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _text(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value) or "-"
    if isinstance(value, float):
        return f"{value:g}"
    return size(value) if key.endswith("_bytes") else str(value)


def _state(packages: dict[str, str | None]) -> str:
    missing = [name for name, found in packages.items() if found is None]
    if not missing:
        return "installed"
    return f"missing {', '.join(missing)}"
