"""The table of operators: one record each, from which everything else is derived.

What it is: ``Operator`` (the record), ``Sample`` and ``Tensor`` (plain data that says which inputs are legal), the
decorator and factory that register records, and the lookup.
What it is not: code generation or recording; records hold the functions that do it.
Who calls it: the modules of ``ops`` and plugins register; ``metafuse.__init__``, the docs, the command line and the
conformance kit read.

Registering is the only step: the function appears in the ``metafuse`` namespace, as a ``Var`` method if the record
says so, in the operator table, and in the conformance tests.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..errors import ArgumentError
from ..var import Var

__all__ = ["Operator", "Sample", "Tensor", "all_operators", "find", "operator", "register", "unregister"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Tensor:
    """An array argument of a sample: shape, kind of dtype and the range its values are drawn from.

    ``dtype``: ``"float"`` (every floating type of the backend), ``"int"``, ``"bool"``, ``"any"`` or one dtype's name.
    ``distinct``: no two values are equal or close (sorting, maxima: their gradients need it).
    """

    shape: tuple[int, ...]
    dtype: str = "float"
    low: float = -3.0
    high: float = 3.0
    distinct: bool = False


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
    ``source`` names the paper, standard or library that defines it.
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

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return (inspect.getdoc(self.function) or "").split("\n", 1)[0]


_operators: dict[str, Operator] = {}


def register(record: Operator) -> Operator:
    """Enter ``record``. Errors: ``ArgumentError`` if the name is taken by another record."""
    if record.name in _operators:
        raise ArgumentError(f"[register] operator {record.name!r} exists already; choose another name")
    _operators[record.name] = record
    for method in record.methods:
        setattr(Var, method, record.function)
    return record


def unregister(name: str) -> None:
    """Take an operator out again (plugins that are unloaded, tests)."""
    record = _operators.pop(name)
    for method in record.methods:
        if getattr(Var, method, None) is record.function:
            delattr(Var, method)


def find(name: str) -> Operator | None:
    """The record of ``name``, or ``None``."""
    return _operators.get(name)


def all_operators() -> list[Operator]:
    """Every record, by category and name."""
    return sorted(_operators.values(), key=lambda record: (record.category, record.name))


def operator(
    *,
    category: str,
    numpy: Callable[..., Any] | None,
    samples: Iterable[Sample] = (),
    source: str = "",
    method: bool | str | tuple[str, ...] = False,
    differentiable: bool = True,
    name: str = "",
) -> Callable[[F], F]:
    """Register a function of Vars as an operator.

    Example:
        >>> import numpy as np
        >>> from metafuse.ops.registry import Sample, Tensor, operator, unregister
        >>> @operator(category="example", numpy=lambda x: 2 * x, samples=[Sample((Tensor((3,)),))], method=True)
        ... def twice(x):
        ...     "Two times ``x``."
        ...     return x + x
        >>> import metafuse as mf
        >>> mf.twice(mf.array([1.0, 2.0])).numpy()
        array([2., 4.], dtype=float32)
        >>> unregister("twice")
    """

    def decorate(function: F) -> F:
        own = name or function.__name__
        methods = (own,) if method is True else (method,) if isinstance(method, str) else method or ()
        register(
            Operator(own, category, function, numpy, tuple(samples), source, differentiable, tuple(methods))
        )
        return function

    return decorate
