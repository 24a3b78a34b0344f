"""Run a model once on .npy files."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path
from typing import Any

from .common import (
    Usage,
    add_activations,
    add_inputs,
    add_json,
    add_model,
    add_threads,
    check_names,
    model_path,
    needs,
    open_session,
    print_json,
    print_table,
    read_arrays,
)


def add_arguments(command: argparse.ArgumentParser) -> None:
    """MODEL --input NAME=FILE.npy ... [--output DIR]."""
    add_model(command)
    add_inputs(command)
    command.add_argument("--output", metavar="DIR", help="write every output there as NAME.npy")
    add_threads(command)
    add_activations(command)
    add_json(command)


def main(args: argparse.Namespace) -> None:
    """Run, describe the outputs, write them."""
    path = model_path(args.model)
    with needs("onnx", "reading .onnx"):
        session = open_session(path, args.threads, args.activations)
    arrays = read_arrays(args.input)
    check_names(list(arrays), session.get_inputs(), "--input")
    missing = [i.name for i in session.get_inputs() if i.name not in arrays]
    if missing:
        raise Usage(f"--input is missing for {', '.join(missing)}")
    start = time.perf_counter()
    results = session.run(None, arrays)
    seconds = time.perf_counter() - start
    names = [o.name for o in session.get_outputs()]
    files = _write(dict(zip(names, results, strict=True)), args.output)
    rows = [_describe(n, a, files.get(n)) for n, a in zip(names, results, strict=True)]
    if args.json:
        print_json({"model": path, "seconds": seconds, "outputs": rows})
    else:
        header = ("output", "dtype", "shape", "min", "max", "mean", "file")
        print_table([[_cell(row[k]) for k in ("name", *header[1:])] for row in rows], header)


def _write(results: dict[str, Any], folder: str | None) -> dict[str, Path]:
    """Save every output; names from the model become plain file names."""
    if folder is None:
        return {}
    import numpy as np

    Path(folder).mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    for index, (name, array) in enumerate(results.items()):
        plain = re.sub(r"[^\w.-]", "_", name).strip(".") or f"output{index}"
        path = Path(folder) / f"{plain}.npy"
        if path in files.values():
            path = Path(folder) / f"{plain}.{index}.npy"
        np.save(path, array)
        files[name] = path
    return files


def _describe(name: str, array: Any, file: Path | None) -> dict[str, Any]:
    filled = array.size > 0
    return {
        "name": name,
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "min": array.min().item() if filled else None,
        "max": array.max().item() if filled else None,
        "mean": float(array.mean()) if filled else None,
        "file": file,
    }


def _cell(value: object) -> object:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else value
