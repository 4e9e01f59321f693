"""How long kernels take: the profiler.

What it is: ``start``, ``stop`` and ``report``, ``profile_scope`` and ``profile_mark``, which count the launches that the executor
tells about (``debug.launches``), and the table that they answer.
What it is not: sampling. While somebody counts, launches run one by one with a clock around each; otherwise nothing is measured.
Who calls it: users, as ``metafuse.profiler`` and ``metafuse.profile_scope``.
"""

from __future__ import annotations

from contextlib import ContextDecorator
from dataclasses import dataclass, field
from typing import Any

from .arguments import checked
from .config import flag_scope, flags
from .debug.launches import Launch, Repeats
from .debug.text import columns, duration
from .errors import ArgumentError, brief
from .runtime import launching
from .var import sync_all

__all__ = ["HEADER", "Report", "profile_mark", "profile_scope", "report", "running", "start", "stop"]

#: the first row of a report. Times are nanoseconds; Input, Output and InOut are bytes per second of arrays that are read,
#: written, and both; Compute is innermost points per second.
HEADER = (
    "Name", "FileName", "Count", "TotalTime", "AvgTime", "MinTime", "MaxTime", "Input", "Output", "InOut", "Compute",
)  # fmt: skip


@dataclass
class _Sum:
    """All launches of one kernel."""

    seconds: list[float] = field(default_factory=list)
    amounts: list[int] = field(default_factory=lambda: [0, 0, 0, 0])

    def row(self, name: str, origin: str) -> list[str]:
        total = sum(self.seconds)
        times = (total, total / len(self.seconds), min(self.seconds), max(self.seconds))
        rates = (amount / total if total else 0.0 for amount in self.amounts)
        return [
            name,
            origin,
            str(len(self.seconds)),
            *(f"{t * 1e9:.0f}" for t in times),
            *(f"{r:.0f}" for r in rates),
        ]


@checked
class Report(list[list[str]]):
    """The header, then a row of texts per kernel; printed, a table in units that people read."""

    def __str__(self) -> str:
        rows = [list(self[0])] if self else []
        for row in self[1:]:
            times = [duration(float(cell) / 1e9) for cell in row[3:7]]
            rows.append([*row[:3], *times, *(f"{float(cell) / 1e9:.3g} G/s" for cell in row[7:])])
        return "\n".join(columns(rows, "")) if rows else "nothing was measured"


class _Session:
    """One who counts."""

    def __init__(self, warmup: int = 0, rerun: int = 0) -> None:
        for name, value in (("warmup", warmup), ("rerun", rerun)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ArgumentError(f"[profiler] {name} must be an integer >= 0, got {brief(value)}")
        self.repeats = warmup, rerun
        self.former = 0, 0
        self.sums: dict[tuple[str, str], _Sum] = {}

    def begin(self) -> None:
        """Count from now on."""
        self.former = Repeats.warmup, Repeats.rerun
        Repeats.warmup, Repeats.rerun = self.repeats
        launching.observers.append(self.add)

    def end(self) -> None:
        """Count no longer."""
        launching.observers.remove(self.add)
        Repeats.warmup, Repeats.rerun = self.former

    def add(self, launch: Launch) -> None:
        """Count a launch."""
        name = f"{launch.name}{list(launch.extents)}" if flags.profiler_record_shape else launch.name
        self.note(
            name,
            launch.origin,
            launch.seconds,
            (launch.read, launch.written, launch.changed, launch.elements),
        )

    def note(self, name: str, origin: str, seconds: float, amounts: tuple[int, ...]) -> None:
        """Count anything that takes time."""
        found = self.sums.setdefault((name, origin), _Sum())
        found.seconds.append(seconds)
        found.amounts = [a + b for a, b in zip(found.amounts, amounts, strict=True)]

    def report(self, sort_key: str) -> Report:
        """The table, the largest ``sort_key`` first."""
        if sort_key not in HEADER:
            raise ArgumentError(
                f"[profiler] sort_key must be one of {', '.join(HEADER)}, got {brief(sort_key)}"
            )
        rows = [found.row(*key) for key, found in self.sums.items()]
        column = HEADER.index(sort_key)
        if column < 2:
            rows.sort(key=lambda row: row[column])
        else:
            rows.sort(key=lambda row: -float(row[column]))
        return Report([list(HEADER), *rows])


#: the session of ``start``: the one that runs, or the last one
_global: list[_Session] = []
_open: list[_Session] = []


def running() -> bool:
    """Whether ``start`` was called and ``stop`` was not.

    Example:
        >>> import metafuse as mf
        >>> mf.profiler.running()
        False
    """
    return any(session in _open for session in _global)


@checked
def start(warmup: int = 0, rerun: int = 0) -> None:
    """Measure every launch from now on, and forget what was measured before.

    Args:
        warmup: runs of each kernel that are not counted.
        rerun: further runs that are; kernels that change their own input, and user code, run once in any case.

    Example:
        >>> import metafuse as mf
        >>> mf.profiler.start()
        >>> y = (mf.ones(1000) + 1).sync()
        >>> mf.profiler.stop()
        >>> table = mf.profiler.report()
        >>> len(table), table[0][:4], table[1][2]
        (2, ['Name', 'FileName', 'Count', 'TotalTime'], '1')
    """
    session = _Session(warmup, rerun)
    stop()
    _global[:] = [session]
    _begin(session)


def stop() -> None:
    """Measure no longer. What was measured stays for ``report``.

    Example:
        >>> import metafuse as mf
        >>> mf.profiler.start()
        >>> mf.profiler.stop()
        >>> mf.profiler.running()
        False
    """
    for session in _global:
        if session in _open:
            _end(session)


@checked
def report(sort_key: str = "TotalTime") -> Report:
    """What was measured since ``start``: a list of rows of texts, of which the first is ``HEADER``; prints as a table.

    Args:
        sort_key: a name of ``HEADER``; names ascend, numbers descend.

    Example:
        >>> import metafuse as mf
        >>> mf.profiler.start()
        >>> _ = (mf.ones(3) * 2).numpy()
        >>> mf.profiler.stop()
        >>> len(mf.profiler.report()) > 1
        True
    """
    return _global[0].report(sort_key) if _global else Report([list(HEADER)])


def _begin(session: _Session) -> None:
    session.begin()
    _open.append(session)


def _end(session: _Session) -> None:
    _open.remove(session)
    session.end()


@checked
class profile_scope(ContextDecorator):  # noqa: N801 - the reference API's name
    """Measure a ``with`` block, pending work before it excluded and its own included.

    The block gets a ``Report``, which is filled when it ends. Further arguments are flags, set as in ``flag_scope``.

    Example:
        >>> import metafuse as mf
        >>> with mf.profile_scope() as table:
        ...     y = (mf.ones(1000) + 1).exp()
        >>> [row[2] for row in table]
        ['Count', '1']
    """

    def __init__(self, warmup: int = 0, rerun: int = 0, **values: Any) -> None:
        self._arguments = (warmup, rerun), values
        _Session(warmup, rerun)  # checks them
        self._scope = flag_scope(**values)
        self._entered: list[tuple[_Session, Report]] = []

    def _recreate_cm(self) -> profile_scope:
        return type(self)(*self._arguments[0], **self._arguments[1])

    def __enter__(self) -> Report:
        sync_all(True)
        self._scope.__enter__()
        session, table = _Session(*self._arguments[0]), Report()
        _begin(session)
        self._entered.append((session, table))
        return table

    def __exit__(self, kind: Any, *exception: object) -> None:
        session, table = self._entered.pop()
        try:
            if kind is None:
                sync_all(True)
        finally:
            _end(session)
            self._scope.__exit__(kind, *exception)
            table[:] = session.report("TotalTime")


@checked
class profile_mark(ContextDecorator):  # noqa: N801 - the reference API's name
    """Give what a ``with`` block computes a row of its own, under ``mark_name``, in the reports of those who measure.

    Example:
        >>> import metafuse as mf
        >>> with mf.profile_scope() as table:
        ...     with mf.profile_mark("first half"):
        ...         x = mf.ones(1000) + 1
        >>> sorted(row[0] for row in table[1:] if row[1] == "profile_mark")
        ['first half']
    """

    def __init__(self, mark_name: str) -> None:
        self.mark_name = str(mark_name)
        self._launches: list[list[Launch]] = []

    def _recreate_cm(self) -> profile_mark:
        return type(self)(self.mark_name)

    def __enter__(self) -> None:
        if _open:
            sync_all(True)
        self._launches.append([])
        launching.observers.append(self._launches[-1].append) if _open else None

    def __exit__(self, kind: Any, *exception: object) -> None:
        launches = self._launches.pop()
        if launches.append not in launching.observers:
            return
        try:
            if kind is None:
                sync_all(True)
        finally:
            launching.observers.remove(launches.append)
        amounts = tuple(
            sum(getattr(x, name) for x in launches) for name in ("read", "written", "changed", "elements")
        )
        for session in _open:
            session.note(self.mark_name, "profile_mark", sum(x.seconds for x in launches), amounts)
