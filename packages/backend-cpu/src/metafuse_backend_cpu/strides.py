"""Loops that read every second element: two vectors and a shuffle instead of one element at a time.

What it is: ``ways_to_step``: a loop along the lanes whose reads stride by a number of the call, once for a stride of two, which
compilers then know, and once for all others.
What it is not: the loops (``loops``, ``lanes``), nor reads under a condition, which are picked one by one in any case.
Who calls it: those two.

Windows that move by two, slices like ``x[::2]`` and pixels taken apart are all of this kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from metafuse.kernel.expr import Expr, const, rewrite, walk
from metafuse.kernel.ir import Stage
from metafuse.kernel.scope import Scope, affine

from .access import cost

__all__ = ["ways_to_step"]

#: a loop that costs more additions per point does not wait for its reads
_MOST_COST = 30


def ways_to_step(scope: Scope, stages: Sequence[Stage], lane: int) -> Iterator[tuple[Scope, list[Stage]]]:
    """The ways to run a loop of ``stages`` along axis ``lane``: one, or two. Each: a block to put the loop in, its stages."""
    steps = _steps(stages, lane)
    if not steps or cost(stages) > _MOST_COST:
        yield scope, list(stages)
        return
    two = " && ".join(f"{scope.value(step)} == 2" for step in steps)
    with scope.either(two, holds_loads=True) as (known, other):
        memo = {step: const(2) for step in steps}
        yield known, [_rebuilt(stage, memo) for stage in stages]
        yield other, list(stages)


def _steps(stages: Sequence[Stage], lane: int) -> list[Expr]:
    """The strides along the lanes that only the call knows, of what is read unconditionally."""
    found: dict[Expr, None] = {}
    for stage in stages:
        for x in walk(stage.expr):
            if x.op == "load" and len(x.args) == 1:
                step = affine(x.args[0]).coefficients.get(lane)
                if step is not None and step.op == "size":
                    found[step] = None
    return list(found)


def _rebuilt(stage: Stage, memo: dict[Expr, Expr]) -> Stage:
    return replace(stage, expr=rewrite(stage.expr, lambda x: None, memo))
