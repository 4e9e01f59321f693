"""Columns: folds along columns join the kernel that folds along the rows of the same arrays.

What it is: ``join_columns``. The gradient of a normalisation's input is a fold along rows, those of its parameters are folds
along columns, and both read the same two arrays. A kernel of rows adds its share to a few rows of partial results as it
goes: rows that share one of those are its serial axes. So the arrays are read once.
What it is not: the decision to fold in parts (``partial``), from which the partial results come.
Who calls it: ``fuse``, for backends that can run through axes in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from ..dtypes import float32, float64
from ..kernel.expr import Expr, add, axis, const, mul, rewrite
from .affine import as_affine, canonical_loads, expression
from .partial import fold_in_parts, parts_of
from .program_graph import ProgramGraph

if TYPE_CHECKING:
    from .atoms import Atom
    from .fuse import Group

__all__ = ["join_columns"]

#: how long rows must be, and how many partial results of a unit, in elements, stay in the L1 cache beside a row
FEWEST_COLUMNS, MOST_COLUMNS = 64, 8192
#: how many rows a unit adds up: enough to be worth the partial results, few enough for float32
FEWEST_ROWS, MOST_ROWS = 8, 512
#: a smaller space is read from cache twice
SMALLEST_SPACE = 1 << 17


def join_columns(graph: ProgramGraph, groups: list[Group], most_operations: int, most_buffers: int) -> None:
    """Move folds along columns into the groups that fold along rows. ``most_operations``, ``most_buffers``: of a group."""
    for columns in list(groups):
        if not _is_plain(graph, columns):
            continue
        for rows in groups:
            if (
                rows.kind == "reduce"
                and rows is not columns
                and rows.operations + columns.operations <= most_operations
                and len(rows.reads | columns.reads) + len(rows.places) + len(columns.places) <= most_buffers
                and _share(graph, rows, columns)
                and _independent(groups, rows, columns)
                and _join(graph, groups, rows, columns)
            ):
                break
    for rows in groups:
        if rows.serial:
            _gather(groups, rows)


def _is_plain(graph: ProgramGraph, group: Group) -> bool:
    """Whether a group is nothing but sums of floats over a large space, and perhaps maps of their results."""
    if group.kind != "reduce" or not group.inner or prod(group.extents) < SMALLEST_SPACE:
        return False
    sums = [atom for atom, _ in group.atoms if atom.kind == "reduce"]
    results = prod(group.extents[k] for k in range(len(group.extents)) if k not in group.inner)
    if not sums or len(sums) * results > prod(group.extents) // FEWEST_ROWS:
        return False
    dtypes = (float32, float64)
    return all(
        outer_level or (atom.op == "add" and graph.specs[atom.number].dtype in dtypes)
        for atom, outer_level in group.atoms
    )


def _share(graph: ProgramGraph, rows: Group, columns: Group) -> bool:
    """Whether ``rows`` reads all the large arrays that ``columns`` reads, each contiguous along the last axis."""
    space = prod(columns.extents)
    touched = rows.reads | rows.places.keys() | columns.places.keys()
    if prod(rows.extents) != space or touched & graph.orders.keys():
        return False
    large = {number for number in columns.reads if 2 * graph.specs[number].size > space}
    if not large or not large <= rows.reads:
        return False
    for group in (rows, columns):
        for x in (x for atom, _ in group.atoms for x in atom.loads() if x.value in large):
            affine = as_affine(x.args[0])
            if affine is None or dict(affine.coefficients).get(len(group.extents) - 1) != 1:
                return False
    return True


def _independent(groups: list[Group], rows: Group, columns: Group) -> bool:
    """Whether neither group needs the other one, directly or not."""
    if rows.before >> columns.index & 1 or columns.before >> rows.index & 1:
        return False
    return not any(columns.before >> g.index & 1 and g.before >> rows.index & 1 for g in groups)


def _join(graph: ProgramGraph, groups: list[Group], rows: Group, columns: Group) -> bool:
    """Lay the rows' axes over those of the columns, if they fit, and move the sums."""
    assert rows.inner is not None and columns.inner is not None
    inner = len(rows.inner)
    outer = len(columns.extents) - inner  # axes that are not those of a row
    if outer <= 0 or rows.inner != frozenset(range(len(rows.extents) - inner, len(rows.extents))):
        return False
    first = [atom for atom, _ in columns.atoms if atom.kind == "reduce"]
    second: list[Atom] = []
    whole = columns.inner == frozenset(range(outer))
    length = prod(columns.extents[k] for k in columns.inner) // (
        max(parts_of(columns.extents[0]), 1) if whole else 1
    )
    sums = len(first) + sum(atom.kind == "column" for atom, _ in rows.atoms)
    row = prod(columns.extents[outer:])
    if row < FEWEST_COLUMNS or row * sums > MOST_COLUMNS or not FEWEST_ROWS <= length <= MOST_ROWS:
        return False
    if whole:
        pairs = [fold_in_parts(graph, atom, 0, parts_of(atom.extents[0])) for atom in first]
        first, second = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    space = first[0]
    if not _fits(rows, space):
        return False
    _lay_over(rows, space)
    rows.serial = tuple(sorted(space.inner))
    for atom in first:
        assert atom.place is not None
        rows.atoms.append((replace(atom, kind="column", inner=frozenset()), False))
        rows.places[atom.number] = atom.place
        rows.reads |= atom.reads()
    rows.operations += columns.operations
    rows.before |= columns.before
    if whole:
        _fold_parts(columns, second, outer)
        columns.before |= 1 << rows.index
    else:
        _clear(columns)
    _update(groups, rows, columns)
    return True


def _fits(rows: Group, space: Atom) -> bool:
    """Whether the space of a partial sum is that of the rows, with one axis in two at most, and its serial axes are the last."""
    assert rows.inner is not None
    if rows.serial:
        return rows.extents == space.extents and rows.serial == tuple(sorted(space.inner))
    cut = _cut(rows.extents, space.extents)
    if cut is None or cut in rows.inner:
        return False
    outer = len(space.extents) - len(rows.inner)
    parallel = outer - len(space.inner)
    return parallel > 0 and space.inner == frozenset(range(parallel, outer))


def _cut(extents: Sequence[int], finer: Sequence[int]) -> int | None:
    """The axis of ``extents`` that is two axes of ``finer``; -1 if there is none, ``None`` if they are different spaces."""
    if tuple(extents) == tuple(finer):
        return -1
    if len(finer) != len(extents) + 1:
        return None
    for k, n in enumerate(extents):
        if finer[k] != n:
            split = finer[k] * finer[k + 1] == n and tuple(finer[k + 2 :]) == tuple(extents[k + 1 :])
            return k if split else None
    return None


def _lay_over(rows: Group, space: Atom) -> None:
    """Renumber the axes of a group whose axis ``cut`` becomes two."""
    cut = _cut(rows.extents, space.extents)
    assert cut is not None and rows.inner is not None
    if cut < 0:
        return
    chunk = space.extents[cut + 1]

    def substitute(x: Expr) -> Expr | None:
        if x.op != "axis" or x.value < cut:
            return None
        if x.value == cut:
            return add(mul(axis(cut), const(chunk)), axis(cut + 1))
        return axis(x.value + 1)

    memo: dict[Expr, Expr] = {}

    def moved(place: Expr) -> Expr:
        fresh = rewrite(place, substitute, memo)
        affine = as_affine(fresh)
        return fresh if affine is None else expression(affine)

    rows.extents = space.extents
    rows.inner = frozenset(k + 1 for k in rows.inner)
    for position, (atom, outer_level) in enumerate(rows.atoms):
        assert atom.expr is not None
        place = moved(atom.place) if atom.place is not None else None
        fresh = replace(atom, expr=canonical_loads(rewrite(atom.expr, substitute, memo)), place=place)
        rows.atoms[position] = (fresh, outer_level)
        if place is not None:
            rows.places[atom.number] = place


def _fold_parts(columns: Group, sums: list[Atom], outer: int) -> None:
    """Let the group add up partial results; maps of the sums stay with it."""
    by_number = {atom.number: atom for atom in sums}
    rename = {axis(outer + k): axis(1 + k) for k in range(len(columns.extents) - outer)}
    for position, (atom, outer_level) in enumerate(columns.atoms):
        fresh = by_number.get(atom.number)
        if fresh is None:
            assert atom.expr is not None and atom.place is not None
            fresh = replace(atom, expr=rewrite(atom.expr, rename.get), place=rewrite(atom.place, rename.get))
        assert fresh.place is not None
        columns.atoms[position] = (fresh, outer_level)
        columns.places[atom.number] = fresh.place
    columns.extents = sums[0].extents
    columns.inner = sums[0].inner
    columns.reads = {number for atom, _ in columns.atoms for number in atom.reads()}


def _gather(groups: list[Group], rows: Group) -> None:
    """Let one group fold all the partial results of ``rows``."""
    folds = [
        g
        for g in groups
        if g.kind == "reduce" and g.reads and g.reads <= rows.places.keys() and g is not rows
    ]
    for number, group in enumerate(folds):
        for target in folds[:number]:
            same = target.extents == group.extents and target.inner == group.inner and target.kind == "reduce"
            if not same or not _independent(groups, target, group) or not _independent(groups, group, target):
                continue
            target.atoms += group.atoms
            target.places |= group.places
            target.reads |= group.reads
            target.operations += group.operations
            target.before |= group.before
            _clear(group)
            _update(groups, target, group)
            break


def _clear(group: Group) -> None:
    group.atoms.clear()
    group.places.clear()
    group.reads.clear()
    group.kind = "empty"


def _update(groups: list[Group], rows: Group, columns: Group) -> None:
    """What runs after the columns runs after the rows too, and what runs after the rows after all that they need now."""
    empty = columns.kind == "empty"
    for group in groups:
        if group is not rows and group is not columns and group.before >> columns.index & 1:
            group.before |= 1 << rows.index
            if empty:
                group.before &= ~(1 << columns.index)
    columns.before |= 0 if empty else rows.before
    for group in groups:
        if group is not rows and group.before >> rows.index & 1:
            group.before |= rows.before
