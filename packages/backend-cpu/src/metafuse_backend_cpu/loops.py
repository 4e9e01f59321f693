"""Loops over elements: kernels without a reduction, and the statements that every schedule's loop body consists of.

What it is: ``emit_elements`` (flat ranges) and ``statements``.
What it is not: reductions (``reductions``) or tiles of two axes (``transposes``).
Who calls it: ``codegen``; ``reductions`` and ``transposes`` use the shared parts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from metafuse.backend.contract import Machine
from metafuse.dtypes import int64
from metafuse.kernel.cstyle import loaded, operation, stored, type_name
from metafuse.kernel.expr import Expr, cast
from metafuse.kernel.ir import REDUCTIONS, Kernel, Stage
from metafuse.kernel.scope import Scope

from .access import Schedule, stages_of
from .halves import whole_strips
from .interior import Interior, interior, ranges, told
from .residues import MOST, Residues, residues
from .streaming import declare, finish, streamed, ways
from .strides import ways_to_step

__all__ = [
    "NOWHERE",
    "SIMD",
    "Definer",
    "decode",
    "emit_elements",
    "extent",
    "loop",
    "name_value",
    "parts",
    "statements",
]

SIMD = "#pragma omp simd"
#: no buffer's elements go elsewhere
NOWHERE: Mapping[int, str] = MappingProxyType({})
#: elements per chunk boundary: a multiple of every vector and cache line
_GRAIN = 256

#: called with (scope, stage, text of its value) for the stages that define a value
Definer = Callable[[Scope, Stage, str], None]


def extent(scope: Scope, number: int) -> str:
    """The name of the extent of axis ``number``."""
    return scope.value(Expr("size", (), int64, number))


def loop(name: str, start: str, stop: str) -> str:
    """The head of a counting loop."""
    return f"for (long long {name} = {start}; {name} < {stop}; ++{name})"


def decode(scope: Scope, flat: str, axes: Sequence[int]) -> None:
    """Define and bind ``i<axis>`` for every axis from the row-major number ``flat``."""
    rest = flat
    for position, number in reversed(list(enumerate(axes))):
        name = f"i{number}"
        if position == 0:
            scope.line(f"const long long {name} = {rest};")
        else:
            size = extent(scope, number)
            scope.line(f"const long long {name} = {rest} % {size}, r{number} = {rest} / {size};")
            rest = f"r{number}"
        scope.bind("axis", number, name)


def statements(
    scope: Scope,
    stages: Sequence[Stage],
    define: Definer,
    places: Mapping[int, str] = NOWHERE,
    wide: Collection[int] = (),
) -> None:
    """The stages' effects at one point, in order, with all stores last. ``places``: buffers whose element goes elsewhere;
    those in ``wide`` take a float that is yet to be rounded.

    Stores wait because an output may be the memory of an input: what is read at this point is read before any write.
    """
    pending: list[tuple[int, str]] = []

    def flush() -> None:
        for buffer, text in pending:
            scope.line(text)
            scope.forget(buffer)
        pending.clear()

    for stage in stages:
        reads = {node.value for node in stage.loads}
        if stage.kind == "scatter" or any(buffer in reads for buffer, _ in pending):
            flush()
        if stage.kind == "store":
            assert stage.offset is not None
            dtype, printer = scope.printer.kernel.buffers[stage.buffer].dtype, scope.printer
            expr = cast(stage.expr, dtype)
            if stage.buffer in wide:
                text = scope.unrounded(expr)
            else:
                text = stored(scope.value(expr), dtype, printer.dialect, printer.needs)
            place = places.get(stage.buffer) or f"b{stage.buffer}[{scope.index(stage.offset)}]"
            pending.append((stage.buffer, f"{place} = {text};"))
        elif stage.kind == "scatter":
            _scatter(scope, stage)
        else:
            define(scope, stage, scope.value(stage.expr))
    flush()


def _scatter(scope: Scope, stage: Stage) -> None:
    assert stage.offset is not None
    dialect, needs = scope.printer.dialect, scope.printer.needs
    dtype = scope.printer.kernel.buffers[stage.buffer].dtype
    new = cast(stage.expr, dtype)
    head = "" if stage.condition is None else f"if ({scope.value(stage.condition)}) "
    text, index = scope.value(new), scope.index(stage.offset)
    place = f"b{stage.buffer}[{index}]"
    combine = REDUCTIONS[stage.op]
    if combine is not None:
        kind = type_name(dtype, dialect)
        old = scope.printer.fresh("o")
        node = Expr(combine, (new, new), dtype)
        joined = stored(operation(node, [old, text], dialect, needs), dtype, dialect, needs)
        scope.line(
            f"{head}{{ const {kind} {old} = ({kind}){loaded(place, dtype, dialect, needs)}; {place} = {joined}; }}"
        )
    else:
        scope.line(f"{head}{place} = {stored(text, dtype, dialect, needs)};")
    scope.forget(stage.buffer)


def emit_elements(kernel: Kernel, root: Scope, machine: Machine, schedule: Schedule) -> tuple[list[str], int]:
    """Loops for a kernel whose points are all independent. Answers the body of ``units`` and the grain."""
    axes = [number for number in range(kernel.outer + kernel.inner) if number != schedule.axis]
    if schedule.axis >= 0:
        axes.append(schedule.axis)
    past = streamed(kernel, schedule.axis, machine)
    if past and (residues(kernel, schedule.axis) or interior(kernel, schedule.axis)):
        past = []
    outputs = {stage.buffer for stage in past}
    declare(kernel, root, outputs, schedule.axis, machine)
    if not axes:
        _body_loop(kernel, root, axes, "begin", "end")
    elif len(axes) == 1:
        _row(kernel, root, axes, "begin", "end", past)
    else:
        _flat(kernel, root, axes, past)
    finish(root, outputs)
    return [f"return {' * '.join(f'sizes[{number}]' for number in axes) or '1'};"], _GRAIN


def _body_loop(
    kernel: Kernel,
    scope: Scope,
    axes: Sequence[int],
    start: str,
    stop: str,
    change: Callable[[Sequence[Stage]], Sequence[Stage]] = list,
    places: Mapping[int, str] = NOWHERE,
) -> None:
    phases = [change([*inner, *outer]) for _, inner, outer in stages_of(kernel)]

    def run(body: Scope, places: Mapping[int, str], wide: Collection[int] = ()) -> None:
        for stages in phases:
            statements(body, stages, name_value, places, wide)

    if not axes:
        with scope.block("") as body:
            run(body, places)
        return
    everything = [stage for stages in phases for stage in stages]
    start = whole_strips(scope, everything, axes[-1], start, stop, places, SIMD, run)
    with scope.block(loop(f"i{axes[-1]}", start, stop), pragma=SIMD) as body:
        body.bind("axis", axes[-1], f"i{axes[-1]}")
        run(body, places)


def _stepped_loop(
    kernel: Kernel,
    scope: Scope,
    axes: Sequence[int],
    start: str,
    stop: str,
    places: Mapping[int, str] = NOWHERE,
) -> None:
    """``_body_loop``, for every second element by itself."""
    for block, stages in ways_to_step(scope, kernel.stages, axes[-1]):
        _body_loop(replace(kernel, stages=tuple(stages)), block, axes, start, stop, places=places)


def _row(
    kernel: Kernel, scope: Scope, axes: Sequence[int], start: str, stop: str, past: Sequence[Stage]
) -> None:
    """The loop along a row: twice, if there are stores that may go past the caches; two loops, if places are divided."""
    if past:
        for block, places, first, last in ways(scope, past, axes[-1], start, stop):
            _stepped_loop(kernel, block, axes, first, last, places)
        return
    steps = residues(kernel, axes[-1])
    if steps is None:
        _parts(kernel, scope, axes, start, stop)
        return
    divisor, *others = map(scope.value, steps.divisors)
    shift, lane = scope.value(steps.shift), scope.printer.vector_axis
    same = "".join(f" && {other} == {divisor}" for other in others)
    scope.line(f"const bool split = {divisor} > 0 && {start} + {shift} >= 0{same};")
    with scope.block(f"if (split && {divisor} == 2)", holds_loads=True) as two:
        two.line(f"const long long start = ({start} + {shift} + 1) / 2, stop = ({stop} + {shift}) / 2;")
        two.printer.vector_axis = steps.step
        _parts(steps.pairs, two, [steps.step], "start", "stop")
        two.printer.vector_axis = lane
        with two.block("for (int side = 0; side < 2; ++side)", holds_loads=True) as rest:
            rest.line(f"const long long first = side ? 2 * stop - {shift} : {start};")
            rest.line(f"const long long last = side ? {stop} : 2 * start - {shift};")
            _body_loop(kernel, rest, axes, "first", "last")
    few = f"{divisor} != 2 && {divisor} <= {MOST}"
    with scope.block(f"if (split && {few})", holds_loads=True) as block:
        _by_residue(steps, block, divisor, shift, start, stop)
    with scope.block(f"if (split && {divisor} > {MOST})", holds_loads=True) as block:
        _by_step(steps, block, divisor, shift, start, stop)
    scope.printer.vector_axis = lane
    with scope.block("if (!split)", holds_loads=True) as rest:
        _parts(kernel, rest, axes, start, stop)


def _by_residue(steps: Residues, scope: Scope, divisor: str, shift: str, start: str, stop: str) -> None:
    """Along the row once per residue: steps are lanes."""
    residue = f"i{steps.step + 1}"
    with scope.block(loop(residue, "0", divisor), holds_loads=True) as outer:
        outer.bind("axis", steps.step + 1, residue)
        outer.line(f"const long long above = {divisor} - 1 - {residue} + {shift};")
        outer.line(
            f"const long long step0 = ({start} + above) / {divisor}, step1 = ({stop} + above) / {divisor};"
        )
        outer.printer.vector_axis = steps.step
        _parts(steps.kernel, outer, [steps.step], "step0", "step1")


def _by_step(steps: Residues, scope: Scope, divisor: str, shift: str, start: str, stop: str) -> None:
    """Along the row step by step: residues are lanes."""
    step = f"i{steps.step}"
    head = f"for (long long {step} = ({start} + {shift}) / {divisor}; {step} * {divisor} < {stop} + {shift}; ++{step})"
    with scope.block(head, holds_loads=True) as outer:
        outer.bind("axis", steps.step, step)
        outer.line(f"const long long here = {shift} - {step} * {divisor};")
        outer.line(f"const long long begins = {start} + here, ends = {stop} + here;")
        outer.line(
            f"const long long first_residue = begins > 0 ? begins : 0, last_residue = ends < {divisor} ? ends : {divisor};"
        )
        outer.printer.vector_axis = steps.step + 1
        _parts(steps.kernel, outer, [steps.step + 1], "first_residue", "last_residue")


def _parts(kernel: Kernel, scope: Scope, axes: Sequence[int], start: str, stop: str) -> None:
    """The loop along a row: in three parts, if reads need no checks away from its ends."""
    inside = interior(kernel, axes[-1])
    if inside is None:
        _stepped_loop(kernel, scope, axes, start, stop)
        return
    checks = ranges(inside, axes[-1])
    if checks:
        for part, change in segments(scope, checks, start, stop):
            _body_loop(kernel, part, axes, "first", "last", change)
        return
    for part, known in parts(scope, inside, start, stop):
        change = inside.within if known else inside.beyond
        _body_loop(kernel, part, axes, "first", "last", change)


def parts(scope: Scope, inside: Interior, start: str, stop: str) -> Iterator[tuple[Scope, bool]]:
    """A row from ``start`` to ``stop`` as three parts in order, of which the second is where all that ``inside`` asks for holds.
    Yields a block for this one and one for the others, and whether it is that; in both a part is from ``first`` to ``last``."""
    _narrow(scope, inside, start, stop)
    with scope.block("for (int part = 0; part < 3; ++part)", holds_loads=True) as each:
        each.line(f"const long long first = part == 0 ? {start} : part == 1 ? low : high;")
        each.line(f"const long long last = part == 0 ? low : part == 1 ? high : {stop};")
        with each.either("part == 1", holds_loads=True) as (within, beyond):
            yield within, True
            yield beyond, False


def _narrow(scope: Scope, inside: Interior, start: str, stop: str, number: str = "") -> None:
    """Define ``low`` and ``high``, with ``number`` behind their names: the part of a row where ``inside`` holds."""
    low, high = f"low{number}", f"high{number}"
    scope.line(f"long long {low} = {start}, {high} = {stop};")
    for place in inside.lower:
        name = scope.value(place)
        scope.line(f"{low} = {low} < {name} ? {name} : {low};")
    for place in inside.upper:
        name = scope.value(place)
        scope.line(f"{high} = {high} < {name} ? {high} : {name};")
    for condition in inside.conditions:
        scope.line(f"{high} = {scope.value(condition)} ? {high} : {low};")
    scope.line(f"{low} = {low} < {stop} ? {low} : {stop};")
    scope.line(f"{high} = {high} < {low} ? {low} : {high};")


def segments(
    scope: Scope, checks: Sequence[Interior], start: str, stop: str
) -> Iterator[tuple[Scope, Callable[[Sequence[Stage]], Sequence[Stage]]]]:
    """A row from ``start`` to ``stop`` as parts in order, in each of which every one of ``checks`` holds throughout or nowhere.
    Yields a block for parts where one alone holds, or all, or none, and one for the others; in each a part is from ``first`` to
    ``last``. With the block comes what becomes of the stages there."""
    count = len(checks)
    for number, each in enumerate(checks):
        _narrow(scope, each, start, stop, str(number))
    with scope.block(
        f"for (long long first = {start}, last; first < {stop}; first = last)", holds_loads=True
    ) as row:
        row.line(f"last = {stop}; int holds = 0;")
        for k in range(count):
            row.line(f"if (first < low{k}) last = last < low{k} ? last : low{k};")
            row.line(
                f"else if (first < high{k}) {{ holds |= {1 << k}; last = last < high{k} ? last : high{k}; }}"
            )
        known = [*(1 << k for k in range(count)), (1 << count) - 1, 0]
        for which in known:
            facts = [bool(which >> k & 1) for k in range(count)]
            with row.block(f"if (holds == {which})", holds_loads=True) as part:
                yield part, partial(told, checks, facts)
        if count > 2:
            rest = " && ".join(f"holds != {which}" for which in known)
            with row.block(f"if ({rest})", holds_loads=True) as part:
                yield part, list


def name_value(scope: Scope, stage: Stage, text: str) -> None:
    """A stage's value is ``text`` from here on."""
    scope.bind("value", stage.result, text)


def _flat(kernel: Kernel, root: Scope, axes: Sequence[int], past: Sequence[Stage]) -> None:
    """Row by row through the flat range [begin, end): only the first row's position takes divisions."""
    *others, lane = axes
    size = extent(root, lane)
    root.line(f"long long rest = begin / {size}, from = begin % {size};")
    for number in reversed(others):
        name = extent(root, number)
        root.line(f"long long i{number} = rest % {name}; rest /= {name};")
    with root.block("for (long long at = begin; at < end;)", holds_loads=True) as row:
        for number in others:
            row.bind("axis", number, f"i{number}")
        row.line(f"const long long to = from + (end - at) < {size} ? from + (end - at) : {size};")
        _row(kernel, row, axes, "from", "to", past)
        row.line("at += to - from; from = 0;")
        carry = ""
        for number in others:
            carry = f"if (++i{number} == {extent(row, number)}) {{ i{number} = 0; {carry}}} "
        row.line(carry.strip())
