"""Hands the reference backend to the plugin manager.

What it is: the hook function and the descriptor; importing it imports no backend.
Who calls it: ``plugins.manager``.
"""

from __future__ import annotations

import pluggy

from ..backend.contract import AbstractBackend, Descriptor

__all__ = ["metafuse_backends"]

hookimpl = pluggy.HookimplMarker("metafuse")


def _create() -> AbstractBackend:
    from .backend import ReferenceBackend

    return ReferenceBackend()


@hookimpl
def metafuse_backends() -> list[Descriptor]:
    """The NumPy backend: usable everywhere, chosen when nothing faster is there."""
    return [
        Descriptor(
            name="reference",
            summary="NumPy; slow, exact, always there",
            create=_create,
            probe=lambda: None,
            priority=0,
            distribution="metafuse",
        )
    ]
