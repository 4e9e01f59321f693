"""The comparison made on each call: is everything a captured step depends on as it was?

What it is: the values of a ``Walk``, compared by identity in one pass; host arrays by content, Vars by shape, dtype and
gradient.
What it is not: the comparison by value, which two walks are for (``compiled``): an equal number or a rebuilt list
fails here.
Who calls it: ``replay``.
"""

from __future__ import annotations

from itertools import chain
from operator import is_
from types import CellType
from typing import Any

import numpy as np

from ..graph.node import Spec
from ..var import Var
from .walk import Walk

__all__ = ["Guard", "Place", "get", "put"]

Place = tuple[Any, Any]  # a container (dictionary, list or cell) and a key


def get(place: Place) -> Any:
    """What is at a place. Errors: ``LookupError``, ``ValueError`` if nothing is."""
    container, key = place
    return container.cell_contents if type(container) is CellType else container[key]


def put(place: Place, value: Any) -> None:
    """Put ``value`` there."""
    container, key = place
    if type(container) is CellType:
        container.cell_contents = value
    else:
        container[key] = value


class Guard:
    """What ``walk`` found, to be compared with what is there now.

    ``loose``: places whose value may change; where it is a Var, the new one must be alike.
    """

    def __init__(self, walk: Walk, loose: list[Place]) -> None:
        self.vars: list[Var] = list(walk.vars)
        self._about: list[tuple[Spec, bool, Any]] = [
            (v._node.spec, v._node.requires_grad, v._hooks) for v in walk.vars
        ]
        self._parts: list[Any] = []
        self._lengths: list[int] = []
        self._flat: list[Any] = []
        self._globals: list[tuple[Any, tuple[str, ...], list[Any]]] = []
        self._cells: list[tuple[Any, list[Any]]] = []
        self._slots: list[tuple[Any, str, Any]] = []
        self._arrays = walk.arrays
        self._at: dict[tuple[int, Any], tuple[list[Any], int]] = {}
        self._keep = walk  # identities stay those of living objects
        for kind, container, keys, values in walk.containers:
            self._add(kind, container, keys, values)
        self._loose: list[tuple[Place, list[Any], int, int]] = []
        for place in loose:
            self._loosen(place, walk)

    def _add(self, kind: str, container: Any, keys: tuple[Any, ...], values: tuple[Any, ...]) -> None:
        if kind in ("globals", "cell"):
            held = list(values)
            if kind == "globals":
                self._globals.append((container.get, keys, held))
            else:
                self._cells.append((container, held))
            for k, key in enumerate(keys):
                self._at[(id(container), key)] = (held, k)
        elif kind == "slots":
            self._slots.extend((container, name, item) for name, item in zip(keys, values, strict=True))
        else:
            table = container.__dict__ if kind == "class" else container
            if kind in ("dict", "class"):
                self._part(table, keys)
            first = len(self._flat)
            self._part(table.values() if kind in ("dict", "class") else table, values)
            for k, key in enumerate(keys if kind == "dict" else range(len(values))):
                if kind in ("dict", "list"):
                    self._at[(id(container), key)] = (self._flat, first + k)

    def _part(self, live: Any, values: tuple[Any, ...]) -> None:
        self._parts.append(live)
        self._lengths.append(len(values))
        self._flat.extend(values)

    def _loosen(self, place: Place, walk: Walk) -> None:
        container, key = place
        table, position = self._at[(id(container), key)]
        value, number = table[position], -1
        if type(value) is Var:
            number = next(k for k, v in enumerate(self.vars) if v is value)
            if sum(t[0] == "var" and t[1] == number for t in walk.tokens if type(t) is tuple) > 1:
                return  # also held elsewhere: both would have to change together
        self._loose.append((place, table, position, number))

    def follow(self) -> bool:
        """Take what is in the loose places now; whether there are Vars where Vars were."""
        for place, table, position, number in self._loose:
            table[position] = value = get(place)
            if number >= 0:
                if type(value) is not Var:
                    return False
                self.vars[number] = value
        return True

    def holds(self) -> bool:
        """Whether all is as it was."""
        try:
            if not self.follow():
                return False
            if [*map(len, self._parts)] != self._lengths:
                return False
            if not all(map(is_, chain.from_iterable(self._parts), self._flat)):
                return False
            for read, names, values in self._globals:
                if not all(map(is_, map(read, names), values)):
                    return False
            for cell, held in self._cells:
                if cell.cell_contents is not held[0]:
                    return False
            return self._rest_holds()
        except (LookupError, RuntimeError, ValueError, AttributeError):  # gone, or changing right now
            return False

    def _rest_holds(self) -> bool:
        for var, (spec, requires, hooks) in zip(self.vars, self._about):
            node = var._node
            if node.spec is not spec or node.requires_grad is not requires or var._hooks is not hooks:
                return False
        for owner, name, value in self._slots:
            if getattr(owner, name, None) is not value:
                return False
        for array, content in self._arrays:
            if (array.tobytes() if isinstance(array, np.ndarray) else memoryview(array).tobytes()) != content:
                return False
        return True
