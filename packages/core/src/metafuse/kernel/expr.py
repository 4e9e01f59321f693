"""Scalar expressions: what one element of a kernel computes.

What it is: the immutable expression tree shared by the index language, the fusion pass and the kernel IR, and the
closed table of intrinsics it may use.
What it is not: an array operation (``graph.node``) or text (``kernel.cstyle`` and the backends print it).
Who calls it: ``index`` builds and evaluates index expressions with it, ``passes`` composes it, backends print it.

Leaves of an expression:

=========  =====================================================================================
op         meaning
=========  =====================================================================================
const      the literal ``value`` of type ``dtype``; part of the kernel's structure
axis       the loop variable number ``value``; int64
size       the run-time integer number ``value`` of the kernel call (extents, strides, constants); int64
scalar     the run-time scalar number ``value`` of the kernel call, already of type ``dtype``
load       element ``args[0]`` (a flat offset) of kernel buffer ``value``; ``args[1]``, if present, is the
           condition under which it may be read at all and ``args[2]`` what stands there otherwise
value      the result of the kernel stage that defines value number ``value``
=========  =====================================================================================

Inside the graph, before lowering, ``load`` has one argument per dimension of input number ``value``
instead of a flat offset, and ``size`` does not occur.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from functools import lru_cache
from typing import Any

from ..dtypes import DType, as_dtype, bool_, float32, int64

__all__ = [
    "Expr",
    "EXACT",
    "INTRINSICS",
    "add",
    "axis",
    "call",
    "cast",
    "const",
    "cost_of",
    "load",
    "mul",
    "select",
    "sub",
    "rewrite",
    "walk",
    "weight",
]

LEAVES = frozenset({"const", "axis", "size", "scalar", "load", "value"})

#: name -> number of arguments. Arguments of one call share a dtype (``select``: the last two), except where noted.
#: Semantics are NumPy's for the common dtype unless said otherwise here: bfloat16, which NumPy has not, is computed in
#: float32 and rounded to the nearest, ties to even;
#: ``floordiv``/``mod`` round towards minus infinity, ``cdiv``/``cmod`` towards zero (C, the index language's ``/ %``);
#: an integer division by zero yields 0. ``min``/``max`` hand on NaN. ``round`` is half-to-even.
#: ``uniform(seed, offset, i)`` is element ``i`` of the Philox-4x32-10 stream (see ``ops.random``): float32 in [0, 1).
INTRINSICS: dict[str, int] = {
    # arithmetic
    "add": 2, "sub": 2, "mul": 2, "div": 2, "floordiv": 2, "mod": 2, "cdiv": 2, "cmod": 2, "pow": 2,
    "min": 2, "max": 2, "neg": 1, "abs": 1, "sqrt": 1, "atan2": 2,
    # transcendental
    "exp": 1, "log": 1, "expm1": 1, "log1p": 1, "sin": 1, "cos": 1, "tan": 1, "asin": 1, "acos": 1, "atan": 1,
    "sinh": 1, "cosh": 1, "tanh": 1, "asinh": 1, "acosh": 1, "atanh": 1, "erf": 1,
    # rounding
    "floor": 1, "ceil": 1, "round": 1, "trunc": 1,
    # tests: the result is bool
    "eq": 2, "ne": 2, "lt": 2, "le": 2, "gt": 2, "ge": 2, "isnan": 1, "isinf": 1,
    # logic on bool
    "and": 2, "or": 2, "not": 1,
    # bits on integers and bool
    "bitand": 2, "bitor": 2, "bitxor": 2, "bitnot": 1, "shl": 2, "shr": 2,
    # choice and conversion
    "select": 3, "cast": 1,
    # sources
    "uniform": 3,
}  # fmt: skip

#: intrinsics whose result on numbers of a type is one of that type, without rounding
EXACT = frozenset({"min", "max", "neg", "abs", "floor", "ceil", "round", "trunc", "select"})
TESTS = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf"})


class Expr:
    """One node of an expression. Immutable, compared by structure, with its hash computed once.

    Args:
        op: a leaf kind or an intrinsic's name.
        args: operands.
        dtype: the element type of the result.
        value: the payload of a leaf (see the module's table); ``None`` for an intrinsic.
    """

    __slots__ = ("op", "args", "dtype", "value", "_hash")

    def __init__(self, op: str, args: tuple[Expr, ...], dtype: DType, value: Any = None) -> None:
        self.op = op
        self.args = args
        self.dtype = dtype
        self.value = value
        self._hash = hash((op, args, dtype.name, value if type(value) is int else repr(value)))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Expr):
            return NotImplemented
        if self._hash != other._hash:
            return False
        if not self.args and not other.args:
            return _same_node(self, other)
        # shared operands are compared once: written as a tree, an expression may be exponentially large
        seen: set[tuple[int, int]] = set()
        pairs: list[tuple[Expr, Expr]] = [(self, other)]
        while pairs:
            a, b = pairs.pop()
            if a is b or (id(a), id(b)) in seen:
                continue
            if not _same_node(a, b):
                return False
            seen.add((id(a), id(b)))
            pairs.extend(zip(a.args, b.args))
        return True

    def __repr__(self) -> str:
        if self.op == "const":
            return f"{self.value}"
        if self.op == "axis":
            return f"i{self.value}"
        if self.op == "load":
            return f"b{self.value}[{', '.join(map(repr, self.args))}]"
        if self.op in LEAVES:
            return f"{self.op}{self.value}"
        if self.op == "cast":
            return f"{self.dtype}({self.args[0]!r})"
        return f"{self.op}({', '.join(map(repr, self.args))})"


def _same_node(a: Expr, b: Expr) -> bool:
    """Whether two nodes are equal as far as can be told without their operands."""
    return (
        a._hash == b._hash
        and a.op == b.op
        and a.dtype is b.dtype
        and len(a.args) == len(b.args)
        and (a.value is b.value or repr(a.value) == repr(b.value))
    )


def const(value: float | int | bool, dtype: DType | str = int64) -> Expr:
    """A literal that is part of the structure."""
    return Expr("const", (), as_dtype(dtype), value)


@lru_cache(maxsize=256, typed=True)
def axis(number: int) -> Expr:
    """Loop variable ``number``."""
    return Expr("axis", (), int64, number)


def load(buffer: int, dtype: DType, *args: Expr) -> Expr:
    """A read of ``buffer``; see the module's table for ``args``."""
    return Expr("load", args, dtype, buffer)


def call(name: str, *args: Expr) -> Expr:
    """Apply intrinsic ``name``; the dtype follows from the arguments."""
    if INTRINSICS.get(name) != len(args):
        raise ValueError(f"[{name}] is not an intrinsic of {len(args)} arguments")
    dtype = bool_ if name in TESTS else float32 if name == "uniform" else args[-1].dtype
    return Expr(name, args, dtype)


def cast(x: Expr, dtype: DType) -> Expr:
    """``x`` converted to ``dtype`` (no node if it already has it)."""
    return x if x.dtype is dtype else Expr("cast", (x,), dtype)


def select(condition: Expr, yes: Expr, no: Expr) -> Expr:
    """``yes`` where ``condition`` holds, else ``no``."""
    return Expr("select", (condition, yes, no), yes.dtype)


def _is(x: Expr, value: int) -> bool:
    return x.op == "const" and x.value == value


def add(a: Expr, b: Expr) -> Expr:
    """``a + b`` on integers, with zeros and literals folded away."""
    if a.op == "const" and b.op == "const":
        return const(a.value + b.value)
    if _is(a, 0):
        return b
    return a if _is(b, 0) else Expr("add", (a, b), int64)


def sub(a: Expr, b: Expr) -> Expr:
    """``a - b`` on integers, with zeros and literals folded away."""
    if a.op == "const" and b.op == "const":
        return const(a.value - b.value)
    return a if _is(b, 0) else Expr("sub", (a, b), int64)


def mul(a: Expr, b: Expr) -> Expr:
    """``a * b`` on integers, with zeros, ones and literals folded away."""
    if a.op == "const" and b.op == "const":
        return const(a.value * b.value)
    if _is(a, 0) or _is(b, 0):
        return const(0)
    if _is(a, 1):
        return b
    return a if _is(b, 1) else Expr("mul", (a, b), int64)


def walk(root: Expr, done: Container[Expr] = ()) -> Iterator[Expr]:
    """Every distinct node under ``root``, operands before users, without recursion.

    What is in ``done`` is left out with everything below it; callers may add what they were given as they go."""
    seen: set[Expr] = set()
    stack: list[Expr | None] = [root]
    # an operand is pushed as itself; None says that the node under it has all its operands behind it
    while stack:
        node = stack.pop()
        if node is None:
            node = stack.pop()
            assert node is not None
            if node not in seen:
                seen.add(node)
                yield node
        elif node not in seen and node not in done:
            if node.args:
                stack.append(node)
                stack.append(None)
                stack.extend(node.args[::-1])
            else:
                seen.add(node)
                yield node


def rewrite(root: Expr, rule: Callable[[Expr], Expr | None], memo: dict[Expr, Expr] | None = None) -> Expr:
    """Rebuild ``root`` from the leaves up; ``rule`` may answer a replacement for a rebuilt node, or ``None`` to keep it.

    ``memo`` carries what has been rebuilt from one call to the next."""
    done: dict[Expr, Expr] = {} if memo is None else memo
    for node in walk(root, done):
        old = node.args
        fresh = node
        if old:
            args = tuple([done[a] for a in old])
            for a, b in zip(old, args):
                if a is not b:
                    fresh = Expr(node.op, args, node.dtype, node.value)
                    break
        replaced = rule(fresh)
        done[node] = fresh if replaced is None else replaced
    return done[root]


_DEAR = frozenset(
    "exp log expm1 log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf pow atan2 uniform".split()
)
_SLOW = frozenset("div sqrt floordiv mod cdiv cmod".split())


def cost_of(x: Expr) -> int:
    """Cost of one node in additions, roughly: 10 for a transcendental, 3 for a division or root."""
    return 0 if not x.args else 10 if x.op in _DEAR else 3 if x.op in _SLOW else 1


def weight(body: Expr) -> int:
    """Cost of one evaluation of a whole expression in additions, roughly."""
    return sum(cost_of(x) for x in walk(body))
