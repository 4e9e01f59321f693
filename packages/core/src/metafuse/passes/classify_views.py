"""Views of a contraction, dimension by dimension: what ``classify`` decides on.

What it is: the axes of a match sorted into roles, and every place of an operand told apart as *plain* (one axis, read at a
stride) or as a *window* (what a convolution reads: several axes, an offset, a division).
What it is not: the decision what the contraction is.
Who calls it: ``classify`` and ``classify_convolution``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..backend.library import Operand
from ..dtypes import DType
from .contraction import Match, Place, View

__all__ = ["Roles", "Side", "Window", "joined", "operand", "roles_of", "side_of"]


@dataclass(frozen=True)
class Roles:
    """Axes of a match by where they occur; any of the lists may be empty.

    ``batch``: in both operands and the result; ``first``, ``second``: in that operand and the result; ``summed``: in both
    operands only."""

    batch: tuple[int, ...]
    first: tuple[int, ...]
    second: tuple[int, ...]
    summed: tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """A place that no stride alone describes: ``(a * outer + b * inner + constant) / divisor`` along dimension ``dim``.

    ``outer`` is an axis of the result, ``inner`` a summed one; ``None`` where there is none (its extent is 1)."""

    dim: int
    extent: int
    stride: int
    outer: int | None
    a: int
    inner: int | None
    b: int
    constant: int
    divisor: int | None

    @property
    def kind(self) -> str:
        """``gather``: reads ``o * stride + k * dilation - padding``, as an image is read; ``solved``: reads
        ``(h + padding - k * dilation) / stride``, as what is spread over an image is; ``either``; ``""``: neither."""
        if self.divisor is None and (self.a, self.b, self.constant) == (1, 0, 0):
            return "either"
        if self.divisor is None and self.a >= 0 and self.b >= 0 and self.constant <= 0:
            return "gather"
        return "solved" if self.a in (0, 1) and self.b <= 0 and self.constant >= 0 else ""


@dataclass(frozen=True)
class Side:
    """One operand. ``strides`` and ``dims``: of every axis that is plain in it; ``guarded``: some place of it is checked."""

    dtype: DType
    rank: int
    dims: dict[int, int]
    strides: dict[int, int]
    windows: tuple[Window, ...]
    guarded: bool

    def plain(self, axes: Sequence[int]) -> list[int]:
        """Those of ``axes`` that are plain here, in the order of the dimensions."""
        return sorted((x for x in axes if x in self.dims), key=self.dims.__getitem__)


def roles_of(match: Match) -> Roles | None:
    """The roles of the axes, or ``None`` if some axis is summed in one operand only or in neither of them."""
    in_a, in_b = match.a.axes, match.b.axes
    lists: tuple[list[int], ...] = ([], [], [], [])
    for x in range(len(match.extents)):
        both, outer = x in in_a and x in in_b, x < match.outer
        if not both and (not outer or (x not in in_a and x not in in_b)):
            return None
        lists[(0 if outer else 3) if both else (1 if x in in_a else 2)].append(x)
    return Roles(*map(tuple, lists))


def side_of(view: View, dtype: DType, strides: Sequence[int], match: Match) -> Side | None:
    """The operand's dimensions; ``None`` where an axis occurs twice or a place is neither plain nor a window."""
    dims: dict[int, int] = {}
    steps: dict[int, int] = {}
    windows: list[Window] = []
    seen: set[int] = set()
    for dim, (place, stride) in enumerate(zip(view.places, strides, strict=True)):
        axes = [k for k, _ in place.affine.coefficients]
        if seen.intersection(axes):
            return None
        seen.update(axes)
        found = _place(place, dim, stride, match)
        if isinstance(found, Window):
            if not found.kind:
                return None
            windows.append(found)
        elif found is None:
            return None
        elif axes:
            dims[axes[0]], steps[axes[0]] = dim, found
    guarded = any(p.guarded for p in view.places)
    return Side(dtype, len(view.places), dims, steps, tuple(windows), guarded)


def _place(place: Place, dim: int, stride: int, match: Match) -> Window | int | None:
    """A stride, a window, or ``None``."""
    terms, constant = place.affine.coefficients, place.affine.constant
    inside = place.divisor is None and (not place.guarded or _surely_inside(place, match.extents))
    if inside and constant == 0 and not terms:
        return stride
    if inside and constant == 0 and len(terms) == 1 and terms[0][1] > 0:
        # a guarded place with a stride is a window one element long: what it skips belongs to the image
        if terms[0][1] == 1 or not place.guarded:
            return stride * terms[0][1]
    if constant > 0 and place.divisor is None and all(c > 0 for _, c in terms):
        return None  # a part that starts later: no view of the whole buffer from its first element
    none: list[tuple[int | None, int]] = [(None, 0)]
    outer = [(k, c) for k, c in terms if k < match.outer] or none
    inner = [(k, c) for k, c in terms if k >= match.outer] or none
    if len(outer) > 1 or len(inner) > 1:
        return None
    return Window(dim, place.extent, stride, *outer[0], *inner[0], constant, place.divisor)


def _surely_inside(place: Place, extents: Sequence[int]) -> bool:
    low = high = place.affine.constant
    for k, c in place.affine.coefficients:
        low, high = low + min(c * (extents[k] - 1), 0), high + max(c * (extents[k] - 1), 0)
    return low >= 0 and high < place.extent


def joined(
    axes: Sequence[int], extents: Sequence[int], *maps: dict[int, int]
) -> tuple[int, tuple[int | None, ...]] | None:
    """``axes`` as one dimension, the last one fastest: its extent and its stride in each of ``maps``.

    ``None`` if the axes do not follow each other in some map. No axes: extent 1 and no strides."""
    size = 1
    for x, y in zip(axes, axes[1:], strict=False):
        if any(m[x] != m[y] * extents[y] for m in maps):
            return None
    for x in axes:
        size *= extents[x]
    return size, tuple(m[axes[-1]] if axes else None for m in maps)


def operand(dtype: DType, shape: Sequence[int], strides: Sequence[int | None]) -> Operand:
    """An operand whose dimensions of extent 1 get strides as a dense array would have them, whatever they were."""
    filled = list(strides)
    for k in range(len(shape) - 1, -1, -1):
        if shape[k] == 1:
            after = filled[k + 1] if k + 1 < len(shape) else 1
            filled[k] = (after or 0) * (shape[k + 1] if k + 1 < len(shape) else 1)
    if shape and shape[0] == 1:
        filled[0] = max(((s or 0) * n for n, s in zip(shape[1:], filled[1:], strict=True)), default=1)
    return Operand(dtype, tuple(shape), tuple(s or 0 for s in filled))
