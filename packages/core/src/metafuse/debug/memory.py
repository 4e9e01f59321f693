"""Which arrays are alive, how large they are, and which line made them.

What it is: ``live_arrays`` for programs and ``display_memory_info`` for people.
What it is not: a count of the process's memory; a backend's pool keeps freed memory for later arrays.
Who calls it: users who look for what holds their memory.
"""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass
from typing import TextIO

from ..errors import DTypeError
from ..graph.node import Node, state
from ..runtime import executor
from ..runtime.buffer import live_bytes
from .text import amount, columns, origin

__all__ = ["LiveArray", "display_memory_info", "live_arrays"]


@dataclass(frozen=True)
class LiveArray:
    """A stored array: its spec as text, bytes, the operator and line that made it, and the name of the Var that holds it.

    ``held`` is false where only the graph of a possible gradient keeps it."""

    spec: str
    nbytes: int
    operator: str
    origin: str
    name: str
    held: bool


def live_arrays() -> list[LiveArray]:
    """Every stored array, the largest first.

    Example:
        >>> import metafuse as mf
        >>> x = mf.ones(1000).name("weights").sync()
        >>> [(a.nbytes, a.held) for a in mf.debug.live_arrays() if a.name == "weights"]
        [(4000, True)]
    """
    found: list[LiveArray] = []
    for node in gc.get_objects():
        if type(node) is not Node or getattr(node, "buffer", None) is None:
            continue
        var = node.handle() if node.handle is not None else None
        held = var is not None and var._node is node
        assert node.buffer is not None
        found.append(
            LiveArray(
                repr(node.spec),
                node.buffer.nbytes,
                node.sig.name,
                origin(node),
                (var.name() if held and var is not None else "") or "",
                held,
            )
        )
    found.sort(key=lambda a: -a.nbytes)
    return found


def display_memory_info(limit: int = 20, file: TextIO | None = None) -> None:
    """Print totals and the ``limit`` largest stored arrays to ``file`` (stderr): size, operator, line, name.

    Example:
        >>> import sys
        >>> import metafuse as mf
        >>> mf.debug.display_memory_info(limit=0, file=sys.stdout)  # doctest: +ELLIPSIS
        arrays: ...
    """
    if not isinstance(limit, int) or (file is not None and not hasattr(file, "write")):
        raise DTypeError(
            f"[display_memory_info] needs a number and an open file, got a {type(limit).__name__} and a {type(file).__name__}"
        )
    arrays = live_arrays()
    out = file if file is not None else sys.stderr
    pending = sum(handle() is not None for handle in state.pending)
    print(
        f"arrays: {len(arrays)} of {amount(live_bytes.now)} in {live_bytes.count} buffers, at most {amount(live_bytes.peak)}; "
        f"{pending} pending values",
        file=out,
    )
    for name, dev in executor.devices.items():
        stats = getattr(dev.backend, "memory_stats", None)
        if stats is not None:
            print(f"{name}: " + ", ".join(f"{k} {v}" for k, v in stats().items()), file=out)
    rows = [
        [
            amount(a.nbytes),
            a.spec,
            a.operator,
            a.origin,
            a.name or ("" if a.held else "(kept for a gradient)"),
        ]
        for a in arrays[:limit]
    ]
    for line in columns(rows):
        print(line, file=out)
    if limit and len(arrays) > limit:
        print(f"  and {len(arrays) - limit} more", file=out)
