"""How many lanes a tile has.

What it is: ``most_lanes``, ``apart`` and ``tile_lines``.
What it is not: the loops over a tile (``lanes``).
Who calls it: ``lanes``.
"""

from __future__ import annotations

from metafuse.backend.contract import Machine
from metafuse.kernel.expr import walk
from metafuse.kernel.ir import Kernel
from metafuse.kernel.scope import affine

__all__ = ["FEWEST", "apart", "most_lanes", "tile_lines"]

_MOST_LANES, FEWEST = 2048, 64
_LINE = 64


def most_lanes(machine: Machine, kinds: list[str]) -> int:
    """As many lanes as let the arrays of a tile fill half of the L1 cache."""
    width = {"double": 8, "long long": 8, "unsigned long long": 8}
    size = sum(width.get(kind, 4) for kind in kinds) or 4
    return max(FEWEST, min(_MOST_LANES, machine.l1_bytes // 2 // size // 64 * 64))


def apart(kernel: Kernel, lane: int) -> str:
    """The condition that what neighbouring lanes read is on different lines of memory, as rows of a matrix are; empty if it never
    is. Fewer lanes then leave more of the cache to each."""
    found: set[str] = set()
    for stage in kernel.stages:
        for x in walk(stage.expr) if stage.level == "inner" else ():
            step = affine(x.args[0]).coefficients.get(lane) if x.op == "load" else None
            if step is not None and step.op == "size":
                found.add(f"sizes[{step.value}] > {_LINE // kernel.buffers[x.value].dtype.itemsize}")
    return " || ".join(sorted(found))


def tile_lines(lane: int, others: list[int], machine: Machine, most: int, distant: str) -> list[str]:
    """Lanes per tile: enough tiles for all cores, each a multiple of 16 lanes and as equal as can be.

    The lines define ``tile``, the ``count`` of tiles and of ``points`` that each of them has, and, if there is a condition
    ``distant`` (see ``apart``), whether it is so: then the points of a tile had better follow each other, since they read the
    same lines of memory."""
    points = " * ".join(f"sizes[{number}]" for number in others) or "1"
    lines = [f"const long long lanes = sizes[{lane}], points = {points};"]
    limit = str(most)
    if distant:
        lines.append(f"const bool apart = {distant};")
        limit = f"(apart ? {FEWEST} : {most})"
    return [
        *lines,
        f"long long tile = (lanes * points + {2 * machine.cores - 1}) / {2 * machine.cores};",
        f"tile = tile < {FEWEST} ? {FEWEST} : tile > {limit} ? {limit} : tile;",
        "const long long even = (lanes + tile - 1) / tile;",
        "tile = even > 1 ? ((lanes + even - 1) / even + 15) / 16 * 16 : tile;",
        "const long long count = (lanes + tile - 1) / tile;",
    ]
