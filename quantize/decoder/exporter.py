"""Files of an exported decoder: model.onnx with its data beside it, the tokenizer and generation files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from frugal.errors import InvalidArgument

from .. import onnxfile
from .._files import staging
from ..checkpoint import Checkpoint
from ..exporter import ExportResult, copy_companions, metadata_of, place, result_of
from ..graph import Graph
from ..onnxfile import Progress
from .build import CACHES, build
from .checkpoint_weights import CheckpointWeights, missing
from .families import read_spec

TASKS = ("text-generation", "text-generation-with-past")


def export_checkpoint(
    src: Path,
    target: Path,
    config: dict[str, Any],
    task: str | None,
    opset: int,
    progress: Progress | None,
    cache: str = "growing",
    context: int | None = None,
) -> ExportResult:
    """A Hugging Face folder with a decoder (`unsupported(config)` is None) becomes ONNX; see `frugal.quantize.export`."""
    if task not in (None, *TASKS):
        raise InvalidArgument(f"task {task!r}: a decoder has {', '.join(TASKS)}")
    if cache not in CACHES:
        raise InvalidArgument(f"cache {cache!r}: want one of {', '.join(CACHES)}")
    checkpoint = Checkpoint(src)
    spec = read_spec(config, src, context)
    weights = CheckpointWeights(checkpoint, spec)
    missing(checkpoint, weights, spec, src)
    g = Graph(checkpoint)
    build(g, spec, weights, cache)
    architecture = str((config.get("architectures") or [spec.family])[0])
    props = metadata_of(src, checkpoint, architecture, TASKS[0])
    props |= {"frugal.cache": cache, "frugal.context": str(spec.context)}
    proto = g.proto(architecture, opset, props)
    folder, name, companions = place(target)
    tensors = list(g.tensors.values())
    onnxfile.check(proto, tensors, src)
    with staging(folder, name) as part:
        onnxfile.write(proto, tensors, part / name, True if companions else None, progress)
        if companions:
            copy_companions(src, part)
        files = [p for p in part.rglob("*") if p.is_file()]
        return result_of(proto, files, folder, name, "frugal", architecture, TASKS[0], [])
