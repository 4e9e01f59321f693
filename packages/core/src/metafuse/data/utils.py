"""Small helpers by the reference API's module name ``dataset.utils``.

What it is: ``HookTimer``, and names that live in other modules.
What it is not: new behaviour.
Who calls it: users.
"""

from __future__ import annotations

import time
from typing import Any

from ..arguments import checked
from ..errors import ArgumentError
from .collate import collate_batch
from .sampler import get_order_list, get_random_list

__all__ = ["HookTimer", "collate_batch", "get_order_list", "get_random_list"]


@checked
class HookTimer:
    """Takes the place of ``obj.attr``, a function, and measures the seconds spent in it: ``duration``; ``count`` calls.

    Example:
        >>> import metafuse as mf
        >>> class Reader:
        ...     def read(self):
        ...         return 5
        >>> reader = Reader()
        >>> timer = mf.data.HookTimer(reader, "read")
        >>> reader.read() + reader.read(), timer.count
        (10, 2)
    """

    def __init__(self, obj: Any, attr: str) -> None:
        if not callable(getattr(obj, attr, None)):
            raise ArgumentError(f"[HookTimer] obj, a {type(obj).__name__}, has no function {attr!r}")
        self.origin = getattr(obj, attr)
        self.duration = 0.0
        self.count = 0
        try:
            setattr(obj, attr, self)
        except AttributeError as error:
            raise ArgumentError(
                f"[HookTimer] {attr!r} of a {type(obj).__name__} can't be replaced: {error}"
            ) from None

    def __call__(self, *args: Any, **kw: Any) -> Any:
        """What the function answers."""
        began = time.perf_counter()
        try:
            return self.origin(*args, **kw)
        finally:
            self.duration += time.perf_counter() - began
            self.count += 1
