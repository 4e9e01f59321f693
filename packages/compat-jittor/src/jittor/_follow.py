"""Modules of the reference API whose names follow metafuse's.

What it is: where a name of ``jittor.<path>`` is found in metafuse, a module's ``__getattr__`` that looks there each time, and the
finder that makes the modules that have no file here.
What it is not: the table (``_table``), or any implementation.
Who calls it: ``jittor/__init__.py`` and the few modules that add something of their own.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from metafuse import flag_names
from metafuse.ops.registry import all_operators

from . import _table

__all__ = [
    "ABSENT",
    "IDLE",
    "MISSING",
    "STATES",
    "WORKS",
    "Finder",
    "adapted",
    "find",
    "follow",
    "hosts",
    "state",
    "value_of",
]

#: paths below the reference package whose names stand elsewhere in metafuse, tried in this order; others keep their path
ELSEWHERE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("ops", "core", "misc", "contrib", "math_util", "mpi_ops"), ("",)),
    "einops.layers.jittor": ("einops.layers.metafuse",),
    "pool": ("nn",),
    "lr_scheduler": ("lr_scheduler", "optim"),
    "dataset": ("data",),
    "utils.tracer": ("debug.tracer",),
}

#: what may become of a name; the docstring of what does nothing begins with these words
STATES = WORKS, IDLE, ABSENT, MISSING = "works", "accepted without effect", "not offered", "missing"

#: where else names are looked for whose place is metafuse itself: the reference's top level holds a little of everything
EVERYTHING = ("nn", "data", "debug", "io", "transform")

#: names of the top level that are called something else, or that mean nothing in metafuse
RENAMED = {
    "Flags": "metafuse.config:Flags",
    "NanoString": "metafuse.dtypes:DType",
    "NanoVector": "metafuse.var:Shape",
    "dtype": "metafuse.dtypes:DType",
    "get_device_count": "jittor.compile_extern:get_device_count",
    "print_trace": "traceback:print_stack",
    "safepickle": "metafuse.io.hashed_pickle:save_pickle",
    "safeunpickle": "metafuse.io.hashed_pickle:load_pickle",
    **{name: f"jittor._functions:{name}" for name in ("digamma", "lgamma")},
    **{
        name: f"jittor._idle:{name}"
        for name in ("clean_graph", "cleanup", "clear_trace_data", "migrate_all_to_cpu")
    },
}


#: modules whose names are in a distribution that need not be there: its name, and its module
DISTRIBUTIONS = {"jittor.utils.pytorch_converter": ("metafuse-converter", "metafuse_converter.pjmap")}

#: functions whose parameters have other names here: the reference's name -> metafuse's
PARAMETERS = {
    "array": {"obj": "data"},
    "broadcast": {"y": "shape"},
    "cast": {"op": "dtype"},
    "index": {"a": "shape"},
    "numpy_code": {"shapes": "shape", "dtypes": "dtype"},
    "numpy_cumprod": {"a": "x"},
    "setitem": {"value": "y"},
}


def hosts(module: str) -> list[Any]:
    """The objects of metafuse in which the names of ``module`` are looked for: its own place, then its parents."""
    package, _, path = module.partition(".")
    if package != "jittor":
        return []
    places = [*ELSEWHERE.get(path, (path,))]
    while path := path.rpartition(".")[0]:
        places += ELSEWHERE.get(path, (path,))
    found: list[Any] = []
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
    text = f"module {module!r} has no attribute {name!r}"
    if name.startswith("__") and name.endswith("__"):
        raise AttributeError(text)
    listed = name in _table.names().get(module, ())
    if listed and module in DISTRIBUTIONS:
        return _of_distribution(module, name)
    places = hosts(module)
    if listed and places[:1] == [_walk("")]:
        if name in RENAMED:
            return pkgutil.resolve_name(RENAMED[name])
        places += [_walk(place) for place in EVERYTHING]
    for place in places:
        if hasattr(place, name):
            value = getattr(place, name)
            return (
                adapted(value, PARAMETERS[name])
                if name in PARAMETERS and inspect.isfunction(value)
                else value
            )
    why = _table.reason(module, name) if listed else None
    raise AttributeError(f"{text}: {why} (docs/compat.md)" if why else text + _not_installed(module))


def _of_distribution(module: str, name: str) -> Any:
    distribution, where = DISTRIBUTIONS[module]
    try:
        return getattr(importlib.import_module(where), name)
    except ModuleNotFoundError as error:
        raise AttributeError(
            f"module {module!r} has no attribute {name!r}: {distribution} is not installed; pip install {distribution}"
        ) from error


def _not_installed(module: str) -> str:
    """What metafuse says where the module's own place can't be imported, because something optional is not there."""
    try:
        _walk(_table.short(module))
    except ModuleNotFoundError as error:
        return "" if (error.name or "").startswith("metafuse.") else f": {error}"
    except AttributeError:
        pass
    return ""


def state(module: str, name: str) -> tuple[str, str]:
    """What became of a name of the table, one of ``STATES``, and why."""
    try:
        value = value_of(module, name)
    except (AttributeError, ImportError):
        why = _table.reason(module, name)
        return (ABSENT, why) if why else (MISSING, "")
    if module == "jittor.flags":
        row = flag_names.find(name)
        return (IDLE, row.doc) if row is not None and not row.works and row.read is None else (WORKS, "")
    about = (inspect.getdoc(value) or "").partition("\n")[0]
    return (IDLE, about.partition(": ")[2].rstrip(".")) if about.lower().startswith(IDLE) else (WORKS, "")


def value_of(module: str, name: str) -> Any:
    """What the table's ``module.name`` is here. Errors: ``AttributeError`` if it is not there."""
    if module not in _table.OBJECTS:
        return getattr(importlib.import_module(module), name)
    all_operators()  # enters the methods that are entered on demand
    owner = getattr(importlib.import_module("jittor"), _table.short(module))
    if name.startswith("__") and not any(name in vars(c) for c in owner.__mro__):
        raise AttributeError(name)
    return inspect.getattr_static(owner, name) if inspect.isclass(owner) else getattr(owner, name)


def adapted(function: Any, renames: Mapping[str, str]) -> Any:
    """``function`` with parameters that may also be given by other names.

    Example:
        >>> def power(base, exponent):
        ...     return base**exponent
        >>> adapted(power, {"y": "exponent"})(2, y=3)
        8
    """

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

        Errors: ``ImportError`` for a name that is not offered: ``from jittor.x import y`` asks here before it gives up, and would
        not tell why."""
        if not fullname.startswith(f"{self.package}."):
            return None
        module, _, name = fullname.rpartition(".")
        why = _table.reason(module, name) if name in _table.names().get(module, ()) else None
        if why and state(module, name)[0] == ABSENT:
            raise ImportError(
                f"cannot import {name!r} from {module!r}: {why} (docs/compat.md)", name=fullname
            )
        if module in DISTRIBUTIONS and name in _table.names().get(module, ()):
            try:
                _of_distribution(module, name)
            except AttributeError as error:
                raise ImportError(str(error), name=fullname) from error
        if fullname not in _table.module_names() and not _is_module(fullname):
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """An ordinary module."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Have it follow metafuse."""
        name = module.__name__
        target = next((h for h in hosts(name) if inspect.ismodule(h)), None)
        module.__doc__ = f"``{name}``: the names of ``{target.__name__ if target else 'metafuse'}``."
        module.__getattr__, module.__dir__ = follow(name)  # type: ignore[method-assign, assignment]


def _is_module(fullname: str) -> bool:
    package, _, path = fullname.partition(".")
    try:
        return package == "jittor" and inspect.ismodule(_walk(path))
    except (ImportError, AttributeError):
        return False
