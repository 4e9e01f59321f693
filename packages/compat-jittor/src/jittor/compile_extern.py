"""``jittor.compile_extern``: what was found beside the framework, as scripts ask for it.

What it is: ``mpi`` and ``mpi_ops``, ``has_cuda``, and ``None`` for the libraries of one vendor, as where those are absent.
What it is not: anything that compiles; backends are plugins and look after their libraries themselves.
Who calls it: users; ``jittor`` has the same names.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["NAMES", "get_device_count"]

#: libraries that the reference loads itself
_LIBRARIES = (
    "cublas",
    "cub",
    "cudnn",
    "cufft",
    "curand",
    "cusparse",
    "cutlass",
    "cutt",
    "mkl",
    "nccl",
    "hccl",
    "cupy",
)

#: every name of this module
NAMES = frozenset(
    {"has_cuda", "mpi", "mpi_ops", "inside_mpi", *_LIBRARIES, *(f"{name}_ops" for name in _LIBRARIES)}
)


def __getattr__(name: str) -> Any:
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("mpi", "mpi_ops"):
        return importlib.import_module(f"jittor.{name}")
    if name == "inside_mpi":
        from metafuse.dist import in_mpi

        return in_mpi
    return bool(get_device_count()) if name == "has_cuda" else None


def get_device_count() -> int:
    """How many devices a process can use beside the CPU: 1 where ``flags.use_cuda`` may be 1, else 0."""
    from metafuse.errors import BackendUnavailable
    from metafuse.plugins.registry import registry

    try:
        return int(registry().require("cuda").usable)
    except BackendUnavailable:
        return 0


def __dir__() -> list[str]:
    return sorted(NAMES)
