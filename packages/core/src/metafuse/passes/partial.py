"""Partial folds: a long fold that gives cores too little to share becomes two.

What it is: ``split``, which cuts a fold into one per part of one of its dimensions, and a fold of those results; and
``is_starved``, which tells where a fold's loops leave cores without work.
What it is not: a schedule: how many threads there are plays no role, so results are the same for any number of them.
Who calls it: ``atoms``, ``fuse`` and ``columns``.

Results that lie side by side in memory (columns of a matrix, the channels of an image that is stored channels last) are folded
together, about ``LANES`` at once, and only those behind them are work for another core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from ..graph.node import spec_of
from ..kernel.expr import Expr, add, axis, const, load, mul, rewrite
from .affine import as_affine, canonical_loads, offset, row_major
from .program_graph import ProgramGraph

if TYPE_CHECKING:
    from .atoms import Atom

__all__ = ["fold_in_parts", "is_starved", "parts_of", "split"]

#: a fold with fewer independent results than this is split into partial folds, if it is long
FEW_RESULTS = 8
LONG_FOLD = 1 << 15
PARTIALS = 64
#: as many results side by side are one piece of work, and fewer pieces than this are too few: cores that write into the same
#: rows of memory get into each other's way. A fold of pieces counts as long from this many elements on
LANES = 64
FEW_PIECES = 16
WIDE_FOLD = 1 << 18
#: a dimension of at most so many steps is cut into these, so that the partial fold runs over the space of the whole one
MOST_STEPS = 256


def is_starved(extents: Sequence[int], inner: frozenset[int]) -> bool:
    """Few outer points over a long inner space: maps over the whole space are better off on their own."""
    results = prod(n for k, n in enumerate(extents) if k not in inner)
    return results < FEW_RESULTS and prod(extents[k] for k in inner) >= LONG_FOLD


def split(graph: ProgramGraph, whole: Atom) -> list[Atom] | None:
    """Partial folds and the fold of those, or ``None`` if ``whole`` is good as it is."""
    lanes = _lanes(whole)
    results = prod(n for k, n in enumerate(whole.extents) if k not in whole.inner)
    pieces = results // lanes * -(-lanes // LANES)
    length = prod(whole.extents[k] for k in whole.inner)
    few, long = (FEW_RESULTS, LONG_FOLD) if lanes == 1 else (FEW_PIECES, WIDE_FOLD // lanes)
    if pieces >= few or length < long or whole.op == "void":
        return None
    steps = [k for k in whole.inner if FEW_RESULTS <= whole.extents[k] <= MOST_STEPS]
    if lanes > 1 and steps:
        return _folds(graph, whole, whole, max(steps, key=_steps(whole).__getitem__))
    cut = max(sorted(whole.inner), key=lambda k: min(whole.extents[k], PARTIALS))
    parts = parts_of(whole.extents[cut])
    return fold_in_parts(graph, whole, cut, parts) if parts >= FEW_RESULTS else None


def parts_of(extent: int) -> int:
    """Into how many parts an axis is cut; 0 for a prime number."""
    return next((p for p in range(min(PARTIALS, extent), 1, -1) if extent % p == 0), 0)


def fold_in_parts(graph: ProgramGraph, whole: Atom, cut: int, parts: int) -> list[Atom]:
    """A fold for each of the parts of axis ``cut``, and the fold of those."""
    if parts == whole.extents[cut]:
        return _folds(graph, whole, whole, cut)
    return _folds(graph, whole, _divided(whole, cut, parts), cut)


def _steps(atom: Atom) -> dict[int, int]:
    """The longest step in memory that a load makes along each axis."""
    steps = dict.fromkeys(range(len(atom.extents)), 0)
    for x in atom.loads():
        affine = as_affine(x.args[0])
        for k, step in affine.coefficients if affine is not None else ():
            steps[k] = max(steps[k], abs(step))
    return steps


def _lanes(whole: Atom) -> int:
    """How many results lie side by side in the order in which memory is read; 1 where it is read along the fold. What is not
    read anew for every point (numbers per row or per result) has no say."""
    dense: set[int] = set()
    for x in whole.loads():
        affine = as_affine(x.args[0])
        steps = dict(affine.coefficients) if affine is not None else {}
        if steps.keys() & whole.inner and steps.keys() - whole.inner:
            dense |= {k for k, step in steps.items() if abs(step) == 1}
    if not dense or dense & whole.inner:
        return 1
    return max(whole.extents[k] for k in dense)


def _divided(whole: Atom, cut: int, parts: int) -> Atom:
    """``whole`` with axis ``cut`` as (part, position within part), side by side."""
    chunk = whole.extents[cut] // parts

    def moved(k: int) -> int:
        return k if k <= cut else k + 1

    def substitute(x: Expr) -> Expr | None:
        if x.op != "axis":
            return None
        if x.value == cut:
            return add(mul(axis(cut), const(chunk)), axis(cut + 1))
        return axis(moved(x.value))

    assert whole.expr is not None
    extents = (*whole.extents[:cut], parts, chunk, *whole.extents[cut + 1 :])
    inner = frozenset(moved(k) for k in whole.inner) | {cut + 1}
    return replace(whole, extents=extents, inner=inner, expr=canonical_loads(rewrite(whole.expr, substitute)))


def _folds(graph: ProgramGraph, whole: Atom, space: Atom, cut: int) -> list[Atom]:
    """The fold of ``space`` without its axis ``cut``, and the fold of that along ``cut``."""
    inner = space.inner - {cut}
    outer = tuple(k for k in range(len(space.extents)) if k not in inner)
    shape = tuple(space.extents[k] for k in outer)
    strides = row_major(shape)
    partial = graph.add_virtual(spec_of(shape, graph.specs[whole.number].dtype))
    place = offset(tuple(axis(k) for k in outer), strides)
    folded = outer.index(cut)
    reading = load(
        partial, graph.specs[partial].dtype, offset(tuple(axis(k) for k in range(len(shape))), strides)
    )
    rest = tuple(axis(k) for k in range(len(shape)) if k != folded)
    there = offset(rest, graph.squeezed_strides(whole.number))
    return [
        replace(space, number=partial, inner=inner, place=place),
        replace(whole, extents=shape, inner=frozenset({folded}), expr=reading, place=there),
    ]
