"""What this computer is: instruction sets, caches, cores.

What it is: the machine description that kernels are tiled from, and the list of CPU features that compiled code depends on.
What it is not: a model name. Two machines with equal features share compiled kernels, whatever they are called.
Who calls it: ``backend`` (description, memory) and ``compiler`` (fingerprint).
"""

from __future__ import annotations

import os
import platform
import re
import sys
from functools import lru_cache
from pathlib import Path

from metafuse.backend.contract import Machine, default_threads
from metafuse.errors import ArgumentError

__all__ = ["cpu_features", "describe", "memory_limit"]

_CACHE = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@lru_cache(maxsize=None)
def cpu_features() -> frozenset[str]:
    """The instruction-set extensions of the first core as the system names them (``avx2``, ``asimd`` ...)."""
    names: set[str] = {platform.machine().lower(), sys.platform}
    try:
        # Only the first core's lines: the system computes the file core by core.
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
            for line in lines:
                title, _, value = line.partition(":")
                if title.strip() in ("flags", "Features"):
                    return frozenset(names.union(value.split()))
    except OSError:
        pass
    if sys.platform == "darwin":
        names.update(_darwin_features())
    return frozenset(names)


def _darwin_features() -> set[str]:
    """What ``sysctl`` tells on macOS, asked through the C library and not through a process."""
    import ctypes

    library = ctypes.CDLL(None)
    found: set[str] = set()
    for key in ("machdep.cpu.features", "machdep.cpu.leaf7_features", "hw.cpufamily", "hw.cpusubfamily"):
        size = ctypes.c_size_t(4096)
        text = ctypes.create_string_buffer(4096)
        if library.sysctlbyname(key.encode(), text, ctypes.byref(size), None, ctypes.c_size_t(0)) == 0:
            raw = text.raw[: size.value]
            words = (
                raw.rstrip(b"\0").decode("ascii", "replace").lower().split()
                if size.value > 8
                else [raw.hex()]
            )
            found.update(f"{key}:{word}" if len(words) == 1 else word for word in words)
    return found


def _vector_bytes() -> int:
    features = cpu_features()
    if "avx512f" in features:
        return 64
    return 32 if "avx" in features or "avx1.0" in features else 16


def _cache_bytes(level: int, default: int) -> int:
    """The size of a data cache of the first core."""
    try:
        for folder in _CACHE.glob("index*"):
            if (folder / "level").read_text().strip() == str(level):
                if (folder / "type").read_text().strip() != "Instruction":
                    match = re.fullmatch(r"(\d+)([KMG]?)", (folder / "size").read_text().strip())
                    if match and int(match[1]) > 0:
                        return int(match[1]) * _UNITS[match[2]]
    except OSError:
        pass
    return default


def describe() -> Machine:
    """The machine as code generators see it."""
    return Machine(
        cores=default_threads(),
        vector_bytes=_vector_bytes(),
        l1_bytes=_cache_bytes(1, 32 << 10),
        l2_bytes=_cache_bytes(2, 512 << 10),
        # Elsewhere compilers have no such stores, or they bring nothing.
        stream_bytes=_cache_bytes(3, 32 << 20) if "sse2" in cpu_features() else 0,
    )


def memory_limit() -> int:
    """How many bytes the pool may hold: ``METAFUSE_CPU_MEMORY_LIMIT`` (``3000000``, ``512M``, ``4G``), else all memory
    that the machine or the container has. ``ArgumentError`` for a text that is no size."""
    text = os.environ.get("METAFUSE_CPU_MEMORY_LIMIT", "").strip()
    if text:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
        if match is None:
            raise ArgumentError(
                f"[cpu] METAFUSE_CPU_MEMORY_LIMIT is not a size: {text!r}; write bytes or a number with K, M, G or T"
            )
        return int(float(match[1]) * _UNITS[match[2].upper()])
    limits = [_physical_bytes()]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # no such file, or the word "max"
            continue
    return min(limit for limit in limits if limit > 0)


def _physical_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 1 << 62
