"""The pending graph behind some roots, as units: what has to run, its structural key, and how its values meet a program.

What it is: ``Graph`` (the units that one evaluation runs, the stored arrays and numbers that they read, the key under which the
program is kept) and ``Route`` (a program, and where its arrays, numbers and results are in such a graph).
What it is not: running or planning. A unit is a recorded node, or a whole block of them (``graph.recipe``) that nobody has
looked into: a step of a training loop is a dozen units, while the program that it runs was planned from hundreds of nodes.
Who calls it: ``runtime.executor``.

Everything in ``Graph`` is on the path of every evaluation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from sys import getrefcount
from typing import TYPE_CHECKING, Any

from ..graph.node import Node
from ..graph.recipe import Block, block_of

if TYPE_CHECKING:
    from .programs import Program

__all__ = ["Graph", "Route", "is_held", "needed_by_gradients", "unmark"]


class Graph:
    """What has to run for ``roots`` (pending nodes, each once).

    ``units`` are in order of creation, ``parts`` the results of blocks that somebody reads. ``plain``: every block becomes
    ordinary nodes first. ``leaves`` and ``scalars`` stand in the order of first use. Graphs of equal ``key`` are equal in all
    that a program depends on, which nodes a later gradient may read among it."""

    __slots__ = ("key", "leaves", "parts", "roots", "scalars", "units")

    def __init__(self, roots: list[Node], plain: bool = False) -> None:
        self.roots = roots
        self._collect(plain)
        self._describe()

    def _collect(self, plain: bool) -> None:
        found: list[Any] = []
        parts: list[Node] = []
        stack = list(self.roots)
        for node in stack:
            node.pos = -1
        while stack:
            node = stack.pop()
            if type(node) is Node:
                found.append(node)
                inputs = node.inputs
            else:
                block = block_of(node)[0]
                if plain or block.values:
                    inputs = node.inputs  # an ordinary node from now on
                    found.append(node)
                else:
                    parts.append(node)
                    if block.pos == -1:
                        continue
                    block.pos = -1
                    found.append(block)
                    inputs = block.given
            for x in inputs:
                if x.buffer is None and x.pos != -1:
                    x.pos = -1
                    stack.append(x)
        if len(found) > 1:
            found.sort(key=_order)
        self.units: list[Any] = found
        self.parts = parts

    def _describe(self) -> None:
        """The key, and what is read by first use.

        Per unit: what it is, whether gradients flow through it, and per input a number: of a leaf negative, else the distance to
        the unit that makes it; the last bits say whether gradients may be asked of it, and through whom."""
        key: list[Any] = []
        leaves: dict[Node, int] = {}
        scalars: list[Any] = []
        in_order = True  # no array that is not row-major has been met
        k = 0
        for unit in self.units:
            unit.pos = k
            if type(unit) is Block:
                key.append(unit.recipe)
                if unit.released:
                    key.append(unit.released)
                inputs = unit.given
                scalars += unit.scalars
            else:
                key.append(unit.sig)
                if unit.requires_grad:
                    key.append("released" if unit.released else "flows")
                inputs = unit.inputs
                if unit.scalars:
                    scalars += unit.scalars
            for x in inputs:
                if x.buffer is not None:
                    number = leaves.get(x)
                    if number is None:
                        if x.buffer.order:
                            in_order = False
                        number = -4 * len(leaves) - 4
                        if x.requires_grad and (type(x) is not Node or x.inputs or is_held(x)):
                            number += 1
                        leaves[x] = number
                elif type(x) is Node:
                    number = (k - x.pos) << 2
                    if x.requires_grad and is_held(x):
                        number += 1
                else:
                    block, step = block_of(x)
                    number = (k - block.pos) << 2 | step << 40
                    if x.requires_grad:
                        number += 3 if is_held(x) else 2
                key.append(number)
            k += 1
        for node in self.parts:
            node.pos = 0
        key.append(None)
        for root in self.roots:
            if type(root) is Node:
                key.append(root.pos)
            else:
                block, step = block_of(root)
                key.append(block.pos | root.requires_grad << 39 | (step + 1) << 40)
        self.leaves = list(leaves)
        self.scalars = scalars
        if not in_order:
            key.append(tuple([x.buffer.order for x in leaves]))  # type: ignore[union-attr]
        self.key = tuple(key)

    def references(self) -> tuple[tuple[int, ...], ...]:
        """How often the graph itself refers to each of its units, parts and leaves."""
        count: Counter[int] = Counter()
        for unit in self.units:
            count.update(map(id, unit.given if type(unit) is Block else unit.inputs))
        of_blocks = Counter(id(block_of(x)[0]) for x in self.parts)
        return (
            tuple(of_blocks[id(u)] if type(u) is Block else count[id(u)] for u in self.units),
            tuple(count[id(x)] for x in self.parts),
            tuple(count[id(x)] for x in self.leaves),
        )

    def unshared(self, route: Route) -> bool:
        """Whether nothing outside refers to what is between leaves and roots, so that nobody will compute it again."""
        # one more reference is the list's, one the argument's
        units, parts = self.units, self.parts
        for k, uses in route.units:
            if getrefcount(units[k]) > uses + 2:
                return False
        for k, uses in route.parts:
            if getrefcount(parts[k]) > uses + 2:
                return False
        return True


def unmark(roots: list[Node]) -> None:
    """Take back what an interrupted ``Graph`` may have marked behind ``roots``: it would be left out of the next one."""
    met = set(roots)
    stack = list(roots)
    while stack:
        node = stack.pop()
        node.pos = 0
        if type(node) is Node:
            inputs = node.inputs
        else:
            block = block_of(node)[0]
            block.pos = 0
            inputs = block.given
        for x in inputs:
            if x.buffer is None and x not in met:
                met.add(x)
                stack.append(x)


_order = attrgetter("order")


def is_held(node: Node) -> bool:
    """Whether a user still holds the value."""
    handle = node.handle
    var = handle() if handle is not None else None
    return var is not None and var._node is node


@dataclass(slots=True)
class Route:
    """How graphs of one key meet their program.

    ``leaves`` and ``scalars``: which of the graph's come at each place of the program's, or ``None``: the same order.
    ``results``: (root, slot); ``passing``: (unit, step of a block or -1, slot) of what is stored for a later gradient;
    ``cut``: roots behind which no gradient is asked for. ``donations``: (output slot, leaf, references) as in a plan; empty
    where values must stay. ``units`` and ``parts``: (number, references) of what nobody else may hold then. ``opaque``:
    (position in the plan, unit). ``prepared``: the same as numbers for the compiled run; ``False`` where that can't run it."""

    program: Program
    leaves: tuple[int, ...] | None
    scalars: tuple[int, ...] | None
    results: tuple[tuple[int, int], ...]
    passing: tuple[tuple[int, int, int], ...]
    cut: tuple[int, ...]
    donations: tuple[tuple[int, int, int], ...]
    units: tuple[tuple[int, int], ...]
    parts: tuple[tuple[int, int], ...]
    opaque: tuple[tuple[int, int], ...]
    prepared: Any = None

    @classmethod
    def of(
        cls,
        program: Program,
        graph: Graph,
        plain: Graph,
        origins: dict[int, tuple[int, int]],
        needed: Sequence[bool],
        references: tuple[tuple[int, ...], ...],
    ) -> Route:
        """The route of ``graph`` to a program that was planned from the nodes of ``plain``, the same graph without blocks.

        ``origins``: id of a node -> the unit and the step that it stands for; ``needed``: whether a gradient may read it."""
        plan = program.plan
        root = {id(r): k for k, r in enumerate(graph.roots)}
        of_units, of_parts, of_leaves = references
        shown = {k for k, u in enumerate(graph.units) if id(u) in root}
        results, passing = [], []
        for position, slot in plan.results:
            made = id(plain.units[position])
            if made in root:
                results.append((root[made], slot))
            else:
                passing.append((*origins[made], slot))
        place = {id(x): k for k, x in enumerate(graph.leaves)}
        leaves = tuple(place[id(x)] for x in plain.leaves)
        keeps = any(needed)
        return cls(
            program,
            leaves if leaves != tuple(range(len(graph.leaves))) else None,
            _scalars(graph, plain, origins),
            tuple(results),
            tuple(passing),
            tuple(k for k, r in enumerate(graph.roots) if not needed[r.pos]),
            () if keeps else tuple((o, leaf, of_leaves[leaves[leaf]]) for o, leaf in plan.donations),
            tuple((k, uses) for k, uses in enumerate(of_units) if k not in shown),
            tuple((k, uses) for k, uses in enumerate(of_parts) if id(graph.parts[k]) not in root),
            tuple((k, origins[id(u)][0]) for k, u in enumerate(plain.units) if u.sig.kind == "opaque"),
        )


def _scalars(graph: Graph, plain: Graph, origins: dict[int, tuple[int, int]]) -> tuple[int, ...] | None:
    """Which of the numbers of ``graph`` come at each place of those of ``plain``."""
    first: dict[tuple[int, int], int] = {}
    count = 0
    for k, unit in enumerate(graph.units):
        steps = [s[2] for s in unit.recipe.steps] if type(unit) is Block else None
        for step, numbers in enumerate(steps) if steps is not None else [(-1, unit.scalars)]:
            first[k, step] = count
            count += len(numbers)
    picks: list[int] = []
    for node in plain.units:
        start = first[origins[id(node)]]
        picks.extend(range(start, start + len(node.scalars)))
    return tuple(picks) if picks != list(range(count)) else None


def needed_by_gradients(nodes: Sequence[Node], roots: Sequence[Node]) -> list[bool]:
    """Which of ``nodes`` (ordinary, in order, numbered by ``pos``) lie behind a root whose gradient may be asked for, whether
    gradients flow through them or not: the gradient reads values of either kind."""
    flows: list[bool] = []
    for node in nodes:
        flows.append(node.requires_grad and not node.released and any(_may_be_asked(node, flows)))
    behind = [False] * len(nodes)
    for node in roots:
        behind[node.pos] = flows[node.pos]
    for k in range(len(nodes) - 1, -1, -1):
        if behind[k]:
            for x in nodes[k].inputs:
                if x.buffer is None:
                    behind[x.pos] = True
    return behind


def _may_be_asked(node: Node, flows: list[bool]) -> Iterator[bool]:
    """Per input whether somebody may ask for a gradient of it, or of what is behind it."""
    for x in node.inputs:
        if x.buffer is None:
            yield flows[x.pos] or (x.requires_grad and is_held(x))
        else:
            yield x.requires_grad and (type(x) is not Node or bool(x.inputs) or is_held(x))
