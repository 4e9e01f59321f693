"""What ``flags.debug`` prints: one line after another on stderr, each starting with what it is about.

What it is: ``tell`` and the messages about devices, caches and compilations (level 1), sources (4) and assembly (5).
What it is not: on any path while ``flags.debug`` is 0; callers check the flag before they import this module.
Who calls it: ``runtime`` and, through ``debug.launches`` (level 2) and ``debug.passes`` (level 3), the whole pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..backend.contract import AbstractBackend
from ..backend.optional import SupportsAssembly
from ..config import flags
from .output import put
from .text import counted

__all__ = ["compiled", "device", "from_disk", "source", "tell"]


def tell(topic: str, text: str) -> None:
    """Print ``text`` under ``topic``; several lines are indented below the first."""
    put("i", topic, text)


def device(backend: AbstractBackend) -> None:
    """A backend is used for the first time."""
    m = backend.capabilities.machine
    tell(
        "device",
        f"{backend.name}: {m.cores} threads, vectors of {m.vector_bytes} bytes, "
        f"L1 {m.l1_bytes >> 10} KiB, L2 {m.l2_bytes >> 10} KiB per core",
    )


def from_disk(symbols: Sequence[str]) -> None:
    """Kernels were found in the disk cache."""
    tell("cache", f"{counted(len(symbols), 'kernel')} from disk: {', '.join(symbols)}")


def compiled(symbols: Sequence[str], seconds: float, jobs: int, backend: AbstractBackend) -> None:
    """Kernels were compiled."""
    tell(
        "compile",
        f"{counted(len(symbols), 'kernel')} on {backend.name} in {seconds * 1e3:.0f} ms, {jobs} at a time: {', '.join(symbols)}",
    )


def source(symbol: str, text: str, backend: AbstractBackend) -> None:
    """A kernel's source is about to be compiled or looked up."""
    tell("source", f"{symbol}\n{text}")
    if flags.debug >= 5:
        if isinstance(backend, SupportsAssembly):
            tell("assembly", f"{symbol}\n{backend.assembly(text)}")
        else:
            tell("assembly", f"backend {backend.name!r} can't show assembly")
