"""IndexMap: the attribute of reindex and scatter nodes.

What it is: one frozen record.
What it is not: the language it is written in (``index``).
Who calls it: ``ops.meta`` makes it, ``passes`` read it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..kernel.expr import Expr

__all__ = ["IndexMap"]


@dataclass(frozen=True)
class IndexMap:
    """Where an element comes from (reindex) or goes to (scatter).

    ``indexes``: one integer expression per dimension of the addressed array, over the axes of the other one; ``load``
    number k in them reads extra input k. ``conditions``: bool expressions under which an element is left out.
    ``guard``: addresses may fall outside and are then left out; without it they are known to be inside.
    ``overflow``: what a reindex yields for elements that are left out.
    """

    indexes: tuple[Expr, ...]
    conditions: tuple[Expr, ...] = ()
    guard: bool = False
    overflow: float | int | bool = 0
