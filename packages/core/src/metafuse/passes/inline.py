"""Inlining: the expression of one stored value in terms of loads of other stored values.

What it is: walks maps, reindexes and reshapes down to values with storage, composing index maps on the way.
What it is not: the decision what gets storage (``materialise``) or what shares a loop (``fuse``).
Who calls it: ``atoms`` (one call per stored value); ``contraction`` and others take its helpers on shapes.

Loads are made over flat offsets; ``load.value`` is the number of the value in the ``ProgramGraph``. Everything under a
reindex that may miss is loaded only where it hits.
"""

from __future__ import annotations

from ..graph.index_map import IndexMap
from ..graph.node import Node
from ..index import bounds
from ..kernel.expr import Expr, axis, call, cast, const, load, rewrite, select, walk
from .affine import offset, reindexed, row_major
from .program_graph import ProgramGraph

__all__ = ["Inliner", "identity_index", "squeezed"]

#: comparison -> the one that holds where it does not
_TURNED = {"lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}

#: an index into a value: one expression per dimension, or one flat offset
Index = tuple[Expr, ...]
State = tuple[int, Index, bool, Expr | None]


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Extents without those that are 1: the iteration space of a value."""
    return tuple(n for n in shape if n != 1)


def identity_index(shape: tuple[int, ...]) -> Index:
    """The index of the current point: axes are numbered over the squeezed shape."""
    result: list[Expr] = []
    k = 0
    for n in shape:
        result.append(const(0) if n == 1 else axis(k))
        k += n != 1
    return tuple(result)


def unsqueezed(index: Index, shape: tuple[int, ...], other: tuple[int, ...]) -> Index:
    """An index into ``shape`` as one into ``other``, which differs in dimensions of extent 1 only."""
    if shape == other:
        return index
    rest = iter([position for position, n in zip(index, shape, strict=True) if n != 1])
    return tuple(const(0) if n == 1 else next(rest) for n in other)


def both(a: Expr | None, b: Expr | None) -> Expr | None:
    """Conjunction of optional conditions."""
    if a is None or b is None:
        return a if b is None else b
    return a if a == b else call("and", a, b)


class Inliner:
    """Builds expressions over one graph; keeps nothing between calls of ``value``."""

    def __init__(self, graph: ProgramGraph) -> None:
        self.graph = graph

    def value(self, number: int, index: Index, at_root: bool = True) -> Expr:
        """The element of value ``number`` at ``index``; ``at_root``: compute it even if it has storage itself."""
        done: dict[State, Expr] = {}
        start: State = (number, index, False, None)
        stack = [start]
        while stack:
            state = stack[-1]
            if state in done:
                stack.pop()
                continue
            result = self._step(state, done, stack, at_root and state == start)
            if result is not None:
                done[state] = result
                stack.pop()
        return done[start]

    def _step(self, state: State, done: dict[State, Expr], stack: list[State], root: bool) -> Expr | None:
        """The state's expression, or ``None`` after pushing what it needs first."""
        number, index, flat, guard = state
        graph = self.graph
        spec = graph.specs[number]
        if graph.has_storage(number) and not root:
            place = index[0] if flat else offset(index, graph.strides(number))
            return self._loaded(number, place, guard, number)
        node = graph.nodes[number]
        kind = node.sig.kind
        if kind == "map":
            return self._map(node, state, done, stack)
        if kind == "alias" and not flat and (base := graph.base(graph.inputs[number][0])) in graph.orders:
            return self._loaded(base, offset(index, graph.strides_as(base, spec.shape)), guard, number)
        if (
            kind == "alias"
            and not flat
            and squeezed(spec.shape) == squeezed(graph.specs[graph.inputs[number][0]].shape)
        ):
            below = unsqueezed(index, spec.shape, graph.specs[graph.inputs[number][0]].shape)
            return self._need((graph.inputs[number][0], below, False, guard), done, stack)
        if kind == "alias" and not flat and number in graph.by_dims:
            source = graph.inputs[number][0]
            below = reindexed(index, spec.shape, graph.specs[source].shape)
            return self._need((source, below, False, guard), done, stack)
        if kind == "alias":
            below = index if flat else (offset(index, row_major(spec.shape)),)
            return self._need((graph.inputs[number][0], below, True, guard), done, stack)
        assert kind == "reindex" and not flat, f"{kind} can't be inlined"
        return self._reindex(node, state, done, stack)

    def _loaded(self, stored: int, place: Expr, guard: Expr | None, value: int) -> Expr:
        """An element of ``stored`` in the type in which ``value`` was recorded: it may be stored in a narrower one."""
        graph = self.graph
        dtype = graph.specs[stored].dtype
        found = load(stored, dtype, *((place,) if guard is None else (place, guard, const(0, dtype))))
        return cast(found, graph.nodes[value].spec.dtype) if value < graph.count else found

    def _need(self, state: State, done: dict[State, Expr], stack: list[State]) -> Expr | None:
        found = done.get(state)
        if found is None:
            stack.append(state)
        return found

    def _map(self, node: Node, state: State, done: dict[State, Expr], stack: list[State]) -> Expr | None:
        number, index, flat, guard = state
        graph = self.graph
        shape = node.spec.shape
        arguments: list[Expr] = []
        missing = False
        for i in graph.inputs[number]:
            below = index if flat else broadcast_index(index, graph.specs[i].shape, shape)
            value = self._need((i, below, flat, guard), done, stack)
            if value is None:
                missing = True
            else:
                arguments.append(value)
        if missing:
            return None
        base = graph.scalar_base[number]

        built: list[Expr] = []
        for x, operands in node.sig.steps:
            op = x.op
            if op == "load":
                built.append(arguments[x.value])
            elif op == "scalar":
                built.append(Expr("scalar", (), x.dtype, base + x.value))
            elif op == "axis":
                built.append(index[x.value])
            elif operands:
                built.append(Expr(op, tuple([built[k] for k in operands]), x.dtype, x.value))
            else:
                built.append(x)
        return built[-1]

    def _reindex(self, node: Node, state: State, done: dict[State, Expr], stack: list[State]) -> Expr | None:
        number, index, _, guard = state
        source = self.graph.inputs[number][0]
        resolved = self.resolve(number, node.sig.attrs, index, guard)
        place, hit = resolved
        inner = self._need((source, place, False, both(guard, hit)), done, stack)
        if inner is None or hit is None:
            return inner
        where: IndexMap = node.sig.attrs
        missed = const(where.overflow, node.spec.dtype)
        if inner.op == "load" and len(inner.args) == 3 and self.graph.has_storage(source):
            return load(inner.value, inner.dtype, inner.args[0], inner.args[1], missed)
        return select(hit, inner, missed)

    def resolve(
        self, number: int, where: IndexMap, index: Index, guard: Expr | None
    ) -> tuple[Index, Expr | None]:
        """A reindex's (or scatter's) address at ``index``, and the condition under which it is taken."""
        graph = self.graph
        target = graph.specs[number if graph.kind(number) == "scatter" else graph.inputs[number][0]].shape
        conditions: list[Expr] = []
        memo: dict[Expr, Expr] = {}

        def at_index(expr: Expr) -> Expr:
            for x in walk(expr, memo):
                if x.op == "load":
                    places = tuple([rewrite(a, axes, memo) for a in x.args])
                    memo[x], inside = self._extra(number, x, places, guard)
                    if inside is not guard and inside is not None:
                        conditions.append(inside)
            return rewrite(expr, axes, memo)

        def axes(x: Expr) -> Expr | None:
            return index[x.value] if x.op == "axis" else None

        place = tuple(as_int64(at_index(x)) for x in where.indexes)
        hit: Expr | None = None
        for condition in conditions:
            hit = both(hit, condition)
        if where.guard:
            for original, position, extent in zip(where.indexes, place, target, strict=True):
                if not self._surely_inside(number, original, extent):
                    hit = both(hit, in_range(position, extent))
        for condition in where.conditions:
            hit = both(hit, _opposite(at_index(condition)))
        return place, hit

    def _extra(self, number: int, node: Expr, places: Index, guard: Expr | None) -> tuple[Expr, Expr | None]:
        """A read of an extra input at ``places``, and the condition under which it is inside of it."""
        graph = self.graph
        extra = graph.inputs[number][node.value]
        spec = graph.specs[extra]
        inside = guard
        for original, position, extent in zip(node.args, places, spec.shape, strict=True):
            if not self._surely_inside(number, original, extent):
                inside = both(inside, in_range(position, extent))
        at = offset(places, graph.strides(extra))
        checks = () if inside is None else (inside, const(0, spec.dtype))
        return load(graph.base(extra), spec.dtype, at, *checks), inside

    def _surely_inside(self, number: int, position: Expr, extent: int) -> bool:
        """Whether no value of the loop variables takes ``position`` outside, so that it needs no check."""
        graph = self.graph
        own = graph.specs[graph.inputs[number][-1] if graph.kind(number) == "scatter" else number].shape
        if position.op == "axis":
            return own[position.value] <= extent
        limits = bounds(position, own)
        return limits is not None and limits[0] >= 0 and limits[1] < extent


def _opposite(x: Expr) -> Expr:
    """``not x``; a comparison of integers is turned round, as passes and backends understand it."""
    if x.op in _TURNED and not x.args[0].dtype.is_float:
        return Expr(_TURNED[x.op], x.args, x.dtype)
    return call("not", x)


def as_int64(x: Expr) -> Expr:
    """Index expressions are computed in int64."""
    return cast(x, const(0).dtype)


def in_range(position: Expr, extent: int) -> Expr:
    """``0 <= position < extent``."""
    return call("and", call("ge", position, const(0)), call("lt", position, const(extent)))


def broadcast_index(index: Index, shape: tuple[int, ...], full: tuple[int, ...]) -> Index:
    """The index into an operand of ``shape`` that broadcasts to ``full``."""
    if shape == full:
        return index
    skip = len(full) - len(shape)
    return tuple(const(0) if n == 1 else index[k + skip] for k, n in enumerate(shape))
