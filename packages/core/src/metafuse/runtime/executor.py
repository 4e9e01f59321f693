"""Executor: makes pending nodes real.

What it is: collects what has to run, finds or builds its program, binds buffers, runs it, and cuts the graph behind what
nobody can ask a gradient of any more. Also moves arrays in and out.
What it is not: planning (``passes``) or code (``kernels``).
Who calls it: ``var`` when a value is read, ``optim`` at the end of a step; ``capture`` launches what it replays.

The rule of evaluation (``docs/evaluation.md``): a sync runs every pending value that a live handle holds and that is not
younger than what was asked for, as one program.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

import numpy as np

from ..backend.contract import AbstractBackend, Step, host_bytes
from ..backend.library import LibraryCall
from ..backend.optional import SupportsHostView, SupportsPrograms
from ..config import flags
from ..errors import KernelError, MetafuseError
from ..graph.node import Node, Spec, describe_origin, state
from ..graph.recipe import Block, block_of
from ..passes.plan import OpaqueStep, PlannedStep, ProgramPlan
from ..plugins.registry import registry
from . import forks
from .buffer import Buffer, next_version
from .kernels import KernelTable, statistics
from .opaque import OpaqueCall
from .pending import Graph, Route, is_held, needed_by_gradients

__all__ = [
    "Program", "device", "devices", "evaluate", "finished", "last_program", "launch", "lock", "move", "observers",
    "preview", "read", "temporaries", "upload", "view", "watchers",
]  # fmt: skip

#: how many programs are kept; the oldest go first
PROGRAM_LIMIT = 512
#: how many kinds of pending graphs know their program
ROUTE_LIMIT = 4 * PROGRAM_LIMIT
#: bytes of packed weights that they may keep, all together, beside those of the newest
KEPT_LIMIT = 2 << 30


@dataclass
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


class _Device:
    """What the executor keeps per backend."""

    def __init__(self, backend: AbstractBackend) -> None:
        self.backend = backend
        self.kernels = KernelTable(backend)
        self.routes: dict[tuple[Any, ...], Route] = {}

    @property
    def programs(self) -> list[Program]:
        """Every program that is kept, the oldest first."""
        return list({id(r.program): r.program for r in self.routes.values()}.values())


#: by the backend's name
devices: dict[str, _Device] = {}
#: held while anything is evaluated or replayed
lock = RLock()
forks.between_programs(lambda: lock, lambda new: globals().update(lock=new))
last_program: list[Program] = []
#: called with every launch (``debug.launches.Launch``); while there is one, launches run one by one
observers: list[Callable[[Any], None]] = []
#: at most one ``capture.recorder.Recorder``, told of programs, of Vars that are bound anew and of values that are read
watchers: list[Any] = []
#: called after every evaluation, outside of the lock
finished: list[Callable[[], None]] = []
#: the opaque node that runs now, for messages
running: Node | None = None


def device() -> _Device:
    """The device that programs run on now."""
    backend = registry().default_backend()
    found = devices.get(backend.name)
    if found is None or found.backend is not backend:
        found = devices[backend.name] = _Device(backend)
        if flags.debug:
            from ..debug import log

            log.device(backend)
    return found


# -- arrays in and out --------------------------------------------------------------------------------------------
def upload(value: np.ndarray[Any, Any], spec: Spec) -> Buffer:
    """A buffer with a copy of a host array of the right dtype (any strides)."""
    backend = device().backend
    buffer = Buffer(backend, max(spec.nbytes, 1))
    if spec.nbytes:
        backend.copy_in(buffer.handle, host_bytes(np.ascontiguousarray(spec.dtype.encode(value))))
    return buffer


def read(node: Node) -> np.ndarray[Any, Any]:
    """The value of ``node`` as a new host array, computed first if it must be."""
    if node.buffer is None:
        evaluate([node])
    assert node.buffer is not None
    result = np.empty(node.spec.shape, node.spec.dtype.storage)
    if result.nbytes:
        backend, order = node.buffer.backend, node.buffer.order
        backend.synchronize()
        if order is not None:
            stored = np.empty([node.spec.shape[d] for d in order], result.dtype)
            backend.copy_out(host_bytes(stored), node.buffer.handle)
            result[...] = stored.transpose([order.index(d) for d in range(len(order))])
        else:
            backend.copy_out(host_bytes(result), node.buffer.handle)
    return node.spec.dtype.decode(result)


def view(node: Node) -> np.ndarray[Any, Any]:
    """The value of ``node`` as an array over its own memory where the device allows it, else a copy."""
    if node.buffer is None:
        evaluate([node])
    buffer = node.buffer
    assert buffer is not None
    backend = buffer.backend
    if node.spec.dtype.storage != node.spec.dtype.numpy:
        copied = read(node)
        copied.flags.writeable = False  # what is written to a copy would be lost unseen
        return copied
    if not isinstance(backend, SupportsHostView) or not node.spec.nbytes or buffer.order is not None:
        return read(node)
    backend.synchronize()
    buffer.version = 0  # the array is writable
    raw = backend.host_view(buffer.handle, node.spec.nbytes)
    array = raw.view(_Holder)
    array.holder = buffer  # the memory stays as long as the view does
    return array.view(node.spec.dtype.numpy).reshape(node.spec.shape)


class _Holder(np.ndarray[Any, Any]):
    """An array that keeps the buffer it looks into alive."""

    holder: Buffer


# -- evaluation ---------------------------------------------------------------------------------------------------
def evaluate(targets: Sequence[Node] | None, alone: bool = False) -> None:
    """Run what ``targets`` need and, unless ``alone``, every older pending value that is held; ``None``: everything pending."""
    with lock:
        if targets is not None:
            for t in targets:
                if t.buffer is not None:
                    targets = [t for t in targets if t.buffer is None]
                    break
            if not targets:
                return
        roots = _take_pending(targets, alone)
        if roots:
            _run(roots)
    for callback in finished:
        callback()


def preview(
    targets: Sequence[Node],
) -> tuple[list[Node], list[Node], tuple[int, ...], tuple[int, ...]]:
    """What ``evaluate`` would run now: nodes in order, the stored arrays they read, and the positions that are handed out
    and that gradients may need. Runs nothing; what is pending stays so."""
    with lock:
        waiting = list(state.pending)
        try:
            roots = _take_pending([t for t in targets if t.buffer is None])
        finally:
            state.pending = waiting
        try:
            graph = Graph(roots, plain=True)
            shown, needed = _shown(graph), needed_by_gradients(graph.units, roots)
        finally:
            for node in roots:
                node.pos = 0
        return graph.units, graph.leaves, shown, tuple(k for k, flag in enumerate(needed) if flag)


def _take_pending(targets: Sequence[Node] | None, alone: bool = False) -> list[Node]:
    """Live pending nodes up to the age of the youngest target, each once; younger ones stay pending, and ``alone`` all others."""
    limit: float | None = None
    for node in targets or ():
        age = node.order if type(node) is Node else block_of(node)[0].order
        if limit is None or age > limit:
            limit = age
    waiting = state.pending
    state.pending = rest = []
    roots: list[Node] = list(targets) if targets is not None else []
    for node in roots:
        node.pos = -2
    for handle in waiting:
        var = handle()
        if var is None:
            continue
        node = var._node
        if node.buffer is not None or node.pos == -2:
            continue
        if alone or (limit is not None and node.order > limit):
            rest.append(handle)
        else:
            node.pos = -2
            roots.append(node)
    if len(rest) > 1:  # a handle that was bound anew several times is there several times
        rest[:] = {id(handle): handle for handle in rest}.values()
    return roots


def _run(roots: list[Node]) -> None:
    observed = bool(watchers or observers) or flags.debug >= 2
    dev = device()
    try:
        graph = Graph(roots, plain=observed)
        key = (graph.key, flags.library, flags.math)
        route = dev.routes.get(key)
        if route is None:
            graph, route = _find_route(dev, graph, key)
        statistics.programs += 1
        leaves, scalars = graph.leaves, graph.scalars
        graph.leaves = []  # the program alone refers to them now
        if route.leaves is not None:
            leaves = [leaves[k] for k in route.leaves]
        if route.scalars is not None:
            scalars = [scalars[k] for k in route.scalars]
        donate = bool(route.donations) and not state.pending and graph.unshared(route)
        program = route.program
        slots = _bind(program, dev, leaves, route.donations if donate else ())
        for watcher in watchers:
            watcher.program(program, graph.units, leaves, scalars, slots)
        launch(program, dev, slots, scalars, _Nodes(graph, route))
    except BaseException:
        _restore(roots)
        raise
    _store(graph, route, slots)
    last_program[:] = [program]


def _find_route(dev: _Device, graph: Graph, key: tuple[Any, ...]) -> tuple[Graph, Route]:
    """The program of a graph that has not been seen before, which is planned from ordinary nodes; answers the graph of these."""
    references = graph.references()
    expanded = {k: unit.expand() for k, unit in enumerate(graph.units) if type(unit) is Block}
    origins = {id(unit): (k, -1) for k, unit in enumerate(graph.units)}
    for k, nodes in expanded.items():
        for step, node in enumerate(nodes):
            origins.setdefault(id(node), (k, step))
    plain = Graph(graph.roots, plain=True) if expanded else graph
    plain_key = (plain.key, *key[1:])
    needed = needed_by_gradients(plain.units, plain.roots)
    route = dev.routes.get(plain_key)
    if route is None:
        retained = tuple(k for k, flag in enumerate(needed) if flag)
        program = _build(dev, plain.units, plain.leaves, _shown(plain), retained)
        _make_room(dev, program)
        statistics.plans += 1
        same = {id(node): (k, -1) for k, node in enumerate(plain.units)}
        route = Route.of(program, plain, plain, same, needed, plain.references())
        _keep(dev, plain_key, route)
    if expanded:
        _keep(dev, key, Route.of(route.program, graph, plain, origins, needed, references))
    return plain, route


def _keep(dev: _Device, key: tuple[Any, ...], route: Route) -> None:
    if len(dev.routes) >= ROUTE_LIMIT:
        del dev.routes[next(iter(dev.routes))]
    dev.routes[key] = route


def _shown(graph: Graph) -> tuple[int, ...]:
    """The positions of the roots of a graph of ordinary nodes."""
    return tuple(sorted(root.pos for root in graph.roots))


def _store(graph: Graph, route: Route, slots: list[Buffer]) -> None:
    """Give values to those who asked, and keep what a gradient may read."""
    roots, units = graph.roots, graph.units
    for k, slot in route.results:
        node = roots[k]
        node.buffer = slots[slot]
        if type(node) is not Node:
            block, step = block_of(node)
            block.values[step] = slots[slot]
    for k, step, slot in route.passing:
        if step < 0:
            units[k].buffer = slots[slot]
        else:
            units[k].store(step, slots[slot])
    for k in route.cut:
        roots[k].inputs = ()


class _Nodes(Sequence[Node]):
    """The nodes of a program by position, for opaque steps and messages; blocks are expanded when others are asked for."""

    def __init__(self, graph: Graph, route: Route) -> None:
        self._graph = graph
        self._route = route

    def __getitem__(self, position: Any) -> Any:
        if type(position) is int:
            for place, unit in self._route.opaque:
                if place == position:
                    return self._graph.units[unit]
        return self._plain()[position]

    def __len__(self) -> int:
        return len(self._plain())

    def _plain(self) -> list[Node]:
        return Graph(self._graph.roots, plain=True).units


def _make_room(dev: _Device, program: Program) -> None:
    """Drop the oldest programs where there are too many, or where those that keep packed weights keep too much."""
    old = list(dev.programs)
    leave = old[: max(0, len(old) + 1 - PROGRAM_LIMIT)]
    if program.kept_bytes:
        total = sum(p.kept_bytes for p in old)
        for candidate in old:
            if total > KEPT_LIMIT and candidate.kept_bytes:
                total -= candidate.kept_bytes
                leave.append(candidate)
    gone = {id(p) for p in leave}
    for key in [k for k, route in dev.routes.items() if id(route.program) in gone]:
        del dev.routes[key]


def _restore(roots: list[Node]) -> None:
    """After a failure nothing is lost: what was pending is pending again."""
    for node in roots:
        node.pos = 0
        if node.handle is not None:
            state.pending.append(node.handle)


def _build(
    dev: _Device, nodes: list[Node], leaves: list[Node], shown: tuple[int, ...], retained: tuple[int, ...]
) -> Program:
    from ..passes.pipeline import build_plan  # a large part of the import, needed by the first new program

    plan = build_plan(nodes, leaves, shown, dev.backend, retained)
    launches = [s for s in plan.steps if isinstance(s, PlannedStep)]
    try:
        loaded = iter(dev.kernels.obtain([s.kernel for s in launches]))
    except MetafuseError as error:
        raise type(error)(f"{error}\noperators: {_story(nodes)}") from error
    except Exception as error:
        raise KernelError(f"[compile] {error}; operators: {_story(nodes)}") from error
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
    dev: _Device, run: list[Step | LibraryCall], constant: list[int], plan: ProgramPlan, parts: list[Any]
) -> None:
    if not run:
        return
    backend = dev.backend
    prepared = isinstance(backend, SupportsPrograms)
    parts.append(backend.prepare(run, plan.scalar_kinds, constant) if prepared else (run, constant))  # type: ignore[attr-defined]


def _bind(
    program: Program, dev: _Device, leaves: list[Node], donations: Sequence[tuple[int, int, int]]
) -> list[Buffer]:
    """A buffer for every slot.

    ``donations``: (output, leaf whose buffer it may take over, references of the graph to that leaf)."""
    backend = dev.backend
    plan = program.plan
    slots: list[Any] = [None] * (len(leaves) + len(plan.outputs) + len(plan.temporaries))
    for k in plan.row_major:
        leaves[k].buffer = upload(read(leaves[k]), leaves[k].spec)
    for k, node in enumerate(leaves):
        slots[k] = node.buffer if node.buffer.backend is backend else move(node)  # type: ignore[union-attr]
    for output, leaf, uses in donations:
        node = leaves[leaf]
        # the node is referred to by the leaf list, `node`, the argument of getrefcount and the inputs of the graph's units;
        # the buffer by its node, the slot table and the argument; anything more is somebody else
        if watchers and node.buffer.order is not None:  # type: ignore[union-attr]
            continue  # a recorder notes the order that arrays have when they are read
        if not is_held(node) and sys.getrefcount(node) <= uses + 3 and sys.getrefcount(node.buffer) <= 3:
            slots[output] = node.buffer
            node.buffer.order = None  # type: ignore[union-attr]
            node.buffer.version = next_version()  # type: ignore[union-attr]
    for slot, nbytes in plan.outputs:
        if slots[slot] is None:
            slots[slot] = Buffer(backend, nbytes)
    if plan.temporaries:
        for slot, memory in temporaries(plan, backend):
            slots[slot] = memory
    for slot, order in plan.orders:
        slots[slot].order = order
    if plan.constant.slots:
        if not program.kept:
            program.kept = [Buffer(backend, nbytes) for _, nbytes in plan.constant.slots]
        slots += program.kept
    return slots


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


def _versions(program: Program, slots: list[Buffer], scalars: list[float | int]) -> tuple[Any, ...]:
    """What constants come from, as numbers that differ if anything does."""
    constant = program.plan.constant
    return (*[slots[k].version for k in constant.leaves], *[scalars[k] for k in constant.scalars])


def move(node: Node) -> Buffer:
    """The leaf's value on the device that programs run on now; it stays there."""
    node.buffer = upload(read(node), node.spec)
    return node.buffer


def launch(
    program: Program, dev: _Device, slots: list[Buffer], scalars: list[float | int], nodes: Sequence[Node]
) -> None:
    """Run a program on bound slots. ``nodes``: those it was planned from, for opaque steps and messages."""
    backend = dev.backend
    constant = program.plan.constant
    versions: tuple[Any, ...] = ()
    if constant.leaves or constant.scalars:
        versions = _versions(program, slots, scalars)
    changed = versions != program.state or 0 in versions[: len(constant.leaves)]
    program.state = None  # until everything has run
    if observers or flags.debug >= 2:
        from ..debug import launches

        launches.run_timed(
            program.plan, backend, dev.kernels, slots, scalars, changed,
            lambda s: _run_opaque(s, dev, slots, nodes), nodes,
        )  # fmt: skip
        program.state = versions
        return
    handles = [b.handle for b in slots]
    for part in program.parts:
        if isinstance(part, OpaqueStep):
            _run_opaque(part, dev, slots, nodes)
            continue
        statistics.launches += 1
        try:
            if isinstance(part, tuple):
                _run_steps(backend, part[0], part[1], handles, scalars, changed)
            else:
                backend.run(part, handles, scalars, changed)  # type: ignore[attr-defined]
        except MetafuseError:
            raise
        except Exception as error:
            raise KernelError(f"[launch] {error}; operators: {_story(nodes)}") from error
    program.state = versions


def _run_steps(
    backend: AbstractBackend,
    steps: list[Step | LibraryCall],
    constant: list[int],
    handles: list[Any],
    scalars: list[float | int],
    changed: bool,
) -> None:
    """One by one, for backends that do not run whole programs."""
    for k, step in enumerate(steps):
        if isinstance(step, LibraryCall):
            backend.launch_library(step, handles, changed)  # type: ignore[attr-defined]
        elif changed or k not in constant:
            backend.launch(step, handles, scalars)


def _run_opaque(step: OpaqueStep, dev: _Device, slots: list[Buffer], nodes: Sequence[Node]) -> None:
    global running
    node = running = nodes[step.position]
    inputs = [(slots[s], i.spec) for s, i in zip(step.inputs, node.inputs, strict=True)]
    try:
        output = slots[step.output], node.spec
        node.sig.attrs.run(OpaqueCall(dev.backend, dev.kernels, inputs, output, node.scalars))
    except MetafuseError as error:
        raise type(error)(f"{error}\nrecorded at {describe_origin(node)}") from error
    finally:
        running = None


def _story(nodes: Sequence[Node], limit: int = 12) -> str:
    """Operators, specs and the user's lines, for errors."""
    shown = [f"{n.sig!r} at {describe_origin(n)}" for n in nodes[-limit:]]
    more = f" and {len(nodes) - limit} more" if len(nodes) > limit else ""
    return "; ".join(shown) + more
