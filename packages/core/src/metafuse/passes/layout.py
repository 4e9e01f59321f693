"""Layout: choose the order of dimensions in which values are stored.

What it is: images that library convolutions read or write, and what is linked to them by maps, windows and folds, are
stored channels last; a convolution that the library takes is fastest so, and everything else reads any order.
What it is not: a change of meaning: shapes stay (N, C, ...), only strides differ; nor a copy: kernels at the border of a
region read one order and write the other.
Who calls it: ``passes.pipeline``, when it is known what gets storage.

What users hold, what user code reads, and what is read under a shape that no strides give stays row-major.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from .affine import ordered, reshaped
from .inline import squeezed
from .library import Library
from .program_graph import ProgramGraph

__all__ = ["choose_layouts"]


def choose_layouts(graph: ProgramGraph, library: Library) -> None:
    """Fill ``graph.orders`` and have the library's operations described again. Stored arrays that come in another order and are
    read flat are taken out; ``runtime.executor`` puts those in row-major order first."""
    for k in range(graph.count, graph.count + graph.leaves):
        if k in graph.orders and _read_flat(graph, k, graph.strides(k)):
            del graph.orders[k]
            graph.read_flat.add(k)
    seeds = {k for pair in library.image_pairs() for k in pair if k in graph.stored}
    if seeds:
        _follow(graph, library, seeds)
    if graph.orders:
        library.settle()


def _follow(graph: ProgramGraph, library: Library, seeds: set[int]) -> None:
    """Store the seeds, and what is linked to them by operations on images, channels last."""
    region = _Regions(len(graph.specs))
    products = set(library.matches)
    products |= {graph.inputs[k][-1 if graph.kind(k) == "scatter" else 0] for k in library.matches}
    for one, other in library.image_pairs():
        region.join(one, other)
    for number in range(graph.count):
        if number in graph.dead or number in products or graph.kind(number) == "opaque":
            continue
        if len(graph.specs[number].shape) < 3:
            continue
        for i in graph.inputs[number]:
            if len(graph.specs[i].shape) >= 3:
                region.join(number, i)
    wanted = {region.find(k) for k in seeds}
    for number in range(graph.count):
        if region.find(number) in wanted and _read_often(graph, number, library.spatial):
            graph.stored.add(number)
    for number in sorted(graph.stored):
        if number < graph.count and region.find(number) in wanted:
            order = _channels_last(graph, number, library.spatial)
            if order is not None:
                graph.orders[number] = order
    for number, end in library.ends.items():  # a tail is applied in place
        if end not in graph.orders:
            graph.orders.pop(number, None)


def _read_often(graph: ProgramGraph, number: int, spatial: frozenset[int]) -> bool:
    """Whether the value is a row-major array seen as an image, which something larger or several kernels read: then it is better
    copied once into the order of its readers than read across memory several times."""
    if number in graph.dead or graph.kind(number) != "alias" or graph.has_storage(number):
        return False
    shape, base = graph.specs[number].shape, graph.base(number)
    if len(shape) - 2 not in spatial or len(graph.specs[base].shape) - 2 in spatial:
        return False
    if shape[1] == 1 or prod(shape[2:]) == 1:
        return False
    if not graph.has_storage(base) or base in graph.orders:
        return False
    if not graph.is_leaf(base) and _channels_last(graph, base, spatial) is not None:
        return False
    return _is_repeated(graph, number)


def _is_repeated(graph: ProgramGraph, number: int) -> bool:
    """Whether what reads the value, or is computed from it on the way, has more elements than it, or is several kernels."""
    stack, seen, readers = [number], {number}, 0
    while stack:
        for k in graph.users[stack.pop()]:
            if k in seen:
                continue
            seen.add(k)
            if graph.specs[k].size > graph.specs[number].size or graph.kind(k) == "scatter":
                return True
            if graph.has_storage(k):
                readers += 1
            else:
                stack.append(k)
    return readers > 1


def _channels_last(graph: ProgramGraph, number: int, spatial: frozenset[int]) -> tuple[int, ...] | None:
    """The order of an image's dimensions, or ``None`` if it has to stay row-major or would not change.

    ``spatial``: how many spatial dimensions images have. A value of more dimensions may be an image under another shape: its
    channels in groups, or its rows and columns in tiles."""
    shape = graph.specs[number].shape
    if graph.is_leaf(number) or number in graph.roots or graph.kind(number) == "opaque":
        return None
    images = [s for s in _other_shapes(graph, number) if len(s) - 2 in spatial and len(s) < len(shape)]
    if not images and len(shape) - 2 in spatial:
        images = [shape]
    for image in images:
        strides = reshaped(image, ordered(image, (0, *range(2, len(image)), 1)), shape)
        if strides is None:
            continue
        order = tuple(sorted(range(len(shape)), key=lambda d: -strides[d] if shape[d] != 1 else 0))
        moved = [d for d in order if shape[d] != 1]
        fits = all(a == b for a, b, n in zip(strides, ordered(shape, order), shape, strict=True) if n != 1)
        if moved != sorted(moved) and fits and not _read_flat(graph, number, strides):
            return order
    return None


def _other_shapes(graph: ProgramGraph, number: int) -> list[tuple[int, ...]]:
    """Shapes that the value is reshaped from or to."""
    shape = graph.specs[number].shape
    others = [u for u in graph.users[number] if graph.kind(u) == "alias"]
    stack = list(graph.inputs[number])
    seen: set[int] = set()
    while stack:  # through what is computed on the way
        i = stack.pop()
        if i in seen or len(graph.specs[i].shape) != len(shape):
            continue
        seen.add(i)
        if graph.kind(i) == "alias":
            others.append(graph.inputs[i][0])
        elif not graph.has_storage(i):
            stack.extend(graph.inputs[i])
    return [graph.specs[k].shape for k in others]


def _read_flat(graph: ProgramGraph, number: int, strides: Sequence[int]) -> bool:
    """Whether somebody reads the value under a shape that its strides do not give, itself or through maps that are computed on
    the way."""
    shape = graph.specs[number].shape
    stack, seen = [(number, True)], {number}
    while stack:
        value, same = stack.pop()  # same: nothing but reshapes lie between
        for user in graph.users[value]:
            kind = graph.kind(user)
            target = graph.specs[user].shape
            if kind == "opaque":
                return True
            if kind == "alias":
                if user in graph.roots or reshaped(shape, strides, target) is None:
                    return True
                flat = user not in graph.by_dims and squeezed(target) != squeezed(graph.specs[value].shape)
                if flat and not same:
                    return True
            elif kind != "map" or graph.has_storage(user):
                continue
            if user not in seen:
                seen.add(user)
                stack.append((user, same and kind == "alias"))
    return False


class _Regions:
    """Disjoint sets of values that are linked."""

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))

    def find(self, k: int) -> int:
        """The representative of the set of ``k``."""
        parent = self.parent
        while parent[k] != k:
            parent[k] = parent[parent[k]]
            k = parent[k]
        return k

    def join(self, a: int, b: int) -> None:
        """Unite two sets."""
        self.parent[self.find(a)] = self.find(b)
