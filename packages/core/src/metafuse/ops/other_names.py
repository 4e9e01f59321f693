"""Arguments by the names that they have in NumPy and PyTorch: ``axis`` for ``dim``, ``keepdim`` for ``keepdims`` ...

What it is: one table of names that mean the same, and what makes a function take them.
What it is not: what operators do with a dimension.
Who calls it: ``registry``, for every operator, and ``recipe``, which gives a composition its memory in the same call.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import ArgumentError, brief
from .telling import REFUSALS, under

__all__ = ["other_names", "own_names", "takes_other_names"]

F = TypeVar("F", bound=Callable[..., Any])

#: a name -> what the argument may be called by the function itself
_ALIKE = {
    "axis": ("dim", "dims"), "axes": ("dim", "dims"), "dim": ("dims",), "dims": ("dim",),
    "axis1": ("dim0", "dim1"), "axis2": ("dim2", "dim1"), "keepdim": ("keepdims",), "keepdims": ("keepdim",),
    "min": ("min_v",), "max": ("max_v",),
}  # fmt: skip


def other_names(function: Callable[..., Any]) -> dict[str, str]:
    """Further names by which ``function`` takes arguments, and its own name of each; ``*dim`` where it takes any number.

    Example:
        >>> def fold(x, dim=None, keepdims=False): ...
        >>> other_names(fold)
        {'axis': 'dim', 'axes': 'dim', 'dims': 'dim', 'keepdim': 'keepdims'}
    """
    own = {p.name: str(p)[:1] == "*" for p in inspect.signature(function).parameters.values()}
    found = {}
    for name, names in _ALIKE.items():
        meant = next((n for n in names if n in own), None)
        if meant is not None and name not in own:
            found[name] = f"*{meant}" if own[meant] else meant
    return found


def own_names(
    operator: str, names: dict[str, str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments by the function's own names. Errors: ``ArgumentError`` where one comes by two names."""
    if names.keys().isdisjoint(kwargs):
        return args, kwargs
    found: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for name, value in kwargs.items():
        own = names.get(name, name)
        if own in found:
            raise ArgumentError(
                f"[{operator}] {spelled[own]} and {name} mean the same, got {brief(found[own])} and {brief(value)}; give one"
            )
        found[own], spelled[own] = value, name
    several = next((own for own in found if own[0] == "*"), None)
    if several is not None:
        value = found.pop(several)
        args = args if value is None else (*args, value)
    return args, found


def takes_other_names(function: F) -> F:
    """``function``, which takes arguments by their other names too; itself, if there are none or it does so already."""
    if getattr(function, "other_names", None) is not None:
        return function
    names = other_names(function)
    if not names:
        return function

    told = ""  # the name of the operator, once it is one

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            args, kwargs = own_names(told or function.__name__, names, args, kwargs)
        try:
            return function(*args, **kwargs)
        except REFUSALS as error:
            raise under(told, error) from None

    call.other_names = names  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]
