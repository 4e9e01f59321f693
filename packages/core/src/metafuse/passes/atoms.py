"""Atoms: one per stored value, its expression over axes of its own.

What it is: ``Atom``, and how nodes become atoms: what is computed on the way is part of the expression, a fold that would starve
cores becomes two, a scatter in which no two elements meet a plain store.
What it is not: which atoms share a kernel (``fuse``).
Who calls it: ``fuse``; ``columns``, ``lower`` and ``partial`` work on atoms too.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..kernel.expr import Expr, axis, call, cast, load, walk
from ..kernel.ir import REDUCTIONS
from .affine import as_affine, offset
from .contraction import Match
from .coverage import covered
from .inline import Inliner, identity_index, squeezed
from .partial import split
from .program_graph import ProgramGraph

__all__ = ["Atom", "atoms_of"]


@dataclass
class Atom:
    """One stored value: ``expr`` over the axes of ``extents``; ``inner`` axes are folded (or scattered) over."""

    number: int
    #: "map", "reduce", "scatter", "store" (into what a scatter builds), "contraction", "opaque", "column" (see ``columns``)
    kind: str
    extents: tuple[int, ...]
    inner: frozenset[int] = frozenset()
    expr: Expr | None = None
    op: str = ""
    place: Expr | None = None  # where the value is stored, over the axes that remain
    condition: Expr | None = None
    match: Match | None = None
    extra_reads: tuple[int, ...] = ()

    def loads(self) -> list[Expr]:
        """Every load of the expression, place and condition."""
        found: list[Expr] = []
        for root in (self.expr, self.place, self.condition):
            if root is not None:
                found.extend(x for x in walk(root) if x.op == "load")
        return found

    def reads(self) -> set[int]:
        """Numbers of the values it loads."""
        return {x.value for x in self.loads()} | set(self.extra_reads)


def atoms_of(graph: ProgramGraph, matches: dict[int, Match]) -> list[Atom]:
    """An atom per stored value, in order; several where a fold is done in parts or a scatter needs its start value."""
    inliner = Inliner(graph)
    atoms: list[Atom] = []
    final = _written_in_place(graph)
    chains: dict[int, list[int]] = {}
    for number in range(graph.count):
        if graph.kind(number) == "scatter":
            chains.setdefault(final.get(number, number), []).append(number)
    for number in range(graph.count):
        if number not in graph.stored:
            continue
        kind = graph.kind(number)
        if kind in ("map", "reindex", "alias"):
            atoms.append(_map_atom(graph, inliner, number, number))
        elif number in matches:
            atoms.append(_contraction_atom(graph, number, matches[number]))
        elif kind == "reduce":
            atoms.extend(_reduce_atoms(graph, inliner, number))
        elif kind == "scatter":
            storage = final.get(number, number)
            if graph.inputs[number][0] not in final and not covered(inliner, chains[storage]):
                atoms.append(_map_atom(graph, inliner, graph.inputs[number][0], storage))
            atoms.append(_scatter_atom(graph, inliner, number, storage))
        else:
            reads = tuple(graph.base(i) for i in graph.inputs[number])
            atoms.append(Atom(number, "opaque", squeezed(graph.specs[number].shape), extra_reads=reads))
    return atoms


def _map_atom(graph: ProgramGraph, inliner: Inliner, value: int, storage: int) -> Atom:
    """Compute ``value`` and store it as ``storage`` (not the same for the start value of a scatter)."""
    shape = graph.specs[value].shape
    index = identity_index(shape)
    base = graph.base(value)
    root = storage == value or not graph.has_storage(base)
    expr = cast(inliner.value(value, index, at_root=root), graph.specs[storage].dtype)
    return Atom(storage, "map", squeezed(shape), frozenset(), expr, "", offset(index, graph.strides(storage)))


def _contraction_atom(graph: ProgramGraph, number: int, match: Match) -> Atom:
    place = offset(tuple(axis(k) for k in range(match.outer)), graph.squeezed_strides(number))
    inner = frozenset(range(match.outer, len(match.extents)))
    reads = (graph.base(match.a.source), graph.base(match.b.source))
    return Atom(
        number, "contraction", match.extents, inner, op="add", place=place, match=match, extra_reads=reads
    )


def _reduce_atoms(graph: ProgramGraph, inliner: Inliner, number: int) -> list[Atom]:
    op, dims = graph.nodes[number].sig.attrs
    source = graph.inputs[number][0]
    shape = graph.specs[source].shape
    index = identity_index(shape)
    rename: dict[int, int] = {}
    for k, n in enumerate(shape):
        if n != 1:
            rename[k] = len(rename)
    expr = inliner.value(source, index, at_root=False)
    extents = squeezed(shape)
    inner = frozenset(rename[k] for k in dims if k in rename)
    kept = tuple(k for k in range(len(extents)) if k not in inner)
    place = offset(tuple(axis(k) for k in kept), graph.squeezed_strides(number))
    whole = Atom(number, "reduce", extents, inner, expr, op, place)
    return split(graph, whole) or [whole]


def _written_in_place(graph: ProgramGraph) -> dict[int, int]:
    """Scatters whose only use is to be the start of a next one write straight into that one's storage."""
    final: dict[int, int] = {}
    for number in range(graph.count - 1, -1, -1):
        if graph.kind(number) == "scatter":
            start = graph.inputs[number][0]
            if graph.kind(start) == "scatter" and graph.users[start] == [number] and start not in graph.roots:
                final[start] = final.get(number, number)
    return final


def _scatter_atom(graph: ProgramGraph, inliner: Inliner, number: int, storage: int) -> Atom:
    op, where = graph.nodes[number].sig.attrs
    source = graph.inputs[number][-1]
    shape = graph.specs[source].shape
    index = identity_index(shape)
    place, hit = inliner.resolve(number, where, index, None)
    expr = inliner.value(source, index, at_root=False)
    extents = squeezed(shape)
    outer = _free_axes(place)
    inner = frozenset(k for k in range(len(extents)) if k not in outer)
    where_to = offset(place, graph.strides(storage))
    if not inner and hit is None:  # no two elements meet: this is a plain store
        if op != "void":
            combine = REDUCTIONS[op]
            assert combine is not None
            expr = call(combine, load(storage, expr.dtype, where_to), expr)
        return Atom(storage, "store", extents, frozenset(), expr, "", where_to)
    return Atom(storage, "scatter", extents, inner, expr, op, where_to, hit)


def _free_axes(place: tuple[Expr, ...]) -> set[int]:
    """Axes along which no two elements meet: each alone decides one dimension of the address."""
    counted: dict[int, int] = {}
    for position in place:
        for k in {x.value for x in walk(position) if x.op == "axis"}:
            counted[k] = counted.get(k, 0) + 1
    free: set[int] = set()
    for position in place:
        affine = as_affine(position)
        if affine is not None and len(affine.coefficients) == 1 and counted[affine.coefficients[0][0]] == 1:
            free.add(affine.coefficients[0][0])
    return free
