"""Contraction: find products of two arrays summed over shared axes, however they were written.

What it is: recognises ``sum(reindex(a) * reindex(b))`` and its scatter form as matrix products and convolutions
(forward, backward-data, backward-weight; grouped, dilated, transposed) with affine index maps.
What it is not: the kernel for it; a backend tiles and packs, or calls a library.
Who calls it: ``passes.pipeline``, before it is decided what gets storage, since both operands must be stored.

Axes are classified by where they occur: *batch* in both operands and the result, *m* in the first and the result,
*n* in the second and the result, *k* in both and summed. The scatter form ``x[o*s + k*d - p] += g[o] * w[k]`` is turned
into a gather by solving for ``o``: ``(h + p - k*d) / s`` where the division leaves no remainder.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..dtypes import float32
from ..graph.index_map import IndexMap
from ..kernel.expr import Expr, axis, const, rewrite
from .affine import Affine, as_affine
from .inline import Index, broadcast_index, identity_index, squeezed, unsqueezed
from .program_graph import ProgramGraph

__all__ = ["Match", "Place", "View", "find_contractions", "find_thin_contractions"]


@dataclass(frozen=True)
class Place:
    """Position along one dimension of an operand: ``affine / divisor``, which must exist within ``extent`` if guarded."""

    affine: Affine
    divisor: int | None
    guarded: bool
    extent: int


@dataclass(frozen=True)
class View:
    """One operand: a value that gets storage, and a place per dimension of its shape."""

    source: int
    places: tuple[Place, ...]

    @property
    def axes(self) -> frozenset[int]:
        """Axes it depends on."""
        return frozenset(k for p in self.places for k, _ in p.affine.coefficients)


@dataclass(frozen=True)
class Match:
    """A recognised contraction over ``extents``; the first ``outer`` axes are the result's, the others are summed."""

    extents: tuple[int, ...]
    outer: int
    a: View
    b: View

    def roles(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None:
        """Axes as (batch, m, n, k), or ``None`` if this is no product worth tiling."""
        in_a, in_b = self.a.axes, self.b.axes
        batch: list[int] = []
        m: list[int] = []
        n: list[int] = []
        k: list[int] = []
        for x in range(len(self.extents)):
            if x in in_a and x in in_b:
                (batch if x < self.outer else k).append(x)
            elif x < self.outer and x in in_a:
                m.append(x)
            elif x < self.outer and x in in_b:
                n.append(x)
            else:
                return None
        return (tuple(batch), tuple(m), tuple(n), tuple(k)) if m and n and k else None


def find_contractions(graph: ProgramGraph) -> dict[int, Match]:
    """Every contraction of the program by node number; marks their operands as stored."""
    found: dict[int, Match] = {}
    for number in range(graph.count):
        match = None if number in graph.dead else _match(graph, number)
        if match is None or match.roles() is None:
            continue
        found[number] = match
        for view in (match.a, match.b):
            base = graph.base(view.source)
            if not graph.is_leaf(base):
                graph.stored.add(base)
    return found


def find_thin_contractions(graph: ProgramGraph, known: Collection[int]) -> dict[int, Match]:
    """Products that are too thin to be worth tiling, but that a library may be good at: depthwise convolutions, and those with
    one channel; matrix products of one row or column that were recorded as such, with a dimension of extent 1.

    ``known``: what ``find_contractions`` found. Marks nothing: whoever takes one has its operands stored."""
    found: dict[int, Match] = {}
    for number in range(graph.count):
        if number in graph.dead or number in known:
            continue
        match = _match(graph, number)
        if match is not None and match.outer < len(match.extents) and _is_thin_product(graph, number, match):
            found[number] = match
    return found


def _is_thin_product(graph: ProgramGraph, number: int, match: Match) -> bool:
    axes = range(len(match.extents))
    in_a, in_b = match.a.axes, match.b.axes
    if not all((x in in_a and x in in_b) if x >= match.outer else (x in in_a or x in in_b) for x in axes):
        return False
    places = (*match.a.places, *match.b.places)
    if any(len(p.affine.coefficients) > 1 or p.affine.constant or p.divisor is not None for p in places):
        return True
    product = graph.specs[graph.inputs[number][-1]].shape
    single = graph.kind(number) == "reduce" and any(
        n == 1 and d not in graph.nodes[number].sig.attrs[1] for d, n in enumerate(product)
    )
    return single and any((x in in_a) != (x in in_b) for x in axes)


def _match(graph: ProgramGraph, number: int) -> Match | None:
    kind = graph.kind(number)
    if kind == "reduce":
        return _of_reduce(graph, number)
    return _of_scatter(graph, number) if kind == "scatter" else None


def _factors(graph: ProgramGraph, number: int) -> tuple[int, int] | None:
    """The two operands of a floating product, or ``None``."""
    if graph.kind(number) != "map":
        return None
    body = graph.nodes[number].sig.body
    if body is None or body.op != "mul" or not body.dtype.is_float:
        return None
    first, second = body.args
    if first.op != "load" or second.op != "load" or first.value == second.value:
        return None
    left, right = graph.inputs[number]
    return left, right


def _of_reduce(graph: ProgramGraph, number: int) -> Match | None:
    op, dims = graph.nodes[number].sig.attrs
    product = graph.inputs[number][0]
    factors = _factors(graph, product)
    if op != "add" or factors is None:
        return None
    shape = graph.specs[product].shape
    order = [k for k in range(len(shape)) if k not in dims and shape[k] != 1]
    outer = len(order)
    order += [k for k in dims if shape[k] != 1]
    rename = {k: new for new, k in enumerate(order)}
    index = tuple(axis(rename[k]) if n != 1 else const(0) for k, n in enumerate(shape))
    views = [_view(graph, i, broadcast_index(index, graph.specs[i].shape, shape)) for i in factors]
    a, b = views
    if a is None or b is None:
        return None
    return Match(tuple(shape[k] for k in order), outer, a, b)


def _view(graph: ProgramGraph, number: int, index: Index, through: bool = True) -> View | None:
    """Follow index maps from ``number`` to the value they read; ``None`` if they are not affine.

    ``through``: also those under a reshape that adds or drops dimensions of extent 1, unless that leads to a part of an array:
    what is computed from a copy of it has more ways to be computed."""
    source, at, guarded, crossed = _followed(graph, number, index, through)
    places = []
    for k, (position, extent) in enumerate(zip(at, graph.specs[source].shape, strict=True)):
        affine = as_affine(position)
        if affine is None:
            return None
        places.append(Place(affine, None, bool(guarded and guarded[k]), extent))
    if crossed and any(p.affine.constant for p in places):
        return _view(graph, number, index, through=False)
    return View(source, tuple(places))


def _followed(
    graph: ProgramGraph, number: int, index: Index, through: bool
) -> tuple[int, Index, tuple[bool, ...] | None, bool]:
    """The value that is read in the end, the index into it, which dimensions of that are guarded, and whether a reshape was
    crossed."""
    crossed = False
    while number not in graph.stored and number not in graph.roots:
        if through and graph.kind(number) == "alias" and _leads_to_reindex(graph, number):
            crossed = True
            below = graph.inputs[number][0]
            index = unsqueezed(index, graph.specs[number].shape, graph.specs[below].shape)
            number = below
            continue
        if _widens(graph, number):
            number = graph.inputs[number][0]
            continue
        if graph.kind(number) != "reindex":
            break
        node = graph.nodes[number]
        where: IndexMap = node.sig.attrs
        if len(node.inputs) > 1 or where.conditions or (where.guard and where.overflow != 0):
            break
        index = _composed(where, index)
        number = graph.inputs[number][0]
        guarded = _guarded(where, node.spec.shape, graph.specs[number].shape)
        if any(guarded):
            return _without_widening(graph, number), index, guarded, crossed
    return _without_widening(graph, number), index, None, crossed


def _composed(where: IndexMap, index: Index) -> Index:
    """The index into the source of a map that is read at ``index``."""

    def substitute(x: Expr) -> Expr | None:
        return index[x.value] if x.op == "axis" else None

    return tuple(rewrite(x, substitute) for x in where.indexes)


def _guarded(where: IndexMap, shape: Sequence[int], source: Sequence[int]) -> tuple[bool, ...]:
    """Which dimensions of the source may be left: none where the map has no guard, or takes an axis of the same extent."""
    return tuple(
        where.guard and not (x.op == "axis" and shape[x.value] == extent)
        for x, extent in zip(where.indexes, source, strict=True)
    )


def _without_widening(graph: ProgramGraph, number: int) -> int:
    """What a 16-bit float that is read as float32 is stored as."""
    while _widens(graph, number) and number not in graph.stored and number not in graph.roots:
        number = graph.inputs[number][0]
    return number


def _leads_to_reindex(graph: ProgramGraph, number: int) -> bool:
    """Whether an alias only adds or drops dimensions of extent 1 of something that is read through an index map."""
    while graph.kind(number) == "alias" and number not in graph.stored and number not in graph.roots:
        below = graph.inputs[number][0]
        if squeezed(graph.specs[number].shape) != squeezed(graph.specs[below].shape):
            return False
        number = below
    leads = graph.kind(number) == "reindex" or _widens(graph, number)
    return leads and number not in graph.stored and number not in graph.roots


def _widens(graph: ProgramGraph, number: int) -> bool:
    """Whether the node is a 16-bit float as float32: products are of float32 whatever the operands are stored as."""
    body = graph.nodes[number].sig.body if graph.kind(number) == "map" else None
    return (
        body is not None
        and body.op == "cast"
        and body.dtype is float32
        and (body.args[0].op == "load" and body.args[0].dtype.is_half)
    )


def _of_scatter(graph: ProgramGraph, number: int) -> Match | None:
    op, where = graph.nodes[number].sig.attrs
    base, *extras, y = graph.inputs[number]
    factors = _factors(graph, y)
    if op != "add" or extras or where.conditions or factors is None or not is_zero_fill(graph, base):
        return None
    source_shape = graph.specs[y].shape
    index = identity_index(source_shape)
    views = [_view(graph, i, broadcast_index(index, graph.specs[i].shape, source_shape)) for i in factors]
    a, b = views
    if a is None or b is None or any(p.guarded for v in (a, b) for p in v.places):
        return None
    return _solve(graph, number, where, a, b, squeezed(source_shape), identity_index(source_shape))


def is_zero_fill(graph: ProgramGraph, number: int) -> bool:
    """Whether a value is zeros that nobody has written."""
    return graph.kind(number) == "map" and graph.nodes[number].sig.name == "zeros"


def _solve(
    graph: ProgramGraph,
    number: int,
    where: IndexMap,
    a: View,
    b: View,
    extents: tuple[int, ...],
    index: Index,
) -> Match | None:
    """Turn ``dest[f(axes)] += a * b`` into a sum over the axes that remain once each destination dimension is solved."""
    target = graph.specs[number].shape
    kept_dims = [d for d, n in enumerate(target) if n != 1]
    #: source axis -> (destination dim, coefficient, its affine form)
    solved: dict[int, tuple[int, int, Affine]] = {}
    for d, position in enumerate(where.indexes):
        affine = as_affine(rewrite(position, lambda x: index[x.value] if x.op == "axis" else None))
        if affine is None:
            return None
        if d not in kept_dims and not affine.coefficients and affine.constant == 0:
            continue
        choices = [(k, c) for k, c in affine.coefficients if c > 0 and k not in solved]
        # an axis of one operand only stays out of the sum when it is solved for: that keeps the product a product
        choices.sort(key=lambda kc: (kc[0] in a.axes and kc[0] in b.axes, -extents[kc[0]]))
        if not choices:
            return None
        solved[choices[0][0]] = (d, choices[0][1], affine)
    summed = [k for k in range(len(extents)) if k not in solved]
    rename = {k: len(kept_dims) + j for j, k in enumerate(summed)}
    for _, _, affine in solved.values():
        if sum(k in solved for k, _ in affine.coefficients) != 1:
            return None
    views = []
    for view in (a, b):
        places = [_substitute(p, solved, rename, kept_dims, extents, target) for p in view.places]
        if any(p is None for p in places):
            return None
        views.append(View(view.source, tuple(p for p in places if p is not None)))
    shape = tuple(target[d] for d in kept_dims) + tuple(extents[k] for k in summed)
    return Match(shape, len(kept_dims), views[0], views[1])


def _substitute(
    place: Place,
    solved: dict[int, tuple[int, int, Affine]],
    rename: dict[int, int],
    kept_dims: list[int],
    extents: tuple[int, ...],
    target: tuple[int, ...],
) -> Place | None:
    """The place in terms of destination axes and summed axes."""
    inside = [(k, c) for k, c in place.affine.coefficients if k in solved]
    if not inside:
        return Place(_renamed(place.affine, rename), None, place.guarded, place.extent)
    if place.affine.coefficients != ((inside[0][0], 1),) or place.affine.constant != 0:
        return None
    k = inside[0][0]
    d, coefficient, affine = solved[k]
    terms = {kept_dims.index(d): 1} if d in kept_dims else {}  # of extent 1: the destination is 0
    for other, c in affine.coefficients:
        if other != k:
            terms[rename[other]] = terms.get(rename[other], 0) - c
    moved = Affine(tuple(sorted((x, c) for x, c in terms.items() if c != 0)), -affine.constant)
    if len(terms) == 1 and coefficient == 1 and affine.constant == 0 and extents[k] == target[d]:
        return Place(moved, None, place.guarded, place.extent)
    return Place(moved, coefficient, True, extents[k])  # of a slice, no more than what it covers


def _renamed(affine: Affine, rename: dict[int, int]) -> Affine:
    return Affine(tuple(sorted((rename[k], c) for k, c in affine.coefficients)), affine.constant)
