"""Running a recorded step again without its Python.

What it is: ``Step``: checks that everything is as it was recorded, binds the buffers of arguments and state, runs the
programs, and gives Vars and Python state their new values.
What it is not: the decision what was recorded (``recorder``) or which step a call asks for (``compiled``).
Who calls it: ``compiled``, with the executor's lock held.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

from ..graph.node import Node, Spec, make_node, next_order, stored
from ..ops.random import _stream
from ..passes.plan import OpaqueStep
from ..runtime import executor
from ..runtime.buffer import Buffer, next_version
from ..runtime.launching import launch
from ..runtime.programs import temporaries
from ..var import Var
from .effects import fill, positions
from .guard import Guard, Place, get, put
from .recorder import Made, Recording, Segment, Source, cut_signature
from .walk import Walk, number_token

__all__ = ["Step"]

#: bytes of memory that a step keeps between calls; beyond it comes from the backend's pool each time
KEPT_LIMIT = 64 << 20

_refcount = sys.getrefcount


def _unheld() -> tuple[int, int, int]:
    """What ``_refcount`` answers where nobody else holds the thing: of a local variable that an attribute refers to as well, of
    an attribute that a list refers to as well, and of a local variable alone. Interpreters differ in counting variables."""
    box = SimpleNamespace(node=object(), buffer=object())
    node = box.node
    slots = [None]
    slots[0] = box.buffer
    alone: Any = object()
    return _refcount(node), _refcount(box.buffer), _refcount(alone)


_NODE, _BUFFER, _ALONE = _unheld()


class _Part:
    """One program of a step with what is prepared for it.

    ``fresh``: (slot, bytes, order) of results that are handed out; ``kept``: the same of those that only later programs read.
    ``donations``: (output slot, leaf slot, number of the state Var that is rebound and may give its buffer)."""

    def __init__(self, segment: Segment, step: Step, number: int) -> None:
        plan = segment.program.plan
        self.program = segment.program
        self.nodes = segment.nodes
        self.sources = segment.sources
        self.size = len(segment.sources) + len(plan.outputs) + len(plan.temporaries)
        orders = dict(plan.orders)
        wanted = {s[2] for s in step.handed_out if s[0] == "made" and s[1] == number}
        outputs = [(slot, n, orders.get(slot)) for slot, n in plan.outputs]
        self.fresh = [o for o in outputs if o[0] in wanted]
        self.kept = [o for o in outputs if o[0] not in wanted]
        self.held: list[Buffer] = []
        self.temporaries: list[tuple[int, Any]] = []
        self.opaque = _opaque(segment)
        self.donations: list[tuple[int, int, int]] = []


def _opaque(segment: Segment) -> list[tuple[Any, int, int]]:
    """(node, first, end) of opaque nodes with run-time numbers."""
    found = []
    at = 0
    for node in segment.nodes:
        end = at + len(node.scalars)
        if node.sig.kind == "opaque" and end > at:
            found.append((node, at, end))
        at = end
    return found


class _Maker:
    """Makes the node of a new value: an array that is there, or one behind which the graph was cut."""

    __slots__ = ("cut", "requires_grad", "sig", "source", "spec")

    def __init__(self, made: Made) -> None:
        self.source, self.requires_grad, self.cut = made.source, made.requires_grad, made.cut
        self.sig = cut_signature(made.spec) if made.cut else stored(made.spec)

    def node(self, buffer: Buffer) -> Node:
        """The node of a value in ``buffer``."""
        node = make_node(self.sig, self.requires_grad, next_order(), None)
        node.buffer, node.released = buffer, self.cut
        node.inputs = node.scalars = ()
        return node


class Step:
    """A recording that can be replayed."""

    def __init__(self, recording: Recording, arguments: list[Var], numbers: list[Any], device: Any) -> None:
        self.device = device
        self.recording = recording
        self.tokens = self._loose_tokens(recording.walk.tokens)
        self.numbers = numbers  # the arguments', ``None`` where they are followed
        known = {id(v): k for k, v in enumerate(recording.walk.vars)}
        self.in_state = [known.get(id(v), -1) for v in arguments]
        self.handed_out: set[Source] = {m.source for m in recording.made} | {
            r.value.source for r in recording.rebound
        }
        self.parts = [_Part(s, self, k) for k, s in enumerate(recording.segments)]
        self._keep_memory = self._bytes_kept() <= KEPT_LIMIT
        self._spare: dict[int, list[Buffer]] = {}
        self._made = [_Maker(m) for m in recording.made]
        self._rebound = [(r.target[0] == "state", r.target[1], _Maker(r.value)) for r in recording.rebound]
        self._given = [(s[0] == "argument", s[1]) for s in reversed(recording.given)]
        self._orders = self._wanted_orders()
        self._find_donations()
        backend = device.backend
        self.constants = [_restored(spec, content) for spec, content in recording.constants]
        self.backend = backend
        self._compile_numbers()
        self.guard: Guard | None = None
        self._containers: list[Any] = []
        self._moved: list[tuple[Place, int]] = []
        self._drawn: list[tuple[Place, int]] = []
        self._held: dict[int, Any] = {}
        self._loose_vars = False
        self._changes: list[tuple[Any, str, Any, Any]] = []
        self._ids: dict[int, int] = {}

    # -- preparation -------------------------------------------------------------------------------------------------
    def _loose_tokens(self, tokens: list[Any]) -> list[Any]:
        found = list(tokens)
        for position in self.recording.followed:
            found[position] = number_token(found[position][0])
        return found

    def _bytes_kept(self) -> int:
        total = 0
        for part in self.parts:
            plan = part.program.plan
            total += sum(n for _, n in plan.outputs)
            total += plan.arena_bytes or sum(n for _, n in plan.temporaries)
        return total

    def _wanted_orders(self) -> dict[Source, Any]:
        """Layout in memory that each argument and state Var must have."""
        return {s: o for p, g in zip(self.parts, self.recording.segments, strict=True)
                for s, o in zip(p.sources, g.orders, strict=True) if s[0] in ("argument", "state")}  # fmt: skip

    def _find_donations(self) -> None:
        """State whose old value nobody needs: rebound by the step, read by no later program, not handed out, and no later
        program has opaque nodes, which may raise: then nothing is rebound."""
        rebound = {r.target for r in self.recording.rebound}
        opaque = [any(isinstance(s, OpaqueStep) for s in p.program.plan.steps) for p in self.parts]
        last = max((k for k, found in enumerate(opaque) if found), default=0)
        for number, part in enumerate(self.parts[last:], last):
            later = {s for p in self.parts[number + 1 :] for s in p.sources}
            for output, at in part.program.plan.donations:
                source = part.sources[at]
                lasting = ("made", number, output) in self.handed_out and source not in self.handed_out
                if lasting and source[0] == "state" and source in rebound and source not in later:
                    part.donations.append((output, at, source[1]))

    def _compile_numbers(self) -> None:
        """One function for the run-time numbers of all programs, the numbers handed out, and those that move."""
        recording = self.recording
        results: list[str] = []
        tape = recording.tape
        for segment in recording.segments:
            codes = [c if isinstance(c, str) else tape.constant(_plain(c)) for c in segment.scalars]
            results.append(f"[{', '.join(codes)}]")
        results.append(f"[{', '.join(recording.codes)}]")
        results.append(f"[{', '.join(code for _, code in recording.moved)}]")
        self.follow = tape.compile(results)

    # -- matching ----------------------------------------------------------------------------------------------------
    def adopt(self, walk: Walk) -> None:
        """Take the objects of ``walk``, whose description is this step's, as the ones to watch and to change."""
        recording = self.recording
        places = [walk.numbers[k] for k in recording.followed]
        self._containers = [container for container, _ in places]
        at = dict(zip(recording.followed, places, strict=True))
        moved = [(at[position], k) for k, (position, _) in enumerate(recording.moved)]
        self._drawn = [(place, k) for place, k in moved if place[0] is _stream.__dict__]
        self._moved = [(place, k) for place, k in moved if place[0] is not _stream.__dict__]
        self._changes = [
            (walk.containers[n][1], what, key, shape) for n, what, key, shape in recording.changes
        ]
        self._held = {k: walk.thing(k) for shape in (recording.result, *(c[3] for c in recording.changes))
                      for k in positions(shape)}  # fmt: skip
        vars = [(c, key) for c, what, key, shape in self._changes if what == "set" and shape[0] == "var"]
        vars = [place for place in vars if _holds_var(place)]
        self._loose_vars = bool(vars)
        self.guard = Guard(walk, places + vars)
        self._ids = {id(v): k for k, v in enumerate(walk.vars)}

    def matches(self, arguments: list[Var], numbers: list[Any]) -> tuple[Any, ...] | None:
        """The values of everything followed if the step can be replayed now, else ``None``. Random numbers are taken by
        this."""
        guard = self.guard
        if guard is None or not guard.holds():
            return None
        ids = {id(v): k for k, v in enumerate(guard.vars)} if self._loose_vars else self._ids
        for var, k in zip(arguments, self.in_state):
            if ids.get(id(var), -1) != k:
                return None
        for mine, given in zip(self.numbers, numbers):
            if mine is not None and mine is not given and (mine != given or repr(mine) != repr(given)):
                return None
        if not self._laid_out(arguments, guard.vars):
            return None
        if not self._drawn:
            return self.follow(self._containers, numbers)
        with _stream.lock:
            values = self.follow(self._containers, numbers)
            if values is not None:
                for place, k in self._drawn:
                    put(place, values[-1][k])
        return values

    # -- running -----------------------------------------------------------------------------------------------------
    def run(self, arguments: list[Var], values: tuple[Any, ...]) -> Any:
        """Run everything with the ``values`` that ``matches`` answered."""
        guard = self.guard
        assert guard is not None
        state = guard.vars
        tables: list[list[Any]] = []
        for k, part in enumerate(self.parts):
            slots = self._bind(part, arguments, state, tables)
            scalars = values[k]
            for node, first, end in part.opaque:
                node.scalars = tuple(scalars[first:end])
            launch(part.program, self.device, slots, scalars, part.nodes)
            tables.append(slots)
        executor.last_program[:] = [part.program for part in self.parts[-1:]]
        vars: list[Any] = [self._make(m, arguments, state, tables) for m in self._made]
        vars += [
            (arguments if argument else state)[k] for argument, k in self._given
        ]  # have negative numbers
        self._rebind(arguments, state, tables)
        for place, k in self._moved:
            put(place, values[-1][k])
        for change in self._changes:
            self._apply(change, vars, values[-2])
        result = fill(self.recording.result, vars, values[-2], self._held)
        if self._loose_vars:
            guard.follow()  # lets go of the Vars that were there
        return result

    def _laid_out(self, arguments: list[Var], state: list[Var]) -> bool:
        """Every array is computed, on this device, and in the recorded order."""
        for source, order in self._orders.items():
            node = (arguments if source[0] == "argument" else state)[source[1]]._node
            buffer = node.buffer
            if buffer is None:
                executor.evaluate([node])
                buffer = node.buffer
            if buffer.backend is not self.backend:  # type: ignore[union-attr]
                buffer = executor.move(node)
            if buffer.order != order:  # type: ignore[union-attr]
                if order is not None:
                    return False
                executor.move(node)
        return True

    def _bind(
        self, part: _Part, arguments: list[Var], state: list[Var], tables: list[list[Any]]
    ) -> list[Any]:
        slots: list[Any] = [None] * part.size
        for k, source in enumerate(part.sources):
            kind = source[0]
            if kind == "state":
                slots[k] = state[source[1]]._node.buffer
            elif kind == "argument":
                slots[k] = arguments[source[1]]._node.buffer
            elif kind == "made":
                slots[k] = tables[source[1]][source[2]]
            else:
                slots[k] = self.constants[source[1]]
        for output, _, number in part.donations:
            node = state[number]._node
            # the node is referred to by its Var, the buffer by its node and the slots; anything more is somebody else
            if _refcount(node) <= _NODE and not node.inputs and _refcount(node.buffer) <= _BUFFER:
                buffer: Any = node.buffer
                slots[output] = buffer
                buffer.order = None
                buffer.version = next_version()
        self._allocate(part, slots)
        program = part.program
        if program.plan.constant.slots:
            if not program.kept:
                program.kept = [Buffer(self.backend, n) for _, n in program.plan.constant.slots]
            slots += program.kept
        return slots

    def _allocate(self, part: _Part, slots: list[Any]) -> None:
        backend, spare = self.backend, self._spare
        for slot, nbytes, order in part.fresh:
            buffer = slots[slot]
            if buffer is None:
                free = spare.get(nbytes)
                if free:
                    buffer = free.pop()
                    buffer.version = next_version()
                else:
                    buffer = Buffer(backend, nbytes)
                slots[slot] = buffer
            buffer.order = order
        held = part.held
        if not held and part.kept:
            held = [Buffer(backend, nbytes) for _, nbytes, _ in part.kept]
            if self._keep_memory:
                part.held = held
        for (slot, _, order), buffer in zip(part.kept, held, strict=True):
            buffer.order = order
            buffer.version = next_version()
            slots[slot] = buffer
        memory = part.temporaries
        if not memory:
            memory = temporaries(part.program.plan, backend)
            if self._keep_memory:
                part.temporaries = memory
        for slot, piece in memory:
            slots[slot] = piece

    # -- results -----------------------------------------------------------------------------------------------------
    def _buffer(self, source: Source, arguments: list[Var], state: list[Var], tables: list[list[Any]]) -> Any:
        kind = source[0]
        if kind == "made":
            return tables[source[1]][source[2]]
        if kind == "constant":  # handed out: the step's own must stay as it is
            return _restored(*self.recording.constants[source[1]])
        return (arguments if kind == "argument" else state)[source[1]]._node.buffer

    def _make(self, maker: _Maker, arguments: list[Var], state: list[Var], tables: list[list[Any]]) -> Var:
        var: Var = Var.__new__(Var)
        var._bind(maker.node(self._buffer(maker.source, arguments, state, tables)))
        return var

    def _rebind(self, arguments: list[Var], state: list[Var], tables: list[list[Any]]) -> None:
        """New values for the Vars that were there before. Old buffers that nobody holds are kept for the next call."""
        fresh = [self._buffer(maker.source, arguments, state, tables) for _, _, maker in self._rebound]
        for slots in tables:
            slots.clear()
        spare = self._spare if self._keep_memory else None
        for (in_state, number, maker), buffer in zip(self._rebound, fresh):
            var = (state if in_state else arguments)[number]
            node = var._node
            if (
                maker.cut
                or _refcount(node) > _NODE  # somebody else than the Var
                or node.inputs
                or node.requires_grad is not maker.requires_grad
            ):
                var._bind(maker.node(buffer))
                continue
            old: Any = node.buffer
            if old is not buffer:
                node.buffer = buffer
                if spare is not None and _refcount(old) <= _ALONE:
                    spare.setdefault(old.nbytes, []).append(old)

    def _apply(self, change: tuple[Any, str, Any, Any], vars: list[Any], numbers: list[Any]) -> None:
        container, what, key, shape = change
        if what == "delete":
            del container[key]
            return
        value = fill(shape, vars, numbers, self._held)
        if what == "items":
            container[:] = value
        else:
            put((container, key), value)


def _restored(spec: Spec, content: bytes) -> Buffer:
    """A buffer that holds ``content``."""
    return executor.upload(
        spec.dtype.decode(np.frombuffer(content, spec.dtype.storage).reshape(spec.shape)), spec
    )


def _plain(code: tuple[Any, ...]) -> Any:
    kind, value = code[0], code[1]
    return kind(value) if isinstance(value, str) else value


def _holds_var(place: Place) -> bool:
    try:
        return type(get(place)) is Var
    except LookupError:
        return False
