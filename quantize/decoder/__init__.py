"""Decoder language models without torch: a Hugging Face folder or a .gguf becomes standard ONNX, tensor by tensor.

spec.py       what of a configuration changes the graph
families.py   config.json of each model_type -> Spec
rope.py       rotary tables
checkpoint_weights.py, gguf_weights.py   where the tensors come from
build.py      Spec and weights -> graph
exporter.py   the files
"""

from __future__ import annotations

from .exporter import export_checkpoint, export_gguf
from .families import FAMILIES, unsupported

__all__ = ["FAMILIES", "export_checkpoint", "export_gguf", "unsupported"]
