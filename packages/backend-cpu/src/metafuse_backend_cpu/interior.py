"""The part of a row where no read needs its check: away from the borders of padded images, or all of it where the row is good.

What it is: ``interior``: between which places along the lanes all checks and clamps of the reads (and of what scatters go to)
are known to hold, and the stages without them. Reads there are contiguous, so that the compiler makes plain vector loads of them.
``ranges``: the same for each of a few checks by itself: where arrays are joined, or gradients of parts of an array come together,
each holds where the others do not.
What it is not: the loops over it (``loops``).
Who calls it: ``loops`` and ``reductions``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from metafuse.kernel.expr import Expr, add, call, const, rewrite, walk
from metafuse.kernel.ir import Kernel, Stage

from .conditions import assuming, conjuncts

__all__ = ["Interior", "interior", "linear", "ranges", "told"]

#: ``b OP e`` as ``e OP b``
_TURNED = {"ge": "le", "gt": "lt", "le": "ge", "lt": "gt"}
#: more bounds than that are not worth finding the interior of each row
_MOST = 8
#: more checks than that are not told apart
_CHECKS = 4


@dataclass
class Interior:
    """``low <= lane < high`` for all of ``lower`` and ``upper``, in rows where all ``conditions`` hold; none uses the lane."""

    lower: list[Expr] = field(default_factory=list)
    upper: list[Expr] = field(default_factory=list)
    conditions: list[Expr] = field(default_factory=list)
    #: what takes the place of clamped positions
    plain: dict[Expr, Expr] = field(default_factory=dict)
    #: what is asked before elements are read, and its parts
    guards: list[Expr] = field(default_factory=list)
    tests: list[Expr] = field(default_factory=list)

    def within(self, stages: Sequence[Stage]) -> list[Stage]:
        """The same stages for places inside."""

        facts = dict.fromkeys(self.tests, True)

        def plain(x: Expr) -> Expr | None:
            if x.op == "load" and len(x.args) == 3:
                return Expr("load", x.args[:1], x.dtype, x.value)
            return self.plain.get(x)

        def offset(stage: Stage) -> Expr | None:
            return rewrite(stage.offset, plain) if stage.kind == "scatter" and stage.offset else stage.offset

        return [
            replace(stage, expr=rewrite(assuming(stage.expr, facts), plain), offset=offset(stage))
            for stage in stages
        ]

    def beyond(self, stages: Sequence[Stage]) -> list[Stage]:
        """The same stages for places outside: where nothing is clamped, what is checked by one condition is not read there."""
        if self.plain or len(self.guards) > 1:
            return list(stages)

        facts = dict.fromkeys(self.guards, False)
        return [replace(stage, expr=assuming(stage.expr, facts)) for stage in stages]


def interior(kernel: Kernel, lane: int) -> Interior | None:
    """The interior of a row along axis ``lane``; ``None`` if nothing is checked, or not in a way that is understood."""
    # no sets: their order would differ from process to process, and with it the text by which compiled code is found
    loads = list(dict.fromkeys(x for stage in kernel.stages for x in walk(stage.expr) if x.op == "load"))
    guards = list(dict.fromkeys(x.args[1] for x in loads if len(x.args) == 3))
    written = {number for number, buffer in enumerate(kernel.buffers) if buffer.writes}
    if any(x.value in written for x in loads):
        return None
    found = Interior(guards=guards)
    targets = [
        stage.offset for stage in kernel.stages if stage.kind == "scatter" and stage.offset is not None
    ]
    for place in (*(x.args[0] for x in loads), *targets):
        if _uses(place, lane):
            rewrite(place, lambda node: _unclamped(node, lane, found))
    for guard in guards:
        if not _demand(guard, lane, found):
            return None
    for places in (found.lower, found.upper, found.conditions):  # several guards ask the same
        places[:] = dict.fromkeys(places)
    bounds = len(found.lower) + len(found.upper)
    return found if 0 < bounds + len(found.conditions) and bounds <= _MOST else None


def ranges(inside: Interior, lane: int) -> list[Interior]:
    """Where in a row along axis ``lane`` each of the checks holds that ``inside`` asks all of; nothing where there are not two to
    four, or where positions are clamped as well."""
    if inside.plain or not 1 < len(inside.guards) <= _CHECKS:
        return []
    found = [Interior(guards=[guard]) for guard in inside.guards]
    for each in found:
        _demand(each.guards[0], lane, each)  # understood: all together were
    return found


def told(checks: Sequence[Interior], holds: Sequence[bool], stages: Sequence[Stage]) -> list[Stage]:
    """The same stages where it is known of each of ``checks`` whether it ``holds``."""
    fails = {c.guards[0]: False for c, yes in zip(checks, holds, strict=True) if not yes}
    true = {test: True for c, yes in zip(checks, holds, strict=True) if yes for test in c.tests}
    # checks may share tests, so those that fail go first, while they are still what they were
    return [replace(stage, expr=assuming(assuming(stage.expr, fails), true)) for stage in stages]


def _demand(guard: Expr, lane: int, found: Interior) -> bool:
    """Note where ``guard`` holds; ``False`` if that can't be told."""
    found.tests += conjuncts(guard)
    plain = rewrite(guard, lambda node: _unclamped(node, lane, found))
    for test in conjuncts(plain):
        if not _uses(test, lane):
            found.conditions.append(test)
        elif not _test(test, lane, found):
            return False
    return True


def _uses(x: Expr, lane: int) -> bool:
    return any(node.op == "axis" and node.value == lane for node in walk(x))


def linear(x: Expr, lane: int) -> tuple[int, Expr] | None:
    """(sign, rest) if int64 expression ``x`` is plus or minus the lane plus something without it."""
    if x.op == "axis" and x.value == lane:
        return 1, const(0)
    if x.op in ("add", "sub") and _uses(x, lane):
        a, b = (linear(argument, lane) for argument in x.args)
        if a is not None and not _uses(x.args[1], lane):
            return a[0], call(x.op, a[1], x.args[1])
        if b is not None and not _uses(x.args[0], lane):
            return (b[0] if x.op == "add" else -b[0]), call(x.op, x.args[0], b[1])
    return None


def _holds(x: Expr, op: str, limit: Expr, lane: int, found: Interior) -> bool:
    """Note where ``x OP limit`` holds; ``False`` if that can't be told."""
    found_at = linear(x, lane)
    if found_at is None or op not in _TURNED or _uses(limit, lane):
        return False
    sign, rest = found_at
    place = call("sub", limit, rest) if sign > 0 else call("sub", rest, limit)
    op = op if sign > 0 else _TURNED[op]  # now: lane OP place
    if op in ("le", "gt"):
        place = add(place, const(1))
    (found.upper if op in ("le", "lt") else found.lower).append(place)
    return True


def _test(test: Expr, lane: int, found: Interior) -> bool:
    if len(test.args) != 2:
        return False
    a, b = test.args
    return _holds(a, test.op, b, lane, found) or _holds(b, _TURNED.get(test.op, ""), a, lane, found)


def _unclamped(x: Expr, lane: int, found: Interior) -> Expr | None:
    """A position along the lane instead of its minimum or maximum with a limit, or its absolute value."""
    if x in found.plain:
        return found.plain[x]
    if x.dtype.is_float or x.op not in ("min", "max", "abs"):
        return None
    op, limits = ("le" if x.op == "min" else "ge"), (*x.args, const(0))
    for inner, limit in ((x.args[0], limits[1]), *([(x.args[1], x.args[0])] if len(x.args) > 1 else [])):
        if _holds(inner, op, limit, lane, found):
            found.plain[x] = inner
            return inner
    return None
