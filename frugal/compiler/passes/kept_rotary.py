"""Keys are turned while they are written to their cache.

1. CACHE_APPEND of what a ROTARY made for it alone takes the ROTARY's tables and positions, and its input.
"""

from __future__ import annotations

from ..ir import Graph, Op
from .match import Matcher


def turn_kept_keys(graph: Graph) -> None:
    find = Matcher(graph)
    for step in graph.steps:
        turned = step.inputs[1] if step.op == Op.CACHE_APPEND else None
        if turned is None or turned in graph.outputs or len(find.uses.get(turned, [])) != 1:
            continue
        rotary = find.producers.get(turned)
        if rotary is None or rotary.op != Op.ROTARY:
            continue
        x, cos, sin, ids = rotary.inputs
        heads, interleaved = rotary.attrs
        if step.inputs[4] is None and x is not None and (x.rank == 4 or heads == step.attrs[0]):
            step.inputs[1], step.inputs[4:7] = x, [cos, sin, ids]
            step.attrs[2] = interleaved
