"""The plugin: one descriptor, cheap to make.

What it is: what the entry point ``nccl`` of the group ``metafuse`` leads to.
What it is not: the communicator; the library is loaded when the first collective runs on a GPU.
Who calls it: ``metafuse.plugins``.
"""

from __future__ import annotations

from metafuse.dist.contract import Communicator, CommunicatorDescriptor, Start
from metafuse.plugins.hookspecs import hookimpl

__all__ = ["metafuse_communicators"]


def _create(group: Communicator) -> Communicator:
    from .communicator import connect

    return connect(group)


def _probe(start: Start) -> str | None:
    try:
        import nccl.core  # noqa: F401 - loads the library
    except Exception as error:  # whatever a missing or older library raises
        told = (str(error).splitlines() or [type(error).__name__])[0]
        return f"NCCL can't be loaded ({told}); pip install metafuse-dist-nccl[cu12], or [cu13]"
    return None


@hookimpl
def metafuse_communicators() -> list[CommunicatorDescriptor]:
    """NCCL."""
    return [
        CommunicatorDescriptor(
            name="nccl",
            summary="NCCL through nccl4py, on the memory of NVIDIA GPUs",
            create=_create,
            probe=_probe,
            priority=50,
            distribution="metafuse-dist-nccl",
            memory="cuda",
        )
    ]
