"""Prints a kernel as a Python function: a ``for`` loop per axis, a line per scalar operation.

What it is: ``emit``. Read it beside the program in the docstring of ``metafuse.kernel.ir``, which it spells out.
What it is not: an optimiser.
Who calls it: ``MinimalBackend.emit``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from metafuse.dtypes import DType
from metafuse.kernel.expr import Expr, walk
from metafuse.kernel.ir import IDENTITY, REDUCTIONS, Kernel, Stage

__all__ = ["emit", "rounded"]

LEAVES = {"axis": "a{}", "size": "s[{}]", "scalar": "c[{}]", "value": "v{}"}
#: intrinsics that Python itself has; all others are looked up in metafuse.kernel.host
ARITHMETIC = {"add": "+", "sub": "-", "mul": "*"}
TESTS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "and": "and", "or": "or"}


def emit(kernel: Kernel, symbol: str) -> str:
    """The source of a function ``symbol(b, s, c)``: typed flat buffers, sizes, numbers.

    Example:
        >>> from metafuse.dtypes import float64
        >>> from metafuse.kernel.expr import axis, call, load
        >>> from metafuse.kernel.ir import BufferParam
        >>> x = load(0, float64, axis(0))
        >>> stage = Stage("store", "outer", call("mul", x, x), 0, buffer=1, offset=axis(0))
        >>> buffers = (BufferParam(float64), BufferParam(float64, writes=True, reads=False))
        >>> print(emit(Kernel(1, 0, buffers, 1, (), (stage,)), "square"), end="")
        def square(b, s, c):  # buffers, sizes, scalars
            for a0 in range(s[0]):
                t0 = a0
                t1 = b[0][t0]
                t2 = t1 * t1
                b[1][t0] = t2
    """
    return _Printer(kernel).text(symbol)


def rounded(value: float | int, dtype: DType) -> Any:
    """``value`` as Python's number, rounded to ``dtype``."""
    return np.asarray(value).astype(dtype.numpy).item()


class _Printer:
    """Writes one kernel; ``lines`` is the text so far, ``depth`` how far it is indented."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.lines: list[str] = []
        self.places: set[Expr] = set()  # addresses: integers that never wrap around

    def put(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    def loops(self, first: int, count: int) -> None:
        for k in range(first, first + count):
            self.put(f"for a{k} in range(s[{k}]):")
            self.depth += 1

    def text(self, symbol: str) -> str:
        kernel, self.depth = self.kernel, 0
        self.put(f"def {symbol}(b, s, c):  # buffers, sizes, scalars")
        self.depth = 1
        self.loops(0, kernel.outer)
        for phase in sorted({stage.phase for stage in kernel.stages}):
            stages = [stage for stage in kernel.stages if stage.phase == phase]
            for stage in stages:
                if stage.kind == "reduce":
                    self.put(f"v{stage.result} = {IDENTITY(stage.op, stage.expr.dtype)!r}")
            inner = [stage for stage in stages if stage.level == "inner"]
            if inner:
                self.loops(kernel.outer, kernel.inner)
                self.point(inner)
                self.depth -= kernel.inner
            self.point([stage for stage in stages if stage.level == "outer"])
        return "\n".join(self.lines) + "\n"

    def point(self, stages: list[Stage]) -> None:
        """What happens at one point: everything is read before anything is written."""
        names: dict[Expr, str] = {}
        writes: list[str] = []
        for stage in stages:
            value = self.name(stage.expr, names)
            if stage.kind == "let":
                self.put(f"v{stage.result} = {value}")
            elif stage.kind == "reduce":
                self.put(f"v{stage.result} = {self.fold(stage, f'v{stage.result}', value)}")
            else:
                assert stage.offset is not None
                element = f"b[{stage.buffer}][{self.name(stage.offset, names)}]"
                new = value if stage.kind == "store" else self.fold(stage, element, value)
                guard = "" if stage.condition is None else f"if {self.name(stage.condition, names)}: "
                writes.append(f"{guard}{element} = {new}")
        for line in writes:
            self.put(line)

    def fold(self, stage: Stage, old: str, new: str) -> str:
        intrinsic, dtype = REDUCTIONS[stage.op], stage.expr.dtype
        if dtype.is_float and intrinsic in ARITHMETIC:  # folds of floats are carried as doubles
            return f"{old} {ARITHMETIC[intrinsic]} {new}"
        return (
            new
            if intrinsic is None
            else self.call(Expr(intrinsic, (stage.expr, stage.expr), dtype), [old, new])
        )

    def name(self, root: Expr, names: dict[Expr, str]) -> str:
        """Give every node under ``root`` a name, operands first; answers the root's."""
        for node in walk(root):
            if node not in names:
                text = self.text_of(node, [names[a] for a in node.args])
                names[node] = f"t{len(names)}"
                self.put(f"{names[node]} = {text}")
        return names[root]

    def text_of(self, node: Expr, args: list[str]) -> str:
        if node.op in ("axis", "size") or (node.op == "const" and node.dtype.name == "int64"):
            self.places.add(node)
        if node.op in LEAVES:
            return LEAVES[node.op].format(node.value)
        if node.op == "const":
            return repr(rounded(node.value, node.dtype))
        if node.op == "load":
            element = f"b[{node.value}][{args[0]}]"
            return f"{element} if {args[1]} else {args[2]}" if len(args) > 1 else element
        if node.op in ARITHMETIC and self.places.issuperset(node.args):
            self.places.add(node)
        return self.call(node, args)

    def call(self, node: Expr, args: list[str]) -> str:
        if node.op in ARITHMETIC and (node.dtype.is_float or node in self.places):
            text = f"{args[0]} {ARITHMETIC[node.op]} {args[1]}"
            return f"single({text})" if node.dtype.name == "float32" else text
        if node.op in TESTS:
            return f"{args[0]} {TESTS[node.op]} {args[1]}"
        if node.op == "not":
            return f"not {args[0]}"
        if node.op == "select":
            return f"{args[1]} if {args[0]} else {args[2]}"
        operands = " ".join(str(a.dtype) for a in node.args)
        return f"host({node.op!r}, '{node.dtype}', '{operands}', {', '.join(args)})"
