"""The plugin: one descriptor; the backend is imported when it is first used."""

from __future__ import annotations

from metafuse.backend.contract import AbstractBackend, Descriptor
from metafuse.plugins.hookspecs import hookimpl

__all__ = ["metafuse_backends"]


def _create() -> AbstractBackend:
    from .backend import MinimalBackend

    return MinimalBackend()


@hookimpl
def metafuse_backends() -> list[Descriptor]:
    """Python loops; with a negative priority it is used only where somebody names it."""
    return [Descriptor("minimal", "plain Python loops, an example", _create, lambda: None, priority=-1)]
