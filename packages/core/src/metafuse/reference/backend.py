"""The reference backend: NumPy, one array operation per intrinsic. The living definition.

What it is: an ordinary backend under the contract, always usable, and what every other backend is compared with.
What it is not: tuned. Sums of floats are carried in float64, so its results are at least as exact as any other's.
Who calls it: ``runtime``, like any backend; ``testing`` as the oracle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..backend.contract import AbstractBackend, Capabilities, Handle, Loaded, Step
from ..backend.optional import SupportsHostView, SupportsParts
from ..errors import BackendError, CompileError, OutOfMemory
from ..kernel.ir import Kernel
from . import codegen
from .helpers import SCOPE

__all__ = ["ReferenceBackend"]

_ALIGNMENT = 64
_HEADER = "# metafuse reference module\n"
#: how many modules are kept as Python scopes
_RECENT = 8

Array = np.ndarray[Any, Any]


class ReferenceBackend(AbstractBackend, SupportsHostView, SupportsParts):
    """Runs kernels as NumPy source on the host. A handle is a uint8 array; a loaded kernel is a Python function.

    Example:
        >>> backend = ReferenceBackend()
        >>> handle = backend.alloc(4)
        >>> backend.copy_in(handle, memoryview(b"abcd"))
        >>> backend.host_view(handle, 4).tobytes()
        b'abcd'
    """

    name = "reference"

    def __init__(self) -> None:
        self.capabilities = Capabilities()
        self._modules: dict[bytes, dict[str, Any]] = {}

    # -- memory -------------------------------------------------------------------------------------------------------
    def alloc(self, nbytes: int) -> Handle:
        try:
            memory = np.empty(nbytes + _ALIGNMENT, np.uint8)
        except (MemoryError, ValueError):  # ValueError: more than an address can name
            raise OutOfMemory(
                f"[reference] can't allocate {nbytes} bytes of host memory; free some Vars"
            ) from None
        start = -memory.ctypes.data % _ALIGNMENT
        return memory[start : start + nbytes]

    def free(self, handle: Handle) -> None:
        """Nothing to do: memory goes with its last reference."""

    def copy_in(self, handle: Handle, source: memoryview) -> None:
        if source.nbytes:  # NumPy makes no array of an empty memoryview
            handle[: source.nbytes] = np.frombuffer(source, np.uint8)

    def copy_out(self, target: memoryview, handle: Handle) -> None:
        if target.nbytes:
            np.frombuffer(target, np.uint8)[...] = handle[: target.nbytes]

    def part(self, handle: Handle, offset: int) -> Handle:
        return handle[offset:]

    def host_view(self, handle: Handle, nbytes: int) -> Array:
        view: Array = handle[:nbytes]
        return view

    # -- code ---------------------------------------------------------------------------------------------------------
    def emit(self, kernel: Kernel, symbol: str) -> str:
        return codegen.emit(kernel, symbol)

    def compile(self, sources: Sequence[str]) -> bytes:
        text = _HEADER + "\n\n".join(sources)
        _code(text)
        return text.encode()

    def load(self, binary: bytes, kernels: Mapping[str, Kernel]) -> dict[str, Loaded]:
        scope = self._modules.get(binary)
        if scope is None:
            try:
                text = binary.decode()
            except UnicodeDecodeError:
                text = ""
            if not text.startswith(_HEADER):
                raise BackendError(
                    f"[reference] not a reference module: {binary[:40]!r}...; compile its sources again"
                )
            scope = dict(SCOPE)
            exec(_code(text), scope)
            # kernels of one batch share a module, and each is asked for by itself where it comes from the cache
            for oldest in list(self._modules)[: 1 - _RECENT]:
                del self._modules[oldest]
            self._modules[binary] = scope
        missing = sorted(kernels.keys() - scope.keys())
        if missing:
            raise BackendError(
                f"[reference] the module has no {', '.join(missing)}; compile its sources again"
            )
        return {symbol: scope[symbol] for symbol in kernels}

    # -- time ---------------------------------------------------------------------------------------------------------
    def launch(self, step: Step, handles: Sequence[Handle], scalars: Sequence[float | int]) -> None:
        kernel, run = step.kernel, step.loaded
        with np.errstate(all="ignore"):
            for call in step.calls:
                buffers = [
                    _typed(handles[slot], param.dtype.storage)
                    for slot, param in zip(call.slots, kernel.buffers, strict=True)
                ]
                values = [
                    dtype.convert(scalars[slot])
                    for slot, dtype in zip(call.scalars, kernel.scalars, strict=True)
                ]
                _call(run, buffers, call.sizes, values)

    def synchronize(self) -> None:
        """Nothing to do: ``launch`` returns when its work is done."""

    def fingerprint(self) -> str:
        return f"{super().fingerprint()}:numpy-{np.__version__}"


def _call(
    run: Callable[..., None], buffers: list[Array], sizes: tuple[int, ...], values: list[Array]
) -> None:
    try:
        run(buffers, sizes, values)
    except MemoryError:
        raise OutOfMemory(
            f"[reference] no host memory for a temporary of sizes {sizes}; free some Vars"
        ) from None


def _typed(handle: Array, dtype: np.dtype[Any]) -> Array:
    """The whole elements in ``handle``."""
    return handle[: handle.size // dtype.itemsize * dtype.itemsize].view(dtype)


def _code(text: str) -> Any:
    try:
        return compile(text, "<metafuse reference>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise CompileError(f"[reference] Python rejects the emitted source: {error}") from error
