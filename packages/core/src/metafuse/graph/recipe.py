"""Recipes: nodes that were recorded once, to be recorded again without their Python; blocks: recipes that nobody looked into.

What it is: ``Recipe``, nodes in terms of given nodes; ``Block``, the recorded nodes of a recipe that stay one unit until
somebody asks for the inputs of one of its results (``BlockNode``), which puts ordinary nodes in its place.
What it is not: a cache of values or of compiled programs, and no operation of its own: passes never see a block. The nodes are
those that the Python code would have recorded, with the same signatures, numbers and gradient flags; dead ones are left out.
Who calls it: ``ops.recipe`` and ``ops.autograd`` make and follow recipes; ``runtime.pending`` takes blocks as they are.

Why: a layer or a backward pass is many nodes, and a loop records the same ones in every step. As one unit they cost one object to
record, and one entry in the key by which the compiled program is found.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from operator import itemgetter
from threading import RLock
from typing import Any
from weakref import ReferenceType, ref

from .node import Node, Signature, make_node, next_order

__all__ = ["Block", "BlockNode", "Recipe", "block_of", "is_ordered"]

#: recipes of fewer nodes are recorded as ordinary ones
BLOCK_SIZE = 3
#: held while a block is expanded: gradients of one thread look into what another is about to run
_expanding = RLock()


def _renew() -> None:
    global _expanding
    _expanding = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)

Pick = Callable[[Sequence[Node]], tuple[Node, ...]]
Step = tuple[Signature, Pick, tuple[Any, ...], bool]


class Recipe:
    """Nodes in order of creation. ``steps``: (signature, picks its inputs, numbers, gradient flag); places count the given
    nodes first, then the steps. ``results``: places of what is handed out. ``scalars``: the numbers of all steps. ``repeats``:
    whether steps may be the same as nodes behind the given ones: a backward pass reads the forward pass, of which it is given
    what stands at the ends of blocks. Where the block is expanded it takes the nodes that are there. ``takes`` picks the given
    nodes that the steps read, or behind which their like are found. ``few``: one or two steps, the last of which is the only
    result, each as (signature, places of its inputs among the given nodes and the steps, numbers, gradient flag)."""

    __slots__ = ("ages", "few", "repeats", "results", "scalars", "steps", "takes", "whole")

    def __init__(self, steps: list[Step], results: list[int], takes: Pick, repeats: bool = False) -> None:
        self.steps = steps
        self.results = results
        self.takes = takes
        self.repeats = repeats
        self.few: list[tuple[Signature, tuple[int, ...], tuple[Any, ...], bool]] | None = None
        self.scalars = [number for step in steps for number in step[2]]
        # what a node is older than the last one of its block, less than 1, so that orders still tell who came first
        count = len(steps)
        self.ages = [(count - 1 - k) / (count + 1) for k in range(count)]
        self.whole = count >= BLOCK_SIZE and all(step[0].kind != "opaque" for step in steps)

    @classmethod
    def of(cls, results: Sequence[Node], given: Sequence[Node], repeats: bool = False) -> Recipe | None:
        """The recipe of ``results`` from ``given``; ``None`` if they also depend on anything else."""
        known = set(given)
        read: set[Node] = known.intersection(results)
        found: list[Node] = []
        stack = list(dict.fromkeys(results))  # two results may be one node
        seen = set(stack)
        while stack:
            node = stack.pop()
            if node in known:
                continue
            if (
                node.buffer is not None
                or node.rule is not None
                or node.released
                or _draws(node)
                or is_ordered(node)
            ):
                return None
            found.append(node)
            read.update(known.intersection(node.inputs))
            for x in node.inputs:
                if x not in seen:
                    seen.add(x)
                    stack.append(x)
        found.sort(key=lambda n: n.order)
        if repeats:
            read |= _ahead(given, set(found))
        takes = [k for k, node in enumerate(given) if node in read]
        place = {given[k]: number for number, k in enumerate(takes)}
        steps: list[Step] = []
        for node in found:
            inputs = [place[x] for x in node.inputs]
            steps.append((node.sig, _picker(inputs), node.scalars, node.requires_grad))
            place[node] = len(place)
        recipe = cls(steps, [place[r] for r in results], _picker(takes), repeats)
        if len(found) <= 2 and found[-1:] == list(results) and not repeats:
            number = {x: k for k, x in enumerate([*given, *found])}
            recipe.few = [
                (x.sig, tuple([number[y] for y in x.inputs]), x.scalars, x.requires_grad) for x in found
            ]
        return recipe

    def bare(self) -> Recipe:
        """The same without numbers: ``follow`` is told them each time. Each step still says how many it has."""
        steps = [(sig, pick, (0,) * len(scalars), flag) for sig, pick, scalars, flag in self.steps]
        return Recipe(steps, self.results, self.takes, self.repeats)

    def follow(self, given: Sequence[Node], origin: Any, scalars: Sequence[Any] | None = None) -> list[Node]:
        """Record the nodes again, from other given ones and with other numbers, if any; answers the results."""
        taken = self.takes(given)
        if not self.whole and not self.repeats and scalars is None:
            return self.plainly(taken, origin)
        block = Block(self, taken, origin, self.scalars if scalars is None else scalars)
        nodes = block.made(self.results)
        if not self.whole:
            block.expand()
        return nodes

    def plainly(self, given: tuple[Node, ...], origin: Any) -> list[Node]:
        """Ordinary nodes at once."""
        nodes = list(given)
        for sig, pick, numbers, requires_grad in self.steps:
            node = make_node(sig, requires_grad, next_order(), origin)
            node.inputs = pick(nodes)
            node.scalars = numbers
            nodes.append(node)
        return [nodes[place] for place in self.results]


class Block:
    """The nodes of a recipe as one unit. ``scalars``: the numbers of all its steps.

    ``nodes``: (number of its step, weak reference) of the results; ``values``: buffers of steps that were stored in passing, for
    a gradient; ``released``: through which of the given nodes a gradient has consumed what is behind the results, if one has;
    ``plain``: the ordinary nodes, once they are there."""

    __slots__ = (
        "given", "nodes", "order", "origin", "plain", "pos", "recipe", "released", "scalars", "values",
    )  # fmt: skip

    def __init__(self, recipe: Recipe, given: tuple[Node, ...], origin: Any, scalars: Sequence[Any]) -> None:
        self.recipe = recipe
        self.given = given
        self.origin = origin
        self.scalars = scalars
        self.order: float = next_order()
        self.pos = 0
        self.released: tuple[bool, ...] = ()
        self.nodes: list[tuple[int, ReferenceType[Node]]] = []
        self.values: dict[int, Any] = {}
        self.plain: list[Node] | None = None

    def made(self, places: Sequence[int]) -> list[Node]:
        """The nodes that stand at ``places``; called once."""
        given, recipe = self.given, self.recipe
        count, order = len(given), self.order
        known: dict[int, Node] = {}
        answer: list[Node] = []
        for place in places:
            if place < count:
                answer.append(given[place])
                continue
            node = known.get(place)
            if node is None:
                step = place - count
                sig, _, _, requires_grad = recipe.steps[step]
                node = make_node(sig, requires_grad, order - recipe.ages[step], self.origin, BlockNode)
                _set_inputs(node, (self, step))
                self.nodes.append((step, ref(node)))
                known[place] = node
            answer.append(node)
        return answer

    def store(self, step: int, buffer: Any) -> None:
        """Keep a value that the program stored in passing."""
        self.values[step] = buffer
        for number, reference in self.nodes:
            node = reference() if number == step else None
            if node is not None and node.buffer is None:
                node.buffer = buffer

    def release(self, node: Node, through: set[Node]) -> None:
        """A gradient has consumed what is behind the result ``node``, along given nodes that are in ``through``."""
        node.released = True
        new = tuple([x in through for x in self.given])
        old = self.released
        self.released = new if not old else tuple([a or b for a, b in zip(old, new, strict=True)])

    def expand(self) -> list[Node]:
        """Put ordinary nodes in the place of the block, once; answers them, step by step."""
        with _expanding:
            if self.plain is None:
                self.plain = self._expand()
            return self.plain

    def _expand(self) -> list[Node]:
        held = {number: reference() for number, reference in self.nodes}
        known = _between(self.given) if self.recipe.repeats else {}
        nodes = list(self.given)
        consumed = {x for x, flag in zip(nodes, self.released) if flag}
        used = 0
        for number, (sig, pick, scalars, requires_grad) in enumerate(self.recipe.steps):
            if self.scalars is not self.recipe.scalars:
                scalars = tuple(self.scalars[used : used + len(scalars)])
                used += len(scalars)
            node = held.get(number)
            if node is None:
                inputs = pick(nodes)
                node = known.get((sig, inputs, id(scalars), requires_grad))
                if node is None:
                    order = self.order - self.recipe.ages[number]
                    node = make_node(sig, requires_grad, order, self.origin)
                    node.buffer = self.values.get(number)
                    node.inputs = inputs
                    node.scalars = scalars
            elif type(node) is BlockNode:
                node.inputs = pick(nodes)
                node.scalars = scalars
            nodes.append(node)  # one whose inputs were cut stays so
            if consumed and requires_grad and not consumed.isdisjoint(node.inputs):
                node.released = True
                consumed.add(node)
        return nodes[len(self.given) :]


def _ahead(given: Sequence[Node], wanted: set[Node]) -> set[Node]:
    """Those of ``given`` behind which ``_between`` finds everything of ``wanted`` that it finds behind all of them."""
    ends = set(given)
    chosen: set[Node] = set()
    for start in reversed(given):
        stack = [x for x in start.inputs if x not in ends] if start.requires_grad else []
        while stack:
            node = stack.pop()
            if node not in ends:
                ends.add(node)
                if node in wanted:
                    chosen.add(start)
                stack.extend(node.inputs)
    return chosen


def _between(given: tuple[Node, ...]) -> dict[Any, Node]:
    """The nodes behind ``given`` ones that gradients flow through, up to other given ones, by what they are."""
    ends = set(given)
    found: dict[Any, Node] = {}
    stack = [x for node in given if node.requires_grad for x in node.inputs]
    while stack:
        node = stack.pop()
        if node not in ends:
            ends.add(node)
            found[node.sig, node.inputs, id(node.scalars), node.requires_grad] = node
            stack.extend(node.inputs)
    return found


class BlockNode(Node):
    """A result of a block. It becomes an ordinary node as soon as somebody asks for its inputs or sets them."""

    __slots__ = ()

    @property
    def inputs(self) -> tuple[Node, ...]:  # type: ignore[override]
        """What the operation reads; the block is expanded for it."""
        block_of(self)[0].expand()
        return self.inputs

    @inputs.setter
    def inputs(self, value: tuple[Node, ...]) -> None:
        self.__class__ = Node  # type: ignore[assignment]
        self.inputs = value
        self.scalars = ()

    @property
    def scalars(self) -> tuple[float | int, ...]:  # type: ignore[override]
        """The numbers of the operation; the block is expanded for them."""
        block_of(self)[0].expand()
        return self.scalars

    @scalars.setter
    def scalars(self, value: tuple[float | int, ...]) -> None:
        raise AttributeError("a block has the numbers of its nodes")


_set_inputs = Node.inputs.__set__  # type: ignore[attr-defined, misc]
#: (block, number of the step) of a ``BlockNode``
block_of: Callable[[Node], tuple[Block, int]] = Node.inputs.__get__  # type: ignore[attr-defined, misc]


def _picker(places: list[int]) -> Pick:
    if len(places) > 1:
        return itemgetter(*places)
    if not places:
        return lambda nodes: ()
    only = places[0]
    return lambda nodes: (nodes[only],)


def is_ordered(node: Node) -> bool:
    """Whether it depends on what was recorded before it: a collective, which all ranks run in the same order."""
    return node.sig.kind == "opaque" and getattr(node.sig.attrs, "ordered", False)


def _draws(node: Node) -> bool:
    return any(x.op == "uniform" for x, _ in node.sig.steps)
