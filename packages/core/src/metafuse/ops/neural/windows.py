"""Windows of an image: laid out as axes and folded.

What it is: ``Windows`` of equal extent, ``EqualWindows`` and ``UnequalWindows`` of adaptive pooling, ``total`` and ``extreme``.
What it is not: the pooling functions and their arguments (``pooling``, ``adaptive_pooling``), nor the gradients
(``window_gradients``).
Who calls it: those functions.

Small windows are laid out at once, as ``[batch, channels, *out, *kernel]``. Large ones are folded along one dimension after the
other: the first fold reads the image row by row, and leaves little for the next.

Every element is asked whether it is inside of the image, also where all of them are: so the same kernels serve windows that
cover the image and windows that stick out or leave a rest, whatever the sizes. A backend asks once per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from ...dtypes import DType, accumulator, bool_
from ...errors import ArgumentError
from ...graph.index_map import IndexMap
from ...graph.node import state
from ...kernel.expr import Expr, add, axis, call, const, mul
from ...kernel.ir import IDENTITY
from ..autograd import no_grad
from ..creation import array
from ..meta import check_flag, fill, gather, index, with_gradient
from ..scalar import where
from .checks import integers, window_count
from .window_gradients import Geometry, chosen, chosen_of_tiles, scattered, spread

__all__ = ["EqualWindows", "UnequalWindows", "Windows", "extreme", "total"]

#: when an element is outside: expressions, of which one holds
Tests = tuple[Expr, ...]

#: windows of more elements are folded along one dimension after the other
LARGE = 16
#: Added to both sides of comparisons: numbers of at least 2 are run-time sizes of a kernel, 0 and 1 are part of it.
SHIFT = 2


class Windows:
    """Checked windows of equal extent over ``[batch, channels, ...]``."""

    #: Whether they are known to lie side by side and to cover the image: then laying them out is a reshape. They do so by chance
    #: as well; that is not looked at, or another size of image would need other kernels.
    tiles = False

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
        if self.kernel == self.size and not any(self.padding) and all(d == 1 for d in self.dilation):
            self.tiles = True  # of one window, which is the image

    @property
    def geometry(self) -> Geometry:
        """What a gradient has to know."""
        return Geometry(self.kernel, self.stride, self.padding, self.dilation, self.out)

    @property
    def separate(self) -> bool:
        """Whether they are better folded along one dimension after the other."""
        whole = self.tiles and all(o == 1 for o in self.out)
        return self.spatial > 1 and prod(self.kernel) > LARGE and not whole

    def _place(self, d: int, outer: int, inner: int) -> tuple[Expr, Tests]:
        """Where along dimension ``d`` the element is, from the axes of windows and of elements in them; when it is outside."""
        return _place(
            self.kernel[d], self.stride[d], self.padding[d], self.dilation[d], self.size[d], outer, inner
        )

    def _number(self, d: int, shape: Any, outer: int, inner: int) -> Any:
        """``_place`` as a Var."""
        place = index(shape, outer) * self.stride[d] - self.padding[d]
        return place + index(shape, inner) * self.dilation[d]

    def view(self, outside: float | int) -> tuple[Any, Tests, list[int], list[int]]:
        """All windows with ``outside`` where one sticks out; where that is; their axes, and those of the elements in them."""
        n, spatial = list(self.x.shape[:2]), range(self.spatial)
        if self.tiles:
            pairs = [n for pair in zip(self.out, self.kernel, strict=True) for n in pair]
            return (
                self.x.reshape([*n, *pairs]),
                (),
                [2 + 2 * d for d in spatial],
                [3 + 2 * d for d in spatial],
            )
        outer, inner = [2 + d for d in spatial], [2 + self.spatial + d for d in spatial]
        found = [self._place(d, outer[d], inner[d]) for d in spatial]
        places = (axis(0), axis(1), *(place for place, _ in found))
        tests = tuple(test for _, several in found for test in several)
        return _taken(self.x, (*n, *self.out, *self.kernel), places, tests, outside), tests, outer, inner

    def along(self, x: Any, d: int, outside: float | int) -> tuple[Any, Tests]:
        """The windows of dimension ``d`` of ``x``, which is folded along earlier ones, as dimensions ``2 + d`` and ``3 + d``, and
        where they stick out."""
        at = 2 + d
        shape = (*x.shape[:at], self.out[d], self.kernel[d], *x.shape[at + 1 :])
        if self.tiles:
            return x.reshape(shape), ()
        places = [axis(k + (k > at)) for k in range(x.ndim)]
        places[at], tests = self._place(d, at, at + 1)
        return _taken(x, shape, places, tests, outside), tests

    def summed(self, x: Any, d: int) -> Any:
        """The sums of the windows of dimension ``d`` of ``x``, which is folded along earlier ones."""
        return self.along(x, d, 0)[0].sum(3 + d)

    def numbers(self, shape: Any, outer: list[int], inner: list[int]) -> Any:
        """Where in a channel, counted row by row, each element of ``view`` is."""
        flat = None
        for d, axes in enumerate(zip(outer, inner, strict=True)):
            place = self._number(d, shape, *axes)
            flat = place if flat is None else flat * self.size[d] + place
        return flat


@lru_cache(maxsize=1024)
def _place(
    kernel: int, stride: int, padding: int, dilation: int, size: int, outer: int, inner: int
) -> tuple[Expr, Tests]:
    """``Windows._place``. The same expressions each time: nobody has to find out that they are equal."""
    if kernel == stride == 1:
        return axis(outer), ()
    place = add(mul(axis(outer), const(stride)), mul(axis(inner), const(dilation)))
    shifted = add(place, const(SHIFT))
    before = call("lt", shifted, const(padding + SHIFT))
    beyond = call("ge", shifted, const(size + padding + SHIFT))
    return add(place, const(-padding)), (before, beyond)


@lru_cache(maxsize=1024)
def _unequal_place(size: int, out: int, outer: int, inner: int | None, number: int = 0) -> tuple[Expr, Tests]:
    """``_place`` of unequal windows; without ``inner`` that of element ``number``."""
    start = call("cdiv", mul(axis(outer), const(size)), const(out))
    end = call("cdiv", add(mul(axis(outer), const(size)), const(size + out - 1)), const(out))
    place = add(start, const(number) if inner is None else axis(inner))
    return place, (call("ge", place, end),)


def _taken(x: Any, shape: tuple[int, ...], places: Sequence[Expr], tests: Tests, outside: float | int) -> Any:
    """The elements of ``x`` at ``places``, and ``outside`` where one of ``tests`` says that there is none."""
    return gather(x, shape, IndexMap(tuple(places), tests, False, outside), (), "windows")


class EqualWindows(Windows):
    """Windows of adaptive pooling where they are all equal: tiles."""

    tiles = True

    def __init__(self, op: str, x: Any, out: tuple[int, ...]) -> None:
        kernel = [s // o for s, o in zip(x.shape[2:], out, strict=True)]
        super().__init__(op, x, kernel, None, 0, None, False)


class UnequalWindows(Windows):
    """Windows ``floor(i*size/out) <= j < ceil((i+1)*size/out)``; ``kernel`` are the extents of the longest."""

    def __init__(self, x: Any, out: tuple[int, ...]) -> None:
        self.x, self.spatial, self.size, self.out = x, x.ndim - 2, tuple(x.shape[2:]), out
        self.starts = [np.arange(o) * s // o for s, o in zip(self.size, out, strict=True)]
        self.kernel = tuple(int(counts.max()) for counts in self.counts())

    def counts(self) -> list[np.ndarray[Any, Any]]:
        """Along each dimension, how many elements each window has."""
        return [
            -(-np.arange(1, o + 1) * s // o) - start
            for s, o, start in zip(self.size, self.out, self.starts, strict=True)
        ]

    def _place(self, d: int, outer: int, inner: int) -> tuple[Expr, Tests]:
        return _unequal_place(self.size[d], self.out[d], outer, inner)

    def summed(self, x: Any, d: int) -> Any:
        """What all windows have is added up without a condition; they differ by few elements."""
        at = 2 + d
        before, after = tuple(x.shape[:at]), tuple(x.shape[at + 1 :])
        common = int(self.counts()[d].min())
        places = [axis(k + (k > at)) for k in range(x.ndim)]
        places[at], _ = self._place(d, at, at + 1)
        shape = (*before, self.out[d], common, *after)
        y = _taken(x, shape, places, (), 0).sum(at + 1)
        for number in range(common, self.kernel[d]):
            places = [axis(k) for k in range(x.ndim)]
            places[at], tests = _unequal_place(self.size[d], self.out[d], at, None, number)
            y = y + _taken(x, (*before, self.out[d], *after), places, tests, 0)
        return y

    def _number(self, d: int, shape: Any, outer: int, inner: int) -> Any:
        starts = array(self.starts[d].astype(np.int32)).reshape([-1] + [1] * (len(shape) - outer - 1))
        return starts + index(shape, inner)


def total(windows: Windows) -> Any:
    """The sum of each window; what is outside counts nothing."""
    apart = type(windows) is Windows and not windows.tiles and windows.geometry.apart
    if not apart or not windows.x.dtype.is_float:
        return _folded(windows)
    with no_grad():
        summed = _folded(windows)
    return with_gradient(summed, [windows.x], "windows_total", windows.geometry, spread)


def _folded(windows: Windows) -> Any:
    if not windows.separate:
        view, _, _, axes = windows.view(0)
        return view.sum(axes)
    summed = windows.x.cast(accumulator(windows.x.dtype))
    for d in range(windows.spatial):
        summed = windows.summed(summed, d)
    return summed.cast(windows.x.dtype)


def extreme(windows: Windows, op: str, with_place: bool = True) -> tuple[Any, Any]:
    """The maximum or minimum of each window, and where in its channel, counted row by row, the first element is that equals it
    (or is NaN); nothing is known of that where nobody asks, ``with_place`` nor a gradient.

    Only that element gets the gradient, however many are equal: images have flat regions, where it would count several times.
    """
    x, none = windows.x, IDENTITY(op, windows.x.dtype)
    view, tests, outer, inner = windows.view(none)
    asked = with_place or (state.grad_enabled and x._node.requires_grad)
    first: Any = None
    with no_grad():
        if windows.separate:  # of equals in a column the upper one, of these the first
            result = x
            for d in range(windows.spatial):
                part, tests = windows.along(result, d, none)
                result = part.max(3 + d) if op == "maximum" else part.min(3 + d)
                if asked:
                    place = windows._number(d, part.shape, 2 + d, 3 + d)
                    if first is not None:
                        place = windows.along(first, d, 0)[0] * windows.size[d] + place
                    first = _first(part, tests, result, [3 + d], place)
        else:
            result = view.max(inner) if op == "maximum" else view.min(inner)
            if asked:
                first = _first(view, tests, result, inner, windows.numbers(view.shape, outer, inner))
    if not asked:
        return result, None
    if not x.dtype.is_float:
        return result, first
    if windows.tiles:
        return with_gradient(result, [view, first], op, (tuple(outer), tuple(inner)), chosen_of_tiles), first
    if type(windows) is Windows and windows.geometry.few:
        return with_gradient(result, [x, first], op, windows.geometry, chosen), first
    return with_gradient(result, [x, first], op, None, scattered), first


def _first(windows: Any, tests: Tests, result: Any, axes: list[int], numbers: Any) -> Any:
    """The lowest of the ``numbers`` of elements that are ``result``, the extreme over ``axes``, and in the image: an infinite one
    may equal what stands for those outside."""
    same = windows == result.broadcast(windows.shape, axes)
    if windows.dtype.is_float:
        same = same.logical_or(windows != windows)  # the result is NaN where one is
    last = IDENTITY("minimum", numbers.dtype)
    found = where(same, numbers, last)
    if tests:
        outside, beyond = (
            _outside(windows.shape, tests, kind, value)
            for kind, value in ((bool_, True), (numbers.dtype, last))
        )
        found = where(outside, beyond, found)
    return found.min(axes)


def _outside(shape: tuple[int, ...], tests: Tests, dtype: DType, value: float | int) -> Any:
    """Zeros, and ``value`` where one of ``tests`` holds; both are part of the kernel."""
    here = [axis(k) for k in range(len(shape))]
    return _taken(fill(shape, 0, dtype), shape, here, tests, value)
