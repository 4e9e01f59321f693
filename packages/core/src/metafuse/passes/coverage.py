"""Start values that nobody will see: scatters one after the other that write every element of what they begin with.

What it is: ``covered``. Joining arrays is a chain of such scatters: each array goes to its own part of the result.
What it is not: a general question about index maps: only whole slices along one dimension are looked at.
Who calls it: ``atoms``, which then leaves out the kernel of the start value.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .affine import as_affine
from .inline import identity_index

if TYPE_CHECKING:
    from .inline import Index, Inliner

__all__ = ["covered"]


def covered(inliner: Inliner, chain: Iterable[int]) -> bool:
    """Whether the scatters ``chain``, in order, overwrite every element of the start value of the first without reading any."""
    graph = inliner.graph
    spans: dict[int | None, list[tuple[int, int]]] = {}
    shape: tuple[int, ...] = ()
    for number in chain:
        op, where = graph.nodes[number].sig.attrs
        shape, source = graph.specs[number].shape, graph.specs[graph.inputs[number][-1]].shape
        place, hit = inliner.resolve(number, where, identity_index(source), None)
        found = _slice(place, source, shape) if op == "void" and hit is None else None
        if found is None:
            return False
        dim, start, length = found
        spans.setdefault(dim, []).append((start, start + length))
    if None in spans:  # one of them writes everything
        return True
    if len(spans) != 1:
        return False
    ((dim, parts),) = spans.items()
    assert dim is not None
    end = 0
    for start, stop in sorted(parts):
        if start > end:
            return False
        end = max(end, stop)
    return end >= shape[dim]


def _slice(
    place: Index, source: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[int | None, int, int] | None:
    """(dimension, start, length) if an array goes to a whole slice of the result, ``None`` for the dimension if to all of it;
    ``None`` if it goes elsewhere."""
    if len(source) != len(shape):
        return None
    partial: tuple[int | None, int, int] = (None, 0, 0)
    for dim, (position, at, extent, whole) in enumerate(
        zip(place, identity_index(source), source, shape, strict=True)
    ):
        affine = as_affine(position)
        moves = ((at.value, 1),) if extent != 1 else ()
        if affine is None or tuple(affine.coefficients) != moves:
            return None
        if extent != whole:
            if partial[0] is not None:
                return None
            partial = (dim, affine.constant, extent)
    return partial
