"""Modules of the reference API whose names follow metafuse's.

What it is: where a name of ``jittor.<path>`` is found in metafuse, a module's ``__getattr__`` that looks there each time, and the
finder that makes the modules that have no file here.
What it is not: the table (``_table``), or any implementation.
Who calls it: ``jittor/__init__.py`` and the few modules that add something of their own.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from . import _table

__all__ = ["IDLE", "Finder", "adapted", "find", "follow", "hosts", "state", "value_of"]

#: paths below the reference package whose names stand elsewhere in metafuse, tried in this order; others keep their path
ELSEWHERE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("ops", "core", "misc", "contrib", "math_util", "mpi_ops"), ("",)),
    "einops.layers.jittor": ("einops.layers.metafuse",),
    "pool": ("nn",),
    "lr_scheduler": ("lr_scheduler", "optim"),
    "dataset": ("data",),
}

#: how the text about a name begins that may be used and does nothing
IDLE = "accepted without effect"

#: where else names of the table are looked for whose place is metafuse itself: the reference's top level holds a little of everything
EVERYTHING = ("nn", "data", "debug", "io")

#: names of the top level that are called something else in metafuse
RENAMED = {"Flags": "config.Flags", "NanoString": "dtypes.DType", "NanoVector": "var.Shape", "dtype": "dtypes.DType"}


def hosts(path: str) -> list[Any]:
    """The objects of metafuse in which the names of ``jittor.<path>`` are looked for: its own place, then its parents."""
    found: list[Any] = []
    places = [*ELSEWHERE.get(path, (path,))]
    while path:
        path = path.rpartition(".")[0]
        places += ELSEWHERE.get(path, (path,)) if path else ()
    for place in places:
        try:
            found.append(_walk(place))
        except (ImportError, AttributeError):
            continue
    return found


def _walk(place: str) -> Any:
    """``metafuse.<place>``, imported where it is a module."""
    value: Any = importlib.import_module("metafuse")
    path = "metafuse"
    for part in filter(None, place.split(".")):
        path = f"{path}.{part}"
        value = getattr(value, part) if hasattr(value, part) else importlib.import_module(path)
    return value


def find(module: str, name: str) -> Any:
    """What stands behind ``module.name``.

    Errors: ``AttributeError``, with the reason if the reference API has the name and this package does not.
    """
    if f"{module}.{name}" in _table.module_names():
        return importlib.import_module(f"{module}.{name}")
    listed = name in _table.names().get(module, ())
    why = _table.reason(module, name) if listed else None
    if why is None and not (name.startswith("__") and name.endswith("__")):
        places = hosts(_table.short(module))
        if listed and places[:1] == [_walk("")]:
            if name in RENAMED:
                return _walk(RENAMED[name])
            places += [_walk(place) for place in EVERYTHING]
        for place in places:
            if hasattr(place, name):
                return adapted(getattr(place, name), _table.forms(module, name))
    text = f"module {module!r} has no attribute {name!r}"
    raise AttributeError(f"{text}: {why} (docs/compat.md)" if why else text)


def state(module: str, name: str) -> tuple[str, str]:
    """What became of a name of the table: ``works``, ``accepted without effect``, ``not offered`` or ``missing``; and why."""
    why = _table.reason(module, name)
    if why is not None:
        return "not offered", why
    try:
        value = value_of(module, name)
    except (AttributeError, ImportError):
        return "missing", ""
    idle = (described(module, name, value) or "").lower().startswith(IDLE)
    return (IDLE if idle else "works"), ""


def value_of(module: str, name: str) -> Any:
    """What the table's ``module.name`` is here. Errors: ``AttributeError`` if it is not there."""
    if module not in _table.OBJECTS:
        return getattr(importlib.import_module(module), name)
    owner = getattr(importlib.import_module("jittor"), _table.short(module))
    if name.startswith("__") and not any(name in vars(c) for c in owner.__mro__):
        raise AttributeError(name)
    return inspect.getattr_static(owner, name) if inspect.isclass(owner) else getattr(owner, name)


def described(module: str, name: str, value: Any) -> str | None:
    """The text about a name: a docstring, or what the table of settings says."""
    if module == "jittor.flags":
        from metafuse.config import ALIASES, SETTINGS

        return SETTINGS[ALIASES.get(name, name)].doc
    return inspect.getdoc(value)


def adapted(function: Any, forms: Sequence[_table.Form]) -> Any:
    """``function``, also under other names of its parameters, where the reference's stand in the same places.

    Example:
        >>> def power(base, exponent):
        ...     return base**exponent
        >>> adapted(power, [[("x", None), ("y", None)]])(y=3, x=2)
        8
    """
    if not forms or not inspect.isfunction(function):
        return function
    own = [
        name for name, p in inspect.signature(function).parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    renames: dict[str, str] = {}
    for form in forms:
        given = {name for name, _ in form}
        for (name, _), here in zip(form, own):
            if name.strip("*_") and not name.startswith("*") and name not in own and here not in given:
                renames.setdefault(name, here)
    if not renames:
        return function

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **{renames.get(name, name): value for name, value in kwargs.items()})

    call.renames = renames  # type: ignore[attr-defined]
    return call


def follow(module: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a module of the reference API."""

    def get(name: str) -> Any:
        if name == "__all__":  # `from jittor.nn import *`
            return [n for n in listing() if not n.startswith("_")]
        value = find(module, name)
        if callable(value):  # others, `rank` for one, may be something else the next time
            vars(sys.modules[module])[name] = value
        return value

    def listing() -> list[str]:
        own = importlib.import_module(module)
        table = _table.names().get(module, {})
        return sorted(name for name in table if name in vars(own) or _exists(module, name))

    return get, listing


def _exists(module: str, name: str) -> bool:
    try:
        find(module, name)
    except (AttributeError, ImportError):
        return False
    return True


class Finder(MetaPathFinder, Loader):
    """Makes ``jittor.<path>`` for paths that are in the table, or that are modules of metafuse."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module is made if the table, or metafuse at the same path, has it.

        Errors: ``ImportError`` for a name that is not offered: ``from jittor.x import y`` asks here before it gives up, and would not
        tell why."""
        if not fullname.startswith(f"{self.package}."):
            return None
        module, _, name = fullname.rpartition(".")
        if name in _table.names().get(module, ()) and (why := _table.reason(module, name)):
            raise ImportError(f"cannot import {name!r} from {module!r}: {why} (docs/compat.md)", name=fullname)
        if fullname not in _table.module_names() and not _is_module(_table.short(fullname)):
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """An ordinary module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Have it follow metafuse."""
        name = module.__name__
        target = next((h for h in hosts(_table.short(name)) if inspect.ismodule(h)), None)
        module.__doc__ = f"``{name}``: the names of ``{target.__name__ if target else 'metafuse'}``."
        module.__getattr__, module.__dir__ = follow(name)  # type: ignore[method-assign, assignment]


def _is_module(path: str) -> bool:
    try:
        return inspect.ismodule(_walk(path))
    except (ImportError, AttributeError):
        return False
