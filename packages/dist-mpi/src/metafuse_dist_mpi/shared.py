"""Sums over the ranks of one machine, in memory that all of them see.

What it is: ``SharedAdder``, an ``Adder`` whose parts each rank reads where the others have put them; MPI only says when they are
there. A sum then costs one pass over memory.
What it is not: for many ranks, of whom each would read what all others have put (MPI cuts the work up), or for several machines.
Who calls it: ``communicator``.

There are two halves, used in turn. A rank puts values into one of them only when it has passed the barrier of the sum before,
which all ranks enter after they have taken what that half held. The memory is reserved before it is used, so that a machine
without room for it says so instead of ending the process; and its name is gone as soon as all ranks have it, so that
nothing is left behind.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Any

import numpy as np

from metafuse.dist.contract import Adder, Array

from .watch import Watch

__all__ = ["SharedAdder", "shared_adder"]

#: more ranks than these leave sums to MPI
MOST = 4
#: a file system in memory
FOLDER = "/dev/shm"
#: elements that are summed at a time where there are more than two ranks: they stay near the processor
PIECE = 1 << 15


class SharedAdder(Adder):
    """An ``Adder`` of ranks that all have ``memory``: [half, rank, element]."""

    def __init__(self, comm: Any, memory: Array, watch: Watch, members: list[int]) -> None:
        self._comm = comm
        self._memory = memory
        self._watch = watch
        self._half = 0
        self._barrier: Any = None
        self._parts: list[Array] = []
        self._rank = comm.Get_rank()
        self.array = memory[0, self._rank]
        self._what = "all_reduce", self.array, members

    def begin(self) -> None:
        """Tell the others that this rank's part is there."""
        self.wait()
        self._parts = list(self._memory[self._half])
        self._barrier = self._comm.Ibarrier()
        self._half = 1 - self._half
        self.array = self._memory[self._half, self._rank]

    def progress(self) -> None:
        """Give MPI time."""
        if self._barrier is not None:
            self._barrier.Test()

    def wait(self) -> None:
        """Come back when all parts are there."""
        if self._barrier is not None:
            self._watch.now = self._what
            self._barrier.Wait()
            self._watch.now = None
            self._barrier = None

    def take(self, first: int, target: Array) -> None:
        """Add up all parts, in order of rank."""
        self.wait()
        out = target.reshape(-1)
        one, two, *more = self._parts
        step = PIECE if more else max(out.size, 1)
        for at in range(0, out.size, step):
            piece = out[at : at + step]
            place = slice(first + at, first + at + piece.size)
            np.add(one[place], two[place], out=piece)
            for part in more:
                np.add(piece, part[place], out=piece)


def shared_adder(
    comm: Any, size: int, dtype: np.dtype[Any], watch: Watch, members: list[int]
) -> Adder | None:
    """An adder of all ranks of ``comm``, which are on one machine; ``None`` if one of them can't have the memory."""
    ranks = comm.Get_size()
    nbytes = max(2 * ranks * size * dtype.itemsize, 1)
    file, path = _reserved(nbytes) if comm.Get_rank() == 0 else (-1, "")
    path = comm.bcast(path)
    if comm.Get_rank() and path:
        try:
            file = os.open(path, os.O_RDWR)
        except OSError:  # two machines that only look like one
            file = -1
    everybody = all(comm.allgather(file >= 0))
    if comm.Get_rank() == 0 and path:
        os.unlink(path)
    memory = mmap.mmap(file, nbytes) if everybody else None
    if file >= 0:
        os.close(file)
    if memory is None:
        return None
    array = np.frombuffer(memory, dtype, 2 * ranks * size).reshape(2, ranks, size)
    return SharedAdder(comm, array, watch, members)


def _reserved(nbytes: int) -> tuple[int, str]:
    """A new file of so many bytes of memory, and its path; -1 and nothing where there is no room or no such thing."""
    if not os.path.isdir(FOLDER) or not hasattr(os, "posix_fallocate"):
        return -1, ""
    try:
        file, path = tempfile.mkstemp(prefix="metafuse-", dir=FOLDER)
    except OSError:
        return -1, ""
    try:
        os.posix_fallocate(file, 0, nbytes)
    except OSError:
        os.close(file)
        os.unlink(path)
        return -1, ""
    return file, path
