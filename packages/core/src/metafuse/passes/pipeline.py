"""The passes, in order: from pending nodes to a plan that can be launched.

What it is: the one list of passes. Every name here is what logs, ``explain`` and timings show.
What it is not: any pass; each has a module.
Who calls it: ``runtime.programs``, once per new structure of a pending graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

from ..backend.contract import AbstractBackend
from ..backend.optional import SupportsParts
from ..config import flags
from ..graph.node import Node
from ..kernel import spec
from ..kernel.expr import INTRINSICS
from .contraction import find_contractions
from .decompose import decompose
from .early import move_up
from .fuse import Group, fuse, split_tail
from .invert import invert
from .layout import choose_layouts
from .library import Library, find_constants
from .lower import LoweredCall, lower
from .materialise import mark_stored
from .plan import ProgramPlan
from .program_graph import ProgramGraph
from .schedule import Item, plan_memory, schedule
from .simplify import simplify

__all__ = ["build_plan", "timings"]

#: pass name -> seconds spent so far
timings: dict[str, float] = {}


def build_plan(
    nodes: Sequence[Node],
    leaves: Sequence[Node],
    roots: Sequence[int],
    backend: AbstractBackend,
    retained: Sequence[int] = (),
) -> ProgramPlan:
    """The plan of a program: ``nodes`` in topological order, ``roots`` the positions that are handed out.

    ``retained``: positions that a later gradient may read; what of them reaches memory anyway is handed out too."""
    graph = ProgramGraph(nodes, leaves, roots)
    if flags.debug >= 3:
        from ..debug import passes as shown

        shown.show_graph(graph)
    _run("simplify", simplify, graph)
    matches = _run("contraction", find_contractions, graph)
    _run("invert", invert, graph, matches)
    library: Library = _run("library", Library, graph, matches, backend)
    _run("materialise", mark_stored, graph, library.spatial)
    _run("layout", choose_layouts, graph, library)
    _run("narrow", library.narrow, frozenset(retained))
    groups: list[Group] = _run("fuse", fuse, graph, matches, library, backend.capabilities.serial)
    kept = _handed_out(graph, roots)
    lowered: list[Item] = _run("lower", _lower_all, graph, groups, kept, frozenset(retained), library)
    if not backend.capabilities.intrinsics.issuperset(INTRINSICS):
        lowered = _run("decompose", _decompose_all, lowered, backend)
    launches = _run("early", move_up, graph, _run("schedule", schedule, groups, lowered))
    plan: ProgramPlan = _run("memory", plan_memory, graph, launches, kept, isinstance(backend, SupportsParts))
    if flags.verify:
        for item in plan.groups:
            if isinstance(item, LoweredCall):
                spec.verify(item.kernel)
    return plan


def _run(name: str, step: Callable[..., Any], *arguments: Any) -> Any:
    started = perf_counter()
    result = step(*arguments)
    seconds = perf_counter() - started
    timings[name] = timings.get(name, 0.0) + seconds
    if flags.debug >= 3:
        from ..debug import passes as shown

        shown.show_pass(name, arguments, result, seconds)
    return result


def _handed_out(graph: ProgramGraph, roots: Sequence[int]) -> dict[int, list[int]]:
    """Stored value -> positions of the roots that show it."""
    kept: dict[int, list[int]] = {}
    for position in roots:
        kept.setdefault(graph.base(graph.same.get(position, position)), []).append(position)
    return kept


def _decompose_all(items: list[Item], backend: AbstractBackend) -> list[Item]:
    offered = backend.capabilities.intrinsics
    return [
        replace(item, kernel=decompose(item.kernel, offered, backend.name))
        if isinstance(item, LoweredCall)
        else item
        for item in items
    ]


def _lower_all(
    graph: ProgramGraph,
    groups: list[Group],
    kept: dict[int, list[int]],
    retained: frozenset[int],
    library: Library,
) -> list[Item]:
    readers: dict[int, set[int]] = {}
    for group in groups:
        for value in group.reads:
            readers.setdefault(value, set()).add(group.index)
    find_constants(graph, groups, retained | kept.keys())
    used: set[int] = set()
    live: list[Group] = []
    items: list[Item] = []
    for group in reversed(groups):  # readers first: vectors of a tail that the library refused have none
        if group.vector and not used & group.places.keys():
            continue
        if group.kind == "opaque":
            live.append(group)
            items.append(group.atoms[0][0].number)
            continue
        needed = _needed(graph, group, kept, retained, readers)
        if group.tail is not None:
            item = library.lowered(group.atoms[0][0].number, group.tail)
            if item is not None:
                used.update(item.values)
                if group.tail.value in retained:
                    kept.setdefault(group.tail.value, [group.tail.value])
                live.append(group)
                items.append(item)
                continue
            if (rest := split_tail(group)) is not None:
                live.append(rest)
                items.append(lower(graph, rest, needed & rest.places.keys()))
                needed = frozenset(group.places)
        for value in needed & retained:
            kept.setdefault(value, [value])
        live.append(group)
        items.append(lower(graph, group, needed))
    groups[:] = live[::-1]
    return items[::-1]


def _needed(
    graph: ProgramGraph,
    group: Group,
    kept: dict[int, list[int]],
    retained: frozenset[int],
    readers: dict[int, set[int]],
) -> frozenset[int]:
    """Values of the group that must reach memory. What a later gradient reads and is small beside the group's space (a
    mean, a row's sum) is stored in passing."""
    small = group.small_values()
    return frozenset(
        value
        for value in group.places
        if value in kept
        or group.vector
        or graph.kind(value) == "scatter"
        or readers.get(value, set()) - {group.index}
        or (value in retained and value in small)
    )
