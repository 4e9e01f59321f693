"""Hooks of modules: functions that see, and may replace, what goes in and out, forward and backward.

What it is: the slow path of ``Module.__call__``, taken only by modules that have a hook.
What it is not: hooks on single Vars (``Var.register_hook``).
Who calls it: ``nn.module``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import DTypeError
from ..var import Var

if TYPE_CHECKING:
    from .module import Module

__all__ = ["call", "register", "register_backward", "remove"]


def register(module: Module, kind: str, func: Callable[..., Any]) -> None:
    """Set the hook of this kind, instead of the one that may be there."""
    if not callable(func):
        raise DTypeError(f"[register_{kind}_hook] func must be callable, got {type(func).__name__}")
    module.__dict__.setdefault("_hooks", {})[kind] = func


def remove(module: Module, kind: str) -> None:
    """Take the hook of this kind away."""
    table = module.__dict__.get("_hooks", {})
    table.pop(kind, None)
    if not table:
        module.__dict__.pop("_hooks", None)


def register_backward(module: Module, func: Callable[..., Any]) -> None:
    """One function that sees the gradients of inputs and outputs together."""
    seen: list[Any] = [()]

    def at_output(owner: Module, gradients: Any) -> None:
        seen[0] = gradients

    def at_input(owner: Module, gradients: Any) -> Any:
        return func(owner, gradients, seen[0])

    register(module, "output_backward", at_output)
    register(module, "input_backward", at_input)


def _tap(module: Module, hook: Callable[..., Any], values: tuple[Any, ...]) -> tuple[Any, ...]:
    """``values`` unchanged, with ``hook`` called on the gradients of the Vars among them."""
    from ..ops.function import Function

    class Tap(Function):
        def execute(self, *args: Any) -> Any:
            return tuple(a.detach() for a in args)

        def grad(self, *gradients: Any) -> Any:
            answer = hook(module, gradients)
            if answer is None:
                return gradients
            return tuple(answer) if isinstance(answer, (tuple, list)) else (answer,)

    places = [k for k, v in enumerate(values) if isinstance(v, Var) and v.dtype.is_float]
    if not places:
        return values
    tapped = Tap()(*[values[k] for k in places])
    tapped = tapped if isinstance(tapped, (tuple, list)) else (tapped,)
    fresh = list(values)
    for k, value in zip(places, tapped, strict=True):
        fresh[k] = value
    return tuple(fresh)


def call(module: Module, args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
    """``execute`` with the module's hooks around it."""
    table: dict[str, Callable[..., Any]] = module.__dict__["_hooks"]
    if "pre_forward" in table:
        answer = table["pre_forward"](module, args, kw) if kw else table["pre_forward"](module, args)
        if answer is not None:
            if kw:
                args, kw = answer
            else:
                args = answer
            args = tuple(args) if isinstance(args, (tuple, list)) else (args,)
    if "input_backward" in table:
        names = list(kw)
        flat = _tap(module, table["input_backward"], (*args, *kw.values()))
        args, kw = flat[: len(args)], dict(zip(names, flat[len(args) :], strict=True))
    result = module.execute(*args, **kw)
    if "output_backward" in table:
        several = isinstance(result, (tuple, list))
        flat = _tap(module, table["output_backward"], tuple(result) if several else (result,))
        result = type(result)(flat) if several else flat[0]
    if "forward" in table:
        answer = table["forward"](module, args, result, kw) if kw else table["forward"](module, args, result)
        result = result if answer is None else answer
    return result
