"""Windows of an image: laid out as axes, folded, and the gradient of the extreme of each.

What it is: ``Windows`` of equal extent, ``UnequalWindows`` of adaptive pooling, ``total`` and ``extreme``.
What it is not: the pooling functions and their arguments (``pooling``, ``adaptive_pooling``).
Who calls it: those.

Small windows are laid out at once, as ``[batch, channels, *out, *kernel]``. Large ones are folded along one dimension after the
other: the first fold reads the image row by row, and leaves little for the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any

import numpy as np

from ...dtypes import accumulator
from ...errors import ArgumentError
from ...kernel.ir import IDENTITY
from ...var import wrap
from ..autograd import no_grad
from ..creation import array
from ..meta import check_flag, index, with_gradient
from ..scalar import where
from .checks import integers, window_count

__all__ = ["UnequalWindows", "Windows", "extreme", "total"]

#: windows of more elements are folded along one dimension after the other
LARGE = 16
#: the elements of smaller ones that are no tiles are read one by one, without a loop
FEW = 4


class Windows:
    """Checked windows of equal extent over ``[batch, channels, ...]``."""

    def __init__(
        self, op: str, x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
    ) -> None:
        spatial = x.ndim - 2
        self.x, self.spatial = x, spatial
        self.kernel = integers(op, "kernel_size", kernel, spatial, 1)
        self.stride = self.kernel if stride is None else integers(op, "stride", stride, spatial, 1)
        self.padding = integers(op, "padding", padding, spatial, 0)
        self.dilation = (1,) * spatial if dilation is None else integers(op, "dilation", dilation, spatial, 1)
        if any(
            2 * p > d * (k - 1) + 1 for p, k, d in zip(self.padding, self.kernel, self.dilation, strict=True)
        ):
            raise ArgumentError(
                f"[{op}] padding must be at most half of the window, got padding {self.padding} "
                f"with kernel_size {self.kernel} and dilation {self.dilation}"
            )
        self.size = tuple(x.shape[2:])
        self.ceil_mode = check_flag(op, "ceil_mode", ceil_mode)
        self.out = tuple(
            window_count(op, *extents, self.ceil_mode)
            for extents in zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        )
        #: whether they lie side by side and cover the image: then laying them out is a reshape
        self.tiles = (
            self.kernel == self.stride
            and not any(self.padding)
            and all(d == 1 or k == 1 for d, k in zip(self.dilation, self.kernel, strict=True))
            and all(n == o * k for n, o, k in zip(self.size, self.out, self.kernel, strict=True))
        )

    @property
    def separate(self) -> bool:
        """Whether they are better folded along one dimension after the other."""
        whole = self.tiles and all(o == 1 for o in self.out)
        return self.spatial > 1 and prod(self.kernel) > LARGE and not whole

    def _place(self, d: int, outer: int, inner: int) -> str:
        """Where along dimension ``d`` the element is, from the axes of windows and of elements in them."""
        return f"i{outer}*{self.stride[d]}-{self.padding[d]}+i{inner}*{self.dilation[d]}"

    def _beyond(self, d: int, outer: int, inner: int) -> list[str]:
        """Conditions under which an element does not belong to the window."""
        return []

    def _number(self, d: int, shape: Any, outer: int, inner: int) -> Any:
        """``_place`` as a Var."""
        place = index(shape, outer) * self.stride[d] - self.padding[d]
        return self._kept(d, place + index(shape, inner) * self.dilation[d])

    def _kept(self, d: int, place: Any) -> Any:
        """Instead of a place outside of the image the border, which is in the window too: an infinite element may equal what is
        outside."""
        return place.maximum(0).minimum(self.size[d] - 1) if self.padding[d] or self.ceil_mode else place

    def view(self, outside: float | int) -> tuple[Any, list[int], list[int]]:
        """All windows with ``outside`` where one sticks out; their axes, and those of the elements in them."""
        n, spatial = list(self.x.shape[:2]), range(self.spatial)
        if self.tiles:
            pairs = [n for pair in zip(self.out, self.kernel, strict=True) for n in pair]
            return self.x.reshape([*n, *pairs]), [2 + 2 * d for d in spatial], [3 + 2 * d for d in spatial]
        outer, inner = [2 + d for d in spatial], [2 + self.spatial + d for d in spatial]
        places = [self._place(d, outer[d], inner[d]) for d in spatial]
        beyond = [test for d in spatial for test in self._beyond(d, outer[d], inner[d])]
        view = self.x.reindex([*n, *self.out, *self.kernel], ["i0", "i1", *places], outside, beyond)
        return view, outer, inner

    def along(self, x: Any, d: int, outside: float | int) -> Any:
        """The windows of dimension ``d`` of ``x``, which is folded along earlier ones, as dimensions ``2 + d`` and ``3 + d``."""
        at = 2 + d
        shape = [*x.shape[:at], self.out[d], self.kernel[d], *x.shape[at + 1 :]]
        if self.tiles:
            return x.reshape(shape)
        places = [f"i{k + (k > at)}" for k in range(x.ndim)]
        places[at] = self._place(d, at, at + 1)
        return x.reindex(shape, places, outside, self._beyond(d, at, at + 1))

    def summed(self, x: Any, d: int) -> Any:
        """The sums of the windows of dimension ``d`` of ``x``, which is folded along earlier ones."""
        return self.along(x, d, 0).sum(3 + d)

    def elements(self, outside: float | int) -> Iterator[tuple[Any, Any]]:
        """Element number 0, 1 ... of every window, and where in its channel it is."""
        shape = [*self.x.shape[:2], *self.out]
        for inside in product(*map(range, self.kernel)):
            places, flat = ["i0", "i1"], None
            for d, k in enumerate(inside):
                by = k * self.dilation[d] - self.padding[d]
                places.append(f"i{2 + d}*{self.stride[d]}+{by}")
                place = self._kept(d, index(shape, 2 + d) * self.stride[d] + by)
                flat = place if flat is None else flat * self.size[d] + place
            yield self.x.reindex(shape, places, outside), flat

    def numbers(self, shape: Any, outer: list[int], inner: list[int]) -> Any:
        """Where in a channel, counted row by row, each element of ``view`` is."""
        flat = None
        for d, axes in enumerate(zip(outer, inner, strict=True)):
            place = self._number(d, shape, *axes)
            flat = place if flat is None else flat * self.size[d] + place
        return flat


class UnequalWindows(Windows):
    """Windows ``floor(i*size/out) <= j < ceil((i+1)*size/out)``; ``kernel`` are the extents of the longest."""

    def __init__(self, x: Any, out: tuple[int, ...]) -> None:
        self.x, self.spatial, self.size, self.out = x, x.ndim - 2, tuple(x.shape[2:]), out
        self.tiles = False
        self.starts = [np.arange(o) * s // o for s, o in zip(self.size, out, strict=True)]
        self.kernel = tuple(int(counts.max()) for counts in self.counts())

    def counts(self) -> list[np.ndarray[Any, Any]]:
        """Along each dimension, how many elements each window has."""
        return [
            -(-np.arange(1, o + 1) * s // o) - start
            for s, o, start in zip(self.size, self.out, self.starts, strict=True)
        ]

    def _place(self, d: int, outer: int, inner: int) -> str:
        return f"i{outer}*{self.size[d]}/{self.out[d]}+i{inner}"

    def _beyond(self, d: int, outer: int, inner: int) -> list[str]:
        size, out = self.size[d], self.out[d]
        return [f"{self._place(d, outer, inner)} >= ((i{outer}+1)*{size}+{out - 1})/{out}"]

    def summed(self, x: Any, d: int) -> Any:
        """What all windows have is added up without a condition; they differ by few elements."""
        at = 2 + d
        before, after = x.shape[:at], x.shape[at + 1 :]
        common = int(self.counts()[d].min())
        places = [f"i{k + (k > at)}" for k in range(x.ndim)]
        places[at] = self._place(d, at, at + 1)
        y = x.reindex([*before, self.out[d], common, *after], places).sum(at + 1)
        for number in range(common, self.kernel[d]):
            places = [f"i{k}" for k in range(x.ndim)]
            places[at], size, out = f"i{at}*{self.size[d]}/{self.out[d]}+{number}", self.size[d], self.out[d]
            last = f"((i{at}+1)*{size}+{out - 1})/{out}"
            y = y + x.reindex([*before, out, *after], places, 0, [f"{places[at]} >= {last}"])
        return y

    def _number(self, d: int, shape: Any, outer: int, inner: int) -> Any:
        starts = array(self.starts[d].astype(np.int32)).reshape([-1] + [1] * (len(shape) - outer - 1))
        return (starts + index(shape, inner)).minimum(self.size[d] - 1)


def total(windows: Windows) -> Any:
    """The sum of each window; what is outside counts nothing."""
    if not windows.separate:
        view, _, axes = windows.view(0)
        return view.sum(axes)
    summed = windows.x.cast(accumulator(windows.x.dtype))
    for d in range(windows.spatial):
        summed = windows.summed(summed, d)
    return summed.cast(windows.x.dtype)


def extreme(windows: Windows, op: str) -> tuple[Any, Any]:
    """The maximum or minimum of each window, and where in its channel, counted row by row, the first element is that equals it
    (or is NaN).

    Only that element gets the gradient, however many are equal: images have flat regions, where it would count several times.
    """
    x, outside = windows.x, IDENTITY(op, windows.x.dtype)
    view, outer, inner = windows.view(outside)
    first: Any = None
    with no_grad():
        if windows.separate:  # of equals in a column the upper one, of these the first
            result = x
            for d in range(windows.spatial):
                part = windows.along(result, d, outside)
                place = windows._number(d, part.shape, 2 + d, 3 + d)
                if first is not None:
                    place = windows.along(first, d, 0) * windows.size[d] + place
                result, first = _first(part, op, [3 + d], place)
        elif type(windows) is Windows and not windows.tiles and prod(windows.kernel) <= FEW:
            result, first = _one_by_one(windows, op, outside)
        else:
            result, first = _first(view, op, inner, windows.numbers(view.shape, outer, inner))
    if not x.dtype.is_float:
        return result, first
    if windows.tiles:
        return with_gradient(result, [view, first], op, (tuple(outer), tuple(inner)), _tiles_gradient), first
    return with_gradient(result, [x, first], op, None, _places_gradient), first


def _first(windows: Any, op: str, axes: list[int], numbers: Any) -> tuple[Any, Any]:
    """The extreme over ``axes`` and the lowest of the ``numbers`` of elements that are it."""
    result = windows.max(axes) if op == "maximum" else windows.min(axes)
    same = windows == result.broadcast(windows.shape, axes)
    if windows.dtype.is_float:
        same = same.logical_or(windows != windows)  # the result is NaN where one is
    return result, where(same, numbers, 2**31 - 1).min(axes)


def _one_by_one(windows: Windows, op: str, outside: float | int) -> tuple[Any, Any]:
    """As ``_first``, element by element."""
    elements = list(windows.elements(outside))
    result = elements[0][0]
    for value, _ in elements[1:]:
        result = result.maximum(value) if op == "maximum" else result.minimum(value)
    first: Any = None
    for value, place in reversed(elements):
        same = value == result
        if windows.x.dtype.is_float:
            same = same.logical_or(value != value)
        first = place if first is None else where(same, place, first)
    return result, first


def _tiles_gradient(node: Any, upstream: Any) -> list[Any]:
    """Every element asks whether it was the one."""
    outer, inner = node.sig.attrs
    shape, first = node.inputs[1].spec.shape, wrap(node.inputs[2])
    flat = None
    for o, i in zip(outer, inner, strict=True):
        place = index(shape, o) * shape[i] + index(shape, i)
        flat = place if flat is None else flat * (shape[o] * shape[i]) + place
    chosen = flat == first.broadcast(shape, inner)  # type: ignore[attr-defined]
    return [None, where(chosen, upstream.broadcast(shape, inner), 0.0), None]


def _places_gradient(node: Any, upstream: Any) -> list[Any]:
    """Added up where the elements came from: far fewer than all windows' elements."""
    shape, places = node.inputs[1].spec.shape, wrap(node.inputs[2])
    here = ",".join(f"i{k}" for k in range(upstream.ndim))
    flat = [shape[0], shape[1], prod(shape[2:])]
    found = upstream.reindex_reduce("add", flat, ["i0", "i1", f"@e0({here})"], [], [places])
    return [None, found.reshape(list(shape)), None]
