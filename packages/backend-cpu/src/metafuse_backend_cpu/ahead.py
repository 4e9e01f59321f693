"""What is computed once per lane before the inner loops of a phase read it.

What it is: ``prepared``, which finds it, and ``is_steady``.
What it is not: the loops that compute it (``lanes``).
Who calls it: ``lanes``.

Where windows of unequal extent begin, say, takes a division per lane, and compilers make no vectors of these.
"""

from __future__ import annotations

from metafuse.kernel.expr import Expr, walk
from metafuse.kernel.ir import Kernel

from .access import stages_of
from .reuse import invariants

__all__ = ["is_steady", "prepared"]


def prepared(kernel: Kernel, lane: int) -> dict[int, dict[Expr, str]]:
    """Costly parts of each phase's inner stages that change along the lanes but not along the inner axes, and names for arrays
    of them."""
    named: dict[int, dict[Expr, str]] = {}
    inner = range(kernel.outer, kernel.outer + kernel.inner)
    for phase, stages, _ in stages_of(kernel):
        found = [x for x in invariants(kernel, [stage.expr for stage in stages], inner) if _varies(x, lane)]
        named[phase] = {expr: f"h{phase}_{k}" for k, expr in enumerate(found)}
    return named


def _varies(x: Expr, lane: int) -> bool:
    """Whether an expression changes along the lanes, as values of earlier phases do."""
    return any(node.op == "value" or (node.op == "axis" and node.value == lane) for node in walk(x))


def is_steady(x: Expr, lane: int) -> bool:
    """Whether an expression follows from the lane alone: then it is the same for all units of a tile of lanes."""
    return not any(node.op == "value" or (node.op == "axis" and node.value != lane) for node in walk(x))
