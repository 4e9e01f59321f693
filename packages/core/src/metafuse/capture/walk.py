"""The Python state that a function can see, as a flat description that two calls can be compared by.

What it is: ``Walk`` goes from a function through its closure, the globals that its code names, bound objects and their
attributes, lists and dictionaries, and describes everything it meets: Vars by shape and dtype, numbers and texts by value, code and
foreign objects by identity.
What it is not: what is compared on each call (``guard.Guard`` is made from a walk), or what a call changed (``effects``).
Who calls it: ``compiled``.
"""

from __future__ import annotations

import functools
import types
from collections import deque
from typing import Any

import numpy as np

from ..var import Var
from . import code

__all__ = ["Same", "Unseen", "Walk", "number_token", "typed"]

#: so many described values at most: comparing them on each call must stay cheap
LIMIT = 100_000
#: bytes of host arrays that are compared on each call
ARRAY_LIMIT = 1 << 20

_ATOMS = (type(None), bool, str, bytes, complex, type(Ellipsis), type(NotImplemented), slice, range)
_PLAIN = (dict, list, tuple, set, frozenset, deque)


class Unseen(Exception):
    """The function reaches state that can't be compared; the text says which."""


class Same:
    """Stands for an object in a description: equal to itself only."""

    __slots__ = ("thing",)

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return type(other) is Same and other.thing is self.thing

    def __hash__(self) -> int:
        return id(self.thing)


def typed(value: Any) -> tuple[Any, ...]:
    """A number or text with its type; zeros of either sign and NaN are told apart and equal to themselves."""
    if value.__class__ is float and (value == 0.0 or value != value):
        return float, repr(value)
    return type(value), value


def number_token(kind: type) -> tuple[Any, ...]:
    """What stands in a description for a number that is followed."""
    return "number", kind


class Walk:
    """Everything reachable from ``roots``, described.

    ``tokens``: the description. ``vars``: the Vars met, each once. ``numbers``: token position -> (container, key) of every Python
    number that stands where it could be replaced. ``paths``: the way to every described value, for messages. ``containers``: per mutable
    container (kind, container, its keys, its values) as they are now. ``arrays``: host arrays and their bytes.
    """

    def __init__(self, roots: list[tuple[str, Any]]) -> None:
        self.tokens: list[Any] = []
        self.paths: list[tuple[Any, Any]] = []
        self.vars: list[Var] = []
        self.numbers: dict[int, tuple[Any, Any]] = {}
        self.containers: list[tuple[str, Any, tuple[Any, ...], tuple[Any, ...]]] = []
        self.arrays: list[tuple[np.ndarray[Any, Any], bytes]] = []
        self._seen: dict[int, int] = {}
        self._keep: list[Any] = []  # what was met stays alive, so that identities stay its own
        self._var_number: dict[int, int] = {}
        self._names: set[str] = set()
        self._large: list[tuple[np.ndarray[Any, Any], Any, Any]] = []
        try:
            for name, root in roots:
                self._visit(root, (None, name), None, None)
        except RecursionError:
            raise Unseen("state that is nested too deeply") from None
        self._check_large()

    # -- paths -----------------------------------------------------------------------------------------------------
    def path(self, position: int) -> str:
        """The way to the value described at ``position``."""
        parts: list[str] = []
        here: Any = self.paths[position]
        while here is not None:
            here, name = here
            parts.append(str(name))
        return "".join(p if p.startswith("[") or k == 0 else f".{p}" for k, p in enumerate(reversed(parts)))

    def _describe(self, path: Any, token: Any) -> None:
        self.tokens.append(token)
        self.paths.append(path)
        if len(self.tokens) > LIMIT:
            raise Unseen(f"more than {LIMIT} values of Python state, last {self.path(len(self.tokens) - 1)}")

    # -- values ----------------------------------------------------------------------------------------------------
    def _visit(self, value: Any, path: Any, container: Any, key: Any) -> None:
        kind = type(value)
        if kind is int or kind is float:
            if container is not None:
                self.numbers[len(self.tokens)] = (container, key)
            self._describe(path, typed(value))
        elif kind in _ATOMS or kind is type:
            self._describe(path, typed(value) if kind is not type or code.foreign(value) else Same(value))
            if kind is type and not code.foreign(value):
                self._class(value, path)
        elif kind is Var:
            self._var(value, path)
        elif id(value) in self._seen:
            self._describe(path, ("again", self._seen[id(value)]))
        else:
            self._seen[id(value)] = len(self.tokens)
            self._keep.append(value)
            self._object(value, kind, path, key)

    def _var(self, var: Var, path: Any) -> None:
        number = self._var_number.get(id(var))
        if number is None:
            number = self._var_number[id(var)] = len(self.vars)
            self.vars.append(var)
        node = var._node
        self._describe(path, ("var", number, node.spec, node.requires_grad))
        if var._hooks and id(var) not in self._seen:
            self._seen[id(var)] = len(self.tokens)
            self._visit(var._hooks, (path, "hooks"), None, None)

    def _object(self, value: Any, kind: type, path: Any, key: Any) -> None:
        if isinstance(value, np.ndarray):
            self._array(value, path, key)
        elif isinstance(value, np.generic):
            self._describe(path, (kind, value.tobytes()))
        elif kind is types.FunctionType:
            self._function(value, path)
        elif kind is types.MethodType:
            self._describe(path, "method")
            self._visit(value.__func__, (path, "__func__"), None, None)
            self._visit(value.__self__, (path, "self"), None, None)
        elif isinstance(value, functools.partial):
            self._describe(path, "partial")
            for name in ("func", "args", "keywords"):
                self._visit(getattr(value, name), (path, name), None, None)
        elif isinstance(value, (staticmethod, classmethod, property)):
            self._describe(path, kind)
            inner = (value.fget, value.fset) if isinstance(value, property) else (value.__func__,)
            for function in inner:
                self._visit(function, path, None, None)
        elif isinstance(value, type):
            self._describe(path, Same(value))
            if not code.foreign(value):
                self._class(value, path)
        elif isinstance(value, types.ModuleType) or code.opaque(kind):
            self._describe(path, Same(value))
        elif hasattr(kind, "__next__"):
            raise Unseen(f"the iterator {self._show(path)}, whose place can't be seen")
        elif isinstance(value, _PLAIN):
            self._plain(value, kind, path)
        else:
            self._instance(value, kind, path)

    def _show(self, path: Any) -> str:
        self.paths.append(path)
        text = self.path(len(self.paths) - 1)
        self.paths.pop()
        return text

    def _plain(self, value: Any, kind: type, path: Any) -> None:
        """A container of Python's own, or of a class derived from one."""
        base = next(b for b in _PLAIN if isinstance(value, b))
        if base is dict:
            self._describe(path, (kind, "dict", tuple(value) if all(map(_hashable, value)) else Same(value)))
            self._mapping(value, path, "dict")
        else:
            self._describe(path, (kind, base.__name__, len(value)))
            items = tuple(value)
            if base is not tuple and base is not frozenset:
                self.containers.append((base.__name__, value, (), items))
            for k, item in enumerate(items):
                self._visit(item, (path, f"[{k}]"), value if base is list else None, k)
        if kind is not base and not code.foreign(kind):
            self._instance(value, kind, path)

    def _mapping(self, value: Any, path: Any, kind: str) -> None:
        keys, values = tuple(value), tuple(value.values())
        self.containers.append((kind, value, keys, values))
        follow = value if kind == "dict" else None
        named = kind != "dict"
        for key, item in zip(keys, values, strict=True):
            self._visit(item, (path, key if named or isinstance(key, str) else f"[{key!r}]"), follow, key)

    def _instance(self, value: Any, kind: type, path: Any) -> None:
        """Any other object: its attributes, and its class if that is the user's own."""
        self._describe(path, Same(kind))
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            self._describe(path, tuple(attributes))
            self._mapping(attributes, path, "dict")
        slots = [name for base in kind.__mro__ for name in code.slots(base)]
        if slots:
            values = tuple(getattr(value, name, None) for name in slots)
            self.containers.append(("slots", value, tuple(slots), values))
            for name, item in zip(slots, values, strict=True):
                self._visit(item, (path, name), None, None)
        elif attributes is None and not isinstance(value, _PLAIN):
            self._describe(path, Same(value))
        for base in kind.__mro__:
            if base is not object:
                self._visit(base, (path, "class"), None, None)

    def _array(self, value: np.ndarray[Any, Any], path: Any, key: Any) -> None:
        self._describe(path, ("array", value.shape, value.dtype.str))
        if value.dtype.hasobject:
            raise Unseen(f"an array of Python objects, {self._show(path)}")
        if value.nbytes > ARRAY_LIMIT or sum(len(b) for _, b in self.arrays) + value.nbytes > ARRAY_LIMIT:
            self._large.append((value, path, key))
        else:
            self.arrays.append((value, value.tobytes()))
            self._describe(path, self.arrays[-1][1])

    def _check_large(self) -> None:
        """A large array is an obstacle only where code that was met names it."""
        for _, path, key in self._large:
            if not isinstance(key, str) or key in self._names or "__dict__" in self._names:
                raise Unseen(f"the large host array {self._show(path)}; pass it as an argument or make it a Var")

    # -- code ------------------------------------------------------------------------------------------------------
    def _function(self, value: types.FunctionType, path: Any) -> None:
        self._describe(path, Same(value.__code__))
        outside = code.foreign(value)
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            if name != "__class__" and id(cell) not in self._seen:
                self._cell(cell, name, path)
        if outside:
            return
        for part, name in ((value.__defaults__, "defaults"), (value.__kwdefaults__, "defaults")):
            self._visit(part, (path, name), None, None)
        if value.__dict__:
            self._mapping(value.__dict__, path, "dict")
        found = code.names(value.__code__)
        self._names |= found.all
        space = value.__globals__
        names = tuple(n for n in found.read if (id(space), n) not in self._seen)
        for name in names:
            self._seen[(id(space), name)] = 0  # type: ignore[index]
        if names:
            values = tuple(map(space.get, names))
            self.containers.append(("globals", space, names, values))
            for name, item in zip(names, values, strict=True):
                self._global(item, name, space, found.all, path)

    def _global(self, item: Any, name: str, space: Any, named: set[str], path: Any) -> None:
        if isinstance(item, types.ModuleType):
            if not code.foreign(item):
                below = tuple(n for n in sorted(named) if n in item.__dict__)
                values = tuple(map(item.__dict__.get, below))
                self.containers.append(("globals", item.__dict__, below, values))
                for other, value in zip(below, values, strict=True):
                    self._visit(value, (None, f"{name}.{other}"), item.__dict__, other)
        elif name in space:
            self._visit(item, (None, name), space, name)

    def _cell(self, cell: Any, name: str, path: Any) -> None:
        self._seen[id(cell)] = len(self.tokens)
        self._keep.append(cell)
        try:
            held = cell.cell_contents
        except ValueError:  # not assigned yet
            self._describe(path, "empty")
            return
        self.containers.append(("cell", cell, (name,), (held,)))
        self._visit(held, (None, name), cell, name)

    def _class(self, value: type, path: Any) -> None:
        """Methods and attributes of a class of the user's."""
        if id(value) in self._seen:
            return
        self._seen[id(value)] = len(self.tokens)
        keys = tuple(k for k in value.__dict__ if k not in code.CLASS_NOISE)
        self.containers.append(("class", value, keys, tuple(map(value.__dict__.get, keys))))
        for key in keys:
            self._visit(value.__dict__[key], (path, key), None, None)


def _hashable(key: Any) -> bool:
    return isinstance(key, (str, int, float, bytes, tuple, frozenset, type(None)))
