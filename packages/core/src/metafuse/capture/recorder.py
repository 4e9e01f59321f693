"""Watching one call: which programs it evaluates on what, which Vars it rebinds, what it hands out.

What it is: ``Recorder``, which the executor and ``Var`` report to while a function runs, and ``Recording``, what two calls
are compared by and a replay is made from.
What it is not: a decision whether a recording may be replayed (``compiled``).
Who calls it: ``compiled``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

import numpy as np

from ..backend.contract import host_bytes
from ..graph.node import Node, Signature, Spec, leaf, make_node, next_order, signature
from ..runtime import executor
from ..runtime.buffer import Buffer
from ..runtime.programs import Program
from ..var import Var
from .effects import DEEP, Change, Template, changes, concrete, template
from .guard import Place, get, put
from .numbers import Number, Tape
from .walk import Unseen, Walk

__all__ = ["Made", "Rebound", "Recorder", "Recording", "Segment", "cut", "cut_signature"]

#: where an array comes from: ("argument", k), ("state", k), ("constant", k), or ("made", segment, slot)
Source = tuple[Any, ...]


@dataclass
class Segment:
    """One program of the call. ``scalars``: code of the tape, or a plain number, per run-time number."""

    program: Program
    sources: list[Source]
    orders: list[Any]
    scalars: list[Any]
    nodes: list[Node]


@dataclass(frozen=True)
class Made:
    """A Var to be made at replay: its value, shape and dtype, whether it takes gradients, whether a path was cut behind
    it."""

    source: Source
    spec: Spec
    requires_grad: bool
    cut: bool


@dataclass(frozen=True)
class Rebound:
    """A Var that existed before ("argument" or "state", k) and its new value."""

    target: Source
    value: Made


@dataclass
class Recording:
    """Everything about one call that the next must repeat exactly to be replayed."""

    walk: Walk
    tape: Tape
    segments: list[Segment] = field(default_factory=list)
    constants: list[tuple[Spec, bytes]] = field(default_factory=list)
    rebound: list[Rebound] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)
    given: list[Source] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    result: Template = ("text",)
    changes: list[tuple[int, str, Any, Template]] = field(default_factory=list)
    #: token position of a followed number -> code of its new value
    moved: list[tuple[int, str]] = field(default_factory=list)
    followed: list[int] = field(default_factory=list)

    def difference(self, other: Recording) -> str:
        """In what the two differ, in words; empty if in nothing."""
        mine, theirs = ([(id(s.program), s.sources, s.orders) for s in r.segments] for r in (self, other))
        if mine != theirs:
            return "the operations differ from call to call"
        if not self.tape.same(other.tape) or [s.scalars for s in self.segments] != [
            s.scalars for s in other.segments
        ]:
            return "numbers that are no arguments or visible state differ from call to call (random, time, an iterator?)"
        if self.constants != other.constants:
            return "arrays made from host data differ from call to call; pass them as arguments"
        if self.changes != other.changes or self.moved != other.moved:
            return "the Python state is changed differently from call to call"
        if (self.result, self.rebound, self.made, self.given) != (
            other.result,
            other.rebound,
            other.made,
            other.given,
        ):
            return "what is returned or assigned differs from call to call"
        return ""


class Recorder:
    """Receives the events of one call. ``refusal`` says why the call can't be replayed, if it can't."""

    def __init__(self, walk: Walk, arguments: list[Var], followed: list[int], numbers: Sequence[Any]) -> None:
        self.thread = get_ident()
        self.refusal = ""
        self.order = next_order()
        self.tape = Tape()
        self.recording = Recording(walk, self.tape, followed=followed)
        #: by the order of nodes, which no two share: a node that was held here could not give its memory away
        self._sources: dict[float, Source] = {}
        for kind, vars in (("argument", arguments), ("state", walk.vars)):
            for k, var in enumerate(vars):
                self._sources.setdefault(var._node.order, (kind, k))
        self._before = [(("argument", k), v) for k, v in enumerate(arguments)]
        self._before += [(("state", k), v) for k, v in enumerate(walk.vars)]
        self._targets = {id(v): source for source, v in reversed(self._before)}
        self._flags = [v._node.requires_grad for _, v in self._before]
        self._uploaded: set[float] = set()
        self._rebound: dict[int, Var] = {}
        self._outputs: dict[int, tuple[int, Var]] = {}
        self._code_numbers: dict[str, int] = {}
        self._places: list[tuple[int, Place, Any, Number]] = []
        self.numbers = [
            self.tape.source(f"A[{k}]", n.value) if type(n) is Number else n for k, n in enumerate(numbers)
        ]
        self._substitute(walk, followed)

    def refuse(self, reason: str) -> None:
        """The call can't be replayed."""
        self.refusal = self.refusal or reason

    # -- followed numbers ------------------------------------------------------------------------------------------
    def _substitute(self, walk: Walk, followed: list[int]) -> None:
        for k, position in enumerate(followed):
            place = walk.numbers[position]
            value = get(place)
            key = place[1]
            code = (
                f"D[{k}].cell_contents"
                if type(place[0]).__name__ == "cell"
                else f"D[{k}][{self.tape.constant(key)}]"
            )
            number = self.tape.source(code, value)
            self._places.append((position, place, value, number))
        for _, place, _, number in self._places:
            put(place, number)

    def restore(self) -> None:
        """Put bare numbers back, in any case, and note which have moved."""
        for position, place, before, number in self._places:
            try:
                now = get(place)
            except LookupError:
                self.refuse("a number that changes was deleted")
                continue
            if now is number:
                put(place, before)
            elif type(now) is Number:
                put(place, now.value)
                self.recording.moved.append((position, now.code))
            elif type(now) in (int, float, np.float64):
                self.recording.moved.append((position, self.tape.constant(now)))
            else:
                self.refuse("a number is replaced by something else")

    # -- events ----------------------------------------------------------------------------------------------------
    def rebinding(self, var: Var) -> None:
        """``var`` is about to hold another node."""
        if get_ident() == self.thread and id(var) not in self._rebound:
            node = getattr(var, "_node", None)
            if node is not None and node.order < self.order:
                self._rebound[id(var)] = var

    def uploaded(self, node: Node) -> None:
        """An array was made from host data."""
        if get_ident() == self.thread:
            self._uploaded.add(node.order)

    def was_read(self, node: Node) -> None:
        """Somebody takes a value to the host."""
        if get_ident() == self.thread:
            self.refuse(f"it reads a value at {_user_line()}")

    def program(
        self, program: Program, nodes: list[Node], leaves: list[Node], scalars: list[Any], slots: list[Buffer]
    ) -> None:
        """A program is about to run; followed numbers among ``scalars`` are made bare."""
        if get_ident() != self.thread:
            return
        number = len(self.recording.segments)
        sources = [self._source(node, slot) for node, slot in zip(leaves, slots)]
        codes: list[Any] = []
        for k, value in enumerate(scalars):
            if type(value) is Number:
                codes.append(self._code(value))
                scalars[k] = value.value
            else:
                codes.append(
                    (type(value), repr(value)) if value != value else (type(value), value, repr(value))
                )
        self.recording.segments.append(
            Segment(
                program,
                sources,
                [b.order for b in slots[: len(leaves)]],
                codes,
                skeleton(nodes, scalars),
            )
        )
        for position, slot in program.plan.results:
            # a value that is nothing but an alias of what the program was given comes from there
            self._sources[nodes[position].order] = (
                sources[slot] if slot < len(sources) else ("made", number, slot)
            )

    def _code(self, value: Number) -> str:
        if value.tape is not self.tape:
            self.refuse("a number of another recording is used")
        return value.code

    def _source(self, node: Node, buffer: Buffer) -> Source:
        found = self._sources.get(node.order)
        if found is None:
            found = ("constant", len(self.recording.constants))
            if node.order not in self._uploaded:
                name = node.sig.name
                self.refuse(
                    f"it depends on a value ({name} {node.spec!r}) that is neither an argument nor in visible state"
                )
            self._sources[node.order] = found
            self.recording.constants.append((node.spec, _content(buffer, node.spec)))
        return found

    # -- the end ---------------------------------------------------------------------------------------------------
    def finish(self, result: Any, now: Walk) -> tuple[Any, Recording]:
        """After the function returned and numbers were restored: compute what is handed out, and describe it all. ``now``:
        the state that is left behind.

        Answers the result with bare numbers. Errors: ``Unseen``."""
        recording, seen = self.recording, self.recording.walk
        self._check_flags()
        try:
            recording.result = template(result, self._var, self._number, seen.position)
        except RecursionError:
            raise Unseen(DEEP) from None
        places = {(id(place[0]), place[1]) for _, place, _, _ in self._places}
        found = changes(seen, now, places)
        _unshared([result, *(value for *_, value in found)], seen)
        for change in found:
            recording.changes.append(self._change(change, seen))
        held = dict(self._rebound)
        held.update((id(v), v) for _, v in self._outputs.values())
        behind = cut(list(held.values()))
        for key, var in self._rebound.items():
            if key not in self._targets:
                raise Unseen(
                    f"it assigns to {var.name() or 'a Var'} that is neither an argument nor in visible state"
                )
            recording.rebound.append(Rebound(self._targets[key], self._made(var, var in behind)))
        recording.rebound.sort(key=lambda r: r.target)
        for _, var in self._outputs.values():
            recording.made.append(self._made(var, var in behind))
        self.tape.open = False
        try:
            return concrete(result), recording
        except RecursionError:
            raise Unseen(DEEP) from None

    def _check_flags(self) -> None:
        for (_, var), before in zip(self._before, self._flags, strict=True):
            if id(var) not in self._rebound and var._node.requires_grad is not before:
                raise Unseen(f"it switches the gradient of {var.name() or 'a Var'} on or off")

    def _change(self, change: Change, walk: Walk) -> tuple[int, str, Any, Template]:
        number, what, key, value = change
        _, container, *_ = walk.containers[number]
        shape = template(value, self._var, self._number, walk.position)
        bare = concrete(value)
        if bare is not value and what == "set":
            put((container, key), bare)
        elif bare is not value:
            container[:] = bare
        return number, what, key, shape

    def _var(self, var: Var) -> int:
        """The number of a Var in templates: those made by the call first, then (negative) those that were there."""
        source = self._targets.get(id(var))
        if source is not None:
            if source not in self.recording.given:
                self.recording.given.append(source)
            return -1 - self.recording.given.index(source)
        if id(var) not in self._outputs:
            if var._node.order < self.order and var._node.order not in self._sources:
                raise Unseen("it hands out a Var that is neither an argument nor in visible state")
            var._origin = None  # what is handed out stands for itself
            self._outputs[id(var)] = (len(self._outputs), var)
        return self._outputs[id(var)][0]

    def _number(self, number: Number) -> int:
        code = self._code(number)
        if code not in self._code_numbers:
            self._code_numbers[code] = len(self.recording.codes)
            self.recording.codes.append(code)
        return self._code_numbers[code]

    def _made(self, var: Var, cut: bool) -> Made:
        node = var._node
        source = self._sources.get(node.order)
        if source is None:
            assert node.buffer is not None
            source = self._source(node, node.buffer)
        return Made(source, node.spec, node.requires_grad, cut)


def _user_line() -> str:
    """``file:line`` of the innermost frame outside of metafuse."""
    frame: Any = sys._getframe(1)
    while frame.f_globals.get("__name__", "")[:8] == "metafuse" and frame.f_back is not None:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def cut(vars: list[Var]) -> set[Var]:
    """Compute ``vars`` and cut the graph behind them; answers those behind which a gradient could have been asked for."""
    found = {v for v in vars if _has_path(v._node)}
    _release([v._node for v in vars])
    executor.evaluate([v._node for v in vars])
    for var in vars:
        node = var._node
        node.released = var in found
        if node.released:
            node.sig, node.inputs = cut_signature(node.spec), ()
    return found


def cut_signature(spec: Spec) -> Signature:
    """What stands for a value behind which the graph was cut; ``ops.autograd`` knows it by name."""
    return signature("alias", "compiled step", None, (), spec)


def _has_path(node: Node) -> bool:
    """Whether a gradient could be asked to flow through the node."""
    return node.requires_grad and (node.released or any(x.requires_grad for x in node.inputs))


def _release(nodes: list[Node]) -> None:
    """No gradient will be asked of what is pending behind ``nodes``: nothing need be kept for it."""
    stack = [n for n in nodes if n.buffer is None and not n.released]
    while stack:
        node = stack.pop()
        node.released = True
        stack.extend(x for x in node.inputs if x.buffer is None and not x.released)


def _unshared(values: list[Any], before: Walk) -> None:
    """New lists and dictionaries may be in one place only: at replay each place gets its own."""
    seen: set[int] = set()
    stack = list(values)
    while stack:
        value = stack.pop()
        if type(value) in (list, tuple, dict) and before.position(value) is not None:
            continue  # handed out as it is
        if type(value) in (list, dict):
            if id(value) in seen:
                raise Unseen("it puts one new list in two places")
            seen.add(id(value))
        if type(value) in (list, tuple, dict):
            stack.extend(value.values() if type(value) is dict else value)


def _content(buffer: Buffer, spec: Spec) -> bytes:
    content = np.empty(spec.nbytes, np.uint8)
    if spec.nbytes:
        buffer.backend.synchronize()
        buffer.backend.copy_out(host_bytes(content), buffer.handle)
    return content.tobytes()


def skeleton(nodes: list[Node], scalars: list[Any]) -> list[Node]:
    """Nodes that say what ``nodes`` are, for opaque steps and messages, but hold no values."""
    used = 0
    found: list[Node] = []
    for node in nodes:
        copy = make_node(node.sig, False, node.order, node.origin)
        copy.scalars = tuple(scalars[used : used + len(node.scalars)])
        used += len(node.scalars)
        copy.inputs = tuple(_shape_of(x) for x in node.inputs) if node.sig.kind == "opaque" else ()
        copy.released = True
        found.append(copy)
    return found


def _shape_of(node: Node) -> Node:
    return leaf(node.spec, None, False)  # type: ignore[arg-type]
