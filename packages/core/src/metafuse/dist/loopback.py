"""Several ranks as threads of one process: communication without a network, for tests.

What it is: ``run(count, function)``, which calls ``function(rank)`` on ``count`` threads whose ``world()`` is a group of
``Loopback`` communicators.
What it is not: fast. One rank runs at a time and hands over when it has to wait, so a run is the same every time, and a group in
which everybody waits is noticed at once and described instead of hanging.
Who calls it: tests, and the conformance kit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arguments import checked
from ..errors import ArgumentError, CollectiveMismatch
from . import process as _process
from .context import Context
from .contract import OPERATIONS, Array, Communicator, check_rank

__all__ = ["Loopback", "run"]


class _Ended(BaseException):
    """Ends the thread of a rank because another one failed."""


class _Baton:
    """Lets one of ``count`` threads run at a time."""

    def __init__(self, count: int) -> None:
        self.lock = threading.Lock()
        self.turns = [threading.Semaphore(0) for _ in range(count)]
        self.waiting: dict[
            int, tuple[Callable[[], bool], str]
        ] = {}  # rank -> (may it go on, what it waits for)
        self.alive = set(range(count))
        self.failed: BaseException | None = None

    def wait(self, rank: int, ready: Callable[[], bool], what: str) -> None:
        """Let others run until ``ready()``."""
        if not ready():
            self.waiting[rank] = ready, what
            own = Context.taken()
            self.hand_over(rank)
            self.turns[rank].acquire()
            own.put()
            del self.waiting[rank]
        if self.failed is not None:
            raise _Ended

    def hand_over(self, rank: int) -> None:
        """Give the turn to the next rank that can use it; if there is none, all of them are told."""
        order = sorted(self.alive, key=lambda r: (r <= rank, r))
        chosen = next(
            (r for r in order if r not in self.waiting or self.failed or self.waiting[r][0]()), None
        )
        if chosen is None and self.alive:
            stories = "; ".join(f"rank {r} waits in {self.waiting[r][1]}" for r in sorted(self.alive))
            ended = sorted(set(range(len(self.turns))) - self.alive)
            gone = f"; ended already: {ended}" if ended else ""
            self.failed = CollectiveMismatch(
                f"[dist] no rank can go on: {stories}{gone}; let every rank make the same calls"
            )
            chosen = min(self.alive)
        if chosen is not None:
            self.turns[chosen].release()


class _Meeting:
    """One collective of a group: what each rank brought."""

    def __init__(self) -> None:
        self.brought: dict[int, tuple[str, Array]] = {}
        self.left = 0


class _Group:
    """What the communicators of a group share."""

    def __init__(self, baton: _Baton, members: list[int]) -> None:
        self.baton = baton
        self.members = members  # of the whole run, by rank in the group
        self.meetings: dict[int, _Meeting] = {}
        self.mail: dict[tuple[int, int, int], deque[Array]] = {}
        self.parts: dict[Any, _Group] = {}


@checked
class Loopback(Communicator):
    """A rank among threads; ``run`` makes them."""

    name = "loopback"

    def __init__(self, group: _Group, rank: int) -> None:
        self._group = group
        self.rank = self.local_rank = rank
        self.size = self.local_size = len(group.members)
        self._count = 0

    def _meet(self, what: str, array: Array) -> list[Array]:
        """Everybody's arrays; ``what`` describes the call and must be the same on all ranks."""
        number, self._count = self._count, self._count + 1
        group = self._group
        meeting = group.meetings.setdefault(number, _Meeting())
        meeting.brought[self.rank] = what, array.copy()
        group.baton.wait(
            group.members[self.rank],
            lambda: len(meeting.brought) == self.size,
            f"{what} (collective {number})",
        )
        meeting.left += 1
        if meeting.left == self.size:
            del group.meetings[number]
        for other, (theirs, _) in sorted(meeting.brought.items()):
            if theirs != what:
                raise CollectiveMismatch(
                    f"[dist] collective {number}: rank {self.rank} called {what}, rank {other} called {theirs}; let every rank "
                    "make the same calls in the same order"
                )
        return [meeting.brought[r][1] for r in range(self.size)]

    def split(self, color: int | None, key: int = 0) -> Communicator | None:
        """The group of those that gave the same ``color``."""
        mine = np.array([0 if color is None else 1, color or 0, key], np.int64)
        number = self._count
        wishes = self._meet("split", mine)
        if color is None:
            return None
        chosen = [r for r, (given, c, _) in enumerate(wishes) if given and c == color]
        chosen.sort(key=lambda r: (wishes[r][2], r))
        part = self._group.parts.setdefault(
            (number, color), _Group(self._group.baton, [self._group.members[r] for r in chosen])
        )
        return Loopback(part, chosen.index(self.rank))

    def all_reduce(self, source: Array, target: Array, op: str) -> None:
        """Combined in order of rank."""
        given = self._meet(_call("all_reduce", source, op), source)
        target[...] = _combined(given, op).reshape(target.shape)

    def reduce(self, source: Array, target: Array, op: str, root: int) -> None:
        """Combined in order of rank."""
        check_rank("Loopback.reduce", "root", root, self.size)
        given = self._meet(_call("reduce", source, op, root), source)
        if self.rank == root:
            target[...] = _combined(given, op).reshape(target.shape)

    def broadcast(self, source: Array, target: Array, root: int) -> None:
        """A copy of what ``root`` brought."""
        check_rank("Loopback.broadcast", "root", root, self.size)
        target[...] = self._meet(_call("broadcast", source, root), source)[root].reshape(target.shape)

    def all_gather(self, source: Array, target: Array) -> None:
        """One after another."""
        given = self._meet(_call("all_gather", source), source)
        target.reshape(-1)[...] = np.concatenate([a.reshape(-1) for a in given])

    def reduce_scatter(self, source: Array, target: Array, op: str) -> None:
        """Combined in order of rank, then cut."""
        given = self._meet(_call("reduce_scatter", source, op), source)
        target.reshape(-1)[...] = np.split(_combined(given, op).reshape(-1), self.size)[self.rank]

    def barrier(self) -> None:
        """Everybody meets."""
        self._meet("barrier", np.empty(0, np.uint8))

    def send(self, array: Array, dest: int, tag: int = 0) -> None:
        """Put into the receiver's box."""
        check_rank("Loopback.send", "dest", dest, self.size)
        self._group.mail.setdefault((self.rank, dest, tag), deque()).append(array.copy())

    def recv(self, array: Array, source: int, tag: int = 0) -> None:
        """Wait for the box to be filled."""
        check_rank("Loopback.recv", "source", source, self.size)
        box = self._group.mail.setdefault((source, self.rank, tag), deque())
        self._group.baton.wait(
            self._group.members[self.rank],
            lambda: bool(box),
            f"recv of {array.dtype}{list(array.shape)} from rank {source}",
        )
        found = box.popleft()
        if found.dtype != array.dtype or found.size != array.size:
            raise CollectiveMismatch(
                f"[recv] rank {self.rank} expects {array.size} elements of {array.dtype}, rank {source} sent {found.size} of "
                f"{found.dtype}; give like the shape and type that is sent"
            )
        array.reshape(-1)[...] = found.reshape(-1)


def _call(name: str, array: Array, *more: Any) -> str:
    return f"{name}({', '.join([f'{array.dtype}{list(array.shape)}', *map(str, more)])})"


def _combined(given: list[Array], op: str) -> Array:
    """All arrays combined in order."""
    total = given[0].copy()
    for other in given[1:]:
        OPERATIONS[op](total, other, out=total)
    return total


#: every rank is a thread
MOST_RANKS = 256


@checked
def run(count: int, function: Callable[[int], Any]) -> list[Any]:
    """Call ``function(rank)`` on ``count`` ranks; answers what each returned.

    Errors: the exception of the rank that failed first, with its rank in a note; the others are ended.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.loopback.run(3, lambda rank: mf.array([float(rank)]).mpi_all_reduce().item())
        [3.0, 3.0, 3.0]
    """
    if not 1 <= count <= MOST_RANKS:
        raise ArgumentError(f"[loopback.run] count must be in 1..{MOST_RANKS}, got {count}")
    count = int(count)
    baton = _Baton(count)
    everybody = _Group(baton, list(range(count)))
    results: list[Any] = [None] * count
    former = Context.taken()
    contexts = [Context.fresh(r) for r in range(count)]

    def rank_main(rank: int) -> None:
        baton.turns[rank].acquire()
        contexts[rank].put()
        try:
            if baton.failed is None:
                _process.set_world(Loopback(everybody, rank))
                results[rank] = function(rank)
        except _Ended:
            pass
        except BaseException as error:
            baton.failed = baton.failed or _noted(error, rank)
        finally:
            baton.alive.discard(rank)
            baton.hand_over(rank)

    threads = [
        threading.Thread(target=rank_main, args=(r,), name=f"rank {r}", daemon=True) for r in range(count)
    ]
    for thread in threads:
        thread.start()
    baton.turns[0].release()
    for thread in threads:
        thread.join()
    former.put()
    if baton.failed is not None:
        raise baton.failed
    return results


def _noted(error: BaseException, rank: int) -> BaseException:
    if hasattr(error, "add_note"):  # Python 3.11
        error.add_note(f"raised by rank {rank}")
    return error
