"""Algebra on index expressions: a shorter expression with the same value, and the affine form.

What it is: ``simplify``, and ``as_affine``, which turns ``i0*2 - 1 + i1`` into coefficients and a constant;
``affine_part`` leaves a rest.
What it is not: an optimiser of kernels; it knows nothing about extents (``bounds`` does).
Who calls it: the parser, ``bounds``, and the passes that look for contiguous, strided or gathered access.

Only integers and truth values are rearranged: they wrap around, so every step holds for all values. Of floats, only
operations on constants are computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..dtypes import bool_, int64
from ..kernel.expr import LEAVES, Expr, const, rewrite, walk
from ..kernel.host import apply

__all__ = ["Affine", "affine_part", "as_affine", "simplify"]


@dataclass(frozen=True)
class Affine:
    """``constant + sum of coefficient * axis``; ``coefficients`` are (axis, coefficient != 0), sorted by axis.

    Example:
        >>> from metafuse.kernel.expr import axis, call, const
        >>> as_affine(call("sub", call("mul", axis(1), const(2)), const(3)))
        Affine(coefficients=((1, 2),), constant=-3)
    """

    coefficients: tuple[tuple[int, int], ...]
    constant: int


def as_affine(expr: Expr) -> Affine | None:
    """The affine form of an int64 expression of axes and constants, or ``None`` if it has none."""
    if expr.dtype is not int64:
        return None
    sums: dict[Expr, _Sum] = {}
    for node in walk(expr):
        sums[node] = _sum_of(node, sums.__getitem__)
    return sums[expr].affine()


def affine_part(expr: Expr) -> tuple[Affine, Expr]:
    """The affine terms of an int64 sum, and all others as an expression.

    Example:
        >>> from metafuse.kernel.expr import add, axis, call, const, mul
        >>> affine_part(add(mul(axis(0), const(8)), call("cmod", axis(1), const(4))))
        (Affine(coefficients=((0, 8),), constant=0), cmod(i1, 4))
    """
    sums: dict[Expr, _Sum] = {}
    for node in walk(expr):
        sums[node] = _sum_of(node, lambda operand: sums.get(operand) or _Sum({operand: 1}, 0))
    total = sums[expr]
    affine = _Sum({term: c for term, c in total.terms.items() if term.op == "axis"}, total.constant).affine()
    assert affine is not None
    return affine, _Sum({term: c for term, c in total.terms.items() if term.op != "axis"}, 0).written()


def simplify(expr: Expr) -> Expr:
    """An expression with the same value for all axes and loads: constants computed, neutral elements gone, every sum
    in one order.

    Example:
        >>> from metafuse.kernel.expr import axis, call, const
        >>> simplify(call("sub", call("add", call("mul", axis(0), const(1)), const(3)), const(3)))
        i0
    """
    sums: dict[Expr, _Sum] = {}

    def rule(node: Expr) -> Expr:
        node = _rule(node)
        total = _sum_of(node, lambda operand: sums.get(operand) or _Sum({operand: 1}, 0))
        if node.op in _SUMS and node.dtype is int64:
            node = total.written()
        sums[node] = total
        return node

    return rewrite(expr, rule)


# -- sums -------------------------------------------------------------------------------------------------------------
_SUMS = frozenset({"add", "sub", "mul", "neg"})


def _wrapped(value: int) -> int:
    """What is left of an integer in 64 bits."""
    return (value + 2**63) % 2**64 - 2**63


class _Sum:
    """``constant + sum of coefficient * term``; a term is an axis or anything that is no sum itself."""

    __slots__ = ("terms", "constant")

    def __init__(self, terms: dict[Expr, int], constant: int) -> None:
        self.terms = {term: c for term, c in ((t, _wrapped(c)) for t, c in terms.items()) if c}
        self.constant = _wrapped(constant)

    def scaled(self, factor: int) -> _Sum:
        return _Sum({term: c * factor for term, c in self.terms.items()}, self.constant * factor)

    def plus(self, other: _Sum) -> _Sum:
        terms = dict(self.terms)
        for term, c in other.terms.items():
            terms[term] = terms.get(term, 0) + c
        return _Sum(terms, self.constant + other.constant)

    def affine(self) -> Affine | None:
        if any(term.op != "axis" for term in self.terms):
            return None
        return Affine(tuple(sorted((term.value, c) for term, c in self.terms.items())), self.constant)

    def written(self) -> Expr:
        """As an expression: axes by number, then other terms; what is added before what is taken away."""
        parts = [(c, _product(term, c)) for term, c in sorted(self.terms.items(), key=_order)]
        if self.constant:
            parts.append(
                (self.constant, const(abs(self.constant) if self.constant > -(2**63) else self.constant))
            )
        # The smallest integer is its own negation: it is added as it stands.
        added = [part for c, part in parts if c > 0 or c == -(2**63)]
        taken = [part for c, part in parts if -(2**63) < c < 0]
        if not added and taken:
            first = Expr("neg", (taken.pop(0),), int64)
            added = [first if first.args[0].op != "const" else const(self.constant)]
        root = added[0] if added else const(0)
        for part in added[1:]:
            root = Expr("add", (root, part), int64)
        for part in taken:
            root = Expr("sub", (root, part), int64)
        return root


def _order(item: tuple[Expr, int]) -> tuple[int, int]:
    term, _ = item
    return (0, term.value) if term.op == "axis" else (1, 0)


def _product(term: Expr, coefficient: int) -> Expr:
    """``term`` times the size of ``coefficient``."""
    size = abs(coefficient) if coefficient > -(2**63) else coefficient
    return term if size == 1 else Expr("mul", (term, const(size)), int64)


def _sum_of(node: Expr, known: Callable[[Expr], _Sum]) -> _Sum:
    """``node`` as a sum, given its operands as sums."""
    if node.dtype is int64:
        if node.op == "const":
            return _Sum({}, int(node.value))
        if node.op == "neg":
            return known(node.args[0]).scaled(-1)
        if node.op in ("add", "sub"):
            return known(node.args[0]).plus(known(node.args[1]).scaled(1 if node.op == "add" else -1))
        if node.op == "mul":
            first, second = map(known, node.args)
            if not second.terms:
                return first.scaled(second.constant)
            if not first.terms:
                return second.scaled(first.constant)
    return _Sum({node: 1}, 0)


# -- everything else --------------------------------------------------------------------------------------------------
#: (operation, right operand) that leaves the left one as it is, on integers
_NEUTRAL = frozenset(
    {("cdiv", 1), ("floordiv", 1), ("bitor", 0), ("bitxor", 0), ("shl", 0), ("shr", 0)}
)  # fmt: skip
#: (operation, right operand) that gives 0, on integers
_ABSORBING = frozenset({("cmod", 1), ("mod", 1), ("bitand", 0)})
#: test of integers -> its opposite, and its answer for two equal operands
_OPPOSITE = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}
_REFLEXIVE = frozenset({"eq", "le", "ge"})


def _rule(node: Expr) -> Expr:
    """One step of simplification; the operands are simple already."""
    if node.op in LEAVES or node.op == "uniform":
        return node
    if all(a.op == "const" for a in node.args):
        values = [a.dtype.numpy.type(a.value) for a in node.args]
        return const(apply(node.op, *values, dtype=node.dtype).item(), node.dtype)
    if node.op == "select":
        return _select(node)
    if node.op == "cast" and node.args[0].dtype is node.dtype:
        return node.args[0]
    if node.op in ("and", "or", "not"):
        return _logic(node)
    if any(a.dtype.is_float for a in node.args):
        return node
    if node.op in _OPPOSITE:
        return _test(node)
    if len(node.args) == 2:
        return _whole(node)
    return node


def _select(node: Expr) -> Expr:
    condition, yes, no = node.args
    if condition.op == "const":
        return yes if condition.value else no
    return yes if yes == no else node


def _logic(node: Expr) -> Expr:
    first, second = node.args[0], node.args[-1]
    if node.op == "not":
        if first.op == "not":
            return first.args[0]
        if first.op in _OPPOSITE and not first.args[0].dtype.is_float:
            return Expr(_OPPOSITE[first.op], first.args, bool_)
        return node
    if first == second:
        return first
    for one, other in ((first, second), (second, first)):
        if one.op == "const":  # true is neutral for "and" and decides "or"; false the other way round
            return other if bool(one.value) == (node.op == "and") else one
    return node


def _test(node: Expr) -> Expr:
    first, second = node.args
    if first == second:
        return const(node.op in _REFLEXIVE, bool_)
    # A truth value that was made a number, tested as a condition again.
    if (
        node.op == "ne"
        and second.op == "const"
        and second.value == 0
        and first.op == "cast"
        and first.args[0].dtype is bool_
    ):
        return first.args[0]
    return node


def _whole(node: Expr) -> Expr:
    first, second = node.args
    if node.op in ("min", "max") and first == second:
        return first
    if second.op == "const" and (node.op, second.value) in _NEUTRAL:
        return first
    if second.op == "const" and (node.op, second.value) in _ABSORBING:
        return const(0, node.dtype)
    return node
