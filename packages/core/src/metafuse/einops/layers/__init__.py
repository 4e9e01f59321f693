"""Layers that apply patterns: ``Rearrange``, ``Reduce``, ``EinMix``.

What it is: the names of ``einops.layers`` and of the layers made of them.
What it is not: usable without the package ``einops``: importing it then raises ``EinopsMissing``.
Who calls it: users, as ``metafuse.einops.layers``.
"""

from ..library import library

library()  # says what to install, before the imports below fail

from einops.layers import RearrangeMixin, ReduceMixin  # noqa: E402

from .metafuse import EinMix, Rearrange, Reduce  # noqa: E402

__all__ = ["EinMix", "Rearrange", "RearrangeMixin", "Reduce", "ReduceMixin"]
