"""The plugin: one descriptor, cheap to make.

What it is: what the entry point ``mpi`` of the group ``metafuse`` leads to.
What it is not: the communicator; mpi4py is imported, and MPI started, when several processes need it.
Who calls it: ``metafuse.plugins``.
"""

from __future__ import annotations

import importlib.util

from metafuse.dist.contract import Communicator, CommunicatorDescriptor, Start
from metafuse.plugins.hookspecs import hookimpl

__all__ = ["metafuse_communicators"]


def _create() -> Communicator:
    from .communicator import connect

    return connect()


def _probe(start: Start) -> str | None:
    if importlib.util.find_spec("mpi4py") is None:
        return "mpi4py is missing; pip install mpi4py"
    try:
        from mpi4py import MPI  # noqa: F401 - loads the MPI library
    except (ImportError, RuntimeError) as error:
        return (
            f"mpi4py finds no MPI library ({str(error).splitlines()[0]}); pip install mpich, or load the module of your "
            "cluster's MPI"
        )
    return None


@hookimpl
def metafuse_communicators() -> list[CommunicatorDescriptor]:
    """MPI."""
    return [
        CommunicatorDescriptor(
            name="mpi",
            summary="MPI through mpi4py, on host memory",
            create=_create,
            probe=_probe,
            priority=50,
            distribution="metafuse-dist-mpi",
        )
    ]
