"""Programs: plans whose kernels are loaded.

What it is: ``Program``; ``build``, which plans pending nodes and has what is new compiled; ``Device``, what is kept per backend;
memory for what a program needs between its steps.
What it is not: the plan (``passes``), the choice which program a graph has (``executor``) or its run (``launching``).
Who calls it: ``executor``; ``capture.replay`` keeps memory of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..backend.contract import AbstractBackend, Step
from ..backend.library import LibraryCall
from ..backend.optional import SupportsPrograms
from ..errors import KernelError, MetafuseError
from ..graph.node import Node, describe_origin
from ..passes.plan import OpaqueStep, PlannedStep, ProgramPlan
from .buffer import Buffer
from .kernels import KernelTable

if TYPE_CHECKING:
    from .pending import Route

__all__ = ["Device", "Program", "build", "story", "temporaries"]


@dataclass(slots=True)
class Program:
    """A plan whose kernels are loaded: a list of native runs and opaque steps.

    ``kept``: buffers of constants; ``state``: versions of the arrays and numbers that they were computed from."""

    plan: ProgramPlan
    parts: list[Any]
    kept: list[Buffer] = field(default_factory=list)
    state: tuple[Any, ...] | None = None

    @property
    def kept_bytes(self) -> int:
        """Memory that its library operations keep between runs."""
        return sum(s.plan.kept_bytes for s in self.plan.steps if isinstance(s, LibraryCall))


class Device:
    """What is kept per backend: kernels, and routes to programs by the structure of a pending graph."""

    def __init__(self, backend: AbstractBackend) -> None:
        self.backend = backend
        self.kernels = KernelTable(backend)
        self.routes: dict[tuple[Any, ...], Route] = {}

    @property
    def programs(self) -> list[Program]:
        """Every program that is kept, the oldest first."""
        return list({id(r.program): r.program for r in self.routes.values()}.values())


def build(
    dev: Device, nodes: list[Node], leaves: list[Node], shown: tuple[int, ...], retained: tuple[int, ...]
) -> Program:
    from ..passes.pipeline import build_plan  # a large part of the import, needed by the first new program

    plan = build_plan(nodes, leaves, shown, dev.backend, retained)
    launches = [s for s in plan.steps if isinstance(s, PlannedStep)]
    try:
        loaded = iter(dev.kernels.obtain([s.kernel for s in launches]))
    except MetafuseError as error:
        raise type(error)(f"{error}\noperators: {story(nodes)}") from error
    except Exception as error:
        raise KernelError(f"[compile] {error}; operators: {story(nodes)}") from error
    parts: list[Any] = []
    run: list[Step | LibraryCall] = []
    constant: list[int] = []  # those of the run that need not run again
    for number, step in enumerate(plan.steps):
        if isinstance(step, OpaqueStep):
            _close(dev, run, constant, plan, parts)
            parts.append(step)
            run, constant = [], []
            continue
        if number in plan.constant.steps:
            constant.append(len(run))
        run.append(step if isinstance(step, LibraryCall) else Step(step.kernel, next(loaded), step.calls))
    _close(dev, run, constant, plan, parts)
    return Program(plan, parts)


def _close(
    dev: Device, run: list[Step | LibraryCall], constant: list[int], plan: ProgramPlan, parts: list[Any]
) -> None:
    if not run:
        return
    backend = dev.backend
    prepared = isinstance(backend, SupportsPrograms)
    parts.append(backend.prepare(run, plan.scalar_kinds, constant) if prepared else (run, constant))  # type: ignore[attr-defined]


def temporaries(plan: ProgramPlan, backend: AbstractBackend) -> list[tuple[int, Any]]:
    """Memory for every temporary slot, with the ``handle`` and ``nbytes`` of a buffer."""
    if not plan.places:
        return [(slot, Buffer(backend, nbytes)) for slot, nbytes in plan.temporaries]
    arena = Buffer(backend, max(plan.arena_bytes, 1))
    return [
        (slot, _Part(backend.part(arena.handle, place), nbytes, arena))  # type: ignore[attr-defined]
        for (slot, nbytes), place in zip(plan.temporaries, plan.places, strict=True)
    ]


class _Part:
    """A temporary within an allocation, which it keeps alive."""

    __slots__ = ("arena", "handle", "nbytes")

    def __init__(self, handle: Any, nbytes: int, arena: Buffer) -> None:
        self.handle, self.nbytes, self.arena = handle, nbytes, arena


def story(nodes: Sequence[Node], limit: int = 12) -> str:
    """Operators, specs and the user's lines, for errors."""
    shown = [f"{n.sig!r} at {describe_origin(n)}" for n in nodes[-limit:]]
    more = f" and {len(nodes) - limit} more" if len(nodes) > limit else ""
    return "; ".join(shown) + more
