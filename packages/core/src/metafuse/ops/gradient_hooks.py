"""Looking at gradients on their way back, and advice for those who look for them on a Var.

What it is: ``grad_hooker`` and ``GradHooker``; ``Var.grad`` and ``Var.backward``, which say what to write instead.
What it is not: hooks on one Var (``Var.register_hook``) or on modules (``nn.hooks``).
Who calls it: users.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import DTypeError, GradientError
from ..var import Var
from .function import Function

__all__ = ["GradHooker", "grad_hooker"]


class GradHooker(Function):
    """Answers its arguments; ``hook`` sees the tuple of their gradients, and may answer others.

    Example:
        >>> import metafuse as mf
        >>> x = mf.ones(1)
        >>> (y,) = mf.GradHooker(lambda grads: [g * 2 for g in grads])(x)
        >>> mf.grad(y * 3, x).item()
        6.0
    """

    def __init__(self, hook: Callable[[tuple[Any, ...]], Any]) -> None:
        if not callable(hook):
            raise DTypeError(f"[GradHooker] hook must be a function, got {type(hook).__name__}")
        self.hook = hook

    def execute(self, *args: Any) -> tuple[Any, ...]:
        """The arguments."""
        self.places = [k for k, a in enumerate(args) if type(a) is Var]
        return tuple(a.detach() if type(a) is Var else a for a in args)

    def grad(self, *grad_input: Any) -> Any:
        """What the hook makes of the gradients."""
        answer = self.hook(grad_input)
        if answer is None:
            answer = grad_input
        found = list(answer) if isinstance(answer, (tuple, list)) else [answer]
        return [found[k] for k in self.places] if len(found) == len(grad_input) else found


def grad_hooker(args: Sequence[Any], hook: Callable[[tuple[Any, ...]], Any]) -> tuple[Any, ...]:
    """``args`` as values on whose gradients, a tuple, ``hook`` is called; it may answer others.

    Example:
        >>> import metafuse as mf
        >>> x, y = mf.ones(1), mf.ones(1)
        >>> a, b = mf.grad_hooker([x, y], lambda grads: (grads[1], grads[0]))
        >>> [g.item() for g in mf.grad(a * 2 + b * 3, [x, y])]
        [3.0, 2.0]
    """
    if not isinstance(args, (list, tuple)):
        raise DTypeError(f"[grad_hooker] args must be a list, got {type(args).__name__}")
    return GradHooker(hook)(*args)  # type: ignore[no-any-return]


class NoGradient(GradientError, AttributeError):
    """There is no such attribute; ``hasattr`` answers ``False``."""


def _grad(var: Var) -> Any:
    """There is no ``var.grad``: raises an error that says what to write instead."""
    raise NoGradient(
        "[grad] a Var keeps no gradient; write mf.grad(loss, var), or var.opt_grad(optimizer) between optimizer.backward(loss) "
        "and optimizer.step()"
    )


def _backward(var: Var, *args: Any, **kw: Any) -> None:
    """There is no ``loss.backward()``: raises an error that says what to write instead.

    Example:
        >>> import metafuse as mf
        >>> try:
        ...     mf.ones(1).backward()
        ... except RuntimeError as error:
        ...     print(str(error)[:35])
        [backward] a Var has no backward; w
    """
    raise GradientError(
        "[backward] a Var has no backward; write optimizer.step(loss), or optimizer.backward(loss) and then optimizer.step(), or "
        "mf.grad(loss, parameters)"
    )


setattr(Var, "grad", property(_grad))  # noqa: B010 - methods by the reference API's names
setattr(Var, "backward", _backward)  # noqa: B010
