"""Image classification networks, of the distribution ``metafuse-models``.

What it is: another name of the package ``metafuse_models``, and the advice where that is not installed.
What it is not: the networks.
Who calls it: users, as ``metafuse.models``.
"""

from __future__ import annotations

from typing import Any

try:
    import metafuse_models as _networks
    from metafuse_models import *  # noqa: F403 - all of its names are this module's
except ModuleNotFoundError as error:
    if error.name != "metafuse_models":
        raise
    raise ModuleNotFoundError(
        "[metafuse] models is a package of its own and not installed; pip install metafuse-models",
        name=error.name,
    ) from None


def __getattr__(name: str) -> Any:
    """Submodules: ``metafuse.models.res2net`` and the like."""
    return getattr(_networks, name)


def __dir__() -> list[str]:
    return dir(_networks)
