"""The null backend: goes through all the motions, computes nothing, counts everything.

What it is: an ordinary backend whose memory is a size, whose code is a readable text and whose launch is a number. With it
one measures the framework itself, and tests ask how many kernels, compilations and bytes a program takes.
What it is not: ever chosen by default; what is read from its memory is zero, also values that were moved to it from elsewhere.
Who calls it: ``runtime``, like any backend.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..backend.contract import AbstractBackend, Capabilities, Handle, Loaded, Step
from ..errors import BackendError
from ..kernel.ir import Kernel
from .codegen import emit

__all__ = ["Counters", "NullBackend"]

_HEADER = "# metafuse null module\n"


@dataclass
class Counters:
    """What a null backend was asked for since it was made or reset.

    ``kernels``: texts emitted. ``compilations``: modules. ``loads``: modules made callable. ``launches``: steps,
    ``calls``: kernel calls in them.
    """

    kernels: int = 0
    compilations: int = 0
    loads: int = 0
    launches: int = 0
    calls: int = 0
    synchronizations: int = 0
    allocations: int = 0
    live_bytes: int = 0
    peak_bytes: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(eq=False)
class _Memory:
    """A handle: nothing but a size."""

    nbytes: int
    freed: bool = False


class NullBackend(AbstractBackend):
    """Counts. ``counters`` may be read at any time.

    Example:
        >>> backend = NullBackend()
        >>> handle = backend.alloc(100)
        >>> backend.counters.live_bytes
        100
        >>> backend.free(handle)
        >>> backend.counters.live_bytes, backend.counters.peak_bytes
        (0, 100)
    """

    name = "null"

    def __init__(self) -> None:
        self.capabilities = Capabilities(serial=True)
        self.counters = Counters()
        self._lock = threading.Lock()  # compile may run in several threads

    def reset(self) -> None:
        """Count anew; memory that is live stays so, and the peak starts there."""
        live = self.counters.live_bytes
        self.counters = Counters(live_bytes=live, peak_bytes=live)

    # -- memory -------------------------------------------------------------------------------------------------------
    def alloc(self, nbytes: int) -> Handle:
        with self._lock:
            counters = self.counters
            counters.allocations += 1
            counters.live_bytes += nbytes
            counters.peak_bytes = max(counters.peak_bytes, counters.live_bytes)
        return _Memory(nbytes)

    def free(self, handle: Handle) -> None:
        self._check(handle, 0)
        with self._lock:
            handle.freed = True
            self.counters.live_bytes -= handle.nbytes

    def copy_in(self, handle: Handle, source: memoryview) -> None:
        self._check(handle, source.nbytes)
        self.counters.bytes_in += source.nbytes

    def copy_out(self, target: memoryview, handle: Handle) -> None:
        self._check(handle, target.nbytes)
        target[:] = bytes(target.nbytes)
        self.counters.bytes_out += target.nbytes

    def _check(self, handle: _Memory, nbytes: int) -> None:
        if handle.freed:
            raise BackendError(f"[null] memory of {handle.nbytes} bytes is used after free")
        if nbytes > handle.nbytes:
            raise BackendError(f"[null] {nbytes} bytes do not fit the {handle.nbytes} bytes of this memory")

    # -- code ---------------------------------------------------------------------------------------------------------
    def emit(self, kernel: Kernel, symbol: str) -> str:
        with self._lock:
            self.counters.kernels += 1
        return emit(kernel, symbol)

    def compile(self, sources: Sequence[str]) -> bytes:
        with self._lock:
            self.counters.compilations += 1
        return (_HEADER + "\n".join(sources)).encode()

    def load(self, binary: bytes, kernels: Mapping[str, Kernel]) -> dict[str, Loaded]:
        text = binary.decode(errors="replace")
        if not text.startswith(_HEADER):
            raise BackendError(f"[null] not a null module: {binary[:40]!r}...; compile its sources again")
        missing = [symbol for symbol in kernels if f"\nkernel {symbol}:" not in text]
        if missing:
            raise BackendError(f"[null] the module has no {', '.join(missing)}; compile its sources again")
        with self._lock:
            self.counters.loads += 1
        return {symbol: symbol for symbol in kernels}

    # -- time ---------------------------------------------------------------------------------------------------------
    def launch(self, step: Step, handles: Sequence[Handle], scalars: Sequence[float | int]) -> None:
        for call in step.calls:
            for slot in call.slots:
                self._check(handles[slot], 0)
        self.counters.launches += 1
        self.counters.calls += len(step.calls)

    def synchronize(self) -> None:
        self.counters.synchronizations += 1
