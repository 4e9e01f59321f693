"""``jittor.vcompiler.vcompiler``: functions that are recorded once and replayed.

What it is: ``build``, another way to write ``metafuse.compile``.
What it is not: the recorder.
Who calls it: users.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import metafuse

__all__ = ["build"]


def build(
    func: Callable[..., Any], debug: bool = False, fallback_func: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """``func``, recorded at the first call with arguments of a kind and replayed for others of that kind.

    Args:
        debug: accepted without effect; ``metafuse.explain`` shows what runs.
        fallback_func: called with the same arguments; where it answers true, ``func`` itself is called.

    Example:
        >>> import jittor as jt
        >>> from jittor.vcompiler import build
        >>> twice = build(lambda x: x * 2)
        >>> twice(jt.ones(1)).item(), twice(jt.ones(1) * 3).item()
        (2.0, 6.0)
    """
    compiled = metafuse.compile(func)
    if fallback_func is None:
        return compiled  # type: ignore[no-any-return]

    @wraps(func)
    def choose(*args: Any, **kw: Any) -> Any:
        return func(*args, **kw) if fallback_func(*args, **kw) else compiled(*args, **kw)

    return choose
