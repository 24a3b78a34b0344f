"""frugal: quantized models on ordinary CPUs and boards, with its own small C kernels.

    import frugal
    session = frugal.InferenceSession("model.onnx")          # as onnxruntime's; also a .frugal plan, or bytes of either
    outputs = session.run(None, {"input_ids": ids, "attention_mask": mask})

    plan = frugal.compile("model.onnx")                      # compile once,
    plan.save("model.frugal")                                # map in a millisecond ever after

    model = frugal.TextModel.open("smollm2")                 # text generation, on a folder of `frugal export`
    print(model.generate("Il était une fois", max_new_tokens=40))

Importing frugal imports nothing else: every name below is loaded when it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers take it as true; importing typing would double the time this module takes
__version__ = "0.1.0"

__all__ = [
    "EmbeddingModel",
    "ExecutionMode",
    "FrugalError",
    "GraphOptimizationLevel",
    "InferenceSession",
    "InvalidArgument",
    "InvalidModel",
    "InvalidPlan",
    "MissingExtra",
    "ModelMetadata",
    "NoSuchFile",
    "NodeArg",
    "NotAvailable",
    "OutOfMemory",
    "Plan",
    "RunOptions",
    "SessionOptions",
    "TextModel",
    "UnsupportedOperator",
    "__version__",
    "compile",
    "energy",
    "get_available_providers",
    "get_device",
    "isa",
    "set_isa",
]

# Home module of every name that is loaded on first use.
_HOME = {
    "EmbeddingModel": "text.embedding",
    "TextModel": "text.model",
    "ExecutionMode": "session",
    "GraphOptimizationLevel": "session",
    "InferenceSession": "session",
    "ModelMetadata": "session",
    "NodeArg": "session",
    "RunOptions": "session",
    "SessionOptions": "session",
    "get_available_providers": "session",
    "get_device": "session",
    "Plan": "plan",
    "FrugalError": "errors",
    "InvalidArgument": "errors",
    "InvalidModel": "errors",
    "InvalidPlan": "errors",
    "MissingExtra": "errors",
    "NoSuchFile": "errors",
    "NotAvailable": "errors",
    "OutOfMemory": "errors",
    "UnsupportedOperator": "errors",
}

if TYPE_CHECKING:
    import os
    from typing import Any

    from . import energy as energy
    from .errors import (
        FrugalError,
        InvalidArgument,
        InvalidModel,
        InvalidPlan,
        MissingExtra,
        NoSuchFile,
        NotAvailable,
        OutOfMemory,
        UnsupportedOperator,
    )
    from .plan import Plan
    from .session import (
        ExecutionMode,
        GraphOptimizationLevel,
        InferenceSession,
        ModelMetadata,
        NodeArg,
        RunOptions,
        SessionOptions,
        get_available_providers,
        get_device,
    )
    from .text.embedding import EmbeddingModel
    from .text.model import TextModel


def compile(model: str | os.PathLike[str] | bytes, **options: Any) -> Plan:
    """Compile an ONNX model (path or bytes) to a Plan.

    options: activations="int8" (default) or "float", and the further ones of frugal.compiler.compile_model.  Raises
    NoSuchFile, InvalidModel, UnsupportedOperator, MissingExtra.
    """
    from .compiler import compile_model
    from .plan import Plan

    return Plan(compile_model(model, **options))


def isa() -> str:
    """Name of the instruction set in use, such as "avx2": set_isa's choice, else FRUGAL_ISA's, else the best here."""
    from .bindings import library

    return library.isa()


def set_isa(name: str) -> None:
    """Use another instruction set from the next run of every session on ("auto": the best); the results do not change.

    Raises NotAvailable, naming the usable ones.
    """
    from .bindings import library

    library.set_isa(name)


def __getattr__(name: str) -> Any:
    if name == "energy":
        from importlib import import_module

        return import_module(".energy", __name__)
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
