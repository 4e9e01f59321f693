"""Executor: makes pending nodes real.

What it is: collects what has to run, finds or builds its program, binds buffers, runs it, and cuts the graph behind what
nobody can ask a gradient of any more. Also moves arrays in and out.
What it is not: planning (``passes``) or code (``kernels``).
Who calls it: ``var`` when a value is read, ``optim`` at the end of a step.

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
from ..passes.plan import OpaqueStep, PlannedStep, ProgramPlan
from ..plugins.registry import registry
from .buffer import Buffer, next_version
from .kernels import KernelTable, statistics

__all__ = ["Program", "evaluate", "last_program", "observers", "preview", "read", "upload", "view"]

#: how many programs are kept; the oldest go first
PROGRAM_LIMIT = 512
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
        self.programs: dict[tuple[Any, ...], Program] = {}


_devices: dict[str, _Device] = {}
_lock = RLock()
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
    found = _devices.get(backend.name)
    if found is None or found.backend is not backend:
        found = _devices[backend.name] = _Device(backend)
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
    with _lock:
        if targets is not None:
            targets = [t for t in targets if t.buffer is None]
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
    with _lock:
        waiting = list(state.pending)
        try:
            roots = _take_pending([t for t in targets if t.buffer is None])
        finally:
            state.pending = waiting
        try:
            nodes = _collect(roots)
            _, leaves, _, needs = _describe(nodes)
            held = _held(nodes, roots, needs)
        finally:
            for node in roots:
                node.pos = 0
        shown = tuple(k for k, flag in enumerate(held) if flag)
        return nodes, leaves, shown, tuple(k for k, flag in enumerate(needs) if flag)


def _take_pending(targets: Sequence[Node] | None, alone: bool = False) -> list[Node]:
    """Live pending nodes up to the age of the youngest target, each once; younger ones stay pending, and ``alone`` all others."""
    limit = max(t.order for t in targets) if targets is not None else None
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
    return roots


def _run(roots: list[Node]) -> None:
    nodes = _collect(roots)
    key, leaves, scalars, needs = _describe(nodes)
    held = _held(nodes, roots, needs)
    shown = tuple(k for k, flag in enumerate(held) if flag)
    retained = tuple(k for k, flag in enumerate(needs) if flag)
    full_key = (key, shown, retained, flags.library, flags.math)
    dev = device()
    program = dev.programs.get(full_key)
    if program is None:
        try:
            program = _build(dev, nodes, leaves, shown, retained)
        except BaseException:
            _restore(roots)
            raise
        _make_room(dev, program)
        dev.programs[full_key] = program
        statistics.plans += 1
    statistics.programs += 1
    try:
        donate = bool(program.plan.donations) and not any(needs) and not state.pending and not watchers
        donate = donate and _unshared(nodes, held, program.plan)
        slots = _bind(program, dev, leaves, donate)
        for watcher in watchers:
            watcher.program(program, nodes, leaves, scalars, slots)
        _launch(program, dev, slots, scalars, nodes)
    except BaseException:
        _restore(roots)
        raise
    for position, slot in program.plan.results:
        nodes[position].buffer = slots[slot]
    for position in shown:
        if not needs[position]:
            nodes[position].inputs = ()
    last_program[:] = [program]


def _make_room(dev: _Device, program: Program) -> None:
    """Drop the oldest programs where there are too many, or where those that keep packed weights keep too much."""
    programs = dev.programs
    if len(programs) >= PROGRAM_LIMIT:
        programs.pop(next(iter(programs)))
    if not program.kept_bytes:
        return
    total = sum(p.kept_bytes for p in programs.values())
    for key in [k for k, p in programs.items() if p.kept_bytes]:
        if total <= KEPT_LIMIT:
            break
        total -= programs.pop(key).kept_bytes


def _restore(roots: list[Node]) -> None:
    """After a failure nothing is lost: what was pending is pending again."""
    for node in roots:
        node.pos = 0
        if node.handle is not None:
            state.pending.append(node.handle)


def _collect(roots: list[Node]) -> list[Node]:
    """Everything that has to run, in order of creation."""
    found: list[Node] = []
    stack = list(roots)
    for node in roots:
        node.pos = -1
    while stack:
        node = stack.pop()
        found.append(node)
        for x in node.inputs:
            if x.buffer is None and x.pos != -1:
                x.pos = -1
                stack.append(x)
    found.sort(key=_order)
    return found


def _order(node: Node) -> int:
    return node.order


def _describe(nodes: list[Node]) -> tuple[tuple[Any, ...], list[Node], list[float | int], list[bool]]:
    """The structural key, the leaves by first use, the run-time numbers, and which nodes a gradient may still need."""
    key: list[Any] = []
    leaves: dict[Node, int] = {}
    scalars: list[float | int] = []
    needs: list[bool] = []
    k = 0
    for node in nodes:
        node.pos = k
        key.append(node.sig)
        need = False
        for x in node.inputs:
            if x.buffer is None:
                key.append(k - x.pos)
                need = need or needs[x.pos]
            else:
                number = leaves.get(x)
                if number is None:
                    number = leaves[x] = len(leaves)
                    if x.requires_grad and not need:
                        need = bool(x.inputs) or _alive(x)
                elif x.requires_grad and not need:
                    need = bool(x.inputs) or _alive(x)
                key.append(-number)
        if node.scalars:
            scalars += node.scalars
        if need or node.requires_grad:
            need = node.requires_grad and not node.released and (need or _upstream_alive(node))
        needs.append(need)
        k += 1
    orders = tuple([x.buffer.order for x in leaves])  # type: ignore[union-attr]
    if any(orders):
        key.append(orders)
    return tuple(key), list(leaves), scalars, needs


def _alive(node: Node) -> bool:
    """Whether a user still holds the value."""
    handle = node.handle
    var = handle() if handle is not None else None
    return var is not None and var._node is node


def _upstream_alive(node: Node) -> bool:
    """Whether a pending input of the node is held by a user, so that its gradient may be asked for."""
    for x in node.inputs:
        if x.buffer is None and x.requires_grad and x.handle is not None and _alive(x):
            return True
    return False


def _held(nodes: list[Node], roots: list[Node], needs: list[bool]) -> list[bool]:
    """Which nodes are handed out: the roots, and what a later gradient of a root would read again.

    ``needs`` becomes what lies behind a root whose gradient may be asked for, whether gradients flow through it or not: the
    gradient reads values of either kind."""
    held = [False] * len(nodes)
    reach = [False] * len(nodes)
    for node in roots:
        held[node.pos] = True
        reach[node.pos] = needs[node.pos]
    for k in range(len(nodes) - 1, -1, -1):
        if reach[k]:
            for x in nodes[k].inputs:
                if x.buffer is None:
                    reach[x.pos] = True
    needs[:] = reach
    return held


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


def _bind(program: Program, dev: _Device, leaves: list[Node], donate: bool) -> list[Buffer]:
    """A buffer for every slot."""
    backend = dev.backend
    plan = program.plan
    slots: list[Any] = [None] * (len(leaves) + len(plan.outputs) + len(plan.temporaries))
    for k in plan.row_major:
        leaves[k].buffer = upload(read(leaves[k]), leaves[k].spec)
    for k, node in enumerate(leaves):
        slots[k] = node.buffer if node.buffer.backend is backend else _move(node, dev)  # type: ignore[union-attr]
    if donate:
        for output, leaf, uses in plan.donations:
            node = leaves[leaf]
            # the node is referred to by the leaf list, `node`, the argument of getrefcount and the inputs of this
            # program's nodes; the buffer by its node, the slot table and the argument; anything more is somebody else
            if not _alive(node) and sys.getrefcount(node) <= uses + 3 and sys.getrefcount(node.buffer) <= 3:
                slots[output] = node.buffer
                node.buffer.order = None  # type: ignore[union-attr]
                node.buffer.version = next_version()  # type: ignore[union-attr]
    for slot, nbytes in plan.outputs:
        if slots[slot] is None:
            slots[slot] = Buffer(backend, nbytes)
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


def _unshared(nodes: list[Node], held: list[bool], plan: ProgramPlan) -> bool:
    """Whether nothing outside of the program refers to its inner nodes, so that nobody will compute them again.

    Expected references: the node list, the argument of getrefcount, and the program's own nodes."""
    for k, uses in enumerate(plan.references):
        if not held[k] and sys.getrefcount(nodes[k]) > uses + 2:
            return False
    return True


def _move(node: Node, dev: _Device) -> Buffer:
    """The leaf's value on this device; it stays there."""
    node.buffer = upload(read(node), node.spec)
    return node.buffer


def _launch(
    program: Program, dev: _Device, slots: list[Buffer], scalars: list[float | int], nodes: list[Node]
) -> None:
    backend = dev.backend
    versions = _versions(program, slots, scalars)
    changed = versions != program.state or 0 in versions[: len(program.plan.constant.leaves)]
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


def _run_opaque(step: OpaqueStep, dev: _Device, slots: list[Buffer], nodes: list[Node]) -> None:
    global running
    node = running = nodes[step.position]
    inputs = [(slots[s], i.spec) for s, i in zip(step.inputs, node.inputs, strict=True)]
    try:
        node.sig.attrs.run(dev.backend, dev.kernels, inputs, (slots[step.output], node.spec), node.scalars)
    except MetafuseError as error:
        raise type(error)(f"{error}\nrecorded at {describe_origin(node)}") from error
    finally:
        running = None


def _story(nodes: list[Node], limit: int = 12) -> str:
    """Operators, specs and the user's lines, for errors."""
    shown = [f"{n.sig!r} at {describe_origin(n)}" for n in nodes[-limit:]]
    more = f" and {len(nodes) - limit} more" if len(nodes) > limit else ""
    return "; ".join(shown) + more
