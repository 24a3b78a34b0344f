"""Files of an exported decoder: model.onnx with its data beside it, the tokenizer and generation files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from frugal.compiler.generation import fix_caches
from frugal.errors import InvalidArgument

from .._files import sha256
from ..checkpoint import Checkpoint
from ..exporter import ExportResult, copy_companions, metadata_of, place, write_export
from ..gguf import GgufFile
from ..gguf.tokenizer import companions, why_not
from ..graph import Graph
from ..onnxfile import Progress
from .build import build
from .checkpoint_weights import CheckpointWeights, missing
from .families import read_spec
from .gguf_config import read_gguf_spec
from .gguf_weights import GgufWeights
from .spec import Spec
from .weights import Weights

CACHES = ("growing", "fixed")
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
    checkpoint = Checkpoint(src)
    spec = read_spec(config, src, context)
    weights = CheckpointWeights(checkpoint, spec)
    missing(checkpoint, weights, spec, src)
    architecture = str((config.get("architectures") or [spec.family])[0])
    g, proto = _graph(checkpoint, spec, weights, cache, architecture, opset, metadata_of(src, checkpoint, architecture, TASKS[0]))
    return write_export(g, proto, src, target, TASKS[0], progress, lambda part: copy_companions(src, part), list)


def _graph(
    checkpoint: Checkpoint | None, spec: Spec, weights: Weights, cache: str, architecture: str, opset: int, props: dict[str, str]
) -> tuple[Graph, Any]:
    """The graph and its ModelProto, with caches of the form asked for."""
    if cache not in CACHES:
        raise InvalidArgument(f"cache {cache!r}: want one of {', '.join(CACHES)}")
    g = Graph(checkpoint)
    build(g, spec, weights)
    proto = g.proto(architecture, opset, props | _form(spec, cache))
    if cache == "fixed":
        fix_caches(proto, architecture)
    return g, proto


def _form(spec: Spec, cache: str) -> dict[str, str]:
    """What the runtime cannot see from the graph alone: the context, and what the masks say of each layer."""
    said = {"frugal.cache": cache, "frugal.context": str(spec.context)}
    if any(x.window for x in spec.layers):
        said["frugal.windows"] = json.dumps([x.window for x in spec.layers])
    if spec.alibi:
        said["frugal.alibi"] = json.dumps(spec.alibi)
    return said


def export_gguf(
    src: Path, target: Path, opset: int, progress: Progress | None, cache: str = "growing", context: int | None = None
) -> ExportResult:
    """A .gguf with a decoder becomes ONNX with its quantized weights; see `frugal.quantize.export`."""
    file = GgufFile(src)
    config, spec = read_gguf_spec(file, context)
    weights = GgufWeights(file, spec)
    architecture = str(config["architectures"][0])
    props = {"frugal.source_architecture": architecture, "frugal.task": TASKS[0], f"frugal.sha256.{src.name}": sha256(src)}
    if isinstance(file.metadata.get("general.license"), str):
        props["frugal.license"] = file.metadata["general.license"]
    g, proto = _graph(None, spec, weights, cache, architecture, opset, props)

    def beside(part: Path) -> None:
        texts = companions(file) | {"config.json": json.dumps(config, indent=2)}
        for name, text in texts.items():
            (part / name).write_text(text, encoding="utf-8")

    return write_export(g, proto, src, target, TASKS[0], progress, beside, lambda: _notes(file, weights, place(target)[2]))


def _notes(file: GgufFile, weights: GgufWeights, companion: bool) -> list[str]:
    """What was not kept bit for bit, and a tokenizer that could not be written."""
    worst: dict[str, tuple[float, int]] = {}
    for s in weights.stored.values():
        if not s.exact:
            error, count = worst.get(s.tensor.format, (0.0, 0))
            worst[s.tensor.format] = (max(error, s.error()), count + 1)
    notes = [
        f"{count} tensors of {kind} were converted; relative RMS error at most {error:.1e}"
        for kind, (error, count) in sorted(worst.items())
    ]
    reason = why_not(file) if companion else None
    return notes + ([f"no tokenizer.json: {reason}; copy it from the model's repository"] if reason else [])
