"""The end of a rank: one that fails takes the others along instead of leaving them waiting.

What it is: an exception hook that prints this rank's traceback and ends the job, and what is done when the process ends.
What it is not: watching the others (communicators do that).
Who calls it: ``install`` is called by ``metafuse.dist`` in processes that a launcher started.

Without it, a rank that raises waits for the others in the finalisation of MPI, while they wait for it in a collective.

What ends a job may hang itself: a pipe that nobody empties, a library whose clean-up waits for a thread that is gone.
``deadline`` bounds it with a clock that needs neither the interpreter nor any library.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from .contract import Start

__all__ = ["CONNECTING", "DONE_FOLDER", "ENDING", "Clock", "deadline", "end_within", "install", "leave_note"]

#: where ``launch`` looks for files of ranks: "begun-0" with process and machine, "failed-0", and "0" if it came to its end
DONE_FOLDER = "METAFUSE_LAUNCH_FOLDER"
#: seconds that ending a job may take, and that finding each other may take whatever the time-out is
ENDING, CONNECTING = 10.0, 60.0
#: exit code of a rank that raised
RAISED = 1


class _Guard:
    """Hooks of this process."""

    def __init__(self, start: Start) -> None:
        self.start = start
        self.process = os.getpid()
        self.code = 0
        self.former = sys.excepthook
        self.exit = sys.exit

    def install(self) -> None:
        """Put the hooks in place."""
        sys.excepthook = self.raised
        sys.exit = self.leaving  # type: ignore[assignment]
        threading.excepthook = self.raised_in_thread
        atexit.register(self.ending)

    def raised(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Tell what happened to this rank, then end the job."""
        if os.getpid() != self.process:
            self.former(kind, error, trace)
            return
        end_within(ENDING, RAISED)
        leave_note(f"failed-{self.start.rank}")
        self.tell(kind, error, trace)
        abort(RAISED)

    def raised_in_thread(self, args: Any) -> None:
        """A thread that fails is told of; whether the rank can go on is for the others to find out."""
        if args.exc_type is not SystemExit:
            self.tell(args.exc_type, args.exc_value, args.exc_traceback)

    def tell(
        self, kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The traceback, as one piece of text so that ranks do not mix theirs."""
        text = "".join(traceback.format_exception(kind, error, trace))
        here = f"rank {self.start.rank} of {self.start.size} failed:\n{text}"
        sys.stdout.flush()
        sys.stderr.write(here)
        sys.stderr.flush()

    def leaving(self, code: Any = None) -> None:
        """``sys.exit``, remembering the code."""
        if os.getpid() == self.process and threading.current_thread() is threading.main_thread():
            self.code = code if isinstance(code, int) else int(code is not None)
        self.exit(code)

    def ending(self) -> None:
        """At the end of the process: a failure ends the job, else the others are waited for."""
        if os.getpid() != self.process:
            return
        from . import process

        _flush()
        if self.code:
            leave_note(f"failed-{self.start.rank}")
            sys.stderr.write(f"rank {self.start.rank} of {self.start.size} ends with exit code {self.code}\n")
            abort(self.code)
        if process._current.connected is not None:
            process._current.connected.close()
        leave_note(str(self.start.rank))


def leave_note(name: str, text: str = "") -> None:
    """A file for ``launch`` to find, if it started this process."""
    folder = os.environ.get(DONE_FOLDER)
    if folder and os.path.isdir(folder):
        with suppress(OSError):
            (Path(folder) / name).write_text(text)


def _flush() -> None:
    with suppress(OSError, ValueError):  # nobody reads it any more
        sys.stdout.flush()
        sys.stderr.flush()


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """What is inside may take so long; then this process tells where each of its threads is, and is ended with code 1."""
    file = sys.__stderr__
    if file is None or seconds <= 0:
        yield
        return
    faulthandler.dump_traceback_later(seconds, exit=True, file=file)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class Clock:
    """Seconds since it was made, asked for often: those in which the process was stopped do not count.

    Example:
        >>> from metafuse.dist.guard import Clock
        >>> Clock().passed() < 1
        True
    """

    #: what lies between two questions counts as no more than this
    LONGEST = 1.0

    def __init__(self) -> None:
        self._last, self._passed = time.monotonic(), 0.0

    def passed(self) -> float:
        """How many."""
        now = time.monotonic()
        self._passed += min(now - self._last, self.LONGEST)
        self._last = now
        return self._passed


def end_within(seconds: float, code: int) -> None:
    """End this process with ``code`` after so long at the latest, whatever it does.

    If it does not even give the interpreter away, it takes three times as long, and the code is 1."""
    faulthandler.dump_traceback_later(3 * seconds, exit=True, file=_nowhere())
    threading.Thread(target=_end_after, args=(seconds, code), name="metafuse end", daemon=True).start()


def _end_after(seconds: float, code: int) -> None:
    clock = Clock()
    while clock.passed() < seconds:
        time.sleep(0.1)
    os._exit(code)


@lru_cache(maxsize=1)
def _nowhere() -> TextIO:
    return open(os.devnull, "w")


def abort(code: int) -> None:
    """End every process of the job."""
    from . import process

    group = process._current.connected
    if group is None:  # nothing connects the ranks yet: only what connects them can end them all
        try:
            group = process.world()
        except Exception:
            group = None
    end_within(ENDING, code)
    _flush()
    if group is not None:
        group.abort(code)
    os._exit(code)


def install(start: Start) -> None:
    """Guard this process, which ``start`` tells about."""
    _Guard(start).install()
