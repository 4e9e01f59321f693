"""metafuse: a just-in-time compiling deep-learning framework.

What it is: the public API, by explicit names; operators come from the table of records.
What it is not: any implementation.
Who calls it: users, as ``import metafuse as mf``.
"""

from __future__ import annotations

from typing import Any

from . import dist, errors
from .config import flag_scope, flags
from .dist.process import single_process_scope
from .dtypes import DType, as_dtype
from .errors import MetafuseError
from .ops import *
from .ops import registry as _registry
from .ops.reduce import var as _variance
from .ops.scalar import pow
from .var import Var, sync, sync_all

var = _variance  # the operator; the module of this name can still be imported from
__version__ = "0.1.0"

_LAZY = {
    "amp", "attention", "data", "dataset", "debug", "distributions", "einops", "fft", "gradfunctional", "init", "io",
    "linalg", "loss3d", "lr_scheduler", "nn", "optim", "other", "profiler", "sparse", "testing", "transform", "weightnorm",
}  # fmt: skip
#: tools -> the module that has them
_TOOLS = {
    **dict.fromkeys(("profile_mark", "profile_scope"), "profiler"),
    **dict.fromkeys((
        "DumpGraphs", "MemInfo", "clean", "display_max_memory_info", "display_memory_info", "dump_all_graphs", "gc",
        "get_max_memory_info", "get_mem_info", "graph_check", "liveness_info", "log_capture_scope", "number_of_hold_vars",
        "number_of_lived_ops", "number_of_lived_vars",
    ), "debug"),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Operators by their records (also ones that plugins register later), and subpackages on first use."""
    function = _registry.function_named(name)
    if function is not None:
        return function
    if name in _LAZY:
        import importlib

        return importlib.import_module(f".{'data' if name == 'dataset' else name}", __name__)
    if name in _TOOLS:
        import importlib

        return getattr(importlib.import_module(f".{_TOOLS[name]}", __name__), name)
    if name == "explain":
        from .debug.explain import explain

        return explain
    if name == "compile":
        from .capture import compile

        return compile
    if name in ("Module", "Dataset"):
        from .data.dataset import Dataset
        from .nn.module import Module

        return Module if name == "Module" else Dataset
    if name in ("load", "save"):
        from . import io

        return getattr(io, name)
    if name in ("rank", "world_size", "in_mpi"):  # asks for the other processes, if there are any
        return getattr(dist, name)()
    if name == "mpi":
        from .dist import mpi

        return mpi
    if name == "models":  # of a distribution that need not be there
        import importlib

        try:
            return importlib.import_module(".models", __name__)
        except ModuleNotFoundError as error:
            raise AttributeError(str(error)) from error
    raise AttributeError(f"module 'metafuse' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(
        {*globals(), *_LAZY, *_TOOLS, "compile", "explain", "in_mpi", "load", "Module", "mpi", "Dataset", "rank", "save", "world_size", *_registry.function_names()}
    )
