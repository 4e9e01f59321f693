"""The plugin of the CPU backend: one descriptor, cheap to make.

What it is: what the entry point ``cpu`` of the group ``metafuse`` leads to.
What it is not: the backend. That is imported when the device is first used.
Who calls it: ``metafuse.plugins``.
"""

from __future__ import annotations

import importlib.util

from metafuse.backend.contract import AbstractBackend, Descriptor
from metafuse.plugins.hookspecs import hookimpl

__all__ = ["metafuse_backends"]


def _create() -> AbstractBackend:
    from .backend import CpuBackend

    return CpuBackend()


def _probe() -> str | None:
    if importlib.util.find_spec("metafuse_backend_cpu._native") is None:
        return "the native part of metafuse-backend-cpu is missing; install the package again where a C++ compiler is"
    from . import compiler

    return compiler.problem()


@hookimpl
def metafuse_backends() -> list[Descriptor]:
    """The CPU backend."""
    return [
        Descriptor(
            name="cpu",
            summary="generated C++ on all cores",
            create=_create,
            probe=_probe,
            priority=50,
            distribution="metafuse-backend-cpu",
        )
    ]
