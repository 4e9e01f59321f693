"""One process on its own, as a group.

What it is: the communicator of a program that nobody started several times; everything is trivially right.
What it is not: a fallback for a broken installation (``process`` refuses that).
Who calls it: ``process``.
"""

from __future__ import annotations

from .contract import Array, Communicator

__all__ = ["Alone"]


class Alone(Communicator):
    """A group of one."""

    name = "alone"
    rank, size = 0, 1

    def split(self, color: int | None, key: int = 0) -> Communicator | None:
        """The same again."""
        return None if color is None else Alone()

    def all_reduce(self, source: Array, target: Array, op: str) -> None:
        """A copy."""
        _copy(source, target)

    def reduce(self, source: Array, target: Array, op: str, root: int) -> None:
        """A copy."""
        _copy(source, target)

    def broadcast(self, source: Array, target: Array, root: int) -> None:
        """A copy."""
        _copy(source, target)

    def all_gather(self, source: Array, target: Array) -> None:
        """A copy."""
        _copy(source, target)

    def reduce_scatter(self, source: Array, target: Array, op: str) -> None:
        """A copy."""
        _copy(source, target)

    def barrier(self) -> None:
        """Nothing to do."""

    def send(self, array: Array, dest: int, tag: int = 0) -> None:
        """Keep it for ``recv``."""
        self._kept().append((tag, array.copy()))

    def recv(self, array: Array, source: int, tag: int = 0) -> None:
        """What ``send`` kept."""
        from ..errors import DistributionError

        kept = self._kept()
        found = next((entry for entry in kept if entry[0] == tag), None)
        if found is None or found[1].nbytes != array.nbytes:
            raise DistributionError(
                "[recv] this process is alone and has sent nothing of this size to itself; start several with "
                "python -m metafuse launch"
            )
        kept.remove(found)
        array.reshape(-1)[...] = found[1].reshape(-1).view(array.dtype)

    def _kept(self) -> list[tuple[int, Array]]:
        self.__dict__.setdefault("_messages", [])
        return self.__dict__["_messages"]  # type: ignore[no-any-return]


def _copy(source: Array, target: Array) -> None:
    if target is not source:
        target.reshape(-1)[...] = source.reshape(-1)
