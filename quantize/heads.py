"""What follows the encoder: transformers' task heads and sentence-transformers' pooling."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from frugal.errors import InvalidArgument, InvalidModel

from .bert import B, Config, S
from .checkpoint import Checkpoint, read_json
from .graph import Graph

TASKS = {
    "text-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "fill-mask": "ForMaskedLM",
    "question-answering": "ForQuestionAnswering",
}
ENCODER_TASKS = ("feature-extraction", "sentence-similarity")
_ROBERTA = ("roberta", "xlm-roberta", "camembert", "mpnet")


@dataclass
class Pooling:
    """The modules after the transformer: 'mean' | 'cls' | 'max', dense layers, normalize."""

    kind: str
    dense: list[Path] = field(default_factory=list)
    normalize: bool = False


def choose_task(task: str | None, config: dict[str, Any], folder: Path) -> str:
    """The task asked for, else sentence-transformers' when modules.json exists, else by config's architectures."""
    known = (*ENCODER_TASKS, *TASKS)
    if task is not None:
        if task not in known:
            raise InvalidArgument(f"task {task!r}: want one of {', '.join(known)}")
        return task
    if (folder / "modules.json").is_file():
        return "sentence-similarity"
    for architecture in config.get("architectures") or ():
        for name, end in TASKS.items():
            if str(architecture).endswith(end):
                return name
    return "feature-extraction"


def read_pooling(folder: Path, notes: list[str]) -> Pooling | None:
    """sentence-transformers' modules.json; None (and a note) when it asks for something not built in."""
    path = folder / "modules.json"
    if not path.is_file():
        return None
    try:
        modules = sorted(json.loads(path.read_text(encoding="utf-8")), key=lambda m: int(m["idx"]))
        kinds = [(str(m["type"]).rsplit(".", 1)[-1], folder / str(m["path"])) for m in modules]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InvalidModel(f"{path}: malformed ({e!r})") from e
    pooling: Pooling | None = None
    for kind, where in kinds[1:]:
        if kind == "Pooling" and pooling is None:
            mode = _pooling_mode(read_json(where / "config.json"))
            pooling = Pooling(mode) if mode else None
        elif kind == "Dense" and pooling is not None:
            pooling.dense.append(where)
        elif kind == "Normalize" and pooling is not None:
            pooling.normalize = True
        elif kind != "Dropout":
            pooling = None
        if pooling is None:
            notes.append(f"modules.json: {kind} in {where.name!r} is not built in, so there is no sentence_embedding")
            return None
    return pooling


def _pooling_mode(config: dict[str, Any]) -> str | None:
    names = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_max_tokens": "max"}
    on = [k for k, v in config.items() if k.startswith("pooling_mode_") and v is True]
    mode = names.get(on[0]) if len(on) == 1 else config.get("pooling_mode") if not on else None
    return mode if mode in ("cls", "mean", "max") else None


def add_pooling(g: Graph, c: Config, x: str, pooling: Pooling) -> None:
    """Output sentence_embedding [B, E]: pooled, dense layers, L2-normalised, as sentence-transformers computes it."""
    n, size = "sentence_embedding", c.hidden
    y = _pool(g, x, pooling.kind, n)
    for folder in pooling.dense:
        y, size = _dense(g, y, folder, size)
    if pooling.normalize:
        norm = g.op("ReduceL2", [y, g.ints(-1)], n, keepdims=1)
        y = g.op("Div", [y, g.op("Max", [norm, g.scalar(1e-12)], n)], n)
    g.add_output(y, "sentence_embedding", [B, size])


def _pool(g: Graph, x: str, kind: str, n: str) -> str:
    if kind == "cls":
        return g.op("Gather", [x, g.scalar(0)], n, axis=1)
    mask = g.op("Cast", ["attention_mask"], n, to=g.onnx.TensorProto.FLOAT)
    mask = g.op("Unsqueeze", [mask, g.ints(2)], n)
    if kind == "max":
        real = g.op("Cast", [mask], n, to=g.onnx.TensorProto.BOOL)
        return g.op("ReduceMax", [g.op("Where", [real, x, g.scalar(-1e9)], n), g.ints(1)], n, keepdims=0)
    total = g.op("ReduceSum", [g.op("Mul", [x, mask], n), g.ints(1)], n, keepdims=0)
    count = g.op("ReduceSum", [mask, g.ints(1)], n, keepdims=0)
    return g.op("Div", [total, g.op("Max", [count, g.scalar(1e-9)], n)], n)


def _dense(g: Graph, y: str, folder: Path, size: int) -> tuple[str, int]:
    config = read_json(folder / "config.json")
    act = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    rows, cols = int(config.get("out_features", 0)), int(config.get("in_features", 0))
    if act not in ("Tanh", "Identity", "ReLU", "GELU") or cols != size or rows < 1:
        raise InvalidModel(
            f"{folder}: Dense with activation {act} from {cols} to {rows} features does not fit a sentence embedding of {size}"
        )
    name = folder.name
    y = g.linear(y, "linear", rows, cols, Checkpoint(folder), name + ".", bias=bool(config.get("bias", True)))
    return (y if act == "Identity" else g.activation(y, act.lower(), name)), rows


def add_head(g: Graph, c: Config, x: str, task: str) -> None:
    """The task's outputs: logits, or start_logits and end_logits, as transformers' *For… classes compute them."""
    if task == "text-classification":
        g.add_output(_sequence_logits(g, c, x), "logits", [B, c.labels])
    elif task == "token-classification":
        g.add_output(g.linear(x, "classifier", c.labels, c.hidden), "logits", [B, S, c.labels])
    elif task == "fill-mask":
        g.add_output(_masked_logits(g, c, x), "logits", [B, S, c.vocab])
    else:
        both = g.linear(x, "qa_outputs", 2, c.hidden)
        for i, name in enumerate(("start_logits", "end_logits")):
            g.add_output(g.op("Gather", [both, g.scalar(i)], name, axis=-1), name, [B, S])


def _sequence_logits(g: Graph, c: Config, x: str) -> str:
    h = c.hidden
    first = g.op("Gather", [x, g.scalar(0)], "classifier", axis=1)
    if c.family == "bert":
        pooled = g.activation(g.linear(first, c.prefix + "pooler.dense", h, h), "tanh", c.prefix + "pooler")
        return g.linear(pooled, "classifier", c.labels, h)
    if c.family == "distilbert":
        return g.linear(
            g.activation(g.linear(first, "pre_classifier", h, h), "relu", "pre_classifier"), "classifier", c.labels, h
        )
    act = "gelu" if c.family == "electra" else "tanh"
    inner = g.activation(g.linear(first, "classifier.dense", h, h), act, "classifier")
    return g.linear(inner, "classifier.out_proj", c.labels, h)


def _masked_logits(g: Graph, c: Config, x: str) -> str:
    """transform -> activation -> LayerNorm -> decoder, whose weight is usually the word embedding table itself."""
    dense, norm, decoder, bias = {
        "bert": (
            "cls.predictions.transform.dense",
            "cls.predictions.transform.LayerNorm",
            "cls.predictions.decoder",
            "cls.predictions.bias",
        ),
        "distilbert": ("vocab_transform", "vocab_layer_norm", "vocab_projector", "vocab_projector.bias"),
        "electra": (
            "generator_predictions.dense",
            "generator_predictions.LayerNorm",
            "generator_lm_head",
            "generator_lm_head.bias",
        ),
    }.get(c.family, ("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder", "lm_head.bias"))
    act = "gelu" if c.family in _ROBERTA or c.family == "electra" else c.activation
    y = g.linear(x, dense, c.embedding, c.hidden)
    y = g.layer_norm(g.activation(y, act, dense), norm, c.embedding, c.epsilon)
    assert g.checkpoint is not None
    own = g.checkpoint.resolve(decoder + ".weight")
    tied = own is None or c.raw.get("tie_word_embeddings", True)
    table = c.prefix + "embeddings.word_embeddings.weight" if tied else decoder + ".weight"
    weight = g.weight(table, (c.vocab, c.embedding))
    return g.linear(
        y, decoder, c.vocab, c.embedding, weight=weight, bias=bias if g.checkpoint.resolve(bias) else decoder + ".bias"
    )
