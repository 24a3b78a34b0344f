"""`quantize`: any float ONNX model becomes int8 or int4 standard ONNX, with a report of what that cost."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Sequence
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

from frugal.errors import InvalidArgument, InvalidModel

from . import calibrate, onnxfile, targets, verify
from ._files import peak_rss_bytes, staging
from ._journal import file_key
from .exporter import copy_companions, place
from .onnxfile import OnnxFile, Progress
from .opset import modernize
from .report import Report
from .rewrite import Rewritten, rewrite

BLOCK_SIZES = (32, 64, 128)
VERIFY_LIMIT = 1 << 30  # bytes of a float model that is compared without being asked
MAX_FEEDS = 32  # of the calibration data that also serve to verify


def quantize(
    model: str | Path,
    out: str | Path,
    *,
    scheme: str = "int8",
    calibration: calibrate.Source | None = None,
    block_size: int = 32,
    exclude: Iterable[str] = (),
    per_layer: bool = False,
    progress: Progress | None = None,
    validation: calibrate.Source | None = None,
    verify_result: bool | None = None,
    method: str = "grid",
    calibration_method: str = "percentile",
    percentile: float = 99.99,
) -> Report:
    """Quantize the weights of MatMul, Gemm and Gather of a float ONNX model; standard operators only.

    model: .onnx file, or a folder with model.onnx.  out: .onnx file (data beside it from 1.9 GB up), or a folder, which
    then also receives the tokenizer files.
    scheme: 'int8' (one scale per output) or 'int4' (blocks of block_size inputs; tables, and weights whose inputs are
    not a multiple of block_size, stay int8).
    calibration: feeds {input: array}, a folder of .npz/.npy, an .npz, or a .txt with a sample
    a line (tokenizer.json beside the model); with int8 the inputs of the products become
    static int8 too, with ranges by calibration_method 'minmax' or 'percentile' of |x|; with int4 it only verifies.
    exclude: shell patterns of node or tensor names that stay float.  method: int4 rounding, 'grid' or 'rtn'.
    The result is compared with the float model in onnxruntime, on validation or calibration feeds or generated ones
    (verify_result=False skips that; None: models beyond 1 GB are not compared, since both would have to lie in memory);
    per_layer adds figures for every quantized product.  A run that was killed goes on where it was when it is started again.

    Raises InvalidArgument, InvalidModel (not float, NaN weights: the tensor is named), MissingExtra, FrugalError.
    """
    start = time.perf_counter()
    src, target, excluded = _check_arguments(model, out, scheme, block_size, exclude, method)
    folder, name, companions = place(target)
    if (folder / name).exists() and (folder / name).samefile(src):
        raise InvalidArgument(f"out {target}: is the float model itself; choose another")
    m, found, note = _open(src, excluded)
    report = Report(
        str(src),
        str(folder / name),
        scheme,
        "float",
        m.data_size(),
        0,
        skipped=found.skipped,
        versions=_versions(),
        notes=[note] if note else [],
    )
    with staging(folder, name) as part:
        ranges = None
        if calibration is not None and scheme == "int8":
            ranges = calibrate.ranges(m, found, calibration, part, calibration_method, percentile)
            report.activations = "int8 static"
        result = rewrite(m, found, 4 if scheme == "int4" else 8, block_size, method, ranges)
        _write(m, result, part / name, report, progress)
        report.seconds = round(time.perf_counter() - start, 3)
        if verify_result is None and report.bytes_in > VERIFY_LIMIT:
            report.notes.append(f"not compared with the float model ({report.bytes_in} bytes would lie in memory): ask for it")
        elif verify_result is not False:
            feeds = validation if validation is not None else calibration
            _verify(m, found, result, part, name, feeds, per_layer, report)
        if companions:
            copy_companions(src.parent, part)
    return report


def _open(src: Path, excluded: tuple[str, ...]) -> tuple[OnnxFile, targets.Found, str | None]:
    """The checked float model at opset 21 or later, what can be quantized in it, and a note if it was converted."""
    m = OnnxFile(src)
    already = targets.already_quantized(m.proto)
    if already is not None:
        raise InvalidModel(f"{src}: is already quantized, node {already}; give the float model")
    onnxfile.check(*calibrate.whole(m), src, infer=False)
    note = modernize(m)
    found = targets.find(m.proto.graph, excluded)
    if not found.targets:
        raise InvalidModel(
            f"{src}: no MatMul, Gemm or Gather with a constant float weight to quantize"
            + "".join(f"; {n}: {why}" for n, why in found.skipped[:5])
        )
    return m, found, note


def _check_arguments(
    model: str | Path, out: str | Path, scheme: str, block_size: int, exclude: Iterable[str], method: str
) -> tuple[Path, Path, tuple[str, ...]]:
    src, target = Path(model), Path(out)
    if scheme not in ("int8", "int4"):
        raise InvalidArgument(f"scheme {scheme!r}: want 'int8' or 'int4'")
    if block_size not in BLOCK_SIZES:
        raise InvalidArgument(f"block_size {block_size}: want one of {', '.join(map(str, BLOCK_SIZES))}")
    if method not in ("grid", "rtn"):
        raise InvalidArgument(f"method {method!r}: want 'grid' or 'rtn'")
    if isinstance(exclude, str):
        raise InvalidArgument(f"exclude {exclude!r}: want a list of names, not one string")
    if src.is_dir():
        src = src / "model.onnx"
    if not src.is_file():
        raise InvalidArgument(f"model {src}: no such file")
    if target.suffix == ".onnx" and target.is_dir():
        raise InvalidArgument(f"out {target}: is a folder, but its name ends in .onnx")
    if target.suffix != ".onnx" and target.is_file():
        raise InvalidArgument(f"out {target}: is a file; give a folder, or a name ending in .onnx")
    return src, target, tuple(exclude)


def _write(m: OnnxFile, result: Rewritten, path: Path, report: Report, progress: Progress | None) -> None:
    onnxfile.check(result.proto, result.tensors, m.path, infer=False)
    sources = sorted({m.path, *(r.path for r in m.refs.values())})
    method = f"{result.weights[0].method} " + " ".join(file_key(p) for p in sources)
    files = onnxfile.write(result.proto, result.tensors, path, None, progress, method)
    report.bytes_out = sum(p.stat().st_size for p in files)
    report.tensors = [w.report for w in result.weights if w.report is not None]
    report.notes += result.notes
    report.peak_rss_bytes = peak_rss_bytes()
    for t in report.tensors:
        if t.cosine < 0.98:
            report.notes.append(
                f"{t.name}: its int{t.bits} form has cosine {t.cosine:.4f} to the float weight; consider int8, or `exclude`"
            )


def _verify(
    m: OnnxFile,
    found: targets.Found,
    result: Rewritten,
    part: Path,
    name: str,
    given: calibrate.Source | None,
    per_layer: bool,
    report: Report,
) -> None:
    start = time.perf_counter()
    report.verified_on = "generated" if given is None else "given"
    feeds: list[verify.Feeds]
    if given is None:
        feeds = list(verify.generated_feeds(m.proto))
    else:
        feeds = list(islice(calibrate.feeds(given, m.proto, m.path.parent), MAX_FEEDS))
        if not feeds:
            raise InvalidArgument(
                "validation: gives no feeds"
                if calibrate.is_reusable(given)
                else "calibration: an iterator is used up after calibration; give a list, or `validation`"
            )
    try:
        report.outputs = verify.compare(m.path, part / name, feeds)
        if per_layer:
            report.nodes = _per_layer(m, found, result, part, feeds)
    except InvalidArgument as e:
        if given is not None:
            raise
        report.verified_on = "not verified"
        report.notes.append(f"generated inputs do not fit this model ({e}); give `validation` feeds")
    report.verify_seconds = round(time.perf_counter() - start, 3)
    report.verify_peak_rss_bytes = peak_rss_bytes()


def _per_layer(m: OnnxFile, found: targets.Found, result: Rewritten, part: Path, feeds: Sequence[verify.Feeds]) -> list[Any]:
    """Compare the outputs of all quantized nodes, each in its own model's flow (errors add up along the graph)."""
    names = [o for t in found.targets for o in m.proto.graph.node[t.node].output]
    paths = []
    with staging(part, "per-layer") as tmp:
        for label, proto, tensors in (("float", *calibrate.whole(m)), ("quantized", result.proto, result.tensors)):
            path = tmp / f"{label}.onnx"
            onnxfile.write(calibrate.with_outputs(proto, names), tensors, path)
            paths.append(path)
        figures = verify.compare(paths[0], paths[1], feeds, names)
        for path in tmp.iterdir():
            path.unlink()
    return figures


def _versions() -> dict[str, str]:
    out = {"python": platform.python_version()}
    for name in ("frugal-edge", "onnx", "onnxruntime", "numpy"):
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out
