"""Classify: which library operation a recognised contraction is.

What it is: reads a ``Match`` axis by axis and says the same as a ``LibraryOp``: a matrix product, a convolution or one of a
convolution's gradients, with every operand as a strided view, whatever its layout in memory.
What it is not: the decision to use a library (``passes.library`` asks the backend), nor what follows the contraction.
Who calls it: ``passes.library``, once per match and layout.

A contraction often reads in several ways. A forward convolution is, index by index, also the gradient with respect to a
weight (batch and channels change places, and so do stride and dilation); ``A B`` is also ``(B^T A^T)^T``. All readings
are right. The one that people mean is told from the order of the operands' dimensions: batch, channels, then space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from ..backend.library import LibraryOp
from ..graph.node import Spec
from .classify_convolution import gathered, looks_like_image, solved
from .classify_views import Roles, Side, joined, operand, roles_of, side_of
from .contraction import Match

__all__ = ["Classified", "classify"]


@dataclass(frozen=True)
class Classified:
    """A contraction as a library operation.

    ``swapped``: the first operand of ``op`` is the match's ``b``. ``result_axes``: per dimension of the result the match's
    outer axes that it consists of, the fastest last (none where the extent is 1)."""

    op: LibraryOp
    swapped: bool
    result_axes: tuple[tuple[int, ...], ...]

    @property
    def channel_axes(self) -> tuple[int, ...]:
        """Outer axes of the output channels (groups first): columns of a matrix product, channels of a convolution's
        result, the first dimension of a weight's gradient."""
        kind = self.op.kind
        return self.result_axes[{"matmul": -1, "convolution_weight": 0}.get(kind, 1)]

    @property
    def channel_axis(self) -> int | None:
        """The one axis of the output channels, or ``None`` if there are several or there is none."""
        return self.channel_axes[0] if len(self.channel_axes) == 1 else None


def classify(
    match: Match,
    specs: Callable[[int], Spec],
    strides: Callable[[int], tuple[int, ...]],
    result_strides: Sequence[int],
) -> Classified | None:
    """``match`` as a library operation, or ``None`` if it is none.

    Args:
        match: what ``find_contractions`` or ``find_thin_contractions`` found.
        specs: shape and dtype of a value by number; asked for the sources of both views, which may be aliases.
        strides: element strides of a value by number, one per dimension of its shape.
        result_strides: element strides of the result, one per outer axis of the match.
    """
    roles = roles_of(match)
    if roles is None or not roles.summed or 0 in match.extents:
        return None
    a, b = (side_of(v, specs(v.source).dtype, strides(v.source), match) for v in (match.a, match.b))
    if a is None or b is None or a.dtype is not b.dtype:
        return None
    result = dict(enumerate(result_strides))
    kinds = {w.kind for side in (a, b) for w in side.windows}
    if "solved" in kinds:
        return None if "gather" in kinds else _solved(match, roles, a, b, result)
    if kinds:
        return None if a.windows and b.windows else _gathered(match, roles, a, b, result, bool(b.windows))
    images = [looks_like_image(roles, a, b), looks_like_image(_flipped(roles), b, a)]
    swaps = [swapped for swapped in (False, True) if images[swapped]]
    for swapped in swaps:
        found = _gathered(match, roles, a, b, result, swapped)
        if found is not None:
            return found
    found = _matmul(match, roles, a, b, result)
    if found is not None:
        return found
    # summed axes that do not follow each other in memory: a window as large as the image, or of one element
    return _first([_gathered(match, roles, a, b, result, swapped) for swapped in (False, True)])


def _first(found: list[Classified | None]) -> Classified | None:
    return next((f for f in found if f is not None), None)


def _flipped(roles: Roles) -> Roles:
    return Roles(roles.batch, roles.second, roles.first, roles.summed)


def _gathered(
    match: Match, roles: Roles, a: Side, b: Side, result: dict[int, int], swapped: bool
) -> Classified | None:
    """A forward convolution or a weight's gradient whose image is ``a`` (``b`` if ``swapped``)."""
    if swapped:
        a, b, roles = b, a, _flipped(roles)
    found = gathered(match.extents, roles, a, b, result)
    return None if found is None else Classified(found[0], swapped, found[1])


def _solved(match: Match, roles: Roles, a: Side, b: Side, result: dict[int, int]) -> Classified | None:
    """An image's gradient."""
    found = solved(match.extents, roles, a, b, result)
    return None if found is None else Classified(found[0], found[1], found[2])


# -- matrix products --------------------------------------------------------------------------------------------------
def _matmul(match: Match, roles: Roles, a: Side, b: Side, result: dict[int, int]) -> Classified | None:
    """Rows from one operand and columns from the other; the result's rows are the ones that lie dense, if any do."""
    summed = joined(_by_stride(roles.summed, a.strides), match.extents, a.strides, b.strides)
    if summed is None:
        return None
    rows = _parts(roles.first, match.extents, result, a.strides)
    columns = _parts(roles.second, match.extents, result, b.strides)
    swapped = _nearest(roles.first, result) < _nearest(roles.second, result)
    if swapped:
        a, b, rows, columns = b, a, columns, rows
        summed = (summed[0], summed[1][::-1])
    m, n = _largest(rows, match.extents), _largest(columns, match.extents)
    batch = [
        (part, (True, True)) for part in _parts(roles.batch, match.extents, result, a.strides, b.strides)
    ]
    batch += [(part, (True, False)) for part in rows if part is not m]
    batch += [(part, (False, True)) for part in columns if part is not n]
    batch.sort(key=lambda item: -result[item[0][-1]])

    def view(
        side: Side, number: int, tail: list[tuple[int, int | None]]
    ) -> tuple[list[int], list[int | None]]:
        dims: list[tuple[int, int | None]] = [
            (_size(part, match.extents), side.strides[part[-1]]) if used[number] else (1, 0)
            for part, used in batch
        ]
        return [d[0] for d in dims + tail], [d[1] for d in dims + tail]

    def edge(part: Sequence[int], strides: dict[int, int]) -> tuple[int, int | None]:
        return _size(part, match.extents), strides[part[-1]] if part else None

    k = summed[0]
    first = view(a, 0, [edge(m, a.strides), (k, summed[1][0])])
    second = view(b, 1, [(k, summed[1][1]), edge(n, b.strides)])
    out = [edge(part, result) for part, _ in batch] + [edge(m, result), edge(n, result)]
    op = LibraryOp("matmul", operand(a.dtype, *first), operand(b.dtype, *second),
                   operand(a.dtype, [d[0] for d in out], [d[1] for d in out]))  # fmt: skip
    axes = (*(tuple(part) for part, _ in batch), tuple(m), tuple(n))
    return Classified(op, swapped, axes)


def _by_stride(axes: Sequence[int], strides: dict[int, int]) -> list[int]:
    return sorted(axes, key=lambda x: -strides[x])


def _size(part: Sequence[int], extents: Sequence[int]) -> int:
    return prod(extents[x] for x in part)


def _parts(
    axes: Sequence[int], extents: Sequence[int], first: dict[int, int], *others: dict[int, int]
) -> list[list[int]]:
    """``axes`` in as few dimensions as possible: neighbours that follow each other in every map become one."""
    parts: list[list[int]] = []
    for x in _by_stride(axes, first):
        if parts and joined([parts[-1][-1], x], extents, first, *others) is not None:
            parts[-1].append(x)
        else:
            parts.append([x])
    return parts


def _nearest(axes: Sequence[int], result: dict[int, int]) -> float:
    """The smallest step in the result that one of ``axes`` makes."""
    return min((result[x] for x in axes), default=float("inf"))


def _largest(parts: list[list[int]], extents: Sequence[int]) -> list[int]:
    """The part that becomes rows or columns: the longest, and of equals the fastest; the others are batches."""
    return max(reversed(parts), key=lambda part: _size(part, extents), default=[])
