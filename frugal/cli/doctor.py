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
from .system import cpu_model


def add_arguments(command: argparse.ArgumentParser) -> None:
    """[--json]."""
    add_json(command)


def main(args: argparse.Namespace) -> None:
    """Print the facts; fails when frugal cannot run here."""
    about = facts()
    if args.json:
        print_json(about)
    else:
        rows = [[key.replace("_", " "), _text(key, value)] for key, value in about.items() if key != "extras"]
        print_table(rows)
        print("\nextras")
        print_table([["  " + name, _state(packages)] for name, packages in about["extras"].items()])
    if about["isa_error"]:
        raise FrugalError(about["isa_error"])


def facts() -> dict[str, Any]:
    """What doctor prints."""
    active, error = None, None
    try:
        active = library.isa()
    except FrugalError as e:
        error = str(e)
    plans = entries()
    return {
        "frugal": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_model(),
        "cpus_usable": library.cpu_count(),
        "isa": active,
        "isa_error": error,
        "isas_usable": library.isa_list(),
        "cache_dir": cache_dir(),
        "cache_writable": _writable(),
        "cache_plans": len(plans),
        "cache_bytes": sum(n for _, n, _ in plans),
        "extras": extras(),
    }


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
        return ", ".join(value)
    return size(value) if key.endswith("_bytes") else str(value)


def _state(packages: dict[str, str | None]) -> str:
    missing = [name for name, found in packages.items() if found is None]
    if not missing:
        return "installed"
    return f"missing {', '.join(missing)}"
