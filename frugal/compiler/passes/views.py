"""Views cost nothing, but they hide patterns.

1. A view of a view is a view of the first tensor.
2. A view with the shape of what it views is that tensor.
"""

from __future__ import annotations

from ..ir import Graph, Op


def shorten_views(graph: Graph) -> None:
    producers = graph.producers()
    for step in list(graph.steps):
        if step.op != Op.ALIAS:
            continue
        source = step.inputs[0]
        assert source is not None
        before = producers.get(source)
        if before is not None and before.op == Op.ALIAS:
            step.inputs[0] = source = before.inputs[0]
        assert source is not None
        if source.shape == step.out.shape and not step.out.pinned:
            graph.replace(step.out, source)
