"""Looking inside: what will run, what ran and how long it took, what is alive.

What it is: ``explain``, ``record_launches``, ``live_arrays`` and ``display_memory_info``; ``flags.debug`` prints as it goes.
What it is not: needed by anything that runs; it is imported when it is asked for.
Who calls it: users, as ``metafuse.debug``.
"""

from typing import Any

__all__ = [
    "Explanation",
    "Launch",
    "LiveArray",
    "display_memory_info",
    "explain",
    "live_arrays",
    "record_launches",
]

_HOME = {
    "Explanation": "explain",
    "Launch": "launches",
    "LiveArray": "memory",
    "display_memory_info": "memory",
    "live_arrays": "memory",
    "record_launches": "launches",
}


def __getattr__(name: str) -> Any:
    # On first use: the runtime imports parts of this package, which themselves need the runtime.
    import importlib

    if name in _HOME:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
