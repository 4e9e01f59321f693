"""Loops for kernels that reduce along contiguous axes: one unit per row, vectors along the row.

What it is: ``emit_rows``, and ``Accumulator``, which says how each reduction is carried.
What it is not: loops whose vectors run across rows (``lanes``), nor the choice between the two (``access``).
Who calls it: ``codegen``; ``lanes`` uses the accumulators.

Accuracy. Sums are carried in blocks: a few hundred elements in the element type, one accumulator per vector lane, so that each
lane adds a few dozen numbers, and the lanes pairwise; the blocks' sums are added in double. So the error of a sum does not
grow with its length in any way that matters. Products of float32 are carried in double. Minimum and maximum hand on NaN.
Integers wrap.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from metafuse.backend.contract import Machine
from metafuse.dtypes import DType, float32, float64
from metafuse.kernel.cstyle import literal, rounded, type_name, unsigned_of
from metafuse.kernel.expr import Expr, walk
from metafuse.kernel.ir import IDENTITY, Kernel, Stage
from metafuse.kernel.scope import Scope, affine

from .access import Schedule, cost, stages_of
from .halves import Halves, whole_strips
from .interior import interior
from .loops import NOWHERE, SIMD, decode, extent, loop, parts, statements
from .streaming import declare, finish, streamed, ways

__all__ = ["Accumulator", "emit_rows", "runs_inner"]

#: strips are of four vectors where a point costs at most so many additions, of two up to so many, and have at most so many
#: accumulators, in vectors
_CHEAP, _DEAR, _MOST_ACCUMULATORS = 6, 18, 8
#: vectors of at least so many bytes can be loaded and stored in part
_MASKED = 64
#: how many elements ahead memory is asked for, where later phases give it time to come and where there are none
_AHEAD, _FAR_AHEAD = 1024, 4096
#: elements whose sum is one block
_BLOCK = 1024
_SIGN = {
    "add": "+", "multiply": "*", "logical_and": "&", "logical_or": "|", "logical_xor": "^",
    "bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^",
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
    def sign(self) -> str:
        """The operator of C, where there is one."""
        return _SIGN[self.op]

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
        """The C type of a block's sum, and of one lane's share of it."""
        return self.dtype.c_name if self.blocked else self.kind

    def update(self, place: str, value: str, with_flag: str = "") -> str:
        """The statement that folds ``value`` into ``place``; a maximum with a flag leaves NaN to the flag."""
        if self.op in ("maximum", "minimum"):
            better = f"{value} {'>' if self.op == 'maximum' else '<'} {place}"
            if self.picks and with_flag:
                return f"{place} = {better} ? {value} : {place}; {with_flag} |= {value} != {value};"
            chosen = f"{better} ? {value} : {place}"
            # one question after the other: of two joined ones compilers make a branch where they don't make vectors
            return (
                f"{place} = {value} != {value} ? {value} : {chosen};"
                if self.picks
                else f"{place} = {chosen};"
            )
        if self.op.startswith("logical"):
            value = value if self.dtype.kind == "b" else f"({value} != 0)"
            return f"{place} {self.sign}= {value};"
        return f"{place} {self.sign}= ({self.partial}){value};"

    def join(self, place: str, part: str) -> str:
        """The statement that folds an accumulator into another one; NaN is left to flags."""
        if self.op in ("maximum", "minimum"):
            return f"{place} = {part} {'>' if self.op == 'maximum' else '<'} {place} ? {part} : {place};"
        return f"{place} {self.sign}= {part};"

    def result(self, place: str, scope: Scope, flag: str = "") -> str:
        """The finished value as text of the stage's dtype."""
        printer = scope.printer
        if flag:
            kind = type_name(self.dtype, printer.dialect)
            return f"({kind})({flag} ? ({self.kind}){printer.dialect.nan} : {place})"
        return rounded(place, self.dtype, printer.dialect, printer.needs)


#: value number -> its accumulator, where it is kept, and where it is noted that NaN was met
Places = dict[int, tuple[Accumulator, str, str]]


def runs_inner(scope: Scope, kernel: Kernel) -> str:
    """The condition that the inner loops run at all; loads that move out of them stay under it."""
    inner = range(kernel.outer, kernel.outer + kernel.inner)
    return " && ".join(f"{extent(scope, number)} > 0" for number in inner)


# -- rows ---------------------------------------------------------------------------------------------------------
def emit_rows(kernel: Kernel, root: Scope, machine: Machine, schedule: Schedule) -> tuple[list[str], int]:
    """One unit per outer point, whose phases run one after the other while its data is in cache. Points along serial axes
    belong to one unit."""
    outer = range(kernel.outer - kernel.serial)
    past = streamed(kernel, schedule.axis, machine)
    outputs = {stage.buffer for stage in past}
    declare(kernel, root, outputs, schedule.axis, machine)
    with ExitStack() as stack:
        unit = stack.enter_context(root.block(loop("unit", "begin", "end"), holds_loads=True))
        decode(unit, "unit", outer)
        for number in range(len(outer), kernel.outer):
            head = loop(f"i{number}", "0", extent(unit, number))
            unit = stack.enter_context(unit.block(head, holds_loads=True))
            unit.bind("axis", number, f"i{number}")
        for _, inner_stages, outer_stages in stages_of(kernel):
            if inner_stages:
                _row_phase(kernel, unit, schedule, inner_stages, machine, past)
            statements(unit, outer_stages, lambda scope, stage, text: scope.bind("value", stage.result, text))
    finish(root, outputs)
    return [f"return {' * '.join(f'sizes[{number}]' for number in outer) or '1'};"], 1


def _row_phase(
    kernel: Kernel,
    unit: Scope,
    schedule: Schedule,
    stages: list[Stage],
    machine: Machine,
    past: Sequence[Stage],
) -> None:
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
            head = loop(f"i{number}", "0", extent(scope, number))
            if number == order[0] and _turns(kernel, stages):
                head = f"for (long long i{number} = {extent(scope, number)} - 1; i{number} >= 0; --i{number})"
            scope = stack.enter_context(scope.block(head))
            scope.bind("axis", number, f"i{number}")
        if schedule.axis >= 0:
            _row_loop(scope, stages, found, schedule.axis, machine, [s for s in stages if s in past])
        else:
            _fold(scope, stages=stages, totals=_totals(found))
    for each in found:
        flag = f"n{each.number}" if each.picks else ""
        kind = type_name(each.dtype, unit.printer.dialect)
        unit.line(f"const {kind} v{each.number} = {each.result(f'a{each.number}', unit, flag)};")
        unit.bind("value", each.number, f"v{each.number}")


def _turns(kernel: Kernel, stages: Sequence[Stage]) -> bool:
    """Whether a phase runs through its data backwards. Every second one does: what the phase before has read last is still in
    the cache. Scatters keep the order."""
    phases = sorted({stage.phase for stage in kernel.stages if stage.level == "inner"})
    scatters = any(stage.kind == "scatter" for stage in kernel.stages)
    return not scatters and phases.index(stages[0].phase) % 2 == 1


def _row_loop(
    scope: Scope,
    stages: list[Stage],
    found: list[Accumulator],
    axis: int,
    machine: Machine,
    past: Sequence[Stage],
) -> None:
    """The innermost loop, vectorised; in blocks where a float64 sum is carried."""
    size = extent(scope, axis)
    meet = any(stage.kind == "scatter" and not _moves_along(stage, axis) for stage in stages)
    if meet:
        _scatter_loop(scope, stages, found, axis, size)
    elif not found:
        for block, places, start, stop in ways(scope, past, axis, "0", size):
            run = partial(_fold, stages=stages, totals={})
            start = whole_strips(block, stages, axis, start, stop, places, SIMD, run)
            with block.block(loop(f"i{axis}", start, stop), pragma=SIMD) as body:
                body.bind("axis", axis, f"i{axis}")
                run(body, places)
    elif any(each.blocked for each in found):
        with scope.block(f"for (long long from = 0; from < {size}; from += {_BLOCK})") as block:
            block.line(f"const long long to = from + {_BLOCK} < {size} ? from + {_BLOCK} : {size};")
            _strips(block, stages, found, axis, machine, "from", "to")
    else:
        with scope.block("") as block:
            _strips(block, stages, found, axis, machine, "0", size)


def _scatter_loop(scope: Scope, stages: list[Stage], found: list[Accumulator], axis: int, size: str) -> None:
    """Elements may meet: one after the other, but for the part of a row where positions are not clamped, if that is why."""
    inside = None if found else interior(replace(scope.printer.kernel, stages=tuple(stages)), axis)
    apart = inside.within(stages) if inside is not None else []
    if inside is None or any(s.kind == "scatter" and not _moves_along(s, axis) for s in apart):
        with scope.block(loop(f"i{axis}", "0", size)) as body:
            body.bind("axis", axis, f"i{axis}")
            _fold(body, stages=stages, totals=_totals(found))
        return
    for part, known in parts(scope, inside, "0", size):
        with part.block(loop(f"i{axis}", "first", "last"), pragma=SIMD if known else "") as body:
            body.bind("axis", axis, f"i{axis}")
            _fold(body, stages=apart if known else stages, totals={})


def _strips(
    scope: Scope,
    stages: list[Stage],
    found: list[Accumulator],
    axis: int,
    machine: Machine,
    start: str,
    stop: str,
) -> None:
    """Fold the points from ``start`` to ``stop`` into accumulators that are arrays with an element for each lane of a strip of
    one or more vectors: so the additions of a strip do not wait for one another. At the end halves of the arrays are folded
    into each other."""
    width = max(machine.vector_bytes // 4, 1)
    strip = width * _vectors(stages, found)
    places = {each.number: (each, f"p{each.number}[l]", f"m{each.number}[l]") for each in found}
    for each in found:
        scope.line(f"{each.partial} p{each.number}[{strip}] __attribute__((aligned(64)));")
        if each.picks:
            scope.line(f"int m{each.number}[{strip}] __attribute__((aligned(64)));")
    first = " ".join(
        f"p{each.number}[l] = {each.start};" + (f" m{each.number}[l] = 0;" if each.picks else "")
        for each in found
    )
    scope.lines += [SIMD, f"for (int l = 0; l < {strip}; ++l) {{ {first} }}", f"long long at = {start};"]
    halves = Halves.of(scope, stages, axis)
    with scope.block(f"for (; at + {strip} <= {stop}; at += {strip})") as whole:
        _prefetch(whole, stages, axis, strip)
        halves.before(whole, "at", strip)
        with whole.block(f"for (int l = 0; l < {strip}; ++l)", pragma=SIMD) as body:
            halves.give(body)
            _point(body, stages, places, axis, halves.places)
        halves.after(whole, "at", strip, {})
    masked = machine.vector_bytes >= _MASKED
    step = width if masked else strip
    with scope.block(f"for (; at < {stop}; at += {step})") as rest:
        rest.line(f"const int left = {stop} - at < {step} ? (int)({stop} - at) : {step};")
        with ExitStack() as stack:
            count = str(step) if masked else "left"
            body = stack.enter_context(rest.block(f"for (int l = 0; l < {count}; ++l)", pragma=SIMD))
            if masked:
                body = stack.enter_context(body.block("if (l < left)"))
            _point(body, stages, places, axis)
    _join(scope, found, strip)


def _totals(found: Sequence[Accumulator]) -> Places:
    return {each.number: (each, f"a{each.number}", f"n{each.number}") for each in found}


def _point(
    body: Scope,
    stages: list[Stage],
    totals: Places,
    axis: int,
    elsewhere: Mapping[int, str] = NOWHERE,
) -> None:
    """The body of a loop over the lanes of a strip. ``elsewhere``: where floats of 16 bits go that are yet to be rounded."""
    body.line(f"const long long i{axis} = at + l;")
    body.bind("axis", axis, f"i{axis}")
    _fold(body, elsewhere, elsewhere, stages=stages, totals=totals)


def _join(scope: Scope, found: Sequence[Accumulator], strip: int) -> None:
    """Fold the lanes of a strip into one value each, and those into the totals."""
    half = strip // 2
    while half:
        moves = " ".join(
            each.join(f"p{each.number}[l]", f"p{each.number}[l + {half}]")
            + (f" m{each.number}[l] |= m{each.number}[l + {half}];" if each.picks else "")
            for each in found
        )
        scope.lines += [SIMD] * (half > 2) + [f"for (int l = 0; l < {half}; ++l) {{ {moves} }}"]
        half //= 2
    for each in found:
        scope.line(each.join(f"a{each.number}", f"p{each.number}[0]"))
        if each.picks:
            scope.line(f"n{each.number} |= m{each.number}[0];")


def _vectors(stages: Sequence[Stage], found: Sequence[Accumulator]) -> int:
    """How many vectors make a strip: few where a point takes longer than an addition anyway, or where registers are short."""
    additions = cost(stages)
    count = 4 if additions <= _CHEAP else 2 if additions <= _DEAR else 1
    while count > 1 and count * sum(2 if each.picks else 1 for each in found) > _MOST_ACCUMULATORS:
        count //= 2
    return count


def _prefetch(scope: Scope, stages: Sequence[Stage], axis: int, strip: int) -> None:
    """Ask for the elements of a later strip where rows of a single array are read for the first time. The hardware foresees
    more streams than one better by itself."""
    kernel = scope.printer.kernel
    phases = sorted({stage.phase for stage in kernel.stages if stage.level == "inner"})
    if stages[0].phase != phases[0]:
        return
    loads = {n for stage in stages for n in walk(stage.expr) if n.op == "load" and len(n.args) == 1}
    rows = [n for n in loads if _is_row(n, axis, kernel)]
    if len(rows) != 1:
        return
    ahead = _AHEAD if len(phases) > 1 else _FAR_AHEAD
    with scope.block("") as body:
        body.bind("axis", axis, "at")
        place = body.index(rows[0].args[0])
        for step in range(0, strip, 64 // rows[0].dtype.itemsize):
            body.line(f"__builtin_prefetch(b{rows[0].value} + ({place} + {step + ahead}));")


def _is_row(node: Expr, axis: int, kernel: Kernel) -> bool:
    """Whether a load runs through another piece of contiguous memory for every outer point."""
    offset = affine(node.args[0])
    return offset.stride(axis) == "unit" and any(offset.stride(k) != "none" for k in range(kernel.outer))


def _moves_along(stage: Stage, axis: int) -> bool:
    """Whether a scatter writes another element at every step along ``axis``: strides of affine offsets are never zero."""
    assert stage.offset is not None
    return affine(stage.offset).stride(axis) in ("unit", "strided")


def _fold(
    scope: Scope,
    elsewhere: Mapping[int, str] = NOWHERE,
    wide: Collection[int] = (),
    *,
    stages: Sequence[Stage],
    totals: Places,
) -> None:
    def define(where: Scope, stage: Stage, text: str) -> None:
        accumulator, place, flag = totals[stage.result]
        where.line(accumulator.update(place, text, flag))

    statements(scope, stages, define, elsewhere, wide)
