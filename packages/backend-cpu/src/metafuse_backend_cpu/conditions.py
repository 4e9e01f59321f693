"""Conditions of loads taken apart, and expressions where some of them are known.

What it is: ``conjuncts`` and ``assuming``.
What it is not: where conditions hold (``interior`` for rows, ``lanes`` for tiles).
Who calls it: those two.
"""

from __future__ import annotations

from collections.abc import Mapping

from metafuse.kernel.expr import Expr, const, rewrite

__all__ = ["assuming", "conjuncts"]


def conjuncts(x: Expr) -> list[Expr]:
    """What a condition demands all of.

    Example:
        >>> from metafuse.kernel.expr import axis, call
        >>> conjuncts(call("and", call("ge", axis(0), const(0)), call("lt", axis(0), axis(1))))
        [ge(i0, 0), lt(i0, i1)]
    """
    if x.op == "and":
        return [part for argument in x.args for part in conjuncts(argument)]
    return [] if x.op == "const" and x.value else [x]


def assuming(root: Expr, facts: Mapping[Expr, bool]) -> Expr:
    """``root`` where the tests in ``facts`` are known: loads under conditions that hold are plain ones.

    Example:
        >>> from metafuse.dtypes import float32
        >>> from metafuse.kernel.expr import axis, call, load
        >>> inside = call("ge", axis(0), const(2))
        >>> checked = load(0, float32, axis(0), inside, const(0, float32))
        >>> assuming(checked, {inside: True}), assuming(checked, {inside: False})
        (b0[i0], 0)
    """

    def rule(x: Expr) -> Expr | None:
        if x in facts:
            return const(facts[x], x.dtype)
        if x.op == "load" and len(x.args) == 3 and x.args[1].op == "const":
            return Expr("load", x.args[:1], x.dtype, x.value) if x.args[1].value else x.args[2]
        if x.op == "select" and x.args[0].op == "const":
            return x.args[1] if x.args[0].value else x.args[2]
        if x.op == "not" and x.args[0].op == "const":
            return const(not x.args[0].value, x.dtype)
        if x.op in ("and", "or"):
            for one, other in (x.args, x.args[::-1]):
                if one.op == "const":  # true is neutral for "and" and decides "or"; false the other way round
                    return other if bool(one.value) == (x.op == "and") else one
        return None

    return rewrite(root, rule)
