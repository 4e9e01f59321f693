"""Optional abilities of a backend: small abstract mixins that a backend inherits on purpose.

What it is: the extras beyond the contract. Callers ask with ``isinstance``, never by a backend's name.
What it is not: required. Everything has a way without them, except C++ snippets, which need ``SupportsCodeOp``.
Who calls it: ``runtime``, ``passes.pipeline``, opaque nodes of ``ops`` and ``dist``, and the conformance kit (which
skips a level by ``isinstance``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..dtypes import DType
from .contract import Handle, Loaded, Step

__all__ = [
    "SupportsAssembly",
    "SupportsCodeOp",
    "SupportsDevicePointers",
    "SupportsHostView",
    "SupportsParts",
    "SupportsPrograms",
]


class SupportsPrograms(ABC):
    """Runs all steps of a program in one call, without coming back to Python in between."""

    @abstractmethod
    def prepare(self, steps: Sequence[Step], scalar_kinds: str, constant: Collection[int] = ()) -> Any:
        """Freeze ``steps``; ``scalar_kinds`` has one letter per entry of the scalar table: ``f`` float, ``i`` integer.

        ``constant``: numbers of steps that run only where ``changed``: their inputs seldom differ from one run to the next.
        A backend that also ``SupportsLibraryOps`` takes ``LibraryCall`` among the steps."""

    @abstractmethod
    def run(
        self,
        prepared: Any,
        handles: Sequence[Handle],
        scalars: Sequence[float | int],
        changed: bool = True,
    ) -> None:
        """Run everything; same meaning as ``launch`` of each step in order. Without ``changed``, constant operands of
        library calls and inputs of constant steps are those of the last run, and the buffers that constant steps
        wrote still hold what that run left there."""


class SupportsParts(ABC):
    """Memory that can be divided, so that one allocation holds all temporaries of a program."""

    @abstractmethod
    def part(self, handle: Handle, offset: int) -> Handle:
        """What lies ``offset`` bytes (a multiple of 64) behind the start of ``handle``; for launches only, never to be freed,
        and valid as long as ``handle`` is."""


class SupportsHostView(ABC):
    """Memory that the host can address."""

    @abstractmethod
    def host_view(self, handle: Handle, nbytes: int) -> np.ndarray[Any, Any]:
        """A writable uint8 array over the memory itself; valid until ``free``."""


class SupportsDevicePointers(ABC):
    """Memory with addresses that other libraries of the device understand (communication between devices)."""

    @abstractmethod
    def device_pointer(self, handle: Handle) -> int:
        """The address of the memory."""

    @abstractmethod
    def stream(self) -> int:
        """The stream, as the device's own libraries number them, on which ``launch`` puts work; 0: the default one."""


class SupportsAssembly(ABC):
    """Can show what its compiler made of a source text (``flags.debug = 5``)."""

    @abstractmethod
    def assembly(self, source: str) -> str:
        """The assembly text, or another low-level one, of what ``emit`` answered."""


class SupportsCodeOp(ABC):
    """Compiles and runs a user's own C++ snippets (``metafuse.code``)."""

    #: which source of ``metafuse.code`` this backend takes: ``"cpu"`` or ``"cuda"``
    code_language: str

    @abstractmethod
    def emit_code(
        self,
        symbol: str,
        header: str,
        source: str,
        inputs: Sequence[tuple[DType, int]],
        outputs: Sequence[tuple[DType, int]],
        aliases: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        files: tuple[str, str] = ("cpu_header", "cpu_src"),
        data: Collection[str] | None = None,
    ) -> str:
        """Source text of a snippet; ``inputs``/``outputs`` are (dtype, number of dimensions); ``aliases``: further names of
        arrays, such as ``{"dout": "in2"}``; ``options``: what the user wants the compiler and the linker to be told, which must
        show in the text; ``files``: what messages call header and source; ``data``: names of run-time numbers, if a source that
        reads others is to be refused. Kernels and snippets share ``compile`` and ``load``.

        Errors: ``ArgumentError`` for whatever is wrong and needs no compiler to be found; ``code`` asks when it is called."""

    @abstractmethod
    def launch_code(
        self,
        loaded: Loaded,
        inputs: Sequence[tuple[Handle, tuple[int, ...]]],
        outputs: Sequence[tuple[Handle, tuple[int, ...]]],
        data: dict[str, float],
        offsets: Sequence[int] = (),
    ) -> list[tuple[int, ...]]:
        """Run it on (handle, shape) pairs; answers the outputs' final shapes (dimension 0 may have shrunk). ``offsets``: at which
        byte of its buffer, a multiple of 64, each output begins; 0 where missing."""
