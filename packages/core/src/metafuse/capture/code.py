"""What code refers to, and whose code it is.

What it is: the global names that a function reads, and the line drawn between the user's modules and those of metafuse, Python and
installed packages, whose code is taken to be the same for ever.
What it is not: an analysis of what code does.
Who calls it: ``walk``.
"""

from __future__ import annotations

import dis
import sys
import types
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

__all__ = ["CLASS_NOISE", "Names", "foreign", "names", "opaque", "slots"]

#: entries of a class's dictionary that say nothing about what its code does
CLASS_NOISE = frozenset(
    {"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__qualname__", "__firstlineno__",
     "__static_attributes__", "__slots__", "__match_args__", "__abstractmethods__", "_abc_impl", "__parameters__",
     "__annotate__", "__annotations_cache__", "__annotate_func__", "__dataclass_fields__", "__dataclass_params__"}
)  # fmt: skip

#: parts of metafuse whose objects are no state of a step
_INNER = ("dtypes", "config", "graph", "kernel", "index", "passes", "plugins", "backend", "runtime", "reference", "null", "ops")
_GLOBAL_READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"})
#: classes of the standard library whose objects hold state that is the user's
_TRANSPARENT = frozenset({"SimpleNamespace", "Namespace", "OrderedDict", "defaultdict", "Counter", "deque", "partial", "ChainMap"})


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


def foreign(thing: Any) -> bool:
    """Whether a function, class or module belongs to metafuse, Python or an installed package."""
    module = thing.__name__ if isinstance(thing, types.ModuleType) else getattr(thing, "__module__", None)
    return _foreign_module(module if isinstance(module, str) else "")


def opaque(kind: type) -> bool:
    """Whether objects of this class are told apart by identity alone."""
    module = getattr(kind, "__module__", "")
    if not isinstance(module, str) or kind.__name__ in _TRANSPARENT:
        return False
    first, _, rest = module.partition(".")
    if first == "metafuse":
        return rest.partition(".")[0] in _INNER
    return first in sys.stdlib_module_names and first != "__main__"


@lru_cache(maxsize=4096)
def slots(kind: type) -> tuple[str, ...]:
    """Names of a class's own slots."""
    own = kind.__dict__.get("__slots__", ())
    given = (own,) if isinstance(own, str) else tuple(own)
    return tuple(n for n in given if n not in ("__dict__", "__weakref__") and not n.startswith("__"))


@lru_cache(maxsize=4096)
def _foreign_module(name: str) -> bool:
    first = name.partition(".")[0]
    if not first or first == "__main__":
        return False
    if first == "metafuse" or first in sys.stdlib_module_names:
        return True
    path = getattr(sys.modules.get(name) or sys.modules.get(first), "__file__", None) or ""
    return "site-packages" in path or "dist-packages" in path
