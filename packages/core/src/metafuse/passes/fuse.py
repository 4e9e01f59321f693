"""Fuse: gather stored values into groups that share one loop nest.

What it is: makes one ``Atom`` per stored value (its expression over its own axes) and puts atoms into ``Group`` s, each
of which becomes one kernel, possibly of several stages: reduce, map with the reduced value, reduce again ...
What it is not: loop order or phases (``lower``).
Who calls it: ``passes.pipeline``.

A group has outer axes (independent) and inner axes (folded over). An atom may join if it runs over the same space, if
every value of the group that it reads is read at the atom's own place, and if no cycle between groups arises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..kernel.expr import Expr, axis, call, cast, const, load, rewrite, walk, weight
from ..kernel.ir import REDUCTIONS
from .affine import as_affine, canonical_loads, offset
from .columns import join_columns
from .contraction import Match
from .coverage import covered
from .inline import Inliner, identity_index, squeezed
from .library import Library, Tail
from .partial import is_starved, split
from .program_graph import ProgramGraph

__all__ = ["Atom", "Group", "fuse", "split_tail"]

MAX_GROUP_OPERATIONS = 400
MAX_GROUP_BUFFERS = 48


@dataclass
class Atom:
    """One stored value: ``expr`` over the axes of ``extents``; ``inner`` axes are folded (or scattered) over."""

    number: int
    #: "map", "reduce", "scatter", "store" (into what a scatter builds), "contraction", "opaque", "column" (see ``columns``)
    kind: str
    extents: tuple[int, ...]
    inner: frozenset[int] = frozenset()
    expr: Expr | None = None
    op: str = ""
    place: Expr | None = None  # where the value is stored, over the axes that remain
    condition: Expr | None = None
    match: Match | None = None
    extra_reads: tuple[int, ...] = ()

    def loads(self) -> list[Expr]:
        """Every load of the expression, place and condition."""
        found: list[Expr] = []
        for root in (self.expr, self.place, self.condition):
            if root is not None:
                found.extend(x for x in walk(root) if x.op == "load")
        return found

    def reads(self) -> set[int]:
        """Numbers of the values it loads."""
        return {x.value for x in self.loads()} | set(self.extra_reads)


@dataclass
class Group:
    """Atoms of one kernel. ``inner`` is ``None`` while only maps are inside. ``members``: value -> (atom, is outer level)."""

    index: int
    kind: str
    extents: tuple[int, ...]
    inner: frozenset[int] | None
    atoms: list[tuple[Atom, bool]] = field(default_factory=list)
    places: dict[int, Expr] = field(default_factory=dict)
    reads: set[int] = field(default_factory=set)
    operations: int = 0
    before: int = 0  # bit set of groups that must run earlier
    tail: Tail | None = None  # of a contraction that the library takes
    vector: bool = False  # computes what tails need, one number per channel
    alone: bool = False  # copies an image into another order, which is done in tiles
    serial: tuple[int, ...] = ()  # the last of the outer axes, if they are run through in order

    @property
    def outer_axes(self) -> tuple[int, ...]:
        """Axes not folded over, ascending."""
        return tuple(k for k in range(len(self.extents)) if self.inner is None or k not in self.inner)

    def small_values(self) -> frozenset[int]:
        """Values of one element per outer point of a group that also has inner axes."""
        return frozenset(
            atom.number
            for atom, outer_level in self.atoms
            if self.inner and (outer_level or atom.kind == "reduce")
        )


def fuse(
    graph: ProgramGraph, matches: dict[int, Match], library: Library, serial: bool = False
) -> list[Group]:
    """Groups in an order in which they can run. ``serial``: the backend can run through outer axes in order."""
    atoms = _atoms(graph, matches)
    readers: dict[int, int] = {}
    for atom in atoms:
        for number in atom.reads():
            readers[number] = readers.get(number, 0) + 1
    for number in graph.roots:  # the user reads it, perhaps under another shape
        base = graph.base(number)
        readers[base] = readers.get(base, 0) + 1
    groups: list[Group] = []
    home: dict[int, Group] = {}
    by_read: dict[int, list[Group]] = {}
    for atom in atoms:
        reads = atom.reads()
        target = None
        tail: Tail | None = None
        alone = atom.kind == "map" and atom.number in graph.orders and graph.kind(atom.number) == "alias"
        alone = alone or atom.number in graph.picked
        for candidate in () if alone else _candidates(reads, home, by_read):
            placed = _try_join(graph, candidate, atom, reads, home)
            if placed is not None and candidate.tail is not None:
                tail = _longer_tail(graph, candidate, placed[0], readers, library)
                placed = None if tail is None else placed
            if placed is not None:
                target, (atom, outer_level) = candidate, placed
                break
        if target is None:
            inner = atom.inner if atom.kind not in ("map", "store") else None
            target = Group(len(groups), atom.kind, atom.extents, inner, alone=alone)
            groups.append(target)
            outer_level = False
            if atom.kind == "contraction":
                target.tail = library.begin(atom.number)
        elif target.tail is not None and tail is not None:
            known = len(target.tail.vectors)
            target.tail = tail
            reads = reads | {_add_vector(v, e, graph, groups, home) for v, e in tail.vectors[known:]}
        _add(target, atom, outer_level, reads, groups, home)
        if target.inner and target.kind == "reduce":
            for maker in {
                home[n].index: home[n] for n in reads if n in home and home[n] is not target
            }.values():
                _absorb(target, maker, groups, home)
        for number in reads:
            by_read.setdefault(number, []).append(target)
    if serial:
        join_columns(graph, groups, MAX_GROUP_OPERATIONS, MAX_GROUP_BUFFERS)
    return _ordered(groups)


# -- atoms ---------------------------------------------------------------------------------------------------------
def _atoms(graph: ProgramGraph, matches: dict[int, Match]) -> list[Atom]:
    inliner = Inliner(graph)
    atoms: list[Atom] = []
    final = _written_in_place(graph)
    chains: dict[int, list[int]] = {}
    for number in range(graph.count):
        if graph.kind(number) == "scatter":
            chains.setdefault(final.get(number, number), []).append(number)
    for number in range(graph.count):
        if number not in graph.stored:
            continue
        kind = graph.kind(number)
        if kind in ("map", "reindex", "alias"):
            atoms.append(_map_atom(graph, inliner, number, number))
        elif number in matches:
            match = matches[number]
            place = offset(tuple(axis(k) for k in range(match.outer)), graph.squeezed_strides(number))
            atoms.append(
                Atom(number, "contraction", match.extents, frozenset(range(match.outer, len(match.extents))),
                     None, "add", place, None, match, (graph.base(match.a.source), graph.base(match.b.source)))
            )  # fmt: skip
        elif kind == "reduce":
            atoms.extend(_reduce_atoms(graph, inliner, number))
        elif kind == "scatter":
            storage = final.get(number, number)
            if graph.inputs[number][0] not in final and not covered(inliner, chains[storage]):
                atoms.append(_map_atom(graph, inliner, graph.inputs[number][0], storage))
            atoms.append(_scatter_atom(graph, inliner, number, storage))
        else:
            reads = tuple(graph.base(i) for i in graph.inputs[number])
            atoms.append(Atom(number, "opaque", squeezed(graph.specs[number].shape), extra_reads=reads))
    return atoms


def _map_atom(graph: ProgramGraph, inliner: Inliner, value: int, storage: int) -> Atom:
    """Compute ``value`` and store it as ``storage`` (not the same for the start value of a scatter)."""
    shape = graph.specs[value].shape
    index = identity_index(shape)
    base = graph.base(value)
    root = storage == value or not graph.has_storage(base)
    expr = cast(inliner.value(value, index, at_root=root), graph.specs[storage].dtype)
    return Atom(storage, "map", squeezed(shape), frozenset(), expr, "", offset(index, graph.strides(storage)))


def _reduce_atoms(graph: ProgramGraph, inliner: Inliner, number: int) -> list[Atom]:
    op, dims = graph.nodes[number].sig.attrs
    source = graph.inputs[number][0]
    shape = graph.specs[source].shape
    index = identity_index(shape)
    rename: dict[int, int] = {}
    for k, n in enumerate(shape):
        if n != 1:
            rename[k] = len(rename)
    expr = inliner.value(source, index, at_root=False)
    extents = squeezed(shape)
    inner = frozenset(rename[k] for k in dims if k in rename)
    kept = tuple(k for k in range(len(extents)) if k not in inner)
    place = offset(tuple(axis(k) for k in kept), graph.squeezed_strides(number))
    whole = Atom(number, "reduce", extents, inner, expr, op, place)
    return split(graph, whole) or [whole]


def _written_in_place(graph: ProgramGraph) -> dict[int, int]:
    """Scatters whose only use is to be the start of a next one write straight into that one's storage."""
    final: dict[int, int] = {}
    for number in range(graph.count - 1, -1, -1):
        if graph.kind(number) == "scatter":
            start = graph.inputs[number][0]
            if graph.kind(start) == "scatter" and graph.users[start] == [number] and start not in graph.roots:
                final[start] = final.get(number, number)
    return final


def _scatter_atom(graph: ProgramGraph, inliner: Inliner, number: int, storage: int) -> Atom:
    op, where = graph.nodes[number].sig.attrs
    source = graph.inputs[number][-1]
    shape = graph.specs[source].shape
    index = identity_index(shape)
    place, hit = inliner.resolve(number, where, index, None)
    expr = inliner.value(source, index, at_root=False)
    extents = squeezed(shape)
    outer = _free_axes(place)
    inner = frozenset(k for k in range(len(extents)) if k not in outer)
    where_to = offset(place, graph.strides(storage))
    if not inner and hit is None:  # no two elements meet: this is a plain store
        if op != "void":
            combine = REDUCTIONS[op]
            assert combine is not None
            expr = call(combine, load(storage, expr.dtype, where_to), expr)
        return Atom(storage, "store", extents, frozenset(), expr, "", where_to)
    return Atom(storage, "scatter", extents, inner, expr, op, where_to, hit)


def _free_axes(place: tuple[Expr, ...]) -> set[int]:
    """Axes along which no two elements meet: each alone decides one dimension of the address."""
    counted: dict[int, int] = {}
    for position in place:
        for k in {x.value for x in walk(position) if x.op == "axis"}:
            counted[k] = counted.get(k, 0) + 1
    free: set[int] = set()
    for position in place:
        affine = as_affine(position)
        if affine is not None and len(affine.coefficients) == 1 and counted[affine.coefficients[0][0]] == 1:
            free.add(affine.coefficients[0][0])
    return free


# -- groups --------------------------------------------------------------------------------------------------------
def _candidates(reads: set[int], home: dict[int, Group], by_read: dict[int, list[Group]]) -> list[Group]:
    """Groups that make something the atom reads, then groups that read the same arrays; latest first."""
    makers = {home[n].index: home[n] for n in reads if n in home}
    sharers = {g.index: g for n in reads for g in by_read.get(n, ()) if g.index not in makers}
    return [makers[k] for k in sorted(makers, reverse=True)] + [
        sharers[k] for k in sorted(sharers, reverse=True)
    ]


def _try_join(
    graph: ProgramGraph, group: Group, atom: Atom, reads: set[int], home: dict[int, Group]
) -> tuple[Atom, bool] | None:
    """The atom renumbered to the group's axes and whether it is of outer level, or ``None`` if it can't join."""
    joins = group.kind not in ("scatter", "store", "opaque", "empty") and not group.alone
    if not joins or atom.kind not in ("map", "reduce"):
        return None
    if atom.expr is None or group.operations + weight(atom.expr) > MAX_GROUP_OPERATIONS:
        return None
    if len(group.reads | reads) + len(group.places) > MAX_GROUP_BUFFERS:
        return None
    for n in reads:
        other = home.get(n)
        if other is not None and other is not group and other.before >> group.index & 1:
            return None
    if group.tail is not None:
        return (atom, True) if atom.kind == "map" and atom.extents == group.tail.extents else None
    for placed in _alignments(group, atom):
        if _reads_in_place(group.places, placed[0]):
            return placed
    return (atom, False) if _widened(group, atom) else None


def _longer_tail(
    graph: ProgramGraph, group: Group, atom: Atom, readers: dict[int, int], library: Library
) -> Tail | None:
    """The tail of the group's contraction with ``atom`` at its end, if the library can apply that."""
    tail = group.tail
    assert tail is not None and atom.expr is not None and atom.place is not None
    if readers.get(tail.value) != 1 or tail.value not in atom.reads():
        return None
    if any(x.value in group.places and x.args != (tail.place,) for x in atom.loads()):
        return None
    return library.extended(tail, atom.number, atom.expr, atom.place)


def _add_vector(
    value: int, expr: Expr, graph: ProgramGraph, groups: list[Group], home: dict[int, Group]
) -> int:
    """A group that computes ``value``, a vector that a tail needs."""
    extents = squeezed(graph.specs[value].shape)
    atom = Atom(
        value, "map", extents, frozenset(), canonical_loads(expr), "", axis(0) if extents else const(0)
    )
    group = Group(len(groups), "map", extents, None, vector=True)
    groups.append(group)
    _add(group, atom, False, atom.reads(), groups, home)
    return value


def split_tail(group: Group) -> Group | None:
    """Take out of a contraction that the library refused what runs over another space than its result (channels in groups)."""
    assert group.tail is not None
    first = group.atoms[0][0]
    outer = tuple(n for k, n in enumerate(group.extents) if k not in first.inner)
    if group.tail.extents == outer or len(group.atoms) == 1:
        return None
    atoms = [atom for atom, _ in group.atoms[1:]]
    rest = Group(group.index, "map", group.tail.extents, None, [(atom, False) for atom in atoms])
    rest.places = {atom.number: group.places.pop(atom.number) for atom in atoms}
    rest.reads = {number for atom in atoms for number in atom.reads()}
    group.atoms = group.atoms[:1]
    group.reads = first.reads()
    return rest


def _absorb(group: Group, maker: Group, groups: list[Group], home: dict[int, Group]) -> None:
    """Take in an earlier group of maps over the group's outer points, if all its values are read at their own place."""
    outer = group.outer_axes
    if (
        maker.kind != "map"
        or maker.inner is not None
        or maker.alone
        or maker.extents != tuple(group.extents[k] for k in outer)
    ):
        return
    between = [g for g in groups if group.before >> g.index & 1 and g.before >> maker.index & 1]
    if between or group.operations + maker.operations > MAX_GROUP_OPERATIONS:
        return
    moved = [_renumbered(a, outer) for a, _ in maker.atoms]
    places = {a.number: a.place for a in moved if a.place is not None}
    if not all(_reads_in_place(places, a) for a, _ in group.atoms):
        return
    group.atoms[:0] = [(a, True) for a in moved]
    group.places.update(places)
    group.reads |= maker.reads
    group.operations += maker.operations
    group.before = (group.before | maker.before) & ~(1 << maker.index)
    for number in places:
        home[number] = group
    for other in groups:
        if other is not group and other.before >> maker.index & 1:
            other.before = (other.before & ~(1 << maker.index)) | 1 << group.index | group.before
    maker.atoms.clear()
    maker.places.clear()
    maker.reads.clear()
    maker.kind = "empty"


def _widened(group: Group, atom: Atom) -> bool:
    """Turn a group of maps over a fold's results into that fold's group, if the fold reads them at its own place."""
    if (
        atom.kind != "reduce"
        or group.kind != "map"
        or group.inner is not None
        or group.extents == atom.extents
    ):
        return False
    outer = tuple(k for k in range(len(atom.extents)) if k not in atom.inner)
    if group.extents != tuple(atom.extents[k] for k in outer):
        return False
    moved = [_renumbered(a, outer) for a, _ in group.atoms]
    places = {a.number: a.place for a in moved if a.place is not None}
    if not atom.reads() & places.keys() or not _reads_in_place(places, atom):
        return False
    group.extents = atom.extents
    group.inner = atom.inner
    group.kind = "reduce"
    group.atoms = [(a, True) for a in moved]
    group.places = places
    return True


def _alignments(group: Group, atom: Atom) -> list[tuple[Atom, bool]]:
    """Ways to lay the atom's axes over the group's."""
    found: list[tuple[Atom, bool]] = []
    same_space = atom.extents == group.extents
    if atom.kind == "reduce":
        if same_space and group.kind != "contraction" and group.inner in (None, atom.inner):
            found.append((atom, False))
        return found
    if (
        same_space
        and group.kind != "contraction"
        and not (group.inner and is_starved(group.extents, group.inner))
    ):
        found.append((atom, False))
    outer = group.outer_axes
    if group.inner and atom.extents == tuple(group.extents[k] for k in outer):
        found.append((_renumbered(atom, outer), True))
    return found


def _renumbered(atom: Atom, axes: Sequence[int]) -> Atom:
    def substitute(x: Expr) -> Expr | None:
        return axis(axes[x.value]) if x.op == "axis" else None

    memo: dict[Expr, Expr] = {}
    assert atom.expr is not None and atom.place is not None
    return Atom(atom.number, atom.kind, atom.extents, atom.inner, rewrite(atom.expr, substitute, memo), atom.op,
                rewrite(atom.place, substitute, memo))  # fmt: skip


def _reads_in_place(places: dict[int, Expr], atom: Atom) -> bool:
    """Every value of the group that the atom reads is read exactly where the same point stores it."""
    for x in atom.loads():
        place = places.get(x.value)
        if place is not None and (len(x.args) != 1 or x.args[0] != place):
            return False
    return True


def _add(
    group: Group, atom: Atom, outer_level: bool, reads: set[int], groups: list[Group], home: dict[int, Group]
) -> None:
    if atom.kind == "reduce" and group.inner is None:
        group.inner = atom.inner
        group.kind = "reduce"
    before = group.before
    for n in reads:
        other = home.get(n)
        if other is not None and other is not group:
            before |= other.before | 1 << other.index
    if atom.kind in ("scatter", "store"):  # what it writes into was begun by another group
        start = home.get(atom.number)
        if start is not None:
            before |= start.before | 1 << start.index
    if before != group.before:
        group.before = before
        for other in groups:
            if other.before >> group.index & 1:
                other.before |= before
    group.atoms.append((atom, outer_level))
    if atom.kind != "opaque":
        assert atom.place is not None
        group.places[atom.number] = atom.place
    group.reads |= reads
    group.operations += weight(atom.expr) if atom.expr is not None else 1
    home[atom.number] = group


def _ordered(groups: list[Group]) -> list[Group]:
    """A topological order that keeps the order of creation where it can."""
    done = 0
    waiting = [g for g in groups if g.atoms]
    result: list[Group] = []
    while waiting:
        rest: list[Group] = []
        for group in waiting:
            if group.before & ~done == 0:
                result.append(group)
                done |= 1 << group.index
            else:
                rest.append(group)
        assert len(rest) < len(waiting), "groups depend on each other in a circle"
        waiting = rest
    return result
