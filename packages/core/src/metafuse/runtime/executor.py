"""Executor: makes pending nodes real.

What it is: collects what has to run, finds or builds its program, binds buffers, has it launched, and cuts the graph behind
what nobody can ask a gradient of any more. Also moves arrays in and out.
What it is not: planning (``passes``), building (``programs``), running (``launching``) or code (``kernels``).
Who calls it: ``var`` when a value is read, ``optim`` at the end of a step.

The rule of evaluation (``docs/evaluation.md``): a sync runs every pending value that a live handle holds and that is not
younger than what was asked for, as one program.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from threading import RLock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from ..backend.contract import host_bytes
from ..backend.optional import SupportsHostView
from ..config import flags, observe
from ..errors import KernelError, MetafuseError
from ..graph.node import Node, Spec, state
from ..graph.recipe import Block, block_of, is_ordered
from ..hot import compiled
from ..plugins.registry import registry
from . import forks
from .buffer import Buffer, next_version
from .kernels import statistics
from .launching import launch, observers
from .pending import Graph, Route, is_held, needed_by_gradients, unmark
from .programs import Device, Program, build, story, temporaries

__all__ = [
    "device", "devices", "evaluate", "finished", "last_program", "lock", "move", "preview", "read", "upload", "view",
    "watchers",
]  # fmt: skip

#: how many programs are kept; the oldest go first
PROGRAM_LIMIT = 512
#: how many kinds of pending graphs know their program
ROUTE_LIMIT = 4 * PROGRAM_LIMIT
#: bytes of packed weights that they may keep, all together, beside those of the newest
KEPT_LIMIT = 2 << 30


#: by the backend's name
devices: dict[str, Device] = {}
#: held while anything is evaluated or replayed
lock = RLock()
forks.between_programs(lambda: lock, lambda new: globals().update(lock=new))
last_program: list[Program] = []
#: at most one ``capture.recorder.Recorder``, told of programs, of Vars that are bound anew and of values that are read
watchers: list[Any] = []
#: called after every evaluation, outside of the lock
finished: list[Callable[[], None]] = []


#: the device, while no flag names one; at most one
chosen: list[Device] = []


@functools.cache
def _follow_flags() -> None:
    """From now on forget the device where a flag that decides on it changes."""
    for name in ("backend", "use_cuda"):
        observe(name, lambda _: chosen.clear())


def device() -> Device:
    """The device that programs run on now."""
    if chosen:
        return chosen[0]
    backend = registry().default_backend()
    found = devices.get(backend.name)
    if found is None or found.backend is not backend:
        found = devices[backend.name] = Device(backend)
        if flags.debug:
            from ..debug import log

            log.device(backend)
    if not flags.backend and not flags.use_cuda:
        _follow_flags()
        chosen[:] = [found]
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
    """The value of ``node`` as an array over its own memory where the device allows it, else a copy. What was recorded before
    does not see what is written to it."""
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
    if state.pending and _read_later(node):
        evaluate(None)
    array = _views.get(id(buffer))
    backend.synchronize()
    if array is None:
        del buffer
        array = _look_into(node, backend)
    return array.view(node.spec.dtype.numpy).reshape(node.spec.shape)


def _read_later(node: Node) -> bool:
    """Whether something pending reads the stored value of ``node``."""
    with lock:
        roots = _held((), list(state.pending), [])
        try:
            return any(leaf is node for leaf in Graph(roots).leaves)
        finally:
            unmark(roots)


def _look_into(node: Node, backend: Any) -> _Holder:
    """An array over the memory of ``node``, which gets memory of its own first, where a clone or another shape has the same."""
    shared = type(node) is not Node and block_of(node)[0].values.get(block_of(node)[1]) is node.buffer
    if sys.getrefcount(node.buffer) > 2 + shared:  # its node (and its block) and the argument of getrefcount
        own = Buffer(backend, node.spec.nbytes)
        backend.copy_in(own.handle, backend.host_view(node.buffer.handle, own.nbytes))  # type: ignore[union-attr]
        node.buffer = own
    buffer = node.buffer
    assert buffer is not None
    buffer.version = 0  # the array is writable
    array: _Holder = backend.host_view(buffer.handle, node.spec.nbytes).view(_Holder)
    array.holder = buffer  # the memory stays as long as the view does
    _views[id(buffer)] = array
    return array


class _Holder(np.ndarray[Any, Any]):
    """An array that keeps the buffer it looks into alive."""

    holder: Buffer


#: the array by which users look into a buffer, as long as somebody has it
_views: WeakValueDictionary[int, _Holder] = WeakValueDictionary()


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
        _compute(targets, alone)
    for callback in finished:
        callback()


def _compute(targets: Sequence[Node] | None, alone: bool) -> None:
    if compiled is not None and compiled.run(targets, alone):
        return
    roots = _take_pending(targets, alone)
    if roots:
        try:
            _run(roots)
        except Exception:
            if alone or not _computed_apart(roots, targets):
                raise


def preview(
    targets: Sequence[Node],
) -> tuple[list[Node], list[Node], tuple[int, ...], tuple[int, ...]]:
    """What ``evaluate`` would run now: nodes in order, the stored arrays they read, and the positions that are handed out
    and that gradients may need. Runs nothing; what is pending stays so."""
    with lock:
        roots = _held([t for t in targets if t.buffer is None], list(state.pending), [])
        try:
            graph = Graph(roots, plain=True)
            shown, needed = _shown(graph), needed_by_gradients(graph.units, roots)
        finally:
            unmark(roots)
        return graph.units, graph.leaves, shown, tuple(k for k, flag in enumerate(needed) if flag)


def _take_pending(targets: Sequence[Node] | None, alone: bool = False) -> list[Node]:
    """Live pending nodes up to the age of the youngest target, each once; younger ones stay pending, and ``alone`` all others."""
    waiting = state.pending
    rest: list[Any] = []
    state.pending = rest  # other threads go on recording: their handles join those that stay
    return _held(targets, waiting, rest, alone)


def _held(
    targets: Sequence[Node] | None, waiting: list[Any], rest: list[Any], alone: bool = False
) -> list[Node]:
    """The nodes of ``_take_pending`` among the handles ``waiting``, marked; ``rest`` receives the others' handles, each once."""
    limit: float | None = None
    for node in targets or ():
        age = node.order if type(node) is Node else block_of(node)[0].order
        if limit is None or age > limit:
            limit = age
    roots: list[Node] = list(dict.fromkeys(targets)) if targets is not None else []
    for node in roots:
        node.pos = -2
    staying: set[int] = set()
    for handle in waiting:  # a handle that was bound anew several times is there several times
        var = handle()
        if var is None:
            continue
        node = var._node
        if node.buffer is not None or node.pos == -2:
            continue
        if not alone and (limit is None or node.order <= limit):
            node.pos = -2
            roots.append(node)
        elif id(handle) not in staying:
            staying.add(id(handle))
            rest.append(handle)
    return roots


def _run(roots: list[Node]) -> None:
    observed = bool(watchers or observers) or flags.debug >= 2
    try:
        dev = device()
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
    try:
        _store(graph, route, slots)
    except BaseException:  # interrupted: what has been computed is stored whole, from the beginning
        _store(graph, route, slots)
        raise
    last_program[:] = [program]


def _find_route(dev: Device, graph: Graph, key: tuple[Any, ...]) -> tuple[Graph, Route]:
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
        program = build(dev, plain.units, plain.leaves, _shown(plain), retained)
        _make_room(dev, program)
        statistics.plans += 1
        same = {id(node): (k, -1) for k, node in enumerate(plain.units)}
        route = Route.of(program, plain, plain, same, needed, plain.references())
        _keep(dev, plain_key, route)
    if expanded:
        _keep(dev, key, Route.of(route.program, graph, plain, origins, needed, references))
    return plain, route


def _keep(dev: Device, key: tuple[Any, ...], route: Route) -> None:
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


def _make_room(dev: Device, program: Program) -> None:
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
        if node.handle is not None:
            state.pending.append(node.handle)
    unmark(roots)


def _computed_apart(roots: list[Node], targets: Sequence[Node] | None) -> bool:
    """After the program of ``roots`` has failed, compute ``targets`` without what else was pending, if there is anything else: an
    error is raised where its own value is read. The others are computed when somebody asks for them. Not where ranks would lose
    step by that."""
    asked = list(dict.fromkeys(targets or ()))
    others = {id(node.handle) for node in set(roots).difference(asked) if node.handle is not None}
    if not asked or not others or watchers or _in_step(roots):
        return False
    _compute(asked, alone=True)
    pending = state.pending
    for k in range(len(pending) - 1, -1, -1):  # other threads may put handles to its end meanwhile
        if id(pending[k]) in others:
            del pending[k]
    return True


def _in_step(roots: list[Node]) -> bool:
    """Whether something among what is pending has to run in the same order on all ranks."""
    try:
        return any(map(is_ordered, Graph(roots, plain=True).units))
    finally:
        unmark(roots)


def failed(
    error: BaseException, roots: list[Node], launching: bool, targets: Sequence[Node] | None, alone: bool
) -> None:
    """What follows when a compiled run has failed: everything is pending again, and the error is raised unless ``targets`` can be
    computed apart."""
    _restore(roots)
    try:
        if not isinstance(error, Exception):
            raise error
        if not alone and _computed_apart(roots, targets):
            return
        if not launching or isinstance(error, MetafuseError):
            raise error
        story_of = story(Graph(roots, plain=True).units)
        raise KernelError(f"[launch] {error}; operators: {story_of}") from error
    finally:
        del error  # its traceback refers to this frame, and to the Vars of others


def _bind(
    program: Program, dev: Device, leaves: list[Node], donations: Sequence[tuple[int, int, int]]
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


def move(node: Node) -> Buffer:
    """The leaf's value on the device that programs run on now; it stays there."""
    node.buffer = upload(read(node), node.spec)
    return node.buffer
