"""Watching the other ranks: a job in which one hangs or has left ends, and says why.

What it is: a thread beside the program that looks a few times a second whether this rank waits in a call for somebody who
has ended, or waits longer than ``flags.dist_timeout``; then every rank prints where it is, and the job ends. A rank that has come
to its end waits as long as the others work, and no longer: it asks them for the processor time that they have used.
What it is not: for ranks that raise (``metafuse.dist.guard``) or are killed (the launcher notices).
Who calls it: ``communicator``, which says in ``now`` what is being waited for.

A second thread, which never calls MPI and so can't be kept waiting by it, ends a process that is overdue all the same.
Time in which this process was stopped (by a debugger, or because the whole job is) does not count. Ranks talk over a
communicator of their own. Where MPI allows no second thread, only that thread and the end of the program are left.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from typing import Any

import numpy as np
from mpi4py import MPI

from metafuse.config import flags
from metafuse.dist.guard import ENDING, Clock, end_within
from metafuse.graph.node import describe_origin
from metafuse.runtime import launching

__all__ = ["HUNG", "Watch"]

#: seconds between looks, from asking the others for their tracebacks to the end, and until a call may be late for one who
#: has left
LOOK, ANSWER, GRACE = 0.25, 2.0, 3.0
#: a rank that uses less than this part of a processor does nothing, apart from looking
IDLE = 0.01
_BYE, _TELL, _ASK, _USED = 1, 2, 3, 4
#: exit code of a job in which a rank hung or left
HUNG = 86


class Watch:
    """Looks after one process."""

    def __init__(self, control: Any, threads: bool) -> None:
        self.control = control
        self.rank, self.size = control.Get_rank(), control.Get_size()
        self.threads = threads
        #: (name of the call, its array or ``None``, ranks that take part), while there is one
        self.now: tuple[Any, ...] | None = None
        self.gone: set[int] = set()
        self.ending = False
        self._main = threading.main_thread().ident
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=f, name="metafuse watch", daemon=True)
            for f in (self._look, self._end_if_overdue)
        ]
        self._lock = threading.Lock()
        self._requests: list[Any] = []
        self._kept: list[Any] = []
        #: rank -> seconds of processor time that it told of last
        self._used: dict[int, float] = {}

    def start(self) -> None:
        """Begin: with what calls MPI only where that allows a second thread."""
        if self.size > 1:
            for thread in self._threads[0 if self.threads else 1 :]:
                thread.start()

    def stop(self) -> None:
        """End the threads."""
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    # -- the end of this rank -----------------------------------------------------------------------------------------
    def farewell(self) -> None:
        """Say that this rank has ended and wait until all have; their messages are looked at meanwhile."""
        self.stop()
        self.ending = True
        self._tell_all(_BYE)
        pause, clock = 0.001, Clock()
        before: dict[int, float] | None = None
        while len(self.gone) < self.size - 1:
            self._listen()
            time.sleep(pause)
            pause = min(2 * pause, 0.1)
            if self.threads and flags.dist_timeout and clock.passed() > flags.dist_timeout / 2:
                if before is not None:
                    self._end_if_idle(before)
                before, self._used = self._used, {}
                self._tell_all(_ASK)
                clock = Clock()
        MPI.Request.Waitall(self._requests)

    def _end_if_idle(self, before: dict[int, float]) -> None:
        """End the job if a rank that has not ended did nothing between two questions, or left both unanswered."""
        least = IDLE * flags.dist_timeout / 2
        for r in set(range(self.size)) - self.gone - {self.rank}:
            answers = [used[r] for used in (before, self._used) if r in used]
            if not answers or (len(answers) == 2 and answers[1] - answers[0] < least):
                self._end(
                    f"has come to its end, and rank {r} has done nothing for {flags.dist_timeout // 2 or 1} s "
                    f"(METAFUSE_DIST_TIMEOUT={flags.dist_timeout})"
                )

    # -- messages -----------------------------------------------------------------------------------------------------
    def _tell_all(self, tag: int) -> None:
        for r in range(self.size):
            if r != self.rank:
                self._tell(r, tag)

    def _tell(self, other: int, tag: int, value: float = 0.0) -> None:
        with self._lock:
            message = np.full(1, value)
            self._kept.append(message)
            self._requests.append(self.control.Isend(message, other, tag))

    def _listen(self) -> None:
        status, message = MPI.Status(), np.zeros(1)
        while self.control.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status):
            source, tag = status.Get_source(), status.Get_tag()
            self.control.Recv(message, source, tag)
            if tag == _BYE:
                self.gone.add(source)
            elif tag == _TELL:
                self._show()
            elif tag == _ASK:
                self._tell(source, _USED, time.process_time())
            elif tag == _USED:
                self._used[source] = float(message[0])

    # -- the threads ----------------------------------------------------------------------------------------------------
    def _end_if_overdue(self) -> None:
        """What ``_look`` does, had it not been kept from it."""
        wait = _Wait()
        while not self._stop.wait(LOOK):
            if flags.dist_timeout and wait.seconds(self.now) > flags.dist_timeout + 2 * ENDING:
                end_within(ENDING, HUNG)
                _write(f"rank {self.rank} of {self.size} can't reach the others, and ends\n")
                self._show()
                os._exit(HUNG)

    def _look(self) -> None:
        wait = _Wait()
        while not self._stop.wait(LOOK):
            self._listen()
            now = self.now
            waited = wait.seconds(now)
            if now is None:
                continue
            left = sorted(self.gone & set(now[2]))
            if left and waited > GRACE:
                self._end(
                    f"waits in {_described(now)} for rank {left[0]}, which has ended; let every rank make the same calls"
                )
            elif flags.dist_timeout and waited > flags.dist_timeout:
                self._end(
                    f"has waited {waited:.0f} s in {_described(now)} (METAFUSE_DIST_TIMEOUT={flags.dist_timeout}); "
                    "every rank tells where it is"
                )

    def _end(self, why: str) -> None:
        """Have everybody tell where they are, then end the job."""
        end_within(ANSWER + ENDING, HUNG)
        _write(f"rank {self.rank} of {self.size} {why}\n")
        self._tell_all(_TELL)
        self._show()
        end = time.monotonic() + ANSWER
        while time.monotonic() < end:
            self._listen()
            time.sleep(0.05)
        sys.stdout.flush()
        self.control.Abort(HUNG)

    def _show(self) -> None:
        """Where this rank's program is."""
        if self.ending:
            _write(f"rank {self.rank} of {self.size} has come to its end\n")
            return
        now = self.now
        frame = sys._current_frames().get(self._main or 0)
        state = f"in {_described(now)}" if now is not None else "computing"
        stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
        _write(f"rank {self.rank} of {self.size} is {state}:\n{stack}")


class _Wait:
    """How long the call has lasted that one is told of again and again."""

    def __init__(self) -> None:
        self._call: tuple[Any, ...] | None = None
        self._clock = Clock()

    def seconds(self, call: tuple[Any, ...] | None) -> float:
        """Seconds since ``call`` was told of first; 0 if there is none."""
        if call is not self._call or call is None:
            self._call, self._clock = call, Clock()
        return self._clock.passed() if call is not None else 0.0


def _described(call: tuple[Any, ...]) -> str:
    name, array, _ = call
    what = f"{name} of {array.dtype}{list(array.shape)}" if array is not None else name
    node = launching.running
    return f"{what} recorded at {describe_origin(node)}" if node is not None else what


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
