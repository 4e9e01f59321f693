"""The communication contract on MPI.

What it is: ``MpiCommunicator`` over one of mpi4py's communicators, and ``connect``, which makes that of all processes.
What it is not: watching other ranks (``watch``).
Who calls it: ``plugin``, and ``metafuse.dist`` through the contract.

Arrays are handed to MPI where they are; nothing is copied or pickled. What goes one to one carries its element type as tag,
so that a receiver that expects another one says so instead of misreading bits.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
from mpi4py import MPI

from metafuse.config import flags
from metafuse.dist.contract import Adder, Array, Communicator, Request
from metafuse.errors import CollectiveMismatch, DistributionError

from .shared import MOST, shared_adder
from .watch import Watch

__all__ = ["MpiCommunicator", "MpiRequest", "connect"]

_TYPES: dict[np.dtype[Any], Any] = {
    np.dtype(name): kind
    for name, kind in (
        ("float32", MPI.FLOAT), ("float64", MPI.DOUBLE), ("int8", MPI.INT8_T), ("int16", MPI.INT16_T), ("int32", MPI.INT32_T),
        ("int64", MPI.INT64_T), ("uint8", MPI.UINT8_T), ("uint16", MPI.UINT16_T), ("uint32", MPI.UINT32_T),
        ("uint64", MPI.UINT64_T), ("bool", MPI.UINT8_T), ("float16", MPI.UINT16_T),
    )
}  # fmt: skip
_OPERATIONS = {"add": MPI.SUM, "multiply": MPI.PROD, "maximum": MPI.MAX, "minimum": MPI.MIN}
_NUMBERS = {kind: number for number, kind in enumerate(_TYPES)}
_IN_PLACE = MPI.IN_PLACE


class MpiRequest(Request):
    """A sum under way. MPI moves it on while it is asked about it."""

    def __init__(self, request: Any, watch: Watch, what: tuple[Any, ...]) -> None:
        self._request = request
        self._watch = watch
        self._what = what

    def progress(self) -> bool:
        """Give MPI time; answers whether the sum is there."""
        return bool(self._request.Test())

    def wait(self) -> None:
        """Come back when the sum is there."""
        self._watch.now = self._what
        self._request.Wait()
        self._watch.now = None


class MpiCommunicator(Communicator):
    """A group of MPI processes."""

    name = "mpi"

    def __init__(self, comm: Any, watch: Watch, members: list[int]) -> None:
        """``members``: ranks among all processes."""
        self.comm = comm
        self.rank, self.size = comm.Get_rank(), comm.Get_size()
        self._watch = watch
        self._members = members
        shared = comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_rank, self.local_size = shared.Get_rank(), shared.Get_size()
        shared.Free()

    def split(self, color: int | None, key: int = 0) -> Communicator | None:
        """``MPI_Comm_split``."""
        self._watch.now = "split", None, self._members
        part = self.comm.Split(MPI.UNDEFINED if color is None else color, key)
        made = None
        if part != MPI.COMM_NULL:
            made = MpiCommunicator(part, self._watch, [self._members[r] for r in part.allgather(self.rank)])
        self._watch.now = None
        return made

    # -- collectives ------------------------------------------------------------------------------------------------
    def all_reduce(self, source: Array, target: Array, op: str) -> None:
        """``MPI_Allreduce``."""
        self._watch.now = "all_reduce", target, self._members
        kind = _TYPES[target.dtype]
        given = _IN_PLACE if source is target else (source, kind)
        self.comm.Allreduce(given, (target, kind), _OPERATIONS[op])
        self._watch.now = None

    def start_all_reduce(self, source: Array, target: Array, op: str) -> Request:
        """``MPI_Iallreduce``."""
        kind = _TYPES[target.dtype]
        given = _IN_PLACE if source is target else (source, kind)
        request = self.comm.Iallreduce(given, (target, kind), _OPERATIONS[op])
        return MpiRequest(request, self._watch, ("all_reduce", target, self._members))

    def adder(self, size: int, dtype: np.dtype[Any]) -> Adder:
        """In shared memory where few ranks are on one machine (``flags.dist_shared_memory``)."""
        shared = None
        if flags.dist_shared_memory and 1 < self.size == self.local_size <= MOST:
            self._watch.now = "making of shared memory", None, self._members
            shared = shared_adder(self.comm, size, dtype, self._watch, self._members)
            self._watch.now = None
        return Adder(self, size, dtype) if shared is None else shared

    def reduce(self, source: Array, target: Array, op: str, root: int) -> None:
        """``MPI_Reduce``."""
        self._watch.now = "reduce", source, self._members
        kind = _TYPES[source.dtype]
        if self.rank == root:
            given = _IN_PLACE if source is target else (source, kind)
            self.comm.Reduce(given, (target, kind), _OPERATIONS[op], root)
        else:
            self.comm.Reduce((source, kind), None, _OPERATIONS[op], root)
        self._watch.now = None

    def broadcast(self, source: Array, target: Array, root: int) -> None:
        """``MPI_Bcast``; the root copies first."""
        self._watch.now = "broadcast", target, self._members
        if self.rank == root and source is not target:
            target[...] = source
        self.comm.Bcast((target, _TYPES[target.dtype]), root)
        self._watch.now = None

    def all_gather(self, source: Array, target: Array) -> None:
        """``MPI_Allgather``."""
        self._watch.now = "all_gather", source, self._members
        kind = _TYPES[source.dtype]
        self.comm.Allgather((source, kind), (target, kind))
        self._watch.now = None

    def reduce_scatter(self, source: Array, target: Array, op: str) -> None:
        """``MPI_Reduce_scatter_block``."""
        self._watch.now = "reduce_scatter", source, self._members
        kind = _TYPES[source.dtype]
        self.comm.Reduce_scatter_block((source, kind), (target, kind), _OPERATIONS[op])
        self._watch.now = None

    def barrier(self) -> None:
        """``MPI_Barrier``."""
        self._watch.now = "barrier", None, self._members
        self.comm.Barrier()
        self._watch.now = None

    # -- one to one -------------------------------------------------------------------------------------------------
    def send(self, array: Array, dest: int, tag: int = 0) -> None:
        """``MPI_Send``; where the message is too large to be kept, the receiver is waited for."""
        self._watch.now = "send", array, [self._members[dest]]
        self.comm.Send((array, _TYPES[array.dtype]), dest, tag * len(_TYPES) + _NUMBERS[array.dtype])
        self._watch.now = None

    def recv(self, array: Array, source: int, tag: int = 0) -> None:
        """``MPI_Recv``, after a look at what comes."""
        self._watch.now = "recv", array, [self._members[source]]
        status = MPI.Status()
        message = self.comm.Mprobe(source, MPI.ANY_TAG, status)
        kind = _TYPES[array.dtype]
        sent, count = list(_TYPES)[status.Get_tag() % len(_TYPES)], status.Get_count(MPI.BYTE)
        self._watch.now = None
        if sent != array.dtype or count != array.nbytes:
            raise CollectiveMismatch(
                f"[recv] rank {self.rank} expects {array.size} elements of {array.dtype}, rank {source} sent "
                f"{count // sent.itemsize} of {sent}; give like the shape and type that is sent"
            )
        message.Recv((array, kind))

    # -- the end ------------------------------------------------------------------------------------------------------
    def abort(self, code: int) -> None:
        """``MPI_Abort``: the launcher ends every process."""
        sys.stdout.flush()
        sys.stderr.flush()
        self.comm.Abort(code)
        os._exit(code)

    def close(self) -> None:
        """Tell the others that this rank has come to its end, and wait for theirs."""
        self._watch.farewell()


def connect() -> MpiCommunicator:
    """The group of all processes of the job; starts MPI if nobody has."""
    if not MPI.Is_initialized():
        MPI.Init_thread()
    if MPI.Is_finalized():
        raise DistributionError(
            "[mpi] MPI has been ended in this process already; begin computing before MPI.Finalize()"
        )
    comm = MPI.COMM_WORLD.Dup()
    watch = Watch(MPI.COMM_WORLD.Dup(), MPI.Query_thread() >= MPI.THREAD_MULTIPLE)
    watch.start()
    return MpiCommunicator(comm, watch, list(range(comm.Get_size())))
