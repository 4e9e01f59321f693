"""The memory of updates: what an optimizer's rule recorded for its parameters once is recorded again without its Python.

What it is: ``Updates``, which has the recipe of one optimizer's step. Arithmetic on its numbers (learning rate, the count of
steps) is followed, so that they may change from step to step.
What it is not: an update rule, or ``compile``: everything around the updates is the user's Python.
Who calls it: ``Optimizer.record_updates``.

Only rules that say so (``@steady``) are remembered: those that do the same for the same options, types and count of steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ..graph.node import Node, state
from ..graph.recipe import Recipe
from ..ops.recipe import settings, user_code
from ..runtime import executor
from ..var import Var, sync_all

if TYPE_CHECKING:
    from .optimizer import Optimizer

__all__ = ["Updates", "steady"]

Rule = TypeVar("Rule", bound=Callable[..., Any])


def steady(rule: Rule) -> Rule:
    """Mark an ``update`` that depends on its arguments and on ``n_step`` alone: what it records may be remembered."""
    rule.steady = True  # type: ignore[attr-defined]
    return rule


class Updates:
    """What one optimizer's updates record.

    ``key`` says when ``recipe`` holds; ``numbers`` computes its run-time numbers from the options and the count of steps."""

    def __init__(self) -> None:
        self.key: Any = None
        self.recipe: Recipe | None = None
        self.flags: list[bool] = []
        self.numbers: Callable[..., Any] = lambda *_: None

    def record(self, optimizer: Optimizer) -> list[Var] | None:
        """Record the updates of every parameter with a gradient; answers the Vars that hold something new, or ``None`` where
        the rule has to do it."""
        if not getattr(type(optimizer).update, "steady", False) or executor.watchers or not state.limit:
            return None
        changed, given, options, key = _described(optimizer)
        if key != self.key:
            self.key, self.recipe = key, None  # the rule itself does it once before it is believed
            return None
        if len(set(given)) != len(given):
            return None
        if self.recipe is not None:
            scalars = self.numbers(options, ())
            if scalars is not None:
                nodes = self.recipe.follow(given, user_code(), scalars)
                for var, node, requires_grad in zip(changed, nodes, self.flags, strict=True):
                    node.requires_grad = requires_grad  # the rule may hand out what it was given
                    var._bind(node)
                if len(state.pending) > state.limit:
                    sync_all()
                return changed
        self._learn(optimizer, changed, given, options)
        return changed

    def _learn(self, optimizer: Optimizer, changed: list[Var], given: list[Node], options: list[Any]) -> None:
        """Have the rule record the updates with followed numbers, and make a recipe of it."""
        from ..capture.numbers import Number, Tape  # with the second step, not with the import

        kind: Any = Number
        tape = Tape()
        followed = [tape.source(f"D[{k}]", value) for k, value in enumerate(options)]
        optimizer.record_with(followed)
        made = [v._node for v in changed]
        codes: list[str] = []
        tape.open = False
        recipe = Recipe.of(made, given)
        node: Any
        for node in _behind(made, given):  # the numbers of the recorded nodes are bare again
            node.scalars = tuple([x.value if type(x) is kind else x for x in node.scalars])
        if recipe is None:
            return
        for step in recipe.steps:
            codes += [x.code if type(x) is kind else tape.constant(x) for x in step[2]]
        self.flags = [node.requires_grad for node in made]
        self.recipe = recipe.bare()
        self.numbers = tape.compile(codes)


def _behind(nodes: list[Node], given: list[Node]) -> list[Node]:
    """Everything between ``given`` nodes and ``nodes``."""
    seen = set(given)
    found: list[Node] = []
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            found.append(node)
            stack.extend(node.inputs)
    return found


def _described(optimizer: Optimizer) -> tuple[list[Var], list[Node], list[Any], list[Any]]:
    """The Vars that change, the nodes that the rule is given, its numbers, and what else the updates depend on."""
    changed: list[Var] = []
    given: list[Node] = []
    options: list[Any] = []
    key: list[Any] = [settings(), type(optimizer).update]
    for group in optimizer.param_groups:
        values = optimizer.group_options(group)
        key.append(_flat(values, options))
        for k, (p, g) in enumerate(zip(group["params"], group["grads"], strict=True)):
            node = p._node
            if g is None or not node.requires_grad:
                key.append(None)
                continue
            held = optimizer._state(group, k)
            key += (node.spec, g._node.spec)
            changed.append(p)
            given += (node, g._node)
            for var in held.values():
                changed.append(var)
                given.append(var._node)
                if var._node.requires_grad:
                    key.append("flows")
            if g._node.requires_grad:
                key.append("asked")
    options.append(optimizer.n_step)
    return changed, given, options, key


def _flat(values: dict[str, Any], options: list[Any]) -> list[Any]:
    """What options look like; numbers are put to ``options``."""
    shape: list[Any] = []
    for value in values.values():
        several = value if type(value) is tuple else (value,)
        shape.append(len(several) if type(value) is tuple else -1)
        for x in several:
            if type(x) in (int, float):
                shape.append(type(x))
                options.append(x)
            else:
                shape.append(x)
    return shape
