"""Schedule and plan: the order of launches, and which memory each value lives in.

What it is: merges independent calls of one kernel into one launch, puts terminal groups (parameter updates) last,
and assigns slots: leaves, outputs, and temporaries that share memory when their lives do not overlap.
What it is not: allocation (``runtime.executor`` binds slots to buffers at every run).
Who calls it: ``passes.pipeline``; ``early`` moves its launches.
"""

from __future__ import annotations

from bisect import insort

from ..backend.contract import Call
from ..backend.library import LibraryCall
from ..kernel.ir import Kernel, Stage
from .fuse import Group
from .library import LoweredLibrary
from .lower import LoweredCall
from .plan import Constants, OpaqueStep, PlannedStep, ProgramPlan
from .program_graph import ProgramGraph

__all__ = ["Item", "plan_memory", "schedule"]


#: temporaries begin at multiples of this many bytes
ALIGNMENT = 64
#: temporaries from this size on do not follow one another at once: processors take addresses with the same last bits for the
#: same place when a load follows a store, and sizes are often powers of two
STAGGERED, STAGGER = 1 << 16, 9 * ALIGNMENT
#: programs with more values share memory by a rule that takes less time
MOST_PLACED = 1500
Item = LoweredCall | LoweredLibrary | int  # a kernel call, a library call, or the position of an opaque node


def schedule(groups: list[Group], lowered: list[Item]) -> list[list[Item]]:
    """Launches in order; each is a list of independent items with the same kernel."""
    read_later: set[int] = set()
    terminal: list[bool] = [False] * len(groups)
    for k in range(len(groups) - 1, -1, -1):
        made = set(groups[k].places)
        item = lowered[k]
        terminal[k] = isinstance(item, LoweredCall) and groups[k].kind == "map" and not made & read_later
        read_later |= groups[k].reads - made
        if groups[k].kind in ("scatter", "store"):
            read_later |= made
    launches: list[list[Item]] = [[item] for k, item in enumerate(lowered) if not terminal[k]]
    last: dict[Kernel, list[Item]] = {}
    for k, item in enumerate(lowered):
        if terminal[k]:
            assert isinstance(item, LoweredCall)
            if item.kernel in last:
                last[item.kernel].append(item)
            else:
                last[item.kernel] = [item]
    launches.extend(last.values())
    return launches


def plan_memory(
    graph: ProgramGraph, launches: list[list[Item]], kept: dict[int, list[int]], parts: bool = False
) -> ProgramPlan:
    """Assign slots. ``kept``: value number -> positions of the nodes that hand it out after the run. ``parts``: the backend's
    memory can be divided, so that temporaries share one allocation."""
    births, deaths = _lives(graph, launches)
    slots = {graph.count + k: k for k in range(graph.leaves)}
    outputs: list[tuple[int, int]] = []
    orders: list[tuple[int, tuple[int, ...]]] = []
    for value in births:
        if value in kept:
            slots[value] = graph.leaves + len(outputs)
            outputs.append((slots[value], max(graph.specs[value].nbytes, 1)))
            if value in graph.orders:
                orders.append((slots[value], graph.orders[value]))
    joined = _joined(launches, births, deaths, kept)
    lasting = [value for value in births if value in graph.constants]
    for value in (*joined, *lasting):
        del births[value]
    first = graph.leaves + len(outputs)
    places: list[int] = []
    arena_bytes = 0
    if parts and len(births) <= MOST_PLACED:
        temporaries, places, arena_bytes = _arena(graph, births, deaths, kept, slots, first)
    else:
        temporaries = _share(graph, launches, births, deaths, kept, slots, first)
    for value, partner in joined.items():
        slots[value] = slots[partner]
    first_constant = graph.leaves + len(outputs) + len(temporaries)
    for k, value in enumerate(lasting):
        slots[value] = first_constant + k
    results = tuple((position, slots[value]) for value, positions in kept.items() for position in positions)
    return ProgramPlan(
        _steps(graph, launches, slots), graph.leaves, tuple(outputs), tuple(temporaries), results,
        _donations(graph, launches, births, deaths, kept, slots), graph.scalar_kinds,
        tuple(item for launch in launches for item in launch), _constants(graph, launches, slots, lasting),
        tuple(orders), tuple(sorted(k - graph.count for k in graph.read_flat)), tuple(places), arena_bytes,
    )  # fmt: skip


def _steps(
    graph: ProgramGraph, launches: list[list[Item]], slots: dict[int, int]
) -> tuple[PlannedStep | OpaqueStep | LibraryCall, ...]:
    """The launches with slots for values."""
    steps: list[PlannedStep | OpaqueStep | LibraryCall] = []
    for launch in launches:
        first = launch[0]
        if isinstance(first, LoweredLibrary):
            scratch = slots[first.scratch] if first.scratch >= 0 else -1
            operands = tuple(slots[v] for v in first.values)
            steps.append(LibraryCall(first.op, first.plan, operands, scratch, first.name))
            continue
        if isinstance(first, int):
            inputs = tuple(slots[graph.base(i)] for i in graph.inputs[first])
            steps.append(OpaqueStep(first, inputs, slots[first]))
            continue
        calls = tuple(
            Call(tuple(slots[v] for v in item.values), item.sizes, item.scalars, item.elements)
            for item in launch
            if isinstance(item, LoweredCall)
        )
        steps.append(PlannedStep(first.kernel, calls))
    return tuple(steps)


def _constants(
    graph: ProgramGraph, launches: list[list[Item]], slots: dict[int, int], lasting: list[int]
) -> Constants:
    """What need not be computed again while nothing changes."""
    steps: set[int] = set()
    sources: set[int] = set()
    scalars: set[int] = set()
    for time, launch in enumerate(launches):
        item = launch[0]
        if isinstance(item, LoweredLibrary) and item.op.constant:
            sources.update(item.values[1:2] if not item.op.scale else (item.values[1], item.values[3]))
        elif isinstance(item, LoweredCall) and item.writes and graph.constants.issuperset(item.writes):
            steps.add(time)
            sources.update(item.values)
            scalars.update(item.scalars)
    leaves = tuple(sorted(k - graph.count for k in sources if graph.is_leaf(k)))
    held = tuple((slots[v], max(graph.specs[v].nbytes, 1)) for v in lasting)
    return Constants(frozenset(steps), held, leaves, tuple(sorted(scalars)))


def _lives(graph: ProgramGraph, launches: list[list[Item]]) -> tuple[dict[int, int], dict[int, int]]:
    """Value -> launch that first writes it; value -> last launch that touches it."""
    births: dict[int, int] = {}
    deaths: dict[int, int] = {}
    for time, launch in enumerate(launches):
        for item in launch:
            if isinstance(item, int):
                births.setdefault(item, time)
                touched = [item, *(graph.base(i) for i in graph.inputs[item])]
            else:
                touched = [*item.values, *item.writes]
                for value in item.writes:
                    births.setdefault(value, time)
            for value in touched:
                deaths[value] = time
    return births, deaths


def _joined(
    launches: list[list[Item]],
    births: dict[int, int],
    deaths: dict[int, int],
    kept: dict[int, list[int]],
) -> dict[int, int]:
    """Values that one kernel stores and reads back, and nobody else sees, live in the place of one of its results."""
    found: dict[int, int] = {}
    for time, launch in enumerate(launches):
        for item in launch:
            if not isinstance(item, LoweredCall):
                continue
            for value, partner in item.spilled:
                if births.get(value) == deaths[value] == time and value not in kept and partner not in found:
                    found[value] = partner
    return found


def _arena(
    graph: ProgramGraph,
    births: dict[int, int],
    deaths: dict[int, int],
    kept: dict[int, list[int]],
    slots: dict[int, int],
    first: int,
) -> tuple[list[tuple[int, int]], list[int], int]:
    """Temporaries (slot, bytes), where each lies in one allocation, and its size: the largest first, each into the tightest gap
    between those that live at the same time (greedy by size, Pisarchyk and Lee 2020)."""
    placed: list[tuple[int, int, int, int]] = []  # (begin, end, birth, death), ascending
    temporaries: list[tuple[int, int]] = []
    places: list[int] = []
    top = 0
    values = [v for v in births if v not in kept]
    for value in sorted(values, key=lambda v: -graph.specs[v].nbytes):
        size = (max(graph.specs[value].nbytes, 1) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        if size >= STAGGERED:
            size += STAGGER
        birth, death = births[value], deaths[value]
        at, best, room = 0, -1, 0
        for begin, end, born, died in placed:
            if death < born or birth > died:
                continue
            if begin - at >= size and (best < 0 or begin - at < room):
                best, room = at, begin - at
            at = max(at, end)
        place = best if best >= 0 else at
        insort(placed, (place, place + size, birth, death))
        top = max(top, place + size)
        slots[value] = first + len(temporaries)
        temporaries.append((slots[value], size))
        places.append(place)
    return temporaries, places, top


def _share(
    graph: ProgramGraph,
    launches: list[list[Item]],
    births: dict[int, int],
    deaths: dict[int, int],
    kept: dict[int, list[int]],
    slots: dict[int, int],
    first: int,
) -> list[tuple[int, int]]:
    """Slots for temporaries, greedily: the smallest free one that is large enough, else grow or add."""
    sizes: list[int] = []
    free: list[int] = []
    dying: dict[int, list[int]] = {}
    ordered = sorted((time, value) for value, time in births.items() if value not in kept)
    at = 0
    for time in range(len(launches)):
        while at < len(ordered) and ordered[at][0] == time:
            value = ordered[at][1]
            at += 1
            need = max(graph.specs[value].nbytes, 1)
            fitting = [s for s in free if sizes[s] >= need]
            if fitting:
                chosen = min(fitting, key=lambda s: sizes[s])
                free.remove(chosen)
            elif free:
                chosen = max(free, key=lambda s: sizes[s])
                free.remove(chosen)
                sizes[chosen] = need
            else:
                chosen = len(sizes)
                sizes.append(need)
            slots[value] = first + chosen
            dying.setdefault(deaths[value], []).append(chosen)
        free.extend(dying.pop(time, ()))
    return [(first + k, n) for k, n in enumerate(sizes)]


def _donations(
    graph: ProgramGraph,
    launches: list[list[Item]],
    births: dict[int, int],
    deaths: dict[int, int],
    kept: dict[int, list[int]],
    slots: dict[int, int],
) -> tuple[tuple[int, int], ...]:
    """Outputs that may be written over a leaf which the same call reads at the same element, and nobody reads later.

    Not before the last opaque node: a user's code may raise, and what was pending then is computed once more."""
    found: list[tuple[int, int]] = []
    taken: set[int] = set()
    first = 1 + max((time for time, launch in enumerate(launches) if isinstance(launch[0], int)), default=-1)
    for time, launch in enumerate(launches[first:], first):
        readers: dict[int, int] = {}
        for item in launch:
            if isinstance(item, LoweredCall):
                for value in set(item.values):
                    readers[value] = readers.get(value, 0) + 1
        for item in launch:
            if not isinstance(item, LoweredCall):
                continue
            # leaves that nobody but this call reads, now or later
            free = {
                value: slot
                for slot, value in enumerate(item.values)
                if graph.is_leaf(value)
                and value not in kept
                and deaths[value] == time
                and readers[value] == 1
            }
            for stage in item.kernel.stages:
                if stage.kind != "store" or stage.level != "outer" or item.values[stage.buffer] not in kept:
                    continue
                output = item.values[stage.buffer]
                if births[output] != time:  # an earlier launch has begun to write it
                    continue
                for value, slot in free.items():
                    same = _same_size(graph, value, output)
                    if same and value not in taken and _read_only_by(item.kernel, slot, stage):
                        found.append((slots[output], slots[value]))
                        taken.add(value)
                        break
    return tuple(found)


def _same_size(graph: ProgramGraph, value: int, other: int) -> bool:
    """Whether one may be written over the other element by element."""
    a, b = graph.specs[value], graph.specs[other]
    return a.nbytes == b.nbytes and a.dtype.itemsize == b.dtype.itemsize


def _read_only_by(kernel: Kernel, slot: int, store: Stage) -> bool:
    """Whether buffer ``slot`` is read at the place of ``store`` only, and by nobody after it.

    Stages of one phase and level read before they write, so others may read it too, except in the tail of a contraction."""
    for stage in kernel.stages:
        for x in stage.loads:
            if x.value != slot:
                continue
            if x.args[0] != store.offset or stage.level != "outer" or stage.phase > store.phase:
                return False
            if kernel.contraction is not None and stage is not store:
                return False
    return True
