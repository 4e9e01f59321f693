"""What code refers to, and whose code it is.

What it is: the global names that a function reads, and the line drawn between the user's modules and those of metafuse,
Python and installed packages, whose code is taken to be the same for ever.
What it is not: an analysis of what code does.
Who calls it: ``walk``.
"""

from __future__ import annotations

import dis
import os
import random
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

__all__ = [
    "CLASS_NOISE", "DYNAMIC", "Names", "closures", "derived", "foreign", "foreign_code", "heavy", "inner", "is_value",
    "names", "names_in", "opaque", "outside", "places", "slots", "stream",
]  # fmt: skip

#: entries of a class's dictionary that say nothing about what its code does
CLASS_NOISE = frozenset(
    {"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__qualname__", "__firstlineno__",
     "__static_attributes__", "__slots__", "__match_args__", "__abstractmethods__", "_abc_impl", "__parameters__",
     "__annotate__", "__annotate_func__", "__annotations_cache__", "__dataclass_fields__", "__dataclass_params__"}
)  # fmt: skip
#: names with which code can reach attributes that it has no word for
DYNAMIC = frozenset(
    {"getattr", "vars", "__dict__", "__getattribute__", "eval", "exec", "attrgetter", "asdict"}
)

#: parts of metafuse whose objects are no state of a step
_INNER = frozenset(
    {"dtypes", "config", "graph", "kernel", "index", "passes", "plugins", "backend", "runtime", "reference", "null"}
)  # fmt: skip
_GLOBAL_READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"})
#: modules whose objects change behind the scenes and say nothing about a step
_NOISY = frozenset({"logging", "importlib", "unittest", "concurrent", "multiprocessing", "asyncio"})
#: modules whose objects are values: compared as such
_VALUES = frozenset({"pathlib", "decimal", "fractions", "datetime", "uuid", "zoneinfo", "ipaddress"})
_FOREIGN_PATHS = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep, sysconfig.get_paths()["stdlib"] + os.sep,
    sysconfig.get_paths()["platstdlib"] + os.sep, "<frozen ", "<__array_function__",
)  # fmt: skip
_OWN = (dict, list, tuple, set, frozenset, deque)


@dataclass(frozen=True)
class Names:
    """``read``: global names; ``all``: every name and text in the code, attributes included."""

    read: tuple[str, ...]
    all: set[str]


@lru_cache(maxsize=4096)
def names(code: types.CodeType) -> Names:
    """Names in a code object and the code inside it."""
    read: dict[str, None] = {}
    found: set[str] = set()
    stack = [code]
    while stack:
        one = stack.pop()
        found.update(one.co_names, one.co_freevars, (c for c in one.co_consts if isinstance(c, str)))
        stack.extend(c for c in one.co_consts if isinstance(c, types.CodeType))
        read.update((i.argval, None) for i in dis.get_instructions(one) if i.opname in _GLOBAL_READS)
    return Names(tuple(read), found)


def names_in(executed: dict[types.CodeType, dict[str, Any]]) -> set[str]:
    """All names in the user's code among ``executed``."""
    found: set[str] = set()
    for one, space in executed.items():
        if not foreign_code(one.co_filename, space.get("__name__", "")):
            found |= names(one).all
    return found


def inner(codes: Iterable[types.CodeType]) -> set[types.CodeType]:
    """Code that is made inside other code of ``codes`` (comprehensions, local functions)."""
    found: set[types.CodeType] = set()
    stack = list(codes)
    while stack:
        for c in stack.pop().co_consts:
            if isinstance(c, types.CodeType) and c not in found:
                found.add(c)
                stack.append(c)
    return found


def foreign(thing: Any) -> bool:
    """Whether a function, class or module belongs to metafuse, Python or an installed package."""
    if isinstance(thing, types.FunctionType):
        return foreign_code(thing.__code__.co_filename, thing.__globals__.get("__name__", ""))
    module = thing.__name__ if isinstance(thing, types.ModuleType) else getattr(thing, "__module__", None)
    return _foreign_name(module if isinstance(module, str) else "")


@lru_cache(maxsize=4096)
def foreign_code(path: str, module: str) -> bool:
    """The same for code by its file; where that is generated (of a data class, say), by the name of its module."""
    if path == "<string>":
        return _foreign_name(module)
    return path.startswith(_FOREIGN_PATHS) or "site-packages" in path or "dist-packages" in path


@lru_cache(maxsize=4096)
def _foreign_name(module: str) -> bool:
    first = module.partition(".")[0]
    if not first or first == "__main__":
        return False
    if first == "metafuse" or first in sys.stdlib_module_names:
        return True
    path = getattr(sys.modules.get(module) or sys.modules.get(first), "__file__", None) or ""
    return "site-packages" in path or "dist-packages" in path


def opaque(value: Any) -> bool:
    """Whether an object is told apart by identity alone."""
    first, _, rest = _module(type(value)).partition(".")
    if first == "metafuse":
        return rest.partition(".")[0] in _INNER
    if first not in sys.stdlib_module_names or first == "__main__" or isinstance(value, _OWN):
        return False
    return first in _NOISY or not (hasattr(value, "__dict__") or any(map(slots, type(value).__mro__)))


def is_value(kind: type) -> bool:
    """Whether objects of this class never change and are compared by value (dates, paths)."""
    return _module(kind).lstrip("_").partition(".")[0] in _VALUES


def _module(kind: type) -> str:
    name = getattr(kind, "__module__", "")
    return name if isinstance(name, str) else ""


def outside(function: Any) -> str:
    """What a function of Python's own asks of the world outside of the program, in words; empty if nothing."""
    name, module = getattr(function, "__name__", ""), getattr(function, "__module__", "")
    if (module == "time" and name not in ("sleep", "strftime", "mktime")) or name in (
        "now",
        "today",
        "utcnow",
    ):
        return "it asks for the time"
    if name in ("urandom", "getrandom"):
        return "it draws random numbers from the operating system"
    return "it opens a file" if name == "open" and module in ("io", "_io", "builtins", "posix", "nt") else ""


def places(generators: Iterable[Any]) -> list[Any]:
    """Where the random numbers of Python and NumPy are: their global generators and others."""
    found: list[Any] = [random.getstate(), repr(np.random.get_state())]
    for g in generators:
        if isinstance(g, random.Random):
            found.append(g.getstate())
        elif isinstance(g, np.random.RandomState):
            found.append(repr(g.get_state()))
        else:
            found.append(repr((g.bit_generator if isinstance(g, np.random.Generator) else g).state))
    return found


def stream(kind: type) -> bool:
    """Whether objects of this class are files: they are iterators too, but are mostly written to."""
    return getattr(kind, "__module__", "") in ("_io", "io", "tempfile")


def heavy(value: Any, items: int, nbytes: int) -> bool:
    """Whether a value is long, large, or can't be compared at all."""
    if isinstance(value, np.ndarray):
        return value.nbytes > nbytes
    if isinstance(value, _OWN):
        return len(value) > items
    return any(hasattr(type(value), name) for name in ("__next__", "__array__", "__iter__"))


@lru_cache(maxsize=4096)
def slots(kind: type) -> tuple[str, ...]:
    """Names of a class's own slots."""
    own = kind.__dict__.get("__slots__", ())
    given = (own,) if isinstance(own, str) else tuple(own)
    return tuple(n for n in given if n not in ("__dict__", "__weakref__") and not n.startswith("__"))


@lru_cache(maxsize=4096)
def derived(kind: type) -> bool:
    """Whether a class inherits from one that is not the user's."""
    return any(base is not object and foreign(base) for base in kind.__mro__)


@lru_cache(maxsize=4096)
def closures(kind: type) -> tuple[Any, ...]:
    """Methods of a class that refer to variables of the function the class was made in."""
    found = [v for v in kind.__dict__.values() if isinstance(v, types.FunctionType) and v.__closure__]
    return tuple(f for f in found if set(f.__code__.co_freevars) - {"__class__"})
