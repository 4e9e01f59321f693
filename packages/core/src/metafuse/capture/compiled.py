"""Compiled functions: which recording a call may replay, and when to record.

What it is: ``compile`` and ``Compiled``. A call looks for a step that was recorded for arguments like these in a state like
this; without one it runs the function and records. Two equal recordings in a row make a step.
What it is not: the parts: ``walk`` and ``guard`` say what "like this" means, ``recorder`` what is recorded, ``replay`` runs
it.
Who calls it: users, as ``metafuse.compile``. ``docs/compile.md`` has the rules.
"""

from __future__ import annotations

import copy
import functools
import inspect
import sys
import types
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeVar, overload

from ..config import notice
from ..dist.parallel import batch
from ..errors import ArgumentError
from ..graph.node import next_order, state
from ..ops.random import _stream
from ..ops.recipe import settings
from ..runtime import executor
from ..var import Var
from . import code
from .arguments import Arguments
from .effects import DEEP, template
from .numbers import Number, Tape
from .recorder import Recorder, Recording, cut
from .replay import Step
from .walk import Unseen, Walk, number_token

__all__ = ["Compiled", "compile"]

F = TypeVar("F", bound=Callable[..., Any])

#: recordings of one kind of call without a replay in between, after which it is given up
PATIENCE = 24
#: kinds of arguments, and steps per kind, that a function keeps; the oldest go first
KINDS, STEPS = 128, 16

_recording = Lock()


class _Kind:
    """What is known about calls with one kind of arguments."""

    def __init__(self, refused: str = "") -> None:
        self.steps: list[Step] = []
        self.candidates: list[tuple[Recording, list[Any]]] = []
        self.executed: dict[types.CodeType, dict[str, Any]] | None = {}
        self.learned = False
        self.followed: set[str] = set()
        self.followed_numbers: set[int] = set()
        self.former_numbers: list[Any] = []
        self.outside = ""
        self.idle = 0
        self.refused = refused
        self.reason = ""


class Compiled:
    """A function whose work is replayed; made by ``metafuse.compile``.

    ``recorded`` and ``replayed`` count calls of either sort; ``plain`` counts those that ran uncaptured.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.recorded = self.replayed = self.plain = 0
        self.refused = ""
        self._fruitless = 0  # kinds of calls since the last replay
        self._kinds: dict[Any, _Kind] = {}

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        body = getattr(inspect.unwrap(self.function), "__code__", None)
        place = f" at {body.co_filename}:{body.co_firstlineno}" if body is not None else ""
        return f"<compiled {getattr(self.function, '__qualname__', type(self.function).__name__)}{place}>"

    def reset(self) -> None:
        """Forget all recordings, and that it was given up."""
        self._kinds.clear()
        self.refused, self._fruitless = "", 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Compiled, (self.function,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Compiled:
        return Compiled(copy.deepcopy(self.function, memo))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        given = Arguments(args, kwargs)
        # inside a recording, or where every operator is evaluated at once, there is nothing to record
        if not executor.watchers and state.limit and not self.refused:
            key = (given.key, state.grad_enabled, settings())
            kind = self._kinds.get(key)
            if kind is None:
                kind = self._new_kind(key)
            if not kind.refused:
                with executor.lock:
                    if state.pending:
                        executor.evaluate(None)
                    found = self._replay(kind, given) if kind.steps else None
                if found is not None:
                    return found[0]
                if _recording.acquire(blocking=False):
                    try:
                        return self._record(kind, given, args, kwargs)
                    finally:
                        _recording.release()
        return self._plainly(given, args, kwargs)

    def _plainly(self, given: Arguments, args: Any, kwargs: Any) -> Any:
        self.plain += 1
        args, kwargs = given.rebuilt(args, kwargs, given.numbers)
        return self.function(*args, **kwargs)

    def _new_kind(self, key: Any) -> _Kind:
        self._fruitless += 1
        if self._fruitless > KINDS:
            self.refused = "its arguments are of another kind at each call"
            self._kinds.clear()
            notice(f"{self!r} runs uncaptured: {self.refused}")
            return _Kind(self.refused)
        if len(self._kinds) >= KINDS:
            self._kinds.pop(next(iter(self._kinds)), None)
        kind = self._kinds[key] = _Kind()
        return kind

    # -- replaying ---------------------------------------------------------------------------------------------------
    def _replay(self, kind: _Kind, given: Arguments) -> tuple[Any] | None:
        """The result, in a tuple, if a step fits. The executor's lock is held."""
        device = executor.device()
        steps = kind.steps
        for k, step in enumerate(steps):
            if step.device is device:
                values = step.matches(given.vars, given.numbers)
                if values is not None:
                    result = step.run(given.vars, values)
                    self.replayed += 1
                    kind.idle = self._fruitless = 0
                    if k:
                        steps.insert(0, steps.pop(k))
                    return (result,)
        return None

    def _adopted(self, kind: _Kind, walk: Walk) -> bool:
        """Let the steps whose description is that of ``walk`` watch the objects that are there now."""
        found = [s for s in kind.steps if _described(walk, s.tokens, s.recording.followed)]
        for step in found:
            step.adopt(walk)
        return bool(found)

    # -- recording ---------------------------------------------------------------------------------------------------
    def _roots(self, given: Arguments) -> list[tuple[str, Any]]:
        roots: list[tuple[str, Any]] = [(getattr(self.function, "__name__", "function"), self.function)]
        roots += [(f"argument {k}", other) for k, other in enumerate(given.others)]
        return [*roots, ("random", _stream.__dict__), ("batch", batch)]

    def _record(self, kind: _Kind, given: Arguments, args: Any, kwargs: Any) -> Any:
        if not kind.learned:
            return self._learn(kind, given, args, kwargs)
        try:
            walk = Walk(self._roots(given), kind.executed)
        except Unseen as problem:
            self._refuse(kind, f"it depends on {problem}")
            return self._plainly(given, args, kwargs)
        if self._adopted(kind, walk):
            with executor.lock:
                found = self._replay(kind, given)
            if found is not None:
                return found[0]
        known = len(kind.followed) + len(kind.followed_numbers)
        self._learn_changes(kind, walk, given)
        kind.idle = kind.idle + 1 if known == len(kind.followed) + len(kind.followed_numbers) else 1
        if kind.idle > PATIENCE:
            self._refuse(kind, kind.reason or "its state differs from call to call")
            return self._plainly(given, args, kwargs)
        return self._watch(kind, walk, given, args, kwargs)

    def _refuse(self, kind: _Kind, reason: str) -> None:
        kind.refused = reason
        kind.steps, kind.candidates, kind.executed = [], [], None
        notice(f"{self!r} runs uncaptured: {reason}")

    def _learn(self, kind: _Kind, given: Arguments, args: Any, kwargs: Any) -> Any:
        """The first call: which code runs."""
        self.recorded += 1
        args, kwargs = given.rebuilt(args, kwargs, given.numbers)
        order = next_order()
        result = self._traced(kind, lambda: self.function(*args, **kwargs))
        kind.learned = True
        found: list[Var] = []
        try:
            template(result, lambda var: found.append(var) or 0, lambda _: 0, lambda _: None)  # type: ignore[func-returns-value]
        except RecursionError:
            self._refuse(kind, DEEP)
        cut([var for var in found if var._node.order > order])
        return result

    def _traced(self, kind: _Kind, call: Callable[[], Any]) -> Any:
        """Call, and note which code objects run; not under a profiler, which has that hook for itself."""
        executed = kind.executed
        if executed is None or sys.getprofile() is not None:
            kind.executed = None
            return call()

        evaluating: Any = None  # what compiles and runs a program is no code of the step

        def note(frame: Any, event: str, what: Any) -> None:
            nonlocal evaluating
            if evaluating is None:
                module = frame.f_globals.get("__name__", "")
                if event == "call":
                    if module[:16] == "metafuse.runtime":
                        evaluating = frame
                    else:
                        executed.setdefault(frame.f_code, frame.f_globals)
                elif (
                    event == "c_call"
                    and not kind.outside
                    and not code.foreign_code(frame.f_code.co_filename, module)
                ):
                    kind.outside = code.outside(what)
            elif event == "return" and frame is evaluating:
                evaluating = None

        sys.setprofile(note)
        try:
            return call()
        finally:
            sys.setprofile(None)

    def _learn_changes(self, kind: _Kind, walk: Walk, given: Arguments) -> None:
        """Numbers that alone differ from an earlier recording are followed from now on."""
        earlier = [recording.walk for recording, _ in kind.candidates] + [
            s.recording.walk for s in kind.steps
        ]
        if earlier and not kind.reason:
            kind.reason = "the Python state that it reaches grows or shrinks from call to call"
        for former in earlier:
            if len(former.tokens) != len(walk.tokens):
                continue
            different = [k for k, (a, b) in enumerate(zip(former.tokens, walk.tokens, strict=True)) if a != b]
            if different:
                kind.reason = f"{walk.path(different[0])} differs from call to call"
            if all(k in walk.numbers and k in former.numbers for k in different):
                kind.followed |= {walk.path(k) for k in different}
        if kind.former_numbers:
            kind.followed_numbers |= {
                k
                for k, (a, b) in enumerate(zip(kind.former_numbers, given.numbers, strict=True))
                if a is not b and a != b
            }

    def _watch(self, kind: _Kind, walk: Walk, given: Arguments, args: Any, kwargs: Any) -> Any:
        """Run the function with a recorder attached; a second recording like the one before makes a step."""
        self.recorded += 1
        size = len(kind.executed) if kind.executed is not None else 0
        followed = [k for k in walk.numbers if walk.path(k) in kind.followed]
        numbers: list[Any] = [
            Number(Tape(), "", n) if k in kind.followed_numbers else n for k, n in enumerate(given.numbers)
        ]
        hidden = (settings(), *code.places(walk.generators))
        recorder = Recorder(walk, given.vars, followed, numbers)
        args, kwargs = given.rebuilt(args, kwargs, recorder.numbers)
        recording: Recording | None = None
        try:
            executor.watchers.append(recorder)
            try:
                result = self._traced(kind, lambda: self.function(*args, **kwargs))
            finally:
                recorder.restore()
            try:
                result, recording = recorder.finish(result, Walk(self._roots(given), kind.executed))
            except Unseen as problem:
                recorder.refuse(str(problem))
        finally:
            recorder.tape.open = False
            executor.watchers.remove(recorder)
        if settings() != hidden[0]:
            recorder.refuse("it changes a flag")
        if kind.outside:
            recorder.refuse(kind.outside)
        if (settings(), *code.places(walk.generators)) != hidden:
            recorder.refuse("it draws random numbers from Python or NumPy")
        if recorder.refusal or recording is None:
            self._refuse(kind, recorder.refusal)
            return result
        kept = [None if k in kind.followed_numbers else n for k, n in enumerate(given.numbers)]
        grown = kind.executed is not None and len(kind.executed) != size
        self._compare(kind, recording, kept, given, grown)
        return result

    def _compare(
        self, kind: _Kind, recording: Recording, numbers: list[Any], given: Arguments, grown: bool
    ) -> None:
        walk = recording.walk
        kind.former_numbers = given.numbers
        counters = [c for c in recording.changes if _is_number(c)]
        if counters:
            places = {(id(walk.containers[n][1]), key) for n, _, key, _ in counters}
            kind.followed |= {
                walk.path(k) for k, (container, key) in walk.numbers.items() if (id(container), key) in places
            }
        if grown:
            kind.candidates.clear()
        for k, (before, others) in enumerate(kind.candidates):
            alike = others == numbers and before.followed == recording.followed
            if alike and _described(walk, _loosened(before), recording.followed):
                kind.reason = recording.difference(before)
                if not kind.reason:
                    del kind.candidates[k]
                    kind.steps.insert(0, Step(recording, given.vars, numbers, executor.device()))
                    del kind.steps[STEPS:]
                    walk.forget()
                    return
        walk.forget()
        kind.candidates.insert(0, (recording, numbers))
        del kind.candidates[STEPS:]


def _loosened(recording: Recording) -> list[Any]:
    tokens = list(recording.walk.tokens)
    for k in recording.followed:
        tokens[k] = number_token(tokens[k][0])
    return tokens


def _described(walk: Walk, tokens: list[Any], followed: list[int]) -> bool:
    """Whether ``walk`` is described by ``tokens``, in which the numbers at ``followed`` are free."""
    if len(walk.tokens) != len(tokens):
        return False
    mine = list(walk.tokens)
    for k in followed:
        if k not in walk.numbers:
            return False
        mine[k] = number_token(mine[k][0])
    return mine == tokens


def _is_number(change: tuple[int, str, Any, Any]) -> bool:
    _, what, _, shape = change
    return what == "set" and shape[0] == "text" and type(shape[2]) in (int, float)


@overload
def compile(fn: F) -> F: ...
@overload
def compile() -> Callable[[F], F]: ...
def compile(fn: Any = None) -> Any:
    """A function that does what ``fn`` does, without running its Python each time.

    The first calls with a new kind of arguments run ``fn`` and record the programs that it evaluates. Later calls bind the
    arguments and the current values of parameters and other state to the recorded programs, run them, and rebind what ``fn``
    rebinds.

    Args:
        fn: a training or inference step. Its arguments may be Vars, NumPy arrays (uploaded as data; ``fn`` gets Vars), numbers
            and texts, nested in tuples, lists and dictionaries. Without it: answers a decorator.

    Returns:
        A callable with the arguments and results of ``fn``. Results carry no gradient path: compile the whole step, with
        the gradient inside.

    What is captured, and how changes of Python state are noticed, is written in ``docs/compile.md``. A function that can't be
    captured (it reads a value in the middle, or depends on what can't be seen) runs as it is, after one notice that says why.

    Errors: ``ArgumentError`` if ``fn`` can't be called.

    Example:
        >>> import metafuse as mf
        >>> net = mf.nn.Linear(4, 1)
        >>> optimizer = mf.nn.SGD(net.parameters(), lr=0.1, momentum=0.9)
        >>> @mf.compile
        ... def step(x, y):
        ...     loss = ((net(x) - y) ** 2).mean()
        ...     optimizer.step(loss)
        ...     return loss
        >>> x, y = mf.randn(8, 4), mf.ones(8, 1)
        >>> first = step(x, y).item()
        >>> for _ in range(50):
        ...     last = step(x, y)
        >>> last.item() < first, step.replayed > 40
        (True, True)
    """
    if fn is None:
        return compile
    if not callable(fn):
        raise ArgumentError(f"[compile] needs a function, got {type(fn).__name__}")
    return fn if isinstance(fn, Compiled) else Compiled(fn)
