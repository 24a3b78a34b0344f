"""Runs a .tflite file in ai-edge-litert and its ONNX export in a session, states carried from run to run."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx

Feeds = list[dict[str, np.ndarray]]


def litert(model: bytes, feeds: Feeds) -> list[list[np.ndarray]]:
    """The outputs of each run, in the model's order."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    inputs = {d["name"]: d["index"] for d in interpreter.get_input_details()}
    runs = []
    for feed in feeds:
        for name, value in feed.items():
            interpreter.set_tensor(inputs[name], value)
        interpreter.invoke()
        runs.append([interpreter.get_tensor(d["index"]).copy() for d in interpreter.get_output_details()])
    return runs


def onnx_runs(path: Path, session: Any, feeds: Feeds) -> list[list[np.ndarray]]:
    """The same of the export; its state starts as the metadata says."""
    proto = onnx.load(path)
    state = json.loads({p.key: p.value for p in proto.metadata_props}.get("frugal.state", "{}"))
    carried = {v["input"]: initial(v) for v in state.values() if v["input"]}
    names = [o.name for o in proto.graph.output]
    states = {v["output"] for v in state.values()}
    runs = []
    for feed in feeds:
        got = dict(zip(names, session.run(names, feed | carried), strict=True))
        carried = {v["input"]: got[v["output"]] for v in state.values() if v["input"]}
        runs.append([got[n] for n in names if n not in states])
    return runs


def initial(entry: dict[str, Any]) -> np.ndarray:
    """The value of a state before the first run."""
    if "fill" in entry:
        return np.full(entry["shape"], entry["fill"], entry["dtype"])
    return np.frombuffer(base64.b64decode(entry["base64"]), entry["dtype"]).reshape(entry["shape"])


def onnxruntime_session(path: Path, optimize: bool) -> Any:
    """onnxruntime as it comes, or without any optimization."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
