"""The communication contract: what N processes can say to each other.

What it is: ``Communicator``, nine methods on contiguous memory, and ``CommunicatorDescriptor``, by which a plugin
offers one.
What it is not: operators with gradients (``collectives``), data parallelism (``parallel``) or a choice among communicators
(``process``).
Who calls it: ``collectives`` and ``parallel``; the conformance kit.

Arrays are C-contiguous. Those that are summed or compared have one of ``REDUCED``; 16-bit floats come as float32 and bool
as uint8 (``reduction`` prepares them). What is only moved comes as bytes (uint8). All ranks make the same calls in the same
order.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ArgumentError, brief

__all__ = [
    "COMMUNICATOR_VERSION", "OPERATIONS", "REDUCED", "Adder", "Array", "Communicator", "CommunicatorDescriptor", "DeviceArray",
    "Request", "Start", "check_rank",
]  # fmt: skip

COMMUNICATOR_VERSION = 1
#: how values of ranks are combined -> NumPy's function of two arrays that means the same
OPERATIONS: dict[str, np.ufunc] = {
    "add": np.add,
    "multiply": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
}
#: types that a communicator on host memory combines
REDUCED = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class DeviceArray:
    """Memory of a device: its address, elements of a type by name, and the stream on which it is written and read."""

    pointer: int
    size: int
    dtype: str
    stream: int = 0


class Request:
    """Communication under way. This one is done already; communicators that overlap subclass it."""

    def progress(self) -> bool:
        """Move on if that needs the processor's help; answers whether it is done."""
        return True

    def wait(self) -> None:
        """Come back when it is done."""


class Adder:
    """Memory in which the ranks of a group add up what they put there, over and over: put into ``array``, ``begin``, ``take``.

    This one has ``start_all_reduce`` do it in place. Communicators that reach the other ranks' memory subclass it.

    Example:
        >>> import numpy as np
        >>> from metafuse.dist.alone import Alone
        >>> adder = Alone().adder(3, np.dtype(np.float32))
        >>> adder.array[...] = [1, 2, 3]
        >>> adder.begin()
        >>> part = np.empty(2, np.float32)
        >>> adder.take(1, part)
        >>> part
        array([2., 3.], dtype=float32)
    """

    def __init__(self, group: Communicator, size: int, dtype: np.dtype[Any]) -> None:
        #: where this rank's values go; another array after each ``begin``, perhaps
        self.array: Array = np.empty(size, dtype)
        self._group = group
        self._request: Request | None = None

    def begin(self) -> None:
        """Begin the sum of what every rank has put into ``array``, which is left alone until the sums have been taken."""
        self._request = self._group.start_all_reduce(self.array, self.array, "add")

    def progress(self) -> None:
        """Move on what ``begin`` began, if that needs the processor's help."""
        if self._request is not None:
            self._request.progress()

    def wait(self) -> None:
        """Come back when the sums can be taken; at once if nothing is under way."""
        if self._request is not None:
            self._request.wait()
            self._request = None

    def take(self, first: int, target: Array) -> None:
        """Put the sums from place ``first`` on into ``target``, waiting for them."""
        self.wait()
        target[...] = self.array[first : first + target.size].reshape(target.shape)


class Communicator(ABC):
    """A group of processes that know each other by rank. Subclass it, offer it by a ``CommunicatorDescriptor``, run the
    conformance kit's level "collectives".

    Example:
        >>> import numpy as np
        >>> from metafuse.dist.alone import Alone
        >>> group = Alone()
        >>> value = np.array([1.0, 2.0], np.float32)
        >>> group.all_reduce(value, value, "add")
        >>> group.rank, group.size, value
        (0, 1, array([1., 2.], dtype=float32))
    """

    #: what people call it
    name: str
    #: place of this process in the group, and how many there are
    rank: int
    size: int
    #: place among the processes of the group on this machine, and how many those are
    local_rank: int = 0
    local_size: int = 1
    #: the memory it works on: "host", or the name of a backend whose memory it takes as ``DeviceArray`` s
    memory: str = "host"
    #: names of the types that it combines
    reduced: tuple[str, ...] = REDUCED

    # -- groups ---------------------------------------------------------------------------------------------------
    @abstractmethod
    def split(self, color: int | None, key: int = 0) -> Communicator | None:
        """The group of all that gave this ``color``, ordered by (key, rank); ``None`` for those that gave ``None``."""

    # -- collectives: every rank calls ------------------------------------------------------------------------------
    @abstractmethod
    def all_reduce(self, source: Array, target: Array, op: str) -> None:
        """Put the combination of all ranks' ``source`` s into ``target``, which may be ``source`` itself."""

    @abstractmethod
    def reduce(self, source: Array, target: Array, op: str, root: int) -> None:
        """The same on ``root`` only; elsewhere ``target`` is left as it is."""

    @abstractmethod
    def broadcast(self, source: Array, target: Array, root: int) -> None:
        """Put the ``source`` of ``root`` into every ``target``, which may be ``source`` itself."""

    @abstractmethod
    def all_gather(self, source: Array, target: Array) -> None:
        """Put the arrays of all ranks one after another into ``target``, which has ``size`` times the elements."""

    @abstractmethod
    def reduce_scatter(self, source: Array, target: Array, op: str) -> None:
        """Combine all ranks' ``source`` s and put part ``rank`` of ``size`` equal parts into ``target``."""

    @abstractmethod
    def barrier(self) -> None:
        """Come back when every rank has come."""

    # -- one to one -------------------------------------------------------------------------------------------------
    @abstractmethod
    def send(self, array: Array, dest: int, tag: int = 0) -> None:
        """Hand ``array`` to rank ``dest``; it may be changed afterwards."""

    @abstractmethod
    def recv(self, array: Array, source: int, tag: int = 0) -> None:
        """Fill ``array`` with what rank ``source`` sent. Errors: ``DistributionError`` if that has another size."""

    # -- with a general answer, for communicators to improve on -----------------------------------------------------
    def start_all_reduce(self, source: Array, target: Array, op: str) -> Request:
        """Begin an ``all_reduce``; until the request is done both must be left alone. Here it is done at once."""
        self.all_reduce(source, target, op)
        return Request()

    def adder(self, size: int, dtype: np.dtype[Any]) -> Adder:
        """Memory for sums of ``size`` elements of ``dtype``, one of ``REDUCED``. All ranks make it together."""
        return Adder(self, size, dtype)

    def exchange(self, data: bytes) -> list[bytes]:
        """What every rank gave, by rank; lengths may differ."""
        mine = np.frombuffer(data, np.uint8)
        lengths = np.empty(self.size, np.int64)
        self.all_gather(np.array([mine.size], np.int64), lengths)
        longest = int(lengths.max())
        padded = np.zeros(longest, np.uint8)
        padded[: mine.size] = mine
        everything = np.empty((self.size, longest), np.uint8)
        self.all_gather(padded, everything)
        return [everything[k, : int(n)].tobytes() for k, n in enumerate(lengths)]

    def abort(self, code: int) -> None:
        """End every process of the job at once with this exit code."""
        os._exit(code)

    def close(self) -> None:  # noqa: B027 - most have nobody to tell
        """Called once, when this process has nothing more to do: tell the others."""

    def __repr__(self) -> str:
        return f"<{self.name}: rank {self.rank} of {self.size}>"


@dataclass(frozen=True)
class Start:
    """How this process was started with others: its place among them, and what started them."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    how: str


@dataclass(frozen=True)
class CommunicatorDescriptor:
    """What a plugin hands over instead of a communicator: cheap to make, imports nothing heavy.

    ``probe(start)`` answers ``None`` if it can connect the processes of such a start, else the reason in one sentence.
    ``create()`` answers the communicator of all processes. The usable one of the highest ``priority`` is taken. One that
    works on the ``memory`` of a backend is made by ``create(group)`` beside a communicator on host memory, by all of its
    ranks together, when the first collective runs on that backend.
    """

    name: str
    summary: str
    create: Callable[..., Communicator]
    probe: Callable[[Start], str | None]
    priority: int = 0
    contract_version: int = COMMUNICATOR_VERSION
    distribution: str = ""
    memory: str = "host"


def check_rank(op: str, name: str, value: Any, size: int) -> int:
    """``value`` if it is a rank of a group of ``size``.

    Example:
        >>> import metafuse as mf
        >>> mf.dist.contract.check_rank("broadcast", "root", 1, 2)
        1
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < size:
        raise ArgumentError(f"[{op}] {name} must be a rank, 0 <= {name} < {size}, got {brief(value)}")
    return int(value)
