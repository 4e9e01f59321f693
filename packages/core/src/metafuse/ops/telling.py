"""Refusals that name the operator as it was called: ``[permute] ...`` of what ``transpose`` found.

What it is: ``renamed``, a function under a further name at no cost where nothing is refused, and ``tells``, for compositions
whose parts refuse what they are given.
What it is not: the messages; failures of backends name their kernels and are not told anew.
Who calls it: ``registry``, for every name of every operator, and modules of compositions.

A function that can be renamed at no cost tells its refusals by a variable of its closure, ``told``; where that is empty, as
they are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any, TypeVar

from ..errors import ArgumentError, DTypeError, MetafuseError, told_by

__all__ = ["REFUSALS", "has_name", "renamed", "tells", "under"]

F = TypeVar("F", bound=Callable[..., Any])

#: what tells of arguments
REFUSALS = (ArgumentError, DTypeError)


def under(told: str, error: MetafuseError) -> MetafuseError:
    """``error`` under the name ``told``; itself, if it has that name, or there is none to tell."""
    name = str(error)[1:].partition("]")[0]
    return error if not told or name == told or name.startswith(f"{told} ") else told_by(told, error)


def has_name(function: Callable[..., Any]) -> bool:
    """Whether a function tells its refusals by a name of its own."""
    return isinstance(function, FunctionType) and "told" in function.__code__.co_freevars


def renamed(name: str, function: F) -> F:
    """``function`` as a function called ``name``, which its refusals tell.

    Example:
        >>> import metafuse as mf
        >>> from metafuse.ops.telling import renamed
        >>> renamed("turn", mf.transpose)(mf.ones(2, 3), 5)
        Traceback (most recent call last):
        ...
        metafuse.errors.ShapeError: [turn] dim must be in -2..1 for 2 dimensions, got 5
    """
    if not has_name(function):
        return tells(function, name)
    names = function.__code__.co_freevars
    held = zip(names, function.__closure__ or (), strict=True)
    cells = tuple(CellType(name) if n == "told" else cell for n, cell in held)
    new = FunctionType(function.__code__, function.__globals__, name, function.__defaults__, cells)
    functools.update_wrapper(new, function)
    new.__kwdefaults__ = function.__kwdefaults__
    new.__wrapped__ = getattr(function, "__wrapped__", function)  # type: ignore[attr-defined]
    new.__name__ = new.__qualname__ = name
    return new  # type: ignore[return-value]


def tells(function: F, name: str = "") -> F:
    """``function``, whose refusals are told under its own name or ``name``, whichever operator found what is wrong.

    Example:
        >>> import metafuse as mf
        >>> from metafuse.ops.telling import tells
        >>> @tells
        ... def middle(x, y):
        ...     return (x + y).reshape(2) / 2
        >>> middle(mf.ones(3), 1)
        Traceback (most recent call last):
        ...
        metafuse.errors.ShapeError: [middle] [3] has 3 elements, [2] would have 2
    """
    told = name or function.__name__

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except REFUSALS as error:
            raise under(told, error) from None

    call.__name__ = call.__qualname__ = told
    return call  # type: ignore[return-value]
