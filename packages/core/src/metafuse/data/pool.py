"""Worker processes of a data set, seen from the process that iterates.

What it is: ``Pool``, which hands out batches to load, takes them back in order, and notices exceptions and deaths of workers.
What it is not: what a worker does (``data.worker``), or which items make a batch (``data.dataset``).
Who calls it: ``data.dataset``.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any

from ..errors import ArgumentError, MetafuseError
from .arena import Arena, available
from .collate import is_plain
from .worker import Done, Failed, Task, work

__all__ = ["START_METHODS", "Pool", "WorkerError", "WorkerTraceback", "in_worker"]

START_METHODS = ("fork", "forkserver", "spawn")
_AHEAD = 2  # batches that each worker may be ahead


class WorkerError(MetafuseError, RuntimeError):
    """A worker process ended, or raised an exception that could not be sent here."""


class WorkerTraceback(Exception):
    """The cause of an exception that a worker raised: where it was, and the traceback there."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def in_worker() -> bool:
    """Whether this process is one that may have no children, as workers are."""
    return bool(multiprocessing.current_process().daemon)


def default_method() -> str:
    """``fork`` on Linux: scripts need no guard, and data sets need not be pickled. Kernels of a forked process run on one
    thread.
    Elsewhere ``spawn``, since system libraries do not survive forks there."""
    return "fork" if sys.platform.startswith("linux") else "spawn"


class _Member:
    """One worker: process, pipe, memory, and what it has been given."""

    def __init__(self, process: Any, pipe: connection.Connection, arena: Arena, number: int) -> None:
        self.process, self.pipe, self.arena, self.number = process, pipe, arena, number
        self.waiting: dict[int, list[Any]] = {}  # number of a batch it works on -> items
        self.seconds = (0.0, 0.0, 0.0)
        self.count = 0


class Pool:
    """``count`` processes that load batches of ``dataset``, of which each has a copy.

    Errors: ``ArgumentError`` if the data set can't be handed over; ``OutOfMemory``.
    """

    def __init__(self, dataset: Any, count: int, buffer_size: int, method: str | None) -> None:
        if not available():
            raise ArgumentError(
                f"[Dataset] worker processes need POSIX; num_workers={count} can't be used on {sys.platform}, use 0"
            )
        self.name = type(dataset).__name__
        self.context = multiprocessing.get_context(method or default_method())
        self.members: list[_Member] = []
        self.next_number = 0
        self.first_wanted = 0
        self.active = False
        self.waited = 0.0
        self.finalizer = weakref.finalize(self, _end, self.members)
        try:
            for number in range(count):
                self._start(dataset, number, buffer_size)
        except BaseException:
            self.end()
            raise

    def _start(self, dataset: Any, number: int, buffer_size: int) -> None:
        arena = Arena(buffer_size)
        here, there = self.context.Pipe()
        forked = self.context.get_start_method() == "fork"
        others = [m.pipe for m in self.members] + [here] if forked else []
        process = self.context.Process(  # type: ignore[attr-defined]
            target=work,
            args=(dataset, there, arena, others, number),
            name=f"{self.name} worker {number}",
            daemon=True,
        )
        try:
            with _quiet_start():
                process.start()
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            arena.close()
            raise ArgumentError(
                f"[Dataset] {self.name} can't be handed over to a new process: {error}; define everything in it at the top level "
                "of a module, or set_attrs(start_method='fork')"
            ) from error
        there.close()
        self.members.append(_Member(process, here, arena, number))

    @property
    def alive(self) -> bool:
        """Whether all workers are there."""
        return bool(self.members) and all(m.process.is_alive() for m in self.members)

    def end(self) -> None:
        """End all workers and give their memory back."""
        self.finalizer()

    # -- iterating -----------------------------------------------------------------------------------------------------
    def load(
        self,
        batches: Iterator[tuple[list[Any], Any]],
        finish: Callable[[Any], Any],
        copy: bool,
        seed: tuple[int, ...],
        epoch: int,
    ) -> Iterator[tuple[Any, Any]]:
        """Pairs (batch, note) for pairs (items, note), in order. ``finish`` makes a batch of what a worker loaded; unless
        ``copy`` arrays in lists and dictionaries are only there until it returns.

        Errors: the exception of a worker, with its traceback there as the cause; ``WorkerError`` if a worker ended.
        """
        self.active = True
        notes: dict[int, Any] = {}
        arrived: dict[int, tuple[_Member, Done | Failed]] = {}
        first = self.next_number
        try:
            while True:
                while len(notes) < _AHEAD * len(self.members) and (entry := next(batches, None)) is not None:
                    items, note = entry
                    number = self._give(items, (*seed, self.next_number - first), epoch)
                    notes[number] = note
                if not notes:
                    return
                number = min(notes)
                while number not in arrived:
                    self._receive(arrived)
                yield self._taken(*arrived.pop(number), finish, copy), notes.pop(number)
        except KeyboardInterrupt:  # nothing is to be left behind
            self.end()
            raise
        finally:
            self._give_up(arrived)
            self.active = False

    def _give(self, items: list[Any], seed: tuple[int, ...], epoch: int) -> int:
        """Tell the least busy worker to load a batch; the number of the batch."""
        number = self.next_number
        self.next_number += 1
        member = min(self.members, key=lambda m: len(m.waiting))
        member.waiting[number] = items
        self._send(member, Task(number, items, seed, epoch))
        return number

    def _send(self, member: _Member, message: Any) -> None:
        try:
            member.pipe.send(message)
        except OSError:  # it is gone; its death is reported when something is expected of it
            if member.waiting:
                raise self._death(member) from None

    def _receive(self, arrived: dict[int, tuple[_Member, Done | Failed]]) -> None:
        """Wait for a worker to say something, or to end."""
        began = time.perf_counter()
        watched: dict[Any, _Member] = {}
        for member in self.members:
            watched[member.pipe] = member
            watched[member.process.sentinel] = member
        ready = connection.wait(list(watched))
        self.waited += time.perf_counter() - began
        dead = None
        for member in {id(watched[r]): watched[r] for r in ready}.values():
            try:
                while member.pipe.poll():
                    self._accept(member, member.pipe.recv(), arrived)
            except (EOFError, OSError):
                dead = member
            if not member.process.is_alive():
                dead = member
        if dead is not None:
            raise self._death(dead)

    def _accept(
        self, member: _Member, message: Any, arrived: dict[int, tuple[_Member, Done | Failed]]
    ) -> None:
        member.waiting.pop(message.number, None)
        if isinstance(message, Done):
            member.seconds = message.seconds
            member.count += 1
        if message.number >= self.first_wanted:
            arrived[message.number] = member, message
        elif isinstance(message, Done):
            self._send(member, ("free", message.packed.start))

    def _taken(
        self, member: _Member, message: Done | Failed, finish: Callable[[Any], Any], copy: bool
    ) -> Any:
        """The batch of a message; its memory goes back to the worker."""
        if isinstance(message, Failed):
            raise _exception(message)
        loaded = member.arena.read(message.packed, copy)
        if not copy and not is_plain(loaded):
            loaded = member.arena.read(message.packed, True)
        batch = finish(loaded)
        del loaded
        self._send(member, ("free", message.packed.start))
        return batch

    def _give_up(self, arrived: dict[int, tuple[_Member, Done | Failed]]) -> None:
        """Forget what has been asked for and not been taken."""
        self.first_wanted = self.next_number
        for member, message in arrived.values():
            if isinstance(message, Done):
                self._send(member, ("free", message.packed.start))
        for member in self.members:
            if member.waiting:
                member.waiting.clear()
                self._send(member, ("give up", self.first_wanted))

    def _death(self, member: _Member) -> WorkerError:
        """The error for a worker that has ended; the others are ended too."""
        member.process.join(5)
        code = member.process.exitcode
        how = (
            f"ended with exit code {code}"
            if code is None or code >= 0
            else f"was killed by {_signal_name(-code)}"
        )
        hint = ""
        if code in (-9, -7):
            hint = "; the system may be out of memory: use fewer workers, smaller batches or a smaller buffer_size"
        elif member.count == 0 and self.context.get_start_method() != "fork":
            hint = "; its message is above. The main part of a script must stand below if __name__ == '__main__':"
        items = [items for _, items in sorted(member.waiting.items())][:1]
        while_ = f" while it had items {str(items[0])[:200]} to load" if items else ""
        pid = member.process.pid
        for other in self.members:
            other.waiting.clear()
        self.end()
        return WorkerError(
            f"[Dataset] worker {member.number} (process {pid}) of {self.name} {how}{while_}{hint}"
        )

    def status(self) -> str:
        """How long who has been waiting, in words."""
        lines = [
            f"{self.name}: {len(self.members)} workers; this process waited {self.waited:.3f} s for them"
        ]
        for m in self.members:
            load, tasks, space = m.seconds
            lines.append(
                f"  worker {m.number} (process {m.process.pid}): {m.count} batches loaded in {load:.3f} s, waited {tasks:.3f} s "
                f"for work and {space:.3f} s for space in its buffer"
            )
        return "\n".join(lines)


def _exception(message: Failed) -> BaseException:
    """The exception that a worker raised."""
    cause = WorkerTraceback(message.text)
    error: BaseException | None = None
    if message.error:
        try:
            error = pickle.loads(message.error)
        except Exception:  # of the user's class
            error = None
    if not isinstance(error, Exception) or isinstance(error, StopIteration):
        last = message.text.strip().rpartition("\n")[2]
        error = WorkerError(f"[Dataset] an item could not be loaded: {last}")
    error.__cause__ = cause
    return error


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextmanager
def _quiet_start() -> Iterator[None]:
    """No interrupt reaches a process before it has said that it ignores them, and Python's advice against forks of
    processes with threads is not shown: the threads that metafuse starts are prepared for them."""
    before = None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        if threading.current_thread() is threading.main_thread():
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            if before is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(members: list[_Member]) -> None:
    """End processes: first by asking, then by force. Only the process that started them does."""
    # an interrupt may have come in the middle of an earlier call: some are closed already
    open_ones = [m for m in members if not m.process._closed]  # type: ignore[attr-defined]
    ours = [m for m in open_ones if m.process._parent_pid == os.getpid()]
    for member in ours:
        try:
            member.pipe.send("stop")
        except OSError:
            pass
    until = time.monotonic() + 1.0
    for force in (lambda p: None, lambda p: p.terminate(), lambda p: p.kill()):
        for member in ours:
            if member.process.is_alive():
                force(member.process)
        for member in ours:
            member.process.join(max(until - time.monotonic(), 0))
        until = time.monotonic() + 2.0
    for member in ours:
        member.pipe.close()
        member.arena.close()
        if not member.process.is_alive():
            member.process.close()
    members.clear()
