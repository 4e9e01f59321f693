"""The CPU backend: the contract of ``metafuse.backend`` put together from this package's parts.

What it is: one small class. Memory, loading and execution are native (``native/``), code comes from ``codegen`` and is
compiled by ``compiler``.
What it is not: thread-bound. All methods may be called from several threads; everything is done when a call returns.
Who calls it: ``metafuse.runtime``, through the plugin.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from metafuse.backend.contract import AbstractBackend, Capabilities, Handle, Loaded, Step
from metafuse.backend.library import LibraryCall
from metafuse.backend.optional import (
    SupportsAssembly,
    SupportsCodeOp,
    SupportsHostView,
    SupportsParts,
    SupportsPrograms,
)
from metafuse.errors import ArgumentError, BackendError
from metafuse.kernel.ir import Kernel

from . import _native, compiler, machine
from .codeop import CodeOps
from .library.operations import LibraryOps

__all__ = ["CpuBackend"]


class CpuBackend(
    CodeOps,
    LibraryOps,
    AbstractBackend,
    SupportsPrograms,
    SupportsHostView,
    SupportsParts,
    SupportsCodeOp,
    SupportsAssembly,
):
    """Generated C++ on the cores of this machine.

    Environment: ``METAFUSE_NUM_THREADS``, ``METAFUSE_CPU_MEMORY_LIMIT``, ``METAFUSE_CXX``, ``METAFUSE_ONEDNN``.
    """

    name = "cpu"

    def __init__(self) -> None:
        description = machine.describe()
        self.capabilities = Capabilities(
            machine=description, compile_jobs=max(1, min(os.cpu_count() or 1, 8)), serial=True
        )
        self._modules: dict[bytes, Any] = {}
        _native.set_threads(description.cores)
        _native.set_memory_limit(machine.memory_limit())

    # -- memory ---------------------------------------------------------------------------------------------------
    #: the address of so many bytes of memory, aligned to 64 bytes; raises ``OutOfMemory``. Like ``free`` and ``run`` it is on
    #: the path of every evaluation, and so no method around the native function
    alloc = staticmethod(_native.alloc)  # type: ignore[assignment]
    #: take memory back into the pool; ``BackendError`` for what is not allocated
    free = staticmethod(_native.free)  # type: ignore[assignment]

    def copy_in(self, handle: Handle, source: memoryview) -> None:
        """Copy host bytes to the start of ``handle``."""
        _native.copy_in(handle, source)

    def copy_out(self, target: memoryview, handle: Handle) -> None:
        """Copy the start of ``handle`` to host bytes."""
        _native.copy_out(target, handle)

    def part(self, handle: Handle, offset: int) -> Handle:
        """An address within an allocation."""
        return handle + offset

    def host_view(self, handle: Handle, nbytes: int) -> np.ndarray[Any, Any]:
        """The memory itself as a writable uint8 array; valid until ``free``."""
        view: np.ndarray[Any, Any] = _native.host_view(handle, nbytes)
        return view

    def memory_stats(self) -> dict[str, int]:
        """``bytes_in_use``, ``bytes_cached``, ``bytes_peak``, ``bytes_limit``, ``blocks``, ``system_allocations``."""
        stats: dict[str, int] = _native.memory_stats()
        return stats

    def trim(self, keep: int = 0) -> int:
        """Give cached memory back to the system until ``keep`` bytes are cached; answers how many went."""
        freed: int = _native.trim(keep)
        return freed

    # -- code -----------------------------------------------------------------------------------------------------
    def emit(self, kernel: Kernel, symbol: str) -> str:
        """C++ that defines ``kernel``; see ``codegen``."""
        from . import codegen

        return codegen.emit(kernel, symbol, self.capabilities.machine, compiler.vector_math())

    def compile(self, sources: Sequence[str]) -> bytes:
        """One shared object; see ``compiler``."""
        return compiler.compile(sources)

    def assembly(self, source: str) -> str:
        """What the compiler made of ``source``, without directives and labels that nothing refers to."""
        return compiler.assembly(source)

    def load(self, binary: bytes, kernels: Mapping[str, Kernel | None]) -> dict[str, Loaded]:
        """Make a module callable. Symbols of snippets map to anything (``None``)."""
        # Kernels of one batch share a module, and each is asked for by itself where it comes from the cache.
        digest = hashlib.sha256(binary).digest()
        module = self._modules.get(digest)
        if module is None:
            module = self._modules[digest] = _native.Module(binary)
        loaded: dict[str, Loaded] = {}
        for symbol, kernel in kernels.items():
            snippet = module.snippet(symbol)
            if snippet is not None:
                loaded[symbol] = snippet
            elif kernel is None:
                raise BackendError(f"[load] the module has no snippet {symbol!r}")
            else:
                kinds = "".join("f" if dtype.is_float else "i" for dtype in kernel.scalars)
                loaded[symbol] = module.kernel(symbol, len(kernel.buffers), kernel.sizes, kinds)
        return loaded

    # -- time -----------------------------------------------------------------------------------------------------
    def launch(self, step: Step, handles: Sequence[Handle], scalars: Sequence[float | int]) -> None:
        """Run one step. ``prepare`` and ``run`` do the same for many with less overhead."""
        kinds = ["f" if isinstance(value, float) else "i" for value in scalars]
        for call in step.calls:
            for position, dtype in zip(call.scalars, step.kernel.scalars, strict=False):
                if 0 <= position < len(kinds):
                    kinds[position] = "f" if dtype.is_float else "i"
        self.run(self.prepare([step], "".join(kinds)), handles, scalars)

    def prepare(
        self, steps: Sequence[Step | LibraryCall], scalar_kinds: str, constant: Collection[int] = ()
    ) -> Any:
        """Freeze ``steps`` into flat native arrays."""
        program = _native.Program(scalar_kinds)
        for number, step in enumerate(steps):
            if isinstance(step, LibraryCall):
                program.add_library(step.plan.loaded, step.slots, step.scratch, number in constant)
                continue
            program.begin_step(step.loaded, number in constant)
            for call in step.calls:
                program.add_call(call.slots, call.sizes, call.scalars, call.elements)
        return program

    #: run a prepared program, given handles, scalars and whether constants changed, to its end, without the interpreter lock
    run = staticmethod(_native.run)  # type: ignore[assignment]

    def synchronize(self) -> None:
        """Nothing to wait for: calls return when they are done."""

    # -- settings and identity ------------------------------------------------------------------------------------
    @property
    def threads(self) -> int:
        """How many threads a step may use; 1 in a process forked from one that used several."""
        count: int = _native.threads()
        return count

    def set_threads(self, count: int) -> None:
        """Change how many threads the next steps may use. Results are the same for any count."""
        if count < 1:
            raise ArgumentError(f"[set_threads] at least one thread is needed: {count}")
        _native.set_threads(count)

    def fingerprint(self) -> str:
        """Compiler, flags and CPU features."""
        return compiler.fingerprint()
