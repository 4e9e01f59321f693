"""Forks of the process while other threads compute.

What it is: a fork waits until no thread evaluates anything, so that the child finds programs, kernels and pending values whole,
and the child gets locks of its own: the threads that held the parent's do not exist there.
What it is not: the locks of single modules (compile cache, registry, libraries), which renew themselves.
Who calls it: Python, at each ``os.fork``; ``runtime.executor`` asks for that. ``subprocess`` starts programs without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from threading import RLock, get_ident
from typing import Any

__all__ = ["between_programs"]

#: a thread that computes for longer may wait for the very thread that forks
PATIENCE_SECONDS = 10.0


def between_programs(lock: Callable[[], Any], renew: Callable[[Any], None]) -> None:
    """Let every fork wait for ``lock()`` from now on, and ``renew`` it in the child."""
    holders: set[int] = set()

    def before() -> None:
        if lock().acquire(timeout=PATIENCE_SECONDS):
            holders.add(get_ident())

    def in_parent() -> None:
        if get_ident() in holders:
            holders.discard(get_ident())
            lock().release()

    def in_child() -> None:
        holders.clear()
        renew(RLock())

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)
