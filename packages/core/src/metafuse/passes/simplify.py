"""Simplify: compute equal things once and useless things never.

What it is: merges nodes that do the same to the same inputs, and marks what no result depends on as dead.
What it is not: algebra on expressions; a kernel's common subexpressions are the backend's printer's.
Who calls it: ``passes.pipeline``, first; ``invert`` has what is dead marked anew.
"""

from __future__ import annotations

from typing import Any

from .program_graph import ProgramGraph

__all__ = ["mark_dead", "simplify"]


def simplify(graph: ProgramGraph) -> None:
    """Rewrite ``graph.inputs``, ``graph.roots`` and ``graph.users``; fill ``graph.same`` and ``graph.dead``."""
    seen: dict[Any, int] = {}
    same = graph.same
    for number in range(graph.count):
        node = graph.nodes[number]
        inputs = graph.inputs[number]
        if node.sig.kind == "alias":  # what follows the first input is there for gradients only
            inputs = inputs[:1]
        inputs = graph.inputs[number] = tuple([same.get(i, i) for i in inputs])
        # run-time numbers are not known here, and user code may have effects
        if not node.scalars and node.sig.kind != "opaque":
            first = seen.setdefault((node.sig, inputs), number)
            if first != number:
                same[number] = first
    graph.roots = frozenset(same.get(r, r) for r in graph.roots)
    mark_dead(graph)


def mark_dead(graph: ProgramGraph) -> None:
    """Fill ``graph.dead`` and ``graph.users`` from its inputs and roots."""
    needed = set(graph.roots)
    for number in range(graph.count - 1, -1, -1):
        if number in needed:
            needed.update(graph.inputs[number])
    graph.dead = frozenset(k for k in range(graph.count) if k not in needed)
    for users in graph.users:
        users.clear()
    for number in range(graph.count):
        if number in needed:
            for i in graph.inputs[number]:
                graph.users[i].append(number)
