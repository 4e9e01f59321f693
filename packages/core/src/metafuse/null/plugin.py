"""Hands the null backend to the plugin manager.

What it is: the hook function and the descriptor; importing it imports no backend.
Who calls it: ``plugins.manager``.
"""

from __future__ import annotations

import pluggy

from ..backend.contract import AbstractBackend, Descriptor

__all__ = ["metafuse_backends"]

hookimpl = pluggy.HookimplMarker("metafuse")


def _create() -> AbstractBackend:
    from .backend import NullBackend

    return NullBackend()


@hookimpl
def metafuse_backends() -> list[Descriptor]:
    """The backend that computes nothing; its priority keeps it from being anybody's default."""
    return [
        Descriptor(
            name="null",
            summary="computes nothing, counts everything",
            create=_create,
            probe=lambda: None,
            priority=-100,
            distribution="metafuse",
        )
    ]
