"""The Python state that a function can see, as a flat description that two calls can be compared by.

What it is: ``Walk`` goes from a function through its closure, the globals that its code names, bound objects and their
attributes, lists and dictionaries, and describes everything it meets: Vars by shape and dtype, numbers and texts by value,
code and foreign objects by identity.
What it is not: what is compared on each call (``guard``), or what a call changed (``effects``).
Who calls it: ``compiled``.
"""

from __future__ import annotations

import functools
import types
from collections import deque
from random import Random
from typing import Any
from weakref import ref

import numpy as np

from ..var import Var
from . import code
from .numbers import Number

__all__ = ["Same", "Unseen", "Walk", "number_token", "typed"]

#: so many described values at most: comparing them on each call must stay cheap
LIMIT = 100_000
#: bytes of host arrays that are compared on each call
ARRAY_LIMIT = 1 << 20
#: containers from this length on are looked into only where code that runs names them
LONG = 1000

_ATOMS = (type(None), bool, str, bytes, complex, type(Ellipsis), type(NotImplemented), slice, range)
_PLAIN = (dict, list, tuple, set, frozenset, deque)
_GENERATORS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, Random)

Path = Any  # (the path before, a name), or None


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
    """A number or text with its type; zeros of either sign are told apart, and NaN is equal to itself."""
    if isinstance(value, float) and (value == 0.0 or value != value):
        return type(value), repr(value)
    return type(value), value


def number_token(kind: type) -> tuple[Any, ...]:
    """What stands in a description for a number that is followed."""
    return "number", kind


class Walk:
    """Everything reachable from ``roots`` (name, object), described.

    ``executed``: code objects that are known to run, with their globals; other functions are not looked into. ``None``: all
    are.

    ``tokens``: the description. ``vars``: the Vars met, each once. ``numbers``: token position -> (container, key) of every
    Python number that stands where another could be put. ``containers``: per mutable container its kind, itself, its keys
    and its values as they are now. ``arrays``: host arrays and their bytes. ``generators``: sources of random numbers.
    """

    def __init__(
        self, roots: list[tuple[str, Any]], executed: dict[types.CodeType, dict[str, Any]] | None
    ) -> None:
        self.tokens: list[Any] = []
        self.paths: list[Path] = []
        self.vars: list[Var] = []
        self.numbers: dict[int, tuple[Any, Any]] = {}
        self.containers: list[tuple[str, Any, tuple[Any, ...], tuple[Any, ...]]] = []
        self.arrays: list[tuple[Any, bytes]] = []
        self.generators: list[Any] = []
        self._executed = executed
        self._names = code.names_in(executed) if executed is not None else None
        self._seen: dict[Any, int] = {}
        self._things: dict[int, Any] = {}  # what was met stays alive, so that identities stay its own
        self._keep: list[Any] = []
        self._var_number: dict[int, int] = {}
        self._visited_code: set[types.CodeType] = set()
        try:
            for name, root in roots:
                self._visit(root, (None, name), None, None)
            self._rest()
        except RecursionError:
            raise Unseen("state that is nested too deeply") from None

    # -- paths -----------------------------------------------------------------------------------------------------
    def thing(self, position: int) -> Any:
        """The object described at ``position``."""
        return self._things[position]

    def position(self, thing: Any) -> int | None:
        """Where an object that was met is described."""
        return self._seen.get(id(thing))

    def forget(self) -> None:
        """Keep the description alone: what was met may go."""
        self.vars, self.containers, self.arrays, self.generators = [], [], [], []
        self.numbers = dict.fromkeys(self.numbers, (None, None))
        self._seen, self._things, self._keep, self._var_number = {}, {}, [], {}

    def path(self, position: int) -> str:
        """The way to the value described at ``position``."""
        return _show(self.paths[position])

    def _describe(self, path: Path, token: Any) -> None:
        self.tokens.append(token)
        self.paths.append(path)
        if len(self.tokens) > LIMIT:
            raise Unseen(f"more than {LIMIT} values of Python state, of which the last is {_show(path)}")

    # -- values ----------------------------------------------------------------------------------------------------
    def _visit(self, value: Any, path: Path, container: Any, key: Any) -> None:
        kind = type(value)
        if kind is int or kind is float or kind is np.float64:
            if container is not None:
                self.numbers[len(self.tokens)] = (container, key)
            self._describe(path, typed(value))
        elif kind in _ATOMS:
            self._describe(path, typed(value))
        elif kind is Var:
            self._var(value, path)
        elif kind is Number:  # left in the state by a recording that is not finished yet
            self._describe(path, typed(value.value))
        elif id(value) in self._seen:
            self._describe(path, ("again", self._seen[id(value)]))
        else:
            self._seen[id(value)] = len(self.tokens)
            self._things[len(self.tokens)] = value
            self._object(value, kind, path)

    def _var(self, var: Var, path: Path) -> None:
        number = self._var_number.get(id(var))
        if number is None:
            number = self._var_number[id(var)] = len(self.vars)
            self.vars.append(var)
            if var._hooks:
                self._visit(var._hooks, (path, "hooks"), None, None)
        node = var._node
        self._describe(path, ("var", number, node.spec, node.requires_grad))

    def _object(self, value: Any, kind: type, path: Path) -> None:
        if isinstance(value, np.generic):
            self._describe(path, (kind, value.tobytes()))
        elif hasattr(kind, "__array__") or _has_bytes(value):
            self._array(value, path)
        elif isinstance(value, type):
            self._describe(path, Same(value))
            self._class(value, path)
        elif kind is types.FunctionType:
            self._function(value, path)
        elif kind is types.MethodType:
            self._parts("method", value, ("__func__", "__self__"), path)
        elif isinstance(value, functools.partial):
            self._parts("partial", value, ("func", "args", "keywords"), path)
        elif isinstance(value, (staticmethod, classmethod)):
            self._parts(kind, value, ("__func__",), path)
        elif isinstance(value, property):
            self._parts(kind, value, ("fget", "fset"), path)
        elif kind.__module__ == "metafuse.capture.compiled":  # what it counts is no state
            self._parts("compiled", value, ("function",), path)
        elif isinstance(value, _GENERATORS):
            self.generators.append(value)
            self._describe(path, Same(value))
        elif isinstance(value, types.ModuleType) or code.stream(kind):
            self._describe(path, Same(value))
        elif hasattr(kind, "__next__"):
            raise Unseen(f"the iterator {_show(path)}, whose place can't be seen")
        elif isinstance(value, ref):
            self._describe(path, "weak reference")
            self._visit(value(), path, None, None)
        elif code.is_value(kind):
            self._describe(path, (kind, value))
        elif code.opaque(value):
            self._describe(path, Same(value))
        elif isinstance(value, _PLAIN):
            self._plain(value, kind, path)
        else:
            self._instance(value, kind, path)

    def _parts(self, token: Any, value: Any, names: tuple[str, ...], path: Path) -> None:
        self._describe(path, token)
        for name in names:
            self._visit(getattr(value, name), path if name.startswith("_") else (path, name), None, None)

    def _plain(self, value: Any, kind: type, path: Path) -> None:
        """A container of Python's own, or of a class derived from one."""
        base = next(b for b in _PLAIN if isinstance(value, b))
        if base is dict:
            self._mapping(value, kind, path)
        else:
            self._describe(path, (kind, len(value)))
            items = tuple(value)
            if base is not tuple and base is not frozenset:
                self.containers.append((base.__name__, value, (), items))
            for k, item in enumerate(items):
                self._visit(item, (path, f"[{k}]"), value if base is list else None, k)
        if kind is not base and not code.foreign(kind):
            self._instance(value, kind, path)

    def _mapping(
        self, value: Any, kind: type, path: Path, attributes: bool = False, own: bool = False
    ) -> None:
        keys, values = tuple(value), tuple(value.values())
        self._describe(path, (kind, *(k if _plain_key(k) else Same(k) for k in keys)))
        self.containers.append(("dict", value, keys, values))
        for key, item in zip(keys, values, strict=True):
            if own and type(item) is not Var and self._unused(key, item):
                self._describe((path, key), Same(item))
            else:
                self._visit(item, (path, key if attributes else f"[{key!r}]"), value, key)

    def _unused(self, name: str, value: Any) -> bool:
        """Whether an attribute is expensive to compare and no code that runs has a word for it."""
        if self._names is None or name in self._names or self._names & code.DYNAMIC:
            return False
        return code.heavy(value, LONG, ARRAY_LIMIT // 16)

    def _instance(self, value: Any, kind: type, path: Path) -> None:
        """Any other object: its attributes, and its class if that is the user's own."""
        self._describe(path, Same(kind))
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            self._mapping(attributes, dict, path, attributes=True, own=not code.derived(kind))
        slots = tuple(name for base in kind.__mro__ for name in code.slots(base))
        if slots:
            values = tuple(getattr(value, name, None) for name in slots)
            self.containers.append(("slots", value, slots, values))
            for name, item in zip(slots, values, strict=True):
                self._visit(item, (path, name), None, None)
        elif attributes is None and not isinstance(value, _PLAIN):
            self._describe(path, Same(value))
        for base in kind.__mro__:
            if base is not object:
                self._visit(base, (path, "__class__"), None, None)

    def _array(self, value: Any, path: Path) -> None:
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            self._describe(path, ("array", value.shape, value.dtype.str))
            held = value.tobytes() if value.nbytes <= ARRAY_LIMIT else None
        else:
            self._describe(path, type(value))
            held = memoryview(value).tobytes() if _has_bytes(value) else None
        if held is None or sum(len(b) for _, b in self.arrays) + len(held) > ARRAY_LIMIT:
            raise Unseen(f"the host array {_show(path)}; pass it as an argument or make it a Var")
        self.arrays.append((value, held))
        self._describe(path, held)

    # -- code ------------------------------------------------------------------------------------------------------
    def _function(self, value: types.FunctionType, path: Path) -> None:
        self._describe(path, Same(value.__code__))
        if self._executed is not None and value.__code__ not in self._executed:
            return
        self._visited_code.add(value.__code__)
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            if name != "__class__" and id(cell) not in self._seen:
                self._cell(cell, name)
        if code.foreign(value):
            return
        for part in (value.__defaults__, value.__kwdefaults__):
            if part:
                self._visit(part, (path, "defaults"), None, None)
        if value.__dict__:
            self._mapping(value.__dict__, dict, path, attributes=True)
        self._globals(value.__code__, value.__globals__)

    def _rest(self) -> None:
        """Code that ran though no function was met that holds it: its globals can be seen, a closure can not."""
        if self._executed is None:
            return
        inside = code.inner(self._executed)
        for one, space in sorted(
            self._executed.items(), key=lambda x: (x[0].co_filename, x[0].co_firstlineno)
        ):
            if one in self._visited_code or code.foreign_code(one.co_filename, space.get("__name__", "")):
                continue
            if one.co_freevars and one not in inside:
                raise Unseen(
                    f"the closure of {one.co_qualname if hasattr(one, 'co_qualname') else one.co_name}"
                )
            self._globals(one, space)

    def _globals(self, one: types.CodeType, space: dict[str, Any]) -> None:
        found = code.names(one)
        names = tuple(n for n in found.read if (id(space), n) not in self._seen)
        for name in names:
            self._seen[(id(space), name)] = 0
        if names:
            self.containers.append(("globals", space, names, tuple(map(space.get, names))))
        for name in names:
            item = space.get(name)
            if isinstance(item, types.ModuleType) and not code.foreign(item):
                self._module(item, name, found.all)
            elif name in space:
                self._visit(item, (None, name), space, name)

    def _module(self, module: types.ModuleType, name: str, named: set[str]) -> None:
        """What code may take from a module of the user's."""
        space = module.__dict__
        below = tuple(n for n in sorted(named) if n in space and (id(space), n) not in self._seen)
        for other in below:
            self._seen[(id(space), other)] = 0
        self.containers.append(("globals", space, below, tuple(map(space.get, below))))
        for other in below:
            self._visit(space[other], ((None, name), other), space, other)

    def _cell(self, cell: Any, name: str) -> None:
        self._seen[id(cell)] = len(self.tokens)
        self._keep.append(cell)
        try:
            held = cell.cell_contents
        except ValueError:  # not assigned yet
            self._describe((None, name), "empty")
            return
        self.containers.append(("cell", cell, (name,), (held,)))
        self._visit(held, (None, name), cell, name)

    def _class(self, value: type, path: Path) -> None:
        """Methods and attributes of a class of the user's, and closures of any other."""
        if code.foreign(value):
            for function in code.closures(value):
                self._visit(function, path, None, None)
            return
        self.containers.append(("class", value, tuple(value.__dict__), tuple(value.__dict__.values())))
        for key in tuple(value.__dict__):
            if key not in code.CLASS_NOISE:
                self._visit(value.__dict__[key], (path, key), None, None)


def _show(path: Path) -> str:
    parts: list[str] = []
    while path is not None:
        path, name = path
        parts.append(str(name))
    return "".join(p if p.startswith("[") or k == 0 else f".{p}" for k, p in enumerate(reversed(parts)))


def _has_bytes(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


def _plain_key(key: Any) -> bool:
    return isinstance(key, (str, int, float, bytes, type(None)))
