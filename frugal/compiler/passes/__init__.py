"""Graph passes in the order in which they run; one file each, its rules numbered in its docstring."""

from __future__ import annotations

from collections.abc import Callable

from ..ir import Graph
from .activations import quantize_activations
from .attention import join_qkv
from .common import merge_equal_steps, skip_expands
from .convolution import fuse_convolutions
from .embedding import gather_dequantize, tie_tables
from .epilogue import fuse_epilogues
from .gelu import fuse_activations
from .half_storage import store_halves
from .hard import fuse_hard_activations
from .identity import drop_identities
from .integer_linear import fuse_integer_scales
from .kept_rotary import turn_kept_keys
from .last_token import keep_last_token
from .layout import choose_layouts
from .norm import fuse_norms, fuse_residual_norms
from .offsets import take_offsets
from .one_hot import gather_one_hot
from .planes import read_planes
from .spelled_attention import fuse_spelled_attention
from .views import shorten_views
from .winograd import use_winograd

OPTIMIZING: tuple[Callable[[Graph], None], ...] = (
    shorten_views,
    drop_identities,
    merge_equal_steps,
    skip_expands,
    gather_dequantize,
    take_offsets,
    tie_tables,
    fuse_integer_scales,
    gather_one_hot,
    fuse_activations,
    fuse_hard_activations,
    fuse_norms,
    fuse_spelled_attention,
    choose_layouts,
    shorten_views,
    fuse_convolutions,
    fuse_epilogues,
    join_qkv,
    fuse_residual_norms,
    turn_kept_keys,
    read_planes,
    use_winograd,
    store_halves,
)


def run_passes(graph: Graph, activations: str, optimize: bool = True, generation: bool = False) -> None:
    """Rewrite the graph in place.  Without `optimize` only what the executor cannot do without.  generation: of a decoder, keep
    the logits of one token a row.

    What each pass did is written to graph.history, for `frugal inspect`.
    """
    graph.history = [("read", graph.count())]
    for run in OPTIMIZING if optimize else ():
        run(graph)
        graph.drop_dead()
        graph.history.append((run.__name__, graph.count()))
    if generation:
        keep_last_token(graph)
    quantize_activations(graph, activations)
    graph.drop_dead()
    graph.history.append((quantize_activations.__name__, graph.count()))
