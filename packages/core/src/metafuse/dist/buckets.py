"""Gradients on their way to all ranks: packed into buckets, summed while others are still being computed.

What it is: ``summed``, which records for a list of gradients the nodes that pack, send and unpack them.
What it is not: weights or optimizers (``parallel``, ``optim``).
Who calls it: ``optim.optimizer``.

A bucket is one node ``Begin`` and a node ``Take`` for each of its gradients. ``Begin`` copies the gradients into memory that
the communicator keeps (an ``Adder``) and begins the sum; the schedule moves it up to where the last of them is computed. ``Take``
answers the sum of one gradient, waiting for it. Buckets have a communicator of their own, so that they need not wait for
other collectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from time import perf_counter
from typing import Any

from ..backend.optional import SupportsDevicePointers
from ..config import flags
from ..dtypes import DType, accumulator, uint8
from ..graph.node import Node, Spec, signature, spec_of
from ..ops.elementwise import cast
from ..ops.meta import piece
from ..ops.shape import concat
from ..runtime import executor
from ..runtime.opaque import OpaqueCall
from ..var import Var, record
from .contract import Adder, Communicator
from .execution import Collective, compare, fetched, place, settle
from .process import device_group, world

__all__ = ["forget_finished", "statistics", "summed"]


@dataclass
class Statistics:
    """Seconds spent ``packing``, ``waiting`` for other ranks, and ``taking`` sums; ``count`` of buckets; ``nbytes`` sent."""

    packing: float = 0.0
    waiting: float = 0.0
    taking: float = 0.0
    count: int = 0
    nbytes: int = 0

    @property
    def seconds(self) -> float:
        """All of them."""
        return self.packing + self.waiting + self.taking


statistics = Statistics()


@dataclass(eq=False)
class _Line:
    """What the buckets of a group of ranks share: a communicator of their own."""

    group: Communicator
    #: by number, size and type
    adders: dict[tuple[int, int, str], Adder] = field(default_factory=dict)
    #: nodes that have not run; held, so that none runs twice
    held: list[Var] = field(default_factory=list)

    def forget_finished(self) -> None:
        """Let go of what has run."""
        self.held = [v for v in self.held if v._node.buffer is None]


def _line() -> _Line:
    group = world()
    line = group.__dict__.get("bucket_line")
    if line is None:
        own = group.split(0, group.rank)
        assert own is not None
        line = group.__dict__["bucket_line"] = _Line(own)
    return line  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Begin:
    """The attribute of the node that packs bucket ``number`` and begins its sum; its value is a mark."""

    line: _Line
    number: int
    size: int
    dtype: DType
    count: int  # of gradients; further inputs keep the order
    early: bool = True  # for the schedule: run as soon as the inputs are there
    ordered: bool = True

    def run(self, call: OpaqueCall) -> None:
        """Pack and begin."""
        started = perf_counter()
        line = self.line
        for adder in line.adders.values():
            adder.progress()
        compare(line.group, f"sum of gradients, {self.size} of {self.dtype}")
        key = self.number, self.size, self.dtype.name
        if key not in line.adders:
            line.adders[key] = line.group.adder(self.size, self.dtype.numpy)
        adder = line.adders[key]
        adder.wait()  # only after a run that failed between begin and take
        first = 0
        for buffer, spec in call.inputs[: self.count]:
            adder.array[first : first + spec.size] = fetched(call.backend, buffer, spec).reshape(-1)
            first += spec.size
        adder.begin()
        statistics.packing += perf_counter() - started
        statistics.count += 1
        statistics.nbytes += adder.array.nbytes


@dataclass(frozen=True)
class Take:
    """The attribute of the node whose value is the sum of a gradient, at place ``first`` of the bucket that ``begin`` began."""

    begin: Begin
    first: int
    ordered: bool = True

    def run(self, call: OpaqueCall) -> None:
        """Wait and hand over."""
        started = perf_counter()
        begin = self.begin
        adder = begin.line.adders[begin.number, begin.size, begin.dtype.name]
        adder.wait()
        arrived = perf_counter()
        target = place(call.backend, *call.output)
        adder.take(self.first, target)
        settle(call.backend, call.output[0], target)
        statistics.waiting += arrived - started
        statistics.taking += perf_counter() - arrived


def summed(gradients: Sequence[Var]) -> list[Var]:
    """The sum over ranks of each gradient, recorded; 16-bit ones come back in float32.

    Gradients of what a network does last are known first: they go in the first bucket."""
    if world().size == 1 or not gradients:
        return list(gradients)
    line = _line()
    backend = executor.device().backend
    if isinstance(backend, SupportsDevicePointers) and device_group(line.group, backend.name) is not None:
        return _summed_on_device(line, gradients)
    wide = [cast(g, accumulator(g.dtype)) for g in gradients]
    found: list[Any] = [None] * len(wide)
    line.forget_finished()
    before = [v._node for v in line.held]  # memory is used again: what is in it is taken first
    begun: list[tuple[list[int], Begin, Var]] = []
    for number, members in enumerate(_cut(wide)):
        nodes = tuple(wide[k]._node for k in members)
        call = Begin(line, number, sum(n.spec.size for n in nodes), wide[members[0]].dtype, len(nodes))
        mark = _recorded(line, "begin_sum", call, (*nodes, *before), spec_of((1,), uint8))
        begun.append((members, call, mark))
        before = [mark._node]
    last = begun[-1][2]._node
    for members, call, mark in begun:
        inputs = (last,) if mark._node is last else (mark._node, last)
        first = 0
        for k in members:
            spec = spec_of(tuple(wide[k].shape), wide[k].dtype)
            found[k] = _recorded(line, "take_sum", Take(call, first), inputs, spec)
            first += spec.size
    return found


def _recorded(line: _Line, name: str, call: Any, inputs: tuple[Node, ...], spec: Spec) -> Var:
    """An opaque node that is held until it has run."""
    value = record(signature("opaque", name, call, tuple(n.spec for n in inputs), spec), inputs)
    line.held.append(value)
    return value


def _summed_on_device(line: _Line, gradients: Sequence[Var]) -> list[Var]:
    """Buckets that never leave the device: packed by a kernel, summed on its stream."""
    wide = [cast(g, accumulator(g.dtype)) for g in gradients]
    found: list[Any] = [None] * len(wide)
    order: Var | None = None
    for members in _cut(wide):
        flat = concat([wide[k].reshape([-1]) for k in members], 0)
        nodes = (flat._node,) if order is None else (flat._node, order._node)
        call = Collective("all_reduce", line.group, "add", early=True)
        order = _recorded(line, "mpi_all_reduce", call, nodes, flat._node.spec)
        statistics.count += 1
        statistics.nbytes += order.nbytes
        first = 0
        for k in members:
            found[k] = piece(order, first, tuple(wide[k].shape))
            first += prod(wide[k].shape)
    return found


def forget_finished() -> None:
    """Let go of the memory of sums that have been used."""
    line = world().__dict__.get("bucket_line")
    if line is not None:
        line.forget_finished()


def _cut(gradients: Sequence[Var]) -> list[list[int]]:
    """Positions, in buckets of one type and about ``flags.dist_bucket_bytes``."""
    buckets: list[list[int]] = []
    open_: dict[Any, tuple[list[int], int]] = {}
    for k in range(len(gradients) - 1, -1, -1):
        g = gradients[k]
        members, nbytes = open_.get(g.dtype, ([], 0))
        if not members:
            buckets.append(members)
        members.append(k)
        nbytes += g.nbytes
        open_[g.dtype] = ([], 0) if nbytes >= flags.dist_bucket_bytes else (members, nbytes)
    return buckets
