"""A stand-in for ``nccl.core`` that computes on host memory, with the signatures of nccl4py 0.6, and a backend with addresses.

Calls are kept, so that tests see what the library was asked for. Ranks are those of the loopback; what they bring is handed
round by the host's communicator."""

from __future__ import annotations

import ctypes
import enum
import types
from typing import Any

import numpy as np

from metafuse.backend.optional import SupportsDevicePointers
from metafuse.dist.contract import OPERATIONS
from metafuse.dist.process import world
from metafuse.reference.backend import ReferenceBackend

STREAM = 77


class NcclRedOp(enum.IntEnum):
    SUM = 0
    PROD = 1
    MAX = 2
    MIN = 3
    AVG = 4


class NcclInvalid(Exception):
    pass


_UFUNCS = {
    NcclRedOp.SUM: OPERATIONS["add"], NcclRedOp.AVG: OPERATIONS["add"], NcclRedOp.PROD: OPERATIONS["multiply"],
    NcclRedOp.MAX: OPERATIONS["maximum"], NcclRedOp.MIN: OPERATIONS["minimum"],
}  # fmt: skip


class UniqueId:
    def __init__(self, content: bytes = bytes(128)) -> None:
        self.content = content

    def __bytes__(self) -> bytes:
        return self.content

    @staticmethod
    def from_bytes(b: Any) -> UniqueId:
        return UniqueId(bytes(b))


def get_unique_id(empty: bool = False) -> UniqueId:
    return UniqueId(bytes(range(128)))


def _memory(buffer: Any) -> np.ndarray:
    """What the array interface of ``buffer`` says is there."""
    told = buffer.__cuda_array_interface__
    if told["version"] != 3 or told["strides"] is not None:
        raise NcclInvalid("the interface must be version 3, contiguous")
    dtype = np.dtype(told["typestr"])
    count = int(np.prod(told["shape"]))
    raw = (ctypes.c_ubyte * (count * dtype.itemsize)).from_address(told["data"][0])
    return np.frombuffer(raw, dtype)


class Communicator:
    calls: list[tuple[Any, ...]] = []

    def __init__(self, ptr: int | None = None) -> None:
        self.ptr = ptr or 1

    @classmethod
    def init(cls, nranks: int, rank: int, unique_id: Any, config: Any = None) -> Communicator:
        if bytes(unique_id) != bytes(range(128)):
            raise NcclInvalid("another job's unique id")
        made = cls()
        made.nranks, made.rank = nranks, rank
        return made

    def _everybody(self, name: str, array: np.ndarray, *more: Any) -> list[np.ndarray]:
        self.calls.append((name, self.rank, str(array.dtype), array.size, *more))
        return [np.frombuffer(data, array.dtype) for data in world().exchange(array.tobytes())]

    def _combined(self, name: str, sendbuf: Any, op: NcclRedOp, *more: Any) -> np.ndarray:
        given = self._everybody(name, _memory(sendbuf), op, *more)
        total = given[0].copy()
        for other in given[1:]:
            total = _UFUNCS[op](total, other)
        return total / np.array(self.nranks, total.dtype) if op == NcclRedOp.AVG else total

    def allreduce(self, sendbuf, recvbuf, op, *, stream=None, config=None):
        _memory(recvbuf)[...] = self._combined("allreduce", sendbuf, op, stream)

    def reduce(self, sendbuf, recvbuf, op, root=None, *, stream=None, config=None):
        total = self._combined("reduce", sendbuf, op, root, stream)
        if self.rank == root:
            _memory(recvbuf)[...] = total

    def broadcast(self, sendbuf, recvbuf, root, *, stream=None, config=None):
        _memory(recvbuf)[...] = self._everybody("broadcast", _memory(sendbuf), root, stream)[root]

    def allgather(self, sendbuf, recvbuf, *, stream=None, config=None):
        _memory(recvbuf)[...] = np.concatenate(self._everybody("allgather", _memory(sendbuf), stream))

    def reduce_scatter(self, sendbuf, recvbuf, op, *, stream=None, config=None):
        total = self._combined("reduce_scatter", sendbuf, op, stream)
        _memory(recvbuf)[...] = np.split(total, self.nranks)[self.rank]

    def send(self, sendbuf, peer, *, stream=None):
        self.calls.append(("send", self.rank, peer, stream))
        world().send(_memory(sendbuf), peer)

    def recv(self, recvbuf, peer, *, stream=None):
        self.calls.append(("recv", self.rank, peer, stream))
        world().recv(_memory(recvbuf), peer)

    def abort(self):
        self.calls.append(("abort", self.rank))


def module() -> types.ModuleType:
    made = types.ModuleType("nccl.core")
    for thing in (NcclRedOp, NcclInvalid, UniqueId, get_unique_id, Communicator):
        setattr(made, thing.__name__, thing)
    return made


class Addressed(ReferenceBackend, SupportsDevicePointers):
    """The reference backend, taken for a device: its memory has addresses and a stream."""

    name = "pretended"

    def device_pointer(self, handle: Any) -> int:
        return self.host_view(handle, 1).ctypes.data

    def stream(self) -> int:
        return STREAM
