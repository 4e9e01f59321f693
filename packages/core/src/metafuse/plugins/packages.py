"""Packages of other distributions that are reached as attributes of ``metafuse``, such as ``metafuse.models``.

What it is: a table from such a name to a module, filled by the hook ``metafuse_packages`` and imported from on first use.
What it is not: metafuse's own subpackages, which ``metafuse/__init__`` knows.
Who calls it: ``metafuse.__getattr__``, for a public name that is nothing else.
"""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Mapping
from types import ModuleType

from ..errors import PluginError
from .manager import Plugins
from .registry import registry

__all__ = ["package"]

#: First-party packages and how one gets them, for the message where one is asked for and absent.
INSTALL = {"models": "metafuse-models"}

_found: weakref.WeakKeyDictionary[Plugins, dict[str, str]] = weakref.WeakKeyDictionary()


def package(name: str, plugins: Plugins | None = None) -> ModuleType:
    """The module that a plugin offers as ``metafuse.<name>``; ``plugins`` replaces those of the process (for tests).

    Errors: ``AttributeError`` if there is none; where it could be had, the message says how. What importing the module raises.
    """
    plugins = plugins or registry().plugins
    modules = _found.get(plugins)
    if modules is None:
        modules = _found[plugins] = _collect(plugins)
    if name in modules:
        return importlib.import_module(modules[name])
    message = f"module 'metafuse' has no attribute {name!r}"
    if name in INSTALL:
        reasons = [f"its plugin is {r.status}: {r.reason}" for r in plugins.records() if r.name == name]
        message = f"[metafuse] {name!r} is not installed; pip install {INSTALL[name]}"
        if reasons:
            message = f"[metafuse] {name!r} is not available: {reasons[0]}"
    raise AttributeError(message)


def _collect(plugins: Plugins) -> dict[str, str]:
    found: dict[str, str] = {}
    for record, offered in plugins.call("metafuse_packages"):
        try:
            if not isinstance(offered, Mapping) or not all(
                isinstance(text, str) for pair in offered.items() for text in pair
            ):
                raise PluginError(f"metafuse_packages() must answer names mapped to modules' names, not {offered!r}")
            taken = sorted(found.keys() & offered.keys())
            if taken:
                raise PluginError(f"the package {taken[0]!r} is already brought by {found[taken[0]]!r}")
        except PluginError as error:
            plugins.mark_broken(record, str(error))
            continue
        found.update(offered)
    return found
