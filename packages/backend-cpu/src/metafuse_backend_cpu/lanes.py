"""Loops for kernels that reduce across rows: vectors run along an outer axis, many outer points at once.

What it is: ``emit_lanes``. A unit is a tile of points along one outer axis (the lanes); whatever belongs to one outer point
(accumulators, values that later phases need) is an array with one element per lane in the L1 cache. The inner loops
run outside, the loop over the lanes inside.
What it is not: a choice of schedule (``access``), nor of accumulators (``reductions``).
Who calls it: ``codegen``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from itertools import product

from metafuse.backend.contract import Machine
from metafuse.dtypes import int64
from metafuse.kernel.cstyle import type_name
from metafuse.kernel.expr import Expr, axis, call, const, rewrite, walk
from metafuse.kernel.ir import IDENTITY, Kernel, Stage
from metafuse.kernel.scope import Scope, affine

from .access import Schedule, stages_of
from .ahead import is_steady, prepared
from .conditions import assuming, conjuncts
from .halves import whole_strips
from .loops import NOWHERE, SIMD, decode, extent, loop, statements
from .reductions import Accumulator, runs_inner
from .strides import ways_to_step
from .tiles import FEWEST, apart, most_lanes, tile_lines

__all__ = ["emit_lanes"]

#: inner points whose sum is one block
_BLOCK = 64
#: How many lanes ahead is prefetched, at least so many inner points, in loops of at least so many points. Between the rows
#: of a tile lies the rest of a matrix, and the hardware does not foresee the jump. Where narrow tiles are whole rows it does.
_AHEAD, _POINTS, _LONG, _NARROW = 2048, 4, 16, 128
#: no more lanes at once than addresses fit in a vector, where small elements are picked one by one: a loop of 64 picks for
#: bytes is no faster and takes the compiler many times as long
_PICKED = " simdlen(8)"


@dataclass
class _Lanes:
    """What the phases of one kernel share. ``kept``: values that later phases read; ``ready``: those computed so far;
    ``ahead``: what is computed once per lane before the inner loops of a phase, and the array it goes to."""

    kernel: Kernel
    axis: int
    kept: set[int]
    ahead: dict[int, dict[Expr, str]]
    ready: list[int] = field(default_factory=list)

    @property
    def inner(self) -> range:
        """The inner axes."""
        return range(self.kernel.outer, self.kernel.outer + self.kernel.inner)

    def place(self, letter: str, number: int) -> str:
        """The current lane's element of an array."""
        return f"{letter}{number}[i{self.axis} - lane0]"

    def open(self, scope: Scope, stack: ExitStack) -> Scope:
        """The body of a loop over the lanes."""
        body = stack.enter_context(scope.block(loop(f"i{self.axis}", "lane0", "lane1"), pragma=SIMD))
        self.bind(body)
        return body

    def bind(self, body: Scope) -> None:
        """What a loop's body knows of its lane."""
        body.bind("axis", self.axis, f"i{self.axis}")
        for number in self.ready:
            body.bind("value", number, self.place("v", number), lazy=True)


def emit_lanes(kernel: Kernel, root: Scope, machine: Machine, schedule: Schedule) -> tuple[list[str], int]:
    """The kernel's function body into ``root``. Answers the body of ``units`` and the grain."""
    lanes = _Lanes(kernel, schedule.axis, _used_later(kernel), prepared(kernel, schedule.axis))
    others = [number for number in range(kernel.outer) if number != lanes.axis]
    arrays = _arrays(lanes, root)
    most = most_lanes(machine, list(arrays.values()))
    distant = apart(kernel, lanes.axis)
    tile = tile_lines(lanes.axis, others, machine, most, distant)
    root.lines += tile
    own = _declare_steady(lanes, root, arrays, most)
    size = extent(root, lanes.axis)
    with root.block(loop("unit", "begin", "end"), holds_loads=True) as unit:
        if distant:
            unit.line("const long long at = apart ? unit % points : unit / count;")
            unit.line("const long long lane0 = (apart ? unit / points : unit % count) * tile;")
        else:
            unit.line("const long long at = unit / count, lane0 = unit % count * tile;")
        unit.line(f"const long long stop = lane0 + tile < {size} ? lane0 + tile : {size};")
        decode(unit, "at", others)
        head = "const auto run = [&](const long long lane1) __attribute__((always_inline))"
        with unit.block(head, holds_loads=True) as body:
            for name, kind in own.items():
                body.line(f"{kind} {name}[{most}] __attribute__((aligned(64)));")
            for _, inner_stages, outer_stages in stages_of(kernel):
                _phase(lanes, body, inner_stages, outer_stages)
        inner_stages = [stage for stage in kernel.stages if stage.level == "inner"]
        condition = _only_condition(inner_stages)
        if condition is not None and _depends(condition, lanes.axis):  # the code is there twice already
            unit.line("; run(stop);")
        else:  # a known number of lanes keeps what the inner loops carry in registers
            unit.line(f"; stop - lane0 == {FEWEST} ? run(lane0 + {FEWEST}) : run(stop);")
    return [*tile, "return count * points;"], 1


def _declare_steady(lanes: _Lanes, root: Scope, arrays: dict[str, str], most: int) -> dict[str, str]:
    """Define the arrays of what follows from the lane alone, and for each phase that has some the first lane that they hold.
    Answers the other arrays, which every unit has of its own."""
    own = dict(arrays)
    for phase, named in lanes.ahead.items():
        steady = [name for expr, name in named.items() if is_steady(expr, lanes.axis)]
        for name in steady:
            root.line(f"{own.pop(name)} {name}[{most}] __attribute__((aligned(64)));")
        if steady:
            root.line(f"long long held{phase} = -1;")
    return own


def _used_later(kernel: Kernel) -> set[int]:
    """Values that a phase after the one that defines them reads."""
    phase_of = {stage.result: stage.phase for stage in kernel.stages if stage.kind in ("reduce", "let")}
    used: set[int] = set()
    for stage in kernel.stages:
        for root in stage.roots:
            used |= {n.value for n in walk(root) if n.op == "value" and phase_of[n.value] < stage.phase}
    return used


def _arrays(lanes: _Lanes, root: Scope) -> dict[str, str]:
    """The arrays with an element per lane: name -> C type."""
    kinds: dict[str, str] = {}
    for stage in lanes.kernel.stages:
        if stage.kind == "reduce":
            accumulator = Accumulator.of(stage, root)
            kinds[f"a{stage.result}"] = accumulator.kind
            if accumulator.blocked:
                kinds[f"p{stage.result}"] = accumulator.partial
        if stage.result in lanes.kept:
            kinds[f"v{stage.result}"] = type_name(stage.expr.dtype, root.printer.dialect)
    for named in lanes.ahead.values():
        kinds |= {name: type_name(expr.dtype, root.printer.dialect) for expr, name in named.items()}
    return kinds


def _phase(lanes: _Lanes, unit: Scope, inner_stages: list[Stage], outer_stages: list[Stage]) -> None:
    found = {s.result: Accumulator.of(s, unit) for s in inner_stages if s.kind == "reduce"}
    if found:
        with ExitStack() as stack:
            body = lanes.open(unit, stack)
            for number, each in found.items():
                body.line(f"{lanes.place('a', number)} = {each.start};")
                if each.blocked:
                    body.line(f"{lanes.place('p', number)} = 0;")
    if inner_stages:
        _inner(lanes, unit, inner_stages, found)
    if found or outer_stages:
        with ExitStack() as stack:
            _finish(lanes, lanes.open(unit, stack), outer_stages, found)
    lanes.ready += [s.result for s in [*inner_stages, *outer_stages] if s.result in lanes.kept]


def _inner(lanes: _Lanes, unit: Scope, stages: list[Stage], found: dict[int, Accumulator]) -> None:
    """The inner loops with the loop over the lanes inside."""

    def fold(scope: Scope, stage: Stage, text: str) -> None:
        each = found[stage.result]
        scope.line(each.update(lanes.place("p" if each.blocked else "a", stage.result), text))

    with ExitStack() as stack:
        scope = guard = stack.enter_context(unit.guard(runs_inner(unit, lanes.kernel)))
        blocked = [number for number, each in found.items() if each.blocked]
        if blocked:
            guard.line("int filled = 0;")
        ahead = lanes.ahead[stages[0].phase]
        if ahead:
            _prepare(lanes, guard, ahead, stages[0].phase)
            guard.under_condition = True
        pragma = SIMD + (_PICKED if _picks(lanes, stages) else "")

        def body_of(
            todo: Sequence[Stage],
            body: Scope,
            places: Mapping[int, str] = NOWHERE,
            wide: Collection[int] = (),
        ) -> None:
            lanes.bind(body)
            for expr, name in ahead.items():
                body.give(expr, f"{name}[i{lanes.axis} - lane0]")
            statements(body, todo, fold, places, wide)

        def run(place: Scope, todo: Sequence[Stage], start: str = "lane0", stop: str = "lane1") -> None:
            for block, known in ways_to_step(place, todo, lanes.axis):
                fill = partial(body_of, known)
                first = whole_strips(block, known, lanes.axis, start, stop, NOWHERE, pragma, fill)
                with block.block(loop(f"i{lanes.axis}", first, stop), pragma=pragma) as body:
                    fill(body)

        condition = _only_condition(stages)
        everywhere = None if condition is None else _everywhere(lanes, guard, conjuncts(condition))
        for head, todo in _versions(guard, stages, condition, everywhere):
            with ExitStack() as loops:
                scope = loops.enter_context(guard.block(head, holds_loads=True)) if head else guard
                top = scope
                for number in lanes.inner:
                    scope = loops.enter_context(scope.block(loop(f"i{number}", "0", extent(scope, number))))
                    scope.bind("axis", number, f"i{number}")
                _prefetch(lanes, top, scope, todo)
                asked = _only_condition(todo)
                if asked is None:
                    run(scope, todo)
                else:
                    _where_it_holds(lanes, scope, todo, asked, run)
                if blocked:
                    _add_block(scope, blocked)


def _prepare(lanes: _Lanes, guard: Scope, ahead: dict[Expr, str], phase: int) -> None:
    """Compute what the inner loops read ``ahead`` of them; what follows from the lane alone once for all units of a tile."""
    steady = {expr: name for expr, name in ahead.items() if is_steady(expr, lanes.axis)}
    moving = {expr: name for expr, name in ahead.items() if expr not in steady}
    for several, head, rest in (
        (steady, f"if (held{phase} != lane0)", f"held{phase} = lane0;"),
        (moving, "", ""),
    ):
        if several:
            with ExitStack() as stack:
                place = stack.enter_context(guard.block(head, holds_loads=True))
                if rest:
                    place.line(rest)
                body = lanes.open(place, stack)
                for expr, name in several.items():
                    body.line(f"{name}[i{lanes.axis} - lane0] = {body.value(expr)};")


def _add_block(scope: Scope, blocked: Sequence[int]) -> None:
    """Every so many inner points their sum joins the total."""
    moves = " ".join(f"a{k}[k] += p{k}[k]; p{k}[k] = 0;" for k in blocked)
    scope.line(f"if (++filled == {_BLOCK}) {{ filled = 0;")
    scope.lines += [
        f"    {SIMD}",
        f"    for (long long k = 0; k < lane1 - lane0; ++k) {{ {moves} }}",
        "}",
    ]


def _versions(
    scope: Scope, stages: list[Stage], condition: Expr | None, everywhere: Expr | None
) -> list[tuple[str, list[Stage]]]:
    """The stages, or if it can be told whether their condition holds at all inner points of a tile, those for either case and
    the head of their block."""
    if condition is None or everywhere is None:
        return [("", stages)]
    name = scope.value(everywhere)
    held = _held(stages, condition)
    return [(f"if ({name})", held), (f"if (!{name})", stages)]


def _held(stages: Sequence[Stage], condition: Expr) -> list[Stage]:
    """The stages where the condition holds."""
    facts = dict.fromkeys(conjuncts(condition), True)
    return [replace(s, expr=assuming(s.expr, facts)) for s in stages]


def _everywhere(lanes: _Lanes, scope: Scope, tests: Sequence[Expr]) -> Expr | None:
    """Whether all ``tests`` hold at all inner points and lanes of a tile: each holds on one side of a line, so that the corners
    tell. ``None`` if that can't be told so, or if no test depends on the lane: then asking at every point costs little."""
    if not any(_depends(x, lanes.axis) for x in tests):
        return None
    first, last = (axis(lanes.kernel.outer + lanes.kernel.inner + k) for k in range(2))
    scope.bind("axis", first.value, "lane0")
    scope.bind("axis", last.value, "(lane1 - 1)")
    ends = {axis(lanes.axis): (first, last)}
    for number in lanes.inner:
        ends[axis(number)] = (const(0), call("sub", Expr("size", (), int64, number), const(1)))
    found: dict[Expr, None] = {}
    for test in tests:
        moving = [x for x in ends if _depends(test, x.value)]
        if not all(_is_half_line(test, x.value) for x in moving):
            return None
        for corner in product(*(ends[x] for x in moving)):
            memo = dict(zip(moving, corner, strict=True))
            found[rewrite(test, lambda x: None, memo)] = None
    return reduce(partial(call, "and"), found)


def _depends(x: Expr, number: int) -> bool:
    return any(node.op == "axis" and node.value == number for node in walk(x))


def _only_condition(stages: Sequence[Stage]) -> Expr | None:
    """The one condition under which all conditional loads are made."""
    found = {node.args[1] for node in _loads(stages) if len(node.args) == 3}
    if len(found) != 1:
        return None
    (condition,) = found
    return None if any(n.op in ("load", "value") for n in walk(condition)) else condition


def _where_it_holds(
    lanes: _Lanes, scope: Scope, stages: list[Stage], condition: Expr, run: Callable[..., None]
) -> None:
    """The loop over those lanes for which ``condition`` holds, which are neighbours, then over the others; if it can't be told
    which lanes those are, a choice for each lane."""
    tests = conjuncts(condition)
    moving = [x for x in tests if _depends(x, lanes.axis)]
    if not all(_is_half_line(x, lanes.axis) for x in moving):
        run(scope, stages)
        return
    held = _held(stages, condition)
    missed = [replace(s, expr=assuming(s.expr, {condition: False})) for s in stages]
    missed = [s for s in missed if not _is_neutral(s)]
    same = [x for x in tests if x not in moving]
    fixed = scope.value(reduce(partial(call, "and"), same)) if same else ""
    if not moving:  # a branch outside of the loop over the lanes
        for head, todo in ((f"if ({fixed})", held), (f"if (!{fixed})", missed)):
            if todo:
                with scope.block(head, holds_loads=True) as branch:
                    run(branch, todo)
        return
    scope.line(f"long long low = {f'{fixed} ? lane0 : lane1' if fixed else 'lane0'}, high = lane1;")
    for head, lane in (("low < high; ++low", "low"), ("high > low; --high", "high - 1")):
        with scope.block(f"for (; {head})", holds_loads=True) as end:
            end.line(f"const long long lane = {lane};")
            end.bind("axis", lanes.axis, "lane")
            end.line(f"if ({' && '.join(end.value(x) for x in moving)}) break;")
    with scope.block("", holds_loads=True) as inside:
        run(inside, held, "low", "high")
    if missed:
        with scope.block("for (int side = 0; side < 2; ++side)", holds_loads=True) as outside:
            outside.line("const long long from = side ? high : lane0, to = side ? lane1 : low;")
            run(outside, missed, "from", "to")


def _is_half_line(test: Expr, lane: int) -> bool:
    """Whether a comparison holds for all lanes up to one, or from one on."""
    if test.op not in ("lt", "le", "gt", "ge") or test.args[0].dtype.is_float:
        return False
    return all(affine(side).stride(lane) != "gather" for side in test.args)


def _is_neutral(stage: Stage) -> bool:
    """Whether a reduction folds its neutral element in, which changes nothing."""
    expr = stage.expr
    return stage.kind == "reduce" and expr.op == "const" and expr.value == IDENTITY(stage.op, expr.dtype)


def _finish(lanes: _Lanes, body: Scope, stages: list[Stage], found: dict[int, Accumulator]) -> None:
    """What happens once per lane when a phase's inner loops are done."""
    for number, each in found.items():
        place = lanes.place("a", number)
        place = f"({place} + {lanes.place('p', number)})" if each.blocked else place
        body.line(
            f"const {type_name(each.dtype, body.printer.dialect)} w{number} = {each.result(place, body)};"
        )
        body.bind("value", number, f"w{number}")
        if number in lanes.kept:
            body.line(f"{lanes.place('v', number)} = w{number};")

    def define(scope: Scope, stage: Stage, text: str) -> None:
        scope.bind("value", stage.result, text)
        if stage.result in lanes.kept:
            scope.line(f"{lanes.place('v', stage.result)} = {text};")

    statements(body, stages, define)


def _loads(stages: Sequence[Stage]) -> list[Expr]:
    return list(dict.fromkeys(node for s in stages for node in s.loads))


def _picks(lanes: _Lanes, stages: Sequence[Stage]) -> bool:
    """Whether a load of elements under 4 bytes is not contiguous along the lanes."""
    small = [node for node in _loads(stages) if lanes.kernel.buffers[node.value].dtype.itemsize < 4]
    return any(affine(node.args[0]).stride(lanes.axis) in ("strided", "gather") for node in small)


def _prefetch(lanes: _Lanes, guard: Scope, scope: Scope, stages: list[Stage]) -> None:
    """Ask for what the next inner points read, where loads are contiguous along the lanes."""
    last = lanes.kernel.outer + lanes.kernel.inner - 1
    found: dict[int, tuple[Expr, Expr]] = {}
    for node in _loads(stages):
        offset = affine(node.args[0])
        if len(node.args) == 1 and offset.stride(lanes.axis) == "unit" and offset.stride(last) == "strided":
            found.setdefault(node.value, (node.args[0], offset.coefficients[last]))
    if not found or not lanes.kernel.inner:
        return
    size, points = extent(guard, lanes.axis), extent(guard, last)
    guard.line("const long long wide = lane1 - lane0;")
    guard.line(f"const long long ahead = wide * {_POINTS} < {_AHEAD} ? {_AHEAD} / wide : {_POINTS};")
    guard.line(f"const bool jumps = {points} >= {_LONG} && (wide < {size} || wide >= {_NARROW});")
    guard.line("const long long far = jumps ? lane1 : lane0;")
    narrow = min(lanes.kernel.buffers[buffer].dtype.itemsize for buffer in found)
    with scope.block(f"for (long long line = lane0; line < far; line += {64 // narrow})") as body:
        body.bind("axis", lanes.axis, "line")
        for buffer, (offset_now, step) in found.items():
            body.line(
                f"__builtin_prefetch(b{buffer} + ({body.index(offset_now)} + ahead * {body.value(step)}));"
            )
