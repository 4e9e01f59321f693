"""Layout: choose the order of dimensions in which values are stored.

What it is: images that library convolutions read or write, and what is linked to them by maps, windows and folds, are
stored channels last; a convolution that the library takes is fastest so, and everything else reads any order.
What it is not: a change of meaning: shapes stay (N, C, ...), only strides differ; nor a copy: kernels at the border of a
region read one order and write the other.
Who calls it: ``passes.pipeline``, when it is known what gets storage.

What users hold, what user code reads, and what is read under another shape stays row-major.
"""

from __future__ import annotations

from .inline import squeezed
from .library import Library
from .program_graph import ProgramGraph

__all__ = ["choose_layouts"]


def choose_layouts(graph: ProgramGraph, library: Library) -> None:
    """Fill ``graph.orders`` and have the library's operations described again. Stored arrays that come in another order and are
    read flat are taken out; ``runtime.executor`` puts those in row-major order first."""
    for k in range(graph.count, graph.count + graph.leaves):
        if k in graph.orders and _read_flat(graph, k):
            del graph.orders[k]
            graph.read_flat.add(k)
    seeds = [k for pair in library.image_pairs() for k in pair if _free(graph, k)]
    if seeds:
        _follow(graph, library, seeds)
    if graph.orders:
        library.settle()


def _follow(graph: ProgramGraph, library: Library, seeds: list[int]) -> None:
    """Store the seeds, and what is linked to them by operations on images, channels last."""
    region = _Regions(len(graph.specs))
    products = set(library.matches) | {graph.inputs[k][-1 if graph.kind(k) == "scatter" else 0] for k in library.matches}
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
    ranks = {len(graph.specs[k].shape) for k in seeds}
    for number in sorted(graph.stored):
        rank = len(graph.specs[number].shape)
        if rank in ranks and region.find(number) in wanted and _free(graph, number):
            graph.orders[number] = (0, *range(2, rank), 1)
    for number, end in library.ends.items():  # a tail is applied in place
        if end not in graph.orders:
            graph.orders.pop(number, None)


def _free(graph: ProgramGraph, number: int) -> bool:
    """Whether the value may be stored in another order, and whether that makes a difference."""
    if number not in graph.stored or number >= graph.count or number in graph.roots:
        return False
    shape = graph.specs[number].shape
    spatial = 1
    for n in shape[2:]:
        spatial *= n
    if len(shape) < 3 or spatial == 1 or shape[1] == 1 or graph.kind(number) == "opaque":
        return False
    return not _read_flat(graph, number)


def _read_flat(graph: ProgramGraph, number: int) -> bool:
    """Whether somebody reads the value under another shape, itself or through maps that are computed on the way."""
    stack, seen = [number], {number}
    while stack:
        value = stack.pop()
        for user in graph.users[value]:
            kind = graph.kind(user)
            if kind == "opaque":
                return True
            if kind == "alias":
                same = squeezed(graph.specs[user].shape) == squeezed(graph.specs[value].shape)
                if user in graph.roots or not same:
                    return True
            elif kind != "map" or graph.has_storage(user):
                continue
            if user not in seen:
                seen.add(user)
                stack.append(user)
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
