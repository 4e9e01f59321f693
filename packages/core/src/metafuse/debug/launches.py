"""Launches with their times: level 2 of ``flags.debug``, and ``record_launches`` for programs that want the figures.

What it is: a second way to run a planned program, one launch at a time with a clock around each.
What it is not: used otherwise; normally a backend runs all steps of a program in one call. So kernels cost the same here, but
programs of many small kernels take longer.
Who calls it: ``runtime.executor``, if ``flags.debug >= 2`` or somebody records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from ..backend.contract import AbstractBackend, Step
from ..backend.library import LibraryCall
from ..config import flags
from ..passes.schedule import OpaqueStep, ProgramPlan
from ..runtime import executor
from ..runtime.buffer import Buffer
from ..runtime.kernels import KernelTable
from .log import tell
from .text import amount, counted, duration

__all__ = ["Launch", "record_launches", "run_timed"]


@dataclass(frozen=True)
class Launch:
    """One launch: kernel name, number of calls, seconds, size of all buffers it was given, innermost points."""

    name: str
    calls: int
    seconds: float
    nbytes: int
    elements: int


class record_launches:  # noqa: N801 - reads as a statement
    """Collect every launch made in a ``with`` block as a ``Launch``, in order.

    Example:
        >>> import metafuse as mf
        >>> from metafuse.debug import record_launches
        >>> x = mf.ones(4).sync()
        >>> with record_launches() as rows:
        ...     y = (x + x).exp().sync()
        >>> len(rows), rows[0].elements
        (1, 4)
    """

    def __init__(self) -> None:
        self.rows: list[Launch] = []

    def __enter__(self) -> list[Launch]:
        executor.observers.append(self.rows.append)
        return self.rows

    def __exit__(self, *exception: object) -> None:
        executor.observers.remove(self.rows.append)


def run_timed(
    plan: ProgramPlan,
    backend: AbstractBackend,
    kernels: KernelTable,
    slots: Sequence[Buffer],
    scalars: Sequence[float | int],
    changed: bool,
    opaque: Callable[[OpaqueStep], None],
) -> None:
    """Run the steps of ``plan`` one by one; print each at level 2 and hand it to the observers.

    ``changed``: what constants come from differs from the last run."""
    handles = [buffer.handle for buffer in slots]
    if flags.debug >= 2:
        launches, arrays = counted(len(plan.steps), "launch"), counted(plan.leaves, "array")
        tell("run", f"{launches}, {arrays} in, {counted(len(plan.results), 'value')} out")
    backend.synchronize()
    for number, step in enumerate(plan.steps):
        if number in plan.constant.steps and not changed:
            continue
        begin = perf_counter()
        if isinstance(step, OpaqueStep):
            opaque(step)
        elif isinstance(step, LibraryCall):
            backend.launch_library(step, handles, changed)  # type: ignore[attr-defined]
        else:
            loaded = kernels.obtain([step.kernel])[0]
            begin = perf_counter()
            backend.launch(Step(step.kernel, loaded, step.calls), handles, scalars)
        backend.synchronize()
        made = _row(step, perf_counter() - begin, slots)
        if flags.debug >= 2:
            rate = made.nbytes / made.seconds / 1e9 if made.seconds else 0.0
            calls = f" x {made.calls}" if made.calls > 1 else ""
            tell(
                "launch",
                f"{duration(made.seconds):>10}  {amount(made.nbytes):>10}  {rate:6.1f} GB/s  "
                f"{made.elements:>10} points  {made.name}{calls}",
            )
        for observer in executor.observers:
            observer(made)


def _row(step: Any, seconds: float, slots: Sequence[Buffer]) -> Launch:
    if isinstance(step, OpaqueStep):
        touched = {*step.inputs, step.output}
        return Launch(f"opaque {step.position}", 1, seconds, sum(slots[s].nbytes for s in touched), 0)
    if isinstance(step, LibraryCall):
        touched = set(step.slots)
        return Launch(f"library {step.name}", 1, seconds, sum(slots[s].nbytes for s in touched), step.op.points)
    nbytes = sum(slots[s].nbytes for call in step.calls for s in set(call.slots))
    elements = sum(call.elements for call in step.calls)
    return Launch(step.kernel.name, len(step.calls), seconds, nbytes, elements)
