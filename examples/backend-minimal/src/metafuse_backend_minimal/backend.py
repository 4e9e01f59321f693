"""A backend in plain Python: kernels become nested ``for`` loops over single numbers.

What it is: the nine methods of the contract and nothing else.
What it is not: fast. It shows what a kernel means, one element at a time.
Who calls it: ``metafuse.runtime``, through the plugin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metafuse.backend.contract import AbstractBackend, Capabilities, Handle, Loaded, Step
from metafuse.dtypes import DTYPES, DType
from metafuse.errors import CompileError, OutOfMemory
from metafuse.kernel.expr import Expr, walk
from metafuse.kernel.host import FUNCTIONS
from metafuse.kernel.ir import IDENTITY, REDUCTIONS, Kernel, Stage

__all__ = ["MinimalBackend"]

#: dtype -> how Python's memoryview reads it. There is no float16: a backend declares what it can do.
FORMATS = {
    "bool": "?", "int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint8": "B", "uint16": "H", "uint32": "I",
    "uint64": "Q", "float32": "f", "float64": "d",
}  # fmt: skip
#: intrinsics that Python itself computes exactly; all others are looked up in metafuse.kernel.host
ARITHMETIC = {"add": "+", "sub": "-", "mul": "*"}
TESTS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "and": "and", "or": "or"}


class MinimalBackend(AbstractBackend):
    """Memory is a ``bytearray``, code is Python, time is the caller's."""

    name = "minimal"

    def __init__(self) -> None:
        self.capabilities = Capabilities(dtypes=frozenset(FORMATS))

    # -- memory -------------------------------------------------------------------------------------------------
    def alloc(self, nbytes: int) -> Handle:
        try:
            return bytearray(nbytes)
        except MemoryError:
            raise OutOfMemory(f"[minimal] can't allocate {nbytes} bytes; free some Vars") from None

    def free(self, handle: Handle) -> None:
        """Nothing to do: Python frees what nobody holds."""

    def copy_in(self, handle: Handle, source: memoryview) -> None:
        handle[: source.nbytes] = source

    def copy_out(self, target: memoryview, handle: Handle) -> None:
        target[:] = memoryview(handle)[: target.nbytes]

    # -- code ---------------------------------------------------------------------------------------------------
    def emit(self, kernel: Kernel, symbol: str) -> str:
        return _Printer(kernel).text(symbol)

    def compile(self, sources: Sequence[str]) -> bytes:
        text = "\n\n".join(sources)
        try:
            compile(text, "<minimal>", "exec")
        except SyntaxError as error:
            raise CompileError(f"[minimal] Python rejects the emitted source: {error}") from error
        return text.encode()

    def load(self, binary: bytes, kernels: Mapping[str, Kernel]) -> dict[str, Loaded]:
        scope: dict[str, Any] = {"host": _host, "inf": math.inf, "nan": math.nan}
        exec(binary.decode(), scope)
        return {symbol: scope[symbol] for symbol in kernels}

    # -- time ---------------------------------------------------------------------------------------------------
    def launch(self, step: Step, handles: Sequence[Handle], scalars: Sequence[float | int]) -> None:
        kernel = step.kernel
        for call in step.calls:
            buffers = [_typed(handles[s], p.dtype) for s, p in zip(call.slots, kernel.buffers, strict=True)]
            numbers = [_number(scalars[s], d) for s, d in zip(call.scalars, kernel.scalars, strict=True)]
            step.loaded(buffers, call.sizes, numbers)

    def synchronize(self) -> None:
        """Nothing to wait for: ``launch`` returns when its work is done."""


def _typed(handle: bytearray, dtype: DType) -> memoryview:
    """The whole elements in ``handle``."""
    return memoryview(handle)[: len(handle) // dtype.itemsize * dtype.itemsize].cast(FORMATS[dtype.name])


def _number(value: float | int, dtype: DType) -> Any:
    """``value`` as Python's number, rounded to ``dtype``."""
    return np.asarray(value).astype(dtype.numpy).item()


def _host(name: str, result: str, operands: str, *args: Any) -> Any:
    """One intrinsic of single numbers, by the NumPy function that defines it."""
    arrays = [np.full(1, a, d) for a, d in zip(args, operands.split(), strict=True)]
    with np.errstate(all="ignore"):
        return FUNCTIONS[name](*arrays, DTYPES[result]).item()


class _Printer:
    """Writes one kernel; ``lines`` is the text so far, ``depth`` how far it is indented."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.lines: list[str] = []
        self.depth = 0
        self.places: set[Expr] = set()  # addresses: integers that never wrap around

    def put(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    def loops(self, first: int, count: int) -> None:
        for k in range(first, first + count):
            self.put(f"for a{k} in range(s[{k}]):")
            self.depth += 1

    def text(self, symbol: str) -> str:
        kernel = self.kernel
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
                for stage in inner:
                    self.stage(stage)
                self.depth -= kernel.inner
            for stage in stages:
                if stage.level == "outer":
                    self.stage(stage)
        return "\n".join(self.lines) + "\n"

    def stage(self, stage: Stage) -> None:
        names: dict[Expr, str] = {}
        value = self.name(stage.expr, names)
        if stage.kind == "let":
            self.put(f"v{stage.result} = {value}")
        elif stage.kind == "reduce":
            self.put(f"v{stage.result} = {self.fold(stage, f'v{stage.result}', value)}")
        else:
            assert stage.offset is not None
            element = f"b[{stage.buffer}][{self.name(stage.offset, names)}]"
            new = value if stage.kind == "store" else self.fold(stage, element, value)
            if stage.condition is not None:
                self.put(f"if {self.name(stage.condition, names)}:")
                self.lines.append("    " * (self.depth + 1) + f"{element} = {new}")
            else:
                self.put(f"{element} = {new}")

    def fold(self, stage: Stage, old: str, new: str) -> str:
        intrinsic = REDUCTIONS[stage.op]
        dtype = stage.expr.dtype
        return new if intrinsic is None else self.call(intrinsic, dtype, [dtype, dtype], [old, new])

    def name(self, root: Expr, names: dict[Expr, str]) -> str:
        """Give every node under ``root`` a name, operands first; answers the root's."""
        for node in walk(root):
            if node not in names:
                text = self.leaf(node, names)
                if text is None:
                    args = [names[a] for a in node.args]
                    if node.op in ARITHMETIC and self.places.issuperset(node.args):
                        self.places.add(node)
                    text = self.call(
                        node.op, node.dtype, [a.dtype for a in node.args], args, node in self.places
                    )
                elif node.op in ("axis", "size") or (node.op == "const" and node.dtype.name == "int64"):
                    self.places.add(node)
                names[node] = f"t{len(names)}"
                self.put(f"{names[node]} = {text}")
        return names[root]

    def leaf(self, node: Expr, names: dict[Expr, str]) -> str | None:
        if node.op == "const":
            return repr(_number(node.value, node.dtype))
        if node.op == "load":
            element = f"b[{node.value}][{names[node.args[0]]}]"
            return (
                element
                if len(node.args) == 1
                else f"{element} if {names[node.args[1]]} else {names[node.args[2]]}"
            )
        table = {
            "axis": f"a{node.value}",
            "size": f"s[{node.value}]",
            "scalar": f"c[{node.value}]",
            "value": f"v{node.value}",
        }
        return table.get(node.op)

    def call(
        self, name: str, dtype: DType, operands: list[DType], args: list[str], place: bool = False
    ) -> str:
        if name in TESTS:
            return f"{args[0]} {TESTS[name]} {args[1]}"
        if name in ARITHMETIC and (dtype.is_float or place):
            return f"{args[0]} {ARITHMETIC[name]} {args[1]}"
        if name == "not":
            return f"not {args[0]}"
        if name == "select":
            return f"{args[1]} if {args[0]} else {args[2]}"
        return f"host({name!r}, '{dtype}', '{' '.join(map(str, operands))}', {', '.join(args)})"
