"""Symbolic dimensions: integer polynomials over input dims, with floor division, minimum and the like as opaque atoms.

A dim is a Python ``int`` or an ``Expr``.  Two equal polynomials compare equal, whatever way they were written, which is all
the compiler needs to know that ``batch * sequence * 384 / (batch * 384)`` is ``sequence``.  Symbols stand for sizes, so they are
assumed to be at least 0; nothing here divides by zero silently: the executor checks every expression when it evaluates it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, Union

Dim: TypeAlias = Union[int, "Expr"]
SIZE_LIMIT = 256


@dataclass(frozen=True)
class Symbol:
    """Axis ``axis`` of model input ``input``; ``name`` is what the model calls it."""

    input: int
    axis: int
    name: str

    def __str__(self) -> str:
        return self.name or f"input{self.input}.{self.axis}"


@dataclass(frozen=True)
class Call:
    """``op(a, b)`` for one of floordiv, ceildiv, mod, min, max, sub0, broadcast."""

    op: str
    a: Dim
    b: Dim

    def __str__(self) -> str:
        return f"{self.op}({self.a}, {self.b})"


@dataclass(frozen=True)
class Late:
    """Known only while the plan runs: element ``index`` of an integer ``tensor`` (an ir.Tensor), or, with ``axis``, its dim of
    that axis.  ``number`` tells tensors of one name apart.
    """

    number: int
    tensor: Any = field(compare=False)
    index: int
    axis: bool = False

    def __str__(self) -> str:
        return f"{self.tensor.name}@{self.number}{'.' if self.axis else '#'}{self.index}"


Atom: TypeAlias = Symbol | Call | Late
Monomial: TypeAlias = tuple[Atom, ...]


@dataclass(frozen=True)
class Expr:
    """A sum of ``coefficient * product of atoms``; ``terms`` is sorted, has no zero coefficient, and is not a constant.

    size: how many symbols and calls it holds in all; kept below SIZE_LIMIT, since a hostile graph can square a dim at every node.
    """

    terms: tuple[tuple[Monomial, int], ...]
    size: int = field(default=0, compare=False)
    late: frozenset[Late] = field(default=frozenset(), compare=False)  # all that it holds

    def __post_init__(self) -> None:
        size = sum(_size(atom) for monomial, _ in self.terms for atom in monomial) + len(self.terms)
        if size > SIZE_LIMIT or any(abs(c) >= 1 << 62 for _, c in self.terms):
            raise ValueError("a dimension is too complicated an expression of the input shapes")
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "late", frozenset().union(*(_late_of(a) for monomial, _ in self.terms for a in monomial)))

    def __add__(self, other: Dim) -> Dim:
        return add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return add(self, mul(other, -1))

    def __rsub__(self, other: Dim) -> Dim:
        return add(other, mul(self, -1))

    def __mul__(self, other: Dim) -> Dim:
        return mul(self, other)

    __rmul__ = __mul__

    def __str__(self) -> str:
        return " + ".join("*".join(([] if c == 1 and m else [str(c)]) + [str(a) for a in m]) for m, c in self.terms)

    __repr__ = __str__


def _size(atom: Atom) -> int:
    if not isinstance(atom, Call):
        return 1
    return 1 + sum(d.size if isinstance(d, Expr) else 1 for d in (atom.a, atom.b))


def symbol(input_index: int, axis: int, name: str = "") -> Expr:
    return _atom(Symbol(input_index, axis, name))


def late(number: int, tensor: Any, index: int, axis: bool = False) -> Expr:
    """The dim that an element, or an axis, of a tensor gives when the plan runs."""
    return _atom(Late(number, tensor, index, axis))


def late_atoms(dim: Any) -> frozenset[Late]:
    """What a dim needs to know from a run; nothing for a number or an expression of input dims."""
    return dim.late if isinstance(dim, Expr) else frozenset()


def _late_of(atom: Atom) -> frozenset[Late]:
    if isinstance(atom, Late):
        return frozenset((atom,))
    return late_atoms(atom.a) | late_atoms(atom.b) if isinstance(atom, Call) else frozenset()


def _atom(atom: Atom) -> Expr:
    return Expr((((atom,), 1),))


def _key(atom: Atom) -> tuple[str, str]:
    return (type(atom).__name__, f"{atom.input}.{atom.axis}" if isinstance(atom, Symbol) else str(atom))


def _terms(dim: Dim) -> dict[Monomial, int]:
    if isinstance(dim, Expr):
        return dict(dim.terms)
    return {(): dim} if dim else {}


def _make(terms: Mapping[Monomial, int]) -> Dim:
    kept = {m: c for m, c in terms.items() if c}
    if not kept:
        return 0
    if list(kept) == [()]:
        return kept[()]
    return Expr(tuple(sorted(kept.items(), key=lambda item: (len(item[0]), [_key(a) for a in item[0]]))))


def add(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    terms = _terms(a)
    for monomial, coefficient in _terms(b).items():
        terms[monomial] = terms.get(monomial, 0) + coefficient
    return _make(terms)


def mul(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    terms: dict[Monomial, int] = {}
    for ma, ca in _terms(a).items():
        for mb, cb in _terms(b).items():
            monomial = tuple(sorted(ma + mb, key=_key))
            terms[monomial] = terms.get(monomial, 0) + ca * cb
    return _make(terms)


def product(dims: Iterable[Dim]) -> Dim:
    result: Dim = 1
    for d in dims:
        result = mul(result, d)
    return result


def _divide_exactly(a: Dim, b: Dim) -> Dim | None:
    """a / b when every term of a is a multiple of the single term b, else None."""
    divisor = list(_terms(b).items())
    if len(divisor) != 1:
        return 1 if a == b and divisor else None
    monomial, coefficient = divisor[0]
    result: dict[Monomial, int] = {}
    for term, c in _terms(a).items():
        rest = list(term)
        for atom in monomial:
            if atom not in rest:
                return None
            rest.remove(atom)
        if c % coefficient:
            return None
        result[tuple(rest)] = c // coefficient
    return _make(result)


def floordiv(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b else 0
    exact = _divide_exactly(a, b)
    return _atom(Call("floordiv", a, b)) if exact is None else exact


def ceildiv(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return -(-a // b) if b else 0
    exact = _divide_exactly(a, b)
    return _atom(Call("ceildiv", a, b)) if exact is None else exact


def mod(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return a % b if b else 0
    return 0 if _divide_exactly(a, b) is not None else _atom(Call("mod", a, b))


def _at_least(a: Dim, b: Dim) -> bool:
    """Whether a >= b for every non-negative value of the symbols (False: not known)."""
    return all(c >= 0 for c in _terms(add(a, mul(b, -1))).values())


def minimum(a: Dim, b: Dim) -> Dim:
    if _at_least(a, b):
        return b
    return a if _at_least(b, a) else _atom(Call("min", a, b))


def maximum(a: Dim, b: Dim) -> Dim:
    if _at_least(a, b):
        return a
    return b if _at_least(b, a) else _atom(Call("max", a, b))


def sub0(a: Dim, b: Dim) -> Dim:
    """max(a - b, 0)."""
    if _at_least(a, b):
        return add(a, mul(b, -1))
    return 0 if _at_least(b, a) else _atom(Call("sub0", a, b))


def equal(a: Dim, b: Dim) -> Dim:
    """1 where two dims are the same, else 0."""
    return sub0(1, add(sub0(a, b), sub0(b, a)))


def _only_call(dim: Dim) -> Call | None:
    if isinstance(dim, Expr) and len(dim.terms) == 1:
        monomial, coefficient = dim.terms[0]
        if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], Call):
            return monomial[0]
    return None


def broadcast(a: Dim, b: Dim) -> Dim | None:
    """The numpy broadcast of two dims; None when they cannot match.

    A fixed size above 1 wins over a symbol: the executor checks that the symbol has that value or 1.  min(x, c) against x
    gives x, since min(x, c) = c < x could not match.
    """
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    if isinstance(a, int):
        return None if isinstance(b, int) else a
    if isinstance(b, int):
        return b
    for one, other in ((a, b), (b, a)):
        call = _only_call(one)
        if call and call.op == "min" and other in (call.a, call.b):
            return other
        if call and call.op == "broadcast" and other in (call.a, call.b):
            return one
    return _atom(Call("broadcast", a, b))


def evaluate(dim: Dim, symbols: Mapping[tuple[int, int], int]) -> int:
    """The value of a dim, given {(input, axis): size}: the Python twin of kernels/src/session.c, for tests and tools."""
    if isinstance(dim, int):
        return dim
    total = 0
    for monomial, coefficient in dim.terms:
        value = coefficient
        for atom in monomial:
            value *= _evaluate_atom(atom, symbols)
        total += value
    return total


def _evaluate_atom(atom: Atom, symbols: Mapping[tuple[int, int], int]) -> int:
    if isinstance(atom, Symbol):
        return symbols[atom.input, atom.axis]
    if isinstance(atom, Late):
        raise ValueError(f"{atom} is known only in a run")
    a, b = evaluate(atom.a, symbols), evaluate(atom.b, symbols)
    if atom.op == "broadcast" and a != b and 1 not in (a, b):
        raise ValueError(f"cannot broadcast {a} with {b}")
    return {
        "floordiv": lambda: a // b,
        "ceildiv": lambda: -(-a // b),
        "mod": lambda: a % b,
        "min": lambda: min(a, b),
        "max": lambda: max(a, b),
        "sub0": lambda: max(a - b, 0),
        "broadcast": lambda: b if a == 1 else a,
    }[atom.op]()
