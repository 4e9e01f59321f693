"""Loops for kernels that reduce along contiguous axes: one unit per row, vectors along the row.

What it is: ``emit_rows``, and ``Accumulator``, which says how each reduction is carried.
What it is not: loops whose vectors run across rows (``lanes``), nor the choice between the two (``access``).
Who calls it: ``codegen``; ``lanes`` uses the accumulators.

Accuracy. Sums are carried in blocks: a few hundred elements in the element type, one accumulator per vector lane, so that each
lane adds a few dozen numbers; the blocks' sums are added in double. So the error of a sum does not grow with its
length in any way that matters. Products of float32 are carried in double. Minimum and maximum hand on NaN. Integers wrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from metafuse.backend.contract import Machine
from metafuse.dtypes import DType, float32, float64
from metafuse.kernel.cstyle import literal, rounded, type_name, unsigned_of
from metafuse.kernel.expr import walk, weight
from metafuse.kernel.ir import IDENTITY, Kernel, Stage
from metafuse.kernel.scope import Scope, affine

from .access import Schedule, stages_of
from .loops import SIMD, decode, extent, loop, statements

__all__ = ["Accumulator", "emit_rows", "runs_inner"]

#: how many elements at once, in a loop whose body costs at most so many additions, and how many are asked for ahead
_SEVERAL, _CHEAP = 64, 4
_AHEAD = 2048
#: elements whose sum is one block
_BLOCK = 1024
_CLAUSE = {
    "add": "+", "multiply": "*", "maximum": "max", "minimum": "min", "logical_and": "&", "logical_or": "|",
    "logical_xor": "^", "bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^",
}  # fmt: skip
_ON_BOOL = {"add": "logical_or", "multiply": "logical_and", "maximum": "logical_or", "minimum": "logical_and"}


@dataclass(frozen=True)
class Accumulator:
    """How the ``reduce`` stage that defines value ``number`` is carried: C type, start and update."""

    number: int
    op: str
    dtype: DType
    kind: str
    start: str

    @classmethod
    def of(cls, stage: Stage, scope: Scope) -> Accumulator:
        """The accumulator of one stage."""
        dtype, op, dialect = stage.expr.dtype, stage.op, scope.printer.dialect
        if dtype.kind == "b":
            op = _ON_BOOL.get(op, op)
        start = literal(IDENTITY(op, dtype), dtype, dialect)
        if dtype.kind == "b" or op.startswith("logical"):
            return cls(stage.result, op, dtype, "int", "1" if IDENTITY(op, dtype) else "0")
        if dtype.is_float:
            kind = "double" if op in ("add", "multiply") else "float" if dtype.itemsize == 2 else dtype.c_name
            return cls(stage.result, op, dtype, kind, f"({kind}){start}")
        kind = type_name(dtype, dialect) if op in ("maximum", "minimum") else unsigned_of(dtype)
        return cls(stage.result, op, dtype, kind, f"({kind}){start}")

    @property
    def clause(self) -> str:
        """The reduction operator of OpenMP."""
        return _CLAUSE[self.op]

    @property
    def picks(self) -> bool:
        """Whether it chooses between floats, so that NaN needs care."""
        return self.op in ("maximum", "minimum") and self.dtype.is_float

    @property
    def blocked(self) -> bool:
        """Whether partial sums of a block are kept apart from the total."""
        return self.op == "add" and self.dtype in (float32, float64)

    @property
    def partial(self) -> str:
        """The C type of a block's sum."""
        return self.dtype.c_name if self.blocked else self.kind

    def update(self, place: str, value: str, with_flag: str = "") -> str:
        """The statement that folds ``value`` into ``place``; a maximum with a flag leaves NaN to the flag."""
        if self.op in ("maximum", "minimum"):
            better = f"{value} {'>' if self.op == 'maximum' else '<'} {place}"
            if self.picks and with_flag:
                return f"{place} = {better} ? {value} : {place}; {with_flag} |= {value} != {value};"
            better = f"({better}) | ({value} != {value})" if self.picks else better
            return f"{place} = {better} ? {value} : {place};"
        if self.op.startswith("logical"):
            value = value if self.dtype.kind == "b" else f"({value} != 0)"
            return f"{place} {self.clause}= {value};"
        return f"{place} {self.clause}= ({self.partial}){value};"

    def result(self, place: str, scope: Scope, flag: str = "") -> str:
        """The finished value as text of the stage's dtype."""
        printer = scope.printer
        if flag:
            kind = type_name(self.dtype, printer.dialect)
            return f"({kind})({flag} ? ({self.kind}){printer.dialect.nan} : {place})"
        return rounded(place, self.dtype, printer.dialect, printer.needs)


def _clauses(found: Sequence[tuple[Accumulator, str]]) -> str:
    names: dict[str, list[str]] = {}
    for accumulator, name in found:
        names.setdefault(accumulator.clause, []).append(name)
        if accumulator.picks:
            names.setdefault("|", []).append(f"n{accumulator.number}")
    return "".join(f" reduction({clause}:{','.join(each)})" for clause, each in names.items())


def runs_inner(scope: Scope, kernel: Kernel) -> str:
    """The condition that the inner loops run at all; loads that move out of them stay under it."""
    inner = range(kernel.outer, kernel.outer + kernel.inner)
    return " && ".join(f"{extent(scope, number)} > 0" for number in inner)


# -- rows ---------------------------------------------------------------------------------------------------------
def emit_rows(kernel: Kernel, root: Scope, machine: Machine, schedule: Schedule) -> tuple[list[str], int]:
    """One unit per outer point, whose phases run one after the other while its data is in cache."""
    outer = range(kernel.outer)
    with root.block(loop("unit", "begin", "end"), holds_loads=True) as unit:
        decode(unit, "unit", outer)
        for _, inner_stages, outer_stages in stages_of(kernel):
            if inner_stages:
                _row_phase(kernel, unit, schedule, inner_stages)
            statements(unit, outer_stages, lambda scope, stage, text: scope.bind("value", stage.result, text))
    return [f"return {' * '.join(f'sizes[{number}]' for number in outer) or '1'};"], 1


def _row_phase(kernel: Kernel, unit: Scope, schedule: Schedule, stages: list[Stage]) -> None:
    found = [Accumulator.of(stage, unit) for stage in stages if stage.kind == "reduce"]
    for each in found:
        unit.line(
            f"{each.kind} a{each.number} = {each.start};"
            + (f" int n{each.number} = 0;" if each.picks else "")
        )
    with ExitStack() as stack:
        scope = stack.enter_context(unit.guard(runs_inner(unit, kernel)))
        order = [k for k in range(kernel.outer, kernel.outer + kernel.inner) if k != schedule.axis]
        for number in order:
            scope = stack.enter_context(scope.block(loop(f"i{number}", "0", extent(scope, number))))
            scope.bind("axis", number, f"i{number}")
        if schedule.axis >= 0:
            _row_loop(scope, stages, found, schedule.axis)
        else:
            _fold(scope, stages, {each.number: (each, f"a{each.number}") for each in found})
    for each in found:
        flag = f"n{each.number}" if each.picks else ""
        kind = type_name(each.dtype, unit.printer.dialect)
        unit.line(f"const {kind} v{each.number} = {each.result(f'a{each.number}', unit, flag)};")
        unit.bind("value", each.number, f"v{each.number}")


def _row_loop(scope: Scope, stages: list[Stage], found: list[Accumulator], axis: int) -> None:
    """The innermost loop, vectorised; in blocks where a float64 sum is carried."""
    size = extent(scope, axis)
    blocked = [each for each in found if each.blocked]
    places = {each.number: (each, f"{'p' if each.blocked else 'a'}{each.number}") for each in found}
    meet = any(stage.kind == "scatter" and not _moves_along(stage, axis) for stage in stages)
    several = "" if meet else _several(stages, found)
    pragma = "" if meet else SIMD + several + _clauses(list(places.values()))
    with ExitStack() as stack:
        start, stop = "0", size
        if blocked:
            scope = stack.enter_context(
                scope.block(f"for (long long from = 0; from < {size}; from += {_BLOCK})")
            )
            scope.line(f"const long long to = from + {_BLOCK} < {size} ? from + {_BLOCK} : {size};")
            scope.line("".join(f"{each.partial} p{each.number} = 0; " for each in blocked).strip())
            start, stop = "from", "to"
            if several:
                _prefetch(scope, stages, axis)
        with scope.block(loop(f"i{axis}", start, stop), pragma=pragma) as body:
            body.bind("axis", axis, f"i{axis}")
            _fold(body, stages, places)
        for each in blocked:
            scope.line(f"a{each.number} += p{each.number};")


def _prefetch(scope: Scope, stages: Sequence[Stage], axis: int) -> None:
    """Ask for the elements of a later block: a bare sum waits for memory, and pages end the hardware's foresight."""
    loads = {n for stage in stages for n in walk(stage.expr) if n.op == "load" and len(n.args) == 1}
    for node in sorted(loads, key=repr):
        if affine(node.args[0]).stride(axis) != "unit":
            continue
        step = 64 // node.dtype.itemsize
        with scope.block(f"for (long long line = from; line < to; line += {step})") as body:
            body.bind("axis", axis, "line")
            body.line(f"__builtin_prefetch(b{node.value} + ({body.index(node.args[0])} + {_AHEAD}));")


def _several(stages: Sequence[Stage], found: Sequence[Accumulator]) -> str:
    """Four vectors at a time, so that additions do not wait for one another, where there is little else to do."""
    cheap = all(stage.kind == "reduce" and weight(stage.expr) <= _CHEAP for stage in stages)
    short = all(each.partial == "float" and each.blocked for each in found)
    return f" simdlen({_SEVERAL})" if cheap and short and len(found) == 1 else ""


def _moves_along(stage: Stage, axis: int) -> bool:
    """Whether a scatter writes another element at every step along ``axis``: strides of affine offsets are never zero."""
    assert stage.offset is not None
    return affine(stage.offset).stride(axis) in ("unit", "strided")


def _fold(scope: Scope, stages: list[Stage], places: dict[int, tuple[Accumulator, str]]) -> None:
    def define(where: Scope, stage: Stage, text: str) -> None:
        accumulator, place = places[stage.result]
        where.line(accumulator.update(place, text, f"n{stage.result}" if accumulator.picks else ""))

    statements(scope, stages, define)
