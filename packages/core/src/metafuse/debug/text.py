"""Nodes, kernels and plans in words.

What it is: functions from the records of the pipeline to lines of text; sizes and times in units that people read.
What it is not: a format to be parsed; it may change.
Who calls it: ``debug.explain``, ``debug.launches`` and ``debug.passes``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..graph.node import Node, describe_origin
from ..kernel.ir import Contraction, Kernel, Operand

__all__ = [
    "amount",
    "columns",
    "contraction_line",
    "counted",
    "duration",
    "node_rows",
    "origin",
    "phases_line",
    "relative",
]


def amount(nbytes: float) -> str:
    """Bytes for people.

    Example:
        >>> amount(512), amount(65536), amount(3 << 20)
        ('512 B', '64.0 KiB', '3.0 MiB')
    """
    for unit in ("B", "KiB", "MiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.2f} GiB"


def counted(number: int, word: str) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "kernel"), counted(2, "launch")
        ('1 kernel', '2 launches')
    """
    ending = "" if number == 1 else "es" if word.endswith("ch") else "s"
    return f"{number} {word}{ending}"


def duration(seconds: float) -> str:
    """A time for people.

    Example:
        >>> duration(2.5e-6), duration(0.0125)
        ('2.5 us', '12.50 ms')
    """
    if seconds < 1e-3:
        return f"{seconds * 1e6:.1f} us"
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def columns(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Rows of cells as lines in which columns stand below each other."""
    if not rows:
        return []
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]


def origin(node: Node) -> str:
    """``file:line`` of the user's code, below the current folder where possible."""
    return relative(describe_origin(node))


def relative(place: str) -> str:
    """A path, below the current folder where possible."""
    here = os.getcwd() + os.sep
    return place[len(here) :] if place.startswith(here) else place


def node_rows(nodes: Sequence[Node], leaves: Sequence[Node]) -> list[list[str]]:
    """One row per leaf and node: name, operator, spec, inputs and numbers, place in the user's code."""
    names = {leaf: f"a{k}" for k, leaf in enumerate(leaves)}
    names.update((node, f"n{k}") for k, node in enumerate(nodes))
    rows = [[names[leaf], "array", repr(leaf.spec), "stored", ""] for leaf in leaves]
    for node in nodes:
        inputs = [names.get(x, "?") for x in node.inputs]
        numbers = [f"{x:g}" if isinstance(x, float) else str(x) for x in node.scalars]
        rows.append([names[node], node.sig.name, repr(node.spec), ", ".join(inputs + numbers), origin(node)])
    return rows


def phases_line(kernel: Kernel) -> str:
    """How many stages of which kind each phase has."""
    parts = []
    for phase in sorted({stage.phase for stage in kernel.stages}):
        words = [f"{s.kind} {s.op}".strip() for s in kernel.stages if s.phase == phase]
        counted = {word: words.count(word) for word in words}
        parts.append(", ".join(w if n == 1 else f"{n} x {w}" for w, n in counted.items()))
    return "; ".join(f"phase {k}: {part}" for k, part in enumerate(parts))


def contraction_line(match: Contraction, sizes: Sequence[int]) -> str:
    """The roles of a contraction's axes with their extents, and how its operands are addressed."""

    def role(name: str, axes: Sequence[int]) -> str:
        return f"{name} " + (" x ".join(f"{sizes[k]}" for k in axes) if axes else "1")

    roles = ", ".join(
        role(name, axes)
        for name, axes in (("batch", match.batch), ("m", match.m), ("n", match.n), ("k", match.k))
    )
    return f"{roles}; a = buffer {match.a.buffer} {_traits(match.a)}, b = buffer {match.b.buffer} {_traits(match.b)}"


def _traits(operand: Operand) -> str:
    traits = []
    if any(d.divisor is not None for d in operand.dims):
        traits.append("strided scatter")
    if any(d.guarded for d in operand.dims):
        traits.append("padded")
    if any(len(d.coefficients) > 1 for d in operand.dims):
        traits.append("window")
    return f"({', '.join(traits or ['plain'])})"
