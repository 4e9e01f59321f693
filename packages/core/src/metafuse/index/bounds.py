"""Which values an index expression can take.

What it is: ``bounds``, interval arithmetic over the axes' extents; exact where the expression is affine.
What it is not: a prover of anything that depends on data: an expression with a load has no bounds.
Who calls it: ``passes.inline``, to drop checks of indexes that can't be out of range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..kernel.expr import TESTS, Expr, walk
from .simplify import Affine, _Sum, _sum_of

__all__ = ["bounds"]

Interval = tuple[int, int]

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1


def bounds(expr: Expr, extents: Sequence[int]) -> Interval | None:
    """The lowest and highest value of ``expr`` for ``0 <= axis < extent``, or ``None`` if that isn't known.

    Exact for affine expressions, else possibly too wide, never too narrow; truth values count as 0 and 1. An axis of
    extent 0 has no values; it is taken as 0. Where 64 bits might overflow the answer is ``None``.

    Example:
        >>> from metafuse.kernel.expr import axis, call, const
        >>> bounds(call("sub", call("mul", axis(0), const(2)), const(1)), [4])
        (-1, 5)
    """
    found: dict[Expr, Interval | None] = {}
    sums: dict[Expr, _Sum] = {}
    for node in walk(expr):
        sums[node] = _sum_of(node, sums.__getitem__)
        interval = _interval(node, [found[a] for a in node.args], extents)
        affine = sums[node].affine()
        # The interval of the operands proves that nothing overflows on the way; the affine form is tighter.
        found[node] = _exact(affine, extents) if interval is not None and affine is not None else interval
    return found[expr]


def _exact(affine: Affine, extents: Sequence[int]) -> Interval:
    low = high = affine.constant
    for number, coefficient in affine.coefficients:
        end = coefficient * max(extents[number] - 1, 0)
        low, high = low + min(end, 0), high + max(end, 0)
    return low, high


def _interval(node: Expr, args: list[Interval | None], extents: Sequence[int]) -> Interval | None:
    if node.dtype.is_float:
        return None
    if node.op in TESTS or node.op in ("and", "or", "not"):
        return _truth(node.op, args)
    known = [a for a in args if a is not None]
    if len(known) < len(args):
        return _partly(node, args)
    if node.op == "const":
        return int(node.value), int(node.value)
    if node.op == "axis":
        return 0, max(extents[node.value] - 1, 0)
    rule = _RULES.get(node.op)
    interval = None if rule is None else rule(*known)
    if interval is None or not _fits(node, interval):
        return None
    return interval


def _fits(node: Expr, interval: Interval) -> bool:
    """Whether the dtype holds the interval, so that nothing wraps around."""
    bits = 8 * node.dtype.itemsize
    low, high = {"b": (0, 1), "u": (0, 2**bits - 1)}.get(
        node.dtype.kind, (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    )
    return low <= interval[0] and interval[1] <= high


def _truth(op: str, args: list[Interval | None]) -> Interval:
    """0 and 1, unless the operands' intervals decide it."""
    a, b = args[0], args[-1]
    if op == "not" and a is not None:
        return 1 - a[1], 1 - a[0]
    if op in ("and", "or") and (a is not None or b is not None):
        a, b = a or (0, 1), b or (0, 1)
        return (a[0] & b[0], a[1] & b[1]) if op == "and" else (a[0] | b[0], a[1] | b[1])
    if a is None or b is None:
        return 0, 1
    if op in ("gt", "ge"):
        op, a, b = {"gt": "lt", "ge": "le"}[op], b, a
    if op == "lt":
        return int(a[1] < b[0]), int(a[0] < b[1])
    if op == "le":
        return int(a[1] <= b[0]), int(a[0] <= b[1])
    apart, same = a[1] < b[0] or b[1] < a[0], a == b and a[0] == a[1]
    if op == "eq":
        return int(same), int(not apart)
    return (int(apart), int(not same)) if op == "ne" else (0, 1)


def _partly(node: Expr, args: list[Interval | None]) -> Interval | None:
    """What holds although an operand is unknown."""
    last = args[-1]
    if node.op in ("cmod", "mod") and last is not None and last[0] > 0:
        return (1 - last[1] if node.op == "cmod" else 0), last[1] - 1
    if node.op == "cast" and node.args[0].dtype.kind == "b":
        return 0, 1
    return None


# -- one rule per operation -------------------------------------------------------------------------------------------
def _corners(of: Callable[[int, int], int]) -> Callable[[Interval, Interval], Interval]:
    """For operations that are monotonous in each operand: the extremes are at corners."""

    def rule(a: Interval, b: Interval) -> Interval:
        values = [of(x, y) for x in a for y in b]
        return min(values), max(values)

    return rule


def _cdiv(x: int, y: int) -> int:
    quotient = abs(x) // abs(y)
    return quotient if (x < 0) == (y < 0) else -quotient


def _division(of: Callable[[int, int], int]) -> Callable[[Interval, Interval], Interval | None]:
    corners = _corners(of)

    def rule(a: Interval, b: Interval) -> Interval | None:
        return corners(a, b) if b[0] > 0 or b[1] < 0 else None

    return rule


def _cmod(a: Interval, b: Interval) -> Interval | None:
    """The remainder has the dividend's sign and is smaller than the divisor; of a small dividend it is the dividend."""
    if b[0] <= 0:
        return None
    low, high = max(a[0], 1 - b[1]) if a[0] < 0 else 0, min(a[1], b[1] - 1) if a[1] > 0 else 0
    return a if -b[0] < a[0] and a[1] < b[0] else (low, high)


def _mod(a: Interval, b: Interval) -> Interval | None:
    if b[0] <= 0:
        return None
    return a if a[0] >= 0 and a[1] < b[0] else (0, b[1] - 1)


def _abs(a: Interval) -> Interval:
    return (0 if a[0] <= 0 <= a[1] else min(abs(a[0]), abs(a[1]))), max(abs(a[0]), abs(a[1]))


def _bits(a: Interval, b: Interval) -> Interval | None:
    """``|`` and ``^`` of what isn't negative set no bit above the highest of both."""
    if a[0] < 0 or b[0] < 0:
        return None
    return 0, (1 << max(a[1], b[1]).bit_length()) - 1


def _bitand(a: Interval, b: Interval) -> Interval | None:
    limits = [x[1] for x in (a, b) if x[0] >= 0]
    return (0, min(limits)) if limits else None


def _shift(of: Callable[[int, int], int]) -> Callable[[Interval, Interval], Interval | None]:
    corners = _corners(of)

    def rule(a: Interval, b: Interval) -> Interval | None:
        return corners(a, b) if 0 <= b[0] and b[1] < 64 else None

    return rule


_RULES: dict[str, Callable[..., Interval | None]] = {
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "mul": _corners(lambda x, y: x * y),
    "neg": lambda a: (-a[1], -a[0]),
    "abs": _abs,
    "min": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "max": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "cdiv": _division(_cdiv),
    "floordiv": _division(lambda x, y: x // y),
    "cmod": _cmod,
    "mod": _mod,
    "bitand": _bitand,
    "bitor": _bits,
    "bitxor": _bits,
    "bitnot": lambda a: (~a[1], ~a[0]),
    "shl": _shift(lambda x, y: x << y),
    "shr": _shift(lambda x, y: x >> y),
    "select": lambda c, a, b: a if c == (1, 1) else b if c == (0, 0) else (min(a[0], b[0]), max(a[1], b[1])),
    "cast": lambda a: a,
}
