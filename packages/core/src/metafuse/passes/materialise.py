"""Materialise: decide which values get storage of their own.

What it is: one walk in topological order that counts what inlining a value would cost.
What it is not: the fusion itself; a value that gets storage may still be computed in the same kernel as its users.
Who calls it: ``passes.pipeline``.

A value is stored if it must be (somebody holds it, an opaque operation or a contraction reads it, it is a fold) or if
inlining it would be dear: into a reindex or broadcast that evaluates it many times, into several users although it
is expensive or reads many arrays, or into an expression that has grown too long.
"""

from __future__ import annotations

from collections.abc import Container

from ..graph.node import BY_ITSELF
from .affine import shared_dims
from .inline import squeezed
from .program_graph import ProgramGraph

__all__ = ["MAX_OPERATIONS", "mark_stored"]

#: longest expression of one stored value, in scalar operations
MAX_OPERATIONS = 256
#: an expression at least this dear (in additions) is not evaluated twice for the same element
DEAR = 10
#: an expression at least this dear is not evaluated again for every element of a larger space
REPEATED = 12
#: a value with several users that reads at least this many arrays of its size is cheaper to read back than to compute again
MANY_READS = 3
#: what is so many times smaller than its user (a number per channel) is computed outside of the user's loops
SMALLER = 8


def mark_stored(graph: ProgramGraph, spatial: Container[int] = ()) -> None:
    """Fill ``graph.stored`` and ``graph.by_dims``. ``spatial``: how many spatial dimensions images have."""
    walk = _Walk(graph, spatial)
    for number in range(graph.count):
        if number not in graph.dead:
            walk.visit(number)


class _Walk:
    """What is known of each value by its number: what one element costs, in additions and in operations, if it is not stored;
    which stored values that reads; whether it can be computed from a flat offset."""

    def __init__(self, graph: ProgramGraph, spatial: Container[int]) -> None:
        self.graph = graph
        self.spatial = spatial
        count = len(graph.specs)
        self.cost = [0] * count
        self.operations = [0] * count
        self.reads: list[frozenset[int]] = [frozenset()] * count
        self.flat = [True] * count

    def visit(self, number: int) -> None:
        """Decide which inputs of a node have to be stored, then whether the node itself."""
        graph = self.graph
        self._store_inputs(number)
        self._count(number)
        self.flat[number] = _is_flat(graph, number, self.flat)
        if graph.kind(number) == "alias":
            self._store_shown(number)
        elif self._is_stored(number):
            graph.stored.add(number)
        if graph.has_storage(number):
            self.cost[number] = self.operations[number] = 0

    def _store_inputs(self, number: int) -> None:
        graph, inputs = self.graph, self.graph.inputs[number]
        if graph.kind(number) == "alias":
            if _splits_image(graph, number, self.spatial):
                graph.by_dims.add(number)
            base = graph.base(number)
            if graph.nodes[number].sig.name == BY_ITSELF and not graph.has_storage(base):
                graph.stored.add(base)
                graph.picked.add(base)
                self.cost[inputs[0]] = self.operations[inputs[0]] = 0
        for i in inputs:
            base = graph.base(i)
            if not graph.has_storage(base) and _must_store_input(
                graph, number, i, self.cost[i], self.flat[i]
            ):
                graph.stored.add(base)

    def _count(self, number: int) -> None:
        """What one element costs with everything that is computed on the way to it."""
        graph = self.graph
        inlined = [i for i in graph.inputs[number] if not graph.has_storage(i)]
        below = sum(self.cost[i] for i in inlined if not _is_small(graph, i, number))
        self.cost[number] = graph.nodes[number].sig.cost + below
        self.operations[number] = 1 + sum(self.operations[i] for i in inlined)
        gathered: set[int] = set()
        for i in graph.inputs[number]:
            gathered |= {i} if graph.has_storage(i) else self.reads[i]
        self.reads[number] = frozenset(gathered)
        if not gathered and self.cost[number] < DEAR:  # of indexes alone: the same for whole vectors
            self.cost[number] = 0

    def _store_shown(self, alias: int) -> None:
        """What a user sees through an alias is stored: under the alias only where that has another type."""
        graph = self.graph
        base = graph.base(alias)
        if alias in graph.roots and not graph.has_storage(base):
            same = graph.specs[base].dtype is graph.nodes[alias].spec.dtype
            graph.stored.add(base if same else alias)

    def _is_stored(self, number: int) -> bool:
        return (
            self.graph.kind(number) in ("reduce", "scatter", "opaque")
            or number in self.graph.roots
            or self.operations[number] > MAX_OPERATIONS
            or _worth_keeping(self.graph, number, self.cost[number], self.reads[number])
        )


def _must_store_input(graph: ProgramGraph, user: int, number: int, cost: int, flat: bool) -> bool:
    """Whether ``user`` forces its input to be stored."""
    kind = graph.kind(user)
    inputs = graph.inputs[user]
    if kind == "opaque":
        return True
    if kind in ("reindex", "scatter"):
        extras = inputs[1:] if kind == "reindex" else inputs[1:-1]
        if number in extras:
            return True
    if kind == "alias":
        return number == inputs[0] and not (flat or user in graph.by_dims or _same_space(graph, user))
    # a single element that is used everywhere is computed outside of all loops
    larger = graph.specs[user].size > graph.specs[number].size > 1
    return kind in ("map", "reindex") and larger and cost >= REPEATED


def _is_flat(graph: ProgramGraph, number: int, flat: list[bool]) -> bool:
    """Whether the value can be computed from a flat offset, so that a reshape may pass through it."""
    inputs = graph.inputs[number]
    kind = graph.kind(number)
    if kind == "alias":
        source = inputs[0]
        if number in graph.by_dims and not graph.has_storage(graph.base(source)):
            return False
        return flat[source] or graph.has_storage(graph.base(source)) or not _same_space(graph, number)
    if kind != "map" or not _same_shape(graph, number):
        return False
    return all(graph.has_storage(i) or flat[i] for i in inputs)


def _same_space(graph: ProgramGraph, alias: int) -> bool:
    """Whether an alias differs from its source in dimensions of extent 1 at most: index maps pass through it."""
    return squeezed(graph.specs[alias].shape) == squeezed(graph.specs[graph.inputs[alias][0]].shape)


def _is_small(graph: ProgramGraph, number: int, user: int) -> bool:
    return graph.specs[number].size * SMALLER <= graph.specs[user].size


def _splits_image(graph: ProgramGraph, alias: int, spatial: Container[int]) -> bool:
    """Whether an image is seen with its rows and columns in tiles, or the other way round; batch and channels stay. What is
    computed on the way is then computed in the image's order, whatever that will be."""
    shape, other = graph.specs[alias].shape, graph.specs[graph.inputs[alias][0]].shape
    if len(shape) == len(other) or min(len(shape), len(other)) - 2 not in spatial:
        return False
    dims = shared_dims(shape, other) if shape[:2] == other[:2] else None
    return dims is not None and all(len(own) == len(others) == 1 for own, others in dims[:2])


def _worth_keeping(graph: ProgramGraph, number: int, cost: int, reads: frozenset[int]) -> bool:
    if len(set(graph.users[number])) < 2 or cost == 0:
        return False
    size = graph.specs[number].size
    return cost >= DEAR or sum(min(size, graph.specs[k].size) for k in reads) >= MANY_READS * size


def _same_shape(graph: ProgramGraph, number: int) -> bool:
    """Whether a map reads its inputs at exactly its own place, so that a reshape may pass through it."""
    node = graph.nodes[number]
    return not node.sig.reads_axis and all(s.shape == node.spec.shape for s in node.sig.inputs)
