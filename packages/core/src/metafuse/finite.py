"""Arguments without an end: iterators that go on for ever, and structures that contain themselves.

What it is: ``listed``, which reads an iterator up to a bound, and ``nested``, around what walks nested lists and dictionaries.
What it is not: a check of what is in them; each function knows its own.
Who calls it: whatever takes an iterable of users' or walks their structures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

from .errors import ArgumentError

__all__ = ["LIMIT", "listed", "nested"]

T = TypeVar("T")

#: entries that are read of what does not tell how many it has
LIMIT = 1 << 20


def listed(operator: str, argument: str, values: Iterable[T], limit: int = LIMIT) -> list[T]:
    """What ``values`` holds. Errors: ``ArgumentError`` for an iterator of more than ``limit`` entries.

    Example:
        >>> listed("sync", "vh", iter("ab"))
        ['a', 'b']
    """
    if isinstance(values, Sized):
        try:
            return list(values)
        except MemoryError:
            count = len(values)
            raise ArgumentError(
                f"[{operator}] {argument} has {count} entries, more than memory holds; give fewer"
            ) from None
    found = list(islice(values, limit + 1))
    if len(found) > limit:
        raise ArgumentError(
            f"[{operator}] {argument} is a {type(values).__name__} that goes on after {limit} entries; give a list"
        )
    return found


@contextmanager
def nested(operator: str, argument: str) -> Iterator[None]:
    """Where the body goes through ``argument`` by calling itself: what is too deep for that gets an ``ArgumentError``.

    Example:
        >>> own = []
        >>> own.append(own)
        >>> def depth(value):
        ...     return 1 + max(map(depth, value))
        >>> with nested("depth", "value"):
        ...     depth(own)
        Traceback (most recent call last):
        ...
        metafuse.errors.ArgumentError: [depth] value is nested too deeply, or contains itself
    """
    try:
        yield
    except RecursionError:
        raise ArgumentError(f"[{operator}] {argument} is nested too deeply, or contains itself") from None
