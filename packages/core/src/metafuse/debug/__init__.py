"""Looking inside: what will run, what ran and how long it took, what is alive.

What it is: ``explain`` and ``graph_dot`` (operators), ``trace_module`` (networks), ``record_launches`` (kernels),
``live_arrays``, ``display_memory_info`` and ``liveness_info`` (memory), ``log_capture_scope``; ``flags.debug`` prints as it goes.
What it is not: needed by anything that runs; it is imported when it is asked for.
Who calls it: users, as ``metafuse.debug``; some of it is in ``metafuse`` too.
"""

from typing import Any

#: module -> what users take from it
_NAMES = {
    "explain": ("Explanation", "explain"),
    "graphs": ("graph_dot",),
    "launches": ("Launch", "record_launches"),
    "liveness": (
        "DumpGraphs", "MemInfo", "clean", "display_max_memory_info", "dump_all_graphs", "gc", "get_max_memory_info",
        "get_mem_info", "graph_check", "liveness_info", "number_of_hold_vars", "number_of_lived_ops", "number_of_lived_vars",
    ),
    "memory": ("LiveArray", "display_memory_info", "live_arrays"),
    "output": ("log_capture_scope",),
    "tracer": ("ModuleCall", "ModuleTrace", "fill_module_name", "trace_module"),
}  # fmt: skip
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    # On first use: the runtime imports parts of this package, which themselves need the runtime.
    import importlib

    if name in _HOME:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
