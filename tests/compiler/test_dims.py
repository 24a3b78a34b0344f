"""Symbolic dims: two ways of writing a polynomial are equal, and every simplification keeps the value."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from frugal.compiler import dims

B, S = dims.symbol(0, 0, "batch"), dims.symbol(0, 1, "sequence")


def test_reshape_arithmetic() -> None:
    assert dims.floordiv(dims.product([B, S, 384]), dims.product([B, 12, 32])) == S
    assert dims.floordiv(dims.mul(S, 6), 4) != dims.mul(S, 1)
    assert (B + S) * 2 == 2 * S + B * 2
    assert B - B == 0
    assert dims.sub0(S + 3, S) == 3


def test_broadcast() -> None:
    assert dims.broadcast(1, S) == S
    assert dims.broadcast(S, 7) == 7
    assert dims.broadcast(3, 4) is None
    assert dims.broadcast(dims.minimum(S, 512), S) == S
    both = dims.broadcast(B, S)
    assert both is not None and dims.broadcast(both, S) == both


def test_ordering_needs_no_values() -> None:
    assert dims.minimum(S, S + B) == S
    assert dims.maximum(S, S + B) == S + B
    assert str(dims.minimum(S, 512)) == "min(sequence, 512)"


leaves = st.one_of(st.integers(0, 40), st.sampled_from([B, S]))
OPS = [dims.add, dims.mul, dims.floordiv, dims.ceildiv, dims.mod, dims.minimum, dims.maximum, dims.sub0]
trees = st.recursive(leaves, lambda t: st.tuples(st.sampled_from(OPS), t, t), max_leaves=8)


def _plain(tree: Any, values: dict[tuple[int, int], int]) -> int | None:
    """The tree on plain integers; None when it divides by zero."""
    if not isinstance(tree, tuple):
        return dims.evaluate(tree, values)
    op, a, b = tree[0], _plain(tree[1], values), _plain(tree[2], values)
    if a is None or b is None or (op in (dims.floordiv, dims.ceildiv, dims.mod) and b == 0):
        return None
    result = op(a, b)
    assert isinstance(result, int)
    return result


def _symbolic(tree: Any) -> dims.Dim:
    return tree[0](_symbolic(tree[1]), _symbolic(tree[2])) if isinstance(tree, tuple) else tree


@settings(deadline=None)  # a busy machine is no failure
@given(trees, st.integers(0, 9), st.integers(0, 9))
def test_symbols_give_the_value_of_integers(tree: Any, b: int, s: int) -> None:
    values = {(0, 0): b, (0, 1): s}
    want = _plain(tree, values)
    if want is not None:
        try:
            assert dims.evaluate(_symbolic(tree), values) == want
        except ZeroDivisionError:  # only an expression kept whole can divide by a symbol that is 0
            assert 0 in (b, s)
