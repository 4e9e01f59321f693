"""Collectives on the memory of a device, without a way over the host.

What it is: ``run_on_device``: the calls of ``execution`` once more, on ``DeviceArray`` s.
What it is not: a choice between the two (``execution``).
Who calls it: ``execution``.

Calls are put on the backend's stream, behind the kernels that make their inputs, and are not waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..backend.contract import AbstractBackend
from ..errors import DistributionError
from ..graph.node import Spec
from ..runtime.buffer import Buffer
from .contract import Communicator, DeviceArray

if TYPE_CHECKING:
    from .execution import Collective

__all__ = ["KINDS", "run_on_device"]

#: calls that are made here; what goes one to one goes over the host
KINDS = ("all_reduce", "reduce", "broadcast", "all_gather", "reduce_scatter")


def run_on_device(
    call: Collective,
    device: Communicator,
    backend: Any,
    source: tuple[Buffer, Spec],
    target: tuple[Buffer, Spec],
) -> None:
    """Make ``call`` on ``device``, from and to memory of ``backend``, which ``SupportsDevicePointers``."""
    whole = call.op != ""
    given, result = _array(backend, *source, whole), _array(backend, *target, whole)
    op = call.op
    if call.kind == "all_reduce":
        device.all_reduce(given, result, op)  # type: ignore[arg-type]
    elif call.kind == "reduce":
        if device.rank != call.other:
            _zeros(backend, *target)
        device.reduce(given, result, op, call.other)  # type: ignore[arg-type]
    elif call.kind == "broadcast":
        device.broadcast(given, result, call.other)  # type: ignore[arg-type]
    elif call.kind == "all_gather":
        device.all_gather(given, result)  # type: ignore[arg-type]
    elif call.kind == "reduce_scatter":
        device.reduce_scatter(given, result, op)  # type: ignore[arg-type]
    else:
        raise DistributionError(f"[{call}] runs on host memory only, got memory of {device.memory}")


def _array(backend: Any, buffer: Buffer, spec: Spec, typed: bool) -> DeviceArray:
    """Elements where they are combined, bytes where they are moved."""
    pointer, stream = backend.device_pointer(buffer.handle), backend.stream()
    if typed:
        return DeviceArray(pointer, spec.size, spec.dtype.name, stream)
    return DeviceArray(pointer, spec.nbytes, "uint8", stream)


def _zeros(backend: AbstractBackend, buffer: Buffer, spec: Spec) -> None:
    if spec.nbytes:
        backend.copy_in(buffer.handle, memoryview(bytes(spec.nbytes)))
