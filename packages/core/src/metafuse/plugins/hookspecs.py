"""The hooks a plugin may implement: signatures and one line each.

What it is: the contract between metafuse and its plugins; built-in backends register through it like a stranger's.
What it is not: code that runs while computing. Hooks fill the registry once; after that there are only dictionaries.
Who calls it: plugins import ``hookimpl``; ``plugins.manager`` reads the specifications.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

from ..backend.contract import Descriptor

if TYPE_CHECKING:
    from ..dist.contract import CommunicatorDescriptor
    from .commands import Command

__all__ = ["hookimpl", "hookspec", "metafuse_backends", "metafuse_commands", "metafuse_communicators"]

hookspec = pluggy.HookspecMarker("metafuse")
hookimpl = pluggy.HookimplMarker("metafuse")


@hookspec
def metafuse_backends() -> list[Descriptor]:  # type: ignore[empty-body]
    """Name the backends that this plugin brings; nothing heavy is imported before one is used."""


@hookspec
def metafuse_commands() -> list[Command]:  # type: ignore[empty-body]
    """Name the commands that this plugin adds to ``python -m metafuse``; nothing heavy is imported before one is run."""


@hookspec
def metafuse_communicators() -> list[CommunicatorDescriptor]:  # type: ignore[empty-body]
    """Name the ways in which this plugin connects processes; nothing is imported or connected before one is used."""
