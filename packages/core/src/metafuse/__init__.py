"""metafuse: a just-in-time compiling deep-learning framework.

What it is: the public API, by explicit names; operators come from the table of records.
What it is not: any implementation.
Who calls it: users, as ``import metafuse as mf``.
"""

from __future__ import annotations

import os as _os
from typing import Any

from . import errors
from .config import flag_scope, flags
from .dtypes import DType, as_dtype
from .errors import MetafuseError
from .ops import *
from .ops import registry as _registry
from .ops.reduce import var as _variance
from .ops.scalar import pow
from .var import Var, sync, sync_all

if any(name.endswith(("_RANK", "_PROCID")) for name in _os.environ):
    # Started by a launcher, it seems: a rank that fails has to end the others, from here on.
    from . import dist as _dist

var = _variance  # the operator; the module of this name can still be imported from
__version__ = "0.1.0"

_LAZY = {
    "amp", "attention", "data", "dataset", "debug", "dist", "distributions", "einops", "fft", "gradfunctional", "init", "io",
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
    if name in _LAZY:
        import importlib

        return importlib.import_module(f".{'data' if name == 'dataset' else name}", __name__)
    function = _registry.function_named(name)
    if function is not None:
        return function
    if name in _TOOLS:
        import importlib

        return getattr(importlib.import_module(f".{_TOOLS[name]}", __name__), name)
    if name == "explain":
        from .debug.explain import explain

        return explain
    if name == "compile":
        from .capture import compile

        return compile
    if name == "Module":
        from .nn.module import Module

        return Module
    if name == "Dataset":
        from .data.dataset import Dataset

        return Dataset
    if name in ("load", "safepickle", "safeunpickle", "save"):
        from . import io

        return getattr(io, name)
    if name == "save_image":
        from .transform.saving import save_image

        return save_image
    if name in ("rank", "world_size", "in_mpi", "mpi", "single_process_scope"):
        from . import dist
        from .dist import mpi
        from .dist.process import single_process_scope

        if name == "mpi":
            return mpi
        # the others ask for the other processes, if there are any
        return single_process_scope if name == "single_process_scope" else getattr(dist, name)()
    if name == "argmax_pool":
        from .ops.vision import argmax_pool

        return argmax_pool
    if name == "models":  # of a distribution that need not be there
        import importlib

        try:
            return importlib.import_module(".models", __name__)
        except ModuleNotFoundError as error:
            raise AttributeError(str(error)) from error
    raise AttributeError(f"module 'metafuse' has no attribute {name!r}")


def __dir__() -> list[str]:
    others = {
        "Dataset", "Module", "argmax_pool", "compile", "explain", "in_mpi", "load", "mpi", "rank", "safepickle",
        "safeunpickle", "save", "save_image", "single_process_scope", "world_size",
    }  # fmt: skip
    return sorted({*globals(), *_LAZY, *_TOOLS, *others, *_registry.function_names()})
