"""frugal.quantize: a trained model becomes standard ONNX (`export`), then int8 or int4 (`quantize`).

Needs the extra `quantize` (onnx, onnxruntime) when used, not when imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exporter import ExportResult, export
    from .quantizer import quantize
    from .report import Report

__all__ = ["ExportResult", "Report", "export", "quantize"]

_WHERE = {"export": "exporter", "ExportResult": "exporter", "quantize": "quantizer", "Report": "report"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value
    return value
