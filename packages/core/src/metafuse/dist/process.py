"""Who this process is, and the group of all processes.

What it is: ``world()``, the communicator of everybody, made when first asked for; ``rank``, ``world_size``, ``in_mpi``; and
``single_process_scope``.
What it is not: a communicator (plugins bring those).
Who calls it: ``collectives``, ``parallel``, ``nn`` and users.

A process that was started alone is a group of one and never looks for a plugin.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from contextlib import ContextDecorator
from typing import Any, TypeVar

from ..arguments import checked
from ..config import flags
from ..errors import DistributionError
from ..ops.random import _stream
from ..plugins.registry import registry
from .alone import Alone
from .context import register
from .contract import COMMUNICATOR_VERSION, Communicator, CommunicatorDescriptor, Start
from .detect import started
from .guard import CONNECTING, deadline

__all__ = [
    "device_group",
    "in_mpi",
    "local_rank",
    "rank",
    "set_world",
    "single_process_scope",
    "world",
    "world_size",
]

F = TypeVar("F", bound=Callable[..., Any])

_lock = threading.RLock()


class _Current:
    """The communicator that counts now; ``None`` until it is asked for."""

    def __init__(self) -> None:
        self.group: Communicator | None = None
        #: what connects this process with those it was started with, also while it computes alone
        self.connected: Communicator | None = None


_current = _Current()


def _put(group: Communicator | None) -> None:
    _current.group = group


register(lambda: _current.group, lambda rank: None, _put)


@checked
def world() -> Communicator:
    """The group of all processes that compute together: one process unless a launcher started several.

    Errors: ``DistributionError`` if several were started and no installed distribution can connect them.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.world().size
        1
    """
    group = _current.group
    if group is None:
        with _lock:
            group = _current.group = _current.group or _connect()
    return group


@checked
def set_world(group: Communicator | None) -> None:
    """Compute together with ``group`` from now on; ``None``: find out again when it is needed.

    Example:
        >>> import metafuse as mf
        >>> group = mf.dist.world()
        >>> mf.dist.set_world(group)
        >>> mf.dist.world() is group
        True
    """
    _put(group)


@checked
def rank() -> int:
    """The place of this process among those that compute together, from 0.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.loopback.run(3, lambda rank: mf.dist.rank())
        [0, 1, 2]
    """
    return world().rank


@checked
def world_size() -> int:
    """How many processes compute together.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.world_size()
        1
    """
    return world().size


@checked
def local_rank() -> int:
    """The place of this process among those on the same machine.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.loopback.run(3, lambda rank: mf.dist.local_rank())
        [0, 1, 2]
    """
    return world().local_rank


@checked
def in_mpi() -> bool:
    """Whether several processes compute together.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.in_mpi()
        False
    """
    return world().size > 1


def _connect() -> Communicator:
    start = started() if flags.distribution != "none" else None
    if start is None:
        return Alone()
    chosen = _choose(start)
    with deadline(max(CONNECTING, flags.dist_timeout) if flags.dist_timeout else 0):
        group = chosen.create()
    if group.size != start.size:
        raise DistributionError(
            f"[dist] {start.how} started {start.size} processes, but {chosen.name} connects {group.size}: they belong to "
            "different MPI installations; start them with the mpirun of the MPI that mpi4py uses (python -m metafuse launch "
            "finds it), or under Slurm with srun --mpi=pmi2 or --mpi=pmix"
        )
    _current.connected = group
    return group


def _descriptors(memory: str) -> list[CommunicatorDescriptor]:
    """What plugins offer for this memory, the preferred ones first."""
    found: list[CommunicatorDescriptor] = []
    for record, descriptors in registry().plugins.call("metafuse_communicators"):
        for descriptor in descriptors:
            if not isinstance(descriptor, CommunicatorDescriptor):
                registry().plugins.mark_broken(
                    record,
                    f"metafuse_communicators() answered {descriptor!r}, which is no CommunicatorDescriptor",
                )
            elif descriptor.memory == memory:
                found.append(descriptor)
    return sorted(found, key=lambda d: -d.priority)


def _choose(start: Start) -> CommunicatorDescriptor:
    """The usable descriptor of the highest priority, or the one that ``flags.distribution`` names."""
    refused: list[str] = []
    for descriptor in _descriptors("host"):
        if flags.distribution and flags.distribution != descriptor.name:
            continue
        reason = _refusal(descriptor, start)
        if reason is None:
            return descriptor
        refused.append(f"{descriptor.name!r}: {reason}")
    why = "; ".join(refused) or (
        f"no distribution named {flags.distribution!r} is installed"
        if flags.distribution
        else "none is installed"
    )
    raise DistributionError(
        f"[dist] this is process {start.rank} of {start.size} started by {start.how}, and nothing connects them: {why}; "
        "pip install metafuse-dist-mpi, or set METAFUSE_DISTRIBUTION=none to let each compute alone"
    )


@checked
def device_group(group: Communicator, memory: str) -> Communicator | None:
    """The communicator beside ``group`` that works on the memory of the backend of this name, or ``None``.

    Made when first asked for, which all ranks of ``group`` do together. One that a rank can't use, none uses."""
    made: dict[str, Communicator | None] = group.__dict__.setdefault("on_devices", {})
    if memory not in made:
        start = Start(group.rank, group.size, group.local_rank, group.local_size, group.name)
        usable = next((d for d in _descriptors(memory) if _refusal(d, start) is None), None)
        names = group.exchange((usable.name if usable else "").encode())
        agreed = usable is not None and len(set(names)) == 1
        made[memory] = usable.create(group) if agreed and usable is not None else None
    return made[memory]


def _refusal(descriptor: CommunicatorDescriptor, start: Start) -> str | None:
    if descriptor.contract_version != COMMUNICATOR_VERSION:
        return f"it was written for version {descriptor.contract_version} of the contract, this is version {COMMUNICATOR_VERSION}"
    try:
        return descriptor.probe(start)
    except Exception as error:
        return f"its probe failed: {type(error).__name__}: {error}"


@checked
class single_process_scope(ContextDecorator):  # noqa: N801 - the reference API's name
    """Inside, this process computes alone: no data is shared out and nothing is communicated.

    As a decorator: the function runs on ``rank`` only, the others get ``None`` at once. As a ``with`` block it says so for
    the block, which every process that gets there runs; guard it with ``if mf.rank == 0``.

    Example:
        >>> import metafuse as mf
        >>> @mf.single_process_scope(rank=0)
        ... def report():
        ...     return mf.world_size
        >>> report()
        1
    """

    def __init__(self, rank: int = 0) -> None:
        self.rank = rank
        self._former: list[Communicator] = []

    def __enter__(self) -> single_process_scope:
        from . import collectives

        collectives.settle()  # what was recorded together is computed together
        self._former.append(world())
        _put(Alone())
        return self

    def __exit__(self, *exception: object) -> None:
        if exception[0] is None:
            from ..var import sync_all

            sync_all()
        _put(self._former.pop())

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            if world().size == 1:
                return function(*args, **kwargs)
            from . import collectives

            collectives.settle()
            if world().rank != self.rank:
                return None
            with type(self)(self.rank):
                return function(*args, **kwargs)

        return inside  # type: ignore[return-value]


def _leave() -> None:
    """A forked child is no rank."""
    if _current.group is not None and _current.group.size > 1:
        _current.group = Alone()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave)

type(_stream).rank = staticmethod(rank)
