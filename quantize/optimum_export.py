"""Architectures without a built-in exporter: optimum-onnx and torch (extra `export`), on local files only."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frugal.errors import FrugalError, InvalidArgument, InvalidModel, MissingExtra

from . import calibrate, onnxfile
from ._files import staging
from .onnxfile import OnnxFile

if TYPE_CHECKING:
    from .exporter import ExportResult

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
# Ending of the architecture's class name -> optimum's task; anything else is exported as the bare model.
_TASKS = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForMaskedLM": "fill-mask",
    "ForQuestionAnswering": "question-answering",
    "ForCausalLM": "text-generation-with-past",
    "LMHeadModel": "text-generation-with-past",
    "ForConditionalGeneration": "text2text-generation-with-past",
    "ForImageClassification": "image-classification",
    "ForAudioClassification": "audio-classification",
    "ForCTC": "automatic-speech-recognition",
    "ForMultipleChoice": "multiple-choice",
}


def _task(config: dict[str, Any], src: Path) -> str:
    """optimum cannot tell the task of a local folder: by the architecture's name, as its hub look-up would."""
    if not (src / "modules.json").is_file():
        for architecture in config.get("architectures") or ():
            for end, task in _TASKS.items():
                if str(architecture).endswith(end):
                    return task
    return "feature-extraction"


@contextmanager
def _offline() -> Iterator[None]:
    """No request leaves the machine inside: the variables for a fresh import, the constant for an earlier one."""
    before = {k: os.environ.get(k) for k in _OFFLINE}
    os.environ.update(_OFFLINE)
    constants = sys.modules.get("huggingface_hub.constants")
    was = getattr(constants, "HF_HUB_OFFLINE", None)
    if constants is not None:
        constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for k, v in before.items():
            if v is None:
                os.environ.pop(k, None)
            else:
                os.environ[k] = v
        if constants is not None:
            constants.HF_HUB_OFFLINE = was  # type: ignore[attr-defined]


def _main_export(why_not: str) -> Any:
    try:
        return importlib.import_module("optimum.exporters.onnx").main_export
    except ImportError as e:
        raise MissingExtra(
            f"{why_not}; other architectures are exported with optimum-onnx and torch: pip install 'frugal-edge[export]' ({e})"
        ) from e


def _run(main_export: Any, src: Path, work: Path, task: str) -> OnnxFile:
    """Export into the folder `work`; the model.onnx that came of it."""
    try:
        main_export(
            str(src),
            output=work,
            task=task,
            library_name="transformers",
            local_files_only=True,
            trust_remote_code=False,
            do_validation=False,
        )
    except Exception as e:
        raise FrugalError(f"{src}: optimum-onnx could not export this model ({type(e).__name__}: {e})") from e
    made = work / "model.onnx"
    if not made.is_file():
        found = ", ".join(sorted(p.name for p in work.glob("*.onnx")))
        raise InvalidArgument(f"{src}: optimum-onnx wrote {found or 'nothing'}, not one model.onnx; give `task`")
    return OnnxFile(made)


def export_with_optimum(
    src: Path, target: Path, config: dict[str, Any], task: str | None, opset: int, why_not: str
) -> ExportResult:
    """Export with optimum's main_export into staging, validate, move to `target`. Opset is optimum's own choice
    (its tracer stops at 18); `frugal quantize` and `frugal compile` convert.
    """
    from .exporter import copy_companions, place, result_of

    if config.get("auto_map"):
        raise InvalidModel(f"{src}: config.json asks for code from the model's folder (auto_map), which is never run")
    folder, name, companions = place(target)
    task = task or _task(config, src)
    with _offline(), staging(folder, name) as part:
        main_export = _main_export(f"{src}: {why_not}")
        work = part if companions else part / "optimum"
        model = _run(main_export, src, work, task)
        if companions:
            copy_companions(src, part)
        else:
            proto, tensors = calibrate.whole(model)
            onnxfile.write(proto, tensors, part / name)
            for path in work.iterdir():
                path.unlink()
        files = [p for p in part.rglob("*") if p.is_file()]
        architecture = str((config.get("architectures") or [config.get("model_type", "unknown")])[0])
        notes = [f"exported by optimum-onnx: {why_not}", f"opset asked for: {opset}"]
        return result_of(model.proto, files, folder, name, "optimum", architecture, task, notes)
