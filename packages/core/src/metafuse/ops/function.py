"""Function: operators with a gradient that the user writes.

What it is: a base class with ``execute`` and ``grad``.
What it is not: inline C++ (``code``).
Who calls it: users.
"""

from __future__ import annotations

from typing import Any

from ..errors import GradientError
from ..graph.node import Node
from ..var import Var
from .autograd import no_grad
from .meta import with_gradient

__all__ = ["Function"]


class _Rule:
    """The gradient of one call: hands the upstream gradients of all outputs to the user's ``grad``."""

    def __init__(self, function: Function, inputs: list[Var], outputs: int) -> None:
        self.function = function
        self.specs = [x._node.spec for x in inputs]
        self.outputs = outputs

    def call(self, position: int, upstream: Var) -> list[Var | None]:
        """Gradients for every input, given that of output ``position``."""
        given: list[Var | None] = [None] * self.outputs
        given[position] = upstream
        answer = self.function.grad(*given)
        found = list(answer) if isinstance(answer, (tuple, list)) else [answer]
        name = type(self.function).__name__
        if len(found) != len(self.specs):
            raise GradientError(
                f"[{name}] grad must answer {len(self.specs)} gradients, one per Var input, got {len(found)}"
            )
        for k, (g, spec) in enumerate(zip(found, self.specs, strict=True)):
            if g is not None and tuple(g.shape) != spec.shape:
                raise GradientError(
                    f"[{name}] gradient {k} must have its input's shape {list(spec.shape)}, got {list(g.shape)}"
                )
        return found


class Function:
    """An operator with its own gradient: subclass it, write ``execute`` and ``grad``, call it or ``apply``.

    ``execute`` computes with Vars and may keep what ``grad`` needs on ``self``. ``grad`` gets one gradient per output
    (``None`` for an output that got none) and answers one gradient, or ``None``, per Var input.

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
        with no_grad():
            answer = self.execute(*args)
        several = isinstance(answer, (tuple, list))
        outputs = list(answer) if several else [answer]
        rule = _Rule(self, inputs, len(outputs))
        results = [
            _attach(rule, k, o, inputs) if type(o) is Var and o.dtype.is_float else o
            for k, o in enumerate(outputs)
        ]
        return type(answer)(results) if several else results[0]


def _attach(rule: _Rule, position: int, output: Var, inputs: list[Var]) -> Var:
    """A node that shows ``output`` and depends on ``inputs`` for gradients only."""
    result = with_gradient(output, inputs, type(rule.function).__name__, None, _ask_node)

    def own(upstream: Var) -> list[Var | None]:
        return [None, *rule.call(position, upstream)]

    result._node.rule = own
    return result


def _ask_node(node: Node, upstream: Var) -> list[Var | None]:
    """The gradient of this one call, which the node itself holds."""
    assert node.rule is not None
    return node.rule(upstream)  # type: ignore[no-any-return]
