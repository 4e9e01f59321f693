"""What users can call, found by walking the packages that are theirs.

What it is: every public callable with the name by which users reach it, each once.
What it is not: a list that somebody keeps: a new operator, layer or function is in it by being public.
Who calls it: tests that hold for everything public: documentation, behaviour on illegal arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import metafuse

from ..var import Var

__all__ = ["Public", "callables", "methods_of"]


@dataclass(frozen=True)
class Public:
    """Something that users can call: a name as they write it (``metafuse.nn.Linear``), and what the name stands for."""

    name: str
    value: Any

    @property
    def is_class(self) -> bool:
        """Whether calling it makes an object."""
        return inspect.isclass(self.value)


def callables() -> list[Public]:
    """Functions and classes of the users' packages, and the methods of ``Var``; by name, each once (the shortest name)."""
    found: dict[int, Public] = {}
    for module in _packages():
        for name in _names(module):
            value = getattr(module, name)
            if callable(value) and _is_ours(value):
                found.setdefault(id(value), Public(f"{module.__name__}.{name}", value))
    for name, value in methods_of(Var):
        found.setdefault(id(value), Public(f"metafuse.Var.{name}", value))
    return sorted(found.values(), key=lambda public: public.name)


def methods_of(kind: type) -> list[tuple[str, Any]]:
    """Public methods of a class, those that it inherits from another class of ours included."""
    found = []
    for name in dir(kind):
        value = getattr(kind, name)
        if not name.startswith("_") and callable(value) and not inspect.isclass(value) and _is_ours(value):
            found.append((name, value))
    return found


def _is_ours(value: Any) -> bool:
    return str(getattr(value, "__module__", None) or type(value).__module__).startswith("metafuse")


def _packages() -> Iterator[ModuleType]:
    """``metafuse`` itself, then the modules that it hands out by name, then those that these name in ``__all__``."""
    waiting: list[ModuleType] = [metafuse]
    seen: list[ModuleType] = []
    while waiting:
        module = waiting.pop(0)
        if module in seen:
            continue
        seen.append(module)
        yield module
        for name in [*sorted(metafuse._LAZY), "mpi"] if module is metafuse else _names(module):
            value = getattr(module, name)
            if isinstance(value, ModuleType) and value.__name__.startswith("metafuse"):
                waiting.append(value)


def _names(module: ModuleType) -> list[str]:
    return getattr(module, "__all__", None) or [name for name in dir(module) if not name.startswith("_")]
