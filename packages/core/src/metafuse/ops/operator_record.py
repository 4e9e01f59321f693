"""What there is to say about an operator, as plain data.

What it is: ``Operator`` (the record), ``Sample`` and ``Tensor`` (which inputs are legal).
What it is not: the table (``registry``, under which name all three are found too).
Who calls it: ``registry`` and ``record_docs``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Operator", "Sample", "Tensor"]


@dataclass(frozen=True)
class Tensor:
    """An array argument of a sample: shape, kind of dtype and the range its values are drawn from.

    ``dtype``: ``"float"`` (every floating type of the backend), ``"int"``, ``"bool"``, ``"any"`` or one dtype's name.
    ``distinct``: no two values are equal or close (sorting, maxima: their gradients need it).
    ``dominant``: a stack of matrices whose diagonals outweigh the rest, so that all are far from singular.
    """

    shape: tuple[int, ...]
    dtype: str = "float"
    low: float = -3.0
    high: float = 3.0
    distinct: bool = False
    dominant: bool = False


@dataclass(frozen=True)
class Sample:
    """One way to call an operator: positional and keyword arguments, ``Tensor`` standing for arrays."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Operator:
    """Everything there is to say about an operator.

    ``numpy`` is its meaning: called with the sample's arguments as arrays, it answers an array or a tuple of arrays.
    ``samples`` covers legal calls. ``differentiable`` says whether the conformance kit checks gradients numerically.
    ``elementwise`` records also carry ``arity``, and ``domain``, one ``Tensor`` per argument whose shape is free.
    ``methods`` are names on ``Var``; those without a leading underscore are further names of the function. ``rebinds``
    says that each of them also has an in-place variant (not where the answer is no Var or several). ``source`` names
    the paper, standard or library that defines it.
    """

    name: str
    category: str
    function: Callable[..., Any]
    numpy: Callable[..., Any] | None
    samples: tuple[Sample, ...] = ()
    source: str = ""
    differentiable: bool = True
    methods: tuple[str, ...] = ()
    arity: int = 0
    domain: tuple[Tensor, ...] = ()
    rebinds: bool = True

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.function) or "").split("\n", 1)[0]
