"""Measure how long a model takes, beside onnxruntime if you like.

Rivals take turns, so that both see the same machine; latencies are medians with the 10th and the 90th percentile.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__, isa
from ..cache import model_bytes
from ..plan import has_magic
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
    pairs,
    print_json,
    print_table,
    read_arrays,
    size,
)
from .system import cpu_model, peak_rss_bytes

if TYPE_CHECKING:
    from ..plan import Plan
    from ..session import InferenceSession, NodeArg

DEFAULT_LENGTH = 128
TURN_SECONDS = 0.1

Feeds = dict[str, Any]


def add_arguments(command: argparse.ArgumentParser) -> None:
    """MODEL [--threads N] [--shape NAME=AxB ...] [--seconds S] [--against onnxruntime]."""
    add_model(command)
    add_threads(command)
    command.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME=AxB",
        help=f"an input's shape; symbols it binds hold for the other inputs (default: 1 for a batch, {DEFAULT_LENGTH})",
    )
    add_inputs(command)
    command.add_argument("--seconds", type=float, default=3.0, metavar="S", help="measure about this long (default: 3)")
    command.add_argument("--against", choices=("onnxruntime",), help="measure this too, in turns with frugal")
    add_activations(command)
    add_json(command)


def main(args: argparse.Namespace) -> None:
    """Load, measure, print."""
    path = model_path(args.model)
    if not 0 < args.seconds < 3600:
        raise Usage(f"--seconds must be between 0 and 3600, got {args.seconds}")
    if args.against and has_magic(path):
        raise Usage(f"--against {args.against} needs the .onnx, not a plan")
    start = time.perf_counter()
    with needs("onnx", "reading .onnx"):
        session = open_session(path, args.threads, args.activations)
    load_seconds = time.perf_counter() - start
    feeds = make_feeds(session.get_inputs(), args.shape, read_arrays(args.input), id_bounds(session.plan))
    start = time.perf_counter()
    session.run(None, feeds)
    about = _conditions(path, session, args.threads, feeds)
    about |= {"load_seconds": load_seconds, "first_run_ms": (time.perf_counter() - start) * 1e3}
    peak = peak_rss_bytes()  # before the rival joins this process
    runs = {"frugal": lambda: session.run(None, feeds)}
    rival = None
    if args.against:
        rival, about["against"] = _onnxruntime(path, about["threads"], feeds, session)
        runs["onnxruntime"] = rival
    times = interleave(runs, args.seconds)
    about |= {**summary(times["frugal"]), "peak_rss_bytes": peak if rival else peak_rss_bytes()}
    if rival:
        about["against"] |= summary(times["onnxruntime"])
        about["times_faster"] = about["against"]["latency_ms"] / about["latency_ms"]
    if args.json:
        print_json(about)
    else:
        _print(about)


def _conditions(path: Path, session: InferenceSession, threads: int, feeds: Feeds) -> dict[str, Any]:
    from ..bindings import library

    return {
        "model": path,
        "model_bytes": model_bytes(path),
        "plan_bytes": len(session.plan),
        "loaded_from": session.loaded_from,
        "shapes": {name: list(a.shape) for name, a in feeds.items()},
        "threads": threads or library.cpu_count(),
        "isa": isa(),
        "cpu": cpu_model(),
        "versions": {"frugal": __version__, "python": platform.python_version()},
    }


def id_bounds(plan: Plan) -> dict[str, int]:
    """Input -> rows of the smallest table that it indexes, such as the vocabulary."""
    names = {t.number: t.name for t in plan.inputs}
    tensors = plan.tensors()
    bounds: dict[str, int] = {}
    for step in plan.steps():
        if step.op in ("gather", "gather_dequantize") and step.inputs[-1] in names:
            rows = tensors[step.inputs[0]].shape[step.attributes[0] if step.op == "gather" else 0]
            if isinstance(rows, int):
                name = names[step.inputs[-1]]
                bounds[name] = min(rows, bounds.get(name, rows))
    return bounds


def make_feeds(inputs: list[NodeArg], shapes: list[str], given: Feeds, bounds: dict[str, int]) -> Feeds:
    """An array for every input: the given one, or one of the given (or default) shape with plausible values."""
    wanted = {name: _parse_shape(text) for name, text in pairs(shapes, "--shape").items()}
    check_names([*wanted, *given], inputs, "--shape/--input")
    symbols: dict[str, int] = {}
    for i in inputs:
        known = wanted.get(i.name) or (given[i.name].shape if i.name in given else None)
        if known is not None:
            if len(known) != len(i.shape):
                raise Usage(f"input {i.name!r} has rank {len(i.shape)} {i.shape}, got {'x'.join(map(str, known))}")
            symbols |= {s: n for s, n in zip(i.shape, known, strict=True) if isinstance(s, str)}
    feeds = {}
    for i in inputs:
        shape = wanted.get(i.name) or [_length(d, axis, symbols) for axis, d in enumerate(i.shape)]
        feeds[i.name] = given[i.name] if i.name in given else _values(i, shape, bounds.get(i.name, 2))
    return feeds


def _parse_shape(text: str) -> list[int]:
    parts = text.lower().split("x")
    if not all(p.isdecimal() for p in parts):
        raise Usage(f"a shape is numbers joined by x, such as 8x128; got {text!r}")
    return [int(p) for p in parts]


def _length(dim: int | str | None, axis: int, symbols: dict[str, int]) -> int:
    if isinstance(dim, int):
        return dim
    if dim in symbols:
        return symbols[dim]
    return 1 if axis == 0 or (dim and "batch" in dim.lower()) else DEFAULT_LENGTH


def _values(i: NodeArg, shape: list[int], bound: int) -> Any:
    """Normal floats, ones for masks, zeros for types and positions, other integers random in [0, bound)."""
    import numpy as np

    from ..bindings.plan import DTYPES, numpy_dtype

    dtype = numpy_dtype(next(number for number, (_, ort) in DTYPES.items() if ort == i.type))
    rng = np.random.default_rng(0)
    if "float" in i.type or "double" in i.type:
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind == "b" or "mask" in i.name:
        return np.ones(shape, dtype)
    if "type" in i.name or "position" in i.name:
        return np.zeros(shape, dtype)
    return rng.integers(0, max(bound, 1), shape).astype(dtype)


def _onnxruntime(path: Path, threads: int, feeds: Feeds, session: InferenceSession) -> tuple[Callable[[], Any], Any]:
    """A function that runs the same in onnxruntime, and how far its outputs are from frugal's."""
    with needs("quantize", "--against onnxruntime"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    start = time.perf_counter()
    other = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    about = {
        "name": "onnxruntime",
        "version": onnxruntime.__version__,
        "load_seconds": time.perf_counter() - start,
        "difference": _difference(session.run(None, feeds), other.run(None, feeds)),
    }
    return lambda: other.run(None, feeds), about


def _difference(ours: list[Any], theirs: list[Any]) -> float:
    """The largest ||a - b|| / ||b|| of any output."""
    import numpy as np

    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
        worst = max(worst, float(np.linalg.norm(x - y) / (np.linalg.norm(y) or 1.0)))
    return worst


def interleave(runs: dict[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Seconds of each run, for about `seconds` in all.

    The rivals take turns of TURN_SECONDS, at least three each; the first run of a turn is not counted: it pays for the
    caches, and for the threads of the other, which may still spin.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + seconds
    turns = 0
    while turns < 3 or time.perf_counter() < end:
        for name, run in runs.items():
            run()
            stop = time.perf_counter() + TURN_SECONDS
            while True:
                start = time.perf_counter()
                run()
                now = time.perf_counter()
                times[name].append(now - start)
                if now > stop:
                    break
        turns += 1
    return times


def summary(times: list[float]) -> dict[str, Any]:
    """Median, 10th and 90th percentile in milliseconds."""
    import numpy as np

    low, middle, high = (float(q) * 1e3 for q in np.quantile(times, (0.1, 0.5, 0.9)))
    return {"latency_ms": middle, "latency_ms_p10": low, "latency_ms_p90": high, "runs": len(times)}


def _print(about: dict[str, Any]) -> None:
    shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in about["shapes"].items())
    print(f"{about['model']}  {shapes}")
    versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    print(f"{about['cpu']}, {about['isa']}, {about['threads']} threads, {versions}\n")
    rows = [["frugal", *_latencies(about), f"{about['load_seconds']:.3f} ({about['loaded_from']})"]]
    if "against" in about:
        rival = about["against"]
        rows.append([f"{rival['name']} {rival['version']}", *_latencies(rival), f"{rival['load_seconds']:.3f}"])
    print_table(rows, ["", "median ms", "p10", "p90", "runs", "load s"])
    if "against" in about:
        print(f"\n{about['times_faster']:.2f} x the speed; outputs differ by {about['against']['difference']:.2g} (norm)")
    print(f"\npeak memory {size(about['peak_rss_bytes'] or 0)}, model {size(about['model_bytes'])}")


def _latencies(about: dict[str, Any]) -> list[str]:
    return [f"{about[k]:.3f}" for k in ("latency_ms", "latency_ms_p10", "latency_ms_p90")] + [str(about["runs"])]
