"""Buffer: a piece of a backend's memory that frees itself.

What it is: a handle with its size and backend, returned to the backend's pool when the last holder lets go.
What it is not: shaped or typed; nodes and plans know that.
Who calls it: ``runtime.executor``, and whoever makes values outside of programs (``capture``, ``dist``, ``code``).
"""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Callable
from typing import Any

from ..backend.contract import AbstractBackend
from ..errors import OutOfMemory

__all__ = ["Buffer", "live_bytes", "next_version"]

#: numbers that tell contents of buffers apart
next_version = itertools.count(1).__next__
#: how many arrays an error about memory names
HOLDERS = 5


def _once_more(backend: AbstractBackend, nbytes: int, error: OutOfMemory) -> Any:
    """Allocate after collecting what only cycles hold, or say who holds the memory."""
    gc.collect()
    try:
        return backend.alloc(nbytes)
    except OutOfMemory:
        from ..debug.memory import live_arrays

        largest = live_arrays()[:HOLDERS]
        held = "; ".join(
            f"{a.spec} {a.nbytes / 2**20:.1f} MiB of {a.name or a.operator} at {a.origin}" for a in largest
        )
        raise OutOfMemory(
            f"{error}; {nbytes} bytes were asked for; largest arrays: {held or 'none'}"
        ) from None


class _Live:
    """How many bytes buffers hold now and held at most, over all backends."""

    __slots__ = ("now", "peak", "count")

    def __init__(self) -> None:
        self.now = self.peak = self.count = 0


live_bytes = _Live()


class Buffer:
    """``nbytes`` of memory of ``backend``; ``handle`` is what the backend's methods take.

    ``order``: the dimensions of what is stored in the order of memory, slowest first; ``None`` if row-major.
    ``version``: another number for every content; 0 if somebody may write to it unseen."""

    __slots__ = ("backend", "handle", "nbytes", "order", "version", "_free", "__weakref__")

    def __init__(self, backend: AbstractBackend, nbytes: int) -> None:
        self.backend = backend
        self.nbytes = nbytes
        self.order: tuple[int, ...] | None = None
        self.version = next_version()
        try:
            self.handle: Any = backend.alloc(nbytes)
        except OutOfMemory as error:
            self.handle = _once_more(backend, nbytes, error)
        except OverflowError:  # more than a machine's addresses
            raise OutOfMemory(f"[alloc] no memory for {nbytes} bytes; use smaller arrays") from None
        self._free = backend.free
        live = live_bytes
        live.count += 1
        live.now += nbytes
        if live.now > live.peak:
            live.peak = live.now

    def __del__(self, _ending: Callable[[], bool] = sys.is_finalizing) -> None:
        try:
            free = self._free
        except AttributeError:  # alloc failed
            return
        if _ending():  # the backend may be gone; the process gives everything back
            return
        live_bytes.now -= self.nbytes
        live_bytes.count -= 1
        free(self.handle)
