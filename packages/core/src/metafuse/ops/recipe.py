"""The memory of compositions: what a pure composition of operators recorded once is recorded again without its Python.

What it is: ``recorded``, which gives a composition a memory; ``Memory``, the bounded table; ``follow``, a recipe's results as
Vars.
``autograd`` keeps the recipes of whole backward passes, optimizers those of their updates.
What it is not: the recipes themselves (``graph.recipe``).
Who calls it: ``autograd``, ``optim`` and compositions in ``neural``.

A composition is pure if the nodes that it records follow from the shapes, dtypes and gradient flags of its Vars, from its
other arguments, and from flags. One that draws random numbers, reads values or rebinds Vars is not.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from ..config import SETTINGS, flags, observe
from ..graph.node import Node, make_node, next_order, state
from ..graph.recipe import Recipe
from ..hot import compiled
from ..var import Var, record, sync_all, wrap
from .other_names import other_names, own_names
from .telling import REFUSALS, under

__all__ = ["Memory", "exact", "follow", "recorded", "settings", "user_code"]

F = TypeVar("F", bound=Callable[..., Any])

_PLAIN = (bool, int, float, str, type(None))
#: of a call that was not made before: no recipe
_UNKNOWN = (None, False)


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


def follow(recipe: Recipe, given: Sequence[Node], origin: Any) -> list[Var]:
    """Record the nodes of ``recipe`` from ``given`` ones; answers handles of the results."""
    answers = [wrap(node) for node in recipe.follow(given, origin)]
    if len(state.pending) > state.limit:
        sync_all()
    return answers


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


def _note(node: Node, key: list[Any], given: list[Node]) -> None:
    """Add what a composition sees of a given node to the key, and the node, if it is new, to the given ones."""
    if node in given:
        key.append(given.index(node))
    else:
        key.append(node.spec)
        key.append(node.requires_grad)
        given.append(node)


def _as_recorded(node: Node) -> bool:
    """Whether gradients flow through it just where ``record`` would have them flow now."""
    flows = node.sig.differentiable and state.grad_enabled
    return node.requires_grad == (flows and any(x.requires_grad for x in node.inputs))


def _few(steps: list[Any], given: list[Node]) -> Var:
    """Record the one or two steps of ``Recipe.few``: the same as ``follow``, with fewer calls."""
    sig, places, numbers, flows = steps[0]
    inputs = tuple([given[k] for k in places])
    if len(steps) == 1:
        return record(sig, inputs, numbers)
    inner = make_node(sig, flows, next_order(), None)
    inner.inputs = inputs
    inner.scalars = numbers
    sig, places, numbers, _ = steps[1]
    nodes = [*given, inner]
    result = record(sig, tuple([nodes[k] for k in places]), numbers)
    inner.origin = result._node.origin
    return result


def recorded(function: F) -> F:
    """A pure composition, answering a Var or a tuple of Vars, that goes by recipes where it was called alike before.

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
    names = other_names(function)
    told = ""  # the name of the operator, if it is one

    def plainly(told: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return function(*args, **kwargs)
        except REFUSALS as error:
            raise under(told, error) from None

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            args, kwargs = own_names(told or function.__name__, names, args, kwargs)
        if compiled is not None:
            answer = compiled.replay(table, _now, args, kwargs)
            if answer is not None:
                return answer
        key: list[Any] = [state.grad_enabled, _now[0] if _now else settings()]
        given: list[Node] = []
        for value in args:
            if type(value) is Var:
                node = value._node
                if given:
                    _note(node, key, given)
                else:
                    given.append(node)
                    key += (node.spec, node.requires_grad)
            elif type(value) in _PLAIN:
                key.append(value or repr(value))  # zeros of either sign
                key.append(type(value))
            elif type(value) not in (tuple, list):
                return plainly(told, args, kwargs)
            elif all(type(v) is int for v in value):
                key += (type(value), *value)
            elif all(type(v) is Var for v in value):
                key += (type(value), len(value))
                for v in value:
                    _note(v._node, key, given)
            else:
                return plainly(told, args, kwargs)
        if kwargs:
            for name, value in kwargs.items():
                if type(value) not in _PLAIN:
                    return plainly(told, args, kwargs)
                key += (name, value or repr(value), type(value))
        if not state.limit:
            return plainly(told, args, kwargs)
        whole = tuple(key)
        recipe, several = table.get(whole, _UNKNOWN)
        if recipe is not None:
            if recipe.few is not None:
                only = _few(recipe.few, given)
                return (only,) if several else only
            answers = follow(recipe, given, user_code())
            return tuple(answers) if several else answers[0]
        answer = plainly(told, args, kwargs)
        if whole not in table:
            several = type(answer) is tuple
            answers = list(answer) if several else [answer]
            new = all(type(a) is Var and not a.__dict__ and a._node not in given for a in answers)
            recipe = Recipe.of([a._node for a in answers], given) if new else None
            if recipe is not None and recipe.few is not None and not _as_recorded(answers[0]._node):
                recipe.few = None
            memory.keep(whole, (recipe, several))
        return answer

    call.other_names = names  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]
