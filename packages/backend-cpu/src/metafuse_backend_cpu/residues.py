"""Rows whose places are divided by a small number, as in gradients of windows: walked in steps of that number.

What it is: ``residues``: along the lanes ``lane = step * divisor + residue - shift``, so that quotient and remainder of
``lane + shift`` are the loop variables themselves. What is read at the quotient is then contiguous, and nothing is divided.
What it is not: the loops (``loops``).
Who calls it: ``loops``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from metafuse.kernel.expr import Expr, add, axis, call, const, mul, rewrite, walk
from metafuse.kernel.ir import Kernel, Stage

from .interior import linear

__all__ = ["Residues", "residues"]

#: Divisors of at most so many: a row is walked once per residue, and steps are lanes. Larger ones: once per step, and residues
#: are lanes, which read what is at the quotient once for all.
MOST = 4


@dataclass(frozen=True)
class Residues:
    """``kernel`` over axis ``step`` instead of the lanes, with the residue bound to axis ``step + 1``, if all ``divisors`` are
    equal."""

    kernel: Kernel
    #: for divisor 2, both residues at once: what they store lies side by side
    pairs: Kernel
    step: int
    divisors: tuple[Expr, ...]
    shift: Expr


def residues(kernel: Kernel, lane: int) -> Residues | None:
    """How to walk along axis ``lane`` without divisions; ``None`` if there are none, or of several kinds."""
    found: dict[Expr, None] = {}
    if any(stage.kind != "store" for stage in kernel.stages):
        return None
    for stage in kernel.stages:
        for root in stage.roots:
            for x in walk(root):
                if x.op in ("cdiv", "cmod") and any(part == axis(lane) for part in walk(x)):
                    found[x] = None
    divisors = tuple(dict.fromkeys(x.args[1] for x in found))
    if len({x.args[0] for x in found}) != 1 or any(divisor.op != "size" for divisor in divisors):
        return None
    place = linear(next(iter(found)).args[0], lane)
    if place is None or place[0] < 0 or not _uniform(place[1]):
        return None
    step = kernel.outer + kernel.inner

    def walked(by: Expr, residue: Expr) -> tuple[Stage, ...]:
        memo = {x: axis(step) if x.op == "cdiv" else residue for x in found}
        memo[axis(lane)] = call("sub", add(mul(axis(step), by), residue), place[1])
        return tuple(_rebuilt(stage, memo) for stage in kernel.stages)

    pairs = replace(kernel, stages=(*walked(const(2), const(0)), *walked(const(2), const(1))))
    return Residues(
        replace(kernel, stages=walked(divisors[0], axis(step + 1))), pairs, step, divisors, place[1]
    )


def _rebuilt(stage: Stage, memo: dict[Expr, Expr]) -> Stage:
    def rebuilt(root: Expr | None) -> Expr | None:
        return None if root is None else rewrite(root, lambda x: None, memo)

    return replace(
        stage,
        expr=rewrite(stage.expr, lambda x: None, memo),
        offset=rebuilt(stage.offset),
        condition=rebuilt(stage.condition),
    )


def _uniform(x: Expr) -> bool:
    return all(part.op in ("const", "size", "add", "sub", "neg", "mul") for part in walk(x))
