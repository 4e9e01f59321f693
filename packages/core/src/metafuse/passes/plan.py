"""Plan: what planning a program leaves, as records.

What it is: the steps of a program and where their memory is.
What it is not: the passes that make it; a process that finds its programs planned never loads those.
Who calls it: ``passes.schedule`` makes plans, ``runtime.executor`` and ``capture`` run them, ``debug`` shows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..backend.contract import Call
from ..backend.library import LibraryCall
from ..kernel.ir import Kernel

if TYPE_CHECKING:
    from .library import LoweredLibrary
    from .lower import LoweredCall

__all__ = ["Constants", "OpaqueStep", "PlannedStep", "ProgramPlan"]


@dataclass(frozen=True)
class PlannedStep:
    """One launch: a kernel and its independent calls."""

    kernel: Kernel
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class OpaqueStep:
    """User code or a host function: the node's position, where its inputs are, where its result goes."""

    position: int
    inputs: tuple[int, ...]
    output: int


@dataclass(frozen=True)
class ProgramPlan:
    """Everything needed to run a program but its buffers.

    Slots: ``0 .. leaves - 1`` are the leaves, then outputs, then temporaries, then constants. ``outputs``: (slot, bytes) to
    allocate and keep; ``temporaries``: (slot, bytes) to allocate for the run. ``results``: (node position, slot) of values
    handed out. ``donations``: (output slot, leaf slot whose buffer it may take over if nobody else holds it). ``constant``:
    what stays from run to run while the arrays it comes from do.
    """

    steps: tuple[PlannedStep | OpaqueStep | LibraryCall, ...]
    leaves: int
    outputs: tuple[tuple[int, int], ...]
    temporaries: tuple[tuple[int, int], ...]
    results: tuple[tuple[int, int], ...]
    donations: tuple[tuple[int, int], ...]
    scalar_kinds: str
    #: calls as lowered, in launch order, for explain and debugging
    groups: tuple[LoweredCall | LoweredLibrary | int, ...]
    constant: Constants
    #: (slot, order of dimensions in memory) of outputs that are not row-major
    orders: tuple[tuple[int, tuple[int, ...]], ...] = ()
    #: leaves that must be row-major
    row_major: tuple[int, ...] = ()
    #: where each temporary lies in one allocation of ``arena_bytes``, in their order; empty: each has its own
    places: tuple[int, ...] = ()
    arena_bytes: int = 0


@dataclass(frozen=True)
class Constants:
    """``steps``: numbers of those that run only if something changed; ``slots``: (slot, bytes) of their results; ``leaves`` and
    ``scalars``: positions of the arrays and numbers that they and packed operands come from."""

    steps: frozenset[int] = frozenset()
    slots: tuple[tuple[int, int], ...] = ()
    leaves: tuple[int, ...] = ()
    scalars: tuple[int, ...] = ()
