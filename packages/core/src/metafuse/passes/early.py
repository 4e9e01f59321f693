"""Early: what should begin as soon as it can is moved up to where its inputs are ready.

What it is: moves opaque launches whose attributes say ``early`` (sending, which goes on beside computing) behind the last
launch that makes one of their inputs.
What it is not: a reordering of anything else; early launches keep their order among themselves.
Who calls it: ``passes.pipeline``, after ``schedule``.
"""

from __future__ import annotations

from .program_graph import ProgramGraph
from .schedule import Item

__all__ = ["move_up"]


def move_up(graph: ProgramGraph, launches: list[list[Item]]) -> list[list[Item]]:
    """``launches`` with early ones as far up as their inputs allow."""
    early = [launch for launch in launches if _is_early(graph, launch[0])]
    if not early:
        return launches
    result = [launch for launch in launches if not _is_early(graph, launch[0])]
    made: dict[int, int] = {}  # value -> place of the last launch that writes it
    for place, launch in enumerate(result):
        for item in launch:
            for value in (item,) if isinstance(item, int) else item.writes:
                made[value] = place
    after: dict[int, list[list[Item]]] = {}
    reached = -1
    for launch in early:
        number = launch[0]
        assert isinstance(number, int)
        inputs = [graph.base(i) for i in graph.inputs[number]]
        reached = max([reached, *(made[v] for v in inputs if v in made)])
        after.setdefault(reached, []).append(launch)
    moved = after.pop(-1, [])
    for place, launch in enumerate(result):
        moved.append(launch)
        moved.extend(after.get(place, ()))
    return moved


def _is_early(graph: ProgramGraph, item: Item) -> bool:
    return isinstance(item, int) and getattr(graph.nodes[item].sig.attrs, "early", False)
