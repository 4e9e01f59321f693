"""Invert: a scatter that meets no element twice is read from where its elements come from.

What it is: rewrites sums that are scattered into zeros as a reindex by the inverse of the index map, where there is one.
Gradients of windows that do not overlap, of slices and of padding are of that sort. A reindex fuses with its readers and
needs no zeros first.
What it is not: a rewrite of scatters that contractions consist of (``contraction`` found those), nor of sparse ones, which cost
less than a look at every element.
Who calls it: ``passes.pipeline``.
"""

from __future__ import annotations

from collections.abc import Container

from ..graph.index_map import IndexMap
from ..graph.node import Node, make_node, signature
from ..kernel.expr import Expr, add, axis, call, const, mul
from .affine import Affine, as_affine
from .contraction import is_zero_fill
from .program_graph import ProgramGraph
from .simplify import mark_dead

__all__ = ["invert"]

#: elements that are scattered, per element of the result, from which on all of those are looked at
DENSE = 0.25


def invert(graph: ProgramGraph, matches: Container[int]) -> None:
    """Replace scatters among ``graph.nodes`` other than those in ``matches``."""
    found = False
    for number in range(graph.count):
        if graph.kind(number) != "scatter" or number in graph.dead or number in matches:
            continue
        where = _inverse(graph, number)
        if where is None:
            continue
        source = graph.inputs[number][-1]
        graph.replace(number, _reading(graph.nodes[number], where), (source,))
        found = True
    if found:
        mark_dead(graph)


def _reading(node: Node, where: IndexMap) -> Node:
    """The reindex that stands for the scatter ``node``."""
    source = node.inputs[-1]
    sig = signature("reindex", node.sig.name, where, (source.spec,), node.spec)
    made = make_node(sig, False, node.order, node.origin)
    made.inputs, made.scalars, made.pos = (source,), (), node.pos
    return made


def _inverse(graph: ProgramGraph, number: int) -> IndexMap | None:
    """Where each element of a scatter's result comes from, or ``None`` if several may meet in one."""
    op, where = graph.nodes[number].sig.attrs
    start, *extras, source = graph.inputs[number]
    if op != "add" or extras or where.conditions or not is_zero_fill(graph, start):
        return None
    extents = graph.specs[source].shape
    if graph.specs[source].size < DENSE * graph.specs[number].size or graph.specs[source].size == 0:
        return None
    places: dict[int, Expr] = {k: const(0) for k, n in enumerate(extents) if n == 1}
    for dim, position in enumerate(where.indexes):
        affine = as_affine(position)
        if affine is None or not _solve(dim, graph.specs[number].shape[dim], affine, extents, places):
            return None
    if len(places) < len(extents):
        return None
    return IndexMap(tuple(places[k] for k in range(len(extents))), (), True, 0)


def _solve(dim: int, extent: int, affine: Affine, extents: tuple[int, ...], places: dict[int, Expr]) -> bool:
    """Fill ``places`` for the axes that decide dimension ``dim``: digits of a number, each beyond all smaller ones."""
    terms = [(k, step) for k, step in affine.coefficients if extents[k] != 1]
    rest = add(axis(dim), const(-affine.constant))
    if len(terms) == 1 and terms[0][1] == -1:
        terms = [(terms[0][0], 1)]
        rest = add(const(affine.constant), mul(axis(dim), const(-1)))
    terms.sort(key=lambda term: -term[1])
    below = 1  # what the smaller digits reach
    for k, step in reversed(terms):
        if step < below or k in places:
            return False
        below += step * (extents[k] - 1)
    if not terms:
        return extent == 1 and affine.constant == 0
    if terms[-1][1] != 1:
        return False  # places in between, which nothing comes to
    divide, remain = ("cdiv", "cmod") if affine.constant <= 0 else ("floordiv", "mod")
    for k, step in terms[:-1]:
        places[k] = call(divide, rest, const(step))
        rest = call(remain, rest, const(step))
    places[terms[-1][0]] = rest
    return True
