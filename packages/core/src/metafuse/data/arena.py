"""Shared memory through which a worker process hands batches over.

What it is: ``Arena``, a block of memory that two processes see, its book-keeping, and the packing of a batch into it: whatever
can be pickled, with the contents of arrays copied once and not through the pickle.
What it is not: a place to keep things; a batch is taken out, or copied, before its part is given back.
Who calls it: ``data.worker`` packs, ``data.pool`` unpacks.
"""

from __future__ import annotations

import mmap
import os
import pickle
import tempfile
from multiprocessing import reduction
from typing import Any, NamedTuple

import numpy as np

from ..errors import ArgumentError, OutOfMemory

__all__ = ["Arena", "Packed", "TooLarge", "available"]

_ALIGNMENT = 64


class TooLarge(ArgumentError):
    """A batch is larger than the whole arena."""


class Packed(NamedTuple):
    """Where a batch lies: first byte, bytes of its pickle, number of buffers behind it, last byte."""

    start: int
    stream: int
    buffers: int
    stop: int


def available() -> bool:
    """Whether this system shares memory by file descriptors."""
    return os.name == "posix"


class Arena:
    """``size`` bytes that a worker and its parent see; pages cost memory once they are used.

    It can be handed to a process that is being started, by any start method.

    Errors: ``OutOfMemory`` if the system does not give that much.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken: list[tuple[int, int]] = []  # by the packing process, in order
        try:
            if hasattr(os, "memfd_create"):
                self.handle = os.memfd_create("metafuse-batches")
            else:
                with tempfile.TemporaryFile() as file:
                    self.handle = os.dup(file.fileno())
            os.ftruncate(self.handle, size)
            self.memory = mmap.mmap(self.handle, size)
        except OSError as error:
            raise OutOfMemory(
                f"[Dataset] can't share {size} bytes of memory with a worker: {error}; set a smaller buffer_size"
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {"size": self.size, "handle": reduction.DupFd(self.handle)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.size, self.taken = state["size"], []
        self.handle = state["handle"].detach()
        self.memory = mmap.mmap(self.handle, self.size)

    def close(self) -> None:
        """Give the memory back, as soon as nothing looks at it any more."""
        os.close(self.handle)
        try:
            self.memory.close()
        except BufferError:  # an array is still there; the memory goes with it
            pass

    # -- the worker's side ---------------------------------------------------------------------------------------------
    def reserve(self, count: int) -> int | None:
        """The first byte of ``count`` free ones, as far to the front as possible; ``None`` if there are none now."""
        if count > self.size:
            raise TooLarge(
                f"[Dataset] a batch takes {count} bytes, and buffer_size is {self.size}; set_attrs(buffer_size={count * 2}) or a "
                "smaller batch_size"
            )
        begin = 0
        for k, (start, stop) in enumerate([*self.taken, (self.size, self.size)]):
            if start - begin >= count:
                self.taken.insert(k, (begin, begin + count))
                return begin
            begin = stop
        return None

    def free(self, start: int) -> None:
        """The part that begins at ``start`` may be used again."""
        self.taken = [part for part in self.taken if part[0] != start]

    @staticmethod
    def flatten(batch: Any) -> tuple[bytes, list[memoryview]]:
        """The pickle of a batch without the contents of its arrays, and those."""
        buffers: list[pickle.PickleBuffer] = []
        stream = pickle.dumps(batch, protocol=5, buffer_callback=buffers.append)
        return stream, [buffer.raw() for buffer in buffers]

    @staticmethod
    def space(stream: bytes, buffers: list[memoryview]) -> int:
        """Bytes that a flattened batch takes."""
        return sum(map(_aligned, [len(stream), 8 * len(buffers), *(b.nbytes for b in buffers)])) or _ALIGNMENT

    def write(self, start: int, stream: bytes, buffers: list[memoryview]) -> Packed:
        """Copy a flattened batch to a reserved part: its pickle, the lengths of its buffers, the buffers."""
        target = memoryview(self.memory)
        target[start : start + len(stream)] = stream
        at = start + _aligned(len(stream))
        lengths = np.array([b.nbytes for b in buffers], np.int64).tobytes()
        target[at : at + len(lengths)] = lengths
        at += _aligned(len(lengths))
        for buffer in buffers:
            target[at : at + buffer.nbytes] = buffer
            at += _aligned(buffer.nbytes)
        target.release()
        return Packed(start, len(stream), len(buffers), at)

    # -- the parent's side -----------------------------------------------------------------------------------------------
    def read(self, packed: Packed, copy: bool) -> Any:
        """The batch. Its arrays look at the arena, unless ``copy``; they must be gone before the part is given back."""
        whole = memoryview(self.memory)[packed.start : packed.stop]
        if copy:
            whole = memoryview(bytearray(whole))
        at = _aligned(packed.stream)
        lengths = np.frombuffer(whole[at : at + 8 * packed.buffers], np.int64).tolist()
        at += _aligned(8 * packed.buffers)
        buffers = []
        for length in lengths:
            buffers.append(whole[at : at + length])
            at += _aligned(length)
        return pickle.loads(whole[: packed.stream], buffers=buffers)


def _aligned(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT
