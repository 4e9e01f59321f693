"""Collectives when their program runs.

What it is: ``Collective``, the attribute of an opaque node: gets the input's memory, calls the communicator, leaves the result in
the output's memory. And ``compare``, which sees that all ranks are at the same call.
What it is not: recording (``collectives``).
Who calls it: ``runtime.launching``, through the node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend.contract import AbstractBackend, host_bytes
from ..backend.optional import SupportsDevicePointers, SupportsHostView
from ..config import flags
from ..errors import CollectiveMismatch
from ..graph.node import Spec, describe_origin
from ..runtime import launching
from ..runtime.buffer import Buffer
from ..runtime.opaque import OpaqueCall
from .contract import Array, Communicator
from .device import KINDS, run_on_device
from .process import device_group
from .reduction import narrowed, operation, widened

__all__ = ["Collective", "compare", "fetched", "place"]

#: how many calls of a group are compared where not all are
FIRST_CALLS = 100


@dataclass(frozen=True)
class Collective:
    """One kind of call on one communicator.

    ``kind`` names the call; ``op`` how values are combined; ``other`` is the root, or the rank that is sent to or heard."""

    kind: str
    group: Communicator
    op: str = ""
    other: int = 0
    ordered: bool = True  # recorded anew each time: it depends on what was recorded before it
    early: bool = False  # for the schedule: run as soon as the inputs are there

    def __str__(self) -> str:
        more = [f"op={self.op!r}"] if self.op else []
        if self.kind in ("reduce", "broadcast"):
            more.append(f"root={self.other}")
        return f"mpi_{self.kind}({', '.join(more)})"

    def run(self, call: OpaqueCall) -> None:
        """Communicate. Inputs beyond the first are there to keep calls in order."""
        backend, given = call.backend, call.inputs[0]
        spec = given[1]
        if self.kind not in ("send", "recv"):
            compare(self.group, f"{self} of {spec!r}")
        if isinstance(backend, SupportsDevicePointers) and self.kind in KINDS:
            device = device_group(self.group, backend.name)
            if device is not None and (not self.op or spec.dtype.name in device.reduced):
                run_on_device(self, device, backend, given, call.output)
                return
        target = place(backend, *call.output)
        _CALLS[self.kind](self, fetched(backend, *given), spec, target)
        settle(backend, call.output[0], target)


def compare(group: Communicator, what: str) -> None:
    """See that every rank of ``group`` is at the call ``what``, for the first hundred calls or always (``flags.dist_check``).

    Errors: ``CollectiveMismatch`` on every rank, naming two that differ."""
    node = launching.running
    calls = group.__dict__["compared"] = group.__dict__.get("compared", 0) + 1
    if group.size == 1 or not flags.dist_check or (flags.dist_check == 1 and calls > FIRST_CALLS):
        return
    mark = np.array([hash_of(what)], np.int64)
    marks = np.empty(group.size, np.int64)
    group.all_gather(mark, marks)
    if (marks == mark[0]).all():
        return
    place = f" recorded at {describe_origin(node)}" if node is not None else ""
    told = [text.decode() for text in group.exchange(f"{what}{place}".encode())]
    other = next((r for r in range(group.size) if marks[r] != marks[0]), 0)
    raise CollectiveMismatch(
        f"[dist] call {calls} differs between ranks: rank 0 called {told[0]}; rank {other} called {told[other]}; let every rank "
        "make the same calls with the same shapes and types in the same order"
    )


def hash_of(text: str) -> int:
    """A number that is the same in every process."""
    import zlib

    raw = text.encode()
    return zlib.crc32(raw) << 31 | zlib.adler32(raw) >> 1


# -- memory -------------------------------------------------------------------------------------------------------
def fetched(backend: AbstractBackend, buffer: Buffer, spec: Spec) -> Array:
    """The stored elements of a value; not to be written to."""
    if not spec.nbytes:
        return np.empty(spec.shape, spec.dtype.storage)
    backend.synchronize()
    if isinstance(backend, SupportsHostView):
        return backend.host_view(buffer.handle, spec.nbytes).view(spec.dtype.storage).reshape(spec.shape)
    value = np.empty(spec.shape, spec.dtype.storage)
    backend.copy_out(host_bytes(value), buffer.handle)
    return value


def place(backend: AbstractBackend, buffer: Buffer, spec: Spec) -> Array:
    """Where to put the stored elements of a result: its memory, or an array that ``settle`` copies there."""
    if spec.nbytes and isinstance(backend, SupportsHostView):
        return backend.host_view(buffer.handle, spec.nbytes).view(spec.dtype.storage).reshape(spec.shape)
    return np.empty(spec.shape, spec.dtype.storage)


def settle(backend: AbstractBackend, buffer: Buffer, target: Array) -> None:
    """Bring what was put into ``place`` to the device, unless it is there."""
    if target.nbytes and not isinstance(backend, SupportsHostView):
        backend.copy_in(buffer.handle, host_bytes(target))


# -- calls ----------------------------------------------------------------------------------------------------------
def _all_reduce(call: Collective, source: Array, spec: Spec, target: Array) -> None:
    wide = widened(source, spec.dtype)
    total = target if wide is source else wide
    call.group.all_reduce(wide, total, operation(call.op, spec.dtype))
    _finish(call, total, spec, target)


def _reduce(call: Collective, source: Array, spec: Spec, target: Array) -> None:
    wide = widened(source, spec.dtype)
    total = target if wide is source else wide
    call.group.reduce(wide, total, operation(call.op, spec.dtype), call.other)
    if call.group.rank == call.other:
        _finish(call, total, spec, target)
    else:
        target.fill(0)


def _finish(call: Collective, total: Array, spec: Spec, target: Array) -> None:
    """From sums to means, and to the result's type."""
    if call.op == "mean":
        total /= call.group.size
    if total is not target:
        target[...] = narrowed(total, spec.dtype)


def _broadcast(call: Collective, source: Array, spec: Spec, target: Array) -> None:
    call.group.broadcast(_bytes(source), _bytes(target), call.other)


def _all_gather(call: Collective, source: Array, spec: Spec, target: Array) -> None:
    call.group.all_gather(_bytes(source), _bytes(target))


def _reduce_scatter(call: Collective, source: Array, spec: Spec, target: Array) -> None:
    wide = widened(source, spec.dtype)
    part = target if wide is source else np.empty(target.shape, wide.dtype)
    call.group.reduce_scatter(wide, part, operation(call.op, spec.dtype))
    _finish(call, part, spec, target)


def _send(call: Collective, source: Array, spec: Spec, target: Array) -> None:
    call.group.send(source, call.other)
    np.copyto(target, source)


def _recv(call: Collective, source: Array, spec: Spec, target: Array) -> None:
    call.group.recv(target, call.other)


def _bytes(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8)


_CALLS = {
    "all_reduce": _all_reduce, "reduce": _reduce, "broadcast": _broadcast, "all_gather": _all_gather,
    "reduce_scatter": _reduce_scatter, "send": _send, "recv": _recv,
}  # fmt: skip
