"""A Hugging Face folder becomes standard ONNX: `export(source, out)`; without torch for the BERT encoders.

Other architectures go to optimum-onnx (extra `export`), on local files only.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from frugal.errors import InvalidArgument, InvalidModel

from . import bert, heads, onnxfile
from ._files import peak_rss_bytes, sha256, staged, staging
from .checkpoint import Checkpoint, read_json
from .graph import OPSET, Graph
from .onnxfile import OnnxFile, Progress

# Copied beside the model when they exist: what a tokenizer and a pooling need.
COMPANIONS = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "*_Pooling/config.json",
    "*_Dense/config.json",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
)


@dataclass
class ExportResult:
    """What was written. Sizes in bytes; `peak_rss_bytes` of the whole process, None where unknown (Windows)."""

    model: str
    files: list[str]
    exporter: str
    architecture: str
    task: str
    opset: int
    inputs: dict[str, list[str | int]]
    outputs: dict[str, list[str | int]]
    bytes: int
    seconds: float
    peak_rss_bytes: int | None
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)


def export(
    source: str | Path,
    out: str | Path,
    *,
    task: str | None = None,
    opset: int = OPSET,
    progress: Progress | None = None,
    cache: str = "growing",
    context: int | None = None,
) -> ExportResult:
    """Write `source` (Hugging Face folder, .gguf, .tflite or .onnx) as ONNX to `out`.

    out: a folder, which receives model.onnx, model.onnx.data and the tokenizer and pooling files; or a path ending in
    .onnx, one file (plus .data from 1.9 GB up).  task: a transformers task name; None: by the folder's contents.
    Inputs input_ids, attention_mask (and token_type_ids where the model has several types), int64 [batch, sequence];
    outputs last_hidden_state [batch, sequence, hidden] and, with sentence-transformers pooling, sentence_embedding
    [batch, hidden]; or the task head's logits. A .tflite keeps its inputs and outputs; its state becomes inputs NAME_in and
    outputs NAME_out (metadata `frugal.state`).

    A decoder's inputs are input_ids, attention_mask [batch, past + sequence], position_ids and past_key_values.N.key|value, its
    outputs logits [batch, sequence, vocabulary] and present.N.key|value.  cache 'growing': the present is the past and the
    new tokens, [batch, key heads, tokens, head size]; 'fixed': caches [batch, capacity, width] written in place from
    write_indices [batch] on, no attention_mask.  context: positions to provide for (None: as trained, at most 32768).
    Memory: the graph and 16 MiB of one tensor at a time.

    Raises InvalidModel (naming file and tensor), InvalidArgument, MissingExtra, FrugalError when the disk refuses.
    """
    src, target, start = Path(source), Path(out), time.perf_counter()
    _check_arguments(src, target, opset)
    if src.suffix == ".onnx":
        result = _copy_onnx(src, target, progress)
    elif src.suffix == ".tflite":
        from .tflite.importer import export_tflite

        result = export_tflite(src, target, opset, progress)
    elif src.suffix == ".gguf":
        from .decoder import export_gguf

        result = export_gguf(src, target, opset, progress, cache, context)
    else:
        config = read_json(src / "config.json")
        if not isinstance(config.get("model_type", ""), str):
            raise InvalidModel(f"{src / 'config.json'}: 'model_type' is {config['model_type']!r}, want a name")
        from . import decoder

        why_not = bert.unsupported(config)
        if why_not is None:
            result = _export_encoder(src, target, config, task, opset, progress)
        elif config.get("model_type") in decoder.FAMILIES and (why_not := decoder.unsupported(config)) is None:
            result = decoder.export_checkpoint(src, target, config, task, opset, progress, cache, context)
        else:
            from .optimum_export import export_with_optimum

            result = export_with_optimum(src, target, config, task, opset, why_not)
    result.seconds = round(time.perf_counter() - start, 3)
    result.peak_rss_bytes = peak_rss_bytes()
    return result


def _check_arguments(src: Path, target: Path, opset: int) -> None:
    if not 23 <= opset <= 26:
        raise InvalidArgument(f"opset {opset}: want 23 to 26 (Attention starts at 23, onnxruntime 1.31 stops at 26)")
    if not src.exists():
        raise InvalidArgument(f"source {src}: no such file or folder (give a local folder; nothing is downloaded)")
    if src.is_file() and src.suffix not in (".onnx", ".tflite", ".gguf"):
        raise InvalidModel(f"{src}: want a Hugging Face folder, a .gguf, a .tflite or an .onnx file")
    if target.suffix == ".onnx" and target.is_dir():
        raise InvalidArgument(f"out {target}: is a folder, but its name ends in .onnx")
    if target.suffix != ".onnx" and target.is_file():
        raise InvalidArgument(f"out {target}: is a file; give a folder, or a name ending in .onnx")
    folder = target.parent if target.suffix == ".onnx" else target
    if src.is_dir() and src.resolve() == folder.resolve():
        raise InvalidArgument(f"out {target}: is the source folder itself; choose another")


def place(target: Path) -> tuple[Path, str, bool]:
    """Folder, file name of the model, and whether the target is a folder (which also receives companions)."""
    return (target.parent, target.name, False) if target.suffix == ".onnx" else (target, "model.onnx", True)


def copy_companions(src: Path, part: Path) -> None:
    """Copy tokenizer, configuration and pooling files into the staging folder."""
    for pattern in COMPANIONS:
        for path in src.glob(pattern):
            to = part / path.relative_to(src)
            to.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, to)


def result_of(
    proto: Any, files: list[Path], folder: Path, model: str, exporter: str, architecture: str, task: str, notes: list[str]
) -> ExportResult:
    """An ExportResult for files (still in staging) that will lie in `folder`."""
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    initial = {t.name for t in proto.graph.initializer}
    return ExportResult(
        str(folder / model),
        [str(folder / p) for p in _relative(files)],
        exporter,
        architecture,
        task,
        opset,
        {i.name: _shape(i) for i in proto.graph.input if i.name not in initial},
        {o.name: _shape(o) for o in proto.graph.output},
        sum(p.stat().st_size for p in files),
        0.0,
        None,
        notes,
    )


def _relative(files: list[Path]) -> list[Path]:
    part = next(parent for f in files for parent in f.parents if parent.name.endswith(".part"))
    return sorted(f.relative_to(part) for f in files)


def _shape(value: Any) -> list[str | int]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


def _export_encoder(
    src: Path, target: Path, config: dict[str, Any], task: str | None, opset: int, progress: Progress | None
) -> ExportResult:
    checkpoint, notes = Checkpoint(src), list[str]()
    c = bert.read_config(config, checkpoint, src)
    g, task = Graph(checkpoint), heads.choose_task(task, config, src)
    x = bert.encoder(g, c)
    if task in heads.TASKS:
        heads.add_head(g, c, x, task)
    else:
        pooling = heads.read_pooling(src, notes)
        g.add_output(x, "last_hidden_state", [bert.B, bert.S, c.hidden])
        if pooling is not None:
            heads.add_pooling(g, c, "last_hidden_state", pooling)
    architecture = str((config.get("architectures") or [c.family])[0])
    proto = g.proto(architecture, opset, metadata_of(src, checkpoint, architecture, task))
    return write_export(g, proto, src, target, task, progress, lambda part: copy_companions(src, part), lambda: notes)


def write_export(
    g: Graph,
    proto: Any,
    src: Path,
    target: Path,
    task: str,
    progress: Progress | None,
    companions: Callable[[Path], None],
    notes: Callable[[], list[str]],
) -> ExportResult:
    """Check the graph, write it with its tensors, and what `companions(folder)` puts beside it when the target is a folder;
    all of it appears at once. notes() is asked at the end, when everything was written."""
    folder, name, is_folder = place(target)
    tensors = list(g.tensors.values())
    onnxfile.check(proto, tensors, src)
    hashed = [p.value for p in proto.metadata_props if p.key.startswith("frugal.sha256.")]
    source = " ".join(hashed) or None  # nothing is resumed where the source is not known
    with staging(folder, name) as part:
        onnxfile.write(proto, tensors, part / name, True if is_folder else None, progress, source)
        if is_folder:
            companions(part)
        return result_of(proto, staged(part), folder, name, "frugal", proto.graph.name, task, notes())


def metadata_of(src: Path, checkpoint: Checkpoint, architecture: str, task: str) -> dict[str, str]:
    """Metadata properties: where the model came from, the hash of each weight file, its licence."""
    props = {"frugal.source_architecture": architecture, "frugal.task": task}
    for path in checkpoint.files:
        props[f"frugal.sha256.{path.name}"] = sha256(path)
    licence = _licence(src)
    if licence:
        props["frugal.license"] = licence
    return props


def _licence(src: Path) -> str | None:
    """`license: …` from the front matter of the model card (README.md), when there is one."""
    card = src / "README.md"
    if not card.is_file():
        return None
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:60]:
        if line.strip() == "---":
            break
        if line.startswith("license:"):
            return line.split(":", 1)[1].strip() or None
    return None


def _copy_onnx(src: Path, target: Path, progress: Progress | None) -> ExportResult:
    """Validate an ONNX file and write it again (its external data included)."""
    model = OnnxFile(src)
    tensors = [o for t in model.proto.graph.initializer if (o := model.out(t)) is not None]
    proto = onnxfile.strip(model.proto, {t.name for t in tensors})
    onnxfile.check(proto, tensors, src, infer=False)
    folder, name, companions = place(target)
    if (folder / name).exists() and (folder / name).samefile(src):
        raise InvalidArgument(f"out {target}: is the source itself; choose another")
    with staging(folder, name) as part:
        files = onnxfile.write(proto, tensors, part / name, None, progress)
        if companions:
            copy_companions(src.parent, part)
            files = staged(part)
        return result_of(proto, files, folder, name, "onnx", proto.graph.name, "unknown", [])
