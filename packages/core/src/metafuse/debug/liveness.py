"""How much is alive: Vars, values, recorded operations, memory; and how to let go of what is not needed.

What it is: ``liveness_info`` and the counts it consists of, ``dump_all_graphs``, ``graph_check``, ``gc``, ``clean``, and figures
about memory for programs (``memory`` prints them for people).
What it is not: needed for memory to be freed: values go when nobody holds them.
Who calls it: users who look for what grows.
"""

from __future__ import annotations

import gc as _python
import os
import sys
from dataclasses import dataclass
from typing import Any, TextIO

from ..arguments import checked
from ..errors import BackendError
from ..graph.node import Node, describe_origin, state
from ..runtime import executor
from ..runtime.buffer import live_bytes
from ..var import Var, sync_all
from .text import amount

__all__ = [
    "DumpGraphs", "MemInfo", "clean", "display_max_memory_info", "dump_all_graphs", "gc", "get_max_memory_info", "get_mem_info",
    "graph_check", "liveness_info", "number_of_hold_vars", "number_of_lived_ops", "number_of_lived_vars",
]  # fmt: skip


def _nodes() -> list[Node]:
    """Every node that exists, oldest first."""
    found = [x for x in _python.get_objects() if isinstance(x, Node) and hasattr(x, "order")]
    found.sort(key=lambda node: node.order)
    return found


def _pending() -> list[Node]:
    """What has not run and somebody holds, with everything it needs that has not run either."""
    found: dict[Node, None] = {}
    stack = [var._node for handle in state.pending if (var := handle()) is not None]
    while stack:
        node = stack.pop()
        if node.buffer is None and node not in found:
            found[node] = None
            stack.extend(node.inputs)
    return list(found)


def _is_operation(node: Node) -> bool:
    """Whether a node may still be run or differentiated."""
    return node.sig.kind != "leaf" and (node.buffer is None or bool(node.inputs))


@checked
def number_of_hold_vars() -> int:
    """How many Vars the program holds.

    Example:
        >>> import metafuse as mf
        >>> x = mf.ones(2)
        >>> mf.number_of_hold_vars() >= 1
        True
    """
    return sum(isinstance(x, Var) for x in _python.get_objects())


@checked
def number_of_lived_vars() -> int:
    """How many values exist, stored or pending.

    Example:
        >>> import metafuse as mf
        >>> x = mf.ones(2)
        >>> mf.number_of_lived_vars() >= 1
        True
    """
    return len(_nodes())


@checked
def number_of_lived_ops() -> int:
    """How many recorded operations exist: those that have not run, and those that a gradient may go through.

    Example:
        >>> import metafuse as mf
        >>> x = mf.ones(2) * 2
        >>> mf.number_of_lived_ops() >= 1
        True
    """
    return sum(map(_is_operation, _nodes()))


@checked
def liveness_info() -> dict[str, int]:
    """All three counts. A loop in which one of them grows holds on to something: see ``debug.live_arrays``.

    Example:
        >>> import metafuse as mf
        >>> before = mf.liveness_info()
        >>> x = mf.ones(3) + 1
        >>> after = mf.liveness_info()
        >>> after["hold_vars"] - before["hold_vars"], after["lived_ops"] - before["lived_ops"]
        (1, 2)
    """
    nodes = _nodes()
    return {
        "hold_vars": number_of_hold_vars(),
        "lived_vars": len(nodes),
        "lived_ops": sum(map(_is_operation, nodes)),
    }


@checked
@dataclass(frozen=True)
class DumpGraphs:
    """Every value that exists: a line about each, the numbers of those it is computed from and that are computed from it, and the
    numbers of those that a Var stands for."""

    nodes_info: list[str]
    inputs: list[list[int]]
    outputs: list[list[int]]
    hold_vars: list[int]


@checked
def dump_all_graphs() -> DumpGraphs:
    """The graph of everything that is alive. ``explain`` shows what one value needs, and what becomes of it.

    Example:
        >>> import metafuse as mf
        >>> x = mf.ones(3).name("x") + 1
        >>> dump = mf.dump_all_graphs()
        >>> dump.nodes_info[dump.hold_vars[-1]].split()[:3], len(dump.inputs[dump.hold_vars[-1]])
        (['add', 'float32[3]', 'pending'], 1)
    """
    nodes = _nodes()
    number = {node: k for k, node in enumerate(nodes)}
    inputs = [[number[x] for x in node.inputs if x in number] for node in nodes]
    outputs: list[list[int]] = [[] for _ in nodes]
    lines, held = [], []
    for k, node in enumerate(nodes):
        for i in inputs[k]:
            outputs[i].append(k)
        var = node.handle() if node.handle is not None else None
        if var is not None and var._node is node:
            held.append(k)
        name = f" {var.name()!r}" if var is not None and var._node is node and var.name() else ""
        status = "pending" if node.buffer is None else f"stored, {amount(node.buffer.nbytes)}"
        lines.append(f"{node.sig.name} {node.spec!r} {status}{name} at {describe_origin(node)}")
    return DumpGraphs(lines, inputs, outputs, held)


@checked
def graph_check() -> None:
    """Check every recorded operation that has not run against its signature.

    Errors: BackendError that names the operation and the line that recorded it; it would be a defect of metafuse.

    Example:
        >>> import metafuse as mf
        >>> x = mf.ones(2) * 2
        >>> mf.graph_check()
    """
    for node in _pending():
        wrong = ""
        if tuple(x.spec for x in node.inputs) != node.sig.inputs:
            wrong = f"its inputs are {[x.spec for x in node.inputs]}"
        elif any(x.order >= node.order for x in node.inputs):
            wrong = "it is older than one of its inputs"
        elif node.spec is not node.sig.spec:
            wrong = f"its result is {node.spec!r}"
        if wrong:
            raise BackendError(f"[graph_check] {node.sig!r}, recorded at {describe_origin(node)}: {wrong}")


@checked
def gc() -> None:
    """Free what only reference cycles hold, and give memory that backends keep for later arrays back to the system.

    Example:
        >>> import metafuse as mf
        >>> mf.gc()
    """
    _python.collect()
    for device in list(executor.devices.values()):
        trim = getattr(device.backend, "trim", None)
        if trim is not None:
            trim()


@checked
def clean() -> None:
    """Compute everything that is pending and held, then ``gc``.

    Example:
        >>> import metafuse as mf
        >>> mf.clean()
    """
    sync_all(True)
    gc()


@checked
@dataclass(frozen=True)
class MemInfo:
    """Bytes: of the machine, and of arrays on it; of CUDA devices the same, 0 where there is none."""

    total_cpu_ram: int
    total_cpu_used: int
    total_cuda_ram: int = 0
    total_cuda_used: int = 0


@checked
def get_mem_info() -> MemInfo:
    """How much memory there is and how much of it arrays take.

    Example:
        >>> import metafuse as mf
        >>> info = mf.get_mem_info()
        >>> 0 <= info.total_cpu_used <= info.total_cpu_ram
        True
    """
    total = 0
    figures = [0, 0]
    for name, device in executor.devices.items():
        if name.startswith("cuda"):
            stats: dict[str, int] = getattr(device.backend, "memory_stats", dict)()
            figures[0] += stats.get("bytes_total", 0)
            figures[1] += stats.get("bytes_in_use", 0)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    used = max(live_bytes.now - figures[1], 0)
    return MemInfo(total, used, *figures)


@checked
def get_max_memory_info() -> str:
    """How much memory arrays took at most, in words.

    Example:
        >>> import metafuse as mf
        >>> type(mf.get_max_memory_info()).__name__
        'str'
    """
    return f"arrays took {amount(live_bytes.peak)} at most, {amount(live_bytes.now)} now"


@checked
def display_max_memory_info(file: TextIO | None = None) -> None:
    """Print ``get_max_memory_info()`` to ``file`` (stderr).

    Example:
        >>> import metafuse as mf
        >>> import sys
        >>> mf.display_max_memory_info(sys.stderr)
    """
    out: Any = file if file is not None else sys.stderr
    print(get_max_memory_info(), file=out)
