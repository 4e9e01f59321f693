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
_registry.later(f"{__name__}.init")  # `x.fill_` and its like
__version__ = "0.1.0"

_LAZY = {
    "amp", "attention", "data", "dataset", "debug", "dist", "distributions", "einops", "fft", "gradfunctional", "init", "io",
    "linalg", "loss3d", "lr_scheduler", "nn", "optim", "other", "profiler", "sparse", "testing", "transform", "weightnorm",
}  # fmt: skip
#: names that are no operators -> the module that has them
_ELSEWHERE = {
    "Dataset": "data.dataset", "Module": "nn.module", "argmax_pool": "ops.vision", "compile": "capture",
    "explain": "debug.explain", "save_image": "transform.saving", "single_process_scope": "dist",
    **dict.fromkeys(("load", "safepickle", "safeunpickle", "save"), "io"),
    **dict.fromkeys(("profile_mark", "profile_scope"), "profiler"),
    **dict.fromkeys((
        "DumpGraphs", "MemInfo", "clean", "display_max_memory_info", "display_memory_info", "dump_all_graphs", "gc",
        "get_max_memory_info", "get_mem_info", "graph_check", "liveness_info", "log_capture_scope", "number_of_hold_vars",
        "number_of_lived_ops", "number_of_lived_vars",
    ), "debug"),
}  # fmt: skip
#: figures that are asked for when they are read: functions of ``dist``
_FIGURES = ("in_mpi", "rank", "world_size")


def __getattr__(name: str) -> Any:
    """Operators by their records (also ones that plugins register later), and subpackages on first use."""
    if name in _LAZY:
        return _module("data" if name == "dataset" else name)
    function = _registry.function_named(name)
    if function is not None:
        _registry.show(name, function)
        return function
    if name in _ELSEWHERE:
        return getattr(_module(_ELSEWHERE[name]), name)
    if name in _FIGURES:
        return getattr(_module("dist"), name)()
    if name == "mpi":
        return _module("dist.mpi")
    if name == "models":  # of a distribution that need not be there
        try:
            return _module("models")
        except ModuleNotFoundError as error:
            raise AttributeError(str(error)) from error
    raise AttributeError(f"module 'metafuse' has no attribute {name!r}")


def _module(name: str) -> Any:
    import importlib

    return importlib.import_module(f".{name}", __name__)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_ELSEWHERE, *_FIGURES, "mpi", *_registry.function_names()})
