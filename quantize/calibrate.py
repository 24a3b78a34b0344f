"""Ranges of activations for static int8: the float model runs in onnxruntime with those values as extra outputs.

Nothing is kept of a run but one running histogram of |x| for each value, so memory does not grow with the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frugal.errors import InvalidArgument, InvalidModel

from . import _lazy, onnxfile, verify
from .checkpoint import read_json
from .onnxfile import OnnxFile, OutTensor
from .targets import Found

Feeds = dict[str, NDArray[Any]]
Source = str | Path | Iterable[Mapping[str, Any]]
_BINS = 2048


def is_reusable(source: Source) -> bool:
    """Whether the data can be read twice."""
    return isinstance(source, (str, Path)) or iter(source) is not source


def feeds(source: Source, model: Any, folder: Path) -> Iterator[Feeds]:
    """Feeds checked against the model's inputs: names, types, no NaN. Raises InvalidArgument naming the input.

    folder: of the model, whose tokenizer.json turns the lines of a .txt into feeds.
    """
    initial = {t.name for t in model.graph.initializer}
    inputs = {i.name: i for i in model.graph.input if i.name not in initial}
    text = isinstance(source, (str, Path)) and Path(source).suffix == ".txt"
    raw = _lines(Path(str(source)), folder, list(inputs)) if text else _raw(source, list(inputs))
    for where, feed in raw:
        yield _checked(feed, inputs, where)


def _raw(source: Source, names: list[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(source, (str, Path)):
        for i, feed in enumerate(source):
            if not isinstance(feed, Mapping):
                raise InvalidArgument(f"calibration item {i}: want {{input name: array}}, got {type(feed).__name__}")
            yield f"calibration item {i}", feed
        return
    path = Path(source)
    files = sorted(p for p in path.iterdir() if p.suffix in (".npz", ".npy")) if path.is_dir() else [path]
    if not files:
        raise InvalidArgument(f"{path}: no .npz or .npy files in this folder")
    for file in files:
        yield str(file), _load(file, names)


def _lines(file: Path, folder: Path, names: list[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """One feed [1, tokens] for each line that is not empty, cut to what the model takes."""
    unknown = set(names) - {"input_ids", "attention_mask", "token_type_ids"}
    if unknown or not (folder / "tokenizer.json").is_file():
        raise InvalidArgument(
            f"{file}: lines of text need a tokenizer.json in {folder} and the inputs input_ids,"
            f" attention_mask and token_type_ids; the model has {', '.join(names)}"
        )
    tokenizers = _lazy.tokenizers("calibrating with text")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise InvalidArgument(f"{file}: cannot be read as text ({e})") from e
    except Exception as e:  # tokenizers raises bare Exception
        raise InvalidModel(f"{folder / 'tokenizer.json'}: not a tokenizer ({e})") from e
    tokenizer.no_padding()
    tokenizer.enable_truncation(_longest(folder))
    for i, line in enumerate(lines):
        if line.strip():
            tokens = tokenizer.encode(line)
            rows = {"input_ids": tokens.ids, "attention_mask": tokens.attention_mask, "token_type_ids": tokens.type_ids}
            yield f"{file} line {i + 1}", {n: np.array([rows[n]], np.int64) for n in names}


def _longest(folder: Path) -> int:
    """Tokens a model takes: sentence-transformers' limit, else two less than its positions (RoBERTa), else 256."""
    limits = (("sentence_bert_config.json", "max_seq_length", 0), ("config.json", "max_position_embeddings", 2))
    for name, key, less in limits:
        if (folder / name).is_file():
            value = read_json(folder / name).get(key)
            if isinstance(value, int) and value > less:
                return value - less
    return 256


def _load(file: Path, names: list[str]) -> Mapping[str, Any]:
    if file.suffix not in (".npz", ".npy"):
        raise InvalidArgument(f"calibration {file}: want a folder of .npz or .npy files, an .npz, or a .txt")
    try:
        data = np.load(file, allow_pickle=False)
        if isinstance(data, np.ndarray):
            if len(names) != 1:
                raise InvalidArgument(
                    f"{file}: a .npy holds one input, the model has {len(names)}: use .npz with the names {', '.join(names)}"
                )
            return {names[0]: data}
        with data:
            return {k: data[k] for k in data.files}
    except (OSError, ValueError, EOFError) as e:
        if isinstance(e, InvalidArgument):
            raise
        raise InvalidArgument(f"{file}: cannot be read as numpy data ({e})") from e


def _checked(feed: Mapping[str, Any], inputs: dict[str, Any], where: str) -> Feeds:
    missing, unknown = sorted(set(inputs) - set(feed)), sorted(set(feed) - set(inputs))
    if missing or unknown:
        raise InvalidArgument(
            f"{where}: the model's inputs are {', '.join(inputs)};"
            + (f" missing {', '.join(missing)}" if missing else "")
            + (f" unknown {', '.join(unknown)}" if unknown else "")
        )
    out: Feeds = {}
    for name, value in inputs.items():
        want = np.dtype(_lazy.onnx().helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        a = np.asarray(feed[name])
        alike = any(np.issubdtype(a.dtype, k) and np.issubdtype(want, k) for k in (np.integer, np.floating))
        if a.dtype != want and not alike:
            raise InvalidArgument(f"{where}: input {name!r} wants {want}, got {a.dtype} {a.shape}")
        if np.issubdtype(a.dtype, np.floating) and not np.isfinite(a).all():
            raise InvalidArgument(f"{where}: input {name!r} holds NaN or infinity")
        out[name] = a.astype(want, copy=False)
    return out


class Histogram:
    """|x| in 2048 equal bins from 0 to `top`, which doubles (bins merge in pairs) whenever a larger value comes."""

    def __init__(self) -> None:
        self.counts = np.zeros(_BINS, np.int64)
        self.top = self.peak = 0.0

    def add(self, x: NDArray[Any]) -> None:
        """Count the values of x (float, finite)."""
        a = np.abs(x.reshape(-1), dtype=np.float32)
        peak = float(a.max(initial=0))
        self.peak = max(self.peak, peak)
        if self.top == 0:
            self.top = peak
        if self.top == 0:
            self.counts[0] += a.size
            return
        while self.top < peak:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(axis=1), np.zeros(_BINS // 2, np.int64)])
            self.top *= 2
        self.counts += np.histogram(a, _BINS, (0, self.top))[0]

    def percentile(self, p: float) -> float:
        """Upper edge of the bin below which at least p percent of the values lie; at most the largest value."""
        if self.counts.sum() == 0:
            return 0.0
        i = int(np.searchsorted(np.cumsum(self.counts), self.counts.sum() * p / 100))
        return min(self.peak, self.top * (i + 1) / _BINS)


def whole(m: OnnxFile) -> tuple[Any, list[OutTensor]]:
    """A model as graph and tensors to be written."""
    tensors = [o for t in m.proto.graph.initializer if (o := m.out(t)) is not None]
    return onnxfile.strip(m.proto, {t.name for t in tensors}), tensors


def with_outputs(proto: Any, names: Iterable[str]) -> Any:
    """A copy of the model that also outputs the float values `names` (inputs and present outputs excepted)."""
    onnx = _lazy.onnx()
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    have = {o.name for o in copy.graph.output} | {i.name for i in copy.graph.input}
    for name in dict.fromkeys(names):
        if name not in have:
            copy.graph.output.append(onnx.ValueInfoProto(name=name))
    return copy


def ranges(m: OnnxFile, found: Found, source: Source, folder: Path, method: str, percentile: float) -> dict[str, float]:
    """Largest |x| (or its percentile) of every input of a quantized product: {value: range > 0}.

    folder: for the temporary copy of the model. Raises InvalidArgument for unusable feeds, InvalidModel naming the
    value that became NaN.
    """
    if method not in ("minmax", "percentile"):
        raise InvalidArgument(f"calibration_method {method!r}: want 'minmax' or 'percentile'")
    if not 50 < percentile <= 100:
        raise InvalidArgument(f"percentile {percentile}: want above 50, at most 100")
    names = list(dict.fromkeys(t.activation for t in found.targets if t.kind == "linear"))
    path = folder / "calibration.onnx"
    proto, tensors = whole(m)
    written = onnxfile.write(with_outputs(proto, names), tensors, path)
    try:
        histograms = _collect(verify.session(path), names, feeds(source, m.proto, m.path.parent))
    finally:
        for p in written:
            p.unlink()
    out = {n: h.peak if method == "minmax" else h.percentile(percentile) for n, h in histograms.items()}
    tiny = float(np.finfo(np.float32).tiny) * 127
    return {n: r if r > tiny else 127.0 for n, r in out.items()}  # a value that is always 0: any scale will do


def _collect(s: Any, names: list[str], data: Iterable[Feeds]) -> dict[str, Histogram]:
    histograms = {n: Histogram() for n in names}
    outputs = {o.name for o in s.get_outputs()}
    asked, count = [n for n in names if n in outputs], 0
    for feed in data:
        values = dict(zip(asked, verify.run(s, asked, feed, "calibration"), strict=True)) if asked else {}
        for n in names:
            x = values[n] if n in values else feed[n]
            if not np.isfinite(x).all():
                raise InvalidModel(f"calibration feed {count}: the float model computes NaN or infinity in {n!r}")
            histograms[n].add(x)
        count += 1
    if count == 0:
        raise InvalidArgument("calibration: gives no feeds")
    return histograms
