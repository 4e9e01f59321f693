"""Operators that the reference API has as classes of functions: ``lgamma.apply(x)`` and ``lgamma()(x)`` beside ``lgamma(x)``.

What it is: ``lgamma`` and ``digamma``, callable in each of these ways.
What it is not: their definition.
Who calls it: users, as ``jittor.lgamma`` and ``jittor.math_util.lgamma``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import metafuse

__all__ = ["digamma", "lgamma"]


class _Applied:
    """An operator with ``apply``; called without arguments it answers itself."""

    def __init__(self, function: Callable[[Any], metafuse.Var]) -> None:
        self.apply = self.execute = function
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    def __call__(self, *args: Any) -> Any:
        return self.apply(*args) if args else self


lgamma = _Applied(metafuse.lgamma)
digamma = _Applied(metafuse.digamma)
