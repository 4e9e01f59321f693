"""Values handed to a function when they are there, without waiting for them.

What it is: ``fetch`` and ``fetch_sync``.
What it is not: a thread: functions are called by the evaluation that made the last of their values, in the order of the calls.
Who calls it: users, for losses and metrics that are printed while training goes on.
"""

from __future__ import annotations

import atexit
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from threading import Lock
from typing import Any

import numpy as np

from ..errors import ArgumentError, DTypeError
from ..finite import listed
from ..runtime import executor
from ..var import Var, sync, sync_all
from .autograd import no_grad
from .meta import identity

__all__ = ["fetch", "fetch_sync"]

#: (arguments, function) that were not called yet; Vars among the arguments are held here, so evaluations compute them
_waiting: deque[tuple[list[Any], Callable[..., Any]]] = deque()
_delivering = Lock()


def fetch(*args: Any) -> None:
    """Call the last argument with all others, Vars as NumPy arrays, once these are computed.

    Nothing is evaluated for it and nothing waits: the function is called at the end of the first evaluation after which all the
    values exist (at once, if they do already; at the latest when the process ends). Functions are called in the order of the
    calls of ``fetch``. What one raises comes out of that evaluation.

    Args:
        args: Vars and anything else, then a function of as many arguments. As a method, ``x.fetch(function)``, the Var is first.

    Errors:
        ArgumentError where the last argument can't be called.

    Example:
        >>> import metafuse as mf
        >>> x = mf.array([1.0, 2.0])
        >>> mf.fetch("sum", x.sum(), lambda name, value: print(name, value))
        >>> (x * 2).numpy()
        sum [3.]
        array([2., 4.], dtype=float32)
    """
    if not args or isinstance(args[-1], Var) or not callable(args[-1]):
        raise ArgumentError("[fetch] the last argument must be a function that takes the values")
    kept: list[Any] = []
    with no_grad():
        for value in args[:-1]:
            if isinstance(value, Var):
                for watcher in executor.watchers:
                    watcher.was_read(value._node)
                value = identity(value)  # what it holds now, whatever the Var becomes
            kept.append(value)
    if deliver not in executor.finished:
        executor.finished.append(deliver)
        atexit.register(_flush)
    _waiting.append((kept, args[-1]))
    deliver()


def fetch_sync(vh: Sequence[Var]) -> list[np.ndarray[Any, Any]]:
    """The values of several Vars as NumPy arrays, computed as one program.

    Example:
        >>> import metafuse as mf
        >>> mf.fetch_sync([mf.ones(2), mf.zeros(1)])
        [array([1., 1.], dtype=float32), array([0.], dtype=float32)]
    """
    if isinstance(vh, (str, bytes, np.ndarray)) or not isinstance(vh, Iterable):
        raise DTypeError(f"[fetch_sync] vh must be a list of Vars, got {type(vh).__name__}")
    values = listed("fetch_sync", "vh", vh) if not isinstance(vh, Var) else [vh]
    for k, value in enumerate(values):
        if not isinstance(value, Var):
            raise DTypeError(f"[fetch_sync] vh[{k}] must be a Var, got {type(value).__name__}")
    sync(values)
    return [value.numpy() for value in values]


def deliver() -> None:
    """Call the functions whose values are there, oldest first, up to one that has to wait."""
    if not _waiting or not _delivering.acquire(
        blocking=False
    ):  # a function that evaluates something comes here again
        return
    try:
        while _waiting and all(
            v._node.buffer is not None or _known(v) for v in _waiting[0][0] if isinstance(v, Var)
        ):
            kept, function = _waiting.popleft()
            function(*(executor.read(v._node) if isinstance(v, Var) else v for v in kept))
    finally:
        _delivering.release()


def _known(value: Var) -> bool:
    """Whether the value is that of something stored: ``identity`` of it needs no program."""
    return value._node.inputs[0].buffer is not None


def _flush() -> None:
    while _waiting:
        before = len(_waiting)
        sync_all()
        deliver()
        if len(_waiting) == before:
            return


Var.fetch = fetch  # type: ignore[attr-defined]


def _fetch_sync(x: Var) -> np.ndarray[Any, Any]:
    """The value as a NumPy array.

    Example:
        >>> import metafuse as mf
        >>> mf.ones(2).fetch_sync()
        array([1., 1.], dtype=float32)
    """
    return x.numpy()


_fetch_sync.__name__ = "fetch_sync"
Var.fetch_sync = _fetch_sync  # type: ignore[attr-defined]
