"""Write tests/data/decoders.npz: what transformers computes for the tiny decoders (run as a module)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from . import decoders


def logits(case: str) -> tuple[dict[str, list[int]], np.ndarray]:
    """(shapes of the tensors to be stored, logits [2, LENGTH, VOCAB]) from transformers."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    c = decoders.config(case)
    family = c.pop("model_type")
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **c), attn_implementation="eager").float().eval()
    state = model.state_dict()
    tied = model.config.tie_word_embeddings
    shapes = {n: list(t.shape) for n, t in state.items() if t.is_floating_point() and not (tied and n == "lm_head.weight")}
    shapes = {n: s for n, s in shapes.items() if s}
    with torch.no_grad():
        for name, shape in shapes.items():
            state[name].copy_(torch.from_numpy(decoders.value(name, tuple(shape), family)))
        ids, mask, positions = (torch.from_numpy(x) for x in decoders.tokens())
        more = {} if family == "bloom" else {"position_ids": positions}
        return shapes, model(ids, attention_mask=mask, **more).logits.numpy()


def main() -> None:
    shapes: dict[str, dict[str, list[int]]] = {}
    arrays: dict[str, Any] = {}
    for case in decoders.CASES:
        shapes[case], arrays[case] = logits(case)
    np.savez_compressed(decoders.GOLDEN, shapes=np.frombuffer(json.dumps(shapes).encode(), np.uint8), **arrays)


if __name__ == "__main__":
    main()
