"""What belongs to one rank, where several ranks share a process.

What it is: the list of places that hold a rank's state (pending operations, devices, random streams, batches), taken out and put
back together when another rank's turn comes.
What it is not: used in a process that is one rank; there the state is simply there.
Who calls it: ``loopback``; modules with state of a rank register it here.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any

import numpy as np

from ..graph.node import state
from ..ops.random import _stream, seed_of
from ..runtime import executor

__all__ = ["Context", "register"]

#: (state as it is now, state of a new rank, put it in place)
Place = tuple[Callable[[], Any], Callable[[int], Any], Callable[[Any], None]]
_places: list[Place] = []


def register(take: Callable[[], Any], new: Callable[[int], Any], put: Callable[[Any], None]) -> None:
    """Name state of a rank: ``take()`` answers it, ``new(rank)`` makes that of a rank that starts, ``put(value)`` replaces it."""
    _places.append((take, new, put))


class Context:
    """Everything that belongs to a rank, while another one has its turn."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    @classmethod
    def taken(cls) -> Context:
        """The state of whoever runs now."""
        return cls([take() for take, _, _ in _places])

    @classmethod
    def fresh(cls, rank: int) -> Context:
        """The state of a rank that starts."""
        return cls([new(rank) for _, new, _ in _places])

    def put(self) -> None:
        """Go on with this state."""
        for (_, _, put), value in zip(_places, self.values, strict=False):
            put(value)


def _take() -> Any:
    return state.pending, state.grad_enabled, executor.devices, executor.lock, executor.watchers


def _new(rank: int) -> Any:
    return [], True, {}, RLock(), []


def _put(value: Any) -> None:
    state.pending, state.grad_enabled, executor.devices, executor.lock, executor.watchers = value


def _put_stream(value: tuple[int, int]) -> None:
    _stream.seed, _stream.offset = value


register(_take, _new, _put)
register(
    lambda: (_stream.seed, _stream.offset),
    lambda rank: (seed_of(_stream.seed, rank), 0),
    _put_stream,
)
register(np.random.get_state, lambda rank: np.random.RandomState(rank).get_state(), np.random.set_state)
