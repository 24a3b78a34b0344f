"""MLPerf Tiny networks, int8 and float32, one image on one thread: ours beside every peer, on the same weights.

Two ways: `executor` without what a Python call costs (ours: C; the peers: inputs bound once, outputs not handed out, the shortest
way that their bindings have), and `Python`, an array in and an array out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import stats
import to_ncnn
from driver import Feeds, Field, clock_of, save_feeds, start, start_loop
from onnx import numpy_helper

import frugal

DATA = Path(__file__).resolve().parents[1] / "data" / "tflite"
# network: shape of the input, and the file of each form
MULTIPLY_ADDS = {"kws": 2_656_768, "ic": 12_501_632}
NETS: dict[str, tuple[tuple[int, ...], dict[str, str]]] = {
    "kws": ((1, 49, 10, 1), {"int8": "kws_ref_model", "float32": "kws_ref_model_float32"}),
    "ic": ((1, 32, 32, 3), {"int8": "pretrainedResnet_quant", "float32": "pretrainedResnet"}),
}


def plain_float(source: Path, target: Path) -> Path:
    """The model with weights that are stored as int8 (DequantizeLinear of a constant) stored as float32."""
    model = onnx.load(source)
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            kept.append(node)
            continue
        codes, scale, zero = (constants[n].astype(np.float32) for n in node.input)
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        if scale.ndim:
            shape = [-1 if a == axis else 1 for a in range(codes.ndim)]
            scale, zero = scale.reshape(shape), zero.reshape(shape)
        model.graph.initializer.append(numpy_helper.from_array(((codes - zero) * scale).astype(np.float32), node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {name for n in kept for name in n.input}
    constants_left = [i for i in model.graph.initializer if i.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants_left)
    onnx.save(model, target)
    return target


def prepare(file: str, shape: tuple[int, ...], form: str, work: Path) -> tuple[Path, Path, Feeds]:
    """(.onnx, plan, input) of a network."""
    from frugal.quantize import export

    path, plan = work / f"{file}.onnx", work / f"{file}.frugal"
    export(DATA / f"{file}.tflite", path)
    if form == "float32":
        plain_float(path, path)
    frugal.compile(path).save(plan)
    rng = np.random.default_rng(0)
    value = rng.integers(-128, 128, shape).astype(np.int8) if form == "int8" else rng.standard_normal(shape).astype(np.float32)
    return path, plan, {onnx.load(path).graph.input[0].name: value}


def channels_first(feeds: Feeds) -> Feeds:
    return {name: np.ascontiguousarray(v.transpose(0, 3, 1, 2)) for name, v in feeds.items()}


def enter(field: Field, name: str, form: str, work: Path, thin: bool) -> None:
    """Start every engine on one form of a network."""
    shape, files = NETS[name]
    file = files[form]
    path, plan, feeds = prepare(file, shape, form, work)
    saved = save_feeds(work / f"{file}.npz", feeds)
    for isa in ["", "avx2"] if frugal.isa().startswith("avx512") else [""]:
        label = f"frugal {form}" + (f", FRUGAL_ISA={isa}" if isa else "")
        if thin:
            field.add(label, start_loop, plan, feeds, work, 1, isa)
        else:
            field.add(label, start, "frugal", plan, saved, 1, isa)
    field.add(f"onnxruntime {form}", start, "onnxruntime", path, saved, thin=thin)
    field.add(f"openvino {form}", start, "openvino", path, saved, thin=thin)
    field.add(f"litert {form}", start, "litert", DATA / f"{file}.tflite", saved, thin=thin)
    if form == "int8":
        field.skipped["ncnn int8"] = "needs a calibration of its own: other weights"
    else:
        param = to_ncnn.convert(path, work / f"{file}.param")
        first = save_feeds(work / f"{file}-nchw.npz", channels_first(feeds))
        field.add(f"ncnn {form}", start, "ncnn", param, first, thin=thin)


def difference(field: Field, form: str, work: Path) -> dict[str, float]:
    """Largest difference to onnxruntime's output, in steps (int8) or absolute; not of plan_loop, which hands out none."""
    outputs = {
        name: worker.outputs(work / "out.npz")[0].astype(np.float64).reshape(-1)
        for name, worker in field.workers.items()
        if form in name and "plan_loop" not in worker.command[0]
    }
    base = outputs.get(f"onnxruntime {form}")
    return {} if base is None else {n: float(np.abs(v - base).max()) for n, v in outputs.items()}


def measure(work: Path, rounds: int) -> dict[str, Any]:
    """Network and way -> microseconds of every engine, and its ratio to the fastest peer of each round, of either form (`any`) or
    of float32 (`float`)."""
    report: dict[str, Any] = {}
    for name in NETS:
        for way in ("executor", "Python"):
            with Field() as field:
                for form in ("int8", "float32"):
                    enter(field, name, form, work, way == "executor")
                times = field.race(rounds, clock_of(1), 0.02)
                apart = difference(field, "int8", work) | difference(field, "float32", work)
                skipped = dict(field.skipped)
            rivals = [n for n in times if not n.startswith("frugal")]
            row = {
                "us": {n: stats.spread([1e6 * v for v in t]) for n, t in times.items()},
                "skipped": skipped,
                "difference": apart,
            }
            row["any"] = stats.compare(times, rivals)
            row["float"] = stats.compare(times, [n for n in rivals if n.endswith("float32")])
            report[f"{name}, {way}"] = row
            said = ", ".join(f"{n} {v[0]:.1f}" for n, v in row["us"].items())
            print(f"{name}, {way}, us: {said}", file=sys.stderr, flush=True)
    return report
