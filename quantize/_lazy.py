"""Heavy imports on first use: `import frugal.quantize` works, and is fast, without onnx or onnxruntime."""

from __future__ import annotations

import importlib
from types import ModuleType

from frugal.errors import MissingExtra


def _load(name: str, extra: str, what: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
        if module.__file__ is None:  # a folder of that name, on sys.path by accident
            raise ImportError(f"{name} is a folder without a package")
        return module
    except ImportError as e:
        raise MissingExtra(f"{what} needs the package {name!r}: pip install 'frugal-edge[{extra}]'") from e


def onnx(what: str = "reading and writing ONNX") -> ModuleType:
    """The onnx package. Raises MissingExtra that names the extra `quantize`."""
    _load("onnx.helper", "quantize", what)
    return _load("onnx", "quantize", what)


def onnxruntime(what: str = "running the reference model") -> ModuleType:
    """The onnxruntime package. Raises MissingExtra that names the extra `quantize`."""
    return _load("onnxruntime", "quantize", what)


def tokenizers(what: str) -> ModuleType:
    """The tokenizers package. Raises MissingExtra that names the extra `text`."""
    return _load("tokenizers", "text", what)


def tflite() -> ModuleType:
    """The tflite package (the flatbuffer schema's classes). Raises MissingExtra that names the extra `tflite`."""
    return _load("tflite", "tflite", "reading .tflite files")
