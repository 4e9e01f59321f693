"""OpaqueCall: what an opaque node is given when it runs.

What it is: one record.
What it is not: the node's attribute, whose ``run(call)`` fills the output; each is where its operator is.
Who calls it: ``launching`` makes one per run; ``ops`` and ``dist`` have the attributes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..backend.contract import AbstractBackend
from ..graph.node import Spec
from .buffer import Buffer
from .kernels import KernelTable

__all__ = ["OpaqueCall"]


class OpaqueCall(NamedTuple):
    """One run of an opaque node: where, from what, to what, and the node's numbers."""

    backend: AbstractBackend
    kernels: KernelTable
    inputs: list[tuple[Buffer, Spec]]
    output: tuple[Buffer, Spec]
    scalars: tuple[Any, ...]
