"""How a kernel walks through memory, and which schedule follows from it.

What it is: the classification of all loads and stores by axis, and ``choose``.
What it is not: code; ``loops`` and ``reductions`` write that.
Who calls it: ``codegen``, to choose a schedule, and every schedule.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from metafuse.kernel.expr import Expr, cost_of, walk
from metafuse.kernel.ir import Kernel, Stage
from metafuse.kernel.scope import Affine, affine

__all__ = ["Access", "Schedule", "accesses", "choose", "cost", "is_plain_store", "stages_of"]

#: what one access costs if the loop that is vectorised runs along an axis with this kind of stride
_COST = {"none": 0.1, "unit": 1.0, "strided": 8.0, "gather": 8.0}
#: rows of at most so many elements are not worth a loop of their own where lanes are possible
_SHORT_ROW = 16
#: ... if there are at least so many lanes
FEWEST_LANES = 4


@dataclass(frozen=True)
class Access:
    """One load or store: its offset and whether it happens once per inner or once per outer point."""

    offset: Affine
    level: str


@dataclass(frozen=True)
class Schedule:
    """A way to run a kernel.

    ``kind``: ``elements`` (no reduction; any element is a unit), ``rows`` (one outer point is a unit, vectors run along
    an inner axis) or ``lanes`` (a tile of outer points along one axis is a unit, vectors run along that axis).
    ``axis``: the axis that vectors run along, -1 if there is none. ``across``: for ``elements``, the axis along which
    other accesses are contiguous, so that both are walked in square tiles; else -1.
    """

    kind: str
    axis: int
    across: int = -1
    short_row: int = _SHORT_ROW


def accesses(kernel: Kernel) -> list[Access]:
    """Every distinct load and store of ``kernel``."""
    found: list[Access] = []
    for stage in kernel.stages:
        offsets = {node.args[0] for node in stage.loads}
        if stage.offset is not None:
            offsets.add(stage.offset)
        found += [Access(affine(offset), stage.level) for offset in sorted(offsets, key=repr)]
    return found


def stages_of(kernel: Kernel) -> list[tuple[int, list[Stage], list[Stage]]]:
    """The phases in order: number, stages per inner point, stages per outer point."""
    phases = sorted({stage.phase for stage in kernel.stages})
    return [
        (
            phase,
            [s for s in kernel.stages if s.phase == phase and s.level == "inner"],
            [s for s in kernel.stages if s.phase == phase and s.level != "inner"],
        )
        for phase in phases
    ]


def cost(stages: Iterable[Stage]) -> int:
    """What a point costs in additions: what several stages need counts once, addresses do not count."""
    seen: set[Expr] = set()
    stack = [stage.expr for stage in stages]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack.extend(node.args[1:] if node.op == "load" else node.args)
    return sum(map(cost_of, seen))


def is_plain_store(kernel: Kernel, stage: Stage, axis: int) -> bool:
    """Whether a stage stores to an array that is written once, contiguously along ``axis``, and read by nobody here."""
    writers = [s.buffer for s in kernel.stages if s.kind in ("store", "scatter")]
    return (
        stage.kind == "store"
        and stage.offset is not None
        and writers.count(stage.buffer) == 1
        and not kernel.buffers[stage.buffer].reads
        and affine(stage.offset).stride(axis) == "unit"
    )


def _cost(found: list[Access], number: int, kernel: Kernel) -> float:
    """What running vectors along axis ``number`` costs. Accesses outside of the inner loops hardly count."""
    inner = kernel.inner > 0
    return sum(
        _COST[access.offset.stride(number)] * (0.05 if inner and access.level == "outer" else 1.0)
        for access in found
    )


def _best(found: list[Access], candidates: range, kernel: Kernel) -> tuple[float, int]:
    """Lowest cost and its axis; of equals the last."""
    best = min(((_cost(found, number, kernel), -number) for number in candidates), default=(float("inf"), 1))
    return best[0], -best[1]


def _flat(kernel: Kernel) -> bool:
    """Whether every stage stands for itself at every point, so that inner axes are as free as outer ones."""
    kinds = {stage.kind for stage in kernel.stages}
    if kernel.inner == 0:
        return not kinds & {"reduce", "scatter"}
    written = {number for number, buffer in enumerate(kernel.buffers) if buffer.writes}
    reads = {n.value for s in kernel.stages for n in walk(s.expr) if n.op == "load"}
    inner_stores = all(stage.kind == "store" and stage.level == "inner" for stage in kernel.stages)
    return inner_stores and not reads & written


def choose(kernel: Kernel) -> list[Schedule]:
    """The schedule for ``kernel``; two (rows, lanes) where run-time sizes must decide."""
    found = accesses(kernel)
    axes = kernel.outer + kernel.inner
    if _flat(kernel) and not kernel.serial:
        _, lane = _best(found, range(axes), kernel)
        return [Schedule("elements", lane, _across(found, lane, axes))]
    row_cost, row = _best(found, range(kernel.outer, axes), kernel)
    if kernel.serial:  # a unit runs through its points one by one
        return [Schedule("rows", row)]
    lane_cost, lane = _best(found, range(kernel.outer), kernel)
    scatters = any(stage.kind == "scatter" for stage in kernel.stages)
    if scatters and kernel.inner:  # inner points must keep their order
        row = axes - 1
    if kernel.outer and lane_cost <= row_cost:
        return [Schedule("lanes", lane)]
    rows = Schedule("rows", row)
    single = len({stage.phase for stage in kernel.stages}) == 1
    if (single or _pools(kernel)) and kernel.outer and not scatters:
        return [rows, Schedule("lanes", lane)]
    return [rows]


def _pools(kernel: Kernel) -> bool:
    """Whether inner axes may well be short, as in pooling: nothing is written per inner point, or they are several."""
    return kernel.inner > 1 or all(stage.kind != "store" for stage in kernel.stages if stage.level == "inner")


def _across(found: list[Access], lane: int, axes: int) -> int:
    """An axis along which an access is contiguous that strides along ``lane``: the sign of a transposition."""
    votes = [0] * axes
    for access in found:
        if lane >= 0 and access.offset.stride(lane) == "strided":
            for number in range(axes):
                votes[number] += number != lane and access.offset.stride(number) == "unit"
    return votes.index(max(votes)) if any(votes) else -1
