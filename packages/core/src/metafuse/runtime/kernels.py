"""Kernels that can be launched: from the kernel IR to loaded code, through the caches.

What it is: per backend, the table of loaded kernels; new ones are looked up on disk, else compiled in parallel batches.
What it is not: the disk cache (``compile_cache``) or the compiler (the backend).
Who calls it: ``runtime.executor`` when it builds a program, and the opaque code operator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from time import perf_counter
from typing import Any

from ..backend.contract import AbstractBackend, Loaded
from ..config import flags
from ..kernel.expr import Expr, walk
from ..kernel.ir import Kernel
from .compile_cache import CompileCache

__all__ = ["KernelTable", "statistics", "symbol_of"]


class Statistics:
    """Counters since the process started; tests and ``explain`` read them."""

    __slots__ = ("compilations", "disk_hits", "launches", "programs", "plans")

    def __init__(self) -> None:
        self.compilations = self.disk_hits = self.launches = self.programs = self.plans = 0


statistics = Statistics()


class KernelTable:
    """Loaded kernels of one backend."""

    def __init__(self, backend: AbstractBackend) -> None:
        self.backend = backend
        self.loaded: dict[Kernel, Loaded] = {}
        self.sources: dict[str, Loaded] = {}
        self.snippets: dict[Any, Loaded] = {}  # a user's snippet with the kinds of its arrays -> code
        self._cache: CompileCache | None = None
        self._lock = Lock()

    @property
    def cache(self) -> CompileCache:
        """The disk cache, opened on first use."""
        if self._cache is None:
            self._cache = CompileCache()
        return self._cache

    def obtain(self, kernels: Sequence[Kernel]) -> list[Loaded]:
        """Loaded code for every kernel, compiling those that are new."""
        missing = [k for k in dict.fromkeys(kernels) if k not in self.loaded]
        if missing:
            with self._lock:
                named = [(k, symbol_of(k)) for k in missing if k not in self.loaded]
                texts = {symbol: (self.backend.emit(k, symbol), k) for k, symbol in named}
                for symbol, loaded in self._load_all(texts).items():
                    self.loaded[texts[symbol][1]] = loaded
        return [self.loaded[k] for k in kernels]

    def obtain_source(self, symbol: str, source: str) -> Loaded:
        """Loaded code for a text that is no kernel (a user's snippet)."""
        with self._lock:
            if source not in self.sources:
                self.sources[source] = self._load_all({symbol: (source, None)})[symbol]
            return self.sources[source]

    def _load_all(self, texts: dict[str, tuple[str, Any]]) -> dict[str, Loaded]:
        backend = self.backend
        fingerprint = backend.fingerprint()
        result: dict[str, Loaded] = {}
        fresh: list[str] = []
        if flags.debug >= 4:
            from ..debug import log

            for symbol, (source, _) in texts.items():
                log.source(symbol, source, backend)
        for symbol, (source, kernel) in texts.items():
            binary = self.cache.lookup(fingerprint, source)
            loaded = None if binary is None else self._load_cached(binary, symbol, kernel)
            if loaded is None:
                fresh.append(symbol)
            else:
                statistics.disk_hits += 1
                result[symbol] = loaded
        if flags.debug and result:
            from ..debug import log

            log.from_disk(list(result))
        if not fresh:
            return result
        jobs = max(1, min(backend.capabilities.compile_jobs, len(fresh)))
        batches = [fresh[k::jobs] for k in range(jobs)]
        begin = perf_counter()

        def build(batch: list[str]) -> bytes:
            return backend.compile([texts[s][0] for s in batch])

        if jobs == 1:
            binaries = [build(batches[0])]
        else:
            with ThreadPoolExecutor(jobs) as pool:
                binaries = list(pool.map(build, batches))
        for batch, binary in zip(batches, binaries, strict=True):
            statistics.compilations += len(batch)
            result.update(backend.load(binary, {s: texts[s][1] for s in batch}))
            self.cache.store(fingerprint, [texts[s][0] for s in batch], binary)
        if flags.debug:
            from ..debug import log

            log.compiled(fresh, perf_counter() - begin, jobs, backend)
        return result

    def _load_cached(self, binary: bytes, symbol: str, kernel: Any) -> Loaded | None:
        """A cached module that does not load any more (another system library, say) is built again."""
        try:
            return self.backend.load(binary, {symbol: kernel})[symbol]
        except Exception:
            return None


def symbol_of(kernel: Kernel) -> str:
    """The name under which a kernel is emitted and compiled."""
    return f"{kernel.name}_{_digest(kernel)}"


def _digest(kernel: Kernel) -> str:
    """A name for the kernel's structure that is the same in every process, unlike ``hash``."""
    lines = [
        f"{kernel.outer} {kernel.inner} {kernel.buffers} {kernel.sizes} {kernel.scalars} {kernel.contraction}"
    ]
    numbers: dict[Expr, int] = {}
    for stage in kernel.stages:
        roots = (stage.expr, stage.offset, stage.condition)
        for root in roots:
            for x in walk(root) if root is not None else ():
                if x not in numbers:
                    numbers[x] = len(numbers)
                    lines.append(f"{x.op} {x.dtype} {x.value!r} {[numbers[a] for a in x.args]}")
        at = [None if root is None else numbers[root] for root in roots]
        lines.append(
            f"{stage.kind} {stage.level} {stage.phase} {stage.op} {stage.result} {stage.buffer} {at}"
        )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
