"""Where lines that metafuse tells go: stderr, a file, or whoever captures them.

What it is: ``put``, the one writer of notices and of what ``flags.debug`` tells, and ``log_capture_scope``.
What it is not: Python's ``logging``; what a user's program logs is its own affair.
Who calls it: ``config.notice``, ``debug.log``, and users, as ``metafuse.log_capture_scope``.
"""

from __future__ import annotations

import sys
from contextlib import ContextDecorator
from typing import Any

from ..config import flag_scope, flags

__all__ = ["log_capture_scope", "put"]

#: lists of those who capture lines now; the last one gets them
_captured: list[list[dict[str, str]]] = []


def put(level: str, topic: str, text: str) -> None:
    """Write one message; ``level`` is ``"i"`` for what was asked for and ``"w"`` for notices."""
    if _captured:
        _captured[-1].append({"level": level, "name": topic, "msg": text})
        return
    head = f"metafuse [{topic}] " if topic else "metafuse: "
    line = head + text.rstrip("\n").replace("\n", "\n    ")
    path = flags.log_file
    if path:
        with open(path, "a", encoding="utf-8") as file:
            print(line, file=file)
    else:
        print(line, file=sys.stderr, flush=True)


class log_capture_scope(ContextDecorator):  # noqa: N801 - the reference API's name
    """Collect what metafuse tells in a ``with`` block instead of printing it, with flags that decide how much that is.

    The block gets a list of dicts with the keys ``level``, ``name`` (what the line is about: ``compile``, ``launch``, ``pass
    fuse`` ...) and ``msg``. Flags are set as in ``flag_scope``: ``debug=2``, or the reference API's ``log_v=10``.

    Example:
        >>> import metafuse as mf
        >>> with mf.log_capture_scope(debug=2) as lines:
        ...     y = (mf.ones(3) + 1).sync()
        >>> sum(line["name"] == "launch" for line in lines)
        1
    """

    def __init__(self, **values: Any) -> None:
        self._values = values
        self._scope = flag_scope(**values)
        self._lines: list[list[dict[str, str]]] = []

    def _recreate_cm(self) -> log_capture_scope:
        return type(self)(**self._values)

    def __enter__(self) -> list[dict[str, str]]:
        self._scope.__enter__()
        lines: list[dict[str, str]] = []
        self._lines.append(lines)
        _captured.append(lines)
        return lines

    def __exit__(self, *exception: object) -> None:
        own = self._lines.pop()
        for k in reversed(range(len(_captured))):
            if _captured[k] is own:
                del _captured[k]
                break
        self._scope.__exit__(*exception)
