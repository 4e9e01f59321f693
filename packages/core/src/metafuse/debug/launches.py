"""Launches with their times: level 2 of ``flags.debug``, and ``record_launches`` for programs that want the figures.

What it is: a second way to run a planned program, one launch at a time with a clock around each.
What it is not: used otherwise; normally a backend runs all steps of a program in one call. So kernels cost the same here, but
programs of many small kernels take longer.
Who calls it: ``runtime.launching``, if ``flags.debug >= 2`` or somebody records.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from time import perf_counter
from typing import Any

from ..backend.contract import AbstractBackend, Step
from ..backend.library import LibraryCall
from ..config import flags
from ..graph.node import Node
from ..kernel.ir import Kernel
from ..passes.plan import OpaqueStep, ProgramPlan
from ..runtime import launching
from ..runtime.buffer import Buffer
from ..runtime.kernels import KernelTable, symbol_of
from .log import tell
from .text import amount, counted, duration, origin, relative

__all__ = ["Launch", "Repeats", "record_launches", "run_timed"]


@dataclass(frozen=True)
class Launch:
    """One launch: kernel name, number of calls, seconds, size of all buffers it was given, innermost points.

    ``read``, ``written``, ``changed``: bytes of those that are only read, only written, and both. ``origin``: the name under
    which a kernel is compiled; the user's line of an opaque operation. ``extents``: those of the first call."""

    name: str
    calls: int
    seconds: float
    nbytes: int
    elements: int
    read: int = 0
    written: int = 0
    changed: int = 0
    origin: str = ""
    extents: tuple[int, ...] = ()


class Repeats:
    """How often every kernel runs: ``warmup`` times unseen, then ``rerun`` times more than once. What changes its own inputs, and
    the user's code, runs once."""

    warmup = 0
    rerun = 0


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
        launching.observers.append(self.rows.append)
        return self.rows

    def __exit__(self, *exception: object) -> None:
        launching.observers.remove(self.rows.append)


def run_timed(
    plan: ProgramPlan,
    backend: AbstractBackend,
    kernels: KernelTable,
    slots: Sequence[Buffer],
    scalars: Sequence[float | int],
    changed: bool,
    opaque: Callable[[OpaqueStep], None],
    nodes: Sequence[Node],
) -> None:
    """Run the steps of ``plan`` one by one; print each at level 2 and hand it to the observers.

    ``changed``: what constants come from differs from the last run. ``nodes``: those of the program."""
    handles = [buffer.handle for buffer in slots]
    if flags.debug >= 2:
        launches, arrays = counted(len(plan.steps), "launch"), counted(plan.leaves, "array")
        tell("run", f"{launches}, {arrays} in, {counted(len(plan.results), 'value')} out")
    backend.synchronize()
    for number, step in enumerate(plan.steps):
        if number in plan.constant.steps and not changed:
            continue
        if isinstance(step, OpaqueStep):
            run = partial(opaque, step)
            node = nodes[step.position]
            prepare = getattr(node.sig.attrs, "prepare", None)
            if prepare is not None:  # compiles what is new: not to be counted
                prepare(backend, kernels, [x.spec for x in node.inputs])
        elif isinstance(step, LibraryCall):
            run = partial(backend.launch_library, step, handles, changed)  # type: ignore[attr-defined]
        else:
            loaded = kernels.obtain([step.kernel])[0]
            run = partial(backend.launch, Step(step.kernel, loaded, step.calls), handles, scalars)
        for made in _timed(run, step, backend, slots, nodes):
            _tell(made)


def _timed(
    run: Callable[[], None],
    step: Any,
    backend: AbstractBackend,
    slots: Sequence[Buffer],
    nodes: Sequence[Node],
) -> Iterator[Launch]:
    """Run a step as often as it shall and may be run."""
    warmup, rerun = (Repeats.warmup, Repeats.rerun) if _repeatable(step) else (0, 0)
    for k in range(warmup + 1 + rerun):
        begin = perf_counter()
        run()
        backend.synchronize()
        if k >= warmup:
            yield _row(step, perf_counter() - begin, slots, nodes)


def _repeatable(step: Any) -> bool:
    """Whether another run leaves the same behind: nothing is read that the step itself writes."""
    if not (Repeats.warmup or Repeats.rerun) or isinstance(step, OpaqueStep):
        return False
    read, written = _touched(step)
    return not read & written


def _touched(step: Any) -> tuple[set[int], set[int]]:
    """The slots that a step reads and that it writes."""
    if isinstance(step, OpaqueStep):
        return set(step.inputs), {step.output}
    if isinstance(step, LibraryCall):
        return {s for k, s in enumerate(step.slots) if k != 2}, {step.slots[2]}
    pairs = [(b, s) for call in step.calls for b, s in zip(step.kernel.buffers, call.slots, strict=True)]
    return {s for b, s in pairs if b.reads}, {s for b, s in pairs if b.writes}


def _tell(made: Launch) -> None:
    """Print a launch at level 2, and hand it to those who record."""
    if flags.debug >= 2:
        rate = made.nbytes / made.seconds / 1e9 if made.seconds else 0.0
        calls = f" x {made.calls}" if made.calls > 1 else ""
        tell(
            "launch",
            f"{duration(made.seconds):>10}  {amount(made.nbytes):>10}  {rate:6.1f} GB/s  "
            f"{made.elements:>10} points  {made.name}{calls}",
        )
    for observer in launching.observers:
        observer(made)


def _row(step: Any, seconds: float, slots: Sequence[Buffer], nodes: Sequence[Node]) -> Launch:
    read, written = _touched(step)
    sizes = _bytes(read - written, slots), _bytes(written - read, slots), _bytes(read & written, slots)
    if isinstance(step, OpaqueStep):
        node = nodes[step.position]
        return Launch(node.sig.name, 1, seconds, sum(sizes), 0, *sizes, origin(node), node.spec.shape)
    if isinstance(step, LibraryCall):
        return Launch(f"library {step.name}", 1, seconds, sum(sizes), step.op.points, *sizes, "library")
    nbytes = sum(slots[s].nbytes for call in step.calls for s in set(call.slots))
    elements = sum(call.elements for call in step.calls)
    name, kernel = step.kernel.name, step.kernel
    extents = tuple(step.calls[0].sizes[: kernel.outer + kernel.inner])
    return Launch(name, len(step.calls), seconds, nbytes, elements, *sizes, _symbol(kernel), extents)


def run_alone(name: str, run: Callable[[], Any], backend: AbstractBackend, read: int, written: int) -> Any:
    """Time something that is no step of a program, and answer what it answers."""
    backend.synchronize()
    begin = perf_counter()
    answer = run()
    backend.synchronize()
    seconds = perf_counter() - begin
    frame: Any = sys._getframe(1)
    while frame.f_globals.get("__name__", "")[:8] == "metafuse" and frame.f_back is not None:
        frame = frame.f_back
    place = relative(f"{frame.f_code.co_filename}:{frame.f_lineno}")
    _tell(Launch(name, 1, seconds, read + written, 0, read, written, 0, place))
    return answer


def _bytes(some: set[int], slots: Sequence[Buffer]) -> int:
    return sum(slots[s].nbytes for s in some)


@lru_cache(maxsize=4096)
def _symbol(kernel: Kernel) -> str:
    return symbol_of(kernel)
