"""Library: which contractions the backend's library computes, and what it applies to their results.

What it is: asks the backend for every recognised contraction, decides which values are stored so that tails (bias, a folded
batch norm, an activation, a residual) can be applied by the library, and translates those tails to ``PostOp`` s.
What it is not: an algorithm. What the backend refuses at the end is lowered to generated loops like everything else.
Who calls it: ``passes.pipeline`` (selection, description), ``fuse`` (what may join a contraction), ``layout``.

Vectors of one number per channel that a tail needs (``weight / sqrt(var + eps)``, say) become values of their own. Where they,
and the second operand, depend on nothing but arrays that nobody else reads, they are *constant*: computed and
packed once, and again when one of those arrays changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..backend.contract import AbstractBackend
from ..backend.library import LibraryOp, LibraryPlan, Operand, PostOp, SupportsLibraryOps
from ..config import flags
from ..dtypes import DType, bfloat16, float32, uint8
from ..graph.node import spec_of
from ..kernel.expr import Expr, axis, const, load, rewrite
from .affine import offset
from .classify import Classified, classify
from .contraction import Match, find_thin_contractions
from .program_graph import ProgramGraph
from .tail import Step, Vector, translate, unrounded

if TYPE_CHECKING:
    from .fuse import Group

__all__ = ["Library", "LoweredLibrary", "Tail", "find_constants"]


@dataclass(frozen=True)
class LoweredLibrary:
    """A library operation with the program's values that its buffers stand for; ``scratch`` is a value, or -1."""

    op: LibraryOp
    plan: LibraryPlan
    values: tuple[int, ...]
    writes: tuple[int, ...]
    scratch: int
    name: str


@dataclass(frozen=True)
class Tail:
    """What the library does after a contraction: ``value`` is stored at ``place``, over axes of ``extents``, of which
    ``channel`` counts output channels. ``dtype``: in which it is computed. ``scalable``: a first factor may go into the weight.

    ``operands``: the value behind each operand of ``op``. ``scale``: the value of ``op.scale``. ``vectors``: values that must
    be computed before, each with its expression over axis 0."""

    value: int
    place: Expr
    extents: tuple[int, ...]
    channel: int | None
    op: LibraryOp
    dtype: DType
    scalable: bool
    operands: tuple[int, ...] = ()
    scale: int = -1
    vectors: tuple[tuple[int, Expr], ...] = ()


class Library:
    """The library's part of one program; ``found`` has what it takes by the number of the contraction."""

    def __init__(self, graph: ProgramGraph, matches: dict[int, Match], backend: AbstractBackend) -> None:
        self.graph = graph
        self.matches = matches
        self.ability = backend if isinstance(backend, SupportsLibraryOps) else None
        self.found: dict[int, Classified] = {}
        self.ends: dict[int, int] = {}  # contraction -> last value of its tail, if it has one
        self.spatial: frozenset[int] = frozenset()  # how many spatial dimensions images have
        if self.ability is None or not flags.library:
            return
        for number in matches:
            self._offer(number)
        for number, match in find_thin_contractions(graph, matches).items():
            matches[number] = match
            if self._offer(number):
                graph.stored.update(k for k in self._sources(number) if not graph.is_leaf(k))
            else:
                del matches[number]
        ranks = {min(len(graph.specs[k].shape) for k in pair) for pair in self.image_pairs()}
        self.spatial = frozenset(rank - 2 for rank in ranks if rank > 2)  # the rest lack batch or channels
        self._store_ends()

    def _offer(self, number: int) -> bool:
        known = self._classified(number)
        if known is None or self.ability is None or not self.ability.takes(known.op):
            return False
        self.found[number] = known
        return True

    def _classified(self, number: int) -> Classified | None:
        """The operation with the types in which its operands are stored; 16-bit ones have float32 results."""
        graph, match = self.graph, self.matches[number]
        one_type = graph.specs[number].dtype
        known = classify(
            match,
            lambda k: spec_of(graph.specs[k].shape, one_type),
            graph.strides,
            graph.squeezed_strides(number),
        )
        if known is None:
            return None
        views = (match.b, match.a) if known.swapped else (match.a, match.b)
        first, second = (graph.specs[graph.base(v.source)].dtype for v in views)
        op = replace(known.op, math=flags.math, first=replace(known.op.first, dtype=first))
        return replace(known, op=replace(op, second=replace(op.second, dtype=second)))

    def image_pairs(self) -> Iterable[tuple[int, int]]:
        """The two values of each convolution that are images."""
        for number, known in self.found.items():
            if known.op.kind != "matmul":
                first, second = self._sources(number)
                yield first, second if known.op.kind == "convolution_weight" else number

    def _sources(self, number: int) -> tuple[int, int]:
        """The stored values behind the first and second operand."""
        match = self.matches[number]
        a, b = self.graph.base(match.a.source), self.graph.base(match.b.source)
        return (b, a) if self.found[number].swapped else (a, b)

    def settle(self) -> None:
        """Describe again what was found, now that layouts are known."""
        for number in list(self.found):
            known = self._classified(number)
            if known is None:
                del self.found[number]
            else:
                self.found[number] = known

    def narrow(self, retained: frozenset[int]) -> None:
        """With ``math`` of 16 bits: store in that type what nothing but library operations multiplies, as they would round it,
        and images that library operations make and nothing else reads: multiplied, or added to a result."""
        graph = self.graph
        if flags.math != "bfloat16" or not self.found:
            return
        ends = frozenset(self.ends.values())
        for value in sorted(graph.stored):
            fixed = value in graph.roots or value in retained or value >= graph.count
            if fixed or graph.specs[value].dtype is not float32 or not self._stays_inside(value, ends):
                continue
            if graph.kind(value) in ("map", "reindex", "alias"):
                graph.specs[value] = spec_of(graph.specs[value].shape, bfloat16)
        for number in self.found:
            self.found[number] = self._classified(number) or self.found[number]

    def _stays_inside(self, value: int, ends: frozenset[int]) -> bool:
        """Whether every reader of a stored value is an operation of the library that multiplies it, or, if one made it, that has
        it among the operands of its tail. A maximum in between is one of the rounded numbers. ``ends``: the last values of
        tails."""
        graph = self.graph
        stack, seen = [(value, True)], {value}
        readers: set[int] = set()
        added = picked = False
        while stack:
            number, in_place = stack.pop()  # in_place: nothing but maps of the same shape lie between
            for user in graph.users[number]:
                kind, shape = graph.kind(user), graph.specs[user].shape
                in_tail = in_place and kind == "map" and shape == graph.specs[value].shape
                if user in self.found:
                    readers.add(user)
                elif in_tail and user in ends:
                    added = True
                elif self._picks(user) and user not in graph.roots and self._stays_inside(user, ends):
                    picked = True
                elif (
                    graph.has_storage(user) or user in graph.roots or kind not in ("map", "reindex", "alias")
                ):
                    return False
                elif user not in seen:
                    seen.add(user)
                    stack.append((user, in_tail))
        if not all(value in self._sources(r) and value != r for r in readers):
            return False
        return value in ends if added else bool(readers) or picked

    def _picks(self, number: int) -> bool:
        """Whether a value is the largest or smallest of others."""
        graph = self.graph
        return graph.kind(number) == "reduce" and graph.nodes[number].sig.attrs[0] in ("maximum", "minimum")

    # -- tails -----------------------------------------------------------------------------------------------------
    def _store_ends(self) -> None:
        """Store the last value of every chain of maps over a contraction's result, so that the chain becomes its tail."""
        graph = self.graph
        owner: dict[int, int] = {}  # value of a chain -> its contraction
        for number in range(graph.count):
            if number in graph.dead:
                continue
            if number in self.found:
                owner[number] = number
                continue
            kind = graph.kind(number)
            if kind == "alias" and graph.inputs[number][0] in self.found and self._joins_groups(number):
                owner[number] = graph.inputs[number][0]
                continue
            if kind != "map" or graph.nodes[number].sig.reads_axis:
                continue
            chains = [
                i
                for i in graph.inputs[number]
                if i in owner
                and len(graph.users[i]) == 1
                and i not in graph.roots
                and (i not in graph.stored or i in self.found)
                and graph.specs[i].shape == graph.specs[number].shape
            ]
            if chains:
                last = max(chains, key=lambda i: owner[i])
                owner[number] = owner[last]
                for other in chains:
                    if other != last:
                        graph.stored.add(other)
        for value, contraction in owner.items():
            last = not any(owner.get(u) == contraction for u in graph.users[value])
            if value != contraction and last and graph.kind(value) != "alias":
                graph.stored.add(value)
                self.ends[contraction] = value

    def _joins_groups(self, alias: int) -> bool:
        """Whether a reshape of a grouped convolution's result only puts its channels together."""
        graph = self.graph
        source = graph.inputs[alias][0]
        shape = graph.specs[source].shape
        joined = (*shape[:1], *(n for n in (shape[1] * shape[2], *shape[3:]))) if len(shape) > 3 else ()
        return (
            graph.specs[alias].shape == joined and graph.users[source] == [alias] and alias not in graph.roots
        )

    def begin(self, number: int) -> Tail | None:
        """The empty tail of a contraction that the library takes, else ``None``.

        Channels in groups are one axis for the tail: people apply theirs to the image with all its channels."""
        known = self.found.get(number)
        if known is None:
            return None
        match = self.matches[number]
        extents = list(match.extents[: match.outer])
        strides = list(self.graph.squeezed_strides(number))
        channel = known.channel_axis
        channels = known.channel_axes if known.op.kind == "convolution" else ()
        if len(channels) == 2 and channels[1] == channels[0] + 1:
            group, within = channels
            if strides[group] == strides[within] * extents[within]:
                extents[group : within + 1] = [extents[group] * extents[within]]
                del strides[group]
                channel = group
        place = offset(tuple(axis(k) for k in range(len(extents))), strides)
        # what is multiplied into a weight must not cost a pass over an operand that is new each time
        packed_once = known.op.kind in ("convolution", "matmul") and self.graph.is_leaf(
            self._sources(number)[1]
        )
        scalable = packed_once and channel is not None
        return Tail(number, place, tuple(extents), channel, known.op, known.op.result.dtype, scalable)

    def extended(self, tail: Tail, value: int, expr: Expr, place: Expr) -> Tail | None:
        """The tail with another stored value at its end, or ``None`` if the library can't."""
        dtype = tail.dtype
        if tail.op.result.dtype is not dtype or place != tail.place:
            return None
        narrowed = expr.dtype
        if narrowed.is_half and dtype is float32:
            expr = unrounded(expr)
        if expr.dtype is not dtype:
            return None
        accumulator = load(tail.value, dtype, tail.place)
        steps = translate(expr, accumulator, tail.channel, tail.place)
        if steps is None:
            return None
        longer = self._applied(replace(tail, value=value), steps)
        if longer is None or narrowed is dtype:
            return longer
        return replace(longer, op=replace(longer.op, result=replace(longer.op.result, dtype=narrowed)))

    def _applied(self, tail: Tail, steps: list[Step]) -> Tail | None:
        assert self.ability is not None
        rank = len(tail.op.result.shape)
        channel = rank - 1 if tail.op.kind == "matmul" else 1
        count = tail.op.result.shape[channel]
        dtype = tail.dtype
        for step in steps:
            source = step.operand
            if isinstance(source, Vector):
                value, made = self._vector(source, tail.channel, count, dtype)
                if made is not None:
                    tail = replace(tail, vectors=(*tail.vectors, (value, made)))
                if step.kind == "mul" and not tail.op.post and tail.scale < 0 and tail.scalable:
                    tail = replace(tail, scale=value, op=replace(tail.op, scale=True))
                    continue
                shape = tuple(count if d == channel else 1 for d in range(rank))
                operand: Operand | None = Operand(dtype, shape, (1,) * rank)
            elif source is not None:
                value, operand = source, replace(tail.op.result, dtype=self.graph.specs[source].dtype)
            else:
                value, operand = -1, None
            post = PostOp(step.kind, len(tail.operands) if operand is not None else -1, step.alpha, step.beta)
            if not self.ability.takes_post(tail.op, post, operand):
                return None
            op = replace(tail.op, post=(*tail.op.post, post))
            if operand is not None:
                op = replace(op, operands=(*op.operands, operand))
                tail = replace(tail, operands=(*tail.operands, value))
            tail = replace(tail, op=op)
        return tail

    def _vector(
        self, source: Vector, channel_axis: int | None, count: int, dtype: DType
    ) -> tuple[int, Expr | None]:
        """The value that holds a vector, and its expression over axis 0 if it has to be computed."""
        expr = source.expr
        if channel_axis is not None:
            here, there = axis(channel_axis), axis(0) if count > 1 else const(0)
            expr = rewrite(expr, lambda x: there if x == here else None)
        whole = expr.op == "load" and self.graph.specs[expr.value].size == count and expr.dtype is dtype
        if whole and expr.args == (axis(0),):
            return expr.value, None
        if whole and count == 1 and expr.args == (const(0),):
            return expr.value, None
        return self.graph.add_virtual(spec_of((count,), dtype)), expr

    # -- description ------------------------------------------------------------------------------------------------
    def lowered(self, number: int, tail: Tail) -> LoweredLibrary | None:
        """The finished operation, or ``None`` if the backend refuses it after all."""
        assert self.ability is not None
        first, second = self._sources(number)
        constants = self.graph.constants
        constant = second in constants and (tail.scale < 0 or tail.scale in constants)
        op = replace(tail.op, constant=constant)
        plan = self.ability.library_plan(op)
        if plan is None:
            return None
        scratch = -1
        if plan.scratch_bytes:
            scratch = self.graph.add_virtual(spec_of((plan.scratch_bytes,), uint8))
        scale = (tail.scale,) if op.scale else ()
        values = (first, second, tail.value, *scale, *tail.operands)
        writes = (tail.value,) if scratch < 0 else (tail.value, scratch)
        return LoweredLibrary(op, plan, values, writes, scratch, self._name(tail.op))

    def _name(self, op: LibraryOp) -> str:
        return "_".join([op.kind, *(["scale"] if op.scale else []), *(p.kind for p in op.post)])[:48]


def find_constants(graph: ProgramGraph, groups: Sequence[Group], handed_out: frozenset[int]) -> None:
    """Fill ``graph.constants``: arrays that nothing but library operations and what serves their tails reads, and
    what is computed from those for the tails. ``groups`` in order; ``handed_out``: values that leave the program."""
    readers: dict[int, list[Group]] = {}
    for group in groups:
        for value in group.reads:
            readers.setdefault(value, []).append(group)
    serving: set[int] = set()
    for group in reversed(groups):
        if group.vector or _serves_tails(group, readers, serving, handed_out):
            serving.add(group.index)
    plain = {v for g in groups if g.tail is None and g.index not in serving for v in g.reads}
    graph.constants |= {graph.count + k for k in range(graph.leaves)} - plain
    for group in groups:
        if group.index in serving and group.reads <= graph.constants:
            graph.constants |= group.places.keys()


def _serves_tails(
    group: Group, readers: dict[int, list[Group]], serving: set[int], handed_out: frozenset[int]
) -> bool:
    """Whether a group computes vectors that nothing but tails reads."""
    if group.kind != "map" or group.inner is not None or len(group.extents) > 1 or group.tail is not None:
        return False
    if not group.places or handed_out & group.places.keys():
        return False
    return all(
        r.index in serving or (r.tail is not None and v in (r.tail.scale, *r.tail.operands))
        for v in group.places
        for r in readers.get(v, ())
    )
