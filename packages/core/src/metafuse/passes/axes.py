"""Fewer axes: neighbours that every access runs through as if they were one become one.

What it is: ``Draft``, a stage whose expressions still hold numbers, and ``merge_axes``.
What it is not: the order of axes, nor the numbers' way to run-time sizes (``lower``).
Who calls it: ``lower``.

Rows of merged axes are long, and loops over them have no short ends. An offset need not be affine for that: what it does
with other axes (the channels of a shuffle, say) is none of these two's business.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from ..index.simplify import affine_part
from ..kernel.expr import Expr, add, axis, rewrite, walk
from .affine import Affine, expression

__all__ = ["Draft", "merge_axes", "walk_outside_loads"]


@dataclass
class Draft:
    """A stage whose expressions still hold constants and the group's axis numbers."""

    kind: str
    level: str
    expr: Expr
    phase: int
    op: str = ""
    result: int = -1
    value: int = -1
    place: Expr | None = None
    condition: Expr | None = None


def merge_axes(
    drafts: Sequence[Draft], extents: list[int], outer: int, serial: int
) -> tuple[list[int], int, int]:
    """Merge what can be merged, in place. ``outer``, ``serial``: how many axes are; both and the extents as they are then."""
    k = 0
    while k + 1 < len(extents):
        crosses = k + 1 in (outer - serial, outer)
        if not crosses and _mergeable(drafts, k, extents[k + 1]):
            _merge(drafts, k)
            extents = [*extents[:k], extents[k] * extents[k + 1], *extents[k + 2 :]]
            serial -= outer - serial <= k < outer
            outer -= k + 1 < outer
        else:
            k += 1
    return extents, outer, serial


def _offsets(drafts: Sequence[Draft]) -> list[Expr]:
    """Every offset of the stages."""
    found: list[Expr] = []
    for draft in drafts:
        for root in (draft.expr, draft.condition):
            if root is not None:
                found.extend(x.args[0] for x in walk(root) if x.op == "load")
        if draft.place is not None:
            found.append(draft.place)
    return found


def _mergeable(drafts: Sequence[Draft], k: int, extent: int) -> bool:
    for place in _offsets(drafts):
        affine, rest = affine_part(place)
        coefficients = dict(affine.coefficients)
        if coefficients.get(k, 0) != coefficients.get(k + 1, 0) * extent:
            return False
        if any(x.op == "axis" and x.value in (k, k + 1) for x in walk(rest)):
            return False
    return not any(_uses_outside_offsets(draft, k) for draft in drafts)


def _uses_outside_offsets(draft: Draft, k: int) -> bool:
    """Whether axis ``k`` or ``k + 1`` is read as a number, not as an address."""
    pair = (axis(k), axis(k + 1))
    for root in (draft.expr, draft.condition):
        if root is None:
            continue
        stack = [root]
        seen = set()
        while stack:
            x = stack.pop()
            if x in seen:
                continue
            seen.add(x)
            if x in pair:
                return True
            stack.extend(x.args[1:] if x.op == "load" else x.args)
    return False


def _merge(drafts: Sequence[Draft], k: int) -> None:
    """Axis ``k`` and ``k + 1`` become axis ``k``; later axes move down."""

    def offset_of(place: Expr) -> Expr:
        affine, rest = affine_part(place)
        merged = [  # the coefficient of k is implied by that of k + 1
            (x - 1 if x > k else x, c) for x, c in affine.coefficients if x != k
        ]
        return add(expression(Affine(tuple(sorted(merged)), affine.constant)), rewrite(rest, shift))

    def shift(x: Expr) -> Expr | None:
        return axis(x.value - 1) if x.op == "axis" and x.value > k else None

    for draft in drafts:
        draft.expr = _rewrite_loads(draft.expr, offset_of, shift)
        if draft.condition is not None:
            draft.condition = _rewrite_loads(draft.condition, offset_of, shift)
        if draft.place is not None:
            draft.place = offset_of(draft.place)


def _rewrite_loads(
    root: Expr, offset_of: Callable[[Expr], Expr], shift: Callable[[Expr], Expr | None]
) -> Expr:
    """Apply ``offset_of`` to the offsets of loads and ``shift`` to axes everywhere else. A load's condition is no offset, but may
    load by itself (an index that is data, say)."""
    memo: dict[Expr, Expr] = {}
    stack: list[tuple[Expr, bool]] = [(root, False)]
    while stack:
        x, ready = stack.pop()
        if x in memo:
            continue
        operands = x.args[1:] if x.op == "load" else x.args
        if operands and not ready:
            stack.append((x, True))
            stack.extend((a, False) for a in operands)
            continue
        done = tuple(memo[a] for a in operands)
        args = (offset_of(x.args[0]), *done) if x.op == "load" else done
        fresh = x if args == x.args else Expr(x.op, args, x.dtype, x.value)
        memo[x] = shift(fresh) or fresh
    return memo[root]


def walk_outside_loads(root: Expr, known: Container[Expr] = ()) -> list[Expr]:
    """Operands before users, not descending into loads, nor into what is ``known``."""
    done: dict[Expr, None] = {}
    stack: list[tuple[Expr, bool]] = [(root, False)]
    while stack:
        x, ready = stack.pop()
        if x in done or x in known:
            continue
        if ready or x.op == "load" or not x.args:
            done[x] = None
        else:
            stack.append((x, True))
            stack.extend((a, False) for a in reversed(x.args))
    return list(done)
