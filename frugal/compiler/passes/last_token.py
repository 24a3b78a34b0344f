"""Logits of one token a row: what generation needs of a prompt.

1. The output `logits` [b, s, v] becomes [b, 1, v]: of the token whose index is in the new int64 input `last_index` [b, 1, 1].
2. The token is picked as early as the steps before the logits look at each token alone: before the product with the vocabulary.
"""

from __future__ import annotations

from ...errors import InvalidModel
from ..ir import DType, Graph, Op, Step, Tensor
from .match import Matcher

LOGITS, INDEX = "logits", "last_index"


def keep_last_token(graph: Graph) -> None:
    """Raises InvalidModel where there is no output `logits` of three axes."""
    if LOGITS not in graph.output_names:
        raise InvalidModel(f"no output '{LOGITS}' (the outputs are {', '.join(graph.output_names)}): not a decoder")
    tensor = graph.outputs[graph.output_names.index(LOGITS)]
    if tensor.rank != 3:
        raise InvalidModel(f"the output '{LOGITS}' has {tensor.rank} axes, not [batch, sequence, vocabulary]")
    chain = _chain(Matcher(graph), tensor)
    source = chain[-1].inputs[0] if chain else tensor
    assert source is not None
    index = Tensor(INDEX, DType.INT64, (tensor.shape[0], 1, 1), input=len(graph.inputs))
    graph.inputs.append(index)
    picked = Tensor(f"{source.name}/last", source.dtype, (source.shape[0], 1, *source.shape[2:]))
    gather = Step(Op.GATHER_AT, [source, index], [picked], [1, 1], f"{source.name}/last")
    if not chain:
        graph.steps.append(gather)
        graph.outputs = [picked if t is tensor else t for t in graph.outputs]
        return
    graph.steps.insert(graph.steps.index(chain[-1]), gather)
    chain[-1].inputs[0] = picked
    for step in chain:
        step.out.shape = (step.out.shape[0], 1, *step.out.shape[2:])


def _chain(find: Matcher, tensor: Tensor) -> list[Step]:
    """The steps before the logits that see one token at a time, last first."""
    chain: list[Step] = []
    while True:
        step = find.producers.get(tensor)
        readers = find.uses.get(tensor, [])
        if step is None or len(readers) != 1 or len(step.outputs) != 1 or not _each_token(step, tensor):
            return chain
        chain.append(step)
        source = step.inputs[0]
        assert source is not None
        tensor = source


def _each_token(step: Step, tensor: Tensor) -> bool:
    """Whether a step makes each token of `tensor` from the same token of its first input and constants."""
    source = step.inputs[0]
    if source is None or source.rank != 3 or source.shape[:2] != tensor.shape[:2] or source.known:
        return False
    if step.op == Op.LINEAR:
        return step.inputs[4] is None  # no residual
    if step.op == Op.UNARY:
        return True
    other = step.inputs[1] if step.op == Op.BINARY else None
    return other is not None and other.known and all(d == 1 for d in other.shape[:-1][-2:])
