"""Float and quantized model side by side in onnxruntime: how far apart are their outputs?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugal.errors import InvalidArgument, InvalidModel

from . import _lazy
from .report import OutputReport

Feeds = dict[str, NDArray[Any]]
_NUMPY = {
    1: np.float32,
    2: np.uint8,
    3: np.int8,
    4: np.uint16,
    5: np.int16,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
    12: np.uint32,
    13: np.uint64,
}


def session(path: Path, threads: int = 0) -> Any:
    """An onnxruntime CPU session that multiplies quantized weights with float activations. Raises InvalidModel."""
    ort = _lazy.onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # be kind to a shared machine
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as e:
        raise InvalidModel(f"{path}: onnxruntime refuses the model: {e}") from e


def run(s: Any, names: list[str] | None, feeds: Feeds, what: str) -> list[NDArray[Any]]:
    """Run a session; onnxruntime's complaints become InvalidArgument."""
    try:
        return list(s.run(names, feeds))
    except Exception as e:
        shapes = {k: f"{v.dtype}{list(v.shape)}" for k, v in feeds.items()}
        raise InvalidArgument(f"{what}: onnxruntime cannot run it on {shapes}: {e}") from e


def generated_feeds(model: Any, count: int = 2, seed: int = 0) -> Iterator[Feeds]:
    """Inputs for a ModelProto's graph: ids below the size of the table they index, masks of ones, floats N(0, 1).

    Symbolic dimensions get small values by name: batch 2, anything else 12 (one value per symbol).
    """
    rng = np.random.default_rng(seed)
    initial = {t.name: t for t in model.graph.initializer}
    limits = _id_limits(model.graph, initial)
    inputs = [i for i in model.graph.input if i.name not in initial]
    for _ in range(count):
        yield {i.name: _generate(i, limits, rng) for i in inputs}


def _id_limits(graph: Any, initial: dict[str, Any]) -> dict[str, int]:
    """Rows of the smallest table that each input indexes directly (or through Cast)."""
    limits: dict[str, int] = {}
    source = {n.output[0]: n.input[0] for n in graph.node if n.op_type in ("Cast", "Identity")}
    for n in graph.node:
        if n.op_type == "Gather" and n.input[0] in initial and len(initial[n.input[0]].dims) == 2:
            ids, rows = n.input[1], initial[n.input[0]].dims[0]
            ids = source.get(ids, ids)
            limits[ids] = min(limits.get(ids, rows), rows)
    return limits


def _generate(value: Any, limits: dict[str, int], rng: np.random.Generator) -> NDArray[Any]:
    kind = _NUMPY.get(value.type.tensor_type.elem_type)
    if kind is None:
        raise InvalidArgument(f"input {value.name!r} has a type that cannot be generated; give `validation` feeds")
    shape = tuple(
        d.dim_value if d.HasField("dim_value") else 2 if "batch" in d.dim_param.lower() else 12
        for d in value.type.tensor_type.shape.dim
    )
    if np.issubdtype(kind, np.floating):
        return rng.standard_normal(shape).astype(kind)
    if value.name in limits:
        return rng.integers(0, limits[value.name], shape).astype(kind)
    if "mask" in value.name.lower() or kind is np.bool_:
        return np.ones(shape, kind)
    return np.zeros(shape, kind)


class _Comparison:
    """Streaming figures of one value."""

    def __init__(self, name: str) -> None:
        self.name, self.count, self.total, self.least = name, 0, 0.0, 1.0
        self.worst = self.err = self.norm = 0.0

    def add(self, a: NDArray[Any], b: NDArray[Any], mask: NDArray[Any] | None) -> None:
        if a.shape != b.shape:
            raise InvalidModel(f"output {self.name!r}: float gives {a.shape}, quantized {b.shape}")
        if a.size == 0 or not np.issubdtype(a.dtype, np.floating):
            return
        x, y = a.reshape(-1, a.shape[-1] if a.ndim else 1), b.reshape(-1, b.shape[-1] if b.ndim else 1)
        x, y = x.astype(np.float64), y.astype(np.float64)
        if mask is not None and a.ndim > 2 and a.shape[: mask.ndim] == mask.shape:
            x, y = x[mask.reshape(-1) != 0], y[mask.reshape(-1) != 0]
        nx, ny = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
        cosine = np.where(nx * ny > 0, (x * y).sum(axis=1) / np.maximum(nx * ny, 1e-300), (nx == ny) * 1.0)
        self.total, self.count = self.total + float(cosine.sum()), self.count + len(cosine)
        self.least = min(self.least, float(cosine.min(initial=1.0)))
        self.worst = max(self.worst, float(np.abs(x - y).max(initial=0)))
        self.err, self.norm = self.err + float(((x - y) ** 2).sum()), self.norm + float((x**2).sum())

    def report(self) -> OutputReport:
        relative = (self.err / self.norm) ** 0.5 if self.norm > 0 else float(self.err > 0)
        return OutputReport(self.name, self.total / self.count if self.count else 1.0, self.least, self.worst, relative)


def compare(a: Path, b: Path, feeds: Iterable[Feeds], names: list[str] | None = None) -> list[OutputReport]:
    """Run both models on the same feeds; one OutputReport for each output (or each of `names`).

    Vectors at masked tokens (input attention_mask [batch, sequence] zero) are left out of [batch, sequence, …] values.
    """
    first, second = session(a), session(b)
    names = names or [o.name for o in first.get_outputs()]
    figures = [_Comparison(n) for n in names]
    for feed in feeds:
        mask = feed.get("attention_mask")
        pair = zip(run(first, names, feed, "float model"), run(second, names, feed, "quantized model"), strict=True)
        for figure, (x, y) in zip(figures, pair, strict=True):
            figure.add(x, y, mask)
    return [f.report() for f in figures]
