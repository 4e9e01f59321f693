"""Function: operators with a gradient that the user writes.

What it is: a base class with ``execute`` and ``grad``.
What it is not: inline C++ (``code``).
Who calls it: users.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..dtypes import float32
from ..errors import GradientError
from ..graph.node import Node
from ..var import Var
from .autograd import no_grad
from .meta import fill, identity, with_gradient

__all__ = ["Function"]


class _Rule:
    """The gradient of one call: hands the upstream gradients of all outputs to the user's ``grad``, once."""

    def __init__(self, function: Function, args: tuple[Any, ...], outputs: int) -> None:
        self.function = function
        self.specs = [a._node.spec for a in args if type(a) is Var]
        self.places = [k for k, a in enumerate(args) if type(a) is Var]
        self.count = len(args)
        self.outputs = outputs
        self.seen: dict[
            int, Var
        ] = {}  # of the gradient that is being computed: output -> its upstream gradient

    def collect(self, position: int, upstream: Var) -> list[Var | None]:
        """Keep the gradient of one output for the junction, which comes after all outputs."""
        self.seen[position] = upstream
        return [None, fill((1,), 0, float32)]

    def join(self, upstream: Var) -> list[Var | None]:
        """Gradients for every input, given what was collected."""
        seen, self.seen = self.seen, {}
        return [None, *self.call(seen)]

    def call(self, upstream: dict[int, Var]) -> list[Var | None]:
        """Gradients for every input, given those of the outputs that have one."""
        # Vars of its own: others hold the same gradients
        own = {k: identity(g) for k, g in upstream.items()}
        answer = self.function.grad(*(own.get(k) for k in range(self.outputs)))
        found = list(answer) if isinstance(answer, (tuple, list)) else [answer]
        name = type(self.function).__name__
        while len(found) > self.count and found[-1] is None:  # for arguments of `execute` that were left out
            found.pop()
        if len(found) == self.count and all(
            found[k] is None for k in range(self.count) if k not in self.places
        ):
            found = [found[k] for k in self.places]  # with None for arguments that are no Vars
        while len(found) > len(self.specs) and found[-1] is None:
            found.pop()
        if len(found) != len(self.specs):
            raise GradientError(
                f"[{name}] grad must answer {len(self.specs)} gradients, one per Var input, got {len(found)}"
            )
        for k, (g, spec) in enumerate(zip(found, self.specs, strict=True)):
            if g is not None and (type(g) is not Var or tuple(g.shape) != spec.shape):
                shown = list(g.shape) if type(g) is Var else type(g).__name__
                raise GradientError(
                    f"[{name}] gradient {k} must be a Var of its input's shape {list(spec.shape)}, got {shown}"
                )
        return found


class Function:
    """An operator with its own gradient: subclass it, write ``execute`` and ``grad``, call it or ``apply``.

    ``execute`` computes with Vars and may keep what ``grad`` needs on ``self``. ``grad`` gets one gradient per output
    (``None`` for an output that got none) and answers one gradient, or ``None``, per Var input; or per argument, with ``None``
    for those that are no Vars. ``None`` may follow for optional arguments of ``execute`` that were not given.

    Example:
        >>> import metafuse as mf
        >>> class Cube(mf.Function):
        ...     def execute(self, x):
        ...         self.x = x
        ...         return x * x * x
        ...     def grad(self, g):
        ...         return g * self.x * self.x * 3
        >>> x = mf.array([2.0])
        >>> mf.grad(Cube.apply(x), x).numpy()
        array([12.], dtype=float32)
    """

    def execute(self, *args: Any) -> Any:
        """Compute the outputs."""
        raise NotImplementedError(f"[{type(self).__name__}] write execute(self, ...)")

    def grad(self, *gradients: Any) -> Any:
        """Gradients of the inputs from those of the outputs."""
        raise GradientError(f"[{type(self).__name__}] has no gradient; write grad(self, ...)")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Call a new instance."""
        return cls()(*args)

    def __call__(self, *args: Any) -> Any:
        inputs = [a for a in args if type(a) is Var]
        # Vars of its own: what is kept of them for the gradient stays when the caller changes an argument in place
        own = [identity(a) if type(a) is Var else a for a in args]
        with no_grad():
            answer = self.execute(*own)
        several = isinstance(answer, (tuple, list))
        outputs = list(answer) if several else [answer]
        rule = _Rule(self, args, len(outputs))
        floating = [k for k, o in enumerate(outputs) if type(o) is Var and o.dtype.is_float]
        if len(floating) == 1:
            (k,) = floating
            outputs[k] = _attach(self, outputs[k], inputs, lambda upstream: [None, *rule.call({k: upstream})])
        elif floating:  # a node between outputs and inputs, at which the gradients of all outputs are known
            junction = _attach(self, fill((1,), 0, float32), inputs, rule.join)
            for k in floating:
                outputs[k] = _attach(self, outputs[k], [junction], partial(rule.collect, k))
        return type(answer)(outputs) if several else outputs[0]


def _attach(
    function: Function, output: Var, inputs: list[Var], rule: Callable[[Var], list[Var | None]]
) -> Var:
    """A node that shows ``output`` and depends on ``inputs`` for gradients only."""
    result = with_gradient(output, inputs, type(function).__name__, None, _ask_node)
    result._node.rule = rule
    return result


def _ask_node(node: Node, upstream: Var) -> list[Var | None]:
    """The gradient of this one call, which the node itself holds."""
    assert node.rule is not None
    return node.rule(upstream)  # type: ignore[no-any-return]
