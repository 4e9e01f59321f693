"""The plugin of this package: it makes the networks reachable as ``metafuse.models``.

What it is: what the entry point ``models`` of the group ``metafuse`` leads to.
What it is not: the networks. They are imported when ``metafuse.models`` is first used.
Who calls it: ``metafuse.plugins``.
"""

from __future__ import annotations

from metafuse.plugins.hookspecs import hookimpl

__all__ = ["metafuse_packages"]


@hookimpl
def metafuse_packages() -> dict[str, str]:
    """``metafuse.models`` is this package."""
    return {"models": "metafuse_models"}
