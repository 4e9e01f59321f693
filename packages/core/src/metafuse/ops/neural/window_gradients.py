"""Gradients of windows of an image: every element asks the windows that it is in.

What it is: ``spread`` (of sums), ``chosen`` (of extremes), and two for windows of other kinds.
What it is not: the windows (``windows``).
Who calls it: ``windows`` hands these functions to ``with_gradient``.

An element is in few windows, and the places of these follow from its own: no two elements are ever added to at once, so that
the sums are the same on any number of threads. Like the windows themselves it is asked whether each window exists, always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

from ...dtypes import accumulator
from ...graph.index_map import IndexMap
from ...kernel.expr import Expr, add, axis, call, const
from ...var import wrap
from ..meta import by_itself, gather, index
from ..scalar import where

__all__ = ["Geometry", "chosen", "chosen_of_tiles", "scattered", "spread"]

#: called with values of windows and what stands for none
Reader = Callable[[Any, "float | int"], Any]

#: elements in more windows are not looked at window by window, but added to by windows
FEW = 9


@dataclass(frozen=True)
class Geometry:
    """Windows of equal extent: all that places follow from, one number per spatial dimension each."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    out: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Along each dimension, how many windows an element is in at most."""
        reach = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        return tuple(-(-r // s) for r, s in zip(reach, self.stride, strict=True))

    @property
    def apart(self) -> bool:
        """Whether no element is in two windows."""
        return prod(self.counts) == 1

    @property
    def few(self) -> bool:
        """Whether every element is in few windows."""
        return prod(self.counts) <= FEW

    def window(self, d: int, back: int, whole: bool) -> tuple[Expr, tuple[Expr, ...]]:
        """The number of the window ``back`` before the last one that begins at or before element ``axis(2 + d)``, and when there
        is none; ``whole``: also where that one ends before the element. Numbers of at least 2 are run-time sizes of a kernel, 0
        and 1 are part of it."""
        ends = whole and back + 1 == self.counts[d]
        return _window(self.kernel[d], self.stride[d], self.padding[d], self.out[d], 2 + d, back, ends)


@lru_cache(maxsize=1024)
def _window(
    kernel: int, stride: int, padding: int, out: int, dim: int, back: int, ends: bool
) -> tuple[Expr, tuple[Expr, ...]]:
    """``Geometry.window``. The same expressions each time: nobody has to find out that they are equal."""
    if kernel == stride == 1:
        return axis(dim), ()
    here = add(axis(dim), const(padding + 2 * stride))
    shifted = here if stride == 1 else call("cdiv", here, const(stride))
    back += 2
    tests = [call("ge", shifted, const(out + back))]
    if back > 2:
        tests.append(call("lt", shifted, const(back)))
    if ends:
        reached = add(call("cmod", here, const(stride)), const(back * stride))
        tests.append(call("ge", reached, const(kernel + 2 * stride)))
    return add(shifted, const(-back)), tuple(tests)


def _read(geometry: Geometry, shape: tuple[int, ...], back: tuple[int, ...], whole: bool) -> Reader:
    """What reads a value per window at one of the windows that an element of ``shape`` is in."""
    places = [axis(k) for k in range(len(shape))]
    tests: tuple[Expr, ...] = ()
    for d, steps in enumerate(back):
        places[2 + d], several = geometry.window(d, steps, whole)
        tests += several

    def read(x: Any, none: float | int) -> Any:
        return gather(x, shape, IndexMap(tuple(places), tuple(tests), False, none), (), "window_of")

    return read


def spread(node: Any, upstream: Any) -> list[Any]:
    """Of sums of windows that do not meet: what the window of an element got."""
    geometry, shape = node.sig.attrs, node.inputs[1].spec.shape
    return [None, _read(geometry, shape, (0,) * len(geometry.out), True)(upstream, 0)]


def chosen(node: Any, upstream: Any) -> list[Any]:
    """Of extremes: what those windows got whose extreme the element is."""
    geometry, source = node.sig.attrs, node.inputs[1].spec
    shape, first = source.shape, wrap(node.inputs[2])
    upstream = upstream.cast(accumulator(source.dtype))
    number = _number(shape, tuple(range(2, len(shape))), shape[2:])
    found: Any = None
    for back in product(*(range(count - 1, -1, -1) for count in geometry.counts)):  # windows in their order
        read = _read(geometry, shape, back, False)
        part = where(read(first, -1) == number, read(upstream, 0), 0.0)
        found = part if found is None else found + part
    found = found.cast(source.dtype)
    # several conditions are asked once per row only where every element stands for itself
    return [None, found if geometry.apart else by_itself(found), None]


def _number(shape: tuple[int, ...], axes: Iterable[int], extents: Iterable[int]) -> Any:
    """Places along ``axes`` counted row by row."""
    flat: Any = None
    for k, extent in zip(axes, extents, strict=True):
        flat = index(shape, k) if flat is None else flat * extent + index(shape, k)
    return flat


def chosen_of_tiles(node: Any, upstream: Any) -> list[Any]:
    """Of extremes of windows that are laid out by a reshape: every element asks whether it was the one."""
    outer, inner = node.sig.attrs
    shape, first = node.inputs[1].spec.shape, wrap(node.inputs[2])
    flat: Any = None
    for o, i in zip(outer, inner, strict=True):
        place = index(shape, o) * shape[i] + index(shape, i)
        flat = place if flat is None else flat * (shape[o] * shape[i]) + place
    return [None, where(flat == first.broadcast(shape, inner), upstream.broadcast(shape, inner), 0.0), None]


def scattered(node: Any, upstream: Any) -> list[Any]:
    """Of extremes, where elements are in many windows: added up where the elements came from."""
    shape, places = node.inputs[1].spec.shape, wrap(node.inputs[2])
    here = ",".join(f"i{k}" for k in range(upstream.ndim))
    flat = [shape[0], shape[1], prod(shape[2:])]
    found = upstream.reindex_reduce("add", flat, ["i0", "i1", f"@e0({here})"], [], [places])
    return [None, found.reshape(list(shape)), None]
