"""Gradients on their way to all ranks: packed into buckets, summed while others are still being computed.

What it is: ``summed``, which records for a list of gradients the nodes that pack, send and unpack them.
What it is not: weights or optimizers (``parallel``, ``optim``).
Who calls it: ``optim.optimizer``.

A bucket is two nodes. ``Begin`` copies its gradients into memory that the communicator keeps and begins the sum; the
schedule moves it up to where the last of them is computed. ``End`` waits and answers the sums as one flat array, of which
the gradients are pieces that the update reads in place. Buckets have a communicator of their own, so that they need not
wait for other collectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from ..backend.contract import AbstractBackend
from ..backend.optional import SupportsDevicePointers
from ..config import flags
from ..dtypes import DType, accumulator, uint8
from ..graph.index_map import IndexMap
from ..graph.node import Spec, signature, spec_of
from ..kernel.expr import add, axis, const
from ..ops.elementwise import cast
from ..ops.meta import gather, reshape
from ..ops.shape import concat
from ..runtime import executor
from ..runtime.buffer import Buffer
from ..var import Var, record
from .contract import Array, Communicator, Request
from .execution import Collective, compare, fetched, place, settle
from .process import device_group, world

__all__ = ["forget_finished", "statistics", "summed"]


@dataclass
class Statistics:
    """Seconds: ``packing``, ``waiting`` at the end of steps; ``count``: buckets; ``nbytes`` sent."""

    packing: float = 0.0
    waiting: float = 0.0
    count: int = 0
    nbytes: int = 0


statistics = Statistics()


@dataclass
class _Memory:
    """The memory of one bucket, and what is under way in it."""

    array: Array | None = None
    request: Request | None = None


@dataclass(eq=False)
class _Line:
    """What the buckets of a group of ranks share: a communicator of their own."""

    group: Communicator
    memory: dict[tuple[int, int, str], _Memory] = field(default_factory=dict)
    under_way: list[Request] = field(default_factory=list)
    #: nodes that have not run; held, so that none runs twice
    held: list[Var] = field(default_factory=list)


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

    def run(
        self,
        backend: AbstractBackend,
        kernels: Any,
        inputs: list[tuple[Buffer, Spec]],
        output: tuple[Buffer, Spec],
        scalars: tuple[Any, ...],
    ) -> None:
        """Pack and begin."""
        from time import perf_counter

        started = perf_counter()
        for request in self.line.under_way:
            request.progress()
        compare(self.line.group, f"sum of gradients, {self.size} of {self.dtype}")
        memory = self.line.memory.setdefault((self.number, self.size, self.dtype.name), _Memory())
        if memory.request is not None:  # a run that failed between begin and end
            memory.request.wait()
        if memory.array is None:
            memory.array = np.empty(self.size, self.dtype.numpy)
        first = 0
        for buffer, spec in inputs[: self.count]:
            memory.array[first : first + spec.size] = fetched(backend, buffer, spec).reshape(-1)
            first += spec.size
        memory.request = self.line.group.start_all_reduce(memory.array, memory.array, "add")
        self.line.under_way.append(memory.request)
        statistics.packing += perf_counter() - started
        statistics.count += 1
        statistics.nbytes += memory.array.nbytes


@dataclass(frozen=True)
class End:
    """The attribute of the node that waits for bucket ``number``."""

    line: _Line
    number: int
    ordered: bool = True

    def run(
        self,
        backend: AbstractBackend,
        kernels: Any,
        inputs: list[tuple[Buffer, Spec]],
        output: tuple[Buffer, Spec],
        scalars: tuple[Any, ...],
    ) -> None:
        """Wait and hand over."""
        from time import perf_counter

        started = perf_counter()
        spec = output[1]
        memory = self.line.memory[self.number, spec.size, spec.dtype.name]
        assert memory.array is not None and memory.request is not None
        memory.request.wait()
        self.line.under_way.remove(memory.request)
        memory.request = None
        target = place(backend, *output)
        target[...] = memory.array
        settle(backend, output[0], target)
        statistics.waiting += perf_counter() - started


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
    buckets = _cut(wide)
    order: Var | None = None
    begun: list[tuple[list[int], Var]] = []
    for number, members in enumerate(buckets):
        nodes = tuple(wide[k]._node for k in members)
        size = sum(n.spec.size for n in nodes)
        call = Begin(line, number, size, wide[members[0]].dtype, len(nodes))
        inputs = nodes if order is None else (*nodes, order._node)
        sig = signature("opaque", "begin_sum", call, tuple(n.spec for n in inputs), spec_of((1,), uint8))
        order = record(sig, inputs)
        begun.append((members, order))
        line.held.append(order)
    for number, (members, mark) in enumerate(begun):
        size = sum(prod(wide[k].shape) for k in members)
        assert order is not None
        inputs = (mark._node,) if order is mark else (mark._node, order._node)
        spec = spec_of((size,), wide[members[0]].dtype)
        order = flat = record(
            signature("opaque", "end_sum", End(line, number), tuple(n.spec for n in inputs), spec), inputs
        )
        line.held.append(flat)
        first = 0
        for k in members:
            found[k] = _piece(flat, first, tuple(wide[k].shape))
            first += prod(wide[k].shape)
    return found


def _summed_on_device(line: _Line, gradients: Sequence[Var]) -> list[Var]:
    """Buckets that never leave the device: packed by a kernel, summed on its stream."""
    wide = [cast(g, accumulator(g.dtype)) for g in gradients]
    found: list[Any] = [None] * len(wide)
    order: Var | None = None
    for members in _cut(wide):
        flat = concat([wide[k].reshape([-1]) for k in members], 0)
        nodes = (flat._node,) if order is None else (flat._node, order._node)
        call = Collective("all_reduce", line.group, "add", early=True)
        sig = signature("opaque", "mpi_all_reduce", call, tuple(n.spec for n in nodes), flat._node.spec)
        order = record(sig, nodes)
        line.held.append(order)
        statistics.count += 1
        statistics.nbytes += order.nbytes
        first = 0
        for k in members:
            found[k] = _piece(order, first, tuple(wide[k].shape))
            first += prod(wide[k].shape)
    return found


def forget_finished() -> None:
    """Let go of the memory of sums that have been used."""
    line = world().__dict__.get("bucket_line")
    if line is not None:
        line.held = [v for v in line.held if v._node.buffer is None]


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


def _piece(flat: Var, first: int, shape: tuple[int, ...]) -> Var:
    size = prod(shape)
    if size != flat.shape[0]:
        flat = gather(flat, (size,), IndexMap((add(axis(0), const(first)),)), (), "part")
    return reshape(flat, shape)
