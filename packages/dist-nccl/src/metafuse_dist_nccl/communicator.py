"""The communication contract on NCCL.

What it is: ``NcclCommunicator`` over one of nccl4py's communicators, on ``DeviceArray`` s; ``connect``, which makes it beside a
communicator on host memory.
What it is not: waiting. Calls are put on the array's stream.
Who calls it: ``plugin``, and ``metafuse.dist`` through the contract.

What is not about arrays (groups, the barrier, the end) goes by the host's communicator.
"""

from __future__ import annotations

from typing import Any

import nccl.core as nccl

from metafuse.dist.contract import Communicator, DeviceArray
from metafuse.errors import DistributionError

__all__ = ["NcclCommunicator", "View", "connect"]

#: name of a type -> how the array interface writes it
_CODES = {
    "float32": "<f4", "float64": "<f8", "int8": "|i1", "int32": "<i4", "int64": "<i8", "uint8": "|u1", "uint32": "<u4",
    "uint64": "<u8",
}  # fmt: skip
_OPERATIONS = {"add": "SUM", "mean": "AVG", "multiply": "PROD", "maximum": "MAX", "minimum": "MIN"}


class View:
    """A ``DeviceArray`` as the CUDA array interface, version 3, which nccl4py reads."""

    def __init__(self, array: DeviceArray) -> None:
        self.__cuda_array_interface__ = {
            "shape": (array.size,),
            "typestr": _CODES[array.dtype],
            "data": (array.pointer, False),
            "strides": None,
            "version": 3,
            "stream": None,  # the call names it
        }


class NcclCommunicator(Communicator):
    """A group of processes with a GPU each."""

    name, memory = "nccl", "cuda"
    reduced = tuple(_CODES)

    def __init__(self, comm: Any, host: Communicator) -> None:
        self.comm = comm
        self.host = host
        self.rank, self.size = host.rank, host.size
        self.local_rank, self.local_size = host.local_rank, host.local_size

    def split(self, color: int | None, key: int = 0) -> Communicator | None:
        """The host's group is split, and one made beside it."""
        part = self.host.split(color, key)
        return None if part is None else connect(part)

    def all_reduce(self, source: DeviceArray, target: DeviceArray, op: str) -> None:  # type: ignore[override]
        """``ncclAllReduce``."""
        if source.size:
            self.comm.allreduce(View(source), View(target), _operation(op), stream=target.stream)

    def reduce(self, source: DeviceArray, target: DeviceArray, op: str, root: int) -> None:  # type: ignore[override]
        """``ncclReduce``."""
        if source.size:
            self.comm.reduce(View(source), View(target), _operation(op), root, stream=target.stream)

    def broadcast(self, source: DeviceArray, target: DeviceArray, root: int) -> None:  # type: ignore[override]
        """``ncclBroadcast``."""
        if source.size:
            self.comm.broadcast(View(source), View(target), root, stream=target.stream)

    def all_gather(self, source: DeviceArray, target: DeviceArray) -> None:  # type: ignore[override]
        """``ncclAllGather``."""
        if source.size:
            self.comm.allgather(View(source), View(target), stream=target.stream)

    def reduce_scatter(self, source: DeviceArray, target: DeviceArray, op: str) -> None:  # type: ignore[override]
        """``ncclReduceScatter``."""
        if target.size:
            self.comm.reduce_scatter(View(source), View(target), _operation(op), stream=target.stream)

    def barrier(self) -> None:
        """The host's: nothing on a stream is waited for."""
        self.host.barrier()

    def send(self, array: DeviceArray, dest: int, tag: int = 0) -> None:  # type: ignore[override]
        """``ncclSend``; NCCL knows no tags."""
        if array.size:
            self.comm.send(View(array), dest, stream=array.stream)

    def recv(self, array: DeviceArray, source: int, tag: int = 0) -> None:  # type: ignore[override]
        """``ncclRecv``."""
        if array.size:
            self.comm.recv(View(array), source, stream=array.stream)

    def exchange(self, data: bytes) -> list[bytes]:
        """The host's."""
        return self.host.exchange(data)

    def abort(self, code: int) -> None:
        """End NCCL's kernels, which may wait for ever, then the job."""
        self.comm.abort()
        self.host.abort(code)

    def close(self) -> None:
        """Nothing: the host's communicator tells the others."""


def _operation(op: str) -> Any:
    return getattr(nccl.NcclRedOp, _OPERATIONS[op])


def connect(group: Communicator) -> NcclCommunicator:
    """The group of the same processes on their GPUs. All ranks of ``group`` call it, each with its device current.

    Errors: ``DistributionError`` naming the ranks whose NCCL could not start."""
    comm, problem, unique = None, "", b""
    try:
        unique = bytes(nccl.get_unique_id()) if group.rank == 0 else b""
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    unique = group.exchange(unique)[0]
    if unique:
        try:
            comm = nccl.Communicator.init(group.size, group.rank, nccl.UniqueId.from_bytes(unique))
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
    failed = [f"rank {r}: {told.decode()}" for r, told in enumerate(group.exchange(problem.encode())) if told]
    if failed:
        raise DistributionError(
            f"[nccl] could not start on {'; '.join(failed)}; give every rank a GPU of its own: python -m metafuse launch "
            "--devices"
        )
    return NcclCommunicator(comm, group)
