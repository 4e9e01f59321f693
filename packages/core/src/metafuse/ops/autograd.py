"""Gradients as a graph transformation.

What it is: ``grad`` walks the recorded graph backwards and records ordinary nodes, so that a backward pass fuses with the
forward pass and the update and can be differentiated again; modes that switch recording of gradient paths off and on.
What it is not: the rules (each operator's record carries its own).
Who calls it: users, ``optim``.

Source: reverse-mode accumulation, Griewank and Walther, "Evaluating Derivatives", SIAM 2008, chapter 3.
"""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import numpy as np

from ..errors import DTypeError, GradientError
from ..finite import listed
from ..graph.node import Node, describe_origin, state
from ..graph.recipe import Recipe, block_of
from ..hot import compiled
from ..var import Var
from .meta import check_flag, fill, identity
from .recipe import Memory, exact, follow, settings, user_code

__all__ = ["enable_grad", "grad", "no_grad"]

F = TypeVar("F", bound=Callable[..., Any])


class _PlainScope:
    """A ``with`` block in which the thread's mode is another one. Python may handle a signal as ``__exit__`` begins, and what it
    raises then leaves the mode behind; the compiled class of the same meaning has no such moment."""

    mode: Any
    enabled: bool

    def __init__(self) -> None:
        self._before: list[bool] = []

    def __enter__(self) -> Any:
        self._before.append(self.mode.enabled)
        self.mode.enabled = self.enabled
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.mode.enabled = self._before.pop()


_Scope: type[Any] = _PlainScope if compiled is None else compiled.ModeScope


class _GradMode(_Scope):
    """A context manager and decorator that sets whether gradient paths are recorded."""

    mode = state.mode

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with type(self)():
                return function(*args, **kwargs)

        return inside  # type: ignore[return-value]


class no_grad(_GradMode):  # noqa: N801 - the reference API's name
    """Nothing recorded inside requires a gradient.

    Example:
        >>> import metafuse as mf
        >>> with mf.no_grad():
        ...     y = mf.ones(2) * 2
        >>> y.requires_grad
        False
    """

    enabled = False


class enable_grad(_GradMode):  # noqa: N801 - the reference API's name
    """Gradient paths are recorded again inside a ``no_grad``.

    Example:
        >>> import metafuse as mf
        >>> x = mf.ones(2)
        >>> with mf.no_grad():
        ...     with mf.enable_grad():
        ...         y = x * 2
        >>> y.requires_grad
        True
    """

    enabled = True


def grad(loss: Var, targets: Any, retain_graph: bool = True) -> Any:
    """Gradients of ``loss`` (summed, if it has several elements) with respect to ``targets``.

    Args:
        loss: a floating Var of any shape.
        targets: a Var or a list of Vars, leaves or intermediate values.
        retain_graph: keep the graph behind ``loss`` for another gradient; ``False`` lets its memory go.

    Returns:
        A Var, or a list of Vars, each of its target's shape and dtype; they can be differentiated again. A target that
        ``loss`` does not depend on gets zeros and a warning that says where the path was cut.

    Errors:
        DTypeError if ``loss`` is not floating; GradientError if the graph behind it was released.

    Example:
        >>> import metafuse as mf
        >>> x = mf.array([3.0])
        >>> mf.grad(x * x * x, x).numpy(), mf.grad(mf.grad(x * x * x, x), x).numpy()
        (array([27.], dtype=float32), array([18.], dtype=float32))
    """
    if type(retain_graph) is not bool:
        retain_graph = check_flag("grad", "retain_graph", retain_graph)
    single = type(targets) is Var
    wanted: Sequence[Var] = [targets] if single else targets
    if type(wanted) is not list:
        if not isinstance(targets, Iterable) or type(targets) in (str, bytes, np.ndarray):
            raise DTypeError(f"[grad] targets must be a Var or a list of Vars, got {type(targets).__name__}")
        wanted = listed("grad", "targets", targets)
    if type(loss) is not Var or not loss._node.spec.dtype.is_float:
        raise DTypeError(
            f"[grad] loss must be a floating Var, got {getattr(loss, 'dtype', type(loss).__name__)}"
        )
    nodes = []
    for k, t in enumerate(wanted):
        if type(t) is not Var:
            raise DTypeError(f"[grad] targets[{k}] must be a Var, got {type(t).__name__}")
        nodes.append(t._node)
    results: list[Any] = _backward(loss._node, nodes, retain_graph)
    for k, result in enumerate(results):
        if result is None:
            results[k] = _missing(loss, wanted[k])
    if len(set(map(id, results))) < len(results):  # a + b: one gradient for both
        places = Counter(map(id, results))
        # each a Var that may be changed in place, none behind another
        results = [identity(r) if places[id(r)] > 1 else r for r in results]
    return results[0] if single else results


def _backward(loss: Node, targets: list[Node], retain_graph: bool) -> list[Var | None]:
    if compiled is not None:
        known_results: list[Var | None] | None = compiled.backward(
            _recipes.table, settings(), loss, targets, retain_graph
        )
        if known_results is not None:
            return known_results
    nodes, ends = _upstream(loss, targets)
    wanted, leads, inner = _leading(nodes, targets)
    if ends and not wanted <= leads:  # the others may be behind those
        _refuse(ends[0])
    key, given = _key(nodes, leads, targets)
    known = _recipes.table.get(key) if key is not None else None
    if known is not None:
        recipe, absent = known
        found: list[Var | None] = list(follow(recipe, given, user_code()))
        for k in absent:  # targets that the loss does not depend on
            found.insert(k, None)
    else:
        if any(type(node) is not Node for node in nodes):  # rules look into what was recorded as one
            for node in nodes:
                _ = node.inputs
            nodes, _ = _upstream(loss, targets)
            wanted, leads, inner = _leading(nodes, targets)
        found = _walk_back(loss, nodes, wanted, leads, targets)
        if key is not None:
            made = Recipe.of([g._node for g in found if g is not None], given, repeats=True)
            if made is not None:
                _recipes.keep(key, (made, [k for k, g in enumerate(found) if g is None]))
    if not retain_graph:
        for node in inner:  # what leads to no target, and a target itself, may be asked again
            if type(node) is Node:
                node.released = True
            else:
                block_of(node)[0].release(node, leads)
    return found


def _leading(nodes: list[Node], targets: list[Node]) -> tuple[set[Node], set[Node], list[Node]]:
    """The targets; the nodes through which one can be reached; those of them that are no mere target."""
    wanted = set(targets)
    leads: set[Node] = set()
    inner: list[Node] = []
    for node in nodes:
        for x in node.inputs if type(node) is Node else block_of(node)[0].given:
            if x in leads:
                leads.add(node)
                inner.append(node)
                break
        else:
            if node in wanted:
                leads.add(node)
    return wanted, leads, inner


#: what whole backward passes record, by the structure of what is behind the loss
_recipes = Memory()


def _key(
    nodes: list[Node], leads: set[Node], targets: list[Node]
) -> tuple[tuple[Any, ...] | None, list[Node]]:
    """Everything that the rules of gradients see, and the nodes that they see it in.

    No key where a rule or hook is the user's own, or a number is followed by ``compile``: those are asked each time."""
    key: list[Any] = [state.grad_enabled, settings()]
    given: list[Node] = []
    place: dict[Node, int] = {}
    if not state.limit:
        return None, given
    for node in nodes:
        handle = node.handle
        if handle is not None:
            var = handle()
            if var is not None and var._hooks and var._node is node:
                return None, given
        if node.rule is not None:
            return None, given
        if type(node) is Node:
            key.append(node.sig)
            inputs = node.inputs
            numbers = node.scalars
        else:
            block, step = block_of(node)
            key += (block.recipe, step)
            inputs = block.given
            numbers = ()  # the recipe has them
        for x in inputs:
            k = place.get(x)
            if k is None:
                k = place[x] = len(given)
                given.append(x)
            key.append(k)
        if numbers and node in leads:
            plain = exact(numbers)
            if plain is None:
                return None, given
            key.append(plain)
        place[node] = len(given)
        given.append(node)
    key.append(None)
    for t in targets:
        key.append(place.get(t))
    return tuple(key), given


def _walk_back(
    loss: Node, nodes: list[Node], wanted: set[Node], leads: set[Node], targets: list[Node]
) -> list[Var | None]:
    """Ask the rules, from the loss to the targets."""
    gradients: dict[Node, Var] = {}
    if loss in leads:
        gradients[loss] = fill(loss.spec.shape, 1, loss.spec.dtype)
    kept: dict[Node, Var] = {}
    for node in reversed(nodes):
        upstream = gradients.pop(node, None)
        if upstream is None:
            continue
        upstream = _hooked(node, upstream)
        if node in wanted:
            kept[node] = upstream
        if not any(x in leads for x in node.inputs):
            continue
        rule = node.sig.gradient
        if rule is None:
            continue
        for x, g in zip(node.inputs, rule(node, upstream), strict=True):
            if g is None or x not in leads:
                continue
            before = gradients.get(x)
            gradients[x] = g if before is None else before + g  # type: ignore[operator]
    return [kept.get(t) for t in targets]


def _refuse(node: Node) -> NoReturn:
    """Say that what was behind ``node`` is gone."""
    if node.sig.name == "compiled step":
        raise GradientError(
            "[grad] the results of a compiled function carry no gradient path; compute the gradient inside the "
            "function that is given to compile, and renew parameters there by p.update(new), not p.assign(new)"
        )
    raise GradientError(
        f"[grad] the graph behind {node.sig.name} (recorded at {describe_origin(node)}) was released by an "
        "earlier gradient; pass retain_graph=True there"
    )


def _upstream(loss: Node, targets: Sequence[Node]) -> tuple[list[Node], list[Node]]:
    """Nodes behind ``loss`` that gradients may flow through, in order of creation, and those of ``targets`` among them behind
    which the graph was released."""
    ends: list[Node] = []
    if not loss.requires_grad:
        return [], ends
    found = {loss}
    stack = [loss]
    while stack:
        node = stack.pop()
        if (
            type(node) is Node
            and node.released
            and node.buffer is not None
            and not node.inputs
            and node.sig.kind != "leaf"
        ):
            if node not in targets:
                _refuse(node)
            ends.append(node)
        if type(node) is Node and not node.sig.differentiable:  # made trainable itself: nothing flows on
            continue
        if type(node) is not Node and (node.buffer is not None or block_of(node)[0].values):
            _ = node.inputs  # some of it is stored: an ordinary node, which knows what
        for x in node.inputs if type(node) is Node else block_of(node)[0].given:
            if x.requires_grad and x not in found:
                found.add(x)
                stack.append(x)
    return sorted(found, key=_order), ends


_order = attrgetter("order")


def _hooked(node: Node, upstream: Var) -> Var:
    handle = node.handle
    var = handle() if handle is not None else None
    held = var is not None and var._node is node
    for hook in var._hooks if held else getattr(node.rule, "hooks", ()):  # type: ignore[union-attr]
        replaced = hook(identity(upstream))  # which it may change in place: others hold the same gradient
        upstream = upstream if replaced is None else replaced
    return upstream


def _missing(loss: Var, target: Var) -> Var:
    """Zeros for a target without a path, and a warning that names where the path ends."""
    name = target.name() or f"{target.dtype}{list(target.shape)}"
    if not target.requires_grad:
        why = "it does not require a gradient (stop_grad, an integer type, or made under no_grad)"
    else:
        why = _cut(loss._node, target._node)
    warnings.warn(f"[grad] no gradient for {name}: {why}; zeros are used", UserWarning, stacklevel=3)
    return fill(tuple(target.shape), 0, target.dtype)


def _cut(loss: Node, target: Node) -> str:
    """Follow all inputs, also those without gradient, to say where the path to ``target`` was cut: the operator that takes
    something with a gradient and answers something without."""
    seen = {loss}
    stack: list[tuple[Node, Node | None]] = [(loss, None)]
    while stack:
        node, cut = stack.pop()
        if node is target:
            if cut is None:
                return "the path gives no gradient"
            return f"the path was cut at {cut.sig.name}, recorded at {describe_origin(cut)}"
        for x in node.inputs:
            if x not in seen:
                seen.add(x)
                ends = not (node.requires_grad and node.sig.differentiable)
                stack.append((x, node if cut is None and ends and x.requires_grad else cut))
    return "the loss does not depend on it"
