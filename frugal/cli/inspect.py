"""Show a model's inputs, outputs, steps and memory."""

from __future__ import annotations

import argparse
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..plan import Plan, dtype_name, has_magic
from .common import (
    add_activations,
    add_json,
    add_model,
    model_path,
    needs,
    print_json,
    print_table,
    printable,
    shape_text,
    size,
)

PRODUCTS = ("linear", "matmul", "attention", "conv", "conv_transpose", "recurrent", "qconv", "qlinear")
INTEGER_TYPES = (2, 3)  # uint8, int8 of TensorProto.DataType


def add_arguments(command: argparse.ArgumentParser) -> None:
    """MODEL [--steps] [--verify]."""
    add_model(command)
    command.add_argument("--steps", action="store_true", help="list every step")
    command.add_argument("--verify", action="store_true", help="check the SHA-256 of every section of a plan")
    add_activations(command)
    add_json(command)


def main(args: argparse.Namespace) -> None:
    """Describe the plan of MODEL; an .onnx is compiled (or found in the cache) first."""
    path = model_path(args.model)
    if has_magic(path):
        plan = Plan.open(path)
    else:
        from ..cache import compiled

        with needs("onnx", "reading .onnx"):
            plan, _ = compiled(path, activations=args.activations)
    if args.verify:
        plan.verify()
    about = describe(path, plan, args.steps or args.json)
    if args.json:
        print_json(about)
    else:
        _print(about, args.verify)


def describe(path: Path, plan: Plan, steps: bool) -> dict[str, Any]:
    """Everything `inspect` shows, as plain data."""
    tensors = plan.tensors()
    about: dict[str, Any] = {
        "model": path,
        "plan_bytes": len(plan),
        "meta": plan.meta,
        "inputs": [{"name": t.name, "dtype": dtype_name(t.dtype), "shape": list(t.shape)} for t in plan.inputs],
        "outputs": [{"name": t.name, "dtype": dtype_name(t.dtype), "shape": list(t.shape)} for t in plan.outputs],
        "operators": dict(Counter(s.op for s in plan.steps()).most_common()),
        "constant_bytes": dict(sorted(_by_layout(tensors).items())),
        "sections": plan.sections(),
    }
    about["passes"] = _changes(plan.meta.get("passes", []))
    about["float_products"] = _float_products(plan, tensors)
    if steps:
        about["steps"] = [
            {
                "number": s.number,
                "op": s.op,
                "name": s.name,
                "inputs": [tensors[i].name if i >= 0 else None for i in s.inputs],
                "outputs": [tensors[i].name for i in s.outputs],
                "shape": list(tensors[s.outputs[0]].shape) if s.outputs else [],
            }
            for s in plan.steps()
        ]
    return about


def _changes(history: list[Any]) -> list[dict[str, Any]]:
    """What each pass did: steps before and after, and by how much each operation's count changed."""
    rows = []
    for (_, before), (name, after) in pairwise(history):
        change = {op: after.get(op, 0) - before.get(op, 0) for op in sorted({*before, *after})}
        rows.append(
            {
                "pass": name,
                "before": sum(before.values()),
                "after": sum(after.values()),
                "changes": {op: n for op, n in change.items() if n},
            }
        )
    return rows


def _float_products(plan: Plan, tensors: list[Any]) -> list[dict[str, str]]:
    """The products that run in float although the model has integer ones, each with the reason."""
    products = [s for s in plan.steps() if s.op in PRODUCTS]
    whole = [s for s in products if any(tensors[i].dtype in INTEGER_TYPES for i in s.inputs[:2] if i >= 0)]
    if not whole:
        return []
    notes = plan.meta.get("notes", [])
    rows = []
    for s in products:
        if s in whole:
            continue
        note = next((n.removeprefix(f"{s.name}: ") for n in notes if n.startswith(f"{s.name}: ")), None)
        constant = any(tensors[i].kind == "const" for i in s.inputs[1:2] if i >= 0)
        rows.append(
            {"op": s.op, "name": s.name, "why": note or ("its weight is float" if constant else "no operand is constant")}
        )
    return rows


def _by_layout(tensors: list[Any]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for t in tensors:
        if t.kind == "const":
            total[t.layout] += t.bytes
    return dict(total)


def _print(about: dict[str, Any], verified: bool) -> None:
    count = sum(about["operators"].values())
    print(printable(f"{about['model']}: {size(about['plan_bytes'])}, {count} steps") + (", verified" * verified))
    for kind in ("inputs", "outputs"):
        print(f"\n{kind}")
        print_table([["  " + t["name"], t["dtype"], shape_text(t["shape"])] for t in about[kind]])
    meta = about["meta"]
    if "nodes" in meta:
        most = ", ".join(f"{op} {n}" for op, n in list(meta.get("onnx_operators", {}).items())[:8])
        print()
        print(printable(f"ONNX: {meta['nodes']} nodes ({most})"))
    changed = [p for p in about["passes"] if p["changes"]]
    if changed:
        print(f"passes: {about['passes'][0]['before']} steps before, {about['passes'][-1]['after']} after")
        print_table([["  " + p["pass"], ", ".join(f"{op} {n:+d}" for op, n in p["changes"].items())] for p in changed])
    if about["float_products"]:
        print("\nproducts that stay float")
        print_table([["  " + p["op"], printable(p["name"]), printable(p["why"])] for p in about["float_products"]])
    print("\noperators")
    print_table([["  " + op, n] for op, n in about["operators"].items()] or [["  none"]])
    print("\nconstants")
    print_table([["  " + layout, size(n)] for layout, n in about["constant_bytes"].items()] or [["  none"]])
    for note in about["meta"].get("notes", []):
        print(printable(f"note: {note}"))
    if "steps" in about:
        print("\nsteps")
        rows = [[s["number"], s["op"], shape_text(s["shape"]), s["name"]] for s in about["steps"]]
        print_table(rows or [["none", "", "", ""]])
