"""A backend in plain Python: kernels become nested ``for`` loops over single numbers.

What it is: the nine methods of the contract and nothing else. The text of kernels comes from ``codegen``.
What it is not: fast. It shows what a kernel means, one element at a time.
Who calls it: ``metafuse.runtime``, through the plugin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metafuse.backend.contract import AbstractBackend, Capabilities, Handle, Loaded, Step
from metafuse.dtypes import DTYPES, DType
from metafuse.errors import CompileError, OutOfMemory
from metafuse.kernel.host import FUNCTIONS
from metafuse.kernel.ir import Kernel

from . import codegen
from .codegen import rounded

__all__ = ["MinimalBackend"]

#: dtype -> how Python's memoryview reads it. There is no float16: a backend declares what it can do.
FORMATS = {
    "bool": "?", "int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint8": "B", "uint16": "H", "uint32": "I",
    "uint64": "Q", "float32": "f", "float64": "d",
}  # fmt: skip


class MinimalBackend(AbstractBackend):
    """Memory is a ``bytearray``, code is Python, time is the caller's."""

    name = "minimal"

    def __init__(self) -> None:
        self.capabilities = Capabilities(dtypes=frozenset(FORMATS))

    # -- memory -------------------------------------------------------------------------------------------------
    def alloc(self, nbytes: int) -> Handle:
        try:
            return bytearray(nbytes)
        except MemoryError:
            raise OutOfMemory(f"[minimal] can't allocate {nbytes} bytes; free some Vars") from None

    def free(self, handle: Handle) -> None:
        """Nothing to do: Python frees what nobody holds."""

    def copy_in(self, handle: Handle, source: memoryview) -> None:
        handle[: source.nbytes] = source

    def copy_out(self, target: memoryview, handle: Handle) -> None:
        target[:] = memoryview(handle)[: target.nbytes]

    # -- code ---------------------------------------------------------------------------------------------------
    def emit(self, kernel: Kernel, symbol: str) -> str:
        return codegen.emit(kernel, symbol)

    def compile(self, sources: Sequence[str]) -> bytes:
        text = "\n\n".join(sources)
        try:
            compile(text, "<minimal>", "exec")
        except SyntaxError as error:
            raise CompileError(f"[minimal] Python rejects the emitted source: {error}") from error
        return text.encode()

    def load(self, binary: bytes, kernels: Mapping[str, Kernel]) -> dict[str, Loaded]:
        scope: dict[str, Any] = {"host": _host, "single": _single, "inf": math.inf, "nan": math.nan}
        exec(binary.decode(), scope)
        return {symbol: scope[symbol] for symbol in kernels}

    # -- time ---------------------------------------------------------------------------------------------------
    def launch(self, step: Step, handles: Sequence[Handle], scalars: Sequence[float | int]) -> None:
        kernel = step.kernel
        for call in step.calls:
            buffers = [_typed(handles[s], p.dtype) for s, p in zip(call.slots, kernel.buffers, strict=True)]
            numbers = [rounded(scalars[s], d) for s, d in zip(call.scalars, kernel.scalars, strict=True)]
            with np.errstate(all="ignore"):
                step.loaded(buffers, call.sizes, numbers)

    def synchronize(self) -> None:
        """Nothing to wait for: ``launch`` returns when its work is done."""


def _typed(handle: bytearray, dtype: DType) -> memoryview:
    """The whole elements in ``handle``."""
    return memoryview(handle)[: len(handle) // dtype.itemsize * dtype.itemsize].cast(FORMATS[dtype.name])


def _single(value: float) -> float:
    """Python's floats are doubles: round to float32."""
    return float(np.float32(value))


def _host(name: str, result: str, operands: str, *args: Any) -> Any:
    """One intrinsic of single numbers, by the NumPy function that defines it."""
    arrays = [np.full(1, a, d) for a, d in zip(args, operands.split(), strict=True)]
    return FUNCTIONS[name](*arrays, DTYPES[result]).item()
