"""Lower: one fused group becomes one kernel and the numbers of its call.

What it is: orders the axes, has those merged that run contiguously together (``axes``), sorts stages into phases, and replaces
every extent, stride and index constant by a run-time size, so that only structure remains in the kernel.
What it is not: a schedule (threads, tiles and vectors are the backend's).
Who calls it: ``passes.pipeline``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from ..dtypes import DType, accumulator, int64
from ..kernel.expr import Expr, add, axis, call, cast, const, cost_of, load, mul, rewrite, select, walk
from ..kernel.ir import BufferParam, Contraction, DimIndex, Kernel, Operand, Stage
from .affine import as_affine, expression
from .atoms import Atom
from .axes import Draft, merge_axes, walk_outside_loads
from .contraction import Match, View
from .fuse import Group
from .program_graph import ProgramGraph

__all__ = ["LoweredCall", "lower"]


@dataclass(frozen=True)
class LoweredCall:
    """A kernel with the program's values that its buffers stand for, its sizes and its scalar table positions."""

    kernel: Kernel
    values: tuple[int, ...]
    sizes: tuple[int, ...]
    scalars: tuple[int, ...]
    elements: int
    writes: tuple[int, ...]
    #: (value, result): the value is stored and read back within the kernel, at the places of the result written last
    spilled: tuple[tuple[int, int], ...] = ()


#: a value at least this dear is stored and read back by later phases, not computed again
SPILL = 10


def lower(graph: ProgramGraph, group: Group, needed: frozenset[int]) -> LoweredCall:
    """The kernel of ``group``; ``needed`` are the values that must reach memory."""
    return _Lowering(graph, group, needed).run()


#: every kernel met so far by itself, so that equal kernels are one object and tables find them by identity
_known: dict[Kernel, Kernel] = {}


class _Lowering:
    def __init__(self, graph: ProgramGraph, group: Group, needed: frozenset[int]) -> None:
        self.graph = graph
        self.group = group
        self.needed = needed
        self.drafts: list[Draft] = []
        #: value of the group -> what stands for it where it is read
        self.inlined: dict[int, Expr] = {}
        self.spilled = self._choose_spilled()
        #: spilled value -> phase that computes it, its expression
        self.stored_in: dict[int, tuple[int, Expr]] = {}
        self.results = 0
        #: expression -> its phase, at outer and at inner level
        self.phases: tuple[dict[Expr, int], dict[Expr, int]] = ({}, {})
        self.resolved: dict[Expr, Expr] = {}
        #: result -> phase from which (outer, inner) stages read it
        self.ready: dict[int, tuple[int, int]] = {}
        self.sizes: list[int] = []
        #: value -> [reads, writes], in the order of the kernel's buffers
        self.buffers: dict[int, list[bool]] = {}
        #: position in the program's scalar table -> slot in the kernel's, type
        self.scalars: dict[int, tuple[int, DType]] = {}

    def run(self) -> LoweredCall:
        """The kernel: stages first, then the axes' order, then sizes in the place of numbers."""
        group = self.group
        for atom, outer_level in group.atoms:
            self._draft(atom, outer_level)
        self._drop_unused_lets()
        shared = tuple((v, p) for v, p in self.spilled.items() if v != p and self._may_share(v, p))
        extents = self._in_loop_order()
        outer, serial = len(group.outer_axes), len(group.serial)
        if group.kind != "contraction":
            extents, outer, serial = merge_axes(self.drafts, extents, outer, serial)
        self.sizes = list(extents)
        contraction = self._annotate() if group.kind == "contraction" else None
        memo: dict[Expr, Expr] = {}
        stages = tuple(self._final(draft, memo) for draft in sorted(self.drafts, key=lambda d: d.phase))
        kernel = Kernel(
            outer=outer,
            inner=len(extents) - outer,
            buffers=tuple(
                BufferParam(self.graph.specs[n].dtype, writes, reads)
                for n, (reads, writes) in self.buffers.items()
            ),
            sizes=len(self.sizes),
            scalars=tuple(d for _, d in self.scalars.values()),
            stages=stages,
            contraction=contraction,
            serial=serial,
            name=self._name(),
        )
        return LoweredCall(
            _known.setdefault(kernel, kernel),
            tuple(self.buffers),
            tuple(self.sizes),
            tuple(self.scalars),
            prod(extents),
            tuple(n for n, (_, writes) in self.buffers.items() if writes),
            shared,
        )

    def _in_loop_order(self) -> list[int]:
        """Number the axes of all drafts in the order of the loops; answers the extents."""
        order = (*self._outer_order(), *self._inner_order())
        rename = {axis(k): axis(new) for new, k in enumerate(order)}
        renamed: dict[Expr, Expr] = {}

        def change(root: Expr) -> Expr:
            return rewrite(root, rename.get, renamed)

        for draft in self.drafts:
            draft.expr = change(draft.expr)
            draft.place = None if draft.place is None else change(draft.place)
            draft.condition = None if draft.condition is None else change(draft.condition)
        return [self.group.extents[k] for k in order]

    def _outer_order(self) -> list[int]:
        """Outer axes in loop order: as they are, or in the order of memory where values are stored otherwise."""
        outer = list(self.group.outer_axes)
        if not self.graph.orders:
            return outer
        touched = self.group.places.keys() | self.group.reads
        if self.group.kind == "contraction" or not touched & self.graph.orders.keys():
            return outer
        return sorted(outer, key=self._memory_steps(), reverse=True)

    def _memory_steps(self) -> Callable[[int], int]:
        """How far apart neighbours along an axis are, as most accesses to values in another order see it."""
        votes: dict[int, list[int]] = {}
        for atom, _ in self.group.atoms:
            accesses = [(x.value, x.args[0]) for x in atom.loads()]
            accesses += [(atom.number, atom.place)] if atom.place is not None else []
            for value, place in accesses:
                affine = as_affine(place) if value in self.graph.orders else None
                for k, step in affine.coefficients if affine is not None else ():
                    votes.setdefault(k, []).append(abs(step))
        return lambda k: max(votes.get(k, [0]))

    def _inner_order(self) -> list[int]:
        """Inner axes in loop order. Where elements may meet in any order, the longest axis goes innermost: windows are short,
        and along the axis that they move on no two elements meet."""
        inner = sorted(self.group.inner or ())
        atom = self.group.atoms[0][0]
        if self.group.kind == "reduce" and self.group.reads & self.graph.orders.keys():
            return sorted(inner, key=self._memory_steps(), reverse=True)
        if atom.kind != "scatter" or atom.op == "void" or atom.place is None or len(inner) < 2:
            return inner
        affine = as_affine(atom.place)
        if affine is None:
            return inner
        steps = dict(affine.coefficients)
        last = max(inner, key=lambda k: (self.group.extents[k] if steps.get(k) else 0, -abs(steps.get(k, 0))))
        return [*(k for k in inner if k != last), last]

    def _may_share(self, value: int, partner: int) -> bool:
        """Whether every other reader of a spilled value is done before its partner is written over it."""
        writer = next(d for d in self.drafts if d.kind == "store" and d.value == partner)
        for draft in self.drafts:
            reads = any(x.op == "load" and x.value == value for x in walk(draft.expr))
            if reads and draft is not writer and draft.phase >= writer.phase:
                return False
        return True

    def _choose_spilled(self) -> dict[int, int]:
        """Dear values over the whole space that may be worth storing, each with the result in whose place it can live."""
        if not self.group.inner:
            return {}
        chosen: dict[int, int] = {}
        full = [a for a, outer_level in self.group.atoms if a.kind == "map" and not outer_level]
        for k, atom in enumerate(full):
            if atom.expr is None or _inner_weight(atom.expr, self.group.inner) < SPILL:
                continue
            if atom.number in self.needed:
                chosen[atom.number] = atom.number
                continue
            for later in full[k + 1 :]:
                same = (
                    self.graph.specs[later.number].dtype.itemsize
                    == self.graph.specs[atom.number].dtype.itemsize
                )
                if (
                    later.number in self.needed
                    and later.place == atom.place
                    and same
                    and later.number not in chosen.values()
                ):
                    chosen[atom.number] = later.number
                    break
        return chosen

    # -- stages --------------------------------------------------------------------------------------------------
    def _draft(self, atom: Atom, outer_level: bool) -> None:
        """Append the stages of an atom."""
        if atom.kind == "scatter":
            assert atom.expr is not None
            self.drafts.append(
                Draft("scatter", "inner", atom.expr, 0, atom.op, -1, atom.number, atom.place, atom.condition)
            )
            return
        if atom.kind == "store":
            assert atom.expr is not None
            self.drafts.append(Draft("store", "outer", atom.expr, 0, value=atom.number, place=atom.place))
            return
        if atom.kind == "column":
            self._draft_column(atom)
            return
        if atom.kind == "contraction":
            assert atom.match is not None
            expr = _product(self.graph, atom.match)
        else:
            assert atom.expr is not None
            expr = self._resolve(atom.expr)
        if atom.kind in ("reduce", "contraction"):
            self._draft_result(atom, expr, "reduce", "inner", atom.op)
        elif outer_level:
            self._draft_result(atom, expr, "let", "outer")
        else:
            self._draft_value(atom, expr)

    def _draft_result(self, atom: Atom, expr: Expr, kind: str, level: str, op: str = "") -> None:
        """A fold, or a value per outer point: a result that later stages read by its number."""
        phase = self._phase(expr, inner=level == "inner")
        value = self._define(expr.dtype, phase, phase + 1)
        self.drafts.append(Draft(kind, level, expr, phase, op, value.value))
        self.inlined[atom.number] = value
        if atom.number in self.needed:
            self.drafts.append(Draft("store", "outer", value, phase, value=atom.number, place=atom.place))

    def _draft_value(self, atom: Atom, expr: Expr) -> None:
        """A value per point of the whole space: computed again by whoever reads it, unless it is stored and read back."""
        inner = bool(self.group.inner)
        phase = self._phase(expr, inner=inner)
        if atom.number in self.spilled:
            self.stored_in[atom.number] = (phase, expr)
        else:
            self.inlined[atom.number] = expr
        if atom.number in self.needed or atom.number in self.spilled:
            level = "inner" if inner else "outer"
            self.drafts.append(Draft("store", level, expr, phase, value=atom.number, place=atom.place))

    def _draft_column(self, atom: Atom) -> None:
        """Add up along the serial axes: the first point stores its value, each other one what is there and its own."""
        assert atom.expr is not None and atom.place is not None
        expr = self._resolve(atom.expr)
        later: Expr | None = None
        for k in self.group.serial:
            moved = call("ne", axis(k), const(0))
            later = moved if later is None else call("or", later, moved)
        assert later is not None
        # Read in any case: what is there does no harm, and compilers keep sums in memory beside a read under a condition.
        before = select(later, load(atom.number, expr.dtype, atom.place), const(0, expr.dtype))
        phase = self._phase(expr, inner=True)
        total = call("add", before, expr)
        self.drafts.append(Draft("store", "inner", total, phase, value=atom.number, place=atom.place))

    def _resolve(self, expr: Expr) -> Expr:
        """Loads of the group's own values become those values; a spilled one is read back in later phases only."""
        result = rewrite(expr, lambda x: self.inlined.get(x.value) if x.op == "load" else None, self.resolved)
        if not self.stored_in:
            return result
        loads = [x for x in walk(result) if x.op == "load" and x.value in self.stored_in]
        if not loads:
            return result
        phase = max(self._phase(result, inner=True), *(self.stored_in[x.value][0] for x in loads))
        now = {x: e for x in loads for p, e in (self.stored_in[x.value],) if p == phase}
        return rewrite(result, now.get) if now else result

    def _define(self, dtype: DType, outer_phase: int, inner_phase: int) -> Expr:
        number = self.results
        self.results += 1
        self.ready[number] = (outer_phase, inner_phase)
        return Expr("value", (), dtype, number)

    def _phase(self, expr: Expr, inner: bool) -> int:
        known = self.phases[inner]
        for x in walk(expr, known):
            if x.op == "value":
                known[x] = self.ready[x.value][inner]
            else:
                known[x] = max([known[a] for a in x.args], default=0)
        return known[expr]

    def _drop_unused_lets(self) -> None:
        """Lets that nobody reads (their only use was a store of something not needed) go."""
        changed = True
        while changed:
            seen: dict[Expr, None] = {}
            for d in self.drafts:
                seen.update(dict.fromkeys(walk(d.expr, seen)))
            used = {x.value for x in seen if x.op == "value"}
            kept = [d for d in self.drafts if d.kind not in ("let", "reduce") or d.result in used]
            changed = len(kept) != len(self.drafts)
            self.drafts = kept

    # -- from numbers to run-time sizes ----------------------------------------------------------------------------
    def _size(self, value: int) -> Expr:
        self.sizes.append(value)
        return Expr("size", (), int64, len(self.sizes) - 1)

    def _buffer(self, value: int, reads: bool, writes: bool) -> int:
        flags = self.buffers.setdefault(value, [False, False])
        flags[0] |= reads
        flags[1] |= writes
        return list(self.buffers).index(value)

    def _final(self, draft: Draft, memo: dict[Expr, Expr]) -> Stage:
        expr = self._symbolic(draft.expr, memo)
        condition = self._symbolic(draft.condition, memo) if draft.condition is not None else None
        guarded = condition is not None
        place = None if draft.place is None else self._symbolic_index(draft.place, memo, guarded)
        slot = self._buffer(draft.value, draft.kind == "scatter", True) if draft.value >= 0 else -1
        return Stage(
            draft.kind, draft.level, expr, draft.phase, draft.op, draft.result, slot, place, condition
        )

    def _symbolic(self, root: Expr, memo: dict[Expr, Expr]) -> Expr:
        """Index constants become sizes, values become buffer slots, scalars get their slots. Every expression has sizes of its
        own for its constants: that two numbers are equal (a stride and a padding, say) is chance, not structure."""

        def operand(x: Expr) -> Expr:
            return self._size(int(x.value)) if _becomes_size(x) else memo[x]

        for x in walk_outside_loads(root, memo):
            if x in memo:  # met under a load since
                continue
            if x.op == "load":
                index = self._symbolic_index(x.args[0], memo, guarded=len(x.args) > 1)
                rest = tuple(self._symbolic(a, memo) for a in x.args[1:])
                memo[x] = Expr("load", (index, *rest), x.dtype, self._buffer(x.value, True, False))
            elif x.op == "scalar":
                slot = self.scalars.setdefault(x.value, (len(self.scalars), x.dtype))[0]
                memo[x] = Expr("scalar", (), x.dtype, slot)
            elif not _becomes_size(x):
                args = tuple([operand(a) for a in x.args])
                memo[x] = x if args == x.args else Expr(x.op, args, x.dtype, x.value)
        return operand(root)

    def _symbolic_index(self, place: Expr, memo: dict[Expr, Expr], guarded: bool = False) -> Expr:
        """``guarded``: the constant is a size also where it is 0: another padding is no other kernel."""
        known = Expr("guarded", (place,), place.dtype) if guarded else place
        found = memo.get(known)
        if found is not None and place.op != "axis":
            return found
        affine = as_affine(place)
        if affine is None:
            result = self._symbolic(place, memo)
        else:
            result = const(0)
            for k, coefficient in affine.coefficients:
                factor = const(coefficient) if abs(coefficient) == 1 else self._size(coefficient)
                result = add(result, mul(axis(k), factor))
            if affine.constant or guarded:
                result = add(result, self._size(affine.constant))
        memo[known] = result
        return result

    # -- contraction ---------------------------------------------------------------------------------------------
    def _annotate(self) -> Contraction | None:
        atom = self.group.atoms[0][0]
        match = atom.match
        assert match is not None
        roles = match.roles()
        if roles is None:  # too thin to tile; the library refused it
            return None
        a = self._operand(match.a)
        b = self._operand(match.b)
        return Contraction(*roles, a, b)

    def _operand(self, view: View) -> Operand:
        slot = self._buffer(self.graph.base(view.source), True, False)
        dims = []
        for place, stride in zip(view.places, self.graph.strides(view.source), strict=True):
            if not place.affine.coefficients and not place.affine.constant:
                continue
            constant = (
                self._size(place.affine.constant).value if place.affine.constant or place.guarded else None
            )
            dims.append(
                DimIndex(
                    tuple((k, self._size(c).value) for k, c in place.affine.coefficients),
                    constant,
                    self._size(place.divisor).value if place.divisor is not None else None,
                    place.guarded,
                    self._size(place.extent).value,
                    self._size(stride).value,
                )
            )
        return Operand(slot, tuple(dims))

    def _name(self) -> str:
        names: list[str] = []
        for atom, _ in self.group.atoms:
            if atom.kind == "contraction":
                names.append("contract")
            elif atom.number < self.graph.count:
                names.append(self.graph.nodes[atom.number].sig.name)
            else:
                names.append("partial")
        short = "_".join(dict.fromkeys(names))
        return short[:48]


def _becomes_size(x: Expr) -> bool:
    """Whether a literal is one of an address; 0 and 1 are structure."""
    return x.op == "const" and x.dtype is int64 and x.value not in (0, 1)


def _inner_weight(expr: Expr, inner: frozenset[int]) -> int:
    """Cost of what differs between inner points; the rest is computed once per outer point anyway."""
    varies: dict[Expr, bool] = {}
    total = 0
    for x in walk(expr):
        varies[x] = x.value in inner if x.op == "axis" else any(varies[a] for a in x.args)
        if varies[x] and x.op != "load":
            total += cost_of(x)
    return total


def _product(graph: ProgramGraph, match: Match) -> Expr:
    """The plain reading of a contraction: product of two (conditional) loads, 16-bit floats as float32."""
    factors = (_element(graph, view) for view in (match.a, match.b))
    return call("mul", *(cast(x, accumulator(x.dtype)) for x in factors))


def _element(graph: ProgramGraph, view: View) -> Expr:
    spec = graph.specs[view.source]
    total: Expr = const(0)
    condition: Expr | None = None
    for place, stride in zip(view.places, graph.strides(view.source), strict=True):
        position = expression(place.affine)
        if place.divisor is not None:
            whole = call("eq", call("cmod", position, const(place.divisor)), const(0))
            condition = whole if condition is None else call("and", condition, whole)
            position = call("cdiv", position, const(place.divisor))
        if place.guarded:
            inside = call("and", call("ge", position, const(0)), call("lt", position, const(place.extent)))
            condition = inside if condition is None else call("and", condition, inside)
        total = add(total, mul(position, const(stride)))
    affine = as_affine(total)
    offset = total if affine is None else expression(affine)
    arguments = (offset,) if condition is None else (offset, condition, const(0, spec.dtype))
    return load(graph.base(view.source), spec.dtype, *arguments)
