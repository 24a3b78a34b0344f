"""Old graphs become opset 24, which blocked DequantizeLinear (21) and int4 need; newer ones stay."""

from __future__ import annotations

import importlib

from frugal.errors import InvalidModel

from . import _lazy, onnxfile
from .graph import IR_VERSION, OPSET
from .onnxfile import OnnxFile

_OLDEST = 21  # DequantizeLinear with block_size, INT4


def modernize(model: OnnxFile) -> str | None:
    """Raise the model's default-domain opset to at least 21 in place (to 24 by conversion); returns a note or None."""
    have = next((o.version for o in model.proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    model.proto.ir_version = max(model.proto.ir_version, IR_VERSION)
    if have >= _OLDEST:
        return None
    onnx = _lazy.onnx()
    converter = importlib.import_module("onnx.version_converter")
    stripped = onnxfile.without_data(model.proto, model.refs)
    try:
        new = converter.convert_version(stripped, OPSET)
    except Exception as e:
        raise InvalidModel(
            f"{model.path}: opset {have} cannot be converted to {OPSET} by onnx.version_converter ({e});"
            f" export the model again with opset {_OLDEST} or later"
        ) from e
    known = {t.name: t for t in model.proto.graph.initializer if t.name in model.refs}
    inputs = {i.name for i in model.proto.graph.input}
    kept = [i for i in new.graph.input if i.name not in known or i.name in inputs]
    del new.graph.input[:]
    new.graph.input.extend(kept)
    new.graph.initializer.extend(known.values())
    new.ir_version = model.proto.ir_version
    onnx.helper.set_model_props(new, {p.key: p.value for p in model.proto.metadata_props})
    model.proto = new
    return f"converted from opset {have} to {OPSET}"
