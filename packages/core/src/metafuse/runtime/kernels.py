"""Kernels that can be launched: from the kernel IR to loaded code, through the caches.

What it is: per backend, the table of loaded kernels; new ones are looked up on disk, else compiled in parallel batches.
What it is not: the disk cache (``compile_cache``) or the compiler (the backend).
Who calls it: ``runtime.programs`` when it builds one, and the opaque code operator.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from time import perf_counter
from typing import Any

from ..backend.contract import AbstractBackend, Loaded
from ..config import flags
from ..kernel.expr import Expr, walk
from ..kernel.ir import Kernel
from .compile_cache import CompileCache
from .variants import Variants

__all__ = ["KernelTable", "statistics", "symbol_of"]

_ADVICE = "a Var, or an argument of an operator, may vary without new kernels; a number within an expression may not"


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
        self.checked: set[Any] = (
            set()
        )  # code operators with the kinds of their inputs whose texts have no mistakes
        self.variants = Variants()
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
        if flags.debug >= 4:
            from ..debug import log

            for symbol, (source, _) in texts.items():
                log.source(symbol, source, self.backend)
        fingerprint = self.backend.fingerprint()
        result = self._from_disk(fingerprint, texts)
        fresh = [symbol for symbol in texts if symbol not in result]
        if fresh:
            result.update(self._compiled(fingerprint, {symbol: texts[symbol] for symbol in fresh}))
        return result

    def _from_disk(self, fingerprint: str, texts: dict[str, tuple[str, Any]]) -> dict[str, Loaded]:
        symbols = {source: symbol for symbol, (source, _) in texts.items()}
        result: dict[str, Loaded] = {}
        for binary, sources in self.cache.lookup_all(fingerprint, list(symbols)):
            held = [symbols[source] for source in sources]
            try:
                result.update(self.backend.load(binary, {symbol: texts[symbol][1] for symbol in held}))
            except Exception:  # it was made on another system, say: build it again
                continue
            statistics.disk_hits += len(held)
        if flags.debug and result:
            from ..debug import log

            log.from_disk(list(result))
        return result

    def _compiled(self, fingerprint: str, texts: dict[str, tuple[str, Any]]) -> dict[str, Loaded]:
        backend = self.backend
        begin = perf_counter()
        batches = _batches(
            {symbol: len(text) for symbol, (text, _) in texts.items()}, backend.capabilities.compile_jobs
        )

        def build(batch: list[str]) -> bytes:
            return backend.compile([texts[symbol][0] for symbol in batch])

        if len(batches) == 1:
            binaries = [build(batches[0])]
        else:
            with ThreadPoolExecutor(len(batches)) as pool:
                binaries = list(pool.map(build, batches))
        result: dict[str, Loaded] = {}
        for batch, binary in zip(batches, binaries, strict=True):
            statistics.compilations += len(batch)
            result.update(backend.load(binary, {symbol: texts[symbol][1] for symbol in batch}))
            self.cache.store(fingerprint, [texts[symbol][0] for symbol in batch], binary)
        for symbol, (text, kernel) in texts.items():
            if kernel is None:
                self.variants.saw_text("code", text.replace(symbol, "code"))
            else:
                self.variants.saw(kernel.name, *_outline(kernel), _ADVICE)
        if flags.debug:
            from ..debug import log

            log.compiled(list(texts), perf_counter() - begin, len(batches), backend)
        return result


def _batches(lengths: dict[str, int], jobs: int) -> list[list[str]]:
    """At most ``jobs`` lists of names whose lengths add up to about the same: the longest first, each to the list with
    the least. Text is what compilers spend their time on."""
    batches: list[list[str]] = [[] for _ in range(max(1, min(jobs, len(lengths))))]
    totals = [0] * len(batches)
    for name in sorted(lengths, key=lambda name: lengths[name], reverse=True):
        least = totals.index(min(totals))
        batches[least].append(name)
        totals[least] += lengths[name]
    return batches


def symbol_of(kernel: Kernel) -> str:
    """The name under which a kernel is emitted and compiled."""
    return f"{kernel.name}_{_digest(kernel)}"


def _digest(kernel: Kernel) -> str:
    """A name for the kernel's structure that is the same in every process, unlike ``hash``."""
    return hashlib.sha256("\n".join(_lines(kernel, repr)).encode()).hexdigest()[:16]


def _outline(kernel: Kernel) -> tuple[str, tuple[Any, ...]]:
    """The kernel's structure without its literals, and the literals."""
    literals: list[Any] = []

    def taken(value: Any) -> str:
        literals.append(value)
        return "#"

    outline = "\n".join(_lines(kernel, taken))
    return hashlib.sha256(outline.encode()).hexdigest(), tuple(literals)


def _lines(kernel: Kernel, literal: Callable[[Any], str]) -> list[str]:
    lines = [
        f"{kernel.outer} {kernel.inner} {kernel.buffers} {kernel.sizes} {kernel.scalars} {kernel.contraction} {kernel.serial}"
    ]
    numbers: dict[Expr, int] = {}
    for stage in kernel.stages:
        roots = (stage.expr, stage.offset, stage.condition)
        for root in roots:
            for x in walk(root) if root is not None else ():
                if x not in numbers:
                    numbers[x] = len(numbers)
                    value = literal(x.value) if x.op == "const" else repr(x.value)
                    lines.append(f"{x.op} {x.dtype} {value} {[numbers[a] for a in x.args]}")
        at = [None if root is None else numbers[root] for root in roots]
        lines.append(
            f"{stage.kind} {stage.level} {stage.phase} {stage.op} {stage.result} {stage.buffer} {at}"
        )
    return lines
