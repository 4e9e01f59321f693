"""The backend contract: memory, code, time.

What it is: the abstract class a backend author implements, about nine methods, and the small records that cross the
border. ``backend/README.md`` is the author's guide.
What it is not: a list of operators. Operators are composed from kernels before a backend sees anything.
Who calls it: ``runtime``; opaque nodes of ``ops`` and ``dist`` copy through it, and ``passes`` ask its capabilities. ``emit`` and
``compile`` are pure and need no device.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..config import flags
from ..dtypes import DTYPES
from ..kernel.expr import INTRINSICS
from ..kernel.ir import Kernel

__all__ = [
    "CONTRACT_VERSION",
    "AbstractBackend",
    "Call",
    "Capabilities",
    "Descriptor",
    "Handle",
    "Loaded",
    "Machine",
    "Step",
    "Tolerance",
]

CONTRACT_VERSION = 1

#: What ``alloc`` answers; opaque to everybody but the backend.
Handle = Any
#: What ``load`` answers for one kernel; opaque to everybody but the backend.
Loaded = Any


@dataclass(frozen=True)
class Tolerance:
    """How far a result may be from the float64 oracle: ``|diff| <= absolute + relative * |oracle|``."""

    relative: float
    absolute: float


DEFAULT_TOLERANCE: Mapping[str, Tolerance] = {
    "float16": Tolerance(4e-3, 1e-3),
    "bfloat16": Tolerance(3e-2, 8e-3),
    "float32": Tolerance(2e-5, 2e-6),
    "float64": Tolerance(1e-11, 1e-13),
}


@dataclass(frozen=True)
class Machine:
    """What the tiling of kernels is decided from. Bytes, counts."""

    cores: int = 1
    vector_bytes: int = 16
    l1_bytes: int = 32 << 10
    l2_bytes: int = 512 << 10
    #: loops that touch more memory than this write past the caches; 0: none do
    stream_bytes: int = 0


@dataclass(frozen=True)
class Capabilities:
    """What a backend can do. An intrinsic missing here is decomposed (``passes.decompose``) before emission."""

    dtypes: frozenset[str] = frozenset(DTYPES)
    intrinsics: frozenset[str] = frozenset(INTRINSICS)
    machine: Machine = Machine()
    max_buffers: int = 64
    #: whether kernels may have outer axes that are run through in order (``Kernel.serial``)
    serial: bool = False
    compile_jobs: int = 1
    tolerance: Mapping[str, Tolerance] = field(default_factory=lambda: dict(DEFAULT_TOLERANCE))


@dataclass(frozen=True)
class Call:
    """One invocation of a kernel: where its arguments are in the tables of a run.

    ``slots``: positions in the handle table, one per kernel buffer. ``sizes``: the integers themselves.
    ``scalars``: positions in the scalar table. ``elements``: how many innermost points there are, a hint of its cost.
    """

    slots: tuple[int, ...]
    sizes: tuple[int, ...]
    scalars: tuple[int, ...]
    elements: int


@dataclass(frozen=True)
class Step:
    """One launch: a loaded kernel and one or more independent calls of it (all parameters of an optimizer, say)."""

    kernel: Kernel
    loaded: Loaded
    calls: tuple[Call, ...]


class AbstractBackend(ABC):
    """A device and its compiler. Subclass it, declare it in a ``Descriptor``, run the conformance kit."""

    name: str
    capabilities: Capabilities

    # -- memory: called by runtime.buffer -------------------------------------------------------------------------
    @abstractmethod
    def alloc(self, nbytes: int) -> Handle:
        """``nbytes`` (>= 1) of uninitialised memory, aligned for the widest vector. Raises ``OutOfMemory``."""

    @abstractmethod
    def free(self, handle: Handle) -> None:
        """Take memory back; pools may keep it for the next ``alloc``."""

    @abstractmethod
    def copy_in(self, handle: Handle, source: memoryview) -> None:
        """Copy host bytes to the start of ``handle``; ``source`` is C-contiguous bytes."""

    @abstractmethod
    def copy_out(self, target: memoryview, handle: Handle) -> None:
        """Copy ``target.nbytes`` from the start of ``handle`` to writable, C-contiguous host bytes."""

    # -- code: called by runtime.kernels; pure ---------------------------------------------------------------------
    @abstractmethod
    def emit(self, kernel: Kernel, symbol: str) -> str:
        """Source text that defines ``kernel`` under the name ``symbol``; equal kernels give equal text."""

    @abstractmethod
    def compile(self, sources: Sequence[str]) -> bytes:
        """One binary module that holds all ``sources``. Thread-safe: called for several batches at once.

        Raises ``CompileError`` with the compiler's message."""

    @abstractmethod
    def load(self, binary: bytes, kernels: Mapping[str, Kernel]) -> dict[str, Loaded]:
        """Make a module's kernels callable: symbol -> loaded. ``binary`` may come from another process's ``compile``."""

    # -- time: called by runtime.launching ------------------------------------------------------------------------
    @abstractmethod
    def launch(self, step: Step, handles: Sequence[Handle], scalars: Sequence[float | int]) -> None:
        """Run ``step``; may return before it is done. Buffers of one call overlap only where a write reads the same
        element first."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for everything launched."""

    # -- identity ------------------------------------------------------------------------------------------------
    def fingerprint(self) -> str:
        """Everything beside source text that decides what ``compile`` yields (compiler version, flags, CPU features)."""
        return f"{self.name}:{CONTRACT_VERSION}"


@dataclass(frozen=True)
class Descriptor:
    """What a plugin hands over instead of a backend: cheap to make, imports nothing heavy.

    ``probe`` answers ``None`` if usable here, else the reason in one sentence. ``create`` makes the backend.
    ``priority``: the highest usable one is the default device.
    """

    name: str
    summary: str
    create: Callable[[], AbstractBackend]
    probe: Callable[[], str | None]
    priority: int = 0
    contract_version: int = CONTRACT_VERSION
    distribution: str = ""


def host_bytes(array: np.ndarray[Any, Any]) -> memoryview:
    """The bytes of a C-contiguous array as the memoryview that ``copy_in`` and ``copy_out`` take."""
    return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def default_threads() -> int:
    """How many threads kernels may use: ``flags.num_threads``, else ``OMP_NUM_THREADS``, else the usable cores."""
    if flags.num_threads:
        return int(flags.num_threads)
    text = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if text.isdigit() and int(text) > 0:
        return int(text)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
