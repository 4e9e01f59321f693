"""Fuse: gather stored values into groups that share one loop nest.

What it is: puts atoms (``atoms``: one per stored value) into ``Group`` s, each of which becomes one kernel, possibly of several
stages: reduce, map with the reduced value, reduce again ...
What it is not: loop order or phases (``lower``).
Who calls it: ``passes.pipeline``.

A group has outer axes (independent) and inner axes (folded over). An atom may join if it runs over the same space, if
every value of the group that it reads is read at the atom's own place, and if no cycle between groups arises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..kernel.expr import Expr, axis, const, rewrite, weight
from .affine import canonical_loads
from .atoms import Atom, atoms_of
from .columns import join_columns
from .contraction import Match
from .inline import squeezed
from .library import Library, Tail
from .partial import is_starved
from .program_graph import ProgramGraph

__all__ = ["Group", "fuse", "split_tail"]

MAX_GROUP_OPERATIONS = 400
MAX_GROUP_BUFFERS = 48


@dataclass
class Group:
    """Atoms of one kernel, each with whether it is of outer level. ``inner`` is ``None`` while only maps are inside; ``places``:
    value -> where it is stored, in the group's axes."""

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
    atoms = atoms_of(graph, matches)
    fusion = _Fusion(graph, library, _readers(graph, atoms))
    for atom in atoms:
        fusion.place(atom)
    if serial:
        join_columns(graph, fusion.groups, MAX_GROUP_OPERATIONS, MAX_GROUP_BUFFERS)
    return _ordered(fusion.groups)


def _readers(graph: ProgramGraph, atoms: Sequence[Atom]) -> dict[int, int]:
    """How many read each value: atoms, and the user, perhaps under another shape."""
    readers: dict[int, int] = {}
    for atom in atoms:
        for number in atom.reads():
            readers[number] = readers.get(number, 0) + 1
    for number in graph.roots:
        base = graph.base(number)
        readers[base] = readers.get(base, 0) + 1
    return readers


class _Fusion:
    """Groups while they grow, atom by atom. ``readers``: how many read each value; ``home``: the group that makes it;
    ``by_read``: the groups that read it."""

    def __init__(self, graph: ProgramGraph, library: Library, readers: dict[int, int]) -> None:
        self.graph = graph
        self.library = library
        self.readers = readers
        self.groups: list[Group] = []
        self.home: dict[int, Group] = {}
        self.by_read: dict[int, list[Group]] = {}

    def place(self, atom: Atom) -> None:
        """Put ``atom`` into the first group that it may join, else into one of its own."""
        reads = atom.reads()
        alone = atom.number in self.graph.picked or self._is_reordering(atom)
        joined = None if alone else self._joined(atom, reads)
        if joined is None:
            group, outer_level = self._begun(atom, alone), False
        else:
            group, atom, outer_level, tail = joined
            if group.tail is not None and tail is not None:
                known = len(group.tail.vectors)
                group.tail = tail
                reads |= {self._add_vector(value, expr) for value, expr in tail.vectors[known:]}
        self._add(group, atom, outer_level, reads)
        if group.inner and group.kind == "reduce":
            home = self.home
            makers = {home[n].index: home[n] for n in reads if n in home and home[n] is not group}
            for maker in makers.values():
                self._absorb(group, maker)
        for number in reads:
            self.by_read.setdefault(number, []).append(group)

    def _is_reordering(self, atom: Atom) -> bool:
        """Whether an atom brings an image into another order of memory, which loops of its own do in tiles: a copy, or a map of
        arrays that are all row-major."""
        graph = self.graph
        if atom.kind != "map" or atom.number not in graph.orders:
            return False
        whole = [n for n in atom.reads() if graph.specs[n].size == graph.specs[atom.number].size]
        row_major = bool(whole) and not any(n in graph.orders for n in whole)
        return row_major or graph.kind(atom.number) == "alias"

    def _joined(self, atom: Atom, reads: set[int]) -> tuple[Group, Atom, bool, Tail | None] | None:
        """The group that ``atom`` may join, the atom in that group's axes, whether it is of outer level, and the tail that the
        group has with it."""
        for group in self._candidates(reads):
            placed = self._try_join(group, atom, reads)
            if placed is None:
                continue
            tail = None if group.tail is None else self._longer_tail(group, placed[0])
            if group.tail is None or tail is not None:
                return group, *placed, tail
        return None

    def _begun(self, atom: Atom, alone: bool) -> Group:
        """A new group for ``atom``."""
        inner = atom.inner if atom.kind not in ("map", "store") else None
        group = Group(len(self.groups), atom.kind, atom.extents, inner, alone=alone)
        self.groups.append(group)
        if atom.kind == "contraction":
            group.tail = self.library.begin(atom.number)
        return group

    def _candidates(self, reads: set[int]) -> list[Group]:
        """Groups that make something the atom reads, then groups that read the same arrays; latest first."""
        home = self.home
        makers = {home[n].index: home[n] for n in reads if n in home}
        sharers = {g.index: g for n in reads for g in self.by_read.get(n, ()) if g.index not in makers}
        return [makers[k] for k in sorted(makers, reverse=True)] + [
            sharers[k] for k in sorted(sharers, reverse=True)
        ]

    def _try_join(self, group: Group, atom: Atom, reads: set[int]) -> tuple[Atom, bool] | None:
        """The atom renumbered to the group's axes and whether it is of outer level, or ``None`` if it can't join."""
        joins = group.kind not in ("scatter", "store", "opaque", "empty") and not group.alone
        if not joins or atom.kind not in ("map", "reduce"):
            return None
        if atom.expr is None or group.operations + weight(atom.expr) > MAX_GROUP_OPERATIONS:
            return None
        if len(group.reads | reads) + len(group.places) > MAX_GROUP_BUFFERS:
            return None
        for n in reads:
            other = self.home.get(n)
            if other is not None and other is not group and other.before >> group.index & 1:
                return None
        if group.tail is not None:
            return (atom, True) if atom.kind == "map" and atom.extents == group.tail.extents else None
        for placed in _alignments(group, atom):
            if _reads_in_place(group.places, placed[0]):
                return placed
        return (atom, False) if _widened(group, atom) else None

    def _longer_tail(self, group: Group, atom: Atom) -> Tail | None:
        """The tail of the group's contraction with ``atom`` at its end, if the library can apply that."""
        tail = group.tail
        assert tail is not None and atom.expr is not None and atom.place is not None
        if self.readers.get(tail.value) != 1 or tail.value not in atom.reads():
            return None
        if any(x.value in group.places and x.args != (tail.place,) for x in atom.loads()):
            return None
        return self.library.extended(tail, atom.number, atom.expr, atom.place)

    def _add_vector(self, value: int, expr: Expr) -> int:
        """A group that computes ``value``, a vector that a tail needs."""
        extents = squeezed(self.graph.specs[value].shape)
        atom = Atom(
            value, "map", extents, frozenset(), canonical_loads(expr), "", axis(0) if extents else const(0)
        )
        group = Group(len(self.groups), "map", extents, None, vector=True)
        self.groups.append(group)
        self._add(group, atom, False, atom.reads())
        return value

    def _add(self, group: Group, atom: Atom, outer_level: bool, reads: set[int]) -> None:
        """Note the atom as the group's last, and what must run before the group because of it."""
        home = self.home
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
            for other in self.groups:
                if other.before >> group.index & 1:
                    other.before |= before
        group.atoms.append((atom, outer_level))
        if atom.kind != "opaque":
            assert atom.place is not None
            group.places[atom.number] = atom.place
        group.reads |= reads
        group.operations += weight(atom.expr) if atom.expr is not None else 1
        home[atom.number] = group

    def _absorb(self, group: Group, maker: Group) -> None:
        """Take in an earlier group of maps over the group's outer points, if all its values are read at their own place."""
        outer = group.outer_axes
        if (
            maker.kind != "map"
            or maker.inner is not None
            or maker.alone
            or maker.extents != tuple(group.extents[k] for k in outer)
        ):
            return
        between = [g for g in self.groups if group.before >> g.index & 1 and g.before >> maker.index & 1]
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
            self.home[number] = group
        for other in self.groups:
            if other is not group and other.before >> maker.index & 1:
                other.before = (other.before & ~(1 << maker.index)) | 1 << group.index | group.before
        maker.atoms.clear()
        maker.places.clear()
        maker.reads.clear()
        maker.kind = "empty"


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
