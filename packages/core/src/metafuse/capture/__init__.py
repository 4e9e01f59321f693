"""Capture and replay of whole steps: ``metafuse.compile``.

In the order a call meets them: ``arguments`` takes the call apart, ``guard`` checks that the visible state (``walk``,
``code``) is as it was, ``replay`` runs what was recorded; otherwise ``recorder`` watches the function, with ``numbers``
following arithmetic on Python numbers and ``effects`` describing what is left behind. ``compiled`` decides. The rules are in
``docs/compile.md``.
"""

from .compiled import Compiled, compile

__all__ = ["Compiled", "compile"]
