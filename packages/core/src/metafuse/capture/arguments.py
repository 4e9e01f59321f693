"""Arguments of a compiled function, taken apart.

What it is: nested tuples, lists and dictionaries become a key (structure, shapes, dtypes, texts), a list of Vars and a list
of numbers.
What it is not: the function's own state (``walk``).
Who calls it: ``compiled``, on every call.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..ops.creation import array
from ..var import Var
from .walk import Same, typed

__all__ = ["Arguments"]

_TEXTS = (bool, str, bytes, complex, type(None))


class Arguments:
    """``key``: everything that a recording is made for. ``vars``: the Vars, host arrays uploaded. ``numbers``: Python
    numbers. ``others``: objects of any other kind, which become part of the visible state."""

    __slots__ = ("key", "numbers", "others", "vars")

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.vars: list[Var] = []
        self.numbers: list[Any] = []
        self.others: list[Any] = []
        key: list[Any] = [len(args)]
        try:
            for value in args:
                self._take(value, key)
            for name, value in kwargs.items():
                key.append(name)
                self._take(value, key)
        except RecursionError:  # ``nested`` would take its time in every call
            raise ArgumentError(
                "[compile] an argument is nested too deeply, or contains itself; keep it where the function finds it"
            ) from None
        if len(self.vars) > 1:
            nodes = [v._node for v in self.vars]
            if len(set(nodes)) < len(nodes):  # the same Var twice
                key.append(tuple(nodes.index(n) for n in nodes))
        self.key = tuple(key)

    def _take(self, value: Any, key: list[Any]) -> None:
        kind = type(value)
        if kind is Var:
            node = value._node
            key.append(node.spec)
            key.append(node.requires_grad)
            self.vars.append(value)
        elif kind is float or kind is int:
            key.append(kind)
            self.numbers.append(value)
        elif kind in _TEXTS:
            key.append(typed(value))
        elif kind is tuple or kind is list or hasattr(kind, "_make"):
            key.append((kind, len(value)))
            for item in value:
                self._take(item, key)
        elif kind is dict:
            key.append((kind, tuple(value)))
            for item in value.values():
                self._take(item, key)
        elif kind is np.ndarray:
            self._take(array(value), key)
        elif isinstance(value, np.generic):
            key.append((kind, value.tobytes()))
        else:
            key.append(Same(value))
            self.others.append(value)

    def rebuilt(self, args: tuple[Any, ...], kwargs: dict[str, Any], numbers: list[Any]) -> tuple[Any, Any]:
        """The arguments with the uploaded arrays, and with ``numbers`` in place of their own."""
        vars, given = iter(self.vars), iter(numbers)

        def put_in(value: Any) -> Any:
            kind = type(value)
            if kind is Var or kind is np.ndarray:
                return next(vars)
            if kind is float or kind is int:
                return next(given)
            if kind is tuple or kind is list:
                return kind(map(put_in, value))
            if hasattr(kind, "_make"):
                return kind._make(map(put_in, value))
            if kind is dict:
                return {k: put_in(v) for k, v in value.items()}
            return value

        return tuple(map(put_in, args)), {k: put_in(v) for k, v in kwargs.items()}
