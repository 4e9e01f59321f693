"""What runs on the host: functions that no loop nest says well.

What it is: ``host_op``, a NumPy function as an opaque node.
What it is not: a general escape hatch for users.
Who calls it: operators whose answer NumPy or SciPy gives; ``native_loop`` where nothing compiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend.contract import AbstractBackend, host_bytes
from ..graph.node import Spec, signature
from ..runtime.buffer import Buffer
from ..runtime.opaque import OpaqueCall
from ..var import Var, record

__all__ = ["HostFunction", "host_arrays", "host_op"]


def host_arrays(
    backend: AbstractBackend, inputs: Sequence[tuple[Buffer, Spec]]
) -> list[np.ndarray[Any, Any]]:
    """Copies of what an opaque node reads, of the types in which users see them."""
    backend.synchronize()
    arrays = []
    for buffer, spec in inputs:
        value = np.empty(spec.shape, spec.dtype.storage)
        if value.nbytes:
            backend.copy_out(host_bytes(value), buffer.handle)
        arrays.append(spec.dtype.decode(value))
    return arrays


@dataclass(frozen=True)
class HostFunction:
    """The attribute of an opaque node that calls ``function(*arrays, **options) -> array`` on the host."""

    function: Callable[..., np.ndarray[Any, Any]]
    options: tuple[tuple[str, Any], ...] = ()

    def run(self, call: OpaqueCall) -> None:
        """Copy in, compute, copy out."""
        arrays = host_arrays(call.backend, call.inputs)
        buffer, spec = call.output
        result = np.ascontiguousarray(spec.dtype.encode(self.function(*arrays, **dict(self.options))))
        if result.nbytes:
            call.backend.copy_in(buffer.handle, host_bytes(result))


def host_op(name: str, function: HostFunction, inputs: list[Var], spec: Spec) -> Var:
    """Record a host function without gradient."""
    nodes = tuple(x._node for x in inputs)
    return record(signature("opaque", name, function, tuple(n.spec for n in nodes), spec), nodes)
