"""A .tflite file becomes an .onnx file: `export_tflite`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import frugal
from frugal.errors import InvalidModel

from .. import onnxfile
from .._files import staging
from ..onnxfile import Progress
from . import reader
from .converter import Converter

if TYPE_CHECKING:
    from ..exporter import ExportResult

IMPORTER_VERSION = 1  # raised when the same file gives another graph


def export_tflite(src: Path, target: Path, opset: int, progress: Progress | None) -> ExportResult:
    """Write the main subgraph of `src` as ONNX; see `frugal.quantize.export`."""
    from ..exporter import place, result_of

    model = reader.read(src)
    converter = Converter(model, model.subgraphs[0], opset)
    try:
        converter.run()
        proto = converter.proto(src.stem, metadata(src, model, converter))
    except (UnicodeError, OverflowError) as e:
        raise InvalidModel(f"{src}: malformed ({e})") from e
    tensors = list(converter.graph.tensors.values())
    onnxfile.check(proto, tensors, src)
    folder, name, _companions = place(target)
    with staging(folder, name) as part:
        onnxfile.write(proto, tensors, part / name, None, progress)
        files = [p for p in part.rglob("*") if p.is_file()]
        return result_of(proto, files, folder, name, "tflite", "tflite", "unknown", converter.notes)


def metadata(src: Path, model: reader.Model, converter: Converter) -> dict[str, str]:
    """Where the graph comes from, and what its state starts as."""
    props = {
        f"frugal.sha256.{src.name}": model.sha256,
        "frugal.importer": f"tflite {IMPORTER_VERSION}, frugal {frugal.__version__}",
    }
    if converter.state:
        props["frugal.state"] = json.dumps(converter.state, ensure_ascii=False)
    return props
