"""Recipes: what a pure composition of operators recorded once, recorded again without its Python.

What it is: ``Recipe``, nodes in terms of given nodes; ``recorded``, which gives a composition a memory; ``Memory``, the
bounded table. ``autograd`` keeps the recipes of whole backward passes.
What it is not: a cache of values or of compiled programs. The nodes are those that the Python code would have recorded, with
the same signatures, numbers and gradient flags; dead ones are left out.
Who calls it: ``autograd`` and compositions in ``neural``.

A composition is pure if the nodes that it records follow from the shapes, dtypes and gradient flags of its Vars, from its
other arguments, and from flags. One that draws random numbers, reads values or rebinds Vars is not.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Hashable, Sequence
from operator import itemgetter
from typing import Any, TypeVar

from ..config import SETTINGS, flags, observe
from ..graph.node import Node, new_node, next_order, state
from ..var import Var, sync_all, wrap

__all__ = ["Memory", "Recipe", "exact", "recorded", "settings", "user_code"]

F = TypeVar("F", bound=Callable[..., Any])

_PLAIN = (bool, int, float, str, type(None))


class Recipe:
    """Nodes in order of creation. ``steps``: (signature, picks its inputs, numbers, gradient flag); places count the given
    nodes first, then the steps. ``results``: places of what is handed out."""

    __slots__ = ("results", "steps")

    def __init__(self, steps: list[tuple[Any, ...]], results: list[int]) -> None:
        self.steps = steps
        self.results = results

    @classmethod
    def of(cls, results: Sequence[Var], given: Sequence[Node]) -> Recipe | None:
        """The recipe of ``results`` from ``given``; ``None`` if they also depend on anything else."""
        place = {node: k for k, node in enumerate(given)}
        found: list[Node] = []
        stack = list(dict.fromkeys(r._node for r in results))  # two results may be one node
        seen = set(stack)
        while stack:
            node = stack.pop()
            if node in place:
                continue
            if (
                node.buffer is not None
                or node.rule is not None
                or node.released
                or _draws(node)
                or _ordered(node)
            ):
                return None
            found.append(node)
            for x in node.inputs:
                if x not in seen:
                    seen.add(x)
                    stack.append(x)
        found.sort(key=lambda n: n.order)
        steps = []
        for node in found:
            inputs = [place[x] for x in node.inputs]
            steps.append((node.sig, _picker(inputs), node.scalars, node.requires_grad))
            place[node] = len(place)
        return cls(steps, [place[r._node] for r in results])

    def follow(self, given: Sequence[Node], origin: Any) -> list[Var]:
        """Record the nodes again, from other given ones; answers handles of the results."""
        nodes = list(given)
        append = nodes.append
        for sig, pick, scalars, requires_grad in self.steps:
            node = new_node(Node)
            node.sig = sig
            node.spec = sig.spec
            node.inputs = pick(nodes)
            node.scalars = scalars
            node.requires_grad = requires_grad
            node.buffer = None
            node.order = next_order()
            node.handle = None
            node.origin = origin
            node.pos = 0
            node.released = False
            node.rule = None
            append(node)
        answers = [wrap(nodes[k]) for k in self.results]
        if len(state.pending) > state.limit:
            sync_all()
        return answers


def _picker(places: list[int]) -> Callable[[list[Node]], tuple[Node, ...]]:
    if len(places) > 1:
        return itemgetter(*places)
    if not places:
        return lambda nodes: ()
    only = places[0]
    return lambda nodes: (nodes[only],)


def _ordered(node: Node) -> bool:
    """Whether it depends on what was recorded before it: a collective."""
    return node.sig.kind == "opaque" and getattr(node.sig.attrs, "ordered", False)


def _draws(node: Node) -> bool:
    return any(x.op == "uniform" for x, _ in node.sig.steps)


class Memory:
    """Recipes by key; forgotten when there are many."""

    LIMIT = 1024

    def __init__(self) -> None:
        self.table: dict[Any, Any] = {}

    def keep(self, key: Any, recipe: Any) -> None:
        """Remember a recipe, or (``None``) that there is none."""
        if len(self.table) >= self.LIMIT:
            self.table.clear()
        self.table[key] = recipe


#: the number of the present values of all flags, or nothing where one has changed since it was asked for
_now: list[int] = []
_numbers: dict[tuple[Any, ...], int] = {}


def settings() -> int:
    """A number that is the same only where all flags have the same values; what is told to the user apart."""
    if not _now:
        if not _numbers:  # the first time: flags are not read before anything is computed
            for name in SETTINGS:
                observe(name, lambda _: _now.clear())
        values = tuple(getattr(flags, name) for name in SETTINGS if name != "log_silent")
        _now.append(_numbers.setdefault(values, len(_numbers)))
    return _now[0]


def exact(numbers: Sequence[Any]) -> tuple[Hashable, ...] | None:
    """Plain numbers as a key that tells zeros of either sign apart; ``None`` if one is no plain number, or NaN."""
    found: list[Any] = []
    for x in numbers:
        kind = type(x)
        if kind is not float and kind is not int and kind is not bool:
            return None
        if kind is float and (x == 0.0 or x != x):
            if x != x:
                return None
            found.append(repr(x))
        else:
            found.append(x)
        found.append(kind)
    return tuple(found)


def user_code() -> Any:
    """The innermost place outside of metafuse, as nodes keep it."""
    frame: Any = sys._getframe(2)
    while frame.f_globals.get("__name__", "")[:8] == "metafuse" and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code, frame.f_lasti


def recorded(function: F) -> F:
    """A pure composition, answering one Var, that goes by recipes where it was called alike before.

    Example:
        >>> import metafuse as mf
        >>> from metafuse.ops.recipe import recorded
        >>> calls = []
        >>> @recorded
        ... def twice(x):
        ...     calls.append(1)
        ...     return x + x
        >>> [twice(mf.array([k])).item() for k in (1.0, 2.0, 3.0)], len(calls)
        ([2.0, 4.0, 6.0], 1)
    """
    memory = Memory()
    table = memory.table

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        key: list[Any] = [state.grad_enabled, settings()]
        given: list[Node] = []
        for value in args:
            if type(value) is Var:
                node = value._node
                key.append(node.spec)
                key.append(node.requires_grad)
                given.append(node)
            elif type(value) in _PLAIN:
                key.append(value or repr(value))  # zeros of either sign
                key.append(type(value))
            elif type(value) is tuple and all(type(v) is int for v in value):
                key.append(value)
            else:
                return function(*args, **kwargs)
        if kwargs:
            for name, value in kwargs.items():
                if type(value) not in _PLAIN:
                    return function(*args, **kwargs)
                key += (name, value or repr(value), type(value))
        if len(set(given)) != len(given) or not state.limit:
            return function(*args, **kwargs)
        whole = tuple(key)
        recipe = table.get(whole)
        if recipe is not None:
            return recipe.follow(given, user_code())[0]
        answer = function(*args, **kwargs)
        if whole not in table:
            new = type(answer) is Var and not answer.__dict__ and all(answer._node is not n for n in given)
            memory.keep(whole, Recipe.of([answer], given) if new else None)
        return answer

    return call  # type: ignore[return-value]
