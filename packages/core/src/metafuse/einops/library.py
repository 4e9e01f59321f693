"""The package ``einops``: imported, and told about Vars.

What it is: one function that answers the package or raises an error that says how to get it.
What it is not: the way Vars are handled (``backend``).
Who calls it: everything in ``metafuse.einops``.
"""

from __future__ import annotations

from types import ModuleType

from ..errors import MetafuseError

__all__ = ["EinopsMissing", "library"]


class EinopsMissing(MetafuseError, ImportError):
    """The package ``einops`` is not installed, or too old."""


def library() -> ModuleType:
    """The package ``einops``, which knows Vars afterwards.

    Errors:
        EinopsMissing: it can't be imported.
    """
    try:
        import einops

        from . import backend  # noqa: F401 - defining its class is what makes it known
    except ImportError as error:
        raise EinopsMissing(
            f"[einops] the package 'einops' is needed: {error}; install it: pip install metafuse[einops]"
        ) from None
    return einops
