"""ONNX in, plan out: read, lower to executor steps, fuse, pack, write (DESIGN: import, fuse, plan).

The only public names are here; `frugal.compile` and `frugal compile` call them.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from typing import Any, BinaryIO

from ..errors import InvalidArgument
from .ir import Graph

ACTIVATIONS = ("int8", "int8-token", "int8-block", "float")

__all__ = ["ACTIVATIONS", "compile_model", "compile_to", "lower_model"]


def lower_model(
    model: str | os.PathLike[str] | bytes | Any, *, activations: str = "int8", optimize: bool = True, generation: str = ""
) -> tuple[Graph, dict[str, Any]]:
    """The graph of executor steps of an ONNX model, and the metadata that its plan will carry."""
    from .lower import Lowering, load_handlers
    from .passes import run_passes
    from .reader import read

    if activations not in ACTIVATIONS:
        raise InvalidArgument(f"activations: want one of {', '.join(ACTIVATIONS)}, got {activations!r}")
    load_handlers()
    source = read(model)
    if generation:
        from .generation import fix_caches
        from .kept_caches import keep_caches

        fix_caches(source.model, source.name)
        keep_caches(source.model, generation)
    graph = Lowering(source, activations).run()
    graph.drop_dead()
    run_passes(graph, activations, optimize, bool(generation))
    meta = {
        "producer": "frugal",
        "source": source.name,
        "source_sha256": source.sha256,
        "opsets": source.opsets,
        "nodes": len(source.model.graph.node),
        "onnx_operators": dict(Counter(n.op_type for n in source.model.graph.node).most_common()),
        "passes": graph.history,
        "activations": activations,
        "generation": generation,
        "notes": graph.notes,
        "model_producer": source.model.producer_name,
        "metadata": {p.key: p.value for p in source.model.metadata_props},
    }
    return graph, meta


def compile_to(
    model: str | os.PathLike[str] | bytes | Any,
    file: BinaryIO,
    *,
    activations: str = "int8",
    optimize: bool = True,
    generation: str = "",
) -> None:
    """Compile an ONNX model (path, bytes or ModelProto) into a seekable binary file; weights are packed one at a time.

    activations: how quantized linears see their input: "int8-block" (one scale for each 32 elements of a token), "int8-token"
    (one a token: faster, less accurate), "int8" (the default of the two, blocks), "float" (weights are
    dequantized when the plan is made).  generation: the form of a decoder that frugal.TextModel runs, by the
    type of its caches, "float32", "float16" or "int8" (kept_caches.py): they have fixed places (generation.py), and `logits` are
    of one token a row, whose index is the additional int64 input `last_index` [batch, 1, 1].
    Raises InvalidModel, UnsupportedOperator, InvalidArgument, MissingExtra.
    """
    from .planfile import write_plan

    graph, meta = lower_model(model, activations=activations, optimize=optimize, generation=generation)
    write_plan(graph, meta, file)


def compile_model(
    model: str | os.PathLike[str] | bytes | Any, *, activations: str = "int8", optimize: bool = True, generation: str = ""
) -> bytes:
    """`compile_to` into memory: the bytes of the plan."""
    file = io.BytesIO()
    compile_to(model, file, activations=activations, optimize=optimize, generation=generation)
    return file.getvalue()
